//! Having a call served by a group's leader: here, or on its node.
//!
//! Invariant: a call goes to another node again only after a certain "nothing was done", and only
//! from the node that the client asked.

use braid_env::time::Instant;
use braid_probe::{Mark, reachable};
use braid_proto::v1::braid_client::BraidClient;
use braid_proto::v1::{ErrorReason, Outcome};
use braid_stream::ids::GroupId;
use braid_transport::Channel;
use tonic::{Response, Status};

use super::error::{ApiError, detail_of};
use super::{Call, Service};
use crate::routing::forward::CallError;
use crate::routing::{LEADER_WAIT, Target};

impl Service {
    /// `here` serves the call where this node leads the group; `there` makes the same call of
    /// another node. Both may be called several times, each after a refusal that left nothing done.
    pub(super) async fn at_leader<R, Here, There>(
        &self,
        group: GroupId,
        call: &Call,
        here: impl Fn() -> Here,
        there: impl Fn(BraidClient<Channel>) -> There,
    ) -> Result<R, ApiError>
    where
        Here: Future<Output = Result<R, ApiError>>,
        There: Future<Output = Result<Response<R>, Status>>,
    {
        let until = call.deadline.min(Instant::now() + LEADER_WAIT);
        loop {
            let refused = match self.router.target(group, call.forwarded, until).await? {
                Target::Here => match here().await {
                    Err(error) if error.explain().is_elsewhere() => error,
                    served => return served,
                },
                Target::There(address) => match self.on_node(group, &address, &there).await {
                    Err(error) if error.explain().is_elsewhere() => error,
                    served => return served,
                },
            };
            if call.forwarded || Instant::now() >= until {
                return Err(refused);
            }
            reachable!(Mark::CallLooksAgain);
            let named = refused.explain().detail.leader_address;
            self.router.look_again(group, self.router.node_at(&named)).await;
        }
    }

    async fn on_node<R, There>(
        &self,
        group: GroupId,
        address: &str,
        there: &impl Fn(BraidClient<Channel>) -> There,
    ) -> Result<R, ApiError>
    where
        There: Future<Output = Result<Response<R>, Status>>,
    {
        // A node that cannot be reached will not lead for long: as if it had said so itself.
        let unreached = ApiError::NotLeader { group, leader: None };
        self.metrics.requests.forwarded.increment(1);
        reachable!(Mark::CallForwarded);
        match self.router.channels.call(address, there).await {
            Ok(answer) => Ok(answer),
            Err(CallError::NotSent) => Err(unreached),
            Err(CallError::Failed(status)) => Err(not_leading(group, &status).unwrap_or(ApiError::Passed(status))),
        }
    }
}

/// The node asked said that it does not lead, and so did nothing.
fn not_leading(group: GroupId, status: &Status) -> Option<ApiError> {
    let detail = detail_of(status)?;
    let moved = matches!(detail.reason(), ErrorReason::NotLeader | ErrorReason::NoLeader);
    (moved && detail.outcome() == Outcome::Refused).then(|| ApiError::NotLeader {
        group,
        leader: Some(detail.leader_address).filter(|address| !address.is_empty()),
    })
}

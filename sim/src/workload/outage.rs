//! The operator who asks before stopping nodes.

use std::time::Duration;

use braid_env::time::{self, Instant};

use super::liveness::Answering;
use super::node_client::NodeClient;
use super::{OWN, RETRY};
use crate::checkers::Violation;
use crate::history::{Admin, AdminDone, ClientId, Recorder};

/// Its number among the clients.
const OPERATOR: ClientId = ClientId(OWN + 3);

/// Of one call.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long it may take until it is safe, with nothing broken: drains that were begun come to their end first.
const BOUND: Duration = Duration::from_secs(180);

/// Asks until the cluster says that these nodes can be stopped; an error if it does not in time.
pub async fn may_stop(recorder: &Recorder, answering: &Answering, nodes: Vec<u64>) -> Result<(), Violation> {
    let until = Instant::now() + BOUND;
    let mut last = "not asked".to_owned();
    while Instant::now() < until {
        let calls = NodeClient::new(recorder, OPERATOR, &answering(), DEADLINE);
        match calls.admin(0, Admin::SafeToStop { nodes: nodes.clone() }).await {
            Ok(AdminDone::StopAnswered { reasons }) if reasons.is_empty() => return Ok(()),
            Ok(AdminDone::StopAnswered { reasons }) => last = reasons.join("; "),
            Ok(other) => unreachable!("{other:?} was not asked for"),
            Err(failed) => last = failed.to_string(),
        }
        time::sleep(RETRY).await;
    }
    let why = format!("nodes {nodes:?} can't be stopped {} s after all was mended: {last}", BOUND.as_secs());
    Err(Violation::new("liveness", why))
}

//! Who leads a group next: leaderships handed over, refused, and given up.
//!
//! Invariant: a leadership is offered only to a voter that answers and may lead, and an offer that is not taken up in time
//! ends in an election: a leader that waits for ever takes no writes and sends no heartbeats.

use std::sync::Arc;
use std::time::Duration;

use braid_env::{task, time};
use braid_log::LogId as BraidLogId;
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_proto::peer::Kind;
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{VoteRequest, VoteResponse};

use super::group::GroupReplica;
use super::raft::{TypeConfig, Vote, from_log_id, from_log_vote, to_log_id};
use crate::peer::{Lane, LinkError};

/// A node id that no node has.
const NOBODY: u64 = 0;

/// How long a peer may take to say whether it may lead.
const MAY_LEAD: Duration = Duration::from_secs(1);

/// How long another replica may take to take over from a damaged one.
const DAMAGED_MOVE: Duration = Duration::from_secs(2);

/// What became of a leadership that was to be handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// Another replica leads.
    Done,
    /// It was not offered, and this replica leads as before.
    Refused {
        /// Why not.
        why: String,
        /// Whether nothing was heard of the other node: it will not take another group's either.
        silent: bool,
    },
    /// It was offered and not taken up in time. It may be yet; an election is held.
    NotTaken,
}

impl GroupReplica {
    /// Hands the leadership to `to`, if this replica leads.
    ///
    /// A replica that does not vote, does not answer, or may not lead, is not offered it: a leader that hands over
    /// takes no writes and sends no heartbeats meanwhile. Where nobody has taken over after `wait`, this one resigns.
    pub async fn transfer_leader(self: &Arc<Self>, to: u64, wait: Duration) -> Transfer {
        if !self.is_leader() {
            return Transfer::Done;
        }
        // A new replica has all the log and does not vote yet, for as long as others of the group have to catch up.
        if !self.status().replica.voters.contains(&to) && !planted(Bug::OffersToLearners) {
            reachable!(Mark::OfferWithheld);
            return Transfer::Refused { why: format!("node {to} does not vote in this group"), silent: false };
        }
        let asked = self.links().call(to, Lane::Control, self.id().0, Kind::MayLead, Bytes::new(), MAY_LEAD).await;
        if let Err(why) = asked
            && !planted(Bug::OffersToTheDead)
        {
            let silent = !matches!(why, LinkError::Refused(_));
            return Transfer::Refused { why: format!("node {to}: {why}"), silent };
        }
        if let Err(why) = self.raft().trigger().transfer_leader(to).await {
            return Transfer::Refused { why: why.to_string(), silent: false };
        }
        // Beside the caller, who may not wait for the end.
        let replica = self.clone();
        let handing = task::spawn(async move {
            let mut metrics = replica.raft().server_metrics();
            let me = *replica.raft().node_id();
            let moved = async {
                while metrics.borrow_watched().current_leader.is_none_or(|l| l == me) {
                    if metrics.changed().await.is_err() {
                        return;
                    }
                }
            };
            let moved = time::timeout(wait, moved).await.is_ok();
            sometimes!(moved, Mark::LeadershipTransferred);
            if !moved {
                sometimes!(true, Mark::LeadershipKept);
                if !planted(Bug::TransferNotTakenBack) {
                    replica.resign(to).await;
                }
            }
            moved
        });
        match handing.await {
            Ok(true) => Transfer::Done,
            Ok(false) | Err(_) => Transfer::NotTaken,
        }
    }

    /// Whether this replica may take over the group's leadership; else why not.
    pub fn may_lead(&self) -> Result<(), String> {
        match self.damage.get() {
            Some(why) => Err(format!("what it stores is damaged: {why}")),
            None if !self.clock.is_settled() => Err("it does not know yet what time it is".into()),
            None => self.has_what_it_had(),
        }
    }

    /// Whether its log is as far again as before it was moved away, if it ever was; else it must not lead.
    pub(crate) fn has_what_it_had(&self) -> Result<(), String> {
        match self.owes() {
            Some(floor) => {
                Err(format!("it was moved away once, and does not have yet what it had then, up to {floor}"))
            }
            None => Ok(()),
        }
    }

    /// Up to where it still lacks what it had before it was moved away.
    fn owes(&self) -> Option<BraidLogId> {
        self.floor.filter(|floor| self.log().last_id() < Some(*floor))
    }

    /// Whether it was here before, and was moved away.
    pub fn was_here(&self) -> bool {
        self.floor.is_some()
    }

    /// The answer to a candidate whose log is behind what this replica once had; `None`: its Raft may judge.
    pub(crate) fn refuses(&self, candidate: &VoteRequest<TypeConfig>) -> Option<VoteResponse<TypeConfig>> {
        let floor = self.owes()?;
        if candidate.last_log_id.map(to_log_id) >= Some(floor) {
            return None;
        }
        reachable!(Mark::VoteOwed);
        let vote = self.log().vote().map_or_else(|| Vote::new(0, NOBODY), from_log_vote);
        Some(VoteResponse::new(vote, Some(from_log_id(floor)), false))
    }

    /// Notes that stored bytes could not be read, twice, and hands the leadership to a replica that has them
    /// whole. Whether another leads by then.
    ///
    /// This one goes on voting and storing: the group may need it, and what is not damaged is as good as ever.
    pub async fn found_damage(self: &Arc<Self>, why: &str) -> bool {
        if self.damage.set(why.to_owned()).is_ok() {
            reachable!(Mark::DamageFound);
            tracing::error!(group = self.id().0, "this replica is damaged and leads no more if another can: {why}");
        }
        match self.hand_over(|_| true, DAMAGED_MOVE).await {
            Transfer::Done => true,
            Transfer::NotTaken => !self.is_leader(),
            Transfer::Refused { .. } => false,
        }
    }

    /// Hands the leadership to the first of the other voters that `fits` and may take it, those furthest first.
    pub async fn hand_over(self: &Arc<Self>, fits: impl Fn(u64) -> bool, wait: Duration) -> Transfer {
        let mut became = Transfer::Refused { why: "there is no other voter".into(), silent: false };
        for to in self.successors().into_iter().filter(|to| fits(*to)) {
            became = self.transfer_leader(to, wait).await;
            let Transfer::Refused { why, .. } = &became else { break };
            tracing::warn!(group = self.id().0, "the leadership stays here for now: {why}");
        }
        became
    }

    /// Steps down, so that an election is held.
    ///
    /// A leader whose transfer is not taken up stays as it is for ever: it takes no writes, sends no
    /// heartbeats, and as it leads it does not stand for election; if its log is the longest, nobody else can
    /// win. So it votes, in the next term, for [`NOBODY`]. Not for a real node: one that hears of a vote for
    /// itself that it never asked for takes itself for a candidate, and does nothing more.
    async fn resign(&self, chosen: u64) {
        let group = self.id().0;
        let term = self.raft().server_metrics().borrow_watched().vote.leader_id.term;
        let last = self.log().last_id().map(from_log_id);
        let whom = if planted(Bug::ResignsForAnother) { chosen } else { NOBODY };
        match self.raft().vote(VoteRequest::new(Vote::new(term + 1, whom), last)).await {
            Ok(_) => tracing::warn!(group, chosen, "the leadership was not taken over: an election is held"),
            Err(e) => tracing::warn!(group, chosen, "the leadership was not taken over: {e}"),
        }
    }

    /// As the leader: the other voters, those whose logs are the furthest first, to hand the leadership to.
    fn successors(&self) -> Vec<u64> {
        let status = self.status().replica;
        let me = *self.raft().node_id();
        let mut others: Vec<(u64, u64)> = status.matched;
        others.retain(|(node, _)| *node != me && status.voters.contains(node));
        others.sort_by_key(|(node, matched)| (std::cmp::Reverse(*matched), *node));
        others.into_iter().map(|(node, _)| node).collect()
    }
}

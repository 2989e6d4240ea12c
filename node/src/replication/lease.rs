//! Whether a leader may answer a read from what it has applied.
//!
//! A leader may be one no more and not know it. It is sure while a majority has answered it lately, by less than any of
//! them waits before it votes for another one; or once a majority has answered what was sent after the read was asked.
//!
//! openraft keeps count of that, and takes some answers for more than they are: one to a request without entries counts
//! for every later request without entries that waits for its own, with the time at which *that* was sent
//! (0.10.0-alpha.37, `InflightAppendQueue::drain_acked`). A leader that was stopped for some seconds, with an answer in
//! its buffers, took its lease to have begun when it woke (simulator, `answer-counts-for-later`). So the answers are
//! counted here as well, where the requests are sent, and both counts have to agree.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use braid_env::time::Instant;
use braid_probe::{Bug, Mark, planted, reachable};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, ReadPolicy};

use super::group::{GroupReplica, ProposeError};
use super::raft::StoredMembership;

/// Rounds of heartbeats asked for, before a read is refused.
const ROUNDS: usize = 3;

/// When the newest request was sent that each follower has answered as this leader's, and the leader's term.
#[derive(Default)]
pub struct Answered(Mutex<BTreeMap<u64, (u64, Instant)>>);

impl Answered {
    /// Notes that `follower` answered a request of a leader of `term`; `sent`: when, at the latest, it was not on its way yet.
    pub fn note(&self, follower: u64, term: u64, sent: Instant) {
        let mut newest = self.0.lock().expect("lock poisoned");
        let newest = newest.entry(follower).or_insert((term, sent));
        *newest = (*newest).max((term, sent));
    }

    /// Whether a majority of the voters, of both sets while they change, are `me` or answered in `term` what was sent at
    /// `since` or later.
    pub fn by_majority(&self, membership: &StoredMembership, me: u64, term: u64, since: Instant) -> bool {
        let newest = self.0.lock().expect("lock poisoned");
        let counts = |node: &u64| *node == me || newest.get(node).is_some_and(|it| it.0 == term && it.1 >= since);
        let mut sets = membership.membership().get_joint_config().iter();
        sets.all(|voters| voters.iter().filter(|node| counts(node)).count() > voters.len() / 2)
    }
}

/// Waits until `group`'s leader, if it is this node's replica, has applied all that was acknowledged before the call, and
/// is sure that it is the leader. The log index applied.
pub async fn linearizable(group: &GroupReplica) -> Result<u64, ProposeError> {
    // A follower helps to elect another leader when the lease is over by its own clock, which may be the faster one.
    let lease = Duration::from_millis(group.raft().config().election_timeout_max * 9 / 10);
    let by_lease = LinearizerOption::new(Some(lease), false).with_wait_timeout(Duration::ZERO);
    let rounds = std::iter::repeat_n(LinearizerOption::from(ReadPolicy::ReadIndex), ROUNDS);
    let asked = Instant::now();
    for (round, how) in std::iter::once(by_lease).chain(rounds).enumerate() {
        let sure = match planted(Bug::ReadBeforeCatchUp) {
            true => group.raft().get_read_linearizer(how).await.map(drop),
            false => group.raft().ensure_linearizable(how).await.map(drop),
        };
        let since = if round == 0 { Instant::now() - lease } else { asked };
        match sure {
            Ok(()) if group.was_answered(since) => return Ok(*group.applied().borrow()),
            Ok(()) => reachable!(Mark::LeaseMistaken),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(f))) => {
                return Err(ProposeError::elsewhere(&f));
            }
            Err(RaftError::APIError(_)) => reachable!(Mark::LeaseNotEnough),
            Err(RaftError::Fatal(e)) => return Err(ProposeError::Stopped { why: e.to_string() }),
        }
    }
    Err(ProposeError::NotLeader { leader: None })
}

impl GroupReplica {
    /// As the leader: whether a majority has answered what was sent at `since` or later.
    fn was_answered(&self, since: Instant) -> bool {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let (me, term) = (*self.raft().node_id(), metrics.vote.leader_id.term);
        self.answered.by_majority(&metrics.membership_config, me, term, since) || planted(Bug::AnswerCountsForLater)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::Membership;

    use super::*;
    use crate::replication::raft::Member;

    fn voters(sets: &[&[u64]]) -> StoredMembership {
        let ids: BTreeSet<u64> = sets.iter().flat_map(|it| it.iter().copied()).collect();
        let nodes: BTreeMap<u64, Member> = ids.into_iter().map(|id| (id, Member::new("-"))).collect();
        let sets = sets.iter().map(|it| it.iter().copied().collect()).collect();
        StoredMembership::new(None, Membership::new(sets, nodes).unwrap())
    }

    const TERM: u64 = 7;

    #[test]
    fn a_majority_has_to_have_answered_since() {
        let three = voters(&[&[1, 2, 3]]);
        let t0 = Instant::now();
        let later = |s| t0 + Duration::from_secs(s);
        let answered = Answered::default();
        let sure = |since| answered.by_majority(&three, 1, TERM, since);
        assert!(!sure(t0), "the leader alone is no majority");
        answered.note(2, TERM, later(5));
        assert!(sure(later(5)), "sent just then");
        assert!(!sure(later(6)));
        answered.note(2, TERM, later(4));
        assert!(sure(later(5)), "an older one's answer takes nothing back");
        answered.note(9, TERM, later(9));
        assert!(!sure(later(6)), "not a voter");
        answered.note(3, TERM, later(6));
        assert!(sure(later(6)));
    }

    #[test]
    fn only_what_was_answered_in_this_term_counts() {
        let three = voters(&[&[1, 2, 3]]);
        let now = Instant::now();
        let answered = Answered::default();
        answered.note(2, TERM - 1, now);
        assert!(!answered.by_majority(&three, 1, TERM, now));
        answered.note(2, TERM, now - Duration::from_secs(1));
        assert!(!answered.by_majority(&three, 1, TERM, now), "sent before");
        assert!(answered.by_majority(&three, 1, TERM, now - Duration::from_secs(1)));
        answered.note(2, TERM - 1, now);
        assert!(answered.by_majority(&three, 1, TERM, now - Duration::from_secs(1)), "late, of an older term");
    }

    #[test]
    fn both_sets_have_to_answer_while_voters_change() {
        let joint = voters(&[&[1, 2, 3], &[1, 4, 5]]);
        let now = Instant::now();
        let answered = Answered::default();
        answered.note(2, TERM, now);
        answered.note(3, TERM, now);
        assert!(!answered.by_majority(&joint, 1, TERM, now));
        answered.note(5, TERM, now);
        assert!(answered.by_majority(&joint, 1, TERM, now));
        assert!(answered.by_majority(&voters(&[&[1]]), 1, TERM, now), "a group of one");
        assert!(
            !answered.by_majority(&voters(&[&[1, 2]]), 1, TERM, now + Duration::from_secs(1)),
            "half is no majority"
        );
    }
}

//! What other nodes said about leaders of groups that have no replica here.
//!
//! Invariant: only ever a hint. A group with a replica on this node is not in here.

use std::collections::BTreeMap;
use std::sync::Mutex;

use braid_stream::ids::{GroupId, NodeId};

#[derive(Default)]
struct Hint {
    leader: Option<NodeId>,
    /// Replicas asked without success, to ask the next one.
    asked: usize,
}

/// See the module's documentation. At most one entry per group.
#[derive(Default)]
pub struct LeaderHints(Mutex<BTreeMap<GroupId, Hint>>);

impl LeaderHints {
    /// Who was last said to lead.
    pub fn get(&self, group: GroupId) -> Option<NodeId> {
        self.0.lock().expect("no one panics here").get(&group).and_then(|hint| hint.leader)
    }

    /// Notes what the node that was asked said: who leads, or that it does not know.
    pub fn learn(&self, group: GroupId, leader: Option<NodeId>) {
        let mut hints = self.0.lock().expect("no one panics here");
        let hint = hints.entry(group).or_default();
        hint.asked = hint.asked.wrapping_add(1);
        hint.leader = leader;
    }

    /// Whom to ask when nobody is known to lead: the replicas in turn.
    pub fn guess(&self, group: GroupId, replicas: &[NodeId]) -> Option<NodeId> {
        let asked = self.0.lock().expect("no one panics here").get(&group).map_or(0, |hint| hint.asked);
        (!replicas.is_empty()).then(|| replicas[asked % replicas.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_asked_in_turn_until_one_names_the_leader() {
        let (hints, group) = (LeaderHints::default(), GroupId(1));
        let replicas = [NodeId(1), NodeId(2), NodeId(3)];
        assert_eq!(hints.guess(group, &[]), None);
        for expected in replicas {
            assert_eq!(hints.guess(group, &replicas), Some(expected));
            hints.learn(group, None);
        }
        hints.learn(group, Some(NodeId(2)));
        assert_eq!(hints.get(group), Some(NodeId(2)));
        hints.learn(group, None);
        assert_eq!(hints.get(group), None);
    }
}

//! Whether nodes can be stopped, now, without any group losing its leader for good.
//!
//! Invariant: yes is only said where every group keeps a majority of voters that answer, and among these one that has
//! what was committed and may lead. What is not known counts against it.
//!
//! Not here: asking the nodes. What was true when they were asked may not be when they are stopped.

use std::collections::BTreeSet;
use std::fmt;

use braid_probe::{Bug, planted};

use crate::ids::{GroupId, NodeId};

/// A group as its leader sees it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupView {
    pub group: GroupId,
    /// `None`: nobody leads it, or its leader does not answer.
    pub leader: Option<NodeId>,
    /// A replica of it is being moved.
    pub moving: bool,
    pub voters: Vec<Voter>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Voter {
    pub node: NodeId,
    /// It answered just now, and its replica runs.
    pub live: bool,
    /// It answered that what it stores is whole and that it may lead.
    pub may_lead: bool,
    /// Log entries that it is not known to have; `None` if the leader does not know.
    pub lag: Option<u64>,
}

/// Entries that a voter may be behind and still count: it gets them while the others are being stopped.
pub const LAG_MAX: u64 = 1_000;

/// Why a group would not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unsafe {
    NoLeader {
        group: GroupId,
    },
    Moving {
        group: GroupId,
    },
    /// Too few voters would be left.
    Majority {
        group: GroupId,
        left: Vec<NodeId>,
        needed: usize,
        silent: Vec<NodeId>,
        behind: Vec<NodeId>,
    },
    /// A majority would be left, and none of it may lead.
    NobodyMayLead {
        group: GroupId,
        left: Vec<NodeId>,
    },
}

/// Every reason against stopping `nodes`; none: it is safe now.
pub fn reasons_against(groups: &[GroupView], nodes: &BTreeSet<NodeId>) -> Vec<Unsafe> {
    groups.iter().filter_map(|group| reason_against(group, nodes)).collect()
}

fn reason_against(view: &GroupView, nodes: &BTreeSet<NodeId>) -> Option<Unsafe> {
    let group = view.group;
    if !view.voters.iter().any(|voter| nodes.contains(&voter.node)) {
        // Whatever is the matter with it, these nodes have no part in it.
        return None;
    }
    if view.leader.is_none() {
        return Some(Unsafe::NoLeader { group });
    }
    if view.moving {
        return Some(Unsafe::Moving { group });
    }
    let stay = || view.voters.iter().filter(|voter| !nodes.contains(&voter.node));
    let near = |voter: &&Voter| voter.lag.is_some_and(|lag| lag <= LAG_MAX);
    let ids = |voters: &mut dyn Iterator<Item = &Voter>| voters.map(|voter| voter.node).collect::<Vec<_>>();
    let counts = |voter: &&Voter| (voter.live && near(voter)) || planted(Bug::SilentCounted);
    let left = ids(&mut stay().filter(counts));
    let needed = view.voters.len() / 2 + 1;
    if left.len() < needed {
        let silent = ids(&mut stay().filter(|voter| !voter.live));
        let behind = ids(&mut stay().filter(|voter| voter.live && !near(voter)));
        return Some(Unsafe::Majority { group, left, needed, silent, behind });
    }
    let may_lead = stay().any(|voter| voter.may_lead && left.contains(&voter.node));
    (!may_lead).then_some(Unsafe::NobodyMayLead { group, left })
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsafe::NoLeader { group } => write!(f, "group {group} has no leader that answers"),
            Unsafe::Moving { group } => write!(f, "a replica of group {group} is being moved"),
            Unsafe::Majority { group, left, needed, silent, behind } => {
                write!(f, "group {group} would have {} of the {needed} voters that it needs", left.len())?;
                for (what, nodes) in [("does not answer", silent), ("is behind", behind)] {
                    for node in nodes {
                        write!(f, "; node {node} {what}")?;
                    }
                }
                Ok(())
            }
            Unsafe::NobodyMayLead { group, left } => {
                write!(f, "group {group}: of the voters that would be left ({}), none may lead", names(left))
            }
        }
    }
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(voters: [(u64, bool, bool, u64); 3]) -> GroupView {
        let voters =
            voters.map(|(node, live, may_lead, lag)| Voter { node: NodeId(node), live, may_lead, lag: Some(lag) });
        GroupView { group: GroupId(4), leader: Some(NodeId(1)), moving: false, voters: voters.to_vec() }
    }

    fn against(view: GroupView, stop: &[u64]) -> Option<String> {
        let found = reasons_against(&[view], &stop.iter().copied().map(NodeId).collect());
        found.first().map(ToString::to_string)
    }

    #[test]
    fn each_reason_says_what_is_missing() {
        let well = || view([(1, true, true, 0), (2, true, true, 3), (3, true, true, 0)]);
        assert_eq!(against(well(), &[1]), None, "a leader hands over");
        assert_eq!(against(well(), &[7]), None, "it has no part in the group");
        for (view, stop, why) in [
            (well(), vec![1, 2], "group 4 would have 1 of the 2 voters that it needs"),
            (
                view([(1, true, true, 0), (2, true, true, 0), (3, false, true, 0)]),
                vec![1],
                "group 4 would have 1 of the 2 voters that it needs; node 3 does not answer",
            ),
            (
                view([(1, true, true, 0), (2, true, true, 0), (3, true, true, LAG_MAX + 1)]),
                vec![2],
                "group 4 would have 1 of the 2 voters that it needs; node 3 is behind",
            ),
            (
                view([(1, true, true, 0), (2, true, false, 0), (3, true, false, 0)]),
                vec![1],
                "group 4: of the voters that would be left (2, 3), none may lead",
            ),
            (GroupView { leader: None, ..well() }, vec![1], "group 4 has no leader that answers"),
            (GroupView { moving: true, ..well() }, vec![1], "a replica of group 4 is being moved"),
        ] {
            assert_eq!(against(view, &stop).as_deref(), Some(why));
        }
        let mut unknown = well();
        unknown.voters[1].lag = None;
        assert!(against(unknown, &[3]).is_some(), "what is not known counts against it");
    }
}

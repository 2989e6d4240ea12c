//! Who votes in a group: those that the catalog names, and nobody else.
//!
//! Asked at the end of a run, when whatever was being replaced has had time to be. A replica too few is not seen by
//! any client before the next one fails.

use std::collections::BTreeSet;

use super::Violation;

pub const NAME: &str = "members";
pub const PROMISE: &str = "a group's voters are the replicas that the catalog names, and have it";

/// One group: its replicas by the catalog, and its voters by its leader. Nodes by their ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    pub group: u32,
    pub named: BTreeSet<u64>,
    pub voters: BTreeSet<u64>,
}

impl Members {
    /// Whether there is nothing to say against them.
    pub fn agree(&self) -> bool {
        self.named == self.voters
    }

    /// What there is to say.
    pub fn violation(&self) -> Violation {
        let Members { group, named, voters } = self;
        Violation::new(NAME, format!("the replicas of group {group} are on nodes {named:?}, and {voters:?} vote in it"))
    }
}

/// A replica that does not arrive.
pub fn on_its_way(what: &str) -> Violation {
    Violation::new(NAME, format!("a replica is still on its way, or has to be: {what}"))
}

/// A node that removed what it has of a group in which it votes.
pub fn forgotten(node: u64, group: u32) -> Violation {
    Violation::new(NAME, format!("node {node} has forgotten group {group}, in which it votes as its leader says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_too_few_or_another_one_is_seen() {
        let of =
            |voters: &[u64]| Members { group: 1, named: [1, 2, 4].into(), voters: voters.iter().copied().collect() };
        assert!(of(&[4, 1, 2]).agree());
        assert!(!of(&[1, 2]).agree());
        assert!(!of(&[1, 2, 3]).agree());
        assert!(of(&[1, 2]).violation().what.contains("{1, 2} vote"));
    }
}

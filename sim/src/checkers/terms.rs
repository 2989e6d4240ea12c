//! Raft's own promises: one leader a term, a committed index that never goes back, entries that stay.
//!
//! Fed while a run goes on. A replica that is opened again, by a process that starts or after it was moved away, may know
//! of fewer committed entries than before; what it applies has to be what others applied.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::{At, Ns};

pub const NAME: &str = "terms";
pub const PROMISE: &str = "a term has one leader, committed indexes never go back, committed entries never change";

#[derive(Default, Debug)]
pub struct Terms {
    /// Who led each (group, term), and since when.
    leaders: BTreeMap<(u32, u64), (u64, Ns)>,
    /// Groups of which more than the first membership is committed.
    begun: BTreeSet<u32>,
    /// The committed index of each (node, group), and in which life of the replica.
    committed: BTreeMap<(u64, u32), (u64, u64)>,
    /// Who applied each (group, index) first, and what.
    applied: BTreeMap<(u32, u64), Entry>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Entry {
    node: u64,
    term: u64,
    crc: u32,
    at_ns: Ns,
}

impl Terms {
    /// `node` leads `group` in `term`.
    pub fn leads(&mut self, at_ns: Ns, node: u64, group: u32, term: u64) -> Option<Violation> {
        let (first, since) = *self.leaders.entry((group, term)).or_insert((node, at_ns));
        (first != node).then(|| {
            let what = format!("group {group} has two leaders in term {term}: nodes {first} and {node}");
            violation(at_ns, what).because(format!("node {first} was seen to lead at {} ms", since / 1_000_000))
        })
    }

    /// `node`'s replica of `group`, in its `life`-th life, knows entries up to `index` to be committed.
    pub fn committed(&mut self, at_ns: Ns, node: u64, life: u64, group: u32, index: u64) -> Option<Violation> {
        if index > 0 {
            self.begun.insert(group);
        }
        let (known_life, known) = self.committed.insert((node, group), (life, index)).unwrap_or((life, 0));
        (known_life == life && index < known).then(|| {
            let what = format!("the committed index of group {group} on node {node} went back from {known} to {index}");
            violation(at_ns, what)
        })
    }

    /// How many groups, the catalog among them, have a majority that knows of the first membership.
    pub fn begun(&self) -> usize {
        self.begun.len()
    }

    /// `node` applied the entry at `index` of `group`, of `term` and with a payload of this checksum.
    pub fn applied(&mut self, at_ns: Ns, node: u64, group: u32, index: u64, term: u64, crc: u32) -> Option<Violation> {
        let new = Entry { node, term, crc, at_ns };
        let first = *self.applied.entry((group, index)).or_insert(new);
        let line = |it: Entry| {
            format!("node {} applied term {}, checksum {:08x} at {} ms", it.node, it.term, it.crc, it.at_ns / 1_000_000)
        };
        if (first.term, first.crc) != (term, crc) {
            let what = format!("the committed entry {index} of group {group} is not what it was");
            return Some(violation(at_ns, what).because(line(first)).because(line(new)));
        }
        let before = index.checked_sub(1).and_then(|before| self.applied.get(&(group, before)));
        before.filter(|before| before.term > term).map(|before| {
            let what = format!("entry {index} of group {group} has a lower term than the one before it");
            violation(at_ns, what).because(line(*before)).because(line(new))
        })
    }
}

fn violation(at_ns: Ns, what: String) -> Violation {
    Violation::new(NAME, what).at(At { ns: at_ns, nth: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_has_one_leader() {
        let mut terms = Terms::default();
        assert_eq!(terms.leads(1, 1, 0, 5), None);
        assert_eq!(terms.leads(2, 1, 0, 5), None);
        assert_eq!(terms.leads(3, 2, 0, 6), None);
        assert_eq!(terms.leads(3, 2, 1, 5), None, "another group");
        assert!(terms.leads(4, 2, 0, 5).is_some());
    }

    #[test]
    fn the_committed_index_goes_back_only_with_the_replica() {
        let mut terms = Terms::default();
        assert_eq!(terms.committed(1, 1, 1, 0, 10), None);
        assert_eq!(terms.committed(2, 1, 1, 0, 10), None);
        assert_eq!(terms.committed(3, 1, 2, 0, 4), None);
        assert_eq!(terms.committed(4, 1, 2, 0, 11), None);
        assert!(terms.committed(5, 1, 2, 0, 10).is_some());
        assert_eq!(terms.committed(6, 1, 3, 0, 0), None, "it was moved away, and came again");
    }

    #[test]
    fn committed_entries_stay() {
        let mut terms = Terms::default();
        assert_eq!(terms.applied(1, 1, 0, 1, 1, 7), None);
        assert_eq!(terms.applied(2, 2, 0, 1, 1, 7), None);
        assert_eq!(terms.applied(2, 2, 0, 2, 3, 8), None);
        assert!(terms.applied(3, 3, 0, 1, 2, 7).is_some(), "another term");
        assert!(terms.applied(3, 3, 0, 1, 1, 9).is_some(), "another payload");
        assert!(terms.applied(3, 3, 0, 3, 2, 9).is_some(), "a term that falls");
    }
}

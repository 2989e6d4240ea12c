//! Replicas of a group are equal at equal applied index.
//!
//! Fed while a run goes on: whoever applies says what its state was afterwards, in a digest. A replica that
//! starts again and applies again says so again, and has to say the same.

use std::collections::BTreeMap;

use super::Violation;
use crate::history::{At, Ns};

pub const NAME: &str = "replicas";
pub const PROMISE: &str = "replicas of a group have equal states at equal applied index";

/// A state after the entry at `index` was applied.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    pub at_ns: Ns,
    pub node: u64,
    pub group: u32,
    pub index: u64,
    pub digest: u64,
}

/// What was said first of each group and index.
#[derive(Default, Debug)]
pub struct Replicas {
    first: BTreeMap<(u32, u64), Observation>,
}

impl Replicas {
    pub fn observe(&mut self, it: Observation) -> Option<Violation> {
        let first = *self.first.entry((it.group, it.index)).or_insert(it);
        if first.digest == it.digest {
            return None;
        }
        let what = format!(
            "group {}: the states of nodes {} and {} after entry {} differ",
            it.group, first.node, it.node, it.index
        );
        let line =
            |it: Observation| format!("node {} at {} ms: digest {:016x}", it.node, it.at_ns / 1_000_000, it.digest);
        let at = At { ns: it.at_ns, nth: 0 };
        Some(Violation::new(NAME, what).at(at).because(line(first)).because(line(it)))
    }

    /// Forgets what is below `index`: no replica will apply it again.
    pub fn forget_below(&mut self, group: u32, index: u64) {
        let kept = self.first.split_off(&(group, index));
        self.first.retain(|(of, _), _| *of != group);
        self.first.extend(kept);
    }
}

/// All at once.
pub fn check(observations: impl IntoIterator<Item = Observation>) -> Vec<Violation> {
    let mut replicas = Replicas::default();
    observations.into_iter().filter_map(|it| replicas.observe(it)).collect()
}

/// A digest of an encoded state: 64-bit FNV-1a.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saw(node: u64, index: u64, state: &str) -> Observation {
        Observation { at_ns: index, node, group: 1, index, digest: digest(state.as_bytes()) }
    }

    #[test]
    fn equal_states_pass_and_a_difference_names_both() {
        let good = [saw(1, 1, "a"), saw(2, 1, "a"), saw(1, 2, "b"), saw(1, 1, "a")];
        assert_eq!(check(good), []);
        let wrong = check([saw(1, 7, "a"), saw(2, 7, "b")]);
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].what.contains("nodes 1 and 2 after entry 7"), "{}", wrong[0]);
    }

    #[test]
    fn what_is_forgotten_is_of_that_group_and_below() {
        let mut replicas = Replicas::default();
        for index in 1..=4 {
            replicas.observe(saw(1, index, "a"));
        }
        replicas.observe(Observation { group: 2, ..saw(1, 1, "a") });
        replicas.forget_below(1, 3);
        assert_eq!(replicas.observe(saw(2, 2, "other")), None);
        assert!(replicas.observe(saw(2, 3, "other")).is_some());
        assert!(replicas.observe(Observation { group: 2, ..saw(2, 1, "other") }).is_some());
    }
}

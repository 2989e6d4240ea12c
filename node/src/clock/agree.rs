//! What time it is, when clocks differ: the median of the zones.
//!
//! Invariant: one zone whose clocks are all wrong moves the outcome by no more than the others differ among
//! themselves. Where two zones alone are heard and differ, there is no outcome.

use std::collections::{BTreeMap, BTreeSet};

/// Clocks that differ by more than this do not agree, milliseconds.
const APART_MS: u64 = 5_000;

/// A node's zone, or whatever counts once, and what one of its clocks showed, milliseconds since the Unix epoch.
pub type Heard = (String, u64);

/// What the clocks heard from `zones` agree on.
///
/// Each zone counts once, with the median of its own nodes. Three zones or more: their median. Two: the earlier one, if
/// they do not differ by more than five seconds. One: its own, if there is no other. Of two in the middle it is the
/// earlier: to trim late loses nothing.
pub fn agreed(zones: &BTreeSet<String>, heard: &[Heard]) -> Option<u64> {
    let times = by_zone(heard);
    match times.as_slice() {
        [] => None,
        [one] => (zones.len() <= 1).then_some(*one),
        [a, b] => (a.abs_diff(*b) <= APART_MS).then_some(*a.min(b)),
        more => Some(median(more)),
    }
}

/// The earliest of the zones' times; for when they have to go on without agreeing.
pub fn earliest(heard: &[Heard]) -> Option<u64> {
    by_zone(heard).first().copied()
}

/// The zones' times, in order.
fn by_zone(heard: &[Heard]) -> Vec<u64> {
    let mut zones: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (zone, ms) in heard {
        zones.entry(zone).or_default().push(*ms);
    }
    let mut times: Vec<u64> = zones
        .into_values()
        .map(|mut times| {
            times.sort_unstable();
            median(&times)
        })
        .collect();
    times.sort_unstable();
    times
}

/// The middle of what is in order; of two, the earlier.
fn median(sorted: &[u64]) -> u64 {
    sorted[(sorted.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: u64 = 43_200_000;

    fn zones(n: usize) -> BTreeSet<String> {
        (0..n).map(|zone| zone.to_string()).collect()
    }

    fn heard(times: &[(usize, u64)]) -> Vec<Heard> {
        times.iter().map(|(zone, ms)| (zone.to_string(), *ms)).collect()
    }

    #[test]
    fn each_zone_counts_once() {
        // Two nodes of zone 0 are a day ahead; the other zones have one each.
        let times = heard(&[(0, NOON * 3), (0, NOON * 3), (1, NOON), (2, NOON + 9)]);
        assert_eq!(agreed(&zones(3), &times), Some(NOON + 9));
    }

    #[test]
    fn two_zones_have_to_agree_and_one_has_to_be_alone() {
        assert_eq!(agreed(&zones(3), &heard(&[(0, NOON), (1, NOON + APART_MS)])), Some(NOON));
        assert_eq!(agreed(&zones(3), &heard(&[(0, NOON), (1, NOON + APART_MS + 1)])), None);
        assert_eq!(agreed(&zones(3), &heard(&[(0, NOON)])), None);
        assert_eq!(agreed(&zones(1), &heard(&[(0, NOON), (0, NOON + 5), (0, NOON * 2)])), Some(NOON + 5));
        assert_eq!(agreed(&zones(3), &[]), None);
        assert_eq!(earliest(&heard(&[(0, NOON), (1, 7)])), Some(7));
    }

    proptest! {
        /// Whatever one zone says, the outcome lies within what the others say.
        #[test]
        fn one_zone_moves_nothing(right in prop::collection::vec((1..5usize, NOON..NOON + 1_000), 4..9), wrong: u64) {
            prop_assume!(right.iter().map(|it| it.0).collect::<BTreeSet<_>>().len() >= 2);
            let mut times = right.clone();
            times.push((0, wrong));
            let found = agreed(&zones(5), &heard(&times)).expect("three zones were heard");
            prop_assert!((NOON..NOON + 1_000).contains(&found), "{found}");
        }
    }
}

//! Plans for scaling: they reach what was asked for, and every step can be carried out.

use std::collections::BTreeSet;

use braid_stream::scale::{ScaleError, Shares, Step, outcome, plan, plan_with, ready};
use braid_stream::{HashKey, HashRange};
use proptest::prelude::*;

/// Ranges that begin at 0 and at each of `cuts`.
fn tiling(cuts: &[u128]) -> Vec<HashRange> {
    let starts: BTreeSet<u128> = cuts.iter().copied().chain([0]).collect();
    let starts: Vec<u128> = starts.into_iter().collect();
    let end = |nth: usize| starts.get(nth + 1).map_or(HashKey::MAX, |next| HashKey(next - 1));
    (0..starts.len()).map(|nth| HashRange::new(HashKey(starts[nth]), end(nth)).unwrap()).collect()
}

#[test]
fn twice_as_many_is_one_split_each_and_half_is_one_merge_each() {
    let four = HashRange::split_even(4);
    let steps = plan(&four, 8).unwrap();
    assert!(steps.len() == 4 && steps.iter().all(|step| matches!(step, Step::Split { .. })), "{steps:?}");
    let steps = plan(&HashRange::split_even(8), 4).unwrap();
    assert!(steps.len() == 4 && steps.iter().all(|step| matches!(step, Step::Merge { .. })), "{steps:?}");
    assert_eq!(plan(&four, 4), Ok(vec![]));
}

/// Found by reading: shares are rounded down, so those of 3 shards do not begin where those of 6 do.
#[test]
fn rounding_makes_no_shards_of_a_few_keys() {
    for shards in 1..=64 {
        let (some, twice) = (HashRange::split_even(shards), HashRange::split_even(2 * shards));
        assert_eq!(plan(&some, 2 * shards).unwrap().len(), shards as usize, "{shards}");
        assert_eq!(plan(&twice, shards).unwrap().len(), shards as usize, "{shards}");
    }
}

/// Found by reading: with all splits before all merges, the catalog would refuse half-way.
#[test]
fn there_is_room_for_every_step_or_no_plan() {
    let steps = plan(&HashRange::split_even(6_000), 7_000).unwrap();
    let mut open = 6_000i32;
    for step in steps {
        open += if matches!(step, Step::Split { .. }) { 1 } else { -1 };
        assert!(open <= 7_001, "{open}");
    }
    assert_eq!(open, 7_000);
    let refused = plan(&HashRange::split_even(9_999), 10_000).unwrap_err();
    assert_eq!(refused, ScaleError::Room { shards: 10_001 });
    assert_eq!(plan(&[HashRange::FULL], 10_000).unwrap().len(), 9_999);
}

#[test]
fn from_one_the_line_of_ancestors_grows_by_the_logarithm() {
    let steps = plan(&[HashRange::FULL], 64).unwrap();
    let holds = |key: HashKey| {
        steps.iter().filter(move |step| matches!(step, Step::Split { range, .. } if range.contains(key)))
    };
    assert_eq!(steps.len(), 63);
    assert!(HashRange::split_even(64).iter().all(|range| holds(range.start()).count() == 6));
}

#[test]
fn what_can_not_be_planned_is_named() {
    let count = |shards| Err(ScaleError::Count { shards });
    assert_eq!(plan(&[HashRange::FULL], 0), count(0));
    assert_eq!(plan(&[HashRange::FULL], 10_001), count(10_001));
    assert_eq!(plan(&[HashRange::FULL], 10_001).unwrap_err().to_string(), "10001 shards: 1 to 10000 are allowed");
    let not_tiled = |open: &[HashRange], at| assert_eq!(plan(open, 2), Err(ScaleError::NotTiled { at: HashKey(at) }));
    let three = tiling(&[10, 20]);
    not_tiled(&[], 0);
    not_tiled(&three[1..], 0);
    not_tiled(&three[..2], 20);
    not_tiled(&[three[0], three[2]], 10);
    not_tiled(&[three[0], three[0], three[1], three[2]], 0);
}

proptest! {
    #[test]
    fn any_tiling_becomes_even_in_as_few_steps_as_can_be(
        cuts in prop::collection::vec(any::<u128>(), 0..16),
        even in prop::option::of(1..24u32),
        shards in 1..64u32,
    ) {
        // Some of the cuts are where an even share begins.
        let even: Vec<u128> = even.into_iter().flat_map(HashRange::split_even).map(|it| it.start().0).collect();
        let open = tiling(&[cuts, even].concat());
        let steps = plan(&open, shards).unwrap();
        for done in 0..=steps.len() {
            let now = outcome(&open, &steps[..done]);
            prop_assert!(plan(&now, 1).is_ok(), "after {done} steps the ranges do not tile: {now:?}");
            if let Some(step) = steps.get(done) {
                let there = match step {
                    Step::Split { range, at } => now.contains(range) && range.contains(*at) && *at > range.start(),
                    Step::Merge { lower, upper } => {
                        now.contains(lower) && now.contains(upper) && lower.end() < upper.start() && lower.adjacent(upper)
                    }
                };
                prop_assert!(there, "{step:?} after {done} steps");
            }
        }
        let target = outcome(&open, &steps);
        prop_assert_eq!(target.len(), shards as usize);
        for (has, even) in target.iter().zip(HashRange::split_even(shards)) {
            prop_assert!(has.start().0.abs_diff(even.start().0) < u128::from(shards));
        }
        let starts = |ranges: &[HashRange]| ranges.iter().map(HashRange::start).collect::<BTreeSet<_>>();
        let (before, after) = (starts(&open), starts(&target));
        prop_assert_eq!(steps.len(), before.symmetric_difference(&after).count());
    }
}

proptest! {
    #[test]
    fn steps_that_are_ready_leave_a_plan(
        cuts in prop::collection::vec(any::<u128>(), 0..16),
        shards in 1..64u32,
        halves in any::<bool>(),
        most in 1..8usize,
    ) {
        let mut open = tiling(&cuts);
        let shares = if halves { Shares::Halves } else { Shares::Equal };
        let mut steps = plan_with(shares, &open, shards).unwrap();
        let planned = steps.len();
        let mut done = 0;
        while !steps.is_empty() {
            let chosen = ready(&open, &steps, most);
            prop_assert!(chosen.first() == Some(&0) && chosen.len() <= most, "{chosen:?}");
            // Backwards: at once means in any order.
            for nth in chosen.iter().rev() {
                let step = steps.remove(*nth);
                prop_assert!(step.needs().all(|range| open.contains(&range)), "{step:?}");
                open = outcome(&open, &[step]);
                prop_assert!(plan(&open, 1).is_ok(), "not tiled: {open:?}");
                done += 1;
            }
        }
        prop_assert_eq!((done, open.len()), (planned, shards as usize));
    }
}

/// Where room is short, no split takes the place that an earlier one needs.
#[test]
fn a_plan_with_little_room_does_not_stick() {
    // From 9,990 shards to 9,991 shares, every one moves: a split, then a merge, again and again.
    let mut open = HashRange::split_even(9_990);
    let mut steps = plan(&open, 9_991).unwrap();
    steps.truncate(200);
    while !steps.is_empty() {
        let chosen = ready(&open, &steps, 32);
        let splits = chosen.iter().filter(|nth| matches!(steps[**nth], Step::Split { .. })).count();
        assert!(!chosen.is_empty() && open.len() + splits <= 10_000, "{} open, {splits} splits", open.len());
        let at_once: Vec<Step> = chosen.iter().map(|nth| steps[*nth]).collect();
        open = outcome(&open, &at_once);
        steps.retain(|step| !at_once.contains(step));
    }
}

#[test]
fn what_has_one_key_is_not_split() {
    let narrow: Vec<HashRange> = tiling(&[1, 2]);
    let steps = plan_with(Shares::Halves, &narrow, 4).unwrap();
    assert_eq!(outcome(&narrow, &steps).len(), 4);
    let one_key = HashRange::new(HashKey(5), HashKey(5)).unwrap();
    assert_eq!(one_key.middle(), HashKey(5));
}

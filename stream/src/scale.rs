//! Scaling a stream: the splits and merges after which a number of shards have equal shares of the keys.
//!
//! Invariant: the steps can be carried out in their order, each by itself, and the ranges tile the space after every
//! one. A plan that was interrupted is made anew from what is there then.

use std::fmt;

use crate::hash::{HashKey, HashRange};
use crate::limits::SHARDS_PER_STREAM_MAX;

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The open shard with this range is split; the upper child begins at `at`.
    Split {
        /// What it has.
        range: HashRange,
        /// Inside of it, and not its first key.
        at: HashKey,
    },
    /// The open shards with these ranges are merged.
    Merge {
        /// The one with the lower keys.
        lower: HashRange,
        /// The one that begins where `lower` ends.
        upper: HashRange,
    },
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScaleError {
    /// No stream has so many shards.
    Count {
        /// What was asked for.
        shards: u32,
    },
    /// On the way there would be more shards at once than a stream may have.
    Room {
        /// How many.
        shards: usize,
    },
    /// The ranges given overlap, or leave keys out.
    NotTiled {
        /// The first key that no range has, or two have.
        at: HashKey,
    },
}

impl fmt::Display for ScaleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScaleError::Count { shards } => write!(f, "{shards} shards: 1 to {SHARDS_PER_STREAM_MAX} are allowed"),
            ScaleError::Room { shards } => {
                write!(f, "on the way there would be {shards} open shards: {SHARDS_PER_STREAM_MAX} are allowed")
            }
            ScaleError::NotTiled { at } => write!(f, "hash key {at} belongs to no open shard, or to two"),
        }
    }
}

impl std::error::Error for ScaleError {}

/// The steps from shards with the ranges `open`, in any order, to `shards` of equal shares.
///
/// A share begins where [`HashRange::split_even`] says, or where an open shard does that is less than `shards` keys off:
/// rounding makes no shards of a few keys. As few steps as reach that, and merges as soon as they can be. A range that
/// is split or merged several times is so in halves: the line of a shard's ancestors grows by the logarithm.
pub fn plan(open: &[HashRange], shards: u32) -> Result<Vec<Step>, ScaleError> {
    if !(1..=SHARDS_PER_STREAM_MAX).contains(&shards) {
        return Err(ScaleError::Count { shards });
    }
    let mut open = open.to_vec();
    open.sort_unstable();
    tiled(&open)?;
    let starts: Vec<HashKey> = HashRange::split_even(shards).iter().map(|it| near(&open, it.start(), shards)).collect();
    let ends = starts[1..].iter().map(|next| HashKey(next.0 - 1)).chain([HashKey::MAX]);
    let (mut ends, mut steps, mut pieces) = (ends.peekable(), Vec::new(), Vec::new());
    for range in open.iter().copied() {
        let first = starts.partition_point(|start| *start <= range.start());
        let last = starts.partition_point(|start| *start <= range.end());
        split(range, &starts[first..last], &mut steps, &mut pieces);
        while let Some(end) = ends.next_if(|end| *end <= range.end()) {
            let parts = pieces.partition_point(|piece: &HashRange| piece.end() <= end);
            merge(&pieces.drain(..parts).collect::<Vec<_>>(), &mut steps);
        }
    }
    room(open.len(), &steps)?;
    Ok(steps)
}

/// Where an open shard begins less than `within` keys from `start`; else `start`.
fn near(open: &[HashRange], start: HashKey, within: u32) -> HashKey {
    let after = open.partition_point(|range| range.start() < start);
    let around = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|nth| open.get(nth));
    let apart = |range: &&HashRange| range.start().0.abs_diff(start.0);
    around.filter(|range| apart(range) < u128::from(within)).min_by_key(apart).map_or(start, HashRange::start)
}

/// That there are never more shards than a stream may have; those that there are already may be.
fn room(open: usize, steps: &[Step]) -> Result<(), ScaleError> {
    let (mut now, mut most) = (open, 0);
    for step in steps {
        match step {
            Step::Split { .. } => {
                now += 1;
                most = most.max(now);
            }
            Step::Merge { .. } => now -= 1,
        }
    }
    if most > SHARDS_PER_STREAM_MAX as usize { Err(ScaleError::Room { shards: most }) } else { Ok(()) }
}

/// The ranges after `steps`, in order.
pub fn outcome(open: &[HashRange], steps: &[Step]) -> Vec<HashRange> {
    let mut open = open.to_vec();
    for step in steps {
        match *step {
            Step::Split { range, at } => {
                open.retain(|it| *it != range);
                open.extend([below(range, at), from(range, at)]);
            }
            Step::Merge { lower, upper } => {
                open.retain(|it| *it != lower && *it != upper);
                open.push(joined(lower, upper));
            }
        }
    }
    open.sort_unstable();
    open
}

fn tiled(open: &[HashRange]) -> Result<(), ScaleError> {
    let mut next = Some(HashKey::MIN);
    for range in open {
        if next != Some(range.start()) {
            return Err(ScaleError::NotTiled { at: next.map_or(range.start(), |next| next.min(range.start())) });
        }
        next = range.end().0.checked_add(1).map(HashKey);
    }
    next.map_or(Ok(()), |at| Err(ScaleError::NotTiled { at }))
}

/// Splits `range` at `cuts`, in the middle first.
fn split(range: HashRange, cuts: &[HashKey], steps: &mut Vec<Step>, pieces: &mut Vec<HashRange>) {
    let Some(&at) = cuts.get(cuts.len() / 2) else {
        pieces.push(range);
        return;
    };
    steps.push(Step::Split { range, at });
    split(below(range, at), &cuts[..cuts.len() / 2], steps, pieces);
    split(from(range, at), &cuts[cuts.len() / 2 + 1..], steps, pieces);
}

/// Merges adjacent ranges into one, by halves; gives it.
fn merge(parts: &[HashRange], steps: &mut Vec<Step>) -> Option<HashRange> {
    match parts {
        [] => None,
        [one] => Some(*one),
        _ => {
            let (lower, upper) = parts.split_at(parts.len() / 2);
            let (lower, upper) = (merge(lower, steps)?, merge(upper, steps)?);
            steps.push(Step::Merge { lower, upper });
            Some(joined(lower, upper))
        }
    }
}

fn below(range: HashRange, at: HashKey) -> HashRange {
    HashRange::new(range.start(), HashKey(at.0 - 1)).expect("a cut is above the range's first key")
}

fn from(range: HashRange, at: HashKey) -> HashRange {
    HashRange::new(at, range.end()).expect("a cut is within the range")
}

fn joined(lower: HashRange, upper: HashRange) -> HashRange {
    HashRange::new(lower.start(), upper.end()).expect("the upper one is above")
}

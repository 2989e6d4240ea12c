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
            ScaleError::NotTiled { at } => write!(f, "hash key {at} belongs to no open shard, or to two"),
        }
    }
}

impl std::error::Error for ScaleError {}

/// The steps from shards with the ranges `open`, in any order, to `shards` of equal shares ([`HashRange::split_even`]).
///
/// First splits, then merges; as few as reach just these ranges, since each key that changes its shard is in one of
/// them anyway. A range that is split or merged several times is so in halves: the line of a shard's ancestors grows by
/// the logarithm.
pub fn plan(open: &[HashRange], shards: u32) -> Result<Vec<Step>, ScaleError> {
    if !(1..=SHARDS_PER_STREAM_MAX).contains(&shards) {
        return Err(ScaleError::Count { shards });
    }
    let mut open = open.to_vec();
    open.sort_unstable();
    tiled(&open)?;
    let targets = HashRange::split_even(shards);
    let (mut steps, mut pieces) = (Vec::new(), Vec::new());
    for range in open {
        let first = targets.partition_point(|target| target.start() <= range.start());
        let last = targets.partition_point(|target| target.start() <= range.end());
        let cuts: Vec<HashKey> = targets[first..last.max(first)].iter().map(HashRange::start).collect();
        split(range, &cuts, &mut steps, &mut pieces);
    }
    let mut pieces = pieces.into_iter().peekable();
    for target in targets {
        let mut parts = Vec::new();
        while let Some(part) = pieces.next_if(|part| part.end() <= target.end()) {
            parts.push(part);
        }
        merge(&parts, &mut steps);
    }
    Ok(steps)
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

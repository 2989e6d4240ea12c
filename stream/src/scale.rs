//! Scaling a stream: the splits and merges after which it has a number of shards.
//!
//! Invariant: the steps can be carried out in their order, each by itself, and the ranges tile the space after every
//! one. Those that [`ready`] names can be carried out at once, and leave a plan of which the same is true.
//!
//! Not here: who carries it out, and what is left of a plan meanwhile (`catalog/scaling.rs`).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::{HashKey, HashRange};
use crate::limits::SHARDS_PER_STREAM_MAX;

/// What the shards' shares of the keys are to be in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Shares {
    /// Equal ones, by as few steps as that takes.
    Equal,
    /// As Kinesis was seen to do it: for more shards every one is split in half, and then pairs are merged until there
    /// are as many as asked for; for fewer, pairs are merged and nothing else. As many shards as there, open and closed,
    /// and some twice as wide as others: equal shares can't be had from merges alone.
    Halves,
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
    /// Shards of one key each can't be split.
    Narrow {
        /// How many there are on the way.
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
            ScaleError::Narrow { shards } => write!(f, "{shards} shards of one key each can't be split"),
            ScaleError::NotTiled { at } => write!(f, "hash key {at} belongs to no open shard, or to two"),
        }
    }
}

impl std::error::Error for ScaleError {}

impl Step {
    /// The open shards that it does away with.
    pub fn needs(&self) -> impl Iterator<Item = HashRange> {
        let (first, second) = match *self {
            Step::Split { range, .. } => (range, None),
            Step::Merge { lower, upper } => (lower, Some(upper)),
        };
        std::iter::once(first).chain(second)
    }

    /// The open shards that come of it.
    pub fn makes(&self) -> impl Iterator<Item = HashRange> {
        let (first, second) = match *self {
            Step::Split { range, at } => (below(range, at), Some(from(range, at))),
            Step::Merge { lower, upper } => (joined(lower, upper), None),
        };
        std::iter::once(first).chain(second)
    }
}

/// The steps from shards with the ranges `open`, in any order, to `shards` with these shares.
pub fn plan_with(shares: Shares, open: &[HashRange], shards: u32) -> Result<Vec<Step>, ScaleError> {
    match shares {
        Shares::Equal => plan(open, shards),
        Shares::Halves => plan_halves(open, shards),
    }
}

/// Which of a plan's steps can be carried out at once, as indexes: each is of shards that are open, and no shard is in
/// two of them. At least the first one; at most `most`. What is left afterwards, in its order, is a plan again.
pub fn ready(open: &[HashRange], steps: &[Step], most: usize) -> Vec<usize> {
    let mut free: BTreeSet<HashRange> = open.iter().copied().collect();
    let (mut found, mut splits) = (Vec::new(), 0);
    for (nth, step) in steps.iter().enumerate() {
        // Room is kept for every split before this one, also for those that are not ready. Else: 1. a later split takes
        // the last room, 2. an earlier one finds none, 3. the merge that would make room needs what it makes.
        let is_split = matches!(step, Step::Split { .. });
        splits += usize::from(is_split);
        if found.len() == most || (is_split && open.len() + splits > SHARDS_PER_STREAM_MAX as usize) {
            break;
        }
        if step.needs().all(|range| free.contains(&range)) {
            step.needs().for_each(|range| assert!(free.remove(&range), "a merge is of two shards"));
            found.push(nth);
        }
    }
    found
}

/// The steps from shards with the ranges `open`, in any order, to `shards` of equal shares.
///
/// A share begins where [`HashRange::split_even`] says, or where an open shard does that is less than `shards` keys off:
/// rounding makes no shards of a few keys. As few steps as reach that, and merges as soon as they can be. A range that
/// is split or merged several times is so in halves: the line of a shard's ancestors grows by the logarithm.
pub fn plan(open: &[HashRange], shards: u32) -> Result<Vec<Step>, ScaleError> {
    allowed(shards)?;
    let open = sorted(open)?;
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

/// See [`Shares::Halves`]. Where there is no room to split every shard, only as many as are missing are split, the widest
/// first.
fn plan_halves(open: &[HashRange], shards: u32) -> Result<Vec<Step>, ScaleError> {
    allowed(shards)?;
    let (wanted, mut steps) = (shards as usize, Vec::new());
    let mut now = sorted(open)?;
    while now.len() < wanted {
        let mut chosen: Vec<HashRange> = now.iter().copied().filter(|range| range.start() < range.end()).collect();
        if chosen.is_empty() {
            return Err(ScaleError::Narrow { shards: now.len() });
        }
        if now.len() + chosen.len() > SHARDS_PER_STREAM_MAX as usize {
            chosen.sort_by_key(|range| std::cmp::Reverse(range.end().0 - range.start().0));
            chosen.truncate(wanted - now.len());
        }
        let new = chosen.iter().map(|range| Step::Split { range: *range, at: range.middle() });
        let new: Vec<Step> = new.collect();
        now = outcome(&now, &new);
        steps.extend(new);
    }
    while now.len() > wanted {
        let pairs = now.as_chunks::<2>().0.iter().take(now.len() - wanted);
        let new: Vec<Step> = pairs.map(|&[lower, upper]| Step::Merge { lower, upper }).collect();
        now = outcome(&now, &new);
        steps.extend(new);
    }
    room(open.len(), &steps)?;
    Ok(steps)
}

fn allowed(shards: u32) -> Result<(), ScaleError> {
    match (1..=SHARDS_PER_STREAM_MAX).contains(&shards) {
        true => Ok(()),
        false => Err(ScaleError::Count { shards }),
    }
}

/// In order of their keys, of which each has to be in one.
fn sorted(open: &[HashRange]) -> Result<Vec<HashRange>, ScaleError> {
    let mut open = open.to_vec();
    open.sort_unstable();
    tiled(&open)?;
    Ok(open)
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
    let mut open: BTreeSet<HashRange> = open.iter().copied().collect();
    for step in steps {
        for range in step.needs() {
            open.remove(&range);
        }
        open.extend(step.makes());
    }
    open.into_iter().collect()
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

//! The way from a hash key to the shard that owns it and the group that keeps that shard.
//!
//! Invariant: a [`ShardMap`] tiles `[0, 2^128)`: every key has exactly one route. It never changes;
//! a split or merge makes a new one.
//!
//! Not here: which node leads a group.

use std::fmt;

use braid_probe::{Bug, planted};

use crate::hash::{HashKey, HashRange};
use crate::ids::{GroupId, ShardId};

/// An open shard.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Route {
    pub range: HashRange,
    pub shard: ShardId,
    pub group: GroupId,
    /// As in [`StreamShard`](crate::catalog::StreamShard): what its sequence numbers begin with.
    pub created_s: u64,
}

/// One stream's routes, ordered by range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardMap {
    routes: Vec<Route>,
    /// Where each of them begins: in few lines of cache, for the search among ten thousand.
    starts: Vec<HashKey>,
}

impl ShardMap {
    /// Takes routes in any order; their ranges must tile the whole space.
    pub fn new(mut routes: Vec<Route>) -> Result<ShardMap, NotTiled> {
        routes.sort_by_key(|route| route.range);
        tiled(routes.iter().map(|route| route.range))?;
        let starts = routes.iter().map(|route| route.range.start()).collect();
        Ok(ShardMap { routes, starts })
    }

    /// O(log n) in the number of open shards.
    pub fn lookup(&self, key: HashKey) -> &Route {
        let at = range_of(&self.starts, key);
        if planted(Bug::BoundaryKeyAstray) && at > 0 && self.starts[at] == key {
            return &self.routes[at - 1];
        }
        let route = &self.routes[at];
        assert!(route.range.contains(key), "hash key {key} has no route although the map is tiled");
        route
    }

    /// Open shards in the order of their ranges; at least one.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// Which of the ranges that begin at `starts`, ascending from 0, has `key`. O(log n), and O(1) where they are even: it is
/// sought from where it would then be.
pub fn range_of(starts: &[HashKey], key: HashKey) -> usize {
    assert!(starts.first() == Some(&HashKey::MIN), "the ranges begin at 0");
    let guess = (((key.0 >> 64) * starts.len() as u128) >> 64) as usize;
    // Invariant: starts[low] ≤ key < starts[high], where there is a starts[high].
    let (mut low, mut high, mut step) = (guess, guess, 1);
    while starts[low] > key {
        (low, high, step) = (low.saturating_sub(step), low, step * 2);
    }
    while high == low || starts.get(high).is_some_and(|start| *start <= key) {
        (low, high, step) = (high, (high + step).min(starts.len()), step * 2);
    }
    low + starts[low..high].partition_point(|start| *start <= key) - 1
}

/// Whether `ranges`, in order of their starts, cover every key exactly once.
pub(crate) fn tiled(ranges: impl Iterator<Item = HashRange>) -> Result<(), NotTiled> {
    let mut next = Some(HashKey::MIN);
    for range in ranges {
        match next {
            Some(expected) if range.start() == expected => {}
            Some(expected) => {
                return Err(NotTiled { at: expected.min(range.start()) });
            }
            None => return Err(NotTiled { at: range.start() }),
        }
        next = range.end().0.checked_add(1).map(HashKey);
    }
    match next {
        None => Ok(()),
        Some(at) => Err(NotTiled { at }),
    }
}

/// The lowest key found to belong to no range or to two.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NotTiled {
    pub at: HashKey,
}

impl fmt::Display for NotTiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open ranges do not tile the hash space: trouble at hash key {}", self.at)
    }
}

impl std::error::Error for NotTiled {}

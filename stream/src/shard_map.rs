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

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Route {
    pub range: HashRange,
    pub shard: ShardId,
    pub group: GroupId,
}

/// One stream's routes, ordered by range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardMap {
    routes: Vec<Route>,
}

impl ShardMap {
    /// Takes routes in any order; their ranges must tile the whole space.
    pub fn new(mut routes: Vec<Route>) -> Result<ShardMap, NotTiled> {
        routes.sort_by_key(|route| route.range);
        tiled(routes.iter().map(|route| route.range))?;
        Ok(ShardMap { routes })
    }

    /// O(log n) in the number of open shards.
    pub fn lookup(&self, key: HashKey) -> &Route {
        let above = self.routes.partition_point(|route| route.range.start() <= key);
        if planted(Bug::BoundaryKeyAstray) && above > 1 && self.routes[above - 1].range.start() == key {
            return &self.routes[above - 2];
        }
        let route = &self.routes[above - 1];
        assert!(route.range.contains(key), "hash key {key} has no route although the map is tiled");
        route
    }

    /// Open shards in the order of their ranges; at least one.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
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

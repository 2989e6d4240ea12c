//! Which shard takes a hash key: one stream's open shards, as last listed.
//!
//! Owns an immutable snapshot. Its invariant: the ranges tile the whole space of hash keys, so
//! every lookup finds a shard; a listing that doesn't is refused. Deliberately not here: whether
//! the snapshot is still true (a node says so when it isn't) and who leads (see `nodes`).

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;

use braid_proto::v1;
use braid_stream::shard_map;
use braid_stream::{HashKey, HashRange, ShardId, StreamId};

/// A shard of the stream by its index, which its name has: a producer of ten thousand shards looks each of them up several
/// times for each record.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ShardIndex(pub u32);

impl ShardIndex {
    /// The error is a name that no shard has.
    pub fn parse(name: &str) -> Result<ShardIndex, RoutesError> {
        let unreadable = |_| RoutesError::Unnamed { shard: name.to_owned() };
        // Of which stream is known.
        ShardId::parse(StreamId(0), name).map(|it| ShardIndex(it.index)).map_err(unreadable)
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ShardId { stream: StreamId(0), index: self.0 }.name())
    }
}

/// An open shard.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub range: HashRange,
    pub shard: ShardIndex,
    /// The Raft group it lives in.
    pub group: u32,
}

/// The open shards of a stream in order of their ranges.
#[derive(Clone, Debug)]
pub(crate) struct Routes {
    routes: Vec<Route>,
    /// Where each of them begins: in few lines of cache, for the search.
    starts: Vec<HashKey>,
    shards: BTreeSet<ShardIndex>,
}

impl Routes {
    /// Takes the open ones among `shards`; they must tile the hash keys.
    pub fn of(shards: &[v1::Shard]) -> Result<Routes, RoutesError> {
        let mut routes = shards
            .iter()
            .filter(|shard| is_open(shard))
            .map(|shard| {
                Ok(Route { range: range_of(shard)?, shard: ShardIndex::parse(&shard.shard_id)?, group: shard.group })
            })
            .collect::<Result<Vec<Route>, RoutesError>>()?;
        routes.sort_by_key(|route| route.range.start());

        let mut next = Some(0u128);
        for route in &routes {
            if next != Some(route.range.start().0) {
                return Err(RoutesError::NotTiled { at: route.range.start() });
            }
            next = route.range.end().0.checked_add(1);
        }
        match (next, routes.is_empty()) {
            (None, false) => {
                let shards = routes.iter().map(|route| route.shard).collect();
                let starts = routes.iter().map(|route| route.range.start()).collect();
                Ok(Routes { routes, starts, shards })
            }
            (end, _) => Err(RoutesError::NotTiled { at: HashKey(end.unwrap_or(0)) }),
        }
    }

    /// The shard that takes `key`.
    pub fn lookup(&self, key: HashKey) -> &Route {
        let route = &self.routes[shard_map::range_of(&self.starts, key)];
        assert!(route.range.contains(key), "ranges tile the hash keys");
        route
    }

    /// Whether the shard is among the open ones.
    pub fn has(&self, shard: ShardIndex) -> bool {
        self.shards.contains(&shard)
    }
}

/// A shard without an ending sequence number takes writes.
pub(crate) fn is_open(shard: &v1::Shard) -> bool {
    shard.sequence_number_range.as_ref().is_none_or(|range| range.ending_sequence_number.is_empty())
}

fn range_of(shard: &v1::Shard) -> Result<HashRange, RoutesError> {
    let unreadable = || RoutesError::Unreadable { shard: shard.shard_id.clone() };
    let range = shard.hash_key_range.as_ref().ok_or_else(unreadable)?;
    let start = HashKey::parse(&range.starting_hash_key).map_err(|_| unreadable())?;
    let end = HashKey::parse(&range.ending_hash_key).map_err(|_| unreadable())?;
    HashRange::new(start, end).map_err(|_| unreadable())
}

/// Why a listing is of no use.
#[derive(Clone, Debug)]
pub(crate) enum RoutesError {
    /// A shard without a readable range.
    Unreadable { shard: String },
    /// A shard whose name is none.
    Unnamed { shard: String },
    /// No shard, or more than one, takes this key.
    NotTiled { at: HashKey },
}

impl fmt::Display for RoutesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoutesError::Unreadable { shard } => {
                write!(f, "the hash key range of {shard} can't be read")
            }
            RoutesError::Unnamed { shard } => write!(f, "{shard:?} is not a shard's name"),
            RoutesError::NotTiled { at } => {
                write!(f, "the open shards leave a gap or overlap at hash key {at}")
            }
        }
    }
}

impl Error for RoutesError {}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Open shards `0..n` of even ranges; shard i lives in group `i % groups + 1`.
    pub(crate) fn even(n: u32, groups: u32) -> Vec<v1::Shard> {
        HashRange::split_even(n)
            .into_iter()
            .enumerate()
            .map(|(i, range)| shard(i as u32, range, i as u32 % groups + 1))
            .collect()
    }

    pub(crate) fn shard(index: u32, range: HashRange, group: u32) -> v1::Shard {
        v1::Shard {
            shard_id: format!("shardId-{index:012}"),
            hash_key_range: Some(v1::HashKeyRange {
                starting_hash_key: range.start().to_string(),
                ending_hash_key: range.end().to_string(),
            }),
            group,
            ..Default::default()
        }
    }

    #[test]
    fn every_key_has_one_shard() {
        let mut shards = even(7, 2);
        shards.reverse();
        let routes = Routes::of(&shards).unwrap();
        for route in &routes.routes {
            for key in [route.range.start(), route.range.end()] {
                assert_eq!(routes.lookup(key).shard, route.shard);
            }
        }
    }

    #[test]
    fn gaps_overlaps_and_nothing_are_refused() {
        let mut gap = even(4, 1);
        gap.remove(1);
        let mut overlap = even(4, 1);
        overlap.push(shard(9, HashRange::FULL, 1));
        let mut short = even(4, 1);
        short.pop();
        for shards in [vec![], gap, overlap, short] {
            assert!(matches!(Routes::of(&shards), Err(RoutesError::NotTiled { .. })));
        }
    }

    #[test]
    fn a_shard_without_a_name_is_refused() {
        let mut shards = even(2, 1);
        shards[1].shard_id = "a shard".to_owned();
        assert!(matches!(Routes::of(&shards), Err(RoutesError::Unnamed { shard }) if shard == "a shard"));
    }

    #[test]
    fn closed_shards_take_nothing() {
        let mut shards = even(2, 1);
        shards.push(v1::Shard {
            sequence_number_range: Some(v1::SequenceNumberRange {
                starting_sequence_number: String::new(),
                ending_sequence_number: "2".to_owned(),
            }),
            ..shard(9, HashRange::FULL, 1)
        });
        let routes = Routes::of(&shards).unwrap();
        let has = |text: &str| routes.has(ShardIndex::parse(text).unwrap());
        assert!(!has("shardId-000000000009") && has("shardId-000000000001"));
    }
}

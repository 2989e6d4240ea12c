//! A stream as the catalog keeps it: name, status, settings, and its shards' ranges and places.
//!
//! Invariant (held by `Catalog::check`): the open shards tile the hash space; indexes are dense as
//! they are handed out and never reused; a child's creation second is greater than its parents'.
//!
//! Not here: what the shards hold (offsets, trimming), which only their groups know.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalog_command::CreateStream;
use crate::hash::HashRange;
use crate::ids::{GroupId, ShardId, StreamId};
use crate::limits::LimitOverrides;
use crate::name::StreamName;
use crate::shard::{ShardSpec, ShardState};
use crate::shard_map::{NotTiled, Route, ShardMap};

#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StreamStatus {
    /// Named and placed; its groups may not have its shards yet.
    Creating,
    Active,
    /// Shards are being split or merged, or settings changed; it takes and gives records.
    Updating,
    /// Its groups may still have its shards; the name is still taken.
    Deleting,
}

/// Who decides how many shards there are.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StreamMode {
    Provisioned,
    OnDemand,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stream {
    pub id: StreamId,
    pub name: StreamName,
    pub status: StreamStatus,
    pub mode: StreamMode,
    pub created_ms: u64,
    pub retention_ms: u64,
    pub limits: LimitOverrides,
    /// The index the next new shard gets.
    pub next_shard: u32,
    /// Open and closed ones, by index.
    pub shards: BTreeMap<u32, StreamShard>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamShard {
    pub range: HashRange,
    /// For the shard's whole life.
    pub group: GroupId,
    pub created_s: u64,
    pub parents: [Option<u32>; 2],
    pub state: ShardState,
}

impl StreamShard {
    pub fn is_open(&self) -> bool {
        matches!(self.state, ShardState::Open)
    }
}

impl Stream {
    /// `places` has one group for each shard.
    pub(super) fn create(id: StreamId, command: &CreateStream, created_ms: u64, places: Vec<GroupId>) -> Stream {
        let ranges = HashRange::split_even(command.shards);
        assert_eq!(ranges.len(), places.len(), "every shard has a place");
        let shards = ranges.into_iter().zip(places).map(|(range, group)| StreamShard {
            range,
            group,
            created_s: created_ms / 1000,
            parents: [None, None],
            state: ShardState::Open,
        });
        Stream {
            id,
            name: command.name.clone(),
            status: StreamStatus::Creating,
            mode: command.mode,
            created_ms,
            retention_ms: command.retention_ms,
            limits: command.limits,
            next_shard: command.shards,
            shards: (0..).zip(shards).collect(),
        }
    }

    pub fn shard_id(&self, index: u32) -> ShardId {
        ShardId { stream: self.id, index }
    }

    /// The groups that hold the stream's shards, open or closed.
    pub fn groups(&self) -> BTreeSet<GroupId> {
        self.shards.values().map(|shard| shard.group).collect()
    }

    /// What `group` must have open for this stream.
    pub fn specs_in(&self, group: GroupId) -> Vec<ShardSpec> {
        let open = |shard: &StreamShard| shard.group == group && shard.is_open();
        let shards = self.shards.iter().filter(|(_, shard)| open(shard));
        shards.map(|(&index, shard)| self.spec(index, shard)).collect()
    }

    /// What a shard of this stream is opened with.
    pub(super) fn spec(&self, index: u32, shard: &StreamShard) -> ShardSpec {
        ShardSpec {
            id: self.shard_id(index),
            range: shard.range,
            created_s: shard.created_s,
            parents: shard.parents,
            retention_ms: self.retention_ms,
            limits: self.limits.resolve(),
        }
    }

    /// Where each hash key's records go now. An error is a violated invariant.
    pub fn shard_map(&self) -> Result<ShardMap, NotTiled> {
        let open = self.shards.iter().filter(|(_, shard)| shard.is_open());
        let routes = open.map(|(&index, &StreamShard { range, group, created_s, .. })| Route {
            range,
            shard: self.shard_id(index),
            group,
            created_s,
        });
        ShardMap::new(routes.collect())
    }
}

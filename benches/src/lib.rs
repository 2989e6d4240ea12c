//! What the benchmarks feed in: records as a fleet of sensors sends them.
//!
//! Whole-cluster load is `braid bench`; `docs/performance.md` has the figures and the commands.

use braid_stream::hash::HashRange;
use braid_stream::ids::{ShardId, StreamId};
use braid_stream::limits::Limits;
use braid_stream::name::PartitionKey;
use braid_stream::record::Record;
use braid_stream::shard::ShardSpec;
use bytes::Bytes;

/// `count` records of `bytes` each, with distinct keys.
pub fn records(count: usize, bytes: usize) -> Vec<Record> {
    (0..count)
        .map(|i| Record {
            partition_key: PartitionKey::parse(&format!("sensor-{i}")).expect("a short key"),
            explicit_hash: None,
            data: Bytes::from(vec![b'x'; bytes]),
        })
        .collect()
}

/// `count` shards of stream 1 that tile the hash space.
pub fn shards(count: u32) -> Vec<ShardSpec> {
    let ranges = HashRange::split_even(count);
    (0..)
        .zip(ranges)
        .map(|(index, range)| ShardSpec {
            id: ShardId { stream: StreamId(1), index },
            range,
            created_s: 1,
            parents: [None, None],
            retention_ms: 86_400_000,
            limits: Limits::DEFAULT,
        })
        .collect()
}

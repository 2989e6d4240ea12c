//! Shards on the wire, of a stream that was split once and merged once; page sizes.

use braid_stream::catalog::{Stream, StreamShard, StreamStatus};
use braid_stream::hash::HashRange;
use braid_stream::ids::{GroupId, StreamId};
use braid_stream::limits::{LimitOverrides, Limits};
use braid_stream::name::StreamName;
use braid_stream::shard::ShardState;

use super::*;

const HOUR: u64 = 3_600_000;
const CREATED: u64 = 1_000 * HOUR;

/// 0 is split into 1 and 2 after ten hours; those are merged into 3 after twenty.
fn routes() -> StreamRoutes {
    let whole = HashRange::FULL;
    let halves = HashRange::split_even(2);
    let shard = |range, created_ms: u64, parents, closed: Option<(u64, Vec<u32>)>| StreamShard {
        range,
        group: GroupId(1),
        created_s: created_ms / 1000,
        parents,
        state: match closed {
            Some((at_ms, children)) => ShardState::Closed { last: None, at_ms, children },
            None => ShardState::Open,
        },
    };
    let (split, merged) = (CREATED + 10 * HOUR + 500, CREATED + 20 * HOUR);
    let shards = [
        shard(whole, CREATED, [None, None], Some((split, vec![1, 2]))),
        shard(halves[0], split, [Some(0), None], Some((merged, vec![3]))),
        shard(halves[1], split, [Some(0), None], Some((merged, vec![3]))),
        shard(whole, merged, [Some(1), Some(2)], None),
    ];
    let stream = Stream {
        id: StreamId(1),
        name: StreamName::parse("orders").unwrap(),
        status: StreamStatus::Active,
        mode: StreamMode::Provisioned,
        created_ms: CREATED,
        retention_ms: 24 * HOUR,
        limits: LimitOverrides::default(),
        next_shard: 4,
        shards: (0..).zip(shards).collect(),
    };
    let map = stream.shard_map().unwrap();
    StreamRoutes { stream, to_come: BTreeSet::new(), map, limits: Limits::DEFAULT, scaling: None, autoscale: None }
}

#[test]
fn a_closed_shard_has_an_ending_number_and_a_child_its_parents() {
    let routes = routes();
    let wired = |index: u32| wire::shard(&routes, index, &routes.stream.shards[&index], None, None);
    assert_eq!(wired(3).sequence_number_range.unwrap().ending_sequence_number, "");
    let ended = wired(0).sequence_number_range.unwrap();
    assert!(ended.starting_sequence_number < ended.ending_sequence_number);
    let child = wired(3);
    assert_eq!(child.parent_shard_id, "shardId-000000000001");
    assert_eq!(child.adjacent_parent_shard_id, "shardId-000000000002");
    assert!(ended.ending_sequence_number < child.sequence_number_range.unwrap().starting_sequence_number);
}

#[test]
fn page_sizes_have_a_ceiling_and_a_default() {
    assert_eq!(page_size("limit", 0, 100, 1000).unwrap(), 100);
    assert_eq!(page_size("limit", 1000, 100, 1000).unwrap(), 1000);
    let refused = page_size("limit", 1001, 100, 1000).unwrap_err().explain();
    assert_eq!(refused.detail.field, "limit");
}

//! Bad splits, merges and shard counts, and bad settings of a stream, as a table: as `bad_input.rs`, for what changes a
//! stream; and two changes of one stream at once, of which one is refused.

use crate::support::TestCluster;
use crate::support::sentinel::{Sentinel, client, create, detail, until};
use crate::support::table::{Ask, INVALID, NO_SHARD, NO_STREAM, Row, check, row};
use braid_proto::v1;
use braid_proto::v1::ErrorReason as R;
use tonic::Code;

/// The first of four, and already split.
const CLOSED: &str = "shardId-000000000000";
const SECOND: &str = "shardId-000000000001";
const THIRD: &str = "shardId-000000000002";
const LAST: &str = "shardId-000000000003";
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

const SHARD_CLOSED: (Code, R) = (Code::FailedPrecondition, R::ShardClosed);
const LIMIT: (Code, R) = (Code::ResourceExhausted, R::LimitExceeded);

fn split(stream: &str, shard: &str, at: &str) -> v1::SplitShardRequest {
    let (stream_name, shard_to_split, at) = (stream.into(), shard.into(), at.into());
    v1::SplitShardRequest { stream_name, shard_to_split, new_starting_hash_key: at }
}

fn merge(stream: &str, shard: &str, adjacent: &str) -> v1::MergeShardsRequest {
    let (stream_name, shard_to_merge, adjacent) = (stream.into(), shard.into(), adjacent.into());
    v1::MergeShardsRequest { stream_name, shard_to_merge, adjacent_shard_to_merge: adjacent }
}

fn scale(stream: &str, target_shard_count: u32) -> v1::UpdateShardCountRequest {
    v1::UpdateShardCountRequest { stream_name: stream.into(), target_shard_count, ..Default::default() }
}

fn split_rows() -> Vec<Row> {
    let of = |shard: &str, at: &str| Ask::Split(split("s", shard, at));
    // The second of four begins at 2^126 and ends before 2^127.
    let (start, end) = (1u128 << 126, (1u128 << 127) - 1);
    let at = |at: u128| of(SECOND, &at.to_string());
    let key = "new_starting_hash_key";
    let bounds = &["must be greater than 85070591730234615865843651857942052864", "at most 1701411834604692317316"];
    vec![
        row("split: no stream", Ask::Split(split("nobody", SECOND, "")), NO_STREAM, "", &["no stream nobody"]),
        row("split: illegal name", Ask::Split(split("no body", SECOND, "")), INVALID, "stream_name", &["no body"]),
        row("split: no shard", of("shardId-000000000099", ""), NO_SHARD, "", &["has no shard shardId-000000000099"]),
        row("split: malformed", of("99", ""), INVALID, "shard_to_split", &["shardId-", "12 digits"]),
        row("split: closed", of(CLOSED, ""), SHARD_CLOSED, "", &["is closed", "only open shards"]),
        row("split: at the first key", at(start), INVALID, key, bounds),
        row("split: below", at(start - 1), INVALID, key, bounds),
        row("split: above", at(end + 1), INVALID, key, bounds),
        row("split: at 0", at(0), INVALID, key, bounds),
        row("split: at 2^128-1", at(u128::MAX), INVALID, key, bounds),
        row("split: at a word", of(SECOND, "middle"), INVALID, key, &["is not a decimal number"]),
        row("split: negative", of(SECOND, "-1"), INVALID, key, &["is not a decimal number"]),
        row("split: beyond 2^128", of(SECOND, &"9".repeat(40)), INVALID, key, &["too large"]),
    ]
}

fn merge_rows() -> Vec<Row> {
    let of = |shard: &str, adjacent: &str| Ask::Merge(merge("s", shard, adjacent));
    let other = "adjacent_shard_to_merge";
    vec![
        row("merge: no stream", Ask::Merge(merge("nobody", SECOND, THIRD)), NO_STREAM, "", &["no stream nobody"]),
        row("merge: not adjacent", of(SECOND, LAST), INVALID, other, &["not adjacent"]),
        // The key space is no ring.
        row("merge: last and first", of(LAST, "shardId-000000000004"), INVALID, other, &["not adjacent"]),
        row("merge: with itself", of(SECOND, SECOND), INVALID, other, &["named twice"]),
        row("merge: closed", of(CLOSED, SECOND), SHARD_CLOSED, "", &["is closed"]),
        row("merge: with a closed one", of(SECOND, CLOSED), SHARD_CLOSED, "", &["is closed"]),
        row("merge: no shard", of(SECOND, "shardId-000000000099"), NO_SHARD, "", &["shardId-000000000099"]),
        row("merge: malformed", of("x", THIRD), INVALID, "shard_to_merge", &["12 digits"]),
        row("merge: the other one malformed", of(SECOND, ""), INVALID, other, &["12 digits"]),
    ]
}

fn scale_rows() -> Vec<Row> {
    let to = |shards| Ask::Scale(scale("s", shards));
    let free = |shards| Ask::Scale(v1::UpdateShardCountRequest { unbounded: true, ..scale("s", shards) });
    let odd = Ask::Scale(v1::UpdateShardCountRequest { scaling_type: 9, ..scale("s", 8) });
    let field = "target_shard_count";
    // Five are open.
    vec![
        row("scale: no stream", Ask::Scale(scale("nobody", 2)), NO_STREAM, "", &["no stream nobody"]),
        row("scale: to 0", to(0), INVALID, field, &["0 shards", "1 to 10000"]),
        row("scale: to 0, unbounded", free(0), INVALID, field, &["0 shards", "1 to 10000"]),
        row("scale: to 10,001", free(10_001), INVALID, field, &["10001 shards", "1 to 10000"]),
        row("scale: to 2^32-1", to(u32::MAX), INVALID, field, &["1 to 10000"]),
        row("scale: beyond twice", to(11), LIMIT, field, &["11 shards", "from 5 open shards, 3 to 10"]),
        row("scale: below half", to(2), LIMIT, field, &["2 shards", "from 5 open shards, 3 to 10"]),
        row("scale: unknown type", odd, INVALID, "scaling_type", &["EQUAL_SHARES and HALVES"]),
    ]
}

fn setting_rows() -> Vec<Row> {
    let create = |limits| {
        let request = v1::CreateStreamRequest { stream_name: "t".into(), shard_count: 1, ..Default::default() };
        Ask::Create(v1::CreateStreamRequest { limits: Some(limits), ..request })
    };
    let update = |retention_ms, limits| {
        Ask::Update(v1::UpdateStreamRequest { stream_name: "s".into(), retention_ms, limits, autoscale: None })
    };
    let none = v1::StreamLimits::default();
    let beyond = v1::StreamLimits { write_bytes_per_s: (1 << 40) + 1, ..none };
    let calls = v1::StreamLimits { read_calls_per_s: u64::MAX, ..none };
    let small = v1::StreamLimits { max_record_bytes: 4095, ..none };
    let bounds = |min_shards, max_shards| {
        let autoscale = Some(v1::Autoscale { min_shards, max_shards });
        Ask::Update(v1::UpdateStreamRequest { stream_name: "s".into(), autoscale, ..Default::default() })
    };
    let rate = &["1 to 1099511627776"];
    vec![
        row("create: write rate", create(beyond), INVALID, "write_bytes_per_s", rate),
        row("create: read calls", create(calls), INVALID, "read_calls_per_s", rate),
        row("create: record size", create(small), INVALID, "max_record_bytes", &["4095", "4096 to 10485760"]),
        row("update: write rate", update(0, Some(beyond)), INVALID, "write_bytes_per_s", rate),
        row("update: record size", update(0, Some(small)), INVALID, "max_record_bytes", &["4095", "4096 to 10485760"]),
        row("autoscale: from 0", bounds(0, 5), INVALID, "autoscale", &["0 to 5 shards", "ascending, 1 to 10000"]),
        row("autoscale: backwards", bounds(5, 4), INVALID, "autoscale", &["5 to 4 shards", "ascending"]),
        row("autoscale: too many", bounds(1, 10_001), INVALID, "autoscale", &["1 to 10001 shards", "1 to 10000"]),
        row("update: nothing", update(0, None), INVALID, "retention_ms", &["nothing to change"]),
        row("update: too short", update(HOUR - 1, None), INVALID, "retention_ms", &["3600000 to 604800000"]),
        row("update: too long", update(7 * DAY + 1, None), INVALID, "retention_ms", &["3600000 to 604800000"]),
        row("update: 2^64-1", update(u64::MAX, None), INVALID, "retention_ms", &["3600000 to 604800000"]),
    ]
}

async fn settled(cluster: &TestCluster, stream: &str) -> v1::StreamDescription {
    until("the stream to be active", || {
        let mut client = client(cluster, 0);
        async move {
            let request = v1::DescribeStreamRequest { stream_name: stream.into() };
            let found = client.describe_stream(request).await.ok()?.into_inner().stream?;
            (found.status() == v1::StreamStatus::Active).then_some(found)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_are_not_allowed() {
    let mut cluster = TestCluster::start_with(|config| config.throttle = false).await;
    let mut sentinel = Sentinel::start(&cluster).await;
    let mut client = client(&cluster, 0);
    create(&mut client, "s", 4).await;
    client.split_shard(split("s", CLOSED, "")).await.unwrap();
    let before = settled(&cluster, "s").await;
    assert_eq!((before.open_shard_count, before.shard_count), (5, 6));
    check(&cluster, &mut sentinel, "splits", split_rows()).await;
    check(&cluster, &mut sentinel, "merges", merge_rows()).await;
    check(&cluster, &mut sentinel, "shard counts", scale_rows()).await;
    check(&cluster, &mut sentinel, "settings", setting_rows()).await;
    assert_eq!(settled(&cluster, "s").await, before, "nothing of it was done in part");
    cluster.stop_all().await;
}

/// Each of them is sent to another node at the same time: one is decided, and the others are refused and can be tried
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_changes_at_once_one_is_made() {
    let mut cluster = TestCluster::start().await;
    create(&mut client(&cluster, 0), "s", 4).await;
    let asks = [Ask::Scale(scale("s", 8)), Ask::Split(split("s", SECOND, "")), Ask::Merge(merge("s", THIRD, LAST))];
    let sent = asks.into_iter().enumerate().map(|(node, ask)| {
        let mut client = client(&cluster, node);
        async move { ask.send(&mut client).await }
    });
    let answers = futures_util::future::join_all(sent).await;
    let found = settled(&cluster, "s").await;
    let made = answers.iter().filter(|it| it.is_ok()).count();
    assert!(made >= 1, "{answers:?}");
    for refused in answers.iter().filter_map(|it| it.as_ref().err()) {
        let why = detail(refused).unwrap();
        // The shard may be closed by one that was over before.
        assert!(matches!(why.reason(), R::StreamNotActive | R::ShardClosed), "{refused:?}");
        assert_eq!(why.retryable, why.reason() == R::StreamNotActive, "{refused:?}");
    }
    assert!([8, 5, 3, 4].contains(&found.open_shard_count), "{found:?}");
    cluster.stop_all().await;
}

//! What happens to a stream's shards by itself: scaled by the cluster, listed by when they were open, forgotten, loaded.
//! Splits and merges that somebody asks for are in `api.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::support::calls::{
    Client, client, describe, detail, entry, get, iterator, put, settle, settle_as, shards, texts,
};
use crate::support::{BOUND, TestCluster};
use braid_proto::v1;
use braid_proto::v1::{ErrorReason, ShardIteratorType as Kind};

/// Reads a shard to its end, or to its tip; gives its records and the names of its children.
async fn whole(client: &mut Client, name: &str, shard: &str) -> (Vec<v1::Record>, Option<Vec<String>>) {
    let mut next = iterator(client, name, shard, Kind::TrimHorizon, "", 0).await;
    let mut records = Vec::new();
    let start = Instant::now();
    loop {
        match get(client, &next, 0).await {
            Ok(page) => {
                let at_tip = page.records.is_empty() && page.millis_behind_latest == 0;
                records.extend(page.records);
                if page.next_shard_iterator.is_empty() {
                    return (records, Some(page.child_shards.into_iter().map(|it| it.shard_id).collect()));
                }
                if at_tip {
                    return (records, None);
                }
                next = page.next_shard_iterator;
            }
            Err(status) if detail(&status).reason() == ErrorReason::Throttled => {
                braid_env::time::sleep(Duration::from_millis(250)).await;
            }
            Err(status) => panic!("{status:?}"),
        }
        assert!(start.elapsed() < BOUND, "{shard} was not read to its end");
    }
}

async fn create(client: &mut Client, name: &str, shards: u32) {
    let request =
        v1::CreateStreamRequest { stream_name: name.into(), shard_count: shards, ..v1::CreateStreamRequest::default() };
    client.create_stream(request).await.unwrap();
    settle(client, name).await;
}

fn equal_shares(shards: &[v1::Shard]) -> bool {
    let open = shards.iter().filter(|it| it.sequence_number_range.as_ref().unwrap().ending_sequence_number.is_empty());
    let mut starts: Vec<u128> =
        open.map(|it| it.hash_key_range.as_ref().unwrap().starting_hash_key.parse().unwrap()).collect();
    starts.sort_unstable();
    let share = u128::MAX / starts.len() as u128;
    starts.iter().zip(0..).all(|(start, nth)| start.abs_diff(nth * share) < 1_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_scales_a_stream_by_itself_whoever_leads_the_catalog() {
    let mut cluster = TestCluster::start().await;
    let mut admin = client(&cluster, 0).await;
    create(&mut admin, "s", 1).await;
    let scale = |target_shard_count, unbounded| v1::UpdateShardCountRequest {
        stream_name: "s".into(),
        target_shard_count,
        unbounded,
        ..Default::default()
    };
    let answer = client(&cluster, 1).await.update_shard_count(scale(24, true)).await.unwrap().into_inner();
    assert_eq!((answer.current_shard_count, answer.target_shard_count), (1, 24));
    // Whoever leads the catalog next goes on.
    let status = admin.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
    let to_node = 1 + status.groups[0].leader_node % 3;
    let _ = admin.transfer_leader(v1::TransferLeaderRequest { group: 0, to_node }).await;
    let start = Instant::now();
    let mut seen = BTreeSet::new();
    loop {
        let found = describe(&mut admin, "s").await;
        if found.target_shard_count == 0 {
            break;
        }
        assert_eq!((found.status(), found.target_shard_count), (v1::StreamStatus::Updating, 24));
        assert!(found.scaling_steps == 23 && found.scaling_steps_left <= 23, "{found:?}");
        seen.insert(found.scaling_steps_left);
        // A node that has not heard of a split yet is told by one that has who leads the child's group. It asked the
        // parent's leader again and again, for three seconds, and gave that up.
        admin.put_record(put("s", "k", "taken meanwhile")).await.unwrap();
        assert!(start.elapsed() < BOUND, "{found:?}");
    }
    let found = settle_as(&mut admin, "s", |it| it.open_shard_count == 24).await;
    assert_eq!(found.shard_count, 1 + 2 * 23);
    assert!(equal_shares(&shards(&mut admin, "s").await));
    // As the service does it: 24 to 36 takes every shard.
    let halves = v1::UpdateShardCountRequest { scaling_type: v1::ScalingType::Halves as i32, ..scale(36, false) };
    client(&cluster, 2).await.update_shard_count(halves).await.unwrap();
    let found = settle_as(&mut admin, "s", |it| it.open_shard_count == 36).await;
    assert_eq!(found.shard_count, 47 + 48 + 12);
    // What is there already is no change; it counts all the same.
    let mut last = None;
    for _ in 0..10 {
        last = admin.update_shard_count(scale(36, false)).await.err();
        settle(&mut admin, "s").await;
    }
    let last = detail(&last.expect("the eleventh of a day is refused"));
    assert_eq!((last.reason(), last.retryable), (ErrorReason::LimitExceeded, true));
    assert!((80_000_000..=86_400_000).contains(&last.retry_after_ms), "{last:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_created_with_limits_and_a_refusal_says_which_and_how_full() {
    let mut cluster = TestCluster::start().await;
    let mut first = client(&cluster, 0).await;
    let limits = v1::StreamLimits { write_records_per_s: 5, read_calls_per_s: 1, ..Default::default() };
    let request =
        v1::CreateStreamRequest { stream_name: "s".into(), shard_count: 1, limits: Some(limits), ..Default::default() };
    first.create_stream(request).await.unwrap();
    let found = settle(&mut first, "s").await.limits.unwrap();
    assert_eq!((found.write_records_per_s, found.read_calls_per_s, found.read_bytes_per_s), (5, 1, 2 << 20));
    // Alone and among others, at the leader and through other nodes.
    for node in 0..3 {
        let mut client = client(&cluster, node).await;
        let records = (0..20).map(|n| entry("k", &n.to_string())).collect();
        let request = v1::PutRecordsRequest { stream_name: "s".into(), records, keep_order: false };
        let results = client.put_records(request).await.unwrap().into_inner().records;
        let refused = results.iter().find(|it| it.error_code() == ErrorReason::Throttled).expect("5 of 20 at most");
        assert_eq!(refused.limit(), v1::ShardLimit::RecordsIn);
        assert!((1..=200).contains(&refused.retry_after_ms), "{refused:?}");
        assert!((80..=100).contains(&refused.limit_used_percent), "{refused:?}");
        assert!(refused.error_message.contains("5 records written per second"), "{refused:?}");
        let alone = loop {
            match client.put_record(put("s", "k", "alone")).await {
                Ok(_) => {}
                Err(status) => break detail(&status),
            }
        };
        assert_eq!((alone.reason(), alone.limit()), (ErrorReason::Throttled, v1::ShardLimit::RecordsIn));
        assert!((1..=200).contains(&alone.retry_after_ms) && alone.limit_used_percent >= 80, "{alone:?}");
        let at = iterator(&mut client, "s", "shardId-000000000000", Kind::TrimHorizon, "", 0).await;
        let read = loop {
            match get(&mut client, &at, 0).await {
                Ok(_) => {}
                Err(status) => break detail(&status),
            }
        };
        assert_eq!((read.reason(), read.limit()), (ErrorReason::Throttled, v1::ShardLimit::CallsOut));
        assert!((1..=1_000).contains(&read.retry_after_ms) && read.limit_used_percent > 0, "{read:?}");
    }
    cluster.stop_all().await;
}

/// A consumer that comes late must find nothing odd: a child whose parents nobody knows, and a clear word for who holds
/// an iterator of one of those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_shards_leave_listings_with_their_records_and_are_forgotten() {
    let mut cluster = TestCluster::start_with(|config| {
        (config.retention_floor_ms, config.trim_every_ms, config.forget_grace_ms) = (1, 200, 0);
    })
    .await;
    let mut client = client(&cluster, 0).await;
    let request = v1::CreateStreamRequest {
        stream_name: "s".into(),
        shard_count: 1,
        retention_ms: 1_500,
        ..v1::CreateStreamRequest::default()
    };
    client.create_stream(request).await.unwrap();
    settle(&mut client, "s").await;
    client.put_record(put("s", "k", "old")).await.unwrap();
    let parent = "shardId-000000000000";
    let held = iterator(&mut client, "s", parent, Kind::TrimHorizon, "", 0).await;
    let split = v1::SplitShardRequest { stream_name: "s".into(), shard_to_split: parent.into(), ..Default::default() };
    client.split_shard(split).await.unwrap();
    settle(&mut client, "s").await;
    let start = Instant::now();
    let listed = loop {
        let listed = shards(&mut client, "s").await;
        let groups = |node: usize| cluster.node(node).groups();
        let forgotten = |node: usize| {
            let known = |c: &braid_stream::Catalog| {
                c.streams().any(|it| it.shards.contains_key(&0)) || !c.forgetting().is_empty()
            };
            let of_group = |g: &braid_stream::Group| g.shards().any(|it| it.id.index == 0);
            let in_groups = groups(node).all().into_iter().filter_map(|it| groups(node).get(it.id()));
            !groups(node).catalog().unwrap().state(known) && !in_groups.into_iter().any(|it| it.state(of_group))
        };
        if (0..3).all(forgotten) {
            break listed;
        }
        assert!(start.elapsed() < BOUND, "{listed:?}");
        braid_env::time::sleep(Duration::from_millis(50)).await;
    };
    let names: Vec<&str> = listed.iter().map(|it| it.shard_id.as_str()).collect();
    assert_eq!(names, ["shardId-000000000001", "shardId-000000000002"]);
    assert!(listed.iter().all(|it| it.parent_shard_id == parent), "the link stays");
    assert_eq!(describe(&mut client, "s").await.shard_count, 2);
    let gone = get(&mut client, &held, 0).await.unwrap_err();
    assert_eq!(detail(&gone).reason(), ErrorReason::ShardForgotten);
    assert!(gone.message().contains("no more: it was closed, and its records are past retention"), "{gone:?}");
    // One who lists now reads the children from their beginning.
    client.put_record(put("s", "k", "new")).await.unwrap();
    let mut texts_read = Vec::new();
    for shard in &listed {
        texts_read.extend(texts(&whole(&mut client, "s", &shard.shard_id).await.0));
    }
    assert_eq!(texts_read, ["new"]);
    cluster.stop_all().await;
}

/// As a node is for a moment that was killed and has just been started: no other can reach it here, so that it stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_behind_does_not_deny_a_shard() {
    let mut cluster = TestCluster::start().await;
    let mut admin = client(&cluster, 0).await;
    create(&mut admin, "s", 1).await;
    cluster.stop(2).await;
    let shard_to_split = "shardId-000000000000".to_string();
    let split = v1::SplitShardRequest { stream_name: "s".into(), shard_to_split, ..Default::default() };
    admin.split_shard(split).await.unwrap();
    settle(&mut admin, "s").await;
    let child = "shardId-000000000002";
    let held = iterator(&mut admin, "s", child, Kind::TrimHorizon, "", 0).await;

    let listen = cluster.configs[2].peer_listen;
    cluster.configs[2].peer_listen = "127.0.0.1:0".parse().unwrap();
    cluster.restart(2).await;
    let mut behind = client(&cluster, 2).await;
    // What it knows it says, as soon as its catalog is open.
    let known = v1::ListShardsRequest { stream_name: "s".into(), ..v1::ListShardsRequest::default() };
    let start = Instant::now();
    let known = loop {
        match behind.list_shards(known.clone()).await {
            Ok(page) => break page.into_inner().shards,
            Err(refused) => assert!(start.elapsed() < BOUND, "{refused:?}"),
        }
        braid_env::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(known.iter().all(|it| it.shard_id != child), "it is not behind: {known:?}");
    let named = v1::GetShardIteratorRequest {
        stream_name: "s".into(),
        shard_id: child.into(),
        shard_iterator_type: Kind::TrimHorizon as i32,
        ..v1::GetShardIteratorRequest::default()
    };
    let refused = behind.get_shard_iterator(named).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    let refused = get(&mut behind, &held, 0).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");

    cluster.stop(2).await;
    cluster.configs[2].peer_listen = listen;
    cluster.restart(2).await;
    cluster.ready().await;
    let mut behind = client(&cluster, 2).await;
    get(&mut behind, &held, 0).await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_says_what_is_asked_of_each_shard_and_whether_a_split_would_help() {
    let mut cluster = TestCluster::start().await;
    let mut writer = client(&cluster, 0).await;
    create(&mut writer, "s", 4).await;
    let limits = v1::StreamLimits { write_records_per_s: 20, ..Default::default() };
    let update = v1::UpdateStreamRequest { stream_name: "s".into(), limits: Some(limits), ..Default::default() };
    writer.update_stream(update).await.unwrap();
    settle(&mut writer, "s").await;
    // Far more than 20/s: shard 0 by one key, shard 3 by many; shard 1 a little, shard 2 nothing.
    let quarter = u128::MAX / 4;
    let mut records = Vec::new();
    for n in 0..400u128 {
        let hashed = |key: String, hash: u128| v1::PutRecordsRequestEntry {
            explicit_hash_key: hash.to_string(),
            ..entry(&key, "data")
        };
        records.push(hashed("the one".into(), 7));
        records.push(hashed(format!("some-{n}"), 3 * quarter + 10 + n * (quarter / 401)));
        if n == 0 {
            records.push(hashed("rare".into(), quarter + 10));
        }
    }
    for part in records.chunks(400) {
        let request = v1::PutRecordsRequest { stream_name: "s".into(), records: part.to_vec(), keep_order: false };
        writer.put_records(request).await.unwrap();
    }
    let ask = |shard_id: &str, max_results| v1::DescribeShardLoadsRequest {
        stream_name: "s".into(),
        shard_id: shard_id.into(),
        max_results,
    };
    let name = |index: u32| format!("shardId-{index:012}");
    for node in 0..3 {
        let mut client = client(&cluster, node).await;
        let answer = client.describe_shard_loads(ask("", 0)).await.unwrap().into_inner();
        assert_eq!(answer.missing_shard_ids, Vec::<String>::new());
        let loads: BTreeMap<String, v1::ShardLoad> =
            answer.shards.iter().map(|it| (it.shard_id.clone(), it.clone())).collect();
        assert_eq!(loads.len(), 4, "{answer:?}");
        assert!(answer.shards.is_sorted_by(|a, b| a.write_percent >= b.write_percent), "{answer:?}");
        let (one, many) = (&loads[&name(0)], &loads[&name(3)]);
        assert!(one.incoming_records_per_s > 0.0 && one.throttled_records_per_s > 0.0 && one.write_percent > 50.0);
        assert_eq!((one.advice(), one.hot_keys[0].partition_key.as_str()), (v1::SplitAdvice::OneKey, "the one"));
        assert_eq!((one.hot_keys[0].hash_key.as_str(), one.split_at.as_str()), ("7", ""));
        assert!(one.larger_half_percent > 99.0, "{one:?}");
        assert_eq!(many.advice(), v1::SplitAdvice::Split, "{many:?}");
        assert!(many.larger_half_percent < 60.0, "{many:?}");
        assert!(loads[&name(1)].incoming_records_per_s > 0.0 && loads[&name(2)].window_ms == 0);
        // One of them, and the busiest.
        let alone = client.describe_shard_loads(ask(&name(3), 0)).await.unwrap().into_inner().shards;
        assert_eq!((alone.len(), alone[0].split_at.as_str()), (1, many.split_at.as_str()));
        let busiest = client.describe_shard_loads(ask("", 1)).await.unwrap().into_inner().shards;
        assert_eq!(busiest.len(), 1);
        assert!([name(0), name(3)].contains(&busiest[0].shard_id));
        let refused = detail(&client.describe_shard_loads(ask("shardId-000000000009", 0)).await.unwrap_err());
        assert_eq!(refused.reason(), ErrorReason::ShardNotFound);
    }
    // What was said is a place where it can be split.
    let loads = writer.describe_shard_loads(ask(&name(3), 0)).await.unwrap().into_inner().shards;
    let split = v1::SplitShardRequest {
        stream_name: "s".into(),
        shard_to_split: name(3),
        new_starting_hash_key: loads[0].split_at.clone(),
    };
    writer.split_shard(split).await.unwrap();
    assert_eq!(settle(&mut writer, "s").await.open_shard_count, 5);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_wants_it_scales_by_itself_within_its_bounds() {
    let mut cluster = TestCluster::start().await;
    let mut client = client(&cluster, 0).await;
    create(&mut client, "s", 1).await;
    let bounds = |min_shards, max_shards| v1::UpdateStreamRequest {
        stream_name: "s".into(),
        autoscale: Some(v1::Autoscale { min_shards, max_shards }),
        ..Default::default()
    };
    client.update_stream(bounds(3, 5)).await.unwrap();
    let start = Instant::now();
    let found = loop {
        let found = settle(&mut client, "s").await;
        if found.open_shard_count == 3 {
            break found;
        }
        assert!(start.elapsed() < BOUND, "{found:?}");
        braid_env::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(found.autoscale, Some(v1::Autoscale { min_shards: 3, max_shards: 5 }));
    assert!(equal_shares(&shards(&mut client, "s").await));
    client.update_stream(bounds(0, 0)).await.unwrap();
    assert_eq!(describe(&mut client, "s").await.autoscale, None);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_on_demand_is_scaled_by_the_cluster_and_keeps_its_shards_afterwards() {
    use v1::change_attributes_request::Change;
    let mut cluster = TestCluster::start().await;
    let mut client = client(&cluster, 0).await;
    create(&mut client, "s", 2).await;
    let mode = |mode: v1::StreamMode| v1::ChangeAttributesRequest {
        stream_name: "s".into(),
        change: Some(Change::Mode(mode as i32)),
        ..Default::default()
    };
    client.change_attributes(mode(v1::StreamMode::OnDemand)).await.unwrap();
    let start = Instant::now();
    let found = loop {
        let found = settle(&mut client, "s").await;
        if found.open_shard_count == 4 {
            break found;
        }
        assert!(start.elapsed() < BOUND, "{found:?}");
        braid_env::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(found.autoscale, Some(v1::Autoscale { min_shards: 4, max_shards: 200 }));
    client.change_attributes(mode(v1::StreamMode::Provisioned)).await.unwrap();
    let found = settle(&mut client, "s").await;
    assert_eq!((found.open_shard_count, found.autoscale), (4, None));
    cluster.stop_all().await;
}

/// The token says which shards are listed, whatever the next call says besides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filtered_listing_goes_on_over_its_pages_through_any_node() {
    use v1::shard_filter::Type;
    let mut cluster = TestCluster::start().await;
    let mut admin = client(&cluster, 0).await;
    create(&mut admin, "s", 3).await;
    let before_ms = split_first(&cluster, &mut admin).await;
    let list = |filter, shard: u32, timestamp_ms| {
        let shard_filter =
            Some(v1::ShardFilter { r#type: filter as i32, shard_id: format!("shardId-{shard:012}"), timestamp_ms });
        v1::ListShardsRequest { stream_name: "s".into(), max_results: 2, shard_filter, ..Default::default() }
    };
    for (request, expected) in [
        (list(Type::AtLatest, 0, 0), vec![1, 2, 3, 4]),
        (list(Type::AtTrimHorizon, 0, 0), vec![0, 1, 2]),
        (list(Type::AtTimestamp, 0, before_ms), vec![0, 1, 2]),
        (list(Type::FromTimestamp, 0, before_ms), vec![0, 1, 2, 3, 4]),
        (list(Type::FromTimestamp, 0, u64::MAX), vec![1, 2, 3, 4]),
        (list(Type::AfterShardId, 2, 0), vec![3, 4]),
        (list(Type::AfterShardId, 4, 0), vec![]),
        (list(Type::FromTrimHorizon, 0, 0), vec![0, 1, 2, 3, 4]),
        (list(Type::Unspecified, 0, 0), vec![0, 1, 2, 3, 4]),
    ] {
        let (mut seen, mut next) = (Vec::new(), request.clone());
        for page in 0.. {
            let mut client = client(&cluster, page % 3).await;
            let answer = client.list_shards(next).await.unwrap().into_inner();
            assert!(answer.shards.len() <= 2 && page < 5);
            seen.extend(answer.shards.into_iter().map(|it| it.shard_id));
            if answer.next_token.is_empty() {
                break;
            }
            next = v1::ListShardsRequest { next_token: answer.next_token, ..list(Type::AtLatest, 9, 0) };
        }
        let expected: Vec<String> = expected.iter().map(|index| format!("shardId-{index:012}")).collect();
        assert_eq!(seen, expected, "{request:?}");
    }
    cluster.stop_all().await;
}

/// Splits shard 0 of "s", and waits until every node knows; gives a time before. It is by the cluster's clock, which need
/// not show what this machine's does: a shard's end is not before its last record.
async fn split_first(cluster: &TestCluster, admin: &mut Client) -> u64 {
    let shard = "shardId-000000000000".to_string();
    let record = v1::PutRecordRequest { explicit_hash_key: "0".into(), ..put("s", "key", "data") };
    admin.put_record(record).await.unwrap();
    let (records, _) = whole(admin, "s", &shard).await;
    let before_ms = records[0].approximate_arrival_timestamp_ms - 1;
    let split = v1::SplitShardRequest { stream_name: "s".into(), shard_to_split: shard, ..Default::default() };
    admin.split_shard(split).await.unwrap();
    let start = Instant::now();
    for node in 0..3 {
        let mut client = client(cluster, node).await;
        while settle(&mut client, "s").await.open_shard_count != 4 {
            assert!(start.elapsed() < BOUND, "node {} does not know of the split", node + 1);
        }
    }
    before_ms
}

//! The public API end to end: three nodes, real sockets, the generated gRPC client.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::support::calls::{Client, client, detail, entry, get, iterator, put, settle, settle_as, shards, texts};
use crate::support::{BOUND, TestCluster};
use braid_proto::v1;
use braid_proto::v1::{ErrorReason, Outcome, ShardIteratorType as Kind};
use tonic::{Code, Status};

async fn create(client: &mut Client, name: &str, shards: u32) {
    let request =
        v1::CreateStreamRequest { stream_name: name.into(), shard_count: shards, ..v1::CreateStreamRequest::default() };
    client.create_stream(request).await.unwrap();
    settle(client, name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_writes_and_reads_any_shard() {
    let mut cluster = TestCluster::start_with(|config| config.throttle = false).await;
    let mut clients = Vec::new();
    for node in 0..3 {
        clients.push(client(&cluster, node).await);
    }
    create(&mut clients[0], "orders", 6).await;
    let listed = shards(&mut clients[1], "orders").await;
    assert_eq!(listed.len(), 6);
    let groups: BTreeSet<u32> = listed.iter().map(|it| it.group).collect();
    assert!(groups.len() >= 2, "the shards are spread over groups: {groups:?}");

    // Through every node, to every shard; so most are forwarded.
    let mut numbers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut written = BTreeMap::new();
    for n in 0..60usize {
        let (key, data) = (format!("key-{n}"), format!("data-{n}"));
        let answer = clients[n % 3].put_record(put("orders", &key, &data)).await.unwrap().into_inner();
        numbers.entry(answer.shard_id.clone()).or_default().push(answer.sequence_number.clone());
        written.insert(answer.sequence_number, data);
    }
    for numbers in numbers.values() {
        assert!(numbers.is_sorted(), "a shard's numbers grow: {numbers:?}");
    }

    // Every shard read through every node gives the same, all of it.
    for client in &mut clients {
        let mut read = BTreeMap::new();
        for shard in &listed {
            let from = iterator(client, "orders", &shard.shard_id, Kind::TrimHorizon, "", 0).await;
            let answer = get(client, &from, 0).await.unwrap();
            assert_eq!(answer.millis_behind_latest, 0);
            assert!(!answer.next_shard_iterator.is_empty());
            let empty = get(client, &answer.next_shard_iterator, 0).await.unwrap();
            assert_eq!(empty.records, [], "at the tip there is nothing, at once");
            let records = answer.records.iter();
            read.extend(records.map(|it| (it.sequence_number.clone(), texts(std::slice::from_ref(it)).remove(0))));
        }
        assert_eq!(read, written);
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_five_kinds_of_iterator_and_limits_of_a_read() {
    let mut cluster = TestCluster::start_with(|config| config.throttle = false).await;
    let mut client = client(&cluster, 1).await;
    create(&mut client, "s", 1).await;
    let shard = "shardId-000000000000";
    let latest = iterator(&mut client, "s", shard, Kind::Latest, "", 0).await;
    let mut numbers = Vec::new();
    for n in 0..10 {
        let answer = client.put_record(put("s", "k", &n.to_string())).await.unwrap().into_inner();
        numbers.push(answer.sequence_number);
        braid_env::time::sleep(Duration::from_millis(5)).await;
    }
    let all: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let answer = get(&mut client, &latest, 0).await.unwrap();
    assert_eq!(texts(&answer.records), all, "LATEST of an empty shard is its beginning");

    let at = iterator(&mut client, "s", shard, Kind::AtSequenceNumber, &numbers[4], 0).await;
    let answer = get(&mut client, &at, 3).await.unwrap();
    assert_eq!(texts(&answer.records), all[4..7], "the limit holds");
    assert!(answer.millis_behind_latest > 0);
    let answer = get(&mut client, &answer.next_shard_iterator, 0).await.unwrap();
    assert_eq!(texts(&answer.records), all[7..], "and the next iterator goes on exactly there");

    let after = iterator(&mut client, "s", shard, Kind::AfterSequenceNumber, &numbers[9], 0).await;
    assert_eq!(get(&mut client, &after, 0).await.unwrap().records, []);

    let horizon = iterator(&mut client, "s", shard, Kind::TrimHorizon, "", 0).await;
    let records = get(&mut client, &horizon, 0).await.unwrap().records;
    let time = records[6].approximate_arrival_timestamp_ms;
    let first = records.iter().position(|it| it.approximate_arrival_timestamp_ms >= time).unwrap();
    let by_time = iterator(&mut client, "s", shard, Kind::AtTimestamp, "", time).await;
    assert_eq!(texts(&get(&mut client, &by_time, 0).await.unwrap().records), all[first..]);
    let future = iterator(&mut client, "s", shard, Kind::AtTimestamp, "", u64::MAX).await;
    assert_eq!(get(&mut client, &future, 0).await.unwrap().records, [], "a time to come acts as LATEST");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn put_records_keeps_order_and_refuses_each_record_by_itself() {
    let mut cluster = TestCluster::start().await;
    let mut client = client(&cluster, 2).await;
    create(&mut client, "s", 1).await;

    // 1 MiB/s: of three records of 500 KB each, one at least is over the limit of this second.
    let large = "x".repeat(500_000);
    let records: Vec<_> = (0..3).map(|n| entry("k", &format!("{n}{large}"))).chain([entry("k", "small")]).collect();
    let request = v1::PutRecordsRequest { stream_name: "s".into(), records, keep_order: true };
    let answer = client.put_records(request).await.unwrap().into_inner();
    assert_eq!(answer.records.len(), 4);
    assert!(answer.failed_record_count > 0);
    let refused = answer.records.iter().position(|it| it.outcome() == Outcome::Refused).unwrap();
    assert_eq!(answer.records[refused].error_code(), ErrorReason::Throttled);
    assert_eq!(answer.records[refused].limit(), v1::ShardLimit::BytesIn);
    assert!(answer.records[refused].retry_after_ms > 0);
    for later in &answer.records[refused + 1..] {
        assert_eq!(later.error_code(), ErrorReason::PredecessorRefused, "keep_order holds back what follows");
    }
    for earlier in &answer.records[..refused] {
        assert_eq!(earlier.outcome(), Outcome::Appended);
    }

    // Together the call's records keep their order.
    braid_env::time::sleep(Duration::from_millis(1_100)).await;
    let records: Vec<_> = (0..100).map(|n| entry(&format!("k{n}"), &n.to_string())).collect();
    let request = v1::PutRecordsRequest { stream_name: "s".into(), records, keep_order: false };
    let answer = client.put_records(request).await.unwrap().into_inner();
    assert_eq!(answer.failed_record_count, 0, "{answer:?}");
    assert!(answer.records.is_sorted_by_key(|it| it.sequence_number.clone()));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_is_refused_by_name() {
    // A leader of a moment ago lets nobody read at once.
    let mut cluster = TestCluster::start_with(|config| config.throttle = false).await;
    let mut client = client(&cluster, 0).await;
    create(&mut client, "s", 1).await;
    let refused = |status: Status, code: Code, reason: ErrorReason, field: &str| {
        let detail = detail(&status);
        assert_eq!((status.code(), detail.reason(), detail.field.as_str()), (code, reason, field), "{status:?}");
        assert_eq!(detail.outcome(), Outcome::Refused);
    };
    use ErrorReason as R;

    let status = client.put_record(put("no such", "k", "d")).await.unwrap_err();
    refused(status, Code::InvalidArgument, R::InvalidArgument, "stream_name");
    let status = client.put_record(put("other", "k", "d")).await.unwrap_err();
    refused(status, Code::NotFound, R::StreamNotFound, "");
    let status = client.put_record(put("s", "", "d")).await.unwrap_err();
    refused(status, Code::InvalidArgument, R::InvalidArgument, "partition_key");
    let hash = v1::PutRecordRequest { explicit_hash_key: "-1".into(), ..put("s", "k", "d") };
    refused(client.put_record(hash).await.unwrap_err(), Code::InvalidArgument, R::InvalidArgument, "explicit_hash_key");
    let status = client.put_record(put("s", "k", &"x".repeat(1 << 20))).await.unwrap_err();
    refused(status, Code::InvalidArgument, R::InvalidArgument, "data");

    let records = vec![entry("k", "a"), entry("", "b")];
    let request = v1::PutRecordsRequest { stream_name: "s".into(), records, keep_order: false };
    let status = client.put_records(request).await.unwrap_err();
    refused(status, Code::InvalidArgument, R::InvalidArgument, "records[1].partition_key");
    let request = v1::PutRecordsRequest { stream_name: "s".into(), ..v1::PutRecordsRequest::default() };
    refused(client.put_records(request).await.unwrap_err(), Code::InvalidArgument, R::InvalidArgument, "records");

    let status = get(&mut client, "nonsense", 0).await.unwrap_err();
    refused(status, Code::InvalidArgument, R::IteratorInvalid, "shard_iterator");
    let horizon = iterator(&mut client, "s", "shardId-000000000000", Kind::TrimHorizon, "", 0).await;
    assert_eq!(get(&mut client, &horizon, 0).await.unwrap().records, [], "nothing malformed was appended");
    refused(get(&mut client, &horizon, 10_001).await.unwrap_err(), Code::InvalidArgument, R::InvalidArgument, "limit");

    let wrong_shard = v1::GetShardIteratorRequest {
        stream_name: "s".into(),
        shard_id: "shardId-000000000007".into(),
        shard_iterator_type: Kind::Latest as i32,
        ..v1::GetShardIteratorRequest::default()
    };
    let status = client.get_shard_iterator(wrong_shard).await.unwrap_err();
    refused(status, Code::NotFound, R::ShardNotFound, "");

    let again =
        v1::CreateStreamRequest { stream_name: "s".into(), shard_count: 1, ..v1::CreateStreamRequest::default() };
    refused(client.create_stream(again).await.unwrap_err(), Code::AlreadyExists, R::StreamExists, "");
    let none = v1::CreateStreamRequest { stream_name: "t".into(), ..v1::CreateStreamRequest::default() };
    refused(client.create_stream(none).await.unwrap_err(), Code::InvalidArgument, R::InvalidArgument, "shard_count");

    // Over the largest request: refused by its length, not read.
    let records = (0..13).map(|_| entry("k", &"x".repeat(1 << 20))).collect();
    let request = v1::PutRecordsRequest { stream_name: "s".into(), records, keep_order: false };
    let status = client.put_records(request).await.unwrap_err();
    refused(status, Code::InvalidArgument, R::InvalidArgument, "");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sixth_read_of_a_second_is_throttled() {
    let mut cluster = TestCluster::start().await;
    let mut client = client(&cluster, 0).await;
    create(&mut client, "s", 1).await;
    let horizon = iterator(&mut client, "s", "shardId-000000000000", Kind::TrimHorizon, "", 0).await;
    let mut refused = None;
    for _ in 0..12 {
        if let Err(status) = get(&mut client, &horizon, 0).await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("twelve reads at once are too many");
    let detail = detail(&status);
    assert_eq!((status.code(), detail.reason()), (Code::ResourceExhausted, ErrorReason::Throttled));
    assert_eq!(detail.limit(), v1::ShardLimit::CallsOut);
    assert!((1..=1_000).contains(&detail.retry_after_ms), "{detail:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_pushes_what_is_there_and_what_comes_and_resumes_exactly() {
    let mut cluster = TestCluster::start_with(|config| config.throttle = false).await;
    let mut writer = client(&cluster, 0).await;
    create(&mut writer, "s", 1).await;
    for n in 0..50 {
        writer.put_record(put("s", "k", &n.to_string())).await.unwrap();
    }
    let subscribe = |kind: Kind, number: String| v1::SubscribeToShardRequest {
        stream_name: "s".into(),
        shard_id: "shardId-000000000000".into(),
        starting_position: Some(v1::StartingPosition { r#type: kind as i32, sequence_number: number, timestamp_ms: 0 }),
        consumer: String::new(),
    };
    // Through each node: one leads, the others pass on.
    for node in 0..3 {
        let mut reader = client(&cluster, node).await;
        let mut events =
            reader.subscribe_to_shard(subscribe(Kind::TrimHorizon, String::new())).await.unwrap().into_inner();
        let (mut seen, mut last) = (Vec::new(), String::new());
        while seen.len() < 50 {
            let event = events.message().await.unwrap().unwrap();
            seen.extend(texts(&event.records));
            last = event.continuation_sequence_number;
        }
        let before = 50 + node;
        assert_eq!(seen[..50], (0..50).map(|n| n.to_string()).collect::<Vec<_>>()[..]);
        drop(events);
        let mut events =
            reader.subscribe_to_shard(subscribe(Kind::AfterSequenceNumber, last)).await.unwrap().into_inner();
        writer.put_record(put("s", "k", &before.to_string())).await.unwrap();
        let mut resumed = Vec::new();
        while resumed.last() != Some(&before.to_string()) {
            resumed.extend(texts(&events.message().await.unwrap().unwrap().records));
        }
        let expected: Vec<String> = (seen.len()..=before).map(|n| n.to_string()).collect();
        assert_eq!(resumed, expected, "no gap and no repeat");
    }
    // Nothing new: a sign of life, which says where to go on.
    let mut reader = client(&cluster, 1).await;
    let mut events = reader.subscribe_to_shard(subscribe(Kind::Latest, String::new())).await.unwrap().into_inner();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(event.records, []);
    assert!(!event.continuation_sequence_number.is_empty());
    drop(events);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_a_node_goes() {
    let mut cluster = TestCluster::start_with(|config| config.throttle = false).await;
    let mut first = client(&cluster, 0).await;
    create(&mut first, "s", 3).await;
    let mut acknowledged = BTreeSet::new();
    let start = Instant::now();
    for n in 0..40 {
        if n == 20 {
            cluster.stop(2).await;
        }
        let data = format!("data-{n}");
        loop {
            assert!(start.elapsed() < BOUND, "writing goes on without the third node");
            match first.put_record(put("s", &format!("k{n}"), &data)).await {
                Ok(answer) => {
                    acknowledged.insert((answer.into_inner().sequence_number, data.clone()));
                    break;
                }
                Err(status) => {
                    assert!(detail(&status).retryable, "{status:?}");
                    braid_env::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    let mut second = client(&cluster, 1).await;
    let mut read = BTreeSet::new();
    for shard in shards(&mut second, "s").await {
        let from = iterator(&mut second, "s", &shard.shard_id, Kind::TrimHorizon, "", 0).await;
        let records = get(&mut second, &from, 0).await.unwrap().records;
        read.extend(
            records.iter().map(|it| (it.sequence_number.clone(), String::from_utf8(it.data.to_vec()).unwrap())),
        );
    }
    assert!(read.is_superset(&acknowledged), "lost: {:?}", acknowledged.difference(&read));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_listed_described_and_deleted_through_any_node() {
    let mut cluster = TestCluster::start().await;
    let mut clients = [client(&cluster, 0).await, client(&cluster, 1).await, client(&cluster, 2).await];
    for (n, name) in ["c", "a", "b"].iter().enumerate() {
        create(&mut clients[n], name, 2).await;
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::ListStreamsRequest { limit: 2, next_token: token, ..v1::ListStreamsRequest::default() };
        let page = clients[0].list_streams(request).await.unwrap().into_inner();
        names.extend(page.streams.into_iter().map(|it| it.stream_name));
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(names.is_sorted() && names.len() <= 3, "{names:?}");

    let request = v1::ListShardsRequest { stream_name: "a".into(), max_results: 1, ..v1::ListShardsRequest::default() };
    let page = clients[1].list_shards(request).await.unwrap().into_inner();
    assert_eq!(page.shards.len(), 1);
    let request = v1::ListShardsRequest {
        stream_name: "a".into(),
        next_token: page.next_token,
        ..v1::ListShardsRequest::default()
    };
    let rest = clients[1].list_shards(request).await.unwrap().into_inner();
    assert_eq!((rest.shards.len(), rest.next_token.as_str()), (1, ""));
    assert!(!rest.shards[0].leader_address.is_empty());

    let status = clients[2].cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.nodes.len(), status.groups.len(), status.answered_by), (3, 4, 3));
    assert!(status.nodes.iter().all(|it| it.live), "{status:?}");
    assert_eq!((status.stream_count, status.shard_count), (3, 6));

    clients[2].delete_stream(v1::DeleteStreamRequest { stream_name: "a".into() }).await.unwrap();
    let start = Instant::now();
    loop {
        let described = clients[0].describe_stream(v1::DescribeStreamRequest { stream_name: "a".into() }).await;
        match described {
            Err(status) if status.code() == Code::NotFound => break,
            Err(status) => panic!("{status:?}"),
            Ok(_) => assert!(start.elapsed() < BOUND, "the deletion did not finish"),
        }
        braid_env::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leadership_moves_where_it_is_told() {
    let mut cluster = TestCluster::start().await;
    let mut client = client(&cluster, 0).await;
    let status = client.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
    let group = status.groups.iter().find(|it| it.group == 1).unwrap();
    let to_node = 1 + group.leader_node % 3;
    let moved = client.transfer_leader(v1::TransferLeaderRequest { group: 1, to_node }).await.unwrap().into_inner();
    assert_eq!(moved.leader_node, to_node);
    assert!(moved.term > group.term);
    let status = client.transfer_leader(v1::TransferLeaderRequest { group: 99, to_node }).await.unwrap_err();
    assert_eq!(detail(&status).reason(), ErrorReason::GroupNotFound);
    let status = client.transfer_leader(v1::TransferLeaderRequest { group: 1, to_node: 99 }).await.unwrap_err();
    assert_eq!(detail(&status).reason(), ErrorReason::NodeNotFound);
    cluster.stop_all().await;
}

/// Found by the simulator: a leader that could not read what it stores led on, and a consumer waited for ever for
/// records that two other replicas had whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_at_the_leader_is_given_by_another_replica() {
    let mut cluster = TestCluster::start_with(|config| {
        config.throttle = false;
        config.segment_bytes = 256 << 10;
        config.cache_bytes = 64 << 10;
    })
    .await;
    let mut client = client(&cluster, 0).await;
    create(&mut client, "s", 1).await;
    let group = shards(&mut client, "s").await[0].group;
    let data = "x".repeat(10_000);
    for n in 0..100 {
        client.put_record(put("s", "k", &format!("{n}-{data}"))).await.unwrap();
    }
    let leads =
        |status: v1::ClusterStatusResponse| status.groups.iter().find(|it| it.group == group).unwrap().leader_node;
    let led_by = leads(client.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner());
    let damaged = usize::try_from(led_by).unwrap() - 1;

    let segment = cluster.data_dir(damaged).join(format!("groups/{group}/segment-000000000001"));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100_000).unwrap();
    file.write_all_at(&[byte[0] ^ 4], 100_000).unwrap();

    // Through each node, the damaged one among them.
    for node in 0..3 {
        let mut client = self::client(&cluster, node).await;
        let mut at = iterator(&mut client, "s", "shardId-000000000000", Kind::TrimHorizon, "", 0).await;
        let mut read = Vec::new();
        while read.len() < 100 {
            let answer = get(&mut client, &at, 40).await.unwrap();
            read.extend(texts(&answer.records));
            at = answer.next_shard_iterator;
        }
        assert!(read.iter().enumerate().all(|(n, it)| *it == format!("{n}-{data}")));
    }

    // The operator is told, and leaderships stay away from it.
    let mut of_damaged = self::client(&cluster, damaged).await;
    let status = of_damaged.node_status(v1::NodeStatusRequest {}).await.unwrap().into_inner();
    let told = status.groups.iter().find(|it| it.group == group).unwrap();
    assert!(told.damaged_reason.contains("segment-000000000001"), "{told:?}");
    assert!(status.warnings.iter().any(|it| it.contains("is damaged here")), "{:?}", status.warnings);
    assert_ne!(leads(client.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner()), led_by);
    let back = v1::TransferLeaderRequest { group, to_node: led_by };
    let status = client.transfer_leader(back).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("damaged"), "{status:?}");
    cluster.stop_all().await;
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_split_and_merged_while_they_are_written_and_nobody_sees_an_error() {
    let mut cluster = TestCluster::start().await;
    let mut admin = client(&cluster, 0).await;
    create(&mut admin, "busy", 2).await;

    // Two writers, each through a node of its own; every record has to be taken.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut writers = Vec::new();
    let mut counts = Vec::new();
    for (node, name) in [(1, "left"), (2, "right")] {
        let (mut client, stopped) = (client(&cluster, node).await, stopped.clone());
        let (written, seen) = tokio::sync::watch::channel(0u32);
        counts.push(seen);
        writers.push(tokio::spawn(async move {
            let mut count = 0u32;
            while !*stopped.borrow() {
                let records = (count..count + 4).map(|n| entry(&format!("{name}-{}", n % 4), &n.to_string())).collect();
                let request = v1::PutRecordsRequest { stream_name: "busy".into(), records, keep_order: true };
                let results = client.put_records(request).await.unwrap().into_inner().records;
                for result in &results {
                    assert_eq!(result.outcome(), Outcome::Appended, "{result:?}");
                }
                count += 4;
                written.send_replace(count);
                // Well below a shard's rate, whatever the keys.
                braid_env::time::sleep(Duration::from_millis(20)).await;
            }
            (name, count)
        }));
    }
    let first = "shardId-000000000000".to_string();
    let split = v1::SplitShardRequest {
        stream_name: "busy".into(),
        shard_to_split: first.clone(),
        new_starting_hash_key: String::new(),
    };
    client(&cluster, 1).await.split_shard(split.clone()).await.unwrap();
    settle_as(&mut admin, "busy", |it| it.open_shard_count == 3).await;
    let again = detail(&admin.split_shard(split).await.unwrap_err());
    assert_eq!(again.reason(), ErrorReason::ShardClosed, "{again:?}");
    let merge = |shard: &str, adjacent: &str| v1::MergeShardsRequest {
        stream_name: "busy".into(),
        shard_to_merge: shard.into(),
        adjacent_shard_to_merge: adjacent.into(),
    };
    let far = detail(&admin.merge_shards(merge("shardId-000000000001", "shardId-000000000002")).await.unwrap_err());
    assert_eq!((far.reason(), far.field.as_str()), (ErrorReason::InvalidArgument, "adjacent_shard_to_merge"));
    client(&cluster, 2).await.merge_shards(merge("shardId-000000000003", "shardId-000000000001")).await.unwrap();
    settle_as(&mut admin, "busy", |it| it.open_shard_count == 2).await;
    // Some more, for the child of both.
    for count in &mut counts {
        let enough = *count.borrow() + 20;
        let more = count.wait_for(|count| *count >= enough);
        tokio::time::timeout(BOUND, more).await.expect("the writers go on").unwrap();
    }
    stop.send(true).unwrap();
    let mut written = BTreeMap::new();
    for writer in writers {
        let (name, count) = writer.await.unwrap();
        written.insert(name, count);
    }

    // Parents first: every record is there once, in order for each key.
    let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for shard in shards(&mut admin, "busy").await {
        let (records, children) = whole(&mut admin, "busy", &shard.shard_id).await;
        for record in records {
            let n = String::from_utf8(record.data.to_vec()).unwrap().parse().unwrap();
            seen.entry(record.partition_key).or_default().push(n);
        }
        ends.insert(shard.shard_id, children);
    }
    let names = |indexes: &[u32]| Some(indexes.iter().map(|n| format!("shardId-{n:012}")).collect::<Vec<_>>());
    let expected = [names(&[2, 3]), names(&[4]), None, names(&[4]), None];
    assert_eq!(ends.into_values().collect::<Vec<_>>(), expected);
    for (name, count) in written {
        assert!(count > 0, "{name} wrote nothing");
        for key in 0..4 {
            let expected: Vec<u32> = (0..count).filter(|n| n % 4 == key).collect();
            assert_eq!(seen[&format!("{name}-{key}")], expected);
        }
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_and_limits_change_while_a_stream_is_used() {
    let mut cluster = TestCluster::start().await;
    let mut client = client(&cluster, 1).await;
    create(&mut client, "kept", 3).await;
    let update = |retention_ms, limits| v1::UpdateStreamRequest {
        stream_name: "kept".into(),
        retention_ms,
        limits,
        ..Default::default()
    };
    let few = v1::StreamLimits { write_records_per_s: 3, ..Default::default() };
    client.update_stream(update(48 * 3_600_000, Some(few))).await.unwrap();
    let found = settle_as(&mut client, "kept", |it| it.retention_ms == 48 * 3_600_000).await;
    let limits = found.limits.unwrap();
    assert_eq!(limits.write_records_per_s, 3);
    assert_eq!(limits.write_bytes_per_s, 1 << 20, "what is not named is the default");
    let records = (0..8).map(|n| entry("one key", &n.to_string())).collect();
    let request = v1::PutRecordsRequest { stream_name: "kept".into(), records, keep_order: false };
    let results = client.put_records(request).await.unwrap().into_inner().records;
    assert!(results.iter().any(|it| it.error_code() == ErrorReason::Throttled), "{results:?}");

    let refused = |status: Status| (detail(&status).reason(), detail(&status).field);
    let nothing = client.update_stream(update(0, None)).await.unwrap_err();
    assert_eq!(refused(nothing), (ErrorReason::InvalidArgument, "retention_ms".into()));
    let short = client.update_stream(update(1_000, None)).await.unwrap_err();
    assert_eq!(refused(short), (ErrorReason::InvalidArgument, "retention_ms".into()));
    let huge = v1::StreamLimits { max_record_bytes: 1 << 30, ..Default::default() };
    let large = client.update_stream(update(0, Some(huge))).await.unwrap_err();
    assert_eq!(refused(large), (ErrorReason::InvalidArgument, "max_record_bytes".into()));
    client.update_stream(update(0, Some(v1::StreamLimits::default()))).await.unwrap();
    let usual = |it: &v1::StreamDescription| it.limits.unwrap().write_records_per_s == 1_000;
    assert_eq!(settle_as(&mut client, "kept", usual).await.retention_ms, 48 * 3_600_000);
    cluster.stop_all().await;
}

/// What a stream carries is changed by the catalog's leader, whichever node is asked, and seen through all at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_and_consumers_are_the_same_through_every_node() {
    use v1::change_attributes_request::Change;
    let mut cluster = TestCluster::start().await;
    let mut clients = Vec::new();
    for node in 0..3 {
        clients.push(client(&cluster, node).await);
    }
    create(&mut clients[0], "s", 1).await;
    let change = |change| v1::ChangeAttributesRequest {
        stream_name: "s".into(),
        consumer_name: String::new(),
        change: Some(change),
    };
    let tag = |key: &str| v1::Tag { key: key.into(), value: "v".into() };
    let register = |name: &str| Change::Register(v1::RegisterConsumer { name: name.into(), tags: vec![tag("of it")] });
    for (node, key) in ["a", "b", "c"].into_iter().enumerate() {
        let set = Change::Tags(v1::TagsChange { set: vec![tag(key)], remove: vec![] });
        clients[node].change_attributes(change(set)).await.unwrap();
        let name = format!("consumer-{node}");
        let changed = clients[node].change_attributes(change(register(&name))).await.unwrap().into_inner();
        let (before, after) = (changed.before.unwrap(), changed.attributes.unwrap());
        assert_eq!((before.consumers.len(), after.consumers.len()), (node, node + 1));
        for client in &mut clients {
            let request = v1::DescribeAttributesRequest { stream_name: "s".into() };
            let found = client.describe_attributes(request).await.unwrap().into_inner().attributes.unwrap();
            assert_eq!((found.tags.len(), found.consumers.len()), (node + 1, node + 1));
            assert_eq!(
                (found.consumers[node].name.as_str(), &found.consumers[node].tags[..]),
                (&*name, &[tag("of it")][..])
            );
        }
    }
    let reason = |status: Status| (status.code(), detail(&status).reason(), detail(&status).outcome());
    let refused = Outcome::Refused;
    let again = clients[1].change_attributes(change(register("consumer-0"))).await.unwrap_err();
    assert_eq!(reason(again), (Code::AlreadyExists, ErrorReason::ConsumerExists, refused));
    let unknown = clients[2].change_attributes(change(Change::Deregister("nobody".into()))).await.unwrap_err();
    assert_eq!(reason(unknown), (Code::NotFound, ErrorReason::ConsumerNotFound, refused));
    let none =
        clients[2].change_attributes(change(Change::Policy(v1::PolicyChange { policy: None }))).await.unwrap_err();
    assert_eq!(reason(none), (Code::NotFound, ErrorReason::PolicyNotFound, refused));
    let empty = v1::ChangeAttributesRequest { stream_name: "s".into(), ..v1::ChangeAttributesRequest::default() };
    let nothing = clients[0].change_attributes(empty).await.unwrap_err();
    assert_eq!(detail(&nothing).field, "change");

    let subscribe = v1::SubscribeToShardRequest {
        stream_name: "s".into(),
        shard_id: "shardId-000000000000".into(),
        starting_position: Some(v1::StartingPosition { r#type: Kind::Latest as i32, ..Default::default() }),
        consumer: "consumer-0".into(),
    };
    // A second one within five seconds is refused; asked again where this machine was too slow to ask so soon.
    let start = Instant::now();
    let (first, second) = loop {
        let first = clients[0].subscribe_to_shard(subscribe.clone()).await;
        match (first, clients[1].subscribe_to_shard(subscribe.clone()).await) {
            (Ok(first), Err(second)) => break (first.into_inner(), second),
            _ => assert!(start.elapsed() < BOUND, "no two subscriptions within five seconds of each other"),
        }
        braid_env::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(reason(second), (Code::FailedPrecondition, ErrorReason::Subscribed, refused));
    // Another consumer has its own; and who is not registered, as many as it likes.
    for consumer in ["consumer-1", "", ""] {
        let other = v1::SubscribeToShardRequest { consumer: consumer.into(), ..subscribe.clone() };
        clients[2].subscribe_to_shard(other).await.unwrap();
    }
    drop(first);
    cluster.stop_all().await;
}

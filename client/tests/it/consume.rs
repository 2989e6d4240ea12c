//! The consumer: order, completeness, resumption, children after parents, back-pressure.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_client::{Consumer, ConsumerError, ConsumerOptions, Position, ShardBatch};

use crate::fake::{Cluster, STREAM};
use crate::{client, soon};

fn options(subscribe: bool) -> ConsumerOptions {
    ConsumerOptions { subscribe, poll_interval: Duration::from_millis(5), ..ConsumerOptions::default() }
}

async fn consumer(cluster: &Cluster, options: ConsumerOptions) -> Consumer {
    client(cluster).await.consumer(STREAM, options).await.unwrap()
}

fn fill(cluster: &Cluster, range: std::ops::Range<usize>) {
    for n in range {
        cluster.append(&format!("key-{}", n % 13), &n.to_string());
    }
}

/// Reads until at least `count` records have come, and checks each shard's offsets on the way.
async fn read(consumer: &mut Consumer, count: usize) -> BTreeMap<String, Vec<String>> {
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = 0;
    while seen < count {
        let batch = soon(consumer.next()).await.expect("more to come").unwrap();
        assert_eq!(batch.missed, 0);
        for record in &batch.records {
            let offset = record.sequence_number.offset.0;
            let expected = next.entry(batch.shard.to_string()).or_insert(offset);
            assert_eq!(offset, *expected, "{}", batch.shard);
            *expected += 1;
            let data = String::from_utf8(record.data.to_vec()).unwrap();
            by_key.entry(record.partition_key.clone()).or_default().push(data);
            seen += 1;
        }
    }
    by_key
}

fn count(by_key: &BTreeMap<String, Vec<String>>) -> usize {
    by_key.values().map(Vec::len).sum()
}

#[tokio::test]
async fn everything_comes_in_order_pushed_or_polled() {
    for (subscribe, supported) in [(true, true), (true, false), (false, true)] {
        let cluster = Cluster::start(3, 5, 3).await;
        cluster.state().subscribes = supported;
        fill(&cluster, 0..1_000);
        let mut consumer = consumer(&cluster, options(subscribe)).await;
        let first = read(&mut consumer, 1_000).await;
        assert_eq!(first, cluster.shared.by_key());
        fill(&cluster, 1_000..1_300);
        let second = read(&mut consumer, 300).await;
        assert_eq!(count(&second), 300);
        assert_eq!(cluster.state().get_calls > 0, !(subscribe && supported));
    }
}

#[tokio::test]
async fn broken_subscriptions_and_moved_leaders_lose_and_repeat_nothing() {
    for subscribe in [true, false] {
        let mut cluster = Cluster::start(3, 3, 3).await;
        {
            let mut state = cluster.state();
            state.subscription_events = Some(2);
            state.page = 10;
            state.expire_iterators = 5;
        }
        fill(&cluster, 0..600);
        let mut consumer = consumer(&cluster, options(subscribe)).await;
        let mut by_key = read(&mut consumer, 200).await;
        cluster.state().leaders = (1..=3).map(|g| (g, 2)).collect();
        cluster.shared.changed();
        cluster.stop(0).await;
        cluster.state().expire_iterators = 3;
        cluster.shared.break_connections(2);
        let rest = 600 - count(&by_key);
        for (key, data) in read(&mut consumer, rest).await {
            by_key.entry(key).or_default().extend(data);
        }
        assert_eq!(by_key, cluster.shared.by_key(), "subscribe: {subscribe}");
    }
}

#[tokio::test]
async fn children_come_after_their_parents() {
    for subscribe in [true, false] {
        let cluster = Cluster::start(2, 1, 2).await;
        fill(&cluster, 0..100);
        let mut consumer = consumer(&cluster, options(subscribe)).await;
        let mut by_key = read(&mut consumer, 100).await;
        for round in 0..4 {
            cluster.split(round);
            let from = 100 + round * 100;
            fill(&cluster, from..from + 100);
        }
        for (key, data) in read(&mut consumer, 400).await {
            by_key.entry(key).or_default().extend(data);
        }
        let numbers = |data: &Vec<String>| data.iter().map(|n| n.parse().unwrap()).collect();
        for (key, data) in &by_key {
            let numbers: Vec<usize> = numbers(data);
            assert!(numbers.is_sorted_by(|a, b| a < b), "{key}: {numbers:?}");
        }
        assert_eq!(count(&by_key), 500);
    }
}

#[tokio::test]
async fn latest_means_everything_put_once_it_is_open() {
    for subscribe in [true, false] {
        let cluster = Cluster::start(2, 4, 2).await;
        fill(&cluster, 0..100);
        let latest = ConsumerOptions { start: Position::Latest, ..options(subscribe) };
        let mut consumer = consumer(&cluster, latest).await;
        fill(&cluster, 100..200);
        let read = read(&mut consumer, 100).await;
        let mut numbers: Vec<usize> = read.values().flatten().map(|n| n.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (100..200).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_application_resumes_behind_what_it_has_seen() {
    let cluster = Cluster::start(2, 3, 2).await;
    fill(&cluster, 0..300);
    cluster.state().page = 7;
    let mut seen: Vec<ShardBatch> = Vec::new();
    let mut first = consumer(&cluster, options(true)).await;
    while seen.len() < 9 {
        seen.push(soon(first.next()).await.unwrap().unwrap());
    }
    drop(first);
    let seen_count: usize = seen.iter().map(|b| b.records.len()).sum();
    let mut resumed = options(true);
    for batch in &seen {
        let last = batch.records.last().unwrap().sequence_number;
        let after = Position::AfterSequence(last);
        resumed.positions.insert(batch.shard.to_string(), after);
    }
    let mut second = consumer(&cluster, resumed).await;
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in seen.into_iter().flat_map(|b| b.records) {
        let data = String::from_utf8(record.data.to_vec()).unwrap();
        by_key.entry(record.partition_key).or_default().push(data);
    }
    for (key, data) in read(&mut second, 300 - seen_count).await {
        by_key.entry(key).or_default().extend(data);
    }
    assert_eq!(by_key, cluster.shared.by_key());
}

#[tokio::test]
async fn an_application_resumes_in_a_shard_that_the_node_it_meets_first_has_not_heard_of() {
    let cluster = Cluster::start(2, 1, 2).await;
    fill(&cluster, 0..100);
    cluster.split(0);
    fill(&cluster, 100..200);
    let mut resumed = options(false);
    for child in cluster.state().shards.iter().skip(1) {
        resumed.positions.insert(child.id.clone(), Position::TrimHorizon);
    }
    cluster.state().listed = [1, 1].into();
    let mut consumer = consumer(&cluster, resumed).await;
    let by_key = read(&mut consumer, 100).await;
    let mut numbers: Vec<usize> = by_key.values().flatten().map(|n| n.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (100..200).collect::<Vec<_>>());
    assert!(cluster.state().listed.is_empty());
}

#[tokio::test]
async fn a_consumer_that_is_not_asked_stops_fetching() {
    let cluster = Cluster::start(1, 4, 1).await;
    cluster.state().page = 1;
    fill(&cluster, 0..1_000);
    let bounded = ConsumerOptions { max_buffered_batches: 2, max_concurrent_fetches: 3, ..options(false) };
    let mut consumer = consumer(&cluster, bounded).await;
    // Two batches wait and three fetches hold theirs: no sixth call can follow the fifth.
    cluster.shared.until("the buffer is full", |s| s.get_calls >= 5).await;
    for taken in 1..=50 {
        soon(consumer.next()).await.unwrap().unwrap();
        let calls = cluster.state().get_calls;
        assert!(calls <= taken + 5, "{calls} calls for {taken} batches taken");
    }
    read(&mut consumer, 950).await;
}

#[tokio::test]
async fn what_cannot_be_mended_is_told() {
    let cluster = Cluster::start(1, 1, 1).await;
    let mut lost = options(false);
    let nowhere = "shardId-000000000009".to_owned();
    lost.positions.insert(nowhere.clone(), Position::TrimHorizon);
    let refused = client(&cluster).await.consumer(STREAM, lost).await;
    assert!(matches!(refused, Err(ConsumerError::UnknownShard { shard }) if shard == nowhere));

    fill(&cluster, 0..10);
    let mut consumer = consumer(&cluster, options(false)).await;
    read(&mut consumer, 10).await;
    cluster.state().shards.clear(); // the stream is deleted
    let end = soon(consumer.next()).await;
    assert!(matches!(end, Some(Err(ConsumerError::Shard { .. }))), "{end:?}");
    assert!(soon(consumer.next()).await.is_none());
}

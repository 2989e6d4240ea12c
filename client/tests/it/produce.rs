//! The producer: outcomes, order per key, back-pressure, failover.

use std::time::Duration;

use braid_client::{ConsumerOptions, Outcome, Producer, ProducerOptions, PutError, PutFuture, Reason, RefusedReason};
use futures_util::FutureExt;
use tonic::Code;

use crate::fake::{Cluster, Fault, STREAM};
use crate::{client, soon};

async fn producer(cluster: &Cluster, options: ProducerOptions) -> Producer {
    let client = client(cluster).await;
    client.producer(STREAM, options).await.unwrap()
}

/// Puts `count` records, the n-th with data `n` and key `key-(n mod keys)`.
async fn put_all(producer: &Producer, count: usize, keys: usize) -> Vec<PutFuture> {
    let mut futures = Vec::new();
    for n in 0..count {
        let key = format!("key-{}", n % keys);
        futures.push(producer.put(key, None, n.to_string()).await.unwrap());
    }
    futures
}

async fn outcomes(futures: Vec<PutFuture>) -> Vec<Outcome> {
    soon(futures_util::future::join_all(futures)).await
}

fn all_acked(outcomes: &[Outcome]) {
    for (n, outcome) in outcomes.iter().enumerate() {
        assert!(matches!(outcome, Outcome::Acked { .. }), "{n}: {outcome:?}");
    }
}

/// Each record is in the stream once, and each key's records are in the order of their puts.
fn in_order_once(cluster: &Cluster, count: usize, keys: usize) {
    let by_key = cluster.shared.by_key();
    for key in 0..keys {
        let expected: Vec<String> = (key..count).step_by(keys).map(|n| n.to_string()).collect();
        assert_eq!(by_key[&format!("key-{key}")], expected, "key-{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_shards_groups_and_nodes() {
    let cluster = Cluster::start(3, 16, 5).await;
    let producer = producer(&cluster, ProducerOptions::default()).await;
    let futures = put_all(&producer, 20_000, 100).await;
    soon(producer.flush()).await;
    assert!(futures.len() == 20_000 && producer.buffered_bytes() == 0);
    all_acked(&outcomes(futures).await);
    in_order_once(&cluster, 20_000, 100);
}

/// Fewer records than were put, each of which is read once, in its key's order; one looks like an aggregate itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregated_records_are_taken_apart_again() {
    let cluster = Cluster::start(2, 4, 2).await;
    let options = ProducerOptions { aggregate_bytes: Some(2_000), ..ProducerOptions::default() };
    let producer = producer(&cluster, options).await;
    let mut futures = put_all(&producer, 5_000, 50).await;
    // An aggregate of one record, byte by byte: the protobuf of key "k" and data "a", and its MD5.
    let looks_so = {
        let message = b"\x0a\x01k\x1a\x05\x08\x00\x1a\x01a";
        let digest: [u8; 16] = md5::Digest::finalize(<md5::Md5 as md5::Digest>::new_with_prefix(message)).into();
        [&[0xf3, 0x89, 0x9a, 0xc2][..], message, &digest].concat()
    };
    futures.push(producer.put("key-alone", None, looks_so.clone()).await.unwrap());
    soon(producer.flush()).await;
    all_acked(&outcomes(futures).await);
    let stored: usize = cluster.state().shards.iter().map(|it| it.log.len()).sum();
    assert!(stored < 1_000, "{stored} records were stored for 5,001");

    let options = ConsumerOptions { deaggregate: true, ..ConsumerOptions::default() };
    let mut consumer = client(&cluster).await.consumer(STREAM, options).await.unwrap();
    let mut read: std::collections::BTreeMap<String, Vec<Vec<u8>>> = Default::default();
    while read.values().map(Vec::len).sum::<usize>() < 5_001 {
        for record in soon(consumer.next()).await.unwrap().unwrap().records {
            read.entry(record.partition_key).or_default().push(record.data.to_vec());
        }
    }
    assert_eq!(read.remove("key-alone"), Some(vec![looks_so]));
    for key in 0..50 {
        let expected: Vec<Vec<u8>> = (key..5_000).step_by(50).map(|n| n.to_string().into_bytes()).collect();
        assert_eq!(read[&format!("key-{key}")], expected, "key-{key}");
    }
}

#[tokio::test]
async fn refusals_are_retried_in_order() {
    let cluster = Cluster::start(2, 4, 2).await;
    {
        let faults = &mut cluster.state().faults;
        for n in 0..20 {
            faults.push_back(match n % 4 {
                0 => Fault::Throttle("key-0".to_owned()),
                1 => Fault::RefuseAll(Code::Unavailable, Reason::Overloaded),
                2 => Fault::Throttle("key-1".to_owned()),
                _ => Fault::RefuseAll(Code::Unavailable, Reason::NoLeader),
            });
        }
    }
    let producer = producer(&cluster, ProducerOptions::default()).await;
    let futures = put_all(&producer, 3_000, 7).await;
    all_acked(&outcomes(futures).await);
    in_order_once(&cluster, 3_000, 7);
}

#[tokio::test]
async fn what_may_have_been_appended_is_unknown_and_not_sent_again() {
    for (fault, appended) in
        [(Fault::DropAfterCommit, true), (Fault::HangAfterCommit, true), (Fault::DropBeforeCommit, false)]
    {
        let cluster = Cluster::start(1, 1, 1).await;
        cluster.state().faults.push_back(fault.clone());
        let producer = producer(&cluster, ProducerOptions::default()).await;
        let lost = producer.put("k", None, "lost").await.unwrap();
        let outcome = soon(lost).await;
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{fault:?}: {outcome:?}");
        let next = producer.put("k", None, "next").await.unwrap();
        let outcome = soon(next).await;
        assert!(matches!(outcome, Outcome::Acked { .. }), "{fault:?}: {outcome:?}");
        let expected: &[&str] = match appended {
            true => &["lost", "next"],
            false => &["next"],
        };
        assert_eq!(cluster.shared.by_key()["k"], expected, "{fault:?}");
        assert_eq!(cluster.state().put_calls.iter().sum::<usize>(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn at_least_once_sends_again_and_may_duplicate() {
    let cluster = Cluster::start(1, 1, 1).await;
    cluster.state().faults.push_back(Fault::DropAfterCommit);
    let options = ProducerOptions { retry_unknown: true, ..ProducerOptions::default() };
    let producer = producer(&cluster, options).await;
    let put = producer.put("k", None, "twice").await.unwrap();
    assert!(matches!(soon(put).await, Outcome::Acked { .. }));
    assert_eq!(cluster.shared.by_key()["k"], ["twice", "twice"]);
}

#[tokio::test]
async fn a_full_buffer_makes_put_wait() {
    let cluster = Cluster::start(1, 2, 1).await;
    cluster.shared.gate.send_replace(false);
    let options = ProducerOptions { max_buffered_bytes: 20_000, ..ProducerOptions::default() };
    let producer = producer(&cluster, options).await;
    let mut taken = Vec::new();
    loop {
        let put = producer.put(format!("key-{}", taken.len()), None, vec![0u8; 1_000]);
        match put.now_or_never() {
            Some(future) => taken.push(future.unwrap()),
            None => break,
        }
    }
    assert!((10..20).contains(&taken.len()), "{} were taken", taken.len());
    assert!(producer.buffered_bytes() <= 20_000);
    // The gate holds every batch, and still no shard has two under way.
    cluster.shared.until("a batch arrives", |s| !s.busy.is_empty()).await;
    let busy = cluster.state().busy.clone();
    assert!(busy.len() <= 2, "{busy:?}");

    let waiting = tokio::spawn({
        let producer = producer.clone();
        async move { producer.put("late", None, vec![0u8; 30_000]).await.unwrap().await }
    });
    cluster.shared.gate.send_replace(true);
    all_acked(&outcomes(taken).await);
    // More than the whole budget: let through alone.
    assert!(matches!(soon(waiting).await.unwrap(), Outcome::Acked { .. }));
}

#[tokio::test]
async fn leadership_moves_and_nodes_die() {
    let mut cluster = Cluster::start(3, 6, 3).await;
    let producer = producer(&cluster, ProducerOptions::default()).await;
    let mut futures = put_all(&producer, 500, 9).await;
    soon(producer.flush()).await;

    // Moves with a hint: the old leader knows the new one.
    cluster.state().leaders = (1..=3).map(|g| (g, 0)).collect();
    futures.extend(put_more(&producer, 500..1_000, 9).await);
    soon(producer.flush()).await;

    // No leader for a while, then another, then the first node is gone altogether.
    cluster.state().leaders.clear();
    futures.extend(put_more(&producer, 1_000..1_500, 9).await);
    cluster.shared.until("a put met no leader", |s| s.put_calls.len() > 20).await;
    cluster.stop(0).await;
    cluster.state().leaders = (1..=3).map(|g| (g, 1)).collect();
    futures.extend(put_more(&producer, 1_500..2_000, 9).await);
    let outcomes = outcomes(futures).await;

    // What was sent on a connection to node 0 as it broke may be unknown, whichever side of the
    // stop it was put. Nothing is in the stream twice, nothing acknowledged is missing, order holds.
    let by_key = cluster.shared.by_key();
    for key in 0..9 {
        let log: Vec<usize> = by_key[&format!("key-{key}")].iter().map(|n| n.parse().unwrap()).collect();
        assert!(log.is_sorted_by(|a, b| a < b), "key-{key}: {log:?}");
        for n in (key..2_000).step_by(9) {
            match &outcomes[n] {
                Outcome::Acked { .. } => assert!(log.contains(&n), "{n} is missing"),
                Outcome::Unknown { .. } => {}
                Outcome::Refused { .. } => panic!("{n}: {:?}", outcomes[n]),
            }
        }
    }
    all_acked(&outcomes[..1_000]);
    let settled = put_more(&producer, 2_000..2_100, 9).await;
    all_acked(&soon(futures_util::future::join_all(settled)).await);
}

async fn put_more(producer: &Producer, range: std::ops::Range<usize>, keys: usize) -> Vec<PutFuture> {
    let mut futures = Vec::new();
    for n in range {
        let key = format!("key-{}", n % keys);
        futures.push(producer.put(key, None, n.to_string()).await.unwrap());
    }
    futures
}

#[tokio::test]
async fn a_leader_that_cannot_be_connected_to_loses_nothing() {
    let mut cluster = Cluster::start(2, 2, 1).await;
    let client = client(&cluster).await;
    let producer = client.producer(STREAM, ProducerOptions::default()).await.unwrap();
    // Never connected to, so whatever is sent there certainly isn't done.
    let leader = cluster.state().leaders[&1];
    cluster.stop(leader).await;
    let futures = put_all(&producer, 200, 5).await;
    cluster.state().leaders.insert(1, 1 - leader);
    let outcomes = outcomes(futures).await;
    // The client may have been connected to that very node (it has two to choose from); then
    // the first batch can be unknown. Nothing is refused and nothing is there twice.
    let by_key = cluster.shared.by_key();
    for (n, outcome) in outcomes.iter().enumerate() {
        assert!(!matches!(outcome, Outcome::Refused { .. }), "{n}: {outcome:?}");
    }
    for (key, log) in &by_key {
        let log: Vec<usize> = log.iter().map(|n| n.parse().unwrap()).collect();
        assert!(log.is_sorted_by(|a, b| a < b), "{key}: {log:?}");
    }
}

#[tokio::test]
async fn shards_split_while_records_flow() {
    let cluster = Cluster::start(2, 2, 2).await;
    let producer = producer(&cluster, ProducerOptions::default()).await;
    let mut futures = Vec::new();
    for round in 0..6 {
        futures.extend(put_more(&producer, round * 500..(round + 1) * 500, 11).await);
        if round < 5 {
            cluster.split(round);
        }
    }
    all_acked(&outcomes(futures).await);
    in_order_once(&cluster, 3_000, 11);
    assert_eq!(cluster.state().shards.len(), 12);
}

#[tokio::test]
async fn one_malformed_record_spoils_only_itself() {
    let cluster = Cluster::start(1, 1, 1).await;
    let producer = producer(&cluster, ProducerOptions::default()).await;
    let mut futures = put_more(&producer, 0..20, 3).await;
    let bad = producer.put("malformed", None, "x").await.unwrap();
    futures.extend(put_more(&producer, 20..40, 3).await);
    let expected = RefusedReason::Node(Reason::InvalidArgument);
    assert!(matches!(soon(bad).await, Outcome::Refused { reason, .. } if reason == expected));
    all_acked(&outcomes(futures).await);
    in_order_once(&cluster, 40, 3);
}

#[tokio::test]
async fn a_refusal_that_lasts_ends_with_the_delivery_timeout() {
    let cluster = Cluster::start(1, 1, 1).await;
    cluster.state().leaders.clear();
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(300), ..ProducerOptions::default() };
    let producer = producer(&cluster, options).await;
    let put = producer.put("k", None, "x").await.unwrap();
    let outcome = soon(put).await;
    assert!(matches!(outcome, Outcome::Refused { reason: RefusedReason::TimedOut, .. }), "{outcome:?}");
    assert!(cluster.shared.by_key().is_empty());
}

#[tokio::test]
async fn limits_are_checked_and_close_is_final() {
    let cluster = Cluster::start(1, 1, 1).await;
    let producer = producer(&cluster, ProducerOptions::default()).await;
    let empty = producer.put("", None, "x").await.unwrap_err();
    assert_eq!(empty, PutError::BadPartitionKey { chars: 0 });
    let large = producer.put("k", None, vec![0; 1 << 20]).await.unwrap_err();
    assert!(matches!(large, PutError::TooLarge { .. }));
    let last = producer.put("k", None, "last").await.unwrap();
    soon(producer.close()).await;
    assert!(matches!(last.now_or_never(), Some(Outcome::Acked { .. })));
    assert_eq!(producer.put("k", None, "x").await.unwrap_err(), PutError::Closed);

    let other = client(&cluster).await.producer(STREAM, ProducerOptions::default()).await.unwrap();
    let dropped = other.put("k", None, "dropped").await.unwrap();
    drop(other);
    assert!(matches!(soon(dropped).await, Outcome::Acked { .. }));
}

//! `kill -9` of real nodes in the middle of a load: nothing acknowledged is lost, nothing is out of
//! order within a key, nothing is invented, and writes go on.
//!
//! `JEPSEN_KILLS=20 cargo nextest run --release -p braid-cli --test kills --no-capture` measures the
//! gaps in writes over twenty kills.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::time::{Duration, Instant};

use braid_client::StreamSettings;
use braid_jepsen::cluster::{Cluster, NODES};
use braid_jepsen::load::{Load, longest_silence, read_all, violations};
use braid_jepsen::soak;

const BINARY: &str = env!("CARGO_BIN_EXE_braid");
const STREAM: &str = "sensors";
const WRITERS: usize = 48;

/// How long the load runs before and after each blow.
const BETWEEN: Duration = Duration::from_secs(3);

async fn cluster_with_stream() -> Cluster {
    let cluster = Cluster::start(Path::new(BINARY), "").await;
    let client = cluster.client().await;
    client.create_and_wait_active(STREAM, 12, StreamSettings::default()).await.expect("a stream");
    cluster
}

fn assert_sound(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} violations, the first: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_any_node_in_the_middle_of_a_load_loses_nothing() {
    let kills: usize = std::env::var("JEPSEN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut cluster = cluster_with_stream().await;
    let client = cluster.client().await;
    let load = Load::start(&client, STREAM, "w", WRITERS, Duration::ZERO).await;
    let mut blows = Vec::new();
    for i in 0..kills {
        tokio::time::sleep(BETWEEN).await;
        // Each node in turn: each leads a third of the groups.
        let node = i % NODES;
        let at = Instant::now();
        cluster.kill(node);
        tokio::time::sleep(BETWEEN).await;
        blows.push((node, at, Instant::now()));
        cluster.start_node(node);
        cluster.serving(&[0, 1, 2]).await;
    }
    let writes = load.stop().await;
    let reads = read_all(&client, STREAM).await;
    let mut gaps: Vec<Duration> = blows.iter().map(|(_, at, until)| longest_silence(&writes, *at, *until)).collect();
    println!("{} writes, {} records read, gaps in writes by kill: {gaps:?}", writes.len(), reads.len());
    assert_sound(violations(&writes, &reads));
    gaps.sort_unstable();
    println!("gap in writes over {kills} kills: median {:?}, longest {:?}", gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_all_nodes_at_once_loses_nothing() {
    let mut cluster = cluster_with_stream().await;
    let client = cluster.client().await;
    let load = Load::start(&client, STREAM, "before", WRITERS, Duration::ZERO).await;
    tokio::time::sleep(BETWEEN).await;
    for node in 0..NODES {
        cluster.kill(node);
    }
    let mut writes = load.stop().await;
    for node in 0..NODES {
        cluster.start_node(node);
    }
    cluster.serving(&[0, 1, 2]).await;
    let load = Load::start(&client, STREAM, "after", WRITERS, Duration::ZERO).await;
    tokio::time::sleep(BETWEEN).await;
    writes.extend(load.stop().await);
    let reads = read_all(&client, STREAM).await;
    let acked = writes.iter().filter(|w| matches!(w.seen, braid_jepsen::history::Seen::Acked { .. })).count();
    println!("{} writes, {acked} acknowledged, {} records read", writes.len(), reads.len());
    assert!(acked > 100, "the load hardly ran: {acked} acknowledged");
    assert_sound(violations(&writes, &reads));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splitting_and_merging_while_nodes_are_killed_loses_nothing() {
    let plan = soak::Plan { duration: Duration::from_secs(24), kill_every: Duration::from_secs(12) };
    let report = soak::run(Path::new(BINARY), plan).await;
    let changed = report.changes.splits.len() + report.changes.merges.len();
    println!("{changed} splits and merges, {} kills, {} acknowledged", report.kills.len(), report.acked());
    assert!(changed > 0 && report.kills.len() == 2 && report.acked() > 100, "little happened: {:?}", report.changes);
    assert_sound(report.violations);
}

//! A stream of very many shards beside one of ten: how long it takes to create, list and restart, what each shard
//! costs in memory, and whether writes to all of them are as fast.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use braid_client::{Client, ClientOptions, StreamSettings};
use braid_proto::v1;

use crate::cluster::{Cluster, NODES};

const FEW: &str = "few";
const MANY: &str = "many";

/// What was seen.
#[derive(Debug)]
pub struct Report {
    /// From the call to ACTIVE.
    pub creation: Duration,
    /// DescribeStream.
    pub describe: Duration,
    /// All pages of ListShards.
    pub list: Duration,
    /// How many shards they had.
    pub listed: usize,
    /// Resident bytes of the node that has most.
    pub memory: Bytes,
    /// Acknowledged records a second with ten shards and with many, by turns.
    pub rates: Vec<(f64, f64)>,
    /// Shards that were written to.
    pub written: usize,
    /// From `kill -9` of one node to its serving every group again.
    pub restart_of_one: Duration,
    /// The same of all nodes at once.
    pub restart_of_all: Duration,
}

/// Memory of a node, by what happened last.
#[derive(Debug)]
pub struct Bytes {
    /// With few shards, after some small records to them.
    pub few: u64,
    /// With many, and nothing written to them.
    pub created: u64,
    /// After as many small records to the many.
    pub written: u64,
}

/// Three nodes of `binary`, a stream of ten shards and one of `shards`, `rounds` of writes to each by turns.
pub async fn run(binary: &Path, shards: u32, rounds: usize, duration: Duration) -> Report {
    // With a shard's limits, ten shards would be held at 10,000 records/s, and any number would win.
    let mut cluster = Cluster::start(binary, "throttle = \"off\"").await;
    let options = ClientOptions { call_timeout: Duration::from_secs(120), ..ClientOptions::default() };
    let client = Client::connect(cluster.endpoints(), options).await.expect("a client");
    client.create_and_wait_active(FEW, 10, StreamSettings::default()).await.expect("a stream");
    touch(binary, &cluster, FEW).await;
    let few = resident(&cluster);
    let from = Instant::now();
    client.create_and_wait_active(MANY, shards, StreamSettings::default()).await.expect("a stream");
    let creation = from.elapsed();
    let created = resident(&cluster);
    touch(binary, &cluster, MANY).await;
    let memory = Bytes { few, created, written: resident(&cluster) };
    let written = written(&client).await;
    let from = Instant::now();
    client.describe_stream(MANY).await.expect("a description");
    let describe = from.elapsed();
    let from = Instant::now();
    let listed = client.list_shards(MANY).await.expect("a list").len();
    let list = from.elapsed();
    let mut rates = Vec::new();
    for round in 0..rounds {
        // Each goes first in every other round: the disk and its cache may get slower all the while.
        let order = if round % 2 == 0 { [FEW, MANY] } else { [MANY, FEW] };
        let first = bench(binary, &cluster, order[0], duration, &[]).await;
        let second = bench(binary, &cluster, order[1], duration, &[]).await;
        rates.push(if round % 2 == 0 { (first, second) } else { (second, first) });
    }
    let from = Instant::now();
    cluster.restart(&[0], Duration::ZERO).await;
    let restart_of_one = from.elapsed();
    let from = Instant::now();
    cluster.restart(&[0, 1, 2], Duration::ZERO).await;
    let restart_of_all = from.elapsed();
    Report { creation, describe, list, listed, memory, rates, written, restart_of_one, restart_of_all }
}

/// Of the node that has most.
fn resident(cluster: &Cluster) -> u64 {
    (0..NODES).map(|node| cluster.resident_bytes(node)).max().unwrap_or_default()
}

/// How many of the stream's shards have a record.
async fn written(client: &Client) -> usize {
    let addresses = client.addresses();
    let mut node = client.node_at(&addresses[0]).expect("an address");
    let mut written = 0;
    for shard in client.list_shards(MANY).await.expect("a list") {
        let latest = v1::GetShardIteratorRequest {
            stream_name: MANY.into(),
            shard_id: shard.shard_id,
            shard_iterator_type: v1::ShardIteratorType::Latest as i32,
            ..Default::default()
        };
        let iterator = node.get_shard_iterator(latest).await.expect("a cluster at rest gives iterators").into_inner();
        // The number of the last record before the tip; a shard without records has none.
        written += usize::from(!iterator.continuation_sequence_number.is_empty());
    }
    written
}

/// Some records to each of the stream's shards, so small that what they leave in memory is what a shard costs.
async fn touch(binary: &Path, cluster: &Cluster, stream: &str) {
    let small = ["--records-per-second", "10000", "--record-bytes", "16"];
    bench(binary, cluster, stream, Duration::from_secs(15), &small).await;
}

/// Acknowledged records a second, by the program's own measurement.
async fn bench(binary: &Path, cluster: &Cluster, stream: &str, duration: Duration, more: &[&str]) -> f64 {
    let output = tokio::process::Command::new(binary)
        .args(["--endpoint", &cluster.endpoints().join(","), "-o", "json", "bench", "--stream", stream])
        .args(["--duration", &format!("{}s", duration.as_secs())])
        .args(more)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the braid binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "braid bench: {said}{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    found["records_per_second"].as_f64().expect("a rate")
}

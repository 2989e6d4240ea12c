//! Aggregated records, written and read by Braid's own client and by everybody else who knows the format of the Kinesis Producer
//! Library: AWS's modules for Python and JavaScript, aiokpl, and KCL. What those do and check is in
//! `node/tests/kinesis/aggregates.py`; here, that Braid's client reads the same as they do.
#![allow(clippy::disallowed_methods)]

mod clients;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use braid_client::{ConsumerOptions, Outcome, ProducerOptions};
use braid_jepsen::cluster::{BOUND, Cluster};
use clients::{has, python, root};
use libtest_mimic::{Arguments, Failed, Trial};

const BINARY: &str = env!("CARGO_BIN_EXE_braid");
const STREAM: &str = "aggregates";

/// As the other writers do it: `user_records` of aggregates.py.
const RECORDS: usize = 100;
const KEYS: usize = 7;

/// Runs aggregates.py, and gives what it printed.
async fn run(python: &str, what: &str, endpoint: &str) -> Result<String, Failed> {
    let mut command = Command::new(python);
    command.arg(root().join("node/tests/kinesis/aggregates.py")).arg(what).arg(format!("http://{endpoint}"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    match ended.status.success() {
        true => Ok(said),
        false => Err(format!("{said}{}", String::from_utf8_lossy(&ended.stderr)).into()),
    }
}

async fn everybody_reads_what_everybody_aggregates(python: &str) -> Result<(), Failed> {
    let cluster = Cluster::start(Path::new(BINARY), "throttle = \"off\"").await;
    let endpoint = cluster.endpoints()[0].clone();
    run(python, "put", &endpoint).await?;

    let client = cluster.client().await;
    let options = ProducerOptions {
        aggregate_bytes: Some(51_200),
        // Long enough for records to meet.
        linger: Duration::from_millis(20),
        ..ProducerOptions::default()
    };
    let producer = client.producer(STREAM, options).await?;
    let mut put = Vec::new();
    for n in 0..RECORDS {
        put.push(producer.put(format!("braid-key-{}", n % KEYS), None, format!("braid:{n}")).await?);
    }
    for it in put {
        let outcome = it.await;
        assert!(matches!(outcome, Outcome::Acked { .. }), "{outcome:?}");
    }

    let said = run(python, "read", &endpoint).await?;
    let mut expected: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (shard, record) in said.lines().filter_map(|line| line.split_once(' ')) {
        expected.entry(shard).or_default().push(record);
    }
    let count: usize = expected.values().map(Vec::len).sum();
    assert_eq!(said.lines().filter(|it| it.contains(" braid-key-")).count(), RECORDS);

    let options = ConsumerOptions { deaggregate: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(STREAM, options).await?;
    let mut read: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while read.values().map(Vec::len).sum::<usize>() < count {
        let batch = tokio::time::timeout(BOUND, consumer.next()).await?.ok_or("the consumer has ended")??;
        let of_shard = read.entry(batch.shard.to_string()).or_default();
        for record in batch.records {
            let text = String::from_utf8_lossy(&record.data).replace(|it: char| !it.is_ascii(), "?");
            let place = record.place.unwrap_or(0);
            of_shard.push(format!("{} {place} {} {text}", record.sequence_number, record.partition_key));
        }
    }
    for (shard, records) in expected {
        assert_eq!(read.remove(shard).unwrap_or_default(), records, "{shard}");
    }
    Ok(())
}

fn main() {
    let arguments = Arguments::from_args();
    let found = python();
    let there = has(&found, &["js", "aiokpl"], &["node", "java"]);
    if let Err(why) = &there {
        eprintln!("SKIPPED: nobody else's aggregated records are tried, since their programs can't be had here: {why}");
    }
    let python = found.unwrap_or_default();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(everybody_reads_what_everybody_aggregates(&python))
    };
    let trial = Trial::test("everybody_reads_what_everybody_aggregates", run).with_ignored_flag(there.is_err());
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

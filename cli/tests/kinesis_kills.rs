//! `kill -9` of real nodes while Kinesis clients write, read, split and merge: their SDK tries again by itself, and they see
//! nothing else; nothing acknowledged is lost. What they do and check is in `node/tests/kinesis/kills.py`.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use braid_jepsen::cluster::{Cluster, NODES};
use libtest_mimic::{Arguments, Failed, Trial};

const BINARY: &str = env!("CARGO_BIN_EXE_braid");

/// How long the clients work before and after each blow.
const BETWEEN: Duration = Duration::from_secs(3);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A Python that has boto3.
fn python() -> Result<String, String> {
    let made = Command::new(root().join("scripts/kinesis-clients")).output().map_err(|e| e.to_string())?;
    match made.status.success() {
        true => Ok(String::from_utf8_lossy(&made.stdout).trim().to_string()),
        false => Err(String::from_utf8_lossy(&made.stderr).trim().to_string()),
    }
}

async fn clients_go_on_while_nodes_are_killed(python: &str) -> Result<(), Failed> {
    // A shard's limits are not what is tested, and a poller of many shards would meet them.
    let mut cluster = Cluster::start(Path::new(BINARY), "throttle = \"off\"").await;
    let mut clients = Command::new(python)
        .arg(root().join("node/tests/kinesis/kills.py"))
        .arg(cluster.endpoints().join(","))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(clients.stdout.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line)?;
    if line != "at work\n" {
        return Err(format!("the clients are not at work: {line}").into());
    }
    for node in 0..NODES {
        tokio::time::sleep(BETWEEN).await;
        // Each node in turn: each leads a third of the groups.
        cluster.restart(&[node], BETWEEN).await;
    }
    tokio::time::sleep(BETWEEN).await;
    // The end of its input is what ends it.
    drop(clients.stdin.take());
    let mut rest = String::new();
    said.read_to_string(&mut rest)?;
    println!("{rest}");
    let ended = clients.wait()?;
    let words = (0..NODES).map(|node| format!("node {}:\n{}", node + 1, cluster.last_words(node)));
    if ended.success() { Ok(()) } else { Err(format!("{rest}\n{}", words.collect::<Vec<_>>().join("\n")).into()) }
}

fn main() {
    let arguments = Arguments::from_args();
    let python = python();
    if let Err(why) = &python {
        eprintln!("SKIPPED: no node is killed under Kinesis clients, since they can't be had here: {why}");
    }
    let missing = python.is_err();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(clients_go_on_while_nodes_are_killed(&python.unwrap_or_default()))
    };
    let trial = Trial::test("clients_go_on_while_nodes_are_killed", run).with_ignored_flag(missing);
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

//! `kill -9` of real nodes while Kinesis clients write, read, split and merge: their SDKs try again by themselves, and they see
//! nothing else; nothing acknowledged is lost. What they do and check is in `node/tests/kinesis/`: `kills.py`, which knows the
//! nodes as one name's addresses, and `kills_sdks.py`, which knows a load balancer before them and has one client or more.
#![allow(clippy::disallowed_methods)]

mod clients;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use braid_jepsen::cluster::{Cluster, NODES};
use clients::{has, python, root};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::net::{TcpListener, TcpStream};

const BINARY: &str = env!("CARGO_BIN_EXE_braid");

/// How long the clients work before and after each blow.
const BETWEEN: Duration = Duration::from_secs(3);

/// Stands before the nodes: each connection goes to the next of them that takes it. What a node has lost, its client loses.
async fn balance(nodes: Vec<String>) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        let mut turn = 0;
        while let Ok((mut client, _)) = listener.accept().await {
            turn += 1;
            let nodes: Vec<String> = (0..nodes.len()).map(|n| nodes[(turn + n) % nodes.len()].clone()).collect();
            tokio::spawn(async move {
                for node in nodes {
                    if let Ok(mut node) = TcpStream::connect(node).await {
                        // Small messages, each of them waited for.
                        let _ = (client.set_nodelay(true), node.set_nodelay(true));
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

/// How clients know the nodes.
#[derive(Clone, Copy)]
enum Known {
    /// By all of their addresses.
    Each,
    /// By the address of what stands before them.
    Balanced,
}

async fn nodes_are_killed_under(script: &str, clients: &[&str], python: &str, known: Known) -> Result<(), Failed> {
    // A shard's limits are not what is tested, and a poller of many shards would meet them.
    let mut cluster = Cluster::start(Path::new(BINARY), "throttle = \"off\"").await;
    let endpoints = match known {
        Known::Each => cluster.endpoints().join(","),
        Known::Balanced => balance(cluster.endpoints()).await?,
    };
    let mut clients = Command::new(python)
        .arg(root().join("node/tests/kinesis").join(script))
        .arg(endpoints)
        .args(clients)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(clients.stdout.take().expect("piped"));
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        said.read_line(&mut line).map(|_| (said, line))
    });
    let (mut said, line) = line.await??;
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
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        said.read_to_string(&mut rest).map(|_| rest)
    });
    let rest = rest.await??;
    println!("{rest}");
    let ended = clients.wait()?;
    let words = (0..NODES).map(|node| format!("node {}:\n{}", node + 1, cluster.last_words(node)));
    if ended.success() { Ok(()) } else { Err(format!("{rest}\n{}", words.collect::<Vec<_>>().join("\n")).into()) }
}

fn main() {
    let arguments = Arguments::from_args();
    let found = python();
    let python = found.clone().unwrap_or_default();
    let sdks = "kills_sdks.py";
    let trials = [
        (
            "clients_go_on_while_nodes_are_killed",
            "boto3",
            "kills.py",
            &[] as &[&str],
            Known::Each,
            has(&found, &[], &[]),
        ),
        (
            "other_sdks_and_kcl_go_on_while_nodes_are_killed",
            "the SDKs for JavaScript and Java, and KCL",
            sdks,
            &["java", "javascript", "kcl"],
            Known::Balanced,
            has(&found, &["js"], &["node", "java"]),
        ),
        (
            "the_rust_sdk_and_the_cli_go_on_while_nodes_are_killed",
            "the Rust SDK and the AWS CLI",
            sdks,
            &["rust", "aws_cli"],
            Known::Balanced,
            has(&found, &["rust-sdk/newest/kills"], &[]),
        ),
        (
            "the_go_sdks_go_on_while_nodes_are_killed",
            "the Go SDKs",
            sdks,
            &["go_v1", "go_v2"],
            Known::Balanced,
            has(&found, &["go/kills_v1", "go/kills_v2"], &[]),
        ),
    ];
    let trials = trials.map(|(name, title, script, clients, known, there)| {
        if let Err(why) = &there {
            eprintln!("SKIPPED: no node is killed under {title}, since that can't be had here: {why}");
        }
        let python = python.clone();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(nodes_are_killed_under(script, clients, &python, known))
        };
        Trial::test(name, run).with_ignored_flag(there.is_err())
    });
    libtest_mimic::run(&arguments, trials.into()).exit();
}

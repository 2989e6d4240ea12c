//! A three-node cluster in this process: real sockets, real files, real fsync.
//!
//! Every wait is for a condition, with a bound; ports are the kernel's choice.
#![allow(dead_code, clippy::disallowed_methods)]

pub mod calls;
pub mod sentinel;
pub mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use braid_env::net;
use braid_node::config::{Flags, NodeConfig};
use braid_node::{Listeners, Node};

/// The bound of every wait: far above what anything here takes on a busy machine.
pub const BOUND: Duration = Duration::from_secs(60);

pub struct TestCluster {
    pub dir: tempfile::TempDir,
    pub seeds: String,
    pub configs: Vec<NodeConfig>,
    pub nodes: Vec<Option<Node>>,
}

async fn bind() -> net::Listener {
    net::listen("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

pub fn config(dir: &Path, id: usize, zone: &str, cluster: &str, peer: &str, client: &str) -> NodeConfig {
    let text = |s: &str| Some(s.to_string());
    let flags = Flags {
        node_id: text(&id.to_string()),
        zone: text(zone),
        data_dir: text(dir.join(format!("n{id}")).to_str().unwrap()),
        cluster: text(cluster),
        peer_listen: text(peer),
        peer_advertise: text(peer),
        client_listen: text(client),
        client_advertise: text(client),
        data_groups: text("3"),
        heartbeat_ms: text("100"),
        election_timeout_min_ms: text("500"),
        election_timeout_max_ms: text("1000"),
        ..Flags::default()
    };
    // Below what a user may set, so that a test sees many segments.
    NodeConfig { segment_bytes: 1 << 20, ..NodeConfig::from_sources(None, [], flags).unwrap() }
}

impl TestCluster {
    /// Starts three nodes in three zones and waits until all are ready.
    pub async fn start() -> TestCluster {
        TestCluster::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl Fn(&mut NodeConfig)) -> TestCluster {
        TestCluster::start_nodes(3, change).await
    }

    /// Three nodes, or one by itself: with groups of a single replica.
    pub async fn start_nodes(nodes: usize, change: impl Fn(&mut NodeConfig)) -> TestCluster {
        let dir = tempfile::tempdir().unwrap();
        let mut listeners = Vec::new();
        for _ in 0..nodes {
            listeners.push(Listeners { peer: bind().await, client: bind().await });
        }
        let address = |l: &net::Listener| l.local_addr().unwrap().to_string();
        let seeds: Vec<String> = listeners
            .iter()
            .enumerate()
            .map(|(i, l)| {
                format!("id={},zone={},peer={},client={}", i + 1, zone(i), address(&l.peer), address(&l.client))
            })
            .collect();
        let cluster = seeds.join(";");
        let mut this = TestCluster { dir, seeds: cluster.clone(), configs: Vec::new(), nodes: Vec::new() };
        for (i, l) in listeners.into_iter().enumerate() {
            let mut config = config(this.dir.path(), i + 1, &zone(i), &cluster, &address(&l.peer), &address(&l.client));
            change(&mut config);
            this.configs.push(config.clone());
            this.nodes.push(Some(Node::start_on(config, l).await.unwrap()));
        }
        this.ready().await;
        this
    }

    /// A fourth node, with an empty disk, that joins.
    pub async fn add_node(&mut self, id: usize, zone: &str) {
        let listeners = Listeners { peer: bind().await, client: bind().await };
        let peer = listeners.peer.local_addr().unwrap().to_string();
        let client = listeners.client.local_addr().unwrap().to_string();
        let mut new = config(self.dir.path(), id, zone, &self.seeds, &peer, &client);
        new.segment_bytes = self.configs[0].segment_bytes;
        self.configs.push(new.clone());
        self.nodes.push(Some(Node::start_on(new, listeners).await.unwrap()));
    }

    pub async fn ready(&self) {
        for node in self.nodes.iter().flatten() {
            node.ready(BOUND).await.unwrap();
        }
    }

    pub fn node(&self, i: usize) -> &Node {
        self.nodes[i].as_ref().unwrap()
    }

    pub fn data_dir(&self, i: usize) -> PathBuf {
        self.configs[i].data_dir.clone()
    }

    pub async fn stop(&mut self, i: usize) {
        self.nodes[i].take().unwrap().shutdown().await;
    }

    /// Starts node `i` again on its old addresses and data.
    pub async fn restart(&mut self, i: usize) {
        let config = self.configs[i].clone();
        let start = Instant::now();
        let node = loop {
            // The old socket may linger for a moment.
            match Node::start(config.clone()).await {
                Ok(node) => break node,
                Err(e) if start.elapsed() > BOUND => panic!("{e}"),
                Err(_) => braid_env::time::sleep(Duration::from_millis(50)).await,
            }
        };
        self.nodes[i] = Some(node);
    }

    pub async fn stop_all(&mut self) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].is_some() {
                self.stop(i).await;
            }
        }
    }
}

pub fn zone(i: usize) -> String {
    format!("zone-{}", ["a", "b", "c"][i])
}

/// Waits for `condition` to give a value.
pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < BOUND, "waited {BOUND:?} for {what}");
        braid_env::time::sleep(Duration::from_millis(10)).await;
    }
}

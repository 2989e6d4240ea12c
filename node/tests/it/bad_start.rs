//! Nodes that must not start: on a directory, under an id, in a zone, at an address or with a
//! cluster that is not theirs. As a table; each says why, and the cluster beside them has lost nothing
//! and serves on. (Wrong fields of a configuration are the config's own test.)

use crate::support::sentinel::Sentinel;
use crate::support::{BOUND, TestCluster};
use braid_node::config::{IndexKind, NodeConfig};
use braid_node::{Listeners, Node};
use braid_stream::ids::{NodeId, Zone};

async fn bind() -> Listeners {
    let any = "127.0.0.1:0".parse().unwrap();
    Listeners { peer: braid_env::net::listen(any).await.unwrap(), client: braid_env::net::listen(any).await.unwrap() }
}

/// Why a node with this configuration, on ports of its own, does not start, or takes no part.
async fn refusal(mut config: NodeConfig, listeners: Listeners) -> String {
    config.peer_listen = listeners.peer.local_addr().unwrap();
    config.client_listen = listeners.client.local_addr().unwrap();
    config.peer_advertise = config.peer_listen.to_string();
    config.client_advertise = config.client_listen.to_string();
    match Node::start_on(config, listeners).await {
        Err(e) => e.to_string(),
        Ok(node) => {
            let why = node.ready(BOUND).await.err().unwrap_or_else(|| "it started".into());
            node.shutdown().await;
            why
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_must_not_start() {
    let metrics = Some("127.0.0.1:0".parse().unwrap());
    let mut cluster = TestCluster::start_with(|config| config.metrics_listen = metrics).await;
    let mut sentinel = Sentinel::start(&cluster).await;
    let dir = cluster.dir.path().to_path_buf();
    let first = cluster.configs[0].clone();
    // Another cluster of one node, 7, which was stopped.
    let ports = bind().await;
    let (peer, client) = (ports.peer.local_addr().unwrap().to_string(), ports.client.local_addr().unwrap().to_string());
    let alone = format!("id=7,zone=zone-a,peer={peer},client={client}");
    let mut seventh = crate::support::config(&dir, 7, "zone-a", &alone, &peer, &client);
    seventh.index = IndexKind::Memory;
    let node = Node::start_on(seventh.clone(), ports).await.unwrap();
    node.ready(BOUND).await.unwrap();
    node.shutdown().await;

    let fresh = |name: &str| {
        let empty = NodeConfig { data_dir: dir.join(name), cluster: first.cluster.clone(), ..seventh.clone() };
        NodeConfig { node_id: NodeId(8), ..empty }
    };
    let zone = |text: &str| Zone::parse(text).unwrap();
    let spoiled = |name: &str, identity: &str| {
        let config = fresh(name);
        std::fs::create_dir_all(&config.data_dir).unwrap();
        std::fs::write(config.data_dir.join("identity.json"), identity).unwrap();
        config
    };
    std::fs::write(dir.join("file"), "not a directory").unwrap();
    std::fs::create_dir_all(dir.join("forgotten/groups")).unwrap();
    let identity = std::fs::read_to_string(seventh.data_dir.join("identity.json")).unwrap();
    assert!(identity.contains("\"version\": 1"), "{identity}");
    let newer = identity.replace("\"version\": 1", "\"version\": 99");
    let mut swapped = fresh("swapped");
    let addresses: Vec<String> = swapped.cluster.iter().map(|it| it.peer_address.clone()).collect();
    swapped.cluster[0].peer_address.clone_from(&addresses[1]);
    swapped.cluster[1].peer_address.clone_from(&addresses[0]);

    let rows: Vec<(&str, NodeConfig, &[&str])> = vec![
        ("directory in use", first.clone(), &["data_dir", "in use by another process"]),
        ("directory is a file", fresh("file"), &["data_dir", "file"]),
        (
            "directory of another node",
            NodeConfig { node_id: NodeId(8), ..seventh.clone() },
            &["identity.json", "belongs to node 7", "node_id = 8"],
        ),
        (
            "wrong zone",
            NodeConfig { zone: zone("zone-z"), ..seventh.clone() },
            &["node 7", "\"zone-a\"", "zone = \"zone-z\""],
        ),
        (
            "directory of another cluster",
            NodeConfig { cluster: first.cluster.clone(), ..seventh.clone() },
            &["this data directory belongs to cluster", "the configuration names"],
        ),
        ("identity is garbage", spoiled("garbage", "\0\0\0"), &["identity.json", "not a node's identity"]),
        ("identity is empty", spoiled("empty", ""), &["identity.json", "not a node's identity"]),
        ("identity of a newer build", spoiled("newer", &newer), &["format version 99", "version 1"]),
        ("identity is gone", fresh("forgotten"), &["identity.json", "missing", "restore the file"]),
        (
            "used id, empty disk",
            NodeConfig { node_id: NodeId(3), zone: zone("zone-c"), ..fresh("reborn") },
            &["node 3", "never used again with an empty disk", "new id"],
        ),
        ("seeds swapped", swapped, &["the configuration says that", "is node 1, and node 2 answers there"]),
    ];
    let mut wrong = Vec::new();
    let mut judge = |name: &str, why: String, says: &[&str]| {
        if !says.iter().all(|word| why.contains(word)) {
            wrong.push(format!("{name}: {why:?}, not with {says:?}"));
        }
    };
    for (name, config, says) in rows {
        judge(name, refusal(config, bind().await).await, says);
    }
    let free = "127.0.0.1:0".parse().unwrap();
    let unbound = NodeConfig { peer_listen: free, client_listen: free, ..fresh("unbound") };
    let node = cluster.node(0);
    let taken = [
        ("peer_listen", NodeConfig { peer_listen: node.peer_address(), ..unbound.clone() }),
        ("client_listen", NodeConfig { client_listen: node.client_address(), ..unbound.clone() }),
        ("metrics_listen", NodeConfig { metrics_listen: node.metrics_address(), ..unbound }),
    ];
    for (field, config) in taken {
        let why = Node::start(config).await.map(drop).map_err(|e| e.to_string()).unwrap_err();
        judge(field, why, &[field, "127.0.0.1:", "in use"]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sentinel.check(&cluster, "nodes that must not start").await;

    // Whose directory it is may have it, as before.
    let node = Node::start(seventh).await.unwrap();
    node.ready(BOUND).await.unwrap();
    node.shutdown().await;
    cluster.stop_all().await;
}

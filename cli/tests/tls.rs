//! `braid` against a node whose client port has TLS, with a CA of our own.

// A test of the program runs the program.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use braid_env::net;
use braid_node::config::{Flags, NodeConfig};
use braid_node::{Listeners, Node};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Writes ca.pem, node.pem and node.key.
fn certify(dir: &Path) {
    let (ca_key, mut ca) = (KeyPair::generate().unwrap(), CertificateParams::default());
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
    let certificate = params.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    std::fs::write(dir.join("node.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("node.key"), key.serialize_pem()).unwrap();
}

async fn start(dir: &Path) -> (Node, String) {
    let listen = || net::listen("127.0.0.1:0".parse().unwrap());
    let listeners = Listeners { peer: listen().await.unwrap(), client: listen().await.unwrap() };
    let (peer, client) = (listeners.peer.local_addr().unwrap(), listeners.client.local_addr().unwrap());
    let text = |it: &str| Some(it.to_string());
    let path = |name: &str| text(dir.join(name).to_str().unwrap());
    let flags = Flags {
        node_id: text("1"),
        zone: text("a"),
        data_dir: path("data"),
        cluster: Some(format!("id=1,zone=a,peer={peer},client={client}")),
        peer_listen: Some(peer.to_string()),
        client_listen: Some(client.to_string()),
        data_groups: text("1"),
        index: text("memory"),
        tls_certificate: path("node.pem"),
        tls_key: path("node.key"),
        tls_ca: path("ca.pem"),
        ..Flags::default()
    };
    let node = Node::start_on(NodeConfig::from_sources(None, [], flags).unwrap(), listeners).await.unwrap();
    node.ready(Duration::from_secs(60)).await.unwrap();
    (node, client.to_string())
}

async fn braid(endpoint: String, ca: Option<&Path>, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_braid"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BRAID_")) {
        command.env_remove(name);
    }
    command.args(["--endpoint", &endpoint, "--patience", "5s"]).args(args);
    if let Some(ca) = ca {
        command.env("BRAID_CA", ca);
    }
    tokio::task::spawn_blocking(move || command.output().expect("braid runs")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_go_over_tls_to_a_node_that_the_ca_vouches_for() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certify(ours.path());
    certify(theirs.path());
    let (node, address) = start(ours.path()).await;
    let (secure, ca) = (format!("https://{address}"), ours.path().join("ca.pem"));
    for args in [&["stream", "create", "s", "--shards", "1"][..], &["put", "s", "hello", "--key", "me"]] {
        let output = braid(secure.clone(), Some(&ca), args).await;
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let output = braid(secure.clone(), Some(&ca), &["get", "s"]).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("hello"), "{out} {err}");

    let other_ca = theirs.path().join("ca.pem");
    let mixed = format!("{secure},{address}");
    for (endpoint, ca, code, word) in [
        (secure.clone(), None, 2, "--ca FILE"),
        (secure.clone(), Some(other_ca.as_path()), 6, "certificate"),
        (secure.clone(), Some(Path::new("/nowhere.pem")), 2, "/nowhere.pem"),
        (secure, Some(ours.path().join("node.key").as_path()), 2, "no certificate"),
        (mixed, Some(ca.as_path()), 2, "https://, or none"),
        (address, Some(ca.as_path()), 6, ""),
    ] {
        let output = braid(endpoint.clone(), ca, &["stream", "list"]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{endpoint} {ca:?}: {said}");
        assert!(said.contains(word), "{endpoint} {ca:?} should mention {word:?}: {said}");
    }
    node.shutdown().await;
}

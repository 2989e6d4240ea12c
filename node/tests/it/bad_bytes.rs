//! What is no request at all: garbage on every port, messages of the wrong shape, frames and
//! handshakes of another cluster or another node. As tables; after each the cluster has lost
//! nothing and serves on. Malformed requests are in `bad_input.rs`.

use crate::support::sentinel::{Sentinel, channel, client, detail};
use crate::support::{BOUND, TestCluster};
use braid_proto::peer::peer_client::PeerClient;
use braid_proto::peer::{FoundRequest, HelloRequest, JoinRequest, Kind, NodeIdentity, PeerFrame, SnapshotChunk};
use braid_proto::v1;
use braid_proto::v1::{ErrorReason, Outcome};
use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

async fn cluster() -> (TestCluster, Sentinel) {
    let cluster = TestCluster::start_with(|config| {
        config.throttle = false;
        config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let sentinel = Sentinel::start(&cluster).await;
    (cluster, sentinel)
}

// ---------------------------------------------------------------- bytes

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The same every time, and like nothing.
fn noise(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let joined = |parts: &[&[u8]]| parts.concat();
    // A header block of a megabyte is announced, and never comes.
    let headers = [0x10, 0, 0, 1, 4, 0, 0, 0, 1];
    vec![
        ("nothing", vec![]),
        ("noise", noise(4096)),
        ("a megabyte of noise", noise(1 << 20)),
        ("a megabyte of zeros", vec![0; 1 << 20]),
        ("an http/1.1 request", b"GET / HTTP/1.1\r\nhost: braid\r\n\r\n".to_vec()),
        ("an endless http/1.1 header", joined(&[b"GET / HTTP/1.1\r\nx: ", &vec![b'x'; 1 << 20]])),
        ("a tls hello", joined(&[&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], &noise(508)])),
        ("half an http/2 preface", PREFACE[..12].to_vec()),
        ("a preface, then noise", joined(&[PREFACE, &noise(4096)])),
        ("a preface, then zeros", joined(&[PREFACE, &vec![0; 1 << 20]])),
        (
            "settings, then a frame that is too large",
            joined(&[PREFACE, SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]]),
        ),
        ("settings, then headers that end early", joined(&[PREFACE, SETTINGS, &headers, &noise(100)])),
    ]
}

/// Sends the bytes and nothing more; answers with why the node did not end the connection.
async fn throw(address: &str, bytes: &[u8]) -> Result<(), String> {
    let mut stream = braid_env::net::connect(address).await.map_err(|e| e.to_string())?;
    let thrown = async {
        // The node may hang up in the middle: that is an answer, too.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    braid_env::time::timeout(BOUND, thrown).await.map_err(|_| format!("still open after {BOUND:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port() {
    let (mut cluster, mut sentinel) = cluster().await;
    let node = cluster.node(0);
    let ports = [
        ("client", node.client_address()),
        ("peer", node.peer_address()),
        ("metrics", node.metrics_address().unwrap()),
    ];
    let mut wrong = Vec::new();
    for (port, address) in ports {
        for (name, bytes) in garbage() {
            if let Err(why) = throw(&address.to_string(), &bytes).await {
                wrong.push(format!("{name} on the {port} port: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sentinel.check(&cluster, "garbage").await;

    // The same, by many that do not hang up.
    let mut open = Vec::new();
    for (port, address) in ports {
        // Of the metrics port only some: it serves 16 at once, and the page is asked for below.
        for nth in 0..if port == "metrics" { 8 } else { 200 } {
            let mut stream = braid_env::net::connect(&address.to_string()).await.unwrap();
            let _ = stream.write_all(&PREFACE[..nth % 12]).await;
            open.push(stream);
        }
    }
    sentinel.check(&cluster, "half-open connections").await;
    let page = metrics_page(&ports[2].1.to_string()).await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    drop(open);
    cluster.stop_all().await;
}

async fn metrics_page(address: &str) -> String {
    let mut stream = braid_env::net::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut page = String::new();
    braid_env::time::timeout(BOUND, stream.read_to_string(&mut page)).await.expect("a page in time").unwrap();
    page
}

// ---------------------------------------------------------------- messages of the wrong shape

/// Calls `path` with a message that is not the one it takes.
async fn mistyped<M>(channel: Channel, path: &'static str, message: M) -> Status
where
    M: Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<M, v1::PutRecordResponse>::default();
    let call = grpc.unary(Request::new(message), PathAndQuery::from_static(path), codec);
    braid_env::time::timeout(BOUND, call).await.expect("an answer in time").map(drop).unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_not_what_the_call_takes() {
    let (mut cluster, mut sentinel) = cluster().await;
    let at_client = channel(&cluster.configs[0].client_advertise);
    // Field 1 of every request below is a text; this one's is not.
    let not_text = FoundRequest { cluster_id: Bytes::from_static(&[0xff; 16]), members: vec![] };
    let text = v1::DescribeStreamRequest { stream_name: "sentinel".into() };
    // Field 2 is a number there, and bytes here.
    let not_number = v1::PutRecordRequest { data: Bytes::from_static(b"x"), ..v1::PutRecordRequest::default() };
    let unread = (Code::InvalidArgument, ErrorReason::InvalidArgument);
    let rows = [
        (
            "a name that is not utf-8",
            mistyped(at_client.clone(), "/braid.v1.Braid/DescribeStream", not_text.clone()).await,
            unread,
            "UTF-8",
        ),
        (
            "a put that is not utf-8",
            mistyped(at_client.clone(), "/braid.v1.Braid/PutRecord", not_text).await,
            unread,
            "UTF-8",
        ),
        (
            "bytes for a number",
            mistyped(at_client.clone(), "/braid.v1.Braid/GetRecords", not_number).await,
            unread,
            "wire type",
        ),
        (
            "a call that does not exist",
            mistyped(at_client.clone(), "/braid.v1.Braid/NoSuchCall", text.clone()).await,
            (Code::Unimplemented, ErrorReason::Unsupported),
            "no such call",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, status, expected, word) in rows {
        let detail = detail(&status).unwrap_or_default();
        let found = (status.code(), detail.reason());
        let says = status.message().contains(word);
        if found != expected || !says || detail.outcome() != Outcome::Refused || detail.retryable {
            wrong.push(format!("{name}: {status:?} with {detail:?}"));
        }
    }
    // The peer port serves peers only, and the client port clients only.
    let foreign = [
        mistyped(at_client, "/braid.peer.v1.Peer/Hello", HelloRequest::default()).await,
        mistyped(channel(&cluster.configs[0].peer_advertise), "/braid.v1.Braid/DescribeStream", text).await,
    ];
    wrong.extend(foreign.iter().filter(|status| status.code() != Code::Unimplemented).map(|it| format!("{it:?}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sentinel.check(&cluster, "messages of the wrong shape").await;
    cluster.stop_all().await;
}

// ---------------------------------------------------------------- peers

fn peer(cluster: &TestCluster, node: usize) -> PeerClient<Channel> {
    PeerClient::new(channel(&cluster.configs[node].peer_advertise)).max_encoding_message_size(128 << 20)
}

async fn identity(cluster: &TestCluster, node: usize) -> NodeIdentity {
    let request = HelloRequest { from: Some(NodeIdentity { node: 99, ..NodeIdentity::default() }) };
    peer(cluster, node).hello(request).await.unwrap().into_inner().me.unwrap()
}

/// The answer to one frame on a stream of its own; `None` where the node ends the stream.
async fn exchange(cluster: &TestCluster, frame: PeerFrame) -> Option<PeerFrame> {
    // The stream stays open behind the frame, as a peer's does.
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let mut replies =
        peer(cluster, 0).connect(tokio_stream::wrappers::ReceiverStream::new(rx)).await.ok()?.into_inner();
    tx.send(frame).await.unwrap();
    braid_env::time::timeout(BOUND, replies.message()).await.expect("an answer in time").ok()?
}

fn frame_rows(from: &NodeIdentity, to: &NodeIdentity) -> Vec<(&'static str, PeerFrame, &'static [&'static str])> {
    let good = PeerFrame {
        request_id: 7,
        from_node: from.node,
        from_incarnation: from.incarnation,
        to_node: to.node,
        to_incarnation: to.incarnation,
        cluster_id: to.cluster_id.clone(),
        kind: Kind::MayLead as i32,
        group: 1,
        ..PeerFrame::default()
    };
    let of = |kind: Kind, body: &'static [u8]| PeerFrame {
        kind: kind as i32,
        group: 1,
        body: Bytes::from_static(body),
        ..good.clone()
    };
    let noise: &'static [u8] = &[0xff; 64];
    let torn: &'static [u8] = &[1, 0xff, 0xff, 0xff];
    // A valid head (term 0 of node 0, no previous entry, nothing committed), and an entry that is none.
    let entry = PeerFrame { entries: vec![Bytes::from_static(noise)], ..of(Kind::Append, &[1, 0, 0, 0, 0, 0]) };
    vec![
        (
            "another cluster",
            PeerFrame { cluster_id: Bytes::from_static(&[9; 16]), ..good.clone() },
            &["another cluster"],
        ),
        ("no cluster", PeerFrame { cluster_id: Bytes::new(), ..good.clone() }, &["another cluster"]),
        ("a long cluster id", PeerFrame { cluster_id: vec![9; 1 << 20].into(), ..good.clone() }, &["another cluster"]),
        ("an unknown sender", PeerFrame { from_node: 99, ..good.clone() }, &["node 99", "not registered"]),
        ("a sender's second life", PeerFrame { from_incarnation: 1, ..good.clone() }, &["never reused"]),
        ("another receiver", PeerFrame { to_node: 2, ..good.clone() }, &["for node 2", "this is node 1"]),
        ("the receiver's first life", PeerFrame { to_incarnation: 1, ..good.clone() }, &["for node 1 incarnation"]),
        ("no group", PeerFrame { group: 4_000_000_000, ..of(Kind::Vote, noise) }, &["group 4000000000 has no replica"]),
        ("no kind", of(Kind::Unspecified, noise), &["not a request"]),
        ("an unknown kind", PeerFrame { kind: 77, ..of(Kind::Vote, noise) }, &["not a request"]),
        ("a reply nobody waits for", of(Kind::Reply, noise), &["KIND_REPLY", "not a request"]),
        ("append: empty", of(Kind::Append, b""), &["no bytes"]),
        ("append: noise", of(Kind::Append, noise), &["version 255"]),
        ("append: torn", of(Kind::Append, torn), &["malformed"]),
        ("append: an entry that is none", entry, &["malformed"]),
        ("vote: noise", of(Kind::Vote, noise), &["version 255"]),
        ("vote: torn", of(Kind::Vote, torn), &["malformed"]),
        ("pre-vote: noise", of(Kind::PreVote, noise), &["version 255"]),
        ("transfer: noise", of(Kind::TransferLeader, noise), &["version 255"]),
        ("proposal: noise", of(Kind::Propose, noise), &[]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_are_none() {
    let (mut cluster, mut sentinel) = cluster().await;
    let (to, from) = (identity(&cluster, 0).await, identity(&cluster, 1).await);
    let mut wrong = Vec::new();
    for (name, frame, says) in frame_rows(&from, &to) {
        let Some(answer) = exchange(&cluster, frame).await else {
            wrong.push(format!("{name}: the stream was ended"));
            continue;
        };
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.kind() != Kind::Error || answer.request_id != 7 || !says.iter().all(|word| text.contains(word)) {
            wrong.push(format!("{name}: answered {} {text:?}", answer.kind().as_str_name()));
        }
        if text.len() > 1_000 {
            wrong.push(format!("{name}: an answer of {} bytes echoes what was sent", text.len()));
        }
    }
    // Over the limit of a message between nodes: refused by its length, and the stream ends.
    let large = PeerFrame { body: vec![0; (64 << 20) + 1].into(), ..PeerFrame::default() };
    if let Some(answer) = exchange(&cluster, large).await {
        wrong.push(format!("a frame over the limit: answered {answer:?}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sentinel.check(&cluster, "peer frames").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_do_not_fit() {
    let (mut cluster, mut sentinel) = cluster().await;
    let me = identity(&cluster, 0).await;
    let leader = crate::support::eventually("a catalog leader", || {
        (0..3).find(|i| cluster.node(*i).groups().catalog().is_some_and(|c| c.is_leader()))
    })
    .await;
    let joining = |change: fn(&mut NodeIdentity)| {
        let mut from = NodeIdentity {
            node: 9,
            incarnation: 99,
            zone: "zone-a".into(),
            peer_address: "127.0.0.1:1".into(),
            client_address: "127.0.0.1:2".into(),
            cluster_id: Bytes::new(),
        };
        change(&mut from);
        JoinRequest { from: Some(from) }
    };
    let found = |cluster_id: &'static [u8], members: Vec<NodeIdentity>| FoundRequest {
        cluster_id: Bytes::from_static(cluster_id),
        members,
    };
    let mut stranger = me.clone();
    stranger.incarnation += 1;
    let chunk = |cluster_id: &Bytes| SnapshotChunk {
        group: 1,
        from_node: me.node,
        from_incarnation: me.incarnation,
        cluster_id: cluster_id.clone(),
        to_node: me.node,
        to_incarnation: me.incarnation,
        meta: Bytes::from_static(&[0xff; 64]),
        last: true,
        ..SnapshotChunk::default()
    };
    let (mut first, mut catalog) = (peer(&cluster, 0), peer(&cluster, leader));
    let (precondition, argument) = (Code::FailedPrecondition, Code::InvalidArgument);
    type Outcome = (&'static str, Result<(), Status>, Code, &'static [&'static str]);
    let snapshot = |chunk: SnapshotChunk| Request::new(tokio_stream::iter([chunk]));
    let rows: Vec<Outcome> = vec![
        ("hello: nobody", first.hello(HelloRequest { from: None }).await.map(drop), argument, &["from", "missing"]),
        (
            "found: another cluster",
            first.found(found(&[9; 16], vec![me.clone()])).await.map(drop),
            precondition,
            &["this node belongs to cluster", "09090909"],
        ),
        (
            "found: a short id",
            first.found(found(&[9; 3], vec![me.clone()])).await.map(drop),
            argument,
            &["3 bytes", "16"],
        ),
        (
            "found: without me",
            first.found(found(&[9; 16], vec![])).await.map(drop),
            precondition,
            &["not among the founders"],
        ),
        (
            "found: my second life",
            first.found(found(&[9; 16], vec![stranger])).await.map(drop),
            precondition,
            &["not among the founders"],
        ),
        ("join: nobody", catalog.join(JoinRequest { from: None }).await.map(drop), argument, &["from", "missing"]),
        (
            "join: a used id",
            catalog.join(joining(|it| it.node = 2)).await.map(drop),
            precondition,
            &["node 2 was used before", "new id"],
        ),
        (
            "join: a node of another cluster",
            catalog.join(joining(|it| it.cluster_id = Bytes::from_static(&[9; 16]))).await.map(drop),
            precondition,
            &["belongs to cluster 09090909"],
        ),
        (
            "join: id 0",
            catalog.join(joining(|it| it.node = 0)).await.map(drop),
            argument,
            &["node id 0", "1 or greater"],
        ),
        (
            "join: no incarnation",
            catalog.join(joining(|it| it.incarnation = 0)).await.map(drop),
            argument,
            &["incarnation 0", "1 or greater"],
        ),
        ("join: no zone", catalog.join(joining(|it| it.zone.clear())).await.map(drop), argument, &["zone", "1 to 64"]),
        (
            "join: no address",
            catalog.join(joining(|it| it.peer_address.clear())).await.map(drop),
            precondition,
            &["address", "host:port"],
        ),
        (
            "snapshot: another cluster",
            first.install_snapshot(snapshot(chunk(&Bytes::from_static(&[9; 16])))).await.map(drop),
            precondition,
            &["another cluster"],
        ),
        (
            "snapshot: noise",
            first.install_snapshot(snapshot(chunk(&me.cluster_id))).await.map(drop),
            argument,
            &["version 255"],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, answer, code, says) in rows {
        match answer {
            Ok(()) => wrong.push(format!("{name}: was accepted")),
            Err(it) if it.code() == code && says.iter().all(|word| it.message().contains(word)) => {}
            Err(it) => wrong.push(format!("{name}: {:?} {:?}, not {code:?} with {says:?}", it.code(), it.message())),
        }
    }
    let status = client(&cluster, leader).cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner();
    if status.nodes.len() != 3 {
        wrong.push(format!("a node was registered: {:?}", status.nodes));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sentinel.check(&cluster, "handshakes").await;
    cluster.stop_all().await;
}

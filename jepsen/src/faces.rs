//! The same PutRecords through each face of a node: gRPC, and the Kinesis API in JSON and in CBOR.
//!
//! Invariant: all of them carry the same records to the same nodes, with as many calls under way, by turns within one
//! run. A client's own work is left out as far as can be: bodies of the Kinesis API are made once, before the clock runs.

use std::path::Path;
use std::time::{Duration, Instant};

use braid_client::{Client, ClientOptions, StreamSettings};
use braid_proto::v1;
use bytes::Bytes;
use ciborium::Value;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, NODES};

const STREAM: &str = "faces";

/// Enough for what two cores can take, and few enough to be spread by every call.
const SHARDS: u32 = 100;

/// Records of a call: the most that the API allows.
const RECORDS: usize = 500;

/// Data of a record.
const DATA_BYTES: usize = 1_024;

/// Connections to each node, each with one call under way.
const CONNECTIONS: usize = 2;

/// Good for a node whose `kinesis_credentials` are "any", as by default.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, \
                      Signature=00";

/// How a call is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Face {
    /// PutRecords of braid.proto.
    Grpc,
    /// `application/x-amz-json-1.1`
    Json,
    /// `application/x-amz-cbor-1.1`
    Cbor,
}

impl Face {
    /// All of them.
    pub const ALL: [Face; 3] = [Face::Grpc, Face::Json, Face::Cbor];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Face::Grpc => "gRPC",
            Face::Json => "Kinesis, JSON",
            Face::Cbor => "Kinesis, CBOR",
        }
    }
}

/// One face in one round.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which.
    pub face: Face,
    /// Records acknowledged in a second.
    pub records_per_s: f64,
    /// The median of the calls' times.
    pub call: Duration,
    /// What the three nodes used of a core, in seconds, for a million records.
    pub node_cpu_s: f64,
    /// Bytes of a call's body.
    pub body_bytes: usize,
}

/// Three nodes of `binary` without throttling; `rounds` of `duration` for each face by turns.
pub async fn run(binary: &Path, rounds: usize, duration: Duration) -> Vec<Measured> {
    let cluster = Cluster::start(binary, "throttle = \"off\"").await;
    let client = cluster.client().await;
    client.create_and_wait_active(STREAM, SHARDS, StreamSettings::default()).await.expect("a stream");
    let mut measured = Vec::new();
    // The first calls open what later ones find open.
    for face in Face::ALL {
        put(&cluster, face, Duration::from_secs(1)).await;
    }
    for _ in 0..rounds {
        for face in Face::ALL {
            let before = cpu(&cluster);
            let (mut calls, body_bytes, took) = put(&cluster, face, duration).await;
            let records = (calls.len() * RECORDS) as f64;
            calls.sort_unstable();
            measured.push(Measured {
                face,
                records_per_s: records / took.as_secs_f64(),
                call: calls[calls.len() / 2],
                node_cpu_s: (cpu(&cluster) - before).as_secs_f64() * 1e6 / records,
                body_bytes,
            });
        }
    }
    measured
}

fn cpu(cluster: &Cluster) -> Duration {
    (0..NODES).map(|node| cluster.cpu(node)).sum()
}

/// Puts for `duration`; how long each call took, a body's length, and how long it all took.
async fn put(cluster: &Cluster, face: Face, duration: Duration) -> (Vec<Duration>, usize, Duration) {
    let began = Instant::now();
    let until = began + duration;
    let mut connections = JoinSet::new();
    let mut body_bytes = 0;
    for (nth, address) in cluster.endpoints().into_iter().cycle().take(NODES * CONNECTIONS).enumerate() {
        // Random data would be as good: nothing on the way compresses.
        let records: Vec<(String, Bytes)> =
            (0..RECORDS).map(|i| (format!("key-{nth}-{i}"), Bytes::from(vec![nth as u8; DATA_BYTES]))).collect();
        match face {
            Face::Grpc => {
                let request = grpc(&records);
                body_bytes = prost::Message::encoded_len(&request);
                connections.spawn(async move { put_grpc(&address, request, until).await });
            }
            Face::Json | Face::Cbor => {
                let body = if face == Face::Json { json(&records) } else { cbor(&records) };
                body_bytes = body.len();
                connections.spawn(async move { put_http(&address, face, body, until).await });
            }
        }
    }
    let calls = connections.join_all().await.into_iter().flatten().collect();
    (calls, body_bytes, began.elapsed())
}

fn grpc(records: &[(String, Bytes)]) -> v1::PutRecordsRequest {
    let entry = |(key, data): &(String, Bytes)| v1::PutRecordsRequestEntry {
        data: data.clone(),
        partition_key: key.clone(),
        explicit_hash_key: String::new(),
    };
    v1::PutRecordsRequest {
        stream_name: STREAM.into(),
        records: records.iter().map(entry).collect(),
        keep_order: false,
    }
}

fn json(records: &[(String, Bytes)]) -> Bytes {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let entry = |(key, data): &(String, Bytes)| serde_json::json!({"Data": base64.encode(data), "PartitionKey": key});
    let records: Vec<_> = records.iter().map(entry).collect();
    serde_json::json!({"StreamName": STREAM, "Records": records}).to_string().into()
}

fn cbor(records: &[(String, Bytes)]) -> Bytes {
    let text = |it: &str| Value::Text(it.to_owned());
    let entry = |(key, data): &(String, Bytes)| {
        Value::Map(vec![(text("Data"), Value::Bytes(data.to_vec())), (text("PartitionKey"), text(key))])
    };
    let records = Value::Array(records.iter().map(entry).collect());
    let request = Value::Map(vec![(text("StreamName"), text(STREAM)), (text("Records"), records)]);
    let mut bytes = Vec::new();
    ciborium::into_writer(&request, &mut bytes).expect("memory takes everything");
    bytes.into()
}

async fn put_grpc(address: &str, request: v1::PutRecordsRequest, until: Instant) -> Vec<Duration> {
    // A client of its own, for a connection of its own.
    let client = Client::connect(vec![address.to_owned()], ClientOptions::default()).await.expect("a client");
    let mut node = client.node_at(address).expect("an address");
    let mut calls = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        let answer = node.put_records(request.clone()).await.expect("a node at rest answers").into_inner();
        assert!(answer.records.iter().all(|it| it.outcome() == v1::Outcome::Appended), "some were refused");
        calls.push(began.elapsed());
    }
    calls
}

async fn put_http(address: &str, face: Face, body: Bytes, until: Instant) -> Vec<Duration> {
    let stream = TcpStream::connect(address).await.expect("a node at rest takes connections");
    stream.set_nodelay(true).expect("a TCP connection");
    let (mut node, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let form = if face == Face::Json { "application/x-amz-json-1.1" } else { "application/x-amz-cbor-1.1" };
    let mut calls = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        let answer = call(&mut node, address, form, body.clone()).await;
        // In either form, a record that failed has one of these.
        let failed = |name: &[u8]| answer.windows(name.len()).any(|it| it == name);
        assert!(!failed(b"ErrorCode") && !failed(b"__type"), "{}", String::from_utf8_lossy(&answer));
        calls.push(began.elapsed());
    }
    calls
}

async fn call(node: &mut SendRequest<Full<Bytes>>, address: &str, form: &str, body: Bytes) -> Bytes {
    let request = Request::post("/")
        .header("host", address)
        .header("content-type", form)
        .header("x-amz-target", "Kinesis_20131202.PutRecords")
        .header("x-amz-date", "20260101T000000Z")
        .header("authorization", SIGNED)
        .body(Full::new(body))
        .expect("good headers");
    node.ready().await.expect("the connection is kept");
    let answer = node.send_request(request).await.expect("a node at rest answers");
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.into_body().collect().await.expect("a whole answer").to_bytes()
}

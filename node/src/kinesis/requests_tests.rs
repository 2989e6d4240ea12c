//! Any request at all gets a well-formed answer of the modelled kind, from a real node: never a 500, a hang or a panic.
//!
//! Requests are made up from the model for every operation, right ones and wrong ones, in both forms, and handed to the face
//! without a socket. The node has streams, consumers, shards and tokens that the requests name, so that many of them succeed.
// Real time: a hang is told by the clock, and what is tested here does not run in the simulator.
#![allow(clippy::disallowed_methods)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use braid_env::{net, time};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tonic::body::Body;

use super::Face;
use super::wire::fault::FaultKind;
use super::wire::model::{self, Hand, Harm, Known, Twist};
use super::wire::table::{Operation, table};
use super::wire::value::Structure;
use super::wire::{Form, JSON, write};
use crate::config::{Flags, NodeConfig};
use crate::{Listeners, Node};

/// Requests made up of each operation, unless PROPTEST_CASES says so.
const CASES: u32 = 80;

/// The node's own time for a call, and what more of it is a hang.
const DEADLINE: Duration = Duration::from_secs(5);
const HANG: Duration = Duration::from_secs(10);

const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, \
                      Signature=00";

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream";

/// What surrounds the body.
#[derive(Clone, Debug)]
enum Head {
    Right,
    /// Of these headers one has another value, or none at all.
    Other(&'static str, Option<String>),
    Method(&'static str),
}

fn heads() -> impl Strategy<Value = Head> {
    let name = select(vec!["authorization", "content-type", "x-amz-target", "x-amz-date"]);
    let near = select(vec![
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=, Signature=",
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/US EAST/kinesis/aws4_request, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 =,=,=",
        "application/x-amz-json-1.1; charset=utf-16",
        "application/x-amz-cbor-1.1;",
        "application/json",
        "Kinesis_20131202.",
        "Kinesis_20131202.putRecord",
        "Kinesis_20131202.CreateChannel",
        "DynamoDB_20120810.ListTables",
    ]);
    let value = prop_oneof![
        1 => Just(None),
        3 => near.prop_map(|it| Some(it.to_string())),
        1 => "[ -~\u{80}-\u{ff}]{0,40}".prop_map(Some),
    ];
    prop_oneof![
        28 => Just(Head::Right),
        3 => (name, value).prop_map(|(name, value)| Head::Other(name, value)),
        1 => select(vec!["GET", "PUT", "OPTIONS", "HEAD"]).prop_map(Head::Method),
    ]
}

/// A request, with all that may be wrong with it.
#[derive(Clone, Debug)]
struct Case {
    operation: &'static Operation,
    form: Form,
    head: Head,
    body: Bytes,
    /// Its body comes in pieces of so many bytes.
    piece: usize,
}

fn made_up(operation: &'static Operation, known: &Known) -> impl Strategy<Value = Case> + use<> {
    let made = (model::structure(operation.input, known), model::twists(), model::hands(), model::harms());
    let form = select(vec![Form::Json, Form::Cbor]);
    (made, form, heads(), select(vec![1usize, 100, usize::MAX])).prop_map(
        move |((input, twist, hand, harm), form, head, piece): ((Structure, Twist, Hand, Harm), _, _, _)| {
            let body = harm.to(hand.write(form, &twist.of(input))).into();
            Case { operation, form, head, body, piece }
        },
    )
}

impl Case {
    fn request(&self) -> Request<Body> {
        let target = format!("Kinesis_20131202.{}", self.operation.name);
        let (mut method, mut request) = ("POST", Request::builder().uri("/"));
        let right = [
            ("authorization", SIGNED),
            ("content-type", self.form.content_type()),
            ("x-amz-target", &target),
            ("x-amz-date", "20260101T000000Z"),
            ("origin", "https://example.org"),
        ];
        for (name, value) in right {
            match &self.head {
                Head::Other(other, value) if *other == name => {
                    if let Some(value) = value {
                        request = request.header(name, value.as_bytes());
                    }
                }
                _ => request = request.header(name, value),
            }
        }
        if let Head::Method(it) = self.head {
            method = it;
        }
        let pieces: Vec<Bytes> =
            self.body.chunks(self.piece.min(self.body.len().max(1))).map(Bytes::copy_from_slice).collect();
        let frames = pieces.into_iter().map(|it| Ok::<_, Infallible>(Frame::data(it)));
        request.method(method).body(Body::new(StreamBody::new(futures_util::stream::iter(frames)))).unwrap()
    }
}

/// A node by itself with two streams, and what there is to be named of them.
struct Place {
    face: Face,
    _node: Node,
    _dir: tempfile::TempDir,
}

impl Place {
    async fn open() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let listen = || net::listen("127.0.0.1:0".parse().unwrap());
        let listeners = Listeners { peer: listen().await.unwrap(), client: listen().await.unwrap() };
        let text = |it: &str| Some(it.to_string());
        let (peer, client) = (listeners.peer.local_addr().unwrap(), listeners.client.local_addr().unwrap());
        let flags = Flags {
            node_id: text("1"),
            zone: text("a"),
            data_dir: text(dir.path().join("n1").to_str().unwrap()),
            cluster: Some(format!("id=1,zone=a,peer={peer},client={client}")),
            peer_listen: Some(peer.to_string()),
            client_listen: Some(client.to_string()),
            data_groups: text("1"),
            index: text("memory"),
            throttle: text("off"),
            shard_count_limit: text("off"),
            heartbeat_ms: text("100"),
            election_timeout_min_ms: text("500"),
            election_timeout_max_ms: text("1000"),
            request_deadline_ms: Some(DEADLINE.as_millis().to_string()),
            ..Flags::default()
        };
        // Below what a user may set: a group's log begins with a whole segment on the disk.
        let config = NodeConfig { segment_bytes: 4 << 20, ..NodeConfig::from_sources(None, [], flags).unwrap() };
        let node = Node::start_on(config, listeners).await.unwrap();
        node.ready(Duration::from_secs(60)).await.unwrap();
        Place { face: node.kinesis().clone(), _node: node, _dir: dir }
    }

    /// A right call.
    async fn call(&self, operation: &'static str, input: Structure) -> Result<Structure, String> {
        let operation = table().operation(operation).unwrap();
        let body = write(Form::Json, &input);
        let case = Case { operation, form: Form::Json, head: Head::Right, body, piece: usize::MAX };
        let (head, body) = self.face.answer(case.request()).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        match (head.status, operation.output) {
            (StatusCode::OK, Some(shape)) => model::output(Form::Json, shape, &body),
            (StatusCode::OK, None) => Ok(Structure::new()),
            _ => Err(model::fault(Form::Json, &body)?.0),
        }
    }

    /// Both streams and the consumer are there and active, whatever was deleted before.
    async fn furnish(&self) {
        let on_demand = Structure::new().with("StreamMode", "ON_DEMAND");
        let alpha = Structure::new().with("StreamName", "alpha").with("ShardCount", 4i64);
        let beta = Structure::new().with("StreamName", "beta").with("StreamModeDetails", on_demand);
        for (name, create) in [("alpha", alpha), ("beta", beta)] {
            let active = || async {
                let asked = Structure::new().with("StreamName", name);
                let status = |it: &Structure| {
                    it.structure("StreamDescriptionSummary").map(|it| it.needed("StreamStatus") == "ACTIVE")
                };
                match self.call("DescribeStreamSummary", asked).await {
                    Ok(it) => status(&it) == Some(true),
                    Err(why) => {
                        assert_eq!(why, "ResourceNotFoundException");
                        let _ = self.call("CreateStream", create.clone()).await;
                        false
                    }
                }
            };
            self.until(name, active).await;
        }
        let reader = Structure::new().with("StreamARN", format!("{ARN}/alpha")).with("ConsumerName", "reader");
        let active = || async {
            let status =
                |it: &Structure| it.structure("ConsumerDescription").map(|it| it.needed("ConsumerStatus") == "ACTIVE");
            match self.call("DescribeStreamConsumer", reader.clone()).await {
                Ok(it) => status(&it) == Some(true),
                Err(_) => {
                    let _ = self.call("RegisterStreamConsumer", reader.clone()).await;
                    false
                }
            }
        };
        self.until("reader", active).await;
    }

    async fn until<F: Future<Output = bool>>(&self, what: &str, mut condition: impl FnMut() -> F) {
        let wait = async {
            while !condition().await {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what} did not come about"));
    }

    /// Texts that mean something here.
    async fn known(&self) -> Known {
        let alpha = || Structure::new().with("StreamName", "alpha");
        let record = alpha().with("PartitionKey", "k").with("Data", Bytes::from_static(b"data"));
        let put = self.call("PutRecord", record).await.unwrap();
        let shards: Vec<String> = (0..8).map(|nth| format!("shardId-{nth:012}")).collect();
        let mut iterators = Vec::new();
        for (shard, kind) in [(0, "TRIM_HORIZON"), (0, "LATEST"), (1, "TRIM_HORIZON")] {
            let input = alpha().with("ShardId", shards[shard].as_str()).with("ShardIteratorType", kind);
            // Made up anew, it may have one shard.
            let made = self.call("GetShardIterator", input).await;
            iterators.extend(made.ok().map(|it| it.needed("ShardIterator").to_string()));
        }
        let one = |name| Structure::new().with(name, 1i64);
        let page = self.call("ListShards", one("MaxResults").with("StreamName", "alpha")).await.unwrap();
        let names = self.call("ListStreams", one("Limit")).await.unwrap();
        let tokens = [page, names].iter().filter_map(|it| it.text("NextToken").map(str::to_string)).collect();
        let reader = Structure::new().with("StreamARN", format!("{ARN}/alpha")).with("ConsumerName", "reader");
        let consumer = self.call("DescribeStreamConsumer", reader).await.unwrap();
        let consumer = consumer.structure("ConsumerDescription").unwrap().needed("ConsumerARN").to_string();
        let texts = |list: &[&str]| list.iter().map(|it| it.to_string()).collect::<Vec<_>>();
        let arns = texts(&[&format!("{ARN}/alpha"), &format!("{ARN}/beta"), &format!("{ARN}/gone")]);
        Known::from([
            ("StreamName", texts(&["alpha", "alpha", "beta", "gone"])),
            ("StreamARN", arns.clone()),
            ("ResourceARN", [arns, vec![consumer.clone()]].concat()),
            ("ConsumerARN", vec![consumer]),
            ("ConsumerName", texts(&["reader", "other"])),
            ("ShardId", shards),
            ("ShardIterator", iterators),
            ("SequenceNumber", texts(&[put.needed("SequenceNumber"), "0"])),
            ("NextToken", tokens),
            (
                "HashKey",
                texts(&[
                    "0",
                    "12345",
                    "340282366920938463463374607431768211455",
                    "999999999999999999999999999999999999999",
                ]),
            ),
            ("TagKey", texts(&["a", "b"])),
            ("Policy", texts(&["{}", r#"{"Version":"2012-10-17","Statement":[]}"#])),
        ])
    }
}

/// What every call may be refused with, besides what the model names.
const COMMON: &[FaultKind] = &[
    FaultKind::IncompleteSignature,
    FaultKind::InvalidSignature,
    FaultKind::MissingAuthenticationToken,
    FaultKind::RequestTooLarge,
    FaultKind::Serialization,
    FaultKind::UnknownOperation,
];

/// What is answered, if it is well-formed: an output, or a refusal's kind; else what is wrong with it.
async fn judge(case: &Case, answer: Response<Body>) -> Result<&'static str, String> {
    let (head, mut body) = answer.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
    if header("x-amzn-requestid").len() != 36 || header("x-amz-id-2").is_empty() {
        return Err(format!("no ids: {:?}", head.headers));
    }
    let content_type = header("content-type").to_string();
    if content_type == "application/vnd.amazon.eventstream" {
        let first = body.frame().await.ok_or("no event at all")?.map_err(|e| e.to_string())?;
        return event(first.into_data().map_err(|it| format!("{it:?}"))?.as_ref());
    }
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    let told = || format!("{} {content_type} {}", head.status, String::from_utf8_lossy(&body));
    // What is not a call of this API is answered in neither form.
    if !matches!(case.head, Head::Right) && matches!(content_type.as_str(), "application/xml" | "text/plain") {
        return match head.status.as_u16() {
            403 | 404 => Ok("foreign"),
            200 if body.is_empty() => Ok("preflight"),
            _ => Err(told()),
        };
    }
    let form = Form::of(&content_type).ok_or_else(told)?;
    if matches!(case.head, Head::Right) && form != case.form {
        return Err(format!("asked in {:?}: {}", case.form, told()));
    }
    match (head.status.as_u16(), case.operation.output) {
        (200, None) if body.is_empty() => Ok("output"),
        (200, Some(shape)) => model::output(form, shape, &body).map(|_| "output"),
        (400 | 413, _) => {
            let (kind, text) = model::fault(form, &body)?;
            let bare = ["SerializationException", "UnknownOperationException"].contains(&kind.as_str());
            let modelled = table().has_error(&kind) || COMMON.iter().any(|it| it.name() == kind);
            let said = bare || text.is_some_and(|it| !it.is_empty() && it.len() < 64 << 10);
            if modelled && said { Ok("refused") } else { Err(told()) }
        }
        _ => Err(told()),
    }
}

/// A frame of an event stream, as the format has it: an initial-response comes first.
fn event(frame: &[u8]) -> Result<&'static str, String> {
    let number = |at: usize| frame.get(at..at + 4).map(|it| u32::from_be_bytes(it.try_into().unwrap()));
    let end = frame.len().saturating_sub(4);
    let sound = number(0) == Some(frame.len() as u32)
        && number(8) == Some(crc32fast::hash(&frame[..8]))
        && number(end) == Some(crc32fast::hash(&frame[..end]));
    let first = frame.windows(16).any(|it| it == b"initial-response");
    if sound && first { Ok("output") } else { Err(format!("not an initial response: {frame:02x?}")) }
}

#[test]
fn any_request_gets_a_well_formed_answer() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let place = runtime.block_on(Place::open());
    let (succeeded, all) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeMap::<_, u32>::new()));
    let mut failures = Vec::new();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|it| it.parse().ok()).unwrap_or(CASES);
    for operation in table().operations() {
        let config = Config { cases, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
        // What an earlier operation has deleted is there again, and has other tokens.
        let known = runtime.block_on(async {
            place.furnish().await;
            place.known().await
        });
        let missing = Cell::new(false);
        let judged = TestRunner::new(config).run(&made_up(operation, &known), |case| {
            runtime.block_on(async {
                if missing.take() {
                    place.furnish().await;
                }
                let asked = async { judge(&case, place.face.answer(case.request()).await).await };
                let judged = time::timeout(HANG, asked).await.unwrap_or_else(|_| Err("no answer".into()));
                let kind = judged.map_err(|why| TestCaseError::fail(format!("{}: {why}", operation.name)))?;
                missing.set(kind == "output" && matches!(operation.name, "DeleteStream" | "DeregisterStreamConsumer"));
                if kind == "output" {
                    succeeded.borrow_mut().insert(operation.name);
                }
                *all.borrow_mut().entry(kind).or_default() += 1;
                Ok(())
            })
        });
        failures.extend(judged.err().map(|failure| failure.to_string()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // A test that no request passes would say nothing.
    println!("{:?}, succeeded: {:?}", all.borrow(), succeeded.borrow());
    assert!(succeeded.borrow().len() >= 30, "only these ever succeeded: {:?}", succeeded.borrow());
}

/// Bodies that cost nothing to send and might cost much to read.
#[test]
fn bombs_are_refused_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let place = Place::open().await;
        let deep = |open: &str, close: &str| format!("{{\"Tags\":{}{}}}", open.repeat(200_000), close.repeat(200_000));
        let bombs = [
            (Form::Json, deep("[", "]").into_bytes()),
            (Form::Json, deep("{\"a\":", "}").into_bytes()),
            (Form::Json, format!("{{\"ShardCount\":{}}}", "9".repeat(1 << 20)).into_bytes()),
            (Form::Json, b"{\"StreamName\":\"\xff\xfe\"}".to_vec()),
            (Form::Json, b"{\"StreamName\":\"\\ud800\"}".to_vec()),
            (Form::Cbor, vec![0x9f; 1 << 20]),
            (Form::Cbor, vec![0xbf; 1 << 20]),
            (Form::Cbor, vec![0xc1; 1 << 20]),
            (Form::Cbor, [vec![0xbb], (1u64 << 60).to_be_bytes().to_vec()].concat()),
            (Form::Cbor, [vec![0xa1, 0x64], b"Data".to_vec(), vec![0x5b], u64::MAX.to_be_bytes().to_vec()].concat()),
        ];
        for (form, body) in bombs {
            for operation in table().operations() {
                let case = Case { operation, form, head: Head::Right, body: body.clone().into(), piece: usize::MAX };
                let asked = async { judge(&case, place.face.answer(case.request()).await).await };
                let judged = time::timeout(HANG, asked).await;
                assert_eq!(
                    judged,
                    Ok(Ok("refused")),
                    "{} {form:?} {:02x?}",
                    operation.name,
                    &body[..20.min(body.len())]
                );
            }
        }
        // A body that never ends.
        let endless = futures_util::stream::repeat(Bytes::from(vec![b' '; 1 << 20]));
        let endless = Body::new(StreamBody::new(endless.map(|it| Ok::<_, Infallible>(Frame::data(it)))));
        let request =
            Request::post("/").header("content-type", JSON).header("x-amz-target", "Kinesis_20131202.PutRecords");
        let answer = place.face.answer(request.header("authorization", SIGNED).body(endless).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    });
}

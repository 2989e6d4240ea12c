//! Each of a shard's limits, asked for far more than it gives: what was given over a minute, beside the limit, with
//! every leader killed once meanwhile or with none.
//!
//! Each limit has a stream of one shard to itself. What is counted is what clients were told.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use braid_client::{Client, StreamSettings};
use braid_env::random;
use braid_proto::v1;
use braid_stream::limits;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, NODES};

/// The one shard of each stream.
const SHARD: &str = "shardId-000000000000";

/// Clients per limit, save that a subscriber is alone.
const CLIENTS: usize = 4;

/// Before counting begins: what a shard may give at once is used up.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long a killed node stays down.
const DOWN: Duration = Duration::from_secs(3);

/// A longer time without anything is one in which the shard did not serve: no limit makes a client wait so long.
const SILENCE: Duration = Duration::from_millis(1_200);

/// A limit of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Records written.
    WriteRecords,
    /// Bytes written, keys and data.
    WriteBytes,
    /// Bytes given to pollers.
    ReadBytes,
    /// GetRecords calls.
    ReadCalls,
    /// Bytes pushed to a subscriber.
    SubscriberBytes,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 5] =
        [Limit::WriteRecords, Limit::WriteBytes, Limit::ReadBytes, Limit::ReadCalls, Limit::SubscriberBytes];

    /// Units a second.
    pub fn per_second(self) -> u64 {
        match self {
            Limit::WriteRecords => limits::WRITE_RECORDS_PER_S,
            Limit::WriteBytes => limits::WRITE_BYTES_PER_S,
            Limit::ReadBytes => limits::READ_BYTES_PER_S,
            Limit::ReadCalls => limits::READ_CALLS_PER_S,
            Limit::SubscriberBytes => limits::SUBSCRIBER_BYTES_PER_S,
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Limit::WriteRecords => "records written",
            Limit::WriteBytes => "bytes written",
            Limit::ReadBytes => "bytes polled",
            Limit::ReadCalls => "GetRecords calls",
            Limit::SubscriberBytes => "bytes of a subscription",
        }
    }

    fn stream(self) -> String {
        format!("{self:?}")
    }
}

/// What was given, and when clients were told.
type Given = Arc<Mutex<Vec<(Instant, u64)>>>;

/// One limit's minute.
#[derive(Debug)]
pub struct Measured {
    /// Which limit.
    pub limit: Limit,
    /// Units a second over the whole time.
    pub per_second: f64,
    /// The whole time.
    pub over: Duration,
    /// The time in which the shard gave nothing: failovers.
    pub silent: Duration,
    /// The most by which any span of time got more than its share, in seconds' worth of the limit: up to 1 at a time after a
    /// pause, one answer's size where that is known only when it is given, and what clients learned later than it was.
    pub burst_s: f64,
}

/// Runs three nodes of `binary`, asks for too much of every limit for `duration`, and kills every node once if `kills`.
pub async fn run(binary: &Path, duration: Duration, kills: bool) -> Vec<Measured> {
    let mut cluster = Cluster::start(binary, "").await;
    let client = cluster.client().await;
    for limit in Limit::ALL {
        prepare(&client, limit, duration).await;
    }
    let mut greed = JoinSet::new();
    let given: Vec<(Limit, Given)> = Limit::ALL.iter().map(|limit| (*limit, Given::default())).collect();
    for (limit, given) in &given {
        for _ in 0..if *limit == Limit::SubscriberBytes { 1 } else { CLIENTS } {
            greed.spawn(ask(client.clone(), cluster.endpoints(), *limit, given.clone()));
        }
    }
    tokio::time::sleep(WARM_UP).await;
    let from = Instant::now();
    for node in (0..NODES).filter(|_| kills) {
        tokio::time::sleep_until((from + duration / 4 * (node as u32 + 1) - DOWN).into()).await;
        cluster.restart(&[node], DOWN).await;
    }
    let to = from + duration;
    tokio::time::sleep_until(to.into()).await;
    greed.shutdown().await;
    given.into_iter().map(|(limit, given)| judge(limit, &given.lock().expect("no panic"), from, to)).collect()
}

fn judge(limit: Limit, given: &[(Instant, u64)], from: Instant, to: Instant) -> Measured {
    let mut given: Vec<_> = given.iter().filter(|(at, _)| (from..to).contains(at)).copied().collect();
    given.sort_unstable();
    let units: u64 = given.iter().map(|(_, units)| units).sum();
    let rate = limit.per_second() as f64;
    let mut times: Vec<Instant> = given.iter().map(|(at, _)| *at).collect();
    times.insert(0, from);
    times.push(to);
    let silent = times.windows(2).map(|w| w[1] - w[0]).filter(|it| *it > SILENCE).sum();
    // The span that got most beyond its share: the greatest sum of consecutive gains.
    let (mut burst, mut most, mut last) = (0.0f64, 0.0f64, from);
    for (at, units) in given {
        burst = (burst - (at - last).as_secs_f64() * rate).max(0.0) + units as f64;
        (most, last) = (most.max(burst), at);
    }
    let over = to - from;
    Measured { limit, per_second: units as f64 / over.as_secs_f64(), over, silent, burst_s: most / rate }
}

/// Makes the stream, and fills it where it will be read.
async fn prepare(client: &Client, limit: Limit, duration: Duration) {
    let stream = limit.stream();
    let none = v1::StreamLimits {
        write_bytes_per_s: 1 << 30,
        write_records_per_s: 1 << 20,
        read_bytes_per_s: limits::READ_BYTES_PER_S,
        read_calls_per_s: limits::READ_CALLS_PER_S,
        max_record_bytes: limits::RECORD_BYTES_MAX,
    };
    let usual = v1::StreamLimits {
        write_bytes_per_s: limits::WRITE_BYTES_PER_S,
        write_records_per_s: limits::WRITE_RECORDS_PER_S,
        ..none
    };
    let settings = StreamSettings { limits: Some(none), ..StreamSettings::default() };
    client.create_and_wait_active(&stream, 1, settings).await.expect("a stream");
    let seconds = match limit {
        Limit::SubscriberBytes => (duration + 4 * WARM_UP).as_secs(),
        Limit::ReadBytes => 16, // read again and again
        _ => 0,
    };
    let mut missing = (seconds * limit.per_second()) as i64;
    let addresses = client.addresses();
    let mut node = client.node_at(&addresses[0]).expect("an address");
    while missing > 0 {
        let answer = node.put_records(batch(&stream, 100, 10_000)).await.expect("a cluster at rest takes records");
        let appended = 100 - answer.into_inner().failed_record_count;
        missing -= i64::from(appended) * 10_000;
    }
    client.update_stream(&stream, 0, Some(usual)).await.expect("a setting");
    client.wait_active(&stream).await.expect("the stream is there");
}

fn batch(stream: &str, records: usize, bytes: usize) -> v1::PutRecordsRequest {
    let mut data = vec![0; bytes];
    random::fill(&mut data);
    let data = Bytes::from(data);
    let record = |_| v1::PutRecordsRequestEntry { data: data.clone(), partition_key: "k".into(), ..Default::default() };
    v1::PutRecordsRequest { stream_name: stream.into(), records: (0..records).map(record).collect(), keep_order: false }
}

/// Asks for more than there is, for ever; through another node where one does not answer.
async fn ask(client: Client, addresses: Vec<String>, limit: Limit, given: Given) {
    let stream = limit.stream();
    let mut last = None;
    loop {
        let address = &addresses[random::below(addresses.len() as u64) as usize];
        let Ok(node) = client.node_at(address) else { panic!("{address} is no address") };
        let note = |units| given.lock().expect("no panic").push((Instant::now(), units));
        let ended = match limit {
            Limit::WriteRecords => write(node, batch(&stream, 50, 10), |record| note(u64::from(record))).await,
            Limit::WriteBytes => {
                write(node, batch(&stream, 10, 10_000), |record| note(u64::from(record) * 10_001)).await
            }
            Limit::ReadBytes => poll(node, &stream, v1::ShardIteratorType::TrimHorizon, |r| note(bytes(r))).await,
            Limit::ReadCalls => poll(node, &stream, v1::ShardIteratorType::Latest, |_| note(1)).await,
            Limit::SubscriberBytes => {
                subscribe(node, &stream, last.clone(), |event| {
                    note(bytes(&event.records));
                    last = Some(event.continuation_sequence_number).filter(|it| !it.is_empty());
                })
                .await
            }
        };
        if let Err(status) = ended {
            assert!(status.code() != tonic::Code::InvalidArgument, "{status}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

type Node = v1::braid_client::BraidClient<braid_client::Channel>;

/// Puts `batch` again and again, until the node fails; `note` gets how many of a call's records were taken.
async fn write(mut node: Node, batch: v1::PutRecordsRequest, note: impl Fn(u32)) -> Result<(), tonic::Status> {
    loop {
        let answer = timely(node.put_records(batch.clone())).await?.into_inner();
        let refused = answer.failed_record_count;
        note(batch.records.len() as u32 - refused);
        if refused > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Polls from `start` on, and again from there at the shard's tip, until the node fails; `note` gets each answer's
/// records.
async fn poll(
    mut node: Node,
    stream: &str,
    start: v1::ShardIteratorType,
    note: impl Fn(&[v1::Record]),
) -> Result<(), tonic::Status> {
    let first = v1::GetShardIteratorRequest {
        stream_name: stream.into(),
        shard_id: SHARD.into(),
        shard_iterator_type: start as i32,
        ..Default::default()
    };
    let mut iterator = String::new();
    loop {
        if iterator.is_empty() {
            iterator = timely(node.get_shard_iterator(first.clone())).await?.into_inner().shard_iterator;
        }
        let request = v1::GetRecordsRequest { shard_iterator: iterator.clone(), limit: 50 };
        match timely(node.get_records(request)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                note(&answer.records);
                let tip = answer.records.is_empty() && start == v1::ShardIteratorType::TrimHorizon;
                iterator = if tip { String::new() } else { answer.next_shard_iterator };
            }
            Err(full) if full.code() == tonic::Code::ResourceExhausted => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(other) => return Err(other),
        }
    }
}

/// Takes what is pushed, from the first record on, until the subscription ends.
async fn subscribe(
    mut node: Node,
    stream: &str,
    from: Option<String>,
    mut note: impl FnMut(v1::SubscribeToShardEvent),
) -> Result<(), tonic::Status> {
    let kind = match from {
        None => v1::ShardIteratorType::TrimHorizon,
        Some(_) => v1::ShardIteratorType::AfterSequenceNumber,
    };
    let starting_position =
        v1::StartingPosition { r#type: kind as i32, sequence_number: from.unwrap_or_default(), timestamp_ms: 0 };
    let request = v1::SubscribeToShardRequest {
        stream_name: stream.into(),
        shard_id: SHARD.into(),
        starting_position: Some(starting_position),
        consumer: String::new(),
    };
    let mut events = timely(node.subscribe_to_shard(request)).await?.into_inner();
    while let Some(event) = timely(events.message()).await? {
        note(event);
    }
    Ok(())
}

fn bytes(records: &[v1::Record]) -> u64 {
    records.iter().map(|it| (it.data.len() + it.partition_key.len()) as u64).sum()
}

/// A call whose node may be killed meanwhile.
async fn timely<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, tonic::Status> {
    let late = |_| Err(tonic::Status::unavailable("no answer in time"));
    tokio::time::timeout(Duration::from_secs(6), call).await.unwrap_or_else(late)
}

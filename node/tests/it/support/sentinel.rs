//! Bad input must cost nobody anything: a stream written before, read back whole after, and
//! written on, through every node; and not one panic in the process meanwhile.

use std::sync::{Mutex, Once};

use braid_proto::google_rpc;
use braid_proto::v1;
use braid_proto::v1::braid_client::BraidClient;
use braid_proto::v1::{ErrorDetail, ShardIteratorType as Kind};
use prost::{Message, Name};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{BOUND, TestCluster};

pub type Client = BraidClient<Channel>;

const STREAM: &str = "sentinel";
const SHARD: &str = "shardId-000000000000";

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A gRPC channel to a listener of a node; connects at the first call.
pub fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

pub fn client(cluster: &TestCluster, node: usize) -> Client {
    BraidClient::new(channel(&cluster.configs[node].client_advertise))
        .max_decoding_message_size(16 << 20)
        .max_encoding_message_size(64 << 20)
}

/// The one detail of a status, as clients find it.
pub fn detail(status: &Status) -> Option<ErrorDetail> {
    let envelope = google_rpc::Status::decode(status.details()).ok()?;
    let any = envelope.details.iter().find(|any| any.type_url.ends_with(&ErrorDetail::full_name()))?;
    ErrorDetail::decode(any.value.as_slice()).ok()
}

pub fn put(stream: &str, key: &str, data: &str) -> v1::PutRecordRequest {
    v1::PutRecordRequest {
        stream_name: stream.into(),
        data: data.as_bytes().to_vec().into(),
        partition_key: key.into(),
        ..v1::PutRecordRequest::default()
    }
}

pub fn iterator(stream: &str, shard: &str, kind: Kind, number: &str) -> v1::GetShardIteratorRequest {
    v1::GetShardIteratorRequest {
        stream_name: stream.into(),
        shard_id: shard.into(),
        shard_iterator_type: kind as i32,
        starting_sequence_number: number.into(),
        timestamp_ms: 0,
    }
}

/// Creates a stream and waits until it can be written.
pub async fn create(client: &mut Client, name: &str, shards: u32) {
    let request =
        v1::CreateStreamRequest { stream_name: name.into(), shard_count: shards, ..v1::CreateStreamRequest::default() };
    client.create_stream(request).await.unwrap();
    until("the stream to be active", || {
        let mut client = client.clone();
        async move {
            let request = v1::DescribeStreamRequest { stream_name: name.into() };
            let stream = client.describe_stream(request).await.ok()?.into_inner().stream?;
            (stream.status() == v1::StreamStatus::Active).then_some(())
        }
    })
    .await;
}

/// Deletes a stream and waits until it is unknown.
pub async fn delete(client: &mut Client, name: &str) {
    client.delete_stream(v1::DeleteStreamRequest { stream_name: name.into() }).await.unwrap();
    until("the stream to be gone", || {
        let mut client = client.clone();
        async move {
            let request = v1::DescribeStreamRequest { stream_name: name.into() };
            client.describe_stream(request).await.is_err_and(|status| status.code() == Code::NotFound).then_some(())
        }
    })
    .await;
}

/// Waits for an answer that needs a call to find out.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(start.elapsed() < BOUND, "waited {BOUND:?} for {what}");
        braid_env::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// What must still be there.
pub struct Sentinel {
    written: Vec<(String, String)>,
}

impl Sentinel {
    /// A stream with records, and an eye on panics.
    pub async fn start(cluster: &TestCluster) -> Sentinel {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                PANICS.lock().unwrap_or_else(|e| e.into_inner()).push(info.to_string());
                before(info);
            }));
        });
        create(&mut client(cluster, 0), STREAM, 1).await;
        let mut sentinel = Sentinel { written: Vec::new() };
        for nth in 0..20 {
            sentinel.write(cluster, nth % 3).await;
        }
        sentinel
    }

    async fn write(&mut self, cluster: &TestCluster, node: usize) {
        let data = format!("sentinel {}", self.written.len());
        let number = until("a put to succeed", || {
            let (mut client, data) = (client(cluster, node), data.clone());
            // Only what certainly was not appended is put again.
            async move {
                match client.put_record(put(STREAM, "key", &data)).await {
                    Ok(answer) => Some(answer.into_inner().sequence_number),
                    Err(status) => {
                        let refused =
                            detail(&status).is_some_and(|it| it.retryable && it.outcome() == v1::Outcome::Refused);
                        assert!(refused, "{status:?}");
                        None
                    }
                }
            }
        })
        .await;
        self.written.push((number, data));
    }

    /// Everything is still there, through every node, and every node still takes records.
    pub async fn check(&mut self, cluster: &TestCluster, after: &str) {
        for node in 0..3 {
            let read = until("the sentinel's records", || read(client(cluster, node))).await;
            assert_eq!(read, self.written, "through node {} after {after}", node + 1);
            self.write(cluster, node).await;
        }
        let panics = PANICS.lock().unwrap_or_else(|e| e.into_inner());
        assert!(panics.is_empty(), "panicked after {after}: {panics:?}");
    }
}

async fn read(mut client: Client) -> Option<Vec<(String, String)>> {
    let request = iterator(STREAM, SHARD, Kind::TrimHorizon, "");
    let shard_iterator = client.get_shard_iterator(request).await.ok()?.into_inner().shard_iterator;
    let answer = client.get_records(v1::GetRecordsRequest { shard_iterator, limit: 0 }).await.ok()?.into_inner();
    let record = |it: v1::Record| (it.sequence_number, String::from_utf8(it.data.to_vec()).unwrap());
    Some(answer.records.into_iter().map(record).collect())
}

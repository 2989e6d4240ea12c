//! Calls of a public client, for tests in which nothing may be refused.

use std::time::{Duration, Instant};

use braid_proto::google_rpc;
use braid_proto::v1;
use braid_proto::v1::braid_client::BraidClient;
use braid_proto::v1::{ErrorDetail, ShardIteratorType as Kind};
use prost::Message;
use tonic::Status;
use tonic::transport::Channel;

use super::{BOUND, TestCluster};

pub type Client = BraidClient<Channel>;

pub async fn client(cluster: &TestCluster, node: usize) -> Client {
    let address = cluster.configs[node].client_advertise.clone();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    BraidClient::new(channel).max_decoding_message_size(16 << 20).max_encoding_message_size(16 << 20)
}

pub fn detail(status: &Status) -> ErrorDetail {
    let envelope = google_rpc::Status::decode(status.details()).unwrap();
    assert_eq!(envelope.details.len(), 1, "{status:?} has one detail");
    ErrorDetail::decode(envelope.details[0].value.as_slice()).unwrap()
}

/// Waits until a stream is there, or a change of it is over.
pub async fn settle(client: &mut Client, name: &str) -> v1::StreamDescription {
    let start = Instant::now();
    loop {
        let found = describe(client, name).await;
        if found.status() == v1::StreamStatus::Active {
            return found;
        }
        assert!(start.elapsed() < BOUND, "{name} is still {:?}", found.status());
        braid_env::time::sleep(Duration::from_millis(20)).await;
    }
}

/// As [`settle`], with what is to be seen of a change: the node that is asked may not have heard of it yet from the
/// catalog's leader, which made it.
pub async fn settle_as(
    client: &mut Client,
    name: &str,
    changed: impl Fn(&v1::StreamDescription) -> bool,
) -> v1::StreamDescription {
    let start = Instant::now();
    loop {
        let found = settle(client, name).await;
        if changed(&found) {
            return found;
        }
        assert!(start.elapsed() < BOUND, "not seen of {name}: {found:?}");
        braid_env::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn describe(client: &mut Client, name: &str) -> v1::StreamDescription {
    let request = v1::DescribeStreamRequest { stream_name: name.into() };
    client.describe_stream(request).await.unwrap().into_inner().stream.unwrap()
}

pub fn put(name: &str, key: &str, data: &str) -> v1::PutRecordRequest {
    v1::PutRecordRequest {
        stream_name: name.into(),
        data: data.as_bytes().to_vec().into(),
        partition_key: key.into(),
        ..v1::PutRecordRequest::default()
    }
}

pub fn entry(key: &str, data: &str) -> v1::PutRecordsRequestEntry {
    v1::PutRecordsRequestEntry {
        data: data.as_bytes().to_vec().into(),
        partition_key: key.into(),
        explicit_hash_key: String::new(),
    }
}

pub async fn iterator(client: &mut Client, name: &str, shard: &str, kind: Kind, number: &str, ms: u64) -> String {
    let request = v1::GetShardIteratorRequest {
        stream_name: name.into(),
        shard_id: shard.into(),
        shard_iterator_type: kind as i32,
        starting_sequence_number: number.into(),
        timestamp_ms: ms,
    };
    client.get_shard_iterator(request).await.unwrap().into_inner().shard_iterator
}

pub async fn get(client: &mut Client, iterator: &str, limit: u32) -> Result<v1::GetRecordsResponse, Status> {
    let request = v1::GetRecordsRequest { shard_iterator: iterator.into(), limit };
    Ok(client.get_records(request).await?.into_inner())
}

pub fn texts(records: &[v1::Record]) -> Vec<String> {
    records.iter().map(|it| String::from_utf8(it.data.to_vec()).unwrap()).collect()
}

pub async fn shards(client: &mut Client, name: &str) -> Vec<v1::Shard> {
    let request = v1::ListShardsRequest { stream_name: name.into(), ..v1::ListShardsRequest::default() };
    client.list_shards(request).await.unwrap().into_inner().shards
}

//! A table of requests that must be refused, and what each refusal must say.

use braid_proto::v1;
use braid_proto::v1::{ErrorReason as R, Outcome};
use tonic::{Code, Status};

use super::sentinel::{Client, Sentinel, client, detail};
use super::{BOUND, TestCluster};

/// A request of any call.
#[derive(Clone)]
pub enum Ask {
    Create(v1::CreateStreamRequest),
    Delete(&'static str),
    Describe(&'static str),
    ListStreams(v1::ListStreamsRequest),
    ListShards(v1::ListShardsRequest),
    Put(v1::PutRecordRequest),
    PutMany(v1::PutRecordsRequest),
    Iterator(v1::GetShardIteratorRequest),
    Get(v1::GetRecordsRequest),
    Subscribe(v1::SubscribeToShardRequest),
    Transfer(v1::TransferLeaderRequest),
    Update(v1::UpdateStreamRequest),
    Split(v1::SplitShardRequest),
    Merge(v1::MergeShardsRequest),
    Scale(v1::UpdateShardCountRequest),
}

impl Ask {
    pub async fn send(self, client: &mut Client) -> Result<(), Status> {
        match self {
            Ask::Create(it) => client.create_stream(it).await.map(drop),
            Ask::Delete(name) => {
                client.delete_stream(v1::DeleteStreamRequest { stream_name: name.into() }).await.map(drop)
            }
            Ask::Describe(name) => {
                client.describe_stream(v1::DescribeStreamRequest { stream_name: name.into() }).await.map(drop)
            }
            Ask::ListStreams(it) => client.list_streams(it).await.map(drop),
            Ask::ListShards(it) => client.list_shards(it).await.map(drop),
            Ask::Put(it) => client.put_record(it).await.map(drop),
            Ask::PutMany(it) => client.put_records(it).await.map(drop),
            Ask::Iterator(it) => client.get_shard_iterator(it).await.map(drop),
            Ask::Get(it) => client.get_records(it).await.map(drop),
            Ask::Subscribe(it) => client.subscribe_to_shard(it).await?.into_inner().message().await.map(drop),
            Ask::Transfer(it) => client.transfer_leader(it).await.map(drop),
            Ask::Update(it) => client.update_stream(it).await.map(drop),
            Ask::Split(it) => client.split_shard(it).await.map(drop),
            Ask::Merge(it) => client.merge_shards(it).await.map(drop),
            Ask::Scale(it) => client.update_shard_count(it).await.map(drop),
        }
    }
}

pub struct Row {
    pub name: &'static str,
    pub ask: Ask,
    pub code: Code,
    pub reason: R,
    pub field: &'static str,
    /// Words of the message: what was wrong, what is allowed.
    pub says: &'static [&'static str],
}

/// A row; `says` is what the message must contain.
pub fn row(
    name: &'static str,
    ask: Ask,
    (code, reason): (Code, R),
    field: &'static str,
    says: &'static [&'static str],
) -> Row {
    Row { name, ask, code, reason, field, says }
}

pub const INVALID: (Code, R) = (Code::InvalidArgument, R::InvalidArgument);
pub const NO_STREAM: (Code, R) = (Code::NotFound, R::StreamNotFound);
pub const NO_SHARD: (Code, R) = (Code::NotFound, R::ShardNotFound);
pub const ITERATOR: (Code, R) = (Code::InvalidArgument, R::IteratorInvalid);
pub const PAGE: (Code, R) = (Code::InvalidArgument, R::NextTokenInvalid);

impl Row {
    /// What of the answer is not as it must be.
    fn problems(&self, answer: Result<(), Status>) -> Vec<String> {
        let Err(status) = answer else { return vec!["was accepted".into()] };
        let Some(detail) = detail(&status) else { return vec![format!("has no detail: {status:?}")] };
        let mut problems = Vec::new();
        let mut differ = |what: &str, found: String, expected: String| {
            if found != expected {
                problems.push(format!("{what} is {found}, not {expected}: {:?}", status.message()));
            }
        };
        differ("code", format!("{:?}", status.code()), format!("{:?}", self.code));
        differ("reason", detail.reason().as_str_name().into(), self.reason.as_str_name().into());
        differ("field", detail.field.clone(), self.field.into());
        differ("outcome", detail.outcome().as_str_name().into(), Outcome::Refused.as_str_name().into());
        differ("retryable", detail.retryable.to_string(), "false".into());
        let text = status.message();
        problems.extend(
            self.says.iter().filter(|word| !text.contains(**word)).map(|word| format!("{text:?} has no {word:?}")),
        );
        if text.len() > 1_000 {
            problems.push(format!("a message of {} bytes echoes what was sent", text.len()));
        }
        problems
    }
}

/// Sends every row through every node. All that is wrong is said at once.
pub async fn check(cluster: &TestCluster, sentinel: &mut Sentinel, table: &str, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for node in 0..3 {
        let mut client = client(cluster, node);
        for row in &rows {
            let start = std::time::Instant::now();
            let answer = loop {
                let sent = braid_env::time::timeout(BOUND, row.ask.clone().send(&mut client));
                let answer = sent.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer at all")));
                // An election on a busy machine is nobody's fault.
                let electing = |status: &Status| {
                    detail(status).is_some_and(|it| matches!(it.reason(), R::NoLeader | R::NotLeader))
                };
                if start.elapsed() > BOUND || !answer.as_ref().is_err_and(electing) {
                    break answer;
                }
            };
            wrong
                .extend(row.problems(answer).iter().map(|it| format!("{}, through node {}: {it}", row.name, node + 1)));
        }
    }
    assert!(wrong.is_empty(), "{table}: {} problems\n{}", wrong.len(), wrong.join("\n"));
    sentinel.check(cluster, table).await;
}

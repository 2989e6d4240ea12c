//! Raw calls to one node, each with a deadline, each written into the history.
//!
//! Invariant: an outcome is refused only where an `ErrorDetail` says so; whatever came without one, or
//! not in time, is unknown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use braid_env::time;
use braid_proto::google_rpc;
use braid_proto::v1::braid_client::BraidClient;
use braid_proto::v1::{self, ErrorDetail, ErrorReason as Reason};
use braid_stream::{HashKey, HashRange, IteratorKind, SequenceNumber};
use braid_transport::{Channel, ChannelOptions};
use bytes::Bytes;
use prost::{Message, Name};
use tonic::{Request, Response, Status as GrpcStatus};

use crate::history::{
    Admin, AdminDone, Call, ClientId, Failed, Listing, Note, OpId, OpenAt, Order, Outcome, Page, PutCall, Recorder,
    Returned, Seen, ShardFacts, Status, StreamFacts, Via,
};
use crate::payload::Payload;

/// Answers hold up to 10 MiB of data; keys, numbers and framing of 10,000 records come on top.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Pages of one listing; no workload has as many shards or streams.
const PAGES_MAX: usize = 100;

/// The one place where a client of a node is made. The connection is made by the first call, and again
/// after it broke.
fn connect(address: &str) -> BraidClient<Channel> {
    let options =
        ChannelOptions { connect_timeout: Duration::from_secs(2), stream_window: 1 << 20, connection_window: 64 << 20 };
    let channel = Channel::lazy(address, options, None).expect("an endpoint is an address");
    BraidClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// Makes raw calls in the name of one client.
#[derive(Clone)]
pub struct NodeClient {
    pub recorder: Recorder,
    pub client: ClientId,
    endpoints: Arc<[Arc<str>]>,
    channels: Arc<Mutex<BTreeMap<Arc<str>, BraidClient<Channel>>>>,
    deadline: Duration,
}

/// How records are put.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PutStyle {
    /// PutRecord; for one record.
    Single,
    /// PutRecords.
    Batch { keep_order: bool },
}

/// An open subscription.
pub struct Subscription {
    pub op: OpId,
    events: tonic::Streaming<v1::SubscribeToShardEvent>,
}

impl NodeClient {
    pub fn new(recorder: &Recorder, client: ClientId, endpoints: &[String], deadline: Duration) -> NodeClient {
        let endpoints = endpoints.iter().map(|it| recorder.intern(it)).collect();
        NodeClient { recorder: recorder.clone(), client, endpoints, channels: Arc::default(), deadline }
    }

    /// The same client with other nodes to ask.
    pub fn among(&self, endpoints: &[String]) -> NodeClient {
        let endpoints = endpoints.iter().map(|it| self.recorder.intern(it)).collect();
        NodeClient { endpoints, ..self.clone() }
    }

    pub fn nodes(&self) -> usize {
        self.endpoints.len()
    }

    pub fn address(&self, node: usize) -> &Arc<str> {
        &self.endpoints[node % self.endpoints.len()]
    }

    /// Puts `call.records`, whose data is `data`.
    pub async fn put(&self, node: usize, call: PutCall, data: Vec<Bytes>, style: PutStyle) -> Arc<[Outcome]> {
        let stream_name = call.stream.to_string();
        let hash = |explicit: Option<HashKey>| explicit.map_or_else(String::new, |key| key.to_string());
        let entries: Vec<v1::PutRecordsRequestEntry> = call
            .records
            .iter()
            .zip(data)
            .map(|(sent, data)| v1::PutRecordsRequestEntry {
                data,
                partition_key: sent.key.to_string(),
                explicit_hash_key: hash(sent.explicit),
            })
            .collect();
        let count = entries.len();
        let op = self.invoke(node, Call::Put(Arc::new(call)));
        let outcomes = match (style, <[_; 1]>::try_from(entries)) {
            (PutStyle::Single, Ok([it])) => {
                let v1::PutRecordsRequestEntry { data, partition_key, explicit_hash_key } = it;
                let request = v1::PutRecordRequest {
                    stream_name,
                    data,
                    partition_key,
                    explicit_hash_key,
                    sequence_number_for_ordering: String::new(),
                };
                let put = |mut node: BraidClient<Channel>, request| async move { node.put_record(request).await };
                let outcome = match self.ask(node, request, put).await {
                    Ok(answer) => self.acked(op, &answer.shard_id, &answer.sequence_number),
                    Err(failed) => outcome_of(failed),
                };
                vec![outcome]
            }
            (_, entries) => {
                let records = entries.map_or_else(|entries| entries, Vec::from);
                let keep_order = style == PutStyle::Batch { keep_order: true };
                let request = v1::PutRecordsRequest { stream_name, records, keep_order };
                let put = |mut node: BraidClient<Channel>, request| async move { node.put_records(request).await };
                match self.ask(node, request, put).await {
                    Ok(answer) if answer.records.len() == count => {
                        answer.records.into_iter().map(|it| self.outcome(op, it)).collect()
                    }
                    Ok(answer) => {
                        let why = format!("{} results for {count} records", answer.records.len());
                        self.malformed(op, why.clone());
                        vec![Outcome::Unknown { why }; count]
                    }
                    Err(failed) => vec![outcome_of(failed); count],
                }
            }
        };
        let outcomes: Arc<[Outcome]> = outcomes.into();
        self.recorder.returned(op, Returned::Put(outcomes.clone()));
        outcomes
    }

    /// GetShardIterator: the call to name in [`NodeClient::records`], and the token.
    pub async fn iterator(
        &self,
        node: usize,
        stream: &str,
        shard: &str,
        kind: IteratorKind,
    ) -> Result<(OpId, String), Failed> {
        let names = (self.recorder.intern(stream), self.recorder.intern(shard));
        let op = self.invoke(node, Call::Iterator { stream: names.0, shard: names.1, kind });
        let (kind, number, timestamp_ms) = start_to_wire(kind);
        let request = v1::GetShardIteratorRequest {
            stream_name: stream.to_owned(),
            shard_id: shard.to_owned(),
            shard_iterator_type: kind.into(),
            starting_sequence_number: number,
            timestamp_ms,
        };
        let get = |mut node: BraidClient<Channel>, request| async move { node.get_shard_iterator(request).await };
        let answer = self.ask(node, request, get).await;
        let (returned, result) = match answer {
            Ok(answer) => (Returned::Begun, Ok((op, answer.shard_iterator))),
            Err(failed) => (Returned::Failed(failed.clone()), Err(failed)),
        };
        self.recorder.returned(op, returned);
        result
    }

    /// GetRecords: the page, and the token for the next one unless the shard has ended.
    pub async fn records(
        &self,
        node: usize,
        iterator: OpId,
        token: &str,
        limit: u32,
    ) -> Result<(Arc<Page>, Option<String>), Failed> {
        let op = self.invoke(node, Call::Records { iterator, limit });
        let request = v1::GetRecordsRequest { shard_iterator: token.to_owned(), limit };
        let get = |mut node: BraidClient<Channel>, request| async move { node.get_records(request).await };
        let (returned, result) = match self.ask(node, request, get).await {
            Ok(answer) => {
                let ended = answer.next_shard_iterator.is_empty();
                let page = Arc::new(Page {
                    records: self.seen(op, answer.records),
                    behind_ms: answer.millis_behind_latest,
                    ended: ended.then(|| self.children(&answer.child_shards)),
                    continuation: None,
                    missed: 0,
                });
                let next = (!ended).then_some(answer.next_shard_iterator);
                (Returned::Page(page.clone()), Ok((page, next)))
            }
            Err(failed) => (Returned::Failed(failed.clone()), Err(failed)),
        };
        self.recorder.returned(op, returned);
        result
    }

    /// SubscribeToShard.
    pub async fn subscribe(
        &self,
        node: usize,
        stream: &str,
        shard: &str,
        kind: IteratorKind,
    ) -> Result<Subscription, Failed> {
        let names = (self.recorder.intern(stream), self.recorder.intern(shard));
        let op = self.invoke(node, Call::Subscribe { stream: names.0, shard: names.1, kind });
        let (kind, sequence_number, timestamp_ms) = start_to_wire(kind);
        let request = v1::SubscribeToShardRequest {
            stream_name: stream.to_owned(),
            shard_id: shard.to_owned(),
            starting_position: Some(v1::StartingPosition { r#type: kind.into(), sequence_number, timestamp_ms }),
            consumer: String::new(),
        };
        let subscribe = |mut node: BraidClient<Channel>, request| async move { node.subscribe_to_shard(request).await };
        let (returned, result) = match self.ask(node, request, subscribe).await {
            Ok(events) => (Returned::Begun, Ok(Subscription { op, events })),
            Err(failed) => (Returned::Failed(failed.clone()), Err(failed)),
        };
        self.recorder.returned(op, returned);
        result
    }

    /// The next event of a subscription; `None` when it is over, however that came.
    pub async fn next_event(
        &self,
        subscription: &mut Subscription,
        shard: &Arc<str>,
        silence_max: Duration,
    ) -> Option<Page> {
        let op = subscription.op;
        let event = match time::timeout(silence_max, subscription.events.message()).await {
            Ok(Ok(Some(event))) => event,
            Ok(Ok(None)) => {
                self.recorder.returned(op, Returned::Ended);
                return None;
            }
            Ok(Err(status)) => {
                self.recorder.returned(op, Returned::Failed(failed_of(&status)));
                return None;
            }
            Err(_) => {
                let why = format!("no event within {} ms", silence_max.as_millis());
                self.recorder.returned(op, Returned::Failed(unknown(why)));
                return None;
            }
        };
        let page = Page {
            records: self.seen(op, event.records),
            behind_ms: event.millis_behind_latest,
            ended: event.end_of_shard.then(|| self.children(&event.child_shards)),
            continuation: match event.continuation_sequence_number.as_str() {
                "" => None,
                number => self.number(op, number),
            },
            missed: 0,
        };
        self.recorder.received(op, shard.clone(), page.clone());
        Some(page)
    }

    /// Gives a subscription up.
    pub fn unsubscribe(&self, subscription: Subscription) {
        self.recorder.returned(subscription.op, Returned::Ended);
    }

    pub async fn admin(&self, node: usize, call: Admin) -> Result<AdminDone, Failed> {
        let op = self.invoke(node, Call::Admin(call.clone()));
        let result = self.administer(node, op, call).await;
        self.recorder.returned(
            op,
            match &result {
                Ok(done) => Returned::Admin(done.clone()),
                Err(failed) => Returned::Failed(failed.clone()),
            },
        );
        result
    }

    async fn administer(&self, node: usize, op: OpId, call: Admin) -> Result<AdminDone, Failed> {
        type Node = BraidClient<Channel>;
        match call {
            Admin::Create { stream, shards, retention_ms } => {
                let request = v1::CreateStreamRequest {
                    stream_name: stream.to_string(),
                    shard_count: shards,
                    retention_ms,
                    ..v1::CreateStreamRequest::default()
                };
                let create = |mut node: Node, request| async move { node.create_stream(request).await };
                self.ask(node, request, create).await.map(|_| AdminDone::Accepted)
            }
            Admin::Update { stream, retention_ms } => {
                let request =
                    v1::UpdateStreamRequest { stream_name: stream.to_string(), retention_ms, ..Default::default() };
                let update = |mut node: Node, request| async move { node.update_stream(request).await };
                self.ask(node, request, update).await.map(|_| AdminDone::Accepted)
            }
            Admin::Split { stream, shard, at } => {
                let request = v1::SplitShardRequest {
                    stream_name: stream.to_string(),
                    shard_to_split: shard.to_string(),
                    new_starting_hash_key: at.map_or_else(String::new, |at| at.to_string()),
                };
                let split = |mut node: Node, request| async move { node.split_shard(request).await };
                self.ask(node, request, split).await.map(|_| AdminDone::Accepted)
            }
            Admin::Merge { stream, shard, adjacent } => {
                let request = v1::MergeShardsRequest {
                    stream_name: stream.to_string(),
                    shard_to_merge: shard.to_string(),
                    adjacent_shard_to_merge: adjacent.to_string(),
                };
                let merge = |mut node: Node, request| async move { node.merge_shards(request).await };
                self.ask(node, request, merge).await.map(|_| AdminDone::Accepted)
            }
            Admin::Scale { stream, shards, halves } => {
                let scaling = match halves {
                    true => v1::ScalingType::Halves,
                    false => v1::ScalingType::EqualShares,
                };
                let request = v1::UpdateShardCountRequest {
                    stream_name: stream.to_string(),
                    target_shard_count: shards,
                    scaling_type: scaling.into(),
                    unbounded: true,
                };
                let scale = |mut node: Node, request| async move { node.update_shard_count(request).await };
                self.ask(node, request, scale).await.map(|_| AdminDone::Accepted)
            }
            Admin::Autoscale { stream, bounds } => {
                let (min_shards, max_shards) = bounds.unwrap_or((0, 0));
                let request = v1::UpdateStreamRequest {
                    stream_name: stream.to_string(),
                    autoscale: Some(v1::Autoscale { min_shards, max_shards }),
                    ..Default::default()
                };
                let update = |mut node: Node, request| async move { node.update_stream(request).await };
                self.ask(node, request, update).await.map(|_| AdminDone::Accepted)
            }
            Admin::Delete { stream } => {
                let request = v1::DeleteStreamRequest { stream_name: stream.to_string() };
                let delete = |mut node: Node, request| async move { node.delete_stream(request).await };
                self.ask(node, request, delete).await.map(|_| AdminDone::Accepted)
            }
            Admin::Describe { stream } => {
                let request = v1::DescribeStreamRequest { stream_name: stream.to_string() };
                let describe = |mut node: Node, request| async move { node.describe_stream(request).await };
                match self.ask(node, request, describe).await?.stream {
                    Some(it) => Ok(AdminDone::Stream(self.stream_facts(&it))),
                    None => Err(self.nonsense(op, "no stream in the answer".to_owned())),
                }
            }
            Admin::ListStreams => self.list_streams(node, op).await,
            Admin::ListShards { stream } => self.list_shards(node, op, &stream, None).await,
            Admin::ListOpen { stream, at } => {
                use v1::shard_filter::Type;
                let (kind, timestamp_ms) = match at {
                    OpenAt::Latest => (Type::AtLatest, 0),
                    OpenAt::TrimHorizon => (Type::AtTrimHorizon, 0),
                    OpenAt::Time(ms) => (Type::AtTimestamp, ms),
                };
                let filter = v1::ShardFilter { r#type: kind.into(), timestamp_ms, ..Default::default() };
                self.list_shards(node, op, &stream, Some(filter)).await
            }
            Admin::TransferLeader { group, to } => {
                let request = v1::TransferLeaderRequest { group, to_node: to };
                let transfer = |mut node: Node, request| async move { node.transfer_leader(request).await };
                let answer = self.ask(node, request, transfer).await?;
                Ok(AdminDone::Transferred { leader: answer.leader_node, term: answer.term })
            }
            Admin::Drain { node: node_id, cancel } => {
                let request = v1::DrainNodeRequest { node_id, cancel, dry_run: false };
                let drain = |mut node: Node, request| async move { node.drain_node(request).await };
                self.ask(node, request, drain).await.map(|_| AdminDone::Accepted)
            }
            Admin::Rebalance => {
                let even = |mut node: Node, request| async move { node.rebalance(request).await };
                self.ask(node, v1::RebalanceRequest::default(), even).await.map(|_| AdminDone::Accepted)
            }
            Admin::SafeToStop { nodes: node_ids } => {
                let request = v1::SafeToStopRequest { node_ids, ..Default::default() };
                let may = |mut node: Node, request| async move { node.safe_to_stop(request).await };
                let answer = self.ask(node, request, may).await?;
                if answer.safe != answer.reasons.is_empty() {
                    return Err(self.nonsense(op, format!("safe: {}, because {:?}", answer.safe, answer.reasons)));
                }
                Ok(AdminDone::StopAnswered { reasons: answer.reasons })
            }
            Admin::ClusterStatus => self.groups_of(node).await.map(|_| AdminDone::Status),
        }
    }

    /// The data groups and the nodes of each, as this node sees them.
    pub async fn groups_of(&self, node: usize) -> Result<Vec<(u32, Vec<u64>)>, Failed> {
        let status = |mut node: BraidClient<Channel>, request| async move { node.cluster_status(request).await };
        let answer = self.ask(node, v1::ClusterStatusRequest {}, status).await?;
        let nodes = |it: &v1::GroupStatus| it.replicas.iter().map(|replica| replica.node_id).collect();
        Ok(answer.groups.iter().map(|it| (it.group, nodes(it))).collect())
    }

    async fn list_streams(&self, node: usize, op: OpId) -> Result<AdminDone, Failed> {
        let (mut streams, mut next_token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let request = v1::ListStreamsRequest { next_token, ..v1::ListStreamsRequest::default() };
            let list = |mut node: BraidClient<Channel>, request| async move { node.list_streams(request).await };
            let page = self.ask(node, request, list).await?;
            streams.extend(page.streams.iter().map(|it| self.stream_facts(it)));
            next_token = page.next_token;
            if next_token.is_empty() {
                return Ok(AdminDone::Streams(streams));
            }
        }
        Err(self.nonsense(op, format!("no last page after {PAGES_MAX}")))
    }

    async fn list_shards(
        &self,
        node: usize,
        op: OpId,
        stream: &str,
        filter: Option<v1::ShardFilter>,
    ) -> Result<AdminDone, Failed> {
        let (mut shards, mut next_token) = (Vec::new(), String::new());
        for nth in 0..PAGES_MAX {
            let request = v1::ListShardsRequest {
                stream_name: stream.to_owned(),
                max_results: 0,
                next_token,
                // Said once: the token knows.
                shard_filter: filter.clone().filter(|_| nth == 0),
            };
            let list = |mut node: BraidClient<Channel>, request| async move { node.list_shards(request).await };
            let page = self.ask(node, request, list).await?;
            for shard in &page.shards {
                match shard_facts(&self.recorder, shard) {
                    Ok(facts) => shards.push(facts),
                    Err(why) => return Err(self.nonsense(op, why)),
                }
            }
            next_token = page.next_token;
            if next_token.is_empty() {
                return Ok(AdminDone::Shards(Listing { shards, at_once: nth == 0 }));
            }
        }
        Err(self.nonsense(op, format!("no last page after {PAGES_MAX}")))
    }

    fn invoke(&self, node: usize, call: Call) -> OpId {
        self.recorder.invoke(self.client, Via::Node(self.address(node).clone()), call)
    }

    /// One attempt at a node, within the deadline.
    async fn ask<M, T, F, Fut>(&self, node: usize, message: M, send: F) -> Result<T, Failed>
    where
        F: FnOnce(BraidClient<Channel>, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<T>, GrpcStatus>>,
    {
        let address = self.address(node);
        let mut request = Request::new(message);
        let deadline = format!("{}m", self.deadline.as_millis()).parse().expect("digits and a unit are ascii");
        request.metadata_mut().insert("grpc-timeout", deadline);
        let answer = time::timeout(self.deadline, send(self.to(address), request)).await;
        match answer {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(failed_of(&status)),
            Err(_) => {
                // The connection may lead nowhere: silence looks the same.
                self.lock().remove(address);
                Err(unknown(format!("no answer within {} ms", self.deadline.as_millis())))
            }
        }
    }

    fn to(&self, address: &Arc<str>) -> BraidClient<Channel> {
        self.lock().entry(address.clone()).or_insert_with(|| connect(address)).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, BraidClient<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self, op: OpId, it: v1::PutRecordsResultEntry) -> Outcome {
        match it.outcome() {
            v1::Outcome::Appended => self.acked(op, &it.shard_id, &it.sequence_number),
            v1::Outcome::Refused => Outcome::Refused { reason: it.error_code() },
            v1::Outcome::Unknown => {
                Outcome::Unknown { why: format!("{}: {}", it.error_code().as_str_name(), it.error_message) }
            }
            v1::Outcome::Unspecified => {
                self.malformed(op, "a record's outcome is unspecified".to_owned());
                Outcome::Unknown { why: "unspecified".to_owned() }
            }
        }
    }

    fn acked(&self, op: OpId, shard: &str, number: &str) -> Outcome {
        match self.number(op, number) {
            Some(number) => Outcome::Acked { shard: self.recorder.intern(shard), number },
            None => Outcome::Unknown { why: "acknowledged at no place that there is".to_owned() },
        }
    }

    fn number(&self, op: OpId, text: &str) -> Option<SequenceNumber> {
        SequenceNumber::parse(text).map_err(|error| self.malformed(op, error.to_string())).ok()
    }

    fn seen(&self, op: OpId, records: Vec<v1::Record>) -> Vec<Seen> {
        let seen = |it: v1::Record| {
            Some(Seen {
                number: self.number(op, &it.sequence_number)?,
                arrival_ms: it.approximate_arrival_timestamp_ms,
                key: self.recorder.intern(&it.partition_key),
                size: u32::try_from(it.data.len() + it.partition_key.len()).unwrap_or(u32::MAX),
                payload: Payload::decode(&it.data),
            })
        };
        records.into_iter().filter_map(seen).collect()
    }

    fn children(&self, children: &[v1::ChildShard]) -> Vec<Arc<str>> {
        children.iter().map(|child| self.recorder.intern(&child.shard_id)).collect()
    }

    fn stream_facts(&self, it: &v1::StreamDescription) -> StreamFacts {
        StreamFacts {
            name: self.recorder.intern(&it.stream_name),
            status: match it.status() {
                v1::StreamStatus::Creating => Status::Creating,
                v1::StreamStatus::Active => Status::Active,
                v1::StreamStatus::Updating => Status::Updating,
                v1::StreamStatus::Deleting => Status::Deleting,
                v1::StreamStatus::Unspecified => Status::Odd,
            },
            created_ms: it.created_ms,
            retention_ms: it.retention_ms,
            open_shards: it.open_shard_count,
        }
    }

    fn nonsense(&self, op: OpId, why: String) -> Failed {
        self.malformed(op, why.clone());
        unknown(why)
    }

    fn malformed(&self, op: OpId, why: String) {
        self.recorder.note(Note::Malformed { op, why });
    }
}

/// A put call of records that are to be sent once each.
pub fn put_call(stream: &Arc<str>, records: Vec<crate::history::Sent>, style: PutStyle) -> PutCall {
    let order = match style {
        PutStyle::Single => Order::Free,
        PutStyle::Batch { keep_order: true } => Order::Kept,
        PutStyle::Batch { keep_order: false } => Order::InCall,
    };
    PutCall { stream: stream.clone(), records, order, once: true }
}

fn shard_facts(recorder: &Recorder, it: &v1::Shard) -> Result<ShardFacts, String> {
    let range = it.hash_key_range.as_ref().ok_or("a shard without a range")?;
    let key = |text: &str| HashKey::parse(text).map_err(|error| error.to_string());
    let range = HashRange::new(key(&range.starting_hash_key)?, key(&range.ending_hash_key)?);
    let numbers = it.sequence_number_range.as_ref().ok_or("a shard without sequence numbers")?;
    let number = |text: &str| SequenceNumber::parse(text).map_err(|error| error.to_string());
    let parents = [&it.parent_shard_id, &it.adjacent_parent_shard_id];
    Ok(ShardFacts {
        name: recorder.intern(&it.shard_id),
        range: range.map_err(|error| error.to_string())?,
        parents: parents.into_iter().filter(|name| !name.is_empty()).map(|name| recorder.intern(name)).collect(),
        starting: number(&numbers.starting_sequence_number)?,
        ending: match numbers.ending_sequence_number.as_str() {
            "" => None,
            text => Some(number(text)?),
        },
        group: it.group,
    })
}

fn start_to_wire(kind: IteratorKind) -> (v1::ShardIteratorType, String, u64) {
    use v1::ShardIteratorType as Type;
    match kind {
        IteratorKind::TrimHorizon => (Type::TrimHorizon, String::new(), 0),
        IteratorKind::Latest => (Type::Latest, String::new(), 0),
        IteratorKind::AtSequence(number) => (Type::AtSequenceNumber, number.to_string(), 0),
        IteratorKind::AfterSequence(number) => (Type::AfterSequenceNumber, number.to_string(), 0),
        IteratorKind::AtTimestamp(ms) => (Type::AtTimestamp, String::new(), ms),
    }
}

fn outcome_of(failed: Failed) -> Outcome {
    match failed.refused {
        true => Outcome::Refused { reason: failed.reason },
        false => Outcome::Unknown { why: failed.to_string() },
    }
}

fn unknown(why: String) -> Failed {
    Failed { refused: false, reason: Reason::Unspecified, shard: None, why }
}

fn failed_of(status: &GrpcStatus) -> Failed {
    match detail(status) {
        Some(detail) => Failed {
            refused: detail.outcome() == v1::Outcome::Refused,
            reason: detail.reason(),
            shard: None,
            why: status.message().to_owned(),
        },
        None => unknown(format!("{}: {}", status.code(), status.message())),
    }
}

/// The one `ErrorDetail` of a status.
fn detail(status: &GrpcStatus) -> Option<ErrorDetail> {
    let envelope = google_rpc::Status::decode(status.details()).ok()?;
    let any = envelope.details.iter().find(|any| any.type_url == ErrorDetail::type_url())?;
    ErrorDetail::decode(any.value.as_slice()).ok()
}

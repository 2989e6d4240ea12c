//! The client: knows several nodes, asks one, and turns to others when that one can't serve.
//!
//! Owns the retry rule of control calls: what certainly was not done is tried again (elsewhere,
//! later) until the call's time is up; what may have been done is tried again only if doing it
//! twice changes nothing. Deliberately not here: batching (`producer`), reading (`consumer`).

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use braid_env::{random, time};
use braid_probe::{Mark, reachable};
use braid_proto::v1;
use braid_proto::v1::braid_client::BraidClient;
use braid_stream::hash::HashKey;
use braid_transport::{Channel, ClientTls};
use tonic::{Response, Status};

use crate::backoff;
use crate::connections::{Connections, Purpose};
use crate::consumer::{Consumer, ConsumerError, ConsumerOptions};
use crate::failure::{CallError, Contact, Effect, Failure, Reason};
use crate::nodes::Nodes;
use crate::producer::{Producer, ProducerOptions};

/// How often a stream's status is looked at while waiting for it: creation takes a few Raft
/// round trips, so this adds little to it and 20 calls/s to the cluster.
const STATUS_POLL: Duration = Duration::from_millis(50);

/// Shards or streams asked for per page; the most the API gives.
const PAGE: u32 = 1_000;

/// Pages read at most in one listing: ten times the shards a stream can have. A server that
/// repeats a token would otherwise hold the call for ever.
const PAGES_MAX: usize = 100;

/// What endpoints of nodes with TLS begin with.
const SECURE: &str = "https://";

/// The group that control calls are about. Any node serves them; a node that can't says where
/// its leader is.
const CATALOG: u32 = 0;

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Making one connection may take this long.
    pub connect_timeout: Duration,
    /// One attempt of a call may take this long; after that its outcome is unknown. Should
    /// exceed an election (some seconds), or every leader change makes unknown outcomes.
    pub request_timeout: Duration,
    /// A control call is tried again, where that is safe, for this long altogether.
    pub call_timeout: Duration,
    /// Whom to believe where endpoints begin with `https://`.
    pub tls: Option<ClientTls>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            tls: None,
        }
    }
}

/// Settings of a stream to create; 0 means the cluster's default.
#[derive(Clone, Debug, Default)]
pub struct StreamSettings {
    /// How long records are kept, in ms.
    pub retention_ms: u64,
    /// Its limits.
    pub limits: Option<v1::StreamLimits>,
}

/// A client of one cluster. Cheap to clone; clones share connections and what was learned.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    options: ClientOptions,
    nodes: Nodes,
    connections: Connections,
}

impl Client {
    /// A client that knows the nodes at `endpoints` (each `host:port`, or `https://host:port` where the nodes have TLS)
    /// to begin with, and has reached one of them.
    ///
    /// # Errors
    /// No endpoint was given, one is malformed, some have TLS and others not, nobody is named to believe, or none was
    /// reached within `call_timeout`.
    pub async fn connect(endpoints: Vec<String>, options: ClientOptions) -> Result<Client, ConnectError> {
        if endpoints.is_empty() {
            return Err(ConnectError::NoEndpoints);
        }
        let secure = endpoints.iter().filter(|it| it.starts_with(SECURE)).count();
        let tls = match (secure, &options.tls) {
            (0, _) => None,
            (some, _) if some < endpoints.len() => return Err(ConnectError::MixedEndpoints),
            (_, None) => return Err(ConnectError::NobodyToBelieve),
            (_, Some(tls)) => Some(tls.clone()),
        };
        let bare =
            |it: &String| it.trim_start_matches(SECURE).trim_start_matches("http://").trim_end_matches('/').to_owned();
        let endpoints: Vec<String> = endpoints.iter().map(bare).collect();
        let connections = Connections::new(options.connect_timeout, tls);
        for endpoint in &endpoints {
            let well_formed =
                endpoint.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            if !well_formed || connections.to(endpoint, Purpose::Calls).is_err() {
                return Err(ConnectError::BadEndpoint(endpoint.clone()));
            }
        }
        let start = random::below(endpoints.len() as u64) as usize;
        let client = Client { shared: Arc::new(Shared { nodes: Nodes::new(endpoints, start), connections, options }) };
        client
            .call(Repeat::Harmless, |mut node| async move { node.node_status(v1::NodeStatusRequest {}).await })
            .await
            .map_err(|e| ConnectError::Unreachable(e.to_string()))?;
        Ok(client)
    }

    /// The addresses (`host:port`) that it was told of, and has learned.
    pub fn addresses(&self) -> Vec<String> {
        self.shared.nodes.addresses()
    }

    /// The generated client of the node at `address` (`host:port`), over a connection of its own: for tools that make
    /// calls themselves. It retries nothing.
    ///
    /// # Errors
    /// The address is malformed.
    pub fn node_at(&self, address: &str) -> Result<BraidClient<Channel>, ConnectError> {
        self.shared.connections.own(address).map_err(|_| ConnectError::BadEndpoint(address.to_owned()))
    }

    /// The settings it was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// Asks for a stream of `shard_count` shards. It is CREATING when this returns.
    ///
    /// # Errors
    /// Refused: the name is taken or malformed, or a limit is reached. Unknown: it may exist.
    pub async fn create_stream(
        &self,
        stream: &str,
        shard_count: u32,
        settings: StreamSettings,
    ) -> Result<(), CallError> {
        let request = v1::CreateStreamRequest {
            stream_name: stream.to_owned(),
            shard_count,
            retention_ms: settings.retention_ms,
            limits: settings.limits,
            ..v1::CreateStreamRequest::default()
        };
        self.call(Repeat::Harmful, |mut node| {
            let request = request.clone();
            async move { node.create_stream(request).await }
        })
        .await
        .map(drop)
    }

    /// Changes a stream's retention (milliseconds; 0 leaves it) and limits (`None` leaves them). It is UPDATING when
    /// this returns, and serves as before.
    ///
    /// # Errors
    /// Refused: no such stream, out of bounds, or the stream is not ACTIVE. Unknown: it may be changed; asking again
    /// does no harm.
    pub async fn update_stream(
        &self,
        stream: &str,
        retention_ms: u64,
        limits: Option<v1::StreamLimits>,
    ) -> Result<(), CallError> {
        self.update(v1::UpdateStreamRequest { stream_name: stream.to_owned(), retention_ms, limits, autoscale: None })
            .await
    }

    /// Has a stream scale by load within these bounds, or, with both 0, not any more.
    ///
    /// # Errors
    /// Refused: no such stream, or these are no bounds. Unknown: it may be so; asking again does no harm.
    pub async fn set_autoscale(&self, stream: &str, min_shards: u32, max_shards: u32) -> Result<(), CallError> {
        let autoscale = Some(v1::Autoscale { min_shards, max_shards });
        let stream_name = stream.to_owned();
        self.update(v1::UpdateStreamRequest { stream_name, retention_ms: 0, limits: None, autoscale }).await
    }

    async fn update(&self, request: v1::UpdateStreamRequest) -> Result<(), CallError> {
        self.call(Repeat::Harmless, |mut node| {
            let request = request.clone();
            async move { node.update_stream(request).await }
        })
        .await
        .map(drop)
    }

    /// Splits a shard: the upper child begins at hash key `at`, or in the middle. The stream is UPDATING when this
    /// returns, and serves as before.
    ///
    /// # Errors
    /// Refused: no such stream or shard, the shard is closed, `at` is not inside its range, or the stream is not
    /// ACTIVE. Unknown: it may be split.
    pub async fn split_shard(&self, stream: &str, shard: &str, at: Option<HashKey>) -> Result<(), CallError> {
        let request = v1::SplitShardRequest {
            stream_name: stream.to_owned(),
            shard_to_split: shard.to_owned(),
            new_starting_hash_key: at.map_or_else(String::new, |at| at.to_string()),
        };
        self.call(Repeat::Harmful, |mut node| {
            let request = request.clone();
            async move { node.split_shard(request).await }
        })
        .await
        .map(drop)
    }

    /// Merges two shards whose hash ranges are adjacent. The stream is UPDATING when this returns, and serves as
    /// before.
    ///
    /// # Errors
    /// As `split_shard`.
    pub async fn merge_shards(&self, stream: &str, shard: &str, adjacent: &str) -> Result<(), CallError> {
        let request = v1::MergeShardsRequest {
            stream_name: stream.to_owned(),
            shard_to_merge: shard.to_owned(),
            adjacent_shard_to_merge: adjacent.to_owned(),
        };
        self.call(Repeat::Harmful, |mut node| {
            let request = request.clone();
            async move { node.merge_shards(request).await }
        })
        .await
        .map(drop)
    }

    /// Asks for so many open shards with equal shares of the keys, within no bounds but the cluster's. The stream is
    /// UPDATING when this returns, and the cluster goes on by itself; `describe_stream` says how far it is.
    ///
    /// # Errors
    /// Refused: no such stream, 0 or too many shards, or the stream is not ACTIVE. Unknown: it may be on its way; its
    /// description says so.
    pub async fn update_shard_count(&self, stream: &str, shards: u32) -> Result<(), CallError> {
        let request = v1::UpdateShardCountRequest {
            stream_name: stream.to_owned(),
            target_shard_count: shards,
            scaling_type: v1::ScalingType::EqualShares as i32,
            unbounded: true,
        };
        self.call(Repeat::Harmful, |mut node| {
            let request = request.clone();
            async move { node.update_shard_count(request).await }
        })
        .await
        .map(drop)
    }

    /// What is written to and read from a stream's open shards, or from `shard` alone; the busiest first, at most
    /// `most`.
    ///
    /// # Errors
    /// Refused: no such stream or shard.
    pub async fn shard_loads(
        &self,
        stream: &str,
        shard: Option<&str>,
        most: u32,
    ) -> Result<v1::DescribeShardLoadsResponse, CallError> {
        let request = v1::DescribeShardLoadsRequest {
            stream_name: stream.to_owned(),
            shard_id: shard.unwrap_or_default().to_owned(),
            max_results: most,
        };
        self.call(Repeat::Harmless, |mut node| {
            let request = request.clone();
            async move { node.describe_shard_loads(request).await }
        })
        .await
    }

    /// Creates a stream and waits until it is ACTIVE, at most `call_timeout` after it exists.
    /// Where the creation's outcome is unknown, a stream of that name and that many shards is
    /// taken for the one asked for.
    ///
    /// # Errors
    /// As `create_stream`; Unavailable: it exists and is not ACTIVE in time.
    pub async fn create_and_wait_active(
        &self,
        stream: &str,
        shard_count: u32,
        settings: StreamSettings,
    ) -> Result<v1::StreamDescription, CallError> {
        let mut in_doubt = false;
        loop {
            match self.create_stream(stream, shard_count, settings.clone()).await {
                Ok(()) => break,
                Err(CallError::Unknown { .. }) if !in_doubt => in_doubt = true,
                Err(e) if in_doubt && e.reason() == Some(Reason::StreamExists) => {
                    let found = self.describe_stream(stream).await?;
                    match found.shard_count == shard_count {
                        true => break,
                        false => return Err(e),
                    }
                }
                Err(e) => return Err(e),
            }
        }
        self.wait_active(stream).await
    }

    /// Waits until a stream is ACTIVE, at most `call_timeout`.
    ///
    /// # Errors
    /// Refused: no such stream. Unavailable: not ACTIVE in time.
    pub async fn wait_active(&self, stream: &str) -> Result<v1::StreamDescription, CallError> {
        let deadline = Instant::now() + self.shared.options.call_timeout;
        loop {
            let found = self.describe_stream(stream).await?;
            if found.status() == v1::StreamStatus::Active {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(CallError::Unavailable {
                    message: format!(
                        "stream {stream:?} is {} after {} ms",
                        found.status().as_str_name(),
                        self.shared.options.call_timeout.as_millis()
                    ),
                });
            }
            time::sleep(STATUS_POLL).await;
        }
    }

    /// Deletes a stream and its records. It is DELETING when this returns.
    ///
    /// # Errors
    /// Refused: no such stream, or it is being created. Unknown: it may be deleted.
    pub async fn delete_stream(&self, stream: &str) -> Result<(), CallError> {
        self.call(Repeat::Harmful, |mut node| {
            let stream_name = stream.to_owned();
            async move { node.delete_stream(v1::DeleteStreamRequest { stream_name }).await }
        })
        .await
        .map(drop)
    }

    /// A stream's status and settings.
    ///
    /// # Errors
    /// Refused: no such stream.
    pub async fn describe_stream(&self, stream: &str) -> Result<v1::StreamDescription, CallError> {
        self.call(Repeat::Harmless, |mut node| {
            let stream_name = stream.to_owned();
            async move { node.describe_stream(v1::DescribeStreamRequest { stream_name }).await }
        })
        .await?
        .stream
        .ok_or_else(|| empty_answer("DescribeStream"))
    }

    /// All streams, in byte order of their names.
    ///
    /// # Errors
    /// Unavailable, or an answer that can't be used.
    pub async fn list_streams(&self) -> Result<Vec<v1::StreamDescription>, CallError> {
        let (mut streams, mut next_token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let request = v1::ListStreamsRequest { limit: PAGE, next_token, ..v1::ListStreamsRequest::default() };
            let page = self
                .call(Repeat::Harmless, |mut node| {
                    let request = request.clone();
                    async move { node.list_streams(request).await }
                })
                .await?;
            streams.extend(page.streams);
            next_token = page.next_token;
            if next_token.is_empty() {
                return Ok(streams);
            }
        }
        Err(endless("ListStreams"))
    }

    /// All shards of a stream whose records are still kept, in order of their ids. What the
    /// answer says about leaders is remembered.
    ///
    /// # Errors
    /// Refused: no such stream.
    pub async fn list_shards(&self, stream: &str) -> Result<Vec<v1::Shard>, CallError> {
        let (mut shards, mut next_token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let request = v1::ListShardsRequest {
                stream_name: stream.to_owned(),
                max_results: PAGE,
                next_token,
                shard_filter: None,
            };
            let page = self
                .call(Repeat::Harmless, |mut node| {
                    let request = request.clone();
                    async move { node.list_shards(request).await }
                })
                .await?;
            for shard in &page.shards {
                self.nodes().learn_leader(shard.group, &shard.leader_address);
            }
            shards.extend(page.shards);
            next_token = page.next_token;
            if next_token.is_empty() {
                return Ok(shards);
            }
        }
        Err(endless("ListShards"))
    }

    /// Whether a stream has a shard, or had it: not by a listing, which may be behind, but by the word of a node that made
    /// sure.
    pub(crate) async fn has_shard(&self, stream: &str, shard: &str) -> Result<bool, CallError> {
        let request = v1::GetShardIteratorRequest {
            stream_name: stream.to_owned(),
            shard_id: shard.to_owned(),
            shard_iterator_type: v1::ShardIteratorType::TrimHorizon.into(),
            ..v1::GetShardIteratorRequest::default()
        };
        let answer = self
            .call(Repeat::Harmless, |mut node| {
                let request = request.clone();
                async move { node.get_shard_iterator(request).await }
            })
            .await;
        match answer {
            Ok(_) | Err(CallError::Refused { reason: Reason::ShardForgotten, .. }) => Ok(true),
            Err(CallError::Refused { reason: Reason::ShardNotFound | Reason::InvalidArgument, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The cluster as one of its nodes sees it.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn cluster_status(&self) -> Result<v1::ClusterStatusResponse, CallError> {
        self.call(Repeat::Harmless, |mut node| async move { node.cluster_status(v1::ClusterStatusRequest {}).await })
            .await
    }

    /// What the node at `address` says of itself. Asks that node only, once.
    ///
    /// # Errors
    /// Unavailable, Unknown: it was not reached, or did not answer.
    pub async fn node_status(&self, address: &str) -> Result<v1::NodeStatusResponse, CallError> {
        self.ask(address, Purpose::Calls, |mut node| async move { node.node_status(v1::NodeStatusRequest {}).await })
            .await
            .map_err(CallError::from)
    }

    /// Gives every replica of a node that is gone for good to a new node in the same zone.
    ///
    /// # Errors
    /// Refused: either is not registered, another zone, the new one holds replicas.
    pub async fn replace_node(&self, from_node: u64, to_node: u64) -> Result<(), CallError> {
        let message = v1::ReplaceNodeRequest { from_node, to_node };
        self.call(Repeat::Harmless, |mut node| async move { node.replace_node(message).await }).await.map(drop)
    }

    /// Drains a node, or ends that; gives the moves that are to come.
    ///
    /// # Errors
    /// Refused: not registered, replaced or removed, or no other node can take a replica of it.
    pub async fn drain_node(&self, message: v1::DrainNodeRequest) -> Result<Vec<v1::ReplicaMove>, CallError> {
        let drained = self.call(Repeat::Harmless, |mut node| async move { node.drain_node(message).await }).await;
        drained.map(|it| it.planned_moves)
    }

    /// Takes a drained node out of the cluster for good.
    ///
    /// # Errors
    /// Refused: not registered, or it still has replicas.
    pub async fn remove_node(&self, node_id: u64) -> Result<(), CallError> {
        let message = v1::RemoveNodeRequest { node_id };
        self.call(Repeat::Harmless, |mut node| async move { node.remove_node(message).await }).await.map(drop)
    }

    /// Moves replicas to where fewer are, or ends that; gives the moves that are to come.
    pub async fn rebalance(&self, message: v1::RebalanceRequest) -> Result<Vec<v1::ReplicaMove>, CallError> {
        let begun = self.call(Repeat::Harmless, |mut node| async move { node.rebalance(message).await }).await;
        begun.map(|it| it.planned_moves)
    }

    /// Whether nodes can be stopped now.
    ///
    /// # Errors
    /// Refused: no such node or zone.
    pub async fn safe_to_stop(&self, message: v1::SafeToStopRequest) -> Result<v1::SafeToStopResponse, CallError> {
        self.call(Repeat::Harmless, |mut node| {
            let message = message.clone();
            async move { node.safe_to_stop(message).await }
        })
        .await
    }

    /// Moves a group's leadership to another of its replicas.
    ///
    /// # Errors
    /// Refused: no such group or replica. Unknown: it may yet take over.
    pub async fn transfer_leader(&self, group: u32, to_node: u64) -> Result<v1::TransferLeaderResponse, CallError> {
        self.call(Repeat::Harmful, |mut node| async move {
            node.transfer_leader(v1::TransferLeaderRequest { group, to_node }).await
        })
        .await
    }

    /// A producer for a stream.
    ///
    /// # Errors
    /// Refused: no such stream.
    pub async fn producer(&self, stream: &str, options: ProducerOptions) -> Result<Producer, CallError> {
        Producer::open(self.clone(), stream, options).await
    }

    /// A consumer of all shards of a stream.
    ///
    /// # Errors
    /// Refused: no such stream, or a starting position for a shard it doesn't have.
    pub async fn consumer(&self, stream: &str, options: ConsumerOptions) -> Result<Consumer, ConsumerError> {
        Consumer::open(self.clone(), stream, options).await
    }

    pub(crate) fn nodes(&self) -> &Nodes {
        &self.shared.nodes
    }

    /// One attempt at the node at `address`, within `request_timeout`, and what it teaches about
    /// that node. `send` is given a client of the node.
    pub(crate) async fn ask<T, F, Fut>(&self, address: &str, purpose: Purpose, send: F) -> Result<T, Failure>
    where
        F: FnOnce(BraidClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let shared = &self.shared;
        let node = shared.connections.to(address, purpose).map_err(|bad| {
            // Only a node can have told us such an address; nothing was sent to it.
            Failure::not_sent(format!("{:?} is not host:port", bad.0))
        });
        let limit = shared.options.request_timeout;
        let result = match node {
            Ok(node) => match time::timeout(limit, send(node)).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(Failure::of(&status)),
                Err(_) => Err(Failure::timed_out(limit)),
            },
            Err(failure) => Err(failure),
        };
        match result.as_ref().err().map(|failure| failure.contact) {
            None | Some(Contact::Answered) => shared.nodes.trust(address),
            // The channel connects anew by itself; if it can't, that is the next failure.
            Some(Contact::Broken) => {}
            Some(Contact::Unreachable) => self.lost_touch(address, purpose),
        }
        result
    }

    /// One attempt at the group's leader as far as known (at any node without a group), and what
    /// it teaches about who leads.
    pub(crate) async fn ask_group<T, F, Fut>(&self, group: Option<u32>, purpose: Purpose, send: F) -> Result<T, Failure>
    where
        F: FnOnce(BraidClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let address = self.nodes().address_for(group, Instant::now());
        let result = self.ask(&address, purpose, send).await;
        if let (Some(group), Err(failure)) = (group, &result) {
            self.learn_from(group, &address, failure);
        }
        result
    }

    /// What a failure at `address` says about who leads `group`.
    pub(crate) fn learn_from(&self, group: u32, address: &str, failure: &Failure) {
        let not_there = matches!(failure.reason, Reason::NotLeader | Reason::NoLeader | Reason::NodeStopping);
        match &failure.leader {
            Some(leader) => self.nodes().learn_leader(group, leader),
            None if not_there || !failure.is_answer() => self.nodes().forget_leader(group, address),
            None => {}
        }
    }

    /// The node at `address` did not answer: ask others for a while, and connect anew.
    pub(crate) fn lost_touch(&self, address: &str, purpose: Purpose) {
        self.shared.nodes.avoid(address, Instant::now());
        self.shared.connections.forget(address, purpose);
    }

    /// Attempts at one node after another until one succeeds, one is final, or time is up.
    async fn call<T, F, Fut>(&self, repeat: Repeat, send: F) -> Result<T, CallError>
    where
        F: Fn(BraidClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.shared.options.call_timeout;
        let mut attempt = 0;
        loop {
            let address = self.nodes().address_for(Some(CATALOG), Instant::now());
            let failure = match self.ask(&address, Purpose::Calls, &send).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let safe = failure.effect == Effect::NotDone || repeat == Repeat::Harmless;
            attempt += 1;
            let wait = backoff::wait(attempt, failure.retry_after, &mut random::below);
            if !safe || !failure.retryable || Instant::now() + wait >= deadline {
                return Err(match repeat {
                    Repeat::Harmful => failure.into(),
                    // Whether a read was carried out is of no interest.
                    Repeat::Harmless if failure.is_answer() => Failure { effect: Effect::NotDone, ..failure }.into(),
                    Repeat::Harmless => CallError::Unavailable { message: format!("{address}: {failure}") },
                });
            }
            reachable!(Mark::CallRetried);
            self.learn_from(CATALOG, &address, &failure);
            if failure.leader.is_none() {
                // It can't serve this now; another may, and asking it costs nothing.
                self.nodes().pass_over(&address);
            }
            time::sleep(wait).await;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// What carrying out a call twice does.
#[derive(Copy, Clone, Eq, PartialEq)]
enum Repeat {
    /// Nothing: reads.
    Harmless,
    /// Something: never repeated while its outcome is unknown.
    Harmful,
}

fn empty_answer(call: &str) -> CallError {
    CallError::Unavailable { message: format!("the answer to {call} lacks its content") }
}

fn endless(call: &str) -> CallError {
    CallError::Unavailable { message: format!("{call} had no last page after {PAGES_MAX} pages") }
}

/// Why there is no client.
#[derive(Clone, Debug)]
pub enum ConnectError {
    /// The list was empty.
    NoEndpoints,
    /// Not `host:port`.
    BadEndpoint(String),
    /// Some begin with `https://` and some do not: records would travel in clear text.
    MixedEndpoints,
    /// They begin with `https://`, and no CA is given.
    NobodyToBelieve,
    /// None of them answered.
    Unreachable(String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::NoEndpoints => f.write_str("no endpoint was given"),
            ConnectError::BadEndpoint(endpoint) => {
                write!(f, "endpoint {endpoint:?} is not host:port")
            }
            ConnectError::MixedEndpoints => f.write_str("either all endpoints begin with https://, or none"),
            ConnectError::NobodyToBelieve => f.write_str(
                "an endpoint begins with https://, and no CA is given that its certificate is to be signed by",
            ),
            ConnectError::Unreachable(why) => write!(f, "no endpoint answered: {why}"),
        }
    }
}

impl Error for ConnectError {}

//! A cluster in this process: several real gRPC servers over one made-up state.
//!
//! Owns what a node would do, as simply as can be, and faults on demand: refuse, hang, break the
//! connection after appending, move leadership, die, come back. It forwards nothing, so a client
//! that doesn't find leaders by itself fails its test.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use braid_proto::v1;
use braid_proto::v1::braid_server::BraidServer;
use braid_proto::v1::{ErrorDetail, ErrorReason as Reason, Outcome as WireOutcome};
use braid_stream::{HashKey, HashRange, Offset, SequenceNumber};
use bytes::Bytes;
use futures_util::StreamExt;
use prost::{Message, Name};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::Connected;
use tonic::{Code, Status};

mod service;

use service::Node;

pub const STREAM: &str = "orders";

/// What the next PutRecords call meets.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Refused whole, nothing appended.
    RefuseAll(Code, Reason),
    /// Records whose key is this one are throttled; what follows them in the shard too.
    Throttle(String),
    /// Appended; then the connection breaks.
    DropAfterCommit,
    /// Appended; no answer ever comes.
    HangAfterCommit,
    /// Nothing appended; the connection breaks all the same.
    DropBeforeCommit,
}

#[derive(Clone)]
pub struct Shard {
    pub id: String,
    pub index: u32,
    pub range: HashRange,
    pub group: u32,
    pub open: bool,
    pub parents: Vec<String>,
    /// Partition key and data, by offset.
    pub log: Vec<(String, Bytes)>,
}

#[derive(Default)]
pub struct State {
    pub exists: bool,
    pub shards: Vec<Shard>,
    /// Group → index of the leading node; absent while there is none.
    pub leaders: BTreeMap<u32, usize>,
    pub addresses: Vec<String>,
    pub faults: VecDeque<Fault>,
    /// PutRecords calls that appended something, or tried to, and records in each.
    pub put_calls: Vec<usize>,
    /// Shards with a PutRecords under way; each at most once.
    pub busy: Vec<String>,
    pub get_calls: usize,
    pub subscribes: bool,
    /// Subscriptions break after this many events with records, if set.
    pub subscription_events: Option<usize>,
    pub subscriptions: usize,
    /// The next GetRecords calls find their iterators expired.
    pub expire_iterators: usize,
    /// Records given in one answer or event at most.
    pub page: usize,
    /// How many shards the next ListShards calls know of: they go to nodes that are behind.
    pub listed: VecDeque<usize>,
    /// The next CreateStream creates and then says nothing.
    pub hang_create: bool,
}

pub struct Cluster {
    pub shared: Arc<Shared>,
    nodes: Vec<Running>,
}

pub struct Shared {
    state: Mutex<State>,
    /// Changes whenever the state does.
    version: watch::Sender<u64>,
    /// PutRecords waits while this is false.
    pub gate: watch::Sender<bool>,
    kills: Vec<watch::Sender<u64>>,
}

struct Running {
    address: std::net::SocketAddr,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn changed(&self) {
        self.version.send_modify(|v| *v += 1);
    }

    pub fn break_connections(&self, node: usize) {
        self.kills[node].send_modify(|v| *v += 1);
    }

    /// Waits until the state is as wanted; a minute at most.
    pub async fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) {
        let mut version = self.version.subscribe();
        let waiting = async {
            while !wanted(&self.state()) {
                version.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), waiting)
            .await
            .unwrap_or_else(|_| panic!("never happened: {what}"));
    }

    /// All records, key by key, in the order of shards and offsets.
    pub fn by_key(&self) -> BTreeMap<String, Vec<String>> {
        let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for shard in &self.state().shards {
            for (key, data) in &shard.log {
                let data = String::from_utf8(data.to_vec()).unwrap();
                by_key.entry(key.clone()).or_default().push(data);
            }
        }
        by_key
    }
}

impl Cluster {
    /// `nodes` nodes; a stream of `shards` shards in `groups` groups, led by turns.
    pub async fn start(nodes: usize, shards: u32, groups: u32) -> Cluster {
        let mut state = State { exists: true, subscribes: true, page: 100, ..State::default() };
        state.shards = HashRange::split_even(shards)
            .into_iter()
            .zip(0..)
            .map(|(range, index)| new_shard(index, range, index % groups + 1, Vec::new()))
            .collect();
        state.leaders = (1..=groups).map(|g| (g, g as usize % nodes)).collect();
        let mut listeners = Vec::new();
        for _ in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            state.addresses.push(listener.local_addr().unwrap().to_string());
            listeners.push(listener);
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            version: watch::Sender::new(0),
            gate: watch::Sender::new(true),
            kills: (0..nodes).map(|_| watch::Sender::new(0)).collect(),
        });
        let nodes = listeners
            .into_iter()
            .enumerate()
            .map(|(node, listener)| Running {
                address: listener.local_addr().unwrap(),
                serving: Some(serve(&shared, node, listener)),
            })
            .collect();
        Cluster { shared, nodes }
    }

    pub fn addresses(&self) -> Vec<String> {
        self.shared.state().addresses.clone()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// The node's process is gone: connections break, new ones are refused.
    pub async fn stop(&mut self, node: usize) {
        let serving = self.nodes[node].serving.take().expect("it runs");
        serving.abort();
        let _ = serving.await;
        self.shared.break_connections(node);
    }

    pub async fn restart(&mut self, node: usize) {
        let listener = TcpListener::bind(self.nodes[node].address).await.unwrap();
        self.nodes[node].serving = Some(serve(&self.shared, node, listener));
    }

    /// Splits the shard at `index` in the middle.
    pub fn split(&self, index: usize) {
        let mut state = self.state();
        let next = state.shards.len() as u32;
        let groups = state.leaders.len() as u32;
        let parent = &mut state.shards[index];
        parent.open = false;
        let (start, end) = (parent.range.start(), parent.range.end());
        let middle = start.0 + (end.0 - start.0) / 2;
        let parents = vec![parent.id.clone()];
        let low = HashRange::new(start, HashKey(middle)).unwrap();
        let high = HashRange::new(HashKey(middle + 1), end).unwrap();
        for (index, range) in [(next, low), (next + 1, high)] {
            let child = new_shard(index, range, index % groups + 1, parents.clone());
            state.shards.push(child);
        }
        drop(state);
        self.shared.changed();
    }

    /// Appends without a client.
    pub fn append(&self, key: &str, data: &str) {
        let mut state = self.state();
        let hash = HashKey::of_partition_key(key);
        let shard = state.shard_of(hash);
        let record = (key.to_owned(), Bytes::copy_from_slice(data.as_bytes()));
        state.shards[shard].log.push(record);
        drop(state);
        self.shared.changed();
    }
}

fn new_shard(index: u32, range: HashRange, group: u32, parents: Vec<String>) -> Shard {
    Shard { id: format!("shardId-{index:012}"), index, range, group, open: true, parents, log: Vec::new() }
}

impl State {
    fn shard_of(&self, hash: HashKey) -> usize {
        self.shards.iter().position(|s| s.open && s.range.contains(hash)).expect("open ranges tile")
    }

    fn shard(&self, id: &str) -> Result<&Shard, Status> {
        self.shards.iter().find(|s| s.id == id).ok_or_else(|| refuse(Code::NotFound, Reason::ShardNotFound, id))
    }

    fn leader_address(&self, group: u32) -> String {
        let leader = self.leaders.get(&group);
        leader.map_or_else(String::new, |node| self.addresses[*node].clone())
    }

    fn lead_check(&self, node: usize, group: u32) -> Result<(), Status> {
        match self.leaders.get(&group) {
            Some(leader) if *leader == node => Ok(()),
            leader => {
                let reason = leader.map_or(Reason::NoLeader, |_| Reason::NotLeader);
                let detail = ErrorDetail { leader_address: self.leader_address(group), ..detail_of(reason) };
                Err(status(Code::Unavailable, "not here", detail))
            }
        }
    }

    fn children_of(&self, shard: &Shard) -> Vec<v1::ChildShard> {
        self.shards
            .iter()
            .filter(|s| s.parents.contains(&shard.id))
            .map(|s| v1::ChildShard { shard_id: s.id.clone(), parent_shards: s.parents.clone(), hash_key_range: None })
            .collect()
    }
}

impl Shard {
    fn number(&self, offset: usize) -> String {
        SequenceNumber {
            created_s: 1 + u64::from(self.index),
            shard_index: self.index,
            offset: Offset(offset as u64),
            arrival_s: 1,
        }
        .to_string()
    }

    fn records(&self, from: usize, page: usize) -> Vec<v1::Record> {
        let slice = self.log.iter().enumerate().skip(from).take(page);
        slice
            .map(|(offset, (key, data))| v1::Record {
                sequence_number: self.number(offset),
                approximate_arrival_timestamp_ms: 1_000,
                data: data.clone(),
                partition_key: key.clone(),
            })
            .collect()
    }

    fn place(&self, kind: i32, number: &str) -> usize {
        let offset = || SequenceNumber::parse(number).unwrap().offset.0 as usize;
        match v1::ShardIteratorType::try_from(kind).unwrap() {
            v1::ShardIteratorType::Latest => self.log.len(),
            v1::ShardIteratorType::AtSequenceNumber => offset(),
            v1::ShardIteratorType::AfterSequenceNumber => offset() + 1,
            _ => 0,
        }
    }
}

fn detail_of(reason: Reason) -> ErrorDetail {
    let retryable =
        matches!(reason, Reason::NotLeader | Reason::NoLeader | Reason::Overloaded | Reason::IteratorExpired);
    ErrorDetail { reason: reason.into(), retryable, outcome: WireOutcome::Refused.into(), ..Default::default() }
}

fn refuse(code: Code, reason: Reason, message: &str) -> Status {
    status(code, message, detail_of(reason))
}

fn status(code: Code, message: &str, detail: ErrorDetail) -> Status {
    let envelope = braid_proto::google_rpc::Status {
        code: code as i32,
        message: message.to_owned(),
        details: vec![prost_types::Any { type_url: ErrorDetail::type_url(), value: detail.encode_to_vec() }],
    };
    Status::with_details(code, message, envelope.encode_to_vec().into())
}

fn serve(shared: &Arc<Shared>, node: usize, listener: TcpListener) -> tokio::task::JoinHandle<()> {
    let kill = shared.kills[node].clone();
    let incoming =
        TcpListenerStream::new(listener).map(move |tcp| tcp.map(|tcp| Breakable::new(tcp, kill.subscribe())));
    let service = BraidServer::new(Node { shared: Arc::clone(shared), node }).max_decoding_message_size(16 << 20);
    tokio::spawn(async move {
        // Without tonic's router: there is one service.
        let server = tonic::transport::Server::builder();
        let _ = server.serve_with_incoming(service, incoming).await;
    })
}

/// A connection that breaks when told.
struct Breakable {
    tcp: TcpStream,
    broken: bool,
    told: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Breakable {
    fn new(tcp: TcpStream, mut kill: watch::Receiver<u64>) -> Breakable {
        kill.mark_unchanged();
        let told = Box::pin(async move {
            let _ = kill.changed().await;
        });
        Breakable { tcp, broken: false, told }
    }
}

impl Connected for Breakable {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Breakable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.broken || self.told.as_mut().poll(cx).is_ready() {
            self.broken = true;
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

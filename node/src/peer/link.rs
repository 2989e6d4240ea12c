//! The streams to a peer: requests out, replies matched by id.
//!
//! A peer is reached over one connection with two streams. The *bulk* lane carries entries, the
//! *control* lane heartbeats and votes, so that a heartbeat never waits behind megabytes of
//! records.
//!
//! Invariant: requests leave in the order of [`Links::send`]; a request is answered, or fails when
//! its stream breaks. Nothing is sent again: whether a broken stream's requests took effect is for
//! the caller (openraft) to find out.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use braid_env::{task, time};
use braid_probe::{Bug, Mark, planted, reachable};
use braid_proto::peer::peer_client::PeerClient;
use braid_proto::peer::{Kind, PeerFrame};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::dial::dial;
use super::directory::Directory;

/// Requests that may wait for one stream; openraft's own pipelining is far below.
const QUEUE: usize = 256;

/// How long a peer that could not be reached is left alone: a dead peer costs one connection
/// attempt per interval and not one per heartbeat of every group.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A stream that owes an answer and on which nothing was heard for this long is half open.
const SILENCE: Duration = Duration::from_secs(3);

/// The largest message between nodes: the entries of one AppendEntries, with room for one entry
/// of the largest size.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Which of a peer's two streams a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Entries.
    Bulk,
    /// Heartbeats, votes, leadership transfers.
    Control,
}

/// Why a request to a peer has no answer.
#[derive(Clone, Debug)]
pub enum LinkError {
    /// It was not sent.
    Unreachable(String),
    /// It may have been sent; the stream broke before the answer.
    Broken(String),
    /// The peer refused it and did nothing.
    Refused(String),
    /// No answer in time; it may still take effect.
    Timeout,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Unreachable(why) => write!(f, "peer unreachable: {why}"),
            LinkError::Broken(why) => write!(f, "stream to peer broke: {why}"),
            LinkError::Refused(why) => write!(f, "peer refused: {why}"),
            LinkError::Timeout => write!(f, "no answer from peer in time"),
        }
    }
}

impl std::error::Error for LinkError {}

/// Ordered: when a stream breaks, those who wait are told one after the other.
type Replies = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Result<Bytes, LinkError>>>>>;

type SilentSince = Arc<Mutex<Option<time::Instant>>>;

#[derive(Clone)]
struct Stream {
    out: mpsc::Sender<PeerFrame>,
    replies: Replies,
    /// Since when the peer has answered nothing of what it was asked.
    silent_since: SilentSince,
    /// Ends the stream.
    kill: Arc<Notify>,
}

enum State {
    /// No stream, and none before the given time.
    Down {
        until: Option<time::Instant>,
        why: String,
    },
    Up(Stream),
}

/// One lane to one peer; shared with the task that runs its stream.
type LaneState = Arc<Mutex<State>>;

/// Every stream this node has opened to others.
pub struct Links {
    directory: Directory,
    next_request: AtomicU64,
    lanes: Mutex<BTreeMap<(u64, Lane), LaneState>>,
}

/// An answer to come. Dropping it forgets the request.
pub struct PendingReply {
    rx: oneshot::Receiver<Result<Bytes, LinkError>>,
    request_id: u64,
    stream: Stream,
}

impl PendingReply {
    /// Waits for the answer, `deadline` at most.
    pub async fn within(self, deadline: Duration) -> Result<Bytes, LinkError> {
        time::timeout(deadline, self).await.unwrap_or(Err(LinkError::Timeout))
    }
}

impl Drop for PendingReply {
    /// Whoever gives up an answer may find that nothing at all was answered for three seconds. Then the stream ends:
    /// the other end may be gone without a word. Here, and not where a deadline passes: callers have their own.
    fn drop(&mut self) {
        let given_up = self.stream.replies.lock().expect("no panic while locked").remove(&self.request_id).is_some();
        let silent_since = *self.stream.silent_since.lock().expect("no panic while locked");
        let silent = silent_since.is_some_and(|since| since.elapsed() > SILENCE);
        if given_up && silent && !planted(Bug::SilentStreamKept) {
            reachable!(Mark::SilentStreamEnded);
            self.stream.kill.notify_one();
        }
    }
}

impl Future for PendingReply {
    type Output = Result<Bytes, LinkError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.rx).poll(cx).map(|r| r.unwrap_or_else(|_| Err(LinkError::Broken("stream closed".into()))))
    }
}

impl Drop for Links {
    /// Ends every stream; what is unanswered on them fails.
    fn drop(&mut self) {
        for lane in self.lanes.lock().expect("no panic while locked").values() {
            if let State::Up(stream) = &*lane.lock().expect("no panic while locked") {
                stream.kill.notify_one();
            }
        }
    }
}

impl Links {
    /// No stream is opened before the first request.
    pub fn new(directory: Directory) -> Arc<Links> {
        Arc::new(Links { directory, next_request: AtomicU64::new(1), lanes: Mutex::default() })
    }

    /// The nodes and this node's identity.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Sends a request and waits for its answer, `deadline` at most.
    pub async fn call(
        &self,
        to: u64,
        lane: Lane,
        group: u32,
        kind: Kind,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, LinkError> {
        let start = time::Instant::now();
        let sent = time::timeout(deadline, self.send(to, lane, group, kind, body, Vec::new()));
        let pending = sent.await.unwrap_or(Err(LinkError::Timeout))?;
        pending.within(deadline.saturating_sub(start.elapsed())).await
    }

    /// Puts a request on the stream; the answer comes through the returned future. Waits only
    /// while the stream's queue is full.
    pub async fn send(
        &self,
        to: u64,
        lane: Lane,
        group: u32,
        kind: Kind,
        body: Bytes,
        entries: Vec<Bytes>,
    ) -> Result<PendingReply, LinkError> {
        let peer =
            self.directory.get(to).ok_or_else(|| LinkError::Unreachable(format!("node {to} is not registered")))?;
        let stream = self.stream(to, lane, &peer.peer_address)?;
        let me = self.directory.me();
        let request_id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let frame = PeerFrame {
            request_id,
            group,
            from_node: me.node,
            from_incarnation: me.incarnation,
            cluster_id: Bytes::copy_from_slice(&me.cluster),
            to_node: to,
            to_incarnation: peer.incarnation,
            kind: kind as i32,
            body,
            entries,
        };
        let (tx, rx) = oneshot::channel();
        stream.replies.lock().expect("no panic while locked").insert(request_id, tx);
        stream.silent_since.lock().expect("no panic while locked").get_or_insert_with(time::Instant::now);
        let out = stream.out.clone();
        let pending = PendingReply { rx, request_id, stream };
        match out.send(frame).await {
            Ok(()) => Ok(pending),
            Err(_) => Err(LinkError::Unreachable("stream closed".into())),
        }
    }

    fn stream(&self, to: u64, lane: Lane, address: &str) -> Result<Stream, LinkError> {
        let state = {
            let mut lanes = self.lanes.lock().expect("no panic while locked");
            lanes
                .entry((to, lane))
                .or_insert_with(|| Arc::new(Mutex::new(State::Down { until: None, why: String::new() })))
                .clone()
        };
        let mut s = state.lock().expect("no panic while locked");
        match &*s {
            State::Up(stream) if !stream.out.is_closed() => {
                return Ok(stream.clone());
            }
            State::Down { until: Some(until), why } if time::Instant::now() < *until => {
                return Err(LinkError::Unreachable(why.clone()));
            }
            _ => {}
        }
        let (out, rx) = mpsc::channel(QUEUE);
        let stream = Stream {
            out,
            replies: Replies::default(),
            silent_since: SilentSince::default(),
            kill: Arc::new(Notify::new()),
        };
        *s = State::Up(stream.clone());
        drop(s);
        task::spawn(run_stream(
            address.to_string(),
            rx,
            stream.replies.clone(),
            stream.silent_since.clone(),
            stream.kill.clone(),
            state,
        ));
        Ok(stream)
    }
}

/// One stream from its connection to its end; whatever is still unanswered then fails.
async fn run_stream(
    address: String,
    rx: mpsc::Receiver<PeerFrame>,
    replies: Replies,
    silent_since: SilentSince,
    kill: Arc<Notify>,
    state: Arc<Mutex<State>>,
) {
    let pump = open_and_pump(&address, rx, &replies, &silent_since);
    let silent = kill.notified();
    let (pump, silent) = (std::pin::pin!(pump), std::pin::pin!(silent));
    let why = match select(pump, silent).await {
        Either::Left((Ok(()), _)) => "closed by the peer".to_string(),
        Either::Left((Err(why), _)) => why,
        Either::Right(_) => format!("nothing heard for {} ms", SILENCE.as_millis()),
    };
    *state.lock().expect("no panic while locked") =
        State::Down { until: Some(time::Instant::now() + RETRY_AFTER), why: why.clone() };
    let unanswered = std::mem::take(&mut *replies.lock().expect("no panic while locked"));
    for (_, tx) in unanswered {
        let _ = tx.send(Err(LinkError::Broken(why.clone())));
    }
}

async fn open_and_pump(
    address: &str,
    rx: mpsc::Receiver<PeerFrame>,
    replies: &Replies,
    silent_since: &Mutex<Option<time::Instant>>,
) -> Result<(), String> {
    let channel = dial(address).await.map_err(|e| e.to_string())?;
    let mut client = PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let mut answers =
        client.connect(ReceiverStream::new(rx)).await.map_err(|status| status.message().to_string())?.into_inner();
    while let Some(frame) = answers.next().await {
        let frame = frame.map_err(|status| status.message().to_string())?;
        let (waiting, others) = {
            let mut replies = replies.lock().expect("no panic while locked");
            (replies.remove(&frame.request_id), !replies.is_empty())
        };
        *silent_since.lock().expect("no panic while locked") = others.then(time::Instant::now);
        // Nobody waits where the caller's deadline has passed.
        let Some(tx) = waiting else { continue };
        let _ = tx.send(match frame.kind() {
            Kind::Reply => Ok(frame.body),
            Kind::Error => Err(LinkError::Refused(String::from_utf8_lossy(&frame.body).into_owned())),
            kind => Err(LinkError::Refused(format!("answered with {}", kind.as_str_name()))),
        });
    }
    Ok(())
}

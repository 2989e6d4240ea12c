//! The service at the receiving end of a peer's streams.
//!
//! Invariant: appends of one group are given to Raft in the order in which they arrived on their
//! stream; everything else runs beside them. Each frame's identity is checked before its body is
//! looked at.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use braid_env::task;
use braid_env::watch;
use braid_probe::{Mark, reachable};
use braid_proto::peer::peer_server::Peer;
use braid_proto::peer::{
    FoundReply, FoundRequest, HelloReply, HelloRequest, JoinReply, JoinRequest, Kind, PeerFrame, SnapshotChunk,
    SnapshotReply,
};
use braid_stream::ids::GroupId;
use bytes::{Bytes, BytesMut};
use futures_util::future::{poll_immediate, select};
use futures_util::stream::FuturesOrdered;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::clock::{self, NodeClock};
use crate::control::{Membership, on_propose};
use crate::replication::{GroupReplica, Groups, RaftHandle, wire};

use super::directory::{Directory, NotHeard};

/// Replies waiting for a slow peer; beyond it the stream is not read further.
const REPLIES: usize = 256;

/// Appends of one group that are handed to Raft and not answered yet, per stream.
const APPENDS_IN_FLIGHT: usize = 64;

/// The largest state a snapshot may have: far above 100,000 shards, and below what would take a
/// node's memory.
const SNAPSHOT_BYTES_MAX: usize = 1 << 30;

/// The peer service of one node.
#[derive(Clone)]
pub struct PeerService {
    membership: Arc<Membership>,
    clock: NodeClock,
    stopping: watch::Receiver<bool>,
}

impl PeerService {
    /// A service that answers for `membership`'s node until `stopping` says true.
    pub fn new(membership: Arc<Membership>, clock: NodeClock, stopping: watch::Receiver<bool>) -> PeerService {
        PeerService { membership, clock, stopping }
    }

    /// The groups and the directory, once this node belongs to a cluster.
    fn member(&self) -> Result<(Directory, Arc<Groups>), Status> {
        self.membership.joined().ok_or_else(|| Status::unavailable("this node does not belong to a cluster yet"))
    }
}

/// What the first chunk says: the leader's vote and the snapshot's last log id.
type SnapshotHead = (crate::replication::Vote, crate::replication::LogId);

type FrameStream = Pin<Box<dyn Stream<Item = Result<PeerFrame, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type ConnectStream = FrameStream;

    async fn connect(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<FrameStream>, Status> {
        let (directory, groups) = self.member()?;
        let (tx, rx) = mpsc::channel(REPLIES);
        let (service, mut stopping) = (self.clone(), self.stopping.clone());
        task::spawn(async move {
            let serve = std::pin::pin!(service.serve_stream(request.into_inner(), tx, directory, groups));
            let stopped = std::pin::pin!(stopping.wait_for(|stop| *stop));
            // A peer keeps its stream open for ever: the node that stops ends it.
            select(serve, stopped).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx).map(Ok))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotReply>, Status> {
        let (directory, groups) = self.member()?;
        let body = receive_snapshot(request.into_inner(), &directory, &groups).await?;
        Ok(Response::new(SnapshotReply { body }))
    }

    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        self.membership.on_hello(request.into_inner()).await.map(Response::new)
    }

    async fn found(&self, request: Request<FoundRequest>) -> Result<Response<FoundReply>, Status> {
        self.membership.on_found(request.into_inner()).await.map(Response::new)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        self.membership.on_join(request.into_inner()).await.map(Response::new)
    }
}

impl PeerService {
    /// Reads one stream to its end.
    async fn serve_stream(
        &self,
        mut frames: Streaming<PeerFrame>,
        replies: mpsc::Sender<PeerFrame>,
        directory: Directory,
        groups: Arc<Groups>,
    ) {
        // Ordered: at the stream's end the pipelines are closed one after the other.
        let mut pipelines: BTreeMap<u32, Pipeline> = BTreeMap::new();
        while let Some(Ok(frame)) = frames.next().await {
            let from = (frame.from_node, frame.from_incarnation);
            let to = (frame.to_node, frame.to_incarnation);
            if let Err(why) = directory.check(&frame.cluster_id, from, to) {
                reachable!(Mark::PeerRefused);
                tracing::warn!("peer frame refused: {why}");
                if let NotHeard::Stranger(node) = why {
                    self.membership.inquire(node);
                }
                if replies.send(error(&frame, why.to_string())).await.is_err() {
                    return;
                }
                continue;
            }
            if frame.kind() == Kind::Clock {
                if replies.send(reply(&frame, clock::answer(&self.clock))).await.is_err() {
                    return;
                }
                continue;
            }
            let Some(replica) = groups.replica(GroupId(frame.group)) else {
                let why = format!("group {} has no replica on this node", frame.group);
                if replies.send(error(&frame, why)).await.is_err() {
                    return;
                }
                continue;
            };
            if frame.kind() == Kind::Append {
                // A group that left this node and came back is another replica.
                let known = pipelines.remove(&frame.group).filter(|it| it.replica.ptr_eq(&Arc::downgrade(&replica)));
                let pipeline = known.unwrap_or_else(|| Pipeline::start(&replica, &replies));
                let group = frame.group;
                if pipeline.frames.send(frame).await.is_err() {
                    return;
                }
                pipelines.insert(group, pipeline);
            } else {
                let (replies, groups) = (replies.clone(), groups.clone());
                task::spawn(async move {
                    let answer = match answer(&replica, &groups, &frame).await {
                        Ok(body) => reply(&frame, body),
                        Err(why) => error(&frame, why),
                    };
                    let _ = replies.send(answer).await;
                });
            }
        }
    }
}

/// The way of one group's appends to its replica.
struct Pipeline {
    replica: Weak<GroupReplica>,
    frames: mpsc::Sender<PeerFrame>,
}

impl Pipeline {
    fn start(replica: &Arc<GroupReplica>, replies: &mpsc::Sender<PeerFrame>) -> Pipeline {
        let (frames, rx) = mpsc::channel(APPENDS_IN_FLIGHT);
        task::spawn(run_appends(rx, replica.raft().clone(), replies.clone()));
        Pipeline { replica: Arc::downgrade(replica), frames }
    }
}

/// Hands one group's appends to Raft in order and sends the answers as they come.
async fn run_appends(mut rx: mpsc::Receiver<PeerFrame>, raft: RaftHandle, replies: mpsc::Sender<PeerFrame>) {
    let mut in_flight = FuturesOrdered::new();
    loop {
        let frame = if in_flight.is_empty() {
            rx.recv().await
        } else if in_flight.len() >= APPENDS_IN_FLIGHT {
            if !send_next(&mut in_flight, &replies).await {
                return;
            }
            continue;
        } else {
            // Whichever comes first: a further append, or the oldest one's answer.
            tokio::select! {
                biased;
                frame = rx.recv() => frame,
                answer = in_flight.next() => {
                    let Some(answer) = answer else { continue };
                    if replies.send(answer).await.is_err() {
                        return;
                    }
                    continue;
                }
            }
        };
        let Some(mut frame) = frame else { break };
        let entries = std::mem::take(&mut frame.entries);
        let raft = raft.clone();
        let mut work = Box::pin(async move {
            let rpc = match wire::decode_append(&frame.body, entries) {
                Ok(rpc) => rpc,
                Err(e) => return error(&frame, e.to_string()),
            };
            match raft.append_entries(rpc).await {
                Ok(response) => reply(&frame, wire::encode_append_reply(&response)),
                Err(e) => error(&frame, e.to_string()),
            }
        });
        // The first poll puts the request into Raft's queue, which fixes its place in the order.
        match poll_immediate(&mut work).await {
            Some(answer) => in_flight.push_back(futures_util::future::Either::Left(std::future::ready(answer))),
            None => in_flight.push_back(futures_util::future::Either::Right(work)),
        }
    }
    while !in_flight.is_empty() {
        if !send_next(&mut in_flight, &replies).await {
            return;
        }
    }
}

async fn send_next<F: Future<Output = PeerFrame>>(
    in_flight: &mut FuturesOrdered<F>,
    replies: &mpsc::Sender<PeerFrame>,
) -> bool {
    match in_flight.next().await {
        Some(answer) => replies.send(answer).await.is_ok(),
        None => true,
    }
}

async fn answer(replica: &GroupReplica, groups: &Groups, frame: &PeerFrame) -> Result<Bytes, String> {
    let bad = |e: wire::WireError| e.to_string();
    let raft = replica.raft();
    match frame.kind() {
        Kind::Vote => {
            let rpc = wire::decode_vote(&frame.body).map_err(bad)?;
            let r = match replica.refuses(&rpc) {
                Some(refusal) => refusal,
                None => raft.vote(rpc).await.map_err(|e| e.to_string())?,
            };
            Ok(wire::encode_vote_reply(&r))
        }
        Kind::PreVote => {
            let rpc = wire::decode_vote(&frame.body).map_err(bad)?;
            let r = match replica.refuses(&rpc) {
                Some(refusal) => refusal,
                None => raft.pre_vote(rpc).await.map_err(|e| e.to_string())?,
            };
            Ok(wire::encode_vote_reply(&r))
        }
        Kind::TransferLeader => {
            let req = wire::decode_transfer(&frame.body).map_err(bad)?;
            replica.has_what_it_had()?;
            reachable!(Mark::LeadershipOffered);
            let r = raft.handle_transfer_leader(req).await.map_err(|e| e.to_string())?;
            Ok(wire::encode_transfer_reply(&r))
        }
        Kind::MayLead => replica.may_lead().map(|()| Bytes::new()),
        Kind::Propose => on_propose(groups, frame.group, frame.body.clone()).await,
        Kind::CatalogIndex => groups.catalog().ok_or("the catalog is not open here")?.index_told().await,
        kind => Err(format!("{} is not a request", kind.as_str_name())),
    }
}

async fn receive_snapshot(
    mut chunks: Streaming<SnapshotChunk>,
    directory: &Directory,
    groups: &Groups,
) -> Result<Bytes, Status> {
    let mut head: Option<(RaftHandle, SnapshotHead)> = None;
    let mut data = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if head.is_none() {
            let from = (chunk.from_node, chunk.from_incarnation);
            let to = (chunk.to_node, chunk.to_incarnation);
            let heard = directory.check(&chunk.cluster_id, from, to);
            heard.map_err(|why| Status::failed_precondition(why.to_string()))?;
            let raft = groups
                .replica(GroupId(chunk.group))
                .map(|replica| replica.raft().clone())
                .ok_or_else(|| Status::unavailable(format!("group {} has no replica here", chunk.group)))?;
            let decoded =
                wire::decode_snapshot_head(&chunk.meta).map_err(|e| Status::invalid_argument(e.to_string()))?;
            head = Some((raft, decoded));
        }
        if data.len() + chunk.data.len() > SNAPSHOT_BYTES_MAX {
            return Err(Status::resource_exhausted(format!("snapshot above {SNAPSHOT_BYTES_MAX} bytes")));
        }
        data.extend_from_slice(&chunk.data);
        if chunk.last {
            let (raft, (vote, last)) = head.expect("set by the first chunk");
            reachable!(Mark::SnapshotReceived);
            let installed = crate::replication::install_snapshot(&raft, vote, last, data.freeze()).await;
            return installed.map_err(Status::internal);
        }
    }
    Err(Status::aborted("the snapshot's stream ended before its last chunk"))
}

fn reply(to: &PeerFrame, body: Bytes) -> PeerFrame {
    answer_frame(to, Kind::Reply, body)
}

fn error(to: &PeerFrame, why: String) -> PeerFrame {
    answer_frame(to, Kind::Error, Bytes::from(why))
}

fn answer_frame(to: &PeerFrame, kind: Kind, body: Bytes) -> PeerFrame {
    PeerFrame { request_id: to.request_id, group: to.group, kind: kind as i32, body, ..Default::default() }
}

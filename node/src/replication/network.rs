//! openraft's network over the links between nodes.
//!
//! Invariant: appends to one follower are pipelined and answered in order; every wait has a hard
//! deadline; a pre-vote is really asked (a network that omits it would grant it).

use std::sync::Arc;
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_proto::peer::peer_client::PeerClient;
use braid_proto::peer::{Kind, SnapshotChunk};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream::{self, FuturesOrdered, Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::entry::RaftEntry;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, RPCTypes};

use super::lease::Answered;
use super::raft::{CommittedLeaderId, Member, TypeConfig, Vote};
use super::wire;
use crate::peer::{Lane, LinkError, Links, dial};

/// Appends on their way to one follower before the oldest is answered: with at most 2 MiB each it
/// bounds what a slow follower can hold in this node's memory.
const APPENDS_IN_FLIGHT: usize = 16;

/// A follower answers an append after its fsync; beyond this it counts as gone.
const APPEND_DEADLINE: Duration = Duration::from_secs(5);

/// A new replica gets its whole state in this time, or the attempt is given up and begun again.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(120);

/// Bytes of state per message of a snapshot.
const SNAPSHOT_CHUNK: usize = 1 << 20;

type RaftSnapshot = openraft::Snapshot<CommittedLeaderId, u64, Member, Bytes>;

/// Makes the clients of one group.
#[derive(Clone)]
pub struct Network {
    links: Arc<Links>,
    group: u32,
    answered: Arc<Answered>,
}

impl Network {
    /// The network of `group`'s replica on this node, which notes in `answered` what followers have answered.
    pub fn new(links: Arc<Links>, group: u32, answered: Arc<Answered>) -> Network {
        Network { links, group, answered }
    }

    fn client(&self, target: u64, lane: Lane) -> Client {
        Client { links: self.links.clone(), group: self.group, answered: self.answered.clone(), target, lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _member: &Member) -> Client {
        self.client(target, Lane::Bulk)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _member: &Member) -> Client {
        self.client(target, Lane::Control)
    }
}

/// Requests of one group to one peer.
pub struct Client {
    links: Arc<Links>,
    group: u32,
    answered: Arc<Answered>,
    target: u64,
    lane: Lane,
}

impl Client {
    fn error(&self, action: RPCTypes, e: LinkError) -> RPCError<TypeConfig> {
        match e {
            LinkError::Unreachable(why) => RPCError::Unreachable(Unreachable::new(&AnyError::error(why))),
            LinkError::Refused(why) => {
                RPCError::Unreachable(Unreachable::new(&AnyError::error(format!("refused: {why}"))))
            }
            LinkError::Broken(why) => RPCError::Network(NetworkError::new(&AnyError::error(why))),
            LinkError::Timeout => RPCError::Timeout(Timeout {
                action,
                id: self.links.directory().me().node,
                target: self.target,
                timeout: APPEND_DEADLINE,
            }),
        }
    }

    /// The answer to an append of a leader of `term`, which was not sent before `sent`.
    fn append_answer(
        &self,
        body: &Bytes,
        term: u64,
        sent: Instant,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let response = wire::decode_append_reply(body).map_err(Self::garbled)?;
        if matches!(response, AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_)) {
            self.answered.note(self.target, term, sent);
        }
        Ok(response)
    }

    fn garbled(e: wire::WireError) -> RPCError<TypeConfig> {
        RPCError::Network(NetworkError::new(&e))
    }

    async fn request(
        &self,
        action: RPCTypes,
        kind: Kind,
        body: Bytes,
        option: &RPCOption,
    ) -> Result<Bytes, RPCError<TypeConfig>> {
        // Votes travel beside the entries, or an election would wait for the load that delays it.
        self.links
            .call(self.target, Lane::Control, self.group, kind, body, option.soft_ttl())
            .await
            .map_err(|e| self.error(action, e))
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = if rpc.entries.is_empty() { option.soft_ttl() } else { APPEND_DEADLINE };
        let (term, sent) = (rpc.vote.leader_id.term, Instant::now());
        let (body, entries) = wire::encode_append(&rpc);
        let lane = self.lane;
        let answer = async {
            let pending = self.links.send(self.target, lane, self.group, Kind::Append, body, entries).await?;
            pending.within(deadline).await
        };
        let answer = time::timeout(deadline, answer).await.unwrap_or(Err(LinkError::Timeout));
        let body = answer.map_err(|e| self.error(RPCTypes::AppendEntries, e))?;
        self.append_answer(&body, term, sent)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let pipeline = Pipeline { client: self, input: Some(input), in_flight: FuturesOrdered::new(), ended: false };
        let boxed: BoxStream<'s, _> = Box::pin(stream::unfold(pipeline, |mut p| async move {
            let answer = p.next().await?;
            Some((answer, p))
        }));
        Box::pin(std::future::ready(Ok(boxed)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = self.request(RPCTypes::Vote, Kind::Vote, wire::encode_vote(&rpc), &option).await?;
        wire::decode_vote_reply(&body).map_err(Self::garbled)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = self.request(RPCTypes::Vote, Kind::PreVote, wire::encode_vote(&rpc), &option).await?;
        wire::decode_vote_reply(&body).map_err(Self::garbled)
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body =
            self.request(RPCTypes::TransferLeader, Kind::TransferLeader, wire::encode_transfer(&req), &option).await?;
        wire::decode_transfer_reply(&body).map_err(Self::garbled)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = time::timeout(SNAPSHOT_DEADLINE, self.send_snapshot(vote, snapshot));
        let (sending, cancel) = (std::pin::pin!(sending), std::pin::pin!(cancel));
        match select(sending, cancel).await {
            Either::Left((Ok(sent), _)) => {
                sent.map_err(|e| StreamingError::Unreachable(Unreachable::new(&AnyError::error(e))))
            }
            Either::Left((Err(_), _)) => Err(StreamingError::Timeout(Timeout {
                action: RPCTypes::InstallSnapshot,
                id: self.links.directory().me().node,
                target: self.target,
                timeout: SNAPSHOT_DEADLINE,
            })),
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }
}

/// Appends under way to one follower: sent one after the other, answered in order.
struct Pipeline<'s, S> {
    client: &'s Client,
    /// `None` once openraft has no more.
    input: Option<S>,
    in_flight: FuturesOrdered<BoxFuture<'s, Answer>>,
    /// The first failure, conflict or partial success ends the stream: what was sent behind it was
    /// built on a premise that no longer holds.
    ended: bool,
}

/// An answer, and whether it covers the whole request.
type Answer = Result<(StreamAppendResult<TypeConfig>, bool), RPCError<TypeConfig>>;

impl<'s, S> Pipeline<'s, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
        if self.ended {
            return None;
        }
        loop {
            let room = self.in_flight.len() < APPENDS_IN_FLIGHT;
            match self.input.as_mut().filter(|_| room) {
                None if self.in_flight.is_empty() => return None,
                None => break,
                Some(input) if self.in_flight.is_empty() => match input.next().await {
                    Some(rpc) => self.send(rpc).await,
                    None => self.input = None,
                },
                // Whichever comes first: a further request, or the oldest one's answer.
                Some(input) => match select(input.next(), self.in_flight.next()).await {
                    Either::Left((Some(rpc), _)) => self.send(rpc).await,
                    Either::Left((None, _)) => self.input = None,
                    Either::Right((answer, _)) => return answer.map(|a| self.settle(a)),
                },
            }
        }
        let answer = self.in_flight.next().await;
        answer.map(|a| self.settle(a))
    }

    fn settle(&mut self, answer: Answer) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        match answer {
            Ok((result, whole)) => {
                self.ended = result.is_err() || !whole;
                Ok(result)
            }
            Err(e) => {
                self.ended = true;
                Err(e)
            }
        }
    }

    async fn send(&mut self, rpc: AppendEntriesRequest<TypeConfig>) {
        let client = self.client;
        let prev = rpc.prev_log_id;
        let last = rpc.entries.last().map(|e| e.log_id()).or(prev);
        let (term, began) = (rpc.vote.leader_id.term, Instant::now());
        let (body, entries) = wire::encode_append(&rpc);
        let sent = client.links.send(client.target, client.lane, client.group, Kind::Append, body, entries).await;
        self.in_flight.push_back(Box::pin(async move {
            let answer = match sent {
                Ok(pending) => pending.within(APPEND_DEADLINE).await,
                Err(e) => Err(e),
            };
            sometimes!(matches!(answer, Err(LinkError::Timeout)), Mark::AppendTimedOut);
            if matches!(answer, Err(LinkError::Timeout | LinkError::Broken(_))) && planted(Bug::LostAppendCounted) {
                return Ok((AppendEntriesResponse::Success.into_stream_result(prev, last), true));
            }
            let body = answer.map_err(|e| client.error(RPCTypes::AppendEntries, e))?;
            let response = client.append_answer(&body, term, began)?;
            sometimes!(matches!(response, AppendEntriesResponse::Conflict), Mark::AppendConflict);
            let whole = !matches!(&response, AppendEntriesResponse::PartialSuccess(to) if *to != last);
            Ok((response.into_stream_result(prev, last), whole))
        }));
    }
}

impl Client {
    async fn send_snapshot(&self, vote: Vote, snapshot: RaftSnapshot) -> Result<SnapshotResponse<TypeConfig>, String> {
        let last = snapshot.meta.last_log_id.ok_or("the snapshot has no log id")?;
        let directory = self.links.directory();
        let peer = directory.get(self.target).ok_or_else(|| format!("node {} is not registered", self.target))?;
        let channel = dial(&peer.peer_address).await.map_err(|e| e.to_string())?;
        let mut client = PeerClient::new(channel);
        let me = directory.me().clone();
        let (group, to_node, to_incarnation) = (self.group, self.target, peer.incarnation);
        let head = wire::encode_snapshot_head(&vote, last);
        let bytes = snapshot.snapshot;
        let count = bytes.len().div_ceil(SNAPSHOT_CHUNK).max(1);
        let chunks = stream::iter((0..count).map(move |i| {
            let end = ((i + 1) * SNAPSHOT_CHUNK).min(bytes.len());
            SnapshotChunk {
                group,
                from_node: me.node,
                from_incarnation: me.incarnation,
                cluster_id: Bytes::copy_from_slice(&me.cluster),
                to_node,
                to_incarnation,
                meta: if i == 0 { head.clone() } else { Bytes::new() },
                data: bytes.slice(i * SNAPSHOT_CHUNK..end),
                last: i + 1 == count,
            }
        }));
        let reply = client.install_snapshot(chunks).await.map_err(|s| s.message().to_string())?;
        reachable!(Mark::SnapshotSent);
        let vote = wire::decode_vote_only(&reply.into_inner().body).map_err(|e| e.to_string())?;
        Ok(SnapshotResponse::new(vote))
    }
}

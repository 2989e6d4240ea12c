//! The bodies of Raft's messages between nodes.
//!
//! Invariant: what goes to the network is what goes to the disk: an entry travels as its frame
//! header and its payload, untouched, and the receiver checks both checksums before it appends.
//! The few fixed fields around them are postcard, behind a version byte.

use std::fmt;

use braid_log::{Entry as LogEntry, LogId as BraidLogId};
use braid_probe::{Bug, planted};
use bytes::{BufMut, Bytes, BytesMut};
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::raft::{Entry, LogId, TypeConfig, Vote, from_log_id, from_log_vote, to_log_id, to_log_vote};

const VERSION: u8 = 1;

/// Why a message could not be read.
#[derive(Debug)]
pub enum WireError {
    /// Sent by another version of Braid.
    Version(u8),
    /// Not decodable, or a checksum does not match.
    Malformed(String),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Version(v) => {
                write!(f, "peer message has version {v}; this build speaks version {VERSION}")
            }
            WireError::Malformed(why) => write!(f, "malformed peer message: {why}"),
        }
    }
}

impl std::error::Error for WireError {}

#[derive(Serialize, Deserialize, Clone, Copy)]
struct Id(u64, u64);

#[derive(Serialize, Deserialize, Clone, Copy)]
struct VoteRepr {
    term: u64,
    node: u64,
    committed: bool,
}

fn id(id: LogId) -> Id {
    let id = to_log_id(id);
    Id(id.term, id.index)
}

fn un_id(id: Id) -> LogId {
    from_log_id(BraidLogId { term: id.0, index: id.1 })
}

fn vote(vote: &Vote) -> VoteRepr {
    let v = to_log_vote(vote);
    VoteRepr { term: v.term, node: v.node, committed: v.committed }
}

fn un_vote(v: VoteRepr) -> Vote {
    from_log_vote(braid_log::Vote { term: v.term, node: v.node, committed: v.committed })
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut out = vec![VERSION];
    out.extend(postcard::to_stdvec(value).expect("encoding into memory cannot fail"));
    Bytes::from(out)
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| WireError::Malformed(e.to_string())),
        Some((&v, _)) => Err(WireError::Version(v)),
        None => Err(WireError::Malformed("no bytes".into())),
    }
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: VoteRepr,
    prev: Option<Id>,
    commit: Option<Id>,
}

/// An AppendEntries request as a body and its entries, each one frame.
pub fn encode_append(rpc: &AppendEntriesRequest<TypeConfig>) -> (Bytes, Vec<Bytes>) {
    let mut commit = rpc.leader_commit.map(id);
    if planted(Bug::CommitAhead) {
        commit = rpc.entries.last().map(|e| id(e.log_id())).or(commit);
    }
    let head = encode(&AppendHead { vote: vote(&rpc.vote), prev: rpc.prev_log_id.map(id), commit });
    let entries = rpc.entries.iter().map(|e| frame(e.as_log())).collect();
    (head, entries)
}

fn frame(entry: &LogEntry) -> Bytes {
    let mut out = BytesMut::with_capacity(entry.wire_len());
    out.put_slice(&entry.wire_header());
    out.put_slice(entry.payload());
    out.freeze()
}

/// Decodes an AppendEntries request and checks every entry's checksums.
pub fn decode_append(body: &[u8], entries: Vec<Bytes>) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let head: AppendHead = decode(body)?;
    let entries = entries
        .into_iter()
        .map(|mut frame| {
            LogEntry::decode_wire(&mut frame).map(Entry::from_log).map_err(|e| WireError::Malformed(e.to_string()))
        })
        .collect::<Result<_, _>>()?;
    Ok(AppendEntriesRequest {
        vote: un_vote(head.vote),
        prev_log_id: head.prev.map(un_id),
        entries,
        leader_commit: head.commit.map(un_id),
    })
}

#[derive(Serialize, Deserialize)]
enum AppendReply {
    Success,
    Partial(Option<Id>),
    Conflict,
    HigherVote(VoteRepr),
}

/// Encodes the answer to AppendEntries.
pub fn encode_append_reply(reply: &AppendEntriesResponse<TypeConfig>) -> Bytes {
    encode(&match reply {
        AppendEntriesResponse::Success => AppendReply::Success,
        AppendEntriesResponse::PartialSuccess(to) => AppendReply::Partial(to.map(id)),
        AppendEntriesResponse::Conflict => AppendReply::Conflict,
        AppendEntriesResponse::HigherVote(v) => AppendReply::HigherVote(vote(v)),
    })
}

/// Decodes the answer to AppendEntries.
pub fn decode_append_reply(body: &[u8]) -> Result<AppendEntriesResponse<TypeConfig>, WireError> {
    Ok(match decode(body)? {
        AppendReply::Success => AppendEntriesResponse::Success,
        AppendReply::Partial(to) => AppendEntriesResponse::PartialSuccess(to.map(un_id)),
        AppendReply::Conflict => AppendEntriesResponse::Conflict,
        AppendReply::HigherVote(v) => AppendEntriesResponse::HigherVote(un_vote(v)),
    })
}

#[derive(Serialize, Deserialize)]
struct VoteBody {
    vote: VoteRepr,
    last: Option<Id>,
    leadership_transfer: bool,
}

/// Encodes a vote or pre-vote request.
pub fn encode_vote(rpc: &VoteRequest<TypeConfig>) -> Bytes {
    encode(&VoteBody {
        vote: vote(&rpc.vote),
        last: rpc.last_log_id.map(id),
        leadership_transfer: rpc.leadership_transfer,
    })
}

/// Decodes a vote or pre-vote request.
pub fn decode_vote(body: &[u8]) -> Result<VoteRequest<TypeConfig>, WireError> {
    let b: VoteBody = decode(body)?;
    let mut rpc = VoteRequest::new(un_vote(b.vote), b.last.map(un_id));
    rpc.leadership_transfer = b.leadership_transfer;
    Ok(rpc)
}

#[derive(Serialize, Deserialize)]
struct VoteReply {
    vote: VoteRepr,
    granted: bool,
    last: Option<Id>,
}

/// Encodes the answer to a vote or pre-vote.
pub fn encode_vote_reply(reply: &VoteResponse<TypeConfig>) -> Bytes {
    encode(&VoteReply { vote: vote(&reply.vote), granted: reply.vote_granted, last: reply.last_log_id.map(id) })
}

/// Decodes the answer to a vote or pre-vote.
pub fn decode_vote_reply(body: &[u8]) -> Result<VoteResponse<TypeConfig>, WireError> {
    let r: VoteReply = decode(body)?;
    Ok(VoteResponse::new(un_vote(r.vote), r.last.map(un_id), r.granted))
}

#[derive(Serialize, Deserialize)]
struct Transfer {
    from: VoteRepr,
    to: u64,
    last: Option<Id>,
}

/// Encodes a leadership transfer.
pub fn encode_transfer(req: &TransferLeaderRequest<TypeConfig>) -> Bytes {
    encode(&Transfer { from: vote(req.from_leader()), to: *req.to_node_id(), last: req.last_log_id().copied().map(id) })
}

/// Decodes a leadership transfer.
pub fn decode_transfer(body: &[u8]) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let t: Transfer = decode(body)?;
    Ok(TransferLeaderRequest::new(un_vote(t.from), t.to, t.last.map(un_id)))
}

#[derive(Serialize, Deserialize)]
enum TransferReply {
    Accepted,
    VoteChanged { expected: VoteRepr, actual: VoteRepr },
    LogNotFlushed { expected: Option<Id>, actual: Option<Id> },
}

/// Encodes the answer to a leadership transfer.
pub fn encode_transfer_reply(reply: &TransferLeaderResponse<TypeConfig>) -> Bytes {
    encode(&match reply {
        Ok(()) => TransferReply::Accepted,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            TransferReply::VoteChanged { expected: vote(expected), actual: vote(actual) }
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            TransferReply::LogNotFlushed { expected: expected.map(id), actual: actual.map(id) }
        }
    })
}

/// Decodes the answer to a leadership transfer.
pub fn decode_transfer_reply(body: &[u8]) -> Result<TransferLeaderResponse<TypeConfig>, WireError> {
    Ok(match decode(body)? {
        TransferReply::Accepted => Ok(()),
        TransferReply::VoteChanged { expected, actual } => {
            Err(TransferLeaderError::VoteChanged { expected: un_vote(expected), actual: un_vote(actual) })
        }
        TransferReply::LogNotFlushed { expected, actual } => {
            Err(TransferLeaderError::LogNotFlushed { expected: expected.map(un_id), actual: actual.map(un_id) })
        }
    })
}

#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    vote: VoteRepr,
    last: Id,
}

/// Encodes who sends a snapshot and which entry it ends at; the bytes travel in chunks.
pub fn encode_snapshot_head(by: &Vote, last: LogId) -> Bytes {
    encode(&SnapshotHead { vote: vote(by), last: id(last) })
}

/// Decodes what [`encode_snapshot_head`] wrote.
pub fn decode_snapshot_head(body: &[u8]) -> Result<(Vote, LogId), WireError> {
    let h: SnapshotHead = decode(body)?;
    Ok((un_vote(h.vote), un_id(h.last)))
}

/// Encodes a vote alone (the answer to a snapshot).
pub fn encode_vote_only(v: &Vote) -> Bytes {
    encode(&vote(v))
}

/// Decodes what [`encode_vote_only`] wrote.
pub fn decode_vote_only(body: &[u8]) -> Result<Vote, WireError> {
    Ok(un_vote(decode(body)?))
}

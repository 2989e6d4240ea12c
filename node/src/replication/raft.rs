//! The types openraft is instantiated with, and the only place where they meet Braid's own.
//!
//! Invariant: an entry is a decoded log id, a kind and one `Bytes` payload whose checksum is
//! computed once, when the leader proposes it; the log and the network carry those very bytes. No
//! openraft type has a disk or wire format: what crosses either is [`braid_log`]'s or the structs
//! of [`super::wire`].
//!
//! Deliberately absent: serde. openraft is built without it, so that nothing of openraft can be
//! serialized by accident.

use std::fmt;

use braid_log::{Entry as LogEntry, EntryKind, LogId as BraidLogId, Vote as BraidVote};
use braid_stream::catalog::{CatalogError, CatalogReply};
use braid_stream::group::Applied;
use bytes::Bytes;
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::vote::leader_id_std;

use super::membership::{decode_membership, encode_membership};
use super::runtime::EnvRuntime;

/// The committed leader id of a log entry: the term alone, since a term has one leader.
pub type CommittedLeaderId = leader_id_std::CommittedLeaderId<u64>;
/// A leader id: term and node.
pub type LeaderId = leader_id_std::LeaderId<u64, u64>;
/// openraft's log id over our leader id.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// openraft's vote over our leader id.
pub type Vote = openraft::Vote<LeaderId>;
/// A Raft member as the membership entry keeps it: the address that peers dial.
pub type Member = openraft::BasicNode;
/// A membership: voters (two sets while changing) and learners.
pub type Membership = openraft::Membership<u64, Member>;
/// A membership with the log id that set it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Member>;

/// The instantiation of openraft's type parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Reply;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = EnvRuntime;
    type Responder<T>
        = openraft::impls::ProgressResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// What a caller proposes: one encoded command (`GroupCommand` or `CatalogCommand`).
#[derive(Clone)]
pub struct Proposal(pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proposal of {} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying a command answers to its proposer.
#[derive(Debug)]
pub enum Reply {
    /// A blank or membership entry.
    None,
    /// A data group's command.
    Group(Applied),
    /// A catalog command; a refusal is an answer, not a failure.
    Catalog(Result<CatalogReply, CatalogError>),
    /// The command could not be decoded by this version; the replica stops.
    Undecodable(String),
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The body of an entry: its kind and its bytes.
#[derive(Clone)]
pub struct Payload {
    kind: EntryKind,
    bytes: Bytes,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.kind, self.bytes.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl RaftPayload for Payload {
    type D = Proposal;
    type NodeId = u64;
    type Node = Member;

    fn blank() -> Self {
        Payload { kind: EntryKind::Blank, bytes: Bytes::new() }
    }

    fn with_normal(self, data: Proposal) -> Self {
        Payload { kind: EntryKind::Normal, bytes: data.0 }
    }

    fn with_membership(self, membership: Membership) -> Self {
        Payload { kind: EntryKind::Membership, bytes: encode_membership(&membership) }
    }

    fn get_membership(&self) -> Option<Membership> {
        membership_of(self.kind, &self.bytes)
    }
}

fn membership_of(kind: EntryKind, bytes: &Bytes) -> Option<Membership> {
    if kind != EntryKind::Membership {
        return None;
    }
    // The bytes passed a checksum and were written by `encode_membership`: failing here is a bug.
    Some(decode_membership(bytes).expect("a membership entry that passed its checksum decodes"))
}

/// One Raft entry: a log entry, and the leader id openraft wants a reference to.
#[derive(Clone)]
pub struct Entry {
    leader: CommittedLeaderId,
    log: LogEntry,
}

impl Entry {
    /// Wraps an entry read from the log or received from a peer.
    pub fn from_log(log: LogEntry) -> Entry {
        Entry { leader: CommittedLeaderId::new(log.id().term), log }
    }

    /// The entry as the log and the network know it.
    pub fn into_log(self) -> LogEntry {
        self.log
    }

    /// The entry as the log and the network know it.
    pub fn as_log(&self) -> &LogEntry {
        &self.log
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.log.id();
        write!(f, "{}-{} {:?} of {} bytes", id.term, id.index, self.log.kind(), self.log.payload().len())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl RaftEntry for Entry {
    type CommittedLeaderId = CommittedLeaderId;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        Entry::from_log(LogEntry::new(to_log_id(log_id), payload.kind, payload.bytes))
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId, u64) {
        (&self.leader, self.log.id().index)
    }

    fn set_log_id(&mut self, new: LogId) {
        self.leader = new.leader_id;
        self.log.set_id(to_log_id(new));
    }

    fn get_membership(&self) -> Option<Membership> {
        membership_of(self.log.kind(), self.log.payload())
    }
}

/// openraft's log id as the log keeps it.
pub fn to_log_id(id: LogId) -> BraidLogId {
    BraidLogId { term: id.leader_id.term, index: id.index }
}

/// The log's id as openraft wants it.
pub fn from_log_id(id: BraidLogId) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(id.term), index: id.index }
}

/// openraft's vote as the log keeps it.
pub fn to_log_vote(vote: &Vote) -> BraidVote {
    BraidVote { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
}

/// The log's vote as openraft wants it.
pub fn from_log_vote(vote: BraidVote) -> Vote {
    let mut v = Vote::new(vote.term, vote.node);
    v.committed = vote.committed;
    v
}

//! One open replica, and the handles through which the rest of the node uses it.
//!
//! Invariant: an outcome is *certain* (appended, refused, not proposed) or *unknown*, and the type
//! says which. Whatever may already be in some replica's log is unknown.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use braid_env::watch;
use braid_log::{Entry as LogEntry, Log, LogId as BraidLogId, ReadError};
use braid_probe::{Bug, Mark, always, planted, reachable, sometimes};
use braid_stream::command::GroupCommand;
use braid_stream::group::{Applied, Group};
use braid_stream::ids::{GroupId, NodeId, ShardId};
use braid_stream::record::Record;
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::raft::ClientWriteResult;

use super::RaftHandle;
use super::lease::{Answered, linearizable};
use super::machine::TrimTarget;
use super::open::GroupOptions;
use super::proposer::{AppendOutcome, Proposer};
use super::raft::{Member, Proposal, Reply, TypeConfig};
use super::replica::{Replica, State};
use crate::clock::NodeClock;
use crate::index::RecordIndex;
use crate::peer::Links;

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// Certainly not in the log: this node does not lead the group.
    NotLeader {
        /// Who leads it, if that is known.
        leader: Option<NodeId>,
    },
    /// Certainly not in the log: too much is waiting.
    Overloaded {
        /// When to try again, milliseconds.
        retry_after_ms: u64,
    },
    /// It may be in the log, now or later.
    Unknown {
        /// What happened.
        why: String,
    },
    /// Certainly not in the log: the replica has stopped.
    Stopped {
        /// What stopped it.
        why: String,
    },
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::NotLeader { leader: Some(n) } => write!(f, "not the leader; node {} leads", n.0),
            ProposeError::NotLeader { leader: None } => write!(f, "not the leader; no leader is known"),
            ProposeError::Overloaded { retry_after_ms } => {
                write!(f, "too much is waiting; try again in {retry_after_ms} ms")
            }
            ProposeError::Unknown { why } => write!(f, "outcome unknown: {why}"),
            ProposeError::Stopped { why } => write!(f, "replica stopped: {why}"),
        }
    }
}

impl std::error::Error for ProposeError {}

impl ProposeError {
    /// openraft says who leads, as far as it knows.
    pub(super) fn elsewhere(f: &ForwardToLeader<TypeConfig>) -> ProposeError {
        ProposeError::NotLeader { leader: f.leader_id.map(NodeId) }
    }

    /// What openraft answered, as an answer or an error. `None`: the responder was dropped.
    pub(super) fn from_write(result: Option<ClientWriteResult<TypeConfig>>) -> Result<Reply, ProposeError> {
        let discarded = matches!(result, None | Some(Err(ClientWriteError::LogEntryDiscarded(_))));
        sometimes!(discarded, Mark::ResponderDropped);
        match result {
            Some(Ok(response)) => Ok(response.data),
            _ if discarded && planted(Bug::DiscardedIsCertain) => Err(ProposeError::NotLeader { leader: None }),
            Some(Err(ClientWriteError::ForwardToLeader(f))) => Err(ProposeError::elsewhere(&f)),
            Some(Err(e @ ClientWriteError::LogEntryDiscarded(_))) => Err(ProposeError::Unknown { why: e.to_string() }),
            Some(Err(e)) => Err(ProposeError::Unknown { why: e.to_string() }),
            None => Err(ProposeError::Unknown { why: "the replica stopped before it answered".into() }),
        }
    }
}

/// One replica of one group on this node.
pub struct GroupReplica {
    replica: Arc<Replica>,
    raft: RaftHandle,
    proposer: Proposer,
    trim: TrimTarget,
    links: Arc<Links>,
    /// When which follower answered.
    pub(super) answered: Arc<Answered>,
    pub(super) clock: NodeClock,
    /// How far the group's last replica on this node was, before it was moved away.
    pub(super) floor: Option<BraidLogId>,
    /// What cannot be read here any more, as found by the first read that needed it.
    pub(super) damage: OnceLock<String>,
}

/// Where one replica stands, for status pages and metrics.
#[derive(Debug, Clone)]
pub struct ReplicaStatus {
    /// Whether the replica runs; else what stopped it.
    pub running: Result<(), String>,
    /// What was found damaged while it ran: it votes and stores, and leads only if nobody else can.
    pub damage: Option<String>,
    /// Its term.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// Its last log entry.
    pub last_log: u64,
    /// The last entry it knows to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// The last entry trimmed away.
    pub purged: u64,
    /// Voters.
    pub voters: Vec<u64>,
    /// Learners.
    pub learners: Vec<u64>,
    /// As the leader: how far each replica's log is known to match.
    pub matched: Vec<(u64, u64)>,
    /// As the leader: how long ago each other replica was heard of.
    pub heard: Vec<(u64, Duration)>,
}

/// A group as one of its replicas sees it.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// The group.
    pub id: GroupId,
    /// This node's replica.
    pub replica: ReplicaStatus,
}

impl GroupReplica {
    pub(super) fn start(
        replica: Arc<Replica>,
        raft: RaftHandle,
        trim: TrimTarget,
        answered: Arc<Answered>,
        floor: Option<BraidLogId>,
        options: &GroupOptions,
    ) -> Arc<GroupReplica> {
        let proposer =
            Proposer::start(replica.clone(), raft.clone(), options.clock.clone(), options.inflight_bytes_max);
        let (links, clock) = (options.links.clone(), options.clock.clone());
        Arc::new(GroupReplica { replica, raft, proposer, trim, links, answered, clock, floor, damage: OnceLock::new() })
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.replica.group
    }

    /// The group's Raft.
    pub fn raft(&self) -> &RaftHandle {
        &self.raft
    }

    /// The replica's log.
    pub fn log(&self) -> &Log {
        &self.replica.log
    }

    /// Who leads the group, as far as this replica knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader.map(NodeId)
    }

    /// Whether this replica leads the group.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// Looks at the applied state.
    pub fn with_state<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        self.replica.with_state(f)
    }

    /// The applied log index, and a wake-up whenever it moves.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.replica.applied()
    }

    /// The other nodes.
    pub(super) fn links(&self) -> &Links {
        &self.links
    }

    /// Where the replica stands.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let index = |id: &Option<super::raft::LogId>| id.map_or(0, |id| id.index);
        let matched = m.replication.iter().flatten().map(|(node, id)| (*node, index(id))).collect();
        let heard = m.heartbeat.iter().flatten();
        let heard = heard.filter_map(|(node, at)| at.as_ref().map(|at| (*node, at.0.elapsed()))).collect();
        let running = match (self.replica.log.failed(), &m.running_state) {
            (Some(why), _) => Err(why),
            (None, Err(fatal)) => Err(fatal.to_string()),
            (None, Ok(())) => Ok(()),
        };
        let replica = ReplicaStatus {
            running,
            damage: self.damage.get().cloned(),
            term: m.current_term,
            leader: m.current_leader,
            last_log: m.last_log_index.unwrap_or(0),
            committed: index(&m.local_committed),
            applied: index(&m.last_applied),
            purged: index(&m.purged),
            voters: m.membership_config.voter_ids().collect(),
            learners: m.membership_config.membership().learner_ids().collect(),
            matched,
            heard,
        };
        GroupStatus { id: self.id(), replica }
    }

    /// Proposes one encoded command and waits until it is applied here.
    pub(super) async fn propose_bytes(&self, bytes: Bytes) -> Result<Reply, ProposeError> {
        match self.raft.client_write(Proposal(bytes)).await {
            Ok(response) => {
                braid_probe::acknowledged(self.id().0, response.log_id.index);
                Ok(response.data)
            }
            Err(RaftError::APIError(e)) => ProposeError::from_write(Some(Err(e))),
            Err(RaftError::Fatal(e)) => Err(ProposeError::Unknown { why: e.to_string() }),
        }
    }

    /// Writes the first membership. Doing it again, or on several members with the same list,
    /// changes nothing.
    pub async fn initialize(&self, members: &[(u64, String)]) -> Result<(), String> {
        let nodes: std::collections::BTreeMap<u64, Member> =
            members.iter().map(|(id, addr)| (*id, Member::new(addr))).collect();
        match self.raft.initialize(nodes).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Adds a node that receives the log and does not vote.
    pub async fn add_learner(&self, node: u64, address: &str) -> Result<(), String> {
        self.raft.add_learner(node, Member::new(address), false).await.map(drop).map_err(|e| e.to_string())
    }

    /// Makes exactly `voters` the voters, by joint consensus; others cease to be members. Those that are new have to
    /// have caught up.
    pub async fn set_voters(&self, voters: &BTreeSet<u64>) -> Result<(), String> {
        let sound = !self.is_leader() || self.have_caught_up(voters);
        always!(sound, Mark::VotersHaveTheLog, "group {}: {voters:?}", self.id().0);
        self.raft.change_membership(voters.clone(), false).await.map(drop).map_err(|e| e.to_string())?;
        reachable!(Mark::VotersChanged);
        Ok(())
    }

    /// As the leader: whether each of `voters` votes already, or is known to have the newest membership in its log.
    ///
    /// Not openraft's own wait for a learner: that ends some thousand entries before, which in a short log is with a
    /// node that has nothing.
    pub fn have_caught_up(&self, voters: &BTreeSet<u64>) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let named = metrics.membership_config.log_id().map_or(0, |id| id.index);
        let votes: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let has = |node: u64| {
            let matched = metrics.replication.iter().flatten().find(|(id, _)| **id == node);
            matched.and_then(|(_, matched)| *matched).is_some_and(|matched| matched.index >= named)
        };
        voters.iter().all(|node| votes.contains(node) || has(*node))
    }

    /// Ends the membership of learners.
    pub async fn remove_learners(&self, nodes: BTreeSet<u64>) -> Result<(), String> {
        let change = openraft::ChangeMembers::RemoveNodes(nodes);
        self.raft.change_membership(change, false).await.map(drop).map_err(|e| e.to_string())
    }

    /// The voters, if they are not being changed and a majority has it in its log that it is these.
    pub fn settled_voters(&self) -> Option<BTreeSet<u64>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let committed = metrics.local_committed.map(|id| id.index);
        let settled = membership.membership().get_joint_config().len() == 1
            && membership.log_id().is_some_and(|id| committed >= Some(id.index));
        settled.then(|| membership.voter_ids().collect())
    }

    /// Drops the log before the segment that begins after `upto`, if a checkpoint stands there.
    /// Only ever asked for by an applied trim.
    pub async fn purge_before(&self, upto: u64) -> Result<(), String> {
        let segments = self.replica.log.segments();
        let Some(next) = segments.iter().filter(|s| s.first_index <= upto + 1).map(|s| s.seq).next_back() else {
            return Ok(());
        };
        let checkpoints = self.replica.log.checkpoints().await.map_err(|e| e.to_string())?;
        let Some(at) = checkpoints.good.iter().rfind(|c| c.seq <= next && c.last.index <= upto) else {
            return Ok(());
        };
        if Some(at.last) <= self.replica.log.purged() {
            return Ok(());
        }
        reachable!(Mark::PurgeAsked);
        self.trim.set(at.seq);
        self.raft.trigger().snapshot().await.map_err(|e| e.to_string())
    }

    /// Stops Raft, then writes out what the log holds.
    pub async fn shutdown(&self) {
        if let Err(e) = self.raft.shutdown().await {
            tracing::warn!(group = self.id().0, "raft did not stop cleanly: {e}");
        }
        if let Err(e) = self.replica.log.close().await {
            tracing::warn!(group = self.id().0, "log not closed cleanly: {e}");
        }
    }
}

/// A data group's replica on this node. Cheap to clone.
#[derive(Clone)]
pub struct GroupHandle(Arc<GroupReplica>);

impl GroupHandle {
    pub(super) fn new(replica: Arc<GroupReplica>) -> GroupHandle {
        GroupHandle(replica)
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.0.id()
    }

    /// Who leads the group, as far as this replica knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.leader()
    }

    /// Whether this replica leads the group.
    pub fn is_leader(&self) -> bool {
        self.0.is_leader()
    }

    /// The term this replica is in; a new leader has a new one.
    pub fn term(&self) -> u64 {
        self.0.raft.server_metrics().borrow_watched().vote.leader_id.term
    }

    /// Whether this replica has applied an entry of its term: as the leader it then has all that was appended before.
    pub fn has_caught_up(&self) -> bool {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.map(super::raft::to_log_id);
        applied.is_some_and(|applied| applied.term == metrics.current_term) || planted(Bug::UntouchedOnBelief)
    }

    /// Appends records, in order. Resolves when a majority has fsynced them and this leader has
    /// applied them; one outcome per record, in order.
    pub async fn append(&self, records: Vec<(ShardId, Record)>) -> Result<Vec<AppendOutcome>, ProposeError> {
        self.0.proposer.append(records).await
    }

    /// Proposes a command that is not an append.
    pub async fn propose(&self, command: GroupCommand) -> Result<Applied, ProposeError> {
        match self.0.propose_bytes(command.encode()).await? {
            Reply::Group(applied) => Ok(applied),
            reply => panic!("a group's command was answered with {reply:?}"),
        }
    }

    /// Looks at the applied state, under a short lock.
    pub fn state<R>(&self, f: impl FnOnce(&Group) -> R) -> R {
        self.0.with_state(|state| match state {
            State::Data(group) => f(group),
            State::Catalog(_) => unreachable!("a data group's handle"),
        })
    }

    /// The applied log index, and a wake-up whenever it moves.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.0.applied()
    }

    /// Log entries of `range`, from memory or the files; at most `bytes_max` but at least one.
    pub async fn read_entries(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, ReadError> {
        self.0.log().read(range, bytes_max).await
    }

    /// The node's record index.
    pub fn index(&self) -> &dyn RecordIndex {
        self.0.replica.index.as_ref()
    }

    /// Waits until this replica has applied everything that was acknowledged before the call.
    /// Only the leader can tell. Answers with the log index applied.
    pub async fn ensure_linearizable(&self) -> Result<u64, ProposeError> {
        linearizable(&self.0).await
    }

    /// The replica itself, for control and maintenance.
    pub fn replica(&self) -> &Arc<GroupReplica> {
        &self.0
    }
}

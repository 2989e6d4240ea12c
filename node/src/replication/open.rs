//! Opening a replica: its log, the state it starts from, its Raft.
//!
//! Where the state starts, as a table. `mark` is how far the record index is known to be complete,
//! `end` the log's last entry, `trim` its trim point.
//!
//! | there is                                            | state starts from         | record index         |
//! |-----------------------------------------------------|---------------------------|----------------------|
//! | a checkpoint at or below `mark` and `end`           | the newest such           | kept up to it        |
//! | none such, nothing trimmed                          | nothing                   | rebuilt from the log |
//! | none such, a checkpoint at `trim`                   | that one                  | rebuilt from the log |
//! | none of these                                       | refused: the state is lost | –                   |
//!
//! From there openraft applies the log again, up to the committed mark.
//!
//! Invariant: the state a replica starts from is never ahead of its durable log. openraft would
//! otherwise purge the log up to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use braid_env::{disk, task};
use braid_log::{Identity, Log, LogOptions, OpenError as LogOpenError};
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_stream::ids::GroupId;
use openraft::{Config, SnapshotPolicy};

use super::RaftHandle;
use super::group::GroupReplica;
use super::lease::Answered;
use super::log_store::LogStore;
use super::machine::{Machine, TrimTarget};
use super::network::Network;
use super::promise::{self, Promise};
use super::raft::{StoredMembership, from_log_id};
use super::replica::{Replica, State};
use super::snapshot::{self, Snapshot};
use crate::clock::NodeClock;
use crate::index::RecordIndex;
use crate::peer::Links;

/// What every replica of a node is opened with.
#[derive(Clone)]
pub struct GroupOptions {
    /// The node's data directory; group `g` lives in `groups/<g>`.
    pub data_dir: PathBuf,
    /// Segment size, cache and queue of each log.
    pub log: LogOptions,
    /// How often a leader that has nothing to say says so.
    pub heartbeat: Duration,
    /// A follower that hears nothing stands for election after a time drawn from this range.
    pub election_timeout: (Duration, Duration),
    /// Bytes of records that may be proposed and not applied yet, per group.
    pub inflight_bytes_max: usize,
    /// The record index of the node.
    pub index: Arc<dyn RecordIndex>,
    /// The streams to the other nodes.
    pub links: Arc<Links>,
    /// The node's clock.
    pub clock: NodeClock,
}

impl GroupOptions {
    /// Where each group has its directory.
    pub fn groups_dir(&self) -> PathBuf {
        self.data_dir.join("groups")
    }

    /// The group's own.
    pub fn group_dir(&self, group: GroupId) -> PathBuf {
        self.groups_dir().join(group.0.to_string())
    }

    /// Whose log the group's is, on this node.
    pub fn log_identity(&self, group: GroupId) -> Identity {
        let me = self.links.directory().me();
        Identity { cluster: me.cluster, node: me.node, group: group.0 }
    }
}

/// Why a replica could not be opened. Each names the file or directory concerned.
#[derive(Debug)]
pub enum OpenError {
    /// The log refuses: damaged, of another node or group, or unreadable.
    Log(LogOpenError),
    /// The log is there, but no state to begin from.
    NoCheckpoint(String),
    /// A checkpoint or the index could not be read.
    State(String),
    /// openraft refuses.
    Raft(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Log(e) => write!(f, "{e}"),
            OpenError::NoCheckpoint(why) | OpenError::State(why) => f.write_str(why),
            OpenError::Raft(why) => write!(f, "raft: {why}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// openraft's settings; each line that is not a size or a time is one of the hard rules.
fn raft_config(group: GroupId, options: &GroupOptions) -> Result<Config, OpenError> {
    let (min, max) = options.election_timeout;
    Config {
        cluster_name: format!("group-{}", group.0),
        heartbeat_interval: options.heartbeat.as_millis() as u64,
        election_timeout_min: min.as_millis() as u64,
        election_timeout_max: max.as_millis() as u64,
        // With leader restore, a leader that committed through its followers before its own fsync
        // and restarts in the same term writes another entry under the same log id.
        enable_leader_restore: Some(planted(Bug::LeaderRestored)),
        enable_pre_vote: Some(true),
        // Whoever leads stamps: not before the clock is settled.
        enable_elect: false,
        // The log is the stream: nothing is snapshotted or purged but by a replicated trim.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        install_snapshot_timeout: 120_000,
        api_batch_linger_ms: 0,
        max_payload_entries: 4096,
        backoff: "50ms 100ms ...500ms".into(),
        ..Config::default()
    }
    .validate()
    .map_err(|e| OpenError::Raft(e.to_string()))
}

/// Opens group `group`'s replica on this node, creating its directory if there is none.
pub async fn open_group(group: GroupId, options: &GroupOptions) -> Result<Arc<GroupReplica>, OpenError> {
    let dir = options.group_dir(group);
    let at = |e: std::io::Error| OpenError::State(format!("{}: {e}", dir.display()));
    disk::create_dir_all(&dir).await.map_err(at)?;
    let promise = Promise::read(&options.groups_dir(), group).await.map_err(at)?;
    let identity = options.log_identity(group);
    let (log, recovered) = Log::open(&dir, identity, options.log.clone()).await.map_err(OpenError::Log)?;
    tracing::info!(group = group.0, "log opened: {recovered:?}");
    braid_probe::opened(group.0, log.last_id().map(|id| id.index));
    if let Some(promise) = &promise {
        promise.renew(&log).await.map_err(at)?;
    }

    let start = starting_point(&log, group, &dir, options.index.as_ref()).await?;
    let (state, last, membership, kept) = match start {
        Some((s, kept)) => (s.state, Some(s.last), s.membership, kept),
        None => (State::initial(group), None, StoredMembership::default(), false),
    };
    prepare_index(group, &state, kept, options.index.as_ref()).map_err(OpenError::State)?;

    let replica =
        Arc::new(Replica::new(group, dir, log.clone(), options.index.clone(), state, last.map_or(0, |id| id.index)));
    let trim = TrimTarget::default();
    let machine = Machine::new(replica.clone(), last.map(from_log_id), membership, trim.clone());
    let answered = Arc::new(Answered::default());
    let network = Network::new(options.links.clone(), group.0, answered.clone());
    let config = Arc::new(raft_config(group, options)?);
    let store = LogStore::new(log.clone(), identity.node);
    let raft = RaftHandle::new(identity.node, config, network, store, machine)
        .await
        .map_err(|e| OpenError::Raft(e.to_string()))?;
    let floor = promise.and_then(|it| it.floor());
    // One way only, whether the clock is settled or not. Asking twice, for the setting above and here, left a replica
    // that never stood for election where the clock was settled in between: simulator, seed 82103586183 of 7e145db.
    let (clock, electing) = (options.clock.clone(), raft.clone());
    task::spawn(async move {
        clock.settled().await;
        if let Some(floor) = floor
            && !promise::reaches(&log, floor).await
        {
            return;
        }
        electing.runtime_config().elect(true);
    });
    Ok(GroupReplica::start(replica, raft, trim, answered, floor, options))
}

/// See the table above. The flag says whether the index is complete up to the state.
async fn starting_point(
    log: &Log,
    group: GroupId,
    dir: &std::path::Path,
    index: &dyn RecordIndex,
) -> Result<Option<(Snapshot, bool)>, OpenError> {
    let state = |e: &dyn fmt::Display| OpenError::State(format!("{}: {e}", dir.display()));
    let mark = match group.0 {
        0 => u64::MAX,
        _ => index.mark(group).map_err(|e| state(&e))?.unwrap_or(0),
    };
    let end = log.last_id().map_or(0, |id| id.index);
    let trimmed = log.purged();
    let checkpoints = log.checkpoints().await.map_err(|e| state(&e))?;
    for (file, why) in &checkpoints.damaged {
        // An older checkpoint serves as well, with more of the log to apply again.
        tracing::error!(group = group.0, "checkpoint {file} passed over: {why}");
    }
    sometimes!(group.0 != 0 && mark > end, Mark::IndexAheadOfLog);
    sometimes!(!checkpoints.damaged.is_empty(), Mark::CheckpointPassedOver);
    let mark = if planted(Bug::IndexMarkIgnored) { u64::MAX } else { mark };
    let usable = checkpoints.good.iter().rev().find(|info| info.last.index <= mark.min(end));
    let at_trim_point = || checkpoints.good.iter().find(|info| Some(info.last) == trimmed);
    match (usable.or_else(at_trim_point), trimmed) {
        (Some(info), _) => {
            let (last, bytes) = log.load_checkpoint(info.seq).await.map_err(|e| state(&e))?;
            let kept = info.last.index <= mark;
            reachable!(Mark::StartedFromCheckpoint);
            Ok(Some((snapshot::decode(last, &bytes).map_err(|e| state(&e))?, kept)))
        }
        (None, None) => Ok(None),
        (None, Some(trimmed)) => Err(OpenError::NoCheckpoint(format!(
            "{}: the log begins after {}-{} and there is no checkpoint there; rebuild this replica from its peers: \
             replace the node by a new one",
            dir.display(),
            trimmed.term,
            trimmed.index
        ))),
    }
}

/// Removes from the index what the log is about to say again, or might say differently.
fn prepare_index(group: GroupId, state: &State, kept: bool, index: &dyn RecordIndex) -> Result<(), String> {
    let State::Data(data) = state else { return Ok(()) };
    if !kept {
        sometimes!(data.applied().is_some(), Mark::IndexRebuilt);
        return index.clear(group).map_err(|e| e.to_string());
    }
    for shard in data.shards() {
        index.truncate_from(group, shard.id, shard.next).map_err(|e| e.to_string())?;
    }
    Ok(())
}

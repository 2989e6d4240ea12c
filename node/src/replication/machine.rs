//! The state machine that openraft drives: decode, apply, index, answer, wake readers.
//!
//! Invariant: the state is a pure function of the entries applied to it (`braid_stream` holds that
//! function). This file adds what is not pure: it writes the record index, takes the checkpoint at
//! every segment roll, and publishes the applied watermark after both.
//!
//! Checkpoints. Before the first entry of a segment is applied, the state is encoded and written
//! as that segment's checkpoint. The index is flushed up to the same entry first, so that at
//! recovery a checkpoint at or below the index's mark has a complete index beneath it.

use std::io;
use std::sync::{Arc, Mutex};

use braid_env::task;
use braid_log::{EntryKind, SegmentSeq};
use braid_probe::{AppliedEntry, Bug, Mark, always, planted, reachable};
use braid_stream::catalog_command::CatalogCommand;
use braid_stream::command::GroupCommand;
use braid_stream::group::Applied;
use braid_stream::ids::Offset;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::raft::{Entry, LogId, Reply, StoredMembership, TypeConfig, from_log_id, to_log_id};
use super::replica::{Replica, State};
use super::snapshot;
use crate::index::{IndexEntry, IndexError};

type SnapshotMeta = openraft::SnapshotMeta<super::raft::CommittedLeaderId, u64, super::raft::Member>;
type RaftSnapshot = openraft::Snapshot<super::raft::CommittedLeaderId, u64, super::raft::Member, Bytes>;

/// Which segment the next snapshot is to be taken before; set by maintenance when it trims.
#[derive(Clone, Default)]
pub struct TrimTarget(Arc<Mutex<Option<SegmentSeq>>>);

impl TrimTarget {
    /// Asks that the next snapshot be the checkpoint before segment `seq`.
    pub fn set(&self, seq: SegmentSeq) {
        *self.0.lock().expect("no panic while locked") = Some(seq);
    }

    fn get(&self) -> Option<SegmentSeq> {
        *self.0.lock().expect("no panic while locked")
    }
}

/// The state machine of one replica.
pub struct Machine {
    replica: Arc<Replica>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    trim: TrimTarget,
}

impl Machine {
    /// A machine whose replica's state is as of `last_applied`.
    pub fn new(
        replica: Arc<Replica>,
        last_applied: Option<LogId>,
        membership: StoredMembership,
        trim: TrimTarget,
    ) -> Machine {
        Machine { replica, last_applied, membership, trim }
    }

    /// Takes the checkpoint that belongs before `index`, if a segment starts there.
    fn checkpoint_before(&mut self, index: u64) {
        let Some(last) = self.last_applied else { return };
        let Some(seq) = self.replica.log.starts_segment(index) else { return };
        let bytes = self.replica.with_state(|state| snapshot::encode(&self.membership, state));
        reachable!(Mark::CheckpointTaken);
        let replica = self.replica.clone();
        let last = to_log_id(last);
        task::spawn(async move {
            if replica.group.0 != 0
                && let Err(e) = replica.index.flush(replica.group, last.index)
            {
                // The index is derived: recovery finds its mark too old and begins earlier.
                tracing::warn!(group = replica.group.0, "record index not flushed: {e}");
            }
            // Waits until the log is durable up to `last`: a checkpoint never runs ahead of the
            // log it belongs to.
            if let Err(e) = replica.log.write_checkpoint(seq, last, bytes).await {
                tracing::warn!(group = replica.group.0, segment = seq.0, "checkpoint not written: {e}");
            }
        });
    }

    /// For the simulator: the state is sound, and is the same on every replica.
    fn note_applied(&self, entry: &Entry) {
        let (id, payload) = (entry.as_log().id(), entry.as_log().payload());
        let index = id.index;
        let found = || self.replica.with_state(State::check);
        always!(found().is_empty(), Mark::StateSound, "group {} after {index}: {:?}", self.replica.group, found());
        let last = || self.replica.log.last_id().map(|id| id.index);
        always!(last() >= Some(index), Mark::AppliedWithinLog, "applied {index}, the log ends at {:?}", last());
        let applied = AppliedEntry { group: self.replica.group.0, index, term: id.term, payload };
        braid_probe::applied(applied, || self.replica.with_state(|it| it.encode().to_vec()));
    }

    fn apply_one(&mut self, entry: &Entry) -> io::Result<Reply> {
        let log = entry.as_log();
        let id = log.id();
        match log.kind() {
            EntryKind::Blank => Ok(self.pass(id.index)),
            EntryKind::Membership => {
                let membership = entry.get_membership().expect("the kind says membership");
                self.membership = StoredMembership::new(Some(from_log_id(id)), membership);
                reachable!(Mark::AppliedMembership);
                Ok(self.pass(id.index))
            }
            EntryKind::Normal => self.apply_command(id.index, log.payload()),
        }
    }

    fn pass(&self, index: u64) -> Reply {
        self.replica.with_state_mut(|state| {
            if let State::Data(group) = state {
                group.pass(index);
            }
        });
        Reply::None
    }

    fn apply_command(&mut self, index: u64, payload: &Bytes) -> io::Result<Reply> {
        let undecodable = |e: String| {
            io::Error::other(format!(
                "group {}: log entry {index} cannot be applied by this build: {e}",
                self.replica.group.0
            ))
        };
        if self.replica.group.0 == 0 {
            let command = CatalogCommand::decode(payload).map_err(|e| undecodable(e.to_string()))?;
            return Ok(self.replica.with_state_mut(|state| match state {
                State::Catalog(catalog) => Reply::Catalog(catalog.apply(&command)),
                State::Data(_) => unreachable!("group 0 is the catalog"),
            }));
        }
        let mut command = GroupCommand::decode(payload.clone()).map_err(|e| undecodable(e.to_string()))?;
        if let GroupCommand::OpenShards(open) = &mut command
            && planted(Bug::LocalClockInApply)
        {
            open.at_ms = braid_env::time::wall_ms();
        }
        let (applied, indexed) = self.replica.with_state_mut(|state| match state {
            State::Data(group) => {
                let applied = group.apply(index, &command);
                // Under the state's lock, or: 1. applied here, 2. another task sees the new records in the state and
                // not in the index: a reader takes that for damage, a trim takes them for too old.
                let indexed = self.index_appended(index, &applied);
                (applied, indexed)
            }
            State::Catalog(_) => unreachable!("only group 0 is the catalog"),
        });
        indexed.and_then(|()| self.update_index(&applied)).map_err(io::Error::other)?;
        Ok(Reply::Group(applied))
    }

    /// Writes what the command appended.
    fn index_appended(&self, index: u64, applied: &Applied) -> Result<(), IndexError> {
        let Applied::Appended(appended) = applied else { return Ok(()) };
        let placed = appended.slices.iter().filter_map(|slice| {
            let placed = slice.outcome.as_ref().ok()?;
            Some(IndexEntry {
                shard: slice.shard,
                first: placed.first,
                count: placed.count,
                log_index: index,
                pos: slice.pos,
                time_ms: placed.time_ms,
            })
        });
        self.replica.index.put(self.replica.group, &placed.collect::<Vec<_>>())
    }

    /// Forgets what the command dropped. A shard that is opened is cleared first: a replica that
    /// lost the end of its log may hold entries of another history.
    fn update_index(&self, applied: &Applied) -> Result<(), IndexError> {
        let group = self.replica.group;
        let records = &self.replica.index;
        match applied {
            Applied::Opened(Ok(shards)) | Applied::Dropped(shards) => {
                shards.iter().try_for_each(|shard| records.truncate_from(group, *shard, Offset::ZERO))
            }
            Applied::Trimmed(Ok(trimmed)) => {
                trimmed.shards.iter().try_for_each(|t| records.trim(group, t.shard, t.below))
            }
            _ => Ok(()),
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let id = entry.log_id();
            if let Some(last) = self.last_applied {
                assert_eq!(last.index + 1, id.index, "entries are applied one after the other");
            }
            self.checkpoint_before(id.index);
            let reply = self.apply_one(&entry)?;
            self.last_applied = Some(id);
            self.note_applied(&entry);
            self.replica.set_applied(id.index);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { replica: self.replica.clone(), trim: self.trim.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Bytes) -> Result<(), io::Error> {
        let last = meta.last_log_id.ok_or_else(|| io::Error::other("a snapshot of nothing was sent"))?;
        let decoded = snapshot::decode(to_log_id(last), &bytes).map_err(io::Error::other)?;
        reachable!(Mark::SnapshotBeforeInstall);
        // Checkpoint and purge are one step for the log: a crash leaves both or neither.
        self.replica.log.install_checkpoint(decoded.last, bytes).await?;
        if matches!(decoded.state, State::Data(_)) {
            self.replica.index.clear(self.replica.group).map_err(io::Error::other)?;
        }
        self.membership = decoded.membership;
        self.last_applied = Some(last);
        self.replica.with_state_mut(|state| *state = decoded.state);
        self.replica.set_applied(last.index);
        reachable!(Mark::SnapshotInstalled);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<RaftSnapshot>, io::Error> {
        let asked = self.trim.get().filter(|_| !planted(Bug::SnapshotTooLate));
        match snapshot::to_offer(&self.replica, asked).await? {
            Some((last, bytes)) => to_raft(last, bytes).map(Some),
            None => Ok(None),
        }
    }
}

/// Gives openraft the checkpoint at the trim point; it never encodes the applied state.
pub struct Builder {
    replica: Arc<Replica>,
    trim: TrimTarget,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<RaftSnapshot, io::Error> {
        let offered = snapshot::to_offer(&self.replica, self.trim.get()).await?;
        let (last, bytes) =
            offered.ok_or_else(|| io::Error::other("a snapshot was asked for and nothing was ever trimmed"))?;
        to_raft(last, bytes)
    }
}

fn to_raft(last: braid_log::LogId, bytes: Bytes) -> io::Result<RaftSnapshot> {
    let decoded = snapshot::decode(last, &bytes).map_err(io::Error::other)?;
    let meta = SnapshotMeta { last_log_id: Some(from_log_id(last)), last_membership: decoded.membership };
    Ok(RaftSnapshot { meta, snapshot: bytes })
}

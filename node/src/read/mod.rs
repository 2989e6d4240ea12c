//! Reading a shard: position → index → slices of the log.
//!
//! Invariant: only records that are committed and applied here are given, in offset order and
//! without a gap: where the index or the log does not hold what the state says is there, the answer
//! is an error and never a shorter list.
//!
//! Deliberately absent: who may read how fast (`throttle`), where the leader is (`routing`), and
//! copies: a record's bytes are slices of the log entry they were written in.

pub mod position;
pub mod subscribe;

use std::fmt;
use std::sync::Arc;

use braid_log::{Entry, ReadError as LogError};
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_stream::batch::{BatchError, BatchView};
use braid_stream::ids::{NodeId, Offset, ShardId};
use braid_stream::limits::{GET_BYTES_MAX, GET_RECORDS_MAX, Limits};
use braid_stream::record::Record;
use braid_stream::sequence::SequenceNumber;
use braid_stream::shard::{Shard, ShardState};

use crate::index::{IndexEntry, IndexError, RecordIndex};
use crate::replication::GroupHandle;

/// Index entries looked up at once: a thousand records in batches of one, or far more than a
/// full answer in large ones.
const SCAN: usize = 512;

/// Bytes of log entries fetched at once. An entry holds other shards' records too, so the bytes
/// asked for say little about the bytes read.
const FETCH_BYTES: usize = 4 << 20;

/// Counted for each record besides its data and key, so that a full answer of small records stays
/// within a message.
const RECORD_OVERHEAD: u64 = 64;

/// Why nothing can be read.
#[derive(Debug)]
pub enum ReadError {
    /// The group has no such shard.
    NoSuchShard(ShardId),
    /// The sequence number is not one of this shard's, or not given out yet.
    WrongSequence {
        /// What does not fit.
        why: String,
    },
    /// Stored bytes are not what was written, or not there; and no other replica could take over to give them.
    Damaged {
        /// What and where.
        why: String,
    },
    /// This replica does not lead, or not any more: another has what is damaged here.
    NotLeader {
        /// Who leads, if that is known.
        leader: Option<NodeId>,
    },
    /// The replica can't read now.
    Stopped {
        /// Why.
        why: String,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NoSuchShard(shard) => write!(f, "shard {shard} is not in this group"),
            ReadError::WrongSequence { why } => write!(f, "{why}"),
            ReadError::Damaged { why } => write!(f, "stored records cannot be read: {why}"),
            ReadError::NotLeader { leader: Some(node) } => write!(f, "not the leader; node {} leads", node.0),
            ReadError::NotLeader { leader: None } => write!(f, "not the leader; no leader is known"),
            ReadError::Stopped { why } => write!(f, "replica stopped: {why}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<IndexError> for ReadError {
    fn from(error: IndexError) -> ReadError {
        ReadError::Damaged { why: error.to_string() }
    }
}

impl From<LogError> for ReadError {
    fn from(error: LogError) -> ReadError {
        match error {
            LogError::Stopped(why) => ReadError::Stopped { why: why.to_string() },
            other => ReadError::Damaged { why: other.to_string() },
        }
    }
}

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its number in the stream.
    pub sequence_number: SequenceNumber,
    /// When the leader took it, milliseconds since the Unix epoch.
    pub arrival_ms: u64,
    /// Its bytes and key.
    pub record: Record,
}

/// What a read gave.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In offset order.
    pub records: Vec<StoredRecord>,
    /// Data and keys of the records.
    pub bytes: u64,
    /// Where to go on.
    pub next: Offset,
    /// Whether `next` is the shard's end for now.
    pub at_tip: bool,
    /// Set where the shard is closed and `next` is its end for ever: the shards that go on.
    pub ended: Option<Vec<u32>>,
}

impl Batch {
    /// How far behind the tip the reader is after this batch, in milliseconds.
    pub fn behind_ms(&self, now_ms: u64) -> u64 {
        match self.records.last() {
            Some(last) if !self.at_tip || planted(Bug::BehindAtTip) => now_ms.saturating_sub(last.arrival_ms),
            _ => 0,
        }
    }
}

/// The most that a read may give; at least one record is given if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    records: usize,
    bytes: u64,
}

impl Budget {
    /// `records` and `bytes`, but not more than one answer may carry.
    pub fn of(records: usize, bytes: u64) -> Budget {
        Budget { records: records.clamp(1, GET_RECORDS_MAX), bytes: bytes.clamp(1, GET_BYTES_MAX) }
    }
}

/// What the applied state says of a shard, at one moment.
#[derive(Clone, Debug)]
pub struct Extent {
    /// The shard.
    pub shard: Shard,
}

impl Extent {
    /// The first offset at or after `from` that is still readable.
    pub fn readable(&self, from: Offset) -> Offset {
        sometimes!(from < self.shard.trimmed, Mark::ReadFromTrimmed);
        if planted(Bug::TrimmedStartSkipsOne) && from < self.shard.trimmed && self.shard.trimmed < self.shard.next {
            return self.shard.trimmed.advance(1);
        }
        from.max(self.shard.trimmed)
    }

    /// The shard's limits.
    pub fn limits(&self) -> Limits {
        self.shard.limits
    }

    /// Whether the shard never had a record.
    pub fn untouched(&self) -> bool {
        self.shard.next == Offset::ZERO
    }

    fn ended(&self, next: Offset) -> Option<Vec<u32>> {
        match &self.shard.state {
            ShardState::Closed { children, .. } if next >= self.shard.next => Some(children.clone()),
            ShardState::Closed { children, .. }
                if planted(Bug::EndBeforeLast) && next.advance(1) == self.shard.next =>
            {
                Some(children.clone())
            }
            _ => None,
        }
    }
}

/// Reads the shards of one group from this node's replica.
#[derive(Clone)]
pub struct GroupReader {
    /// The replica.
    pub group: GroupHandle,
    /// The node's record index.
    pub index: Arc<dyn RecordIndex>,
}

impl GroupReader {
    /// What is applied of `shard`.
    pub fn extent(&self, shard: ShardId) -> Result<Extent, ReadError> {
        let found = self.group.state(|g| g.shard(shard).cloned());
        found.map(|shard| Extent { shard }).ok_or(ReadError::NoSuchShard(shard))
    }

    /// Records from `from` on, up to what is applied now. An empty batch is at the tip.
    pub async fn read(&self, shard: ShardId, from: Offset, budget: Budget) -> Result<Batch, ReadError> {
        let mut extent = self.extent(shard)?;
        let mut failed_at = None;
        loop {
            let from = extent.readable(from);
            let failed = match self.read_extent(&extent, from, budget).await {
                Ok(batch) => return Ok(batch),
                Err(error) => error,
            };
            // A trim may take index entries and log away under a read; that is no damage. Each
            // round begins at a later offset than the one before.
            extent = self.extent(shard)?;
            sometimes!(extent.shard.trimmed > from, Mark::ReadOvertakenByTrim);
            if extent.shard.trimmed > from {
                continue;
            }
            // What a cable or memory garbles is right the second time; what is wrong on the disk is not.
            let again = failed_at.replace(from) == Some(from);
            match failed {
                ReadError::Damaged { .. } if !again => reachable!(Mark::ReadAgain),
                ReadError::Damaged { why } => return Err(self.damaged(why).await),
                failed => return Err(failed),
            }
        }
    }

    /// Leaves the group to a replica that has whole what is damaged here, if one takes over.
    async fn damaged(&self, why: String) -> ReadError {
        match !planted(Bug::DamagedKeepsLeading) && self.group.replica().found_damage(&why).await {
            true => ReadError::NotLeader { leader: self.group.leader() },
            false => ReadError::Damaged { why },
        }
    }

    async fn read_extent(&self, extent: &Extent, from: Offset, budget: Budget) -> Result<Batch, ReadError> {
        let shard = extent.shard.id;
        let mut gathered = Gathered::new(from, budget);
        while gathered.next < extent.shard.next && !gathered.full() {
            let entries = self.index.scan(self.group.id(), shard, gathered.next, gathered.missing().min(SCAN))?;
            if entries.is_empty() {
                return Err(self.gap(extent, gathered.next));
            }
            for run in consecutive(&entries) {
                if gathered.full() || gathered.next >= extent.shard.next {
                    break;
                }
                self.take_run(extent, run, &mut gathered).await?;
            }
        }
        let at_tip = gathered.next >= extent.shard.next;
        let ended = extent.ended(gathered.next);
        Ok(Batch { records: gathered.records, bytes: gathered.bytes, next: gathered.next, at_tip, ended })
    }

    /// Takes the slices of `run`, whose log entries follow one another.
    async fn take_run(&self, extent: &Extent, run: &[IndexEntry], gathered: &mut Gathered) -> Result<(), ReadError> {
        let mut left = run;
        while let (Some(first), Some(last)) = (left.first(), left.last())
            && !gathered.full()
        {
            let range = first.log_index..last.log_index + 1;
            let entries = self.group.read_entries(range, FETCH_BYTES).await?;
            if entries.is_empty() {
                return Err(self.gap(extent, gathered.next));
            }
            for (slice, entry) in left.iter().zip(&entries) {
                // The slice may be past what was applied when the state was looked at.
                if gathered.full() || slice.first >= extent.shard.next {
                    return Ok(());
                }
                gathered.take(extent, slice, entry)?;
            }
            left = &left[entries.len().min(left.len())..];
        }
        Ok(())
    }

    fn gap(&self, extent: &Extent, at: Offset) -> ReadError {
        ReadError::Damaged {
            why: format!(
                "group {}: shard {} has records up to offset {}, but none can be found at {at}",
                self.group.id(),
                extent.shard.id,
                extent.shard.next
            ),
        }
    }
}

/// Splits into runs whose log indexes follow one another, so that each is one read of the log.
fn consecutive(entries: &[IndexEntry]) -> impl Iterator<Item = &[IndexEntry]> {
    entries.chunk_by(|a, b| a.log_index + 1 == b.log_index)
}

/// Records on their way into an answer.
struct Gathered {
    records: Vec<StoredRecord>,
    bytes: u64,
    cost: u64,
    next: Offset,
    budget: Budget,
    full: bool,
}

impl Gathered {
    fn new(from: Offset, budget: Budget) -> Gathered {
        Gathered { records: Vec::new(), bytes: 0, cost: 0, next: from, budget, full: false }
    }

    fn full(&self) -> bool {
        self.full || self.missing() == 0
    }

    /// Records that may still be taken: of so many slices at most, each of which has one at least.
    fn missing(&self) -> usize {
        self.budget.records.saturating_sub(self.records.len())
    }

    /// Adds the records of one slice from `next` on, as many as fit.
    fn take(&mut self, extent: &Extent, slice: &IndexEntry, entry: &Entry) -> Result<(), ReadError> {
        let damaged = |why: String| ReadError::Damaged {
            why: format!("log entry {}, byte {}: {why}", slice.log_index, slice.pos),
        };
        if entry.id().index != slice.log_index || !slice.holds(self.next) {
            return Err(damaged(format!(
                "the index says that offsets {} to {} are here, and {} was wanted",
                slice.first,
                slice.end(),
                self.next
            )));
        }
        let of_batch = |error: BatchError| damaged(error.to_string());
        let found = BatchView::slice_at(entry.payload(), slice.pos).map_err(of_batch)?;
        if (found.shard, found.count) != (slice.shard, slice.count) {
            return Err(damaged(format!(
                "holds {} records of shard {}, not {} of {}",
                found.count, found.shard, slice.count, slice.shard
            )));
        }
        let mut records = BatchView::records_at(entry.payload(), slice.pos).map_err(of_batch)?;
        let skip = u32::try_from(self.next.0 - slice.first.0).expect("within the slice");
        records.skip_records(skip).map_err(of_batch)?;
        for record in records {
            let record = record.map_err(of_batch)?;
            let cost = record.size() + RECORD_OVERHEAD;
            if self.full() || (!self.records.is_empty() && self.cost + cost > self.budget.bytes) {
                reachable!(Mark::PageFull);
                if planted(Bug::PageDropsRecord) && self.cost + cost > self.budget.bytes {
                    self.next = self.next.advance(1);
                }
                self.full = true;
                return Ok(());
            }
            self.cost += cost;
            self.bytes += record.size();
            self.records.push(StoredRecord {
                sequence_number: extent.shard.sequence_number(self.next, slice.time_ms),
                arrival_ms: slice.time_ms,
                record,
            });
            self.next = self.next.advance(1);
        }
        assert_eq!(self.next, slice.end(), "a slice was read to its end");
        Ok(())
    }
}

#[cfg(test)]
mod tests;

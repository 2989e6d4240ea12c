//! The record index: where in a group's log the records of a shard lie.
//!
//! One entry per shard slice of a log entry: (group, shard, first offset) → (log index, byte
//! position, count, time). Invariant: the index holds nothing that the log does not. It is derived
//! data, never on the acknowledgement path, and whoever finds it missing or damaged rebuilds it
//! from the log.
//!
//! What makes that cheap to get right is the *mark*: [`RecordIndex::flush`] stores "everything up
//! to log index m is here" so that a mark that survived a crash proves that every entry put before
//! it survived as well. A replica cuts the index back to where it replays its log from.
//!
//! Deliberately absent: record bytes, a time key space (times never fall within a shard, so the
//! keys themselves are searched), and any locking between groups.

#[cfg(feature = "rocksdb")]
mod keys;
pub mod ordered;
#[cfg(feature = "rocksdb")]
pub mod rocks;

#[cfg(test)]
mod conformance;

use std::fmt;

use braid_stream::ids::{GroupId, Offset, ShardId};

/// Where one slice lies: `count` records of one shard in one log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The shard the records belong to.
    pub shard: ShardId,
    /// Offset of the slice's first record.
    pub first: Offset,
    /// Records in the slice, at least 1.
    pub count: u32,
    /// Log index of the entry that holds the slice.
    pub log_index: u64,
    /// Byte position of the slice in that entry's payload.
    pub pos: u32,
    /// Arrival time of the slice's records, milliseconds since the Unix epoch. Never falls from
    /// one slice of a shard to the next.
    pub time_ms: u64,
}

impl IndexEntry {
    /// The offset after the slice's last record.
    pub fn end(&self) -> Offset {
        Offset(self.first.0 + u64::from(self.count))
    }

    /// Whether the slice holds the record at `offset`.
    pub fn holds(&self, offset: Offset) -> bool {
        self.first <= offset && offset < self.end()
    }
}

/// Why the index could not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexError {
    /// Stored bytes are not what was written. The index must be rebuilt from the log; it is
    /// removed at the next start.
    Damaged(String),
    /// The storage refused (disk full, I/O error). What was put since the last flush may be lost.
    Storage(String),
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexError::Damaged(why) => write!(f, "record index is damaged: {why}"),
            IndexError::Storage(why) => write!(f, "record index storage failed: {why}"),
        }
    }
}

impl std::error::Error for IndexError {}

/// The index of every group on a node. All methods may be called from any task.
///
/// Calls block for as long as a memory table or a cached block takes (microseconds), except
/// [`flush`](RecordIndex::flush), [`clear`](RecordIndex::clear) and
/// [`truncate_after`](RecordIndex::truncate_after), which wait for the disk.
pub trait RecordIndex: Send + Sync {
    /// Adds entries, of each shard behind those it has. Visible at once; durable only
    /// after the next [`flush`](RecordIndex::flush).
    fn put(&self, group: GroupId, batch: &[IndexEntry]) -> Result<(), IndexError>;

    /// The entry with the greatest `first` ≤ `offset`. It need not hold `offset`: see
    /// [`IndexEntry::holds`].
    fn seek(&self, group: GroupId, shard: ShardId, offset: Offset) -> Result<Option<IndexEntry>, IndexError>;

    /// Up to `limit` entries in offset order, beginning with the one that holds `from`, or else
    /// the first one after it.
    fn scan(&self, group: GroupId, shard: ShardId, from: Offset, limit: usize) -> Result<Vec<IndexEntry>, IndexError>;

    /// The first entry whose `time_ms` ≥ `ms`. O(log n) seeks.
    fn seek_time(&self, group: GroupId, shard: ShardId, ms: u64) -> Result<Option<IndexEntry>, IndexError>;

    /// Removes the shard's entries that lie wholly below `below`. Cost grows with what is removed.
    fn trim(&self, group: GroupId, shard: ShardId, below: Offset) -> Result<(), IndexError>;

    /// Removes the shard's entries with `first` ≥ `from`. From offset 0 it removes the shard: for a
    /// dropped stream, or one being opened whose id an earlier rebuild may have left entries of.
    fn truncate_from(&self, group: GroupId, shard: ShardId, from: Offset) -> Result<(), IndexError>;

    /// Removes every entry of the group whose `log_index` > `last_kept` and lowers the mark to at
    /// most that, durably: for a log that turns out shorter than the index at start-up. Reads the
    /// whole group.
    fn truncate_after(&self, group: GroupId, last_kept: u64) -> Result<(), IndexError>;

    /// Stores `mark` and makes it and everything put before it durable.
    fn flush(&self, group: GroupId, mark: u64) -> Result<(), IndexError>;

    /// The last flushed mark; `None` means "rebuild from the log's first entry".
    fn mark(&self, group: GroupId) -> Result<Option<u64>, IndexError>;

    /// Forgets a group, mark included, durably.
    fn clear(&self, group: GroupId) -> Result<(), IndexError>;
}

/// The first entry at or after `ms`, by bisecting the offsets between `head` and `tail` (the
/// shard's first and last entries). `floor(o)` is the entry with the greatest `first` ≤ `o`.
///
/// At most 64 calls of `floor`; about log2(records in the shard).
fn bisect_time(
    ms: u64,
    head: IndexEntry,
    tail: IndexEntry,
    mut floor: impl FnMut(u64) -> Result<Option<IndexEntry>, IndexError>,
) -> Result<Option<IndexEntry>, IndexError> {
    if head.time_ms >= ms {
        return Ok(Some(head));
    }
    if tail.time_ms < ms {
        return Ok(None);
    }
    // Invariant: floor(low) is too early; `high` is not.
    let mut low = head.first.0;
    let mut high = tail;
    while high.first.0 - low > 1 {
        let middle = low + (high.first.0 - low) / 2;
        match floor(middle)? {
            Some(entry) if entry.time_ms >= ms => high = entry,
            // `None`: trimmed meanwhile by another task, so everything there is older.
            Some(_) | None => low = middle,
        }
    }
    Ok(Some(high))
}

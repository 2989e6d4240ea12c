//! The facade: one group's log, as the rest of the node sees it.
//!
//! Calls check, enqueue under a short lock and (where they promise durability) wait; the writer task does the rest.
//! Invariant: what a call has promised durable is found by the next `open`, or `open` refuses and says where the damage
//! is. It knows nothing of consensus: terms, votes and commit ids are numbers it keeps.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use braid_env::disk::{self, DirLock};
use braid_env::task::{self, JoinHandle};
use braid_probe::{Bug, Mark, planted, reachable};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::checkpoint::{self, CheckpointError, Checkpoints};
use crate::core::{Core, Status};
use crate::entry::Entry;
use crate::id::{Identity, LogId, SegmentSeq, Vote, end_of};
use crate::open::{self, OpenError, Recovered};
use crate::reader::{self, ReadError};
use crate::segment::{Control, HEADER_BLOCK};
use crate::writer;

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes of a segment file; a larger single entry gets a segment of its own size.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory. What is not durable yet stays regardless.
    pub cache_bytes: usize,
    /// Bytes enqueued and not durable above which [`Log::has_room`] says no. Advice: appends are never refused for it.
    pub queue_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions { segment_bytes: 64 << 20, cache_bytes: 32 << 20, queue_bytes: 32 << 20 }
    }
}

/// Since this log was opened.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct LogStats {
    pub entries: u64,
    /// Bytes of frames written.
    pub bytes: u64,
    pub fsyncs: u64,
    pub batches: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentInfo {
    pub seq: SegmentSeq,
    pub first_index: u64,
    /// `None`: it holds no entry that was not truncated.
    pub last_index: Option<u64>,
    pub bytes: u64,
    pub sealed: bool,
}

/// One group's log. Clones are the same log; when the last one is dropped the writer finishes its queue and stops.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.begin_closing();
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.handle.core.dir).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens or creates the log in `dir`, which is this group's alone (it is locked while the log lives).
    ///
    /// A power cut at any moment is repaired and reported in [`Recovered`]; damage is refused with the file and byte.
    ///
    /// # Panics
    /// If `options.segment_bytes` can't hold a header and a small frame (16 KiB).
    pub async fn open(dir: &Path, id: Identity, options: LogOptions) -> Result<(Log, Recovered), OpenError> {
        assert!(options.segment_bytes >= 4 * HEADER_BLOCK, "segment_bytes is at least 16 KiB");
        let lock = open::lock(dir).await?;
        let opened = open::recover(dir, id, &options).await?;
        let core = Core::new(dir.to_path_buf(), id, options, opened.ledger, opened.checkpointed);
        let core = Arc::new(core);
        core.files.insert(opened.writer.end.seq, opened.writer.file.clone());
        let writer = task::spawn(write_under_lock(core.clone(), opened.writer, lock));
        let handle = Handle { core, writer: Mutex::new(Some(writer)) };
        Ok((Log { handle: Arc::new(handle) }, opened.recovered))
    }

    /// Enqueues consecutive entries, the first at `next_index()`. They are readable when this returns; `done` is called
    /// once, in order with all other appends, after their fdatasync or with the error that ended the log. It must not
    /// block. When this returns an error nothing was enqueued and `done` is not called.
    pub fn append(&self, entries: Vec<Entry>, done: Box<dyn FnOnce(io::Result<()>) + Send>) -> io::Result<()> {
        self.core().enqueue(|log| {
            let mut last = log.ledger.state().last;
            for entry in &entries {
                let id = entry.id();
                if id.index != end_of(last) || last.is_some_and(|l| l.term > id.term) {
                    let after = last.map_or("nothing".into(), |l| l.to_string());
                    return Err(invalid(format!("append of {id} does not follow {after}")));
                }
                last = Some(id);
            }
            for entry in entries {
                log.push_entry(entry);
            }
            log.push_done(done);
            let durable_end = log.durable_end;
            log.ring.evict(durable_end);
            Ok(())
        })
    }

    /// Returns when the vote and every earlier append are durable.
    pub async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let saved = self.core().enqueue(|log| {
            log.push_control(Control::Vote(vote));
            log.ledger.set_vote(vote);
            Ok(log.wait_done())
        })?;
        if planted(Bug::VoteNotAwaited) {
            return Ok(());
        }
        settle(saved).await?;
        reachable!(Mark::VoteSaved);
        Ok(())
    }

    /// Remembers what is committed, without an fsync: written with the next batch, or alone when the writer is idle.
    /// After a crash [`Log::committed`] may be older than this.
    pub fn save_committed(&self, id: LogId) -> io::Result<()> {
        self.core().enqueue(|log| {
            log.ledger.set_committed(Some(id));
            log.push_mark();
            Ok(())
        })
    }

    /// Drops the entries after `last_kept_index` (`None`: all that are not purged); durable on return. Entries are gone
    /// for readers as soon as it is called. Refuses to go below what is purged or has a checkpoint.
    pub async fn truncate_after(&self, last_kept_index: Option<u64>) -> io::Result<()> {
        let cut = self.core().enqueue(|log| {
            let end = last_kept_index.map_or(log.ledger.first_index(), |i| i.saturating_add(1));
            if end >= log.ledger.next_index() {
                return Ok(log.wait_done());
            }
            let applied_end = end_of(log.checkpointed).max(log.ledger.first_index());
            if end < applied_end {
                return Err(invalid(format!(
                    "truncation after {last_kept_index:?}: entries below {applied_end} are purged or have a checkpoint"
                )));
            }
            let kept = end.checked_sub(1).and_then(|i| log.ledger.id_at(i));
            assert_eq!(end_of(kept), end, "the id of a live entry is known");
            log.truncate(kept);
            Ok(log.wait_done())
        })?;
        settle(cut).await?;
        reachable!(Mark::Truncated);
        Ok(())
    }

    /// Raises `purged()` durably, then removes the segments and checkpoints wholly below it. An `upto` beyond the end
    /// leaves an empty log whose next entry is `upto.index + 1`; one at or below `purged()` only removes leftovers.
    ///
    /// # Errors
    /// The log's own failure; or a file that could not be removed, which the next purge or open tries again.
    pub async fn purge(&self, upto: LogId) -> io::Result<()> {
        let purged = self.core().enqueue(|log| {
            if upto.index >= log.ledger.first_index() {
                let here = log.ledger.id_at(upto.index);
                if here.is_some_and(|id| id != upto) {
                    return Err(invalid(format!("purge up to {upto}: the entry there is {here:?}")));
                }
                log.purge(upto);
            }
            Ok(log.wait_done())
        })?;
        settle(purged).await?;
        reachable!(Mark::Purged);
        let (gone, first) = {
            let mut log = self.core().lock();
            (log.ledger.take_removable(), log.ledger.segments()[0].seq)
        };
        if gone.is_empty() {
            return Ok(());
        }
        for seq in gone {
            self.core().files.forget(seq);
            disk::remove_file(self.core().dir.join(seq.file_name())).await?;
            reachable!(Mark::SegmentRemoved);
        }
        checkpoint::remove_before(&self.core().dir, first).await?;
        disk::fsync_dir(&self.core().dir).await
    }

    /// As last enqueued; durable once its `save_vote` has returned.
    pub fn vote(&self) -> Option<Vote> {
        self.core().lock().ledger.state().vote
    }

    /// As last saved; after an open, never beyond `last_id()`.
    pub fn committed(&self) -> Option<LogId> {
        self.core().lock().ledger.state().committed
    }

    /// The last entry enqueued, or `purged()` when no entry is left.
    pub fn last_id(&self) -> Option<LogId> {
        self.core().lock().ledger.state().last
    }

    pub fn purged(&self) -> Option<LogId> {
        self.core().lock().ledger.state().purged
    }

    /// The first index that is not purged: 0 for a new log.
    pub fn first_index(&self) -> u64 {
        self.core().lock().ledger.first_index()
    }

    /// The id of a live entry, or of `purged()`, without reading it.
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        self.core().lock().ledger.id_at(index)
    }

    /// The last durable index; `None` while nothing is (the first entry has index 0).
    pub fn durable_index(&self) -> Option<u64> {
        self.core().lock().durable_end.checked_sub(1)
    }

    /// Waits until the entry at `index`, appended already or not, is durable; an error if the log ends first.
    pub async fn wait_durable(&self, index: u64) -> io::Result<()> {
        self.core().wait_durable(index.saturating_add(1), SegmentSeq(0)).await
    }

    /// Bytes enqueued and not yet durable.
    pub fn queued_bytes(&self) -> usize {
        self.core().lock().queued_bytes()
    }

    /// Whether `queued_bytes()` is below the limit of the options. The caller admits; the log does not refuse.
    pub fn has_room(&self) -> bool {
        self.queued_bytes() < self.core().options.queue_bytes
    }

    /// Live entries from `range.start` on, at most `max_bytes` of [`Entry::wire_len`] but at least one if there is one,
    /// from memory or from the files, checksums verified. Empty when the range starts at or after the end.
    pub async fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
        reader::read(self.core(), range, max_bytes).await
    }

    /// The segment that holds the live entry `index`, known as soon as `append` returned.
    pub fn segment_of(&self, index: u64) -> Option<SegmentSeq> {
        self.core().lock().ledger.segment_of(index).map(|s| s.seq)
    }

    /// `Some` iff `index` is the first live entry of its segment: a checkpoint belongs there.
    pub fn starts_segment(&self, index: u64) -> Option<SegmentSeq> {
        let log = self.core().lock();
        log.ledger.segment_of(index).filter(|s| s.first_index == index).map(|s| s.seq)
    }

    /// Oldest first; the last one takes the appends.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let log = self.core().lock();
        let info = |s: &crate::ledger::Segment| SegmentInfo {
            seq: s.seq,
            first_index: s.first_index,
            last_index: s.next_index.checked_sub(1).filter(|last| *last >= s.first_index),
            bytes: s.used,
            sealed: s.sealed,
        };
        log.ledger.segments().iter().map(info).collect()
    }

    /// Writes `checkpoint-<seq>`: the state after every entry before segment `seq`'s first. Waits until `last` (which
    /// is the entry before) and the segment itself are durable.
    pub async fn write_checkpoint(&self, seq: SegmentSeq, last: LogId, state: Bytes) -> io::Result<()> {
        checkpoint::write(self.core(), seq, last, state).await
    }

    /// A snapshot from elsewhere, at or beyond the end of this log: its state becomes the checkpoint of a new, empty
    /// segment and everything before is purged. All of it survives a crash or none. Returns that segment.
    pub async fn install_checkpoint(&self, last: LogId, state: Bytes) -> io::Result<SegmentSeq> {
        checkpoint::install(self, last, state).await
    }

    /// Reads and verifies all of them, newest last; damaged ones are named apart.
    pub async fn checkpoints(&self) -> io::Result<Checkpoints> {
        checkpoint::list(&self.core().dir, self.core().identity).await
    }

    pub async fn load_checkpoint(&self, seq: SegmentSeq) -> Result<(LogId, Bytes), CheckpointError> {
        checkpoint::load(self.core(), seq).await
    }

    pub async fn remove_checkpoints_before(&self, seq: SegmentSeq) -> io::Result<()> {
        checkpoint::remove_before(&self.core().dir, seq).await?;
        disk::fsync_dir(&self.core().dir).await
    }

    /// Makes everything durable, marks it so (a damaged tail is then told from a torn one), and waits for the writer to
    /// end. Later calls fail.
    pub async fn close(&self) -> io::Result<()> {
        // Twice: the second batch's Mark says that the first is durable.
        for _ in 0..2 {
            let flushed = self.core().enqueue(|log| Ok(log.wait_done()))?;
            settle(flushed).await?;
        }
        self.core().begin_closing();
        let writer = self.handle.writer.lock().expect("nothing panics under this lock").take();
        if let Some(writer) = writer {
            writer.await.map_err(|e| io::Error::other(format!("the writer task ended: {e:?}")))?;
        }
        match &self.core().lock().status {
            Status::Failed(why) => Err(io::Error::other(why.clone())),
            _ => Ok(()),
        }
    }

    pub fn stats(&self) -> LogStats {
        self.core().lock().stats
    }

    /// Why the log takes no more calls; `None` while it is well. A failed log never recovers: open it again.
    pub fn failed(&self) -> Option<String> {
        match &self.core().lock().status {
            Status::Failed(why) => Some(why.clone()),
            Status::Open | Status::Closing => None,
        }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.handle.core
    }
}

/// The lock goes when the last write is done, not when the last handle is dropped.
async fn write_under_lock(core: Arc<Core>, writer: writer::Writer, lock: DirLock) {
    writer::run(core, writer).await;
    drop(lock);
}

impl crate::core::Shared {
    /// What was pushed last is settled when this resolves.
    fn wait_done(&mut self) -> oneshot::Receiver<io::Result<()>> {
        let (send, receive) = oneshot::channel();
        // Nobody may be waiting any more; that changes nothing for the log.
        self.push_done(Box::new(move |result| drop(send.send(result))));
        receive
    }
}

async fn settle(waiting: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    waiting.await.unwrap_or_else(|_| Err(io::Error::other("the writer task was stopped")))
}

pub(crate) fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

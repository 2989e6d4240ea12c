//! What the facade, the writer and the readers share: the ledger, the ring, the queue and the watermarks.
//!
//! Everything is decided here at enqueue, under one short lock and without I/O: an entry's segment and byte, whether
//! the segment rolls, where a batch's Mark stands. The writer only carries it out, in order.
//! Watermarks, rising: *enqueued* (the ledger's end) ≥ *in flight* (what the running batch will make durable) ≥
//! *durable*. A truncation lowers all three at once, so a batch that was in flight when it came cannot raise durable
//! past it. Once failed, the log stays failed: what an fsync that failed has dropped, no later fsync brings back.

use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use braid_env::random;
use braid_env::watch;
use braid_probe::{Bug, Mark, always, planted, reachable};
use tokio::sync::Notify;

use crate::entry::Entry;
use crate::id::{Identity, LogId, SegmentSeq, end_of};
use crate::ledger::Ledger;
use crate::log::{LogOptions, LogStats};
use crate::reader::Files;
use crate::ring::Ring;
use crate::segment::{Control, HEADER_BLOCK, MARK_LEN, SEAL_LEN, SegmentHeader};

pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// One step of the writer. Offsets were assigned at enqueue; the writer asserts them.
pub(crate) enum Op {
    /// Room for a Mark, whose content is known when the batch is written.
    Mark {
        offset: u64,
    },
    Entry {
        entry: Entry,
        offset: u64,
    },
    Control {
        control: Control,
        offset: u64,
    },
    Roll(Box<SegmentHeader>),
}

#[derive(Default)]
struct Queue {
    ops: Vec<Op>,
    done: Vec<Done>,
    bytes: usize,
    /// Something in here must be durable before `done`; a lone Mark need not be.
    sync: bool,
}

/// What the writer takes in one go.
pub(crate) struct Batch {
    pub ops: Vec<Op>,
    pub sync: bool,
    pub committed: Option<LogId>,
    pub entries: u64,
}

#[derive(Default)]
struct InFlight {
    durable_end: u64,
    done: Vec<Done>,
    bytes: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Open,
    Closing,
    Failed(String),
}

/// What others wait for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Durable {
    /// First index that is not durable.
    pub end: u64,
    /// Newest segment whose file is durable.
    pub seq: SegmentSeq,
    /// No more will ever become durable.
    pub stopped: bool,
}

impl Durable {
    /// Whether entries below `end` and the file of segment `seq` are durable.
    pub fn covers(&self, end: u64, seq: SegmentSeq) -> bool {
        self.end >= end && self.seq >= seq
    }
}

pub(crate) struct Shared {
    pub ledger: Ledger,
    pub ring: Ring,
    pub status: Status,
    pub durable_end: u64,
    /// Newest state that has a checkpoint: entries up to here are applied, so never truncated.
    pub checkpointed: Option<LogId>,
    /// Raised by truncations and purges, so that a read that ran beside one knows.
    pub cuts: u64,
    pub stats: LogStats,
    queue: Queue,
    in_flight: InFlight,
    segment_bytes: u64,
    identity: Identity,
}

pub(crate) struct Core {
    pub dir: PathBuf,
    pub identity: Identity,
    pub options: LogOptions,
    pub files: Files,
    pub durable: watch::Sender<Durable>,
    shared: Mutex<Shared>,
    wake: Notify,
}

impl Core {
    /// A log that holds what `ledger` says, all of it durable.
    pub(crate) fn new(
        dir: PathBuf,
        id: Identity,
        options: LogOptions,
        ledger: Ledger,
        checkpointed: Option<LogId>,
    ) -> Core {
        let durable_end = ledger.next_index();
        let durable = Durable { end: durable_end, seq: ledger.last_segment().seq, stopped: false };
        let shared = Shared {
            ring: Ring::new(options.cache_bytes),
            status: Status::Open,
            durable_end,
            checkpointed,
            cuts: 0,
            stats: LogStats::default(),
            queue: Queue::default(),
            in_flight: InFlight::default(),
            segment_bytes: options.segment_bytes,
            identity: id,
            ledger,
        };
        Core {
            files: Files::new(dir.clone()),
            dir,
            identity: id,
            options,
            durable: watch::channel(durable).0,
            shared: Mutex::new(shared),
            wake: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("nothing panics under the log's lock")
    }

    /// Runs `f` on an open log and wakes the writer.
    pub(crate) fn enqueue<R>(&self, f: impl FnOnce(&mut Shared) -> io::Result<R>) -> io::Result<R> {
        let mut shared = self.lock();
        shared.check_open()?;
        let result = f(&mut shared);
        drop(shared);
        self.wake.notify_one();
        result
    }

    /// The writer's side: waits for work. `None` when the log is closing and nothing is left.
    pub(crate) async fn next_batch(&self) -> Option<Batch> {
        loop {
            if let Some(batch) = self.lock().take_batch() {
                return Some(batch);
            }
            if self.lock().status != Status::Open {
                return None;
            }
            self.wake.notified().await;
        }
    }

    /// Everything of the batch is written, and durable if it asked for that.
    pub(crate) fn complete(&self, entries: u64, fsyncs: u64, bytes: u64) {
        let mut shared = self.lock();
        let flight = mem::take(&mut shared.in_flight);
        let before = shared.durable_end;
        always!(
            flight.durable_end >= before,
            Mark::DurableNeverBack,
            "durable went from {before} back to {}",
            flight.durable_end
        );
        shared.durable_end = flight.durable_end;
        let durable_end = shared.durable_end;
        assert!(durable_end <= shared.ledger.next_index(), "durable is never ahead of enqueued");
        shared.ring.evict(durable_end);
        shared.stats.batches += 1;
        shared.stats.entries += entries;
        shared.stats.fsyncs += fsyncs;
        shared.stats.bytes += bytes;
        drop(shared);
        self.durable.send_modify(|d| d.end = durable_end);
        for done in flight.done {
            done(Ok(()));
        }
    }

    /// `old` has its Seal and `new` takes frames from now on.
    pub(crate) fn rolled(&self, old: SegmentSeq, old_len: u64, new: SegmentSeq) {
        self.lock().ledger.mark_sealed(old, old_len);
        self.durable.send_modify(|d| d.seq = new);
    }

    /// Ends the log for good. Whoever waits gets an error, in order; so does every later call.
    pub(crate) fn fail(&self, why: &str) {
        reachable!(Mark::LogFailed);
        let mut shared = self.lock();
        if !matches!(shared.status, Status::Failed(_)) {
            shared.status = Status::Failed(why.to_string());
        }
        let mut waiting = mem::take(&mut shared.in_flight).done;
        waiting.append(&mut mem::take(&mut shared.queue).done);
        drop(shared);
        self.durable.send_modify(|d| d.stopped = true);
        for done in waiting {
            done(Err(failed_error(why)));
        }
        self.wake.notify_one();
    }

    pub(crate) fn begin_closing(&self) {
        let mut shared = self.lock();
        if shared.status == Status::Open {
            shared.status = Status::Closing;
        }
        drop(shared);
        self.wake.notify_one();
    }

    /// Waits until entries below `end` and the file of segment `seq` are durable.
    pub(crate) async fn wait_durable(&self, end: u64, seq: SegmentSeq) -> io::Result<()> {
        let mut durable = self.durable.subscribe();
        let seen = durable.wait_for(|d| d.covers(end, seq) || d.stopped).await.map(|d| *d);
        match seen {
            Ok(d) if d.covers(end, seq) => Ok(()),
            _ => Err(self.lock().stopped_error()),
        }
    }
}

fn failed_error(why: &str) -> io::Error {
    io::Error::other(format!("the log has failed and takes no more calls: {why}"))
}

impl Shared {
    pub(crate) fn check_open(&self) -> io::Result<()> {
        if self.status == Status::Open { Ok(()) } else { Err(self.stopped_error()) }
    }

    pub(crate) fn stopped_error(&self) -> io::Error {
        match &self.status {
            Status::Failed(why) => failed_error(why),
            Status::Open | Status::Closing => io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed"),
        }
    }

    pub(crate) fn push_entry(&mut self, entry: Entry) {
        let len = entry.frame_header().disk_len();
        self.make_room(len);
        let offset = self.ledger.last_segment().used;
        self.ledger.push(entry.id(), len);
        self.queue.bytes += entry.wire_len();
        self.queue.sync = true;
        self.ring.push(entry.clone());
        self.queue.ops.push(Op::Entry { entry, offset });
    }

    pub(crate) fn push_control(&mut self, control: Control) {
        let len = control.disk_len();
        self.make_room(len);
        let offset = self.ledger.push_control(len);
        self.queue.sync = true;
        self.queue.ops.push(Op::Control { control, offset });
    }

    /// Called once everything pushed so far is durable, or will never be.
    pub(crate) fn push_done(&mut self, done: Done) {
        self.push_mark();
        self.queue.sync = true;
        self.queue.done.push(done);
    }

    /// A batch that exists already will carry the newest committed id; otherwise one is opened for it, without fsync.
    pub(crate) fn push_mark(&mut self) {
        if self.queue.ops.is_empty() {
            self.make_room(0);
        }
    }

    pub(crate) fn truncate(&mut self, kept: Option<LogId>) {
        let end = end_of(kept);
        // The frame first: should it roll the segment, the new header states what was true before it.
        if !planted(Bug::TruncationNotLogged) {
            self.push_control(Control::Truncate { kept });
        }
        self.ledger.truncate(kept);
        self.ring.truncate(end);
        self.durable_end = self.durable_end.min(end);
        self.in_flight.durable_end = self.in_flight.durable_end.min(end);
        self.cuts += 1;
    }

    /// Beyond the end it also rolls, so that every segment so far can be removed.
    pub(crate) fn purge(&mut self, upto: LogId) {
        let beyond = upto.index >= self.ledger.next_index();
        self.push_control(Control::Purge { upto });
        self.ledger.purge(upto);
        self.ring.purge(upto.index + 1);
        self.cuts += 1;
        if beyond {
            self.roll(0);
        }
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.bytes + self.in_flight.bytes
    }

    /// Room for `len` bytes at the end of the last segment, in a batch that begins with a Mark (or with a new segment,
    /// whose header says as much as a Mark).
    fn make_room(&mut self, len: u64) {
        let mark = if self.queue.ops.is_empty() { MARK_LEN } else { 0 };
        let segment = self.ledger.last_segment();
        if segment.used + mark + len + SEAL_LEN > segment.capacity {
            self.roll(len);
        } else if mark > 0 {
            let offset = self.ledger.push_control(mark);
            self.queue.ops.push(Op::Mark { offset });
        }
    }

    fn roll(&mut self, len: u64) {
        let last = self.ledger.last_segment();
        let header = SegmentHeader {
            identity: self.identity,
            seq: last.seq.next(),
            salt: random::u64(),
            capacity: self.segment_bytes.max(HEADER_BLOCK + MARK_LEN + len + SEAL_LEN),
            prev_end: last.used,
            state: self.ledger.state(),
        };
        self.ledger.add_segment(&header);
        self.queue.sync = true;
        self.queue.ops.push(Op::Roll(Box::new(header)));
    }

    fn take_batch(&mut self) -> Option<Batch> {
        if self.queue.ops.is_empty() {
            return None;
        }
        let queue = mem::take(&mut self.queue);
        let durable_end = if queue.sync { self.ledger.next_index() } else { self.durable_end };
        let entries = queue.ops.iter().filter(|op| matches!(op, Op::Entry { .. })).count() as u64;
        self.in_flight = InFlight { durable_end, done: queue.done, bytes: queue.bytes };
        let committed = self.ledger.state().committed;
        Some(Batch { ops: queue.ops, sync: queue.sync, committed, entries })
    }
}

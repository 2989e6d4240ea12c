//! The one task that writes: group commit as a loop.
//!
//! It takes everything that has queued up while the last batch was being written, writes it with one vectored write and
//! one fdatasync, then completes its callbacks in order. Nothing is decided here, nothing is retried: the first error
//! ends the log. Payloads are handed to the disk as they are; their checksums were computed when they were born.

use std::io;
use std::mem;
use std::sync::Arc;

use braid_env::disk::File;
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use bytes::{BufMut, Bytes, BytesMut};

use crate::core::{Batch, Core, Op};
use crate::entry::Entry;
use crate::frame::{ALIGN, salt_at};
use crate::id::Position;
use crate::segment::{self, Control, HEADER_BLOCK, SegmentHeader};

/// Bytes. Payloads up to this are cheaper to copy next to their headers than to name to the kernel one by one.
const COPY_BYTES_MAX: usize = 1024;

pub(crate) struct Writer {
    pub file: File,
    pub salt: u64,
    /// Where the next byte goes.
    pub end: Position,
    /// Everything before this is durable; what a Mark may claim.
    pub synced: Position,
}

/// Counts for statistics.
#[derive(Default)]
struct Work {
    fsyncs: u64,
    bytes: u64,
}

pub(crate) async fn run(core: Arc<Core>, mut writer: Writer) {
    // A panic or an abort of this task must not leave callers waiting for ever.
    let mut guard = FailUnlessDone { core: &core, why: "the writer task was stopped".into() };
    while let Some(batch) = core.next_batch().await {
        let entries = batch.entries;
        match writer.write(&core, batch).await {
            Ok(work) => core.complete(entries, work.fsyncs, work.bytes),
            Err(e) => {
                guard.why = format!("{e} (segment {} near byte {})", writer.end.seq, writer.end.offset);
                return;
            }
        }
    }
    guard.why.clear();
    drop(guard);
    core.durable.send_modify(|d| d.stopped = true);
}

struct FailUnlessDone<'a> {
    core: &'a Core,
    why: String,
}

impl Drop for FailUnlessDone<'_> {
    fn drop(&mut self) {
        if !self.why.is_empty() {
            self.core.fail(&self.why);
        }
    }
}

impl Writer {
    async fn write(&mut self, core: &Core, batch: Batch) -> io::Result<Work> {
        sometimes!(batch.entries > 1, Mark::GroupCommit);
        let mut work = Work::default();
        let mut out = Pieces::default();
        for op in batch.ops {
            let at = self.end.offset + out.len;
            match op {
                Op::Mark { offset } => {
                    assert_eq!(offset, at, "the writer is where the mark was placed");
                    let mark = Control::Mark { committed: batch.committed, synced: self.synced };
                    out.control(&mark, self.salt, at);
                }
                Op::Control { control, offset } => {
                    assert_eq!(offset, at, "the writer is where the frame was placed");
                    out.control(&control, self.salt, at);
                }
                Op::Entry { entry, offset } => {
                    assert_eq!(offset, at, "the writer is where the entry was placed");
                    out.entry(&entry, self.salt, at);
                }
                Op::Roll(header) => {
                    self.flush(mem::take(&mut out), true, &mut work).await?;
                    self.roll(core, &header, &mut work).await?;
                }
            }
        }
        let sync = batch.sync && !planted(Bug::AckBeforeFsync);
        self.flush(out, sync, &mut work).await?;
        Ok(work)
    }

    async fn flush(&mut self, out: Pieces, sync: bool, work: &mut Work) -> io::Result<()> {
        let (len, bufs) = out.finish();
        if sync && len > 0 {
            reachable!(Mark::BatchBeforeFsync);
            match self.file.write_at_sync(self.end.offset, bufs).await {
                Err(_) if planted(Bug::FsyncRetried) => self.file.fsync().await?,
                written => written?,
            }
            reachable!(Mark::BatchDurable);
        } else if len > 0 {
            self.file.write_at(self.end.offset, bufs).await?;
        } else if sync && self.synced != self.end {
            self.file.fsync().await?;
        }
        self.end.offset += len;
        work.bytes += len;
        if sync && self.synced != self.end {
            self.synced = self.end;
            work.fsyncs += 1;
        }
        Ok(())
    }

    /// New file durable, then the old one's Seal durable, and only then the first frame into the new file.
    async fn roll(&mut self, core: &Core, header: &SegmentHeader, work: &mut Work) -> io::Result<()> {
        assert_eq!(self.synced, self.end, "a segment is synced whole before its successor is made");
        assert_eq!(header.prev_end, self.end.offset);
        let new = segment::create(&core.dir, header).await?;
        reachable!(Mark::RollBeforeSeal);
        let old_len = segment::seal(&self.file, self.salt, self.end.offset, header.seq).await?;
        let old = self.end.seq;
        core.files.insert(header.seq, new.clone());
        self.file = new;
        self.salt = header.salt;
        self.end = Position { seq: header.seq, offset: HEADER_BLOCK };
        self.synced = self.end;
        core.rolled(old, old_len, header.seq);
        reachable!(Mark::SegmentRolled);
        work.fsyncs += 2;
        Ok(())
    }
}

/// Frames on their way to one vectored write: headers, padding and small payloads gathered, large payloads as they are.
#[derive(Default)]
struct Pieces {
    ready: Vec<Bytes>,
    gathered: BytesMut,
    len: u64,
}

impl Pieces {
    fn control(&mut self, control: &Control, salt: u64, at: u64) {
        control.encode_to(salt, at, &mut self.gathered);
        self.len += control.disk_len();
    }

    fn entry(&mut self, entry: &Entry, salt: u64, at: u64) {
        let header = entry.frame_header();
        self.gathered.put_slice(&header.encode(salt_at(salt, at)));
        let payload = entry.payload();
        if payload.len() <= COPY_BYTES_MAX {
            self.gathered.put_slice(payload);
        } else {
            self.ready.push(self.gathered.split().freeze());
            self.ready.push(payload.clone());
        }
        self.gathered.put_bytes(0, payload.len().next_multiple_of(ALIGN) - payload.len());
        self.len += header.disk_len();
    }

    fn finish(mut self) -> (u64, Vec<Bytes>) {
        if !self.gathered.is_empty() {
            self.ready.push(self.gathered.freeze());
        }
        assert_eq!(self.len, self.ready.iter().map(|b| b.len() as u64).sum::<u64>());
        (self.len, self.ready)
    }
}

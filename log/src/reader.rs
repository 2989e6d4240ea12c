//! Reading entries: from the ring when it reaches back far enough, else from the files, verified.
//!
//! A read is planned under the lock (which bytes of which segment), done without it, and planned again if a truncation
//! or purge came in between: so no caller sees an entry that was gone when its call returned. Files are append-only, so
//! a plan's bytes never change beneath it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use braid_env::disk::{File, Open};
use braid_probe::{Mark, always, reachable, sometimes};
use bytes::Bytes;

use crate::core::{Core, Shared};
use crate::entry::Entry;
use crate::frame::{FrameError, FrameHeader, HEADER, salt_at};
use crate::id::SegmentSeq;
use crate::ledger::{Point, Segment};

/// Bytes read from a file in one go, unless a single entry is larger.
const CHUNK_BYTES: u64 = 1 << 20;
/// Open files kept per log; a group with more segments reopens the cold ones.
const FILES_MAX: usize = 16;

#[derive(Debug)]
pub enum ReadError {
    /// The range starts below the first index that is left.
    Purged {
        first_index: u64,
    },
    /// A file does not hold what was written to it.
    Damaged {
        file: PathBuf,
        byte: u64,
        why: FrameError,
    },
    Io {
        file: PathBuf,
        error: io::Error,
    },
    /// The log is closed or has failed.
    Stopped(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Purged { first_index } => write!(f, "purged: the log starts at {first_index}"),
            ReadError::Damaged { file, byte, why } => {
                write!(f, "{} is damaged at byte {byte}: {why}", file.display())
            }
            ReadError::Io { file, error } => write!(f, "reading {}: {error}", file.display()),
            ReadError::Stopped(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// What one look at the ledger says to do next.
enum Plan {
    Done,
    Chunk(Chunk),
}

/// Bytes of one segment that hold the entries `first..end`.
struct Chunk {
    seq: SegmentSeq,
    salt: u64,
    bytes: Range<u64>,
    points: Vec<Point>,
    first: u64,
    end: u64,
}

pub(crate) async fn read(core: &Core, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, ReadError> {
    let mut taken = Taken { entries: Vec::new(), bytes: 0, max_bytes, next: range.start, full: false };
    let (mut cuts, mut segment) = (None, None);
    loop {
        let chunk = {
            let log = core.lock();
            log.check_open().map_err(ReadError::Stopped)?;
            if range.start < log.ledger.first_index() {
                return Err(ReadError::Purged { first_index: log.ledger.first_index() });
            }
            if cuts.is_some_and(|c| c != log.cuts) {
                taken.restart(range.start);
                reachable!(Mark::ReadPlannedAgain);
            }
            cuts = Some(log.cuts);
            match taken.plan(&log, &range) {
                Plan::Done => {
                    sometimes!(segment.is_none() && !taken.entries.is_empty(), Mark::ReadFromMemory);
                    let mut pairs = taken.entries.windows(2);
                    always!(
                        pairs.all(|pair| pair[0].id().index + 1 == pair[1].id().index),
                        Mark::LogIdsConsecutive,
                        "a read of {range:?} has a gap"
                    );
                    return Ok(taken.entries);
                }
                Plan::Chunk(chunk) => chunk,
            }
        };
        reachable!(Mark::ReadFromFile);
        sometimes!(segment.is_some_and(|seq| seq != chunk.seq), Mark::ReadAcrossSegments);
        segment = Some(chunk.seq);
        match chunk.load(core).await {
            Ok(bytes) => chunk.decode(core, &bytes, &mut taken)?,
            // A purge may have removed the file since; the next plan says so.
            Err(_) if cuts != Some(core.lock().cuts) => {}
            Err(error) => return Err(ReadError::Io { file: core.dir.join(chunk.seq.file_name()), error }),
        }
    }
}

struct Taken {
    entries: Vec<Entry>,
    bytes: usize,
    max_bytes: usize,
    next: u64,
    full: bool,
}

impl Taken {
    fn restart(&mut self, start: u64) {
        *self = Taken { entries: Vec::new(), bytes: 0, max_bytes: self.max_bytes, next: start, full: false };
    }

    fn fits(&mut self, entry: &Entry) -> bool {
        let with = self.bytes.saturating_add(entry.wire_len());
        self.full = self.full || (self.next_is_not_first() && with > self.max_bytes);
        if !self.full {
            self.bytes = with;
            self.next += 1;
        }
        !self.full
    }

    fn next_is_not_first(&self) -> bool {
        self.bytes > 0
    }

    fn plan(&mut self, log: &Shared, range: &Range<u64>) -> Plan {
        let end = range.end.min(log.ledger.next_index());
        let mut entries = std::mem::take(&mut self.entries);
        if self.next < end && !self.full {
            log.ring.copy_from(self.next, |e| e.id().index < end && self.fits(e), &mut entries);
        }
        self.entries = entries;
        if self.next >= end || self.full {
            return Plan::Done;
        }
        let Some(segment) = log.ledger.segment_of(self.next) else {
            return Plan::Done;
        };
        let end = end.min(log.ring.first_index().unwrap_or(u64::MAX)).min(segment.next_index);
        Plan::Chunk(Chunk::plan(segment, self.next, end, (self.max_bytes - self.bytes.min(self.max_bytes)) as u64))
    }
}

impl Chunk {
    fn plan(segment: &Segment, first: u64, end: u64, want_bytes: u64) -> Chunk {
        assert!(first < end, "entries {first}..{end} of segment {}", segment.seq);
        let points = &segment.points;
        let from = points.partition_point(|p| p.index <= first).checked_sub(1).expect("a live entry has a point");
        let start = points[from].offset;
        let enough = start + want_bytes.min(CHUNK_BYTES);
        // At least to the point after the first entry wanted, then as far as it is worth.
        let mut to = from + 1;
        while to < points.len() && points[to].index < end && points[to].offset < enough {
            to += 1;
        }
        let (end, stop) = match points.get(to) {
            Some(next) => (end.min(next.index), next.offset),
            None => (end, segment.used),
        };
        Chunk {
            seq: segment.seq,
            salt: segment.salt,
            bytes: start..stop,
            points: points[from..to].to_vec(),
            first,
            end,
        }
    }

    async fn load(&self, core: &Core) -> io::Result<Bytes> {
        let file = core.files.get(self.seq).await?;
        file.read_at(self.bytes.start, (self.bytes.end - self.bytes.start) as usize).await
    }

    /// Walks from point to point: between two, frames of live entries are contiguous apart from control frames; what
    /// lies after the last of them and before the next point was truncated.
    fn decode(&self, core: &Core, bytes: &Bytes, taken: &mut Taken) -> Result<(), ReadError> {
        for (i, point) in self.points.iter().enumerate() {
            let end = self.points.get(i + 1).map_or(self.end, |next| next.index.min(self.end));
            let mut index = point.index;
            let mut at = (point.offset - self.bytes.start) as usize;
            while index < end && !taken.full {
                let damaged = |why| ReadError::Damaged {
                    file: core.dir.join(self.seq.file_name()),
                    byte: self.bytes.start + at as u64,
                    why,
                };
                let rest = bytes.get(at..).unwrap_or_default();
                let salt = salt_at(self.salt, self.bytes.start + at as u64);
                let header = FrameHeader::decode(rest, salt).map_err(damaged)?;
                let need = HEADER + header.payload_len as usize;
                if rest.len() < need {
                    return Err(damaged(FrameError::Short { have: rest.len(), need }));
                }
                if header.kind.is_entry() {
                    if header.index != index {
                        return Err(damaged(FrameError::NotAnEntry { kind: header.kind as u8 }));
                    }
                    if index >= self.first {
                        let payload = bytes.slice(at + HEADER..at + need);
                        let entry = Entry::from_frame(&header, payload).map_err(damaged)?;
                        if taken.fits(&entry) {
                            taken.entries.push(entry);
                        }
                    }
                    index += 1;
                }
                at += header.disk_len() as usize;
            }
        }
        Ok(())
    }
}

/// Open segment files, the most recently used ones.
pub(crate) struct Files {
    dir: PathBuf,
    open: Mutex<VecDeque<(SegmentSeq, File)>>,
}

impl Files {
    pub(crate) fn new(dir: PathBuf) -> Files {
        Files { dir, open: Mutex::new(VecDeque::new()) }
    }

    pub(crate) fn insert(&self, seq: SegmentSeq, file: File) {
        let mut open = self.open.lock().expect("nothing panics under this lock");
        open.retain(|(s, _)| *s != seq);
        open.push_front((seq, file));
        open.truncate(FILES_MAX);
    }

    pub(crate) fn forget(&self, seq: SegmentSeq) {
        self.open.lock().expect("nothing panics under this lock").retain(|(s, _)| *s != seq);
    }

    async fn get(&self, seq: SegmentSeq) -> io::Result<File> {
        let known = {
            let open = self.open.lock().expect("nothing panics under this lock");
            open.iter().find(|(s, _)| *s == seq).map(|(_, file)| file.clone())
        };
        let file = match known {
            Some(file) => file,
            None => File::open(self.dir.join(seq.file_name()), Open::Read).await?,
        };
        self.insert(seq, file.clone());
        Ok(file)
    }
}

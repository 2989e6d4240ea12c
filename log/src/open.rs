//! Opening a log: reads what is there, asks `recovery.rs` what it means, repairs what a power cut may leave.
//!
//! Invariant: when `recover` returns, everything the ledger says is durable *now*, whatever state the last process left
//! its writes in. Every repair can itself be cut off and is then done again.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use braid_env::disk::{self, DirLock, File, Open};
use braid_env::random;
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use bytes::{Bytes, BytesMut};

use crate::checkpoint::{self, Checkpoints, INSTALL_NAME};
use crate::frame::FrameError;
use crate::id::{Identity, LogId, Position, SegmentSeq};
use crate::ledger::Ledger;
use crate::log::LogOptions;
use crate::recovery::{self, Next, Refusal, Verdict};
use crate::scan::{self, Scan, Stop};
use crate::segment::{self, HEADER_BLOCK, HardState, SEGMENT_PREFIX, SegmentHeader, TEMPORARY_SUFFIX};
use crate::writer::Writer;

const LOCK_NAME: &str = "lock";

#[derive(Debug)]
pub enum OpenError {
    Io {
        path: PathBuf,
        error: io::Error,
    },
    /// Another process, or another handle of this one, has it open.
    Locked {
        dir: PathBuf,
    },
    /// Not the trace of a power cut: something that was durable is not there. `byte` counts from the file's start.
    Damaged {
        file: PathBuf,
        byte: u64,
        why: String,
    },
    Missing {
        file: PathBuf,
        why: String,
    },
    WrongIdentity {
        file: PathBuf,
        found: Identity,
        expected: Identity,
    },
    UnknownFormat {
        file: PathBuf,
        byte: u64,
        why: FrameError,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io { path, error } => write!(f, "{}: {error}", path.display()),
            OpenError::Locked { dir } => write!(f, "{} is in use by another process", dir.display()),
            OpenError::Damaged { file, byte, why } => {
                write!(f, "{} is damaged at byte {byte}: {why}", file.display())
            }
            OpenError::Missing { file, why } => write!(f, "{} is missing: {why}", file.display()),
            OpenError::WrongIdentity { file, found, expected } => {
                write!(f, "{} belongs to {found}, not to {expected}", file.display())
            }
            OpenError::UnknownFormat { file, byte, why } => {
                write!(f, "{} has a format this program can't read at byte {byte}: {why}", file.display())
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// So many readings of a segment that is torn or damaged may differ from the one before.
const READINGS_MAX: usize = 4;

/// A tail that a power cut tore, and that is gone now. Nothing in it was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    pub file: PathBuf,
    pub at: u64,
    pub bytes: u64,
    /// Whole frames among them.
    pub survivors: usize,
}

/// What `open` found and did, for the operator's log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    pub segments: usize,
    pub first_index: u64,
    pub last: Option<LogId>,
    pub cut: Option<Cut>,
    /// A roll that was interrupted was finished.
    pub finished_roll: bool,
    /// A snapshot whose installation was interrupted after the purge is in place now.
    pub finished_install: bool,
    /// Files removed: unfinished temporaries and what a purge had left.
    pub removed: Vec<String>,
    /// Checkpoints that are not served, and why.
    pub damaged_checkpoints: Vec<(String, String)>,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} segments, entries from {}", self.segments, self.first_index)?;
        match self.last {
            Some(last) => write!(f, " to {last}")?,
            None => f.write_str(", none yet")?,
        }
        if let Some(cut) = &self.cut {
            write!(f, "; cut {} unacknowledged bytes off {} at byte {}", cut.bytes, cut.file.display(), cut.at)?;
        }
        if self.finished_roll {
            f.write_str("; finished an interrupted roll")?;
        }
        if self.finished_install {
            f.write_str("; finished an interrupted snapshot installation")?;
        }
        if !self.removed.is_empty() {
            write!(f, "; removed {}", self.removed.join(", "))?;
        }
        for (name, why) in &self.damaged_checkpoints {
            write!(f, "; {name} is damaged: {why}")?;
        }
        Ok(())
    }
}

pub(crate) struct Opened {
    pub ledger: Ledger,
    pub writer: Writer,
    pub checkpointed: Option<LogId>,
    pub recovered: Recovered,
}

/// One segment as read, repaired later.
struct Read {
    header: SegmentHeader,
    file: Bytes,
    scan: Scan,
    verdict: Verdict,
}

pub(crate) async fn lock(dir: &Path) -> Result<DirLock, OpenError> {
    let at = |error| OpenError::Io { path: dir.to_path_buf(), error };
    // Durable on return, the directories above included: what is synced in a directory is lost with its name.
    disk::create_dir_all(dir).await.map_err(at)?;
    match disk::lock_exclusive(dir.join(LOCK_NAME)).await {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(OpenError::Locked { dir: dir.to_path_buf() }),
        locked => locked.map_err(at),
    }
}

pub(crate) async fn recover(dir: &Path, id: Identity, options: &LogOptions) -> Result<Opened, OpenError> {
    let opening = Opening { dir, id };
    let io = |error| OpenError::Io { path: dir.to_path_buf(), error };
    let names = disk::list_dir(dir).await.map_err(io)?;
    // What we see the last process may have made or renamed and then died before it synced the directory:
    // 1. segment 2 is seen, not durable; 2. the roll to it is finished with a durable Seal; 3. power cut: segment 2 is gone.
    disk::fsync_dir(dir).await.map_err(io)?;
    let checkpoints = checkpoint::list(dir, id).await.map_err(io)?;
    let mut seqs: Vec<_> = names.iter().filter_map(|n| SegmentSeq::parse(n, SEGMENT_PREFIX)).collect();
    seqs.sort();
    let mut recovered = Recovered { damaged_checkpoints: checkpoints.damaged.clone(), ..Recovered::default() };
    for name in names.iter().filter(|n| is_temporary(n)) {
        disk::remove_file(dir.join(name)).await.map_err(io)?;
        recovered.removed.push(name.clone());
    }
    if seqs.is_empty() {
        return opening.create(options, &checkpoints, recovered).await;
    }

    let (run, leftovers) = recovery::newest_run(&seqs);
    let (mut ledger, reads) = opening.read_run(run).await?;
    recovery::check_whole(&mut ledger, &checkpoints.good).map_err(|r| opening.refuse(r))?;

    let writer = opening.repair(&mut ledger, reads, &mut recovered).await.map_err(io)?;
    opening.finish_install(&ledger, &names, &mut recovered).await.map_err(io)?;
    let mut gone = leftovers.to_vec();
    gone.extend(ledger.take_removable());
    sometimes!(!gone.is_empty(), Mark::PurgeFinished);
    for seq in gone {
        disk::remove_file(dir.join(seq.file_name())).await.map_err(io)?;
        recovered.removed.push(seq.file_name());
    }
    checkpoint::remove_before(dir, ledger.segments()[0].seq).await.map_err(io)?;
    // 1. purge beyond the end, durable, 2. crash before the roll that follows it: the last segment starts behind the
    // purge now, and a checkpoint it had before says nothing about it any more.
    let checkpoints = checkpoint::list(dir, id).await.map_err(io)?;
    for stale in checkpoints.good.iter().filter(|c| ledger.is_emptied_since(c.seq, c.last)) {
        let name = stale.seq.checkpoint_name();
        disk::remove_file(dir.join(&name)).await.map_err(io)?;
        recovered.removed.push(name);
    }
    disk::fsync_dir(dir).await.map_err(io)?;

    recovered.segments = ledger.segments().len();
    recovered.first_index = ledger.first_index();
    recovered.last = ledger.state().last;
    let checkpointed = checkpoints.good.iter().map(|c| c.last).max();
    Ok(Opened { ledger, writer, checkpointed, recovered })
}

fn is_temporary(name: &str) -> bool {
    let ours = name.starts_with(SEGMENT_PREFIX) || name.starts_with(checkpoint::PREFIX);
    ours && name.ends_with(TEMPORARY_SUFFIX)
}

struct Opening<'a> {
    dir: &'a Path,
    id: Identity,
}

impl Opening<'_> {
    async fn create(
        &self,
        options: &LogOptions,
        checkpoints: &Checkpoints,
        recovered: Recovered,
    ) -> Result<Opened, OpenError> {
        if let Some(orphan) = checkpoints.good.last() {
            let why = format!("no segment is left, but checkpoint {} is here", orphan.seq);
            return Err(self.refuse(Refusal::Missing { seq: orphan.seq, why }));
        }
        let header = SegmentHeader {
            identity: self.id,
            seq: SegmentSeq(1),
            salt: random::u64(),
            capacity: options.segment_bytes,
            prev_end: 0,
            state: HardState::default(),
        };
        let created = segment::create(self.dir, &header).await;
        let file = created.map_err(|error| OpenError::Io { path: self.dir.to_path_buf(), error })?;
        let ledger = Ledger::starting_at(&header);
        let end = Position { seq: header.seq, offset: HEADER_BLOCK };
        let writer = Writer { file, salt: header.salt, end, synced: end };
        let recovered = Recovered { segments: 1, ..recovered };
        Ok(Opened { ledger, writer, checkpointed: None, recovered })
    }

    /// Judges and replays every segment; keeps the last two, the only ones that can need repair.
    async fn read_run(&self, run: &[SegmentSeq]) -> Result<(Ledger, Vec<Read>), OpenError> {
        let mut ledger = None;
        let mut reads: Vec<Read> = Vec::new();
        let mut ahead = None;
        for (i, &seq) in run.iter().enumerate() {
            let (header, file) = match ahead.take() {
                Some(read) => read,
                None => self.read_segment(seq).await?,
            };
            if let Some(&next_seq) = run.get(i + 1) {
                ahead = Some(self.read_segment(next_seq).await?);
            }
            let next = ahead.as_ref().map(|(next, bytes): &(SegmentHeader, Bytes)| Next {
                prev_end: next.prev_end,
                unused: i + 2 == run.len() && scan::written(bytes) <= HEADER_BLOCK,
            });
            let Read { header, file, scan, verdict } = self.judge(seq, header, file, next).await?;
            recovery::replay(&mut ledger, &header, &scan).map_err(|r| self.refuse(r))?;
            if next.is_some() {
                let sealed = matches!(scan.stop, Stop::Sealed { .. });
                let seal = if sealed { segment::SEAL_LEN } else { 0 };
                ledger.as_mut().expect("replay makes one").mark_sealed(seq, scan.end + seal);
            }
            reads.push(Read { header, file, scan, verdict });
            if reads.len() > 2 {
                reads.remove(0);
            }
        }
        Ok((ledger.expect("the run is not empty"), reads))
    }

    /// What the segment is, which is not to be refused. One that is torn or damaged is read again: a bit may have been
    /// misread, and what is cut is gone, though it may have been acknowledged.
    async fn judge(
        &self,
        seq: SegmentSeq,
        mut header: SegmentHeader,
        mut file: Bytes,
        next: Option<Next>,
    ) -> Result<Read, OpenError> {
        let mut readings = 1;
        loop {
            let scan = scan::scan(&header, &file);
            let verdict = recovery::judge(&header, file.len() as u64, &scan, next);
            let doubtful = matches!(verdict, Verdict::CutTail { .. } | Verdict::Refuse(_));
            let again = match doubtful && !planted(Bug::TornAtFirstSight) {
                true => Some(self.read_segment(seq).await?).filter(|again| again.1 != file),
                false => None,
            };
            match (again, verdict) {
                (None, Verdict::Refuse(why)) => return Err(self.refuse(why)),
                (None, verdict) => return Ok(Read { header, file, scan, verdict }),
                (Some(_), _) if readings == READINGS_MAX => {
                    let why = format!("{} readings of it differ", readings + 1);
                    return Err(self.refuse(Refusal::Damaged { seq, byte: scan.end, why }));
                }
                (Some(again), _) => (header, file) = again,
            }
            readings += 1;
        }
    }

    async fn read_segment(&self, seq: SegmentSeq) -> Result<(SegmentHeader, Bytes), OpenError> {
        let path = self.dir.join(seq.file_name());
        let file = disk::read_file(&path).await.map_err(|error| OpenError::Io { path, error })?;
        let header = recovery::judge_header(seq, self.id, SegmentHeader::decode(&file));
        header.map(|h| (h, file)).map_err(|r| self.refuse(r))
    }

    /// Carries out the verdicts, and makes durable what the last process may only have written: after a failed or
    /// missing fsync the page cache shows bytes that the disk does not have, and a later fsync would not write them.
    async fn repair(&self, ledger: &mut Ledger, reads: Vec<Read>, recovered: &mut Recovered) -> io::Result<Writer> {
        let mut reads = reads.into_iter().rev();
        let last = reads.next().expect("the run is not empty");
        if let Some(before) = reads.next().filter(|r| r.verdict == Verdict::FinishRoll) {
            let (seq, next) = (before.header.seq, last.header.seq);
            let file = File::open(self.dir.join(seq.file_name()), Open::ReadWrite).await?;
            let len = segment::seal(&file, before.header.salt, before.scan.end, next).await?;
            ledger.mark_sealed(seq, len);
            recovered.finished_roll = !matches!(before.scan.stop, Stop::Sealed { .. });
            sometimes!(recovered.finished_roll, Mark::RollFinished);
        }

        let (header, scan) = (&last.header, &last.scan);
        let path = self.dir.join(header.seq.file_name());
        let file = File::open(&path, Open::ReadWrite).await?;
        let claimed = scan.claim.filter(|c| c.seq == header.seq).map_or(HEADER_BLOCK, |c| c.offset);
        assert!(claimed <= scan.end, "a claim beyond the end is refused");
        if let Verdict::CutTail { survivors } = last.verdict {
            let bytes = scan.written - scan.end;
            reachable!(Mark::TornTailCut);
            sometimes!(survivors > 0, Mark::TornTailHadFrames);
            recovered.cut = Some(Cut { file: path, at: scan.end, bytes, survivors });
        }
        // Zeroes over the cut, or its bytes would show again behind a shorter write:
        // 1. torn [A B], cut at A; 2. write a, as long as A; 3. power cut: B follows a as if it belonged there.
        let stale = scan.written.saturating_sub(scan.end) as usize;
        let mut bufs = vec![last.file.slice(claimed as usize..scan.end as usize)];
        bufs.push(BytesMut::zeroed(stale).freeze());
        bufs.retain(|b| !b.is_empty());
        if !bufs.is_empty() {
            file.write_at_sync(claimed, bufs).await?;
        }
        let end = Position { seq: header.seq, offset: scan.end };
        Ok(Writer { file, salt: header.salt, end, synced: end })
    }

    async fn finish_install(&self, ledger: &Ledger, names: &[String], recovered: &mut Recovered) -> io::Result<()> {
        if !names.iter().any(|n| n == INSTALL_NAME) {
            return Ok(());
        }
        let path = self.dir.join(INSTALL_NAME);
        match checkpoint::decode(self.id, &disk::read_file(&path).await?) {
            Ok((last, _)) if ledger.state().purged == Some(last) && ledger.segment_starts(last.index + 1) => {
                recovered.finished_install = true;
                reachable!(Mark::InstallFinished);
                checkpoint::finish_install(self.dir, ledger.last_segment().seq).await
            }
            Ok(_) => {
                recovered.removed.push(INSTALL_NAME.into());
                disk::remove_file(path).await
            }
            Err(why) => {
                recovered.damaged_checkpoints.push((INSTALL_NAME.into(), why));
                Ok(())
            }
        }
    }

    fn refuse(&self, refusal: Refusal) -> OpenError {
        reachable!(Mark::DamageRefused);
        let file = |seq: SegmentSeq| self.dir.join(seq.file_name());
        match refusal {
            Refusal::Damaged { seq, byte, why } => OpenError::Damaged { file: file(seq), byte, why },
            Refusal::Missing { seq, why } => OpenError::Missing { file: file(seq), why },
            Refusal::UnknownFormat { seq, byte, why } => OpenError::UnknownFormat { file: file(seq), byte, why },
            Refusal::WrongIdentity { seq, found } => {
                OpenError::WrongIdentity { file: file(seq), found, expected: self.id }
            }
        }
    }
}

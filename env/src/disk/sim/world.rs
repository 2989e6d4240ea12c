//! The simulated disk's state: names, files, power, and the faults that are ordered.
//!
//! Invariant: every change goes through [`World::numbered`], so a test can cut the power at each of them;
//! and with the same seed and the same calls everything comes out the same.
//!
//! It is synchronous and has no lock of its own; `sim` wraps it for async callers, and does the waiting
//! that a [`Turn`] asks for.

mod power;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use super::content::{self, Change, FileData};
use super::digest::Digest;
use super::events::Hook;
use super::faults::{FaultCounters, Ordered, WriteFault};
use super::names::{self, Ino, Names, error};
use super::pace::{Line, Pace};
use crate::disk::{Open, locked_elsewhere, longer_than_asked};
use crate::random::below_with as below;

pub(super) struct World {
    rng: ChaCha12Rng,
    names: Names,
    files: BTreeMap<Ino, FileData>,
    /// How many handles of this epoch keep a file that may have no name any more.
    handles: BTreeMap<Ino, u64>,
    locks: BTreeSet<Ino>,
    powered: bool,
    /// Counts restarts; a handle of an earlier one is dead.
    epoch: u64,
    /// Operations so far.
    ops: u64,
    crash_at_op: Option<u64>,
    pub(super) ordered: Ordered,
    counters: FaultCounters,
    /// In bytes, of all files' lengths together.
    capacity: Option<u64>,
    /// Fsyncs that were begun and are not done.
    syncing: u64,
    pub(super) pace: Pace,
    pub(super) line: Line,
    pub(super) hook: Option<Hook>,
    digest: Digest,
}

/// What an operation that has begun still has to go through.
#[derive(Copy, Clone)]
pub(super) struct Turn {
    /// `None` for no time, but one turn of the scheduler.
    pub(super) takes: Option<Duration>,
    pub(super) life: Life,
}

/// Between two power cuts or kills. An operation belongs to the one it began in.
#[derive(Copy, Clone)]
pub(super) struct Life {
    power_cuts: u64,
    epoch: u64,
}

/// A file that was opened or locked.
pub(super) struct Opened {
    pub(super) ino: Ino,
    pub(super) epoch: u64,
    pub(super) created: bool,
}

/// An fsync that has begun: what it is to make durable, and whether it will fail at that.
pub(super) struct Sync {
    of: Synced,
    fails: bool,
}

#[derive(Copy, Clone)]
enum Synced {
    File(Ino, content::Mark),
    Dir(Ino, names::Mark),
}

impl Sync {
    pub(super) fn is_of_file(&self) -> bool {
        matches!(self.of, Synced::File(..))
    }
}

/// What the digest tells apart.
#[derive(Copy, Clone)]
enum Step {
    Open = 1,
    Write,
    Read,
    Fsync,
    FsyncDone,
    Allocate,
    SetLen,
    Len,
    Rename,
    RemoveFile,
    RemoveDir,
    CreateDir,
    Look,
    Lock,
    PowerCut,
    Restart,
    Kill,
    Flip,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World {
            rng: ChaCha12Rng::seed_from_u64(seed),
            names: Names::new(),
            files: BTreeMap::new(),
            handles: BTreeMap::new(),
            locks: BTreeSet::new(),
            powered: true,
            epoch: 0,
            ops: 0,
            crash_at_op: None,
            ordered: Ordered::default(),
            counters: FaultCounters::default(),
            capacity: None,
            syncing: 0,
            pace: Pace::new(seed),
            line: Line::default(),
            hook: None,
            digest: Digest::default(),
        }
    }

    // Files.

    pub(super) fn open(&mut self, path: &Path, how: Open) -> io::Result<Opened> {
        self.check_power()?;
        self.step_at(Step::Open, path, [how as u64]);
        let place = self.names.place(path);
        let found = match &place {
            Ok(place) => self.names.at(place),
            Err(_) => Some(self.names.resolve(path)?),
        };
        let created = found.is_none();
        let ino = match (found, how) {
            (Some(_), Open::CreateNew) => return Err(error(io::ErrorKind::AlreadyExists, path)),
            (Some(ino), Open::Read) => ino,
            (Some(ino), _) if self.names.is_dir(ino) => {
                return Err(error(io::ErrorKind::IsADirectory, path));
            }
            (Some(ino), _) => ino,
            (None, Open::Read | Open::ReadWrite) => {
                return Err(error(io::ErrorKind::NotFound, path));
            }
            (None, Open::CreateNew | Open::Create) => self.create_file(path)?,
        };
        *self.handles.entry(ino).or_default() += 1;
        Ok(Opened { ino, epoch: self.epoch, created })
    }

    fn create_file(&mut self, path: &Path) -> io::Result<Ino> {
        self.numbered(|world, _| {
            let ino = world.names.create_file(world.names.place(path)?);
            world.files.insert(ino, FileData::default());
            Ok(ino)
        })
    }

    /// Forgets a handle.
    pub(super) fn close(&mut self, ino: Ino, epoch: u64) {
        if epoch != self.epoch {
            return;
        }
        let handles = self.handles.get_mut(&ino).expect("an open file");
        *handles -= 1;
        if *handles == 0 {
            self.handles.remove(&ino);
        }
    }

    pub(super) fn check_handle(&self, epoch: u64) -> io::Result<()> {
        self.check_power()?;
        if epoch != self.epoch {
            return process_is_dead();
        }
        Ok(())
    }

    pub(super) fn write(&mut self, ino: Ino, offset: u64, bufs: &[Bytes]) -> io::Result<()> {
        self.numbered(|world, _| {
            world.step(Step::Write, [ino.0, offset]);
            bufs.iter().for_each(|buf| world.digest.bytes(buf));
            let asked: u64 = bufs.iter().map(|b| b.len() as u64).sum();
            let end = offset.checked_add(asked).ok_or(io::ErrorKind::InvalidInput)?;
            let fits = world.longest(ino)?.saturating_sub(offset).min(asked);
            let fault = world.ordered.next_write.take();
            let done = match fault {
                None => fits,
                Some(WriteFault::Nothing) => 0,
                Some(WriteFault::Prefix) => fits.min(1 + below(&mut world.rng, asked.saturating_sub(1).max(1))),
            };
            let file = world.file(ino)?;
            let (mut at, written_to) = (offset, offset + done);
            for buf in bufs {
                let bytes = buf.slice(..buf.len().min((written_to - at) as usize));
                if !bytes.is_empty() {
                    let offset = at;
                    at += bytes.len() as u64;
                    file.change(Change::Write { offset, bytes });
                }
            }
            match fault {
                None if written_to == end => return Ok(()),
                None => return world.full(),
                Some(WriteFault::Nothing) => world.counters.writes_failed += 1,
                Some(WriteFault::Prefix) => world.counters.writes_short += 1,
            }
            eio()
        })
    }

    pub(super) fn read(&mut self, ino: Ino, offset: u64, len: usize) -> io::Result<Bytes> {
        self.check_power()?;
        self.step(Step::Read, [ino.0, offset, len as u64]);
        let file = self.file(ino)?;
        let misreads = file.misreads();
        let bytes = file.read(offset, len);
        let misread = misreads - file.misreads();
        if std::mem::take(&mut self.ordered.next_read) {
            self.counters.reads_failed += 1;
            return eio();
        }
        self.counters.bits_misread += misread as u64;
        // Else it follows from what was written, which is in the digest.
        if misread > 0 {
            self.digest.bytes(&bytes);
        }
        Ok(bytes.into())
    }

    pub(super) fn begin_fsync(&mut self, ino: Ino) -> io::Result<Sync> {
        self.numbered(|world, dying| {
            world.step(Step::Fsync, [ino.0]);
            let n = world.ordered.fsyncs;
            world.ordered.fsyncs += 1;
            let fails = world.ordered.failing_fsyncs.remove(&n);
            let mark = world.file(ino)?.mark();
            Ok(world.begin_sync(Sync { of: Synced::File(ino, mark), fails }, dying))
        })
    }

    fn begin_sync(&mut self, sync: Sync, dying: bool) -> Sync {
        self.syncing += 1;
        // The power may go before the last sector or after it; its caller won't know.
        if dying && below(&mut self.rng, 2) == 1 {
            let _ = self.finish_sync(&sync);
        }
        sync
    }

    /// What an fsync does in the end, whether or not the file has got more changes meanwhile.
    pub(super) fn finish_sync(&mut self, sync: &Sync) -> io::Result<()> {
        match (sync.of, sync.fails) {
            (Synced::File(ino, mark), false) => self.file(ino)?.sync(mark),
            (Synced::File(ino, mark), true) => {
                self.file(ino)?.fail_sync(mark);
                self.counters.fsyncs_failed += 1;
                return eio();
            }
            (Synced::Dir(dir, mark), false) => {
                self.names.sync_dir(dir, mark);
                self.forget_unreachable();
            }
            (Synced::Dir(..), true) => {
                self.counters.dir_fsyncs_failed += 1;
                return eio();
            }
        }
        let (Synced::File(ino, _) | Synced::Dir(ino, _)) = sync.of;
        self.step(Step::FsyncDone, [ino.0]);
        Ok(())
    }

    /// An fsync that began in `life` is over, one way or another.
    pub(super) fn end_sync(&mut self, life: Life) {
        if life.power_cuts == self.counters.power_cuts {
            self.syncing -= 1;
        }
    }

    pub(super) fn allocate(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        self.numbered(|world, _| {
            world.step(Step::Allocate, [ino.0, len]);
            let is = world.file(ino)?.live().len();
            if is > len {
                return Err(longer_than_asked(is, len));
            }
            if len > world.longest(ino)? {
                return world.full();
            }
            world.file(ino)?.change(Change::Grow(len));
            Ok(())
        })
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        self.numbered(|world, _| {
            world.step(Step::SetLen, [ino.0, len]);
            if len > world.longest(ino)? {
                return world.full();
            }
            world.file(ino)?.change(Change::SetLen(len));
            Ok(())
        })
    }

    pub(super) fn len(&mut self, ino: Ino) -> io::Result<u64> {
        self.check_power()?;
        self.step(Step::Len, [ino.0]);
        Ok(self.file(ino)?.live().len())
    }

    // Names.

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.numbered(|world, _| {
            world.step_at(Step::Rename, from, []);
            world.digest.bytes(to.as_os_str().as_encoded_bytes());
            if std::mem::take(&mut world.ordered.next_rename) {
                world.counters.renames_failed += 1;
                return eio();
            }
            world.names.rename(from, to)
        })
    }

    pub(super) fn begin_fsync_dir(&mut self, path: &Path) -> io::Result<Sync> {
        self.numbered(|world, dying| {
            let dir = world.names.resolve(path)?;
            world.step(Step::Fsync, [dir.0]);
            if !world.names.is_dir(dir) {
                return Err(error(io::ErrorKind::NotADirectory, path));
            }
            let fails = std::mem::take(&mut world.ordered.next_fsync_dir);
            let of = Synced::Dir(dir, world.names.mark());
            Ok(world.begin_sync(Sync { of, fails }, dying))
        })
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.numbered(|world, _| {
            world.step_at(Step::RemoveFile, path, []);
            if world.names.is_dir(world.names.resolve(path)?) {
                return Err(error(io::ErrorKind::IsADirectory, path));
            }
            world.names.unlink(world.names.place(path)?);
            Ok(())
        })
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        self.numbered(|world, _| {
            world.step_at(Step::RemoveDir, path, []);
            world.names.unlink(world.names.place(path)?);
            Ok(())
        })
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.numbered(|world, _| {
            world.step_at(Step::CreateDir, path, []);
            let place = world.names.place(path)?;
            if world.names.at(&place).is_some() {
                return Err(error(io::ErrorKind::AlreadyExists, path));
            }
            world.names.create_dir(place);
            Ok(())
        })
    }

    pub(super) fn list_dir(&mut self, path: &Path) -> io::Result<Vec<String>> {
        self.check_power()?;
        self.step_at(Step::Look, path, []);
        self.names.list(self.names.resolve(path)?)
    }

    pub(super) fn exists(&mut self, path: &Path) -> io::Result<bool> {
        self.check_power()?;
        self.step_at(Step::Look, path, []);
        match self.names.resolve(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) fn is_dir(&mut self, path: &Path) -> io::Result<bool> {
        Ok(self.exists(path)? && self.names.is_dir(self.names.resolve(path)?))
    }

    pub(super) fn read_file(&mut self, path: &Path) -> io::Result<Bytes> {
        self.check_power()?;
        let ino = self.names.resolve(path)?;
        self.read(ino, 0, usize::MAX)
    }

    pub(super) fn lock(&mut self, path: &Path) -> io::Result<Opened> {
        self.check_power()?;
        self.step_at(Step::Lock, path, []);
        let found = self.names.resolve(path);
        let created = found.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        let ino = if created { self.create_file(path)? } else { found? };
        if !self.locks.insert(ino) {
            return Err(locked_elsewhere(path));
        }
        Ok(Opened { ino, epoch: self.epoch, created })
    }

    pub(super) fn unlock(&mut self, ino: Ino, epoch: u64) {
        if epoch == self.epoch {
            self.locks.remove(&ino);
        }
    }

    // Below the surface.

    /// Does `what` as the next numbered operation. When the power goes at it, it has begun: it is done as
    /// far as the page cache, where the restart decides about it, and its caller learns nothing.
    fn numbered<T>(&mut self, what: impl FnOnce(&mut World, bool) -> io::Result<T>) -> io::Result<T> {
        self.check_power()?;
        let dying = self.crash_at_op.is_some_and(|n| self.ops >= n);
        self.ops += 1;
        let result = what(self, dying);
        if dying {
            self.power_cut();
            return power_is_off();
        }
        result
    }

    fn step<const N: usize>(&mut self, step: Step, numbers: [u64; N]) {
        self.digest.number(step as u64);
        self.digest.numbers(numbers);
    }

    fn step_at<const N: usize>(&mut self, step: Step, path: &Path, numbers: [u64; N]) {
        self.step(step, numbers);
        self.digest.bytes(path.as_os_str().as_encoded_bytes());
    }

    fn full<T>(&mut self) -> io::Result<T> {
        self.counters.out_of_space += 1;
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }

    fn check_power(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { power_is_off() }
    }

    fn file(&mut self, ino: Ino) -> io::Result<&mut FileData> {
        // The only numbers without a file are directories, which can be opened to read.
        self.files.get_mut(&ino).ok_or_else(|| io::ErrorKind::IsADirectory.into())
    }

    /// How long a file may become, in bytes. It may keep the length it has, and holes count as data.
    fn longest(&mut self, ino: Ino) -> io::Result<u64> {
        let is = self.file(ino)?.live().len();
        let Some(capacity) = self.capacity else {
            return Ok(u64::MAX);
        };
        let mut used = 0_u64;
        self.names.each_file(&mut |ino| used += self.files[&ino].live().len());
        Ok(is.saturating_add(capacity.saturating_sub(used)))
    }

    fn forget_unreachable(&mut self) {
        let reached = self.names.retain_reachable();
        let handles = &self.handles;
        self.files.retain(|ino, _| reached.contains(ino) || handles.contains_key(ino));
    }
}

fn power_is_off<T>() -> io::Result<T> {
    Err(io::Error::other("power is off"))
}

fn process_is_dead<T>() -> io::Result<T> {
    Err(io::Error::other("the file was opened before the restart"))
}

fn eio<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EIO))
}

//! The simulated disk's state: names, files, power, and the faults that are ordered.
//!
//! Invariant: every change goes through [`World::numbered`], so a test can cut the power at each of them;
//! and with the same seed and the same calls everything comes out the same.
//!
//! It is synchronous and has no lock of its own; `sim` wraps it for async callers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Survive;
use super::content::{Change, FileData};
use super::names::{Ino, Names, error};
use crate::disk::{Open, locked_elsewhere, longer_than_asked};
use crate::random::below_with as below;

pub(crate) struct World {
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
    faults: Faults,
    /// In bytes, of all files' lengths together.
    capacity: Option<u64>,
}

#[derive(Default)]
struct Faults {
    /// How many fsyncs (of files) there were, and which are to fail.
    fsyncs: u64,
    failing_fsyncs: BTreeSet<u64>,
    next_fsync_dir: bool,
    next_write: bool,
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
            faults: Faults::default(),
            capacity: None,
        }
    }

    // Files.

    pub(super) fn open(&mut self, path: &Path, how: Open) -> io::Result<(Ino, u64)> {
        self.check_power()?;
        let place = self.names.place(path);
        let found = match &place {
            Ok(place) => self.names.at(place),
            Err(_) => Some(self.names.resolve(path)?),
        };
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
        Ok((ino, self.epoch))
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
            return Err(io::Error::other("the file was opened before the restart"));
        }
        Ok(())
    }

    pub(super) fn write(&mut self, ino: Ino, offset: u64, bufs: &[Bytes]) -> io::Result<()> {
        self.numbered(|world, _| {
            if std::mem::take(&mut world.faults.next_write) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            let asked: u64 = bufs.iter().map(|b| b.len() as u64).sum();
            let end = offset.checked_add(asked).ok_or(io::ErrorKind::InvalidInput)?;
            let fits = world.longest(ino)?.saturating_sub(offset).min(asked);
            let file = world.file(ino)?;
            let (mut at, written_to) = (offset, offset + fits);
            for buf in bufs {
                let bytes = buf.slice(..buf.len().min((written_to - at) as usize));
                if !bytes.is_empty() {
                    let offset = at;
                    at += bytes.len() as u64;
                    file.change(Change::Write { offset, bytes });
                }
            }
            if written_to == end { Ok(()) } else { full() }
        })
    }

    pub(super) fn read(&mut self, ino: Ino, offset: u64, len: usize) -> io::Result<Bytes> {
        self.check_power()?;
        Ok(self.file(ino)?.read(offset, len).into())
    }

    pub(super) fn fsync(&mut self, ino: Ino) -> io::Result<()> {
        self.numbered(|world, dying| {
            let n = world.faults.fsyncs;
            world.faults.fsyncs += 1;
            // The power may go before the last sector or after it.
            let dies_before = dying && below(&mut world.rng, 2) == 0;
            if world.faults.failing_fsyncs.remove(&n) {
                world.file(ino)?.fail_sync();
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if !dies_before {
                world.file(ino)?.sync();
            }
            Ok(())
        })
    }

    pub(super) fn allocate(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        self.numbered(|world, _| {
            let is = world.file(ino)?.live().len();
            if is > len {
                return Err(longer_than_asked(is, len));
            }
            if len > world.longest(ino)? {
                return full();
            }
            world.file(ino)?.change(Change::Grow(len));
            Ok(())
        })
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        self.numbered(|world, _| {
            if len > world.longest(ino)? {
                return full();
            }
            world.file(ino)?.change(Change::SetLen(len));
            Ok(())
        })
    }

    pub(super) fn len(&mut self, ino: Ino) -> io::Result<u64> {
        self.check_power()?;
        Ok(self.file(ino)?.live().len())
    }

    // Names.

    pub(in crate::disk) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.numbered(|world, _| world.names.rename(from, to))
    }

    pub(in crate::disk) fn fsync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.numbered(|world, dying| {
            let dir = world.names.resolve(path)?;
            let dies_before = dying && below(&mut world.rng, 2) == 0;
            if std::mem::take(&mut world.faults.next_fsync_dir) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            if !dies_before {
                world.names.sync_dir(dir)?;
                world.forget_unreachable();
            }
            Ok(())
        })
    }

    pub(in crate::disk) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.numbered(|world, _| {
            if world.names.is_dir(world.names.resolve(path)?) {
                return Err(error(io::ErrorKind::IsADirectory, path));
            }
            world.names.unlink(world.names.place(path)?);
            Ok(())
        })
    }

    pub(in crate::disk) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        for name in self.list_dir(path)? {
            let inner = path.join(name);
            if self.is_dir(&inner)? {
                self.remove_dir_all(&inner)?;
            } else {
                self.remove_file(&inner)?;
            }
        }
        self.numbered(|world, _| {
            world.names.unlink(world.names.place(path)?);
            Ok(())
        })
    }

    pub(in crate::disk) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.numbered(|world, _| {
            let place = world.names.place(path)?;
            if world.names.at(&place).is_some() {
                return Err(error(io::ErrorKind::AlreadyExists, path));
            }
            world.names.create_dir(place);
            Ok(())
        })
    }

    pub(in crate::disk) fn list_dir(&mut self, path: &Path) -> io::Result<Vec<String>> {
        self.check_power()?;
        self.names.list(self.names.resolve(path)?)
    }

    pub(in crate::disk) fn exists(&mut self, path: &Path) -> io::Result<bool> {
        self.check_power()?;
        match self.names.resolve(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(in crate::disk) fn is_dir(&mut self, path: &Path) -> io::Result<bool> {
        Ok(self.exists(path)? && self.names.is_dir(self.names.resolve(path)?))
    }

    pub(in crate::disk) fn read_file(&mut self, path: &Path) -> io::Result<Bytes> {
        self.check_power()?;
        let ino = self.names.resolve(path)?;
        self.read(ino, 0, usize::MAX)
    }

    /// The number of what was locked.
    pub(super) fn lock(&mut self, path: &Path) -> io::Result<(Ino, u64)> {
        self.check_power()?;
        let ino = match self.names.resolve(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.create_file(path)?,
            other => other?,
        };
        if !self.locks.insert(ino) {
            return Err(locked_elsewhere(path));
        }
        Ok((ino, self.epoch))
    }

    pub(super) fn unlock(&mut self, ino: Ino, epoch: u64) {
        if epoch == self.epoch {
            self.locks.remove(&ino);
        }
    }

    // Power and faults.

    pub(super) fn ops(&self) -> u64 {
        self.ops
    }

    pub(super) fn is_powered(&self) -> bool {
        self.powered
    }

    pub(super) fn crash_at_op(&mut self, n: u64) {
        self.crash_at_op = Some(n);
    }

    pub(super) fn power_cut(&mut self) {
        self.powered = false;
    }

    pub(super) fn restart(&mut self, how: Survive) {
        self.names.settle(how, &mut self.rng);
        for file in self.files.values_mut() {
            file.settle(how, &mut self.rng);
        }
        self.powered = true;
        self.crash_at_op = None;
        self.faults = Faults::default();
        self.kill_process();
    }

    pub(super) fn kill_process(&mut self) {
        self.epoch += 1;
        self.handles.clear();
        self.locks.clear();
        self.forget_unreachable();
    }

    pub(super) fn fail_nth_fsync(&mut self, n: u64) {
        self.faults.failing_fsyncs.insert(self.faults.fsyncs + n);
    }

    pub(super) fn fail_next_fsync_dir(&mut self) {
        self.faults.next_fsync_dir = true;
    }

    pub(super) fn fail_next_write(&mut self) {
        self.faults.next_write = true;
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    // What tests see and do behind the back of the code that uses the disk, powered or not.

    pub(super) fn named(&mut self, path: &Path) -> Option<&mut FileData> {
        let ino = self.names.resolve(path).ok()?;
        self.files.get_mut(&ino)
    }

    pub(super) fn durable(&self, path: &Path) -> Option<Vec<u8>> {
        let content = self.files.get(&self.names.resolve_durable(path)?)?.durable();
        Some(content.read(0, usize::MAX))
    }

    /// Makes or replaces a file and the directories above it, and syncs all names there are.
    pub(super) fn put_durably(&mut self, path: &Path, bytes: &[u8]) {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for dir in above.iter().rev() {
            if let (Err(_), Ok(place)) = (self.names.resolve(dir), self.names.place(dir)) {
                self.names.create_dir(place);
            }
        }
        let ino = match self.names.resolve(path) {
            Ok(ino) => ino,
            Err(_) => {
                let place = self.names.place(path).expect("its directory was just made");
                self.names.create_file(place)
            }
        };
        self.names.sync_all();
        self.files.insert(ino, FileData::holding(bytes));
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.names.files().into_iter().map(|(p, _)| p).collect()
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
            self.powered = false;
            return power_is_off();
        }
        result
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
        let named = self.names.files();
        let used: u64 = named.iter().map(|(_, i)| self.files[i].live().len()).sum();
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

fn full<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::ENOSPC))
}

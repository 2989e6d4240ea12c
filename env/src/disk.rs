//! Files and directories.
//!
//! Invariant: nothing returns before it happened, and nothing is durable before it was synced:
//!
//! | after                                    | survives a power cut once                        |
//! |------------------------------------------|--------------------------------------------------|
//! | `write_at`, `allocate`, `set_len`        | [`File::fsync`] of that file returned            |
//! | creating, renaming or removing a name    | [`fsync_dir`] of the directory it is in returned |
//! | `write_at_sync`, `write_file_durably`, `create_dir_all` | it returned                       |
//!
//! What is written is visible to every reader at once, synced or not. A failed fsync means that what was
//! unsynced is gone, whatever a later read or fsync says: stop, don't retry.
//!
//! Every call is queued at its first poll. Dropping the future after that does not undo it: whether it
//! happens is then unknown. Errors are the operating system's, passed on as they are.
//!
//! It does not cache, checksum or lay out anything. The real side is in `real`, on the threads of
//! `threads`; the simulated one is [`sim`].

mod real;
pub mod sim;
mod threads;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::seam;

/// How to open a file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Open {
    /// An existing one, to read only.
    Read,
    /// A new one, to read and write; `AlreadyExists` when there is one.
    CreateNew,
    /// An existing one, to read and write.
    ReadWrite,
    /// To read and write, made when missing. What it holds is kept.
    Create,
}

/// An open file. Clones are the same file, and the writes of all clones run in the order they were asked
/// for. Two separate `open`s of one path are not ordered among each other.
#[derive(Clone)]
pub struct File(Backend);

#[derive(Clone)]
enum Backend {
    Real(real::RealFile),
    Sim(sim::SimFile),
}

impl File {
    /// # Errors
    ///
    /// `NotFound`, `AlreadyExists` (only with [`Open::CreateNew`]), `PermissionDenied`, …
    pub async fn open(path: impl AsRef<Path>, how: Open) -> io::Result<File> {
        let path = path.as_ref().to_owned();
        Ok(File(match seam::disk() {
            None => Backend::Real(real::RealFile::open(path, how).await?),
            Some(sim) => Backend::Sim(sim::SimFile::open(sim, path, how).await?),
        }))
    }

    /// Writes `bufs`, one after the other, from byte `offset` on; the file grows as needed.
    ///
    /// # Errors
    ///
    /// All of it is written, or an error tells that any part of it may be. `StorageFull` on a full disk.
    pub async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let bytes = bytes_in(&bufs);
        match &self.0 {
            Backend::Real(file) => file.write_at(offset, bufs).await?,
            Backend::Sim(file) => file.write_at(offset, bufs).await?,
        }
        count_write(bytes);
        Ok(())
    }

    /// [`File::write_at`] and [`File::fsync`] in one hop to the I/O thread.
    ///
    /// # Errors
    ///
    /// Of either; after any of them the replica has to stop.
    pub async fn write_at_sync(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let bytes = bytes_in(&bufs);
        match &self.0 {
            Backend::Real(file) => file.write_at_sync(offset, bufs).await?,
            Backend::Sim(file) => file.write_at_sync(offset, bufs).await?,
        }
        count_write(bytes);
        FSYNCS.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The `len` bytes from byte `offset` on; fewer, or none, only where the file ends. Allocates `len`
    /// bytes up front, so a length from an untrusted source is to be checked first.
    pub async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let bytes = match &self.0 {
            Backend::Real(file) => file.read_at(offset, len).await?,
            Backend::Sim(file) => file.read_at(offset, len).await?,
        };
        count_read(bytes.len());
        Ok(bytes)
    }

    /// Makes every write, `allocate` and `set_len` that returned before durable (fdatasync: the data and
    /// the length).
    ///
    /// # Errors
    ///
    /// What was unsynced is gone or not, and a second fsync would wrongly succeed: the replica has to
    /// stop.
    pub async fn fsync(&self) -> io::Result<()> {
        match &self.0 {
            Backend::Real(file) => file.fsync().await?,
            Backend::Sim(file) => file.fsync().await?,
        }
        FSYNCS.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Grows the file to `len` bytes, the new ones zero and their space reserved, so that writing them
    /// later needs no room and changes no length. Where the file system can't reserve, it only grows.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the file is longer than `len`; `StorageFull`.
    pub async fn allocate(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Backend::Real(file) => file.allocate(len).await,
            Backend::Sim(file) => file.allocate(len).await,
        }
    }

    /// Cuts the file to `len` bytes, or grows it with zeroes.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Backend::Real(file) => file.set_len(len).await,
            Backend::Sim(file) => file.set_len(len).await,
        }
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty)] // A future of a length is no container's.
    pub async fn len(&self) -> io::Result<u64> {
        match &self.0 {
            Backend::Real(file) => file.len().await,
            Backend::Sim(file) => file.len().await,
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Backend::Real(_) => "File(real)",
            Backend::Sim(_) => "File(simulated)",
        })
    }
}

/// Gives the file or directory `from` the name `to`, at once for every reader; a file of that name is
/// replaced. Durable after [`fsync_dir`] of the directory (of both, when there are two).
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    match seam::disk() {
        None => real::rename(from, to).await,
        Some(sim) => sim.rename(&from, &to).await,
    }
}

/// Makes what was created, renamed or removed directly in the directory `path` durable. Not the contents
/// of its files.
///
/// # Errors
///
/// As bad as [`File::fsync`]'s.
pub async fn fsync_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    match seam::disk() {
        None => real::fsync_dir(path).await?,
        Some(sim) => sim.fsync_dir(&path).await?,
    }
    FSYNCS.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Removes a file's name. Handles that are open go on working.
pub async fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    match seam::disk() {
        None => real::remove_file(path).await,
        Some(sim) => sim.remove_file(&path).await,
    }
}

/// Removes a directory and all in it. A crash on the way leaves any part of it.
pub async fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref().to_owned();
    match seam::disk() {
        None => real::remove_dir_all(path).await,
        Some(sim) => sim.remove_dir_all(&path).await,
    }
}

/// Makes the directory `path` and those above it that are missing; durable on return, without any
/// `fsync_dir`. Does nothing but sync when it is there.
pub async fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let mut missing = Vec::new();
    let mut found = None;
    for dir in path.ancestors() {
        if dir.as_os_str().is_empty() {
            break;
        }
        if is_dir(dir).await? {
            found = Some(dir);
            break;
        }
        missing.push(dir);
    }
    for dir in missing.iter().rev() {
        match create_dir(dir).await {
            // Someone else made it meanwhile. Were it a file, the next step down would say so.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_dir(dir).await? => {}
            other => other?,
        }
        fsync_dir(parent_of(dir)).await?;
    }
    if let Some(found) = found {
        // 1. A process makes the directory, or the first of several, and is killed before it syncs the
        // parent. 2. It starts again, finds that one there, and stores things in it. 3. The power goes, and
        // the directory with all in it. So sync what was there already too; but a mount point's parent may
        // not be ours to open.
        match fsync_dir(parent_of(found)).await {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

/// The names in a directory, without the path, sorted.
///
/// # Errors
///
/// `NotFound`; `NotADirectory`; `InvalidData` when a name is not UTF-8.
pub async fn list_dir(path: impl AsRef<Path>) -> io::Result<Vec<String>> {
    let path = path.as_ref().to_owned();
    match seam::disk() {
        None => real::list_dir(path).await,
        Some(sim) => sim.list_dir(&path).await,
    }
}

/// Whether there is a file or directory of that name.
pub async fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    let path = path.as_ref().to_owned();
    match seam::disk() {
        None => real::exists(path).await,
        Some(sim) => sim.exists(&path).await,
    }
}

/// All of a file's bytes. For small files.
pub async fn read_file(path: impl AsRef<Path>) -> io::Result<Bytes> {
    let path = path.as_ref().to_owned();
    let bytes = match seam::disk() {
        None => real::read_file(path).await?,
        Some(sim) => sim.read_file(&path).await?,
    };
    count_read(bytes.len());
    Ok(bytes)
}

/// Puts `bytes` in the file `path` so that, whenever the power goes, it holds all of the old bytes or all
/// of the new ones; the new ones once this returned. Goes by way of `<path>.tmp`, which a crash may leave
/// behind and the next call replaces; so one call at a time per path.
pub async fn write_file_durably(path: impl AsRef<Path>, bytes: Bytes) -> io::Result<()> {
    let path = path.as_ref();
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let tmp = PathBuf::from(tmp);
    let file = File::open(&tmp, Open::Create).await?;
    file.set_len(0).await?;
    file.write_at_sync(0, vec![bytes]).await?;
    rename(&tmp, path).await?;
    fsync_dir(parent_of(path)).await
}

/// Locks `path` against every other process and every other lock in this one (flock). `path` is a
/// directory, or a file that is made when missing. The lock falls when its holder is dropped or dies.
///
/// # Errors
///
/// `WouldBlock` when it is held already; never waits.
pub async fn lock_exclusive(path: impl AsRef<Path>) -> io::Result<DirLock> {
    let path = path.as_ref().to_owned();
    Ok(DirLock {
        _held: match seam::disk() {
            None => Held::Real(real::lock_exclusive(path).await?),
            Some(sim) => Held::Sim(sim::SimLock::take(sim, path).await?),
        },
    })
}

/// A lock, held until it is dropped.
#[must_use = "the lock is held until this is dropped"]
pub struct DirLock {
    _held: Held,
}

#[allow(dead_code)] // Both are there to be dropped.
enum Held {
    Real(fs::File),
    Sim(sim::SimLock),
}

impl fmt::Debug for DirLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirLock")
    }
}

/// What this process asked of its disks and got, real and simulated together, since it started. One
/// `write_at` is one write however many buffers it had; `fsyncs` has those of directories too.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct DiskCounters {
    pub writes: u64,
    pub bytes_written: u64,
    pub fsyncs: u64,
    pub reads: u64,
    pub bytes_read: u64,
}

static WRITES: AtomicU64 = AtomicU64::new(0);
static BYTES_WRITTEN: AtomicU64 = AtomicU64::new(0);
static FSYNCS: AtomicU64 = AtomicU64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);
static BYTES_READ: AtomicU64 = AtomicU64::new(0);

/// The counters now. They only grow; each is exact, but they are not read at one moment.
pub fn counters() -> DiskCounters {
    DiskCounters {
        writes: WRITES.load(Ordering::Relaxed),
        bytes_written: BYTES_WRITTEN.load(Ordering::Relaxed),
        fsyncs: FSYNCS.load(Ordering::Relaxed),
        reads: READS.load(Ordering::Relaxed),
        bytes_read: BYTES_READ.load(Ordering::Relaxed),
    }
}

fn count_write(bytes: u64) {
    WRITES.fetch_add(1, Ordering::Relaxed);
    BYTES_WRITTEN.fetch_add(bytes, Ordering::Relaxed);
}

fn count_read(bytes: usize) {
    READS.fetch_add(1, Ordering::Relaxed);
    BYTES_READ.fetch_add(bytes as u64, Ordering::Relaxed);
}

fn bytes_in(bufs: &[Bytes]) -> u64 {
    bufs.iter().map(|b| b.len() as u64).sum()
}

async fn create_dir(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    match seam::disk() {
        None => real::create_dir(path).await,
        Some(sim) => sim.create_dir(&path).await,
    }
}

async fn is_dir(path: &Path) -> io::Result<bool> {
    let path = path.to_owned();
    match seam::disk() {
        None => real::is_dir(path).await,
        Some(sim) => sim.is_dir(&path).await,
    }
}

/// The directory that `path` is a name in.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        None => path, // The root is its own.
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
    }
}

fn longer_than_asked(is: u64, asked: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the file has {is} bytes, more than the {asked} to allocate"))
}

fn locked_elsewhere(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, format!("{} is locked by another process", path.display()))
}

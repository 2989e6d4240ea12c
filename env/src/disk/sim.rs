//! A simulated disk, with power cuts, lost and torn writes, and every fault a test can order.
//!
//! ```
//! use braid_env::disk::{self, File, Open, sim::{self, SimDisk, Survive}};
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let disk = SimDisk::new(7);
//! let _guard = sim::enter(&disk);
//! let file = File::open("/a", Open::CreateNew).await.unwrap();
//! file.write_at_sync(0, vec!["kept".into()]).await.unwrap();
//! disk::fsync_dir("/").await.unwrap();
//! file.write_at(4, vec![" lost".into()]).await.unwrap();
//! disk.power_cut();
//! disk.restart(Survive::Nothing);
//! assert_eq!(disk.read_raw("/a"), b"kept");
//! # });
//! ```
//!
//! Invariant: what was synced survives every [`Survive`]; everything else is at the mercy of it. The same
//! seed and the same calls in the same order give the same disk, byte for byte.
//!
//! How it differs from a real one: an operation takes no time, only one turn of the scheduler (so other
//! tasks run before its caller goes on); fsyncing a file does not sync its name; failed and lost writes
//! never come back; there is no working directory, no links, no permissions. Damage to a sector that was
//! synced happens only when a test orders it.

mod content;
mod names;
mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::content::FileData;
use self::names::Ino;
use self::world::World;
use super::Open;
use crate::seam::{Guard, Seams};

/// What a power cut leaves of what was not synced.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Survive {
    Nothing,
    Everything,
    /// Drawn from the disk's seed: writes vanish, survive, or tear, each 512-byte sector for itself or up
    /// to some point in the order of writing; names and lengths change or not.
    Random,
}

/// Sends this thread's disk functions to `disk` until the guard is dropped. Other seams stay as they are.
/// Tasks that [`crate::task::spawn`] starts meanwhile stay with `disk` for good.
pub fn enter(disk: &SimDisk) -> Guard {
    Seams::current().with_disk(disk).enter()
}

/// A simulated disk, empty but for its root directory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

impl SimDisk {
    /// A disk whose every accident follows from `seed`.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(World::new(seed))))
    }

    /// Operations so far: every creation, write, allocate, set_len, rename, removal of one name, fsync and
    /// fsync_dir is one; `write_at_sync` is two. Goes on counting over restarts.
    pub fn ops(&self) -> u64 {
        self.world().ops()
    }

    /// Cuts the power at operation `n` (the first is 0), or at the next one when `n` is past. That one and
    /// everything after fails with "power is off". An fsync it happens to may have synced or not; anything
    /// else is left to the restart.
    pub fn crash_at_op(&self, n: u64) {
        self.world().crash_at_op(n);
    }

    /// Cuts the power now: every call fails with "power is off" until [`SimDisk::restart`].
    pub fn power_cut(&self) {
        self.world().power_cut();
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.world().is_powered()
    }

    /// Cuts the power if it is on, decides what is left, and puts it on again. What is left is durable
    /// then. Open files are dead, locks fall, faults that were ordered are forgotten (not the capacity).
    pub fn restart(&self, how: Survive) {
        self.world().restart(how);
    }

    /// What kill -9 does: open files are dead and locks fall, but nothing is lost and nothing synced. What
    /// the next process reads may still vanish when the power is cut.
    pub fn kill_process(&self) {
        self.world().kill_process();
    }

    /// See [`SimDisk::fail_nth_fsync`], with 0.
    pub fn fail_next_fsync(&self) {
        self.fail_nth_fsync(0);
    }

    /// The `n`-th fsync of a file from now (the next is 0; one in `write_at_sync` counts) fails with EIO.
    /// What was unsynced in that file can still be read but is never durable, and later fsyncs succeed.
    pub fn fail_nth_fsync(&self, n: u64) {
        self.world().fail_nth_fsync(n);
    }

    /// The next fsync_dir fails with EIO; its changes stay unsynced.
    pub fn fail_next_fsync_dir(&self) {
        self.world().fail_next_fsync_dir();
    }

    /// The next write fails with EIO and writes nothing.
    pub fn fail_next_write(&self) {
        self.world().fail_next_write();
    }

    /// Room for this many bytes, counting the lengths of all files, or without a bound. What does not fit
    /// fails with ENOSPC; a write then writes the part that does.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world().set_capacity(bytes);
    }

    /// Flips bit `bit` (0..8) of byte `byte`, durably. Nothing happens beyond the end.
    ///
    /// # Panics
    ///
    /// When there is no such file, like everything below.
    pub fn flip_bit(&self, path: impl AsRef<Path>, byte: u64, bit: u8) {
        self.named(path.as_ref(), |file| file.flip(byte, bit));
    }

    /// The next read of byte `byte` gives it with bit `bit` flipped; the one after is right again.
    pub fn flip_on_next_read(&self, path: impl AsRef<Path>, byte: u64, bit: u8) {
        self.named(path.as_ref(), |file| file.flip_on_next_read(byte, bit));
    }

    /// Cuts a file to `len` bytes, durably; what was unsynced in it is lost too. Nothing happens to a
    /// file that is shorter.
    pub fn truncate_file(&self, path: impl AsRef<Path>, len: u64) {
        self.named(path.as_ref(), |file| file.cut(len));
    }

    /// All of a file as readers see it, synced or not.
    pub fn read_raw(&self, path: impl AsRef<Path>) -> Vec<u8> {
        self.named(path.as_ref(), |file| file.live().read(0, usize::MAX))
    }

    /// Makes or replaces a file, durably, with the directories above it. Open handles of it go on with the
    /// new bytes. Takes no operation number, but syncs every name on the disk.
    pub fn write_raw(&self, path: impl AsRef<Path>, bytes: Vec<u8>) {
        self.world().put_durably(path.as_ref(), &bytes);
    }

    /// What is left of a file if the power is cut now and nothing unsynced survives; `None` when not even
    /// its name is.
    pub fn durable(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.world().durable(path.as_ref())
    }

    /// The paths of all files as readers see them, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world().files()
    }

    /// Does something at once and lets other tasks run before its outcome is known. So an operation whose
    /// caller is dropped meanwhile has happened, as on a real disk.
    pub(super) async fn op<T>(&self, what: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let result = what(&mut self.world());
        tokio::task::yield_now().await;
        result
    }

    fn named<T>(&self, path: &Path, what: impl FnOnce(&mut FileData) -> T) -> T {
        let mut world = self.world();
        match world.named(path) {
            Some(file) => what(file),
            None => panic!("no file {} on the simulated disk", path.display()),
        }
    }

    /// A test that panics inside is a failed test already; its cleanup may go on.
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open file of a simulated disk.
#[derive(Clone)]
pub(super) struct SimFile(Arc<Handle>);

struct Handle {
    disk: SimDisk,
    ino: Ino,
    epoch: u64,
    writable: bool,
}

impl SimFile {
    pub(super) async fn open(disk: SimDisk, path: PathBuf, how: Open) -> io::Result<SimFile> {
        // Made a handle before anything is awaited, so that a caller that is dropped closes it.
        let handle = {
            let opened = disk.world().open(&path, how);
            opened.map(|(ino, epoch)| Handle { disk: disk.clone(), ino, epoch, writable: how != Open::Read })
        };
        tokio::task::yield_now().await;
        Ok(SimFile(Arc::new(handle?)))
    }

    pub(super) async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        self.changing(|world, ino| world.write(ino, offset, &bufs)).await
    }

    pub(super) async fn write_at_sync(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let write_and_sync = |world: &mut World, ino| {
            world.write(ino, offset, &bufs)?;
            world.fsync(ino)
        };
        self.changing(write_and_sync).await
    }

    pub(super) async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.op(|world, ino| world.read(ino, offset, len)).await
    }

    pub(super) async fn fsync(&self) -> io::Result<()> {
        self.op(World::fsync).await
    }

    pub(super) async fn allocate(&self, len: u64) -> io::Result<()> {
        self.changing(|world, ino| world.allocate(ino, len)).await
    }

    pub(super) async fn set_len(&self, len: u64) -> io::Result<()> {
        self.changing(|world, ino| world.set_len(ino, len)).await
    }

    pub(super) async fn len(&self) -> io::Result<u64> {
        self.op(World::len).await
    }

    async fn changing<T>(&self, what: impl FnOnce(&mut World, Ino) -> io::Result<T>) -> io::Result<T> {
        if !self.0.writable {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        self.op(what).await
    }

    async fn op<T>(&self, what: impl FnOnce(&mut World, Ino) -> io::Result<T>) -> io::Result<T> {
        let Handle { disk, ino, epoch, .. } = &*self.0;
        disk.op(|world| {
            world.check_handle(*epoch)?;
            what(world, *ino)
        })
        .await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.world().close(self.ino, self.epoch);
    }
}

/// A lock on a simulated disk; falls when dropped.
pub(super) struct SimLock {
    disk: SimDisk,
    ino: Ino,
    epoch: u64,
}

impl SimLock {
    pub(super) async fn take(disk: SimDisk, path: PathBuf) -> io::Result<SimLock> {
        let taken = disk.world().lock(&path);
        let lock = taken.map(|(ino, epoch)| SimLock { disk: disk.clone(), ino, epoch });
        tokio::task::yield_now().await;
        lock
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.world().unlock(self.ino, self.epoch);
    }
}

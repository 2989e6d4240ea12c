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
//! # When an operation happens
//!
//! ```text
//!    write, rename, …   in the page cache ── its time ── stuck? ── returns
//!    fsync, fsync_dir   begins ── its time ── stuck? ── durable ── returns
//!    read               has the bytes ── its time ── stuck? ── returns
//! ```
//!
//! So every reader sees writes in the order they were asked for; an fsync makes durable what was asked for
//! before *it* was; and one the power finds on its way leaves all of that to the restart. Without
//! [`SimDisk::set_latency`] an operation takes no time, only one turn of the scheduler: other tasks run
//! before its caller goes on. It fails with "power is off" when the power went before its caller went on.
//!
//! # How it differs from a real one
//!
//! Fsyncing a file does not sync its name; failed and lost writes never come back; an operation never waits
//! for another; an fsync that takes time and whose caller leaves does not happen; there is no working
//! directory, no links, no permissions. Damage to a sector that was synced happens only when a test
//! orders it.

mod content;
mod course;
mod digest;
mod events;
mod faults;
mod file;
mod names;
mod pace;
mod world;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use self::content::FileData;
pub use self::events::{DiskEvent, Hook, Verdict};
use self::faults::WriteFault;
pub use self::faults::{FaultCounters, Flip};
pub(super) use self::file::{SimFile, SimLock};
pub use self::pace::Latency;
use self::pace::Work;
use self::world::World;
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
        self.change(World::power_cut);
    }

    /// Whether the power is on.
    pub fn is_powered(&self) -> bool {
        self.world().is_powered()
    }

    /// Cuts the power if it is on, decides what is left, and puts it on again. What is left is durable
    /// then. Open files are dead, locks fall, faults that were ordered for the next or n-th operation are
    /// forgotten. What was set (capacity, latency, slowness, stuck, hook) stays.
    pub fn restart(&self, how: Survive) {
        self.change(|world| world.restart(how));
    }

    /// What kill -9 does: open files are dead and locks fall, but nothing is lost and nothing synced. What
    /// the next process reads may still vanish when the power is cut. Operations on their way fail like
    /// those on dead files; an fsync among them has synced nothing.
    pub fn kill_process(&self) {
        self.change(World::kill_process);
    }

    /// Forgets the faults that were ordered and did not strike yet (not the capacity).
    pub fn forget_ordered(&self) {
        self.change(World::forget_ordered);
    }

    /// Ends a power cut as if it had been none: nothing is lost and nothing synced. For a process that is
    /// killed in the middle of something: its disk is cut off first, so that what it still does is not
    /// done, and given back to the next process.
    pub fn thaw(&self) {
        self.change(World::thaw);
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
        self.world().ordered.next_fsync_dir = true;
    }

    /// The next write fails with EIO and writes nothing.
    pub fn fail_next_write(&self) {
        self.world().ordered.next_write = Some(WriteFault::Nothing);
    }

    /// The next write fails with EIO and writes some of its first bytes: at least one if it has room, and
    /// all of them only when there is just one. Replaces [`SimDisk::fail_next_write`].
    pub fn shorten_next_write(&self) {
        self.world().ordered.next_write = Some(WriteFault::Prefix);
    }

    /// The next read of a file's bytes fails with EIO.
    pub fn fail_next_read(&self) {
        self.world().ordered.next_read = true;
    }

    /// The next rename fails with EIO and renames nothing.
    pub fn fail_next_rename(&self) {
        self.world().ordered.next_rename = true;
    }

    /// From now on operations take time, drawn from the disk's seed; or none again. Nothing changes for
    /// those on their way.
    ///
    /// # Panics
    ///
    /// When a range is empty.
    pub fn set_latency(&self, latency: Option<Latency>) {
        self.world().pace.set_latency(latency);
    }

    /// Multiplies the latency of operations that begin from now on; 1 is normal.
    ///
    /// # Panics
    ///
    /// When it is 0.
    pub fn set_slowness(&self, factor: u32) {
        self.world().pace.set_slowness(factor);
    }

    /// While stuck, nothing returns and no fsync takes effect, however long ago it began. What hangs goes on
    /// afterwards, woken in the order in which it came to hang; or fails when the power is cut.
    pub fn set_stuck(&self, stuck: bool) {
        self.change(|world| world.line.set_stuck(stuck));
    }

    /// Calls `hook` at every [`DiskEvent`] from now on.
    pub fn set_hook(&self, hook: Option<Hook>) {
        let before = std::mem::replace(&mut self.world().hook, hook);
        drop(before); // Without the lock: it may own a clone of this disk.
    }

    /// How often each kind of fault has taken effect.
    pub fn counters(&self) -> FaultCounters {
        self.world().counters()
    }

    /// A number made of all that was asked of this disk and all that it gave to read, in order.
    pub fn digest(&self) -> u64 {
        self.world().digest()
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
        self.world().flip(path.as_ref(), byte, bit);
    }

    /// Flips, durably, one bit of a synced byte that nothing unsynced covers, in a file whose name is
    /// durable. `range` tells, for a path and a durable length in bytes, which bytes may be hit, if any.
    /// Files and bytes are drawn from the disk's seed, each as likely. `None` when (almost) all of what may
    /// be hit is unsynced.
    pub fn flip_random_durable_bit(&self, range: impl Fn(&Path, u64) -> Option<Range<u64>>) -> Option<Flip> {
        let files = self.world().durable_files();
        let may_be_hit = |(path, len): (PathBuf, u64)| {
            let Range { start, end } = range(&path, len)?;
            Some((path, start..end.min(len)))
        };
        let ranges = files.into_iter().filter_map(may_be_hit).collect();
        self.world().flip_any(ranges)
    }

    /// How far a file was durable before those fsyncs that completed last, `syncs` of them (up to 3) and each with
    /// writes; 0 where there were fewer. For a file that is written from its beginning on.
    pub fn durable_before(&self, path: impl AsRef<Path>, syncs: usize) -> u64 {
        self.named(path.as_ref(), |file| file.durable_before(syncs))
    }

    /// The next read of byte `byte` gives it with bit `bit` flipped, also after a loss of power; the one after is
    /// right again.
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

    // What `disk` calls.

    pub(super) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.op(Work::Write, Some(DiskEvent::Renamed { from, to }), |world| world.rename(from, to)).await
    }

    pub(super) async fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(path, |world| world.begin_fsync_dir(path)).await
    }

    pub(super) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.op(Work::Write, Some(DiskEvent::Removed { path }), |world| world.remove_file(path)).await
    }

    pub(super) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let removed = self.remove_tree(path);
        let (turn, ()) = self.change(|world| (world.turn(Work::Write), ()));
        self.wait(turn).await?;
        removed
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let names = self.world().list_dir(path)?;
        for name in names {
            let path = &path.join(name);
            if self.world().is_dir(path)? {
                self.remove_tree(path)?;
            } else {
                self.change(|world| world.remove_file(path))?;
                self.tell(DiskEvent::Removed { path });
            }
        }
        self.change(|world| world.remove_dir(path))?;
        self.tell(DiskEvent::Removed { path });
        Ok(())
    }

    pub(super) async fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.op(Work::Write, Some(DiskEvent::Created { path }), |world| world.create_dir(path)).await
    }

    pub(super) async fn list_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.op(Work::Read, None, |world| world.list_dir(path)).await
    }

    pub(super) async fn exists(&self, path: &Path) -> io::Result<bool> {
        self.op(Work::Read, None, |world| world.exists(path)).await
    }

    pub(super) async fn is_dir(&self, path: &Path) -> io::Result<bool> {
        self.op(Work::Read, None, |world| world.is_dir(path)).await
    }

    pub(super) async fn read_file(&self, path: &Path) -> io::Result<Bytes> {
        self.op(Work::Read, None, |world| world.read_file(path)).await
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

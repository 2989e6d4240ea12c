//! What a disk tells as it happens, for faults at just that moment.

use std::path::Path;
use std::sync::Arc;

/// Called for each event, in the middle of the operation it is about and on its task. No lock is held: it
/// may use the disk. One that owns a clone of its disk keeps that disk for good.
pub type Hook = Arc<dyn Fn(&DiskEvent<'_>) -> Verdict + Send + Sync>;

/// Something that has just happened; what failed is none, but for an fsync's first two. A file's path is
/// the one it was opened under, whatever it is called by now.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DiskEvent<'a> {
    /// In the page cache.
    Write {
        path: &'a Path,
    },
    FsyncBegun {
        path: &'a Path,
    },
    /// Its time is over; nothing is durable yet.
    FsyncHalf {
        path: &'a Path,
    },
    /// Durable; its caller doesn't know yet.
    FsyncDone {
        path: &'a Path,
    },
    /// The directory is not synced yet.
    Renamed {
        from: &'a Path,
        to: &'a Path,
    },
    /// An fsync_dir was done.
    DirSynced {
        path: &'a Path,
    },
    /// A file or a directory.
    Created {
        path: &'a Path,
    },
    /// A file or a directory, each of the names in it for itself.
    Removed {
        path: &'a Path,
    },
    Allocated {
        path: &'a Path,
    },
}

/// What is to follow on an event.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    GoOn,
    /// The power goes here; the operation fails with "power is off".
    CutPower,
}

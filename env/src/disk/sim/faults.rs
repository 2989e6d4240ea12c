//! The faults that are ordered ahead, and how often each kind struck.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// How often each kind of fault took effect since the disk was made. Never reset.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct FaultCounters {
    pub power_cuts: u64,
    /// Fsyncs, of directories too, that were begun and not done when the power went.
    pub fsyncs_half_done: u64,
    pub fsyncs_failed: u64,
    pub dir_fsyncs_failed: u64,
    pub writes_failed: u64,
    /// Not for want of space.
    pub writes_short: u64,
    pub reads_failed: u64,
    pub renames_failed: u64,
    /// Operations that failed with ENOSPC.
    pub out_of_space: u64,
    /// On the disk.
    pub bits_flipped: u64,
    /// In one read each.
    pub bits_misread: u64,
    /// Unsynced writes of which a restart left a part.
    pub writes_torn: u64,
    /// Unsynced writes of which a restart left no byte.
    pub writes_lost: u64,
    /// Unsynced creations, removals and renames that a restart undid.
    pub names_reverted: u64,
    /// Operations that hung until the disk went on or the power went.
    pub ops_stuck: u64,
    /// Operations that took longer than the range they were drawn from.
    pub ops_slow: u64,
}

/// A bit that was flipped on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flip {
    pub path: PathBuf,
    pub byte: u64,
    /// 0..8.
    pub bit: u8,
}

/// What is to go wrong next.
#[derive(Default)]
pub(super) struct Ordered {
    /// How many fsyncs (of files) were begun, and which are to fail.
    pub(super) fsyncs: u64,
    pub(super) failing_fsyncs: BTreeSet<u64>,
    pub(super) next_fsync_dir: bool,
    pub(super) next_write: Option<WriteFault>,
    pub(super) next_read: bool,
    pub(super) next_rename: bool,
}

#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum WriteFault {
    Nothing,
    Prefix,
}

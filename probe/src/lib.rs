//! Points in production code that the simulator watches and breaks.
//!
//! A *mark* is a moment that matters ([`Mark`], table in `marks.rs`); the simulator counts marks, and may crash a node
//! at one. A *planted bug* ([`Bug`], table in `bugs.rs`) is a mistake that is made only when the simulator asks for it,
//! to prove that its checkers would find such a mistake.
//!
//! Invariant: without the feature `sim`, nothing here does anything: [`planted`] is a constant `false`, and macros
//! don't evaluate their arguments. With it, calls go to the watcher that this thread has entered, if any.
//! Deliberately absent: any effect of a mark on the code that has it; dependencies.

mod bugs;
mod marks;
#[cfg(feature = "sim")]
pub mod watch;

pub use bugs::{Bug, Layer};
pub use marks::{Kind, Mark};

/// A moment that some run must reach, and where a crash is interesting.
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! reachable {
    ($mark:expr) => {
        $crate::watch::reached($mark)
    };
}

/// A condition that must hold in some run, though not in all.
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! sometimes {
    ($holds:expr, $mark:expr) => {
        if $crate::watch::is_watched() {
            $crate::watch::sometimes($mark, $holds);
        }
    };
}

/// A condition that must hold in every run: `always!(condition, Mark::X, "what is wrong: {}", …)`. A failure is
/// reported to the watcher; production has `assert!` for what must stop it.
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! always {
    ($holds:expr, $mark:expr, $($why:tt)+) => {
        if $crate::watch::is_watched() {
            $crate::watch::held($mark, $holds, &format_args!($($why)+));
        }
    };
}

#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! reachable {
    ($mark:expr) => {{
        const _: $crate::Mark = $mark;
    }};
}

#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! sometimes {
    ($holds:expr, $mark:expr) => {
        // Compiled, so that it can't rot; never evaluated.
        if false {
            let _: (bool, $crate::Mark) = ($holds, $mark);
        }
    };
}

#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! always {
    ($holds:expr, $mark:expr, $($why:tt)+) => {
        if false {
            let _: (bool, $crate::Mark) = ($holds, $mark);
            let _ = format_args!($($why)+);
        }
    };
}

/// Whether the mistake `bug` is to be made here and now.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

/// Whether the mistake `bug` is to be made here and now.
#[cfg(feature = "sim")]
pub fn planted(bug: Bug) -> bool {
    watch::planted(bug)
}

/// A log entry that a replica applied.
#[derive(Copy, Clone, Debug)]
pub struct AppliedEntry<'a> {
    /// The replica's group.
    pub group: u32,
    /// The entry's place in the log.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// What it holds.
    pub payload: &'a [u8],
}

/// A replica has applied `entry`; `state` gives the replicated state after it, encoded. Replicas that applied the
/// same entries have the same bytes.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub fn applied(_entry: AppliedEntry<'_>, _state: impl Fn() -> Vec<u8>) {}

/// A replica has applied `entry`; `state` gives the replicated state after it, encoded. Replicas that applied the
/// same entries have the same bytes.
#[cfg(feature = "sim")]
pub fn applied(entry: AppliedEntry<'_>, state: impl Fn() -> Vec<u8>) {
    watch::applied(entry, &state);
}

/// A caller is about to be told that the log entry at `index` of `group` is committed: from now on it must be on the
/// disks of a majority, for ever.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn acknowledged(_group: u32, _index: u64) {}

/// A caller is about to be told that the log entry at `index` of `group` is committed: from now on it must be on the
/// disks of a majority, for ever.
#[cfg(feature = "sim")]
pub fn acknowledged(group: u32, index: u64) {
    watch::acknowledged(group, index);
}

/// A replica of `group` has opened its log, whose last entry is at index `last`; `None` for an empty one.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn opened(_group: u32, _last: Option<u64>) {}

/// A replica of `group` has opened its log, whose last entry is at index `last`; `None` for an empty one.
#[cfg(feature = "sim")]
pub fn opened(group: u32, last: Option<u64>) {
    watch::opened(group, last);
}

/// A replica of `group` has a checkpoint of what entries up to `last` made; `is_durable` says whether its log has them on
/// its disk, and the segment that follows.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn checkpointed(_group: u32, _last: u64, _is_durable: bool) {}

/// A replica of `group` has a checkpoint of what entries up to `last` made; `is_durable` says whether its log has them on
/// its disk, and the segment that follows.
#[cfg(feature = "sim")]
pub fn checkpointed(group: u32, last: u64, is_durable: bool) {
    watch::checkpointed(group, last, is_durable);
}

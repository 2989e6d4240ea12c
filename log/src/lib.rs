//! The segmented, append-only log of one Raft group, and its checkpoints.
//!
//! It owns one directory: `segment-<seq>` files of checksummed frames and `checkpoint-<seq>` files of state. Invariant:
//! what was acknowledged as durable is found again after any power cut, and damage is refused with a file and a byte,
//! never guessed around. It deliberately knows no consensus library, no record format and no other group.
//!
//! Read `log.rs` first, then `core.rs` and `writer.rs` (the way in), `reader.rs` (the way out), `recovery.rs` (what can
//! be found on a disk, as a table).

mod checkpoint;
mod core;
mod entry;
mod frame;
mod id;
mod ledger;
mod log;
mod open;
mod reader;
mod recovery;
mod ring;
mod scan;
mod segment;
mod writer;

pub use checkpoint::{CheckpointError, CheckpointInfo, Checkpoints};
pub use entry::{Entry, EntryKind};
pub use frame::{FrameError, HEADER, PAYLOAD_BYTES_MAX};
pub use id::{Identity, LogId, SegmentSeq, Vote};
pub use log::{Log, LogOptions, LogStats, SegmentInfo};
pub use open::{OpenError, Recovered};
pub use reader::ReadError;

#[cfg(test)]
mod golden_tests;

//! Why a data group refuses a command, or a slice of one.
//!
//! Invariant: a refusal is certain and total: nothing of what was refused was applied (only group
//! time may have advanced).
//!
//! Not here: what a client is told; each API maps these in its own place.

use std::fmt;

use crate::hash::{HashKey, HashRange};
use crate::ids::{Offset, ShardId};
use crate::sequence::SECOND_MAX;

/// Why a shard did not take records. Certain: none of the slice was appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    NoSuchShard {
        shard: ShardId,
    },
    /// `children` are shard indexes in the same stream.
    Closed {
        shard: ShardId,
        last: Option<Offset>,
        children: Vec<u32>,
    },
    WrongRange {
        shard: ShardId,
        hash: HashKey,
        range: HashRange,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoSuchShard { shard } => write!(f, "shard {shard} is not in this group"),
            Refused::Closed { shard, children, .. } => {
                write!(f, "shard {shard} is closed: its children {children:?} take its records")
            }
            Refused::WrongRange { shard, hash, range } => {
                write!(f, "hash key {hash} is outside shard {shard}'s range {range}")
            }
        }
    }
}

impl std::error::Error for Refused {}

/// Why no shard of an `OpenShards` was opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenRefused {
    StreamDropped { shard: ShardId },
    Forgotten { shard: ShardId },
    Conflict { shard: ShardId },
    Overlaps { shard: ShardId, other: ShardId },
    ParentOpen { shard: ShardId, parent: ShardId },
    NotAfterParent { shard: ShardId, parent: ShardId },
    Time { shard: ShardId, created_s: u64 },
}

impl fmt::Display for OpenRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenRefused::StreamDropped { shard } => {
                write!(f, "shard {shard} belongs to a dropped stream")
            }
            OpenRefused::Forgotten { shard } => {
                write!(f, "shard {shard} was closed, and is forgotten")
            }
            OpenRefused::Conflict { shard } => {
                write!(f, "shard {shard} exists with another range, creation second or parents")
            }
            OpenRefused::Overlaps { shard, other } => {
                write!(f, "shard {shard} overlaps the open shard {other}")
            }
            OpenRefused::ParentOpen { shard, parent } => {
                write!(f, "shard {shard}'s parent {parent} is not sealed")
            }
            OpenRefused::NotAfterParent { shard, parent } => {
                write!(f, "shard {shard} must have a greater index and creation second than its parent {parent}")
            }
            OpenRefused::Time { shard, created_s } => {
                write!(f, "shard {shard}'s creation second {created_s} is too large: at most {SECOND_MAX}")
            }
        }
    }
}

impl std::error::Error for OpenRefused {}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SealRefused {
    NoSuchShard { shard: ShardId },
    Children { shard: ShardId, children: Vec<u32> },
    AlreadySealed { shard: ShardId, children: Vec<u32> },
}

impl fmt::Display for SealRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealRefused::NoSuchShard { shard } => write!(f, "shard {shard} is not in this group"),
            SealRefused::Children { shard, children } => write!(
                f,
                "shard {shard} can't be sealed with children {children:?}: one or two, ascending, \
                 with greater indexes than its own"
            ),
            SealRefused::AlreadySealed { shard, children } => {
                write!(f, "shard {shard} is already sealed with children {children:?}")
            }
        }
    }
}

impl std::error::Error for SealRefused {}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrimRefused {
    BeyondLog { through: u64, log_index: u64 },
    BeyondNext { shard: ShardId, below: Offset, next: Offset },
}

impl fmt::Display for TrimRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrimRefused::BeyondLog { through, log_index } => {
                write!(f, "can't trim the log through index {through}: the trim itself is at {log_index}")
            }
            TrimRefused::BeyondNext { shard, below, next } => {
                write!(f, "can't trim shard {shard} below {below}: its next offset is {next}")
            }
        }
    }
}

impl std::error::Error for TrimRefused {}

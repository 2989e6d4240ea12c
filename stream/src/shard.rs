//! A shard as its group keeps it: the unit of order, hash range, limits and iterators.
//!
//! Invariant (held by `Group::check`): `trimmed <= next`; a closed shard's `last` is the offset
//! before `next`, for ever; range, creation second and parents never change after opening.
//!
//! Not here: the records themselves, which are in the group's log and nowhere else.

use braid_probe::{Bug, planted};
use serde::{Deserialize, Serialize};

use crate::group::Refused;
use crate::hash::{HashKey, HashRange};
use crate::ids::{Offset, ShardId};
use crate::limits::Limits;
use crate::sequence::SequenceNumber;

/// What a shard is opened with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardSpec {
    pub id: ShardId,
    pub range: HashRange,
    /// Seconds since the Unix epoch; greater than every parent's, so that children sort after them.
    pub created_s: u64,
    /// Shard indexes in the same stream: none for a first shard, the split one's parent, or the two
    /// merged ones (parent, adjacent parent).
    pub parents: [Option<u32>; 2],
    pub retention_ms: u64,
    pub limits: Limits,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ShardState {
    Open,
    Closed {
        /// The last record's offset; `None` if the shard never had one.
        last: Option<Offset>,
        /// When it was sealed, in group time.
        at_ms: u64,
        /// Shard indexes in the same stream: two after a split, one after a merge.
        children: Vec<u32>,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shard {
    pub id: ShardId,
    pub range: HashRange,
    pub created_s: u64,
    pub parents: [Option<u32>; 2],
    pub state: ShardState,
    /// The offset the next record gets; also how many records the shard has ever had.
    pub next: Offset,
    /// The first readable offset; equal to `next` if nothing is readable.
    pub trimmed: Offset,
    /// Group time of the last append, or of the opening.
    pub last_time_ms: u64,
    /// Encoded record bytes ever appended (not what is retained).
    pub bytes: u64,
    pub retention_ms: u64,
    pub limits: Limits,
}

impl Shard {
    pub(crate) fn open(spec: &ShardSpec, at_ms: u64) -> Shard {
        Shard {
            id: spec.id,
            range: spec.range,
            created_s: spec.created_s,
            parents: spec.parents,
            state: ShardState::Open,
            next: Offset::ZERO,
            trimmed: Offset::ZERO,
            last_time_ms: at_ms,
            bytes: 0,
            retention_ms: spec.retention_ms,
            limits: spec.limits,
        }
    }

    /// Whether this shard came from `spec`: the parts that never change are equal.
    pub(crate) fn is(&self, spec: &ShardSpec) -> bool {
        (self.id, self.range, self.created_s, self.parents) == (spec.id, spec.range, spec.created_s, spec.parents)
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, ShardState::Open)
    }

    /// Whether a record with this hash would be taken. The leader asks before proposing; since a
    /// shard's range never changes, `apply` needs to repeat only the question of open or closed.
    pub fn admits(&self, hash: HashKey) -> Result<(), Refused> {
        self.takes_appends()?;
        match self.range.contains(hash) {
            true => Ok(()),
            false => Err(Refused::WrongRange { shard: self.id, hash, range: self.range }),
        }
    }

    pub(crate) fn takes_appends(&self) -> Result<(), Refused> {
        match &self.state {
            ShardState::Open => Ok(()),
            ShardState::Closed { .. } if planted(Bug::SealIgnored) => Ok(()),
            ShardState::Closed { last, children, .. } => {
                Err(Refused::Closed { shard: self.id, last: *last, children: children.clone() })
            }
        }
    }

    /// The last record's offset, if the shard ever had one.
    pub fn last(&self) -> Option<Offset> {
        self.next.previous()
    }

    /// The sequence number of the record at `offset`, which arrived at `time_ms` of group time.
    pub fn sequence_number(&self, offset: Offset, time_ms: u64) -> SequenceNumber {
        SequenceNumber { created_s: self.created_s, shard_index: self.id.index, offset, arrival_s: time_ms / 1000 }
    }
}

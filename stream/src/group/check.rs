//! Whole-state invariants of a data group, for the simulator, tests and start-up.
//!
//! Invariant: every rule here holds after any command; a finding is a bug or a damaged checkpoint.
//!
//! Not here: rules across groups (open ranges tile the hash space), which are the catalog's.

use std::fmt;

use super::Group;
use crate::ids::{Offset, ShardId, StreamId};
use crate::limits::TIME_MS_MAX;
use crate::sequence::SECOND_MAX;
use crate::shard::{Shard, ShardState};

/// One broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// The map's key is not the shard's own id.
    WrongKey {
        key: ShardId,
        id: ShardId,
    },
    TrimmedBeyondNext {
        shard: ShardId,
        trimmed: Offset,
        next: Offset,
    },
    /// A closed shard took records, or lost some.
    ClosedMoved {
        shard: ShardId,
        last: Option<Offset>,
        next: Offset,
    },
    /// A shard's time, or the group's own, is ahead of what it may be.
    TimeAhead {
        shard: Option<ShardId>,
        time_ms: u64,
        most_ms: u64,
    },
    CreatedBeyondMax {
        shard: ShardId,
        created_s: u64,
    },
    /// Two open shards of one stream own the same key.
    Overlap {
        shard: ShardId,
        other: ShardId,
    },
    /// A child exists while its parent still takes records.
    ParentOpen {
        shard: ShardId,
        parent: ShardId,
    },
    /// A child would not sort after its parent.
    NotAfterParent {
        shard: ShardId,
        parent: ShardId,
    },
    WrongChildren {
        shard: ShardId,
        children: Vec<u32>,
    },
    DroppedStreamHasShards {
        stream: StreamId,
    },
    TrimmedBeyondApplied {
        through: u64,
        applied: Option<u64>,
    },
}

impl Group {
    /// Every rule that does not hold; empty if all is well. Costs a pass over all shards.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        self.check_watermarks(&mut found);
        for (&key, shard) in &self.shards {
            if key != shard.id {
                found.push(Violation::WrongKey { key, id: shard.id });
            }
            self.check_shard(shard, &mut found);
            self.check_parents(shard, &mut found);
        }
        self.check_overlaps(&mut found);
        found
    }

    fn check_watermarks(&self, found: &mut Vec<Violation>) {
        if let Some(through) = self.trimmed_through
            && self.trimmed_through >= self.applied
        {
            found.push(Violation::TrimmedBeyondApplied { through, applied: self.applied });
        }
        if self.last_time_ms > TIME_MS_MAX {
            found.push(Violation::TimeAhead { shard: None, time_ms: self.last_time_ms, most_ms: TIME_MS_MAX });
        }
        for &stream in self.dropped.keys() {
            if self.shards_of(stream).next().is_some() {
                found.push(Violation::DroppedStreamHasShards { stream });
            }
        }
    }

    fn check_shard(&self, shard: &Shard, found: &mut Vec<Violation>) {
        let id = shard.id;
        if shard.trimmed > shard.next {
            found.push(Violation::TrimmedBeyondNext { shard: id, trimmed: shard.trimmed, next: shard.next });
        }
        if shard.last_time_ms > self.last_time_ms {
            found.push(Violation::TimeAhead {
                shard: Some(id),
                time_ms: shard.last_time_ms,
                most_ms: self.last_time_ms,
            });
        }
        if shard.created_s > SECOND_MAX {
            found.push(Violation::CreatedBeyondMax { shard: id, created_s: shard.created_s });
        }
        if let ShardState::Closed { last, children, .. } = &shard.state {
            if *last != shard.last() {
                found.push(Violation::ClosedMoved { shard: id, last: *last, next: shard.next });
            }
            let counted = (1..=2).contains(&children.len());
            if !counted || children.iter().any(|&child| child <= id.index) {
                found.push(Violation::WrongChildren { shard: id, children: children.clone() });
            }
        }
    }

    fn check_parents(&self, shard: &Shard, found: &mut Vec<Violation>) {
        for index in shard.parents.into_iter().flatten() {
            let parent = ShardId { stream: shard.id.stream, index };
            let Some(it) = self.shards.get(&parent) else {
                continue;
            };
            if it.is_open() {
                found.push(Violation::ParentOpen { shard: shard.id, parent });
            }
            if it.created_s >= shard.created_s || index >= shard.id.index {
                found.push(Violation::NotAfterParent { shard: shard.id, parent });
            }
        }
    }

    fn check_overlaps(&self, found: &mut Vec<Violation>) {
        let mut open: Vec<&Shard> = self.shards().filter(|shard| shard.is_open()).collect();
        open.sort_by_key(|shard| (shard.id.stream, shard.range));
        for pair in open.windows(2) {
            let [a, b] = pair else { continue };
            if a.id.stream == b.id.stream && a.range.overlaps(&b.range) {
                found.push(Violation::Overlap { shard: a.id, other: b.id });
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::WrongKey { key, id } => write!(f, "shard {id} is filed under {key}"),
            Violation::TrimmedBeyondNext { shard, trimmed, next } => {
                write!(f, "shard {shard} is trimmed to {trimmed}, beyond its next offset {next}")
            }
            Violation::ClosedMoved { shard, last, next } => {
                write!(f, "shard {shard} was closed at {last:?} but its next offset is {next}")
            }
            Violation::TimeAhead { shard, time_ms, most_ms } => match shard {
                Some(shard) => write!(f, "shard {shard}'s time {time_ms} is after {most_ms}"),
                None => write!(f, "the group's time {time_ms} is after {most_ms}"),
            },
            Violation::CreatedBeyondMax { shard, created_s } => {
                write!(f, "shard {shard}'s creation second {created_s} is more than {SECOND_MAX}")
            }
            Violation::Overlap { shard, other } => {
                write!(f, "open shards {shard} and {other} overlap")
            }
            Violation::ParentOpen { shard, parent } => {
                write!(f, "shard {shard} exists while its parent {parent} is open")
            }
            Violation::NotAfterParent { shard, parent } => {
                write!(f, "shard {shard} was not created after its parent {parent}")
            }
            Violation::WrongChildren { shard, children } => {
                write!(f, "closed shard {shard} has children {children:?}")
            }
            Violation::DroppedStreamHasShards { stream } => {
                write!(f, "stream {stream} was dropped but has shards")
            }
            Violation::TrimmedBeyondApplied { through, applied } => {
                write!(f, "the log is trimmed through {through}, applied is {applied:?}")
            }
        }
    }
}

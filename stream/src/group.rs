//! A data group's replicated state, and what each command does to it.
//!
//! Invariant: [`Group::apply`] is a pure function of state and command, and [`Group::check`] finds
//! nothing wrong after any sequence of commands, however odd: a command that would break a rule is
//! refused in its answer. Offsets are dense per shard and group time never goes back.
//!
//! Not here: records (in the log), their index, throttling, and who proposes what when. An append
//! is applied from its slice headers alone; record bodies are never parsed.

mod check;
mod refused;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use braid_probe::{Bug, Mark, always, planted, reachable, sometimes};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use check::Violation;
pub use refused::{OpenRefused, Refused, SealRefused, TrimRefused};

use crate::batch::{BatchView, Slice};
use crate::command::{ForgetShards, GroupCommand, OpenShards, SealShard, SetSettings, ShardTrim, Trim};
use crate::hash::{HashKey, HashRange};
use crate::ids::{GroupId, Offset, ShardId, StreamId};
use crate::limits::{DROPPED_MS, TIME_MS_MAX};
use crate::sequence::SECOND_MAX;
use crate::shard::{Shard, ShardSpec, ShardState};
use crate::versioned::{self, DecodeError};

const VERSION: u8 = 3;

/// As version 3, without the forgotten shards at its end.
const VERSION_WITHOUT_FORGOTTEN: u8 = 2;

/// As version 2, without the settings' revisions at its end.
const VERSION_WITHOUT_SETTINGS: u8 = 1;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Group {
    id: GroupId,
    /// The last log index applied or passed.
    applied: Option<u64>,
    /// Group time, milliseconds since the Unix epoch.
    last_time_ms: u64,
    /// No readable record is at or below this log index.
    trimmed_through: Option<u64>,
    shards: BTreeMap<ShardId, Shard>,
    /// Streams that were dropped, and when: a late `OpenShards` must not bring one back.
    dropped: BTreeMap<StreamId, u64>,
    /// Streams whose settings changed: the newest revision that was told.
    settings: BTreeMap<StreamId, u64>,
    /// Shards that were forgotten, and when: as for streams that were dropped.
    forgotten: BTreeMap<ShardId, u64>,
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    Appended(Appended),
    /// Shards that were not open before.
    Opened(Result<Vec<ShardId>, OpenRefused>),
    /// The shards that are gone: a stream's, or some that were forgotten.
    Dropped(Vec<ShardId>),
    Sealed(Result<Sealed, SealRefused>),
    Trimmed(Result<Trimmed, TrimRefused>),
    /// How many shards have other settings now.
    SettingsSet {
        shards: usize,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The group time every record of the batch got.
    pub time_ms: u64,
    /// One for each slice of the batch, in payload order.
    pub slices: Vec<SliceResult>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceResult {
    pub shard: ShardId,
    /// The slice's position in the log entry's payload.
    pub pos: u32,
    pub outcome: Result<Placed, Refused>,
}

/// The slice's records have offsets `first` to `first + count - 1`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    pub first: Offset,
    pub count: u32,
    pub time_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// The last record's offset; `None` if the shard never had one.
    pub last: Option<Offset>,
    pub at_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trimmed {
    /// The log may be purged up to and including this index.
    pub through: Option<u64>,
    /// The shards whose first readable offset moved, and where to.
    pub shards: Vec<ShardTrim>,
}

impl Group {
    pub fn new(id: GroupId) -> Group {
        Group {
            id,
            applied: None,
            last_time_ms: 0,
            trimmed_through: None,
            shards: BTreeMap::new(),
            dropped: BTreeMap::new(),
            settings: BTreeMap::new(),
            forgotten: BTreeMap::new(),
        }
    }

    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The last log index applied or passed.
    pub fn applied(&self) -> Option<u64> {
        self.applied
    }

    /// Group time: what the last command was given, milliseconds since the Unix epoch.
    pub fn last_time_ms(&self) -> u64 {
        self.last_time_ms
    }

    /// The log may be purged up to and including this index.
    pub fn trimmed_through(&self) -> Option<u64> {
        self.trimmed_through
    }

    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(&id)
    }

    /// All shards, open and closed, by id.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = &Shard> {
        self.shards.values()
    }

    pub fn shards_of(&self, stream: StreamId) -> impl Iterator<Item = &Shard> {
        let bound = |index| ShardId { stream, index };
        self.shards.range(bound(0)..=bound(u32::MAX)).map(|(_, shard)| shard)
    }

    /// Applies the command of the log entry at `log_index`. Panics if entries come out of order.
    ///
    /// Records of an append get the time max(stamped, the group's last time): a new leader's clock
    /// may be behind its predecessor's, and time within a shard must not go back.
    pub fn apply(&mut self, log_index: u64, command: &GroupCommand) -> Applied {
        self.pass(log_index);
        match command {
            GroupCommand::Append(batch) => {
                reachable!(Mark::AppliedAppend);
                Applied::Appended(self.append(batch))
            }
            GroupCommand::OpenShards(it) => {
                reachable!(Mark::AppliedOpenShards);
                Applied::Opened(self.open_shards(it))
            }
            GroupCommand::DropStream(it) => {
                reachable!(Mark::AppliedDropStream);
                Applied::Dropped(self.drop_stream(it.stream, it.at_ms))
            }
            GroupCommand::SealShard(it) => Applied::Sealed(self.seal(it)),
            GroupCommand::Trim(it) => {
                reachable!(Mark::AppliedTrim);
                Applied::Trimmed(self.trim(log_index, it))
            }
            GroupCommand::SetSettings(it) => Applied::SettingsSet { shards: self.set(it) },
            GroupCommand::ForgetShards(it) => Applied::Dropped(self.forget(it)),
        }
    }

    /// Notes a log entry that carries no command (a blank one, a membership change).
    pub fn pass(&mut self, log_index: u64) {
        assert!(self.applied < Some(log_index), "entry {log_index} came after {:?} in group {}", self.applied, self.id);
        self.applied = Some(log_index);
    }

    /// The checkpoint's content.
    pub fn encode(&self) -> Bytes {
        Bytes::from(versioned::encode(&[VERSION], self))
    }

    pub fn decode(bytes: &[u8]) -> Result<Group, DecodeError> {
        match bytes.split_first() {
            // What came later stands at the end: empty maps.
            Some((&VERSION_WITHOUT_SETTINGS, body)) => versioned::decode_body(&[body, &[0; 2]].concat()),
            Some((&VERSION_WITHOUT_FORGOTTEN, body)) => versioned::decode_body(&[body, &[0]].concat()),
            _ => versioned::decode(VERSION, bytes),
        }
    }

    fn advance_time(&mut self, stamped_ms: u64) -> u64 {
        let before = self.last_time_ms;
        if planted(Bug::TimeGoesBack) {
            self.last_time_ms = stamped_ms;
        }
        self.last_time_ms = self.last_time_ms.max(stamped_ms.min(TIME_MS_MAX));
        let now = self.last_time_ms;
        always!(now >= before, Mark::GroupTimeNeverBack, "group {}: {now} after {before}", self.id);
        self.last_time_ms
    }

    fn append(&mut self, batch: &BatchView) -> Appended {
        let time_ms = self.advance_time(batch.time_ms());
        let mut slices: Vec<_> = batch
            .slices()
            .map(|slice| SliceResult {
                shard: slice.shard,
                pos: slice.pos,
                outcome: self.append_slice(&slice, time_ms),
            })
            .collect();
        if planted(Bug::SliceAppliedTwice) && slices.len() > 2 {
            let slice = batch.slices().next().expect("there are some");
            let outcome = self.append_slice(&slice, time_ms);
            slices.push(SliceResult { shard: slice.shard, pos: slice.pos, outcome });
        }
        sometimes!(slices.len() > 1, Mark::BatchOfManyShards);
        sometimes!(slices.iter().any(|slice| slice.outcome.is_err()), Mark::SliceRefused);
        Appended { time_ms, slices }
    }

    fn append_slice(&mut self, slice: &Slice, time_ms: u64) -> Result<Placed, Refused> {
        let Some(shard) = self.shards.get_mut(&slice.shard) else {
            return Err(Refused::NoSuchShard { shard: slice.shard });
        };
        shard.takes_appends()?;
        let first = shard.next;
        let gap = planted(Bug::GapAfterLargeSlice) && slice.count > 20;
        if !(planted(Bug::LateSliceLost) && slice.pos > 16 << 10) {
            shard.next = first.advance(u64::from(slice.count) + u64::from(gap));
        }
        shard.last_time_ms = time_ms;
        shard.bytes += u64::from(slice.record_bytes);
        Ok(Placed { first, count: slice.count, time_ms })
    }

    fn open_shards(&mut self, command: &OpenShards) -> Result<Vec<ShardId>, OpenRefused> {
        let at_ms = self.advance_time(command.at_ms);
        let mut claims = Claims::default();
        let mut new = BTreeMap::new();
        for spec in &command.shards {
            let known = self.shards.get(&spec.id).or_else(|| new.get(&spec.id));
            match known {
                Some(shard) if shard.is(spec) => continue,
                Some(_) => return Err(OpenRefused::Conflict { shard: spec.id }),
                None => {}
            }
            self.may_open(spec, &new)?;
            claims.of(self, spec.id.stream).claim(spec)?;
            new.insert(spec.id, Shard::open(spec, at_ms));
        }
        let opened = new.keys().copied().collect();
        self.shards.extend(new);
        Ok(opened)
    }

    /// `new` are the shards opened by the same command so far.
    fn may_open(&self, spec: &ShardSpec, new: &BTreeMap<ShardId, Shard>) -> Result<(), OpenRefused> {
        let shard = spec.id;
        if self.dropped.contains_key(&shard.stream) {
            return Err(OpenRefused::StreamDropped { shard });
        }
        if self.forgotten.contains_key(&shard) && !planted(Bug::LateOpenRevives) {
            return Err(OpenRefused::Forgotten { shard });
        }
        if spec.created_s > SECOND_MAX {
            return Err(OpenRefused::Time { shard, created_s: spec.created_s });
        }
        for parent in spec.parents.into_iter().flatten() {
            let id = ShardId { stream: shard.stream, index: parent };
            if parent >= shard.index {
                return Err(OpenRefused::NotAfterParent { shard, parent: id });
            }
            match self.shards.get(&id).or_else(|| new.get(&id)) {
                Some(it) if it.is_open() => {
                    return Err(OpenRefused::ParentOpen { shard, parent: id });
                }
                Some(it) if it.created_s >= spec.created_s => {
                    return Err(OpenRefused::NotAfterParent { shard, parent: id });
                }
                // A parent in another group is the catalog's to check.
                _ => {}
            }
        }
        Ok(())
    }

    fn drop_stream(&mut self, stream: StreamId, at_ms: u64) -> Vec<ShardId> {
        let at_ms = self.advance_time(at_ms);
        self.dropped.entry(stream).or_insert(at_ms);
        self.settings.remove(&stream);
        let mut gone: Vec<ShardId> = self.shards_of(stream).map(|shard| shard.id).collect();
        if planted(Bug::DropLeavesShard) && gone.len() > 1 {
            gone.pop();
        }
        for id in &gone {
            self.shards.remove(id);
        }
        gone
    }

    fn forget(&mut self, command: &ForgetShards) -> Vec<ShardId> {
        let at_ms = self.advance_time(command.at_ms);
        let is_closed = |id: &ShardId| self.shards.get(id).is_some_and(|shard| !shard.is_open());
        let gone: Vec<ShardId> = command.shards.iter().copied().filter(is_closed).collect();
        for id in &gone {
            self.shards.remove(id);
            self.forgotten.insert(*id, at_ms);
        }
        gone
    }

    fn seal(&mut self, command: &SealShard) -> Result<Sealed, SealRefused> {
        let at_ms = self.advance_time(command.at_ms);
        let id = command.shard;
        let Some(shard) = self.shards.get_mut(&id) else {
            return Err(SealRefused::NoSuchShard { shard: id });
        };
        let sound =
            matches!(command.children[..], [a] | [a, _] if a > id.index) && command.children.is_sorted_by(|a, b| a < b);
        if !sound {
            return Err(SealRefused::Children { shard: id, children: command.children.clone() });
        }
        match &shard.state {
            ShardState::Open => {
                let last = shard.last();
                shard.state = ShardState::Closed { last, at_ms, children: command.children.clone() };
                Ok(Sealed { last, at_ms })
            }
            ShardState::Closed { last, at_ms, children } if *children == command.children => {
                Ok(Sealed { last: *last, at_ms: *at_ms })
            }
            ShardState::Closed { children, .. } => {
                Err(SealRefused::AlreadySealed { shard: id, children: children.clone() })
            }
        }
    }

    fn trim(&mut self, log_index: u64, command: &Trim) -> Result<Trimmed, TrimRefused> {
        let now_ms = self.advance_time(command.at_ms);
        if let Some(through) = command.through
            && through >= log_index
        {
            return Err(TrimRefused::BeyondLog { through, log_index });
        }
        for &ShardTrim { shard, below } in &command.shards {
            if let Some(it) = self.shards.get(&shard)
                && below > it.next
            {
                return Err(TrimRefused::BeyondNext { shard, below, next: it.next });
            }
        }
        self.trimmed_through = self.trimmed_through.max(command.through);
        self.dropped.retain(|_, dropped_ms| now_ms.saturating_sub(*dropped_ms) < DROPPED_MS);
        self.forgotten.retain(|_, forgotten_ms| now_ms.saturating_sub(*forgotten_ms) < DROPPED_MS);
        let mut moved = Vec::new();
        for trim in &command.shards {
            // A shard dropped since the command was proposed has nothing left to trim.
            if let Some(shard) = self.shards.get_mut(&trim.shard)
                && shard.trimmed < trim.below
            {
                shard.trimmed = trim.below;
                if planted(Bug::TrimOneTooMany) && trim.below < shard.next {
                    shard.trimmed = trim.below.advance(1);
                }
                moved.push(*trim);
            }
        }
        Ok(Trimmed { through: self.trimmed_through, shards: moved })
    }

    fn set(&mut self, command: &SetSettings) -> usize {
        let stream = command.stream;
        let known = self.settings.get(&stream).copied();
        if self.dropped.contains_key(&stream) || known >= Some(command.revision) {
            return 0;
        }
        self.settings.insert(stream, command.revision);
        let bound = |index| ShardId { stream, index };
        let shards = self.shards.range_mut(bound(0)..=bound(u32::MAX)).map(|(_, shard)| shard);
        shards.map(|shard| (shard.retention_ms, shard.limits) = (command.retention_ms, command.limits)).count()
    }
}

/// What is taken in the streams a command names, gathered once for each stream, so that opening
/// thousands of shards compares each with its neighbours only.
#[derive(Default)]
struct Claims(BTreeMap<StreamId, StreamClaims>);

#[derive(Default)]
struct StreamClaims {
    /// Open ranges, by their start; disjoint.
    open: BTreeMap<HashKey, (HashRange, ShardId)>,
    /// Shards named as a parent, and by whom: such a shard must never be opened again.
    parents: BTreeMap<u32, ShardId>,
}

impl Claims {
    fn of(&mut self, group: &Group, stream: StreamId) -> &mut StreamClaims {
        self.0.entry(stream).or_insert_with(|| {
            let mut claims = StreamClaims::default();
            for shard in group.shards_of(stream) {
                claims.add(shard.id, shard.parents);
                if shard.is_open() {
                    let open = (shard.range, shard.id);
                    claims.open.insert(shard.range.start(), open);
                }
            }
            claims
        })
    }
}

impl StreamClaims {
    fn add(&mut self, child: ShardId, parents: [Option<u32>; 2]) {
        for parent in parents.into_iter().flatten() {
            self.parents.insert(parent, child);
        }
    }

    fn claim(&mut self, spec: &ShardSpec) -> Result<(), OpenRefused> {
        if let Some(&child) = self.parents.get(&spec.id.index) {
            return Err(OpenRefused::ParentOpen { shard: child, parent: spec.id });
        }
        // Open ranges are disjoint, so only the last one that starts at or before our end can
        // reach into ours.
        let below = self.open.range(..=spec.range.end()).next_back();
        if let Some((_, (range, other))) = below
            && range.overlaps(&spec.range)
        {
            return Err(OpenRefused::Overlaps { shard: spec.id, other: *other });
        }
        let start = spec.range.start();
        self.open.insert(start, (spec.range, spec.id));
        self.add(spec.id, spec.parents);
        Ok(())
    }
}

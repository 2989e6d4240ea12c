//! What is being changed about a stream: one thing at a time, from the catalog's decision to its commit.
//!
//! ```text
//!  split, merge   children named and placed ─▶ parents sealed ─▶ children open ─▶ commit
//!  shard count    the first splits and merges that can be done at once; after their commits the next (`scaling.rs`)
//!  settings       decided ─▶ every group told ─▶ commit
//! ```
//!
//! Invariant: a child is among the stream's shards only once its parents are closed there, so that open ranges tile
//! before a commit and after it. A change that has begun is always carried to its end: a sealed parent can't be opened
//! again.
//!
//! Not here: sealing and opening, which the groups do (`group.rs`), and who asks them.

use std::collections::{BTreeMap, BTreeSet};

use braid_probe::{Bug, planted};
use serde::{Deserialize, Serialize};

use super::stream::{Stream, StreamShard, StreamStatus};
use super::{Catalog, CatalogReply, ReshardError, StreamError};
use crate::catalog_command::{BeginReshard, CommitReshard, Reshape, SealedParent, SetSettings, SettingsTold};
use crate::hash::{HashKey, HashRange};
use crate::ids::{GroupId, StreamId};
use crate::limits::{SHARDS_PER_STREAM_MAX, TIME_MS_MAX};
use crate::placement;
use crate::sequence::SECOND_MAX;
use crate::shard::{ShardSpec, ShardState};

/// Why a stream is UPDATING.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Retention or limits were set by the command of this revision; its groups may not know yet.
    Settings { revision: u64 },
    /// Shards are being split or merged; steps that are committed are gone.
    Reshard(Vec<Step>),
}

/// One split (a parent, two children) or one merge (two parents, a child).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Shard indexes; in a merge, the one that was named first comes first.
    pub parents: Vec<u32>,
    /// Not among the stream's shards yet; ascending in index and range.
    pub children: BTreeMap<u32, StreamShard>,
}

impl Step {
    /// The children's shard indexes, as the parents' groups are told.
    pub fn child_indexes(&self) -> Vec<u32> {
        self.children.keys().copied().collect()
    }
}

impl Catalog {
    /// What is being changed about a stream; `None` unless it is UPDATING, or was when it was deleted.
    pub fn change(&self, stream: StreamId) -> Option<&Change> {
        self.changes.get(&stream)
    }

    /// The groups that hold the stream's shards, or may hold some that are not committed yet or forgotten here: all that have to drop
    /// it in the end.
    pub fn groups_of(&self, stream: &Stream) -> BTreeSet<GroupId> {
        let mut groups = stream.groups();
        if let Some(Change::Reshard(steps)) = self.change(stream.id) {
            groups.extend(steps.iter().flat_map(|step| step.children.values()).map(|child| child.group));
        }
        groups.extend(self.forgetting.get(&stream.id).into_iter().flat_map(|shards| shards.values()));
        groups
    }

    /// What a step's children are opened with, by group.
    pub fn specs_of_step(&self, stream: &Stream, step: &Step) -> BTreeMap<GroupId, Vec<ShardSpec>> {
        let mut specs: BTreeMap<GroupId, Vec<ShardSpec>> = BTreeMap::new();
        for (&index, child) in &step.children {
            specs.entry(child.group).or_default().push(stream.spec(index, child));
        }
        specs
    }

    pub(super) fn begin_reshard(&mut self, command: &BeginReshard) -> Result<CatalogReply, StreamError> {
        let stream = self.stream_mut(command.stream)?;
        if stream.status != StreamStatus::Active {
            return Err(StreamError::Status { stream: stream.id, status: stream.status });
        }
        self.begin(command.stream, &command.shapes, command.at_ms)?;
        Ok(CatalogReply::StreamUpdating { stream: command.stream })
    }

    /// Names and places the children of a stream of which nothing else is being changed.
    pub(super) fn begin(&mut self, id: StreamId, shapes: &[Reshape], at_ms: u64) -> Result<(), StreamError> {
        let now_ms = self.last_time_ms.max(at_ms.min(TIME_MS_MAX));
        let load = self.load();
        let stream = self.stream_mut(id)?;
        let mut planned = Plan { stream, taken: BTreeSet::new(), steps: Vec::new() };
        for shape in shapes {
            planned.add(shape)?;
        }
        let steps = planned.place(now_ms / 1000, &load)?;
        stream.next_shard += steps.iter().map(|step| step.children.len() as u32).sum::<u32>();
        stream.status = StreamStatus::Updating;
        self.last_time_ms = now_ms;
        self.changes.insert(id, Change::Reshard(steps));
        Ok(())
    }

    /// The parents' seals close a step. Repeating a commit is accepted.
    pub(super) fn commit_reshard(&mut self, command: &CommitReshard) -> Result<CatalogReply, StreamError> {
        let id = command.stream;
        let stream = self.streams.get_mut(&id).ok_or(StreamError::NoSuchStream { stream: id })?;
        let parents: Vec<u32> = command.sealed.iter().map(|it| it.shard).collect();
        let mut none = Vec::new();
        let steps = match self.changes.get_mut(&id) {
            Some(Change::Reshard(steps)) => steps,
            _ => &mut none,
        };
        let Some(nth) = steps.iter().position(|step| step.parents == parents) else {
            let committed = |it: &SealedParent| match stream.shards.get(&it.shard).map(|shard| &shard.state) {
                Some(ShardState::Closed { last, at_ms, .. }) => (*last, *at_ms) == (it.last, it.at_ms),
                _ => false,
            };
            return match !parents.is_empty() && command.sealed.iter().all(committed) {
                true => Ok(CatalogReply::ReshardCommitted { stream: id, left: steps.len() }),
                false => Err(ReshardError::NoSuchStep { stream: id, parents }.into()),
            };
        };
        let step = steps.remove(nth);
        let left = steps.len();
        let indexes = step.child_indexes();
        for &SealedParent { shard, last, at_ms } in &command.sealed {
            let parent = stream.shards.get_mut(&shard).expect("a step's parents are there");
            parent.state = ShardState::Closed { last, at_ms, children: indexes.clone() };
        }
        let mut children = step.children;
        if planted(Bug::ChildrenSwapped) && children.len() == 2 {
            let ranges: Vec<HashRange> = children.values().rev().map(|it| it.range).collect();
            children.values_mut().zip(ranges).for_each(|(child, range)| child.range = range);
        }
        stream.shards.extend(children);
        if left > 0 {
            return Ok(CatalogReply::ReshardCommitted { stream: id, left });
        }
        self.changes.remove(&id);
        if stream.status == StreamStatus::Updating {
            stream.status = StreamStatus::Active;
            let at_ms = command.sealed.iter().map(|it| it.at_ms).max().unwrap_or(0);
            self.scale_on(id, at_ms);
        }
        let left = self.scaling(id).map_or(0, |it| it.left);
        Ok(CatalogReply::ReshardCommitted { stream: id, left })
    }

    /// Every group of a stream knows its settings, unless they were changed again meanwhile.
    pub(super) fn settings_told(&mut self, command: &SettingsTold) -> Result<CatalogReply, StreamError> {
        let SettingsTold { stream: id, revision: told } = *command;
        let change = self.changes.get(&id).cloned();
        let stream = self.stream_mut(id)?;
        match (stream.status, change) {
            (StreamStatus::Active, _) => {}
            (StreamStatus::Updating, Some(Change::Settings { revision })) if revision == told => {
                stream.status = StreamStatus::Active;
                self.changes.remove(&id);
            }
            (status, _) => return Err(StreamError::Status { stream: id, status }),
        }
        Ok(CatalogReply::StreamActive { stream: id })
    }

    /// Of an ACTIVE stream, or of one whose settings are on their way: then the last ones count.
    pub(super) fn set_settings(&mut self, command: &SetSettings) -> Result<CatalogReply, StreamError> {
        let SetSettings { stream: id, retention_ms, limits } = *command;
        // The one that this command makes.
        let revision = self.revision + 1;
        if let Some(retention_ms) = retention_ms {
            self.check_retention(retention_ms)?;
        }
        limits.unwrap_or_default().check().map_err(StreamError::Limit)?;
        let free = matches!(self.changes.get(&id), None | Some(Change::Settings { .. }));
        let stream = self.stream_mut(id)?;
        match stream.status {
            StreamStatus::Active | StreamStatus::Updating if free => {}
            status => return Err(StreamError::Status { stream: id, status }),
        }
        stream.retention_ms = retention_ms.unwrap_or(stream.retention_ms);
        stream.limits = limits.unwrap_or(stream.limits);
        stream.status = StreamStatus::Updating;
        self.changes.insert(id, Change::Settings { revision });
        Ok(CatalogReply::StreamUpdating { stream: id })
    }
}

/// A change of a stream's shards that is being checked.
struct Plan<'a> {
    stream: &'a Stream,
    taken: BTreeSet<u32>,
    /// Parents, and the children's ranges in order.
    steps: Vec<(Vec<u32>, Vec<HashRange>)>,
}

impl Plan<'_> {
    /// The range of an open shard that no other step of the plan takes.
    fn take(&mut self, index: u32) -> Result<HashRange, ReshardError> {
        let shard = self.stream.shard_id(index);
        let known = self.stream.shards.get(&index).ok_or(ReshardError::NoSuchShard { shard })?;
        if !known.is_open() {
            return Err(ReshardError::Closed { shard });
        }
        match self.taken.insert(index) {
            true => Ok(known.range),
            false => Err(ReshardError::Twice { shard }),
        }
    }

    fn add(&mut self, shape: &Reshape) -> Result<(), ReshardError> {
        match *shape {
            Reshape::Split { shard, at } => {
                let range = self.take(shard)?;
                // As Kinesis: the upper child begins at the key that is given, and neither child is empty.
                let inside = range.contains(at) && at != range.start();
                let halves = inside.then(|| {
                    let lower = HashRange::new(range.start(), HashKey(at.0 - 1));
                    [lower, HashRange::new(at, range.end())].map(|half| half.expect("`at` is inside"))
                });
                let halves = halves.ok_or(ReshardError::SplitKey { shard: self.stream.shard_id(shard), at, range })?;
                self.steps.push((vec![shard], halves.to_vec()));
            }
            Reshape::Merge { shard, adjacent } => {
                let (a, b) = (self.take(shard)?, self.take(adjacent)?);
                if !a.adjacent(&b) {
                    let [shard, other] = [shard, adjacent].map(|index| self.stream.shard_id(index));
                    return Err(ReshardError::NotAdjacent { shard, other });
                }
                let whole = HashRange::new(a.start().min(b.start()), a.end().max(b.end())).expect("start before end");
                self.steps.push((vec![shard, adjacent], vec![whole]));
            }
        }
        Ok(())
    }

    /// Gives the children indexes, creation seconds and groups.
    fn place(self, now_s: u64, load: &BTreeMap<GroupId, u32>) -> Result<Vec<Step>, StreamError> {
        if self.steps.is_empty() {
            return Err(ReshardError::Nothing.into());
        }
        let children: usize = self.steps.iter().map(|(_, ranges)| ranges.len()).sum();
        let open = self.stream.shards.values().filter(|shard| shard.is_open()).count();
        let after = open - self.taken.len() + children;
        if after > SHARDS_PER_STREAM_MAX as usize {
            return Err(StreamError::Shards { shards: after as u32 });
        }
        let mut load = load.clone();
        for index in &self.taken {
            load.entry(self.stream.shards[index].group).and_modify(|shards| *shards -= 1);
        }
        let places = placement::place_shards(&load, children as u32).ok_or(StreamError::NoGroups)?;
        let mut places = places.into_iter();
        let mut index = self.stream.next_shard;
        let mut steps = Vec::with_capacity(self.steps.len());
        for (parents, ranges) in self.steps {
            let newest = parents.iter().map(|it| self.stream.shards[it].created_s).max().expect("a step has parents");
            // Numbers sort by creation second first: a child's is greater than any of its parents' records'.
            let created_s = if planted(Bug::ChildNotYounger) { newest } else { now_s.max(newest + 1) };
            if created_s > SECOND_MAX || index.checked_add(ranges.len() as u32).is_none() {
                return Err(ReshardError::Exhausted { stream: self.stream.id }.into());
            }
            let of_child = |range| StreamShard {
                range,
                group: places.next().expect("one for each child"),
                created_s,
                parents: [parents.first().copied(), parents.get(1).copied()],
                state: ShardState::Open,
            };
            let children: BTreeMap<u32, StreamShard> = (index..).zip(ranges.into_iter().map(of_child)).collect();
            index += children.len() as u32;
            steps.push(Step { parents, children });
        }
        Ok(steps)
    }
}

//! Whole-state invariants of the catalog, for the simulator, tests and start-up.
//!
//! Invariant: every rule here holds after any command; a finding is a bug or a damaged checkpoint.
//!
//! Not here: agreement with the groups' own states, which only someone who sees both can check.

use std::collections::BTreeSet;
use std::fmt;

use super::Catalog;
use super::attributes::Attributes;
use super::change::{Change, Step};
use super::moving::Standing;
use super::stream::{Stream, StreamShard, StreamStatus};
use crate::hash::{HashKey, HashRange};
use crate::ids::{GroupId, NodeId, ShardId, StreamId, Zone};
use crate::limits::{CONSUMERS_MAX, SHARD_COUNT_CALLS, TAGS_MAX, TIME_MS_MAX};
use crate::moves::Move;
use crate::name::StreamName;
use crate::sequence::SECOND_MAX;
use crate::shard::ShardState;

/// One broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// There are nodes, groups or streams but no cluster.
    NotInitialised,
    /// Names and streams are not one to one.
    NameMismatch {
        name: StreamName,
    },
    WrongStreamKey {
        key: StreamId,
        id: StreamId,
    },
    /// The id could be handed out again.
    StreamIdNotBelowNext {
        stream: StreamId,
        next: u32,
    },
    GroupIdNotBelowNext {
        group: GroupId,
        next: u32,
    },
    /// Group 0 is the catalog's own.
    CatalogAsDataGroup,
    WrongReplicaCount {
        group: GroupId,
        replicas: usize,
        wanted: usize,
    },
    UnknownReplica {
        group: GroupId,
        node: NodeId,
    },
    /// Two replicas would be lost with one zone.
    SharedZone {
        group: GroupId,
        zone: Zone,
    },
    /// A key has no open shard, or two.
    NotTiled {
        stream: StreamId,
        at: HashKey,
    },
    ShardIndexNotBelowNext {
        shard: ShardId,
        next: u32,
    },
    UnknownGroup {
        shard: ShardId,
        group: GroupId,
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
    TimeAhead {
        stream: Option<StreamId>,
        time_ms: u64,
        most_ms: u64,
    },
    CreatedBeyondMax {
        shard: ShardId,
        created_s: u64,
    },
    /// UPDATING without a change, or a change of a stream that is neither UPDATING nor being deleted.
    ChangeMismatch {
        stream: StreamId,
    },
    /// A stream is on its way to a number of shards, and no step is under way; or calls or bounds are kept of none.
    ScalingMismatch {
        stream: StreamId,
    },
    /// A shard is forgotten and there, or its stream or group is not.
    ForgettingMismatch {
        stream: StreamId,
    },
    /// A replica is on its way, and the group's replicas do not say so.
    MoveMismatch(Move),
    /// It is to have nothing, and is not known to have left.
    NodeMismatch {
        node: NodeId,
    },
    /// Attributes of no stream, or more of something than is allowed.
    WrongAttributes {
        stream: StreamId,
    },
    /// A step's children do not take the place of its parents.
    WrongStep {
        stream: StreamId,
        parents: Vec<u32>,
    },
}

impl Catalog {
    /// Every rule that does not hold; empty if all is well. Costs a pass over everything.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let empty = self.nodes.is_empty() && self.groups.is_empty() && self.streams.is_empty();
        if self.cluster.is_none() && !empty {
            found.push(Violation::NotInitialised);
        }
        if self.last_time_ms > TIME_MS_MAX {
            found.push(Violation::TimeAhead { stream: None, time_ms: self.last_time_ms, most_ms: TIME_MS_MAX });
        }
        self.check_groups(&mut found);
        self.check_names(&mut found);
        for (&key, stream) in &self.streams {
            if key != stream.id {
                found.push(Violation::WrongStreamKey { key, id: stream.id });
            }
            self.check_stream(stream, &mut found);
            check_lineage(stream, &mut found);
        }
        self.check_changes(&mut found);
        self.check_scalings(&mut found);
        self.check_forgetting(&mut found);
        self.check_moves(&mut found);
        for (&stream, it) in &self.attributes.streams {
            let within = it.consumers.len() <= CONSUMERS_MAX && it.tags.len() <= TAGS_MAX;
            if !self.streams.contains_key(&stream) || !within || *it == Attributes::default() {
                found.push(Violation::WrongAttributes { stream });
            }
        }
        found
    }

    fn check_groups(&self, found: &mut Vec<Violation>) {
        for (&group, replicas) in &self.groups {
            if group == GroupId::CATALOG {
                found.push(Violation::CatalogAsDataGroup);
            }
            if group.0 >= self.next_group {
                found.push(Violation::GroupIdNotBelowNext { group, next: self.next_group });
            }
            if let Some(cluster) = &self.cluster
                && replicas.len() != usize::from(cluster.settings.replicas)
            {
                found.push(Violation::WrongReplicaCount {
                    group,
                    replicas: replicas.len(),
                    wanted: usize::from(cluster.settings.replicas),
                });
            }
            let mut zones = BTreeSet::new();
            for &node in replicas {
                match self.nodes.get(&node) {
                    None => found.push(Violation::UnknownReplica { group, node }),
                    Some(known) if !zones.insert(&known.zone) => {
                        found.push(Violation::SharedZone { group, zone: known.zone.clone() });
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn check_moves(&self, found: &mut Vec<Violation>) {
        if let Some(it) = self.moving {
            let placement = self.placement();
            let replicas = placement.get(&it.group);
            if !replicas.is_some_and(|nodes| nodes.contains(&it.to) && !nodes.contains(&it.from)) {
                found.push(Violation::MoveMismatch(it));
            }
        }
        let removed = self.standing.iter().filter(|(_, standing)| **standing == Standing::Removed);
        for (&node, _) in removed.filter(|(node, _)| !self.groups_on(**node).is_empty()) {
            found.push(Violation::NodeMismatch { node });
        }
        for &node in self.standing.keys().chain(&self.voters).filter(|node| !self.nodes.contains_key(node)) {
            found.push(Violation::NodeMismatch { node });
        }
        let zones: BTreeSet<&Zone> =
            self.voters.iter().filter_map(|it| self.nodes.get(it)).map(|it| &it.zone).collect();
        let known = self.voters.iter().filter(|it| self.nodes.contains_key(it));
        if zones.len() < known.clone().count() {
            found.extend(known.map(|&node| Violation::NodeMismatch { node }));
        }
    }

    fn check_names(&self, found: &mut Vec<Violation>) {
        for (name, id) in &self.names {
            if self.streams.get(id).is_none_or(|it| it.name != *name) {
                found.push(Violation::NameMismatch { name: name.clone() });
            }
        }
        for (id, stream) in &self.streams {
            if self.names.get(&stream.name) != Some(id) {
                found.push(Violation::NameMismatch { name: stream.name.clone() });
            }
        }
    }

    fn check_stream(&self, stream: &Stream, found: &mut Vec<Violation>) {
        if stream.id.0 >= self.next_stream {
            found.push(Violation::StreamIdNotBelowNext { stream: stream.id, next: self.next_stream });
        }
        if stream.created_ms > self.last_time_ms {
            found.push(Violation::TimeAhead {
                stream: Some(stream.id),
                time_ms: stream.created_ms,
                most_ms: self.last_time_ms,
            });
        }
        if let Err(error) = stream.shard_map() {
            found.push(Violation::NotTiled { stream: stream.id, at: error.at });
        }
        for (&index, shard) in &stream.shards {
            let id = stream.shard_id(index);
            if index >= stream.next_shard {
                found.push(Violation::ShardIndexNotBelowNext { shard: id, next: stream.next_shard });
            }
            if !self.groups.contains_key(&shard.group) {
                found.push(Violation::UnknownGroup { shard: id, group: shard.group });
            }
            if shard.created_s > SECOND_MAX {
                found.push(Violation::CreatedBeyondMax { shard: id, created_s: shard.created_s });
            }
        }
    }
}

impl Catalog {
    fn check_changes(&self, found: &mut Vec<Violation>) {
        let updating = self.streams.values().filter(|stream| stream.status == StreamStatus::Updating);
        let ids: BTreeSet<StreamId> = updating.map(|stream| stream.id).chain(self.changes.keys().copied()).collect();
        for id in ids {
            let status = self.streams.get(&id).map(|stream| stream.status);
            match (self.changes.get(&id), status) {
                (Some(Change::Settings { .. }), Some(StreamStatus::Updating | StreamStatus::Deleting)) => {}
                (Some(Change::Reshard(steps)), Some(StreamStatus::Updating | StreamStatus::Deleting))
                    if !steps.is_empty() =>
                {
                    let stream = &self.streams[&id];
                    let mut used = BTreeSet::new();
                    let broken = steps.iter().filter(|step| !self.is_sound(stream, step, &mut used));
                    found.extend(broken.map(|it| Violation::WrongStep { stream: id, parents: it.parents.clone() }));
                }
                _ => found.push(Violation::ChangeMismatch { stream: id }),
            }
        }
    }

    fn check_scalings(&self, found: &mut Vec<Violation>) {
        for &id in self.scalings.keys() {
            let updating = self.streams.get(&id).is_some_and(|stream| stream.status == StreamStatus::Updating);
            if !updating || !matches!(self.changes.get(&id), Some(Change::Reshard(_))) {
                found.push(Violation::ScalingMismatch { stream: id });
            }
        }
        for (&id, bounds) in &self.autoscale {
            if !self.streams.contains_key(&id) || bounds.check().is_err() {
                found.push(Violation::ScalingMismatch { stream: id });
            }
        }
        for (&id, calls) in &self.shard_count_calls {
            let known = self.streams.contains_key(&id);
            if !known || calls.len() > SHARD_COUNT_CALLS || calls.iter().any(|at_ms| *at_ms > self.last_time_ms) {
                found.push(Violation::ScalingMismatch { stream: id });
            }
        }
    }

    fn check_forgetting(&self, found: &mut Vec<Violation>) {
        for (&id, shards) in &self.forgetting {
            let gone = |stream: &Stream| {
                shards
                    .iter()
                    .all(|(index, group)| self.has_forgotten(stream, *index) && self.groups.contains_key(group))
            };
            if shards.is_empty() || !self.streams.get(&id).is_some_and(gone) {
                found.push(Violation::ForgettingMismatch { stream: id });
            }
        }
    }

    /// Whether a step could be committed. `used` are the shards of the steps before.
    fn is_sound(&self, stream: &Stream, step: &Step, used: &mut BTreeSet<u32>) -> bool {
        let mut parents: Vec<_> = step.parents.iter().filter_map(|it| stream.shards.get(it)).collect();
        let known = parents.len() == step.parents.len() && parents.iter().all(|it| it.is_open());
        parents.sort_by_key(|it| it.range);
        let fresh = step.parents.iter().chain(step.children.keys()).all(|index| used.insert(*index));
        let newest = parents.iter().map(|it| it.created_s).max();
        let child_fits = |(&index, child): (&u32, &StreamShard)| {
            let named: Vec<u32> = child.parents.into_iter().flatten().collect();
            let is_new = index < stream.next_shard && !stream.shards.contains_key(&index);
            is_new && named == step.parents && Some(child.created_s) > newest && self.groups.contains_key(&child.group)
        };
        let shape = matches!((step.parents.len(), step.children.len()), (1, 2) | (2, 1));
        let ranges = |shards: &mut dyn Iterator<Item = HashRange>| {
            let all: Vec<HashRange> = shards.collect();
            let joined = all.windows(2).all(|pair| pair[0].end() < pair[1].start() && pair[0].adjacent(&pair[1]));
            joined.then(|| Some((all.first()?.start(), all.last()?.end()))).flatten()
        };
        let before = ranges(&mut parents.iter().map(|it| it.range));
        let after = ranges(&mut step.children.values().map(|it| it.range));
        shape && known && fresh && before.is_some() && before == after && step.children.iter().all(child_fits)
    }
}

fn check_lineage(stream: &Stream, found: &mut Vec<Violation>) {
    for (&index, shard) in &stream.shards {
        let id = stream.shard_id(index);
        for parent in shard.parents.into_iter().flatten() {
            // A parent may be forgotten once nothing of it is readable.
            let older = match stream.shards.get(&parent) {
                Some(it) => it.created_s < shard.created_s,
                None => true,
            };
            if !older || parent >= index {
                found.push(Violation::NotAfterParent { shard: id, parent: stream.shard_id(parent) });
            }
        }
        if let ShardState::Closed { children, .. } = &shard.state {
            let known = |&child: &u32| child > index && stream.shards.contains_key(&child);
            if !(1..=2).contains(&children.len()) || !children.iter().all(known) {
                found.push(Violation::WrongChildren { shard: id, children: children.clone() });
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::NotInitialised => write!(f, "the catalog has content but no cluster"),
            Violation::NameMismatch { name } => {
                write!(f, "name {name} and its stream do not agree")
            }
            Violation::WrongStreamKey { key, id } => write!(f, "stream {id} is filed under {key}"),
            Violation::StreamIdNotBelowNext { stream, next } => {
                write!(f, "stream id {stream} exists but {next} is the next one")
            }
            Violation::GroupIdNotBelowNext { group, next } => {
                write!(f, "group id {group} exists but {next} is the next one")
            }
            Violation::CatalogAsDataGroup => write!(f, "group 0 is among the data groups"),
            Violation::WrongReplicaCount { group, replicas, wanted } => {
                write!(f, "group {group} has {replicas} replicas instead of {wanted}")
            }
            Violation::UnknownReplica { group, node } => {
                write!(f, "group {group} has a replica on node {node}, which is not registered")
            }
            Violation::SharedZone { group, zone } => {
                write!(f, "group {group} has two replicas in zone {zone}")
            }
            Violation::NotTiled { stream, at } => {
                write!(f, "stream {stream}'s open ranges do not tile: trouble at hash key {at}")
            }
            Violation::ShardIndexNotBelowNext { shard, next } => {
                write!(f, "shard {shard} exists but index {next} is the next one")
            }
            Violation::UnknownGroup { shard, group } => {
                write!(f, "shard {shard} is placed on group {group}, which does not exist")
            }
            Violation::NotAfterParent { shard, parent } => {
                write!(f, "shard {shard} was not created after its parent {parent}")
            }
            Violation::WrongChildren { shard, children } => {
                write!(f, "closed shard {shard} has children {children:?}")
            }
            Violation::TimeAhead { stream, time_ms, most_ms } => match stream {
                Some(stream) => write!(f, "stream {stream}'s time {time_ms} is after {most_ms}"),
                None => write!(f, "the catalog's time {time_ms} is after {most_ms}"),
            },
            Violation::CreatedBeyondMax { shard, created_s } => {
                write!(f, "shard {shard}'s creation second {created_s} is more than {SECOND_MAX}")
            }
            Violation::ChangeMismatch { stream } => {
                write!(f, "stream {stream}'s status does not fit what is being changed about it")
            }
            Violation::ScalingMismatch { stream } => {
                write!(f, "stream {stream} is on its way to a number of shards without a step, or has odd calls")
            }
            Violation::ForgettingMismatch { stream } => {
                write!(f, "stream {stream} has shards that are forgotten, or none, or they were in no group")
            }
            Violation::MoveMismatch(it) => write!(f, "a replica is on its way ({it}), and the group does not say so"),
            Violation::NodeMismatch { node } => {
                write!(f, "node {node} is drained, removed or a voter in a way that does not fit the rest")
            }
            Violation::WrongAttributes { stream } => {
                write!(f, "stream {stream} has attributes and is not there, or has empty ones or too many")
            }
            Violation::WrongStep { stream, parents } => {
                write!(f, "stream {stream}'s shards {parents:?} would not be replaced by what is planned")
            }
        }
    }
}

//! The catalog's replicated state: the cluster, its nodes, groups and streams, and what each
//! command does to them.
//!
//! Invariant: [`Catalog::apply`] is a pure function of state and command; a refused command changes
//! nothing, and [`Catalog::check`] finds nothing wrong after any sequence of commands. Stream and
//! group ids are never used twice, nor a node id by another incarnation.
//!
//! Not here: carrying it out. The catalog's leader compares this with the groups and proposes to
//! them what is missing.

mod attributes;
mod change;
mod check;
mod error;
mod forgetting;
mod moving;
mod scaling;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use braid_probe::{Bug, Mark, planted, reachable};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use attributes::AttributeTable;
pub use attributes::{Account, AttributeError, Attributes, Consumer, ConsumerStatus, ShardMetric};
pub use change::{Change, Step};
pub use check::Violation;
pub use error::{
    CatalogError, ForgetError, GroupError, InitError, NodeError, ReshardError, ShardCountError, StreamError,
};
pub use moving::Standing;
pub use scaling::{Progress, Scaling};
pub use stream::{Stream, StreamMode, StreamShard, StreamStatus};

use crate::autoscale::Bounds;
use crate::catalog_command::{CatalogCommand, CreateGroup, CreateStream, Init, PutNode, ReplaceNode};
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId, StreamId, Zone};
use crate::limits::{
    ADDRESS_CHARS_MAX, GROUPS_MAX, NODES_MAX, RETENTION_MS_CEILING, RETENTION_MS_MAX, RETENTION_MS_MIN,
    SHARDS_PER_STREAM_MAX, STREAMS_MAX, TIME_MS_MAX,
};
use crate::moves::Move;
use crate::name::StreamName;
use crate::placement;
use crate::versioned::{self, DecodeError};

const VERSION: u8 = 3;

/// As version 3, without what streams are scaled to, the calls for it, what is being forgotten, who scales by load, all
/// about moves, and attributes at its end.
const VERSION_WITHOUT_SCALINGS: u8 = 2;

/// As version 2, without the changes under way at its end.
const VERSION_WITHOUT_CHANGES: u8 = 1;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Catalog {
    cluster: Option<Cluster>,
    nodes: BTreeMap<NodeId, Node>,
    /// Data groups; the catalog's own group 0 is not among them.
    groups: BTreeMap<GroupId, Vec<NodeId>>,
    streams: BTreeMap<StreamId, Stream>,
    names: BTreeMap<StreamName, StreamId>,
    next_group: u32,
    next_stream: u32,
    last_time_ms: u64,
    revision: u64,
    /// Nodes that are gone for good, and who took their replicas over.
    replaced: BTreeMap<NodeId, NodeId>,
    /// What is being changed about streams that are UPDATING, or were when they were deleted.
    changes: BTreeMap<StreamId, Change>,
    /// How many shards streams are on their way to; the steps under way are among the changes.
    scalings: BTreeMap<StreamId, Scaling>,
    /// When calls for a number of shards were taken, in the catalog's time, ascending: as many as are counted.
    shard_count_calls: BTreeMap<StreamId, Vec<u64>>,
    /// Shards that are forgotten here, and whose groups may not know.
    forgetting: BTreeMap<StreamId, BTreeMap<u32, GroupId>>,
    /// Within which bounds streams scale by load, where they were set; in on-demand mode streams do without as well.
    autoscale: BTreeMap<StreamId, Bounds>,
    /// Nodes that are drained or removed.
    standing: BTreeMap<NodeId, Standing>,
    /// Who votes in the catalog itself; empty until its first leader has named them.
    voters: Vec<NodeId>,
    /// Groups whose replicas are not those any more that they were created with.
    moved: BTreeSet<GroupId>,
    /// The replica that is on its way.
    moving: Option<Move>,
    /// Replicas move to where fewer are, until it is even.
    rebalancing: bool,
    attributes: AttributeTable,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    pub id: ClusterId,
    pub token_key: TokenKey,
    pub settings: Settings,
}

/// Signs iterators and other tokens. Kept out of logs: its debug text is not the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey(pub [u8; 32]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// Cluster-wide settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Replicas of each group, each in its own zone: 3, or 1 for a cluster on a developer's machine.
    pub replicas: u8,
    /// What a stream may set as its retention.
    pub retention_ms_min: u64,
    pub retention_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { replicas: 3, retention_ms_min: RETENTION_MS_MIN, retention_ms_max: RETENTION_MS_MAX }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    pub incarnation: Incarnation,
    pub zone: Zone,
    pub addresses: Addresses,
}

/// Each as `host:port`, at most 260 characters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// For clients and forwarded calls.
    pub client: String,
    /// For the other nodes' replication.
    pub peer: String,
}

/// What an accepted command did. Repeating an accepted command gives the same answer, except for `CreateStream`,
/// whose name is then taken, `BeginReshard` and `SetShardCount`, whose stream is then UPDATING, and the registration of a
/// consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogReply {
    Initialised,
    NodePut,
    GroupCreated {
        group: GroupId,
    },
    StreamCreating {
        stream: StreamId,
    },
    StreamActive {
        stream: StreamId,
    },
    StreamDeleting {
        stream: StreamId,
    },
    StreamDropped {
        stream: StreamId,
    },
    /// Its settings or shards are being changed.
    StreamUpdating {
        stream: StreamId,
    },
    /// So many steps of the change are left.
    ReshardCommitted {
        stream: StreamId,
        left: usize,
    },
    NodeReplaced {
        from: NodeId,
        to: NodeId,
    },
    /// Here, or in their groups as well.
    ShardsForgotten {
        stream: StreamId,
    },
    AutoscaleSet {
        stream: StreamId,
    },
    VotersNamed,
    RebalancingSet,
    MoveBegun {
        group: GroupId,
    },
    MoveEnded {
        group: GroupId,
    },
    AttributesChanged {
        stream: StreamId,
    },
    ConsumersSettled {
        stream: StreamId,
    },
    AccountSet,
}

impl Default for Catalog {
    fn default() -> Catalog {
        Catalog::new()
    }
}

impl Catalog {
    pub fn new() -> Catalog {
        Catalog {
            cluster: None,
            nodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            streams: BTreeMap::new(),
            names: BTreeMap::new(),
            next_group: GroupId::CATALOG.0 + 1,
            next_stream: 1,
            last_time_ms: 0,
            revision: 0,
            replaced: BTreeMap::new(),
            changes: BTreeMap::new(),
            scalings: BTreeMap::new(),
            shard_count_calls: BTreeMap::new(),
            forgetting: BTreeMap::new(),
            autoscale: BTreeMap::new(),
            standing: BTreeMap::new(),
            voters: Vec::new(),
            moved: BTreeSet::new(),
            moving: None,
            rebalancing: false,
            attributes: AttributeTable::default(),
        }
    }

    /// `None` until `Init`.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    pub fn nodes(&self) -> &BTreeMap<NodeId, Node> {
        &self.nodes
    }

    /// Each data group's replicas.
    pub fn groups(&self) -> &BTreeMap<GroupId, Vec<NodeId>> {
        &self.groups
    }

    /// Nodes that are gone for good, and who took their replicas over.
    pub fn replaced(&self) -> &BTreeMap<NodeId, NodeId> {
        &self.replaced
    }

    /// Who has the replicas of `node` now: itself, or whoever came after it, however many lie between.
    pub fn holder(&self, node: NodeId) -> NodeId {
        // No cycle: a node that was replaced takes nobody's place.
        std::iter::successors(Some(node), |it| self.replaced.get(it).copied()).last().expect("the node itself")
    }

    /// The id `CreateGroup` must name.
    pub fn next_group(&self) -> GroupId {
        GroupId(self.next_group)
    }

    pub fn stream(&self, name: &StreamName) -> Option<&Stream> {
        self.names.get(name).and_then(|&id| self.stream_by_id(id))
    }

    pub fn stream_by_id(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// All streams, by id.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = &Stream> {
        self.streams.values()
    }

    /// All streams' names and ids, by name.
    pub fn names(&self) -> &BTreeMap<StreamName, StreamId> {
        &self.names
    }

    /// Goes up with every accepted command: what was derived from an older one may be stale.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Each data group's open shards, counting streams being created or deleted, and children that are not open yet.
    pub fn load(&self) -> BTreeMap<GroupId, u32> {
        let mut load: BTreeMap<GroupId, u32> = self.groups.keys().map(|&id| (id, 0)).collect();
        let steps = self.changes.values().flat_map(|change| match change {
            Change::Reshard(steps) => &steps[..],
            Change::Settings { .. } => &[],
        });
        let coming = steps.flat_map(|step| step.children.values());
        for shard in self.streams.values().flat_map(|it| it.shards.values()).chain(coming) {
            if shard.is_open() {
                load.entry(shard.group).and_modify(|shards| *shards += 1);
            }
        }
        load
    }

    pub fn apply(&mut self, command: &CatalogCommand) -> Result<CatalogReply, CatalogError> {
        let reply = match command {
            CatalogCommand::Init(it) => self.init(it)?,
            _ if self.cluster.is_none() => return Err(CatalogError::NotInitialised),
            CatalogCommand::PutNode(it) => self.put_node(it)?,
            CatalogCommand::CreateGroup(it) => self.create_group(it)?,
            CatalogCommand::CreateStream(it) => self.create_stream(it)?,
            CatalogCommand::StreamOpened(it) => self.stream_opened(it.stream)?,
            CatalogCommand::DeleteStream(it) => self.delete_stream(&it.name)?,
            CatalogCommand::StreamDropped(it) => self.stream_dropped(it.stream)?,
            CatalogCommand::ReplaceNode(it) => self.replace_node(it)?,
            CatalogCommand::SetSettings(it) => self.set_settings(it)?,
            CatalogCommand::SettingsTold(it) => self.settings_told(it)?,
            CatalogCommand::BeginReshard(it) => self.begin_reshard(it)?,
            CatalogCommand::CommitReshard(it) => self.commit_reshard(it)?,
            CatalogCommand::SetShardCount(it) => self.set_shard_count(it)?,
            CatalogCommand::ForgetShards(it) => self.forget_shards(it)?,
            CatalogCommand::ShardsForgotten(it) => self.shards_forgotten(it),
            CatalogCommand::SetAutoscale(it) => self.set_autoscale(it)?,
            CatalogCommand::NameVoters(it) => self.name_voters(it)?,
            CatalogCommand::SetStanding(it) => self.set_standing(it)?,
            CatalogCommand::SetRebalancing(it) => self.set_rebalancing(it),
            CatalogCommand::BeginMove(it) => self.begin_move(*it)?,
            CatalogCommand::EndMove(it) => self.end_move(*it)?,
            CatalogCommand::ChangeAttributes(it) => self.change_attributes(it)?,
            CatalogCommand::SettleConsumers(it) => self.settle_consumers(it.stream)?,
            CatalogCommand::SetAccount(it) => self.set_account(it)?,
        };
        self.revision += 1;
        note(&reply);
        Ok(reply)
    }

    /// The checkpoint's content.
    pub fn encode(&self) -> Bytes {
        Bytes::from(versioned::encode(&[VERSION], self))
    }

    pub fn decode(bytes: &[u8]) -> Result<Catalog, DecodeError> {
        // What came later stands at the end: empty maps, and no.
        match bytes.split_first() {
            Some((&VERSION_WITHOUT_CHANGES, body)) => {
                versioned::decode_body(&[body, &[0; 10], &AttributeTable::NONE].concat())
            }
            Some((&VERSION_WITHOUT_SCALINGS, body)) => {
                versioned::decode_body(&[body, &[0; 9], &AttributeTable::NONE[..]].concat())
            }
            _ => versioned::decode(VERSION, bytes),
        }
    }

    fn settings(&self) -> &Settings {
        let cluster = self.cluster.as_ref();
        &cluster.expect("apply asks first").settings
    }

    fn init(&mut self, command: &Init) -> Result<CatalogReply, InitError> {
        let cluster =
            Cluster { id: command.cluster, token_key: command.token_key.clone(), settings: command.settings.clone() };
        match &self.cluster {
            Some(known) if *known == cluster => return Ok(CatalogReply::Initialised),
            Some(known) => return Err(InitError::AlreadyInitialised { cluster: known.id }),
            None => {}
        }
        let Settings { replicas, retention_ms_min: min, retention_ms_max: max } = command.settings;
        if !matches!(replicas, 1 | 3) {
            return Err(InitError::Replicas { replicas });
        }
        if min == 0 || min > max || max > RETENTION_MS_CEILING {
            return Err(InitError::Retention { min, max });
        }
        self.last_time_ms = command.at_ms.min(TIME_MS_MAX);
        self.cluster = Some(cluster);
        Ok(CatalogReply::Initialised)
    }

    fn put_node(&mut self, command: &PutNode) -> Result<CatalogReply, NodeError> {
        let node = command.node;
        if self.standing(node) == Some(Standing::Removed) {
            return Err(NodeError::Removed { node });
        }
        for address in [&command.addresses.client, &command.addresses.peer] {
            if address.len() > ADDRESS_CHARS_MAX || !address.contains(':') {
                return Err(NodeError::Address { address: address.chars().take(ADDRESS_CHARS_MAX).collect() });
            }
        }
        let full = self.nodes.len() >= NODES_MAX;
        match self.nodes.get_mut(&node) {
            Some(known) if known.incarnation != command.incarnation => {
                return Err(NodeError::Incarnation { node, known: known.incarnation, given: command.incarnation });
            }
            Some(known) if known.zone != command.zone => {
                return Err(NodeError::Zone { node, known: known.zone.clone(), given: command.zone.clone() });
            }
            Some(known) => known.addresses = command.addresses.clone(),
            None if full => return Err(NodeError::TooMany),
            None => {
                let new = Node {
                    incarnation: command.incarnation,
                    zone: command.zone.clone(),
                    addresses: command.addresses.clone(),
                };
                self.nodes.insert(node, new);
            }
        }
        Ok(CatalogReply::NodePut)
    }

    fn replace_node(&mut self, command: &ReplaceNode) -> Result<CatalogReply, NodeError> {
        let ReplaceNode { from, to } = *command;
        let replaced = CatalogReply::NodeReplaced { from, to };
        match self.replaced.get(&from) {
            Some(&known) if known == to => return Ok(replaced),
            Some(&known) => return Err(NodeError::AlreadyReplaced { node: from, by: known }),
            None => {}
        }
        let zone = |node| self.nodes.get(&node).map(|it| &it.zone).ok_or(NodeError::Unknown { node });
        let (was, is) = (zone(from)?, zone(to)?);
        if let Some(&by) = self.replaced.get(&to) {
            return Err(NodeError::AlreadyReplaced { node: to, by });
        }
        if was != is {
            return Err(NodeError::Zone { node: to, known: is.clone(), given: was.clone() });
        }
        // It may have replicas, of other groups: no group has two in one zone, but for one that is on its way between the two.
        if from == to {
            return Err(NodeError::Itself { node: to });
        }
        if let Some(standing) = self.standing(to) {
            return Err(NodeError::Leaving { node: to, standing });
        }
        for node in self.groups.values_mut().flatten().filter(|node| **node == from) {
            *node = to;
        }
        self.take_over_moves(from, to);
        self.replaced.insert(from, to);
        Ok(replaced)
    }

    fn create_group(&mut self, command: &CreateGroup) -> Result<CatalogReply, GroupError> {
        let group = command.group;
        let created = CatalogReply::GroupCreated { group };
        match self.groups.get(&group) {
            Some(replicas) if *replicas == command.replicas => return Ok(created),
            _ if group != self.next_group() => {
                return Err(GroupError::Id { given: group, next: self.next_group() });
            }
            _ if self.groups.len() >= GROUPS_MAX => return Err(GroupError::TooMany),
            _ => {}
        }
        let wanted = usize::from(self.settings().replicas);
        if command.replicas.len() != wanted {
            return Err(GroupError::Replicas { given: command.replicas.len(), wanted });
        }
        self.check_replicas(&command.replicas)?;
        self.groups.insert(group, command.replicas.clone());
        self.next_group += 1;
        Ok(created)
    }

    /// Whether these nodes may have a group's replicas.
    fn check_replicas(&self, replicas: &[NodeId]) -> Result<(), GroupError> {
        let mut zones = BTreeSet::new();
        for &node in replicas {
            let known = self.nodes.get(&node).filter(|_| !self.replaced.contains_key(&node));
            let Some(known) = known.filter(|_| self.standing(node) != Some(Standing::Removed)) else {
                return Err(GroupError::UnknownNode { node });
            };
            if !zones.insert(&known.zone) {
                return Err(GroupError::SharedZone { node, zone: known.zone.clone() });
            }
        }
        Ok(())
    }

    fn create_stream(&mut self, command: &CreateStream) -> Result<CatalogReply, StreamError> {
        if let Some(&stream) = self.names.get(&command.name) {
            return Err(StreamError::Exists { name: command.name.clone(), stream });
        }
        if self.streams.len() >= STREAMS_MAX {
            return Err(StreamError::TooMany);
        }
        if !(1..=SHARDS_PER_STREAM_MAX).contains(&command.shards) {
            return Err(StreamError::Shards { shards: command.shards });
        }
        self.check_retention(command.retention_ms)?;
        command.limits.check().map_err(StreamError::Limit)?;
        let places = placement::place_shards(&self.load(), command.shards);
        let places = places.ok_or(StreamError::NoGroups)?;

        self.last_time_ms = self.last_time_ms.max(command.at_ms.min(TIME_MS_MAX));
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let stream = Stream::create(id, command, self.last_time_ms, places);
        self.names.insert(stream.name.clone(), id);
        self.streams.insert(id, stream);
        Ok(CatalogReply::StreamCreating { stream: id })
    }

    fn check_retention(&self, retention_ms: u64) -> Result<(), StreamError> {
        let (min, max) = {
            let settings = self.settings();
            (settings.retention_ms_min, settings.retention_ms_max)
        };
        match (min..=max).contains(&retention_ms) {
            true => Ok(()),
            false => Err(StreamError::Retention { retention_ms, min, max }),
        }
    }

    fn stream_opened(&mut self, id: StreamId) -> Result<CatalogReply, StreamError> {
        let stream = self.stream_mut(id)?;
        match stream.status {
            StreamStatus::Creating | StreamStatus::Active => {
                stream.status = StreamStatus::Active;
                Ok(CatalogReply::StreamActive { stream: id })
            }
            status => Err(StreamError::Status { stream: id, status }),
        }
    }

    /// Allowed in any status: a stream whose groups can't open it must be deletable too.
    fn delete_stream(&mut self, name: &StreamName) -> Result<CatalogReply, StreamError> {
        let Some(&id) = self.names.get(name) else {
            return Err(StreamError::NoSuchName { name: name.clone() });
        };
        self.stream_mut(id)?.status = StreamStatus::Deleting;
        if !planted(Bug::ScalingOutlives) {
            self.scalings.remove(&id);
        }
        Ok(CatalogReply::StreamDeleting { stream: id })
    }

    fn stream_dropped(&mut self, id: StreamId) -> Result<CatalogReply, StreamError> {
        let dropped = CatalogReply::StreamDropped { stream: id };
        let gone = (1..self.next_stream).contains(&id.0) && !self.streams.contains_key(&id);
        if gone {
            return Ok(dropped);
        }
        let stream = self.stream_mut(id)?;
        if stream.status != StreamStatus::Deleting {
            return Err(StreamError::Status { stream: id, status: stream.status });
        }
        let name = stream.name.clone();
        self.streams.remove(&id);
        self.names.remove(&name);
        self.changes.remove(&id);
        self.shard_count_calls.remove(&id);
        self.forgetting.remove(&id);
        self.autoscale.remove(&id);
        self.attributes.streams.remove(&id);
        if planted(Bug::StreamIdReused) && id.0 + 1 == self.next_stream {
            self.next_stream -= 1;
        }
        Ok(dropped)
    }

    fn stream_mut(&mut self, id: StreamId) -> Result<&mut Stream, StreamError> {
        let stream = self.streams.get_mut(&id);
        stream.ok_or(StreamError::NoSuchStream { stream: id })
    }
}

/// Passes the mark of an accepted command.
fn note(reply: &CatalogReply) {
    match reply {
        CatalogReply::Initialised => reachable!(Mark::ClusterInitialised),
        CatalogReply::NodePut => reachable!(Mark::NodeRegistered),
        CatalogReply::GroupCreated { .. } => reachable!(Mark::GroupCreated),
        CatalogReply::StreamCreating { .. } => reachable!(Mark::StreamCreating),
        CatalogReply::StreamActive { .. } => reachable!(Mark::StreamActive),
        CatalogReply::StreamDeleting { .. } => reachable!(Mark::StreamDeleting),
        CatalogReply::StreamDropped { .. } => reachable!(Mark::StreamDropped),
        CatalogReply::NodeReplaced { .. } => reachable!(Mark::NodeReplaced),
        CatalogReply::VotersNamed | CatalogReply::RebalancingSet => {}
        CatalogReply::MoveBegun { .. } => reachable!(Mark::MoveBegun),
        CatalogReply::MoveEnded { .. } => reachable!(Mark::MoveEnded),
        CatalogReply::StreamUpdating { .. } => reachable!(Mark::StreamUpdating),
        CatalogReply::ReshardCommitted { .. } => reachable!(Mark::ReshardCommitted),
        CatalogReply::ShardsForgotten { .. } | CatalogReply::AutoscaleSet { .. } => {}
        CatalogReply::AttributesChanged { .. } | CatalogReply::ConsumersSettled { .. } | CatalogReply::AccountSet => {}
    }
}

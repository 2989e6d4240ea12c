//! Why the catalog refuses a command: one enum for each thing a command is about.
//!
//! Invariant: a refused command changed nothing.
//!
//! Not here: what a client is told; each API maps these in its own place.

use std::fmt;

use super::attributes::AttributeError;
use super::moving::Standing;
use super::stream::StreamStatus;
use crate::autoscale::BoundsError;
use crate::hash::{HashKey, HashRange};
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId, ShardId, StreamId, Zone};
use crate::limits::{
    ADDRESS_CHARS_MAX, GROUPS_MAX, LimitError, NODES_MAX, RETENTION_MS_CEILING, SHARD_COUNT_CALLS,
    SHARDS_PER_STREAM_MAX, STREAMS_MAX,
};
use crate::moves::{Move, NoPlace};
use crate::name::StreamName;
use crate::scale::ScaleError;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogError {
    NotInitialised,
    Init(InitError),
    Node(NodeError),
    Group(GroupError),
    Stream(StreamError),
    Attribute(AttributeError),
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CatalogError::NotInitialised => write!(f, "the cluster is not initialised yet"),
            CatalogError::Init(error) => error.fmt(f),
            CatalogError::Node(error) => error.fmt(f),
            CatalogError::Group(error) => error.fmt(f),
            CatalogError::Stream(error) => error.fmt(f),
            CatalogError::Attribute(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CatalogError {}

impl From<InitError> for CatalogError {
    fn from(error: InitError) -> CatalogError {
        CatalogError::Init(error)
    }
}

impl From<NodeError> for CatalogError {
    fn from(error: NodeError) -> CatalogError {
        CatalogError::Node(error)
    }
}

impl From<GroupError> for CatalogError {
    fn from(error: GroupError) -> CatalogError {
        CatalogError::Group(error)
    }
}

impl From<StreamError> for CatalogError {
    fn from(error: StreamError) -> CatalogError {
        CatalogError::Stream(error)
    }
}

impl From<AttributeError> for CatalogError {
    fn from(error: AttributeError) -> CatalogError {
        CatalogError::Attribute(error)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InitError {
    AlreadyInitialised { cluster: ClusterId },
    Replicas { replicas: u8 },
    Retention { min: u64, max: u64 },
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InitError::AlreadyInitialised { cluster } => {
                write!(f, "already initialised as cluster {cluster}, or with other settings")
            }
            InitError::Replicas { replicas } => {
                write!(f, "{replicas} replicas are not allowed: 1 or 3")
            }
            InitError::Retention { min, max } => write!(
                f,
                "retention bounds {min} to {max} ms are not allowed: ascending, 1 to \
                 {RETENTION_MS_CEILING}"
            ),
        }
    }
}

impl std::error::Error for InitError {}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeError {
    /// The id came back with another data directory: it must take a new id.
    Incarnation {
        node: NodeId,
        known: Incarnation,
        given: Incarnation,
    },
    Zone {
        node: NodeId,
        known: Zone,
        given: Zone,
    },
    Address {
        address: String,
    },
    TooMany,
    Unknown {
        node: NodeId,
    },
    AlreadyReplaced {
        node: NodeId,
        by: NodeId,
    },
    /// A replacement must be another node.
    Itself {
        node: NodeId,
    },
    /// It left the cluster for good.
    Removed {
        node: NodeId,
    },
    /// A replacement must be a node that stays.
    Leaving {
        node: NodeId,
        standing: Standing,
    },
    /// It can't be drained.
    NoPlace(NoPlace),
    /// It can't be removed: these groups have a replica on it, or one on its way from or to it.
    StillNeeded {
        node: NodeId,
        groups: Vec<GroupId>,
    },
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeError::Incarnation { node, known, given } => write!(
                f,
                "node id {node} belongs to incarnation {known}, not {given}: a node with a new \
                 data directory takes a new id"
            ),
            NodeError::Zone { node, known, given } => {
                write!(f, "node {node} is in zone {known} and can't move to {given}")
            }
            NodeError::Address { address } => write!(
                f,
                "address {address:?} is not allowed: host:port, at most {ADDRESS_CHARS_MAX} \
                 characters"
            ),
            NodeError::TooMany => write!(f, "the cluster has its most nodes: {NODES_MAX}"),
            NodeError::Unknown { node } => write!(f, "node {node} is not registered in this cluster"),
            NodeError::AlreadyReplaced { node, by } => {
                write!(f, "node {node} was replaced by node {by} and is gone for good")
            }
            NodeError::Itself { node } => {
                write!(f, "node {node} can't take its own place: a replacement is another node")
            }
            NodeError::Removed { node } => {
                write!(f, "node {node} was removed from the cluster for good; a new node takes a new id")
            }
            NodeError::Leaving { node, standing } => {
                write!(
                    f,
                    "node {node} is {}: a replacement is a node that stays",
                    format!("{standing:?}").to_lowercase()
                )
            }
            NodeError::NoPlace(error) => write!(f, "it can't be drained: {error}"),
            NodeError::StillNeeded { node, groups } => {
                let groups: Vec<String> = groups.iter().map(GroupId::to_string).collect();
                write!(f, "node {node} is still needed by groups {}: drain it first", groups.join(", "))
            }
        }
    }
}

impl std::error::Error for NodeError {}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupError {
    /// Taken with other replicas, or not the next one.
    Id {
        given: GroupId,
        next: GroupId,
    },
    Replicas {
        given: usize,
        wanted: usize,
    },
    UnknownNode {
        node: NodeId,
    },
    SharedZone {
        node: NodeId,
        zone: Zone,
    },
    TooMany,
    NoSuchGroup {
        group: GroupId,
    },
    /// It does not fit the group's replicas.
    NotPossible(Move),
    /// This move is under way, and only one is at a time.
    Moving(Move),
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupError::Id { given, next } => {
                write!(f, "group id {given} can't be created: the next one is {next}")
            }
            GroupError::Replicas { given, wanted } => {
                write!(f, "group with {given} replicas: {wanted} are required")
            }
            GroupError::UnknownNode { node } => write!(f, "node {node} is not registered"),
            GroupError::SharedZone { node, zone } => {
                write!(f, "node {node} is in zone {zone}, as another replica: each has its own zone")
            }
            GroupError::TooMany => write!(f, "the cluster has its most groups: {GROUPS_MAX}"),
            GroupError::NoSuchGroup { group } => write!(f, "group {group} does not exist"),
            GroupError::NotPossible(it) => {
                write!(f, "{it} is not possible: the first must have a replica of the group, and the other none")
            }
            GroupError::Moving(it) => write!(f, "a replica is on its way ({it}), and only one is at a time"),
        }
    }
}

impl std::error::Error for GroupError {}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamError {
    Exists {
        name: StreamName,
        stream: StreamId,
    },
    NoSuchName {
        name: StreamName,
    },
    NoSuchStream {
        stream: StreamId,
    },
    /// Not possible in the status the stream has.
    Status {
        stream: StreamId,
        status: StreamStatus,
    },
    Shards {
        shards: u32,
    },
    Retention {
        retention_ms: u64,
        min: u64,
        max: u64,
    },
    Limit(LimitError),
    /// There is nowhere to put shards yet.
    NoGroups,
    TooMany,
    Reshard(ReshardError),
    ShardCount(ShardCountError),
    Forget(ForgetError),
}

impl From<ForgetError> for StreamError {
    fn from(error: ForgetError) -> StreamError {
        StreamError::Forget(error)
    }
}

impl From<ShardCountError> for StreamError {
    fn from(error: ShardCountError) -> StreamError {
        StreamError::ShardCount(error)
    }
}

impl From<ReshardError> for StreamError {
    fn from(error: ReshardError) -> StreamError {
        StreamError::Reshard(error)
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Exists { name, stream } => {
                write!(f, "stream {name} exists, with id {stream}")
            }
            StreamError::NoSuchName { name } => write!(f, "stream {name} does not exist"),
            StreamError::NoSuchStream { stream } => {
                write!(f, "stream id {stream} does not exist")
            }
            StreamError::Status { stream, status } => {
                let status = format!("{status:?}").to_lowercase();
                write!(f, "stream id {stream} is {status}: not possible now")
            }
            StreamError::Shards { shards } => {
                write!(f, "stream of {shards} shards: 1 to {SHARDS_PER_STREAM_MAX} are allowed")
            }
            StreamError::Retention { retention_ms, min, max } => {
                write!(f, "retention of {retention_ms} ms is not allowed: {min} to {max}")
            }
            StreamError::Limit(error) => error.fmt(f),
            StreamError::NoGroups => write!(f, "the cluster has no data groups yet"),
            StreamError::TooMany => write!(f, "the cluster has its most streams: {STREAMS_MAX}"),
            StreamError::Reshard(error) => error.fmt(f),
            StreamError::ShardCount(error) => error.fmt(f),
            StreamError::Forget(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {}

/// Why shards are not split or merged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReshardError {
    Nothing,
    NoSuchShard {
        shard: ShardId,
    },
    /// It was split or merged before.
    Closed {
        shard: ShardId,
    },
    /// In two steps of one change.
    Twice {
        shard: ShardId,
    },
    SplitKey {
        shard: ShardId,
        at: HashKey,
        range: HashRange,
    },
    NotAdjacent {
        shard: ShardId,
        other: ShardId,
    },
    NoSuchStep {
        stream: StreamId,
        parents: Vec<u32>,
    },
    /// No shard index or creation second is left.
    Exhausted {
        stream: StreamId,
    },
}

impl fmt::Display for ReshardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReshardError::Nothing => write!(f, "no shard is named: nothing to split or merge"),
            ReshardError::NoSuchShard { shard } => write!(f, "shard {shard} does not exist"),
            ReshardError::Closed { shard } => {
                write!(f, "shard {shard} is closed: only open shards can be split or merged")
            }
            ReshardError::Twice { shard } => write!(f, "shard {shard} is named twice"),
            ReshardError::SplitKey { shard, at, range } => write!(
                f,
                "shard {shard} can't be split at hash key {at}: it must be greater than {} and at most {}",
                range.start(),
                range.end()
            ),
            ReshardError::NotAdjacent { shard, other } => {
                write!(f, "shards {shard} and {other} can't be merged: their hash ranges are not adjacent")
            }
            ReshardError::NoSuchStep { stream, parents } => {
                write!(f, "stream id {stream} is not being resharded at {parents:?}")
            }
            ReshardError::Exhausted { stream } => write!(f, "stream id {stream} has no shard index left"),
        }
    }
}

impl std::error::Error for ReshardError {}

/// Why a stream is not given so many shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ShardCountError {
    Plan(ScaleError),
    /// More than twice as many as there are, or less than half.
    Factor {
        open: u32,
        shards: u32,
    },
    /// The day's calls are used up.
    Calls {
        /// When the oldest of them is a day old.
        retry_after_ms: u64,
    },
    Bounds(BoundsError),
}

impl fmt::Display for ShardCountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShardCountError::Plan(error) => error.fmt(f),
            ShardCountError::Bounds(error) => error.fmt(f),
            ShardCountError::Factor { open, shards } => write!(
                f,
                "{shards} shards: from {open} open shards, {} to {} can be reached at once",
                open.div_ceil(2),
                open.saturating_mul(2).min(SHARDS_PER_STREAM_MAX)
            ),
            ShardCountError::Calls { retry_after_ms } => write!(
                f,
                "the stream's number of shards was set {SHARD_COUNT_CALLS} times within 24 hours, which is the most: try \
                 again in {retry_after_ms} ms"
            ),
        }
    }
}

impl std::error::Error for ShardCountError {}

/// Why shards are not forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ForgetError {
    NoSuchShard {
        shard: ShardId,
    },
    /// It is open, or may have records that are not past retention.
    Kept {
        shard: ShardId,
    },
    ParentKept {
        shard: ShardId,
        parent: ShardId,
    },
}

impl fmt::Display for ForgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForgetError::NoSuchShard { shard } => write!(f, "shard {shard} was never there"),
            ForgetError::Kept { shard } => {
                write!(f, "shard {shard} can't be forgotten: it is open, or closed for less than the retention")
            }
            ForgetError::ParentKept { shard, parent } => {
                write!(f, "shard {shard} can't be forgotten before its parent {parent}")
            }
        }
    }
}

impl std::error::Error for ForgetError {}

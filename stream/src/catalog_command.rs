//! The catalog's commands: what the log entries of group 0 say.
//!
//! Invariant: the first byte is the format's version and the second the command's tag; a tag is
//! never given a second meaning. The rest is postcard.
//!
//! Not here: what a command does (`catalog.rs`), and the data groups' commands (`command.rs`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::autoscale::Bounds;
use crate::catalog::{Addresses, Settings, ShardMetric, Standing, StreamMode, TokenKey};
use crate::hash::HashKey;
use crate::ids::{ClusterId, GroupId, Incarnation, NodeId, Offset, StreamId, Zone};
use crate::limits::LimitOverrides;
use crate::moves::Move;
use crate::name::{ConsumerName, StreamName};
use crate::scale::Shares;
use crate::versioned::{self, DecodeError};

const VERSION: u8 = 1;

const TAG_INIT: u8 = 1;
const TAG_PUT_NODE: u8 = 2;
const TAG_CREATE_GROUP: u8 = 3;
const TAG_CREATE_STREAM: u8 = 4;
const TAG_STREAM_OPENED: u8 = 5;
const TAG_DELETE_STREAM: u8 = 6;
const TAG_STREAM_DROPPED: u8 = 7;
// 8 and 9 were two commands in place of SetSettings, and never proposed.
const TAG_REPLACE_NODE: u8 = 10;
const TAG_BEGIN_RESHARD: u8 = 11;
const TAG_COMMIT_RESHARD: u8 = 12;
const TAG_SETTINGS_TOLD: u8 = 13;
const TAG_SET_SETTINGS: u8 = 14;
const TAG_SET_SHARD_COUNT: u8 = 15;
const TAG_FORGET_SHARDS: u8 = 16;
const TAG_SHARDS_FORGOTTEN: u8 = 17;
const TAG_SET_AUTOSCALE: u8 = 18;
const TAG_NAME_VOTERS: u8 = 24;
const TAG_SET_STANDING: u8 = 25;
const TAG_SET_REBALANCING: u8 = 26;
const TAG_BEGIN_MOVE: u8 = 27;
const TAG_END_MOVE: u8 = 28;
const TAG_CHANGE_ATTRIBUTES: u8 = 32;
const TAG_SETTLE_CONSUMERS: u8 = 33;
const TAG_SET_ACCOUNT: u8 = 34;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CatalogCommand {
    Init(Init),
    PutNode(PutNode),
    CreateGroup(CreateGroup),
    CreateStream(CreateStream),
    StreamOpened(StreamOpened),
    DeleteStream(DeleteStream),
    StreamDropped(StreamDropped),
    SetSettings(SetSettings),
    ReplaceNode(ReplaceNode),
    BeginReshard(BeginReshard),
    CommitReshard(CommitReshard),
    SettingsTold(SettingsTold),
    SetShardCount(SetShardCount),
    ForgetShards(ForgetShards),
    ShardsForgotten(ShardsForgotten),
    SetAutoscale(SetAutoscale),
    NameVoters(NameVoters),
    SetStanding(SetStanding),
    SetRebalancing(SetRebalancing),
    /// A replica shall be on another node: the group's leader brings its membership there.
    BeginMove(Move),
    /// The group's membership is what the catalog says: the node that was left may forget what it has.
    EndMove(Move),
    ChangeAttributes(ChangeAttributes),
    SettleConsumers(SettleConsumers),
    SetAccount(SetAccount),
}

/// The first command. Repeating it word for word changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Init {
    /// The leader's group time, milliseconds since the Unix epoch, as everywhere below.
    pub at_ms: u64,
    pub cluster: ClusterId,
    pub token_key: TokenKey,
    pub settings: Settings,
}

/// Registers a node, or changes its addresses. Its zone and incarnation are for ever.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PutNode {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub zone: Zone,
    pub addresses: Addresses,
}

/// Creates a data group. The id is the next one, so that a repeated command is recognised.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateGroup {
    pub group: GroupId,
    /// As many as the cluster's settings say, each in its own zone.
    pub replicas: Vec<NodeId>,
}

/// Names a stream, gives it an id and places its shards; its groups are told afterwards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CreateStream {
    pub at_ms: u64,
    pub name: StreamName,
    pub shards: u32,
    pub retention_ms: u64,
    pub mode: StreamMode,
    pub limits: LimitOverrides,
}

/// Every group has opened the stream's shards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamOpened {
    pub stream: StreamId,
}

/// Begins deletion: the name stays taken until [`StreamDropped`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeleteStream {
    pub name: StreamName,
}

/// Every group has dropped the stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StreamDropped {
    pub stream: StreamId,
}

/// Changes what a stream sets; it is UPDATING until its groups know. `None` leaves that as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetSettings {
    pub stream: StreamId,
    pub retention_ms: Option<u64>,
    pub limits: Option<LimitOverrides>,
}

/// Gives every replica of one node to another in the same zone: the old one is gone for good, the
/// new one gets what it had from the other zones.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplaceNode {
    pub from: NodeId,
    pub to: NodeId,
}

/// Begins to split and merge shards of an ACTIVE stream: children are named and placed, and the stream is UPDATING
/// until every step is committed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BeginReshard {
    pub at_ms: u64,
    pub stream: StreamId,
    /// At least one; no shard in two of them.
    pub shapes: Vec<Reshape>,
}

/// Shards by their index in the stream.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reshape {
    /// Two children; the upper one begins at `at`, which is inside the shard's range and not its start.
    Split { shard: u32, at: HashKey },
    /// One child for two shards whose ranges are adjacent.
    Merge { shard: u32, adjacent: u32 },
}

/// Gives an ACTIVE stream so many open shards, by as many splits and merges as that takes: it is UPDATING until the last
/// one is committed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetShardCount {
    pub at_ms: u64,
    pub stream: StreamId,
    /// Open shards in the end.
    pub shards: u32,
    pub shares: Shares,
    /// Whether at most twice as many and at least half as many as there are may be asked for, as in Kinesis.
    pub within_factor: bool,
    /// Whether it is one of the calls that a stream has [`SHARD_COUNT_CALLS`](crate::limits::SHARD_COUNT_CALLS) of in a
    /// day.
    pub counted: bool,
}

/// Whether a stream scales by load, and within which bounds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetAutoscale {
    pub stream: StreamId,
    pub bounds: Option<Bounds>,
}

/// Forgets closed shards of which all records are past retention; their groups are told afterwards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForgetShards {
    pub at_ms: u64,
    pub stream: StreamId,
    /// Parents before their children.
    pub shards: Vec<u32>,
}

/// The groups that had these shards have forgotten them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardsForgotten {
    pub stream: StreamId,
    pub shards: Vec<u32>,
}

/// A step's parents are sealed and its children open in their groups: from now on they take the parents' place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommitReshard {
    pub stream: StreamId,
    /// Every parent of one step, in the step's order, as its group sealed it.
    pub sealed: Vec<SealedParent>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SealedParent {
    pub shard: u32,
    /// The last record's offset; `None` if the shard never had one.
    pub last: Option<Offset>,
    /// When it was sealed, in its group's time.
    pub at_ms: u64,
}

/// Every group of the stream has been told its retention and limits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SettingsTold {
    pub stream: StreamId,
    /// Those of this revision: others may have been set meanwhile.
    pub revision: u64,
}

/// Says who votes in the catalog, once: from then on its voters are moved and replaced as other groups' replicas are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NameVoters {
    pub voters: Vec<NodeId>,
}

/// Drains a node, ends its draining (`None`), or removes it once nothing is left on it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetStanding {
    pub node: NodeId,
    pub standing: Option<Standing>,
}

/// Begins or ends moving replicas to where fewer are. It ends by itself once that is even.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetRebalancing {
    pub on: bool,
}

/// Changes what a stream carries besides records and shards.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeAttributes {
    pub at_ms: u64,
    pub stream: StreamId,
    pub change: AttributeChange,
}

/// The order of the variants is the format: new ones come last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AttributeChange {
    /// Of the stream, or of one of its consumers.
    Tags {
        consumer: Option<ConsumerName>,
        set: BTreeMap<String, String>,
        remove: BTreeSet<String>,
    },
    /// Of the stream, or of one of its consumers; `None` takes it away.
    Policy {
        consumer: Option<ConsumerName>,
        policy: Option<String>,
    },
    /// The key that records are to be encrypted with; `None`: with none.
    Encryption {
        key: Option<String>,
    },
    ShardMetrics {
        enable: BTreeSet<ShardMetric>,
        disable: BTreeSet<ShardMetric>,
    },
    Mode {
        mode: StreamMode,
    },
    WarmThroughput {
        mibps: u32,
    },
    Register {
        name: ConsumerName,
        tags: BTreeMap<String, String>,
    },
    Deregister {
        name: ConsumerName,
    },
}

/// Consumers that are being created are there from now on, those that are being deleted are gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SettleConsumers {
    pub stream: StreamId,
}

/// What an account sets for itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetAccount {
    pub at_ms: u64,
    /// Empty: the default one.
    pub namespace: String,
    /// Whether it commits to a minimum of throughput.
    pub committed: bool,
}

impl CatalogCommand {
    /// The payload of the command's log entry.
    pub fn encode(&self) -> Bytes {
        Bytes::from(match self {
            CatalogCommand::Init(it) => versioned::encode(&[VERSION, TAG_INIT], it),
            CatalogCommand::PutNode(it) => versioned::encode(&[VERSION, TAG_PUT_NODE], it),
            CatalogCommand::CreateGroup(it) => versioned::encode(&[VERSION, TAG_CREATE_GROUP], it),
            CatalogCommand::CreateStream(it) => versioned::encode(&[VERSION, TAG_CREATE_STREAM], it),
            CatalogCommand::StreamOpened(it) => versioned::encode(&[VERSION, TAG_STREAM_OPENED], it),
            CatalogCommand::DeleteStream(it) => versioned::encode(&[VERSION, TAG_DELETE_STREAM], it),
            CatalogCommand::StreamDropped(it) => versioned::encode(&[VERSION, TAG_STREAM_DROPPED], it),
            CatalogCommand::SetSettings(it) => versioned::encode(&[VERSION, TAG_SET_SETTINGS], it),
            CatalogCommand::ReplaceNode(it) => versioned::encode(&[VERSION, TAG_REPLACE_NODE], it),
            CatalogCommand::BeginReshard(it) => versioned::encode(&[VERSION, TAG_BEGIN_RESHARD], it),
            CatalogCommand::CommitReshard(it) => versioned::encode(&[VERSION, TAG_COMMIT_RESHARD], it),
            CatalogCommand::SettingsTold(it) => versioned::encode(&[VERSION, TAG_SETTINGS_TOLD], it),
            CatalogCommand::SetShardCount(it) => versioned::encode(&[VERSION, TAG_SET_SHARD_COUNT], it),
            CatalogCommand::ForgetShards(it) => versioned::encode(&[VERSION, TAG_FORGET_SHARDS], it),
            CatalogCommand::ShardsForgotten(it) => versioned::encode(&[VERSION, TAG_SHARDS_FORGOTTEN], it),
            CatalogCommand::SetAutoscale(it) => versioned::encode(&[VERSION, TAG_SET_AUTOSCALE], it),
            CatalogCommand::NameVoters(it) => versioned::encode(&[VERSION, TAG_NAME_VOTERS], it),
            CatalogCommand::SetStanding(it) => versioned::encode(&[VERSION, TAG_SET_STANDING], it),
            CatalogCommand::SetRebalancing(it) => versioned::encode(&[VERSION, TAG_SET_REBALANCING], it),
            CatalogCommand::BeginMove(it) => versioned::encode(&[VERSION, TAG_BEGIN_MOVE], it),
            CatalogCommand::EndMove(it) => versioned::encode(&[VERSION, TAG_END_MOVE], it),
            CatalogCommand::ChangeAttributes(it) => versioned::encode(&[VERSION, TAG_CHANGE_ATTRIBUTES], it),
            CatalogCommand::SettleConsumers(it) => versioned::encode(&[VERSION, TAG_SETTLE_CONSUMERS], it),
            CatalogCommand::SetAccount(it) => versioned::encode(&[VERSION, TAG_SET_ACCOUNT], it),
        })
    }

    pub fn decode(payload: &[u8]) -> Result<CatalogCommand, DecodeError> {
        let &[version, tag, ref body @ ..] = payload else {
            return Err(DecodeError::Empty);
        };
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { found: version, known: VERSION });
        }
        Ok(match tag {
            TAG_INIT => CatalogCommand::Init(versioned::decode_body(body)?),
            TAG_PUT_NODE => CatalogCommand::PutNode(versioned::decode_body(body)?),
            TAG_CREATE_GROUP => CatalogCommand::CreateGroup(versioned::decode_body(body)?),
            TAG_CREATE_STREAM => CatalogCommand::CreateStream(versioned::decode_body(body)?),
            TAG_STREAM_OPENED => CatalogCommand::StreamOpened(versioned::decode_body(body)?),
            TAG_DELETE_STREAM => CatalogCommand::DeleteStream(versioned::decode_body(body)?),
            TAG_STREAM_DROPPED => CatalogCommand::StreamDropped(versioned::decode_body(body)?),
            TAG_SET_SETTINGS => CatalogCommand::SetSettings(versioned::decode_body(body)?),
            TAG_REPLACE_NODE => CatalogCommand::ReplaceNode(versioned::decode_body(body)?),
            TAG_BEGIN_RESHARD => CatalogCommand::BeginReshard(versioned::decode_body(body)?),
            TAG_COMMIT_RESHARD => CatalogCommand::CommitReshard(versioned::decode_body(body)?),
            TAG_SETTINGS_TOLD => CatalogCommand::SettingsTold(versioned::decode_body(body)?),
            TAG_SET_SHARD_COUNT => CatalogCommand::SetShardCount(versioned::decode_body(body)?),
            TAG_FORGET_SHARDS => CatalogCommand::ForgetShards(versioned::decode_body(body)?),
            TAG_SHARDS_FORGOTTEN => CatalogCommand::ShardsForgotten(versioned::decode_body(body)?),
            TAG_SET_AUTOSCALE => CatalogCommand::SetAutoscale(versioned::decode_body(body)?),
            TAG_NAME_VOTERS => CatalogCommand::NameVoters(versioned::decode_body(body)?),
            TAG_SET_STANDING => CatalogCommand::SetStanding(versioned::decode_body(body)?),
            TAG_SET_REBALANCING => CatalogCommand::SetRebalancing(versioned::decode_body(body)?),
            TAG_BEGIN_MOVE => CatalogCommand::BeginMove(versioned::decode_body(body)?),
            TAG_END_MOVE => CatalogCommand::EndMove(versioned::decode_body(body)?),
            TAG_CHANGE_ATTRIBUTES => CatalogCommand::ChangeAttributes(versioned::decode_body(body)?),
            TAG_SETTLE_CONSUMERS => CatalogCommand::SettleConsumers(versioned::decode_body(body)?),
            TAG_SET_ACCOUNT => CatalogCommand::SetAccount(versioned::decode_body(body)?),
            found => return Err(DecodeError::UnknownTag { found }),
        })
    }
}

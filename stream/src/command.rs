//! The commands of a data group: what its log entries say.
//!
//! Invariant: the first byte is the format's version and the second the command's tag; a tag is
//! never given a second meaning. An append is a batch (`batch.rs`), never copied on the way in or
//! out; every other command is postcard after the two bytes.
//!
//! Not here: what a command does (`group.rs`), and the catalog's commands (`catalog_command.rs`).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::batch::{self, BatchView};
use crate::ids::{Offset, ShardId, StreamId};
use crate::limits::Limits;
use crate::shard::ShardSpec;
use crate::versioned::{self, DecodeError};

const VERSION: u8 = batch::VERSION;

const TAG_APPEND: u8 = batch::TAG;
const TAG_OPEN_SHARDS: u8 = 2;
const TAG_DROP_STREAM: u8 = 3;
const TAG_SEAL_SHARD: u8 = 4;
const TAG_TRIM: u8 = 5;
// 6 and 7 were two commands in place of SetSettings, and never proposed.
const TAG_SET_SETTINGS: u8 = 8;
const TAG_FORGET_SHARDS: u8 = 9;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupCommand {
    Append(BatchView),
    OpenShards(OpenShards),
    DropStream(DropStream),
    SealShard(SealShard),
    Trim(Trim),
    SetSettings(SetSettings),
    ForgetShards(ForgetShards),
}

/// Opens shards here; all of them or none. Repeating it changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenShards {
    /// The leader's group time, milliseconds since the Unix epoch, as everywhere below.
    pub at_ms: u64,
    pub shards: Vec<ShardSpec>,
}

/// Forgets a stream's shards and refuses to open any of that stream again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DropStream {
    pub at_ms: u64,
    pub stream: StreamId,
}

/// Closes a shard for ever: a split if it has two children, a merge if one. Repeating it with the
/// same children gives the same answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SealShard {
    /// The closing time.
    pub at_ms: u64,
    pub shard: ShardId,
    /// Shard indexes in the same stream, each greater than the shard's own.
    pub children: Vec<u32>,
}

/// Ends the readable life of old records, then of the log that held them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trim {
    pub at_ms: u64,
    /// The log may be purged up to and including this index: no readable record is in it. `None`
    /// leaves the log as it is.
    pub through: Option<u64>,
    pub shards: Vec<ShardTrim>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardTrim {
    pub shard: ShardId,
    /// Offsets below this are no longer readable.
    pub below: Offset,
}

/// What a stream's shards here keep and take from now on, unless a newer revision was told before: a command may come
/// late, from a leader of the catalog that was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SetSettings {
    pub stream: StreamId,
    /// The catalog's revision that decided it.
    pub revision: u64,
    pub retention_ms: u64,
    pub limits: Limits,
}

/// Forgets closed shards that the catalog has forgotten, whatever is left of their records. Repeating it changes
/// nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForgetShards {
    pub at_ms: u64,
    pub shards: Vec<ShardId>,
}

impl GroupCommand {
    /// The payload of the command's log entry. For an append, the batch's own buffer.
    pub fn encode(&self) -> Bytes {
        let encoded = match self {
            GroupCommand::Append(batch) => return batch.payload().clone(),
            GroupCommand::OpenShards(it) => versioned::encode(&[VERSION, TAG_OPEN_SHARDS], it),
            GroupCommand::DropStream(it) => versioned::encode(&[VERSION, TAG_DROP_STREAM], it),
            GroupCommand::SealShard(it) => versioned::encode(&[VERSION, TAG_SEAL_SHARD], it),
            GroupCommand::Trim(it) => versioned::encode(&[VERSION, TAG_TRIM], it),
            GroupCommand::SetSettings(it) => versioned::encode(&[VERSION, TAG_SET_SETTINGS], it),
            GroupCommand::ForgetShards(it) => versioned::encode(&[VERSION, TAG_FORGET_SHARDS], it),
        };
        Bytes::from(encoded)
    }

    /// Reads a log entry's payload. An append shares its buffer.
    pub fn decode(payload: Bytes) -> Result<GroupCommand, DecodeError> {
        let &[version, tag, ref body @ ..] = &payload[..] else {
            return Err(DecodeError::Empty);
        };
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { found: version, known: VERSION });
        }
        Ok(match tag {
            TAG_APPEND => {
                let batch = BatchView::decode(payload).map_err(DecodeError::Batch)?;
                GroupCommand::Append(batch)
            }
            TAG_OPEN_SHARDS => GroupCommand::OpenShards(versioned::decode_body(body)?),
            TAG_DROP_STREAM => GroupCommand::DropStream(versioned::decode_body(body)?),
            TAG_SEAL_SHARD => GroupCommand::SealShard(versioned::decode_body(body)?),
            TAG_TRIM => GroupCommand::Trim(versioned::decode_body(body)?),
            TAG_SET_SETTINGS => GroupCommand::SetSettings(versioned::decode_body(body)?),
            TAG_FORGET_SHARDS => GroupCommand::ForgetShards(versioned::decode_body(body)?),
            found => return Err(DecodeError::UnknownTag { found }),
        })
    }
}

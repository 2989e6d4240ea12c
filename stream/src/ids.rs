//! The identities: streams, shards, groups, nodes, zones, and a record's place in its shard.
//!
//! Invariant: each is its own type, so none can stand in for another. Stream and group ids are
//! handed out by the catalog and never used twice; a shard id names its stream by id, so a deleted
//! and recreated stream shares no shard id with its predecessor.
//!
//! Not here: names chosen by users (`name.rs`), sequence numbers (`sequence.rs`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stream's number, unique for the cluster's whole life.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A shard: the `index`-th one its stream ever had, from 0.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ShardId {
    pub stream: StreamId,
    pub index: u32,
}

const SHARD_PREFIX: &str = "shardId-";
const SHARD_DIGITS: usize = 12;

impl ShardId {
    /// The shard's name within its stream, as Kinesis writes it: `shardId-000000000012`.
    pub fn name(&self) -> String {
        format!("{SHARD_PREFIX}{:012}", self.index)
    }

    /// Reads a name made by [`ShardId::name`], for a shard of `stream`.
    pub fn parse(stream: StreamId, name: &str) -> Result<ShardId, ShardIdError> {
        let refused = || ShardIdError { name: name.chars().take(64).collect() };
        let digits = name.strip_prefix(SHARD_PREFIX).ok_or_else(refused)?;
        if digits.len() != SHARD_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        let index = digits.parse::<u32>().map_err(|_| refused())?;
        Ok(ShardId { stream, index })
    }
}

impl fmt::Display for ShardId {
    /// For logs and errors: the stream's id and the shard's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{SHARD_PREFIX}{:012}", self.stream, self.index)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardIdError {
    pub name: String,
}

impl fmt::Display for ShardIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a shard name: {SHARD_PREFIX} and {SHARD_DIGITS} digits, at most {}", self.name, u32::MAX)
    }
}

impl std::error::Error for ShardIdError {}

/// A Raft group. Group 0 is the catalog; the others hold shards.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl GroupId {
    pub const CATALOG: GroupId = GroupId(0);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which life of a node id this is: drawn once when a node's data directory is made, so that an id
/// coming back with an empty disk is told apart from the node that had promised things.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A cluster's own number, drawn once when it is initialised.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A record's place in its shard: dense, 0, 1, 2 …, so that a reader can prove it missed nothing.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Offset(pub u64);

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// The offset `count` records later. Panics past 2^64, which no shard reaches.
    pub fn advance(self, count: u64) -> Offset {
        Offset(self.0.checked_add(count).expect("a shard's offsets fit 64 bits"))
    }

    /// The offset before this one, if there is one.
    pub fn previous(self) -> Option<Offset> {
        self.0.checked_sub(1).map(Offset)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A failure domain, as the operator names it: 1 to 64 of `[a-zA-Z0-9_.-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(String);

const ZONE_CHARS_MAX: usize = 64;

impl Zone {
    pub fn parse(text: &str) -> Result<Zone, ZoneError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if text.is_empty() || text.len() > ZONE_CHARS_MAX || !text.bytes().all(allowed) {
            return Err(ZoneError { text: text.chars().take(ZONE_CHARS_MAX).collect() });
        }
        Ok(Zone(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Zone {
    type Error = ZoneError;

    fn try_from(text: String) -> Result<Zone, ZoneError> {
        Zone::parse(&text)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.0
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneError {
    pub text: String,
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone {:?} is not allowed: 1 to {ZONE_CHARS_MAX} of [a-zA-Z0-9_.-]", self.text)
    }
}

impl std::error::Error for ZoneError {}

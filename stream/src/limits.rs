//! Every limit, as a constant with its reason, and the ones a stream may override.
//!
//! Invariant: a resolved [`Limits`] has no zero rate; [`LimitOverrides::check`] is what admits an
//! override into replicated state.
//!
//! Not here: the counting (`throttle.rs`) and the refusing (whoever holds the request).

use std::fmt;

use serde::{Deserialize, Serialize};

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;
const HOUR_MS: u64 = 60 * 60 * 1000;

/// Kinesis' per-shard contract: producers size their shards by these numbers.
pub const WRITE_BYTES_PER_S: u64 = MIB;
pub const WRITE_RECORDS_PER_S: u64 = 1_000;
pub const READ_BYTES_PER_S: u64 = 2 * MIB;
pub const READ_CALLS_PER_S: u64 = 5;
/// Each registered consumer's own share of a shard, besides the shared reads.
pub const SUBSCRIBER_BYTES_PER_S: u64 = 2 * MIB;

/// Data and partition key together, unless the stream sets another maximum.
pub const RECORD_BYTES_MAX: u64 = MIB;
/// The most a stream may set: one record then still fits one answer and one batch.
pub const RECORD_BYTES_CEILING: u64 = 10 * MIB;
/// The least a stream may set, so that no key alone fills a record.
pub const RECORD_BYTES_FLOOR: u64 = 4 * KIB;
/// A rate override may not exceed this: token arithmetic stays far from its 128-bit bounds.
pub const RATE_CEILING: u64 = 1 << 40;

/// One request is one unit of admission and of retry; Kinesis' numbers.
pub const PUT_RECORDS_MAX: usize = 500;
pub const PUT_BYTES_MAX: u64 = 5 * MIB;
/// For streams whose records may exceed 1 MiB.
pub const PUT_BYTES_MAX_LARGE: u64 = 10 * MIB;
pub const GET_RECORDS_MAX: usize = 10_000;
pub const GET_BYTES_MAX: u64 = 10 * MIB;
/// One log entry: room for the largest request, small enough to send within a heartbeat or two.
pub const BATCH_BYTES_MAX: u64 = 16 * MIB;

pub const PARTITION_KEY_CHARS_MAX: usize = 256;
pub const STREAM_NAME_CHARS_MAX: usize = 128;
/// Room for an account, a dot and any region's name.
pub const NAMESPACE_CHARS_MAX: usize = 64;
/// A node's address as `host:port`: a DNS name has at most 253 characters.
pub const ADDRESS_CHARS_MAX: usize = 260;

/// Kinesis' bounds: a day by default, a week unless the cluster raises its ceiling, a year at most. Kinesis keeps a day at
/// least, and so does its face; what only passes through may be kept for an hour.
pub const RETENTION_MS_DEFAULT: u64 = 24 * HOUR_MS;
pub const RETENTION_MS_MIN: u64 = HOUR_MS;
pub const RETENTION_MS_MAX: u64 = 168 * HOUR_MS;
pub const RETENTION_MS_CEILING: u64 = 8_760 * HOUR_MS;

/// Long enough for any polling loop, short enough that a leaked token is of little use.
pub const ITERATOR_MS_MAX: u64 = 5 * 60 * 1000;

/// UpdateShardCount's bound; one stream's shard map then stays below a megabyte.
pub const SHARDS_PER_STREAM_MAX: u32 = 10_000;
/// UpdateShardCount calls that one stream is given in a day; Kinesis' number. Each may make and close thousands of
/// shards, which are then listed for as long as records are kept.
pub const SHARD_COUNT_CALLS: usize = 10;
pub const SHARD_COUNT_CALLS_MS: u64 = 24 * HOUR_MS;
/// Splits and merges of one stream that are carried out at the same time: writers to those shards wait for some
/// milliseconds, and it shall be a small part of a large stream that does.
pub const STEPS_AT_ONCE: usize = 32;
/// Kinesis' numbers; what they bound is in the catalog, in every node's memory.
pub const TAGS_MAX: usize = 50;
pub const TAG_KEY_CHARS_MAX: usize = 128;
pub const TAG_VALUE_CHARS_MAX: usize = 256;
pub const POLICY_BYTES_MAX: usize = 20 * KIB as usize;
pub const KEY_ID_CHARS_MAX: usize = 2048;
/// Registered consumers of a stream, and those among them that are being created.
pub const CONSUMERS_MAX: usize = 20;
pub const CONSUMERS_CREATING_MAX: usize = 5;
/// Namespaces whose accounts have set something; as many as there may be streams.
pub const ACCOUNTS_MAX: usize = 10_000;
/// Shards a stream in on-demand mode starts with, and never has fewer of; Kinesis' number.
pub const SHARDS_ON_DEMAND: u32 = 4;
/// What it grows to by itself, unless it has more already: Kinesis' own default is 200 MiB/s. A load that goes mad then
/// stays a matter of hundreds of shards.
pub const SHARDS_ON_DEMAND_MAX: u32 = 200;
/// The catalog is in every node's memory and in every checkpoint: it has to end somewhere.
pub const STREAMS_MAX: usize = 10_000;
pub const NODES_MAX: usize = 1_000;
pub const GROUPS_MAX: usize = 10_000;

/// A dropped stream is remembered this long (in group time), so that an `OpenShards` delayed on
/// its way can't bring it back; no proposal outlives this by orders of magnitude.
pub const DROPPED_MS: u64 = 24 * HOUR_MS;

/// The last moment a sequence number's nine hex digits of seconds can carry (the year 4147).
/// Replicated times are clamped to it, so no stamped nonsense can make a number unwritable.
pub const TIME_MS_MAX: u64 = ((1 << 36) - 1) * 1000 + 999;

/// One shard's limits, resolved. Rates are per second.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    pub write_bytes_per_s: u64,
    pub write_records_per_s: u64,
    pub read_bytes_per_s: u64,
    pub read_calls_per_s: u64,
    /// Data and partition key together.
    pub record_bytes_max: u64,
}

impl Limits {
    pub const DEFAULT: Limits = Limits {
        write_bytes_per_s: WRITE_BYTES_PER_S,
        write_records_per_s: WRITE_RECORDS_PER_S,
        read_bytes_per_s: READ_BYTES_PER_S,
        read_calls_per_s: READ_CALLS_PER_S,
        record_bytes_max: RECORD_BYTES_MAX,
    };

    /// The most bytes (data and keys) one PutRecords may carry.
    pub fn put_bytes_max(&self) -> u64 {
        match self.record_bytes_max > RECORD_BYTES_MAX {
            true => PUT_BYTES_MAX_LARGE,
            false => PUT_BYTES_MAX,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// What a stream sets differently; `None` follows the default.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LimitOverrides {
    pub write_bytes_per_s: Option<u64>,
    pub write_records_per_s: Option<u64>,
    pub read_bytes_per_s: Option<u64>,
    pub read_calls_per_s: Option<u64>,
    pub record_bytes_max: Option<u64>,
}

impl LimitOverrides {
    pub fn resolve(&self) -> Limits {
        let base = Limits::DEFAULT;
        Limits {
            write_bytes_per_s: self.write_bytes_per_s.unwrap_or(base.write_bytes_per_s),
            write_records_per_s: self.write_records_per_s.unwrap_or(base.write_records_per_s),
            read_bytes_per_s: self.read_bytes_per_s.unwrap_or(base.read_bytes_per_s),
            read_calls_per_s: self.read_calls_per_s.unwrap_or(base.read_calls_per_s),
            record_bytes_max: self.record_bytes_max.unwrap_or(base.record_bytes_max),
        }
    }

    pub fn check(&self) -> Result<(), LimitError> {
        let rates = [
            ("write_bytes_per_s", self.write_bytes_per_s),
            ("write_records_per_s", self.write_records_per_s),
            ("read_bytes_per_s", self.read_bytes_per_s),
            ("read_calls_per_s", self.read_calls_per_s),
        ];
        for (limit, value) in rates {
            within(limit, value, 1, RATE_CEILING)?;
        }
        within("record_bytes_max", self.record_bytes_max, RECORD_BYTES_FLOOR, RECORD_BYTES_CEILING)
    }
}

fn within(limit: &'static str, value: Option<u64>, min: u64, max: u64) -> Result<(), LimitError> {
    match value {
        Some(value) if !(min..=max).contains(&value) => Err(LimitError { limit, value, min, max }),
        _ => Ok(()),
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitError {
    pub limit: &'static str,
    pub value: u64,
    pub min: u64,
    pub max: u64,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LimitError { limit, value, min, max } = self;
        write!(f, "limit {limit} of {value} is not allowed: {min} to {max}")
    }
}

impl std::error::Error for LimitError {}

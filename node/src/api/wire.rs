//! Wire ↔ domain: the only file in which both are named, apart from errors.
//!
//! Invariant: what comes out of a `from wire` function is valid, and an error names the field.

use braid_proto::v1;
use braid_stream::autoscale::Bounds;
use braid_stream::catalog::{StreamShard, StreamStatus};
use braid_stream::hash::{HashKey, HashRange};
use braid_stream::ids::{Offset, ShardId, StreamId};
use braid_stream::iterator::IteratorKind;
use braid_stream::limits::{LimitOverrides, Limits};
use braid_stream::listing::ShardFilter;
use braid_stream::name::{PartitionKey, StreamName};
use braid_stream::record::{Record, check_request};
use braid_stream::scale::Shares;
use braid_stream::sequence::{SECOND_MAX, SequenceNumber};
use braid_stream::shard::ShardState;
use bytes::Bytes;

use super::error::{ApiError, Explained, of_detail};
use crate::read::StoredRecord;
use crate::read::subscribe::Event;
use crate::routing::StreamRoutes;

/// What became of one record.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Where it is or would have gone.
    pub shard: ShardId,
    /// Its number, or why it has none.
    pub outcome: Result<SequenceNumber, Explained>,
}

// ---------------------------------------------------------------- from wire

/// A stream's name.
pub fn stream_name(text: &str) -> Result<StreamName, ApiError> {
    StreamName::parse(text).map_err(|e| ApiError::invalid("stream_name", e))
}

/// A shard's number among its stream's, from its name in `field`.
pub fn shard_index(field: &'static str, text: &str) -> Result<u32, ApiError> {
    ShardId::parse(StreamId(0), text).map(|it| it.index).map_err(|e| ApiError::invalid(field, e))
}

/// A shard's name, in `field`, for a shard of the stream.
pub fn shard_id(routes: &StreamRoutes, field: &'static str, text: &str) -> Result<ShardId, ApiError> {
    let shard = routes.stream.shard_id(shard_index(field, text)?);
    match routes.shard(shard) {
        Some(_) => Ok(shard),
        None => Err(no_shard(routes, shard)),
    }
}

/// A shard that the stream does not have, or not any more.
pub fn no_shard(routes: &StreamRoutes, shard: ShardId) -> ApiError {
    let (stream, name) = (&routes.stream.name, shard.name());
    match routes.has_forgotten(shard) {
        true => ApiError::ShardForgotten(format!(
            "stream {stream} has shard {name} no more: it was closed, and its records are past retention"
        )),
        false => ApiError::NoSuchShardName(format!("stream {stream} has no shard {name}")),
    }
}

/// A record; `path` is what its fields are called in the request, such as `records[3].`.
pub fn record(path: &str, data: Bytes, partition_key: String, explicit_hash: &str) -> Result<Record, ApiError> {
    let partition_key = PartitionKey::new(Bytes::from(partition_key))
        .map_err(|e| ApiError::invalid(format!("{path}partition_key"), e))?;
    let explicit_hash = match explicit_hash {
        "" => None,
        text => Some(HashKey::parse(text).map_err(|e| ApiError::invalid(format!("{path}explicit_hash_key"), e))?),
    };
    Ok(Record { partition_key, explicit_hash, data })
}

/// The records of a PutRecords.
pub fn records(entries: Vec<v1::PutRecordsRequestEntry>) -> Result<Vec<Record>, ApiError> {
    let each = entries.into_iter().enumerate();
    each.map(|(n, it)| record(&format!("records[{n}]."), it.data, it.partition_key, &it.explicit_hash_key)).collect()
}

/// The request's limits: how many, how large each, how large together.
pub fn check_records(records: &[Record], limits: &Limits) -> Result<(), ApiError> {
    check_request(records, limits).map_err(ApiError::Request)
}

/// What a call's fields that say where reading begins are called.
#[derive(Clone, Copy)]
pub struct StartFields {
    /// The kind.
    pub kind: &'static str,
    /// The sequence number.
    pub number: &'static str,
}

/// Of GetShardIterator.
pub const ITERATOR_START: StartFields = StartFields { kind: "shard_iterator_type", number: "starting_sequence_number" };
/// Of SubscribeToShard.
pub const SUBSCRIPTION_START: StartFields =
    StartFields { kind: "starting_position.type", number: "starting_position.sequence_number" };

/// Where reading begins.
pub fn iterator_kind(
    kind: i32,
    number: &str,
    timestamp_ms: u64,
    fields: StartFields,
) -> Result<IteratorKind, ApiError> {
    use v1::ShardIteratorType as Kind;
    let number = || SequenceNumber::parse(number).map_err(|e| ApiError::invalid(fields.number, e));
    match Kind::try_from(kind).unwrap_or(Kind::Unspecified) {
        Kind::TrimHorizon => Ok(IteratorKind::TrimHorizon),
        Kind::Latest => Ok(IteratorKind::Latest),
        Kind::AtSequenceNumber => Ok(IteratorKind::AtSequence(number()?)),
        Kind::AfterSequenceNumber => Ok(IteratorKind::AfterSequence(number()?)),
        Kind::AtTimestamp => Ok(IteratorKind::AtTimestamp(timestamp_ms)),
        Kind::Unspecified => Err(ApiError::invalid(
            fields.kind,
            "is missing or unknown: AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER, TRIM_HORIZON, LATEST and AT_TIMESTAMP are allowed",
        )),
    }
}

/// What a stream sets differently; 0 follows the default.
pub fn limit_overrides(it: &v1::StreamLimits) -> LimitOverrides {
    let set = |value: u64| (value > 0).then_some(value);
    LimitOverrides {
        write_bytes_per_s: set(it.write_bytes_per_s),
        write_records_per_s: set(it.write_records_per_s),
        read_bytes_per_s: set(it.read_bytes_per_s),
        read_calls_per_s: set(it.read_calls_per_s),
        record_bytes_max: set(it.max_record_bytes),
    }
}

/// Which shards to list.
pub fn shard_filter(stream: StreamId, filter: &v1::ShardFilter) -> Result<ShardFilter, ApiError> {
    use v1::shard_filter::Type;
    let ms = filter.timestamp_ms;
    Ok(match Type::try_from(filter.r#type).unwrap_or(Type::Unspecified) {
        Type::Unspecified => ShardFilter::All,
        Type::AfterShardId => {
            let shard = ShardId::parse(stream, &filter.shard_id);
            ShardFilter::After(shard.map_err(|e| ApiError::invalid("shard_filter.shard_id", e))?.index)
        }
        Type::AtTrimHorizon => ShardFilter::AtTrimHorizon,
        Type::FromTrimHorizon => ShardFilter::FromTrimHorizon,
        Type::AtLatest => ShardFilter::AtLatest,
        Type::AtTimestamp => ShardFilter::AtTimestamp(ms),
        Type::FromTimestamp => ShardFilter::FromTimestamp(ms),
    })
}

/// Whether a stream scales by load: not if both bounds are 0.
pub fn autoscale(it: &v1::Autoscale) -> Option<Bounds> {
    let bounds = Bounds { min: it.min_shards, max: it.max_shards };
    (bounds != Bounds { min: 0, max: 0 }).then_some(bounds)
}

/// How shards are to share the keys.
pub fn shares(scaling: v1::ScalingType) -> Shares {
    match scaling {
        v1::ScalingType::Unspecified | v1::ScalingType::EqualShares => Shares::Equal,
        v1::ScalingType::Halves => Shares::Halves,
    }
}

/// What another node answered of one record; `sent` is where it was sent: that node may know of a split or merge that
/// this one has not heard of, or the other way round.
pub fn verdict_from_wire(sent: ShardId, it: v1::PutRecordsResultEntry) -> Verdict {
    let shard = ShardId::parse(sent.stream, &it.shard_id).unwrap_or(sent);
    let unknown = |text: String| {
        ApiError::Unknown { why: format!("the leader's node answered what cannot be read: {text}") }.explain()
    };
    let outcome = match it.outcome() {
        v1::Outcome::Appended => SequenceNumber::parse(&it.sequence_number).map_err(|e| unknown(e.to_string())),
        _ => {
            let detail = v1::ErrorDetail {
                reason: it.error_code,
                retryable: !matches!(it.error_code(), v1::ErrorReason::InvalidArgument),
                retry_after_ms: it.retry_after_ms,
                leader_address: it.leader_address,
                outcome: it.outcome,
                limit: it.limit,
                limit_used_percent: it.limit_used_percent,
                ..v1::ErrorDetail::default()
            };
            Err(of_detail(detail, it.error_message))
        }
    };
    Verdict { shard, outcome }
}

// ---------------------------------------------------------------- to wire

/// A record to send on to its leader.
pub fn record_to_forward(record: &Record) -> v1::PutRecordsRequestEntry {
    v1::PutRecordsRequestEntry {
        data: record.data.clone(),
        partition_key: record.partition_key.as_str().to_string(),
        explicit_hash_key: record.explicit_hash.map(|hash| hash.to_string()).unwrap_or_default(),
    }
}

/// What became of one record.
pub fn verdict(it: Verdict) -> v1::PutRecordsResultEntry {
    let shard_id = it.shard.name();
    match it.outcome {
        Ok(number) => v1::PutRecordsResultEntry {
            sequence_number: number.to_string(),
            shard_id,
            outcome: v1::Outcome::Appended as i32,
            ..v1::PutRecordsResultEntry::default()
        },
        Err(why) => v1::PutRecordsResultEntry {
            shard_id,
            outcome: why.detail.outcome,
            error_code: why.detail.reason,
            error_message: why.message,
            limit: why.detail.limit,
            limit_used_percent: why.detail.limit_used_percent,
            retry_after_ms: why.detail.retry_after_ms,
            leader_address: why.detail.leader_address,
            ..v1::PutRecordsResultEntry::default()
        },
    }
}

/// A record as read. Its data is the log entry's own buffer.
pub fn stored_record(it: StoredRecord) -> v1::Record {
    v1::Record {
        sequence_number: it.sequence_number.to_string(),
        approximate_arrival_timestamp_ms: it.arrival_ms,
        data: it.record.data,
        partition_key: it.record.partition_key.as_str().to_string(),
    }
}

/// One event of a subscription.
pub fn event(it: Event, routes: &StreamRoutes) -> v1::SubscribeToShardEvent {
    v1::SubscribeToShardEvent {
        records: it.records.into_iter().map(stored_record).collect(),
        continuation_sequence_number: it.continuation.map(|number| number.to_string()).unwrap_or_default(),
        millis_behind_latest: it.behind_ms,
        end_of_shard: it.ended.is_some(),
        child_shards: children(routes, it.ended.as_deref().unwrap_or_default()),
    }
}

/// The shards that go on where a closed one ends.
pub fn children(routes: &StreamRoutes, indexes: &[u32]) -> Vec<v1::ChildShard> {
    let known = indexes.iter().filter_map(|index| Some((*index, routes.stream.shards.get(index)?)));
    known
        .map(|(index, shard)| v1::ChildShard {
            shard_id: routes.stream.shard_id(index).name(),
            parent_shards: parents(routes, shard).collect(),
            hash_key_range: Some(hash_range(shard.range)),
        })
        .collect()
}

fn parents<'a>(routes: &'a StreamRoutes, shard: &'a StreamShard) -> impl Iterator<Item = String> + 'a {
    shard.parents.iter().flatten().map(|index| routes.stream.shard_id(*index).name())
}

/// Both ends are in it.
pub fn hash_range(range: HashRange) -> v1::HashKeyRange {
    v1::HashKeyRange { starting_hash_key: range.start().to_string(), ending_hash_key: range.end().to_string() }
}

/// A shard as the catalog knows it.
pub fn shard(
    routes: &StreamRoutes,
    index: u32,
    shard: &StreamShard,
    leader_node: Option<u64>,
    leader_address: Option<String>,
) -> v1::Shard {
    let number = |offset, arrival_s| {
        let (created_s, shard_index) = (shard.created_s, index);
        SequenceNumber { created_s, shard_index, offset, arrival_s }.to_string()
    };
    let ending = match &shard.state {
        ShardState::Open => String::new(),
        // Not less than the last record's number, whatever its arrival second.
        ShardState::Closed { last, .. } => number(last.unwrap_or(Offset::ZERO), SECOND_MAX),
    };
    let mut parents = parents(routes, shard);
    v1::Shard {
        shard_id: routes.stream.shard_id(index).name(),
        hash_key_range: Some(hash_range(shard.range)),
        sequence_number_range: Some(v1::SequenceNumberRange {
            starting_sequence_number: number(Offset::ZERO, 0),
            ending_sequence_number: ending,
        }),
        parent_shard_id: parents.next().unwrap_or_default(),
        adjacent_parent_shard_id: parents.next().unwrap_or_default(),
        group: shard.group.0,
        leader_node: leader_node.unwrap_or(0),
        leader_address: leader_address.unwrap_or_default(),
    }
}

/// A stream and its settings.
pub fn stream(routes: &StreamRoutes, now_ms: u64) -> v1::StreamDescription {
    let it = &routes.stream;
    let count = |n: usize| u32::try_from(n).expect("a stream has at most 2^32 shards, and steps");
    v1::StreamDescription {
        stream_name: it.name.as_str().to_string(),
        status: match it.status {
            StreamStatus::Creating => v1::StreamStatus::Creating,
            StreamStatus::Active => v1::StreamStatus::Active,
            StreamStatus::Updating => v1::StreamStatus::Updating,
            StreamStatus::Deleting => v1::StreamStatus::Deleting,
        } as i32,
        created_ms: it.created_ms,
        retention_ms: it.retention_ms,
        open_shard_count: count(it.shards.values().filter(|shard| shard.is_open()).count()),
        shard_count: count(it.listed(ShardFilter::All, now_ms).count()),
        max_record_bytes: u32::try_from(routes.limits.record_bytes_max).unwrap_or(u32::MAX),
        target_shard_count: routes.scaling.map_or(0, |it| it.target),
        scaling_steps: routes.scaling.map_or(0, |it| count(it.planned)),
        scaling_steps_left: routes.scaling.map_or(0, |it| count(it.left)),
        autoscale: routes.autoscale.map(|it| v1::Autoscale { min_shards: it.min, max_shards: it.max }),
        mode: super::attributes::mode_to_wire(it.mode) as i32,
        limits: Some(v1::StreamLimits {
            write_bytes_per_s: routes.limits.write_bytes_per_s,
            write_records_per_s: routes.limits.write_records_per_s,
            read_bytes_per_s: routes.limits.read_bytes_per_s,
            read_calls_per_s: routes.limits.read_calls_per_s,
            max_record_bytes: routes.limits.record_bytes_max,
        }),
    }
}

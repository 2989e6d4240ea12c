//! Shards: ListShards, SplitShard, MergeShards, UpdateShardCount.

use braid_proto::v1;
use braid_stream::ids::{ShardId, StreamId};

use super::Asked;
use super::error::Subject;
use super::names::Named;
use super::wire::fault::{Fault, FaultKind};
use super::wire::value::Structure;
use crate::api::ApiError;

/// Shards in a page: the service gives no more, whatever is asked for.
const PAGE: i64 = 1_000;

impl Asked<'_> {
    pub(super) async fn list_shards(&self, input: &Structure) -> Result<Structure, Fault> {
        let token = input.text("NextToken");
        let named = input.text("StreamName").is_some() || input.text("StreamARN").is_some();
        // A token brings the stream with it, but nothing says which: it is in front of Braid's own.
        let (stream, next_token) = match token {
            None if !named => return Err(Fault::argument("Either NextToken or StreamName should be provided.")),
            Some(_) if named || input.get("ExclusiveStartShardId").is_some() => {
                return Err(Fault::argument("NextToken and StreamName cannot be provided together."));
            }
            Some(token) => self.of_token(token)?,
            None => (self.stream(input)?, String::new()),
        };
        let filter = match (input.structure("ShardFilter"), input.text("ExclusiveStartShardId")) {
            (Some(_), Some(_)) => {
                return Err(Fault::argument("ShardFilter and ExclusiveStartShardId cannot be provided together."));
            }
            (Some(filter), None) => Some(shard_filter(filter)?),
            (None, Some(after)) => Some(after_shard(after)?),
            (None, None) => None,
        };
        let message = v1::ListShardsRequest {
            stream_name: stream.name.as_str().to_string(),
            shard_filter: filter,
            max_results: input.integer("MaxResults").unwrap_or(PAGE).min(PAGE) as u32,
            next_token,
        };
        let page = self.face.service.shards_at_leader(&message, &self.call).await;
        let page = page.map_err(|error| self.fault(&error, &Subject::stream(&stream)))?;
        let next = Some(page.next_token).filter(|token| !token.is_empty());
        Ok(Structure::new()
            .with("Shards", page.shards.into_iter().map(shard).collect::<Vec<_>>())
            .with_some("NextToken", next.map(|token| format!("{token}.{}", stream.name))))
    }

    fn of_token(&self, token: &str) -> Result<(Named, String), Fault> {
        let invalid = || Fault::argument("Invalid NextToken.");
        let (token, name) = token.split_once('.').ok_or_else(invalid)?;
        let stream = self.face.home.of_name(name).ok_or_else(invalid)?;
        self.allows_stream(&stream)?;
        Ok((stream, token.to_string()))
    }

    pub(super) async fn split_shard(&self, input: &Structure) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        let (shard, at) = (&stream.shard(input.needed("ShardToSplit"))?, input.needed("NewStartingHashKey"));
        self.check_split(&stream, shard, at).await?;
        let message = v1::SplitShardRequest {
            stream_name: stream.name.as_str().to_string(),
            shard_to_split: shard.to_string(),
            new_starting_hash_key: at.to_string(),
        };
        let split = self.face.service.split(&message, &self.call).await;
        split.map(drop).map_err(|error| self.not_changed(&error, &stream, &[shard]))
    }

    /// The service is stricter than Braid, which needs no more than two shards that are not empty.
    async fn check_split(&self, stream: &Named, shard: &str, at: &str) -> Result<(), Fault> {
        self.check_provisioned(stream).await?;
        let message = v1::ListShardsRequest {
            stream_name: stream.name.as_str().to_string(),
            shard_filter: Some(v1::ShardFilter {
                r#type: v1::shard_filter::Type::AtLatest as i32,
                ..v1::ShardFilter::default()
            }),
            ..v1::ListShardsRequest::default()
        };
        let page = self.face.service.shards_at_leader(&message, &self.call).await;
        let page = page.map_err(|error| self.fault(&error, &Subject::stream(stream)))?;
        let range = page.shards.into_iter().find(|it| it.shard_id == shard).and_then(|it| it.hash_key_range);
        // Not among the first thousand, closed, or not there: the catalog will say.
        let Some(range) = range else { return Ok(()) };
        let number = |text: &str| text.parse::<u128>();
        let (Ok(start), Ok(end)) = (number(&range.starting_hash_key), number(&range.ending_hash_key)) else {
            return Ok(());
        };
        match number(at) {
            Ok(at) if at > start.saturating_add(1) && at < end => Ok(()),
            _ => Err(Fault::argument(format!(
                "NewStartingHashKey {at} used in SplitShard() on shard {shard} in stream {} under account {} is not \
                 both greater than one plus the shard's StartingHashKey {start} and less than the shard's \
                 EndingHashKey {end}.",
                stream.local(),
                stream.account
            ))),
        }
    }

    /// The shards of a stream in on-demand mode are not its owner's to change.
    async fn check_provisioned(&self, stream: &Named) -> Result<(), Fault> {
        match self.described(stream).await?.mode() {
            v1::StreamMode::OnDemand => Err(Fault::validation(&format!(
                "Request is invalid. Stream {} under account {} is in On-Demand mode.",
                stream.local(),
                stream.account
            ))),
            _ => Ok(()),
        }
    }

    pub(super) async fn merge_shards(&self, input: &Structure) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        let shard = &stream.shard(input.needed("ShardToMerge"))?;
        let adjacent = &stream.shard(input.needed("AdjacentShardToMerge"))?;
        self.check_provisioned(&stream).await?;
        let message = v1::MergeShardsRequest {
            stream_name: stream.name.as_str().to_string(),
            shard_to_merge: shard.to_string(),
            adjacent_shard_to_merge: adjacent.to_string(),
        };
        let merged = self.face.service.merge(&message, &self.call).await;
        merged.map(drop).map_err(|error| match self.not_changed(&error, &stream, &[shard, adjacent]) {
            Fault { kind: FaultKind::InvalidArgument, .. } => Fault::argument(format!(
                "Shards {shard} and {adjacent} in stream {} under account {} are not an adjacent pair of shards \
                 eligible for merging",
                stream.local(),
                stream.account
            )),
            fault => fault,
        })
    }

    /// Why `shards` were not changed. One that is not there is the one that our message names.
    fn not_changed(&self, error: &ApiError, stream: &Named, shards: &[&String]) -> Fault {
        let why = error.explain();
        if why.detail.reason() != v1::ErrorReason::ShardNotFound {
            return self.fault(error, &Subject::shard(stream, shards[0]));
        }
        let named = shards.iter().find(|shard| why.message.contains(shard.as_str()));
        stream.no_shard(named.unwrap_or(&shards[0]))
    }

    pub(super) async fn update_shard_count(&self, input: &Structure) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        self.check_provisioned(&stream).await?;
        let target = input.integer("TargetShardCount").expect("validated to be there");
        let message = v1::UpdateShardCountRequest {
            stream_name: stream.name.as_str().to_string(),
            target_shard_count: u32::try_from(target).unwrap_or(u32::MAX),
            // As the service was seen to do it, whatever it calls uniform.
            scaling_type: v1::ScalingType::Halves as i32,
            unbounded: false,
        };
        let decided = self.face.service.shard_count(&message, &self.call).await;
        let decided = decided.map_err(|error| match self.fault(&error, &Subject::stream(&stream)) {
            // The number is the only argument, and the service's most is one of its limits.
            Fault { kind: FaultKind::InvalidArgument, message } => Fault { kind: FaultKind::LimitExceeded, message },
            fault => fault,
        })?;
        Ok(Structure::new()
            .with("StreamName", stream.local())
            .with("CurrentShardCount", decided.current_shard_count)
            .with("TargetShardCount", decided.target_shard_count)
            .with("StreamARN", stream.arn()))
    }
}

/// A shard's description.
pub(super) fn shard(it: v1::Shard) -> Structure {
    let given = |text: String| Some(text).filter(|it| !it.is_empty());
    let keys = it.hash_key_range.unwrap_or_default();
    let keys =
        Structure::new().with("StartingHashKey", keys.starting_hash_key).with("EndingHashKey", keys.ending_hash_key);
    let numbers = it.sequence_number_range.unwrap_or_default();
    let numbers = Structure::new()
        .with("StartingSequenceNumber", numbers.starting_sequence_number)
        .with_some("EndingSequenceNumber", given(numbers.ending_sequence_number));
    Structure::new()
        .with("ShardId", it.shard_id)
        .with_some("ParentShardId", given(it.parent_shard_id))
        .with_some("AdjacentParentShardId", given(it.adjacent_parent_shard_id))
        .with("HashKeyRange", keys)
        .with("SequenceNumberRange", numbers)
}

fn shard_filter(filter: &Structure) -> Result<v1::ShardFilter, Fault> {
    use v1::shard_filter::Type;
    let kind = match filter.needed("Type") {
        "AFTER_SHARD_ID" => Type::AfterShardId,
        "AT_TRIM_HORIZON" => Type::AtTrimHorizon,
        "FROM_TRIM_HORIZON" => Type::FromTrimHorizon,
        "AT_LATEST" => Type::AtLatest,
        "AT_TIMESTAMP" => Type::AtTimestamp,
        "FROM_TIMESTAMP" => Type::FromTimestamp,
        other => unreachable!("{other} was validated to be one of six"),
    };
    let needs =
        |what| Fault::argument(format!("{what} must be provided with ShardFilter type {}.", filter.needed("Type")));
    let takes_time = matches!(kind, Type::AtTimestamp | Type::FromTimestamp);
    let ms = filter.timestamp("Timestamp").map(|ms| u64::try_from(ms).unwrap_or(0));
    match (kind, filter.text("ShardId"), ms) {
        (Type::AfterShardId, Some(shard), _) => after_shard(shard),
        (Type::AfterShardId, None, _) => Err(needs("ShardId")),
        (_, _, None) if takes_time => Err(needs("Timestamp")),
        (kind, _, ms) => {
            Ok(v1::ShardFilter { r#type: kind as i32, timestamp_ms: ms.unwrap_or(0), ..v1::ShardFilter::default() })
        }
    }
}

/// Whatever its name, even one that no shard has: those that sort after it.
pub(super) fn after_shard(name: &str) -> Result<v1::ShardFilter, Fault> {
    match ShardId::parse(StreamId(0), name) {
        Ok(_) => Ok(v1::ShardFilter {
            r#type: v1::shard_filter::Type::AfterShardId as i32,
            shard_id: name.to_string(),
            ..v1::ShardFilter::default()
        }),
        Err(_) => Err(Fault::argument(format!("Invalid ShardId {name}."))),
    }
}

//! Streams: created, described, listed, changed, deleted.
//!
//! Invariant: descriptions come from the catalog's leader, so that whoever has changed a stream through one node sees
//! it change through every other.

use braid_proto::v1;
use braid_stream::limits::{KIB, SHARDS_ON_DEMAND};

use super::error::Subject;
use super::names::Named;
use super::shards::{after_shard, shard};
use super::wire::fault::{Fault, FaultKind};
use super::wire::value::{Structure, time};
use super::{Asked, attributes};

const HOUR_MS: u64 = 3_600_000;
/// The service's bounds, in hours; the cluster's ceiling may be lower.
const RETENTION_HOURS: (i64, i64) = (24, 8_760);
/// Names or shards in a page at most: the model has it that a call that asks for more gets so many.
const PAGE: i64 = 100;

impl Asked<'_> {
    pub(super) async fn create_stream(&self, input: &Structure) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        let on_demand = mode(input) == Some("ON_DEMAND");
        let shards = match (on_demand, input.integer("ShardCount")) {
            (true, Some(_)) => {
                return Err(Fault::validation("ShardCount must not be provided when the stream mode is ON_DEMAND."));
            }
            (true, None) => i64::from(SHARDS_ON_DEMAND),
            (false, Some(shards)) => shards,
            (false, None) => {
                return Err(Fault::validation("ShardCount must be provided when the stream mode is PROVISIONED."));
            }
        };
        self.check_account(on_demand, shards).await?;
        let record_bytes_max = input.integer("MaxRecordSizeInKiB").map(|kib| kib as u64 * KIB);
        let message = v1::CreateStreamRequest {
            stream_name: stream.name.as_str().to_string(),
            shard_count: u32::try_from(shards).unwrap_or(u32::MAX),
            mode: if on_demand { v1::StreamMode::OnDemand } else { v1::StreamMode::Provisioned } as i32,
            tags: attributes::tags(input)?,
            limits: record_bytes_max
                .map(|bytes| v1::StreamLimits { max_record_bytes: bytes, ..v1::StreamLimits::default() }),
            ..v1::CreateStreamRequest::default()
        };
        let created = self.face.service.create(&message, &self.call).await;
        created.map(drop).map_err(|error| self.fault(&error, &Subject::stream(&stream)))
    }

    pub(super) async fn delete_stream(&self, input: &Structure) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        if !input.is_set("EnforceConsumerDeletion") && !self.attributes(&stream).await?.consumers.is_empty() {
            let text = format!(
                "Stream {} under account {} has registered consumers. Deregister them, or set EnforceConsumerDeletion.",
                stream.local(),
                stream.account
            );
            return Err(Fault::new(FaultKind::ResourceInUse, text));
        }
        let message = v1::DeleteStreamRequest { stream_name: stream.name.as_str().to_string() };
        let deleted = self.face.service.delete(&message, &self.call).await;
        deleted.map(drop).map_err(|error| self.fault(&error, &Subject::stream(&stream)))
    }

    pub(super) async fn described(&self, stream: &Named) -> Result<v1::StreamDescription, Fault> {
        let message = v1::DescribeStreamRequest { stream_name: stream.name.as_str().to_string() };
        let found = self.face.service.describe_at_leader(&message, &self.call).await;
        let found = found.map_err(|error| self.fault(&error, &Subject::stream(stream)))?;
        Ok(found.stream.unwrap_or_default())
    }

    pub(super) async fn describe_stream(&self, input: &Structure) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        let found = self.described(&stream).await?;
        let limit = input.integer("Limit").unwrap_or(PAGE).min(PAGE);
        let message = v1::ListShardsRequest {
            stream_name: stream.name.as_str().to_string(),
            shard_filter: input.text("ExclusiveStartShardId").map(after_shard).transpose()?,
            max_results: limit as u32,
            next_token: String::new(),
        };
        let page = self.face.service.shards_at_leader(&message, &self.call).await;
        let page = page.map_err(|error| self.fault(&error, &Subject::stream(&stream)))?;
        // A stream that is being created has shards that nobody can use yet; the service shows none.
        let shown = if found.status() == v1::StreamStatus::Creating { Vec::new() } else { page.shards };
        let description = attributes::describe(common(&stream, &found), &self.attributes(&stream).await?)
            .with("Shards", shown.into_iter().map(shard).collect::<Vec<_>>())
            .with("HasMoreShards", !page.next_token.is_empty());
        Ok(Structure::new().with("StreamDescription", description))
    }

    pub(super) async fn describe_stream_summary(&self, input: &Structure) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        let found = self.described(&stream).await?;
        let it = self.attributes(&stream).await?;
        let summary = attributes::describe(common(&stream, &found), &it)
            .with("OpenShardCount", found.open_shard_count)
            .with("ConsumerCount", it.consumers.len() as u32)
            .with_some("WarmThroughput", attributes::warm_throughput(&it))
            .with("MaxRecordSizeInKiB", (u64::from(found.max_record_bytes) / KIB) as i64);
        Ok(Structure::new().with("StreamDescriptionSummary", summary))
    }

    /// Those of the caller's account and region.
    pub(super) async fn list_streams(&self, input: &Structure) -> Result<Structure, Fault> {
        let home = &self.face.home;
        let (account, region) = (&self.caller.account, &self.caller.region);
        let after = match input.text("ExclusiveStartStreamName") {
            Some(local) => local.to_string(),
            None => String::new(),
        };
        let message = v1::ListStreamsRequest {
            limit: input.integer("Limit").unwrap_or(PAGE).min(PAGE) as u32,
            exclusive_start_stream_name: after,
            next_token: input.text("NextToken").unwrap_or_default().to_string(),
            namespace: Some(home.namespace(account, region).unwrap_or_default()),
        };
        let page = self.face.service.list_at_leader(&message, &self.call).await;
        let page = page.map_err(|error| self.fault(&error, &Subject::iterator(&self.caller)))?;
        let named = page.streams.iter().filter_map(|it| Some((home.of_name(&it.stream_name)?, it)));
        let streams: Vec<(Named, &v1::StreamDescription)> = named.collect();
        let names: Vec<&str> = streams.iter().map(|(named, _)| named.local()).collect();
        let summaries = streams.iter().map(|(named, it)| {
            Structure::new()
                .with("StreamName", named.local())
                .with("StreamARN", named.arn())
                .with("StreamStatus", status(it))
                .with("StreamModeDetails", mode_details(it))
                .with("StreamCreationTimestamp", time(it.created_ms))
        });
        let summaries: Vec<Structure> = summaries.collect();
        let next = Some(page.next_token).filter(|token| !token.is_empty());
        Ok(Structure::new()
            .with("StreamNames", names)
            .with("HasMoreStreams", next.is_some())
            .with_some("NextToken", next)
            .with("StreamSummaries", summaries))
    }

    pub(super) async fn set_retention(&self, input: &Structure, longer: bool) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        let hours = input.integer("RetentionPeriodHours").expect("validated to be there");
        let bound = |word: &str, most: i64, too: &str| {
            Fault::argument(format!(
                "{word} allowed retention period is {most} hours. Requested retention period ({hours} hours) is too {too}."
            ))
        };
        if hours < RETENTION_HOURS.0 {
            return Err(bound("Minimum", RETENTION_HOURS.0, "short"));
        }
        if hours > RETENTION_HOURS.1 {
            return Err(bound("Maximum", RETENTION_HOURS.1, "long"));
        }
        let now = (self.described(&stream).await?.retention_ms / HOUR_MS) as i64;
        let refused = |than: &str, other: &str| {
            Fault::argument(format!(
                "Requested retention period ({hours} hours) for stream {} can not be {than} than existing retention \
                 period ({now} hours). Use {other}RetentionPeriod API.",
                stream.local()
            ))
        };
        match (longer, hours.cmp(&now)) {
            (_, std::cmp::Ordering::Equal) => return Ok(()),
            (true, std::cmp::Ordering::Less) => return Err(refused("shorter", "Decrease")),
            (false, std::cmp::Ordering::Greater) => return Err(refused("longer", "Increase")),
            _ => {}
        }
        let message = v1::UpdateStreamRequest {
            stream_name: stream.name.as_str().to_string(),
            retention_ms: hours as u64 * HOUR_MS,
            ..v1::UpdateStreamRequest::default()
        };
        let updated = self.face.service.update(&message, &self.call).await;
        updated.map(drop).map_err(|error| self.fault(&error, &Subject::stream(&stream)))
    }

    pub(super) async fn update_max_record_size(&self, input: &Structure) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        let kib = input.integer("MaxRecordSizeInKiB").expect("validated to be there") as u64;
        // The other limits stay as they are; they are shown with defaults filled in, which set again change nothing.
        let limits = self.described(&stream).await?.limits.unwrap_or_default();
        let message = v1::UpdateStreamRequest {
            stream_name: stream.name.as_str().to_string(),
            limits: Some(v1::StreamLimits { max_record_bytes: kib * KIB, ..limits }),
            ..v1::UpdateStreamRequest::default()
        };
        let updated = self.face.service.update(&message, &self.call).await;
        updated.map(drop).map_err(|error| self.fault(&error, &Subject::stream(&stream)))
    }
}

/// The mode that a request asks for.
fn mode(input: &Structure) -> Option<&str> {
    input.structure("StreamModeDetails")?.text("StreamMode")
}

fn status(it: &v1::StreamDescription) -> &'static str {
    match it.status() {
        v1::StreamStatus::Creating => "CREATING",
        v1::StreamStatus::Updating => "UPDATING",
        v1::StreamStatus::Deleting => "DELETING",
        v1::StreamStatus::Active | v1::StreamStatus::Unspecified => "ACTIVE",
    }
}

fn mode_details(it: &v1::StreamDescription) -> Structure {
    let on_demand = it.mode() == v1::StreamMode::OnDemand;
    Structure::new().with("StreamMode", if on_demand { "ON_DEMAND" } else { "PROVISIONED" })
}

/// What both descriptions have.
fn common(stream: &Named, it: &v1::StreamDescription) -> Structure {
    Structure::new()
        .with("StreamName", stream.local())
        .with("StreamARN", stream.arn())
        .with("StreamStatus", status(it))
        .with("StreamModeDetails", mode_details(it))
        .with("RetentionPeriodHours", (it.retention_ms / HOUR_MS) as i64)
        .with("StreamCreationTimestamp", time(it.created_ms))
}

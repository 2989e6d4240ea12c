//! What streams and accounts carry besides records and shards: tags, policies, encryption, monitoring, modes, throughput.
//!
//! Invariant: all of it is the catalog's, changed and read at its leader; what was set is what is answered.

use braid_proto::v1;
use braid_proto::v1::change_attributes_request::Change;

use super::Asked;
use super::error::Subject;
use super::names::{Consumer, Named, Resource};
use super::policy::Policy;
use super::wire::fault::{Fault, FaultKind};
use super::wire::value::{Structure, Value, time};

/// The service's metrics, by our names for them.
const METRICS: [(v1::ShardMetric, &str); 7] = [
    (v1::ShardMetric::IncomingBytes, "IncomingBytes"),
    (v1::ShardMetric::IncomingRecords, "IncomingRecords"),
    (v1::ShardMetric::OutgoingBytes, "OutgoingBytes"),
    (v1::ShardMetric::OutgoingRecords, "OutgoingRecords"),
    (v1::ShardMetric::WriteThroughputExceeded, "WriteProvisionedThroughputExceeded"),
    (v1::ShardMetric::ReadThroughputExceeded, "ReadProvisionedThroughputExceeded"),
    (v1::ShardMetric::IteratorAge, "IteratorAgeMilliseconds"),
];

/// What the service says an account may have; held to where the setting for calls' rates is on.
const SHARD_LIMIT: i64 = 20_000;
const ON_DEMAND_LIMIT: i64 = 50;
/// A commitment can be ended after a day at the earliest.
const COMMITMENT_MS: u64 = 24 * 3_600_000;
/// What a stream in on-demand mode is ready for, in MiB/s.
const WARM_MIBPS_MAX: i64 = 10_240;

impl Asked<'_> {
    pub(super) async fn attributes(&self, stream: &Named) -> Result<v1::StreamAttributes, Fault> {
        let message = v1::DescribeAttributesRequest { stream_name: stream.name.as_str().to_string() };
        let found = self.face.service.describe_attributes(&message, &self.call).await;
        let found = found.map_err(|error| self.fault(&error, &Subject::stream(stream)))?;
        Ok(found.attributes.unwrap_or_default())
    }

    pub(super) async fn change(
        &self,
        stream: &Named,
        consumer: Option<&Consumer>,
        change: Change,
    ) -> Result<v1::ChangeAttributesResponse, Fault> {
        let message = v1::ChangeAttributesRequest {
            stream_name: stream.name.as_str().to_string(),
            consumer_name: consumer.map(|it| it.name.clone()).unwrap_or_default(),
            change: Some(change),
        };
        let changed = self.face.service.change_attributes(&message, &self.call).await;
        changed.map_err(|error| self.fault(&error, &Subject::stream(stream)))
    }

    /// The stream or the consumer that a ResourceARN names; a consumer of it is there.
    async fn resource(&self, input: &Structure) -> Result<(Resource, v1::StreamAttributes), Fault> {
        let resource = self.face.home.resource(input.needed("ResourceARN"))?;
        let attributes = self.attributes(&resource.stream).await?;
        if let Some(consumer) = &resource.consumer {
            consumer.find(&attributes, &resource.stream)?;
        }
        Ok((resource, attributes))
    }

    // ------------------------------------------------------------ tags

    pub(super) async fn tag_stream(&self, input: &Structure) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        self.tag(&stream, None, input).await
    }

    pub(super) async fn tag_resource(&self, input: &Structure) -> Result<(), Fault> {
        let (resource, _) = self.resource(input).await?;
        self.tag(&resource.stream, resource.consumer.as_ref(), input).await
    }

    async fn tag(&self, stream: &Named, consumer: Option<&Consumer>, input: &Structure) -> Result<(), Fault> {
        let set = tags(input)?;
        let change = Change::Tags(v1::TagsChange { set, remove: Vec::new() });
        self.change(stream, consumer, change).await.map(drop)
    }

    pub(super) async fn untag_stream(&self, input: &Structure) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        let change = Change::Tags(v1::TagsChange { set: Vec::new(), remove: input.texts("TagKeys") });
        self.change(&stream, None, change).await.map(drop)
    }

    pub(super) async fn untag_resource(&self, input: &Structure) -> Result<(), Fault> {
        let (resource, _) = self.resource(input).await?;
        let change = Change::Tags(v1::TagsChange { set: Vec::new(), remove: input.texts("TagKeys") });
        self.change(&resource.stream, resource.consumer.as_ref(), change).await.map(drop)
    }

    pub(super) async fn list_tags_for_stream(&self, input: &Structure) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        let tags = self.attributes(&stream).await?.tags;
        let after = input.text("ExclusiveStartTagKey").unwrap_or_default();
        let limit = input.integer("Limit").map_or(usize::MAX, |it| it as usize);
        let mut later: Vec<v1::Tag> = tags.into_iter().filter(|tag| tag.key.as_str() > after).collect();
        let more = later.len() > limit;
        later.truncate(limit);
        Ok(Structure::new().with("Tags", shown(later)).with("HasMoreTags", more))
    }

    pub(super) async fn list_tags_for_resource(&self, input: &Structure) -> Result<Structure, Fault> {
        let (resource, attributes) = self.resource(input).await?;
        let tags = match &resource.consumer {
            Some(consumer) => consumer.find(&attributes, &resource.stream)?.tags.clone(),
            None => attributes.tags,
        };
        Ok(Structure::new().with("Tags", shown(tags)))
    }

    // ------------------------------------------------------------ policies

    pub(super) async fn put_policy(&self, input: &Structure) -> Result<(), Fault> {
        let policy = input.needed("Policy");
        Policy::parse(policy).map_err(|why| Fault::argument(format!("Policy is not valid: {why}.")))?;
        let (resource, _) = self.resource(input).await?;
        let change = Change::Policy(v1::PolicyChange { policy: Some(policy.to_string()) });
        self.change(&resource.stream, resource.consumer.as_ref(), change).await.map(drop)
    }

    pub(super) async fn get_policy(&self, input: &Structure) -> Result<Structure, Fault> {
        let (resource, attributes) = self.resource(input).await?;
        let policy = match &resource.consumer {
            Some(consumer) => consumer.find(&attributes, &resource.stream)?.policy.clone(),
            None => attributes.policy,
        };
        Ok(Structure::new().with("Policy", policy.unwrap_or_else(|| "{}".to_string())))
    }

    pub(super) async fn delete_policy(&self, input: &Structure) -> Result<(), Fault> {
        let (resource, _) = self.resource(input).await?;
        let change = Change::Policy(v1::PolicyChange { policy: None });
        self.change(&resource.stream, resource.consumer.as_ref(), change).await.map(drop).map_err(|fault| {
            match fault.kind {
                FaultKind::ResourceNotFound => Fault::new(
                    FaultKind::ResourceNotFound,
                    format!("No resource policy found for resource ARN {}.", input.needed("ResourceARN")),
                ),
                _ => fault,
            }
        })
    }

    // ------------------------------------------------------------ encryption, monitoring

    pub(super) async fn set_encryption(&self, input: &Structure, on: bool) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        if input.text("EncryptionType") != Some("KMS") {
            return Err(Fault::argument("EncryptionType KMS is the only one that can be started or stopped."));
        }
        let key = on.then(|| input.needed("KeyId").to_string());
        self.change(&stream, None, Change::Encryption(v1::EncryptionChange { key })).await.map(drop)
    }

    pub(super) async fn set_monitoring(&self, input: &Structure, on: bool) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        let asked = input.texts("ShardLevelMetrics");
        let all = asked.iter().any(|it| it == "ALL");
        let chosen = METRICS.iter().filter(|(_, name)| all || asked.iter().any(|it| it == name));
        let chosen: Vec<i32> = chosen.map(|(metric, _)| *metric as i32).collect();
        let change = match on {
            true => v1::ShardMetricsChange { enable: chosen, disable: Vec::new() },
            false => v1::ShardMetricsChange { enable: Vec::new(), disable: chosen },
        };
        let changed = self.change(&stream, None, Change::ShardMetrics(change)).await?;
        let named = |it: Option<v1::StreamAttributes>| metrics(&it.unwrap_or_default());
        Ok(Structure::new()
            .with("StreamName", stream.local())
            .with("CurrentShardLevelMetrics", named(changed.before))
            .with("DesiredShardLevelMetrics", named(changed.attributes))
            .with("StreamARN", stream.arn()))
    }

    // ------------------------------------------------------------ modes, accounts

    pub(super) async fn update_mode(&self, input: &Structure) -> Result<(), Fault> {
        let stream = self.stream(input)?;
        let mode = match input.structure("StreamModeDetails").and_then(|it| it.text("StreamMode")) {
            Some("ON_DEMAND") => v1::StreamMode::OnDemand,
            _ => v1::StreamMode::Provisioned,
        };
        let warm = input.integer("WarmThroughputMiBps").map(warm).transpose()?;
        self.change(&stream, None, Change::Mode(mode as i32)).await?;
        if let Some(mibps) = warm {
            self.change(&stream, None, Change::WarmMibps(mibps)).await?;
        }
        Ok(())
    }

    pub(super) async fn update_warm_throughput(&self, input: &Structure) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        let mibps = warm(input.integer("WarmThroughputMiBps").expect("validated to be there"))?;
        if self.described(&stream).await?.mode() != v1::StreamMode::OnDemand {
            return Err(Fault::validation(&format!(
                "Stream {} under account {} is not in ON_DEMAND mode.",
                stream.local(),
                stream.account
            )));
        }
        let changed = self.change(&stream, None, Change::WarmMibps(mibps)).await?;
        Ok(Structure::new()
            .with("StreamARN", stream.arn())
            .with("StreamName", stream.local())
            .with_some("WarmThroughput", warm_throughput(&changed.attributes.unwrap_or_default())))
    }

    async fn account(&self, committed: Option<bool>) -> Result<v1::UpdateAccountResponse, Fault> {
        let namespace = self.face.home.namespace(&self.caller.account, &self.caller.region).unwrap_or_default();
        let message = v1::UpdateAccountRequest { namespace, committed };
        let found = self.face.service.update_account(&message, &self.call).await;
        found.map_err(|error| self.fault(&error, &Subject::iterator(&self.caller)))
    }

    pub(super) async fn describe_limits(&self) -> Result<Structure, Fault> {
        let account = self.account(None).await?;
        Ok(Structure::new()
            .with("ShardLimit", SHARD_LIMIT)
            .with("OpenShardCount", account.open_shards)
            .with("OnDemandStreamCount", account.on_demand_streams)
            .with("OnDemandStreamCountLimit", ON_DEMAND_LIMIT))
    }

    /// Whether the account may have one more stream, of so many shards.
    pub(super) async fn check_account(&self, on_demand: bool, shards: i64) -> Result<(), Fault> {
        if self.face.rates.is_none() {
            return Ok(());
        }
        let (account, caller) = (self.account(None).await?, &self.caller);
        let open = i64::from(account.open_shards);
        let text = match on_demand {
            true if i64::from(account.on_demand_streams) >= ON_DEMAND_LIMIT => format!(
                "This request would exceed the on-demand stream limit for the account {} in {}. Limit: {ON_DEMAND_LIMIT}.",
                caller.account, caller.region
            ),
            false if open.saturating_add(shards) > SHARD_LIMIT => format!(
                "This request would exceed the shard limit for the account {} in {}. Current shard count for the account: \
                 {open}. Limit: {SHARD_LIMIT}. Number of additional shards that would have resulted from this request: \
                 {shards}.",
                caller.account, caller.region
            ),
            _ => return Ok(()),
        };
        Err(Fault::new(FaultKind::LimitExceeded, text))
    }

    pub(super) async fn describe_account(&self) -> Result<Structure, Fault> {
        Ok(commitment(&self.account(None).await?))
    }

    pub(super) async fn update_account(&self, input: &Structure) -> Result<Structure, Fault> {
        let asked = input.structure("MinimumThroughputBillingCommitment").and_then(|it| it.text("Status"));
        Ok(commitment(&self.account(Some(asked == Some("ENABLED"))).await?))
    }
}

/// Tags of a request, with the characters that the service allows.
pub(super) fn tags(input: &Structure) -> Result<Vec<v1::Tag>, Fault> {
    let allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
    let tags = input.map("Tags");
    match tags.iter().all(|(key, value)| key.chars().chain(value.chars()).all(allowed)) {
        true => Ok(tags.into_iter().map(|(key, value)| v1::Tag { key, value }).collect()),
        false => Err(Fault::argument(
            "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . : / = + - @.",
        )),
    }
}

fn shown(tags: Vec<v1::Tag>) -> Vec<Structure> {
    tags.into_iter().map(|tag| Structure::new().with("Key", tag.key).with("Value", tag.value)).collect()
}

fn warm(mibps: i64) -> Result<u32, Fault> {
    match u32::try_from(mibps) {
        Ok(it) if mibps <= WARM_MIBPS_MAX => Ok(it),
        _ => Err(Fault::argument(format!("WarmThroughputMiBps {mibps} is more than {WARM_MIBPS_MAX}."))),
    }
}

/// The metrics that are measured, by the service's names.
fn metrics(it: &v1::StreamAttributes) -> Vec<&'static str> {
    METRICS.iter().filter(|(metric, _)| it.shard_metrics().any(|on| on == *metric)).map(|(_, name)| *name).collect()
}

/// What descriptions of a stream show of its attributes.
pub(super) fn describe(to: Structure, it: &v1::StreamAttributes) -> Structure {
    let encryption = if it.encryption_key.is_some() { "KMS" } else { "NONE" };
    to.with("EnhancedMonitoring", vec![Structure::new().with("ShardLevelMetrics", metrics(it))])
        .with("EncryptionType", encryption)
        .with_some("KeyId", it.encryption_key.as_deref())
}

/// Reached at once: there is nothing to warm up.
pub(super) fn warm_throughput(it: &v1::StreamAttributes) -> Option<Value> {
    let mibps = it.warm_mibps?;
    Some(Structure::new().with("TargetMiBps", mibps).with("CurrentMiBps", mibps).into())
}

fn commitment(account: &v1::UpdateAccountResponse) -> Structure {
    let status = if account.committed_ms.is_some() { "ENABLED" } else { "DISABLED" };
    let it = Structure::new()
        .with("Status", status)
        .with_some("StartedAt", account.committed_ms.map(time))
        .with_some("EndedAt", account.ended_ms.map(time))
        .with_some("EarliestAllowedEndAt", account.committed_ms.map(|ms| time(ms + COMMITMENT_MS)));
    Structure::new().with("MinimumThroughputBillingCommitment", it)
}

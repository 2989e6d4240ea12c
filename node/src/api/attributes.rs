//! What a stream carries besides records and shards: tags, a policy, consumers, its mode; and what an account has.
//!
//! Invariant: looked at and changed by the catalog's leader only: whoever registers a consumer through one node finds it
//! through every other.

use std::collections::{BTreeMap, BTreeSet};

use braid_proto::v1;
use braid_stream::catalog::{Attributes, ConsumerStatus, ShardMetric, StreamMode};
use braid_stream::catalog_command::{AttributeChange, CatalogCommand, ChangeAttributes, SetAccount};
use braid_stream::ids::GroupId;
use braid_stream::name::{ConsumerName, StreamName};

use super::error::ApiError;
use super::page::{Page, PageTokenError};
use super::{Call, Service, wire};
use crate::routing::forward::request;

impl Service {
    pub(crate) async fn change_attributes(
        &self,
        message: &v1::ChangeAttributesRequest,
        call: &Call,
    ) -> Result<v1::ChangeAttributesResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let change = change(message)?;
        let here = || async {
            let before = self.attributes_here(&name).await?;
            let stream = self.router.stream(&name)?.stream.id;
            let (at_ms, change) = (self.clock.now_ms(), change.clone());
            let command = ChangeAttributes { at_ms, stream, change };
            self.propose_to_catalog(CatalogCommand::ChangeAttributes(command)).await?;
            let attributes = Some(self.attributes_now(&name)?);
            Ok(v1::ChangeAttributesResponse { attributes, before: Some(before) })
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.change_attributes(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(crate) async fn describe_attributes(
        &self,
        message: &v1::DescribeAttributesRequest,
        call: &Call,
    ) -> Result<v1::DescribeAttributesResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let here =
            || async { Ok(v1::DescribeAttributesResponse { attributes: Some(self.attributes_here(&name).await?) }) };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.describe_attributes(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(crate) async fn update_account(
        &self,
        message: &v1::UpdateAccountRequest,
        call: &Call,
    ) -> Result<v1::UpdateAccountResponse, ApiError> {
        let here = || async {
            self.router.confirm_catalog().await?;
            if let Some(committed) = message.committed {
                let (at_ms, namespace) = (self.clock.now_ms(), message.namespace.clone());
                let command = SetAccount { at_ms, namespace, committed };
                self.propose_to_catalog(CatalogCommand::SetAccount(command)).await?;
            }
            Ok(self.router.catalog()?.state(|c| {
                let theirs = |name: &StreamName| name.namespace().unwrap_or_default() == message.namespace;
                let streams: Vec<_> = c.streams().filter(|it| theirs(&it.name)).collect();
                let open = streams.iter().flat_map(|it| it.shards.values()).filter(|it| it.is_open()).count();
                let on_demand = streams.iter().filter(|it| it.mode == StreamMode::OnDemand).count();
                let account = c.account(&message.namespace);
                v1::UpdateAccountResponse {
                    committed_ms: account.committed_ms,
                    ended_ms: account.ended_ms,
                    open_shards: u32::try_from(open).unwrap_or(u32::MAX),
                    on_demand_streams: u32::try_from(on_demand).unwrap_or(u32::MAX),
                }
            }))
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.update_account(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    /// The policy of a stream, or of a consumer of it (by its name, and the second of its registration if that is known), as
    /// this node has it.
    pub(crate) fn policy(&self, stream: &StreamName, consumer: Option<(&str, Option<u64>)>) -> Option<String> {
        let catalog = self.router.catalog().ok()?;
        catalog.state(|c| {
            let attributes = c.attributes(c.stream(stream)?.id);
            let Some((name, second)) = consumer else { return attributes.policy };
            let named = attributes.consumers.into_iter().find(|(known, _)| known.as_str() == name);
            let consumer = named.map(|it| it.1).filter(|it| second.is_none_or(|second| second == it.created_ms / 1000));
            consumer?.policy
        })
    }

    /// A token for a stream's registered consumers after the one of the name `after`.
    pub(crate) fn consumer_token(&self, stream: &str, after: &str) -> Result<String, ApiError> {
        let page = Page::Consumers { stream: stream.to_string(), after: after.to_string() };
        Ok(page.encode(&self.token_key()?, self.clock.now_ms()))
    }

    /// The name after which the page of a token begins.
    pub(crate) fn consumer_page(&self, stream: &str, token: &str) -> Result<String, ApiError> {
        match self.page(token)? {
            Page::Consumers { stream: named, after } if named == stream => Ok(after),
            _ => Err(ApiError::PageToken(PageTokenError::Invalid)),
        }
    }

    /// On the catalog's leader.
    async fn attributes_here(&self, name: &StreamName) -> Result<v1::StreamAttributes, ApiError> {
        self.router.confirm_catalog().await?;
        self.attributes_now(name)
    }

    fn attributes_now(&self, name: &StreamName) -> Result<v1::StreamAttributes, ApiError> {
        let stream = &self.router.stream(name)?.stream;
        let attributes = self.router.catalog()?.state(|c| c.attributes(stream.id));
        Ok(to_wire(attributes, stream.mode))
    }
}

/// The change that a request asks for.
fn change(message: &v1::ChangeAttributesRequest) -> Result<AttributeChange, ApiError> {
    use v1::change_attributes_request::Change;
    let consumer = match message.consumer_name.as_str() {
        "" => None,
        text => Some(consumer_name("consumer_name", text)?),
    };
    let Some(asked) = &message.change else {
        return Err(ApiError::invalid("change", "is missing: nothing to change"));
    };
    Ok(match asked {
        Change::Tags(it) => {
            AttributeChange::Tags { consumer, set: tags(&it.set), remove: it.remove.iter().cloned().collect() }
        }
        Change::Policy(it) => AttributeChange::Policy { consumer, policy: it.policy.clone() },
        Change::Encryption(it) => AttributeChange::Encryption { key: it.key.clone() },
        Change::ShardMetrics(it) => {
            AttributeChange::ShardMetrics { enable: metrics(it.enable())?, disable: metrics(it.disable())? }
        }
        Change::Mode(mode) => {
            let asked = v1::StreamMode::try_from(*mode).unwrap_or_default();
            AttributeChange::Mode {
                mode: mode_from_wire(asked).ok_or_else(|| ApiError::invalid("mode", "is unknown"))?,
            }
        }
        Change::WarmMibps(mibps) => AttributeChange::WarmThroughput { mibps: *mibps },
        Change::Register(it) => {
            AttributeChange::Register { name: consumer_name("register.name", &it.name)?, tags: tags(&it.tags) }
        }
        Change::Deregister(name) => AttributeChange::Deregister { name: consumer_name("deregister", name)? },
    })
}

fn consumer_name(field: &str, text: &str) -> Result<ConsumerName, ApiError> {
    let why = || ApiError::invalid(field, format!("{text:?} is not allowed: 1 to 128 of [a-zA-Z0-9_.-]"));
    ConsumerName::parse(text).map_err(|_| why())
}

/// Tags by key; of a key that is given twice the last value counts.
pub(super) fn tags(list: &[v1::Tag]) -> BTreeMap<String, String> {
    list.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
}

/// The mode; `None` if none is given.
pub(super) fn mode_from_wire(mode: v1::StreamMode) -> Option<StreamMode> {
    match mode {
        v1::StreamMode::Unspecified => None,
        v1::StreamMode::Provisioned => Some(StreamMode::Provisioned),
        v1::StreamMode::OnDemand => Some(StreamMode::OnDemand),
    }
}

/// The mode as the API has it.
pub(super) fn mode_to_wire(mode: StreamMode) -> v1::StreamMode {
    match mode {
        StreamMode::Provisioned => v1::StreamMode::Provisioned,
        StreamMode::OnDemand => v1::StreamMode::OnDemand,
    }
}

const METRICS: [(v1::ShardMetric, ShardMetric); 7] = [
    (v1::ShardMetric::IncomingBytes, ShardMetric::IncomingBytes),
    (v1::ShardMetric::IncomingRecords, ShardMetric::IncomingRecords),
    (v1::ShardMetric::OutgoingBytes, ShardMetric::OutgoingBytes),
    (v1::ShardMetric::OutgoingRecords, ShardMetric::OutgoingRecords),
    (v1::ShardMetric::WriteThroughputExceeded, ShardMetric::WriteThroughputExceeded),
    (v1::ShardMetric::ReadThroughputExceeded, ShardMetric::ReadThroughputExceeded),
    (v1::ShardMetric::IteratorAge, ShardMetric::IteratorAge),
];

fn metrics(list: impl Iterator<Item = v1::ShardMetric>) -> Result<BTreeSet<ShardMetric>, ApiError> {
    let one = |wire| {
        let known = METRICS.iter().find(|(it, _)| *it == wire).map(|(_, metric)| *metric);
        known.ok_or_else(|| ApiError::invalid("shard_metrics", "one of them is unknown"))
    };
    list.map(one).collect()
}

fn to_wire(it: Attributes, mode: StreamMode) -> v1::StreamAttributes {
    let tags = |tags: BTreeMap<String, String>| tags.into_iter().map(|(key, value)| v1::Tag { key, value }).collect();
    let named = METRICS.iter().filter(|(_, metric)| it.shard_metrics.contains(metric));
    v1::StreamAttributes {
        tags: tags(it.tags),
        policy: it.policy,
        encryption_key: it.encryption_key,
        shard_metrics: named.map(|(wire, _)| *wire as i32).collect(),
        warm_mibps: it.warm_mibps,
        mode: mode_to_wire(mode) as i32,
        consumers: it
            .consumers
            .into_iter()
            .map(|(name, consumer)| v1::Consumer {
                name: name.into(),
                created_ms: consumer.created_ms,
                status: match consumer.status {
                    ConsumerStatus::Creating => v1::StreamStatus::Creating,
                    ConsumerStatus::Active => v1::StreamStatus::Active,
                    ConsumerStatus::Deleting => v1::StreamStatus::Deleting,
                } as i32,
                tags: tags(consumer.tags),
                policy: consumer.policy,
            })
            .collect(),
    }
}

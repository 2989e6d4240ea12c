//! Streams and shards: creating, deleting, describing, listing.
//!
//! Invariant: changes are proposed by the catalog's leader; looking is answered by any node from
//! its own copy, which is behind by a heartbeat at most, except that "there is no such stream" is
//! never said before the leader was asked.

use std::collections::BTreeSet;

use braid_proto::v1;
use braid_stream::catalog::{StreamMode, StreamShard};
use braid_stream::catalog_command::{
    AttributeChange, CatalogCommand, ChangeAttributes, CreateStream, DeleteStream, SetSettings,
};
use braid_stream::ids::{GroupId, ShardId};
use braid_stream::limits::LimitOverrides;
use braid_stream::name::StreamName;
use braid_stream::shard::ShardState;

use super::error::ApiError;
use super::page::{Page, PageTokenError};
use super::{Call, Service, attributes, wire};
use crate::routing::forward::request;
use crate::routing::{RouteError, StreamRoutes};

/// Names in a page unless the call says otherwise, and at most.
const STREAMS_DEFAULT: usize = 100;
const STREAMS_MAX: usize = 1_000;
/// Shards in a page unless the call says otherwise, and at most.
const SHARDS_MAX: usize = 1_000;

impl Service {
    pub(crate) async fn create(
        &self,
        message: &v1::CreateStreamRequest,
        call: &Call,
    ) -> Result<v1::CreateStreamResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let retention_ms = match message.retention_ms {
            0 => self.default_retention_ms,
            ms => ms,
        };
        let mode = attributes::mode_from_wire(message.mode()).unwrap_or(StreamMode::Provisioned);
        let tags = attributes::tags(&message.tags);
        let record_bytes_max = Some(u64::from(message.max_record_bytes)).filter(|bytes| *bytes > 0);
        let limits = LimitOverrides { record_bytes_max, ..LimitOverrides::default() };
        let here = || async {
            let command = CatalogCommand::CreateStream(CreateStream {
                at_ms: self.clock.now_ms(),
                name: name.clone(),
                shards: message.shard_count,
                retention_ms,
                mode,
                limits,
            });
            self.propose_to_catalog(command).await?;
            if !tags.is_empty() {
                let stream = self.router.stream(&name)?.stream.id;
                let change = AttributeChange::Tags { consumer: None, set: tags.clone(), remove: BTreeSet::new() };
                let command = ChangeAttributes { at_ms: self.clock.now_ms(), stream, change };
                self.propose_to_catalog(CatalogCommand::ChangeAttributes(command)).await?;
            }
            Ok(v1::CreateStreamResponse {})
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.create_stream(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(crate) async fn delete(
        &self,
        message: &v1::DeleteStreamRequest,
        call: &Call,
    ) -> Result<v1::DeleteStreamResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let here = || async {
            self.propose_to_catalog(CatalogCommand::DeleteStream(DeleteStream { name: name.clone() })).await?;
            Ok(v1::DeleteStreamResponse {})
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.delete_stream(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(crate) async fn update(
        &self,
        message: &v1::UpdateStreamRequest,
        call: &Call,
    ) -> Result<v1::UpdateStreamResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let retention_ms = Some(message.retention_ms).filter(|ms| *ms > 0);
        let limits = message.limits.as_ref().map(wire::limit_overrides);
        if retention_ms.is_none() && limits.is_none() {
            return Err(ApiError::invalid("retention_ms", "is 0 and limits are absent: nothing to change"));
        }
        let here = || async {
            self.router.confirm_catalog().await?;
            let stream = self.router.stream(&name)?.stream.id;
            let command = CatalogCommand::SetSettings(SetSettings { stream, retention_ms, limits });
            self.propose_to_catalog(command).await?;
            Ok(v1::UpdateStreamResponse {})
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.update_stream(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(super) async fn propose_to_catalog(&self, command: CatalogCommand) -> Result<(), ApiError> {
        let catalog = self.router.catalog()?;
        match catalog.propose(command).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refused)) => Err(ApiError::Catalog(refused)),
            Err(error) => {
                Err(ApiError::of_proposal(GroupId::CATALOG, error, self.router.leader_address(GroupId::CATALOG)))
            }
        }
    }

    pub(crate) async fn describe(
        &self,
        message: &v1::DescribeStreamRequest,
        call: &Call,
    ) -> Result<v1::DescribeStreamResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let look = || -> Result<v1::DescribeStreamResponse, RouteError> {
            let routes = self.router.stream(&name)?;
            Ok(v1::DescribeStreamResponse { stream: Some(wire::stream(&routes)) })
        };
        match look() {
            // Only the catalog's leader knows that.
            Err(RouteError::NoStream(_)) => {}
            found => return Ok(found?),
        }
        self.describe_at_leader(message, call).await
    }

    /// As [`Service::describe`], by the catalog's leader: whoever changed the stream through any node sees it change.
    pub(crate) async fn describe_at_leader(
        &self,
        message: &v1::DescribeStreamRequest,
        call: &Call,
    ) -> Result<v1::DescribeStreamResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let here = || async {
            self.router.confirm_catalog().await?;
            Ok(v1::DescribeStreamResponse { stream: Some(wire::stream(&*self.router.stream(&name)?)) })
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.describe_stream(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    /// As [`Service::list`], by the catalog's leader.
    pub(crate) async fn list_at_leader(
        &self,
        message: &v1::ListStreamsRequest,
        call: &Call,
    ) -> Result<v1::ListStreamsResponse, ApiError> {
        let here = || async {
            self.router.confirm_catalog().await?;
            self.list(message)
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.list_streams(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(crate) fn list(&self, message: &v1::ListStreamsRequest) -> Result<v1::ListStreamsResponse, ApiError> {
        let limit = page_size("limit", message.limit, STREAMS_DEFAULT, STREAMS_MAX)?;
        let namespace = message.namespace.as_deref();
        let after = match (message.exclusive_start_stream_name.as_str(), message.next_token.as_str()) {
            (name, "") => match namespace {
                Some(namespace) if !namespace.is_empty() => format!("{namespace}/{name}"),
                _ => name.to_string(),
            },
            ("", token) => match self.page(token)? {
                Page::Streams { after } => after,
                Page::Shards { .. } | Page::Consumers { .. } => {
                    return Err(ApiError::PageToken(PageTokenError::Invalid));
                }
            },
            _ => {
                return Err(ApiError::invalid(
                    "next_token",
                    "is not allowed together with exclusive_start_stream_name",
                ));
            }
        };
        // One more than the page holds says whether there is another page.
        let mut names: Vec<_> = self.router.catalog()?.state(|c| {
            let here = |name: &&StreamName| namespace.is_none_or(|it| name.namespace().unwrap_or_default() == it);
            let later = c.names().keys().filter(|name| name.as_str() > after.as_str()).filter(here);
            later.take(limit + 1).cloned().collect()
        });
        let more = names.len() > limit;
        names.truncate(limit);
        let next_token = match names.last() {
            Some(last) if more => {
                Page::Streams { after: last.as_str().to_string() }.encode(&self.token_key()?, self.clock.now_ms())
            }
            _ => String::new(),
        };
        // A stream deleted between the two looks is left out.
        let known = names.iter().filter_map(|name| self.router.stream(name).ok());
        Ok(v1::ListStreamsResponse { streams: known.map(|routes| wire::stream(&routes)).collect(), next_token })
    }

    pub(crate) async fn shards(
        &self,
        message: &v1::ListShardsRequest,
        call: &Call,
    ) -> Result<v1::ListShardsResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let look = || -> Result<v1::ListShardsResponse, ApiError> {
            let routes = self.router.stream(&name)?;
            self.shards_here(message, &routes)
        };
        match look() {
            // Only the catalog's leader knows that.
            Err(ApiError::Route(RouteError::NoStream(_))) => {}
            found => return found,
        }
        self.shards_at_leader(message, call).await
    }

    /// As [`Service::shards`], by the catalog's leader.
    pub(crate) async fn shards_at_leader(
        &self,
        message: &v1::ListShardsRequest,
        call: &Call,
    ) -> Result<v1::ListShardsResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let here = || async {
            self.router.confirm_catalog().await?;
            self.shards_here(message, &*self.router.stream(&name)?)
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.list_shards(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    fn shards_here(
        &self,
        message: &v1::ListShardsRequest,
        routes: &StreamRoutes,
    ) -> Result<v1::ListShardsResponse, ApiError> {
        let limit = page_size("max_results", message.max_results, SHARDS_MAX, SHARDS_MAX)?;
        let (filter, after) = match message.next_token.as_str() {
            "" => (Filter::from_wire(routes, message.shard_filter.as_ref())?, None),
            token => match self.page(token)? {
                Page::Shards { stream, after, filter, filter_shard, filter_ms } if stream == routes.stream.id.0 => {
                    (Filter { kind: filter, shard: filter_shard, ms: filter_ms }, Some(after))
                }
                _ => return Err(ApiError::PageToken(PageTokenError::Invalid)),
            },
        };
        let now_ms = self.clock.now_ms();
        let later = routes.stream.shards.iter().filter(|(index, _)| after.is_none_or(|after| **index > after));
        let mut wanted: Vec<_> =
            later.filter(|(index, shard)| filter.admits(routes, **index, shard, now_ms)).take(limit + 1).collect();
        let more = wanted.len() > limit;
        wanted.truncate(limit);
        let next_token = match wanted.last() {
            Some((last, _)) if more => {
                let Filter { kind, shard, ms } = filter;
                let stream = routes.stream.id.0;
                Page::Shards { stream, after: **last, filter: kind, filter_shard: shard, filter_ms: ms }
                    .encode(&self.token_key()?, now_ms)
            }
            _ => String::new(),
        };
        let shards = wanted.into_iter().map(|(index, shard)| {
            let leader = self.router.leader(shard.group);
            let address = leader.and_then(|node| self.router.client_address(node));
            wire::shard(routes, *index, shard, leader.map(|node| node.0), address)
        });
        Ok(v1::ListShardsResponse { shards: shards.collect(), next_token })
    }

    pub(super) fn page(&self, token: &str) -> Result<Page, ApiError> {
        Page::decode(token, &self.token_key()?, self.clock.now_ms()).map_err(ApiError::PageToken)
    }
}

fn page_size(field: &'static str, asked: u32, default: usize, max: usize) -> Result<usize, ApiError> {
    match asked as usize {
        0 => Ok(default),
        size if size <= max => Ok(size),
        size => Err(ApiError::invalid(field, format!("{size}: 1 to {max} are allowed, or 0 for {default}"))),
    }
}

/// Which shards to list.
#[derive(Clone, Copy)]
struct Filter {
    /// As on the wire.
    kind: i32,
    shard: u32,
    ms: u64,
}

impl Filter {
    fn from_wire(routes: &StreamRoutes, filter: Option<&v1::ShardFilter>) -> Result<Filter, ApiError> {
        let Some(filter) = filter else { return Ok(Filter { kind: 0, shard: 0, ms: 0 }) };
        let shard = match filter.r#type() {
            v1::shard_filter::Type::AfterShardId => {
                ShardId::parse(routes.stream.id, &filter.shard_id)
                    .map_err(|e| ApiError::invalid("shard_filter.shard_id", e))?
                    .index
            }
            _ => 0,
        };
        Ok(Filter { kind: filter.r#type, shard, ms: filter.timestamp_ms })
    }

    fn admits(&self, routes: &StreamRoutes, index: u32, shard: &StreamShard, now_ms: u64) -> bool {
        use v1::shard_filter::Type;
        let horizon = now_ms.saturating_sub(routes.stream.retention_ms).max(routes.stream.created_ms);
        let open_until = match &shard.state {
            ShardState::Open => u64::MAX,
            ShardState::Closed { at_ms, .. } => *at_ms,
        };
        // A stream's first shards are there from its beginning. A child is from the moment its parents were closed, or at
        // that moment a key would have two shards; where a parent is forgotten, from its creation second.
        let closed_ms = |parent: u32| match routes.stream.shards.get(&parent)?.state {
            ShardState::Closed { at_ms, .. } => Some(at_ms),
            ShardState::Open => None,
        };
        let open_from = match shard.parents {
            [None, None] => 0,
            parents => parents.into_iter().flatten().filter_map(closed_ms).max().unwrap_or(shard.created_s * 1000),
        };
        let open_at = |ms: u64| open_from <= ms && ms < open_until;
        match Type::try_from(self.kind).unwrap_or(Type::Unspecified) {
            Type::Unspecified | Type::FromTrimHorizon => open_until > horizon,
            Type::AfterShardId => index > self.shard,
            Type::AtTrimHorizon => open_at(horizon),
            Type::AtLatest => open_until == u64::MAX,
            Type::AtTimestamp => open_at(self.ms.max(horizon)),
            Type::FromTimestamp => open_until > self.ms.max(horizon),
        }
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;

//! Streams and shards: creating, deleting, describing, listing.
//!
//! Invariant: changes are proposed by the catalog's leader; looking is answered by any node from
//! its own copy, which is behind by a heartbeat at most, except that "there is no such stream" is
//! never said before the leader was asked.

use std::collections::BTreeSet;

use braid_proto::v1;
use braid_stream::catalog::StreamMode;
use braid_stream::catalog_command::{
    AttributeChange, CatalogCommand, ChangeAttributes, CreateStream, DeleteStream, SetAutoscale, SetSettings,
};
use braid_stream::ids::GroupId;
use braid_stream::listing::ShardFilter;
use braid_stream::name::StreamName;

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
        let limits = message.limits.as_ref().map(wire::limit_overrides).unwrap_or_default();
        let mode = attributes::mode_from_wire(message.mode()).unwrap_or(StreamMode::Provisioned);
        let tags = attributes::tags(&message.tags);
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
        let autoscale = message.autoscale.as_ref().map(wire::autoscale);
        let settings = retention_ms.is_some() || limits.is_some();
        if !settings && autoscale.is_none() {
            let why = "is 0, and limits and autoscale are absent: nothing to change";
            return Err(ApiError::invalid("retention_ms", why));
        }
        let here = || async {
            self.router.confirm_catalog().await?;
            let stream = self.router.stream(&name)?.stream.id;
            if let Some(bounds) = autoscale {
                self.propose_to_catalog(CatalogCommand::SetAutoscale(SetAutoscale { stream, bounds })).await?;
            }
            if settings {
                let command = CatalogCommand::SetSettings(SetSettings { stream, retention_ms, limits });
                self.propose_to_catalog(command).await?;
            }
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
            Ok(v1::DescribeStreamResponse { stream: Some(wire::stream(&routes, self.clock.now_ms())) })
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
            Ok(v1::DescribeStreamResponse {
                stream: Some(wire::stream(&*self.router.stream(&name)?, self.clock.now_ms())),
            })
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
        let now_ms = self.clock.now_ms();
        Ok(v1::ListStreamsResponse { streams: known.map(|it| wire::stream(&it, now_ms)).collect(), next_token })
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
        let stream = routes.stream.id;
        let (filter, after) = match message.next_token.as_str() {
            "" => (message.shard_filter.clone().unwrap_or_default(), None),
            token => match self.page(token)? {
                Page::Shards { stream: of, after, filter, filter_shard, filter_ms } if of == stream.0 => {
                    let shard_id = routes.stream.shard_id(filter_shard).name();
                    (v1::ShardFilter { r#type: filter, shard_id, timestamp_ms: filter_ms }, Some(after))
                }
                _ => return Err(ApiError::PageToken(PageTokenError::Invalid)),
            },
        };
        let wanted = wire::shard_filter(stream, &filter)?;
        let now_ms = self.clock.now_ms();
        let later = routes.stream.listed(wanted, now_ms).filter(|(index, _)| after.is_none_or(|after| *index > after));
        // One more than the page holds says whether there is another page.
        let mut listed: Vec<_> = later.take(limit + 1).collect();
        let more = listed.len() > limit;
        listed.truncate(limit);
        let next_token = match listed.last() {
            Some(&(after, _)) if more => {
                let filter_shard = match wanted {
                    ShardFilter::After(shard) => shard,
                    _ => 0,
                };
                let (filter, filter_ms) = (filter.r#type, filter.timestamp_ms);
                Page::Shards { stream: stream.0, after, filter, filter_shard, filter_ms }
                    .encode(&self.token_key()?, now_ms)
            }
            _ => String::new(),
        };
        let shards = listed.into_iter().map(|(index, shard)| {
            let leader = self.router.leader(shard.group);
            let address = leader.and_then(|node| self.router.client_address(node));
            wire::shard(routes, index, shard, leader.map(|node| node.0), address)
        });
        Ok(v1::ListShardsResponse { shards: shards.collect(), next_token })
    }

    pub(super) fn page(&self, token: &str) -> Result<Page, ApiError> {
        Page::decode(token, &self.token_key()?, self.clock.now_ms()).map_err(ApiError::PageToken)
    }
}

pub(super) fn page_size(field: &'static str, asked: u32, default: usize, max: usize) -> Result<usize, ApiError> {
    match asked as usize {
        0 => Ok(default),
        size if size <= max => Ok(size),
        size => Err(ApiError::invalid(field, format!("{size}: 1 to {max} are allowed, or 0 for {default}"))),
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;

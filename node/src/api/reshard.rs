//! Splitting and merging shards, and scaling streams: the catalog decides, its leader carries it out
//! (`control/streams.rs`).
//!
//! Invariant: what is asked for is checked by the catalog itself, against the stream as it is when it decides.

use braid_proto::v1;
use braid_stream::catalog_command::{BeginReshard, CatalogCommand, Reshape, SetShardCount};
use braid_stream::hash::HashKey;
use braid_stream::ids::GroupId;
use braid_stream::name::StreamName;

use super::error::ApiError;
use super::{Call, Service, wire};
use crate::routing::StreamRoutes;
use crate::routing::forward::request;

impl Service {
    pub(crate) async fn split(
        &self,
        message: &v1::SplitShardRequest,
        call: &Call,
    ) -> Result<v1::SplitShardResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let at = match message.new_starting_hash_key.as_str() {
            "" => None,
            text => Some(HashKey::parse(text).map_err(|e| ApiError::invalid("new_starting_hash_key", e))?),
        };
        let here = || async {
            let shape = |routes: &StreamRoutes| {
                let shard = wire::shard_id(routes, "shard_to_split", &message.shard_to_split)?;
                let range = routes.shard(shard).expect("it was looked up there").range;
                Ok(Reshape::Split { shard: shard.index, at: at.unwrap_or(range.middle()) })
            };
            self.reshard(&name, shape).await?;
            Ok(v1::SplitShardResponse {})
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.split_shard(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(crate) async fn merge(
        &self,
        message: &v1::MergeShardsRequest,
        call: &Call,
    ) -> Result<v1::MergeShardsResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let here = || async {
            let shape = |routes: &StreamRoutes| {
                let shard = wire::shard_id(routes, "shard_to_merge", &message.shard_to_merge)?.index;
                let adjacent = wire::shard_id(routes, "adjacent_shard_to_merge", &message.adjacent_shard_to_merge)?;
                Ok(Reshape::Merge { shard, adjacent: adjacent.index })
            };
            self.reshard(&name, shape).await?;
            Ok(v1::MergeShardsResponse {})
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.merge_shards(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(crate) async fn shard_count(
        &self,
        message: &v1::UpdateShardCountRequest,
        call: &Call,
    ) -> Result<v1::UpdateShardCountResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let shares = match v1::ScalingType::try_from(message.scaling_type) {
            Ok(scaling) => wire::shares(scaling),
            Err(_) => {
                return Err(ApiError::invalid("scaling_type", "is unknown: EQUAL_SHARES and HALVES are allowed"));
            }
        };
        let here = || async {
            self.router.confirm_catalog().await?;
            let routes = self.router.stream(&name)?;
            let command = SetShardCount {
                at_ms: self.clock.now_ms(),
                stream: routes.stream.id,
                shards: message.target_shard_count,
                shares,
                within_factor: !message.unbounded,
                counted: !message.unbounded && self.shard_count_limit,
            };
            self.propose_to_catalog(CatalogCommand::SetShardCount(command)).await?;
            Ok(v1::UpdateShardCountResponse {
                current_shard_count: u32::try_from(routes.map.routes().len()).expect("at most 10,000"),
                target_shard_count: message.target_shard_count,
            })
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.update_shard_count(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    /// On the catalog's leader.
    async fn reshard(
        &self,
        name: &StreamName,
        shape: impl FnOnce(&StreamRoutes) -> Result<Reshape, ApiError>,
    ) -> Result<(), ApiError> {
        self.router.confirm_catalog().await?;
        let routes = self.router.stream(name)?;
        let (stream, shapes) = (routes.stream.id, vec![shape(&routes)?]);
        let at_ms = self.clock.now_ms();
        self.propose_to_catalog(CatalogCommand::BeginReshard(BeginReshard { at_ms, stream, shapes })).await
    }
}

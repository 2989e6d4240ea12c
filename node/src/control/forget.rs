//! Closed shards whose records are past retention: the catalog forgets them, then the groups that had them.
//!
//! Invariant: a group forgets what the catalog has forgotten, never the other way round; so whoever finds a shard in the
//! catalog finds it in its group.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use braid_env::time;
use braid_stream::catalog_command::{CatalogCommand, ForgetShards, ShardsForgotten};
use braid_stream::command::{self, GroupCommand};
use braid_stream::ids::{GroupId, ShardId, StreamId};
use futures_util::future::join_all;

use super::remote::propose_to_group;
use crate::clock::NodeClock;
use crate::peer::Links;
use crate::replication::{CatalogHandle, Groups};

/// Shards of one stream that are forgotten in one round: a command of a few kilobytes.
const AT_ONCE: usize = 1_000;

/// Forgets shards while this node leads the catalog.
pub struct Forgetting {
    /// This node's replica.
    pub catalog: CatalogHandle,
    /// Its others.
    pub groups: Arc<Groups>,
    /// The other nodes.
    pub links: Arc<Links>,
    /// What time it is.
    pub clock: NodeClock,
    /// How long after its last record's retention a shard is forgotten: who still holds an iterator of it may read on.
    pub grace: Duration,
    /// How often it looks, at the cost of a pass over all shards.
    pub every: Duration,
}

impl Forgetting {
    /// Runs until dropped.
    pub async fn run(&self) -> Infallible {
        loop {
            time::sleep(self.every).await;
            if self.catalog.is_leader() {
                self.forget().await;
                self.tell_groups().await;
            }
        }
    }

    /// What fails is tried again in the next round.
    async fn forget(&self) {
        let at_ms = self.clock.now_ms();
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        for (stream, shards) in self.catalog.state(|c| c.forgettable(at_ms, grace_ms, AT_ONCE)) {
            tracing::info!(stream = stream.0, "{} closed shards are past retention: forgotten", shards.len());
            let command = CatalogCommand::ForgetShards(ForgetShards { at_ms, stream, shards });
            if let Err(e) = self.catalog.propose(command).await {
                tracing::info!(stream = stream.0, "shards not forgotten: {e}");
                return;
            }
        }
    }

    async fn tell_groups(&self) {
        let mut parts: BTreeMap<(StreamId, GroupId), Vec<u32>> = BTreeMap::new();
        self.catalog.state(|c| {
            for (stream, shards) in c.forgetting() {
                for (index, group) in shards {
                    parts.entry((*stream, *group)).or_default().push(*index);
                }
            }
        });
        let told = join_all(parts.into_iter().map(|((stream, group), shards)| self.tell(stream, group, shards))).await;
        for refused in told.into_iter().filter_map(Result::err) {
            tracing::info!("closed shards are not forgotten by their group yet: {refused}");
        }
    }

    async fn tell(&self, stream: StreamId, group: GroupId, shards: Vec<u32>) -> Result<(), String> {
        let nodes = self.catalog.state(|c| c.may_lead(group));
        let named = shards.iter().map(|&index| ShardId { stream, index }).collect();
        let command = command::ForgetShards { at_ms: self.clock.now_ms(), shards: named };
        let command = GroupCommand::ForgetShards(command);
        propose_to_group(&self.groups, &self.links, group, &nodes, command).await.map_err(|e| e.to_string())?;
        let done = CatalogCommand::ShardsForgotten(ShardsForgotten { stream, shards });
        match self.catalog.propose(done).await {
            // Refused: the stream was deleted meanwhile.
            Ok(_) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }
}

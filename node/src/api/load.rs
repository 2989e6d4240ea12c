//! Shards' loads: each leader says what is asked of its shards; the node that the client asked puts it together.
//!
//! Invariant: a shard is in the answer once, or among the missing; nobody waits longer for a leader that does not answer
//! than [`PATIENCE`].

use std::collections::BTreeMap;
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_proto::v1;
use braid_stream::ids::{GroupId, ShardId};
use braid_stream::load::{Advice, HotKey, ShardLoad};
use futures_util::future::join_all;

use super::error::ApiError;
use super::streams::page_size;
use super::{Call, Service, wire};
use crate::routing::forward::request;
use crate::routing::{StreamRoutes, Target};

/// Shards in an answer unless the call says otherwise, and at most.
const SHARDS_DEFAULT: usize = 100;
const SHARDS_MAX: usize = 1_000;

/// Hot keys of each shard in an answer.
const KEYS_MAX: usize = 10;

/// An operator looks at what is there now; a leader that is slower is missing.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer, or a part of it.
#[derive(Default)]
struct Part {
    loads: Vec<v1::ShardLoad>,
    missing: Vec<ShardId>,
    /// Of all shards that were asked about.
    total: f64,
}

impl Service {
    pub(super) async fn shard_loads(
        &self,
        message: &v1::DescribeShardLoadsRequest,
        call: &Call,
    ) -> Result<v1::DescribeShardLoadsResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let most = page_size("max_results", message.max_results, SHARDS_DEFAULT, SHARDS_MAX)?;
        let (routes, only) = match message.shard_id.as_str() {
            "" => (self.router.serving_stream(&name).await?, None),
            text => {
                let subject = self.subject_named(&name, text).await?;
                (subject.routes, Some(subject.shard))
            }
        };
        let Part { mut loads, mut missing, total } = self.gather(message, call, &routes, only).await;
        loads.sort_by(|a, b| b.write_percent.total_cmp(&a.write_percent).then_with(|| a.shard_id.cmp(&b.shard_id)));
        loads.truncate(most);
        missing.sort_unstable();
        missing.truncate(most);
        Ok(v1::DescribeShardLoadsResponse {
            shards: loads,
            missing_shard_ids: missing.iter().map(ShardId::name).collect(),
            write_percent_total: total,
        })
    }

    /// Each leader's part. A forwarded call is answered with what this node leads, and nothing else.
    async fn gather(
        &self,
        message: &v1::DescribeShardLoadsRequest,
        call: &Call,
        routes: &StreamRoutes,
        only: Option<ShardId>,
    ) -> Part {
        let mut by_group: BTreeMap<GroupId, Vec<ShardId>> = BTreeMap::new();
        for route in routes.map.routes().iter().filter(|route| only.is_none_or(|only| only == route.shard)) {
            by_group.entry(route.group).or_default().push(route.shard);
        }
        // One that is closed is asked of nothing any more; whoever names it is told so by what its leader remembers.
        if let Some(only) = only.filter(|_| by_group.is_empty()) {
            let group = routes.shard(only).expect("it was looked up there").group;
            by_group.insert(group, vec![only]);
        }
        let mut part = Part::default();
        let mut elsewhere: BTreeMap<String, Vec<ShardId>> = BTreeMap::new();
        for (group, shards) in by_group {
            match self.router.target_now(group, call.forwarded) {
                Ok(Target::Here) => part.loads.extend(shards.iter().map(|shard| self.load_here(routes, group, *shard))),
                Ok(Target::There(address)) => elsewhere.entry(address).or_default().extend(shards),
                Err(_) => part.missing.extend(shards),
            }
        }
        part.total = part.loads.iter().map(|it| it.write_percent).sum();
        let deadline = call.deadline.min(Instant::now() + PATIENCE);
        let asked = elsewhere.into_iter().map(|(address, shards)| async move {
            // As many as an answer may have: the busiest of all are among them.
            let message = v1::DescribeShardLoadsRequest { max_results: SHARDS_MAX as u32, ..message.clone() };
            let there = self.router.channels.call(&address, |mut client| async move {
                client.describe_shard_loads(request(message, Some(deadline))).await
            });
            let answer = time::timeout_at(deadline, there).await;
            (shards, answer.ok().and_then(Result::ok))
        });
        for (shards, answer) in join_all(asked).await {
            match answer {
                Some(answer) => {
                    part.total += answer.write_percent_total;
                    let name = |text: &String| ShardId::parse(routes.stream.id, text).ok();
                    part.missing
                        .extend(answer.missing_shard_ids.iter().filter_map(name).filter(|it| shards.contains(it)));
                    let asked = |it: &v1::ShardLoad| name(&it.shard_id).is_some_and(|shard| shards.contains(&shard));
                    part.loads.extend(answer.shards.into_iter().filter(asked));
                }
                None => part.missing.extend(shards),
            }
        }
        part
    }

    fn load_here(&self, routes: &StreamRoutes, group: GroupId, shard: ShardId) -> v1::ShardLoad {
        let range = routes.shard(shard).expect("it is one of the stream's").range;
        let leader_node = self.router.me().map_or(0, |node| node.0);
        let known = v1::ShardLoad {
            shard_id: shard.name(),
            hash_key_range: Some(wire::hash_range(range)),
            leader_node,
            ..v1::ShardLoad::default()
        };
        self.throttle.look_at(group, shard, |load, now| on_wire(known.clone(), load, now)).unwrap_or(known)
    }
}

fn on_wire(known: v1::ShardLoad, load: &mut ShardLoad, now: Duration) -> v1::ShardLoad {
    let rates = load.rates(now);
    let split = load.best_split(now);
    let (advice, split_at, larger) = match load.advice(now) {
        Advice::Split { at, larger_percent } => (v1::SplitAdvice::Split, Some(at), larger_percent),
        Advice::OneKey { percent, .. } => (v1::SplitAdvice::OneKey, None, percent),
        // Who wants to split all the same is told where.
        Advice::NotNeeded { .. } => {
            (v1::SplitAdvice::NotNeeded, split.map(|(at, _)| at), split.map_or(100.0, |(_, larger)| larger))
        }
        Advice::Unknown => (v1::SplitAdvice::Unspecified, None, 0.0),
    };
    v1::ShardLoad {
        window_ms: u32::try_from(rates.window.as_millis()).unwrap_or(u32::MAX),
        incoming_records_per_s: rates.records_in,
        incoming_bytes_per_s: rates.bytes_in,
        throttled_records_per_s: rates.refused,
        outgoing_records_per_s: rates.records_out,
        outgoing_bytes_per_s: rates.bytes_out,
        throttled_reads_per_s: rates.reads_refused,
        iterator_age_ms: rates.age_ms,
        write_percent: rates.write_percent,
        hot_keys: load.hottest(now, KEYS_MAX).into_iter().map(hot_key).collect(),
        advice: advice as i32,
        split_at: split_at.map(|at| at.to_string()).unwrap_or_default(),
        larger_half_percent: larger,
        ..known
    }
}

fn hot_key(it: HotKey) -> v1::HotKey {
    v1::HotKey {
        partition_key: it.text,
        hash_key: it.hash.to_string(),
        share_percent: it.percent,
        error_percent: it.error_percent,
    }
}

//! Writing: records → shards → groups → their leaders → one verdict per record.
//!
//! ```text
//!  records ─▶ by group ─┬─▶ group led here: throttle ─▶ GroupHandle::append
//!      ▲                └─▶ group led there: PutRecords to that node, once
//!      └── refused by a shard that was just closed: wait for its children
//! ```
//!
//! Invariant: a record is sent again only after a certain "not appended". Records of one shard keep
//! the order of the call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use braid_env::task;
use braid_env::time::{self, Instant};
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_proto::v1;
use braid_stream::hash::{HashKey, HashRange};
use braid_stream::ids::{GroupId, ShardId};
use braid_stream::name::StreamName;
use braid_stream::record::Record;
use braid_stream::sequence::SequenceNumber;
use braid_stream::shard_map::Route;
use futures_util::future::join_all;

use super::error::{ApiError, Explained, detail_of};
use super::wire::{self, Verdict};
use super::{Call, Service};
use crate::metrics::shards::ShardSeries;
use crate::replication::{AppendOutcome, GroupHandle, ProposeError};
use crate::routing::forward::{CallError, request};
use crate::routing::{LEADER_WAIT, StreamRoutes, Target};
use crate::throttle::ShardFacts;
use braid_proto::v1::braid_client::BraidClient;
use braid_transport::Channel;

/// How long records of a shard that was just closed wait for its children: far longer than a split or merge takes
/// when all is well, shorter than a client's patience.
const RESHARD_WAIT: Duration = Duration::from_secs(3);

/// How long a node is given that has not heard of a split or merge yet, before it is asked again.
const BEHIND: Duration = Duration::from_millis(10);

/// One record of a call and its place there.
struct Item<'r> {
    nth: usize,
    route: Route,
    hash: HashKey,
    record: &'r Record,
}

/// A record that its shard's rates admit, and where it is counted once it is appended.
struct Admitted<'i> {
    item: &'i Item<'i>,
    series: Arc<ShardSeries>,
}

/// What all records of a call share.
struct Put<'a> {
    routes: Arc<StreamRoutes>,
    keep_order: bool,
    call: &'a Call,
}

type Judged = Vec<(usize, Verdict)>;

impl Service {
    /// Appends `records`; one verdict each, in order. Errors: nothing was appended.
    pub(crate) async fn put(
        &self,
        name: &StreamName,
        records: Vec<Record>,
        keep_order: bool,
        call: &Call,
    ) -> Result<Vec<Verdict>, ApiError> {
        let routes = self.router.serving_stream(name).await?;
        wire::check_records(&records, &routes.limits)?;
        let mut put = Put { routes, keep_order, call };
        let mut judged: Judged = Vec::with_capacity(records.len());
        let mut held: Vec<usize> = (0..records.len()).collect();
        let until = call.deadline.min(Instant::now() + RESHARD_WAIT);
        loop {
            let mut by_group: BTreeMap<GroupId, Vec<Item<'_>>> = BTreeMap::new();
            for nth in held {
                let record = &records[nth];
                let hash = record.hash_key();
                let route = *put.routes.map.lookup(hash);
                by_group.entry(route.group).or_default().push(Item { nth, route, hash, record });
            }
            let groups = by_group.into_iter().map(|(group, items)| self.put_group(&put, group, items));
            let round: Judged = join_all(groups).await.into_iter().flatten().collect();
            // What a shard refused that was just closed waits for its children, and goes to them.
            let may_wait = !call.forwarded && Instant::now() < until;
            let outdated = self.is_outdated(&round, &put.routes);
            let (moved, settled): (Judged, Judged) =
                round.into_iter().partition(|(_, verdict)| may_wait && is_moved(verdict, outdated));
            judged.extend(settled);
            if moved.is_empty() {
                break;
            }
            reachable!(Mark::PutHeld);
            match self.follow(&put.routes, &moved, until).await {
                Some(routes) => put.routes = routes,
                None => {
                    judged.extend(moved);
                    break;
                }
            }
            held = moved.into_iter().map(|(nth, _)| nth).collect();
            // In the order of the call.
            held.sort_unstable();
            if planted(Bug::HeldReordered) {
                held.reverse();
            }
        }
        if !planted(Bug::VerdictsShifted) {
            judged.sort_unstable_by_key(|(nth, _)| *nth);
        }
        assert!(judged.len() == records.len(), "every record has one verdict");
        Ok(judged.into_iter().map(|(_, verdict)| verdict).collect())
    }

    /// Whether some records were not led where they were sent, and this node knows of a split or merge by now.
    fn is_outdated(&self, round: &Judged, routes: &StreamRoutes) -> bool {
        let elsewhere = |(_, verdict): &(usize, Verdict)| verdict.outcome.as_ref().is_err_and(|why| why.is_elsewhere());
        round.iter().any(elsewhere) && self.router.has_newer(routes)
    }

    /// The routes to try next for records that closed shards refused; `None` if there are none in time.
    async fn follow(&self, routes: &Arc<StreamRoutes>, moved: &Judged, until: Instant) -> Option<Arc<StreamRoutes>> {
        let is_open = |shard: ShardId| routes.shard(shard).is_some_and(|it| it.is_open());
        if self.router.has_newer(routes) || moved.iter().any(|(_, verdict)| is_open(verdict.shard)) {
            return self.router.newer_routes(routes, until).await;
        }
        // Another node is behind this one.
        time::sleep(BEHIND).await;
        Some(routes.clone())
    }

    /// One group's records: to its leader, and again to the next leader what certainly was not
    /// appended because the first one had ceased to lead.
    async fn put_group(&self, put: &Put<'_>, group: GroupId, mut items: Vec<Item<'_>>) -> Judged {
        let until = put.call.deadline.min(Instant::now() + LEADER_WAIT);
        let mut judged = Vec::new();
        loop {
            let target = match self.router.target(group, put.call.forwarded, until).await {
                Ok(target) => target,
                Err(error) => {
                    let why = ApiError::from(error).explain();
                    judged.extend(all_failed(&items, &why));
                    return judged;
                }
            };
            let round = match &target {
                Target::Here => self.put_here(put, group, &items).await,
                Target::There(address) => self.put_there(put, address, &items).await,
            };
            let may_retry = !put.call.forwarded && Instant::now() < until;
            // Who was asked may know of a split that this node did not, and speak of the child's group: `put` finds it.
            let outdated = self.is_outdated(&round, &put.routes);
            let mut again = BTreeSet::new();
            let mut hint = None;
            for (nth, verdict) in round {
                match &verdict.outcome {
                    Err(why) if may_retry && !outdated && why.is_elsewhere() => {
                        hint = self.router.node_at(&why.detail.leader_address).or(hint);
                        again.insert(nth);
                    }
                    _ => judged.push((nth, verdict)),
                }
            }
            items.retain(|item| again.contains(&item.nth));
            if items.is_empty() {
                return judged;
            }
            reachable!(Mark::PutLooksAgain);
            self.router.look_again(group, hint).await;
        }
    }

    /// This node leads: rates, then the log.
    async fn put_here(&self, put: &Put<'_>, group: GroupId, items: &[Item<'_>]) -> Judged {
        let handle = match self.router.group(group) {
            Ok(handle) => handle,
            Err(error) => return all_failed(items, &ApiError::from(error).explain()),
        };
        let (admitted, mut judged) = self.admit(put, &handle, items);
        if admitted.is_empty() {
            return judged;
        }
        let records = admitted.iter().map(|it| (it.item.route.shard, it.item.record.clone())).collect();
        match handle.append(records).await {
            Ok(outcomes) => {
                assert!(outcomes.len() == admitted.len(), "every record has one outcome");
                judged.extend(admitted.iter().zip(outcomes).map(|(admitted, outcome)| verdict_on(admitted, outcome)));
            }
            Err(error) => {
                let leader = match &error {
                    ProposeError::NotLeader { leader: Some(node) } => self.router.client_address(*node),
                    _ => None,
                };
                let why = ApiError::of_proposal(group, error, leader).explain();
                judged.extend(admitted.iter().map(|it| failed(it.item, &why)));
            }
        }
        judged
    }

    /// Which records the shards' rates admit; the others' verdicts.
    fn admit<'i>(&self, put: &Put<'_>, handle: &GroupHandle, items: &'i [Item<'i>]) -> (Vec<Admitted<'i>>, Judged) {
        let facts = facts(put, handle, items);
        let mut refused: BTreeSet<ShardId> = BTreeSet::new();
        let (mut admitted, mut judged) = (Vec::with_capacity(items.len()), Vec::new());
        let mut charged: BTreeMap<ShardId, Arc<ShardSeries>> = BTreeMap::new();
        self.throttle.admit(handle, |rates| {
            for item in items {
                let shard = item.route.shard;
                if planted(Bug::ChargedPerRequest)
                    && let Some(series) = charged.get(&shard)
                {
                    admitted.push(Admitted { item, series: series.clone() });
                    continue;
                }
                if put.keep_order && refused.contains(&shard) && !planted(Bug::KeepOrderIgnored) {
                    reachable!(Mark::PredecessorRefused);
                    judged.push(failed(item, &ApiError::PredecessorRefused(shard).explain()));
                    continue;
                }
                match rates.write(&facts[&shard], item.hash, item.record) {
                    Ok(series) => {
                        if planted(Bug::ChargedPerRequest) {
                            charged.insert(shard, series.clone());
                        }
                        admitted.push(Admitted { item, series });
                    }
                    Err(throttled) => {
                        if planted(Bug::ThrottledYetAppended) {
                            let (handle, late) = (handle.clone(), vec![(shard, item.record.clone())]);
                            task::spawn(async move { handle.append(late).await });
                        }
                        refused.insert(shard);
                        judged.push(failed(item, &ApiError::Throttled(throttled).explain()));
                    }
                }
            }
        });
        (admitted, judged)
    }

    /// Another node leads: the same call, with this group's records only.
    async fn put_there(&self, put: &Put<'_>, address: &str, items: &[Item<'_>]) -> Judged {
        self.metrics.requests.forwarded.increment(1);
        reachable!(Mark::PutForwarded);
        let message = v1::PutRecordsRequest {
            stream_name: put.routes.stream.name.as_str().to_string(),
            records: items.iter().map(|item| wire::record_to_forward(item.record)).collect(),
            keep_order: put.keep_order,
        };
        let request = request(message, Some(put.call.deadline));
        let call = |mut client: BraidClient<Channel>| async move { client.put_records(request).await };
        match self.router.channels.call(address, call).await.map(|it| it.records) {
            Ok(results) if results.len() == items.len() => items
                .iter()
                .zip(results)
                .map(|(item, result)| (item.nth, wire::verdict_from_wire(item.route.shard, result)))
                .collect(),
            Ok(results) => {
                let why = format!("the leader's node answered {} results for {} records", results.len(), items.len());
                all_failed(items, &ApiError::Unknown { why }.explain())
            }
            Err(CallError::NotSent) => all_failed(items, &not_reached(items)),
            Err(CallError::Failed(status)) if planted(Bug::ForwardRetried) && detail_of(&status).is_none() => {
                all_failed(items, &not_reached(items))
            }
            Err(CallError::Failed(status)) => {
                sometimes!(detail_of(&status).is_none(), Mark::ForwardLost);
                all_failed(items, &ApiError::Passed(status).explain())
            }
        }
    }
}

/// No connection to the node that is believed to lead: nothing was sent, and it will not lead for
/// long.
fn not_reached(items: &[Item<'_>]) -> Explained {
    let group = items.first().map_or(GroupId::CATALOG, |item| item.route.group);
    ApiError::NotLeader { group, leader: None }.explain()
}

/// What the throttle is to know of the shards of these records.
fn facts<'p>(put: &'p Put<'_>, handle: &GroupHandle, items: &[Item<'_>]) -> BTreeMap<ShardId, ShardFacts<'p>> {
    let ranges: BTreeMap<ShardId, HashRange> = items.iter().map(|item| (item.route.shard, item.route.range)).collect();
    let stream = put.routes.stream.name.as_str();
    let caught_up = handle.has_caught_up();
    handle.state(|group| {
        let facts = ranges.into_iter().map(|(shard, range)| {
            let known = group.shard(shard);
            let limits = known.map_or(put.routes.limits, |it| it.limits);
            let untouched = caught_up && known.is_none_or(|it| it.last().is_none());
            (shard, ShardFacts { shard, range, limits, stream, untouched })
        });
        facts.collect()
    })
}

fn verdict_on(Admitted { item, series }: &Admitted<'_>, outcome: AppendOutcome) -> (usize, Verdict) {
    let Route { shard, created_s, .. } = item.route;
    let outcome = match outcome {
        AppendOutcome::Appended { offset, time_ms } => {
            series.incoming(1, item.record.size());
            Ok(SequenceNumber { created_s, shard_index: shard.index, offset, arrival_s: time_ms / 1000 })
        }
        AppendOutcome::Refused(refused) => Err(ApiError::Refused(refused).explain()),
    };
    (item.nth, Verdict { shard, outcome })
}

/// Whether a record was certainly not appended, since its shard was split or merged meanwhile; `outdated`: this node has
/// heard of that since it sent the record to its shard's group.
fn is_moved(verdict: &Verdict, outdated: bool) -> bool {
    let Err(why) = &verdict.outcome else { return false };
    let reason = why.detail.reason();
    matches!(reason, v1::ErrorReason::ShardClosed | v1::ErrorReason::WrongRange) || outdated && why.is_elsewhere()
}

fn failed(item: &Item<'_>, why: &Explained) -> (usize, Verdict) {
    (item.nth, Verdict { shard: item.route.shard, outcome: Err(why.clone()) })
}

fn all_failed(items: &[Item<'_>], why: &Explained) -> Judged {
    items.iter().map(|item| failed(item, why)).collect()
}

//! The rates of the shards this node leads.
//!
//! Invariant: buckets belong to a term. A node that gains a group's leadership starts that group's
//! shards with empty buckets as of that moment, so that a failover never doubles a limit.
//!
//! Deliberately absent: waiting, and anything replicated. The arithmetic is in `braid_stream`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_probe::{Bug, Mark, planted, reachable};
use braid_stream::ids::{GroupId, ShardId};
use braid_stream::limits::Limits;
use braid_stream::throttle::{ShardThrottle, Throttled};

use crate::metrics::NodeMetrics;
use crate::metrics::shards::ShardSeries;
use crate::replication::{GroupHandle, Groups};

/// How often a gained leadership is noticed when no request notices it first.
const NOTICE: Duration = Duration::from_millis(100);

/// The shards of every group this node leads. Shared.
pub struct ThrottleTable {
    enforced: bool,
    started: Instant,
    groups: Mutex<BTreeMap<GroupId, Arc<Mutex<GroupGates>>>>,
    metrics: Arc<NodeMetrics>,
}

/// One group's shards in one term.
struct GroupGates {
    term: u64,
    since: Duration,
    /// About 300 bytes each; an entry goes with the term, or with its stream.
    shards: BTreeMap<ShardId, Gate>,
}

struct Gate {
    limits: Limits,
    throttle: ShardThrottle,
    series: Arc<ShardSeries>,
}

/// What a request needs to know of the shard it is for.
pub struct ShardFacts<'a> {
    /// The shard.
    pub shard: ShardId,
    /// Its limits now.
    pub limits: Limits,
    /// Its stream's name, for the metrics.
    pub stream: &'a str,
    /// Whether it certainly has no record yet, as a leader knows that has caught up: then no predecessor can have
    /// admitted any.
    pub untouched: bool,
}

impl ThrottleTable {
    /// A table; where `enforced` is false it counts and admits everything.
    pub fn new(enforced: bool, metrics: Arc<NodeMetrics>) -> ThrottleTable {
        ThrottleTable { enforced, started: Instant::now(), groups: Mutex::default(), metrics }
    }

    /// Whether a record of `bytes` (data and key) may be appended.
    pub fn admit_write(&self, group: &GroupHandle, facts: &ShardFacts<'_>, bytes: u64) -> Result<(), Throttled> {
        self.with(group.id(), group.term(), facts, |gate, now| {
            if !self.enforced {
                return Ok(());
            }
            gate.throttle.write(now, bytes).inspect_err(|_| gate.series.throttled_records(1))
        })
    }

    /// Whether a read may start.
    pub fn admit_read(&self, group: &GroupHandle, facts: &ShardFacts<'_>) -> Result<(), Throttled> {
        self.with(group.id(), group.term(), facts, |gate, now| {
            if !self.enforced {
                return Ok(());
            }
            gate.throttle.read(now).inspect_err(|_| gate.series.throttled_read())
        })
    }

    /// Counts records appended to a shard that admitted them.
    pub fn count_writes(&self, group: &GroupHandle, shard: ShardId, records: u64, bytes: u64) {
        self.known(group.id(), shard, |gate, _| gate.series.incoming(records, bytes));
    }

    /// Charges an admitted read for what it gave, and counts it; `behind_ms` is how far behind the
    /// tip the reader then was.
    pub fn read_done(&self, group: &GroupHandle, shard: ShardId, records: u64, bytes: u64, behind_ms: u64) {
        self.known(group.id(), shard, |gate, now| {
            gate.throttle.read_done(now, bytes);
            gate.series.outgoing(records, bytes, behind_ms);
        });
    }

    /// Notices leaderships as they are gained, so that an idle group's buckets fill from then on
    /// and not from its first request. Runs until dropped.
    pub async fn watch(&self, groups: &Groups) -> Infallible {
        loop {
            for replica in groups.all() {
                if let Some(handle) = groups.get(replica.id())
                    && handle.is_leader()
                {
                    drop(self.gates(handle.id(), handle.term()));
                }
            }
            time::sleep(NOTICE).await;
        }
    }

    fn now(&self) -> Duration {
        match planted(Bug::WallClockThrottle) {
            true => Duration::from_millis(time::wall_ms()),
            false => Instant::now() - self.started,
        }
    }

    fn with<R>(
        &self,
        group: GroupId,
        term: u64,
        facts: &ShardFacts<'_>,
        act: impl FnOnce(&mut Gate, Duration) -> R,
    ) -> R {
        let now = self.now();
        let gates = self.gates(group, term);
        let mut gates = gates.lock().expect("no one panics while counting");
        let since = gates.since;
        let gate = gates.shards.entry(facts.shard).or_insert_with(|| Gate {
            limits: facts.limits,
            throttle: match facts.untouched || planted(Bug::BucketFullAtFailover) {
                true if planted(Bug::ReadsFullAtFailover) => ShardThrottle::full(&facts.limits, now),
                true => ShardThrottle::unwritten(&facts.limits, now, since),
                false => ShardThrottle::empty(&facts.limits, since),
            },
            series: self.metrics.shards.get(facts.shard, facts.stream),
        });
        if gate.limits != facts.limits {
            gate.limits = facts.limits;
            gate.throttle.set_limits(&facts.limits, now);
        }
        act(gate, now)
    }

    /// As [`ThrottleTable::with`], for a shard that has had a verdict; nothing happens for others.
    fn known(&self, group: GroupId, shard: ShardId, act: impl FnOnce(&mut Gate, Duration)) {
        let now = self.now();
        let gates = self.groups.lock().expect("no one panics while counting").get(&group).cloned();
        if let Some(gates) = gates
            && let Some(gate) = gates.lock().expect("no one panics while counting").shards.get_mut(&shard)
        {
            act(gate, now);
        }
    }

    fn gates(&self, group: GroupId, term: u64) -> Arc<Mutex<GroupGates>> {
        let now = self.now();
        let new = || GroupGates { term, since: now, shards: BTreeMap::new() };
        let gates = {
            let mut groups = self.groups.lock().expect("no one panics while counting");
            groups.entry(group).or_insert_with(|| Arc::new(Mutex::new(new()))).clone()
        };
        {
            let mut current = gates.lock().expect("no one panics while counting");
            // A request that read an older term before the new one was noticed counts with the new.
            if current.term < term && !planted(Bug::BucketsOutliveTerm) {
                reachable!(Mark::ThrottleNewTerm);
                *current = new();
            }
        }
        gates
    }

    /// Forgets every shard that is not `alive`, its counts included.
    pub fn retain(&self, alive: impl Fn(ShardId) -> bool) {
        let groups: Vec<_> = self.groups.lock().expect("no one panics while counting").values().cloned().collect();
        for gates in groups {
            gates.lock().expect("no one panics while counting").shards.retain(|shard, _| alive(*shard));
        }
        self.metrics.shards.retain(alive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_stream::ids::{NodeId, StreamId};
    use braid_stream::throttle::Limit;

    const GROUP: GroupId = GroupId(1);

    fn facts(untouched: bool, limits: Limits) -> ShardFacts<'static> {
        let shard = ShardId { stream: StreamId(1), index: 0 };
        ShardFacts { shard, limits, stream: "orders", untouched }
    }

    fn table() -> ThrottleTable {
        ThrottleTable::new(true, NodeMetrics::disabled(NodeId(1)))
    }

    fn admitted(table: &ThrottleTable, term: u64, facts: &ShardFacts<'_>) -> usize {
        let one = |gate: &mut Gate, now| gate.throttle.write(now, 1);
        (0..5_000).take_while(|_| table.with(GROUP, term, facts, one).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_shard_has_a_second_saved_up_and_a_new_leader_nothing() {
        let table = table();
        assert_eq!(admitted(&table, 1, &facts(true, Limits::DEFAULT)), 1_000);
        assert_eq!(admitted(&table, 2, &facts(false, Limits::DEFAULT)), 0);
        time::sleep(Duration::from_millis(500)).await;
        assert_eq!(admitted(&table, 2, &facts(false, Limits::DEFAULT)), 500);
        assert_eq!(admitted(&table, 1, &facts(false, Limits::DEFAULT)), 0, "an older term opens nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_shard_fills_from_the_moment_of_leadership() {
        let table = table();
        drop(table.gates(GROUP, 7));
        time::sleep(Duration::from_millis(250)).await;
        assert_eq!(admitted(&table, 7, &facts(false, Limits::DEFAULT)), 250);
    }

    #[tokio::test(start_paused = true)]
    async fn changed_limits_hold_at_once() {
        let table = table();
        let less = Limits { write_records_per_s: 10, ..Limits::DEFAULT };
        assert_eq!(admitted(&table, 1, &facts(true, less)), 10);
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(admitted(&table, 1, &facts(true, less)), 10);
        let refused = table.with(GROUP, 1, &facts(true, less), |gate, now| gate.throttle.write(now, 1)).unwrap_err();
        assert_eq!((refused.limit, refused.per_s), (Limit::RecordsIn, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_stream_leaves_nothing() {
        let table = table();
        admitted(&table, 1, &facts(true, Limits::DEFAULT));
        table.retain(|_| false);
        assert!(table.gates(GROUP, 1).lock().unwrap().shards.is_empty());
    }
}

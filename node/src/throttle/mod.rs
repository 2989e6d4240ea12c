//! The rates of the shards this node leads, and what is asked of them.
//!
//! Invariant: buckets belong to a term. A node that gains a group's leadership starts that group's
//! shards with empty buckets as of that moment, so that a failover never doubles a limit.
//!
//! Deliberately absent: waiting, and anything replicated. The arithmetic is in `braid_stream`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_probe::{Bug, Mark, planted, reachable};
use braid_stream::hash::{HashKey, HashRange};
use braid_stream::ids::{GroupId, ShardId};
use braid_stream::limits::Limits;
use braid_stream::load::ShardLoad;
use braid_stream::record::Record;
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
    /// About 1,600 bytes each, and up to 4 KiB for the keys of a busy one; an entry goes with the term, or with its shard.
    /// Boxed, so that the map itself is small enough to be searched in the cache.
    shards: BTreeMap<ShardId, Box<Gate>>,
}

struct Gate {
    limits: Limits,
    throttle: ShardThrottle,
    load: ShardLoad,
    series: Arc<ShardSeries>,
}

/// What a request needs to know of the shard it is for.
pub struct ShardFacts<'a> {
    /// The shard.
    pub shard: ShardId,
    /// Its hash keys.
    pub range: HashRange,
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

    /// What `judge` makes of the group's rates; nobody else asks anything of the group meanwhile.
    pub fn admit<R>(&self, group: &GroupHandle, judge: impl FnOnce(&mut Rates<'_>) -> R) -> R {
        self.judge(group.id(), group.term(), judge)
    }

    /// Charges an admitted read for what it gave, and counts it; `behind_ms` is how far behind the
    /// tip the reader then was.
    pub fn read_done(&self, group: &GroupHandle, shard: ShardId, records: u64, bytes: u64, behind_ms: u64) {
        self.known(group.id(), shard, |gate, now| {
            gate.throttle.read_done(now, bytes);
            gate.load.read(now, records, bytes, behind_ms);
            gate.series.outgoing(records, bytes, behind_ms);
        });
    }

    /// What `look` makes of the shard's load; `None` if nothing was asked of it under this node's leadership.
    pub fn look_at<R>(
        &self,
        group: GroupId,
        shard: ShardId,
        look: impl FnOnce(&mut ShardLoad, Duration) -> R,
    ) -> Option<R> {
        let mut found = None;
        self.known(group, shard, |gate, now| found = Some(look(&mut gate.load, now)));
        found
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

    fn judge<R>(&self, group: GroupId, term: u64, judge: impl FnOnce(&mut Rates<'_>) -> R) -> R {
        let now = self.now();
        let gates = self.gates(group, term);
        let gates = gates.lock().expect("no one panics while counting");
        judge(&mut Rates { table: self, gates, now })
    }

    /// What was read of a shard, or is asked about it, that has had a verdict; nothing happens for others.
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

/// The rates of one group's shards, at one moment.
pub struct Rates<'a> {
    table: &'a ThrottleTable,
    gates: MutexGuard<'a, GroupGates>,
    now: Duration,
}

impl Rates<'_> {
    /// Whether a record with this hash key may be appended; where it is to be counted once it is.
    pub fn write(
        &mut self,
        facts: &ShardFacts<'_>,
        hash: HashKey,
        record: &Record,
    ) -> Result<Arc<ShardSeries>, Throttled> {
        let (enforced, now) = (self.table.enforced, self.now);
        let gate = self.gate(facts);
        let bytes = record.size();
        let verdict = match enforced {
            true => gate.throttle.write(now, bytes).inspect_err(|_| gate.series.throttled_records(1)),
            false => Ok(()),
        };
        gate.load.write(now, &facts.limits, hash, record.partition_key.as_str(), bytes, verdict.is_ok());
        verdict.map(|()| gate.series.clone())
    }

    /// Whether a read may start.
    pub fn read(&mut self, facts: &ShardFacts<'_>) -> Result<(), Throttled> {
        let (enforced, now) = (self.table.enforced, self.now);
        let gate = self.gate(facts);
        if !enforced {
            return Ok(());
        }
        gate.throttle.read(now).inspect_err(|_| {
            gate.series.throttled_read();
            gate.load.read_refused(now);
        })
    }

    fn gate(&mut self, facts: &ShardFacts<'_>) -> &mut Gate {
        let Rates { table, now, .. } = *self;
        let since = self.gates.since;
        let gate = self.gates.shards.entry(facts.shard).or_insert_with(|| {
            Box::new(Gate {
                limits: facts.limits,
                throttle: match facts.untouched || planted(Bug::BucketFullAtFailover) {
                    true if planted(Bug::ReadsFullAtFailover) => ShardThrottle::full(&facts.limits, now),
                    true => ShardThrottle::unwritten(&facts.limits, now, since),
                    false => ShardThrottle::empty(&facts.limits, since),
                },
                load: ShardLoad::new(facts.range, now),
                series: table.metrics.shards.get(facts.shard, facts.stream),
            })
        });
        if gate.limits != facts.limits {
            gate.limits = facts.limits;
            gate.throttle.set_limits(&facts.limits, now);
        }
        gate
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
        ShardFacts { shard, range: HashRange::FULL, limits, stream: "orders", untouched }
    }

    fn table() -> ThrottleTable {
        ThrottleTable::new(true, NodeMetrics::disabled(NodeId(1)))
    }

    fn with<R>(
        table: &ThrottleTable,
        term: u64,
        facts: &ShardFacts<'_>,
        act: impl FnOnce(&mut Gate, Duration) -> R,
    ) -> R {
        table.judge(GROUP, term, |rates| {
            let now = rates.now;
            act(rates.gate(facts), now)
        })
    }

    fn admitted(table: &ThrottleTable, term: u64, facts: &ShardFacts<'_>) -> usize {
        let one = |gate: &mut Gate, now| gate.throttle.write(now, 1);
        (0..5_000).take_while(|_| with(table, term, facts, one).is_ok()).count()
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

    /// What one kind of load gets through in 60 s, asking for three times what is allowed. `change`: half-way, another
    /// leader takes over, and none leads for half a second.
    async fn admitted_in_a_minute(kind: Limit, limits: Limits, change: bool) -> u64 {
        const SIZE: u64 = 4 << 10;
        let per_ms = match kind {
            Limit::BytesIn => 3 * limits.write_bytes_per_s / SIZE / 1_000 + 1,
            Limit::RecordsIn => 3 * limits.write_records_per_s / 1_000,
            Limit::BytesOut | Limit::CallsOut => 1,
        };
        let table = table();
        let (mut term, mut total) = (1, 0);
        drop(table.gates(GROUP, term));
        for ms in 0..60_000 {
            if change && ms == 30_000 {
                term = 2;
            }
            if !(change && (30_000..30_500).contains(&ms)) {
                for _ in 0..per_ms {
                    // A new leader finds records there.
                    total += with(&table, term, &facts(total == 0, limits), |gate, now| match kind {
                        Limit::BytesIn => gate.throttle.write(now, SIZE).map_or(0, |()| SIZE),
                        Limit::RecordsIn => gate.throttle.write(now, 10).map_or(0, |()| 1),
                        Limit::BytesOut => gate.throttle.read(now).map_or(0, |()| {
                            gate.throttle.read_done(now, 16 * SIZE);
                            16 * SIZE
                        }),
                        Limit::CallsOut => gate.throttle.read(now).map_or(0, |()| 1),
                    });
                }
            }
            time::sleep(Duration::from_millis(1)).await;
        }
        total
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_of_overload_gets_the_limit_within_two_percent_whoever_leads() {
        let many_calls = Limits { read_calls_per_s: 10_000, ..Limits::DEFAULT };
        let own = Limits { write_bytes_per_s: 3 << 20, write_records_per_s: 2_500, ..Limits::DEFAULT };
        for (kind, limits, per_s) in [
            (Limit::BytesIn, Limits::DEFAULT, 1 << 20),
            (Limit::RecordsIn, Limits::DEFAULT, 1_000),
            (Limit::BytesOut, many_calls, 2 << 20),
            (Limit::CallsOut, Limits::DEFAULT, 5),
            (Limit::BytesIn, own, 3 << 20),
            (Limit::RecordsIn, own, 2_500),
        ] {
            for change in [false, true] {
                let admitted = admitted_in_a_minute(kind, limits, change).await;
                let percent = admitted as f64 * 100.0 / (60 * per_s) as f64;
                assert!((98.0..=102.0).contains(&percent), "{kind:?}, change {change}: {percent:.2}% of the limit");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changed_limits_hold_at_once() {
        let table = table();
        let less = Limits { write_records_per_s: 10, ..Limits::DEFAULT };
        assert_eq!(admitted(&table, 1, &facts(true, less)), 10);
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(admitted(&table, 1, &facts(true, less)), 10);
        let refused = with(&table, 1, &facts(true, less), |gate, now| gate.throttle.write(now, 1)).unwrap_err();
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

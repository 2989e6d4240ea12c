//! Series per group: leadership, watermarks, log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use braid_stream::ids::GroupId;
use metrics::{Counter, Gauge};

use super::{NodeMetrics, names};
use crate::replication::{GroupReplica, Groups, State};

/// One group's series; cheap to clone. Set them before a reading, see
/// [`NodeMetrics::before_reading`].
#[derive(Clone)]
pub struct GroupSeries {
    /// 1 where this node leads.
    pub leader: Gauge,
    /// The term.
    pub term: Gauge,
    /// Last log index on a majority.
    pub committed_index: Gauge,
    /// Last log index applied.
    pub applied_index: Gauge,
    /// Last log index here.
    pub last_log_index: Gauge,
    /// Log indexes up to this one are gone.
    pub purged_index: Gauge,
    /// Shards in the group.
    pub shards: Gauge,
    /// `absolute` of the log's own count.
    pub log_fsyncs: Counter,
    /// `absolute` of the log's own count.
    pub log_bytes: Counter,
    /// `absolute` of the log's own count.
    pub log_entries: Counter,
    /// Bytes kept.
    pub log_kept_bytes: Gauge,
}

/// The groups with a replica here.
#[derive(Default)]
pub struct GroupTable(Mutex<BTreeMap<GroupId, GroupSeries>>);

impl GroupTable {
    /// The group's series, registered on first use.
    pub fn get(&self, metrics: &NodeMetrics, group: GroupId) -> GroupSeries {
        let mut table = self.0.lock().expect("no one panics while registering");
        table.entry(group).or_insert_with(|| register(metrics, group)).clone()
    }
}

fn register(metrics: &NodeMetrics, group: GroupId) -> GroupSeries {
    let (registry, id) = (&metrics.registry, group.to_string());
    let labels = [("group", id.as_str())];
    GroupSeries {
        leader: registry.gauge(names::GROUP_LEADER, &labels),
        term: registry.gauge(names::GROUP_TERM, &labels),
        committed_index: registry.gauge(names::GROUP_COMMITTED, &labels),
        applied_index: registry.gauge(names::GROUP_APPLIED, &labels),
        last_log_index: registry.gauge(names::GROUP_LAST, &labels),
        purged_index: registry.gauge(names::GROUP_PURGED, &labels),
        shards: registry.gauge(names::GROUP_SHARDS, &labels),
        log_fsyncs: registry.counter(names::LOG_FSYNCS, &labels),
        log_bytes: registry.counter(names::LOG_BYTES, &labels),
        log_entries: registry.counter(names::LOG_ENTRIES, &labels),
        log_kept_bytes: registry.gauge(names::LOG_KEPT, &labels),
    }
}

/// Looks at every replica in `groups` before each reading.
pub fn follow(metrics: &Arc<NodeMetrics>, groups: Arc<Groups>) {
    // Not the `Arc`: the metrics would hold themselves.
    let weak = Arc::downgrade(metrics);
    metrics.before_reading(move || {
        let Some(metrics) = weak.upgrade() else { return };
        for replica in groups.all() {
            read(&metrics.groups.get(&metrics, replica.id()), &replica);
        }
    });
}

fn read(series: &GroupSeries, replica: &GroupReplica) {
    let status = replica.status().replica;
    let log = replica.log();
    let stats = log.stats();
    series.leader.set(f64::from(u8::from(replica.is_leader())));
    series.term.set(status.term as f64);
    series.committed_index.set(status.committed as f64);
    series.applied_index.set(status.applied as f64);
    series.last_log_index.set(status.last_log as f64);
    series.purged_index.set(status.purged as f64);
    series.log_fsyncs.absolute(stats.fsyncs);
    series.log_bytes.absolute(stats.bytes);
    series.log_entries.absolute(stats.entries);
    series.log_kept_bytes.set(log.segments().iter().map(|it| it.bytes).sum::<u64>() as f64);
    series.shards.set(replica.with_state(|state| match state {
        State::Data(group) => group.shards().len() as f64,
        State::Catalog(_) => 0.0,
    }));
}

//! A node's metrics: counters, gauges and histograms, and the page that Prometheus reads.
//!
//! Invariant: every series carries the node's id, so that several nodes in one process (as under
//! `braid dev`) stay apart. Each node has a recorder of its own; nothing is installed in the
//! process, and whoever counts something is handed a [`NodeMetrics`] or one of its parts.
//!
//! Two ways in, by cost. Series of the node, its groups and its methods go through the `metrics`
//! facade and its Prometheus recorder: about 500 bytes each, a few hundred in all, for ever. Series
//! of shards ([`shards::ShardSeries`]) would be 70,000 for 10,000 shards, and the recorder cannot
//! forget one; so they live in a table of our own: about 150 bytes per shard for all seven series,
//! gone with their stream.
//!
//! Deliberately absent: decisions. Nothing in the node reads a metric.

pub mod groups;
mod names;
pub mod requests;
pub mod serve;
pub mod shards;

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use braid_env::disk;
use braid_stream::ids::NodeId;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use groups::GroupTable;
use names::{DISK_BYTES_WRITTEN, DISK_FSYNCS, DISK_WRITES, FACADE, REQUEST_SECONDS};
use requests::RequestTable;
use shards::ShardTable;

/// Fractions of a fsync up to the longest deadline, in seconds.
const LATENCY_BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What every registration says about itself; the recorder ignores it.
const METADATA: Metadata<'static> = Metadata::new("braid", Level::INFO, None);

/// One node's metrics. Shared; all methods may be called from any task.
pub struct NodeMetrics {
    node: NodeId,
    registry: Registry,
    /// Per shard, on the nodes that lead it.
    pub shards: ShardTable,
    /// Per group with a replica here.
    pub groups: GroupTable,
    /// Per method of the API.
    pub requests: RequestTable,
    collectors: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl NodeMetrics {
    /// Metrics that are kept; someone has to [serve](serve::MetricsServer) them, or histograms grow.
    pub fn new(node: NodeId) -> Arc<NodeMetrics> {
        let recorder = PrometheusBuilder::new()
            .add_global_label("node", node.to_string())
            .set_buckets_for_metric(Matcher::Full(REQUEST_SECONDS.into()), LATENCY_BUCKETS)
            .expect("there are buckets")
            .build_recorder();
        for (name, kind, unit, text) in FACADE {
            let (name, text) = ((*name).into(), (*text).into());
            match kind {
                names::Kind::Counter => recorder.describe_counter(name, Some(*unit), text),
                names::Kind::Gauge => recorder.describe_gauge(name, Some(*unit), text),
                names::Kind::Histogram => recorder.describe_histogram(name, Some(*unit), text),
            }
        }
        NodeMetrics::with(node, Registry(Some(Arc::new(recorder))))
    }

    /// Metrics that nobody reads: every operation does nothing, except that shards still count.
    pub fn disabled(node: NodeId) -> Arc<NodeMetrics> {
        NodeMetrics::with(node, Registry(None))
    }

    fn with(node: NodeId, registry: Registry) -> Arc<NodeMetrics> {
        registry.gauge(names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        let requests = RequestTable::new(&registry);
        Arc::new(NodeMetrics {
            node,
            shards: ShardTable::default(),
            groups: GroupTable::default(),
            requests,
            collectors: Mutex::default(),
            registry,
        })
    }

    /// Calls `collect` before every reading: for values that are cheaper to look up than to follow.
    pub fn before_reading(&self, collect: impl Fn() + Send + Sync + 'static) {
        self.collectors.lock().expect("no one panics while collecting").push(Box::new(collect));
    }

    /// The page in Prometheus' text format.
    pub fn render(&self) -> String {
        for collect in self.collectors.lock().expect("no one panics while collecting").iter() {
            collect();
        }
        let disk = disk::counters();
        self.registry.counter(DISK_WRITES, &[]).absolute(disk.writes);
        self.registry.counter(DISK_BYTES_WRITTEN, &[]).absolute(disk.bytes_written);
        self.registry.counter(DISK_FSYNCS, &[]).absolute(disk.fsyncs);
        let mut page = self.registry.0.as_ref().map(|it| it.handle().render()).unwrap_or_default();
        self.shards.render(self.node, &mut page);
        page
    }

    /// Moves what histograms gathered into their buckets, to bound their memory.
    pub fn upkeep(&self) {
        if let Some(recorder) = &self.registry.0 {
            recorder.handle().run_upkeep();
        }
    }
}

/// Registers series, or hands out ones that do nothing.
#[derive(Clone)]
struct Registry(Option<Arc<PrometheusRecorder>>);

impl Registry {
    pub fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        match &self.0 {
            Some(recorder) => recorder.register_counter(&key(name, labels), &METADATA),
            None => Counter::noop(),
        }
    }

    pub fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        match &self.0 {
            Some(recorder) => recorder.register_gauge(&key(name, labels), &METADATA),
            None => Gauge::noop(),
        }
    }

    pub fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        match &self.0 {
            Some(recorder) => recorder.register_histogram(&key(name, labels), &METADATA),
            None => Histogram::noop(),
        }
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(k, v)| Label::new(*k, v.to_string())).collect();
    Key::from_parts(name, labels)
}

/// The two lines that introduce a series.
fn heading(page: &mut String, name: &str, kind: &str, text: &str) {
    let _ = writeln!(page, "# HELP {name} {text}\n# TYPE {name} {kind}");
}

/// A unit the facade knows; `Count` where it has none for ours.
const NO_UNIT: Unit = Unit::Count;

#[cfg(test)]
mod tests {
    use super::*;
    use braid_stream::ids::{GroupId, ShardId, StreamId};

    #[test]
    fn every_series_carries_the_node_and_is_described() {
        let metrics = NodeMetrics::new(NodeId(7));
        metrics.groups.get(&metrics, GroupId(2)).term.set(5.0);
        metrics.requests.done("PutRecord", "OK", std::time::Duration::from_millis(3));
        let shard = ShardId { stream: StreamId(1), index: 0 };
        metrics.shards.get(shard, "orders").incoming(3, 99);
        let page = metrics.render();
        for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            assert!(line.contains("node=\"7\""), "{line}");
            let name = line.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
            assert!(page.contains(&format!("# HELP {base} ")), "{base} is not described");
        }
        assert!(page.contains("braid_group_term{node=\"7\",group=\"2\"} 5"), "{page}");
        assert!(
            page.contains("braid_request_duration_seconds_bucket{node=\"7\",method=\"PutRecord\",le=\"0.005\"} 1"),
            "{page}"
        );
    }

    #[test]
    fn two_nodes_in_a_process_stay_apart() {
        let (a, b) = (NodeMetrics::new(NodeId(1)), NodeMetrics::new(NodeId(2)));
        a.groups.get(&a, GroupId(1)).term.set(1.0);
        b.groups.get(&b, GroupId(1)).term.set(2.0);
        assert!(!a.render().contains("node=\"2\""));
        assert!(!b.render().contains("node=\"1\""));
    }

    #[test]
    fn what_is_collected_is_as_of_the_reading() {
        let metrics = NodeMetrics::new(NodeId(1));
        let applied = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let gauge = metrics.groups.get(&metrics, GroupId(1)).applied_index.clone();
        let seen = applied.clone();
        metrics.before_reading(move || gauge.set(seen.load(std::sync::atomic::Ordering::Relaxed) as f64));
        applied.store(42, std::sync::atomic::Ordering::Relaxed);
        assert!(metrics.render().contains("braid_group_applied_index{node=\"1\",group=\"1\"} 42"));
    }

    #[test]
    fn nobody_has_to_look() {
        let metrics = NodeMetrics::disabled(NodeId(1));
        metrics.groups.get(&metrics, GroupId(1)).term.set(1.0);
        metrics.requests.done("PutRecord", "OK", std::time::Duration::ZERO);
        metrics.upkeep();
        assert_eq!(metrics.render(), "");
    }
}

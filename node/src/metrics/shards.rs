//! Series per shard: counted where the shard's leader is, dropped with the stream.
//!
//! Invariant: an entry is there from a shard's first use on this node until its stream is dropped;
//! a handle taken before that goes on counting, seen by nobody. A shard without traffic has no
//! lines on the page. Cost: 56 bytes of counters and about 100 of table per shard, 1.5 MiB for
//! 10,000 shards; a page of 10,000 busy shards has about 7 MiB.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};

use braid_stream::ids::{NodeId, ShardId};

use super::heading;

/// One shard's counts. Whoever serves the shard keeps the handle.
#[derive(Debug, Default)]
pub struct ShardSeries {
    incoming_bytes: AtomicU64,
    incoming_records: AtomicU64,
    outgoing_bytes: AtomicU64,
    outgoing_records: AtomicU64,
    throttled_records: AtomicU64,
    throttled_reads: AtomicU64,
    iterator_age_ms: AtomicU64,
}

impl ShardSeries {
    /// Records appended, and their data and keys.
    pub fn incoming(&self, records: u64, bytes: u64) {
        self.incoming_records.fetch_add(records, Relaxed);
        self.incoming_bytes.fetch_add(bytes, Relaxed);
    }

    /// Records read, and their data and keys; `age_ms` is how far behind the reader then was.
    pub fn outgoing(&self, records: u64, bytes: u64, age_ms: u64) {
        self.outgoing_records.fetch_add(records, Relaxed);
        self.outgoing_bytes.fetch_add(bytes, Relaxed);
        self.iterator_age_ms.store(age_ms, Relaxed);
    }

    /// Records refused by the shard's write limits.
    pub fn throttled_records(&self, records: u64) {
        self.throttled_records.fetch_add(records, Relaxed);
    }

    /// A read refused by the shard's read limits.
    pub fn throttled_read(&self) {
        self.throttled_reads.fetch_add(1, Relaxed);
    }

    fn busy(&self) -> bool {
        SERIES.iter().any(|series| (series.value)(self) > 0)
    }
}

struct Series {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    value: fn(&ShardSeries) -> u64,
}

const SERIES: &[Series] = &[
    Series {
        name: "braid_shard_incoming_bytes_total",
        kind: "counter",
        text: "Data and partition keys of records appended.",
        value: |it| it.incoming_bytes.load(Relaxed),
    },
    Series {
        name: "braid_shard_incoming_records_total",
        kind: "counter",
        text: "Records appended.",
        value: |it| it.incoming_records.load(Relaxed),
    },
    Series {
        name: "braid_shard_outgoing_bytes_total",
        kind: "counter",
        text: "Data and partition keys of records read.",
        value: |it| it.outgoing_bytes.load(Relaxed),
    },
    Series {
        name: "braid_shard_outgoing_records_total",
        kind: "counter",
        text: "Records read.",
        value: |it| it.outgoing_records.load(Relaxed),
    },
    Series {
        name: "braid_shard_throttled_records_total",
        kind: "counter",
        text: "Records refused by the shard's write limits.",
        value: |it| it.throttled_records.load(Relaxed),
    },
    Series {
        name: "braid_shard_throttled_reads_total",
        kind: "counter",
        text: "Reads refused by the shard's read limits.",
        value: |it| it.throttled_reads.load(Relaxed),
    },
    Series {
        name: "braid_shard_iterator_age_ms",
        kind: "gauge",
        text: "How far behind the tip the last read was, in milliseconds.",
        value: |it| it.iterator_age_ms.load(Relaxed),
    },
];

struct Entry {
    stream: Box<str>,
    series: Arc<ShardSeries>,
}

/// The shards used on this node.
#[derive(Default)]
pub struct ShardTable(RwLock<BTreeMap<ShardId, Entry>>);

impl ShardTable {
    /// The shard's counts, made on first use; `stream` is its stream's name.
    pub fn get(&self, shard: ShardId, stream: &str) -> Arc<ShardSeries> {
        if let Some(entry) = self.0.read().expect("no one panics while counting").get(&shard) {
            return entry.series.clone();
        }
        let mut table = self.0.write().expect("no one panics while counting");
        let entry = table.entry(shard).or_insert_with(|| Entry { stream: stream.into(), series: Arc::default() });
        entry.series.clone()
    }

    /// Forgets every shard that is not `alive`.
    pub fn retain(&self, alive: impl Fn(ShardId) -> bool) {
        self.0.write().expect("no one panics while counting").retain(|shard, _| alive(*shard));
    }

    /// Adds the lines of every shard with traffic to `page`.
    pub(super) fn render(&self, node: NodeId, page: &mut String) {
        let table = self.0.read().expect("no one panics while counting");
        let busy: Vec<_> = table.iter().filter(|(_, entry)| entry.series.busy()).collect();
        if busy.is_empty() {
            return;
        }
        for series in SERIES {
            heading(page, series.name, series.kind, series.text);
            for (shard, entry) in &busy {
                // Stream names are [a-zA-Z0-9_.-]: nothing to escape.
                let _ = writeln!(
                    page,
                    "{}{{node=\"{node}\",stream=\"{}\",shard=\"{}\"}} {}",
                    series.name,
                    entry.stream,
                    shard.name(),
                    (series.value)(&entry.series)
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_stream::ids::StreamId;

    fn shard(stream: u32, index: u32) -> ShardId {
        ShardId { stream: StreamId(stream), index }
    }

    fn page(table: &ShardTable) -> String {
        let mut page = String::new();
        table.render(NodeId(3), &mut page);
        page
    }

    #[test]
    fn counts_are_shared_between_handles_and_shown_once_there_are_any() {
        let table = ShardTable::default();
        table.get(shard(1, 0), "orders").incoming(2, 100);
        table.get(shard(1, 0), "orders").incoming(1, 10);
        table.get(shard(1, 1), "orders");
        let text = page(&table);
        let labels = "{node=\"3\",stream=\"orders\",shard=\"shardId-000000000000\"}";
        assert!(text.contains(&format!("braid_shard_incoming_records_total{labels} 3\n")), "{text}");
        assert!(text.contains(&format!("braid_shard_incoming_bytes_total{labels} 110\n")), "{text}");
        assert!(!text.contains("shardId-000000000001"), "{text}");
    }

    #[test]
    fn a_dropped_stream_leaves_nothing() {
        let table = ShardTable::default();
        let held = table.get(shard(1, 0), "orders");
        table.get(shard(2, 0), "clicks").throttled_read();
        held.outgoing(1, 5, 70);
        table.retain(|shard| shard.stream != StreamId(1));
        held.outgoing(1, 5, 70);
        let text = page(&table);
        assert!(!text.contains("orders"), "{text}");
        assert!(text.contains("clicks"), "{text}");
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn the_dashboard_asks_for_series_that_there_are() {
        use crate::metrics::names::FACADE;
        let dashboard = include_str!("../../../packaging/watch/dashboard.json");
        let there = |name: &str| SERIES.iter().any(|s| s.name == name) || FACADE.iter().any(|s| s.0 == name);
        let words = dashboard.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked: Vec<&str> = words.filter(|word| word.starts_with("braid_")).collect();
        assert!(asked.len() > 5, "{asked:?}");
        for name in asked {
            assert!(there(name), "the dashboard asks for {name}, which no node has");
        }
    }
}

//! The steps a record passes through inside one node, each by itself.
//!
//! `cargo bench -p braid-benches` (after `source scripts/setup`, so that RocksDB is not compiled
//! again). Throughput is in records for hashing and applying, in bytes for encoding and logging.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::sync::mpsc;

use braid_benches::{records, shards};
use braid_log::{Entry, EntryKind, Identity, Log, LogId, LogOptions};
use braid_stream::batch::{BatchBuilder, BatchView};
use braid_stream::command::{GroupCommand, OpenShards};
use braid_stream::group::Group;
use braid_stream::hash::HashKey;
use braid_stream::ids::GroupId;
use braid_stream::shard::ShardSpec;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const BATCH: usize = 500;
const RECORD: usize = 1024;

fn payload(shards: &[ShardSpec]) -> Bytes {
    let mut builder = BatchBuilder::new(1_000_000);
    for (i, record) in records(BATCH, RECORD).iter().enumerate() {
        builder.push(shards[i % shards.len()].id, record);
    }
    builder.finish().payload
}

fn routing(c: &mut Criterion) {
    let records = records(BATCH, 0);
    let mut group = c.benchmark_group("route");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("md5 of 500 partition keys", |b| {
        b.iter(|| {
            for record in &records {
                black_box(HashKey::of_partition_key(record.partition_key.as_str()));
            }
        });
    });
    group.finish();
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Bytes((BATCH * RECORD) as u64));
    for count in [1, 100] {
        let (shards, records) = (shards(count), records(BATCH, RECORD));
        group.bench_function(format!("encode 500 x 1 KiB over {count} shards"), |b| {
            b.iter(|| {
                let mut builder = BatchBuilder::new(1_000_000);
                for (i, record) in records.iter().enumerate() {
                    builder.push(shards[i % shards.len()].id, record);
                }
                black_box(builder.finish())
            });
        });
    }
    let payload = payload(&shards(100));
    group.bench_function("checksum and frame", |b| {
        b.iter(|| black_box(Entry::new(LogId { term: 1, index: 1 }, EntryKind::Normal, payload.clone())));
    });
    group.bench_function("decode and read 500 records", |b| {
        b.iter(|| {
            let view = BatchView::decode(payload.clone()).expect("our own batch");
            let read = |pos| BatchView::records_at(&payload, pos).expect("a slice").map(|r| r.expect("a record"));
            black_box(view.slices().flat_map(|s| read(s.pos)).count())
        });
    });
    group.finish();
}

fn applying(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(BATCH as u64));
    for count in [10, 10_000] {
        let shards = shards(count);
        let append = GroupCommand::decode(payload(&shards[..10])).expect("our own batch");
        let mut state = Group::new(GroupId(1));
        state.apply(1, &GroupCommand::OpenShards(OpenShards { at_ms: 1, shards }));
        let mut index = 1;
        group.bench_function(format!("500 records over 10 of {count} shards"), |b| {
            b.iter(|| {
                index += 1;
                black_box(state.apply(index, &append))
            });
        });
    }
    group.finish();
}

fn logging(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let identity = Identity { cluster: [1; 16], node: 1, group: 1 };
    let (log, _) = runtime.block_on(Log::open(dir.path(), identity, LogOptions::default())).expect("a new log");
    let payload = payload(&shards(100));
    let mut index = 0;
    let mut group = c.benchmark_group("log");
    group.sample_size(20);
    for entries in [1, 16] {
        group.throughput(Throughput::Bytes((entries * payload.len()) as u64));
        group.bench_function(format!("append {entries} x 512 KiB, fdatasync"), |b| {
            b.iter_batched(
                || {
                    let batch: Vec<Entry> = (0..entries as u64)
                        .map(|i| Entry::new(LogId { term: 1, index: index + i }, EntryKind::Normal, payload.clone()))
                        .collect();
                    index += entries as u64;
                    batch
                },
                |batch| {
                    let (done, durable) = mpsc::channel();
                    let _guard = runtime.enter();
                    log.append(batch, Box::new(move |result| done.send(result).expect("somebody waits")))
                        .expect("room");
                    durable.recv().expect("an answer").expect("durable");
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, routing, encoding, applying, logging);
criterion_main!(benches);

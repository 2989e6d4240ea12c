//! The batch format: layout, round trip, sharing, and what arbitrary bytes do to it.

use std::collections::BTreeMap;

use braid_stream::batch::{Batch, BatchError};
use braid_stream::{BatchBuilder, BatchView, HashKey, PartitionKey, Record, ShardId, StreamId};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

fn shard(stream: u32, index: u32) -> ShardId {
    ShardId { stream: StreamId(stream), index }
}

fn record(key: &str, data: &[u8], hash: Option<u128>) -> Record {
    Record {
        partition_key: PartitionKey::parse(key).unwrap(),
        explicit_hash: hash.map(HashKey),
        data: Bytes::copy_from_slice(data),
    }
}

fn build(time_ms: u64, records: &[(ShardId, Record)]) -> Batch {
    let mut builder = BatchBuilder::new(time_ms);
    for (shard, record) in records {
        builder.push(*shard, record);
    }
    assert_eq!(builder.len(), records.len());
    builder.finish()
}

fn pushes() -> impl Strategy<Value = Vec<(ShardId, Record)>> {
    let shard = (0..3u32, 0..4u32).prop_map(|(stream, index)| shard(stream, index));
    let hash = proptest::option::of(any::<u128>());
    let record = ("\\PC{1,8}", vec(any::<u8>(), 0..40), hash).prop_map(|(key, data, hash)| record(&key, &data, hash));
    vec((shard, record), 1..40)
}

fn golden_batch() -> Batch {
    build(
        1_700_000_000_000,
        &[
            (shard(1, 2), record("k1", b"abc", None)),
            (shard(7, 0), record("k2", b"xy", None)),
            (shard(1, 2), record("k3", b"", Some(5))),
        ],
    )
}

#[test]
fn golden() {
    let batch = golden_batch();
    let hex: String = batch.payload.iter().map(|b| format!("{b:02x}")).collect();
    let parts = [
        "01010000020000000068e5cf8b010000",
        "0100000002000000020000002700000000000000",
        "00000200030000006b31616263",
        "0100020000000000050000000000000000000000000000006b33",
        "07000000000000000100000 00c0000000000000000000200020000006b327879",
    ];
    assert_eq!(hex, parts.concat().replace(' ', ""));
    let places: Vec<_> = batch.places.iter().map(|it| (it.slice, it.nth)).collect();
    assert_eq!(places, [(0, 0), (1, 0), (0, 1)]);
}

/// Every way to be refused, each from the golden batch by one change.
#[test]
fn refusals() {
    let good = golden_batch().payload;
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        BatchView::decode(Bytes::from(bytes)).unwrap_err()
    };
    let first = 16;
    assert_eq!(changed(0, 2), BatchError::UnknownVersion { found: 2 });
    assert_eq!(changed(1, 2), BatchError::NotAnAppend { tag: 2 });
    assert_eq!(changed(2, 1), BatchError::UnknownFlags { at: 2 });
    assert_eq!(changed(3, 1), BatchError::UnknownFlags { at: 2 });
    assert_eq!(changed(4, 0), BatchError::NoSlices);
    assert_eq!(changed(4, 1), BatchError::TrailingBytes { bytes: 32 });
    assert_eq!(changed(4, 3), BatchError::Truncated { at: good.len() });
    for reserved in 16..20 {
        let refused = changed(first + reserved, 1);
        assert_eq!(refused, BatchError::UnknownFlags { at: first + 16 });
    }
    let (records, bytes) = (0, 39);
    let refused = BatchError::WrongCount { at: first, records, bytes };
    assert_eq!(changed(first + 8, 0), refused);
    let refused = BatchError::Truncated { at: first };
    assert_eq!(changed(first + 15, 0xff), refused);
    for len in 0..good.len() {
        assert!(BatchView::decode(good.slice(..len)).is_err(), "{len} bytes");
    }
}

#[test]
fn records_are_slices_of_the_payload() {
    let batch = golden_batch();
    let within = batch.payload.as_ptr_range();
    let view = BatchView::decode(batch.payload.clone()).unwrap();
    assert_eq!(view.payload().as_ptr(), batch.payload.as_ptr());
    for slice in view.slices() {
        for record in BatchView::records_at(&batch.payload, slice.pos).unwrap() {
            let record = record.unwrap();
            assert!(within.contains(&record.partition_key.as_bytes().as_ptr()));
            assert!(record.data.is_empty() || within.contains(&record.data.as_ptr()));
        }
    }
}

#[test]
fn a_bad_record_ends_its_slice() {
    let mut bytes = golden_batch().payload.to_vec();
    bytes[36] = 0x80;
    let payload = Bytes::from(bytes);
    assert!(BatchView::decode(payload.clone()).is_ok(), "bodies are not looked at");
    let mut records = BatchView::records_at(&payload, 16).unwrap();
    assert_eq!(records.next(), Some(Err(BatchError::UnknownFlags { at: 0 })));
    assert_eq!(records.next(), None);
    let mut records = BatchView::records_at(&payload, 16).unwrap();
    assert!(records.skip_records(1).is_err());
    assert_eq!(records.next(), None);
}

proptest! {
    #[test]
    fn round_trip(pushes in pushes(), time_ms in any::<u64>(), skip in 0..50u32) {
        let batch = build(time_ms, &pushes);
        let view = BatchView::decode(batch.payload.clone()).unwrap();
        prop_assert_eq!(view.time_ms(), time_ms);
        let slices: Vec<_> = view.slices().collect();
        prop_assert_eq!(slices.len(), view.slice_count());

        let mut expected: BTreeMap<ShardId, Vec<Record>> = BTreeMap::new();
        for (nth, (shard, record)) in pushes.iter().enumerate() {
            let place = batch.places[nth];
            prop_assert_eq!(slices[place.slice as usize].shard, *shard);
            let records = expected.entry(*shard).or_default();
            prop_assert_eq!(place.nth as usize, records.len());
            records.push(record.clone());
        }
        prop_assert_eq!(slices.len(), expected.len());
        for (slice, (shard, records)) in slices.iter().zip(expected) {
            prop_assert_eq!(slice.shard, shard);
            prop_assert_eq!(slice.count as usize, records.len());
            prop_assert_eq!(BatchView::slice_at(&batch.payload, slice.pos), Ok(*slice));
            let decoded = BatchView::records_at(&batch.payload, slice.pos).unwrap();
            let decoded: Result<Vec<Record>, _> = decoded.collect();
            prop_assert_eq!(decoded, Ok(records.clone()));
            let mut rest = BatchView::records_at(&batch.payload, slice.pos).unwrap();
            rest.skip_records(skip).unwrap();
            let rest: Result<Vec<Record>, _> = rest.collect();
            prop_assert_eq!(rest.unwrap(), &records[records.len().min(skip as usize)..]);
        }
    }

    #[test]
    fn the_length_is_bounded_before_it_is_written(pushes in pushes()) {
        let mut builder = BatchBuilder::new(0);
        let mut bytes = builder.bytes();
        for (shard, record) in &pushes {
            bytes += BatchBuilder::cost(record);
            builder.push(*shard, record);
            prop_assert_eq!(builder.bytes(), bytes);
        }
        prop_assert!(builder.finish().payload.len() <= bytes);
    }

    /// Arbitrary bytes, and sound batches with some bytes changed or cut: an error or a view, never
    /// a panic, and whatever is given out lies within the bytes.
    #[test]
    fn damaged_bytes_never_panic(
        pushes in pushes(),
        noise in vec(any::<u8>(), 0..200),
        keep in any::<bool>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        positions in vec(any::<u32>(), 4),
    ) {
        let mut bytes = match keep {
            true => build(1, &pushes).payload.to_vec(),
            false => [&[1, 1, 0, 0][..], &noise].concat(),
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut.index(2) == 0 {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let payload = Bytes::from(bytes);
        let mut at: Vec<u32> = positions;
        at.extend(0..payload.len() as u32 + 2);
        if let Ok(view) = BatchView::decode(payload.clone()) {
            let positions: Vec<u32> = view.slices().map(|slice| slice.pos).collect();
            prop_assert_eq!(positions.len(), view.slice_count());
            at.extend(positions);
        }
        for pos in at {
            let Ok(records) = BatchView::records_at(&payload, pos) else { continue };
            let mut skipped = records.clone();
            let _ = skipped.skip_records(1);
            let bytes: usize = records.flatten().map(|it| it.size() as usize).sum();
            prop_assert!(bytes <= payload.len());
        }
    }
}

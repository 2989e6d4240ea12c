//! Taking records out of log entries, without a group: what fits, where it goes on, what is damage.

use braid_log::{EntryKind, LogId};
use braid_stream::batch::BatchBuilder;
use braid_stream::hash::HashRange;
use braid_stream::ids::StreamId;
use braid_stream::name::PartitionKey;
use bytes::Bytes;

use super::*;

const CREATED_S: u64 = 1_700_000_000;

fn shard(index: u32) -> ShardId {
    ShardId { stream: StreamId(1), index }
}

fn extent(next: u64) -> Extent {
    Extent {
        shard: Shard {
            id: shard(0),
            range: HashRange::FULL,
            created_s: CREATED_S,
            parents: [None, None],
            state: ShardState::Open,
            next: Offset(next),
            trimmed: Offset(0),
            last_time_ms: 0,
            bytes: 0,
            retention_ms: 1,
            limits: Limits::DEFAULT,
        },
    }
}

fn record(data: &str) -> Record {
    Record {
        partition_key: PartitionKey::parse("k").unwrap(),
        explicit_hash: None,
        data: Bytes::copy_from_slice(data.as_bytes()),
    }
}

/// A log entry with records of shard 1 and `data` for shard 0, and shard 0's index entry.
fn entry(log_index: u64, first: u64, data: &[&str]) -> (Entry, IndexEntry) {
    let mut batch = BatchBuilder::new(log_index * 1000);
    for text in data {
        batch.push(shard(1), &record("other"));
        batch.push(shard(0), &record(text));
    }
    let payload = batch.finish().payload;
    let pos = BatchView::decode(payload.clone()).unwrap().slices().find(|s| s.shard == shard(0)).unwrap().pos;
    let slice = IndexEntry {
        shard: shard(0),
        first: Offset(first),
        count: data.len() as u32,
        log_index,
        pos,
        time_ms: log_index * 1000,
    };
    (Entry::new(LogId { term: 1, index: log_index }, EntryKind::Normal, payload), slice)
}

fn texts(gathered: &Gathered) -> Vec<&str> {
    gathered.records.iter().map(|it| std::str::from_utf8(&it.record.data).unwrap()).collect()
}

#[test]
fn a_slice_is_entered_in_its_middle_and_numbers_follow_the_offsets() {
    let (log, slice) = entry(7, 10, &["a", "b", "c"]);
    let mut gathered = Gathered::new(Offset(11), Budget::of(100, 1 << 20));
    gathered.take(&extent(13), &slice, &log).unwrap();
    assert_eq!(texts(&gathered), ["b", "c"]);
    assert_eq!(gathered.next, Offset(13));
    let number = gathered.records[0].sequence_number;
    assert_eq!((number.offset, number.created_s, number.arrival_s), (Offset(11), CREATED_S, 7));
    assert_eq!(gathered.bytes, 4);
}

#[test]
fn the_budget_ends_a_batch_within_a_slice_but_never_before_the_first_record() {
    let (log, slice) = entry(1, 0, &["aaaa", "bbbb", "cccc"]);
    let mut by_count = Gathered::new(Offset(0), Budget::of(2, 1 << 20));
    by_count.take(&extent(3), &slice, &log).unwrap();
    assert_eq!((texts(&by_count), by_count.next, by_count.full()), (vec!["aaaa", "bbbb"], Offset(2), true));

    let mut by_bytes = Gathered::new(Offset(0), Budget::of(100, 1));
    by_bytes.take(&extent(3), &slice, &log).unwrap();
    assert_eq!((texts(&by_bytes), by_bytes.next, by_bytes.full()), (vec!["aaaa"], Offset(1), true));
}

#[test]
fn an_index_that_does_not_fit_the_log_is_damage_and_not_a_shorter_answer() {
    let (log, slice) = entry(5, 0, &["a", "b"]);
    let wrong = [
        IndexEntry { log_index: 6, ..slice },
        IndexEntry { count: 3, ..slice },
        IndexEntry { pos: 16, ..slice }.with_shard_0_elsewhere(&slice),
        IndexEntry { pos: slice.pos + 1, ..slice },
        IndexEntry { first: Offset(1), ..slice },
    ];
    for entry in wrong {
        let mut gathered = Gathered::new(Offset(0), Budget::of(100, 1 << 20));
        let taken = gathered.take(&extent(2), &entry, &log);
        assert!(matches!(taken, Err(ReadError::Damaged { .. })), "{entry:?}: {taken:?}");
        assert!(gathered.records.is_empty());
    }
}

trait Elsewhere {
    fn with_shard_0_elsewhere(self, right: &IndexEntry) -> IndexEntry;
}

impl Elsewhere for IndexEntry {
    /// Any position but the right one: shard 0 is the first slice, so point behind it.
    fn with_shard_0_elsewhere(mut self, right: &IndexEntry) -> IndexEntry {
        if self.pos == right.pos {
            self.pos = right.pos + 20 + 2 * 10;
        }
        self
    }
}

#[test]
fn runs_are_cut_where_log_indexes_are_not_consecutive() {
    let at = |log_index| IndexEntry { log_index, ..entry(1, 0, &["a"]).1 };
    let entries = [at(1), at(2), at(5), at(6), at(9)];
    let runs: Vec<usize> = consecutive(&entries).map(<[_]>::len).collect();
    assert_eq!(runs, [2, 2, 1]);
}

#[test]
fn a_closed_shard_ends_at_its_end_only() {
    let mut closed = extent(3);
    closed.shard.state = ShardState::Closed { last: Some(Offset(2)), at_ms: 0, children: vec![4, 5] };
    assert_eq!(closed.ended(Offset(2)), None);
    assert_eq!(closed.ended(Offset(3)), Some(vec![4, 5]));
    assert_eq!(extent(3).ended(Offset(3)), None);
}

#[test]
fn behind_is_zero_at_the_tip() {
    let (log, slice) = entry(7, 0, &["a", "b"]);
    let mut gathered = Gathered::new(Offset(0), Budget::of(1, 1 << 20));
    gathered.take(&extent(2), &slice, &log).unwrap();
    let batch = |at_tip| Batch { records: gathered.records.clone(), bytes: 0, next: Offset(1), at_tip, ended: None };
    assert_eq!(batch(false).behind_ms(9_500), 2_500);
    assert_eq!(batch(false).behind_ms(1), 0, "a clock behind the stamps");
    assert_eq!(batch(true).behind_ms(9_500), 0);
}

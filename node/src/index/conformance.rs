//! What every record index must do: one suite for all of them.

use std::collections::BTreeMap;

use braid_stream::ids::{GroupId, Offset, ShardId, StreamId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{IndexEntry, RecordIndex};

const GROUP: GroupId = GroupId(7);

/// A shard of stream 1.
pub fn shard(index: u32) -> ShardId {
    ShardId { stream: StreamId(1), index }
}

/// An index entry at byte position 0.
pub fn entry(shard: ShardId, first: u64, count: u32, log_index: u64, time_ms: u64) -> IndexEntry {
    IndexEntry { shard, first: Offset(first), count, log_index, pos: 0, time_ms }
}

/// Runs every case, each on an index of its own.
pub fn all(mut make: impl FnMut() -> Box<dyn RecordIndex>) {
    seek_finds_the_slice_that_holds_an_offset(&*make());
    shards_and_groups_do_not_see_each_other(&*make());
    scan_begins_with_the_slice_that_holds_the_offset(&*make());
    time_is_found_among_equal_times_and_gaps(&*make());
    trim_keeps_a_slice_that_straddles(&*make());
    truncation_follows_the_log(&*make());
    marks_are_per_group_and_cleared(&*make());
    agrees_with_the_plain_model(&mut make);
}

fn seek_finds_the_slice_that_holds_an_offset(index: &dyn RecordIndex) {
    let (a, b) = (entry(shard(0), 0, 10, 1, 100), entry(shard(0), 10, 1, 2, 100));
    index.put(GROUP, &[a, b]).unwrap();
    let seek = |offset| index.seek(GROUP, shard(0), Offset(offset)).unwrap();
    assert_eq!(seek(0), Some(a));
    assert_eq!(seek(9), Some(a));
    assert_eq!(seek(10), Some(b));
    assert_eq!(seek(11), Some(b), "the greatest first ≤ offset, even past its end");
    assert!(!seek(11).unwrap().holds(Offset(11)));
    assert_eq!(seek(u64::MAX), Some(b));
    assert_eq!(index.scan(GROUP, shard(0), Offset(0), 10).unwrap(), [a, b]);
}

fn shards_and_groups_do_not_see_each_other(index: &dyn RecordIndex) {
    let edge = ShardId { stream: StreamId(u32::MAX), index: u32::MAX };
    let entries = [entry(shard(0), 5, 1, 1, 1), entry(shard(1), 3, 1, 2, 1), entry(edge, 0, 1, 3, 1)];
    index.put(GROUP, &entries).unwrap();
    index.put(GroupId(u32::MAX), &entries).unwrap();
    assert_eq!(index.seek(GROUP, shard(1), Offset(2)), Ok(None));
    assert_eq!(index.seek(GROUP, shard(2), Offset(9)), Ok(None));
    assert_eq!(index.scan(GROUP, shard(0), Offset(0), 10).unwrap(), entries[..1]);
    assert_eq!(index.seek(GROUP, edge, Offset(9)), Ok(Some(entries[2])));
    index.truncate_from(GroupId(u32::MAX), edge, Offset(0)).unwrap();
    assert_eq!(index.seek(GroupId(u32::MAX), edge, Offset(9)), Ok(None));
    index.clear(GROUP).unwrap();
    assert_eq!(index.seek(GROUP, edge, Offset(9)), Ok(None));
    assert_eq!(index.seek(GroupId(u32::MAX), shard(0), Offset(9)), Ok(Some(entries[0])));
    index.clear(GroupId(u32::MAX)).unwrap();
    assert_eq!(index.seek(GroupId(u32::MAX), shard(0), Offset(9)), Ok(None));
}

fn scan_begins_with_the_slice_that_holds_the_offset(index: &dyn RecordIndex) {
    let entries = [entry(shard(0), 4, 4, 1, 1), entry(shard(0), 8, 4, 2, 2), entry(shard(0), 20, 1, 3, 3)];
    index.put(GROUP, &entries).unwrap();
    let scan = |from, limit| index.scan(GROUP, shard(0), Offset(from), limit).unwrap();
    assert_eq!(scan(0, 9), entries, "below the first: from the first");
    assert_eq!(scan(7, 9), entries);
    assert_eq!(scan(8, 9), entries[1..]);
    assert_eq!(scan(12, 9), entries[2..], "in a gap: from the next");
    assert_eq!(scan(21, 9), []);
    assert_eq!(scan(0, 2), entries[..2]);
    assert_eq!(scan(0, 0), []);
}

fn time_is_found_among_equal_times_and_gaps(index: &dyn RecordIndex) {
    let times = [(0, 10), (1, 10), (5, 20), (1_000, 20), (1_000_000, 20), (u64::MAX - 9, 30)];
    let entries: Vec<_> =
        times.iter().enumerate().map(|(n, (first, ms))| entry(shard(0), *first, 1, n as u64, *ms)).collect();
    index.put(GROUP, &entries).unwrap();
    let at = |ms| index.seek_time(GROUP, shard(0), ms).unwrap().map(|e| e.log_index);
    assert_eq!(at(0), Some(0));
    assert_eq!(at(10), Some(0));
    assert_eq!(at(11), Some(2));
    assert_eq!(at(20), Some(2));
    assert_eq!(at(21), Some(5));
    assert_eq!(at(31), None);
    assert_eq!(index.seek_time(GROUP, shard(1), 0), Ok(None));
}

fn trim_keeps_a_slice_that_straddles(index: &dyn RecordIndex) {
    let entries: Vec<_> = (0..10).map(|n| entry(shard(0), n * 10, 10, n, n)).collect();
    index.put(GROUP, &entries).unwrap();
    index.trim(GROUP, shard(0), Offset(35)).unwrap();
    assert_eq!(index.scan(GROUP, shard(0), Offset(0), 99).unwrap(), entries[3..]);
    assert_eq!(index.seek(GROUP, shard(0), Offset(29)), Ok(None));
    index.trim(GROUP, shard(0), Offset(10)).unwrap(); // never goes back
    index.trim(GROUP, shard(0), Offset(90)).unwrap();
    assert_eq!(index.scan(GROUP, shard(0), Offset(0), 99).unwrap(), entries[9..]);
    index.trim(GROUP, shard(0), Offset(u64::MAX)).unwrap();
    assert_eq!(index.scan(GROUP, shard(0), Offset(0), 99).unwrap(), []);
}

fn truncation_follows_the_log(index: &dyn RecordIndex) {
    let entries = [entry(shard(0), 0, 1, 1, 1), entry(shard(1), 0, 1, 2, 1), entry(shard(0), 1, 1, 3, 1)];
    index.put(GROUP, &entries).unwrap();
    index.put(GroupId(8), &entries).unwrap();
    index.flush(GROUP, 3).unwrap();
    index.truncate_after(GROUP, 9).unwrap();
    assert_eq!(index.mark(GROUP), Ok(Some(3)), "a longer log changes nothing");
    index.truncate_after(GROUP, 2).unwrap();
    assert_eq!(index.mark(GROUP), Ok(Some(2)));
    assert_eq!(index.scan(GROUP, shard(0), Offset(0), 9).unwrap(), entries[..1]);
    assert_eq!(index.scan(GROUP, shard(1), Offset(0), 9).unwrap(), entries[1..2]);
    assert_eq!(index.scan(GroupId(8), shard(0), Offset(0), 9).unwrap().len(), 2);
    assert_eq!(index.mark(GroupId(8)), Ok(None));
}

fn marks_are_per_group_and_cleared(index: &dyn RecordIndex) {
    assert_eq!(index.mark(GroupId(0)), Ok(None));
    index.flush(GroupId(0), 5).unwrap();
    index.flush(GroupId(u32::MAX), 6).unwrap();
    assert_eq!((index.mark(GroupId(0)), index.mark(GroupId(u32::MAX))), (Ok(Some(5)), Ok(Some(6))));
    index.flush(GroupId(0), 9).unwrap();
    index.clear(GroupId(u32::MAX)).unwrap();
    assert_eq!((index.mark(GroupId(0)), index.mark(GroupId(u32::MAX))), (Ok(Some(9)), Ok(None)));
}

#[derive(Clone, Debug)]
enum Op {
    /// Appends slices of these sizes; time moves on by that much before each.
    Append {
        shard: u32,
        slices: Vec<(u32, u64)>,
    },
    Trim {
        shard: u32,
        percent: u64,
    },
    TruncateShard {
        shard: u32,
        slices: usize,
    },
    Truncate {
        back: u64,
    },
    Flush,
    Clear,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let shard = 0..3u32;
    let append = (shard.clone(), prop::collection::vec((1..5u32, 0..3u64), 1..20));
    prop::collection::vec(
        prop_oneof![
            8 => append.prop_map(|(shard, slices)| Op::Append { shard, slices }),
            3 => (shard.clone(), 0..120u64).prop_map(|(shard, percent)| Op::Trim { shard, percent }),
            1 => (shard, 0..8usize).prop_map(|(shard, slices)| Op::TruncateShard { shard, slices }),
            1 => (0..10u64).prop_map(|back| Op::Truncate { back }),
            1 => Just(Op::Flush),
            1 => Just(Op::Clear),
        ],
        1..30,
    )
}

/// The obvious implementation: vectors, searched from the front.
#[derive(Default)]
struct Model {
    shards: BTreeMap<u32, Vec<IndexEntry>>,
    next: BTreeMap<u32, u64>,
    log_index: u64,
    time_ms: u64,
    mark: Option<u64>,
}

impl Model {
    fn run(&mut self, op: &Op, index: &dyn RecordIndex) {
        match op {
            Op::Append { shard: s, slices } => {
                let batch: Vec<_> = slices
                    .iter()
                    .map(|(count, later)| {
                        self.log_index += 1;
                        self.time_ms += later;
                        let next = self.next.entry(*s).or_default();
                        let made = entry(shard(*s), *next, *count, self.log_index, self.time_ms);
                        *next += u64::from(*count);
                        made
                    })
                    .collect();
                index.put(GROUP, &batch).unwrap();
                self.shards.entry(*s).or_default().extend(batch);
            }
            Op::Trim { shard: s, percent } => {
                let below = Offset(self.next.get(s).copied().unwrap_or(0) * percent / 100);
                index.trim(GROUP, shard(*s), below).unwrap();
                self.shards.entry(*s).or_default().retain(|e| e.end() > below);
            }
            Op::TruncateShard { shard: s, slices } => {
                let all = self.shards.entry(*s).or_default();
                let kept = all.len().saturating_sub(*slices);
                // Offsets are used again from there, as after a log that lost its end.
                let from = all.get(kept).map_or(self.next.get(s).copied().unwrap_or(0), |e| e.first.0);
                index.truncate_from(GROUP, shard(*s), Offset(from)).unwrap();
                all.truncate(kept);
                self.next.insert(*s, from);
            }
            Op::Truncate { back } => {
                let last = self.log_index.saturating_sub(*back);
                index.truncate_after(GROUP, last).unwrap();
                self.shards.values_mut().for_each(|all| all.retain(|e| e.log_index <= last));
                self.mark = self.mark.map(|mark| mark.min(last));
            }
            Op::Flush => {
                index.flush(GROUP, self.log_index).unwrap();
                self.mark = Some(self.log_index);
            }
            Op::Clear => {
                index.clear(GROUP).unwrap();
                self.shards.clear();
                self.mark = None;
            }
        }
    }

    fn compare(&self, index: &dyn RecordIndex) {
        assert_eq!(index.mark(GROUP), Ok(self.mark));
        for s in 0..3 {
            let all = self.shards.get(&s).map_or(&[][..], Vec::as_slice);
            let end = self.next.get(&s).copied().unwrap_or(0) + 2;
            for offset in 0..end {
                let floor = all.iter().rev().find(|e| e.first.0 <= offset).copied();
                assert_eq!(index.seek(GROUP, shard(s), Offset(offset)), Ok(floor));
                let rest: Vec<_> = all.iter().filter(|e| e.end().0 > offset).take(3).copied().collect();
                assert_eq!(index.scan(GROUP, shard(s), Offset(offset), 3), Ok(rest));
            }
            for ms in 0..self.time_ms + 2 {
                let first = all.iter().find(|e| e.time_ms >= ms).copied();
                assert_eq!(index.seek_time(GROUP, shard(s), ms), Ok(first), "time {ms}");
            }
        }
    }
}

fn agrees_with_the_plain_model(make: &mut impl FnMut() -> Box<dyn RecordIndex>) {
    let make = std::cell::RefCell::new(make);
    TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() })
        .run(&ops(), |ops| {
            let index = (make.borrow_mut())();
            let mut model = Model::default();
            for op in &ops {
                model.run(op, &*index);
            }
            model.compare(&*index);
            Ok(())
        })
        .unwrap();
}

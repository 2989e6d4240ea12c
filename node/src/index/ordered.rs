//! The record index in an ordered map: the simulator's, and `index = "memory"`.
//!
//! Invariant: answers exactly what `RocksIndex` answers; one conformance suite
//! holds both to that. It survives nothing by itself; [`OrderedIndex::crash`] lets the simulator
//! lose what a crash may lose: everything since the last flush.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use braid_stream::ids::{GroupId, Offset, ShardId};

use super::{IndexEntry, IndexError, RecordIndex, bisect_time};

type Key = (GroupId, ShardId, Offset);

/// See the module's documentation.
#[derive(Default)]
pub struct OrderedIndex {
    maps: Mutex<Maps>,
}

#[derive(Default)]
struct Maps {
    entries: BTreeMap<Key, IndexEntry>,
    marks: BTreeMap<GroupId, u64>,
    /// What to put back, newest last, to be again what the last flush left. `None`: not kept.
    undo: Option<Vec<(Key, Option<IndexEntry>)>>,
}

impl Maps {
    fn set(&mut self, key: Key, entry: Option<IndexEntry>) {
        let before = match entry {
            Some(entry) => self.entries.insert(key, entry),
            None => self.entries.remove(&key),
        };
        if let Some(undo) = &mut self.undo {
            undo.push((key, before));
        }
    }

    fn remove_all(&mut self, keys: Vec<Key>) {
        for key in keys {
            self.set(key, None);
        }
    }

    fn durable(&mut self) {
        if let Some(undo) = &mut self.undo {
            undo.clear();
        }
    }

    fn shard(&self, group: GroupId, shard: ShardId) -> impl DoubleEndedIterator<Item = &IndexEntry> {
        self.entries.range((group, shard, Offset(0))..=(group, shard, Offset(u64::MAX))).map(|(_, entry)| entry)
    }

    fn floor(&self, group: GroupId, shard: ShardId, offset: Offset) -> Option<IndexEntry> {
        self.entries.range((group, shard, Offset(0))..=(group, shard, offset)).next_back().map(|(_, entry)| *entry)
    }

    fn group_keys(&self, group: GroupId) -> Vec<Key> {
        let first = ShardId { stream: braid_stream::ids::StreamId(0), index: 0 };
        self.entries
            .range((group, first, Offset(0))..)
            .take_while(|((g, ..), _)| *g == group)
            .map(|(key, _)| *key)
            .collect()
    }
}

impl OrderedIndex {
    /// An empty index.
    pub fn new() -> OrderedIndex {
        OrderedIndex::default()
    }

    /// An empty index that can [`crash`](OrderedIndex::crash); it keeps an undo list, so memory
    /// grows with what is put between flushes.
    pub fn crashable() -> OrderedIndex {
        OrderedIndex { maps: Mutex::new(Maps { undo: Some(Vec::new()), ..Maps::default() }) }
    }

    /// Loses everything since the last flush. RocksDB may keep some of it; both must be survived.
    pub fn crash(&self) {
        let mut maps = self.lock();
        let undo = maps.undo.replace(Vec::new()).expect("only a crashable index crashes");
        for (key, before) in undo.into_iter().rev() {
            match before {
                Some(entry) => maps.entries.insert(key, entry),
                None => maps.entries.remove(&key),
            };
        }
    }

    /// Loses all, as when the directory is gone or the database damaged.
    pub fn lose(&self) {
        let mut maps = self.lock();
        *maps = Maps { undo: maps.undo.is_some().then(Vec::new), ..Maps::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().expect("no one panics while holding the index")
    }
}

impl RecordIndex for OrderedIndex {
    fn put(&self, group: GroupId, batch: &[IndexEntry]) -> Result<(), IndexError> {
        let mut maps = self.lock();
        for entry in batch {
            assert!(entry.count > 0, "an index entry points at no records");
            maps.set((group, entry.shard, entry.first), Some(*entry));
        }
        Ok(())
    }

    fn seek(&self, group: GroupId, shard: ShardId, offset: Offset) -> Result<Option<IndexEntry>, IndexError> {
        Ok(self.lock().floor(group, shard, offset))
    }

    fn scan(&self, group: GroupId, shard: ShardId, from: Offset, limit: usize) -> Result<Vec<IndexEntry>, IndexError> {
        let maps = self.lock();
        let start = match maps.floor(group, shard, from) {
            Some(entry) if entry.holds(from) => entry.first,
            _ => from,
        };
        Ok(maps
            .entries
            .range((group, shard, start)..=(group, shard, Offset(u64::MAX)))
            .take(limit)
            .map(|(_, entry)| *entry)
            .collect())
    }

    fn seek_time(&self, group: GroupId, shard: ShardId, ms: u64) -> Result<Option<IndexEntry>, IndexError> {
        let maps = self.lock();
        let mut all = maps.shard(group, shard);
        let Some(head) = all.next().copied() else { return Ok(None) };
        let tail = all.next_back().copied().unwrap_or(head);
        bisect_time(ms, head, tail, |offset| Ok(maps.floor(group, shard, Offset(offset))))
    }

    fn trim(&self, group: GroupId, shard: ShardId, below: Offset) -> Result<(), IndexError> {
        let mut maps = self.lock();
        let gone = maps
            .shard(group, shard)
            .take_while(|entry| entry.end() <= below)
            .map(|entry| (group, shard, entry.first))
            .collect();
        maps.remove_all(gone);
        Ok(())
    }

    fn truncate_from(&self, group: GroupId, shard: ShardId, from: Offset) -> Result<(), IndexError> {
        let mut maps = self.lock();
        let gone = maps
            .shard(group, shard)
            .filter(|entry| entry.first >= from)
            .map(|entry| (group, shard, entry.first))
            .collect();
        maps.remove_all(gone);
        Ok(())
    }

    fn truncate_after(&self, group: GroupId, last_kept: u64) -> Result<(), IndexError> {
        let mut maps = self.lock();
        let mut gone = maps.group_keys(group);
        gone.retain(|key| maps.entries[key].log_index > last_kept);
        maps.remove_all(gone);
        if let Some(mark) = maps.marks.get_mut(&group) {
            *mark = last_kept.min(*mark);
        }
        maps.durable();
        Ok(())
    }

    fn flush(&self, group: GroupId, mark: u64) -> Result<(), IndexError> {
        let mut maps = self.lock();
        maps.marks.insert(group, mark);
        maps.durable();
        Ok(())
    }

    fn mark(&self, group: GroupId) -> Result<Option<u64>, IndexError> {
        Ok(self.lock().marks.get(&group).copied())
    }

    fn clear(&self, group: GroupId) -> Result<(), IndexError> {
        let mut maps = self.lock();
        let gone = maps.group_keys(group);
        maps.remove_all(gone);
        maps.marks.remove(&group);
        maps.durable();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    #[test]
    fn conforms() {
        conformance::all(|| Box::new(OrderedIndex::new()));
        conformance::all(|| Box::new(OrderedIndex::crashable()));
    }

    #[test]
    fn a_crash_loses_what_was_not_flushed_and_nothing_else() {
        let index = OrderedIndex::crashable();
        let (group, shard) = (GroupId(1), conformance::shard(1));
        index.put(group, &[conformance::entry(shard, 0, 2, 1, 10)]).unwrap();
        index.flush(group, 1).unwrap();
        index.put(group, &[conformance::entry(shard, 2, 1, 2, 11)]).unwrap();
        index.trim(group, shard, Offset(2)).unwrap();
        index.crash();
        let left = index.scan(group, shard, Offset(0), 10).unwrap();
        assert_eq!(left, [conformance::entry(shard, 0, 2, 1, 10)]);
        assert_eq!(index.mark(group), Ok(Some(1)));
    }
}

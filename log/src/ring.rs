//! The newest entries, in memory: they serve replication, apply and tail readers without touching the disk.
//!
//! Invariant: the ring is a contiguous suffix of the log, and holds every entry that is not durable yet, however large
//! that is: a file is only ever read where it has been written and synced.

use std::collections::VecDeque;

use braid_probe::{Bug, planted};

use crate::entry::Entry;

pub(crate) struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    pub(crate) fn new(bytes_max: usize) -> Ring {
        Ring { entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        if planted(Bug::RingKeepsTruncated) && self.entries.back().is_some_and(|e| e.id().index >= entry.id().index) {
            return;
        }
        if let Some(last) = self.entries.back() {
            assert_eq!(last.id().index + 1, entry.id().index, "the ring is contiguous");
        }
        self.bytes += entry.wire_len();
        self.entries.push_back(entry);
    }

    /// Drops the oldest entries that no longer fit, durable ones only.
    pub(crate) fn evict(&mut self, durable_end: u64) {
        while self.bytes > self.bytes_max && self.entries.front().is_some_and(|e| e.id().index < durable_end) {
            self.bytes -= self.entries.pop_front().map_or(0, |e| e.wire_len());
        }
    }

    /// Drops the entries at and after `end`.
    pub(crate) fn truncate(&mut self, end: u64) {
        if planted(Bug::RingKeepsTruncated) {
            return;
        }
        while self.entries.back().is_some_and(|e| e.id().index >= end) {
            self.bytes -= self.entries.pop_back().map_or(0, |e| e.wire_len());
        }
    }

    /// Drops the entries before `first`.
    pub(crate) fn purge(&mut self, first: u64) {
        while self.entries.front().is_some_and(|e| e.id().index < first) {
            self.bytes -= self.entries.pop_front().map_or(0, |e| e.wire_len());
        }
    }

    pub(crate) fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|e| e.id().index)
    }

    /// Entries from `start` while `take` agrees; none when `start` is not in the ring.
    pub(crate) fn copy_from(&self, start: u64, mut take: impl FnMut(&Entry) -> bool, out: &mut Vec<Entry>) {
        let Some(skip) = self.first_index().and_then(|first| start.checked_sub(first)) else {
            return;
        };
        let wanted = self.entries.range((skip as usize).min(self.entries.len())..);
        out.extend(wanted.take_while(|e| take(e)).cloned());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::entry::EntryKind;
    use crate::id::LogId;

    #[test]
    fn what_is_not_durable_is_never_evicted() {
        let mut ring = Ring::new(100);
        for index in 0..10 {
            ring.push(Entry::new(LogId::new(1, index), EntryKind::Normal, Bytes::from_static(&[0; 68])));
        }
        ring.evict(0);
        assert_eq!(ring.first_index(), Some(0));
        ring.evict(4);
        assert_eq!(ring.first_index(), Some(4));
        ring.evict(10);
        assert_eq!(ring.first_index(), Some(9), "one entry of a hundred bytes fits");
        ring.truncate(9);
        assert_eq!((ring.first_index(), ring.bytes), (None, 0));
    }
}

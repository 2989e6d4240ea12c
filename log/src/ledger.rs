//! What the log holds, as plain data: segments, live indexes, terms, hard state. Pure and synchronous.
//!
//! The same functions keep it while the log runs (at enqueue) and rebuild it from frames at recovery, so the two cannot
//! disagree about what a truncation or a purge means. Invariant: live entries are exactly `first_index()..next_index()`;
//! segments' ranges `[first_index, next_index)` tile them from the first segment on, in order, without gaps.
//! It knows nothing about durability, files or callbacks.

use std::collections::VecDeque;

use braid_probe::{Bug, planted};

use crate::id::{LogId, SegmentSeq, Vote, end_of};
use crate::segment::{HEADER_BLOCK, HardState, SegmentHeader};

/// Bytes between two remembered positions of entries: a read scans at most this much before what it wants.
const POINT_BYTES: u64 = 64 << 10;

/// Entry `index` stands at `offset`; from there entries are contiguous up to the next point's index.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Point {
    pub index: u64,
    pub offset: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub seq: SegmentSeq,
    pub salt: u64,
    pub capacity: u64,
    /// First index not truncated away; equal to `next_index` when the segment holds no entry.
    pub first_index: u64,
    pub next_index: u64,
    /// Bytes from the start of the file, header block included.
    pub used: u64,
    pub sealed: bool,
    pub points: Vec<Point>,
    /// The next entry doesn't follow its predecessor's bytes (truncation, purge or a new segment lies between).
    jump: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ledger {
    segments: VecDeque<Segment>,
    /// (first index, term) of each run of entries with one term, rising.
    terms: Vec<(u64, u64)>,
    state: HardState,
    /// No entry below this is in any segment of ours, truncated and purged ones aside.
    floor: u64,
}

impl Ledger {
    /// A ledger that begins with the segment of this header.
    pub(crate) fn starting_at(header: &SegmentHeader) -> Ledger {
        let mut ledger = Ledger { state: header.state, ..Ledger::default() };
        ledger.floor = ledger.next_index();
        ledger.add_segment(header);
        ledger
    }

    pub(crate) fn add_segment(&mut self, header: &SegmentHeader) {
        let next = self.next_index();
        if let Some(last) = self.segments.back() {
            assert_eq!(header.seq, last.seq.next(), "segments are numbered without gaps");
        }
        self.segments.push_back(Segment {
            seq: header.seq,
            salt: header.salt,
            capacity: header.capacity,
            first_index: next,
            next_index: next,
            used: HEADER_BLOCK,
            sealed: false,
            points: Vec::new(),
            jump: true,
        });
    }

    /// Entry `id` takes `len` bytes at the end of the last segment.
    pub(crate) fn push(&mut self, id: LogId, len: u64) {
        assert_eq!(id.index, self.next_index(), "entries are appended in order");
        assert!(self.state.last.is_none_or(|last| last.term <= id.term), "terms never go back");
        let segment = self.segments.back_mut().expect("a log has a segment");
        assert_eq!(segment.next_index, id.index);
        let far = segment.points.last().is_none_or(|p| segment.used - p.offset >= POINT_BYTES);
        if segment.jump || far {
            segment.points.push(Point { index: id.index, offset: segment.used });
            segment.jump = false;
        }
        segment.next_index += 1;
        segment.used += len;
        if self.terms.last().is_none_or(|&(_, term)| term != id.term) {
            self.terms.push((id.index, id.term));
        }
        self.state.last = Some(id);
    }

    /// A control frame takes `len` bytes at the end of the last segment. Returns where.
    pub(crate) fn push_control(&mut self, len: u64) -> u64 {
        let segment = self.segments.back_mut().expect("a log has a segment");
        segment.used += len;
        segment.used - len
    }

    /// Drops the entries after `kept`, which must be live, or `purged()`, or `None` when nothing is purged.
    pub(crate) fn truncate(&mut self, kept: Option<LogId>) {
        let end = end_of(kept);
        assert!(end >= end_of(self.state.purged), "what is purged cannot be truncated");
        self.state.last = kept;
        self.floor = self.floor.min(end);
        while self.terms.last().is_some_and(|&(first, _)| first >= end) {
            self.terms.pop();
        }
        for segment in self.segments.iter_mut().rev() {
            if segment.next_index <= end && segment.first_index < end {
                break;
            }
            segment.first_index = segment.first_index.min(end);
            segment.next_index = segment.next_index.min(end);
            while segment.points.last().is_some_and(|p| p.index >= end) {
                segment.points.pop();
            }
            segment.jump = true;
        }
    }

    /// Raises `purged()`. Beyond the end, the log becomes empty and the next entry is `upto.index + 1`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        if end_of(Some(upto)) <= end_of(self.state.purged) {
            return;
        }
        let end = upto.index + 1;
        if end >= self.next_index() {
            self.state.last = Some(upto);
            self.terms.clear();
            self.floor = end;
            for segment in &mut self.segments {
                (segment.first_index, segment.next_index) = (end, end);
                segment.points.clear();
                segment.jump = true;
            }
        }
        self.state.purged = Some(upto);
        let covered = self.terms.iter().take_while(|&&(first, _)| first <= end).count();
        self.terms.drain(..covered.saturating_sub(1));
    }

    pub(crate) fn set_vote(&mut self, vote: Vote) {
        self.state.vote = Some(vote);
    }

    pub(crate) fn set_committed(&mut self, id: Option<LogId>) {
        self.state.committed = id;
    }

    pub(crate) fn state(&self) -> HardState {
        self.state
    }

    pub(crate) fn first_index(&self) -> u64 {
        end_of(self.state.purged)
    }

    pub(crate) fn next_index(&self) -> u64 {
        end_of(self.state.last)
    }

    /// Indexes that should be here but were in no segment replayed: `Some(first such index)`.
    pub(crate) fn missing(&self) -> Option<u64> {
        (self.floor > self.first_index()).then_some(self.first_index())
    }

    /// The id at a live index, or at `purged()`.
    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        if let Some(purged) = self.state.purged.filter(|p| p.index == index) {
            return Some(purged);
        }
        if index < self.first_index() || index >= self.next_index() {
            return None;
        }
        let run = self.terms.partition_point(|&(first, _)| first <= index);
        let (_, term) = self.terms[run.checked_sub(1)?];
        Some(LogId { term, index })
    }

    pub(crate) fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    pub(crate) fn last_segment(&self) -> &Segment {
        self.segments.back().expect("a log has a segment")
    }

    pub(crate) fn segment(&self, seq: SegmentSeq) -> Option<&Segment> {
        let first = self.segments.front()?.seq.0;
        self.segments.get(seq.0.checked_sub(first)? as usize)
    }

    pub(crate) fn mark_sealed(&mut self, seq: SegmentSeq, used: u64) {
        let first = self.segments.front().expect("a log has a segment").seq.0;
        if let Some(at) = seq.0.checked_sub(first) {
            let segment = &mut self.segments[at as usize];
            segment.sealed = true;
            segment.used = used;
        }
    }

    /// The segment that holds a live `index`.
    pub(crate) fn segment_of(&self, index: u64) -> Option<&Segment> {
        if index < self.first_index() || index >= self.next_index() {
            return None;
        }
        let after = self.segments.partition_point(|s| s.first_index <= index);
        let segment = &self.segments[after.checked_sub(1)?];
        assert!(index < segment.next_index, "segments tile the live entries");
        Some(segment)
    }

    /// The last segment's live entries start, or will start, at `index`.
    pub(crate) fn segment_starts(&self, index: u64) -> bool {
        self.last_segment().first_index == index
    }

    /// Segment `seq`, still here, started right after `last` once, and a purge beyond the end has emptied it since.
    pub(crate) fn is_emptied_since(&self, seq: SegmentSeq, last: LogId) -> bool {
        let moved = self.segment(seq).is_some_and(|s| s.first_index > last.index + 1);
        moved && end_of(Some(last)) < self.first_index()
    }

    /// Takes off the front what a purge has emptied: sealed segments whose successor begins at or below `first_index()`.
    pub(crate) fn take_removable(&mut self) -> Vec<SegmentSeq> {
        let mut removable = Vec::new();
        let next = usize::from(self.state.purged.is_none() || !planted(Bug::PurgeTakesOneTooMany));
        while self.segments.len() > 1
            && self.segments[0].sealed
            && self.segments[next].first_index <= self.first_index()
        {
            removable.extend(self.segments.pop_front().map(|s| s.seq));
        }
        removable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::tests::example;

    fn ledger() -> Ledger {
        let header = SegmentHeader { seq: SegmentSeq(1), state: HardState::default(), ..example() };
        Ledger::starting_at(&header)
    }

    fn roll(ledger: &mut Ledger) {
        let last = ledger.last_segment().seq;
        ledger.mark_sealed(last, ledger.last_segment().used);
        ledger.add_segment(&SegmentHeader { seq: last.next(), state: ledger.state(), ..example() });
    }

    fn push(ledger: &mut Ledger, term: u64, range: std::ops::Range<u64>) {
        for index in range {
            ledger.push(LogId { term, index }, 40 << 10);
        }
    }

    #[test]
    fn truncation_across_segments_leaves_empty_ones_that_hold_nothing() {
        let mut l = ledger();
        push(&mut l, 1, 0..5);
        roll(&mut l);
        push(&mut l, 1, 5..8);
        roll(&mut l);
        push(&mut l, 2, 8..10);
        l.truncate(l.id_at(2));
        push(&mut l, 3, 3..6);
        let at = |i| l.segment_of(i).map(|s| s.seq.0);
        assert_eq!(
            (0..7).map(at).collect::<Vec<_>>(),
            [1, 1, 1, 3, 3, 3].map(Some).into_iter().chain([None]).collect::<Vec<_>>()
        );
        assert_eq!(l.id_at(2), Some(LogId::new(1, 2)));
        assert_eq!(l.id_at(3), Some(LogId::new(3, 3)));
        assert_eq!(l.last_segment().points[0].index, 3);
        assert_eq!(l.last_segment().first_index, 3);
    }

    #[test]
    fn a_truncation_inside_a_segment_puts_a_point_after_the_stale_bytes() {
        let mut l = ledger();
        push(&mut l, 1, 0..1);
        let after_first = l.last_segment().used;
        push(&mut l, 1, 1..2);
        l.truncate(l.id_at(0));
        push(&mut l, 2, 1..2);
        let points = &l.last_segment().points;
        assert_eq!(points.len(), 2);
        assert_eq!(points[1].index, 1);
        assert!(points[1].offset > after_first, "not where the truncated entry stands");
    }

    #[test]
    fn purge_beyond_the_end_empties_the_log() {
        let mut l = ledger();
        push(&mut l, 1, 0..3);
        l.purge(LogId::new(4, 10));
        assert_eq!((l.first_index(), l.next_index()), (11, 11));
        assert_eq!(l.id_at(10), Some(LogId::new(4, 10)));
        roll(&mut l);
        assert_eq!(l.take_removable(), [SegmentSeq(1)]);
        push(&mut l, 4, 11..13);
        assert_eq!(l.segment_of(11).map(|s| s.seq), Some(SegmentSeq(2)));
        assert_eq!(l.missing(), None);
    }

    #[test]
    fn purge_removes_only_sealed_segments_that_are_wholly_below() {
        let mut l = ledger();
        push(&mut l, 1, 0..3);
        roll(&mut l);
        push(&mut l, 1, 3..6);
        l.purge(LogId::new(1, 1));
        assert_eq!(l.take_removable(), []);
        l.purge(LogId::new(1, 2));
        assert_eq!(l.take_removable(), [SegmentSeq(1)]);
        l.purge(LogId::new(1, 5));
        assert_eq!(l.take_removable(), [], "the last segment stays");
        assert_eq!(l.id_at(5), Some(LogId::new(1, 5)));
        assert_eq!(l.id_at(4), None);
    }

    #[test]
    fn a_suffix_that_needs_more_than_it_holds_says_what_is_missing() {
        let header =
            SegmentHeader { state: HardState { last: Some(LogId::new(1, 9)), ..HardState::default() }, ..example() };
        let mut l = Ledger::starting_at(&header);
        push(&mut l, 1, 10..12);
        assert_eq!(l.missing(), Some(0));
        l.purge(LogId::new(1, 9));
        assert_eq!(l.missing(), None);
    }
}

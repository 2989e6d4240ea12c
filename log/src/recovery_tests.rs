//! The recovery table, row by row.

use bytes::Bytes;

use super::*;
use crate::entry::{Entry, EntryKind};
use crate::frame::{HEADER, salt_at};
use crate::id::Position;
use crate::ledger::Ledger;
use crate::scan::scan;
use crate::segment::tests::example;
use crate::segment::{HardState, SEAL_LEN};

/// A segment's bytes under construction.
struct Image {
    header: SegmentHeader,
    bytes: Vec<u8>,
}

impl Image {
    fn new(seq: u64) -> Image {
        let header =
            SegmentHeader { seq: SegmentSeq(seq), capacity: 16 << 10, state: HardState::default(), ..example() };
        let mut bytes = header.encode();
        bytes.resize(HEADER_BLOCK as usize, 0);
        Image { header, bytes }
    }

    fn control(mut self, control: Control) -> Image {
        let at = self.bytes.len() as u64;
        control.encode_to(self.header.salt, at, &mut self.bytes);
        self
    }

    /// A batch of one entry: a Mark that everything before it is durable, and the entry.
    fn batch(self, index: u64) -> Image {
        let synced = Position { seq: self.header.seq, offset: self.bytes.len() as u64 };
        self.control(Control::Mark { committed: None, synced }).entry(LogId::new(1, index))
    }

    fn entry(mut self, id: LogId) -> Image {
        let entry = Entry::new(id, EntryKind::Normal, Bytes::from(vec![id.index as u8 + 1; 100]));
        let at = self.bytes.len() as u64;
        self.bytes.extend(entry.frame_header().encode(salt_at(self.header.salt, at)));
        self.bytes.extend_from_slice(entry.payload());
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self
    }

    fn sealed(self) -> Image {
        let next = self.header.seq.next();
        self.control(Control::Seal { next })
    }

    fn end(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn flip(mut self, byte: u64) -> Image {
        self.bytes[byte as usize] ^= 0x10;
        self
    }

    fn zero(mut self, from: u64, to: u64) -> Image {
        self.bytes[from as usize..to as usize].fill(0);
        self
    }

    /// Filled up to its capacity, as a last segment is.
    fn judge_last(mut self) -> Verdict {
        self.bytes.resize(self.header.capacity as usize, 0);
        self.judge_short(None)
    }

    fn judge_short(self, next: Option<Next>) -> Verdict {
        judge(&self.header, self.bytes.len() as u64, &scan(&self.header, &self.bytes), next)
    }
}

fn next(prev_end: u64, unused: bool) -> Option<Next> {
    Some(Next { prev_end, unused })
}

fn damaged_at(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Refuse(Refusal::Damaged { byte, .. }) => byte,
        other => panic!("not damage: {other:?}"),
    }
}

#[test]
fn last_and_zeroes_to_the_end_is_clean() {
    assert_eq!(Image::new(1).judge_last(), Verdict::Clean);
    assert_eq!(Image::new(1).batch(0).batch(1).judge_last(), Verdict::Clean);
}

#[test]
fn last_and_nothing_whole_after_a_bad_frame_is_a_torn_tail() {
    let image = Image::new(1).batch(0).batch(1);
    let last_byte = image.end() - 9;
    assert_eq!(image.flip(last_byte).judge_last(), Verdict::CutTail { survivors: 0 });
}

#[test]
fn last_and_whole_frames_of_the_same_batch_after_a_bad_one_are_unsynced_survivors() {
    let image = Image::new(1).batch(0).batch(1);
    let bad = image.end() + HEADER as u64;
    let image = image.entry(LogId::new(1, 2)).entry(LogId::new(1, 3)).entry(LogId::new(1, 4));
    assert_eq!(image.flip(bad).judge_last(), Verdict::CutTail { survivors: 2 });
}

#[test]
fn last_and_a_vanished_sector_before_survivors_is_cut_where_it_begins() {
    let image = Image::new(1).batch(0);
    let (from, to) = (image.end(), image.end() + 512);
    let mut image = image.batch(1);
    for index in 2..9 {
        image = image.entry(LogId::new(1, index));
    }
    let verdict = image.zero(from, to).judge_last();
    assert!(matches!(verdict, Verdict::CutTail { survivors: 4.. }), "{verdict:?}");
}

#[test]
fn last_and_a_later_mark_claims_the_place_is_damage() {
    let image = Image::new(1).batch(0);
    let bad = image.end();
    let image = image.batch(1);
    for byte in [bad, bad + 40, image.end() - 50] {
        let image = Image::new(1).batch(0).batch(1).batch(2);
        let place = damaged_at(image.flip(byte).judge_last());
        assert!(place <= byte && place >= bad, "byte {byte} is in the frame refused at {place}");
    }
}

#[test]
fn last_and_a_mark_that_claims_exactly_the_bad_place_is_a_torn_tail() {
    let image = Image::new(1).batch(0);
    let synced = Position { seq: SegmentSeq(1), offset: image.end() };
    let bad = image.end();
    // Two lone Marks (nothing became durable between them), the first of which vanished.
    let mark = Control::Mark { committed: None, synced };
    let image = image.control(mark).control(mark);
    assert_eq!(image.flip(bad).judge_last(), Verdict::CutTail { survivors: 1 });
}

#[test]
fn last_and_shorter_than_allocated_is_damage() {
    let image = Image::new(1).batch(0);
    let len = image.end();
    assert_eq!(damaged_at(image.judge_short(None)), len);
}

#[test]
fn last_but_sealed_means_its_successor_is_missing() {
    let verdict = Image::new(4).batch(0).sealed().judge_last();
    assert!(matches!(verdict, Verdict::Refuse(Refusal::Missing { seq: SegmentSeq(5), .. })), "{verdict:?}");
}

#[test]
fn sealed_with_a_used_successor_is_done() {
    let image = Image::new(1).batch(0);
    let end = image.end();
    assert_eq!(image.sealed().judge_short(next(end, false)), Verdict::Sealed);
}

#[test]
fn an_unused_successor_means_the_roll_is_to_be_finished_whatever_the_seal_is() {
    let end = Image::new(1).batch(0).end();
    let image = || Image::new(1).batch(0);
    assert_eq!(image().judge_short(next(end, true)), Verdict::FinishRoll);
    assert_eq!(image().sealed().judge_short(next(end, true)), Verdict::FinishRoll);
    assert_eq!(image().sealed().flip(end + 3).judge_short(next(end, true)), Verdict::FinishRoll);
    let mut uncut = image();
    uncut.bytes.resize(16 << 10, 0);
    assert_eq!(uncut.judge_short(next(end, true)), Verdict::FinishRoll);
}

#[test]
fn no_seal_and_a_used_successor_is_damage() {
    let end = Image::new(1).batch(0).end();
    let image = || Image::new(1).batch(0);
    assert_eq!(damaged_at(image().judge_short(next(end, false))), end);
    assert_eq!(damaged_at(image().sealed().flip(end + 3).judge_short(next(end, false))), end);
}

#[test]
fn anything_bad_before_the_end_of_a_segment_with_a_successor_is_damage() {
    let image = || Image::new(1).batch(0).batch(1).sealed();
    let end = image().end() - SEAL_LEN;
    for unused in [false, true] {
        let place = damaged_at(image().flip(end - 30).judge_short(next(end, unused)));
        assert!(place < end);
        let mut short = image();
        short.bytes.truncate(end as usize - 5);
        assert!(damaged_at(short.judge_short(next(end, unused))) < end);
    }
}

#[test]
fn a_seal_elsewhere_than_the_successor_says_is_damage() {
    let image = Image::new(1).batch(0).sealed();
    let end = image.end() - SEAL_LEN;
    assert_eq!(damaged_at(image.judge_short(next(end + 160, false))), end);
}

#[test]
fn a_whole_frame_of_an_unknown_version_is_refused_as_such() {
    let mut image = Image::new(1).batch(0);
    let at = image.end();
    let mut frame = image.bytes[HEADER_BLOCK as usize..][..HEADER].to_vec();
    frame[0] = 9;
    let salted = [&salt_at(image.header.salt, at).to_le_bytes()[..], &frame[..28]].concat();
    frame[28..].copy_from_slice(&crc32fast::hash(&salted).to_le_bytes());
    image.bytes.extend(frame);
    let verdict = image.judge_last();
    let why = FrameError::Version(9);
    assert_eq!(verdict, Verdict::Refuse(Refusal::UnknownFormat { seq: SegmentSeq(1), byte: at, why }));
}

#[test]
fn headers() {
    let header = example();
    let (seq, id) = (header.seq, header.identity);
    assert_eq!(judge_header(seq, id, Ok(header)), Ok(header));
    let other = Identity { group: 8, ..id };
    assert_eq!(judge_header(seq, other, Ok(header)), Err(Refusal::WrongIdentity { seq, found: id }));
    let misnamed = judge_header(SegmentSeq(9), id, Ok(header));
    assert!(matches!(misnamed, Err(Refusal::Damaged { seq: SegmentSeq(9), byte: 0, .. })));
    let torn = judge_header(seq, id, Err(FrameError::HeaderCrc));
    assert!(matches!(torn, Err(Refusal::Damaged { byte: 0, .. })));
    let newer = judge_header(seq, id, Err(FrameError::Version(2)));
    assert!(matches!(newer, Err(Refusal::UnknownFormat { byte: 0, .. })));
}

#[test]
fn what_precedes_a_gap_is_left_over() {
    let seqs = |s: &[u64]| s.iter().copied().map(SegmentSeq).collect::<Vec<_>>();
    for (all, run, leftovers) in [
        (&[3, 4, 5][..], &[3, 4, 5][..], &[][..]),
        (&[1, 3, 4], &[3, 4], &[1]),
        (&[1, 2, 4, 6], &[6], &[1, 2, 4]),
        (&[7], &[7], &[]),
    ] {
        assert_eq!(newest_run(&seqs(all)), (&seqs(run)[..], &seqs(leftovers)[..]));
    }
}

fn replayed(images: &[Image]) -> Result<Ledger, Refusal> {
    let mut ledger = None;
    for image in images {
        replay(&mut ledger, &image.header, &scan(&image.header, &image.bytes))?;
    }
    Ok(ledger.unwrap())
}

#[test]
fn a_run_that_starts_behind_the_purge_point_misses_a_segment() {
    let mut image = Image::new(3);
    image.header.state.last = Some(LogId::new(1, 9));
    let mut ledger = replayed(&[image.batch(10)]).unwrap();
    let refusal = check_whole(&mut ledger, &[]).unwrap_err();
    assert!(matches!(refusal, Refusal::Missing { seq: SegmentSeq(2), .. }), "{refusal}");

    let mut image = Image::new(3);
    image.header.state.last = Some(LogId::new(1, 9));
    let image = image.batch(10).control(Control::Purge { upto: LogId::new(1, 9) });
    let mut ledger = replayed(&[image]).unwrap();
    assert_eq!(check_whole(&mut ledger, &[]), Ok(()));
    assert_eq!((ledger.first_index(), ledger.next_index()), (10, 11));
}

#[test]
fn whole_frames_out_of_order_are_damage() {
    let gap = Image::new(1).batch(0).entry(LogId::new(1, 2));
    assert!(matches!(replayed(&[gap]), Err(Refusal::Damaged { .. })));
    let back = Image::new(1).entry(LogId::new(5, 0)).entry(LogId::new(4, 1));
    assert!(matches!(replayed(&[back]), Err(Refusal::Damaged { .. })));
    let ahead = Image::new(1).batch(0).control(Control::Truncate { kept: Some(LogId::new(1, 5)) });
    assert!(matches!(replayed(&[ahead]), Err(Refusal::Damaged { .. })));
    let successor = Image::new(2);
    let apart = replayed(&[Image::new(1).batch(0), successor]);
    assert!(matches!(apart, Err(Refusal::Damaged { seq: SegmentSeq(2), byte: 0, .. })));
}

#[test]
fn a_checkpoint_that_knows_more_than_the_log_is_a_claim() {
    let checkpoint = |seq, index| CheckpointInfo { seq: SegmentSeq(seq), last: LogId::new(1, index), bytes: 0 };
    let mut ledger = replayed(&[Image::new(1).batch(0).batch(1)]).unwrap();
    assert_eq!(check_whole(&mut ledger, &[checkpoint(1, 1)]), Ok(()));
    let end = ledger.last_segment().used;
    assert!(matches!(check_whole(&mut ledger, &[checkpoint(1, 2)]), Err(Refusal::Damaged { byte, .. }) if byte == end));
    let beyond = check_whole(&mut ledger, &[checkpoint(2, 1)]);
    assert!(matches!(beyond, Err(Refusal::Missing { seq: SegmentSeq(2), .. })));
}

#[test]
fn committed_is_clamped_to_what_is_here() {
    let synced = Position { seq: SegmentSeq(1), offset: HEADER_BLOCK };
    let committed = Some(LogId::new(1, 7));
    let image = Image::new(1).batch(0).control(Control::Mark { committed, synced });
    let mut ledger = replayed(&[image]).unwrap();
    check_whole(&mut ledger, &[]).unwrap();
    assert_eq!(ledger.state().committed, Some(LogId::new(1, 0)));
}

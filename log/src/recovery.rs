//! What was found on the disk → what it means. Pure: scans in, verdicts and a ledger out.
//!
//! The table is [`judge`], one row per case. It rests on what the writer does, in this order:
//! 1. a batch begins with a Mark that says up to where the log was durable when the batch was written;
//! 2. a batch is acknowledged after its fdatasync, and only then the next one is written;
//! 3. a segment gets its final name when its header and size are durable; its predecessor is durable whole by then;
//! 4. the predecessor's Seal is durable before the new segment takes its first frame.
//!
//! So a power cut can only have torn what stands after the last claim. Damage before a claim, in a header, or in a
//! segment that has a used successor is no power cut, and is refused: this replica's promises cannot be kept from here.

use std::fmt;

use braid_probe::{Bug, Mark, planted, reachable};

use crate::checkpoint::CheckpointInfo;
use crate::frame::FrameError;
use crate::id::{Identity, LogId, SegmentSeq, end_of};
use crate::ledger::Ledger;
use crate::scan::{Scan, Stop};
use crate::segment::{Control, HEADER_BLOCK, SegmentHeader};

/// Why a log cannot be opened. `byte` counts from the start of the segment's file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    Damaged { seq: SegmentSeq, byte: u64, why: String },
    Missing { seq: SegmentSeq, why: String },
    WrongIdentity { seq: SegmentSeq, found: Identity },
    UnknownFormat { seq: SegmentSeq, byte: u64, why: FrameError },
}

/// What to do about one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Go on after the last frame.
    Clean,
    /// Nothing to do: full and followed.
    Sealed,
    /// Its successor is durable but unused: write the Seal (again), cut the file to its length.
    FinishRoll,
    /// Zero everything after the last frame, durably, before anything new is written there.
    CutTail {
        survivors: usize,
    },
    Refuse(Refusal),
}

/// What the next segment, if there is one, says about this one.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Next {
    pub prev_end: u64,
    /// It is the last one, and nothing was ever written after its header.
    pub unused: bool,
}

/// A segment's first block, before its frames are believed.
pub(crate) fn judge_header(
    seq: SegmentSeq,
    identity: Identity,
    decoded: Result<SegmentHeader, FrameError>,
) -> Result<SegmentHeader, Refusal> {
    match decoded {
        Err(why) if why.is_unknown_format() => Err(Refusal::UnknownFormat { seq, byte: 0, why }),
        Err(why) => Err(Refusal::Damaged { seq, byte: 0, why: format!("segment header: {why}") }),
        Ok(h) if h.identity != identity => Err(Refusal::WrongIdentity { seq, found: h.identity }),
        Ok(h) if h.seq != seq => {
            Err(Refusal::Damaged { seq, byte: 0, why: format!("the header is that of segment {}", h.seq) })
        }
        Ok(h) => Ok(h),
    }
}

/// The table. `len` is the file's length in bytes.
pub(crate) fn judge(header: &SegmentHeader, len: u64, scan: &Scan, next: Option<Next>) -> Verdict {
    let seq = header.seq;
    let end = scan.end;
    let damaged = |byte, why: String| Verdict::Refuse(Refusal::Damaged { seq, byte, why });
    let claimed = scan.claim.filter(|c| c.seq == seq).map_or(HEADER_BLOCK, |c| c.offset);
    match (&scan.stop, next) {
        // A whole frame of a newer program, anywhere.
        (Stop::Unknown { why }, _) => Verdict::Refuse(Refusal::UnknownFormat { seq, byte: end, why: why.clone() }),

        // The last segment.
        (Stop::Sealed { next }, None) => Verdict::Refuse(Refusal::Missing {
            seq: *next,
            why: format!("segment {seq} was sealed, so segment {next} was durable"),
        }),
        (_, None) if len < header.capacity => {
            damaged(len, format!("the file was allocated with {} bytes and has {len}", header.capacity))
        }
        (Stop::Zeroes | Stop::Invalid { .. }, None) if claimed > end => {
            damaged(end, format!("no frame here, and a later one says that byte {claimed} was reached durably"))
        }
        (Stop::Zeroes, None) => Verdict::Clean,
        (Stop::Invalid { survivors }, None) => Verdict::CutTail { survivors: *survivors },

        // A segment with a successor.
        (_, Some(n)) if end != n.prev_end => {
            damaged(end, format!("frames end here, the next segment says at byte {}", n.prev_end))
        }
        (_, Some(n)) if n.unused => Verdict::FinishRoll,
        (Stop::Sealed { next }, Some(_)) if *next == seq.next() => Verdict::Sealed,
        (Stop::Sealed { .. } | Stop::Zeroes | Stop::Invalid { .. }, Some(_)) => {
            damaged(end, "no seal here, and the next segment is in use".into())
        }
    }
}

/// The segments to open (ascending) and the leftovers before a gap. A purge removes files oldest first, but a power cut
/// may bring any of them back, so what precedes a gap was purged if anything; `check_whole` verifies that.
pub(crate) fn newest_run(seqs: &[SegmentSeq]) -> (&[SegmentSeq], &[SegmentSeq]) {
    let gap = seqs.windows(2).rposition(|pair| pair[0].next() != pair[1]);
    let (leftovers, run) = seqs.split_at(gap.map_or(0, |at| at + 1));
    (run, leftovers)
}

/// Applies a segment's frames as the running log did. Whole frames that contradict each other are damage too.
pub(crate) fn replay(ledger: &mut Option<Ledger>, header: &SegmentHeader, scan: &Scan) -> Result<(), Refusal> {
    let seq = header.seq;
    let ledger = match ledger {
        None => ledger.insert(Ledger::starting_at(header)),
        Some(ledger) => {
            if ledger.state().last != header.state.last {
                let why = format!("it continues {:?}, the log ends at {:?}", header.state.last, ledger.state().last);
                return Err(Refusal::Damaged { seq, byte: 0, why });
            }
            ledger.add_segment(header);
            ledger
        }
    };
    for frame in &scan.frames {
        let damaged = |why: String| Refusal::Damaged { seq, byte: frame.offset, why };
        let len = frame.header.disk_len();
        let state = ledger.state();
        let Some(control) = frame.control else {
            let id = LogId { term: frame.header.term, index: frame.header.index };
            if id.index != ledger.next_index() || state.last.is_some_and(|l| l.term > id.term) {
                return Err(damaged(format!("entry {id} after {:?}", state.last)));
            }
            ledger.push(id, len);
            continue;
        };
        ledger.push_control(len);
        match control {
            Control::Vote(vote) => ledger.set_vote(vote),
            Control::Mark { committed, .. } => ledger.set_committed(committed),
            Control::Purge { upto } => ledger.purge(upto),
            Control::Truncate { kept } => {
                let end = end_of(kept);
                if end > ledger.next_index() || end < ledger.first_index() {
                    return Err(damaged(format!("truncation to {kept:?} of a log that ends at {:?}", state.last)));
                }
                ledger.truncate(kept);
            }
            Control::Seal { .. } => return Err(damaged("a seal before the end".into())),
        }
    }
    Ok(())
}

/// The last check, on the whole: nothing between the purge point and the end is missing, and no checkpoint knows more
/// than the log. Then `committed` is clamped: openraft must not be told that an entry is committed which is not here.
pub(crate) fn check_whole(ledger: &mut Ledger, checkpoints: &[CheckpointInfo]) -> Result<(), Refusal> {
    let first = ledger.segments()[0].seq;
    if let Some(index) = ledger.missing() {
        let why = format!("entry {index} is not purged and in no segment from {first} on");
        return Err(Refusal::Missing { seq: SegmentSeq(first.0.saturating_sub(1)), why });
    }
    let last = ledger.last_segment();
    for checkpoint in checkpoints {
        if checkpoint.seq > last.seq {
            let why = format!("its checkpoint is here, and the log ends with segment {}", last.seq);
            return Err(Refusal::Missing { seq: checkpoint.seq, why });
        }
        if checkpoint.last.index >= ledger.next_index() {
            let why = format!(
                "the log ends here at {:?}, and checkpoint {} says that {} was durable",
                ledger.state().last,
                checkpoint.seq,
                checkpoint.last
            );
            return Err(Refusal::Damaged { seq: last.seq, byte: last.used, why });
        }
    }
    let state = ledger.state();
    if end_of(state.committed) > end_of(state.last) && !planted(Bug::CommittedNotClamped) {
        reachable!(Mark::CommittedClamped);
        ledger.set_committed(state.last);
    }
    Ok(())
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Damaged { seq, byte, why } => {
                write!(f, "{} is damaged at byte {byte}: {why}", seq.file_name())
            }
            Refusal::Missing { seq, why } => write!(f, "{} is missing: {why}", seq.file_name()),
            Refusal::WrongIdentity { seq, found } => write!(f, "{} belongs to {found}", seq.file_name()),
            Refusal::UnknownFormat { seq, byte, why } => {
                write!(f, "{} has a format this program can't read at byte {byte}: {why}", seq.file_name())
            }
        }
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;

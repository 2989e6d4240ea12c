//! What bytes of a segment file are: frames up to some point, and what lies after it. Pure.
//!
//! It judges nothing: whether the point is a clean end, a torn tail or damage is `recovery.rs`'s table.

use braid_probe::{Bug, planted};

use crate::frame::{FrameError, FrameHeader, HEADER, Kind, salt_at};
use crate::id::Position;
use crate::segment::{Control, HEADER_BLOCK, SegmentHeader};

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct FrameAt {
    pub offset: u64,
    pub header: FrameHeader,
    /// `None`: an entry.
    pub control: Option<Control>,
}

/// Why the frames end where they end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// A Seal was the last frame; it names the next segment.
    Sealed { next: crate::id::SegmentSeq },
    /// Only zeroes, or nothing, after the last frame.
    Zeroes,
    /// Something that is no frame; `survivors` whole frames follow somewhere after it.
    Invalid { survivors: usize },
    /// A whole frame that this program does not know.
    Unknown { why: FrameError },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Scan {
    pub frames: Vec<FrameAt>,
    /// Where the frames end: the first byte after the last (for a Seal, where the Seal stands).
    pub end: u64,
    pub stop: Stop,
    /// The greatest position that any whole Mark in the file, before or after `end`, says is durable.
    pub claim: Option<Position>,
    /// One past the last byte that is not zero.
    pub written: u64,
}

/// Scans the whole file of the segment with this header.
pub(crate) fn scan(header: &SegmentHeader, file: &[u8]) -> Scan {
    let written = written(file);
    let mut scan = Scan { frames: Vec::new(), end: HEADER_BLOCK, stop: Stop::Zeroes, claim: None, written };
    loop {
        if scan.end >= written {
            if planted(Bug::LastBatchDropped) {
                scan.drop_last_batch();
            }
            return scan;
        }
        match frame_at(header.salt, file, scan.end) {
            Ok(frame) => {
                scan.note_claim(&frame);
                if let Some(Control::Seal { next }) = frame.control {
                    scan.stop = Stop::Sealed { next };
                    return scan;
                }
                scan.end += frame.header.disk_len();
                scan.frames.push(frame);
            }
            Err(why) if why.is_unknown_format() => {
                scan.stop = Stop::Unknown { why };
                return scan;
            }
            Err(_) => {
                scan.stop = Stop::Invalid { survivors: scan.survivors(header.salt, file) };
                return scan;
            }
        }
    }
}

impl Scan {
    fn note_claim(&mut self, frame: &FrameAt) {
        if let Some(Control::Mark { synced, .. }) = frame.control
            && !planted(Bug::DamageCutAsTorn)
        {
            self.claim = self.claim.max(Some(synced));
        }
    }

    /// Only ever planted.
    fn drop_last_batch(&mut self) {
        if let Some(mark) = self.frames.iter().rposition(|f| matches!(f.control, Some(Control::Mark { .. }))) {
            self.end = self.frames[mark].offset;
            self.frames.truncate(mark);
        }
    }

    /// Looks at every place a frame could start after the bad one. The salt keeps records' bytes from being taken for
    /// frames, and the offset in it keeps a frame's copy elsewhere from being taken for the frame.
    fn survivors(&mut self, salt: u64, file: &[u8]) -> usize {
        let mut found = 0;
        let mut at = self.end + 8;
        while at + HEADER as u64 <= self.written.next_multiple_of(8) {
            match frame_at(salt, file, at) {
                Ok(frame) => {
                    self.note_claim(&frame);
                    found += 1;
                    at += frame.header.disk_len();
                }
                Err(_) => at += 8,
            }
        }
        found
    }
}

fn frame_at(salt: u64, file: &[u8], offset: u64) -> Result<FrameAt, FrameError> {
    let rest = file.get(offset as usize..).unwrap_or_default();
    let header = FrameHeader::decode(rest, salt_at(salt, offset))?;
    let need = HEADER + header.payload_len as usize;
    let Some(payload) = rest.get(HEADER..need) else {
        return Err(FrameError::Short { have: rest.len(), need });
    };
    if !planted(Bug::TornTailAccepted) {
        header.check_payload(payload)?;
    }
    let control = Control::of(&header, payload);
    if header.kind == Kind::SegmentHeader || (control.is_none() && !header.kind.is_entry()) {
        return Err(FrameError::Kind(header.kind as u8));
    }
    Ok(FrameAt { offset, header, control })
}

/// One past the last byte that is not zero.
pub(crate) fn written(file: &[u8]) -> u64 {
    // Eight at a time: a preallocated segment is mostly zeroes.
    let mut end = file.len();
    while end >= 8 && file[end - 8..end] == [0; 8] {
        end -= 8;
    }
    while end > 0 && file[end - 1] == 0 {
        end -= 1;
    }
    end as u64
}

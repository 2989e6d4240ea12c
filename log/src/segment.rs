//! A segment file: its first block, the control frames that may stand in it, how it is created and sealed.
//!
//! ```text
//! 0                     4096                                     used            capacity
//! │ header frame, zeroes │ frames, each at a multiple of 8 …  Seal │ zeroes …       │
//! ```
//!
//! Invariant: a file under a segment's final name has a durable header and its full size, because it is made under a
//! temporary name, synced, and renamed. So a bad header or a short file is always damage, never a power cut.
//! The header carries the whole hard state at that point, so any suffix of segments stands alone. Entries are not
//! written here (`writer.rs`), nor is anything decided (`recovery.rs`).

use std::io;
use std::path::Path;

use braid_env::disk::{self, File, Open};
use braid_probe::{Bug, Mark, planted, reachable};
use bytes::Bytes;

use crate::frame::{FLAG_SET, FrameError, FrameHeader, HEADER, Kind, disk_len, salt_at, u32_at, u64_at};
use crate::id::{Identity, LogId, Position, SegmentSeq, Vote};

/// Bytes of the first block. A whole page, so that no later write ever shares a sector with the header.
pub(crate) const HEADER_BLOCK: u64 = 4096;
/// Bytes kept free at the end of every segment.
pub(crate) const SEAL_LEN: u64 = HEADER as u64;
pub(crate) const MARK_PAYLOAD: usize = 16;
/// Bytes of a Mark frame; one is reserved at the start of every batch.
pub(crate) const MARK_LEN: u64 = (HEADER + MARK_PAYLOAD) as u64;
pub(crate) const SEGMENT_PREFIX: &str = "segment-";
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

const MAGIC: [u8; 8] = *b"BRAIDLOG";
/// The header's own salt is fixed: it is what the segment's salt is read from.
const HEADER_SALT: u64 = u64::from_le_bytes(MAGIC);
const PAYLOAD: usize = 136;
const _: () = assert!((HEADER + PAYLOAD) as u64 <= 512, "the header fits one sector, so it tears never");
const _: () = assert!(MARK_LEN.is_multiple_of(8) && SEAL_LEN.is_multiple_of(8));

/// The hard state of a group at one point of its log.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct HardState {
    pub last: Option<LogId>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
    pub vote: Option<Vote>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub identity: Identity,
    pub seq: SegmentSeq,
    pub salt: u64,
    /// Bytes the file was allocated with.
    pub capacity: u64,
    /// Where the segment before ended when this one was made; all of it durable by then. 0 for the first segment.
    pub prev_end: u64,
    pub state: HardState,
}

impl SegmentHeader {
    /// Header frame without the zeroes that fill its block (the file is allocated zeroed).
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut payload = [0u8; PAYLOAD];
        let state = &self.state;
        let mut flags = 0u32;
        payload[0..8].copy_from_slice(&MAGIC);
        payload[8..24].copy_from_slice(&self.identity.cluster);
        payload[24..32].copy_from_slice(&self.identity.node.to_le_bytes());
        payload[32..36].copy_from_slice(&self.identity.group.to_le_bytes());
        payload[40..48].copy_from_slice(&self.seq.0.to_le_bytes());
        payload[48..56].copy_from_slice(&self.salt.to_le_bytes());
        payload[56..64].copy_from_slice(&self.capacity.to_le_bytes());
        payload[64..72].copy_from_slice(&self.prev_end.to_le_bytes());
        for (bit, at, id) in [(0, 72, state.last), (1, 88, state.purged), (2, 104, state.committed)] {
            if let Some(id) = id {
                flags |= 1 << bit;
                payload[at..at + 8].copy_from_slice(&id.term.to_le_bytes());
                payload[at + 8..at + 16].copy_from_slice(&id.index.to_le_bytes());
            }
        }
        if let Some(vote) = state.vote {
            flags |= 1 << 3 | (vote.committed as u32) << 4;
            payload[120..128].copy_from_slice(&vote.term.to_le_bytes());
            payload[128..136].copy_from_slice(&vote.node.to_le_bytes());
        }
        payload[36..40].copy_from_slice(&flags.to_le_bytes());
        let header = FrameHeader {
            kind: Kind::SegmentHeader,
            flags: 0,
            payload_len: PAYLOAD as u32,
            term: 0,
            index: 0,
            payload_crc: crc32fast::hash(&payload),
        };
        [&header.encode(HEADER_SALT)[..], &payload].concat()
    }

    /// Reads the start of a file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, FrameError> {
        let header = FrameHeader::decode(bytes, HEADER_SALT)?;
        if header.kind != Kind::SegmentHeader || header.payload_len as usize != PAYLOAD {
            return Err(FrameError::Kind(header.kind as u8));
        }
        let Some(payload) = bytes.get(HEADER..HEADER + PAYLOAD) else {
            return Err(FrameError::Short { have: bytes.len(), need: HEADER + PAYLOAD });
        };
        header.check_payload(payload)?;
        if payload[..8] != MAGIC {
            return Err(FrameError::HeaderCrc);
        }
        let flags = u32_at(payload, 36);
        let id = |bit: u32, at| {
            let id = LogId { term: u64_at(payload, at), index: u64_at(payload, at + 8) };
            (flags & 1 << bit != 0).then_some(id)
        };
        let vote = Vote { term: u64_at(payload, 120), node: u64_at(payload, 128), committed: flags & 1 << 4 != 0 };
        Ok(SegmentHeader {
            identity: Identity {
                cluster: payload[8..24].try_into().expect("sixteen bytes"),
                node: u64_at(payload, 24),
                group: u32_at(payload, 32),
            },
            seq: SegmentSeq(u64_at(payload, 40)),
            salt: u64_at(payload, 48),
            capacity: u64_at(payload, 56),
            prev_end: u64_at(payload, 64),
            state: HardState {
                last: id(0, 72),
                purged: id(1, 88),
                committed: id(2, 104),
                vote: (flags & 1 << 3 != 0).then_some(vote),
            },
        })
    }
}

/// A frame without payload, or a Mark: what the log writes about itself.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    Vote(Vote),
    Mark { committed: Option<LogId>, synced: Position },
    Truncate { kept: Option<LogId> },
    Purge { upto: LogId },
    Seal { next: SegmentSeq },
}

impl Control {
    pub(crate) fn disk_len(&self) -> u64 {
        match self {
            Control::Mark { .. } => MARK_LEN,
            _ => disk_len(0),
        }
    }

    /// Appends the frame as it stands at `offset` of a segment with this salt.
    pub(crate) fn encode_to(&self, segment_salt: u64, offset: u64, out: &mut impl Extend<u8>) {
        let (kind, set, term, index, payload) = match *self {
            Control::Vote(v) => (Kind::Vote, v.committed, v.term, v.node, None),
            Control::Mark { committed, synced } => {
                let id = committed.unwrap_or(LogId { term: 0, index: 0 });
                let mut payload = [0u8; MARK_PAYLOAD];
                payload[..8].copy_from_slice(&synced.seq.0.to_le_bytes());
                payload[8..].copy_from_slice(&synced.offset.to_le_bytes());
                (Kind::Mark, committed.is_some(), id.term, id.index, Some(payload))
            }
            Control::Truncate { kept } => {
                let id = kept.unwrap_or(LogId { term: 0, index: 0 });
                (Kind::Truncate, kept.is_some(), id.term, id.index, None)
            }
            Control::Purge { upto } => (Kind::Purge, false, upto.term, upto.index, None),
            Control::Seal { next } => (Kind::Seal, false, 0, next.0, None),
        };
        let payload = payload.as_ref().map_or(&[][..], |p| &p[..]);
        let header = FrameHeader {
            kind,
            flags: if set { FLAG_SET } else { 0 },
            payload_len: payload.len() as u32,
            term,
            index,
            payload_crc: crc32fast::hash(payload),
        };
        out.extend(header.encode(salt_at(segment_salt, offset)));
        out.extend(payload.iter().copied());
    }

    /// `None` for entries and segment headers, and for a Mark of another length.
    pub(crate) fn of(header: &FrameHeader, payload: &[u8]) -> Option<Control> {
        let id = LogId { term: header.term, index: header.index };
        let set = header.is_set().then_some(id);
        Some(match header.kind {
            Kind::Vote => Control::Vote(Vote { term: id.term, node: id.index, committed: header.is_set() }),
            Kind::Mark if payload.len() == MARK_PAYLOAD => Control::Mark {
                committed: set,
                synced: Position { seq: SegmentSeq(u64_at(payload, 0)), offset: u64_at(payload, 8) },
            },
            Kind::Truncate => Control::Truncate { kept: set },
            Kind::Purge => Control::Purge { upto: id },
            Kind::Seal => Control::Seal { next: SegmentSeq(header.index) },
            _ => return None,
        })
    }
}

/// Makes the segment's file, durable under its final name. Nothing before that counts as existing.
pub(crate) async fn create(dir: &Path, header: &SegmentHeader) -> io::Result<File> {
    let path = dir.join(header.seq.file_name());
    let temporary = dir.join(header.seq.file_name() + TEMPORARY_SUFFIX);
    let file = File::open(&temporary, Open::CreateNew).await?;
    file.allocate(header.capacity).await?;
    file.write_at_sync(0, vec![Bytes::from(header.encode())]).await?;
    disk::rename(&temporary, &path).await?;
    reachable!(Mark::SegmentRenamed);
    if !planted(Bug::SegmentNameNotSynced) {
        disk::fsync_dir(dir).await?;
    }
    Ok(file)
}

/// Ends a segment whose bytes before `end` are durable. Returns its final length.
///
/// The next segment is already durable, and takes no frame before this returns: a segment without a Seal therefore has
/// at most an unused successor, and one with a Seal must have a successor.
pub(crate) async fn seal(file: &File, salt: u64, end: u64, next: SegmentSeq) -> io::Result<u64> {
    let mut frame = Vec::with_capacity(HEADER);
    Control::Seal { next }.encode_to(salt, end, &mut frame);
    let len = end + frame.len() as u64;
    file.set_len(len).await?;
    file.write_at_sync(end, vec![Bytes::from(frame)]).await?;
    Ok(len)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> SegmentHeader {
        SegmentHeader {
            identity: Identity { cluster: *b"0123456789abcdef", node: 2, group: 7 },
            seq: SegmentSeq(3),
            salt: 0x1122_3344_5566_7788,
            capacity: 64 << 20,
            prev_end: 8192,
            state: HardState {
                last: Some(LogId::new(4, 100)),
                purged: Some(LogId::new(1, 50)),
                committed: None,
                vote: Some(Vote { term: 4, node: 2, committed: true }),
            },
        }
    }

    #[test]
    fn headers_round_trip() {
        let header = example();
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        let empty = SegmentHeader { state: HardState::default(), ..header };
        assert_eq!(SegmentHeader::decode(&empty.encode()), Ok(empty));
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_noticed() {
        let raw = example().encode();
        for bit in 0..raw.len() * 8 {
            let mut bad = raw.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..raw.len() {
            assert!(SegmentHeader::decode(&raw[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn control_frames_round_trip() {
        let synced = Position { seq: SegmentSeq(3), offset: 4096 };
        let id = LogId::new(5, 6);
        let all = [
            Control::Vote(Vote { term: 9, node: 1, committed: false }),
            Control::Vote(Vote { term: 9, node: 1, committed: true }),
            Control::Mark { committed: None, synced },
            Control::Mark { committed: Some(id), synced },
            Control::Truncate { kept: None },
            Control::Truncate { kept: Some(id) },
            Control::Purge { upto: id },
            Control::Seal { next: SegmentSeq(4) },
        ];
        for control in all {
            let mut raw = Vec::new();
            control.encode_to(77, 4096, &mut raw);
            assert_eq!(raw.len() as u64, control.disk_len());
            let header = FrameHeader::decode(&raw, salt_at(77, 4096)).unwrap();
            header.check_payload(&raw[HEADER..]).unwrap();
            assert_eq!(Control::of(&header, &raw[HEADER..]), Some(control));
        }
    }
}

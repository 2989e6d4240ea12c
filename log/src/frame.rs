//! The one on-disk and on-wire unit: a 32-byte header, then the payload (on disk padded with zeroes to 8 bytes).
//!
//! ```text
//!  0 version u8 │ 1 kind u8 │ 2 flags u8 │ 3 zero u8 │ 4 payload_len u32
//!  8 term u64
//! 16 index u64
//! 24 payload_crc u32 │ 28 header_crc u32 = crc32(salt ‖ header[0..28])          all little endian
//! ```
//!
//! Invariant: a header only decodes at the place it was written for. On disk the salt is the segment's random salt plus
//! the frame's own offset, so neither a record whose bytes look like a frame nor a frame's copy elsewhere in the file is
//! ever taken for one. On the wire the salt is 0. This file does not read files and gives frames no meaning.

use std::fmt;

pub const VERSION: u8 = 1;
/// Bytes of a frame's header.
pub const HEADER: usize = 32;
/// Frames start at multiples of this on disk.
pub(crate) const ALIGN: usize = 8;
/// The salt of frames sent over the network, whose stream already has an order.
pub(crate) const WIRE_SALT: u64 = 0;
/// Bytes. A batch is at most some 10 MiB of records; anything near this is a damaged length, not a payload.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// The header's layout as a type, only to let the compiler hold the offsets that `encode` writes at.
#[repr(C)]
struct Layout {
    version: u8,
    kind: u8,
    flags: u8,
    zero: u8,
    payload_len: u32,
    term: u64,
    index: u64,
    payload_crc: u32,
    header_crc: u32,
}
const _: () = assert!(size_of::<Layout>() == HEADER);
const _: () = assert!(std::mem::offset_of!(Layout, payload_len) == 4);
const _: () = assert!(std::mem::offset_of!(Layout, term) == 8);
const _: () = assert!(std::mem::offset_of!(Layout, index) == 16);
const _: () = assert!(std::mem::offset_of!(Layout, payload_crc) == 24);
const _: () = assert!(std::mem::offset_of!(Layout, header_crc) == 28);
const _: () = assert!(HEADER.is_multiple_of(ALIGN));

/// What a frame is. Entry kinds are below 16 and the only ones that travel.
#[repr(u8)]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Blank = 0,
    Normal = 1,
    Membership = 2,
    /// term, index = node, flags bit 0 = committed.
    Vote = 16,
    /// term, index = the committed id (flags bit 0: there is one); payload = synced position: segment u64, offset u64.
    Mark = 17,
    /// term, index = the last id kept (flags bit 0: there is one).
    Truncate = 18,
    /// term, index = the last id purged.
    Purge = 19,
    SegmentHeader = 20,
    /// The last frame of a segment: index = the segment that follows, which was durable before this was written.
    Seal = 21,
}

impl Kind {
    fn from_u8(byte: u8) -> Option<Kind> {
        Some(match byte {
            0 => Kind::Blank,
            1 => Kind::Normal,
            2 => Kind::Membership,
            16 => Kind::Vote,
            17 => Kind::Mark,
            18 => Kind::Truncate,
            19 => Kind::Purge,
            20 => Kind::SegmentHeader,
            21 => Kind::Seal,
            _ => return None,
        })
    }

    pub(crate) fn is_entry(self) -> bool {
        (self as u8) < 16
    }
}

/// Flags bit 0 of control frames.
pub(crate) const FLAG_SET: u8 = 1;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub kind: Kind,
    pub flags: u8,
    pub payload_len: u32,
    pub term: u64,
    pub index: u64,
    pub payload_crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self, salt: u64) -> [u8; HEADER] {
        let mut out = [0u8; HEADER];
        out[0] = VERSION;
        out[1] = self.kind as u8;
        out[2] = self.flags;
        out[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.term.to_le_bytes());
        out[16..24].copy_from_slice(&self.index.to_le_bytes());
        out[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = header_crc(&out, salt);
        out[28..32].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Checks the crc before it believes anything else, so that `Version` and `Kind` errors mean "written by another
    /// version of this program" and never "damaged".
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Result<FrameHeader, FrameError> {
        let Some(raw) = bytes.first_chunk::<HEADER>() else {
            return Err(FrameError::Short { have: bytes.len(), need: HEADER });
        };
        // No frame has version 0; of the many zeroes on a disk some would match by chance.
        if raw[0] == 0 || header_crc(raw, salt) != u32_at(raw, 28) {
            return Err(FrameError::HeaderCrc);
        }
        if raw[0] != VERSION {
            return Err(FrameError::Version(raw[0]));
        }
        let Some(kind) = Kind::from_u8(raw[1]) else {
            return Err(FrameError::Kind(raw[1]));
        };
        let flags_known = if kind.is_entry() { 0 } else { FLAG_SET };
        if raw[2] & !flags_known != 0 || raw[3] != 0 {
            return Err(FrameError::Flags(raw[2]));
        }
        let header = FrameHeader {
            kind,
            flags: raw[2],
            payload_len: u32_at(raw, 4),
            term: u64_at(raw, 8),
            index: u64_at(raw, 16),
            payload_crc: u32_at(raw, 24),
        };
        if header.payload_len as usize > PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLong { bytes: header.payload_len as usize });
        }
        Ok(header)
    }

    pub(crate) fn check_payload(&self, payload: &[u8]) -> Result<(), FrameError> {
        assert_eq!(payload.len(), self.payload_len as usize);
        if crc32fast::hash(payload) == self.payload_crc { Ok(()) } else { Err(FrameError::PayloadCrc) }
    }

    /// Bytes on disk: header, payload, padding.
    pub(crate) fn disk_len(&self) -> u64 {
        disk_len(self.payload_len as usize)
    }

    pub(crate) fn is_set(&self) -> bool {
        self.flags & FLAG_SET != 0
    }
}

pub(crate) fn disk_len(payload: usize) -> u64 {
    (HEADER + payload).next_multiple_of(ALIGN) as u64
}

/// The salt of the frame at `offset` of a segment.
pub(crate) fn salt_at(segment_salt: u64, offset: u64) -> u64 {
    segment_salt.wrapping_add(offset)
}

fn header_crc(raw: &[u8; HEADER], salt: u64) -> u32 {
    let mut salted = [0u8; 8 + 28];
    salted[..8].copy_from_slice(&salt.to_le_bytes());
    salted[8..].copy_from_slice(&raw[..28]);
    crc32fast::hash(&salted)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Why bytes are not a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FrameError {
    Short { have: usize, need: usize },
    HeaderCrc,
    PayloadCrc,
    TooLong { bytes: usize },
    Version(u8),
    Kind(u8),
    Flags(u8),
    NotAnEntry { kind: u8 },
}

impl FrameError {
    /// The bytes are whole, but a newer program wrote them.
    pub(crate) fn is_unknown_format(&self) -> bool {
        matches!(self, FrameError::Version(_) | FrameError::Kind(_) | FrameError::Flags(_))
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Short { have, need } => write!(f, "frame cut short: {have} bytes of {need}"),
            FrameError::HeaderCrc => f.write_str("frame header does not match its checksum"),
            FrameError::PayloadCrc => f.write_str("frame payload does not match its checksum"),
            FrameError::TooLong { bytes } => write!(f, "frame payload of {bytes} bytes, limit {PAYLOAD_BYTES_MAX}"),
            FrameError::Version(v) => write!(f, "frame version {v}, this program reads version {VERSION}"),
            FrameError::Kind(k) => write!(f, "frame kind {k} is not known to this program"),
            FrameError::Flags(b) => write!(f, "frame flags {b:#04x} are not known to this program"),
            FrameError::NotAnEntry { kind } => write!(f, "frame kind {kind} is not a log entry"),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader { kind: Kind::Normal, flags: 0, payload_len: 5, term: 3, index: 9, payload_crc: 0xAABB_CCDD }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let raw = header().encode(7);
        assert_eq!(FrameHeader::decode(&raw, 7), Ok(header()));
        for bit in 0..HEADER * 8 {
            let mut bad = raw;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&bad, 7), Err(FrameError::HeaderCrc), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_not_a_frame_anywhere_else() {
        let raw = header().encode(salt_at(99, 4096));
        for offset in (0..1u64 << 20).step_by(ALIGN).filter(|o| *o != 4096) {
            assert_eq!(FrameHeader::decode(&raw, salt_at(99, offset)), Err(FrameError::HeaderCrc));
        }
    }

    #[test]
    fn zeroes_are_never_a_frame() {
        // crc32 of zeroes is not zero, but let no salt make it so.
        for salt in 0..100_000u64 {
            assert!(FrameHeader::decode(&[0; HEADER], salt).is_err());
        }
    }

    #[test]
    fn a_newer_format_is_named_as_such() {
        let mut raw = header().encode(0);
        raw[0] = 2;
        let crc = header_crc(&raw, 0);
        raw[28..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FrameHeader::decode(&raw, 0), Err(FrameError::Version(2)));
        let mut raw = header().encode(0);
        raw[2] = 4;
        let crc = header_crc(&raw, 0);
        raw[28..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FrameHeader::decode(&raw, 0), Err(FrameError::Flags(4)));
    }
}

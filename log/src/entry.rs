//! A log entry: an id, a tag and one payload whose checksum is computed exactly once.
//!
//! The checksum made where the payload is born (or verified where it arrives) is the one written to the disk and sent
//! to the peers; nothing on the way computes it again or copies the payload. What the payload means is not known here.

use bytes::{Buf, Bytes};

use crate::frame::{FrameError, FrameHeader, HEADER, Kind, PAYLOAD_BYTES_MAX, WIRE_SALT};
use crate::id::LogId;

#[repr(u8)]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    Blank = 0,
    Normal = 1,
    Membership = 2,
}

impl EntryKind {
    pub(crate) fn of(kind: Kind) -> Option<EntryKind> {
        match kind {
            Kind::Blank => Some(EntryKind::Blank),
            Kind::Normal => Some(EntryKind::Normal),
            Kind::Membership => Some(EntryKind::Membership),
            _ => None,
        }
    }

    fn frame_kind(self) -> Kind {
        match self {
            EntryKind::Blank => Kind::Blank,
            EntryKind::Normal => Kind::Normal,
            EntryKind::Membership => Kind::Membership,
        }
    }
}

/// Cheap to clone: the payload is shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    id: LogId,
    kind: EntryKind,
    payload: Bytes,
    payload_crc: u32,
}

impl Entry {
    /// Computes the payload's checksum, once for the entry's whole life.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_BYTES_MAX`]: admission is far below that.
    pub fn new(id: LogId, kind: EntryKind, payload: Bytes) -> Entry {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "payload of {} bytes", payload.len());
        let payload_crc = crc32fast::hash(&payload);
        Entry { id, kind, payload, payload_crc }
    }

    pub fn id(&self) -> LogId {
        self.id
    }

    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub fn payload_crc(&self) -> u32 {
        self.payload_crc
    }

    /// The same payload under another id; its checksum is kept.
    pub fn with_id(mut self, id: LogId) -> Entry {
        self.id = id;
        self
    }

    pub fn set_id(&mut self, id: LogId) {
        self.id = id;
    }

    /// Bytes on the wire: header and payload. Also what `Log::read` counts against its limit.
    pub fn wire_len(&self) -> usize {
        HEADER + self.payload.len()
    }

    /// The header to send before the payload.
    pub fn wire_header(&self) -> [u8; HEADER] {
        self.frame_header().encode(WIRE_SALT)
    }

    /// Takes one entry off the front of `buf`; the payload is a slice of it, not a copy. On an error `buf` is unchanged.
    pub fn decode_wire(buf: &mut Bytes) -> Result<Entry, FrameError> {
        let header = FrameHeader::decode(buf, WIRE_SALT)?;
        let need = HEADER + header.payload_len as usize;
        if buf.len() < need {
            return Err(FrameError::Short { have: buf.len(), need });
        }
        let entry = Entry::from_frame(&header, buf.slice(HEADER..need))?;
        buf.advance(need);
        Ok(entry)
    }

    /// Verifies the payload against the header.
    pub(crate) fn from_frame(header: &FrameHeader, payload: Bytes) -> Result<Entry, FrameError> {
        let Some(kind) = EntryKind::of(header.kind) else {
            return Err(FrameError::NotAnEntry { kind: header.kind as u8 });
        };
        header.check_payload(&payload)?;
        let id = LogId { term: header.term, index: header.index };
        Ok(Entry { id, kind, payload, payload_crc: header.payload_crc })
    }

    pub(crate) fn frame_header(&self) -> FrameHeader {
        FrameHeader {
            kind: self.kind.frame_kind(),
            flags: 0,
            payload_len: self.payload.len() as u32,
            term: self.id.term,
            index: self.id.index,
            payload_crc: self.payload_crc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_gives_back_what_it_took_without_copying() {
        let entry = Entry::new(LogId::new(3, 7), EntryKind::Normal, Bytes::from_static(b"hello"));
        let mut wire = entry.wire_header().to_vec();
        wire.extend_from_slice(entry.payload());
        wire.extend_from_slice(b"next");
        let whole = Bytes::from(wire);
        let mut buf = whole.clone();
        let back = Entry::decode_wire(&mut buf).unwrap();
        assert_eq!(back, entry);
        assert_eq!(&buf[..], b"next");
        assert_eq!(back.payload().as_ptr(), whole[HEADER..].as_ptr());
    }

    #[test]
    fn a_flipped_bit_or_a_short_buffer_is_refused() {
        let entry = Entry::new(LogId::new(3, 7), EntryKind::Normal, Bytes::from_static(b"hello"));
        let mut wire = entry.wire_header().to_vec();
        wire.extend_from_slice(entry.payload());
        for bit in 0..wire.len() * 8 {
            let mut bad = wire.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Entry::decode_wire(&mut Bytes::from(bad)).is_err(), "bit {bit}");
        }
        for len in 0..wire.len() {
            let mut short = Bytes::copy_from_slice(&wire[..len]);
            assert!(matches!(Entry::decode_wire(&mut short), Err(FrameError::Short { .. })), "{len} bytes");
            assert_eq!(short.len(), len);
        }
    }

    #[test]
    fn control_frames_are_not_entries() {
        let vote = FrameHeader { kind: Kind::Vote, flags: 0, payload_len: 0, term: 1, index: 1, payload_crc: 0 };
        let mut buf = Bytes::copy_from_slice(&vote.encode(WIRE_SALT));
        assert_eq!(Entry::decode_wire(&mut buf), Err(FrameError::NotAnEntry { kind: 16 }));
    }
}

//! A record's data: who sent it, which one it is, and a checksum over all of it.
//!
//! ```text
//! magic u32 | crc32 u32 | length u32 | client u32 | value u64 | n u64 | fill derived from value
//! ```
//! All little endian; the checksum covers everything behind it. Invariant: bytes that decode are exactly
//! what [`Payload::encode`] once gave; so a changed, cut, invented or mixed record is seen as one.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

const MAGIC: u32 = 0x4252_5349;
const HEADER: usize = 32;
const CRC_END: usize = 8;

/// The least bytes a record's data has.
pub const BYTES_MIN: usize = HEADER;

/// What a record says of itself.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Payload {
    /// Unique in the run.
    pub value: u64,
    pub client: u32,
    /// The client's count of records of this key, from 0.
    pub n: u64,
    /// Of the whole data, in bytes.
    pub length: u32,
}

impl Payload {
    /// The data: `length` bytes, at least [`BYTES_MIN`].
    pub fn encode(&self) -> Bytes {
        let length = self.length as usize;
        assert!(length >= HEADER, "a record's data has at least {HEADER} bytes, not {length}");
        let mut data = BytesMut::with_capacity(length + 8);
        data.put_u32_le(MAGIC);
        data.put_u32_le(0);
        data.put_u32_le(self.length);
        data.put_u32_le(self.client);
        data.put_u64_le(self.value);
        data.put_u64_le(self.n);
        let mut word = self.value;
        while data.len() < length {
            // An odd constant: the words of one record differ, and so do those of two.
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
            data.put_u64_le(word);
        }
        data.truncate(length);
        let crc = crc32fast::hash(&data[CRC_END..]);
        data[4..CRC_END].copy_from_slice(&crc.to_le_bytes());
        data.freeze()
    }

    /// Reads what [`Payload::encode`] gave, and nothing else.
    pub fn decode(data: &[u8]) -> Result<Payload, Corrupt> {
        let corrupt = |why| Corrupt { bytes: data.len(), why };
        if data.len() < HEADER {
            return Err(corrupt("shorter than any record"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"));
        if u32_at(0) != MAGIC {
            return Err(corrupt("not a record of this run"));
        }
        if u32_at(8) as usize != data.len() {
            return Err(corrupt("not as long as it says"));
        }
        if u32_at(4) != crc32fast::hash(&data[CRC_END..]) {
            return Err(corrupt("its checksum is wrong"));
        }
        Ok(Payload { value: u64_at(16), client: u32_at(12), n: u64_at(24), length: u32_at(8) })
    }
}

/// Data that no client sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Corrupt {
    pub bytes: usize,
    pub why: &'static str,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes that are {}", self.bytes, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_changed_byte_and_every_cut_is_seen() {
        let data = Payload { value: 7, client: 3, n: 9, length: 101 }.encode();
        for at in 0..data.len() {
            for bit in 0..8 {
                let mut changed = data.to_vec();
                changed[at] ^= 1 << bit;
                assert!(Payload::decode(&changed).is_err(), "byte {at}, bit {bit}");
            }
            assert!(Payload::decode(&data[..at]).is_err(), "cut at {at}");
        }
        let other = Payload { value: 8, client: 3, n: 10, length: 101 }.encode();
        let mixed = [&data[..50], &other[50..]].concat();
        assert!(Payload::decode(&mixed).is_err(), "two records mixed");
    }

    proptest! {
        #[test]
        fn comes_back(value: u64, client: u32, n: u64, length in BYTES_MIN as u32..5_000) {
            let payload = Payload { value, client, n, length };
            let data = payload.encode();
            prop_assert_eq!(data.len(), length as usize);
            prop_assert_eq!(Payload::decode(&data), Ok(payload));
        }
    }
}

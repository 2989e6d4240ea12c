//! A file as records: cut into pieces that any reader can put together again, byte for byte.
//!
//! A piece's partition key says where it belongs: `NAME@OFFSET/TOTAL`, in bytes. So pieces spread
//! over all shards, need no order, and a piece stored twice (a retry after an unknown outcome) is
//! seen to be the same piece.
//!
//! Invariant: [`Assembly::check`] succeeds only if the accepted pieces cover `0..TOTAL` without a
//! gap and without contradiction. Not here: reading and writing the bytes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

/// Where a piece belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceKey {
    pub file: String,
    /// Of the piece's first byte.
    pub offset: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

impl fmt::Display for PieceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{}", self.file, self.offset, self.total)
    }
}

impl PieceKey {
    /// `None` if the key is not that of a piece.
    pub fn parse(key: &str) -> Option<PieceKey> {
        let (file, place) = key.rsplit_once('@')?;
        let (offset, total) = place.split_once('/')?;
        let piece = PieceKey { file: file.to_string(), offset: offset.parse().ok()?, total: total.parse().ok()? };
        (piece.to_string() == key).then_some(piece) // no signs, no leading zeros
    }
}

/// The pieces of one file, as they come.
#[derive(Default)]
pub struct Assembly {
    total: Option<u64>,
    /// By offset: length and checksum.
    pieces: BTreeMap<u64, (u64, u32)>,
    /// Pieces that came more than once.
    pub duplicates: u64,
}

/// Why pieces don't make a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AssemblyError {
    /// None came.
    Nothing,
    /// Two files of one name, or one damaged.
    Contradiction { at: u64 },
    /// Bytes nobody gave.
    Gap { from: u64, to: u64 },
}

impl fmt::Display for AssemblyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AssemblyError::Nothing => f.write_str("no piece of such a file is in the stream"),
            AssemblyError::Contradiction { at } => {
                write!(f, "two pieces contradict each other at byte {at}: was another file put under the same name?")
            }
            AssemblyError::Gap { from, to } => write!(f, "bytes {from} to {to} are missing"),
        }
    }
}

impl Assembly {
    /// Takes a piece. True if it is new, false if it is one that came before.
    pub fn accept(&mut self, piece: &PieceKey, data: &[u8]) -> Result<bool, AssemblyError> {
        let contradiction = AssemblyError::Contradiction { at: piece.offset };
        if *self.total.get_or_insert(piece.total) != piece.total {
            return Err(contradiction);
        }
        let this = (data.len() as u64, crc32fast::hash(data));
        match self.pieces.entry(piece.offset) {
            Entry::Vacant(place) => {
                place.insert(this);
                Ok(true)
            }
            Entry::Occupied(before) if *before.get() == this => {
                self.duplicates += 1;
                Ok(false)
            }
            Entry::Occupied(_) => Err(contradiction),
        }
    }

    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// The file's bytes, if it is whole.
    pub fn check(&self) -> Result<u64, AssemblyError> {
        let total = self.total.ok_or(AssemblyError::Nothing)?;
        let mut next = 0;
        for (offset, (bytes, _)) in &self.pieces {
            match offset.cmp(&next) {
                std::cmp::Ordering::Greater => return Err(AssemblyError::Gap { from: next, to: *offset - 1 }),
                std::cmp::Ordering::Less => return Err(AssemblyError::Contradiction { at: *offset }),
                std::cmp::Ordering::Equal => next += bytes,
            }
        }
        match next.cmp(&total) {
            std::cmp::Ordering::Less => Err(AssemblyError::Gap { from: next, to: total - 1 }),
            std::cmp::Ordering::Greater => Err(AssemblyError::Contradiction { at: total }),
            std::cmp::Ordering::Equal => Ok(total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, total: u64) -> PieceKey {
        PieceKey { file: "a@b/c.bin".into(), offset, total }
    }

    #[test]
    fn keys_survive_the_way() {
        let key = piece(65_536, 1_000_000);
        assert_eq!(PieceKey::parse(&key.to_string()), Some(key));
        for not in ["", "a", "a@1", "a@1/", "a@/1", "a@+1/2", "a@01/2", "a@x/2"] {
            assert_eq!(PieceKey::parse(not), None, "{not}");
        }
    }

    #[test]
    fn whole_in_any_order_and_twice() {
        let mut file = Assembly::default();
        assert_eq!(file.accept(&piece(3, 5), b"de"), Ok(true));
        assert_eq!(file.check(), Err(AssemblyError::Gap { from: 0, to: 2 }));
        assert_eq!(file.accept(&piece(0, 5), b"abc"), Ok(true));
        assert_eq!(file.accept(&piece(0, 5), b"abc"), Ok(false));
        assert_eq!((file.check(), file.duplicates, file.pieces()), (Ok(5), 1, 2));
    }

    #[test]
    fn what_is_not_a_file_is_refused() {
        assert_eq!(Assembly::default().check(), Err(AssemblyError::Nothing));
        let mut file = Assembly::default();
        file.accept(&piece(0, 5), b"abc").unwrap();
        assert_eq!(file.check(), Err(AssemblyError::Gap { from: 3, to: 4 }));
        assert_eq!(file.accept(&piece(0, 5), b"abd"), Err(AssemblyError::Contradiction { at: 0 }));
        assert_eq!(file.accept(&piece(3, 6), b"de"), Err(AssemblyError::Contradiction { at: 3 }));
        file.accept(&piece(2, 5), b"cde").unwrap();
        assert_eq!(file.check(), Err(AssemblyError::Contradiction { at: 2 }));
    }

    #[test]
    fn an_empty_file_is_one_empty_piece() {
        let mut file = Assembly::default();
        file.accept(&piece(0, 0), b"").unwrap();
        assert_eq!(file.check(), Ok(0));
    }
}

//! Hash keys and hash ranges: where in the 128-bit space a record belongs.
//!
//! Invariant: a [`HashRange`] is never empty or inverted (`start <= end`, both inclusive); its
//! constructor and its decoder refuse anything else.
//!
//! Not here: which shard owns which range (`shard_map.rs`).

use std::fmt;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

/// A point in `[0, 2^128)`. Shown and parsed as a decimal number without leading zeros.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct HashKey(pub u128);

impl HashKey {
    pub const MIN: HashKey = HashKey(0);
    pub const MAX: HashKey = HashKey(u128::MAX);

    /// MD5 of the key's UTF-8 bytes, read as a big-endian number (the Kinesis rule).
    pub fn of_partition_key(key: &str) -> HashKey {
        HashKey(u128::from_be_bytes(Md5::digest(key.as_bytes()).into()))
    }

    /// Reads `0` or a decimal number without a sign or leading zeros, below 2^128
    /// (Kinesis' pattern `0|([1-9]\d{0,38})`).
    pub fn parse(text: &str) -> Result<HashKey, HashKeyError> {
        let canonical =
            text == "0" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0'));
        if !canonical {
            return Err(HashKeyError::NotDecimal { text: excerpt(text) });
        }
        match text.parse::<u128>() {
            Ok(key) => Ok(HashKey(key)),
            Err(_) => Err(HashKeyError::TooLarge { text: excerpt(text) }),
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Enough of a caller's text to recognise it in an error, however long it was.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashKeyError {
    NotDecimal { text: String },
    TooLarge { text: String },
}

impl fmt::Display for HashKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKeyError::NotDecimal { text } => {
                write!(f, "hash key {text:?} is not a decimal number: digits only, no sign, no leading zeros")
            }
            HashKeyError::TooLarge { text } => {
                write!(f, "hash key {text:?} is too large: at most {} is allowed", u128::MAX)
            }
        }
    }
}

impl std::error::Error for HashKeyError {}

/// The keys from `start` to `end`, both inclusive.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "(HashKey, HashKey)", into = "(HashKey, HashKey)")]
pub struct HashRange {
    start: HashKey,
    end: HashKey,
}

impl HashRange {
    pub const FULL: HashRange = HashRange { start: HashKey::MIN, end: HashKey::MAX };

    pub fn new(start: HashKey, end: HashKey) -> Result<HashRange, HashRangeError> {
        if start > end {
            return Err(HashRangeError { start, end });
        }
        Ok(HashRange { start, end })
    }

    pub fn start(&self) -> HashKey {
        self.start
    }

    pub fn end(&self) -> HashKey {
        self.end
    }

    pub fn contains(&self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }

    pub fn overlaps(&self, other: &HashRange) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The first key of its upper half; the only one it has, if it has one.
    pub fn middle(&self) -> HashKey {
        HashKey(self.start.0 + (self.end.0 - self.start.0).div_ceil(2))
    }

    /// True if one range begins right after the other ends, in either order.
    pub fn adjacent(&self, other: &HashRange) -> bool {
        self.end.0.checked_add(1) == Some(other.start.0) || other.end.0.checked_add(1) == Some(self.start.0)
    }

    /// The whole space as `shards` ranges in order, each floor(2^128 / shards) keys long; the last
    /// one takes the rest. This is how Kinesis lays out a new stream.
    ///
    /// Panics if `shards` is 0: callers validate what a client asked for.
    pub fn split_even(shards: u32) -> Vec<HashRange> {
        assert!(shards > 0, "a stream has at least one shard");
        if shards == 1 {
            return vec![HashRange::FULL];
        }
        let shards = u128::from(shards);
        // floor(2^128 / n) without 129 bits: 2^128 = u128::MAX + 1.
        let exact = u128::from(u128::MAX % shards == shards - 1);
        let width = u128::MAX / shards + exact;
        let start = |nth: u128| nth * width;
        (0..shards)
            .map(|nth| HashRange {
                start: HashKey(start(nth)),
                end: match nth + 1 == shards {
                    true => HashKey::MAX,
                    false => HashKey(start(nth + 1) - 1),
                },
            })
            .collect()
    }
}

impl fmt::Display for HashRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.start, self.end)
    }
}

impl TryFrom<(HashKey, HashKey)> for HashRange {
    type Error = HashRangeError;

    fn try_from((start, end): (HashKey, HashKey)) -> Result<HashRange, HashRangeError> {
        HashRange::new(start, end)
    }
}

impl From<HashRange> for (HashKey, HashKey) {
    fn from(range: HashRange) -> (HashKey, HashKey) {
        (range.start, range.end)
    }
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct HashRangeError {
    pub start: HashKey,
    pub end: HashKey,
}

impl fmt::Display for HashRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hash range starts at {} after its end {}: the start must not exceed the end", self.start, self.end)
    }
}

impl std::error::Error for HashRangeError {}

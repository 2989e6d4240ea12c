//! Sequence numbers: a record's place and age as one 56-digit decimal, as Kinesis gives it.
//!
//! ```text
//! hex digits  1     9               1               16       2     9              8            1
//!             '2' | creation second | index mod 16 | offset | 00 | arrival second | shard index | '2'
//! ```
//!
//! Invariant: numeric order of the decimals, order of [`SequenceNumber`], and the order a consumer
//! needs are one: within a shard by offset, and a child (whose creation second is greater than its
//! parents') after every record of its parents. Leading digit 2 makes every number 56 digits long,
//! so text order agrees too.
//!
//! Not here: resolving a number to a record, and positions such as "oldest" (`iterator.rs`).

use std::cmp::Ordering;
use std::fmt;

use crate::ids::Offset;

/// Seconds since the Unix epoch fit nine hex digits.
pub const SECOND_MAX: u64 = (1 << 36) - 1;

const DIGITS: usize = 56;
/// 47 hex digits are 188 bits: six 32-bit limbs.
const LIMBS: usize = 6;

#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct SequenceNumber {
    /// When the shard was created, in seconds; at most [`SECOND_MAX`].
    pub created_s: u64,
    pub shard_index: u32,
    pub offset: Offset,
    /// When the record arrived, in seconds of group time; at most [`SECOND_MAX`].
    pub arrival_s: u64,
}

impl SequenceNumber {
    /// Stands before a shard's first record, and is where the shard's numbers start. No record has it: none arrived in 1970.
    pub fn beginning(created_s: u64, shard_index: u32) -> SequenceNumber {
        SequenceNumber { created_s, shard_index, offset: Offset::ZERO, arrival_s: 0 }
    }

    /// Whether it is the shard's [`SequenceNumber::beginning`].
    pub fn is_beginning(&self) -> bool {
        self.offset == Offset::ZERO && self.arrival_s == 0
    }

    /// Reads what [`fmt::Display`] writes: exactly 56 digits, with every fixed digit in place.
    pub fn parse(text: &str) -> Result<SequenceNumber, SequenceNumberError> {
        let refused = |reason| SequenceNumberError { text: text.chars().take(64).collect(), reason };
        if text.len() != DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused("not 56 decimal digits"));
        }
        let words = words_of_decimal(text.as_bytes()).ok_or_else(|| refused("out of range"))?;
        SequenceNumber::from_words(words).map_err(refused)
    }

    /// The number's 188 bits as its three parts: 44 bits up to the offset, the offset, 80 bits after.
    fn words(&self) -> (u64, u64, u128) {
        assert!(
            self.created_s <= SECOND_MAX && self.arrival_s <= SECOND_MAX,
            "seconds of {self:?} exceed {SECOND_MAX}"
        );
        let top = (0x2 << 40) | (self.created_s << 4) | u64::from(self.shard_index & 0xf);
        let tail = (u128::from(self.arrival_s) << 36) | (u128::from(self.shard_index) << 4) | 0x2;
        (top, self.offset.0, tail)
    }

    fn from_words((top, offset, tail): (u64, u64, u128)) -> Result<SequenceNumber, &'static str> {
        let shard_index = ((tail >> 4) & 0xffff_ffff) as u32;
        let fixed = top >> 40 == 0x2 && tail & 0xf == 0x2 && tail >> 72 == 0;
        if !fixed {
            return Err("its fixed digits are wrong");
        }
        if top & 0xf != u64::from(shard_index & 0xf) {
            return Err("its two shard indexes disagree");
        }
        Ok(SequenceNumber {
            created_s: (top >> 4) & SECOND_MAX,
            shard_index,
            offset: Offset(offset),
            arrival_s: (tail >> 36) as u64 & SECOND_MAX,
        })
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &SequenceNumber) -> Ordering {
        self.words().cmp(&other.words())
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &SequenceNumber) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = limbs_of_words(self.words());
        let mut digits = [b'0'; DIGITS];
        let mut end = DIGITS;
        // Nine digits at a time: the remainder of a division by 10^9 fits a limb.
        while end > 0 {
            let mut rest = divide(&mut limbs, 1_000_000_000);
            for digit in digits[end.saturating_sub(9)..end].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            end = end.saturating_sub(9);
        }
        f.write_str(std::str::from_utf8(&digits).expect("digits are ascii"))
    }
}

/// Most significant limb first.
fn limbs_of_words((top, offset, tail): (u64, u64, u128)) -> [u32; LIMBS] {
    let high = (u128::from(top) << 64) | u128::from(offset);
    // The number is high * 2^80 + tail: 2^80 is two limbs and a half, hence the 16s.
    [
        (high >> 80) as u32,
        (high >> 48) as u32,
        (high >> 16) as u32,
        ((high << 16) as u32) | (tail >> 64) as u32,
        (tail >> 32) as u32,
        tail as u32,
    ]
}

fn words_of_decimal(digits: &[u8]) -> Option<(u64, u64, u128)> {
    let mut limbs = [0u32; LIMBS];
    for &digit in digits {
        let mut carry = u64::from(digit - b'0');
        for limb in limbs.iter_mut().rev() {
            carry += u64::from(*limb) * 10;
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            return None;
        }
    }
    let [a, b, c, d, e, g] = limbs.map(u128::from);
    let high = (a << 80) | (b << 48) | (c << 16) | (d >> 16);
    let tail = ((d & 0xffff) << 64) | (e << 32) | g;
    Some(((high >> 64) as u64, high as u64, tail))
}

/// Divides in place and gives the remainder.
fn divide(limbs: &mut [u32; LIMBS], by: u64) -> u64 {
    let mut rest = 0u64;
    for limb in limbs {
        let value = (rest << 32) | u64::from(*limb);
        *limb = (value / by) as u32;
        rest = value % by;
    }
    rest
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SequenceNumberError {
    /// The refused text, cut to 64 characters.
    pub text: String,
    pub reason: &'static str,
}

impl fmt::Display for SequenceNumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a sequence number: {}", self.text, self.reason)
    }
}

impl std::error::Error for SequenceNumberError {}

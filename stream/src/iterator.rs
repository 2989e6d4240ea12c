//! Shard iterators: where a reader starts, and the token that carries a position between calls.
//!
//! ```text
//! version u8 = 1 | position kind u8 | stream u32 | shard index u32 | position u64 | issued_ms u64 | mac 16
//! ```
//! Little endian, then base64url: 56 characters. The mac is HMAC-SHA256, cut to 16 bytes, under the
//! cluster's token key.
//!
//! Invariant: a token that decodes was made by this cluster less than five minutes ago, and names
//! its stream by id, so it dies with a deleted stream even if the name comes back.
//!
//! Not here: looking up a time, and whether a position is still readable when it is used.

use std::fmt;

use braid_probe::{Mark, reachable};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::{Offset, ShardId, StreamId};
use crate::limits::ITERATOR_MS_MAX;
use crate::sequence::SequenceNumber;
use crate::shard::Shard;

/// What a reader asks for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum IteratorKind {
    /// The oldest readable record.
    TrimHorizon,
    /// What comes after the newest record.
    Latest,
    AtSequence(SequenceNumber),
    AfterSequence(SequenceNumber),
    /// The first record that arrived at or after this time, milliseconds since the Unix epoch.
    AtTimestamp(u64),
}

impl IteratorKind {
    /// Where this starts in `shard` as it is now. A trimmed record's place is taken by the oldest
    /// readable one.
    pub fn position(&self, shard: &Shard) -> Result<Position, WrongSequence> {
        let given_out = |number: SequenceNumber| {
            let ours = (number.created_s, number.shard_index) == (shard.created_s, shard.id.index);
            match ours && (number.offset < shard.next || number.is_beginning()) {
                true => Ok(number.offset),
                false => Err(WrongSequence { number, shard: shard.id }),
            }
        };
        Ok(Position::Offset(match *self {
            IteratorKind::TrimHorizon => shard.trimmed,
            IteratorKind::Latest => shard.next,
            IteratorKind::AtSequence(number) => given_out(number)?.max(shard.trimmed),
            // Where the shard begins: its first record comes after that.
            IteratorKind::AfterSequence(number) if number.is_beginning() => given_out(number)?.max(shard.trimmed),
            IteratorKind::AfterSequence(number) => given_out(number)?.advance(1).max(shard.trimmed),
            IteratorKind::AtTimestamp(ms) => return Ok(Position::Time(ms)),
        }))
    }
}

/// The number was never given to a record of this shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongSequence {
    pub number: SequenceNumber,
    pub shard: ShardId,
}

impl fmt::Display for WrongSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WrongSequence { number, shard } = self;
        write!(f, "sequence number {number} is not a record of shard {shard}")
    }
}

impl std::error::Error for WrongSequence {}

#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Position {
    /// The next record's offset.
    Offset(Offset),
    /// Not looked up yet: the first record that arrives at or after this time.
    Time(u64),
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct IteratorToken {
    pub shard: ShardId,
    pub position: Position,
    /// Milliseconds since the Unix epoch.
    pub issued_ms: u64,
}

const VERSION: u8 = 1;
const KIND_OFFSET: u8 = 1;
const KIND_TIME: u8 = 2;
const BODY: usize = 26;
const MAC: usize = 16;
const TOKEN: usize = BODY + MAC;
/// Whole triples need no padding, so a token has exactly one text.
const _: () = assert!(TOKEN.is_multiple_of(3));
const _: () = assert!(BODY == 1 + 1 + 4 + 4 + 8 + 8);
const TEXT: usize = TOKEN / 3 * 4;

impl IteratorToken {
    /// Text safe in URLs and headers; opaque to clients.
    pub fn encode(&self, key: &[u8; 32]) -> String {
        let (kind, position) = match self.position {
            Position::Offset(offset) => (KIND_OFFSET, offset.0),
            Position::Time(ms) => (KIND_TIME, ms),
        };
        let mut token = Vec::with_capacity(TOKEN);
        token.extend_from_slice(&[VERSION, kind]);
        token.extend_from_slice(&self.shard.stream.0.to_le_bytes());
        token.extend_from_slice(&self.shard.index.to_le_bytes());
        token.extend_from_slice(&position.to_le_bytes());
        token.extend_from_slice(&self.issued_ms.to_le_bytes());
        let mac = mac(key, &token).finalize().into_bytes();
        token.extend_from_slice(&mac[..MAC]);
        base64url(&token)
    }

    /// `now_ms` is this node's time; see [`IteratorToken::check_age`].
    pub fn decode(text: &str, key: &[u8; 32], now_ms: u64) -> Result<IteratorToken, TokenError> {
        let token = IteratorToken::open(text, key)?;
        token.check_age(now_ms).map(|()| token)
    }

    /// What a token says, however old it is. Its age is for the one to judge who made it, or its successor:
    /// clocks of different nodes may be apart.
    pub fn open(text: &str, key: &[u8; 32]) -> Result<IteratorToken, TokenError> {
        let token = from_base64url(text).ok_or(TokenError::Malformed { chars: text.len() })?;
        let (body, given) = token.split_at(BODY);
        if mac(key, body).verify_truncated_left(given).is_err() {
            return Err(TokenError::Forged);
        }
        let &[version, kind, ..] = body else {
            return Err(TokenError::Malformed { chars: text.len() });
        };
        if version != VERSION {
            return Err(TokenError::UnknownVersion { found: version });
        }
        let position = u64::from_le_bytes(array_at(body, 10));
        let token = IteratorToken {
            shard: ShardId {
                stream: StreamId(u32::from_le_bytes(array_at(body, 2))),
                index: u32::from_le_bytes(array_at(body, 6)),
            },
            position: match kind {
                KIND_OFFSET => Position::Offset(Offset(position)),
                KIND_TIME => Position::Time(position),
                _ => return Err(TokenError::Malformed { chars: text.len() }),
            },
            issued_ms: u64::from_le_bytes(array_at(body, 18)),
        };
        Ok(token)
    }

    /// Refuses a token of more than five minutes; one from a clock that is ahead counts as fresh.
    pub fn check_age(&self, now_ms: u64) -> Result<(), TokenError> {
        let age_ms = now_ms.saturating_sub(self.issued_ms);
        match age_ms > ITERATOR_MS_MAX {
            true => {
                reachable!(Mark::IteratorExpired);
                Err(TokenError::Expired { age_ms })
            }
            false => Ok(()),
        }
    }

    /// For a call that names a stream besides the token: they must agree. `stream` is what the name
    /// stands for now.
    pub fn must_be_of(&self, stream: StreamId) -> Result<(), TokenError> {
        match self.shard.stream == stream {
            true => Ok(()),
            false => Err(TokenError::WrongStream { token: self.shard.stream, stream }),
        }
    }

    /// For a call that names a shard besides the token.
    pub fn must_be_for(&self, shard: ShardId) -> Result<(), TokenError> {
        self.must_be_of(shard.stream)?;
        match self.shard == shard {
            true => Ok(()),
            false => Err(TokenError::WrongShard { token: self.shard, shard }),
        }
    }
}

fn mac(key: &[u8; 32], body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("hmac takes keys of any length");
    // The key signs other tokens too: none of them may pass for an iterator.
    mac.update(b"braid shard iterator\0");
    mac.update(body);
    mac
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were sliced")
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Whole triples of bytes to four characters each.
fn base64url(bytes: &[u8]) -> String {
    let (triples, rest) = bytes.as_chunks::<3>();
    assert!(rest.is_empty(), "a token is whole triples");
    let mut text = String::with_capacity(TEXT);
    for &[a, b, c] in triples {
        let word = u32::from_be_bytes([0, a, b, c]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(ALPHABET[(word >> shift) as usize & 63]));
        }
    }
    text
}

fn from_base64url(text: &str) -> Option<[u8; TOKEN]> {
    if text.len() != TEXT {
        return None;
    }
    let mut token = [0; TOKEN];
    for (quad, triple) in text.as_bytes().chunks(4).zip(token.chunks_mut(3)) {
        let mut word = 0u32;
        for &byte in quad {
            let digit = ALPHABET.iter().position(|&it| it == byte)?;
            word = (word << 6) | digit as u32;
        }
        triple.copy_from_slice(&word.to_be_bytes()[1..]);
    }
    Some(token)
}

/// Why a token is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenError {
    Malformed {
        chars: usize,
    },
    UnknownVersion {
        found: u8,
    },
    Forged,
    Expired {
        age_ms: u64,
    },
    /// The stream was deleted and recreated, or the token is another stream's.
    WrongStream {
        token: StreamId,
        stream: StreamId,
    },
    WrongShard {
        token: ShardId,
        shard: ShardId,
    },
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Malformed { chars } => {
                write!(f, "iterator of {chars} characters is malformed: {TEXT} of [A-Za-z0-9_-] as given out")
            }
            TokenError::UnknownVersion { found } => {
                write!(f, "iterator version {found} is unknown: this node reads version {VERSION}")
            }
            TokenError::Forged => write!(f, "iterator was not given out by this cluster"),
            TokenError::Expired { age_ms } => {
                write!(f, "iterator expired: it is {age_ms} ms old, at most {ITERATOR_MS_MAX} are allowed")
            }
            TokenError::WrongStream { token, stream } => {
                write!(f, "iterator is for stream id {token}, not for {stream}")
            }
            TokenError::WrongShard { token, shard } => {
                write!(f, "iterator is for shard {token}, not for {shard}")
            }
        }
    }
}

impl std::error::Error for TokenError {}

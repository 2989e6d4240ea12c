//! The frame of every encoding that isn't an append: a version byte (and for commands a tag byte),
//! then postcard.
//!
//! Invariant: a decoder accepts exactly the versions it knows and exactly the bytes that belong to
//! the value; a longer input is refused, not half-read. Field order within a struct is the format:
//! any change to an encoded struct takes a new version.
//!
//! Not here: checksums, which belong to the files and frames these bytes travel in.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// `prefix` (version, and a tag if the format has one), then the value.
pub(crate) fn encode<T: Serialize>(prefix: &[u8], value: &T) -> Vec<u8> {
    postcard::to_extend(value, prefix.to_vec()).expect("plain data always encodes")
}

/// Reads one value that takes up all of `body`.
pub(crate) fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes::<T>(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(DecodeError::TrailingBytes { bytes: rest.len() }),
        Err(_) => Err(DecodeError::Malformed { bytes: body.len() }),
    }
}

/// Reads a version byte, which must be `version`, then one value.
pub(crate) fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let (&found, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if found != version {
        return Err(DecodeError::UnknownVersion { found, known: version });
    }
    decode_body(body)
}

/// Why bytes were refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DecodeError {
    Empty,
    UnknownVersion {
        found: u8,
        known: u8,
    },
    UnknownTag {
        found: u8,
    },
    Malformed {
        bytes: usize,
    },
    TrailingBytes {
        bytes: usize,
    },
    /// An append; the batch says what is wrong with it.
    Batch(crate::batch::BatchError),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Empty => write!(f, "no bytes where a version byte was expected"),
            DecodeError::UnknownVersion { found, known } => {
                write!(f, "format version {found} is unknown: this node reads version {known}")
            }
            DecodeError::UnknownTag { found } => {
                write!(f, "command tag {found} is unknown to this node")
            }
            DecodeError::Malformed { bytes } => {
                write!(f, "{bytes} bytes do not decode to the expected value")
            }
            DecodeError::TrailingBytes { bytes } => {
                write!(f, "{bytes} bytes are left after the expected value")
            }
            DecodeError::Batch(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DecodeError {}

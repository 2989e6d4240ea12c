//! What users name: streams and partition keys.
//!
//! Invariant: a [`StreamName`] matches `[a-zA-Z0-9_.-]{1,128}`; a [`PartitionKey`] is UTF-8 of 1 to
//! 256 characters. Constructors and decoders refuse anything else, so nothing further in checks.
//!
//! Not here: ARNs, accounts and regions, which belong to the Kinesis face.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{PARTITION_KEY_CHARS_MAX, STREAM_NAME_CHARS_MAX};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(String);

impl StreamName {
    pub fn parse(text: &str) -> Result<StreamName, StreamNameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let fits = (1..=STREAM_NAME_CHARS_MAX).contains(&text.chars().count());
        if !fits || !text.bytes().all(allowed) {
            return Err(StreamNameError { text: text.chars().take(STREAM_NAME_CHARS_MAX).collect() });
        }
        Ok(StreamName(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for StreamName {
    type Error = StreamNameError;

    fn try_from(text: String) -> Result<StreamName, StreamNameError> {
        StreamName::parse(&text)
    }
}

impl From<StreamName> for String {
    fn from(name: StreamName) -> String {
        name.0
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamNameError {
    /// The refused text, cut to 128 characters.
    pub text: String,
}

impl fmt::Display for StreamNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream name {:?} is not allowed: 1 to {STREAM_NAME_CHARS_MAX} of [a-zA-Z0-9_.-]", self.text)
    }
}

impl std::error::Error for StreamNameError {}

/// A record's partition key. Shares the buffer it was cut from; a clone copies no text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey(Bytes);

impl PartitionKey {
    /// Takes UTF-8 of 1 to 256 characters (so at most 1,024 bytes).
    pub fn new(bytes: Bytes) -> Result<PartitionKey, PartitionKeyError> {
        // The byte bound comes first, so a hostile megabyte isn't scanned to be refused.
        if bytes.len() > 4 * PARTITION_KEY_CHARS_MAX {
            return Err(PartitionKeyError::TooLong { bytes: bytes.len() });
        }
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(PartitionKeyError::NotUtf8);
        };
        match text.chars().count() {
            0 => Err(PartitionKeyError::Empty),
            1..=PARTITION_KEY_CHARS_MAX => Ok(PartitionKey(bytes)),
            _ => Err(PartitionKeyError::TooLong { bytes: bytes.len() }),
        }
    }

    pub fn parse(text: &str) -> Result<PartitionKey, PartitionKeyError> {
        PartitionKey::new(Bytes::copy_from_slice(text.as_bytes()))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when the key was made")
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartitionKeyError {
    Empty,
    TooLong { bytes: usize },
    NotUtf8,
}

impl fmt::Display for PartitionKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = format_args!("1 to {PARTITION_KEY_CHARS_MAX} characters are allowed");
        match self {
            PartitionKeyError::Empty => write!(f, "partition key is empty: {allowed}"),
            PartitionKeyError::TooLong { bytes } => {
                write!(f, "partition key of {bytes} bytes is too long: {allowed}")
            }
            PartitionKeyError::NotUtf8 => write!(f, "partition key is not utf-8: {allowed}"),
        }
    }
}

impl std::error::Error for PartitionKeyError {}

//! What users name: streams and partition keys.
//!
//! Invariant: a [`StreamName`] matches `[a-zA-Z0-9_.-]{1,128}`, after a namespace and a slash if it is in one other
//! than the default; a [`PartitionKey`] is UTF-8 of 1 to 256 characters. Constructors and decoders refuse anything
//! else, so nothing further in checks.
//!
//! Not here: what a namespace stands for. The Kinesis face has one for each account and region.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{NAMESPACE_CHARS_MAX, PARTITION_KEY_CHARS_MAX, STREAM_NAME_CHARS_MAX};

/// `NAME`, or `NAMESPACE/NAME`: two streams of different namespaces may have the same local name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(String);

impl StreamName {
    pub fn parse(text: &str) -> Result<StreamName, StreamNameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let fits = |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(allowed);
        let sound = match text.split_once('/') {
            Some((namespace, local)) => fits(namespace, NAMESPACE_CHARS_MAX) && fits(local, STREAM_NAME_CHARS_MAX),
            None => fits(text, STREAM_NAME_CHARS_MAX),
        };
        match sound {
            true => Ok(StreamName(text.to_owned())),
            false => Err(StreamNameError { text: text.chars().take(STREAM_NAME_CHARS_MAX).collect() }),
        }
    }

    /// The name `local` in `namespace`; `None` is the default one.
    pub fn within(namespace: Option<&str>, local: &str) -> Result<StreamName, StreamNameError> {
        match namespace {
            Some(namespace) => StreamName::parse(&format!("{namespace}/{local}")),
            None if local.contains('/') => {
                Err(StreamNameError { text: local.chars().take(STREAM_NAME_CHARS_MAX).collect() })
            }
            None => StreamName::parse(local),
        }
    }

    /// What stands before the slash; `None` in the default namespace.
    pub fn namespace(&self) -> Option<&str> {
        self.0.split_once('/').map(|(namespace, _)| namespace)
    }

    /// The name within its namespace.
    pub fn local(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, local)| local)
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
        write!(
            f,
            "stream name {:?} is not allowed: 1 to {STREAM_NAME_CHARS_MAX} of [a-zA-Z0-9_.-], after a namespace of \
             at most {NAMESPACE_CHARS_MAX} and a slash if it is in one",
            self.text
        )
    }
}

impl std::error::Error for StreamNameError {}

/// A registered consumer's name within its stream: 1 to 128 of `[a-zA-Z0-9_.-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConsumerName(StreamName);

impl ConsumerName {
    /// Its rule is a stream's within a namespace.
    pub fn parse(text: &str) -> Result<ConsumerName, StreamNameError> {
        StreamName::within(None, text).map(ConsumerName)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for ConsumerName {
    type Error = StreamNameError;

    fn try_from(text: String) -> Result<ConsumerName, StreamNameError> {
        ConsumerName::parse(&text)
    }
}

impl From<ConsumerName> for String {
    fn from(name: ConsumerName) -> String {
        name.0.0
    }
}

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

//! A record: what a producer sends and a consumer gets back, unchanged.
//!
//! Invariant: a record's key is valid (see `name.rs`); its size is checked against the stream's
//! limits before it is put into a batch, never after.
//!
//! Not here: offset and time, which a record has only once it is applied.

use std::fmt;

use bytes::Bytes;

use crate::hash::HashKey;
use crate::limits::{Limits, PUT_RECORDS_MAX};
use crate::name::PartitionKey;

/// Cheap to clone: key and data share their buffers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub partition_key: PartitionKey,
    /// Overrides the key's hash for routing.
    pub explicit_hash: Option<HashKey>,
    pub data: Bytes,
}

impl Record {
    /// Where the record belongs.
    pub fn hash_key(&self) -> HashKey {
        match self.explicit_hash {
            Some(hash) => hash,
            None => HashKey::of_partition_key(self.partition_key.as_str()),
        }
    }

    /// What limits count: bytes of data and of the partition key.
    pub fn size(&self) -> u64 {
        (self.data.len() + self.partition_key.as_bytes().len()) as u64
    }

    pub fn check(&self, limits: &Limits) -> Result<(), RecordError> {
        let bytes = self.size();
        match bytes > limits.record_bytes_max {
            true => Err(RecordError { bytes, max: limits.record_bytes_max }),
            false => Ok(()),
        }
    }
}

/// Whether `records` may be one PutRecords call: 1 to 500 of them, each within the stream's record
/// size, and together within 5 MiB (10 MiB if the stream allows large records). One bad record
/// refuses the whole call, as in Kinesis.
pub fn check_request(records: &[Record], limits: &Limits) -> Result<(), RequestError> {
    if records.is_empty() || records.len() > PUT_RECORDS_MAX {
        return Err(RequestError::Count { records: records.len() });
    }
    for (nth, record) in records.iter().enumerate() {
        if let Err(error) = record.check(limits) {
            return Err(RequestError::Record { nth, error });
        }
    }
    let bytes = records.iter().map(Record::size).sum();
    let max = limits.put_bytes_max();
    match bytes > max {
        true => Err(RequestError::Bytes { bytes, max }),
        false => Ok(()),
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordError {
    pub bytes: u64,
    pub max: u64,
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record of {} bytes is too large: data and partition key may have {} together", self.bytes, self.max)
    }
}

impl std::error::Error for RecordError {}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestError {
    Count { records: usize },
    Record { nth: usize, error: RecordError },
    Bytes { bytes: u64, max: u64 },
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Count { records } => {
                write!(f, "request of {records} records: 1 to {PUT_RECORDS_MAX} are allowed")
            }
            RequestError::Record { nth, error } => write!(f, "record {nth} (from 0): {error}"),
            RequestError::Bytes { bytes, max } => write!(f, "request of {bytes} bytes is too large: {max} are allowed"),
        }
    }
}

impl std::error::Error for RequestError {}

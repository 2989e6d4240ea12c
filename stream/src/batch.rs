//! The one encoding of an append: the whole payload of a log entry, on the disk and on the network.
//!
//! ```text
//! batch   version u8 = 1 | tag u8 = 1 (append) | flags u8 | 0 u8 | slices u32 | time_ms u64
//! slice   stream u32 | shard index u32 | records u32 | record bytes u32 | flags u8 | extension bytes u8 | 0 u16
//!         the extension (none yet), then the records
//! record  flags u8 | 0 u8 | key bytes u16 | data bytes u32 | explicit hash u128, if flag 1 | key | data
//! ```
//! All little endian. A slice is one shard's share; its `pos` is the byte in the payload where its
//! header starts, so that an index entry (log index, pos) leads straight to it.
//!
//! Invariant: decoding arbitrary bytes never panics and never reads outside them; a [`BatchView`]
//! exists only if its header and every slice header are sound and fill the payload exactly.
//! Unknown flags are refused: a node must not half-understand what it applies. A producer's id,
//! epoch and sequence will be a slice flag with an extension of fixed size, and several slices may
//! name one shard (one for each producer), so neither breaks this format.
//!
//! Not here: offsets and effective time, which `Group::apply` gives; checksums, which the log's
//! frame carries.

use std::fmt;

use braid_probe::{Bug, planted};
use bytes::{BufMut, Bytes, BytesMut};

use crate::hash::HashKey;
use crate::ids::{ShardId, StreamId};
use crate::name::{PartitionKey, PartitionKeyError};
use crate::record::Record;

pub(crate) const VERSION: u8 = 1;
/// The command tag of an append, see `command.rs`.
pub(crate) const TAG: u8 = 1;

const BATCH_HEADER: usize = 16;
const SLICE_HEADER: usize = 20;
const RECORD_HEADER: usize = 8;
const HASH_BYTES: usize = 16;
const RECORD_FLAG_HASH: u8 = 1;

/// Sums of 32-bit lengths below never overflow.
const _: () = assert!(usize::BITS >= 64);
const _: () = assert!(BATCH_HEADER == 1 + 1 + 1 + 1 + 4 + 8);
const _: () = assert!(SLICE_HEADER == 4 + 4 + 4 + 4 + 1 + 1 + 2);
const _: () = assert!(RECORD_HEADER == 1 + 1 + 2 + 4);

/// Gathers records of many shards and writes them once, grouped by shard.
pub struct BatchBuilder {
    time_ms: u64,
    records: Vec<(ShardId, Record)>,
    bytes: usize,
}

/// Where a pushed record ended up: the `nth` of the batch's `slice`-th slice. Its offset is the
/// slice's first offset + `nth`, if the slice was not refused.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub slice: u32,
    pub nth: u32,
}

/// A finished batch. `places` has one entry for each pushed record, in the order of pushing.
#[derive(Clone, Debug)]
pub struct Batch {
    pub payload: Bytes,
    pub places: Vec<Place>,
}

impl BatchBuilder {
    /// `time_ms` is the leader's group time, in milliseconds since the Unix epoch.
    pub fn new(time_ms: u64) -> BatchBuilder {
        BatchBuilder { time_ms, records: Vec::new(), bytes: BATCH_HEADER }
    }

    /// Adds a record after those already pushed for the shard. Copies nothing yet: the record's
    /// buffers are shared until [`BatchBuilder::finish`].
    pub fn push(&mut self, shard: ShardId, record: &Record) {
        self.bytes += BatchBuilder::cost(record);
        self.records.push((shard, record.clone()));
    }

    /// The most bytes that pushing `record` can add to the payload.
    pub fn cost(record: &Record) -> usize {
        SLICE_HEADER + record_bytes(record)
    }

    /// An upper bound of the payload's length (exact if every record had its own shard).
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records pushed so far.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Writes the payload into one buffer, each byte of data copied once. Slices come in shard
    /// order, a shard's records in push order.
    ///
    /// Panics if nothing was pushed or the payload exceeds 4 GiB: both are the caller's to avoid.
    pub fn finish(self) -> Batch {
        assert!(!self.records.is_empty(), "an append carries records");
        let records = &self.records;
        let mut order: Vec<u32> = (0..records.len() as u32).collect();
        match planted(Bug::UnstableOrder) {
            true => order.sort_unstable_by_key(|&i| records[i as usize].0),
            false => order.sort_unstable_by_key(|&i| (records[i as usize].0, i)),
        }
        let runs = || order.chunk_by(|&a, &b| records[a as usize].0 == records[b as usize].0);

        let slices = runs().count();
        let bytes = self.bytes - (records.len() - slices) * SLICE_HEADER;
        assert!(u32::try_from(bytes).is_ok(), "a batch of {bytes} bytes has positions beyond 32 bits");

        let mut out = BytesMut::with_capacity(bytes);
        out.put_slice(&[VERSION, TAG, 0, 0]);
        out.put_u32_le(slices as u32);
        out.put_u64_le(self.time_ms);
        let mut places = vec![Place { slice: 0, nth: 0 }; records.len()];
        for (slice, run) in runs().enumerate() {
            let region: usize = run.iter().map(|&i| record_bytes(&records[i as usize].1)).sum();
            let shard = records[run[0] as usize].0;
            out.put_u32_le(shard.stream.0);
            out.put_u32_le(shard.index);
            out.put_u32_le(run.len() as u32);
            out.put_u32_le(region as u32);
            out.put_u32_le(0);
            for (nth, &i) in run.iter().enumerate() {
                put_record(&mut out, &records[i as usize].1);
                places[i as usize] = Place { slice: slice as u32, nth: nth as u32 };
            }
        }
        assert_eq!(out.len(), bytes, "the batch's length was foreseen");
        Batch { payload: out.freeze(), places }
    }
}

fn record_bytes(record: &Record) -> usize {
    let hash = record.explicit_hash.map_or(0, |_| HASH_BYTES);
    RECORD_HEADER + hash + record.partition_key.as_bytes().len() + record.data.len()
}

fn put_record(out: &mut BytesMut, record: &Record) {
    let key = record.partition_key.as_bytes();
    let data_bytes = u32::try_from(record.data.len()).expect("a record is far below 4 GiB");
    let flags = record.explicit_hash.map_or(0, |_| RECORD_FLAG_HASH);
    out.put_slice(&[flags, 0]);
    out.put_u16_le(u16::try_from(key.len()).expect("a key has at most 1,024 bytes"));
    out.put_u32_le(data_bytes);
    if let Some(hash) = record.explicit_hash {
        out.put_u128_le(hash.0);
    }
    out.put_slice(key);
    out.put_slice(&record.data);
}

/// A checked batch, sharing the buffer it was decoded from.
#[derive(Clone, PartialEq, Eq)]
pub struct BatchView {
    payload: Bytes,
    time_ms: u64,
    slices: u32,
}

/// One slice's header.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    pub shard: ShardId,
    /// Where the slice's header starts in the payload.
    pub pos: u32,
    /// Records in the slice; at least 1.
    pub count: u32,
    /// Bytes of the records as encoded (data, keys and eight or so bytes each).
    pub record_bytes: u32,
}

impl Slice {
    fn end(&self) -> usize {
        self.pos as usize + SLICE_HEADER + self.record_bytes as usize
    }
}

impl BatchView {
    /// Checks the header and walks every slice header; record bodies are not looked at.
    pub fn decode(payload: Bytes) -> Result<BatchView, BatchError> {
        if u32::try_from(payload.len()).is_err() {
            return Err(BatchError::TooLong { bytes: payload.len() });
        }
        check_header(&payload)?;
        let slices = u32_at(&payload, 4);
        let view = BatchView { time_ms: u64::from_le_bytes(array_at(&payload, 8)), slices, payload };
        if slices == 0 {
            return Err(BatchError::NoSlices);
        }
        let mut at = BATCH_HEADER;
        for _ in 0..slices {
            at = slice_at(&view.payload, at)?.end();
        }
        match at == view.payload.len() {
            true => Ok(view),
            false => Err(BatchError::TrailingBytes { bytes: view.payload.len() - at }),
        }
    }

    /// The whole payload of the log entry.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// What the leader stamped, in milliseconds since the Unix epoch; see `Group::apply` for the
    /// time the records really get.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// Slices in the batch; at least 1.
    pub fn slice_count(&self) -> usize {
        self.slices as usize
    }

    /// The slices in payload order.
    pub fn slices(&self) -> impl Iterator<Item = Slice> + '_ {
        let mut at = BATCH_HEADER;
        (0..self.slices).map(move |_| {
            let slice = slice_at(&self.payload, at).expect("checked when decoded");
            at = slice.end();
            slice
        })
    }

    /// The slice whose header starts at byte `pos` of a log entry's payload. Nothing but that slice
    /// (and the payload's version) is checked, so this costs the same for any batch.
    pub fn slice_at(payload: &Bytes, pos: u32) -> Result<Slice, BatchError> {
        check_header(payload)?;
        match (pos as usize) < BATCH_HEADER {
            true => Err(BatchError::Truncated { at: pos as usize }),
            false => slice_at(payload, pos as usize),
        }
    }

    /// The records of the slice at `pos`, each sharing the payload's buffer.
    pub fn records_at(payload: &Bytes, pos: u32) -> Result<Records, BatchError> {
        let slice = BatchView::slice_at(payload, pos)?;
        let region = slice.end() - slice.record_bytes as usize..slice.end();
        Ok(Records { region: payload.slice(region), at: 0, left: slice.count })
    }
}

impl fmt::Debug for BatchView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchView")
            .field("time_ms", &self.time_ms)
            .field("bytes", &self.payload.len())
            .field("slices", &self.slices().collect::<Vec<_>>())
            .finish()
    }
}

fn check_header(payload: &[u8]) -> Result<(), BatchError> {
    if payload.len() < BATCH_HEADER {
        return Err(BatchError::Truncated { at: payload.len() });
    }
    let [version, tag, flags, zero] = array_at(payload, 0);
    match () {
        _ if version != VERSION => Err(BatchError::UnknownVersion { found: version }),
        _ if tag != TAG => Err(BatchError::NotAnAppend { tag }),
        _ if flags != 0 || zero != 0 => Err(BatchError::UnknownFlags { at: 2 }),
        _ => Ok(()),
    }
}

fn slice_at(payload: &[u8], at: usize) -> Result<Slice, BatchError> {
    let rest = payload.len().saturating_sub(at);
    if rest < SLICE_HEADER {
        return Err(BatchError::Truncated { at });
    }
    if u32_at(payload, at + 16) != 0 {
        return Err(BatchError::UnknownFlags { at: at + 16 });
    }
    let slice = Slice {
        shard: ShardId { stream: StreamId(u32_at(payload, at)), index: u32_at(payload, at + 4) },
        pos: u32::try_from(at).map_err(|_| BatchError::TooLong { bytes: at })?,
        count: u32_at(payload, at + 8),
        record_bytes: u32_at(payload, at + 12),
    };
    if slice.record_bytes as usize > rest - SLICE_HEADER {
        return Err(BatchError::Truncated { at });
    }
    // A record has a header and at least a byte of key, so a small slice can't claim many records.
    let least = u64::from(slice.count) * (RECORD_HEADER as u64 + 1);
    if slice.count == 0 || least > u64::from(slice.record_bytes) {
        return Err(BatchError::WrongCount { at, records: slice.count, bytes: slice.record_bytes });
    }
    Ok(slice)
}

/// The records of one slice, in offset order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records {
    region: Bytes,
    at: usize,
    left: u32,
}

/// Where a record's parts are, relative to its slice's record region.
struct Spans {
    flags: u8,
    key: usize,
    data: usize,
    end: usize,
}

impl Records {
    /// Records not yet taken.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Passes over up to `count` records by their headers alone.
    pub fn skip_records(&mut self, count: u32) -> Result<(), BatchError> {
        for _ in 0..count.min(self.left) {
            let spans = self.spans().inspect_err(|_| self.left = 0)?;
            self.at = spans.end;
            self.left -= 1;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Record, BatchError> {
        let at = self.at;
        let spans = self.spans()?;
        if self.left == 1 && spans.end != self.region.len() {
            return Err(BatchError::TrailingBytes { bytes: self.region.len() - spans.end });
        }
        let hash = (spans.flags & RECORD_FLAG_HASH != 0)
            .then(|| u128::from_le_bytes(array_at(&self.region, spans.key - HASH_BYTES)));
        let key = PartitionKey::new(self.region.slice(spans.key..spans.data))
            .map_err(|error| BatchError::Key { at, error })?;
        self.at = spans.end;
        Ok(Record {
            partition_key: key,
            explicit_hash: hash.map(HashKey),
            data: self.region.slice(spans.data..spans.end),
        })
    }

    fn spans(&self) -> Result<Spans, BatchError> {
        let at = self.at;
        if self.region.len() - at < RECORD_HEADER {
            return Err(BatchError::Truncated { at });
        }
        let [flags, zero] = array_at(&self.region, at);
        if flags & !RECORD_FLAG_HASH != 0 || zero != 0 {
            return Err(BatchError::UnknownFlags { at });
        }
        let hash_bytes = usize::from(flags & RECORD_FLAG_HASH) * HASH_BYTES;
        let key_bytes = u16::from_le_bytes(array_at(&self.region, at + 2)) as usize;
        let data_bytes = u32_at(&self.region, at + 4) as usize;
        let key = at + RECORD_HEADER + hash_bytes;
        let data = key + key_bytes;
        let end = data + data_bytes;
        match end > self.region.len() {
            true => Err(BatchError::Truncated { at }),
            false => Ok(Spans { flags, key, data, end }),
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Result<Record, BatchError>> {
        if self.left == 0 {
            return None;
        }
        let record = self.take();
        self.left = match record {
            Ok(_) => self.left - 1,
            Err(_) => 0,
        };
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

/// Reads bytes the caller has checked to be there.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were sliced")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

/// Why bytes are not a batch, or a slice of one. `at` is the byte where the trouble starts, in the
/// payload, or in the slice's record region for a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BatchError {
    TooLong { bytes: usize },
    Truncated { at: usize },
    UnknownVersion { found: u8 },
    NotAnAppend { tag: u8 },
    UnknownFlags { at: usize },
    NoSlices,
    WrongCount { at: usize, records: u32, bytes: u32 },
    TrailingBytes { bytes: usize },
    Key { at: usize, error: PartitionKeyError },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::TooLong { bytes } => {
                write!(f, "batch of {bytes} bytes: at most {} are allowed", u32::MAX)
            }
            BatchError::Truncated { at } => {
                write!(f, "batch ends within what starts at byte {at}")
            }
            BatchError::UnknownVersion { found } => {
                write!(f, "batch version {found} is unknown: this node reads version {VERSION}")
            }
            BatchError::NotAnAppend { tag } => {
                write!(f, "command tag {tag} is not an append's ({TAG})")
            }
            BatchError::UnknownFlags { at } => {
                write!(f, "batch has flags unknown to this node at byte {at}")
            }
            BatchError::NoSlices => write!(f, "batch has no slices: at least 1 is expected"),
            BatchError::WrongCount { at, records, bytes } => {
                write!(f, "slice at byte {at} claims {records} records in {bytes} bytes")
            }
            BatchError::TrailingBytes { bytes } => {
                write!(f, "batch has {bytes} bytes after its last record")
            }
            BatchError::Key { at, error } => write!(f, "record at byte {at}: {error}"),
        }
    }
}

impl std::error::Error for BatchError {}

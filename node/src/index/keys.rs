//! Keys and values of the record index as RocksDB stores them.
//!
//! Invariant: byte order of keys is (group, stream, shard, first) order, so a shard is one
//! contiguous range and a group is one contiguous range that its mark precedes. Three kinds of
//! key, told apart by length: format (1 byte), mark (4), entry (20). They share one column family
//! on purpose: memory tables reach the disk in the order they were filled, so a mark can never be
//! durable without the entries put before it.

use braid_stream::ids::{GroupId, Offset, ShardId};

use super::{IndexEntry, IndexError};

/// The key of the format number; sorts before every group.
pub const FORMAT_KEY: [u8; 1] = [0];
/// The format this build reads and writes. Another one found: the index is rebuilt.
pub const FORMAT: [u8; 4] = 1u32.to_be_bytes();

pub const MARK_KEY_LEN: usize = 4;
pub const ENTRY_KEY_LEN: usize = 20;
pub const ENTRY_VALUE_LEN: usize = 24;
const SHARD_PREFIX_LEN: usize = 12;

/// Key of a group's mark; also the start of the group's range.
pub fn mark_key(group: GroupId) -> [u8; MARK_KEY_LEN] {
    group.0.to_be_bytes()
}

/// Key of an entry.
pub fn entry_key(group: GroupId, shard: ShardId, first: Offset) -> [u8; ENTRY_KEY_LEN] {
    let mut key = [0; ENTRY_KEY_LEN];
    key[..4].copy_from_slice(&group.0.to_be_bytes());
    key[4..8].copy_from_slice(&shard.stream.0.to_be_bytes());
    key[8..12].copy_from_slice(&shard.index.to_be_bytes());
    key[12..].copy_from_slice(&first.0.to_be_bytes());
    key
}

/// The first key after everything with this prefix; `None` when the prefix is all ones.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// The range of a shard's entries, end exclusive. `None` as end: to the end of the key space.
pub fn shard_range(group: GroupId, shard: ShardId) -> (Vec<u8>, Option<Vec<u8>>) {
    let start = entry_key(group, shard, Offset(0));
    let prefix = &start[..SHARD_PREFIX_LEN];
    (prefix.to_vec(), after_prefix(prefix))
}

/// The range of a group, mark included, end exclusive.
pub fn group_range(group: GroupId) -> (Vec<u8>, Option<Vec<u8>>) {
    let start = mark_key(group);
    (start.to_vec(), after_prefix(&start))
}

/// Value of an entry: count, log index, position, time; big-endian.
pub fn encode_value(entry: &IndexEntry) -> [u8; ENTRY_VALUE_LEN] {
    let mut value = [0; ENTRY_VALUE_LEN];
    value[..4].copy_from_slice(&entry.count.to_be_bytes());
    value[4..12].copy_from_slice(&entry.log_index.to_be_bytes());
    value[12..16].copy_from_slice(&entry.pos.to_be_bytes());
    value[16..].copy_from_slice(&entry.time_ms.to_be_bytes());
    value
}

/// The entry of a stored pair; `shard` is the one the caller asked for and must be the key's.
pub fn decode_entry(shard: ShardId, key: &[u8], value: &[u8]) -> Result<IndexEntry, IndexError> {
    let (Ok(key), Ok(value)) = (<[u8; ENTRY_KEY_LEN]>::try_from(key), <[u8; ENTRY_VALUE_LEN]>::try_from(value)) else {
        return Err(IndexError::Damaged(format!(
            "an entry has a key of {} and a value of {} bytes instead of {ENTRY_KEY_LEN} and {ENTRY_VALUE_LEN}",
            key.len(),
            value.len()
        )));
    };
    assert!(
        key[4..8] == shard.stream.0.to_be_bytes() && key[8..12] == shard.index.to_be_bytes(),
        "a scan left its shard's range"
    );
    let entry = IndexEntry {
        shard,
        first: Offset(u64_at(&key, 12)),
        count: u32_at(&value, 0),
        log_index: u64_at(&value, 4),
        pos: u32_at(&value, 12),
        time_ms: u64_at(&value, 16),
    };
    if entry.count == 0 || entry.first.0.checked_add(u64::from(entry.count)).is_none() {
        return Err(IndexError::Damaged(format!(
            "an entry at offset {} claims {} records",
            entry.first.0, entry.count
        )));
    }
    Ok(entry)
}

/// The log index an entry's stored value points at.
pub fn log_index_of(value: &[u8]) -> Result<u64, IndexError> {
    if value.len() != ENTRY_VALUE_LEN {
        return Err(IndexError::Damaged(format!("an entry's value has {} bytes", value.len())));
    }
    Ok(u64_at(value, 4))
}

/// Value of a mark.
pub fn encode_mark(mark: u64) -> [u8; 8] {
    mark.to_be_bytes()
}

/// Reads a mark back.
pub fn decode_mark(value: &[u8]) -> Result<u64, IndexError> {
    let bytes = <[u8; 8]>::try_from(value)
        .map_err(|_| IndexError::Damaged(format!("a mark has {} bytes instead of 8", value.len())))?;
    Ok(u64::from_be_bytes(bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_stream::ids::StreamId;
    use proptest::prelude::*;

    fn shard(stream: u32, index: u32) -> ShardId {
        ShardId { stream: StreamId(stream), index }
    }

    #[test]
    fn the_encoding_is_what_it_was() {
        let entry = IndexEntry {
            shard: shard(0x0102_0304, 0x0506_0708),
            first: Offset(0x1112_1314_1516_1718),
            count: 0x2122_2324,
            log_index: 0x3132_3334_3536_3738,
            pos: 0x4142_4344,
            time_ms: 0x5152_5354_5556_5758,
        };
        let key = entry_key(GroupId(0xa1a2_a3a4), entry.shard, entry.first);
        assert_eq!(
            key,
            [0xa1, 0xa2, 0xa3, 0xa4, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]
        );
        let value = encode_value(&entry);
        assert_eq!(
            value,
            [
                0x21, 0x22, 0x23, 0x24, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x41, 0x42, 0x43, 0x44, 0x51,
                0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58
            ]
        );
        assert_eq!(decode_entry(entry.shard, &key, &value), Ok(entry));
        assert_eq!(log_index_of(&value), Ok(entry.log_index));
        assert_eq!(mark_key(GroupId(0xa1a2_a3a4)), [0xa1, 0xa2, 0xa3, 0xa4]);
        assert_eq!(encode_mark(7), [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!((FORMAT_KEY, FORMAT), ([0], [0, 0, 0, 1]));
    }

    #[test]
    fn damage_is_an_error() {
        let key = entry_key(GroupId(1), shard(1, 1), Offset(5));
        assert!(matches!(decode_entry(shard(1, 1), &key, &[0; 24]), Err(IndexError::Damaged(_))));
        assert!(matches!(decode_entry(shard(1, 1), &key, &[1; 23]), Err(IndexError::Damaged(_))));
        assert!(matches!(decode_mark(&[1, 2]), Err(IndexError::Damaged(_))));
    }

    #[test]
    fn the_last_range_has_no_end() {
        assert_eq!(group_range(GroupId(u32::MAX)), (vec![0xff; 4], None));
        assert_eq!(group_range(GroupId(0xff)), (vec![0, 0, 0, 0xff], Some(vec![0, 0, 1])));
        let (start, end) = shard_range(GroupId(0), shard(0, u32::MAX));
        assert_eq!(start, [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(end, Some(vec![0, 0, 0, 0, 0, 0, 0, 1]));
        assert!(FORMAT_KEY.as_slice() < mark_key(GroupId(0)).as_slice());
    }

    proptest! {
        #[test]
        fn byte_order_is_numeric_order(a: (u32, u32, u32, u64), b: (u32, u32, u32, u64)) {
            let key = |(g, s, i, o): (u32, u32, u32, u64)| entry_key(GroupId(g), shard(s, i), Offset(o));
            prop_assert_eq!(a.cmp(&b), key(a).cmp(&key(b)));
            let (start, end) = shard_range(GroupId(a.0), shard(a.1, a.2));
            let inside = |k: &[u8]| k >= start.as_slice() && end.as_ref().is_none_or(|e| k < e.as_slice());
            prop_assert!(inside(&key(a)));
            prop_assert_eq!(inside(&key(b)), (a.0, a.1, a.2) == (b.0, b.1, b.2));
        }
    }
}

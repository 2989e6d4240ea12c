//! Keys and values of the record index as RocksDB stores them.
//!
//! Invariant: byte order of keys is (group, stream, shard, first) order, so a shard is one
//! contiguous range and a group is one contiguous range that its mark precedes. Three kinds of
//! key, told apart by length: format (1 byte), mark (4), pack (20). A pack is some consecutive entries of a
//! shard under the offset of the first, so that a batch to thousands of shards is not thousands of keys. They share one column family
//! on purpose: memory tables reach the disk in the order they were filled, so a mark can never be
//! durable without the entries put before it.

use braid_stream::ids::{GroupId, Offset, ShardId, StreamId};

use super::{IndexEntry, IndexError};

/// The key of the format number; sorts before every group.
pub const FORMAT_KEY: [u8; 1] = [0];
/// The format this build reads and writes. Another one found: the index is rebuilt.
pub const FORMAT: [u8; 4] = 2u32.to_be_bytes();

pub const MARK_KEY_LEN: usize = 4;
pub const PACK_KEY_LEN: usize = 20;
const ENTRY_LEN: usize = 32;
const SHARD_PREFIX_LEN: usize = 12;

/// Key of a group's mark; also the start of the group's range.
pub fn mark_key(group: GroupId) -> [u8; MARK_KEY_LEN] {
    group.0.to_be_bytes()
}

/// Key of the pack whose first entry is at `first`.
pub fn pack_key(group: GroupId, shard: ShardId, first: Offset) -> [u8; PACK_KEY_LEN] {
    let mut key = [0; PACK_KEY_LEN];
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

/// The range of a shard's packs, end exclusive. `None` as end: to the end of the key space.
pub fn shard_range(group: GroupId, shard: ShardId) -> (Vec<u8>, Option<Vec<u8>>) {
    let start = pack_key(group, shard, Offset(0));
    let prefix = &start[..SHARD_PREFIX_LEN];
    (prefix.to_vec(), after_prefix(prefix))
}

/// The range of a group, mark included, end exclusive.
pub fn group_range(group: GroupId) -> (Vec<u8>, Option<Vec<u8>>) {
    let start = mark_key(group);
    (start.to_vec(), after_prefix(&start))
}

/// Value of a pack: its entries in the order of their offsets, each as first, count, log index, position, time; big-endian.
pub fn encode_pack(pack: &[IndexEntry]) -> Vec<u8> {
    let mut value = Vec::with_capacity(pack.len() * ENTRY_LEN);
    for entry in pack {
        value.extend_from_slice(&entry.first.0.to_be_bytes());
        value.extend_from_slice(&entry.count.to_be_bytes());
        value.extend_from_slice(&entry.log_index.to_be_bytes());
        value.extend_from_slice(&entry.pos.to_be_bytes());
        value.extend_from_slice(&entry.time_ms.to_be_bytes());
    }
    value
}

/// The entries of a stored pair, at least one.
pub fn decode_pack(key: &[u8], value: &[u8]) -> Result<Vec<IndexEntry>, IndexError> {
    let damaged = |why: String| Err(IndexError::Damaged(why));
    let Ok(key) = <[u8; PACK_KEY_LEN]>::try_from(key) else {
        return damaged(format!("a pack has a key of {} bytes instead of {PACK_KEY_LEN}", key.len()));
    };
    if value.is_empty() || !value.len().is_multiple_of(ENTRY_LEN) {
        return damaged(format!("a pack has {} bytes, which is no number of entries of {ENTRY_LEN}", value.len()));
    }
    let shard = ShardId { stream: StreamId(u32_at(&key, 4)), index: u32_at(&key, 8) };
    let mut next = u64_at(&key, 12);
    let mut pack = Vec::with_capacity(value.len() / ENTRY_LEN);
    for bytes in value.chunks_exact(ENTRY_LEN) {
        let entry = IndexEntry {
            shard,
            first: Offset(u64_at(bytes, 0)),
            count: u32_at(bytes, 8),
            log_index: u64_at(bytes, 12),
            pos: u32_at(bytes, 20),
            time_ms: u64_at(bytes, 24),
        };
        let (first, count) = (entry.first.0, entry.count);
        let in_order = if pack.is_empty() { first == next } else { first >= next };
        match first.checked_add(u64::from(count)) {
            Some(end) if in_order && count > 0 => next = end,
            _ => return damaged(format!("an entry at offset {first} claims {count} records, after offset {next}")),
        }
        pack.push(entry);
    }
    Ok(pack)
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
        let key = pack_key(GroupId(0xa1a2_a3a4), entry.shard, entry.first);
        assert_eq!(
            key,
            [0xa1, 0xa2, 0xa3, 0xa4, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]
        );
        let value = encode_pack(&[entry]);
        assert_eq!(
            value,
            [
                0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24, 0x31, 0x32, 0x33, 0x34, 0x35,
                0x36, 0x37, 0x38, 0x41, 0x42, 0x43, 0x44, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58
            ]
        );
        assert_eq!(decode_pack(&key, &value), Ok(vec![entry]));
        assert_eq!(mark_key(GroupId(0xa1a2_a3a4)), [0xa1, 0xa2, 0xa3, 0xa4]);
        assert_eq!(encode_mark(7), [0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!((FORMAT_KEY, FORMAT), ([0], [0, 0, 0, 2]));
    }

    #[test]
    fn damage_is_an_error() {
        let entry = |first, count| IndexEntry {
            shard: shard(1, 1),
            first: Offset(first),
            count,
            log_index: 1,
            pos: 0,
            time_ms: 0,
        };
        let key = pack_key(GroupId(1), shard(1, 1), Offset(5));
        let read = |pack: &[IndexEntry]| decode_pack(&key, &encode_pack(pack));
        let sound = [entry(5, 2), entry(7, 1), entry(9, 1)];
        assert_eq!(read(&sound), Ok(sound.to_vec()));
        let other_than_its_key = [entry(6, 1)];
        let no_records = [entry(5, 0)];
        let overlapping = [entry(5, 2), entry(6, 1)];
        let beyond_all_offsets = [entry(5, 1), entry(u64::MAX, 1)];
        for pack in [&[][..], &other_than_its_key, &no_records, &overlapping, &beyond_all_offsets] {
            assert!(matches!(read(pack), Err(IndexError::Damaged(_))), "{pack:?}");
        }
        assert!(matches!(decode_pack(&key, &encode_pack(&sound)[1..]), Err(IndexError::Damaged(_))));
        assert!(matches!(decode_pack(&key[1..], &encode_pack(&sound)), Err(IndexError::Damaged(_))));
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
            let key = |(g, s, i, o): (u32, u32, u32, u64)| pack_key(GroupId(g), shard(s, i), Offset(o));
            prop_assert_eq!(a.cmp(&b), key(a).cmp(&key(b)));
            let (start, end) = shard_range(GroupId(a.0), shard(a.1, a.2));
            let inside = |k: &[u8]| k >= start.as_slice() && end.as_ref().is_none_or(|e| k < e.as_slice());
            prop_assert!(inside(&key(a)));
            prop_assert_eq!(inside(&key(b)), (a.0, a.1, a.2) == (b.0, b.1, b.2));
        }
    }
}

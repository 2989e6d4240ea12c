//! Aggregated records, as the Kinesis Producer Library writes them: several records in one.
//!
//! ```text
//! F3 89 9A C2 | protobuf: tables of keys and of explicit hash keys, records that name them by place | MD5 of the protobuf
//! ```
//! Source of the format: the library's published one. Invariant: what [`pack`] has written, [`unpack`] reads back, in order; bytes
//! that are anything else are no aggregate, and stay as they are.
//!
//! Not here: which records go together (`producer/run.rs`).

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use prost::Message;

const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];
const DIGEST_BYTES: usize = 16;

/// Keys of one aggregate, all of its records' taken together: a small aggregate could name a long key very often.
const KEY_BYTES_MAX: usize = 64 << 20;

/// What a record costs in an aggregate besides its data and key, at most: tags, lengths and places, an explicit hash key in
/// digits, and its part of what stands around them all.
pub(crate) const OVERHEAD_BYTES: usize = 96;

/// One of the records in an aggregate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub partition_key: String,
    /// In digits, if it has one.
    pub explicit_hash_key: Option<String>,
    pub data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct AggregatedRecord {
    #[prost(string, repeated, tag = "1")]
    partition_key_table: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_key_table: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    records: Vec<Packed>,
}

/// Proto2: its key and its data must be there. Tags of a record (4) are left out by everybody, and here.
#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(uint64, required, tag = "1")]
    partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", required, tag = "3")]
    data: Bytes,
}

/// The data of one record that has all of these in it.
pub(crate) fn pack(parts: &[Part]) -> Bytes {
    let (mut keys, mut hashes) = (Table::default(), Table::default());
    let records = parts.iter().map(|part| Packed {
        partition_key_index: keys.place(&part.partition_key),
        explicit_hash_key_index: part.explicit_hash_key.as_ref().map(|it| hashes.place(it)),
        data: part.data.clone(),
    });
    let records = records.collect();
    let message = AggregatedRecord { partition_key_table: keys.texts, explicit_hash_key_table: hashes.texts, records };
    let mut out = BytesMut::with_capacity(MAGIC.len() + message.encoded_len() + DIGEST_BYTES);
    out.extend_from_slice(&MAGIC);
    message.encode(&mut out).expect("a buffer grows");
    let digest = Md5::digest(&out[MAGIC.len()..]);
    out.extend_from_slice(&digest);
    out.freeze()
}

/// The records in an aggregate; `None`: it is none.
pub(crate) fn unpack(data: &Bytes) -> Option<Vec<Part>> {
    let end = data.len().checked_sub(DIGEST_BYTES).filter(|_| data.starts_with(&MAGIC))?;
    let message = data.get(MAGIC.len()..end)?;
    if Md5::digest(message)[..] != data[end..] {
        return None;
    }
    let message = AggregatedRecord::decode(data.slice(MAGIC.len()..end)).ok()?;
    let at = |table: &[String], place: u64| table.get(usize::try_from(place).ok()?).cloned();
    let mut key_bytes = 0;
    let parts = message.records.into_iter().map(|it| {
        let partition_key = at(&message.partition_key_table, it.partition_key_index)?;
        let explicit_hash_key = match it.explicit_hash_key_index {
            Some(place) => Some(at(&message.explicit_hash_key_table, place)?),
            None => None,
        };
        key_bytes += partition_key.len() + explicit_hash_key.as_ref().map_or(0, String::len);
        (key_bytes <= KEY_BYTES_MAX).then_some(Part { partition_key, explicit_hash_key, data: it.data })
    });
    parts.collect()
}

/// Texts, each once.
#[derive(Default)]
struct Table {
    texts: Vec<String>,
    places: BTreeMap<String, u64>,
}

impl Table {
    fn place(&mut self, text: &str) -> u64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let hash = proptest::option::of(any::<u128>().prop_map(|it| it.to_string()));
        let part =
            ("\\PC{1,12}", hash, vec(any::<u8>(), 0..60)).prop_map(|(partition_key, explicit_hash_key, data)| Part {
                partition_key,
                explicit_hash_key,
                data: data.into(),
            });
        vec(part, 0..20)
    }

    /// Two records of one key, the second with a hash key, byte by byte.
    #[test]
    fn the_bytes_are_the_published_formats() {
        let part = |data: &'static [u8], hash: Option<&str>| Part {
            partition_key: "pk".into(),
            explicit_hash_key: hash.map(str::to_owned),
            data: Bytes::from_static(data),
        };
        let parts = [part(b"a", None), part(b"bc", Some("7"))];
        let message = b"\x0a\x02pk\x12\x017\x1a\x05\x08\x00\x1a\x01a\x1a\x08\x08\x00\x10\x00\x1a\x02bc";
        let expected = [&MAGIC[..], message, &Md5::digest(message)[..]].concat();
        assert_eq!(&pack(&parts)[..], &expected[..]);
        assert_eq!(unpack(&expected.into()), Some(parts.to_vec()));
    }

    #[test]
    fn what_names_no_key_is_no_aggregate() {
        let of = |message: &[u8]| Bytes::from([&MAGIC[..], message, &Md5::digest(message)[..]].concat());
        assert_eq!(unpack(&of(b"")), Some(vec![]));
        assert_eq!(unpack(&of(b"\x1a\x05\x08\x00\x1a\x01a")), None, "there is no key 0");
        assert_eq!(unpack(&of(b"\x0a\x01k\x1a\x07\x08\x00\x10\x00\x1a\x01a")), None, "there is no hash key 0");
        assert_eq!(unpack(&of(b"\xff")), None);
        let key = "k".repeat(1 << 20);
        let many = AggregatedRecord {
            partition_key_table: vec![key],
            explicit_hash_key_table: vec![],
            records: vec![Packed::default(); 65],
        };
        assert_eq!(unpack(&of(&many.encode_to_vec())), None, "65 MiB of keys");
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(parts in parts()) {
            let packed = pack(&parts);
            let most: usize = parts.iter().map(|it| it.partition_key.len() + it.data.len() + OVERHEAD_BYTES).sum();
            prop_assert!(packed.len() <= most + OVERHEAD_BYTES);
            prop_assert_eq!(unpack(&packed), Some(parts));
        }

        #[test]
        fn anything_else_is_no_aggregate(parts in parts(), at in any::<prop::sample::Index>(), bit in 0..8u8, any in vec(any::<u8>(), 0..80)) {
            let mut packed = pack(&parts).to_vec();
            let at = at.index(packed.len());
            packed[at] ^= 1 << bit;
            prop_assert_eq!(unpack(&packed.clone().into()), None);
            packed.truncate(at);
            prop_assert_eq!(unpack(&packed.into()), None);
            prop_assert_eq!(unpack(&any.clone().into()), None);
            let _ = unpack(&[&MAGIC[..], &any].concat().into());
        }
    }
}

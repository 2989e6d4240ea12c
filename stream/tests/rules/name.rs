//! Names, keys, shard names, zones.

use braid_stream::{PartitionKey, ShardId, StreamId, StreamName, Zone};
use bytes::Bytes;
use proptest::prelude::*;

#[test]
fn stream_names() {
    for good in ["a", "A_b.c-9", &"x".repeat(128)] {
        assert_eq!(StreamName::parse(good).unwrap().as_str(), good);
    }
    let longest = format!("{}/{}", "n".repeat(64), "x".repeat(128));
    for (good, namespace, local) in
        [("a", None, "a"), ("n.1/a", Some("n.1"), "a"), (&longest, Some(&longest[..64]), &longest[65..])]
    {
        let name = StreamName::parse(good).unwrap();
        assert_eq!((name.as_str(), name.namespace(), name.local()), (good, namespace, local));
        assert_eq!(StreamName::within(namespace, local), Ok(name));
    }
    let too_long = format!("{}/a", "n".repeat(65));
    for bad in ["", "a b", "ä", "a/", "/a", "a/b/c", "a/ä", "ä/a", "a\n", &"x".repeat(129), &too_long] {
        assert!(StreamName::parse(bad).is_err(), "{bad:?}");
        assert!(StreamName::within(None, bad).is_err(), "{bad:?}");
    }
    assert!(StreamName::within(None, "n/a").is_err(), "a local name has no namespace in it");
    let long = StreamName::parse(&"x".repeat(1_000_000)).unwrap_err();
    assert!(long.to_string().len() < 300, "errors stay short");
}

#[test]
fn partition_keys_count_characters() {
    assert!(PartitionKey::parse(&"ж".repeat(256)).is_ok());
    assert!(PartitionKey::parse(&"🦀".repeat(256)).is_ok());
    assert!(PartitionKey::parse(&"a".repeat(257)).is_err());
    assert!(PartitionKey::parse("").is_err());
    assert!(PartitionKey::new(Bytes::from_static(&[0xff])).is_err());
}

#[test]
fn shard_names() {
    let stream = StreamId(3);
    let id = ShardId { stream, index: 12 };
    assert_eq!(id.name(), "shardId-000000000012");
    for bad in [
        "",
        "shardId-12",
        "shardId-00000000001x",
        "shardId-+00000000012",
        "shardId-004294967296",
        "shardid-000000000012",
    ] {
        assert!(ShardId::parse(stream, bad).is_err(), "{bad:?}");
    }
}

#[test]
fn zones() {
    assert!(Zone::parse("eu-west.1_a").is_ok());
    assert!(Zone::parse("").is_err());
    assert!(Zone::parse("zone a").is_err());
}

proptest! {
    #[test]
    fn shard_names_round_trip(stream in any::<u32>(), index in any::<u32>()) {
        let id = ShardId { stream: StreamId(stream), index };
        prop_assert_eq!(ShardId::parse(id.stream, &id.name()), Ok(id));
    }

    #[test]
    fn a_decoded_name_is_a_valid_one(text in "\\PC{0,6}") {
        let bytes = postcard::to_stdvec(&text).unwrap();
        let decoded = postcard::from_bytes::<StreamName>(&bytes).ok();
        prop_assert_eq!(decoded, StreamName::parse(&text).ok());
        let decoded = postcard::from_bytes::<Zone>(&bytes).ok();
        prop_assert_eq!(decoded, Zone::parse(&text).ok());
    }
}

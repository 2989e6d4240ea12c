//! The encoding of commands; what they do is tested beside group and catalog.

use braid_stream::batch::BatchError;
use braid_stream::command::{GroupCommand, SealShard};
use braid_stream::versioned::DecodeError;
use braid_stream::{BatchBuilder, PartitionKey, Record, ShardId, StreamId};
use bytes::Bytes;
use proptest::prelude::*;

fn shard() -> ShardId {
    ShardId { stream: StreamId(300), index: 2 }
}

#[test]
fn an_append_is_its_batch_and_shares_it() {
    let mut batch = BatchBuilder::new(5);
    let record = Record {
        partition_key: PartitionKey::parse("key").unwrap(),
        explicit_hash: None,
        data: Bytes::from_static(b"data"),
    };
    batch.push(shard(), &record);
    let payload = batch.finish().payload;
    let command = GroupCommand::decode(payload.clone()).unwrap();
    let GroupCommand::Append(view) = &command else { panic!("an append was encoded") };
    assert_eq!(view.payload().as_ptr(), payload.as_ptr());
    assert_eq!(command.encode().as_ptr(), payload.as_ptr());
}

#[test]
fn golden() {
    let command = GroupCommand::SealShard(SealShard { at_ms: 1_700_000_000_000, shard: shard(), children: vec![3, 4] });
    let bytes = command.encode();
    // Version, tag, then varints: time, stream, index, two children.
    let expected = [1, 4, 0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31, 0xac, 2, 2, 2, 3, 4];
    assert_eq!(bytes[..], expected);
    assert_eq!(GroupCommand::decode(bytes), Ok(command));
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    let decode = |bytes: &'static [u8]| GroupCommand::decode(Bytes::from_static(bytes));
    assert_eq!(decode(&[]), Err(DecodeError::Empty));
    assert_eq!(decode(&[1]), Err(DecodeError::Empty));
    let (found, known) = (9, 1);
    let version = DecodeError::UnknownVersion { found, known };
    assert_eq!(decode(&[9, 1, 0]), Err(version));
    let tag = DecodeError::UnknownTag { found: 99 };
    assert_eq!(decode(&[1, 99, 0]), Err(tag));
    let trailing = DecodeError::TrailingBytes { bytes: 1 };
    assert_eq!(decode(&[1, 3, 0, 0, 0]), Err(trailing));
    let truncated = DecodeError::Batch(BatchError::Truncated { at: 2 });
    assert_eq!(decode(&[1, 1]), Err(truncated));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(tag in 0..10u8, body in prop::collection::vec(any::<u8>(), 0..80)) {
        let payload = Bytes::from([&[1, tag], &body[..]].concat());
        if let Ok(command) = GroupCommand::decode(payload) {
            let again = GroupCommand::decode(command.encode());
            prop_assert_eq!(again, Ok(command));
        }
    }
}

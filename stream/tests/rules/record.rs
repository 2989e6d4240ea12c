//! Record and request limits.

use braid_stream::limits::{LimitOverrides, Limits, MIB};
use braid_stream::record::{RequestError, check_request};
use braid_stream::{HashKey, PartitionKey, Record};
use bytes::Bytes;

fn record(data_bytes: u64) -> Record {
    Record {
        partition_key: PartitionKey::parse("key").unwrap(),
        explicit_hash: None,
        data: Bytes::from(vec![0; data_bytes as usize]),
    }
}

fn large() -> Limits {
    let overrides = LimitOverrides { record_bytes_max: Some(10 * MIB), ..Default::default() };
    overrides.check().unwrap();
    overrides.resolve()
}

#[test]
fn the_key_counts() {
    assert_eq!(record(MIB - 3).check(&Limits::DEFAULT), Ok(()));
    let error = record(MIB - 2).check(&Limits::DEFAULT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "record of 1048577 bytes is too large: data and partition key may have 1048576 together"
    );
    assert_eq!(record(MIB).check(&large()), Ok(()));
}

#[test]
fn requests_are_whole_or_nothing() {
    let limits = Limits::DEFAULT;
    assert_eq!(check_request(&vec![record(1); 500], &limits), Ok(()));
    for records in [0, 501] {
        let refused = Err(RequestError::Count { records });
        assert_eq!(check_request(&vec![record(1); records], &limits), refused);
    }
    let one_bad = [record(1), record(2 * MIB)];
    let refused = check_request(&one_bad, &limits);
    assert!(matches!(refused, Err(RequestError::Record { nth: 1, .. })));
    let mib = vec![record(MIB - 3); 5];
    assert_eq!(check_request(&mib, &limits), Ok(()));
    let more = vec![record(MIB - 3); 6];
    let refused = check_request(&more, &limits);
    assert!(matches!(refused, Err(RequestError::Bytes { .. })));
    assert_eq!(check_request(&more, &large()), Ok(()));
}

#[test]
fn an_explicit_hash_routes() {
    let mut record = record(1);
    assert_eq!(record.hash_key(), HashKey::of_partition_key("key"));
    record.explicit_hash = Some(HashKey(7));
    assert_eq!(record.hash_key(), HashKey(7));
}

#[test]
fn overrides_have_bounds() {
    let zero = LimitOverrides { read_calls_per_s: Some(0), ..Default::default() };
    let error = zero.check().unwrap_err();
    assert_eq!(error.to_string(), "limit read_calls_per_s of 0 is not allowed: 1 to 1099511627776");
    let huge = LimitOverrides { record_bytes_max: Some(10 * MIB + 1), ..Default::default() };
    assert!(huge.check().is_err());
}

//! Hash keys, ranges and the shard map.

use braid_stream::shard_map::range_of;
use braid_stream::{GroupId, HashKey, HashRange, Route, ShardId, ShardMap, StreamId};
use proptest::collection::btree_set;
use proptest::prelude::*;

#[test]
fn golden_keys() {
    for (key, hash) in [
        ("a", 16955237001963240173058271559858726497),
        ("partitionKey", 193318062818912349798954611745638949166),
        ("ключ", 259726384039714788407059515981389908711),
    ] {
        assert_eq!(HashKey::of_partition_key(key), HashKey(hash));
    }
}

#[test]
fn parsing_takes_canonical_decimals_only() {
    assert_eq!(HashKey::parse("0"), Ok(HashKey::MIN));
    let max = "340282366920938463463374607431768211455";
    assert_eq!(HashKey::parse(max), Ok(HashKey::MAX));
    for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "0x1", "١", "340282366920938463463374607431768211456"] {
        assert!(HashKey::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn golden_splits() {
    let third = 113427455640312821154458202477256070485;
    let ranges = HashRange::split_even(3);
    assert_eq!(ranges[0].to_string(), format!("[0, {}]", third - 1));
    assert_eq!(ranges[1].start(), HashKey(third));
    assert_eq!(ranges[2].end(), HashKey::MAX);
    assert_eq!(HashRange::split_even(1), [HashRange::FULL]);
    // 2^128 divides evenly: all are of one width.
    assert_eq!(HashRange::split_even(4)[1].start(), HashKey(1 << 126));
    let many = HashRange::split_even(10_000);
    assert_eq!(many[1].start(), HashKey(34028236692093846346337460743176821));
}

#[test]
fn an_inverted_range_is_refused_even_from_a_checkpoint() {
    assert!(HashRange::new(HashKey(2), HashKey(1)).is_err());
    let bytes = postcard::to_stdvec(&(HashKey(2), HashKey(1))).unwrap();
    assert!(postcard::from_bytes::<HashRange>(&bytes).is_err());
}

fn map_of(ranges: impl IntoIterator<Item = HashRange>) -> Result<ShardMap, impl std::error::Error> {
    let routes = (0..).zip(ranges).map(|(index, range)| Route {
        range,
        shard: ShardId { stream: StreamId(1), index },
        group: GroupId(1),
        created_s: 1,
    });
    ShardMap::new(routes.collect())
}

#[test]
fn a_map_with_a_gap_or_an_overlap_is_refused() {
    let mut ranges = HashRange::split_even(4);
    assert!(map_of([]).is_err());
    assert!(map_of(ranges[1..].to_vec()).is_err());
    assert!(map_of(ranges[..3].to_vec()).is_err());
    let overlapping = [HashRange::FULL].into_iter().chain(ranges.clone());
    assert!(map_of(overlapping).is_err());
    ranges.remove(2);
    assert!(map_of(ranges).is_err());
}

proptest! {
    #[test]
    fn even_splits_tile(shards in 1..=10_000u32, keys in proptest::collection::vec(any::<u128>(), 20)) {
        let ranges = HashRange::split_even(shards);
        prop_assert_eq!(ranges.len(), shards as usize);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].adjacent(&pair[1])));
        let width = |range: &HashRange| range.end().0 - range.start().0;
        prop_assert!(ranges.iter().all(|it| width(it) >= width(&ranges[0])));
        prop_assert!(ranges[..ranges.len() - 1].iter().all(|it| width(it) == width(&ranges[0])));

        let map = map_of(ranges.iter().rev().copied()).unwrap();
        let edges = ranges.iter().take(5).flat_map(|it| [it.start(), it.end()]);
        for key in keys.into_iter().map(HashKey).chain(edges) {
            let owners: Vec<_> = ranges.iter().filter(|it| it.contains(key)).collect();
            prop_assert_eq!(owners, vec![&map.lookup(key).range]);
        }
    }

    #[test]
    fn a_key_has_its_range_however_uneven_they_are(
        cuts in btree_set(prop_oneof![1..=u128::MAX, 1..40u128, u128::MAX - 40..=u128::MAX], 0..60),
        keys in proptest::collection::vec(any::<u128>(), 20),
    ) {
        let starts: Vec<HashKey> = [0].into_iter().chain(cuts).map(HashKey).collect();
        let edges = starts.iter().flat_map(|it| [it.0, it.0.wrapping_sub(1), it.0.wrapping_add(1)]);
        for key in keys.into_iter().chain(edges).map(HashKey) {
            let last = starts.iter().rposition(|start| *start <= key).unwrap();
            prop_assert_eq!(range_of(&starts, key), last, "{} of {:?}", key, starts);
        }
    }

    #[test]
    fn parse_reads_what_display_writes(key in any::<u128>()) {
        prop_assert_eq!(HashKey::parse(&HashKey(key).to_string()), Ok(HashKey(key)));
    }

    #[test]
    fn overlap_is_a_shared_key(a in 0..9u128, b in 0..9u128, c in 0..9u128, d in 0..9u128) {
        let range = |x: u128, y: u128| HashRange::new(HashKey(x.min(y)), HashKey(x.max(y))).unwrap();
        let (one, two) = (range(a, b), range(c, d));
        let shared = (0..9).any(|key| one.contains(HashKey(key)) && two.contains(HashKey(key)));
        prop_assert_eq!(one.overlaps(&two), shared);
        prop_assert_eq!(two.overlaps(&one), shared);
    }
}

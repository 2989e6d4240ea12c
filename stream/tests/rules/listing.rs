//! Listings of shards: a table of every filter, and any history of splits and merges against an oracle that remembers
//! which shards were open when; and how shards are forgotten.

use std::collections::{BTreeMap, BTreeSet};

use braid_stream::catalog::{CatalogError, CatalogReply, Change, ForgetError, StreamError};
use braid_stream::catalog_command::*;
use braid_stream::hash::HashRange;
use braid_stream::ids::ShardId;
use braid_stream::limits::RETENTION_MS_DEFAULT;
use braid_stream::listing::ShardFilter;
use braid_stream::shard_map::{Route, ShardMap};
use braid_stream::{Catalog, CatalogCommand, GroupId, Stream, StreamId};
use proptest::prelude::*;

use crate::scaling::{STREAM, catalog};

const HOUR: u64 = 3_600_000;
const RETENTION: u64 = RETENTION_MS_DEFAULT;

fn stream(catalog: &Catalog) -> &Stream {
    catalog.stream_by_id(STREAM).unwrap()
}

/// A split or merge from its decision to its commit; its parents are sealed at these times, one each.
fn reshape(catalog: &mut Catalog, shape: Reshape, sealed_ms: &[u64]) {
    let begin = BeginReshard { at_ms: sealed_ms[0], stream: STREAM, shapes: vec![shape] };
    catalog.apply(&CatalogCommand::BeginReshard(begin)).unwrap();
    let Some(Change::Reshard(steps)) = catalog.change(STREAM) else { panic!("nothing began") };
    let parents = steps[0].parents.iter().zip(sealed_ms);
    let sealed = parents.map(|(&shard, &at_ms)| SealedParent { shard, last: None, at_ms }).collect();
    catalog.apply(&CatalogCommand::CommitReshard(CommitReshard { stream: STREAM, sealed })).unwrap();
    assert_eq!(catalog.check(), vec![]);
}

fn split(catalog: &mut Catalog, shard: u32, at_ms: u64) {
    let at = stream(catalog).shards[&shard].range.middle();
    reshape(catalog, Reshape::Split { shard, at }, &[at_ms]);
}

fn listed(catalog: &Catalog, filter: ShardFilter, now_ms: u64) -> Vec<u32> {
    stream(catalog).listed(filter, now_ms).map(|(index, _)| index).collect()
}

/// 0 is split into 1 and 2 after ten hours; those are merged into 3 after twenty, 2 a second later than 1.
fn merged() -> Catalog {
    let mut catalog = catalog(1);
    split(&mut catalog, 0, 10 * HOUR);
    let merge = Reshape::Merge { shard: 1, adjacent: 2 };
    reshape(&mut catalog, merge, &[20 * HOUR, 20 * HOUR + 1_000]);
    catalog
}

#[test]
fn every_filter() {
    use ShardFilter::*;
    let catalog = merged();
    let (day_one, day_two) = (23 * HOUR, 39 * HOUR);
    let (before, split, merge) = (10 * HOUR - 1, 10 * HOUR, 20 * HOUR + 1_000);
    for (filter, now_ms, expected) in [
        (All, day_one, vec![0, 1, 2, 3]),
        // The horizon is five hours before the merge, and behind the split: 0 is past it.
        (All, day_two, vec![1, 2, 3]),
        (All, merge + RETENTION - 1, vec![1, 2, 3]),
        (All, merge + RETENTION, vec![3]),
        (FromTrimHorizon, day_two, vec![1, 2, 3]),
        (After(1), day_one, vec![2, 3]),
        (After(0), merge + RETENTION, vec![3]),
        (After(3), day_one, vec![]),
        (AtTrimHorizon, day_one, vec![0]),
        (AtTrimHorizon, split + RETENTION - 1, vec![0]),
        (AtTrimHorizon, split + RETENTION, vec![1, 2]),
        (AtTrimHorizon, day_two, vec![1, 2]),
        (AtTrimHorizon, merge + RETENTION, vec![3]),
        (AtLatest, day_one, vec![3]),
        (AtTimestamp(0), day_one, vec![0]),
        (AtTimestamp(before), day_one, vec![0]),
        (AtTimestamp(split), day_one, vec![1, 2]),
        // One parent is sealed, and the child takes no records yet: the parents are what was open.
        (AtTimestamp(merge - 500), day_one, vec![1, 2]),
        (AtTimestamp(merge), day_one, vec![3]),
        (AtTimestamp(0), day_two, vec![1, 2]),
        (AtTimestamp(u64::MAX), day_one, vec![3]),
        (FromTimestamp(0), day_one, vec![0, 1, 2, 3]),
        (FromTimestamp(before), day_one, vec![0, 1, 2, 3]),
        (FromTimestamp(split), day_one, vec![1, 2, 3]),
        (FromTimestamp(merge), day_one, vec![3]),
        (FromTimestamp(0), day_two, vec![1, 2, 3]),
        (FromTimestamp(u64::MAX), day_one, vec![3]),
    ] {
        assert_eq!(listed(&catalog, filter, now_ms), expected, "{filter:?} at {now_ms}");
    }
}

/// The simulator's seed 310000123: a node whose clock was far ahead sealed a shard, and another one its child.
#[test]
fn a_shard_that_was_sealed_before_its_parents_was_never_open() {
    let mut catalog = catalog(1);
    split(&mut catalog, 0, 10 * HOUR);
    split(&mut catalog, 1, 9 * HOUR);
    split(&mut catalog, 3, 8 * HOUR);
    let day_one = 23 * HOUR;
    for (at_ms, open) in [
        (8 * HOUR, vec![0]),
        (9 * HOUR, vec![0]),
        (10 * HOUR - 1, vec![0]),
        (10 * HOUR, vec![2, 4, 5, 6]),
        (11 * HOUR, vec![2, 4, 5, 6]),
    ] {
        assert_eq!(listed(&catalog, ShardFilter::AtTimestamp(at_ms), day_one), open, "at {at_ms}");
    }
    // Nor is it forgotten before them.
    assert_eq!(catalog.forgettable(9 * HOUR + RETENTION, 0, 9), BTreeMap::new());
    assert_eq!(catalog.forgettable(10 * HOUR + RETENTION, 0, 9), BTreeMap::from([(STREAM, vec![0, 1, 3])]));
}

/// What is known of each shard from having been there: since when it was open, and until when.
#[derive(Default)]
struct Oracle(BTreeMap<u32, (u64, Option<u64>)>);

impl Oracle {
    fn listed(&self, filter: ShardFilter, now_ms: u64) -> Vec<u32> {
        let horizon = now_ms.saturating_sub(RETENTION);
        let kept = self.0.iter().filter(|(_, (_, until))| until.is_none_or(|until| until > horizon));
        let open_at = |ms: u64, (from, until): (u64, Option<u64>)| from <= ms && until.is_none_or(|until| until > ms);
        // Whether it was open at any moment from then to now.
        let open_since = |ms: u64, (_, until): (u64, Option<u64>)| until.is_none_or(|until| until > ms);
        let wanted = |index: u32, life| match filter {
            ShardFilter::All => true,
            ShardFilter::After(after) => index > after,
            ShardFilter::AtTrimHorizon => open_at(horizon, life),
            ShardFilter::FromTrimHorizon => open_since(horizon, life),
            ShardFilter::AtLatest => life.1.is_none(),
            ShardFilter::AtTimestamp(ms) => open_at(ms.clamp(horizon, now_ms), life),
            ShardFilter::FromTimestamp(ms) => open_since(ms.clamp(horizon, now_ms), life),
        };
        kept.filter(|(index, life)| wanted(**index, **life)).map(|(index, _)| *index).collect()
    }
}

fn tiles(catalog: &Catalog, shards: &[u32]) -> bool {
    let route = |index: &u32| {
        let shard = ShardId { stream: STREAM, index: *index };
        Route { range: stream(catalog).shards[index].range, shard, group: GroupId(1), created_s: 1 }
    };
    ShardMap::new(shards.iter().map(route).collect()).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_history_is_listed_as_it_was(
        first in 1..4u32,
        // Which open shard, split or merge, how long after the last one, how much later the other parent is sealed, and
        // how far the clock that it is sealed by is behind.
        changes in prop::collection::vec((any::<usize>(), any::<bool>(), 1..12 * HOUR, 0..5_000u64, 0..2 * HOUR), 0..12),
        looks in prop::collection::vec((0..100 * HOUR, 0..60 * HOUR), 1..12),
        forget in any::<bool>(),
    ) {
        let mut catalog = catalog(first);
        let mut oracle = Oracle((0..first).map(|index| (index, (0, None))).collect());
        let mut now_ms = 2_000;
        for (choice, merge, pause, later, behind) in changes {
            now_ms += pause;
            let sealed_ms = now_ms.saturating_sub(behind);
            let mut open: Vec<(HashRange, u32)> =
                stream(&catalog).shards.iter().filter(|(_, it)| it.is_open()).map(|(index, it)| (it.range, *index)).collect();
            open.sort_unstable();
            let next = stream(&catalog).next_shard;
            let nth = choice % open.len();
            let gone = match open.get(nth + 1) {
                Some(&(_, adjacent)) if merge => {
                    let shape = Reshape::Merge { shard: open[nth].1, adjacent };
                    reshape(&mut catalog, shape, &[sealed_ms, sealed_ms + later]);
                    now_ms += later;
                    vec![(open[nth].1, sealed_ms), (adjacent, sealed_ms + later)]
                }
                _ => {
                    split(&mut catalog, open[nth].1, sealed_ms);
                    vec![(open[nth].1, sealed_ms)]
                }
            };
            // Not before they were opened.
            let until = gone.iter().map(|&(index, sealed_ms)| sealed_ms.max(oracle.0[&index].0)).max().unwrap();
            for (index, _) in gone {
                oracle.0.get_mut(&index).unwrap().1 = Some(until);
            }
            oracle.0.extend((next..stream(&catalog).next_shard).map(|index| (index, (until, None))));
            if forget {
                // Whatever may be forgotten, at any time: nobody can tell from a listing.
                for (stream, shards) in catalog.forgettable(now_ms, 0, 2) {
                    let command = ForgetShards { at_ms: now_ms, stream, shards };
                    catalog.apply(&CatalogCommand::ForgetShards(command)).unwrap();
                    prop_assert_eq!(catalog.check(), vec![]);
                }
            }
        }
        for (since, ms) in looks {
            let now_ms = now_ms + since;
            let horizon = now_ms.saturating_sub(RETENTION);
            for filter in [
                ShardFilter::All,
                ShardFilter::After((ms % 20) as u32),
                ShardFilter::AtTrimHorizon,
                ShardFilter::FromTrimHorizon,
                ShardFilter::AtLatest,
                ShardFilter::AtTimestamp(ms),
                ShardFilter::FromTimestamp(ms),
            ] {
                prop_assert_eq!(listed(&catalog, filter, now_ms), oracle.listed(filter, now_ms), "{:?} at {}", filter, now_ms);
            }
            for at in [horizon, ms.max(horizon).min(now_ms), now_ms] {
                let open = listed(&catalog, ShardFilter::AtTimestamp(at), now_ms);
                prop_assert!(tiles(&catalog, &open), "at {at} of {now_ms}: {open:?}");
            }
        }
    }
}

fn forget(catalog: &mut Catalog, at_ms: u64, shards: &[u32]) -> Result<CatalogReply, CatalogError> {
    let command = ForgetShards { at_ms, stream: STREAM, shards: shards.to_vec() };
    let reply = catalog.apply(&CatalogCommand::ForgetShards(command));
    assert_eq!(catalog.check(), vec![]);
    reply
}

#[test]
fn a_shard_is_forgotten_after_its_parents_and_once_nothing_of_it_is_kept() {
    let mut catalog = merged();
    let refused = |error: ForgetError| Err(CatalogError::Stream(StreamError::Forget(error)));
    let shard = |index| ShardId { stream: STREAM, index };
    let forgotten = Ok(CatalogReply::ShardsForgotten { stream: STREAM });
    let gone_0 = 10 * HOUR + RETENTION;
    let gone_all = 20 * HOUR + 1_000 + RETENTION;
    assert_eq!(forget(&mut catalog, gone_0 - 1, &[0]), refused(ForgetError::Kept { shard: shard(0) }));
    assert_eq!(forget(&mut catalog, gone_0, &[0, 1]), refused(ForgetError::Kept { shard: shard(1) }), "all or none");
    assert_eq!(forget(&mut catalog, gone_all, &[0, 1, 2, 3]), refused(ForgetError::Kept { shard: shard(3) }), "open");
    let child_first = ForgetError::ParentKept { shard: shard(1), parent: shard(0) };
    assert_eq!(forget(&mut catalog, gone_all, &[1, 0]), refused(child_first));
    assert_eq!(forget(&mut catalog, gone_all, &[4]), refused(ForgetError::NoSuchShard { shard: shard(4) }));

    let all = BTreeMap::from([(STREAM, vec![0, 1, 2])]);
    assert_eq!(catalog.forgettable(gone_all, 0, 9), all);
    assert_eq!(catalog.forgettable(gone_all, 1, 9), BTreeMap::from([(STREAM, vec![0])]), "a little later");
    assert_eq!(catalog.forgettable(gone_all, 0, 1), BTreeMap::from([(STREAM, vec![0])]), "some at a time");
    assert_eq!(forget(&mut catalog, gone_all, &[0, 1]), forgotten);
    assert_eq!(forget(&mut catalog, gone_all, &[0, 1]), forgotten, "repeated");
    assert_eq!(catalog.forgettable(gone_all, 0, 9), BTreeMap::from([(STREAM, vec![2])]));
    assert_eq!(forget(&mut catalog, gone_all, &[2]), forgotten);
    assert_eq!(listed(&catalog, ShardFilter::All, gone_all), [3]);
    assert_eq!(stream(&catalog).shards[&3].parents, [Some(1), Some(2)], "the link stays");
    assert!(catalog.has_forgotten(stream(&catalog), 1) && !catalog.has_forgotten(stream(&catalog), 4));

    // Their groups are told, whoever leads the catalog, and drop the stream if it is deleted before.
    catalog = Catalog::decode(&catalog.encode()).unwrap();
    let indexes: Vec<u32> = catalog.forgetting()[&STREAM].keys().copied().collect();
    assert_eq!(indexes, [0, 1, 2]);
    assert_eq!(catalog.groups_of(stream(&catalog)), BTreeSet::from([GroupId(1)]));
    let told = ShardsForgotten { stream: STREAM, shards: vec![0, 2] };
    catalog.apply(&CatalogCommand::ShardsForgotten(told)).unwrap();
    assert_eq!(catalog.forgetting()[&STREAM].len(), 1);
    let told = ShardsForgotten { stream: STREAM, shards: vec![1, 7] };
    catalog.apply(&CatalogCommand::ShardsForgotten(told)).unwrap();
    assert!(catalog.forgetting().is_empty());
    let unknown = ForgetShards { at_ms: 0, stream: StreamId(9), shards: vec![] };
    assert!(catalog.apply(&CatalogCommand::ForgetShards(unknown)).is_err());
}

/// A day of splitting and merging, again and again: the catalog is as large as what is kept.
#[test]
fn the_catalog_does_not_grow_with_every_split_and_merge() {
    let mut catalog = catalog(2);
    let mut largest = 0;
    for round in 1..200u64 {
        let at_ms = round * 6 * HOUR;
        let open: Vec<u32> =
            stream(&catalog).shards.iter().filter(|(_, it)| it.is_open()).map(|(index, _)| *index).collect();
        split(&mut catalog, open[0], at_ms);
        let next = stream(&catalog).next_shard;
        reshape(&mut catalog, Reshape::Merge { shard: next - 2, adjacent: next - 1 }, &[at_ms + 1, at_ms + 2]);
        for (stream, shards) in catalog.forgettable(at_ms, HOUR, 100) {
            catalog
                .apply(&CatalogCommand::ForgetShards(ForgetShards { at_ms, stream, shards: shards.clone() }))
                .unwrap();
            catalog.apply(&CatalogCommand::ShardsForgotten(ShardsForgotten { stream, shards })).unwrap();
        }
        if round == 20 {
            largest = catalog.encode().len();
        }
        assert!(stream(&catalog).shards.len() <= 2 + 3 * 5, "{}", stream(&catalog).shards.len());
    }
    // Numbers grow by some digits.
    assert!(catalog.encode().len() <= largest + 100, "{} after {largest}", catalog.encode().len());
}

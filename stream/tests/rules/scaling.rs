//! A catalog carries a stream to a number of shards: the bounds of the call, the totals Kinesis was seen to come to, one
//! change at a time, a deletion in between, and any order in which steps are committed.

use braid_stream::catalog::{
    Addresses, CatalogError, CatalogReply, Change, Progress, Settings, ShardCountError, StreamError, TokenKey,
};
use braid_stream::catalog_command::*;
use braid_stream::limits::{LimitOverrides, RETENTION_MS_DEFAULT, STEPS_AT_ONCE};
use braid_stream::scale::{ScaleError, Shares};
use braid_stream::{
    Catalog, CatalogCommand, ClusterId, GroupId, HashRange, Incarnation, NodeId, StreamId, StreamMode, StreamName,
    StreamStatus, Zone,
};
use proptest::prelude::*;

pub const STREAM: StreamId = StreamId(1);
const HOUR: u64 = 3_600_000;

/// One node and an ACTIVE stream.
pub fn catalog(shards: u32) -> Catalog {
    let mut catalog = Catalog::new();
    for command in [
        CatalogCommand::Init(Init {
            at_ms: 0,
            cluster: ClusterId([1; 16]),
            token_key: TokenKey([2; 32]),
            settings: Settings { replicas: 1, ..Settings::default() },
        }),
        CatalogCommand::PutNode(PutNode {
            node: NodeId(1),
            incarnation: Incarnation(1),
            zone: Zone::parse("a").unwrap(),
            addresses: Addresses { client: "n:1".into(), peer: "n:2".into() },
        }),
        CatalogCommand::CreateGroup(CreateGroup { group: GroupId(1), replicas: vec![NodeId(1)] }),
        CatalogCommand::CreateStream(CreateStream {
            at_ms: 1_000,
            name: StreamName::parse("clicks").unwrap(),
            shards,
            retention_ms: RETENTION_MS_DEFAULT,
            mode: StreamMode::Provisioned,
            limits: LimitOverrides::default(),
        }),
        CatalogCommand::StreamOpened(StreamOpened { stream: STREAM }),
    ] {
        catalog.apply(&command).unwrap();
    }
    catalog
}

fn ask(at_ms: u64, shards: u32, shares: Shares) -> SetShardCount {
    SetShardCount { at_ms, stream: STREAM, shards, shares, within_factor: false, counted: false }
}

fn apply(catalog: &mut Catalog, command: SetShardCount) -> Result<CatalogReply, CatalogError> {
    let reply = catalog.apply(&CatalogCommand::SetShardCount(command));
    assert_eq!(catalog.check(), vec![]);
    reply
}

/// Commits one of the steps that are under way; whether there was one.
fn commit(catalog: &mut Catalog, choice: usize) -> bool {
    let Some(Change::Reshard(steps)) = catalog.change(STREAM) else { return false };
    let parents = &steps[choice % steps.len()].parents;
    let sealed = parents.iter().map(|&shard| SealedParent { shard, last: None, at_ms: 2_000 }).collect();
    catalog.apply(&CatalogCommand::CommitReshard(CommitReshard { stream: STREAM, sealed })).unwrap();
    assert_eq!(catalog.check(), vec![]);
    true
}

/// Commits until nothing is left; how many changes it was, each of steps at once.
fn carry_out(catalog: &mut Catalog) -> usize {
    let mut changes = 0;
    while let Some(Change::Reshard(steps)) = catalog.change(STREAM) {
        changes += 1;
        for _ in 0..steps.len() {
            assert!(commit(catalog, 0));
        }
    }
    changes
}

fn open(catalog: &Catalog) -> Vec<HashRange> {
    let stream = catalog.stream_by_id(STREAM).unwrap();
    stream.shard_map().unwrap().routes().iter().map(|route| route.range).collect()
}

fn refused(error: ShardCountError) -> Result<CatalogReply, CatalogError> {
    Err(CatalogError::Stream(StreamError::ShardCount(error)))
}

/// All shards afterwards, open and closed: as they were seen on the service, and with equal shares.
#[test]
fn the_totals_are_those_of_the_service_where_it_is_asked_to_do_as_the_service_does() {
    for (from, to, as_seen, equal) in
        [(2, 4, 6, 6), (4, 5, 15, 15), (10, 13, 37, 43), (4, 2, 6, 6), (5, 3, 7, 13), (10, 3, 17, 23)]
    {
        for (shares, total) in [(Shares::Halves, as_seen), (Shares::Equal, equal)] {
            let mut catalog = catalog(from);
            apply(&mut catalog, ask(0, to, shares)).unwrap();
            carry_out(&mut catalog);
            let stream = catalog.stream_by_id(STREAM).unwrap();
            assert_eq!(
                (stream.shards.len(), stream.status),
                (total, StreamStatus::Active),
                "{from} to {to}: {shares:?}"
            );
            assert_eq!(open(&catalog).len(), to as usize);
        }
    }
}

#[test]
fn steps_that_can_be_done_at_once_are() {
    let mut of_one = catalog(1);
    apply(&mut of_one, ask(0, 64, Shares::Equal)).unwrap();
    assert_eq!(of_one.scaling(STREAM), Some(Progress { target: 64, planned: 63, left: 63 }));
    assert_eq!(carry_out(&mut of_one), 6, "each doubles");
    assert_eq!((of_one.scaling(STREAM), open(&of_one)), (None, HashRange::split_even(64)));
    let mut of_many = catalog(1_000);
    apply(&mut of_many, ask(0, 2_000, Shares::Equal)).unwrap();
    assert_eq!(carry_out(&mut of_many), 1_000usize.div_ceil(STEPS_AT_ONCE));
}

#[test]
fn one_change_at_a_time_and_a_deletion_overtakes() {
    let mut catalog = catalog(1);
    apply(&mut catalog, ask(0, 8, Shares::Equal)).unwrap();
    let busy = StreamError::Status { stream: STREAM, status: StreamStatus::Updating };
    assert_eq!(apply(&mut catalog, ask(0, 8, Shares::Equal)), Err(busy.into()));
    commit(&mut catalog, 0);
    assert_eq!(catalog.scaling(STREAM), Some(Progress { target: 8, planned: 7, left: 6 }));
    let name = StreamName::parse("clicks").unwrap();
    catalog.apply(&CatalogCommand::DeleteStream(DeleteStream { name })).unwrap();
    assert_eq!(catalog.check(), vec![]);
    // Steps that were under way may still be committed; none follows.
    assert_eq!(carry_out(&mut catalog), 1);
    assert_eq!(catalog.stream_by_id(STREAM).unwrap().status, StreamStatus::Deleting);
    assert_eq!(catalog.scaling(STREAM), None);
    catalog.apply(&CatalogCommand::StreamDropped(StreamDropped { stream: STREAM })).unwrap();
    assert_eq!(catalog.check(), vec![]);
}

#[test]
fn at_most_twice_and_at_least_half_where_it_is_asked_for_so() {
    let within = |shards| SetShardCount { within_factor: true, ..ask(0, shards, Shares::Halves) };
    for (from, shards, allowed) in [
        (4, 9, false),
        (4, 8, true),
        (4, 2, true),
        (4, 1, false),
        (5, 2, false),
        (5, 3, true),
        (1, 1, true),
        (1, 2, true),
    ] {
        let reply = apply(&mut catalog(from), within(shards));
        match allowed {
            true => assert!(reply.is_ok(), "{from} to {shards}: {reply:?}"),
            false => assert_eq!(reply, refused(ShardCountError::Factor { open: from, shards })),
        }
    }
    let text = ShardCountError::Factor { open: 5, shards: 2 }.to_string();
    assert_eq!(text, "2 shards: from 5 open shards, 3 to 10 can be reached at once");
    for shards in [0, 10_001] {
        let reply = apply(&mut catalog(4), within(shards));
        assert_eq!(reply, refused(ShardCountError::Plan(ScaleError::Count { shards })));
    }
    // Nor may there be more on the way; the service's way finds room where equal shares need more.
    let reply = apply(&mut catalog(9_999), within(10_000));
    assert!(reply.is_ok(), "{reply:?}");
    let reply = apply(&mut catalog(9_999), ask(0, 10_000, Shares::Equal));
    assert_eq!(reply, refused(ShardCountError::Plan(ScaleError::Room { shards: 10_001 })));
}

#[test]
fn the_eleventh_call_of_a_day_waits_until_the_first_is_a_day_old() {
    let mut catalog = catalog(2);
    let counted = |at_ms, shards| SetShardCount { counted: true, ..ask(at_ms, shards, Shares::Equal) };
    for nth in 0..10 {
        let shards = if nth % 2 == 0 { 4 } else { 2 };
        apply(&mut catalog, counted(10_000 + nth * HOUR, shards)).unwrap();
        carry_out(&mut catalog);
    }
    let retry_after_ms = 10_000 + 24 * HOUR - (10_000 + 10 * HOUR);
    let reply = apply(&mut catalog, counted(10_000 + 10 * HOUR, 4));
    assert_eq!(reply, refused(ShardCountError::Calls { retry_after_ms }));
    let before = catalog.clone();
    assert!(apply(&mut catalog, counted(9 * HOUR, 4)).is_err(), "the catalog's time does not go back");
    assert_eq!(catalog, before);
    // One that is not counted passes, and one more when its time has come: that is the whole window, and one call.
    apply(&mut catalog, ask(10_000 + 10 * HOUR, 2, Shares::Equal)).unwrap();
    apply(&mut catalog, counted(10_000 + 24 * HOUR, 4)).unwrap();
    carry_out(&mut catalog);
    let reply = apply(&mut catalog, counted(10_000 + 24 * HOUR, 2));
    assert_eq!(reply, refused(ShardCountError::Calls { retry_after_ms: HOUR }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_order_steps_end_in_the_number_is_reached(
        from in 1..40u32,
        to in 1..80u32,
        halves in any::<bool>(),
        choices in prop::collection::vec(any::<usize>(), 1..20),
        checkpoint in 0..60usize,
    ) {
        let mut catalog = catalog(from);
        let shares = if halves { Shares::Halves } else { Shares::Equal };
        apply(&mut catalog, ask(0, to, shares)).unwrap();
        let planned = catalog.scaling(STREAM).map_or(0, |it| it.planned);
        let mut committed = 0;
        while commit(&mut catalog, choices[committed % choices.len()]) {
            committed += 1;
            let progress = catalog.scaling(STREAM).map_or(0, |it| it.left);
            prop_assert!(progress + committed == planned || progress == 0);
            prop_assert!(committed <= planned);
            if committed == checkpoint {
                catalog = Catalog::decode(&catalog.encode()).unwrap();
            }
        }
        prop_assert_eq!(committed, planned);
        prop_assert_eq!(open(&catalog).len(), to as usize);
        for (is, even) in open(&catalog).iter().zip(HashRange::split_even(to)).filter(|_| !halves) {
            prop_assert!(is.start().0.abs_diff(even.start().0) < u128::from(to));
        }
    }
}

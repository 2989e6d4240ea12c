//! Random commands keep every rule; corrupted states break each of them.

use std::collections::BTreeSet;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::catalog_command::*;
use crate::hash::{HashKey, HashRange};
use crate::ids::{Offset, ShardId};
use crate::limits::{
    CONSUMERS_CREATING_MAX, CONSUMERS_MAX, LimitOverrides, RETENTION_MS_DEFAULT, SHARDS_ON_DEMAND,
    SHARDS_ON_DEMAND_MAX, TAGS_MAX,
};
use crate::name::ConsumerName;
use crate::scale::Shares;
use crate::sequence::SECOND_MAX;
use crate::shard::{ShardSpec, ShardState};

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

fn init(settings: Settings) -> CatalogCommand {
    CatalogCommand::Init(Init { at_ms: 5_000, cluster: ClusterId([1; 16]), token_key: TokenKey([2; 32]), settings })
}

fn put_node(node: u64, incarnation: u64, zone: &str) -> CatalogCommand {
    CatalogCommand::PutNode(PutNode {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        zone: Zone::parse(zone).unwrap(),
        addresses: Addresses { client: format!("node-{node}:4000"), peer: format!("node-{node}:4001") },
    })
}

fn create_group(group: u32, replicas: &[u64]) -> CatalogCommand {
    CatalogCommand::CreateGroup(CreateGroup {
        group: GroupId(group),
        replicas: replicas.iter().copied().map(NodeId).collect(),
    })
}

fn create_stream(text: &str, shards: u32, retention_ms: u64) -> CatalogCommand {
    CatalogCommand::CreateStream(CreateStream {
        at_ms: 10_000,
        name: name(text),
        shards,
        retention_ms,
        mode: StreamMode::Provisioned,
        limits: LimitOverrides::default(),
    })
}

fn delete_stream(text: &str) -> CatalogCommand {
    CatalogCommand::DeleteStream(DeleteStream { name: name(text) })
}

fn stream_opened(stream: u32) -> CatalogCommand {
    CatalogCommand::StreamOpened(StreamOpened { stream: StreamId(stream) })
}

fn stream_dropped(stream: u32) -> CatalogCommand {
    CatalogCommand::StreamDropped(StreamDropped { stream: StreamId(stream) })
}

fn set_retention(stream: u32, retention_ms: u64) -> CatalogCommand {
    let stream = StreamId(stream);
    CatalogCommand::SetSettings(SetSettings { stream, retention_ms: Some(retention_ms), limits: None })
}

fn begin_reshard(stream: u32, at_ms: u64, shapes: &[Reshape]) -> CatalogCommand {
    CatalogCommand::BeginReshard(BeginReshard { at_ms, stream: StreamId(stream), shapes: shapes.to_vec() })
}

fn commit_reshard(stream: u32, sealed: &[(u32, u64)]) -> CatalogCommand {
    let sealed = sealed.iter().map(|&(shard, at_ms)| SealedParent { shard, last: Some(Offset(at_ms)), at_ms });
    CatalogCommand::CommitReshard(CommitReshard { stream: StreamId(stream), sealed: sealed.collect() })
}

fn settings_told(stream: u32, revision: u64) -> CatalogCommand {
    CatalogCommand::SettingsTold(SettingsTold { stream: StreamId(stream), revision })
}

fn change_attributes(stream: u32, change: AttributeChange) -> CatalogCommand {
    CatalogCommand::ChangeAttributes(ChangeAttributes { at_ms: 30_000, stream: StreamId(stream), change })
}

fn consumer(text: &str) -> ConsumerName {
    ConsumerName::parse(text).unwrap()
}

fn attribute_changes() -> impl Strategy<Value = AttributeChange> {
    let name = || "[a-z]".prop_map(|text| consumer(&text));
    let tags = || btree_map("[a-z]{0,2}", "[a-z]{0,2}", 0..40);
    let metrics = || btree_set(proptest::sample::select(&ShardMetric::ALL[..]), 0..4);
    prop_oneof![
        (option::of(name()), tags(), btree_set("[a-z]{0,2}", 0..9))
            .prop_map(|(consumer, set, remove)| AttributeChange::Tags { consumer, set, remove }),
        (option::of(name()), option::of("[a-z]{0,2}"))
            .prop_map(|(consumer, policy)| AttributeChange::Policy { consumer, policy }),
        option::of("[a-z]{0,2}").prop_map(|key| AttributeChange::Encryption { key }),
        (metrics(), metrics()).prop_map(|(enable, disable)| AttributeChange::ShardMetrics { enable, disable }),
        any::<bool>().prop_map(|on_demand| AttributeChange::Mode {
            mode: if on_demand { StreamMode::OnDemand } else { StreamMode::Provisioned },
        }),
        any::<u32>().prop_map(|mibps| AttributeChange::WarmThroughput { mibps }),
        (name(), tags()).prop_map(|(name, tags)| AttributeChange::Register { name, tags }),
        name().prop_map(|name| AttributeChange::Deregister { name }),
    ]
}

fn replace_node(from: u64, to: u64) -> CatalogCommand {
    CatalogCommand::ReplaceNode(ReplaceNode { from: NodeId(from), to: NodeId(to) })
}

#[test]
fn a_replacement_takes_over_every_replica_and_the_old_node_gets_none_again() {
    let mut catalog = Catalog::new();
    let zones = [(1, "a"), (2, "b"), (3, "c"), (4, "b"), (5, "c")];
    catalog.apply(&init(Settings::default())).unwrap();
    for (node, zone) in zones {
        catalog.apply(&put_node(node, 1, zone)).unwrap();
    }
    for group in 1..=2 {
        catalog.apply(&create_group(group, &[1, 2, 3])).unwrap();
    }
    let refused = |error: NodeError| Err(CatalogError::Node(error));
    let zone = |text: &str| Zone::parse(text).unwrap();
    let wrong_zone = NodeError::Zone { node: NodeId(5), known: zone("c"), given: zone("b") };
    assert_eq!(catalog.apply(&replace_node(2, 5)), refused(wrong_zone));
    assert_eq!(catalog.apply(&replace_node(2, 9)), refused(NodeError::Unknown { node: NodeId(9) }));
    let itself = NodeError::Itself { node: NodeId(2) };
    assert_eq!(catalog.apply(&replace_node(2, 2)), refused(itself));
    let done = Ok(CatalogReply::NodeReplaced { from: NodeId(2), to: NodeId(4) });
    assert_eq!(catalog.apply(&replace_node(2, 4)), done);
    assert_eq!(catalog.apply(&replace_node(2, 4)), done, "repeating it changes nothing");
    assert!(catalog.groups().values().all(|it| *it == [NodeId(1), NodeId(4), NodeId(3)]));
    let gone = NodeError::AlreadyReplaced { node: NodeId(2), by: NodeId(4) };
    assert_eq!(catalog.apply(&replace_node(4, 2)), refused(gone));
    let group = catalog.apply(&create_group(3, &[1, 2, 3]));
    assert_eq!(group, Err(CatalogError::Group(GroupError::UnknownNode { node: NodeId(2) })));
    assert_eq!(catalog.check(), vec![]);
}

/// Found by the simulator: the catalog's voters were found by one step of replacement, and counted a node that was
/// lost beside the one that has its place.
#[test]
fn whoever_has_a_place_now_is_found_over_any_number_of_replacements() {
    let mut catalog = Catalog::new();
    catalog.apply(&init(Settings::default())).unwrap();
    for (node, zone) in [(1, "a"), (2, "b"), (3, "c"), (4, "b"), (5, "b")] {
        catalog.apply(&put_node(node, 1, zone)).unwrap();
    }
    catalog.apply(&replace_node(2, 4)).unwrap();
    catalog.apply(&replace_node(4, 5)).unwrap();
    let holders: Vec<u64> = (1..=5).map(|node| catalog.holder(NodeId(node)).0).collect();
    assert_eq!(holders, [1, 5, 3, 5, 5]);
}

fn shapes() -> impl Strategy<Value = Reshape> {
    let keys = prop_oneof![any::<u128>(), (0..9u32).prop_map(|n| u128::MAX / 8 * u128::from(n))];
    prop_oneof![
        (0..12u32, keys).prop_map(|(shard, at)| Reshape::Split { shard, at: HashKey(at) }),
        (0..12u32, 0..12u32).prop_map(|(shard, adjacent)| Reshape::Merge { shard, adjacent }),
    ]
}

fn commands() -> impl Strategy<Value = CatalogCommand> {
    let node = || 1..6u64;
    prop_oneof![
        1 => (0..5u8, 0..3u64, 0..3u64).prop_map(|(replicas, min, max)| init(Settings {
            replicas,
            retention_ms_min: min,
            retention_ms_max: max * 1000,
        })),
        6 => (node(), prop_oneof![9 => Just(1u64), 1 => Just(2)], 0..4u64, any::<bool>()).prop_map(
            |(node, incarnation, zone, odd)| {
                let zone = if odd { zone } else { node % 3 };
                put_node(node, incarnation, &format!("zone-{zone}"))
            }
        ),
        4 => (1..5u32, vec(node(), 1..5)).prop_map(|(group, nodes)| create_group(group, &nodes)),
        4 => (1..5u32, node()).prop_map(|(group, n)| create_group(group, &[n, n + 1, n + 2])),
        4 => ("[ab]", 0..9u32, 0..3000u64).prop_map(|(name, n, ms)| create_stream(&name, n, ms)),
        2 => (node(), node()).prop_map(|(from, to)| replace_node(from, to)),
        3 => (0..6u32).prop_map(stream_opened),
        2 => "[ab]".prop_map(|name| delete_stream(&name)),
        3 => (0..6u32).prop_map(stream_dropped),
        1 => (0..6u32, 0..3000u64).prop_map(|(stream, ms)| set_retention(stream, ms)),
        2 => (0..6u32, 0..40u64).prop_map(|(stream, revision)| settings_told(stream, revision)),
        4 => (0..4u32, attribute_changes()).prop_map(|(stream, change)| change_attributes(stream, change)),
        2 => (0..4u32).prop_map(|id| CatalogCommand::SettleConsumers(SettleConsumers { stream: StreamId(id) })),
        1 => (".{0,70}", any::<bool>()).prop_map(|(namespace, committed)| {
            CatalogCommand::SetAccount(SetAccount { at_ms: 7, namespace, committed })
        }),
        4 => (0..4u32, 0..20_000u64, vec(shapes(), 0..4)).prop_map(|(s, at_ms, shapes)| begin_reshard(s, at_ms, &shapes)),
        3 => (0..4u32, vec((0..12u32, 0..3u64), 0..3)).prop_map(|(stream, sealed)| commit_reshard(stream, &sealed)),
        3 => (0..4u32, 0..20_000u64, 0..12u32, any::<bool>()).prop_map(|(stream, at_ms, shards, kinesis)| {
            let shares = if kinesis { Shares::Halves } else { Shares::Equal };
            let stream = StreamId(stream);
            let command = SetShardCount { at_ms, stream, shards, shares, within_factor: kinesis, counted: kinesis };
            CatalogCommand::SetShardCount(command)
        }),
        3 => (0..4u32, 0..20_000u64, vec(0..12u32, 0..4)).prop_map(|(stream, at_ms, shards)| {
            CatalogCommand::ForgetShards(ForgetShards { at_ms, stream: StreamId(stream), shards })
        }),
        1 => (0..4u32, proptest::option::of((0..3u32, 0..3u32))).prop_map(|(stream, bounds)| {
            let bounds = bounds.map(|(min, max)| Bounds { min, max });
            CatalogCommand::SetAutoscale(SetAutoscale { stream: StreamId(stream), bounds })
        }),
        1 => (0..4u32, vec(0..12u32, 0..4)).prop_map(|(stream, shards)| {
            CatalogCommand::ShardsForgotten(ShardsForgotten { stream: StreamId(stream), shards })
        }),
        1 => (0..6u32, proptest::option::of(0..3u64)).prop_map(|(stream, rate)| {
            let limits = LimitOverrides { read_calls_per_s: rate, ..Default::default() };
            CatalogCommand::SetSettings(SetSettings {
                stream: StreamId(stream),
                retention_ms: None,
                limits: Some(limits),
            })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_commands_keep_every_rule(commands in vec(commands(), 1..80), ready in any::<bool>()) {
        let mut catalog = Catalog::new();
        let mut twin = catalog.clone();
        let mut used = BTreeSet::new();
        let start = match ready {
            true => vec![init(Settings { retention_ms_min: 1, ..Settings::default() })],
            false => vec![],
        };
        for command in start.iter().chain(&commands) {
            let before = catalog.clone();
            let reply = catalog.apply(command);
            prop_assert_eq!(catalog.check(), vec![], "after {:?}", command);
            match &reply {
                Err(_) => prop_assert_eq!(&before, &catalog, "a refusal changed something"),
                Ok(CatalogReply::StreamCreating { stream }) => {
                    prop_assert!(used.insert(*stream), "stream id {} came twice", stream);
                }
                Ok(_) => prop_assert_eq!(before.revision() + 1, catalog.revision()),
            }
            for (id, node) in before.nodes() {
                prop_assert_eq!(node.incarnation, catalog.nodes()[id].incarnation);
            }
            let decoded = CatalogCommand::decode(&command.encode()).unwrap();
            prop_assert_eq!(&decoded, command);
            prop_assert_eq!(twin.apply(&decoded), reply);
            let bytes = twin.encode();
            twin = Catalog::decode(&bytes).unwrap();
            prop_assert_eq!(&twin, &catalog);
            prop_assert_eq!(bytes, catalog.encode());
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_a_catalog(bytes in vec(any::<u8>(), 0..200), tag in 0..40u8) {
        let prefixed = |prefix: &[u8]| [prefix, &bytes[..]].concat();
        let _ = Catalog::decode(&bytes);
        let _ = Catalog::decode(&prefixed(&[VERSION]));
        let _ = CatalogCommand::decode(&bytes);
        let _ = CatalogCommand::decode(&prefixed(&[VERSION, tag]));
    }
}

/// Three nodes in three zones (and a fourth in the third's), two groups, a stream of four shards.
fn sample() -> Catalog {
    let mut catalog = Catalog::new();
    // As the golden checkpoints have it.
    let settings = Settings { retention_ms_min: RETENTION_MS_DEFAULT, ..Settings::default() };
    for command in [
        init(settings),
        put_node(1, 11, "a"),
        put_node(2, 12, "b"),
        put_node(3, 13, "c"),
        put_node(4, 14, "c"),
        create_group(1, &[1, 2, 3]),
        create_group(2, &[1, 2, 4]),
        create_stream("orders", 4, RETENTION_MS_DEFAULT),
    ] {
        catalog.apply(&command).unwrap();
    }
    assert_eq!(catalog.check(), vec![]);
    catalog
}

#[test]
fn a_stream_lives_and_dies() {
    let mut catalog = sample();
    let stream = catalog.stream(&name("orders")).unwrap();
    assert_eq!((stream.id, stream.status), (StreamId(1), StreamStatus::Creating));
    assert_eq!(stream.groups(), BTreeSet::from([GroupId(1), GroupId(2)]));
    assert_eq!(stream.specs_in(GroupId(1)).len(), 2);
    assert_eq!(stream.specs_in(GroupId(2))[0].created_s, 10);
    let map = stream.shard_map().unwrap();
    assert_eq!(map.lookup(HashKey::MAX).shard, stream.shard_id(3));

    let id = StreamId(1);
    let again = catalog.apply(&create_stream("orders", 1, RETENTION_MS_DEFAULT));
    let name_taken = StreamError::Exists { name: name("orders"), stream: id };
    assert_eq!(again, Err(CatalogError::Stream(name_taken)));
    let active = Ok(CatalogReply::StreamActive { stream: id });
    assert_eq!(catalog.apply(&stream_opened(1)), active);
    assert_eq!(catalog.apply(&stream_opened(1)), active, "repeated");
    let status = StreamStatus::Active;
    let too_early = Err(StreamError::Status { stream: id, status }.into());
    assert_eq!(catalog.apply(&stream_dropped(1)), too_early);

    let deleting = Ok(CatalogReply::StreamDeleting { stream: id });
    assert_eq!(catalog.apply(&delete_stream("orders")), deleting);
    assert_eq!(catalog.apply(&delete_stream("orders")), deleting, "repeated");
    assert!(catalog.apply(&set_retention(1, RETENTION_MS_DEFAULT)).is_err());
    assert!(catalog.stream(&name("orders")).is_some(), "the name is taken");
    let dropped = Ok(CatalogReply::StreamDropped { stream: id });
    assert_eq!(catalog.apply(&stream_dropped(1)), dropped);
    assert_eq!(catalog.apply(&stream_dropped(1)), dropped, "repeated");
    assert_eq!(catalog.stream_by_id(id), None);

    let recreated = catalog.apply(&create_stream("orders", 1, RETENTION_MS_DEFAULT));
    let stream = StreamId(2);
    assert_eq!(recreated, Ok(CatalogReply::StreamCreating { stream }));
}

/// `sample`, with its stream active.
fn active() -> Catalog {
    let mut catalog = sample();
    catalog.apply(&stream_opened(1)).unwrap();
    catalog
}

#[test]
fn a_split_and_a_merge_at_once_go_their_way() {
    let mut catalog = active();
    let id = StreamId(1);
    let quarter = HashRange::split_even(4);
    let at = HashKey(quarter[0].end().0 / 2);
    let shapes = [Reshape::Split { shard: 0, at }, Reshape::Merge { shard: 3, adjacent: 2 }];
    let updating = Ok(CatalogReply::StreamUpdating { stream: id });
    assert_eq!(catalog.apply(&begin_reshard(1, 20_500, &shapes)), updating);
    let stream = catalog.stream_by_id(id).unwrap().clone();
    assert_eq!((stream.status, stream.next_shard, stream.shards.len()), (StreamStatus::Updating, 7, 4));
    let busy = Err(StreamError::Status { stream: id, status: StreamStatus::Updating }.into());
    assert_eq!(catalog.apply(&begin_reshard(1, 20_500, &shapes)), busy, "one change at a time");
    assert_eq!(catalog.apply(&set_retention(1, RETENTION_MS_DEFAULT)), busy);
    assert_eq!(catalog.apply(&settings_told(1, catalog.revision())), busy);

    let Some(Change::Reshard(steps)) = catalog.change(id).cloned() else { panic!("no reshard") };
    let children: Vec<(u32, HashRange, u64)> =
        steps.iter().flat_map(|step| &step.children).map(|(&index, it)| (index, it.range, it.created_s)).collect();
    let range = |start, end| HashRange::new(start, end).unwrap();
    let expected = [
        (4, range(HashKey::MIN, HashKey(at.0 - 1)), 20),
        (5, range(at, quarter[0].end()), 20),
        (6, range(quarter[2].start(), HashKey::MAX), 20),
    ];
    assert_eq!(children, expected);
    let load = catalog.load();
    assert_eq!(load.values().sum::<u32>(), 4 + 3, "children count before they are open");
    assert!(load[&GroupId(1)].abs_diff(load[&GroupId(2)]) <= 1, "{load:?}");
    let specs: Vec<ShardSpec> = catalog.specs_of_step(&stream, &steps[1]).into_values().flatten().collect();
    assert_eq!((specs.len(), specs[0].parents), (1, [Some(3), Some(2)]));

    let left = |left| Ok(CatalogReply::ReshardCommitted { stream: id, left });
    assert_eq!(catalog.apply(&commit_reshard(1, &[(3, 21), (2, 22)])), left(1));
    assert_eq!(catalog.apply(&commit_reshard(1, &[(3, 21), (2, 22)])), left(1), "repeated");
    let no_step = |parents: &[u32]| {
        Err(StreamError::Reshard(ReshardError::NoSuchStep { stream: id, parents: parents.to_vec() }).into())
    };
    assert_eq!(catalog.apply(&commit_reshard(1, &[(3, 99), (2, 22)])), no_step(&[3, 2]), "sealed otherwise");
    assert_eq!(catalog.apply(&commit_reshard(1, &[])), no_step(&[]));
    assert_eq!(catalog.apply(&commit_reshard(1, &[(0, 23)])), left(0));
    let stream = catalog.stream_by_id(id).unwrap();
    assert_eq!((stream.status, catalog.change(id)), (StreamStatus::Active, None));
    let closed =
        |children: &[u32], at_ms| ShardState::Closed { last: Some(Offset(at_ms)), at_ms, children: children.to_vec() };
    assert_eq!(stream.shards[&0].state, closed(&[4, 5], 23));
    assert_eq!(stream.shards[&2].state, closed(&[6], 22));
    let map = stream.shard_map().unwrap();
    assert_eq!(map.lookup(at).shard.index, 5);
    assert_eq!(map.lookup(HashKey::MAX).shard.index, 6);
    assert_eq!(catalog.check(), vec![]);
    let gone = Err(StreamError::Reshard(ReshardError::Closed { shard: stream.shard_id(0) }).into());
    assert_eq!(catalog.apply(&begin_reshard(1, 0, &[Reshape::Split { shard: 0, at }])), gone);
}

#[test]
fn what_can_not_be_split_or_merged_is_said() {
    let mut catalog = active();
    let quarter = HashRange::split_even(4);
    let shard = |index| ShardId { stream: StreamId(1), index };
    let split = |shard, at| Reshape::Split { shard, at };
    let merge = |shard, adjacent| Reshape::Merge { shard, adjacent };
    let off = |at| ReshardError::SplitKey { shard: shard(1), at, range: quarter[1] };
    let above = HashKey(quarter[1].end().0 + 1);
    let rows = [
        (vec![], ReshardError::Nothing),
        (vec![split(9, HashKey(1))], ReshardError::NoSuchShard { shard: shard(9) }),
        (vec![split(1, quarter[1].start())], off(quarter[1].start())),
        (vec![split(1, above)], off(above)),
        (vec![split(1, HashKey::MIN)], off(HashKey::MIN)),
        (vec![merge(0, 2)], ReshardError::NotAdjacent { shard: shard(0), other: shard(2) }),
        (vec![merge(0, 3)], ReshardError::NotAdjacent { shard: shard(0), other: shard(3) }),
        (vec![merge(1, 1)], ReshardError::Twice { shard: shard(1) }),
        (vec![merge(0, 1), split(1, quarter[1].end())], ReshardError::Twice { shard: shard(1) }),
    ];
    for (shapes, error) in rows {
        let before = catalog.clone();
        let refused = catalog.apply(&begin_reshard(1, 20_000, &shapes));
        assert_eq!(refused, Err(StreamError::Reshard(error).into()), "{shapes:?}");
        assert_eq!(catalog, before, "{shapes:?}");
    }
    let creating = catalog.apply(&create_stream("new", 1, RETENTION_MS_DEFAULT));
    let id = StreamId(2);
    assert_eq!(creating, Ok(CatalogReply::StreamCreating { stream: id }));
    let early = catalog.apply(&begin_reshard(2, 0, &[split(0, HashKey(7))]));
    assert_eq!(early, Err(StreamError::Status { stream: id, status: StreamStatus::Creating }.into()));
    catalog.apply(&begin_reshard(1, 0, &[split(1, quarter[1].end())])).expect("the last key is a range of its own");
}

#[test]
fn a_child_is_younger_than_its_parents_even_within_a_second() {
    let mut catalog = active();
    for (nth, shard) in [(0, 0), (1, 4), (2, 6)] {
        let at = HashKey(1 << (100 - nth));
        catalog.apply(&begin_reshard(1, 10_000, &[Reshape::Split { shard, at }])).unwrap();
        catalog.apply(&commit_reshard(1, &[(shard, 1)])).unwrap();
        assert_eq!(catalog.check(), vec![]);
    }
    let shards = &catalog.stream_by_id(StreamId(1)).unwrap().shards;
    let created: Vec<u64> = [0, 4, 6, 8].iter().map(|index| shards[index].created_s).collect();
    assert_eq!(created, [10, 11, 12, 13]);
}

#[test]
fn a_stream_that_is_deleted_while_it_is_resharded_is_dropped_everywhere() {
    let mut catalog = active();
    catalog.apply(&begin_reshard(1, 0, &[Reshape::Merge { shard: 0, adjacent: 1 }])).unwrap();
    catalog.apply(&delete_stream("orders")).unwrap();
    let stream = catalog.stream_by_id(StreamId(1)).unwrap();
    assert_eq!(catalog.groups_of(stream), BTreeSet::from([GroupId(1), GroupId(2)]));
    assert_eq!(catalog.check(), vec![]);
    catalog.apply(&stream_dropped(1)).unwrap();
    assert_eq!((catalog.change(StreamId(1)), catalog.check()), (None, vec![]));
}

#[test]
fn settings_are_told_before_a_stream_is_active_again() {
    let mut catalog = active();
    let id = StreamId(1);
    let updating = Ok(CatalogReply::StreamUpdating { stream: id });
    assert_eq!(catalog.apply(&set_retention(1, 2 * RETENTION_MS_DEFAULT)), updating);
    assert_eq!(catalog.apply(&set_retention(1, RETENTION_MS_DEFAULT)), updating, "the last one counts");
    let busy = Err(StreamError::Status { stream: id, status: StreamStatus::Updating }.into());
    let split = [Reshape::Split { shard: 0, at: HashKey(1) }];
    assert_eq!(catalog.apply(&begin_reshard(1, 0, &split)), busy);
    let told = Ok(CatalogReply::StreamActive { stream: id });
    let newest = catalog.revision();
    assert_eq!(catalog.change(id), Some(&Change::Settings { revision: newest }));
    assert_eq!(catalog.apply(&settings_told(1, newest - 1)), busy, "the groups were told what is old by now");
    assert_eq!(catalog.apply(&settings_told(1, newest)), told);
    assert_eq!(catalog.apply(&settings_told(1, newest)), told, "repeated");
    let stream = catalog.stream_by_id(id).unwrap();
    assert_eq!((stream.status, stream.retention_ms), (StreamStatus::Active, RETENTION_MS_DEFAULT));
}

#[test]
fn a_node_id_is_one_incarnations_for_ever() {
    let mut catalog = sample();
    assert_eq!(catalog.apply(&put_node(1, 11, "a")), Ok(CatalogReply::NodePut));
    let (known, given) = (Incarnation(11), Incarnation(99));
    let node = NodeId(1);
    let refused = NodeError::Incarnation { node, known, given };
    assert_eq!(catalog.apply(&put_node(1, 99, "a")), Err(refused.into()));
    let moved = catalog.apply(&put_node(1, 11, "b"));
    assert!(matches!(moved, Err(CatalogError::Node(NodeError::Zone { .. }))));
}

#[test]
fn a_group_spans_distinct_zones() {
    let mut catalog = sample();
    let refusal = |catalog: &mut Catalog, group, replicas: &[u64]| match catalog.apply(&create_group(group, replicas)) {
        Err(CatalogError::Group(error)) => error,
        other => panic!("expected a refusal, got {other:?}"),
    };
    let shared = GroupError::SharedZone { node: NodeId(4), zone: Zone::parse("c").unwrap() };
    assert_eq!(refusal(&mut catalog, 3, &[1, 3, 4]), shared);
    let (given, wanted) = (2, 3);
    let few = GroupError::Replicas { given, wanted };
    assert_eq!(refusal(&mut catalog, 3, &[1, 2]), few);
    let node = NodeId(9);
    let unknown = GroupError::UnknownNode { node };
    assert_eq!(refusal(&mut catalog, 3, &[1, 2, 9]), unknown);
    let (given, next) = (GroupId(2), GroupId(3));
    let taken = GroupError::Id { given, next };
    assert_eq!(refusal(&mut catalog, 2, &[1, 2, 3]), taken);
    let repeated = catalog.apply(&create_group(2, &[1, 2, 4]));
    let group = GroupId(2);
    assert_eq!(repeated, Ok(CatalogReply::GroupCreated { group }));
}

#[test]
fn retention_and_shards_have_bounds() {
    let mut catalog = sample();
    for (shards, retention_ms) in [
        (0, RETENTION_MS_DEFAULT),
        (SHARDS_PER_STREAM_MAX + 1, RETENTION_MS_DEFAULT),
        (1, RETENTION_MS_DEFAULT - 1),
        (1, RETENTION_MS_MAX + 1),
    ] {
        let refused = catalog.apply(&create_stream("new", shards, retention_ms));
        assert!(matches!(refused, Err(CatalogError::Stream(_))));
    }
    let most = create_stream("new", SHARDS_PER_STREAM_MAX, RETENTION_MS_MAX);
    catalog.apply(&most).unwrap();
    assert_eq!(catalog.check(), vec![]);
    let load = catalog.load();
    assert_eq!(load[&GroupId(1)], load[&GroupId(2)]);
}

#[test]
fn the_token_key_is_not_in_debug_texts() {
    let text = format!("{:?}", sample());
    assert!(text.contains("TokenKey(..)") && !text.contains("2, 2, 2"));
}

#[test]
fn golden_checkpoint() {
    let bytes = sample().encode();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    // The changes; nine of scalings and moves; the attributes' two.
    assert_eq!(hex, format!("03{}{}", &GOLDEN_1[2..], "00".repeat(12)), "a format is for ever: take a new version");
}

#[test]
fn checkpoints_of_older_versions_are_read() {
    let byte = |at: usize| u8::from_str_radix(&GOLDEN_1[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..GOLDEN_1.len()).step_by(2).map(byte).collect();
    assert_eq!(Catalog::decode(&bytes).unwrap(), sample());
    let version_2 = [&[2], &bytes[1..], &[0]].concat();
    assert_eq!(Catalog::decode(&version_2).unwrap(), sample());
}

/// `sample`, with one of everything that a stream and an account may have.
#[test]
fn golden_attributes() {
    let mut catalog = active();
    let tags = BTreeMap::from([("k".to_string(), "v".to_string())]);
    for change in [
        AttributeChange::Tags { consumer: None, set: tags.clone(), remove: BTreeSet::new() },
        AttributeChange::Policy { consumer: None, policy: Some("{}".into()) },
        AttributeChange::Encryption { key: Some("a".into()) },
        AttributeChange::ShardMetrics { enable: ShardMetric::ALL.into(), disable: BTreeSet::new() },
        AttributeChange::WarmThroughput { mibps: 300 },
        AttributeChange::Register { name: consumer("c"), tags },
    ] {
        catalog.apply(&change_attributes(1, change)).unwrap();
    }
    let account = SetAccount { at_ms: 40_000, namespace: "n".into(), committed: true };
    catalog.apply(&CatalogCommand::SetAccount(account)).unwrap();
    let hex: String = catalog.encode().iter().map(|b| format!("{b:02x}")).collect();
    assert!(hex.ends_with(GOLDEN_ATTRIBUTES), "a format is for ever: take a new version than {hex}");
    assert_eq!(Catalog::decode(&catalog.encode()).unwrap(), catalog);
}

const GOLDEN_ATTRIBUTES: &str = "\
    010101016b017601027b7d010161070001020304050601ac02010163b0ea\
    010001016b01760001016e01c0b80200";

#[test]
fn a_consumer_comes_and_goes() {
    let mut catalog = active();
    let id = StreamId(1);
    let changed = Ok(CatalogReply::AttributesChanged { stream: id });
    let register = |n: usize| {
        change_attributes(1, AttributeChange::Register { name: consumer(&format!("c{n}")), tags: BTreeMap::new() })
    };
    let settle = CatalogCommand::SettleConsumers(SettleConsumers { stream: id });
    for n in 0..CONSUMERS_MAX {
        if n > 0 && n.is_multiple_of(CONSUMERS_CREATING_MAX) {
            let what = "consumers being created";
            let most = CONSUMERS_CREATING_MAX;
            assert_eq!(catalog.apply(&register(n)), Err(AttributeError::TooMany { what, most }.into()));
            assert_eq!(catalog.unsettled().collect::<Vec<_>>(), [id]);
            catalog.apply(&settle).unwrap();
            assert_eq!(catalog.unsettled().count(), 0);
        }
        assert_eq!(catalog.apply(&register(n)), changed);
    }
    catalog.apply(&settle).unwrap();
    let full = AttributeError::TooMany { what: "consumers", most: CONSUMERS_MAX };
    assert_eq!(catalog.apply(&register(99)), Err(full.into()));
    let exists = AttributeError::ConsumerExists { name: consumer("c3") };
    assert_eq!(catalog.apply(&register(3)), Err(exists.into()));

    let deregister = change_attributes(1, AttributeChange::Deregister { name: consumer("c3") });
    assert_eq!(catalog.apply(&deregister), changed);
    assert_eq!(catalog.apply(&deregister), changed, "repeated");
    assert_eq!(catalog.attributes(id).consumers[&consumer("c3")].status, ConsumerStatus::Deleting);
    catalog.apply(&settle).unwrap();
    let gone = AttributeError::NoSuchConsumer { name: consumer("c3") };
    assert_eq!(catalog.apply(&deregister), Err(gone.into()));
    assert_eq!(catalog.apply(&register(3)), changed);

    catalog.apply(&delete_stream("orders")).unwrap();
    assert!(catalog.apply(&register(50)).is_err());
    catalog.apply(&stream_dropped(1)).unwrap();
    assert_eq!((catalog.attributes(id), catalog.check()), (Attributes::default(), vec![]));
}

#[test]
fn tags_have_bounds_and_a_mode_is_seen_to_change() {
    let mut catalog = active();
    let id = StreamId(1);
    let tags =
        |keys: std::ops::Range<usize>| keys.map(|n| (format!("k{n}"), String::new())).collect::<BTreeMap<_, _>>();
    let tag = |set: BTreeMap<String, String>, remove: &[&str]| {
        let remove = remove.iter().map(|it| it.to_string()).collect();
        change_attributes(1, AttributeChange::Tags { consumer: None, set, remove })
    };
    catalog.apply(&tag(tags(0..TAGS_MAX), &[])).unwrap();
    let full = AttributeError::TooMany { what: "tags", most: TAGS_MAX };
    assert_eq!(catalog.apply(&tag(tags(TAGS_MAX..TAGS_MAX + 1), &[])), Err(full.into()));
    catalog.apply(&tag(tags(TAGS_MAX..TAGS_MAX + 1), &["k0"])).unwrap();
    assert_eq!(catalog.attributes(id).tags.len(), TAGS_MAX);
    for set in [BTreeMap::from([(String::new(), String::new())]), BTreeMap::from([("k".into(), "v".repeat(257))])] {
        assert!(catalog.apply(&tag(set, &["k1"])).is_err());
    }
    let all = catalog.attributes(id).tags.into_keys().collect::<Vec<_>>();
    catalog.apply(&tag(BTreeMap::new(), &all.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    assert_eq!((catalog.attributes(id), catalog.check()), (Attributes::default(), vec![]), "nothing is left behind");

    let on_demand = change_attributes(1, AttributeChange::Mode { mode: StreamMode::OnDemand });
    catalog.apply(&on_demand).unwrap();
    let stream = catalog.stream_by_id(id).unwrap();
    assert_eq!((stream.mode, stream.status), (StreamMode::OnDemand, StreamStatus::Updating));
    catalog.apply(&settings_told(1, catalog.revision())).unwrap();
    let split = [Reshape::Split { shard: 0, at: HashKey(9) }];
    catalog.apply(&begin_reshard(1, 0, &split)).unwrap();
    let busy = StreamError::Status { stream: id, status: StreamStatus::Updating };
    assert_eq!(catalog.apply(&on_demand), Err(busy.into()), "while it is split");
}

#[test]
fn a_stream_in_on_demand_mode_scales_by_load_and_keeps_its_shards_when_it_leaves_it() {
    let mut catalog = active();
    let id = StreamId(1);
    let mode = |catalog: &mut Catalog, mode| {
        catalog.apply(&change_attributes(1, AttributeChange::Mode { mode })).unwrap();
        catalog.apply(&settings_told(1, catalog.revision())).unwrap();
    };
    let set = |bounds| CatalogCommand::SetAutoscale(SetAutoscale { stream: id, bounds });
    assert_eq!((catalog.autoscale(id), catalog.autoscaled().count()), (None, 0));
    mode(&mut catalog, StreamMode::OnDemand);
    let own = Bounds { min: SHARDS_ON_DEMAND, max: SHARDS_ON_DEMAND_MAX };
    assert_eq!(catalog.autoscale(id), Some(own));
    assert_eq!(catalog.autoscaled().collect::<Vec<_>>(), [(id, own)]);
    // Narrower bounds hold until they are taken back, or the mode is left.
    let narrow = Bounds { min: 8, max: 16 };
    catalog.apply(&set(Some(narrow))).unwrap();
    assert_eq!(catalog.autoscale(id), Some(narrow));
    catalog.apply(&set(None)).unwrap();
    assert_eq!(catalog.autoscale(id), Some(own));
    catalog.apply(&set(Some(narrow))).unwrap();
    let shards = catalog.stream_by_id(id).unwrap().shards.clone();
    mode(&mut catalog, StreamMode::Provisioned);
    assert_eq!((catalog.autoscale(id), catalog.autoscaled().count()), (None, 0));
    assert_eq!(catalog.stream_by_id(id).unwrap().shards, shards);
    // Bounds of a provisioned stream are its owner's, and not of the mode.
    catalog.apply(&set(Some(narrow))).unwrap();
    mode(&mut catalog, StreamMode::Provisioned);
    assert_eq!((catalog.autoscale(id), catalog.check()), (Some(narrow), vec![]));
}

const GOLDEN_1: &str = "\
    0101010101010101010101010101010101010202020202020202020202020202020202020202020202020202\
    0202020202020380b899298088b2a00204010b01610b6e6f64652d313a343030300b6e6f64652d313a343030\
    31020c01620b6e6f64652d323a343030300b6e6f64652d323a34303031030d01630b6e6f64652d333a343030\
    300b6e6f64652d333a34303031040e01630b6e6f64652d343a343030300b6e6f64652d343a34303031020103\
    0102030203010204010101066f72646572730000904e80b89929000000000004040000ffffffffffffffffff\
    ffffffffffffffff7f010a0000000180808080808080808080808080808080808001ffffffffffffffffffff\
    ffffffffffffffff01020a0000000280808080808080808080808080808080808002ffffffffffffffffffff\
    ffffffffffffffff02010a0000000380808080808080808080808080808080808003ffffffffffffffffffff\
    ffffffffffffffff03020a00000001066f7264657273010302904e0800";

/// Exhaustive, so that a new kind of violation can't come without a state that shows it.
fn kind(violation: &Violation) -> usize {
    match violation {
        Violation::NotInitialised => 0,
        Violation::NameMismatch { .. } => 1,
        Violation::WrongStreamKey { .. } => 2,
        Violation::StreamIdNotBelowNext { .. } => 3,
        Violation::GroupIdNotBelowNext { .. } => 4,
        Violation::CatalogAsDataGroup => 5,
        Violation::WrongReplicaCount { .. } => 6,
        Violation::UnknownReplica { .. } => 7,
        Violation::SharedZone { .. } => 8,
        Violation::NotTiled { .. } => 9,
        Violation::ShardIndexNotBelowNext { .. } => 10,
        Violation::UnknownGroup { .. } => 11,
        Violation::NotAfterParent { .. } => 12,
        Violation::WrongChildren { .. } => 13,
        Violation::TimeAhead { .. } => 14,
        Violation::CreatedBeyondMax { .. } => 15,
        Violation::ChangeMismatch { .. } => 16,
        Violation::WrongStep { .. } => 17,
        Violation::ScalingMismatch { .. } => 18,
        Violation::ForgettingMismatch { .. } => 19,
        Violation::MoveMismatch(_) => 20,
        Violation::NodeMismatch { .. } => 21,
        Violation::WrongAttributes { .. } => 22,
    }
}

#[test]
fn every_rule_can_be_seen_broken() {
    fn stream(catalog: &mut Catalog) -> &mut Stream {
        catalog.streams.get_mut(&StreamId(1)).unwrap()
    }
    fn shard(catalog: &mut Catalog, index: u32) -> &mut StreamShard {
        stream(catalog).shards.get_mut(&index).unwrap()
    }
    let corruptions: [fn(&mut Catalog); 30] = [
        |c| c.cluster = None,
        |c| {
            c.names.insert(name("ghost"), StreamId(1));
        },
        |c| c.names.clear(),
        |c| stream(c).id = StreamId(0),
        |c| c.next_stream = 1,
        |c| c.next_group = 2,
        |c| {
            let replicas = c.groups[&GroupId(1)].clone();
            c.groups.insert(GroupId::CATALOG, replicas);
        },
        |c| {
            c.groups.insert(GroupId(1), vec![NodeId(1)]);
        },
        |c| c.groups.get_mut(&GroupId(1)).unwrap()[0] = NodeId(9),
        |c| c.groups.get_mut(&GroupId(1)).unwrap()[0] = NodeId(4),
        |c| shard(c, 1).range = HashRange::FULL,
        |c| stream(c).next_shard = 3,
        |c| shard(c, 0).group = GroupId(7),
        |c| shard(c, 1).parents = [Some(0), None],
        |c| {
            stream(c).next_shard = 5;
            let mut closed = shard(c, 0).clone();
            closed.state = ShardState::Closed { last: Some(Offset(1)), at_ms: 0, children: vec![9] };
            stream(c).shards.insert(4, closed);
        },
        |c| c.last_time_ms = TIME_MS_MAX + 1,
        |c| c.last_time_ms = 0,
        |c| shard(c, 0).created_s = SECOND_MAX + 1,
        |c| stream(c).status = StreamStatus::Updating,
        |c| {
            c.changes.insert(StreamId(1), Change::Settings { revision: 1 });
        },
        |c| {
            c.attributes.streams.insert(StreamId(9), Attributes { warm_mibps: Some(1), ..Attributes::default() });
        },
        |c| {
            let children = BTreeMap::from([(4, shard(c, 0).clone())]);
            stream(c).status = StreamStatus::Updating;
            c.changes.insert(StreamId(1), Change::Reshard(vec![Step { parents: vec![0], children }]));
        },
        |c| {
            let steps = crate::scale::plan(&HashRange::split_even(4), 8).unwrap();
            c.scalings.insert(StreamId(1), Scaling::of(8, steps));
        },
        |c| {
            c.shard_count_calls.insert(StreamId(1), vec![u64::MAX]);
        },
        |c| {
            c.forgetting.insert(StreamId(1), BTreeMap::from([(0, GroupId(1))]));
        },
        |c| {
            c.autoscale.insert(StreamId(1), Bounds { min: 2, max: 1 });
        },
        |c| c.moving = Some(Move { group: GroupId(1), from: NodeId(1), to: NodeId(4) }),
        |c| {
            c.standing.insert(NodeId(1), Standing::Removed);
        },
        |c| {
            c.standing.insert(NodeId(9), Standing::Draining);
        },
        |c| c.voters = vec![NodeId(9)],
    ];
    let mut seen = BTreeSet::new();
    for (nth, corrupt) in corruptions.iter().enumerate() {
        let mut catalog = sample();
        corrupt(&mut catalog);
        let found = catalog.check();
        assert_eq!(found.len(), 1, "corruption {nth}: {found:?}");
        assert!(!found[0].to_string().is_empty());
        seen.insert(kind(&found[0]));
    }
    assert_eq!(seen, (0..=22).collect());
}

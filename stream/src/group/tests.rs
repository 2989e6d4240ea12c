//! Random commands keep every rule; corrupted states break each of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::batch::BatchBuilder;
use crate::command::{DropStream, ForgetShards, SetSettings};
use crate::iterator::{IteratorKind, Position};
use crate::limits::Limits;
use crate::name::PartitionKey;
use crate::record::Record;
use crate::sequence::SequenceNumber;

fn shard_id(stream: u32, index: u32) -> ShardId {
    ShardId { stream: StreamId(stream), index }
}

fn record(bytes: usize) -> Record {
    Record {
        partition_key: PartitionKey::parse("key").unwrap(),
        explicit_hash: None,
        data: Bytes::from(vec![7; bytes]),
    }
}

fn append(time_ms: u64, shards: &[ShardId]) -> GroupCommand {
    let mut batch = BatchBuilder::new(time_ms);
    for (nth, &shard) in shards.iter().enumerate() {
        batch.push(shard, &record(nth));
    }
    GroupCommand::decode(batch.finish().payload).unwrap()
}

fn spec(stream: u32, index: u32, range: HashRange, created_s: u64) -> ShardSpec {
    ShardSpec {
        id: shard_id(stream, index),
        range,
        created_s,
        parents: [None, None],
        retention_ms: 1,
        limits: Limits::DEFAULT,
    }
}

fn ids() -> impl Strategy<Value = ShardId> {
    (0..2u32, 0..6u32).prop_map(|(stream, index)| shard_id(stream, index))
}

fn specs() -> impl Strategy<Value = ShardSpec> {
    let parent = || option::weighted(0.3, 0..5u32);
    (ids(), 1..=4u32, 0..4usize, 0..4u64, parent(), parent()).prop_map(|(id, shards, nth, created_s, a, b)| {
        let ranges = HashRange::split_even(shards);
        let mut spec = spec(id.stream.0, id.index, ranges[nth % ranges.len()], created_s);
        spec.parents = [a, b];
        spec
    })
}

fn times() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..1000u64, 2 => 0..3 * DROPPED_MS, 1 => any::<u64>()]
}

fn commands() -> impl Strategy<Value = GroupCommand> {
    let trims = (ids(), 0..8u64).prop_map(|(shard, below)| ShardTrim { shard, below: Offset(below) });
    prop_oneof![
        8 => (times(), vec(ids(), 1..8)).prop_map(|(ms, shards)| append(ms, &shards)),
        6 => (times(), vec(specs(), 0..4))
            .prop_map(|(at_ms, shards)| GroupCommand::OpenShards(OpenShards { at_ms, shards })),
        3 => (times(), ids(), vec(0..8u32, 0..4)).prop_map(|(at_ms, shard, children)| {
            GroupCommand::SealShard(SealShard { at_ms, shard, children })
        }),
        3 => (times(), option::of(0..40u64), vec(trims, 0..4)).prop_map(
            |(at_ms, through, shards)| GroupCommand::Trim(Trim { at_ms, through, shards })
        ),
        1 => (times(), 0..2u32).prop_map(|(at_ms, stream)| {
            GroupCommand::DropStream(DropStream { at_ms, stream: StreamId(stream) })
        }),
        1 => (times(), vec(ids(), 0..4)).prop_map(|(at_ms, shards)| {
            GroupCommand::ForgetShards(ForgetShards { at_ms, shards })
        }),
        2 => (0..2u32, 0..9u64, 0..9u64).prop_map(|(stream, revision, retention_ms)| {
            let limits = Limits { write_records_per_s: retention_ms + 1, ..Limits::DEFAULT };
            GroupCommand::SetSettings(SetSettings { stream: StreamId(stream), revision, retention_ms, limits })
        }),
    ]
}

/// What an outsider can hold the group to: dense offsets, time that never goes back, trimming that
/// never goes back, closed shards that stay as they are.
#[derive(Default)]
struct Witness {
    next: BTreeMap<ShardId, u64>,
    time_ms: u64,
}

impl Witness {
    fn see(&mut self, before: &Group, applied: &Applied, after: &Group) {
        match applied {
            Applied::Appended(appended) => {
                assert!(appended.time_ms >= self.time_ms);
                for slice in &appended.slices {
                    let open = before.shard(slice.shard).is_some_and(Shard::is_open);
                    assert_eq!(open, slice.outcome.is_ok());
                    let Ok(placed) = &slice.outcome else { continue };
                    let next = self.next.entry(slice.shard).or_default();
                    assert_eq!(placed.first, Offset(*next));
                    assert_eq!(placed.time_ms, appended.time_ms);
                    *next += u64::from(placed.count);
                }
            }
            Applied::Dropped(shards) => {
                for shard in shards {
                    self.next.remove(shard);
                }
            }
            _ => {}
        }
        self.time_ms = after.last_time_ms();
        assert!(before.last_time_ms() <= after.last_time_ms());
        assert!(before.trimmed_through() <= after.trimmed_through());
        for shard in after.shards() {
            assert_eq!(self.next.get(&shard.id).copied().unwrap_or(0), shard.next.0);
            let Some(was) = before.shard(shard.id) else {
                continue;
            };
            assert!(was.trimmed <= shard.trimmed && was.last_time_ms <= shard.last_time_ms);
            assert!(was.is_open() || was.state == shard.state);
            assert_eq!((was.range, was.parents), (shard.range, shard.parents));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_commands_keep_every_rule(commands in vec(commands(), 1..60)) {
        let mut group = Group::new(GroupId(3));
        let mut twin = group.clone();
        let mut witness = Witness::default();
        for (index, command) in commands.iter().enumerate() {
            let before = group.clone();
            let applied = group.apply(index as u64, command);
            prop_assert_eq!(group.check(), vec![], "after {:?}", command);
            witness.see(&before, &applied, &group);

            // The twin lives through an encoding of everything at every step.
            let decoded = GroupCommand::decode(command.encode()).unwrap();
            prop_assert_eq!(&decoded, command);
            prop_assert_eq!(&twin.apply(index as u64, &decoded), &applied);
            let bytes = twin.encode();
            twin = Group::decode(&bytes).unwrap();
            prop_assert_eq!(&twin, &group);
            prop_assert_eq!(bytes, group.encode());
        }
    }

    #[test]
    fn a_repeated_control_command_changes_only_the_index(
        before in vec(commands(), 1..30),
        command in commands(),
    ) {
        prop_assume!(!matches!(command, GroupCommand::Append(_)));
        let mut group = Group::new(GroupId(3));
        for (index, command) in before.iter().enumerate() {
            group.apply(index as u64, command);
        }
        let first = group.apply(1000, &command);
        let mut again = group.clone();
        let second = again.apply(1001, &command);
        again.applied = group.applied;
        prop_assert_eq!(&group, &again);
        if let Applied::Sealed(first) = first {
            prop_assert_eq!(Applied::Sealed(first), second);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_a_group(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Group::decode(&bytes);
        let mut versioned = vec![VERSION];
        versioned.extend(bytes);
        let _ = Group::decode(&versioned);
    }
}

/// Two open halves of stream 1 with three records in the first, and a closed shard of stream 2.
fn sample() -> Group {
    let mut group = Group::new(GroupId(3));
    let [low, high] = HashRange::split_even(2)[..] else { unreachable!() };
    let shards = vec![spec(1, 0, low, 10), spec(1, 1, high, 10), spec(2, 0, HashRange::FULL, 10)];
    let at_ms = 10_000;
    group.apply(0, &GroupCommand::OpenShards(OpenShards { at_ms, shards }));
    let to = [shard_id(1, 0), shard_id(2, 0), shard_id(1, 0), shard_id(1, 0)];
    group.apply(1, &append(11_000, &to));
    let seal = SealShard { at_ms: 12_000, shard: shard_id(2, 0), children: vec![1, 2] };
    group.apply(2, &GroupCommand::SealShard(seal));
    assert_eq!(group.check(), vec![]);
    group
}

#[test]
fn refusals_are_per_slice() {
    let mut group = sample();
    let to = [shard_id(9, 9), shard_id(1, 0), shard_id(2, 0)];
    let Applied::Appended(appended) = group.apply(3, &append(500, &to)) else { panic!("an append was applied") };
    assert_eq!(appended.time_ms, 12_000, "the stamped time was behind");
    let outcomes: Vec<_> = appended.slices.into_iter().map(|it| it.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Ok(Placed { first: Offset(3), count: 1, time_ms: 12_000 }),
            Err(Refused::Closed { shard: shard_id(2, 0), last: Some(Offset(0)), children: vec![1, 2] }),
            Err(Refused::NoSuchShard { shard: shard_id(9, 9) }),
        ]
    );
}

#[test]
fn a_dropped_stream_stays_dropped_until_a_trim_much_later() {
    let mut group = sample();
    let drop = |at_ms| GroupCommand::DropStream(DropStream { at_ms, stream: StreamId(1) });
    let open = |at_ms| {
        let shards = vec![spec(1, 7, HashRange::FULL, 20)];
        GroupCommand::OpenShards(OpenShards { at_ms, shards })
    };
    let trim = |at_ms| GroupCommand::Trim(Trim { at_ms, through: None, shards: vec![] });
    let shard = shard_id(1, 7);
    let refused = Applied::Opened(Err(OpenRefused::StreamDropped { shard }));
    let gone = vec![shard_id(1, 0), shard_id(1, 1)];
    assert_eq!(group.apply(3, &drop(20_000)), Applied::Dropped(gone));
    assert_eq!(group.apply(4, &open(20_000)), refused);
    group.apply(5, &trim(20_000 + DROPPED_MS - 1));
    assert_eq!(group.apply(6, &open(20_000)), refused);
    group.apply(7, &trim(20_000 + DROPPED_MS));
    let opened = Applied::Opened(Ok(vec![shard]));
    assert_eq!(group.apply(8, &open(20_000)), opened);
}

#[test]
fn a_child_waits_for_its_parent_to_be_sealed() {
    let mut group = sample();
    let open = |created_s| {
        let mut child = spec(1, 2, HashRange::split_even(4)[0], created_s);
        child.parents = [Some(0), None];
        GroupCommand::OpenShards(OpenShards { at_ms: 0, shards: vec![child] })
    };
    let (shard, parent) = (shard_id(1, 2), shard_id(1, 0));
    let refused = Applied::Opened(Err(OpenRefused::ParentOpen { shard, parent }));
    assert_eq!(group.apply(3, &open(11)), refused);
    let seal = SealShard { at_ms: 0, shard: parent, children: vec![2, 3] };
    let sealed = Sealed { last: Some(Offset(2)), at_ms: 12_000 };
    let applied = group.apply(4, &GroupCommand::SealShard(seal));
    assert_eq!(applied, Applied::Sealed(Ok(sealed)));
    let refused = Applied::Opened(Err(OpenRefused::NotAfterParent { shard, parent }));
    assert_eq!(group.apply(5, &open(10)), refused);
    let opened = Applied::Opened(Ok(vec![shard]));
    assert_eq!(group.apply(6, &open(11)), opened);
}

#[test]
fn an_open_shard_admits_its_range_only() {
    let group = sample();
    let low = group.shard(shard_id(1, 0)).unwrap();
    assert_eq!(low.admits(HashKey(0)), Ok(()));
    let refused = low.admits(HashKey::MAX).unwrap_err();
    assert!(matches!(refused, Refused::WrongRange { .. }));
    let closed = group.shard(shard_id(2, 0)).unwrap();
    let refused = closed.admits(HashKey(0)).unwrap_err();
    assert!(matches!(refused, Refused::Closed { .. }));
}

#[test]
fn iterators_start_where_they_say() {
    let mut group = sample();
    let id = shard_id(1, 0);
    let trim = Trim { at_ms: 0, through: Some(1), shards: vec![ShardTrim { shard: id, below: Offset(1) }] };
    group.apply(3, &GroupCommand::Trim(trim));
    let shard = group.shard(id).unwrap();
    let at = |kind: IteratorKind| kind.position(shard);
    let number = |offset| shard.sequence_number(Offset(offset), 11_000);
    let offset = |offset| Ok(Position::Offset(Offset(offset)));
    assert_eq!(at(IteratorKind::TrimHorizon), offset(1));
    assert_eq!(at(IteratorKind::Latest), offset(3));
    assert_eq!(at(IteratorKind::AtSequence(number(2))), offset(2));
    assert_eq!(at(IteratorKind::AtSequence(number(0))), offset(1));
    assert_eq!(at(IteratorKind::AfterSequence(number(0))), offset(1));
    assert_eq!(at(IteratorKind::AfterSequence(number(2))), offset(3));
    assert_eq!(at(IteratorKind::AtTimestamp(5)), Ok(Position::Time(5)));
    assert!(at(IteratorKind::AtSequence(number(3))).is_err());
    let beginning = SequenceNumber::beginning(shard.created_s, 0);
    assert!(beginning < number(0) && beginning.is_beginning() && !number(0).is_beginning());
    assert_eq!(at(IteratorKind::AtSequence(beginning)), offset(1));
    assert_eq!(at(IteratorKind::AfterSequence(beginning)), offset(1), "the first record is not skipped");
    let other = group.shard(shard_id(1, 1)).unwrap();
    assert!(IteratorKind::AtSequence(number(2)).position(other).is_err());
}

#[test]
#[should_panic(expected = "entry 2 came after Some(2)")]
fn an_entry_out_of_order_is_our_bug() {
    sample().pass(2);
}

#[test]
fn golden_checkpoint() {
    let bytes = sample().encode();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, format!("03{}0000", &GOLDEN_1[2..]), "a format is for ever: take a new version");
}

#[test]
fn checkpoints_of_older_versions_are_read() {
    let byte = |at: usize| u8::from_str_radix(&GOLDEN_1[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..GOLDEN_1.len()).step_by(2).map(byte).collect();
    assert_eq!(Group::decode(&bytes).unwrap(), sample());
    let version_2 = [&[2], &bytes[1..], &[0]].concat();
    assert_eq!(Group::decode(&version_2).unwrap(), sample());
}

#[test]
fn a_forgotten_shard_is_gone_and_does_not_come_back() {
    let mut group = sample();
    let mut index = group.applied().unwrap();
    let mut apply = |group: &mut Group, command| {
        index += 1;
        let applied = group.apply(index, &command);
        assert_eq!(group.check(), vec![]);
        applied
    };
    let (closed, open): (Vec<Shard>, Vec<Shard>) = group.shards().cloned().partition(|shard| !shard.is_open());
    let (closed, open) = (closed[0].clone(), open[0].clone());
    let forget = |at_ms, ids: &[ShardId]| GroupCommand::ForgetShards(ForgetShards { at_ms, shards: ids.to_vec() });
    let both = [closed.id, open.id];
    assert_eq!(apply(&mut group, forget(0, &both)), Applied::Dropped(vec![closed.id]), "an open one stays");
    assert_eq!(apply(&mut group, forget(0, &both)), Applied::Dropped(vec![]), "repeated");
    assert!(group.shard(closed.id).is_none() && group.shard(open.id).is_some());

    // An OpenShards that comes late.
    let (id, range, created_s, parents) = (closed.id, closed.range, closed.created_s, closed.parents);
    let spec = ShardSpec { id, range, created_s, parents, retention_ms: 1, limits: Limits::DEFAULT };
    let late = GroupCommand::OpenShards(OpenShards { at_ms: 0, shards: vec![spec] });
    assert_eq!(apply(&mut group, late.clone()), Applied::Opened(Err(OpenRefused::Forgotten { shard: id })));
    let now_ms = group.last_time_ms();
    let trim = |at_ms| GroupCommand::Trim(Trim { at_ms, through: None, shards: vec![] });
    apply(&mut group, trim(now_ms + DROPPED_MS - 1));
    assert!(group.forgotten.contains_key(&id));
    apply(&mut group, trim(now_ms + DROPPED_MS));
    assert!(group.forgotten.is_empty(), "nothing is remembered for ever");
}

#[test]
fn settings_that_come_late_change_nothing() {
    let mut group = sample();
    let stream = group.shards().next().unwrap().id.stream;
    let mut index = group.applied().unwrap();
    let mut set = |group: &mut Group, revision, retention_ms| {
        index += 1;
        let limits = Limits::DEFAULT;
        let applied =
            group.apply(index, &GroupCommand::SetSettings(SetSettings { stream, revision, retention_ms, limits }));
        let Applied::SettingsSet { shards } = applied else { panic!("{applied:?}") };
        (shards, group.shards_of(stream).next().unwrap().retention_ms)
    };
    let all = group.shards_of(stream).count();
    assert_eq!(set(&mut group, 7, 70), (all, 70));
    assert_eq!(set(&mut group, 7, 71), (0, 70), "repeated");
    assert_eq!(set(&mut group, 6, 60), (0, 70), "of a leader that was");
    assert_eq!(set(&mut group, 8, 80), (all, 80));
    group = Group::decode(&group.encode()).unwrap();
    assert_eq!(set(&mut group, 6, 60), (0, 80), "after a restart");
}

const GOLDEN_1: &str = "\
    01030102e05d00030100010000ffffffffffffffffffffffffffffffffffff010a0000000300f85526018080\
    40e80780808001058080400101010180808080808080808080808080808080808002ffffffffffffffffffff\
    ffffffffffffffff030a0000000000904e0001808040e80780808001058080400200020000ffffffffffffff\
    ffffffffffffffffffffff030a0000010100e05d0201020100f8550c01808040e807808080010580804000";

/// Exhaustive, so that a new kind of violation can't come without a state that shows it.
fn kind(violation: &Violation) -> usize {
    match violation {
        Violation::WrongKey { .. } => 0,
        Violation::TrimmedBeyondNext { .. } => 1,
        Violation::ClosedMoved { .. } => 2,
        Violation::TimeAhead { .. } => 3,
        Violation::CreatedBeyondMax { .. } => 4,
        Violation::Overlap { .. } => 5,
        Violation::ParentOpen { .. } => 6,
        Violation::NotAfterParent { .. } => 7,
        Violation::WrongChildren { .. } => 8,
        Violation::DroppedStreamHasShards { .. } => 9,
        Violation::TrimmedBeyondApplied { .. } => 10,
    }
}

#[test]
fn every_rule_can_be_seen_broken() {
    fn shard(group: &mut Group, stream: u32, index: u32) -> &mut Shard {
        group.shards.get_mut(&shard_id(stream, index)).unwrap()
    }
    let corruptions: [fn(&mut Group); 12] = [
        |g| shard(g, 1, 0).id = shard_id(1, 4),
        |g| shard(g, 1, 0).trimmed = Offset(4),
        |g| shard(g, 2, 0).next = Offset(4),
        |g| shard(g, 1, 0).last_time_ms = 12_001,
        |g| g.last_time_ms = TIME_MS_MAX + 1,
        |g| shard(g, 1, 0).created_s = SECOND_MAX + 1,
        |g| shard(g, 1, 0).range = HashRange::FULL,
        |g| {
            shard(g, 1, 1).parents = [None, Some(0)];
            shard(g, 1, 1).created_s += 1;
        },
        |g| {
            shard(g, 1, 1).parents = [Some(0), None];
            shard(g, 1, 0).state = ShardState::Closed { last: Some(Offset(2)), at_ms: 0, children: vec![1] };
        },
        |g| shard(g, 2, 0).state = ShardState::Closed { last: Some(Offset(0)), at_ms: 0, children: vec![0] },
        |g| {
            g.dropped.insert(StreamId(1), 0);
        },
        |g| g.trimmed_through = Some(2),
    ];
    let mut seen = BTreeSet::new();
    for (nth, corrupt) in corruptions.iter().enumerate() {
        let mut group = sample();
        corrupt(&mut group);
        let found = group.check();
        assert_eq!(found.len(), 1, "corruption {nth}: {found:?}");
        assert!(!found[0].to_string().is_empty());
        seen.insert(kind(&found[0]));
    }
    assert_eq!(seen, (0..=10).collect());
}

//! The queues against a made-up cluster that throttles, loses, splits and merges, by seed.
//!
//! The oracle: every record resolves once; an acknowledged record is in its key's log exactly
//! once and behind every acknowledged record put before it; a refused one is not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use braid_env::time::Instant;
use braid_proto::v1;
use braid_stream::{HashKey, HashRange, Offset, SequenceNumber};
use bytes::Bytes;

use super::super::verdict::{Pending, Rules, Verdict};
use super::super::{Outcome, RefusedReason};
use super::{BatchId, Queues};
use crate::failure::Reason;
use crate::routes::tests::{even, shard};
use crate::routes::{Routes, ShardIndex};

fn rules() -> Rules {
    Rules {
        records_max: 8,
        bytes_max: 200,
        in_flight_max: 2,
        linger: Duration::from_millis(2),
        delivery_timeout: Duration::from_secs(60),
        retry_unknown: false,
    }
}

fn pending<T>(key: &str, put_at: Instant, token: T) -> Pending<T> {
    Pending {
        key: key.to_owned(),
        explicit: None,
        hash: HashKey::of_partition_key(key),
        data: Bytes::from_static(b"data"),
        put_at,
        in_doubt: false,
        alone: false,
        token,
    }
}

fn acked(shard: ShardIndex, offset: usize) -> Verdict {
    let offset = Offset(offset as u64);
    let sequence_number = SequenceNumber { created_s: 1, shard_index: shard.0, offset, arrival_s: 1 };
    Verdict::Acked { shard: shard.to_string().into(), sequence_number }
}

fn refused(reason: Reason) -> Verdict {
    Verdict::Refused {
        reason,
        message: "no".to_owned(),
        retry: reason != Reason::InvalidArgument,
        retry_after: Duration::ZERO,
    }
}

/// xorshift64*: the queues are deterministic, so a seed is a whole run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

/// The cluster: who is open, and what each key's records are, in order.
struct World {
    shards: Vec<v1::Shard>,
    next_shard: u32,
    logs: BTreeMap<String, Vec<usize>>,
    outcomes: BTreeMap<usize, Outcome>,
    keep_order: bool,
}

impl World {
    fn split_or_merge(&mut self, dice: &mut Dice) {
        let at = dice.below(self.shards.len() as u64) as usize;
        let ranges = Routes::of(&self.shards).unwrap();
        let range = |s: &v1::Shard| {
            let start = &s.hash_key_range.as_ref().unwrap().starting_hash_key;
            ranges.lookup(HashKey::parse(start).unwrap()).range
        };
        let mine = range(&self.shards[at]);
        let neighbour = self.shards.iter().position(|s| mine.adjacent(&range(s)));
        let new: Vec<HashRange> = match neighbour {
            Some(other) if dice.below(2) == 0 => {
                let other_range = range(&self.shards[other]);
                self.shards.remove(at.max(other));
                self.shards.remove(at.min(other));
                let start = mine.start().min(other_range.start());
                let end = mine.end().max(other_range.end());
                vec![HashRange::new(start, end).unwrap()]
            }
            _ => {
                self.shards.remove(at);
                let middle = mine.start().0 + (mine.end().0 - mine.start().0) / 2;
                vec![
                    HashRange::new(mine.start(), HashKey(middle)).unwrap(),
                    HashRange::new(HashKey(middle + 1), mine.end()).unwrap(),
                ]
            }
        };
        for range in new {
            self.shards.push(shard(self.next_shard, range, self.next_shard % 3 + 1));
            self.next_shard += 1;
        }
    }

    /// Answers a batch as a node might.
    fn answer(&mut self, records: &[(String, usize)], sent_to: &[ShardIndex], dice: &mut Dice) -> Vec<Verdict> {
        let open = Routes::of(&self.shards).unwrap();
        let whole = dice.below(12);
        let mut failed: BTreeSet<ShardIndex> = BTreeSet::new();
        let mut verdicts = Vec::new();
        for ((key, token), &shard) in records.iter().zip(sent_to) {
            let log = self.logs.entry(key.clone()).or_default();
            let verdict = if whole == 0 {
                refused(Reason::NoLeader)
            } else if whole == 1 {
                if dice.below(2) == 0 {
                    log.push(*token);
                }
                Verdict::Unknown { why: "lost".to_owned() }
            } else if !open.has(shard) {
                refused(Reason::ShardClosed)
            } else if self.keep_order && failed.contains(&shard) {
                refused(Reason::PredecessorRefused)
            } else if dice.below(10) == 0 {
                failed.insert(shard);
                refused(Reason::Throttled)
            } else {
                log.push(*token);
                acked(shard, log.len())
            };
            verdicts.push(verdict);
        }
        verdicts
    }

    fn settle(&mut self, resolved: Vec<(usize, Outcome)>) {
        for (token, outcome) in resolved {
            let before = self.outcomes.insert(token, outcome);
            assert!(before.is_none(), "{token} resolved twice");
        }
    }

    fn check(&self, records: usize) {
        assert_eq!(self.outcomes.len(), records, "every record resolves");
        for (key, log) in &self.logs {
            let acked: Vec<usize> =
                log.iter().copied().filter(|t| matches!(self.outcomes[t], Outcome::Acked { .. })).collect();
            assert!(acked.is_sorted(), "{key}: {acked:?}");
            let once: BTreeSet<&usize> = log.iter().collect();
            assert_eq!(once.len(), log.len(), "{key}: something was sent twice: {log:?}");
            for token in log {
                let refused = matches!(self.outcomes[token], Outcome::Refused { .. });
                assert!(!refused, "{key}: {token} was called refused, and is there");
            }
        }
        if self.keep_order {
            let overtaken =
                self.outcomes.values().any(|o| matches!(o, Outcome::Refused { reason: RefusedReason::Overtaken, .. }));
            assert!(!overtaken, "a node that keeps order lets nothing be overtaken");
        }
    }
}

fn run(seed: u64, keep_order: bool) {
    let mut dice = Dice(seed * 2 + 1);
    let mut world =
        World { shards: even(3, 3), next_shard: 3, logs: BTreeMap::new(), outcomes: BTreeMap::new(), keep_order };
    let mut queues: Queues<usize> = Queues::new(rules(), Routes::of(&world.shards).unwrap());
    let mut now = Instant::now();
    // What is under way: sent, perhaps answered, perhaps long ago.
    let mut under_way: Vec<(BatchId, Vec<Verdict>)> = Vec::new();
    let records = 300;
    let mut put = 0;
    while world.outcomes.len() < records {
        now += Duration::from_micros(dice.below(3_000));
        if put < records && dice.below(3) > 0 {
            let key = format!("key-{}", dice.below(12));
            queues.push(pending(&key, now, put));
            put += 1;
        }
        if dice.below(40) == 0 {
            world.split_or_merge(&mut dice);
        }
        let mut given_up = Vec::new();
        while let Some((id, batch)) = queues.cut(now, false, &mut given_up) {
            assert!(batch.records.len() <= 8);
            let sent: Vec<_> = batch.records.iter().map(|r| (r.key.clone(), r.token)).collect();
            let sent_to: Vec<ShardIndex> =
                batch.slices.iter().flat_map(|(shard, n)| std::iter::repeat_n(*shard, *n)).collect();
            let busy: usize = queues.in_flight.values().map(|b| b.slices.len()).sum();
            let shards: BTreeSet<_> =
                queues.in_flight.values().flat_map(|b| b.slices.iter().map(|(shard, _)| shard)).collect();
            assert_eq!(busy, shards.len(), "one batch in flight per shard");
            let verdicts = world.answer(&sent, &sent_to, &mut dice);
            under_way.push((id, verdicts));
        }
        world.settle(given_up);
        if !under_way.is_empty() && dice.below(2) == 0 {
            let which = dice.below(under_way.len() as u64) as usize;
            let (id, verdicts) = under_way.remove(which);
            let settled = queues.settle(id, verdicts, now, &mut |n| dice.below(n));
            world.settle(settled.resolved);
            if settled.relist {
                queues.install(Routes::of(&world.shards).unwrap(), now);
            }
        }
    }
    assert!(queues.is_empty() && queues.paused.is_empty());
    for lane in queues.lanes.values() {
        assert_eq!((lane.records, lane.bytes, lane.in_flight), (0, 0, 0));
    }
    world.check(records);
}

#[test]
fn order_and_outcomes_hold_for_many_seeds() {
    for seed in 0..400 {
        run(seed, true);
        run(seed, false);
    }
}

fn one_shard() -> Queues<u32> {
    Queues::new(rules(), Routes::of(&even(1, 1)).unwrap())
}

/// Cuts the batch that must be due and gives its tokens.
fn cut(queues: &mut Queues<u32>, now: Instant) -> (BatchId, Vec<u32>) {
    let mut given_up = Vec::new();
    let (id, batch) = queues.cut(now, false, &mut given_up).expect("one is due");
    (id, batch.records.iter().map(|r| r.token).collect())
}

#[test]
fn a_batch_waits_for_its_linger_or_until_it_is_full() {
    let (mut queues, now) = (one_shard(), Instant::now());
    queues.push(pending("a", now, 0));
    assert!(queues.cut(now, false, &mut Vec::new()).is_none());
    assert_eq!(queues.next_wake(), Some(now + rules().linger));
    for token in 1..9 {
        queues.push(pending("a", now, token));
    }
    let (id, tokens) = cut(&mut queues, now);
    assert_eq!(tokens, (0..8).collect::<Vec<u32>>());
    let later = now + Duration::from_secs(1);
    assert!(queues.cut(later, true, &mut Vec::new()).is_none(), "the shard has a batch in flight");
    let acks = (0..8).map(|nth| acked(ShardIndex(0), nth));
    queues.settle(id, acks.collect(), later, &mut |_| 0);
    assert_eq!(cut(&mut queues, later).1, vec![8]);
}

#[test]
fn an_overtaken_record_is_given_up_and_not_sent_again() {
    let (mut queues, now) = (one_shard(), Instant::now());
    for (key, token) in [("a", 0), ("b", 1), ("a", 2)] {
        queues.push(pending(key, now, token));
    }
    let later = now + rules().linger;
    let (id, _) = cut(&mut queues, later);
    let verdicts = vec![refused(Reason::Throttled), refused(Reason::Throttled), acked(ShardIndex(0), 0)];
    let settled = queues.settle(id, verdicts, later, &mut |_| 0);
    let reasons: Vec<_> = settled
        .resolved
        .iter()
        .map(|(token, o)| (*token, matches!(o, Outcome::Refused { reason: RefusedReason::Overtaken, .. })))
        .collect();
    assert_eq!(reasons, vec![(0, true), (2, false)]);
    let much_later = later + Duration::from_secs(1);
    assert_eq!(cut(&mut queues, much_later).1, vec![1]);
}

#[test]
fn a_batch_refused_whole_is_sent_record_by_record() {
    let (mut queues, now) = (one_shard(), Instant::now());
    for token in 0..3 {
        queues.push(pending("a", now, token));
    }
    let later = now + rules().linger;
    let (id, _) = cut(&mut queues, later);
    queues.settle(id, vec![Verdict::Apart; 3], later, &mut |_| 0);
    for token in 0..3 {
        let (id, tokens) = cut(&mut queues, later);
        assert_eq!(tokens, vec![token]);
        let settled = queues.settle(id, vec![refused(Reason::InvalidArgument)], later, &mut |_| 0);
        assert_eq!(settled.resolved.len(), 1);
    }
    assert!(queues.is_empty());
}

#[test]
fn a_record_whose_time_is_up_is_refused_or_in_doubt() {
    let patient = Rules { retry_unknown: true, ..rules() };
    let mut queues = Queues::new(patient, Routes::of(&even(1, 1)).unwrap());
    let now = Instant::now();
    queues.push(pending("a", now, 0));
    let later = now + rules().linger;
    let (id, _) = cut(&mut queues, later);
    let lost = vec![Verdict::Unknown { why: "lost".to_owned() }];
    assert!(queues.settle(id, lost, later, &mut |_| 0).resolved.is_empty());
    queues.push(pending("b", later, 1));
    let mut given_up = Vec::new();
    let much_later = later + rules().delivery_timeout;
    assert!(queues.cut(much_later, false, &mut given_up).is_none());
    assert!(matches!(given_up[0], (0, Outcome::Unknown { .. })));
    assert!(matches!(given_up[1], (1, Outcome::Refused { reason: RefusedReason::TimedOut, .. })));
    assert!(queues.is_empty());
}

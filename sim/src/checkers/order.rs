//! Order: what was acknowledged before something else was sent is before it.
//!
//! Within a shard, and for one hash key across a shard's parents and children, of two acknowledged records
//! of which one was acknowledged before the other was sent, the first is in front. Beyond that, a
//! PutRecords call keeps its order within a shard (with `keep_order` nothing of it follows what was refused), and a library's producer that sends nothing twice keeps
//! the order of each key. Concurrent calls have none, and unknown outcomes have no place at all.

use std::collections::BTreeMap;

use super::{Bounds, Checker, Violation};
use crate::history::{At, Attempt, HashKey, History, Order, Outcome, ReadKind, SequenceNumber, ShardKey};

pub const CHECKER: Checker = Checker {
    name: "order",
    promise: "records keep the order in which they were acknowledged and sent, across splits and merges too",
    check,
};

/// An acknowledged record with its time.
#[derive(Copy, Clone)]
struct Put {
    number: SequenceNumber,
    invoked: At,
    returned: At,
    attempt: Attempt,
}

pub fn check(history: &History, _: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let mut keys: BTreeMap<(&str, HashKey), Vec<Put>> = BTreeMap::new();
    for (key, view) in history.certain_shards() {
        let put = |ack: &crate::history::Ack| Put {
            number: ack.number,
            invoked: ack.invoked,
            returned: ack.returned,
            attempt: ack.attempt,
        };
        let puts: Vec<Put> = view.acks.iter().map(put).collect();
        wrong.extend(overtaken(history, &puts, &format!("in {key}")));
        for put in puts {
            let hash = history.sent(put.attempt).1.hash();
            keys.entry((&key.stream, hash)).or_default().push(put);
        }
    }
    for ((stream, hash), mut puts) in keys {
        puts.sort_by_key(|put| put.number);
        let shards = puts.windows(2).any(|pair| pair[0].number.shard_index != pair[1].number.shard_index);
        if shards {
            wrong.extend(overtaken(history, &puts, &format!("for hash key {hash} of {stream}")));
        }
    }
    wrong.extend(calls(history));
    wrong.extend(kept(history));
    wrong.extend(pipelines(history));
    wrong.extend(consumers(history));
    wrong
}

/// `puts`, in order of their numbers: none was acknowledged before one in front of it was sent.
fn overtaken(history: &History, puts: &[Put], place: &str) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let mut latest: Option<&Put> = None;
    for put in puts {
        if let Some(front) = latest.filter(|front| put.returned < front.invoked) {
            let what = format!(
                "{place}, offset {} was acknowledged before offset {} in front of it was sent",
                put.number.offset, front.number.offset
            );
            let violation = Violation::new(CHECKER.name, what).at(front.returned);
            wrong.push(violation.because(history.tell(put.attempt)).because(history.tell(front.attempt)));
        }
        if latest.is_none_or(|front| put.invoked > front.invoked) {
            latest = Some(put);
        }
    }
    wrong
}

/// The number that was acknowledged, if the shard's identity is certain.
fn certain(history: &History, put: &crate::history::Put, outcome: &Outcome) -> Option<SequenceNumber> {
    let Outcome::Acked { number, .. } = outcome else { return None };
    history.certain(Some(&ShardKey::of(&put.call.stream, number))).map(|_| *number)
}

/// Records of one call and one shard are in the call's order; where shards may have been merged meanwhile, those of
/// one hash key: records of two shards have none, and come to the child by themselves.
fn calls(history: &History) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let ordered = |put: &crate::history::Put| matches!(put.call.order, Order::InCall | Order::Kept);
    for (nth, put) in history.puts.iter().enumerate().filter(|(_, put)| ordered(put)) {
        let merged = history.may_be_merged(&put.call.stream);
        let mut last: BTreeMap<(u32, Option<HashKey>), (SequenceNumber, usize)> = BTreeMap::new();
        for (record, outcome) in put.outcomes.iter().enumerate() {
            let Some(number) = certain(history, put, outcome) else { continue };
            let hash = merged.then(|| history.sent(Attempt { put: nth, nth: record }).1.hash());
            if let Some((before, earlier)) = last.insert((number.shard_index, hash), (number, record))
                && before >= number
            {
                let what =
                    format!("records {earlier} and {record} of {} are in the other order in their shard", put.op);
                let tell = |record| history.tell(Attempt { put: nth, nth: record });
                let violation = Violation::new(CHECKER.name, what).at(put.over_by());
                wrong.push(violation.because(tell(earlier)).because(tell(record)));
            }
        }
    }
    wrong
}

/// With `keep_order`, no record of a key is taken that follows a refused one in its call. (Other keys may lie in
/// other shards.)
fn kept(history: &History) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (nth, put) in history.puts.iter().enumerate().filter(|(_, put)| put.call.order == Order::Kept) {
        let mut refused: BTreeMap<HashKey, usize> = BTreeMap::new();
        for (record, (outcome, sent)) in put.outcomes.iter().zip(&put.call.records).enumerate() {
            match outcome {
                Outcome::Refused { .. } => {
                    refused.entry(sent.hash()).or_insert(record);
                }
                Outcome::Acked { .. } => {
                    let Some(&before) = refused.get(&sent.hash()) else { continue };
                    let what = format!("record {record} of {} was taken and record {before} was refused", put.op);
                    let tell = |record| history.tell(Attempt { put: nth, nth: record });
                    let violation = Violation::new(CHECKER.name, what).at(put.over_by());
                    wrong.push(violation.because(tell(before)).because(tell(record)));
                }
                Outcome::Unknown { .. } => {}
            }
        }
    }
    wrong
}

/// Records of one key and pipeline are in the order of their puts.
fn pipelines(history: &History) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let mut last: BTreeMap<(u32, &str, HashKey), (SequenceNumber, Attempt)> = BTreeMap::new();
    for (put, it) in history.puts.iter().enumerate() {
        let Some(pipeline) = it.pipeline() else { continue };
        for (nth, outcome) in it.outcomes.iter().enumerate() {
            let (attempt, sent) = (Attempt { put, nth }, &it.call.records[nth]);
            let Some(number) = certain(history, it, outcome) else { continue };
            if let Some((before, earlier)) = last.insert((pipeline, &sent.key, sent.hash()), (number, attempt))
                && before >= number
            {
                let what = format!("a producer's records of one key are not in the order of their puts: {sent}");
                let violation = Violation::new(CHECKER.name, what).at(it.over_by());
                wrong.push(violation.because(history.tell(earlier)).because(history.tell(attempt)));
            }
        }
    }
    wrong
}

/// The library's consumer gives a shard's records before those of its children.
fn consumers(history: &History) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for child in history.reads.iter().filter(|read| read.how == ReadKind::Consumer) {
        let facts = history.certain(child.key.as_ref()).and_then(|view| view.facts.as_ref());
        let (Some(facts), Some(first)) = (facts, child.pages.first()) else { continue };
        let siblings = history.reads.iter().filter(|read| read.op == child.op && facts.parents.contains(&read.shard));
        for parent in siblings {
            if let Some(late) = parent.pages.iter().find(|page| page.returned > first.returned) {
                let what =
                    format!("a consumer gave records of {} after those of its child {}", parent.shard, child.shard);
                let violation = Violation::new(CHECKER.name, what).at(late.returned);
                wrong.push(violation.because(format!("{}, first of the child at {}", child.op, first.returned)));
            }
        }
    }
    wrong
}

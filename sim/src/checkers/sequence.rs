//! Sequence numbers: unique, increasing and dense in their shard, and the same for all who see them.
//!
//! A place holds one record for ever, the acknowledgement's number is the record's, and what a number says
//! of shard, creation and arrival is true. Density is checked on the whole shard's final readings; pages
//! are `iterators`'.

use super::{Bounds, Checker, Violation};
use crate::history::{History, ShardKey, ShardView};

pub const CHECKER: Checker = Checker {
    name: "sequence",
    promise: "sequence numbers are unique, dense from 0, and those that were acknowledged",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (key, view) in history.certain_shards() {
        wrong.extend(conflicts(key, view));
        wrong.extend(acks(history, key, view));
        wrong.extend(numbers(key, view));
    }
    for read in &history.reads {
        let index = ShardKey::index_of(&read.shard);
        if let Some((page, seen)) = read.records().find(|(_, seen)| Some(seen.number.shard_index) != index) {
            let what =
                format!("a record of shard {} came from {}/{}", seen.number.shard_index, read.stream, read.shard);
            wrong
                .push(Violation::new(CHECKER.name, what).at(page.returned).because(format!("{} read {seen}", page.op)));
        }
    }
    wrong.extend(gaps(history, bounds));
    wrong
}

fn conflicts(key: &ShardKey, view: &ShardView) -> impl Iterator<Item = Violation> {
    view.conflicts.iter().map(move |(first, other)| {
        let what = format!("two records were read at {key} offset {}", first.seen.offset());
        let lines = [first, other].map(|it| format!("{} at {} read {}", it.op, it.at, it.seen));
        lines.iter().fold(Violation::new(CHECKER.name, what).at(other.at), |v, line| v.because(line))
    })
}

fn acks(history: &History, key: &ShardKey, view: &ShardView) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for pair in view.acks.windows(2) {
        if pair[0].number.offset == pair[1].number.offset {
            let what = format!("two records were acknowledged at {key} offset {}", pair[0].number.offset);
            let violation = Violation::new(CHECKER.name, what).at(pair[1].returned);
            let [a, b] = [&pair[0], &pair[1]].map(|ack| history.tell(ack.attempt));
            wrong.push(violation.because(a).because(b));
        }
    }
    for ack in &view.acks {
        let offset = ack.number.offset.0;
        let violation = |what: String| Violation::new(CHECKER.name, what).because(history.tell(ack.attempt));
        if *ack.shard != *key.name() {
            let what = format!("acknowledged in {}, with a number of {key} offset {offset}", ack.shard);
            wrong.push(violation(what).at(ack.returned));
        }
        let Some(there) = view.places.get(&offset) else { continue };
        let read = format!("{} at {} read {}", there.op, there.at, there.seen);
        let same = there.seen.payload.as_ref().is_ok_and(|it| it.value == ack.value);
        if !same {
            let what = format!("value {} was acknowledged at {key} offset {offset}, where another is", ack.value);
            wrong.push(violation(what).at(there.at).because(read));
        } else if there.seen.number != ack.number {
            let what = format!("value {} was acknowledged under another number than it has", ack.value);
            wrong.push(violation(what).at(there.at).because(ack.number).because(there.seen.number).because(read));
        }
    }
    wrong
}

/// What each number says besides its offset.
fn numbers(key: &ShardKey, view: &ShardView) -> Vec<Violation> {
    let lying = view.places.values().filter(|it| it.seen.number.arrival_s != it.seen.arrival_ms / 1_000);
    let lying = lying.map(|it| {
        let what = format!(
            "the number at {key} offset {} says second {}, the record says {} ms",
            it.seen.offset(),
            it.seen.number.arrival_s,
            it.seen.arrival_ms
        );
        Violation::new(CHECKER.name, what).at(it.at).because(format!("{} read {}", it.op, it.seen))
    });
    lying.collect()
}

fn gaps(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for pass in history.final_passes().iter().filter(|pass| pass.complete) {
        let Some(view) = history.certain(pass.key.as_ref()) else { continue };
        let trimmed = bounds.trimmed_by(history, &pass.stream, view, pass.at);
        let mut due = 0;
        for (offset, seen) in &pass.records {
            // Records may be trimmed between two pages as well as before the first.
            if *offset != due && *offset > trimmed {
                let what = format!(
                    "offset {offset} of {}/{} was read where {due} was due, in final reading {}",
                    pass.stream, pass.shard, pass.pass
                );
                wrong.push(Violation::new(CHECKER.name, what).at(pass.at).because(format!("next is {seen}")));
            }
            due = offset + 1;
        }
    }
    wrong
}

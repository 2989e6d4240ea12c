//! Every record is in the shard whose range its hash key falls into.

use super::{Bounds, Checker, Violation};
use crate::history::{History, Sent, ShardFacts, ShardKey};

pub const CHECKER: Checker =
    Checker { name: "routing", promise: "every record lies in the shard that its hash key belongs to", check };

pub fn check(history: &History, _: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (key, view) in history.certain_shards() {
        let Some(facts) = &view.facts else { continue };
        for ack in &view.acks {
            let sent = history.sent(ack.attempt).1;
            let violation = astray(key, facts, sent, ack.number.offset.0);
            wrong.extend(violation.map(|it| it.at(ack.returned).because(history.tell(ack.attempt))));
        }
        for (offset, it) in &view.places {
            let value = it.seen.payload.as_ref().ok().and_then(|it| history.values.get(&it.value));
            let Some(attempt) = value.and_then(|value| value.attempts.first()) else { continue };
            let violation = astray(key, facts, history.sent(*attempt).1, *offset);
            wrong.extend(violation.map(|v| v.at(it.at).because(history.tell(*attempt))));
        }
    }
    wrong
}

fn astray(key: &ShardKey, facts: &ShardFacts, sent: &Sent, offset: u64) -> Option<Violation> {
    let hash = sent.hash();
    (!facts.range.contains(hash)).then(|| {
        let what = format!("{sent} with hash key {hash} is at {key} offset {offset}, whose range is {}", facts.range);
        Violation::new(CHECKER.name, what)
    })
}

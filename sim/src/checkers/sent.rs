//! Nothing appears that was not sent so: no invention, no corruption, no mixing, no copy too many.
//!
//! A value may be there as often as it was sent without being refused: a client that sends a record again
//! after an unknown outcome may find it twice, and so may one that lets the library do that.

use std::collections::BTreeSet;

use super::{Bounds, Checker, Violation};
use crate::history::{Appearance, History, Outcome, Place, Sent, ShardKey, Value};

pub const CHECKER: Checker = Checker {
    name: "sent",
    promise: "nothing appears that was not sent, not as it was sent, or more often than it was sent",
    check,
};

pub fn check(history: &History, _: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (key, view) in &history.shards {
        wrong.extend(view.places.values().filter_map(|it| changed(history, key, it)));
    }
    wrong.extend(history.values.iter().filter_map(|(value, it)| too_often(history, *value, it)));
    wrong
}

/// A record that is not, byte for byte, one that somebody sent into this stream.
fn changed(history: &History, key: &ShardKey, it: &Appearance) -> Option<Violation> {
    let seen = &it.seen;
    let at = |what: String| {
        let violation = Violation::new(CHECKER.name, format!("{what} at {key} offset {}", seen.offset()));
        violation.at(it.at).because(format!("{} read {seen}", it.op))
    };
    let payload = match &seen.payload {
        Ok(payload) => payload,
        Err(corrupt) => return Some(at(format!("corrupt: {corrupt}"))),
    };
    let attempts = &history.values[&payload.value].attempts;
    let Some(first) = attempts.first() else {
        return Some(at(format!("invented: value {} was never sent, and is", payload.value)));
    };
    let (put, sent, _) = history.sent(*first);
    let Sent { key: sent_key, size, n, .. } = sent;
    let as_sent = (sent_key, *size, *n, put.client.0) == (&seen.key, seen.size, payload.n, payload.client);
    let wrong = match (as_sent, *put.call.stream == *key.stream) {
        (true, true) => return None,
        (true, false) => format!("mixed up: value {} was sent into {}, and is", payload.value, put.call.stream),
        (false, _) => format!("changed: value {} is not as it was sent,", payload.value),
    };
    Some(at(wrong).because(history.tell(*first)))
}

fn too_often(history: &History, value: u64, it: &Value) -> Option<Violation> {
    let mut allowed = 0u64;
    for attempt in &it.attempts {
        let (put, _, outcome) = history.sent(*attempt);
        match outcome {
            Outcome::Refused { .. } => {}
            _ if put.call.once => allowed += 1,
            _ => return None,
        }
    }
    // Refused and invented ones have their own words.
    if allowed == 0 {
        return None;
    }
    let acked = it.attempts.iter().filter_map(|attempt| history.acked_place(*attempt));
    let places: BTreeSet<Place> = it.places.iter().cloned().chain(acked).collect();
    if places.len() as u64 <= allowed {
        return None;
    }
    let what =
        format!("value {value} was sent {allowed} times without being refused, and is in {} places", places.len());
    let violation = it.attempts.iter().fold(Violation::new(CHECKER.name, what), |v, it| v.because(history.tell(*it)));
    Some(places.iter().fold(violation, |v, place| {
        let read = history.shards.get(&place.shard).and_then(|view| view.places.get(&place.offset));
        let how = read.map_or("acknowledged there".to_owned(), |it| format!("first read by {} at {}", it.op, it.at));
        v.because(format!("{} offset {}: {how}", place.shard, place.offset))
    }))
}

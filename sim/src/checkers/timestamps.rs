//! AT_TIMESTAMP is exact, and arrival times are sound.
//!
//! An iterator by time begins at the first record that arrived at or after that time, as the shard's final
//! contents show it; where there was none yet, at the end of the shard of that moment. Arrival times never
//! go back within a shard, and lie between the sending and the first sight of a record, by clocks that are
//! as wrong as the run's are.

use super::begin::Begin;
use super::{Bounds, Checker, Violation};
use crate::history::{History, IteratorKind, Place, ShardKey, ShardView};

pub const CHECKER: Checker = Checker {
    name: "timestamps",
    promise: "AT_TIMESTAMP begins at the first record not older, and arrival times are sound",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = begins(history, bounds);
    for (key, view) in history.certain_shards() {
        wrong.extend(falls(key, view));
        wrong.extend(out_of_bounds(history, bounds, key, view));
    }
    wrong
}

fn begins(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for read in &history.reads {
        let IteratorKind::AtTimestamp(ms) = read.kind else { continue };
        let Some(begin) = Begin::of(history, read) else { continue };
        let Some((page, first)) = read.records().next() else { continue };
        let view = history.certain(read.key.as_ref()).expect("it has a beginning");
        let trimmed = bounds.trimmed_by(history, &read.stream, view, page.returned);
        if begin.allows(first.offset(), trimmed) {
            continue;
        }
        let what = format!(
            "AT_TIMESTAMP {ms} of {}/{} began at offset {} and not at {}",
            read.stream,
            read.shard,
            first.offset(),
            begin.most.filter(|most| first.offset() > *most).unwrap_or(begin.least),
        );
        let violation = Violation::new(CHECKER.name, what).at(page.returned);
        let asked = format!("{} asked at {}, {} gave {first}", read.op, read.invoked, page.op);
        let near = |offset: Option<u64>| offset.and_then(|it| view.places.get(&it)).map(|it| it.seen.to_string());
        let around = [near(begin.least.checked_sub(1)), near(Some(begin.least)), near(begin.most)];
        wrong.push(around.into_iter().flatten().fold(violation.because(asked), Violation::because));
    }
    wrong
}

fn falls(key: &ShardKey, view: &ShardView) -> Option<Violation> {
    let pairs = view.places.values().zip(view.places.values().skip(1));
    let (before, after) = pairs.into_iter().find(|(a, b)| a.seen.arrival_ms > b.seen.arrival_ms)?;
    let what = format!("arrival times go back in {key} at offset {}", after.seen.offset());
    let violation = Violation::new(CHECKER.name, what).at(after.at);
    Some(violation.because(&before.seen).because(&after.seen))
}

fn out_of_bounds(history: &History, bounds: &Bounds, key: &ShardKey, view: &ShardView) -> Option<Violation> {
    view.places.iter().find_map(|(offset, it)| {
        let value = it.seen.payload.as_ref().ok()?.value;
        let place = Place { shard: key.clone(), offset: *offset };
        let attempt = history.attempt_at(value, &place)?;
        let acked = history.acked_place(attempt).as_ref() == Some(&place);
        let sendings = history.values[&value].attempts.iter().map(|it| history.puts[it.put].invoked);
        let sent = match acked {
            true => history.puts[attempt.put].invoked,
            false => sendings.min()?,
        };
        let by = if acked { history.puts[attempt.put].over_by().min(it.at) } else { it.at };
        let (least, most) = (bounds.clock_min_ms(sent), bounds.clock_max_ms(by));
        (!(least..=most).contains(&it.seen.arrival_ms)).then(|| {
            let what = format!(
                "value {value} arrived at {} ms at {key} offset {offset}, which is not within {least} to {most}",
                it.seen.arrival_ms
            );
            let violation = Violation::new(CHECKER.name, what).at(it.at);
            violation.because(history.tell(attempt)).because(format!("{} read {}", it.op, it.seen))
        })
    })
}

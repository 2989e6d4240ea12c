//! No acknowledged record is lost.
//!
//! What was acknowledged is found, at the end, where the acknowledgement said, unless its retention may be
//! over or its stream was (perhaps) deleted. Whole streams that are gone are `streams`' to see; a shard that the last
//! listing does not name is seen here.

use std::collections::BTreeSet;

use super::{Bounds, Checker, Violation};
use crate::history::{FinalPass, History};

pub const CHECKER: Checker = Checker { name: "acked", promise: "no acknowledged record is lost", check };

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let passes = history.final_passes();
    let mut wrong: Vec<Violation> =
        passes.iter().filter(|pass| pass.complete).flat_map(|pass| of_pass(history, bounds, pass)).collect();
    wrong.extend(of_shards_left_out(history, bounds, &passes));
    wrong
}

/// Shards with records that nobody came to read in the end, though others of their stream were read.
fn of_shards_left_out(history: &History, bounds: &Bounds, passes: &[FinalPass<'_>]) -> Vec<Violation> {
    let Some(last) = passes.iter().map(|pass| pass.at).max() else { return Vec::new() };
    let read: BTreeSet<_> = passes.iter().filter_map(|pass| pass.key.as_ref()).collect();
    let lives: BTreeSet<_> = read.iter().map(|key| &key.stream).collect();
    let mut wrong = Vec::new();
    for (key, view) in history.certain_shards() {
        // One that was deleted, perhaps, had other shards.
        let reborn = history.deletions(&key.stream).next().is_some();
        if reborn || read.contains(key) || !lives.contains(&key.stream) {
            continue;
        }
        let trimmed = bounds.trimmed_by(history, &key.stream, view, last);
        if let Some(ack) = view.acks.iter().find(|ack| ack.number.offset.0 >= trimmed) {
            let offset = ack.number.offset.0;
            let what = format!(
                "value {} was acknowledged at {key} offset {offset}, and the stream's shards are listed without that one",
                ack.value
            );
            wrong.push(Violation::new(CHECKER.name, what).at(last).because(history.tell(ack.attempt)));
        }
    }
    wrong
}

fn of_pass(history: &History, bounds: &Bounds, pass: &FinalPass<'_>) -> Vec<Violation> {
    let Some(view) = history.certain(pass.key.as_ref()) else { return Vec::new() };
    let trimmed = bounds.trimmed_by(history, &pass.stream, view, pass.at);
    let mut wrong = Vec::new();
    for ack in view.acks.iter().filter(|ack| ack.number.offset.0 >= trimmed) {
        let offset = ack.number.offset.0;
        let there = pass.records.get(&offset);
        let lost = match there {
            None => "nothing is there".to_owned(),
            Some(seen) if seen.payload.as_ref().is_ok_and(|it| it.value == ack.value) => continue,
            Some(seen) => format!("there is {seen}"),
        };
        let end =
            pass.records.last_key_value().map_or("it is empty".to_owned(), |(last, _)| format!("it ends at {last}"));
        let what = format!(
            "value {} was acknowledged at {}/{} offset {offset}, and in final reading {} {lost}",
            ack.value, pass.stream, pass.shard, pass.pass
        );
        let violation = Violation::new(CHECKER.name, what).at(pass.at).because(history.tell(ack.attempt));
        wrong.push(violation.because(format!("{} records were read, {end}", pass.records.len())));
    }
    wrong
}

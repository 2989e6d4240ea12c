//! No acknowledged record is lost.
//!
//! What was acknowledged is found, at the end, where the acknowledgement said, unless its retention may be
//! over or its stream was (perhaps) deleted. Whole streams that are gone are `streams`' to see.

use super::{Bounds, Checker, Violation};
use crate::history::{FinalPass, History};

pub const CHECKER: Checker = Checker { name: "acked", promise: "no acknowledged record is lost", check };

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let passes = history.final_passes();
    passes.iter().filter(|pass| pass.complete).flat_map(|pass| of_pass(history, bounds, pass)).collect()
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

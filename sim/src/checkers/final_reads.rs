//! Both final readings agree: two nodes, two ways of cutting pages, one content.
//!
//! The second one may show more at its end, if something was still on its way, and less at its beginning,
//! if that may be trimmed.

use std::collections::BTreeSet;

use super::{Bounds, Checker, Violation};
use crate::history::{FinalPass, History};

pub const CHECKER: Checker = Checker {
    name: "final reads",
    promise: "the final readings of a shard, through different nodes, are the same",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let passes = history.final_passes();
    let mut wrong = Vec::new();
    for (nth, first) in passes.iter().enumerate().filter(|(_, pass)| pass.complete) {
        let same = |it: &&FinalPass<'_>| it.complete && (&it.stream, &it.shard) == (&first.stream, &first.shard);
        if let Some(second) = passes[nth + 1..].iter().find(same) {
            wrong.extend(differ(history, bounds, first, second));
        }
    }
    wrong
}

fn differ(history: &History, bounds: &Bounds, first: &FinalPass<'_>, second: &FinalPass<'_>) -> Option<Violation> {
    let view = history.certain(second.key.as_ref())?;
    let trimmed = bounds.trimmed_by(history, &first.stream, view, second.at);
    let end = first.records.last_key_value().map_or(0, |(offset, _)| offset + 1);
    let offsets: BTreeSet<u64> = first.records.keys().chain(second.records.keys()).copied().collect();
    let differs = offsets.into_iter().find(|offset| match (first.records.get(offset), second.records.get(offset)) {
        (Some(a), Some(b)) => a != b,
        (Some(_), None) => *offset >= trimmed,
        (None, _) => *offset < end,
    })?;
    let what = format!("the final readings of {}/{} differ at offset {differs}", first.stream, first.shard);
    let tell = |pass: &FinalPass<'_>| {
        let there = pass.records.get(&differs).map_or("nothing".to_owned(), |seen| seen.to_string());
        format!("final reading {} of {} records has {there}", pass.pass, pass.records.len())
    };
    Some(Violation::new(CHECKER.name, what).at(second.at).because(tell(first)).because(tell(second)))
}

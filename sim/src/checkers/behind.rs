//! MillisBehindLatest is 0 at the tip, and else the age of the newest record given.
//!
//! At the tip is certain where nothing behind a page was sent before the page came; not at the tip, where
//! something behind it was known before the page was asked for. In between nothing is said but that the age
//! fits the clocks.

use std::collections::BTreeSet;

use super::{Bounds, Checker, Violation};
use crate::history::{FinalPass, History, PageRead, Read, ReadKind, ShardKey, ShardView};

pub const CHECKER: Checker = Checker {
    name: "behind",
    promise: "MillisBehindLatest is 0 at the tip and the age of the newest record given before it",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    // Of these everything that was ever behind a page is known.
    let passes = history.final_passes();
    let whole = |pass: &FinalPass<'_>| {
        let Some(view) = history.certain(pass.key.as_ref()) else { return false };
        let untrimmed = || bounds.trimmed_by(history, &pass.stream, view, pass.at) == 0;
        // A shard that is trimmed to its end does not say where that is.
        pass.complete && (!pass.records.is_empty() || untrimmed())
    };
    let known: BTreeSet<ShardKey> = passes.into_iter().filter(whole).filter_map(|pass| pass.key).collect();
    let mut wrong = Vec::new();
    for read in &history.reads {
        let Some(view) = history.certain(read.key.as_ref()) else { continue };
        let whole = read.key.as_ref().is_some_and(|key| known.contains(key));
        let page = read.pages.iter().find_map(|page| Some((page, judge(bounds, read, view, whole, page)?)));
        if let Some((page, why)) = page {
            let what =
                format!("{} said {} ms behind {}/{}: {why}", page.op, page.page.behind_ms, read.stream, read.shard);
            let line = format!("asked at {}: {}", page.invoked, page.page);
            wrong.push(Violation::new(CHECKER.name, what).at(page.returned).because(line));
        }
    }
    wrong
}

fn judge(bounds: &Bounds, read: &Read, view: &ShardView, whole: bool, page: &PageRead) -> Option<String> {
    let said = page.page.behind_ms;
    let Some(last) = page.page.records.last() else {
        return (said > 0).then(|| "no record was given, so it is at the tip".to_owned());
    };
    let end = last.offset() + 1;
    let most = bounds.clock_max_ms(page.returned).saturating_sub(last.arrival_ms);
    if said > most {
        return Some(format!("the newest record given is at most {most} ms old"));
    }
    // What nobody read may have been there unknown to anybody, and be trimmed.
    let seen = || view.places.range(end..).count() as u64 == view.next().saturating_sub(end);
    let tip = || whole && view.ended_by(page.returned, end) && seen();
    if said > 0 && tip() {
        return Some(format!("nothing behind offset {} was sent before it came", last.offset()));
    }
    // The library hands over what a node said earlier, perhaps much earlier.
    let known = read.how == ReadKind::Poll && view.next_at_least(page.invoked) > end;
    let least = bounds.clock_min_ms(page.invoked).saturating_sub(last.arrival_ms);
    (known && said < least).then(|| format!("offset {end} was there, and the newest given is {least} ms old"))
}

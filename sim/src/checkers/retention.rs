//! Nothing is trimmed early, and nothing trimmed comes back.
//!
//! A record may be gone once a clock of the cluster, as wrong as they are, may have said that its retention
//! is over. Once the oldest record of a shard has been seen, no older one is given any more. How soon
//! records go when they may is not promised.

use super::{Bounds, Checker, Violation};
use crate::history::{At, History, IteratorKind, OpId, ReadKind, ShardKey};
use std::collections::BTreeMap;

pub const CHECKER: Checker = Checker {
    name: "retention",
    promise: "no record is trimmed before its retention is over, and none that was comes back",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = early(history, bounds);
    wrong.extend(resurrected(history));
    wrong
}

/// Chains from TRIM_HORIZON that begin above what may be trimmed.
fn early(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for read in history.reads.iter().filter(|read| read.kind == IteratorKind::TrimHorizon) {
        let Some(view) = history.certain(read.key.as_ref()) else { continue };
        let Some((page, first)) = read.records().next() else { continue };
        let trimmed = bounds.trimmed_by(history, &read.stream, view, page.returned);
        if first.offset() <= trimmed {
            continue;
        }
        let what = format!(
            "the oldest record of {}/{} is offset {}, and offset {trimmed} is younger than its retention",
            read.stream,
            read.shard,
            first.offset()
        );
        let violation = Violation::new(CHECKER.name, what).at(page.returned);
        let violation = violation.because(format!("{} asked at {}, {} gave {first}", read.op, read.invoked, page.op));
        let kept = format!("kept for {} ms", bounds.retention_of(history, &read.stream));
        let missing = view.places.get(&trimmed).map(|it| format!("{} at {} read {}", it.op, it.at, it.seen));
        wrong.push(missing.into_iter().fold(violation.because(kept), Violation::because));
    }
    wrong
}

/// Pages that give what was below the oldest record of an earlier page.
fn resurrected(history: &History) -> Vec<Violation> {
    let mut horizons: BTreeMap<&ShardKey, Vec<(At, u64, OpId)>> = BTreeMap::new();
    for read in history.reads.iter().filter(|read| read.kind == IteratorKind::TrimHorizon) {
        let Some((page, first)) = read.records().next() else { continue };
        if history.certain(read.key.as_ref()).is_some() && first.offset() > 0 {
            let key = read.key.as_ref().expect("it is certain");
            horizons.entry(key).or_default().push((page.returned, first.offset(), page.op));
        }
    }
    let mut wrong = Vec::new();
    for read in &history.reads {
        let Some(horizons) = read.key.as_ref().and_then(|key| horizons.get(key)) else { continue };
        // A subscription's and a consumer's records may have been on their way for as long as it lives.
        let asked = |page: &crate::history::PageRead| match read.how {
            ReadKind::Poll => page.invoked,
            ReadKind::Subscription | ReadKind::Consumer => read.invoked,
        };
        let back =
            read.pages.iter().filter_map(|page| Some((page, page.page.records.first()?))).find_map(|(page, first)| {
                let above = horizons.iter().find(|(at, horizon, _)| *at < asked(page) && *horizon > first.offset())?;
                Some((page, first, above))
            });
        if let Some((page, first, (at, horizon, by))) = back {
            let what = format!("{first} is back in {}/{}: it was trimmed", read.stream, read.shard);
            let violation = Violation::new(CHECKER.name, what).at(page.returned);
            let violation = violation.because(format!("{by} found offset {horizon} to be the oldest at {at}"));
            wrong.push(violation.because(format!("{} asked at {}: {}", page.op, page.invoked, page.page)));
        }
    }
    wrong
}

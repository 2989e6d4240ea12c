//! Once faults have stopped, everything works again within a bound.
//!
//! What is demanded is noted by the workload's liveness phase and by the final reading; a run without them
//! demands nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Bounds, Checker, Violation, ms};
use crate::history::{History, Note};

pub const CHECKER: Checker = Checker {
    name: "liveness",
    promise: "after the last fault every shard takes and gives records within the bound",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let bound_ns = u64::try_from(bounds.liveness.as_nanos()).unwrap_or(u64::MAX);
    let mut read = BTreeSet::new();
    for (at, note) in history.notes() {
        match note {
            Note::Probe { what, since_ns, done, last } => {
                let took = at.ns - since_ns;
                // An answer that is under way when the time is up is still awaited.
                let late = *done && took > bound_ns + bound_ns / 2;
                if !done || late {
                    let how = if *done { "worked only after" } else { "did not work within" };
                    let what = format!("{what} {how} {}", ms(took));
                    let since = format!("tried since {} of the run; at last: {last}", ms(*since_ns));
                    wrong.push(Violation::new(CHECKER.name, what).at(at).because(since));
                }
            }
            Note::FinalRead { pass, stream, shard, complete, .. } => {
                read.insert((stream.clone(), shard.clone()));
                if !complete {
                    let what = format!("{stream}/{shard} could not be read to its end in final reading {pass}");
                    wrong.push(Violation::new(CHECKER.name, what).at(at));
                }
            }
            // All of it is past retention (seed 300002850).
            Note::FinalForgotten { stream, shard } => {
                read.insert((stream.clone(), shard.clone()));
            }
            _ => {}
        }
    }
    wrong.extend(unread(history, &read));
    wrong
}

/// Shards that were there before the final reading and have none.
fn unread(history: &History, read: &BTreeSet<(Arc<str>, Arc<str>)>) -> Vec<Violation> {
    let asked = history.notes().find_map(|(at, note)| matches!(note, Note::FinalStreams { .. }).then_some(at));
    let Some(asked) = asked else { return Vec::new() };
    let mut wrong = Vec::new();
    let streams: BTreeSet<&Arc<str>> = history.final_streams().values().copied().flatten().map(|it| &it.name).collect();
    for stream in streams {
        // A deletion of which nothing is known may be done at any time.
        if !history.deletions(stream).all(|it| it.done_by() < asked) {
            continue;
        }
        let listing = history.listings().rfind(|(op, of, _)| *of == stream && op.invoked < asked);
        for it in listing.into_iter().flat_map(|(_, _, listing)| &listing.shards) {
            if !read.contains(&(stream.clone(), it.name.clone())) {
                let what = format!("{stream}/{} has no final reading", it.name);
                wrong.push(Violation::new(CHECKER.name, what).at(asked));
            }
        }
    }
    wrong
}

//! Open hash ranges tile the space, and shards descend from one another as they should.
//!
//! Checked on every listing that came in one answer, so that it is one moment's truth. A shard's range,
//! parents and group never change.

use super::{Bounds, Checker, Violation};
use crate::history::{Admin, AdminOp, History, Listing, ShardFacts, ShardKey};
use braid_stream::{GroupId, Route, ShardId, ShardMap, StreamId};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const CHECKER: Checker = Checker {
    name: "ranges",
    promise: "a stream's open shards tile the hash keys, and its shards' lineage is sound",
    check,
};

pub fn check(history: &History, _: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    let mut known: BTreeMap<ShardKey, (&ShardFacts, &AdminOp)> = BTreeMap::new();
    for (op, stream, listing) in history.listings() {
        let at = op.returned.unwrap_or(op.invoked);
        let violation = |what: String| {
            Violation::new(CHECKER.name, what).at(at).because(format!("listed by {}: {}", op.op, op.call))
        };
        if listing.at_once {
            wrong.extend(untiled(&op.call, stream, listing).map(violation));
            wrong.extend(lineage(stream, listing).into_iter().map(violation));
        }
        for facts in &listing.shards {
            let key = ShardKey::of(stream, &facts.starting);
            let (first, by) = *known.entry(key.clone()).or_insert((facts, op));
            if history.may_be_reborn(stream, by.invoked, at) {
                continue;
            }
            let same = |it: &ShardFacts| (it.range, it.parents.clone(), it.group, it.name.clone());
            if same(first) != same(facts) {
                let what = format!("{key} is not what it was");
                wrong.push(violation(what).because(format!("{first:?} by {}", by.op)).because(format!("{facts:?}")));
            }
        }
    }
    wrong
}

fn untiled(call: &Admin, stream: &Arc<str>, listing: &Listing) -> Option<String> {
    let route = |facts: &ShardFacts| Route {
        range: facts.range,
        shard: ShardId { stream: StreamId(0), index: facts.starting.shard_index },
        group: GroupId(facts.group),
        created_s: facts.starting.created_s,
    };
    // Those that were open at a moment are asked for as such, closed since or not.
    let at_moment = matches!(call, Admin::ListOpen { .. });
    let open = listing.shards.iter().filter(|facts| at_moment || facts.ending.is_none());
    let not_tiled = ShardMap::new(open.map(route).collect()).err()?;
    Some(format!("the open shards of {stream} do not tile the hash keys: {not_tiled}"))
}

fn lineage(stream: &Arc<str>, listing: &Listing) -> Vec<String> {
    let mut wrong = Vec::new();
    for child in &listing.shards {
        let (name, number) = (&child.name, child.starting);
        if ShardKey::index_of(name) != Some(number.shard_index) {
            wrong.push(format!("{stream}/{name} has numbers of shard {}", number.shard_index));
        }
        for parent in listing.shards.iter().filter(|it| child.parents.contains(&it.name)) {
            let sound = parent.ending.is_some()
                && parent.starting.shard_index < number.shard_index
                && parent.starting.created_s < number.created_s
                && parent.range.overlaps(&child.range);
            if !sound {
                let open = if parent.ending.is_none() { "open" } else { "closed" };
                wrong.push(format!(
                    "{stream}/{name} {} cannot be a child of {} {}, which is {open}",
                    child.range, parent.name, parent.range
                ));
            }
        }
    }
    wrong
}

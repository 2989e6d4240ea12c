//! Streams live as their acknowledged administration says.
//!
//! In the end, as every node tells it: what was created (and certainly not deleted) is there, ACTIVE, as it
//! was asked for; what was deleted (and certainly not created again) is gone; what nobody may have created
//! was never there. And a stream whose creation was acknowledged is never called unknown, by no call of any kind, nor
//! is a shard that it was created with, or that was listed.

use super::{Bounds, Checker, Violation};
use crate::history::{Admin, AdminDone, AdminOp, At, Denial, History, Note, Reason, ShardKey, Status, StreamFacts};

pub const CHECKER: Checker = Checker {
    name: "streams",
    promise: "streams come and go as was acknowledged, and every node knows them in the end",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = unknown_although_there(history);
    for (at, note) in history.notes() {
        let Note::FinalStreams { via, streams } = note else { continue };
        for name in history.stream_names() {
            let found = streams.iter().find(|it| it.name == *name);
            let violation = judge(history, bounds, name, found, at);
            wrong.extend(violation.map(|it| it.at(at).because(format!("as {via} says in the end"))));
        }
        for it in streams.iter().filter(|it| history.creations(&it.name).next().is_none()) {
            let what = format!("stream {} was never created, and is there", it.name);
            wrong.push(Violation::new(CHECKER.name, what).at(at).because(format!("as {via} says in the end")));
        }
    }
    wrong
}

fn judge(history: &History, bounds: &Bounds, name: &str, found: Option<&StreamFacts>, at: At) -> Option<Violation> {
    let creations: Vec<&AdminOp> = history.creations(name).filter(|it| it.invoked < at).collect();
    let deletions: Vec<&AdminOp> = history.deletions(name).filter(|it| it.invoked < at).collect();
    let violation = |what: String| {
        let all = creations.iter().chain(&deletions);
        Some(all.fold(Violation::new(CHECKER.name, what), |v, op| v.because(tell(op))))
    };
    // A creation that nothing deleted, as far as can be: its deletion would have been asked for later.
    let created = creations
        .iter()
        .find(|create| create.is_done() && deletions.iter().all(|delete| delete.done_by() < create.invoked));
    // A deletion that nothing created again.
    let deleted = deletions
        .iter()
        .find(|delete| delete.is_done() && creations.iter().all(|create| create.done_by() < delete.invoked));
    match found {
        None => match created {
            Some(_) => violation(format!("stream {name} was created and never deleted, and is not there")),
            None => None,
        },
        Some(_) if deleted.is_some() => violation(format!("stream {name} was deleted, and is there")),
        Some(found) => {
            if found.status != Status::Active {
                return violation(format!("stream {name} is {:?} in the end", found.status));
            }
            // Where several creations may have been done, which one it was is not known.
            let ([only], Some(_)) = (&creations[..], created) else { return None };
            let Admin::Create { shards, retention_ms, .. } = only.call else { return None };
            let retention_ms = if retention_ms == 0 { bounds.retention_ms } else { retention_ms };
            let mut kept = std::iter::once(retention_ms).chain(history.retentions(name));
            if let Some(shards) = history.scaled_to(name).filter(|shards| *shards != found.open_shards) {
                return violation(format!(
                    "stream {name} was scaled to {shards} shards at last, and has {}",
                    found.open_shards
                ));
            }
            let as_many = found.open_shards == shards || history.may_be_resharded(name);
            match as_many && kept.any(|ms| ms == found.retention_ms) {
                true => None,
                false => violation(format!(
                    "stream {name} was created with {shards} shards kept for {retention_ms} ms, and has {} kept for {} \
                     ms, which nobody asked for",
                    found.open_shards, found.retention_ms
                )),
            }
        }
    }
}

fn unknown_although_there(history: &History) -> Vec<Violation> {
    history.denials.iter().filter_map(|denial| unknown(history, denial)).collect()
}

/// Whether a call was told that its stream is not there, or a shard that the stream has, although nobody deleted the
/// stream.
fn unknown(history: &History, denial: &Denial) -> Option<Violation> {
    let Denial { op, stream, shard, invoked, answered, failed } = denial;
    let create = history.creations(stream).find(|create| {
        // Some deletion may have been done between the two, or meanwhile.
        create.is_done()
            && create.done_by() < *invoked
            && history.deletions(stream).all(|it| it.done_by() < create.invoked || it.invoked > *answered)
    })?;
    let because = match (failed.reason, shard) {
        (Reason::ShardNotFound, Some(shard)) if !was_created_with(create, shard) => {
            // A node that is behind lists an earlier stream of that name, which may have had more (seeds 100000803 and,
            // of a consumer, 900205).
            if history.creations(stream).any(|it| it.invoked < create.invoked) {
                return None;
            }
            let mut since = history.listings().filter(|(op, of, _)| *of == stream && create.done_by() < op.invoked);
            let told = since
                .find(|(op, _, listing)| op.done_by() < *invoked && listing.shards.iter().any(|it| it.name == *shard));
            match told {
                Some((told, _, _)) => format!("{}: {} was listed by {}", told.op, shard, told.done_by()),
                // A consumer reads what it was told of after it began.
                None if failed.shard.is_some() => tell(create),
                None => return None,
            }
        }
        _ => tell(create),
    };
    let what = format!("stream {stream} was created, and {op} was told that it, or a shard of it, is not there");
    let told = format!("{op}: invoked at {invoked}, told at {answered}: {failed}");
    Some(Violation::new(CHECKER.name, what).at(*answered).because(because).because(told))
}

fn was_created_with(create: &AdminOp, shard: &str) -> bool {
    let Admin::Create { shards, .. } = create.call else { return false };
    ShardKey::index_of(shard).is_some_and(|index| index < shards)
}

fn tell(op: &AdminOp) -> String {
    let how = match (&op.result, op.returned) {
        (Some(Ok(AdminDone::Accepted)), Some(at)) => format!("accepted at {at}"),
        (Some(Ok(done)), Some(at)) => format!("{done} at {at}"),
        (Some(Err(failed)), Some(at)) => format!("{failed} at {at}"),
        _ => "never came back".to_owned(),
    };
    format!("{}: {} {} {} at {}: {how}", op.op, op.client, op.via, op.call, op.invoked)
}

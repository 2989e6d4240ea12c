//! Reads see what was acknowledged, and what was read before, through whichever node.
//!
//! GetRecords is answered as of a moment after it was asked: a page that ends before its limits reaches
//! the shard's end of that moment. And what was read once stays readable until its retention is over.
//! Subscriptions promise no moment; what they gave must stay all the same.

use braid_stream::limits::{GET_BYTES_MAX, GET_RECORDS_MAX, PARTITION_KEY_CHARS_MAX, RECORD_BYTES_MAX};

use super::begin::Begin;
use super::{Bounds, Checker, Violation};
use crate::history::{FinalPass, History, PageRead, Read, ReadKind, ShardView};

pub const CHECKER: Checker = Checker {
    name: "session",
    promise: "a read sees all that was acknowledged or read before it, through any node, and it stays",
    check,
};

/// Counted for each record besides its bytes, with room to spare.
const RECORD_OVERHEAD: u64 = 128;

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for read in history.reads.iter().filter(|read| read.how == ReadKind::Poll) {
        if let (Some(view), Some(begin)) = (history.certain(read.key.as_ref()), Begin::of(history, read)) {
            wrong.extend(behind_the_acknowledged(history, bounds, read, view, begin));
        }
    }
    for pass in history.final_passes().iter().filter(|pass| pass.complete) {
        wrong.extend(gone_again(history, bounds, pass));
    }
    wrong
}

/// Whether a page was cut by one of its limits, or may have been.
pub fn may_be_cut(page: &PageRead) -> bool {
    let limit = if page.limit == 0 { GET_RECORDS_MAX } else { page.limit as usize };
    let bytes: u64 = page.page.records.iter().map(|seen| u64::from(seen.size) + RECORD_OVERHEAD).sum();
    let next = RECORD_BYTES_MAX + 4 * PARTITION_KEY_CHARS_MAX as u64 + RECORD_OVERHEAD;
    page.page.records.len() >= limit || bytes + next > GET_BYTES_MAX
}

fn behind_the_acknowledged(
    history: &History,
    bounds: &Bounds,
    read: &Read,
    view: &ShardView,
    begin: Begin,
) -> Option<Violation> {
    // The most that the next record's offset may be.
    let mut position = begin.most;
    for page in &read.pages {
        if let Some(last) = page.page.records.last() {
            position = Some(last.offset() + 1);
        }
        let Some(reached) = position.filter(|_| !may_be_cut(page)) else { continue };
        // A trimmed record is passed over without a word.
        let reached = reached.max(bounds.trimmed_by(history, &read.stream, view, page.returned));
        let there = view.next_at_least(page.invoked);
        if reached < there {
            let what = format!(
                "{} gave {}/{} up to offset {reached}, but {} was acknowledged or read before it was asked",
                page.op,
                read.stream,
                read.shard,
                there - 1
            );
            let violation = Violation::new(CHECKER.name, what).at(page.returned);
            let asked =
                format!("{} asked {:?} at {}, limit {}: {}", page.op, page.via, page.invoked, page.limit, page.page);
            return Some(violation.because(asked).because(witness(history, view, there - 1)));
        }
    }
    None
}

/// Who knew that `offset` is there.
fn witness(history: &History, view: &ShardView, offset: u64) -> String {
    let ack = view.acks.iter().find(|ack| ack.number.offset.0 == offset);
    let read = view.places.get(&offset).map(|it| format!("{} at {} read {}", it.op, it.at, it.seen));
    match (ack, read) {
        (Some(ack), Some(read)) => format!("{}; {read}", history.tell(ack.attempt)),
        (Some(ack), None) => history.tell(ack.attempt),
        (None, read) => read.unwrap_or_else(|| format!("offset {offset}")),
    }
}

/// What was read once and is not there in the end.
fn gone_again(history: &History, bounds: &Bounds, pass: &FinalPass<'_>) -> Vec<Violation> {
    let Some(view) = history.certain(pass.key.as_ref()) else { return Vec::new() };
    let trimmed = bounds.trimmed_by(history, &pass.stream, view, pass.at);
    let gone =
        view.places.range(trimmed..).filter(|(offset, it)| it.at < pass.at && !pass.records.contains_key(offset));
    gone.map(|(offset, it)| {
        let what = format!(
            "offset {offset} of {}/{} was read, and is not there in final reading {}",
            pass.stream, pass.shard, pass.pass
        );
        Violation::new(CHECKER.name, what).at(pass.at).because(format!("{} at {} read {}", it.op, it.at, it.seen))
    })
    .collect()
}

//! Iterators of every kind neither skip nor repeat: polls, subscriptions, the library's consumer.
//!
//! A chain begins where its kind says, and each page goes on where the one before ended. A gap is allowed
//! where records may have been trimmed meanwhile; the library has to count it. Where AT_TIMESTAMP begins is
//! `timestamps`' to judge.

use braid_stream::limits::GET_RECORDS_MAX;

use super::begin::Begin;
use super::{Bounds, Checker, Violation};
use crate::history::story::kind_name;
use crate::history::{History, IteratorKind, PageRead, Read, ReadKind, ShardKey, ShardView};

pub const CHECKER: Checker = Checker {
    name: "iterators",
    promise: "an iterator, a subscription or a consumer neither skips a record nor gives one twice",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    history.reads.iter().filter_map(|read| chain(history, bounds, read)).collect()
}

/// The first thing that is wrong with a chain.
fn chain(history: &History, bounds: &Bounds, read: &Read) -> Option<Violation> {
    let view = history.certain(read.key.as_ref())?;
    let key = read.key.as_ref()?;
    let begin = Begin::of(history, read)?;
    let about = format!("{}: {} {:?} of {key} from {}", read.op, read.client, read.how, kind_name(&read.kind));
    let violation = |page: &PageRead, what: String| {
        let line = format!("{} at {} got {}", page.op, page.returned, page.page);
        Violation::new(CHECKER.name, what).at(page.returned).because(&about).because(line)
    };
    if let IteratorKind::AtSequence(number) | IteratorKind::AfterSequence(number) = &read.kind
        && ShardKey::of(&read.stream, number) != *key
    {
        let what = format!("an iterator of {key} was given for a number of another shard");
        return Some(Violation::new(CHECKER.name, what).at(read.begun?).because(about));
    }
    let mut position: Option<u64> = None;
    for page in &read.pages {
        let limit = if page.limit == 0 { GET_RECORDS_MAX } else { page.limit as usize };
        if page.page.records.len() > limit {
            let what = format!("{} records were given where {limit} were allowed", page.page.records.len());
            return Some(violation(page, what));
        }
        if let Some(what) = within(page).or_else(|| first(history, bounds, read, view, begin, position, page)) {
            return Some(violation(page, what));
        }
        if let Some(last) = page.page.records.last() {
            position = Some(last.offset() + 1);
        }
        let trimmed = bounds.trimmed_by(history, &read.stream, view, page.returned);
        if let Some(what) = continuation(read, key, begin, trimmed, &mut position, page) {
            return Some(violation(page, what));
        }
        if page.page.ended.is_some()
            && let Some(position) = position
            && position.max(trimmed) < view.next()
        {
            let what = format!("the shard is said to end at offset {position}, and has {}", view.next() - 1);
            return Some(violation(page, what));
        }
    }
    None
}

/// A page's records follow one another.
fn within(page: &PageRead) -> Option<String> {
    let broken = page.page.records.windows(2).find(|pair| pair[0].offset() + 1 != pair[1].offset())?;
    Some(format!("within a page, offset {} is followed by {}", broken[0].offset(), broken[1].offset()))
}

/// A page's first record is where the chain was.
fn first(
    history: &History,
    bounds: &Bounds,
    read: &Read,
    view: &ShardView,
    begin: Begin,
    position: Option<u64>,
    page: &PageRead,
) -> Option<String> {
    let first = page.page.records.first()?.offset();
    let trimmed = bounds.trimmed_by(history, &read.stream, view, page.returned);
    let Some(due) = position else {
        let judged = !matches!(read.kind, IteratorKind::AtTimestamp(_));
        // What is missing at a shard's beginning is `retention`'s.
        let late = read.kind != IteratorKind::TrimHorizon && begin.skipped_by(first, trimmed);
        return match (first < begin.least, late) {
            _ if !judged => None,
            (true, _) => Some(format!("the first record is offset {first}, before {} where it begins", begin.least)),
            (_, true) => {
                let most = begin.most.expect("it is late");
                Some(format!("the first record is offset {first}, and {most} is skipped"))
            }
            _ => None,
        };
    };
    let missed = match read.how {
        ReadKind::Consumer => page.page.missed,
        ReadKind::Poll | ReadKind::Subscription => first.saturating_sub(due),
    };
    if first < due {
        Some(format!("offset {first} came again: {due} was due"))
    } else if first > due && first > trimmed {
        Some(format!("offsets {due}..{first} were skipped"))
    } else if first - due != missed {
        Some(format!("offsets {due}..{first} were passed over, and {missed} are said to be missed"))
    } else {
        None
    }
}

/// A subscription says truly where to go on. Without records that is the first that is heard of where it is.
fn continuation(
    read: &Read,
    key: &ShardKey,
    begin: Begin,
    trimmed: u64,
    position: &mut Option<u64>,
    page: &PageRead,
) -> Option<String> {
    if read.how != ReadKind::Subscription {
        return None;
    }
    let said = match &page.page.continuation {
        Some(number) if ShardKey::of(&read.stream, number) != *key => {
            return Some(format!("it is to go on after a number of another shard: {number}"));
        }
        Some(number) => number.offset.0 + 1,
        None => 0,
    };
    match *position {
        // What was trimmed may be passed over, or not yet.
        Some(due) if said < due || said > due.max(trimmed) => {
            Some(format!("it is to go on at offset {said}, and {due} is due"))
        }
        None if !begin.allows(said, trimmed) => {
            Some(format!("it is to go on at offset {said}, and begins at {} to {:?}", begin.least, begin.most))
        }
        _ => {
            *position = Some(said);
            None
        }
    }
}

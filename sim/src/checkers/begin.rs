//! Where a chain of pages may begin: the offsets that the contract allows for each kind of iterator.
//!
//! A beginning is fixed at some moment while it was asked for. What was acknowledged or read before that
//! call is known to be there; what was first sent after it came back is known not to be.

use crate::history::{At, History, IteratorKind, Read, ReadKind, ShardView};

/// The least and the greatest offset that the first record may have.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Begin {
    pub least: u64,
    /// `None`: nothing says so.
    pub most: Option<u64>,
}

impl Begin {
    /// `None`: the chain never began, or the shard's identity is not certain.
    pub fn of(history: &History, read: &Read) -> Option<Begin> {
        let begun = read.begun?;
        let view = history.certain(read.key.as_ref())?;
        let asked = (read.invoked, begun);
        let parents = view.facts.as_ref().map_or(&[][..], |facts| &facts.parents[..]);
        if read.how == ReadKind::Consumer && !parents.is_empty() {
            // The library's consumer reads the children of what it has read from their beginning, whatever it was
            // told. Of a shard that it was not seen to come to from a parent, which one it was is not known.
            let came = history.reads.iter().any(|it| it.op == read.op && parents.contains(&it.shard));
            return Some(match read.kind {
                IteratorKind::Latest if !came => Begin { least: 0, most: view.next_at_most(asked.1) },
                _ => Begin::at(0),
            });
        }
        Some(match read.kind {
            IteratorKind::TrimHorizon => Begin::at(0),
            IteratorKind::AtSequence(number) => Begin::at(number.offset.0),
            IteratorKind::AfterSequence(number) => Begin::at(number.offset.0 + 1),
            IteratorKind::Latest => Begin { least: view.next_at_least(asked.0), most: view.next_at_most(asked.1) },
            IteratorKind::AtTimestamp(ms) => at_timestamp(view, asked, ms),
        })
    }

    fn at(offset: u64) -> Begin {
        Begin { least: offset, most: Some(offset) }
    }

    /// `trimmed`: where the place was trimmed before its use, the oldest record kept took it.
    pub fn allows(&self, offset: u64, trimmed: u64) -> bool {
        self.least <= offset && !self.skipped_by(offset, trimmed)
    }

    /// Whether a record that should have come is before `offset`.
    pub fn skipped_by(&self, offset: u64, trimmed: u64) -> bool {
        self.most.is_some_and(|most| offset > most.max(trimmed))
    }
}

/// The first record that arrived at or after `ms`, if there was one when the iterator was made; else the
/// end of the shard at that moment, which acts as LATEST does.
fn at_timestamp(view: &ShardView, (invoked, begun): (At, At), ms: u64) -> Begin {
    // Arrivals never go back, so the wanted one lies behind the last known to be older.
    let older = view.places.iter().rev().find(|(_, it)| it.seen.arrival_ms < ms).map_or(0, |(offset, _)| offset + 1);
    let younger = view.places.iter().find(|(_, it)| it.seen.arrival_ms >= ms).map(|(offset, _)| *offset);
    let there = view.next_at_least(invoked);
    let end = view.next_at_most(begun);
    match younger {
        // It was there before the iterator was asked for.
        Some(first) if first < there => Begin { least: older, most: Some(first) },
        Some(first) => Begin { least: older.min(there), most: Some(end.map_or(first, |end| end.min(first))) },
        None => Begin { least: older.min(there), most: end },
    }
}

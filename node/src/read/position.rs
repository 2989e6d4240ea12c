//! Where reading begins: from what a reader asks for to an offset.
//!
//! Invariant: the offset is one that the shard has readable, or its end. A position is looked up
//! once, when the iterator is made, so that an iterator by time keeps its place.

use braid_probe::{Bug, planted};
use braid_stream::ids::{Offset, ShardId};
use braid_stream::iterator::IteratorKind;
use braid_stream::sequence::SequenceNumber;
use braid_stream::shard::Shard;

use super::{GroupReader, ReadError};

impl GroupReader {
    /// The offset at which `kind` begins now.
    pub fn position(&self, shard: ShardId, kind: IteratorKind) -> Result<Offset, ReadError> {
        let extent = self.extent(shard)?;
        let it = &extent.shard;
        let offset = match kind {
            IteratorKind::TrimHorizon => it.trimmed,
            IteratorKind::Latest if planted(Bug::LatestInsideSlice) => {
                let last = self.index.seek(self.group.id(), shard, it.next)?.filter(|entry| entry.count > 1);
                last.map_or(it.next, |entry| entry.first.advance(1))
            }
            IteratorKind::Latest => it.next,
            IteratorKind::AtSequence(number) => of_sequence(it, &number)?,
            // Where a shard begins, whether it has a record yet or not.
            IteratorKind::AfterSequence(number) if number.is_beginning() => of_sequence(it, &number)?,
            IteratorKind::AfterSequence(number) if planted(Bug::AfterLastIsAt) => {
                of_sequence(it, &number)?.advance(1).min(it.last().expect("the number is one of its own"))
            }
            IteratorKind::AfterSequence(number) => of_sequence(it, &number)?.advance(1),
            // Nothing as young as that: what comes next will be. A time that is still to come acts
            // as LATEST, as the service has it.
            IteratorKind::AtTimestamp(ms) => {
                let ms = if planted(Bug::TimestampSkipsEqual) { ms.saturating_add(1) } else { ms };
                let found = self.index.seek_time(self.group.id(), shard, ms)?;
                found.map_or(it.next, |entry| entry.first.min(it.next))
            }
        };
        Ok(extent.readable(offset))
    }

    /// The number of the record before `next`, to go on after; `None` if there never was one.
    pub fn number_before(&self, shard: ShardId, next: Offset) -> Result<Option<SequenceNumber>, ReadError> {
        let Some(last) = next.previous() else { return Ok(None) };
        let extent = self.extent(shard)?;
        let entry = self.index.seek(self.group.id(), shard, last)?;
        // A trimmed record's time is gone; its number's place, which is what counts, is not.
        let time_ms = entry.filter(|entry| entry.holds(last)).map_or(0, |entry| entry.time_ms);
        Ok(Some(extent.shard.sequence_number(last, time_ms)))
    }
}

fn of_sequence(shard: &Shard, number: &SequenceNumber) -> Result<Offset, ReadError> {
    if (number.shard_index, number.created_s) != (shard.id.index, shard.created_s) {
        return Err(ReadError::WrongSequence {
            why: format!("sequence number {number} is not one of {}", shard.id.name()),
        });
    }
    if number.offset >= shard.next && !number.is_beginning() {
        return Err(ReadError::WrongSequence {
            why: format!("sequence number {number} was not given out yet by {}", shard.id.name()),
        });
    }
    Ok(number.offset)
}

//! Where a shard's reader is, and what it has missed.
//!
//! Owns one shard's position. Pure. Its invariant: records leave in the shard's order, each at
//! most once, and a gap is counted: positions are dense, so a record that was trimmed before it
//! could be read can't go unnoticed.

use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_proto::v1;
use braid_proto::v1::ShardIteratorType as Type;
use braid_stream::sequence::SequenceNumberError as Unreadable;
use braid_stream::{Offset, SequenceNumber};

use super::{Position, Record};

pub(super) struct Cursor {
    /// Where to go on after an interruption.
    position: Position,
    /// The offset of the next record, if it is known.
    next: Option<Offset>,
}

/// Records in order, and how many before them were trimmed away unread.
pub(super) struct Accepted {
    pub records: Vec<Record>,
    pub missed: u64,
}

impl Cursor {
    pub fn new(position: Position) -> Cursor {
        let next = match position {
            Position::AtSequence(at) => Some(at.offset),
            Position::AfterSequence(at) => Some(behind(at)),
            Position::TrimHorizon | Position::Latest | Position::AtTimestamp(_) => None,
        };
        Cursor { position, next }
    }

    /// Takes what a node gave: drops what was delivered before, counts what is missing.
    pub fn accept(&mut self, given: Vec<v1::Record>) -> Result<Accepted, Unreadable> {
        let mut accepted = Accepted { records: Vec::with_capacity(given.len()), missed: 0 };
        for record in given {
            let number = SequenceNumber::parse(&record.sequence_number)?;
            let expected = self.next.unwrap_or(number.offset);
            if number.offset < expected {
                reachable!(Mark::ConsumerDropsRepeat);
                continue;
            }
            accepted.missed += number.offset.0 - expected.0;
            sometimes!(number.offset > expected, Mark::ConsumerMissed);
            self.next = Some(behind(number));
            self.position = Position::AfterSequence(number);
            accepted.records.push(Record {
                sequence_number: number,
                arrival_ms: record.approximate_arrival_timestamp_ms,
                place: None,
                partition_key: record.partition_key,
                data: record.data,
            });
        }
        Ok(accepted)
    }

    /// A node's word on where a subscription or an iterator goes on; nothing that was given by then is lost with it.
    pub fn continue_after(&mut self, number: &str) -> Result<(), Unreadable> {
        if number.is_empty() {
            // The shard never had a record: whatever comes is later than "latest" was.
            if self.position == Position::Latest && !planted(Bug::LatestNotAnchored) {
                self.position = Position::TrimHorizon;
            }
            return Ok(());
        }
        let number = SequenceNumber::parse(number)?;
        // Never back: the node may name the last record before what was delivered.
        if self.next.is_none_or(|next| number.offset >= next) {
            self.position = Position::AfterSequence(number);
            // Offsets up to this one were passed over by the node: by a time, or by "latest".
            // Those between `next` and it, if any, count as missed with the next record.
            self.next = self.next.or(Some(behind(number)));
        }
        Ok(())
    }

    /// Where to go on.
    pub fn position(&self) -> Position {
        self.position
    }
}

/// The offset behind `number`. Saturating: the number may come from anywhere.
fn behind(number: SequenceNumber) -> Offset {
    Offset(number.offset.0.saturating_add(1))
}

/// The position as the API has it: type, sequence number, timestamp.
pub(super) fn to_wire(position: Position) -> (Type, String, u64) {
    match position {
        Position::TrimHorizon => (Type::TrimHorizon, String::new(), 0),
        Position::Latest => (Type::Latest, String::new(), 0),
        Position::AtTimestamp(ms) => (Type::AtTimestamp, String::new(), ms),
        Position::AtSequence(at) => (Type::AtSequenceNumber, at.to_string(), 0),
        Position::AfterSequence(at) => (Type::AfterSequenceNumber, at.to_string(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(offset: u64) -> SequenceNumber {
        SequenceNumber { created_s: 1, shard_index: 0, offset: Offset(offset), arrival_s: 2 }
    }

    fn records(offsets: &[u64]) -> Vec<v1::Record> {
        offsets
            .iter()
            .map(|offset| v1::Record { sequence_number: number(*offset).to_string(), ..Default::default() })
            .collect()
    }

    #[test]
    fn duplicates_are_dropped_and_gaps_counted() {
        let mut cursor = Cursor::new(Position::TrimHorizon);
        let first = cursor.accept(records(&[5, 6])).unwrap();
        assert_eq!((first.records.len(), first.missed), (2, 0));
        let again = cursor.accept(records(&[5, 6, 7])).unwrap();
        assert_eq!((again.records.len(), again.missed), (1, 0));
        let later = cursor.accept(records(&[11])).unwrap();
        assert_eq!((later.records.len(), later.missed), (1, 3));
        assert_eq!(cursor.position(), Position::AfterSequence(number(11)));
    }

    #[test]
    fn a_resumed_position_knows_what_comes_next() {
        let mut after = Cursor::new(Position::AfterSequence(number(4)));
        assert_eq!(after.accept(records(&[4, 5])).unwrap().records.len(), 1);
        let mut at = Cursor::new(Position::AtSequence(number(4)));
        assert_eq!(at.accept(records(&[6])).unwrap().missed, 2);
    }

    #[test]
    fn latest_becomes_a_fixed_place() {
        let mut cursor = Cursor::new(Position::Latest);
        cursor.continue_after("").unwrap();
        assert_eq!(cursor.position(), Position::TrimHorizon);
        let mut cursor = Cursor::new(Position::Latest);
        cursor.continue_after(&number(9).to_string()).unwrap();
        assert_eq!(cursor.position(), Position::AfterSequence(number(9)));
        assert_eq!(cursor.accept(records(&[10])).unwrap().missed, 0);
    }

    /// Found by the simulator: a polling reader took its own machine's clock for the moment of "latest", and was
    /// given records from before it, or missed some, where that clock was wrong.
    #[test]
    fn an_iterators_place_holds_and_what_was_read_is_not_undone_by_a_new_one() {
        let mut cursor = Cursor::new(Position::AtTimestamp(77));
        cursor.continue_after(&number(9).to_string()).unwrap();
        assert_eq!(cursor.position(), Position::AfterSequence(number(9)));
        cursor.accept(records(&[10, 11])).unwrap();
        cursor.continue_after(&number(9).to_string()).unwrap();
        assert_eq!(cursor.position(), Position::AfterSequence(number(11)));
        assert_eq!(cursor.accept(records(&[11, 12])).unwrap().records.len(), 1);
    }
}

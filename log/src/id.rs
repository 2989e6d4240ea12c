//! The nouns of the log: log ids, votes, identities, positions.
//!
//! They are the log's own types on purpose: no consensus library's type reaches the disk. Nothing here does I/O or
//! knows the byte format (that is `frame.rs`).

use std::fmt;

/// Which entry: the term of the leader that wrote it, and its place in the group's log (the first entry has index 0).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct LogId {
    pub term: u64,
    pub index: u64,
}

impl LogId {
    pub fn new(term: u64, index: u64) -> LogId {
        LogId { term, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

/// The hard state of Raft: whom this replica voted for in its newest term, and whether that leader was elected.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Vote {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

/// Whose log this is. Kept in every segment and checkpoint, so that a directory put in the wrong place is refused.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster: [u8; 16],
    pub node: u64,
    pub group: u32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cluster ")?;
        for byte in self.cluster {
            write!(f, "{byte:02x}")?;
        }
        write!(f, " node {} group {}", self.node, self.group)
    }
}

/// The number of a segment file within its group: 1, 2, 3 …, never used twice.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SegmentSeq(pub u64);

impl SegmentSeq {
    pub(crate) fn next(self) -> SegmentSeq {
        SegmentSeq(self.0 + 1)
    }

    pub(crate) fn file_name(self) -> String {
        format!("segment-{:012}", self.0)
    }

    pub(crate) fn checkpoint_name(self) -> String {
        format!("checkpoint-{:012}", self.0)
    }

    /// `segment-000000000012` with prefix `segment-` → 12. Only the exact form the log itself writes.
    pub(crate) fn parse(name: &str, prefix: &str) -> Option<SegmentSeq> {
        let digits = name.strip_prefix(prefix)?;
        let seq = SegmentSeq(digits.parse().ok()?);
        let canonical = format!("{:012}", seq.0);
        (seq.0 > 0 && canonical == digits).then_some(seq)
    }
}

impl fmt::Display for SegmentSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A byte of the log: everything before `offset` in segment `seq`, and every segment before that one.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Position {
    pub seq: SegmentSeq,
    pub offset: u64,
}

/// The first index after `last`: 0 for an empty log.
pub(crate) fn end_of(last: Option<LogId>) -> u64 {
    last.map_or(0, |id| id.index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_not_segments() {
        let seq = SegmentSeq(12);
        assert_eq!(SegmentSeq::parse(&seq.file_name(), "segment-"), Some(seq));
        for name in ["segment-12", "segment-000000000000", "segment-00000000001x", "segment-000000000012.tmp", "lock"] {
            assert_eq!(SegmentSeq::parse(name, "segment-"), None, "{name}");
        }
    }
}

//! openraft's log storage over [`braid_log::Log`].
//!
//! Invariant: nothing is added to or taken from what the log says. `append` returns once the
//! entries are readable and reports durability later, in order; `save_vote` returns when the vote
//! and every append before it are durable; the committed mark never waits for the disk.
//!
//! Reads are capped by bytes: one AppendEntries carries at most [`RPC_BYTES_MAX`], and apply
//! streams its entries in pieces of [`APPLY_BYTES_MAX`], so that a replica that is a gigabyte
//! behind never asks for a gigabyte of memory.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use braid_log::{Log, ReadError};
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LeaderBoundedStreamError, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};

use super::raft::{Entry, LeaderId, LogId, TypeConfig, Vote, from_log_id, from_log_vote, to_log_id, to_log_vote};

/// Bytes of entries in one AppendEntries: large enough to amortize a round trip, small enough that
/// a follower's answer is never a heartbeat interval away.
pub const RPC_BYTES_MAX: usize = 2 << 20;

/// Bytes of entries that apply reads at a time.
pub const APPLY_BYTES_MAX: usize = 4 << 20;

/// The log of one replica, as openraft sees it. Clones share the log.
#[derive(Clone)]
pub struct LogStore {
    log: Log,
    /// This node.
    me: u64,
}

impl LogStore {
    /// Wraps an open log.
    pub fn new(log: Log, me: u64) -> LogStore {
        LogStore { log, me }
    }
}

fn read_failed(e: ReadError) -> io::Error {
    io::Error::other(e.to_string())
}

fn bounds(range: &impl RangeBounds<u64>, log: &Log) -> std::ops::Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => *i + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => *i + 1,
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    let first = log.first_index();
    let next = log.last_id().map_or(0, |id| id.index + 1);
    start.max(first)..end.min(next)
}

/// Reads the next piece of `range`; `None` at its end.
async fn next_piece(
    log: Log,
    range: std::ops::Range<u64>,
    bytes_max: usize,
) -> Option<(io::Result<Vec<Entry>>, std::ops::Range<u64>)> {
    if range.is_empty() {
        return None;
    }
    match log.read(range.clone(), bytes_max).await {
        Ok(entries) if entries.is_empty() => {
            let e = io::Error::other(format!("log entries {}..{} are missing inside the log", range.start, range.end));
            Some((Err(e), range.end..range.end))
        }
        Ok(entries) => {
            let next = entries[entries.len() - 1].id().index + 1;
            Some((Ok(entries.into_iter().map(Entry::from_log).collect()), next..range.end))
        }
        Err(e) => Some((Err(read_failed(e)), range.end..range.end)),
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut range = bounds(&range, &self.log);
        let mut out = Vec::new();
        while let Some((piece, rest)) = next_piece(self.log.clone(), range, APPLY_BYTES_MAX).await {
            out.extend(piece?);
            range = rest;
        }
        Ok(out)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.vote().filter(|vote| vote.committed || !planted(Bug::VoteForgotten));
        Ok(vote.map(from_log_vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let entries = self.log.read(start..end, RPC_BYTES_MAX).await.map_err(read_failed)?;
        Ok(entries.into_iter().map(Entry::from_log).collect())
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.log.clone();
        let range = bounds(&range, &log);
        let pieces = stream::unfold(range, move |range| next_piece(log.clone(), range, APPLY_BYTES_MAX));
        Box::pin(flatten(pieces))
    }

    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, LeaderBoundedStreamError<TypeConfig>>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        use futures_util::StreamExt;
        let log = self.log.clone();
        let range = bounds(&range, &log);
        let pieces = stream::unfold(range, move |range| {
            let log = log.clone();
            async move {
                if range.is_empty() {
                    return None;
                }
                let changed = |log: &Log| {
                    let vote = log.vote().map(from_log_vote);
                    let same = vote.is_some_and(|v| v.leader_id == leader && v.committed);
                    (!same).then(|| openraft::errors::LeaderChanged::new(leader, vote))
                };
                // The vote is looked at on both sides of the read: a leader that changes in the
                // middle may have truncated what was just read.
                if let Some(e) = changed(&log) {
                    return Some((vec![Err(e.into())], range.end..range.end));
                }
                let (piece, rest) = next_piece(log.clone(), range.clone(), RPC_BYTES_MAX).await?;
                if let Some(e) = changed(&log) {
                    return Some((vec![Err(e.into())], range.end..range.end));
                }
                match piece {
                    Ok(entries) => Some((entries.into_iter().map(Ok).collect::<Vec<_>>(), rest)),
                    Err(e) => Some((vec![Err(e.into())], range.end..range.end)),
                }
            }
        });
        Box::pin(pieces.map(stream::iter).flatten())
    }
}

fn flatten(pieces: impl Stream<Item = io::Result<Vec<Entry>>> + Send) -> impl Stream<Item = io::Result<Entry>> + Send {
    use futures_util::StreamExt;
    pieces
        .map(|piece| {
            stream::iter(match piece {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(e) => vec![Err(e)],
            })
        })
        .flatten()
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        Ok(LogState {
            last_purged_log_id: self.log.purged().map(from_log_id),
            last_log_id: self.log.last_id().map(from_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (before, vote) = (self.log.vote(), to_log_vote(vote));
        let led = before.is_some_and(|it| it.committed && it.node == self.me);
        sometimes!(!vote.committed && vote.node == self.me, Mark::ElectionBegun);
        sometimes!(!vote.committed && vote.node != self.me, Mark::VoteGranted);
        self.log.save_vote(vote).await?;
        if vote.committed && vote.node == self.me {
            reachable!(Mark::BecameLeader);
        }
        sometimes!(led && vote.node != self.me, Mark::SteppedDown);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        match committed {
            Some(id) => self.log.save_committed(to_log_id(id)),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        // The log clamps it to its last entry: openraft would otherwise purge up to it.
        Ok(self.log.committed().map(from_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(Entry::into_log).collect();
        if planted(Bug::FlushedTooEarly) {
            callback.io_completed(Ok(()));
            return self.log.append(entries, Box::new(|_| ()));
        }
        self.log.append(entries, Box::new(move |result| callback.io_completed(result)))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last_log_id.map(|id| id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.log.purge(to_log_id(log_id)).await
    }
}

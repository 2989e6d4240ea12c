//! Which shards a listing of a stream names, by when they were open.
//!
//! Invariant: a shard that is closed is not listed once all of its records are past the stream's retention; at every
//! moment that is still kept, the shards that were open tile the hash space.
//!
//! ```text
//!  parent   ├───────────────┤                    open from its parents' end to its own: both ends are one moment,
//!  children                 ├────────────▶       when the last of the parents was sealed, or later: no end is before
//!                                                the beginning
//! ```
//! A creation second says less: it is whole, and made greater than the parents' where those are as young.
//!
//! Not here: pages and their tokens, and where a shard's leader is.

use braid_probe::{Bug, planted};

use crate::catalog::{Stream, StreamShard};
use crate::shard::ShardState;

/// Which shards are wanted. Times are milliseconds since the Unix epoch.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ShardFilter {
    /// All that are kept.
    All,
    /// Those with a greater index.
    After(u32),
    /// Those that were open when the oldest records that are kept arrived.
    AtTrimHorizon,
    /// Those, and all since.
    FromTrimHorizon,
    /// Those that are open.
    AtLatest,
    /// Those that were open then; at the trim horizon, if that is later.
    AtTimestamp(u64),
    /// Those, and all since.
    FromTimestamp(u64),
}

/// When a shard was open: since then, and until then; `None` while it is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub since_ms: u64,
    pub until_ms: Option<u64>,
}

impl Stream {
    /// The shards that are wanted, by index.
    pub fn listed(&self, filter: ShardFilter, now_ms: u64) -> impl Iterator<Item = (u32, &StreamShard)> {
        let horizon = now_ms.saturating_sub(self.retention_ms);
        let wanted = move |index: u32, span: Span| {
            let until = span.until_ms;
            if until.is_some_and(|until| until <= horizon) {
                return false;
            }
            let open_at = |ms: u64| span.since_ms <= ms && until.is_none_or(|until| ms < until);
            match filter {
                ShardFilter::All | ShardFilter::FromTrimHorizon => true,
                ShardFilter::After(after) => index > after,
                ShardFilter::AtTrimHorizon => open_at(horizon),
                ShardFilter::AtLatest => until.is_none(),
                // What is open now is open at a time to come, as far as is known.
                ShardFilter::AtTimestamp(ms) if ms >= now_ms => until.is_none(),
                ShardFilter::AtTimestamp(ms) => open_at(ms.max(horizon)),
                ShardFilter::FromTimestamp(ms) => until.is_none_or(|until| ms < until),
            }
        };
        let shards = self.shards.values().zip(self.spans());
        shards.filter(move |&(_, (index, span))| wanted(index, span)).map(|(shard, (index, _))| (index, shard))
    }

    /// When each of the shards was open, in the order of their indexes: until its place was taken by its children, and
    /// no record of it arrived later. 0 is since when a stream's first shards are open, and those whose parents are
    /// forgotten: all that is kept arrived later.
    ///
    /// Each group seals by its own time. A shard whose group's clock is behind its parents' may be sealed, by these
    /// times, before it was opened: then it was never open, and nothing is open twice (seed 310000123).
    pub(crate) fn spans(&self) -> Vec<(u32, Span)> {
        let mut spans: Vec<(u32, Span)> = Vec::with_capacity(self.shards.len());
        for (&index, shard) in &self.shards {
            // Parents have smaller indexes than their children.
            let place = |parent: u32| spans.binary_search_by_key(&parent, |it| it.0).ok();
            let parents = shard.parents.map(|parent| parent.and_then(place));
            let ended = parents.into_iter().flatten().filter_map(|parent| spans[parent].1.until_ms);
            let since_ms = ended.max().unwrap_or(0);
            // The two parents of a merge are sealed one after the other, and the child takes both places at once.
            for parent in parents.into_iter().flatten().filter(|_| !planted(Bug::OpenUntilSealed)) {
                if let Some(until) = &mut spans[parent].1.until_ms {
                    *until = since_ms;
                }
            }
            let until_ms = match shard.state {
                ShardState::Closed { at_ms, .. } if planted(Bug::ClosedBeforeOpen) => Some(at_ms),
                ShardState::Closed { at_ms, .. } => Some(at_ms.max(since_ms)),
                ShardState::Open => None,
            };
            spans.push((index, Span { since_ms, until_ms }));
        }
        spans
    }
}

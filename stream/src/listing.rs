//! Which shards a listing of a stream names, by when they were open.
//!
//! Invariant: a shard that is closed is not listed once all of its records are past the stream's retention; at every
//! moment that is still kept, the shards that were open tile the hash space.
//!
//! ```text
//!  parent   ├───────────────┤                    open from its parents' end to its own: both ends are one moment,
//!  children                 ├────────────▶       when the last of the parents was sealed
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

impl Stream {
    /// The shards that are wanted, by index.
    pub fn listed(&self, filter: ShardFilter, now_ms: u64) -> impl Iterator<Item = (u32, &StreamShard)> {
        let horizon = now_ms.saturating_sub(self.retention_ms);
        let wanted = move |index: u32, shard: &StreamShard| {
            let until = self.open_until(shard);
            if until.is_some_and(|until| until <= horizon) {
                return false;
            }
            let open_at = |ms: u64| self.open_from(shard) <= ms && until.is_none_or(|until| ms < until);
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
        self.shards.iter().map(|(&index, shard)| (index, shard)).filter(move |(index, shard)| wanted(*index, shard))
    }

    /// When a shard's place was taken by its children; `None` while it is open. No record of it arrived later.
    pub fn open_until(&self, shard: &StreamShard) -> Option<u64> {
        let ShardState::Closed { at_ms, children, .. } = &shard.state else { return None };
        let child = children.first().and_then(|index| self.shards.get(index));
        let child = child.filter(|_| !planted(Bug::OpenUntilSealed));
        // The two parents of a merge are sealed one after the other, and the child takes both places at once.
        Some(child.map_or(*at_ms, |child| self.open_from(child).max(*at_ms)))
    }

    /// Since when it takes records. 0 for a stream's first shards, and for those whose parents are forgotten: all that
    /// is kept arrived later.
    fn open_from(&self, shard: &StreamShard) -> u64 {
        let parents = shard.parents.iter().flatten().filter_map(|index| self.shards.get(index));
        let sealed = parents.filter_map(|parent| match &parent.state {
            ShardState::Closed { at_ms, .. } => Some(*at_ms),
            ShardState::Open => None,
        });
        sealed.max().unwrap_or(0)
    }
}

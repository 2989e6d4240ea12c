//! Retention: records older than their stream's retention become unreadable, then their log goes.
//!
//! The leader of a group looks up, per shard, the first record that is young enough, and proposes
//! that as a trim. Every replica that has applied it drops whole segments below.
//!
//! Invariant: how old a record is, the leader's clock says, which goes by the zones' (`crate::clock`): no node's wall
//! clock alone makes a record old.

use braid_probe::{Mark, reachable};
use braid_stream::command::{GroupCommand, ShardTrim, Trim};
use braid_stream::ids::GroupId;

use crate::clock::NodeClock;
use crate::index::{IndexError, RecordIndex};
use crate::replication::{GroupHandle, Groups};

/// One round over every group of this node.
pub async fn run(groups: &Groups, index: &dyn RecordIndex, clock: &NodeClock) {
    for replica in groups.all() {
        let Some(handle) = groups.get(replica.id()) else { continue };
        if handle.is_leader() {
            match plan(&handle, index, clock.now_ms()) {
                Ok(Some(trim)) => {
                    reachable!(Mark::TrimProposed);
                    if let Err(e) = handle.propose(GroupCommand::Trim(trim)).await {
                        tracing::info!(group = handle.id().0, "trim not applied: {e}");
                    }
                }
                Ok(None) => {}
                Err(e) => tracing::warn!(group = handle.id().0, "nothing trimmed: {e}"),
            }
        }
        if let Some(through) = handle.state(|g| g.trimmed_through())
            && let Err(e) = handle.replica().purge_before(through).await
        {
            tracing::warn!(group = handle.id().0, "log not purged: {e}");
        }
    }
}

/// What can be trimmed now; `None` if nothing is old enough.
fn plan(handle: &GroupHandle, index: &dyn RecordIndex, now_ms: u64) -> Result<Option<Trim>, IndexError> {
    let group: GroupId = handle.id();
    let (shards, applied) = handle.state(|g| {
        let shards: Vec<_> = g.shards().map(|s| (s.id, s.trimmed, s.next, s.retention_ms)).collect();
        (shards, g.applied())
    });
    let mut trims = Vec::new();
    // The log may go up to the entry before the first that still holds a readable record.
    let mut through = applied;
    for (shard, trimmed, next, retention_ms) in shards {
        if trimmed == next {
            continue;
        }
        let oldest_kept_ms = now_ms.saturating_sub(retention_ms);
        let first_kept = index.seek_time(group, shard, oldest_kept_ms)?;
        let below = first_kept.map_or(next, |entry| entry.first.max(trimmed));
        if below > trimmed {
            trims.push(ShardTrim { shard, below });
        }
        if let Some(entry) = first_kept {
            through = through.map(|t| t.min(entry.log_index.saturating_sub(1)));
        }
    }
    if trims.is_empty() {
        return Ok(None);
    }
    Ok(Some(Trim { at_ms: now_ms, through, shards: trims }))
}

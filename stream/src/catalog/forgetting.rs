//! Shards that are gone: closed, with all of their records past retention. Else state would grow with every split and
//! merge for ever.
//!
//! ```text
//!  closed ─▶ past retention: not listed ─▶ forgotten here ─▶ its group forgets it ─▶ nothing is left
//! ```
//!
//! Invariant: parents are forgotten before their children, so a closed shard's children are always known. Who still
//! holds an iterator of a shard is told that it is gone; a child's link to it stays, and leads nowhere.
//!
//! Not here: who asks, and how long after retention (`node`'s control).

use std::collections::{BTreeMap, BTreeSet};

use braid_probe::{Bug, planted};

use super::change::Change;
use super::stream::{Stream, StreamStatus};
use super::{Catalog, CatalogReply, ForgetError, StreamError};
use crate::catalog_command::{ForgetShards, ShardsForgotten};
use crate::ids::{GroupId, StreamId};
use crate::limits::TIME_MS_MAX;
use crate::listing::Span;

impl Catalog {
    /// Of each stream, the shards whose records all were past retention `grace_ms` ago; at most `most` of each, in the
    /// order in which they can be forgotten.
    pub fn forgettable(&self, now_ms: u64, grace_ms: u64, most: usize) -> BTreeMap<StreamId, Vec<u32>> {
        let at_ms = now_ms.saturating_sub(grace_ms);
        let of = |stream: &Stream| {
            let mut found: Vec<u32> = Vec::new();
            for (shard, (index, span)) in stream.shards.values().zip(stream.spans()) {
                if found.len() == most {
                    break;
                }
                let mut parents = shard.parents.iter().flatten().filter(|it| stream.shards.contains_key(it));
                if is_past(stream, span, at_ms) && parents.all(|it| found.contains(it)) {
                    found.push(index);
                }
            }
            (stream.id, found)
        };
        let serving = self.streams.values().filter(|it| is_serving(it));
        serving.map(of).filter(|(_, found)| !found.is_empty()).collect()
    }

    /// The indexes of shards that a split or merge which is under way makes.
    pub fn to_come(&self, stream: StreamId) -> BTreeSet<u32> {
        match self.change(stream) {
            Some(Change::Reshard(steps)) => steps.iter().flat_map(|step| step.children.keys().copied()).collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Whether the stream had a shard of this index, and it is forgotten.
    pub fn has_forgotten(&self, stream: &Stream, index: u32) -> bool {
        index < stream.next_shard && !stream.shards.contains_key(&index) && !self.to_come(stream.id).contains(&index)
    }

    /// Shards that are forgotten here, and that their groups may still have.
    pub fn forgetting(&self) -> &BTreeMap<StreamId, BTreeMap<u32, GroupId>> {
        &self.forgetting
    }

    /// All of them or none. Those that are gone already change nothing.
    pub(super) fn forget_shards(&mut self, command: &ForgetShards) -> Result<CatalogReply, StreamError> {
        let ForgetShards { at_ms, stream: id, shards } = command;
        let now_ms = self.last_time_ms.max((*at_ms).min(TIME_MS_MAX));
        let stream = self.streams.get_mut(id).ok_or(StreamError::NoSuchStream { stream: *id })?;
        if !is_serving(stream) {
            return Err(StreamError::Status { stream: *id, status: stream.status });
        }
        let spans: BTreeMap<u32, Span> = stream.spans().into_iter().collect();
        for (nth, &index) in shards.iter().enumerate() {
            let shard = stream.shard_id(index);
            let Some(known) = stream.shards.get(&index) else {
                match index < stream.next_shard {
                    true => continue,
                    false => return Err(ForgetError::NoSuchShard { shard }.into()),
                }
            };
            if !is_past(stream, spans[&index], now_ms) {
                return Err(ForgetError::Kept { shard }.into());
            }
            let parents = known.parents.iter().flatten().filter(|it| stream.shards.contains_key(it));
            if let Some(&parent) = parents.clone().find(|it| !shards[..nth].contains(it)) {
                return Err(ForgetError::ParentKept { shard, parent: stream.shard_id(parent) }.into());
            }
        }
        let gone = shards.iter().filter_map(|index| Some((*index, stream.shards.remove(index)?.group)));
        let gone: BTreeMap<u32, GroupId> = gone.collect();
        if !gone.is_empty() {
            self.forgetting.entry(*id).or_default().extend(gone);
        }
        self.last_time_ms = now_ms;
        Ok(CatalogReply::ShardsForgotten { stream: *id })
    }

    pub(super) fn shards_forgotten(&mut self, command: &ShardsForgotten) -> CatalogReply {
        let ShardsForgotten { stream, shards } = command;
        if let Some(forgetting) = self.forgetting.get_mut(stream) {
            forgetting.retain(|index, _| !shards.contains(index));
            if forgetting.is_empty() {
                self.forgetting.remove(stream);
            }
        }
        CatalogReply::ShardsForgotten { stream: *stream }
    }
}

fn is_serving(stream: &Stream) -> bool {
    matches!(stream.status, StreamStatus::Active | StreamStatus::Updating)
}

/// Whether a shard that was open then is closed, and at `at_ms` all of its records were past retention.
fn is_past(stream: &Stream, open: Span, at_ms: u64) -> bool {
    let kept_ms = if planted(Bug::ForgottenEarly) { stream.retention_ms / 2 } else { stream.retention_ms };
    open.until_ms.is_some_and(|until| until.saturating_add(kept_ms) <= at_ms)
}

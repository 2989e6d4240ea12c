//! Streams on their way to a number of shards: the whole plan is made when it is asked for, and what is left of it stands
//! in the catalog until its last step is committed.
//!
//! ```text
//!  asked for ─▶ plan ─▶ the steps that can be done at once ─▶ each committed ─▶ the next ones ─▶ … ─▶ ACTIVE
//! ```
//!
//! Invariant: a scaling's stream is UPDATING, and some of its steps are under way as a change (`change.rs`). So whoever
//! leads the catalog carries out that change and needs to know of nothing else; and nobody else's change comes between.
//!
//! Not here: which steps those are (`scale.rs`). A deletion ends a scaling where it is.

use braid_probe::{Bug, planted};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::stream::{Stream, StreamMode, StreamStatus};
use super::{Catalog, CatalogReply, ReshardError, ShardCountError, StreamError};
use crate::autoscale::Bounds;
use crate::catalog_command::{Reshape, SetAutoscale, SetShardCount};
use crate::hash::HashRange;
use crate::ids::StreamId;
use crate::limits::{
    SHARD_COUNT_CALLS, SHARD_COUNT_CALLS_MS, SHARDS_ON_DEMAND, SHARDS_ON_DEMAND_MAX, SHARDS_PER_STREAM_MAX,
    STEPS_AT_ONCE, TIME_MS_MAX,
};
use crate::scale::{self, Step};

/// What is left to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Scaling {
    /// Open shards in the end.
    pub target: u32,
    /// Steps that were planned, those that are done included.
    pub planned: u32,
    /// Not begun, in the plan's order.
    waiting: Vec<Step>,
}

impl Scaling {
    pub(super) fn of(target: u32, steps: Vec<Step>) -> Scaling {
        Scaling { target, planned: steps.len() as u32, waiting: steps }
    }
}

/// How far a scaling is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Open shards in the end.
    pub target: u32,
    /// Splits and merges that were planned.
    pub planned: usize,
    /// Those of them that are not committed.
    pub left: usize,
}

impl Catalog {
    /// How far a stream is on its way to a number of shards; `None` if it is on none.
    pub fn scaling(&self, stream: StreamId) -> Option<Progress> {
        let scaling = self.scalings.get(&stream)?;
        let under_way = match self.change(stream) {
            Some(Change::Reshard(steps)) => steps.len(),
            _ => 0,
        };
        let left = scaling.waiting.len() + under_way;
        Some(Progress { target: scaling.target, planned: scaling.planned as usize, left })
    }

    /// Streams that scale by load, and within which bounds.
    pub fn autoscaled(&self) -> impl Iterator<Item = (StreamId, Bounds)> {
        self.streams.keys().filter_map(|id| Some((*id, self.autoscale(*id)?)))
    }

    /// Within which bounds a stream scales by load; `None` if it does not. In on-demand mode it always does: within
    /// bounds of its own, or narrower ones that were set. So the mode alone says whether, and nothing has to agree with it.
    pub fn autoscale(&self, stream: StreamId) -> Option<Bounds> {
        let set = self.autoscale.get(&stream).copied();
        set.or_else(|| match self.streams.get(&stream)? {
            it if it.mode == StreamMode::OnDemand => {
                let open = u32::try_from(open(it).len()).unwrap_or(u32::MAX);
                Some(Bounds { min: SHARDS_ON_DEMAND, max: open.clamp(SHARDS_ON_DEMAND_MAX, SHARDS_PER_STREAM_MAX) })
            }
            _ => None,
        })
    }

    pub(super) fn set_autoscale(&mut self, command: &SetAutoscale) -> Result<CatalogReply, StreamError> {
        let SetAutoscale { stream: id, bounds } = *command;
        let stream = self.stream_mut(id)?;
        if stream.status == StreamStatus::Deleting {
            return Err(StreamError::Status { stream: id, status: stream.status });
        }
        match bounds {
            Some(bounds) => {
                bounds.check().map_err(ShardCountError::Bounds)?;
                self.autoscale.insert(id, bounds);
            }
            None => drop(self.autoscale.remove(&id)),
        }
        Ok(CatalogReply::AutoscaleSet { stream: id })
    }

    pub(super) fn set_shard_count(&mut self, command: &SetShardCount) -> Result<CatalogReply, StreamError> {
        let id = command.stream;
        let now_ms = self.last_time_ms.max(command.at_ms.min(TIME_MS_MAX));
        let stream = self.stream_mut(id)?;
        if stream.status != StreamStatus::Active {
            return Err(StreamError::Status { stream: id, status: stream.status });
        }
        let steps = plan(stream, command)?;
        let calls = match command.counted {
            true => Some(self.one_more_call(id, now_ms)?),
            false => None,
        };
        let done = steps.is_empty();
        if !done {
            let scaling = self.begin_ready(id, Scaling::of(command.shards, steps), now_ms)?;
            self.scalings.insert(id, scaling);
        }
        // Nothing is refused from here on.
        if let Some(calls) = calls {
            self.shard_count_calls.insert(id, calls);
        }
        self.last_time_ms = now_ms;
        Ok(match done {
            true => CatalogReply::StreamActive { stream: id },
            false => CatalogReply::StreamUpdating { stream: id },
        })
    }

    /// The day's calls with this one, if there may be one more.
    fn one_more_call(&self, id: StreamId, now_ms: u64) -> Result<Vec<u64>, ShardCountError> {
        let known = self.shard_count_calls.get(&id).into_iter().flatten().copied();
        let mut calls: Vec<u64> = known.filter(|at_ms| now_ms - at_ms < SHARD_COUNT_CALLS_MS).collect();
        if let Some(oldest) = calls.first().filter(|_| calls.len() >= SHARD_COUNT_CALLS) {
            return Err(ShardCountError::Calls { retry_after_ms: oldest + SHARD_COUNT_CALLS_MS - now_ms });
        }
        calls.push(now_ms);
        Ok(calls)
    }

    /// After the commit of the last step that was under way: the next ones, if there are any.
    pub(super) fn scale_on(&mut self, id: StreamId, at_ms: u64) {
        let Some(scaling) = self.scalings.remove(&id) else { return };
        // That there is an index for every child was seen when it was planned. Should there be no creation second left
        // (in the year 4147), it ends here, and the stream is ACTIVE.
        if !scaling.waiting.is_empty()
            && !planted(Bug::ScalePlanDropped)
            && let Ok(scaling) = self.begin_ready(id, scaling, at_ms)
        {
            self.scalings.insert(id, scaling);
        }
    }

    /// Begins those of its steps that can be carried out now; gives it with the others.
    fn begin_ready(&mut self, id: StreamId, mut scaling: Scaling, at_ms: u64) -> Result<Scaling, StreamError> {
        let stream = self.stream_mut(id)?;
        let ready = scale::ready(&open(stream), &scaling.waiting, STEPS_AT_ONCE);
        assert!(!ready.is_empty(), "the first step of a plan can always be carried out");
        let shapes: Vec<Reshape> = ready.iter().map(|&nth| shape(stream, &scaling.waiting[nth])).collect();
        self.begin(id, &shapes, at_ms)?;
        let mut nth = 0..;
        scaling.waiting.retain(|_| nth.next().is_some_and(|nth| ready.binary_search(&nth).is_err()));
        Ok(scaling)
    }
}

/// The steps, all of which there is room for.
fn plan(stream: &Stream, command: &SetShardCount) -> Result<Vec<Step>, StreamError> {
    let open = open(stream);
    let (now, shards) = (open.len() as u32, command.shards);
    let steps = scale::plan_with(command.shares, &open, shards).map_err(ShardCountError::Plan)?;
    if command.within_factor && (shards > now.saturating_mul(2) || shards < now.div_ceil(2)) {
        return Err(ShardCountError::Factor { open: now, shards }.into());
    }
    let children: usize = steps.iter().map(|step| step.makes().count()).sum();
    match u32::try_from(children).ok().and_then(|children| stream.next_shard.checked_add(children)) {
        Some(_) => Ok(steps),
        None => Err(ReshardError::Exhausted { stream: stream.id }.into()),
    }
}

fn open(stream: &Stream) -> Vec<HashRange> {
    stream.shards.values().filter(|shard| shard.is_open()).map(|shard| shard.range).collect()
}

/// A step by its shards' indexes.
fn shape(stream: &Stream, step: &Step) -> Reshape {
    let index = |range: HashRange| {
        let found = stream.shards.iter().find(|(_, shard)| shard.is_open() && shard.range == range);
        *found.expect("a step that is ready is of open shards").0
    };
    match *step {
        Step::Split { range, at } => Reshape::Split { shard: index(range), at },
        Step::Merge { lower, upper } => Reshape::Merge { shard: index(lower), adjacent: index(upper) },
    }
}

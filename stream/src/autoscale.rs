//! When a stream that wants it gets more shards or fewer: the decision, from what is asked of its shards.
//!
//! ```text
//!  demand of the last minute, at its least  > HIGH of what the shards may take   ─▶ more, at once
//!  demand of the last half hour, at its most ≤ target of fewer shards            ─▶ fewer, after a long quiet time
//! ```
//!
//! Invariant: a load that repeats within [`DOWN_WINDOW`] is never followed down: fewer shards have to bear the greatest
//! demand of that time, and more are asked for only when it is exceeded again. So a sawtooth costs one change and then
//! none, whatever its height.
//!
//! Not here: who measures and who carries it out; when, callers say (monotonic time). A new leader of the catalog knows
//! no history: it begins a new window, and scales up after a minute, down after half an hour.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::SHARDS_PER_STREAM_MAX;

/// What a stream's demand is to be of what its shards may take, in percent, after a change.
pub const TARGET_PERCENT: u64 = 60;

/// Above it for a whole [`UP_WINDOW`], there are too few.
pub const HIGH_PERCENT: u64 = 80;

/// A load that is gone within a minute is none to change shards for: writers wait for longer.
pub const UP_WINDOW: Duration = Duration::from_secs(60);

/// Merging is worth it for a load that is gone for good, and costs the next peak dearly.
pub const DOWN_WINDOW: Duration = Duration::from_secs(30 * 60);

/// After a change its leaders count anew; nothing is decided before they have seen a minute.
pub const COOL_DOWN: Duration = Duration::from_secs(120);

/// Fewer only if it is at least a quarter fewer: shares of all shards move.
const DOWN_AT_LEAST: u64 = 4;

/// What a stream asks for.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bounds {
    /// Open shards at least.
    pub min: u32,
    /// And at most.
    pub max: u32,
}

impl Bounds {
    pub fn check(&self) -> Result<(), BoundsError> {
        let Bounds { min, max } = *self;
        match (1..=max).contains(&min) && max <= SHARDS_PER_STREAM_MAX {
            true => Ok(()),
            false => Err(BoundsError { min, max }),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BoundsError {
    pub min: u32,
    pub max: u32,
}

impl fmt::Display for BoundsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BoundsError { min, max } = self;
        write!(f, "{min} to {max} shards are no bounds: ascending, 1 to {SHARDS_PER_STREAM_MAX}")
    }
}

impl std::error::Error for BoundsError {}

/// What was asked of a stream's open shards at some moment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Demand {
    pub open: u32,
    /// Refused records included, summed over the shards, in percent of what one may take: 250 is two and a half shards'
    /// worth.
    pub percent: u64,
}

/// What to do, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    Stay(Stay),
    /// To so many shards.
    Scale {
        to: u32,
        why: Why,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stay {
    /// A change was made so short a while ago.
    CoolingDown { left: Duration },
    /// It has what its bounds allow, or what its demand wants.
    Enough,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// The bounds were changed, or somebody scaled by hand.
    OutOfBounds { open: u32 },
    /// All of the last minute more than [`HIGH_PERCENT`].
    High { open: u32, percent: u64 },
    /// Nothing in the last half hour was above this.
    Low { open: u32, percent: u64 },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::OutOfBounds { open } => write!(f, "its {open} shards are out of the bounds it sets"),
            Why::High { open, percent } => write!(
                f,
                "for {} s, {open} shards were asked for {percent}% of one shard's limits or more, above {HIGH_PERCENT}% of \
                 what they may take",
                UP_WINDOW.as_secs()
            ),
            Why::Low { open, percent } => write!(
                f,
                "for {} min, {open} shards were asked for {percent}% of one shard's limits at most",
                DOWN_WINDOW.as_secs() / 60
            ),
        }
    }
}

/// One stream's. Bounded: what is older than [`DOWN_WINDOW`] is gone, and what can't matter any more before.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    since: Duration,
    changed: Option<Duration>,
    /// What the last minute saw, oldest first.
    recent: VecDeque<(Duration, u64)>,
    /// Falling: of what the window saw, that than which nothing later was greater.
    peaks: VecDeque<(Duration, u64)>,
}

impl Autoscaler {
    pub fn new(now: Duration) -> Autoscaler {
        Autoscaler { since: now, changed: None, recent: VecDeque::new(), peaks: VecDeque::new() }
    }

    /// Takes what is seen now, and decides. A decision to scale counts as carried out.
    pub fn decide(&mut self, now: Duration, bounds: Bounds, demand: Demand) -> Decision {
        self.see(now, demand.percent);
        let Demand { open, .. } = demand;
        let left = self.changed.map_or(Duration::ZERO, |changed| (changed + COOL_DOWN).saturating_sub(now));
        if left > Duration::ZERO {
            return Decision::Stay(Stay::CoolingDown { left });
        }
        match self.wanted(now, bounds, open) {
            Some((to, why)) if to != open => {
                self.changed = Some(now);
                Decision::Scale { to, why }
            }
            _ => Decision::Stay(Stay::Enough),
        }
    }

    fn wanted(&self, now: Duration, bounds: Bounds, open: u32) -> Option<(u32, Why)> {
        let within = |shards: u64| (shards.max(1).min(u64::from(u32::MAX)) as u32).clamp(bounds.min, bounds.max);
        if !(bounds.min..=bounds.max).contains(&open) {
            return Some((within(u64::from(open)), Why::OutOfBounds { open }));
        }
        let seen = |window: Duration| now.saturating_sub(self.since) >= window;
        let least = self.recent.iter().map(|(_, percent)| *percent).min().unwrap_or(0);
        if seen(UP_WINDOW) && least > u64::from(open) * HIGH_PERCENT {
            // For the most that was seen: what rises goes on rising.
            let peak = self.recent.iter().map(|(_, percent)| *percent).max().unwrap_or(least);
            return Some((within(peak.div_ceil(TARGET_PERCENT)), Why::High { open, percent: least }));
        }
        let peak = self.peaks.front().map_or(0, |(_, percent)| *percent);
        let fewer = peak.div_ceil(TARGET_PERCENT);
        let worth_it = fewer * DOWN_AT_LEAST <= u64::from(open) * (DOWN_AT_LEAST - 1);
        (seen(DOWN_WINDOW) && worth_it).then(|| (within(fewer), Why::Low { open, percent: peak }))
    }

    fn see(&mut self, now: Duration, percent: u64) {
        self.recent.push_back((now, percent));
        while self.recent.front().is_some_and(|(at, _)| now.saturating_sub(*at) > UP_WINDOW) {
            self.recent.pop_front();
        }
        while self.peaks.back().is_some_and(|(_, before)| *before <= percent) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, percent));
        while self.peaks.front().is_some_and(|(at, _)| now.saturating_sub(*at) > DOWN_WINDOW) {
            self.peaks.pop_front();
        }
    }
}

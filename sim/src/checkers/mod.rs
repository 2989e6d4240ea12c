//! The judges, one file each: every promise to clients, and the invariants within the cluster.
//!
//! ```text
//!  History (what clients saw) ──▶ ALL, one after the other ──▶ violations
//!  facts from inside (digests, terms, logs) ──▶ replicas, terms, agreement ──▶ violations
//! ```
//! Invariant: a correct cluster raises no violation, whatever faults struck it and whatever its clients
//! did. Where the contract leaves something open (an unknown outcome, an order among concurrent calls, a
//! clock within its bounds) so does the checker.

pub mod acked;
pub mod agreement;
pub mod answers;
mod begin;
pub mod behind;
pub mod durable;
pub mod final_reads;
pub mod iterators;
pub mod kept;
pub mod leases;
pub mod liveness;
pub mod members;
pub mod order;
pub mod ranges;
pub mod rates;
pub mod refused;
pub mod replicas;
pub mod rest;
pub mod retention;
pub mod routing;
pub mod sent;
pub mod sequence;
pub mod session;
pub mod settings;
pub mod streams;
pub mod terms;
pub mod timestamps;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::history::{At, History, Ns, ShardView};

/// Violations kept of one checker; one is enough to fail, some more to see the pattern.
const KEPT: usize = 20;

/// What a checker has to know of a run besides its history.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What true wall clocks show when the run begins, ms since the epoch.
    pub epoch_ms: u64,
    /// No node's clock is ever further ahead of the truth than this.
    pub ahead_ms: u64,
    /// No node's clock is ever further behind the truth than this.
    pub behind_ms: u64,
    /// No monotonic clock runs faster than the truth by more than this, in parts per million.
    pub drift_ppm: u64,
    /// Retention of a stream that was created without one.
    pub retention_ms: u64,
    /// After faults have stopped, everything works within this.
    pub liveness: Duration,
    /// Whether the nodes enforce the shards' rates.
    pub throttled: bool,
    /// When some group got another leader, if that is known.
    pub elections: Option<Vec<At>>,
    /// Whether stored bytes may have been damaged, so that a node may say so.
    pub damaged: bool,
}

impl Bounds {
    /// Clocks that are right, no damage, the defaults of a cluster.
    pub fn exact(epoch_ms: u64) -> Bounds {
        Bounds {
            epoch_ms,
            ahead_ms: 0,
            behind_ms: 0,
            drift_ppm: 0,
            retention_ms: braid_stream::limits::RETENTION_MS_DEFAULT,
            liveness: Duration::from_secs(30),
            throttled: true,
            elections: Some(Vec::new()),
            damaged: false,
        }
    }

    /// No node's clock shows more than this at `at`.
    pub fn clock_max_ms(&self, at: At) -> u64 {
        // Saturating: the end of a call that never came back is far away.
        self.epoch_ms.saturating_add(at.ns / 1_000_000).saturating_add(self.ahead_ms + 1)
    }

    /// No node's clock shows less than this at `at`.
    pub fn clock_min_ms(&self, at: At) -> u64 {
        self.epoch_ms.saturating_add(at.ns / 1_000_000).saturating_sub(self.behind_ms + 1)
    }

    /// Records of the shard below this offset may have been trimmed by `at`.
    pub fn trimmed_by(&self, history: &History, stream: &str, view: &ShardView, at: At) -> u64 {
        let (retention_ms, now_ms) = (self.retention_of(history, stream), self.clock_max_ms(at));
        // Also of what nobody saw, nothing is older than the run.
        match self.clock_min_ms(At { ns: 0, nth: 0 }).saturating_add(retention_ms) >= now_ms {
            true => 0,
            false => view.may_be_trimmed(retention_ms, now_ms),
        }
    }

    /// How long a stream's records are kept at the least, for every life its name had and whatever was set.
    pub fn retention_of(&self, history: &History, stream: &str) -> u64 {
        let asked = history.creations(stream).filter_map(|create| match create.call {
            crate::history::Admin::Create { retention_ms, .. } => Some(retention_ms),
            _ => None,
        });
        let kept = asked.map(|ms| if ms == 0 { self.retention_ms } else { ms });
        // What was trimmed while it was shorter does not come back.
        kept.chain(history.retentions(stream)).min().unwrap_or(self.retention_ms)
    }
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The name of the checker that saw it.
    pub checker: &'static str,
    /// What is wrong, in one sentence.
    pub what: String,
    /// When it showed, where that can be said.
    pub at: Option<At>,
    /// The calls and records that prove it, a line each.
    pub evidence: Vec<String>,
}

impl Violation {
    pub fn new(checker: &'static str, what: impl fmt::Display) -> Violation {
        Violation { checker, what: what.to_string(), at: None, evidence: Vec::new() }
    }

    pub fn at(mut self, at: At) -> Violation {
        self.at = Some(at);
        self
    }

    pub fn because(mut self, evidence: impl fmt::Display) -> Violation {
        self.evidence.push(evidence.to_string());
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.checker, self.what)?;
        if let Some(at) = self.at {
            write!(f, " (seen at {at})")?;
        }
        for line in &self.evidence {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// A checker of histories.
pub struct Checker {
    pub name: &'static str,
    /// What it holds the cluster to, in one sentence.
    pub promise: &'static str,
    pub check: fn(&History, &Bounds) -> Vec<Violation>,
}

/// Every checker of histories, in the order in which a reader should look at what they say.
pub const ALL: &[Checker] = &[
    acked::CHECKER,
    refused::CHECKER,
    sent::CHECKER,
    sequence::CHECKER,
    order::CHECKER,
    ranges::CHECKER,
    routing::CHECKER,
    session::CHECKER,
    iterators::CHECKER,
    timestamps::CHECKER,
    retention::CHECKER,
    rates::CHECKER,
    behind::CHECKER,
    final_reads::CHECKER,
    liveness::CHECKER,
    streams::CHECKER,
    answers::CHECKER,
];

/// The names of the checkers that look inside; they are fed while a run goes on, or at its end.
pub const INSIDE: &[(&str, &str)] = &[
    (replicas::NAME, replicas::PROMISE),
    (terms::NAME, terms::PROMISE),
    (durable::NAME, durable::PROMISE),
    (kept::NAME, kept::PROMISE),
    (leases::NAME, leases::PROMISE),
    (agreement::NAME, agreement::PROMISE),
    (members::NAME, members::PROMISE),
    (settings::NAME, settings::PROMISE),
    (rest::NAME, rest::PROMISE),
];

/// What [`ALL`] find; of each at most so many that the last one says how many more there are.
pub fn check_all(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let mut found = Vec::new();
    for checker in ALL {
        let mut violations = (checker.check)(history, bounds);
        let more = violations.len().saturating_sub(KEPT);
        violations.truncate(KEPT);
        if let (1.., Some(last)) = (more, violations.last_mut()) {
            last.evidence.push(format!("… and {more} more of this kind"));
        }
        found.extend(violations);
    }
    found
}

/// A duration in words.
fn ms(ns: Ns) -> String {
    format!("{} ms", ns / 1_000_000)
}

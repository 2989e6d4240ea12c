//! What the code under test says of itself: marks passed, conditions broken, replicated states.
//!
//! Invariant: listening changes nothing, but that a mark may be what a crash waited for.
//!
//! Without the feature `probe` nothing is heard: production code then has no marks.

#![cfg_attr(not(feature = "probe"), allow(dead_code))]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use braid_probe::{AppliedEntry, Bug, Kind, Mark};

use crate::checkers::Violation;
use crate::checkers::replicas::{Observation, Replicas};
use crate::checkers::terms::Terms;
use crate::director::Director;
use crate::executor::{self, Nanos};
use crate::rng::Rng;
use crate::story::{Story, Teller};

/// The name of a mark that a crash may wait for.
pub fn draw(rng: &mut Rng) -> String {
    rng.pick(Mark::ALL).map_or(String::new(), |mark| mark.name().to_string())
}

/// What was heard in a run. Clones are the same.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    passed: BTreeMap<Mark, u64>,
    /// Conditions that must hold and did not.
    broken: Vec<String>,
    /// How often the planted bug was asked for.
    planted: u64,
    replicas: Replicas,
    terms: Terms,
    /// States and entries that differ.
    differing: Vec<Violation>,
}

/// Broken conditions kept; one is enough to fail.
const KEPT: usize = 20;

impl Heard {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often each mark was passed; for `sometimes!`, while its condition held.
    pub fn passed(&self) -> BTreeMap<Mark, u64> {
        self.inner().passed.clone()
    }

    /// Conditions that must hold and did not.
    pub fn broken(&self) -> Vec<String> {
        self.inner().broken.clone()
    }

    /// Replicas that differ at the same applied index, in their state or in what they applied.
    pub fn differing(&self) -> Vec<Violation> {
        self.inner().differing.clone()
    }

    /// How often code came to where the planted bug is made.
    pub fn planted(&self) -> u64 {
        self.inner().planted
    }

    /// Notes a mark; gives whether it may be what a crash waits for.
    pub fn pass(&self, mark: Mark, holds: bool) -> bool {
        if holds && mark.kind() != Kind::Always {
            *self.inner().passed.entry(mark).or_default() += 1;
        }
        holds
    }

    fn held(&self, at: Nanos, teller: Teller, mark: Mark, holds: bool, why: &dyn std::fmt::Display) {
        let mut inner = self.inner();
        *inner.passed.entry(mark).or_default() += 1;
        if !holds && inner.broken.len() < KEPT {
            inner.broken.push(format!("{} at {:.6} s on {teller}: {why}", mark.name(), at as f64 / 1e9));
        }
    }

    fn applied(&self, at_ns: Nanos, node: u64, entry: &AppliedEntry<'_>, state: &[u8]) {
        let AppliedEntry { group, index, term, payload } = *entry;
        let digest = u64::from(crc32fast::hash(state)) << 32 | state.len() as u64;
        let mut inner = self.inner();
        let differs = inner.replicas.observe(Observation { at_ns, node, group, index, digest });
        let changed = inner.terms.applied(at_ns, node, group, index, term, crc32fast::hash(payload));
        if inner.differing.len() < KEPT {
            inner.differing.extend(differs.into_iter().chain(changed));
        }
    }
}

/// A run's ear.
pub struct Ear {
    pub heard: Heard,
    pub director: Director,
    pub story: Story,
    /// The bug that is planted.
    pub bug: Option<Bug>,
    /// Whether marks are lines of the story.
    pub tell: bool,
}

#[cfg(feature = "probe")]
impl Ear {
    fn mark(&self, mark: Mark, holds: bool) {
        if self.heard.pass(mark, holds) {
            let (at, pid) = executor::current();
            if self.tell {
                self.story.tell(at, format!("mark {} on {}", mark.name(), self.story.teller(pid)));
            }
            self.director.on_mark(pid, mark.name());
        }
    }
}

#[cfg(feature = "probe")]
impl braid_probe::watch::Watcher for Ear {
    fn reached(&self, mark: Mark) {
        self.mark(mark, true);
    }

    fn sometimes(&self, mark: Mark, holds: bool) {
        self.mark(mark, holds);
    }

    fn held(&self, mark: Mark, holds: bool, why: &dyn std::fmt::Display) {
        let (at, pid) = executor::current();
        self.heard.held(at, self.story.teller(pid), mark, holds, why);
    }

    fn planted(&self, bug: Bug) -> bool {
        let planted = self.bug == Some(bug);
        self.heard.inner().planted += u64::from(planted);
        planted
    }

    fn applied(&self, entry: AppliedEntry<'_>, state: &dyn Fn() -> Vec<u8>) {
        let (at, pid) = executor::current();
        if let Teller::Node(node) = self.story.teller(pid) {
            self.heard.applied(at, node, &entry, &state());
        }
    }

    fn acknowledged(&self, group: u32, index: u64) {
        let (_, pid) = executor::current();
        self.director.on_committed(pid, group, index);
    }

    fn opened(&self, group: u32, last: Option<u64>) {
        let (_, pid) = executor::current();
        self.director.on_opened(pid, group, last);
    }

    fn checkpointed(&self, group: u32, last: u64, is_durable: bool) {
        let (_, pid) = executor::current();
        self.director.on_checkpointed(pid, group, last, is_durable);
    }
}

/// Until it is dropped, this thread's marks go to the ear.
#[cfg(feature = "probe")]
pub fn listen(ear: Ear) -> braid_probe::watch::Guard {
    braid_probe::watch::enter(std::rc::Rc::new(ear))
}

/// Nothing is heard without the feature `probe`.
#[cfg(not(feature = "probe"))]
pub fn listen(ear: Ear) {
    let _ = (executor::current(), ear.tell, &ear.heard, &ear.story, ear.bug, &ear.director);
}

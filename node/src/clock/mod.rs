//! The node's clock: what arrival times are stamped with, and what says how old a record is.
//!
//! ```text
//!   wall clocks of all nodes ─▶ `exchange` ─▶ `agree` (the zones' median) ─▶ NodeClock ─▶ stamps, retention
//! ```
//! Invariant: it never goes back, and it advances with the monotonic clock. At start it is set to what the zones
//! agree on, before the node leads anything; afterwards they pull it gently, by at most one part in twenty of the time
//! that passed, and set it only where three zones show that it is far behind. One node's wall clock, however wrong,
//! stamps nothing into the future and trims nothing early: neither when it jumps nor when the node is restarted.

mod agree;
mod exchange;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_probe::{Mark, sometimes};

pub use agree::{Heard, agreed};
pub use exchange::{answer, keep_right, settle};

/// Of the time that passed, the part by which the zones may pull the node's clock.
const PULL: u64 = 20;

/// A difference between this node's wall clock and its clock above which the node says so.
const ALARM_MS: u64 = 5_000;

/// How long what the zones agreed on is gone by; the clock runs free after that.
const STALE: Duration = Duration::from_secs(60);

/// How often whoever waits for a settled clock looks.
const LOOK: Duration = Duration::from_millis(20);

struct Reading {
    at: Instant,
    ms: u64,
    /// Rest of a millisecond that has passed and is not counted in `ms` yet.
    rest: Duration,
    /// Time that has passed and did not allow a whole millisecond of pull yet.
    unpulled: Duration,
    /// What the zones agreed on, and when.
    truth: Option<(Instant, u64)>,
    settled: bool,
    alarmed: bool,
}

/// See the module's documentation. Clones share the reading.
#[derive(Clone)]
pub struct NodeClock(Arc<Mutex<Reading>>);

impl NodeClock {
    /// A clock that starts at this node's wall clock, until it is settled.
    pub fn start() -> NodeClock {
        NodeClock::starting_at(Instant::now(), time::wall_ms())
    }

    fn starting_at(at: Instant, ms: u64) -> NodeClock {
        NodeClock(Arc::new(Mutex::new(Reading {
            at,
            ms,
            rest: Duration::ZERO,
            unpulled: Duration::ZERO,
            truth: None,
            settled: false,
            alarmed: false,
        })))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.advance(Instant::now())
    }

    /// Milliseconds since the Unix epoch, if this clock was set to what the zones agreed on.
    fn settled_ms(&self) -> Option<u64> {
        let now_ms = self.now_ms();
        self.is_settled().then_some(now_ms)
    }

    /// Whether this clock was set to what the zones agreed on. Before that the node leads nothing: nothing is stamped
    /// or trimmed by it.
    pub fn is_settled(&self) -> bool {
        self.0.lock().expect("no panic while locked").settled
    }

    /// Returns once [`NodeClock::is_settled`].
    pub async fn settled(&self) {
        while !self.is_settled() {
            time::sleep(LOOK).await;
        }
    }

    /// Sets the clock to `ms`, as of `at`. Only before anything was stamped with it: it may go back here.
    fn settle_at(&self, at: Instant, ms: u64) {
        let mut r = self.0.lock().expect("no panic while locked");
        (r.at, r.ms, r.settled) = (at, ms, true);
    }

    /// Lets what the zones agreed on, as of `at`, pull the clock.
    fn pull_to(&self, at: Instant, ms: u64) {
        self.0.lock().expect("no panic while locked").truth = Some((at, ms));
    }

    fn advance(&self, now: Instant) -> u64 {
        let mut r = self.0.lock().expect("no panic while locked");
        let passed = (now - r.at) + r.rest;
        let passed_ms = passed.as_millis() as u64;
        r.at = r.at.max(now);
        r.rest = passed - Duration::from_millis(passed_ms);
        let free_running = r.ms + passed_ms;
        // However often the clock is read: what a call does not use up, the next one may.
        r.unpulled += Duration::from_millis(passed_ms);
        let pull_max = r.unpulled.as_millis() as u64 / PULL;
        r.unpulled -= Duration::from_millis(pull_max * PULL);
        let truth = r.truth.filter(|(at, _)| now - *at < STALE);
        let truth_ms = truth.map_or(free_running, |(at, ms)| ms + (now - at).as_millis() as u64);
        let pulled = if truth_ms > free_running {
            free_running + (truth_ms - free_running).min(pull_max)
        } else {
            free_running - (free_running - truth_ms).min(pull_max)
        };
        r.ms = r.ms.max(pulled);
        r.ms
    }

    /// Sets the clock to `ms`, as of `at`, if it is far behind that: it was settled wrong, or the machine was suspended
    /// and the monotonic clock stood still.
    fn catch_up(&self, at: Instant, ms: u64) {
        let now_ms = self.advance(at);
        if ms > now_ms + ALARM_MS {
            sometimes!(true, Mark::ClockCaughtUp);
            tracing::warn!("the clock was {} ms behind the time that three zones go by, and is set", ms - now_ms);
            let mut r = self.0.lock().expect("no panic while locked");
            r.ms = r.ms.max(ms);
        }
    }

    /// What is wrong with this node's clocks, for its operator.
    pub fn warning(&self) -> Option<String> {
        let (now_ms, wall_ms) = (self.now_ms(), time::wall_ms());
        let (apart_ms, side) = (wall_ms.abs_diff(now_ms), if wall_ms > now_ms { "ahead of" } else { "behind" });
        match self.is_settled() {
            false => Some("too few nodes have said what time it is: this one leads nothing before".into()),
            true if apart_ms <= ALARM_MS => None,
            true => Some(format!("the wall clock is {apart_ms} ms {side} the time that the zones go by: set it")),
        }
    }

    /// Logs such a warning, once.
    fn compare(&self) {
        let warning = self.warning();
        let mut r = self.0.lock().expect("no panic while locked");
        if let Some(warning) = warning.as_ref().filter(|_| !r.alarmed) {
            tracing::warn!("{warning}");
        }
        r.alarmed = warning.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    /// Runs the clock for a minute in steps of a second while the zones agree on a time that is `apart_ms` away.
    fn minute_with(apart_ms: i64) -> u64 {
        let start = Instant::now();
        let clock = NodeClock::starting_at(start, 10 * DAY_MS);
        let mut last = 10 * DAY_MS;
        for s in 1..=60 {
            let now = start + Duration::from_secs(s);
            clock.pull_to(now, (10 * DAY_MS + s * 1_000).checked_add_signed(apart_ms).unwrap());
            let t = clock.advance(now);
            assert!(t >= last, "the clock went back");
            last = t;
        }
        last - 10 * DAY_MS
    }

    #[test]
    fn follows_the_monotonic_clock_and_is_only_pulled_by_the_zones() {
        assert_eq!(minute_with(0), 60_000);
        let ahead = minute_with(DAY_MS as i64);
        assert!(ahead > 60_000 && ahead <= 60_000 + 60_000 / PULL, "{ahead}");
        let behind = minute_with(-(DAY_MS as i64));
        assert!((60_000 - 60_000 / PULL..60_000).contains(&behind), "{behind}");
        assert_eq!(minute_with(500), 60_500, "a small difference is corrected fully");
    }

    #[test]
    fn runs_free_when_nothing_was_agreed_on_for_long() {
        let start = Instant::now();
        let clock = NodeClock::starting_at(start, 10 * DAY_MS);
        clock.pull_to(start, 11 * DAY_MS);
        assert_eq!(clock.advance(start + STALE), 10 * DAY_MS + 60_000);
    }

    #[test]
    fn is_set_once_and_may_go_back_then() {
        let clock = NodeClock::starting_at(Instant::now(), 10 * DAY_MS);
        assert_eq!(clock.settled_ms(), None);
        clock.settle_at(Instant::now(), 9 * DAY_MS);
        assert!(clock.settled_ms().is_some_and(|ms| ms < 10 * DAY_MS));
    }

    /// Found by reading: a node that is asked for the time every few milliseconds was never corrected.
    #[test]
    fn is_pulled_as_far_when_it_is_read_often() {
        let start = Instant::now();
        let clock = NodeClock::starting_at(start, 10 * DAY_MS);
        clock.pull_to(start, 10 * DAY_MS + 500);
        for ms in 1..50_000 {
            clock.advance(start + Duration::from_millis(ms));
        }
        assert_eq!(clock.advance(start + Duration::from_millis(50_000)) - 10 * DAY_MS, 50_500);
    }
}

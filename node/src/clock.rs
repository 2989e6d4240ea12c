//! The node's clock: what arrival times are stamped with.
//!
//! Invariant: it never goes back, and it advances with the monotonic clock. The wall clock sets it
//! once, at start, and afterwards only pulls it gently: by at most one part in twenty of the time
//! that passed. A wall clock that jumps by a day moves stamps by at most three seconds a minute, so
//! that nothing is stamped into the future or trimmed early while the operator looks at the alarm.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use braid_env::time;

/// Of the time that passed, the part by which the wall clock may pull the node's clock.
const PULL: u64 = 20;

/// A difference from the wall clock above which the node says so.
const ALARM_MS: u64 = 5_000;

struct Reading {
    at: time::Instant,
    ms: u64,
    /// Rest of a millisecond that has passed and is not counted in `ms` yet.
    rest: Duration,
    /// Time that has passed and did not allow a whole millisecond of pull yet.
    unpulled: Duration,
    alarmed: bool,
}

/// See the module's documentation. Clones share the reading.
#[derive(Clone)]
pub struct NodeClock(Arc<Mutex<Reading>>);

impl NodeClock {
    /// A clock that starts at the wall clock's time.
    pub fn start() -> NodeClock {
        NodeClock::starting_at(time::Instant::now(), time::wall_ms())
    }

    fn starting_at(at: time::Instant, ms: u64) -> NodeClock {
        NodeClock(Arc::new(Mutex::new(Reading {
            at,
            ms,
            rest: Duration::ZERO,
            unpulled: Duration::ZERO,
            alarmed: false,
        })))
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.advance(time::Instant::now(), time::wall_ms())
    }

    fn advance(&self, now: time::Instant, wall_ms: u64) -> u64 {
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
        let pulled = if wall_ms > free_running {
            free_running + (wall_ms - free_running).min(pull_max)
        } else {
            free_running - (free_running - wall_ms).min(pull_max)
        };
        r.ms = r.ms.max(pulled);
        let apart = wall_ms.abs_diff(r.ms);
        if apart > ALARM_MS && !r.alarmed {
            r.alarmed = true;
            tracing::warn!(
                "the wall clock is {apart} ms away from the time that passed since this node started; stamps \
                 follow it slowly"
            );
        } else if apart < ALARM_MS / 2 {
            r.alarmed = false;
        }
        r.ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    /// Runs the clock for a minute in steps of a second against a wall clock that is `jump` away.
    fn minute_with(wall: impl Fn(u64) -> u64) -> (u64, u64) {
        let start = time::Instant::now();
        let clock = NodeClock::starting_at(start, 10 * DAY_MS);
        let mut last = 10 * DAY_MS;
        for s in 1..=60u64 {
            let t = clock.advance(start + Duration::from_secs(s), wall(10 * DAY_MS + s * 1000));
            assert!(t >= last, "the clock went back");
            last = t;
        }
        (last - 10 * DAY_MS, 60_000)
    }

    #[test]
    fn follows_the_monotonic_clock_and_is_only_pulled_by_the_wall_clock() {
        assert_eq!(minute_with(|true_ms| true_ms).0, 60_000);
        let (ahead, minute) = minute_with(|true_ms| true_ms + DAY_MS);
        assert!(ahead > minute && ahead <= minute + minute / PULL, "{ahead}");
        let (behind, minute) = minute_with(|true_ms| true_ms - DAY_MS);
        assert!(behind < minute && behind >= minute - minute / PULL, "{behind}");
    }

    /// Found by reading: a node that is asked for the time every few milliseconds was never corrected.
    #[test]
    fn is_pulled_as_far_when_it_is_read_often() {
        let start = time::Instant::now();
        let clock = NodeClock::starting_at(start, 10 * DAY_MS);
        let read = |ms: u64| clock.advance(start + Duration::from_millis(ms), 10 * DAY_MS + ms + 500);
        for ms in 1..60_000 {
            read(ms);
        }
        assert_eq!(read(60_000) - 10 * DAY_MS, 60_500);
    }

    #[test]
    fn corrects_a_small_difference_fully() {
        assert_eq!(minute_with(|true_ms| true_ms + 500).0, 60_500);
    }
}

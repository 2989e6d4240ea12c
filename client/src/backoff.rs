//! How long to wait before trying again.
//!
//! Owns the one formula. Pure: randomness is handed in. Its invariant: never earlier than the
//! node asked for, never more than the cap beyond it.

use std::time::Duration;

/// The first wait: about one round trip between zones, so a leader change costs little.
pub(crate) const FIRST: Duration = Duration::from_millis(10);

/// The longest wait of our own: an election takes a second or two, so longer waits only add to
/// an outage.
pub(crate) const CAP: Duration = Duration::from_millis(1_000);

/// The wait before attempt number `attempt` (1 is the first retry): what the node asked for,
/// plus a share of the exponential backoff drawn by `below` (uniform in `0..n`), so that clients
/// refused together don't return together.
pub(crate) fn wait(attempt: u32, retry_after: Duration, below: &mut dyn FnMut(u64) -> u64) -> Duration {
    let grown = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(CAP);
    // A node that asks for a long wait gets jitter in proportion, or the herd stays a herd.
    let spread = grown.max(retry_after / 4);
    let micros = u64::try_from(spread.as_micros()).expect("the cap fits");
    // At least half of the growth is kept: full jitter can draw nothing again and again.
    retry_after + grown / 2 + Duration::from_micros(below(micros / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_respects_the_node() {
        let mut most = |n: u64| n - 1;
        assert!(wait(1, Duration::ZERO, &mut most) <= FIRST);
        assert!(wait(60, Duration::ZERO, &mut most) <= CAP);
        assert!(wait(60, Duration::ZERO, &mut most) >= CAP - Duration::from_millis(1));
        let mut least = |_| 0;
        let asked = Duration::from_millis(700);
        assert!(wait(1, asked, &mut least) >= asked);
    }
}

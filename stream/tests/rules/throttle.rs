//! Token buckets: exact bounds, waiting, debt.

use std::time::Duration;

use braid_stream::limits::{Limits, MIB};
use braid_stream::throttle::{Limit, ShardThrottle, TokenBucket};
use proptest::collection::vec;
use proptest::prelude::*;

const START: Duration = Duration::from_secs(1_000);

fn ms(ms: u64) -> Duration {
    START + Duration::from_millis(ms)
}

/// Gaps from nanoseconds to hours.
fn gaps() -> impl Strategy<Value = u64> {
    prop_oneof![0..50u64, 0..2_000_000_000u64, 0..3_600_000_000_000u64]
}

/// Found by the simulator: each failover gave the readers of an empty shard another second's calls.
#[test]
fn a_shard_never_written_may_have_been_read() {
    let mut throttle = ShardThrottle::unwritten(&Limits::DEFAULT, START, START);
    assert!(throttle.read(START).is_err());
    assert_eq!(throttle.write(START, 100), Ok(()));
}

#[test]
fn a_leader_starts_empty_and_a_new_shard_full() {
    let limits = Limits::DEFAULT;
    let mut full = ShardThrottle::full(&limits, START);
    assert_eq!(full.write(START, MIB), Ok(()));
    let mut empty = ShardThrottle::empty(&limits, START);
    let refused = empty.write(START, MIB).unwrap_err();
    assert_eq!((refused.limit, refused.retry_after_ms), (Limit::BytesIn, 1000));
    assert_eq!(refused.used_percent, 100);
    assert_eq!(
        refused.to_string(),
        "shard allows 1048576 bytes written per second and 100% is used: try again in 1000 ms"
    );
    assert!(empty.write(ms(999), MIB).is_err());
    assert_eq!(empty.write(ms(1000), MIB), Ok(()));
}

#[test]
fn a_thousand_records_a_second() {
    let mut throttle = ShardThrottle::full(&Limits::DEFAULT, START);
    for _ in 0..1000 {
        assert_eq!(throttle.write(START, 1), Ok(()));
    }
    let refused = throttle.write(START, 1).unwrap_err();
    assert_eq!((refused.limit, refused.retry_after_ms), (Limit::RecordsIn, 1));
    assert_eq!(throttle.write(ms(1), 1), Ok(()));
}

/// A refusal for its bytes must not cost a record's token, nor the other way round.
#[test]
fn a_refusal_takes_nothing() {
    let mut throttle = ShardThrottle::full(&Limits::DEFAULT, START);
    throttle.write(START, MIB).unwrap();
    let before = throttle.clone();
    assert!(throttle.write(START, MIB).is_err());
    assert_eq!(throttle, before);
}

#[test]
fn a_record_above_a_seconds_worth_passes_a_full_bucket() {
    let mut throttle = ShardThrottle::full(&Limits::DEFAULT, START);
    throttle.write(START, 1).unwrap();
    let refused = throttle.write(START, 10 * MIB).unwrap_err();
    assert_eq!(refused.retry_after_ms, 1, "full again after that");
    assert_eq!(throttle.write(ms(1), 10 * MIB), Ok(()));
    let refused = throttle.write(ms(1), 1).unwrap_err();
    assert_eq!((refused.limit, refused.used_percent), (Limit::BytesIn, 1000));
    assert!(throttle.write(ms(9001), 1).is_err(), "nine seconds of debt");
    assert_eq!(throttle.write(ms(9002), 1), Ok(()));
}

#[test]
fn a_full_read_holds_off_the_next_for_five_seconds() {
    let mut throttle = ShardThrottle::full(&Limits::DEFAULT, START);
    throttle.read(START).unwrap();
    throttle.read_done(START, 10 * MIB);
    let refused = throttle.read(START).unwrap_err();
    assert_eq!((refused.limit, refused.retry_after_ms), (Limit::BytesOut, 5000));
    assert!(throttle.read(ms(4999)).is_err());
    assert_eq!(throttle.read(ms(5000)), Ok(()));
}

#[test]
fn five_calls_a_second() {
    let mut throttle = ShardThrottle::full(&Limits::DEFAULT, START);
    for _ in 0..5 {
        throttle.read(START).unwrap();
        throttle.read_done(START, 100);
    }
    let refused = throttle.read(START).unwrap_err();
    assert_eq!((refused.limit, refused.retry_after_ms), (Limit::CallsOut, 200));
}

#[test]
fn new_limits_apply_at_once() {
    let mut throttle = ShardThrottle::full(&Limits::DEFAULT, START);
    let limits = Limits { write_records_per_s: 2, ..Limits::DEFAULT };
    throttle.set_limits(&limits, START);
    throttle.write(START, 1).unwrap();
    throttle.write(START, 1).unwrap();
    let refused = throttle.write(START, 1).unwrap_err();
    assert_eq!((refused.per_s, refused.retry_after_ms), (2, 500));
}

#[test]
fn time_going_back_earns_nothing() {
    let mut bucket = TokenBucket::empty(1000, START);
    assert!(bucket.wait(START - Duration::from_secs(9), 1) > Duration::ZERO);
    assert_eq!(bucket.wait(ms(1), 1), Duration::ZERO);
}

proptest! {
    /// Over every window between two acceptances: accepted <= rate × window + burst, in whole
    /// numbers without a rounding allowance.
    #[test]
    fn accepted_is_bounded_exactly(
        rate in prop_oneof![1..20u64, 1..=2 * MIB],
        steps in vec((gaps(), 0..120u64), 1..80),
        full in any::<bool>(),
    ) {
        let mut now = START;
        let mut bucket = match full {
            true => TokenBucket::full(rate, now),
            false => TokenBucket::empty(rate, now),
        };
        let mut accepted: Vec<(Duration, u64)> = vec![];
        let mut total = 0;
        for (gap, percent) in steps {
            now += Duration::from_nanos(gap);
            let amount = (rate * percent / 100).min(rate);
            if bucket.wait(now, amount).is_zero() {
                bucket.take(now, amount);
                accepted.push((now, amount));
                total += amount;
            }
        }
        for (nth, (from, _)) in accepted.iter().enumerate() {
            let mut sum = 0u128;
            for (to, amount) in &accepted[nth..] {
                sum += u128::from(*amount);
                let earned = u128::from(rate) * (*to - *from).as_nanos();
                prop_assert!(sum * 1_000_000_000 <= earned + u128::from(rate) * 1_000_000_000);
            }
        }
        if !full {
            let earned = u128::from(rate) * (now - START).as_nanos();
            prop_assert!(u128::from(total) * 1_000_000_000 <= earned, "an empty start has no burst");
        }
    }

    /// With amounts above the burst the bound has the largest amount in the burst's place.
    #[test]
    fn debt_is_bounded_too(rate in 1..1000u64, steps in vec((gaps(), 0..5000u64), 1..60)) {
        let mut now = START;
        let mut bucket = TokenBucket::full(rate, now);
        let (mut total, mut largest) = (0u128, u128::from(rate));
        for (gap, amount) in steps {
            now += Duration::from_nanos(gap);
            if bucket.wait(now, amount).is_zero() {
                bucket.take(now, amount);
                total += u128::from(amount);
                largest = largest.max(u128::from(amount));
            }
            let earned = u128::from(rate) * (now - START).as_nanos();
            prop_assert!(total * 1_000_000_000 <= earned + largest * 1_000_000_000);
        }
    }

    /// Cutting time finely loses nothing: waiting in many steps earns what waiting once does.
    #[test]
    fn refills_are_exact(rate in 1..=2 * MIB, gaps in vec(0..1_000_000u64, 1..200)) {
        let mut stepped = TokenBucket::empty(rate, START);
        let mut now = START;
        for gap in gaps {
            now += Duration::from_nanos(gap);
            stepped.wait(now, 0);
        }
        let mut once = TokenBucket::empty(rate, START);
        once.wait(now, 0);
        prop_assert_eq!(stepped, once);
    }

    /// What a refusal promises is true, to the nanosecond: then it passes, a nanosecond before not.
    #[test]
    fn the_wait_is_exact(rate in 1..=2 * MIB, used in 0..5_000_000u64, amount in 0..5_000_000u64) {
        let mut bucket = TokenBucket::full(rate, START);
        bucket.take(START, used);
        let wait = bucket.wait(START, amount);
        let mut early = bucket.clone();
        prop_assert!(bucket.wait(START + wait, amount).is_zero());
        if let Some(before) = wait.checked_sub(Duration::from_nanos(1)) {
            prop_assert!(!early.wait(START + before, amount).is_zero());
        }
    }
}

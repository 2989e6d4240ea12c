//! Scaling by load: when, by how much, and that a load that comes and goes is not followed.

use std::time::Duration;

use braid_stream::autoscale::*;
use proptest::prelude::*;

const S: Duration = Duration::from_secs(1);
const LOOK: u32 = 10;
const BOUNDS: Bounds = Bounds { min: 1, max: 100 };

/// Looks every ten seconds for so many minutes at what `demand` gives for each second; what was decided, when.
fn run(minutes: u32, bounds: Bounds, mut open: u32, demand: impl Fn(u32) -> u64) -> Vec<(u32, u32, Why)> {
    let mut scaler = Autoscaler::new(Duration::ZERO);
    let mut made = Vec::new();
    for second in (0..minutes * 60).step_by(LOOK as usize) {
        match scaler.decide(S * second, bounds, Demand { open, percent: demand(second) }) {
            Decision::Scale { to, why } => {
                assert_ne!(to, open);
                assert!((bounds.min..=bounds.max).contains(&to), "{to}");
                made.push((second, to, why));
                open = to;
            }
            Decision::Stay(_) => {}
        }
    }
    made
}

#[test]
fn a_load_that_stays_gets_its_shards_after_a_minute() {
    let made = run(120, BOUNDS, 2, |_| 900);
    assert_eq!(made, [(60, 15, Why::High { open: 2, percent: 900 })]);
    assert!(made[0].2.to_string().contains("2 shards were asked for 900%"), "{}", made[0].2);
    assert_eq!(run(120, Bounds { min: 1, max: 8 }, 2, |_| 900)[0].1, 8, "within its bounds");
    assert_eq!(run(120, BOUNDS, 2, |_| 159), [], "just below");
    assert_eq!(run(120, BOUNDS, 2, |second| if second % 60 < 50 { 900 } else { 100 }), [], "never for a minute");
}

#[test]
fn a_load_that_is_gone_for_half_an_hour_gives_them_back() {
    let made = run(120, BOUNDS, 16, |second| if second < 600 { 900 } else { 100 });
    assert_eq!(made, [(600 + 30 * 60, 2, Why::Low { open: 16, percent: 100 })]);
    assert_eq!(run(120, BOUNDS, 16, |_| 800), [], "not for less than a quarter");
    assert_eq!(run(600, Bounds { min: 4, max: 16 }, 16, |_| 0)[0].1, 4);
    // A new leader has seen nothing yet.
    assert_eq!(run(29, BOUNDS, 16, |_| 0), []);
}

#[test]
fn bounds_come_first_and_changes_are_apart() {
    assert_eq!(run(5, Bounds { min: 4, max: 8 }, 2, |_| 0), [(0, 4, Why::OutOfBounds { open: 2 })]);
    assert_eq!(run(5, Bounds { min: 4, max: 8 }, 20, |_| 0), [(0, 8, Why::OutOfBounds { open: 20 })]);
    // Twice as much every minute.
    let made = run(10, BOUNDS, 1, |second| 100 << (second / 60).min(6));
    assert!(made.is_sorted_by(|a, b| b.0 - a.0 >= 120) && made.len() > 1, "{made:?}");
    let mut scaler = Autoscaler::new(Duration::ZERO);
    scaler.decide(S, Bounds { min: 4, max: 8 }, Demand { open: 2, percent: 0 });
    let next = scaler.decide(S * 2, BOUNDS, Demand { open: 4, percent: 0 });
    assert_eq!(next, Decision::Stay(Stay::CoolingDown { left: S * 119 }));
}

#[test]
fn bounds_have_bounds() {
    for (min, max, good) in [(1, 1, true), (1, 10_000, true), (0, 5, false), (5, 4, false), (1, 10_001, false)] {
        assert_eq!(Bounds { min, max }.check().is_ok(), good, "{min} {max}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A tooth that rises and falls within half an hour, of any height and shape: after two of them nothing is changed.
    #[test]
    fn a_sawtooth_is_not_followed(
        period_min in 1..29u32,
        low in 0..2_000u64,
        height in 0..4_000u64,
        rise_percent in 1..100u32,
        open in 1..60u32,
    ) {
        let period = period_min * 60;
        let rise = (period * rise_percent / 100).max(1);
        let demand = |second: u32| {
            let at = second % period;
            let part = match at < rise {
                true => f64::from(at) / f64::from(rise),
                false => f64::from(period - at) / f64::from(period - rise),
            };
            low + (height as f64 * part) as u64
        };
        let made = run(10 * 60, BOUNDS, open, demand);
        // At first it grows with the teeth, or gives back what it had too many of.
        let settled = 2 * period + 45 * 60;
        let late: Vec<_> = made.iter().filter(|(at, ..)| *at > settled).collect();
        prop_assert!(late.is_empty(), "{late:?} of {made:?}");
        let up = |to: u32, from: u32| to > from;
        let counts: Vec<u32> = std::iter::once(open).chain(made.iter().map(|it| it.1)).collect();
        let turns = counts.windows(3).filter(|it| up(it[1], it[0]) != up(it[2], it[1])).count();
        prop_assert!(turns <= 1, "{counts:?}");
    }
}

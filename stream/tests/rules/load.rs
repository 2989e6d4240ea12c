//! A shard's load: what is said of keys against exact counts, where a split divides, how it forgets, what it costs.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_stream::load::{Advice, KEYS, ShardLoad};
use braid_stream::{HashKey, HashRange, Limits};
use proptest::prelude::*;

const S: Duration = Duration::from_secs(1);

fn load() -> ShardLoad {
    ShardLoad::new(HashRange::FULL, Duration::ZERO)
}

/// A record of 1 KiB with this hash: a thousandth of a second's worth.
fn write(load: &mut ShardLoad, now: Duration, hash: HashKey) {
    load.write(now, &Limits::DEFAULT, hash, &format!("key of {hash}"), 1 << 10, true);
}

fn spread(nth: u64) -> HashKey {
    HashKey::of_partition_key(&nth.to_string())
}

#[test]
fn rates_are_over_the_last_minute() {
    let mut load = load();
    for second in 0..120 {
        for nth in 0..10 {
            let admitted = nth > 1;
            load.write(S * second, &Limits::DEFAULT, spread(nth), "k", 2 << 10, admitted);
        }
        load.read(S * second, 5, 10 << 10, u64::from(second));
        load.read_refused(S * second);
    }
    let rates = load.rates(S * 119);
    assert!((55..=60).contains(&rates.window.as_secs()), "{rates:?}");
    let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.05;
    assert!(near(rates.records_in, 8.0) && near(rates.bytes_in, 16_384.0) && near(rates.refused, 2.0), "{rates:?}");
    assert!(near(rates.records_out, 5.0) && near(rates.bytes_out, 10_240.0) && near(rates.reads_refused, 1.0));
    // Ten of 2 KiB a second: 20 KiB of 1 MiB.
    assert!(near(rates.write_percent, 1.953), "{rates:?}");
    assert_eq!(rates.age_ms, 119);
    let later = load.rates(S * 200);
    assert_eq!((later.records_in, later.write_percent), (0.0, 0.0), "an hour ago is not now");
}

#[test]
fn a_shard_that_has_just_begun_is_not_idle() {
    let mut load = ShardLoad::new(HashRange::FULL, S * 1_000);
    for nth in 0..1_000 {
        write(&mut load, S * 1_000 + Duration::from_millis(nth * 2), spread(nth));
    }
    let rates = load.rates(S * 1_002);
    assert!((450.0..=510.0).contains(&rates.records_in), "{rates:?}");
    // Time that seems to go back.
    write(&mut load, S * 3, spread(0));
    assert!(load.rates(S * 3).records_in >= 450.0);
}

#[test]
fn an_even_load_is_divided_in_the_middle() {
    let mut load = load();
    for nth in 0..20_000u64 {
        write(&mut load, Duration::from_micros(nth * 700), spread(nth));
    }
    let Advice::Split { at, larger_percent } = load.advice(S * 14) else { panic!("{:?}", load.advice(S * 14)) };
    assert!(larger_percent < 53.0, "{larger_percent}");
    assert!(at.0.abs_diff(1 << 127) < 1 << 124, "{at}");
}

#[test]
fn an_uneven_load_is_divided_where_it_is() {
    let mut load = load();
    // All in the upper quarter.
    for nth in 0..20_000u64 {
        let hash = HashKey((3 << 126) + (spread(nth).0 >> 2));
        write(&mut load, Duration::from_micros(nth * 700), hash);
    }
    let Advice::Split { at, larger_percent } = load.advice(S * 14) else { panic!() };
    assert!(at.0.abs_diff((3 << 126) + (1 << 125)) < 1 << 123 && larger_percent < 55.0, "{at} {larger_percent}");
}

#[test]
fn one_key_is_named_and_two_are_divided() {
    let mut load = load();
    let (a, b) = (HashKey(1 << 100), HashKey((1 << 100) + 1));
    for nth in 0..20_000u64 {
        let hash = if nth % 10 == 0 { spread(nth) } else { a };
        write(&mut load, Duration::from_micros(nth * 700), hash);
    }
    let Advice::OneKey { hash, percent } = load.advice(S * 14) else { panic!("{:?}", load.advice(S * 14)) };
    assert!(hash == a && (88.0..=94.0).contains(&percent), "{hash} {percent}");
    assert_eq!(load.hottest(S * 14, 1)[0].text, format!("key of {a}"));
    // Its neighbour, one hash key further, becomes as hot: a split lies between them, to the key.
    for nth in 0..20_000u64 {
        write(&mut load, S * 300 + Duration::from_micros(nth * 700), if nth % 2 == 0 { a } else { b });
    }
    let Advice::Split { at, larger_percent } = load.advice(S * 314) else { panic!("{:?}", load.advice(S * 314)) };
    assert!(at == b && larger_percent < 51.0, "{at} {larger_percent}");
}

#[test]
fn little_is_no_reason_for_advice() {
    let mut load = load();
    assert_eq!(load.advice(S), Advice::Unknown);
    assert_eq!(load.best_split(S), None);
    for nth in 0..2_000u64 {
        write(&mut load, Duration::from_millis(nth * 10), spread(nth));
    }
    let advice = load.advice(S * 20);
    assert!(matches!(advice, Advice::NotNeeded { peak_percent } if (8.0..12.0).contains(&peak_percent)), "{advice:?}");
    assert!(load.best_split(S * 20).is_some(), "who wants one all the same may have it");
    let one_key = HashRange::new(HashKey(7), HashKey(7)).unwrap();
    let mut narrow = ShardLoad::new(one_key, Duration::ZERO);
    for _ in 0..5_000 {
        write(&mut narrow, S, HashKey(7));
    }
    assert_eq!(narrow.best_split(S), None);
    assert!(matches!(narrow.advice(S), Advice::OneKey { .. }));
}

#[test]
fn what_was_hot_is_forgotten() {
    let mut load = load();
    for _ in 0..1_000 {
        write(&mut load, S, HashKey(1));
    }
    for nth in 0..1_000 {
        write(&mut load, S * 200, spread(nth));
    }
    let hot = load.hottest(S * 200, 1);
    assert!(hot.is_empty() || hot[0].percent - hot[0].error_percent < 5.0, "{hot:?}");
    assert!(load.hottest(S * 100_000, 9).is_empty());
}

#[test]
fn a_long_key_is_cut_between_characters() {
    let mut load = load();
    load.write(S, &Limits::DEFAULT, HashKey(1), &format!("{}ü", "x".repeat(63)), 1, true);
    assert_eq!(load.hottest(S, 1)[0].text, "x".repeat(63));
}

proptest! {
    /// Without time between, counts are exact within their error, and every key above a 32nd part is there.
    #[test]
    fn no_key_is_said_to_be_colder_than_it_is(
        writes in prop::collection::vec((0..200u32, 1..4u32), 1..600),
    ) {
        let mut load = load();
        let mut exact: BTreeMap<u32, u64> = BTreeMap::new();
        for &(key, times) in &writes {
            // Half of all writes go to a few keys.
            let key = if key < 100 { key % 5 } else { key };
            for _ in 0..times {
                load.write(S, &Limits::DEFAULT, spread(u64::from(key)), &key.to_string(), 0, true);
                *exact.entry(key).or_default() += 1;
            }
        }
        let total: u64 = exact.values().sum();
        let hot = load.hottest(S, KEYS);
        let percent = |count: u64| count as f64 * 100.0 / total as f64;
        for key in &hot {
            let truth = percent(exact[&key.text.parse().unwrap()]);
            prop_assert!(key.percent + 1e-9 >= truth, "{key:?}: {truth}");
            prop_assert!(key.percent - key.error_percent <= truth + 1e-9, "{key:?}: {truth}");
        }
        let mut watched = load.clone();
        for (key, count) in exact.iter().filter(|(_, count)| **count * KEYS as u64 > total) {
            let text = key.to_string();
            let found = watched.hottest(S, KEYS).into_iter().any(|it| it.text == text);
            prop_assert!(found, "{key} with {count} of {total} is missing");
        }
    }

    #[test]
    fn a_split_is_inside_and_what_it_leaves_is_what_was_written(
        hashes in prop::collection::vec(any::<u128>(), 50..300),
        start in any::<u64>(),
        shift in 0..64u32,
    ) {
        let range = HashRange::new(HashKey(u128::from(start)), HashKey(u128::MAX >> shift)).unwrap();
        let mut load = ShardLoad::new(range, Duration::ZERO);
        let width = range.end().0 - range.start().0;
        let hashes: Vec<u128> = hashes.iter().map(|it| range.start().0 + it % width).collect();
        for hash in &hashes {
            load.write(S, &Limits::DEFAULT, HashKey(*hash), "k", 0, true);
        }
        let (at, larger) = load.best_split(S).unwrap();
        prop_assert!(range.contains(at) && at > range.start());
        let below = hashes.iter().filter(|it| **it < at.0).count();
        let truth = below.max(hashes.len() - below) as f64 * 100.0 / hashes.len() as f64;
        prop_assert!((truth - larger).abs() < 15.0, "{larger} was promised, {truth} is true");
    }
}

/// Prints what a record costs: `cargo test --release -p braid-stream -- --ignored --nocapture cost_of_a_record`.
#[test]
#[ignore = "measures"]
#[allow(clippy::disallowed_methods)]
fn cost_of_a_record() {
    const RECORDS: u64 = 1_000_000;
    for (name, keys) in [("one key", 1), ("30 keys", 30), ("every record another key", u64::MAX)] {
        let hashed: Vec<(HashKey, String)> =
            (0..RECORDS.min(100_000)).map(|nth| (spread(nth % keys), (nth % keys).to_string())).collect();
        let mut load = load();
        let start = std::time::Instant::now();
        for nth in 0..RECORDS {
            let (hash, text) = &hashed[nth as usize % hashed.len()];
            load.write(Duration::from_micros(nth), &Limits::DEFAULT, *hash, text, 1024, true);
        }
        println!("{name}: {} ns a record", start.elapsed().as_nanos() as u64 / RECORDS);
        assert!(load.rates(S).records_in > 0.0);
    }
    println!("{} bytes a shard, and the keys' texts", size_of::<ShardLoad>() + KEYS * 64);
}

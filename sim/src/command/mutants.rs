//! Planted bugs: whether the checkers would find a mistake, and how soon.

use std::collections::BTreeMap;

use braid_probe::Bug;
use braid_sim::run::Options;

use super::{core_seconds, many};

/// A bug that every tenth run or so must show.
const CANARY: Bug = Bug::AckBeforeFsync;

/// Seeds within which the canary must be found.
const CANARY_SEEDS: u64 = 200;

/// Prints every bug.
pub fn list() -> bool {
    for bug in Bug::ALL {
        println!("{:<26} {:<9} {}", bug.name(), format!("{:?}", bug.layer()), bug.about());
    }
    true
}

/// What became of one bug.
struct Catch {
    checkers: Vec<&'static str>,
    seed: u64,
    seeds: u64,
    seconds: f64,
    /// How often code came to where the bug is made.
    reached: u64,
}

/// Hunts a bug for so many core-seconds.
fn hunt(bug: Bug, budget_s: f64, jobs: usize) -> (Option<Catch>, Catch) {
    let started = core_seconds();
    let mut all = Catch { checkers: Vec::new(), seed: 0, seeds: 0, seconds: 0.0, reached: 0 };
    let mut caught = None;
    // Every bug has seeds of its own, so that none lives on another's luck.
    let from = 1_000_000 * (1 + bug as u64);
    let make = |nth| {
        let over = core_seconds() - started >= budget_s;
        (!over).then(|| Options { seed: from + nth, bug: Some(bug.name().into()), ..Options::default() })
    };
    many(jobs, make, |report| {
        all.seeds += 1;
        all.reached += report.planted;
        if report.violations.is_empty() {
            return true;
        }
        let mut checkers: Vec<&'static str> = report.violations.iter().map(|v| v.checker).collect();
        checkers.dedup();
        let seconds = core_seconds() - started;
        caught = Some(Catch { checkers, seed: report.seed, seeds: all.seeds, seconds, reached: all.reached });
        false
    });
    all.seconds = core_seconds() - started;
    (caught, all)
}

/// The table of all bugs, or of some.
pub fn run(only: &[String], minutes: f64, jobs: usize) -> bool {
    if !cfg!(feature = "probe") {
        println!("this build has no bugs to plant: use cargo sim, which is built with the feature `probe`");
        return false;
    }
    if let Some(unknown) = only.iter().find(|name| Bug::named(name).is_none()) {
        println!("no bug is called {unknown:?}; see --list");
        return false;
    }
    let bugs: Vec<Bug> =
        Bug::ALL.iter().copied().filter(|bug| only.is_empty() || only.iter().any(|name| name == bug.name())).collect();
    println!("{:<26} {:<9} {:>6} {:>9} {:>10}  caught by", "bug", "layer", "seeds", "core-s", "seed");
    let mut by_layer: BTreeMap<_, (u32, u32)> = BTreeMap::new();
    for bug in &bugs {
        let (caught, all) = hunt(*bug, minutes * 60.0, jobs);
        let layer = by_layer.entry(bug.layer()).or_default();
        layer.1 += 1;
        let name = format!("{:<26} {:<9}", bug.name(), format!("{:?}", bug.layer()));
        match caught {
            Some(c) => {
                layer.0 += 1;
                println!("{name} {:>6} {:>9.1} {:>10}  {}", c.seeds, c.seconds, c.seed, c.checkers.join(", "));
            }
            None => println!(
                "{name} {:>6} {:>9.1} {:>10}  NOT CAUGHT (its code was reached {} times)",
                all.seeds, all.seconds, "-", all.reached
            ),
        }
    }
    let caught: u32 = by_layer.values().map(|(caught, _)| caught).sum();
    for (layer, (caught, of)) in &by_layer {
        println!("{layer:?}: {caught} of {of}");
    }
    println!("{caught} of {} caught", bugs.len());
    caught as usize == bugs.len()
}

/// Fails unless a planted bug is found: a simulator that finds nothing proves nothing.
pub fn canary() -> bool {
    if !cfg!(feature = "probe") {
        println!("this build has no bugs to plant: use cargo sim, which is built with the feature `probe`");
        return false;
    }
    let mut found = None;
    let mut seeds = 0;
    let make = |nth| {
        (nth < CANARY_SEEDS).then(|| Options {
            seed: 77_000 + nth,
            bug: Some(CANARY.name().into()),
            ..Options::default()
        })
    };
    many(std::thread::available_parallelism().map_or(1, usize::from), make, |report| {
        seeds += 1;
        found = report.violations.first().map(|v| (report.seed, v.checker));
        found.is_none()
    });
    match &found {
        Some((seed, checker)) => println!("the canary ({}) is found by [{checker}], seed {seed}", CANARY.name()),
        None => println!("the canary ({}) was NOT found in {seeds} seeds: the simulator is blind", CANARY.name()),
    }
    found.is_some()
}

//! Replaying one seed, and exploring many.

use std::time::{Duration, Instant};

use braid_sim::plan::{Drops, Profile};
use braid_sim::run::{Options, Report, run as simulate};

use super::tally::Tally;
use super::{core_seconds, many};
use crate::RunArgs;

/// How often progress is said.
const PROGRESS: Duration = Duration::from_secs(10);

/// Failures of an exploration after which it stops.
const FAILURES_MAX: usize = 10;

/// Replays or explores.
pub fn run(args: RunArgs) -> bool {
    let drops = match drops(&args.without) {
        Ok(drops) => drops,
        Err(why) => {
            eprintln!("--without: {why}");
            return false;
        }
    };
    let options =
        |seed| Options { seed, profile: args.profile, trace: args.trace, drops: drops.clone(), bug: args.bug.clone() };
    match (args.seed, args.seeds, args.minutes) {
        (Some(seed), ..) => replay(options(seed)),
        (None, Some(seeds), _) => explore(&args, options, Some(seeds), None),
        (None, None, Some(minutes)) => explore(&args, options, None, Some(Duration::from_secs_f64(minutes * 60.0))),
        (None, None, None) => {
            eprintln!("say what to run: --seed S, --seeds N or --minutes N; or see --help");
            false
        }
    }
}

/// A number as it is, or of whatever text.
pub fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| {
        // Small enough to be typed.
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)) >> 24
    })
}

fn drops(without: &[String]) -> Result<Drops, String> {
    let mut drops = Drops::default();
    for item in without {
        let (kind, nth) = item.split_at(1.min(item.len()));
        let nth = nth.parse().map_err(|_| format!("{item:?} is not f, t or c and a number"))?;
        match kind {
            "f" => drops.faults.push(nth),
            "t" => drops.triggers.push(nth),
            "c" => drops.clients.push(nth),
            _ => return Err(format!("{item:?} is not f, t or c and a number")),
        }
    }
    Ok(drops)
}

fn replay(options: Options) -> bool {
    let report = simulate(options.clone());
    println!("seed {}\n{}", options.seed, report.plan);
    println!(
        "{:.1} simulated seconds in {:.2} core-seconds; {} events, {} records acknowledged; fingerprint {:016x} after {} polls",
        report.took as f64 / 1e9,
        core_seconds(),
        report.events,
        report.acknowledged,
        report.fingerprint.0,
        report.fingerprint.1,
    );
    for (name, count) in report.faults.iter().filter(|(_, count)| **count > 0) {
        println!("  {count:>4} {name}");
    }
    if report.violations.is_empty() {
        println!("nothing was violated");
        return true;
    }
    tell_failure(&report, &options);
    false
}

fn explore(
    args: &RunArgs,
    options: impl Fn(u64) -> Options + Sync,
    seeds: Option<u64>,
    time: Option<Duration>,
) -> bool {
    let from = number(&args.from);
    let started = Instant::now();
    println!("exploring from seed {from}, {} at a time", args.jobs);
    let mut tally = Tally::default();
    let mut said = Instant::now();
    let mut failures = 0;
    let make = |nth| {
        let over = seeds.is_some_and(|seeds| nth >= seeds) || time.is_some_and(|time| started.elapsed() >= time);
        (!over).then(|| options(from.wrapping_add(nth)))
    };
    many(args.jobs, make, |report| {
        tally.add(&report);
        if !report.violations.is_empty() {
            failures += 1;
            tell_failure(&report, &options(report.seed));
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            println!("{}", tally.progress(started.elapsed()));
        }
        failures < FAILURES_MAX
    });
    println!("{}", tally.progress(started.elapsed()));
    print!("{}", tally.summary(core_seconds()));
    failures == 0
}

/// A failure: what is wrong, the story, and how to see it again.
pub fn tell_failure(report: &Report, options: &Options) {
    println!("\n=== seed {} FAILED: {} violations", report.seed, report.violations.len());
    for violation in &report.violations {
        println!("  {violation}");
    }
    println!("--- the last lines");
    for line in &report.last_lines {
        println!("{line}");
    }
    println!("--- replay with:   {}", command(options));
    println!("--- shrink with:   cargo sim shrink --seed {}{}{}\n", options.seed, profile(options), bug(options));
}

fn profile(options: &Options) -> String {
    match options.profile {
        Profile::Swarm => String::new(),
        other => format!(" --profile \"{other}\""),
    }
}

fn bug(options: &Options) -> String {
    options.bug.as_ref().map_or(String::new(), |bug| format!(" --bug {bug}"))
}

/// The command that does the same again.
pub fn command(options: &Options) -> String {
    let d = &options.drops;
    let numbered = |letter: char, list: &[usize]| list.iter().map(move |n| format!("{letter}{n}")).collect::<Vec<_>>();
    let dropped = [numbered('f', &d.faults), numbered('t', &d.triggers), numbered('c', &d.clients)].concat();
    let without = if dropped.is_empty() { String::new() } else { format!(" --without {}", dropped.join(",")) };
    format!("cargo sim --seed {}{}{}{without}", options.seed, profile(options), bug(options))
}

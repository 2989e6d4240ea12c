//! The same seed twice, in two processes: the same run, or the simulator is broken.

use std::process::{Command, Stdio};

use braid_sim::run::{Options, run as simulate};

use super::many;

/// Prints the fingerprints of some seeds, in order.
pub fn print(from: u64, seeds: u64) -> bool {
    let mut found = Vec::new();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let make = |nth| (nth < seeds).then(|| Options { seed: from + nth, ..Options::default() });
    many(jobs, make, |report| {
        found.push((report.seed, report.fingerprint, report.took, report.events, report.leaks));
        true
    });
    found.sort_unstable();
    for (seed, (trace, polls), took, events, leaks) in found {
        println!("{seed} {trace:016x} {polls} {took} {events} {leaks:?}");
    }
    true
}

/// Compares two processes, of which one has another working directory and another environment; and for the
/// first few seeds a third run, alone in its process's first thread.
pub fn run(from: u64, seeds: u64) -> bool {
    let program = std::env::current_exe().expect("this program has a path");
    let arguments =
        ["fingerprints".to_string(), "--from".into(), from.to_string(), "--seeds".into(), seeds.to_string()];
    let mut there = Command::new(&program);
    there.args(&arguments).env_clear().env("SOMETHING", "else").current_dir("/").stdout(Stdio::piped());
    let mut here = Command::new(&program);
    here.args(&arguments).stdout(Stdio::piped());
    let (first, second) = (here.output(), there.output());
    let (Ok(first), Ok(second)) = (first, second) else {
        println!("the simulator could not be started a second time");
        return false;
    };
    let lines = |output: &[u8]| String::from_utf8_lossy(output).lines().map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (lines(&first.stdout), lines(&second.stdout));
    let mut mismatches = 0;
    if first.len() as u64 != seeds || second.len() as u64 != seeds {
        println!("{seeds} seeds were asked for; the processes ran {} and {}", first.len(), second.len());
        mismatches += 1;
    }
    for (a, b) in first.iter().zip(&second) {
        if a != b {
            mismatches += 1;
            println!("differs:\n  {a}\n  {b}");
        }
    }
    // In this process the allocator, the threads and the order of runs are others again.
    for (nth, line) in first.iter().take(3).enumerate() {
        let report = simulate(Options { seed: from + nth as u64, ..Options::default() });
        let expected = format!("{} {:016x} {} ", report.seed, report.fingerprint.0, report.fingerprint.1);
        if !line.starts_with(&expected) {
            mismatches += 1;
            println!("differs:\n  {line}\n  {expected}");
        }
    }
    println!("{seeds} seeds run twice, in two processes: {mismatches} mismatches");
    mismatches == 0
}

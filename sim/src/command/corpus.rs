//! The seeds that once found something, run again.

use braid_sim::run::Options;

use super::many;
use super::run::tell_failure;

/// One seed a line, then what it was; `#` begins a comment.
const CORPUS: &str = include_str!("../../corpus.txt");

/// Seeds and what each once found.
fn seeds() -> Vec<(u64, &'static str)> {
    let lines = CORPUS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (seed, what) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            (seed.parse().unwrap_or_else(|_| panic!("corpus.txt: {line:?} does not begin with a seed")), what.trim())
        })
        .collect()
}

/// Runs them all.
pub fn run(jobs: usize) -> bool {
    let seeds = seeds();
    let mut failed = 0;
    let options = |seed| Options { seed, ..Options::default() };
    many(
        jobs,
        |nth| seeds.get(nth as usize).map(|(seed, _)| options(*seed)),
        |report| {
            if !report.violations.is_empty() {
                failed += 1;
                tell_failure(&report, &options(report.seed));
            }
            true
        },
    );
    println!("{} seeds of the corpus: {failed} failed", seeds.len());
    failed == 0
}

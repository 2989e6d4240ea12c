//! The seeds that once found something, run again.

use braid_sim::run::Options;

use super::many;
use super::run::tell_failure;

/// A seed, the planted twin of what it found (or `-`), and what that was, a line each; `#` begins a comment.
const CORPUS: &str = include_str!("../../corpus.txt");

/// A line of the corpus.
struct Found {
    seed: u64,
    /// The planted bug that is the same mistake.
    twin: Option<&'static str>,
}

fn found() -> Vec<Found> {
    let lines = CORPUS.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let (seed, twin) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let seed = seed.parse().unwrap_or_else(|_| panic!("corpus.txt: {line:?} does not begin with a seed"));
            assert!(!twin.is_empty(), "corpus.txt: {line:?} names no planted bug, nor -");
            Found { seed, twin: Some(twin).filter(|twin| *twin != "-") }
        })
        .collect()
}

/// Runs each as it is, where nothing may be violated, and with its planted twin, which it may no longer find: a
/// changed build plays other runs.
pub fn run(jobs: usize) -> bool {
    let found = found();
    let clean = |it: &Found| Options { seed: it.seed, ..Options::default() };
    let planted = |it: &Found| it.twin.map(|twin| Options { bug: Some(twin.to_owned()), ..clean(it) });
    let mut failed = 0;
    many(
        jobs,
        |nth| found.get(nth as usize).map(clean),
        |report| {
            if !report.violations.is_empty() {
                failed += 1;
                tell_failure(&report, &Options { seed: report.seed, ..Options::default() });
            }
            true
        },
    );
    let twins: Vec<&Found> = found.iter().filter(|it| it.twin.is_some()).collect();
    let mut missed: Vec<u64> = Vec::new();
    many(
        jobs,
        |nth| twins.get(nth as usize).and_then(|it| planted(it)),
        |report| {
            if report.violations.is_empty() {
                missed.push(report.seed);
            }
            true
        },
    );
    for it in twins.iter().filter(|it| missed.contains(&it.seed)) {
        let twin = it.twin.unwrap_or_default();
        println!("seed {} no longer finds {twin}: cargo sim mutants --bug {twin} gives another", it.seed);
    }
    let caught = twins.len() - missed.len();
    println!("{} seeds of the corpus: {failed} failed; {caught} of {} planted twins found", found.len(), twins.len());
    failed == 0
}

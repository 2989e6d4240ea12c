//! The power is cut at every single disk operation of a scripted run, and again at every operation of the recovery and
//! of what comes after it. A power cut is never damage: every open succeeds, and shows a state that was.

mod support;

use std::sync::atomic::Ordering;

use braid_env::disk::sim::Survive;
use support::{Crash, NEVER, Step, Trial};

const fn append(count: usize, len: usize) -> Step {
    Step::Append { count, len, new_term: false, wait: true }
}

const fn queue(count: usize, len: usize) -> Step {
    Step::Append { count, len, new_term: true, wait: false }
}

/// Everything the log can do, over several segments.
fn script() -> Vec<Step> {
    vec![
        Step::Vote,
        append(3, 100),
        Step::Committed,
        queue(2, 700),
        queue(1, 3000),
        Step::Vote,
        append(4, 1500),
        queue(3, 2500),
        append(1, 10),
        Step::Committed,
        Step::Checkpoint,
        Step::Truncate { drop: 2 },
        append(2, 900),
        queue(6, 2100),
        Step::Truncate { drop: 5 },
        queue(1, 40_000),
        append(2, 50),
        Step::Checkpoint,
        Step::Purge { keep: 4 },
        Step::Vote,
        queue(9, 2000),
        Step::Committed,
        append(9, 2000),
        Step::Checkpoint,
        Step::Purge { keep: 1 },
        append(1, 77),
        Step::Install { ahead: 10 },
        append(5, 1200),
        Step::PurgeBeyond { by: 3 },
        append(2, 60),
    ]
}

/// Shorter than what may have been cut off, so that anything left behind would show.
const AFTERWARDS: [Step; 3] = [append(1, 5), Step::Vote, append(2, 30)];

fn ops_of_the_script() -> u64 {
    let mut trial = Trial::new(0);
    assert!(trial.run_until(&script(), NEVER, Crash::Kill));
    let ops = trial.disk.ops();
    assert_eq!(trial.acked.load(Ordering::SeqCst), trial.states.len() - 1);
    assert!(trial.run_until(&[], NEVER, Crash::Kill));
    assert!(ops > 150, "the script does something: {ops} operations");
    ops
}

#[test]
fn at_every_operation_of_a_run() {
    let ops = ops_of_the_script();
    let mut cases = 0;
    for n in 0..ops {
        for crash in Crash::ALL {
            let seeds = if crash == Crash::Power(Survive::Random) { 8 } else { 1 };
            for seed in 0..seeds {
                let mut trial = Trial::new(n * 1000 + seed);
                assert!(!trial.run_until(&script(), n, crash) || crash == Crash::Kill);
                trial.run_until(&AFTERWARDS, NEVER, Crash::Kill);
                trial.disk.restart(Survive::Nothing);
                assert!(trial.run_until(&[], NEVER, Crash::Kill));
                cases += 1;
            }
        }
    }
    println!("{cases} cases over {ops} operations");
}

/// What a killed process leaves in the page cache is the hardest start: it can be read, and is not durable.
#[test]
fn at_every_operation_of_the_recovery_and_after_it() {
    let ops = ops_of_the_script();
    let mut cases = 0;
    for n in (0..ops).step_by(2) {
        for second in 0..26 {
            let mut trial = Trial::new(n * 1000 + second);
            let crash = |k: u64| Crash::ALL[((n / 2 + second + k) % 4) as usize];
            trial.run_until(&script(), n, crash(0));
            let at = trial.disk.ops() + second;
            trial.run_until(&AFTERWARDS, at, crash(1 + second / 4));
            trial.run_until(&AFTERWARDS, NEVER, Crash::Kill);
            trial.disk.restart(Survive::Nothing);
            assert!(trial.run_until(&[], NEVER, Crash::Kill));
            cases += 1;
        }
    }
    println!("{cases} cases over {ops} operations");
}

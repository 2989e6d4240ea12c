//! Any sequence of calls, reopenings and crashes equals a simple in-memory model.

mod support;

use braid_env::disk::sim::Survive;
use proptest::prelude::*;
use support::{Crash, NEVER, Step, Trial};

/// A process: what it does, after how many disk operations it ends before its time (if it gets that far), and how.
type Life = (Vec<Step>, u64, Crash);

fn step() -> impl Strategy<Value = Step> {
    let append = (1usize..6, 0usize..3000, any::<bool>(), any::<bool>());
    prop_oneof![
        8 => append.prop_map(|(count, len, new_term, wait)| Step::Append { count, len, new_term, wait }),
        1 => (17_000usize..40_000).prop_map(|len| Step::Append { count: 1, len, new_term: false, wait: false }),
        1 => Just(Step::Append { count: 0, len: 0, new_term: false, wait: true }),
        2 => Just(Step::Vote),
        2 => Just(Step::Committed),
        2 => (0u64..12).prop_map(|drop| Step::Truncate { drop }),
        2 => (0u64..20).prop_map(|keep| Step::Purge { keep }),
        1 => (0u64..5).prop_map(|by| Step::PurgeBeyond { by }),
        2 => Just(Step::Checkpoint),
        1 => (0u64..5).prop_map(|ahead| Step::Install { ahead }),
        4 => (any::<u64>(), 0u64..30, 0usize..9000).prop_map(|(from, len, max_bytes)| Step::Read { from, len, max_bytes }),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    let crash = prop_oneof![
        1 => Just(Crash::Power(Survive::Nothing)),
        1 => Just(Crash::Power(Survive::Everything)),
        3 => Just(Crash::Power(Survive::Random)),
        2 => Just(Crash::Kill),
    ];
    (prop::collection::vec(step(), 0..25), 0u64..160, crash)
}

/// More with PROPTEST_CASES.
fn cases(n: u32) -> ProptestConfig {
    let n = n.max(ProptestConfig::default().cases);
    ProptestConfig { cases: n, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(400))]

    /// Nothing goes wrong: after every step the log says what the model says, and a reopened log is the log that was.
    #[test]
    fn without_crashes(lives in prop::collection::vec(prop::collection::vec(step(), 0..40), 1..4), seed: u64) {
        let mut trial = Trial::new(seed);
        for steps in lives {
            trial.process(async |trial| {
                let (log, recovered) = trial.open().await.expect("nothing is wrong");
                prop_assert_eq!(recovered.cut, None);
                let before = trial.now().clone();
                let committed = trial.committed.last().copied().filter(|c| Some(*c) <= before.last());
                trial.verify(&log).await;
                prop_assert_eq!(trial.now(), &before);
                if committed.is_some() && committed == trial.committed.last().copied() {
                    prop_assert_eq!(log.committed(), committed);
                }
                for step in &steps {
                    trial.step(&log, step).await.expect("nothing is wrong");
                    trial.verify_shape(&log);
                }
                let before = trial.now().clone();
                prop_assert_eq!(support::State::of(&log, 5000).await, before);
                log.close().await.expect("nothing is wrong");
                prop_assert!(log.append(Vec::new(), Box::new(|_| ())).is_err(), "closed");
                Ok(())
            })?;
        }
    }

    /// Processes die at any operation, of a run or of a recovery, one after the other.
    #[test]
    fn with_crashes(lives in prop::collection::vec(life(), 1..6), seed: u64) {
        let mut trial = Trial::new(seed);
        for (steps, ops, crash) in lives {
            let at = trial.disk.ops() + ops;
            trial.run_until(&steps, at, crash);
        }
        trial.disk.restart(Survive::Nothing);
        prop_assert!(trial.run_until(&[], NEVER, Crash::Kill));
    }
}

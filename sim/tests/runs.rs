//! Whole runs, without probes: `cargo sim` does the same with them, for much longer.

use braid_sim::plan::{Drops, Plan, Profile};
use braid_sim::run::{Options, run};

#[test]
fn a_seed_replays() {
    for seed in [11, 12] {
        let of = |report: braid_sim::run::Report| (report.fingerprint, report.took, report.events, report.faults);
        let options = Options { seed, ..Options::default() };
        assert_eq!(of(run(options.clone())), of(run(options)), "seed {seed}");
    }
}

#[test]
fn nothing_is_violated_and_much_is_done() {
    let mut acknowledged = 0;
    for seed in 21..29 {
        let report = run(Options { seed, ..Options::default() });
        let told: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "seed {seed}:\n{}", told.join("\n"));
        acknowledged += report.acknowledged;
    }
    assert!(acknowledged > 1_000, "{acknowledged} records");
}

#[test]
fn what_is_left_out_of_a_plan_leaves_the_rest_as_it_was() {
    let mut plans = (0..100).map(|seed| Plan::draw(seed, Profile::Swarm));
    let has_some = |plan: &Plan| plan.faults.len() > 3 && plan.clients() > 2;
    let whole = plans.find(has_some).expect("a seed with something to leave out");
    let less = whole.clone().without(&Drops { faults: vec![1], triggers: Vec::new(), clients: vec![0] });
    assert_eq!((less.faults.len(), less.clients()), (whole.faults.len() - 1, whole.clients() - 1));
    assert_eq!((less.faults[0], less.faults[1]), (whole.faults[0], whole.faults[2]));
    assert_eq!(less.topology, whole.topology);
}

//! Leaves out what a failure does not need.

use braid_sim::plan::{Drops, Plan, Profile};
use braid_sim::run::{Options, run as simulate};

use super::run::{command, tell_failure};

/// One kind of thing that can be left out.
type Part = fn(&mut Drops) -> &mut Vec<usize>;

/// Shrinks the failure of a seed, and tells what is left.
pub fn run(seed: u64, bug: Option<String>, profile: Profile) -> bool {
    let mut options = Options { seed, bug, profile, ..Options::default() };
    let mut report = simulate(options.clone());
    let Some(first) = report.violations.first().cloned() else {
        println!("seed {seed} does not fail");
        return true;
    };
    let whole = Plan::draw(seed, options.profile);
    let parts: [(&str, usize, Part); 3] = [
        ("faults", whole.faults.len(), |d| &mut d.faults),
        ("triggers", whole.triggers.len(), |d| &mut d.triggers),
        ("clients", whole.clients(), |d| &mut d.clients),
    ];
    println!("seed {seed} fails with [{}] {}", first.checker, first.what);
    let mut runs = 1;
    for (name, count, part) in parts {
        // Halves first, then smaller and smaller pieces: most of a plan is beside the point.
        let mut size = count;
        while size > 0 {
            let mut at = 0;
            while at < count {
                let mut smaller = options.clone();
                let dropped = part(&mut smaller.drops);
                let piece: Vec<usize> = (at..(at + size).min(count)).filter(|nth| !dropped.contains(nth)).collect();
                at += size;
                if piece.is_empty() {
                    continue;
                }
                dropped.extend(piece);
                dropped.sort_unstable();
                let tried = simulate(smaller.clone());
                runs += 1;
                if tried.violations.iter().any(|v| v.checker == first.checker) {
                    (options, report) = (smaller, tried);
                }
            }
            size /= 2;
        }
        println!("{} of {count} {name} are left after {runs} runs", count - part(&mut options.drops.clone()).len());
    }
    tell_failure(&report, &options);
    println!("{}\n{}", report.plan, command(&options));
    false
}

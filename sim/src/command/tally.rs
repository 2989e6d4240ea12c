//! What many runs came to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use braid_probe::{Kind, Mark};
use braid_sim::run::Report;

/// Sums over runs.
#[derive(Default)]
pub struct Tally {
    runs: u64,
    failed: u64,
    simulated_ns: u128,
    acknowledged: u64,
    polls: u64,
    faults: BTreeMap<String, u64>,
    marks: BTreeMap<Mark, u64>,
}

impl Tally {
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.failed += u64::from(!report.violations.is_empty());
        self.simulated_ns += u128::from(report.took);
        self.acknowledged += report.acknowledged;
        self.polls += report.fingerprint.1;
        for (name, count) in &report.faults {
            *self.faults.entry(name.clone()).or_default() += count;
        }
        for (mark, count) in &report.marks {
            *self.marks.entry(*mark).or_default() += count;
        }
    }

    fn reached(&self) -> usize {
        self.marks.values().filter(|count| **count > 0).count()
    }

    /// One line.
    pub fn progress(&self, since: Duration) -> String {
        let hours = self.simulated_ns as f64 / 3.6e12;
        let struck: u64 = self.faults.values().sum();
        format!(
            "{:>6.0} s  {} seeds ({:.1}/s), {hours:.1} simulated hours, {struck} faults of {} kinds, {} of {} marks, \
             {} records acknowledged, {} failed",
            since.as_secs_f64(),
            self.runs,
            self.runs as f64 / since.as_secs_f64().max(0.001),
            self.faults.values().filter(|count| **count > 0).count(),
            self.reached(),
            Mark::ALL.len(),
            self.acknowledged,
            self.failed,
        )
    }

    /// Speed, faults by kind, and marks that no run reached.
    pub fn summary(&self, core_seconds: f64) -> String {
        let (hours, minutes) = (self.simulated_ns as f64 / 3.6e12, core_seconds / 60.0);
        let mut text = format!(
            "{hours:.1} simulated hours in {minutes:.1} core-minutes: {:.2} a core-minute\nfaults carried out:\n",
            hours / minutes.max(1e-9)
        );
        for (name, count) in &self.faults {
            let note = if *count == 0 { "   NEVER" } else { "" };
            writeln!(text, "  {count:>9} {name}{note}").expect("a string takes everything");
        }
        if !cfg!(feature = "probe") {
            text.push_str("marks: none, this build has no probes (cargo sim has)\n");
            return text;
        }
        let missing: Vec<&Mark> = Mark::ALL.iter().filter(|mark| !self.marks.contains_key(mark)).collect();
        writeln!(text, "marks never reached: {} of {}", missing.len(), Mark::ALL.len()).expect("as above");
        for mark in missing {
            let kind = match mark.kind() {
                Kind::Always => "always",
                Kind::Sometimes => "sometimes",
                Kind::Reachable => "reachable",
            };
            writeln!(text, "  {:<40} {kind:<10} {}", mark.name(), mark.about()).expect("as above");
        }
        text
    }
}

//! What the command line does. Each gives whether all was well.

pub mod corpus;
pub mod determinism;
pub mod mutants;
pub mod run;
pub mod shrink;
pub mod tally;
pub mod week;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use braid_sim::run::{Options, Report};

/// Processor seconds that this process has taken: what a busy machine does not add to.
pub fn core_seconds() -> f64 {
    // SAFETY: an all-zero rusage is a valid one, and getrusage fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Runs `make(0)`, `make(1)` … on `jobs` threads until it gives none or `take` says that it is enough;
/// `take` gets reports one at a time, in the order in which runs end.
pub fn many(jobs: usize, make: impl Fn(u64) -> Option<Options> + Sync, take: impl FnMut(Report) -> bool + Send) {
    let (next, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let take = Mutex::new(take);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let Some(options) = make(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let report = braid_sim::run::run(options);
                    let mut take = take.lock().expect("taking does not panic");
                    if !enough.load(Ordering::Relaxed) && !take(report) {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

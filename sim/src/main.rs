//! `cargo sim`: runs whole clusters in one thread; replays, explores, shrinks, and proves that it would find
//! what it looks for. See docs/simulator.md.

// The command line measures real time; what is simulated does not see this program.
#![allow(clippy::disallowed_methods)]

mod command;
mod interpose;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use braid_sim::plan::Profile;

/// A run makes some millions of small and short-lived allocations: docs/simulator.md has what it saves beside the
/// system's own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Every run has a thread of its own. With an arena for each core, not a few for each, it finds the memory that the run
/// before it had, and asks the system for less.
#[unsafe(export_name = "malloc_conf")]
static ALLOCATOR_OPTIONS: &[u8] = b"percpu_arena:percpu\0";

/// The deterministic simulator of Braid: one number decides a whole run.
#[derive(Parser)]
#[command(name = "cargo sim", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

/// Replays a seed, or explores for a while.
#[derive(Args, Clone)]
struct RunArgs {
    /// The seed to replay.
    #[arg(long)]
    seed: Option<u64>,
    /// Explore fresh seeds for so many minutes.
    #[arg(long, conflicts_with = "seed")]
    minutes: Option<f64>,
    /// Explore so many seeds.
    #[arg(long, conflicts_with_all = ["seed", "minutes"])]
    seeds: Option<u64>,
    /// The first seed to explore; anything, a commit's hash for instance.
    #[arg(long, default_value = "1")]
    from: String,
    /// Runs at the same time.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Print everything that happens, with `--seed`; at this level: debug, info.
    #[arg(long, num_args = 0..=1, default_missing_value = "debug")]
    trace: Option<tracing::Level>,
    /// What to leave out, by the plan's numbers: f3 (a fault), t0 (a trigger), c2 (a client).
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Plant a bug: see `cargo sim mutants --list`.
    #[arg(long)]
    bug: Option<String>,
    /// What to run: swarm, reference, idle, or the name of a kind of fault, which strikes alone then.
    #[arg(long, default_value_t)]
    profile: Profile,
}

#[derive(Subcommand)]
enum Command {
    /// Plants one bug after the other and says which checker catches it, and how soon.
    Mutants {
        /// Only list the bugs.
        #[arg(long)]
        list: bool,
        /// Only these.
        #[arg(long, value_delimiter = ',')]
        bug: Vec<String>,
        /// Core-minutes for each.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
        jobs: usize,
    },
    /// Leaves out faults and clients as long as the run still fails in the same way.
    Shrink {
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        bug: Option<String>,
        /// What it was run with.
        #[arg(long, default_value_t)]
        profile: Profile,
    },
    /// Runs every seed of the corpus: those that found something once.
    Corpus {
        #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
        jobs: usize,
    },
    /// Runs seeds twice, in two processes with different surroundings, and compares.
    Determinism {
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        #[arg(long, default_value = "1")]
        from: String,
    },
    /// Runs a seed with a planted bug that must be found: fails if it is not.
    Canary,
    /// Seven simulated days of one stream whose retention changes: what can be read, and what the disks hold.
    Week {
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Prints each seed's fingerprint; for `determinism`.
    #[command(hide = true)]
    Fingerprints {
        #[arg(long)]
        seeds: u64,
        #[arg(long)]
        from: u64,
    },
}

/// Keeps freed memory: whole segments are read and dropped all the time, and each would be given back to the system
/// and cleared anew.
fn keep_memory() {
    // SAFETY: mallopt may be called at any time; it takes two numbers.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
    }
}

fn main() -> ExitCode {
    keep_memory();
    let cli = Cli::parse();
    let fine = match cli.command {
        None => command::run::run(cli.run),
        Some(Command::Mutants { list: true, .. }) => command::mutants::list(),
        Some(Command::Mutants { bug, minutes, jobs, .. }) => command::mutants::run(&bug, minutes, jobs),
        Some(Command::Shrink { seed, bug, profile }) => command::shrink::run(seed, bug, profile),
        Some(Command::Corpus { jobs }) => command::corpus::run(jobs),
        Some(Command::Determinism { seeds, from }) => command::determinism::run(command::run::number(&from), seeds),
        Some(Command::Week { seed }) => command::week::run(seed),
        Some(Command::Canary) => command::mutants::canary(),
        Some(Command::Fingerprints { seeds, from }) => command::determinism::print(from, seeds),
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

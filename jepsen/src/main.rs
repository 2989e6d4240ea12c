//! The long runs on real processes: what they measure is in docs/performance.md.

// This program runs outside the nodes, on the machine's own clock and files.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use braid_jepsen::limits::Measured;
use braid_jepsen::{faces, limits, many, soak};
use clap::Parser;
use comfy_table::{Table, presets};

/// Runs three real nodes for a while, and says what was seen; fails where anything is wrong
///
///   cargo build --release --bin braid
///   cargo run --release -p braid-jepsen -- soak --minutes 30
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The program whose nodes run [default: the braid beside this program]
    #[arg(long, global = true)]
    braid: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Steady writers and a reader, a split or a merge every few seconds, and kill -9
    Soak {
        /// How long
        #[arg(long, default_value_t = 30.0)]
        minutes: f64,
        /// From one kill -9 to the next, in seconds
        #[arg(long, default_value_t = 60.0)]
        kill_every: f64,
    },
    /// Each limit of a shard, asked for more than it gives, without and with every leader killed once
    Limits {
        /// How long each run counts
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// The same PutRecords by gRPC and by the Kinesis API, in JSON and in CBOR
    Faces {
        /// Rounds of each
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// How long each round counts
        #[arg(long, default_value_t = 8)]
        seconds: u64,
    },
    /// Very many shards in one stream, beside a stream of ten
    Many {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        shards: u32,
        /// Rounds of writes to each stream
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// How long each round counts
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let beside = || std::env::current_exe().ok().map(|it| it.with_file_name("braid"));
    let Some(binary) = cli.braid.or_else(beside).filter(|it| it.is_file()) else {
        eprintln!("no program braid beside this one: cargo build --release --bin braid, or --braid PATH");
        return ExitCode::FAILURE;
    };
    let fine = match cli.command {
        Command::Soak { minutes, kill_every } => {
            let duration = Duration::from_secs_f64(minutes * 60.0);
            told_soak(
                &soak::run(&binary, soak::Plan { duration, kill_every: Duration::from_secs_f64(kill_every) }).await,
            )
        }
        Command::Limits { seconds } => {
            let duration = Duration::from_secs(seconds);
            let calm = limits::run(&binary, duration, false).await;
            tell_limits(&calm, &limits::run(&binary, duration, true).await);
            true
        }
        Command::Faces { rounds, seconds } => {
            tell_faces(&faces::run(&binary, rounds, Duration::from_secs(seconds)).await);
            true
        }
        Command::Many { shards, rounds, seconds } => {
            told_many(shards, &many::run(&binary, shards, rounds, Duration::from_secs(seconds)).await)
        }
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn ms(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1_000.0)
}

fn told_soak(report: &soak::Report) -> bool {
    let changes = &report.changes;
    println!(
        "{} splits, {} merges, {} of unknown outcome, {} in vain; {} times kill -9",
        changes.splits.len(),
        changes.merges.len(),
        changes.unknown,
        changes.in_vain,
        report.kills.len()
    );
    println!("{} records put, {} acknowledged", report.writes.len(), report.acked());
    println!("{} read beside the writers, {} afterwards", report.read.0, report.read.1);
    let mut waits = table(&["a writer's longest wait, ms", "events", "median", "p90", "p99", "longest"]);
    for it in report.waits() {
        let [median, p90, p99, longest] = [0.5, 0.9, 0.99, 1.0].map(|q| ms(it.quantile(q)));
        waits.add_row([it.at.to_string(), it.events().to_string(), median, p90, p99, longest]);
    }
    println!("{waits}");
    for wrong in report.violations.iter().take(20) {
        println!("WRONG: {wrong}");
    }
    println!("{} violations", report.violations.len());
    report.violations.is_empty()
}

fn tell_limits(calm: &[Measured], killed: &[Measured]) {
    let mut rows = table(&[
        "limit",
        "a second",
        "leaders killed",
        "given",
        "of it",
        "silent ms",
        "of it while served",
        "burst, s",
    ]);
    for (measured, kills) in calm.iter().zip(killed).flat_map(|(calm, killed)| [(calm, "none"), (killed, "each once")])
    {
        let limit = measured.limit.per_second() as f64;
        let share = measured.per_second / limit;
        let served = measured.over.as_secs_f64() / (measured.over - measured.silent).as_secs_f64();
        rows.add_row([
            measured.limit.name().to_string(),
            format!("{limit:.0}"),
            kills.to_string(),
            format!("{:.1}", measured.per_second),
            format!("{:.2} %", 100.0 * share),
            ms(measured.silent),
            format!("{:.2} %", 100.0 * share * served),
            format!("{:.2}", measured.burst_s),
        ]);
    }
    println!("{rows}");
}

fn tell_faces(measured: &[faces::Measured]) {
    let median = |mut of: Vec<f64>| {
        of.sort_unstable_by(f64::total_cmp);
        of[of.len() / 2]
    };
    let mut rows = table(&[
        "PutRecords of 500 × 1 KiB by",
        "body, KiB",
        "records/s in each round",
        "median",
        "to gRPC",
        "median of a call, ms",
        "nodes' CPU s for 1,000,000 records",
        "to gRPC",
    ]);
    let mut first = None;
    for face in faces::Face::ALL {
        let of = |what: fn(&faces::Measured) -> f64| {
            measured.iter().filter(|it| it.face == face).map(what).collect::<Vec<f64>>()
        };
        let rates = of(|it| it.records_per_s);
        let (rate, cpu) = (median(rates.clone()), median(of(|it| it.node_cpu_s)));
        let (to_rate, to_cpu) = *first.get_or_insert((rate, cpu));
        let rates: Vec<String> = rates.iter().map(|it| format!("{it:.0}")).collect();
        rows.add_row([
            face.name().to_string(),
            format!("{:.0}", median(of(|it| it.body_bytes as f64 / 1_024.0))),
            rates.join(", "),
            format!("{rate:.0}"),
            format!("{:.2}", rate / to_rate),
            format!("{:.1}", median(of(|it| it.call.as_secs_f64() * 1_000.0))),
            format!("{cpu:.1}"),
            format!("{:.2}", cpu / to_cpu),
        ]);
    }
    println!("{rows}");
}

fn told_many(shards: u32, report: &many::Report) -> bool {
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let per_shard = |bytes: u64| {
        let more = bytes as f64 - report.memory.few as f64;
        format!("{:.0} MiB, {:.2} KiB more per shard", bytes as f64 / 1_048_576.0, more / f64::from(shards) / 1_024.0)
    };
    let mut rows = table(&["", "seen"]);
    rows.add_row(["created".into(), seconds(report.creation)]);
    rows.add_row(["described".into(), seconds(report.describe)]);
    rows.add_row([format!("{} shards listed", report.listed), seconds(report.list)]);
    rows.add_row(["memory of a node with ten".into(), format!("{:.0} MiB", report.memory.few as f64 / 1_048_576.0)]);
    rows.add_row(["with all, none written to".into(), per_shard(report.memory.created)]);
    rows.add_row(["with all, each written to".into(), per_shard(report.memory.written)]);
    rows.add_row(["shards that have a record".into(), report.written.to_string()]);
    for (few, many) in &report.rates {
        let share = 100.0 * many / few;
        rows.add_row(["records/s: to ten, to all".into(), format!("{few:.0}, {many:.0} ({share:.0} %)")]);
    }
    rows.add_row(["one node restarted".into(), seconds(report.restart_of_one)]);
    rows.add_row(["all nodes restarted at once".into(), seconds(report.restart_of_all)]);
    println!("{rows}");
    report.listed == shards as usize && report.written == shards as usize
}

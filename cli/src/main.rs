//! The `braid` command: its arguments, and which file carries out which subcommand.
//!
//! Invariant: every way out of this program is an [`exit::Exit`] code, and every error is printed
//! once, on stderr, with what to do next where we know it. Results go to stdout and nothing else
//! does, so that output can be piped.
//!
//! Deliberately absent: any knowledge of how records travel. That is the client's, and the node's.

// An outer tool, not part of what the simulator runs: it may read clocks, files and sockets itself.
#![allow(clippy::disallowed_methods)]

mod bench;
mod cluster;
mod completions;
mod connect;
mod delivery;
mod dev;
mod exit;
mod generate;
mod get;
mod load;
mod man;
mod members;
mod moment;
mod node;
mod output;
mod pieces;
mod put;
mod scale;
mod scan;
mod shard;
mod shown;
mod size;
mod stream;
mod tail;

use clap::{Parser, Subcommand};

use connect::Endpoints;
use exit::{Exit, Failure};
use output::Format;

/// For a node's many small and short-lived buffers, and for RocksDB's: docs/performance.md has what it saves beside the
/// system's own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const AFTER_HELP: &str = "\
Start here:
  braid dev                                three nodes on this machine, data in ./braid-data
  braid stream create clicks --shards 4
  braid put clicks 'hello' --key me
  braid tail clicks --from trim-horizon

Exit codes:
  0  done
  1  failed
  2  wrong usage, or the cluster refused an argument as malformed
  3  not found: no such stream, shard, group or node
  4  refused or throttled: certainly not done
  5  unknown outcome: it may or may not have been done
  6  unreachable: no node served the request in time; nothing was done";

/// Braid: a durable, replicated stream store with the contract of Amazon Kinesis.
#[derive(Parser)]
#[command(name = "braid", version, after_help = AFTER_HELP, max_term_width = 110, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    endpoints: Endpoints,

    /// How results are printed: tables for people, JSON for programs
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t = Format::Table,
        help_heading = "Everywhere",
        global = true
    )]
    output: Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Node(Box<node::Args>),
    Dev(dev::Args),
    #[command(subcommand)]
    Stream(stream::Command),
    #[command(subcommand)]
    Shard(shard::Command),
    Scale(scale::Args),
    Put(put::Args),
    Get(get::Args),
    Tail(tail::Args),
    Generate(generate::Args),
    #[command(subcommand)]
    Cluster(cluster::Command),
    SafeToStop(members::SafeToStop),
    Bench(bench::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Tasks end at their next await; only one that is stuck would take longer.
const TASKS_END_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Failure::failed(format!("can't start the runtime: {e}")).report(),
    };
    let done = runtime.block_on(run(cli));
    // Everything the tasks hold is dropped before the process ends: RocksDB aborts if its threads
    // still run while the process is taken down. (A thread that waits for standard input is none of
    // the runtime's and is left behind.)
    runtime.shutdown_timeout(TASKS_END_WITHIN);
    match done {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => failure.report(),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { endpoints, output, command } = cli;
    match command {
        Command::Node(args) => match args.command {
            Some(command) => members::run(command, &endpoints, output).await,
            None => node::run(*args).await,
        },
        Command::Dev(args) => dev::run(args).await,
        Command::Stream(command) => stream::run(command, &endpoints, output).await,
        Command::Shard(command) => shard::run(command, &endpoints, output).await,
        Command::Scale(args) => scale::run(args, &endpoints, output).await,
        Command::Put(args) => put::run(args, &endpoints, output).await,
        Command::Get(args) => get::run(args, &endpoints, output).await,
        Command::Tail(args) => tail::run(args, &endpoints, output).await,
        Command::Generate(args) => generate::run(args, &endpoints, output).await,
        Command::Cluster(command) => cluster::run(command, &endpoints, output).await,
        Command::SafeToStop(args) => members::safe_to_stop(args, &endpoints, output).await,
        Command::Bench(args) => bench::run(args, &endpoints, output).await,
        Command::Completions(args) => completions::run::<Cli>(&args),
        Command::Man(args) => man::run::<Cli>(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }
}

//! `braid dev`: three real nodes in three zones on this machine.
//!
//! Each node is a process of its own, so that one can be killed as a machine would be. They end when
//! this process does, however it ends: they watch their standard input, which we hold open.
//!
//! Invariant: nothing is restarted by itself. A node that dies is announced, with the command that
//! starts it again; otherwise `kill -9` would teach nobody anything.

mod layout;
mod member;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use braid_client::{Client, ClientOptions};

use crate::cluster::View;
use crate::exit::{Exit, Failure};
use crate::moment::parse_duration;
use layout::{Layout, NODES};
use member::Member;

/// Run a whole cluster on this machine: three nodes in three zones
///
/// Data, configuration and logs of node N are in DATA_DIR/node-N, node-N.toml and node-N.log; they
/// are kept, so the next `braid dev` goes on where this one stopped. Ctrl-C stops all three.
///
/// Ports, with --port 4570: clients 4570-4572, nodes among themselves 4580-4582, metrics 4590-4592.
///
/// Examples:
///   braid dev
///   braid dev --data-dir /tmp/braid --port 5570
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "./braid-data")]
    data_dir: PathBuf,

    /// The first node's client port; the other ports follow from it
    #[arg(long, default_value_t = 4570, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    port: u16,

    /// Give up if the cluster isn't ready by then
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    ready_within: Duration,

    /// Whether shards' rates are enforced, as in production: on or off
    #[arg(long, value_name = "SWITCH", default_value = "on", value_parser = ["on", "off"])]
    throttle: String,

    /// What the nodes write to their logs
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// How often nodes are asked whether they are ready: often enough that nobody waits for it.
const READY_POLL: Duration = Duration::from_millis(100);

pub async fn run(args: Args) -> Result<(), Failure> {
    let layout = Layout::new(&args.data_dir, args.port, &args.throttle, &args.log_level)?;
    layout.check_free()?;
    layout.write()?;
    let mut interrupts = Interrupts::watch()?;
    let mut members = Vec::new();
    for node in 1..=NODES {
        members.push(Member::start(&layout, node).await?);
    }
    let started = Instant::now();
    eprintln!("Starting three nodes in {} …", layout.dir.display());
    let up = tokio::select! {
        up = until_ready(&layout, &mut members, args.ready_within) => up,
        () = interrupts.next() => Err(Failure::failed("interrupted before the cluster was ready")),
    };
    if let Err(failure) = up {
        stop(members).await;
        return Err(failure);
    }
    welcome(&layout, &members, started.elapsed());

    let outcome = watch(&layout, &mut members, &mut interrupts).await;
    eprintln!("\nStopping …");
    tokio::select! {
        () = stop(members) => eprintln!("Stopped. Data is kept in {}.", layout.dir.display()),
        () = interrupts.next() => eprintln!("Not waiting for the nodes to stop; what was acknowledged is on disk."),
    }
    outcome
}

/// Waits until every node is ready and every group has a leader.
async fn until_ready(layout: &Layout, members: &mut [Member], within: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + within;
    let mut seen = "no node answers".to_string();
    loop {
        for member in members.iter_mut() {
            if let Some(how) = member.ended() {
                return Err(Failure::failed(format!("node {} ended before it was ready ({how})", member.node)).hint(
                    format!("{}:\n{}", layout.log(member.node).display(), last_lines(&layout.log(member.node))),
                ));
            }
        }
        match readiness(layout).await {
            Ok(()) => return Ok(()),
            Err(why) => seen = if why.is_empty() { seen } else { why },
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(Exit::Unreachable, format!("not ready within {} s: {seen}", within.as_secs()))
                .hint(format!("The nodes' logs are in {}/node-*.log", layout.dir.display())));
        }
        tokio::time::sleep(READY_POLL).await;
    }
}

/// `Err` says what is still missing.
async fn readiness(layout: &Layout) -> Result<(), String> {
    let options = ClientOptions {
        call_timeout: Duration::from_millis(500),
        request_timeout: Duration::from_secs(2),
        ..ClientOptions::default()
    };
    let client = Client::connect(layout.endpoints(), options).await.map_err(|_| String::new())?;
    let view = View::of(&client).await.map_err(|e| e.to_string())?;
    for node in 1..=NODES {
        if !view.nodes.get(&node).is_some_and(|own| own.ready) {
            return Err(format!("node {node} is not ready"));
        }
    }
    let leaderless = view.cluster.groups.iter().find(|group| group.leader_node == 0);
    match leaderless {
        Some(group) => Err(format!("group {} has no leader", group.group)),
        None if view.cluster.groups.is_empty() => Err("no group is known yet".to_string()),
        None => Ok(()),
    }
}

fn welcome(layout: &Layout, members: &[Member], took: Duration) {
    println!(
        "Braid is ready ({:.1} s): three nodes, three zones. Every acknowledged record is on two disks.\n",
        took.as_secs_f64()
    );
    for member in members {
        let node = member.node;
        println!(
            "  node {node}  zone {}  clients {}  metrics http://{}/metrics  pid {}",
            layout.zone(node),
            layout.client(node),
            layout.metrics(node),
            member.pid
        );
    }
    // A person may have started this as target/release/braid; then that is what works for them.
    let braid = std::env::args().next().unwrap_or_else(|| "braid".into());
    let default_ports = layout.client(1) == "127.0.0.1:4570";
    println!("\nIn another terminal:\n");
    if !default_ports {
        println!("  export BRAID_ENDPOINT={}", layout.endpoints().join(","));
    }
    println!("  {braid} stream create clicks --shards 4");
    println!("  {braid} put clicks 'hello' --key me");
    println!("  {braid} tail clicks --from trim-horizon");
    println!("  {braid} cluster status");
    println!("\nOr with any Kinesis client, such as the AWS CLI (any key will do):\n");
    println!("  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1");
    println!("  aws kinesis list-streams --endpoint-url http://{}", layout.client(1));
    println!("\nTo see what a lost machine does:  kill -9 {}", members[0].pid);
    println!("Data and logs: {}   Stop: Ctrl-C", layout.dir.display());
    use std::io::Write;
    let _ = std::io::stdout().flush();
}

/// Until somebody wants to stop, or nobody is left. Says loudly when a node dies.
async fn watch(layout: &Layout, members: &mut [Member], interrupts: &mut Interrupts) -> Result<(), Failure> {
    loop {
        tokio::select! {
            () = interrupts.next() => return Ok(()),
            () = tokio::time::sleep(READY_POLL) => {}
        }
        for member in members.iter_mut() {
            let Some(how) = member.ended() else { continue };
            let node = member.node;
            eprintln!("\n*** NODE {node} (zone {}, pid {}) DIED: {how} ***", layout.zone(node), member.pid);
            eprintln!("    its log: {}", layout.log(node).display());
            eprintln!("    start it again: {}", layout.command(node));
        }
        let left = members.iter().filter(|member| member.runs()).count();
        if left == 0 {
            return Err(Failure::failed("all three nodes have died")
                .hint("What was acknowledged is on disk: `braid dev` starts them again."));
        }
    }
}

/// All at once: each hands over what it leads to whoever is still there.
async fn stop(members: Vec<Member>) {
    futures_util::future::join_all(members.into_iter().map(Member::stop)).await;
}

/// What a node said last, for an error message.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

/// Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn watch() -> Result<Interrupts, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let cant = |e: std::io::Error| Failure::failed(format!("can't watch for signals: {e}"));
        Ok(Interrupts {
            interrupt: signal(SignalKind::interrupt()).map_err(cant)?,
            terminate: signal(SignalKind::terminate()).map_err(cant)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

//! Which nodes the cluster has, and where its replicas are: `braid node list|drain|remove`, `braid cluster rebalance`,
//! `braid safe-to-stop`.
//!
//! Deliberately absent: moving anything. The cluster decides and goes on by itself; this asks, and shows how far it is.

use std::time::{Duration, Instant};

use braid_client::Client;
use braid_proto::v1;
use serde_json::json;

use crate::cluster::View;
use crate::connect::Endpoints;
use crate::exit::{Exit, Failure};
use crate::output::{Format, print_json, print_line, print_table, table};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A move that has not ended for so long is said to be slow: catching up takes as long as its log is large.
const SLOW: Duration = Duration::from_secs(60);

/// Look after the nodes of a cluster
#[derive(clap::Subcommand)]
pub enum Command {
    /// Show nodes, what the cluster wants with them, and what is on them
    ///
    /// Examples:
    ///   braid node list
    ///   braid node list -o json
    #[command(verbatim_doc_comment)]
    List,
    /// Move every replica off a node, one at a time, so that it can be removed
    ///
    /// Writers and readers go on. It can be interrupted: the cluster goes on by itself, and the same command
    /// follows it again. Until it is removed, --cancel lets the node keep what it still has.
    ///
    /// Examples:
    ///   braid node drain 3 --dry-run
    ///   braid node drain 3
    ///   braid node drain 3 --cancel
    #[command(verbatim_doc_comment)]
    Drain {
        /// The node
        node: u64,
        /// Only print the moves that it takes
        #[arg(long, conflicts_with = "cancel")]
        dry_run: bool,
        /// End it: the node keeps what it still has
        #[arg(long)]
        cancel: bool,
        /// Return once the cluster has decided so
        #[arg(long)]
        no_wait: bool,
    },
    /// Ask the nodes at the endpoints, and no others, whether they take requests: for health checks
    ///
    /// Ends with 0 if all of them do, 4 if one is up and does not, 6 if one can't be reached.
    ///
    /// Example:
    ///   braid node ready --endpoint localhost:7070
    #[command(verbatim_doc_comment)]
    Ready,
    /// Take a drained node out of the cluster for good; its id is never used again
    ///
    /// Example:
    ///   braid node drain 3 && braid node remove 3
    #[command(verbatim_doc_comment)]
    Remove {
        /// The node
        node: u64,
    },
}

/// What `braid cluster rebalance` takes.
#[derive(clap::Args)]
pub struct Rebalance {
    /// Only print the moves that it takes
    #[arg(long, conflicts_with = "cancel")]
    dry_run: bool,
    /// End it after the move that is under way
    #[arg(long)]
    cancel: bool,
    /// Return once the cluster has decided so
    #[arg(long)]
    no_wait: bool,
}

/// Ask whether a node or a zone can be stopped now without the cluster losing anything but time
///
/// Prints "yes" and ends with 0, or "no" with the reasons, one for each group that would stand still, and ends
/// with 4. It says what is true now: ask again before each node.
///
/// Examples:
///   braid safe-to-stop 2
///   braid safe-to-stop zone-a
///   braid safe-to-stop 2 && systemctl stop braid
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct SafeToStop {
    /// Nodes by their ids, or a zone by its name
    #[arg(required = true, value_name = "NODE|ZONE")]
    what: Vec<String>,
}

pub async fn run(command: Command, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let client = endpoints.connect().await?;
    match command {
        Command::List => list(&client, format).await,
        Command::Ready => ready(&client, format).await,
        Command::Drain { node: node_id, dry_run: true, .. } => {
            let asked = v1::DrainNodeRequest { node_id, dry_run: true, cancel: false };
            print_moves(&client.drain_node(asked).await?, format)
        }
        Command::Drain { node, cancel: true, .. } => {
            client.drain_node(v1::DrainNodeRequest { node_id: node, cancel: true, dry_run: false }).await?;
            said(format, &format!("node {node} keeps what it has"), json!({ "node": node, "standing": "member" }))
        }
        Command::Drain { node, no_wait, .. } => {
            let asked = v1::DrainNodeRequest { node_id: node, ..Default::default() };
            let moves = client.drain_node(asked).await?;
            print_moves(&moves, format)?;
            if !no_wait {
                follow(&client, |view| drained(view, node)).await?;
                eprintln!("Node {node} has no replicas any more: stop it, then `braid node remove {node}`.");
            }
            Ok(())
        }
        Command::Remove { node } => {
            client.remove_node(node).await?;
            said(
                format,
                &format!("node {node} left the cluster for good"),
                json!({ "node": node, "standing": "removed" }),
            )
        }
    }
}

pub async fn rebalance(args: Rebalance, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let client = endpoints.connect().await?;
    let Rebalance { dry_run, cancel, no_wait } = args;
    let moves = client.rebalance(v1::RebalanceRequest { dry_run, cancel }).await?;
    if cancel {
        return said(format, "no more replicas move after the one that is on its way", json!({ "rebalancing": false }));
    }
    print_moves(&moves, format)?;
    if dry_run || no_wait || moves.is_empty() {
        return Ok(());
    }
    follow(&client, |view| !view.rebalancing && view.moving.is_none()).await
}

pub async fn safe_to_stop(args: SafeToStop, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let client = endpoints.connect().await?;
    let mut asked = v1::SafeToStopRequest::default();
    for what in args.what {
        match what.parse() {
            Ok(node) => asked.node_ids.push(node),
            Err(_) if asked.zone.is_empty() => asked.zone = what,
            Err(_) => {
                return Err(Failure::usage(format!(
                    "{} and {what}: one zone at a time can be asked about",
                    asked.zone
                )));
            }
        }
    }
    let answer = client.safe_to_stop(asked).await?;
    match format {
        Format::Json => {
            print_json(&json!({ "safe": answer.safe, "nodes": answer.node_ids, "reasons": answer.reasons }))?;
        }
        Format::Table if answer.safe => print_line("yes")?,
        Format::Table => {
            print_line("no")?;
            for reason in &answer.reasons {
                print_line(&format!("  {reason}"))?;
            }
        }
    }
    match answer.safe {
        true => Ok(()),
        false => Err(Failure::new(Exit::Refused, "")),
    }
}

/// `client` is new, so it knows its endpoints and no other nodes.
async fn ready(client: &Client, format: Format) -> Result<(), Failure> {
    let mut all = true;
    for address in client.addresses() {
        let node = client.node_status(&address).await?;
        all &= node.ready;
        let text = if node.ready { "is ready" } else { "does not take requests" };
        said(
            format,
            &format!("node {} in zone {} {text}", node.node_id, node.zone),
            json!({ "node": node.node_id, "zone": node.zone, "ready": node.ready }),
        )?;
    }
    if all { Ok(()) } else { Err(Failure::new(Exit::Refused, "")) }
}

async fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let view = View::of(client).await?;
    if format == Format::Json {
        return Ok(print_json(&json!(view.cluster.nodes.iter().map(|node| view.node_json(node)).collect::<Vec<_>>()))?);
    }
    let mut nodes = table(&["node", "zone", "standing", "state", "replicas", "leads", "client", "peer"]);
    for node in &view.cluster.nodes {
        nodes.add_row([
            node.node_id.to_string(),
            node.zone.clone(),
            standing_text(node.standing()).to_string(),
            view.state(node),
            node.groups.len().to_string(),
            node.groups_led.len().to_string(),
            node.client_address.clone(),
            node.peer_address.clone(),
        ]);
    }
    print_table(&nodes)?;
    if let Some(line) = progress(&view.cluster) {
        eprintln!("{line}");
    }
    Ok(())
}

/// As the command line and JSON say it.
pub fn standing_text(standing: v1::NodeStanding) -> &'static str {
    match standing {
        v1::NodeStanding::Unspecified => "-",
        v1::NodeStanding::Member => "member",
        v1::NodeStanding::Draining => "draining",
        v1::NodeStanding::Removed => "removed",
        v1::NodeStanding::Replaced => "replaced",
    }
}

fn drained(view: &v1::ClusterStatusResponse, node: u64) -> bool {
    let holds = view.nodes.iter().any(|it| it.node_id == node && !it.groups.is_empty());
    let moving = view.moving.as_ref().is_some_and(|it| it.from_node == node || it.to_node == node);
    !holds && !moving
}

fn move_text(it: &v1::ReplicaMove) -> String {
    let group = if it.group == 0 { "the catalog".to_string() } else { format!("group {}", it.group) };
    format!("{group}: node {} to node {}", it.from_node, it.to_node)
}

fn move_json(it: &v1::ReplicaMove) -> serde_json::Value {
    json!({ "group": it.group, "from_node": it.from_node, "to_node": it.to_node })
}

fn print_moves(moves: &[v1::ReplicaMove], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return Ok(print_json(&json!(moves.iter().map(move_json).collect::<Vec<_>>()))?);
    }
    if moves.is_empty() {
        print_line("nothing has to move")?;
    }
    for it in moves {
        print_line(&move_text(it))?;
    }
    Ok(())
}

/// What is on its way and how much is to come; `None` if nothing is.
pub fn progress(view: &v1::ClusterStatusResponse) -> Option<String> {
    let stuck = (!view.stuck_reason.is_empty()).then(|| format!("stuck: {}", view.stuck_reason));
    let moving =
        view.moving.as_ref().map(|it| format!("moving {}, {} to come", move_text(it), view.planned_moves.len()));
    match (moving, stuck) {
        (Some(moving), Some(stuck)) => Some(format!("{moving}; {stuck}")),
        (moving, stuck) => moving.or(stuck),
    }
}

/// Says each move as it begins, until it is `over`.
async fn follow(client: &Client, over: impl Fn(&v1::ClusterStatusResponse) -> bool) -> Result<(), Failure> {
    let (mut said, mut since) = (None, Instant::now());
    loop {
        let view = client.cluster_status().await?;
        if over(&view) {
            return Ok(());
        }
        if view.moving.is_none() && view.planned_moves.is_empty() && !view.stuck_reason.is_empty() {
            return Err(
                Failure::new(Exit::Refused, view.stuck_reason).hint("It goes on by itself once there is such a node.")
            );
        }
        let line = progress(&view);
        if line != said {
            eprintln!("{}", line.as_deref().unwrap_or("waiting for the next move to begin"));
            (said, since) = (line, Instant::now());
        } else if since.elapsed() > SLOW {
            eprintln!("… still on its way: `braid cluster status` shows how many entries its replica lacks");
            since = Instant::now();
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn said(format: Format, line: &str, value: serde_json::Value) -> Result<(), Failure> {
    match format {
        Format::Json => print_json(&value)?,
        Format::Table => print_line(line)?,
    }
    Ok(())
}

//! `braid node`: one node in the foreground.
//!
//! Owns the process around a node: its log, its signals, its end. What a setting means is
//! `braid_node::config`'s; this file only hands text over, so that a mistake is reported in the
//! same words wherever it was made.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use braid_node::Node;
use braid_node::config::{Flags, NodeConfig};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;
use crate::members;

/// Run one node; or list, drain and remove nodes
///
/// Settings come from the file, then BRAID_* environment variables, then flags; later ones win.
/// docs/configuration.md explains them all. SIGTERM or Ctrl-C stops it gracefully: leaderships are
/// handed over, requests under way finish, logs are flushed. A second one stops it at once.
///
/// Examples:
///   braid node --config /etc/braid/node.toml
///   BRAID_LOG_LEVEL=debug braid node --config node-1.toml --metrics-listen 127.0.0.1:7072
#[derive(clap::Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<members::Command>,

    /// The configuration file (TOML)
    #[arg(long, value_name = "PATH", env = "BRAID_CONFIG")]
    config: Option<PathBuf>,

    /// Check the configuration, print what is wrong with it, and end
    #[arg(long)]
    check: bool,

    /// Stop when standard input ends: so that a node never outlives who started it
    #[arg(long, hide = true)]
    while_stdin_open: bool,

    #[command(flatten)]
    settings: Settings,
}

/// Every setting as a flag; its text is handed on as it is.
#[derive(clap::Args)]
#[command(next_help_heading = "Settings")]
struct Settings {
    /// This node's id; never used again after its disk is lost
    #[arg(long, value_name = "NUMBER")]
    node_id: Option<String>,
    /// The availability zone it is in
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Where it keeps everything
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where it listens for clients
    #[arg(long, value_name = "IP:PORT")]
    client_listen: Option<String>,
    /// What clients dial
    #[arg(long, value_name = "HOST:PORT")]
    client_advertise: Option<String>,
    /// Where it listens for other nodes
    #[arg(long, value_name = "IP:PORT")]
    peer_listen: Option<String>,
    /// What other nodes dial
    #[arg(long, value_name = "HOST:PORT")]
    peer_advertise: Option<String>,
    /// Where it serves metrics for Prometheus, or off
    #[arg(long, value_name = "IP:PORT")]
    metrics_listen: Option<String>,
    /// A PEM file with the client port's certificate; with --tls-key and --tls-ca it speaks TLS, and no clear text
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// A PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// A PEM file with the CA that has signed the certificates of all nodes' client ports
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<String>,
    /// The founding nodes: id=1,zone=a,peer=host:port,client=host:port;id=2,…
    #[arg(long, value_name = "NODES")]
    cluster: Option<String>,
    /// Data groups a new cluster starts with
    #[arg(long, value_name = "COUNT")]
    data_groups: Option<String>,
    /// Between a leader's heartbeats
    #[arg(long, value_name = "MS")]
    heartbeat_ms: Option<String>,
    /// The least time without a leader before a replica stands for election
    #[arg(long, value_name = "MS")]
    election_timeout_min_ms: Option<String>,
    /// The most time without a leader before a replica stands for election
    #[arg(long, value_name = "MS")]
    election_timeout_max_ms: Option<String>,
    /// Size of a log segment
    #[arg(long, value_name = "SIZE")]
    segment_bytes: Option<String>,
    /// Recent log entries kept in memory, all groups together
    #[arg(long, value_name = "SIZE")]
    cache_bytes: Option<String>,
    /// Bytes proposed and not yet acknowledged, all groups together; beyond it writes are refused
    #[arg(long, value_name = "SIZE")]
    max_inflight_bytes: Option<String>,
    /// Retention of a stream created without one
    #[arg(long, value_name = "HOURS")]
    default_retention_hours: Option<String>,
    /// The longest retention a stream may have
    #[arg(long, value_name = "HOURS")]
    retention_ceiling_hours: Option<String>,
    /// What the record index is kept in: rocksdb or memory
    #[arg(long, value_name = "KIND")]
    index: Option<String>,
    /// Whether shards' rates are enforced: on or off
    #[arg(long, value_name = "SWITCH")]
    throttle: Option<String>,
    /// Whether a stream is given at most ten UpdateShardCount calls in 24 hours: on or off
    #[arg(long, value_name = "SWITCH")]
    shard_count_limit: Option<String>,
    /// error, warn, info, debug, trace, or directives such as info,braid_node=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// The account whose streams have plain names
    #[arg(long, value_name = "DIGITS")]
    kinesis_account: Option<String>,
    /// The region whose streams have plain names
    #[arg(long, value_name = "NAME")]
    kinesis_region: Option<String>,
    /// The file of keys by which signatures are verified, or any
    #[arg(long, value_name = "PATH")]
    kinesis_credentials: Option<String>,
    /// How far a signature's time may be off; 0 takes any time
    #[arg(long, value_name = "SECONDS")]
    kinesis_clock_skew_s: Option<String>,
    /// Whether accounts are held to Kinesis' numbers of calls a second, streams and shards: on or off
    #[arg(long, value_name = "on|off")]
    kinesis_call_limits: Option<String>,
    /// For a request without a deadline of its own, and the most for one with
    #[arg(long, value_name = "MS")]
    request_deadline_ms: Option<String>,
    /// Requests served at once; beyond it they are refused
    #[arg(long, value_name = "COUNT")]
    max_concurrent_requests: Option<String>,
}

impl From<Settings> for Flags {
    fn from(s: Settings) -> Flags {
        Flags {
            node_id: s.node_id,
            zone: s.zone,
            data_dir: s.data_dir,
            client_listen: s.client_listen,
            client_advertise: s.client_advertise,
            peer_listen: s.peer_listen,
            peer_advertise: s.peer_advertise,
            metrics_listen: s.metrics_listen,
            tls_certificate: s.tls_certificate,
            tls_key: s.tls_key,
            tls_ca: s.tls_ca,
            cluster: s.cluster,
            data_groups: s.data_groups,
            heartbeat_ms: s.heartbeat_ms,
            election_timeout_min_ms: s.election_timeout_min_ms,
            election_timeout_max_ms: s.election_timeout_max_ms,
            segment_bytes: s.segment_bytes,
            cache_bytes: s.cache_bytes,
            max_inflight_bytes: s.max_inflight_bytes,
            default_retention_hours: s.default_retention_hours,
            retention_ceiling_hours: s.retention_ceiling_hours,
            index: s.index,
            throttle: s.throttle,
            shard_count_limit: s.shard_count_limit,
            log_level: s.log_level,
            kinesis_account: s.kinesis_account,
            kinesis_region: s.kinesis_region,
            kinesis_credentials: s.kinesis_credentials,
            kinesis_clock_skew_s: s.kinesis_clock_skew_s,
            kinesis_call_limits: s.kinesis_call_limits,
            request_deadline_ms: s.request_deadline_ms,
            max_concurrent_requests: s.max_concurrent_requests,
        }
    }
}

/// Stopping takes at most this long; then the process ends anyway, and its log says so. It is above
/// the sum of the node's own bounds (leaderships, requests under way).
const STOP_MAX: Duration = Duration::from_secs(30);

/// A node that is not ready yet says so this often.
const NOT_READY_TOLD: Duration = Duration::from_secs(30);

pub async fn run(args: Args) -> Result<(), Failure> {
    let config = NodeConfig::load(args.config.as_deref(), std::env::vars(), args.settings.into())
        .await
        .map_err(|e| Failure::usage(e.to_string()).hint("docs/configuration.md explains every setting."))?;
    if args.check {
        eprintln!("The configuration is valid: node {} in zone {}.", config.node_id, config.zone.as_str());
        return Ok(());
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_level))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    // Before anything that could be stopped: a signal in the first milliseconds counts too.
    let mut stop = pin!(stop_asked(args.while_stdin_open)?);
    let (id, zone) = (config.node_id, config.zone.as_str().to_string());
    tracing::info!(node = %id, %zone, version = env!("CARGO_PKG_VERSION"), "starting");
    let node = Node::start(config).await.map_err(|e| Failure::failed(e.to_string()))?;
    tracing::info!(clients = %node.client_address(), peers = %node.peer_address(), "listening");

    let why = tokio::select! {
        why = &mut stop => why,
        why = serve(&node) => {
            node.shutdown().await;
            return Err(Failure::failed(why));
        }
    };
    tracing::info!("stopping: {why}; handing over leaderships");
    let again = pin!(stop_asked(false)?);
    tokio::select! {
        () = node.shutdown() => {
            tracing::info!("stopped");
            Ok(())
        }
        why = again => Err(Failure::failed(format!("stopped at once: {why} again"))),
        () = tokio::time::sleep(STOP_MAX) => {
            Err(Failure::failed(format!("not stopped within {} s; ended anyway", STOP_MAX.as_secs())))
        }
    }
}

/// Says when the node is ready; returns only if it never will be, with the reason.
async fn serve(node: &Node) -> String {
    let mut failed = pin!(node.failed());
    loop {
        tokio::select! {
            why = &mut failed => return why,
            ready = node.ready(NOT_READY_TOLD) => match ready {
                Ok(()) => break,
                Err(why) => tracing::warn!("{why}: are the other nodes of the cluster up?"),
            },
        }
    }
    tracing::info!("ready");
    failed.await
}

/// Resolves, with the reason, when somebody wants this process to stop.
fn stop_asked(at_end_of_stdin: bool) -> Result<impl Future<Output = &'static str>, Failure> {
    let cant = |e: std::io::Error| Failure::failed(format!("can't watch for signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cant)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cant)?;
    let (closed, stdin_closed) = tokio::sync::oneshot::channel();
    if at_end_of_stdin {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = closed.send(());
        });
    } else {
        std::mem::forget(closed); // never resolves
    }
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            _ = stdin_closed => "who started it is gone or wants it to stop",
        }
    })
}

//! One node, put together: what is opened in which order, and closed in which order.
//!
//! Start: lock the data directory · record index · identity · listeners · join the cluster · catalog
//! · data groups · maintenance. Stop: hand over leaderships · refuse new requests and let those
//! under way finish · stop Raft and flush the logs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use braid_env::{disk, net, task, time, watch};
use braid_log::LogOptions;
use braid_probe::{Bug, planted};
use braid_proto::peer::peer_server::PeerServer;
use braid_stream::catalog::Settings;
use braid_stream::ids::NodeId;
use braid_transport::ServeOptions;
use tonic::service::Routes;

use crate::api::{self, Service};
use crate::clock::{self, NodeClock};
use crate::config::{IndexKind, NodeConfig};
use crate::control::{Controller, Forgetting, LocalNode, Membership, NewCluster, Seed};
use crate::index::RecordIndex;
use crate::index::ordered::OrderedIndex;
#[cfg(feature = "rocksdb")]
use crate::index::rocks::RocksIndex;
use crate::kinesis::{Access, CredentialsError, Face, Home};
use crate::maintenance;
use crate::metrics::NodeMetrics;
use crate::metrics::serve::MetricsServer;
use crate::peer::{Links, MESSAGE_BYTES_MAX, PeerService};
use crate::replication::{GroupOptions, Groups};
use crate::tls::Tls;

/// How long requests under way may take to finish when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// The windows hold several AppendEntries in flight at the largest size.
const PEER_OPTIONS: ServeOptions = ServeOptions {
    stream_window: 8 << 20,
    connection_window: 32 << 20,
    streams_per_connection: None,
    keepalive: None,
    http1: false,
};

/// How long a node that hears nobody waits for the time before it opens what it stores.
const ALONE: Duration = Duration::from_secs(2);

/// Why a node does not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory cannot be used.
    DataDir {
        /// Which.
        dir: PathBuf,
        /// Why.
        why: String,
    },
    /// An address cannot be listened on.
    Listen {
        /// The configuration's field.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// The identity does not fit the configuration or the cluster.
    Identity(String),
    /// The credentials file can't be used.
    Credentials(CredentialsError),
    /// The client port's certificate can't be used.
    Tls(String),
    /// The catalog's replica refuses.
    Catalog(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::DataDir { dir, why } => write!(f, "data_dir {}: {why}", dir.display()),
            StartError::Listen { field, address, why } => write!(f, "{field} {address}: {why}"),
            StartError::Identity(why) => write!(f, "{why}"),
            StartError::Credentials(error) => error.fmt(f),
            StartError::Tls(why) => write!(f, "{why}"),
            StartError::Catalog(why) => write!(f, "catalog: {why}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The sockets of a node.
pub struct Listeners {
    /// For the other nodes.
    pub peer: net::Listener,
    /// For clients.
    pub client: net::Listener,
}

/// A running node.
pub struct Node {
    client_address: SocketAddr,
    peer_address: SocketAddr,
    metrics_server: Option<MetricsServer>,
    groups: Arc<Groups>,
    kinesis: Face,
    ready: watch::Receiver<Result<bool, String>>,
    stop: watch::Sender<bool>,
    tasks: Vec<task::JoinHandle<()>>,
    _lock: disk::DirLock,
}

impl Node {
    /// Starts a node. Returns when it listens; it joins its cluster in the background (see
    /// [`Node::ready`]).
    pub async fn start(config: NodeConfig) -> Result<Node, StartError> {
        let listeners = Listeners {
            peer: listen("peer_listen", config.peer_listen).await?,
            client: listen("client_listen", config.client_listen).await?,
        };
        Node::start_on(config, listeners).await
    }

    /// As [`Node::start`], on sockets that are bound already: several nodes that name each other
    /// in their configurations need their ports before the first of them starts.
    pub async fn start_on(config: NodeConfig, listeners: Listeners) -> Result<Node, StartError> {
        Node::start_with(config, listeners, None).await
    }

    /// As [`Node::start_on`], with `index` instead of the one that the configuration names: an index in
    /// memory that outlives the node, as one on a disk would.
    pub async fn start_with(
        config: NodeConfig,
        listeners: Listeners,
        index: Option<Arc<dyn RecordIndex>>,
    ) -> Result<Node, StartError> {
        let dir = config.data_dir.clone();
        let in_dir = |why: String| StartError::DataDir { dir: dir.clone(), why };
        disk::create_dir_all(&dir).await.map_err(|e| in_dir(e.to_string()))?;
        let lock = disk::lock_exclusive(dir.join("LOCK")).await.map_err(|e| match e.kind() {
            std::io::ErrorKind::WouldBlock => in_dir("in use by another process".into()),
            _ => in_dir(e.to_string()),
        })?;
        let index: Arc<dyn RecordIndex> = match (index, config.index) {
            (Some(index), _) => index,
            #[cfg(feature = "rocksdb")]
            (None, IndexKind::RocksDb) => {
                let opened = RocksIndex::open(&dir.join("index")).await;
                let (index, opened) = opened.map_err(|e| in_dir(e.to_string()))?;
                tracing::info!("record index: {opened:?}");
                Arc::new(index)
            }
            #[cfg(not(feature = "rocksdb"))]
            (None, IndexKind::RocksDb) => {
                return Err(in_dir("this build has no RocksDB; set index = \"memory\"".into()));
            }
            (None, IndexKind::Memory) => Arc::new(OrderedIndex::default()),
        };
        let clock = NodeClock::start();

        let Listeners { peer: peer_listener, client: client_listener } = listeners;
        let peer_address = local(&peer_listener);
        let client_address = local(&client_listener);

        let local_node = LocalNode {
            node: config.node_id.0,
            zone: config.zone.as_str().to_string(),
            peer_address: config.peer_advertise.clone(),
            client_address: config.client_advertise.clone(),
        };
        let seeds =
            config.cluster.iter().map(|s| Seed { node: s.id.0, peer_address: s.peer_address.clone() }).collect();
        let membership = Membership::open(&dir, local_node, seeds).await.map_err(StartError::Identity)?;
        let groups = membership.groups();

        let (stop, stopping) = watch::channel(false);
        let (readiness, ready) = watch::channel(Ok(false));
        let mut tasks = Vec::new();

        let peers = PeerServer::new(PeerService::new(membership.clone(), clock.clone(), stopping.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let stopped = wait_stop(stopping.clone());
        tasks.push(task::spawn(async move {
            let served =
                braid_transport::serve(peer_listener, PEER_OPTIONS, None, Routes::new(peers).prepare(), stopped).await;
            if let Err(e) = served {
                tracing::error!("peer service ended: {e}");
            }
        }));

        let api_stop = wait_stop(stopping.clone());
        let metrics = match config.metrics_listen {
            Some(_) => NodeMetrics::new(config.node_id),
            None => NodeMetrics::disabled(config.node_id),
        };
        crate::metrics::groups::follow(&metrics, groups.clone());
        let tls = match &config.tls {
            Some(files) => Some(Tls::open(files).await.map_err(StartError::Tls)?),
            None => None,
        };
        let (shown, believed) = tls.as_ref().map(|it| (it.server.clone(), it.client.clone())).unzip();
        if let Some(tls) = tls {
            tasks.push(until_stop(tls.follow(), stopping.clone()));
        }
        let service =
            Service::new(&config, membership.clone(), index.clone(), clock.clone(), metrics.clone(), believed);
        let home = Home { account: config.kinesis_account.clone(), region: config.kinesis_region.clone() };
        let access = match &config.kinesis_credentials {
            None => Access::development(home.clone()),
            Some(path) => {
                let skew = Duration::from_secs(config.kinesis_clock_skew_s);
                let access = Access::verified(home.clone(), path, skew).await.map_err(StartError::Credentials)?;
                tasks.push(until_stop(access.clone().follow(path.clone()), stopping.clone()));
                access
            }
        };
        let kinesis = Face::new(service.clone(), home, access, config.kinesis_call_limits);
        let face = kinesis.clone();
        tasks.push(task::spawn(async move {
            if let Err(e) = api::serve(service, face, shown, client_listener, api_stop).await {
                tracing::error!("{e}");
            }
        }));

        let metrics_server = match config.metrics_listen {
            Some(address) => {
                Some(MetricsServer::start(address, metrics.clone()).await.map_err(|e| StartError::Listen {
                    field: "metrics_listen",
                    address,
                    why: e.to_string(),
                })?)
            }
            None => None,
        };

        let background = Background { config, membership, index, clock, readiness };
        tasks.push(task::spawn(background.run(stopping)));

        Ok(Node { client_address, peer_address, metrics_server, groups, kinesis, ready, stop, tasks, _lock: lock })
    }

    /// Where clients are served.
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Where peers are served.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// The groups that have a replica here; for tests and tools that look inside.
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// The Kinesis face, without a socket before it; for tests and tools that look inside.
    pub fn kinesis(&self) -> &Face {
        &self.kinesis
    }

    /// Where metrics are served, if they are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_server.as_ref().map(MetricsServer::address)
    }

    /// Waits until the node belongs to a cluster and every group it holds has a leader. The error
    /// says why it never will (a node id used before with another disk), or that time is up.
    pub async fn ready(&self, within: Duration) -> Result<(), String> {
        let mut ready = self.ready.clone();
        let settled = async {
            loop {
                match &*ready.borrow_and_update() {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(why) => return Err(why.clone()),
                }
                if ready.changed().await.is_err() {
                    return Err("the node stopped".into());
                }
            }
        };
        time::timeout(within, settled)
            .await
            .unwrap_or_else(|_| Err(format!("not ready within {} ms", within.as_millis())))
    }

    /// Waits until the node has given up: its identity was refused by the cluster.
    pub async fn failed(&self) -> String {
        let mut ready = self.ready.clone();
        loop {
            if let Err(why) = &*ready.borrow_and_update() {
                return why.clone();
            }
            if ready.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Stops the node: leaderships handed over, requests under way finished, logs flushed.
    pub async fn shutdown(self) {
        maintenance::hand_over(&self.groups).await;
        let _ = self.stop.send(true);
        for task in self.tasks {
            if time::timeout(DRAIN, task).await.is_err() {
                tracing::warn!("a task did not end within {} ms", DRAIN.as_millis());
            }
        }
        for replica in self.groups.take_all() {
            replica.shutdown().await;
        }
    }
}

async fn listen(field: &'static str, address: SocketAddr) -> Result<net::Listener, StartError> {
    net::listen(address).await.map_err(|e| StartError::Listen { field, address, why: e.to_string() })
}

fn local(listener: &net::Listener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

/// Runs what ends with the node.
fn until_stop(
    work: impl Future<Output = ()> + Send + 'static,
    stopping: watch::Receiver<bool>,
) -> task::JoinHandle<()> {
    task::spawn(async move {
        let (work, stopped) = (std::pin::pin!(work), std::pin::pin!(wait_stop(stopping)));
        futures_util::future::select(work, stopped).await;
    })
}

async fn wait_stop(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Everything that needs a cluster.
struct Background {
    config: NodeConfig,
    membership: Arc<Membership>,
    index: Arc<dyn RecordIndex>,
    clock: NodeClock,
    readiness: watch::Sender<Result<bool, String>>,
}

impl Background {
    async fn run(self, stopping: watch::Receiver<bool>) {
        let readiness = self.readiness.clone();
        let stopped = std::pin::pin!(wait_stop(stopping));
        let work = std::pin::pin!(self.work());
        if let futures_util::future::Either::Left((Err(why), _)) = futures_util::future::select(work, stopped).await {
            tracing::error!("this node takes no part in the cluster: {why}");
            let _ = readiness.send(Err(why));
        }
    }

    async fn work(self) -> Result<(), String> {
        let comes_back = self.membership.joined().is_some();
        let (directory, groups) = self.membership.join().await?;
        let me = directory.me().node;
        let links = Links::new(directory.clone());
        let c = &self.config;
        let options = GroupOptions {
            data_dir: c.data_dir.clone(),
            log: LogOptions {
                segment_bytes: c.segment_bytes,
                // The catalog's replica has a share as well.
                cache_bytes: (c.cache_bytes / (u64::from(c.data_groups) + 1)) as usize,
                ..LogOptions::default()
            },
            heartbeat: Duration::from_millis(c.heartbeat_ms),
            election_timeout: (
                Duration::from_millis(c.election_timeout_min_ms),
                Duration::from_millis(c.election_timeout_max_ms),
            ),
            inflight_bytes_max: c.max_inflight_bytes as usize,
            index: self.index.clone(),
            links: links.clone(),
            clock: self.clock.clone(),
        };
        let new_cluster = NewCluster {
            data_groups: c.data_groups,
            settings: Settings {
                replicas: if c.cluster.len() >= 3 { 3 } else { 1 },
                retention_ms_min: c.retention_floor_ms,
                retention_ms_max: c.retention_ceiling_hours * 3_600_000,
            },
        };
        let told = self.membership.clone();
        task::spawn(async move { told.tell_founders().await });
        let settled = clock::settle(&self.clock, &options.links, ALONE);
        let lease_over = async {
            if comes_back && !planted(Bug::LeaseForgotten) {
                // What this node promised before it was restarted is not stored: a leader that it answered then
                // may read by its lease, which is this long. Until that is over it neither votes nor stands.
                time::sleep(options.election_timeout.1).await;
            }
        };
        futures_util::future::join(settled, lease_over).await;
        let controller = Controller::new(self.membership.clone(), directory, groups.clone(), options, new_cluster);
        let catalog = controller.open_catalog().await?;
        let trim_every = Duration::from_millis(c.trim_every_ms);
        let forgetting = Forgetting {
            catalog: catalog.clone(),
            groups: groups.clone(),
            links: links.clone(),
            clock: self.clock.clone(),
            grace: Duration::from_millis(c.forget_grace_ms),
            every: trim_every,
        };
        let (index, clock) = (self.index.clone(), self.clock.clone());
        let keep = maintenance::run(catalog.clone(), groups.clone(), index, clock, me, trim_every);
        let watch = self.watch_ready(catalog.clone(), groups.clone(), NodeId(me));
        let keep_right = clock::keep_right(&self.clock, &links);
        futures_util::future::join5(controller.run(catalog), keep, watch, keep_right, forgetting.run()).await;
        Ok(())
    }

    /// Says when every group this node holds is open and has a leader.
    async fn watch_ready(&self, catalog: crate::replication::CatalogHandle, groups: Arc<Groups>, me: NodeId) {
        let wanted = self.config.data_groups as usize;
        loop {
            let mine = catalog.state(|c| {
                let mine = c.groups().iter().filter(|(_, replicas)| replicas.contains(&me));
                (c.groups().len() >= wanted).then(|| mine.map(|(g, _)| *g).collect::<Vec<_>>())
            });
            let led = |g| groups.get(g).is_some_and(|h| h.leader().is_some());
            if mine.is_some_and(|mine| mine.into_iter().all(led)) {
                let _ = self.readiness.send(Ok(true));
                return;
            }
            time::sleep(Duration::from_millis(50)).await;
        }
    }
}

//! A node's configuration: defaults, then the file, then the environment, then flags.
//!
//! Invariant: a [`NodeConfig`] is valid as a whole. It is checked once, here; whoever holds one
//! checks nothing again. All that is wrong is reported at once, each with the setting's name, the
//! value, where it came from and what is allowed.
//!
//! Deliberately absent: reloading, and settings of a single stream (those are in the catalog).

mod error;
mod field;
mod layers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use braid_env::disk;
use braid_stream::ids::{NodeId, Zone};
use braid_stream::limits::RETENTION_MS_MIN;

pub use error::{ConfigError, ConfigErrors, Mistake, Source};
pub use field::{FIELDS, Field};
pub use layers::Flags;
use layers::Layers;

/// Replicas of a group, each in a zone of its own.
const ZONES: usize = 3;

/// A founding node, as every node's configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Its id.
    pub id: NodeId,
    /// Its availability zone.
    pub zone: Zone,
    /// host:port that other nodes dial.
    pub peer_address: String,
    /// host:port that clients dial.
    pub client_address: String,
}

/// What the record index is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    /// RocksDB in the data directory.
    RocksDb,
    /// Memory; rebuilt from the logs at every start.
    Memory,
}

/// The PEM files that the client port has TLS with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// What it shows: its certificate first, then what leads to the CA.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// By which nodes know each other's client ports.
    pub ca: PathBuf,
}

/// A valid configuration of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Who this node is. Never used again after its disk is lost.
    pub node_id: NodeId,
    /// The availability zone it is in.
    pub zone: Zone,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub client_listen: SocketAddr,
    /// host:port that clients dial.
    pub client_advertise: String,
    /// Where it listens for other nodes.
    pub peer_listen: SocketAddr,
    /// host:port that other nodes dial.
    pub peer_advertise: String,
    /// What the client port has TLS with; `None`: it speaks in clear text.
    pub tls: Option<TlsFiles>,
    /// Where it serves metrics, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The founding nodes, by id; a node that is not among them joins.
    pub cluster: Vec<Seed>,
    /// Data groups a new cluster starts with.
    pub data_groups: u32,
    /// Between a leader's heartbeats.
    pub heartbeat_ms: u64,
    /// The least time without a leader before a replica stands for election.
    pub election_timeout_min_ms: u64,
    /// The most time without a leader before a replica stands for election.
    pub election_timeout_max_ms: u64,
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// Recent log entries kept in memory, all groups together.
    pub cache_bytes: u64,
    /// Records proposed and not yet acknowledged, all groups together; beyond it writes are refused.
    pub max_inflight_bytes: u64,
    /// Retention of a stream created without one.
    pub default_retention_hours: u64,
    /// The shortest retention a stream may have, in a new cluster. No setting: lower only in tests.
    pub retention_floor_ms: u64,
    /// How often records past their retention are trimmed. No setting: a minute, but for tests.
    pub trim_every_ms: u64,
    /// How long after its last record's retention a closed shard is forgotten. No setting: an hour, but for tests.
    pub forget_grace_ms: u64,
    /// The longest retention a stream may have.
    pub retention_ceiling_hours: u64,
    /// What the record index is kept in.
    pub index: IndexKind,
    /// Whether shards' rates are enforced.
    pub throttle: bool,
    /// Whether a stream's number of shards may be set ten times a day only.
    pub shard_count_limit: bool,
    /// Directives for the process's log.
    pub log_level: String,
    /// The account whose streams have plain names.
    pub kinesis_account: String,
    /// The region whose streams have plain names.
    pub kinesis_region: String,
    /// The file with the keys that Kinesis requests are signed with; `None`: any signature is good.
    pub kinesis_credentials: Option<PathBuf>,
    /// How far the time of a signature may be off, in seconds; 0: as far as it likes.
    pub kinesis_clock_skew_s: u64,
    /// Whether accounts are held to the service's numbers of calls a second, streams and shards.
    pub kinesis_call_limits: bool,
    /// For a request that brings no deadline of its own, and the most for one that does.
    pub request_deadline_ms: u64,
    /// Requests served at once; beyond it they are refused.
    pub max_concurrent_requests: usize,
}

impl NodeConfig {
    /// Reads the file at `path` (if any), `environment` (as from `std::env::vars`) and `flags`.
    pub async fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<NodeConfig, ConfigErrors> {
        let content = match path {
            Some(path) => Some((path, read(path).await.map_err(|e| ConfigErrors(vec![e]))?)),
            None => None,
        };
        let file = content.as_ref().map(|(path, content)| (*path, content.as_str()));
        NodeConfig::from_sources(file, environment, flags)
    }

    /// As [`NodeConfig::load`], from the file's path and content.
    pub fn from_sources(
        file: Option<(&Path, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Flags,
    ) -> Result<NodeConfig, ConfigErrors> {
        let mut layers = Layers::defaults();
        if let Some((path, content)) = file {
            layers.file(path, content);
        }
        layers.env(environment);
        layers.flags(flags);
        let mut check = Check { errors: std::mem::take(&mut layers.errors), layers };
        match check.config() {
            Some(config) if check.errors.is_empty() => Ok(config),
            _ => Err(ConfigErrors(check.errors)),
        }
    }
}

async fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |why: String| ConfigError::Unreadable { path: path.to_path_buf(), why };
    let bytes = disk::read_file(path).await.map_err(|e| unreadable(e.to_string()))?;
    String::from_utf8(bytes.to_vec()).map_err(|e| unreadable(format!("it is not utf-8: {e}")))
}

/// Parses and collects what is wrong.
struct Check {
    layers: Layers,
    errors: Vec<ConfigError>,
}

impl Check {
    /// A setting that must be given.
    fn need<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, Mistake>) -> Option<T> {
        if self.layers.get(name).is_none() {
            self.errors.push(ConfigError::Missing { name });
        }
        self.maybe(name, parse)
    }

    /// A setting that may be absent.
    fn maybe<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, Mistake>) -> Option<T> {
        let (value, source) = self.layers.get(name)?;
        match parse(value.trim()) {
            Ok(parsed) => Some(parsed),
            Err(mistake) => {
                let (value, source) = (value.clone(), source.clone());
                self.errors.push(ConfigError::NotAllowed { name, value, source, mistake });
                None
            }
        }
    }

    /// A whole number between two bounds.
    fn whole(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        self.need(name, |text| field::whole(text, min, max))
    }

    fn bytes(&mut self, name: &'static str, (min, max): (u64, u64)) -> Option<u64> {
        self.need(name, |text| field::bytes(text, min, max))
    }

    /// Notes that `name`, parsed already, does not go together with something else.
    fn conflict(&mut self, name: &'static str, why: String) {
        let (value, source) = self.layers.get(name).cloned().unwrap_or((String::new(), Source::Default));
        self.errors.push(ConfigError::Conflict { name, value, source, why });
    }

    /// `None` when something is wrong; then `errors` says what.
    fn config(&mut self) -> Option<NodeConfig> {
        // Every setting is parsed before the first `?`, so that all mistakes are reported at once.
        let node_id = self.need("node_id", field::node_id);
        let zone = self.need("zone", field::zone);
        let data_dir = self.need("data_dir", field::directory);
        let client_listen = self.need("client_listen", field::listen);
        let client_advertise = self.maybe("client_advertise", field::address);
        let peer_listen = self.need("peer_listen", field::listen);
        let peer_advertise = self.maybe("peer_advertise", field::address);
        let metrics_listen = self.maybe("metrics_listen", field::listen_or_off).flatten();
        let tls = self.tls();
        let cluster = self.need("cluster", field::cluster);
        let data_groups = self.whole("data_groups", 1, 1_000);
        let heartbeat_ms = self.whole("heartbeat_ms", 10, 10_000);
        let election_timeout_min_ms = self.whole("election_timeout_min_ms", 50, 60_000);
        let election_timeout_max_ms = self.whole("election_timeout_max_ms", 100, 120_000);
        let segment_bytes = self.bytes("segment_bytes", field::SEGMENT_BYTES);
        let cache_bytes = self.bytes("cache_bytes", field::CACHE_BYTES);
        let max_inflight_bytes = self.bytes("max_inflight_bytes", field::INFLIGHT_BYTES);
        let default_retention_hours = self.whole("default_retention_hours", 1, 8_760);
        let retention_ceiling_hours = self.whole("retention_ceiling_hours", 24, 8_760);
        let index = self.need("index", field::index_kind);
        let throttle = self.need("throttle", field::switch);
        let shard_count_limit = self.need("shard_count_limit", field::switch);
        let log_level = self.need("log_level", field::log_level);
        let kinesis_account = self.need("kinesis_account", field::account);
        let kinesis_region = self.need("kinesis_region", field::region);
        let kinesis_credentials = self.need("kinesis_credentials", field::credentials);
        let kinesis_clock_skew_s = self.whole("kinesis_clock_skew_s", 0, 86_400);
        let kinesis_call_limits = self.need("kinesis_call_limits", field::switch);
        let request_deadline_ms = self.whole("request_deadline_ms", 100, 600_000);
        let max_concurrent_requests = self.whole("max_concurrent_requests", 1, 1_000_000);

        let (node_id, zone) = (node_id?, zone?);
        let mut cluster = cluster?;
        cluster.sort_by_key(|seed| seed.id);
        let me = self.check_cluster(&cluster, node_id, &zone).cloned();
        if !self.errors.is_empty() {
            return None; // what follows would only repeat it in other words
        }
        let client_listen = client_listen?;
        let peer_listen = peer_listen?;
        let config = NodeConfig {
            client_advertise: self.advertise(
                "client_advertise",
                client_advertise,
                me.as_ref().map(|me| &me.client_address),
                client_listen,
            )?,
            peer_advertise: self.advertise(
                "peer_advertise",
                peer_advertise,
                me.as_ref().map(|me| &me.peer_address),
                peer_listen,
            )?,
            node_id,
            zone,
            data_dir: data_dir?,
            client_listen,
            peer_listen,
            tls,
            metrics_listen,
            cluster,
            data_groups: u32::try_from(data_groups?).expect("bounded above"),
            heartbeat_ms: heartbeat_ms?,
            election_timeout_min_ms: election_timeout_min_ms?,
            election_timeout_max_ms: election_timeout_max_ms?,
            segment_bytes: segment_bytes?,
            cache_bytes: cache_bytes?,
            max_inflight_bytes: max_inflight_bytes?,
            default_retention_hours: default_retention_hours?,
            retention_floor_ms: RETENTION_MS_MIN,
            trim_every_ms: 60_000,
            // Far above an iterator's five minutes, and any clock's error.
            forget_grace_ms: 3_600_000,
            retention_ceiling_hours: retention_ceiling_hours?,
            index: index?,
            throttle: throttle?,
            shard_count_limit: shard_count_limit?,
            log_level: log_level?,
            kinesis_account: kinesis_account?,
            kinesis_region: kinesis_region?,
            kinesis_credentials: kinesis_credentials?,
            kinesis_clock_skew_s: kinesis_clock_skew_s?,
            kinesis_call_limits: kinesis_call_limits?,
            request_deadline_ms: request_deadline_ms?,
            max_concurrent_requests: usize::try_from(max_concurrent_requests?).expect("bounded above"),
        };
        self.check_times(&config);
        self.check_ports(&config);
        Some(config)
    }

    /// All of its files, or none.
    fn tls(&mut self) -> Option<TlsFiles> {
        let certificate = self.maybe("tls_certificate", field::directory);
        let key = self.maybe("tls_key", field::directory);
        let ca = self.maybe("tls_ca", field::directory);
        let given = [("tls_certificate", certificate.is_some()), ("tls_key", key.is_some()), ("tls_ca", ca.is_some())];
        if given.iter().any(|it| it.1) {
            let missing = given.iter().filter(|it| !it.1).map(|it| ConfigError::Missing { name: it.0 });
            self.errors.extend(missing);
        }
        Some(TlsFiles { certificate: certificate?, key: key?, ca: ca? })
    }

    fn check_cluster<'a>(&mut self, seeds: &'a [Seed], node: NodeId, zone: &Zone) -> Option<&'a Seed> {
        let ids: BTreeSet<_> = seeds.iter().map(|seed| seed.id).collect();
        let zones: BTreeSet<_> = seeds.iter().map(|seed| &seed.zone).collect();
        let addresses: BTreeSet<_> = seeds.iter().flat_map(|seed| [&seed.peer_address, &seed.client_address]).collect();
        if ids.len() < seeds.len() {
            self.conflict("cluster", "two founding nodes have the same id".into());
        }
        if addresses.len() < 2 * seeds.len() {
            self.conflict("cluster", "an address is used twice".into());
        }
        match seeds.len() {
            1 => {}
            0 | 2 => self.conflict(
                "cluster",
                format!("{} founding nodes; have {ZONES} or more, or 1 to try things out", seeds.len()),
            ),
            _ if zones.len() < ZONES => self.conflict(
                "cluster",
                format!("its nodes are in {} zones; a group's {ZONES} replicas need one zone each", zones.len()),
            ),
            _ => {}
        }
        let me = seeds.iter().find(|seed| seed.id == node)?;
        if me.zone != *zone {
            self.conflict("zone", format!("cluster says that node {node} is in zone {:?}", me.zone.as_str()));
        }
        Some(me)
    }

    /// What others dial: as set, else as the cluster's list says, else where this node listens.
    fn advertise(
        &mut self,
        name: &'static str,
        set: Option<String>,
        listed: Option<&String>,
        listen: SocketAddr,
    ) -> Option<String> {
        match (set, listed) {
            (Some(set), Some(listed)) if set != *listed => {
                self.conflict(name, format!("cluster says {listed:?} of this node"));
                None
            }
            (Some(set), _) => Some(set),
            (None, Some(listed)) => Some(listed.clone()),
            (None, None) if listen.ip().is_unspecified() || listen.port() == 0 => {
                self.errors.push(ConfigError::Missing { name });
                None
            }
            (None, None) => Some(listen.to_string()),
        }
    }

    fn check_times(&mut self, config: &NodeConfig) {
        let (min, max) = (config.election_timeout_min_ms, config.election_timeout_max_ms);
        if min < 3 * config.heartbeat_ms {
            let why = format!(
                "one lost heartbeat must not cause an election; have at least 3 × heartbeat_ms = {}",
                3 * config.heartbeat_ms
            );
            self.conflict("election_timeout_min_ms", why);
        }
        if 2 * max < 3 * min {
            let why = format!(
                "replicas must not stand all at once; have at least 1.5 × election_timeout_min_ms = {}",
                (3 * min).div_ceil(2)
            );
            self.conflict("election_timeout_max_ms", why);
        }
        if config.default_retention_hours > config.retention_ceiling_hours {
            let why = format!("retention_ceiling_hours is {}", config.retention_ceiling_hours);
            self.conflict("default_retention_hours", why);
        }
    }

    fn check_ports(&mut self, config: &NodeConfig) {
        let clash = |a: SocketAddr, b: SocketAddr| {
            a.port() != 0
                && a.port() == b.port()
                && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
        };
        if clash(config.peer_listen, config.client_listen) {
            self.conflict("peer_listen", format!("client_listen is {}", config.client_listen));
        }
        if let Some(metrics) = config.metrics_listen
            && (clash(metrics, config.client_listen) || clash(metrics, config.peer_listen))
        {
            self.conflict("metrics_listen", "client_listen or peer_listen has that port".into());
        }
    }
}

/// Whether `text` is allowed for the setting `name`, looked at alone.
#[cfg(test)]
fn parses(name: &'static str, text: &str) -> bool {
    let mut layers = Layers::defaults();
    layers.file(Path::new("test.toml"), &format!("{name} = {text:?}"));
    let mut check = Check { layers, errors: Vec::new() };
    check.config();
    !check.errors.iter().any(|e| matches!(e, ConfigError::NotAllowed { name: n, .. } if *n == name))
}

#[cfg(test)]
mod tests;

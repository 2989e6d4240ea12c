//! Where settings come from: file, environment, flags; and which one wins.
//!
//! Invariant: a setting's text is kept with its source until it is parsed, so that every error can
//! say where to look. Nothing here knows what a value means.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::{ConfigError, Source};
use super::field::{FIELDS, field};

/// What every variable of ours begins with.
const PREFIX: &str = "BRAID_";
/// Variables of other parts of Braid: the path of the file, and the client's settings.
const OTHERS: &[&str] = &["BRAID_CONFIG", "BRAID_ENDPOINT", "BRAID_ENDPOINTS"];

/// A node's command line settings, as text; the command line fills what was given.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // each is the setting of its name
pub struct Flags {
    pub node_id: Option<String>,
    pub zone: Option<String>,
    pub data_dir: Option<String>,
    pub client_listen: Option<String>,
    pub client_advertise: Option<String>,
    pub peer_listen: Option<String>,
    pub peer_advertise: Option<String>,
    pub metrics_listen: Option<String>,
    pub tls_certificate: Option<String>,
    pub tls_key: Option<String>,
    pub tls_ca: Option<String>,
    pub cluster: Option<String>,
    pub data_groups: Option<String>,
    pub heartbeat_ms: Option<String>,
    pub election_timeout_min_ms: Option<String>,
    pub election_timeout_max_ms: Option<String>,
    pub segment_bytes: Option<String>,
    pub cache_bytes: Option<String>,
    pub max_inflight_bytes: Option<String>,
    pub default_retention_hours: Option<String>,
    pub retention_ceiling_hours: Option<String>,
    pub index: Option<String>,
    pub throttle: Option<String>,
    pub shard_count_limit: Option<String>,
    pub log_level: Option<String>,
    pub kinesis_account: Option<String>,
    pub kinesis_region: Option<String>,
    pub kinesis_credentials: Option<String>,
    pub kinesis_clock_skew_s: Option<String>,
    pub kinesis_call_limits: Option<String>,
    pub request_deadline_ms: Option<String>,
    pub max_concurrent_requests: Option<String>,
}

impl Flags {
    fn given(self) -> impl Iterator<Item = (&'static str, String)> {
        let texts = [
            ("node_id", self.node_id),
            ("zone", self.zone),
            ("data_dir", self.data_dir),
            ("client_listen", self.client_listen),
            ("client_advertise", self.client_advertise),
            ("peer_listen", self.peer_listen),
            ("peer_advertise", self.peer_advertise),
            ("metrics_listen", self.metrics_listen),
            ("tls_certificate", self.tls_certificate),
            ("tls_key", self.tls_key),
            ("tls_ca", self.tls_ca),
            ("cluster", self.cluster),
            ("data_groups", self.data_groups),
            ("heartbeat_ms", self.heartbeat_ms),
            ("election_timeout_min_ms", self.election_timeout_min_ms),
            ("election_timeout_max_ms", self.election_timeout_max_ms),
            ("segment_bytes", self.segment_bytes),
            ("cache_bytes", self.cache_bytes),
            ("max_inflight_bytes", self.max_inflight_bytes),
            ("default_retention_hours", self.default_retention_hours),
            ("retention_ceiling_hours", self.retention_ceiling_hours),
            ("index", self.index),
            ("throttle", self.throttle),
            ("shard_count_limit", self.shard_count_limit),
            ("log_level", self.log_level),
            ("kinesis_account", self.kinesis_account),
            ("kinesis_region", self.kinesis_region),
            ("kinesis_credentials", self.kinesis_credentials),
            ("kinesis_clock_skew_s", self.kinesis_clock_skew_s),
            ("kinesis_call_limits", self.kinesis_call_limits),
            ("request_deadline_ms", self.request_deadline_ms),
            ("max_concurrent_requests", self.max_concurrent_requests),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name, text?)))
    }
}

/// The text of every setting that was given, and where it came from.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    given: BTreeMap<&'static str, (String, Source)>,
    /// What could not be understood at all.
    pub errors: Vec<ConfigError>,
}

impl Layers {
    /// Defaults. Later layers win over earlier ones.
    pub fn defaults() -> Layers {
        let given = FIELDS
            .iter()
            .filter_map(|field| Some((field.name, (field.default?.to_string(), Source::Default))))
            .collect();
        Layers { given, errors: Vec::new() }
    }

    /// The text of one setting.
    pub fn get(&self, name: &'static str) -> Option<&(String, Source)> {
        self.given.get(name)
    }

    /// Adds the content of the file at `path`.
    pub fn file(&mut self, path: &Path, content: &str) {
        let table = match content.parse::<toml::Table>() {
            Ok(table) => table,
            Err(e) => {
                let why = e.to_string();
                self.errors.push(ConfigError::NotToml { path: path.to_path_buf(), why });
                return;
            }
        };
        for (name, value) in table {
            let source = Source::File(path.to_path_buf());
            match field(&name) {
                Some(known) => {
                    self.given.insert(known.name, (text_of(&value), source));
                }
                None => self.errors.push(ConfigError::Unknown { name, source }),
            }
        }
    }

    /// Adds variables of the environment; those that are not ours are skipped, empty ones count as
    /// not set.
    pub fn env(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (variable, text) in variables {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            if text.is_empty() || OTHERS.contains(&variable.as_str()) || is_service_link(&variable) {
                continue;
            }
            let name = name.to_lowercase();
            let source = Source::Env(variable);
            match field(&name) {
                Some(known) => {
                    self.given.insert(known.name, (text, source));
                }
                None => self.errors.push(ConfigError::Unknown { name, source }),
            }
        }
    }

    /// Adds the command line.
    pub fn flags(&mut self, flags: Flags) {
        for (name, text) in flags.given() {
            let source = Source::Flag(format!("--{}", name.replace('_', "-")));
            self.given.insert(name, (text, source));
        }
    }
}

/// Kubernetes puts `BRAID_PORT_7070_TCP_ADDR`, `BRAID_SERVICE_HOST` and the like into every pod
/// beside a service named "braid".
fn is_service_link(variable: &str) -> bool {
    variable.ends_with("_PORT")
        || variable.contains("_PORT_")
        || variable.contains("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
}

/// A TOML value as the text a flag would have. What no setting can be stays as TOML writes it, and
/// is refused by the setting's parser.
fn text_of(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(seeds) => seeds.iter().map(seed_text).collect::<Vec<_>>().join(";"),
        other => other.to_string(),
    }
}

fn seed_text(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(parts) => {
            parts.iter().map(|(key, value)| format!("{key}={}", text_of(value))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_flag() {
        let every = || Some("x".to_string());
        let flags = Flags {
            node_id: every(),
            zone: every(),
            data_dir: every(),
            client_listen: every(),
            client_advertise: every(),
            peer_listen: every(),
            peer_advertise: every(),
            metrics_listen: every(),
            tls_certificate: every(),
            tls_key: every(),
            tls_ca: every(),
            cluster: every(),
            data_groups: every(),
            heartbeat_ms: every(),
            election_timeout_min_ms: every(),
            election_timeout_max_ms: every(),
            segment_bytes: every(),
            cache_bytes: every(),
            max_inflight_bytes: every(),
            default_retention_hours: every(),
            retention_ceiling_hours: every(),
            index: every(),
            throttle: every(),
            shard_count_limit: every(),
            log_level: every(),
            kinesis_account: every(),
            kinesis_region: every(),
            kinesis_credentials: every(),
            kinesis_clock_skew_s: every(),
            kinesis_call_limits: every(),
            request_deadline_ms: every(),
            max_concurrent_requests: every(),
        };
        let given: Vec<_> = flags.given().map(|(name, _)| name).collect();
        let fields: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(given, fields);
    }

    #[test]
    fn later_layers_win() {
        let mut layers = Layers::defaults();
        let of = |layers: &Layers| layers.get("data_groups").unwrap().clone();
        assert_eq!(of(&layers), ("6".into(), Source::Default));
        layers.file(Path::new("b.toml"), "data_groups = 7");
        assert_eq!(of(&layers), ("7".into(), Source::File("b.toml".into())));
        layers.env([("BRAID_DATA_GROUPS".into(), "8".into()), ("PATH".into(), "/bin".into())]);
        assert_eq!(of(&layers), ("8".into(), Source::Env("BRAID_DATA_GROUPS".into())));
        layers.env([("BRAID_DATA_GROUPS".into(), String::new())]);
        assert_eq!(of(&layers).0, "8", "an empty variable is not set");
        layers.flags(Flags { data_groups: Some("9".into()), ..Flags::default() });
        assert_eq!(of(&layers), ("9".into(), Source::Flag("--data-groups".into())));
        assert_eq!(layers.errors, []);
    }

    #[test]
    fn what_others_put_into_the_environment_is_left_alone() {
        let mut layers = Layers::defaults();
        let others = [
            "BRAID_PORT",
            "BRAID_PORT_7070_TCP_ADDR",
            "BRAID_SERVICE_HOST",
            "BRAID_PEER_SERVICE_PORT_X",
            "BRAID_CONFIG",
        ];
        layers.env(others.map(|name| (name.to_string(), "x".to_string())));
        assert_eq!(layers.errors, []);
        layers.env([("BRAID_DATA_GROUP".into(), "8".into())]);
        assert_eq!(layers.errors.len(), 1);
    }

    #[test]
    fn the_clusters_tables_become_one_text() {
        let mut layers = Layers::defaults();
        layers.file(
            Path::new("b.toml"),
            "[[cluster]]\nid = 1\nzone = 'a'\npeer = 'h:1'\nclient = 'h:2'\n[[cluster]]\nid = 2\n",
        );
        let (text, _) = layers.get("cluster").unwrap();
        assert_eq!(text, "client=h:2,id=1,peer=h:1,zone=a;id=2");
    }
}

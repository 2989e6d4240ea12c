//! The table of settings: names, defaults, what is allowed, and how each text becomes a value.
//!
//! Invariant: a setting has one name, written `data_groups` in the file, `BRAID_DATA_GROUPS` in
//! the environment and `--data-groups` as a flag; and one parser, whatever it came from. So the
//! same mistake is reported in the same words everywhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use braid_stream::ids::{NodeId, Zone};

use super::error::Mistake;
use super::{IndexKind, Seed};
use crate::kinesis::{is_account, is_region};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// One setting.
pub struct Field {
    /// Its name in the file.
    pub name: &'static str,
    /// The text used when nobody gives one; `None`: see `absent`.
    pub default: Option<&'static str>,
    /// What may be written, for people.
    pub allowed: &'static str,
}

/// Every setting, in the order in which they are explained and reported.
pub const FIELDS: &[Field] = &[
    Field {
        name: "node_id",
        default: None,
        allowed: "a whole number from 1 to 18446744073709551615, never used by another node of the cluster",
    },
    Field { name: "zone", default: None, allowed: "the availability zone's name: 1 to 64 of [a-zA-Z0-9_.-]" },
    Field { name: "data_dir", default: None, allowed: "a directory" },
    Field {
        name: "client_listen",
        default: Some("0.0.0.0:7070"),
        allowed: "an ip address and a port, such as 0.0.0.0:7070 or [::]:7070",
    },
    Field {
        name: "client_advertise",
        default: None,
        allowed: "host:port as clients reach this node, with a port from 1 to 65535",
    },
    Field {
        name: "peer_listen",
        default: Some("0.0.0.0:7071"),
        allowed: "an ip address and a port, such as 0.0.0.0:7071 or [::]:7071",
    },
    Field {
        name: "peer_advertise",
        default: None,
        allowed: "host:port as other nodes reach this node, with a port from 1 to 65535",
    },
    Field { name: "metrics_listen", default: None, allowed: "an ip address and a port, such as 0.0.0.0:7072; or off" },
    Field {
        name: "tls_certificate",
        default: None,
        allowed: "a PEM file with the client port's certificate, and what leads from it to its CA; together with tls_key and tls_ca",
    },
    Field { name: "tls_key", default: None, allowed: "a PEM file with the private key of tls_certificate" },
    Field {
        name: "tls_ca",
        default: None,
        allowed: "a PEM file with the CA that has signed the certificates of all nodes' client ports",
    },
    Field {
        name: "cluster",
        default: None,
        allowed: "the founding nodes: in the file a list of tables {id, zone, peer, client}, elsewhere id=1,zone=a,peer=host:port,client=host:port;id=2,…",
    },
    Field { name: "data_groups", default: Some("6"), allowed: "a whole number from 1 to 1000" },
    Field { name: "heartbeat_ms", default: Some("250"), allowed: "milliseconds from 10 to 10000" },
    Field {
        name: "election_timeout_min_ms",
        default: Some("750"),
        allowed: "milliseconds from 50 to 60000, at least 3 heartbeats",
    },
    Field {
        name: "election_timeout_max_ms",
        default: Some("1200"),
        allowed: "milliseconds from 100 to 120000, at least 1.5 times election_timeout_min_ms",
    },
    Field {
        name: "segment_bytes",
        default: Some("64MiB"),
        allowed: "bytes from 32MiB to 1GiB, with KiB, MiB or GiB if you like",
    },
    Field {
        name: "cache_bytes",
        default: Some("64MiB"),
        allowed: "bytes from 1MiB to 1024GiB for all groups together, with KiB, MiB or GiB if you like",
    },
    Field {
        name: "max_inflight_bytes",
        default: Some("64MiB"),
        allowed: "bytes from 16MiB to 16GiB, with KiB, MiB or GiB if you like",
    },
    Field { name: "default_retention_hours", default: Some("24"), allowed: "hours from 1 to retention_ceiling_hours" },
    Field { name: "retention_ceiling_hours", default: Some("168"), allowed: "hours from 24 to 8760" },
    Field { name: "index", default: Some("rocksdb"), allowed: "rocksdb or memory" },
    Field { name: "throttle", default: Some("on"), allowed: "on or off" },
    Field { name: "shard_count_limit", default: Some("on"), allowed: "on or off" },
    Field {
        name: "log_level",
        default: Some("info,openraft=warn"),
        allowed: "error, warn, info, debug or trace, or directives such as info,braid_node=debug",
    },
    Field {
        name: "kinesis_account",
        default: Some("000000000000"),
        allowed: "the account whose streams have plain names: 12 digits, the same on every node",
    },
    Field {
        name: "kinesis_region",
        default: Some("us-east-1"),
        allowed: "the region whose streams have plain names: 1 to 40 of [a-z0-9-], the same on every node",
    },
    Field {
        name: "kinesis_credentials",
        default: Some("any"),
        allowed: "a file of keys by which signatures are verified; or any, which takes every signature",
    },
    Field { name: "kinesis_clock_skew_s", default: Some("300"), allowed: "seconds from 0 to 86400; 0 takes any time" },
    Field { name: "kinesis_call_limits", default: Some("off"), allowed: "on or off" },
    Field { name: "request_deadline_ms", default: Some("10000"), allowed: "milliseconds from 100 to 600000" },
    Field { name: "max_concurrent_requests", default: Some("4096"), allowed: "a whole number from 1 to 1000000" },
];

/// The setting of that name.
pub fn field(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

/// The setting's name most like `name`, if one is close enough to be meant.
pub fn most_like(name: &str) -> Option<&'static str> {
    FIELDS
        .iter()
        .map(|field| (edits(name, field.name), field.name))
        .min()
        .filter(|(edits, meant)| *edits <= 2.max(meant.len() / 4))
        .map(|(_, meant)| meant)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Parsers: each takes the text of a value and says nothing but yes or no; the table has the words.
type Parsed<T> = Result<T, Mistake>;

/// `None`: any signature is good.
pub fn credentials(text: &str) -> Parsed<Option<PathBuf>> {
    match text {
        "" => Err(Mistake::Value),
        "any" => Ok(None),
        path => Ok(Some(PathBuf::from(path))),
    }
}

pub fn account(text: &str) -> Parsed<String> {
    if is_account(text) { Ok(text.to_string()) } else { Err(Mistake::Value) }
}

pub fn region(text: &str) -> Parsed<String> {
    if is_region(text) { Ok(text.to_string()) } else { Err(Mistake::Value) }
}

pub fn node_id(text: &str) -> Parsed<NodeId> {
    whole(text, 1, u64::MAX).map(NodeId)
}

pub fn zone(text: &str) -> Parsed<Zone> {
    Zone::parse(text).map_err(|_| Mistake::Value)
}

pub fn directory(text: &str) -> Parsed<PathBuf> {
    match text.is_empty() {
        true => Err(Mistake::Value),
        false => Ok(PathBuf::from(text)),
    }
}

pub fn listen(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| Mistake::Value)
}

pub fn listen_or_off(text: &str) -> Parsed<Option<SocketAddr>> {
    match text {
        "off" => Ok(None),
        _ => listen(text).map(Some),
    }
}

/// `host:port` that others can dial. Port 0 or the unspecified address can be listened on, but
/// nobody can reach them.
pub fn address(text: &str) -> Parsed<String> {
    let (host, port) = text.rsplit_once(':').ok_or(Mistake::Value)?;
    let v6 = host.starts_with('[') && host.ends_with(']');
    let plain = !host.is_empty() && !host.contains([':', '/', ' ', '[', ']', ',', ';', '=']);
    if !matches!(port.parse::<u16>(), Ok(1..)) || !(v6 || plain) {
        return Err(Mistake::Value);
    }
    match text.parse::<SocketAddr>() {
        Ok(parsed) if parsed.ip().is_unspecified() => Err(Mistake::Value),
        Err(_) if v6 => Err(Mistake::Value),
        _ if text.len() > braid_stream::limits::ADDRESS_CHARS_MAX => Err(Mistake::Value),
        _ => Ok(text.to_string()),
    }
}

pub fn whole(text: &str, min: u64, max: u64) -> Parsed<u64> {
    // `u64::from_str` takes a sign; a setting does not.
    match text.parse::<u64>() {
        Ok(value) if (min..=max).contains(&value) && !text.starts_with('+') => Ok(value),
        _ => Err(Mistake::Value),
    }
}

pub fn bytes(text: &str, min: u64, max: u64) -> Parsed<u64> {
    let units = [("KiB", KIB), ("MiB", MIB), ("GiB", GIB)];
    let (digits, unit) = units
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|digits| (digits.trim_end(), *unit)))
        .unwrap_or((text, 1));
    let count = whole(digits, 0, u64::MAX)?;
    match count.checked_mul(unit) {
        Some(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(Mistake::Value),
    }
}

pub fn switch(text: &str) -> Parsed<bool> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(Mistake::Value),
    }
}

pub fn index_kind(text: &str) -> Parsed<IndexKind> {
    match text {
        "rocksdb" => Ok(IndexKind::RocksDb),
        "memory" => Ok(IndexKind::Memory),
        _ => Err(Mistake::Value),
    }
}

pub fn log_level(text: &str) -> Parsed<String> {
    match !text.is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok() {
        true => Ok(text.to_string()),
        false => Err(Mistake::Value),
    }
}

/// `id=1,zone=a,peer=host:port,client=host:port` for each founding node, separated by semicolons.
pub fn cluster(text: &str) -> Parsed<Vec<Seed>> {
    text.split(';').filter(|seed| !seed.trim().is_empty()).map(seed).collect()
}

fn seed(text: &str) -> Parsed<Seed> {
    let (mut id, mut zone_of, mut peer, mut client) = (None, None, None, None);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or(Mistake::Seed { seed: text.trim().to_string() })?;
        let (key, value) = (key.trim(), value.trim());
        let bad = |_| Mistake::SeedPart { seed: text.trim().to_string(), key: key.to_string() };
        let given_twice = match key {
            "id" => id.replace(node_id(value).map_err(bad)?).is_some(),
            "zone" => zone_of.replace(zone(value).map_err(bad)?).is_some(),
            "peer" => peer.replace(address(value).map_err(bad)?).is_some(),
            "client" => client.replace(address(value).map_err(bad)?).is_some(),
            _ => return Err(bad(Mistake::Value)),
        };
        if given_twice {
            return Err(bad(Mistake::Value));
        }
    }
    let missing = || Mistake::Seed { seed: text.trim().to_string() };
    Ok(Seed {
        id: id.ok_or_else(missing)?,
        zone: zone_of.ok_or_else(missing)?,
        peer_address: peer.ok_or_else(missing)?,
        client_address: client.ok_or_else(missing)?,
    })
}

pub const SEGMENT_BYTES: (u64, u64) = (32 * MIB, GIB);
pub const CACHE_BYTES: (u64, u64) = (MIB, 1024 * GIB);
pub const INFLIGHT_BYTES: (u64, u64) = (16 * MIB, 16 * GIB);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed_by_its_own_parser() {
        for field in FIELDS {
            let Some(text) = field.default else { continue };
            assert!(super::super::parses(field.name, text), "{} = {text}", field.name);
        }
    }

    #[test]
    fn addresses_can_be_dialled() {
        for good in ["localhost:1", "a.b-c:65535", "[::1]:7070", "10.0.0.1:80"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a", ":1", "a:", "a:0", "a:65536", "0.0.0.0:1", "[::]:1", "a b:1", "http://a:1", "[x]:1", "::1:1"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_take_units() {
        assert_eq!(bytes("64MiB", 1, u64::MAX).unwrap(), 64 << 20);
        assert_eq!(bytes("1 GiB", 1, u64::MAX).unwrap(), 1 << 30);
        assert_eq!(bytes("512", 1, u64::MAX).unwrap(), 512);
        for bad in ["", "MiB", "-1", "+1", "1.5GiB", "64MB", "99999999999GiB"] {
            assert!(bytes(bad, 0, u64::MAX).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_typing_error_finds_what_was_meant() {
        assert_eq!(most_like("data_group"), Some("data_groups"));
        assert_eq!(most_like("heartbeet_ms"), Some("heartbeat_ms"));
        assert_eq!(most_like("colour"), None);
    }
}

//! The configuration as a whole: what is accepted, and the exact words of what is refused.

use super::*;

const THREE: &str = "id=1,zone=a,peer=one:7071,client=one:7070;\
                     id=2,zone=b,peer=two:7071,client=two:7070;\
                     id=3,zone=c,peer=three:7071,client=three:7070";

fn with(changes: &[(&str, &str)]) -> Result<NodeConfig, ConfigErrors> {
    let mut text = String::new();
    let base = [("node_id", "1"), ("zone", "a"), ("data_dir", "/d"), ("cluster", THREE)];
    for (name, value) in base.iter().filter(|(name, _)| !changes.iter().any(|(n, _)| n == name)).chain(changes) {
        if *value != "(absent)" {
            text += &format!("{name} = {value:?}\n");
        }
    }
    NodeConfig::from_sources(Some((Path::new("braid.toml"), &text)), [], Flags::default())
}

#[test]
fn the_least_configuration_gets_the_defaults() {
    let config = with(&[]).unwrap();
    assert_eq!(config.node_id, NodeId(1));
    assert_eq!(config.client_advertise, "one:7070");
    assert_eq!(config.peer_advertise, "one:7071");
    assert_eq!(config.metrics_listen, None);
    assert_eq!(config.cluster.len(), 3);
    assert_eq!(config.cluster[2].zone.as_str(), "c");
    assert_eq!((config.data_groups, config.heartbeat_ms), (6, 250));
    assert_eq!((config.election_timeout_min_ms, config.election_timeout_max_ms), (750, 1200));
    assert_eq!(config.segment_bytes, 64 << 20);
    assert_eq!((config.default_retention_hours, config.retention_ceiling_hours), (24, 168));
    assert_eq!((config.index, config.throttle, config.shard_count_limit), (IndexKind::RocksDb, true, true));
}

#[test]
fn a_joining_node_says_itself_where_it_is() {
    let joining = |changes: &[(&str, &str)]| {
        let all: Vec<_> = [("node_id", "4")].iter().chain(changes).copied().collect();
        with(&all)
    };
    let text = joining(&[]).unwrap_err().to_string();
    assert!(text.contains("client_advertise is not set"), "{text}");
    let config = joining(&[("client_listen", "10.0.0.4:1"), ("peer_advertise", "four:2")]).unwrap();
    assert_eq!((config.client_advertise.as_str(), config.peer_advertise.as_str()), ("10.0.0.4:1", "four:2"));
}

#[test]
fn toml_numbers_and_booleans_are_taken_as_they_are() {
    let text = "node_id = 1\nzone = 'a'\ndata_dir = '/d'\nthrottle = false\nsegment_bytes = 67108864\n\
                [[cluster]]\nid = 1\nzone = 'a'\npeer = 'h:1'\nclient = 'h:2'\n";
    let config = NodeConfig::from_sources(Some((Path::new("b.toml"), text)), [], Flags::default()).unwrap();
    assert!(!config.throttle);
    assert_eq!(config.cluster.len(), 1);
}

/// (changes, what the message must say)
const REFUSED: &[(&[(&str, &str)], &str)] = &[
    (
        &[("node_id", "0")],
        "node_id = \"0\" (from file braid.toml) is not allowed; allowed: a whole number from 1 to \
         18446744073709551615, never used by another node of the cluster",
    ),
    (
        &[("node_id", "(absent)")],
        "node_id is not set; set node_id in the file, BRAID_NODE_ID in the environment or --node-id; allowed: a whole number",
    ),
    (
        &[("zone", "two words")],
        "zone = \"two words\" (from file braid.toml) is not allowed; allowed: the availability zone's name",
    ),
    (&[("zone", "b")], "zone = \"b\" (from file braid.toml) does not fit: cluster says that node 1 is in zone \"a\""),
    (&[("data_dir", "")], "data_dir = \"\" (from file braid.toml) is not allowed; allowed: a directory"),
    (
        &[("client_listen", "localhost:7070")],
        "client_listen = \"localhost:7070\" (from file braid.toml) is not allowed; allowed: an ip address and a port",
    ),
    (&[("client_advertise", "0.0.0.0:7070")], "is not allowed; allowed: host:port as clients reach this node"),
    (&[("client_advertise", "other:7070")], "does not fit: cluster says \"one:7070\" of this node"),
    (&[("peer_listen", "0.0.0.0:7070")], "does not fit: client_listen is 0.0.0.0:7070"),
    (&[("metrics_listen", "127.0.0.1:7071")], "does not fit: client_listen or peer_listen has that port"),
    (&[("cluster", "")], "0 founding nodes; have 3 or more, or 1 to try things out"),
    (&[("cluster", "id=1,zone=a,peer=x:1")], "because node \"id=1,zone=a,peer=x:1\" lacks id, zone, peer or client"),
    (&[("cluster", "id=1,zone=a,peer=x,client=x:2")], "because of \"peer\" in node \"id=1,zone=a,peer=x,client=x:2\""),
    (&[("cluster", "id=1,zone=a,pear=x:1,client=x:2")], "because of \"pear\" in node"),
    (&[("cluster", "id=1,id=2,zone=a,peer=x:1,client=x:2")], "because of \"id\" in node"),
    (
        &[(
            "cluster",
            "id=1,zone=a,peer=x:1,client=x:2;id=1,zone=b,peer=x:3,client=x:4;id=2,zone=c,peer=x:5,client=x:6",
        )],
        "two founding nodes have the same id",
    ),
    (&[("cluster", "id=1,zone=a,peer=x:1,client=x:1")], "an address is used twice"),
    (
        &[(
            "cluster",
            "id=1,zone=a,peer=x:1,client=x:2;id=2,zone=b,peer=x:3,client=x:4;id=3,zone=a,peer=x:5,client=x:6",
        )],
        "its nodes are in 2 zones; a group's 3 replicas need one zone each",
    ),
    (
        &[("data_groups", "many")],
        "data_groups = \"many\" (from file braid.toml) is not allowed; allowed: a whole number from 1 to 1000",
    ),
    (&[("heartbeat_ms", "9")], "allowed: milliseconds from 10 to 10000"),
    (&[("election_timeout_min_ms", "600")], "have at least 3 × heartbeat_ms = 750"),
    (&[("election_timeout_max_ms", "1100")], "have at least 1.5 × election_timeout_min_ms = 1125"),
    (
        &[("segment_bytes", "64MB")],
        "segment_bytes = \"64MB\" (from file braid.toml) is not allowed; allowed: bytes from 32MiB",
    ),
    (&[("cache_bytes", "-1")], "cache_bytes = \"-1\""),
    (&[("max_inflight_bytes", "1KiB")], "max_inflight_bytes = \"1KiB\""),
    (&[("default_retention_hours", "200")], "does not fit: retention_ceiling_hours is 168"),
    (&[("retention_ceiling_hours", "8761")], "allowed: hours from 24 to 8760"),
    (&[("index", "sled")], "index = \"sled\" (from file braid.toml) is not allowed; allowed: rocksdb or memory"),
    (&[("throttle", "maybe")], "allowed: on or off"),
    (&[("log_level", "loud=very")], "log_level = \"loud=very\""),
    (&[("request_deadline_ms", "5")], "allowed: milliseconds from 100 to 600000"),
    (&[("max_concurrent_requests", "0")], "allowed: a whole number from 1 to 1000000"),
    (&[("data_group", "5")], "data_group (from file braid.toml) is not a setting; did you mean data_groups?"),
    (&[("colour", "red")], "colour (from file braid.toml) is not a setting"),
];

#[test]
fn every_refusal_says_what_where_and_what_is_allowed() {
    for (changes, expected) in REFUSED {
        let text = with(changes).expect_err(&format!("{changes:?} was accepted")).to_string();
        assert!(text.contains(expected), "{changes:?} says\n  {text}\nand not\n  {expected}");
        assert_eq!(text.lines().count(), 1, "{changes:?} says more than one thing:\n{text}");
    }
}

#[test]
fn the_source_is_named() {
    let env = [("BRAID_DATA_GROUPS".to_string(), "x".to_string()), ("BRAID_NODE_IDD".into(), "1".into())];
    let flags = Flags { heartbeat_ms: Some("x".into()), ..Flags::default() };
    let text = NodeConfig::from_sources(None, env, flags).unwrap_err().to_string();
    for expected in [
        "data_groups = \"x\" (from environment variable BRAID_DATA_GROUPS)",
        "node_idd (from environment variable BRAID_NODE_IDD) is not a setting; did you mean node_id?",
        "heartbeat_ms = \"x\" (from flag --heartbeat-ms)",
        "node_id is not set",
        "cluster is not set",
    ] {
        assert!(text.contains(expected), "{text}\nlacks\n{expected}");
    }
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    let text = NodeConfig::from_sources(Some((Path::new("b.toml"), "zone = = 3")), [], Flags::default())
        .unwrap_err()
        .to_string();
    assert!(text.starts_with("b.toml is not a configuration file"), "{text}");
    assert!(text.contains("line 1"), "{text}");
}

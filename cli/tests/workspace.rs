//! Holds the workspace to its layering: which crate may use which (docs/ARCHITECTURE.md).
//!
//! Dependencies point one way, so that the rules of streams stay free of clocks, sockets and Raft,
//! and the log can be tested without a node. A crate not named here fails the test: say where it
//! belongs.

// A test of the workspace runs cargo, and reads what it prints.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Crate → (what it may use, what its tests may use besides).
const ALLOWED: &[(&str, &[&str], &[&str])] = &[
    ("braid-probe", &[], &[]),
    ("braid-stream", &["braid-probe"], &[]),
    ("braid-env", &[], &[]),
    ("braid-proto", &[], &[]),
    ("braid-log", &["braid-env", "braid-probe"], &[]),
    ("braid-transport", &["braid-env"], &[]),
    ("braid-client", &["braid-proto", "braid-stream", "braid-env", "braid-transport", "braid-probe"], &[]),
    (
        "braid-node",
        &["braid-stream", "braid-log", "braid-env", "braid-proto", "braid-transport", "braid-probe"],
        &["braid-client"],
    ),
    ("braid-cli", &["braid-client", "braid-node", "braid-env", "braid-proto", "braid-stream"], &["braid-jepsen"]),
    ("braid-jepsen", &["braid-client", "braid-proto", "braid-stream", "braid-env"], &[]),
    (
        "braid-sim",
        &[
            "braid-client",
            "braid-node",
            "braid-log",
            "braid-stream",
            "braid-env",
            "braid-proto",
            "braid-transport",
            "braid-probe",
        ],
        &[],
    ),
    ("braid-benches", &["braid-client", "braid-node", "braid-log", "braid-stream", "braid-env", "braid-proto"], &[]),
];

/// What `stream` must never reach for, whatever it is called: it is pure and synchronous.
const NOT_IN_STREAM: &[&str] = &["tokio", "openraft", "prost", "tonic", "rand", "rocksdb", "tracing", "futures-util"];

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[test]
fn dependencies_point_one_way() {
    let packages = packages();
    let rules: BTreeMap<_, _> = ALLOWED.iter().map(|(name, uses, tests)| (*name, (*uses, *tests))).collect();
    let ours: Vec<&str> = packages.iter().map(|package| text(package, "name")).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = text(package, "name");
        let Some((uses, in_tests)) = rules.get(name) else {
            wrong.push(format!("{name} is not in this test's table: say what it may use"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let used = text(dependency, "name");
            let for_tests = text(dependency, "kind") == "dev";
            let allowed = uses.contains(&used) || (for_tests && in_tests.contains(&used));
            if ours.contains(&used) && !allowed {
                let kind = if for_tests { "its tests use" } else { "it uses" };
                wrong.push(format!("{name}: {kind} {used}, and may use only {uses:?}, in tests also {in_tests:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_rules_of_streams_are_pure() {
    let packages = packages();
    let stream = packages.iter().find(|package| text(package, "name") == "braid-stream").expect("braid-stream");
    for dependency in stream["dependencies"].as_array().expect("dependencies") {
        let used = text(dependency, "name");
        let for_tests = text(dependency, "kind") == "dev";
        assert!(for_tests || !NOT_IN_STREAM.contains(&used), "braid-stream uses {used}");
    }
}

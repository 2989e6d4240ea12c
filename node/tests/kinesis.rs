//! Real Kinesis clients against a real cluster: three nodes in this process, and in others boto3, the AWS CLI, KCL, the
//! SDKs for Java, JavaScript, Rust and Go, and other projects' tests.
//!
//! `scripts/kinesis-clients` installs them once. Those that it can't install (no network, no Python, no Java) are named, and
//! their tests count as skipped.
#![allow(clippy::disallowed_methods)]

#[path = "it/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use support::TestCluster;

/// The functions of clients.py, each with a cluster of its own.
const SCENARIOS: &[&str] = &[
    "table",
    "life_of_a_stream",
    "records",
    "iterators",
    "reshard",
    "scale",
    "namespaces",
    "refusals",
    "wire",
    "attributes",
    "consumers",
    "signatures",
    "command_line",
    "prior_knowledge",
];

/// Those that need more than Python.
const JAVA_SCENARIOS: &[&str] = &["java_sdk", "kcl", "kcl_polling"];
const KCL_2_SCENARIOS: &[&str] = &["kcl_2", "kcl_2_polling"];
const JAVASCRIPT_SCENARIOS: &[&str] = &["javascript_sdk", "javascript_sdk_over_http_1"];
const RUST_SCENARIOS: &[&str] = &["rust_sdk"];
const GO_SCENARIOS: &[&str] = &["go_sdk_v1", "go_sdk_v2"];
const SUITES: &[&str] = &["moto_suite"];

/// One who may do anything in its account, one of another account, and one who may only read.
const CREDENTIALS: &str = r#"
[[key]]
id = "AKIDOWNER"
secret = "owner's secret/+"
account = "000000000000"
user = "owner"

[[key]]
id = "AKIDSTRANGER"
secret = "stranger"
account = "123456789012"
user = "stranger"

[[key]]
id = "AKIDREADER"
secret = "reader"
account = "000000000000"
user = "reader"
policy = [{ effect = "Allow", action = ["kinesis:Get*", "kinesis:Describe*"], resource = ["*:stream/open*"] }]
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A Python that has the clients.
fn python() -> Result<String, String> {
    let made = Command::new(root().join("scripts/kinesis-clients")).output().map_err(|e| e.to_string())?;
    match made.status.success() {
        true => Ok(String::from_utf8_lossy(&made.stdout).trim().to_string()),
        false => Err(String::from_utf8_lossy(&made.stderr).trim().to_string()),
    }
}

/// Whether `scripts/kinesis-clients` could put `what` beside a Python.
fn beside(python: &str, what: &str) -> Result<(), String> {
    let path = Path::new(python).ancestors().nth(2).unwrap_or(Path::new("")).join(what);
    if path.exists() { Ok(()) } else { Err(format!("{} is not there", path.display())) }
}

/// Whether a program can be run.
fn program(name: &str) -> Result<(), String> {
    let asked = Command::new(name).arg("--version").output().map_err(|e| format!("{name}: {e}"))?;
    if asked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&asked.stderr).into_owned()) }
}

fn run(python: &str, scenario: &str) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let dir = tempfile::tempdir()?;
        let credentials = dir.path().join("credentials.toml");
        std::fs::write(&credentials, CREDENTIALS)?;
        let mut cluster = TestCluster::start_with(|config| {
            config.throttle = scenario == "refusals";
            config.kinesis_credentials = (scenario == "signatures").then(|| credentials.clone());
        })
        .await;
        let nodes = cluster.configs.iter().map(|it| format!("http://{}", it.client_advertise));
        let nodes = nodes.collect::<Vec<_>>().join(",");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinesis/clients.py");
        let mut command = Command::new(python);
        command
            .arg(script)
            .arg(scenario)
            .arg(nodes)
            .env("CREDENTIALS", &credentials)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let ended = tokio::task::spawn_blocking(move || command.output()).await??;
        cluster.stop_all().await;
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        println!("{said}");
        if ended.status.success() { Ok(()) } else { Err(Failed::from(said)) }
    })
}

fn main() {
    let arguments = Arguments::from_args();
    let found = python();
    let python = found.clone().unwrap_or_default();
    let has = |what: &str| found.as_ref().map_err(Clone::clone).and_then(|python| beside(python, what));
    let clients = [
        ("boto3, the AWS CLI and HTTP by hand", SCENARIOS, has("")),
        // Java 11 or newer: its programs are run from their source.
        ("the Java SDK and KCL", JAVA_SCENARIOS, has("").and_then(|()| program("java"))),
        ("KCL 2", KCL_2_SCENARIOS, has("kcl2").and_then(|()| program("java"))),
        ("the JavaScript SDK", JAVASCRIPT_SCENARIOS, has("js").and_then(|()| program("node"))),
        ("the Rust SDK", RUST_SCENARIOS, has("rust-sdk/newest/sdk")),
        // Both come from the same packages, or neither does.
        ("the Go SDKs", GO_SCENARIOS, has("go/sdk_v1").and_then(|()| has("go/sdk_v2"))),
        ("other projects' tests", SUITES, has("suites")),
    ];
    let mut trials = Vec::new();
    for (client, scenarios, there) in clients {
        if let Err(why) = &there {
            eprintln!("SKIPPED: no test with {client} runs, since that can't be had here: {why}");
        }
        trials.extend(scenarios.iter().map(|scenario| {
            let python = python.clone();
            Trial::test(format!("client_{scenario}"), move || run(&python, scenario)).with_ignored_flag(there.is_err())
        }));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

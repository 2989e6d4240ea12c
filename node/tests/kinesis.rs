//! Real Kinesis clients against a real cluster: three nodes in this process, and in others boto3, the AWS CLI, the
//! Java SDK and KCL.
//!
//! `scripts/kinesis-clients` installs them from PyPI once. Where it can't (no network, no Python), every test here
//! says so and counts as skipped.
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

/// Those that need Java besides.
const JAVA_SCENARIOS: &[&str] = &["java_sdk", "kcl"];

/// Other projects' tests, whose source lies beside the Python: see scripts/kinesis-clients.
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

/// Whether the source of other projects' tests lies beside a Python.
fn suites(python: &str) -> Result<(), String> {
    let beside = Path::new(python).ancestors().nth(2).unwrap_or(Path::new("")).join("suites");
    let found = std::fs::read_dir(&beside).map_err(|e| format!("{}: {e}", beside.display()))?;
    let is_one = |it: std::fs::DirEntry| it.file_name().to_string_lossy().starts_with("moto-");
    match found.flatten().any(is_one) {
        true => Ok(()),
        false => Err(format!("{} has none", beside.display())),
    }
}

/// Whether programs can be run from their source: Java 11 or newer.
fn java() -> Result<(), String> {
    let asked = Command::new("java").arg("-version").output().map_err(|e| format!("java: {e}"))?;
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
    let python = python();
    if let Err(why) = &python {
        eprintln!("SKIPPED: no test with a real Kinesis client runs, since they can't be had here: {why}");
    }
    let java = java();
    if let Err(why) = &java {
        eprintln!("SKIPPED: no test with the Java SDK or KCL runs, since there is no Java here: {why}");
    }
    let suites = python.as_deref().map_err(Clone::clone).and_then(suites);
    if let Err(why) = &suites {
        eprintln!("SKIPPED: no other project's tests run, since their source can't be had here: {why}");
    }
    let trial = |scenario: &'static str, skipped: bool| {
        let python = python.clone().unwrap_or_default();
        Trial::test(format!("client_{scenario}"), move || run(&python, scenario)).with_ignored_flag(skipped)
    };
    let pythons = SCENARIOS.iter().map(|scenario| trial(scenario, python.is_err()));
    let javas = JAVA_SCENARIOS.iter().map(|scenario| trial(scenario, python.is_err() || java.is_err()));
    let others = SUITES.iter().map(|scenario| trial(scenario, suites.is_err()));
    libtest_mimic::run(&arguments, pythons.chain(javas).chain(others).collect()).exit();
}

//! The documented exit codes that need no cluster: wrong usage, and nobody there.

// A test of the program runs the program.
#![allow(clippy::disallowed_methods)]

use std::process::{Command, Output};

fn braid(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_braid"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BRAID_")) {
        command.env_remove(name);
    }
    // Port 1 on loopback: nobody listens there.
    command.args(["--endpoint", "127.0.0.1:1", "--patience", "200ms"]).args(args).output().expect("braid runs")
}

#[test]
fn each_mistake_has_its_code_and_a_word_about_it() {
    const CASES: &[(&[&str], i32, &str)] = &[
        (&["stream", "list"], 6, "braid dev"),
        (&["cluster", "status"], 6, "no endpoint answered"),
        (&["node", "ready"], 6, "no endpoint answered"),
        (&["--endpoint", "nonsense", "stream", "list"], 2, "not host:port"),
        (&["nonsense"], 2, "unrecognized subcommand"),
        (&["stream", "create", "s", "--shards", "0"], 2, "--shards"),
        (&["stream", "create", "s", "--retention", "soon"], 2, "not a duration"),
        (&["scale", "s"], 2, "--shards"),
        (&["scale", "s", "--shards", "-1"], 2, "--shards"),
        (&["scale", "s", "--shards", "0"], 2, "1..=10000"),
        (&["scale", "s", "--shards", "10001"], 2, "1..=10000"),
        (&["put", "s", "data", "--explicit-hash-key", "x"], 2, "--explicit-hash-key"),
        (&["put", "s", "--file", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (&["put", "s", "--file", "/"], 2, "directory"),
        (&["put", "s", "--chunk-bytes", "1KiB"], 2, "--file"),
        (&["put", "s", "x", "--key", "a", "--key-field", "b"], 2, "cannot be used with"),
        (&["tail", "s", "--from", "yesterday"], 2, "trim-horizon"),
        (&["get", "s", "--file", "f"], 2, "--out"),
        (&["get", "s", "--since", "1h", "--until", "2h"], 2, "--until"),
        (&["tail", "s", "--until", "1h"], 2, "--since"),
        (&["shard", "split", "s", "0", "--even", "--by-load"], 2, "cannot be used with"),
        (&["stream", "update", "s", "--autoscale", "many"], 2, "2..16"),
        (&["shard", "top", "s", "-n", "0"], 2, "1..=1000"),
        (&["node", "--check"], 2, "node_id is not set"),
        (&["node", "--check", "--node-id", "x"], 2, "flag --node-id"),
        (&["node", "--check", "--config", "/nowhere.toml"], 2, "/nowhere.toml"),
        // What the Debian package brings.
        (&["node", "--check", "--config", "../packaging/node.toml"], 0, ""),
        (&["--help"], 0, ""),
        (&["completions", "zsh"], 0, ""),
        (&["man", "/dev/null/man"], 1, "/dev/null/man"),
    ];
    for (args, code, word) in CASES {
        let output = braid(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?} should mention {word:?}: {said}");
    }
}

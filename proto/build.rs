//! Compiles `proto/**/*.proto` into Rust with protox, so that no machine needs protoc.
//!
//! Owns how the wire types are generated: every `bytes` field is a `Bytes` (records are sliced,
//! never copied), every message knows its full name (so it can travel in a `google.protobuf.Any`).
//! Deliberately generates no `connect()`: sockets are opened by `braid-env` only.

#![allow(clippy::disallowed_methods)] // a build script writes files; it is never part of a node

use std::path::PathBuf;
use std::{env, error, fs};

use prost::Message;

const SOURCES: [&str; 3] = ["braid/v1/braid.proto", "braid/peer/v1/peer.proto", "google/rpc/status.proto"];

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");

    let set = protox::compile(SOURCES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("braid_descriptor.bin"), set.encode_to_vec())?;

    let mut names = tonic_prost_build::Config::new();
    names.enable_type_names();
    tonic_prost_build::configure().bytes(".").build_transport(false).compile_fds_with_config(set, names)?;
    Ok(())
}

//! Clusters of real nodes in this process: one program, so that what they share is compiled once.

// Real time, real threads: what is tested here does not run in the simulator.
#![allow(clippy::disallowed_methods)]

mod api;
mod bad_bytes;
mod bad_input;
mod bad_shards;
mod bad_start;
mod moves;
mod replication;
mod shards;
mod support;
mod tls;

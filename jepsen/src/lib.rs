//! Real `braid` processes, killed while they are used; what the clients saw, and whether it may be.
//!
//! [`cluster`] starts and kills nodes, [`load`] writes, reads and notes every outcome, [`reshard`] splits and merges
//! meanwhile, [`history`] holds what was seen and judges it. [`soak`], [`limits`], [`many`] and [`faces`] are whole runs of it. The tests
//! are in `cli/tests`, beside the binary they run; `cargo run --release -p braid-jepsen` is for the long runs, which measure.
//!
//! Invariant: the history says only what a client really learned. A record whose outcome is
//! *unknown* may be in the stream or not, and the checker accepts both.

// This crate runs outside the nodes, on the machine's own clock, files and processes.
#![allow(clippy::disallowed_methods)]

pub mod cluster;
pub mod faces;
pub mod history;
pub mod limits;
pub mod load;
pub mod many;
pub mod reshard;
pub mod soak;

//! Real `braid` processes, killed while they are used; what the clients saw, and whether it may be.
//!
//! [`cluster`] starts and kills nodes, [`load`] writes and notes every outcome, [`history`] holds
//! what was seen and judges it. The tests are in `cli/tests`, beside the binary they run.
//!
//! Invariant: the history says only what a client really learned. A record whose outcome is
//! *unknown* may be in the stream or not, and the checker accepts both.

// This crate runs outside the nodes, on the machine's own clock, files and processes.
#![allow(clippy::disallowed_methods)]

pub mod cluster;
pub mod history;
pub mod load;

//! The deterministic simulator: whole clusters in one thread, replayed from one number.
//!
//! See `docs/simulator.md`.

pub mod executor;
pub mod network;
pub mod rng;
pub mod world;

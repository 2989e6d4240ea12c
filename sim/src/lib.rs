//! The deterministic simulator: whole clusters in one thread, replayed from one number.
//!
//! See `docs/simulator.md`.

pub mod checkers;
pub mod director;
pub mod executor;
pub mod fault;
pub mod history;
pub mod inspect;
pub mod leaks;
pub mod marks;
pub mod network;
pub mod payload;
pub mod plan;
pub mod rng;
pub mod run;
pub mod story;
pub mod week;
pub mod workload;
pub mod world;

//! The Braid server: one node of a cluster.
//!
//! The way of a record through this crate, file by file: `api` (wire → domain) → `routing` (key →
//! shard → group → leader) → `throttle` → [`replication`] (propose, log, apply) → answer; and back
//! out through `read`. `docs/life-of-a-record.md` tells it.
//!
//! Beside that path: [`kinesis`] (the other face, over the functions of `api`), [`config`], [`control`] (what the catalog
//! says, made so), `maintenance`, [`peer`] (node to node), [`index`] (where records lie in the log), [`metrics`], `tls`.

pub mod api;
pub mod clock;
pub mod config;
pub mod control;
pub mod index;
pub mod kinesis;
mod maintenance;
pub mod metrics;
mod node;
pub mod peer;
pub mod read;
pub mod replication;
pub mod routing;
pub mod throttle;
mod tls;

pub use node::{Listeners, Node, StartError};

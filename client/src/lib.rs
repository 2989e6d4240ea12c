//! The client of Braid: admin calls, a batching [`Producer`], a parallel [`Consumer`].
//!
//! Owns how an application speaks to a cluster: which node to ask, what may be retried, what a
//! failed call says about the world. Its invariant: *an outcome is never better than what is
//! known*. A record is `Acked` only if a node said so, `Refused` only if it certainly was not and
//! will not be appended, and `Unknown` in every other case; what is unknown is not sent again
//! unless the application asked for at-least-once.
//!
//! Deliberately absent: exactly-once appends, consumer groups and checkpoints (they live in the
//! cluster, not here), credentials. Time, tasks, randomness and sockets are
//! `braid-env`'s, so the same client runs in the simulator.
//!
//! Read in this order: `client` → `failure` (what an error means) → `nodes`, `connections`
//! (whom to ask) → `producer` → `consumer`.

mod aggregate;
mod backoff;
mod client;
mod connections;
mod consumer;
mod failure;
mod nodes;
mod producer;
mod routes;

pub use braid_stream::{HashKey, SequenceNumber};
pub use braid_transport::{Channel, ClientTls, TlsError};
pub use client::{Client, ClientOptions, ConnectError, StreamSettings};
pub use consumer::{Consumer, ConsumerError, ConsumerOptions, Position, Record, ShardBatch};
pub use failure::{CallError, Reason};
pub use producer::{Outcome, Producer, ProducerOptions, PutError, PutFuture, RefusedReason};

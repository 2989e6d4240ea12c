//! The stream store's rules, as pure functions: what a stream, a shard, a record and a limit are,
//! and how replicated state changes when a command is applied.
//!
//! Invariant: nothing here reads a clock, a random number, a file or a socket, and every map in
//! replicated state is ordered; so the same commands in the same order give the same state on
//! every replica, byte for byte (`encode` compares equal).
//!
//! Not here: Raft, disks, wire types, tasks. Whoever calls decides when a command is proposed and
//! where the bytes are kept.

pub mod autoscale;
pub mod batch;
pub mod catalog;
pub mod catalog_command;
pub mod command;
pub mod group;
pub mod hash;
pub mod ids;
pub mod iterator;
pub mod limits;
pub mod listing;
pub mod load;
pub mod moves;
pub mod name;
pub mod outage;
pub mod placement;
pub mod record;
pub mod scale;
pub mod sequence;
pub mod shard;
pub mod shard_map;
pub mod throttle;
pub mod versioned;

pub use batch::{BatchBuilder, BatchView};
pub use catalog::{Catalog, Stream, StreamMode, StreamStatus};
pub use catalog_command::CatalogCommand;
pub use command::GroupCommand;
pub use group::{Applied, Group, Refused};
pub use hash::{HashKey, HashRange};
pub use ids::{ClusterId, GroupId, Incarnation, NodeId, Offset, ShardId, StreamId, Zone};
pub use iterator::{IteratorKind, IteratorToken, Position};
pub use limits::{LimitOverrides, Limits};
pub use name::{PartitionKey, StreamName};
pub use record::Record;
pub use sequence::SequenceNumber;
pub use shard::{Shard, ShardSpec, ShardState};
pub use shard_map::{Route, ShardMap};
pub use throttle::{ShardThrottle, Throttled};

//! Node to node: who a node is, the multiplexed streams between nodes, and the service at their end.
//!
//! Invariant: no message is acted on unless it comes from this cluster, from the registered
//! incarnation of its sender, and is meant for this very incarnation of this node. A node that
//! lost its disk and came back under its old id is thereby silent: it cannot vote a second time.

mod dial;
mod directory;
mod link;
mod service;

pub use dial::{dial, dial_client_port};
pub(crate) use directory::hex;
pub use directory::{Directory, LocalIdentity, NotHeard, PeerEntry};
pub use link::{Lane, LinkError, Links, MESSAGE_BYTES_MAX, PendingReply};
pub use service::PeerService;

//! Raft, as the rest of the node sees it: groups that take commands and answer with what applying
//! them did.
//!
//! ```text
//!  GroupHandle::append ─▶ proposer ─▶ openraft ─▶ log_store ─▶ braid_log   (here)
//!                                        │ network ─▶ peer::Links ─▶ … the other two zones
//!                                        ▼
//!                                     machine ─▶ braid_stream::Group::apply, record index
//!                                        ▼
//!                                  answer to the caller, wake-up of readers
//! ```
//!
//! Invariant: no type of openraft leaves this module but [`RaftHandle`] and its ids, which the
//! peer service needs to hand messages in.

mod catalog;
mod group;
mod groups;
mod leadership;
mod lease;
mod log_store;
mod machine;
mod membership;
mod network;
mod open;
mod promise;
mod proposer;
mod raft;
mod replica;
mod runtime;
mod snapshot;
pub(crate) mod wire;

use bytes::Bytes;

pub use catalog::CatalogHandle;
pub use group::{GroupHandle, GroupReplica, GroupStatus, ProposeError, ReplicaStatus};
pub use groups::Groups;
pub use leadership::Transfer;
pub use open::{GroupOptions, OpenError, open_group};
pub use promise::Promise;
pub use proposer::AppendOutcome;
pub use raft::{LogId, Vote};
pub use replica::State;

/// The Raft of one group on this node.
pub type RaftHandle = openraft::Raft<raft::TypeConfig, machine::Machine>;

/// The state in a checkpoint's bytes, which is as of log entry `last`; for tools that look inside.
pub fn checkpoint_state(last: braid_log::LogId, bytes: &Bytes) -> Result<State, String> {
    snapshot::decode(last, bytes).map(|snapshot| snapshot.state).map_err(|e| e.to_string())
}

/// Installs a snapshot that arrived whole; answers with this replica's vote, encoded.
pub(crate) async fn install_snapshot(
    raft: &RaftHandle,
    vote: Vote,
    last: LogId,
    bytes: Bytes,
) -> Result<Bytes, String> {
    let decoded = snapshot::decode(raft::to_log_id(last), &bytes).map_err(|e| e.to_string())?;
    let meta = openraft::SnapshotMeta { last_log_id: Some(last), last_membership: decoded.membership };
    let response = raft
        .install_full_snapshot(vote, openraft::Snapshot { meta, snapshot: bytes })
        .await
        .map_err(|e| e.to_string())?;
    Ok(wire::encode_vote_only(&response.vote))
}

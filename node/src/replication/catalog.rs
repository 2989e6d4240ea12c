//! The catalog's replica on this node, and whether what it says can be relied on.
//!
//! Invariant: what a follower's catalog does *not* say proves nothing, since it may be behind by any time: whoever
//! draws a conclusion from that asks [`CatalogHandle::is_current`] first.

use std::sync::Arc;
use std::time::Duration;

use braid_env::{time, watch};
use braid_proto::peer::Kind;
use braid_stream::catalog::{Catalog, CatalogError, CatalogReply};
use braid_stream::catalog_command::CatalogCommand;
use braid_stream::ids::{GroupId, NodeId};
use bytes::Bytes;

use super::group::{GroupReplica, ProposeError};
use super::lease::linearizable;
use super::raft::Reply;
use super::replica::State;
use crate::peer::Lane;

/// How long it may take to find out whether the catalog here is as new as its leader's.
const CURRENT: Duration = Duration::from_secs(2);

/// The catalog's replica on this node. Cheap to clone.
#[derive(Clone)]
pub struct CatalogHandle(Arc<GroupReplica>);

impl CatalogHandle {
    pub(super) fn new(replica: Arc<GroupReplica>) -> CatalogHandle {
        CatalogHandle(replica)
    }

    /// Who leads the catalog, as far as this replica knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.leader()
    }

    /// Whether this replica leads the catalog.
    pub fn is_leader(&self) -> bool {
        self.0.is_leader()
    }

    /// Proposes a command. The inner error is the catalog's own refusal.
    pub async fn propose(&self, command: CatalogCommand) -> Result<Result<CatalogReply, CatalogError>, ProposeError> {
        match self.0.propose_bytes(command.encode()).await? {
            Reply::Catalog(answer) => Ok(answer),
            reply => panic!("a catalog command was answered with {reply:?}"),
        }
    }

    /// Looks at the applied state, under a short lock.
    pub fn state<R>(&self, f: impl FnOnce(&Catalog) -> R) -> R {
        self.0.with_state(|state| match state {
            State::Catalog(catalog) => f(catalog),
            State::Data(_) => unreachable!("the catalog's handle"),
        })
    }

    /// The applied log index, and a wake-up whenever it moves.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.0.applied()
    }

    /// See [`super::GroupHandle::ensure_linearizable`].
    pub async fn ensure_linearizable(&self) -> Result<u64, ProposeError> {
        linearizable(&self.0).await
    }

    /// Whether this replica has everything that was acknowledged before the call. Waits for up to two seconds until
    /// it has; `false` also where that can't be found out, since nobody leads or the leader does not answer.
    pub async fn is_current(&self) -> bool {
        if self.is_leader() {
            return matches!(time::timeout(CURRENT, self.ensure_linearizable()).await, Ok(Ok(_)));
        }
        let Some(leader) = self.leader() else { return false };
        let group = GroupId::CATALOG.0;
        let asked =
            self.0.links().call(leader.0, Lane::Control, group, Kind::CatalogIndex, Bytes::new(), CURRENT).await;
        let Some(index) = asked.ok().and_then(|body| body[..].try_into().map(u64::from_le_bytes).ok()) else {
            return false;
        };
        let mut applied = self.applied();
        let reached = async move {
            while *applied.borrow_and_update() < index {
                if applied.changed().await.is_err() {
                    return false;
                }
            }
            true
        };
        time::timeout(CURRENT, reached).await.unwrap_or(false)
    }

    /// The receiving end of [`CatalogHandle::is_current`]: up to where whoever asks must have applied.
    pub(crate) async fn index_told(&self) -> Result<Bytes, String> {
        let index = self.ensure_linearizable().await.map_err(|e| e.to_string())?;
        Ok(Bytes::copy_from_slice(&index.to_le_bytes()))
    }

    /// The replica itself, for control and maintenance.
    pub fn replica(&self) -> &Arc<GroupReplica> {
        &self.0
    }
}

//! The groups that have a replica on this node.
//!
//! Invariant: a group is in here from the moment its replica is open until it is shut down; or it is
//! among the refused, with the reason, and is not tried again before the node restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use braid_stream::ids::GroupId;

use super::catalog::CatalogHandle;
use super::group::{GroupHandle, GroupReplica};

/// See the module's documentation.
#[derive(Default)]
pub struct Groups {
    open: Mutex<BTreeMap<GroupId, Arc<GroupReplica>>>,
    refused: Mutex<BTreeMap<GroupId, String>>,
}

impl Groups {
    /// Adds an open replica.
    pub fn insert(&self, replica: Arc<GroupReplica>) {
        let before = self.open.lock().expect("no panic while locked").insert(replica.id(), replica);
        assert!(before.is_none(), "a group is opened once");
    }

    /// Takes a replica out, to shut it down or because it failed.
    pub fn remove(&self, group: GroupId) -> Option<Arc<GroupReplica>> {
        self.open.lock().expect("no panic while locked").remove(&group)
    }

    /// Notes that a replica could not be opened.
    pub fn refuse(&self, group: GroupId, why: String) {
        self.refused.lock().expect("no panic while locked").insert(group, why);
    }

    /// Replicas that could not be opened, and why: damaged, of another node, or without a state to begin from.
    pub fn refused(&self) -> BTreeMap<GroupId, String> {
        self.refused.lock().expect("no panic while locked").clone()
    }

    /// A data group's replica on this node.
    pub fn get(&self, group: GroupId) -> Option<GroupHandle> {
        if group.0 == 0 {
            return None;
        }
        self.open.lock().expect("no panic while locked").get(&group).cloned().map(GroupHandle::new)
    }

    /// The catalog's replica on this node.
    pub fn catalog(&self) -> Option<CatalogHandle> {
        self.open.lock().expect("no panic while locked").get(&GroupId(0)).cloned().map(CatalogHandle::new)
    }

    /// A group's replica on this node, the catalog included.
    pub fn replica(&self, group: GroupId) -> Option<Arc<GroupReplica>> {
        self.open.lock().expect("no panic while locked").get(&group).cloned()
    }

    /// Takes every replica out, to shut them down.
    pub fn take_all(&self) -> Vec<Arc<GroupReplica>> {
        std::mem::take(&mut *self.open.lock().expect("no panic while locked")).into_values().collect()
    }

    /// Every open replica, the catalog first.
    pub fn all(&self) -> Vec<Arc<GroupReplica>> {
        self.open.lock().expect("no panic while locked").values().cloned().collect()
    }
}

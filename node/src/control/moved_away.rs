//! Forgetting the groups that were moved away from this node: their logs, checkpoints and index entries.
//!
//! Invariant: nothing is removed that the group may still count on. The catalog here may be old, and a replica that is
//! open may be given the group again at any time. So:
//!
//! 1. the catalog, as new as its leader's, says that the replica is elsewhere and no move of the group is under way;
//! 2. the replica is closed: from now on it promises nothing to anybody;
//! 3. the catalog, asked again after that, still says so;
//! 4. what the replica promised as a voter is kept (`Promise`): another replica may not have heard that it left;
//! 5. the directory gets another name, durably; then it is removed. What a crash leaves of it is never opened.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use braid_env::disk;
use braid_probe::{Bug, Mark, planted, reachable};
use braid_stream::ids::{GroupId, NodeId};

use crate::replication::{CatalogHandle, GroupOptions, Groups, Promise};

/// What a group's directory is called before it is removed: its number, and this.
const GONE: &str = ".gone";

/// The groups whose directories lie here and that are not open.
#[derive(Default)]
pub struct Stored(Mutex<BTreeSet<GroupId>>);

impl Stored {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<GroupId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what lies there when the node starts; what was being removed is removed.
    pub async fn look(&self, groups_dir: &Path) -> io::Result<()> {
        if !disk::exists(groups_dir).await? {
            return Ok(());
        }
        for name in disk::list_dir(groups_dir).await? {
            if name.ends_with(GONE) {
                disk::remove_dir_all(groups_dir.join(name)).await?;
            } else if let Ok(group) = name.parse() {
                self.lock().insert(GroupId(group));
            }
        }
        Ok(())
    }
}

/// Forgets what can be forgotten now.
pub async fn carry_out(catalog: &CatalogHandle, groups: &Groups, options: &GroupOptions, stored: &Stored) {
    let me = NodeId(options.links.directory().me().node);
    let left = |group: &GroupId| *group != GroupId::CATALOG && catalog.state(|c| c.has_left(me, *group));
    let open = groups.all().into_iter().map(|replica| replica.id());
    let candidates: BTreeSet<GroupId> = stored.lock().iter().copied().chain(open).filter(left).collect();
    if candidates.is_empty() || !sure(catalog).await {
        return;
    }
    let candidates: Vec<GroupId> = candidates.into_iter().filter(left).collect();
    for group in &candidates {
        if let Some(replica) = groups.remove(*group) {
            stored.lock().insert(*group);
            replica.shutdown().await;
        }
    }
    if !sure(catalog).await {
        return;
    }
    for group in candidates.into_iter().filter(left) {
        match remove(group, options).await {
            Ok(()) => {
                reachable!(Mark::GroupForgotten);
                stored.lock().remove(&group);
                tracing::info!(group = group.0, "moved to another node, and forgotten here");
            }
            Err(e) => tracing::warn!(group = group.0, "moved to another node, and not forgotten yet: {e}"),
        }
    }
}

async fn sure(catalog: &CatalogHandle) -> bool {
    planted(Bug::ForgottenOnBelief) || catalog.is_current().await
}

async fn remove(group: GroupId, options: &GroupOptions) -> Result<(), String> {
    let (groups_dir, dir) = (options.groups_dir(), options.group_dir(group));
    let gone = groups_dir.join(format!("{}{GONE}", group.0));
    let is_there = disk::exists(&dir).await.map_err(|e| format!("{}: {e}", dir.display()))?;
    if is_there {
        Promise::keep(&groups_dir, &dir, options.log_identity(group), options.log.clone()).await?;
    }
    let renamed = async {
        if disk::exists(&gone).await? {
            disk::remove_dir_all(&gone).await?;
        }
        if is_there {
            disk::rename(&dir, &gone).await?;
        }
        disk::fsync_dir(&groups_dir).await
    };
    renamed.await.map_err(|e| format!("{}: {e}", dir.display()))?;
    reachable!(Mark::GroupRenamed);
    options.index.clear(group).map_err(|e| e.to_string())?;
    disk::remove_dir_all(&gone).await.map_err(|e| format!("{}: {e}", gone.display()))
}

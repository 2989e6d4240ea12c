//! Bringing a group's Raft membership to what the catalog says: a learner first, then a voter.
//!
//! Invariant: a group's membership is changed by its own leader only, one group at a time per
//! node, and a replica votes only once it has caught up. A new leader goes on where the old one
//! stopped: it compares the same two lists.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use braid_env::time;
use braid_probe::{Bug, planted};
use braid_stream::ids::{GroupId, NodeId};
use futures_util::future::{Either, select};

use crate::peer::Directory;
use crate::replication::{CatalogHandle, GroupReplica, Groups};

/// How long a new replica may take to catch up before the next round begins again.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Changes the membership of the first group led here that differs from the catalog.
pub async fn carry_out(catalog: &CatalogHandle, groups: &Groups, directory: &Directory) {
    for replica in groups.all().into_iter().filter(|g| g.is_leader()) {
        let group = replica.id();
        let now: BTreeSet<u64> = replica.status().replica.voters.into_iter().collect();
        let wanted = wanted(catalog, group, &now);
        if now == wanted || now.is_empty() {
            continue;
        }
        // A new replica that is lost before it has caught up would be waited for in vain.
        let mut applied = catalog.applied();
        let overtaken =
            async { while applied.changed().await.is_ok() && self::wanted(catalog, group, &now) == wanted {} };
        let change = time::timeout(CATCH_UP, change(&replica, &now, &wanted, directory));
        match select(pin!(change), pin!(overtaken)).await {
            Either::Left((Ok(Ok(())), _)) => {
                tracing::info!(group = group.0, "replicas are now {wanted:?}, were {now:?}")
            }
            Either::Left((Ok(Err(e)), _)) => tracing::info!(group = group.0, "replicas not changed yet: {e}"),
            Either::Left((Err(_), _)) => tracing::info!(group = group.0, "the new replica has not caught up yet"),
            Either::Right(_) => tracing::info!(group = group.0, "replicas were to be {wanted:?}, and now others"),
        }
        return;
    }
}

/// Who has to vote in a group whose voters are `now`.
fn wanted(catalog: &CatalogHandle, group: GroupId, now: &BTreeSet<u64>) -> BTreeSet<u64> {
    match catalog.state(|c| c.groups().get(&group).cloned()) {
        Some(nodes) => nodes.iter().map(|n| n.0).collect(),
        // The catalog's own voters: the founders, or whoever has their places. While one is being replaced, `now` has
        // the old one and the new one, and the new one may be replaced already.
        None => now.iter().map(|n| holder(catalog, NodeId(*n)).0).collect(),
    }
}

fn holder(catalog: &CatalogHandle, node: NodeId) -> NodeId {
    catalog.state(|c| match planted(Bug::ReplacedOnce) {
        true => c.replaced().get(&node).copied().unwrap_or(node),
        false => c.holder(node),
    })
}

async fn change(
    replica: &GroupReplica,
    now: &BTreeSet<u64>,
    wanted: &BTreeSet<u64>,
    directory: &Directory,
) -> Result<(), String> {
    for node in wanted.difference(now) {
        let address = directory.get(*node).ok_or_else(|| format!("node {node} is not known yet"))?.peer_address;
        replica.add_learner(*node, &address).await?;
    }
    if planted(Bug::VoterDropped) {
        return replica.set_voters(wanted.intersection(now).copied()).await;
    }
    replica.set_voters(wanted.iter().copied()).await
}

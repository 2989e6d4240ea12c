//! Bringing a group's Raft membership to what the catalog says: a learner first, then a voter.
//!
//! Invariant: a group's membership is changed by its own leader only, one group at a time per
//! node, and a replica votes only once it has caught up. A new leader goes on where the old one
//! stopped: it compares the same two lists.

use std::collections::BTreeSet;
use std::time::Duration;

use braid_env::time;
use braid_probe::{Bug, planted};
use braid_stream::ids::NodeId;

use crate::peer::Directory;
use crate::replication::{CatalogHandle, GroupReplica, Groups};

/// How long a new replica may take to catch up before the next round begins again.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Changes the membership of the first group led here that differs from the catalog.
pub async fn carry_out(catalog: &CatalogHandle, groups: &Groups, directory: &Directory) {
    let (placement, replaced) = catalog.state(|c| (c.groups().clone(), c.replaced().clone()));
    for replica in groups.all().into_iter().filter(|g| g.is_leader()) {
        let now: BTreeSet<u64> = replica.status().replica.voters.into_iter().collect();
        let wanted: BTreeSet<u64> = match placement.get(&replica.id()) {
            Some(nodes) => nodes.iter().map(|n| n.0).collect(),
            // The catalog's own voters: the founders, and whoever replaced one.
            None => now.iter().map(|n| replaced.get(&NodeId(*n)).map_or(*n, |by| by.0)).collect(),
        };
        if now == wanted || now.is_empty() {
            continue;
        }
        match time::timeout(CATCH_UP, change(&replica, &now, &wanted, directory)).await {
            Ok(Ok(())) => tracing::info!(group = replica.id().0, "replicas are now {wanted:?}, were {now:?}"),
            Ok(Err(e)) => tracing::info!(group = replica.id().0, "replicas not changed yet: {e}"),
            Err(_) => tracing::info!(group = replica.id().0, "the new replica has not caught up yet"),
        }
        return;
    }
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

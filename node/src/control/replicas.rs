//! Bringing a group's Raft membership to what the catalog says: a learner first, then a voter.
//!
//! Invariant: a group's membership is changed by its own leader only, one group at a time per
//! node, and a replica votes only once it has the log up to where it was named. A new leader goes on where the old one
//! stopped: it compares the same two lists.

use std::collections::BTreeSet;
use std::time::Duration;

use braid_env::time;
use braid_probe::{Bug, Mark, planted, reachable};
use braid_stream::ids::{GroupId, NodeId};

use crate::peer::Directory;
use crate::replication::{CatalogHandle, GroupReplica, Groups};

/// How long one step may take before the next round begins again.
const STEP: Duration = Duration::from_secs(10);

/// Takes every group led here that differs from the catalog one step further. None waits for another: a new replica may
/// take long to catch up, or be lost before it has.
pub async fn carry_out(catalog: &CatalogHandle, groups: &Groups, directory: &Directory) {
    for replica in groups.all().into_iter().filter(|g| g.is_leader()) {
        let group = replica.id();
        let now: BTreeSet<u64> = replica.status().replica.voters.into_iter().collect();
        let wanted = wanted(catalog, group, &now);
        if now == wanted || now.is_empty() {
            continue;
        }
        match time::timeout(STEP, change(&replica, &now, &wanted, directory)).await {
            Ok(Ok(true)) => tracing::info!(group = group.0, "replicas are now {wanted:?}, were {now:?}"),
            Ok(Ok(false)) => reachable!(Mark::VoterAwaited),
            Ok(Err(e)) => tracing::info!(group = group.0, "replicas not changed yet: {e}"),
            Err(_) => tracing::info!(group = group.0, "replicas not changed within {} s", STEP.as_secs()),
        }
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

/// Whether the group's voters are `wanted` now; not yet, where new ones have to catch up.
async fn change(
    replica: &GroupReplica,
    now: &BTreeSet<u64>,
    wanted: &BTreeSet<u64>,
    directory: &Directory,
) -> Result<bool, String> {
    let learners: BTreeSet<u64> = replica.status().replica.learners.into_iter().collect();
    for node in wanted.difference(now).filter(|node| !learners.contains(node)) {
        let address = directory.get(*node).ok_or_else(|| format!("node {node} is not known yet"))?.peer_address;
        replica.add_learner(*node, &address).await?;
    }
    if planted(Bug::VoterDropped) {
        return replica.set_voters(&wanted.intersection(now).copied().collect()).await.map(|()| true);
    }
    if !replica.have_caught_up(wanted) && !planted(Bug::VoterWithoutLog) {
        return Ok(false);
    }
    replica.set_voters(wanted).await.map(|()| true)
}

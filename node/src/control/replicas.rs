//! Bringing a group's Raft membership to what the catalog says: a learner first, then a voter. And what a move is besides:
//! a group's leader begins it, and says when it is over.
//!
//! Invariant: a group's membership is changed by its own leader only, one group at a time per
//! node, and a replica votes only once it has the log up to where it was named. A new leader goes on where the old one
//! stopped: it compares the same two lists, once it knows that its catalog is as new as anybody's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use braid_env::time;
use braid_probe::{Bug, Mark, planted, reachable};
use braid_stream::catalog_command::CatalogCommand;
use braid_stream::ids::{GroupId, NodeId};

use super::remote;
use crate::peer::{Directory, Links};
use crate::replication::{CatalogHandle, GroupReplica, Groups};

/// How long one step may take before the next round begins again.
const STEP: Duration = Duration::from_secs(10);

/// How long another voter may take to take over from one that leaves.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Takes every group led here that differs from the catalog one step further. None waits for another: a new replica may
/// take long to catch up, or be lost before it has.
pub async fn carry_out(catalog: &CatalogHandle, groups: &Groups, links: &Links) {
    for replica in groups.all().into_iter().filter(|g| g.is_leader()) {
        let group = replica.id();
        match time::timeout(STEP, step(catalog, &replica, links)).await {
            Ok(Ok(Step::Nothing)) => {}
            Ok(Ok(Step::Changed { from, to })) => {
                tracing::info!(group = group.0, "replicas are now {to:?}, were {from:?}");
            }
            Ok(Ok(Step::Awaited)) => reachable!(Mark::VoterAwaited),
            Ok(Err(e)) => tracing::info!(group = group.0, "replicas not changed yet: {e}"),
            Err(_) => tracing::info!(group = group.0, "replicas not changed within {} s", STEP.as_secs()),
        }
    }
}

/// What was done for one group.
enum Step {
    Nothing,
    /// New voters have to catch up first, or another has to lead.
    Awaited,
    Changed {
        from: BTreeSet<u64>,
        to: BTreeSet<u64>,
    },
}

async fn step(catalog: &CatalogHandle, replica: &Arc<GroupReplica>, links: &Links) -> Result<Step, String> {
    let group = replica.id();
    let now: BTreeSet<u64> = replica.status().replica.voters.into_iter().collect();
    let mut shall = wanted(catalog, group, &now);
    if now.is_empty() {
        return Ok(Step::Nothing);
    }
    if now == shall {
        return move_on(catalog, replica, &shall, links).await.map(|()| Step::Nothing);
    }
    // The voters may be as a newer catalog wants them than the one here: one that left would be a voter again while it
    // forgets what it has. Asked for after the voters were looked at.
    if !planted(Bug::ChangedOnBelief) && !catalog.is_current().await {
        return Ok(Step::Awaited);
    }
    shall = wanted(catalog, group, &now);
    if now == shall {
        return Ok(Step::Nothing);
    }
    match change(replica, &now, &shall, links.directory()).await? {
        true => Ok(Step::Changed { from: now, to: shall }),
        false => Ok(Step::Awaited),
    }
}

/// Who has to vote in a group whose voters are `now`.
fn wanted(catalog: &CatalogHandle, group: GroupId, now: &BTreeSet<u64>) -> BTreeSet<u64> {
    catalog.state(|c| match c.groups().get(&group) {
        Some(nodes) => nodes.iter().map(|n| n.0).collect(),
        None if planted(Bug::ReplacedOnce) => {
            now.iter().map(|n| c.replaced().get(&NodeId(*n)).map_or(*n, |by| by.0)).collect()
        }
        // Before they are named: the founders, or whoever has their places.
        None if c.voters().is_empty() => now.iter().map(|n| c.holder(NodeId(*n)).0).collect(),
        None => c.voters().iter().map(|n| n.0).collect(),
    })
}

/// Whether the group's voters are `wanted` now; not yet, where new ones have to catch up.
async fn change(
    replica: &Arc<GroupReplica>,
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
    if !wanted.contains(&directory.me().node) && !wanted.is_disjoint(now) {
        // A leader that leaves has another one take it out, so that the group is led all the time.
        reachable!(Mark::LeaderLeaves);
        let became = replica.hand_over(|to| wanted.contains(&to), HAND_OVER).await;
        tracing::info!(group = replica.id().0, ?became, "this node leaves the group: leadership handed over");
        return Ok(false);
    }
    replica.set_voters(wanted).await.map(|()| true)
}

/// Ends the move of one of this group's replicas, or begins the next one if it is this group's.
///
/// Its leader does so, and not the catalog's: that a group has one shows that it can be changed, and it knows best when
/// it is.
async fn move_on(
    catalog: &CatalogHandle,
    replica: &GroupReplica,
    wanted: &BTreeSet<u64>,
    links: &Links,
) -> Result<(), String> {
    let group = replica.id();
    let said =
        |command| async move { remote::propose_to_catalog(catalog, links, command).await.map_err(|e| e.to_string()) };
    if replica.settled_voters().as_ref() != Some(wanted) {
        return Ok(());
    }
    let (moving, next) = catalog.state(|c| (c.moving(), c.next_move()));
    match (moving, next) {
        (_, Some(Ok(next))) if next.group == group => said(CatalogCommand::BeginMove(next)).await,
        (Some(moving), _) if moving.group == group => said(CatalogCommand::EndMove(moving)).await,
        _ => Ok(()),
    }
}

//! Which node leads which group: spread evenly, and handed over politely when a node stops.
//!
//! Invariant: a leadership is only offered to a replica whose log is at most [`LAG_MAX`] entries
//! behind, so that the group is without a leader for a round trip and not for a catch-up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use braid_stream::ids::GroupId;
use braid_stream::placement::place_leaders;
use futures_util::future::join_all;

use crate::replication::{CatalogHandle, GroupReplica, Groups, Transfer};

/// Entries a successor may be behind; it gets them while the leadership moves.
const LAG_MAX: u64 = 64;

/// How long a leadership may take to move before it counts as not moved.
const MOVE: Duration = Duration::from_secs(2);

/// Hands one group this node should not lead to the node that should, if that one is ready.
pub async fn move_one(catalog: &CatalogHandle, groups: &Groups, me: u64) {
    let wanted = place_leaders(&catalog.state(|c| c.groups().clone()));
    // Asking one that is gone takes a second: once a round.
    let mut silent = BTreeSet::new();
    for replica in groups.all() {
        let Some(to) = wanted.get(&replica.id()).map(|n| n.0) else { continue };
        if to == me || silent.contains(&to) || !replica.is_leader() {
            continue;
        }
        let status = replica.status().replica;
        let caught_up =
            status.matched.iter().any(|(node, matched)| *node == to && matched + LAG_MAX >= status.last_log);
        if caught_up {
            let became = replica.transfer_leader(to, MOVE).await;
            tracing::info!(group = replica.id().0, to, ?became, "leadership offered to where it belongs");
            match became {
                // It holds up nobody, so the next may be offered.
                Transfer::Refused { silent: false, .. } => {}
                Transfer::Refused { silent: true, .. } => {
                    silent.insert(to);
                }
                Transfer::Done | Transfer::NotTaken => return,
            }
        }
    }
}

/// Hands over every leadership this node has; for a node that is about to stop.
pub async fn hand_over(groups: &Groups) {
    let led: Vec<Arc<GroupReplica>> = groups.all().into_iter().filter(|g| g.is_leader()).collect();
    let moves =
        led.iter().map(|replica| async { (replica.id(), replica.hand_over(|_| true, MOVE).await == Transfer::Done) });
    let kept: Vec<GroupId> = join_all(moves).await.into_iter().filter(|(_, moved)| !moved).map(|(id, _)| id).collect();
    if !kept.is_empty() {
        tracing::warn!("no other node took over {} groups: {kept:?}", kept.len());
    }
}

//! Creating and deleting streams: what the catalog's leader does after the catalog has decided.
//!
//! ```text
//!  catalog: CREATING ─▶ every group: open shards ─▶ catalog: ACTIVE
//!  catalog: DELETING ─▶ every group: drop stream ─▶ catalog: gone
//! ```
//!
//! Invariant: a stream is ACTIVE only when every one of its groups has opened its shards, and its
//! name is free again only when every group has dropped them.

use std::collections::BTreeMap;

use braid_probe::{Mark, reachable, sometimes};
use braid_stream::catalog::{Stream, StreamStatus};
use braid_stream::catalog_command::{CatalogCommand, StreamDropped, StreamOpened};
use braid_stream::command::{DropStream, GroupCommand, OpenShards};
use braid_stream::ids::{GroupId, NodeId};
use futures_util::future::try_join_all;

use super::remote::propose_to_group;
use crate::clock::NodeClock;
use crate::peer::Links;
use crate::replication::{CatalogHandle, Groups};

/// Carries every stream that is on its way one step on. Returns whether any is still on its way.
pub async fn carry_out(catalog: &CatalogHandle, groups: &Groups, links: &Links, clock: &NodeClock) -> bool {
    let (pending, placement) = catalog.state(|c| {
        let on_its_way = |s: &&Stream| matches!(s.status, StreamStatus::Creating | StreamStatus::Deleting);
        (c.streams().filter(on_its_way).cloned().collect::<Vec<_>>(), c.groups().clone())
    });
    let mut left = false;
    for stream in pending {
        if let Err(e) = step(&stream, catalog, groups, &placement, links, clock.now_ms()).await {
            tracing::info!(stream = stream.name.as_str(), "{:?} is not finished: {e}", stream.status);
            reachable!(Mark::StreamStepAgain);
            left = true;
        }
    }
    left
}

async fn step(
    stream: &Stream,
    catalog: &CatalogHandle,
    groups: &Groups,
    placement: &BTreeMap<GroupId, Vec<NodeId>>,
    links: &Links,
    at_ms: u64,
) -> Result<(), String> {
    let creating = stream.status == StreamStatus::Creating;
    let told = stream.groups().into_iter().map(|group| {
        let command = if creating {
            GroupCommand::OpenShards(OpenShards { at_ms, shards: stream.specs_in(group) })
        } else {
            GroupCommand::DropStream(DropStream { at_ms, stream: stream.id })
        };
        let replicas = placement.get(&group).map_or(&[][..], |r| r.as_slice());
        async move { propose_to_group(groups, links, group, replicas, command).await.map_err(|e| e.to_string()) }
    });
    try_join_all(told).await?;
    // Every group has done it, and the catalog does not know yet.
    sometimes!(creating, Mark::StreamBeforeActive);
    sometimes!(!creating, Mark::StreamBeforeDropped);
    let done = if creating {
        CatalogCommand::StreamOpened(StreamOpened { stream: stream.id })
    } else {
        CatalogCommand::StreamDropped(StreamDropped { stream: stream.id })
    };
    match catalog.propose(done).await {
        // Refused: a deletion overtook the creation; the next round sees it.
        Ok(Ok(_)) | Ok(Err(_)) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

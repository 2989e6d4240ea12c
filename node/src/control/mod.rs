//! The control plane of a node: belonging to a cluster, opening the replicas it is given, and, on
//! the catalog's leader, carrying out what the catalog says.
//!
//! Invariant: the catalog says what shall be, control makes it so, and every step may be done twice.
//! A new leader of the catalog therefore needs to know nothing but the catalog.

mod controller;
mod forget;
mod identity;
mod membership;
mod moved_away;
mod remote;
mod replicas;
mod streams;

pub use controller::{Controller, NewCluster};
pub use forget::Forgetting;
pub use identity::LocalNode;
pub use membership::{Membership, Seed};
pub(crate) use remote::on_propose;

use braid_stream::catalog::Addresses;
use braid_stream::catalog_command::{CatalogCommand, PutNode};
use braid_stream::ids::{Incarnation, NodeId, Zone};

use crate::peer::PeerEntry;

/// The command that registers a node. The error names the part that is not allowed.
pub(crate) fn put_node(node: u64, entry: &PeerEntry) -> Result<CatalogCommand, String> {
    Ok(CatalogCommand::PutNode(PutNode {
        node: NodeId(node),
        incarnation: Incarnation(entry.incarnation),
        zone: Zone::parse(&entry.zone).map_err(|e| e.to_string())?,
        addresses: Addresses { client: entry.client_address.clone(), peer: entry.peer_address.clone() },
    }))
}

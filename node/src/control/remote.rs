//! Proposing a command to a group's leader, wherever it is.
//!
//! For commands that may be applied twice only: an answer that does not come says nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use braid_proto::peer::Kind;
use braid_stream::catalog::{CatalogError, CatalogReply};
use braid_stream::catalog_command::CatalogCommand;
use braid_stream::command::GroupCommand;
use braid_stream::group::{Applied, Sealed};
use braid_stream::ids::{GroupId, NodeId, Offset};
use bytes::Bytes;

use crate::peer::{Lane, Links};
use crate::replication::{CatalogHandle, Groups, ProposeError};

/// A leader answers after a majority's fsync; a command of thousands of shards takes its time.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why no leader took the command, as far as is known.
#[derive(Debug)]
pub struct RemoteError {
    group: GroupId,
    why: String,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}: no leader took the command: {}", self.group.0, self.why)
    }
}

impl std::error::Error for RemoteError {}

/// What an accepted command did, as far as whoever proposed it has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// A shard is sealed.
    Sealed(Sealed),
}

impl Outcome {
    /// Nothing, or the sealing time and how many records there were (both little-endian, 8 bytes).
    fn encode(&self) -> Bytes {
        match self {
            Outcome::Done => Bytes::new(),
            Outcome::Sealed(Sealed { last, at_ms }) => {
                let count = last.map_or(0, |last| last.0 + 1);
                Bytes::from([at_ms.to_le_bytes(), count.to_le_bytes()].concat())
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Outcome, String> {
        let number = |at: &[u8]| at.try_into().map(u64::from_le_bytes).expect("eight bytes");
        match bytes.len() {
            0 => Ok(Outcome::Done),
            16 => {
                let (at_ms, count) = (number(&bytes[..8]), number(&bytes[8..]));
                Ok(Outcome::Sealed(Sealed { last: count.checked_sub(1).map(Offset), at_ms }))
            }
            len => Err(format!("{len} bytes are no outcome of a command: 0 or 16 are")),
        }
    }
}

/// Proposes `command` to `group`, of which one of `nodes` leads; returns once it is applied on the leader.
pub async fn propose_to_group(
    groups: &Groups,
    links: &Links,
    group: GroupId,
    nodes: &BTreeSet<NodeId>,
    command: GroupCommand,
) -> Result<Outcome, RemoteError> {
    let me = links.directory().me().node;
    let local = groups.get(group);
    let leader = local.as_ref().and_then(|g| g.leader());
    if leader == Some(NodeId(me))
        && let Some(handle) = &local
    {
        return carried_out(handle.propose(command).await).map_err(|why| RemoteError { group, why });
    }
    // The leader this node knows of first, then every other one.
    let mut targets: Vec<NodeId> = leader.into_iter().collect();
    targets.extend(nodes.iter().filter(|n| Some(**n) != leader && n.0 != me));
    let body = command.encode();
    let mut why = "no replica is known".to_string();
    for target in targets {
        match links.call(target.0, Lane::Control, group.0, Kind::Propose, body.clone(), DEADLINE).await {
            Ok(body) => return Outcome::decode(&body).map_err(|why| RemoteError { group, why }),
            Err(e) => why = format!("node {}: {e}", target.0),
        }
    }
    Err(RemoteError { group, why })
}

/// Proposes `command` to the catalog; returns once it is applied on the leader.
pub async fn propose_to_catalog(
    catalog: &CatalogHandle,
    links: &Links,
    command: CatalogCommand,
) -> Result<(), RemoteError> {
    let group = GroupId::CATALOG;
    let refused = |why| RemoteError { group, why };
    if catalog.is_leader() {
        return taken(catalog.propose(command).await).map_err(refused);
    }
    let leader = catalog.leader().ok_or_else(|| refused("no leader is known".into()))?;
    let asked = links.call(leader.0, Lane::Control, group.0, Kind::Propose, command.encode(), DEADLINE).await;
    asked.map(drop).map_err(|e| refused(format!("node {leader}: {e}")))
}

/// The receiving end: proposes what a peer sent. The error says why nothing is known to be applied.
pub(crate) async fn on_propose(groups: &Groups, group: u32, body: Bytes) -> Result<Bytes, String> {
    if let (GroupId::CATALOG, Some(catalog)) = (GroupId(group), groups.catalog()) {
        return match CatalogCommand::decode(&body).map_err(|e| e.to_string())? {
            command @ (CatalogCommand::BeginMove(_) | CatalogCommand::EndMove(_)) => {
                taken(catalog.propose(command).await).map(|()| Bytes::new())
            }
            _ => Err("the catalog takes no such command from a node".into()),
        };
    }
    let handle = groups.get(GroupId(group)).ok_or_else(|| format!("group {group} has no replica on this node"))?;
    let command = GroupCommand::decode(body).map_err(|e| e.to_string())?;
    carried_out(handle.propose(command).await).map(|outcome| outcome.encode())
}

/// The same of the catalog's rules.
fn taken(outcome: Result<Result<CatalogReply, CatalogError>, ProposeError>) -> Result<(), String> {
    match outcome {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refused)) => Err(refused.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

/// A command that was applied may still have been refused by the group's own rules.
fn carried_out(outcome: Result<Applied, ProposeError>) -> Result<Outcome, String> {
    match outcome {
        Ok(Applied::Opened(Err(refused))) => Err(format!("shards not opened: {refused}")),
        Ok(Applied::Sealed(Err(refused))) => Err(format!("shard not sealed: {refused}")),
        Ok(Applied::Sealed(Ok(sealed))) => Ok(Outcome::Sealed(sealed)),
        Ok(_) => Ok(Outcome::Done),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_their_way() {
        let sealed = |last: Option<u64>| Outcome::Sealed(Sealed { last: last.map(Offset), at_ms: 1_234 });
        for outcome in [Outcome::Done, sealed(None), sealed(Some(0)), sealed(Some(u64::MAX - 1))] {
            assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
        }
        assert!(Outcome::decode(&[1, 2, 3]).is_err());
    }
}

//! Operating: nodes that are drained and removed, replicas that are evened out, and whether a node can be stopped.
//!
//! Invariant: the catalog decides, and says what is to come; its groups' leaders carry it out.

use std::collections::{BTreeMap, BTreeSet};

use braid_probe::{Bug, planted};
use braid_proto::v1;
use braid_stream::catalog::{Catalog, Standing};
use braid_stream::catalog_command::{CatalogCommand, SetRebalancing, SetStanding};
use braid_stream::ids::{GroupId, NodeId, Zone};
use braid_stream::moves::Move;
use braid_stream::outage::{GroupView, Voter, reasons_against};

use super::cluster::merge;
use super::error::ApiError;
use super::{Call, Service};
use crate::routing::forward::request;

/// Planned moves in an answer: whoever looks wants to know how many there are, and what the next ones are.
const PLANNED_MAX: usize = 1_000;

/// A voter that its leader has not heard of for so many election timeouts is not counted on.
const SILENT_TIMEOUTS: u64 = 2;

/// Where replicas are going.
pub(super) struct Plan {
    pub moving: Option<v1::ReplicaMove>,
    pub planned: Vec<v1::ReplicaMove>,
    pub rebalancing: bool,
    pub stuck_reason: String,
}

/// As the catalog says it.
pub(super) fn plan(catalog: &Catalog) -> Plan {
    let planned = catalog.planned_moves(false);
    Plan {
        moving: catalog.moving().map(wire),
        planned: wires(&planned.moves),
        rebalancing: catalog.is_rebalancing(),
        stuck_reason: planned.stuck.map(|stuck| stuck.to_string()).unwrap_or_default(),
    }
}

/// What the cluster wants with a node.
pub(super) fn standing(catalog: &Catalog, node: NodeId) -> v1::NodeStanding {
    match catalog.standing(node) {
        _ if catalog.replaced().contains_key(&node) => v1::NodeStanding::Replaced,
        Some(Standing::Draining) => v1::NodeStanding::Draining,
        Some(Standing::Removed) => v1::NodeStanding::Removed,
        None => v1::NodeStanding::Member,
    }
}

fn wire(it: Move) -> v1::ReplicaMove {
    v1::ReplicaMove { group: it.group.0, from_node: it.from.0, to_node: it.to.0 }
}

fn wires(moves: &[Move]) -> Vec<v1::ReplicaMove> {
    moves.iter().take(PLANNED_MAX).copied().map(wire).collect()
}

impl Service {
    pub(super) async fn drain(
        &self,
        message: v1::DrainNodeRequest,
        call: &Call,
    ) -> Result<v1::DrainNodeResponse, ApiError> {
        let node = NodeId(message.node_id);
        let here = || async {
            let catalog = self.router.catalog()?;
            if message.dry_run {
                self.router.confirm_catalog().await?;
                let planned = catalog.state(|c| c.moves_to_drain(node)).map_err(|e| ApiError::Catalog(e.into()))?;
                return Ok(v1::DrainNodeResponse { planned_moves: wires(&planned) });
            }
            let standing = (!message.cancel).then_some(Standing::Draining);
            self.propose_to_catalog(CatalogCommand::SetStanding(SetStanding { node, standing })).await?;
            let planned = catalog.state(|c| c.planned_moves(false));
            Ok(v1::DrainNodeResponse { planned_moves: wires(&planned.moves) })
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.drain_node(request(message, Some(call.deadline))).await
        })
        .await
    }

    pub(super) async fn remove(
        &self,
        message: v1::RemoveNodeRequest,
        call: &Call,
    ) -> Result<v1::RemoveNodeResponse, ApiError> {
        let command = SetStanding { node: NodeId(message.node_id), standing: Some(Standing::Removed) };
        let here = || async {
            self.propose_to_catalog(CatalogCommand::SetStanding(command)).await?;
            Ok(v1::RemoveNodeResponse {})
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.remove_node(request(message, Some(call.deadline))).await
        })
        .await
    }

    pub(super) async fn even_out(
        &self,
        message: v1::RebalanceRequest,
        call: &Call,
    ) -> Result<v1::RebalanceResponse, ApiError> {
        let here = || async {
            if !message.dry_run {
                let command = SetRebalancing { on: !message.cancel };
                self.propose_to_catalog(CatalogCommand::SetRebalancing(command)).await?;
            }
            let planned = self.router.catalog()?.state(|c| c.planned_moves(!message.cancel));
            Ok(v1::RebalanceResponse { planned_moves: wires(&planned.moves) })
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.rebalance(request(message, Some(call.deadline))).await
        })
        .await
    }

    pub(super) async fn may_stop(
        &self,
        message: &v1::SafeToStopRequest,
        call: &Call,
    ) -> Result<v1::SafeToStopResponse, ApiError> {
        let here = || async {
            // What is moved and who is there is the catalog's to say, as it is now.
            self.router.confirm_catalog().await?;
            self.may_stop_here(message).await
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.safe_to_stop(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    async fn may_stop_here(&self, message: &v1::SafeToStopRequest) -> Result<v1::SafeToStopResponse, ApiError> {
        let (catalog, mine) = (self.router.catalog()?, self.node_status()?);
        let (nodes, asked) = catalog.state(|c| asked(c, message).map(|asked| (c.nodes().clone(), asked)))?;
        let answers = self.ask_all(&mine, &nodes).await;
        let views = catalog.state(|c| views(c, &answers, SILENT_TIMEOUTS * self.election_timeout_ms));
        let reasons = reasons_against(&views, &asked);
        Ok(v1::SafeToStopResponse {
            safe: reasons.is_empty(),
            reasons: reasons.iter().map(ToString::to_string).collect(),
            node_ids: asked.into_iter().map(|node| node.0).collect(),
        })
    }
}

/// The nodes that are meant.
fn asked(catalog: &Catalog, message: &v1::SafeToStopRequest) -> Result<BTreeSet<NodeId>, ApiError> {
    let mut nodes = BTreeSet::new();
    for &node in &message.node_ids {
        if !catalog.nodes().contains_key(&NodeId(node)) {
            return Err(ApiError::NoNode { why: format!("node {node} is not registered in this cluster") });
        }
        nodes.insert(NodeId(node));
    }
    if !message.zone.is_empty() {
        let zone = Zone::parse(&message.zone).map_err(|e| ApiError::invalid("zone", e))?;
        let of_zone = catalog.nodes().iter().filter(|(_, node)| node.zone == zone);
        let before = nodes.len();
        nodes.extend(of_zone.map(|(id, _)| *id));
        if nodes.len() == before && message.node_ids.is_empty() {
            return Err(ApiError::NoNode { why: format!("no node is in zone {}", message.zone) });
        }
    }
    match nodes.is_empty() {
        true => Err(ApiError::invalid("node_ids", "name a node or a zone")),
        false => Ok(nodes),
    }
}

/// Every group, as what nodes have just said of themselves shows it.
fn views(catalog: &Catalog, answers: &BTreeMap<u64, v1::NodeStatusResponse>, silent_ms: u64) -> Vec<GroupView> {
    let merged = merge(answers);
    let groups = catalog.groups().keys().copied().chain([GroupId::CATALOG]);
    groups
        .map(|group| match merged.get(&group.0) {
            Some(status) => view(catalog, status, answers, silent_ms),
            None => unled(catalog, group, answers),
        })
        .collect()
}

fn view(
    catalog: &Catalog,
    status: &v1::GroupStatus,
    answers: &BTreeMap<u64, v1::NodeStatusResponse>,
    silent_ms: u64,
) -> GroupView {
    let of = |node: u64| answers.get(&node)?.groups.iter().find(|it| it.group == status.group);
    let leads = |it: &&v1::GroupStatus| it.leader_node == status.leader_node && it.stopped_reason.is_empty();
    let leader = of(status.leader_node).filter(leads);
    let group = GroupId(status.group);
    if leader.is_none() && !planted(Bug::UnledByOneReplica) {
        return unled(catalog, group, answers);
    }
    let voters: Vec<Voter> = status
        .replicas
        .iter()
        .filter(|replica| replica.voter)
        .map(|replica| {
            let own = of(replica.node_id).filter(|own| own.stopped_reason.is_empty());
            let is_leader = replica.node_id == status.leader_node;
            let heard = is_leader || replica.heard_ms_ago.is_some_and(|ms| ms <= silent_ms);
            Voter {
                node: NodeId(replica.node_id),
                live: own.is_some() && heard,
                may_lead: own.is_some_and(|own| own.damaged_reason.is_empty()),
                lag: match is_leader {
                    true => Some(0),
                    false => (replica.matched_index > 0).then_some(replica.lag),
                },
            }
        })
        .collect();
    let wanted: BTreeSet<NodeId> = catalog.placement().remove(&group).unwrap_or_default().into_iter().collect();
    let changing = !wanted.is_empty() && wanted != voters.iter().map(|it| it.node).collect();
    GroupView {
        group,
        leader: leader.map(|_| NodeId(status.leader_node)),
        moving: changing || catalog.moving().is_some_and(|it| it.group == group),
        voters,
    }
}

/// A group whose leader does not answer: who votes in it is not known, so whoever may is taken for a voter that can't be
/// counted on. A replica alone may know of none: a new one is empty until a leader has sent it something.
fn unled(catalog: &Catalog, group: GroupId, answers: &BTreeMap<u64, v1::NodeStatusResponse>) -> GroupView {
    let placed = catalog.placement().remove(&group).unwrap_or_default().into_iter();
    let replicas =
        answers.values().flat_map(|it| &it.groups).filter(|it| it.group == group.0).flat_map(|it| &it.replicas);
    let said = replicas.filter(|it| it.voter).map(|it| NodeId(it.node_id));
    let voters: BTreeSet<NodeId> = placed.chain(said).collect();
    let unknown = |node| Voter { node, live: false, may_lead: false, lag: None };
    GroupView { group, leader: None, moving: false, voters: voters.into_iter().map(unknown).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node_id: u64, heard_ms_ago: Option<u64>) -> v1::GroupReplica {
        v1::GroupReplica { node_id, voter: true, matched_index: 9, heard_ms_ago, ..v1::GroupReplica::default() }
    }

    fn status(replicas: Vec<v1::GroupReplica>) -> v1::GroupStatus {
        v1::GroupStatus { group: 0, leader_node: 1, replicas, ..v1::GroupStatus::default() }
    }

    #[test]
    fn a_voter_counts_if_it_answers_and_its_leader_hears_it() {
        let led = status(vec![replica(1, None), replica(2, Some(40)), replica(3, Some(9_000))]);
        let of = |node_id, groups| (node_id, v1::NodeStatusResponse { node_id, groups, ..Default::default() });
        let mut answers =
            BTreeMap::from([of(1, vec![led.clone()]), of(2, vec![status(vec![])]), of(3, vec![status(vec![])])]);
        let catalog = Catalog::new();
        let live = |answers: &BTreeMap<u64, v1::NodeStatusResponse>| {
            let seen = view(&catalog, &led, answers, 2_000);
            (seen.leader.is_some(), seen.voters.iter().map(|it| it.live).collect::<Vec<_>>())
        };
        assert_eq!(live(&answers), (true, vec![true, true, false]), "node 3 is not heard by its leader");
        answers.remove(&2);
        assert_eq!(live(&answers), (true, vec![true, false, false]), "node 2 does not answer");
        answers.get_mut(&1).unwrap().groups[0].stopped_reason = "fsync".into();
        assert_eq!(live(&answers), (false, vec![false, false, false]), "its leader has stopped");
    }

    /// Simulator, seed 110002278: of a group's replicas only a new one answered, which knew of no voter yet, and stopping one of the
    /// two others that it had counted as safe.
    #[test]
    fn of_a_group_that_is_not_led_whoever_may_vote_counts() {
        let empty = v1::GroupStatus { group: 0, ..v1::GroupStatus::default() };
        let of = |node_id, groups| (node_id, v1::NodeStatusResponse { node_id, groups, ..Default::default() });
        let told = v1::GroupStatus { replicas: vec![replica(4, None), replica(5, None)], ..empty.clone() };
        let answers = BTreeMap::from([of(4, vec![told]), of(6, vec![empty.clone()])]);
        let seen = view(&Catalog::new(), &empty, &answers, 2_000);
        assert_eq!((seen.leader, seen.voters.len()), (None, 2));
        let stop = |node| reasons_against(std::slice::from_ref(&seen), &BTreeSet::from([NodeId(node)])).len();
        assert_eq!((stop(4), stop(5), stop(7)), (1, 1, 0));
    }
}

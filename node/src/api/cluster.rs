//! Operating: what the cluster and this node are doing, and moving a leadership.
//!
//! Invariant: a status is what someone has just said of himself. The node asked asks the others, so
//! "live" means "answered now", and a group is described by its leader where that one answered.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_proto::v1;
use braid_proto::v1::braid_client::BraidClient;
use braid_stream::catalog::{Catalog, Node};
use braid_stream::catalog_command::{CatalogCommand, ReplaceNode};
use braid_stream::ids::{GroupId, NodeId};
use braid_transport::Channel;
use futures_util::future::join_all;

use super::error::ApiError;
use super::{Call, Service, moves};
use crate::replication::{GroupReplica, Transfer};
use crate::routing::RouteError;
use crate::routing::forward::request;

/// How long another node may take to say how it is.
const ANSWER: Duration = Duration::from_millis(1_000);

/// How long a leadership may take to move: an election, and some.
const TRANSFER: Duration = Duration::from_secs(5);

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Service {
    pub(super) fn node_status(&self) -> Result<v1::NodeStatusResponse, ApiError> {
        let (directory, groups) = self.membership.joined().ok_or(RouteError::NotReady)?;
        let catalog = groups.catalog().ok_or(RouteError::NotReady)?;
        let me = directory.me();
        let replicas = groups.all();
        let zones = catalog.state(zones);
        let statuses: Vec<_> = replicas.iter().map(|replica| group_status(replica, &zones)).collect();
        let warned = |what: &str, group: u32, why: &str| format!("group {group} {what} here: {why}");
        let mut warnings = Vec::new();
        for it in &statuses {
            if !it.stopped_reason.is_empty() {
                warnings.push(warned("has stopped", it.group, &it.stopped_reason));
            }
            if !it.damaged_reason.is_empty() {
                warnings.push(warned("is damaged", it.group, &it.damaged_reason));
            }
        }
        warnings.extend(self.clock.warning());
        warnings.extend(groups.refused().iter().map(|(group, why)| warned("does not start", group.0, why)));
        Ok(v1::NodeStatusResponse {
            node_id: me.node,
            zone: self.zone.clone(),
            incarnation: me.incarnation,
            cluster_id: format!("{:032x}", u128::from_be_bytes(me.cluster)),
            version: VERSION.into(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall_ms: time::wall_ms(),
            warnings,
            ready: statuses.iter().all(|it| it.leader_node != 0 && it.stopped_reason.is_empty()),
            groups: statuses,
            // Not measured yet: `env` has no call for it.
            disk_used_bytes: 0,
            disk_free_bytes: 0,
            client_address: self.client_advertise.clone(),
        })
    }

    pub(super) async fn cluster_status(&self) -> Result<v1::ClusterStatusResponse, ApiError> {
        let mine = self.node_status()?;
        let catalog = self.router.catalog()?;
        let (nodes, counts, plan) = catalog.state(|c| (c.nodes().clone(), counts(c), moves::plan(c)));
        let answers = self.ask_all(&mine, &nodes).await;
        let groups = merge(&answers);
        let (stream_count, open_shard_count, shard_count) = counts;
        Ok(v1::ClusterStatusResponse {
            cluster_id: mine.cluster_id,
            version: VERSION.into(),
            nodes: catalog
                .state(|c| nodes.iter().map(|(id, it)| cluster_node(c, *id, it, &answers, &groups)).collect()),
            groups: groups.into_values().collect(),
            stream_count,
            open_shard_count,
            shard_count,
            answered_by: mine.node_id,
            moving: plan.moving,
            planned_moves: plan.planned,
            rebalancing: plan.rebalancing,
            stuck_reason: plan.stuck_reason,
        })
    }

    /// What each node says of itself, those that answer in time.
    pub(super) async fn ask_all(
        &self,
        mine: &v1::NodeStatusResponse,
        nodes: &BTreeMap<NodeId, Node>,
    ) -> BTreeMap<u64, v1::NodeStatusResponse> {
        let others = nodes.iter().filter(|(id, _)| id.0 != mine.node_id);
        let asked = others.map(|(_, node)| self.ask(&node.addresses.client));
        let mut answers: BTreeMap<u64, v1::NodeStatusResponse> =
            join_all(asked).await.into_iter().flatten().map(|it| (it.node_id, it)).collect();
        answers.insert(mine.node_id, mine.clone());
        answers
    }

    /// What the node at `address` says of itself; `None` if it does not, in time.
    async fn ask(&self, address: &str) -> Option<v1::NodeStatusResponse> {
        let asked = async {
            let request = request(v1::NodeStatusRequest {}, Some(Instant::now() + ANSWER));
            let call = |mut client: BraidClient<Channel>| async move { client.node_status(request).await };
            self.router.channels.call(address, call).await.ok()
        };
        time::timeout(ANSWER, asked).await.ok().flatten()
    }

    pub(super) async fn replace(
        &self,
        message: v1::ReplaceNodeRequest,
        call: &Call,
    ) -> Result<v1::ReplaceNodeResponse, ApiError> {
        let replace = ReplaceNode { from: NodeId(message.from_node), to: NodeId(message.to_node) };
        let here = || async {
            self.propose_to_catalog(CatalogCommand::ReplaceNode(replace.clone())).await?;
            Ok(v1::ReplaceNodeResponse {})
        };
        self.at_leader(GroupId::CATALOG, call, here, |mut client| async move {
            client.replace_node(request(message, Some(call.deadline))).await
        })
        .await
    }

    pub(super) async fn transfer(
        &self,
        message: v1::TransferLeaderRequest,
        call: &Call,
    ) -> Result<v1::TransferLeaderResponse, ApiError> {
        let group = GroupId(message.group);
        let replicas = self.router.catalog()?.state(|c| match group {
            GroupId::CATALOG => Some(c.nodes().keys().copied().collect()),
            _ => c.groups().get(&group).cloned(),
        });
        let replicas: Vec<NodeId> = replicas.ok_or(ApiError::NoGroup(group.0))?;
        if !replicas.contains(&NodeId(message.to_node)) {
            let why = format!("node {} has no replica of group {group}", message.to_node);
            return Err(ApiError::NoNode { why });
        }
        let here = || async {
            let groups = self.router.groups()?;
            let replica = groups.all().into_iter().find(|it| it.id() == group).ok_or(RouteError::NoLeader(group))?;
            let me = self.router.me()?;
            if NodeId(message.to_node) != me {
                match replica.transfer_leader(message.to_node, TRANSFER).await {
                    Transfer::Done => {}
                    Transfer::Refused { why, .. } => {
                        let why = format!("the leadership of group {group} was not offered: {why}");
                        return Err(ApiError::CannotLead { why });
                    }
                    Transfer::NotTaken => {
                        let to = message.to_node;
                        let why = format!("node {to} did not take over group {group} in time, and may yet");
                        return Err(ApiError::Unknown { why });
                    }
                }
            }
            let status = replica.status().replica;
            Ok(v1::TransferLeaderResponse { leader_node: status.leader.unwrap_or(message.to_node), term: status.term })
        };
        self.at_leader(group, call, here, |mut client| async move {
            client.transfer_leader(request(message, Some(call.deadline))).await
        })
        .await
    }
}

fn counts(catalog: &Catalog) -> (u32, u32, u32) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let shards = || catalog.streams().flat_map(|stream| stream.shards.values());
    (count(catalog.streams().len()), count(shards().filter(|it| it.is_open()).count()), count(shards().count()))
}

fn zones(catalog: &Catalog) -> BTreeMap<u64, String> {
    catalog.nodes().iter().map(|(id, node)| (id.0, node.zone.as_str().to_string())).collect()
}

/// A group as its replica here sees it.
fn group_status(replica: &GroupReplica, zones: &BTreeMap<u64, String>) -> v1::GroupStatus {
    let status = replica.status().replica;
    let matched: BTreeMap<u64, u64> = status.matched.iter().copied().collect();
    let heard: BTreeMap<u64, Duration> = status.heard.iter().copied().collect();
    let members = status.voters.iter().map(|node| (node, true)).chain(status.learners.iter().map(|node| (node, false)));
    let mut replicas: Vec<_> = members
        .map(|(node, voter)| {
            let known = matched.get(node).copied();
            v1::GroupReplica {
                node_id: *node,
                zone: zones.get(node).cloned().unwrap_or_default(),
                matched_index: known.unwrap_or(0),
                lag: known.map_or(0, |index| status.last_log.saturating_sub(index)),
                voter,
                heard_ms_ago: heard.get(node).map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            }
        })
        .collect();
    replicas.sort_by_key(|it| it.node_id);
    let shard_count = replica.with_state(|state| match state {
        crate::replication::State::Data(group) => group.shards().len(),
        crate::replication::State::Catalog(_) => 0,
    });
    v1::GroupStatus {
        group: replica.id().0,
        lag: replicas.iter().map(|it| it.lag).max().unwrap_or(0),
        replicas,
        leader_node: status.leader.unwrap_or(0),
        term: status.term,
        last_log_index: status.last_log,
        committed_index: status.committed,
        applied_index: status.applied,
        durable_index: replica.log().durable_index().unwrap_or(0),
        purged_index: status.purged,
        shard_count: u32::try_from(shard_count).unwrap_or(u32::MAX),
        log_bytes: replica.log().segments().iter().map(|segment| segment.bytes).sum(),
        stopped_reason: status.running.err().unwrap_or_default(),
        damaged_reason: status.damage.unwrap_or_default(),
    }
}

/// Each group as its leader describes it, or as the one that knows most if the leader is silent.
pub(super) fn merge(answers: &BTreeMap<u64, v1::NodeStatusResponse>) -> BTreeMap<u32, v1::GroupStatus> {
    let mut merged: BTreeMap<u32, (bool, v1::GroupStatus)> = BTreeMap::new();
    for (node, answer) in answers {
        for group in &answer.groups {
            let by_leader = group.leader_node == *node && group.stopped_reason.is_empty();
            let rank = |leads: bool, it: &v1::GroupStatus| (it.term, leads, it.applied_index);
            let better = merged.get(&group.group).is_none_or(|(led, it)| rank(by_leader, group) > rank(*led, it));
            if better {
                merged.insert(group.group, (by_leader, group.clone()));
            }
        }
    }
    merged.into_iter().map(|(id, (_, group))| (id, group)).collect()
}

fn cluster_node(
    catalog: &Catalog,
    id: NodeId,
    node: &Node,
    answers: &BTreeMap<u64, v1::NodeStatusResponse>,
    groups: &BTreeMap<u32, v1::GroupStatus>,
) -> v1::ClusterNode {
    let answer = answers.get(&id.0);
    v1::ClusterNode {
        node_id: id.0,
        zone: node.zone.as_str().to_string(),
        client_address: node.addresses.client.clone(),
        peer_address: node.addresses.peer.clone(),
        live: answer.is_some(),
        silent_since_ms: 0,
        groups_led: groups.values().filter(|it| it.leader_node == id.0).map(|it| it.group).collect(),
        incarnation: node.incarnation.0,
        version: answer.map(|it| it.version.clone()).unwrap_or_default(),
        standing: moves::standing(catalog, id).into(),
        groups: catalog.groups_on(id).into_iter().map(|group| group.0).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: u32, leader: u64, term: u64, applied: u64) -> v1::GroupStatus {
        v1::GroupStatus { group: id, leader_node: leader, term, applied_index: applied, ..v1::GroupStatus::default() }
    }

    fn node(id: u64, groups: Vec<v1::GroupStatus>) -> (u64, v1::NodeStatusResponse) {
        (id, v1::NodeStatusResponse { node_id: id, groups, ..v1::NodeStatusResponse::default() })
    }

    #[test]
    fn a_group_is_described_by_the_leader_of_the_newest_term() {
        let answers = BTreeMap::from([
            node(1, vec![group(1, 1, 3, 90), group(2, 3, 5, 10)]),
            node(2, vec![group(1, 2, 4, 50), group(2, 3, 5, 12)]),
            node(3, vec![group(1, 2, 4, 60)]),
        ]);
        let merged = merge(&answers);
        assert_eq!((merged[&1].term, merged[&1].applied_index), (4, 50), "what the new leader says of itself");
        assert_eq!(merged[&2].applied_index, 12, "its leader is silent: who knows most");
    }
}

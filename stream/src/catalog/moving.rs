//! Where replicas are and where they are going: nodes that are emptied and leave, and the one replica that is on its way.
//!
//! ```text
//!  drain, rebalance ─▶ a next move (`moves.rs`) ─▶ BeginMove ─▶ learner ─▶ voter, the old one out ─▶ EndMove ─▶ the next
//! ```
//!
//! Invariant: of the whole cluster one replica is on its way at a time, and the list of a group's replicas is what shall
//! be: the group's leader brings its membership there, says so by EndMove, and only then the node that is left may forget
//! what it has. A group whose list was ever changed is never begun anew by a replica that has nothing.
//!
//! Not here: which move is next (`moves.rs`), and changing a membership.

use std::collections::{BTreeMap, BTreeSet};

use braid_probe::{Bug, planted};
use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogReply, GroupError, NodeError};
use crate::catalog_command::{NameVoters, SetRebalancing, SetStanding};
use crate::ids::{GroupId, NodeId};
use crate::moves::{self, Move, Moves, NoPlace, Place, Placement};

/// What is special about a node; of most nothing is.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// Its replicas go to other nodes, and it gets no new ones.
    Draining,
    /// It left for good: its id is not used again.
    Removed,
}

impl Catalog {
    /// What is special about a node.
    pub fn standing(&self, node: NodeId) -> Option<Standing> {
        self.standing.get(&node).copied()
    }

    /// The catalog's own voters; empty until the first leader has named them.
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// The replica that is on its way.
    pub fn moving(&self) -> Option<Move> {
        self.moving
    }

    /// Whether replicas move to where fewer are.
    pub fn is_rebalancing(&self) -> bool {
        self.rebalancing
    }

    /// Whether a replica of the group was ever moved: one that has nothing then gets everything from the others.
    pub fn was_moved(&self, group: GroupId) -> bool {
        self.moved.contains(&group)
    }

    /// Whether `node` has no replica of the data group any more, nor one that is on its way from it.
    pub fn has_left(&self, node: NodeId, group: GroupId) -> bool {
        let elsewhere = self.groups.get(&group).is_some_and(|replicas| !replicas.contains(&node));
        elsewhere && self.moving.is_none_or(|it| it.group != group)
    }

    /// The nodes of which one leads the data group, if it is led: those of its replicas, and while one is on its way, the one
    /// that it leaves.
    pub fn may_lead(&self, group: GroupId) -> BTreeSet<NodeId> {
        let replicas = self.groups.get(&group).into_iter().flatten().copied();
        let moving = self.moving.filter(|it| it.group == group && !planted(Bug::LeaverNotAsked));
        replicas.chain(moving.map(|it| it.from)).collect()
    }

    /// The nodes that are part of the cluster: neither replaced nor removed.
    pub fn places(&self) -> BTreeMap<NodeId, Place> {
        let present = self.nodes.iter().filter(|(id, _)| self.is_present(**id));
        let place = |(id, node): (&NodeId, &super::Node)| {
            (*id, Place { zone: node.zone.clone(), emptied: self.standing(*id) == Some(Standing::Draining) })
        };
        present.map(place).collect()
    }

    /// Each group's replicas, the catalog's voters among them.
    pub fn placement(&self) -> Placement {
        let mut placement = self.groups.clone();
        if !self.voters.is_empty() {
            placement.insert(GroupId::CATALOG, self.voters.clone());
        }
        placement
    }

    /// The groups of which a node has a replica, the catalog among them if it votes there.
    pub fn groups_on(&self, node: NodeId) -> BTreeSet<GroupId> {
        let placement = self.placement();
        placement.into_iter().filter(|(_, replicas)| replicas.contains(&node)).map(|(group, _)| group).collect()
    }

    /// The move to begin now, if none is under way. One whose end is to be emptied itself goes back.
    pub fn next_move(&self) -> Option<Result<Move, NoPlace>> {
        match self.moving {
            Some(moving) if self.standing(moving.to) == Some(Standing::Draining) => {
                let back = self.standing(moving.from).is_none() && self.is_present(moving.from);
                back.then(|| Ok(moving.reverse()))
            }
            Some(_) => None,
            None => {
                let (places, placement) = (self.places(), self.placement());
                match moves::next_to_empty(&places, &placement) {
                    Some(Ok(next)) => Some(Ok(next)),
                    stuck => {
                        let even = moves::next_to_even(&places, &placement).filter(|_| self.rebalancing);
                        even.map(Ok).or(stuck)
                    }
                }
            }
        }
    }

    /// Every move that is to come, as things are now; with `even` also those that a rebalancing would make.
    pub fn planned_moves(&self, even: bool) -> Moves {
        moves::plan(&self.places(), &self.placement(), even || self.rebalancing)
    }

    /// The moves that draining `node` takes, if nothing else is to move; an error if it can't be drained.
    pub fn moves_to_drain(&self, node: NodeId) -> Result<Vec<Move>, NodeError> {
        self.present(node)?;
        let mut places = self.places();
        places.entry(node).and_modify(|place| place.emptied = true);
        let planned = moves::plan(&places, &self.placement(), false);
        match planned.stuck.filter(|stuck| stuck.from == node) {
            Some(stuck) => Err(NodeError::NoPlace(stuck)),
            None => Ok(planned.moves),
        }
    }

    pub(super) fn name_voters(&mut self, command: &NameVoters) -> Result<CatalogReply, NodeError> {
        if self.voters.is_empty() {
            for &node in &command.voters {
                self.present(node)?;
            }
            self.voters = command.voters.clone();
            self.voters.sort_unstable();
        }
        Ok(CatalogReply::VotersNamed)
    }

    pub(super) fn set_standing(&mut self, command: &SetStanding) -> Result<CatalogReply, NodeError> {
        let SetStanding { node, standing } = *command;
        if self.standing(node) == Some(Standing::Removed) && standing == Some(Standing::Removed) {
            return Ok(CatalogReply::NodePut);
        }
        self.present(node)?;
        match standing {
            None => {
                self.standing.remove(&node);
            }
            Some(Standing::Draining) => {
                self.moves_to_drain(node)?;
                self.standing.insert(node, Standing::Draining);
            }
            Some(Standing::Removed) => {
                let groups = self.groups_on(node);
                let moving = self.moving.filter(|it| it.from == node || it.to == node).map(|it| it.group);
                let groups: Vec<GroupId> = groups.into_iter().chain(moving).collect();
                if !groups.is_empty() {
                    return Err(NodeError::StillNeeded { node, groups });
                }
                self.standing.insert(node, Standing::Removed);
            }
        }
        Ok(CatalogReply::NodePut)
    }

    pub(super) fn set_rebalancing(&mut self, command: &SetRebalancing) -> CatalogReply {
        self.rebalancing = command.on && self.could_be_more_even();
        CatalogReply::RebalancingSet
    }

    pub(super) fn begin_move(&mut self, it: Move) -> Result<CatalogReply, GroupError> {
        let begun = CatalogReply::MoveBegun { group: it.group };
        if self.moving == Some(it) {
            return Ok(begun);
        }
        if let Some(moving) = self.moving.filter(|moving| moving.reverse() != it) {
            return Err(GroupError::Moving(moving));
        }
        let replicas = match it.group {
            GroupId::CATALOG => &self.voters,
            group => self.groups.get(&group).ok_or(GroupError::NoSuchGroup { group })?,
        };
        if !replicas.contains(&it.from) || replicas.contains(&it.to) {
            return Err(GroupError::NotPossible(it));
        }
        let after = it.carry_out(replicas);
        self.check_replicas(&after)?;
        match it.group {
            GroupId::CATALOG => self.voters = after,
            group => drop(self.groups.insert(group, after)),
        }
        self.moved.insert(it.group);
        self.moving = Some(it);
        Ok(begun)
    }

    pub(super) fn end_move(&mut self, it: Move) -> Result<CatalogReply, GroupError> {
        match self.moving {
            Some(moving) if moving == it => self.moving = None,
            Some(moving) => return Err(GroupError::Moving(moving)),
            // Said twice.
            None => {}
        }
        self.rebalancing &= self.could_be_more_even();
        Ok(CatalogReply::MoveEnded { group: it.group })
    }

    /// What follows for moves and voters from `to` taking everything over from `from`.
    pub(super) fn take_over_moves(&mut self, from: NodeId, to: NodeId) {
        for voter in self.voters.iter_mut().filter(|voter| **voter == from) {
            *voter = to;
        }
        self.voters.sort_unstable();
        if let Some(moving) = self.moving.as_mut().filter(|moving| moving.to == from) {
            moving.to = to;
        }
        // A replica that was on its way from `to` to `from` is where it shall be.
        self.moving = self.moving.filter(|it| it.from != it.to || planted(Bug::MoveToItself));
        self.standing.remove(&from);
    }

    fn could_be_more_even(&self) -> bool {
        moves::next_to_even(&self.places(), &self.placement()).is_some()
    }

    fn is_present(&self, node: NodeId) -> bool {
        let left = self.replaced.contains_key(&node) || self.standing(node) == Some(Standing::Removed);
        self.nodes.contains_key(&node) && !left
    }

    fn present(&self, node: NodeId) -> Result<(), NodeError> {
        match (self.nodes.contains_key(&node), self.replaced.get(&node), self.standing(node)) {
            (false, ..) => Err(NodeError::Unknown { node }),
            (_, Some(&by), _) => Err(NodeError::AlreadyReplaced { node, by }),
            (.., Some(Standing::Removed)) => Err(NodeError::Removed { node }),
            _ => Ok(()),
        }
    }
}

//! Which replica moves next: off a node that is being emptied, or from a full node to an empty one.
//!
//! Invariant: a move leaves a group's replicas in distinct zones, and every plan ends: emptying takes a replica off its
//! node for good, evening lowers the sum of the squared loads.
//!
//! Not here: carrying a move out, which takes a while; only one is made at a time (`catalog/moving.rs`).

use std::collections::BTreeMap;
use std::fmt;

use braid_probe::{Bug, planted};
use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, NodeId, Zone};

/// A replica that leaves one node for another.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Move {
    pub group: GroupId,
    pub from: NodeId,
    pub to: NodeId,
}

impl Move {
    /// Back to where it came from.
    pub fn reverse(self) -> Move {
        Move { from: self.to, to: self.from, ..self }
    }

    /// The replicas after it; as they were, if `from` is not among them.
    pub fn carry_out(self, replicas: &[NodeId]) -> Vec<NodeId> {
        let mut after: Vec<NodeId> =
            replicas.iter().map(|&node| if node == self.from { self.to } else { node }).collect();
        after.sort_unstable();
        after
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}: node {} to node {}", self.group, self.from, self.to)
    }
}

/// A node, as far as replicas are placed on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub zone: Zone,
    /// It gives away what it has, and takes nothing.
    pub emptied: bool,
}

/// A replica that has to leave its node, and no node can take it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoPlace {
    pub group: GroupId,
    pub from: NodeId,
    /// Those of the group's other replicas.
    pub taken: Vec<Zone>,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken: Vec<&str> = self.taken.iter().map(Zone::as_str).collect();
        write!(
            f,
            "no node can take group {}'s replica of node {}: it must be in another zone than {}, be without a replica of \
             the group, and not be drained itself",
            self.group,
            self.from,
            taken.join(" and ")
        )
    }
}

impl std::error::Error for NoPlace {}

/// Each group's replicas; the catalog is group 0.
pub type Placement = BTreeMap<GroupId, Vec<NodeId>>;

/// The next replica to take off a node that is being emptied: of the lowest node, of its lowest group that has a place to
/// go to. An error if there are such replicas and none has.
pub fn next_to_empty(nodes: &BTreeMap<NodeId, Place>, placement: &Placement) -> Option<Result<Move, NoPlace>> {
    let load = loads(nodes, placement);
    let mut stuck = None;
    for (&from, _) in nodes.iter().filter(|(_, place)| place.emptied) {
        for (&group, replicas) in placement.iter().filter(|(_, replicas)| replicas.contains(&from)) {
            let to = takers(nodes, replicas, from).min_by_key(|to| (load[to], *to));
            match to {
                Some(to) => return Some(Ok(Move { group, from, to })),
                None => stuck = stuck.or_else(|| Some(no_place(nodes, group, replicas, from))),
            }
        }
    }
    stuck.map(Err)
}

/// The next move that makes the nodes' loads more even: from a node to one with at least two replicas fewer, where the
/// difference is greatest. Data groups only; nodes that are being emptied neither give nor take. `None`: it is even.
pub fn next_to_even(nodes: &BTreeMap<NodeId, Place>, placement: &Placement) -> Option<Move> {
    let load = loads(nodes, placement);
    let mut best: Option<(u32, Move)> = None;
    for (&group, replicas) in placement.iter().filter(|(group, _)| **group != GroupId::CATALOG) {
        let givers = replicas.iter().copied().filter(|node| nodes.get(node).is_some_and(|place| !place.emptied));
        for from in givers {
            for to in takers(nodes, replicas, from) {
                let gain = load[&from].saturating_sub(load[&to]);
                if gain >= 2 && best.is_none_or(|(most, _)| gain > most) {
                    best = Some((gain, Move { group, from, to }));
                }
            }
        }
    }
    best.map(|(_, it)| it)
}

/// Every move that is to come, in order, and the replicas that have nowhere to go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moves {
    pub moves: Vec<Move>,
    pub stuck: Option<NoPlace>,
}

/// What emptying, and evening if `even`, comes to if nothing else changes.
pub fn plan(nodes: &BTreeMap<NodeId, Place>, placement: &Placement, even: bool) -> Moves {
    let mut placement = placement.clone();
    let mut planned = Moves::default();
    loop {
        let next = match next_to_empty(nodes, &placement) {
            Some(Ok(next)) => next,
            stuck => {
                planned.stuck = stuck.and_then(Result::err);
                match next_to_even(nodes, &placement).filter(|_| even) {
                    Some(next) => next,
                    None => return planned,
                }
            }
        };
        let replicas = placement.get_mut(&next.group).expect("a move is of a group that is placed");
        *replicas = next.carry_out(replicas);
        planned.moves.push(next);
    }
}

/// Replicas per node.
fn loads(nodes: &BTreeMap<NodeId, Place>, placement: &Placement) -> BTreeMap<NodeId, u32> {
    let mut load: BTreeMap<NodeId, u32> = nodes.keys().map(|&node| (node, 0)).collect();
    let data = placement.iter().filter(|(group, _)| **group != GroupId::CATALOG);
    for node in data.flat_map(|(_, replicas)| replicas) {
        load.entry(*node).and_modify(|replicas| *replicas += 1);
    }
    load
}

/// The nodes that may take the replica of `from`.
fn takers<'a>(
    nodes: &'a BTreeMap<NodeId, Place>,
    replicas: &'a [NodeId],
    from: NodeId,
) -> impl Iterator<Item = NodeId> + 'a {
    let stay = move || replicas.iter().filter(move |node| **node != from);
    let free = move |place: &Place| {
        planted(Bug::TwoInAZone) || stay().all(|node| nodes.get(node).is_none_or(|it| it.zone != place.zone))
    };
    nodes
        .iter()
        .filter(move |(node, place)| !place.emptied && !replicas.contains(node) && free(place))
        .map(|(&node, _)| node)
}

fn no_place(nodes: &BTreeMap<NodeId, Place>, group: GroupId, replicas: &[NodeId], from: NodeId) -> NoPlace {
    let stay = replicas.iter().filter(|node| **node != from);
    NoPlace { group, from, taken: stay.filter_map(|node| nodes.get(node)).map(|it| it.zone.clone()).collect() }
}

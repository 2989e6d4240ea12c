//! Where things go: shards on groups, replicas on nodes, leaders on replicas.
//!
//! Invariant: every choice is a pure function of what is passed in, with ties broken by id; the
//! replicas of a group are in distinct zones.
//!
//! Not here: moving anything; a placement once made stays until a command changes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{GroupId, NodeId, Zone};

/// Puts `shards` shards one after the other on the group that has the fewest. `load` counts each
/// group's shards. Gives one group per shard, in order; `None` if there are no groups.
pub fn place_shards(load: &BTreeMap<GroupId, u32>, shards: u32) -> Option<Vec<GroupId>> {
    let mut queue: BTreeSet<(u32, GroupId)> = load.iter().map(|(&id, &n)| (n, id)).collect();
    (0..shards)
        .map(|_| {
            let (count, group) = queue.pop_first()?;
            queue.insert((count + 1, group));
            Some(group)
        })
        .collect()
}

/// Chooses the replicas of `count` new groups: for each, the least loaded node in each of the
/// `replicas` least loaded zones. `existing` are the replicas of the groups there are. `None` if
/// there are fewer zones than replicas.
pub fn place_groups(
    nodes: &BTreeMap<NodeId, Zone>,
    existing: &BTreeMap<GroupId, Vec<NodeId>>,
    replicas: usize,
    count: usize,
) -> Option<Vec<Vec<NodeId>>> {
    let mut load: BTreeMap<NodeId, u32> = nodes.keys().map(|&node| (node, 0)).collect();
    for node in existing.values().flatten() {
        load.entry(*node).and_modify(|replicas| *replicas += 1);
    }
    let mut placed = Vec::with_capacity(count);
    for _ in 0..count {
        let chosen = place_group(nodes, &load, replicas)?;
        for node in &chosen {
            load.entry(*node).and_modify(|replicas| *replicas += 1);
        }
        placed.push(chosen);
    }
    Some(placed)
}

fn place_group(nodes: &BTreeMap<NodeId, Zone>, load: &BTreeMap<NodeId, u32>, replicas: usize) -> Option<Vec<NodeId>> {
    // A zone is as loaded as its least loaded node: that is the one it offers.
    let mut offers: BTreeMap<&Zone, (u32, NodeId)> = BTreeMap::new();
    for (&node, zone) in nodes {
        let offer = (load[&node], node);
        offers.entry(zone).and_modify(|best| *best = offer.min(*best)).or_insert(offer);
    }
    let mut offers: Vec<(u32, NodeId)> = offers.into_values().collect();
    offers.sort_unstable();
    let chosen = offers.get(..replicas)?;
    let mut chosen: Vec<NodeId> = chosen.iter().map(|&(_, node)| node).collect();
    chosen.sort_unstable();
    Some(chosen)
}

/// Which replica should lead each group, so that leaders are spread evenly over nodes: no single
/// leadership could move from a node to another with at least two fewer.
pub fn place_leaders(groups: &BTreeMap<GroupId, Vec<NodeId>>) -> BTreeMap<GroupId, NodeId> {
    let mut load: BTreeMap<NodeId, u32> = groups.values().flatten().map(|&n| (n, 0)).collect();
    let mut leaders = BTreeMap::new();
    for (&group, replicas) in groups {
        let Some(&leader) = replicas.iter().min_by_key(|&&node| (load[&node], node)) else {
            continue;
        };
        load.entry(leader).and_modify(|groups| *groups += 1);
        leaders.insert(group, leader);
    }
    // The greedy pass favours early groups. Each move below lowers the sum of squared loads, so
    // this ends.
    let mut moved = true;
    while moved {
        moved = false;
        for (&group, replicas) in groups {
            let Some(&from) = leaders.get(&group) else {
                continue;
            };
            let to = replicas.iter().min_by_key(|&&node| (load[&node], node));
            if let Some(&to) = to
                && load[&from] >= load[&to] + 2
            {
                load.entry(from).and_modify(|groups| *groups -= 1);
                load.entry(to).and_modify(|groups| *groups += 1);
                leaders.insert(group, to);
                moved = true;
            }
        }
    }
    leaders
}

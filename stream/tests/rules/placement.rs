//! Placement: even, in distinct zones, the same every time.

use std::collections::{BTreeMap, BTreeSet};

use braid_stream::placement::{place_groups, place_leaders, place_shards};
use braid_stream::{GroupId, NodeId, Zone};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn zone(nth: u64) -> Zone {
    Zone::parse(&format!("zone-{nth}")).unwrap()
}

/// `per_zone` nodes in each of three zones.
fn nodes(per_zone: u64) -> BTreeMap<NodeId, Zone> {
    (0..3 * per_zone).map(|n| (NodeId(n + 1), zone(n % 3))).collect()
}

#[test]
fn three_nodes_share_replicas_and_leaders() {
    let placed = place_groups(&nodes(1), &BTreeMap::new(), 3, 9).unwrap();
    let groups: BTreeMap<GroupId, Vec<NodeId>> = (1..).map(GroupId).zip(placed).collect();
    let leaders = place_leaders(&groups);
    for node in nodes(1).keys() {
        assert_eq!(leaders.values().filter(|it| *it == node).count(), 3);
    }
}

#[test]
fn six_nodes_share_groups() {
    let placed = place_groups(&nodes(2), &BTreeMap::new(), 3, 10).unwrap();
    for node in nodes(2).keys() {
        assert_eq!(placed.iter().filter(|it| it.contains(node)).count(), 5);
    }
}

#[test]
fn nowhere_to_place() {
    assert_eq!(place_shards(&BTreeMap::new(), 1), None);
    let mut two_zones = nodes(2);
    two_zones.retain(|_, it| *it != zone(0));
    assert_eq!(place_groups(&two_zones, &BTreeMap::new(), 3, 1), None);
}

proptest! {
    #[test]
    fn shards_go_where_there_are_fewest(
        load in btree_map((1..9u32).prop_map(GroupId), 0..50u32, 1..8),
        shards in 0..200u32,
    ) {
        let mut after = load.clone();
        for group in place_shards(&load, shards).unwrap() {
            prop_assert_eq!(after[&group], *after.values().min().unwrap());
            *after.get_mut(&group).unwrap() += 1;
        }
        prop_assert_eq!(after.values().sum::<u32>(), load.values().sum::<u32>() + shards);
    }

    #[test]
    fn replicas_are_in_distinct_zones(
        nodes in btree_map((1..20u64).prop_map(NodeId), (0..5u64).prop_map(zone), 1..12),
        count in 1..10usize,
    ) {
        let zones: BTreeSet<_> = nodes.values().collect();
        let placed = place_groups(&nodes, &BTreeMap::new(), 3, count);
        prop_assert_eq!(placed.is_some(), zones.len() >= 3);
        for replicas in placed.into_iter().flatten() {
            let zones: BTreeSet<_> = replicas.iter().map(|node| &nodes[node]).collect();
            prop_assert_eq!(zones.len(), 3);
            prop_assert_eq!(replicas.len(), 3);
        }
    }

    #[test]
    fn no_leadership_is_better_elsewhere(
        groups in btree_map((1..40u32).prop_map(GroupId), vec((1..9u64).prop_map(NodeId), 1..4), 0..30),
    ) {
        let leaders = place_leaders(&groups);
        prop_assert_eq!(leaders.len(), groups.len());
        let load = |node: &NodeId| leaders.values().filter(|it| *it == node).count();
        for (group, leader) in &leaders {
            prop_assert!(groups[group].contains(leader));
            for other in &groups[group] {
                prop_assert!(load(leader) <= load(other) + 1);
            }
        }
    }
}

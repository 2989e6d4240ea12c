//! Replicas move one at a time: off nodes that are drained, to nodes that have fewer, and never two into one zone.

use std::collections::BTreeSet;

use braid_stream::catalog::{
    Addresses, CatalogError, CatalogReply, GroupError, NodeError, Settings, Standing, TokenKey,
};
use braid_stream::catalog_command::*;
use braid_stream::moves::{Move, NoPlace};
use braid_stream::{Catalog, CatalogCommand, ClusterId, GroupId, Incarnation, NodeId, Zone};
use proptest::prelude::*;

fn zone(nth: u64) -> Zone {
    Zone::parse(&format!("zone-{nth}")).unwrap()
}

fn put_node(node: u64) -> CatalogCommand {
    CatalogCommand::PutNode(PutNode {
        node: NodeId(node),
        incarnation: Incarnation(node),
        zone: zone((node - 1) % 3),
        addresses: Addresses { client: "n:1".into(), peer: "n:2".into() },
    })
}

/// Nodes 1 to `nodes` in three zones in turn; groups on the first three; these vote in the catalog.
fn catalog(nodes: u64, groups: u32) -> Catalog {
    let mut catalog = Catalog::new();
    apply(
        &mut catalog,
        CatalogCommand::Init(Init {
            at_ms: 0,
            cluster: ClusterId([1; 16]),
            token_key: TokenKey([2; 32]),
            settings: Settings::default(),
        }),
    )
    .unwrap();
    let first = [1, 2, 3].map(NodeId).to_vec();
    for node in 1..=nodes {
        apply(&mut catalog, put_node(node)).unwrap();
    }
    for group in 1..=groups {
        let create = CreateGroup { group: GroupId(group), replicas: first.clone() };
        apply(&mut catalog, CatalogCommand::CreateGroup(create)).unwrap();
    }
    apply(&mut catalog, CatalogCommand::NameVoters(NameVoters { voters: first })).unwrap();
    catalog
}

fn apply(catalog: &mut Catalog, command: CatalogCommand) -> Result<CatalogReply, CatalogError> {
    let before = catalog.clone();
    let reply = catalog.apply(&command);
    assert_eq!(catalog.check(), vec![], "{command:?}");
    if reply.is_err() {
        assert_eq!(*catalog, before, "{command:?} was refused");
    }
    assert_eq!(CatalogCommand::decode(&command.encode()), Ok(command));
    assert_eq!(Catalog::decode(&catalog.encode()).as_ref(), Ok(&*catalog));
    reply
}

fn stand(catalog: &mut Catalog, node: u64, standing: Option<Standing>) -> Result<CatalogReply, CatalogError> {
    apply(catalog, CatalogCommand::SetStanding(SetStanding { node: NodeId(node), standing }))
}

/// Drains a node; the first move, begun.
fn begin_to_drain(catalog: &mut Catalog, node: u64) -> Move {
    stand(catalog, node, Some(Standing::Draining)).unwrap();
    let first = catalog.next_move().unwrap().unwrap();
    apply(catalog, CatalogCommand::BeginMove(first)).unwrap();
    first
}

fn replace(catalog: &mut Catalog, from: NodeId, to: NodeId) {
    apply(catalog, CatalogCommand::ReplaceNode(ReplaceNode { from, to })).unwrap();
}

fn even(catalog: &mut Catalog) {
    apply(catalog, CatalogCommand::SetRebalancing(SetRebalancing { on: true })).unwrap();
}

/// Begins and ends what is to come, as groups' leaders do; how many moves it was.
fn carry_out(catalog: &mut Catalog) -> usize {
    let mut moves = 0;
    while let Some(Ok(next)) = catalog.next_move() {
        apply(catalog, CatalogCommand::BeginMove(next)).unwrap();
        assert_eq!(catalog.next_move(), None, "one at a time");
        assert!(!catalog.has_left(next.from, next.group), "not while it may be needed");
        apply(catalog, CatalogCommand::EndMove(next)).unwrap();
        assert!(catalog.has_left(next.from, next.group) || next.group == GroupId::CATALOG);
        moves += 1;
    }
    moves
}

#[test]
fn a_node_is_drained_and_removed() {
    let mut catalog = catalog(4, 5);
    let planned = catalog.moves_to_drain(NodeId(1)).unwrap();
    assert_eq!(planned.len(), 6, "five groups, and the vote in the catalog");
    let needed = stand(&mut catalog, 1, Some(Standing::Removed));
    let groups: Vec<GroupId> = (0..=5).map(GroupId).collect();
    assert_eq!(needed, Err(NodeError::StillNeeded { node: NodeId(1), groups }.into()));
    stand(&mut catalog, 1, Some(Standing::Draining)).unwrap();
    assert_eq!(catalog.planned_moves(false).moves, planned);
    assert_eq!(carry_out(&mut catalog), 6);
    assert_eq!((catalog.groups_on(NodeId(1)), catalog.voters()), (BTreeSet::new(), &[2, 3, 4].map(NodeId)[..]));
    stand(&mut catalog, 1, Some(Standing::Removed)).unwrap();
    stand(&mut catalog, 1, Some(Standing::Removed)).expect("said twice");
    let gone = Err(NodeError::Removed { node: NodeId(1) }.into());
    assert_eq!(apply(&mut catalog, put_node(1)), gone, "it does not come back");
    assert_eq!(stand(&mut catalog, 1, None), gone);
}

#[test]
fn what_has_no_place_to_go_is_said_before_anything_moves() {
    let mut catalog = catalog(4, 2);
    let taken = vec![zone(0), zone(2)];
    let stuck = NoPlace { group: GroupId::CATALOG, from: NodeId(2), taken };
    assert_eq!(stand(&mut catalog, 2, Some(Standing::Draining)), Err(NodeError::NoPlace(stuck.clone()).into()));
    assert_eq!(
        stuck.to_string(),
        "no node can take group 0's replica of node 2: it must be in another zone than zone-0 and zone-2, be without a \
         replica of the group, and not be drained itself"
    );
    let unknown = Err(NodeError::Unknown { node: NodeId(9) }.into());
    assert_eq!(stand(&mut catalog, 9, Some(Standing::Draining)), unknown);
}

#[test]
fn a_move_whose_end_is_to_leave_goes_back() {
    let mut catalog = catalog(7, 1);
    let vote = begin_to_drain(&mut catalog, 1);
    let other = Move { group: GroupId(1), ..vote };
    let busy = Err(GroupError::Moving(vote).into());
    assert_eq!(apply(&mut catalog, CatalogCommand::BeginMove(other)), busy);
    assert_eq!(apply(&mut catalog, CatalogCommand::EndMove(other)), busy);
    // Node 4 turns out to be no good, and node 1 stays after all.
    stand(&mut catalog, vote.to.0, Some(Standing::Draining)).unwrap();
    assert_eq!(catalog.next_move(), None, "where it came from is to be left as well");
    stand(&mut catalog, 1, None).unwrap();
    assert_eq!(catalog.next_move(), Some(Ok(vote.reverse())));
    apply(&mut catalog, CatalogCommand::BeginMove(vote.reverse())).unwrap();
    apply(&mut catalog, CatalogCommand::EndMove(vote.reverse())).unwrap();
    assert_eq!(catalog.voters(), [1, 2, 3].map(NodeId));
}

#[test]
fn the_node_that_a_replica_leaves_may_lead_until_the_end() {
    let mut catalog = catalog(6, 2);
    let replicas = catalog.groups()[&GroupId(1)].clone();
    let after = |it: Move| it.carry_out(&replicas).into_iter().collect::<BTreeSet<_>>();
    let to = NodeId(replicas[0].0 + 3);
    let it = Move { group: GroupId(1), from: replicas[0], to };
    apply(&mut catalog, CatalogCommand::BeginMove(it)).unwrap();
    let all = after(it).into_iter().chain([it.from]).collect();
    assert_eq!((catalog.may_lead(GroupId(1)), catalog.may_lead(GroupId(2)).len()), (all, 3));
    apply(&mut catalog, CatalogCommand::EndMove(it)).unwrap();
    assert_eq!(catalog.may_lead(GroupId(1)), after(it));
    assert_eq!(catalog.may_lead(GroupId(9)), BTreeSet::new(), "no such group");
}

#[test]
fn a_lost_node_takes_its_part_in_a_move_to_its_successor() {
    let mut catalog = catalog(7, 1);
    let vote = begin_to_drain(&mut catalog, 1);
    let successor = NodeId(if vote.to == NodeId(4) { 7 } else { 4 });
    replace(&mut catalog, vote.to, successor);
    let now = Move { to: successor, ..vote };
    assert_eq!(catalog.moving(), Some(now));
    apply(&mut catalog, CatalogCommand::EndMove(now)).unwrap();
    assert!(catalog.voters().contains(&successor));
}

/// Simulator, seed 410007772: the move went on, from a node to itself.
#[test]
fn a_move_is_over_when_the_node_it_leaves_replaces_the_one_it_goes_to() {
    let mut catalog = catalog(4, 0);
    let vote = begin_to_drain(&mut catalog, 1);
    assert_eq!((vote.from, vote.to), (NodeId(1), NodeId(4)));
    stand(&mut catalog, 1, None).unwrap();
    replace(&mut catalog, vote.to, vote.from);
    assert_eq!((catalog.moving(), catalog.next_move()), (None, None));
    assert_eq!(catalog.voters(), [1, 2, 3].map(NodeId));
    assert!(!catalog.has_left(vote.from, GroupId::CATALOG));
}

/// Simulator: replicas were evened out onto the new node before it was named, and the lost one could not be replaced.
#[test]
fn a_successor_may_have_replicas_of_other_groups() {
    let mut catalog = catalog(4, 6);
    even(&mut catalog);
    assert!(carry_out(&mut catalog) > 0);
    let (lost, new) = (NodeId(1), NodeId(4));
    let (had, has) = (catalog.groups_on(lost), catalog.groups_on(new));
    assert!(!had.is_empty() && !has.is_empty());
    replace(&mut catalog, lost, new);
    assert_eq!(catalog.groups_on(new), &had | &has);
    assert_eq!(catalog.groups_on(lost), BTreeSet::new());
}

#[test]
fn a_replica_on_its_way_from_a_lost_node_to_its_successor_goes_on() {
    let mut catalog = catalog(4, 1);
    let vote = begin_to_drain(&mut catalog, 1);
    replace(&mut catalog, vote.from, vote.to);
    assert_eq!(catalog.moving(), Some(vote));
    assert_eq!(catalog.groups_on(vote.to), (0..=1).map(GroupId).collect());
}

proptest! {
    #[test]
    fn drains_and_rebalancings_come_to_an_end(
        nodes in 3..13u64,
        groups in 1..12u32,
        leaving in proptest::collection::btree_set(1..13u64, 0..4),
        rebalance in any::<bool>(),
    ) {
        let mut catalog = catalog(nodes, groups);
        for node in leaving {
            let _ = stand(&mut catalog, node, Some(Standing::Draining));
        }
        if rebalance {
            even(&mut catalog);
        }
        let planned = catalog.planned_moves(false);
        prop_assert_eq!(carry_out(&mut catalog), planned.moves.len());
        prop_assert_eq!(planned.stuck.clone().map(Err), catalog.next_move());
        prop_assert!(!catalog.is_rebalancing());
        for node in (1..=nodes).map(NodeId).filter(|node| catalog.standing(*node).is_some()) {
            prop_assert!(catalog.groups_on(node).is_empty() || planned.stuck.is_some());
        }
        if rebalance {
            // Within a zone any replica can go to any other node.
            for zone in 0..3 {
                let load = |node: u64| catalog.groups_on(NodeId(node)).iter().filter(|it| it.0 > 0).count();
                let stays = |node: &u64| (node - 1) % 3 == zone && catalog.standing(NodeId(*node)).is_none();
                let loads: Vec<usize> = (1..=nodes).filter(stays).map(load).collect();
                let (least, most) = (loads.iter().min(), loads.iter().max());
                prop_assert!(least.zip(most).is_none_or(|(least, most)| most - least <= 1), "{:?}", loads);
            }
        }
    }
}

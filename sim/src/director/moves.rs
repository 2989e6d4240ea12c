//! Faults of several steps about replicas that move: who has not heard of a move has to harm nobody.
//!
//! Invariant: each is counted when it comes to what it is for, since nothing may move.

use braid_stream::CatalogCommand;
use braid_stream::catalog::Catalog;
use braid_stream::ids::{GroupId, NodeId};
use braid_stream::moves::{Move, Placement};
use braid_stream::placement::place_leaders;

use super::combined::{HAND_OVER_MS, LOOK_MS, Led, PATIENCE_MS, RACE_LOOK_MS};
use super::links::Change;
use super::watchman::REPLACED_MAX;
use super::{Director, Then, dir_of};
use crate::checkers::members;
use crate::fault::{Effect, Kind, Left};

/// How long it is waited for that a replica moves, milliseconds.
const MOVE_PATIENCE_MS: u64 = 8_000;

/// How long nodes are together that have not heard of a move, and apart from all others: an election or two, after the
/// time that a restarted one promises its vote to nobody, milliseconds.
const APART_MS: u64 = 8_000;

/// How long a node that has not heard of a move is left to what it believes, milliseconds.
const UNAWARE_MS: u64 = 3_000;

impl Director {
    /// The move that is under way, of a data group, as this node's catalog says.
    fn move_known_to(&self, number: u64) -> Option<Move> {
        let moving = self.catalog_of(number)?.state(|c| c.moving());
        moving.filter(|it| it.group != GroupId::CATALOG)
    }

    /// Who leads the group of a move; not one of its two ends.
    fn leader_of(&self, it: Move) -> Option<Led> {
        self.some_led(|led| led.group == it.group && led.leader != it.from.0 && led.leader != it.to.0)
    }

    /// Does what these kinds do while a replica moves: they begin a move themselves, or wait for one.
    pub(super) fn strike_at_move(&self, kind: Kind) {
        match kind {
            Kind::MoveStranded => self.strand_move(),
            Kind::MoveReturned => self.return_move(),
            Kind::MoveUnheard => self.outdate_voter(),
            Kind::ArrivalUnheard => self.unhear_arrival(),
            Kind::LeaderUnaware => self.lead_unaware(),
            Kind::SuccessorUnheard => self.unhear_successor(),
            other => unreachable!("{} is not about a move", other.name()),
        }
    }

    /// While a replica is on its way, the node that it leaves is restarted, the one that it goes to is not heard, and
    /// a node of the zone that will be gone for ever is down already.
    fn strand_move(&self) {
        let possible = |d: &Director| d.possible_move(|it, _| !d.is_doomed(it.from.0) && !d.is_doomed(it.to.0));
        self.once(MOVE_PATIENCE_MS, LOOK_MS, possible, |d, found| {
            let Some((it, _)) = found else { return };
            let Move { group, from, to } = it;
            d.begin_move(it);
            let moving = move |d: &Director| (d.move_known_to(from.0) == Some(it)).then_some(());
            d.once(PATIENCE_MS, RACE_LOOK_MS, moving, move |d, found| {
                if found.is_none() {
                    return;
                }
                d.tell(format!("a replica of group {} is on its way from node {from} to {to}", group.0));
                d.count(Kind::MoveStranded);
                d.change_links(&d.around(&[to.0], 1), Change::Cut, MOVE_PATIENCE_MS);
                d.take_down(&[from.0], Effect::Killed, Left::Everything, 10);
                let doomed: Vec<u64> = d.alive().into_iter().filter(|number| d.is_doomed(*number)).collect();
                d.take_down(&doomed, Effect::Killed, Left::Everything, d.plan.duration_ms);
            });
        });
    }

    /// While a replica is on its way, one that is to lead if possible, and comes late, a node with another replica of that
    /// group is lost, and nobody hears its successor: of the group's two new replicas, one does not catch up.
    fn unhear_successor(&self) {
        let Some(teller) = self.catalog_led().map(|led| led.leader) else { return };
        let unlucky = |node: &NodeId| self.zone_of(node.0) == self.plan.unlucky_zone && node.0 != teller;
        let fits = |it: Move, groups: &Placement| {
            let ends = [it.from, it.to];
            ends.iter().all(|end| !unlucky(end) && end.0 != teller) && groups[&it.group].iter().any(unlucky)
        };
        let leads = |it: Move, groups: &Placement| {
            let mut after = groups.clone();
            after.insert(it.group, it.carry_out(&groups[&it.group]));
            place_leaders(&after).get(&it.group) == Some(&it.to)
        };
        let moved = self.possible_move(|it, groups| fits(it, groups) && leads(it, groups));
        let Some((it, replicas)) = moved.or_else(|| self.possible_move(fits)) else { return };
        let old = replicas.iter().find(|node| unlucky(node)).map(|node| node.0);
        let late = self.around(&[it.to.0], 1);
        let cut = self.begin_change(&late, Change::Cut);
        self.begin_move(it);
        let moving = move |d: &Director| (d.move_known_to(teller) == Some(it)).then_some(());
        self.once(PATIENCE_MS, RACE_LOOK_MS, moving, move |d, found| {
            let may = d.state().replaced < REPLACED_MAX;
            if found.is_none() || !may || !d.begin_replacing(old, Then::Unheard) {
                return d.end_change(cut, &late);
            }
            d.count(Kind::SuccessorUnheard);
            let Move { group, from, to } = it;
            d.tell(format!("a replica of group {} is on its way from node {from} to {to}, and comes late", group.0));
            let replaced = |d: &Director| d.state().replacing.is_none().then_some(());
            d.once(MOVE_PATIENCE_MS, LOOK_MS, replaced, move |d, _| d.end_change(cut, &late));
        });
    }

    /// While a replica is on its way within the unlucky zone, the node that it goes to is lost for ever, and the one that it
    /// leaves takes its place.
    fn return_move(&self) {
        let unlucky =
            |d: &Director, number: u64| d.zone_of(number) == d.plan.unlucky_zone && d.alive().contains(&number);
        let moving = move |d: &Director| {
            let moving = d.alive().into_iter().find_map(|number| d.catalog_of(number)?.state(|c| c.moving()));
            moving.filter(|it| unlucky(d, it.from.0) && unlucky(d, it.to.0))
        };
        self.once(MOVE_PATIENCE_MS, RACE_LOOK_MS, moving, |d, moving| {
            let Some(Move { from, to, .. }) = moving else { return };
            if d.state().replaced < REPLACED_MAX && d.replace_by(to.0, Some(from.0), Then::Nothing) {
                d.count(Kind::MoveReturned);
            }
        });
    }

    /// While a replica is on its way, another voter of its group hears nobody. As soon as the node that it left has
    /// forgotten it, that one loses power, and with it, perhaps, that it knew of the move's end; then these two are
    /// apart from all others: of the group's former three, they are the majority.
    fn outdate_voter(&self) {
        let moving = |d: &Director| {
            let moving = d.alive().into_iter().find_map(|number| d.move_known_to(number))?;
            let led = d.leader_of(moving)?;
            let ends = [moving.from.0, moving.to.0];
            let deaf = led.others.into_iter().find(|voter| !ends.contains(voter) && d.alive().contains(voter))?;
            Some((moving, deaf))
        };
        self.once(MOVE_PATIENCE_MS, LOOK_MS, moving, |d, found| {
            let Some((Move { group, from, to }, deaf)) = found else { return };
            d.tell(format!(
                "a replica of group {} moves from node {from} to {to}, and node {deaf} hears nobody",
                group.0
            ));
            let apart = d.around(&[deaf], 1);
            let cut = d.begin_change(&apart, Change::Cut);
            let forgotten = move |d: &Director| (!d.stores(from.0, group)).then_some(());
            d.once(MOVE_PATIENCE_MS, RACE_LOOK_MS, forgotten, move |d, found| {
                d.end_change(cut, &apart);
                if found.is_none() || !d.alive().contains(&from.0) {
                    return;
                }
                d.count(Kind::MoveUnheard);
                d.change_links(&d.around(&[from.0, deaf], 1), Change::Cut, APART_MS);
                d.take_down(&[from.0], Effect::PowerLost, Left::Nothing, 10);
            });
        });
    }

    /// A node that a replica comes to hears nothing of the catalog's leader from when it has opened it. As it votes, it
    /// loses power, and with it, perhaps, that it knew of the move; and it still hears nothing.
    fn unhear_arrival(&self) {
        let Some(teller) = self.catalog_led().map(|led| led.leader) else { return };
        let coming = move |d: &Director| {
            let coming = d.move_known_to(teller).filter(|it| it.to.0 != teller)?;
            d.world.node(coming.to.0)?.groups().replica(coming.group)?;
            Some(coming)
        };
        self.once(MOVE_PATIENCE_MS, RACE_LOOK_MS, coming, move |d, found| {
            let Some(Move { group, to, .. }) = found else { return };
            let deafness = d.both(teller, to.0);
            let cut = d.begin_change(&deafness, Change::Cut);
            let votes = move |d: &Director| d.some_led(|led| led.group == group && led.has(to.0)).map(drop);
            d.once(MOVE_PATIENCE_MS, RACE_LOOK_MS, votes, move |d, found| {
                if found.is_some() && d.alive().contains(&to.0) {
                    d.tell(format!("node {} has come to vote in group {}, and does not hear of it", to.0, group.0));
                    d.count(Kind::ArrivalUnheard);
                    d.take_down(&[to.0], Effect::PowerLost, Left::Nothing, 10);
                }
                d.after(UNAWARE_MS * 2, move |d| d.end_change(cut, &deafness));
            });
        });
    }

    /// A node hears nothing of the catalog's leader while a replica of a group in which it votes moves; nor does the
    /// one that the replica leaves, so that it keeps it. Then that node leads the group, and the other one hears again and
    /// forgets.
    fn lead_unaware(&self) {
        let Some(catalog) = self.catalog_led() else { return };
        // Of a zone with several nodes: else it votes in every group, and a voter that hears it not follows nobody.
        let roomy = |number: &u64| self.of_zone(self.zone_of(*number)).len() > 1;
        if roomy(&catalog.leader) {
            self.make_unaware(catalog.leader);
        } else if let Some(teller) = catalog.others.iter().copied().find(roomy) {
            self.hand_over(&catalog, teller);
            self.after(HAND_OVER_MS, move |d| d.make_unaware(teller));
        }
    }

    /// See above; `teller` leads the catalog.
    fn make_unaware(&self, teller: u64) {
        // It does not vote in the group: the one that hears nothing of it is led by nobody else, and the third voter carries
        // the move out.
        let fits = |it: Move, groups: &Placement| {
            it.from.0 != teller && groups[&it.group].len() > 2 && !groups[&it.group].contains(&NodeId(teller))
        };
        let Some((it, replicas)) = self.possible_move(fits) else { return };
        let Move { group, from, to } = it;
        let mut others: Vec<u64> = replicas.into_iter().filter(|node| *node != from).map(|node| node.0).collect();
        let nth = self.state().rng.below(others.len() as u64) as usize;
        let deaf = others.swap_remove(nth);
        let Some(led) = self.some_led(|led| led.group == group) else { return };
        if !others.contains(&led.leader) {
            self.hand_over(&led, others[0]);
        }
        let led = move |d: &Director| d.some_led(|led| led.group == group && others.contains(&led.leader)).map(drop);
        self.once(PATIENCE_MS, LOOK_MS, led, move |d, found| {
            if found.is_none() {
                return;
            }
            d.tell(format!("node {deaf} does not hear that group {} moves from node {from} to {to}", group.0));
            let (deafness, kept) = (d.both(teller, deaf), d.both(teller, from.0));
            let (cut, keeps) = (d.begin_change(&deafness, Change::Cut), d.begin_change(&kept, Change::Cut));
            d.begin_move(it);
            let ended = move |d: &Director| {
                let catalog = d.catalog_of(teller)?;
                let moved = |c: &Catalog| c.groups().get(&group).is_some_and(|replicas| replicas.contains(&to));
                catalog.state(|c| c.moving().is_none() && moved(c)).then_some(())
            };
            d.once(MOVE_PATIENCE_MS, LOOK_MS, ended, move |d, found| {
                let led = d.some_led(|led| led.group == group && led.leader != teller && led.has(deaf));
                if let Some(led) = led.filter(|_| found.is_some()) {
                    d.count(Kind::LeaderUnaware);
                    d.hand_over(&led, deaf);
                }
                d.after(UNAWARE_MS, move |d| {
                    d.end_change(keeps, &kept);
                    let forgotten = move |d: &Director| (!d.stores(from.0, group)).then_some(());
                    d.once(MOVE_PATIENCE_MS, LOOK_MS, forgotten, move |d, _| d.end_change(cut, &deafness));
                });
            });
        });
    }

    /// A move within a zone that `fits`, the groups being placed as they are, of a data group whose replicas all vote,
    /// while nothing moves; and those replicas.
    fn possible_move(&self, fits: impl Fn(Move, &Placement) -> bool) -> Option<(Move, Vec<NodeId>)> {
        let catalog = self.catalog_of(self.catalog_led()?.leader)?;
        let groups = catalog.state(|c| c.moving().is_none().then(|| c.groups().clone()))?;
        let led = self.all_led();
        let votes = |group, replicas: &[NodeId]| {
            let mut led = led.iter().filter(|led| led.group == group && led.all().count() == replicas.len());
            led.any(|led| replicas.iter().all(|node| led.has(node.0)))
        };
        let mut moves = Vec::new();
        for (&group, replicas) in groups.iter().filter(|(group, replicas)| votes(**group, replicas)) {
            for &from in replicas {
                let near = self.of_zone(self.zone_of(from.0)).into_iter().map(NodeId);
                moves.extend(near.filter(|to| !replicas.contains(to)).map(|to| Move { group, from, to }));
            }
        }
        moves.retain(|it| fits(*it, &groups));
        let chosen = self.state().rng.pick(&moves).copied()?;
        Some((chosen, groups[&chosen.group].clone()))
    }

    /// Asks the catalog's leader to begin it, as a group's leader does.
    fn begin_move(&self, it: Move) {
        let Some(leader) = self.catalog_led().map(|led| led.leader) else { return };
        let Some(catalog) = self.catalog_of(leader) else { return };
        let Some(process) = self.world.machines()[&leader].process.clone() else { return };
        let begin = async move {
            // What becomes of it is looked for.
            let _ = catalog.propose(CatalogCommand::BeginMove(it)).await;
        };
        self.world.executor.spawn(process.pid, process.seams, Box::pin(begin));
    }

    /// Whether a node's disk has something of the group, but for what its replica there has promised.
    pub(super) fn stores(&self, number: u64, group: GroupId) -> bool {
        let dir = dir_of(group);
        self.world.machines()[&number].disk.files().iter().any(|file| file.starts_with(&dir))
    }

    /// A node has forgotten groups that were moved from it: it votes in none of them any more. Asked of a leader that a
    /// majority follows.
    pub(super) fn check_forgotten(&self, number: u64) {
        let term = |number: u64, group| {
            let replica = self.world.node(number)?.groups().replica(group)?;
            Some(replica.status().replica.term)
        };
        for leader in self.alive() {
            let groups = self.world.node(leader).map(|node| node.groups().all()).unwrap_or_default();
            for replica in groups.into_iter().filter(|it| it.is_leader()) {
                let (group, status) = (replica.id(), replica.status().replica);
                let follow = status.voters.iter().filter(|voter| term(**voter, group) == Some(status.term)).count();
                let newest = follow > status.voters.len() / 2;
                if newest && status.voters.contains(&number) && !self.stores(number, group) {
                    self.state().wrong.push(members::forgotten(number, group.0));
                }
            }
        }
    }
}

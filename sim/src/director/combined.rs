//! Faults of several steps, each of which drives the cluster into a corner where a mistake was once made, or would
//! be fatal: independent faults meet there in one run of thousands.
//!
//! Invariant: each is made of what the other faults do too, and stays within what the cluster promises to survive.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_node::replication::CatalogHandle;
use braid_stream::catalog::Catalog;
use braid_stream::ids::GroupId;
use braid_stream::placement::place_leaders;

use super::links::Change;
use super::triggers::Armed;
use super::watchman::REPLACED_MAX;
use super::{Director, Then, dir_of, is_segment};
use crate::fault::{Arming, Blast, Effect, Fault, Kind, Left, Trigger};
use crate::plan::Ending;

/// How long a leader that is asked to hand over waits for the other one.
const HAND_OVER: Duration = Duration::from_secs(2);

/// How long a leadership may take to be handed over, milliseconds.
pub(super) const HAND_OVER_MS: u64 = 300;

/// What a node needs to be back from a restart, and to serve, milliseconds.
const BACK_MS: u64 = 3_500;

/// How long a node is away that is not to hear of another's registration, milliseconds.
const AWAY_MS: u64 = 12_000;

/// How long a fault of several steps waits for the moment at which it goes on, milliseconds.
pub(super) const PATIENCE_MS: u64 = 3_000;

/// How long it is waited for that a stream or shard is made while a node hears nothing, milliseconds.
const UNHEARD_MS: u64 = 10_000;

/// How long a leader stalls, milliseconds: another one is elected meanwhile, and has acknowledged something.
const LEADER_STALLED_MS: std::ops::Range<u64> = 2_500..6_000;

/// How long it takes until all have answered it, milliseconds.
const ANSWERED_MS: u64 = 5;

/// How long it does not hear of the other one once it is awake, milliseconds: no lease is over by then.
const STILL_DEAF_MS: u64 = 600;

/// How long a vote may be on its way to another node and back, milliseconds.
const VOTED_MS: u64 = 30;

/// How long whoever was voted for is apart from the two others, milliseconds: they restart, and elect one of them.
const ELECTED_MS: u64 = 8_000;

/// How much later a leader and its follower hear each other in a race, milliseconds.
const RACE_DELAY_MS: u64 = 10;

/// How long the catalog's leader stalls, milliseconds: what was split meanwhile is split again, closed, and forgotten.
const STALLED_MS: std::ops::Range<u64> = 17_000..26_000;

/// How often it looks, milliseconds.
pub(super) const LOOK_MS: u64 = 15;

/// And in a race.
pub(super) const RACE_LOOK_MS: u64 = 3;

/// A group as it is led now.
pub(super) struct Led {
    pub group: GroupId,
    pub leader: u64,
    /// Its other voters.
    pub others: Vec<u64>,
}

impl Led {
    /// All its voters.
    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.others.iter().copied().chain([self.leader])
    }

    /// Whether that node votes in it.
    pub fn has(&self, number: u64) -> bool {
        self.all().any(|voter| voter == number)
    }
}

/// A length of the range, as the fault's amount has it.
fn within(range: std::ops::Range<u64>, amount: u64) -> u64 {
    range.start + amount % (range.end - range.start)
}

impl Director {
    /// The groups that have a leader now.
    pub(super) fn all_led(&self) -> Vec<Led> {
        let mut led = Vec::new();
        for number in self.alive() {
            let Some(node) = self.world.node(number) else { continue };
            for replica in node.groups().all().into_iter().filter(|replica| replica.is_leader()) {
                let mut others = replica.status().replica.voters;
                others.retain(|voter| *voter != number);
                led.push(Led { group: replica.id(), leader: number, others });
            }
        }
        led
    }

    /// One of them.
    pub(super) fn some_led(&self, fits: impl Fn(&Led) -> bool) -> Option<Led> {
        let mut led = self.all_led();
        led.retain(fits);
        let nth = self.state().rng.below(led.len().max(1) as u64) as usize;
        (!led.is_empty()).then(|| led.swap_remove(nth))
    }

    /// The catalog, if it has a leader now.
    pub(super) fn catalog_led(&self) -> Option<Led> {
        self.some_led(|led| led.group == GroupId::CATALOG)
    }

    /// The data group with the longest log.
    fn busiest(&self) -> Option<GroupId> {
        let nodes: Vec<_> = self.alive().into_iter().filter_map(|number| self.world.node(number)).collect();
        let data = nodes.iter().flat_map(|node| node.groups().all()).filter(|replica| replica.id() != GroupId::CATALOG);
        data.max_by_key(|replica| (replica.log().last_id().map(|id| id.index), replica.id()))
            .map(|replica| replica.id())
    }

    /// Two of the group's other voters, in any order; one that will be gone for ever comes first.
    fn two_others(&self, led: &Led) -> Option<(u64, u64)> {
        let (&[a, b] | &[a, b, ..]) = led.others.as_slice() else { return None };
        let swap = self.is_doomed(b) || (!self.is_doomed(a) && self.state().rng.chance(500));
        Some(if swap { (b, a) } else { (a, b) })
    }

    /// Whether the run ends without this node.
    pub(super) fn is_doomed(&self, number: u64) -> bool {
        self.plan.ending == Ending::WithoutZone(self.zone_of(number))
    }

    /// Whether leadership of the group is brought back to `number` whenever another has it.
    fn belongs_to(&self, group: GroupId, number: u64) -> bool {
        let wanted = self.catalog_of(number).map(|catalog| place_leaders(&catalog.state(|c| c.groups().clone())));
        wanted.is_some_and(|wanted| wanted.get(&group).is_some_and(|leader| leader.0 == number))
    }

    /// A node of the unlucky zone is restarted, so that it remembers no entries; once it is back, bits flip in what it
    /// has of a group, and the group is given to it to lead.
    pub(super) fn damage_leader(&self) -> bool {
        let holds_data = |number: &u64| {
            let node = self.world.node(*number);
            node.is_some_and(|node| node.groups().all().iter().any(|replica| replica.id() != GroupId::CATALOG))
        };
        let victims: Vec<u64> = self.of_zone(self.plan.unlucky_zone).into_iter().filter(holds_data).collect();
        let Some(victim) = self.state().rng.pick(&victims).copied() else { return false };
        self.after(BACK_MS, move |d| {
            let holds = |led: &Led| led.group != GroupId::CATALOG && led.has(victim);
            // Readers go on needing it where the leadership stays.
            let lasting = |led: &Led| holds(led) && d.belongs_to(led.group, victim);
            let Some(led) = d.some_led(lasting).or_else(|| d.some_led(holds)) else { return };
            let dir = dir_of(led.group);
            for _ in 0..4 {
                d.flip_bit_of(victim, |path, len| is_segment(path, &dir).then(|| 0..d.settled(victim, path, len)));
            }
            d.hand_over(&led, victim);
        });
        self.take_down(&[victim], Effect::Killed, Left::Everything, 10)
    }

    /// One of the groups that `number` leads goes to another of its voters; of any node, if that leads none.
    pub(super) fn hand_over_from(&self, number: u64) {
        let led = self.some_led(|led| led.leader == number && !led.others.is_empty());
        let Some(led) = led.or_else(|| self.some_led(|led| !led.others.is_empty())) else { return };
        let Some(to) = self.state().rng.pick(&led.others).copied() else { return };
        self.hand_over(&led, to);
    }

    /// Asks a leader to hand over, as an operator would.
    pub(super) fn hand_over(&self, led: &Led, to: u64) {
        let Some(process) = self.world.machines()[&led.leader].process.clone() else { return };
        let Some(replica) = self.world.node(led.leader).and_then(|node| node.groups().replica(led.group)) else {
            return;
        };
        let hand_over = async move {
            replica.transfer_leader(to, HAND_OVER).await;
        };
        self.world.executor.spawn(process.pid, process.seams, Box::pin(hand_over));
    }

    /// A leader loses one follower, and then the other one by its restart: that one may not help to elect another
    /// leader while the old one still reads by its lease.
    pub(super) fn race_leader(&self, fault: &Fault) -> bool {
        // Often the catalog: what its leader says of streams, clients take for final.
        let catalog = self.state().rng.chance(400);
        let three = |led: &Led| led.others.len() >= 2 && (!catalog || led.group == GroupId::CATALOG);
        let Some(led) = self.some_led(three) else { return false };
        let Some((lost, restarted)) = self.two_others(&led) else { return false };
        // The one that is lost stands for election about when the other one is back.
        let wait_ms = self.plan.topology.election_ms.0 * (10 + fault.amount % 60) / 100;
        self.change_links(&self.both(led.leader, lost), Change::Cut, wait_ms + PATIENCE_MS + 3_000);
        self.after(wait_ms, move |d| d.race_on(led, lost, restarted));
        true
    }

    /// Goes on as soon as the lost follower has all that the leader has: it gets no vote otherwise. The leader loses the
    /// other one once that is back: whoever starts asks all others for the time first.
    fn race_on(&self, led: Led, lost: u64, restarted: u64) {
        let (group, leader) = (led.group, led.leader);
        let replica = move |d: &Director, number: u64| d.world.node(number)?.groups().replica(group);
        let last = move |d: &Director, number: u64| replica(d, number)?.log().last_id();
        let level = move |d: &Director| (last(d, lost) == last(d, leader)).then_some(());
        let back = move |d: &Director| replica(d, restarted).map(drop);
        self.once(PATIENCE_MS, LOOK_MS, level, move |d, _| {
            d.take_down(&[restarted], Effect::Killed, Left::Everything, 10);
            // Not to have more than the lost one by then.
            d.change_links(&d.both(leader, restarted), Change::Delay(RACE_DELAY_MS), PATIENCE_MS);
            d.after(10, move |d| {
                d.once(PATIENCE_MS, RACE_LOOK_MS, back, move |d, _| {
                    d.change_links(&d.both(leader, restarted), Change::Cut, 3_000);
                });
            });
        });
    }

    /// A leader stalls with an append on its way, whose answers wait for it. Another one is elected, of which it does not
    /// hear before it has been awake for a while.
    pub(super) fn stall_leader(&self, fault: &Fault) {
        let busiest = self.busiest();
        let Some(led) = self.some_led(|led| busiest == Some(led.group) && !led.others.is_empty()) else { return };
        let (group, leader) = (led.group, led.leader);
        let on_its_way = move |d: &Director| {
            let replica = d.world.node(leader)?.groups().replica(group).filter(|replica| replica.is_leader())?;
            let last = replica.log().last_id().map(|id| id.index);
            (last > Some(*replica.applied().borrow())).then_some(())
        };
        let for_ms = within(LEADER_STALLED_MS, fault.amount);
        self.once(PATIENCE_MS, 1, on_its_way, move |d, found| {
            if found.is_some() && d.take_down(&[leader], Effect::Paused, Left::Everything, for_ms) {
                d.count(Kind::LeaderStalls);
                d.after(ANSWERED_MS, move |d| {
                    d.change_links(&d.around(&[leader], 1), Change::Cut, for_ms + STILL_DEAF_MS);
                });
            }
        });
    }

    /// A node of the unlucky zone leads a data group, and its wall clock jumps.
    pub(super) fn mistime_leader(&self, by_ms: i64) -> bool {
        let unlucky = |led: &Led| led.all().find(|voter| self.zone_of(*voter) == self.plan.unlucky_zone);
        let holds = |led: &Led| led.group != GroupId::CATALOG && unlucky(led).is_some();
        // Clocks go apart slowly.
        let lasting = |led: &Led| holds(led) && unlucky(led).is_some_and(|it| self.belongs_to(led.group, it));
        let Some(led) = self.some_led(lasting).or_else(|| self.some_led(holds)) else { return false };
        let Some(victim) = unlucky(&led) else { return false };
        if led.leader != victim {
            self.hand_over(&led, victim);
        }
        self.after(HAND_OVER_MS, move |d| d.jump_of(victim, by_ms));
        true
    }

    /// A voter's disk is stuck as it votes for another leader than the one it does not hear any more, and it loses power.
    /// Then it is alone with the former leader, which is restarted as well: a vote that it gave and does not remember
    /// makes two leaders of one term.
    pub(super) fn forget_vote(&self) {
        let Some(led) = self.some_led(|led| led.others.len() >= 2) else { return };
        let Some((voter, other)) = self.two_others(&led) else { return };
        let (group, leader) = (led.group, led.leader);
        let term =
            move |d: &Director, number: u64| Some(d.world.node(number)?.groups().replica(group)?.status().replica.term);
        let before = term(self, leader);
        let apart = self.around(&[leader], 1);
        let cut = self.begin_change(&apart, Change::Cut);
        self.with_disk(voter, |disk| disk.set_stuck(true));
        let stands = move |d: &Director| [voter, other].into_iter().any(|n| term(d, n) > before).then_some(());
        self.once(PATIENCE_MS, LOOK_MS, stands, move |d, found| {
            d.after(VOTED_MS, move |d| {
                if found.is_some() && d.take_down(&[voter], Effect::PowerLost, Left::Nothing, 10) {
                    d.count(Kind::VoterForgets);
                    d.change_links(&d.around(&[other], 1), Change::Cut, ELECTED_MS);
                    d.take_down(&[leader], Effect::Killed, Left::Everything, 10);
                }
                d.with_disk(voter, |disk| disk.set_stuck(false));
                d.end_change(cut, &apart);
            });
        });
    }

    /// A leader hands over to a node that stalls in that moment, while the third is away, behind, or there.
    pub(super) fn stall_offer(&self, fault: &Fault) -> bool {
        // Where entries come in, so that the third can be behind.
        let busiest = self.busiest().filter(|_| self.state().rng.chance(700));
        let three = |led: &Led| led.others.len() >= 2 && busiest.is_none_or(|group| led.group == group);
        let Some(led) = self.some_led(three) else { return false };
        let Some((mut chosen, mut third)) = self.two_others(&led) else { return false };
        let (variant, effect) = (fault.amount % 5, [Effect::Killed, Effect::PowerLost, Effect::Paused]);
        let mut effect = effect[(fault.amount / 5 % 3) as usize];
        // It wakes as the leader gives it up: both stand at once.
        let mut wakes = (fault.amount / 15).is_multiple_of(2);
        if wakes && self.is_doomed(chosen) {
            (chosen, third, effect) = (third, chosen, Effect::Paused);
        }
        wakes &= effect == Effect::Paused;
        let hand_over_ms = HAND_OVER.as_millis() as u64;
        let for_ms = match wakes {
            true => hand_over_ms - 450 + fault.amount / 30 % 350,
            false => fault.for_ms,
        };
        match variant {
            // The two that are left are far from each other, so that each decides before it hears of the other.
            _ if wakes && self.is_doomed(third) => {
                self.change_links(&self.both(led.leader, chosen), Change::Delay(80), hand_over_ms + 2_000);
                self.take_down(&[third], Effect::Killed, Left::Everything, self.plan.duration_ms)
            }
            0 => self.take_down(&[third], Effect::Killed, Left::Everything, fault.for_ms + 4_000),
            1 => self.change_links(&self.both(led.leader, third), Change::Delay(400), fault.for_ms),
            2 | 3 => self.change_links(&self.both(led.leader, third), Change::Cut, fault.for_ms + 2_000),
            _ => true,
        };
        let trigger = Trigger::Mark { name: braid_probe::Mark::LeadershipOffered.name().into(), skip: 0 };
        self.arm(chosen, trigger, effect, fault.survive, for_ms);
        // A little later, so that a follower that can't keep up is behind.
        self.after(600, move |d| d.hand_over(&led, chosen));
        true
    }

    /// A voter of the catalog is lost and replaced, and the new one leads the catalog before a node that is away, and
    /// is no voter, has heard of it.
    pub(super) fn replace_voter_unheard(&self) -> bool {
        let Some(led) = self.catalog_led() else { return false };
        let Some(old) = self.any_node(|n| led.has(n) && self.zone_of(n) == self.plan.unlucky_zone) else {
            return false;
        };
        let Some(away) = self.any_node(|n| !led.has(n)) else { return false };
        if self.state().replaced >= REPLACED_MAX || !self.begin_replacing(Some(old), Then::Leads) {
            return false;
        }
        self.take_down(&[away], Effect::Killed, Left::Everything, AWAY_MS)
    }

    /// What follows once the catalog has given a lost node's replicas to `new`.
    pub(super) fn go_on(&self, new: u64, then: Then) {
        if self.state().over {
            return;
        }
        match then {
            Then::Nothing | Then::Unheard => {}
            Then::LostToo => {
                self.begin_replacing(Some(new), Then::Nothing);
            }
            Then::Leads => self.after(1_000, move |d| {
                if let Some(led) = d.catalog_led() {
                    d.hand_over(&led, new);
                }
            }),
        }
    }

    /// A node is lost and replaced while the two that are left of a group's voters are down until all is mended: of that
    /// group the new one alone answers then, and knows nothing. The catalog has its majority elsewhere.
    pub(super) fn unlead_successor(&self) -> bool {
        let Some(catalog) = self.catalog_led() else { return false };
        let serves = |led: &Led| {
            let left = catalog.all().filter(|voter| !led.has(*voter)).count();
            left > catalog.others.len().div_ceil(2) && !led.has(catalog.leader)
        };
        let unlucky = |led: &Led| led.all().find(|voter| self.zone_of(*voter) == self.plan.unlucky_zone);
        let Some(led) = self.some_led(|led| serves(led) && unlucky(led).is_some()) else { return false };
        let Some(old) = unlucky(&led).filter(|_| self.state().replaced < REPLACED_MAX) else { return false };
        let others: Vec<u64> = led.all().filter(|voter| *voter != old).collect();
        self.begin_replacing(Some(old), Then::Nothing)
            && self.take_down(&others, Effect::Killed, Left::Everything, self.plan.duration_ms)
    }

    /// A node that takes another's place is killed as it names its identity, and loses power as it does so again.
    pub(super) fn half_replace(&self, fault: &Fault) -> bool {
        if !self.begin_replacing(None, Then::Nothing) {
            return false;
        }
        let new = self.state().replacing.map(|it| it.new);
        let Some(new) = new else { return false };
        self.arm(new, Trigger::Renamed { skip: 0 }, Effect::Killed, Left::Everything, 10);
        self.arm(new, Trigger::Renamed { skip: 1 }, Effect::PowerLost, fault.survive, 10);
        true
    }

    /// The catalog's leader stalls after a shard was sealed and before its children are open. Another one goes on; by the
    /// time the first one does, those may be forgotten.
    pub(super) fn stall_controller(&self, fault: &Fault) -> bool {
        let Some(led) = self.catalog_led() else { return false };
        let trigger = Trigger::Mark { name: braid_probe::Mark::ParentsSealed.name().into(), skip: 0 };
        let for_ms = within(STALLED_MS, fault.amount);
        self.arm(led.leader, trigger, Effect::Paused, fault.survive, for_ms);
        true
    }

    /// A node is cut off from all others until there is a stream that it has not heard of; in half of the cases, one of
    /// a name that it knows. It hears of it while it is asked.
    pub(super) fn hide_stream(&self, fault: &Fault) -> bool {
        let (late_ms, namesake) = (fault.amount / 6 % 400, (fault.amount / 3).is_multiple_of(2));
        self.hide(fault, late_ms, move |known, there| {
            let names = |catalog: &Catalog| -> BTreeMap<_, _> {
                catalog.streams().map(|it| (it.name.clone(), it.id)).collect()
            };
            let (known, there) = (names(known), names(there));
            let mut new = there.iter().filter(|(name, id)| known.get(*name).is_none_or(|it| it < *id));
            new.any(|(name, _)| !namesake || known.contains_key(name))
        })
    }

    /// A node is cut off from all others until there is a shard of whose parents it has not heard, and a while longer.
    pub(super) fn hide_reshard(&self, fault: &Fault) -> bool {
        self.hide(fault, fault.amount / 3 % 4_000, |known, there| {
            let next: BTreeMap<_, _> = known.streams().map(|it| (it.id, it.next_shard)).collect();
            there.streams().any(|stream| {
                let parents = stream.shards.values().flat_map(|shard| shard.parents).flatten().max();
                parents.is_some_and(|parent| next.get(&stream.id).is_some_and(|next| parent >= *next))
            })
        })
    }

    /// A node, often the catalog's leader, is cut off from all others, and not from clients, until `is_news` what some
    /// other node's catalog has and its own has not, and for `late_ms` after that.
    fn hide(&self, fault: &Fault, late_ms: u64, is_news: impl Fn(&Catalog, &Catalog) -> bool + Send + 'static) -> bool {
        let leads = self.catalog_led().map(|led| led.leader);
        let Some(deaf) = leads.filter(|_| fault.amount.is_multiple_of(3)).or_else(|| self.any_node(|_| true)) else {
            return false;
        };
        // Odd: all links, and no client's.
        let links = self.around(&[deaf], 1);
        let cut = self.begin_change(&links, Change::Cut);
        let unheard = move |d: &Director| {
            let known = d.catalog_of(deaf)?;
            let others = d.alive().into_iter().filter(|number| *number != deaf);
            let mut others = others.filter_map(|number| d.catalog_of(number));
            known.state(|known| others.any(|it| it.state(|there| is_news(known, there)))).then_some(())
        };
        self.once(UNHEARD_MS, LOOK_MS, unheard, move |d, _| d.after(late_ms, move |d| d.end_change(cut, &links)));
        true
    }

    /// The catalog as this node knows it.
    pub(super) fn catalog_of(&self, number: u64) -> Option<CatalogHandle> {
        self.world.node(number)?.groups().catalog()
    }

    /// Goes on with what `look` finds, as soon as it does; without, once patience is over. It looks at once and then
    /// every so often, in milliseconds.
    pub(super) fn once<T>(
        &self,
        patience_ms: u64,
        every_ms: u64,
        look: impl Fn(&Director) -> Option<T> + Send + 'static,
        then: impl FnOnce(&Director, Option<T>) + Send + 'static,
    ) {
        match look(self) {
            None if patience_ms > every_ms => {
                self.after(every_ms, move |d| d.once(patience_ms - every_ms, every_ms, look, then));
            }
            found => then(self, found),
        }
    }

    /// Arms a trigger for one node, at once.
    fn arm(&self, node: u64, trigger: Trigger, effect: Effect, survive: Left, for_ms: u64) {
        let arming = Arming { from_ms: 0, trigger, blast: Blast::Node, effect, survive, for_ms };
        let armed = Armed { only: Some(node), live: true, ..Armed::of(arming) };
        self.state().armed.push(armed);
    }
}

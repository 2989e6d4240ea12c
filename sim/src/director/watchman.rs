//! What a service manager and an operator do: what gave up is started again, what can't start is replaced.
//!
//! Invariant: a node is replaced only in the unlucky zone, or when it refuses something for good; one at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use braid_client::Reason;
use braid_env::disk::sim::Survive;
use braid_env::time;
use braid_node::Node;
use braid_proto::v1::DrainNodeRequest;
use braid_stream::ids::{GroupId, NodeId};

use super::links::Change;
use super::{Director, Replacing, Then};
use crate::checkers::Violation;
use crate::world::{Crash, STOPPED};

/// How often the watchman looks.
const WATCH: Duration = Duration::from_millis(400);

/// How long what gave up is left alone before it is started again, as a service manager would.
const START_AGAIN: Duration = Duration::from_secs(1);

/// So often a node is started again that refuses a replica, before it is replaced.
const REFUSALS: u32 = 3;

/// How long a node is not heard that will be lost, milliseconds.
const LOST_MS: u64 = 5_000;

/// So many nodes are replaced for no reason of theirs.
pub(super) const REPLACED_MAX: u64 = 2;

/// Errors that faults are made of: EIO, ENOSPC, and a disk without power.
const ORDERED: [&str; 3] = ["Input/output error", "No space left on device", "power is off"];

/// Whether an error is one that a fault was ordered to make.
fn is_ordered(why: &str) -> bool {
    ORDERED.iter().any(|error| why.contains(error))
}

impl Director {
    /// Nodes that have to answer now: those that are there for good, but for one that is taking another's place or
    /// waits to be replaced. Never nobody.
    pub fn answering(&self) -> Vec<u64> {
        let mut nodes = self.alive();
        let (coming, refusing) = {
            let state = self.state();
            (state.replacing.map(|it| it.new), state.refusals.keys().copied().collect::<BTreeSet<u64>>())
        };
        let is_whole = |number: u64| {
            self.world.node(number).is_some_and(|node| {
                let groups = node.groups();
                groups.refused().is_empty() && !groups.all().is_empty()
            })
        };
        nodes.retain(|n| coming != Some(*n) && (!refusing.contains(n) || is_whole(*n)));
        if nodes.is_empty() { self.alive() } else { nodes }
    }

    /// Looks after the nodes as a service manager and an operator would, for ever.
    pub async fn watch(self) {
        loop {
            time::sleep(WATCH).await;
            let now = self.world.executor.now();
            for number in self.alive() {
                let is_down = self.state().down.contains(&number);
                let (running, why) = {
                    let machines = self.world.machines();
                    (machines[&number].process.is_some(), machines[&number].gave_up.clone())
                };
                if !running && !is_down {
                    let since = *self.state().since_down.entry(number).or_insert(now);
                    if now >= since + START_AGAIN.as_nanos() as u64 {
                        self.state().since_down.remove(&number);
                        if let Some(why) = why.filter(|why| why != STOPPED) {
                            self.tell(format!("node {number} had given up: {why}"));
                            self.note_refusal(number, None, &why);
                        }
                        self.start(number);
                    }
                } else if running {
                    self.state().since_down.remove(&number);
                    self.look_at(number);
                }
            }
            let replace = self.alive().into_iter().find(|number| self.refuses_for_good(*number));
            if let Some(number) = replace {
                self.begin_replacing(Some(number), Then::Nothing);
            }
        }
    }

    /// A node with a replica that stopped is restarted; one whose replica can't be opened, too, at first.
    fn look_at(&self, number: u64) {
        let Some(node) = self.world.node(number) else { return };
        let refused = node.groups().refused();
        self.note_terms(number, &node);
        let stopped = node.groups().all().into_iter().find_map(|g| g.status().replica.running.err());
        // What opens is refused no more.
        if let Some(said) = self.state().refusals.get_mut(&number) {
            said.retain(|group, _| node.groups().replica(group.unwrap_or(GroupId::CATALOG)).is_none());
        }
        drop(node);
        if let Some((group, why)) = refused.into_iter().next() {
            if self.refuses_for_good(number) {
                return; // its other replicas serve until it is replaced
            }
            self.note_refusal(number, Some(group), &format!("group {}: {why}", group.0));
        } else if let Some(why) = stopped {
            self.tell(format!("node {number} has a replica that stopped: {why}"));
            if !self.state().tampered.contains(&number) && !is_ordered(&why) {
                let wrong = format!("node {number} has a replica that stopped, and nothing was done to it: {why}");
                self.state().wrong.push(Violation::new("running", wrong));
            }
        } else {
            return;
        }
        self.world.crash(number, Crash::Killed, Survive::Everything);
    }

    /// Whether it is damaged, and has said so often enough. A node whose reads alone go wrong is started again until
    /// they go well: replacing it could lose what only it has.
    fn refuses_for_good(&self, number: u64) -> bool {
        let state = self.state();
        let often = state.refusals.get(&number).is_some_and(|said| said.values().any(|times| *times >= REFUSALS));
        often && state.damaged.contains(&number)
    }

    /// Who leads what in which term.
    fn note_terms(&self, number: u64, node: &Node) {
        let now = self.world.executor.now();
        for replica in node.groups().all() {
            let (status, group) = (replica.status().replica, replica.id().0);
            let mut state = self.state();
            let life = state.life_of(number, &replica);
            if status.leader == Some(number) {
                let wrong = state.terms.leads(now, number, group, status.term);
                state.wrong.extend(wrong);
            }
            let wrong = state.terms.committed(now, number, life, group, status.committed);
            state.wrong.extend(wrong);
        }
    }

    fn note_refusal(&self, number: u64, group: Option<GroupId>, why: &str) {
        self.tell(format!("node {number} refuses: {why}"));
        if is_ordered(why) {
            return; // it says what was done to it, and it passes
        }
        let mut state = self.state();
        let times = state.refusals.entry(number).or_default().entry(group).or_default();
        *times += 1;
        let often = *times == REFUSALS;
        if often && !state.tampered.contains(&number) {
            let wrong =
                format!("node {number} refuses to start three times, and nothing durable on it was damaged: {why}");
            state.wrong.push(Violation::new("start-up", wrong));
        }
    }

    /// Takes a node of the unlucky zone (or this one) away for ever, and puts one with an empty disk and a
    /// new id in its place.
    pub(super) fn begin_replacing(&self, which: Option<u64>, then: Then) -> bool {
        if which.is_none() && self.state().replaced >= REPLACED_MAX {
            return false;
        }
        let victims = self.of_zone(self.plan.unlucky_zone);
        let victim = which.or_else(|| self.state().rng.pick(&victims).copied());
        victim.is_some_and(|old| self.replace_by(old, None, then))
    }

    /// Takes `old` away for ever, and puts `new` in its place: a node that is there, or else one with an empty disk and a
    /// new id.
    pub(super) fn replace_by(&self, old: u64, new: Option<u64>, then: Then) -> bool {
        let by = new.unwrap_or_else(|| self.world.machines().keys().max().expect("there are nodes") + 1);
        {
            let mut state = self.state();
            // A group whose first membership is on one disk only is not there yet, and goes with it.
            if state.terms.begun() <= self.plan.topology.groups as usize || state.replacing.is_some() {
                return false;
            }
            state.replacing = Some(Replacing { old, new: by, then });
            state.replaced += 1;
            state.gone.insert(old);
            state.down.remove(&old);
            state.refusals.remove(&old);
        }
        self.tell(format!("node {old} is lost for ever; node {by} takes its place"));
        self.world.crash(old, Crash::PowerLost, Survive::Nothing);
        if new.is_none() {
            self.world.add_successor(old, by);
            self.prepare_disk(by);
            self.mend_links();
            self.start(by);
        }
        true
    }

    /// Whether some node has been told of it by the catalog.
    fn is_registered(&self, number: u64) -> bool {
        let knows = |it: u64| Some(self.catalog_of(it)?.state(|c| c.nodes().contains_key(&NodeId(number))));
        self.alive().into_iter().any(|it| knows(it) == Some(true))
    }

    /// Asks the cluster to give the replicas of a lost node to its successor, until that is done; for ever.
    pub async fn replace(self, connect: impl AsyncFn(Vec<String>) -> Option<braid_client::Client>) {
        loop {
            time::sleep(WATCH).await;
            let Some(Replacing { old, new, then }) = self.state().replacing else { continue };
            let unheard_ms = match then {
                Then::LostToo => LOST_MS,
                Then::Unheard => self.plan.duration_ms,
                Then::Nothing | Then::Leads => 0,
            };
            if unheard_ms > 0 && !self.state().over && self.is_registered(new) {
                self.change_links(&self.around(&[new], 1), Change::Cut, unheard_ms);
            }
            let endpoints = self.world.endpoints_of(&self.alive());
            let Some(client) = connect(endpoints).await else { continue };
            match client.replace_node(old, new).await {
                Ok(()) => {
                    self.tell(format!("node {new} replaces node {old}"));
                    self.state().replacing = None;
                    self.go_on(new, then);
                }
                Err(e) => {
                    self.tell(format!("node {new} does not replace node {old} yet: {e}"));
                    // Somebody drains it meanwhile, which is no replacement then (seed 310000623).
                    if e.reason() == Some(Reason::InvalidArgument) {
                        let keep = DrainNodeRequest { node_id: new, cancel: true, dry_run: false };
                        let _ = client.drain_node(keep).await;
                    }
                }
            }
        }
    }
}

//! Faults that wait for something to happen: a mark in the code, a moment of a disk, an acknowledgement.
//!
//! Invariant: a trigger strikes once, in the very moment it waited for.

use std::time::Duration;

use braid_env::disk::sim::{DiskEvent, Verdict};
use braid_env::time;
use braid_probe::Mark;
use braid_stream::ids::GroupId;
use futures_util::future::join;

use super::Director;
use crate::checkers::{Violation, durable, leases};
use crate::executor::Pid;
use crate::fault::{Arming, Blast, Effect, Trigger};
use crate::history::At;
use crate::story::Teller;

/// How long a read may take that is made to see whether a leader is the only one.
const READ: Duration = Duration::from_millis(50);

/// How long one that was paused has been awake when it has looked at all that came in meanwhile, and nobody has answered it.
const AWAKE: Duration = Duration::from_micros(20);

/// A trigger and what became of it.
pub(super) struct Armed {
    pub arming: Arming,
    /// How often what it waits for has happened.
    pub seen: u32,
    /// Whether its time has come.
    pub live: bool,
    pub done: bool,
    /// The node on which it has to happen.
    pub only: Option<u64>,
}

impl Armed {
    /// Not live yet, on any node.
    pub fn of(arming: Arming) -> Armed {
        Armed { arming, seen: 0, live: false, done: false, only: None }
    }
}

impl Director {
    pub(super) fn on_disk(&self, number: u64, event: &DiskEvent<'_>) -> Verdict {
        let hit = |trigger: &Trigger| match (trigger, event) {
            (Trigger::MidFsync { skip }, DiskEvent::FsyncHalf { .. })
            | (Trigger::Fsynced { skip }, DiskEvent::FsyncDone { .. })
            | (Trigger::Renamed { skip }, DiskEvent::Renamed { .. })
            | (Trigger::Created { skip }, DiskEvent::Created { .. }) => Some(*skip),
            _ => None,
        };
        match self.pull(Some(number), hit) {
            true if !self.world.machines()[&number].disk.is_powered() => Verdict::CutPower,
            _ => Verdict::GoOn,
        }
    }

    /// A mark was passed by the process that runs now.
    pub fn on_mark(&self, pid: Pid, mark: &str) {
        let Teller::Node(number) = self.story.teller(pid) else { return };
        if mark == Mark::BecameLeader.name() {
            let now = self.world.executor.now();
            self.state().elections.push(At { ns: now, nth: 0 });
        }
        if mark == Mark::DamageFound.name() && !self.state().tampered.contains(&number) {
            let wrong = format!("node {number} found damage in what it stores, and nothing was done to it");
            self.state().wrong.push(Violation::new("damage", wrong));
        }
        if mark == Mark::GroupForgotten.name() {
            // Not here: whoever passes a mark may hold a lock that looking at groups needs.
            self.after(0, move |d| d.check_forgotten(number));
            // Once all is mended, too: a replica may come back then, and begin anew (seed 310003838).
            let director = self.clone();
            self.world.executor.call_at(self.world.executor.now(), move || director.forget_kept(number));
        }
        self.pull(Some(number), |trigger| match trigger {
            Trigger::Mark { name, skip } if name == mark => Some(*skip),
            _ => None,
        });
    }

    /// A node is about to acknowledge entry `index` of `group`, which it leads.
    pub fn on_committed(&self, pid: Pid, group: u32, index: u64) {
        let Teller::Node(number) = self.story.teller(pid) else { return };
        let replica = |number: u64| self.world.node(number)?.groups().replica(GroupId(group));
        let Some(leader) = replica(number) else { return };
        let voters: Vec<u64> = leader.status().replica.voters;
        let lacks = |number: &u64| replica(*number).is_some_and(|it| it.log().durable_index() < Some(index));
        let lacking: Vec<u64> = voters.iter().copied().filter(lacks).collect();
        let wrong = durable::check(group, index, &voters, &lacking);
        self.state().wrong.extend(wrong);
        for other in voters.into_iter().filter(|it| *it != number) {
            if replica(other).is_some_and(|it| it.is_leader()) {
                self.read_at(other, GroupId(group), number, index);
            }
        }
    }

    /// Makes `reader` read `group` now, as its leader, when `acker` is about to acknowledge entry `acked`.
    fn read_at(&self, reader: u64, group: GroupId, acker: u64, acked: u64) {
        let Some(process) = self.world.machines()[&reader].process.clone() else { return };
        // Not the node: whoever stops it has to have it alone.
        let Some(groups) = self.world.node(reader).map(|node| node.groups().clone()) else { return };
        if !self.state().reading.insert((process.pid, group)) {
            return;
        }
        let director = self.clone();
        let read = async move {
            let ask = |after| {
                let groups = &groups;
                time::timeout(READ, async move {
                    time::sleep(after).await;
                    match groups.get(group) {
                        Some(group) => group.ensure_linearizable().await.ok(),
                        None => groups.catalog()?.ensure_linearizable().await.ok(),
                    }
                })
            };
            let (now, awake) = join(ask(Duration::ZERO), ask(AWAKE)).await;
            let mut answered = [now, awake].into_iter();
            let wrong = answered.find_map(|it| leases::check(group.0, acker, acked, reader, it.ok().flatten()?));
            let mut state = director.state();
            state.reading.remove(&(process.pid, group));
            state.wrong.extend(wrong);
        };
        self.world.executor.spawn(process.pid, process.seams, Box::pin(read));
    }

    /// A client was told that its record is stored.
    pub fn on_acknowledged(&self) {
        self.pull(None, |trigger| match trigger {
            Trigger::Acknowledged { skip } => Some(*skip),
            _ => None,
        });
    }

    /// Lets the first armed trigger strike that `hit` applies to and whose patience is over.
    fn pull(&self, number: Option<u64>, hit: impl Fn(&Trigger) -> Option<u32>) -> bool {
        let arming = {
            let mut state = self.state();
            if state.over || state.armed.is_empty() {
                return false;
            }
            let mut found = None;
            let waits = |armed: &&mut Armed| armed.live && !armed.done && armed.only.is_none_or(|n| Some(n) == number);
            for armed in state.armed.iter_mut().filter(waits) {
                if let Some(skip) = hit(&armed.arming.trigger) {
                    armed.seen += 1;
                    if armed.seen > skip && found.is_none() {
                        armed.done = true;
                        found = Some(armed.arming.clone());
                    }
                }
            }
            let Some(found) = found else { return false };
            let name = match &found.trigger {
                Trigger::Mark { .. } => "crash at a mark",
                Trigger::Acknowledged { .. } => "crash at an acknowledgement",
                Trigger::MidFsync { .. } => "crash in the middle of an fsync",
                Trigger::Renamed { .. } => "crash between rename and directory sync",
                Trigger::Created { .. } => "crash after a file was created",
                Trigger::Fsynced { .. } => "crash after an fsync",
            };
            *state.triggered.entry(name.into()).or_default() += 1;
            found
        };
        self.tell(format!("trigger: {arming}"));
        let number = number.unwrap_or_else(|| self.any_node(|_| true).unwrap_or(1));
        let struck: Vec<u64> = match arming.blast {
            Blast::Node => vec![number],
            Blast::Zone => self.of_zone(self.zone_of(number)),
            Blast::Cluster => self.world.nodes(),
        };
        self.take_down(&struck, arming.effect, arming.survive, arming.for_ms);
        matches!(arming.effect, Effect::Killed | Effect::PowerLost) && struck.contains(&number)
    }
}

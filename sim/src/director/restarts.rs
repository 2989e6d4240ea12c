//! Nodes go down and come back, one by one or all at once.
//!
//! Invariant: what a log had durably when its node went down is in it when the node is back (`kept`), unless the disk
//! was damaged.

use braid_env::disk::sim::Survive;
use braid_stream::ids::GroupId;

use super::Director;
use crate::checkers::kept;
use crate::executor::Pid;
use crate::fault::{Effect, Left};
use crate::plan::Stop;
use crate::story::Teller;
use crate::world::Crash;

impl Director {
    pub(super) fn take_down(&self, numbers: &[u64], effect: Effect, left: Left, for_ms: u64) -> bool {
        let mut any = false;
        for &number in numbers {
            if self.state().gone.contains(&number) {
                continue;
            }
            let (how, survive) = match effect {
                Effect::PowerLost => (Crash::PowerLost, left.survive()),
                Effect::Killed => (Crash::Killed, Survive::Everything),
                Effect::Paused => {
                    any |= self.pause(number, for_ms);
                    continue;
                }
                Effect::HandsOver => {
                    // Not here: whoever passes a mark may hold a lock that looking at groups needs.
                    self.after(0, move |d| d.hand_over_from(number));
                    any = true;
                    continue;
                }
            };
            any = true;
            self.note_kept(number);
            self.world.crash(number, how, survive);
            self.state().down.insert(number);
            // What was to be back at once is.
            let spread = self.state().rng.below(for_ms.clamp(20, 1_000));
            self.after(for_ms + spread, move |d| d.bring_back(number));
        }
        any
    }

    fn bring_back(&self, number: u64) {
        {
            let mut state = self.state();
            state.down.remove(&number);
            if state.gone.contains(&number) {
                return;
            }
        }
        self.start(number);
    }

    pub(super) fn start(&self, number: u64) {
        if let Some(pid) = self.world.start(number) {
            self.story.name(pid, Teller::Node(number));
            self.tell(format!("node {number} starts"));
            self.forget_kept(number);
        }
    }

    /// Starts every node.
    pub fn start_all(&self) {
        for number in self.world.nodes() {
            self.start(number);
        }
    }

    /// The nodes that are meant.
    pub fn nodes_to_stop(&self, stop: Stop) -> Vec<u64> {
        match stop {
            Stop::Node(nth) => vec![self.nth(nth)],
            Stop::Zone(zone) => self.of_zone(zone),
        }
    }

    /// Whether bytes of a node that is neither among these nor lost were damaged.
    pub fn are_others_damaged(&self, nodes: &[u64]) -> bool {
        let state = self.state();
        state.damaged.iter().any(|it| !nodes.contains(it) && !state.gone.contains(it))
    }

    /// These nodes are killed, and never started again.
    pub fn stop_for_good(&self, nodes: &[u64]) {
        self.tell(format!("nodes {nodes:?} are stopped for good, which is said to be safe"));
        for &number in nodes {
            self.state().gone.insert(number);
            self.world.crash(number, Crash::Killed, Survive::Everything);
        }
    }

    /// Ends every fault; the nodes of `dead` are gone for good.
    pub fn heal(&self, dead: Option<usize>) {
        self.tell(format!("healed, but for zone {dead:?}"));
        if let Some(zone) = dead {
            for number in self.of_zone(zone) {
                self.world.crash(number, Crash::PowerLost, Survive::Nothing);
                self.state().gone.insert(number);
            }
        }
        {
            let mut state = self.state();
            state.over = true;
            state.down.clear();
            state.links.clear();
        }
        for number in self.world.nodes() {
            self.with_disk(number, |disk| {
                disk.set_stuck(false);
                disk.set_slowness(1);
                disk.set_capacity(None);
                disk.forget_ordered();
            });
            let pid = self.world.machines()[&number].process.as_ref().map(|p| p.pid);
            if let Some(pid) = pid {
                self.world.executor.pause(pid, false);
                self.world.executor.slow_down(pid, None);
            }
        }
        self.mend_links();
        for number in self.alive() {
            self.start(number);
        }
    }

    /// Takes down how far the node's logs reach, as it goes down.
    fn note_kept(&self, number: u64) {
        let Some(node) = self.world.node(number) else { return };
        // Not here: whoever passes a mark may hold a lock that looking at logs needs. Nothing runs there any more.
        self.after(0, move |d| {
            let replicas = node.groups().all().into_iter();
            let reach = replicas.filter_map(|it| Some((it.id().0, it.log().durable_index()?))).collect();
            d.state().kept.insert(number, reach);
        });
    }

    /// What a node has of a group may be removed, since its replica was moved away, and begin anew later.
    pub(super) fn forget_kept(&self, number: u64) {
        let stored = |group: u32| self.stores(number, GroupId(group));
        if let Some(reach) = self.state().kept.get_mut(&number) {
            reach.retain(|group, _| stored(*group));
        }
    }

    /// A node that runs now has opened the log of `group`, which ends with `last`.
    pub fn on_opened(&self, pid: Pid, group: u32, last: Option<u64>) {
        let Teller::Node(number) = self.story.teller(pid) else { return };
        let mut state = self.state();
        let Some(kept) = state.kept.get_mut(&number).and_then(|reach| reach.remove(&group)) else { return };
        if !state.damaged.contains(&number) {
            let wrong = kept::check(number, group, kept, last);
            state.wrong.extend(wrong);
        }
    }

    /// A node has a checkpoint of `group` up to entry `last`; whether its log holds all that durably.
    pub fn on_checkpointed(&self, pid: Pid, group: u32, last: u64, is_durable: bool) {
        let Teller::Node(number) = self.story.teller(pid) else { return };
        let wrong = kept::check_checkpoint(number, group, last, is_durable);
        self.state().wrong.extend(wrong);
    }
}

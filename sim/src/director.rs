//! Carries faults out, and mends what they broke.
//!
//! ```text
//!   plan ─▶ scheduled faults ─────────────┐
//!   marks, disks, clients ─▶ `triggers` ──┴▶ machines, `links` ─▶ (after a while) back
//!   `watchman`: what gave up is started again; what can't be is replaced
//! ```
//!
//! Invariant: whatever is broken is mended in the end; only the disks of the unlucky zone lose what was
//! durable, and only its wall clocks are wrong.

mod combined;
mod links;
mod moves;
mod restarts;
mod triggers;
mod watchman;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use braid_env::disk::sim::DiskEvent;
use braid_env::time;
use braid_node::replication::GroupReplica;
use braid_stream::ids::GroupId;

use self::links::Change;
use self::triggers::Armed;
use crate::checkers::Violation;
use crate::checkers::terms::Terms;
use crate::executor::Pid;
use crate::fault::{Effect, Fault, Kind, Left};
use crate::history::At;
use crate::network::HostId;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::story::Story;
use crate::world::World;

/// Bytes that every batch of a log has.
const FRAME: u64 = 64;

/// Where nodes keep their replicas, each in a directory of its group's number.
const GROUPS_DIR: &str = "/data/groups";

/// See the module's documentation. Clones are the same director.
#[derive(Clone)]
pub struct Director {
    world: World,
    story: Story,
    plan: Arc<Plan>,
    state: Arc<Mutex<State>>,
}

struct State {
    rng: Rng,
    over: bool,
    /// Stopped on purpose; the watchman leaves them alone.
    down: BTreeSet<u64>,
    /// Gone for ever: replaced, or of a dead zone.
    gone: BTreeSet<u64>,
    links: BTreeMap<(HostId, HostId), Vec<(u64, Change)>>,
    next_change: u64,
    armed: Vec<Armed>,
    struck: BTreeMap<Kind, u64>,
    triggered: BTreeMap<String, u64>,
    /// How often in a row each node refused to open a group, or (`None`) to start at all.
    refusals: BTreeMap<u64, BTreeMap<Option<GroupId>, u32>>,
    replacing: Option<Replacing>,
    replaced: u64,
    clients: Vec<HostId>,
    /// Things that must not happen, whatever the faults.
    wrong: Vec<Violation>,
    terms: Terms,
    /// Each (node, group)'s replica as it was last seen, and the how-manieth that one is.
    lives: BTreeMap<(u64, GroupId), (u64, Weak<GroupReplica>)>,
    /// How far each node's logs reached when it went down, by group; an entry goes as the log is opened again.
    kept: BTreeMap<u64, BTreeMap<u32, u64>>,
    /// Nodes whose durable bytes were damaged.
    damaged: BTreeSet<u64>,
    /// Those, and nodes of which reads were made to fail.
    tampered: BTreeSet<u64>,
    since_down: BTreeMap<u64, u64>,
    /// Which processes are made to read, and of which group.
    reading: BTreeSet<(Pid, GroupId)>,
    /// When some node was elected in some group.
    elections: Vec<At>,
}

/// A node that is being replaced.
#[derive(Clone, Copy)]
struct Replacing {
    old: u64,
    new: u64,
    then: Then,
}

/// What happens as soon as a node has been replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    /// The new one is lost as well, before it has all the replicas: from when it is known, nobody hears it.
    LostToo,
    /// From when it is known, nobody hears the new one until all is mended: it can't catch up.
    Unheard,
    /// The new one leads the catalog, and a node that was away meanwhile comes back.
    Leads,
}

impl State {
    /// The how-manieth replica this is on its node. Between two looks one may be moved away and come again, and begin
    /// anew (seed 79000315).
    fn life_of(&mut self, number: u64, replica: &Arc<GroupReplica>) -> u64 {
        let (life, seen) = self.lives.entry((number, replica.id())).or_default();
        let here = Arc::downgrade(replica);
        if !seen.ptr_eq(&here) {
            (*life, *seen) = (*life + 1, here);
        }
        *life
    }
}

impl Director {
    pub fn new(world: World, story: Story, plan: Arc<Plan>) -> Director {
        let armed = plan.triggers.iter().cloned().map(Armed::of).collect();
        let state = State {
            rng: Rng::of(plan.seed, "director"),
            over: false,
            down: BTreeSet::new(),
            gone: BTreeSet::new(),
            links: BTreeMap::new(),
            next_change: 0,
            armed,
            struck: BTreeMap::new(),
            triggered: BTreeMap::new(),
            refusals: BTreeMap::new(),
            replacing: None,
            replaced: 0,
            clients: Vec::new(),
            wrong: Vec::new(),
            terms: Terms::default(),
            lives: BTreeMap::new(),
            kept: BTreeMap::new(),
            damaged: BTreeSet::new(),
            tampered: BTreeSet::new(),
            since_down: BTreeMap::new(),
            reading: BTreeSet::new(),
            elections: Vec::new(),
        };
        Director { world, story, plan, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, text: impl Into<String>) {
        self.story.tell(self.world.executor.now(), text);
    }

    /// A client's machine, so that faults may cut it off as well.
    pub fn add_client(&self, host: HostId) {
        self.state().clients.push(host);
        self.mend_links();
    }

    /// How often each kind of fault struck, by name.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let state = self.state();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for kind in Kind::ALL {
            counts.insert(kind.name().into(), state.struck.get(kind).copied().unwrap_or(0));
        }
        for (name, count) in &state.triggered {
            *counts.entry(name.clone()).or_default() += count;
        }
        counts
    }

    /// What must not have happened.
    pub fn wrong(&self) -> Vec<Violation> {
        self.state().wrong.clone()
    }

    /// When some group got another leader, as far as marks are heard.
    pub fn elections(&self) -> Vec<At> {
        self.state().elections.clone()
    }

    /// Nodes that are there for good: where clients may go in the end.
    pub fn alive(&self) -> Vec<u64> {
        let gone = self.state().gone.clone();
        self.world.nodes().into_iter().filter(|n| !gone.contains(n)).collect()
    }

    /// Puts the disks' pace and hooks and the links in place; before the first start of a node.
    pub fn prepare(&self) {
        for number in self.world.nodes() {
            self.prepare_disk(number);
        }
        self.mend_links();
    }

    fn prepare_disk(&self, number: u64) {
        let machines = self.world.machines();
        let disk = &machines[&number].disk;
        disk.set_latency(Some(crate::plan::latency(&self.plan.disks)));
        let director = self.clone();
        disk.set_hook(Some(Arc::new(move |event: &DiskEvent<'_>| director.on_disk(number, event))));
    }

    // Faults by time.

    /// Runs the plan's faults; returns when the last has struck and the time is over.
    pub async fn run(self) {
        let start = self.world.executor.now();
        let mut moments: BTreeMap<u64, Vec<Step>> = BTreeMap::new();
        for scheduled in &self.plan.faults {
            moments.entry(scheduled.at_ms).or_default().push(Step::Strike(scheduled.fault));
        }
        for (nth, arming) in self.plan.triggers.iter().enumerate() {
            moments.entry(arming.from_ms).or_default().push(Step::Arm(nth));
        }
        for (at_ms, steps) in moments {
            self.sleep_until(start + at_ms * 1_000_000).await;
            for step in steps {
                match step {
                    Step::Strike(fault) => self.strike(fault),
                    Step::Arm(nth) => self.state().armed[nth].live = true,
                }
            }
        }
        self.sleep_until(start + self.plan.duration_ms * 1_000_000).await;
    }

    async fn sleep_until(&self, at: u64) {
        let now = self.world.executor.now();
        time::sleep(Duration::from_nanos(at.saturating_sub(now))).await;
    }

    fn any_node(&self, fits: impl Fn(u64) -> bool) -> Option<u64> {
        let nodes: Vec<u64> = self.alive().into_iter().filter(|n| fits(*n)).collect();
        self.state().rng.pick(&nodes).copied()
    }

    fn zone_of(&self, number: u64) -> usize {
        self.world.machines()[&number].zone
    }

    fn of_zone(&self, zone: usize) -> Vec<u64> {
        self.alive().into_iter().filter(|n| self.zone_of(*n) == zone).collect()
    }

    fn host(&self, number: u64) -> HostId {
        self.world.machines()[&number].host
    }

    /// The nth of those that are there.
    fn nth(&self, nth: u32) -> u64 {
        let nodes = self.alive();
        nodes[nth as usize % nodes.len()]
    }

    fn after(&self, ms: u64, what: impl FnOnce(&Director) + Send + 'static) {
        let director = self.clone();
        self.world.executor.call_at(self.world.executor.now() + ms * 1_000_000, move || {
            if !director.state().over {
                what(&director);
            }
        });
    }

    fn strike(&self, fault: Fault) {
        let (a, b) = (self.nth(fault.node), self.nth(fault.other));
        let zone = self.zone_of(a);
        self.tell(format!("fault: {} (node {a}, other {b}, zone {zone}) for {} ms", fault.kind.name(), fault.for_ms));
        let done = match fault.kind {
            Kind::CutLink => self.change_links(&self.both(a, b), Change::Cut, fault.for_ms),
            Kind::CutOneWay => self.change_links(&[(self.host(a), self.host(b))], Change::Cut, fault.for_ms),
            Kind::IsolateNode => self.change_links(&self.around(&[a], fault.amount), Change::Cut, fault.for_ms),
            Kind::IsolateZone => {
                self.change_links(&self.around(&self.of_zone(zone), fault.amount), Change::Cut, fault.for_ms)
            }
            Kind::Loss => self.change_links(&self.around(&[a], fault.amount), Change::Loss(fault.amount), fault.for_ms),
            Kind::Reorder => {
                self.change_links(&self.around(&[a], fault.amount), Change::Reorder(fault.amount), fault.for_ms)
            }
            Kind::Duplicate => {
                self.change_links(&self.around(&[a], fault.amount), Change::Duplicate(fault.amount), fault.for_ms)
            }
            Kind::Delay => self.change_links(&self.both(a, b), Change::Delay(fault.amount), fault.for_ms),
            Kind::Trickle => self.change_links(&self.both(a, b), Change::Trickle(fault.amount), fault.for_ms),
            Kind::HalfOpen => self.world.network.half_open(self.host(a), self.host(b)) > 0,
            Kind::Reset => self.world.network.reset_between(self.host(a), self.host(b)) > 0,
            Kind::Kill => self.take_down(&[a], Effect::Killed, Left::Everything, fault.for_ms),
            Kind::Restart => {
                self.world.stop(a);
                true
            }
            Kind::PowerLoss => self.take_down(&[a], Effect::PowerLost, fault.survive, fault.for_ms),
            Kind::ZonePowerLoss => self.take_down(&self.of_zone(zone), Effect::PowerLost, fault.survive, fault.for_ms),
            Kind::ClusterPowerLoss => {
                self.take_down(&self.world.nodes(), Effect::PowerLost, fault.survive, fault.for_ms)
            }
            Kind::Pause => self.take_down(&[a], Effect::Paused, Left::Everything, fault.for_ms),
            Kind::SlowNode => {
                let by = Duration::from_micros(fault.amount);
                self.with_process(
                    a,
                    fault.for_ms,
                    move |w, pid| w.executor.slow_down(pid, Some(by)),
                    |w, pid| w.executor.slow_down(pid, None),
                )
            }
            Kind::WallForward => self.jump(fault.amount as i64).is_some(),
            Kind::WallBack => self.jump(-(fault.amount as i64)).is_some(),
            Kind::WrongStart => self
                .jump(either_way(&fault))
                .is_some_and(|n| self.take_down(&[n], Effect::Killed, Left::Everything, fault.for_ms)),
            Kind::LeaderMistimed => self.mistime_leader(either_way(&fault)),
            Kind::Drift => {
                let ppm = either_way(&fault);
                self.with_process(
                    a,
                    fault.for_ms,
                    move |w, pid| w.executor.drift(pid, ppm),
                    |w, pid| w.executor.drift(pid, 0),
                )
            }
            Kind::Replace => self.begin_replacing(None, Then::Nothing),
            Kind::SuccessorLost => self.begin_replacing(None, Then::LostToo),
            Kind::SuccessorLeads => self.replace_voter_unheard(),
            Kind::FsyncError => self.with_disk(a, |disk| disk.fail_next_fsync()),
            Kind::FsyncDirError => self.with_disk(a, |disk| disk.fail_next_fsync_dir()),
            Kind::WriteError => self.with_disk(a, |disk| disk.fail_next_write()),
            Kind::ShortWrite => self.with_disk(a, |disk| disk.shorten_next_write()),
            Kind::ReadError => {
                self.state().tampered.insert(a);
                self.with_disk(a, |disk| disk.fail_next_read())
            }
            Kind::RenameError => self.with_disk(a, |disk| disk.fail_next_rename()),
            Kind::DiskFull => {
                self.after(fault.for_ms, move |d| {
                    d.with_disk(a, |disk| disk.set_capacity(None));
                });
                self.with_disk(a, |disk| disk.set_capacity(Some(0)))
            }
            Kind::SlowDisk => {
                self.after(fault.for_ms, move |d| {
                    d.with_disk(a, |disk| disk.set_slowness(1));
                });
                self.with_disk(a, |disk| disk.set_slowness(fault.amount as u32))
            }
            Kind::StuckDisk => {
                self.after(fault.for_ms, move |d| {
                    d.with_disk(a, |disk| disk.set_stuck(false));
                });
                self.with_disk(a, |disk| disk.set_stuck(true))
            }
            Kind::IndexLost => {
                let down = self.take_down(&[a], Effect::Killed, Left::Everything, fault.for_ms);
                self.world.machines()[&a].index.lose();
                down
            }
            Kind::BitFlip => self.flip(),
            Kind::LeaderDamaged => self.damage_leader(),
            Kind::LeaderRaced => self.race_leader(&fault),
            Kind::LeaderStalls => {
                self.stall_leader(&fault);
                false // counted when it comes to that
            }
            Kind::VoterForgets => {
                self.forget_vote();
                false // counted when it comes to that
            }
            Kind::OfferStalls => self.stall_offer(&fault),
            Kind::HalfReplaced => self.half_replace(&fault),
            Kind::StreamUnheard => self.hide_stream(&fault),
            Kind::ControllerStalls => self.stall_controller(&fault),
            Kind::ReshardUnheard => self.hide_reshard(&fault),
            Kind::SuccessorUnled => self.unlead_successor(),
            Kind::MoveStranded
            | Kind::MoveReturned
            | Kind::MoveUnheard
            | Kind::ArrivalUnheard
            | Kind::LeaderUnaware
            | Kind::SuccessorUnheard => {
                self.strike_at_move(fault.kind);
                false // counted when it comes to that
            }
            Kind::BitMisread => self.misread(a, fault.amount),
            Kind::TailMisread => self.misread_tail(a, &fault),
        };
        if done {
            self.count(fault.kind);
        }
    }

    fn count(&self, kind: Kind) {
        *self.state().struck.entry(kind).or_default() += 1;
    }

    fn with_disk(&self, number: u64, what: impl FnOnce(&braid_env::disk::sim::SimDisk)) -> bool {
        let disk = self.world.machines()[&number].disk.clone();
        what(&disk);
        true
    }

    fn with_process(
        &self,
        number: u64,
        for_ms: u64,
        begin: impl FnOnce(&World, Pid),
        end: impl FnOnce(&World, Pid) + Send + 'static,
    ) -> bool {
        let Some(pid) = self.world.machines()[&number].process.as_ref().map(|p| p.pid) else { return false };
        begin(&self.world, pid);
        let world = self.world.clone();
        // Also when all is over: nothing stays paused.
        self.world.executor.call_at(self.world.executor.now() + for_ms * 1_000_000, move || end(&world, pid));
        true
    }

    fn pause(&self, number: u64, for_ms: u64) -> bool {
        let pausing = |on: bool| move |world: &World, pid| world.executor.pause(pid, on);
        self.with_process(number, for_ms, pausing(true), pausing(false))
    }

    /// Sets the wall clock of some node of the unlucky zone; gives which.
    fn jump(&self, by_ms: i64) -> Option<u64> {
        let number = self.any_node(|n| self.zone_of(n) == self.plan.unlucky_zone)?;
        self.jump_of(number, by_ms);
        Some(number)
    }

    fn jump_of(&self, number: u64, by_ms: i64) {
        self.world.machines()[&number].wall.jump(by_ms);
        self.tell(format!("the wall clock of node {number} jumps by {by_ms} ms"));
    }

    /// Flips a bit of what is durable, in the unlucky zone: in a checkpoint or a segment.
    fn flip(&self) -> bool {
        let victims = self.of_zone(self.plan.unlucky_zone);
        let Some(number) = self.state().rng.pick(&victims).copied() else { return false };
        self.flip_bit_of(number, |path, len| match name(path) {
            _ if !path.starts_with(GROUPS_DIR) => None,
            file if file.starts_with("checkpoint-") => Some(0..len),
            file if file.starts_with("segment-") => Some(0..self.settled(number, path, len)),
            _ => None,
        })
    }

    /// How much of a segment may be damaged: not the last batches of the last one, since damage in the last batch
    /// before a crash can't be told from a torn write, a named limit.
    fn settled(&self, number: u64, segment: &Path, len: u64) -> u64 {
        let disk = self.world.machines()[&number].disk.clone();
        let later = |file: &Path| segment.parent().is_some_and(|dir| is_segment(file, dir)) && file > segment;
        match disk.files().iter().any(|file| later(file)) {
            true => len,
            false => disk.durable_before(segment, 2).min(len),
        }
    }

    fn flip_bit_of(&self, number: u64, range: impl Fn(&Path, u64) -> Option<Range<u64>>) -> bool {
        let disk = self.world.machines()[&number].disk.clone();
        let range = |path: &Path, len| range(path, len).filter(|range| !range.is_empty());
        let Some(flip) = disk.flip_random_durable_bit(range) else { return false };
        self.tell(format!(
            "flipped bit {} of byte {} of {} on node {number}",
            flip.bit,
            flip.byte,
            flip.path.display()
        ));
        self.state().damaged.insert(number);
        self.state().tampered.insert(number);
        true
    }

    fn misread(&self, number: u64, amount: u64) -> bool {
        let disk = self.world.machines()[&number].disk.clone();
        let mut files = disk.files();
        files.retain(|f| f.starts_with(GROUPS_DIR) && !name(f).ends_with(".tmp"));
        if files.is_empty() {
            return false;
        }
        let path = &files[amount as usize % files.len()];
        let len = disk.read_raw(path).len() as u64;
        if len == 0 {
            return false;
        }
        self.misread_byte(number, path, (amount >> 8) % len, amount);
        true
    }

    /// A node loses power, and as it starts again, a bit of the last batch of one of its logs is misread. What was not
    /// synced is gone: a later frame would show that the batch was durable.
    fn misread_tail(&self, number: u64, fault: &Fault) -> bool {
        let Some(node) = self.world.node(number) else { return false };
        let groups: Vec<GroupId> = node.groups().all().into_iter().map(|replica| replica.id()).collect();
        let Some(group) = self.state().rng.pick(&groups).copied() else { return false };
        let (disk, dir) = (self.world.machines()[&number].disk.clone(), dir_of(group));
        let segments = disk.files().into_iter().filter(|path| is_segment(path, &dir));
        let Some(segment) = segments.max() else { return false };
        let last_batch = disk.durable_before(&segment, 1)..disk.durable_before(&segment, 0);
        if last_batch.is_empty() || !self.take_down(&[number], Effect::PowerLost, Left::Nothing, fault.for_ms) {
            return false;
        }
        // Where its first frame says what it is.
        let byte = last_batch.start + (fault.amount >> 8) % (last_batch.end - last_batch.start).min(FRAME);
        self.misread_byte(number, &segment, byte, fault.amount);
        true
    }

    /// One of the byte's bits, as the fault's amount has it.
    fn misread_byte(&self, number: u64, path: &Path, byte: u64, amount: u64) {
        self.state().tampered.insert(number);
        self.with_disk(number, |disk| disk.flip_on_next_read(path, byte, (amount % 8) as u8));
        self.tell(format!("byte {byte} of {} on node {number} is to be misread", path.display()));
    }
}

enum Step {
    Strike(Fault),
    Arm(usize),
}

/// The fault's amount, to one side or the other.
fn either_way(fault: &Fault) -> i64 {
    if fault.other.is_multiple_of(2) { fault.amount as i64 } else { -(fault.amount as i64) }
}

/// Where a node keeps its replica of a group.
fn dir_of(group: GroupId) -> PathBuf {
    Path::new(GROUPS_DIR).join(group.0.to_string())
}

/// Whether a file of that directory is a segment of its log.
fn is_segment(path: &Path, dir: &Path) -> bool {
    path.parent() == Some(dir) && name(path).starts_with("segment-")
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

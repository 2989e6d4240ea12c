//! Everything that is decided before a run begins, drawn from its seed: a *swarm*, in which no two runs
//! have the same cluster, load or faults.
//!
//! Invariant: a plan holds only what the cluster promises to survive: damage to what was durable, and disks
//! that are lost, befall one zone only. Leaving a fault out of a plan leaves a valid plan.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::{Arming, Fault, Kind, Scheduled, Trigger};
use crate::rng::Rng;
use crate::workload::WorkloadSpec;
use crate::world::Topology;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Everything is mended.
    Healed,
    /// Everything but one zone, which is dead for ever.
    WithoutZone(usize),
}

/// What is stopped for good once all is mended, as soon as the cluster says that it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// One of the nodes that are there, modulo their number.
    Node(u32),
    Zone(usize),
}

/// How fast disks are, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPace {
    pub read_us: (u64, u64),
    pub write_us: (u64, u64),
    pub fsync_us: (u64, u64),
    pub slow_per_mille: u32,
}

/// A run, before it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What it was drawn from; it goes on deciding what the plan leaves open.
    pub seed: u64,
    pub topology: Topology,
    pub disks: DiskPace,
    /// Within a zone and between zones, microseconds.
    pub delay_us: (u64, u64),
    /// How long there are faults, milliseconds.
    pub duration_ms: u64,
    pub ending: Ending,
    pub stops: Option<Stop>,
    /// The zone whose disks may lose what was durable.
    pub unlucky_zone: usize,
    pub faults: Vec<Scheduled>,
    pub triggers: Vec<Arming>,
    pub workload: WorkloadSpec,
}

/// What a plan is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// Anything.
    #[default]
    Swarm,
    /// Five nodes, sixteen groups, about fifty writes a second, every fault: what speed is measured on.
    Reference,
    /// One group and no load: as above, but idle.
    Idle,
    /// As a swarm, with faults of one kind alone.
    Only(Kind),
}

/// As it is given on the command line.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Swarm => "swarm",
            Profile::Reference => "reference",
            Profile::Idle => "idle",
            Profile::Only(kind) => kind.name(),
        })
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Profile, String> {
        let known = [Profile::Swarm, Profile::Reference, Profile::Idle].into_iter();
        let mut known = known.chain(Kind::ALL.iter().copied().map(Profile::Only));
        known.find(|it| it.to_string() == text).ok_or_else(|| {
            let kinds: Vec<String> = Kind::ALL.iter().map(|kind| format!("  {}", kind.name())).collect();
            format!("swarm, reference, idle, or one kind of fault:\n{}", kinds.join("\n"))
        })
    }
}

impl Plan {
    /// The plan of `seed`.
    pub fn draw(seed: u64, profile: Profile) -> Plan {
        let mut rng = Rng::of(seed, "plan");
        let topology = topology(&mut rng, profile);
        let duration_ms = match profile {
            Profile::Swarm | Profile::Only(_) if rng.chance(30) => rng.within(120_000..=240_000),
            Profile::Swarm | Profile::Only(_) => rng.within(8_000..=45_000),
            Profile::Reference | Profile::Idle => 600_000,
        };
        let unlucky_zone = rng.below(3) as usize;
        let ending = match rng.chance(200) {
            true => Ending::WithoutZone(unlucky_zone),
            false => Ending::Healed,
        };
        let stops = match (ending, profile) {
            (Ending::Healed, Profile::Swarm | Profile::Only(_)) if rng.chance(250) => match rng.chance(500) {
                true => Some(Stop::Node(rng.below(6) as u32)),
                false => Some(Stop::Zone(rng.below(3) as usize)),
            },
            _ => None,
        };
        let slow = rng.chance(200);
        let disks = DiskPace {
            read_us: (20, if slow { 4_000 } else { 300 }),
            write_us: (5, if slow { 2_000 } else { 60 }),
            fsync_us: (100, rng.skewed(500..=if slow { 80_000 } else { 5_000 })),
            slow_per_mille: if rng.chance(300) { rng.within(1..=20) as u32 } else { 0 },
        };
        let delay_us = (rng.skewed(20..=500), rng.skewed(200..=5_000));
        let mut plan = Plan {
            seed,
            topology,
            disks,
            delay_us,
            duration_ms,
            ending,
            stops,
            unlucky_zone,
            faults: Vec::new(),
            triggers: Vec::new(),
            workload: match profile {
                Profile::Swarm | Profile::Only(_) => WorkloadSpec::draw(rng.u64()),
                Profile::Reference => WorkloadSpec::reference(rng.u64()),
                Profile::Idle => WorkloadSpec::default(),
            },
        };
        plan.draw_faults(&mut Rng::of(seed, "faults"), profile);
        plan
    }

    fn draw_faults(&mut self, rng: &mut Rng, profile: Profile) {
        // One run in twelve has none, so that the rest of the simulator is known to be quiet.
        if profile == Profile::Idle || (profile == Profile::Swarm && rng.chance(80)) {
            return;
        }
        let nodes = self.topology.nodes();
        let alone = match profile {
            Profile::Only(kind) => Some(kind),
            Profile::Swarm if rng.chance(350) => {
                let kinds: Vec<Kind> = Kind::COMBINED.iter().copied().filter(|kind| kind.fits(nodes)).collect();
                rng.pick(&kinds).copied()
            }
            _ => None,
        };
        if let Some(kind) = alone {
            // With time between: a fault of several steps comes to its end only where no other meets it.
            self.workload.suit(kind, rng.u64());
            if kind.awaits_forgetting() {
                self.topology.forget_grace_ms = 0;
                self.topology.trim_every_ms = 5_000;
            }
            let (between_ms, least_ms) = match kind {
                Kind::ControllerStalls => (28_000..=34_000, 40_000),
                // Clocks go apart slowly.
                Kind::LeaderMistimed => (30_000..=60_000, 45_000),
                _ => (6_000..=12_000, 0),
            };
            self.duration_ms = self.duration_ms.max(least_ms);
            let mut at_ms = 5_000 + rng.below(3_000);
            while at_ms < self.duration_ms {
                self.faults.push(Scheduled { at_ms, fault: Fault::draw(kind, nodes, rng) });
                at_ms += rng.within(between_ms.clone());
            }
            return;
        }
        // A run with few kinds goes deeper than one with all.
        let share = match profile {
            Profile::Swarm => *rng.pick(&[100, 250, 500, 1000]).expect("not empty"),
            _ => 1000,
        };
        let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|_| rng.chance(share)).collect();
        if !kinds.is_empty() {
            let every_ms = match profile {
                Profile::Swarm => rng.skewed(400..=8_000),
                _ => 10_000,
            };
            // The cluster forms first.
            let mut at_ms = 3_000 + rng.below(3_000);
            while at_ms < self.duration_ms {
                let kind = *rng.pick(&kinds).expect("not empty");
                let fault = Fault::draw(kind, nodes, rng);
                self.faults.push(Scheduled { at_ms, fault });
                at_ms += rng.within(every_ms / 4..=every_ms * 7 / 4);
            }
        }
        let dies = matches!(self.ending, Ending::WithoutZone(_));
        let often = dies || (self.stops.is_some() && Kind::SuccessorUnled.fits(nodes));
        if profile == Profile::Swarm && rng.chance(if often { 800 } else { 300 }) {
            // What strikes last is there when everything has to work again: not all of it is mended then.
            let last = match dies && rng.chance(700) {
                true if Kind::SuccessorUnheard.fits(nodes) && rng.chance(400) => Kind::SuccessorUnheard,
                true if Kind::MoveStranded.fits(nodes) && rng.chance(300) => Kind::MoveStranded,
                true => Kind::OfferStalls,
                false if self.stops.is_some() && Kind::SuccessorUnled.fits(nodes) => Kind::SuccessorUnled,
                false if Kind::SuccessorLeads.fits(nodes) && rng.chance(400) => Kind::SuccessorLeads,
                false => *rng.pick(&[Kind::LeaderDamaged, Kind::OfferStalls, Kind::HalfOpen]).expect("not empty"),
            };
            let before_ms = match last {
                Kind::SuccessorLeads => rng.within(10_000..=14_000),
                Kind::SuccessorUnled => rng.within(6_000..=10_000),
                Kind::LeaderDamaged => rng.within(4_000..=6_000),
                Kind::MoveStranded => rng.within(2_000..=8_000),
                Kind::SuccessorUnheard => rng.within(5_000..=9_000),
                // To its own end, or cut short.
                Kind::OfferStalls if rng.chance(500) => rng.within(2_800..=4_500),
                _ => rng.within(700..=1_500),
            };
            // The cluster forms first.
            let at_ms = self.duration_ms.saturating_sub(before_ms).max(4_000);
            self.faults.push(Scheduled { at_ms, fault: Fault::draw(last, nodes, rng) });
            self.workload.suit(last, rng.u64());
        }
        if profile == Profile::Swarm && rng.chance(600) {
            for _ in 0..rng.within(1..=6) {
                self.triggers.push(Trigger::draw(self.duration_ms, rng));
            }
        }
    }

    /// The plan without some of its faults, triggers and clients, by their numbers as printed.
    pub fn without(mut self, drop: &Drops) -> Plan {
        fn keep<T>(from: &mut Vec<T>, gone: &[usize]) {
            let mut nth = 0;
            from.retain(|_| {
                nth += 1;
                !gone.contains(&(nth - 1))
            });
        }
        keep(&mut self.faults, &drop.faults);
        keep(&mut self.triggers, &drop.triggers);
        let w = &mut self.workload;
        let mut clients = |gone: &[usize]| {
            let mut nth = 0;
            let mut kept = || {
                nth += 1;
                !gone.contains(&(nth - 1))
            };
            w.writers.retain(|_| kept());
            w.producers.retain(|_| kept());
            w.pollers.retain(|_| kept());
            w.subscribers.retain(|_| kept());
            w.consumers.retain(|_| kept());
            w.admins.retain(|_| kept());
        };
        clients(&drop.clients);
        self
    }

    /// How many clients the workload has.
    pub fn clients(&self) -> usize {
        self.workload.clients().count()
    }
}

/// What shrinking left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    pub faults: Vec<usize>,
    pub triggers: Vec<usize>,
    pub clients: Vec<usize>,
}

fn topology(rng: &mut Rng, profile: Profile) -> Topology {
    let fixed = |zones, groups| Topology {
        zones,
        groups,
        heartbeat_ms: 250,
        election_ms: (750, 1_200),
        segment_bytes: 256 << 10,
        cache_bytes: 1 << 20,
        retention_floor_ms: 10_000,
        trim_every_ms: 20_000,
        forget_grace_ms: 3_600_000,
    };
    match profile {
        Profile::Reference => return fixed([2, 2, 1], 16),
        Profile::Idle => return fixed([1, 1, 1], 1),
        Profile::Swarm | Profile::Only(_) => {}
    }
    let zones = *rng.pick(&[[1, 1, 1], [1, 1, 1], [1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2]]).expect("not empty");
    let heartbeat_ms = *rng.pick(&[100, 250, 250, 250]).expect("not empty");
    Topology {
        zones,
        groups: *rng.pick(&[1, 1, 2, 3, 6]).expect("not empty"),
        heartbeat_ms,
        election_ms: (heartbeat_ms * 3, heartbeat_ms * 3 + rng.within(heartbeat_ms * 2..=heartbeat_ms * 4)),
        segment_bytes: rng.skewed(16 << 10..=4 << 20).next_multiple_of(4096),
        cache_bytes: rng.skewed(64 << 10..=16 << 20),
        retention_floor_ms: 10_000,
        trim_every_ms: *rng.pick(&[5_000, 5_000, 10_000, 60_000]).expect("not empty"),
        forget_grace_ms: *rng.pick(&[0, 0, 5_000, 3_600_000]).expect("not empty"),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.topology;
        writeln!(
            f,
            "cluster   {} nodes in zones of {:?}, {} groups, heartbeat {} ms, election {}-{} ms, segments of {} KiB",
            t.nodes(),
            t.zones,
            t.groups,
            t.heartbeat_ms,
            t.election_ms.0,
            t.election_ms.1,
            t.segment_bytes >> 10
        )?;
        writeln!(
            f,
            "disks     fsync {}-{} us; network {} us in a zone, {} us between zones; damage only in zone {}",
            self.disks.fsync_us.0, self.disks.fsync_us.1, self.delay_us.0, self.delay_us.1, self.unlucky_zone
        )?;
        let w = &self.workload;
        writeln!(
            f,
            "load      {} streams, {} writers, {} producers, {} pollers, {} subscribers, {} consumers, {} admins",
            w.streams.len(),
            w.writers.len(),
            w.producers.len(),
            w.pollers.len(),
            w.subscribers.len(),
            w.consumers.len(),
            w.admins.len()
        )?;
        let stops = self.stops.map(|it| format!(", and {it:?} is stopped once that is safe")).unwrap_or_default();
        writeln!(f, "faults    for {} s, then {:?}{stops}", self.duration_ms as f64 / 1e3, self.ending)?;
        for (nth, scheduled) in self.faults.iter().enumerate() {
            writeln!(f, "  f{nth:<3} at {:>8.3} s  {}", scheduled.at_ms as f64 / 1e3, scheduled.fault)?;
        }
        for (nth, arming) in self.triggers.iter().enumerate() {
            writeln!(f, "  t{nth:<3} from {:>6.3} s  {}", arming.from_ms as f64 / 1e3, arming)?;
        }
        Ok(())
    }
}

/// What disks are given.
pub fn latency(pace: &DiskPace) -> braid_env::disk::sim::Latency {
    let range = |(least, most): (u64, u64)| Duration::from_micros(least)..=Duration::from_micros(most.max(least));
    braid_env::disk::sim::Latency {
        read: range(pace.read_us),
        write: range(pace.write_us),
        fsync: range(pace.fsync_us),
        slow_per_mille: pace.slow_per_mille,
        slow_factor: 20,
    }
}

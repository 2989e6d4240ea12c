//! The simulated machines and the nodes on them: what is switched on, killed, cut off and brought back.
//!
//! ```text
//!   machine ── disk, index, wall clock ── outlive the process
//!      └─ process (a Pid) ── the node's tasks ── die together
//! ```
//!
//! Invariant: a crash freezes disk and network first and drops tasks then, so that nothing a destructor does
//! is saved. It decides nothing about when: that is the faults' business.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use braid_env::disk::sim::{SimDisk, Survive};
use braid_env::seam::Seams;
use braid_env::time::WallClock;
use braid_env::{net, watch};
use braid_node::config::{Flags, NodeConfig};
use braid_node::index::ordered::OrderedIndex;
use braid_node::{Listeners, Node};
use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};

use crate::executor::{Executor, Pid};
use crate::network::{HostId, Network};
use crate::rng::Rng;

/// Where a node listens for its peers and for clients.
const PEER_PORT: u16 = 7100;
const CLIENT_PORT: u16 = 7101;

/// When the simulation begins, by the wall clocks: milliseconds since the Unix epoch.
pub const EPOCH_MS: u64 = 1_750_000_000_000;

/// What a node is said to have given up for that was told to stop.
pub const STOPPED: &str = "stopped";

/// What a cluster is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// Nodes in each of the three zones.
    pub zones: [u32; 3],
    /// Data groups.
    pub groups: u32,
    /// Between heartbeats, milliseconds.
    pub heartbeat_ms: u64,
    /// Election timeout, milliseconds.
    pub election_ms: (u64, u64),
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// Log entries kept in memory, a node.
    pub cache_bytes: u64,
    /// The shortest retention a stream may have, milliseconds.
    pub retention_floor_ms: u64,
    /// How often records past their retention are trimmed, milliseconds.
    pub trim_every_ms: u64,
    /// How long after its last record's retention a closed shard is forgotten, milliseconds.
    pub forget_grace_ms: u64,
}

impl Topology {
    /// Founding nodes.
    pub fn nodes(&self) -> u32 {
        self.zones.iter().sum()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Killed: what it wrote is in the page cache and stays.
    Killed,
    /// The machine lost its power.
    PowerLost,
}

/// The machines. Clones are the same ones.
#[derive(Clone)]
pub struct World {
    pub executor: Executor,
    pub network: Network,
    machines: Arc<Mutex<BTreeMap<u64, Machine>>>,
    seed: u64,
    topology: Arc<Topology>,
    /// The founding nodes, as every configuration names them.
    seeds: Arc<str>,
}

/// One node's machine.
pub struct Machine {
    /// Its address.
    pub host: HostId,
    /// The zone it is in: 0, 1 or 2.
    pub zone: usize,
    /// Its disk.
    pub disk: SimDisk,
    /// Its wall clock.
    pub wall: WallClock,
    /// The record index, which outlives the process as a file would.
    pub index: Arc<OrderedIndex>,
    /// The process that runs on it.
    pub process: Option<Process>,
    /// Why the last process ended by itself.
    pub gave_up: Option<String>,
    config: NodeConfig,
    starts: u64,
    powered: bool,
    /// How the last process ended, if it did not end by itself, and what is to be left of the disk.
    left: Option<(Crash, Survive)>,
}

/// A running node.
#[derive(Clone)]
pub struct Process {
    /// Its tasks.
    pub pid: Pid,
    /// The node, once it listens.
    pub node: Arc<Mutex<Option<Arc<Node>>>>,
    /// What stands in for the world for it.
    pub seams: Seams,
    stop: watch::Sender<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address of machine `number`.
fn ip(zone: usize, number: u64) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, zone as u8 + 1, number as u8))
}

impl World {
    /// Machines for every founding node, none of them started.
    pub fn new(executor: Executor, network: Network, seed: u64, topology: Topology) -> World {
        let mut founders = Vec::new();
        let mut number = 0;
        // In turn, so that the first three nodes are in three zones.
        for round in 0..topology.zones.iter().copied().max().unwrap_or(0) {
            for (zone, &count) in topology.zones.iter().enumerate() {
                if round < count {
                    number += 1;
                    founders.push((number, zone));
                }
            }
        }
        let seeds: Vec<String> = founders.iter().map(|&(number, zone)| seed_text(number, zone)).collect();
        let world = World {
            executor,
            network,
            machines: Arc::default(),
            seed,
            topology: Arc::new(topology),
            seeds: seeds.join(";").into(),
        };
        for (number, zone) in founders {
            world.add_machine(number, zone, &world.seeds);
        }
        world
    }

    fn add_machine(&self, number: u64, zone: usize, cluster: &str) {
        let host = self.network.add_host(ip(zone, number));
        let text = |s: &dyn ToString| Some(s.to_string());
        let t = &self.topology;
        let flags = Flags {
            node_id: text(&number),
            zone: text(&zone_name(zone)),
            data_dir: text(&"/data"),
            cluster: text(&cluster),
            peer_listen: text(&SocketAddr::new(ip(zone, number), PEER_PORT)),
            peer_advertise: text(&SocketAddr::new(ip(zone, number), PEER_PORT)),
            client_listen: text(&SocketAddr::new(ip(zone, number), CLIENT_PORT)),
            client_advertise: text(&SocketAddr::new(ip(zone, number), CLIENT_PORT)),
            data_groups: text(&t.groups),
            heartbeat_ms: text(&t.heartbeat_ms),
            election_timeout_min_ms: text(&t.election_ms.0),
            election_timeout_max_ms: text(&t.election_ms.1),
            ..Flags::default()
        };
        let config = NodeConfig::from_sources(None, [], flags).unwrap_or_else(|e| panic!("{e}"));
        let config = NodeConfig {
            segment_bytes: t.segment_bytes,
            cache_bytes: t.cache_bytes,
            retention_floor_ms: t.retention_floor_ms,
            trim_every_ms: t.trim_every_ms,
            forget_grace_ms: t.forget_grace_ms,
            metrics_listen: None,
            ..config
        };
        let purpose = format!("disk of {number}");
        let machine = Machine {
            host,
            zone,
            disk: SimDisk::new(Rng::of(self.seed, &purpose).u64()),
            wall: self.wall_clock(),
            index: Arc::new(OrderedIndex::crashable()),
            process: None,
            gave_up: None,
            config,
            starts: 0,
            powered: true,
            left: None,
        };
        self.machines().insert(number, machine);
    }

    /// A right wall clock.
    pub fn wall_clock(&self) -> WallClock {
        let executor = self.executor.clone();
        WallClock::running_for(EPOCH_MS, move || Duration::from_nanos(executor.now()))
    }

    /// The simulator's own seams: process 0, with a right clock and no disk.
    pub fn seams_of_the_simulator(&self) -> Seams {
        Seams::real().with_host(self.network.interface(HostId(u32::MAX), Pid(0))).with_seed(self.seed ^ 0xface)
    }

    pub fn machines(&self) -> MutexGuard<'_, BTreeMap<u64, Machine>> {
        locked(&self.machines)
    }

    /// Every node's id.
    pub fn nodes(&self) -> Vec<u64> {
        self.machines().keys().copied().collect()
    }

    /// Where clients find every node.
    pub fn endpoints(&self) -> Vec<String> {
        self.machines().values().map(|m| m.config.client_advertise.clone()).collect()
    }

    /// Scraps the machines when all is over: their disks' hooks hold those who hold the machines.
    pub fn clear(&self) {
        let machines = std::mem::take(&mut *self.machines());
        drop(machines);
    }

    /// The running node, if it listens.
    pub fn node(&self, number: u64) -> Option<Arc<Node>> {
        let process = self.machines().get(&number)?.process.clone()?;
        locked(&process.node).clone()
    }

    /// Where clients find these nodes.
    pub fn endpoints_of(&self, nodes: &[u64]) -> Vec<String> {
        let machines = self.machines();
        nodes.iter().map(|n| machines[n].config.client_advertise.clone()).collect()
    }

    /// A machine with an empty disk and a new id, in the zone of the one it is to replace.
    pub fn add_successor(&self, old: u64, new: u64) {
        let zone = self.machines()[&old].zone;
        self.add_machine(new, zone, &self.seeds.clone());
    }

    /// Starts the node on machine `number`, unless it runs; gives its process.
    pub fn start(&self, number: u64) -> Option<Pid> {
        let mut machines = self.machines();
        let machine = machines.get_mut(&number).expect("a machine");
        if machine.process.is_some() {
            return None;
        }
        match machine.left.take() {
            Some((Crash::Killed, _)) => machine.disk.thaw(),
            Some((Crash::PowerLost, survive)) => {
                machine.disk.restart(survive);
                machine.index.crash();
            }
            None => {}
        }
        machine.starts += 1;
        machine.gave_up = None;
        if !machine.powered {
            machine.powered = true;
            self.network.power_back(machine.host);
        }
        // A machine's monotonic clock starts anywhere.
        let mut rng = Rng::of(self.seed, &format!("start {} of {number}", machine.starts));
        let pid = self.executor.new_process(Duration::from_secs(rng.below(1_000_000)));
        let seams = Seams::real()
            .with_disk(&machine.disk)
            .with_seed(rng.u64())
            .with_wall_clock(&machine.wall)
            .with_host(self.network.interface(machine.host, pid));
        let (stop, stopping) = watch::channel(false);
        let node = Arc::new(Mutex::new(None));
        machine.process = Some(Process { pid, node: node.clone(), seams: seams.clone(), stop });
        let (config, index) = (machine.config.clone(), machine.index.clone());
        drop(machines);
        let (world, own) = (self.clone(), seams.clone());
        let main = async move {
            let why = run_node(config, index, node, stopping).await;
            world.ended(number, pid, why);
        };
        self.executor.spawn(pid, own, Box::pin(main));
        Some(pid)
    }

    /// A process ended by itself.
    fn ended(&self, number: u64, pid: Pid, why: Option<String>) {
        let mut machines = self.machines();
        let machine = machines.get_mut(&number).expect("a machine");
        if machine.process.as_ref().is_none_or(|p| p.pid != pid) {
            return;
        }
        let process = machine.process.take();
        machine.gave_up = Some(why.unwrap_or_else(|| STOPPED.into()));
        machine.disk.kill_process();
        drop(machines);
        self.network.process_killed(pid);
        self.executor.kill(pid);
        drop(process);
    }

    /// Ends a node at once. With the power, what was not synced is at `survive`'s mercy.
    pub fn crash(&self, number: u64, how: Crash, survive: Survive) {
        let mut machines = self.machines();
        let machine = machines.get_mut(&number).expect("a machine");
        let process = machine.process.take();
        // Disk and network first: what the tasks' destructors do must not be saved.
        machine.disk.power_cut();
        match how {
            Crash::Killed => {}
            Crash::PowerLost => {
                machine.powered = false;
                self.network.power_lost(machine.host);
            }
        }
        if let Some(process) = &process {
            if how == Crash::Killed {
                self.network.process_killed(process.pid);
            }
            self.executor.kill(process.pid);
        }
        // What is left of the disk is decided at the next start: a task that is in its last poll must not
        // find it powered. Losing power after being killed loses more.
        let before = machine.left.take();
        machine.left = Some(match (before, how) {
            (Some((Crash::PowerLost, survive)), Crash::Killed) => (Crash::PowerLost, survive),
            _ => (how, survive),
        });
        drop(machines);
        // The node goes once nothing polls its tasks any more.
        self.executor.call_at(self.executor.now(), move || drop(process));
    }

    /// Asks a node to stop in good order.
    pub fn stop(&self, number: u64) {
        if let Some(process) = &self.machines()[&number].process {
            process.stop.send_replace(true);
        }
    }
}

/// A node's whole life, as the `braid node` command leads it. Why it gave up; `None` when it was told to.
async fn run_node(
    config: NodeConfig,
    index: Arc<OrderedIndex>,
    slot: Arc<Mutex<Option<Arc<Node>>>>,
    mut stopping: watch::Receiver<bool>,
) -> Option<String> {
    let listeners = async {
        Ok::<_, std::io::Error>(Listeners {
            peer: net::listen(config.peer_listen).await?,
            client: net::listen(config.client_listen).await?,
        })
    };
    let listeners = match listeners.await {
        Ok(listeners) => listeners,
        Err(e) => return Some(e.to_string()),
    };
    let node = match Node::start_with(config, listeners, Some(index)).await {
        Ok(node) => Arc::new(node),
        Err(e) => return Some(e.to_string()),
    };
    *locked(&slot) = Some(node.clone());
    let outcome = {
        let failed = std::pin::pin!(node.failed());
        let stop = std::pin::pin!(stopping.wait_for(|stop| *stop));
        match select(failed, stop).await {
            Either::Left((why, _)) => Some(why),
            Either::Right(_) => None,
        }
    };
    *locked(&slot) = None;
    if let Some(node) = Arc::into_inner(node) {
        node.shutdown().await;
    }
    outcome
}

fn zone_name(zone: usize) -> String {
    format!("zone-{}", ["a", "b", "c"][zone])
}

fn seed_text(number: u64, zone: usize) -> String {
    let address = |port| SocketAddr::new(ip(zone, number), port);
    format!("id={number},zone={},peer={},client={}", zone_name(zone), address(PEER_PORT), address(CLIENT_PORT))
}

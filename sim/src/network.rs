//! The network between simulated hosts: connections that carry streams of packets, as TCP would.
//!
//! ```text
//!   send ─▶ delay of the link, bandwidth, retransmissions ─▶ in order ─▶ the other end's stream
//!                             └ link cut: held, and sent again once it is mended
//!                                └ held for too long: the sender's end breaks
//! ```
//!
//! Invariant: what arrives on a connection arrives once and in order, or not at all. A lost packet is a
//! delay, since TCP sends it again; a cut link is silence; a host without power is silence until it is back,
//! and answers with a reset then; a process that was killed answers with a reset at once.
//!
//! It knows nothing of calls or nodes.

mod host;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use braid_env::host::{Host, Packet};

use self::host::Interface;
use crate::executor::{Executor, Nanos, Pid};
use crate::rng::Rng;

/// A machine: it has an address, a power switch, and at most one process at a time that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u32);

/// Bytes one stream may have under way before its sender has to wait.
const WINDOW: usize = 4 << 20;

/// The first retransmission; each further one takes twice as long.
const RETRANSMIT: Nanos = 200_000_000;

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Nothing gets through.
    pub cut: bool,
    /// The least that a packet takes.
    pub delay: Duration,
    /// And up to this more.
    pub jitter: Duration,
    /// Packets in a thousand that are lost, and sent again later.
    pub loss_per_mille: u64,
    /// Packets in a thousand that overtake none and are overtaken: those behind wait for them.
    pub reorder_per_mille: u64,
    /// Packets in a thousand that arrive twice; the second one is thrown away.
    pub duplicate_per_mille: u64,
    /// Bytes a second; 0: as many as there are.
    pub bandwidth: u64,
}

impl Link {
    /// A link of a healthy network.
    pub fn healthy(delay: Duration) -> Link {
        Link {
            cut: false,
            delay,
            jitter: delay / 4,
            loss_per_mille: 0,
            reorder_per_mille: 0,
            duplicate_per_mille: 0,
            bandwidth: 0,
        }
    }
}

/// How often each fault took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// Packets delivered.
    pub packets: u64,
    /// Packets that were lost and sent again.
    pub lost: u64,
    /// Packets that came out of order.
    pub reordered: u64,
    /// Packets that came twice.
    pub duplicated: u64,
    /// Packets that met a cut link.
    pub held: u64,
    /// Packets that waited for bandwidth.
    pub trickled: u64,
    /// Connections that broke because nothing got through for too long.
    pub timed_out: u64,
    /// Connections reset by the other end.
    pub reset: u64,
    /// Connections that lost their other end without a word.
    pub half_open: u64,
    /// Packets that arrived after their sender had given up.
    pub stale: u64,
    /// Connections made.
    pub connected: u64,
    /// Connections refused.
    pub refused: u64,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Network {
    executor: Executor,
    net: Arc<Mutex<Net>>,
}

struct Net {
    rng: Rng,
    hosts: BTreeMap<HostId, Machine>,
    links: BTreeMap<(HostId, HostId), Link>,
    listeners: BTreeMap<SocketAddr, Listener>,
    connections: BTreeMap<u64, Conn>,
    next_connection: u64,
    counters: NetworkCounters,
}

struct Machine {
    powered: bool,
    ip: std::net::IpAddr,
}

struct Listener {
    pid: Pid,
    host: HostId,
    waiting: VecDeque<u64>,
    waker: Option<Waker>,
}

/// A connection; side 0 made it, side 1 accepted it.
struct Conn {
    ends: [End; 2],
    /// What is under way to each side.
    ways: [Way; 2],
    streams: BTreeMap<u64, Stream>,
    next_stream: u64,
    /// No packet gets through, in either direction, and nobody is told.
    black_hole: bool,
}

struct End {
    host: HostId,
    pid: Pid,
    state: EndState,
    /// Streams the other side opened, not taken yet.
    opened: VecDeque<u64>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndState {
    Open,
    /// Closed by its owner, or broken; the process knows.
    Closed,
    /// Its process was killed, or its machine lost power: nobody is there.
    Gone,
}

#[derive(Default)]
struct Way {
    /// When the last packet sent so far arrives.
    last_arrival: Nanos,
    held: VecDeque<Event>,
    /// Since when something is held.
    held_since: Option<Nanos>,
}

/// One stream of a connection; index 0 is what side 0 receives.
struct Stream {
    halves: [Half; 2],
}

#[derive(Default)]
struct Half {
    queue: VecDeque<Packet>,
    /// The other side sends no more.
    finished: bool,
    broken: Option<&'static str>,
    /// Bytes sent to here and not taken yet, on the way ones included.
    bytes: usize,
    reader: Option<Waker>,
    breaker: Option<Waker>,
    writer: Option<Waker>,
    /// The receiver or the sender of this half is gone.
    receiver_dropped: bool,
    sender_dropped: bool,
}

enum Event {
    Open { stream: u64 },
    Packet { stream: u64, packet: Packet },
    Finish { stream: u64 },
    Reset { stream: u64 },
    Close,
}

impl Event {
    fn bytes(&self) -> usize {
        match self {
            Event::Packet { packet, .. } => packet.bytes,
            _ => 16,
        }
    }
}

fn other(side: usize) -> usize {
    1 - side
}

impl Network {
    /// A network without hosts.
    pub fn new(executor: Executor, seed: u64) -> Network {
        let net = Net {
            rng: Rng::of(seed, "network"),
            hosts: BTreeMap::new(),
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            counters: NetworkCounters::default(),
        };
        Network { executor, net: Arc::new(Mutex::new(net)) }
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new machine with the address `ip`, powered.
    pub fn add_host(&self, ip: std::net::IpAddr) -> HostId {
        let mut net = self.net();
        let id = HostId(net.hosts.len() as u32);
        net.hosts.insert(id, Machine { powered: true, ip });
        id
    }

    /// What stands in for the world for process `pid` on `host`.
    pub fn interface(&self, host: HostId, pid: Pid) -> Arc<dyn Host> {
        Arc::new(Interface { network: self.clone(), host, pid })
    }

    /// Sets a link; what was held goes on its way if it is not cut any more.
    pub fn set_link(&self, from: HostId, to: HostId, link: Link) {
        let was_cut = self.net().links.insert((from, to), link).is_some_and(|before| before.cut);
        if was_cut && !link.cut {
            self.mend(from, to);
        }
    }

    /// A link as it is.
    pub fn link(&self, from: HostId, to: HostId) -> Link {
        self.net().link(from, to)
    }

    /// How often each fault took effect.
    pub fn counters(&self) -> NetworkCounters {
        self.net().counters
    }

    /// The process on `host` was killed: the operating system resets its connections.
    pub fn process_killed(&self, pid: Pid) {
        let mut net = self.net();
        net.listeners.retain(|_, listener| listener.pid != pid);
        let mut resets = Vec::new();
        for (&id, conn) in &mut net.connections {
            for side in 0..2 {
                if conn.ends[side].pid == pid && conn.ends[side].state != EndState::Gone {
                    let was_open = conn.ends[side].state == EndState::Open;
                    conn.ends[side].state = EndState::Gone;
                    if was_open {
                        resets.push((id, other(side)));
                    }
                }
            }
        }
        drop(net);
        for (id, side) in resets {
            self.send_reset(id, side);
        }
    }

    /// The power of `host` is gone: nobody is told.
    pub fn power_lost(&self, host: HostId) {
        let mut net = self.net();
        if let Some(machine) = net.hosts.get_mut(&host) {
            machine.powered = false;
        }
        net.listeners.retain(|_, listener| listener.host != host);
        let mut half_open = 0;
        for conn in net.connections.values_mut() {
            for side in 0..2 {
                if conn.ends[side].host == host && conn.ends[side].state != EndState::Gone {
                    conn.ends[side].state = EndState::Gone;
                    half_open += 1;
                }
            }
        }
        net.counters.half_open += half_open;
    }

    /// The power of `host` is back; what others send to connections it knows nothing of is answered
    /// with a reset.
    pub fn power_back(&self, host: HostId) {
        let sides: Vec<(u64, usize)> = {
            let mut net = self.net();
            if let Some(machine) = net.hosts.get_mut(&host) {
                machine.powered = true;
            }
            let to_it = |conn: &Conn, side: usize| conn.ends[side].host == host && !conn.ways[side].held.is_empty();
            net.connections
                .iter()
                .flat_map(|(&id, conn)| {
                    (0..2).filter(|&side| to_it(conn, side)).map(move |side| (id, side)).collect::<Vec<_>>()
                })
                .collect()
        };
        for (id, side) in sides {
            self.flush_later(id, side);
        }
    }

    /// Makes some of the connections between two hosts lead nowhere, without a word to either end.
    pub fn half_open(&self, a: HostId, b: HostId) -> u64 {
        let mut net = self.net();
        let mut count = 0;
        for conn in net.connections.values_mut() {
            let between = (conn.ends[0].host, conn.ends[1].host);
            let open = conn.ends.iter().all(|end| end.state == EndState::Open);
            if (between == (a, b) || between == (b, a)) && open && !conn.black_hole {
                conn.black_hole = true;
                count += 1;
            }
        }
        net.counters.half_open += count;
        count
    }

    /// Resets the connections between two hosts, as a router may.
    pub fn reset_between(&self, a: HostId, b: HostId) -> u64 {
        self.reset(|conn| {
            let hosts = (conn.ends[0].host, conn.ends[1].host);
            hosts == (a, b) || hosts == (b, a)
        })
    }

    fn reset(&self, which: impl Fn(&Conn) -> bool) -> u64 {
        let ids: Vec<u64> = self.net().connections.iter().filter(|(_, conn)| which(conn)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.break_end(*id, 0, "connection reset");
            self.break_end(*id, 1, "connection reset");
        }
        self.net().counters.reset += ids.len() as u64;
        ids.len() as u64
    }

    // Sending.

    /// Puts an event on its way to `side` of connection `id`.
    fn send(&self, id: u64, side: usize, event: Event) {
        let mut net = self.net();
        let now = self.executor.now();
        let Some(conn) = net.connections.get(&id) else { return };
        let (from, to) = (conn.ends[other(side)].host, conn.ends[side].host);
        let link = net.link(from, to);
        let arrival = now + net.travel(&link, event.bytes());
        let conn = net.connections.get_mut(&id).expect("looked at above");
        let way = &mut conn.ways[side];
        // In order: nothing overtakes.
        way.last_arrival = arrival.max(way.last_arrival);
        let when = way.last_arrival;
        drop(net);
        let network = self.clone();
        self.executor.call_at(when, move || network.arrive(id, side, event));
    }

    /// An event reaches the host of `side`, or would have.
    fn arrive(&self, id: u64, side: usize, event: Event) {
        let now = self.executor.now();
        let mut net = self.net();
        let Some(conn) = net.connections.get(&id) else { return };
        let (from, to) = (conn.ends[other(side)].host, conn.ends[side].host);
        let black_hole = conn.black_hole;
        let blocked = net.link(from, to).cut || !net.hosts[&to].powered || black_hole;
        let conn = net.connections.get_mut(&id).expect("looked at above");
        let way = &mut conn.ways[side];
        if blocked || !way.held.is_empty() {
            let first = way.held.is_empty();
            way.held.push_back(event);
            way.held_since.get_or_insert(now);
            net.counters.held += 1;
            if first {
                // A black hole lasts as long as Linux retransmits by default: whoever relies on it must notice before.
                let seconds = if black_hole { 60..=900 } else { 8..=30 };
                let patience = net.rng.within(seconds) * 1_000_000_000 + net.rng.below(1_000_000_000);
                drop(net);
                let network = self.clone();
                self.executor.call_at(now + patience, move || network.give_up(id, side, now));
            }
            return;
        }
        drop(net);
        self.deliver(id, side, event);
    }

    /// Nothing got through to `side` since `since`: the other end's kernel gives up.
    fn give_up(&self, id: u64, side: usize, since: Nanos) {
        let mut net = self.net();
        let Some(conn) = net.connections.get(&id) else { return };
        if conn.ways[side].held_since != Some(since) {
            return;
        }
        net.counters.timed_out += 1;
        // What was on its way when the sender gave up may still get there, or not.
        if net.rng.chance(500) {
            let conn = net.connections.get_mut(&id).expect("looked at above");
            conn.ways[side].held.clear();
            conn.ways[side].held.push_back(Event::Close);
        }
        drop(net);
        self.break_end(id, other(side), "connection timed out");
    }

    fn mend(&self, from: HostId, to: HostId) {
        let sides: Vec<(u64, usize)> = {
            let net = self.net();
            let held = |conn: &Conn, side: usize| {
                conn.ends[other(side)].host == from && conn.ends[side].host == to && !conn.ways[side].held.is_empty()
            };
            net.connections
                .iter()
                .flat_map(|(&id, conn)| {
                    (0..2).filter(|&side| held(conn, side)).map(move |side| (id, side)).collect::<Vec<_>>()
                })
                .collect()
        };
        for (id, side) in sides {
            self.flush_later(id, side);
        }
    }

    /// At the sender's next retransmission, what is held goes through.
    fn flush_later(&self, id: u64, side: usize) {
        let wait = self.net().rng.below(1_000_000_000);
        let network = self.clone();
        self.executor.call_at(self.executor.now() + wait, move || network.flush(id, side));
    }

    fn flush(&self, id: u64, side: usize) {
        let held = {
            let mut net = self.net();
            let Some(conn) = net.connections.get(&id) else { return };
            let (from, to) = (conn.ends[other(side)].host, conn.ends[side].host);
            if net.link(from, to).cut || !net.hosts[&to].powered || conn.black_hole {
                return;
            }
            let given_up = conn.ends[other(side)].state != EndState::Open;
            let conn = net.connections.get_mut(&id).expect("looked at above");
            conn.ways[side].held_since = None;
            let held = std::mem::take(&mut conn.ways[side].held);
            if given_up {
                net.counters.stale += held.len() as u64;
            }
            held
        };
        for event in held {
            self.deliver(id, side, event);
        }
    }

    /// An event is there.
    fn deliver(&self, id: u64, side: usize, event: Event) {
        let mut wake = Vec::new();
        let mut net = self.net();
        let mut trace = id << 1 | side as u64;
        let Some(conn) = net.connections.get_mut(&id) else { return };
        match conn.ends[side].state {
            EndState::Open => {}
            EndState::Closed => return,
            EndState::Gone => {
                // Nobody knows this connection here.
                drop(net);
                self.send_reset(id, other(side));
                return;
            }
        }
        match event {
            Event::Open { stream } => {
                conn.ends[side].opened.push_back(stream);
                wake.extend(conn.ends[side].waker.take());
            }
            Event::Packet { stream, packet } => {
                trace ^= packet.digest.rotate_left(7) ^ (packet.bytes as u64) << 32;
                if let Some(half) = conn.half(stream, side) {
                    if half.receiver_dropped || half.broken.is_some() {
                        half.bytes = half.bytes.saturating_sub(packet.bytes);
                    } else {
                        half.queue.push_back(packet);
                        wake.extend(half.reader.take());
                    }
                }
                net.counters.packets += 1;
            }
            Event::Finish { stream } => {
                if let Some(half) = conn.half(stream, side) {
                    half.finished = true;
                    wake.extend(half.reader.take());
                }
                conn.forget_if_over(stream);
            }
            Event::Reset { stream } => {
                conn.break_stream(stream, side, "stream reset by the other end", &mut wake);
                conn.forget_if_over(stream);
            }
            Event::Close => conn.close_end(side, "connection closed by the other end", &mut wake),
        }
        net.forget_if_over(id);
        drop(net);
        self.executor.trace(trace);
        wake.into_iter().for_each(Waker::wake);
    }

    /// A reset gets on its way to `side`: not through a cut link.
    fn send_reset(&self, id: u64, side: usize) {
        let mut net = self.net();
        let Some(conn) = net.connections.get(&id) else { return };
        if conn.ends[side].state != EndState::Open || conn.black_hole {
            return;
        }
        let (from, to) = (conn.ends[other(side)].host, conn.ends[side].host);
        let link = net.link(from, to);
        if link.cut || !net.hosts[&to].powered || !net.hosts[&from].powered {
            return;
        }
        net.counters.reset += 1;
        let when = self.executor.now() + net.travel(&link, 16);
        drop(net);
        let network = self.clone();
        self.executor.call_at(when, move || network.break_end(id, side, "connection reset by the other end"));
    }

    fn break_end(&self, id: u64, side: usize, why: &'static str) {
        let mut wake = Vec::new();
        let mut net = self.net();
        let Some(conn) = net.connections.get_mut(&id) else { return };
        conn.close_end(side, why, &mut wake);
        net.forget_if_over(id);
        drop(net);
        wake.into_iter().for_each(Waker::wake);
    }

    /// What a stream's owner asks of its half.
    fn with_half<T>(&self, id: u64, stream: u64, side: usize, what: impl FnOnce(&mut Half) -> T) -> Option<T> {
        let mut net = self.net();
        net.connections.get_mut(&id)?.half(stream, side).map(what)
    }
}

impl Net {
    fn link(&self, from: HostId, to: HostId) -> Link {
        if from == to {
            return Link::healthy(Duration::from_micros(20));
        }
        self.links.get(&(from, to)).copied().unwrap_or(Link::healthy(Duration::from_micros(500)))
    }

    /// How long so many bytes take over a link, with all that befalls them.
    fn travel(&mut self, link: &Link, bytes: usize) -> Nanos {
        let mut takes = link.delay.as_nanos() as Nanos + self.rng.below(link.jitter.as_nanos() as u64 + 1);
        if let Some(sending) = (bytes as u64 * 1_000_000_000).checked_div(link.bandwidth) {
            takes += sending;
            self.counters.trickled += 1;
        }
        if link.loss_per_mille > 0 {
            let mut again = RETRANSMIT;
            while again < 4_000_000_000 && self.rng.chance(link.loss_per_mille) {
                self.counters.lost += 1;
                takes += again;
                again *= 2;
            }
        }
        if link.reorder_per_mille > 0 && self.rng.chance(link.reorder_per_mille) {
            self.counters.reordered += 1;
            takes += self.rng.below(10_000_000);
        }
        if link.duplicate_per_mille > 0 && self.rng.chance(link.duplicate_per_mille) {
            self.counters.duplicated += 1;
        }
        takes
    }

    /// A connection that neither end knows any more.
    fn forget_if_over(&mut self, id: u64) {
        let over = self.connections.get(&id).is_some_and(|c| c.ends.iter().all(|end| end.state != EndState::Open));
        // What is still on its way to nobody finds nothing.
        if over && self.connections[&id].ways.iter().all(|way| way.held.is_empty()) {
            self.connections.remove(&id);
        }
    }
}

impl Conn {
    fn half(&mut self, stream: u64, side: usize) -> Option<&mut Half> {
        self.streams.get_mut(&stream).map(|stream| &mut stream.halves[side])
    }

    /// Breaks a stream as `side` sees it: what it receives and what it sends.
    fn break_stream(&mut self, stream: u64, side: usize, why: &'static str, wake: &mut Vec<Waker>) {
        let Some(stream) = self.streams.get_mut(&stream) else { return };
        let half = &mut stream.halves[side];
        if half.broken.is_none() {
            half.broken = Some(why);
        }
        wake.extend(half.reader.take());
        wake.extend(half.breaker.take());
        // The writer of the other direction is this side's, too.
        wake.extend(stream.halves[other(side)].writer.take());
    }

    fn close_end(&mut self, side: usize, why: &'static str, wake: &mut Vec<Waker>) {
        if self.ends[side].state != EndState::Open {
            return;
        }
        self.ends[side].state = EndState::Closed;
        wake.extend(self.ends[side].waker.take());
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        for stream in streams {
            self.break_stream(stream, side, why, wake);
        }
    }

    /// A stream that nobody reads or writes any more.
    fn forget_if_over(&mut self, stream: u64) {
        let over = self
            .streams
            .get(&stream)
            .is_some_and(|s| s.halves.iter().all(|h| h.receiver_dropped && (h.sender_dropped || h.broken.is_some())));
        if over {
            self.streams.remove(&stream);
        }
    }
}

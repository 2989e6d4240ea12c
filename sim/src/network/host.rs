//! A process's side of the network: what it binds, connects, sends and receives.
//!
//! Invariant: what a dropped end leaves behind is told to the other end, unless the process was killed or the power is
//! off: then the network answers in its place.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use braid_env::host::{Acceptor, Connecting, Connection, Host, Job, Packet, Pipe, Receiver, Sender};
use braid_env::seam::Seams;
use braid_env::time;

use super::{Conn, End, EndState, Event, Half, HostId, Listener, Net, Network, Stream, WINDOW, Way, other};
use crate::executor::Pid;

/// One process's way to the network and to the executor.
pub(super) struct Interface {
    pub network: Network,
    pub host: HostId,
    pub pid: Pid,
}

impl Host for Interface {
    fn spawn(&self, seams: Seams, job: Job) -> u64 {
        self.network.executor.spawn(self.pid, seams, job)
    }

    fn abort(&self, task: u64) {
        self.network.executor.abort(task);
    }

    fn panicked(&self, why: &str) {
        self.network.executor.panicked(self.pid, why);
    }

    fn now(&self) -> Duration {
        self.network.executor.clock(self.pid)
    }

    fn set_timer(&self, at: Duration, waker: Waker) -> u64 {
        self.network.executor.set_timer(self.pid, at, waker)
    }

    fn cancel_timer(&self, timer: u64) {
        self.network.executor.cancel_timer(timer);
    }

    fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let mut net = self.network.net();
        if net.hosts[&self.host].ip != address.ip() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if net.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listener = Listener { pid: self.pid, host: self.host, waiting: VecDeque::new(), waker: None };
        net.listeners.insert(address, listener);
        Ok(Box::new(Bound { network: self.network.clone(), address, pid: self.pid }))
    }

    fn connect(&self, address: &str) -> Connecting {
        let (network, host, pid) = (self.network.clone(), self.host, self.pid);
        let address = address.parse::<SocketAddr>();
        Box::pin(async move {
            let address = address.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
            network.handshake(host, pid, address).await
        })
    }
}

impl Network {
    /// What TCP does before a connection is there. Never ends while nothing gets through.
    async fn handshake(&self, from: HostId, pid: Pid, address: SocketAddr) -> io::Result<Box<dyn Connection>> {
        let target = self.net().hosts.iter().find(|(_, m)| m.ip == address.ip()).map(|(id, _)| *id);
        let Some(to) = target else { return Err(io::ErrorKind::HostUnreachable.into()) };
        let mut again = Duration::from_secs(1);
        loop {
            self.cross(from, to).await;
            let reached = !self.link(from, to).cut && self.net().hosts[&to].powered;
            if reached {
                let made = self.accept_at(from, pid, to, address);
                self.cross(to, from).await;
                // A handshake's answer that is lost is sent again like everything else.
                while self.link(to, from).cut {
                    time::sleep(again).await;
                }
                return match made {
                    Some(end) => Ok(Box::new(end)),
                    None => {
                        self.net().counters.refused += 1;
                        Err(io::ErrorKind::ConnectionRefused.into())
                    }
                };
            }
            time::sleep(again).await;
            again = (again * 2).min(Duration::from_secs(8));
        }
    }

    async fn cross(&self, from: HostId, to: HostId) {
        let takes = {
            let mut net = self.net();
            let link = net.link(from, to);
            net.travel(&link, 60)
        };
        time::sleep(Duration::from_nanos(takes)).await;
    }

    fn accept_at(&self, from: HostId, pid: Pid, to: HostId, address: SocketAddr) -> Option<ConnEnd> {
        let mut net = self.net();
        let there = net.listeners.get(&address)?.pid;
        let id = net.next_connection;
        net.next_connection += 1;
        let end = |host, pid| End { host, pid, state: EndState::Open, opened: VecDeque::new(), waker: None };
        let conn = Conn {
            ends: [end(from, pid), end(to, there)],
            ways: [Way::default(), Way::default()],
            streams: BTreeMap::new(),
            next_stream: 1,
            black_hole: false,
        };
        net.connections.insert(id, conn);
        net.counters.connected += 1;
        let listener = net.listeners.get_mut(&address).expect("looked at above");
        listener.waiting.push_back(id);
        let waker = listener.waker.take();
        drop(net);
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(ConnEnd { network: self.clone(), id, side: 0 })
    }
}

/// A listening socket.
struct Bound {
    pub network: Network,
    address: SocketAddr,
    pub pid: Pid,
}

impl Acceptor for Bound {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        let mut net = self.network.net();
        let Some(listener) = net.listeners.get_mut(&self.address).filter(|l| l.pid == self.pid) else {
            return Poll::Pending; // this process is being killed
        };
        match listener.waiting.pop_front() {
            Some(id) => Poll::Ready(Ok(Box::new(ConnEnd { network: self.network.clone(), id, side: 1 }))),
            None => {
                listener.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut net = self.network.net();
        if net.listeners.get(&self.address).is_some_and(|l| l.pid == self.pid) {
            let waiting = net.listeners.remove(&self.address).map(|l| l.waiting).unwrap_or_default();
            drop(net);
            for id in waiting {
                drop(ConnEnd { network: self.network.clone(), id, side: 1 });
            }
        }
    }
}

/// One end of a connection.
struct ConnEnd {
    pub network: Network,
    id: u64,
    side: usize,
}

impl Connection for ConnEnd {
    fn open(&self) -> io::Result<Pipe> {
        let stream = {
            let mut net = self.network.net();
            let conn = net.connections.get_mut(&self.id).filter(|c| c.ends[self.side].state == EndState::Open);
            let conn = conn.ok_or(io::ErrorKind::NotConnected)?;
            let stream = conn.next_stream;
            conn.next_stream += 1;
            conn.streams.insert(stream, Stream { halves: [Half::default(), Half::default()] });
            stream
        };
        self.network.send(self.id, other(self.side), Event::Open { stream });
        Ok(self.pipe(stream))
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Pipe>> {
        let mut net = self.network.net();
        let Some(conn) = net.connections.get_mut(&self.id) else { return Poll::Ready(None) };
        let end = &mut conn.ends[self.side];
        if let Some(stream) = end.opened.pop_front() {
            return Poll::Ready(Some(self.pipe(stream)));
        }
        if end.state != EndState::Open {
            return Poll::Ready(None);
        }
        end.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl ConnEnd {
    fn pipe(&self, stream: u64) -> Pipe {
        let (network, id, side) = (self.network.clone(), self.id, self.side);
        Pipe {
            tx: Box::new(Tx { network: network.clone(), id, stream, side }),
            rx: Box::new(Rx { network, id, stream, side, over: false }),
        }
    }
}

impl Drop for ConnEnd {
    /// Closed in good order: the streams that are open go on until they are over, as in HTTP/2; here they
    /// hold the connection themselves, so only new ones end.
    fn drop(&mut self) {
        let idle = {
            let mut net = self.network.net();
            match net.connections.get_mut(&self.id) {
                Some(conn) => conn.ends[self.side].state == EndState::Open && conn.streams.is_empty(),
                None => false,
            }
        };
        if idle {
            self.network.send(self.id, other(self.side), Event::Close);
            self.network.break_end(self.id, self.side, "connection closed");
        }
    }
}

/// The sending half of a stream: it writes what the other side reads.
struct Tx {
    pub network: Network,
    id: u64,
    stream: u64,
    side: usize,
}

impl Tx {
    fn is_open(net: &mut Net, id: u64, stream: u64, side: usize) -> Result<&mut Stream, &'static str> {
        let conn = net.connections.get_mut(&id).ok_or("connection closed")?;
        if conn.ends[side].state != EndState::Open {
            return Err("connection closed");
        }
        let stream = conn.streams.get_mut(&stream).ok_or("stream closed")?;
        match stream.halves[side].broken {
            Some(why) => Err(why),
            None => Ok(stream),
        }
    }
}

impl Sender for Tx {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut net = self.network.net();
        match Tx::is_open(&mut net, self.id, self.stream, self.side) {
            Err(why) => Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, why))),
            Ok(stream) => {
                let half = &mut stream.halves[other(self.side)];
                if half.bytes < WINDOW {
                    return Poll::Ready(Ok(()));
                }
                half.writer = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn send(&mut self, packet: Packet) {
        {
            let mut net = self.network.net();
            let Ok(stream) = Tx::is_open(&mut net, self.id, self.stream, self.side) else { return };
            stream.halves[other(self.side)].bytes += packet.bytes;
        }
        self.network.send(self.id, other(self.side), Event::Packet { stream: self.stream, packet });
    }

    fn reset(&mut self) {
        self.network.send(self.id, other(self.side), Event::Reset { stream: self.stream });
        let mut wake = Vec::new();
        if let Some(conn) = self.network.net().connections.get_mut(&self.id) {
            conn.break_stream(self.stream, self.side, "stream reset by this end", &mut wake);
        }
        wake.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let open = {
            let mut net = self.network.net();
            let open = Tx::is_open(&mut net, self.id, self.stream, self.side).is_ok();
            if let Some(conn) = net.connections.get_mut(&self.id) {
                if let Some(half) = conn.half(self.stream, other(self.side)) {
                    half.sender_dropped = true;
                }
                conn.forget_if_over(self.stream);
            }
            open
        };
        if open {
            self.network.send(self.id, other(self.side), Event::Finish { stream: self.stream });
        }
    }
}

/// The receiving half of a stream.
struct Rx {
    pub network: Network,
    id: u64,
    stream: u64,
    side: usize,
    /// The end, or an error, was given out.
    over: bool,
}

impl Receiver for Rx {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Packet>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let broken = |why| Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, why)));
        let mut writer = None;
        let outcome = self.network.with_half(self.id, self.stream, self.side, |half| {
            if let Some(packet) = half.queue.pop_front() {
                half.bytes = half.bytes.saturating_sub(packet.bytes);
                writer = half.writer.take();
                return Poll::Ready(Some(Ok(packet)));
            }
            if half.finished {
                return Poll::Ready(None);
            }
            if let Some(why) = half.broken {
                return Poll::Ready(broken(why));
            }
            half.reader = Some(cx.waker().clone());
            Poll::Pending
        });
        if let Some(writer) = writer {
            writer.wake();
        }
        let outcome = outcome.unwrap_or_else(|| Poll::Ready(broken("connection closed")));
        self.over = matches!(outcome, Poll::Ready(None | Some(Err(_))));
        outcome
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let broken = self.network.with_half(self.id, self.stream, self.side, |half| {
            if half.broken.is_some() {
                return true;
            }
            half.breaker = Some(cx.waker().clone());
            false
        });
        if broken.unwrap_or(true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Rx {
    fn drop(&mut self) {
        let mut writer = None;
        let early = {
            let mut net = self.network.net();
            let Some(conn) = net.connections.get_mut(&self.id) else { return };
            let open = conn.ends[self.side].state == EndState::Open;
            let early = conn.half(self.stream, self.side).is_some_and(|half| {
                half.receiver_dropped = true;
                half.queue.clear();
                half.bytes = 0;
                writer = half.writer.take();
                open && !half.finished && half.broken.is_none()
            });
            conn.forget_if_over(self.stream);
            early
        };
        if let Some(writer) = writer {
            writer.wake();
        }
        if early {
            self.network.send(self.id, other(self.side), Event::Reset { stream: self.stream });
        }
    }
}

//! What a simulator provides in place of tokio and of the operating system's network.
//!
//! Invariant: `env` asks nothing of the outside world while a host is in place: tasks, timers and
//! connections are the host's, so that whoever implements it decides every order and every delay.
//!
//! Implemented in `sim/`; production never makes one.

use std::any::Any;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A future without a result, as a host runs it.
pub type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One simulated host: a process's tasks, its monotonic clock and its network interface.
pub trait Host: Send + Sync {
    /// Starts a task; it is polled in the seams of whoever called. Gives its id.
    fn spawn(&self, seams: crate::seam::Seams, job: Job) -> u64;

    /// Drops a task, at the latest once it is not being polled any more.
    fn abort(&self, task: u64);

    /// A task panicked; `why` is its message. The process lives on, as with tokio.
    fn panicked(&self, why: &str);

    /// The host's monotonic clock.
    fn now(&self) -> Duration;

    /// Wakes `waker` once [`Host::now`] is at least `at`. Gives the timer's id.
    fn set_timer(&self, at: Duration, waker: Waker) -> u64;

    /// Forgets a timer; does nothing when it is over.
    fn cancel_timer(&self, timer: u64);

    /// Listens on `address`.
    fn bind(&self, address: SocketAddr) -> io::Result<Box<dyn Acceptor>>;

    /// Connects to `host:port`. An error means that no connection was made.
    fn connect(&self, address: &str) -> Connecting;
}

/// A connection being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send>>;

/// A listening socket of a host; stops listening when dropped.
pub trait Acceptor: Send + Sync {
    /// The next connection.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>>;
}

/// One end of a connection that carries any number of two-way streams of packets. All packets of one
/// direction arrive in the order in which they were sent, whatever stream they belong to. Dropping an end
/// closes it in good order.
pub trait Connection: Send + Sync {
    /// A new stream; an error means that the connection is gone and nothing was sent.
    fn open(&self) -> io::Result<Pipe>;

    /// The next stream the other end opened; `None` when the connection is over.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Pipe>>;
}

/// One stream of a connection, as one of its ends sees it.
pub struct Pipe {
    /// The way out.
    pub tx: Box<dyn Sender>,
    /// The way in.
    pub rx: Box<dyn Receiver>,
}

/// What travels: the simulator sees its size and its digest, the receiver its content.
pub struct Packet {
    /// Bytes on the wire.
    pub bytes: usize,
    /// Of the content, for the trace.
    pub digest: u64,
    /// Meant for the receiver.
    pub content: Box<dyn Any + Send>,
}

/// The sending half of a stream. Dropping it ends the stream in this direction, in good order.
pub trait Sender: Send + Sync {
    /// Ready when the flow-control window has room; an error when the stream or its connection is gone.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Sends. What the connection loses afterwards is lost without a word.
    fn send(&mut self, packet: Packet);

    /// Tells the other end that the stream is broken off, both ways.
    fn reset(&mut self);
}

/// The receiving half of a stream. Dropping it before its end breaks the stream off.
pub trait Receiver: Send + Sync {
    /// The next packet; `None` at the end; an error when the other end or the connection broke off.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Packet>>>;

    /// Ready once the other end or the connection broke the stream off.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

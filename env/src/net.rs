//! Sockets: listen, accept, connect.
//!
//! Invariant: Nagle's algorithm is off on every [`Stream`]; whoever writes small frames batches them.
//!
//! Thin on purpose. TLS, HTTP/2 and whatever a gRPC library wants implemented for a connection live with
//! their users. Nothing here has a deadline: `time::timeout` does that.
//!
//! A simulated host has no byte streams but [`crate::host::Connection`]s: whoever serves or dials asks
//! [`Listener::into_simulated`] and [`simulated`] first.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::host::{Acceptor, Host};
use crate::seam;

/// Listens on `addr`; port 0 picks a free one, see [`Listener::local_addr`].
///
/// # Errors
///
/// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` and the like.
pub async fn listen(addr: SocketAddr) -> io::Result<Listener> {
    Ok(Listener(match seam::host() {
        None => Socket::Tcp(TcpListener::bind(addr).await?),
        Some(host) => Socket::Host(addr, host.bind(addr)?),
    }))
}

/// Connects to `host:port`, trying each of the host's addresses in turn.
///
/// # Errors
///
/// The name doesn't resolve, or the last address's error. `Unsupported` on a simulated host.
pub async fn connect(host_port: &str) -> io::Result<Stream> {
    match seam::host() {
        None => Stream::new(TcpStream::connect(host_port).await?),
        Some(_) => Err(no_bytes()),
    }
}

/// The simulated host whose network is used instead of the operating system's, if there is one.
pub fn simulated() -> Option<Arc<dyn Host>> {
    seam::host()
}

/// A listening socket.
pub struct Listener(Socket);

enum Socket {
    Tcp(TcpListener),
    Host(SocketAddr, Box<dyn Acceptor>),
}

impl Listener {
    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Socket::Tcp(listener) => listener.local_addr(),
            Socket::Host(addr, _) => Ok(*addr),
        }
    }

    /// The next connection and who opened it. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// Of one connection (`ConnectionAborted`) or of the process (out of file descriptors); the listener
    /// stays good, so go on after a pause.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Every connection as it comes: what a gRPC server serves. Never ends.
    pub fn incoming(self) -> Incoming {
        Incoming(self)
    }

    /// What a simulated host listens with; itself when it is a real socket.
    pub fn into_simulated(self) -> Result<Box<dyn Acceptor>, Listener> {
        match self.0 {
            Socket::Host(_, acceptor) => Ok(acceptor),
            Socket::Tcp(_) => Err(self),
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        let Socket::Tcp(listener) = &self.0 else { return Poll::Ready(Err(no_bytes())) };
        let (tcp, from) = ready!(listener.poll_accept(cx))?;
        Poll::Ready(Stream::new(tcp).map(|stream| (stream, from)))
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?})", self.local_addr())
    }
}

fn no_bytes() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a simulated host has no byte streams")
}

/// See [`Listener::incoming`].
#[derive(Debug)]
pub struct Incoming(Listener);

impl Incoming {
    /// The address listened on, with the real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl futures_util::Stream for Incoming {
    type Item = io::Result<Stream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_accept(cx).map(|r| Some(r.map(|(s, _)| s)))
    }
}

/// A connection: tokio's `AsyncRead` and `AsyncWrite`.
#[derive(Debug)]
pub struct Stream(TcpStream);

impl Stream {
    fn new(tcp: TcpStream) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        Ok(Stream(tcp))
    }

    /// This end's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The other end's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

//! Sockets: listen, accept, connect.
//!
//! Invariant: Nagle's algorithm is off on every [`Stream`]; whoever writes small frames batches them.
//!
//! Thin on purpose. TLS, HTTP/2 and whatever a gRPC library wants implemented for a connection live with
//! their users. Nothing here has a deadline: `time::timeout` does that.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Listens on `addr`; port 0 picks a free one, see [`Listener::local_addr`].
///
/// # Errors
///
/// `AddrInUse`, `AddrNotAvailable`, `PermissionDenied` and the like.
pub async fn listen(addr: SocketAddr) -> io::Result<Listener> {
    TcpListener::bind(addr).await.map(Listener)
}

/// Connects to `host:port`, trying each of the host's addresses in turn.
///
/// # Errors
///
/// The name doesn't resolve, or the last address's error.
pub async fn connect(host_port: &str) -> io::Result<Stream> {
    Stream::new(TcpStream::connect(host_port).await?)
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
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

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        let (tcp, from) = ready!(self.0.poll_accept(cx))?;
        Poll::Ready(Stream::new(tcp).map(|stream| (stream, from)))
    }
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

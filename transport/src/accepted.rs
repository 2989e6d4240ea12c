//! Accepted connections in the shape that tonic serves.
//!
//! Invariant: at most `CONNECTIONS_MAX` connections of one listener are open; beyond it new ones
//! wait in the kernel's queue. Sockets come from `env`; tonic opens none.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use braid_env::time::Instant;
use braid_env::{net, time};
use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use crate::tls::{HANDSHAKE, ServerTls, Wire};

/// Open connections of one listener: each costs some tens of KiB, so this many stay far below the
/// node's memory.
const CONNECTIONS_MAX: usize = 4096;

/// A connection on which the other end has said nothing for so long is dropped: twice as long as the longest call, a
/// subscription, may take. HTTP/2's own keepalives are far shorter; HTTP/1.1 has none.
const IDLE: Duration = Duration::from_secs(600);

/// One accepted connection.
pub(crate) struct Connection {
    stream: Wire,
    /// When the other end was heard last.
    heard: Instant,
    /// When to look at that again: set anew when it rings, and not with every byte.
    look: time::Sleep,
    remote: SocketAddr,
    _place: OwnedSemaphorePermit,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct ConnectInfo {
    /// Its address.
    #[allow(dead_code)] // for whoever asks the request's extensions
    pub remote: SocketAddr,
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo { remote: self.remote }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let it = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut it.stream).poll_read(cx, buf) {
            it.heard = Instant::now();
            return Poll::Ready(read);
        }
        while Pin::new(&mut it.look).poll(cx).is_ready() {
            if it.stream.is_shaking() {
                let why = format!("no TLS handshake within {} s", HANDSHAKE.as_secs());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            let until = it.heard + IDLE;
            if Instant::now() >= until {
                let why = format!("nothing was heard for {} s", IDLE.as_secs());
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            it.look = time::sleep_until(until);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The connections of a listener, as they come. An error of `accept` (too many open files, say)
/// is logged and waited out; it does not end the service.
pub(crate) fn accepted(
    listener: net::Listener,
    tls: Option<ServerTls>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    stream::unfold((listener, places, tls), |(listener, places, tls)| async move {
        let place = places.clone().acquire_owned().await.expect("never closed");
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => {
                    let stream = Wire::accept(stream, tls.as_ref());
                    let look = time::sleep(if stream.is_shaking() { HANDSHAKE } else { IDLE });
                    let connection = Connection { stream, heard: Instant::now(), look, remote, _place: place };
                    return Some((Ok(connection), (listener, places, tls)));
                }
                Err(e) => {
                    tracing::warn!("accept failed: {e}");
                    time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

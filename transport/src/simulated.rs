//! gRPC over a simulated host's network: one stream of packets per call.
//!
//! ```text
//!   caller                                 server
//!   Head(method, path, headers) ─────────▶ request
//!   Data(gRPC frames) … end ─────────────▶ its body
//!   response ◀───────────────────────────── Head(status, headers)
//!   its body ◀───────────────────────────── Data(gRPC frames) … Trailers · end
//! ```
//!
//! Invariant: what HTTP/2 would tell either end, this tells it as well and no more: a call that was broken
//! off, a connection that is gone. A handler whose caller went away is dropped.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use braid_env::host::{Acceptor, Connection, Host, Packet, Pipe, Receiver, Sender};
use braid_env::{task, time};
use bytes::Bytes;
use futures_util::future::{Either, poll_immediate, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderMap, Request, Response, request, response};
use http_body::Frame;
use http_body_util::BodyExt;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use crate::channel::{NotConnected, too_slow};

/// What a packet holds.
enum Part {
    Request(Box<request::Parts>),
    Response(Box<response::Parts>),
    Data(Bytes),
    Trailers(HeaderMap),
}

/// About what HTTP/2 takes for a compressed head and a frame's header.
const HEAD_BYTES: usize = 64;
const FRAME_BYTES: usize = 9;

impl Part {
    fn packet(self) -> Packet {
        let (bytes, digest) = match &self {
            Part::Request(parts) => (HEAD_BYTES, digest(parts.uri.path().as_bytes())),
            Part::Response(parts) => (HEAD_BYTES, u64::from(parts.status.as_u16())),
            Part::Data(data) => (data.len() + FRAME_BYTES, digest(data)),
            Part::Trailers(trailers) => (HEAD_BYTES, trailers.len() as u64),
        };
        Packet { bytes, digest, content: Box::new(self) as Box<dyn Any + Send> }
    }

    fn of(packet: Packet) -> io::Result<Part> {
        packet.content.downcast().map(|part| *part).map_err(|_| io::Error::other("a packet that is not a call's"))
    }
}

/// Of all bytes; the simulator's trace has every one of them in it.
fn digest(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        sum = (sum ^ u64::from_le_bytes(chunk.try_into().expect("8 bytes"))).wrapping_mul(PRIME).rotate_left(29);
    }
    for byte in chunks.remainder() {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(PRIME).rotate_left(29);
    }
    sum
}

/// The calling end: one connection, made when first needed and made again after it broke.
#[derive(Clone)]
pub(crate) struct Caller {
    host: Arc<dyn Host>,
    address: Arc<str>,
    timeout: Duration,
    connection: Arc<Mutex<Option<Arc<dyn Connection>>>>,
}

impl Caller {
    pub fn new(host: Arc<dyn Host>, address: String, timeout: Duration) -> Caller {
        Caller { host, address: address.into(), timeout, connection: Arc::default() }
    }

    /// Makes a connection. Of two made at once the later one stays; the other ends with its calls.
    pub async fn connect(&self) -> io::Result<Arc<dyn Connection>> {
        let connecting = self.host.connect(&self.address);
        let connection: Arc<dyn Connection> = match time::timeout(self.timeout, connecting).await {
            Ok(connected) => connected
                .map_err(|e| io::Error::new(e.kind(), format!("can't connect to {}: {e}", self.address)))?
                .into(),
            Err(_) => return Err(too_slow(&self.address, self.timeout)),
        };
        *self.known() = Some(connection.clone());
        Ok(connection)
    }

    pub async fn call(self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let pipe = self.pipe().await.map_err(|e| CallError::NotConnected(NotConnected(e)))?;
        let Pipe { mut tx, mut rx } = pipe;
        let (mut parts, body) = request.into_parts();
        parts.extensions.clear(); // they are this process's
        ready(&mut tx).await.map_err(CallError::Broken)?;
        tx.send(Part::Request(Box::new(parts)).packet());
        let mut sending = Box::pin(send_body(tx, body));
        // Most requests are one message that is there already.
        if poll_immediate(&mut sending).await.is_none() {
            task::spawn(sending);
        }
        match receive(&mut rx).await.map_err(CallError::Broken)? {
            Some(Part::Response(parts)) => Ok(Response::from_parts(*parts, Body::new(Received(rx)))),
            _ => Err(CallError::Broken(io::Error::other("the stream ended before the response"))),
        }
    }

    async fn pipe(&self) -> io::Result<Pipe> {
        let known = self.known().clone();
        if let Some(Ok(pipe)) = known.map(|connection| connection.open()) {
            return Ok(pipe);
        }
        self.connect().await?.open()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Arc<dyn Connection>>> {
        self.connection.lock().expect("nothing panics while it is locked")
    }
}

/// Why a call has no response.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Not a byte was sent.
    NotConnected(NotConnected),
    /// It may have arrived.
    Broken(io::Error),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NotConnected(e) => e.fmt(f),
            CallError::Broken(e) => write!(f, "the call was broken off: {e}"),
        }
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CallError::NotConnected(e) => Some(e),
            CallError::Broken(e) => Some(e),
        }
    }
}

/// Serves until `stop`, then lets the calls under way finish.
pub(crate) async fn serve<S>(
    acceptor: Box<dyn Acceptor>,
    service: S,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut stop = std::pin::pin!(stop);
    let mut connections = FuturesUnordered::new();
    let (end, ending) = braid_env::watch::channel(false);
    loop {
        let accepting = std::pin::pin!(poll_fn(|cx| {
            // Those that are over are let go of here.
            while let Poll::Ready(Some(_)) = connections.poll_next_unpin(cx) {}
            acceptor.poll_accept(cx)
        }));
        match select(&mut stop, accepting).await {
            Either::Left(((), _)) => break,
            Either::Right((connection, _)) => {
                connections.push(task::spawn(serve_connection(connection?, service.clone(), ending.clone())));
            }
        }
    }
    drop(acceptor);
    end.send_replace(true);
    while connections.next().await.is_some() {}
    Ok(())
}

/// Serves one connection until it is over or `ending` says so; then the calls under way to their end.
async fn serve_connection<S>(connection: Box<dyn Connection>, service: S, mut ending: braid_env::watch::Receiver<bool>)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut calls = FuturesUnordered::new();
    loop {
        let ended = std::pin::pin!(ending.wait_for(|ending| *ending));
        let accepting = std::pin::pin!(poll_fn(|cx| {
            while let Poll::Ready(Some(_)) = calls.poll_next_unpin(cx) {}
            connection.poll_accept(cx)
        }));
        match select(ended, accepting).await {
            Either::Right((Some(pipe), _)) => calls.push(task::spawn(serve_call(pipe, service.clone()))),
            Either::Left(_) | Either::Right((None, _)) => break,
        }
    }
    while calls.next().await.is_some() {}
}

async fn serve_call<S>(pipe: Pipe, service: S)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let Pipe { mut tx, mut rx } = pipe;
    let Ok(Some(Part::Request(parts))) = receive(&mut rx).await else {
        tx.reset();
        return;
    };
    let body = Shared(Arc::new(Mutex::new(rx)));
    let request = Request::from_parts(*parts, Body::new(body.clone()));
    let answering = std::pin::pin!(async move {
        let response = match service.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let (parts, body) = response.into_parts();
        let mut head = Response::new(()).into_parts().0;
        (head.status, head.headers) = (parts.status, parts.headers);
        if ready(&mut tx).await.is_ok() {
            tx.send(Part::Response(Box::new(head)).packet());
            send_body(tx, body).await;
        }
    });
    // The caller may go away while its call is being served, or its answer being sent.
    let left = poll_fn(|cx| body.0.lock().expect("nothing panics while it is locked").poll_broken(cx));
    select(answering, std::pin::pin!(left)).await;
}

async fn ready(tx: &mut Box<dyn Sender>) -> io::Result<()> {
    poll_fn(|cx| tx.poll_ready(cx)).await
}

async fn receive(rx: &mut Box<dyn Receiver>) -> io::Result<Option<Part>> {
    match poll_fn(|cx| rx.poll_recv(cx)).await {
        Some(packet) => packet.and_then(Part::of).map(Some),
        None => Ok(None),
    }
}

/// Sends a body to its end. One that fails breaks the stream off.
async fn send_body(mut tx: Box<dyn Sender>, mut body: Body) {
    while let Some(frame) = body.frame().await {
        let part = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => Part::Data(data),
            Ok(Err(frame)) => match frame.into_trailers() {
                Ok(trailers) => Part::Trailers(trailers),
                Err(_) => continue,
            },
            Err(_) => return tx.reset(),
        };
        if ready(&mut tx).await.is_err() {
            return;
        }
        tx.send(part.packet());
    }
}

/// The body of a response that comes over a stream. Dropped before its end, it breaks the stream off.
struct Received(Box<dyn Receiver>);

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        poll_frame(&mut self.0, cx)
    }
}

/// The body of a request, shared with whoever looks whether the caller is still there.
#[derive(Clone)]
struct Shared(Arc<Mutex<Box<dyn Receiver>>>);

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        poll_frame(&mut self.0.lock().expect("nothing panics while it is locked"), cx)
    }
}

fn poll_frame(rx: &mut Box<dyn Receiver>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
    rx.poll_recv(cx).map(|packet| {
        packet.map(|packet| match packet.and_then(Part::of)? {
            Part::Data(data) => Ok(Frame::data(data)),
            Part::Trailers(trailers) => Ok(Frame::trailers(trailers)),
            Part::Request(_) | Part::Response(_) => Err(io::Error::other("a head in the middle of a body")),
        })
    })
}

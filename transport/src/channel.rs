//! The calling end.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use braid_env::{net, task, time};
use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tower::Service;

use crate::simulated::Caller;
use crate::tls::{ClientTls, Wire};

/// What a connection is made with.
#[derive(Clone, Copy, Debug)]
pub struct ChannelOptions {
    /// How long making it may take.
    pub connect_timeout: Duration,
    /// Bytes the other end may send ahead on one stream.
    pub stream_window: u32,
    /// Bytes the other end may send ahead on all streams together.
    pub connection_window: u32,
}

/// A way to one address; what generated clients call. Clones share the connection, which is made when first
/// needed and made again after it broke. Calls under way on a broken connection fail; nothing is sent twice.
#[derive(Clone)]
pub struct Channel(Way);

#[derive(Clone)]
enum Way {
    Http2(tonic::transport::Channel),
    Simulated(Caller),
}

/// An address that is not `host:port`.
#[derive(Clone, Debug)]
pub struct InvalidAddress(pub String);

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not host:port", self.0)
    }
}

impl Error for InvalidAddress {}

impl Channel {
    /// A channel to `address` (`host:port`), connected by its first call; with `tls`, to a
    /// node that shows a certificate for its host.
    pub fn lazy(address: &str, options: ChannelOptions, tls: Option<ClientTls>) -> Result<Channel, InvalidAddress> {
        let endpoint = endpoint(address, options, tls.is_some())?;
        Ok(Channel(match net::simulated() {
            Some(host) => Way::Simulated(Caller::new(host, address.to_owned(), options.connect_timeout)),
            None => Way::Http2(endpoint.connect_with_connector_lazy(Connector::new(address, options, tls))),
        }))
    }

    /// A channel to `address` (`host:port`), connected.
    ///
    /// # Errors
    /// The address is malformed, or no connection was made in time.
    pub async fn connect(
        address: &str,
        options: ChannelOptions,
        tls: Option<ClientTls>,
    ) -> Result<Channel, ConnectError> {
        let failed = |why: String| ConnectError { address: address.to_owned(), why };
        let endpoint = endpoint(address, options, tls.is_some()).map_err(|e| failed(e.to_string()))?;
        Ok(Channel(match net::simulated() {
            Some(host) => {
                let caller = Caller::new(host, address.to_owned(), options.connect_timeout);
                caller.connect().await.map_err(|e| failed(e.to_string()))?;
                Way::Simulated(caller)
            }
            None => {
                let connected = endpoint.connect_with_connector(Connector::new(address, options, tls)).await;
                Way::Http2(connected.map_err(|e| failed(root_cause(&e)))?)
            }
        }))
    }
}

fn endpoint(address: &str, options: ChannelOptions, tls: bool) -> Result<Endpoint, InvalidAddress> {
    let endpoint = Endpoint::from_shared(format!("{}://{address}", if tls { "https" } else { "http" }));
    Ok(endpoint
        .map_err(|_| InvalidAddress(address.to_owned()))?
        .executor(EnvExecutor)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window))
}

/// Opens sockets through `env` for tonic.
#[derive(Clone)]
struct Connector {
    address: String,
    timeout: Duration,
    tls: Option<ClientTls>,
}

impl Connector {
    fn new(address: &str, options: ChannelOptions, tls: Option<ClientTls>) -> Connector {
        Connector { address: address.to_owned(), timeout: options.connect_timeout, tls }
    }
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Connector { address, timeout, tls } = self.clone();
        Box::pin(async move { dial(&address, timeout, tls.as_ref()).await.map(TokioIo::new) })
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match &mut self.0 {
            Way::Http2(channel) => Service::poll_ready(channel, cx).map_err(Into::into),
            Way::Simulated(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match &mut self.0 {
            Way::Http2(channel) => {
                let call = channel.call(request);
                Box::pin(async move { call.await.map_err(Into::into) })
            }
            Way::Simulated(caller) => {
                let call = caller.clone().call(request);
                Box::pin(async move { call.await.map_err(Into::into) })
            }
        }
    }
}

/// Why a channel could not be opened.
#[derive(Debug)]
pub struct ConnectError {
    address: String,
    why: String,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot reach {}: {}", self.address, self.why)
    }
}

impl Error for ConnectError {}

/// No connection could be made for a call.
#[derive(Debug)]
pub(crate) struct NotConnected(pub io::Error);

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for NotConnected {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Whether a call failed because no connection could be made for it, so that not a byte of it left this
/// process. tonic wraps a connector's error, and only that, in its `ConnectError`.
pub fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() || error.is::<NotConnected>() {
            return true;
        }
        source = error.source();
    }
    false
}

async fn dial(address: &str, timeout: Duration, tls: Option<&ClientTls>) -> io::Result<Wire> {
    let connect = async {
        let stream = net::connect(address).await?;
        match tls {
            Some(tls) => tls.connect(address, stream).await,
            None => Ok(Wire::Plain(stream)),
        }
    };
    match time::timeout(timeout, connect).await {
        Ok(connected) => connected.map_err(|e| io::Error::new(e.kind(), format!("can't connect to {address}: {e}"))),
        Err(_) => Err(too_slow(address, timeout)),
    }
}

pub(crate) fn too_slow(address: &str, timeout: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("can't connect to {address} within {} ms", timeout.as_millis()))
}

fn root_cause(e: &dyn Error) -> String {
    let mut cause = e;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Runs hyper's and tonic's connection tasks as tasks of the environment.
#[derive(Copy, Clone)]
struct EnvExecutor;

impl hyper::rt::Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for EnvExecutor {
    fn execute(&self, job: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(task::spawn(job));
    }
}

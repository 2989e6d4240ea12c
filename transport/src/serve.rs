//! The serving end.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use braid_env::net;
use tonic::body::Body;
use tonic::transport::Server;
use tower::Service;

use crate::accepted::accepted;
use crate::simulated;
use crate::tls::ServerTls;

/// Limits of one listener's connections; they are HTTP/2's, and a simulated network has none of them.
#[derive(Clone, Copy, Debug)]
pub struct ServeOptions {
    /// Bytes a caller may send ahead on one stream.
    pub stream_window: u32,
    /// Bytes a caller may send ahead on one connection.
    pub connection_window: u32,
    /// Calls one connection may have open: beyond it the caller waits.
    pub streams_per_connection: Option<u32>,
    /// How often a silent connection is asked for a sign of life, and how long the answer may take.
    pub keepalive: Option<(Duration, Duration)>,
    /// Whether HTTP/1.1 is served besides HTTP/2.
    pub http1: bool,
}

/// Why a listener stopped serving.
#[derive(Debug)]
pub struct ServeError(String);

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServeError {}

/// Serves calls that come to `listener` until `stop`, then lets those under way finish. With `tls`, connections in clear text
/// are refused; a simulated network has no TLS.
pub async fn serve<S>(
    listener: net::Listener,
    options: ServeOptions,
    tls: Option<ServerTls>,
    service: S,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let listener = match listener.into_simulated() {
        Ok(acceptor) => return simulated::serve(acceptor, service, stop).await.map_err(|e| ServeError(e.to_string())),
        Err(socket) => socket,
    };
    let (every, answer) = options.keepalive.unzip();
    Server::builder()
        .accept_http1(options.http1)
        .max_concurrent_streams(options.streams_per_connection)
        .http2_keepalive_interval(every)
        .http2_keepalive_timeout(answer)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .serve_with_incoming_shutdown(service, accepted(listener, tls), stop)
        .await
        .map_err(|e| ServeError(e.to_string()))
}

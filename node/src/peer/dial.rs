//! Opening a gRPC channel to another node, through `env`'s network.
//!
//! Deliberately absent: TLS between nodes, and tonic's own connector, which would open sockets
//! behind `env`'s back.

use std::fmt;
use std::time::Duration;

use braid_env::{net, time};
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// How long a connection may take before the peer counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Flow-control window of one stream: several AppendEntries in flight at the largest size.
const STREAM_WINDOW: u32 = 8 << 20;

/// Why a channel could not be opened.
#[derive(Debug)]
pub struct DialError {
    address: String,
    why: String,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot reach {}: {}", self.address, self.why)
    }
}

impl std::error::Error for DialError {}

/// Connects to `address` (host:port).
pub async fn dial(address: &str) -> Result<Channel, DialError> {
    let failed = |why: String| DialError { address: address.to_string(), why };
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|e| failed(format!("not an address: {e}")))?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(4 * STREAM_WINDOW)
        .tcp_nodelay(true);
    let target = address.to_string();
    let connector = service_fn(move |_| {
        let target = target.clone();
        async move { net::connect(&target).await.map(TokioIo::new) }
    });
    match time::timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(e)) => Err(failed(root_cause(&e))),
        Err(_) => Err(failed(format!("no answer within {} ms", CONNECT_TIMEOUT.as_millis()))),
    }
}

fn root_cause(e: &dyn std::error::Error) -> String {
    let mut cause = e;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

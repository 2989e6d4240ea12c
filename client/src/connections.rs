//! Connections to nodes: one HTTP/2 connection per node and purpose, made when first needed.
//!
//! Owns the map address → channel. Its invariant: sockets, tasks and timers are `braid-env`'s;
//! tonic is given a connector and an executor and no timeout of its own (those would use tokio's
//! clock behind the simulator's back). It retries nothing and judges nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use braid_proto::v1::braid_client::BraidClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

/// Answers hold up to 10 MiB of data; keys, numbers and framing of 10,000 records come on top.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Bytes a node may send ahead on one stream: a subscription's 2 MiB/s over a round trip of some
/// 100 ms, rounded up. What a slow consumer leaves unread stays below this per shard.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Bytes a node may send ahead on one connection: no stream can stall the others before 64 of
/// them hold unread data.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Subscriptions have connections of their own: records a slow consumer leaves unread fill their
/// connection's window, and acknowledgements must not wait behind them.
#[derive(Copy, Clone, Ord, PartialOrd, Eq, PartialEq)]
pub(crate) enum Purpose {
    Calls,
    Subscriptions,
}

pub(crate) struct Connections {
    connect_timeout: Duration,
    channels: Mutex<BTreeMap<(Purpose, String), Channel>>,
}

impl Connections {
    pub fn new(connect_timeout: Duration) -> Connections {
        Connections { connect_timeout, channels: Mutex::new(BTreeMap::new()) }
    }

    /// A client for the node at `address` (`host:port`). Cheap; the connection is made by the
    /// first request, and made again after it broke.
    pub fn to(&self, address: &str, purpose: Purpose) -> Result<BraidClient<Channel>, InvalidAddress> {
        let key = (purpose, address.to_owned());
        if let Some(channel) = self.lock().get(&key) {
            return Ok(client(channel.clone()));
        }
        let channel = channel(address, self.connect_timeout)?;
        self.lock().insert(key, channel.clone());
        Ok(client(channel))
    }

    /// Makes the next request to `address` connect anew: the connection may lead nowhere (a
    /// black hole looks like silence). Requests under way on it are left alone.
    pub fn forget(&self, address: &str, purpose: Purpose) {
        self.lock().remove(&(purpose, address.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Purpose, String), Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address that is not `host:port`.
#[derive(Clone, Debug)]
pub(crate) struct InvalidAddress(pub String);

fn client(channel: Channel) -> BraidClient<Channel> {
    BraidClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn channel(address: &str, connect_timeout: Duration) -> Result<Channel, InvalidAddress> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| InvalidAddress(address.to_owned()))?
        .executor(EnvExecutor)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let address = address.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let address = address.clone();
        async move { dial(&address, connect_timeout).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn dial(address: &str, timeout: Duration) -> io::Result<braid_env::net::Stream> {
    match braid_env::time::timeout(timeout, braid_env::net::connect(address)).await {
        Ok(connected) => connected.map_err(|e| io::Error::new(e.kind(), format!("can't connect to {address}: {e}"))),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("can't connect to {address} within {} ms", timeout.as_millis()),
        )),
    }
}

/// Runs hyper's and tonic's connection tasks as tasks of the environment.
#[derive(Copy, Clone)]
struct EnvExecutor;

impl hyper::rt::Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for EnvExecutor {
    fn execute(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(braid_env::task::spawn(task));
    }
}

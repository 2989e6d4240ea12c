//! Connections to nodes: one HTTP/2 connection per node and purpose, made when first needed.
//!
//! Owns the map address → channel. It retries nothing and judges nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use braid_proto::v1::braid_client::BraidClient;
use braid_transport::{Channel, ChannelOptions, ClientTls, InvalidAddress};

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
    tls: Option<ClientTls>,
    channels: Mutex<BTreeMap<(Purpose, String), Channel>>,
}

impl Connections {
    /// `tls`: nodes have TLS, and this is whom to believe.
    pub fn new(connect_timeout: Duration, tls: Option<ClientTls>) -> Connections {
        Connections { connect_timeout, tls, channels: Mutex::new(BTreeMap::new()) }
    }

    /// A client for the node at `address` (`host:port`). Cheap; the connection is made by the
    /// first request, and made again after it broke.
    pub fn to(&self, address: &str, purpose: Purpose) -> Result<BraidClient<Channel>, InvalidAddress> {
        let key = (purpose, address.to_owned());
        if let Some(channel) = self.lock().get(&key) {
            return Ok(client(channel.clone()));
        }
        let channel = self.channel(address)?;
        self.lock().insert(key, channel.clone());
        Ok(client(channel))
    }

    /// As [`Connections::to`], with a connection that nobody else uses.
    pub fn own(&self, address: &str) -> Result<BraidClient<Channel>, InvalidAddress> {
        self.channel(address).map(client)
    }

    fn channel(&self, address: &str) -> Result<Channel, InvalidAddress> {
        let options = ChannelOptions {
            connect_timeout: self.connect_timeout,
            stream_window: STREAM_WINDOW_BYTES,
            connection_window: CONNECTION_WINDOW_BYTES,
        };
        Channel::lazy(address, options, self.tls.clone())
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

fn client(channel: Channel) -> BraidClient<Channel> {
    BraidClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

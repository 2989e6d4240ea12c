//! Opening a gRPC channel to another node.

use std::time::Duration;

use braid_transport::{Channel, ChannelOptions, ClientTls, ConnectError};

/// The windows hold several AppendEntries in flight at the largest size. A peer that takes longer to connect
/// counts as unreachable.
const OPTIONS: ChannelOptions =
    ChannelOptions { connect_timeout: Duration::from_secs(2), stream_window: 8 << 20, connection_window: 32 << 20 };

/// Connects to the peer port at `address` (host:port).
pub async fn dial(address: &str) -> Result<Channel, ConnectError> {
    Channel::connect(address, OPTIONS, None).await
}

/// Connects to the client port at `address` (host:port).
pub async fn dial_client_port(address: &str, tls: Option<ClientTls>) -> Result<Channel, ConnectError> {
    Channel::connect(address, OPTIONS, tls).await
}

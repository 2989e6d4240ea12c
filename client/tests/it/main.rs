//! The client against a cluster that misbehaves on demand (`fake`), over real connections.

#![allow(clippy::disallowed_methods)] // the fake cluster is the world outside the client

mod admin;
mod consume;
mod fake;
mod produce;

use std::time::Duration;

use braid_client::{Client, ClientOptions};

/// A client of the fake that gives up on an answer soon, so that lost ones don't take long.
pub async fn client(cluster: &fake::Cluster) -> Client {
    let options = ClientOptions {
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_millis(1_500),
        call_timeout: Duration::from_secs(20),
        tls: None,
    };
    Client::connect(cluster.addresses(), options).await.unwrap()
}

/// What must happen within a minute.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within a minute")
}

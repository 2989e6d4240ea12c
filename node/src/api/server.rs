//! The client listener: services, limits of connections and messages, and what runs beside them.
//!
//! Invariant: a message over its limit is refused by its length prefix, before it is read.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use braid_env::{net, time};
use braid_proto::FILE_DESCRIPTOR_SET;
use braid_proto::v1::braid_server::BraidServer;
use braid_stream::limits::PUT_BYTES_MAX_LARGE;
use futures_util::future::{Either, select};
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use super::Service;
use super::edge::EdgeLayer;
use crate::connection::incoming;
use crate::replication::Groups;
use crate::routing::forward::MESSAGE_BYTES_MAX;

/// The largest request: 10 MiB of records, and what surrounds 500 of them.
const REQUEST_BYTES_MAX: usize = PUT_BYTES_MAX_LARGE as usize + (1 << 20);

/// Calls one connection may have open: beyond it the client waits, not the node.
const STREAMS_PER_CONNECTION: u32 = 1_024;
/// A connection on which nothing is heard for these two together is dropped.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Flow-control windows: a full PutRecords goes out without waiting for the other end.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How often it is looked whether the node belongs to a cluster yet.
const LOOK_FOR_CLUSTER: Duration = Duration::from_millis(50);
/// How often counts of deleted streams are cleared away.
const CLEAR_EVERY: Duration = Duration::from_secs(10);

/// Why the listener stopped serving.
#[derive(Debug)]
pub struct ServeError(String);

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client listener: {}", self.0)
    }
}

impl std::error::Error for ServeError {}

/// Serves clients on `listener` until `stop`, then lets the calls under way finish.
pub async fn serve(
    service: Service,
    listener: net::Listener,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let failed = |e: &dyn fmt::Display| ServeError(e.to_string());
    let reflection =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_not_serving::<BraidServer<Service>>().await;
    let braid = BraidServer::new(service.clone())
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let edge = EdgeLayer::new(service.concurrency, service.deadline, service.metrics.clone());
    // Within this task and not beside it: what it holds of the node is gone when this returns.
    let beside = std::pin::pin!(run_beside(service.clone(), health.clone()));
    let stopping = async move {
        stop.await;
        // Load balancers look elsewhere from now on; subscribers go on at another node.
        health.set_not_serving::<BraidServer<Service>>().await;
        service.stopping.send_replace(true);
    };
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(edge)
        .add_service(braid)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(|e| failed(&e))?)
        .add_service(reflection().build_v1alpha().map_err(|e| failed(&e))?)
        .serve_with_incoming_shutdown(incoming(listener), stopping);
    match select(std::pin::pin!(server), beside).await {
        Either::Left((served, _)) => served.map_err(|e| failed(&e)),
        Either::Right((never, _)) => match never {},
    }
}

/// Says that the node serves once it belongs to a cluster; then keeps the throttle's table.
async fn run_beside(service: Service, health: HealthReporter) -> Infallible {
    let groups = loop {
        match service.router.groups() {
            Ok(groups) if groups.catalog().is_some() => break groups,
            _ => time::sleep(LOOK_FOR_CLUSTER).await,
        }
    };
    health.set_serving::<BraidServer<Service>>().await;
    let watch = std::pin::pin!(service.throttle.watch(&groups));
    let clear = std::pin::pin!(clear(&service, &groups));
    match select(watch, clear).await {
        Either::Left((never, _)) | Either::Right((never, _)) => never,
    }
}

/// Clears away the counts of deleted streams.
async fn clear(service: &Service, groups: &Groups) -> Infallible {
    loop {
        time::sleep(CLEAR_EVERY).await;
        if let Some(catalog) = groups.catalog() {
            let alive: std::collections::BTreeSet<_> = catalog.state(|c| c.streams().map(|it| it.id).collect());
            service.throttle.retain(|stream| alive.contains(&stream));
        }
    }
}

//! The client listener: both faces, limits of connections and messages, and what runs beside them.
//!
//! Invariant: a message over its limit is refused by its length prefix, before it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use braid_env::{net, time};
use braid_proto::FILE_DESCRIPTOR_SET;
use braid_proto::v1::braid_server::BraidServer;
use braid_stream::catalog::Stream;
use braid_stream::ids::StreamId;
use braid_stream::limits::PUT_BYTES_MAX_LARGE;
use braid_transport::{ServeError, ServeOptions, ServerTls};
use futures_util::future::{Either, select};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::Layer;

use super::edge::EdgeLayer;
use super::{Service, autoscale};
use crate::kinesis::{DoorLayer, Face};
use crate::replication::Groups;
use crate::routing::forward::MESSAGE_BYTES_MAX;

/// The largest request: 10 MiB of records, and what surrounds 500 of them.
const REQUEST_BYTES_MAX: usize = PUT_BYTES_MAX_LARGE as usize + (1 << 20);

/// The windows let a full PutRecords go out without waiting for the other end; a connection on which nothing
/// is heard for the two keepalive times together is dropped.
const OPTIONS: ServeOptions = ServeOptions {
    stream_window: 2 << 20,
    connection_window: 16 << 20,
    streams_per_connection: Some(1_024),
    keepalive: Some((Duration::from_secs(20), Duration::from_secs(10))),
    http1: true,
};

/// How often it is looked whether the node belongs to a cluster yet.
const LOOK_FOR_CLUSTER: Duration = Duration::from_millis(50);
/// How often counts of deleted streams are cleared away.
const CLEAR_EVERY: Duration = Duration::from_secs(10);

/// Serves clients on `listener` until `stop`, then lets the calls under way finish.
pub async fn serve(
    service: Service,
    face: Face,
    tls: Option<ServerTls>,
    listener: net::Listener,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let reflection =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    let described = "our own descriptors are well-formed";
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_not_serving::<BraidServer<Service>>().await;
    let braid = BraidServer::new(service.clone())
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let edge = EdgeLayer::new(service.places(), service.deadline, service.metrics.clone());
    // Within this task and not beside it: what it holds of the node is gone when this returns.
    let beside = std::pin::pin!(run_beside(service.clone(), health.clone()));
    let stopping = async move {
        stop.await;
        // Load balancers look elsewhere from now on; subscribers go on at another node.
        health.set_not_serving::<BraidServer<Service>>().await;
        service.stopping.send_replace(true);
    };
    let routes = Routes::new(braid)
        .add_service(health_service)
        .add_service(reflection().build_v1().expect(described))
        .add_service(reflection().build_v1alpha().expect(described))
        .prepare();
    let server = braid_transport::serve(listener, OPTIONS, tls, DoorLayer(face).layer(edge.layer(routes)), stopping);
    match select(std::pin::pin!(server), beside).await {
        Either::Left((served, _)) => served,
        Either::Right((never, _)) => match never {},
    }
}

/// Says that the node serves once it belongs to a cluster; then keeps the throttle's table, and scales by load.
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
    let scale = std::pin::pin!(autoscale::run(&service));
    match select(select(watch, clear), scale).await {
        Either::Left((Either::Left((never, _)) | Either::Right((never, _)), _)) | Either::Right((never, _)) => never,
    }
}

/// Clears away the counts of deleted streams and forgotten shards.
async fn clear(service: &Service, groups: &Groups) -> Infallible {
    loop {
        time::sleep(CLEAR_EVERY).await;
        if let Some(catalog) = groups.catalog() {
            // What is known is copied: one lock at a time.
            let indexes = |it: &Stream| it.shards.keys().copied().collect();
            let streams: BTreeMap<StreamId, (u32, BTreeSet<u32>)> =
                catalog.state(|c| c.streams().map(|it| (it.id, (it.next_shard, indexes(it)))).collect());
            service.throttle.retain(|shard| {
                // A child that this node has not heard of is not gone.
                let known = streams.get(&shard.stream);
                known.is_some_and(|(next, indexes)| shard.index >= *next || indexes.contains(&shard.index))
            });
        }
    }
}

//! Control calls: endpoints that fail, creations whose outcome is unknown.

use braid_client::{CallError, Client, ClientOptions, ConnectError, Reason, StreamSettings};

use crate::fake::{Cluster, STREAM};
use crate::{client, soon};

#[tokio::test]
async fn bad_endpoints_are_told_apart() {
    let none = Client::connect(vec![], ClientOptions::default()).await;
    assert!(matches!(none, Err(ConnectError::NoEndpoints)));
    for bad in ["nowhere", ":7000", "host:port"] {
        let result = Client::connect(vec![bad.to_owned()], ClientOptions::default()).await;
        assert!(matches!(result, Err(ConnectError::BadEndpoint(_))), "{bad}");
    }
}

#[tokio::test]
async fn any_living_endpoint_will_do() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    cluster.stop(0).await;
    cluster.stop(2).await;
    let client = soon(client(&cluster)).await;
    for _ in 0..3 {
        soon(client.describe_stream(STREAM)).await.unwrap();
    }
    cluster.stop(1).await;
    cluster.restart(0).await;
    soon(client.describe_stream(STREAM)).await.unwrap();
}

#[tokio::test]
async fn a_creation_in_doubt_is_looked_into_not_repeated_blindly() {
    let cluster = Cluster::start(1, 2, 1).await;
    {
        let mut state = cluster.state();
        state.exists = false;
        state.hang_create = true;
    }
    let client = client(&cluster).await;
    let lost = soon(client.create_stream(STREAM, 2, StreamSettings::default())).await;
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");

    client.delete_stream(STREAM).await.unwrap();
    cluster.state().hang_create = true;
    let made = soon(client.create_and_wait_active(STREAM, 2, StreamSettings::default())).await;
    assert_eq!(made.unwrap().stream_name, STREAM);
    let taken = client.create_and_wait_active(STREAM, 2, StreamSettings::default());
    let taken = soon(taken).await.unwrap_err();
    assert_eq!(taken.reason(), Some(Reason::StreamExists));
}

#[tokio::test]
async fn an_unknown_stream_is_refused_at_once() {
    let cluster = Cluster::start(1, 2, 1).await;
    cluster.state().exists = false;
    let client = client(&cluster).await;
    let refused = soon(client.describe_stream(STREAM)).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::StreamNotFound));
}

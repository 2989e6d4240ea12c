//! Replicas move while records are written: a node is drained, stopped and removed, and a new one gets its share.

use std::time::Instant;

use crate::support::{BOUND, TestCluster, eventually};
use braid_proto::v1;
use braid_proto::v1::braid_client::BraidClient;
use braid_stream::ids::GroupId;
use tonic::Code;
use tonic::transport::Channel;

type Client = BraidClient<Channel>;

fn client(cluster: &TestCluster, node: usize) -> Client {
    let address = cluster.configs[node].client_advertise.clone();
    BraidClient::new(Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy())
}

async fn status(client: &mut Client) -> v1::ClusterStatusResponse {
    client.cluster_status(v1::ClusterStatusRequest {}).await.unwrap().into_inner()
}

/// Waits until the cluster is as it should be.
async fn until(client: &mut Client, what: &str, fits: impl Fn(&v1::ClusterStatusResponse) -> bool) {
    let start = Instant::now();
    loop {
        let found = status(client).await;
        if fits(&found) {
            return;
        }
        assert!(start.elapsed() < BOUND, "waited {BOUND:?} for {what}: {found:#?}");
        braid_env::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn groups_of(found: &v1::ClusterStatusResponse, node: u64) -> Vec<u32> {
    found.nodes.iter().find(|it| it.node_id == node).map(|it| it.groups.clone()).unwrap_or_default()
}

async fn put(client: &mut Client, nth: usize) {
    let request = v1::PutRecordRequest {
        stream_name: "sensors".into(),
        data: nth.to_string().into_bytes().into(),
        partition_key: format!("key-{nth}"),
        ..v1::PutRecordRequest::default()
    };
    let start = Instant::now();
    // A leader that hands over refuses for a moment, and says that nothing was done.
    while let Err(status) = client.put_record(request.clone()).await {
        assert!(start.elapsed() < BOUND && status.code() != Code::Aborted, "record {nth}: {status:?}");
    }
}

/// Every record's data, of all shards.
async fn read_all(client: &mut Client) -> Vec<usize> {
    let listing = v1::ListShardsRequest { stream_name: "sensors".into(), ..v1::ListShardsRequest::default() };
    let shards = client.list_shards(listing).await.unwrap().into_inner().shards;
    let mut found = Vec::new();
    for shard in shards {
        let begin = v1::GetShardIteratorRequest {
            stream_name: "sensors".into(),
            shard_id: shard.shard_id,
            shard_iterator_type: v1::ShardIteratorType::TrimHorizon.into(),
            ..v1::GetShardIteratorRequest::default()
        };
        let mut iterator = client.get_shard_iterator(begin).await.unwrap().into_inner().shard_iterator;
        loop {
            let page = v1::GetRecordsRequest { shard_iterator: iterator, ..v1::GetRecordsRequest::default() };
            let page = client.get_records(page).await.unwrap().into_inner();
            found
                .extend(page.records.iter().map(|it| std::str::from_utf8(&it.data).unwrap().parse::<usize>().unwrap()));
            if page.millis_behind_latest == 0 {
                break;
            }
            iterator = page.next_shard_iterator;
        }
    }
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_drained_under_load_and_leaves() {
    let mut cluster = TestCluster::start_with(|config| config.throttle = false).await;
    let mut asked = client(&cluster, 0);
    let create =
        v1::CreateStreamRequest { stream_name: "sensors".into(), shard_count: 6, ..v1::CreateStreamRequest::default() };
    asked.create_stream(create).await.unwrap();
    cluster.add_node(4, &crate::support::zone(2)).await;
    cluster.node(3).ready(BOUND).await.unwrap();
    for nth in 0..200 {
        put(&mut asked, nth).await;
    }

    // What can't be done is said, and nothing is.
    let drain = |node_id| v1::DrainNodeRequest { node_id, ..v1::DrainNodeRequest::default() };
    for (node, code, why) in [(9, Code::NotFound, "not registered"), (2, Code::FailedPrecondition, "no node can take")]
    {
        let refused = asked.drain_node(drain(node)).await.unwrap_err();
        assert!(refused.code() == code && refused.message().contains(why), "{refused:?}");
    }
    let early = asked.remove_node(v1::RemoveNodeRequest { node_id: 3 }).await.unwrap_err();
    assert!(early.message().contains("drain it first"), "{early:?}");
    let planned = asked.drain_node(v1::DrainNodeRequest { dry_run: true, ..drain(3) }).await.unwrap().into_inner();
    assert_eq!(planned.planned_moves.len(), 4, "three groups, and the vote in the catalog");
    assert!(status(&mut asked).await.nodes.iter().all(|it| it.standing() == v1::NodeStanding::Member));

    asked.drain_node(drain(3)).await.unwrap();
    let mut writer = client(&cluster, 1);
    let write = tokio::spawn(async move {
        for nth in 200..600 {
            put(&mut writer, nth).await;
        }
    });
    until(&mut asked, "node 3 to be empty", |it| groups_of(it, 3).is_empty() && it.moving.is_none()).await;
    write.await.unwrap();
    let dir = cluster.data_dir(2).join("groups");
    eventually("node 3 to forget its groups", || {
        let names = std::fs::read_dir(&dir).ok()?.filter_map(|it| it.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        // But for what its replicas promised as voters.
        (names == ["0", "1.left", "2.left", "3.left"]).then_some(())
    })
    .await;
    assert!(cluster.node(2).groups().all().iter().all(|it| it.id() == GroupId::CATALOG));

    let stop = |node_ids: &[u64]| v1::SafeToStopRequest { node_ids: node_ids.to_vec(), ..Default::default() };
    let start = Instant::now();
    loop {
        let answer = asked.safe_to_stop(stop(&[3])).await.unwrap().into_inner();
        if answer.safe {
            break;
        }
        assert!(start.elapsed() < BOUND, "{answer:?}");
    }
    cluster.stop(2).await;
    asked.remove_node(v1::RemoveNodeRequest { node_id: 3 }).await.unwrap();
    let left = |it: &v1::ClusterStatusResponse| {
        let learners = it.groups.iter().flat_map(|group| &group.replicas).any(|replica| replica.node_id == 3);
        !learners && it.nodes.iter().any(|it| it.node_id == 3 && it.standing() == v1::NodeStanding::Removed)
    };
    until(&mut asked, "node 3 to be out of every group", left).await;
    // The new node has its share, and its vote.
    until(&mut asked, "node 4 to count", |it| groups_of(it, 4) == [0, 1, 2, 3]).await;
    let both = asked.safe_to_stop(stop(&[1, 2])).await.unwrap().into_inner();
    assert!(!both.safe && both.reasons.len() == 4, "{both:?}");
    cluster.stop(1).await;
    put(&mut asked, 600).await;
    assert_eq!(read_all(&mut asked).await, (0..=600).collect::<Vec<_>>());
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_evened_out_over_new_nodes() {
    let mut cluster = TestCluster::start().await;
    let mut asked = client(&cluster, 0);
    let even = |dry_run| v1::RebalanceRequest { dry_run, cancel: false };
    assert_eq!(asked.rebalance(even(false)).await.unwrap().into_inner().planned_moves, []);
    for (id, zone) in [(4, 0), (5, 1), (6, 2)] {
        cluster.add_node(id, &crate::support::zone(zone)).await;
    }
    cluster.ready().await;
    // A new node has the catalog and no vote in it: offered the leadership, it could only leave it lying.
    let offer = v1::TransferLeaderRequest { group: 0, to_node: 4 };
    let refused = asked.transfer_leader(offer).await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("does not vote"), "{refused:?}");
    let planned = asked.rebalance(even(true)).await.unwrap().into_inner().planned_moves;
    assert_eq!(planned.len(), 3, "one group of three in each zone: {planned:?}");
    asked.rebalance(even(false)).await.unwrap();
    until(&mut asked, "it to be even", |it| !it.rebalancing && it.moving.is_none()).await;
    let found = status(&mut asked).await;
    let data = |node| groups_of(&found, node).into_iter().filter(|group| *group > 0).count();
    assert!((1..=6).all(|node| (1..=2).contains(&data(node))), "{found:#?}");
    cluster.stop_all().await;
}

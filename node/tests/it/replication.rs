//! Replication end to end, below the API: three nodes, real Raft, real files.

use crate::support::{BOUND, TestCluster, eventually};
use braid_node::index::RecordIndex;
use braid_node::index::rocks::RocksIndex;
use braid_node::replication::{AppendOutcome, GroupHandle, ProposeError};
use braid_stream::catalog::{StreamMode, StreamStatus};
use braid_stream::catalog_command::{CatalogCommand, CreateStream, ReplaceNode};
use braid_stream::command::{GroupCommand, ShardTrim, Trim};
use braid_stream::ids::{GroupId, NodeId, Offset, ShardId};
use braid_stream::limits::LimitOverrides;
use braid_stream::name::{PartitionKey, StreamName};
use braid_stream::record::Record;

async fn create_stream(cluster: &TestCluster, name: &str, shards: u32) {
    let command = CatalogCommand::CreateStream(CreateStream {
        at_ms: braid_env::time::wall_ms(),
        name: StreamName::parse(name).unwrap(),
        shards,
        retention_ms: 24 * 3_600_000,
        mode: StreamMode::Provisioned,
        limits: LimitOverrides::default(),
    });
    let leader = eventually("a catalog leader", || {
        cluster.nodes.iter().flatten().filter_map(|n| n.groups().catalog()).find(|c| c.is_leader())
    })
    .await;
    leader.propose(command).await.unwrap().unwrap();
    let name = StreamName::parse(name).unwrap();
    eventually("the stream to be active", || {
        leader.state(|c| c.stream(&name).filter(|s| s.status == StreamStatus::Active).map(|_| ()))
    })
    .await;
}

fn shard_of(cluster: &TestCluster, name: &str) -> (ShardId, GroupId) {
    let catalog = cluster.nodes.iter().flatten().find_map(|n| n.groups().catalog()).unwrap();
    catalog.state(|c| {
        let stream = c.stream(&StreamName::parse(name).unwrap()).unwrap();
        let (index, shard) = stream.shards.iter().next().unwrap();
        (stream.shard_id(*index), shard.group)
    })
}

async fn leader_of(cluster: &TestCluster, group: GroupId) -> GroupHandle {
    eventually("the group's leader", || {
        cluster.nodes.iter().flatten().filter_map(|n| n.groups().get(group)).find(|g| g.is_leader())
    })
    .await
}

fn record(i: usize, bytes: usize) -> Record {
    let mut data = format!("record {i} ").into_bytes();
    data.resize(bytes.max(data.len()), b'.');
    Record { partition_key: PartitionKey::parse(&format!("key-{i}")).unwrap(), explicit_hash: None, data: data.into() }
}

/// Appends through whoever leads, until it is acknowledged; answers with the offset.
async fn append(cluster: &TestCluster, group: GroupId, shard: ShardId, record: Record) -> u64 {
    let start = std::time::Instant::now();
    loop {
        let leader = leader_of(cluster, group).await;
        match leader.append(vec![(shard, record.clone())]).await {
            Ok(outcomes) => match &outcomes[0] {
                AppendOutcome::Appended { offset, .. } => return offset.0,
                AppendOutcome::Refused(why) => panic!("refused: {why:?}"),
            },
            Err(ProposeError::NotLeader { .. } | ProposeError::Overloaded { .. }) => {}
            Err(e) => panic!("{e}"),
        }
        assert!(start.elapsed() < BOUND);
        braid_env::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_survive_the_restart_of_every_node_and_offsets_stay_dense() {
    let mut cluster = TestCluster::start().await;
    create_stream(&cluster, "sensors", 2).await;
    let (shard, group) = shard_of(&cluster, "sensors");
    // Several segments' worth, so that checkpoints are taken and used.
    for i in 0..300 {
        assert_eq!(append(&cluster, group, shard, record(i, 16 << 10)).await, i as u64);
    }
    for i in 0..3 {
        cluster.stop(i).await;
        cluster.restart(i).await;
        cluster.node(i).ready(BOUND).await.unwrap();
    }
    for i in 300..310 {
        assert_eq!(append(&cluster, group, shard, record(i, 100)).await, i as u64);
    }
    // Every replica comes to the same state.
    for node in cluster.nodes.iter().flatten() {
        let handle = node.groups().get(group).unwrap();
        eventually("every replica to have applied all", || {
            handle.state(|g| g.shard(shard).filter(|s| s.next.0 == 310).map(|_| ()))
        })
        .await;
        assert_eq!(handle.state(|g| g.check()), vec![]);
    }
    cluster.stop_all().await;
}

/// Every record of the shard as this replica reads it: through its index, from its log.
async fn read_all(handle: &GroupHandle, shard: ShardId) -> Vec<(u64, String)> {
    let index = handle.index();
    let mut out = Vec::new();
    let (mut at, next) = handle.state(|g| g.shard(shard).map(|s| (s.trimmed, s.next)).unwrap());
    while at < next {
        let entry = index.seek(handle.id(), shard, at).unwrap().expect("the index covers what is readable");
        assert!(entry.holds(at), "a gap in the index at {at:?}: {entry:?}");
        let read = handle.read_entries(entry.log_index..entry.log_index + 1, 1).await.unwrap();
        let records = braid_stream::batch::BatchView::records_at(read[0].payload(), entry.pos).unwrap();
        for (offset, record) in (entry.first.0..).zip(records) {
            if offset >= at.0 {
                out.push((offset, record.unwrap().partition_key.as_str().to_string()));
            }
        }
        at = entry.end();
    }
    out
}

fn keys(range: std::ops::Range<usize>) -> Vec<(u64, String)> {
    range.map(|i| (i as u64, format!("key-{i}"))).collect()
}

/// Opens a stopped node's index, once the last of the node's tasks has let go of it.
async fn open_index(path: &std::path::Path) -> RocksIndex {
    let start = std::time::Instant::now();
    loop {
        match RocksIndex::open(path).await {
            Ok((index, _)) => return index,
            Err(e) => assert!(start.elapsed() < BOUND, "{e}"),
        }
        braid_env::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Hard rule: the record index is derived. Deleted, or ahead of the log, it answers the same after
/// the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_index_and_one_ahead_of_the_log_are_rebuilt() {
    let mut cluster = TestCluster::start().await;
    create_stream(&cluster, "sensors", 1).await;
    let (shard, group) = shard_of(&cluster, "sensors");
    for i in 0..200 {
        append(&cluster, group, shard, record(i, 16 << 10)).await;
    }
    // Node 1 loses its index.
    cluster.stop(0).await;
    let gone = cluster.data_dir(0).join("index");
    // The database is closed by whichever task of the old node ends last.
    eventually("the index to be removable", || std::fs::remove_dir_all(&gone).ok()).await;
    cluster.restart(0).await;
    // Node 2's index says more than its log does, under a mark that is ahead as well.
    cluster.stop(1).await;
    {
        let index = open_index(&cluster.data_dir(1).join("index")).await;
        let last = index.seek(group, shard, Offset(u64::MAX)).unwrap().unwrap();
        let lie = |first: u64| braid_node::index::IndexEntry { first: Offset(first), log_index: 10_000, ..last };
        index.put(group, &[lie(190), lie(205), lie(230)]).unwrap();
        index.flush(group, 10_000).unwrap();
    }
    cluster.restart(1).await;
    cluster.ready().await;
    for i in 200..210 {
        append(&cluster, group, shard, record(i, 100)).await;
    }
    for (i, node) in cluster.nodes.iter().flatten().enumerate() {
        let handle = node.groups().get(group).unwrap();
        eventually("every replica to have applied all", || {
            handle.state(|g| g.shard(shard).filter(|s| s.next.0 == 210).map(|_| ()))
        })
        .await;
        assert_eq!(read_all(&handle, shard).await, keys(0..210), "node {}", i + 1);
    }
    cluster.stop_all().await;
}

/// A follower that was away for many segments gets them from the log, not from a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_for_long_catches_up_from_the_log() {
    let mut cluster = TestCluster::start().await;
    create_stream(&cluster, "sensors", 1).await;
    let (shard, group) = shard_of(&cluster, "sensors");
    append(&cluster, group, shard, record(0, 100)).await;
    let away = {
        let leader = leader_of(&cluster, group).await.leader().unwrap().0 as usize - 1;
        (leader + 1) % 3
    };
    cluster.stop(away).await;
    for i in 1..400 {
        append(&cluster, group, shard, record(i, 16 << 10)).await;
    }
    cluster.restart(away).await;
    cluster.node(away).ready(BOUND).await.unwrap();
    let handle = cluster.node(away).groups().get(group).unwrap();
    eventually("the follower to catch up", || handle.state(|g| g.shard(shard).filter(|s| s.next.0 == 400).map(|_| ())))
        .await;
    assert_eq!(handle.replica().log().purged(), None, "it got a snapshot");
    assert!(handle.replica().log().segments().len() > 3, "the test wrote too little to roll segments");
    assert_eq!(read_all(&handle, shard).await, keys(0..400));
    cluster.stop_all().await;
}

/// Hard rule: what a new replica is given is the checkpoint at the trim point, and the log after it.
/// A checkpoint at the applied index would purge the retained records of the new replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_replaces_a_lost_one_and_gets_every_retained_record() {
    let mut cluster = TestCluster::start().await;
    create_stream(&cluster, "sensors", 1).await;
    let (shard, group) = shard_of(&cluster, "sensors");
    for i in 0..300 {
        append(&cluster, group, shard, record(i, 16 << 10)).await;
    }
    // Trim the first half, and wait until every replica has dropped log.
    let leader = leader_of(&cluster, group).await;
    let through = leader.index().seek(group, shard, Offset(150)).unwrap().unwrap().log_index - 1;
    let trim = Trim {
        at_ms: braid_env::time::wall_ms(),
        through: Some(through),
        shards: vec![ShardTrim { shard, below: Offset(150) }],
    };
    leader.propose(GroupCommand::Trim(trim)).await.unwrap();
    for node in cluster.nodes.iter().flatten() {
        let handle = node.groups().get(group).unwrap();
        eventually("the trim to be applied", || handle.state(|g| g.trimmed_through()).filter(|t| *t == through)).await;
        handle.replica().purge_before(through).await.unwrap();
        let log = handle.replica().log().clone();
        eventually("segments to be dropped", || log.purged().filter(|p| p.index <= through)).await;
    }
    // Node 3 is gone for good; node 4, with an empty disk, takes its place.
    cluster.stop(2).await;
    cluster.add_node(4, &crate::support::zone(2)).await;
    let catalog = eventually("a catalog leader", || {
        cluster.nodes.iter().flatten().filter_map(|n| n.groups().catalog()).find(|c| c.is_leader())
    })
    .await;
    eventually("node 4 to be registered", || catalog.state(|c| c.nodes().get(&NodeId(4)).map(|_| ()))).await;
    let replace = ReplaceNode { from: NodeId(3), to: NodeId(4) };
    catalog.propose(CatalogCommand::ReplaceNode(replace)).await.unwrap().unwrap();
    cluster.node(3).ready(BOUND).await.unwrap();
    let handle = cluster.node(3).groups().get(group).unwrap();
    eventually("node 4 to catch up", || handle.state(|g| g.shard(shard).filter(|s| s.next.0 == 300).map(|_| ()))).await;
    let purged = handle.replica().log().purged().expect("its log begins at the trim point");
    assert!(purged.index <= through, "retained log was purged: {purged:?}, trimmed through {through}");
    assert_eq!(read_all(&handle, shard).await, keys(150..300));
    // It votes: with node 2 gone as well, nodes 1 and 4 are the majority.
    eventually("node 4 to be a voter", || {
        let voters = handle.replica().status().replica.voters;
        (voters == [1, 2, 4]).then_some(())
    })
    .await;
    cluster.stop(1).await;
    assert_eq!(append(&cluster, group, shard, record(300, 100)).await, 300);
    cluster.stop_all().await;
}

/// Hard rule: `enable_leader_restore`. A leader that restarts stands for election; with openraft's
/// default it leads again in its old term, and can write another entry under a log id that its
/// followers have committed. A node by itself shows it: nobody else can have been elected, and
/// there is nobody to hand the leadership to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_leader_never_leads_in_its_old_term() {
    let mut cluster = TestCluster::start_nodes(1, |_| {}).await;
    create_stream(&cluster, "sensors", 1).await;
    let (shard, group) = shard_of(&cluster, "sensors");
    append(&cluster, group, shard, record(0, 100)).await;
    let term = leader_of(&cluster, group).await.term();
    cluster.stop(0).await;
    cluster.restart(0).await;
    cluster.ready().await;
    let after = leader_of(&cluster, group).await.term();
    assert!(after > term, "term {after} after term {term}");
    assert_eq!(append(&cluster, group, shard, record(1, 100)).await, 1);
    cluster.stop_all().await;
}

/// A node id is never used again with an empty disk: it could vote twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_node_id_with_an_empty_disk_is_refused() {
    let mut cluster = TestCluster::start().await;
    cluster.stop(2).await;
    let gone = cluster.data_dir(2);
    eventually("the disk to be emptied", || std::fs::remove_dir_all(&gone).ok()).await;
    cluster.restart(2).await;
    let why = cluster.node(2).ready(BOUND).await.unwrap_err();
    assert!(why.contains("node id is never used again with an empty disk"), "{why}");
    cluster.stop_all().await;
}

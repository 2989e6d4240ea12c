//! Looks into the replicas at the end of a run: whether log, index, checkpoints and state tell one story.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use braid_env::{task, time};
use braid_log::{Entry, LogId};
use braid_node::Node;
use braid_node::index::RecordIndex;
use braid_node::replication::{CatalogHandle, GroupReplica, State, checkpoint_state};
use braid_stream::ShardState;
use braid_stream::catalog::{Catalog, Stream, StreamShard};
use braid_stream::ids::{GroupId, NodeId};

use crate::checkers::Violation;
use crate::checkers::agreement::{self, ReplicaFacts};
use crate::checkers::members::{self, Members};
use crate::checkers::{rest, settings};
use crate::world::World;

/// Bytes of log read at a time.
const PIECE: usize = 1 << 20;

/// How often a replica that changes while it is looked at is looked at again.
const ATTEMPTS: u32 = 3;

/// How long a replica that was just started may take to catch up.
const CAUGHT_UP: Duration = Duration::from_secs(30);

/// How long what the catalog has decided may take to be carried out, when all is well.
const CARRIED_OUT: Duration = Duration::from_secs(120);

/// How long nothing may have happened in a cluster at rest: two rounds of balancing, and some.
const QUIET: Duration = Duration::from_secs(12);

/// How long a cluster may take to come to rest.
const AT_REST: Duration = Duration::from_secs(72);

/// Of how many moments of a stream it is asked what was open then.
const MOMENTS_MAX: usize = 40;

/// Every replica of these nodes, once all of a group have applied the same, or don't within half a minute.
pub async fn replicas(world: &World, nodes: &[u64]) -> Vec<Violation> {
    let until = time::Instant::now() + CAUGHT_UP;
    let newest = loop {
        let (newest, even) = newest_applied(world, nodes);
        if even || time::Instant::now() >= until {
            break Arc::new(newest);
        }
        time::sleep(Duration::from_millis(500)).await;
    };
    let mut wrong = Vec::new();
    for &number in nodes {
        let Some(node) = world.node(number) else { continue };
        let seams = world.machines()[&number].process.as_ref().map(|process| process.seams.clone());
        let Some(seams) = seams else { continue };
        let index = world.machines()[&number].index.clone();
        let looking = {
            // In the node's own world: the files are on its disk.
            let _there = seams.enter();
            let newest = newest.clone();
            task::spawn(async move { node_facts(number, &node, index.as_ref(), &newest).await })
        };
        wrong.extend(looking.await.unwrap_or_default());
    }
    wrong
}

/// Groups whose voters are not the replicas that the catalog names, even after two minutes. A group
/// without a leader, or with a replica on a node that is gone, is not judged.
pub async fn members(world: &World, nodes: &[u64]) -> Vec<Violation> {
    let differing = || {
        let members = members_now(world, nodes);
        let wrong: Vec<Violation> = members.iter().filter(|it| !it.agree()).map(Members::violation).collect();
        wrong.into_iter().chain(moving_now(world, nodes)).collect()
    };
    carried_out(differing).await
}

/// A replica that is on its way between nodes that are there, or should be.
fn moving_now(world: &World, nodes: &[u64]) -> Option<Violation> {
    let catalog = newest_catalog(&running(world, nodes))?;
    let next = catalog.state(|c| c.moving().or(c.next_move()?.ok()))?;
    let replicas = catalog.state(|c| c.placement().get(&next.group).cloned().unwrap_or_default());
    let there = |node: &NodeId| nodes.contains(&node.0);
    (there(&next.to) && replicas.iter().all(there)).then(|| members::on_its_way(&next.to_string()))
}

/// Shards that do not have the settings of their stream, even after two minutes.
pub async fn settings(world: &World, nodes: &[u64]) -> Vec<Violation> {
    carried_out(|| settings_now(world, nodes)).await
}

/// What there is to say once there is nothing, or after two minutes.
async fn carried_out(wrong_now: impl Fn() -> Vec<Violation>) -> Vec<Violation> {
    let until = time::Instant::now() + CARRIED_OUT;
    loop {
        let wrong = wrong_now();
        if wrong.is_empty() || time::Instant::now() >= until {
            return wrong;
        }
        time::sleep(Duration::from_secs(1)).await;
    }
}

/// Groups that go on electing leaders, although nothing happens any more.
pub async fn rest(world: &World, nodes: &[u64]) -> Vec<Violation> {
    let until = time::Instant::now() + AT_REST;
    let mut before = terms_now(world, nodes);
    loop {
        time::sleep(QUIET).await;
        let now = terms_now(world, nodes);
        let restless = rest::restless(&before, &now);
        if restless.is_empty() || time::Instant::now() >= until {
            return restless;
        }
        before = now;
    }
}

fn terms_now(world: &World, nodes: &[u64]) -> rest::Terms {
    let mut terms = rest::Terms::new();
    for (_, node) in running(world, nodes) {
        for replica in node.groups().all() {
            let term = terms.entry(replica.id().0).or_default();
            *term = replica.status().replica.term.max(*term);
        }
    }
    terms
}

fn settings_now(world: &World, nodes: &[u64]) -> Vec<Violation> {
    let here = running(world, nodes);
    let Some(catalog) = newest_catalog(&here) else { return Vec::new() };
    let streams: Vec<Stream> = catalog.state(|catalog| catalog.streams().cloned().collect());
    let mut wrong = Vec::new();
    for (number, node) in &here {
        let running = node.groups().all().into_iter().filter(|replica| replica.status().replica.running.is_ok());
        // One that left hears of nothing any more, and stays while another of its group is on its way (seed 740002035).
        let belong = catalog.state(|catalog| catalog.groups_on(NodeId(*number)));
        let groups = running.map(|replica| replica.id()).filter(|group| belong.contains(group));
        for group in groups.filter_map(|group| node.groups().get(group)) {
            group.state(|group| {
                for stream in &streams {
                    let said = (stream.retention_ms, stream.limits.resolve());
                    let other = group.shards_of(stream.id).find(|shard| (shard.retention_ms, shard.limits) != said);
                    wrong.extend(other.map(|shard| {
                        let has = format!("{:?}", (shard.retention_ms, shard.limits));
                        settings::violation(*number, &shard.id.to_string(), &has, &format!("{said:?}"))
                    }));
                }
            });
        }
    }
    wrong
}

/// Those of `nodes` that run.
fn running(world: &World, nodes: &[u64]) -> Vec<(u64, Arc<Node>)> {
    nodes.iter().filter_map(|n| Some((*n, world.node(*n)?))).collect()
}

/// When shards were closed, of each stream: the latest of these moments, milliseconds since the epoch.
pub fn closed(world: &World, nodes: &[u64]) -> Vec<(String, Vec<u64>)> {
    let Some(catalog) = newest_catalog(&running(world, nodes)) else { return Vec::new() };
    let closed_at = |shard: &StreamShard| match shard.state {
        ShardState::Closed { at_ms, .. } => Some(at_ms),
        ShardState::Open => None,
    };
    catalog.state(|catalog| {
        let of_stream = |stream: &Stream| {
            let moments: BTreeSet<u64> = stream.shards.values().filter_map(closed_at).collect();
            (stream.name.to_string(), moments.into_iter().rev().take(MOMENTS_MAX).collect())
        };
        catalog.streams().map(of_stream).collect()
    })
}

/// The replica of the catalog that has applied the most.
fn newest_catalog(here: &[(u64, Arc<Node>)]) -> Option<CatalogHandle> {
    let catalogs = here.iter().filter_map(|(_, node)| node.groups().catalog());
    catalogs.max_by_key(|catalog| *catalog.applied().borrow())
}

fn members_now(world: &World, nodes: &[u64]) -> Vec<Members> {
    let here = running(world, nodes);
    let Some(catalog) = newest_catalog(&here) else { return Vec::new() };
    let groups = catalog.state(Catalog::placement);
    let mut found = Vec::new();
    for (id, replicas) in groups {
        let named: BTreeSet<u64> = replicas.iter().map(|node| node.0).collect();
        let leader = here.iter().find_map(|(number, node)| {
            let status = node.groups().replica(id)?.status().replica;
            (status.leader == Some(*number)).then_some(status)
        });
        let Some(leader) = leader.filter(|_| named.iter().all(|node| nodes.contains(node))) else { continue };
        found.push(Members { group: id.0, named, voters: leader.voters.into_iter().collect() });
    }
    found
}

/// The newest entry that any running replica of each group has applied, and whether all have applied that.
fn newest_applied(world: &World, nodes: &[u64]) -> (BTreeMap<GroupId, u64>, bool) {
    let mut newest: BTreeMap<GroupId, u64> = BTreeMap::new();
    let mut even = true;
    for node in nodes.iter().filter_map(|number| world.node(*number)) {
        for replica in node.groups().all() {
            let status = replica.status().replica;
            let known = *newest.entry(replica.id()).or_insert(status.applied);
            even &= status.running.is_err() || known == status.applied;
            newest.insert(replica.id(), known.max(status.applied));
        }
    }
    (newest, even)
}

async fn node_facts(
    number: u64,
    node: &Node,
    index: &dyn RecordIndex,
    newest: &BTreeMap<GroupId, u64>,
) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for replica in node.groups().all() {
        for _ in 0..ATTEMPTS {
            // A log that is trimmed or moves on meanwhile is read again.
            let newest = newest.get(&replica.id()).copied().unwrap_or(0);
            if let Some(found) = replica_facts(number, &replica, index, newest).await {
                wrong.extend(found);
                break;
            }
        }
    }
    wrong
}

/// `None` if it changed meanwhile, or can't be read.
async fn replica_facts(
    number: u64,
    replica: &GroupReplica,
    index: &dyn RecordIndex,
    newest: u64,
) -> Option<Vec<Violation>> {
    let log = replica.log();
    let purged = log.purged();
    let mut checkpoints: Vec<(LogId, State)> = Vec::new();
    let listed = log.checkpoints().await.ok()?;
    if purged.is_some() && listed.good.is_empty() && !listed.damaged.is_empty() {
        // A trimmed log whose every checkpoint was damaged: there is nothing to begin from.
        return Some(Vec::new());
    }
    for info in listed.good {
        let (last, bytes) = log.load_checkpoint(info.seq).await.ok()?;
        checkpoints.push((last, checkpoint_state(last, &bytes).ok()?));
    }
    let first = log.first_index();
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = entries.last().map_or(first, |entry| entry.id().index + 1);
        let piece = log.read(next..u64::MAX, PIECE).await.ok()?;
        if piece.is_empty() {
            break;
        }
        entries.extend(piece);
    }
    // At one moment: what was read is of now if the log is as it was.
    let state = replica.with_state(State::clone);
    let applied = match &state {
        State::Data(group) => group.applied(),
        // The first entry is a membership, which leaves the catalog as it is.
        State::Catalog(_) => Some(*replica.applied().borrow()).filter(|_| log.last_id().is_some()),
    };
    let end = entries.last().map(|entry| entry.id()).or(purged);
    if log.purged() != purged || log.last_id() != end || replica.status().replica.running.is_err() {
        return None;
    }
    // A purge is recorded before the checkpoints below it are removed.
    let is_left = |last: &LogId| purged.is_none_or(|purged| last.index >= purged.index);
    checkpoints.retain(|(last, _)| is_left(last) && applied.is_some_and(|applied| last.index <= applied));
    let group = replica.id().0;
    Some(match &state {
        State::Data(data) => {
            let checkpoints = of_kind(&checkpoints, |state| match state {
                State::Data(group) => Some(group.clone()),
                State::Catalog(_) => None,
            });
            let (entries, checkpoints) = (&entries[..], &checkpoints[..]);
            let facts = ReplicaFacts { node: number, group, entries, checkpoints, applied, state: data };
            agreement::check(&facts, Some(index).filter(|_| applied.unwrap_or(0) >= newest))
        }
        State::Catalog(catalog) => {
            let checkpoints = of_kind(&checkpoints, |state| match state {
                State::Catalog(catalog) => Some(catalog.as_ref().clone()),
                State::Data(_) => None,
            });
            let (entries, checkpoints) = (&entries[..], &checkpoints[..]);
            let facts = ReplicaFacts { node: number, group, entries, checkpoints, applied, state: catalog };
            agreement::check_catalog(&facts)
        }
    })
}

/// The checkpoints whose state is of the group's kind.
fn of_kind<S>(checkpoints: &[(LogId, State)], kind: impl Fn(&State) -> Option<S>) -> Vec<(LogId, S)> {
    checkpoints.iter().filter_map(|(last, state)| Some((*last, kind(state)?))).collect()
}

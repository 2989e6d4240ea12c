//! A client that describes, lists, moves leaderships and replicas, changes settings, splits and merges, and lets streams come and go.

use std::sync::Arc;
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_stream::IteratorKind;
use braid_stream::hash::HashKey;
use futures_util::future::join_all;

use super::node_client::{PutStyle, put_call};
use super::records::Records;
use super::spec::{AdminSpec, KeySpec, SizeSpec, StreamSpec};
use super::{Actor, RETRY, create};
use crate::history::{Admin, AdminDone, ClientId, OpenAt, Reason, ShardKey};

/// How long one stream may take to come or to go, before the client turns to something else.
const PATIENCE: Duration = Duration::from_secs(30);

/// Open shards of a stream above which none is split.
const OPEN_MAX: usize = 10;

/// Retentions that streams are given.
const RETENTIONS_MS: [u64; 4] = [12_000, 25_000, 60_000, 86_400_000];

pub async fn work(mut actor: Actor, spec: AdminSpec, doomed: Vec<StreamSpec>) {
    let mut churned = 0;
    while !actor.is_over() {
        let roll = actor.dice.between(0, 99) as u32;
        let (churn, doom) = (spec.transfer_percent + spec.churn_percent, spec.doom_percent);
        if roll < spec.transfer_percent {
            transfer(&mut actor).await;
        } else if roll < churn {
            churned += 1;
            churn_stream(&mut actor, churned).await;
        } else if roll < churn + doom && !doomed.is_empty() {
            let it = actor.dice.one_of(&doomed).clone();
            doom_stream(&mut actor, &it).await;
        } else if roll < churn + doom + spec.update_percent {
            update(&mut actor).await;
        } else if roll < churn + doom + spec.update_percent + spec.reshard_percent {
            reshard(&mut actor).await;
        } else if actor.dice.between(0, 99) < u64::from(spec.move_percent) {
            move_replicas(&mut actor, spec.move_percent == 100).await;
        } else {
            look(&mut actor).await;
        }
        actor.rest_us(spec.interval_ms * 1_000).await;
        actor.maybe_pause().await;
    }
}

async fn look(actor: &mut Actor) {
    let stream = actor.dice.one_of(&actor.scene.streams.clone()).clone();
    let call = match actor.dice.between(0, 6) {
        0 => Admin::ListStreams,
        1 => Admin::ClusterStatus,
        2 => Admin::ListShards { stream },
        3 | 4 => Admin::ListOpen { stream, at: moment(actor) },
        _ => Admin::Describe { stream },
    };
    let node = actor.node();
    // What it says is in the history.
    let _ = actor.calls.admin(node, call).await;
}

fn moment(actor: &mut Actor) -> OpenAt {
    match actor.dice.between(0, 3) {
        0 => OpenAt::Latest,
        1 => OpenAt::TrimHorizon,
        _ => OpenAt::Time(time::wall_ms().saturating_sub(actor.dice.between(0, 40_000))),
    }
}

/// Another retention for one of the streams, shorter or longer.
async fn update(actor: &mut Actor) {
    let stream = actor.dice.one_of(&actor.scene.streams.clone()).clone();
    let retention_ms = *actor.dice.one_of(&RETENTIONS_MS);
    let node = actor.node();
    let _ = actor.calls.admin(node, Admin::Update { stream, retention_ms }).await;
}

/// Splits a shard, anywhere, or merges two that are adjacent, or says how many there are to be.
async fn reshard(actor: &mut Actor) {
    let stream = actor.dice.one_of(&actor.scene.streams.clone()).clone();
    let node = actor.node();
    let whole = match actor.dice.between(0, 9) {
        0..=2 => {
            let shards = actor.dice.between(1, OPEN_MAX as u64) as u32;
            Some(Admin::Scale { stream: stream.clone(), shards, halves: actor.dice.percent(40) })
        }
        3 => {
            let min = actor.dice.between(1, 4) as u32;
            let bounds = actor.dice.percent(60).then_some((min, min + 4));
            Some(Admin::Autoscale { stream: stream.clone(), bounds })
        }
        _ => None,
    };
    if let Some(call) = whole {
        let _ = actor.calls.admin(node, call).await;
        return;
    }
    let listed = actor.calls.admin(node, Admin::ListShards { stream: stream.clone() }).await;
    let Ok(AdminDone::Shards(listing)) = listed else { return };
    let mut open: Vec<_> = listing.shards.into_iter().filter(|shard| shard.ending.is_none()).collect();
    open.sort_by_key(|shard| shard.range.start());
    if open.is_empty() {
        return;
    }
    let node = actor.node();
    let call = if open.len() > 1 && (open.len() >= OPEN_MAX || actor.dice.percent(40)) {
        let nth = actor.dice.between(1, open.len() as u64 - 1) as usize;
        let (lower, upper) = (open[nth - 1].name.clone(), open[nth].name.clone());
        let (shard, adjacent) = if actor.dice.percent(50) { (lower, upper) } else { (upper, lower) };
        Admin::Merge { stream, shard, adjacent }
    } else {
        let it = actor.dice.one_of(&open).clone();
        let (start, end) = (it.range.start().0, it.range.end().0);
        let within = u128::from(actor.dice.u64()) << 64 | u128::from(actor.dice.u64());
        let at = match actor.dice.between(0, 9) {
            0..=4 => None,
            // Also where it may not be.
            5 => Some(HashKey(start)),
            6 => Some(HashKey(end)),
            _ => Some(HashKey(start + within % (end - start).max(1))),
        };
        Admin::Split { stream, shard: it.name, at }
    };
    let _ = actor.calls.admin(node, call).await;
}

/// Drains a node, or lets it keep what it has, or evens out. Which nodes there are is not asked: some will be refused.
/// Who does nothing else mostly makes room first.
async fn move_replicas(actor: &mut Actor, always: bool) {
    let (node, last) = (actor.node(), actor.calls.nodes() as u64 + 1);
    let of = actor.dice.between(1, last);
    let call = match actor.dice.between(0, 9) {
        0..=4 => {
            if always && actor.dice.percent(60) {
                // What it has finds a place then.
                let others = (1..=last).filter(|other| *other != of);
                let keep = others.map(|node| Admin::Drain { node, cancel: true });
                let _ = join_all(keep.map(|call| actor.calls.admin(node, call))).await;
            }
            Admin::Drain { node: of, cancel: false }
        }
        5 | 6 => Admin::Drain { node: of, cancel: true },
        _ => Admin::Rebalance,
    };
    let _ = actor.calls.admin(node, call).await;
}

async fn transfer(actor: &mut Actor) {
    let node = actor.node();
    let groups: Vec<(u32, Vec<u64>)> = match actor.calls.groups_of(node).await {
        Ok(groups) => groups.into_iter().filter(|(_, nodes)| !nodes.is_empty()).collect(),
        Err(_) => return,
    };
    if groups.is_empty() {
        return;
    }
    let (group, nodes) = actor.dice.one_of(&groups);
    let to = *actor.dice.one_of(nodes);
    let _ = actor.calls.admin(node, Admin::TransferLeader { group: *group, to }).await;
}

/// A small stream of its own: created, written, read by nobody, deleted, and sometimes created again.
async fn churn_stream(actor: &mut Actor, nth: u32) {
    let name = format!("churn-{}-{nth}", actor.spec.id);
    let stream = actor.scene.recorder.intern(&name);
    let lives = actor.dice.between(1, 3);
    for life in 0..lives {
        // Mostly one more than before: a node that has only heard of an earlier one does not know the last shard.
        let shards = actor.dice.between(1, 2) as u32 + life as u32;
        let spec = StreamSpec { name: name.clone(), shards, retention_ms: 0, doomed: true, quiet_ms: 0 };
        let until = actor.scene.until.min(Instant::now() + PATIENCE);
        let node = actor.node();
        if !create(&actor.calls, node, &spec, until).await {
            return;
        }
        ask_around(actor, &spec).await;
        write_some(actor, &stream).await;
        if actor.dice.percent(30) || !delete(actor, &stream).await {
            return;
        }
    }
}

async fn doom_stream(actor: &mut Actor, spec: &StreamSpec) {
    let stream = actor.scene.recorder.intern(&spec.name);
    if actor.dice.percent(40) {
        // Deleted with shards that are still to be split.
        let call = Admin::Scale { stream: stream.clone(), shards: spec.shards * 2, halves: false };
        let node = actor.node();
        let _ = actor.calls.admin(node, call).await;
    }
    if delete(actor, &stream).await {
        if actor.dice.percent(50) {
            actor.rest(Duration::from_secs(5)).await;
        }
        let node = actor.node();
        let until = actor.scene.until.min(Instant::now() + PATIENCE);
        if create(&actor.calls, node, spec, until).await && actor.dice.percent(50) {
            ask_around(actor, spec).await;
        }
    }
}

/// Asks every node at once for the last shard of a stream that was just created: some may not have heard of it.
async fn ask_around(actor: &Actor, spec: &StreamSpec) {
    let last = ShardKey::name_of(spec.shards - 1);
    let asked =
        (0..actor.calls.nodes()).map(|node| actor.calls.iterator(node, &spec.name, &last, IteratorKind::Latest));
    // What they say is in the history.
    let _ = join_all(asked).await;
}

async fn write_some(actor: &mut Actor, stream: &Arc<str>) {
    let keys = KeySpec { count: 5, hot_percent: 0, explicit_percent: 20, shared: false };
    let sizes = SizeSpec { usual_bytes: 200, large_permille: 0, huge_permyriad: 0 };
    let mut records = Records::new(&actor.scene.recorder, ClientId(actor.spec.id), 0, keys, sizes);
    let style = PutStyle::Batch { keep_order: false };
    for _ in 0..actor.dice.between(0, 5) {
        let count = actor.dice.between(1, 20);
        let (sent, data) = (0..count).map(|_| records.next(&mut actor.dice)).unzip();
        let node = actor.node();
        let outcomes = actor.calls.put(node, put_call(stream, sent, style), data, style).await;
        actor.scene.known.hear_outcomes(&mut actor.dice, stream, &outcomes);
        actor.rest(RETRY).await;
    }
}

/// Asks for a stream's deletion and waits until it is gone. False if that was not seen.
async fn delete(actor: &mut Actor, stream: &Arc<str>) -> bool {
    let until = actor.scene.until.min(Instant::now() + PATIENCE);
    let mut asked = false;
    while Instant::now() < until {
        let node = actor.node();
        if !asked {
            asked = match actor.calls.admin(node, Admin::Delete { stream: stream.clone() }).await {
                Ok(_) => true,
                Err(failed) => failed.refused && failed.reason == Reason::StreamNotFound,
            };
        } else {
            let described = actor.calls.admin(node, Admin::Describe { stream: stream.clone() }).await;
            if matches!(described, Err(failed) if failed.refused && failed.reason == Reason::StreamNotFound) {
                return true;
            }
        }
        time::sleep(RETRY).await;
    }
    false
}

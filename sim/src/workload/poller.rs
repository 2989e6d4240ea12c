//! A client that reads shards with iterators of every kind, through GetRecords.

use std::sync::Arc;
use std::time::Duration;

use braid_stream::IteratorKind;

use super::spec::{Habit, PollerSpec};
use super::{Actor, RETRY};
use crate::history::{OpId, Reason};

/// How often a page that fails is asked for again.
const RETRIES: u32 = 10;

pub async fn work(mut actor: Actor, spec: PollerSpec) {
    while !actor.is_over() {
        let stream = match actor.dice.percent(80) {
            true => actor.stream(),
            false => actor.dice.one_of(&actor.scene.streams.clone()).clone(),
        };
        let shards = actor.shards(&stream).await;
        if shards.is_empty() {
            actor.rest(RETRY).await;
            continue;
        }
        let shard = actor.dice.one_of(&shards).clone();
        let kind = match spec.habit {
            Habit::Any => actor.scene.known.begin(&mut actor.dice, &stream, &shard),
            Habit::Horizon => IteratorKind::TrimHorizon,
            Habit::Latest => IteratorKind::Latest,
        };
        read(&mut actor, &spec, &stream, &shard, kind).await;
        actor.rest_us(spec.interval_ms * 1_000).await;
        actor.maybe_pause().await;
    }
}

/// One chain of pages, and on with a new iterator where one is lost.
async fn read(actor: &mut Actor, spec: &PollerSpec, stream: &Arc<str>, shard: &Arc<str>, kind: IteratorKind) {
    let mut kind = kind;
    let mut pages = spec.pages_max;
    while pages > 0 && !actor.is_over() {
        let node = actor.node();
        let Ok((iterator, token)) = actor.calls.iterator(node, stream, shard, kind).await else {
            actor.rest(RETRY).await;
            return;
        };
        // Now and then an iterator is kept for long before it is used.
        if spec.habit == Habit::Any && actor.dice.percent(5) {
            actor.rest(Duration::from_secs(20)).await;
        }
        match chain(actor, spec, stream, shard, (iterator, token), &mut pages).await {
            Some(last) => kind = last,
            None => return,
        }
    }
}

/// Pages from one iterator on. Gives where to go on if the iterator is lost.
async fn chain(
    actor: &mut Actor,
    spec: &PollerSpec,
    stream: &Arc<str>,
    shard: &Arc<str>,
    (iterator, mut token): (OpId, String),
    pages: &mut u32,
) -> Option<IteratorKind> {
    let (mut last, mut failures) = (None, 0);
    while *pages > 0 && !actor.is_over() {
        *pages -= 1;
        let limit = match actor.dice.percent(10) || spec.habit == Habit::Horizon {
            true => 0,
            false => actor.dice.between(1, u64::from(spec.limit_max.max(1))) as u32,
        };
        let node = actor.node();
        match actor.calls.records(node, iterator, &token, limit).await {
            Ok((page, next)) => {
                failures = 0;
                if let Some(seen) = page.records.last() {
                    last = Some(IteratorKind::AfterSequence(seen.number));
                    actor.scene.known.hear(&mut actor.dice, stream, shard, seen.number, seen.arrival_ms);
                }
                token = next?;
                // A renewed iterator in the middle is as good as the old one.
                if last.is_some() && actor.dice.percent(5) {
                    return last;
                }
            }
            Err(failed) if matches!(failed.reason, Reason::IteratorExpired | Reason::IteratorInvalid) => return last,
            Err(failed)
                if matches!(failed.reason, Reason::StreamNotFound | Reason::ShardNotFound | Reason::ShardForgotten) =>
            {
                return None;
            }
            Err(_) => {
                failures += 1;
                if failures > RETRIES {
                    return None;
                }
                actor.rest(RETRY).await;
            }
        }
        actor.rest_us(spec.interval_ms * 1_000).await;
    }
    None
}

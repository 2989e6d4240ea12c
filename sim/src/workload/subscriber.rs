//! A client that subscribes to shards.

use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use braid_stream::IteratorKind;

use super::spec::SubscriberSpec;
use super::{Actor, RETRY};

/// An idle subscription says so every 5 s; after this much silence it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(16);

pub async fn work(mut actor: Actor, spec: SubscriberSpec) {
    while !actor.is_over() {
        let stream = actor.stream();
        let shards = actor.shards(&stream).await;
        if shards.is_empty() {
            actor.rest(RETRY).await;
            continue;
        }
        let shard = actor.dice.one_of(&shards).clone();
        let mut kind = actor.scene.known.begin(&mut actor.dice, &stream, &shard);
        // Go on where the last one ended, a few times.
        for _ in 0..actor.dice.between(1, 5) {
            match subscribe(&mut actor, &spec, &stream, &shard, kind).await {
                Some(next) if !actor.is_over() => kind = next,
                _ => break,
            }
        }
        actor.maybe_pause().await;
    }
}

/// One subscription. Gives where to go on, if it had an event.
async fn subscribe(
    actor: &mut Actor,
    spec: &SubscriberSpec,
    stream: &Arc<str>,
    shard: &Arc<str>,
    kind: IteratorKind,
) -> Option<IteratorKind> {
    let node = actor.node();
    let Ok(mut subscription) = actor.calls.subscribe(node, stream, shard, kind).await else {
        actor.rest(RETRY).await;
        return None;
    };
    let give_up = Instant::now() + Duration::from_millis(actor.dice.between(100, spec.keep_ms.max(101)));
    let give_up = give_up.min(actor.scene.until);
    let mut next = None;
    loop {
        let left = give_up - Instant::now();
        if left.is_zero() {
            actor.calls.unsubscribe(subscription);
            return next;
        }
        let event = actor.calls.next_event(&mut subscription, shard, SILENCE_MAX.min(left)).await?;
        if let Some(number) = event.continuation {
            next = Some(IteratorKind::AfterSequence(number));
        }
        if let Some(seen) = event.records.last() {
            actor.scene.known.hear(&mut actor.dice, stream, shard, seen.number, seen.arrival_ms);
        }
    }
}

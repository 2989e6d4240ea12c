//! A client that puts records by raw calls.

use std::time::Duration;

use braid_env::time::Instant;
use bytes::Bytes;

use super::node_client::{PutStyle, put_call};
use super::records::{Records, data_of};
use super::spec::{PaceSpec, WriterSpec};
use super::{Actor, RETRY};
use crate::history::{ClientId, Outcome, Sent};

/// How often what failed is sent again.
const RETRIES: usize = 4;

/// PutRecords takes 5 MiB; a batch stops growing here, so that one more record of 1 MiB fits.
const BATCH_BYTES: u64 = 3 << 20;

/// One of the writer's lanes: a call at a time.
pub async fn lane(mut actor: Actor, spec: WriterSpec, lane: u32) {
    let client = ClientId(actor.spec.id);
    let mut records = Records::new(&actor.scene.recorder, client, lane, spec.keys, spec.sizes);
    let lanes = u64::from(spec.lanes.max(1));
    actor.wait_for_quiet().await;
    while !actor.is_over() {
        let count = actor.dice.between(1, u64::from(spec.batch_max.max(1)));
        let batch = draw(&mut actor, &mut records, count);
        let sent = batch.len() as u64;
        put(&mut actor, &spec, batch).await;
        let rate = records_per_s(&spec.pace, actor.scene.started);
        actor.rest_us(sent * lanes * 1_000_000 / rate).await;
        actor.maybe_pause().await;
    }
}

/// The rate now, at least 1: the usual one, or a burst's.
pub fn records_per_s(pace: &PaceSpec, started: Instant) -> u64 {
    let bursting = pace.burst.filter(|burst| {
        let since = started.elapsed().as_millis() as u64;
        since % burst.every_ms.max(1) < burst.for_ms
    });
    u64::from(bursting.map_or(pace.records_per_s, |burst| burst.records_per_s)).max(1)
}

fn draw(actor: &mut Actor, records: &mut Records, count: u64) -> Vec<(Sent, Bytes)> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while (batch.len() as u64) < count && bytes < BATCH_BYTES {
        let (sent, data) = records.next(&mut actor.dice);
        bytes += u64::from(sent.size);
        batch.push((sent, data));
    }
    batch
}

/// Puts a batch, and again what failed, as far as the writer does that.
async fn put(actor: &mut Actor, spec: &WriterSpec, batch: Vec<(Sent, Bytes)>) {
    let stream = actor.stream();
    let style = match spec.batch_max {
        0 | 1 => PutStyle::Single,
        _ => PutStyle::Batch { keep_order: spec.keep_order },
    };
    let mut left = batch;
    for _ in 0..=RETRIES {
        let (sent, data): (Vec<Sent>, Vec<Bytes>) = left.into_iter().unzip();
        let node = actor.node();
        let outcomes = actor.calls.put(node, put_call(&stream, sent.clone(), style), data, style).await;
        actor.scene.known.hear_outcomes(&mut actor.dice, &stream, &outcomes);
        let again = |outcome: &Outcome| match outcome {
            Outcome::Acked { .. } => false,
            Outcome::Refused { .. } => spec.retry_refused,
            Outcome::Unknown { .. } => spec.retry_unknown,
        };
        let failed = sent.into_iter().zip(outcomes.iter()).filter(|(_, outcome)| again(outcome));
        left = failed.map(|(sent, _)| sent).map(|sent| (sent.clone(), data_of(actor.calls.client, &sent))).collect();
        if left.is_empty() || actor.is_over() {
            return;
        }
        let wait: Duration = RETRY;
        actor.rest(wait).await;
    }
}

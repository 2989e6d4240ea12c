//! A client that reads a whole stream through the library's consumer.

use std::time::Duration;

use braid_client::{Client, ConsumerError, ConsumerOptions, ShardBatch};
use braid_env::time::{self, Instant};
use braid_stream::IteratorKind;

use super::producer::options;
use super::spec::ConsumerSpec;
use super::{Actor, RETRY};
use crate::history::{Call, Failed, Page, Reason, Recorder, Returned, Seen, Via};
use crate::payload::Payload;

pub async fn work(mut actor: Actor, spec: ConsumerSpec) {
    while !actor.is_over() {
        let endpoints = actor.scene.endpoints.clone();
        if let Ok(client) = Client::connect(endpoints, options(actor.spec.deadline_ms)).await {
            consume(&mut actor, &spec, client).await;
        }
        actor.rest(RETRY).await;
        actor.maybe_pause().await;
    }
}

async fn consume(actor: &mut Actor, spec: &ConsumerSpec, client: Client) {
    let stream = actor.stream();
    let kind = match spec.latest {
        true => IteratorKind::Latest,
        false => IteratorKind::TrimHorizon,
    };
    let consumer_options = ConsumerOptions {
        start: kind,
        subscribe: spec.subscribe,
        max_poll_records: spec.poll_max,
        poll_interval: Duration::from_millis(spec.poll_interval_ms),
        ..ConsumerOptions::default()
    };
    let recorder = actor.scene.recorder.clone();
    let op = recorder.invoke(actor.calls.client, Via::Library, Call::Consume { stream: stream.clone(), kind });
    let failed = |error: ConsumerError| {
        let why = error.to_string();
        Returned::Failed(match error {
            ConsumerError::Shard { shard, reason, .. } => {
                Failed { refused: true, reason, shard: Some(recorder.intern(&shard)), why }
            }
            _ => Failed { refused: false, reason: Reason::Unspecified, shard: None, why },
        })
    };
    let mut consumer = match client.consumer(&stream, consumer_options).await {
        Ok(consumer) => consumer,
        Err(error) => return recorder.returned(op, failed(error)),
    };
    recorder.returned(op, Returned::Begun);
    let give_up = Instant::now() + Duration::from_millis(actor.dice.between(spec.keep_ms / 2, spec.keep_ms));
    let give_up = give_up.min(actor.scene.until);
    loop {
        match time::timeout_at(give_up, consumer.next()).await {
            Ok(Some(Ok(batch))) => {
                let shard = recorder.intern(&batch.shard);
                recorder.received(op, shard, page_of(&recorder, batch));
                // Now and then an application is slow.
                if actor.dice.percent(2) {
                    actor.rest(Duration::from_secs(3)).await;
                }
            }
            Ok(Some(Err(error))) => return recorder.returned(op, failed(error)),
            Ok(None) | Err(_) => return recorder.returned(op, Returned::Ended),
        }
    }
}

fn page_of(recorder: &Recorder, batch: ShardBatch) -> Page {
    let seen = |it: braid_client::Record| Seen {
        number: it.sequence_number,
        arrival_ms: it.arrival_ms,
        size: u32::try_from(it.data.len() + it.partition_key.len()).unwrap_or(u32::MAX),
        key: recorder.intern(&it.partition_key),
        payload: Payload::decode(&it.data),
    };
    Page {
        records: batch.records.into_iter().map(seen).collect(),
        behind_ms: batch.millis_behind_latest,
        ended: batch.end_of_shard.then(Vec::new),
        continuation: None,
        missed: batch.missed,
    }
}

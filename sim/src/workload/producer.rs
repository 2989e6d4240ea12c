//! A client that puts records through the library's producer.

use std::sync::Arc;
use std::time::Duration;

use braid_client::{Client, ClientOptions, Outcome as LibraryOutcome, Producer, ProducerOptions, RefusedReason};
use braid_env::task::{self, JoinHandle};
use bytes::Bytes;

use super::records::Records;
use super::spec::ProducerSpec;
use super::{Actor, RETRY, writer};
use crate::history::{Call, ClientId, Order, Outcome, PutCall, Reason, Recorder, Returned, Sent, Via};

pub async fn work(mut actor: Actor, spec: ProducerSpec) {
    let client = ClientId(actor.spec.id);
    let mut records = Records::new(&actor.scene.recorder, client, 0, spec.keys, spec.sizes);
    let mut pipeline = actor.spec.id << 16;
    let mut waiting = Vec::new();
    actor.wait_for_quiet().await;
    while !actor.is_over() {
        let Some(producer) = open(&mut actor, &spec).await else {
            actor.rest(RETRY).await;
            continue;
        };
        pipeline += 1;
        waiting.extend(produce(&mut actor, &spec, &mut records, &producer, pipeline).await);
        producer.close().await;
    }
    for outcome in waiting {
        // A task that was aborted leaves its record's outcome unknown.
        let _ = outcome.await;
    }
}

/// The library's options for a client of this spec.
pub fn options(deadline_ms: u64) -> ClientOptions {
    let request_timeout = Duration::from_millis(deadline_ms);
    ClientOptions {
        connect_timeout: Duration::from_millis(500).min(request_timeout),
        request_timeout,
        call_timeout: request_timeout * 3,
        tls: None,
    }
}

async fn open(actor: &mut Actor, spec: &ProducerSpec) -> Option<Producer> {
    let endpoints = actor.scene.endpoints.clone();
    let client = Client::connect(endpoints, options(actor.spec.deadline_ms)).await.ok()?;
    let options = ProducerOptions {
        linger: Duration::from_millis(spec.linger_ms),
        max_batch_records: spec.batch_max as usize,
        delivery_timeout: Duration::from_millis(spec.delivery_ms),
        retry_unknown: spec.retry_unknown,
        ..ProducerOptions::default()
    };
    client.producer(&actor.stream(), options).await.ok()
}

/// Puts one record after the other, without waiting for their outcomes.
async fn produce(
    actor: &mut Actor,
    spec: &ProducerSpec,
    records: &mut Records,
    producer: &Producer,
    pipeline: u32,
) -> Vec<JoinHandle<()>> {
    let mut waiting = Vec::new();
    for _ in 0..spec.renew_after.max(1) {
        if actor.is_over() {
            break;
        }
        let (sent, data) = records.next(&mut actor.dice);
        let order = match spec.retry_unknown {
            true => Order::Free,
            false => Order::Pipeline(pipeline),
        };
        let call = PutCall { stream: actor.stream(), records: vec![sent], order, once: !spec.retry_unknown };
        waiting.push(put(&actor.scene.recorder, actor.calls.client, producer, call, data).await);
        let rate = writer::records_per_s(&spec.pace, actor.scene.started);
        actor.rest_us(1_000_000 / rate).await;
        actor.maybe_pause().await;
    }
    waiting
}

/// Hands one record over; its outcome is written down when it comes.
async fn put(recorder: &Recorder, client: ClientId, producer: &Producer, call: PutCall, data: Bytes) -> JoinHandle<()> {
    let Sent { key, explicit, .. } = call.records[0].clone();
    let op = recorder.invoke(client, Via::Library, Call::Put(Arc::new(call)));
    let outcome = producer.put(key.to_string(), explicit, data).await;
    let recorder = recorder.clone();
    task::spawn(async move {
        let outcome = match outcome {
            Ok(outcome) => outcome_of(&recorder, outcome.await),
            // Nothing was, or will be, sent.
            Err(_) => Outcome::Refused { reason: Reason::InvalidArgument },
        };
        recorder.returned(op, Returned::Put([outcome].into()));
    })
}

fn outcome_of(recorder: &Recorder, outcome: LibraryOutcome) -> Outcome {
    match outcome {
        LibraryOutcome::Acked { shard, sequence_number } => {
            Outcome::Acked { shard: recorder.intern(&shard), number: sequence_number }
        }
        LibraryOutcome::Refused { reason: RefusedReason::Node(reason), .. } => Outcome::Refused { reason },
        LibraryOutcome::Refused { reason: RefusedReason::TimedOut | RefusedReason::Overtaken, .. } => {
            Outcome::Refused { reason: Reason::Unspecified }
        }
        LibraryOutcome::Unknown { why } => Outcome::Unknown { why },
    }
}

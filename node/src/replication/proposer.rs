//! Appends: what waits is drained into one Raft entry, a batch of many shards' records.
//!
//! Invariant: records enter the log in the order in which [`Proposer::append`] was called, and
//! each caller learns the outcome of each of its own records. The more wait, the larger the batch:
//! batching needs no timer, so a lone record waits for nobody.

use std::sync::Arc;

use braid_env::task;
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_stream::batch::{BatchBuilder, Place};
use braid_stream::group::{Applied, Refused};
use braid_stream::ids::{Offset, ShardId};
use braid_stream::record::Record;
use openraft::raft::ClientWriteResult;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::RaftHandle;
use super::group::ProposeError;
use super::raft::{Proposal, Reply, TypeConfig};
use super::replica::{Replica, State};
use crate::clock::NodeClock;

/// A batch is closed once it has this many bytes: 5 MiB is the largest single request, and larger
/// entries would only make a follower's answer come later.
const BATCH_BYTES: usize = 4 << 20;

/// Batches proposed and not applied yet. One is being fsynced here, one is under way to the
/// followers, one is being applied; more would only split what could be one batch.
const BATCHES_IN_FLIGHT: usize = 4;

/// Callers that may wait in line; admission by bytes comes first.
const QUEUE: usize = 4096;

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It is durable on a majority and applied.
    Appended {
        /// Its position in its shard.
        offset: Offset,
        /// Its arrival time, milliseconds since the Unix epoch.
        time_ms: u64,
    },
    /// It is not in the stream and never will be.
    Refused(Refused),
}

type Answer = oneshot::Sender<Result<Vec<AppendOutcome>, ProposeError>>;

struct Waiting {
    records: Vec<(ShardId, Record)>,
    admitted: OwnedSemaphorePermit,
    answer: Answer,
}

/// The way into a group's log for records.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Waiting>,
    admission: Arc<Semaphore>,
    capacity: usize,
}

impl Proposer {
    /// Starts the group's proposer; it ends when the last `Proposer` is dropped.
    pub fn start(replica: Arc<Replica>, raft: RaftHandle, clock: NodeClock, inflight_bytes_max: usize) -> Proposer {
        let (queue, rx) = mpsc::channel(QUEUE);
        let capacity = inflight_bytes_max.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        task::spawn(run(rx, replica, raft, clock));
        Proposer { queue, admission: Arc::new(Semaphore::new(capacity)), capacity }
    }

    /// Appends records, in order; one outcome per record, in order.
    pub async fn append(&self, records: Vec<(ShardId, Record)>) -> Result<Vec<AppendOutcome>, ProposeError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: usize = records.iter().map(|(_, r)| BatchBuilder::cost(r)).sum();
        let bytes = bytes.min(self.capacity) as u32;
        // Admission by bytes, before anything is proposed: what is refused here is certainly not
        // in the log.
        let Ok(admitted) = self.admission.clone().try_acquire_many_owned(bytes) else {
            reachable!(Mark::Overloaded);
            return Err(ProposeError::Overloaded { retry_after_ms: 20 });
        };
        let (answer, outcome) = oneshot::channel();
        let waiting = Waiting { records, admitted, answer };
        if self.queue.try_send(waiting).is_err() {
            return Err(ProposeError::Overloaded { retry_after_ms: 20 });
        }
        outcome.await.unwrap_or_else(|_| {
            Err(ProposeError::Unknown { why: "the replica stopped while the records were under way".into() })
        })
    }
}

/// One Raft entry's worth of callers, and where each of their records went.
struct Batch {
    payload: bytes::Bytes,
    callers: Vec<Caller>,
}

struct Caller {
    /// Where each of its records is in the batch.
    places: Vec<Place>,
    answer: Answer,
    _admitted: OwnedSemaphorePermit,
}

async fn run(mut queue: mpsc::Receiver<Waiting>, replica: Arc<Replica>, raft: RaftHandle, clock: NodeClock) {
    let in_flight = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT));
    while let Some(first) = queue.recv().await {
        // Waiting for the place in flight first makes the batch as large as the wait was long.
        let place = in_flight.clone().acquire_owned().await.expect("never closed");
        let batch = drain(first, &mut queue, stamp(&replica, &clock));
        propose(replica.group.0, &raft, batch, place).await;
    }
}

/// Group time: this node's clock, never before what the group has already applied.
fn stamp(replica: &Replica, clock: &NodeClock) -> u64 {
    let applied = replica.with_state(|state| match state {
        State::Data(group) => group.last_time_ms(),
        State::Catalog(_) => 0,
    });
    if planted(Bug::TimeGoesBack) {
        return clock.now_ms();
    }
    clock.now_ms().max(applied)
}

fn drain(first: Waiting, queue: &mut mpsc::Receiver<Waiting>, time_ms: u64) -> Batch {
    let mut builder = BatchBuilder::new(time_ms);
    let mut waiting = vec![first];
    loop {
        let newest = waiting.last().expect("there is a first");
        newest.records.iter().for_each(|(shard, record)| builder.push(*shard, record));
        if builder.bytes() >= BATCH_BYTES {
            break;
        }
        match queue.try_recv() {
            Ok(next) => waiting.push(next),
            Err(_) => break,
        }
    }
    let batch = builder.finish();
    let mut places = batch.places.into_iter();
    let callers = waiting
        .into_iter()
        .map(|w| Caller {
            places: places.by_ref().take(w.records.len()).collect(),
            answer: w.answer,
            _admitted: w.admitted,
        })
        .collect();
    Batch { payload: batch.payload, callers }
}

async fn propose(group: u32, raft: &RaftHandle, batch: Batch, place: OwnedSemaphorePermit) {
    let (responder, result) = openraft::impls::ProgressResponder::complete_only();
    let Batch { payload, mut callers } = batch;
    sometimes!(callers.len() > 1, Mark::BatchOfManyCallers);
    if planted(Bug::AnswersSwapped) && callers.len() > 2 && callers[0].places.len() == callers[1].places.len() {
        let (first, rest) = callers.split_at_mut(1);
        std::mem::swap(&mut first[0].places, &mut rest[0].places);
    }
    reachable!(Mark::BatchBeforePropose);
    if let Err(fatal) = raft.client_write_ff(Proposal(payload), Some(responder)).await {
        let e = ProposeError::Stopped { why: fatal.to_string() };
        return callers.into_iter().for_each(|c| drop(c.answer.send(Err(e.clone()))));
    }
    task::spawn(async move {
        let result: Result<ClientWriteResult<TypeConfig>, _> = result.await;
        drop(place);
        reachable!(Mark::BatchBeforeAnswer);
        answer(group, callers, result.ok());
    });
}

fn answer(group: u32, callers: Vec<Caller>, result: Option<ClientWriteResult<TypeConfig>>) {
    if let Some(Ok(response)) = &result {
        braid_probe::acknowledged(group, response.log_id.index);
    }
    let result = ProposeError::from_write(result);
    sometimes!(matches!(result, Err(ProposeError::Unknown { .. })), Mark::BatchUnknown);
    sometimes!(matches!(result, Err(ProposeError::NotLeader { .. })), Mark::BatchNotLeader);
    let slices = match result {
        Ok(Reply::Group(Applied::Appended(appended))) => appended.slices,
        Ok(reply) => panic!("an append was answered with {reply:?}"),
        Err(e) => return callers.into_iter().for_each(|c| drop(c.answer.send(Err(e.clone())))),
    };
    for caller in callers {
        let outcomes = caller
            .places
            .iter()
            .map(|place| match &slices[place.slice as usize].outcome {
                Ok(placed) => AppendOutcome::Appended {
                    offset: placed.first.advance(u64::from(place.nth)),
                    time_ms: placed.time_ms,
                },
                Err(Refused::Closed { last, .. }) if planted(Bug::MovedIsAppended) => {
                    AppendOutcome::Appended { offset: last.map_or(Offset::ZERO, |last| last.advance(1)), time_ms: 0 }
                }
                Err(why) => AppendOutcome::Refused(why.clone()),
            })
            .collect();
        // The caller may have gone; its records are in the stream all the same.
        let _ = caller.answer.send(Ok(outcomes));
    }
}

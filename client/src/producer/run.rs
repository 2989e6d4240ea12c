//! The producer's one task: it takes puts, sends batches, learns outcomes, lists shards again.
//!
//! Owns the queues and every ticket. Its invariant: a ticket is resolved exactly once, by
//! `Worker::resolve`. All decisions are `queue`'s; this file only does them.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use braid_env::{random, task, time};
use braid_probe::{Bug, planted};
use braid_proto::v1;
use braid_stream::SequenceNumber;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::debug;

use super::Outcome;
use super::pack::{Pack, packs};
use super::queue::{Batch, BatchId, Queues};
use super::verdict::{Pending, Verdict};
use crate::client::Client;
use crate::connections::Purpose;
use crate::failure::{CallError, Effect, Failure, Reason};
use crate::routes::Routes;

/// Puts taken in before batches are looked at again: enough to fill a batch or two, few enough
/// that answers don't wait.
const INTAKE_MAX: usize = 1_024;

/// Shards are listed again at most this often: a failover makes every batch doubt the routes.
const RELIST_PAUSE: Duration = Duration::from_millis(100);

pub(super) enum Message {
    Put(Pending<Ticket>),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// A record's claim to an outcome, and its share of the memory budget.
pub(super) struct Ticket {
    reply: oneshot::Sender<Outcome>,
    /// Given back when the ticket is resolved and dropped.
    _share: OwnedSemaphorePermit,
    /// Which of `Worker::epochs` counts it.
    epoch: u64,
}

impl Ticket {
    pub fn new(reply: oneshot::Sender<Outcome>, share: OwnedSemaphorePermit) -> Ticket {
        Ticket { reply, _share: share, epoch: 0 }
    }
}

type Answer = Result<v1::PutRecordsResponse, Failure>;
type Sent = Pin<Box<dyn Future<Output = (BatchId, Answer)> + Send>>;
type Listing = Pin<Box<dyn Future<Output = Result<Vec<v1::Shard>, CallError>> + Send>>;

pub(super) struct Worker {
    client: Client,
    stream: Arc<str>,
    queues: Queues<Ticket>,
    /// Bytes of an aggregate at most, if records are packed together.
    aggregate: Option<usize>,
    inbox: mpsc::UnboundedReceiver<Message>,
    sent: FuturesUnordered<Sent>,
    listing: Option<Listing>,
    relist_wanted: bool,
    relist_not_before: Instant,
    /// Unresolved puts between one flush and the next, oldest first, and who waits for them.
    epochs: VecDeque<Epoch>,
    /// The number of the first of `epochs`.
    first_epoch: u64,
    /// No more puts will come.
    closed: bool,
}

#[derive(Default)]
struct Epoch {
    unresolved: u64,
    waiters: Vec<oneshot::Sender<()>>,
}

/// What woke the worker.
enum Event {
    Answered(BatchId, Answer),
    Listed(Result<Vec<v1::Shard>, CallError>),
    Received(Option<Message>),
    Woken,
}

impl Worker {
    pub fn new(
        client: Client,
        stream: &str,
        queues: Queues<Ticket>,
        aggregate: Option<usize>,
        inbox: mpsc::UnboundedReceiver<Message>,
    ) -> Worker {
        Worker {
            client,
            stream: Arc::from(stream),
            queues,
            aggregate,
            inbox,
            sent: FuturesUnordered::new(),
            listing: None,
            relist_wanted: false,
            relist_not_before: Instant::now(),
            epochs: VecDeque::from([Epoch::default()]),
            first_epoch: 0,
            closed: false,
        }
    }

    /// Runs until the producer is closed or dropped and every put is resolved.
    pub async fn run(mut self) {
        loop {
            self.send_what_is_due();
            self.relist_if_wanted();
            if self.closed && self.queues.is_empty() {
                return;
            }
            match self.next_event().await {
                Event::Answered(id, answer) => self.settle(id, answer),
                Event::Listed(shards) => self.listed(shards),
                Event::Received(message) => self.receive(message),
                Event::Woken => {}
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let wake = self.queues.next_wake();
        // While a listing is under way its answer wakes; its time is past, and would wake again and again.
        let relist = (self.relist_wanted && (self.listing.is_none() || planted(Bug::ProducerSpins)))
            .then_some(self.relist_not_before);
        let wake = wake.into_iter().chain(relist).min();
        // Answers first: they make room for what else there is to do.
        tokio::select! {
            biased;
            Some((id, answer)) = self.sent.next(), if !self.sent.is_empty() => {
                Event::Answered(id, answer)
            }
            shards = poll_listing(&mut self.listing) => {
                self.listing = None;
                Event::Listed(shards)
            }
            message = self.inbox.recv(), if !self.closed => Event::Received(message),
            () = sleep_until(wake) => Event::Woken,
        }
    }

    fn receive(&mut self, first: Option<Message>) {
        let Some(first) = first else {
            // Closed and drained, or every producer is dropped.
            self.closed = true;
            return;
        };
        self.accept(first);
        for _ in 1..INTAKE_MAX {
            match self.inbox.try_recv() {
                Ok(message) => self.accept(message),
                Err(_) => return,
            }
        }
    }

    fn accept(&mut self, message: Message) {
        match message {
            Message::Put(record) => self.take(record),
            Message::Flush(done) => self.flush(done),
            Message::Close(done) => {
                // Puts already in the inbox are still taken; later ones fail in `put`.
                self.inbox.close();
                self.flush(done);
            }
        }
    }

    fn take(&mut self, mut record: Pending<Ticket>) {
        record.token.epoch = self.first_epoch + self.epochs.len() as u64 - 1;
        self.epochs.back_mut().expect("never empty").unresolved += 1;
        self.queues.push(record);
    }

    fn flush(&mut self, done: oneshot::Sender<()>) {
        let epoch = self.epochs.back_mut().expect("never empty");
        epoch.waiters.push(done);
        self.epochs.push_back(Epoch::default());
        self.end_epochs();
    }

    fn end_epochs(&mut self) {
        while self.epochs.len() > 1 && self.epochs[0].unresolved == 0 {
            let epoch = self.epochs.pop_front().expect("it was looked at");
            self.first_epoch += 1;
            for waiter in epoch.waiters {
                let _ = waiter.send(()); // whoever flushed may have stopped waiting
            }
        }
    }

    fn resolve(&mut self, outcomes: Vec<(Ticket, Outcome)>) {
        for (ticket, outcome) in outcomes {
            let epoch = (ticket.epoch - self.first_epoch) as usize;
            self.epochs[epoch].unresolved -= 1;
            let _ = ticket.reply.send(outcome); // whoever put it may not care
        }
        self.end_epochs();
    }

    fn send_what_is_due(&mut self) {
        let hurry = self.closed || self.epochs.len() > 1;
        let now = Instant::now();
        let mut given_up = Vec::new();
        while let Some((id, batch)) = self.queues.cut(now, hurry, &mut given_up) {
            let request = request_of(&self.stream, batch, self.aggregate);
            let sending = task::spawn(send(self.client.clone(), batch.group, request));
            self.sent.push(Box::pin(async move {
                let answer = sending
                    .await
                    .unwrap_or_else(|died| Err(Failure::unreadable(format!("the sending task died: {died}"))));
                (id, answer)
            }));
        }
        self.resolve(given_up);
    }

    fn settle(&mut self, id: BatchId, answer: Answer) {
        let batch = self.queues.in_flight(id).expect("answers are to batches");
        let verdicts = verdicts_on(batch, answer, &self.client, self.aggregate);
        let settled = self.queues.settle(id, verdicts, Instant::now(), &mut random::below);
        self.relist_wanted |= settled.relist;
        self.resolve(settled.resolved);
    }

    fn relist_if_wanted(&mut self) {
        let now = Instant::now();
        if !self.relist_wanted || self.listing.is_some() || now < self.relist_not_before {
            return;
        }
        self.relist_wanted = false;
        self.relist_not_before = now + RELIST_PAUSE;
        let (client, stream) = (self.client.clone(), Arc::clone(&self.stream));
        self.listing = Some(Box::pin(async move { client.list_shards(&stream).await }));
    }

    fn listed(&mut self, shards: Result<Vec<v1::Shard>, CallError>) {
        let routes =
            shards.map_err(|e| e.to_string()).and_then(|shards| Routes::of(&shards).map_err(|e| e.to_string()));
        match routes {
            Ok(routes) => self.queues.install(routes, Instant::now()),
            // The next refusal asks for another listing; until then the old routes do.
            Err(why) => debug!(stream = %self.stream, why, "shards could not be listed"),
        }
    }
}

async fn poll_listing(listing: &mut Option<Listing>) -> Result<Vec<v1::Shard>, CallError> {
    match listing {
        Some(listing) => listing.await,
        None => pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => time::sleep_until(at).await,
        None => pending().await,
    }
}

fn request_of(stream: &str, batch: &Batch<Ticket>, aggregate: Option<usize>) -> v1::PutRecordsRequest {
    v1::PutRecordsRequest {
        stream_name: stream.to_owned(),
        records: packs(batch, aggregate).iter().map(Pack::entry).collect(),
        keep_order: true,
    }
}

/// One attempt, at the group's leader as far as known.
async fn send(client: Client, group: u32, request: v1::PutRecordsRequest) -> Answer {
    client.ask_group(Some(group), Purpose::Calls, |mut node| async move { node.put_records(request).await }).await
}

fn verdicts_on(batch: &Batch<Ticket>, answer: Answer, client: &Client, aggregate: Option<usize>) -> Vec<Verdict> {
    let count = batch.records.len();
    let packs = packs(batch, aggregate);
    match answer {
        Ok(answer) if answer.records.len() == packs.len() => {
            for result in &answer.records {
                client.nodes().learn_leader(batch.group, &result.leader_address);
            }
            packs.iter().zip(answer.records).flat_map(|(pack, result)| pack.each(verdict_on(result))).collect()
        }
        Ok(answer) => {
            let why = format!("{} results for {count} records, packed or not", answer.records.len());
            vec![Verdict::Unknown { why }; count]
        }
        Err(failure) if failure.effect == Effect::Unknown => {
            let why = failure.to_string();
            vec![Verdict::Unknown { why }; count]
        }
        Err(failure) if failure.reason == Reason::InvalidArgument && count > 1 => {
            vec![Verdict::Apart; count]
        }
        Err(failure) => {
            let refused = Verdict::Refused {
                reason: failure.reason,
                message: failure.message,
                retry: failure.retryable,
                retry_after: failure.retry_after,
            };
            vec![refused; count]
        }
    }
}

fn verdict_on(result: v1::PutRecordsResultEntry) -> Verdict {
    match result.outcome() {
        v1::Outcome::Appended => match SequenceNumber::parse(&result.sequence_number) {
            Ok(sequence_number) => Verdict::Acked { shard: Arc::from(result.shard_id), sequence_number },
            // Appended, but where is not known: claiming nothing is the honest answer.
            Err(e) => Verdict::Unknown { why: e.to_string() },
        },
        v1::Outcome::Refused => Verdict::Refused {
            reason: result.error_code(),
            retry: is_passing(result.error_code()),
            retry_after: Duration::from_millis(result.retry_after_ms.into()),
            message: result.error_message,
        },
        v1::Outcome::Unknown | v1::Outcome::Unspecified => {
            Verdict::Unknown { why: format!("{}: {}", result.error_code().as_str_name(), result.error_message) }
        }
    }
}

/// Whether a record refused for this may be taken later.
fn is_passing(reason: Reason) -> bool {
    match reason {
        Reason::Throttled
        | Reason::Overloaded
        | Reason::ShardClosed
        | Reason::WrongRange
        | Reason::NotLeader
        | Reason::NoLeader
        | Reason::NodeStopping
        | Reason::PredecessorRefused
        | Reason::Internal => true,
        Reason::Unspecified
        | Reason::InvalidArgument
        | Reason::StreamNotFound
        | Reason::ShardNotFound
        | Reason::ShardForgotten
        | Reason::StreamExists
        | Reason::StreamNotActive
        | Reason::LimitExceeded
        | Reason::IteratorExpired
        | Reason::IteratorInvalid
        | Reason::NextTokenExpired
        | Reason::NextTokenInvalid
        | Reason::OutcomeUnknown
        | Reason::GroupNotFound
        | Reason::NodeNotFound
        | Reason::Damaged
        | Reason::ConsumerNotFound
        | Reason::ConsumerExists
        | Reason::PolicyNotFound
        | Reason::Subscribed
        | Reason::Unsupported => false,
    }
}

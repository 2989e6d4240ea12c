//! Reads one shard from a position to its end, whatever happens to nodes and leaders.
//!
//! Owns one shard's cursor. Its invariant: after any interruption it goes on behind the last
//! record it handed over. Subscribes where it can; polls for a while where it can't. It decides
//! nothing about other shards.

use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use braid_env::{random, time};
use braid_probe::{Bug, Mark, planted, reachable};
use braid_proto::v1;
use tokio::sync::{Semaphore, oneshot};
use tracing::debug;

use super::cursor::{Cursor, to_wire};
use super::lineage::Start;
use super::run::Out;
use super::{ConsumerError, ConsumerOptions, Record, ShardBatch};
use crate::backoff;
use crate::client::Client;
use crate::connections::Purpose;
use crate::failure::{Contact, Failure, Reason};

/// A subscription shows life every 5 s; three misses mean that it is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// After a node said that it has no room for another subscription, or doesn't push at all, poll
/// for this long before asking again.
const POLL_INSTEAD: Duration = Duration::from_secs(60);

/// How reading a shard ended.
pub(super) enum End {
    /// The shard is closed and read; these go on from here.
    Reached(Vec<v1::ChildShard>),
    /// The stream has no such shard any more: it was closed, and all of its records are past retention.
    Forgotten,
    /// The consumer is gone.
    Dropped,
    /// Nothing helps.
    Failed(ConsumerError),
}

/// Why one subscription or one run of polls ended.
enum Pause {
    End(End),
    /// Go on at once: a subscription's five minutes are over.
    Renew,
    /// Go on by polling.
    PollInstead,
    /// Go on after a while.
    Retry(Failure),
}

pub(super) struct Reader {
    client: Client,
    stream: Arc<str>,
    shard: Arc<str>,
    group: Option<u32>,
    cursor: Cursor,
    options: Arc<ConsumerOptions>,
    fetches: Arc<Semaphore>,
    out: Out,
    positioned: Option<oneshot::Sender<()>>,
    /// The iterator to poll with next; kept over errors, since it is the best position there is.
    iterator: Option<String>,
    poll_until: Option<Instant>,
    /// Attempts in a row that brought nothing.
    attempts: u32,
}

impl Reader {
    pub fn new(
        client: Client,
        stream: Arc<str>,
        start: Start,
        options: Arc<ConsumerOptions>,
        fetches: Arc<Semaphore>,
        out: Out,
        positioned: Option<oneshot::Sender<()>>,
    ) -> Reader {
        Reader {
            client,
            stream,
            shard: Arc::from(start.shard),
            group: start.group,
            cursor: Cursor::new(start.position),
            options,
            fetches,
            out,
            positioned,
            iterator: None,
            poll_until: None,
            attempts: 0,
        }
    }

    /// Reads until the end.
    pub async fn run(mut self) -> End {
        let out = self.out.clone();
        tokio::select! {
            biased;
            () = out.closed() => End::Dropped,
            end = self.read() => end,
        }
    }

    async fn read(&mut self) -> End {
        loop {
            let pause = match self.polls() {
                true => self.poll().await,
                false => self.subscribe().await,
            };
            match pause {
                Pause::End(end) => return end,
                Pause::Renew => reachable!(Mark::ConsumerRenews),
                Pause::PollInstead => self.poll_until = Some(Instant::now() + POLL_INSTEAD),
                Pause::Retry(failure) => {
                    if let Some(error) = self.hopeless(&failure) {
                        return End::Failed(error);
                    }
                    if failure.is_answer() && failure.reason == Reason::ShardForgotten {
                        return End::Forgotten;
                    }
                    debug!(shard = %self.shard, %failure, "reading is interrupted");
                    reachable!(Mark::ConsumerInterrupted);
                    self.back_off(failure.retry_after).await;
                }
            }
        }
    }

    fn polls(&self) -> bool {
        !self.options.subscribe || self.poll_until.is_some_and(|until| Instant::now() < until)
    }

    async fn subscribe(&mut self) -> Pause {
        let (kind, sequence_number, timestamp_ms) = to_wire(self.cursor.position());
        let request = v1::SubscribeToShardRequest {
            stream_name: self.stream.to_string(),
            shard_id: self.shard.to_string(),
            starting_position: Some(v1::StartingPosition { r#type: kind.into(), sequence_number, timestamp_ms }),
            consumer: String::new(),
        };
        self.iterator = None; // it stays behind from here on
        let address = self.client.nodes().address_for(self.group, Instant::now());
        let opened = self
            .client
            .ask(&address, Purpose::Subscriptions, |mut node| async move { node.subscribe_to_shard(request).await })
            .await;
        let mut events = match opened {
            Ok(events) => events,
            Err(failure) => return self.subscription_failed(&address, failure),
        };
        let mut alive = false;
        loop {
            match time::timeout(SILENCE_MAX, events.message()).await {
                Ok(Ok(Some(event))) => {
                    alive = true;
                    if let Err(pause) = self.take_event(event).await {
                        return pause;
                    }
                }
                Ok(Ok(None)) if alive => return Pause::Renew,
                Ok(Ok(None)) => {
                    let why = "the subscription ended before its first event";
                    return Pause::Retry(Failure::unreadable(why.to_owned()));
                }
                Ok(Err(status)) => {
                    return self.subscription_failed(&address, Failure::of(&status));
                }
                Err(_) => {
                    return self.subscription_failed(&address, Failure::timed_out(SILENCE_MAX));
                }
            }
        }
    }

    fn subscription_failed(&self, address: &str, failure: Failure) -> Pause {
        if failure.contact == Contact::Unreachable {
            self.client.lost_touch(address, Purpose::Subscriptions);
        }
        if let Some(group) = self.group {
            self.client.learn_from(group, address, &failure);
        }
        match failure.reason {
            Reason::Unsupported | Reason::LimitExceeded => Pause::PollInstead,
            _ => Pause::Retry(failure),
        }
    }

    async fn take_event(&mut self, mut event: v1::SubscribeToShardEvent) -> Result<(), Pause> {
        let resumed = std::mem::take(&mut self.attempts) > 0;
        if planted(Bug::ResumeSwallowsEvent) && resumed {
            event.records.clear();
        }
        let ended = event.end_of_shard || !event.child_shards.is_empty();
        let behind = event.millis_behind_latest;
        let handed = self.hand_over(event.records, behind, ended).await;
        self.cursor
            .continue_after(&event.continuation_sequence_number)
            .map_err(|e| Pause::End(self.unreadable(e.to_string())))?;
        self.is_positioned();
        handed?;
        match ended {
            true => Err(Pause::End(End::Reached(event.child_shards))),
            false => Ok(()),
        }
    }

    /// Polls until something stops it, or until it is time to try a subscription again.
    async fn poll(&mut self) -> Pause {
        loop {
            if !self.polls() {
                return Pause::Renew;
            }
            let iterator = match self.iterator.clone() {
                Some(iterator) => iterator,
                None => match self.new_iterator().await {
                    Ok(iterator) => iterator,
                    Err(failure) => return Pause::Retry(failure),
                },
            };
            self.is_positioned();
            let request = v1::GetRecordsRequest { shard_iterator: iterator, limit: self.options.max_poll_records };
            // Held until the records are handed over: it bounds what is in memory.
            let fetches = Arc::clone(&self.fetches);
            let permit = fetches.acquire_owned().await.expect("never closed");
            let answer = self
                .client
                .ask_group(self.group, Purpose::Calls, |mut node| async move { node.get_records(request).await })
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(failure) => {
                    let stale = [Reason::IteratorExpired, Reason::IteratorInvalid];
                    if stale.contains(&failure.reason) {
                        reachable!(Mark::ConsumerIteratorStale);
                        self.iterator = None;
                    }
                    return Pause::Retry(failure);
                }
            };
            self.attempts = 0;
            let ended = answer.next_shard_iterator.is_empty();
            let tip = answer.records.is_empty() || answer.millis_behind_latest == 0;
            let behind = answer.millis_behind_latest;
            if let Err(pause) = self.hand_over(answer.records, behind, ended).await {
                return pause;
            }
            drop(permit);
            if ended {
                return Pause::End(End::Reached(answer.child_shards));
            }
            self.iterator = Some(answer.next_shard_iterator);
            if tip {
                let interval = self.options.poll_interval;
                let jitter_us = interval.as_micros() as u64 / 4 + 1;
                let jitter = Duration::from_micros(random::below(jitter_us));
                time::sleep(interval + jitter).await;
            }
        }
    }

    async fn new_iterator(&mut self) -> Result<String, Failure> {
        let (kind, starting_sequence_number, timestamp_ms) = to_wire(self.cursor.position());
        let request = v1::GetShardIteratorRequest {
            stream_name: self.stream.to_string(),
            shard_id: self.shard.to_string(),
            shard_iterator_type: kind.into(),
            starting_sequence_number,
            timestamp_ms,
        };
        let answer = self
            .client
            .ask_group(self.group, Purpose::Calls, |mut node| async move { node.get_shard_iterator(request).await })
            .await?;
        let place = self.cursor.continue_after(&answer.continuation_sequence_number);
        place.map_err(|e| Failure::unreadable(e.to_string()))?;
        self.iterator = Some(answer.shard_iterator.clone());
        Ok(answer.shard_iterator)
    }

    /// Gives records to the application; waits while it has enough.
    async fn hand_over(
        &mut self,
        records: Vec<v1::Record>,
        millis_behind_latest: u64,
        end_of_shard: bool,
    ) -> Result<(), Pause> {
        let accepted = self.cursor.accept(records).map_err(|e| Pause::End(self.unreadable(e.to_string())))?;
        if accepted.records.is_empty() && !end_of_shard {
            return Ok(());
        }
        self.is_positioned();
        let records = match self.options.deaggregate {
            true => accepted.records.into_iter().flat_map(Record::apart).collect(),
            false => accepted.records,
        };
        let batch = ShardBatch {
            shard: Arc::clone(&self.shard),
            records,
            millis_behind_latest,
            missed: accepted.missed,
            end_of_shard,
        };
        self.out.send(Ok(batch)).await.map_err(|_| Pause::End(End::Dropped))
    }

    fn is_positioned(&mut self) {
        if let Some(tell) = self.positioned.take() {
            let _ = tell.send(()); // nobody may be waiting for it
        }
    }

    async fn back_off(&mut self, retry_after: Duration) {
        self.attempts = self.attempts.saturating_add(1);
        time::sleep(backoff::wait(self.attempts, retry_after, &mut random::below)).await;
    }

    /// The error to stop with, if trying again is useless.
    fn hopeless(&self, failure: &Failure) -> Option<ConsumerError> {
        let final_reasons = [Reason::InvalidArgument, Reason::StreamNotFound, Reason::ShardNotFound];
        let refused = failure.is_answer() && final_reasons.contains(&failure.reason);
        refused.then(|| ConsumerError::Shard {
            shard: self.shard.to_string(),
            reason: failure.reason,
            message: failure.message.clone(),
        })
    }

    fn unreadable(&self, message: String) -> End {
        End::Failed(ConsumerError::Unreadable { shard: self.shard.to_string(), message })
    }
}

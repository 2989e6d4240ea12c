//! The producer: records in, each record's own outcome out.
//!
//! Owns the public face and the memory bound; `queue` decides what is sent when, `verdict` what
//! may be sent again, `run` does it. Its invariants:
//!
//! - every put resolves, to exactly one [`Outcome`], within the delivery timeout plus one
//!   request timeout;
//! - what is put and not yet resolved stays within `max_buffered_bytes`: `put` waits;
//! - records of one partition key are acknowledged in the order of their puts (see `queue`);
//! - an unknown outcome is reported, not retried.
//!
//! Deliberately absent: deduplication. Between "may duplicate" and "may lose" only the cluster can
//! do better, with producer sequences in its replicated state.

mod pack;
mod queue;
mod run;
mod verdict;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use braid_env::task;
use braid_env::time::Instant;
use braid_stream::{HashKey, SequenceNumber, limits};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::aggregate::OVERHEAD_BYTES;
use crate::client::Client;
use crate::failure::{CallError, Reason};
use crate::routes::Routes;
use queue::Queues;
use run::{Message, Ticket, Worker};
use verdict::{Pending, Rules};

/// What a waiting record costs beside its bytes: its places in maps and queues, its outcome's
/// channel. Counted, so that a flood of tiny records is bounded too.
const RECORD_OVERHEAD_BYTES: usize = 256;

/// Settings of a [`Producer`].
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// How long a record may wait for others to share its batch.
    pub linger: Duration,
    /// Records in one batch; 500 is the most the API takes.
    pub max_batch_records: usize,
    /// Data and partition keys in one batch; 5 MiB is the most the API takes.
    pub max_batch_bytes: u64,
    /// Batches in flight for one Raft group (a shard never has more than one of them).
    pub max_in_flight_per_group: usize,
    /// Bytes put and not yet resolved, a few hundred bytes of bookkeeping per record included.
    /// `put` waits where it would be exceeded; a single larger record is let through alone.
    pub max_buffered_bytes: usize,
    /// How long a refused record is tried again, from its put.
    pub delivery_timeout: Duration,
    /// Pack small records of a shard together into records of up to so many bytes, as Kinesis' producer library does (whose
    /// default is 51,200); `None`: each travels by itself. A shard then takes more of them a second, and readers have to take
    /// them apart ([`ConsumerOptions::deaggregate`](crate::ConsumerOptions), KCL).
    pub aggregate_bytes: Option<usize>,
    /// At-least-once: also send again what *may* have been appended. Off by default. With it on,
    /// a record may be in the stream twice, and the second copy behind later records of its key.
    pub retry_unknown: bool,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            linger: Duration::from_millis(2),
            max_batch_records: limits::PUT_RECORDS_MAX,
            max_batch_bytes: limits::PUT_BYTES_MAX,
            max_in_flight_per_group: 8,
            max_buffered_bytes: 64 << 20,
            delivery_timeout: Duration::from_secs(60),
            aggregate_bytes: None,
            retry_unknown: false,
        }
    }
}

/// What became of a record.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Outcome {
    /// On disk in two zones.
    Acked {
        /// `shardId-000000000000`
        shard: Arc<str>,
        /// Its number; `offset` in it is its dense position in the shard.
        sequence_number: SequenceNumber,
    },
    /// Certainly not appended, now or later. Putting it again cannot duplicate.
    Refused {
        /// Why it was given up.
        reason: RefusedReason,
        /// For people, with values in it.
        message: String,
        /// The node's last word on when to try again; 0 if it had none.
        retry_after_ms: u64,
    },
    /// It may have been appended, and may yet be. Putting it again may duplicate.
    Unknown {
        /// What was seen.
        why: String,
    },
}

/// Why a record was given up that certainly was not appended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum RefusedReason {
    /// A node refused it for good.
    Node(Reason),
    /// It was refused, or could not be sent, until the delivery timeout.
    TimedOut,
    /// It was refused while a later record of its key was (or may have been) appended: sending it
    /// again would break the key's order.
    Overtaken,
}

/// A producer for one stream. Cheap to clone; clones share queues, order and memory bound.
/// Dropping the last clone lets what was put go on to its outcome in the background.
#[derive(Clone)]
pub struct Producer {
    inbox: mpsc::UnboundedSender<Message>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
    record_bytes_max: usize,
}

impl Producer {
    pub(crate) async fn open(client: Client, stream: &str, options: ProducerOptions) -> Result<Producer, CallError> {
        let described = client.describe_stream(stream).await?;
        let record_bytes_max = match described.max_record_bytes {
            0 => limits::RECORD_BYTES_MAX as usize,
            max => max as usize,
        };
        let shards = client.list_shards(stream).await?;
        let routes =
            Routes::of(&shards).map_err(|e| CallError::Unavailable { message: format!("stream {stream:?}: {e}") })?;

        // An aggregate has a key of its own beside it.
        let room = record_bytes_max.saturating_sub(4 * limits::PARTITION_KEY_CHARS_MAX);
        let aggregate = options.aggregate_bytes.map(|it| it.min(room));
        let rules = Rules {
            records_max: options.max_batch_records.clamp(1, limits::PUT_RECORDS_MAX),
            bytes_max: options.max_batch_bytes.min(match aggregate {
                Some(_) => limits::PUT_BYTES_MAX - (limits::PUT_RECORDS_MAX * 2 * OVERHEAD_BYTES) as u64,
                None => limits::PUT_BYTES_MAX,
            }),
            in_flight_max: options.max_in_flight_per_group.max(1),
            linger: options.linger,
            delivery_timeout: options.delivery_timeout,
            retry_unknown: options.retry_unknown,
        };
        // Permits are counted in 32 bits.
        let budget_bytes = options.max_buffered_bytes.clamp(1, (u32::MAX as usize).min(Semaphore::MAX_PERMITS));
        // Unbounded, and still bounded: every put in it holds its share of the budget.
        let (inbox, received) = mpsc::unbounded_channel();
        let worker = Worker::new(client, stream, Queues::new(rules, routes), aggregate, received);
        drop(task::spawn(worker.run()));
        Ok(Producer { inbox, budget: Arc::new(Semaphore::new(budget_bytes)), budget_bytes, record_bytes_max })
    }

    /// Hands over a record. Returns once there is room for it (back-pressure), with the future of
    /// its outcome; that need not be polled for the record to be sent. Puts whose futures are
    /// awaited one after the other are in order.
    ///
    /// # Errors
    /// The record breaks a limit, or the producer is closed; nothing was, or will be, sent.
    pub async fn put(
        &self,
        partition_key: impl Into<String>,
        explicit_hash_key: Option<HashKey>,
        data: impl Into<Bytes>,
    ) -> Result<PutFuture, PutError> {
        let (key, data) = (partition_key.into(), data.into());
        let chars = key.chars().count();
        if !(1..=limits::PARTITION_KEY_CHARS_MAX).contains(&chars) {
            return Err(PutError::BadPartitionKey { chars });
        }
        let bytes = key.len() + data.len();
        if bytes > self.record_bytes_max {
            return Err(PutError::TooLarge { bytes, max: self.record_bytes_max });
        }
        let cost = (bytes + RECORD_OVERHEAD_BYTES).min(self.budget_bytes);
        let permit = Arc::clone(&self.budget)
            .acquire_many_owned(u32::try_from(cost).expect("the budget fits 32 bits"))
            .await
            .expect("the budget is never closed");
        let (reply, outcome) = oneshot::channel();
        let hash = explicit_hash_key.unwrap_or_else(|| HashKey::of_partition_key(&key));
        let record = Pending {
            key,
            explicit: explicit_hash_key,
            hash,
            data,
            put_at: Instant::now(),
            in_doubt: false,
            alone: false,
            token: Ticket::new(reply, permit),
        };
        self.inbox.send(Message::Put(record)).map_err(|_| PutError::Closed)?;
        Ok(PutFuture(outcome))
    }

    /// Waits until everything put before has its outcome. Nothing lingers meanwhile.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.inbox.send(Message::Flush(done)).is_ok() {
            // An error means that the worker ended, and with it everything it had.
            let _ = wait.await;
        }
    }

    /// Takes no more puts, on any clone, and waits until everything put has its outcome.
    pub async fn close(&self) {
        let (done, wait) = oneshot::channel();
        if self.inbox.send(Message::Close(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// Bytes put and not yet resolved, bookkeeping included.
    pub fn buffered_bytes(&self) -> usize {
        self.budget_bytes - self.budget.available_permits()
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("buffered_bytes", &self.buffered_bytes()).finish_non_exhaustive()
    }
}

/// Resolves to a record's outcome. Dropping it changes nothing about the record.
#[derive(Debug)]
#[must_use = "the outcome of a put is only known from here"]
pub struct PutFuture(oneshot::Receiver<Outcome>);

impl Future for PutFuture {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).unwrap_or_else(|_| Outcome::Unknown {
            why: "the producer's task ended before the outcome was known".to_owned(),
        }))
    }
}

/// Why a record was not taken.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum PutError {
    /// A partition key has 1 to 256 characters.
    BadPartitionKey {
        /// How many this one has.
        chars: usize,
    },
    /// Data and partition key exceed the stream's limit.
    TooLarge {
        /// Their bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The producer is closed.
    Closed,
}

impl fmt::Display for PutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PutError::BadPartitionKey { chars } => {
                write!(f, "a partition key has 1 to 256 characters, not {chars}")
            }
            PutError::TooLarge { bytes, max } => {
                write!(f, "a record of {bytes} bytes exceeds the stream's {max}")
            }
            PutError::Closed => f.write_str("the producer is closed"),
        }
    }
}

impl Error for PutError {}

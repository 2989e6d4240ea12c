//! The consumer: all shards of a stream, in parallel, as batches through one bounded channel.
//!
//! Owns the public face; `lineage` plans which shard is read when, `reader` reads one, `cursor`
//! knows where it is, `run` keeps them going. Its invariants:
//!
//! - each shard's records come in order, each at most once per consumer, and what was trimmed
//!   before it could be read is counted (`ShardBatch::missed`);
//! - a shard's records come before those of the shards it was split or merged into, so a
//!   partition key's records come in the order in which they were put;
//! - a consumer that isn't asked for batches stops fetching: at most `max_buffered_batches` wait,
//!   and at most `max_concurrent_fetches` answers are under way.
//!
//! Deliberately absent: checkpoints and sharing among processes. An application that keeps the
//! last sequence number of each shard resumes with `ConsumerOptions::positions`.

mod cursor;
mod lineage;
mod reader;
mod run;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use braid_env::{random, task, time};
/// Where reading a shard begins.
pub use braid_stream::IteratorKind as Position;
use braid_stream::{SequenceNumber, limits};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::failure::{CallError, Reason};
use crate::{aggregate, backoff};
use lineage::{Lineage, UnknownShard};
use run::Coordinator;

/// Settings of a [`Consumer`].
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Where shards begin that have no position of their own. Shards that follow a shard which is
    /// read are read from their beginning, whatever this says (a time applies to them too).
    pub start: Position,
    /// Shards with a position of their own, by id (`shardId-000000000000`); to resume, the last
    /// number seen as `AfterSequence`. Their ancestors count as read.
    pub positions: BTreeMap<String, Position>,
    /// Have records pushed (SubscribeToShard) where the node does that; else, and with this off,
    /// poll (GetRecords).
    pub subscribe: bool,
    /// Records in one answer when polling; 10,000 is the most the API gives.
    pub max_poll_records: u32,
    /// Take aggregated records (KPL's) apart. A batch has all of an aggregate or none of it, so whoever resumes after the last
    /// number of a whole batch misses nothing.
    pub deaggregate: bool,
    /// How long to wait before polling again at the tip of a shard. A shard allows five polls a
    /// second, shared by all its pollers.
    pub poll_interval: Duration,
    /// Batches that may wait to be taken. A batch has up to 10 MiB of data.
    pub max_buffered_batches: usize,
    /// Polls under way at a time, over all shards.
    pub max_concurrent_fetches: usize,
}

impl Default for ConsumerOptions {
    fn default() -> ConsumerOptions {
        ConsumerOptions {
            start: Position::TrimHorizon,
            positions: BTreeMap::new(),
            subscribe: true,
            max_poll_records: limits::GET_RECORDS_MAX as u32,
            deaggregate: false,
            poll_interval: Duration::from_millis(250),
            max_buffered_batches: 16,
            max_concurrent_fetches: 16,
        }
    }
}

/// A record as read.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Record {
    /// Its number; `offset` in it is its dense position in the shard.
    pub sequence_number: SequenceNumber,
    /// When the leader took it, ms since the epoch; never goes back within a shard.
    pub arrival_ms: u64,
    /// Its place within an aggregated record, where that was taken apart ([`ConsumerOptions::deaggregate`]): such records have
    /// one number together.
    pub place: Option<u32>,
    /// As put.
    pub partition_key: String,
    /// As put.
    pub data: Bytes,
}

/// Consecutive records of one shard.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct ShardBatch {
    /// `shardId-000000000000`
    pub shard: Arc<str>,
    /// In order. Empty only with `end_of_shard`.
    pub records: Vec<Record>,
    /// Age of the newest of them when the node answered, in ms; 0 at the tip.
    pub millis_behind_latest: u64,
    /// Records between the last batch and this one that retention removed before they were read.
    pub missed: u64,
    /// The shard is closed, and this is its end. Its children come next.
    pub end_of_shard: bool,
}

/// A consumer of all shards of one stream. Dropping it stops all reading.
pub struct Consumer {
    batches: mpsc::Receiver<Result<ShardBatch, ConsumerError>>,
}

impl Consumer {
    pub(crate) async fn open(
        client: Client,
        stream: &str,
        options: ConsumerOptions,
    ) -> Result<Consumer, ConsumerError> {
        let lineage = plan(&client, stream, &options).await?;
        let patience = client.options().call_timeout;
        let latest = options.start == Position::Latest;
        let (out, batches) = mpsc::channel(options.max_buffered_batches.max(1));
        let (coordinator, positioned) = Coordinator::new(client, stream, lineage, options, out);
        drop(task::spawn(coordinator.run()));
        if latest {
            // So that what is put once this has returned is read.
            let all = async {
                for shard in positioned {
                    // A reader that ended says why through the channel.
                    let _ = shard.await;
                }
            };
            time::timeout(patience, all).await.map_err(|_| {
                let message = format!("not all shards could be opened in {patience:?}");
                ConsumerError::Call(CallError::Unavailable { message })
            })?;
        }
        Ok(Consumer { batches })
    }

    /// The next batch of some shard; None once every shard is closed and read to its end, or
    /// after an error. Cancel-safe.
    ///
    /// # Errors
    /// What no retry can mend; reading has stopped. Everything else (nodes down, leaders moving,
    /// throttling, expired iterators) is retried within, for as long as it takes.
    pub async fn next(&mut self) -> Option<Result<ShardBatch, ConsumerError>> {
        let next = self.batches.recv().await;
        if let Some(Err(_)) = next {
            self.batches.close();
            while self.batches.try_recv().is_ok() {} // nothing comes after an error
        }
        next
    }
}

impl Record {
    /// Itself; or what is in it, if it is an aggregate.
    fn apart(self) -> Vec<Record> {
        // An empty aggregate, which nobody writes, is given as it is.
        let Some(parts) = aggregate::unpack(&self.data).filter(|it| !it.is_empty()) else { return vec![self] };
        let numbered = parts.into_iter().zip(0..);
        let record = |(part, place): (aggregate::Part, u32)| Record {
            place: Some(place),
            partition_key: part.partition_key,
            data: part.data,
            ..self
        };
        numbered.map(record).collect()
    }
}

/// What is to be read of a stream. A node that is behind doesn't list a shard in which an application was already: such
/// a shard is asked for, which is answered with certainty, and listed again until it is there.
async fn plan(client: &Client, stream: &str, options: &ConsumerOptions) -> Result<Lineage, ConsumerError> {
    let deadline = Instant::now() + client.options().call_timeout;
    let mut attempt = 0;
    loop {
        let shards = client.list_shards(stream).await?;
        let shard = match Lineage::new(&shards, options.start, &options.positions) {
            Ok(lineage) => return Ok(lineage),
            Err(UnknownShard(shard)) => shard,
        };
        if !client.has_shard(stream, &shard).await? || Instant::now() >= deadline {
            return Err(ConsumerError::UnknownShard { shard });
        }
        attempt += 1;
        time::sleep(backoff::wait(attempt, Duration::ZERO, &mut random::below)).await;
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("buffered_batches", &self.batches.len()).finish_non_exhaustive()
    }
}

/// Why a consumer could not start, or stopped.
#[derive(Clone, Debug)]
pub enum ConsumerError {
    /// The stream's shards could not be listed.
    Call(CallError),
    /// A position was given for a shard that the stream doesn't have (any more).
    UnknownShard {
        /// Which.
        shard: String,
    },
    /// A shard can't be read (any more): the stream was deleted, a position isn't the shard's.
    Shard {
        /// Which.
        shard: String,
        /// Why.
        reason: Reason,
        /// For people, with values in it.
        message: String,
    },
    /// A node's answer can't be understood.
    Unreadable {
        /// Of which shard.
        shard: String,
        /// What it was.
        message: String,
    },
}

impl From<CallError> for ConsumerError {
    fn from(error: CallError) -> ConsumerError {
        ConsumerError::Call(error)
    }
}

impl fmt::Display for ConsumerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsumerError::Call(error) => error.fmt(f),
            ConsumerError::UnknownShard { shard } => {
                write!(f, "the stream has no shard {shard:?} to begin in")
            }
            ConsumerError::Shard { shard, reason, message } => {
                write!(f, "{shard} can't be read ({}): {message}", reason.as_str_name())
            }
            ConsumerError::Unreadable { shard, message } => {
                write!(f, "an answer about {shard} can't be understood: {message}")
            }
        }
    }
}

impl Error for ConsumerError {}

//! Records on their way: hands them to a producer and counts what became of each.
//!
//! Invariant: `acked + refused + unknown` of the final [`Tally`] is the number of records handed
//! over. Nothing is counted twice or dropped, whatever happens to the cluster meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use braid_client::{Client, HashKey, Outcome, Producer, ProducerOptions, PutError, PutFuture, SequenceNumber};
use bytes::Bytes;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure};
use crate::moment::duration_text;
use crate::size::bytes_text;

/// Bytes under way at a time. A single shard takes 1 MiB/s: what waits here must be gone well
/// before a record's delivery time is over, and four MiB keep many shards busy all the same.
const BUFFERED_BYTES_MAX: usize = 4 << 20;

/// A record waits at least this long for its turn at a throttled shard, whatever the patience with
/// unreachable nodes.
const DELIVERY_MIN: Duration = Duration::from_secs(60);

/// Problems told one by one; the rest is only counted.
const PROBLEMS_TOLD: usize = 5;

/// What became of records.
#[derive(Default)]
pub struct Tally {
    pub acked: u64,
    pub acked_bytes: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Of the first few that were not acknowledged.
    problems: Vec<String>,
    /// Acknowledged, by shard.
    by_shard: BTreeMap<Arc<str>, u64>,
    /// Where the newest acknowledged record is.
    pub last: Option<(Arc<str>, SequenceNumber)>,
}

impl Tally {
    fn count(&mut self, what: &str, bytes: u64, outcome: Outcome) {
        match outcome {
            Outcome::Acked { shard, sequence_number } => {
                self.acked += 1;
                self.acked_bytes += bytes;
                *self.by_shard.entry(shard.clone()).or_default() += 1;
                self.last = Some((shard, sequence_number));
            }
            Outcome::Refused { reason, message, .. } => {
                self.refused += 1;
                self.tell(|| format!("{what}: refused ({reason:?}): {message}"));
            }
            Outcome::Unknown { why } => {
                self.unknown += 1;
                self.tell(|| format!("{what}: outcome unknown: {why}"));
            }
        }
    }

    fn tell(&mut self, problem: impl FnOnce() -> String) {
        if self.problems.len() < PROBLEMS_TOLD {
            self.problems.push(problem());
        }
    }

    pub fn to_json(&self, took: Duration) -> Value {
        json!({
            "acked": self.acked,
            "acked_bytes": self.acked_bytes,
            "refused": self.refused,
            "unknown": self.unknown,
            "elapsed_ms": took.as_millis() as u64,
            "acked_by_shard": self.by_shard.iter().map(|(shard, n)| (shard.to_string(), json!(n))).collect::<serde_json::Map<_, _>>(),
        })
    }

    /// One line for people.
    pub fn to_line(&self, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(0.001);
        format!(
            "{} acked, {} refused, {} unknown; {} in {} ({:.0} records/s, {}/s)",
            self.acked,
            self.refused,
            self.unknown,
            bytes_text(self.acked_bytes),
            duration_text(took.as_millis() as u64),
            self.acked as f64 / seconds,
            bytes_text((self.acked_bytes as f64 / seconds) as u64),
        )
    }

    /// Whether everything was acknowledged; if not, what the process ends with.
    pub fn verdict(&self) -> Result<(), Failure> {
        let failed = self.refused + self.unknown;
        if failed == 0 {
            return Ok(());
        }
        let mut message = format!("{failed} of {} records were not acknowledged", self.acked + failed);
        for problem in &self.problems {
            message.push('\n');
            message.push_str(problem);
        }
        if failed > self.problems.len() as u64 {
            message.push_str(&format!("\n… and {} more", failed - self.problems.len() as u64));
        }
        Err(match self.unknown {
            0 => Failure::new(Exit::Refused, message)
                .hint("What was refused was certainly not stored; putting it again can't duplicate it."),
            _ => Failure::new(Exit::Unknown, message).hint(
                "What is unknown may be stored; putting it again may duplicate it. With --retry-unknown, put does \
                 so by itself.",
            ),
        })
    }
}

/// Counts outcomes while records are handed over.
pub struct Delivery {
    producer: Producer,
    under_way: mpsc::Sender<(String, u64, PutFuture)>,
    counting: tokio::task::JoinHandle<Tally>,
    refused_here: Tally,
}

impl Delivery {
    pub async fn open(
        client: &Client,
        stream: &str,
        retry_unknown: bool,
        bar: ProgressBar,
    ) -> Result<Delivery, Failure> {
        let options = ProducerOptions {
            max_buffered_bytes: BUFFERED_BYTES_MAX,
            delivery_timeout: client.options().call_timeout.max(DELIVERY_MIN),
            retry_unknown,
            ..ProducerOptions::default()
        };
        let producer = client.producer(stream, options).await?;
        // The producer's memory bound is what holds back; this one is only there to be finite.
        let (under_way, outcomes) = mpsc::channel(65_536);
        let counting = tokio::spawn(count(outcomes, bar));
        Ok(Delivery { producer, under_way, counting, refused_here: Tally::default() })
    }

    /// Hands over a record; waits while too much is under way. `what` names it in messages.
    pub async fn put(&mut self, what: String, key: String, hash: Option<HashKey>, data: Bytes) -> Result<(), Failure> {
        let bytes = data.len() as u64;
        match self.producer.put(key, hash, data).await {
            Ok(outcome) => {
                self.under_way.send((what, bytes, outcome)).await.map_err(|_| Failure::failed("counting outcomes died"))
            }
            Err(PutError::Closed) => Err(PutError::Closed.into()),
            // One record too large is that record's refusal; the others go on.
            Err(e) => {
                self.refused_here.refused += 1;
                self.refused_here.tell(|| format!("{what}: refused: {e}"));
                Ok(())
            }
        }
    }

    /// Waits until every record has its outcome.
    pub async fn finish(self) -> Result<Tally, Failure> {
        let Delivery { producer, under_way, counting, refused_here } = self;
        drop(under_way);
        producer.close().await;
        let mut tally = counting.await.map_err(|e| Failure::failed(format!("counting outcomes died: {e}")))?;
        tally.refused += refused_here.refused;
        tally.problems.extend(refused_here.problems);
        tally.problems.truncate(PROBLEMS_TOLD);
        Ok(tally)
    }
}

async fn count(mut outcomes: mpsc::Receiver<(String, u64, PutFuture)>, bar: ProgressBar) -> Tally {
    let mut tally = Tally::default();
    while let Some((what, bytes, outcome)) = outcomes.recv().await {
        let outcome = outcome.await;
        tally.count(&what, bytes, outcome);
        bar.inc(bytes);
        if tally.refused + tally.unknown > 0 {
            bar.set_message(format!("{} refused, {} unknown", tally.refused, tally.unknown));
        }
    }
    bar.finish_and_clear();
    tally
}

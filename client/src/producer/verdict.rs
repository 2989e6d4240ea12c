//! What an answer means for each record of a batch: settled, or to be sent again.
//!
//! Owns what is safe to send again. Its invariant: a record goes back only if it certainly was
//! not appended (or the application asked for at-least-once) *and* no later record of its key
//! is, or may be, in the stream. Pure; the queues are `queue`'s.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_stream::{HashKey, SequenceNumber};
use bytes::Bytes;

use super::{Outcome, RefusedReason};
use crate::failure::Reason;
use crate::routes::ShardIndex;

/// How batches are cut and how long records are tried.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub records_max: usize,
    /// Data and partition keys.
    pub bytes_max: u64,
    /// Batches in flight for one group.
    pub in_flight_max: usize,
    pub linger: Duration,
    /// From put to giving up.
    pub delivery_timeout: Duration,
    pub retry_unknown: bool,
}

/// A record on its way; `token` is whatever the caller wants back with the outcome.
#[derive(Debug)]
pub(super) struct Pending<T> {
    pub key: String,
    pub explicit: Option<HashKey>,
    /// Where it belongs: `explicit`, or the hash of `key`.
    pub hash: HashKey,
    pub data: Bytes,
    pub put_at: Instant,
    /// An earlier attempt may have appended it, so it can't be called refused any more.
    pub in_doubt: bool,
    /// Sent by itself: a batch it was in was refused whole, and it may be why.
    pub alone: bool,
    pub token: T,
}

impl<T> Pending<T> {
    pub fn size(&self) -> u64 {
        (self.key.len() + self.data.len()) as u64
    }
}

/// What a node's answer says about one record.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Acked {
        shard: Arc<str>,
        sequence_number: SequenceNumber,
    },
    Refused {
        reason: Reason,
        message: String,
        /// The same record may be taken later.
        retry: bool,
        retry_after: Duration,
    },
    /// The whole batch was refused for something in one of its records: send each by itself.
    Apart,
    Unknown {
        why: String,
    },
}

/// What is left of a shard's slice of a batch once it is judged.
pub(super) struct After<T> {
    /// To be sent again, in order.
    pub again: Vec<Pending<T>>,
    /// Something was appended.
    pub acked: bool,
    /// Something failed: wait at least this long (what the node asked for), plus backoff.
    pub pause: Option<Duration>,
}

impl Rules {
    /// Whether `next` may join a batch of `records` with `bytes` of data and keys.
    pub fn fits<T>(&self, records: &[Pending<T>], bytes: u64, next: &Pending<T>) -> bool {
        records.is_empty()
            || (records.len() < self.records_max
                && bytes + next.size() <= self.bytes_max
                && !next.alone
                && !records[0].alone)
    }

    pub fn is_expired<T>(&self, record: &Pending<T>, now: Instant) -> bool {
        record.put_at + self.delivery_timeout <= now
    }

    /// Decides, for one shard's records of a batch, which are settled and which are sent again.
    pub fn judge<T>(
        &self,
        slice: Vec<(Pending<T>, Verdict)>,
        now: Instant,
        resolved: &mut Vec<(T, Outcome)>,
    ) -> After<T> {
        let mut after = After { again: Vec::new(), acked: false, pause: None };
        // Backwards, so that each record knows whether a later one of its key is, or may be,
        // in the stream already.
        let mut ahead: BTreeSet<String> = BTreeSet::new();
        let first_resolved = resolved.len();
        let mut slice = slice.into_iter();
        while let Some((mut record, verdict)) = slice.next_back() {
            let overtaken = ahead.contains(&record.key);
            let expired = self.is_expired(&record, now);
            match verdict {
                Verdict::Acked { shard, sequence_number } => {
                    after.acked = true;
                    // Most batches to many shards have one record of each.
                    if slice.len() > 0 {
                        ahead.insert(record.key);
                    }
                    resolved.push((record.token, Outcome::Acked { shard, sequence_number }));
                }
                Verdict::Unknown { why } => {
                    after.pause = after.pause.or(Some(Duration::ZERO));
                    reachable!(Mark::ProducerUnknown);
                    if (self.retry_unknown || planted(Bug::UnknownRetried)) && !overtaken && !expired {
                        record.in_doubt = true;
                        after.again.push(record);
                    } else {
                        ahead.insert(record.key);
                        resolved.push((record.token, Outcome::Unknown { why }));
                    }
                }
                Verdict::Apart => {
                    record.alone = true;
                    after.again.push(record);
                }
                Verdict::Refused { reason, message, retry, retry_after } => {
                    if retry {
                        after.pause = Some(after.pause.unwrap_or_default().max(retry_after));
                    }
                    sometimes!(retry && overtaken, Mark::ProducerOvertaken);
                    sometimes!(retry && expired, Mark::ProducerTimedOut);
                    if retry && !overtaken && !expired {
                        reachable!(Mark::ProducerRetries);
                        after.again.push(record);
                        continue;
                    }
                    let reason = match (retry, overtaken) {
                        (true, true) => RefusedReason::Overtaken,
                        (true, false) => RefusedReason::TimedOut,
                        (false, _) => RefusedReason::Node(reason),
                    };
                    resolved.push(refused_outcome(record, reason, message, retry_after));
                }
            }
        }
        if !planted(Bug::RetryReorders) {
            after.again.reverse();
        }
        resolved[first_resolved..].reverse();
        after
    }
}

impl Verdict {
    /// Whether it suggests that `shard` is closed, or lives elsewhere than believed.
    pub fn doubts_route(&self, expected: ShardIndex) -> bool {
        match self {
            Verdict::Acked { sequence_number, .. } => sequence_number.shard_index != expected.0,
            Verdict::Refused { reason, .. } => matches!(
                reason,
                Reason::ShardClosed | Reason::WrongRange | Reason::NotLeader | Reason::NoLeader | Reason::Unspecified
            ),
            Verdict::Unknown { .. } => true,
            Verdict::Apart => false,
        }
    }
}

/// A record whose time was up before it was sent (again).
pub(super) fn expired_outcome<T>(record: Pending<T>) -> (T, Outcome) {
    let message = "not sent within the delivery timeout".to_owned();
    refused_outcome(record, RefusedReason::TimedOut, message, Duration::ZERO)
}

/// Refused, unless an earlier attempt leaves that open.
fn refused_outcome<T>(
    record: Pending<T>,
    reason: RefusedReason,
    message: String,
    retry_after: Duration,
) -> (T, Outcome) {
    let outcome = match record.in_doubt {
        true => Outcome::Unknown { why: format!("an earlier attempt may have appended it; the last one: {message}") },
        false => Outcome::Refused {
            reason,
            message,
            retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
        },
    };
    (record.token, outcome)
}

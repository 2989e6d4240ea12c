//! A subscription: a shard's records pushed as they are committed.
//!
//! Invariant: events follow one another without a gap or a repeat, and each says where the next
//! subscription is to go on. Nothing is read ahead: the next event is made when the connection
//! takes it, so a slow subscriber costs one event of memory and no more.
//!
//! ```text
//!  poll ─▶ over 5 min? end ─▶ read ─┬─ records ─▶ wait for 2 MiB/s ─▶ event
//!                                   ├─ end of a closed shard ─▶ last event
//!                                   └─ nothing ─▶ wait: applied moved │ 5 s ─▶ sign of life
//! ```

use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_env::watch;
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_stream::ids::{NodeId, Offset, ShardId};
use braid_stream::limits::SUBSCRIBER_BYTES_PER_S;
use braid_stream::sequence::SequenceNumber;
use braid_stream::throttle::TokenBucket;
use futures_util::Stream;

use super::{Batch, Budget, GroupReader, ReadError, StoredRecord};
use crate::clock::NodeClock;

/// A subscription's life, as in Kinesis.
pub const SUBSCRIPTION: Duration = Duration::from_secs(300);

/// Readers give up after some 35 s of silence; a lost connection should be noticed sooner.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// An event's size: half a second's worth, so that pacing is smooth and a slow reader holds little.
const EVENT_BYTES: u64 = SUBSCRIBER_BYTES_PER_S / 2;
const EVENT_RECORDS: usize = 2_000;

/// Some records, or a sign of life.
#[derive(Clone, Debug)]
pub struct Event {
    /// In offset order; empty in a sign of life.
    pub records: Vec<StoredRecord>,
    /// Go on after this one; `None` while the shard never had a record.
    pub continuation: Option<SequenceNumber>,
    /// How far behind the tip, in milliseconds.
    pub behind_ms: u64,
    /// The shard is closed and read to its end: the shards that go on. The last event.
    pub ended: Option<Vec<u32>>,
}

/// Why a subscription broke off. What was delivered stays valid; subscribe again from there.
#[derive(Debug)]
pub enum Interrupted {
    /// This node no longer leads the shard's group.
    NotLeader(Option<NodeId>),
    /// Reading failed.
    Read(ReadError),
}

struct Subscription {
    reader: GroupReader,
    shard: ShardId,
    next: Offset,
    continuation: Option<SequenceNumber>,
    applied: watch::Receiver<u64>,
    clock: NodeClock,
    started: Instant,
    pace: TokenBucket,
    /// When it last sent an event.
    heard: Option<Instant>,
    over: bool,
}

/// Pushes `shard` from `from` on for five minutes, or until a closed shard is read to its end.
pub fn subscribe(
    reader: GroupReader,
    shard: ShardId,
    from: Offset,
    clock: NodeClock,
) -> Result<impl Stream<Item = Result<Event, Interrupted>> + Send, ReadError> {
    let subscription = Subscription {
        continuation: reader.number_before(shard, from)?,
        applied: reader.group.applied(),
        pace: TokenBucket::full(SUBSCRIBER_BYTES_PER_S, Duration::ZERO),
        reader,
        shard,
        next: from,
        clock,
        started: Instant::now(),
        heard: None,
        over: false,
    };
    Ok(futures_util::stream::unfold(subscription, |mut subscription| async move {
        let event = subscription.event().await?;
        Some((event, subscription))
    }))
}

impl Subscription {
    /// The next event; `None` when the subscription is over.
    async fn event(&mut self) -> Option<Result<Event, Interrupted>> {
        if self.over {
            return None;
        }
        let end = self.started + SUBSCRIPTION;
        loop {
            if Instant::now() >= end {
                reachable!(Mark::SubscriptionOver);
                return None;
            }
            if !self.reader.group.is_leader() {
                reachable!(Mark::SubscriptionInterrupted);
                self.over = true;
                return Some(Err(Interrupted::NotLeader(self.reader.group.leader())));
            }
            // Marked as seen before reading, so that nothing applied meanwhile is slept through.
            self.applied.borrow_and_update();
            let batch = match self.reader.read(self.shard, self.next, Budget::of(EVENT_RECORDS, EVENT_BYTES)).await {
                Ok(batch) => batch,
                Err(error) => {
                    self.over = true;
                    return Some(Err(match error {
                        ReadError::NotLeader { leader } => Interrupted::NotLeader(leader),
                        error => Interrupted::Read(error),
                    }));
                }
            };
            if !batch.records.is_empty() || batch.ended.is_some() {
                self.wait_for_pace(batch.bytes).await;
                return Some(Ok(self.deliver(batch)));
            }
            // The first comes at once: it fixes where the subscription begins.
            let sign_of_life = self.heard.map_or(self.started, |heard| heard + SIGN_OF_LIFE);
            if Instant::now() >= sign_of_life {
                sometimes!(self.heard.is_some(), Mark::SignOfLife);
                return Some(Ok(self.deliver(batch)));
            }
            match time::timeout_at(sign_of_life.min(end), self.applied.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                // The replica was closed.
                Ok(Err(_)) => {
                    self.over = true;
                    return Some(Err(Interrupted::NotLeader(None)));
                }
            }
        }
    }

    async fn wait_for_pace(&mut self, bytes: u64) {
        let wait = self.pace.wait(self.started.elapsed(), bytes);
        sometimes!(wait > Duration::ZERO, Mark::SubscriptionPaced);
        if wait > Duration::ZERO {
            time::sleep(wait).await;
        }
        self.pace.take(self.started.elapsed(), bytes);
    }

    fn deliver(&mut self, batch: Batch) -> Event {
        assert!(batch.next >= self.next, "a subscription never goes back");
        self.next = batch.next;
        if planted(Bug::SignOfLifeSkips) && batch.records.is_empty() {
            self.next = batch.next.advance(1);
        }
        self.heard = Some(Instant::now());
        self.over = batch.ended.is_some();
        if let Some(last) = batch.records.last() {
            self.continuation = Some(last.sequence_number);
        }
        Event {
            continuation: self.continuation,
            behind_ms: batch.behind_ms(self.clock.now_ms()),
            ended: batch.ended,
            records: batch.records,
        }
    }
}

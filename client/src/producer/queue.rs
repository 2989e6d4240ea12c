//! What waits to be sent, what is in flight, and what is sent next: the producer's decisions.
//!
//! Owns the order of records. Pure: no I/O, no clock, no randomness; `run` drives it, and
//! `verdict` judges what a batch led to.
//!
//! The invariant, *order per partition key*: of two records of one key put one after the other,
//! the first is never acknowledged after a place behind the second. It holds because
//!
//! 1. a key's records wait in one queue, that of the shard whose range holds the key;
//! 2. a shard has at most one batch in flight, and what failed of it goes back to the head of its
//!    queue, in order, before anything else of the shard is sent;
//! 3. within a batch, `keep_order` makes the node refuse what follows a refusal in the shard. A
//!    record found overtaken all the same (a later one of its key was, or may have been,
//!    appended) is given up as `Overtaken`, never sent again;
//! 4. when shards change, queues of shards that are gone accept records but send nothing until
//!    all that is in flight for them is settled; then they are moved, whole, to the new shards.
//!
//! One batch in flight per shard costs little: a shard takes 1 MiB/s, and a batch of 500 records
//! every round trip is far above that. Batches are cut per *group*, not per leader: a group that
//! has lost its leader then holds up only its own shards, and one proposal serves each batch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use braid_env::time::Instant;
use braid_probe::{Mark, sometimes};
use indexmap::IndexMap;

use super::Outcome;
use super::verdict::{After, Pending, Rules, Verdict, expired_outcome};
use crate::backoff;
use crate::routes::{Routes, ShardIndex};

#[cfg(test)]
mod tests;

/// What settling a batch led to.
#[derive(Debug)]
pub(super) struct Settled<T> {
    pub resolved: Vec<(T, Outcome)>,
    /// The routes look outdated.
    pub relist: bool,
}

#[derive(Copy, Clone, Ord, PartialOrd, Eq, PartialEq, Debug)]
pub(super) struct BatchId(u64);

/// Records in flight together: all of one group, shard after shard.
#[derive(Debug)]
pub(super) struct Batch<T> {
    pub group: u32,
    pub records: Vec<Pending<T>>,
    /// Which shard, and how many of `records` in a row.
    slices: Vec<(ShardIndex, usize)>,
}

pub(super) struct Queues<T> {
    rules: Rules,
    routes: Routes,
    /// Routes to change to once nothing is in flight for the shards they don't have.
    next_routes: Option<Routes>,
    /// Looked up several times for each record, among ten thousand. Their order depends on what was put and installed alone,
    /// so that a simulated run repeats.
    shards: IndexMap<ShardIndex, ShardQueue<T>>,
    lanes: BTreeMap<u32, Lane>,
    /// Shards in `State::Paused`, by the end of their pause.
    paused: BTreeSet<(Instant, ShardIndex)>,
    in_flight: BTreeMap<BatchId, Batch<T>>,
    batches: u64,
}

struct ShardQueue<T> {
    group: u32,
    waiting: VecDeque<Pending<T>>,
    bytes: u64,
    state: State,
    /// Attempts in a row that appended nothing.
    attempts: u32,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum State {
    /// Nothing waits.
    Empty,
    /// Something waits and may be sent; the shard is in its lane's `ready`.
    Ready,
    /// Something waits, and may be sent from then on.
    Paused(Instant),
    /// A batch with records of the shard is in flight; more may wait.
    InFlight,
    /// The shard is gone from `next_routes`: what waits will be moved.
    Held,
}

/// The ready shards of one group, in the order in which they became ready.
#[derive(Default)]
struct Lane {
    ready: VecDeque<ShardIndex>,
    records: usize,
    bytes: u64,
    /// When the longest waiting record has lingered enough. Present iff `ready` isn't empty.
    due: Option<Instant>,
    in_flight: usize,
}

impl<T> Batch<T> {
    /// The records shard after shard, as they were believed to be theirs.
    pub fn by_shard(&self) -> impl Iterator<Item = (ShardIndex, &[Pending<T>])> {
        let mut rest = &self.records[..];
        self.slices.iter().map(move |(shard, count)| {
            let (theirs, others) = rest.split_at(*count);
            rest = others;
            (*shard, theirs)
        })
    }
}

impl<T> Queues<T> {
    pub fn new(rules: Rules, routes: Routes) -> Queues<T> {
        Queues {
            rules,
            routes,
            next_routes: None,
            shards: IndexMap::new(),
            lanes: BTreeMap::new(),
            paused: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            batches: 0,
        }
    }

    /// Takes a record; it waits behind every earlier one of its key.
    pub fn push(&mut self, record: Pending<T>) {
        let route = self.routes.lookup(record.hash);
        let next = &self.next_routes;
        let queue = self.shards.entry(route.shard).or_insert_with(|| {
            let retiring = next.as_ref().is_some_and(|next| !next.has(route.shard));
            ShardQueue::new(route.group, retiring)
        });
        let (size, ready_at) = (record.size(), record.put_at + self.rules.linger);
        queue.bytes += size;
        queue.waiting.push_back(record);
        match queue.state {
            State::Empty => make_ready(&mut self.lanes, route.shard, queue, ready_at),
            State::Ready => {
                let lane = self.lanes.get_mut(&queue.group).expect("it is in a lane");
                lane.records += 1;
                lane.bytes += size;
            }
            State::Paused(_) | State::InFlight | State::Held => {}
        }
    }

    /// The next batch to send now, if one is due. `hurry` doesn't wait for more records.
    /// Records whose time is up are given back instead of being sent.
    pub fn cut(&mut self, now: Instant, hurry: bool, given_up: &mut Vec<(T, Outcome)>) -> Option<(BatchId, &Batch<T>)> {
        self.resume(now);
        loop {
            let rules = &self.rules;
            let group = *self.lanes.iter().find_map(|(group, lane)| {
                let due =
                    lane.due? <= now || hurry || lane.records >= rules.records_max || lane.bytes >= rules.bytes_max;
                (due && lane.in_flight < rules.in_flight_max).then_some(group)
            })?;
            let batch = self.cut_lane(group, now, given_up);
            if batch.records.is_empty() {
                continue; // all that was ready had expired
            }
            let lane = self.lanes.get_mut(&group).expect("it was found");
            lane.in_flight += 1;
            self.batches += 1;
            let id = BatchId(self.batches);
            return Some((id, self.in_flight.entry(id).or_insert(batch)));
        }
    }

    /// When `cut` should be called next if nothing happens before.
    pub fn next_wake(&self) -> Option<Instant> {
        let due = self
            .lanes
            .values()
            .filter(|lane| lane.in_flight < self.rules.in_flight_max)
            .filter_map(|lane| lane.due)
            .min();
        let pause = self.paused.first().map(|(until, _)| *until);
        due.into_iter().chain(pause).min()
    }

    /// A batch was answered: one verdict per record, in order.
    pub fn settle(
        &mut self,
        id: BatchId,
        verdicts: Vec<Verdict>,
        now: Instant,
        below: &mut dyn FnMut(u64) -> u64,
    ) -> Settled<T> {
        let batch = self.in_flight.remove(&id).expect("it is in flight");
        assert_eq!(batch.records.len(), verdicts.len(), "a verdict per record");
        let lane = self.lanes.get_mut(&batch.group).expect("it was cut there");
        lane.in_flight -= 1;

        let mut settled = Settled { resolved: Vec::with_capacity(verdicts.len()), relist: false };
        let mut rest = batch.records.into_iter().zip(verdicts);
        for (shard, count) in batch.slices {
            let slice: Vec<_> = rest.by_ref().take(count).collect();
            settled.relist |= slice.iter().any(|(_, v)| v.doubts_route(shard));
            let after = self.rules.judge(slice, now, &mut settled.resolved);
            self.return_to_queue(shard, after, now, below);
        }
        self.try_change_routes(now);
        settled
    }

    /// Changes to new routes as soon as order allows it.
    pub fn install(&mut self, routes: Routes, now: Instant) {
        self.next_routes = Some(routes);
        self.hold_retiring(now);
        self.try_change_routes(now);
    }

    /// Records of a batch in flight, to make a request of.
    pub fn in_flight(&self, id: BatchId) -> Option<&Batch<T>> {
        self.in_flight.get(&id)
    }

    /// Nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.shards.values().all(|q| q.waiting.is_empty())
    }

    fn resume(&mut self, now: Instant) {
        while let Some((until, _)) = self.paused.first()
            && *until <= now
        {
            let (_, shard) = self.paused.pop_first().expect("it is there");
            let queue = self.shards.get_mut(&shard).expect("paused shards have one");
            assert!(matches!(queue.state, State::Paused(_)));
            make_ready(&mut self.lanes, shard, queue, now);
        }
    }

    fn cut_lane(&mut self, group: u32, now: Instant, given_up: &mut Vec<(T, Outcome)>) -> Batch<T> {
        let lane = self.lanes.get_mut(&group).expect("it was found");
        let mut batch = Batch { group, records: Vec::new(), slices: Vec::new() };
        let mut bytes = 0;
        while let Some(shard) = lane.ready.front() {
            let queue = self.shards.get_mut(shard).expect("ready shards have one");
            assert_eq!(queue.state, State::Ready);
            let before = batch.records.len();
            let mut full = false;
            while let Some(head) = queue.waiting.front() {
                let expired = self.rules.is_expired(head, now);
                full = !expired && !self.rules.fits(&batch.records, bytes, head);
                if full {
                    break;
                }
                let head = queue.waiting.pop_front().expect("it was looked at");
                queue.bytes -= head.size();
                lane.records -= 1;
                lane.bytes -= head.size();
                if expired {
                    given_up.push(expired_outcome(head));
                } else {
                    bytes += head.size();
                    batch.records.push(head);
                }
            }
            let taken = batch.records.len() - before;
            if taken == 0 && full {
                break; // the batch was full before this shard's turn: it stays first in line
            }
            lane.records -= queue.waiting.len();
            lane.bytes -= queue.bytes;
            let shard = lane.ready.pop_front().expect("it was looked at");
            queue.state = match taken {
                0 => State::Empty,
                _ => State::InFlight,
            };
            if taken > 0 {
                batch.slices.push((shard, taken));
            }
            if full {
                break;
            }
        }
        // What is left has waited while this batch filled up.
        lane.due = (!lane.ready.is_empty()).then_some(now);
        batch
    }

    fn return_to_queue(&mut self, shard: ShardIndex, after: After<T>, now: Instant, below: &mut dyn FnMut(u64) -> u64) {
        let queue = self.shards.get_mut(&shard).expect("it had records in flight");
        assert_eq!(queue.state, State::InFlight);
        for record in after.again.into_iter().rev() {
            queue.bytes += record.size();
            queue.waiting.push_front(record);
        }
        queue.attempts = match after.pause {
            None => 0,
            Some(_) if after.acked => 1,
            Some(_) => queue.attempts.saturating_add(1),
        };
        let retiring = self.next_routes.as_ref().is_some_and(|r| !r.has(shard));
        match (queue.waiting.front(), after.pause) {
            _ if retiring => queue.state = State::Held,
            (None, _) => queue.state = State::Empty,
            (Some(_), Some(asked)) => {
                let until = now + backoff::wait(queue.attempts, asked, below);
                queue.state = State::Paused(until);
                self.paused.insert((until, shard));
            }
            (Some(head), None) => {
                let ready_at = head.put_at + self.rules.linger;
                make_ready(&mut self.lanes, shard, queue, ready_at);
            }
        }
    }

    /// Takes the shards that `next_routes` doesn't have out of their lanes and pauses, and puts
    /// those back that an earlier `next_routes` did not have.
    fn hold_retiring(&mut self, now: Instant) {
        let next = self.next_routes.as_ref().expect("set by the caller");
        for (&shard, queue) in &mut self.shards {
            let retiring = !next.has(shard);
            match (queue.state, retiring) {
                (State::Ready, true) => {
                    let lane = self.lanes.get_mut(&queue.group).expect("it is in a lane");
                    lane.ready.retain(|ready| *ready != shard);
                    lane.records -= queue.waiting.len();
                    lane.bytes -= queue.bytes;
                    if lane.ready.is_empty() {
                        lane.due = None;
                    }
                    queue.state = State::Held;
                }
                (State::Paused(until), true) => {
                    assert!(self.paused.remove(&(until, shard)));
                    queue.state = State::Held;
                }
                (State::Empty, true) => queue.state = State::Held,
                (State::Held, false) if queue.waiting.is_empty() => queue.state = State::Empty,
                (State::Held, false) => make_ready(&mut self.lanes, shard, queue, now),
                (State::InFlight | State::Held, _) => {}
                (State::Ready | State::Paused(_) | State::Empty, false) => {}
            }
        }
    }

    fn try_change_routes(&mut self, now: Instant) {
        let Some(next) = &self.next_routes else {
            return;
        };
        let settled = self.shards.iter().all(|(shard, queue)| next.has(*shard) || queue.state == State::Held);
        if !settled {
            return;
        }
        self.routes = self.next_routes.take().expect("it was there");
        sometimes!(!self.in_flight.is_empty(), Mark::RoutesChangedInFlight);
        let gone: Vec<ShardIndex> = self.shards.keys().copied().filter(|shard| !self.routes.has(*shard)).collect();
        for shard in gone {
            let queue = self.shards.swap_remove(&shard).expect("it was listed");
            for record in queue.waiting {
                self.push(record);
            }
        }
        // A record that waited for this change must not linger as if it were new.
        for lane in self.lanes.values_mut() {
            lane.due = lane.due.map(|due| due.min(now));
        }
    }
}

impl<T> ShardQueue<T> {
    fn new(group: u32, retiring: bool) -> ShardQueue<T> {
        ShardQueue {
            group,
            waiting: VecDeque::new(),
            bytes: 0,
            state: match retiring {
                true => State::Held,
                false => State::Empty,
            },
            attempts: 0,
        }
    }
}

fn make_ready<T>(lanes: &mut BTreeMap<u32, Lane>, shard: ShardIndex, queue: &mut ShardQueue<T>, ready_at: Instant) {
    assert!(queue.state != State::Ready && !queue.waiting.is_empty());
    let lane = lanes.entry(queue.group).or_default();
    lane.ready.push_back(shard);
    lane.records += queue.waiting.len();
    lane.bytes += queue.bytes;
    lane.due = Some(lane.due.map_or(ready_at, |due| due.min(ready_at)));
    queue.state = State::Ready;
}

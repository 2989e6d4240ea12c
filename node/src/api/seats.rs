//! Who is subscribed: a registered consumer has one subscription of a shard at a time.
//!
//! Invariant: of one consumer and shard at most one subscription of this node goes on; a later one ends it, as in Kinesis, so
//! that a consumer that lost its connection need not wait until the node notices. Kept by the shard's leader, and gone with
//! it: so are its subscriptions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use braid_env::time::Instant;
use braid_env::watch;
use braid_stream::ids::ShardId;

/// How long a subscription can't be taken over: two workers that both believe in a lease would else push each other
/// out without end. Kinesis' number.
const SETTLED: Duration = Duration::from_secs(5);

/// The subscriptions of registered consumers.
#[derive(Clone, Default)]
pub struct Seats(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    next: u64,
    by: BTreeMap<(ShardId, String), Seat>,
}

struct Seat {
    id: u64,
    since: Instant,
    end: watch::Sender<bool>,
}

/// A place; given back when dropped.
pub struct Seated {
    seats: Seats,
    key: (ShardId, String),
    id: u64,
    ended: watch::Receiver<bool>,
}

impl Seats {
    /// A place for `consumer` at `shard`; `None` if it took one a moment ago.
    pub fn take(&self, shard: ShardId, consumer: &str) -> Option<Seated> {
        let mut taken = self.0.lock().expect("nothing panics while it is locked");
        let key = (shard, consumer.to_string());
        let now = Instant::now();
        if let Some(seat) = taken.by.get(&key) {
            if now < seat.since + SETTLED {
                return None;
            }
            seat.end.send_replace(true);
        }
        let id = taken.next;
        taken.next += 1;
        let (end, ended) = watch::channel(false);
        taken.by.insert(key.clone(), Seat { id, since: now, end });
        Some(Seated { seats: self.clone(), key, id, ended })
    }
}

impl Seated {
    /// Turns true when another subscription has taken over.
    pub fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().expect("nothing panics while it is locked");
        if taken.by.get(&self.key).is_some_and(|seat| seat.id == self.id) {
            taken.by.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_env::time;
    use braid_stream::ids::StreamId;

    #[tokio::test(start_paused = true)]
    async fn a_later_subscription_takes_over_once_the_first_has_settled() {
        let seats = Seats::default();
        let shard = |index| ShardId { stream: StreamId(1), index };
        let first = seats.take(shard(0), "a").unwrap();
        assert!(seats.take(shard(0), "a").is_none());
        let _elsewhere = (seats.take(shard(1), "a").unwrap(), seats.take(shard(0), "b").unwrap());
        time::sleep(SETTLED).await;
        let second = seats.take(shard(0), "a").unwrap();
        assert!(*first.ended().borrow_and_update() && !*second.ended().borrow_and_update());
        // The first one's end does not free the second one's place.
        drop(first);
        assert!(seats.take(shard(0), "a").is_none());
        drop(second);
        assert!(seats.take(shard(0), "a").is_some());
    }
}

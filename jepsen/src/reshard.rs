//! Somebody who splits and merges the shards of a stream all the time.
//!
//! Invariant: one change at a time, as the API has it; what a call did is taken from the stream's
//! description, never from the call's outcome alone, since a node may be killed in the middle of it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use braid_client::{CallError, Client, HashKey};
use braid_env::random;
use braid_proto::v1;
use tokio::task::JoinHandle;

use crate::load::open_shards;

/// Fewer open shards than this are not merged, more than this not split.
const SHARDS: RangeInclusive<usize> = 4..=16;

/// Between a change and the next.
const PAUSE_MS: RangeInclusive<u64> = 1_000..=4_000;

/// A split or a merge, from its call to the stream's being ACTIVE again.
#[derive(Clone, Debug)]
pub struct Change {
    /// The hash keys that changed hands.
    pub keys: RangeInclusive<HashKey>,
    /// When it was asked for.
    pub from: Instant,
    /// When it was seen to be over.
    pub to: Instant,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Changes {
    /// Splits.
    pub splits: Vec<Change>,
    /// Merges.
    pub merges: Vec<Change>,
    /// Calls whose outcome nobody knows: a node was killed meanwhile.
    pub unknown: u64,
    /// Calls that were refused, or that no node answered in time.
    pub in_vain: u64,
}

/// Splits and merges under way.
pub struct Resharding {
    stop: Arc<AtomicBool>,
    changes: JoinHandle<Changes>,
}

impl Resharding {
    /// Begins.
    pub fn start(client: &Client, stream: &str) -> Resharding {
        let stop = Arc::new(AtomicBool::new(false));
        let changes = tokio::spawn(reshard(client.clone(), stream.to_owned(), stop.clone()));
        Resharding { stop, changes }
    }

    /// Ends when the change that is under way is over.
    pub async fn stop(self) -> Changes {
        self.stop.store(true, Ordering::Relaxed);
        self.changes.await.expect("resharding does not panic")
    }
}

async fn reshard(client: Client, stream: String, stop: Arc<AtomicBool>) -> Changes {
    let mut changes = Changes::default();
    while !stop.load(Ordering::Relaxed) {
        let pause = PAUSE_MS.start() + random::below(PAUSE_MS.end() - PAUSE_MS.start() + 1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let mut shards = open_shards(&client, &stream).await;
        shards.sort_by_key(|it| *keys(it).start());
        let split = shards.len() < *SHARDS.end() && (shards.len() <= *SHARDS.start() || random::below(2) == 0);
        let from = Instant::now();
        let (done, changed) = match split {
            true => {
                let shard = &shards[random::below(shards.len() as u64) as usize];
                (client.split_shard(&stream, &shard.shard_id, None).await, keys(shard))
            }
            false => {
                let at = random::below(shards.len() as u64 - 1) as usize;
                let (lower, upper) = (&shards[at], &shards[at + 1]);
                let merged = client.merge_shards(&stream, &lower.shard_id, &upper.shard_id).await;
                (merged, *keys(lower).start()..=*keys(upper).end())
            }
        };
        changes.unknown += u64::from(matches!(done, Err(CallError::Unknown { .. })));
        let active = client.wait_active(&stream).await;
        match (done, active) {
            (Ok(()), Ok(_)) => {
                let change = Change { keys: changed, from, to: Instant::now() };
                if split { changes.splits.push(change) } else { changes.merges.push(change) }
            }
            (Err(CallError::Unknown { .. }), Ok(_)) => {}
            _ => changes.in_vain += 1,
        }
    }
    changes
}

fn keys(shard: &v1::Shard) -> RangeInclusive<HashKey> {
    let range = shard.hash_key_range.as_ref().expect("every shard has a range");
    let key = |text: &str| HashKey::parse(text).expect("a hash key");
    key(&range.starting_hash_key)..=key(&range.ending_hash_key)
}

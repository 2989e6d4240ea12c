//! What a node does now and then: leaderships back where they belong, old records trimmed.
//!
//! Invariant: nothing here is needed for correctness; a node without maintenance keeps everything
//! and serves from wherever its leaders happen to be.

mod balance;
mod trim;

use std::sync::Arc;
use std::time::Duration;

use braid_env::time;

use crate::clock::NodeClock;
use crate::index::RecordIndex;
use crate::replication::{CatalogHandle, Groups};

/// Leaderships are looked at this often, and one is moved at a time.
const BALANCE: Duration = Duration::from_secs(5);

/// Trimming every so many rounds of [`BALANCE`]: a record outlives its retention by a minute at
/// most, and disk space comes back by whole segments anyway.
const TRIM_ROUNDS: u32 = 12;

/// Runs until the task is dropped.
pub async fn run(catalog: CatalogHandle, groups: Arc<Groups>, index: Arc<dyn RecordIndex>, clock: NodeClock, me: u64) {
    let mut round = 0u32;
    loop {
        time::sleep(BALANCE).await;
        round = round.wrapping_add(1);
        balance::move_one(&catalog, &groups, me).await;
        if round.is_multiple_of(TRIM_ROUNDS) {
            trim::run(&groups, index.as_ref(), &clock).await;
        }
    }
}

pub use balance::hand_over;

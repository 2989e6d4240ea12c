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

/// Runs until the task is dropped; trims every `trim_every`, to a multiple of [`BALANCE`]: a record
/// outlives its retention by that at most, and disk space comes back by whole segments anyway.
pub async fn run(
    catalog: CatalogHandle,
    groups: Arc<Groups>,
    index: Arc<dyn RecordIndex>,
    clock: NodeClock,
    me: u64,
    trim_every: Duration,
) {
    let mut since_trim = Duration::ZERO;
    loop {
        time::sleep(BALANCE).await;
        since_trim += BALANCE;
        balance::move_one(&catalog, &groups, me).await;
        if since_trim >= trim_every {
            since_trim = Duration::ZERO;
            trim::run(&groups, index.as_ref(), &clock).await;
        }
    }
}

pub use balance::hand_over;

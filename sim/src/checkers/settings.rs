//! What a stream's shards keep and take: what the catalog says.
//!
//! Asked at the end of a run. A shard that trims earlier than its stream says is seen by clients only if they look
//! at the right moment.

use super::Violation;

pub const NAME: &str = "settings";
pub const PROMISE: &str = "a shard has the retention and the limits that the catalog says";

/// A shard whose replica on `node` has `shard`, as text, where the catalog has `stream`.
pub fn violation(node: u64, name: &str, shard: &str, stream: &str) -> Violation {
    Violation::new(NAME, format!("node {node} has {name} with {shard}, and the catalog says {stream}"))
}

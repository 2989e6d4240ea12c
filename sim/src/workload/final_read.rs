//! The last word: every record of every shard, twice, when nobody writes any more.

use std::sync::Arc;
use std::time::Duration;

use braid_env::task;
use braid_env::time::{self, Instant};
use braid_stream::IteratorKind;

use super::dice::Dice;
use super::liveness::{Answering, settled};
use super::node_client::NodeClient;
use super::{FINAL_READER, RETRY};
use crate::history::{ClientId, Failed, Note, OpId, Reason, Recorder, StreamFacts};

const DEADLINE: Duration = Duration::from_secs(10);

/// Waits until all nodes agree on what streams there are, then reads every shard from TRIM_HORIZON to its tip, then
/// again through another node and with odd limits, trying again whatever fails until `bound` is over. Leaves a
/// [`Note::FinalStreams`] for each node and a [`Note::FinalRead`] for each shard and pass.
pub async fn final_read(recorder: &Recorder, answering: &Answering, bound: Duration) {
    let until = Instant::now() + bound;
    let calls = NodeClient::new(recorder, FINAL_READER, &answering(), DEADLINE);
    let Some((calls, found)) = settled(&calls, answering, until).await else { return };
    let streams: Vec<StreamFacts> = found.iter().map(|(stream, _)| stream.clone()).collect();
    for node in 0..calls.nodes() {
        let (via, streams) = (calls.address(node).clone(), streams.clone());
        recorder.note(Note::FinalStreams { via, streams });
    }
    let mut tasks = Vec::new();
    let mut id = 0;
    for (stream, shards) in found {
        for shard in shards {
            id += 1;
            let client = ClientId(FINAL_READER.0 + (id << 16));
            let calls = NodeClient::new(recorder, client, &answering(), DEADLINE);
            tasks.push(task::spawn(twice(calls, id as usize, stream.name.clone(), shard.name, until)));
        }
    }
    for task in tasks {
        if let Err(died) = task.await {
            assert!(!died.is_panic(), "a final reading panicked: {died}");
        }
    }
}

async fn twice(calls: NodeClient, node: usize, stream: Arc<str>, shard: Arc<str>, until: Instant) {
    let mut dice = Dice::of(node as u64);
    let mut count = 0;
    for pass in 0..2 {
        let read = {
            // The second time about forty pages of uneven sizes.
            let mut limit = || match pass {
                0 => 0,
                _ => dice.between(1, count / 20 + 2) as u32,
            };
            whole(&calls, node + pass as usize, &stream, &shard, &mut limit, until).await
        };
        let (stream, shard) = (stream.clone(), shard.clone());
        match read {
            Whole::Read { iterators, records, complete } => {
                count = records;
                calls.recorder.note(Note::FinalRead { pass, stream, shard, iterators, complete });
            }
            Whole::Gone(Reason::ShardForgotten) => {
                calls.recorder.note(Note::FinalForgotten { stream, shard });
                return;
            }
            Whole::Gone(_) => return,
        }
    }
}

/// What came of reading a shard.
enum Whole {
    /// The iterators that were used, how many records there were, and whether the tip was reached.
    Read { iterators: Vec<OpId>, records: u64, complete: bool },
    /// The stream was deleted meanwhile, or the shard forgotten.
    Gone(Reason),
}

async fn whole(
    calls: &NodeClient,
    mut node: usize,
    stream: &str,
    shard: &str,
    limit: &mut impl FnMut() -> u32,
    until: Instant,
) -> Whole {
    let (mut kind, mut iterators, mut records) = (IteratorKind::TrimHorizon, Vec::new(), 0);
    while Instant::now() < until {
        let (iterator, mut token) = match calls.iterator(node, stream, shard, kind).await {
            Ok(begun) => begun,
            Err(failed) if is_gone(&failed) => return Whole::Gone(failed.reason),
            Err(_) => {
                node += 1;
                time::sleep(RETRY).await;
                continue;
            }
        };
        iterators.push(iterator);
        while Instant::now() < until {
            match calls.records(node, iterator, &token, limit()).await {
                Ok((page, next)) => {
                    records += page.records.len() as u64;
                    if let Some(last) = page.records.last() {
                        kind = IteratorKind::AfterSequence(last.number);
                    }
                    match next {
                        Some(next) if !page.records.is_empty() => token = next,
                        _ => return Whole::Read { iterators, records, complete: true },
                    }
                }
                Err(failed) if matches!(failed.reason, Reason::Throttled) => time::sleep(RETRY).await,
                Err(failed) if matches!(failed.reason, Reason::IteratorExpired) => {
                    // Another node may have a better clock.
                    node += 1;
                    time::sleep(RETRY).await;
                    break;
                }
                Err(failed) if is_gone(&failed) => return Whole::Gone(failed.reason),
                // Deleted since: so says a new iterator.
                Err(failed) if failed.refused && failed.reason == Reason::ShardNotFound => {
                    time::sleep(RETRY).await;
                    break;
                }
                Err(_) => {
                    node += 1;
                    time::sleep(RETRY).await;
                }
            }
        }
    }
    Whole::Read { iterators, records, complete: false }
}

fn is_gone(failed: &Failed) -> bool {
    failed.refused && matches!(failed.reason, Reason::StreamNotFound | Reason::ShardForgotten)
}

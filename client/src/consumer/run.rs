//! The consumer's coordinator: starts a reader per shard, and its children's when it has ended.
//!
//! Owns the lineage. One task; readers are tasks of their own, and all of them end when the
//! consumer is dropped (the channel to it closes) or has been given an error.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use braid_env::{random, task, time};
use braid_probe::{Mark, reachable};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::debug;

use super::lineage::{Lineage, Start};
use super::reader::{End, Reader};
use super::{ConsumerError, ConsumerOptions, ShardBatch};
use crate::backoff;
use crate::client::Client;
use crate::failure::CallError;

/// After how long shards are listed again while one waits for others that were not listed.
const LIST_AGAIN: Duration = Duration::from_secs(5);

pub(super) type Out = mpsc::Sender<Result<ShardBatch, ConsumerError>>;

pub(super) struct Coordinator {
    client: Client,
    stream: Arc<str>,
    lineage: Lineage,
    options: Arc<ConsumerOptions>,
    fetches: Arc<Semaphore>,
    out: Out,
    running: FuturesUnordered<BoxFuture<'static, (String, End)>>,
    /// Told when the shards started first have a fixed position.
    positioned: BTreeMap<String, oneshot::Sender<()>>,
    first: Vec<Start>,
}

impl Coordinator {
    /// The coordinator, and what resolves when each shard it starts at first has a fixed position.
    pub fn new(
        client: Client,
        stream: &str,
        mut lineage: Lineage,
        options: ConsumerOptions,
        out: Out,
    ) -> (Coordinator, Vec<oneshot::Receiver<()>>) {
        let first = lineage.start();
        let (mut positioned, mut waits) = (BTreeMap::new(), Vec::new());
        for start in &first {
            let (tell, wait) = oneshot::channel();
            positioned.insert(start.shard.clone(), tell);
            waits.push(wait);
        }
        let coordinator = Coordinator {
            client,
            stream: Arc::from(stream),
            lineage,
            fetches: Arc::new(Semaphore::new(options.max_concurrent_fetches.max(1))),
            options: Arc::new(options),
            out,
            running: FuturesUnordered::new(),
            positioned,
            first,
        };
        (coordinator, waits)
    }

    /// Runs until every shard is read to its end, the consumer is dropped, or nothing helps.
    pub async fn run(mut self) {
        for start in std::mem::take(&mut self.first) {
            self.start(start);
        }
        loop {
            let waits = self.lineage.needs_listing();
            let (shard, end) = tokio::select! {
                biased;
                Some(ended) = self.running.next() => ended,
                // Some node may know more by now.
                () = time::sleep(LIST_AGAIN), if waits => {
                    if !self.relist().await {
                        return;
                    }
                    self.start_ready();
                    continue;
                }
                else => return,
            };
            let children = match end {
                End::Reached(children) => children,
                // What follows it is listed.
                End::Forgotten => {
                    let why = "all of it is past retention, what was not read is missed";
                    tracing::warn!(stream = %self.stream, %shard, "the shard is gone: {why}");
                    reachable!(Mark::ConsumerShardForgotten);
                    Vec::new()
                }
                End::Dropped => return,
                End::Failed(error) => {
                    // Failing to send means that nobody is there to be told.
                    let _ = self.out.send(Err(error)).await;
                    return;
                }
            };
            debug!(stream = %self.stream, %shard, "read to its end: {} children", children.len());
            self.lineage.ended(&shard, &children);
            // A deleted or trimmed parent names no children: the listing knows.
            let unknown = children.is_empty()
                || self.lineage.needs_listing()
                || children.iter().any(|c| self.lineage.lacks_group(&c.shard_id));
            if unknown && !self.relist().await {
                return;
            }
            self.start_ready();
        }
    }

    fn start_ready(&mut self) {
        for start in self.lineage.start() {
            self.start(start);
        }
    }

    fn start(&mut self, start: Start) {
        debug!(stream = %self.stream, shard = %start.shard, "reading begins at {:?}", start.position);
        let shard = start.shard.clone();
        let reader = Reader::new(
            self.client.clone(),
            Arc::clone(&self.stream),
            start,
            Arc::clone(&self.options),
            Arc::clone(&self.fetches),
            self.out.clone(),
            self.positioned.remove(&shard),
        );
        let reading = task::spawn(reader.run());
        self.running.push(Box::pin(async move {
            let end = reading.await.unwrap_or_else(|died| {
                End::Failed(ConsumerError::Unreadable {
                    shard: shard.clone(),
                    message: format!("the reading task died: {died}"),
                })
            });
            (shard, end)
        }));
    }

    /// Learns of shards and groups, however long it takes. False if there is no more to do.
    async fn relist(&mut self) -> bool {
        let mut attempt = 0;
        loop {
            let listed = tokio::select! {
                biased;
                () = self.out.closed() => return false,
                listed = self.client.list_shards(&self.stream) => listed,
            };
            match listed {
                Ok(shards) => {
                    debug!(stream = %self.stream, "{} shards are listed", shards.len());
                    self.lineage.relisted(&shards);
                    return true;
                }
                Err(error @ CallError::Refused { .. }) => {
                    let _ = self.out.send(Err(error.into())).await;
                    return false;
                }
                Err(error) => debug!(stream = %self.stream, %error, "shards could not be listed"),
            }
            attempt += 1;
            let wait = backoff::wait(attempt, Duration::ZERO, &mut random::below);
            time::sleep(wait).await;
        }
    }
}

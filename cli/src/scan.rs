//! Reads shards from a position to their current end, page by page.
//!
//! Owns the question "is this the end yet?", which the client's consumer, made to go on for ever,
//! never asks. Invariant: a scan ends without an error only when a node has said that nothing
//! readable lies behind the last record given (or `limit` is reached). Reads are harmless, so they
//! are tried again, at other nodes, for as long as the caller is patient.

use std::sync::Arc;
use std::time::{Duration, Instant};

use braid_client::{Channel, Client};
use braid_proto::v1;
use braid_proto::v1::braid_client::BraidClient;
use braid_stream::IteratorKind;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Status};

use crate::exit::{Exit, Failure};

/// Pages are up to 10 MiB of data; keys and numbers of 10,000 records come on top.
const PAGE_BYTES_MAX: usize = 32 << 20;

/// Shards read at a time; each holds up to two pages.
const CONCURRENT: usize = 8;

/// A shard allows five reads a second.
const READ_INTERVAL: Duration = Duration::from_millis(200);

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A page of one shard.
pub type Page = Result<Vec<v1::Record>, Failure>;

/// What to read.
#[derive(Clone)]
pub struct Scan {
    pub client: Client,
    pub endpoints: Vec<String>,
    pub patience: Duration,
    pub stream: String,
}

impl Scan {
    /// Reads `shards`, several at a time; one receiver of pages for each, in their order.
    pub fn shards(&self, shards: Vec<(String, IteratorKind)>) -> Vec<(String, mpsc::Receiver<Page>)> {
        let permits = Arc::new(Semaphore::new(CONCURRENT));
        // Tasks must get their permits in the shards' order: the caller may take pages in that order.
        let mut receivers = Vec::new();
        let mut readers = Vec::new();
        for (shard, from) in shards {
            let (out, pages) = mpsc::channel(1);
            receivers.push((shard.clone(), pages));
            readers.push((Reader::new(self.clone(), shard, from), out));
        }
        tokio::spawn(async move {
            for (reader, out) in readers {
                let permit = permits.clone().acquire_owned().await.expect("never closed");
                tokio::spawn(async move {
                    reader.run(out).await;
                    drop(permit);
                });
            }
        });
        receivers
    }
}

struct Reader {
    scan: Scan,
    shard: String,
    /// Where to go on if the iterator is lost.
    from: IteratorKind,
    iterator: Option<String>,
    node: usize,
    channel: Option<BraidClient<Channel>>,
}

impl Reader {
    fn new(scan: Scan, shard: String, from: IteratorKind) -> Reader {
        Reader { scan, shard, from, iterator: None, node: 0, channel: None }
    }

    async fn run(mut self, out: mpsc::Sender<Page>) {
        let mut last_success = Instant::now();
        loop {
            let paced = Instant::now() + READ_INTERVAL;
            match self.page().await {
                Ok(answer) => {
                    if let Err(e) = self.moved(&answer) {
                        let _ = out.send(Err(e)).await;
                        return;
                    }
                    let end = answer.next_shard_iterator.is_empty() || answer.millis_behind_latest == 0;
                    if !answer.records.is_empty() && out.send(Ok(answer.records)).await.is_err() {
                        return; // nobody wants more
                    }
                    if end {
                        return;
                    }
                    last_success = Instant::now(); // waiting for the caller is not the cluster's fault
                }
                Err(status) => match self.after(&status, last_success.elapsed()) {
                    None => {}
                    Some(failure) => {
                        let _ = out.send(Err(failure)).await;
                        return;
                    }
                },
            }
            tokio::time::sleep_until(paced.into()).await;
        }
    }

    /// The next page, with a new iterator if there is none.
    async fn page(&mut self) -> Result<v1::GetRecordsResponse, Status> {
        let mut node = self.connect()?;
        let shard_iterator = match &self.iterator {
            Some(iterator) => iterator.clone(),
            None => {
                let (kind, starting_sequence_number, timestamp_ms) = to_wire(self.from);
                let mut request = tonic::Request::new(v1::GetShardIteratorRequest {
                    stream_name: self.scan.stream.clone(),
                    shard_id: self.shard.clone(),
                    shard_iterator_type: kind.into(),
                    starting_sequence_number,
                    timestamp_ms,
                });
                request.set_timeout(CALL_TIMEOUT);
                node.get_shard_iterator(request).await?.into_inner().shard_iterator
            }
        };
        self.iterator = Some(shard_iterator.clone());
        let mut request = tonic::Request::new(v1::GetRecordsRequest { shard_iterator, limit: 0 });
        request.set_timeout(CALL_TIMEOUT);
        Ok(node.get_records(request).await?.into_inner())
    }

    fn moved(&mut self, answer: &v1::GetRecordsResponse) -> Result<(), Failure> {
        if let Some(last) = answer.records.last() {
            let number = braid_client::SequenceNumber::parse(&last.sequence_number)
                .map_err(|e| Failure::failed(format!("{}: {e}", self.shard)))?;
            self.from = IteratorKind::AfterSequence(number);
        }
        self.iterator = Some(answer.next_shard_iterator.clone());
        Ok(())
    }

    /// What to do about an error: nothing but try again, or give up with a failure.
    fn after(&mut self, status: &Status, since_success: Duration) -> Option<Failure> {
        let exit = match status.code() {
            Code::ResourceExhausted => return None, // throttled: its turn will come
            Code::FailedPrecondition if self.iterator.take().is_some() => return None, // expired: make another
            Code::NotFound => Exit::NotFound,
            Code::InvalidArgument => Exit::Usage,
            Code::DataLoss => Exit::Failed,
            _ => {
                self.channel = None;
                self.node += 1;
                if since_success < self.scan.patience {
                    return None;
                }
                Exit::Unreachable
            }
        };
        Some(Failure::new(exit, format!("{} can't be read: {}", self.shard, status.message())))
    }

    fn connect(&mut self) -> Result<BraidClient<Channel>, Status> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let address = &self.scan.endpoints[self.node % self.scan.endpoints.len()];
                let node = self.scan.client.node_at(address);
                node.map_err(|e| Status::invalid_argument(e.to_string()))?.max_decoding_message_size(PAGE_BYTES_MAX)
            }
        };
        self.channel = Some(channel.clone());
        Ok(channel)
    }
}

fn to_wire(position: IteratorKind) -> (v1::ShardIteratorType, String, u64) {
    use v1::ShardIteratorType as Type;
    match position {
        IteratorKind::TrimHorizon => (Type::TrimHorizon, String::new(), 0),
        IteratorKind::Latest => (Type::Latest, String::new(), 0),
        IteratorKind::AtTimestamp(ms) => (Type::AtTimestamp, String::new(), ms),
        IteratorKind::AtSequence(at) => (Type::AtSequenceNumber, at.to_string(), 0),
        IteratorKind::AfterSequence(at) => (Type::AfterSequenceNumber, at.to_string(), 0),
    }
}

//! Writers that put sensor-like records one after the other and note what became of each, and a
//! reader that reads a stream to its end, across any splits and merges.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use braid_client::{Client, Consumer, ConsumerOptions, HashKey, Outcome, Producer, ProducerOptions};
use braid_proto::v1;
use tokio::task::{JoinHandle, JoinSet};

use crate::cluster::BOUND;
use crate::history::{Read, Seen, Write};

/// Key of the records that mark the end of each shard.
const END: &str = "the-end";

/// Writers under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinSet<Vec<Write>>,
}

impl Load {
    /// Starts `writers` writers on `stream`, each with a key of its own, over two producers. Keys
    /// begin with `name`, so that several loads of one stream can be told apart. A writer puts its
    /// next record when it knows what became of the last, and `pace` after it put that at the earliest.
    pub async fn start(client: &Client, stream: &str, name: &str, writers: usize, pace: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let options = ProducerOptions { delivery_timeout: Duration::from_secs(20), ..ProducerOptions::default() };
        let producers = [
            client.producer(stream, options.clone()).await.expect("a producer"),
            client.producer(stream, options).await.expect("a producer"),
        ];
        let mut set = JoinSet::new();
        for i in 0..writers {
            set.spawn(write(producers[i % 2].clone(), format!("{name}-{i}"), pace, stop.clone()));
        }
        Load { stop, writers: set }
    }

    /// Ends the load; every write and what became of it.
    pub async fn stop(self) -> Vec<Write> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.join_all().await.into_iter().flatten().collect()
    }
}

/// One record after the other.
async fn write(producer: Producer, key: String, pace: Duration, stop: Arc<AtomicBool>) -> Vec<Write> {
    let mut writes = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let put = Instant::now();
        let data = format!("{key} {n} {{\"sensor\":\"{key}\",\"celsius\":{}.{}}}", 18 + n % 7, n % 10);
        let outcome = producer.put(key.clone(), None, data).await.expect("a record within the limits").await;
        let seen = match outcome {
            Outcome::Acked { shard, sequence_number } => {
                Seen::Acked { shard: shard.to_string(), offset: sequence_number.offset.0 }
            }
            Outcome::Refused { .. } => Seen::Refused,
            Outcome::Unknown { .. } => Seen::Unknown,
        };
        writes.push(Write { key: key.clone(), n, seen, put, known: Instant::now() });
        tokio::time::sleep_until((put + pace).into()).await;
    }
    writes
}

/// The stream's shards that take records.
pub async fn open_shards(client: &Client, stream: &str) -> Vec<v1::Shard> {
    let mut shards = client.list_shards(stream).await.expect("the stream's shards");
    shards.retain(|it| it.sequence_number_range.as_ref().is_some_and(|it| it.ending_sequence_number.is_empty()));
    shards
}

/// Reads the whole stream, from the trim horizon to a mark that is put into each open shard now.
pub async fn read_all(client: &Client, stream: &str) -> Vec<Read> {
    Reading::start(client, stream).await.finish(client, stream).await
}

/// A reader under way, from the trim horizon on.
pub struct Reading {
    /// In how many shards the end is marked, once that is known.
    marked: Arc<OnceLock<usize>>,
    reads: JoinHandle<Vec<Read>>,
}

impl Reading {
    /// Begins to read.
    pub async fn start(client: &Client, stream: &str) -> Reading {
        let consumer = client.consumer(stream, ConsumerOptions::default()).await.expect("a consumer");
        let marked = Arc::new(OnceLock::new());
        Reading { marked: marked.clone(), reads: tokio::spawn(read(consumer, marked)) }
    }

    /// Marks the end of each open shard, and reads up to there. Nobody splits or merges any more.
    pub async fn finish(self, client: &Client, stream: &str) -> Vec<Read> {
        let shards = open_shards(client, stream).await;
        // Known before the first mark is there to be read.
        self.marked.set(shards.len()).expect("a reading is finished once");
        mark(client, stream, &shards).await;
        self.reads.await.expect("the stream can be read")
    }
}

/// Puts a mark into each of `shards`.
async fn mark(client: &Client, stream: &str, shards: &[v1::Shard]) {
    let producer = client.producer(stream, ProducerOptions::default()).await.expect("a producer");
    let start = Instant::now();
    for shard in shards {
        let range = shard.hash_key_range.as_ref().expect("every shard has a range");
        let key = HashKey::parse(&range.starting_hash_key).expect("a hash key");
        loop {
            match producer.put(END, Some(key), END).await.expect("a small record").await {
                Outcome::Acked { .. } => break,
                other => assert!(start.elapsed() < BOUND, "no end mark: {other:?}"),
            }
        }
    }
}

/// Reads until as many shards as are `marked` have shown their mark.
async fn read(mut consumer: Consumer, marked: Arc<OnceLock<usize>>) -> Vec<Read> {
    let mut reads = Vec::new();
    let mut ended = BTreeSet::new();
    while marked.get() != Some(&ended.len()) {
        let next = tokio::time::timeout(BOUND, consumer.next()).await.expect("records keep coming");
        let batch = next.expect("open shards do not end").expect("a readable stream");
        for record in batch.records {
            let (shard, offset) = (batch.shard.to_string(), record.sequence_number.offset.0);
            if record.partition_key == END {
                ended.insert(shard.clone());
                // Its place in the shard counts, and it was never part of the load.
                reads.push(Read { shard, offset, key: END.into(), n: offset });
                continue;
            }
            let text = String::from_utf8(record.data.to_vec()).expect("the load writes text");
            let mut words = text.split(' ');
            let key = words.next().expect("the key").to_string();
            let n = words.next().and_then(|n| n.parse().ok()).expect("the number");
            assert_eq!(key, record.partition_key, "a record's data came back under another key");
            reads.push(Read { shard, offset, key, n });
        }
    }
    reads
}

/// [`crate::history::violations`] of a load and what was read, end marks aside.
pub fn violations(writes: &[Write], reads: &[Read]) -> Vec<String> {
    let mut writes = writes.to_vec();
    let now = Instant::now();
    let marks = reads.iter().filter(|r| r.key == END);
    // Two shards may have a mark at the same offset: the shard makes the key unique.
    let mut reads = reads.to_vec();
    for mark in marks {
        let seen = Seen::Acked { shard: mark.shard.clone(), offset: mark.offset };
        let key = format!("{END} {}", mark.shard);
        writes.push(Write { key, n: mark.offset, seen, put: now, known: now });
    }
    for read in reads.iter_mut().filter(|r| r.key == END) {
        read.key = format!("{END} {}", read.shard);
    }
    crate::history::violations(&writes, &reads)
}

/// For each shard, the longest time after `from` and before `to` in which no record of it was
/// acknowledged.
pub fn longest_silence(writes: &[Write], from: Instant, to: Instant) -> Duration {
    let mut acks: std::collections::BTreeMap<&str, Vec<Instant>> = std::collections::BTreeMap::new();
    for write in writes {
        if let Seen::Acked { shard, .. } = &write.seen {
            acks.entry(shard).or_default().push(write.known);
        }
    }
    let silence = |mut times: Vec<Instant>| {
        times.retain(|t| (from..to).contains(t));
        times.sort_unstable();
        times.insert(0, from);
        times.push(to);
        times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or_default()
    };
    acks.into_values().map(silence).max().unwrap_or_default()
}

//! The AWS SDK for Rust at work while nodes are killed and the stream is resharded, with the attempts that it makes by itself:
//!
//!   kills http://HOST:PORT STREAM CONSUMER_ARN NAME
//!
//! Writers put one record at a time, or 20; two readers of all shards, from parents to children, poll or subscribe. On a line of
//! its input the writers stop, and at its end the readers do, once they are at the tip of every shard. Then it says what was
//! done, a line each; kills_sdks.py judges that:
//!
//!   sent WRITER RECORDS
//!   acked SHARD NUMBER TEXT
//!   polled|pushed SHARD NUMBER TEXT
//!   count WHAT: N

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::interceptors::{
    BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    ChildShard, PutRecordsRequestEntry, Record, ShardFilter, ShardFilterType, ShardIteratorType, StartingPosition,
    SubscribeToShardEventStream,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use kinesis_rust_sdk::Outcome;
use tokio::task::JoinHandle;

const WRITERS: usize = 3;
const LONGEST: &str = "longest wait of a writer, ms";

#[derive(Debug, Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    counted: Mutex<BTreeMap<String, i64>>,
}

impl Said {
    fn say(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn count(&self, what: impl Into<String>, more: i64) {
        *self.counted.lock().unwrap().entry(what.into()).or_default() += more;
    }

    fn read(&self, how: &str, shard: &str, records: &[Record]) {
        for it in records {
            self.say(format!("{how} {shard} {} {}", it.sequence_number(), String::from_utf8_lossy(it.data().as_ref())));
        }
    }
}

/// A call is serialized once, and each attempt a transmission.
#[derive(Debug)]
struct Attempts(Arc<Said>);

fn operation(config: &ConfigBag) -> &str {
    config.load::<Metadata>().map_or("", |it| it.name())
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "Attempts"
    }

    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.count(format!("{} calls", operation(config)), 1);
        self.0.count(format!("{} retries", operation(config)), -1);
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.count(format!("{} retries", operation(config)), 1);
        Ok(())
    }
}

/// Which shards are to be read: children once all of their parents have been read to the end.
struct Lineage {
    begun: BTreeSet<String>,
    ended: BTreeSet<String>,
}

impl Lineage {
    fn new(shards: &[String]) -> Self {
        Lineage { begun: shards.iter().cloned().collect(), ended: BTreeSet::new() }
    }

    fn end(&mut self, shard: &str, children: &[ChildShard]) -> Vec<String> {
        self.ended.insert(shard.to_string());
        let ready = children.iter().filter(|it| it.parent_shards().iter().all(|parent| self.ended.contains(parent)));
        let ready = ready.map(|it| it.shard_id().to_string());
        ready.filter(|it| self.begun.insert(it.clone())).collect()
    }
}

struct Work {
    kinesis: Client,
    stream: String,
    consumer: String,
    said: Arc<Said>,
    stopped: AtomicBool,
    finished: AtomicBool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, stream, consumer, name] = arguments.as_slice() else {
        return Err("an endpoint, a stream, a consumer's ARN and a name are needed".into());
    };
    let said = Arc::new(Said::default());
    let config = kinesis_rust_sdk::config(endpoint).interceptor(Attempts(said.clone())).build();
    let work = Arc::new(Work {
        kinesis: Client::from_conf(config),
        stream: stream.clone(),
        consumer: consumer.clone(),
        said,
        stopped: AtomicBool::new(false),
        finished: AtomicBool::new(false),
    });
    let oldest = ShardFilter::builder().r#type(ShardFilterType::AtTrimHorizon).build()?;
    let listed = work.kinesis.list_shards().stream_name(stream).shard_filter(oldest).send().await?;
    let shards: Vec<String> = listed.shards().iter().map(|it| it.shard_id().to_string()).collect();
    let lineage = Arc::new(Mutex::new(Lineage::new(&shards)));
    let mut readers: Vec<_> = shards.iter().map(|it| follow(work.clone(), it.clone(), lineage.clone())).collect();
    readers.push(working(poll(work.clone(), shards)));
    let mut writers: Vec<_> = (0..WRITERS).map(|n| working(write(work.clone(), format!("{name}-{n}")))).collect();
    writers.push(working(write_many(work.clone(), format!("{name}-many"))));
    println!("at work");
    let (heard, input) = (work.clone(), std::io::stdin());
    std::thread::spawn(move || {
        let mut line = String::new();
        input.read_line(&mut line).expect("a line");
        heard.stopped.store(true, Ordering::Relaxed);
        input.lock().read_to_string(&mut line).expect("its end");
        heard.finished.store(true, Ordering::Relaxed);
    });
    for it in writers {
        it.await?;
    }
    println!("stopped");
    for it in readers {
        it.await?;
    }
    for (what, n) in &*work.said.counted.lock().unwrap() {
        println!("count {what}: {n}");
    }
    println!("{}", work.said.lines.lock().unwrap().join("\n"));
    Ok(())
}

/// A task whose failure is the program's.
fn working(work: impl Future<Output = Outcome<()>> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(async {
        if let Err(error) = work.await {
            println!("{error}: {error:?}");
            std::process::exit(1);
        }
    })
}

async fn write(work: Arc<Work>, writer: String) -> Outcome<()> {
    let mut n = 0;
    while !work.stopped.load(Ordering::Relaxed) {
        let text = format!("{writer}:{n}");
        let begun = Instant::now();
        let put = work.kinesis.put_record().stream_name(&work.stream).partition_key(&writer);
        let put = put.data(Blob::new(text.as_bytes())).send().await?;
        let waited = begun.elapsed().as_millis() as i64;
        let mut counted = work.said.counted.lock().unwrap();
        let longest = counted.entry(LONGEST.into()).or_default();
        *longest = waited.max(*longest);
        drop(counted);
        work.said.say(format!("acked {} {} {text}", put.shard_id(), put.sequence_number()));
        n += 1;
    }
    work.said.say(format!("sent {writer} {n}"));
    Ok(())
}

/// Puts again those that failed, as the API asks of it.
async fn write_many(work: Arc<Work>, writer: String) -> Outcome<()> {
    let mut n = 0;
    while !work.stopped.load(Ordering::Relaxed) {
        let mut texts: Vec<String> = (n..n + 20).map(|it| format!("{writer}:{it}")).collect();
        n += texts.len();
        while !texts.is_empty() {
            let mut put = work.kinesis.put_records().stream_name(&work.stream);
            for it in &texts {
                let record = PutRecordsRequestEntry::builder().partition_key(it).data(Blob::new(it.as_bytes()));
                put = put.records(record.build()?);
            }
            let answer = put.send().await?;
            let mut failed = Vec::new();
            for (text, it) in texts.into_iter().zip(answer.records()) {
                if let Some(code) = it.error_code() {
                    work.said.count(format!("records failed: {code}"), 1);
                    failed.push(text);
                } else {
                    let (shard, number) = (it.shard_id().ok_or("no shard")?, it.sequence_number().ok_or("no number")?);
                    work.said.say(format!("acked {shard} {number} {text}"));
                }
            }
            texts = failed;
        }
    }
    work.said.say(format!("sent {writer} {n}"));
    Ok(())
}

async fn poll(work: Arc<Work>, shards: Vec<String>) -> Outcome<()> {
    let begin = async |shard: &str| -> Outcome<String> {
        let from = work.kinesis.get_shard_iterator().stream_name(&work.stream).shard_id(shard);
        let begun = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
        Ok(begun.shard_iterator.ok_or("no iterator")?)
    };
    let mut lineage = Lineage::new(&shards);
    let mut iterators = BTreeMap::new();
    for shard in shards {
        let iterator = begin(&shard).await?;
        iterators.insert(shard, iterator);
    }
    loop {
        let (last, mut moved) = (work.finished.load(Ordering::Relaxed), false);
        for (shard, iterator) in iterators.clone() {
            let page = work.kinesis.get_records().shard_iterator(iterator).send().await?;
            work.said.read("polled", &shard, page.records());
            moved |= !page.records().is_empty() || page.millis_behind_latest() != Some(0);
            match page.next_shard_iterator() {
                Some(next) => drop(iterators.insert(shard, next.to_string())),
                None => {
                    moved = true;
                    iterators.remove(&shard);
                    for child in lineage.end(&shard, page.child_shards()) {
                        let iterator = begin(&child).await?;
                        iterators.insert(child, iterator);
                    }
                }
            }
        }
        if last && !moved {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn follow(work: Arc<Work>, shard: String, lineage: Arc<Mutex<Lineage>>) -> JoinHandle<()> {
    working(async move {
        let children = follow_to_end(&work, &shard, &lineage).await?;
        let children: Vec<_> = children.into_iter().map(|it| follow(work.clone(), it, lineage.clone())).collect();
        for it in children {
            it.await?;
        }
        Ok(())
    })
}

/// Subscribes again after the last event, as a consumer of the service does at least every five minutes. Gives the children to go
/// on with.
async fn follow_to_end(work: &Work, shard: &str, lineage: &Mutex<Lineage>) -> Outcome<Vec<String>> {
    let mut start = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
    loop {
        let asked = work.kinesis.subscribe_to_shard().consumer_arn(&work.consumer).shard_id(shard);
        let mut events = match asked.starting_position(start.clone()).send().await {
            Ok(answer) => answer.event_stream,
            Err(error) if error.as_service_error().is_some_and(|it| it.is_resource_in_use_exception()) => {
                // The subscription that has just been lost counts for five seconds.
                work.said.count("subscriptions refused for one before", 1);
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        loop {
            let event = match events.recv().await {
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => event,
                Ok(Some(other)) => return Err(format!("an event of another kind: {other:?}").into()),
                Ok(None) => {
                    work.said.count("subscriptions ended early", 1);
                    break;
                }
                Err(_) => {
                    work.said.count("subscriptions lost", 1);
                    break;
                }
            };
            work.said.read("pushed", shard, event.records());
            if event.continuation_sequence_number().is_empty() {
                return Ok(lineage.lock().unwrap().end(shard, event.child_shards()));
            }
            start = StartingPosition::builder()
                .r#type(ShardIteratorType::AfterSequenceNumber)
                .sequence_number(event.continuation_sequence_number())
                .build()?;
            let at_tip = event.records().is_empty() && event.millis_behind_latest() == 0;
            if at_tip && work.finished.load(Ordering::Relaxed) {
                return Ok(Vec::new());
            }
        }
    }
}

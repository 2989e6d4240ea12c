//! The AWS SDK for Rust against a node, over HTTP/1.1: create, put, list, read, subscribe, split, merge, delete.
//!
//!   sdk http://HOST:PORT

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{
    ConsumerStatus, PutRecordsRequestEntry, Record, ShardIteratorType, StartingPosition, StreamDescriptionSummary,
    StreamStatus, SubscribeToShardEventStream,
};
use kinesis_rust_sdk::Outcome;

const BOUND: Duration = Duration::from_secs(60);
const STREAM: &str = "rust";
const FIRST: &str = "shardId-000000000000";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let endpoint = std::env::args().nth(1).ok_or("an endpoint is needed")?;
    let kinesis = Client::from_conf(kinesis_rust_sdk::config(&endpoint).build());

    kinesis.create_stream().stream_name(STREAM).shard_count(2).send().await?;
    let arn = active(&kinesis).await?.stream_arn;
    assert!(kinesis.list_streams().send().await?.stream_names().iter().any(|it| it == STREAM));

    let sent: Vec<String> = (0..100).map(|n| format!("record {n}")).collect();
    let entry = |text: &String| {
        PutRecordsRequestEntry::builder()
            .partition_key(text)
            .data(Blob::new(text.as_bytes()))
            .build()
            .expect("a record")
    };
    let records = sent.iter().map(entry).collect();
    let put = kinesis.put_records().stream_name(STREAM).set_records(Some(records)).send().await?;
    assert_eq!(put.failed_record_count, Some(0));
    let placed = sent.iter().zip(put.records());
    let mut of_first: Vec<String> =
        placed.filter(|(_, it)| it.shard_id() == Some(FIRST)).map(|(text, _)| text.clone()).collect();
    assert_eq!(read(&kinesis, FIRST).await?, of_first);

    let refused = kinesis.describe_stream_summary().stream_name("none").send().await.unwrap_err().into_service_error();
    assert!(refused.is_resource_not_found_exception(), "{refused:?}");
    assert_eq!(refused.meta().message(), Some("Stream none under account 000000000000 not found."));

    // Pushed, what was there before and what comes; then the shard's end, with the shards that go on.
    let consumer = kinesis.register_stream_consumer().stream_arn(&arn).consumer_name("c").send().await?;
    let consumer = consumer.consumer.ok_or("no consumer")?.consumer_arn;
    let started = Instant::now();
    loop {
        let found = kinesis.describe_stream_consumer().consumer_arn(&consumer).send().await?;
        match found.consumer_description.ok_or("no consumer")?.consumer_status {
            ConsumerStatus::Active => break,
            status => wait(started, &format!("the consumer is {status}")).await,
        }
    }
    let start = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon).build()?;
    let mut subscription =
        kinesis.subscribe_to_shard().consumer_arn(&consumer).shard_id(FIRST).starting_position(start).send().await?;
    let more = kinesis.put_record().stream_name(STREAM).partition_key("k").explicit_hash_key("0");
    more.data(Blob::new("one more")).send().await?;
    of_first.push("one more".into());
    let (mut pushed, mut last, mut split) = (Vec::new(), None, false);
    while let Some(event) = subscription.event_stream.recv().await? {
        let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event else {
            return Err(format!("an event of another kind: {event:?}").into());
        };
        pushed.extend(event.records.iter().map(text));
        if pushed.len() == of_first.len() && !split {
            let at = format!("1{}", "0".repeat(30));
            kinesis.split_shard().stream_name(STREAM).shard_to_split(FIRST).new_starting_hash_key(at).send().await?;
            split = true;
        }
        last = Some(event);
    }
    assert_eq!(pushed, of_first);
    let children = last.ok_or("no event")?.child_shards.unwrap_or_default();
    let children: Vec<&str> = children.iter().map(|it| it.shard_id()).collect();
    assert_eq!(children, ["shardId-000000000002", "shardId-000000000003"]);

    active(&kinesis).await?;
    let merge = kinesis.merge_shards().stream_name(STREAM).shard_to_merge("shardId-000000000003");
    merge.adjacent_shard_to_merge("shardId-000000000001").send().await?;
    active(&kinesis).await?;
    kinesis.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("the last")).send().await?;
    let listed = kinesis.list_shards().stream_name(STREAM).send().await?;
    let mut all = Vec::new();
    for shard in listed.shards() {
        all.extend(read(&kinesis, shard.shard_id()).await?);
    }
    assert_eq!((listed.shards().len(), all.len()), (5, sent.len() + 2));
    let expected = sent.into_iter().chain(["one more".to_string(), "the last".to_string()]);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected.collect());

    kinesis.delete_stream().stream_name(STREAM).enforce_consumer_deletion(true).send().await?;
    let started = Instant::now();
    loop {
        match kinesis.describe_stream_summary().stream_name(STREAM).send().await {
            Ok(_) => wait(started, "the stream is still there").await,
            Err(error) if error.as_service_error().is_some_and(|it| it.is_resource_not_found_exception()) => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!("the Rust SDK: ok");
    Ok(())
}

async fn wait(started: Instant, what: &str) {
    assert!(started.elapsed() < BOUND, "after {BOUND:?}, {what}");
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// The stream, once it is ACTIVE.
async fn active(kinesis: &Client) -> Outcome<StreamDescriptionSummary> {
    let started = Instant::now();
    loop {
        let found = kinesis.describe_stream_summary().stream_name(STREAM).send().await?;
        let summary = found.stream_description_summary.ok_or("no summary")?;
        match summary.stream_status {
            StreamStatus::Active => return Ok(summary),
            ref status => wait(started, &format!("the stream is {status}")).await,
        }
    }
}

/// All of a shard, to its tip or its end.
async fn read(kinesis: &Client, shard: &str) -> Outcome<Vec<String>> {
    let from = kinesis.get_shard_iterator().stream_name(STREAM).shard_id(shard);
    let mut next = from.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?.shard_iterator;
    let (mut texts, started) = (Vec::new(), Instant::now());
    while let Some(iterator) = next {
        let page = kinesis.get_records().shard_iterator(iterator).limit(30).send().await?;
        texts.extend(page.records.iter().map(text));
        next = page.next_shard_iterator.filter(|_| !page.records.is_empty() || page.millis_behind_latest != Some(0));
        assert!(started.elapsed() < BOUND, "no end of {shard}");
    }
    Ok(texts)
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.data.as_ref()).into_owned()
}

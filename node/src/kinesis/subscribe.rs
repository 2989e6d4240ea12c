//! SubscribeToShard: a shard's records pushed from the committed tail, as an event stream.
//!
//! ```text
//!  initial-response ─▶ SubscribeToShardEvent ─▶ … every 5 s at least … ─▶ the end: 5 minutes, or the shard's
//! ```
//! Invariant: the first frame is `initial-response`, without which SDKs give up. A subscription whose leader is lost just ends:
//! its consumer subscribes again after the last event's ContinuationSequenceNumber, and misses nothing.

use std::pin::Pin;

use braid_proto::v1;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::Asked;
use super::error::{Subject, of_interruption};
use super::records::{Start, children, stored};
use super::wire::fault::{Fault, FaultKind};
use super::wire::value::Structure;
use super::wire::{self, Form};

/// Frames, as they come.
pub type Frames = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl Asked<'_> {
    pub(super) async fn subscribe(&self, input: &Structure, form: Form) -> Result<Frames, Fault> {
        let arn = input.needed("ConsumerARN");
        let (stream, consumer) = self.face.home.consumer(arn)?;
        let attributes = self.attributes(&stream).await?;
        let found = consumer.find(&attributes, &stream)?;
        if found.status() != v1::StreamStatus::Active {
            let status = if found.status() == v1::StreamStatus::Creating { "CREATING" } else { "DELETING" };
            let text = format!("Consumer {arn} is not ACTIVE, instead in state {status}.");
            return Err(Fault::new(FaultKind::ResourceInUse, text));
        }
        let start = input.structure("StartingPosition").expect("validated to be there");
        let start = Start::of(start, "Type", "SequenceNumber")?;
        let shard = &stream.shard(input.needed("ShardId"))?;
        let subject = Subject::shard(&stream, shard);
        let message = v1::SubscribeToShardRequest {
            stream_name: stream.name.as_str().to_string(),
            shard_id: shard.to_string(),
            starting_position: Some(v1::StartingPosition {
                r#type: start.kind as i32,
                sequence_number: start.number.unwrap_or_default(),
                timestamp_ms: start.ms.unwrap_or_default(),
            }),
            // With the moment of its registration: an earlier consumer of the same name is another one.
            consumer: format!("{}:{}", found.name, found.created_ms),
        };
        let events = self.face.service.subscription(&message, &self.call).await;
        let events = events.map_err(|error| match self.data_fault(&error, &subject) {
            fault if fault.kind == FaultKind::ResourceInUse => Fault::new(
                FaultKind::ResourceInUse,
                format!("Another active subscription exists for this consumer: {arn} and shard: {shard}."),
            ),
            fault => fault,
        })?;
        let beginning = self.face.service.first_number(&message).unwrap_or_default();
        let first = stream::iter([frame("event", "initial-response", form, &Structure::new())]);
        let rest = events.map(move |event| match event {
            Ok(event) => Some(frame("event", "SubscribeToShardEvent", form, &told(event, &beginning))),
            Err(status) => {
                let fault = of_interruption(status, &subject)?;
                Some(frame("exception", fault.kind.name(), form, &fault.body()))
            }
        });
        // Nothing follows an interruption.
        let rest = rest.take_while(|frame| std::future::ready(frame.is_some())).filter_map(std::future::ready);
        Ok(Box::pin(first.chain(rest)))
    }
}

/// `beginning` is the shard's own first number, which stands before its first record.
fn told(event: v1::SubscribeToShardEvent, beginning: &str) -> Structure {
    let continuation = match event.continuation_sequence_number {
        _ if event.end_of_shard => None,
        number if number.is_empty() => Some(beginning.to_string()),
        number => Some(number),
    };
    let ended = event.end_of_shard.then(|| children(event.child_shards));
    Structure::new()
        .with("Records", event.records.into_iter().map(stored).collect::<Vec<_>>())
        .with_some("ContinuationSequenceNumber", continuation)
        .with("MillisBehindLatest", event.millis_behind_latest as i64)
        .with_some("ChildShards", ended)
}

/// One frame, as `application/vnd.amazon.eventstream` has it; numbers are big endian, checksums CRC-32:
///
/// ```text
/// total u32 | headers u32 | crc of these | headers: (name len u8, name, type u8 = 7, value len u16, value) … | body | crc of all
/// ```
pub(super) fn frame(kind: &str, name: &str, form: Form, body: &Structure) -> Bytes {
    const TEXT: u8 = 7;
    let named = if kind == "exception" { ":exception-type" } else { ":event-type" };
    let mut headers = Vec::new();
    for (header, value) in [(":message-type", kind), (named, name), (":content-type", form.content_type())] {
        headers.push(header.len() as u8);
        headers.extend(header.as_bytes());
        headers.push(TEXT);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let body = wire::write(form, body);
    let total = 4 + 4 + 4 + headers.len() + body.len() + 4;
    let mut out = Vec::with_capacity(total);
    out.extend(u32::try_from(total).expect("an event has 2 MiB at most").to_be_bytes());
    out.extend((headers.len() as u32).to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend_from_slice(&body);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_the_format_says() {
        let frame = frame("event", "initial-response", Form::Json, &Structure::new());
        let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let end = frame.len() - 4;
        assert_eq!(number(0) as usize, frame.len());
        assert_eq!(&frame[end - 2..end], b"{}");
        assert_eq!(number(4) as usize, end - 2 - 12);
        assert_eq!((number(8), number(end)), (crc32fast::hash(&frame[..8]), crc32fast::hash(&frame[..end])));
        assert_eq!(&frame[12..34], b"\x0d:message-type\x07\0\x05event");
        assert_eq!(&frame[34..65], b"\x0b:event-type\x07\0\x10initial-response");
    }

    #[test]
    fn a_consumer_is_told_where_to_go_on_until_the_shard_ends() {
        let event = v1::SubscribeToShardEvent::default();
        assert_eq!(told(event.clone(), "4").text("ContinuationSequenceNumber"), Some("4"));
        let with = v1::SubscribeToShardEvent { continuation_sequence_number: "5".into(), ..event };
        assert_eq!(told(with.clone(), "4").text("ContinuationSequenceNumber"), Some("5"));
        let ended = told(v1::SubscribeToShardEvent { end_of_shard: true, ..with }, "4");
        assert_eq!(ended.get("ContinuationSequenceNumber"), None);
        assert!(ended.get("ChildShards").is_some());
    }
}

//! Records in and out: PutRecord, PutRecords, GetShardIterator, GetRecords.
//!
//! Invariant: data is what the producer sent, aggregated or not: nothing here looks inside.

use braid_proto::v1;
use braid_stream::hash::HashKey;
use braid_stream::limits::PUT_BYTES_MAX_LARGE;
use braid_stream::name::PartitionKey;
use braid_stream::record::Record;
use braid_stream::sequence::SequenceNumber;
use bytes::Bytes;

use super::Asked;
use super::error::{Subject, of_record};
use super::iterator::{dress, undress};
use super::names::Named;
use super::wire::fault::{Fault, FaultKind};
use super::wire::validate;
use super::wire::value::{Structure, Value, time};
use crate::api::Verdict;

impl Asked<'_> {
    pub(super) async fn put_record(&self, mut input: Structure) -> Result<Structure, Fault> {
        let stream = self.stream(&input)?;
        if let Some(number) = input.text("SequenceNumberForOrdering") {
            // A shard's numbers only grow, so whatever number it gave out, this one will be greater.
            SequenceNumber::parse(number).map_err(|_| {
                Fault::argument(format!("ExclusiveMinimumSequenceNumber {number} used in PutRecord on stream {} under account {} is invalid.", stream.local(), stream.account))
            })?;
        }
        let record = record(&mut input)?;
        let verdict = self.put(&stream, vec![record], "data").await?.pop().expect("one record has one verdict");
        match verdict.outcome {
            Ok(number) => {
                let answer = Structure::new().with("ShardId", verdict.shard.name());
                Ok(answer.with("SequenceNumber", number.to_string()))
            }
            Err(why) => Err(of_record(&why, &Subject::shard(&stream, &verdict.shard.name()))),
        }
    }

    pub(super) async fn put_records(&self, mut input: Structure) -> Result<Structure, Fault> {
        let stream = self.stream(&input)?;
        let Some(Value::List(entries)) = input.take("Records") else { unreachable!("validated to be a list") };
        let records = entries.into_iter().map(|entry| match entry {
            Value::Structure(mut entry) => record(&mut entry),
            other => unreachable!("{other:?} was validated to be a structure"),
        });
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let verdicts = self.put(&stream, records, "records").await?;
        let failed = verdicts.iter().filter(|verdict| verdict.outcome.is_err()).count() as u32;
        let entries: Vec<Structure> = verdicts.into_iter().map(|verdict| entry(&stream, verdict)).collect();
        Ok(Structure::new().with("FailedRecordCount", failed).with("Records", entries))
    }

    /// `path` is where the records are in the request: a list, or the one record's data.
    async fn put(&self, stream: &Named, records: Vec<Record>, path: &str) -> Result<Vec<Verdict>, Fault> {
        let put = self.face.service.put(&stream.name, records, false, &self.call).await;
        put.map_err(|error| match error.as_request() {
            Some(request) => of_request(request, path),
            None => self.data_fault(&error, &Subject::stream(stream)),
        })
    }

    pub(super) async fn get_shard_iterator(&self, input: &Structure) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        let shard = &stream.shard(input.needed("ShardId"))?;
        let start = Start::of(input, "ShardIteratorType", "StartingSequenceNumber")?;
        let subject = Subject::shard(&stream, shard);
        start.not_in_the_future(self.face.service.now_ms())?;
        let message = v1::GetShardIteratorRequest {
            stream_name: stream.name.as_str().to_string(),
            shard_id: shard.to_string(),
            shard_iterator_type: start.kind as i32,
            starting_sequence_number: start.number.unwrap_or_default(),
            timestamp_ms: start.ms.unwrap_or_default(),
        };
        let answer = self.face.service.shard_iterator(&message, &self.call).await;
        let answer = answer.map_err(|error| self.data_fault(&error, &subject))?;
        Ok(Structure::new().with("ShardIterator", dress(&answer.shard_iterator)))
    }

    pub(super) async fn get_records(&self, input: &Structure) -> Result<Structure, Fault> {
        if let Some(arn) = input.text("StreamARN") {
            self.face.home.arn(arn)?;
        }
        let token = undress(input.needed("ShardIterator")).ok_or_else(|| Fault::argument("Invalid ShardIterator."))?;
        if let Some(name) = self.face.service.stream_of_iterator(&token) {
            // A stream of a namespace that was not made by this face is nobody's here.
            let stream = self.face.home.of_name(name.as_str());
            self.allows_stream(&stream.ok_or_else(|| Fault::argument("Invalid ShardIterator."))?)?;
        }
        let limit = input.integer("Limit").unwrap_or(0);
        let message = v1::GetRecordsRequest { shard_iterator: token, limit: limit as u32 };
        let answer = self.face.service.records(&message, &self.call).await;
        let answer = answer.map_err(|error| self.data_fault(&error, &Subject::iterator(&self.caller)))?;
        let records: Vec<Structure> = answer.records.into_iter().map(stored).collect();
        let next = Some(answer.next_shard_iterator).filter(|token| !token.is_empty());
        let ended = next.is_none().then(|| children(answer.child_shards));
        Ok(Structure::new()
            .with("Records", records)
            .with_some("NextShardIterator", next.map(|token| dress(&token)))
            .with("MillisBehindLatest", answer.millis_behind_latest as i64)
            .with_some("ChildShards", ended))
    }
}

/// Where reading begins.
pub(super) struct Start {
    pub kind: v1::ShardIteratorType,
    pub number: Option<String>,
    pub ms: Option<u64>,
}

impl Start {
    /// `kind` and `number` are the members' names; the time is always called Timestamp.
    pub(super) fn of(input: &Structure, kind: &str, number: &str) -> Result<Start, Fault> {
        use v1::ShardIteratorType as Kind;
        let word = input.needed(kind);
        let number = input.text(number).map(str::to_string);
        let kind = match word {
            "AT_SEQUENCE_NUMBER" => Kind::AtSequenceNumber,
            "AFTER_SEQUENCE_NUMBER" => Kind::AfterSequenceNumber,
            "TRIM_HORIZON" => Kind::TrimHorizon,
            "LATEST" => Kind::Latest,
            "AT_TIMESTAMP" => Kind::AtTimestamp,
            other => unreachable!("{other} was validated to be one of five"),
        };
        let has_place = matches!(kind, Kind::AtSequenceNumber | Kind::AfterSequenceNumber);
        if has_place != number.is_some() && kind != Kind::AtTimestamp {
            let also = if number.is_some() { "also a" } else { "no" };
            return Err(Fault::argument(format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or (2) \
                 TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {word} and {also} \
                 StartingSequenceNumber."
            )));
        }
        let ms = input.timestamp("Timestamp").map(|ms| u64::try_from(ms).unwrap_or(0));
        if kind == Kind::AtTimestamp && ms.is_none() {
            return Err(Fault::argument(
                "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no \
                 timestamp parameter.",
            ));
        }
        Ok(Start { kind, number, ms })
    }

    /// As the service has it for iterators.
    fn not_in_the_future(&self, now_ms: u64) -> Result<(), Fault> {
        match self.ms.filter(|ms| *ms > now_ms && self.kind == v1::ShardIteratorType::AtTimestamp) {
            Some(ms) => Err(Fault::argument(format!(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                 timestampInMillis: {ms}, currentTimestampInMillis: {now_ms}"
            ))),
            None => Ok(()),
        }
    }
}

/// A record of a request, taken out of it.
fn record(input: &mut Structure) -> Result<Record, Fault> {
    let Some(Value::Blob(data)) = input.take("Data") else { unreachable!("validated to be bytes") };
    let Some(Value::Text(key)) = input.take("PartitionKey") else { unreachable!("validated to be a text") };
    let partition_key = PartitionKey::new(Bytes::from(key)).map_err(|e| Fault::argument(e.to_string()))?;
    let explicit_hash = match input.text("ExplicitHashKey") {
        Some(text) => Some(HashKey::parse(text).map_err(|_| {
            Fault::argument(format!(
                "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
            ))
        })?),
        None => None,
    };
    Ok(Record { partition_key, explicit_hash, data })
}

fn of_request(error: &braid_stream::record::RequestError, path: &str) -> Fault {
    use braid_stream::record::RequestError as E;
    match error {
        E::Record { nth, error } => {
            let path = match path {
                "records" => format!("records.{}.member.data", nth + 1),
                path => path.to_string(),
            };
            validate::failed_unseen(&path, &format!("Member must have length less than or equal to {}", error.max))
        }
        E::Bytes { max, .. } => {
            let mib = if *max == PUT_BYTES_MAX_LARGE { 10 } else { 5 };
            Fault::argument(format!("Records size exceeds {mib} MB limit"))
        }
        E::Count { .. } => validate::failed_unseen(path, "Member must have length less than or equal to 500"),
    }
}

/// What became of one record: a number, or one of two errors, as the service has it.
fn entry(stream: &Named, verdict: Verdict) -> Structure {
    match verdict.outcome {
        Ok(number) => Structure::new().with("SequenceNumber", number.to_string()).with("ShardId", verdict.shard.name()),
        Err(why) => {
            let fault = of_record(&why, &Subject::shard(stream, &verdict.shard.name()));
            let code = match fault.kind {
                FaultKind::ProvisionedThroughputExceeded => fault.kind.name(),
                // Of a record it is said without "Exception".
                _ => "InternalFailure",
            };
            Structure::new().with("ErrorCode", code).with_some("ErrorMessage", fault.message)
        }
    }
}

/// A record as it is read.
pub(super) fn stored(it: v1::Record) -> Structure {
    Structure::new()
        .with("SequenceNumber", it.sequence_number)
        .with("ApproximateArrivalTimestamp", time(it.approximate_arrival_timestamp_ms))
        .with("Data", it.data)
        .with("PartitionKey", it.partition_key)
}

/// The shards that go on.
pub(super) fn children(shards: Vec<v1::ChildShard>) -> Vec<Structure> {
    let each = shards.into_iter().map(|it| {
        let range = it.hash_key_range.unwrap_or_default();
        let range = Structure::new()
            .with("StartingHashKey", range.starting_hash_key)
            .with("EndingHashKey", range.ending_hash_key);
        Structure::new().with("ShardId", it.shard_id).with("ParentShards", it.parent_shards).with("HashKeyRange", range)
    });
    each.collect()
}

//! Bad requests, as a table: each is refused in words that say what was wrong and what is allowed,
//! with the code, reason and field of the contract, whichever node is asked; and after them all the
//! cluster has lost nothing and serves on. What is no request at all is in `bad_bytes.rs`.

use crate::support::TestCluster;
use crate::support::sentinel::{Client, Sentinel, client, create, delete, iterator, put};
use crate::support::table::{Ask, INVALID, ITERATOR, NO_SHARD, NO_STREAM, PAGE, Row, check, row};
use braid_proto::v1;
use braid_proto::v1::{ErrorReason as R, ShardIteratorType as Kind};
use braid_stream::ids::{Offset, ShardId, StreamId};
use braid_stream::iterator::{IteratorToken, Position};
use braid_stream::name::StreamName;
use braid_stream::sequence::SequenceNumber;
use hmac::{Hmac, KeyInit, Mac};
use tonic::Code;

const SHARD_0: &str = "shardId-000000000000";
const SHARD_1: &str = "shardId-000000000001";
/// 2^128.
const TWO_128: &str = "340282366920938463463374607431768211456";

async fn cluster() -> (TestCluster, Sentinel) {
    // Rates are another test's matter.
    let cluster = TestCluster::start_with(|config| config.throttle = false).await;
    let sentinel = Sentinel::start(&cluster).await;
    (cluster, sentinel)
}

fn stream(name: &str, shards: u32) -> v1::CreateStreamRequest {
    v1::CreateStreamRequest { stream_name: name.into(), shard_count: shards, ..v1::CreateStreamRequest::default() }
}

fn stream_rows() -> Vec<Row> {
    let named = |name: &str| Ask::Create(stream(name, 1));
    let kept = |ms| Ask::Create(v1::CreateStreamRequest { retention_ms: ms, ..stream("t", 1) });
    let sized = |max_record_bytes| {
        let limits = Some(v1::StreamLimits { max_record_bytes, ..v1::StreamLimits::default() });
        Ask::Create(v1::CreateStreamRequest { limits, ..stream("t", 1) })
    };
    let allowed = &["1 to 128", "[a-zA-Z0-9_.-]"];
    let transfer = |group, to_node| Ask::Transfer(v1::TransferLeaderRequest { group, to_node });
    vec![
        row("name: empty", named(""), INVALID, "stream_name", allowed),
        row("name: 129 characters", named(&"n".repeat(129)), INVALID, "stream_name", allowed),
        row("name: a megabyte", named(&"n".repeat(1 << 20)), INVALID, "stream_name", allowed),
        row("name: a space", named("no such"), INVALID, "stream_name", &["no such", "[a-zA-Z0-9_.-]"]),
        row("name: a slash", named("../../etc"), INVALID, "stream_name", allowed),
        row("name: a zero byte", named("a\0b"), INVALID, "stream_name", allowed),
        row("name: not ascii", named("ströme"), INVALID, "stream_name", allowed),
        row("shards: none", Ask::Create(stream("t", 0)), INVALID, "shard_count", &["0 shards", "1 to 10000"]),
        row("shards: 10,001", Ask::Create(stream("t", 10_001)), INVALID, "shard_count", &["10001", "1 to 10000"]),
        row("shards: 2^32-1", Ask::Create(stream("t", u32::MAX)), INVALID, "shard_count", &["1 to 10000"]),
        row("retention: 1 ms", kept(1), INVALID, "retention_ms", &["1 ms", "3600000 to 604800000"]),
        row("retention: too long", kept(604_800_001), INVALID, "retention_ms", &["604800001", "3600000 to 604800000"]),
        row("retention: 2^64-1", kept(u64::MAX), INVALID, "retention_ms", &["3600000 to 604800000"]),
        row("record size: 1", sized(1), INVALID, "max_record_bytes", &["of 1 ", "4096 to 10485760"]),
        row(
            "record size: too large",
            sized(10_485_761),
            INVALID,
            "max_record_bytes",
            &["10485761", "4096 to 10485760"],
        ),
        row("taken", named("sentinel"), (Code::AlreadyExists, R::StreamExists), "", &["sentinel", "exists"]),
        row("delete: unknown", Ask::Delete("nobody"), NO_STREAM, "", &["nobody", "not exist"]),
        row("delete: empty", Ask::Delete(""), INVALID, "stream_name", allowed),
        row("describe: unknown", Ask::Describe("nobody"), NO_STREAM, "", &["no stream nobody"]),
        row("describe: illegal", Ask::Describe("no/such/body"), INVALID, "stream_name", allowed),
        row("transfer: no group", transfer(99, 1), (Code::NotFound, R::GroupNotFound), "", &["99"]),
        row("transfer: no node", transfer(1, 99), (Code::NotFound, R::NodeNotFound), "", &["99"]),
    ]
}

fn entry(key: &str, data: &str) -> v1::PutRecordsRequestEntry {
    let (data, partition_key) = (data.as_bytes().to_vec().into(), key.into());
    v1::PutRecordsRequestEntry { data, partition_key, explicit_hash_key: String::new() }
}

fn put_rows() -> Vec<Row> {
    let keyed = |key: &str| Ask::Put(put("s", key, "d"));
    let hashed = |hash: &str| Ask::Put(v1::PutRecordRequest { explicit_hash_key: hash.into(), ..put("s", "k", "d") });
    let many = |records: Vec<v1::PutRecordsRequestEntry>| {
        Ask::PutMany(v1::PutRecordsRequest { stream_name: "s".into(), records, keep_order: false })
    };
    let ordered =
        |number: &str| v1::PutRecordRequest { sequence_number_for_ordering: number.into(), ..put("s", "k", "d") };
    let large = "x".repeat(1 << 20);
    let below = "x".repeat((1 << 20) - 1);
    let mut hash_in_many = vec![entry("k", "a"), entry("k", "b")];
    hash_in_many[1].explicit_hash_key = TWO_128.into();
    let unknown =
        v1::PutRecordsRequest { stream_name: "nobody".into(), records: vec![entry("k", "d")], keep_order: true };
    let decimal = &["is not a decimal number", "digits only"];
    let up_to = &["too large", "at most 340282366920938463463374607431768211455"];
    vec![
        row("no stream", Ask::Put(put("nobody", "k", "d")), NO_STREAM, "", &["no stream nobody"]),
        row("no stream, many", Ask::PutMany(unknown), NO_STREAM, "", &["no stream nobody"]),
        row("stream: illegal", Ask::Put(put("no body", "k", "d")), INVALID, "stream_name", &["no body"]),
        row("key: empty", keyed(""), INVALID, "partition_key", &["empty", "1 to 256 characters"]),
        row("key: 257", keyed(&"k".repeat(257)), INVALID, "partition_key", &["257", "1 to 256 characters"]),
        row(
            "key: 257 of 4 bytes",
            keyed(&"𝄞".repeat(257)),
            INVALID,
            "partition_key",
            &["too long", "1 to 256 characters"],
        ),
        row("key: a megabyte", keyed(&large), INVALID, "partition_key", &["1048576", "1 to 256 characters"]),
        row("record: a byte too large", Ask::Put(put("s", "k", &large)), INVALID, "data", &["1048577", "1048576"]),
        row("hash: a word", hashed("zero"), INVALID, "explicit_hash_key", decimal),
        row("hash: negative", hashed("-1"), INVALID, "explicit_hash_key", decimal),
        row("hash: hexadecimal", hashed("0xff"), INVALID, "explicit_hash_key", decimal),
        row("hash: leading zero", hashed("01"), INVALID, "explicit_hash_key", decimal),
        row("hash: 2^128", hashed(TWO_128), INVALID, "explicit_hash_key", up_to),
        row("hash: endless", hashed(&"9".repeat(100_000)), INVALID, "explicit_hash_key", up_to),
        row("ordering", Ask::Put(ordered("12")), INVALID, "sequence_number_for_ordering", &["56 decimal digits"]),
        row("many: none", many(vec![]), INVALID, "records", &["0 records", "1 to 500"]),
        row("many: 501", many(vec![entry("k", "d"); 501]), INVALID, "records", &["501 records", "1 to 500"]),
        row(
            "many: one key",
            many(vec![entry("k", "a"), entry("", "b")]),
            INVALID,
            "records[1].partition_key",
            &["empty"],
        ),
        row("many: one hash", many(hash_in_many), INVALID, "records[1].explicit_hash_key", up_to),
        row(
            "many: one too large",
            many(vec![entry("k", "a"), entry("k", &large)]),
            INVALID,
            "records[1].data",
            &["1048577"],
        ),
        row("many: too large together", many(vec![entry("k", &below); 6]), INVALID, "records", &["6291456", "5242880"]),
        // Longer than any request may be: refused by its length, before it is read.
        row("a message of 12 MiB", many(vec![entry("k", &large); 12]), INVALID, "", &["too large", "11534336"]),
        row(
            "a record of 12 MiB",
            Ask::Put(put("s", "k", &"x".repeat(12 << 20))),
            INVALID,
            "",
            &["too large", "11534336"],
        ),
    ]
}

fn page_rows(streams: &str, shards: &str, key: &[u8; 32], now_ms: u64) -> Vec<Row> {
    let streams_from =
        |token: &str| v1::ListStreamsRequest { next_token: token.into(), ..v1::ListStreamsRequest::default() };
    let shards_of = |name: &str| v1::ListShardsRequest { stream_name: name.into(), ..v1::ListShardsRequest::default() };
    let shards_from = |name: &str, token: &str| {
        Ask::ListShards(v1::ListShardsRequest { next_token: token.into(), ..shards_of(name) })
    };
    let filter = v1::ShardFilter {
        r#type: v1::shard_filter::Type::AfterShardId as i32,
        shard_id: "shard-1".into(),
        ..v1::ShardFilter::default()
    };
    let filtered = v1::ListShardsRequest { shard_filter: Some(filter), ..shards_of("s") };
    let both = v1::ListStreamsRequest { exclusive_start_stream_name: "a".into(), ..streams_from(streams) };
    let limit = v1::ListStreamsRequest { limit: 1_001, ..v1::ListStreamsRequest::default() };
    let results = v1::ListShardsRequest { max_results: 1_001, ..shards_of("s") };
    let expired = (Code::FailedPrecondition, R::NextTokenExpired);
    let not_ours = &["not given out by this cluster"];
    vec![
        row("streams: 1,001", Ask::ListStreams(limit), INVALID, "limit", &["1001", "1 to 1000"]),
        row("streams: token and name", Ask::ListStreams(both), INVALID, "next_token", &["together with"]),
        row("streams: garbage token", Ask::ListStreams(streams_from("garbage")), PAGE, "next_token", not_ours),
        row("streams: a shards' token", Ask::ListStreams(streams_from(shards)), PAGE, "next_token", not_ours),
        row(
            "streams: forged token",
            Ask::ListStreams(streams_from(&forged(streams, 40))),
            PAGE,
            "next_token",
            not_ours,
        ),
        row(
            "streams: endless token",
            Ask::ListStreams(streams_from(&"0".repeat(1 << 20))),
            PAGE,
            "next_token",
            not_ours,
        ),
        row(
            "streams: old token",
            Ask::ListStreams(streams_from(&page_token(key, now_ms - 301_000))),
            expired,
            "",
            &["expired", "at most 300000"],
        ),
        row("shards: 1,001", Ask::ListShards(results), INVALID, "max_results", &["1001", "1 to 1000"]),
        row("shards: unknown stream", Ask::ListShards(shards_of("nobody")), NO_STREAM, "", &["no stream nobody"]),
        row("shards: garbage token", shards_from("s", "ÄÖÜ"), PAGE, "next_token", not_ours),
        row("shards: a streams' token", shards_from("s", streams), PAGE, "next_token", not_ours),
        row("shards: another stream's token", shards_from("sentinel", shards), PAGE, "next_token", not_ours),
        row("shards: forged token", shards_from("s", &forged(shards, 3)), PAGE, "next_token", not_ours),
        row("shards: filter", Ask::ListShards(filtered), INVALID, "shard_filter.shard_id", &["shard-1", "12 digits"]),
    ]
}

/// A listing's token as a node makes it, for a listing of streams after "a".
fn page_token(key: &[u8; 32], issued_ms: u64) -> String {
    let body = postcard::to_stdvec(&(issued_ms, 0u32, "a")).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(b"braid page token\0");
    mac.update(&body);
    let mac = mac.finalize().into_bytes();
    [1].iter().chain(&mac[..16]).chain(&body).map(|byte| format!("{byte:02x}")).collect()
}

/// The token with one character changed into another of its alphabet.
fn forged(token: &str, at: usize) -> String {
    let mut bytes = token.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    String::from_utf8(bytes).unwrap()
}

/// What a valid request needs, to be made invalid.
struct Valid {
    key: [u8; 32],
    stream: StreamId,
    /// A record's number in shard 0 and in shard 1 of "s".
    numbers: [String; 2],
    /// Of shard 0 of "s".
    token: String,
    now_ms: u64,
}

impl Valid {
    fn token(&self, index: u32, issued_ms: u64) -> IteratorToken {
        let shard = ShardId { stream: self.stream, index };
        IteratorToken { shard, position: Position::Offset(Offset(0)), issued_ms }
    }

    /// A number that shard 0 has not given out yet.
    fn future(&self) -> String {
        let number = SequenceNumber::parse(&self.numbers[0]).unwrap();
        SequenceNumber { offset: Offset(number.offset.0 + 1_000), ..number }.to_string()
    }
}

fn iterator_rows(valid: &Valid) -> Vec<Row> {
    let of = |shard: &str| Ask::Iterator(iterator("s", shard, Kind::Latest, ""));
    let at = |number: &str| Ask::Iterator(iterator("s", SHARD_0, Kind::AtSequenceNumber, number));
    let after = |number: &str| Ask::Iterator(iterator("s", SHARD_0, Kind::AfterSequenceNumber, number));
    let unknown = v1::GetShardIteratorRequest { shard_iterator_type: 99, ..iterator("s", SHARD_0, Kind::Latest, "") };
    let number = "starting_sequence_number";
    let digits = &["not 56 decimal digits"];
    let kinds = &["AT_SEQUENCE_NUMBER", "TRIM_HORIZON", "are allowed"];
    let name = &["shardId-", "12 digits"];
    vec![
        row(
            "stream",
            Ask::Iterator(iterator("nobody", SHARD_0, Kind::Latest, "")),
            NO_STREAM,
            "",
            &["no stream nobody"],
        ),
        row(
            "shard: unknown",
            of("shardId-000000000007"),
            NO_SHARD,
            "",
            &["stream s has no shard shardId-000000000007"],
        ),
        row("shard: empty", of(""), INVALID, "shard_id", name),
        row("shard: malformed", of("shard-0"), INVALID, "shard_id", name),
        row("shard: above 32 bits", of("shardId-999999999999"), INVALID, "shard_id", &["at most 4294967295"]),
        row(
            "kind: missing",
            Ask::Iterator(iterator("s", SHARD_0, Kind::Unspecified, "")),
            INVALID,
            "shard_iterator_type",
            kinds,
        ),
        row("kind: unknown", Ask::Iterator(unknown), INVALID, "shard_iterator_type", kinds),
        row("number: missing, at", at(""), INVALID, number, digits),
        row("number: missing, after", after(""), INVALID, number, digits),
        row("number: malformed", at("49"), INVALID, number, digits),
        row("number: letters", at(&"x".repeat(56)), INVALID, number, digits),
        row("number: all nines", at(&"9".repeat(56)), INVALID, number, &["is not a sequence number"]),
        row("number: a megabyte", at(&"9".repeat(1 << 20)), INVALID, number, digits),
        row(
            "number: of another shard",
            at(&valid.numbers[1]),
            INVALID,
            number,
            &["is not one of shardId-000000000000"],
        ),
        row("number: of the future", after(&valid.future()), INVALID, number, &["was not given out yet"]),
    ]
}

fn get_rows(valid: &Valid) -> Vec<Row> {
    let get = |token: &str, limit| Ask::Get(v1::GetRecordsRequest { shard_iterator: token.into(), limit });
    let with = |token: IteratorToken| get(&token.encode(&valid.key), 0);
    let foreign = valid.token(0, valid.now_ms).encode(&[7; 32]);
    let expired = (Code::FailedPrecondition, R::IteratorExpired);
    let not_ours = &["not given out by this cluster"];
    let malformed = &["malformed", "56 of [A-Za-z0-9_-]"];
    vec![
        row("limit: 10,001", get(&valid.token, 10_001), INVALID, "limit", &["10001", "1 to 10000"]),
        row("limit: 2^32-1", get(&valid.token, u32::MAX), INVALID, "limit", &["1 to 10000"]),
        row("token: empty", get("", 0), ITERATOR, "shard_iterator", malformed),
        row("token: garbage", get("garbage", 0), ITERATOR, "shard_iterator", malformed),
        row("token: a megabyte", get(&"A".repeat(1 << 20), 0), ITERATOR, "shard_iterator", malformed),
        row("token: not ascii", get(&"é".repeat(28), 0), ITERATOR, "shard_iterator", malformed),
        row("token: first character", get(&forged(&valid.token, 0), 0), ITERATOR, "shard_iterator", not_ours),
        row("token: position changed", get(&forged(&valid.token, 16), 0), ITERATOR, "shard_iterator", not_ours),
        row("token: last character", get(&forged(&valid.token, 55), 0), ITERATOR, "shard_iterator", not_ours),
        row("token: of another cluster", get(&foreign, 0), ITERATOR, "shard_iterator", not_ours),
        row("token: a page's", get(&page_token(&valid.key, valid.now_ms), 0), ITERATOR, "shard_iterator", malformed),
        row("token: old", with(valid.token(0, valid.now_ms - 301_000)), expired, "", &["expired", "at most 300000"]),
        row("token: no such shard", with(valid.token(99, valid.now_ms)), NO_SHARD, "", &["no shard"]),
    ]
}

fn subscribe_rows(valid: &Valid) -> Vec<Row> {
    let start = |kind: i32, number: &str| v1::StartingPosition {
        r#type: kind,
        sequence_number: number.into(),
        timestamp_ms: 0,
    };
    let to = |stream: &str, shard: &str, start| {
        let (stream_name, shard_id) = (stream.into(), shard.into());
        Ask::Subscribe(v1::SubscribeToShardRequest {
            stream_name,
            shard_id,
            starting_position: start,
            consumer: String::new(),
        })
    };
    let latest = Some(start(Kind::Latest as i32, ""));
    let at = |number: &str| to("s", SHARD_0, Some(start(Kind::AtSequenceNumber as i32, number)));
    let number = "starting_position.sequence_number";
    let kinds = &["AT_SEQUENCE_NUMBER", "are allowed"];
    vec![
        row("stream", to("nobody", SHARD_0, latest.clone()), NO_STREAM, "", &["no stream nobody"]),
        row("shard: unknown", to("s", "shardId-000000000007", latest.clone()), NO_SHARD, "", &["has no shard"]),
        row("shard: malformed", to("s", "0", latest), INVALID, "shard_id", &["12 digits"]),
        row("start: missing", to("s", SHARD_0, None), INVALID, "starting_position", &["missing"]),
        row("kind: missing", to("s", SHARD_0, Some(start(0, ""))), INVALID, "starting_position.type", kinds),
        row("number: missing", at(""), INVALID, number, &["not 56 decimal digits"]),
        row(
            "number: of another shard",
            at(&valid.numbers[1]),
            INVALID,
            number,
            &["is not one of shardId-000000000000"],
        ),
        row("number: of the future", at(&valid.future()), INVALID, number, &["was not given out yet"]),
    ]
}

/// The cluster's token key, and the id of stream "s".
fn secrets(cluster: &TestCluster) -> ([u8; 32], StreamId) {
    let catalog = cluster.node(0).groups().catalog().unwrap();
    let name = StreamName::parse("s").unwrap();
    catalog.state(|c| (c.cluster().unwrap().token_key.0, c.stream(&name).unwrap().id))
}

async fn token(client: &mut Client, stream: &str) -> String {
    let request = iterator(stream, SHARD_0, Kind::TrimHorizon, "");
    client.get_shard_iterator(request).await.unwrap().into_inner().shard_iterator
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_records_that_are_not_allowed() {
    let (mut cluster, mut sentinel) = cluster().await;
    check(&cluster, &mut sentinel, "streams", stream_rows()).await;
    let mut client = client(&cluster, 0);
    create(&mut client, "s", 2).await;
    check(&cluster, &mut sentinel, "puts", put_rows()).await;
    // Nothing of it was done in part.
    let names = client.list_streams(v1::ListStreamsRequest::default()).await.unwrap().into_inner().streams;
    assert_eq!(names.iter().map(|it| it.stream_name.as_str()).collect::<Vec<_>>(), ["s", "sentinel"]);
    for shard in [SHARD_0, SHARD_1] {
        let request = iterator("s", shard, Kind::TrimHorizon, "");
        let shard_iterator = client.get_shard_iterator(request).await.unwrap().into_inner().shard_iterator;
        let answer = client.get_records(v1::GetRecordsRequest { shard_iterator, limit: 0 }).await.unwrap();
        assert_eq!(answer.into_inner().records, [], "nothing malformed was appended");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_tokens_and_pages_that_are_not_good() {
    let (mut cluster, mut sentinel) = cluster().await;
    let mut client = client(&cluster, 1);
    create(&mut client, "s", 2).await;
    let mut numbers = Vec::new();
    // The least hash key is shard 0's, the greatest shard 1's.
    for (hash, shard) in [("0", SHARD_0), ("340282366920938463463374607431768211455", SHARD_1)] {
        let request = v1::PutRecordRequest { explicit_hash_key: hash.into(), ..put("s", "k", "d") };
        let answer = client.put_record(request).await.unwrap().into_inner();
        assert_eq!(answer.shard_id, shard);
        numbers.push(answer.sequence_number);
    }
    let numbers: [String; 2] = numbers.try_into().unwrap();
    let (key, stream) = secrets(&cluster);
    let token_of_s = token(&mut client, "s").await;
    let valid = Valid { key, stream, numbers, token: token_of_s, now_ms: braid_env::time::wall_ms() };
    check(&cluster, &mut sentinel, "iterators", iterator_rows(&valid)).await;
    check(&cluster, &mut sentinel, "reads", get_rows(&valid)).await;
    check(&cluster, &mut sentinel, "subscriptions", subscribe_rows(&valid)).await;

    let request = v1::ListStreamsRequest { limit: 1, ..v1::ListStreamsRequest::default() };
    let streams = client.list_streams(request).await.unwrap().into_inner().next_token;
    let request = v1::ListShardsRequest { stream_name: "s".into(), max_results: 1, ..v1::ListShardsRequest::default() };
    let shards = client.list_shards(request).await.unwrap().into_inner().next_token;
    check(&cluster, &mut sentinel, "pages", page_rows(&streams, &shards, &key, valid.now_ms)).await;

    // Not bad, though it looks so: the beginning of time, and a time to come.
    for timestamp_ms in [0, u64::MAX] {
        let request = v1::GetShardIteratorRequest { timestamp_ms, ..iterator("s", SHARD_0, Kind::AtTimestamp, "") };
        client.get_shard_iterator(request).await.unwrap();
    }

    // A stream of the same name is another stream.
    create(&mut client, "again", 1).await;
    let old = token(&mut client, "again").await;
    delete(&mut client, "again").await;
    create(&mut client, "again", 1).await;
    let ask = Ask::Get(v1::GetRecordsRequest { shard_iterator: old, limit: 0 });
    let rows = vec![row("token: of a stream deleted and made again", ask, NO_SHARD, "", &["stream", "was deleted"])];
    check(&cluster, &mut sentinel, "a recreated stream", rows).await;
    cluster.stop_all().await;
}

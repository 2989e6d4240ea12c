//! Texts as the service gives them, and: any request at all gets a well-formed answer.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::fault::{Fault, FaultKind};
use super::model::Known;
use super::table::{Operation, table};
use super::value::{Structure, Value};
use super::*;

fn operation(name: &str) -> &'static Operation {
    table().operation(name).unwrap()
}

fn refused(name: &str, body: &str) -> Fault {
    read(Form::Json, operation(name), body.as_bytes()).unwrap_err()
}

#[test]
fn the_table_has_every_operation_of_the_face() {
    assert_eq!(table().operations().count(), 39);
    for operation in table().operations() {
        assert_eq!(operation.input, format!("{}Input", operation.name));
    }
    let members = |name| table().members(name).iter().map(|it| it.name).collect::<Vec<_>>();
    assert_eq!(members("ShardFilter"), ["Type", "ShardId", "Timestamp"]);
}

#[test]
fn a_broken_constraint_is_said_in_the_services_words() {
    let rows = [
        (
            "CreateStream",
            "{}",
            "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null",
        ),
        (
            "CreateStream",
            r#"{"StreamName":"","ShardCount":0}"#,
            "3 validation errors detected: Value '' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '' at 'streamName' failed to satisfy constraint: Member must have length greater than or equal to 1; Value '0' at 'shardCount' failed to satisfy constraint: Member must have value greater than or equal to 1",
        ),
        (
            "GetShardIterator",
            r#"{"StreamName":"a","ShardId":"b","ShardIteratorType":"LATER"}"#,
            "1 validation error detected: Value 'LATER' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: [AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER, TRIM_HORIZON, LATEST, AT_TIMESTAMP]",
        ),
        (
            "PutRecords",
            r#"{"StreamName":"a","Records":[{"Data":"","PartitionKey":"k"},{"PartitionKey":"","ExplicitHashKey":"01"}]}"#,
            "3 validation errors detected: Value null at 'records.2.member.data' failed to satisfy constraint: Member must not be null; Value '01' at 'records.2.member.explicitHashKey' failed to satisfy constraint: Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38}); Value '' at 'records.2.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
        (
            "AddTagsToStream",
            r#"{"StreamName":"a","Tags":{"":"b"}}"#,
            "1 validation error detected: Value '{=b}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]",
        ),
        (
            "RemoveTagsFromStream",
            r#"{"StreamName":"a","TagKeys":["a",""]}"#,
            "1 validation error detected: Value '[a, ]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]",
        ),
    ];
    for (name, body, text) in rows {
        assert_eq!(refused(name, body), Fault::validation(text), "{body}");
    }
}

#[test]
fn no_more_than_ten_are_said_and_a_long_list_is_cut() {
    let many = format!(r#"{{"StreamName":"a","Records":[{}]}}"#, vec!["{}"; 501].join(","));
    let text = refused("PutRecords", &many).message.unwrap();
    // Records are not shown, nor a list of them.
    let first = "Value at 'records' failed to satisfy constraint: Member must have length less than or equal to 500";
    assert!(text.starts_with(&format!("10 validation errors detected: {first}; ")), "{text}");
    let many = format!(r#"{{"StreamName":"a","TagKeys":[{}]}}"#, vec![r#""key""#; 501].join(","));
    let text = refused("RemoveTagsFromStream", &many).message.unwrap();
    assert!(text.starts_with("1 validation error detected: Value '[key, key"), "{text}");
    assert!(text.len() < 2_000, "{}", text.len());
}

#[test]
fn a_value_of_the_wrong_kind_is_a_serialization_exception() {
    let rows = [
        (
            r#"{"StreamName":1}"#,
            "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String",
        ),
        (r#"{"StreamName":true}"#, "class java.lang.Boolean can not be converted to an String"),
        (r#"{"StreamName":[]}"#, "Start of list found where not expected"),
        (r#"{"StreamName":{}}"#, "Start of structure or map found where not expected."),
        (r#"{"Records":{}}"#, "Start of structure or map found where not expected."),
        (r#"{"Records":7}"#, "Expected list or null"),
        (r#"{"Records":[7]}"#, "Expected null"),
        (
            r#"{"Records":[{"Data":"a"}]}"#,
            "'a' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 1",
        ),
        (r#"{"Records":[{"Data":"=aaa"}]}"#, "'=aaa' can not be converted to a Blob: Invalid Base64 character: '='"),
        (
            r#"{"Records":[{"Data":"+/+="}]}"#,
            "'+/+=' can not be converted to a Blob: Invalid last non-pad Base64 character dectected",
        ),
        (r#"{"DryRun":"yes"}"#, "'YES' can not be converted to an Boolean"),
    ];
    for (body, text) in rows {
        assert_eq!(refused("PutRecords", body), Fault::serialization(text), "{body}");
    }
    for body in ["", "[]", "7", "{", "null"] {
        assert_eq!(refused("PutRecords", body), Fault::unreadable(), "{body}");
    }
    assert_eq!(&write(Form::Json, &Fault::unreadable().body())[..], br#"{"__type":"SerializationException"}"#);
    let said = write(Form::Json, &Fault::serialization("x").body());
    assert_eq!(&said[..], br#"{"__type":"SerializationException","Message":"x"}"#);
    let said = write(Form::Json, &Fault::new(FaultKind::ResourceInUse, "x").body());
    assert_eq!(&said[..], br#"{"__type":"ResourceInUseException","message":"x"}"#);
}

#[test]
fn what_is_not_named_is_left_out_and_numbers_are_cut() {
    let body = r#"{"StreamName":"a","ShardCount":2.9,"Nonsense":{"a":[1]},"Tags":null,"StreamModeDetails":{"StreamMode":"ON_DEMAND","x":1}}"#;
    let input = read(Form::Json, operation("CreateStream"), body.as_bytes()).unwrap();
    let mode = Structure::new().with("StreamMode", "ON_DEMAND");
    let expected = Structure::new().with("StreamName", "a").with("ShardCount", 2i64).with("StreamModeDetails", mode);
    assert_eq!(input, expected);
    let body = r#"{"StreamName":"a","ShardCount":99999999999999999999999}"#;
    let input = read(Form::Json, operation("CreateStream"), body.as_bytes()).unwrap();
    assert_eq!(input.integer("ShardCount"), Some(i32::MAX.into()));
}

/// As the Java SDK sends it: containers of no stated length, and times as tag 1 with whole milliseconds.
#[test]
fn indefinite_cbor_is_read() {
    let mut body = vec![0xbf];
    let text = |text: &str| [&[0x60 + text.len() as u8][..], text.as_bytes()].concat();
    body.extend(text("ShardId"));
    body.extend(text("s"));
    body.extend(text("Timestamp"));
    body.extend([0xc1, 0x1b]);
    body.extend(1_600_000_000_123u64.to_be_bytes());
    body.extend(text("StreamName"));
    body.extend(text("a"));
    body.extend(text("ShardIteratorType"));
    body.extend(text("AT_TIMESTAMP"));
    body.push(0xff);
    let input = read(Form::Cbor, operation("GetShardIterator"), &body).unwrap();
    assert_eq!(input.timestamp("Timestamp"), Some(1_600_000_000_123));

    let mut body = vec![0xbf];
    body.extend(text("StreamName"));
    body.extend([0x7f, 0x61, b'a', 0x61, b'b', 0xff]);
    body.extend(text("Records"));
    body.extend([0x9f, 0xbf]);
    body.extend(text("Data"));
    body.extend([0x5f, 0x42, 1, 2, 0x41, 3, 0xff]);
    body.extend(text("PartitionKey"));
    body.extend(text("k"));
    body.extend([0xff, 0xff, 0xff]);
    let input = read(Form::Cbor, operation("PutRecords"), &body).unwrap();
    assert_eq!(input.text("StreamName"), Some("ab"));
    let Some(Value::List(records)) = input.get("Records") else { panic!("{input:?}") };
    let record = Structure::new().with("Data", Bytes::from_static(&[1, 2, 3])).with("PartitionKey", "k");
    assert_eq!(records[..], [Value::Structure(record)]);
}

#[test]
fn times_are_seconds_in_json_and_tagged_milliseconds_in_cbor() {
    let answer = Structure::new().with("T", value::time(1_600_000_000_123)).with("D", Bytes::from_static(b"\xff\x00"));
    assert_eq!(&write(Form::Json, &answer)[..], br#"{"T":1600000000.123,"D":"/wA="}"#);
    let mut expected = vec![0xa2, 0x61, b'T', 0xc1, 0x1b];
    expected.extend(1_600_000_000_123u64.to_be_bytes());
    expected.extend([0x61, b'D', 0x42, 0xff, 0x00]);
    assert_eq!(&write(Form::Cbor, &answer)[..], &expected[..]);
}

#[test]
fn a_bomb_costs_no_more_than_its_length() {
    let deep = [vec![0x81; 100_000], vec![0]].concat();
    assert_eq!(read(Form::Cbor, operation("PutRecords"), &deep), Err(Fault::unreadable()));
    let deep = "[".repeat(100_000);
    assert_eq!(read(Form::Json, operation("PutRecords"), deep.as_bytes()), Err(Fault::unreadable()));
    // Says to be 2^62 bytes, items, pairs long.
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        let body = [&[head][..], &(1u64 << 62).to_be_bytes()].concat();
        assert_eq!(read(Form::Cbor, operation("PutRecords"), &body), Err(Fault::unreadable()));
    }
}

fn forms() -> impl Strategy<Value = Form> {
    proptest::sample::select(vec![Form::Json, Form::Cbor])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_valid_request_is_read_as_it_was_written((operation, input) in model::requests(&Known::default()), form in forms()) {
        prop_assert_eq!(read(form, operation, &write(form, &input)), Ok(input));
    }

    #[test]
    fn a_request_with_something_else_in_it_is_read_or_refused(
        (operation, input) in model::requests(&Known::default()), form in forms(), nth in 0..12usize, new in model::nonsense()
    ) {
        let mut nth = nth;
        let body = write(form, &model::replace(&input, &mut nth, &new));
        match read(form, operation, &body) {
            Ok(input) => prop_assert_eq!(validate::check(operation.input, &input), Ok(())),
            Err(fault) => model::assert_well_formed(&fault),
        }
    }

    #[test]
    fn a_request_with_a_changed_byte_is_read_or_refused(
        (operation, input) in model::requests(&Known::default()), form in forms(), at in any::<proptest::sample::Index>(), byte in any::<u8>()
    ) {
        let mut body = write(form, &input).to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if let Err(fault) = read(form, operation, &body) {
            model::assert_well_formed(&fault);
        }
        if let Err(fault) = read(form, operation, &body[..at]) {
            model::assert_well_formed(&fault);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in vec(any::<u8>(), 0..200), form in forms()) {
        for operation in table().operations() {
            if let Err(fault) = read(form, operation, &body) {
                model::assert_well_formed(&fault);
            }
        }
    }
}

//! The API's model as tests use it: requests made up from `api.table`, valid ones and wrong ones, in every way in which they
//! can be written; and whether an answer is one that the model has.
//!
//! Not here: what a request does.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::fault::Fault;
use super::raw::{self, Raw};
use super::table::{Bounds, Kind, Operation, table};
use super::value::{Structure, Value};
use super::{Form, decode, validate, write};

/// Texts that mean something to whoever is asked, by the names of their shapes: those of streams that are there.
pub type Known = BTreeMap<&'static str, Vec<String>>;

/// An operation, and a valid input of it.
pub fn requests(known: &Known) -> impl Strategy<Value = (&'static Operation, Structure)> + use<> {
    let (all, known): (Vec<&'static Operation>, Known) = (table().operations().collect(), known.clone());
    select(all).prop_flat_map(move |it| (Just(it), structure(it.input, &known)))
}

/// A structure of the shape `name`.
pub fn structure(name: &'static str, known: &Known) -> BoxedStrategy<Structure> {
    let mut whole = Just(Structure::new()).boxed();
    for member in table().members(name) {
        let given = if member.required { Just(true).boxed() } else { any::<bool>().boxed() };
        let one = (given, value(member.shape, known));
        whole = (whole, one)
            .prop_map(|(structure, (given, value))| if given { structure.with(member.name, value) } else { structure })
            .boxed();
    }
    whole
}

/// A value of a shape, near its bounds.
fn value(name: &'static str, known: &Known) -> BoxedStrategy<Value> {
    let count = |bounds: &Bounds| {
        let min = bounds.min.unwrap_or(0) as usize;
        min..=bounds.max.map_or(min + 3, |max| (max as usize).min(min + 3))
    };
    match &table().shape(name).kind {
        Kind::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Kind::Integer { bounds, .. } => {
            let (min, max) = (bounds.min.unwrap_or(-5), bounds.max.unwrap_or(i32::MAX.into()));
            prop_oneof![4 => min..=max.min(min + 5), 1 => min..=max].prop_map(Value::Integer).boxed()
        }
        Kind::Timestamp => (0..4_000_000_000_000i64).prop_map(Value::Timestamp).boxed(),
        Kind::Text { bounds, pattern } => {
            let made_up = match pattern {
                None => vec(any::<char>(), count(bounds)).prop_map(|it| it.into_iter().collect()).boxed(),
                Some(_) => proptest::string::string_regex(pattern_of(name)).expect("it is one").boxed(),
            };
            let text = match known.get(name) {
                Some(known) => prop_oneof![4 => select(known.clone()), 1 => made_up].boxed(),
                None => made_up,
            };
            text.prop_map(Value::Text).boxed()
        }
        Kind::Enum(words) => select(words.clone()).prop_map(Value::from).boxed(),
        Kind::Blob(_) => vec(any::<u8>(), 0..40).prop_map(|it| Value::Blob(it.into())).boxed(),
        Kind::List(member, bounds) => vec(value(member, known), count(bounds)).prop_map(Value::List).boxed(),
        Kind::Map { key, value: of, bounds } => {
            let text = |value| match value {
                Value::Text(text) => text,
                other => panic!("{other:?} as a key"),
            };
            btree_map(value(key, known).prop_map(text), value(of, known), count(bounds)).prop_map(Value::Map).boxed()
        }
        Kind::Structure(_) => structure(name, known).prop_map(Value::Structure).boxed(),
    }
}

/// What texts of a shape are drawn from: its own pattern allows what nothing here would find.
fn pattern_of(name: &str) -> &'static str {
    match name {
        "StreamARN" | "ResourceARN" => "arn:aws:kinesis:eu-west-1:123456789012:stream/[a-z]{1,8}",
        "ConsumerARN" => "arn:aws:kinesis:eu-west-1:123456789012:stream/[a-z]{1,8}/consumer/[a-z]{1,8}:[0-9]{1,9}",
        "HashKey" | "SequenceNumber" => "[1-9][0-9]{0,38}",
        "StreamId" => "[a-z0-9]{20}-[a-z0-9]{3}",
        _ => "[a-zA-Z0-9_.-]{1,128}",
    }
}

/// Anything where anything else should stand.
pub fn nonsense() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Integer),
        any::<i64>().prop_map(Value::Timestamp),
        "\\PC{0,300}".prop_map(Value::Text),
        "[\\x00-\\x1f]{0,9}".prop_map(Value::Text),
        // Beyond every bound of the table.
        (2_049..5_000usize).prop_map(|length| Value::Text("a".repeat(length))),
        vec(any::<u8>(), 0..9).prop_map(|it| Value::Blob(it.into())),
    ];
    let tree = leaf.prop_recursive(3, 9, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::List),
            btree_map("[A-Za-z]{0,8}", inner, 0..3).prop_map(Value::Map),
        ]
    });
    let deep = (1..200usize, any::<bool>()).prop_map(|(depth, maps)| {
        (0..depth).fold(Value::Integer(0), |inner, _| match maps {
            true => Value::Map(BTreeMap::from([("a".to_string(), inner)])),
            false => Value::List(vec![inner]),
        })
    });
    prop_oneof![8 => tree, 1 => deep]
}

/// Puts `new` in place of the `nth` value of the tree.
pub fn replace(structure: &Structure, nth: &mut usize, new: &Value) -> Structure {
    let members = structure.members().iter().map(|(name, value)| (*name, replaced(value, nth, new)));
    members.fold(Structure::new(), |whole, (name, value)| whole.with(name, value))
}

fn replaced(value: &Value, nth: &mut usize, new: &Value) -> Value {
    if *nth == 0 {
        *nth = usize::MAX;
        return new.clone();
    }
    *nth -= 1;
    match value {
        Value::List(list) => Value::List(list.iter().map(|it| replaced(it, nth, new)).collect()),
        Value::Map(map) => {
            let pairs: BTreeMap<String, Value> =
                map.iter().map(|(key, it)| (key.clone(), replaced(it, nth, new))).collect();
            Value::Map(pairs)
        }
        Value::Structure(it) => Value::Structure(replace(it, nth, new)),
        other => other.clone(),
    }
}

/// What is wrong with a request's tree.
#[derive(Clone, Debug)]
pub enum Twist {
    Nothing,
    /// A member is missing.
    Without(Index),
    /// A member that the model does not have.
    Extra(Value),
    /// Something else stands where a value should.
    Replaced(usize, Value),
}

pub fn twists() -> impl Strategy<Value = Twist> {
    prop_oneof![
        8 => Just(Twist::Nothing),
        1 => any::<Index>().prop_map(Twist::Without),
        1 => nonsense().prop_map(Twist::Extra),
        4 => (0..12usize, nonsense()).prop_map(|(nth, value)| Twist::Replaced(nth, value)),
    ]
}

impl Twist {
    pub fn of(&self, input: Structure) -> Structure {
        match self {
            Twist::Nothing => input,
            Twist::Without(_) if input.members().is_empty() => input,
            Twist::Without(nth) => {
                let mut input = input;
                let name = nth.get(input.members()).0;
                input.take(name);
                input
            }
            Twist::Extra(value) => input.with("Nonsense", value.clone()),
            Twist::Replaced(nth, value) => replace(&input, &mut nth.clone(), value),
        }
    }
}

/// How a tree is written down.
#[derive(Clone, Copy, Debug)]
pub enum Hand {
    /// As our own answers are.
    Plain,
    /// As few clients do, and all may: JSON with every character escaped and spaces between, CBOR of no stated lengths with the
    /// longest heads.
    Wide,
    /// JSON as UTF-16, which it may not be; CBOR behind the tag that says that it is CBOR.
    Foreign,
}

pub fn hands() -> impl Strategy<Value = Hand> {
    prop_oneof![6 => Just(Hand::Plain), 3 => Just(Hand::Wide), 1 => Just(Hand::Foreign)]
}

impl Hand {
    pub fn write(self, form: Form, input: &Structure) -> Vec<u8> {
        match (self, form) {
            (Hand::Plain, _) => write(form, input).to_vec(),
            (Hand::Wide, Form::Json) => {
                let plain = write(form, input);
                // What is too deep to be read is sent as it is.
                serde_json::from_slice(&plain).map_or(plain.to_vec(), |it| wide_json(&it).into_bytes())
            }
            (Hand::Wide, Form::Cbor) => {
                let mut out = Vec::new();
                wide_cbor(&Value::Structure(input.clone()), &mut out);
                out
            }
            (Hand::Foreign, Form::Json) => {
                let text = String::from_utf8(write(form, input).to_vec()).expect("JSON is text");
                text.encode_utf16().flat_map(u16::to_be_bytes).collect()
            }
            (Hand::Foreign, Form::Cbor) => [&[0xd9, 0xd9, 0xf7][..], &write(form, input)].concat(),
        }
    }
}

fn wide_json(it: &serde_json::Value) -> String {
    use serde_json::Value as Json;
    let escaped = |text: &str| text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>();
    match it {
        Json::String(text) => format!(" \"{}\"\n", escaped(text)),
        Json::Array(list) => format!("[{}]\t", list.iter().map(wide_json).collect::<Vec<_>>().join(" ,")),
        Json::Object(map) => {
            let pairs = map.iter().map(|(key, it)| format!(" \"{}\"\r:{}", escaped(key), wide_json(it)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        other => format!(" {other} "),
    }
}

fn wide_cbor(it: &Value, out: &mut Vec<u8>) {
    const END: u8 = 0xff;
    let head = |kind: u8, number: u64, out: &mut Vec<u8>| {
        out.push(kind << 5 | 27);
        out.extend(number.to_be_bytes());
    };
    let number = |number: i64, out: &mut Vec<u8>| match u64::try_from(number) {
        Ok(number) => head(0, number, out),
        Err(_) => head(1, !number as u64, out),
    };
    let text = |text: &str, out: &mut Vec<u8>| {
        out.push(0x7f);
        for part in text.chars().map(String::from) {
            head(3, part.len() as u64, out);
            out.extend(part.as_bytes());
        }
        out.push(END);
    };
    match it {
        Value::Boolean(it) => out.push(if *it { 0xf5 } else { 0xf4 }),
        Value::Integer(it) => number(*it, out),
        Value::Timestamp(ms) => {
            head(6, 1, out);
            number(*ms, out);
        }
        Value::Text(it) => text(it, out),
        Value::Blob(bytes) => {
            out.push(0x5f);
            for part in bytes.chunks(7) {
                head(2, part.len() as u64, out);
                out.extend(part);
            }
            out.push(END);
        }
        Value::List(list) => {
            out.push(0x9f);
            list.iter().for_each(|it| wide_cbor(it, out));
            out.push(END);
        }
        Value::Map(map) => {
            out.push(0xbf);
            for (key, it) in map {
                text(key, out);
                wide_cbor(it, out);
            }
            out.push(END);
        }
        Value::Structure(it) => {
            out.push(0xbf);
            for (name, it) in it.members() {
                text(name, out);
                wide_cbor(it, out);
            }
            out.push(END);
        }
    }
}

/// What happens to bytes on their way.
#[derive(Clone, Debug)]
pub enum Harm {
    Nothing,
    Changed(Index, u8),
    Cut(Index),
    Inserted(Index, Vec<u8>),
    /// The same again.
    Twice,
    /// Something else altogether.
    Others(Vec<u8>),
}

pub fn harms() -> impl Strategy<Value = Harm> {
    prop_oneof![
        24 => Just(Harm::Nothing),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Harm::Changed(at, byte)),
        1 => any::<Index>().prop_map(Harm::Cut),
        1 => (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Harm::Inserted(at, bytes)),
        1 => Just(Harm::Twice),
        1 => vec(any::<u8>(), 0..200).prop_map(Harm::Others),
    ]
}

impl Harm {
    pub fn to(&self, mut body: Vec<u8>) -> Vec<u8> {
        let within = |at: &Index, body: &[u8]| at.index(body.len() + 1);
        match self {
            Harm::Nothing => {}
            Harm::Changed(at, byte) => {
                let at = within(at, &body);
                if let Some(it) = body.get_mut(at) {
                    *it = *byte;
                }
            }
            Harm::Cut(at) => body.truncate(within(at, &body)),
            Harm::Inserted(at, bytes) => {
                let at = within(at, &body);
                body.splice(at..at, bytes.iter().copied());
            }
            Harm::Twice => body.extend_from_within(..),
            Harm::Others(bytes) => body.clone_from(bytes),
        }
        body
    }
}

/// An answer's body as its operation's output, if it is one: every member of the model's, all that must be there, each within
/// its constraints.
pub fn output(form: Form, shape: &str, body: &[u8]) -> Result<Structure, String> {
    let raw = tree(form, body)?;
    known_members(shape, &raw, shape)?;
    let output = decode::structure(form, shape, raw).map_err(|fault| format!("{shape}: {fault:?}"))?;
    match validate::check(shape, &output) {
        Err(fault) if !fault.message.as_deref().is_some_and(|it| it.split("; ").all(is_the_services_own)) => {
            Err(format!("{shape}: {fault:?}"))
        }
        _ => Ok(output),
    }
}

/// What the service itself answers, against its model: no metric where none is on, and no failed record.
fn is_the_services_own(error: &str) -> bool {
    let empty = |value: &str, member: &str| error.contains(value) && error.contains(member);
    empty("Value '[]' at", "hardLevelMetrics'") || empty("Value '0' at", "'failedRecordCount'")
}

/// The kind and the text of a fault's body.
pub fn fault(form: Form, body: &[u8]) -> Result<(String, Option<String>), String> {
    let Raw::Map(members) = tree(form, body)? else { return Err("a fault is no map".into()) };
    let (mut kind, mut text) = (None, None);
    for (name, value) in members {
        match (name.as_str(), value) {
            ("__type", Raw::Text(it)) => kind = Some(it),
            ("message" | "Message", Raw::Text(it)) => text = Some(it),
            (name, value) => return Err(format!("a fault has {name} {value:?}")),
        }
    }
    Ok((kind.ok_or("a fault has no __type")?, text))
}

fn tree(form: Form, body: &[u8]) -> Result<Raw, String> {
    let raw = match form {
        Form::Json => raw::of_json(body),
        Form::Cbor => raw::of_cbor(body),
    };
    raw.ok_or_else(|| format!("not {form:?}: {}", String::from_utf8_lossy(body)))
}

fn known_members(shape: &str, raw: &Raw, path: &str) -> Result<(), String> {
    match (&table().shape(shape).kind, raw) {
        (Kind::Structure(members), Raw::Map(found)) => found.iter().try_for_each(|(name, it)| {
            let member = members.iter().find(|member| member.name == name);
            let member = member.ok_or_else(|| format!("{path} has a member {name}, which the model has not"))?;
            known_members(member.shape, it, &format!("{path}.{name}"))
        }),
        (Kind::List(member, _), Raw::List(list)) => list.iter().try_for_each(|it| known_members(member, it, path)),
        (Kind::Map { value, .. }, Raw::Map(map)) => map.iter().try_for_each(|(_, it)| known_members(value, it, path)),
        _ => Ok(()),
    }
}

/// Whether a fault can be read back in either form, and is one that reading a request may end in.
pub fn assert_well_formed(refused: &Fault) {
    use super::fault::FaultKind;
    assert!(matches!(refused.kind, FaultKind::Serialization | FaultKind::Validation), "{refused:?}");
    let message = refused.message.clone();
    assert!(
        message.as_ref().is_none_or(|it| it.len() < 64 * 1024),
        "a message of {:?} bytes",
        message.map(|it| it.len())
    );
    for form in [Form::Json, Form::Cbor] {
        let read = fault(form, &write(form, &refused.body()));
        assert_eq!(read, Ok((refused.kind.name().to_string(), refused.message.clone())));
    }
}

//! Bytes → a tree, before anybody asks what was meant.
//!
//! Invariant: a hostile body costs no more than its own length: depth is bounded by both parsers, and neither believes
//! a length that the bytes do not bear out.

use ciborium::Value as Cbor;
use serde_json::Value as Json;

/// No input of the API is deeper than five; CBOR's parser recurses.
const DEPTH: usize = 16;

/// CBOR's tag for a point in time.
const TIME: u64 = 1;

/// What stood there.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Nothing.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i128),
    /// Another number.
    Float(f64),
    /// A text.
    Text(String),
    /// CBOR's bytes.
    Bytes(Vec<u8>),
    /// CBOR's tagged time, in milliseconds.
    Time(i64),
    /// Several.
    List(Vec<Raw>),
    /// Named ones, in the order they came.
    Map(Vec<(String, Raw)>),
}

/// `None`: it is not JSON.
pub fn of_json(body: &[u8]) -> Option<Raw> {
    serde_json::from_slice(body).ok().map(json)
}

fn json(it: Json) -> Raw {
    match it {
        Json::Null => Raw::Null,
        Json::Bool(it) => Raw::Boolean(it),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Raw::Integer(number.into()),
            (None, Some(number)) => Raw::Integer(number.into()),
            (None, None) => Raw::Float(number.as_f64().unwrap_or(f64::MAX)),
        },
        Json::String(text) => Raw::Text(text),
        Json::Array(list) => Raw::List(list.into_iter().map(json).collect()),
        Json::Object(map) => Raw::Map(map.into_iter().map(|(key, value)| (key, json(value))).collect()),
    }
}

/// `None`: it is not CBOR, or has what no request has: other tags than times, maps with other keys than texts, bytes
/// after its end.
pub fn of_cbor(body: &[u8]) -> Option<Raw> {
    let mut rest = body;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH).ok()?;
    if rest.is_empty() { cbor(value) } else { None }
}

fn cbor(it: Cbor) -> Option<Raw> {
    Some(match it {
        Cbor::Null => Raw::Null,
        Cbor::Bool(it) => Raw::Boolean(it),
        Cbor::Integer(number) => Raw::Integer(number.into()),
        Cbor::Float(number) => Raw::Float(number),
        Cbor::Text(text) => Raw::Text(text),
        Cbor::Bytes(bytes) => Raw::Bytes(bytes),
        // The service's own dialect: milliseconds where they are whole. Others mean seconds, as CBOR has it.
        Cbor::Tag(TIME, inner) => match *inner {
            Cbor::Integer(ms) => Raw::Time(i64::try_from(i128::from(ms)).ok()?),
            Cbor::Float(seconds) if seconds.is_finite() => Raw::Time((seconds * 1000.0).round() as i64),
            _ => return None,
        },
        Cbor::Array(list) => Raw::List(list.into_iter().map(cbor).collect::<Option<_>>()?),
        Cbor::Map(map) => Raw::Map(map.into_iter().map(pair).collect::<Option<_>>()?),
        _ => return None,
    })
}

fn pair((key, value): (Cbor, Cbor)) -> Option<(String, Raw)> {
    match key {
        Cbor::Text(key) => Some((key, cbor(value)?)),
        _ => None,
    }
}

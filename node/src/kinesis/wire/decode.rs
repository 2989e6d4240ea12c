//! A raw tree → a value of a shape, or a SerializationException in the service's words.
//!
//! Invariant: members that the shape does not name, and those that are null, are left out; numbers are cut to the
//! width of their shape, as the service does. Constraints are for `validate.rs`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::collections::BTreeMap;

use super::Form;
use super::fault::Fault;
use super::raw::Raw;
use super::table::{Kind, table};
use super::value::{Structure, Value};

/// Texts of a caller's in a message are cut to this.
const QUOTED: usize = 256;

/// A structure of the shape `name`.
pub fn structure(form: Form, name: &str, raw: Raw) -> Result<Structure, Fault> {
    let Raw::Map(found) = raw else { return Err(Fault::unreadable()) };
    members(form, name, found)
}

fn members(form: Form, name: &str, found: Vec<(String, Raw)>) -> Result<Structure, Fault> {
    // Of a name that stands twice, the last one counts.
    let mut found: BTreeMap<String, Raw> = found.into_iter().collect();
    let mut structure = Structure::new();
    for member in table().members(name) {
        match found.remove(member.name) {
            None | Some(Raw::Null) => {}
            Some(raw) => structure = structure.with(member.name, value(form, member.shape, raw)?),
        }
    }
    Ok(structure)
}

fn value(form: Form, name: &str, raw: Raw) -> Result<Value, Fault> {
    Ok(match &table().shape(name).kind {
        Kind::Boolean => match raw {
            Raw::Boolean(it) => Value::Boolean(it),
            other => return Err(not_a(&other, "an Boolean")),
        },
        Kind::Integer { long, .. } => match raw {
            Raw::Integer(number) => Value::Integer(cut(number, *long)),
            Raw::Float(number) => Value::Integer(cut(number.floor() as i128, *long)),
            other => return Err(not_a(&other, if *long { "an Long" } else { "an Integer" })),
        },
        Kind::Timestamp => Value::Timestamp(timestamp(form, raw)?),
        Kind::Text { .. } | Kind::Enum(_) => match raw {
            Raw::Text(text) => Value::Text(text),
            other => return Err(not_a(&other, "an String")),
        },
        Kind::Blob(_) => match (form, raw) {
            (Form::Json, Raw::Text(text)) => Value::Blob(Bytes::from(base64(&text)?)),
            (Form::Cbor, Raw::Bytes(bytes)) => Value::Blob(Bytes::from(bytes)),
            (_, other) => return Err(not_a(&other, "a Blob")),
        },
        Kind::List(member, _) => match raw {
            // A null in a list has no place in any of the API's.
            Raw::List(list) => {
                let present = list.into_iter().filter(|it| *it != Raw::Null);
                Value::List(present.map(|it| value(form, member, it)).collect::<Result<_, _>>()?)
            }
            Raw::Map(_) => return Err(Fault::serialization("Start of structure or map found where not expected.")),
            _ => return Err(Fault::serialization("Expected list or null")),
        },
        Kind::Map { value: shape, .. } => match raw {
            Raw::Map(map) => {
                let present = map.into_iter().filter(|(_, it)| *it != Raw::Null);
                let pairs = present.map(|(key, it)| Ok((key, value(form, shape, it)?)));
                Value::Map(pairs.collect::<Result<_, Fault>>()?)
            }
            Raw::List(_) => return Err(Fault::serialization("Start of list found where not expected")),
            _ => return Err(Fault::serialization("Expected map or null")),
        },
        Kind::Structure(_) => match raw {
            Raw::Map(found) => Value::Structure(members(form, name, found)?),
            Raw::List(_) => return Err(Fault::serialization("Start of list found where not expected")),
            _ => return Err(Fault::serialization("Expected null")),
        },
    })
}

/// Seconds in JSON, milliseconds in CBOR.
fn timestamp(form: Form, raw: Raw) -> Result<i64, Fault> {
    match (form, raw) {
        (_, Raw::Time(ms)) => Ok(ms),
        (Form::Cbor, Raw::Integer(ms)) => Ok(cut(ms, true)),
        (Form::Json, Raw::Integer(seconds)) => Ok(cut(seconds.saturating_mul(1000), true)),
        (_, Raw::Float(seconds)) => Ok((seconds * 1000.0).round() as i64),
        (_, other) => Err(not_a(&other, "milliseconds since epoch")),
    }
}

fn cut(number: i128, long: bool) -> i64 {
    let (least, most) = if long { (i64::MIN, i64::MAX) } else { (i32::MIN.into(), i32::MAX.into()) };
    number.clamp(least.into(), most.into()) as i64
}

fn base64(text: &str) -> Result<Vec<u8>, Fault> {
    let refused =
        |why: String| Fault::serialization(&format!("'{}' can not be converted to a Blob: {why}", quoted(text)));
    if !text.len().is_multiple_of(4) {
        let why = "Base64 encoded length is expected a multiple of 4 bytes but found";
        return Err(refused(format!("{why}: {}", text.len())));
    }
    let padded = text.trim_end_matches('=').len().max(text.len().saturating_sub(2));
    let digit = |b: char| b.is_ascii_alphanumeric() || matches!(b, '+' | '/');
    if let Some(wrong) = text[..padded.min(text.len())].chars().find(|it| !digit(*it)) {
        return Err(refused(format!("Invalid Base64 character: '{wrong}'")));
    }
    // The service's own spelling.
    STANDARD.decode(text).map_err(|_| refused("Invalid last non-pad Base64 character dectected".into()))
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

/// What the service says of a value of another kind than its member's.
fn not_a(found: &Raw, wanted: &str) -> Fault {
    let class = match found {
        Raw::List(_) => return Fault::serialization("Start of list found where not expected"),
        Raw::Map(_) => return Fault::serialization("Start of structure or map found where not expected."),
        Raw::Text(text) if wanted == "an Boolean" => {
            return Fault::serialization(&format!(
                "'{}' can not be converted to {wanted}",
                quoted(text).to_uppercase()
            ));
        }
        Raw::Boolean(_) => "java.lang.Boolean",
        Raw::Text(_) => "java.lang.String",
        Raw::Bytes(_) => "java.nio.HeapByteBuffer",
        Raw::Time(_) => "java.util.Date",
        Raw::Null | Raw::Integer(_) | Raw::Float(_) => "com.amazon.coral.value.json.numbers.TruncatingBigNumber",
    };
    Fault::serialization(&format!("class {class} can not be converted to {wanted}"))
}

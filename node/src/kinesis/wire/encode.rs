//! A value → JSON or CBOR.
//!
//! Invariant: times are seconds in JSON, and in CBOR tag 1 with whole milliseconds: SDKs read nothing else.

use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ciborium::tag::Required;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::Form;
use super::value::{Structure, Value};

/// A structure's bytes.
pub fn structure(form: Form, it: &Structure) -> Bytes {
    let mut out = Vec::new();
    match form {
        Form::Json => serde_json::to_writer(&mut out, &Members(form, it)).expect("a tree of values can be written"),
        Form::Cbor => {
            ciborium::into_writer(&Members(form, it), &mut out).expect("a tree of values can be written");
        }
    }
    Bytes::from(out)
}

struct Members<'a>(Form, &'a Structure);
struct Written<'a>(Form, &'a Value);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Members(form, structure) = *self;
        let mut map = to.serialize_map(Some(structure.members().len()))?;
        for (name, value) in structure.members() {
            map.serialize_entry(name, &Written(form, value))?;
        }
        map.end()
    }
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Written(form, value) = *self;
        match (value, form) {
            (Value::Boolean(it), _) => to.serialize_bool(*it),
            (Value::Integer(number), _) => to.serialize_i64(*number),
            (Value::Timestamp(ms), Form::Json) => to.serialize_f64(*ms as f64 / 1000.0),
            (Value::Timestamp(ms), Form::Cbor) => Required::<i64, 1>(*ms).serialize(to),
            (Value::Text(text), _) => to.serialize_str(text),
            (Value::Blob(bytes), Form::Json) => to.collect_str(&base64::display::Base64Display::new(bytes, &STANDARD)),
            (Value::Blob(bytes), Form::Cbor) => to.serialize_bytes(bytes),
            (Value::List(list), _) => {
                let mut sequence = to.serialize_seq(Some(list.len()))?;
                for it in list {
                    sequence.serialize_element(&Written(form, it))?;
                }
                sequence.end()
            }
            (Value::Map(map), _) => to.collect_map(map.iter().map(|(key, it)| (key, Written(form, it)))),
            (Value::Structure(it), _) => Members(form, it).serialize(to),
        }
    }
}

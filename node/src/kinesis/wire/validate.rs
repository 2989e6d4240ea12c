//! Whether an input keeps its constraints: all that is wrong, in the service's own words.
//!
//! ```text
//!  2 validation errors detected: Value '' at 'streamName' failed to satisfy constraint: Member must …; Value …
//! ```
//! Clients and tests compare these texts. Invariant: they are made from `api.table` alone.

use super::fault::Fault;
use super::table::{Bounds, Kind, table};
use super::value::{Structure, Value};

/// The service says no more at once.
const ERRORS_MAX: usize = 10;

/// A value in a message is cut to so many characters: a list may have megabytes.
const VALUE_CHARS_MAX: usize = 1024;

/// Checks a structure of the shape `name`.
pub fn check(name: &str, input: &Structure) -> Result<(), Fault> {
    let mut errors = Vec::new();
    members(name, input, "", &mut errors);
    match errors.len() {
        0 => Ok(()),
        count => {
            let noun = if count == 1 { "error" } else { "errors" };
            Err(Fault::validation(&format!("{count} validation {noun} detected: {}", errors.join("; "))))
        }
    }
}

/// As [`check`] says it of records, for limits that are a stream's own.
pub fn failed_unseen(path: &str, constraint: &str) -> Fault {
    Fault::validation(&format!("1 validation error detected: {}", text(&Shown::Unseen, path, constraint)))
}

/// How a value is said.
enum Shown {
    Absent,
    /// Records' data, and what it is in: the service once wrote `java.nio.HeapByteBuffer[…]` and now writes nothing.
    Unseen,
    As(String),
}

fn text(value: &Shown, path: &str, constraint: &str) -> String {
    let value = match value {
        Shown::Absent => " null".to_string(),
        Shown::Unseen => String::new(),
        Shown::As(text) => format!(" '{text}'"),
    };
    format!("Value{value} at '{path}' failed to satisfy constraint: {constraint}")
}

fn members(name: &str, structure: &Structure, parent: &str, errors: &mut Vec<String>) {
    for member in table().members(name) {
        let path = format!("{parent}{}", lower_first(member.name));
        match structure.get(member.name) {
            None if member.required => note(errors, text(&Shown::Absent, &path, "Member must not be null")),
            None => {}
            Some(found) => value(member.shape, found, &path, errors),
        }
    }
}

fn note(errors: &mut Vec<String>, error: String) {
    if errors.len() < ERRORS_MAX {
        errors.push(error);
    }
}

fn value(name: &str, found: &Value, path: &str, errors: &mut Vec<String>) {
    let broken = constraints(name, found);
    if !broken.is_empty() {
        let shown = shown(name, found);
        broken.into_iter().for_each(|it| note(errors, text(&shown, path, &it)));
    }
    match (&table().shape(name).kind, found) {
        (Kind::Structure(_), Value::Structure(it)) => members(name, it, &format!("{path}."), errors),
        (Kind::List(member, _), Value::List(list)) if is_structure(member) => {
            for (nth, it) in list.iter().enumerate() {
                value(member, it, &format!("{path}.{}.member", nth + 1), errors);
                if errors.len() >= ERRORS_MAX {
                    return;
                }
            }
        }
        _ => {}
    }
}

fn is_structure(name: &str) -> bool {
    matches!(table().shape(name).kind, Kind::Structure(_))
}

/// What a value breaks, its members' members aside.
fn constraints(name: &str, found: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    match (&table().shape(name).kind, found) {
        (Kind::Integer { bounds, .. }, Value::Integer(number)) => within(bounds, *number, "value", &mut broken),
        (Kind::Text { bounds, pattern }, Value::Text(text)) => {
            if let Some((said, compiled)) = pattern
                && !compiled.is_match(text)
            {
                broken.push(format!("Member must satisfy regular expression pattern: {said}"));
            }
            within(bounds, text.chars().count() as i64, "length", &mut broken);
        }
        (Kind::Enum(words), Value::Text(text)) if !words.contains(&text.as_str()) => {
            broken.push(format!("Member must satisfy enum value set: [{}]", words.join(", ")));
        }
        (Kind::Blob(bounds), Value::Blob(bytes)) => within(bounds, bytes.len() as i64, "length", &mut broken),
        (Kind::List(member, bounds), Value::List(list)) => {
            within(bounds, list.len() as i64, "length", &mut broken);
            if !is_structure(member) && list.iter().any(|it| !constraints(member, it).is_empty()) {
                broken.push(format!("Member must satisfy constraint: [{}]", all_of(member)));
            }
        }
        (Kind::Map { key, value, bounds }, Value::Map(map)) => {
            within(bounds, map.len() as i64, "length", &mut broken);
            if map.keys().any(|it| !constraints(key, &Value::Text(it.clone())).is_empty()) {
                broken.push(format!("Map keys must satisfy constraint: [{}]", all_of(key)));
            }
            if map.values().any(|it| !constraints(value, it).is_empty()) {
                broken.push(format!("Map value must satisfy constraint: [{}]", all_of(value)));
            }
        }
        _ => {}
    }
    broken
}

fn within(bounds: &Bounds, number: i64, noun: &str, broken: &mut Vec<String>) {
    if let Some(min) = bounds.min.filter(|min| number < *min) {
        broken.push(format!("Member must have {noun} greater than or equal to {min}"));
    }
    if let Some(max) = bounds.max.filter(|max| number > *max) {
        broken.push(format!("Member must have {noun} less than or equal to {max}"));
    }
}

/// Every constraint of a member of a list or map, as the service lists them: the most before the least.
fn all_of(name: &str) -> String {
    let mut all = Vec::new();
    match &table().shape(name).kind {
        Kind::Enum(words) => all.push(format!("Member must satisfy enum value set: [{}]", words.join(", "))),
        Kind::Text { bounds, pattern } => {
            all.extend(bounds.max.map(|max| format!("Member must have length less than or equal to {max}")));
            all.extend(bounds.min.map(|min| format!("Member must have length greater than or equal to {min}")));
            all.extend(
                pattern.as_ref().map(|(said, _)| format!("Member must satisfy regular expression pattern: {said}")),
            );
        }
        _ => {}
    }
    all.join(", ")
}

/// A value as the service shows it.
fn shown(name: &str, found: &Value) -> Shown {
    if has_data(name) {
        return Shown::Unseen;
    }
    let mut out = String::new();
    show(name, found, &mut out);
    match out.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => Shown::As(format!("{}…", &out[..at])),
        None => Shown::As(out),
    }
}

/// Whether a record's data is in it.
fn has_data(name: &str) -> bool {
    match &table().shape(name).kind {
        Kind::Blob(_) => true,
        Kind::List(member, _) => has_data(member),
        Kind::Structure(_) => table().members(name).iter().any(|it| has_data(it.shape)),
        _ => false,
    }
}

fn show(name: &str, found: &Value, out: &mut String) {
    // Far more than will be shown: the rest need not be written.
    if out.len() > 4 * VALUE_CHARS_MAX {
        return;
    }
    match found {
        Value::Text(text) => out.push_str(text),
        Value::Integer(number) | Value::Timestamp(number) => out.push_str(&number.to_string()),
        Value::Boolean(it) => out.push_str(&it.to_string()),
        // Never shown: see `has_data`.
        Value::Blob(_) => {}
        Value::Structure(_) => out.push_str(&format!("com.amazonaws.kinesis.v20131202.{name}")),
        Value::List(list) => {
            let Kind::List(member, _) = table().shape(name).kind else { return };
            out.push('[');
            for (nth, it) in list.iter().enumerate() {
                out.push_str(if nth > 0 { ", " } else { "" });
                show(member, it, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            let Kind::Map { value, .. } = table().shape(name).kind else { return };
            out.push('{');
            for (nth, (key, it)) in map.iter().enumerate() {
                out.push_str(if nth > 0 { ", " } else { "" });
                out.push_str(key);
                out.push('=');
                show(value, it, out);
            }
            out.push('}');
        }
    }
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or(String::new(), |first| first.to_ascii_lowercase().to_string() + chars.as_str())
}

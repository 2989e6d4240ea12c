//! A request or an answer as a tree: the one domain type of the wire.
//!
//! Invariant: a [`Structure`] that came from a request has the members its shape names and no others, each of its
//! member's shape; so the getters below need not ask what kind of value they find.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A value of any shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Milliseconds since the Unix epoch.
    Timestamp(i64),
    /// A text, or one of an enum's words.
    Text(String),
    /// Bytes.
    Blob(Bytes),
    /// Values of one shape.
    List(Vec<Value>),
    /// Texts to values.
    Map(BTreeMap<String, Value>),
    /// Named members.
    Structure(Structure),
}

/// Named members, in the order in which they were put in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Structure(Vec<(&'static str, Value)>);

impl Structure {
    /// None yet.
    pub fn new() -> Structure {
        Structure::default()
    }

    /// With one more member.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Structure {
        self.0.push((name, value.into()));
        self
    }

    /// With one more member, if there is a value.
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Structure {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The members.
    pub fn members(&self) -> &[(&'static str, Value)] {
        &self.0
    }

    /// A member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// A member, taken out.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A text that validation has made sure of.
    pub fn needed(&self, name: &str) -> &str {
        self.text(name).unwrap_or_else(|| panic!("{name} was validated to be there"))
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether a boolean is there and true.
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Boolean(true)))
    }

    /// A time in milliseconds since the Unix epoch.
    pub fn timestamp(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Value::Timestamp(ms) => Some(*ms),
            _ => None,
        }
    }

    /// A structure.
    pub fn structure(&self, name: &str) -> Option<&Structure> {
        match self.get(name)? {
            Value::Structure(it) => Some(it),
            _ => None,
        }
    }

    /// A list's texts; none if it is absent.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Value::List(list)) => list.iter().filter_map(Value::as_text).map(str::to_string).collect(),
            _ => Vec::new(),
        }
    }

    /// A map of texts to texts; empty if it is absent.
    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        match self.get(name) {
            Some(Value::Map(map)) => {
                map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_text()?.to_string()))).collect()
            }
            _ => BTreeMap::new(),
        }
    }
}

impl Value {
    fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(it: bool) -> Value {
        Value::Boolean(it)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Integer(number.into())
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Value {
        Value::Blob(bytes)
    }
}

impl From<Structure> for Value {
    fn from(it: Structure) -> Value {
        Value::Structure(it)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(list: Vec<T>) -> Value {
        Value::List(list.into_iter().map(Into::into).collect())
    }
}

/// A time given in milliseconds.
pub fn time(ms: u64) -> Value {
    Value::Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))
}

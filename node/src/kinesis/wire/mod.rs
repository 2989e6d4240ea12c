//! The Kinesis API's wire, pure: bytes → a checked value, a value → bytes.
//!
//! ```text
//!  JSON ─┐                   ┌ shape by shape ┐
//!        ├─▶ Raw ─▶ decode ─▶│ Value          │─▶ validate ─▶ an operation ─▶ Value ─▶ encode ─▶ JSON or CBOR
//!  CBOR ─┘                   └ api.table      ┘
//! ```
//! Invariant: whatever the bytes are, they become a value that fits the operation's input in `api.table`, or a fault
//! in the service's own words; nothing here panics on a caller's bytes.
//!
//! Not here: HTTP, signatures, and what an operation does.

mod decode;
mod encode;
pub mod fault;
#[cfg(test)]
pub mod model;
mod raw;
pub mod table;
#[cfg(test)]
mod tests;
pub mod validate;
pub mod value;

use bytes::Bytes;

use fault::Fault;
use table::Operation;
use value::Structure;

/// How a body is written. Answers come in the form of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/x-amz-json-1.1`
    Json,
    /// `application/x-amz-cbor-1.1`
    Cbor,
}

/// The two content types.
pub const JSON: &str = "application/x-amz-json-1.1";
pub const CBOR: &str = "application/x-amz-cbor-1.1";

impl Form {
    /// By a content type, parameters such as a charset aside.
    pub fn of(content_type: &str) -> Option<Form> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            JSON => Some(Form::Json),
            CBOR => Some(Form::Cbor),
            _ => None,
        }
    }

    /// The header's value.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::Json => JSON,
            Form::Cbor => CBOR,
        }
    }
}

/// Reads and checks an operation's input.
pub fn read(form: Form, operation: &Operation, body: &[u8]) -> Result<Structure, Fault> {
    let raw = match form {
        Form::Json => raw::of_json(body),
        Form::Cbor => raw::of_cbor(body),
    };
    let input = decode::structure(form, operation.input, raw.ok_or_else(Fault::unreadable)?)?;
    validate::check(operation.input, &input)?;
    Ok(input)
}

/// Writes an operation's output; nothing at all where it has none.
pub fn write(form: Form, output: &Structure) -> Bytes {
    encode::structure(form, output)
}

//! A record as `get` and `tail` show it.
//!
//! Invariant: what is printed for people can't drive their terminal: control characters in keys and
//! data are escaped. JSON carries every byte: as text where the data is UTF-8, else as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use braid_client::SequenceNumber;
use serde_json::{Value, json};

use crate::moment;

/// Bytes of data that are not text, shown before they are cut.
const BINARY_SHOWN: usize = 32;

/// A record, wherever it was read.
pub struct Shown<'a> {
    pub shard: &'a str,
    pub number: SequenceNumber,
    pub arrival_ms: u64,
    pub key: &'a str,
    pub data: &'a [u8],
}

impl Shown<'_> {
    /// `2026-01-31T12:00:00.000Z  0:41  key  data`; shard's index and offset in it.
    pub fn line(&self, with_number: bool) -> String {
        let place = match with_number {
            true => self.number.to_string(),
            false => format!("{}:{}", self.number.shard_index, self.number.offset.0),
        };
        format!("{}  {place}  {}  {}", moment::utc(self.arrival_ms), escaped(self.key), self.data_text())
    }

    fn data_text(&self) -> String {
        if let Ok(text) = std::str::from_utf8(self.data) {
            return escaped(text);
        }
        let hex: String = self.data.iter().take(BINARY_SHOWN).map(|byte| format!("{byte:02x}")).collect();
        let more = if self.data.len() > BINARY_SHOWN { "…" } else { "" };
        format!("<{} bytes: {hex}{more}>", self.data.len())
    }

    pub fn json(&self) -> Value {
        let mut value = json!({
            "shard": self.shard,
            "sequence_number": self.number.to_string(),
            "offset": self.number.offset.0,
            "arrival_ms": self.arrival_ms,
            "partition_key": self.key,
        });
        match std::str::from_utf8(self.data) {
            Ok(text) => value["data"] = json!(text),
            Err(_) => value["data_base64"] = json!(STANDARD.encode(self.data)),
        }
        value
    }
}

/// Without control characters.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && c != '\t' {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_stream::Offset;

    fn shown(data: &[u8]) -> Shown<'_> {
        let number = SequenceNumber { created_s: 1, shard_index: 2, offset: Offset(41), arrival_s: 3 };
        Shown { shard: "shardId-000000000002", number, arrival_ms: 0, key: "k\x1b[2J", data }
    }

    #[test]
    fn terminals_are_safe() {
        assert_eq!(shown(b"a\nb").line(false), "1970-01-01T00:00:00.000Z  2:41  k\\u{1b}[2J  a\\nb");
        assert!(shown(&[0xff, 0]).line(false).ends_with("<2 bytes: ff00>"));
    }

    #[test]
    fn json_keeps_every_byte() {
        assert_eq!(shown("ü\n".as_bytes()).json()["data"], "ü\n");
        assert_eq!(shown(&[0xff, 0]).json()["data_base64"], "/wA=");
    }
}

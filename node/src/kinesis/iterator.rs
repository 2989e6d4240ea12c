//! Braid's iterators in the clothes of the service's.
//!
//! ```text
//! 00 00 00 00 00 00 00 01 | Braid's token, 56 characters | zeros to 152 bytes      in base64: 204 characters
//! ```
//! Clients look at a token's first bytes and its length: 152 and a multiple of 16. Invariant: a token has one text, which
//! may come in quotes: shell scripts pass on what they were given, and the service lets them.
//!
//! Not here: what a token says, and whether it is genuine (`braid_stream::iterator`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const PREFIX: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 1];
const BYTES: usize = 152;

/// Braid's token → the service's.
pub fn dress(token: &str) -> String {
    let mut bytes = PREFIX.to_vec();
    bytes.extend_from_slice(token.as_bytes());
    assert!(bytes.len() < BYTES, "a token of {} bytes does not fit", token.len());
    bytes.resize(BYTES, 0);
    STANDARD.encode(bytes)
}

/// The service's token → Braid's; `None` if it is not one of [`dress`]'s.
pub fn undress(text: &str) -> Option<String> {
    let text = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(text);
    let bytes = STANDARD.decode(text).ok()?;
    let rest = bytes.strip_prefix(&PREFIX).filter(|_| bytes.len() == BYTES)?;
    let end = rest.iter().rposition(|byte| *byte != 0)? + 1;
    String::from_utf8(rest[..end].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_stream::ids::{Offset, ShardId, StreamId};
    use braid_stream::iterator::{IteratorToken, Position};

    #[test]
    fn a_token_looks_like_the_services() {
        let shard = ShardId { stream: StreamId(7), index: 3 };
        let token = IteratorToken { shard, position: Position::Offset(Offset(9)), issued_ms: 1 }.encode(&[1; 32]);
        let text = dress(&token);
        assert_eq!(undress(&text).as_ref(), Some(&token));
        assert_eq!(undress(&format!("\"{text}\"")), Some(token));
        let bytes = STANDARD.decode(&text).unwrap();
        assert_eq!((&bytes[..8], (bytes.len() - 152) % 16), (&PREFIX[..], 0));
        assert!(text.len() <= 512);
    }

    #[test]
    fn anything_else_is_none() {
        let text = dress("abc");
        for bad in
            ["", "AAAA", "ä", "\"", &text[1..], &text[..200], &format!("{text}AAAA"), &text.replacen('A', "B", 1)]
        {
            assert_eq!(undress(bad), None, "{bad:?}");
        }
        assert_eq!(undress(&dress("")), None);
    }
}

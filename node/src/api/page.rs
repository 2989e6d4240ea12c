//! Page tokens: where a listing goes on.
//!
//! ```text
//! version u8 = 1 | mac 16 | postcard (issued_ms, page)      as lower-case hexadecimal
//! ```
//! Invariant: a token that decodes was made by this cluster less than five minutes ago. The key
//! also signs iterators; the mac's prefix keeps the two apart.

use std::fmt;

use braid_stream::catalog::TokenKey;
use braid_stream::limits::ITERATOR_MS_MAX;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const VERSION: u8 = 1;
const MAC: usize = 16;

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Page {
    /// Streams whose names follow this one.
    Streams {
        /// The last name of the page before.
        after: String,
    },
    /// A stream's shards.
    Shards {
        /// The stream's id: the token dies with it.
        stream: u32,
        /// The last shard index of the page before.
        after: u32,
        /// The listing's filter: its type as on the wire.
        filter: i32,
        /// The filter's shard index, if it has one.
        filter_shard: u32,
        /// The filter's time, if it has one.
        filter_ms: u64,
    },
    /// A stream's registered consumers whose names follow this one.
    Consumers {
        /// The stream's name.
        stream: String,
        /// The last name of the page before.
        after: String,
    },
}

/// Why a page token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageTokenError {
    /// Older than five minutes.
    Expired {
        /// Its age.
        age_ms: u64,
    },
    /// Not made by this cluster, or for another call.
    Invalid,
}

impl fmt::Display for PageTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageTokenError::Expired { age_ms } => {
                write!(f, "page token expired: it is {age_ms} ms old, at most {ITERATOR_MS_MAX} are allowed")
            }
            PageTokenError::Invalid => write!(f, "page token was not given out by this cluster for this call"),
        }
    }
}

impl std::error::Error for PageTokenError {}

impl Page {
    /// The token, opaque to clients.
    pub fn encode(&self, key: &TokenKey, now_ms: u64) -> String {
        let body = postcard::to_stdvec(&(now_ms, self)).expect("encoding into memory cannot fail");
        let mac = mac(key, &body).finalize().into_bytes();
        let bytes = [VERSION].iter().chain(&mac[..MAC]).chain(&body);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads a token back.
    pub fn decode(text: &str, key: &TokenKey, now_ms: u64) -> Result<Page, PageTokenError> {
        let bytes = from_hex(text).ok_or(PageTokenError::Invalid)?;
        let Some((&VERSION, rest)) = bytes.split_first() else { return Err(PageTokenError::Invalid) };
        let Some((given, body)) = rest.split_at_checked(MAC) else { return Err(PageTokenError::Invalid) };
        mac(key, body).verify_truncated_left(given).map_err(|_| PageTokenError::Invalid)?;
        let (issued_ms, page): (u64, Page) = postcard::from_bytes(body).map_err(|_| PageTokenError::Invalid)?;
        let age_ms = now_ms.saturating_sub(issued_ms);
        match age_ms > ITERATOR_MS_MAX {
            true => Err(PageTokenError::Expired { age_ms }),
            false => Ok(page),
        }
    }
}

fn mac(key: &TokenKey, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("hmac takes keys of any length");
    mac.update(b"braid page token\0");
    mac.update(body);
    mac
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: TokenKey = TokenKey([7; 32]);

    #[test]
    fn comes_back_until_it_is_five_minutes_old() {
        let page = Page::Shards { stream: 1, after: 999, filter: 4, filter_shard: 0, filter_ms: 0 };
        let text = page.encode(&KEY, 1_000);
        assert_eq!(Page::decode(&text, &KEY, 301_000), Ok(page));
        assert_eq!(Page::decode(&text, &KEY, 301_001), Err(PageTokenError::Expired { age_ms: 300_001 }));
    }

    #[test]
    fn anything_else_is_refused() {
        let text = Page::Streams { after: "a".into() }.encode(&KEY, 0);
        for n in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[n] = if changed[n] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(Page::decode(&changed, &KEY, 0), Err(PageTokenError::Invalid), "{n}");
            assert_eq!(Page::decode(&text[..n], &KEY, 0), Err(PageTokenError::Invalid), "{n}");
        }
        assert_eq!(Page::decode(&text, &TokenKey([8; 32]), 0), Err(PageTokenError::Invalid));
        assert_eq!(Page::decode("ÄÖ", &KEY, 0), Err(PageTokenError::Invalid));
    }
}

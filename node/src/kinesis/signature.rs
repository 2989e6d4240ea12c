//! SigV4, the verifying side: whether a request was signed with a secret, and when.
//!
//! Source of the rule: "Signature Version 4" in the service's general reference; a test has its published example.
//! Own code and not scratchstack-aws-signature: that one is an asynchronous service around types of its own, and what is
//! left of it once requests, keys and clocks are ours is this file.
//!
//! Invariant: nothing a caller sent is compared in a way whose time says where it differs.
//!
//! Not here: whose key it is, and what its owner may do (`access.rs`).

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use sha2::{Digest, Sha256};

use super::wire::fault::{Fault, FaultKind};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "kinesis";

/// What a request says of its signature, in its header or its query.
#[derive(Debug)]
pub struct Signature {
    /// The access key's id.
    pub key: String,
    /// The scope's day, as `20150830`.
    pub day: String,
    /// The scope's region.
    pub region: String,
    service: String,
    signed_headers: String,
    value: String,
    /// As the request has it.
    pub date: String,
    /// In its query: for how many seconds it is good.
    pub expires_s: Option<u64>,
    algorithm: String,
}

impl Signature {
    /// Every parameter that is missing is named, as the service does.
    pub fn of(head: &Parts) -> Result<Signature, Fault> {
        let query = query(head);
        let header = head.headers.get("authorization").and_then(|it| it.to_str().ok());
        match (header, query.contains_key("X-Amz-Algorithm")) {
            (Some(_), true) => {
                let text = "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.";
                Err(Fault::new(FaultKind::InvalidSignature, text))
            }
            (None, false) => Err(Fault::new(FaultKind::MissingAuthenticationToken, "Missing Authentication Token")),
            (Some(header), false) => Signature::of_header(header, head),
            (None, true) => Signature::of_query(&query),
        }
    }

    fn of_header(header: &str, head: &Parts) -> Result<Signature, Fault> {
        let (algorithm, parameters) = header.split_once(' ').unwrap_or((header, ""));
        let pairs = parameters.split([',', ' ']).filter_map(|it| it.split_once('='));
        let given: BTreeMap<&str, &str> = pairs.collect();
        let text = |name: &str| head.headers.get(name).and_then(|it| it.to_str().ok());
        let mut missing = String::new();
        for name in ["Credential", "Signature", "SignedHeaders"] {
            if given.get(name).is_none_or(|it| it.is_empty()) {
                missing += &format!("Authorization header requires '{name}' parameter. ");
            }
        }
        let date = text("x-amz-date").or_else(|| text("date"));
        if date.is_none() {
            missing += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ";
        }
        if !missing.is_empty() {
            let shown: String = header.chars().take(1024).collect();
            return Err(Fault::new(FaultKind::IncompleteSignature, format!("{missing}Authorization={shown}")));
        }
        let parts = [given["Credential"], given["SignedHeaders"], given["Signature"]];
        Signature::new(algorithm, parts, date.unwrap_or_default(), None)
    }

    fn of_query(query: &BTreeMap<String, String>) -> Result<Signature, Fault> {
        let mut missing = String::new();
        for name in ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"] {
            if query.get(name).is_none_or(|it| it.is_empty()) {
                missing += &format!("AWS query-string parameters must include '{name}'. ");
            }
        }
        if !missing.is_empty() {
            let text = format!("{missing}Re-examine the query-string parameters.");
            return Err(Fault::new(FaultKind::IncompleteSignature, text));
        }
        let get = |name: &str| query[name].as_str();
        let expires_s = query.get("X-Amz-Expires").and_then(|it| it.parse().ok());
        let parts = [get("X-Amz-Credential"), get("X-Amz-SignedHeaders"), get("X-Amz-Signature")];
        Signature::new(get("X-Amz-Algorithm"), parts, get("X-Amz-Date"), expires_s)
    }

    fn new(algorithm: &str, parts: [&str; 3], date: &str, expires_s: Option<u64>) -> Result<Signature, Fault> {
        let [credential, signed_headers, value] = parts;
        let scope: Vec<&str> = credential.split('/').collect();
        let &[key, day, region, service, "aws4_request"] = &scope[..] else {
            let text = "Credential must have exactly 5 slash-delimited elements, e.g. \
                        keyid/date/region/service/term.";
            return Err(Fault::new(FaultKind::IncompleteSignature, text));
        };
        let text = |it: &str| it.to_string();
        Ok(Signature {
            key: text(key),
            day: text(day),
            region: text(region),
            service: text(service),
            signed_headers: text(signed_headers),
            value: text(value),
            date: text(date),
            expires_s,
            algorithm: text(algorithm),
        })
    }

    /// Whether the request was signed with `secret`, in the scope it names.
    pub fn verify(&self, secret: &str, head: &Parts, body: &[u8]) -> Result<(), Fault> {
        let refused = |text: String| Err(Fault::new(FaultKind::InvalidSignature, text));
        if self.algorithm != ALGORITHM {
            return refused(format!("Unsupported AWS 'algorithm': '{}'.", shown(&self.algorithm)));
        }
        if self.service != SERVICE {
            return refused(format!("Credential should be scoped to correct service: '{SERVICE}'. "));
        }
        if self.date.get(..8) != Some(&self.day) {
            return refused(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}', \
                 from '{}'.",
                shown(&self.day),
                shown(self.date.get(..8).unwrap_or_default()),
                shown(&self.date)
            ));
        }
        let signs_host = self.signed_headers.split(';').any(|it| it == "host" || it == ":authority");
        if !signs_host {
            return refused("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".into());
        }
        let scope = format!("{}/{}/{}/aws4_request", self.day, self.region, self.service);
        let canonical = hex(&Sha256::digest(self.canonical(head, body)));
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{canonical}", self.date);
        let given = from_hex(&self.value).unwrap_or_default();
        let mac = [self.day.as_str(), &self.region, &self.service, "aws4_request"]
            .iter()
            .fold(mac(format!("AWS4{secret}").as_bytes()), |key, part| {
                mac(&key.chain_update(part).finalize().into_bytes())
            })
            .chain_update(to_sign);
        match mac.verify_slice(&given) {
            Ok(()) => Ok(()),
            Err(_) => refused(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details."
                    .into(),
            ),
        }
    }

    /// The request as both sides write it down.
    fn canonical(&self, head: &Parts, body: &[u8]) -> String {
        let path = match head.uri.path() {
            "" => "/".to_string(),
            // Encoded a second time, as every service but one has it.
            path => path.split('/').map(encode).collect::<Vec<_>>().join("/"),
        };
        // Decoded and encoded again: callers differ in what they encode.
        let mut pairs: Vec<(String, String)> = query(head)
            .into_iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| (encode(&name), encode(&value)))
            .collect();
        pairs.sort();
        let query: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers: String = self.signed_headers.split(';').map(|it| format!("{it}:{}\n", value(head, it))).collect();
        let (method, query) = (&head.method, query.join("&"));
        format!("{method}\n{path}\n{query}\n{headers}\n{}\n{}", self.signed_headers, hex(&Sha256::digest(body)))
    }
}

/// A header's values, trimmed and joined. HTTP/2 has the host in its target.
fn value(head: &Parts, name: &str) -> String {
    let values = head.headers.get_all(name).iter().filter_map(|it| it.to_str().ok());
    let trimmed = values.map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "));
    let joined = trimmed.collect::<Vec<_>>().join(",");
    match name {
        "host" | ":authority" if joined.is_empty() => head.uri.authority().map_or(String::new(), |it| it.to_string()),
        _ => joined,
    }
}

/// The query's parameters, decoded.
fn query(head: &Parts) -> BTreeMap<String, String> {
    let pairs = head.uri.query().unwrap_or_default().split('&').filter(|it| !it.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, it)| (decode(name), decode(it))).collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        match digits.and_then(|it| from_hex(std::str::from_utf8(it).ok()?)) {
            Some(decoded) => {
                out.extend(decoded);
                rest = &after[2..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn encode(text: &str) -> String {
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.' | b'~');
    let each = text.bytes().map(|it| if plain(it) { char::from(it).to_string() } else { format!("%{it:02X}") });
    each.collect()
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("hmac takes keys of any length")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
}

/// A caller's text in a message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// `20150830T123600Z` → milliseconds since the Unix epoch; `None` if it is not of that form.
pub fn moment(text: &str) -> Option<u64> {
    let at = chrono::NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").ok()?;
    let ms = u64::try_from(at.and_utc().timestamp_millis()).ok()?;
    // chrono reads `T12300Z` too, as 12:30:00.
    (shown_moment(ms) == text).then_some(ms)
}

/// The other way round.
pub fn shown_moment(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(chrono::DateTime::from_timestamp_millis);
    at.map_or(String::new(), |it| it.format("%Y%m%dT%H%M%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn head(query: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method("GET").uri(format!("/{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn signed(value: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={value}"
        )
    }

    /// The service's own test suite: get-vanilla and get-vanilla-query-order-key-case.
    #[test]
    fn the_published_examples_verify() {
        for (query, value) in [
            ("", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        ] {
            let authorization = signed(value);
            let headers = [
                ("host", "example.amazonaws.com"),
                ("x-amz-date", "20150830T123600Z"),
                ("authorization", &authorization),
            ];
            let head = head(query, &headers);
            let mut signature = Signature::of(&head).unwrap();
            // The suite's service is called so; ours is checked before anything else.
            assert!(signature.verify(SECRET, &head, b"").unwrap_err().message.unwrap().contains("correct service"));
            let canonical = hex(&Sha256::digest(signature.canonical(&head, b"")));
            signature.service = "service".into();
            let scope = "20150830/us-east-1/service/aws4_request";
            let to_sign = format!("{ALGORITHM}\n20150830T123600Z\n{scope}\n{canonical}");
            let key = ["20150830", "us-east-1", "service", "aws4_request"]
                .iter()
                .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| {
                    mac(&key).chain_update(part).finalize().into_bytes().to_vec()
                });
            assert_eq!(hex(&mac(&key).chain_update(to_sign).finalize().into_bytes()), value);
        }
    }

    #[test]
    fn a_moment_is_read_and_written() {
        assert_eq!(moment("20150830T123600Z"), Some(1_440_938_160_000));
        assert_eq!(shown_moment(1_440_938_160_999), "20150830T123600Z");
        for bad in ["20150830T12300Z", "", "20150830", "2015083OT123600Z", "20150230T123600Z", "Mon, 30 Feb 2015"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_encoded_comes_back() {
        for text in ["", "a/b c", "100%", "%zz", "ж"] {
            assert_eq!(decode(&encode(text)), text);
        }
        assert_eq!(decode("%2f%2F%"), "//%");
    }
}

//! Every decoder of what a caller sends, each as a function of bytes that fails if its invariant breaks: for `fuzz/`, and for
//! the test below, which needs no fuzzer.
//!
//! Not here: what the service's bytes mean, which tests of each decoder say.

use http::Request;
use http::request::Parts;

use super::access;
use super::iterator::{dress, undress};
use super::policy::{Asking, Policy};
use super::signature::{Signature, moment, shown_moment};
use super::subscribe::frame;
use super::wire::table::{Operation, table};
use super::wire::value::Structure;
use super::wire::{self, Form, validate};
use braid_stream::iterator::IteratorToken;

/// A body in JSON; its first byte chooses the operation.
pub fn json(bytes: &[u8]) {
    body(Form::Json, bytes);
}

/// A body in CBOR; its first byte chooses the operation.
pub fn cbor(bytes: &[u8]) {
    body(Form::Cbor, bytes);
}

/// What is read fits the table, and a refusal can be written in both forms.
fn body(form: Form, bytes: &[u8]) {
    let Some((chosen, bytes)) = bytes.split_first() else { return };
    let all: Vec<&Operation> = table().operations().collect();
    let operation = all[usize::from(*chosen) % all.len()];
    match wire::read(form, operation, bytes) {
        Ok(input) => {
            assert_eq!(validate::check(operation.input, &input), Ok(()));
            wire::write(form, &input);
        }
        Err(fault) => {
            wire::write(Form::Json, &fault.body());
            wire::write(Form::Cbor, &fault.body());
        }
    }
}

/// An event's frame around these bytes, read back.
pub fn event(bytes: &[u8]) {
    for form in [Form::Json, Form::Cbor] {
        let body = Structure::new().with("Data", bytes::Bytes::copy_from_slice(bytes));
        let frame = frame("event", "SubscribeToShardEvent", form, &body);
        let (headers, payload) = unframe(&frame).expect("our own frame");
        let expected = [(":message-type", "event"), (":event-type", "SubscribeToShardEvent")];
        let expected = expected.into_iter().chain([(":content-type", form.content_type())]);
        assert!(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected));
        assert_eq!(payload, wire::write(form, &body));
    }
    // And bytes that are no frame are none.
    assert!(unframe(bytes).is_none() || bytes.len() >= 16);
}

/// A frame's headers, all of which are texts, by name.
type Headers = Vec<(String, String)>;

/// As an SDK reads a frame: its headers and its body.
fn unframe(frame: &[u8]) -> Option<(Headers, &[u8])> {
    let number = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    let end = frame.len().checked_sub(4)?;
    let whole = number(0)? as usize == frame.len()
        && number(8)? == crc32fast::hash(&frame[..8])
        && number(end)? == crc32fast::hash(&frame[..end]);
    if !whole {
        return None;
    }
    let length = number(4)? as usize;
    let (mut rest, payload) = frame.get(12..end)?.split_at_checked(length)?;
    let mut headers = Vec::new();
    while let Some((length, after)) = rest.split_first() {
        let (name, after) = after.split_at_checked(usize::from(*length))?;
        let ([7, high, low], after) = after.split_at_checked(3)? else { return None };
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        headers.push((String::from_utf8(name.to_vec()).ok()?, String::from_utf8(value.to_vec()).ok()?));
        rest = after;
    }
    Some((headers, payload))
}

/// A request's head, a line each: its target, then headers as `name: value`; what follows an empty line is the body.
pub fn signature(bytes: &[u8]) {
    let (head, body) = match bytes.windows(2).position(|it| it == b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[][..]),
    };
    let Some(head) = head_of(head) else { return };
    if let Ok(signature) = Signature::of(&head) {
        // Nobody guesses a signature.
        assert!(signature.verify("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", &head, body).is_err());
        if let Some(ms) = moment(&signature.date) {
            assert_eq!(shown_moment(ms), signature.date);
        }
    }
}

fn head_of(text: &[u8]) -> Option<Parts> {
    let mut lines = text.split(|it| *it == b'\n');
    let mut request = Request::builder().method("POST").uri(lines.next()?);
    for line in lines {
        let at = line.iter().position(|it| *it == b':')?;
        request = request.header(&line[..at], line[at + 1..].trim_ascii());
    }
    Some(request.body(()).ok()?.into_parts().0)
}

/// A credentials file.
pub fn credentials(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(why) = access::parse(text)
    {
        assert!(!why.is_empty());
    }
}

/// A resource policy.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let asking =
        Asking { account: "123456789012", user: "u", action: "kinesis:PutRecord", resource: "arn:aws:kinesis:a" };
    match Policy::parse(text) {
        Ok(policy) => drop(policy.decide(&asking)),
        Err(why) => assert!(!why.is_empty()),
    }
}

/// A shard iterator: a token has one text, and nobody guesses one.
pub fn iterator(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(token) = undress(text) {
        assert_eq!(dress(&token), text);
        assert!(IteratorToken::decode(&token, &[7; 32], 0).is_err());
    }
    assert!(IteratorToken::decode(text, &[7; 32], 0).is_err());
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    /// Something that each decoder takes, to be changed.
    const SAMPLES: &[&[u8]] = &[
        b"\x0d{\"StreamName\":\"a\",\"Records\":[{\"Data\":\"aGVsbG8=\",\"PartitionKey\":\"k\"}],\"Tags\":{\"a\":\"b\"}}",
        b"\x14\xbf\x6aStreamName\x7f\x61a\xff\x67Records\x9f\xa1\x64Data\x43\x01\x02\x03\xff\x64Time\xc1\x1b\0\0\0\0\0\0\0\x01\xff",
        b"/?a=%20b&X-Amz-Expires=60\nauthorization: AWS4-HMAC-SHA256 Credential=K/20150830/us-east-1/kinesis/aws4_request, \
          SignedHeaders=host;x-amz-date, Signature=5fa00fa3\nhost: a\nx-amz-date: 20150830T123600Z\n\n{}",
        b"/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K%2F20150830%2Fus-east-1%2Fkinesis%2Faws4_request&\
          X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Signature=00",
        b"[[key]]\nid = 'a'\nsecret = 's'\naccount = '000000000000'\nuser = 'u'\n\
          policy = [{ effect = 'Allow', action = ['kinesis:*'], resource = ['*'] }]\n",
        br#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},
            "Action":["kinesis:Put*"],"Resource":"*","Condition":{"StringLike":{"aws:username":"u*"}}}]}"#,
        b"AAAAAAAAAAFhYmMAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
          AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ];

    fn all(bytes: &[u8]) {
        for decoder in [json, cbor, event, signature, credentials, policy, iterator] {
            decoder(bytes);
        }
    }

    fn changed() -> impl Strategy<Value = Vec<u8>> {
        let changes = vec((any::<Index>(), vec(any::<u8>(), 0..4), 0..4usize), 0..6);
        (select(SAMPLES), changes).prop_map(|(sample, changes)| {
            let mut bytes = sample.to_vec();
            for (at, new, gone) in changes {
                let at = at.index(bytes.len() + 1);
                let end = (at + gone).min(bytes.len());
                bytes.splice(at..end, new);
            }
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..300)) {
            all(&bytes);
        }

        #[test]
        fn nearly_right_bytes_are_decoded_or_refused(bytes in changed()) {
            all(&bytes);
        }
    }

    #[test]
    fn the_samples_are_what_they_are_meant_to_be() {
        all(&[]);
        let text = |nth: usize| std::str::from_utf8(SAMPLES[nth]).unwrap();
        assert!(
            Signature::of(&head_of(SAMPLES[2].split(|it| *it == b'{').next().unwrap().trim_ascii()).unwrap()).is_ok()
        );
        assert!(Signature::of(&head_of(SAMPLES[3]).unwrap()).is_ok());
        assert!(access::parse(text(4)).is_ok());
        assert!(Policy::parse(text(5)).is_ok());
        assert_eq!(undress(text(6)).as_deref(), Some("abc"));
    }
}

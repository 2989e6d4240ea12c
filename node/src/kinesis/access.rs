//! Who asks, and whether they may: the account and region of a signed request, the keys that are known, and their policies.
//!
//! Invariant: a request without a signature is refused, whatever the settings. With a credentials file, a call is served only
//! if its signature is right, its time is near and a statement of its key allows it; a file that can't be read leaves the last
//! good one in force, and says so in the log.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use braid_env::{disk, time};
use http::request::Parts;
use serde::Deserialize;

use super::names::{Caller, Home, Named, is_account, is_region};
use super::signature::{Signature, moment, shown_moment};
use super::wire::fault::{Fault, FaultKind};

/// How often the credentials file is looked at: soon enough for a key that must go.
const LOOK: Duration = Duration::from_secs(2);

/// How long a signature in a query may be good: the service's number.
const EXPIRES_S_MAX: u64 = 7 * 24 * 3600;

/// What signatures are measured by.
#[derive(Clone)]
pub struct Access {
    home: Home,
    /// `None`: any signature is good.
    keys: Option<Arc<RwLock<Keys>>>,
    /// How far a signature's time may be off; `None`: as far as it likes.
    skew: Option<Duration>,
}

/// Keys by their ids.
type Keys = BTreeMap<String, Key>;

#[derive(Clone, Debug)]
struct Key {
    secret: String,
    account: String,
    user: String,
    /// `None`: everything in its own account.
    allow: Option<Vec<Statement>>,
}

/// The credentials file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    secret: String,
    account: String,
    user: String,
    policy: Option<Vec<Statement>>,
}

/// `*` and `?` stand for any text and any character, as in IAM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    effect: Effect,
    /// Such as `kinesis:Put*`.
    action: Vec<String>,
    /// Streams' ARNs.
    resource: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

/// Why a credentials file is not taken.
#[derive(Debug)]
pub struct CredentialsError {
    path: PathBuf,
    why: String,
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kinesis_credentials {}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for CredentialsError {}

/// Whose request it is, once that is believed.
pub struct Admitted {
    pub caller: Caller,
    key: Option<Key>,
}

impl Access {
    /// Any signature is good: a cluster of one's own, as emulators have it. A key id of twelve digits says the account.
    pub fn development(home: Home) -> Access {
        Access { home, keys: None, skew: None }
    }

    /// Signatures are verified with the keys of the file at `path`. `skew` zero: whatever time they are of.
    pub async fn verified(home: Home, path: &Path, skew: Duration) -> Result<Access, CredentialsError> {
        let keys = Arc::new(RwLock::new(read(path).await?));
        Ok(Access { home, keys: Some(keys), skew: Some(skew).filter(|it| !it.is_zero()) })
    }

    /// Follows the file at `path`, until dropped.
    pub async fn follow(self, path: PathBuf) {
        let Some(keys) = self.keys else { return };
        let mut last = None;
        loop {
            time::sleep(LOOK).await;
            let found = read(&path).await;
            match found {
                Ok(found) => {
                    last = None;
                    *keys.write().expect("nothing panics while it is locked") = found;
                }
                // Said once, however long it lasts.
                Err(error) => {
                    let said = error.to_string();
                    if last.as_ref() != Some(&said) {
                        tracing::error!("{said}; the last good file stays in force");
                        last = Some(said);
                    }
                }
            }
        }
    }

    /// Who asks, if that can be believed.
    pub fn admit(&self, head: &Parts, body: &[u8], now_ms: u64) -> Result<Admitted, Fault> {
        let signature = Signature::of(head)?;
        if !is_region(&signature.region) {
            let text = "Credential should be scoped to a valid region.";
            return Err(Fault::new(FaultKind::InvalidSignature, text));
        }
        let region = signature.region.clone();
        let Some(keys) = &self.keys else {
            let account = if is_account(&signature.key) { &signature.key } else { &self.home.account };
            return Ok(Admitted { caller: Caller { account: account.clone(), region }, key: None });
        };
        let key = keys.read().expect("nothing panics while it is locked").get(&signature.key).cloned();
        let Some(key) = key else {
            let text = "The security token included in the request is invalid.";
            return Err(Fault::new(FaultKind::UnrecognizedClient, text));
        };
        signature.verify(&key.secret, head, body)?;
        self.check_time(&signature, now_ms)?;
        Ok(Admitted { caller: Caller { account: key.account.clone(), region }, key: Some(key) })
    }

    fn check_time(&self, signature: &Signature, now_ms: u64) -> Result<(), Fault> {
        let refused = |text: String| Err(Fault::new(FaultKind::InvalidSignature, text));
        let Some(at_ms) = moment(&signature.date) else {
            return refused("Date must be in ISO-8601 'basic format', such as 20150830T123600Z.".into());
        };
        let Some(skew) = self.skew else { return Ok(()) };
        let skew_ms = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
        let good_ms = match signature.expires_s {
            Some(seconds) => seconds.min(EXPIRES_S_MAX) * 1000,
            None => skew_ms,
        };
        let (date, now) = (&signature.date, shown_moment(now_ms));
        if at_ms.saturating_add(good_ms) < now_ms {
            let edge = shown_moment(now_ms.saturating_sub(good_ms));
            return refused(format!(
                "Signature expired: {date} is now earlier than {edge} ({now} - {} sec.)",
                good_ms / 1000
            ));
        }
        if at_ms > now_ms.saturating_add(skew_ms) {
            let edge = shown_moment(now_ms.saturating_add(skew_ms));
            return refused(format!(
                "Signature not yet current: {date} is still later than {edge} ({now} + {} sec.)",
                skew_ms / 1000
            ));
        }
        Ok(())
    }
}

impl Admitted {
    /// Whether the caller may do `operation` to `stream`; `None`: to none in particular.
    pub fn allows(&self, operation: &str, stream: Option<&Named>) -> Result<(), Fault> {
        let Some(key) = &self.key else { return Ok(()) };
        let action = format!("kinesis:{operation}");
        let resource = stream.map_or("*".to_string(), Named::arn);
        let owner = stream.map_or(&key.account, |it| &it.account);
        let matching = |effect: Effect| {
            let statements = key.allow.iter().flatten().filter(move |it| it.effect == effect);
            statements.filter(|it| it.action.iter().any(|it| matches(it, &action)))
        };
        // A call without a resource is not kept away by a resource's name.
        let on = |it: &&Statement| stream.is_none() || it.resource.iter().any(|it| matches(it, &resource));
        let allowed = key.allow.is_none() || matching(Effect::Allow).any(|it| on(&it));
        match owner == &key.account && allowed && !matching(Effect::Deny).any(|it| on(&it)) {
            true => Ok(()),
            false => Err(Fault::new(
                FaultKind::AccessDenied,
                format!(
                    "User: arn:aws:iam::{}:user/{} is not authorized to perform: {action} on resource: {resource} because \
                     no identity-based policy allows the {action} action",
                    key.account, key.user
                ),
            )),
        }
    }
}

async fn read(path: &Path) -> Result<Keys, CredentialsError> {
    let failed = |why: String| CredentialsError { path: path.to_path_buf(), why };
    let bytes = disk::read_file(path).await.map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| failed("it is not utf-8".into()))?;
    parse(&text).map_err(failed)
}

fn parse(text: &str) -> Result<Keys, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
    let mut keys = Keys::new();
    for Entry { id, secret, account, user, policy } in file.key {
        if !is_account(&account) {
            return Err(format!("key {id:?}: account {account:?} is not allowed: 12 digits"));
        }
        if id.is_empty() || id.contains(['/', ',', ' ']) || secret.is_empty() {
            return Err(format!("key {id:?}: its id or secret is empty, or the id has '/', ',' or a space in it"));
        }
        if keys.insert(id.clone(), Key { secret, account, user, allow: policy }).is_some() {
            return Err(format!("key {id:?} stands twice"));
        }
    }
    Ok(keys)
}

/// Whether all of `text` matches `pattern`, with `*` and `?` as in IAM. Linear in both but for stars, of which each
/// begins anew where the one before it left off.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(it) if *it == b'?' || *it == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|it| *it == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home { account: "000000000000".into(), region: "us-east-1".into() }
    }

    fn key(policy: &str) -> Key {
        let text = format!("[[key]]\nid = 'a'\nsecret = 's'\naccount = '000000000000'\nuser = 'u'\n{policy}\n");
        parse(&text).unwrap()["a"].clone()
    }

    #[test]
    fn stars_and_marks_match_as_in_iam() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("kinesis:Put*", "kinesis:PutRecords", true),
            ("kinesis:Put*", "kinesis:GetRecords", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*stream/*-x", "arn:stream/a-x-x", true),
            ("*stream/*-x", "arn:stream/a-x-y", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_no_statement_allows_is_denied_and_a_denial_wins() {
        let policy = "policy = [\n\
            { effect = 'Allow', action = ['kinesis:*'], resource = ['*:stream/a*'] },\n\
            { effect = 'Deny', action = ['kinesis:Delete*'], resource = ['*'] },\n]";
        let caller = Caller { account: "000000000000".into(), region: "us-east-1".into() };
        let of = |policy| Admitted { caller: caller.clone(), key: Some(key(policy)) };
        let stream = |account, name| home().name(account, "us-east-1", name).unwrap();
        let (ab, b) = (stream("000000000000", "ab"), stream("000000000000", "b"));
        let bound = of(policy);
        assert_eq!(bound.allows("PutRecord", Some(&ab)), Ok(()));
        assert_eq!(bound.allows("ListStreams", None), Ok(()));
        let denied = bound.allows("PutRecord", Some(&b)).unwrap_err();
        assert_eq!(denied.kind, FaultKind::AccessDenied);
        let text = "User: arn:aws:iam::000000000000:user/u is not authorized to perform: kinesis:PutRecord on resource: \
                    arn:aws:kinesis:us-east-1:000000000000:stream/b because no identity-based policy allows the \
                    kinesis:PutRecord action";
        assert_eq!(denied.message.as_deref(), Some(text));
        assert!(bound.allows("DeleteStream", Some(&ab)).is_err());
        assert_eq!(of("").allows("DeleteStream", Some(&b)), Ok(()), "without a policy: all of its account");
        assert!(of("").allows("PutRecord", Some(&stream("123456789012", "a"))).is_err(), "another account's stream");
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_the_reason() {
        let entry = "[[key]]\nid = 'a'\nsecret = 's'\naccount = '000000000000'\nuser = 'u'\n";
        assert_eq!(parse(entry).unwrap().len(), 1);
        for (text, says) in [
            ("nonsense", "nonsense"),
            ("[[key]]\nid = 'a'", "missing field"),
            (&entry.replace("000000000000", "7"), "12 digits"),
            (&entry.replace("'a'", "'a/b'"), "\"a/b\""),
            (&entry.repeat(2), "stands twice"),
            (&format!("{entry}nonsense = 1"), "nonsense"),
        ] {
            let why = parse(text).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}

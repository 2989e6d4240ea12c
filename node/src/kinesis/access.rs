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

use super::names::{Caller, Home, Resource, is_account, is_region};
use super::policy::{Asking, Policy, Verdict, matches};
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
pub(super) type Keys = BTreeMap<String, Key>;

#[derive(Clone, Debug)]
pub(super) struct Key {
    secret: String,
    account: String,
    user: String,
    /// `None`: everything in its own account, and what others share with that.
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
    /// Whose key it is, if signatures are verified: only then do policies count.
    pub fn is_known(&self) -> bool {
        self.key.is_some()
    }

    /// Whether the caller may do `operation` to `resource`, which has `policy`; without a resource: to none in particular.
    ///
    /// ```text
    ///  same account       not denied by either  ∧  allowed by the key's policy, or by name in the resource's
    ///  another account    not denied by either  ∧  allowed by the key's policy, and by the resource's
    /// ```
    pub fn allows(&self, operation: &str, resource: Option<&Resource>, policy: Option<&Policy>) -> Result<(), Fault> {
        let Some(key) = &self.key else { return Ok(()) };
        let action = format!("kinesis:{operation}");
        let arn = resource.map_or("*".to_string(), Resource::arn);
        let at_home = resource.is_none_or(|it| it.stream.account == key.account);
        let asking = Asking { account: &key.account, user: &key.user, action: &action, resource: &arn };
        let own = key.decide(&asking, resource.is_some());
        let theirs = policy.map_or(Verdict::Silent, |it| it.decide(&asking));
        let why = match (own, theirs) {
            (Verdict::Denied, _) => "with an explicit deny in an identity-based policy".to_string(),
            (_, Verdict::Denied) => "with an explicit deny in a resource-based policy".to_string(),
            (Verdict::Silent, Verdict::Allowed) if at_home => return Ok(()),
            (Verdict::Silent, _) => format!("because no identity-based policy allows the {action} action"),
            (_, Verdict::Silent) if !at_home => format!("because no resource-based policy allows the {action} action"),
            _ => return Ok(()),
        };
        let text =
            format!("User: {} is not authorized to perform: {action} on resource: {arn} {why}", asking.identity());
        Err(Fault::new(FaultKind::AccessDenied, text))
    }
}

impl Key {
    /// What its own policy says. A call without a resource is not kept away by a resource's name.
    fn decide(&self, asking: &Asking, on_resource: bool) -> Verdict {
        let Some(statements) = &self.allow else { return Verdict::Allowed };
        let applies = |it: &&Statement| {
            let on = !on_resource || it.resource.iter().any(|it| matches(it, asking.resource));
            on && it.action.iter().any(|it| matches(it, asking.action))
        };
        let effects = statements.iter().filter(applies).map(|it| match it.effect {
            Effect::Allow => Verdict::Allowed,
            Effect::Deny => Verdict::Denied,
        });
        effects.max().unwrap_or(Verdict::Silent)
    }
}

async fn read(path: &Path) -> Result<Keys, CredentialsError> {
    let failed = |why: String| CredentialsError { path: path.to_path_buf(), why };
    let bytes = disk::read_file(path).await.map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8(bytes.to_vec()).map_err(|_| failed("it is not utf-8".into()))?;
    parse(&text).map_err(failed)
}

pub(super) fn parse(text: &str) -> Result<Keys, String> {
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
    fn what_no_statement_allows_is_denied_and_a_denial_wins() {
        let policy = "policy = [\n\
            { effect = 'Allow', action = ['kinesis:*'], resource = ['*:stream/a*'] },\n\
            { effect = 'Deny', action = ['kinesis:Delete*'], resource = ['*'] },\n]";
        let caller = Caller { account: "000000000000".into(), region: "us-east-1".into() };
        let of = |policy| Admitted { caller: caller.clone(), key: Some(key(policy)) };
        let stream = |account, name| {
            let stream = home().name(account, "us-east-1", name).unwrap();
            Resource { stream, consumer: None }
        };
        let (ab, b) = (stream("000000000000", "ab"), stream("000000000000", "b"));
        let bound = of(policy);
        assert_eq!(bound.allows("PutRecord", Some(&ab), None), Ok(()));
        assert_eq!(bound.allows("ListStreams", None, None), Ok(()));
        let denied = bound.allows("PutRecord", Some(&b), None).unwrap_err();
        assert_eq!(denied.kind, FaultKind::AccessDenied);
        let text = "User: arn:aws:iam::000000000000:user/u is not authorized to perform: kinesis:PutRecord on resource: \
                    arn:aws:kinesis:us-east-1:000000000000:stream/b because no identity-based policy allows the \
                    kinesis:PutRecord action";
        assert_eq!(denied.message.as_deref(), Some(text));
        let denied = bound.allows("DeleteStream", Some(&ab), None).unwrap_err();
        assert!(denied.message.unwrap().ends_with("with an explicit deny in an identity-based policy"));
        assert_eq!(of("").allows("DeleteStream", Some(&b), None), Ok(()), "without a policy: all of its account");
        let abroad = of("").allows("PutRecord", Some(&stream("123456789012", "a")), None).unwrap_err();
        assert!(abroad.message.unwrap().ends_with("no resource-based policy allows the kinesis:PutRecord action"));
    }

    /// The table of IAM's documentation: a key's policy, the resource's, and what comes out at home and abroad.
    #[test]
    fn at_home_either_policy_is_enough_and_abroad_it_takes_both() {
        let allow = "policy = [{ effect = 'Allow', action = ['kinesis:*'], resource = ['*'] }]";
        let deny = "policy = [{ effect = 'Deny', action = ['kinesis:Put*'], resource = ['*'] }]";
        let other = "policy = [{ effect = 'Allow', action = ['kinesis:Get*'], resource = ['*'] }]";
        let says = |effect: &str, principal: &str| {
            let text = format!(
                r#"{{"Statement":{{"Effect":"{effect}","Principal":{principal},"Action":"kinesis:PutRecord","Resource":"*"}}}}"#
            );
            Some(Policy::parse(&text).unwrap())
        };
        let user = r#"{"AWS":"arn:aws:iam::000000000000:user/u"}"#;
        let account = r#"{"AWS":"000000000000"}"#;
        let rows = [
            // The key's, the resource's; at home, abroad.
            ("", None, true, false),
            ("", says("Allow", account), true, true),
            ("", says("Allow", user), true, true),
            ("", says("Allow", r#""*""#), true, true),
            ("", says("Allow", r#"{"AWS":"999999999999"}"#), true, false),
            ("", says("Deny", r#""*""#), false, false),
            (allow, None, true, false),
            (allow, says("Allow", account), true, true),
            (allow, says("Deny", account), false, false),
            (other, None, false, false),
            (other, says("Allow", account), false, false),
            (other, says("Allow", user), true, false),
            (deny, says("Allow", user), false, false),
        ];
        let caller = Caller { account: "000000000000".into(), region: "us-east-1".into() };
        for (own, theirs, at_home, abroad) in rows {
            let admitted = Admitted { caller: caller.clone(), key: Some(key(own)) };
            for (owner, expected) in [("000000000000", at_home), ("123456789012", abroad)] {
                let stream = home().name(owner, "us-east-1", "a").unwrap();
                let found = admitted.allows("PutRecord", Some(&Resource { stream, consumer: None }), theirs.as_ref());
                assert_eq!(found.is_ok(), expected, "{own} {theirs:?} {owner}: {found:?}");
            }
        }
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

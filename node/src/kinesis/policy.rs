//! Resource policies: who of another account may do what to a stream or a consumer, as IAM has it.
//!
//! ```text
//!  a statement says of a call:  principal ∧ action ∧ resource ∧ every condition  ─▶ its effect
//!  a Deny anywhere ─▶ denied;  the same account ─▶ its own policy or this one;  another ─▶ its own policy and this one
//! ```
//! Source of the rule: "Policy evaluation logic" of IAM's documentation. Invariant: what is not understood allows nothing: an
//! element, operator or key that is unknown here is refused when a policy is put, with what is known.
//!
//! Not here: keys' own policies, and the two together (`access.rs`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::names::is_account;
use super::wire::table::table;

/// The operations that another account may be let in to, as the service documents them; only for these are policies asked.
pub const SHARED: &[&str] = &[
    "DescribeStream",
    "DescribeStreamConsumer",
    "DescribeStreamSummary",
    "GetRecords",
    "GetShardIterator",
    "ListShards",
    "PutRecord",
    "PutRecords",
    "SubscribeToShard",
];

/// Each is checked at every call.
const STATEMENTS_MAX: usize = 100;

/// A policy document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy(Vec<Statement>);

/// What a policy says of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing.
    Silent,
    /// Its account may, if it lets its user.
    AccountAllowed,
    /// This very user may, or anybody.
    Allowed,
    /// By name: nothing else can allow it.
    Denied,
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub account: &'a str,
    pub user: &'a str,
    /// Such as `kinesis:PutRecord`.
    pub action: &'a str,
    pub resource: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    deny: bool,
    principals: Vec<Principal>,
    actions: Listed,
    resources: Listed,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Principal {
    Anybody,
    Account(String),
    /// A user's ARN, or that of a role, which nobody has here.
    Identity(String),
}

/// Patterns of which one matches; or none, where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    none: bool,
    patterns: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    none: bool,
    wild: bool,
    key: Key,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    PrincipalArn,
    PrincipalAccount,
    Username,
}

/// Names, whether none of the values may match, and whether `*` and `?` stand for others. ARNs always may have them.
const OPERATORS: &[(&str, bool, bool)] = &[
    ("StringEquals", false, false),
    ("StringNotEquals", true, false),
    ("StringLike", false, true),
    ("StringNotLike", true, true),
    ("ArnEquals", false, true),
    ("ArnNotEquals", true, true),
    ("ArnLike", false, true),
    ("ArnNotLike", true, true),
];

/// Their case does not matter.
const KEYS: &[(&str, Key)] = &[
    ("aws:PrincipalArn", Key::PrincipalArn),
    ("aws:PrincipalAccount", Key::PrincipalAccount),
    ("aws:username", Key::Username),
];

// ------------------------------------------------------------ as it is written

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    /// One, or several.
    statement: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    #[serde(rename = "Sid")]
    _sid: Option<String>,
    effect: String,
    principal: Option<WrittenPrincipal>,
    action: Option<OneOrMore<String>>,
    not_action: Option<OneOrMore<String>>,
    resource: Option<OneOrMore<String>>,
    not_resource: Option<OneOrMore<String>>,
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, OneOrMore<String>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenPrincipal {
    All(String),
    Of(BTreeMap<String, OneOrMore<String>>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn all(self) -> Vec<T> {
        match self {
            OneOrMore::One(it) => vec![it],
            OneOrMore::More(all) => all,
        }
    }
}

impl Policy {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what is allowed.
    pub fn parse(text: &str) -> Result<Policy, String> {
        let document: Document = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if let Some(version) = document.version.filter(|it| !["2012-10-17", "2008-10-17"].contains(&it.as_str())) {
            return Err(format!("Version {version:?} is not allowed: 2012-10-17 or 2008-10-17"));
        }
        let written = match document.statement {
            serde_json::Value::Array(all) => all,
            one => vec![one],
        };
        if written.len() > STATEMENTS_MAX {
            return Err(format!("{} statements are too many: at most {STATEMENTS_MAX} are allowed", written.len()));
        }
        let numbered = written.into_iter().zip(1..);
        let read = numbered.map(|(it, nth)| {
            let read = serde_json::from_value(it).map_err(|e| e.to_string()).and_then(statement);
            read.map_err(|why| format!("statement {nth}: {why}"))
        });
        Ok(Policy(read.collect::<Result<_, _>>()?))
    }

    /// What it says of a call.
    pub fn decide(&self, asking: &Asking) -> Verdict {
        self.0.iter().map(|it| it.decide(asking)).max().unwrap_or(Verdict::Silent)
    }
}

impl Asking<'_> {
    /// `arn:aws:iam::ACCOUNT:user/NAME`
    pub fn identity(&self) -> String {
        format!("arn:aws:iam::{}:user/{}", self.account, self.user)
    }
}

impl Statement {
    fn decide(&self, asking: &Asking) -> Verdict {
        let identity = asking.identity();
        let of = |principal: &Principal| match principal {
            Principal::Anybody => Verdict::Allowed,
            Principal::Identity(arn) if *arn == identity => Verdict::Allowed,
            Principal::Account(account) if account == asking.account => Verdict::AccountAllowed,
            Principal::Identity(_) | Principal::Account(_) => Verdict::Silent,
        };
        let principal = self.principals.iter().map(of).max().unwrap_or(Verdict::Silent);
        let applies = principal != Verdict::Silent
            && self.actions.holds(|pattern| matches(&pattern.to_lowercase(), &asking.action.to_lowercase()))
            && self.resources.holds(|pattern| matches(pattern, asking.resource))
            && self.conditions.iter().all(|it| it.holds(asking, &identity));
        match (applies, self.deny) {
            (false, _) => Verdict::Silent,
            (true, true) => Verdict::Denied,
            (true, false) => principal,
        }
    }
}

impl Listed {
    fn holds(&self, matching: impl Fn(&str) -> bool) -> bool {
        self.patterns.iter().any(|it| matching(it)) != self.none
    }
}

impl Condition {
    fn holds(&self, asking: &Asking, identity: &str) -> bool {
        let found = match self.key {
            Key::PrincipalArn => identity,
            Key::PrincipalAccount => asking.account,
            Key::Username => asking.user,
        };
        let any = self.values.iter().any(|it| if self.wild { matches(it, found) } else { it == found });
        any != self.none
    }
}

fn statement(it: Written) -> Result<Statement, String> {
    let deny = match it.effect.as_str() {
        "Allow" => false,
        "Deny" => true,
        other => return Err(format!("Effect {other:?} is not allowed: Allow or Deny")),
    };
    let principals = principals(it.principal.ok_or("it has no Principal")?)?;
    let actions = listed("Action", it.action, it.not_action)?;
    for action in &actions.patterns {
        let known = |name: &str| matches(&action.to_lowercase(), &format!("kinesis:{name}").to_lowercase());
        if !table().operations().any(|operation| known(operation.name)) {
            return Err(format!("Action {action:?} is none of this API: such as kinesis:PutRecord, or with * and ?"));
        }
    }
    let resources = listed("Resource", it.resource, it.not_resource)?;
    let mut conditions = Vec::new();
    for (operator, keys) in it.condition {
        let known: Vec<&str> = OPERATORS.iter().map(|it| it.0).collect();
        let found = OPERATORS.iter().find(|it| it.0 == operator);
        let (_, none, wild) =
            *found.ok_or_else(|| format!("Condition {operator:?} is not known: {} are", known.join(", ")))?;
        for (name, values) in keys {
            let known: Vec<&str> = KEYS.iter().map(|it| it.0).collect();
            let found = KEYS.iter().find(|it| it.0.eq_ignore_ascii_case(&name));
            let key =
                found.ok_or_else(|| format!("Condition's key {name:?} is not known: {} are", known.join(", ")))?.1;
            conditions.push(Condition { none, wild, key, values: values.all() });
        }
    }
    Ok(Statement { deny, principals, actions, resources, conditions })
}

fn listed(name: &str, these: Option<OneOrMore<String>>, others: Option<OneOrMore<String>>) -> Result<Listed, String> {
    let (none, patterns) = match (these, others) {
        (Some(these), None) => (false, these.all()),
        (None, Some(others)) => (true, others.all()),
        _ => return Err(format!("it must have either {name} or Not{name}")),
    };
    match patterns.is_empty() {
        true => Err(format!("{name} is empty")),
        false => Ok(Listed { none, patterns }),
    }
}

fn principals(it: WrittenPrincipal) -> Result<Vec<Principal>, String> {
    let texts = match it {
        WrittenPrincipal::All(text) => vec![text],
        WrittenPrincipal::Of(mut kinds) => {
            let texts = kinds.remove("AWS").map(OneOrMore::all).unwrap_or_default();
            if let Some((other, _)) = kinds.first_key_value() {
                return Err(format!("a Principal of the kind {other:?} is not known: AWS is"));
            }
            texts
        }
    };
    if texts.is_empty() {
        return Err("Principal is empty".into());
    }
    texts.iter().map(|text| principal(text)).collect()
}

fn principal(text: &str) -> Result<Principal, String> {
    let wrong = || {
        format!(
            "Principal {text:?} is not allowed: *, 12 digits, or arn:aws:iam::ACCOUNT:root, …:user/NAME or …:role/NAME"
        )
    };
    if text == "*" {
        return Ok(Principal::Anybody);
    }
    if is_account(text) {
        return Ok(Principal::Account(text.to_string()));
    }
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let &["arn", partition, "iam", "", account, of] = &parts[..] else { return Err(wrong()) };
    let named = |kind: &str| of.strip_prefix(kind).is_some_and(|name| !name.is_empty() && !name.contains('*'));
    match of {
        _ if !partition.starts_with("aws") || !is_account(account) => Err(wrong()),
        "root" => Ok(Principal::Account(account.to_string())),
        _ if named("user/") || named("role/") => Ok(Principal::Identity(text.to_string())),
        _ => Err(wrong()),
    }
}

/// Whether all of `text` matches `pattern`, with `*` and `?` as in IAM. Linear in both but for stars, of which each
/// begins anew where the one before it left off.
pub fn matches(pattern: &str, text: &str) -> bool {
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

    const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/a";

    fn policy(statements: &str) -> Policy {
        Policy::parse(&format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#)).unwrap()
    }

    fn asking(action: &str) -> Asking<'_> {
        Asking { account: "123456789012", user: "ann", action, resource: ARN }
    }

    /// One statement with `changed` members in place of those that let account 123456789012 put.
    fn verdict(effect: &str, principal: &str, action: &str, resource: &str, condition: &str) -> Verdict {
        let text =
            format!(r#"{{"Effect":"{effect}","Principal":{principal},{action},{resource},"Condition":{condition}}}"#);
        policy(&text).decide(&asking("kinesis:PutRecord"))
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
    fn a_statement_applies_where_all_of_it_does() {
        use Verdict::{AccountAllowed, Allowed, Denied, Silent};
        let (account, put, here) =
            (r#"{"AWS":"123456789012"}"#, r#""Action":"kinesis:PutRecord""#, r#""Resource":"*""#);
        let all = [("Allow", account, put, here, "{}", AccountAllowed), ("Deny", account, put, here, "{}", Denied)];
        let principals = [
            (r#""*""#, Allowed),
            (r#"{"AWS":"*"}"#, Allowed),
            (r#"{"AWS":"arn:aws:iam::123456789012:root"}"#, AccountAllowed),
            (r#"{"AWS":["arn:aws:iam::123456789012:user/ann","123456789012"]}"#, Allowed),
            (r#"{"AWS":"arn:aws:iam::123456789012:user/bob"}"#, Silent),
            (r#"{"AWS":"arn:aws:iam::123456789012:role/ann"}"#, Silent),
            (r#"{"AWS":"999999999999"}"#, Silent),
        ];
        let actions = [
            (r#""Action":["kinesis:GetRecords","kinesis:Put*"]"#, AccountAllowed),
            (r#""Action":"KINESIS:putrecord""#, AccountAllowed),
            (r#""Action":"*""#, AccountAllowed),
            (r#""Action":"kinesis:PutRecords""#, Silent),
            (r#""NotAction":"kinesis:PutRecord""#, Silent),
            (r#""NotAction":"kinesis:Get*""#, AccountAllowed),
        ];
        let resources = [
            (r#""Resource":"arn:aws:kinesis:us-east-1:000000000000:stream/a""#, AccountAllowed),
            (r#""Resource":["arn:aws:kinesis:*:stream/?"]"#, AccountAllowed),
            (r#""Resource":"arn:aws:kinesis:us-east-1:000000000000:stream/A""#, Silent),
            (r#""Resource":"arn:aws:kinesis:us-east-1:000000000000:stream/a/*""#, Silent),
            (r#""NotResource":"*stream/b""#, AccountAllowed),
            (r#""NotResource":"*stream/a""#, Silent),
        ];
        let conditions = [
            (r#"{"StringEquals":{"aws:PrincipalAccount":["1","123456789012"]}}"#, AccountAllowed),
            (r#"{"StringEquals":{"aws:PrincipalAccount":"1"}}"#, Silent),
            (r#"{"StringEquals":{"AWS:USERNAME":"a*"}}"#, Silent),
            (r#"{"StringLike":{"aws:username":"a*"}}"#, AccountAllowed),
            (r#"{"StringNotLike":{"aws:username":"a*"}}"#, Silent),
            (r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/ann"}}"#, AccountAllowed),
            (r#"{"ArnNotEquals":{"aws:PrincipalArn":"arn:aws:iam::*:user/bob"}}"#, AccountAllowed),
            (r#"{"StringLike":{"aws:username":"a*"},"StringEquals":{"aws:PrincipalAccount":"1"}}"#, Silent),
        ];
        let rows = all.into_iter();
        let rows = rows.chain(principals.map(|(it, expected)| ("Allow", it, put, here, "{}", expected)));
        let rows = rows.chain(actions.map(|(it, expected)| ("Allow", account, it, here, "{}", expected)));
        let rows = rows.chain(resources.map(|(it, expected)| ("Allow", account, put, it, "{}", expected)));
        let rows = rows.chain(conditions.map(|(it, expected)| ("Allow", account, put, here, it, expected)));
        for (effect, principal, action, resource, condition, expected) in rows {
            let found = verdict(effect, principal, action, resource, condition);
            assert_eq!(found, expected, "{effect} {principal} {action} {resource} {condition}");
        }
    }

    #[test]
    fn a_denial_wins_whatever_stands_before_or_after_it() {
        let allow = r#"{"Effect":"Allow","Principal":"*","Action":"kinesis:*","Resource":"*"}"#;
        let deny = r#"{"Effect":"Deny","Principal":{"AWS":"123456789012"},"Action":"kinesis:Put*","Resource":"*"}"#;
        for statements in [format!("{allow},{deny}"), format!("{deny},{allow}")] {
            assert_eq!(policy(&statements).decide(&asking("kinesis:PutRecord")), Verdict::Denied);
            assert_eq!(policy(&statements).decide(&asking("kinesis:GetRecords")), Verdict::Allowed);
        }
        assert_eq!(policy("").decide(&asking("kinesis:GetRecords")), Verdict::Silent);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let with = |members: &str| format!(r#"{{"Statement":{{{members}}}}}"#);
        let sound = r#""Effect":"Allow","Principal":"*","Action":"kinesis:*","Resource":"*""#;
        assert!(Policy::parse(&with(sound)).is_ok());
        let rows = [
            ("no".to_string(), "expected"),
            ("{}".to_string(), "Statement"),
            (r#"{"Version":"2013-01-01","Statement":[]}"#.to_string(), "2012-10-17 or 2008-10-17"),
            (r#"{"Statement":[],"Nonsense":1}"#.to_string(), "Nonsense"),
            (with(&sound.replace("Allow", "Permit")), "statement 1: Effect \"Permit\""),
            (with(&sound.replace(r#""Principal":"*","#, "")), "no Principal"),
            (with(&sound.replace("Principal", "NotPrincipal")), "NotPrincipal"),
            (with(&sound.replace(r#":"*","Action""#, r#":{"Service":"lambda"},"Action""#)), "\"Service\" is not known"),
            (with(&sound.replace(r#":"*","Action""#, r#":{"AWS":[]},"Action""#)), "Principal is empty"),
            (with(&sound.replace(r#":"*","Action""#, r#":"1234*","Action""#)), "\"1234*\" is not allowed"),
            (with(&sound.replace("kinesis:*", "s3:*")), "\"s3:*\" is none"),
            (with(&sound.replace("kinesis:*", "kinesis:PutRecordz")), "\"kinesis:PutRecordz\" is none"),
            (with(&sound.replace(r#","Resource":"*""#, "")), "either Resource or NotResource"),
            (with(&format!(r#"{sound},"NotAction":"*""#)), "either Action or NotAction"),
            (with(&format!(r#"{sound},"Condition":{{"IpAddress":{{"aws:SourceIp":"1.1.1.1"}}}}"#)), "\"IpAddress\""),
            (with(&format!(r#"{sound},"Condition":{{"StringEquals":{{"aws:SourceVpc":"v"}}}}"#)), "\"aws:SourceVpc\""),
        ];
        for (text, says) in rows {
            let why = Policy::parse(&text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
        let many = vec![format!("{{{sound}}}"); STATEMENTS_MAX + 1].join(",");
        assert!(Policy::parse(&format!(r#"{{"Statement":[{many}]}}"#)).unwrap_err().contains("at most 100"));
    }

    #[test]
    fn the_operations_that_can_be_shared_are_operations() {
        assert!(SHARED.iter().all(|name| table().operation(name).is_some()));
    }
}

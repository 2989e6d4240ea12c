//! Who asks: the account and region of a signed request.
//!
//! Invariant: a request without a signature is refused, whatever the settings.

use std::collections::BTreeMap;

use http::request::Parts;

use super::names::{Caller, Home, is_account, is_region};
use super::wire::fault::{Fault, FaultKind};

/// What signatures are measured by.
pub struct Access {
    home: Home,
}

/// What a request says of its signature, in its header or its query.
struct Signature<'a> {
    /// KEY/DATE/REGION/SERVICE/aws4_request
    credential: &'a str,
}

impl Access {
    /// Any signature is good: a cluster of one's own, as emulators have it. An access key id of twelve digits says the account.
    pub fn development(home: Home) -> Access {
        Access { home }
    }

    /// Who asks, if that can be believed.
    pub fn admit(&self, head: &Parts, _body: &[u8], _now_ms: u64) -> Result<Caller, Fault> {
        let query = query(head);
        let header = head.headers.get("authorization").and_then(|it| it.to_str().ok());
        let by_query = query.contains_key("X-Amz-Algorithm");
        let signature = match (header, by_query) {
            (Some(_), true) => {
                let text = "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.";
                return Err(Fault::new(FaultKind::InvalidSignature, text));
            }
            (None, false) => {
                return Err(Fault::new(FaultKind::MissingAuthenticationToken, "Missing Authentication Token"));
            }
            (Some(header), false) => of_header(header, head)?,
            (None, true) => of_query(&query)?,
        };
        let mut scope = signature.credential.split('/');
        let (key, _date, region) = (scope.next().unwrap_or_default(), scope.next(), scope.next().unwrap_or_default());
        if !is_region(region) {
            let text = "Credential should be scoped to a valid region.";
            return Err(Fault::new(FaultKind::InvalidSignature, text));
        }
        let account = if is_account(key) { key } else { &self.home.account };
        Ok(Caller { account: account.to_string(), region: region.to_string() })
    }
}

fn query(head: &Parts) -> BTreeMap<&str, &str> {
    let pairs = head.uri.query().unwrap_or_default().split('&').filter(|it| !it.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect()
}

/// Every parameter that is missing is named, as the service does.
fn of_header<'a>(header: &'a str, head: &'a Parts) -> Result<Signature<'a>, Fault> {
    let parameters = header.split_once(' ').map_or("", |(_, rest)| rest);
    let pairs = parameters.split([',', ' ']).filter_map(|it| it.split_once('='));
    let given: BTreeMap<&str, &str> = pairs.collect();
    let mut missing = String::new();
    for name in ["Credential", "Signature", "SignedHeaders"] {
        if given.get(name).is_none_or(|it| it.is_empty()) {
            missing += &format!("Authorization header requires '{name}' parameter. ");
        }
    }
    if !head.headers.contains_key("x-amz-date") && !head.headers.contains_key("date") {
        missing += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ";
    }
    match missing.as_str() {
        "" => Ok(Signature { credential: given["Credential"] }),
        missing => {
            let shown: String = header.chars().take(1024).collect();
            Err(Fault::new(FaultKind::IncompleteSignature, format!("{missing}Authorization={shown}")))
        }
    }
}

fn of_query<'a>(query: &BTreeMap<&'a str, &'a str>) -> Result<Signature<'a>, Fault> {
    let mut missing = String::new();
    for name in ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"] {
        if query.get(name).is_none_or(|it| it.is_empty()) {
            missing += &format!("AWS query-string parameters must include '{name}'. ");
        }
    }
    match missing.as_str() {
        "" => Ok(Signature { credential: query["X-Amz-Credential"] }),
        missing => {
            let text = format!("{missing}Re-examine the query-string parameters.");
            Err(Fault::new(FaultKind::IncompleteSignature, text))
        }
    }
}

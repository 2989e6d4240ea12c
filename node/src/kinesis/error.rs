//! What the functions of `api` say → what the service would say: in this one place.
//!
//! Invariant: what may have been done is never called refused: it is an internal failure (500), after which the
//! service's SDKs try again, as they do against the service itself.

use braid_proto::v1::ErrorReason as Reason;
use tonic::Status;

use super::Asked;
use super::names::{Caller, Named};
use super::wire::fault::{Fault, FaultKind};
use crate::api::{ApiError, Explained};

/// What a call is about, for its messages.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    account: String,
    stream: String,
    shard: String,
}

impl Subject {
    /// A stream.
    pub fn stream(named: &Named) -> Subject {
        Subject { account: named.account.clone(), stream: named.local().to_string(), shard: String::new() }
    }

    /// A shard of a stream, by its name.
    pub fn shard(named: &Named, shard: &str) -> Subject {
        Subject { shard: shard.to_string(), ..Subject::stream(named) }
    }

    /// Whatever an iterator is for.
    pub fn iterator(caller: &Caller) -> Subject {
        Subject { account: caller.account.clone(), ..Subject::default() }
    }

    /// "Stream … under account … not found."
    pub fn not_found(&self) -> Fault {
        let Subject { account, stream, .. } = self;
        Fault::new(FaultKind::ResourceNotFound, format!("Stream {stream} under account {account} not found."))
    }
}

impl Asked<'_> {
    /// Of a call that changes or describes streams.
    pub(super) fn fault(&self, error: &ApiError, on: &Subject) -> Fault {
        of_explained(&error.explain(), on)
    }

    /// Of a call that writes or reads records: for those, a stream that is being created or deleted is not there.
    pub(super) fn data_fault(&self, error: &ApiError, on: &Subject) -> Fault {
        of_record(&error.explain(), on)
    }
}

/// Of a record, or of a call that writes or reads records.
pub fn of_record(why: &Explained, on: &Subject) -> Fault {
    match why.detail.reason() {
        Reason::StreamNotActive => on.not_found(),
        // Its children are not known yet: it may be tried again.
        Reason::ShardClosed | Reason::WrongRange => internal(why),
        _ => of_explained(why, on),
    }
}

/// Of a subscription that broke off. `None`: it just ends, and its consumer goes on at another node.
pub fn of_interruption(status: Status, on: &Subject) -> Option<Fault> {
    let why = ApiError::Passed(status).explain();
    match why.detail.reason() {
        Reason::NotLeader | Reason::NoLeader | Reason::NodeStopping | Reason::OutcomeUnknown => None,
        _ => Some(of_record(&why, on)),
    }
}

fn of_explained(why: &Explained, on: &Subject) -> Fault {
    let Subject { account, stream, shard } = on;
    let text = &why.message;
    let said = |kind| Fault::new(kind, capital(text));
    match why.detail.reason() {
        Reason::InvalidArgument => said(FaultKind::InvalidArgument),
        Reason::StreamNotFound if stream.is_empty() => said(FaultKind::ResourceNotFound),
        Reason::StreamNotFound => on.not_found(),
        Reason::ShardNotFound | Reason::ShardForgotten if stream.is_empty() => said(FaultKind::ResourceNotFound),
        Reason::ShardNotFound | Reason::ShardForgotten => Fault::new(
            FaultKind::ResourceNotFound,
            format!("Shard {shard} in stream {stream} under account {account} does not exist"),
        ),
        Reason::StreamExists => {
            Fault::new(FaultKind::ResourceInUse, format!("Stream {stream} under account {account} already exists."))
        }
        Reason::StreamNotActive => Fault::new(
            FaultKind::ResourceInUse,
            format!("Stream {stream} under account {account} not ACTIVE, instead in state {}", state(text)),
        ),
        Reason::ShardClosed => Fault::argument(format!(
            "Shard {shard} in stream {stream} under account {account} has already been merged or split, and thus is \
             not eligible for merging or splitting."
        )),
        Reason::ConsumerNotFound | Reason::PolicyNotFound => said(FaultKind::ResourceNotFound),
        Reason::ConsumerExists | Reason::Subscribed => said(FaultKind::ResourceInUse),
        Reason::IteratorInvalid => Fault::argument("Invalid ShardIterator."),
        Reason::IteratorExpired => said(FaultKind::ExpiredIterator),
        Reason::NextTokenInvalid => Fault::argument("Invalid NextToken."),
        Reason::NextTokenExpired => said(FaultKind::ExpiredNextToken),
        Reason::LimitExceeded => said(FaultKind::LimitExceeded),
        Reason::Throttled => {
            let of = if shard.is_empty() {
                String::new()
            } else {
                format!(" for shard {shard} in stream {stream} under account {account}")
            };
            Fault::new(FaultKind::ProvisionedThroughputExceeded, format!("Rate exceeded{of}: {text}."))
        }
        Reason::Unsupported => Fault { kind: FaultKind::UnknownOperation, message: None },
        Reason::Overloaded => said(FaultKind::ServiceUnavailable),
        Reason::WrongRange
        | Reason::GroupNotFound
        | Reason::NodeNotFound
        | Reason::NotLeader
        | Reason::NoLeader
        | Reason::NodeStopping
        | Reason::OutcomeUnknown
        | Reason::PredecessorRefused
        | Reason::Damaged
        | Reason::Internal
        | Reason::Unspecified => internal(why),
    }
}

fn internal(why: &Explained) -> Fault {
    Fault::new(FaultKind::InternalFailure, capital(&why.message))
}

/// The status that our message ends with.
fn state(text: &str) -> String {
    let known = ["CREATING", "ACTIVE", "UPDATING", "DELETING"];
    let upper = text.to_uppercase();
    known.into_iter().find(|state| upper.contains(state)).unwrap_or("UPDATING").to_string()
}

/// Ours begin with a small letter, theirs with a capital one.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().to_string() + chars.as_str())
}

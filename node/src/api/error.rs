//! What can go wrong with a call, and the one place where that becomes a gRPC status.
//!
//! Invariant: every status carries one `ErrorDetail`, and its `outcome` is REFUSED only where the
//! write certainly was not done and will not be.

use std::time::Duration;

use braid_probe::{Bug, Mark, planted, reachable};
use braid_proto::google_rpc;
use braid_proto::v1::{ErrorDetail, ErrorReason as Reason, Outcome, ShardLimit};
use braid_stream::catalog::{
    AttributeError, CatalogError, GroupError, NodeError, ReshardError, ShardCountError, StreamError, StreamStatus,
};
use braid_stream::group::Refused;
use braid_stream::ids::{GroupId, ShardId};
use braid_stream::iterator::TokenError;
use braid_stream::record::RequestError;
use braid_stream::scale::ScaleError;
use braid_stream::throttle::{Limit, Throttled};
use prost::{Message, Name};
use prost_types::Any;
use tonic::{Code, Status};

use crate::read::ReadError;
use crate::replication::ProposeError;
use crate::routing::RouteError;

/// When to try again after an election or a hand-over: it takes about a second.
const ELECTION_RETRY_MS: u64 = 100;
/// When to try again what was refused because of the load.
const OVERLOAD_RETRY_MS: u64 = 50;

/// Why a call failed.
#[derive(Clone, Debug)]
pub enum ApiError {
    /// A field is malformed or out of its limits.
    Invalid {
        /// As a path, such as `records[3].partition_key`.
        field: String,
        /// What is wrong and what is allowed.
        why: String,
    },
    /// The records of a call are too many or too large.
    Request(RequestError),
    /// Nowhere to send it. Nothing was done.
    Route(RouteError),
    /// The leader that would have been asked is not one. Nothing was done.
    NotLeader {
        /// The group.
        group: GroupId,
        /// Where its leader serves clients, if known.
        leader: Option<String>,
    },
    /// A shard's rate.
    Throttled(Throttled),
    /// Too much is waiting. Nothing was done.
    Overloaded {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The group would not take it.
    Refused(Refused),
    /// An earlier record of the same shard in the same call was refused.
    PredecessorRefused(ShardId),
    /// The catalog would not take it.
    Catalog(CatalogError),
    /// It may have been done, or may yet be.
    Unknown {
        /// What happened.
        why: String,
    },
    /// The replica or the node is stopping. Nothing was done.
    Stopping {
        /// What is.
        why: String,
    },
    /// Reading failed.
    Read {
        /// The group read.
        group: GroupId,
        /// How.
        error: std::sync::Arc<ReadError>,
    },
    /// A shard iterator is not good.
    Iterator(TokenError),
    /// A page token is not good.
    PageToken(super::page::PageTokenError),
    /// Nothing of this name.
    NoSuchShardName(String),
    /// A shard that was there, and is gone.
    ShardForgotten(String),
    /// No such group.
    NoGroup(u32),
    /// Not a node, or not a replica of the group.
    NoNode {
        /// What is wrong with it.
        why: String,
    },
    /// A replica that was to lead can't be reached, or may not. Nothing was done.
    CannotLead {
        /// Why not.
        why: String,
    },
    /// More than one of the node's or cluster's limits allows.
    LimitExceeded {
        /// Which.
        why: String,
    },
    /// The consumer has subscribed to the shard a moment ago.
    Subscribed,
    /// Another node said so: its status, whole.
    Passed(Status),
}

impl ApiError {
    /// A malformed field.
    pub fn invalid(field: impl Into<String>, why: impl ToString) -> ApiError {
        ApiError::Invalid { field: field.into(), why: why.to_string() }
    }

    /// A proposal's failure, for a group whose leader may be at `leader`.
    pub fn of_proposal(group: GroupId, error: ProposeError, leader: Option<String>) -> ApiError {
        match error {
            ProposeError::NotLeader { .. } => ApiError::NotLeader { group, leader },
            ProposeError::Overloaded { retry_after_ms } => ApiError::Overloaded { retry_after_ms },
            ProposeError::Unknown { why } => ApiError::Unknown { why },
            ProposeError::Stopped { why } => ApiError::Stopping { why },
        }
    }

    /// What is wrong with the size of a call's records, if that is it.
    pub fn as_request(&self) -> Option<&RequestError> {
        match self {
            ApiError::Request(error) => Some(error),
            _ => None,
        }
    }

    /// What a client is told: code, detail, text.
    pub fn explain(&self) -> Explained {
        match self {
            ApiError::Invalid { field, why } => {
                let mut it = Explained::new(Code::InvalidArgument, Reason::InvalidArgument, format!("{field}: {why}"));
                it.detail.field.clone_from(field);
                it
            }
            ApiError::Request(error) => match error {
                RequestError::Record { nth, error } => {
                    ApiError::invalid(format!("records[{nth}].data"), error).explain()
                }
                RequestError::Count { .. } | RequestError::Bytes { .. } => {
                    ApiError::invalid("records", error).explain()
                }
            },
            ApiError::Route(error) => of_route(error),
            ApiError::NotLeader { group, leader } => not_leader(*group, leader),
            ApiError::Throttled(throttled) => {
                let mut it = Explained::new(Code::ResourceExhausted, Reason::Throttled, throttled.to_string())
                    .retry(throttled.retry_after_ms);
                it.detail.limit = shard_limit(throttled.limit) as i32;
                it.detail.limit_used_percent = u32::try_from(throttled.used_percent).unwrap_or(u32::MAX);
                it
            }
            ApiError::Overloaded { retry_after_ms } => Explained::new(
                Code::Unavailable,
                Reason::Overloaded,
                format!("the node has more work than it takes on: try again in {retry_after_ms} ms"),
            )
            .retry(*retry_after_ms),
            ApiError::Refused(refused) => of_refused(refused),
            ApiError::PredecessorRefused(shard) => Explained::new(
                Code::Aborted,
                Reason::PredecessorRefused,
                format!("an earlier record for {} in this call was refused, and keep_order is set", shard.name()),
            )
            .retry(0),
            ApiError::Catalog(error) => of_catalog(error),
            ApiError::Unknown { why } => {
                Explained::new(Code::Aborted, Reason::OutcomeUnknown, format!("outcome unknown: {why}")).unknown()
            }
            ApiError::Stopping { why } => {
                Explained::new(Code::Unavailable, Reason::NodeStopping, why.clone()).retry(ELECTION_RETRY_MS)
            }
            ApiError::Read { group, error } => of_read(*group, error),
            ApiError::Iterator(error) => of_iterator(error),
            ApiError::PageToken(error) => of_page_token(error),
            ApiError::NoSuchShardName(why) => Explained::new(Code::NotFound, Reason::ShardNotFound, why.clone()),
            ApiError::ShardForgotten(why) => Explained::new(Code::NotFound, Reason::ShardForgotten, why.clone()),
            ApiError::NoGroup(group) => {
                Explained::new(Code::NotFound, Reason::GroupNotFound, format!("there is no group {group}"))
            }
            ApiError::CannotLead { why } => {
                Explained::new(Code::FailedPrecondition, Reason::InvalidArgument, why.clone())
            }
            ApiError::NoNode { why } => Explained::new(Code::NotFound, Reason::NodeNotFound, why.clone()),
            ApiError::LimitExceeded { why } => {
                Explained::new(Code::ResourceExhausted, Reason::LimitExceeded, why.clone()).retry(1_000)
            }
            ApiError::Subscribed => {
                let text = "the consumer has subscribed to this shard a moment ago".to_string();
                Explained::new(Code::FailedPrecondition, Reason::Subscribed, text).retry(5_000)
            }
            ApiError::Passed(status) => of_status(status),
        }
    }
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> ApiError {
        ApiError::Route(error)
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Status {
        match error {
            ApiError::Passed(status) => passed(status),
            error => error.explain().into_status(),
        }
    }
}

/// A code, a detail and a text.
#[derive(Clone, Debug)]
pub struct Explained {
    /// gRPC's.
    pub code: Code,
    /// Ours.
    pub detail: ErrorDetail,
    /// For people.
    pub message: String,
}

impl Explained {
    /// Refused for good: not retryable, nothing done.
    fn new(code: Code, reason: Reason, message: String) -> Explained {
        let detail = ErrorDetail { reason: reason as i32, outcome: Outcome::Refused as i32, ..ErrorDetail::default() };
        Explained { code, detail, message }
    }

    fn retry(mut self, after_ms: u64) -> Explained {
        self.detail.retryable = true;
        self.detail.retry_after_ms = u32::try_from(after_ms).unwrap_or(u32::MAX);
        self
    }

    fn unknown(mut self) -> Explained {
        self.detail.outcome = Outcome::Unknown as i32;
        self.detail.retryable = true;
        self
    }

    fn group(mut self, group: GroupId) -> Explained {
        self.detail.group = Some(group.0);
        self
    }

    /// Whether certainly nothing was done, and another node may do it.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.detail.reason(), Reason::NotLeader | Reason::NoLeader)
            && self.detail.outcome() == Outcome::Refused
    }

    /// As the status of a whole call.
    pub fn into_status(self) -> Status {
        let envelope = google_rpc::Status {
            code: self.code as i32,
            message: self.message.clone(),
            details: vec![Any { type_url: ErrorDetail::type_url(), value: self.detail.encode_to_vec() }],
        };
        Status::with_details(self.code, self.message, envelope.encode_to_vec().into())
    }
}

/// The request was not started because too many others are being served.
pub fn shed() -> Status {
    let text = "the node serves as many requests as it may; try again".to_string();
    Explained::new(Code::ResourceExhausted, Reason::Overloaded, text).retry(OVERLOAD_RETRY_MS).into_status()
}

/// The request's time is over, and it is not.
pub fn deadline_exceeded(after: Duration) -> Status {
    let text = format!("no result within {} ms", after.as_millis());
    reachable!(Mark::DeadlineExceeded);
    if planted(Bug::DeadlineIsRefused) {
        return Explained::new(Code::Unavailable, Reason::NoLeader, text).retry(ELECTION_RETRY_MS).into_status();
    }
    Explained::new(Code::DeadlineExceeded, Reason::OutcomeUnknown, text).unknown().into_status()
}

/// A request that never became one of our messages: too long, not what its call takes, or of no
/// call there is. tonic's own words say which; certainly nothing was done.
pub fn unread(status: Status) -> Status {
    let text = status.message().to_string();
    match status.code() {
        Code::OutOfRange | Code::Internal | Code::InvalidArgument => {
            let text = format!("the request cannot be read: {text}");
            Explained::new(Code::InvalidArgument, Reason::InvalidArgument, text).into_status()
        }
        Code::Unimplemented => {
            let text = if text.is_empty() { "there is no such call".to_string() } else { text };
            Explained::new(Code::Unimplemented, Reason::Unsupported, text).into_status()
        }
        _ => status,
    }
}

/// The code that goes with a reason, for a record's refusal that becomes its call's.
fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::InvalidArgument | Reason::IteratorInvalid | Reason::NextTokenInvalid => Code::InvalidArgument,
        Reason::StreamNotFound | Reason::ShardNotFound | Reason::GroupNotFound | Reason::NodeNotFound => Code::NotFound,
        Reason::ShardForgotten | Reason::ConsumerNotFound | Reason::PolicyNotFound => Code::NotFound,
        Reason::StreamExists | Reason::ConsumerExists => Code::AlreadyExists,
        Reason::StreamNotActive
        | Reason::ShardClosed
        | Reason::WrongRange
        | Reason::IteratorExpired
        | Reason::NextTokenExpired
        | Reason::Subscribed => Code::FailedPrecondition,
        Reason::LimitExceeded | Reason::Throttled => Code::ResourceExhausted,
        Reason::Overloaded | Reason::NotLeader | Reason::NoLeader | Reason::NodeStopping => Code::Unavailable,
        Reason::OutcomeUnknown | Reason::PredecessorRefused => Code::Aborted,
        Reason::Damaged => Code::DataLoss,
        Reason::Unsupported => Code::Unimplemented,
        Reason::Internal | Reason::Unspecified => Code::Internal,
    }
}

/// What another node said of one record, from the answer's own words.
pub fn of_detail(detail: ErrorDetail, message: String) -> Explained {
    Explained { code: code_of(detail.reason()), detail, message }
}

/// The detail that a node gave with its status, if it did.
pub fn detail_of(status: &Status) -> Option<ErrorDetail> {
    let envelope = google_rpc::Status::decode(status.details()).ok()?;
    let any = envelope.details.iter().find(|any| any.type_url == ErrorDetail::type_url())?;
    ErrorDetail::decode(any.value.as_slice()).ok()
}

/// A status from another node, without the metadata of that connection.
fn passed(status: Status) -> Status {
    match status.details().is_empty() {
        true => of_status(&status).into_status(),
        false => Status::with_details(status.code(), status.message(), bytes::Bytes::copy_from_slice(status.details())),
    }
}

fn of_status(status: &Status) -> Explained {
    match detail_of(status) {
        Some(detail) => Explained { code: status.code(), detail, message: status.message().to_string() },
        // Not from a node's API: the connection broke, or something between answered.
        None => Explained::new(
            Code::Aborted,
            Reason::OutcomeUnknown,
            format!("the leader's node did not answer: {}: {}", status.code(), status.message()),
        )
        .unknown(),
    }
}

fn not_leader(group: GroupId, leader: &Option<String>) -> Explained {
    reachable!(Mark::NotLeaderRefusal);
    let text = match leader {
        Some(address) => format!("group {group} is led by the node at {address}"),
        None => format!("this node does not lead group {group}"),
    };
    let mut it = Explained::new(Code::Unavailable, Reason::NotLeader, text).retry(0).group(group);
    it.detail.leader_address = leader.clone().unwrap_or_default();
    if leader.is_none() {
        it = it.retry(ELECTION_RETRY_MS);
    }
    it
}

fn of_route(error: &RouteError) -> Explained {
    match error {
        RouteError::NotReady => {
            Explained::new(Code::Unavailable, Reason::NoLeader, "this node has not joined its cluster yet".into())
                .retry(ELECTION_RETRY_MS)
        }
        RouteError::NoStream(name) => {
            Explained::new(Code::NotFound, Reason::StreamNotFound, format!("there is no stream {name}"))
        }
        RouteError::NotServing(name, status) => {
            let text = format!("stream {name} is {}", status_name(*status));
            let it = Explained::new(Code::FailedPrecondition, Reason::StreamNotActive, text);
            match status {
                StreamStatus::Deleting => it,
                _ => it.retry(ELECTION_RETRY_MS),
            }
        }
        RouteError::NoShard(shard) => {
            Explained::new(Code::NotFound, Reason::ShardNotFound, format!("there is no shard {shard}"))
        }
        RouteError::NoLeader(group) => {
            let text = format!("group {group} has no leader at the moment");
            Explained::new(Code::Unavailable, Reason::NoLeader, text).retry(ELECTION_RETRY_MS).group(*group)
        }
        RouteError::NotHere { group, leader } => not_leader(*group, leader),
    }
}

/// A group does not have a shard that this node's catalog has, or the request would not have come this far: the stream was
/// deleted, or the shard forgotten, and this catalog is a moment behind. It may even be there again under the same name,
/// so nothing is denied here: who asks again is told for certain.
fn catalog_behind(text: String) -> Explained {
    let text = format!("{text}, and this node's catalog is behind");
    Explained::new(Code::Unavailable, Reason::NoLeader, text).retry(ELECTION_RETRY_MS)
}

fn of_refused(refused: &Refused) -> Explained {
    let text = refused.to_string();
    match refused {
        Refused::NoSuchShard { .. } => catalog_behind(text),
        Refused::Closed { .. } => {
            Explained::new(Code::FailedPrecondition, Reason::ShardClosed, text).retry(ELECTION_RETRY_MS)
        }
        Refused::WrongRange { .. } => {
            Explained::new(Code::FailedPrecondition, Reason::WrongRange, text).retry(ELECTION_RETRY_MS)
        }
    }
}

fn of_catalog(error: &CatalogError) -> Explained {
    let text = error.to_string();
    let refused = |code, reason| Explained::new(code, reason, text.clone());
    let invalid = |field: &str| {
        let mut it = refused(Code::InvalidArgument, Reason::InvalidArgument);
        it.detail.field = field.into();
        it
    };
    match error {
        CatalogError::NotInitialised => refused(Code::Unavailable, Reason::NoLeader).retry(ELECTION_RETRY_MS),
        CatalogError::Stream(it) => match it {
            StreamError::Exists { .. } => refused(Code::AlreadyExists, Reason::StreamExists),
            StreamError::NoSuchName { .. } | StreamError::NoSuchStream { .. } => {
                refused(Code::NotFound, Reason::StreamNotFound)
            }
            StreamError::Status { .. } => {
                refused(Code::FailedPrecondition, Reason::StreamNotActive).retry(ELECTION_RETRY_MS)
            }
            StreamError::Shards { .. } => invalid("shard_count"),
            StreamError::Retention { .. } => invalid("retention_ms"),
            StreamError::Limit(error) => invalid(match error.limit {
                "record_bytes_max" => "max_record_bytes",
                limit => limit,
            }),
            StreamError::Reshard(it) => match it {
                ReshardError::NoSuchShard { .. } => refused(Code::NotFound, Reason::ShardNotFound),
                ReshardError::Closed { .. } => refused(Code::FailedPrecondition, Reason::ShardClosed),
                ReshardError::SplitKey { .. } => invalid("new_starting_hash_key"),
                ReshardError::NotAdjacent { .. } | ReshardError::Twice { .. } => invalid("adjacent_shard_to_merge"),
                ReshardError::Exhausted { .. } => refused(Code::ResourceExhausted, Reason::LimitExceeded),
                ReshardError::Nothing | ReshardError::NoSuchStep { .. } => refused(Code::Internal, Reason::Internal),
            },
            StreamError::Forget(_) => refused(Code::Internal, Reason::Internal),
            StreamError::ShardCount(it) => {
                let mut why = match it {
                    ShardCountError::Bounds(_) => return invalid("autoscale"),
                    ShardCountError::Plan(ScaleError::Count { .. } | ScaleError::Narrow { .. }) => {
                        return invalid("target_shard_count");
                    }
                    ShardCountError::Plan(ScaleError::Room { .. }) | ShardCountError::Factor { .. } => {
                        refused(Code::ResourceExhausted, Reason::LimitExceeded)
                    }
                    ShardCountError::Calls { retry_after_ms } => {
                        refused(Code::ResourceExhausted, Reason::LimitExceeded).retry(*retry_after_ms)
                    }
                    ShardCountError::Plan(ScaleError::NotTiled { .. }) => refused(Code::Internal, Reason::Internal),
                };
                why.detail.field = "target_shard_count".into();
                why
            }
            StreamError::NoGroups => refused(Code::Unavailable, Reason::NoLeader).retry(1_000),
            StreamError::TooMany => refused(Code::ResourceExhausted, Reason::LimitExceeded),
        },
        CatalogError::Attribute(it) => match it {
            AttributeError::TooMany { .. } => refused(Code::ResourceExhausted, Reason::LimitExceeded),
            AttributeError::TooLong { .. } => refused(Code::InvalidArgument, Reason::InvalidArgument),
            AttributeError::NoSuchConsumer { .. } => refused(Code::NotFound, Reason::ConsumerNotFound),
            AttributeError::ConsumerExists { .. } => refused(Code::AlreadyExists, Reason::ConsumerExists),
            AttributeError::NoPolicy => refused(Code::NotFound, Reason::PolicyNotFound),
        },
        CatalogError::Group(GroupError::TooMany) => refused(Code::ResourceExhausted, Reason::LimitExceeded),
        CatalogError::Node(NodeError::Unknown { .. }) => refused(Code::NotFound, Reason::NodeNotFound),
        CatalogError::Node(_) => refused(Code::FailedPrecondition, Reason::InvalidArgument),
        CatalogError::Init(_) | CatalogError::Group(_) => refused(Code::Internal, Reason::Internal),
    }
}

fn of_read(group: GroupId, error: &ReadError) -> Explained {
    let text = error.to_string();
    match error {
        ReadError::NoSuchShard(_) => catalog_behind(text),
        // Where a call has a field for the number, it names it itself.
        ReadError::WrongSequence { .. } => Explained::new(Code::InvalidArgument, Reason::InvalidArgument, text),
        ReadError::Damaged { .. } => Explained::new(Code::DataLoss, Reason::Damaged, text).group(group),
        ReadError::NotLeader { .. } => Explained::new(Code::Unavailable, Reason::NotLeader, text).group(group),
        ReadError::Stopped { .. } => {
            Explained::new(Code::Unavailable, Reason::NodeStopping, text).retry(ELECTION_RETRY_MS)
        }
    }
}

fn of_iterator(error: &TokenError) -> Explained {
    let text = error.to_string();
    match error {
        TokenError::Expired { .. } => Explained::new(Code::FailedPrecondition, Reason::IteratorExpired, text),
        TokenError::WrongStream { .. } => Explained::new(Code::NotFound, Reason::StreamNotFound, text),
        TokenError::Malformed { .. }
        | TokenError::UnknownVersion { .. }
        | TokenError::Forged
        | TokenError::WrongShard { .. } => {
            let mut it = Explained::new(Code::InvalidArgument, Reason::IteratorInvalid, text);
            it.detail.field = "shard_iterator".into();
            it
        }
    }
}

fn of_page_token(error: &super::page::PageTokenError) -> Explained {
    use super::page::PageTokenError::{Expired, Invalid};
    let text = error.to_string();
    match error {
        Expired { .. } => Explained::new(Code::FailedPrecondition, Reason::NextTokenExpired, text),
        Invalid => {
            let mut it = Explained::new(Code::InvalidArgument, Reason::NextTokenInvalid, text);
            it.detail.field = "next_token".into();
            it
        }
    }
}

fn shard_limit(limit: Limit) -> ShardLimit {
    match limit {
        Limit::BytesIn => ShardLimit::BytesIn,
        Limit::RecordsIn => ShardLimit::RecordsIn,
        Limit::BytesOut => ShardLimit::BytesOut,
        Limit::CallsOut => ShardLimit::CallsOut,
    }
}

/// A status in the words of the API.
fn status_name(status: StreamStatus) -> &'static str {
    match status {
        StreamStatus::Creating => "CREATING",
        StreamStatus::Active => "ACTIVE",
        StreamStatus::Updating => "UPDATING",
        StreamStatus::Deleting => "DELETING",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: ApiError) -> (Code, ErrorDetail) {
        let status = Status::from(error);
        (status.code(), detail_of(&status).expect("every status has a detail"))
    }

    #[test]
    fn only_what_is_certain_is_called_refused() {
        let (code, detail) = of(ApiError::Unknown { why: "the leader was lost".into() });
        assert_eq!((code, detail.outcome()), (Code::Aborted, Outcome::Unknown));
        let (_, detail) = of(ApiError::NotLeader { group: GroupId(3), leader: Some("b:1".into()) });
        assert_eq!(detail.outcome(), Outcome::Refused);
        assert_eq!((detail.leader_address.as_str(), detail.group, detail.retry_after_ms), ("b:1", Some(3), 0));
        let late = deadline_exceeded(Duration::from_millis(5));
        assert_eq!(detail_of(&late).unwrap().outcome(), Outcome::Unknown);
    }

    #[test]
    fn a_status_of_another_node_keeps_its_detail_and_one_without_is_unknown() {
        let theirs = Status::from(ApiError::Overloaded { retry_after_ms: 20 });
        let (code, detail) = of(ApiError::Passed(theirs));
        assert_eq!((code, detail.reason(), detail.retry_after_ms), (Code::Unavailable, Reason::Overloaded, 20));
        let (code, detail) = of(ApiError::Passed(Status::unavailable("connection reset")));
        assert_eq!((code, detail.outcome()), (Code::Aborted, Outcome::Unknown));
    }

    #[test]
    fn the_field_and_the_limit_are_named() {
        let (code, detail) = of(ApiError::invalid("records[3].partition_key", "partition key is empty"));
        assert_eq!((code, detail.field.as_str()), (Code::InvalidArgument, "records[3].partition_key"));
        assert!(!detail.retryable);
        let throttled = Throttled { limit: Limit::RecordsIn, per_s: 1000, retry_after_ms: 7, used_percent: 100 };
        let (code, detail) = of(ApiError::Throttled(throttled));
        assert_eq!((code, detail.limit(), detail.retry_after_ms), (Code::ResourceExhausted, ShardLimit::RecordsIn, 7));
        assert!(detail.retryable);
    }
}

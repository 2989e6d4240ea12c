//! What a failed call means: was anything done, may it be tried again, when and where.
//!
//! Owns the one place where gRPC statuses become knowledge. Its invariant: a failure's effect is
//! [`Effect::NotDone`] only where that is certain: a node said so in an `ErrorDetail`, or the
//! connection the request needed was never made. It retries nothing itself.

use std::error::Error;
use std::fmt;
use std::time::Duration;

pub use braid_proto::v1::ErrorReason as Reason;
use braid_proto::v1::{ErrorDetail, Outcome as WireOutcome};
use braid_transport::never_sent;
use prost::{Message, Name};
use tonic::{Code, Status};

/// What is known of a failed request's effect.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Effect {
    /// Certainly not carried out, now or later.
    NotDone,
    /// It may have been carried out, and may yet be.
    Unknown,
}

/// What a failed call says about the node it was sent to.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Contact {
    /// A server answered.
    Answered,
    /// The connection broke under the request; the next one may do better.
    Broken,
    /// No connection was made, or nothing came back in time.
    Unreachable,
}

/// A failed call, understood.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub effect: Effect,
    pub reason: Reason,
    pub message: String,
    /// The request's field at fault; empty if none.
    pub field: String,
    /// The same request can succeed later.
    pub retryable: bool,
    /// Wait at least this long before that.
    pub retry_after: Duration,
    /// Where the group's leader is, if the node said so.
    pub leader: Option<String>,
    pub contact: Contact,
}

impl Failure {
    /// Reads a status as it came from tonic.
    pub fn of(status: &Status) -> Failure {
        match detail(status) {
            Some(detail) => Failure::answered(status, detail),
            None => Failure::unanswered(status),
        }
    }

    /// No answer within the request's time.
    pub fn timed_out(after: Duration) -> Failure {
        Failure::lost(Effect::Unknown, Contact::Unreachable, format!("no answer within {} ms", after.as_millis()))
    }

    /// An answer that can't be read, or a task that died: nothing is known.
    pub fn unreadable(message: String) -> Failure {
        Failure::lost(Effect::Unknown, Contact::Broken, message)
    }

    /// Nothing was sent to the node at all.
    pub fn not_sent(message: String) -> Failure {
        Failure::lost(Effect::NotDone, Contact::Unreachable, message)
    }

    /// A server answered; otherwise the node, or the way to it, is suspect.
    pub fn is_answer(&self) -> bool {
        self.contact == Contact::Answered
    }

    fn answered(status: &Status, detail: ErrorDetail) -> Failure {
        // A node that leaves `outcome` out says nothing about a write. Reasons that by their
        // contract mean "nothing was done" are taken at their word.
        let effect = match detail.outcome() {
            WireOutcome::Refused => Effect::NotDone,
            WireOutcome::Unknown | WireOutcome::Appended => Effect::Unknown,
            WireOutcome::Unspecified => match detail.reason() {
                Reason::Unspecified | Reason::OutcomeUnknown | Reason::Internal | Reason::Damaged => Effect::Unknown,
                _ => Effect::NotDone,
            },
        };
        Failure {
            effect,
            reason: detail.reason(),
            message: status.message().to_owned(),
            field: detail.field,
            retryable: detail.retryable,
            retry_after: Duration::from_millis(detail.retry_after_ms.into()),
            leader: Some(detail.leader_address).filter(|address| !address.is_empty()),
            contact: Contact::Answered,
        }
    }

    fn unanswered(status: &Status) -> Failure {
        if never_sent(status) {
            return Failure::not_sent(status.message().to_owned());
        }
        // Neither tonic nor hyper make these up on the client's side: a server looked at the
        // request and turned it down before any of our code saw it.
        let refused = matches!(
            status.code(),
            Code::Unimplemented
                | Code::Unauthenticated
                | Code::PermissionDenied
                | Code::InvalidArgument
                | Code::NotFound
        );
        if !refused {
            let message = format!("{}: {}", status.code(), status.message());
            return Failure::lost(Effect::Unknown, Contact::Broken, message);
        }
        Failure {
            effect: Effect::NotDone,
            reason: match status.code() {
                Code::Unimplemented => Reason::Unsupported,
                Code::InvalidArgument => Reason::InvalidArgument,
                _ => Reason::Unspecified,
            },
            message: format!("{}: {}", status.code(), status.message()),
            field: String::new(),
            retryable: false,
            retry_after: Duration::ZERO,
            leader: None,
            contact: Contact::Answered,
        }
    }

    fn lost(effect: Effect, contact: Contact, message: String) -> Failure {
        Failure {
            effect,
            reason: Reason::Unspecified,
            message,
            field: String::new(),
            retryable: true,
            retry_after: Duration::ZERO,
            leader: None,
            contact,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Unspecified => f.write_str(&self.message),
            reason => write!(f, "{}: {}", reason.as_str_name(), self.message),
        }
    }
}

/// The one `braid.v1.ErrorDetail` of a status, inside its `google.rpc.Status`.
fn detail(status: &Status) -> Option<ErrorDetail> {
    let envelope = braid_proto::google_rpc::Status::decode(status.details()).ok()?;
    let suffix = ErrorDetail::full_name();
    envelope
        .details
        .iter()
        .find(|any| any.type_url.rsplit('/').next() == Some(suffix.as_str()))
        .and_then(|any| ErrorDetail::decode(any.value.as_slice()).ok())
}

/// Why an admin or a control call failed.
#[derive(Clone, Debug)]
pub enum CallError {
    /// A node said no, and retrying is useless or was tried for long enough. Nothing was done.
    Refused {
        /// Why.
        reason: Reason,
        /// For people, with values in it.
        message: String,
        /// The request's field at fault, as a path; empty if none.
        field: String,
    },
    /// No node could be made to serve the request in time. Nothing was done.
    Unavailable {
        /// What the last attempt met.
        message: String,
    },
    /// The request may or may not have been carried out.
    Unknown {
        /// What was seen.
        message: String,
    },
}

impl CallError {
    /// The reason a node gave, if one did.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            CallError::Refused { reason, .. } => Some(*reason),
            _ => None,
        }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> CallError {
        match (failure.effect, failure.is_answer()) {
            (Effect::Unknown, _) => CallError::Unknown { message: failure.to_string() },
            (Effect::NotDone, true) => {
                CallError::Refused { reason: failure.reason, message: failure.message, field: failure.field }
            }
            (Effect::NotDone, false) => CallError::Unavailable { message: failure.message },
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Refused { reason, message, .. } => write!(f, "refused ({}): {message}", reason.as_str_name()),
            CallError::Unavailable { message } => {
                write!(f, "no node served the request: {message}")
            }
            CallError::Unknown { message } => {
                write!(f, "the request may or may not have been done: {message}")
            }
        }
    }
}

impl Error for CallError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_with(code: Code, detail: ErrorDetail) -> Status {
        let envelope = braid_proto::google_rpc::Status {
            code: code as i32,
            message: "m".to_owned(),
            details: vec![prost_types::Any { type_url: ErrorDetail::type_url(), value: detail.encode_to_vec() }],
        };
        Status::with_details(code, "m", envelope.encode_to_vec().into())
    }

    #[test]
    fn a_detail_is_read_and_believed() {
        let failure = Failure::of(&status_with(
            Code::Unavailable,
            ErrorDetail {
                reason: Reason::NotLeader.into(),
                retryable: true,
                retry_after_ms: 7,
                leader_address: "n2:7000".to_owned(),
                group: Some(3),
                ..Default::default()
            },
        ));
        assert_eq!(failure.effect, Effect::NotDone);
        assert_eq!(failure.leader, Some("n2:7000".to_owned()));
        assert_eq!(failure.retry_after, Duration::from_millis(7));
        assert!(failure.is_answer() && failure.retryable);
    }

    #[test]
    fn a_statement_about_the_outcome_beats_the_reason() {
        for (outcome, effect) in [(WireOutcome::Refused, Effect::NotDone), (WireOutcome::Unknown, Effect::Unknown)] {
            let detail = ErrorDetail { reason: Reason::Internal.into(), outcome: outcome.into(), ..Default::default() };
            assert_eq!(Failure::of(&status_with(Code::Internal, detail)).effect, effect);
        }
    }

    #[test]
    fn without_a_detail_nearly_everything_is_unknown() {
        for code in [
            Code::Unavailable,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::Unknown,
            Code::ResourceExhausted,
            Code::OutOfRange,
        ] {
            let failure = Failure::of(&Status::new(code, "x"));
            assert_eq!(failure.effect, Effect::Unknown, "{code:?}");
            assert_eq!(failure.contact, Contact::Broken, "{code:?}");
        }
        assert_eq!(Failure::of(&Status::unimplemented("x")).effect, Effect::NotDone);
    }
}

//! What a call is refused with, as the service names it.
//!
//! Invariant: every [`FaultKind`] has one name and one HTTP status, here and nowhere else.

use super::value::Structure;

/// The service's exceptions that Braid gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // they are the service's names
pub enum FaultKind {
    AccessDenied,
    DryRunOperation,
    ExpiredIterator,
    ExpiredNextToken,
    IncompleteSignature,
    InternalFailure,
    InvalidArgument,
    InvalidSignature,
    LimitExceeded,
    MissingAuthenticationToken,
    ProvisionedThroughputExceeded,
    RequestTooLarge,
    ResourceInUse,
    ResourceNotFound,
    Serialization,
    ServiceUnavailable,
    UnknownOperation,
    UnrecognizedClient,
    Validation,
}

impl FaultKind {
    /// As `__type` has it.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::AccessDenied => "AccessDeniedException",
            FaultKind::DryRunOperation => "DryRunOperationException",
            FaultKind::ExpiredIterator => "ExpiredIteratorException",
            FaultKind::ExpiredNextToken => "ExpiredNextTokenException",
            FaultKind::IncompleteSignature => "IncompleteSignatureException",
            FaultKind::InternalFailure => "InternalFailureException",
            FaultKind::InvalidArgument => "InvalidArgumentException",
            FaultKind::InvalidSignature => "InvalidSignatureException",
            FaultKind::LimitExceeded => "LimitExceededException",
            FaultKind::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            FaultKind::ProvisionedThroughputExceeded => "ProvisionedThroughputExceededException",
            FaultKind::RequestTooLarge => "RequestEntityTooLargeException",
            FaultKind::ResourceInUse => "ResourceInUseException",
            FaultKind::ResourceNotFound => "ResourceNotFoundException",
            FaultKind::Serialization => "SerializationException",
            FaultKind::ServiceUnavailable => "ServiceUnavailableException",
            FaultKind::UnknownOperation => "UnknownOperationException",
            FaultKind::UnrecognizedClient => "UnrecognizedClientException",
            FaultKind::Validation => "ValidationException",
        }
    }

    /// SDKs try again what is 500 or above.
    pub fn status(self) -> u16 {
        match self {
            FaultKind::InternalFailure => 500,
            FaultKind::ServiceUnavailable => 503,
            FaultKind::RequestTooLarge => 413,
            _ => 400,
        }
    }
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// As what.
    pub kind: FaultKind,
    /// In which words, if any.
    pub message: Option<String>,
}

impl Fault {
    /// With a text.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        Fault { kind, message: Some(message.into()) }
    }

    /// A body that is no tree, or a tree that is no structure: the service says nothing more of it.
    pub fn unreadable() -> Fault {
        Fault { kind: FaultKind::Serialization, message: None }
    }

    /// A value of the wrong kind.
    pub fn serialization(message: &str) -> Fault {
        Fault::new(FaultKind::Serialization, message)
    }

    /// A value out of its constraints.
    pub fn validation(message: &str) -> Fault {
        Fault::new(FaultKind::Validation, message)
    }

    /// Something that a parameter asks for and can't have.
    pub fn argument(message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::InvalidArgument, message)
    }

    /// The body of the answer.
    pub fn body(&self) -> Structure {
        // The service spells it so.
        let name = if self.kind == FaultKind::Serialization { "Message" } else { "message" };
        Structure::new().with("__type", self.kind.name()).with_some(name, self.message.as_deref())
    }
}

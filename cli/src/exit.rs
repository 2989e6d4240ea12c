//! How the program ends: exit codes, and the one type of error that leads to them.
//!
//! Invariant: a code says what is known of the *effect*. 4 and 6 promise that nothing was done; 5
//! promises nothing.

use std::fmt;
use std::io;
use std::process::ExitCode;

use braid_client::{CallError, ConnectError, ConsumerError, PutError, Reason};

/// Documented in `--help` and `docs/cli.md`; scripts rely on them.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Unknown = 5,
    Unreachable = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a subcommand did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    /// What happened; empty where it was said already or nobody listens.
    message: String,
    /// What to do about it.
    hint: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None }
    }

    pub fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// Prints it, and gives the process's exit code.
    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("braid: {self}");
        }
        self.exit.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message.replace('\n', "\n  "))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {}", hint.replace('\n', "\n  ")),
            None => Ok(()),
        }
    }
}

/// What a node's refusal means to a caller.
fn exit_of(reason: Reason) -> Exit {
    match reason {
        Reason::StreamNotFound | Reason::ShardNotFound | Reason::GroupNotFound | Reason::NodeNotFound => Exit::NotFound,
        Reason::ConsumerNotFound | Reason::PolicyNotFound => Exit::NotFound,
        Reason::InvalidArgument | Reason::IteratorInvalid | Reason::NextTokenInvalid | Reason::Unsupported => {
            Exit::Usage
        }
        Reason::OutcomeUnknown => Exit::Unknown,
        Reason::NotLeader | Reason::NoLeader | Reason::NodeStopping => Exit::Unreachable,
        Reason::Unspecified | Reason::Internal | Reason::Damaged => Exit::Failed,
        _ => Exit::Refused,
    }
}

fn hint_for(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::StreamNotFound => Some("`braid stream list` shows the streams there are."),
        Reason::ShardNotFound => Some("`braid shard list STREAM` shows the shards there are."),
        Reason::StreamExists => Some("Choose another name, or delete the stream first: braid stream delete NAME"),
        Reason::Throttled => Some("The shard's rate is used up. Write slower, or use a stream with more shards."),
        Reason::Damaged => {
            Some("Another replica may have these bytes whole: see docs/operations.md, \"A refused log\".")
        }
        _ => None,
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        match &error {
            CallError::Refused { reason, message, field, .. } => {
                let message = match field.is_empty() {
                    true => message.clone(),
                    false => format!("{field}: {message}"),
                };
                let failure = Failure::new(exit_of(*reason), message);
                match hint_for(*reason) {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
            CallError::Unavailable { .. } => Failure::new(Exit::Unreachable, error.to_string())
                .hint("`braid cluster status` shows which nodes are up and which groups have a leader."),
            CallError::Unknown { .. } => {
                Failure::new(Exit::Unknown, error.to_string()).hint("Look before you try again.")
            }
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        match &error {
            ConnectError::NoEndpoints | ConnectError::BadEndpoint(_) | ConnectError::MixedEndpoints => {
                Failure::usage(error.to_string())
            }
            ConnectError::NobodyToBelieve => {
                Failure::usage(error.to_string()).hint("Name its PEM file: --ca FILE or BRAID_CA.")
            }
            ConnectError::Unreachable(_) => Failure::new(Exit::Unreachable, error.to_string()).hint(
                "Is a cluster running? Start one on this machine with `braid dev`,\n\
                 or say where yours is: --endpoint HOST:PORT or BRAID_ENDPOINT.",
            ),
        }
    }
}

impl From<ConsumerError> for Failure {
    fn from(error: ConsumerError) -> Failure {
        match &error {
            ConsumerError::Call(call) => call.clone().into(),
            ConsumerError::UnknownShard { .. } => Failure::new(Exit::NotFound, error.to_string()),
            ConsumerError::Shard { reason, .. } => Failure::new(exit_of(*reason), error.to_string()),
            ConsumerError::Unreadable { .. } => Failure::failed(error.to_string()),
        }
    }
}

impl From<PutError> for Failure {
    fn from(error: PutError) -> Failure {
        match error {
            PutError::BadPartitionKey { .. } | PutError::TooLarge { .. } => Failure::usage(error.to_string()),
            PutError::Closed => Failure::failed(error.to_string()),
        }
    }
}

/// Writing results: whoever read them may have gone, which is how `| head` ends.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(Exit::Ok, ""),
            _ => Failure::failed(error.to_string()),
        }
    }
}

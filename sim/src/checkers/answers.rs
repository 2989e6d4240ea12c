//! Every answer is one that the contract knows: well-formed, and never "a fault of ours".
//!
//! That stored bytes are damaged may only be said where the run damages some.

use super::{Bounds, Checker, Violation};
use crate::history::{Failed, History, Note, Outcome, Reason, Returned, What};

pub const CHECKER: Checker = Checker {
    name: "answers",
    promise: "no answer is malformed, and none says INTERNAL, or DAMAGED without damage",
    check,
};

pub fn check(history: &History, bounds: &Bounds) -> Vec<Violation> {
    let fault = |reason: Reason| reason == Reason::Internal || (reason == Reason::Damaged && !bounds.damaged);
    let mut wrong = Vec::new();
    for event in &history.events {
        let what = match &event.what {
            What::Note(Note::Malformed { op, why }) => format!("{op} was answered with nonsense: {why}"),
            What::Returned { op, with: Returned::Failed(Failed { reason, why, .. }) } if fault(*reason) => {
                format!("{op} was answered {}: {why}", reason.as_str_name())
            }
            What::Returned { op, with: Returned::Put(outcomes) } => {
                let refused = outcomes.iter().find_map(|outcome| match outcome {
                    Outcome::Refused { reason } if fault(*reason) => Some(reason.as_str_name()),
                    _ => None,
                });
                let Some(reason) = refused else { continue };
                format!("a record of {op} was refused {reason}")
            }
            _ => continue,
        };
        wrong.push(Violation::new(CHECKER.name, what).at(event.at));
    }
    wrong
}

//! A refused record never appears.
//!
//! Only values whose every sending was refused: one that was sent again may be there by the other one.

use super::{Bounds, Checker, Violation};
use crate::history::{Attempt, History, Outcome};

pub const CHECKER: Checker = Checker { name: "refused", promise: "a record that was refused never appears", check };

pub fn check(history: &History, _: &Bounds) -> Vec<Violation> {
    let refused = |it: &Attempt| matches!(history.sent(*it).2, Outcome::Refused { .. });
    let mut wrong = Vec::new();
    for (value, it) in &history.values {
        if it.places.is_empty() || it.attempts.is_empty() || !it.attempts.iter().all(refused) {
            continue;
        }
        for place in &it.places {
            let appearance = &history.shards[&place.shard].places[&place.offset];
            let what = format!("value {value} was refused, and is at {} offset {}", place.shard, place.offset);
            let violation = Violation::new(CHECKER.name, what).at(appearance.at);
            let violation = it.attempts.iter().fold(violation, |v, attempt| v.because(history.tell(*attempt)));
            wrong.push(violation.because(format!("{} read {}", appearance.op, appearance.seen)));
        }
    }
    wrong
}

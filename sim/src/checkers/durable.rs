//! What is acknowledged is on the disks of a majority, as far as their logs know.
//!
//! Asked at the moment of the acknowledgement. A replica that does not run is given the benefit of the doubt.

use super::Violation;

pub const NAME: &str = "durable";
pub const PROMISE: &str = "an entry is on the disks of a majority before it is acknowledged";

/// Entry `index` of `group` is about to be acknowledged; `lacking` of its `voters` run and don't have it durably.
pub fn check(group: u32, index: u64, voters: &[u64], lacking: &[u64]) -> Option<Violation> {
    // While the membership changes there are two majorities: the union of both, one more, says too little.
    let changing = voters.len().is_multiple_of(2);
    (!changing && voters.len() - lacking.len() <= voters.len() / 2).then(|| {
        let what = format!(
            "entry {index} of group {group} is acknowledged, and is not durable on {lacking:?} of its voters {voters:?}"
        );
        Violation::new(NAME, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_enough_and_less_is_not() {
        assert_eq!(check(1, 9, &[1, 2, 3], &[]), None);
        assert_eq!(check(1, 9, &[1, 2, 3], &[3]), None);
        assert!(check(1, 9, &[1, 2, 3], &[1, 3]).is_some());
        assert_eq!(check(1, 9, &[1, 2, 3, 4], &[1, 4]), None, "the membership changes");
    }
}

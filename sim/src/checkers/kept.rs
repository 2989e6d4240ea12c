//! What a log had durably is in it after a restart.
//!
//! Asked as each log is opened that was open when its node was killed or lost power. Of a node whose disk was damaged
//! nothing is demanded.

use super::Violation;

pub const NAME: &str = "kept";
pub const PROMISE: &str = "after a restart a log has what was durable in it";

/// Node `node` opens the log of `group` again, which ends with `last`; entry `kept` was durable in it.
pub fn check(node: u64, group: u32, kept: u64, last: Option<u64>) -> Option<Violation> {
    (last < Some(kept)).then(|| {
        let end = last.map_or("is empty".to_owned(), |last| format!("ends with entry {last}"));
        let what =
            format!("entry {kept} of group {group} was durable on node {node}, and after a restart its log {end}");
        Violation::new(NAME, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_ends_earlier_is_seen() {
        assert_eq!(check(1, 2, 9, Some(9)), None);
        assert_eq!(check(1, 2, 9, Some(12)), None);
        assert!(check(1, 2, 9, Some(8)).is_some());
        assert!(check(1, 2, 0, None).is_some());
    }
}

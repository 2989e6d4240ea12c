//! What a log had durably is in it after a restart.
//!
//! Asked as each log is opened that was open when its node was killed or lost power. Of a node whose disk was damaged
//! nothing is demanded. Of checkpoints it is asked before: as each is written, the log must hold all that it covers.

use super::Violation;

pub const NAME: &str = "kept";
pub const PROMISE: &str = "after a restart a log has what was durable in it, and all that its checkpoints cover";

/// Node `node` opens the log of `group` again, which ends with `last`; entry `kept` was durable in it.
pub fn check(node: u64, group: u32, kept: u64, last: Option<u64>) -> Option<Violation> {
    (last < Some(kept)).then(|| {
        let end = last.map_or("is empty".to_owned(), |last| format!("ends with entry {last}"));
        let what =
            format!("entry {kept} of group {group} was durable on node {node}, and after a restart its log {end}");
        Violation::new(NAME, what)
    })
}

/// Node `node` has a checkpoint of `group` up to entry `last`; `is_durable` says whether its log holds all that durably.
pub fn check_checkpoint(node: u64, group: u32, last: u64, is_durable: bool) -> Option<Violation> {
    (!is_durable).then(|| {
        let what =
            format!("node {node} has a checkpoint of group {group} up to entry {last}, which its log may still lose");
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

    #[test]
    fn a_checkpoint_covers_only_what_its_log_holds() {
        assert_eq!(check_checkpoint(1, 2, 9, true), None);
        assert!(check_checkpoint(1, 2, 9, false).is_some());
    }
}

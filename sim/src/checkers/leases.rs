//! A leader that reads by its lease is the only leader there is.
//!
//! Asked whenever an entry is about to be acknowledged: whoever else still takes itself for the leader is made to read
//! then. It may refuse, or not come to an end.

use super::Violation;

pub const NAME: &str = "leases";
pub const PROMISE: &str = "a replica that answers a read as the leader has all that was acknowledged before";

/// Node `reader` answered a read of `group` as of entry `read`, asked after node `acker` had acknowledged `acked`.
pub fn check(group: u32, acker: u64, acked: u64, reader: u64, read: u64) -> Option<Violation> {
    (read < acked).then(|| {
        let what = format!(
            "node {reader} answered a read of group {group} as of entry {read}, asked after node {acker} had \
             acknowledged entry {acked}"
        );
        Violation::new(NAME, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_before_the_acknowledged_is_seen() {
        assert_eq!(check(1, 2, 9, 1, 9), None);
        assert!(check(1, 2, 9, 1, 8).is_some());
    }
}

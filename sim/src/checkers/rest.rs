//! A cluster to which nothing happens elects nobody.
//!
//! Asked at the end of a run, when every node that is left has served. Leaderships that are offered to whoever can't
//! take them cost a second of writes each time; clients only see calls that take longer.

use std::collections::BTreeMap;

use super::Violation;

pub const NAME: &str = "rest";
pub const PROMISE: &str = "once all is well, leaderships stay where they are";

/// The term of each group.
pub type Terms = BTreeMap<u32, u64>;

/// The groups whose term has changed.
pub fn restless(before: &Terms, now: &Terms) -> Vec<Violation> {
    let rose = now.iter().filter_map(|(group, term)| Some((group, before.get(group)?, term)));
    let rose = rose.filter(|(_, before, term)| before != term);
    rose.map(|(group, before, term)| {
        let what = format!("group {group} went from term {before} to {term} although nothing happens any more");
        Violation::new(NAME, what)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_term_is_seen_and_a_new_group_is_none() {
        let before = Terms::from([(1, 4), (2, 7)]);
        assert!(restless(&before, &Terms::from([(1, 4), (2, 7), (3, 1)])).is_empty());
        assert_eq!(restless(&before, &Terms::from([(1, 4), (2, 8)])).len(), 1);
    }
}

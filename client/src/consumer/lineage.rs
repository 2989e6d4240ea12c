//! Which shards are read, from where, and when: parents to their end before their children.
//!
//! Owns the plan of one consumer. Pure. Its invariants: a shard is started only when all its
//! parents that are read at all have been read to their end, so each partition key's records come
//! in order across splits and merges; and what follows a shard that is read is read from its
//! beginning, so nothing is skipped where shards change.
//!
//! A shard that is closed is forgotten by its stream once all of its records are past retention, never before its
//! parents. Where the listing leaves a gap in the lineage, nothing is left to be read in it.

use std::collections::{BTreeMap, BTreeSet};

use braid_proto::v1;

use super::Position;
use crate::routes::is_open;

pub(super) struct Lineage {
    shards: BTreeMap<String, Node>,
}

struct Node {
    parents: Vec<String>,
    group: Option<u32>,
    state: State,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum State {
    /// Not read: it ended before the consumer's starting point.
    Skipped,
    /// Not read: a descendant has a position of its own, so this one was read before.
    Consumed,
    /// To be read from there once its parents are done.
    Waiting(Position),
    Running(Position),
    /// Read to its end.
    Done(Position),
}

/// A shard to read now.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) struct Start {
    pub shard: String,
    pub group: Option<u32>,
    pub position: Position,
}

/// A position was given for a shard that the stream never had.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) struct UnknownShard(pub String);

impl Lineage {
    /// Plans the reading of `listed`: a shard in `own` from its own position (its ancestors count
    /// as read), everything that follows a read shard from its beginning, the rest from `start`. Where a shard in `own`
    /// is forgotten, what has no parents any more follows it.
    pub fn new(
        listed: &[v1::Shard],
        start: Position,
        own: &BTreeMap<String, Position>,
    ) -> Result<Lineage, UnknownShard> {
        // Children have greater ids than their parents, so this order visits parents first.
        let by_id: BTreeMap<&str, &v1::Shard> = listed.iter().map(|s| (s.shard_id.as_str(), s)).collect();
        let unlisted = || own.keys().filter(|id| !by_id.contains_key(id.as_str()));
        if let Some(unknown) = unlisted().find(|id| !is_forgotten(id, listed)) {
            return Err(UnknownShard(unknown.clone()));
        }
        let forgotten = unlisted().next().is_some();
        let ancestors = ancestors_of(own.keys(), &by_id);
        let mut lineage = Lineage { shards: BTreeMap::new() };
        for (&id, &shard) in &by_id {
            let parents = parents_of(shard);
            let follows = forgotten && is_orphan(&parents, |parent| by_id.contains_key(parent));
            let state = match (own.get(id), lineage.inherited(&parents)) {
                (Some(own), _) => State::Waiting(*own),
                _ if ancestors.contains(id) => State::Consumed,
                (None, Some(inherited)) => State::Waiting(inherited),
                (None, None) if follows => State::Waiting(Position::TrimHorizon),
                (None, None) if start == Position::Latest && !is_open(shard) => State::Skipped,
                (None, None) => State::Waiting(start),
            };
            lineage.shards.insert(id.to_owned(), Node { parents, group: Some(shard.group), state });
        }
        Ok(lineage)
    }

    /// The shards to start now; each is given once.
    pub fn start(&mut self) -> Vec<Start> {
        let ready: Vec<String> = self
            .shards
            .iter()
            .filter(|(_, node)| matches!(node.state, State::Waiting(_)))
            .filter(|(_, node)| node.parents.iter().all(|parent| self.is_over(parent)))
            .map(|(id, _)| id.clone())
            .collect();
        ready
            .into_iter()
            .map(|shard| {
                let node = self.shards.get_mut(&shard).expect("it was found");
                let State::Waiting(position) = node.state else {
                    unreachable!("it was waiting");
                };
                node.state = State::Running(position);
                Start { shard, group: node.group, position }
            })
            .collect()
    }

    /// A shard was read to its end, and `children` go on from there.
    pub fn ended(&mut self, shard: &str, children: &[v1::ChildShard]) {
        let node = self.shards.get_mut(shard).expect("it was started");
        let State::Running(position) = node.state else {
            panic!("{shard} ended in {:?}", node.state);
        };
        node.state = State::Done(position);
        for child in children {
            self.add(&child.shard_id, child.parent_shards.clone(), None);
        }
    }

    /// What a new listing adds: groups of known shards, and shards that follow read ones.
    pub fn relisted(&mut self, listed: &[v1::Shard]) {
        let mut shards: Vec<&v1::Shard> = listed.iter().collect();
        shards.sort_unstable_by_key(|shard| &shard.shard_id);
        for shard in shards {
            self.add(&shard.shard_id, parents_of(shard), Some(shard.group));
        }
    }

    /// Whether this shard's group, and so its leader, is not known yet.
    pub fn lacks_group(&self, shard: &str) -> bool {
        self.shards.get(shard).is_none_or(|n| n.group.is_none())
    }

    fn add(&mut self, id: &str, parents: Vec<String>, group: Option<u32>) {
        if let Some(known) = self.shards.get_mut(id) {
            known.group = known.group.or(group);
            return;
        }
        // All shards were listed at first: what came since descends from them, if only through forgotten ones.
        let orphan = is_orphan(&parents, |parent| self.shards.contains_key(parent));
        let position = self.inherited(&parents).or(orphan.then_some(Position::TrimHorizon));
        if let Some(position) = position {
            self.shards.insert(id.to_owned(), Node { parents, group, state: State::Waiting(position) });
        }
    }

    /// Where a shard begins that follows shards which are, or count as, read; None if it doesn't.
    fn inherited(&self, parents: &[String]) -> Option<Position> {
        let followed: Vec<State> = parents
            .iter()
            .filter_map(|parent| self.shards.get(parent))
            .map(|node| node.state)
            .filter(|state| *state != State::Skipped)
            .collect();
        if followed.is_empty() {
            return None;
        }
        // A time in the future of the parent's end is in the future of the child's beginning.
        let time = followed.iter().find_map(|state| match state {
            State::Waiting(at) | State::Running(at) | State::Done(at) => {
                matches!(at, Position::AtTimestamp(_)).then_some(*at)
            }
            State::Skipped | State::Consumed => None,
        });
        Some(time.unwrap_or(Position::TrimHorizon))
    }

    fn is_over(&self, shard: &str) -> bool {
        // Parents that are not known are trimmed away.
        self.shards
            .get(shard)
            .is_none_or(|node| matches!(node.state, State::Skipped | State::Consumed | State::Done(_)))
    }
}

fn parents_of(shard: &v1::Shard) -> Vec<String> {
    [&shard.parent_shard_id, &shard.adjacent_parent_shard_id]
        .into_iter()
        .filter(|parent| !parent.is_empty())
        .cloned()
        .collect()
}

/// Whether a stream with these shards had `shard` once, and has it no more. Ids are given in order, without gaps: there
/// was one for every id below the greatest.
pub(super) fn is_forgotten(shard: &str, listed: &[v1::Shard]) -> bool {
    let newer = |it: &v1::Shard| it.shard_id.len() == shard.len() && it.shard_id.as_str() > shard;
    listed.iter().all(|it| it.shard_id != shard) && listed.iter().any(newer)
}

/// Whether a shard came from others, and all of those are forgotten.
fn is_orphan(parents: &[String], is_known: impl Fn(&str) -> bool) -> bool {
    !parents.is_empty() && !parents.iter().any(|parent| is_known(parent))
}

/// All shards from which those of `ids` that are not in `ids` themselves come.
fn ancestors_of<'a>(ids: impl Iterator<Item = &'a String>, listed: &BTreeMap<&str, &v1::Shard>) -> BTreeSet<String> {
    let mut ancestors = BTreeSet::new();
    let mut next: Vec<String> = ids.cloned().collect();
    while let Some(id) = next.pop() {
        for parent in listed.get(id.as_str()).map_or_else(Vec::new, |s| parents_of(s)) {
            if ancestors.insert(parent.clone()) {
                next.push(parent);
            }
        }
    }
    ancestors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: [&str; 2], open: bool) -> v1::Shard {
        v1::Shard {
            shard_id: id.to_owned(),
            parent_shard_id: parents[0].to_owned(),
            adjacent_parent_shard_id: parents[1].to_owned(),
            sequence_number_range: Some(v1::SequenceNumberRange {
                starting_sequence_number: String::new(),
                ending_sequence_number: if open { "" } else { "9" }.to_owned(),
            }),
            ..Default::default()
        }
    }

    /// 0 split into 1 and 2; 1 and 2 merged into 3; 4 apart.
    fn diamond() -> Vec<v1::Shard> {
        vec![
            shard("0", ["", ""], false),
            shard("1", ["0", ""], false),
            shard("2", ["0", ""], false),
            shard("3", ["1", "2"], true),
            shard("4", ["", ""], true),
        ]
    }

    fn started(lineage: &mut Lineage) -> Vec<(String, Position)> {
        let starts = lineage.start();
        starts.into_iter().map(|s| (s.shard, s.position)).collect()
    }

    fn at(ids: &[&str], position: Position) -> Vec<(String, Position)> {
        ids.iter().map(|id| ((*id).to_owned(), position)).collect()
    }

    #[test]
    fn children_wait_for_all_their_parents() {
        let begin = Position::TrimHorizon;
        let mut lineage = Lineage::new(&diamond(), begin, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["0", "4"], begin));
        lineage.ended("0", &[]);
        assert_eq!(started(&mut lineage), at(&["1", "2"], begin));
        lineage.ended("2", &[]);
        assert_eq!(started(&mut lineage), vec![]);
        lineage.ended("1", &[]);
        assert_eq!(started(&mut lineage), at(&["3"], begin));
    }

    #[test]
    fn latest_skips_what_is_closed_and_misses_no_child() {
        let mut lineage = Lineage::new(&diamond(), Position::Latest, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["3", "4"], Position::Latest));
        let child = v1::ChildShard {
            shard_id: "5".to_owned(),
            parent_shards: vec!["3".to_owned(), "4".to_owned()],
            hash_key_range: None,
        };
        lineage.ended("3", std::slice::from_ref(&child));
        assert_eq!(started(&mut lineage), vec![]);
        lineage.ended("4", &[child]);
        assert_eq!(started(&mut lineage), at(&["5"], Position::TrimHorizon));
        assert!(lineage.lacks_group("5"));
    }

    #[test]
    fn a_time_applies_to_children_as_well() {
        let time = Position::AtTimestamp(7);
        let mut lineage = Lineage::new(&diamond(), time, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["0", "4"], time));
        lineage.ended("0", &[]);
        assert_eq!(started(&mut lineage), at(&["1", "2"], time));
    }

    #[test]
    fn an_own_position_consumes_the_ancestors_and_starts_its_sibling_at_the_beginning() {
        let here = Position::AtTimestamp(3);
        let own = BTreeMap::from([("1".to_owned(), here)]);
        let mut lineage = Lineage::new(&diamond(), Position::Latest, &own).unwrap();
        let expected =
            vec![("1".to_owned(), here), ("2".to_owned(), Position::TrimHorizon), ("4".to_owned(), Position::Latest)];
        assert_eq!(started(&mut lineage), expected);
        let gone = BTreeMap::from([("8".to_owned(), here)]); // there never was one
        let unknown = Lineage::new(&diamond(), Position::Latest, &gone).err();
        assert_eq!(unknown, Some(UnknownShard("8".to_owned())));
    }

    #[test]
    fn what_follows_a_forgotten_shard_is_read_from_its_beginning() {
        // 0 and 1 are forgotten while 0 is read; 2 is there yet.
        let mut lineage = Lineage::new(&diamond()[..1], Position::TrimHorizon, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["0"], Position::TrimHorizon));
        lineage.ended("0", &[]);
        lineage.relisted(&diamond()[2..4]);
        assert_eq!(started(&mut lineage), at(&["2"], Position::TrimHorizon));
        lineage.ended("2", &[]);
        assert_eq!(started(&mut lineage), at(&["3"], Position::TrimHorizon));

        // All that it came from is forgotten.
        let mut lineage = Lineage::new(&diamond()[..1], Position::TrimHorizon, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["0"], Position::TrimHorizon));
        lineage.ended("0", &[]);
        lineage.relisted(&diamond()[3..4]);
        assert_eq!(started(&mut lineage), at(&["3"], Position::TrimHorizon));
    }

    #[test]
    fn a_position_in_a_forgotten_shard_goes_on_with_what_follows() {
        let here = Position::AtTimestamp(3);
        let own = BTreeMap::from([("1".to_owned(), here)]);
        let mut lineage = Lineage::new(&diamond()[3..], Position::Latest, &own).unwrap();
        let mut expected = at(&["3"], Position::TrimHorizon);
        expected.extend(at(&["4"], Position::Latest));
        assert_eq!(started(&mut lineage), expected);
    }
}

//! Which shards are read, from where, and when: parents to their end before their children.
//!
//! Owns the plan of one consumer. Pure. Its invariants: a shard is started only when all its
//! parents that are read at all have been read to their end, so each partition key's records come
//! in order across splits and merges; and what follows a shard that is read is read from its
//! beginning, so nothing is skipped where shards change.
//!
//! A shard that is closed is forgotten by its stream once all of its records are past retention, never before its
//! parents. Where the listing leaves a gap in the lineage, nothing is left to be read in it. A listing may be older than
//! what is known already, since any node gives it: of what is newer than all of it, it says nothing.

use std::collections::{BTreeMap, BTreeSet};

use braid_probe::{Bug, planted};
use braid_proto::v1;

use super::Position;
use crate::routes::is_open;

pub(super) struct Lineage {
    shards: BTreeMap<String, Node>,
    /// Known shards that the last listing left out: past retention, or newer than it.
    unlisted: BTreeSet<String>,
    /// The newest shard of the last listing.
    newest: String,
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
    /// Not read: a descendant is read, or has a position of its own, so this one was read before.
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
        let mut lineage =
            Lineage { shards: BTreeMap::new(), unlisted: BTreeSet::new(), newest: newest_of(&by_id).to_owned() };
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

    /// What a new listing adds: groups of known shards, and shards that follow read ones, if only through shards that are
    /// not listed any more.
    pub fn relisted(&mut self, listed: &[v1::Shard]) {
        let shards: BTreeMap<&str, &v1::Shard> = listed.iter().map(|s| (s.shard_id.as_str(), s)).collect();
        self.unlisted = self.shards.keys().filter(|id| !shards.contains_key(id.as_str())).cloned().collect();
        self.newest = newest_of(&shards).to_owned();
        // A longer retention brings back what was past a shorter one: what came after it is read by now.
        let begun = self.shards.iter().filter(|(_, node)| !matches!(node.state, State::Waiting(_))).map(|(id, _)| id);
        for id in ancestors_of(begun, &shards) {
            let Some(shard) = shards.get(id.as_str()).filter(|_| !self.shards.contains_key(&id)) else { continue };
            let node = Node { parents: parents_of(shard), group: Some(shard.group), state: State::Consumed };
            self.shards.insert(id, node);
        }
        for (id, shard) in shards {
            self.add(id, parents_of(shard), Some(shard.group));
        }
    }

    /// Whether a listing says more of what waits.
    pub fn needs_listing(&self) -> bool {
        let waiting = self.shards.values().filter(|node| matches!(node.state, State::Waiting(_)));
        waiting.into_iter().any(|node| node.parents.iter().any(|parent| !self.shards.contains_key(parent)))
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
        let orphan = is_orphan(&parents, |parent| self.shards.contains_key(parent));
        // A shard that follows nothing we read is none of ours (all such were listed at first).
        if let Some(position) = self.inherited(&parents).or(orphan.then_some(Position::TrimHorizon)) {
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

    /// Whether nothing of a parent is left to be read. One that is not known is past retention if the listing is as new
    /// as it, but may be there yet, and be come to from a shard that is not listed any more either.
    fn is_over(&self, shard: &str) -> bool {
        let over = |id: &str| {
            let node = self.shards.get(id)?;
            Some(matches!(node.state, State::Skipped | State::Consumed | State::Done(_)))
        };
        over(shard).unwrap_or_else(|| {
            let listed = self.newest.as_str() >= shard || planted(Bug::UnlistedIsPast);
            let mut older = self.unlisted.iter().take_while(|id| id.as_str() < shard);
            listed && older.all(|id| over(id).unwrap_or(true))
        })
    }
}

fn parents_of(shard: &v1::Shard) -> Vec<String> {
    [&shard.parent_shard_id, &shard.adjacent_parent_shard_id]
        .into_iter()
        .filter(|parent| !parent.is_empty())
        .cloned()
        .collect()
}

/// The id of the newest of these shards; empty without any.
fn newest_of<'a>(listed: &BTreeMap<&'a str, &v1::Shard>) -> &'a str {
    listed.keys().next_back().copied().unwrap_or_default()
}

/// Whether a stream with these shards can have had `shard` once, and have it no more. Ids are given in order.
fn is_forgotten(shard: &str, listed: &[v1::Shard]) -> bool {
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

    fn child(id: &str, parents: &[&str]) -> v1::ChildShard {
        v1::ChildShard {
            shard_id: id.to_owned(),
            parent_shards: parents.iter().map(|it| (*it).to_owned()).collect(),
            hash_key_range: None,
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
        let child = child("5", &["3", "4"]);
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

    /// Simulator, seed 48000056 on the way here: a consumer went from a shard to what it had become after several
    /// splits and merges, and then read what was between.
    #[test]
    fn what_follows_waits_while_a_shard_is_read_that_is_not_listed_any_more() {
        let mut lineage = Lineage::new(&diamond()[..1], Position::TrimHorizon, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["0"], Position::TrimHorizon));
        // 0 is read yet; 1 and 2 may be there too.
        lineage.relisted(&diamond()[3..]);
        assert_eq!(started(&mut lineage), vec![]);
        assert!(lineage.needs_listing());
        lineage.ended("0", &[child("1", &["0"]), child("2", &["0"])]);
        lineage.relisted(&diamond()[3..]);
        assert_eq!(started(&mut lineage), at(&["1", "2"], Position::TrimHorizon));
        lineage.ended("1", &[]);
        assert_eq!(started(&mut lineage), vec![]);
        lineage.ended("2", &[]);
        lineage.relisted(&diamond()[3..]);
        assert_eq!(started(&mut lineage), at(&["3"], Position::TrimHorizon));
        assert!(!lineage.needs_listing());
    }

    /// Simulator, seed 45000259: one parent of a merge's child was read, the other not known yet.
    #[test]
    fn a_child_waits_for_a_parent_that_is_come_to_through_shards_that_are_not_listed() {
        let roots = [shard("0", ["", ""], true), shard("4", ["", ""], true)];
        let mut lineage = Lineage::new(&roots, Position::TrimHorizon, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["0", "4"], Position::TrimHorizon));
        // 0 became 5, which was merged with 4 into 6; 0 and 5 are past retention.
        lineage.ended("4", &[child("6", &["5", "4"])]);
        assert!(lineage.needs_listing());
        lineage.relisted(&[shard("4", ["", ""], false), shard("6", ["5", "4"], true)]);
        assert_eq!(started(&mut lineage), vec![]);
        lineage.ended("0", &[child("5", &["0"])]);
        assert_eq!(started(&mut lineage), at(&["5"], Position::TrimHorizon));
        lineage.ended("5", &[child("6", &["5", "4"])]);
        assert_eq!(started(&mut lineage), at(&["6"], Position::TrimHorizon));
    }

    /// Simulator, seed 319657162452: a node that was behind listed the shards, and a merge's child was read before one of
    /// its parents.
    #[test]
    fn a_child_waits_for_a_parent_that_the_listing_is_too_old_for() {
        let behind = [shard("0", ["", ""], true), shard("1", ["", ""], true)];
        let mut lineage = Lineage::new(&behind, Position::TrimHorizon, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["0", "1"], Position::TrimHorizon));
        // 1 became 2 and 3; 2 was merged with 0 into 4.
        lineage.ended("0", &[child("4", &["0", "2"])]);
        assert!(lineage.needs_listing());
        lineage.relisted(&behind);
        assert_eq!(started(&mut lineage), vec![]);
        lineage.ended("1", &[child("2", &["1"]), child("3", &["1"])]);
        assert_eq!(started(&mut lineage), at(&["2", "3"], Position::TrimHorizon));
        lineage.ended("2", &[child("4", &["0", "2"])]);
        assert_eq!(started(&mut lineage), at(&["4"], Position::TrimHorizon));
    }

    /// Simulator, seed 48000056 once more.
    #[test]
    fn what_was_past_retention_at_first_is_not_read_when_retention_grows() {
        let mut lineage = Lineage::new(&diamond()[3..], Position::TrimHorizon, &BTreeMap::new()).unwrap();
        assert_eq!(started(&mut lineage), at(&["3", "4"], Position::TrimHorizon));
        lineage.relisted(&diamond());
        lineage.ended("3", &[]);
        lineage.ended("4", &[]);
        lineage.relisted(&diamond());
        assert_eq!(started(&mut lineage), vec![]);
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

//! Log, index, checkpoints and state of a replica tell one story.
//!
//! ```text
//!  checkpoint ─┬─▶ replay of the log ─▶ == state, and == every later checkpoint on the way
//!              └─────────────────────▶ index entries: exactly the readable slices, each in the log
//! ```
//! For the end of a run, when nothing is applied any more. Invariant: what is judged is what is given;
//! nothing is read from a disk here.

use std::collections::BTreeMap;

use braid_log::{Entry, EntryKind, LogId};
use braid_node::index::{IndexEntry, RecordIndex};
use braid_stream::batch::BatchView;
use braid_stream::catalog_command::CatalogCommand;
use braid_stream::command::GroupCommand;
use braid_stream::group::Applied;
use braid_stream::{Catalog, Group, Offset, Shard, ShardId};

use super::Violation;

pub const NAME: &str = "agreement";
pub const PROMISE: &str = "a replica's log, record index, checkpoints and state agree";

/// A replica's parts.
pub struct ReplicaFacts<'a, S> {
    pub node: u64,
    pub group: u32,
    /// The log, from the first entry that is kept to the last one applied or further.
    pub entries: &'a [Entry],
    /// Checkpoints in order: each is the state after its entry. The log goes on behind the first one; there
    /// is none only where the log begins with the first entry of all.
    pub checkpoints: &'a [(LogId, S)],
    /// The last entry applied.
    pub applied: Option<u64>,
    pub state: &'a S,
}

/// A replica of a data group, with the node's record index; without it where the replica has not applied all that
/// others have: what a trim or a deletion takes from the index may be durable before the log entry that says so.
pub fn check(facts: &ReplicaFacts<'_, Group>, index: Option<&dyn RecordIndex>) -> Vec<Violation> {
    let judge = Judge { node: facts.node, group: facts.group };
    let mut wrong = judge.log(facts.entries);
    let fresh = Group::new(facts.state.id());
    let step = |state: &mut Group, entry: &Entry| -> Result<Vec<IndexEntry>, String> {
        if entry.kind() != EntryKind::Normal {
            state.pass(entry.id().index);
            return Ok(Vec::new());
        }
        let command = GroupCommand::decode(entry.payload().clone()).map_err(|error| error.to_string())?;
        Ok(slices(entry.id().index, &state.apply(entry.id().index, &command)))
    };
    let (replayed, written) = match replay(&judge, facts, fresh, |state| state.encode().to_vec(), step) {
        Ok(replayed) => replayed,
        Err(violation) => {
            wrong.push(violation);
            return wrong;
        }
    };
    wrong.extend(judge.same("the state", &replayed.encode(), &facts.state.encode()));
    let broken = facts.state.check();
    wrong.extend(broken.iter().map(|it| judge.violation(format!("the state breaks an invariant: {it}"))));
    let log: BTreeMap<u64, &Entry> = facts.entries.iter().map(|entry| (entry.id().index, entry)).collect();
    for (index, shard) in index.into_iter().flat_map(|index| facts.state.shards().map(move |shard| (index, shard))) {
        let expected: BTreeMap<Offset, &IndexEntry> =
            written.iter().filter(|it| it.shard == shard.id).map(|it| (it.first, it)).collect();
        wrong.extend(judge.index(index, shard, &log, &expected).err());
    }
    wrong
}

/// A replica of the catalog, which has no records to find.
pub fn check_catalog(facts: &ReplicaFacts<'_, Catalog>) -> Vec<Violation> {
    let judge = Judge { node: facts.node, group: facts.group };
    let mut wrong = judge.log(facts.entries);
    let step = |state: &mut Catalog, entry: &Entry| -> Result<Vec<IndexEntry>, String> {
        if entry.kind() == EntryKind::Normal {
            let command = CatalogCommand::decode(entry.payload()).map_err(|error| error.to_string())?;
            // A refused command is part of the story too.
            let _ = state.apply(&command);
        }
        Ok(Vec::new())
    };
    match replay(&judge, facts, Catalog::new(), |state| state.encode().to_vec(), step) {
        Ok((replayed, _)) => wrong.extend(judge.same("the state", &replayed.encode(), &facts.state.encode())),
        Err(violation) => wrong.push(violation),
    }
    let broken = facts.state.check();
    wrong.extend(broken.iter().map(|it| judge.violation(format!("the state breaks an invariant: {it}"))));
    wrong
}

/// The state after `facts.applied`, and what was written to the index on the way.
fn replay<S: Clone>(
    judge: &Judge,
    facts: &ReplicaFacts<'_, S>,
    fresh: S,
    encode: impl Fn(&S) -> Vec<u8>,
    mut step: impl FnMut(&mut S, &Entry) -> Result<Vec<IndexEntry>, String>,
) -> Result<(S, Vec<IndexEntry>), Violation> {
    // Groups begin with entry 0 or 1.
    let (mut next, mut state) = match (facts.checkpoints.first(), facts.entries.first()) {
        (Some((last, state)), _) => (last.index + 1, state.clone()),
        (None, Some(first)) => (first.id().index.min(1), fresh),
        (None, None) => (0, fresh),
    };
    let end = facts.applied.map_or(0, |applied| applied + 1);
    let mut later = facts.checkpoints.iter().skip(1).peekable();
    let mut written = Vec::new();
    for entry in facts.entries.iter().filter(|entry| entry.id().index < end) {
        let index = entry.id().index;
        if index < next {
            continue;
        }
        if index > next {
            return Err(judge.violation(format!("the log lacks entry {next} behind what its checkpoint holds")));
        }
        let slices = step(&mut state, entry);
        written.extend(slices.map_err(|why| judge.violation(format!("entry {index} cannot be applied: {why}")))?);
        next = index + 1;
        while let Some((last, checkpoint)) = later.next_if(|(last, _)| last.index <= index) {
            let what = format!("the checkpoint after entry {index}");
            let differs = || judge.same(&what, &encode(&state), &encode(checkpoint));
            if let Some(violation) = (last.index == index).then(differs).flatten() {
                return Err(violation);
            }
        }
    }
    match next < end {
        true => Err(judge.violation(format!("the log has no entry {next}, and {} was applied", end - 1))),
        false => Ok((state, written)),
    }
}

/// What the state machine writes to the index for an append.
fn slices(log_index: u64, applied: &Applied) -> Vec<IndexEntry> {
    let Applied::Appended(appended) = applied else { return Vec::new() };
    let placed = appended.slices.iter().filter_map(|slice| {
        let placed = slice.outcome.as_ref().ok()?;
        let (first, count, time_ms) = (placed.first, placed.count, placed.time_ms);
        Some(IndexEntry { shard: slice.shard, first, count, log_index, pos: slice.pos, time_ms })
    });
    placed.collect()
}

struct Judge {
    node: u64,
    group: u32,
}

impl Judge {
    fn violation(&self, what: String) -> Violation {
        Violation::new(NAME, format!("node {}, group {}: {what}", self.node, self.group))
    }

    fn same(&self, what: &str, replayed: &[u8], found: &[u8]) -> Option<Violation> {
        let differs =
            || replayed.iter().zip(found).position(|(a, b)| a != b).unwrap_or(replayed.len().min(found.len()));
        (replayed != found).then(|| {
            let violation = self.violation(format!("{what} is not what the log makes"));
            let sizes = (replayed.len(), found.len());
            violation.because(format!("{} and {} encoded bytes, from byte {} on", sizes.0, sizes.1, differs()))
        })
    }

    /// Entries follow one another, terms never fall, payloads are whole.
    fn log(&self, entries: &[Entry]) -> Vec<Violation> {
        let mut wrong = Vec::new();
        for pair in entries.windows(2) {
            let (before, after) = (pair[0].id(), pair[1].id());
            if after.index != before.index + 1 || after.term < before.term {
                wrong.push(self.violation(format!("log entry {before:?} is followed by {after:?}")));
            }
        }
        let torn = entries.iter().filter(|entry| crc32fast::hash(entry.payload()) != entry.payload_crc());
        wrong.extend(torn.map(|entry| self.violation(format!("the payload of entry {} is damaged", entry.id().index))));
        wrong
    }

    /// The index holds exactly the shard's readable slices, and each is in the log where it says.
    fn index(
        &self,
        index: &dyn RecordIndex,
        shard: &Shard,
        log: &BTreeMap<u64, &Entry>,
        expected: &BTreeMap<Offset, &IndexEntry>,
    ) -> Result<(), Violation> {
        let group = braid_stream::GroupId(self.group);
        let wrong = |what: String| self.violation(format!("index of shard {}: {what}", shard.id));
        let found = scan(index, group, shard.id, shard.trimmed).map_err(wrong)?;
        let mut due = shard.trimmed;
        for (nth, entry) in found.iter().enumerate() {
            let holds_the_first = nth == 0 && entry.holds(due);
            if entry.first != due && !holds_the_first {
                return Err(wrong(format!("offset {due} is due, and {entry:?} comes")));
            }
            if let Some(expected) = expected.get(&entry.first)
                && *expected != entry
            {
                return Err(wrong("an entry is not what the log makes".to_owned())
                    .because(format!("{entry:?}"))
                    .because(format!("{expected:?}")));
            }
            let Some(logged) = log.get(&entry.log_index) else {
                return Err(wrong(format!("the log lacks the entry of {entry:?}")));
            };
            let slice = BatchView::slice_at(logged.payload(), entry.pos);
            match slice {
                Ok(slice) if (slice.shard, slice.count) == (entry.shard, entry.count) => {}
                Ok(slice) => {
                    let other = (slice.shard, slice.count);
                    return Err(wrong(format!("{entry:?} points to {} records of shard {}", other.1, other.0)));
                }
                Err(error) => return Err(wrong(format!("{entry:?} points to no slice: {error}"))),
            }
            due = entry.end();
        }
        match due == shard.next {
            true => Ok(()),
            false => Err(wrong(format!("it ends at offset {due}, and the shard at {}", shard.next))),
        }
    }
}

/// All of a shard's entries from the one that holds `from` on.
fn scan(
    index: &dyn RecordIndex,
    group: braid_stream::GroupId,
    shard: ShardId,
    from: Offset,
) -> Result<Vec<IndexEntry>, String> {
    const PAGE: usize = 1_024;
    let (mut found, mut next): (Vec<IndexEntry>, Offset) = (Vec::new(), from);
    loop {
        let page = index.scan(group, shard, next, PAGE).map_err(|error| error.to_string())?;
        // A last page that is full has an empty one behind it.
        if !page.is_empty() && found.last().map(IndexEntry::end) > page.last().map(IndexEntry::end) {
            return Err(format!("a scan from {next} on went back"));
        }
        let Some(last) = page.last() else { return Ok(found) };
        next = last.end();
        let more = page.len() == PAGE;
        found.extend(page);
        if !more {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_node::index::ordered::OrderedIndex;
    use braid_stream::batch::BatchBuilder;
    use braid_stream::command::{OpenShards, ShardTrim, Trim};
    use braid_stream::name::PartitionKey;
    use braid_stream::{GroupId, HashRange, Limits, Record, ShardSpec, StreamId};
    use bytes::Bytes;

    const SHARD: ShardId = ShardId { stream: StreamId(1), index: 0 };

    /// A replica as it should be: two appends, a trim, a checkpoint in the middle.
    struct Fixture {
        entries: Vec<Entry>,
        checkpoints: Vec<(LogId, Group)>,
        state: Group,
        index: OrderedIndex,
    }

    impl Fixture {
        fn new() -> Fixture {
            let mut fixture = Fixture {
                entries: Vec::new(),
                checkpoints: Vec::new(),
                state: Group::new(GroupId(1)),
                index: OrderedIndex::default(),
            };
            let spec = ShardSpec {
                id: SHARD,
                range: HashRange::FULL,
                created_s: 1,
                parents: [None, None],
                retention_ms: 1_000,
                limits: Limits::DEFAULT,
            };
            fixture.apply(GroupCommand::OpenShards(OpenShards { at_ms: 1_000, shards: vec![spec] }));
            fixture.append(&["a", "b"]);
            fixture.checkpoints.push((LogId::new(1, 2), fixture.state.clone()));
            fixture.append(&["c"]);
            fixture.append(&["d", "e"]);
            fixture.checkpoints.push((LogId::new(1, 4), fixture.state.clone()));
            let trim = ShardTrim { shard: SHARD, below: Offset(1) };
            fixture.apply(GroupCommand::Trim(Trim { at_ms: 9_000, through: None, shards: vec![trim] }));
            fixture
        }

        fn append(&mut self, data: &[&str]) {
            let mut batch = BatchBuilder::new(1_000 * (self.entries.len() as u64 + 1));
            for text in data {
                let partition_key = PartitionKey::parse("k").unwrap();
                let data = Bytes::copy_from_slice(text.as_bytes());
                batch.push(SHARD, &Record { partition_key, explicit_hash: None, data });
            }
            self.apply(GroupCommand::decode(batch.finish().payload).unwrap());
        }

        fn apply(&mut self, command: GroupCommand) {
            let index = self.entries.len() as u64 + 1;
            self.entries.push(Entry::new(LogId::new(1, index), EntryKind::Normal, command.encode()));
            let applied = self.state.apply(index, &command);
            self.index.put(GroupId(1), &slices(index, &applied)).unwrap();
        }

        fn check(&self) -> Vec<Violation> {
            let facts = ReplicaFacts {
                node: 1,
                group: 1,
                entries: &self.entries,
                checkpoints: &self.checkpoints,
                applied: Some(5),
                state: &self.state,
            };
            check(&facts, Some(&self.index))
        }
    }

    #[test]
    fn a_sound_replica_passes() {
        assert_eq!(Fixture::new().check(), []);
        let mut whole = Fixture::new();
        whole.checkpoints.clear();
        assert_eq!(whole.check(), []);
    }

    #[test]
    fn each_part_that_differs_is_seen() {
        type Spoil = fn(&mut Fixture);
        let spoil: [(&str, Spoil); 7] = [
            ("the state is not", |it| it.state.pass(9)),
            ("checkpoint after entry 4", |it| it.checkpoints[1].1.pass(9)),
            ("lacks entry 3", |it| drop(it.entries.remove(2))),
            ("has no entry 5", |it| drop(it.entries.pop())),
            ("offset 2 is due", |it| {
                it.index.truncate_from(GroupId(1), SHARD, Offset(2)).unwrap();
                let entry =
                    IndexEntry { shard: SHARD, first: Offset(3), count: 2, log_index: 4, pos: 16, time_ms: 4_000 };
                it.index.put(GroupId(1), &[entry]).unwrap();
            }),
            ("ends at offset 2", |it| it.index.truncate_from(GroupId(1), SHARD, Offset(2)).unwrap()),
            ("not what the log makes", |it| {
                let entry = IndexEntry { shard: SHARD, first: Offset(2), count: 1, log_index: 3, pos: 16, time_ms: 9 };
                it.index.put(GroupId(1), &[entry]).unwrap();
            }),
        ];
        for (words, spoil) in spoil {
            let mut fixture = Fixture::new();
            spoil(&mut fixture);
            let wrong = fixture.check();
            assert!(wrong.iter().any(|it| it.to_string().contains(words)), "{words}: {wrong:?}");
        }
    }
}

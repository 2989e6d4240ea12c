//! One shard as clients saw it: what is where, and what was there at the least and at the most when.
//!
//! Invariant: the bounds hold for every correct cluster. [`ShardView::next_at_least`] counts only what
//! was acknowledged or read before that moment, [`ShardView::next_at_most`] only what was first sent
//! after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{Appearance, At, Attempt, History, Place, SequenceNumber, ShardFacts};

/// A shard of one life of a stream: a stream that is deleted and created again has other shards, told
/// apart by their creation second.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ShardKey {
    pub stream: Arc<str>,
    pub index: u32,
    pub created_s: u64,
}

impl ShardKey {
    /// The shard that gave out `number`.
    pub fn of(stream: &Arc<str>, number: &SequenceNumber) -> ShardKey {
        ShardKey { stream: stream.clone(), index: number.shard_index, created_s: number.created_s }
    }

    /// Its name within the stream.
    pub fn name(&self) -> String {
        Self::name_of(self.index)
    }

    /// The name of the shard of this index.
    pub fn name_of(index: u32) -> String {
        format!("shardId-{index:012}")
    }

    /// Reads [`ShardKey::name`].
    pub fn index_of(name: &str) -> Option<u32> {
        name.strip_prefix("shardId-").filter(|digits| digits.len() == 12)?.parse().ok()
    }
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} (created {} s)", self.stream, self.name(), self.created_s)
    }
}

/// An acknowledged record.
#[derive(Clone, Debug)]
pub struct Ack {
    pub number: SequenceNumber,
    pub shard: Arc<str>,
    pub value: u64,
    pub attempt: Attempt,
    pub invoked: At,
    pub returned: At,
}

#[derive(Clone, Debug, Default)]
pub struct ShardView {
    /// In order of their offsets.
    pub acks: Vec<Ack>,
    /// By offset, from every answer that held records.
    pub places: BTreeMap<u64, Appearance>,
    /// Two records of one place, the first seen first.
    pub conflicts: Vec<(Appearance, Appearance)>,
    /// As last listed.
    pub facts: Option<ShardFacts>,
    /// Possibly two shards: the stream was deleted and created again, perhaps within its creation
    /// second. Nothing can be said of such a shard.
    pub ambiguous: bool,
    /// (when, next offset at the least from then on); both ascend.
    known: Vec<(At, u64)>,
    /// (when, least offset of what was first sent at that moment or later); both ascend.
    fresh: Vec<(At, u64)>,
    /// (offset, when it arrived at the earliest, in ms, or something in front of it); both ascend.
    ages: Vec<(u64, u64)>,
    /// The greatest offset of what was first sent at the moments of `fresh` up to each.
    sent_by: Vec<u64>,
}

impl ShardView {
    /// The shard's next offset was at least this at `at`.
    pub fn next_at_least(&self, at: At) -> u64 {
        let before = self.known.partition_point(|(known, _)| *known < at);
        before.checked_sub(1).map_or(0, |last| self.known[last].1)
    }

    /// The shard's next offset was at most this at `at`; `None` if nothing says so.
    pub fn next_at_most(&self, at: At) -> Option<u64> {
        let after = self.fresh.partition_point(|(sent, _)| *sent <= at);
        self.fresh.get(after).map(|(_, offset)| *offset)
    }

    /// Whether everything from `offset` on was first sent after `at`: the shard then ended there or before.
    pub fn ended_by(&self, at: At, offset: u64) -> bool {
        let sent = self.fresh.partition_point(|(sent, _)| *sent <= at);
        self.sent_by[..sent].last().is_none_or(|greatest| *greatest < offset)
    }

    /// One more than the greatest offset that was ever acknowledged or read.
    pub fn next(&self) -> u64 {
        self.known.last().map_or(0, |(_, next)| *next)
    }

    /// The records below this offset may have been trimmed by `at`, if those older than `retention_ms`
    /// may be; 0 if none, and the greatest there is if nothing young is known. `now_ms` is the latest that any of the cluster's clocks may have shown then.
    pub fn may_be_trimmed(&self, retention_ms: u64, now_ms: u64) -> u64 {
        let old = self.ages.partition_point(|(_, arrival_ms)| arrival_ms.saturating_add(retention_ms) < now_ms);
        self.ages.get(old).map_or(u64::MAX, |(offset, _)| *offset)
    }

    /// All shards that anything is known of.
    pub(super) fn all_of(history: &History) -> BTreeMap<ShardKey, ShardView> {
        let mut views: BTreeMap<ShardKey, ShardView> = BTreeMap::new();
        for (_, stream, listing) in history.listings() {
            for facts in &listing.shards {
                let view = views.entry(ShardKey::of(stream, &facts.starting)).or_default();
                view.facts = Some(facts.clone());
            }
        }
        take_acks(history, &mut views);
        take_places(history, &mut views);
        let ambiguous = lives_that_may_be_two(history, &views);
        for (key, view) in &mut views {
            view.acks.sort_by_key(|ack| (ack.number.offset, ack.invoked));
            view.learn_times(history, key);
            view.ambiguous = ambiguous.contains(&(key.stream.clone(), key.created_s));
        }
        views
    }

    fn learn_times(&mut self, history: &History, key: &ShardKey) {
        let acked = self.acks.iter().map(|ack| (ack.returned, ack.number.offset.0 + 1));
        let read = self.places.iter().map(|(offset, it)| (it.at, offset + 1));
        self.known = acked.chain(read).collect();
        self.known.sort_unstable();
        let mut next = 0;
        for (_, at_least) in &mut self.known {
            next = next.max(*at_least);
            *at_least = next;
        }

        let acked = self.acks.iter().map(|ack| (ack.invoked, ack.number.offset.0));
        let read = self.places.iter().filter_map(|(offset, it)| {
            let value = it.seen.payload.as_ref().ok()?.value;
            let place = Place { shard: key.clone(), offset: *offset };
            let attempts = &history.values.get(&value)?.attempts;
            let acked = attempts.iter().any(|it| history.acked_place(*it).as_ref() == Some(&place));
            // Which of several sendings it was is not known: the first is the earliest it can be.
            let first = attempts.iter().map(|it| history.puts[it.put].invoked).min()?;
            (!acked).then_some((first, *offset))
        });
        self.fresh = acked.chain(read).collect();
        self.fresh.sort_unstable();
        // Of what was never read the acknowledgement tells the second only.
        let acked = self.acks.iter().map(|ack| (ack.number.offset.0, ack.number.arrival_s * 1_000));
        let mut ages: BTreeMap<u64, u64> = acked.collect();
        ages.extend(self.places.iter().map(|(offset, it)| (*offset, it.seen.arrival_ms)));
        let mut youngest = 0;
        let so_far = |(offset, arrival_ms): (u64, u64)| {
            youngest = youngest.max(arrival_ms);
            (offset, youngest)
        };
        self.ages = ages.into_iter().map(so_far).collect();
        let mut greatest = 0;
        self.sent_by = self
            .fresh
            .iter()
            .map(|(_, offset)| {
                greatest = greatest.max(*offset);
                greatest
            })
            .collect();
        let mut least = u64::MAX;
        for (_, at_most) in self.fresh.iter_mut().rev() {
            least = least.min(*at_most);
            *at_most = least;
        }
    }
}

/// Lives of streams, by their creation second, of which there is evidence from before a new creation of
/// the stream and from after it.
fn lives_that_may_be_two(history: &History, views: &BTreeMap<ShardKey, ShardView>) -> BTreeSet<(Arc<str>, u64)> {
    #[allow(clippy::type_complexity)] // named once, here
    let mut seen: BTreeMap<(Arc<str>, u64), Vec<(At, At)>> = BTreeMap::new();
    for (key, view) in views {
        let acked = view.acks.iter().map(|ack| (ack.invoked, ack.returned));
        let read = view.places.values().map(|it| (it.at, it.at));
        seen.entry((key.stream.clone(), key.created_s)).or_default().extend(acked.chain(read));
    }
    for (op, stream, listing) in history.listings() {
        // Children too: they are younger than their parents by a second at least, and so may have a second that is yet to
        // come, and that a child of the next life has as well.
        let asked = (op.invoked, op.returned.unwrap_or(At::NEVER));
        for facts in &listing.shards {
            seen.entry((stream.clone(), facts.starting.created_s)).or_default().push(asked);
        }
    }
    let may_be_two = |stream: &str, seen: &[(At, At)]| {
        history.creations(stream).any(|create| {
            let replaces = history.deletions(stream).any(|delete| delete.invoked < create.done_by());
            let before = || seen.iter().any(|(from, _)| *from < create.done_by());
            let after = || seen.iter().any(|(_, to)| *to > create.invoked);
            replaces && before() && after()
        })
    };
    seen.into_iter().filter(|((stream, _), seen)| may_be_two(stream, seen)).map(|(life, _)| life).collect()
}

fn take_acks(history: &History, views: &mut BTreeMap<ShardKey, ShardView>) {
    for (put, it) in history.puts.iter().enumerate() {
        for (nth, outcome) in it.outcomes.iter().enumerate() {
            let super::Outcome::Acked { shard, number } = outcome else { continue };
            let view = views.entry(ShardKey::of(&it.call.stream, number)).or_default();
            view.acks.push(Ack {
                number: *number,
                shard: shard.clone(),
                value: it.call.records[nth].value,
                attempt: Attempt { put, nth },
                invoked: it.invoked,
                returned: it.over_by(),
            });
        }
    }
}

fn take_places(history: &History, views: &mut BTreeMap<ShardKey, ShardView>) {
    let mut pages: Vec<_> = history.reads.iter().flat_map(|read| read.pages.iter().map(move |it| (read, it))).collect();
    pages.sort_by_key(|(_, page)| page.returned);
    for (read, page) in pages {
        for seen in &page.page.records {
            let view = views.entry(ShardKey::of(&read.stream, &seen.number)).or_default();
            let new = || Appearance { seen: seen.clone(), at: page.returned, op: page.op };
            let known = view.places.entry(seen.offset()).or_insert_with(new);
            if known.seen != *seen && !history.may_be_reborn(&read.stream, known.at, page.returned) {
                view.conflicts.push((known.clone(), new()));
            }
        }
    }
}

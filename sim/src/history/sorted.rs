//! What a run's clients saw, sorted by what it is about: the one form that every checker reads, and what may be asked of it.
//!
//! Deliberately absent: how it is made from the list of events (`digest`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Admin, AdminDone, At, ClientId, Event, Failed, IteratorKind, Listing, Note, OpId, Order, Outcome, Page, PutCall,
    Seen, Sent, ShardKey, ShardView, StreamFacts, Via, What,
};

/// Everything a run's clients saw.
#[derive(Debug)]
pub struct History {
    pub events: Vec<Event>,
    /// In the order of their invocations.
    pub puts: Vec<Put>,
    /// By value id: all that was sent or seen.
    pub values: BTreeMap<u64, Value>,
    /// Chains of pages, each from one beginning; in the order of their beginnings.
    pub reads: Vec<Read>,
    /// The chain that a call began; a consumer's first.
    pub(super) chains: BTreeMap<OpId, usize>,
    pub admin: Vec<AdminOp>,
    /// Calls that were told that something is not there.
    pub denials: Vec<Denial>,
    pub(super) lives: BTreeMap<Arc<str>, Life>,
    pub shards: BTreeMap<ShardKey, ShardView>,
    /// When faults stopped.
    pub healed: Option<At>,
    /// The last event's time.
    pub end: At,
}

/// One put call.
#[derive(Clone, Debug)]
pub struct Put {
    pub op: OpId,
    pub client: ClientId,
    pub via: Via,
    pub call: Arc<PutCall>,
    pub invoked: At,
    /// `None`: it never came back.
    pub returned: Option<At>,
    /// One per record; unknown where it never came back.
    pub outcomes: Arc<[Outcome]>,
}

/// One sending of a value: a record of a put, both by their places.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Attempt {
    pub put: usize,
    pub nth: usize,
}

/// A value's sendings, and where it is.
#[derive(Clone, Debug, Default)]
pub struct Value {
    pub attempts: Vec<Attempt>,
    pub places: Vec<Place>,
}

/// Where a record is, or was said to be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub shard: ShardKey,
    pub offset: u64,
}

/// A record where it was first read.
#[derive(Clone, Debug)]
pub struct Appearance {
    pub seen: Seen,
    /// When the first answer that held it came.
    pub at: At,
    /// Through which call.
    pub op: OpId,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ReadKind {
    /// GetShardIterator, then GetRecords.
    Poll,
    /// SubscribeToShard.
    Subscription,
    /// The library's consumer: one chain for each of its shards.
    Consumer,
}

/// A chain of pages from one beginning.
#[derive(Clone, Debug)]
pub struct Read {
    /// What began it.
    pub op: OpId,
    pub client: ClientId,
    pub via: Via,
    pub how: ReadKind,
    pub stream: Arc<str>,
    pub shard: Arc<str>,
    pub kind: IteratorKind,
    pub invoked: At,
    /// From when on the beginning is fixed; `None`: never, so there are no pages either.
    pub begun: Option<At>,
    pub pages: Vec<PageRead>,
    /// How it ended, if it did.
    pub ended: Option<(At, Option<Failed>)>,
    /// The shard it was of, where that can be told.
    pub key: Option<ShardKey>,
}

/// A page of a chain.
#[derive(Clone, Debug)]
pub struct PageRead {
    pub op: OpId,
    pub via: Via,
    /// Polls: when the page was asked for. Else when the chain was.
    pub invoked: At,
    pub returned: At,
    /// The most records it may have.
    pub limit: u32,
    pub page: Arc<Page>,
}

/// An administrative call.
#[derive(Clone, Debug)]
pub struct AdminOp {
    pub op: OpId,
    pub client: ClientId,
    pub via: Via,
    pub call: Admin,
    pub invoked: At,
    pub returned: Option<At>,
    /// `None`: it never came back.
    pub result: Option<Result<AdminDone, Failed>>,
}

/// A call of a stream that was certainly refused, since the stream or its shard is not there.
#[derive(Clone, Debug)]
pub struct Denial {
    pub op: OpId,
    pub stream: Arc<str>,
    /// The shard that was named, where one was; a consumer of the client library names what it was told of.
    pub shard: Option<Arc<str>>,
    /// The call, or for GetRecords its iterator's.
    pub invoked: At,
    pub answered: At,
    pub failed: Failed,
}

/// What may have been done to a stream's name: places in [`History::admin`].
#[derive(Clone, Debug, Default)]
pub struct Life {
    pub(super) creations: Vec<usize>,
    pub(super) updates: Vec<usize>,
    /// Splits and merges.
    pub(super) reshards: Vec<usize>,
    pub(super) deletions: Vec<usize>,
}

impl History {
    pub fn sent(&self, attempt: Attempt) -> (&Put, &Sent, &Outcome) {
        let put = &self.puts[attempt.put];
        (put, &put.call.records[attempt.nth], &put.outcomes[attempt.nth])
    }

    /// The sending through which `value` got to `place`: the one acknowledged there, or else the first
    /// whose outcome leaves it open.
    pub fn attempt_at(&self, value: u64, place: &Place) -> Option<Attempt> {
        let attempts = &self.values.get(&value)?.attempts;
        let acked = attempts.iter().find(|it| self.acked_place(**it).as_ref() == Some(place));
        let open = || attempts.iter().find(|it| matches!(self.sent(**it).2, Outcome::Unknown { .. }));
        acked.or_else(open).or(attempts.first()).copied()
    }

    /// Where an acknowledgement says that the record is.
    pub fn acked_place(&self, attempt: Attempt) -> Option<Place> {
        let (put, _, outcome) = self.sent(attempt);
        match outcome {
            Outcome::Acked { number, .. } => {
                Some(Place { shard: ShardKey::of(&put.call.stream, number), offset: number.offset.0 })
            }
            _ => None,
        }
    }

    /// All listings of a stream's shards that came back, with when they were asked for.
    pub fn listings(&self) -> impl DoubleEndedIterator<Item = (&AdminOp, &Arc<str>, &Listing)> {
        self.admin.iter().filter_map(|it| match (&it.call, &it.result) {
            (Admin::ListShards { stream } | Admin::ListOpen { stream, .. }, Some(Ok(AdminDone::Shards(listing)))) => {
                Some((it, stream, listing))
            }
            _ => None,
        })
    }

    /// The creations of a stream that may have been done, in the order in which they were asked for.
    pub fn creations<'a>(&'a self, stream: &str) -> impl Iterator<Item = &'a AdminOp> {
        self.lives.get(stream).into_iter().flat_map(|life| &life.creations).map(|nth| &self.admin[*nth])
    }

    /// The deletions of a stream that may have been done.
    pub fn deletions<'a>(&'a self, stream: &str) -> impl Iterator<Item = &'a AdminOp> {
        self.lives.get(stream).into_iter().flat_map(|life| &life.deletions).map(|nth| &self.admin[*nth])
    }

    /// The retentions that a stream may have been given after its creation.
    pub fn retentions<'a>(&'a self, stream: &str) -> impl Iterator<Item = u64> + use<'a> {
        let updates = self.lives.get(stream).into_iter().flat_map(|life| &life.updates).map(|nth| &self.admin[*nth]);
        updates.filter_map(|it| match it.call {
            Admin::Update { retention_ms, .. } => Some(retention_ms),
            _ => None,
        })
    }

    /// Whether a shard of a stream may have been split or merged.
    pub fn may_be_resharded(&self, stream: &str) -> bool {
        self.lives.get(stream).is_some_and(|life| !life.reshards.is_empty())
    }

    /// Whether shards of a stream may have been merged.
    pub fn may_be_merged(&self, stream: &str) -> bool {
        let reshards = self.lives.get(stream).into_iter().flat_map(|life| &life.reshards);
        reshards.map(|nth| &self.admin[*nth].call).any(|call| !matches!(call, Admin::Split { .. }))
    }

    /// How many open shards a stream has once it is ACTIVE, if the last change of its shards was to so many, and all
    /// others were done before.
    pub fn scaled_to(&self, stream: &str) -> Option<u32> {
        let changes = self.lives.get(stream).into_iter().flat_map(|life| &life.reshards).map(|nth| &self.admin[*nth]);
        let changes: Vec<&AdminOp> = changes.collect();
        let (last, before) = changes.split_last()?;
        match last.call {
            Admin::Scale { shards, .. } if last.is_done() => before
                .iter()
                .all(|it| it.done_by() < last.invoked && !matches!(it.call, Admin::Autoscale { .. }))
                .then_some(shards),
            _ => None,
        }
    }

    /// Every name that was asked to be created.
    pub fn stream_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.lives.keys()
    }

    /// Whether the stream of this name may have been another one at some moment from `from` to `to` than
    /// at another: deleted, and created again.
    pub fn may_be_reborn(&self, stream: &str, from: At, to: At) -> bool {
        self.creations(stream).any(|create| {
            let meanwhile = create.invoked < to && from < create.done_by();
            meanwhile && self.deletions(stream).any(|delete| delete.invoked < create.done_by().min(to))
        })
    }

    pub fn notes(&self) -> impl Iterator<Item = (At, &Note)> {
        self.events.iter().filter_map(|event| match &event.what {
            What::Note(note) => Some((event.at, note)),
            _ => None,
        })
    }

    /// The last word of each node on which streams there are.
    pub fn final_streams(&self) -> BTreeMap<Arc<str>, &[StreamFacts]> {
        let mut found: BTreeMap<Arc<str>, &[StreamFacts]> = BTreeMap::new();
        for (_, note) in self.notes() {
            if let Note::FinalStreams { via, streams } = note {
                found.insert(via.clone(), streams);
            }
        }
        found
    }

    pub fn read(&self, op: OpId) -> Option<&Read> {
        self.chains.get(&op).map(|nth| &self.reads[*nth])
    }

    /// Every reading of a whole shard at the end.
    pub fn final_passes(&self) -> Vec<FinalPass<'_>> {
        let mut passes = Vec::new();
        for (at, note) in self.notes() {
            let Note::FinalRead { pass, stream, shard, iterators, complete } = note else { continue };
            let reads = iterators.iter().filter_map(|op| self.read(*op));
            let records = reads.flat_map(Read::records).map(|(_, seen)| (seen.offset(), seen)).collect();
            let key = self.listed_key(stream, shard, at);
            let (stream, shard) = (stream.clone(), shard.clone());
            passes.push(FinalPass { pass: *pass, stream, shard, key, at, complete: *complete, records });
        }
        passes
    }

    /// The shard that had this name when it was last listed before `at`.
    pub fn listed_key(&self, stream: &Arc<str>, shard: &str, at: At) -> Option<ShardKey> {
        let listings = self.listings().filter(|(op, of, _)| *of == stream && op.invoked < at);
        let mut latest_first = listings.rev().flat_map(|(_, _, listing)| listing.shards.iter().rev());
        let facts = latest_first.find(|facts| &*facts.name == shard);
        facts.map(|facts| ShardKey::of(stream, &facts.starting))
    }

    /// The shards of which something can be said.
    pub fn certain_shards(&self) -> impl Iterator<Item = (&ShardKey, &ShardView)> {
        self.shards.iter().filter(|(_, view)| !view.ambiguous)
    }

    /// The view of a shard, if something can be said of it.
    pub fn certain(&self, key: Option<&ShardKey>) -> Option<&ShardView> {
        self.shards.get(key?).filter(|view| !view.ambiguous)
    }

    /// A sending in words.
    pub fn tell(&self, attempt: Attempt) -> String {
        let (put, sent, outcome) = self.sent(attempt);
        let until = put.returned.map_or("never came back".to_owned(), |at| format!("until {at}"));
        let (op, client, via, stream) = (put.op, put.client, &put.via, &put.call.stream);
        format!("{op}: {client} {via} put {sent} into {stream} at {} {until}: {outcome}", put.invoked)
    }
}

impl AdminOp {
    /// Unless it was certainly refused.
    pub fn may_be_done(&self) -> bool {
        !matches!(&self.result, Some(Err(failed)) if failed.refused)
    }

    pub fn is_done(&self) -> bool {
        matches!(self.result, Some(Ok(_)))
    }

    /// When it was decided, at the latest; `At::NEVER` where that is open.
    pub fn done_by(&self) -> At {
        match (self.is_done(), self.returned) {
            (true, Some(at)) => at,
            _ => At::NEVER,
        }
    }
}

impl Read {
    /// All records of the chain, with their pages.
    pub fn records(&self) -> impl Iterator<Item = (&PageRead, &Seen)> {
        self.pages.iter().flat_map(|page| page.page.records.iter().map(move |seen| (page, seen)))
    }
}

impl Put {
    /// When it was over, at the latest.
    pub fn over_by(&self) -> At {
        self.returned.unwrap_or(At::NEVER)
    }

    /// The pipeline in which records of a key keep their order.
    pub fn pipeline(&self) -> Option<u32> {
        match self.call.order {
            Order::Pipeline(id) => Some(id),
            Order::Free | Order::InCall | Order::Kept => None,
        }
    }
}

/// One reading of a whole shard at the end.
#[derive(Clone, Debug)]
pub struct FinalPass<'a> {
    pub pass: u32,
    pub stream: Arc<str>,
    pub shard: Arc<str>,
    /// The shard as it was listed before.
    pub key: Option<ShardKey>,
    /// When its reading was over.
    pub at: At,
    /// Whether the tip was reached.
    pub complete: bool,
    /// By offset.
    pub records: BTreeMap<u64, &'a Seen>,
}

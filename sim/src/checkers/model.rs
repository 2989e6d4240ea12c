//! A stream store that is correct because it is one thread and a few vectors, used by clients at random.
//!
//! Every call takes effect at one moment between its invocation and its return, or, where its outcome is
//! unknown, later or never. All checkers have to be silent about it; and with one [`Flaw`] built in, the
//! checker that holds that promise has to speak.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use braid_stream::limits::{Limits, READ_CALLS_PER_S};
use braid_stream::throttle::TokenBucket;
use braid_stream::{HashKey, HashRange, Offset, ShardThrottle};
use proptest::prelude::*;

use super::{Bounds, Violation, check_all};
use crate::history::{
    Admin, AdminDone, Call, ClientId, Failed, IteratorKind, Listing, Note, OpId, Order, Outcome, Page, Payload,
    PutCall, Reason, Recorder, Returned, Seen, Sent, SequenceNumber, ShardFacts, ShardKey, Status, StreamFacts, Via,
};
use crate::workload::Dice;

const EPOCH_MS: u64 = 1_700_000_000_000;
/// How wrong clocks are, either way.
const SKEW_MS: u64 = 30;
/// What one of the streams keeps its records for.
const SHORT_MS: u64 = 2_000;

/// A promise that the model breaks now and then.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Flaw {
    LosesAcknowledged,
    AppendsTwice,
    AppendsRefused,
    Misroutes,
    SwapsPlaces,
    ReadsStale,
    Skips,
    Repeats,
    MissesTimes,
    TrimsEarly,
    ForgetsRates,
    ClockGoesBack,
    SaysTip,
    Corrupts,
    LosesStream,
}

struct Stream {
    name: Arc<str>,
    alive: bool,
    /// Counts deletions.
    life: u32,
    created_s: u64,
    retention_ms: u64,
    shards: Vec<Shard>,
}

struct Shard {
    range: HashRange,
    records: Vec<Seen>,
    trimmed: u64,
    throttle: ShardThrottle,
    calls: TokenBucket,
}

/// A put that is not over, or whose outcome was unknown.
struct Put {
    op: OpId,
    stream: usize,
    sent: Vec<Sent>,
    pipeline: Option<u32>,
    /// Where each is, or that it was refused; `None` before it took effect.
    effect: Option<Vec<Option<(u32, SequenceNumber)>>>,
    returned: bool,
}

/// An iterator, a subscription, or one shard of a consumer.
struct Reader {
    op: OpId,
    stream: usize,
    life: u32,
    shard: u32,
    kind: IteratorKind,
    polls: bool,
    library: bool,
    /// Fixed at some moment.
    position: Option<u64>,
    begun: bool,
    page: Option<(OpId, u32, Option<Page>)>,
}

struct Model {
    dice: Dice,
    recorder: Recorder,
    now_ns: Arc<AtomicU64>,
    flaw: Option<Flaw>,
    streams: Vec<Stream>,
    puts: Vec<Put>,
    readers: Vec<Reader>,
    counts: u64,
    /// Readers go on to the tip.
    ends: bool,
}

impl Model {
    fn new(seed: u64, flaw: Option<Flaw>) -> Model {
        let now_ns = Arc::new(AtomicU64::new(0));
        let clock = now_ns.clone();
        let recorder = Recorder::new(move || clock.load(Ordering::Relaxed));
        let (streams, puts, readers) = (Vec::new(), Vec::new(), Vec::new());
        let mut model =
            Model { dice: Dice::of(seed), recorder, now_ns, flaw, streams, puts, readers, counts: 0, ends: false };
        for (name, retention_ms) in [("a", 0), ("b", SHORT_MS), ("c", 0)] {
            let name = model.recorder.intern(name);
            let (life, created_s, shards) = (0, 0, Vec::new());
            model.streams.push(Stream { name, alive: false, life, created_s, retention_ms, shards });
            model.create(model.streams.len() - 1);
        }
        model
    }

    /// Whether the flaw is to show now.
    fn errs(&mut self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw) && self.dice.percent(20)
    }

    fn since_start(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    fn true_ms(&self) -> u64 {
        EPOCH_MS + self.now_ns.load(Ordering::Relaxed) / 1_000_000
    }

    /// What some node's clock shows.
    fn clock_ms(&mut self) -> u64 {
        self.true_ms() + self.dice.between(0, 2 * SKEW_MS) - SKEW_MS
    }

    fn step(&mut self) {
        let pass_ns = match self.dice.between(0, 49) {
            0..20 => 0,
            20..49 => self.dice.between(0, 20_000_000),
            _ => self.dice.between(0, 900_000_000),
        };
        self.now_ns.fetch_add(pass_ns, Ordering::Relaxed);
        if self.flaw == Some(Flaw::ForgetsRates) && self.dice.percent(1) {
            self.burst();
        }
        match self.dice.between(0, 29) {
            0..5 => self.send(),
            5..11 => self.take_effect(),
            11..16 => self.answer(),
            16..18 => self.begin(),
            18..26 => self.read(),
            26 => self.trim(),
            27 => self.fail_over(),
            28 => self.look(),
            _ => self.come_and_go(),
        }
    }

    // Writing.

    fn send(&mut self) {
        let stream = self.dice.below(self.streams.len());
        let unknown = self.puts.iter().position(|put| put.returned && put.effect.is_none() && put.sent.len() == 1);
        let (sent, pipeline) = match (self.dice.between(0, 9), unknown) {
            (0, Some(again)) if self.puts[again].stream == stream => (self.puts[again].sent.clone(), None),
            (1..4, _) => (vec![self.record(100)], Some(stream as u32)),
            (4, _) => ((0..400).map(|_| self.record(40)).collect(), None),
            _ => ((0..self.dice.between(1, 4)).map(|_| self.record(200)).collect(), None),
        };
        let order = pipeline.map_or(Order::InCall, Order::Pipeline);
        let call = PutCall { stream: self.streams[stream].name.clone(), records: sent.clone(), order, once: true };
        let op = self.recorder.invoke(ClientId(1), self.via(), Call::Put(Arc::new(call)));
        self.puts.push(Put { op, stream, sent, pipeline, effect: None, returned: false });
    }

    /// More than a shard takes in a second, at once.
    fn burst(&mut self) {
        self.puts.clear();
        for _ in 0..200 {
            self.send();
            self.take_effect();
            self.answer();
            self.puts.clear();
        }
    }

    fn record(&mut self, bytes: u32) -> Sent {
        self.counts += 1;
        let key = self.recorder.intern(&format!("key-{}", self.dice.between(0, 5)));
        let explicit = self.dice.percent(20).then(|| HashKey(self.dice.u128()));
        let size = bytes + key.len() as u32;
        Sent { value: self.recorder.next_value(), key, explicit, size, n: self.counts }
    }

    fn take_effect(&mut self) {
        let open: Vec<usize> = (0..self.puts.len()).filter(|nth| self.puts[*nth].effect.is_none()).collect();
        let Some(nth) = (!open.is_empty()).then(|| *self.dice.one_of(&open)) else { return };
        let pipeline = self.puts[nth].pipeline;
        let waits = |put: &Put| put.pipeline == pipeline && put.effect.is_none() && !put.returned;
        if pipeline.is_some() && self.puts[..nth].iter().any(waits) {
            return;
        }
        let (stream, sent) = (self.puts[nth].stream, self.puts[nth].sent.clone());
        let arrival_ms = self.clock_ms();
        let mut effect: Vec<_> = sent.iter().map(|it| self.append(stream, it, arrival_ms)).collect();
        if effect.len() == 2 && self.errs(Flaw::SwapsPlaces) {
            effect.swap(0, 1);
        }
        self.puts[nth].effect = Some(effect);
    }

    /// Where the record is from now on; `None` if it is refused.
    fn append(&mut self, stream: usize, sent: &Sent, clock_ms: u64) -> Option<(u32, SequenceNumber)> {
        let now = self.since_start();
        let (misroutes, loses) = (self.errs(Flaw::Misroutes), self.errs(Flaw::LosesAcknowledged));
        let (twice, free) = (self.errs(Flaw::AppendsTwice), self.flaw == Some(Flaw::ForgetsRates));
        let (refused_too, corrupts) = (self.errs(Flaw::AppendsRefused), self.errs(Flaw::Corrupts));
        let back = self.errs(Flaw::ClockGoesBack);
        let it = &mut self.streams[stream];
        if !it.alive {
            return None;
        }
        let mut index = it.shards.iter().position(|shard| shard.range.contains(sent.hash())).expect("ranges tile");
        if misroutes {
            index = (index + 1) % it.shards.len();
        }
        let shard = &mut it.shards[index];
        let refused = !free && shard.throttle.write(now, u64::from(sent.size)).is_err();
        if refused && !refused_too {
            return None;
        }
        let last_ms = shard.records.last().map_or(0, |last| last.arrival_ms);
        let arrival_ms = if back && last_ms > 0 { last_ms - 1 } else { clock_ms.max(last_ms) };
        let mut number = SequenceNumber {
            created_s: it.created_s,
            shard_index: index as u32,
            offset: Offset(shard.records.len() as u64),
            arrival_s: arrival_ms / 1_000,
        };
        let (key, size, length) = (sent.key.clone(), sent.size, sent.size - sent.key.len() as u32);
        let n = if corrupts { sent.n + 1 } else { sent.n };
        let payload = Ok(Payload { value: sent.value, client: 1, n, length });
        let seen = Seen { number, arrival_ms, key, size, payload };
        for _ in 0..if loses { 0 } else { 1 + u32::from(twice) } {
            number.offset = Offset(shard.records.len() as u64);
            shard.records.push(Seen { number, ..seen.clone() });
        }
        (!refused).then_some((index as u32, seen.number))
    }

    fn answer(&mut self) {
        let open: Vec<usize> = (0..self.puts.len()).filter(|nth| !self.puts[*nth].returned).collect();
        let Some(nth) = (!open.is_empty()).then(|| *self.dice.one_of(&open)) else { return };
        let known = self.dice.percent(85);
        let recorder = self.recorder.clone();
        let put = &mut self.puts[nth];
        let unknown = || Outcome::Unknown { why: "no answer".into() };
        let refused = || Outcome::Refused { reason: Reason::Throttled };
        let outcomes: Vec<Outcome> = match (&put.effect, known) {
            (_, false) => put.sent.iter().map(|_| unknown()).collect(),
            // Nothing was done, and nothing will be.
            (None, true) => put.sent.iter().map(|_| refused()).collect(),
            (Some(effect), true) => {
                let acked =
                    |(shard, number)| Outcome::Acked { shard: recorder.intern(&ShardKey::name_of(shard)), number };
                effect.iter().map(|place| place.map_or_else(refused, acked)).collect()
            }
        };
        put.returned = true;
        recorder.returned(put.op, Returned::Put(outcomes.into()));
        if put.effect.is_some() || known {
            self.puts.remove(nth);
        }
    }

    // Reading.

    fn begin(&mut self) {
        let stream = self.dice.below(self.streams.len());
        if !self.streams[stream].alive {
            return;
        }
        let shard = self.dice.below(self.streams[stream].shards.len()) as u32;
        let how = self.dice.between(0, 5);
        let kind = match how {
            0 => *self.dice.one_of(&[IteratorKind::TrimHorizon, IteratorKind::Latest]),
            _ => self.kind(stream, shard),
        };
        let it = &self.streams[stream];
        let (name, life, shard_name) = (it.name.clone(), it.life, self.recorder.intern(&ShardKey::name_of(shard)));
        let (via, call) = match how {
            0 => (Via::Library, Call::Consume { stream: name, kind }),
            1 => (self.via(), Call::Subscribe { stream: name, shard: shard_name, kind }),
            _ => (self.via(), Call::Iterator { stream: name, shard: shard_name, kind }),
        };
        let op = self.recorder.invoke(ClientId(2), via, call);
        let (polls, library) = (how > 1, how == 0);
        let (position, begun, page) = (None, false, None);
        self.readers.push(Reader { op, stream, life, shard, kind, polls, library, position, begun, page });
    }

    fn kind(&mut self, stream: usize, shard: u32) -> IteratorKind {
        let records = &self.streams[stream].shards[shard as usize].records;
        let some = (!records.is_empty()).then(|| self.dice.one_of(records).clone());
        match (self.dice.between(0, 4), some) {
            (0, _) => IteratorKind::TrimHorizon,
            (1, _) => IteratorKind::Latest,
            (2, Some(seen)) => IteratorKind::AtSequence(seen.number),
            (3, Some(seen)) => IteratorKind::AfterSequence(seen.number),
            (_, Some(seen)) => IteratorKind::AtTimestamp(seen.arrival_ms + self.dice.between(0, 2) - 1),
            (_, None) => IteratorKind::AtTimestamp(self.true_ms() + self.dice.between(0, 2_000) - 1_000),
        }
    }

    /// One reader does what comes next.
    fn read(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let nth = self.dice.below(self.readers.len());
        let reader = &self.readers[nth];
        let stream = &self.streams[reader.stream];
        if !stream.alive || stream.life != reader.life {
            // Told that it is gone, or never told anything.
            self.readers.remove(nth);
            return;
        }
        match (reader.position, reader.begun, &reader.page) {
            (None, ..) => self.fix_position(nth),
            (Some(_), false, _) => {
                self.recorder.returned(reader.op, Returned::Begun);
                self.readers[nth].begun = true;
            }
            (Some(_), true, None) if reader.polls => {
                let limit = *self.dice.one_of(&[0, 1, 3, 100]);
                let call = Call::Records { iterator: self.readers[nth].op, limit };
                let op = self.recorder.invoke(ClientId(2), self.via(), call);
                self.readers[nth].page = Some((op, limit, None));
            }
            (Some(_), true, None) => self.push(nth),
            (Some(_), true, Some((_, _, None))) => self.serve(nth),
            (Some(_), true, Some((_, _, Some(_)))) => self.give(nth),
        }
    }

    fn fix_position(&mut self, nth: usize) {
        let misses = self.errs(Flaw::MissesTimes);
        let reader = &mut self.readers[nth];
        let shard = &self.streams[reader.stream].shards[reader.shard as usize];
        let next = shard.records.len() as u64;
        let at = match reader.kind {
            IteratorKind::TrimHorizon => shard.trimmed,
            IteratorKind::Latest => next,
            IteratorKind::AtSequence(number) => number.offset.0,
            IteratorKind::AfterSequence(number) => number.offset.0 + 1,
            IteratorKind::AtTimestamp(ms) => {
                let found = shard.records.iter().position(|seen| seen.arrival_ms >= ms);
                found.map_or(next, |found| found as u64 + u64::from(misses))
            }
        };
        reader.position = Some(at.max(shard.trimmed));
    }

    /// The page at a reader's position as of now.
    fn page(&mut self, nth: usize, limit: u32) -> (u64, Page) {
        let (stale, tip) = (self.errs(Flaw::ReadsStale), self.flaw == Some(Flaw::SaysTip));
        let (skips, repeats) = (self.errs(Flaw::Skips), self.errs(Flaw::Repeats));
        let clock_ms = self.clock_ms();
        let reader = &self.readers[nth];
        let shard = &self.streams[reader.stream].shards[reader.shard as usize];
        let mut next = shard.records.len() as u64;
        let due = reader.position.expect("it is fixed");
        let mut from = due.max(shard.trimmed);
        if stale {
            next = next.saturating_sub(2).max(from);
        }
        if skips && from < next {
            from += 1;
        } else if repeats && from > shard.trimmed {
            from -= 1;
        }
        let limit = if limit == 0 { 10_000 } else { u64::from(limit) };
        let end = next.min(from + limit);
        let records = shard.records[from as usize..end as usize].to_vec();
        let behind_ms = match records.last() {
            Some(last) if end < next && !tip => clock_ms.saturating_sub(last.arrival_ms),
            _ => 0,
        };
        let before = end.checked_sub(1).map(|last| shard.records[last as usize].number);
        let continuation = before.filter(|_| !reader.polls && !reader.library);
        // What a consumer has not begun to read it cannot miss.
        let missed = if reader.library { from - due.min(from) } else { 0 };
        (end, Page { records, behind_ms, ended: None, continuation, missed })
    }

    /// A subscription's or a consumer's next event.
    fn push(&mut self, nth: usize) {
        let limit = self.dice.between(1, 50) as u32;
        let (end, page) = self.page(nth, limit);
        let library = self.readers[nth].library;
        let shard = self.recorder.intern(&ShardKey::name_of(self.readers[nth].shard));
        // The library counts from the last record on.
        if !library || !page.records.is_empty() {
            self.readers[nth].position = Some(end);
        }
        if !library || !page.records.is_empty() {
            self.recorder.received(self.readers[nth].op, shard, page);
        }
        if self.dice.percent(10) {
            let reader = self.readers.remove(nth);
            self.recorder.returned(reader.op, Returned::Ended);
        }
    }

    /// GetRecords takes effect, or is throttled.
    fn serve(&mut self, nth: usize) {
        let now = self.since_start();
        let (_, limit, _) = self.readers[nth].page.clone().expect("it was asked for");
        let reader = &self.readers[nth];
        let calls = &mut self.streams[reader.stream].shards[reader.shard as usize].calls;
        if self.flaw != Some(Flaw::ForgetsRates) && calls.wait(now, 1) > Duration::ZERO {
            return self.fail(nth, Reason::Throttled);
        }
        calls.take(now, 1);
        let (_, page) = self.page(nth, limit);
        self.readers[nth].page.as_mut().expect("it is there").2 = Some(page);
    }

    /// GetRecords returns.
    fn give(&mut self, nth: usize) {
        if self.dice.percent(10) {
            return self.fail(nth, Reason::Unspecified);
        }
        let (op, _, page) = self.readers[nth].page.take().expect("it was asked for");
        let page = page.expect("it was served");
        if let Some(last) = page.records.last() {
            self.readers[nth].position = Some(last.offset() + 1);
        }
        self.recorder.returned(op, Returned::Page(Arc::new(page)));
        if !self.ends && self.dice.percent(5) {
            self.readers.remove(nth);
        }
    }

    fn fail(&mut self, nth: usize, reason: Reason) {
        let (op, ..) = self.readers[nth].page.take().expect("it was asked for");
        let failed = Failed { refused: reason == Reason::Throttled, reason, shard: None, why: "x".into() };
        self.recorder.returned(op, Returned::Failed(failed));
    }

    // The rest.

    fn trim(&mut self) {
        let early = self.errs(Flaw::TrimsEarly);
        let now_ms = self.clock_ms();
        for stream in &mut self.streams {
            let kept_ms = if stream.retention_ms == 0 { 86_400_000 } else { stream.retention_ms };
            for shard in &mut stream.shards {
                let young = |seen: &Seen| !early && seen.arrival_ms + kept_ms >= now_ms;
                let kept = shard.records.iter().position(young).unwrap_or(shard.records.len()) as u64;
                shard.trimmed = shard.trimmed.max(kept);
            }
        }
    }

    /// A new leader begins with empty buckets.
    fn fail_over(&mut self) {
        let now = self.since_start();
        for shard in self.streams.iter_mut().flat_map(|stream| &mut stream.shards) {
            shard.throttle = ShardThrottle::empty(&Limits::DEFAULT, now);
            shard.calls = TokenBucket::empty(READ_CALLS_PER_S, now);
        }
    }

    fn look(&mut self) {
        let stream = self.dice.below(self.streams.len());
        let name = self.streams[stream].name.clone();
        let call = Call::Admin(Admin::Describe { stream: name });
        let op = self.recorder.invoke(ClientId(3), self.via(), call);
        let why = "no such stream".into();
        let returned = match self.streams[stream].alive {
            true => Returned::Admin(AdminDone::Stream(self.facts(stream))),
            false => Returned::Failed(Failed { refused: true, reason: Reason::StreamNotFound, shard: None, why }),
        };
        self.recorder.returned(op, returned);
    }

    /// The last stream is deleted, or created again.
    fn come_and_go(&mut self) {
        let last = self.streams.len() - 1;
        if !self.dice.percent(30) {
            return;
        }
        match self.streams[last].alive {
            false => self.create(last),
            true => {
                let stream = self.streams[last].name.clone();
                let op = self.recorder.invoke(ClientId(3), self.via(), Call::Admin(Admin::Delete { stream }));
                let (done, known) = (self.dice.percent(80), self.dice.percent(80));
                if done {
                    self.streams[last].alive = false;
                    self.streams[last].life += 1;
                }
                let refused = Failed { refused: true, reason: Reason::NoLeader, shard: None, why: "x".into() };
                let unknown = Failed { refused: false, reason: Reason::Unspecified, shard: None, why: "x".into() };
                self.recorder.returned(
                    op,
                    match (known, done) {
                        (true, true) => Returned::Admin(AdminDone::Accepted),
                        (true, false) => Returned::Failed(refused),
                        (false, _) => Returned::Failed(unknown),
                    },
                );
            }
        }
    }

    fn create(&mut self, stream: usize) {
        let now = self.since_start();
        let (stream_name, retention_ms) = (self.streams[stream].name.clone(), self.streams[stream].retention_ms);
        let shards = self.dice.between(1, 3) as u32;
        let call = Call::Admin(Admin::Create { stream: stream_name, shards, retention_ms });
        let op = self.recorder.invoke(ClientId(3), self.via(), call);
        let created_s = self.clock_ms() / 1_000;
        let it = &mut self.streams[stream];
        (it.alive, it.created_s) = (true, it.created_s.max(created_s));
        let shard = |range| Shard {
            range,
            records: Vec::new(),
            trimmed: 0,
            throttle: ShardThrottle::full(&Limits::DEFAULT, now),
            calls: TokenBucket::full(READ_CALLS_PER_S, now),
        };
        it.shards = HashRange::split_even(shards).into_iter().map(shard).collect();
        self.recorder.returned(op, Returned::Admin(AdminDone::Accepted));
        self.list(stream);
    }

    fn list(&mut self, stream: usize) {
        let name = self.streams[stream].name.clone();
        let op = self.recorder.invoke(ClientId(3), self.via(), Call::Admin(Admin::ListShards { stream: name }));
        let it = &self.streams[stream];
        let facts = (0..).zip(&it.shards).map(|(index, shard)| ShardFacts {
            name: self.recorder.intern(&ShardKey::name_of(index)),
            range: shard.range,
            parents: Vec::new(),
            starting: SequenceNumber { created_s: it.created_s, shard_index: index, offset: Offset(0), arrival_s: 0 },
            ending: None,
            group: 1,
        });
        let listing = Listing { shards: facts.collect(), at_once: true };
        self.recorder.returned(op, Returned::Admin(AdminDone::Shards(listing)));
    }

    fn facts(&self, stream: usize) -> StreamFacts {
        let it = &self.streams[stream];
        StreamFacts {
            name: it.name.clone(),
            status: Status::Active,
            created_ms: it.created_s * 1_000,
            retention_ms: if it.retention_ms == 0 { 86_400_000 } else { it.retention_ms },
            open_shards: it.shards.len() as u32,
        }
    }

    fn via(&self) -> Via {
        Via::Node(self.recorder.intern("a:1"))
    }

    /// What the checkers say of `steps` steps and a final reading.
    fn run(mut self, steps: usize) -> Vec<Violation> {
        for _ in 0..steps {
            self.step();
        }
        self.recorder.note(Note::Healed);
        let loses = self.flaw == Some(Flaw::LosesStream);
        let alive: Vec<usize> = (0..self.streams.len()).filter(|nth| self.streams[*nth].alive).collect();
        for stream in &alive {
            self.list(*stream);
        }
        let facts = alive.iter().skip(usize::from(loses)).map(|stream| self.facts(*stream)).collect();
        self.recorder.note(Note::FinalStreams { via: self.recorder.intern("a:1"), streams: facts });
        self.readers.clear();
        self.ends = true;
        for (pass, stream) in [0, 1].into_iter().flat_map(|pass| alive.iter().map(move |stream| (pass, *stream))) {
            for shard in 0..self.streams[stream].shards.len() as u32 {
                self.final_read(pass, stream, shard);
            }
        }
        let bounds = Bounds { ahead_ms: SKEW_MS, behind_ms: SKEW_MS, ..Bounds::exact(EPOCH_MS) };
        check_all(&self.recorder.history(), &bounds)
    }

    fn final_read(&mut self, pass: u32, stream: usize, shard: u32) {
        let it = &self.streams[stream];
        let (name, life, shard_name) = (it.name.clone(), it.life, self.recorder.intern(&ShardKey::name_of(shard)));
        let kind = IteratorKind::TrimHorizon;
        let call = Call::Iterator { stream: name.clone(), shard: shard_name.clone(), kind };
        let op = self.recorder.invoke(ClientId(9), self.via(), call);
        let (polls, library, position, begun, page) = (true, false, None, false, None);
        self.readers.push(Reader { op, stream, life, shard, kind, polls, library, position, begun, page });
        let tip = |model: &Model| model.streams[stream].shards[shard as usize].records.len() as u64;
        while self.readers.last().is_some_and(|it| it.position.is_none_or(|position| position < tip(self))) {
            self.now_ns.fetch_add(100_000_000, Ordering::Relaxed);
            self.read();
        }
        self.readers.clear();
        let iterators = vec![op];
        self.recorder.note(Note::FinalRead { pass, stream: name, shard: shard_name, iterators, complete: true });
    }
}

#[track_caller]
fn silent(seed: u64, steps: usize) {
    let wrong = Model::new(seed, None).run(steps);
    let text: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "seed {seed}:\n{}", text.join("\n"));
}

proptest! {
    #[test]
    fn a_correct_store_raises_no_violation(seed: u64, steps in 0..1_500usize) {
        silent(seed, steps);
    }
}

#[test]
fn a_flaw_is_seen_by_the_checker_that_holds_the_promise() {
    let table = [
        (Flaw::LosesAcknowledged, "acked"),
        (Flaw::AppendsTwice, "sent"),
        (Flaw::AppendsRefused, "refused"),
        (Flaw::Misroutes, "routing"),
        (Flaw::SwapsPlaces, "order"),
        (Flaw::ReadsStale, "session"),
        (Flaw::Skips, "iterators"),
        (Flaw::Repeats, "iterators"),
        (Flaw::MissesTimes, "timestamps"),
        (Flaw::TrimsEarly, "retention"),
        (Flaw::ForgetsRates, "rates"),
        (Flaw::ClockGoesBack, "timestamps"),
        (Flaw::SaysTip, "behind"),
        (Flaw::Corrupts, "sent"),
        (Flaw::LosesStream, "streams"),
    ];
    for (flaw, name) in table {
        let mut seen = BTreeSet::new();
        let caught = (0..60).any(|seed| {
            seen.extend(Model::new(seed, Some(flaw)).run(1_000).iter().map(|it| it.checker));
            seen.contains(name)
        });
        assert!(caught, "{flaw:?} was not seen by {name}, but by {seen:?}");
    }
}

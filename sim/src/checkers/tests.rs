//! Each checker fires on a hand-made history with one thing wrong, and on nothing else; all are silent on the
//! same history without it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{ALL, Bounds, Violation, check_all};
use crate::history::{
    Admin, AdminDone, Call, ClientId, Corrupt, Failed, HashKey, HashRange, IteratorKind, Listing, Note, OpId, Order,
    Outcome, Page, Payload, PutCall, Reason, Recorder, Returned, Seen, Sent, SequenceNumber, ShardFacts, ShardKey,
    Status, StreamFacts, Via,
};
use braid_stream::Offset;

const EPOCH_MS: u64 = 1_700_000_000_000;
const CREATED_S: u64 = EPOCH_MS / 1_000;
const NODE: &str = "a:1";

/// Writes a history down, event by event.
pub(super) struct Script {
    recorder: Recorder,
    now_ns: Arc<AtomicU64>,
    bounds: Bounds,
    stream: Arc<str>,
    shards: u32,
    /// One more than the greatest offset there is.
    next: AtomicU64,
}

/// A put that was sent and not answered yet.
struct Open {
    op: OpId,
    sent: Vec<Sent>,
}

impl Script {
    /// A stream `s` of so many shards, created at 1 ms.
    fn new(shards: u32) -> Script {
        let now_ns = Arc::new(AtomicU64::new(0));
        let recorder = {
            let now_ns = now_ns.clone();
            Recorder::new(move || now_ns.load(Ordering::Relaxed))
        };
        let stream = recorder.intern("s");
        let (bounds, next) = (Bounds::exact(EPOCH_MS), AtomicU64::new(0));
        let script = Script { recorder, now_ns, bounds, stream, shards, next };
        script.tick(1);
        script.create("s", shards, 0);
        script.list();
        script
    }

    fn tick(&self, ms: u64) {
        self.now_ns.fetch_add(ms * 1_000_000, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        EPOCH_MS + self.now_ns.load(Ordering::Relaxed) / 1_000_000
    }

    fn via(&self) -> Via {
        Via::Node(self.recorder.intern(NODE))
    }

    fn admin(&self, call: Admin, returned: Returned) {
        let op = self.recorder.invoke(ClientId(9), self.via(), Call::Admin(call));
        self.tick(1);
        self.recorder.returned(op, returned);
    }

    fn create(&self, stream: &str, shards: u32, retention_ms: u64) {
        let stream = self.recorder.intern(stream);
        self.admin(Admin::Create { stream, shards, retention_ms }, Returned::Admin(AdminDone::Accepted));
    }

    fn delete(&self, stream: &str) {
        let stream = self.recorder.intern(stream);
        self.admin(Admin::Delete { stream }, Returned::Admin(AdminDone::Accepted));
    }

    fn facts(&self) -> Vec<ShardFacts> {
        let ranges = HashRange::split_even(self.shards);
        let facts = (0..).zip(ranges).map(|(index, range)| ShardFacts {
            name: self.recorder.intern(&shard_name(index)),
            range,
            parents: Vec::new(),
            starting: SequenceNumber { arrival_s: 0, ..number(index, 0, 0) },
            ending: None,
            group: 1,
        });
        facts.collect()
    }

    fn list(&self) {
        self.list_as(self.facts());
    }

    fn list_as(&self, shards: Vec<ShardFacts>) {
        let call = Admin::ListShards { stream: self.stream.clone() };
        self.admin(call, Returned::Admin(AdminDone::Shards(Listing { shards, at_once: true })));
    }

    fn sent(&self, key: &str, explicit: Option<u128>, n: u64) -> Sent {
        let key = self.recorder.intern(key);
        let size = 100 + key.len() as u32;
        Sent { value: self.recorder.next_value(), key, explicit: explicit.map(HashKey), size, n }
    }

    fn send_as(&self, sent: Vec<Sent>, order: Order) -> Open {
        let call = PutCall { stream: self.stream.clone(), records: sent.clone(), order, once: true };
        let op = self.recorder.invoke(ClientId(1), self.via(), Call::Put(Arc::new(call)));
        self.tick(1);
        Open { op, sent }
    }

    fn send(&self, key: &str, n: u64) -> Open {
        self.send_as(vec![self.sent(key, None, n)], Order::Free)
    }

    fn put_returned(&self, open: &Open, outcomes: Vec<Outcome>) {
        self.recorder.returned(open.op, Returned::Put(outcomes.into()));
        self.tick(1);
    }

    fn ack(&self, open: &Open, offset: u64) {
        self.put_returned(open, vec![self.acked(offset)]);
    }

    fn acked(&self, offset: u64) -> Outcome {
        Outcome::Acked { shard: self.recorder.intern(&shard_name(0)), number: number(0, offset, self.now_ms()) }
    }

    /// Sends a record and has it acknowledged at once; gives it as it is read.
    fn put(&self, offset: u64) -> Seen {
        let open = self.send("k", offset);
        let seen = self.seen(&open.sent[0], offset);
        self.ack(&open, offset);
        seen
    }

    /// So many records one after the other.
    fn puts(&self, count: u64) -> Vec<Seen> {
        (0..count).map(|offset| self.put(offset)).collect()
    }

    /// As it is read at `offset` of shard 0, if it arrived now.
    fn seen(&self, sent: &Sent, offset: u64) -> Seen {
        let length = sent.size - sent.key.len() as u32;
        self.next.fetch_max(offset + 1, Ordering::Relaxed);
        Seen {
            number: number(0, offset, self.now_ms()),
            arrival_ms: self.now_ms(),
            key: sent.key.clone(),
            size: sent.size,
            payload: Ok(Payload { value: sent.value, client: 1, n: sent.n, length }),
        }
    }

    fn iterator(&self, kind: IteratorKind) -> OpId {
        self.iterator_of(0, kind)
    }

    fn iterator_of(&self, shard: u32, kind: IteratorKind) -> OpId {
        let shard = self.recorder.intern(&shard_name(shard));
        let op =
            self.recorder.invoke(ClientId(2), self.via(), Call::Iterator { stream: self.stream.clone(), shard, kind });
        self.tick(1);
        self.recorder.returned(op, Returned::Begun);
        op
    }

    fn page(&self, iterator: OpId, limit: u32, records: &[Seen]) {
        let behind = records.last().filter(|last| last.offset() + 1 < self.next.load(Ordering::Relaxed));
        self.page_behind(iterator, limit, records, behind.map_or(0, |last| self.now_ms() - last.arrival_ms));
    }

    fn page_behind(&self, iterator: OpId, limit: u32, records: &[Seen], behind_ms: u64) {
        let op = self.recorder.invoke(ClientId(2), self.via(), Call::Records { iterator, limit });
        self.tick(1);
        let page = Page { records: records.to_vec(), behind_ms, ..Page::default() };
        self.recorder.returned(op, Returned::Page(Arc::new(page)));
        // Five calls a second are served.
        self.tick(250);
    }

    fn final_streams(&self, streams: Vec<StreamFacts>) {
        self.recorder.note(Note::FinalStreams { via: self.recorder.intern(NODE), streams });
    }

    fn stream_facts(&self) -> StreamFacts {
        StreamFacts {
            name: self.stream.clone(),
            status: Status::Active,
            created_ms: EPOCH_MS + 1,
            retention_ms: self.bounds.retention_of(&self.recorder.history(), &self.stream),
            open_shards: self.shards,
        }
    }

    /// One final reading of shard 0.
    fn final_pass(&self, pass: u32, shard: u32, records: &[Seen]) {
        let iterator = self.iterator_of(shard, IteratorKind::TrimHorizon);
        if !records.is_empty() {
            self.page(iterator, 0, records);
        }
        self.page(iterator, 0, &[]);
        let (stream, shard) = (self.stream.clone(), self.recorder.intern(&shard_name(shard)));
        self.recorder.note(Note::FinalRead { pass, stream, shard, iterators: vec![iterator], complete: true });
    }

    /// The end: both readings of shard 0 have `records`, the other shards have none.
    fn finish(self, records: &[Seen]) -> Vec<Violation> {
        self.tick(1_000);
        self.list();
        self.final_streams(vec![self.stream_facts()]);
        for shard in 0..self.shards {
            let records = if shard == 0 { records } else { &[] };
            self.final_pass(0, shard, records);
            self.final_pass(1, shard, records);
        }
        self.verdict()
    }

    fn verdict(self) -> Vec<Violation> {
        check_all(&self.recorder.history(), &self.bounds)
    }
}

fn shard_name(index: u32) -> String {
    format!("shardId-{index:012}")
}

fn number(shard_index: u32, offset: u64, arrival_ms: u64) -> SequenceNumber {
    SequenceNumber { created_s: CREATED_S, shard_index, offset: Offset(offset), arrival_s: arrival_ms / 1_000 }
}

/// `wrong` is what these checkers see, each at least once, and no other.
#[track_caller]
fn only(names: &[&str], wrong: Vec<Violation>) {
    let fired: BTreeSet<&str> = wrong.iter().map(|it| it.checker).collect();
    let text: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(fired, names.iter().copied().collect(), "\n{}", text.join("\n"));
}

#[test]
fn a_sound_history_passes() {
    let script = Script::new(1);
    let records = script.puts(5);
    let first = script.iterator(IteratorKind::TrimHorizon);
    script.page(first, 2, &records[..2]);
    script.page(first, 100, &records[2..]);
    script.page(first, 100, &[]);
    let after = script.iterator(IteratorKind::AfterSequence(records[2].number));
    script.page(after, 100, &records[3..]);
    let at = script.iterator(IteratorKind::AtTimestamp(records[3].arrival_ms));
    script.page(at, 1, &records[3..4]);
    script.put_returned(&script.send("refused", 0), vec![Outcome::Refused { reason: Reason::Throttled }]);
    only(&[], script.finish(&records));
}

#[test]
fn an_unknown_record_may_be_there_once_or_not_at_all() {
    for there in [false, true] {
        let script = Script::new(1);
        let mut records = script.puts(2);
        let open = script.send("k", 2);
        if there {
            records.push(script.seen(&open.sent[0], 2));
        }
        script.put_returned(&open, vec![Outcome::Unknown { why: "late".into() }]);
        only(&[], script.finish(&records));
    }
}

#[test]
fn a_record_sent_twice_may_be_there_twice() {
    let script = Script::new(1);
    let first = script.send("k", 0);
    let once = script.seen(&first.sent[0], 0);
    script.put_returned(&first, vec![Outcome::Unknown { why: "late".into() }]);
    let second = script.send_as(first.sent.clone(), Order::Free);
    let twice = script.seen(&second.sent[0], 1);
    script.ack(&second, 1);
    only(&[], script.finish(&[once, twice]));
}

#[test]
fn a_lost_record_is_seen() {
    let script = Script::new(1);
    let records = script.puts(3);
    only(&["acked", "session"], script.finish(&records[..2]));
}

#[test]
fn a_refused_record_that_is_there_is_seen() {
    let script = Script::new(1);
    let open = script.send("k", 0);
    let seen = script.seen(&open.sent[0], 0);
    script.put_returned(&open, vec![Outcome::Refused { reason: Reason::NotLeader }]);
    only(&["refused"], script.finish(&[seen]));
}

#[test]
fn a_copy_too_many_is_seen() {
    let script = Script::new(1);
    let open = script.send("k", 0);
    let seen = script.seen(&open.sent[0], 0);
    let copy = script.seen(&open.sent[0], 1);
    script.ack(&open, 0);
    only(&["sent"], script.finish(&[seen, copy]));
}

#[test]
fn what_nobody_sent_is_seen() {
    for spoil in [
        |seen: &mut Seen| seen.payload = Err(Corrupt { bytes: 7, why: "cut" }),
        |seen: &mut Seen| seen.payload.as_mut().unwrap().value = 99,
        |seen: &mut Seen| seen.key = Arc::from("other"),
        |seen: &mut Seen| seen.size += 1,
    ] {
        let script = Script::new(1);
        let open = script.send("k", 0);
        let mut seen = script.seen(&open.sent[0], 0);
        spoil(&mut seen);
        script.put_returned(&open, vec![Outcome::Unknown { why: "late".into() }]);
        only(&["sent"], script.finish(&[seen]));
    }
}

#[test]
fn an_acknowledgement_of_another_place_is_seen() {
    let script = Script::new(1);
    let (a, b) = (script.send("a", 0), script.send("b", 0));
    let records = [script.seen(&a.sent[0], 0), script.seen(&b.sent[0], 1)];
    script.ack(&a, 1);
    script.ack(&b, 0);
    only(&["acked", "sent", "sequence"], script.finish(&records));
}

#[test]
fn two_acknowledgements_of_one_place_are_seen() {
    let script = Script::new(1);
    let (a, b) = (script.send("a", 0), script.send("b", 0));
    let seen = script.seen(&a.sent[0], 0);
    script.ack(&a, 0);
    script.ack(&b, 0);
    only(&["acked", "sequence"], script.finish(&[seen]));
}

#[test]
fn a_gap_is_seen() {
    let script = Script::new(1);
    let open = script.send("k", 0);
    let seen = script.seen(&open.sent[0], 1);
    script.put_returned(&open, vec![Outcome::Unknown { why: "late".into() }]);
    only(&["sequence", "retention"], script.finish(&[seen]));
}

#[test]
fn a_place_that_changes_is_seen() {
    let script = Script::new(1);
    let (a, b) = (script.send("a", 0), script.send("b", 0));
    let [first, other] = [&a, &b].map(|open| script.seen(&open.sent[0], 0));
    let iterator = script.iterator(IteratorKind::TrimHorizon);
    script.page(iterator, 10, &[first]);
    for open in [a, b] {
        script.put_returned(&open, vec![Outcome::Unknown { why: "late".into() }]);
    }
    only(&["sequence"], script.finish(&[other]));
}

#[test]
fn a_later_record_in_front_is_seen() {
    let script = Script::new(1);
    let first = script.send("k", 0);
    let late = script.seen(&first.sent[0], 1);
    script.ack(&first, 1);
    let second = script.send("k", 1);
    let mut early = script.seen(&second.sent[0], 0);
    // Arrivals are in order; only the places are not.
    early.arrival_ms = late.arrival_ms;
    script.ack(&second, 0);
    only(&["order"], script.finish(&[early, late]));
}

#[test]
fn order_within_a_call_and_within_a_pipeline_is_seen() {
    for pipeline in [false, true] {
        let script = Script::new(1);
        let sent = [script.sent("k", None, 0), script.sent("k", None, 1)];
        let records = [script.seen(&sent[1], 0), script.seen(&sent[0], 1)];
        script.tick(1);
        match pipeline {
            false => {
                let open = script.send_as(sent.to_vec(), Order::InCall);
                let records = [script.seen(&sent[1], 0), script.seen(&sent[0], 1)];
                script.put_returned(&open, vec![script.acked(1), script.acked(0)]);
                only(&["order"], script.finish(&records));
            }
            true => {
                let open = sent.clone().map(|it| script.send_as(vec![it], Order::Pipeline(7)));
                let records = records.map(|it| Seen { arrival_ms: script.now_ms(), ..it });
                script.ack(&open[0], 1);
                script.ack(&open[1], 0);
                only(&["order"], script.finish(&records));
            }
        }
    }
}

#[test]
fn what_follows_a_refused_record_of_a_call_that_keeps_its_order_is_seen() {
    for (order, names) in [(Order::InCall, &[] as &[&str]), (Order::Kept, &["order"])] {
        let script = Script::new(1);
        let open = script.send_as(vec![script.sent("k", None, 0), script.sent("k", None, 1)], order);
        let records = [script.seen(&open.sent[1], 0)];
        script.put_returned(&open, vec![Outcome::Refused { reason: Reason::Throttled }, script.acked(0)]);
        only(names, script.finish(&records));
    }
}

#[test]
fn ranges_that_do_not_tile_and_odd_lineage_are_seen() {
    let script = Script::new(2);
    let mut shards = script.facts();
    shards.remove(1);
    script.list_as(shards);
    only(&["ranges"], script.finish(&[]));

    let script = Script::new(2);
    let mut shards = script.facts();
    shards[1].parents = vec![shards[0].name.clone()];
    script.list_as(shards);
    only(&["ranges"], script.finish(&[]));

    let script = Script::new(2);
    let mut shards = script.facts();
    shards[1].group = 2;
    script.list_as(shards);
    only(&["ranges"], script.finish(&[]));
}

#[test]
fn a_split_is_sound() {
    let script = Script::new(1);
    let records = script.puts(2);
    let mut shards = script.facts();
    let halves = HashRange::split_even(2);
    shards[0].ending = Some(number(0, 1, script.now_ms()));
    for (index, range) in (1..).zip(halves) {
        let starting = SequenceNumber { created_s: CREATED_S + 1, arrival_s: 0, ..number(index, 0, 0) };
        let name = script.recorder.intern(&shard_name(index));
        let parents = vec![shards[0].name.clone()];
        shards.push(ShardFacts { name, range, parents, starting, ending: None, group: 1 });
    }
    script.list_as(shards);
    let iterator = script.iterator(IteratorKind::TrimHorizon);
    let op = script.recorder.invoke(ClientId(2), script.via(), Call::Records { iterator, limit: 0 });
    let page = Page { records, ended: Some(vec![]), ..Page::default() };
    script.recorder.returned(op, Returned::Page(Arc::new(page)));
    only(&[], script.verdict());
}

#[test]
fn a_record_in_the_wrong_shard_is_seen() {
    let script = Script::new(2);
    let sent = script.sent("k", Some(u128::MAX), 0);
    let open = script.send_as(vec![sent], Order::Free);
    let seen = script.seen(&open.sent[0], 0);
    script.ack(&open, 0);
    only(&["routing"], script.finish(&[seen]));
}

#[test]
fn a_read_behind_an_acknowledgement_is_seen() {
    let script = Script::new(1);
    let records = script.puts(2);
    let iterator = script.iterator(IteratorKind::TrimHorizon);
    script.page(iterator, 10, &records[..1]);
    only(&["session"], script.finish(&records));

    let script = Script::new(1);
    let records = script.puts(2);
    let iterator = script.iterator(IteratorKind::TrimHorizon);
    script.page(iterator, 1, &records[..1]);
    only(&[], script.finish(&records));
}

#[test]
fn a_read_behind_an_earlier_read_is_seen() {
    let script = Script::new(1);
    let open = script.send("k", 0);
    let seen = script.seen(&open.sent[0], 0);
    let [a, b] = [(); 2].map(|()| script.iterator(IteratorKind::TrimHorizon));
    script.page(a, 10, std::slice::from_ref(&seen));
    script.page(b, 10, &[]);
    only(&["session"], script.finish(&[seen]));
}

#[test]
fn a_record_that_was_read_and_is_gone_is_seen() {
    let script = Script::new(1);
    let open = script.send("k", 0);
    let seen = script.seen(&open.sent[0], 0);
    let iterator = script.iterator(IteratorKind::TrimHorizon);
    script.page(iterator, 10, &[seen]);
    only(&["session"], script.finish(&[]));
}

#[test]
fn skips_and_repeats_are_seen() {
    let spoil: [fn(&Script, &[Seen]); 7] = [
        |script, records| {
            let it = script.iterator(IteratorKind::TrimHorizon);
            script.page(it, 1, &records[..1]);
            script.page(it, 10, &records[2..]);
        },
        |script, records| {
            let it = script.iterator(IteratorKind::TrimHorizon);
            script.page(it, 2, &records[..2]);
            script.page(it, 10, &records[1..]);
        },
        |script, records| {
            let it = script.iterator(IteratorKind::AtSequence(records[1].number));
            script.page(it, 10, &records[2..]);
        },
        |script, records| {
            let it = script.iterator(IteratorKind::AfterSequence(records[1].number));
            script.page(it, 10, &records[1..]);
        },
        |script, records| {
            let it = script.iterator(IteratorKind::Latest);
            script.page(it, 10, &records[3..]);
        },
        |script, records| {
            let it = script.iterator(IteratorKind::AtSequence(records[0].number));
            script.page(it, 10, &[records[0].clone(), records[2].clone(), records[3].clone()]);
        },
        |script, records| {
            let it = script.iterator(IteratorKind::AtSequence(records[0].number));
            script.page(it, 3, records);
        },
    ];
    for spoil in spoil {
        let script = Script::new(1);
        let records = script.puts(4);
        spoil(&script, &records);
        only(&["iterators"], script.finish(&records));
    }
}

#[test]
fn latest_begins_behind_what_was_acknowledged_and_before_what_was_sent_later() {
    let script = Script::new(1);
    let mut records = script.puts(2);
    let it = script.iterator(IteratorKind::Latest);
    records.extend((2..5).map(|offset| script.put(offset)));
    script.page(it, 10, &records[2..]);
    only(&[], script.finish(&records));

    let script = Script::new(1);
    let mut records = script.puts(2);
    let it = script.iterator(IteratorKind::Latest);
    records.extend((2..5).map(|offset| script.put(offset)));
    script.page(it, 10, &records[3..]);
    only(&["iterators"], script.finish(&records));
}

/// A subscription from TRIM_HORIZON with one event of `records`.
fn subscribe(script: &Script, records: &[Seen], continuation: Option<SequenceNumber>, page: impl Fn(Page) -> Page) {
    let (stream, shard) = (script.stream.clone(), script.recorder.intern(&shard_name(0)));
    let kind = IteratorKind::TrimHorizon;
    let call = Call::Subscribe { stream, shard: shard.clone(), kind };
    let op = script.recorder.invoke(ClientId(3), script.via(), call);
    script.recorder.returned(op, Returned::Begun);
    let event = Page { records: records.to_vec(), continuation, ..Page::default() };
    script.recorder.received(op, shard, page(event));
    script.recorder.returned(op, Returned::Ended);
}

#[test]
fn a_subscription_says_where_to_go_on() {
    for (last, names) in [(2, &[] as &[&str]), (1, &["iterators"])] {
        let script = Script::new(1);
        let records = script.puts(3);
        subscribe(&script, &records, Some(records[last].number), |it| it);
        only(names, script.finish(&records));
    }
    let script = Script::new(1);
    let records = script.puts(3);
    subscribe(&script, &[], None, |it| it);
    only(&[], script.finish(&records));
}

#[test]
fn a_consumer_counts_what_it_missed() {
    for (missed, names) in [(0, &["iterators"]), (1, &["iterators"])] {
        let script = Script::new(1);
        let records = script.puts(4);
        let call = Call::Consume { stream: script.stream.clone(), kind: IteratorKind::TrimHorizon };
        let op = script.recorder.invoke(ClientId(4), Via::Library, call);
        script.recorder.returned(op, Returned::Begun);
        let shard = script.recorder.intern(&shard_name(0));
        script.recorder.received(op, shard.clone(), Page { records: records[..1].to_vec(), ..Page::default() });
        script.recorder.received(op, shard, Page { records: records[2..].to_vec(), missed, ..Page::default() });
        only(names, script.finish(&records));
    }
}

#[test]
fn a_shard_forgotten_before_the_final_reading_has_none() {
    for (forgotten, names) in [(false, &["liveness"] as &[&str]), (true, &[])] {
        let script = Script::new(1);
        let (via, name) = (script.recorder.intern(NODE), script.stream.clone());
        let streams =
            vec![StreamFacts { name, status: Status::Active, open_shards: 1, retention_ms: 86_400_000, created_ms: 0 }];
        script.recorder.note(Note::FinalStreams { via, streams });
        if forgotten {
            let (stream, shard) = (script.stream.clone(), script.recorder.intern(&shard_name(0)));
            script.recorder.note(Note::FinalForgotten { stream, shard });
        }
        only(names, check_all(&script.recorder.take(), &script.bounds));
    }
}

#[test]
fn nothing_is_said_of_a_child_that_two_lives_of_a_stream_may_have_had() {
    for lives in [1, 2] {
        let script = Script::new(1);
        let starting = SequenceNumber { created_s: CREATED_S + 7, arrival_s: 0, ..number(1, 0, 0) };
        let child = |parents| {
            let first = script.facts().remove(0);
            let child = ShardFacts { name: script.recorder.intern(&shard_name(1)), parents, starting, ..first.clone() };
            script.list_as(vec![first, child]);
        };
        child(vec![script.recorder.intern(&shard_name(0))]);
        if lives == 2 {
            script.delete("s");
            script.create("s", 1, 0);
        }
        child(Vec::new());
        let key = ShardKey::of(&script.stream, &starting);
        assert_eq!(script.recorder.take().certain(Some(&key)).is_none(), lives == 2);
    }
}

/// Seed 300002371: the child that was read was empty and never listed; a child of an earlier life had its name.
#[test]
fn whose_an_empty_reading_was_is_not_known_of_a_stream_with_two_lives() {
    for lives in [1, 2] {
        let script = Script::new(1);
        if lives == 2 {
            script.delete("s");
            script.create("s", 1, 0);
        }
        let call = Call::Consume { stream: script.stream.clone(), kind: IteratorKind::TrimHorizon };
        let op = script.recorder.invoke(ClientId(4), Via::Library, call);
        script.recorder.returned(op, Returned::Begun);
        let shard = script.recorder.intern(&shard_name(0));
        script.recorder.received(op, shard, Page { ended: Some(Vec::new()), ..Page::default() });
        let history = script.recorder.take();
        assert_eq!(history.reads[0].key.is_some(), lives == 1);
    }
}

#[test]
fn a_wrong_beginning_by_time_is_seen() {
    for (begin, names) in [(0, &["timestamps"] as &[&str]), (1, &[]), (2, &["timestamps"])] {
        let script = Script::new(1);
        let records = script.puts(4);
        let it = script.iterator(IteratorKind::AtTimestamp(records[1].arrival_ms));
        script.page(it, 10, &records[begin..]);
        only(names, script.finish(&records));
    }
}

#[test]
fn a_time_to_come_acts_as_latest() {
    for (begin, names) in [(2, &[] as &[&str]), (1, &["timestamps"]), (3, &["timestamps"])] {
        let script = Script::new(1);
        let mut records = script.puts(2);
        let it = script.iterator(IteratorKind::AtTimestamp(script.now_ms() + 3_600_000));
        records.extend((2..4).map(|offset| script.put(offset)));
        script.page(it, 10, &records[begin..]);
        only(names, script.finish(&records));
    }
}

#[test]
fn arrival_times_that_go_back_or_cannot_be_are_seen() {
    let script = Script::new(1);
    script.tick(100);
    let mut records = script.puts(2);
    records[1].arrival_ms -= 5;
    only(&["timestamps"], script.finish(&records));

    let script = Script::new(1);
    let mut records = script.puts(1);
    records[0].arrival_ms += 50;
    only(&["timestamps"], script.finish(&records));

    let mut script = Script::new(1);
    script.bounds.ahead_ms = 50;
    let mut records = script.puts(1);
    records[0].arrival_ms += 50;
    only(&[], script.finish(&records));
}

/// Five records, an hour apart; the stream keeps them for two hours and a half.
fn hourly() -> (Script, Vec<Seen>) {
    let script = Script::new(1);
    script.create("s", 1, 9_000_000);
    let put = |offset| {
        let seen = script.put(offset);
        script.tick(3_600_000);
        seen
    };
    let records = (0..5).map(put).collect();
    (script, records)
}

#[test]
fn only_what_is_too_old_may_be_trimmed() {
    let (script, records) = hourly();
    only(&[], script.finish(&records[3..]));
    let (script, records) = hourly();
    only(&[], script.finish(&records));
    let (script, records) = hourly();
    only(&["acked", "retention", "sequence"], script.finish(&records[4..]));
}

#[test]
fn what_was_trimmed_stays_so() {
    let (script, records) = hourly();
    let it = script.iterator(IteratorKind::TrimHorizon);
    script.page(it, 10, &records[3..]);
    let it = script.iterator(IteratorKind::AtSequence(records[1].number));
    script.page(it, 10, &records[1..]);
    only(&["retention"], script.finish(&records[3..]));
}

#[test]
fn more_than_the_rate_is_seen() {
    // A full bucket gives 1,000 records at once; half a second later there are 500 more.
    for (second, names) in [(500, &[] as &[&str]), (510, &["rates"])] {
        let script = Script::new(1);
        let batch = |count: u64, from: u64| {
            let sent: Vec<Sent> = (from..from + count).map(|n| script.sent("k", None, n)).collect();
            let open = script.send_as(sent, Order::InCall);
            let outcomes = (from..from + count).map(|offset| script.acked(offset)).collect();
            let seen: Vec<Seen> = (from..).zip(&open.sent).map(|(offset, sent)| script.seen(sent, offset)).collect();
            script.put_returned(&open, outcomes);
            seen
        };
        let mut records = batch(1_000, 0);
        script.tick(497);
        records.extend(batch(second, 1_000));
        only(names, script.finish(&records));
    }
}

#[test]
fn more_calls_than_the_rate_are_seen() {
    let script = Script::new(1);
    let records = script.puts(1);
    let it = script.iterator(IteratorKind::AtSequence(records[0].number));
    for _ in 0..8 {
        let op = script.recorder.invoke(ClientId(2), script.via(), Call::Records { iterator: it, limit: 1 });
        script.tick(1);
        let page = Page::default();
        // An empty page is wrong as well; here only their number matters.
        script.recorder.returned(op, Returned::Page(Arc::new(page)));
    }
    let wrong = script.finish(&records);
    assert!(wrong.iter().any(|it| it.checker == "rates" && it.what.contains("GetRecords")), "{wrong:?}");
}

#[test]
fn a_wrong_distance_from_the_tip_is_seen() {
    // (records given of three, said, names)
    let cases: [(usize, u64, &[&str]); 5] =
        [(3, 0, &[]), (3, 5, &["behind"]), (2, 0, &["behind"]), (2, 500, &[]), (2, 90_000, &["behind"])];
    for (given, said, names) in cases {
        let script = Script::new(1);
        let records = script.puts(3);
        script.tick(500);
        let it = script.iterator(IteratorKind::TrimHorizon);
        let age = said.min(script.now_ms() + 1 - records[given - 1].arrival_ms);
        let said = if said == 500 { age.max(script.now_ms() - records[given - 1].arrival_ms) } else { said };
        script.page_behind(it, given as u32, &records[..given], said);
        only(names, script.finish(&records));
    }
}

#[test]
fn final_readings_that_differ_are_seen() {
    let script = Script::new(1);
    let open = [script.send("a", 0), script.send("b", 0)];
    let records: Vec<Seen> = (0..).zip(&open).map(|(offset, open)| script.seen(&open.sent[0], offset)).collect();
    for open in &open {
        script.put_returned(open, vec![Outcome::Unknown { why: "late".into() }]);
    }
    script.list();
    script.final_streams(vec![script.stream_facts()]);
    script.final_pass(0, 0, &records);
    script.final_pass(1, 0, &records[..1]);
    only(&["final reads", "session"], script.verdict());
}

#[test]
fn what_is_not_alive_is_seen() {
    for (done, after_ms, names) in
        [(true, 5_000, &[] as &[&str]), (false, 30_000, &["liveness"]), (true, 90_000, &["liveness"])]
    {
        let script = Script::new(1);
        script.recorder.note(Note::Healed);
        let since_ns = script.recorder.now_ns();
        script.tick(after_ms);
        script.recorder.note(Note::Probe { what: "a put".into(), since_ns, done, last: "NO_LEADER".into() });
        only(names, script.finish(&[]));
    }
    let script = Script::new(1);
    script.list();
    script.final_streams(vec![script.stream_facts()]);
    only(&["liveness"], script.verdict());
}

#[test]
fn streams_that_are_not_as_administered_are_seen() {
    type Case = (fn(&Script) -> Vec<StreamFacts>, &'static [&'static str]);
    let cases: [Case; 8] = [
        (|script| vec![script.stream_facts()], &[]),
        (|_| vec![], &["streams"]),
        (|script| vec![StreamFacts { status: Status::Creating, ..script.stream_facts() }], &["streams"]),
        (|script| vec![StreamFacts { open_shards: 7, ..script.stream_facts() }], &["streams"]),
        (|script| vec![script.stream_facts(), StreamFacts { name: "x".into(), ..script.stream_facts() }], &["streams"]),
        (
            |script| {
                script.delete("s");
                vec![script.stream_facts()]
            },
            &["streams"],
        ),
        (
            |script| {
                script.delete("s");
                vec![]
            },
            &[],
        ),
        (
            |script| {
                script.delete("s");
                script.create("s", 1, 0);
                vec![StreamFacts { created_ms: EPOCH_MS + 9, ..script.stream_facts() }]
            },
            &[],
        ),
    ];
    for (end, names) in cases {
        let script = Script::new(1);
        let streams = end(&script);
        let there = streams.iter().any(|it| it.name == script.stream);
        script.final_streams(streams);
        if there {
            script.final_pass(0, 0, &[]);
            script.final_pass(1, 0, &[]);
        }
        only(names, script.verdict());
    }
}

#[test]
fn a_stream_that_was_created_is_never_unknown() {
    for (deleted, names) in [(false, &["streams"] as &[&str]), (true, &[])] {
        let script = Script::new(1);
        if deleted {
            script.delete("s");
        }
        let why = "there is no stream s".to_owned();
        let unknown = Failed { refused: true, reason: Reason::StreamNotFound, shard: None, why };
        script.admin(Admin::Describe { stream: script.stream.clone() }, Returned::Failed(unknown));
        only(names, script.verdict());
    }
}

/// Seen on real nodes: a consumer ended with "no such shard" at a node whose catalog was behind.
#[test]
fn a_shard_that_was_listed_is_never_unknown() {
    let denied = |reason| Returned::Failed(Failed { refused: true, reason, shard: None, why: "not there".to_owned() });
    // What was not listed may well be unknown, unless the stream was created with it; so may a shard of a stream that was
    // deleted, or that was listed of an earlier one by a node that was behind (seed 100000803).
    for (shard, listed, deleted, reborn, names) in [
        (0, false, false, false, &["streams"] as &[&str]),
        (0, false, true, false, &[]),
        (0, false, true, true, &["streams"]),
        (7, false, false, false, &[]),
        (7, true, false, false, &["streams"]),
        (7, true, true, false, &[]),
        (7, true, true, true, &[]),
    ] {
        let script = Script::new(1);
        if deleted {
            script.delete("s");
        }
        if reborn {
            script.create("s", 1, 0);
        }
        if listed {
            let mut facts = script.facts();
            facts[0].name = script.recorder.intern(&shard_name(shard));
            script.list_as(facts);
        }
        let shard = script.recorder.intern(&shard_name(shard));
        let call = Call::Iterator { stream: script.stream.clone(), shard, kind: IteratorKind::TrimHorizon };
        let op = script.recorder.invoke(ClientId(4), Via::Library, call);
        script.recorder.returned(op, denied(Reason::ShardNotFound));
        // Other checkers find that list odd.
        only(names, script.verdict().into_iter().filter(|it| it.checker == "streams").collect());
    }
    // A consumer was told by the library, unless that may have been of an earlier stream (seed 900205).
    for (reborn, shard, names) in [(false, 7, &["streams"] as &[&str]), (true, 7, &[]), (true, 0, &["streams"])] {
        let script = Script::new(1);
        if reborn {
            script.delete("s");
            script.create("s", 1, 0);
        }
        let kind = IteratorKind::TrimHorizon;
        let op =
            script.recorder.invoke(ClientId(4), Via::Library, Call::Consume { stream: script.stream.clone(), kind });
        let shard = Some(script.recorder.intern(&shard_name(shard)));
        let failed = Failed { refused: true, reason: Reason::ShardNotFound, shard, why: "not there".to_owned() };
        script.recorder.returned(op, Returned::Failed(failed));
        only(names, script.verdict());
    }
    // An iterator of an earlier stream of that name (seed 90000114).
    for (reborn, names) in [(false, &["streams"] as &[&str]), (true, &[])] {
        let script = Script::new(1);
        script.list_as(script.facts());
        let iterator = script.iterator(IteratorKind::TrimHorizon);
        if reborn {
            script.delete("s");
            script.create("s", 1, 0);
            script.list_as(script.facts());
        }
        let op = script.recorder.invoke(ClientId(4), Via::Library, Call::Records { iterator, limit: 0 });
        script.recorder.returned(op, denied(Reason::ShardNotFound));
        only(names, script.verdict());
    }
    for (deleted, names) in [(false, &["streams"] as &[&str]), (true, &[])] {
        let script = Script::new(1);
        let call = Call::Consume { stream: script.stream.clone(), kind: IteratorKind::TrimHorizon };
        let op = script.recorder.invoke(ClientId(4), Via::Library, call);
        script.recorder.returned(op, Returned::Begun);
        if deleted {
            script.delete("s");
        }
        script.recorder.returned(op, denied(Reason::ShardNotFound));
        only(names, script.verdict());
    }
}

#[test]
fn a_deleted_streams_records_may_go_and_a_new_ones_are_others() {
    let script = Script::new(1);
    let old = script.puts(2);
    let iterator = script.iterator(IteratorKind::TrimHorizon);
    script.page(iterator, 10, &old);
    script.delete("s");
    script.tick(5_000);
    script.create("s", 1, 0);
    let mut facts = script.facts();
    facts[0].starting.created_s += 5;
    script.list_as(facts.clone());
    script.final_streams(vec![StreamFacts { created_ms: EPOCH_MS + 5_000, ..script.stream_facts() }]);
    for pass in 0..2 {
        script.final_pass(pass, 0, &[]);
    }
    only(&[], script.verdict());
}

#[test]
fn nonsense_and_faults_of_ours_are_seen() {
    let script = Script::new(1);
    let failed = |reason| Returned::Failed(Failed { refused: true, reason, shard: None, why: "x".into() });
    script.admin(Admin::ListStreams, failed(Reason::NoLeader));
    only(&[], script.verdict());
    for reason in [Reason::Internal, Reason::Damaged] {
        let script = Script::new(1);
        script.admin(Admin::ListStreams, failed(reason));
        only(&["answers"], script.verdict());
    }
    let mut script = Script::new(1);
    script.bounds.damaged = true;
    script.admin(Admin::ListStreams, failed(Reason::Damaged));
    only(&[], script.verdict());
    let script = Script::new(1);
    script.recorder.note(Note::Malformed { op: OpId(1), why: "not a number".into() });
    only(&["answers"], script.verdict());
}

#[test]
fn names_are_unique_and_every_checker_has_a_promise() {
    let mut names: Vec<&str> = ALL.iter().map(|it| it.name).chain(super::INSIDE.iter().map(|it| it.0)).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(ALL.iter().all(|it| !it.promise.is_empty()));
    assert_eq!(Bounds::exact(0).liveness, Duration::from_secs(30));
}

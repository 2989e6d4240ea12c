//! The demand after faults have stopped: every shard takes a record and gives it back, every node answers.

use std::sync::Arc;
use std::time::Duration;

use braid_env::task;
use braid_env::time::{self, Instant};
use braid_stream::{HashKey, IteratorKind, ShardId, StreamId};

use super::node_client::{NodeClient, PutStyle, put_call};
use super::records::Records;
use super::spec::{KeySpec, SizeSpec};
use super::{LIVENESS, RETRY};
use crate::history::{
    Admin, AdminDone, ClientId, Failed, Note, Ns, Outcome, Reason, Recorder, SequenceNumber, ShardFacts, Status,
    StreamFacts,
};

/// Of one call; several fit into the bound.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where the nodes are that have to answer now: an operator may be replacing some.
pub type Answering = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// A name that no stream has.
const NO_STREAM: &str = "nobody-made-this";

/// Probes everything at once and notes what worked, or did not within `bound`; ends by then, plus one
/// call's deadline. To be called right after the note [`Note::Healed`].
pub async fn liveness(recorder: &Recorder, answering: &Answering, bound: Duration) {
    let until = Instant::now() + bound;
    let probe = |id: u32| {
        let calls = NodeClient::new(recorder, ClientId(LIVENESS.0 + (id << 16)), &answering(), DEADLINE);
        Probe { calls, since_ns: recorder.now_ns(), until, last: "not tried".to_owned(), missing: false }
    };
    let Some((_, found)) = settled(&probe(0).calls, answering, until).await else { return };
    let mut tasks = Vec::new();
    let mut id = 0;
    for (stream, shards) in found {
        for shard in shards.into_iter().filter(|it| it.ending.is_none()) {
            id += 1;
            tasks.push(task::spawn(probe(id).shard(id as usize, stream.name.clone(), shard)));
        }
    }
    for task in tasks {
        if let Err(died) = task.await {
            assert!(!died.is_panic(), "a probe panicked: {died}");
        }
    }
}

/// A client of the nodes that answer, and what each of them says of streams and shards once they agree, and none
/// is coming or going; `None` after `until`, with a note of what was wrong.
pub(super) async fn settled(
    calls: &NodeClient,
    answering: &Answering,
    until: Instant,
) -> Option<(NodeClient, Vec<(StreamFacts, Vec<ShardFacts>)>)> {
    let (since_ns, last) = (calls.recorder.now_ns(), "not tried".to_owned());
    let mut probe = Probe { calls: calls.clone(), since_ns, until, last, missing: false };
    let found = probe.settled_streams(answering).await;
    probe.note("all nodes list the same streams, all of them ACTIVE, with their shards", found.is_some());
    let (streams, listings) = found?;
    Some((probe.calls, streams.into_iter().zip(listings).collect()))
}

struct Probe {
    calls: NodeClient,
    since_ns: Ns,
    until: Instant,
    /// What the last attempt met.
    last: String,
    /// Some node said that there is no such stream.
    missing: bool,
}

impl Probe {
    /// Once every node lists the same streams and calls them ACTIVE: these, and their shards.
    async fn settled_streams(&mut self, answering: &Answering) -> Option<(Vec<StreamFacts>, Vec<Vec<ShardFacts>>)> {
        while Instant::now() < self.until {
            self.calls = self.calls.among(&answering());
            match self.streams_now().await {
                Ok(found) => return Some(found),
                Err(why) => self.last = why,
            }
            time::sleep(RETRY).await;
        }
        None
    }

    async fn streams_now(&self) -> Result<(Vec<StreamFacts>, Vec<Vec<ShardFacts>>), String> {
        let mut first: Option<Vec<StreamFacts>> = None;
        for node in 0..self.calls.nodes() {
            let failed = |failed: Failed| format!("{}: {failed}", self.calls.address(node));
            // A list may be of some while ago. That there is no such stream a node says only once it is up to date.
            let nobody = Admin::Describe { stream: self.calls.recorder.intern(NO_STREAM) };
            match self.calls.admin(node, nobody).await {
                Err(told) if told.refused && told.reason == Reason::StreamNotFound => {}
                Err(told) => return Err(failed(told)),
                Ok(_) => return Err(format!("{}: {NO_STREAM} is there", self.calls.address(node))),
            }
            let AdminDone::Streams(found) = self.calls.admin(node, Admin::ListStreams).await.map_err(failed)? else {
                unreachable!("streams were asked for");
            };
            if let Some(it) = found.iter().find(|it| it.status != Status::Active) {
                return Err(format!("{}: stream {} is {:?}", self.calls.address(node), it.name, it.status));
            }
            match &first {
                Some(known) if *known != found => {
                    return Err(format!("{} and {} disagree", self.calls.address(0), self.calls.address(node)));
                }
                Some(_) => {}
                None => first = Some(found),
            }
        }
        let streams = first.expect("there is a node");
        let mut listings = Vec::new();
        for (nth, it) in streams.iter().enumerate() {
            let call = Admin::ListShards { stream: it.name.clone() };
            match self.calls.admin(nth, call).await.map_err(|failed| failed.to_string())? {
                AdminDone::Shards(listing) => listings.push(listing.shards),
                _ => unreachable!("shards were asked for"),
            }
        }
        Ok((streams, listings))
    }

    /// Puts a record into a shard and reads it back, each time through another node. A stream that was deleted
    /// after all demands nothing.
    async fn shard(mut self, node: usize, stream: Arc<str>, shard: ShardFacts) {
        let what = format!("a put into and a read from {stream}/{}", shard.name);
        let keys = KeySpec { count: 1, hot_percent: 0, explicit_percent: 0, shared: false };
        let sizes = SizeSpec { usual_bytes: 100, large_permille: 0, huge_permyriad: 0 };
        let mut records = Records::new(&self.calls.recorder, self.calls.client, 0, keys, sizes);
        for attempt in 0.. {
            if Instant::now() >= self.until {
                return self.note(&what, false);
            }
            if self.missing && self.is_gone(node + attempt, &stream).await {
                return;
            }
            let node = node + attempt;
            match self.put(node, &stream, shard.range.start(), &mut records).await {
                Some((value, number)) => {
                    // A child's, if the shard was split or merged meanwhile.
                    let shard = ShardId { stream: StreamId(0), index: number.shard_index }.name();
                    if self.reads(node + 1, &stream, &shard, value, number).await {
                        return self.note(&what, true);
                    }
                    time::sleep(RETRY).await;
                }
                None => time::sleep(RETRY).await,
            }
        }
    }

    async fn put(
        &mut self,
        node: usize,
        stream: &Arc<str>,
        hash: HashKey,
        records: &mut Records,
    ) -> Option<(u64, SequenceNumber)> {
        let key = self.calls.recorder.intern("liveness");
        let (sent, data) = records.make(key, Some(hash), 100);
        let (value, style) = (sent.value, PutStyle::Single);
        let outcomes = self.calls.put(node, put_call(stream, vec![sent], style), vec![data], style).await;
        match &outcomes[0] {
            Outcome::Acked { number, .. } => Some((value, *number)),
            other => {
                self.missing |= matches!(other, Outcome::Refused { reason: Reason::StreamNotFound });
                self.last = format!("put through {}: {other}", self.calls.address(node));
                None
            }
        }
    }

    /// Whether the record at `number` is `value`, as read until it is or time is up.
    async fn reads(&mut self, node: usize, stream: &str, shard: &str, value: u64, number: SequenceNumber) -> bool {
        for attempt in 0.. {
            if Instant::now() >= self.until || self.missing {
                break;
            }
            let node = node + attempt;
            let kind = IteratorKind::AtSequence(number);
            let read = async {
                let (iterator, token) = self.calls.iterator(node, stream, shard, kind).await?;
                self.calls.records(node, iterator, &token, 1).await
            };
            match read.await {
                Ok((page, _)) => {
                    let found = page.records.first().map(|it| (it.number, it.payload.as_ref().map(|it| it.value)));
                    if found == Some((number, Ok(value))) {
                        return true;
                    }
                    self.last = format!("read through {}: {page}", self.calls.address(node));
                    if found.is_none() {
                        // Trimmed already: a node whose clock is ahead leads now. Another record will do.
                        return false;
                    }
                }
                Err(failed) => {
                    self.missing |= failed.refused && failed.reason == Reason::StreamNotFound;
                    self.last = format!("read through {}: {failed}", self.calls.address(node));
                }
            }
            time::sleep(RETRY).await;
        }
        false
    }

    /// Whether the catalog's leader knows no such stream either.
    async fn is_gone(&mut self, node: usize, stream: &Arc<str>) -> bool {
        self.missing = false;
        let described = self.calls.admin(node, Admin::Describe { stream: stream.clone() }).await;
        matches!(described, Err(failed) if failed.refused && failed.reason == Reason::StreamNotFound)
    }

    fn note(&self, what: &str, done: bool) {
        let (since_ns, last) = (self.since_ns, self.last.clone());
        self.calls.recorder.note(Note::Probe { what: what.to_owned(), since_ns, done, last });
    }
}

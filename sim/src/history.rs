//! What clients saw: one list of events, in the order in which they happened.
//!
//! ```text
//!  workload tasks ──▶ Recorder (append only, shared) ──▶ History (digested once) ──▶ checkers
//! ```
//!
//! Invariant: an outcome here is never better than what the client knew. What was not answered, not in
//! time, or not with certainty is [`Outcome::Unknown`]; the absence of a return event means the same.
//!
//! Times are virtual nanoseconds since the run began, on the run's own clock and not on any client's.
//! Nothing here judges anything: that is `checkers`.

mod digest;
mod shard;
mod sorted;
pub mod story;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use braid_proto::v1::ErrorReason as Reason;
pub use braid_stream::{HashKey, HashRange, IteratorKind, SequenceNumber};

pub use crate::payload::{Corrupt, Payload};
pub use shard::{Ack, ShardKey, ShardView};
pub use sorted::{
    AdminOp, Appearance, Attempt, Denial, FinalPass, History, Life, PageRead, Place, Put, Read, ReadKind, Value,
};

/// Virtual nanoseconds since the run began.
pub type Ns = u64;

/// One call of a client, from its invocation to its last event.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OpId(pub u64);

/// A client: one task, or a few that share a library object.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientId(pub u32);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op {}", self.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

/// How a call reached the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Via {
    /// A raw call to the node at this address.
    Node(Arc<str>),
    /// Through the client library, which chooses nodes itself.
    Library,
}

/// When an event was noted. The order of moments is that of the events, also within a nanosecond: what a
/// client did next is later than what it did before.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct At {
    pub ns: Ns,
    /// The event's place in the list.
    pub nth: u64,
}

impl At {
    /// Later than everything.
    pub const NEVER: At = At { ns: Ns::MAX, nth: u64::MAX };
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            At::NEVER => f.write_str("never"),
            At { ns, .. } => write!(f, "{}.{:06} s", ns / 1_000_000_000, ns / 1_000 % 1_000_000),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Event {
    pub at: At,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Invoked {
        op: OpId,
        client: ClientId,
        via: Via,
        call: Call,
    },
    /// The last event of a call, but for those that [`Returned::Begun`] opens.
    Returned {
        op: OpId,
        with: Returned,
    },
    /// Records that came on a subscription, or of one shard from a consumer.
    Received {
        op: OpId,
        shard: Arc<str>,
        page: Arc<Page>,
    },
    Note(Note),
}

/// What a client asked for.
#[derive(Clone, Debug)]
pub enum Call {
    Put(Arc<PutCall>),
    /// GetShardIterator.
    Iterator {
        stream: Arc<str>,
        shard: Arc<str>,
        kind: IteratorKind,
    },
    /// GetRecords at what the last page of `iterator`'s chain left, or at the iterator itself.
    Records {
        iterator: OpId,
        /// 0 means the most there is.
        limit: u32,
    },
    /// SubscribeToShard.
    Subscribe {
        stream: Arc<str>,
        shard: Arc<str>,
        kind: IteratorKind,
    },
    /// The library's consumer, of all shards of a stream.
    Consume {
        stream: Arc<str>,
        kind: IteratorKind,
    },
    Admin(Admin),
}

/// Records handed over together: a PutRecord, a PutRecords, or one put of the library's producer.
#[derive(Clone, Debug)]
pub struct PutCall {
    pub stream: Arc<str>,
    pub records: Vec<Sent>,
    pub order: Order,
    /// Whether each record goes to the cluster at most once in this call.
    pub once: bool,
}

/// What the sender may expect of order, beyond what time itself says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Nothing.
    Free,
    /// Records of one shard keep the order of the call.
    InCall,
    /// That, and what follows a refused record is refused, too.
    Kept,
    /// Records of one key keep the order of the calls of this pipeline, without waiting for each.
    Pipeline(u32),
}

/// A record as given to the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Unique in the run, but for a client that sends the same record again.
    pub value: u64,
    pub key: Arc<str>,
    pub explicit: Option<HashKey>,
    /// Bytes of data and key, which is what limits count.
    pub size: u32,
    /// The client's count of records of this key, from 0.
    pub n: u64,
}

impl Sent {
    /// Where the record belongs.
    pub fn hash(&self) -> HashKey {
        self.explicit.unwrap_or_else(|| HashKey::of_partition_key(&self.key))
    }
}

/// What a client knows of one record it put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Acked {
        shard: Arc<str>,
        number: SequenceNumber,
    },
    /// Certainly not appended, now or later.
    Refused {
        reason: Reason,
    },
    /// It may have been appended, and may yet be.
    Unknown {
        why: String,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admin {
    Create {
        stream: Arc<str>,
        shards: u32,
        retention_ms: u64,
    },
    Update {
        stream: Arc<str>,
        retention_ms: u64,
    },
    /// A shard by its name.
    Split {
        stream: Arc<str>,
        shard: Arc<str>,
        at: Option<HashKey>,
    },
    Merge {
        stream: Arc<str>,
        shard: Arc<str>,
        adjacent: Arc<str>,
    },
    /// So many open shards; by halves as Kinesis does it, or of equal shares.
    Scale {
        stream: Arc<str>,
        shards: u32,
        halves: bool,
    },
    /// As many as load asks for, within these bounds; `None`: as many as there are.
    Autoscale {
        stream: Arc<str>,
        bounds: Option<(u32, u32)>,
    },
    Delete {
        stream: Arc<str>,
    },
    Describe {
        stream: Arc<str>,
    },
    ListStreams,
    ListShards {
        stream: Arc<str>,
    },
    /// Those that were open at one moment.
    ListOpen {
        stream: Arc<str>,
        at: OpenAt,
    },
    TransferLeader {
        group: u32,
        to: u64,
    },
    /// Move a node's replicas to others, or let it keep them.
    Drain {
        node: u64,
        cancel: bool,
    },
    /// Move replicas to where fewer are.
    Rebalance,
    /// May these nodes be stopped now?
    SafeToStop {
        nodes: Vec<u64>,
    },
    ClusterStatus,
}

/// The moment at which shards were open.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum OpenAt {
    Latest,
    TrimHorizon,
    /// Milliseconds since the Unix epoch.
    Time(u64),
}

/// How a call came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Returned {
    /// A put: one outcome per record.
    Put(Arc<[Outcome]>),
    /// An iterator is there, a subscription or a consumer is open.
    Begun,
    /// GetRecords.
    Page(Arc<Page>),
    /// A subscription or a consumer ended as it may.
    Ended,
    Admin(AdminDone),
    Failed(Failed),
}

/// An administrative call's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminDone {
    Accepted,
    Stream(StreamFacts),
    Streams(Vec<StreamFacts>),
    Shards(Listing),
    Transferred {
        leader: u64,
        term: u64,
    },
    Status,
    /// Why not; nothing: it is safe.
    StopAnswered {
        reasons: Vec<String>,
    },
}

/// A call that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// Certainly nothing was done, now or later.
    pub refused: bool,
    pub reason: Reason,
    /// The shard that a consumer of the client library could not go on with.
    pub shard: Option<Arc<str>>,
    pub why: String,
}

/// Records as read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    pub records: Vec<Seen>,
    pub behind_ms: u64,
    /// Closed and read to its end: the shards that go on, by name.
    pub ended: Option<Vec<Arc<str>>>,
    /// Subscriptions: where to go on; `None` if the shard never had a record, or in other pages.
    pub continuation: Option<SequenceNumber>,
    /// Records that the library says were trimmed before it could read them.
    pub missed: u64,
}

/// One record as read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub number: SequenceNumber,
    pub arrival_ms: u64,
    pub key: Arc<str>,
    /// Bytes of data and key.
    pub size: u32,
    pub payload: Result<Payload, Corrupt>,
}

impl Seen {
    /// Its offset in the shard.
    pub fn offset(&self) -> u64 {
        self.number.offset.0
    }
}

/// A stream as described or listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamFacts {
    pub name: Arc<str>,
    pub status: Status,
    pub created_ms: u64,
    pub retention_ms: u64,
    pub open_shards: u32,
}

#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    Creating,
    Active,
    Updating,
    Deleting,
    /// Not one this file knows.
    Odd,
}

/// A stream's shards as listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    pub shards: Vec<ShardFacts>,
    /// In one answer, so that it is one moment's truth.
    pub at_once: bool,
}

/// A shard as listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardFacts {
    pub name: Arc<str>,
    pub range: HashRange,
    /// Names of the shards it came from.
    pub parents: Vec<Arc<str>>,
    /// Its starting sequence number.
    pub starting: SequenceNumber,
    /// Closed: no record's number is greater.
    pub ending: Option<SequenceNumber>,
    pub group: u32,
}

/// What is not a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// An answer that can't be one: which, and what is wrong with it.
    Malformed { op: OpId, why: String },
    /// Faults have stopped; whoever does not serve from here on within the bound is broken.
    Healed,
    /// Something that the liveness phase demands was tried until it worked, or in vain.
    Probe { what: String, since_ns: Ns, done: bool, last: String },
    /// The streams there are at the end, as this node says.
    FinalStreams { via: Arc<str>, streams: Vec<StreamFacts> },
    /// At the end, a shard was forgotten before it was read.
    FinalForgotten { stream: Arc<str>, shard: Arc<str> },
    /// One reading of a whole shard at the end: through which iterators, and whether its tip was reached.
    FinalRead { pass: u32, stream: Arc<str>, shard: Arc<str>, iterators: Vec<OpId>, complete: bool },
    /// For the story only.
    Remark(String),
}

/// The shared end of the list. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    clock: Box<dyn Fn() -> Ns + Send + Sync>,
    inner: Mutex<Inner>,
    watcher: Mutex<Option<Watcher>>,
}

type Watcher = Box<dyn FnMut(&Event) + Send>;

#[derive(Default)]
struct Inner {
    events: Vec<Event>,
    ops: u64,
    values: u64,
    names: BTreeSet<Arc<str>>,
}

impl Recorder {
    /// A recorder by `clock`, which gives virtual time and never goes back.
    pub fn new(clock: impl Fn() -> Ns + Send + Sync + 'static) -> Recorder {
        let watcher = Mutex::new(None);
        Recorder(Arc::new(Shared { clock: Box::new(clock), inner: Mutex::default(), watcher }))
    }

    /// By the environment's monotonic clock, from now on.
    pub fn by_env() -> Recorder {
        let start = braid_env::time::Instant::now();
        Recorder::new(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(Ns::MAX))
    }

    pub fn now_ns(&self) -> Ns {
        (self.0.clock)()
    }

    /// Called with every event from now on, outside of the list's lock; for faults that wait for an
    /// acknowledgement. It must not record anything itself.
    pub fn watch(&self, watcher: impl FnMut(&Event) + Send + 'static) {
        *self.0.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(watcher));
    }

    /// A value id that no record has had.
    pub fn next_value(&self) -> u64 {
        let mut inner = self.lock();
        inner.values += 1;
        inner.values
    }

    /// The one copy of a name.
    pub fn intern(&self, name: &str) -> Arc<str> {
        let mut inner = self.lock();
        match inner.names.get(name) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = Arc::from(name);
                inner.names.insert(new.clone());
                new
            }
        }
    }

    pub fn invoke(&self, client: ClientId, via: Via, call: Call) -> OpId {
        let op = {
            let mut inner = self.lock();
            inner.ops += 1;
            OpId(inner.ops)
        };
        self.push(What::Invoked { op, client, via, call });
        op
    }

    pub fn returned(&self, op: OpId, with: Returned) {
        self.push(What::Returned { op, with });
    }

    pub fn received(&self, op: OpId, shard: Arc<str>, page: Page) {
        self.push(What::Received { op, shard, page: Arc::new(page) });
    }

    pub fn note(&self, note: Note) {
        self.push(What::Note(note));
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the checkers need, of everything so far.
    pub fn history(&self) -> History {
        History::of(self.lock().events.clone())
    }

    /// As [`Recorder::history`], and the list is empty afterwards.
    pub fn take(&self) -> History {
        let events = std::mem::take(&mut self.lock().events);
        History::of(events)
    }

    fn push(&self, what: What) {
        let event = {
            let mut inner = self.lock();
            let at = At { ns: self.now_ns(), nth: inner.events.len() as u64 };
            if let Some(last) = inner.events.last() {
                assert!(last.at.ns <= at.ns, "virtual time went back from {} to {at}", last.at);
            }
            let event = Event { at, what };
            inner.events.push(event.clone());
            event
        };
        if let Some(watcher) = &mut *self.0.watcher.lock().unwrap_or_else(PoisonError::into_inner) {
            watcher(&event);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

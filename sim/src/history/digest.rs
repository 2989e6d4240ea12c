//! From the list of events to the history that is sorted: each call with its return, each chain of pages, what lies where.
//!
//! Invariant: nothing is added. A put's outcome is unknown until its return says otherwise, and a time
//! that was never seen is `None`, not a guess.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Admin, AdminOp, At, Attempt, Call, ClientId, Denial, Event, Failed, History, IteratorKind, Note, OpId, Outcome,
    Page, PageRead, Place, Put, Read, ReadKind, Reason, Returned, ShardKey, ShardView, Via, What,
};

impl History {
    pub(super) fn of(events: Vec<Event>) -> History {
        let history = History {
            end: events.last().map_or(At { ns: 0, nth: 0 }, |last| last.at),
            events: Vec::new(),
            puts: Vec::new(),
            values: BTreeMap::new(),
            reads: Vec::new(),
            chains: BTreeMap::new(),
            admin: Vec::new(),
            denials: Vec::new(),
            lives: BTreeMap::new(),
            shards: BTreeMap::new(),
            healed: None,
        };
        let mut digest = Digest { history, pending: BTreeMap::new(), consumers: BTreeMap::new() };
        for event in &events {
            digest.take(event);
        }
        let mut history = digest.history;
        history.events = events;
        history.sort_by_stream();
        history.place_values();
        history
    }

    fn sort_by_stream(&mut self) {
        for (nth, it) in self.admin.iter().enumerate() {
            match &it.call {
                Admin::Create { stream, .. } => {
                    let life = self.lives.entry(stream.clone()).or_default();
                    life.creations.extend(it.may_be_done().then_some(nth));
                }
                Admin::Update { stream, .. } => {
                    let life = self.lives.entry(stream.clone()).or_default();
                    life.updates.extend(it.may_be_done().then_some(nth));
                }
                Admin::Split { stream, .. }
                | Admin::Merge { stream, .. }
                | Admin::Scale { stream, .. }
                | Admin::Autoscale { stream, .. } => {
                    let life = self.lives.entry(stream.clone()).or_default();
                    life.reshards.extend(it.may_be_done().then_some(nth));
                }
                Admin::Delete { stream } => {
                    let life = self.lives.entry(stream.clone()).or_default();
                    life.deletions.extend(it.may_be_done().then_some(nth));
                }
                _ => {}
            }
        }
    }

    /// Fills `values`, `shards` and the reads' keys.
    fn place_values(&mut self) {
        for (put, it) in self.puts.iter().enumerate() {
            for (nth, sent) in it.call.records.iter().enumerate() {
                self.values.entry(sent.value).or_default().attempts.push(Attempt { put, nth });
            }
        }
        let views = ShardView::all_of(self);
        for (key, view) in &views {
            for (offset, appearance) in &view.places {
                if let Ok(payload) = &appearance.seen.payload {
                    let place = Place { shard: key.clone(), offset: *offset };
                    self.values.entry(payload.value).or_default().places.push(place);
                }
            }
        }
        let mut by_name: BTreeMap<(&str, u32), Vec<&ShardKey>> = BTreeMap::new();
        for key in views.keys() {
            by_name.entry((&key.stream, key.index)).or_default().push(key);
        }
        // Of several lives, the one key that is known may be another's than the one that was read (seed 300002371).
        let one_life = |stream: &Arc<str>| self.lives.get(stream).is_none_or(|life| life.creations.len() <= 1);
        for read in &mut self.reads {
            let first = read.pages.iter().find_map(|it| it.page.records.first());
            read.key = match first {
                Some(seen) => Some(ShardKey::of(&read.stream, &seen.number)),
                None => ShardKey::index_of(&read.shard)
                    .filter(|_| one_life(&read.stream))
                    .and_then(|index| by_name.get(&(&*read.stream, index)))
                    .and_then(|keys| match keys[..] {
                        [one] => Some(one.clone()),
                        _ => None,
                    }),
            };
        }
        self.shards = views;
    }
}

/// What an open call is waiting for.
enum Pending {
    Put(usize),
    Read(usize),
    Page { read: usize, via: Via, invoked: At, limit: u32 },
    Consumer { via: Via, client: ClientId, stream: Arc<str>, kind: IteratorKind, invoked: At, begun: Option<At> },
    Admin(usize),
}

struct Digest {
    history: History,
    pending: BTreeMap<OpId, Pending>,
    /// Which chain is a consumer's, by its call and shard.
    consumers: BTreeMap<(OpId, Arc<str>), usize>,
}

impl Digest {
    fn take(&mut self, event: &Event) {
        let at = event.at;
        match &event.what {
            What::Invoked { op, client, via, call } => self.invoked(at, *op, *client, via, call),
            What::Returned { op, with } => self.returned(at, *op, with),
            What::Received { op, shard, page } => self.received(at, *op, shard, page),
            What::Note(Note::Healed) => self.history.healed = self.history.healed.or(Some(at)),
            What::Note(_) => {}
        }
    }

    fn invoked(&mut self, invoked: At, op: OpId, client: ClientId, via: &Via, call: &Call) {
        let via = via.clone();
        let pending = match call {
            Call::Put(call) => {
                let unknown = Outcome::Unknown { why: "it never came back".to_owned() };
                let outcomes = vec![unknown; call.records.len()].into();
                let call = call.clone();
                self.history.puts.push(Put { op, client, via, call, invoked, returned: None, outcomes });
                Pending::Put(self.history.puts.len() - 1)
            }
            Call::Iterator { stream, shard, kind } | Call::Subscribe { stream, shard, kind } => {
                let how = match call {
                    Call::Iterator { .. } => ReadKind::Poll,
                    _ => ReadKind::Subscription,
                };
                let (stream, shard, kind) = (stream.clone(), shard.clone(), *kind);
                let (begun, pages) = (None, Vec::new());
                self.history.reads.push(Read {
                    op,
                    client,
                    via,
                    how,
                    stream,
                    shard,
                    kind,
                    invoked,
                    begun,
                    pages,
                    ended: None,
                    key: None,
                });
                self.history.chains.insert(op, self.history.reads.len() - 1);
                Pending::Read(self.history.reads.len() - 1)
            }
            Call::Records { iterator, limit } => {
                let read = *self.history.chains.get(iterator).expect("pages follow an iterator");
                Pending::Page { read, via, invoked, limit: *limit }
            }
            Call::Consume { stream, kind } => {
                Pending::Consumer { via, client, stream: stream.clone(), kind: *kind, invoked, begun: None }
            }
            Call::Admin(call) => {
                let call = call.clone();
                let (returned, result) = (None, None);
                self.history.admin.push(AdminOp { op, client, via, call, invoked, returned, result });
                Pending::Admin(self.history.admin.len() - 1)
            }
        };
        self.pending.insert(op, pending);
    }

    fn returned(&mut self, at: At, op: OpId, with: &Returned) {
        self.denied(at, op, with);
        let Some(pending) = self.pending.get_mut(&op) else { return };
        match (pending, with) {
            (Pending::Put(put), Returned::Put(outcomes)) => {
                let put = &mut self.history.puts[*put];
                assert_eq!(outcomes.len(), put.call.records.len(), "{op} has an outcome for each record");
                put.outcomes = outcomes.clone();
                put.returned = Some(at);
            }
            (Pending::Read(read), Returned::Begun) => {
                self.history.reads[*read].begun = Some(at);
                return;
            }
            (Pending::Consumer { begun, .. }, Returned::Begun) => {
                *begun = Some(at);
                return;
            }
            (Pending::Page { read, via, invoked, limit }, Returned::Page(page)) => {
                let (via, invoked, limit, page) = (via.clone(), *invoked, *limit, page.clone());
                let page = PageRead { op, via, invoked, returned: at, limit, page };
                self.history.reads[*read].pages.push(page);
            }
            (Pending::Read(read), Returned::Ended) => self.history.reads[*read].ended = Some((at, None)),
            (Pending::Read(read), Returned::Failed(failed)) => {
                self.history.reads[*read].ended = Some((at, Some(failed.clone())));
            }
            (Pending::Consumer { .. }, Returned::Ended | Returned::Failed(_)) => {
                let failed = match with {
                    Returned::Failed(failed) => Some(failed.clone()),
                    _ => None,
                };
                for (_, read) in self.consumers.range((op, Arc::from(""))..).take_while(|((of, _), _)| *of == op) {
                    self.history.reads[*read].ended = Some((at, failed.clone()));
                }
            }
            (Pending::Admin(admin), Returned::Admin(done)) => {
                let admin = &mut self.history.admin[*admin];
                (admin.returned, admin.result) = (Some(at), Some(Ok(done.clone())));
            }
            (Pending::Admin(admin), Returned::Failed(failed)) => {
                let admin = &mut self.history.admin[*admin];
                (admin.returned, admin.result) = (Some(at), Some(Err(failed.clone())));
            }
            (Pending::Page { .. }, Returned::Failed(_)) => {}
            (_, with) => panic!("{op} cannot return {with:?}"),
        }
        self.pending.remove(&op);
    }

    /// Notes an answer that says that something is not there.
    fn denied(&mut self, answered: At, op: OpId, with: &Returned) {
        let Some(pending) = self.pending.get(&op) else { return };
        let refused = |reason: &Reason| matches!(reason, Reason::StreamNotFound | Reason::ShardNotFound);
        let failed = match with {
            Returned::Failed(failed) if failed.refused && refused(&failed.reason) => failed.clone(),
            Returned::Put(outcomes) => {
                let denied = outcomes.iter().find_map(|it| match it {
                    Outcome::Refused { reason } if refused(reason) => Some(*reason),
                    _ => None,
                });
                let Some(reason) = denied else { return };
                let why = format!("a record was refused ({})", reason.as_str_name());
                Failed { refused: true, reason, shard: None, why }
            }
            _ => return,
        };
        let (stream, shard, invoked) = match pending {
            Pending::Put(put) => (self.history.puts[*put].call.stream.clone(), None, self.history.puts[*put].invoked),
            // An iterator is of the stream that there was when it was asked for (seed 90000114).
            Pending::Read(read) | Pending::Page { read, .. } => {
                let read = &self.history.reads[*read];
                (read.stream.clone(), Some(read.shard.clone()), read.invoked)
            }
            Pending::Consumer { stream, invoked, .. } => (stream.clone(), failed.shard.clone(), *invoked),
            Pending::Admin(admin) => {
                let op = &self.history.admin[*admin];
                match &op.call {
                    Admin::Describe { stream } | Admin::ListShards { stream } | Admin::ListOpen { stream, .. } => {
                        (stream.clone(), None, op.invoked)
                    }
                    _ => return,
                }
            }
        };
        self.history.denials.push(Denial { op, stream, shard, invoked, answered, failed });
    }

    fn received(&mut self, returned: At, op: OpId, shard: &Arc<str>, page: &Arc<Page>) {
        let read = match self.pending.get(&op) {
            Some(Pending::Read(read)) => *read,
            Some(Pending::Consumer { via, client, stream, kind, invoked, begun }) => {
                let History { reads, chains, .. } = &mut self.history;
                *self.consumers.entry((op, shard.clone())).or_insert_with(|| {
                    reads.push(Read {
                        op,
                        client: *client,
                        via: via.clone(),
                        how: ReadKind::Consumer,
                        stream: stream.clone(),
                        shard: shard.clone(),
                        kind: *kind,
                        invoked: *invoked,
                        begun: *begun,
                        pages: Vec::new(),
                        ended: None,
                        key: None,
                    });
                    chains.entry(op).or_insert(reads.len() - 1);
                    reads.len() - 1
                })
            }
            _ => return,
        };
        let read = &mut self.history.reads[read];
        let (via, invoked, page) = (read.via.clone(), read.invoked, page.clone());
        read.pages.push(PageRead { op, via, invoked, returned, limit: 0, page });
    }
}

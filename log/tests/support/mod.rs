//! A model of the log, and a runner that holds a real one on a simulated disk against it.
//!
//! The log is one ordered sequence of changes. So after a crash the only states it may show are those the model passed
//! through, none older than the last acknowledged change: `Trial::verify` says which. Appends count entry by entry.

#![allow(dead_code)] // Each test binary uses its part.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use braid_env::disk::sim::{self, SimDisk, Survive};
use braid_log::{Entry, EntryKind, Identity, Log, LogId, LogOptions, OpenError, Recovered, SegmentSeq, Vote};
use bytes::Bytes;

pub const DIR: &str = "/node/group-7";

pub fn identity() -> Identity {
    Identity { cluster: *b"a cluster's name", node: 2, group: 7 }
}

/// Small segments, and a ring so small that reads go to the files.
pub fn options() -> LogOptions {
    LogOptions { segment_bytes: 16 << 10, cache_bytes: 2 << 10, queue_bytes: 64 << 10 }
}

/// The payload of an entry is a function of its id and length.
pub fn entry(id: LogId, len: usize) -> Entry {
    let seed = id.term.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ id.index.wrapping_mul(0xD134_2543_DE82_EF95);
    let payload: Vec<u8> =
        (0..len).map(|i| (seed.rotate_left(i as u32 % 64) as u8).wrapping_add(i as u8) | 1).collect();
    let kind = match id.index % 7 {
        0 => EntryKind::Blank,
        1 => EntryKind::Membership,
        _ => EntryKind::Normal,
    };
    Entry::new(id, kind, Bytes::from(payload))
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub purged: Option<LogId>,
    /// Term and payload length by index.
    pub entries: BTreeMap<u64, (u64, usize)>,
    pub vote: Option<Vote>,
}

impl State {
    pub fn last(&self) -> Option<LogId> {
        let last = self.entries.last_key_value().map(|(&index, &(term, _))| LogId { term, index });
        last.or(self.purged)
    }

    pub fn next(&self) -> u64 {
        self.last().map_or(0, |id| id.index + 1)
    }

    pub fn first(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1)
    }

    /// What a log says it holds, every entry read and compared byte for byte.
    pub async fn of(log: &Log, max_bytes: usize) -> State {
        let end = log.last_id().map_or(0, |id| id.index + 1);
        let mut state = State { purged: log.purged(), vote: log.vote(), ..State::default() };
        let mut next = log.first_index();
        while next < end {
            let got = log.read(next..end, max_bytes).await.expect("live entries can be read");
            assert!(!got.is_empty(), "a read of a live entry gives it");
            let bytes: usize = got.iter().map(Entry::wire_len).sum();
            assert!(got.len() == 1 || bytes <= max_bytes);
            for e in got {
                assert_eq!(e.id().index, next);
                assert_eq!(e, entry(e.id(), e.payload().len()));
                assert_eq!(log.id_at(next), Some(e.id()));
                state.entries.insert(next, (e.id().term, e.payload().len()));
                next += 1;
            }
        }
        assert_eq!(state.last(), log.last_id());
        state
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Append {
        count: usize,
        len: usize,
        new_term: bool,
        wait: bool,
    },
    Vote,
    Committed,
    /// Keeps all but this many entries.
    Truncate {
        drop: u64,
    },
    /// Purges all but this many entries.
    Purge {
        keep: u64,
    },
    PurgeBeyond {
        by: u64,
    },
    Checkpoint,
    Install {
        ahead: u64,
    },
    Read {
        from: u64,
        len: u64,
        max_bytes: usize,
    },
}

pub struct Trial {
    pub disk: SimDisk,
    pub states: Vec<State>,
    /// The newest of `states` that was acknowledged.
    pub acked: Arc<AtomicUsize>,
    pub committed: Vec<LogId>,
    pub checkpoints: Vec<(SegmentSeq, LogId)>,
    pub term: u64,
}

impl Trial {
    pub fn new(seed: u64) -> Trial {
        Trial {
            disk: SimDisk::new(seed),
            states: vec![State::default()],
            acked: Arc::new(AtomicUsize::new(0)),
            committed: Vec::new(),
            checkpoints: Vec::new(),
            term: 1,
        }
    }

    /// One process: its own runtime, all of its tasks gone at the end.
    pub fn process<R>(&mut self, f: impl AsyncFnOnce(&mut Trial) -> R) -> R {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let disk = self.disk.clone();
        let _guard = sim::enter(&disk);
        runtime.block_on(f(self))
    }

    pub async fn open(&self) -> Result<(Log, Recovered), OpenError> {
        Log::open(Path::new(DIR), identity(), options()).await
    }

    pub fn now(&self) -> &State {
        self.states.last().expect("there is always a state")
    }

    fn acked_now(&self) {
        self.acked.fetch_max(self.states.len() - 1, Ordering::SeqCst);
    }

    fn change(&mut self, f: impl FnOnce(&mut State)) {
        let mut next = self.now().clone();
        f(&mut next);
        self.states.push(next);
    }

    /// The log just opened shows a state that was, and nothing acknowledged is missing. The trial goes on from it.
    pub async fn verify(&mut self, log: &Log) {
        let found = State::of(log, 3000).await;
        let acked = self.acked.load(Ordering::SeqCst);
        let Some(at) = self.states[acked..].iter().position(|s| *s == found) else {
            panic!(
                "found {found:?}\nwhich is none of the states since the acknowledged\n{:?}\nto {:?}",
                self.states[acked],
                self.now()
            );
        };
        self.states.truncate(acked + at + 1);
        self.acked = Arc::new(AtomicUsize::new(acked + at));
        let committed = log.committed();
        assert!(committed <= log.last_id());
        if let Some(id) = committed {
            assert!(self.committed.contains(&id) || log.last_id() == Some(id), "{id} was never saved");
            self.committed.push(id); // Clamped, it is what the log goes on with.
        }
        self.verify_shape(log);
        let there = log.checkpoints().await.expect("checkpoints can be listed");
        assert_eq!(there.damaged, []);
        let segments = log.segments();
        self.checkpoints.retain(|(seq, last)| {
            let fits = segments.iter().any(|s| s.seq == *seq && s.first_index == last.index + 1);
            assert!(fits || found.first() > last.index, "only a purge takes a checkpoint's segment away");
            fits
        });
        for (seq, last) in &self.checkpoints {
            let (loaded, state) = log.load_checkpoint(*seq).await.expect("an acknowledged checkpoint is there");
            assert_eq!((loaded, &state[..]), (*last, &checkpoint_state(*last)[..]));
        }
        for info in there.good {
            assert!(log.load_checkpoint(info.seq).await.is_ok(), "{info:?} fits its segment");
            // A crash came before it could be acknowledged; it is there all the same.
            if !self.checkpoints.contains(&(info.seq, info.last)) {
                self.checkpoints.push((info.seq, info.last));
            }
        }
    }

    /// Segments tile the live entries, and the questions about single entries agree with that.
    pub fn verify_shape(&self, log: &Log) {
        let state = self.now();
        assert_eq!((log.last_id(), log.first_index()), (state.last(), state.first()));
        assert_eq!((log.purged(), log.vote()), (state.purged, state.vote));
        let segments = log.segments();
        for index in state.first()..state.next() {
            let seq = log.segment_of(index).expect("a live entry is in a segment");
            let segment = segments.iter().find(|s| s.seq == seq).expect("which is listed");
            assert!(segment.first_index <= index && Some(index) <= segment.last_index);
            assert_eq!(log.starts_segment(index), (segment.first_index == index).then_some(seq));
        }
        assert_eq!(log.segment_of(state.next()), None);
        assert!(segments.windows(2).all(|w| w[0].seq.0 + 1 == w[1].seq.0 && w[0].first_index <= w[1].first_index));
    }

    /// An error of any step is the log's end; the model keeps what was begun as what may have happened.
    pub async fn step(&mut self, log: &Log, step: &Step) -> std::io::Result<()> {
        match *step {
            Step::Append { count, len, new_term, wait } => {
                self.term += new_term as u64;
                let mut entries = Vec::new();
                let before = self.states.len();
                for i in 0..count {
                    let id = LogId { term: self.term, index: self.now().next() };
                    let len = len + i;
                    entries.push(entry(id, len));
                    self.change(|s| assert_eq!(s.entries.insert(id.index, (id.term, len)), None));
                }
                let (acked, at) = (self.acked.clone(), self.states.len() - 1);
                let (send, receive) = tokio::sync::oneshot::channel();
                let appended = log.append(
                    entries,
                    Box::new(move |result| {
                        if result.is_ok() {
                            let earlier = acked.fetch_max(at, Ordering::SeqCst);
                            assert!(earlier <= at, "callbacks come in order");
                        }
                        let _ = send.send(result);
                    }),
                );
                if appended.is_err() {
                    self.states.truncate(before);
                }
                appended?;
                if wait {
                    receive.await.expect("the callback is called")?;
                }
            }
            Step::Vote => {
                let vote =
                    Vote { term: self.term, node: self.states.len() as u64, committed: self.term.is_multiple_of(2) };
                self.change(|s| s.vote = Some(vote));
                log.save_vote(vote).await?;
                self.acked_now();
            }
            Step::Committed => {
                if let Some(last) = log.last_id() {
                    self.committed.push(last);
                    log.save_committed(last)?;
                }
            }
            Step::Truncate { drop } => {
                // Raft never truncates what is committed, the log refuses to truncate what has a checkpoint.
                let applied = self.checkpoints.iter().map(|(_, last)| *last).max().max(log.committed());
                let applied = applied.map_or(0, |last| last.index + 1);
                let end = self.now().next().saturating_sub(drop).max(self.now().first()).max(applied);
                if end < self.now().next() {
                    self.term += 1;
                    self.change(|s| s.entries.retain(|&index, _| index < end));
                }
                log.truncate_after(end.checked_sub(1)).await?;
                self.acked_now();
            }
            Step::Purge { keep } => {
                let upto = self.now().next().saturating_sub(keep).checked_sub(1).and_then(|i| log.id_at(i));
                if let Some(upto) = upto {
                    self.purge(log, upto).await?;
                }
            }
            Step::PurgeBeyond { by } => {
                let upto = LogId { term: self.term, index: self.now().next() + by };
                self.purge(log, upto).await?;
            }
            Step::Checkpoint => {
                let newest =
                    (self.now().first()..self.now().next()).rev().find_map(|i| log.starts_segment(i).map(|s| (s, i)));
                let last = newest.and_then(|(seq, i)| Some((seq, log.id_at(i.checked_sub(1)?)?)));
                if let Some((seq, last)) = last {
                    log.write_checkpoint(seq, last, checkpoint_state(last)).await?;
                    self.checkpoints.retain(|(s, _)| *s != seq);
                    self.checkpoints.push((seq, last));
                }
            }
            Step::Install { ahead } => {
                let last = LogId { term: self.term, index: self.now().next() + ahead };
                self.change(|s| {
                    s.purged = Some(last);
                    s.entries.clear();
                });
                let seq = log.install_checkpoint(last, checkpoint_state(last)).await?;
                self.checkpoints = vec![(seq, last)];
                self.acked_now();
            }
            Step::Read { from, len, max_bytes } => {
                let state = self.now();
                let from = state.first() + from % (state.entries.len() as u64 + 1);
                let got = log.read(from..from + len, max_bytes).await.map_err(std::io::Error::other)?;
                assert_eq!(got.is_empty(), len == 0 || from >= state.next());
                for (i, e) in got.iter().enumerate() {
                    let index = from + i as u64;
                    let (term, len) = state.entries[&index];
                    assert_eq!(*e, entry(LogId { term, index }, len));
                }
            }
        }
        Ok(())
    }

    async fn purge(&mut self, log: &Log, upto: LogId) -> std::io::Result<()> {
        if Some(upto) > self.now().purged {
            self.change(|s| {
                s.purged = Some(upto);
                s.entries.retain(|&index, _| index > upto.index);
            });
        }
        log.purge(upto).await?;
        let first_seq = log.segments()[0].seq;
        self.checkpoints.retain(|(seq, _)| *seq >= first_seq);
        self.acked_now();
        Ok(())
    }
}

pub fn checkpoint_state(last: LogId) -> Bytes {
    Bytes::from(format!("state after {last}").repeat(100))
}

/// How a process ends before its time.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The power goes, and so much of what was unsynced is left.
    Power(Survive),
    /// The process is killed: the page cache lives on, synced or not.
    Kill,
}

impl Crash {
    pub const ALL: [Crash; 4] =
        [Crash::Power(Survive::Nothing), Crash::Power(Survive::Everything), Crash::Power(Survive::Random), Crash::Kill];
}

impl Trial {
    /// Opens, verifies and runs until the end of `steps` or until disk operation `at` is reached and `crash` comes.
    /// Afterwards the disk is ready for the next process. Returns whether it came to the end.
    pub fn run_until(&mut self, steps: &[Step], at: u64, crash: Crash) -> bool {
        if let Crash::Power(_) = crash {
            self.disk.crash_at_op(at);
        }
        let finished = self.process(async |trial| {
            let disk = trial.disk.clone();
            let killed = async {
                while crash != Crash::Kill || disk.ops() < at {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = killed => false,
                finished = trial.run(steps) => finished,
            }
        });
        match crash {
            Crash::Power(how) => self.disk.restart(how),
            Crash::Kill => self.disk.kill_process(),
        }
        finished
    }

    /// Runs until the end or the first error, which must be the power's: a power cut is never damage.
    async fn run(&mut self, steps: &[Step]) -> bool {
        let log = match self.open().await {
            Ok((log, _)) => log,
            Err(e) => {
                assert!(!self.disk.is_powered(), "a crash is not damage: {e}");
                return false;
            }
        };
        self.verify(&log).await;
        for step in steps {
            if let Err(error) = self.step(&log, step).await {
                assert!(!self.disk.is_powered(), "{step:?}: {error}");
                return false;
            }
        }
        let closed = log.close().await;
        assert!(closed.is_ok() || !self.disk.is_powered(), "{closed:?}");
        closed.is_ok()
    }
}

/// Later than every operation.
pub const NEVER: u64 = u64::MAX;

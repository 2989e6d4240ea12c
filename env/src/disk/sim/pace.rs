//! How long operations take, and the line of those that hang.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::random::below_with as below;

/// How long operations take: each a time of its range, every one as likely.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latency {
    /// Of reads, and of looking at names and lengths.
    pub read: RangeInclusive<Duration>,
    /// Of all that changes the page cache: writes, and what creates, renames, removes and resizes.
    pub write: RangeInclusive<Duration>,
    /// Of files and of directories.
    pub fsync: RangeInclusive<Duration>,
    /// Of a thousand operations, so many take `slow_factor` times as long.
    pub slow_per_mille: u32,
    pub slow_factor: u32,
}

/// Kinds of work that differ in how long they take.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Work {
    Read,
    Write,
    Fsync,
}

pub(super) struct Pace {
    /// Its own, so that what a crash leaves does not hang on whether operations take time.
    rng: ChaCha12Rng,
    latency: Option<Latency>,
    slowness: u32,
}

impl Pace {
    pub(super) fn new(seed: u64) -> Pace {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(1);
        Pace { rng, latency: None, slowness: 1 }
    }

    pub(super) fn set_latency(&mut self, latency: Option<Latency>) {
        for range in latency.iter().flat_map(|l| [&l.read, &l.write, &l.fsync]) {
            assert!(!range.is_empty(), "no time is in {range:?}");
        }
        self.latency = latency;
    }

    pub(super) fn set_slowness(&mut self, factor: u32) {
        assert!(factor > 0, "an operation takes a time");
        self.slowness = factor;
    }

    /// How long the next operation takes, and whether that is longer than its range. `None` is no time.
    pub(super) fn draw(&mut self, work: Work) -> (Option<Duration>, bool) {
        let Some(latency) = &self.latency else {
            return (None, false);
        };
        let range = match work {
            Work::Read => &latency.read,
            Work::Write => &latency.write,
            Work::Fsync => &latency.fsync,
        };
        let spread_ns = (*range.end() - *range.start()).as_nanos() as u64;
        let usual = *range.start() + Duration::from_nanos(below(&mut self.rng, spread_ns + 1));
        let is_rare = below(&mut self.rng, 1000) < u64::from(latency.slow_per_mille);
        let factor = self.slowness.saturating_mul(if is_rare { latency.slow_factor } else { 1 });
        let takes = usual.saturating_mul(factor);
        (Some(takes).filter(|t| !t.is_zero()), takes > *range.end())
    }
}

/// Those that hang, in the order they came.
#[derive(Default)]
pub(super) struct Line {
    stuck: bool,
    waiting: BTreeMap<u64, Waker>,
    last: u64,
    /// To be woken once the lock on the world is given back: what a waker does is not ours to know.
    released: Vec<Waker>,
}

impl Line {
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    pub(super) fn set_stuck(&mut self, stuck: bool) {
        self.stuck = stuck;
        if !stuck {
            self.release();
        }
    }

    /// Has all of them look again whether they may go on.
    pub(super) fn release(&mut self) {
        self.released.extend(std::mem::take(&mut self.waiting).into_values());
    }

    pub(super) fn take_released(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.released)
    }

    /// A place behind all others.
    pub(super) fn join(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The waker that stood there before, to be dropped without the lock.
    pub(super) fn wait(&mut self, place: u64, waker: Waker) -> Option<Waker> {
        self.waiting.insert(place, waker)
    }

    /// See [`Line::wait`].
    pub(super) fn leave(&mut self, place: u64) -> Option<Waker> {
        self.waiting.remove(&place)
    }
}

/// One turn of whatever executor there is.
#[derive(Default)]
pub(super) struct Yield {
    yielded: bool,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

//! The thread-local that says which seams are replaced on this thread, and by what.
//!
//! Invariant: outside of a [`Guard`] and of a [`Within`] future the thread-local is empty, so production
//! code, which makes neither, always meets the real world.
//!
//! It does not know what a replacement does; each seam's own module does.

use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::disk::sim::SimDisk;
use crate::host::Host;
use crate::random::Seeded;
use crate::time::WallClock;

thread_local! {
    static CURRENT: RefCell<Seams> = const { RefCell::new(Seams::real()) };
}

/// What stands in for the world. A seam that is not set here is the real one. Clones are cheap.
#[derive(Clone, Default)]
pub struct Seams(Option<Arc<Replaced>>);

#[derive(Clone, Default)]
struct Replaced {
    disk: Option<SimDisk>,
    random: Option<Seeded>,
    wall: Option<WallClock>,
    host: Option<Arc<dyn Host>>,
}

impl Seams {
    /// Nothing replaced.
    pub const fn real() -> Seams {
        Seams(None)
    }

    /// What is replaced on this thread now.
    pub fn current() -> Seams {
        CURRENT.with_borrow(Seams::clone)
    }

    /// Disk functions go to `disk`.
    pub fn with_disk(self, disk: &SimDisk) -> Seams {
        self.with(|replaced| replaced.disk = Some(disk.clone()))
    }

    /// Random numbers come from a generator seeded with `seed`; clones of these seams share it.
    pub fn with_seed(self, seed: u64) -> Seams {
        self.with(|replaced| replaced.random = Some(Seeded::new(seed)))
    }

    /// [`crate::time::wall_ms`] reads `wall`.
    pub fn with_wall_clock(self, wall: &WallClock) -> Seams {
        self.with(|replaced| replaced.wall = Some(wall.clone()))
    }

    /// Tasks, monotonic time, timers and the network are `host`'s.
    pub fn with_host(self, host: Arc<dyn Host>) -> Seams {
        self.with(|replaced| replaced.host = Some(host))
    }

    /// Puts these seams in place on this thread until the guard is dropped, in place of (not in addition
    /// to) what was there. Guards are to be dropped in the reverse order of their making.
    #[must_use = "the seams are put back when the guard is dropped"]
    pub fn enter(&self) -> Guard {
        let before = CURRENT.replace(self.clone());
        Guard { before, not_send: PhantomData }
    }

    /// `future`, with these seams in place whenever it is polled and while it is dropped.
    pub fn within<F: Future>(self, future: F) -> Within<F> {
        Within { seams: self, future: Some(Box::pin(future)) }
    }

    pub(crate) fn is_real(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn host(&self) -> Option<&Arc<dyn Host>> {
        self.0.as_ref()?.host.as_ref()
    }

    fn with(mut self, change: impl FnOnce(&mut Replaced)) -> Seams {
        change(Arc::make_mut(self.0.get_or_insert_default()));
        self
    }
}

fn replaced<T: Clone>(which: impl FnOnce(&Replaced) -> Option<&T>) -> Option<T> {
    CURRENT.with_borrow(|seams| which(seams.0.as_ref()?).cloned())
}

pub(crate) fn disk() -> Option<SimDisk> {
    replaced(|r| r.disk.as_ref())
}

pub(crate) fn random() -> Option<Seeded> {
    replaced(|r| r.random.as_ref())
}

pub(crate) fn wall() -> Option<WallClock> {
    replaced(|r| r.wall.as_ref())
}

pub(crate) fn host() -> Option<Arc<dyn Host>> {
    replaced(|r| r.host.as_ref())
}

/// Puts back, when dropped, the seams that were there before. Bound to its thread.
pub struct Guard {
    before: Seams,
    not_send: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.before));
    }
}

/// A future that runs in its own seams. Made by [`Seams::within`].
pub struct Within<F> {
    seams: Seams,
    /// `None` only while being dropped.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _guard = self.seams.enter();
        let future = self.future.as_mut().expect("set until dropped");
        future.as_mut().poll(cx)
    }
}

impl<F> Drop for Within<F> {
    fn drop(&mut self) {
        // What a task does as it is dropped (close a file, spawn a farewell) belongs to its world too.
        let _guard = self.seams.enter();
        self.future = None;
    }
}

//! The course of an operation: it begins, takes its time, may hang, and may find the power gone.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::SimDisk;
use super::events::{DiskEvent, Verdict};
use super::pace::{Work, Yield};
use super::world::{Life, Sync, Turn, World};
use crate::time;

impl SimDisk {
    /// Does something at once and lets time pass before its outcome is known. So an operation whose caller
    /// is dropped meanwhile has happened, as on a real disk. When it succeeds, it is an `event`.
    pub(super) async fn op<T>(
        &self,
        work: Work,
        event: Option<DiskEvent<'_>>,
        what: impl FnOnce(&mut World) -> io::Result<T>,
    ) -> io::Result<T> {
        let (turn, result) = self.begin(work, what);
        if let (Ok(_), Some(event)) = (&result, event) {
            self.tell(event);
        }
        self.wait(turn).await?;
        result
    }

    /// An fsync of the file or directory that was opened as `path`. It happens only after its time, so that
    /// the power can go in the middle of it.
    pub(super) async fn sync(&self, path: &Path, begin: impl FnOnce(&mut World) -> io::Result<Sync>) -> io::Result<()> {
        let (turn, begun) = self.begin(Work::Fsync, begin);
        let Ok(sync) = begun else {
            Yield::default().await;
            return begun.map(|_| ());
        };
        let under_way = UnderWay { disk: self, life: turn.life };
        if sync.is_of_file() {
            self.tell(DiskEvent::FsyncBegun { path });
        }
        self.pass(turn.life, turn.takes.map_or(Rest::Over, Rest::sleep)).await?;
        if sync.is_of_file() {
            self.tell(DiskEvent::FsyncHalf { path });
        }
        let finish = |world: &mut World| {
            world.check_life(turn.life)?;
            world.finish_sync(&sync)
        };
        let done = self.change(finish);
        drop(under_way);
        if done.is_ok() {
            self.tell(if sync.is_of_file() { DiskEvent::FsyncDone { path } } else { DiskEvent::DirSynced { path } });
        }
        match turn.takes {
            None => self.wait(turn).await?,
            Some(_) => self.world().check_life(turn.life)?,
        }
        done
    }

    pub(super) fn begin<T>(&self, work: Work, what: impl FnOnce(&mut World) -> T) -> (Turn, T) {
        self.change(|world| {
            let result = what(world);
            (world.turn(work), result)
        })
    }

    pub(super) fn wait(&self, turn: Turn) -> Pass<'_> {
        self.pass(turn.life, turn.takes.map_or(Rest::Yield(Yield::default()), Rest::sleep))
    }

    fn pass(&self, life: Life, rest: Rest) -> Pass<'_> {
        Pass { disk: self, life, rest, place: None }
    }

    /// Tells the hook, if there is one; without the lock, so that it may use the disk itself.
    pub(super) fn tell(&self, event: DiskEvent<'_>) {
        let hook = self.world().hook.clone();
        if let Some(hook) = hook
            && hook(&event) == Verdict::CutPower
        {
            self.power_cut();
        }
    }

    /// Does what may let go of those that hang, and wakes them without the lock.
    pub(super) fn change<T>(&self, what: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world();
        let result = what(&mut world);
        let released = world.line.take_released();
        drop(world);
        released.into_iter().for_each(Waker::wake);
        result
    }
}

/// Ready when the rest of the time is over and the disk not stuck; or, before that, with an error when what
/// began in `life` can't go on.
pub(super) struct Pass<'a> {
    disk: &'a SimDisk,
    life: Life,
    rest: Rest,
    /// In the line, once it has hung.
    place: Option<u64>,
}

enum Rest {
    Sleep(time::Sleep),
    Yield(Yield),
    Over,
}

impl Rest {
    fn sleep(takes: Duration) -> Rest {
        Rest::Sleep(time::sleep(takes))
    }
}

impl Future for Pass<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = match &mut self.rest {
            Rest::Sleep(sleep) => Pin::new(sleep).poll(cx),
            Rest::Yield(turn) => Pin::new(turn).poll(cx),
            Rest::Over => Poll::Ready(()),
        };
        if rest.is_ready() {
            self.rest = Rest::Over;
        }
        let disk = self.disk;
        let mut world = disk.world();
        world.check_life(self.life)?;
        ready!(rest);
        if !world.line.is_stuck() {
            return Poll::Ready(Ok(()));
        }
        let place = match self.place {
            Some(place) => place,
            None => {
                world.count_stuck();
                world.line.join()
            }
        };
        self.place = Some(place);
        let before = world.line.wait(place, cx.waker().clone());
        drop(world);
        drop(before); // Without the lock: what a waker does then is not ours to know.
        Poll::Pending
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let left = self.disk.world().line.leave(place);
            drop(left);
        }
    }
}

/// An fsync that has begun and is not done.
struct UnderWay<'a> {
    disk: &'a SimDisk,
    life: Life,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.disk.world().end_sync(self.life);
    }
}

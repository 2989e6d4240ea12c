//! Open files and locks of a simulated disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::SimDisk;
use super::events::DiskEvent;
use super::names::Ino;
use super::pace::Work;
use super::world::{Turn, World};
use crate::disk::Open;

/// An open file of a simulated disk.
#[derive(Clone)]
pub(in crate::disk) struct SimFile(Arc<Handle>);

struct Handle {
    disk: SimDisk,
    /// As it was opened.
    path: PathBuf,
    ino: Ino,
    epoch: u64,
    writable: bool,
}

impl SimFile {
    pub(in crate::disk) async fn open(disk: SimDisk, path: PathBuf, how: Open) -> io::Result<SimFile> {
        let creates = matches!(how, Open::CreateNew | Open::Create);
        let work = if creates { Work::Write } else { Work::Read };
        let (turn, opened) = disk.begin(work, |world| world.open(&path, how));
        let created = opened.as_ref().is_ok_and(|o| o.created);
        // Made a handle before anything is awaited, so that a caller that is dropped closes it.
        let writable = how != Open::Read;
        let handle = opened.map(|o| Handle { disk: disk.clone(), path, ino: o.ino, epoch: o.epoch, writable });
        if let (true, Ok(handle)) = (created, &handle) {
            disk.tell(DiskEvent::Created { path: &handle.path });
        }
        disk.wait(turn).await?;
        Ok(SimFile(Arc::new(handle?)))
    }

    pub(in crate::disk) async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let (turn, written) = self.write(offset, bufs)?;
        self.0.disk.wait(turn).await?;
        written
    }

    pub(in crate::disk) async fn write_at_sync(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let (turn, written) = self.write(offset, bufs)?;
        // Without latency the two are one turn.
        if written.is_err() || turn.takes.is_some() {
            self.0.disk.wait(turn).await?;
            written?;
        }
        self.fsync().await
    }

    pub(in crate::disk) async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.op(Work::Read, None, |world, ino| world.read(ino, offset, len)).await
    }

    pub(in crate::disk) async fn fsync(&self) -> io::Result<()> {
        let Handle { disk, path, ino, epoch, .. } = &*self.0;
        let begin = |world: &mut World| {
            world.check_handle(*epoch)?;
            world.begin_fsync(*ino)
        };
        disk.sync(path, begin).await
    }

    pub(in crate::disk) async fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let event = DiskEvent::Allocated { path: &self.0.path };
        self.op(Work::Write, Some(event), |world, ino| world.allocate(ino, len)).await
    }

    pub(in crate::disk) async fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.op(Work::Write, None, |world, ino| world.set_len(ino, len)).await
    }

    pub(in crate::disk) async fn len(&self) -> io::Result<u64> {
        self.op(Work::Read, None, World::len).await
    }

    /// Writes as far as the page cache; how that went is to be told when the turn is over.
    fn write(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<(Turn, io::Result<()>)> {
        self.check_writable()?;
        let Handle { disk, path, ino, epoch, .. } = &*self.0;
        let (turn, written) = disk.begin(Work::Write, |world| {
            world.check_handle(*epoch)?;
            world.write(*ino, offset, &bufs)
        });
        if written.is_ok() {
            disk.tell(DiskEvent::Write { path });
        }
        Ok((turn, written))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.0.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EBADF)) }
    }

    async fn op<T>(
        &self,
        work: Work,
        event: Option<DiskEvent<'_>>,
        what: impl FnOnce(&mut World, Ino) -> io::Result<T>,
    ) -> io::Result<T> {
        let Handle { disk, ino, epoch, .. } = &*self.0;
        let on_handle = |world: &mut World| {
            world.check_handle(*epoch)?;
            what(world, *ino)
        };
        disk.op(work, event, on_handle).await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.disk.world().close(self.ino, self.epoch);
    }
}

/// A lock on a simulated disk; falls when dropped.
pub(in crate::disk) struct SimLock {
    disk: SimDisk,
    ino: Ino,
    epoch: u64,
}

impl SimLock {
    pub(in crate::disk) async fn take(disk: SimDisk, path: PathBuf) -> io::Result<SimLock> {
        let (turn, taken) = disk.begin(Work::Write, |world| world.lock(&path));
        let created = taken.as_ref().is_ok_and(|t| t.created);
        let lock = taken.map(|t| SimLock { disk: disk.clone(), ino: t.ino, epoch: t.epoch });
        if created {
            disk.tell(DiskEvent::Created { path: &path });
        }
        disk.wait(turn).await?;
        lock
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.world().unlock(self.ino, self.epoch);
    }
}

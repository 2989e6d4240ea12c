//! The real disk: blocking system calls on the I/O threads.
//!
//! Invariant: a write is whole or an error, and an interrupted system call is never seen by the caller.
//!
//! It does not buffer, retry after a failure, or count; what it promises is said at `disk`'s functions.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::Open;
use super::threads::{self, Lane};

/// POSIX promises 16 buffers a call and Linux takes 1024.
const BUFS_PER_CALL: usize = 1024;

#[derive(Clone)]
pub(super) struct RealFile {
    file: Arc<fs::File>,
    lane: Lane,
}

impl RealFile {
    pub(super) async fn open(path: PathBuf, how: Open) -> io::Result<RealFile> {
        let open = move || {
            let mut options = fs::OpenOptions::new();
            options.read(true).write(how != Open::Read);
            options.create_new(how == Open::CreateNew);
            options.create(how == Open::Create);
            options.open(&path)
        };
        let file = match how {
            Open::Read | Open::ReadWrite => threads::read(open).await?,
            Open::CreateNew | Open::Create => threads::write(open).await?,
        };
        Ok(RealFile { file: Arc::new(file), lane: Lane::default() })
    }

    pub(super) async fn write_at(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let file = self.file.clone();
        self.lane.write(move || write_all_at(&file, offset, &bufs)).await
    }

    pub(super) async fn write_at_sync(&self, offset: u64, bufs: Vec<Bytes>) -> io::Result<()> {
        let file = self.file.clone();
        let write_and_sync = move || {
            write_all_at(&file, offset, &bufs)?;
            file.sync_data()
        };
        self.lane.write(write_and_sync).await
    }

    pub(super) async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = self.file.clone();
        threads::read(move || read_at(&file, offset, len)).await
    }

    pub(super) async fn fsync(&self) -> io::Result<()> {
        let file = self.file.clone();
        self.lane.write(move || file.sync_data()).await
    }

    pub(super) async fn allocate(&self, len: u64) -> io::Result<()> {
        let file = self.file.clone();
        self.lane.write(move || allocate(&file, len)).await
    }

    pub(super) async fn set_len(&self, len: u64) -> io::Result<()> {
        let file = self.file.clone();
        self.lane.write(move || file.set_len(len)).await
    }

    pub(super) async fn len(&self) -> io::Result<u64> {
        let file = self.file.clone();
        threads::read(move || Ok(file.metadata()?.len())).await
    }
}

fn write_all_at(file: &fs::File, mut offset: u64, bufs: &[Bytes]) -> io::Result<()> {
    if let [buf] = bufs {
        return file.write_all_at(buf, offset);
    }
    let mut slices: Vec<io::IoSlice<'_>> = bufs.iter().filter(|b| !b.is_empty()).map(|b| io::IoSlice::new(b)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        match pwritev(file, offset, &rest[..rest.len().min(BUFS_PER_CALL)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                io::IoSlice::advance_slices(&mut rest, n);
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn pwritev(file: &fs::File, offset: u64, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    let offset = libc::off_t::try_from(offset)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("offset {offset}")))?;
    // SAFETY: the descriptor is open as long as `file` is borrowed; `IoSlice` has the layout of `iovec`
    // by its documentation; the pointer and the count describe `bufs`, whose memory outlives the call
    // and is only read; the count fits, being at most `BUFS_PER_CALL`.
    let n = unsafe {
        libc::pwritev(file.as_raw_fd(), bufs.as_ptr().cast::<libc::iovec>(), bufs.len() as libc::c_int, offset)
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

fn read_at(file: &fs::File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buf = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buf[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    buf.truncate(filled);
    Ok(Bytes::from(buf))
}

fn allocate(file: &fs::File, len: u64) -> io::Result<()> {
    let is = file.metadata()?.len();
    if is > len {
        return Err(super::longer_than_asked(is, len));
    }
    if len == 0 {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let asked = libc::off_t::try_from(len)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("length {len}")))?;
        loop {
            // SAFETY: the descriptor is open as long as `file` is borrowed; no memory is passed.
            if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, asked) } == 0 {
                return Ok(());
            }
            let e = io::Error::last_os_error();
            match e.raw_os_error() {
                Some(libc::EINTR) => {}
                // The file system (or a sandbox's kernel) doesn't have it.
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => break,
                _ => return Err(e),
            }
        }
    }
    file.set_len(len)
}

pub(super) async fn rename(from: PathBuf, to: PathBuf) -> io::Result<()> {
    threads::write(move || fs::rename(from, to)).await
}

pub(super) async fn fsync_dir(path: PathBuf) -> io::Result<()> {
    threads::write(move || fs::File::open(path)?.sync_all()).await
}

pub(super) async fn remove_file(path: PathBuf) -> io::Result<()> {
    threads::write(move || fs::remove_file(path)).await
}

pub(super) async fn remove_dir_all(path: PathBuf) -> io::Result<()> {
    threads::write(move || fs::remove_dir_all(path)).await
}

pub(super) async fn create_dir(path: PathBuf) -> io::Result<()> {
    threads::write(move || fs::create_dir(path)).await
}

pub(super) async fn is_dir(path: PathBuf) -> io::Result<bool> {
    threads::read(move || match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    })
    .await
}

pub(super) async fn list_dir(path: PathBuf) -> io::Result<Vec<String>> {
    let list = move || {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name().into_string();
            names.push(name.map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("file name {name:?} is not UTF-8"))
            })?);
        }
        names.sort_unstable();
        Ok(names)
    };
    threads::read(list).await
}

pub(super) async fn exists(path: PathBuf) -> io::Result<bool> {
    threads::read(move || fs::exists(path)).await
}

pub(super) async fn read_file(path: PathBuf) -> io::Result<Bytes> {
    threads::read(move || fs::read(path).map(Bytes::from)).await
}

pub(super) async fn lock_exclusive(path: PathBuf) -> io::Result<fs::File> {
    threads::write(move || lock_now(&path)).await
}

fn lock_now(path: &Path) -> io::Result<fs::File> {
    let file = if path.is_dir() {
        fs::File::open(path)?
    } else {
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(super::locked_elsewhere(path)),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

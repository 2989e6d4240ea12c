//! Checkpoints: the state machine's bytes at the start of a segment, so that the segments from there on are a whole
//! group.
//!
//! ```text
//!  0 "BRAIDCKP" │ 8 version u8, 3 zeroes │ 12 group u32 │ 16 cluster [16] │ 32 node u64
//! 40 term u64 │ 48 index u64 │ 56 state_len u64 │ 64 state … │ crc32 of everything before, u32      little endian
//! ```
//!
//! Invariant: a checkpoint under its final name is whole and durable, and so is every entry it covers: it is written
//! only after the log has made its last entry durable. What the state means is not known here.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use braid_env::disk::{self, File, Open};
use braid_probe::{Bug, Mark, planted, reachable};
use bytes::Bytes;

use crate::core::Core;
use crate::frame::{u32_at, u64_at};
use crate::id::{Identity, LogId, SegmentSeq, end_of};
use crate::log::{Log, invalid};
use crate::segment::TEMPORARY_SUFFIX;

const MAGIC: [u8; 8] = *b"BRAIDCKP";
const VERSION: u8 = 1;
const HEADER: usize = 64;
const TRAILER: usize = 4;
pub(crate) const PREFIX: &str = "checkpoint-";
/// A checkpoint on its way in from elsewhere, before the log has a segment for it.
pub(crate) const INSTALL_NAME: &str = "checkpoint-install";

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct CheckpointInfo {
    pub seq: SegmentSeq,
    /// The last entry whose effect the state holds.
    pub last: LogId,
    /// Bytes of the state.
    pub bytes: u64,
}

/// What a directory holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoints {
    /// Verified, newest last.
    pub good: Vec<CheckpointInfo>,
    /// Names and reasons. Never served.
    pub damaged: Vec<(String, String)>,
}

#[derive(Debug)]
pub enum CheckpointError {
    Missing { file: PathBuf },
    Damaged { file: PathBuf, why: String },
    Io { file: PathBuf, error: io::Error },
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Missing { file } => write!(f, "no checkpoint {}", file.display()),
            CheckpointError::Damaged { file, why } => write!(f, "{} is damaged: {why}", file.display()),
            CheckpointError::Io { file, error } => write!(f, "reading {}: {error}", file.display()),
        }
    }
}

impl std::error::Error for CheckpointError {}

/// The file as pieces to write: head, state, trailer. The state is not copied.
pub(crate) fn encode(identity: Identity, last: LogId, state: Bytes) -> Vec<Bytes> {
    let mut head = Vec::with_capacity(HEADER);
    head.extend(MAGIC);
    head.extend([VERSION, 0, 0, 0]);
    head.extend(identity.group.to_le_bytes());
    head.extend(identity.cluster);
    head.extend(identity.node.to_le_bytes());
    head.extend(last.term.to_le_bytes());
    head.extend(last.index.to_le_bytes());
    head.extend((state.len() as u64).to_le_bytes());
    assert_eq!(head.len(), HEADER);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head);
    crc.update(&state);
    let trailer = Bytes::copy_from_slice(&crc.finalize().to_le_bytes());
    vec![head.into(), state, trailer]
}

/// The whole file → last id and state, or what is wrong with it.
pub(crate) fn decode(identity: Identity, file: &Bytes) -> Result<(LogId, Bytes), String> {
    if file.len() < HEADER + TRAILER {
        return Err(format!("{} bytes, a checkpoint has at least {}", file.len(), HEADER + TRAILER));
    }
    let body = file.len() - TRAILER;
    if crc32fast::hash(&file[..body]) != u32_at(file, body) {
        return Err("its checksum does not match".into());
    }
    if file[..8] != MAGIC || u64_at(file, 56) != (body - HEADER) as u64 {
        return Err("it is no checkpoint".into());
    }
    if file[8] != VERSION {
        return Err(format!("version {}, this program reads version {VERSION}", file[8]));
    }
    let cluster = file[16..32].try_into().expect("sixteen bytes");
    let owner = Identity { cluster, node: u64_at(file, 32), group: u32_at(file, 12) };
    if owner != identity {
        return Err(format!("it belongs to {owner}, not to {identity}"));
    }
    let last = LogId { term: u64_at(file, 40), index: u64_at(file, 48) };
    Ok((last, file.slice(HEADER..body)))
}

pub(crate) async fn write(core: &Core, seq: SegmentSeq, last: LogId, state: Bytes) -> io::Result<()> {
    let place = |log: &crate::core::Shared| {
        log.check_open()?;
        let first = log.ledger.segment(seq).map(|s| s.first_index);
        if first != Some(last.index + 1) || log.ledger.id_at(last.index) != Some(last) {
            return Err(invalid(format!("checkpoint at {last} for segment {seq}, which starts at {first:?}")));
        }
        Ok(())
    };
    place(&core.lock())?;
    // 1. checkpoint durable, 2. power cut, 3. its entries were not: the state would be ahead of the log for ever.
    if !planted(Bug::CheckpointNotAwaited) {
        core.wait_durable(last.index + 1, seq).await?;
    }
    write_file(core, &seq.checkpoint_name(), last, state).await?;
    reachable!(Mark::CheckpointWritten);
    braid_probe::checkpointed(core.identity.group, last.index, core.durable.borrow().covers(last.index + 1, seq));
    let mut log = core.lock();
    log.checkpointed = log.checkpointed.max(Some(last));
    Ok(())
}

/// 1. `checkpoint-install` durable; 2. the purge durable: from here on the snapshot is what this log starts with;
/// 3. renamed to its segment. A crash after 1 alone forgets it, after 2 recovery does 3.
pub(crate) async fn install(log: &Log, last: LogId, state: Bytes) -> io::Result<SegmentSeq> {
    let core = log.core();
    let check = || {
        let shared = core.lock();
        shared.check_open()?;
        if last.index < shared.ledger.first_index() || end_of(Some(last)) < shared.ledger.next_index() {
            let held = (shared.ledger.first_index(), shared.ledger.next_index());
            return Err(invalid(format!("checkpoint of {last} into a log of {}..{}", held.0, held.1)));
        }
        Ok(())
    };
    check()?;
    write_file(core, INSTALL_NAME, last, state).await?;
    check()?;
    log.purge(last).await?;
    reachable!(Mark::InstallBeforeRename);
    let seq = {
        let mut shared = core.lock();
        shared.checkpointed = shared.checkpointed.max(Some(last));
        shared.ledger.last_segment().seq
    };
    finish_install(&core.dir, seq).await?;
    reachable!(Mark::CheckpointInstalled);
    Ok(seq)
}

pub(crate) async fn finish_install(dir: &Path, seq: SegmentSeq) -> io::Result<()> {
    disk::rename(dir.join(INSTALL_NAME), dir.join(seq.checkpoint_name())).await?;
    disk::fsync_dir(dir).await
}

async fn write_file(core: &Core, name: &str, last: LogId, state: Bytes) -> io::Result<()> {
    let temporary = core.dir.join(format!("{name}{TEMPORARY_SUFFIX}"));
    if disk::exists(&temporary).await? {
        disk::remove_file(&temporary).await?;
    }
    let file = File::open(&temporary, Open::CreateNew).await?;
    file.write_at_sync(0, encode(core.identity, last, state)).await?;
    reachable!(Mark::CheckpointBeforeRename);
    disk::rename(&temporary, core.dir.join(name)).await?;
    disk::fsync_dir(&core.dir).await
}

pub(crate) async fn list(dir: &Path, identity: Identity) -> io::Result<Checkpoints> {
    let mut found = Checkpoints::default();
    for name in disk::list_dir(dir).await? {
        let Some(seq) = SegmentSeq::parse(&name, PREFIX) else {
            continue;
        };
        match decode(identity, &disk::read_file(dir.join(&name)).await?) {
            Ok((last, state)) => found.good.push(CheckpointInfo { seq, last, bytes: state.len() as u64 }),
            Err(why) => found.damaged.push((name, why)),
        }
    }
    found.good.sort_by_key(|c| c.seq);
    Ok(found)
}

pub(crate) async fn load(core: &Core, seq: SegmentSeq) -> Result<(LogId, Bytes), CheckpointError> {
    let file = core.dir.join(seq.checkpoint_name());
    let bytes = match disk::read_file(&file).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CheckpointError::Missing { file }),
        Err(error) => return Err(CheckpointError::Io { file, error }),
    };
    let (last, state) = match decode(core.identity, &bytes) {
        Ok(found) => found,
        Err(why) => return Err(CheckpointError::Damaged { file, why }),
    };
    let first = core.lock().ledger.segment(seq).map(|s| s.first_index);
    if first != Some(last.index + 1) {
        let why = format!("it ends at {last}, and segment {seq} starts at {first:?}");
        return Err(CheckpointError::Damaged { file, why });
    }
    Ok((last, state))
}

/// Removes checkpoints of segments before `first`. The caller syncs the directory.
pub(crate) async fn remove_before(dir: &Path, first: SegmentSeq) -> io::Result<()> {
    for name in disk::list_dir(dir).await? {
        if SegmentSeq::parse(&name, PREFIX).is_some_and(|seq| seq < first) {
            disk::remove_file(dir.join(name)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<u8> {
        let identity = crate::segment::tests::example().identity;
        encode(identity, LogId::new(2, 9), Bytes::from_static(b"state")).concat()
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let identity = crate::segment::tests::example().identity;
        let whole = whole();
        let (last, state) = decode(identity, &whole.clone().into()).unwrap();
        assert_eq!((last, &state[..]), (LogId::new(2, 9), &b"state"[..]));
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(identity, &bad.into()).is_err(), "bit {bit}");
        }
        for len in 0..whole.len() {
            assert!(decode(identity, &Bytes::copy_from_slice(&whole[..len])).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn another_groups_checkpoint_is_not_ours() {
        let identity = Identity { group: 99, ..crate::segment::tests::example().identity };
        assert!(decode(identity, &whole().into()).unwrap_err().contains("belongs to"));
    }
}

//! One simulated file: what readers see, what the platter has, and what lies between.
//!
//! Invariant: the platter's content changes only in [`FileData::sync`], in [`FileData::settle`] and under
//! damage that a test does; and applying `unsynced` to `durable` gives `live`, unless an fsync failed.
//!
//! It knows nothing of names, power or faults.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand_chacha::ChaCha12Rng;

use super::Survive;
use crate::random::below_with as below;

/// What a disk writes whole, if nothing tears it. Also the unit in which unsynced writes get lost.
const SECTOR: u64 = 512;

type Sector = Arc<[u8; SECTOR as usize]>;

/// Bytes, sparse: a sector that is missing is zero. Clones share sectors.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    /// Of sector number; beyond `len` every byte is zero.
    sectors: BTreeMap<u64, Sector>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.len.min(offset.saturating_add(len as u64));
        let mut out = vec![0; end.saturating_sub(offset) as usize];
        if out.is_empty() {
            return out;
        }
        for (&number, sector) in self.sectors.range(offset / SECTOR..=(end - 1) / SECTOR) {
            let start = number * SECTOR;
            let (from, to) = (offset.max(start), end.min(start + SECTOR));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&sector[(from - start) as usize..(to - start) as usize]);
        }
        out
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, piece) in by_sector(offset, bytes) {
            let sector = self.sectors.entry(at / SECTOR).or_insert_with(|| Arc::new([0; SECTOR as usize]));
            let within = (at % SECTOR) as usize;
            Arc::make_mut(sector)[within..within + piece.len()].copy_from_slice(piece);
        }
        if !bytes.is_empty() {
            self.grow(offset + bytes.len() as u64);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.sectors.split_off(&len.div_ceil(SECTOR));
            // The rest of the last sector must read as zeroes should the file grow again.
            if let Some(last) = self.sectors.get_mut(&(len / SECTOR)) {
                Arc::make_mut(last)[(len % SECTOR) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    fn flip(&mut self, byte: u64, bit: u8) {
        if byte < self.len {
            let was = self.read(byte, 1)[0];
            self.write(byte, &[was ^ (1 << bit)]);
        }
    }
}

/// The pieces of `bytes` that fall in different sectors, with their places in the file.
fn by_sector(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = offset;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let room = (SECTOR - at % SECTOR) as usize;
        let (piece, after) = rest.split_at(room.min(rest.len()));
        let found = (at, piece);
        at += piece.len() as u64;
        rest = after;
        Some(found)
    })
}

/// Something done to a file since it was last synced.
pub(super) enum Change {
    Write { offset: u64, bytes: Bytes },
    SetLen(u64),
    Grow(u64),
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { offset, bytes } => content.write(*offset, bytes),
            Change::SetLen(len) => content.set_len(*len),
            Change::Grow(len) => content.grow(*len),
        }
    }

    /// Applies what a power cut in the middle of the change leaves of it.
    fn apply_torn(&self, content: &mut Content, rng: &mut ChaCha12Rng) {
        let Change::Write { offset, bytes } = self else {
            // A length is one number in one sector: it changes or not.
            if below(rng, 2) == 0 {
                self.apply(content);
            }
            return;
        };
        // The new length may get to the disk without the bytes, which are then zero.
        if !bytes.is_empty() && below(rng, 2) == 0 {
            content.grow(offset + bytes.len() as u64);
        }
        for (at, piece) in by_sector(*offset, bytes) {
            let cut = below(rng, piece.len() as u64 + 1) as usize;
            match below(rng, 4) {
                0 => {}
                1 => content.write(at, &piece[..cut]),
                2 => content.write(at + cut as u64, &piece[cut..]),
                _ => content.write(at, piece),
            }
        }
    }
}

#[derive(Default)]
pub(super) struct FileData {
    live: Content,
    durable: Content,
    unsynced: Vec<Change>,
    /// (byte, bit) to be read wrongly, once each.
    misreads: Vec<(u64, u8)>,
}

impl FileData {
    /// Synced already.
    pub(super) fn holding(bytes: &[u8]) -> FileData {
        let mut content = Content::default();
        content.write(0, bytes);
        FileData { live: content.clone(), durable: content, ..FileData::default() }
    }

    pub(super) fn live(&self) -> &Content {
        &self.live
    }

    pub(super) fn durable(&self) -> &Content {
        &self.durable
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    pub(super) fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = self.live.read(offset, len);
        self.misreads.retain(|&(byte, bit)| {
            let wrong = byte.checked_sub(offset).and_then(|at| bytes.get_mut(at as usize));
            match wrong {
                Some(wrong) => *wrong ^= 1 << bit,
                None => return true,
            }
            false
        });
        bytes
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What Linux does when writing back fails: readers go on seeing the data, and no later fsync tries
    /// to write it again, nor fails.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.clear();
    }

    /// The power is back: what is on the platter is all there is.
    pub(super) fn settle(&mut self, how: Survive, rng: &mut ChaCha12Rng) {
        match how {
            Survive::Nothing => self.unsynced.clear(),
            Survive::Everything => self.sync(),
            Survive::Random => self.settle_randomly(rng),
        }
        self.live = self.durable.clone();
        self.misreads.clear();
    }

    /// Independent coins alone would hardly ever lose or keep all of a long list, and never stop in the
    /// order of writing; and those are what disks mostly do. So each file draws its kind of fate first.
    fn settle_randomly(&mut self, rng: &mut ChaCha12Rng) {
        let unsynced = std::mem::take(&mut self.unsynced);
        if unsynced.is_empty() {
            return;
        }
        let durable = &mut self.durable;
        match below(rng, 8) {
            0 => {}
            1 => unsynced.iter().for_each(|c| c.apply(durable)),
            2..=4 => {
                let torn = below(rng, unsynced.len() as u64) as usize;
                unsynced[..torn].iter().for_each(|c| c.apply(durable));
                unsynced[torn].apply_torn(durable, rng);
            }
            _ => {
                for change in &unsynced {
                    match below(rng, 4) {
                        0 => {}
                        1 => change.apply(durable),
                        _ => change.apply_torn(durable, rng),
                    }
                }
            }
        }
    }

    /// Damage on the platter, seen at once by readers too.
    pub(super) fn flip(&mut self, byte: u64, bit: u8) {
        self.live.flip(byte, bit);
        self.durable.flip(byte, bit);
    }

    pub(super) fn flip_on_next_read(&mut self, byte: u64, bit: u8) {
        self.misreads.push((byte, bit));
    }

    /// Damage on the platter: the end of the file is lost, and with it what was not synced.
    pub(super) fn cut(&mut self, len: u64) {
        self.unsynced.clear();
        self.live.set_len(len.min(self.live.len()));
        self.durable.set_len(len.min(self.durable.len()));
    }
}

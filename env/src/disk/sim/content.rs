//! One simulated file: what readers see, what the platter has, and what lies between.
//!
//! Invariant: the platter's content changes only in [`FileData::sync`], in [`FileData::settle`] and under
//! damage that a test does; and applying `unsynced` to `durable` gives `live`, unless it diverged: an fsync failed, or
//! a test did damage.
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
        if end <= offset {
            return Vec::new();
        }
        let mut out = Vec::with_capacity((end - offset) as usize);
        for (&number, sector) in self.sectors.range(offset / SECTOR..=(end - 1) / SECTOR) {
            let start = number * SECTOR;
            let (from, to) = (offset.max(start), end.min(start + SECTOR));
            // What was never written reads as zeroes.
            out.resize((from - offset) as usize, 0);
            out.extend_from_slice(&sector[(from - start) as usize..(to - start) as usize]);
        }
        out.resize((end - offset) as usize, 0);
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

    /// Takes over what a write of those bytes left in `newer`, without copying it.
    fn share(&mut self, offset: u64, len: u64, newer: &Content) {
        let end = offset + len;
        for number in offset / SECTOR..end.div_ceil(SECTOR) {
            // One that is missing was cut off since; that change is still to come here.
            if let Some(sector) = newer.sectors.get(&number) {
                self.sectors.insert(number, sector.clone());
            }
        }
        self.grow(end);
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

    /// Applies what a power cut in the middle of the change leaves of it: so many of a write's bytes.
    fn apply_torn(&self, content: &mut Content, rng: &mut ChaCha12Rng) -> usize {
        let Change::Write { offset, bytes } = self else {
            // A length is one number in one sector: it changes or not.
            if below(rng, 2) == 0 {
                self.apply(content);
            }
            return 0;
        };
        // The new length may get to the disk without the bytes, which are then zero.
        if !bytes.is_empty() && below(rng, 2) == 0 {
            content.grow(offset + bytes.len() as u64);
        }
        let mut kept = 0;
        for (at, piece) in by_sector(*offset, bytes) {
            let cut = below(rng, piece.len() as u64 + 1) as usize;
            let left = match below(rng, 4) {
                0 => 0..0,
                1 => 0..cut,
                2 => cut..piece.len(),
                _ => 0..piece.len(),
            };
            kept += left.len();
            content.write(at + left.start as u64, &piece[left]);
        }
        kept
    }
}

/// Writes that a power cut left nothing of, or not all.
#[derive(Default)]
pub(super) struct Losses {
    pub(super) lost: u64,
    pub(super) torn: u64,
}

impl Losses {
    fn count(&mut self, change: &Change, kept: usize) {
        if let Change::Write { bytes, .. } = change {
            self.lost += u64::from(kept == 0);
            self.torn += u64::from(0 < kept && kept < bytes.len());
        }
    }

    fn count_all(&mut self, lost: &[Change]) {
        lost.iter().for_each(|change| self.count(change, 0));
    }
}

/// How many changes a file has had: what an fsync that begins now is to make durable.
#[derive(Copy, Clone)]
pub(super) struct Mark(u64);

#[derive(Default)]
pub(super) struct FileData {
    live: Content,
    durable: Content,
    unsynced: Vec<Change>,
    /// How many changes there were before those.
    settled: u64,
    /// Whether `live` may be more than `durable` and `unsynced`.
    diverged: bool,
    /// (byte, bit) to be read wrongly, once each.
    misreads: Vec<(u64, u8)>,
    /// How far the writes reached that each of the last fsyncs made durable, newest first; 0 for none.
    reached: [u64; SYNCS_KEPT],
}

/// Of so many fsyncs it is known how far they reached.
const SYNCS_KEPT: usize = 4;

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

    /// How many bits are still to be read wrongly.
    pub(super) fn misreads(&self) -> usize {
        self.misreads.len()
    }

    /// Bytes below this were durable before the last `syncs` fsyncs that made writes durable.
    pub(super) fn durable_before(&self, syncs: usize) -> u64 {
        assert!(syncs < SYNCS_KEPT, "{syncs} fsyncs: fewer than {SYNCS_KEPT} are known");
        self.reached[syncs]
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.settled + self.unsynced.len() as u64)
    }

    /// Makes the changes before `mark` durable.
    pub(super) fn sync(&mut self, mark: Mark) {
        let before = self.unsynced_before(mark);
        let ends = self.unsynced[..before].iter().filter_map(|change| match change {
            Change::Write { offset, bytes } => Some(offset + bytes.len() as u64),
            _ => None,
        });
        if let Some(end) = ends.max() {
            self.reached.rotate_right(1);
            self.reached[0] = end;
        }
        // The usual case, in which the new bytes need not be stored twice.
        let all = before == self.unsynced.len() && !self.diverged;
        for change in &self.unsynced[..before] {
            match change {
                Change::Write { offset, bytes } if all => {
                    self.durable.share(*offset, bytes.len() as u64, &self.live);
                }
                change => change.apply(&mut self.durable),
            }
        }
        self.forget(before);
    }

    /// What Linux does when writing back fails: readers go on seeing the data, and no later fsync tries
    /// to write it again, nor fails.
    pub(super) fn fail_sync(&mut self, mark: Mark) {
        let before = self.unsynced_before(mark);
        self.diverged |= before > 0;
        self.forget(before);
    }

    /// The power is back: what is on the platter is all there is.
    pub(super) fn settle(&mut self, how: Survive, rng: &mut ChaCha12Rng) -> Losses {
        let was_clean = self.unsynced.is_empty() && !self.diverged;
        let mut losses = Losses::default();
        match how {
            Survive::Nothing => losses.count_all(&self.unsynced),
            Survive::Everything => self.sync(self.mark()),
            Survive::Random => losses = self.settle_randomly(rng),
        }
        self.forget(self.unsynced.len());
        if !was_clean {
            self.live = self.durable.clone();
        }
        self.diverged = false;
        losses
    }

    /// Independent coins alone would hardly ever lose or keep all of a long list, and never stop in the
    /// order of writing; and those are what disks mostly do. So each file draws its kind of fate first.
    fn settle_randomly(&mut self, rng: &mut ChaCha12Rng) -> Losses {
        let FileData { unsynced, durable, .. } = self;
        let mut losses = Losses::default();
        if unsynced.is_empty() {
            return losses;
        }
        match below(rng, 8) {
            0 => losses.count_all(unsynced),
            1 => unsynced.iter().for_each(|c| c.apply(durable)),
            2..=4 => {
                let torn = below(rng, unsynced.len() as u64) as usize;
                unsynced[..torn].iter().for_each(|c| c.apply(durable));
                let kept = unsynced[torn].apply_torn(durable, rng);
                losses.count(&unsynced[torn], kept);
                losses.count_all(&unsynced[torn + 1..]);
            }
            _ => {
                for change in unsynced.iter() {
                    match below(rng, 4) {
                        0 => losses.count(change, 0),
                        1 => change.apply(durable),
                        _ => {
                            let kept = change.apply_torn(durable, rng);
                            losses.count(change, kept);
                        }
                    }
                }
            }
        }
        losses
    }

    /// Whether byte `byte` is on the platter and nothing is to change it.
    pub(super) fn is_synced(&self, byte: u64) -> bool {
        let changes = |change: &Change| match change {
            Change::Write { offset, bytes } => (*offset..offset + bytes.len() as u64).contains(&byte),
            Change::SetLen(len) => *len <= byte,
            Change::Grow(_) => false,
        };
        byte < self.durable.len() && !self.unsynced.iter().any(changes)
    }

    /// Damage on the platter, seen at once by readers too. Whether there is such a byte.
    pub(super) fn flip(&mut self, byte: u64, bit: u8) -> bool {
        self.diverged |= !self.is_synced(byte);
        self.live.flip(byte, bit);
        self.durable.flip(byte, bit);
        byte < self.live.len().max(self.durable.len())
    }

    pub(super) fn flip_on_next_read(&mut self, byte: u64, bit: u8) {
        self.misreads.push((byte, bit));
    }

    /// Damage on the platter: the end of the file is lost, and with it what was not synced.
    pub(super) fn cut(&mut self, len: u64) {
        self.diverged |= !self.unsynced.is_empty();
        self.forget(self.unsynced.len());
        self.live.set_len(len.min(self.live.len()));
        self.durable.set_len(len.min(self.durable.len()));
    }

    fn unsynced_before(&self, mark: Mark) -> usize {
        // Another fsync may have come first.
        (mark.0.saturating_sub(self.settled) as usize).min(self.unsynced.len())
    }

    fn forget(&mut self, first: usize) {
        self.unsynced.drain(..first);
        self.settled += first as u64;
    }
}

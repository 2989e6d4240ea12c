//! The power, what a cut leaves, and damage behind the back of the code that uses the disk.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::Survive;
use super::super::content::FileData;
use super::super::faults::{FaultCounters, Flip, Ordered};
use super::super::pace::Work;
use super::{Life, Step, Turn, World, power_is_off, process_is_dead};
use crate::random::below_with as below;

impl World {
    pub(in crate::disk::sim) fn ops(&self) -> u64 {
        self.ops
    }

    pub(in crate::disk::sim) fn is_powered(&self) -> bool {
        self.powered
    }

    pub(in crate::disk::sim) fn crash_at_op(&mut self, n: u64) {
        self.crash_at_op = Some(n);
    }

    pub(in crate::disk::sim) fn power_cut(&mut self) {
        if std::mem::replace(&mut self.powered, false) {
            self.step(Step::PowerCut, [self.ops]);
            self.counters.power_cuts += 1;
            self.counters.fsyncs_half_done += std::mem::take(&mut self.syncing);
            self.line.release();
        }
    }

    pub(in crate::disk::sim) fn restart(&mut self, how: Survive) {
        self.power_cut();
        self.step(Step::Restart, [how as u64]);
        self.counters.names_reverted += self.names.settle(how, &mut self.rng);
        for file in self.files.values_mut() {
            let losses = file.settle(how, &mut self.rng);
            self.counters.writes_lost += losses.lost;
            self.counters.writes_torn += losses.torn;
        }
        self.powered = true;
        self.crash_at_op = None;
        self.ordered = Ordered::default();
        self.kill_process();
    }

    pub(in crate::disk::sim) fn forget_ordered(&mut self) {
        self.ordered = Ordered::default();
        self.crash_at_op = None;
    }

    pub(in crate::disk::sim) fn thaw(&mut self) {
        self.powered = true;
        self.crash_at_op = None;
        self.kill_process();
    }

    pub(in crate::disk::sim) fn kill_process(&mut self) {
        self.step(Step::Kill, []);
        self.epoch += 1;
        self.handles.clear();
        self.locks.clear();
        self.forget_unreachable();
        self.line.release();
    }

    /// What an operation of this kind that begins now has to go through.
    pub(in crate::disk::sim) fn turn(&mut self, work: Work) -> Turn {
        let mut takes = None;
        if self.powered {
            let slow;
            (takes, slow) = self.pace.draw(work);
            self.counters.ops_slow += u64::from(slow);
        }
        Turn { takes, life: Life { power_cuts: self.counters.power_cuts, epoch: self.epoch } }
    }

    /// # Errors
    ///
    /// When what began in `life` can't go on, for the power went or its process was killed.
    pub(in crate::disk::sim) fn check_life(&self, life: Life) -> io::Result<()> {
        if life.power_cuts != self.counters.power_cuts {
            return power_is_off();
        }
        if life.epoch != self.epoch { process_is_dead() } else { Ok(()) }
    }

    pub(in crate::disk::sim) fn count_stuck(&mut self) {
        self.counters.ops_stuck += 1;
    }

    pub(in crate::disk::sim) fn counters(&self) -> FaultCounters {
        self.counters
    }

    pub(in crate::disk::sim) fn digest(&self) -> u64 {
        self.digest.value()
    }

    pub(in crate::disk::sim) fn fail_nth_fsync(&mut self, n: u64) {
        self.ordered.failing_fsyncs.insert(self.ordered.fsyncs + n);
    }

    pub(in crate::disk::sim) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    // What tests see and do, powered or not.

    pub(in crate::disk::sim) fn named(&mut self, path: &Path) -> Option<&mut FileData> {
        let ino = self.names.resolve(path).ok()?;
        self.files.get_mut(&ino)
    }

    pub(in crate::disk::sim) fn durable(&self, path: &Path) -> Option<Vec<u8>> {
        let content = self.files.get(&self.names.resolve_durable(path)?)?.durable();
        Some(content.read(0, usize::MAX))
    }

    /// # Panics
    ///
    /// When there is no such file.
    pub(in crate::disk::sim) fn flip(&mut self, path: &Path, byte: u64, bit: u8) {
        let Some(file) = self.named(path) else {
            panic!("no file {} on the simulated disk", path.display());
        };
        if file.flip(byte, bit) {
            self.counters.bits_flipped += 1;
            self.step_at(Step::Flip, path, [byte, bit.into()]);
        }
    }

    /// Flips a bit of a byte that is synced: of any file, but only in its range.
    pub(in crate::disk::sim) fn flip_any(&mut self, mut ranges: Vec<(PathBuf, Range<u64>)>) -> Option<Flip> {
        /// Most bytes of most files are synced.
        const TRIES: u32 = 64;

        ranges.retain(|(_, range)| !range.is_empty());
        if ranges.is_empty() {
            return None;
        }
        for _ in 0..TRIES {
            let (path, range) = &ranges[below(&mut self.rng, ranges.len() as u64) as usize];
            let byte = range.start + below(&mut self.rng, range.end - range.start);
            let bit = below(&mut self.rng, 8) as u8;
            if self.named(path).is_some_and(|file| file.is_synced(byte)) {
                self.flip(path, byte, bit);
                return Some(Flip { path: path.clone(), byte, bit });
            }
        }
        None
    }

    /// The files that readers see and whose names are durable, sorted, with their durable lengths.
    pub(in crate::disk::sim) fn durable_files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = self.names.files();
        files.retain(|(path, ino)| self.names.resolve_durable(path) == Some(*ino));
        files.into_iter().map(|(path, ino)| (path, self.files[&ino].durable().len())).collect()
    }

    /// Makes or replaces a file and the directories above it, and syncs all names there are.
    pub(in crate::disk::sim) fn put_durably(&mut self, path: &Path, bytes: &[u8]) {
        let above: Vec<&Path> = path.ancestors().skip(1).collect();
        for dir in above.iter().rev() {
            if let (Err(_), Ok(place)) = (self.names.resolve(dir), self.names.place(dir)) {
                self.names.create_dir(place);
            }
        }
        let ino = match self.names.resolve(path) {
            Ok(ino) => ino,
            Err(_) => {
                let place = self.names.place(path).expect("its directory was just made");
                self.names.create_file(place)
            }
        };
        self.names.sync_all();
        self.files.insert(ino, FileData::holding(bytes));
    }

    pub(in crate::disk::sim) fn files(&self) -> Vec<PathBuf> {
        self.names.files().into_iter().map(|(p, _)| p).collect()
    }
}

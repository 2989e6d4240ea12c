//! What is asked of a shard: rates over about the last minute, the partition keys that ask for most, and whether a split
//! would divide it. Kept by the shard's leader beside its throttle, and forgotten with its term.
//!
//! Invariant: bounded, whatever is written: [`KEYS`] keys, [`BINS`] bins, [`SLOTS`] slots; and a pure function of what
//! was reported when, so that a simulated run repeats. What a key is said to have asked for is never too little, and too
//! much by at most its `error`.
//!
//! Demand is counted in millionths of what the shard's write limits allow in a second, by bytes or by records, whichever
//! is more; refused records count as well: they are what a split is to make room for.
//!
//! Not here: admission (`throttle.rs`), and the clock.

use std::time::Duration;

use crate::hash::{HashKey, HashRange};
use crate::limits::Limits;

/// Keys that are watched: whatever asks for more than a thirty-second part of the demand is certainly among them.
pub const KEYS: usize = 32;

/// Equal parts of the shard's hash range of which the demand is known.
pub const BINS: usize = 64;

/// Rates are sums over so many slots of five seconds.
pub const SLOTS: usize = 12;
const SLOT: Duration = Duration::from_secs(5);

/// After so long, what keys and bins have asked for counts half: what was hot an hour ago is not hot.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// A key is shown to people: its beginning is enough to know it by.
pub const KEY_BYTES: usize = 64;

/// Below this part of the limits, in percent, a shard is far from them.
const NEAR_PERCENT: f64 = 50.0;

/// A split that leaves one child more than this part of the demand, in percent, does not divide it.
const UNEVEN_PERCENT: f64 = 75.0;

/// Demand below which nothing is said: what a shard may be asked in a tenth of a second.
const LITTLE: u64 = 100_000;

/// One shard's.
#[derive(Clone, Debug)]
pub struct ShardLoad {
    range: HashRange,
    since: Duration,
    slots: [Slot; SLOTS],
    /// The number of the newest slot.
    slot: u64,
    keys: Vec<Key>,
    bins: [u64; BINS],
    /// How often keys and bins were halved.
    halved: u64,
    age_ms: u64,
}

/// Sums of five seconds.
#[derive(Copy, Clone, Default, Debug)]
struct Slot {
    records_in: u64,
    bytes_in: u64,
    refused: u64,
    demand: u64,
    records_out: u64,
    bytes_out: u64,
    reads_refused: u64,
}

#[derive(Clone, Debug)]
struct Key {
    hash: HashKey,
    text: String,
    demand: u64,
    /// At most so much of `demand` was another key's.
    error: u64,
}

/// Per second, over `window`.
#[derive(Copy, Clone, Default, PartialEq, Debug)]
pub struct Rates {
    pub window: Duration,
    pub records_in: f64,
    pub bytes_in: f64,
    /// Records that a limit refused.
    pub refused: f64,
    pub records_out: f64,
    pub bytes_out: f64,
    /// Reads that a limit refused.
    pub reads_refused: f64,
    /// What was asked of the write limits, in percent of what they allow.
    pub write_percent: f64,
    /// How far behind the tip the last read was.
    pub age_ms: u64,
}

/// A key that much is written with.
#[derive(Clone, PartialEq, Debug)]
pub struct HotKey {
    pub hash: HashKey,
    /// The partition key's first [`KEY_BYTES`] bytes.
    pub text: String,
    /// Of the shard's demand.
    pub percent: f64,
    /// So much of `percent` may be others'.
    pub error_percent: f64,
}

/// Whether a split would help.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Advice {
    /// Too little was asked for to tell.
    Unknown,
    /// The shard was far from its limits all the minute: in its busiest five seconds it was asked for so much of them.
    NotNeeded { peak_percent: f64 },
    /// The upper child begins at `at`; the busier one has `larger_percent` of the demand.
    Split { at: HashKey, larger_percent: f64 },
    /// One hash key has `percent` of the demand: no split divides it.
    OneKey { hash: HashKey, percent: f64 },
}

impl ShardLoad {
    pub fn new(range: HashRange, now: Duration) -> ShardLoad {
        ShardLoad {
            range,
            since: now,
            slots: [Slot::default(); SLOTS],
            slot: slot_of(now),
            keys: Vec::new(),
            bins: [0; BINS],
            halved: halvings(now),
            age_ms: 0,
        }
    }

    /// A record of `bytes` (data and key) was admitted or refused. The cost is two passes over the keys.
    pub fn write(&mut self, now: Duration, limits: &Limits, hash: HashKey, text: &str, bytes: u64, admitted: bool) {
        let demand = demand(limits, bytes);
        let slot = self.slot_at(now);
        slot.demand += demand;
        match admitted {
            true => (slot.records_in, slot.bytes_in) = (slot.records_in + 1, slot.bytes_in + bytes),
            false => slot.refused += 1,
        }
        self.halve(now);
        self.bins[self.bin_of(hash)] += demand;
        self.see(hash, text, demand);
    }

    /// An admitted read gave so much, and its reader was then so far behind.
    pub fn read(&mut self, now: Duration, records: u64, bytes: u64, age_ms: u64) {
        let slot = self.slot_at(now);
        (slot.records_out, slot.bytes_out) = (slot.records_out + records, slot.bytes_out + bytes);
        self.age_ms = age_ms;
    }

    pub fn read_refused(&mut self, now: Duration) {
        self.slot_at(now).reads_refused += 1;
    }

    pub fn rates(&mut self, now: Duration) -> Rates {
        self.slot_at(now);
        // The newest slot has only begun.
        let kept = SLOT * (SLOTS as u32 - 1) + Duration::from_nanos((now.as_nanos() % SLOT.as_nanos()) as u64);
        let window = kept.min(now.saturating_sub(self.since)).max(Duration::from_secs(1));
        let per_s = |of: fn(&Slot) -> u64| self.slots.iter().map(of).sum::<u64>() as f64 / window.as_secs_f64();
        Rates {
            window,
            records_in: per_s(|it| it.records_in),
            bytes_in: per_s(|it| it.bytes_in),
            refused: per_s(|it| it.refused),
            records_out: per_s(|it| it.records_out),
            bytes_out: per_s(|it| it.bytes_out),
            reads_refused: per_s(|it| it.reads_refused),
            write_percent: per_s(|it| it.demand) / 10_000.0,
            age_ms: self.age_ms,
        }
    }

    /// What was asked of the write limits in the busiest five seconds of the last minute, in percent.
    pub fn peak_percent(&mut self, now: Duration) -> f64 {
        self.slot_at(now);
        let most = self.slots.iter().map(|it| it.demand).max().unwrap_or(0);
        most as f64 / (10_000.0 * SLOT.as_secs_f64())
    }

    /// At most `most`, the hottest first; keys of which it is not certain that they asked for anything are left out.
    pub fn hottest(&mut self, now: Duration, most: usize) -> Vec<HotKey> {
        self.halve(now);
        let total = self.total().max(1) as f64;
        let mut keys: Vec<&Key> = self.keys.iter().filter(|it| it.demand > it.error).collect();
        keys.sort_by_key(|it| (std::cmp::Reverse(it.demand - it.error), it.hash));
        let percent = |demand: u64| demand as f64 * 100.0 / total;
        let hot = |it: &&Key| HotKey {
            hash: it.hash,
            text: it.text.clone(),
            percent: percent(it.demand),
            error_percent: percent(it.error),
        };
        keys.iter().take(most).map(hot).collect()
    }

    /// Whether a split would help, and where.
    pub fn advice(&mut self, now: Duration) -> Advice {
        let peak_percent = self.peak_percent(now);
        match self.best_split(now) {
            _ if self.total() < LITTLE => Advice::Unknown,
            _ if peak_percent < NEAR_PERCENT => Advice::NotNeeded { peak_percent },
            Some((at, larger_percent)) if larger_percent <= UNEVEN_PERCENT => Advice::Split { at, larger_percent },
            _ => match self.hottest(now, 1).pop() {
                Some(HotKey { hash, percent, .. }) => Advice::OneKey { hash, percent },
                None => Advice::Unknown,
            },
        }
    }

    /// Where a split divides the demand best, and what the busier child would have of it, in percent. Between bins, and
    /// right before and after each hot key; a bin counts as even but for its hot keys. `None` if nothing was asked for,
    /// or the shard has one key.
    pub fn best_split(&mut self, now: Duration) -> Option<(HashKey, f64)> {
        self.halve(now);
        let total = self.total();
        let starts = (1..BINS).map(|bin| self.bin_start(bin));
        let hot = self.keys.iter().flat_map(|it| [Some(it.hash), it.hash.0.checked_add(1).map(HashKey)]);
        let mut cuts: Vec<HashKey> = starts.chain(hot.flatten()).collect();
        cuts.retain(|at| self.range.contains(*at) && *at > self.range.start());
        cuts.sort_unstable();
        let larger = |at: HashKey| {
            let below = self.demand_below(at);
            below.max(total.saturating_sub(below))
        };
        let best = cuts.into_iter().map(|at| (larger(at), at)).min()?;
        (total > 0).then(|| (best.1, best.0 as f64 * 100.0 / total as f64))
    }

    fn total(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// What keys below `at` asked for, as far as is known.
    fn demand_below(&self, at: HashKey) -> u64 {
        let bin = self.bin_of(at);
        let whole: u64 = self.bins[..bin].iter().sum();
        let (start, end) = (self.bin_start(bin), self.bin_start(bin + 1));
        let (mut rest, mut below) = (self.bins[bin], 0);
        for key in self.keys.iter().filter(|it| self.bin_of(it.hash) == bin) {
            let certain = (key.demand - key.error).min(rest);
            rest -= certain;
            below += if key.hash < at { certain } else { 0 };
        }
        // What is left of the bin, evenly.
        let (part, width) = ((at.0 - start.0) >> 64, (end.0.saturating_sub(start.0)) >> 64);
        let even = (u128::from(rest) * part).checked_div(width).map_or(0, |even| even as u64);
        whole + below + even
    }

    fn bin_of(&self, hash: HashKey) -> usize {
        let offset = hash.0.saturating_sub(self.range.start().0);
        ((offset / self.bin_width()) as usize).min(BINS - 1)
    }

    fn bin_start(&self, bin: usize) -> HashKey {
        match bin {
            BINS.. => self.range.end(),
            _ => HashKey(self.range.start().0.saturating_add(self.bin_width().saturating_mul(bin as u128))),
        }
    }

    fn bin_width(&self) -> u128 {
        ((self.range.end().0 - self.range.start().0) / BINS as u128).max(1)
    }

    /// Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data
    /// Streams", 2005): a key that is not watched takes the place of the one with the least demand, and that demand.
    fn see(&mut self, hash: HashKey, text: &str, demand: u64) {
        if let Some(known) = self.keys.iter_mut().find(|it| it.hash == hash) {
            known.demand += demand;
            return;
        }
        if self.keys.len() < KEYS {
            let text = beginning(text).to_owned();
            self.keys.push(Key { hash, text, demand, error: 0 });
            return;
        }
        let least = self.keys.iter_mut().min_by_key(|it| it.demand).expect("all places are taken");
        least.text.clear();
        least.text.push_str(beginning(text));
        (least.hash, least.error) = (hash, least.demand);
        least.demand += demand;
    }

    fn halve(&mut self, now: Duration) {
        let times = halvings(now).saturating_sub(self.halved).min(63) as u32;
        if times == 0 {
            return;
        }
        self.halved = halvings(now);
        self.bins.iter_mut().for_each(|it| *it >>= times);
        // An error is rounded up: it is what may be wrong.
        self.keys.iter_mut().for_each(|it| (it.demand, it.error) = (it.demand >> times, it.error.div_ceil(1 << times)));
        self.keys.iter_mut().for_each(|it| it.error = it.error.min(it.demand));
        self.keys.retain(|it| it.demand > 0);
    }

    /// The slot of `now`, those that are over a minute old emptied. Time that seems to go back counts as the newest.
    fn slot_at(&mut self, now: Duration) -> &mut Slot {
        let newest = slot_of(now).max(self.slot);
        let passed = (newest - self.slot).min(SLOTS as u64);
        for nth in 0..passed {
            self.slots[((newest - nth) % SLOTS as u64) as usize] = Slot::default();
        }
        self.slot = newest;
        &mut self.slots[(newest % SLOTS as u64) as usize]
    }
}

fn slot_of(now: Duration) -> u64 {
    now.as_secs() / SLOT.as_secs()
}

fn halvings(now: Duration) -> u64 {
    now.as_secs() / HALF_LIFE.as_secs()
}

/// What a record asks for, in millionths of what the limits allow in a second.
fn demand(limits: &Limits, bytes: u64) -> u64 {
    let by_bytes = bytes.saturating_mul(1_000_000) / limits.write_bytes_per_s;
    by_bytes.max(1_000_000 / limits.write_records_per_s).max(1)
}

/// At most [`KEY_BYTES`] of it, whole characters.
fn beginning(text: &str) -> &str {
    let end = (0..=text.len().min(KEY_BYTES)).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

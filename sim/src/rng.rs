//! The simulator's random numbers: one generator per purpose, each from a seed of its own.
//!
//! Invariant: the numbers are a function of the seed and of the calls, on every platform.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// A generator.
    pub fn new(seed: u64) -> Rng {
        Rng(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A generator for one purpose, which leaves the others' numbers alone whatever it draws.
    pub fn of(seed: u64, purpose: &str) -> Rng {
        let mixed = purpose.bytes().fold(seed ^ 0x51_7c_c1_b7_27_22_0a_95, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(27)
        });
        Rng::new(mixed)
    }

    /// Any number.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// One of `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// One of a range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// A duration between two.
    pub fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        Duration::from_nanos(self.within(least.as_nanos() as u64..=most.max(least).as_nanos() as u64))
    }

    /// One of some; `None` when there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { Some(&of[self.below(of.len() as u64) as usize]) }
    }

    /// A number that is small most of the time and large now and then: log-uniform.
    pub fn skewed(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (least, most) = (*range.start().max(&1), *range.end());
        let bits = self.within(u64::from(least.ilog2())..=u64::from(most.ilog2()));
        self.within(1 << bits..=(2u64 << bits) - 1).clamp(*range.start(), most)
    }
}

//! Random choices of one client, from its own seed: leaving another client out changes nothing here.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A seeded generator with the few distributions that a workload needs.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha12Rng);

impl Dice {
    pub fn of(seed: u64) -> Dice {
        Dice(ChaCha12Rng::seed_from_u64(seed))
    }

    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn u128(&mut self) -> u128 {
        u128::from(self.u64()) << 64 | u128::from(self.u64())
    }

    /// A number in `from..=to`, each as likely as the others, to within one in 2^64.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        assert!(from <= to, "{from} to {to} is empty");
        let wide = u128::from(self.u64()) * (u128::from(to - from) + 1);
        from + (wide >> 64) as u64
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.between(0, n as u64 - 1) as usize
    }

    pub fn percent(&mut self, chance: u32) -> bool {
        self.between(0, 99) < u64::from(chance)
    }

    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    pub fn pick_mut<'a, T>(&mut self, choices: &'a mut [T]) -> &'a mut T {
        let nth = self.below(choices.len());
        &mut choices[nth]
    }

    /// A duration around `mean_us`, often shorter and sometimes several times as long, in microseconds.
    pub fn about(&mut self, mean_us: u64) -> u64 {
        // The sum of two uniform ones is enough of a bell, without floats.
        self.between(0, mean_us) + self.between(0, mean_us)
    }
}

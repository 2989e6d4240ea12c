//! One number for everything that was asked of a disk, in order.
//!
//! Invariant: each step is a bijection of the number so far, so one difference alone never cancels out.
//! It is the same on every platform. It is no checksum to protect data with.

/// Odd, so that multiplying by it loses nothing.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD: usize = 8;
/// Lanes of their own, or each word would wait for the multiplication of the one before.
const LANES: usize = 4;

#[derive(Copy, Clone, Default)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn value(self) -> u64 {
        self.0
    }

    pub(super) fn number(&mut self, n: u64) {
        self.0 = step(self.0, n);
    }

    pub(super) fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.into_iter().for_each(|n| self.number(n));
    }

    /// Folds in the length too: "ab", "c" is not "a", "bc".
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let mut lanes = [self.0; LANES];
        let mut blocks = bytes.chunks_exact(LANES * WORD);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(WORD)) {
                *lane = step(*lane, word_of(word));
            }
        }
        let rest = blocks.remainder();
        if bytes.len() > rest.len() {
            self.numbers(lanes);
        }
        rest.chunks(WORD).for_each(|word| self.number(word_of(word)));
        self.number(bytes.len() as u64);
    }
}

fn step(so_far: u64, n: u64) -> u64 {
    let mixed = (so_far ^ n).wrapping_mul(FACTOR);
    mixed ^ (mixed >> 32)
}

/// Up to eight bytes as a number.
fn word_of(bytes: &[u8]) -> u64 {
    match bytes.try_into() {
        Ok(whole) => u64::from_le_bytes(whole),
        Err(_) => bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)),
    }
}

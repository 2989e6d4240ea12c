//! Random numbers.
//!
//! Invariant: with a seed in place ([`crate::seam::Seams::with_seed`]) the numbers are a function of the
//! seed and of the order of the calls, on every platform and in every later version.
//!
//! In production each thread has its own ChaCha12 generator, seeded by the operating system. That is good
//! enough for keys and salts. It does not offer distributions, shuffles or a generator to pass around.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::seam;

thread_local! {
    static OF_THIS_THREAD: RefCell<ChaCha12Rng> = RefCell::new(ChaCha12Rng::from_os_rng());
}

/// Fills `buf` with random bytes.
///
/// # Panics
///
/// When the operating system has no randomness to seed a thread's generator with.
pub fn fill(buf: &mut [u8]) {
    with(|rng| rng.fill_bytes(buf))
}

/// A number, each equally likely.
pub fn u64() -> u64 {
    with(|rng| rng.next_u64())
}

/// A number in `0..n`, each equally likely.
///
/// # Panics
///
/// When `n` is 0.
pub fn below(n: u64) -> u64 {
    with(|rng| below_with(rng, n))
}

fn with<R>(f: impl FnOnce(&mut ChaCha12Rng) -> R) -> R {
    match seam::random() {
        None => OF_THIS_THREAD.with_borrow_mut(f),
        Some(seeded) => f(&mut seeded.0.lock().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// Multiply-and-shift with rejection, so that no number is favoured (Lemire 2019).
pub(crate) fn below_with(rng: &mut ChaCha12Rng, n: u64) -> u64 {
    assert!(n > 0, "no number is below 0");
    let unfair = n.wrapping_neg() % n;
    loop {
        let wide = u128::from(rng.next_u64()) * u128::from(n);
        if wide as u64 >= unfair {
            return (wide >> 64) as u64;
        }
    }
}

/// A seeded generator, shared by the clones of the seams it was put in.
#[derive(Clone)]
pub(crate) struct Seeded(Arc<Mutex<ChaCha12Rng>>);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Seeded {
        Seeded(Arc::new(Mutex::new(ChaCha12Rng::seed_from_u64(seed))))
    }
}

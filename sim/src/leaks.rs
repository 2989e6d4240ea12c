//! What code under test asks the operating system for behind `env`'s back, on a simulation's thread.
//!
//! The simulator's binary takes the place of the two functions of the C library concerned, and asks here.

use std::cell::{Cell, RefCell};

use crate::executor;
use crate::rng::Rng;
use crate::world::EPOCH_MS;

thread_local! {
    static RANDOM: RefCell<Option<Rng>> = const { RefCell::new(None) };
    static COUNTS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// From now on this thread runs the simulation of `seed`.
pub fn begin(seed: u64) {
    RANDOM.set(Some(Rng::of(seed, "leaks")));
    COUNTS.set((0, 0));
}

/// How often this thread asked for randomness and for the time since then.
pub fn counts() -> (u64, u64) {
    COUNTS.get()
}

/// Fills a buffer if this thread runs a simulation; says whether it does.
pub fn random<'a>(buffer: impl FnOnce() -> &'a mut [u8]) -> bool {
    RANDOM
        .try_with(|random| {
            let Ok(mut random) = random.try_borrow_mut() else { return false };
            let Some(rng) = &mut *random else { return false };
            for chunk in buffer().chunks_mut(8) {
                chunk.copy_from_slice(&rng.u64().to_le_bytes()[..chunk.len()]);
            }
            COUNTS.set((COUNTS.get().0 + 1, COUNTS.get().1));
            true
        })
        .unwrap_or(false)
}

/// Virtual time in nanoseconds, if this thread runs a simulation.
pub fn clock(wall: bool) -> Option<u64> {
    let simulates = RANDOM.try_with(|random| random.try_borrow().is_ok_and(|r| r.is_some())).unwrap_or(false);
    if !simulates {
        return None;
    }
    COUNTS.set((COUNTS.get().0, COUNTS.get().1 + 1));
    let base = if wall { EPOCH_MS * 1_000_000 } else { 1_000_000_000_000 };
    Some(base + executor::current().0)
}

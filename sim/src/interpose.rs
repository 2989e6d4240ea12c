//! The operating system's randomness and clocks, as a simulation's thread finds them.
//!
//! Third-party code asks the operating system behind `env`'s back: hash maps for their keys, log lines for
//! the time. In this binary it gets a simulation's own: the same for the same seed. Every such call is
//! counted, so that a new leak shows.
//!
//! Invariant: a thread that runs no simulation gets the real thing. So does the memory allocator everywhere: by it
//! nothing is decided that a simulation sees.

use std::ffi::{c_int, c_uint, c_void};

use braid_sim::leaks;

/// As in the C library, whose symbol this takes the place of.
///
/// # Safety
/// `buffer` points to `length` bytes that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    // SAFETY: the caller's promise.
    match leaks::random(|| unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) }) {
        true => length as isize,
        // SAFETY: the caller's promise, handed on.
        false => unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) as isize },
    }
}

/// As in the C library, whose symbol this takes the place of.
///
/// # Safety
/// `time` points to a timespec that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    let simulated = match clock {
        // The allocator alone asks for this one, for when to give memory back.
        libc::CLOCK_MONOTONIC_COARSE => None,
        clock => leaks::clock(clock == libc::CLOCK_REALTIME),
    };
    match simulated {
        Some(nanos) => {
            let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            // SAFETY: the caller's promise.
            unsafe { *time = libc::timespec { tv_sec: seconds as _, tv_nsec: rest as _ } };
            0
        }
        // SAFETY: the caller's promise, handed on.
        None => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int },
    }
}

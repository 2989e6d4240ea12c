//! The four seams between Braid and the world: tasks and time, randomness, network, disk.
//!
//! Everything that makes a run unrepeatable enters the program here and nowhere else: no other crate
//! names a clock, a socket, a file, a thread or a random number generator. That one rule is what lets a
//! simulator replay a failure from a number.
//!
//! # How a seam is replaced
//!
//! The seams are free functions, so the code that calls them carries no generics and no `cfg`. Each call
//! looks at one thread-local, [`seam::Seams`]. In production it is empty and the call goes straight to
//! tokio or the operating system. A test puts something there:
//!
//! ```text
//!    disk::File::open ──▶ thread-local Seams ──┬─ empty ───────▶ I/O threads ─▶ the OS
//!                                              └─ a SimDisk ───▶ memory
//! ```
//!
//! * [`seam::Seams::enter`] replaces seams on this thread until its guard is dropped. Enough for a test
//!   with one world on a current-thread runtime.
//! * [`seam::Seams::within`] wraps a future so that they are replaced whenever *it* runs. Several nodes,
//!   each with its own disk, clock error and random numbers, can then share one thread.
//! * [`task::spawn`] hands the spawner's seams on to the new task, so a whole node stays in its world.
//!
//! What is opened in a world stays in it: a [`disk::File`] keeps the backend it was opened with.
//!
//! Monotonic time is tokio's, so a runtime started with a paused clock gives simulated time without any
//! seam at all; [`time::WallClock`] replaces only the wall clock, which is what may jump.
//!
//! # What is deliberately absent
//!
//! * No trait per seam: two implementations of the disk exist today and an enum tells them apart. A
//!   simulated network will be one more variant inside [`net`].
//! * No `spawn_blocking` and no thread API: blocking work exists only in `disk`, on its own few threads.
//! * No memory mapping and no direct I/O: the page cache is the read cache, and mapped I/O errors arrive
//!   as signals.
//! * No retry of a failed write or fsync. After a failed fsync nobody knows what is on the disk; the
//!   caller has to stop.
//! * No metrics or logging; [`disk::counters`] is there for whoever exports them.

// This crate is where clocks, files, sockets, threads and randomness come from.
#![allow(clippy::disallowed_methods)]

pub mod disk;
pub mod host;
pub mod net;
pub mod random;
pub mod seam;
pub mod task;
pub mod time;
pub mod watch;

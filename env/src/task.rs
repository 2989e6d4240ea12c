//! Tasks: the only place that spawns.
//!
//! Invariant: a task runs in the seams of the task that spawned it.
//!
//! It has no blocking tasks and no threads; work that blocks is disk work, and `disk` owns its threads.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::seam::Seams;

/// Starts `future` on the current tokio runtime. Dropping the handle lets the task run on.
///
/// # Panics
///
/// Outside of a tokio runtime.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let seams = Seams::current();
    if seams.is_real() { JoinHandle(tokio::spawn(future)) } else { JoinHandle(tokio::spawn(seams.within(future))) }
}

/// A spawned task; a future of what it returns.
#[derive(Debug)]
pub struct JoinHandle<T>(tokio::task::JoinHandle<T>);

impl<T> JoinHandle<T> {
    /// Cancels the task at its next await. Does nothing when it is over already.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task is over, however it ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|r| r.map_err(JoinError))
    }
}

/// The task panicked or was aborted.
#[derive(Debug)]
pub struct JoinError(tokio::task::JoinError);

impl JoinError {
    /// True when the task panicked, false when it was aborted.
    pub fn is_panic(&self) -> bool {
        self.0.is_panic()
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for JoinError {}

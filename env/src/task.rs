//! Tasks: the only place that spawns.
//!
//! Invariant: a task runs in the seams of the task that spawned it.
//!
//! It has no blocking tasks and no threads; work that blocks is disk work, and `disk` owns its threads.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::host::Host;
use crate::seam::Seams;

/// Starts `future` on the current tokio runtime, or on the simulated host there is instead. Dropping the
/// handle lets the task run on.
///
/// # Panics
///
/// Outside of both.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let seams = Seams::current();
    JoinHandle(if seams.is_real() {
        Handle::Tokio(tokio::spawn(future))
    } else if let Some(host) = seams.host().cloned() {
        let end = Arc::new(Mutex::new(End { outcome: None, over: false, waiting: None }));
        let job = Watched { future, end: end.clone(), host: host.clone() };
        let task = host.spawn(seams, Box::pin(job));
        Handle::Host { host, task, end }
    } else {
        Handle::Tokio(tokio::spawn(seams.within(future)))
    })
}

/// Lets the other tasks run that can.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A spawned task; a future of what it returns.
pub struct JoinHandle<T>(Handle<T>);

enum Handle<T> {
    Tokio(tokio::task::JoinHandle<T>),
    Host { host: Arc<dyn Host>, task: u64, end: Shared<T> },
}

impl<T> JoinHandle<T> {
    /// Cancels the task at its next await. Does nothing when it is over already.
    pub fn abort(&self) {
        match &self.0 {
            Handle::Tokio(handle) => handle.abort(),
            Handle::Host { host, task, .. } => host.abort(*task),
        }
    }

    /// Whether the task is over, however it ended.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Handle::Tokio(handle) => handle.is_finished(),
            Handle::Host { end, .. } => locked(end).over,
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Handle::Tokio(handle) => Pin::new(handle).poll(cx).map(|r| r.map_err(|e| JoinError(Died::Tokio(e)))),
            Handle::Host { end, .. } => {
                let mut end = locked(end);
                match end.outcome.take() {
                    Some(outcome) => Poll::Ready(outcome.map_err(JoinError)),
                    None => {
                        assert!(!end.over, "a task's handle is not polled again after its end");
                        end.waiting = Some(cx.waker().clone());
                        Poll::Pending
                    }
                }
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}

/// The task panicked or was aborted.
#[derive(Debug)]
pub struct JoinError(Died);

#[derive(Debug)]
enum Died {
    Tokio(tokio::task::JoinError),
    Panicked(String),
    Aborted,
}

impl JoinError {
    /// True when the task panicked, false when it was aborted.
    pub fn is_panic(&self) -> bool {
        match &self.0 {
            Died::Tokio(error) => error.is_panic(),
            Died::Panicked(_) => true,
            Died::Aborted => false,
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Died::Tokio(error) => error.fmt(f),
            Died::Panicked(why) => write!(f, "the task panicked: {why}"),
            Died::Aborted => f.write_str("the task was aborted"),
        }
    }
}

impl std::error::Error for JoinError {}

type Shared<T> = Arc<Mutex<End<T>>>;

/// How a task of a host ended.
struct End<T> {
    outcome: Option<Result<T, Died>>,
    over: bool,
    waiting: Option<Waker>,
}

fn locked<T>(end: &Shared<T>) -> MutexGuard<'_, End<T>> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host's task: tells its handle how it ended, also when it is dropped.
struct Watched<F: Future> {
    future: F,
    end: Shared<F::Output>,
    host: Arc<dyn Host>,
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is pinned whenever the whole is: it is never moved out, and `Drop` below does not
        // touch it. The other fields are not pinned.
        let (future, end, host) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &this.end, &this.host)
        };
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => {
                finish(end, Ok(output));
                Poll::Ready(())
            }
            Err(panic) => {
                let why = message(panic.as_ref());
                host.panicked(&why);
                finish(end, Err(Died::Panicked(why)));
                Poll::Ready(())
            }
        }
    }
}

impl<F: Future> Drop for Watched<F> {
    fn drop(&mut self) {
        finish(&self.end, Err(Died::Aborted));
    }
}

/// The first to say how the task ended is right.
fn finish<T>(end: &Shared<T>, outcome: Result<T, Died>) {
    let waiting = {
        let mut end = locked(end);
        if std::mem::replace(&mut end.over, true) {
            return;
        }
        end.outcome = Some(outcome);
        end.waiting.take()
    };
    if let Some(waiting) = waiting {
        waiting.wake();
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no message)".into())
}

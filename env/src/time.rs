//! Clocks and timers.
//!
//! Invariant: [`Instant`] never goes back, and sleeping and reading the clock agree: both are tokio's
//! clock, which a test may pause.
//!
//! The wall clock may jump and is only ever a number of milliseconds; there is no arithmetic between the
//! two clocks here. Group time (DESIGN §5) is made from both, elsewhere.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::seam;

/// Where the clock stands at process start. Not 0, so that "an hour ago" exists in a young process:
/// subtraction saturates at 0, and a deadline that saturated would look younger than it is.
const AT_START: Duration = Duration::from_secs(24 * 3600);

/// The longest sleep asked of tokio, about a century; longer ones are never noticed.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A point on this process's monotonic clock: the time since a day before the process first looked at it.
/// Means nothing to another process. Sums and differences saturate instead of failing.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(Duration);

impl Instant {
    /// The present.
    pub fn now() -> Instant {
        let (start, now) = (start(), tokio::time::Instant::now());
        let since = now.saturating_duration_since(start);
        let before = start.saturating_duration_since(now); // A paused clock may be behind.
        Instant((AT_START + since).saturating_sub(before))
    }

    /// How long ago this was; zero when it lies in the future.
    pub fn elapsed(&self) -> Duration {
        Instant::now() - *self
    }

    fn to_tokio(self) -> tokio::time::Instant {
        let start = start();
        match self.0.checked_sub(AT_START) {
            Some(since) => start + since.min(FAR),
            None => start.checked_sub(AT_START - self.0).unwrap_or(start),
        }
    }
}

/// By the real clock, even if a runtime with a paused and advanced one is the first to ask: else time
/// would stand still for every other runtime of the process until it caught up.
fn start() -> tokio::time::Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    (*START.get_or_init(std::time::Instant::now)).into()
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(d))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, d: Duration) -> Instant {
        Instant(self.0.saturating_sub(d))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, d: Duration) {
        *self = *self - d;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    /// Zero when `earlier` is the later one.
    fn sub(self, earlier: Instant) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Ready once `duration` is over. Granularity 1 ms.
///
/// # Panics
///
/// Outside of a tokio runtime with timers, like everything below.
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// Ready at `deadline`; at once when that is past.
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep(Box::pin(tokio::time::sleep_until(deadline.to_tokio())))
}

/// See [`sleep`]. `Unpin`, so that a loop can hold one and poll it by reference.
#[derive(Debug)]
pub struct Sleep(Pin<Box<tokio::time::Sleep>>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// `future`, or [`Elapsed`] when it is not ready within `duration`; it is dropped with the [`Timeout`].
#[track_caller]
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    timeout_at(Instant::now() + duration, future)
}

/// `future`, or [`Elapsed`] when it is not ready by `deadline`. A future that is ready wins over a
/// deadline that is past.
#[track_caller]
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout(tokio::time::timeout_at(deadline.to_tokio(), future))
}

/// See [`timeout`].
#[derive(Debug)]
pub struct Timeout<F>(tokio::time::Timeout<F>);

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the only field is pinned whenever the whole is: nothing here moves it out, there is no
        // `Drop`, and `Timeout` is `Unpin` only if the field is.
        let inner = unsafe { self.map_unchecked_mut(|t| &mut t.0) };
        inner.poll(cx).map(|r| r.map_err(|_| Elapsed(())))
    }
}

/// The time was over before the future was ready. Whether what it waited for has happened is unknown.
#[derive(Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out: the outcome is unknown")
    }
}

impl std::error::Error for Elapsed {}

/// Milliseconds since the Unix epoch, by a clock that may jump either way; 0 when it stands before 1970.
pub fn wall_ms() -> u64 {
    match seam::wall() {
        Some(wall) => wall.now_ms(),
        None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
    }
}

/// A wall clock for tests: it runs with the monotonic clock (so a paused runtime pauses it too), and can
/// be made to jump. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct WallClock {
    started: Instant,
    started_ms: u64,
    jumped_ms: Arc<AtomicI64>,
}

impl WallClock {
    /// A clock that shows `now_ms`, in milliseconds since the Unix epoch.
    pub fn starting_at(now_ms: u64) -> WallClock {
        WallClock { started: Instant::now(), started_ms: now_ms, jumped_ms: Arc::default() }
    }

    /// Moves the clock forward, or back when `by_ms` is negative.
    pub fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// What it shows, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        let ran_ms = self.started.elapsed().as_millis() as u64;
        self.started_ms.saturating_add(ran_ms).saturating_add_signed(self.jumped_ms.load(Ordering::Relaxed))
    }
}

//! Clocks and timers.
//!
//! Invariant: [`Instant`] never goes back, and sleeping and reading the clock agree: both are tokio's
//! clock, which a test may pause, or both a simulated host's.
//!
//! The wall clock may jump and is only ever a number of milliseconds; there is no arithmetic between the
//! two clocks here. Group time (DESIGN §5) is made from both, elsewhere.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::host::Host;
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
        if let Some(host) = seam::host() {
            return Instant(AT_START + host.now());
        }
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
    Sleep(match seam::host() {
        None => Timer::Tokio(Box::pin(tokio::time::sleep_until(deadline.to_tokio()))),
        Some(host) => Timer::Host(HostTimer::new(host, deadline)),
    })
}

/// See [`sleep`]. `Unpin`, so that a loop can hold one and poll it by reference.
#[derive(Debug)]
pub struct Sleep(Timer);

#[derive(Debug)]
enum Timer {
    Tokio(Pin<Box<tokio::time::Sleep>>),
    Host(HostTimer),
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Timer::Tokio(sleep) => sleep.as_mut().poll(cx),
            Timer::Host(timer) => timer.poll(cx),
        }
    }
}

/// A timer of a simulated host, set when it is first polled.
struct HostTimer {
    host: Arc<dyn Host>,
    at: Duration,
    set: Option<(u64, Waker)>,
}

impl HostTimer {
    fn new(host: Arc<dyn Host>, deadline: Instant) -> HostTimer {
        HostTimer { host, at: deadline.0.saturating_sub(AT_START), set: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.host.now() >= self.at {
            self.cancel();
            return Poll::Ready(());
        }
        if !self.set.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            self.cancel();
            self.set = Some((self.host.set_timer(self.at, cx.waker().clone()), cx.waker().clone()));
        }
        Poll::Pending
    }

    fn cancel(&mut self) {
        if let Some((timer, _)) = self.set.take() {
            self.host.cancel_timer(timer);
        }
    }
}

impl Drop for HostTimer {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for HostTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostTimer").field("at", &self.at).finish_non_exhaustive()
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
    Timeout(match seam::host() {
        None => Bounded::Tokio(tokio::time::timeout_at(deadline.to_tokio(), future)),
        Some(host) => Bounded::Host(future, HostTimer::new(host, deadline)),
    })
}

/// See [`timeout`].
#[derive(Debug)]
pub struct Timeout<F>(Bounded<F>);

#[derive(Debug)]
enum Bounded<F> {
    Tokio(tokio::time::Timeout<F>),
    Host(F, HostTimer),
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the futures inside are pinned whenever the whole is: nothing here moves them out, there is
        // no `Drop` for them, and `Timeout` is `Unpin` only if they are. The timer is not pinned.
        match unsafe { &mut self.get_unchecked_mut().0 } {
            Bounded::Tokio(bounded) => {
                unsafe { Pin::new_unchecked(bounded) }.poll(cx).map(|r| r.map_err(|_| Elapsed(())))
            }
            Bounded::Host(future, timer) => {
                if let Poll::Ready(output) = unsafe { Pin::new_unchecked(future) }.poll(cx) {
                    return Poll::Ready(Ok(output));
                }
                timer.poll(cx).map(|()| Err(Elapsed(())))
            }
        }
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

/// A wall clock for tests: it runs with the monotonic clock (so a paused runtime pauses it too), or with a
/// clock of the test's, and can be made to jump. Clones are the same clock.
#[derive(Clone)]
pub struct WallClock {
    /// How long it has been running.
    running: Arc<dyn Fn() -> Duration + Send + Sync>,
    started_ms: u64,
    jumped_ms: Arc<AtomicI64>,
}

impl WallClock {
    /// A clock that shows `now_ms`, in milliseconds since the Unix epoch.
    pub fn starting_at(now_ms: u64) -> WallClock {
        let started = Instant::now();
        WallClock::running_for(now_ms, move || started.elapsed())
    }

    /// A clock that showed `started_ms` when it began to run, which is as long ago as `running` says.
    pub fn running_for(started_ms: u64, running: impl Fn() -> Duration + Send + Sync + 'static) -> WallClock {
        WallClock { running: Arc::new(running), started_ms, jumped_ms: Arc::default() }
    }

    /// Moves the clock forward, or back when `by_ms` is negative.
    pub fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// What it shows, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        let ran_ms = (self.running)().as_millis() as u64;
        self.started_ms.saturating_add(ran_ms).saturating_add_signed(self.jumped_ms.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WallClock({} ms)", self.now_ms())
    }
}

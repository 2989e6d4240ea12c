//! openraft's asynchronous runtime, delegated to `env`.
//!
//! Invariant: openraft spawns, sleeps and draws random numbers only through `env`, so that the
//! simulator decides each of them. Queues, one-shots and the mutex are tokio's own primitives, which
//! need no runtime and wake in order; its `watch` does not, so that one is `env`'s.

use std::future::Future;
use std::time::Duration;

use braid_env::{random, task, time, watch};
use openraft_rt::{AsyncRuntime, OptionalSend, OptionalSync};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot};

/// See the module's documentation. It has no state: `env` finds its own.
#[derive(Debug, Default)]
pub struct EnvRuntime;

impl AsyncRuntime for EnvRuntime {
    type JoinError = task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = task::JoinHandle<T>;
    type Sleep = time::Sleep;
    type Instant = EnvInstant;
    type TimeoutError = time::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = time::Timeout<T>;
    type ThreadLocalRng = EnvRng;
    type Mpsc = TokioMpsc;
    type Watch = EnvWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        task::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        time::sleep_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        time::timeout_at(deadline.0, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        EnvRng
    }

    fn new(_threads: usize) -> Self {
        EnvRuntime
    }

    fn block_on<F, T>(&mut self, _future: F) -> T
    where
        F: Future<Output = T>,
    {
        unreachable!("a node's tasks are driven by the runtime it was started on")
    }
}

/// `env`'s monotonic instant under openraft's trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvInstant(pub time::Instant);

impl openraft_rt::Instant for EnvInstant {
    fn now() -> Self {
        EnvInstant(time::Instant::now())
    }
}

impl std::ops::Add<Duration> for EnvInstant {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        EnvInstant(self.0 + d)
    }
}

impl std::ops::AddAssign<Duration> for EnvInstant {
    fn add_assign(&mut self, d: Duration) {
        self.0 = self.0 + d;
    }
}

impl std::ops::Sub<Duration> for EnvInstant {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        EnvInstant(self.0 - d)
    }
}

impl std::ops::SubAssign<Duration> for EnvInstant {
    fn sub_assign(&mut self, d: Duration) {
        self.0 = self.0 - d;
    }
}

impl std::ops::Sub for EnvInstant {
    type Output = Duration;
    fn sub(self, other: Self) -> Duration {
        self.0 - other.0
    }
}

/// Random numbers from `env`.
#[derive(Debug, Clone, Copy)]
pub struct EnvRng;

impl rand_core::TryRng for EnvRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(random::u64() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(random::u64())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        random::fill(dst);
        Ok(())
    }
}

/// `env`'s watch channel under openraft's traits.
pub struct EnvWatch;

/// See [`EnvWatch`].
pub struct EnvWatchSender<T>(watch::Sender<T>);

/// See [`EnvWatch`].
pub struct EnvWatchReceiver<T>(watch::Receiver<T>);

impl<T> Clone for EnvWatchSender<T> {
    fn clone(&self) -> Self {
        EnvWatchSender(self.0.clone())
    }
}

impl<T> Clone for EnvWatchReceiver<T> {
    fn clone(&self) -> Self {
        EnvWatchReceiver(self.0.clone())
    }
}

impl openraft_rt::watch::Watch for EnvWatch {
    type Sender<T: OptionalSend + OptionalSync> = EnvWatchSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = EnvWatchReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Self::Sender<T>, Self::Receiver<T>) {
        let (tx, rx) = watch::channel(init);
        (EnvWatchSender(tx), EnvWatchReceiver(rx))
    }
}

impl<T: OptionalSend + OptionalSync> openraft_rt::watch::WatchSender<EnvWatch, T> for EnvWatchSender<T> {
    fn send(&self, value: T) -> Result<(), openraft_rt::watch::SendError<T>> {
        self.0.send(value).map_err(|e| openraft_rt::watch::SendError(e.0))
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> EnvWatchReceiver<T> {
        EnvWatchReceiver(self.0.subscribe())
    }
}

impl<T: OptionalSend + OptionalSync> openraft_rt::watch::WatchReceiver<EnvWatch, T> for EnvWatchReceiver<T> {
    async fn changed(&mut self) -> Result<(), openraft_rt::watch::RecvError> {
        self.0.changed().await.map_err(|_| openraft_rt::watch::RecvError(()))
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.0.borrow_and_update()
    }
}

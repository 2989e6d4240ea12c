//! A value and whoever waits for it to change.
//!
//! Invariant: waiters are woken in the order in which they began to wait. tokio's channel of the same name
//! wakes them in random order, drawn from a generator that no seed reaches, so that no run with one could be
//! repeated.
//!
//! The interface is tokio's, as far as Braid uses it. It is no seam: production and simulation share it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};

/// A channel that holds `value`; the receiver has seen it.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new(value),
        version: AtomicU64::new(0),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
        waiting: Mutex::default(),
    });
    (Sender { shared: shared.clone() }, Receiver { shared, seen: 0 })
}

struct Shared<T> {
    value: RwLock<T>,
    /// Grows with each change; changed while the value is locked for writing.
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    waiting: Mutex<Waiting>,
}

/// Wakers by the order of their coming.
#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl<T> Shared<T> {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        let wakers = std::mem::take(&mut self.waiting().wakers);
        for (_, waker) in wakers {
            waker.wake();
        }
    }

    fn borrow(&self) -> Ref<'_, T> {
        Ref(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The value, which can't change while this is held: not to be held over an await.
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Changes the value.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Nobody receives; the value that was to be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct SendError<T>(pub T);

impl<T> Sender<T> {
    /// Puts `value` in place of what was there; refuses when there is no receiver.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.shared.receivers.load(Ordering::Acquire) == 0 {
            return Err(SendError(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Puts `value` in place of what was there, receivers or not.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_if_modified(|held| {
            std::mem::swap(held, &mut value);
            true
        });
        value
    }

    /// Lets `change` change the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Lets `change` change the value; receivers learn of it if it says true.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = {
            let mut value = self.shared.value.write().unwrap_or_else(PoisonError::into_inner);
            let changed = change(&mut value);
            if changed {
                self.shared.version.fetch_add(1, Ordering::Release);
            }
            changed
        };
        if changed {
            self.shared.wake_all();
        }
        changed
    }

    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.borrow()
    }

    /// A receiver that has seen the value as it is.
    pub fn subscribe(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        let seen = self.shared.version.load(Ordering::Acquire);
        Receiver { shared: self.shared.clone(), seen }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.senders.fetch_add(1, Ordering::AcqRel);
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.wake_all();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.borrow()).finish()
    }
}

/// Sees the value, and waits for it to change.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// Every sender is gone: the value will not change again.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed(());

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every sender is gone")
    }
}

impl std::error::Error for Closed {}

impl<T> Receiver<T> {
    /// The value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.borrow()
    }

    /// The value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.borrow();
        self.seen = self.shared.version.load(Ordering::Acquire);
        value
    }

    /// Waits until the value is another than the one last seen, and marks it as seen.
    ///
    /// # Errors
    ///
    /// When it is not and every sender is gone.
    pub fn changed(&mut self) -> Changed<'_, T> {
        Changed { receiver: self, place: None }
    }

    /// Waits until `is` says true of the value, which counts as seen. `is` may be asked more than once.
    ///
    /// # Errors
    ///
    /// When it does not and every sender is gone.
    pub async fn wait_for(&mut self, mut is: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let held = is(&self.borrow_and_update());
            if held {
                return Ok(self.shared.borrow());
            }
            self.changed().await?;
        }
    }

    /// Whether the value is another than the one last seen.
    pub fn has_changed(&self) -> bool {
        self.shared.version.load(Ordering::Acquire) != self.seen
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.borrow()).finish()
    }
}

/// See [`Receiver::changed`].
pub struct Changed<'a, T> {
    receiver: &'a mut Receiver<T>,
    /// Among those that wait.
    place: Option<u64>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let shared = &this.receiver.shared;
        {
            // In line first and looking then: what changes in between wakes.
            let mut waiting = shared.waiting();
            let place = *this.place.get_or_insert_with(|| {
                waiting.next += 1;
                waiting.next
            });
            waiting.wakers.insert(place, cx.waker().clone());
        }
        let version = shared.version.load(Ordering::Acquire);
        let outcome = if version != this.receiver.seen {
            this.receiver.seen = version;
            Ok(())
        } else if shared.senders.load(Ordering::Acquire) == 0 {
            Err(Closed(()))
        } else {
            return Poll::Pending;
        };
        this.leave();
        Poll::Ready(outcome)
    }
}

impl<T> Changed<'_, T> {
    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.receiver.shared.waiting().wakers.remove(&place);
        }
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    /// Notes its number when woken.
    struct Noting(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Noting {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[test]
    fn waiters_are_woken_in_the_order_of_their_coming() {
        let (tx, rx) = channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut receivers: Vec<_> = (0..50).map(|_| rx.clone()).collect();
        let mut waits: Vec<_> = receivers.iter_mut().map(Receiver::changed).collect();
        for (i, wait) in waits.iter_mut().enumerate() {
            let waker = Arc::new(Noting(i, woken.clone())).into();
            assert!(Pin::new(wait).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        tx.send(1).unwrap();
        assert_eq!(*woken.lock().unwrap(), (0..50).collect::<Vec<_>>());
        for mut wait in waits {
            assert_eq!(Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
        }
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_an_end_is_told() {
        let (tx, mut rx) = channel(1);
        let mut other = rx.clone();
        assert!(!tx.send_if_modified(|_| false) && !rx.has_changed());
        tx.send(2).unwrap();
        rx.changed().await.unwrap();
        assert_eq!((*rx.borrow(), rx.has_changed()), (2, false));
        assert_eq!(*other.wait_for(|value| *value == 2).await.unwrap(), 2);
        drop(tx);
        assert!(rx.changed().await.is_err() && other.wait_for(|value| *value == 3).await.is_err());
    }

    #[test]
    fn without_receivers_sending_fails_and_replacing_does_not() {
        let (tx, rx) = channel(1);
        drop(rx);
        assert_eq!(tx.send(2), Err(SendError(2)));
        assert_eq!(tx.send_replace(3), 1);
        assert_eq!(*tx.subscribe().borrow(), 3);
    }

    #[tokio::test]
    async fn a_waiting_task_is_woken_from_another_thread() {
        let (tx, mut rx) = channel(0);
        let other = std::thread::spawn(move || {
            for i in 1..=1000 {
                tx.send_replace(i);
            }
        });
        rx.wait_for(|value| *value == 1000).await.unwrap();
        other.join().unwrap();
    }
}

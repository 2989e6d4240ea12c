//! The watcher of a thread: who hears of marks, and says which bugs are planted.
//!
//! Invariant: a call inside [`enter`]'s guard goes to that watcher, one outside of any guard nowhere. A watcher may be
//! called from within a lock of the code it watches: it decides, and never runs that code.

use std::cell::RefCell;
use std::fmt::Display;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::{AppliedEntry, Bug, Mark};

/// Every method has a default that does nothing.
pub trait Watcher {
    /// `reachable!(mark)` was passed.
    fn reached(&self, _mark: Mark) {}
    /// `sometimes!(holds, mark)` was passed.
    fn sometimes(&self, _mark: Mark, _holds: bool) {}
    /// `always!(holds, mark, why)` was passed.
    fn held(&self, _mark: Mark, _holds: bool, _why: &dyn Display) {}
    /// See [`crate::planted`].
    fn planted(&self, _bug: Bug) -> bool {
        false
    }
    /// See [`crate::applied`].
    fn applied(&self, _entry: AppliedEntry<'_>, _state: &dyn Fn() -> Vec<u8>) {}
    /// See [`crate::acknowledged`]. No lock of the code it watches is held then.
    fn acknowledged(&self, _group: u32, _index: u64) {}
    /// See [`crate::opened`].
    fn opened(&self, _group: u32, _last: Option<u64>) {}
    /// See [`crate::checkpointed`].
    fn checkpointed(&self, _group: u32, _last: u64, _is_durable: bool) {}
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn Watcher>>> = const { RefCell::new(None) };
}

/// Until dropped, this thread's calls go to the watcher it was entered with.
pub struct Guard {
    before: Option<Rc<dyn Watcher>>,
    /// It belongs to its thread.
    _here: PhantomData<*const ()>,
}

/// Has this thread's calls go to `watcher`.
#[must_use = "the watcher is left when the guard is dropped"]
pub fn enter(watcher: Rc<dyn Watcher>) -> Guard {
    Guard { before: CURRENT.replace(Some(watcher)), _here: PhantomData }
}

impl Drop for Guard {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// Cloned, so that no borrow is held while the watcher runs: it may enter another one.
fn current() -> Option<Rc<dyn Watcher>> {
    // A task dropped at the thread's end may still pass a mark.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

#[doc(hidden)]
pub fn is_watched() -> bool {
    CURRENT.try_with(|current| current.borrow().is_some()).unwrap_or(false)
}

#[doc(hidden)]
pub fn reached(mark: Mark) {
    if let Some(watcher) = current() {
        watcher.reached(mark);
    }
}

#[doc(hidden)]
pub fn sometimes(mark: Mark, holds: bool) {
    if let Some(watcher) = current() {
        watcher.sometimes(mark, holds);
    }
}

#[doc(hidden)]
pub fn held(mark: Mark, holds: bool, why: &dyn Display) {
    if let Some(watcher) = current() {
        watcher.held(mark, holds, why);
    }
}

pub(crate) fn planted(bug: Bug) -> bool {
    current().is_some_and(|watcher| watcher.planted(bug))
}

pub(crate) fn applied(entry: AppliedEntry<'_>, state: &dyn Fn() -> Vec<u8>) {
    if let Some(watcher) = current() {
        watcher.applied(entry, state);
    }
}

pub(crate) fn acknowledged(group: u32, index: u64) {
    if let Some(watcher) = current() {
        watcher.acknowledged(group, index);
    }
}

pub(crate) fn opened(group: u32, last: Option<u64>) {
    if let Some(watcher) = current() {
        watcher.opened(group, last);
    }
}

pub(crate) fn checkpointed(group: u32, last: u64, is_durable: bool) {
    if let Some(watcher) = current() {
        watcher.checkpointed(group, last, is_durable);
    }
}

//! What the parts of one replica share: its log, its applied state and its applied watermark.
//!
//! Invariant: `applied` never runs ahead of the state under the lock, and the state is only
//! changed by [`super::machine::Machine`], which one openraft task owns. Everyone else looks at it
//! under a short lock and never holds the lock over an await.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use braid_env::watch;
use braid_log::Log;
use braid_stream::catalog::Catalog;
use braid_stream::group::Group;
use braid_stream::ids::GroupId;
use bytes::Bytes;

use crate::index::RecordIndex;

/// The state machine of a group: the catalog's or a data group's.
#[derive(Clone, PartialEq, Eq)]
pub enum State {
    /// Group 0.
    Catalog(Box<Catalog>),
    /// Every other group.
    Data(Group),
}

impl State {
    /// The state of a group that has applied nothing.
    pub fn initial(group: GroupId) -> State {
        match group.0 {
            0 => State::Catalog(Box::default()),
            _ => State::Data(Group::new(group)),
        }
    }

    /// What a checkpoint keeps of it.
    pub fn encode(&self) -> Bytes {
        match self {
            State::Catalog(catalog) => catalog.encode(),
            State::Data(group) => group.encode(),
        }
    }

    /// Every rule of the whole state that does not hold; empty if all is well.
    pub fn check(&self) -> Vec<String> {
        match self {
            State::Catalog(catalog) => catalog.check().iter().map(ToString::to_string).collect(),
            State::Data(group) => group.check().iter().map(ToString::to_string).collect(),
        }
    }
}

/// One replica's shared parts.
pub struct Replica {
    /// Which group it replicates.
    pub group: GroupId,
    /// Where its log, checkpoints and installed snapshot are.
    pub dir: PathBuf,
    /// Its log.
    pub log: Log,
    /// The node's record index; the catalog's replica leaves it alone.
    pub index: Arc<dyn RecordIndex>,
    state: Mutex<State>,
    applied: watch::Sender<u64>,
}

impl Replica {
    /// A replica whose state is as of log index `applied` (0: nothing applied).
    pub fn new(
        group: GroupId,
        dir: PathBuf,
        log: Log,
        index: Arc<dyn RecordIndex>,
        state: State,
        applied: u64,
    ) -> Replica {
        Replica { group, dir, log, index, state: Mutex::new(state), applied: watch::channel(applied).0 }
    }

    /// Looks at the applied state.
    pub fn with_state<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.state.lock().expect("no panic while the state is locked"))
    }

    /// Changes the applied state. For the state machine's own task.
    pub(super) fn with_state_mut<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock().expect("no panic while the state is locked"))
    }

    /// The applied log index, and a wake-up whenever it moves.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Publishes that everything up to `index` is applied. Never goes back.
    pub(super) fn set_applied(&self, index: u64) {
        self.applied.send_if_modified(|applied| {
            let moved = index > *applied;
            *applied = index.max(*applied);
            moved
        });
    }
}

//! What is left of a replica that was moved away from this node: what it promised.
//!
//! Raft counts on voters that never forget whom they voted for and what they stored. A node whose replica was moved away
//! may be given the group again: by a move back, or by its own catalog, which is an old one after a restart; and a
//! replica that has not heard of any move still counts this node's vote. So the log may go, the promises may not. A new
//! replica of the group on this node
//!
//! - begins with the vote that the last one gave, in the same term;
//! - does not vote for a log that is behind what the last one had, nor stands for election or takes over the leadership,
//!   until its own is that far: as if it still had what it stored.
//!
//! Found by the simulator (100002806): a restarted node made its replica anew, empty, and voted again in a term in which
//! it had voted for another leader. Two led; acknowledged records were lost.

use std::io;
use std::path::{Path, PathBuf};

use braid_env::disk;
use braid_log::{Identity, Log, LogId, LogOptions, Vote};
use braid_probe::{Bug, planted};
use braid_stream::ids::GroupId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One group's, in `groups/GROUP.left`.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Promise {
    /// The newest term in which it voted, and for whom.
    vote: Option<(u64, u64)>,
    /// Term and index of the last entry that it had.
    last: Option<(u64, u64)>,
}

impl Promise {
    fn path(groups_dir: &Path, group: GroupId) -> PathBuf {
        groups_dir.join(format!("{}.left", group.0))
    }

    /// What was kept of the group's last replica here, if there was one.
    pub async fn read(groups_dir: &Path, group: GroupId) -> io::Result<Option<Promise>> {
        let path = Promise::path(groups_dir, group);
        if !disk::exists(&path).await? {
            return Ok(None);
        }
        let bytes = disk::read_file(&path).await?;
        let promise = serde_json::from_slice(&bytes);
        promise.map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display())))
    }

    /// Keeps what the replica whose log is in `dir` has promised, and the one before it; durable on return.
    pub async fn keep(groups_dir: &Path, dir: &Path, id: Identity, options: LogOptions) -> Result<(), String> {
        if planted(Bug::PromiseForgotten) {
            return Ok(());
        }
        let group = GroupId(id.group);
        let before = Promise::read(groups_dir, group).await.map_err(|e| e.to_string())?.unwrap_or_default();
        let (log, _) = Log::open(dir, id, options).await.map_err(|e| e.to_string())?;
        let promise = before.and(log.vote(), log.last_id());
        log.close().await.map_err(|e| e.to_string())?;
        let bytes = serde_json::to_vec(&promise).expect("encoding into memory cannot fail");
        let path = Promise::path(groups_dir, group);
        disk::write_file_durably(&path, Bytes::from(bytes)).await.map_err(|e| format!("{}: {e}", path.display()))
    }

    fn and(self, vote: Option<Vote>, last: Option<LogId>) -> Promise {
        let vote = vote.map(|it| (it.term, it.node));
        // In one term there is one vote: a new replica begins with the last one's.
        let vote = if vote.map(|it| it.0) > self.vote.map(|it| it.0) { vote } else { self.vote };
        Promise { vote, last: self.last.max(last.map(|it| (it.term, it.index))) }
    }

    /// Gives a new replica's log the vote, durably, unless it has that one or a newer one.
    pub async fn renew(&self, log: &Log) -> io::Result<()> {
        match self.vote {
            Some((term, node)) if log.vote().is_none_or(|it| it.term < term) => {
                // Whether that leader was elected is for itself to say.
                log.save_vote(Vote { term, node, committed: false }).await
            }
            _ => Ok(()),
        }
    }

    /// How far a log must be for this replica to vote for it, or to stand itself.
    pub fn floor(&self) -> Option<LogId> {
        self.last.map(|(term, index)| LogId { term, index })
    }
}

/// Waits until the log is as far as `floor`; `false` if it was closed before.
pub async fn reaches(log: &Log, floor: LogId) -> bool {
    while log.last_id() < Some(floor) {
        let next = log.last_id().map_or(0, |last| last.index + 1).max(floor.index);
        if log.wait_durable(next).await.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use braid_log::{Entry, EntryKind};

    use super::*;

    const GROUP: GroupId = GroupId(3);
    const ID: Identity = Identity { cluster: [7; 16], node: 1, group: GROUP.0 };

    fn vote(term: u64, node: u64) -> Vote {
        Vote { term, node, committed: true }
    }

    fn blank(term: u64, index: u64) -> Entry {
        Entry::new(LogId { term, index }, EntryKind::Blank, Bytes::new())
    }

    /// A replica's log that got so far, forgotten.
    async fn forget(groups_dir: &Path, given: Vote, last: u64) {
        let dir = groups_dir.join("3");
        disk::create_dir_all(&dir).await.unwrap();
        let (log, _) = Log::open(&dir, ID, LogOptions::default()).await.unwrap();
        log.save_vote(given).await.unwrap();
        let entry = |index| blank(given.term, index);
        log.append((0..=last).map(entry).collect(), Box::new(|_| ())).unwrap();
        log.close().await.unwrap();
        drop(log);
        Promise::keep(groups_dir, &dir, ID, LogOptions::default()).await.unwrap();
        disk::remove_dir_all(&dir).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_replica_promised_outlives_its_log() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Promise::read(dir.path(), GROUP).await.unwrap(), None);
        forget(dir.path(), vote(4, 2), 9).await;
        let promise = Promise::read(dir.path(), GROUP).await.unwrap().unwrap();
        assert_eq!(promise.floor(), Some(LogId { term: 4, index: 9 }));

        let again = dir.path().join("3");
        disk::create_dir_all(&again).await.unwrap();
        let (log, _) = Log::open(&again, ID, LogOptions::default()).await.unwrap();
        promise.renew(&log).await.unwrap();
        assert_eq!(log.vote(), Some(Vote { term: 4, node: 2, committed: false }));
        // Not back to an older one.
        log.save_vote(vote(5, 3)).await.unwrap();
        promise.renew(&log).await.unwrap();
        assert_eq!(log.vote(), Some(vote(5, 3)));
        log.close().await.unwrap();
    }

    #[tokio::test]
    async fn the_newest_promise_counts() {
        let dir = tempfile::tempdir().unwrap();
        forget(dir.path(), vote(4, 2), 9).await;
        // The next one was moved away before it had as much.
        forget(dir.path(), vote(5, 1), 0).await;
        let promise = Promise::read(dir.path(), GROUP).await.unwrap().unwrap();
        assert_eq!(promise, Promise { vote: Some((5, 1)), last: Some((5, 0)) });
        forget(dir.path(), vote(3, 3), 20).await;
        assert_eq!(Promise::read(dir.path(), GROUP).await.unwrap().unwrap(), promise);
        disk::write_file_durably(dir.path().join("3.left"), Bytes::from("{")).await.unwrap();
        assert!(Promise::read(dir.path(), GROUP).await.unwrap_err().to_string().contains("3.left"));
    }

    #[tokio::test]
    async fn a_log_that_gets_there_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(dir.path(), ID, LogOptions::default()).await.unwrap();
        let waiting = braid_env::task::spawn({
            let log = log.clone();
            async move { reaches(&log, LogId { term: 4, index: 1 }).await }
        });
        log.append((0..3).map(|index| blank(3, index)).collect(), Box::new(|_| ())).unwrap();
        log.wait_durable(2).await.unwrap();
        assert!(!waiting.is_finished());
        log.append(vec![blank(5, 3)], Box::new(|_| ())).unwrap();
        assert!(waiting.await.unwrap());
        log.close().await.unwrap();
        assert!(!reaches(&log, LogId { term: 6, index: 0 }).await);
    }
}

//! The bytes of a checkpoint: a group's state after a known log entry, with the membership then.
//!
//! The log keeps them: `checkpoint-<segment>` is the state just before that segment's first entry,
//! taken here or sent by a leader whose log no longer had the entries this replica needed. With
//! the log after it, it is a complete group.
//!
//! Invariant: what is offered to a peer is the checkpoint *at the trim point*, or at the next one, never the applied
//! state: installing a snapshot purges the receiver's log up to it, and the log is the stream.
//!
//! Format (version 1): `version u8 · state kind u8 (0 catalog, 1 data) · membership length u32 LE ·
//! membership · state`. The file around it carries the checksum and the log id.

use std::fmt;

use braid_log::{LogId as BraidLogId, SegmentSeq};
use braid_probe::{Bug, planted};
use braid_stream::catalog::Catalog;
use braid_stream::group::Group;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::membership::{decode_stored, encode_stored};
use super::raft::StoredMembership;
use super::replica::{Replica, State};

const VERSION: u8 = 1;

/// A state as of `last`, ready to be stored or sent.
#[derive(Clone)]
pub struct Snapshot {
    /// The last log entry the state includes.
    pub last: BraidLogId,
    /// The membership in force at `last`.
    pub membership: StoredMembership,
    /// The state.
    pub state: State,
}

/// Why bytes are not a snapshot.
#[derive(Debug)]
pub enum SnapshotError {
    /// Written by another version.
    Version(u8),
    /// Cut short or not decodable.
    Malformed(String),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Version(v) => {
                write!(f, "checkpoint has format version {v}; this build reads version {VERSION}")
            }
            SnapshotError::Malformed(why) => write!(f, "malformed checkpoint: {why}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// Encodes a state and its membership.
pub fn encode(membership: &StoredMembership, state: &State) -> Bytes {
    let (kind, state) = match state {
        State::Catalog(c) => (0, c.encode()),
        State::Data(g) => (1, g.encode()),
    };
    let membership = encode_stored(membership);
    let mut out = BytesMut::with_capacity(6 + membership.len() + state.len());
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u32_le(u32::try_from(membership.len()).expect("a membership is far below 4 GiB"));
    out.put_slice(&membership);
    out.put_slice(&state);
    out.freeze()
}

/// Decodes what [`encode`] wrote.
pub fn decode(last: BraidLogId, bytes: &Bytes) -> Result<Snapshot, SnapshotError> {
    let mut buf = bytes.clone();
    if buf.len() < 6 {
        return Err(SnapshotError::Malformed(format!("{} bytes, at least 6 are needed", buf.len())));
    }
    match buf.get_u8() {
        VERSION => {}
        v => return Err(SnapshotError::Version(v)),
    }
    let kind = buf.get_u8();
    let len = buf.get_u32_le() as usize;
    if buf.len() < len {
        return Err(SnapshotError::Malformed(format!("membership of {len} bytes, {} are left", buf.len())));
    }
    let membership = decode_stored(&buf.split_to(len)).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
    let malformed = |e: &dyn fmt::Display| SnapshotError::Malformed(e.to_string());
    let state = match kind {
        0 => State::Catalog(Box::new(Catalog::decode(&buf).map_err(|e| malformed(&e))?)),
        1 => State::Data(Group::decode(&buf).map_err(|e| malformed(&e))?),
        k => return Err(SnapshotError::Malformed(format!("state kind {k}, known are 0 and 1"))),
    };
    Ok(Snapshot { last, membership, state })
}

/// The checkpoint to offer: the one before segment `asked`, to which the log is to be trimmed, or else the one at its trim
/// point. `None` while nothing was trimmed, since the log alone is then the whole group.
///
/// openraft trims the log once no request on its way needs it any more, and may want to offer the snapshot before.
pub async fn to_offer(replica: &Replica, asked: Option<SegmentSeq>) -> std::io::Result<Option<(BraidLogId, Bytes)>> {
    let purged = replica.log.purged();
    let asked = match planted(Bug::SnapshotTooNew) && (asked.is_some() || purged.is_some()) {
        true => replica.log.checkpoints().await?.good.last().map(|info| info.seq),
        false => asked,
    };
    if let Some(seq) = asked
        && let Ok((last, bytes)) = load_checkpoint(replica, seq).await
        && Some(last) >= purged
    {
        return Ok(Some((last, bytes)));
    }
    let Some(purged) = purged else { return Ok(None) };
    let checkpoints = replica.log.checkpoints().await?;
    match checkpoints.good.iter().find(|info| info.last == purged) {
        Some(info) => load_checkpoint(replica, info.seq).await.map(Some),
        None => Err(std::io::Error::other(format!(
            "group {}: the log is trimmed up to {}-{} and no checkpoint stands there",
            replica.group.0, purged.term, purged.index
        ))),
    }
}

/// Loads the checkpoint taken before segment `seq`.
pub async fn load_checkpoint(replica: &Replica, seq: SegmentSeq) -> std::io::Result<(BraidLogId, Bytes)> {
    replica.log.load_checkpoint(seq).await.map_err(|e| std::io::Error::other(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use braid_log::{Entry, EntryKind, Identity, Log, LogOptions};
    use braid_stream::ids::GroupId;

    use super::*;
    use crate::index::ordered::OrderedIndex;

    /// A log of at least three segments, a checkpoint before each but the first; where those stand.
    async fn replica(dir: &Path) -> (Replica, [(SegmentSeq, BraidLogId); 2]) {
        let options = LogOptions { segment_bytes: 16 << 10, ..LogOptions::default() };
        let id = Identity { cluster: *b"a cluster's name", node: 1, group: 1 };
        let (log, _) = Log::open(dir, id, options).await.unwrap();
        for index in 0..40 {
            let id = BraidLogId { term: 1, index };
            let entry = Entry::new(id, EntryKind::Normal, Bytes::from_static(&[7; 2000]));
            log.append(vec![entry], Box::new(|done| done.unwrap())).unwrap();
            log.wait_durable(index).await.unwrap();
        }
        let mut stand = Vec::new();
        for segment in &log.segments()[1..3] {
            let last = log.id_at(segment.first_index - 1).unwrap();
            log.write_checkpoint(segment.seq, last, Bytes::from_static(b"a state")).await.unwrap();
            stand.push((segment.seq, last));
        }
        let group = GroupId(1);
        let index = Arc::new(OrderedIndex::new());
        let replica = Replica::new(group, dir.to_owned(), log, index, State::initial(group), 0);
        (replica, stand.try_into().expect("two"))
    }

    /// A leader whose log was to be trimmed for the first time, with a request on its way to a node that did not answer,
    /// had no snapshot for that node, and openraft stopped (simulator, seed 290006735 of 7358999).
    #[tokio::test]
    async fn what_the_log_is_to_be_trimmed_to_is_offered_before_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (replica, [(first, at_first), (second, at_second)]) = replica(dir.path()).await;
        let offered = async |asked| to_offer(&replica, asked).await.unwrap().map(|(last, _)| last);
        assert_eq!(offered(None).await, None, "the log alone is the whole group");
        assert_eq!(offered(Some(first)).await, Some(at_first));
        replica.log.purge(at_first).await.unwrap();
        assert_eq!(offered(None).await, Some(at_first));
        assert_eq!(offered(Some(second)).await, Some(at_second));
        replica.log.purge(at_second).await.unwrap();
        assert_eq!(offered(Some(first)).await, Some(at_second), "never less than the trim point");
    }
}

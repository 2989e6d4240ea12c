//! The encoding of a Raft membership: voters, learners and the address peers dial.
//!
//! Invariant: `decode(encode(m)) == m`, and a version this build does not know is refused. The
//! format is ours, not openraft's, so that an upgrade of openraft cannot change what is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::raft::{LogId, Member, Membership, StoredMembership, from_log_id, to_log_id};

const VERSION: u8 = 1;

/// Why bytes are not a membership.
#[derive(Debug, PartialEq, Eq)]
pub enum MembershipError {
    /// Written by another version.
    Version(u8),
    /// Not decodable, or not a membership that openraft accepts.
    Malformed(String),
}

impl fmt::Display for MembershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MembershipError::Version(v) => {
                write!(f, "membership has format version {v}; this build reads version {VERSION}")
            }
            MembershipError::Malformed(why) => write!(f, "malformed membership: {why}"),
        }
    }
}

impl std::error::Error for MembershipError {}

#[derive(Serialize, Deserialize)]
struct Repr {
    /// One set of voters, or two while the membership changes.
    voters: Vec<BTreeSet<u64>>,
    /// Every member, learners included, with its peer address.
    members: BTreeMap<u64, String>,
}

/// Encodes a membership.
pub fn encode_membership(membership: &Membership) -> Bytes {
    let repr = Repr {
        voters: membership.get_joint_config().clone(),
        members: membership.nodes().map(|(id, n)| (*id, n.addr.clone())).collect(),
    };
    versioned(&repr)
}

/// Decodes what [`encode_membership`] wrote.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, MembershipError> {
    from_repr(unversioned(bytes)?)
}

#[derive(Serialize, Deserialize)]
struct StoredRepr {
    set_at: Option<(u64, u64)>,
    membership: Repr,
}

/// Encodes a membership with the log id that set it.
pub fn encode_stored(stored: &StoredMembership) -> Bytes {
    let m = stored.membership();
    versioned(&StoredRepr {
        set_at: stored.log_id().map(|id: LogId| {
            let id = to_log_id(id);
            (id.term, id.index)
        }),
        membership: Repr {
            voters: m.get_joint_config().clone(),
            members: m.nodes().map(|(id, n)| (*id, n.addr.clone())).collect(),
        },
    })
}

/// Decodes what [`encode_stored`] wrote.
pub fn decode_stored(bytes: &[u8]) -> Result<StoredMembership, MembershipError> {
    let repr: StoredRepr = unversioned(bytes)?;
    let set_at = repr.set_at.map(|(term, index)| from_log_id(braid_log::LogId { term, index }));
    Ok(StoredMembership::new(set_at, from_repr(repr.membership)?))
}

fn versioned<T: Serialize>(value: &T) -> Bytes {
    let mut out = vec![VERSION];
    out.extend(postcard::to_stdvec(value).expect("encoding into memory cannot fail"));
    Bytes::from(out)
}

fn unversioned<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, MembershipError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| MembershipError::Malformed(e.to_string())),
        Some((&v, _)) => Err(MembershipError::Version(v)),
        None => Err(MembershipError::Malformed("no bytes".into())),
    }
}

fn from_repr(repr: Repr) -> Result<Membership, MembershipError> {
    let members: BTreeMap<u64, Member> = repr.members.into_iter().map(|(id, addr)| (id, Member::new(addr))).collect();
    if repr.voters.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(repr.voters, members).map_err(|e| MembershipError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint() -> Membership {
        let members: BTreeMap<u64, Member> = (1..=4).map(|id| (id, Member::new(format!("127.0.0.1:{id}")))).collect();
        Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])], members).unwrap()
    }

    #[test]
    fn round_trips_joint_uniform_and_empty_memberships() {
        let stored = StoredMembership::new(Some(from_log_id(braid_log::LogId { term: 3, index: 9 })), joint());
        assert_eq!(decode_membership(&encode_membership(&joint())).unwrap(), joint());
        assert_eq!(decode_stored(&encode_stored(&stored)).unwrap(), stored);
        let empty = StoredMembership::default();
        assert_eq!(decode_stored(&encode_stored(&empty)).unwrap(), empty);
    }

    #[test]
    fn refuses_other_versions_and_garbage() {
        assert_eq!(decode_membership(&[9, 0, 0]), Err(MembershipError::Version(9)));
        assert!(matches!(decode_membership(&[]), Err(MembershipError::Malformed(_))));
        assert!(matches!(decode_membership(&[1, 255, 255]), Err(MembershipError::Malformed(_))));
    }
}

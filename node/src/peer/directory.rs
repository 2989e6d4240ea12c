//! Which nodes there are: address and incarnation of each, and who this node is.
//!
//! Invariant: an incarnation, once known for a node id, never changes. The directory is filled
//! from the founding members and kept up to date from the catalog.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Who this node is; fixed for the life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalIdentity {
    /// The cluster's id.
    pub cluster: [u8; 16],
    /// This node's id.
    pub node: u64,
    /// This data directory's incarnation.
    pub incarnation: u64,
}

/// What is known of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// The node's incarnation.
    pub incarnation: u64,
    /// Its availability zone.
    pub zone: String,
    /// host:port that peers dial.
    pub peer_address: String,
    /// host:port that clients dial.
    pub client_address: String,
}

/// Why a message is not listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotHeard {
    /// It is not from this cluster, not for this node, or from another disk than is registered.
    Wrong(String),
    /// Nothing is known of the node that it is from.
    Stranger(u64),
}

impl fmt::Display for NotHeard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotHeard::Wrong(why) => f.write_str(why),
            NotHeard::Stranger(node) => write!(f, "message from node {node}, which is not registered in this cluster"),
        }
    }
}

/// See the module's documentation. Clones share the content.
#[derive(Clone)]
pub struct Directory {
    me: Arc<LocalIdentity>,
    peers: Arc<Mutex<BTreeMap<u64, PeerEntry>>>,
}

impl Directory {
    /// A directory that knows only this node's own identity.
    pub fn new(me: LocalIdentity) -> Directory {
        Directory { me: Arc::new(me), peers: Arc::default() }
    }

    /// Who this node is.
    pub fn me(&self) -> &LocalIdentity {
        &self.me
    }

    /// What is known of `node`, this node included.
    pub fn get(&self, node: u64) -> Option<PeerEntry> {
        self.peers.lock().expect("no panic while locked").get(&node).cloned()
    }

    /// Learns of a node, or of its new addresses. Returns false, and changes nothing, where the
    /// node id is known under another incarnation.
    pub fn learn(&self, node: u64, entry: PeerEntry) -> bool {
        let mut peers = self.peers.lock().expect("no panic while locked");
        match peers.get(&node) {
            Some(known) if known.incarnation != entry.incarnation => false,
            _ => {
                peers.insert(node, entry);
                true
            }
        }
    }

    /// Every node known, in order of id.
    pub fn all(&self) -> Vec<(u64, PeerEntry)> {
        let peers = self.peers.lock().expect("no panic while locked");
        peers.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Checks the four names every message between nodes carries; the error says which is wrong.
    pub fn check(&self, cluster: &[u8], from: (u64, u64), to: (u64, u64)) -> Result<(), NotHeard> {
        if cluster != self.me.cluster {
            let (theirs, mine) = (hex(cluster), hex(&self.me.cluster));
            return Err(NotHeard::Wrong(format!("message of another cluster: {theirs}, this is {mine}")));
        }
        if to != (self.me.node, self.me.incarnation) {
            return Err(NotHeard::Wrong(format!(
                "message for node {} incarnation {:016x}, this is node {} incarnation {:016x}",
                to.0, to.1, self.me.node, self.me.incarnation
            )));
        }
        match self.get(from.0) {
            Some(known) if known.incarnation == from.1 => Ok(()),
            Some(known) => Err(NotHeard::Wrong(format!(
                "message from node {} incarnation {:016x}, registered is {:016x}: a node id is never reused with \
                 another disk",
                from.0, from.1, known.incarnation
            ))),
            None => Err(NotHeard::Stranger(from.0)),
        }
    }
}

/// Lowercase hexadecimal, for messages: what is longer than an id is not repeated to its sender.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let d = Directory::new(LocalIdentity { cluster: [7; 16], node: 1, incarnation: 11 });
        let entry = |incarnation| PeerEntry {
            incarnation,
            zone: "a".into(),
            peer_address: "127.0.0.1:1".into(),
            client_address: "127.0.0.1:2".into(),
        };
        assert!(d.learn(1, entry(11)));
        assert!(d.learn(2, entry(22)));
        assert!(!d.learn(2, entry(23)), "another incarnation of node 2 was accepted");
        d
    }

    #[test]
    fn only_the_registered_incarnations_are_heard() {
        let d = directory();
        assert_eq!(d.check(&[7; 16], (2, 22), (1, 11)), Ok(()));
        for (cluster, from, to, word) in [
            ([8; 16], (2, 22), (1, 11), "another cluster"),
            ([7; 16], (2, 23), (1, 11), "never reused"),
            ([7; 16], (3, 33), (1, 11), "not registered"),
            ([7; 16], (2, 22), (2, 11), "for node 2"),
            ([7; 16], (2, 22), (1, 12), "incarnation"),
        ] {
            let e = d.check(&cluster, from, to).unwrap_err().to_string();
            assert!(e.contains(word), "{e:?} does not say {word:?}");
        }
    }
}

//! Who this node is: the file `identity.json` in its data directory.
//!
//! Invariant: an identity is durable, its name included, before anybody is told of it, and its node id, zone and
//! incarnation never change. The incarnation is drawn with the file: another disk has another one.

use std::path::Path;

use braid_env::{disk, random};
use braid_probe::{Bug, planted};
use braid_proto::peer::NodeIdentity;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::peer::{PeerEntry, hex};

/// The file's name.
pub const FILE: &str = "identity.json";

const VERSION: u32 = 1;

/// Who this node is by its configuration.
#[derive(Clone, Debug)]
pub struct LocalNode {
    /// Node id, 1 or greater.
    pub node: u64,
    /// Availability zone.
    pub zone: String,
    /// host:port that peers dial.
    pub peer_address: String,
    /// host:port that clients dial.
    pub client_address: String,
}

/// A node of the cluster, as identities keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub node: u64,
    pub incarnation: u64,
    pub zone: String,
    pub peer_address: String,
    pub client_address: String,
}

impl Member {
    /// As the peer directory has it.
    pub fn of_entry(node: u64, entry: PeerEntry) -> Member {
        let PeerEntry { incarnation, zone, peer_address, client_address } = entry;
        Member { node, incarnation, zone, peer_address, client_address }
    }

    /// As a peer said it.
    pub fn of_wire(it: NodeIdentity) -> Member {
        let NodeIdentity { node, incarnation, zone, peer_address, client_address, cluster_id: _ } = it;
        Member { node, incarnation, zone, peer_address, client_address }
    }

    /// For the peer directory.
    pub fn into_entry(self) -> PeerEntry {
        let Member { node: _, incarnation, zone, peer_address, client_address } = self;
        PeerEntry { incarnation, zone, peer_address, client_address }
    }

    /// To tell a peer; without a cluster's id (16 bytes) if it belongs to none, or that is known.
    pub fn into_wire(self, cluster: Option<[u8; 16]>) -> NodeIdentity {
        let Member { node, incarnation, zone, peer_address, client_address } = self;
        let cluster_id = cluster.map(|id| Bytes::copy_from_slice(&id)).unwrap_or_default();
        NodeIdentity { node, incarnation, zone, peer_address, client_address, cluster_id }
    }
}

/// What is stored of who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    version: u32,
    pub node: u64,
    pub zone: String,
    pub incarnation: u64,
    /// 32 hexadecimal digits once the node belongs to a cluster.
    cluster: Option<String>,
    /// The nodes that made the cluster; empty for a node that joined later.
    pub founders: Vec<Member>,
    /// The nodes there were when this one joined: before its catalog has told it of any, it must know whom
    /// to listen to, also after a restart.
    #[serde(default)]
    pub peers: Vec<Member>,
}

impl Identity {
    /// Loads the identity from `data_dir`, or draws one and stores it there. The error says what does not fit.
    pub async fn open(data_dir: &Path, local: &LocalNode) -> Result<Identity, String> {
        let path = data_dir.join(FILE);
        let text = |e: std::io::Error| e.to_string();
        if disk::exists(&path).await.map_err(text)? {
            // The last process may have been killed before it had synced the name: a power cut would take it, and
            // with it the incarnation that this node is about to tell others.
            if !planted(Bug::IdentityNameUnsynced) {
                disk::fsync_dir(data_dir).await.map_err(text)?;
            }
            let bytes = disk::read_file(&path).await.map_err(text)?;
            let identity: Identity =
                serde_json::from_slice(&bytes).map_err(|e| format!("not a node's identity: {e}"))?;
            identity.check(local)?;
            return Ok(identity);
        }
        if disk::exists(data_dir.join("groups")).await.map_err(text)? {
            return Err(format!(
                "missing, though {} holds a node's data; restore the file, or give this node an empty directory and a \
                 new id",
                data_dir.display()
            ));
        }
        let identity = Identity {
            version: VERSION,
            node: local.node,
            zone: local.zone.clone(),
            incarnation: random::u64().max(1),
            cluster: None,
            founders: Vec::new(),
            peers: Vec::new(),
        };
        identity.store(&path).await.map_err(text)?;
        Ok(identity)
    }

    /// Stores it at `path`; durable on return.
    pub async fn store(&self, path: &Path) -> std::io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).expect("encoding into memory cannot fail");
        disk::write_file_durably(path, Bytes::from(bytes)).await
    }

    /// The cluster that the node belongs to, if any.
    pub fn cluster(&self) -> Option<[u8; 16]> {
        let text = self.cluster.as_deref().filter(|text| text.len() == 32)?;
        u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
    }

    /// This node as a member of `cluster`, which `founders` made, or `peers` told it of.
    pub fn of_cluster(&self, cluster: [u8; 16], founders: Vec<Member>, peers: Vec<Member>) -> Identity {
        Identity { cluster: Some(hex(&cluster)), founders, peers, ..self.clone() }
    }

    fn check(&self, local: &LocalNode) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("written in format version {}; this build reads version {VERSION}", self.version));
        }
        if self.node != local.node {
            return Err(format!(
                "this data directory belongs to node {}; the configuration says node_id = {}",
                self.node, local.node
            ));
        }
        if self.zone != local.zone {
            return Err(format!(
                "node {} was placed in zone {:?} and its groups' replicas rely on it; the configuration says zone = {:?}",
                self.node, self.zone, local.zone
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use braid_env::disk::sim::{SimDisk, Survive, enter};

    use super::*;

    /// Found by the simulator: killed between the rename and the directory's sync, restarted and registered, then
    /// without power, a node came back with another incarnation, and the cluster refused it.
    #[tokio::test]
    async fn an_identity_that_was_read_survives_a_power_cut() {
        let sim = SimDisk::new(1);
        let _here = enter(&sim);
        let local = LocalNode {
            node: 1,
            zone: "zone-a".into(),
            peer_address: "127.0.0.1:4".into(),
            client_address: "127.0.0.1:5".into(),
        };
        let open = || Identity::open(Path::new("/data"), &local);
        disk::create_dir_all("/data").await.unwrap();
        sim.fail_next_fsync_dir();
        assert!(open().await.is_err(), "renamed, and the directory not synced");
        let read = open().await.unwrap();
        sim.power_cut();
        sim.restart(Survive::Nothing);
        assert_eq!(open().await.unwrap(), read);
    }

    #[test]
    fn a_cluster_is_kept_as_text_and_given_as_bytes() {
        let fresh = Identity {
            version: VERSION,
            node: 1,
            zone: "a".into(),
            incarnation: 7,
            cluster: None,
            founders: Vec::new(),
            peers: Vec::new(),
        };
        assert_eq!(fresh.cluster(), None);
        let mut id = [0; 16];
        id[15] = 0xab;
        let member = fresh.of_cluster(id, Vec::new(), Vec::new());
        assert_eq!((member.cluster(), member.cluster.as_deref()), (Some(id), Some("000000000000000000000000000000ab")));
    }
}

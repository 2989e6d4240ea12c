//! How a node comes to belong to a cluster: founding, joining, and coming back.
//!
//! ```text
//!  fresh node ──hello──▶ every seed
//!     │ all seeds fresh, and I am the seed with the lowest id:  found the cluster, tell the others
//!     │ all seeds fresh, and I am another seed:                 wait to be told
//!     │ a cluster exists, and does not know my node id:         ask to join
//!     │ a cluster exists, and knows my node id by another disk: refuse to start
//!  node with an identity ─▶ takes part at once
//! ```
//!
//! Invariant: the identity (node id, incarnation, cluster, founders) is durable before anything
//! else of the cluster is stored or answered, and never changes. A node id is never used again with
//! another disk: it could vote twice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use braid_env::{disk, random, time};
use braid_probe::{Bug, Mark, planted, reachable};
use braid_proto::peer::peer_client::PeerClient;
use braid_proto::peer::{FoundReply, FoundRequest, HelloReply, HelloRequest, JoinReply, JoinRequest, NodeIdentity};
use braid_stream::catalog_command::CatalogCommand;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tonic::Status;

use crate::peer::{Directory, LocalIdentity, PeerEntry, dial};
use crate::replication::Groups;

const FILE: &str = "identity.json";
const VERSION: u32 = 1;

/// How often a node that belongs to no cluster asks the seeds again.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// How long one peer may take to answer a handshake.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a node that comes back looks whether it is among its own.
const LOOK_AROUND: Duration = Duration::from_millis(500);

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

/// A node named in the configuration, from which a fresh node finds its cluster.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Node id.
    pub node: u64,
    /// host:port that peers dial.
    pub peer_address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    node: u64,
    incarnation: u64,
    zone: String,
    peer_address: String,
    client_address: String,
}

/// What is stored of who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    version: u32,
    node: u64,
    zone: String,
    incarnation: u64,
    /// 32 hexadecimal digits once the node belongs to a cluster.
    cluster: Option<String>,
    /// The nodes that made the cluster; empty for a node that joined later.
    founders: Vec<Member>,
    /// The nodes there were when this one joined: before its catalog has told it of any, it must know whom
    /// to listen to, also after a restart.
    #[serde(default)]
    peers: Vec<Member>,
}

/// See the module's documentation.
pub struct Membership {
    local: LocalNode,
    seeds: Vec<Seed>,
    path: PathBuf,
    identity: Mutex<Identity>,
    groups: Arc<Groups>,
    directory: OnceLock<Directory>,
    told: Notify,
}

impl Membership {
    /// Loads this node's identity from `data_dir`, or makes one. The error says what does not fit.
    pub async fn open(data_dir: &Path, local: LocalNode, seeds: Vec<Seed>) -> Result<Arc<Membership>, String> {
        let path = data_dir.join(FILE);
        let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let identity = if disk::exists(&path).await.map_err(|e| at(&e))? {
            // The last process may have been killed before it had synced the name: a power cut would take it, and
            // with it the incarnation that this node is about to tell others.
            if !planted(Bug::IdentityNameUnsynced) {
                disk::fsync_dir(data_dir).await.map_err(|e| at(&e))?;
            }
            let bytes = disk::read_file(&path).await.map_err(|e| at(&e))?;
            let identity: Identity =
                serde_json::from_slice(&bytes).map_err(|e| at(&format!("not a node's identity: {e}")))?;
            check_local(&identity, &local).map_err(|e| at(&e))?;
            identity
        } else {
            let leftover = disk::exists(data_dir.join("groups")).await.map_err(|e| at(&e))?;
            if leftover {
                return Err(format!(
                    "{}: missing, though {} holds a node's data; restore the file, or give this node an empty \
                     directory and a new id",
                    path.display(),
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
            store(&path, &identity).await.map_err(|e| at(&e))?;
            identity
        };
        let membership = Arc::new(Membership {
            local,
            seeds,
            path,
            identity: Mutex::new(identity),
            groups: Arc::default(),
            directory: OnceLock::new(),
            told: Notify::new(),
        });
        membership.establish();
        Ok(membership)
    }

    /// The directory and the groups, once this node belongs to a cluster.
    pub fn joined(&self) -> Option<(Directory, Arc<Groups>)> {
        self.directory.get().map(|d| (d.clone(), self.groups.clone()))
    }

    /// The groups of this node; empty before it belongs to a cluster.
    pub fn groups(&self) -> Arc<Groups> {
        self.groups.clone()
    }

    /// The founders that vote in the catalog (node id, peer address): of each zone the one with the lowest
    /// id, so that a zone that is lost takes one vote with it however many nodes it had. Empty on a node that
    /// joined later.
    pub fn catalog_voters(&self) -> Vec<(u64, String)> {
        let mut founders = self.snapshot().founders;
        founders.sort_by_key(|m| m.node);
        let mut zones = BTreeSet::new();
        founders.retain(|m| zones.insert(m.zone.clone()) || planted(Bug::CatalogVotesByNode));
        founders.into_iter().map(|m| (m.node, m.peer_address)).collect()
    }

    /// The founding members as the catalog wants to know them.
    pub fn founder_entries(&self) -> Vec<(u64, PeerEntry)> {
        self.snapshot().founders.into_iter().map(|m| (m.node, entry(&m))).collect()
    }

    /// Finds or founds the cluster; returns once this node belongs to one. The error is final: this
    /// node must not start with this data directory.
    pub async fn join(&self) -> Result<(Directory, Arc<Groups>), String> {
        let mut said = false;
        if let Some(joined) = self.joined() {
            self.refuse_other_cluster(&joined.0).await?;
            return Ok(joined);
        }
        loop {
            if let Some(joined) = self.joined() {
                return Ok(joined);
            }
            let missing = self.attempt().await?;
            if let Some(joined) = self.joined() {
                return Ok(joined);
            }
            if !said && !missing.is_empty() {
                said = true;
                tracing::info!("waiting for the cluster: {}", missing.join("; "));
            }
            let _ = time::timeout(ASK_AGAIN, self.told.notified()).await;
        }
    }

    /// One round of questions; answers with what is still missing.
    async fn attempt(&self) -> Result<Vec<String>, String> {
        let mut missing = Vec::new();
        let mut fresh = vec![self.describe()];
        let mut cluster: Option<(NodeIdentity, String)> = None;
        for seed in self.seeds.iter().filter(|s| s.node != self.local.node) {
            match self.hello(&seed.peer_address).await {
                Ok(reply) => {
                    let them = reply.me.unwrap_or_default();
                    if them.node != seed.node {
                        return Err(format!(
                            "the configuration says that {} is node {}, and node {} answers there",
                            seed.peer_address, seed.node, them.node
                        ));
                    }
                    self.refuse_second_life(&seed.peer_address, reply.known.as_ref())
                        .inspect_err(|_| reachable!(Mark::IdentityRefused))?;
                    if them.cluster_id.is_empty() {
                        fresh.push(them);
                    } else {
                        cluster = Some((them, seed.peer_address.clone()));
                    }
                }
                Err(e) => missing.push(format!("node {} at {}: {e}", seed.node, seed.peer_address)),
            }
        }
        let am_seed = self.seeds.iter().any(|s| s.node == self.local.node);
        match cluster {
            // A founder that has not been told yet will be; asking to join would make it a learner.
            Some((_, address)) if !am_seed => {
                if let Err(e) = self.ask_to_join(&address).await {
                    missing.push(e);
                }
            }
            Some(_) => missing.push("the founder has not told this node yet".into()),
            None if !am_seed => missing.push("no seed belongs to a cluster yet".into()),
            None if fresh.len() == self.seeds.len() => {
                let lowest = self.seeds.iter().map(|s| s.node).min();
                if lowest == Some(self.local.node) {
                    self.found(fresh).await?;
                }
            }
            None => {}
        }
        Ok(missing)
    }

    fn refuse_second_life(&self, address: &str, known: Option<&NodeIdentity>) -> Result<(), String> {
        let mine = self.snapshot().incarnation;
        match known {
            Some(known) if known.incarnation != mine => Err(format!(
                "the cluster at {address} knows node {} with another disk (incarnation {:016x}, this data directory \
                 has {mine:016x}); a node id is never used again with an empty disk: give this node a new id and let \
                 it replace the old one",
                self.local.node, known.incarnation
            )),
            _ => Ok(()),
        }
    }

    /// A data directory of one cluster under the configuration of another. Only where every seed
    /// says so: one of them may be gone, and its address be given to whomever since.
    async fn refuse_other_cluster(&self, directory: &Directory) -> Result<(), String> {
        let others: Vec<_> = self.seeds.iter().filter(|s| s.node != self.local.node).collect();
        let asked = futures_util::future::join_all(others.iter().map(|s| self.hello(&s.peer_address)));
        // Silence proves nothing, and is not waited for long: this node may be needed now.
        let Ok(replies) = time::timeout(LOOK_AROUND, asked).await else { return Ok(()) };
        let mine = directory.me().cluster;
        let foreign = |them: &NodeIdentity| !them.cluster_id.is_empty() && them.cluster_id != mine[..];
        let them: Vec<_> = replies.into_iter().filter_map(|r| r.ok()?.me).filter(foreign).collect();
        match them.first() {
            Some(first) if them.len() == others.len() => Err(format!(
                "{}: this data directory belongs to cluster {}; the nodes that the configuration names belong to {}",
                self.path.display(),
                hex(&mine),
                hex(&first.cluster_id)
            )),
            _ => Ok(()),
        }
    }

    async fn found(&self, members: Vec<NodeIdentity>) -> Result<(), String> {
        let mut cluster = [0; 16];
        random::fill(&mut cluster);
        let founders = members.iter().map(member).collect();
        // This node first: if it dies before the others were told, it tells them when it is back.
        self.become_member(&cluster, founders, Vec::new()).await?;
        tracing::info!("founded cluster {}", hex(&cluster));
        Ok(())
    }

    /// Tells the other founders, until each has it on its disk. For the founder, at every start.
    pub async fn tell_founders(&self) {
        let identity = self.snapshot();
        let lowest = identity.founders.iter().map(|m| m.node).min();
        let Some(cluster) = identity.cluster.as_deref().and_then(un_hex) else { return };
        if lowest != Some(self.local.node) {
            return;
        }
        let request = FoundRequest {
            cluster_id: Bytes::copy_from_slice(&cluster),
            members: identity.founders.iter().map(|m| wire(m, &cluster)).collect(),
        };
        for founder in identity.founders.iter().filter(|m| m.node != self.local.node) {
            loop {
                let told = time::timeout(ANSWER, async {
                    let channel = dial(&founder.peer_address).await.map_err(|e| e.to_string())?;
                    let mut client = PeerClient::new(channel);
                    client.found(request.clone()).await.map(drop).map_err(|s| s.message().to_string())
                })
                .await;
                match told {
                    Ok(Ok(())) => break,
                    Ok(Err(e)) => tracing::debug!("founder {} not told yet: {e}", founder.node),
                    Err(_) => {}
                }
                time::sleep(ASK_AGAIN).await;
            }
        }
    }

    async fn hello(&self, address: &str) -> Result<HelloReply, String> {
        let from = self.describe();
        let call = async {
            let channel = dial(address).await.map_err(|e| e.to_string())?;
            let reply = PeerClient::new(channel).hello(HelloRequest { from: Some(from) }).await;
            reply.map(|r| r.into_inner()).map_err(|s| s.message().to_string())
        };
        time::timeout(ANSWER, call).await.unwrap_or_else(|_| Err("no answer in time".into()))
    }

    async fn ask_to_join(&self, address: &str) -> Result<(), String> {
        let mut address = address.to_string();
        let from = self.describe();
        // The first answer may name the catalog's leader instead.
        for _ in 0..3 {
            let channel = dial(&address).await.map_err(|e| e.to_string())?;
            let mut call = PeerClient::new(channel);
            match time::timeout(Duration::from_secs(10), call.join(JoinRequest { from: Some(from.clone()) })).await {
                Ok(Ok(reply)) => {
                    let reply = reply.into_inner();
                    let cluster: [u8; 16] =
                        reply.cluster_id[..].try_into().map_err(|_| "the cluster's id is not 16 bytes")?;
                    let peers = reply.members.iter().map(member).collect();
                    return self.become_member(&cluster, Vec::new(), peers).await;
                }
                Ok(Err(status)) => match status.metadata().get("braid-leader").and_then(|v| v.to_str().ok()) {
                    Some(leader) => address = leader.to_string(),
                    None if status.code() == tonic::Code::FailedPrecondition => {
                        return Err(status.message().to_string());
                    }
                    None => return Err(format!("{address}: {}", status.message())),
                },
                Err(_) => return Err(format!("{address}: no answer in time")),
            }
        }
        Err("the catalog's leader could not be found".into())
    }

    async fn become_member(&self, cluster: &[u8; 16], founders: Vec<Member>, peers: Vec<Member>) -> Result<(), String> {
        let mut identity = self.snapshot();
        identity.cluster = Some(hex(cluster));
        identity.founders = founders;
        identity.peers = if planted(Bug::PeersForgotten) { Vec::new() } else { peers };
        store(&self.path, &identity).await.map_err(|e| format!("{}: {e}", self.path.display()))?;
        reachable!(Mark::BecameMember);
        *self.identity.lock().expect("no panic while locked") = identity;
        self.establish();
        Ok(())
    }

    /// Fills the directory from the identity, if that names a cluster.
    fn establish(&self) {
        let identity = self.snapshot();
        let Some(cluster) = identity.cluster.as_deref().and_then(un_hex) else { return };
        let me = LocalIdentity { cluster, node: identity.node, incarnation: identity.incarnation };
        let directory = Directory::new(me);
        for m in identity.founders.iter().chain(&identity.peers) {
            directory.learn(m.node, entry(m));
        }
        directory.learn(self.local.node, entry(&member(&self.describe())));
        let _ = self.directory.set(directory);
        self.told.notify_one();
    }

    /// Answers another node's hello.
    pub async fn on_hello(&self, request: HelloRequest) -> Result<HelloReply, Status> {
        let from = request.from.ok_or_else(|| Status::invalid_argument("from: missing"))?;
        let known = self.directory.get().and_then(|d| d.get(from.node)).map(|e| NodeIdentity {
            node: from.node,
            incarnation: e.incarnation,
            zone: e.zone,
            peer_address: e.peer_address,
            client_address: e.client_address,
            cluster_id: Bytes::new(),
        });
        Ok(HelloReply { me: Some(self.describe()), known })
    }

    /// The founder tells this node of its cluster.
    pub async fn on_found(&self, request: FoundRequest) -> Result<FoundReply, Status> {
        let cluster: [u8; 16] = request.cluster_id[..].try_into().map_err(|_| {
            Status::invalid_argument(format!("cluster_id: {} bytes, must be 16", request.cluster_id.len()))
        })?;
        let identity = self.snapshot();
        let me = request.members.iter().find(|m| m.node == self.local.node);
        if me.is_none_or(|m| m.incarnation != identity.incarnation) {
            return Err(Status::failed_precondition(format!(
                "node {} with incarnation {:016x} is not among the founders named",
                self.local.node, identity.incarnation
            )));
        }
        match identity.cluster.as_deref() {
            Some(mine) if mine == hex(&cluster) => return Ok(FoundReply {}),
            Some(mine) => {
                return Err(Status::failed_precondition(format!(
                    "this node belongs to cluster {mine}, not to {}",
                    hex(&cluster)
                )));
            }
            None => {}
        }
        let founders = request.members.iter().map(member).collect();
        self.become_member(&cluster, founders, Vec::new()).await.map_err(Status::internal)?;
        Ok(FoundReply {})
    }

    /// A new node asks to be registered.
    pub async fn on_join(&self, request: JoinRequest) -> Result<JoinReply, Status> {
        let from = request.from.ok_or_else(|| Status::invalid_argument("from: missing"))?;
        let (directory, groups) =
            self.joined().ok_or_else(|| Status::unavailable("this node does not belong to a cluster yet"))?;
        let mine = directory.me().cluster;
        if !from.cluster_id.is_empty() && from.cluster_id != mine[..] {
            return Err(Status::failed_precondition(format!(
                "node {} belongs to cluster {}, this is {}: a data directory stays in its cluster",
                from.node,
                hex(&from.cluster_id[..from.cluster_id.len().min(16)]),
                hex(&mine)
            )));
        }
        if from.node == 0 || from.incarnation == 0 {
            return Err(Status::invalid_argument(format!(
                "from: node id {} with incarnation {}: both are 1 or greater",
                from.node, from.incarnation
            )));
        }
        let catalog = groups.catalog().ok_or_else(|| Status::unavailable("the catalog is not open yet"))?;
        if !catalog.is_leader() {
            let mut status = Status::unavailable("not the catalog's leader");
            let leader = catalog.leader().and_then(|l| directory.get(l.0));
            if let Some(value) = leader.and_then(|l| l.peer_address.parse().ok()) {
                status.metadata_mut().insert("braid-leader", value);
            }
            return Err(status);
        }
        if let Some(known) = directory.get(from.node)
            && known.incarnation != from.incarnation
        {
            return Err(Status::failed_precondition(format!(
                "node {} was used before by another disk (incarnation {:016x}); give the new node a new id",
                from.node, known.incarnation
            )));
        }
        let command = super::put_node(from.node, &entry(&member(&from))).map_err(Status::invalid_argument)?;
        propose(&catalog, command).await?;
        directory.learn(from.node, entry(&member(&from)));
        // A learner of the catalog: it routes like any other node, and has no vote.
        catalog.replica().add_learner(from.node, &from.peer_address).await.map_err(Status::unavailable)?;
        Ok(JoinReply {
            cluster_id: Bytes::copy_from_slice(&directory.me().cluster),
            members: directory
                .all()
                .into_iter()
                .map(|(node, e)| NodeIdentity {
                    node,
                    incarnation: e.incarnation,
                    zone: e.zone,
                    peer_address: e.peer_address,
                    client_address: e.client_address,
                    cluster_id: Bytes::new(),
                })
                .collect(),
        })
    }

    fn snapshot(&self) -> Identity {
        self.identity.lock().expect("no panic while locked").clone()
    }

    fn describe(&self) -> NodeIdentity {
        let identity = self.snapshot();
        NodeIdentity {
            node: self.local.node,
            incarnation: identity.incarnation,
            zone: self.local.zone.clone(),
            peer_address: self.local.peer_address.clone(),
            client_address: self.local.client_address.clone(),
            cluster_id: identity
                .cluster
                .as_deref()
                .and_then(un_hex)
                .map(|c| Bytes::copy_from_slice(&c))
                .unwrap_or_default(),
        }
    }
}

async fn propose(catalog: &crate::replication::CatalogHandle, command: CatalogCommand) -> Result<(), Status> {
    match catalog.propose(command).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(Status::failed_precondition(e.to_string())),
        Err(e) => Err(Status::unavailable(e.to_string())),
    }
}

fn check_local(identity: &Identity, local: &LocalNode) -> Result<(), String> {
    if identity.version != VERSION {
        return Err(format!("written in format version {}; this build reads version {VERSION}", identity.version));
    }
    if identity.node != local.node {
        return Err(format!(
            "this data directory belongs to node {}; the configuration says node_id = {}",
            identity.node, local.node
        ));
    }
    if identity.zone != local.zone {
        return Err(format!(
            "node {} was placed in zone {:?} and its groups' replicas rely on it; the configuration says zone = {:?}",
            identity.node, identity.zone, local.zone
        ));
    }
    Ok(())
}

async fn store(path: &Path, identity: &Identity) -> std::io::Result<()> {
    let bytes = serde_json::to_vec_pretty(identity).expect("encoding into memory cannot fail");
    disk::write_file_durably(path, Bytes::from(bytes)).await
}

fn member(n: &NodeIdentity) -> Member {
    Member {
        node: n.node,
        incarnation: n.incarnation,
        zone: n.zone.clone(),
        peer_address: n.peer_address.clone(),
        client_address: n.client_address.clone(),
    }
}

fn entry(m: &Member) -> PeerEntry {
    PeerEntry {
        incarnation: m.incarnation,
        zone: m.zone.clone(),
        peer_address: m.peer_address.clone(),
        client_address: m.client_address.clone(),
    }
}

fn wire(m: &Member, cluster: &[u8; 16]) -> NodeIdentity {
    NodeIdentity {
        node: m.node,
        incarnation: m.incarnation,
        zone: m.zone.clone(),
        peer_address: m.peer_address.clone(),
        client_address: m.client_address.clone(),
        cluster_id: Bytes::copy_from_slice(cluster),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn un_hex(text: &str) -> Option<[u8; 16]> {
    u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use braid_env::disk::sim::{SimDisk, Survive, enter};

    use super::*;

    /// Found by the simulator: with two of four founders in one zone, losing that zone lost the catalog.
    #[tokio::test]
    async fn one_founder_of_each_zone_votes_in_the_catalog() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalNode {
            node: 1,
            zone: "zone-a".into(),
            peer_address: "127.0.0.1:4".into(),
            client_address: "127.0.0.1:5".into(),
        };
        let founder = Membership::open(dir.path(), local, Vec::new()).await.unwrap();
        let of = |(node, zone): (u64, &str)| Member { node, zone: zone.into(), ..member(&founder.describe()) };
        let founders = [(4, "zone-a"), (3, "zone-c"), (1, "zone-a"), (2, "zone-b")].map(of).to_vec();
        founder.become_member(&[9; 16], founders, Vec::new()).await.unwrap();
        let voters: Vec<u64> = founder.catalog_voters().into_iter().map(|(node, _)| node).collect();
        assert_eq!(voters, [1, 2, 3]);
    }

    /// Found by the simulator: a node that had joined, and was restarted before its catalog had told it of
    /// any other node, refused every message, and so never learned of any.
    #[tokio::test]
    async fn a_node_that_joined_knows_its_peers_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalNode {
            node: 4,
            zone: "zone-a".into(),
            peer_address: "127.0.0.1:4".into(),
            client_address: "127.0.0.1:5".into(),
        };
        let joining = Membership::open(dir.path(), local.clone(), Vec::new()).await.unwrap();
        let peer = Member { node: 1, incarnation: 7, ..member(&joining.describe()) };
        joining.become_member(&[9; 16], Vec::new(), vec![peer]).await.unwrap();
        let again = Membership::open(dir.path(), local, Vec::new()).await.unwrap();
        let (directory, _) = again.joined().unwrap();
        assert_eq!(directory.get(1).unwrap().incarnation, 7);
        assert!(again.catalog_voters().is_empty());
    }

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
        let open = || Membership::open(Path::new("/data"), local.clone(), Vec::new());
        disk::create_dir_all("/data").await.unwrap();
        sim.fail_next_fsync_dir();
        assert!(open().await.is_err(), "renamed, and the directory not synced");
        let read = open().await.unwrap().describe().incarnation;
        sim.power_cut();
        sim.restart(Survive::Nothing);
        assert_eq!(open().await.unwrap().describe().incarnation, read);
    }
}

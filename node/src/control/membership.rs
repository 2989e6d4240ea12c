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

use braid_env::{random, task, time};
use braid_probe::{Bug, Mark, planted, reachable};
use braid_proto::peer::peer_client::PeerClient;
use braid_proto::peer::{FoundReply, FoundRequest, HelloReply, HelloRequest, JoinReply, JoinRequest, NodeIdentity};
use bytes::Bytes;
use tokio::sync::Notify;
use tonic::Status;

use super::identity::{self, Identity, LocalNode, Member};
use crate::peer::{Directory, LocalIdentity, PeerEntry, dial, hex};
use crate::replication::Groups;

/// How often a node that belongs to no cluster asks the seeds again.
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// How long one peer may take to answer a handshake.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a node that comes back looks whether it is among its own.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// A node named in the configuration, from which a fresh node finds its cluster.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Node id.
    pub node: u64,
    /// host:port that peers dial.
    pub peer_address: String,
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
    /// Nodes that others are being asked about.
    inquiries: Mutex<BTreeSet<u64>>,
}

impl Membership {
    /// Loads this node's identity from `data_dir`, or makes one. The error says what does not fit.
    pub async fn open(data_dir: &Path, local: LocalNode, seeds: Vec<Seed>) -> Result<Arc<Membership>, String> {
        let path = data_dir.join(identity::FILE);
        let identity = Identity::open(data_dir, &local).await.map_err(|why| format!("{}: {why}", path.display()))?;
        let membership = Arc::new(Membership {
            local,
            seeds,
            path,
            identity: Mutex::new(identity),
            groups: Arc::default(),
            directory: OnceLock::new(),
            told: Notify::new(),
            inquiries: Mutex::default(),
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
        self.snapshot().founders.into_iter().map(|m| (m.node, m.into_entry())).collect()
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
        let founders = members.into_iter().map(Member::of_wire).collect();
        // This node first: if it dies before the others were told, it tells them when it is back.
        self.become_member(&cluster, founders, Vec::new()).await?;
        tracing::info!("founded cluster {}", hex(&cluster));
        Ok(())
    }

    /// Tells the other founders, until each has it on its disk. For the founder, at every start.
    pub async fn tell_founders(&self) {
        let identity = self.snapshot();
        let lowest = identity.founders.iter().map(|m| m.node).min();
        let Some(cluster) = identity.cluster() else { return };
        if lowest != Some(self.local.node) {
            return;
        }
        let request = FoundRequest {
            cluster_id: Bytes::copy_from_slice(&cluster),
            members: identity.founders.iter().map(|m| m.clone().into_wire(Some(cluster))).collect(),
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

    /// Asks the nodes that are known about one that is not and sends messages; returns at once.
    ///
    /// That node's registration is in the catalog's log. Where this one was away when it was written, and that node
    /// leads the catalog by now, nobody else will send it.
    pub fn inquire(self: &Arc<Self>, stranger: u64) {
        let inquiries = || self.inquiries.lock().expect("no panic while locked");
        if planted(Bug::StrangersStayStrangers) || !inquiries().insert(stranger) {
            return;
        }
        let membership = self.clone();
        task::spawn(async move {
            membership.ask_about(stranger).await;
            time::sleep(ASK_AGAIN).await;
            membership.inquiries.lock().expect("no panic while locked").remove(&stranger);
        });
    }

    async fn ask_about(&self, stranger: u64) {
        let Some(directory) = self.directory.get() else { return };
        let (mine, me) = (directory.me().cluster, directory.me().node);
        let others: Vec<_> = directory.all().into_iter().filter(|(node, _)| *node != me).collect();
        let about = NodeIdentity { node: stranger, ..NodeIdentity::default() };
        let asked = others.iter().map(|(_, peer)| self.hello_as(&peer.peer_address, about.clone()));
        for ((node, _), reply) in others.iter().zip(futures_util::future::join_all(asked).await) {
            let Ok(HelloReply { me: Some(them), known: Some(known) }) = reply else { continue };
            // An address may have been given to whomever since.
            if them.node == *node && them.cluster_id == mine[..] && known.node == stranger {
                reachable!(Mark::StrangerVouchedFor);
                directory.learn(stranger, Member::of_wire(known).into_entry());
                return;
            }
        }
    }

    async fn hello(&self, address: &str) -> Result<HelloReply, String> {
        self.hello_as(address, self.describe()).await
    }

    async fn hello_as(&self, address: &str, from: NodeIdentity) -> Result<HelloReply, String> {
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
            let mut peer = PeerClient::new(channel);
            match time::timeout(Duration::from_secs(10), peer.join(JoinRequest { from: Some(from.clone()) })).await {
                Ok(Ok(reply)) => {
                    let reply = reply.into_inner();
                    let cluster: [u8; 16] =
                        reply.cluster_id[..].try_into().map_err(|_| "the cluster's id is not 16 bytes")?;
                    let peers = reply.members.into_iter().map(Member::of_wire).collect();
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
        let peers = if planted(Bug::PeersForgotten) { Vec::new() } else { peers };
        let identity = self.snapshot().of_cluster(*cluster, founders, peers);
        identity.store(&self.path).await.map_err(|e| format!("{}: {e}", self.path.display()))?;
        reachable!(Mark::BecameMember);
        *self.identity.lock().expect("no panic while locked") = identity;
        self.establish();
        Ok(())
    }

    /// Fills the directory from the identity, if that names a cluster.
    fn establish(&self) {
        let identity = self.snapshot();
        let Some(cluster) = identity.cluster() else { return };
        let me = LocalIdentity { cluster, node: identity.node, incarnation: identity.incarnation };
        let directory = Directory::new(me);
        let me = self.me(identity.incarnation);
        for it in identity.founders.into_iter().chain(identity.peers).chain([me]) {
            directory.learn(it.node, it.into_entry());
        }
        let _ = self.directory.set(directory);
        self.told.notify_one();
    }

    /// Answers another node's hello.
    pub async fn on_hello(&self, request: HelloRequest) -> Result<HelloReply, Status> {
        let from = request.from.ok_or_else(|| Status::invalid_argument("from: missing"))?;
        let known = self.directory.get().and_then(|d| d.get(from.node));
        let known = known.map(|e| Member::of_entry(from.node, e).into_wire(None));
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
        match identity.cluster() {
            Some(mine) if mine == cluster => return Ok(FoundReply {}),
            Some(mine) => {
                let (mine, told) = (hex(&mine), hex(&cluster));
                return Err(Status::failed_precondition(format!("this node belongs to cluster {mine}, not to {told}")));
            }
            None => {}
        }
        let founders = request.members.into_iter().map(Member::of_wire).collect();
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
                hex(&from.cluster_id),
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
        let entry = Member::of_wire(from.clone()).into_entry();
        let command = super::put_node(from.node, &entry).map_err(Status::invalid_argument)?;
        match catalog.propose(command).await {
            Ok(Ok(_)) => {}
            Ok(Err(refused)) => return Err(Status::failed_precondition(refused.to_string())),
            Err(error) => return Err(Status::unavailable(error.to_string())),
        }
        directory.learn(from.node, entry);
        // A learner of the catalog: it routes like any other node, and has no vote.
        catalog.replica().add_learner(from.node, &from.peer_address).await.map_err(Status::unavailable)?;
        Ok(JoinReply {
            cluster_id: Bytes::copy_from_slice(&directory.me().cluster),
            members: directory.all().into_iter().map(|(node, e)| Member::of_entry(node, e).into_wire(None)).collect(),
        })
    }

    fn snapshot(&self) -> Identity {
        self.identity.lock().expect("no panic while locked").clone()
    }

    fn describe(&self) -> NodeIdentity {
        let identity = self.snapshot();
        self.me(identity.incarnation).into_wire(identity.cluster())
    }

    fn me(&self, incarnation: u64) -> Member {
        let LocalNode { node, zone, peer_address, client_address } = self.local.clone();
        Member { node, incarnation, zone, peer_address, client_address }
    }
}

#[cfg(test)]
mod tests {
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
        let of = |(node, zone): (u64, &str)| Member { node, zone: zone.into(), ..founder.me(7) };
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
        let peer = Member { node: 1, ..joining.me(7) };
        joining.become_member(&[9; 16], Vec::new(), vec![peer]).await.unwrap();
        let again = Membership::open(dir.path(), local, Vec::new()).await.unwrap();
        let (directory, _) = again.joined().unwrap();
        assert_eq!(directory.get(1).unwrap().incarnation, 7);
        assert!(again.catalog_voters().is_empty());
    }
}

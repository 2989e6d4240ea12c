//! The node's control loop.
//!
//! It wakes when the catalog changes, and twice a second besides. Each round: learn the nodes the
//! catalog names, open the replicas it gives to this node, and, where this node leads the catalog,
//! make the cluster (first start) and carry streams through creation and deletion.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use braid_env::{random, task, time};
use braid_probe::{Bug, Mark, planted, reachable};
use braid_stream::catalog::{Settings, TokenKey};
use braid_stream::catalog_command::{CatalogCommand, CreateGroup, Init, NameVoters};
use braid_stream::ids::{ClusterId, GroupId, NodeId, Zone};
use braid_stream::placement::{place_groups, place_leaders};

use super::membership::Membership;
use super::{moved_away, put_node, replicas, streams};
use crate::peer::{Directory, Links, PeerEntry};
use crate::replication::{CatalogHandle, GroupOptions, Groups, open_group};

/// A round begins at least this often.
const ROUND: Duration = Duration::from_millis(500);

/// How long the replica that shall lead a new group is given to write its first membership, before
/// another does.
const FIRST_LEADER: Duration = Duration::from_secs(3);

/// What the first leader of the catalog makes the cluster with.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// Data groups.
    pub data_groups: u32,
    /// Cluster-wide settings.
    pub settings: Settings,
}

/// The control loop of one node.
pub struct Controller {
    membership: Arc<Membership>,
    directory: Directory,
    groups: Arc<Groups>,
    links: Arc<Links>,
    options: GroupOptions,
    new_cluster: NewCluster,
    stored: moved_away::Stored,
    /// Held while a group's membership is being changed.
    changing_replicas: Arc<tokio::sync::Mutex<()>>,
}

impl Controller {
    /// A controller for a node that belongs to a cluster.
    pub fn new(
        membership: Arc<Membership>,
        directory: Directory,
        groups: Arc<Groups>,
        options: GroupOptions,
        new_cluster: NewCluster,
    ) -> Controller {
        let links = options.links.clone();
        let (stored, changing_replicas) = (moved_away::Stored::default(), Arc::default());
        Controller { membership, directory, groups, links, options, new_cluster, stored, changing_replicas }
    }

    /// Opens the catalog's replica and begins its membership, on a founder.
    pub async fn open_catalog(&self) -> Result<CatalogHandle, String> {
        let groups_dir = self.options.groups_dir();
        self.stored.look(&groups_dir).await.map_err(|e| format!("{}: {e}", groups_dir.display()))?;
        let replica = open_group(GroupId::CATALOG, &self.options).await.map_err(|e| e.to_string())?;
        self.groups.insert(replica.clone());
        let voters = self.membership.catalog_voters();
        if voters.iter().any(|(node, _)| *node == self.directory.me().node) {
            if replica.log().last_id().is_none() {
                // The first leader is elected at once.
                self.options.clock.settled().await;
            }
            replica.initialize(&voters).await?;
        }
        Ok(self.groups.catalog().expect("just inserted"))
    }

    /// Runs until the task is dropped.
    pub async fn run(&self, catalog: CatalogHandle) {
        let mut changed = catalog.applied();
        loop {
            changed.borrow_and_update();
            self.learn_nodes(&catalog);
            moved_away::carry_out(&catalog, &self.groups, &self.options, &self.stored).await;
            self.open_replicas(&catalog).await;
            let mut again = false;
            if catalog.is_leader() {
                if let Err(e) = self.make_cluster(&catalog).await {
                    tracing::info!("cluster not complete yet: {e}");
                }
                again = streams::carry_out(&catalog, &self.groups, &self.links, &self.options.clock).await;
            }
            self.change_replicas(&catalog);
            let pause = if again { ROUND / 5 } else { ROUND };
            let _ = time::timeout(pause, changed.changed()).await;
        }
    }

    /// Beside the loop: a new replica may take a minute to catch up.
    fn change_replicas(&self, catalog: &CatalogHandle) {
        let Ok(alone) = self.changing_replicas.clone().try_lock_owned() else { return };
        let (catalog, groups, links) = (catalog.clone(), self.groups.clone(), self.links.clone());
        task::spawn(async move {
            replicas::carry_out(&catalog, &groups, &links).await;
            drop(alone);
        });
    }

    fn learn_nodes(&self, catalog: &CatalogHandle) {
        let nodes = catalog.state(|c| c.nodes().clone());
        for (id, node) in nodes {
            self.directory.learn(
                id.0,
                PeerEntry {
                    incarnation: node.incarnation.0,
                    zone: node.zone.as_str().to_string(),
                    peer_address: node.addresses.peer,
                    client_address: node.addresses.client,
                },
            );
        }
    }

    async fn open_replicas(&self, catalog: &CatalogHandle) {
        let me = NodeId(self.directory.me().node);
        let placement = catalog.state(|c| c.groups().clone());
        let leaders = place_leaders(&placement);
        // A replica that takes over from another gets its membership from the group's leader.
        let successor = catalog.state(|c| c.replaced().values().any(|by| *by == me));
        // One that is on its way from here votes until it is there. Without it, after a restart, a group that had lost
        // another replica never had a majority again: simulator, the bug `leaving-not-opened`.
        let leaving = catalog.state(|c| c.moving()).filter(|it| it.from == me && !planted(Bug::LeavingNotOpened));
        let is_here = |group: &GroupId, replicas: &[NodeId]| {
            replicas.contains(&me) || leaving.is_some_and(|it| it.group == *group)
        };
        for (group, replicas) in placement.iter().filter(|(group, replicas)| is_here(group, replicas)) {
            if self.groups.get(*group).is_some() || self.groups.refused().contains_key(group) {
                continue;
            }
            match open_group(*group, &self.options).await {
                Ok(replica) => {
                    self.groups.insert(replica.clone());
                    let fresh = replica.log().last_id().is_none() && !replica.was_here();
                    let moved = catalog.state(|c| c.was_moved(*group)) && !planted(Bug::BegunOnceMoved);
                    if fresh && !successor && !moved {
                        self.begin(*group, replicas, leaders.get(group) == Some(&me));
                    }
                }
                Err(e) => {
                    reachable!(Mark::ReplicaRefused);
                    // Said once, loudly; the node serves its other groups.
                    tracing::error!(group = group.0, "this replica does not start: {e}");
                    self.groups.refuse(*group, e.to_string());
                }
            }
        }
    }

    /// Begins a new group's membership: at once on the replica that shall lead it, so that leaders
    /// are spread evenly from the start; later on the others, in case that one is down.
    fn begin(&self, group: GroupId, replicas: &[NodeId], leads: bool) {
        let members: Vec<(u64, String)> =
            replicas.iter().filter_map(|n| self.directory.get(n.0).map(|entry| (n.0, entry.peer_address))).collect();
        if members.len() != replicas.len() {
            tracing::warn!(group = group.0, "not every replica's address is known; left to another replica");
            return;
        }
        let groups = self.groups.clone();
        task::spawn(async move {
            if !leads {
                time::sleep(FIRST_LEADER).await;
            }
            let Some(handle) = groups.get(group) else { return };
            if handle.replica().log().last_id().is_some() {
                return;
            }
            if let Err(e) = handle.replica().initialize(&members).await {
                tracing::warn!(group = group.0, "first membership not written: {e}");
            }
        });
    }

    /// First start: names the cluster, registers the founders, creates the data groups.
    async fn make_cluster(&self, catalog: &CatalogHandle) -> Result<(), String> {
        if catalog.state(|c| c.cluster().is_none()) {
            let mut key = [0; 32];
            random::fill(&mut key);
            let init = CatalogCommand::Init(Init {
                at_ms: self.options.clock.now_ms(),
                cluster: ClusterId(self.directory.me().cluster),
                token_key: TokenKey(key),
                settings: self.new_cluster.settings.clone(),
            });
            propose(catalog, init).await?;
        }
        let known: BTreeSet<u64> = catalog.state(|c| c.nodes().keys().map(|n| n.0).collect());
        for (node, entry) in self.membership.founder_entries() {
            if !known.contains(&node) {
                propose(catalog, put_node(node, &entry)?).await?;
            }
        }
        self.name_voters(catalog).await?;
        self.keep_learners(catalog).await;
        let (nodes, existing, replicas) = catalog.state(|c| {
            let stay = c.places().into_iter().filter(|(_, place)| !place.emptied);
            let nodes: BTreeMap<NodeId, Zone> = stay.map(|(id, place)| (id, place.zone)).collect();
            let replicas = c.cluster().map_or(3, |cluster| cluster.settings.replicas);
            (nodes, c.groups().clone(), usize::from(replicas))
        });
        let missing = (self.new_cluster.data_groups as usize).saturating_sub(existing.len());
        if missing == 0 {
            return Ok(());
        }
        let placed = place_groups(&nodes, &existing, replicas, missing)
            .ok_or_else(|| format!("{replicas} zones with a node each are needed"))?;
        for replicas in placed {
            let group = catalog.state(|c| c.next_group());
            propose(catalog, CatalogCommand::CreateGroup(CreateGroup { group, replicas })).await?;
        }
        Ok(())
    }
}

/// How long a change of the catalog's learners may take; it is tried again in the next round.
const CATCH_UP: Duration = Duration::from_secs(2);

impl Controller {
    /// Says in the catalog who votes in it, once, so that these can be moved as other groups' replicas are.
    async fn name_voters(&self, catalog: &CatalogHandle) -> Result<(), String> {
        let voters = catalog.replica().settled_voters().filter(|_| catalog.state(|c| c.voters().is_empty()));
        let known =
            |voters: &BTreeSet<u64>| catalog.state(|c| voters.iter().all(|n| c.nodes().contains_key(&NodeId(*n))));
        match voters.filter(known) {
            Some(voters) => {
                let voters = voters.into_iter().map(|n| catalog.state(|c| c.holder(NodeId(n)))).collect();
                propose(catalog, CatalogCommand::NameVoters(NameVoters { voters })).await
            }
            None => Ok(()),
        }
    }

    /// Nodes that do not vote in the catalog hold it as well, since every node routes by it; those that left do not.
    async fn keep_learners(&self, catalog: &CatalogHandle) {
        let status = catalog.replica().status().replica;
        let nodes = catalog.state(|c| {
            let present = c.places().into_keys();
            present.map(|id| (id.0, c.nodes()[&id].addresses.peer.clone())).collect::<BTreeMap<u64, String>>()
        });
        for (node, address) in &nodes {
            if status.voters.contains(node) || status.learners.contains(node) {
                continue;
            }
            let added = time::timeout(CATCH_UP, catalog.replica().add_learner(*node, address)).await;
            if let Ok(Err(e)) = added {
                tracing::info!(node, "not a learner of the catalog yet: {e}");
            }
        }
        let left: BTreeSet<u64> = status.learners.into_iter().filter(|node| !nodes.contains_key(node)).collect();
        if !left.is_empty() {
            let removed = time::timeout(CATCH_UP, catalog.replica().remove_learners(left.clone())).await;
            if let Ok(Err(e)) = removed {
                tracing::info!("nodes {left:?} left the cluster and are still sent the catalog: {e}");
            }
        }
    }
}

async fn propose(catalog: &CatalogHandle, command: CatalogCommand) -> Result<(), String> {
    match catalog.propose(command).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

//! From a stream's name and a hash key to the replica that must serve it: shard, group, leader.
//!
//! ```text
//!  name ─▶ StreamRoutes (catalog, cached) ─▶ shard, group ─▶ Target: this node, or the leader's
//! ```
//!
//! Invariant: a request is sent on at most once. A forwarded one that meets a node that does not
//! lead the group is refused with a hint; only the node that the client asked looks further.
//!
//! Deliberately absent: any decision about a request's content, and retries of what may have been
//! carried out.

pub mod forward;
mod leaders;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_stream::autoscale::Bounds;
use braid_stream::catalog::{Progress, Stream, StreamShard, StreamStatus};
use braid_stream::ids::{GroupId, NodeId, ShardId};
use braid_stream::limits::Limits;
use braid_stream::name::StreamName;
use braid_stream::shard_map::ShardMap;
use braid_transport::ClientTls;

use crate::control::Membership;
use crate::replication::{CatalogHandle, GroupHandle, Groups, ProposeError};
use forward::Channels;
use leaders::LeaderHints;

/// How long a request waits for a group to elect a leader: longer than an election usually takes,
/// shorter than a client's patience.
pub const LEADER_WAIT: Duration = Duration::from_secs(3);

/// How long the catalog's leader may take to confirm that it is.
const CONFIRM: Duration = Duration::from_secs(2);

/// How long a stream or a shard that this node has not heard of may still be on its way here: a follower
/// learns what was committed with the next heartbeat, 250 ms by default.
const CATALOG_WAIT: Duration = Duration::from_millis(600);

/// Between two looks for a leader; an election takes a hundred times as long.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// One stream as of one catalog revision.
#[derive(Debug)]
pub struct StreamRoutes {
    /// The stream and all its shards.
    pub stream: Stream,
    /// Indexes of shards that a split or merge under way makes.
    pub to_come: BTreeSet<u32>,
    /// Its open shards by hash key.
    pub map: ShardMap,
    /// Its limits, defaults filled in.
    pub limits: Limits,
    /// How far it is on its way to a number of shards, if it is on one.
    pub scaling: Option<Progress>,
    /// The bounds within which it scales by load, if it does.
    pub autoscale: Option<Bounds>,
}

impl StreamRoutes {
    /// One of its shards, open or closed.
    pub fn shard(&self, shard: ShardId) -> Option<&StreamShard> {
        (shard.stream == self.stream.id).then(|| self.stream.shards.get(&shard.index)).flatten()
    }

    /// Whether the stream had this shard, and it is forgotten.
    pub fn has_forgotten(&self, shard: ShardId) -> bool {
        let Stream { id, next_shard, shards, .. } = &self.stream;
        let gone = shard.index < *next_shard && !shards.contains_key(&shard.index);
        shard.stream == *id && gone && !self.to_come.contains(&shard.index)
    }

    /// Whether the stream has this shard, open or closed, or had it.
    fn has_had(&self, shard: ShardId) -> bool {
        self.shard(shard).is_some() || self.has_forgotten(shard)
    }

    /// Whether reads and writes are served.
    pub fn is_serving(&self) -> bool {
        matches!(self.stream.status, StreamStatus::Active | StreamStatus::Updating)
    }
}

/// Why a request has nowhere to go. In every case nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// This node belongs to no cluster yet, or has not opened the catalog.
    NotReady,
    /// No stream of that name.
    NoStream(StreamName),
    /// It is being created or deleted.
    NotServing(StreamName, StreamStatus),
    /// The stream has no such shard.
    NoShard(ShardId),
    /// Nobody leads the group, as far as is known.
    NoLeader(GroupId),
    /// Another node leads the group, and the request was forwarded already.
    NotHere {
        /// The group.
        group: GroupId,
        /// Where its leader serves clients, if known.
        leader: Option<String>,
    },
}

/// Who must serve a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This node: its replica leads.
    Here,
    /// The node that serves clients at this address.
    There(String),
}

/// A node's view of where everything is. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    membership: Arc<Membership>,
    cache: Arc<Mutex<RouteCache>>,
    hints: Arc<LeaderHints>,
    /// Channels to other nodes.
    pub channels: Arc<Channels>,
}

/// Routes derived from one catalog revision; another one empties it.
#[derive(Default)]
struct RouteCache {
    revision: u64,
    streams: BTreeMap<StreamName, Arc<StreamRoutes>>,
}

impl Router {
    /// A router over what `membership` has joined, now or later. `tls`: nodes' client ports have it.
    pub fn new(membership: Arc<Membership>, tls: Option<ClientTls>) -> Router {
        let channels = Arc::new(Channels::new(tls));
        Router { membership, cache: Arc::default(), hints: Arc::default(), channels }
    }

    /// This node's replica of the catalog.
    pub fn catalog(&self) -> Result<CatalogHandle, RouteError> {
        self.groups()?.catalog().ok_or(RouteError::NotReady)
    }

    /// Waits until this node's replica of the catalog is open, or until `until`: before that it knows of nothing.
    pub async fn opened(&self, until: Instant) {
        while self.catalog().is_err() && Instant::now() < until {
            time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The replicas on this node.
    pub fn groups(&self) -> Result<Arc<Groups>, RouteError> {
        Ok(self.membership.joined().ok_or(RouteError::NotReady)?.1)
    }

    /// This node's replica of a data group.
    pub fn group(&self, group: GroupId) -> Result<GroupHandle, RouteError> {
        self.groups()?.get(group).ok_or_else(|| RouteError::NotHere { group, leader: self.leader_address(group) })
    }

    /// This node's id, once it belongs to a cluster.
    pub fn me(&self) -> Result<NodeId, RouteError> {
        Ok(NodeId(self.membership.joined().ok_or(RouteError::NotReady)?.0.me().node))
    }

    /// Where `node` serves clients, if it is registered.
    pub fn client_address(&self, node: NodeId) -> Option<String> {
        let catalog = self.catalog().ok()?;
        catalog.state(|c| c.nodes().get(&node).map(|it| it.addresses.client.clone()))
    }

    /// The stream as this node knows it now, whatever its status.
    pub fn stream(&self, name: &StreamName) -> Result<Arc<StreamRoutes>, RouteError> {
        let catalog = self.catalog()?;
        let revision = catalog.state(|c| c.revision());
        {
            let cache = self.cache.lock().expect("no one panics while looking up");
            if let Some(routes) = cache.streams.get(name)
                && (cache.revision == revision || (planted(Bug::StaleRoutes) && routes.is_serving()))
            {
                return Ok(routes.clone());
            }
        }
        // Cloned under the catalog's lock, sorted outside of it.
        let found = catalog.state(|c| {
            let it = c.stream(name)?;
            Some((c.revision(), it.clone(), c.to_come(it.id), c.scaling(it.id), c.autoscale(it.id)))
        });
        let (revision, stream, to_come, scaling, autoscale) =
            found.ok_or_else(|| RouteError::NoStream(name.clone()))?;
        let map = stream.shard_map().expect("the catalog's open ranges tile the hash space");
        let limits = stream.limits.resolve();
        let routes = Arc::new(StreamRoutes { stream, to_come, map, limits, scaling, autoscale });
        let mut cache = self.cache.lock().expect("no one panics while looking up");
        if cache.revision < revision {
            *cache = RouteCache { revision, streams: BTreeMap::new() };
        }
        if cache.revision == revision {
            cache.streams.insert(name.clone(), routes.clone());
        }
        Ok(routes)
    }

    /// A stream that serves reads and writes.
    pub async fn serving_stream(&self, name: &StreamName) -> Result<Arc<StreamRoutes>, RouteError> {
        self.certainly(|| self.serving(name)).await
    }

    /// The stream that has the shard, open, closed or forgotten.
    pub async fn stream_with(&self, shard: ShardId) -> Result<Arc<StreamRoutes>, RouteError> {
        let look = || match self.stream_of(shard)? {
            routes if routes.has_had(shard) => Ok(routes),
            _ => Err(RouteError::NoShard(shard)),
        };
        self.certainly(look).await
    }

    /// A shard, open, closed or forgotten, of a stream that serves reads and writes.
    pub async fn shard_at(&self, name: &StreamName, index: u32) -> Result<(Arc<StreamRoutes>, ShardId), RouteError> {
        let kept = planted(Bug::NamesakeKept).then(|| self.stream(name).ok()).flatten();
        // The shard of whatever stream has the name by then: it may not be the one that this node knows first.
        let look = || {
            let routes = self.serving(name)?;
            let shard = kept.as_ref().unwrap_or(&routes).stream.shard_id(index);
            if routes.has_had(shard) { Ok((routes, shard)) } else { Err(RouteError::NoShard(shard)) }
        };
        self.certainly(look).await
    }

    fn serving(&self, name: &StreamName) -> Result<Arc<StreamRoutes>, RouteError> {
        match self.stream(name)? {
            routes if routes.is_serving() => Ok(routes),
            routes => Err(RouteError::NotServing(name.clone(), routes.stream.status)),
        }
    }

    /// What `look` finds in this node's catalog. What another node has just told of may be on its way here: waits for it
    /// a little. What it is refused with is only said once the catalog is known to have everything that was
    /// acknowledged before: clients take "there is no such stream" and "no such shard" for final.
    async fn certainly<T>(&self, look: impl Fn() -> Result<T, RouteError>) -> Result<T, RouteError> {
        let until = Instant::now() + CATALOG_WAIT;
        let mut certain = false;
        loop {
            // Subscribed before looking, so that no change falls between the two.
            let catalog = self.catalog()?;
            let mut changed = catalog.applied();
            let refused = match look() {
                Ok(found) => return Ok(found),
                Err(refused) => refused,
            };
            sometimes!(!catalog.is_leader(), Mark::CatalogAwaited);
            if certain {
                return Err(refused);
            }
            if catalog.is_leader() {
                self.confirm_catalog().await?;
                certain = true;
            } else if time::timeout_at(until, changed.changed()).await.is_err() {
                certain = planted(Bug::UnheardIsAbsent) || catalog.is_current().await;
                if !certain {
                    // This node is behind, and can't say by how much.
                    reachable!(Mark::CatalogBehind);
                    return Err(RouteError::NoLeader(GroupId::CATALOG));
                }
            }
        }
    }

    /// Whether this node knows of a split or merge that `old` does not.
    pub fn has_newer(&self, old: &StreamRoutes) -> bool {
        self.stream(&old.stream.name).is_ok_and(|it| it.stream.id == old.stream.id && it.map != old.map)
    }

    /// Other routes of the same stream than `old`, as soon as this node knows of a split or merge that `old` does not;
    /// `None` if it does not until `until`, or the stream is gone.
    pub async fn newer_routes(&self, old: &StreamRoutes, until: Instant) -> Option<Arc<StreamRoutes>> {
        let look = || self.stream(&old.stream.name).ok().filter(|it| it.stream.id == old.stream.id && it.is_serving());
        self.routes_once(until, look, |routes| routes.map != old.map).await
    }

    /// The stream's routes once all these shards of it are known here: children of one that was just closed. `None`
    /// if they are not until `until`, or the stream is gone.
    pub async fn routes_with(&self, shard: ShardId, children: &[u32], until: Instant) -> Option<Arc<StreamRoutes>> {
        let knows = |routes: &StreamRoutes| children.iter().all(|index| routes.stream.shards.contains_key(index));
        self.routes_once(until, || self.stream_of(shard).ok(), knows).await
    }

    /// What `look` finds, once it is `enough`; `None` if it is not until `until`, or as soon as nothing is found.
    async fn routes_once(
        &self,
        until: Instant,
        look: impl Fn() -> Option<Arc<StreamRoutes>>,
        enough: impl Fn(&StreamRoutes) -> bool,
    ) -> Option<Arc<StreamRoutes>> {
        loop {
            // Subscribed before looking, so that no change falls between the two.
            let mut changed = self.catalog().ok()?.applied();
            let routes = look()?;
            if enough(&routes) {
                return Some(routes);
            }
            time::timeout_at(until, changed.changed()).await.ok()?.ok()?;
        }
    }

    /// Makes sure that this node leads the catalog and has applied everything that was acknowledged.
    pub async fn confirm_catalog(&self) -> Result<(), RouteError> {
        if planted(Bug::AbsentOnBelief) {
            return Ok(());
        }
        let group = GroupId::CATALOG;
        match time::timeout(CONFIRM, self.catalog()?.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(ProposeError::NotLeader { leader })) => {
                Err(RouteError::NotHere { group, leader: leader.and_then(|node| self.client_address(node)) })
            }
            Ok(Err(_)) | Err(_) => Err(RouteError::NoLeader(group)),
        }
    }

    /// The stream of the shard, as this node knows it now.
    pub fn stream_of(&self, shard: ShardId) -> Result<Arc<StreamRoutes>, RouteError> {
        let name = self.catalog()?.state(|c| c.stream_by_id(shard.stream).map(|it| it.name.clone()));
        self.stream(&name.ok_or(RouteError::NoShard(shard))?)
    }

    /// Who leads `group`, as far as this node knows: itself, another node, or nobody known.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let groups = self.groups().ok()?;
        match group {
            GroupId::CATALOG => groups.catalog().and_then(|it| it.leader()),
            _ => groups.get(group).and_then(|it| it.leader()),
        }
        .or_else(|| self.hints.get(group))
    }

    /// Where the group's leader serves clients, if that is known.
    pub fn leader_address(&self, group: GroupId) -> Option<String> {
        self.client_address(self.leader(group)?)
    }

    /// Who must serve a request for a group, as of now.
    ///
    /// `forwarded`: another node sent the request here, so it ends here.
    pub fn target_now(&self, group: GroupId, forwarded: bool) -> Result<Target, RouteError> {
        let groups = self.groups()?;
        let (leads, has_replica) = match group {
            GroupId::CATALOG => (groups.catalog().is_some_and(|it| it.is_leader()), groups.catalog().is_some()),
            _ => groups.get(group).map_or((false, false), |it| (it.is_leader(), true)),
        };
        if leads {
            return Ok(Target::Here);
        }
        // A replica that has just lost the leadership may still believe in itself.
        let leader = self.leader(group).filter(|leader| Some(*leader) != self.me().ok());
        let address = leader.and_then(|node| self.client_address(node));
        if forwarded {
            return Err(RouteError::NotHere { group, leader: address });
        }
        if let Some(address) = address {
            return Ok(Target::There(address));
        }
        if !has_replica {
            // Nothing here knows better: ask the replicas in turn, one each time.
            let replicas = self.catalog()?.state(|c| c.groups().get(&group).cloned().unwrap_or_default());
            if let Some(address) = self.hints.guess(group, &replicas).and_then(|node| self.client_address(node)) {
                reachable!(Mark::LeaderGuessed);
                return Ok(Target::There(address));
            }
        }
        Err(RouteError::NoLeader(group))
    }

    /// As [`Router::target_now`]; while nobody leads, waits for an election until `until`.
    pub async fn target(&self, group: GroupId, forwarded: bool, until: Instant) -> Result<Target, RouteError> {
        loop {
            match self.target_now(group, forwarded) {
                Err(RouteError::NoLeader(_)) if !forwarded && Instant::now() < until => {
                    reachable!(Mark::ElectionAwaited);
                    time::sleep(LOOK_AGAIN).await;
                }
                found => return found,
            }
        }
    }

    /// Waits a moment before a request is routed again, because its target turned out not to lead.
    /// `leader` is whom it named instead.
    pub async fn look_again(&self, group: GroupId, leader: Option<NodeId>) {
        self.hints.learn(group, leader);
        time::sleep(LOOK_AGAIN).await;
    }

    /// The node that serves clients at `address`, if it is registered.
    pub fn node_at(&self, address: &str) -> Option<NodeId> {
        let catalog = self.catalog().ok()?;
        catalog.state(|c| c.nodes().iter().find(|(_, it)| it.addresses.client == address).map(|(id, _)| *id))
    }
}

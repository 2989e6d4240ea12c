//! Streams on their way: what the catalog's leader does after the catalog has decided.
//!
//! ```text
//!  CREATING   every group: open shards ─▶ catalog: ACTIVE
//!  UPDATING   every group: retention and limits ─▶ catalog: ACTIVE
//!             each step: parents' groups: seal ─▶ children's groups: open ─▶ catalog: commit ─▶ … ─▶ ACTIVE
//!  DELETING   every group: drop stream ─▶ catalog: gone
//! ```
//!
//! Invariant: the catalog says that something is done only when every group that it concerns has done it, and each
//! part may be done again: whoever leads next begins with what the catalog says.

use std::collections::BTreeMap;

use braid_probe::{Bug, Mark, planted, reachable, sometimes};
use braid_stream::catalog::{Catalog, Change, Step, Stream, StreamStatus};
use braid_stream::catalog_command::{
    CatalogCommand, CommitReshard, SealedParent, SettingsTold, SettleConsumers, StreamDropped, StreamOpened,
};
use braid_stream::command::{DropStream, GroupCommand, OpenShards, SealShard, SetSettings};
use braid_stream::group::Sealed;
use braid_stream::ids::{GroupId, ShardId, StreamId};
use braid_stream::name::StreamName;
use braid_stream::shard::ShardSpec;
use futures_util::future::{join_all, try_join_all};

use super::remote::{Outcome, propose_to_group};
use crate::clock::NodeClock;
use crate::peer::Links;
use crate::replication::{CatalogHandle, Groups};

/// Something that is left to be done about a stream.
struct Task {
    stream: StreamId,
    name: StreamName,
    status: StreamStatus,
    work: Work,
}

enum Work {
    Open(BTreeMap<GroupId, Vec<ShardSpec>>),
    Drop(Vec<GroupId>),
    Settings(Vec<GroupId>, SetSettings),
    Reshard(Vec<Reshard>),
}

/// One split or merge.
struct Reshard {
    /// Each parent's index and group, in the step's order.
    parents: Vec<(u32, GroupId)>,
    children: Vec<u32>,
    specs: BTreeMap<GroupId, Vec<ShardSpec>>,
}

impl Reshard {
    fn of(catalog: &Catalog, stream: &Stream, step: &Step) -> Reshard {
        Reshard {
            parents: step.parents.iter().map(|index| (*index, stream.shards[index].group)).collect(),
            children: step.child_indexes(),
            specs: catalog.specs_of_step(stream, step),
        }
    }
}

/// What a stream needs, if anything.
fn task(catalog: &Catalog, stream: &Stream) -> Option<Task> {
    let work = match (stream.status, catalog.change(stream.id)) {
        (StreamStatus::Creating, _) => {
            Work::Open(stream.groups().into_iter().map(|group| (group, stream.specs_in(group))).collect())
        }
        (StreamStatus::Deleting, _) => Work::Drop(catalog.groups_of(stream).into_iter().collect()),
        (StreamStatus::Updating, Some(Change::Settings { revision })) => {
            let (retention_ms, limits) = (stream.retention_ms, stream.limits.resolve());
            let settings = SetSettings { stream: stream.id, revision: *revision, retention_ms, limits };
            Work::Settings(stream.groups().into_iter().collect(), settings)
        }
        (StreamStatus::Updating, Some(Change::Reshard(steps))) => {
            Work::Reshard(steps.iter().map(|step| Reshard::of(catalog, stream, step)).collect())
        }
        (StreamStatus::Active, _) | (StreamStatus::Updating, None) => return None,
    };
    Some(Task { stream: stream.id, name: stream.name.clone(), status: stream.status, work })
}

/// Carries every stream that is on its way on. Returns whether any is still on its way.
pub async fn carry_out(catalog: &CatalogHandle, groups: &Groups, links: &Links, clock: &NodeClock) -> bool {
    let (tasks, unsettled) = catalog.state(|c| {
        let tasks: Vec<Task> = c.streams().filter_map(|stream| task(c, stream)).collect();
        (tasks, c.unsettled().collect::<Vec<_>>())
    });
    let round = Round { catalog, groups, links, at_ms: clock.now_ms() };
    let done = join_all(tasks.iter().map(|task| round.carry_out(task))).await;
    let mut left = false;
    for stream in unsettled {
        // Nothing has to be told to a group: a consumer's share of a shard is counted where it is read.
        let settled = round.decide(CatalogCommand::SettleConsumers(SettleConsumers { stream })).await;
        left |= settled.inspect_err(|e| tracing::info!("consumers are not settled: {e}")).is_err();
    }
    for (task, done) in tasks.iter().zip(done) {
        if let Err(e) = done {
            tracing::info!(stream = task.name.as_str(), "{:?} is not finished: {e}", task.status);
            reachable!(Mark::StreamStepAgain);
            left = true;
        }
    }
    left
}

/// What one round has at hand.
struct Round<'a> {
    catalog: &'a CatalogHandle,
    groups: &'a Groups,
    links: &'a Links,
    at_ms: u64,
}

impl Round<'_> {
    async fn carry_out(&self, task: &Task) -> Result<(), String> {
        let (stream, at_ms) = (task.stream, self.at_ms);
        match &task.work {
            Work::Open(specs) => {
                self.open(specs).await?;
                sometimes!(true, Mark::StreamBeforeActive);
                self.decide(CatalogCommand::StreamOpened(StreamOpened { stream })).await
            }
            Work::Drop(groups) => {
                let drop = |group| self.tell(group, GroupCommand::DropStream(DropStream { at_ms, stream }));
                try_join_all(groups.iter().map(|group| drop(*group))).await?;
                sometimes!(true, Mark::StreamBeforeDropped);
                self.decide(CatalogCommand::StreamDropped(StreamDropped { stream })).await
            }
            Work::Settings(groups, settings) => {
                let told = if planted(Bug::SettingsHalfTold) { &groups[..1] } else { &groups[..] };
                let tell = |group: &GroupId| self.tell(*group, GroupCommand::SetSettings(settings.clone()));
                try_join_all(told.iter().map(tell)).await?;
                reachable!(Mark::SettingsBeforeActive);
                let revision = settings.revision;
                self.decide(CatalogCommand::SettingsTold(SettingsTold { stream, revision })).await
            }
            Work::Reshard(steps) => {
                try_join_all(steps.iter().map(|step| self.reshard(stream, step))).await?;
                Ok(())
            }
        }
    }

    /// Seals the parents, opens the children, and lets them take the parents' place.
    async fn reshard(&self, stream: StreamId, step: &Reshard) -> Result<(), String> {
        let seals = step.parents.iter().map(|&(index, group)| async move {
            let shard = ShardId { stream, index };
            let seal = SealShard { at_ms: self.at_ms, shard, children: step.children.clone() };
            match self.propose(group, GroupCommand::SealShard(seal)).await? {
                Outcome::Sealed(Sealed { last, at_ms }) => Ok(SealedParent { shard: index, last, at_ms }),
                Outcome::Done => Err(format!("group {}: shard {shard} was to be sealed, and is not", group.0)),
            }
        });
        let sealed = try_join_all(seals).await?;
        reachable!(Mark::ParentsSealed);
        self.open(&step.specs).await?;
        reachable!(Mark::ChildrenOpen);
        self.decide(CatalogCommand::CommitReshard(CommitReshard { stream, sealed })).await?;
        // Writers wait for it on every node, and would learn of it with the next heartbeat.
        if let Err(e) = self.catalog.replica().raft().trigger().heartbeat().await {
            tracing::info!("no heartbeat after a split or merge: {e}");
        }
        Ok(())
    }

    async fn open(&self, specs: &BTreeMap<GroupId, Vec<ShardSpec>>) -> Result<(), String> {
        let open = |(group, shards): (&GroupId, &Vec<ShardSpec>)| {
            self.tell(*group, GroupCommand::OpenShards(OpenShards { at_ms: self.at_ms, shards: shards.clone() }))
        };
        try_join_all(specs.iter().map(open)).await.map(drop)
    }

    async fn tell(&self, group: GroupId, command: GroupCommand) -> Result<(), String> {
        self.propose(group, command).await.map(drop)
    }

    async fn propose(&self, group: GroupId, command: GroupCommand) -> Result<Outcome, String> {
        let nodes = self.catalog.state(|c| c.may_lead(group));
        propose_to_group(self.groups, self.links, group, &nodes, command).await.map_err(|e| e.to_string())
    }

    async fn decide(&self, command: CatalogCommand) -> Result<(), String> {
        match self.catalog.propose(command).await {
            // Refused: a deletion overtook it; the next round sees it.
            Ok(Ok(_)) | Ok(Err(_)) => Ok(()),
            Err(e) => Err(e.to_string()),
        }
    }
}

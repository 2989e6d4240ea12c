//! What a stream carries besides records and shards: tags, a policy, registered consumers, and settings that are kept
//! for those who ask. And what an account has.
//!
//! ```text
//!  consumer   CREATING ─▶ ACTIVE ─▶ DELETING ─▶ gone      each step settled by the catalog's leader
//! ```
//! Invariant: only streams that exist have attributes, and none that are all empty are kept; every map here has a bound.
//!
//! Not here: whether a policy lets somebody in, and what reads a consumer makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, CatalogReply, Change, StreamError, StreamMode, StreamStatus};
use crate::catalog_command::{AttributeChange, ChangeAttributes, SetAccount};
use crate::ids::StreamId;
use crate::limits::{
    ACCOUNTS_MAX, CONSUMERS_CREATING_MAX, CONSUMERS_MAX, KEY_ID_CHARS_MAX, NAMESPACE_CHARS_MAX, POLICY_BYTES_MAX,
    TAG_KEY_CHARS_MAX, TAG_VALUE_CHARS_MAX, TAGS_MAX, TIME_MS_MAX,
};
use crate::name::ConsumerName;

/// A stream's. Texts are as their owner gave them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Attributes {
    pub tags: BTreeMap<String, String>,
    pub policy: Option<String>,
    /// The key that its owner has it encrypted with; `None`: with none.
    pub encryption_key: Option<String>,
    pub shard_metrics: BTreeSet<ShardMetric>,
    /// Throughput to be ready for, in MiB/s, if its owner said so.
    pub warm_mibps: Option<u32>,
    pub consumers: BTreeMap<ConsumerName, Consumer>,
}

/// A consumer that has its own share of every shard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Consumer {
    /// With the name it tells a consumer from an earlier one of the same name.
    pub created_ms: u64,
    pub status: ConsumerStatus,
    pub tags: BTreeMap<String, String>,
    pub policy: Option<String>,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ConsumerStatus {
    Creating,
    Active,
    Deleting,
}

/// What may be measured of each shard.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum ShardMetric {
    IncomingBytes,
    IncomingRecords,
    OutgoingBytes,
    OutgoingRecords,
    WriteThroughputExceeded,
    ReadThroughputExceeded,
    IteratorAge,
}

impl ShardMetric {
    pub const ALL: [ShardMetric; 7] = [
        ShardMetric::IncomingBytes,
        ShardMetric::IncomingRecords,
        ShardMetric::OutgoingBytes,
        ShardMetric::OutgoingRecords,
        ShardMetric::WriteThroughputExceeded,
        ShardMetric::ReadThroughputExceeded,
        ShardMetric::IteratorAge,
    ];
}

/// What an account has set, in one namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// Since when a minimum of throughput is committed to.
    pub committed_ms: Option<u64>,
    /// When a commitment was ended last.
    pub ended_ms: Option<u64>,
}

/// Of all streams and accounts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct AttributeTable {
    pub(super) streams: BTreeMap<StreamId, Attributes>,
    pub(super) accounts: BTreeMap<String, Account>,
}

impl AttributeTable {
    /// As a checkpoint from before there were attributes has it.
    pub(super) const NONE: [u8; 2] = [0, 0];
}

impl Catalog {
    /// A stream's attributes; empty ones if it never had any.
    pub fn attributes(&self, stream: StreamId) -> Attributes {
        self.attributes.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// Streams with consumers on their way in or out.
    pub fn unsettled(&self) -> impl Iterator<Item = StreamId> {
        let on_its_way = |consumer: &Consumer| consumer.status != ConsumerStatus::Active;
        let streams = self.attributes.streams.iter();
        streams.filter(move |(_, it)| it.consumers.values().any(on_its_way)).map(|(id, _)| *id)
    }

    /// What the account of a namespace has set.
    pub fn account(&self, namespace: &str) -> Account {
        self.attributes.accounts.get(namespace).cloned().unwrap_or_default()
    }

    pub(super) fn change_attributes(&mut self, command: &ChangeAttributes) -> Result<CatalogReply, CatalogError> {
        let ChangeAttributes { stream: id, change, .. } = command;
        let (id, at_ms) = (*id, self.last_time_ms.max(command.at_ms.min(TIME_MS_MAX)));
        let revision = self.revision + 1;
        let free = !matches!(self.changes.get(&id), Some(Change::Reshard(_)));
        let mut attributes = self.attributes(id);
        let stream = self.stream_mut(id)?;
        let status = stream.status;
        let allowed = match change {
            // What a stream was created with comes right after its creation.
            AttributeChange::Tags { .. } => status != StreamStatus::Deleting,
            AttributeChange::Encryption { .. } | AttributeChange::Mode { .. } => {
                matches!(status, StreamStatus::Active | StreamStatus::Updating) && free
                    || status == StreamStatus::Creating
            }
            AttributeChange::Policy { .. }
            | AttributeChange::ShardMetrics { .. }
            | AttributeChange::WarmThroughput { .. }
            | AttributeChange::Register { .. }
            | AttributeChange::Deregister { .. } => matches!(status, StreamStatus::Active | StreamStatus::Updating),
        };
        if !allowed {
            return Err(StreamError::Status { stream: id, status }.into());
        }
        attributes.change(change, at_ms)?;
        let mut updates = false;
        if let AttributeChange::Mode { mode } = change {
            updates = stream.mode != *mode;
            stream.mode = *mode;
            if *mode == StreamMode::Provisioned {
                attributes.warm_mibps = None;
            }
        }
        let leaves_on_demand = updates && matches!(change, AttributeChange::Mode { mode: StreamMode::Provisioned });
        updates |= matches!(change, AttributeChange::Encryption { .. });
        if updates && status != StreamStatus::Creating {
            // Seen to be UPDATING until every group has been asked, as for the settings that groups keep.
            stream.status = StreamStatus::Updating;
            self.changes.insert(id, Change::Settings { revision });
        }
        if leaves_on_demand {
            // Its shards stay as they are: bounds that narrowed the mode's go with it.
            self.autoscale.remove(&id);
        }
        self.last_time_ms = at_ms;
        if attributes == Attributes::default() {
            self.attributes.streams.remove(&id);
        } else {
            self.attributes.streams.insert(id, attributes);
        }
        Ok(CatalogReply::AttributesChanged { stream: id })
    }

    /// Consumers that were being created are there; those that were being deleted are gone.
    pub(super) fn settle_consumers(&mut self, id: StreamId) -> Result<CatalogReply, StreamError> {
        self.stream_mut(id)?;
        if let Some(attributes) = self.attributes.streams.get_mut(&id) {
            attributes.consumers.retain(|_, it| it.status != ConsumerStatus::Deleting);
            attributes.consumers.values_mut().for_each(|it| it.status = ConsumerStatus::Active);
            if *attributes == Attributes::default() {
                self.attributes.streams.remove(&id);
            }
        }
        Ok(CatalogReply::ConsumersSettled { stream: id })
    }

    pub(super) fn set_account(&mut self, command: &SetAccount) -> Result<CatalogReply, AttributeError> {
        let accounts = &mut self.attributes.accounts;
        let known = accounts.contains_key(&command.namespace);
        if command.namespace.len() > NAMESPACE_CHARS_MAX {
            return Err(AttributeError::TooLong { what: "namespace", most: NAMESPACE_CHARS_MAX });
        }
        if !known && accounts.len() >= ACCOUNTS_MAX {
            return Err(AttributeError::TooMany { what: "accounts", most: ACCOUNTS_MAX });
        }
        self.last_time_ms = self.last_time_ms.max(command.at_ms.min(TIME_MS_MAX));
        let account = accounts.entry(command.namespace.clone()).or_default();
        match (command.committed, account.committed_ms) {
            (true, None) => account.committed_ms = Some(self.last_time_ms),
            (false, Some(_)) => (account.committed_ms, account.ended_ms) = (None, Some(self.last_time_ms)),
            (true, Some(_)) | (false, None) => {}
        }
        Ok(CatalogReply::AccountSet)
    }
}

impl Attributes {
    fn change(&mut self, change: &AttributeChange, at_ms: u64) -> Result<(), AttributeError> {
        match change {
            AttributeChange::Tags { consumer: None, set, remove } => change_tags(&mut self.tags, set, remove),
            AttributeChange::Tags { consumer: Some(name), set, remove } => {
                change_tags(&mut self.consumer(name)?.tags, set, remove)
            }
            AttributeChange::Policy { consumer, policy } => {
                if policy.as_ref().is_some_and(|it| it.len() > POLICY_BYTES_MAX) {
                    return Err(AttributeError::TooLong { what: "policy", most: POLICY_BYTES_MAX });
                }
                let place = match consumer {
                    Some(name) => &mut self.consumer(name)?.policy,
                    None => &mut self.policy,
                };
                if policy.is_none() && place.is_none() {
                    return Err(AttributeError::NoPolicy);
                }
                place.clone_from(policy);
                Ok(())
            }
            AttributeChange::Encryption { key } => {
                if key.as_ref().is_some_and(|it| it.chars().count() > KEY_ID_CHARS_MAX) {
                    return Err(AttributeError::TooLong { what: "key id", most: KEY_ID_CHARS_MAX });
                }
                self.encryption_key.clone_from(key);
                Ok(())
            }
            AttributeChange::ShardMetrics { enable, disable } => {
                self.shard_metrics.extend(enable);
                self.shard_metrics.retain(|it| !disable.contains(it));
                Ok(())
            }
            // The stream's own.
            AttributeChange::Mode { .. } => Ok(()),
            AttributeChange::WarmThroughput { mibps } => {
                self.warm_mibps = Some(*mibps);
                Ok(())
            }
            AttributeChange::Register { name, tags } => self.register(name, tags, at_ms),
            AttributeChange::Deregister { name } => {
                self.consumer(name)?.status = ConsumerStatus::Deleting;
                Ok(())
            }
        }
    }

    fn consumer(&mut self, name: &ConsumerName) -> Result<&mut Consumer, AttributeError> {
        self.consumers.get_mut(name).ok_or_else(|| AttributeError::NoSuchConsumer { name: name.clone() })
    }

    fn register(
        &mut self,
        name: &ConsumerName,
        tags: &BTreeMap<String, String>,
        at_ms: u64,
    ) -> Result<(), AttributeError> {
        if self.consumers.contains_key(name) {
            return Err(AttributeError::ConsumerExists { name: name.clone() });
        }
        if self.consumers.len() >= CONSUMERS_MAX {
            return Err(AttributeError::TooMany { what: "consumers", most: CONSUMERS_MAX });
        }
        let creating = self.consumers.values().filter(|it| it.status == ConsumerStatus::Creating).count();
        if creating >= CONSUMERS_CREATING_MAX {
            return Err(AttributeError::TooMany { what: "consumers being created", most: CONSUMERS_CREATING_MAX });
        }
        let mut all = BTreeMap::new();
        change_tags(&mut all, tags, &BTreeSet::new())?;
        let consumer = Consumer { created_ms: at_ms, status: ConsumerStatus::Creating, tags: all, policy: None };
        self.consumers.insert(name.clone(), consumer);
        Ok(())
    }
}

fn change_tags(
    tags: &mut BTreeMap<String, String>,
    set: &BTreeMap<String, String>,
    remove: &BTreeSet<String>,
) -> Result<(), AttributeError> {
    for (key, value) in set {
        if !(1..=TAG_KEY_CHARS_MAX).contains(&key.chars().count()) {
            return Err(AttributeError::TooLong { what: "tag's key", most: TAG_KEY_CHARS_MAX });
        }
        if value.chars().count() > TAG_VALUE_CHARS_MAX {
            return Err(AttributeError::TooLong { what: "tag's value", most: TAG_VALUE_CHARS_MAX });
        }
    }
    let after = tags.keys().chain(set.keys()).filter(|key| !remove.contains(*key)).collect::<BTreeSet<_>>().len();
    if after > TAGS_MAX {
        return Err(AttributeError::TooMany { what: "tags", most: TAGS_MAX });
    }
    tags.extend(set.iter().map(|(key, value)| (key.clone(), value.clone())));
    tags.retain(|key, _| !remove.contains(key));
    Ok(())
}

/// Why attributes are not changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttributeError {
    TooMany { what: &'static str, most: usize },
    TooLong { what: &'static str, most: usize },
    NoSuchConsumer { name: ConsumerName },
    ConsumerExists { name: ConsumerName },
    NoPolicy,
}

impl fmt::Display for AttributeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttributeError::TooMany { what, most } => write!(f, "too many {what}: at most {most} are allowed"),
            AttributeError::TooLong { what, most } => {
                write!(f, "{what} is empty or too long: at most {most} are allowed")
            }
            AttributeError::NoSuchConsumer { name } => write!(f, "consumer {name} does not exist"),
            AttributeError::ConsumerExists { name } => write!(f, "consumer {name} exists"),
            AttributeError::NoPolicy => write!(f, "there is no policy"),
        }
    }
}

impl std::error::Error for AttributeError {}

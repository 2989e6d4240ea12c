//! Reading: iterators, GetRecords, subscriptions; each served by the leader of the shard's group.
//!
//! Invariant: what is answered as "the tip" was the tip at some moment after the call came in: the
//! leader makes sure that it still leads before it looks.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_probe::{Bug, Mark, planted, reachable};
use braid_proto::v1;
use braid_stream::catalog::TokenKey;
use braid_stream::ids::{GroupId, Offset, ShardId};
use braid_stream::iterator::{IteratorKind, IteratorToken, Position};
use braid_stream::limits::{GET_BYTES_MAX, GET_RECORDS_MAX};
use braid_stream::name::StreamName;
use braid_stream::sequence::SequenceNumber;
use futures_util::{Stream, StreamExt};
use tonic::Status;

use super::error::ApiError;
use super::{Call, Service, wire};
use crate::read::subscribe::{Event, Interrupted, subscribe};
use crate::read::{Budget, Extent, GroupReader, ReadError};
use crate::replication::ProposeError;
use crate::routing::forward::request;
use crate::routing::{RouteError, Router, StreamRoutes};
use crate::throttle::ShardFacts;

/// How long a leader may take to make sure that it leads; a round trip to another zone, unless it
/// is cut off.
const CONFIRM: Duration = Duration::from_secs(2);

/// How long a reader at the end of a shard that was just closed waits for its children.
const CHILDREN: Duration = Duration::from_secs(2);

/// The events of a subscription, from here or from another node.
pub type Events = Pin<Box<dyn Stream<Item = Result<v1::SubscribeToShardEvent, Status>> + Send>>;

/// An event as a subscriber is told of it. One at the end of a shard that was just closed waits for its children; if
/// they are not known in time, the subscription is interrupted, and goes on later.
async fn told(
    event: Result<Event, Interrupted>,
    router: &Router,
    group: GroupId,
    shard: ShardId,
) -> Result<v1::SubscribeToShardEvent, ApiError> {
    match event {
        Ok(event) => {
            let children = event.ended.as_deref().unwrap_or_default();
            match router.routes_with(shard, children, Instant::now() + CHILDREN).await {
                Some(routes) => Ok(wire::event(event, &routes)),
                None => Err(ApiError::NotLeader { group, leader: None }),
            }
        }
        Err(Interrupted::NotLeader(leader)) => {
            let leader = leader.and_then(|node| router.client_address(node));
            Err(ApiError::NotLeader { group, leader })
        }
        Err(Interrupted::Read(error)) => Err(ApiError::Read { group, error: Arc::new(error) }),
    }
}

/// The shard a read is for.
pub(super) struct Subject {
    pub routes: Arc<StreamRoutes>,
    pub shard: ShardId,
    group: GroupId,
}

impl Service {
    pub(crate) async fn shard_iterator(
        &self,
        message: &v1::GetShardIteratorRequest,
        call: &Call,
    ) -> Result<v1::GetShardIteratorResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let kind = wire::iterator_kind(
            message.shard_iterator_type,
            &message.starting_sequence_number,
            message.timestamp_ms,
            wire::ITERATOR_START,
        )?;
        let subject = self.subject_named(&name, &message.shard_id).await?;
        let here = || async {
            let reader = self.reader(&subject)?;
            let position = self.begin(&reader, subject.shard, kind, wire::ITERATOR_START).await?;
            let before = reader.number_before(subject.shard, position);
            let before = before.map_err(|error| self.read_failed(subject.group, error))?;
            Ok(v1::GetShardIteratorResponse {
                shard_iterator: self.token(subject.shard, position)?,
                continuation_sequence_number: before.map_or(String::new(), |number| number.to_string()),
            })
        };
        self.at_leader(subject.group, call, here, |mut client| async move {
            client.get_shard_iterator(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    pub(crate) async fn records(
        &self,
        message: &v1::GetRecordsRequest,
        call: &Call,
    ) -> Result<v1::GetRecordsResponse, ApiError> {
        let token = IteratorToken::open(&message.shard_iterator, &self.token_key()?.0).map_err(ApiError::Iterator)?;
        let limit = match message.limit as usize {
            0 => GET_RECORDS_MAX,
            limit @ 1..=GET_RECORDS_MAX => limit,
            limit => {
                let why = format!("{limit} records: 1 to {GET_RECORDS_MAX} are allowed, or 0 for that many");
                return Err(ApiError::invalid("limit", why));
            }
        };
        let routes = match self.router.stream_with(token.shard).await {
            Ok(routes) => routes,
            Err(error) => return Err(self.no_subject(error)),
        };
        if !routes.is_serving() {
            return Err(RouteError::NotServing(routes.stream.name.clone(), routes.stream.status).into());
        }
        let subject = subject(&routes, token.shard)?;
        let here = || async {
            // By the clock of the leader, which made it.
            token.check_age(self.clock.now_ms()).map_err(ApiError::Iterator)?;
            self.records_here(&subject, token.position, limit).await
        };
        self.at_leader(subject.group, call, here, |mut client| async move {
            client.get_records(request(message.clone(), Some(call.deadline))).await
        })
        .await
    }

    /// The stream that an iterator is for, as far as this node knows; `None` too if the iterator is not good.
    pub(crate) fn stream_of_iterator(&self, token: &str) -> Option<StreamName> {
        let token = IteratorToken::open(token, &self.token_key().ok()?.0).ok()?;
        Some(self.router.stream_of(token.shard).ok()?.stream.name.clone())
    }

    async fn records_here(
        &self,
        subject: &Subject,
        position: Position,
        limit: usize,
    ) -> Result<v1::GetRecordsResponse, ApiError> {
        let reader = self.reader(subject)?;
        let failed = |error| self.read_failed(subject.group, error);
        let caught_up = reader.group.has_caught_up();
        let extent = match reader.extent(subject.shard) {
            // A leader of a moment ago may not have applied yet that the shard was opened.
            Err(ReadError::NoSuchShard(_)) => {
                self.confirm(&reader).await?;
                reader.extent(subject.shard)
            }
            found => found,
        };
        let extent = extent.map_err(failed)?;
        let facts = facts(subject, &extent, caught_up);
        self.throttle.admit(&reader.group, |rates| rates.read(&facts)).map_err(ApiError::Throttled)?;
        self.confirm(&reader).await?;
        let from = match position {
            Position::Offset(offset) => offset,
            Position::Time(ms) => reader.position(subject.shard, IteratorKind::AtTimestamp(ms)).map_err(failed)?,
        };
        let batch = reader.read(subject.shard, from, Budget::of(limit, GET_BYTES_MAX)).await.map_err(failed)?;
        // A shard that was just closed goes on until its children are known: a reader is told of them at its end.
        let children = match &batch.ended {
            None => None,
            Some(indexes) => {
                let routes = self.router.routes_with(subject.shard, indexes, Instant::now() + CHILDREN).await;
                routes.map(|routes| wire::children(&routes, indexes))
            }
        };
        let behind_ms = batch.behind_ms(self.clock.now_ms());
        let count = batch.records.len() as u64;
        self.throttle.read_done(&reader.group, subject.shard, count, batch.bytes, behind_ms);
        Ok(v1::GetRecordsResponse {
            next_shard_iterator: match children {
                Some(_) => String::new(),
                None => self.token(subject.shard, batch.next)?,
            },
            millis_behind_latest: behind_ms,
            child_shards: children.unwrap_or_default(),
            records: batch.records.into_iter().map(wire::stored_record).collect(),
        })
    }

    pub(crate) async fn subscription(
        &self,
        message: &v1::SubscribeToShardRequest,
        call: &Call,
    ) -> Result<Events, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let Some(start) = &message.starting_position else {
            return Err(ApiError::invalid("starting_position", "is missing"));
        };
        let kind =
            wire::iterator_kind(start.r#type, &start.sequence_number, start.timestamp_ms, wire::SUBSCRIPTION_START)?;
        let subject = self.subject_named(&name, &message.shard_id).await?;
        let place = self
            .subscriptions
            .clone()
            .try_acquire_owned()
            .map_err(|_| ApiError::LimitExceeded { why: "this node has as many subscriptions as it may".into() })?;
        let events: Events = self
            .at_leader(
                subject.group,
                call,
                || self.events_here(&subject, kind, &message.consumer),
                |mut client| async move {
                    // No deadline: a subscription ends by itself.
                    let answer = client.subscribe_to_shard(request(message.clone(), None)).await?;
                    Ok(answer.map(|events| -> Events { Box::pin(events) }))
                },
            )
            .await?;
        let mut stopping = self.stopping.subscribe();
        let stopped = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        Ok(Box::pin(events.take_until(Box::pin(stopped)).map(move |event| {
            let _held_until_the_end = &place;
            event
        })))
    }

    /// The number that stands before the first record of the shard that a subscription is for: to go on after while
    /// it never had one.
    pub(crate) fn first_number(&self, message: &v1::SubscribeToShardRequest) -> Option<String> {
        let routes = self.router.stream(&wire::stream_name(&message.stream_name).ok()?).ok()?;
        let shard = wire::shard_id(&routes, "shard_id", &message.shard_id).ok()?;
        Some(SequenceNumber::beginning(routes.shard(shard)?.created_s, shard.index).to_string())
    }

    async fn events_here(&self, subject: &Subject, kind: IteratorKind, consumer: &str) -> Result<Events, ApiError> {
        let (reader, group) = (self.reader(subject)?, subject.group);
        let seat = match consumer {
            "" => None,
            consumer => Some(self.seats.take(subject.shard, consumer).ok_or(ApiError::Subscribed)?),
        };
        let from = self.begin(&reader, subject.shard, kind, wire::SUBSCRIPTION_START).await?;
        let events = subscribe(reader.clone(), subject.shard, from, self.clock.clone())
            .map_err(|error| self.read_failed(group, error))?;
        let (router, shard, service) = (self.router.clone(), subject.shard, self.clone());
        let series = self.metrics.shards.get(shard, subject.routes.stream.name.as_str());
        let mut taken_over = seat.as_ref().map(|seat| seat.ended());
        let taken_over = async move {
            match &mut taken_over {
                Some(ended) => drop(ended.wait_for(|ended| *ended).await),
                None => std::future::pending().await,
            }
        };
        let events = events.take_until(Box::pin(taken_over));
        Ok(Box::pin(events.then(move |event| {
            let _held_until_the_end = &seat;
            if let Ok(event) = &event {
                let bytes = event.records.iter().map(|it| it.record.size()).sum();
                let records = event.records.len() as u64;
                series.outgoing(records, bytes, event.behind_ms);
                service.throttle.look_at(group, shard, |load, now| load.read(now, records, bytes, event.behind_ms));
            }
            let router = router.clone();
            async move { told(event, &router, group, shard).await.map_err(Status::from) }
        })))
    }

    /// A shard by its name.
    pub(super) async fn subject_named(&self, stream: &StreamName, shard: &str) -> Result<Subject, ApiError> {
        let index = wire::shard_index("shard_id", shard)?;
        match self.router.shard_at(stream, index).await {
            Ok((routes, shard)) => subject(&routes, shard),
            Err(error) => Err(self.no_subject(error)),
        }
    }

    /// Why there is no shard, or no stream.
    fn no_subject(&self, error: RouteError) -> ApiError {
        let RouteError::NoShard(shard) = error else { return error.into() };
        match self.router.stream_of(shard) {
            Ok(routes) => wire::no_shard(&routes, shard),
            Err(_) => ApiError::NoSuchShardName(format!("the stream of this shard (id {}) was deleted", shard.stream)),
        }
    }

    /// The offset at which `kind` begins, as of a moment after the call came in.
    async fn begin(
        &self,
        reader: &GroupReader,
        shard: ShardId,
        kind: IteratorKind,
        fields: wire::StartFields,
    ) -> Result<Offset, ApiError> {
        self.confirm(reader).await?;
        reader.position(shard, kind).map_err(|error| match error {
            ReadError::WrongSequence { why } => ApiError::invalid(fields.number, why),
            error => self.read_failed(reader.group.id(), error),
        })
    }

    fn reader(&self, subject: &Subject) -> Result<GroupReader, ApiError> {
        Ok(GroupReader { group: self.router.group(subject.group)?, index: self.index.clone() })
    }

    /// Makes sure that this node leads the group, never on belief.
    async fn confirm(&self, reader: &GroupReader) -> Result<(), ApiError> {
        let group = reader.group.id();
        if planted(Bug::ReadsOnBelief) {
            return Ok(());
        }
        match time::timeout(CONFIRM, reader.group.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let leader = match &error {
                    ProposeError::NotLeader { leader: Some(node) } => self.router.client_address(*node),
                    _ => None,
                };
                Err(ApiError::of_proposal(group, error, leader))
            }
            Err(_) => {
                reachable!(Mark::LeaderNotConfirmed);
                Err(RouteError::NoLeader(group).into())
            }
        }
    }

    fn read_failed(&self, group: GroupId, error: ReadError) -> ApiError {
        match error {
            ReadError::NotLeader { leader } => {
                ApiError::NotLeader { group, leader: leader.and_then(|node| self.router.client_address(node)) }
            }
            error => ApiError::Read { group, error: Arc::new(error) },
        }
    }

    fn token(&self, shard: ShardId, next: Offset) -> Result<String, ApiError> {
        let token = IteratorToken { shard, position: Position::Offset(next), issued_ms: self.clock.now_ms() };
        Ok(token.encode(&self.token_key()?.0))
    }

    /// The cluster's key for iterators and page tokens.
    pub(super) fn token_key(&self) -> Result<TokenKey, ApiError> {
        let key = self.router.catalog()?.state(|c| c.cluster().map(|cluster| cluster.token_key.clone()));
        key.ok_or(ApiError::Route(RouteError::NotReady))
    }
}

fn subject(routes: &Arc<StreamRoutes>, shard: ShardId) -> Result<Subject, ApiError> {
    let group = routes.shard(shard).ok_or_else(|| wire::no_shard(routes, shard))?.group;
    Ok(Subject { routes: routes.clone(), shard, group })
}

fn facts<'a>(subject: &'a Subject, extent: &Extent, caught_up: bool) -> ShardFacts<'a> {
    ShardFacts {
        shard: subject.shard,
        range: subject.routes.shard(subject.shard).expect("the subject is one of them").range,
        limits: extent.limits(),
        stream: subject.routes.stream.name.as_str(),
        untouched: caught_up && extent.untouched(),
    }
}

//! One node's answers: the service `braid.v1.Braid` over the cluster's state.

use std::sync::Arc;

use braid_proto::v1;
use braid_proto::v1::braid_server::Braid;
use braid_proto::v1::{ErrorReason as Reason, Outcome as WireOutcome};
use braid_stream::HashKey;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::{Fault, STREAM, Shared, refuse};

pub struct Node {
    pub shared: Arc<Shared>,
    pub node: usize,
}

impl Node {
    /// Appends what it may, record by record.
    fn append(&self, request: v1::PutRecordsRequest, throttled: Option<&str>) -> v1::PutRecordsResponse {
        let mut state = self.shared.state();
        let mut refused_in: Vec<usize> = Vec::new();
        let mut results = Vec::new();
        for record in request.records {
            let hash = match record.explicit_hash_key.as_str() {
                "" => HashKey::of_partition_key(&record.partition_key),
                explicit => HashKey::parse(explicit).unwrap(),
            };
            let at = state.shard_of(hash);
            let group = state.shards[at].group;
            let reason = match state.leaders.get(&group) {
                None => Some(Reason::NoLeader),
                Some(leader) if *leader != self.node => Some(Reason::NotLeader),
                _ if request.keep_order && refused_in.contains(&at) => Some(Reason::PredecessorRefused),
                _ if throttled == Some(record.partition_key.as_str()) => Some(Reason::Throttled),
                _ => None,
            };
            let shard_id = state.shards[at].id.clone();
            results.push(match reason {
                Some(reason) => {
                    refused_in.push(at);
                    v1::PutRecordsResultEntry {
                        shard_id,
                        outcome: WireOutcome::Refused.into(),
                        error_code: reason.into(),
                        leader_address: state.leader_address(group),
                        retry_after_ms: 5,
                        ..Default::default()
                    }
                }
                None => {
                    let shard = &mut state.shards[at];
                    shard.log.push((record.partition_key, record.data));
                    v1::PutRecordsResultEntry {
                        sequence_number: shard.number(shard.log.len() - 1),
                        shard_id,
                        outcome: WireOutcome::Appended.into(),
                        ..Default::default()
                    }
                }
            });
        }
        drop(state);
        self.shared.changed();
        v1::PutRecordsResponse { records: results, failed_record_count: 0 }
    }

    async fn silence<T>(&self) -> T {
        std::future::pending().await
    }
}

#[tonic::async_trait]
impl Braid for Node {
    type SubscribeToShardStream = ReceiverStream<Result<v1::SubscribeToShardEvent, Status>>;

    async fn put_records(
        &self,
        request: Request<v1::PutRecordsRequest>,
    ) -> Result<Response<v1::PutRecordsResponse>, Status> {
        let request = request.into_inner();
        assert!(request.records.len() <= 500);
        // One batch in flight per shard: the shards of this call must not be busy.
        let shards: Vec<String> = {
            let mut state = self.shared.state();
            state.put_calls.push(request.records.len());
            let mut shards: Vec<String> = request
                .records
                .iter()
                .map(|r| HashKey::of_partition_key(&r.partition_key))
                .map(|hash| state.shards[state.shard_of(hash)].id.clone())
                .collect();
            shards.dedup();
            state.busy.extend(shards.clone());
            shards
        };
        self.shared.changed();
        let mut gate = self.shared.gate.subscribe();
        let _ = gate.wait_for(|open| *open).await;
        self.shared.state().busy.retain(|s| !shards.contains(s));

        let fault = self.shared.state().faults.pop_front();
        let bad = request.records.iter().any(|r| r.partition_key == "malformed");
        match fault {
            _ if bad => Err(refuse(Code::InvalidArgument, Reason::InvalidArgument, "malformed")),
            None => Ok(Response::new(self.append(request, None))),
            Some(Fault::RefuseAll(code, reason)) => Err(refuse(code, reason, "refused")),
            Some(Fault::Throttle(key)) => Ok(Response::new(self.append(request, Some(&key)))),
            Some(Fault::DropAfterCommit) => {
                self.append(request, None);
                self.shared.break_connections(self.node);
                self.silence().await
            }
            Some(Fault::DropBeforeCommit) => {
                self.shared.break_connections(self.node);
                self.silence().await
            }
            Some(Fault::HangAfterCommit) => {
                self.append(request, None);
                self.silence().await
            }
        }
    }

    async fn list_shards(&self, _: Request<v1::ListShardsRequest>) -> Result<Response<v1::ListShardsResponse>, Status> {
        let mut state = self.shared.state();
        if !state.exists {
            return Err(refuse(Code::NotFound, Reason::StreamNotFound, STREAM));
        }
        let known = state.listed.pop_front().unwrap_or(usize::MAX);
        let shards = state.shards.iter().take(known).map(|shard| v1::Shard {
            shard_id: shard.id.clone(),
            hash_key_range: Some(v1::HashKeyRange {
                starting_hash_key: shard.range.start().to_string(),
                ending_hash_key: shard.range.end().to_string(),
            }),
            sequence_number_range: Some(v1::SequenceNumberRange {
                starting_sequence_number: shard.number(0),
                ending_sequence_number: match shard.open {
                    true => String::new(),
                    false => shard.number(shard.log.len()),
                },
            }),
            parent_shard_id: shard.parents.first().cloned().unwrap_or_default(),
            adjacent_parent_shard_id: shard.parents.get(1).cloned().unwrap_or_default(),
            group: shard.group,
            leader_node: 0,
            leader_address: state.leader_address(shard.group),
        });
        Ok(Response::new(v1::ListShardsResponse { shards: shards.collect(), next_token: String::new() }))
    }

    async fn get_shard_iterator(
        &self,
        request: Request<v1::GetShardIteratorRequest>,
    ) -> Result<Response<v1::GetShardIteratorResponse>, Status> {
        let request = request.into_inner();
        let state = self.shared.state();
        let shard = state.shard(&request.shard_id)?;
        state.lead_check(self.node, shard.group)?;
        let place = shard.place(request.shard_iterator_type, &request.starting_sequence_number);
        Ok(Response::new(v1::GetShardIteratorResponse {
            shard_iterator: format!("{}@{place}", shard.id),
            continuation_sequence_number: place.checked_sub(1).map_or_else(String::new, |last| shard.number(last)),
        }))
    }

    async fn get_records(
        &self,
        request: Request<v1::GetRecordsRequest>,
    ) -> Result<Response<v1::GetRecordsResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.shared.state();
        state.get_calls += 1;
        self.shared.changed();
        if state.expire_iterators > 0 {
            state.expire_iterators -= 1;
            return Err(refuse(Code::FailedPrecondition, Reason::IteratorExpired, "old"));
        }
        let (id, place) = request.shard_iterator.split_once('@').unwrap();
        let from: usize = place.parse().unwrap();
        let shard = state.shard(id)?;
        state.lead_check(self.node, shard.group)?;
        let records = shard.records(from, state.page);
        let next = from + records.len();
        let ended = !shard.open && next >= shard.log.len();
        Ok(Response::new(v1::GetRecordsResponse {
            records,
            next_shard_iterator: match ended {
                true => String::new(),
                false => format!("{id}@{next}"),
            },
            millis_behind_latest: (shard.log.len() - next) as u64,
            child_shards: match ended {
                true => state.children_of(shard),
                false => Vec::new(),
            },
        }))
    }

    async fn subscribe_to_shard(
        &self,
        request: Request<v1::SubscribeToShardRequest>,
    ) -> Result<Response<Self::SubscribeToShardStream>, Status> {
        let request = request.into_inner();
        let start = request.starting_position.unwrap();
        let (mut next, node) = {
            let mut state = self.shared.state();
            if !state.subscribes {
                return Err(refuse(Code::Unimplemented, Reason::Unsupported, "no push"));
            }
            let shard = state.shard(&request.shard_id)?;
            state.lead_check(self.node, shard.group)?;
            let next = shard.place(start.r#type, &start.sequence_number);
            state.subscriptions += 1;
            (next, self.node)
        };
        self.shared.changed();
        let (events, receiver) = mpsc::channel(1);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let mut version = shared.version.subscribe();
            let mut sent = 0;
            loop {
                let event = {
                    let state = shared.state();
                    let shard = state.shard(&request.shard_id).unwrap().clone();
                    if let Err(moved) = state.lead_check(node, shard.group) {
                        Err(moved)
                    } else if state.subscription_events.is_some_and(|max| sent >= max) {
                        Err(Status::unavailable("broken"))
                    } else {
                        let records = shard.records(next, state.page);
                        next += records.len();
                        sent += usize::from(!records.is_empty());
                        let ended = !shard.open && next >= shard.log.len();
                        Ok(v1::SubscribeToShardEvent {
                            records,
                            continuation_sequence_number: match next {
                                0 => String::new(),
                                next => shard.number(next - 1),
                            },
                            millis_behind_latest: (shard.log.len() - next) as u64,
                            child_shards: match ended {
                                true => state.children_of(&shard),
                                false => Vec::new(),
                            },
                            end_of_shard: ended,
                        })
                    }
                };
                let over = event.as_ref().map_or(true, |e| e.end_of_shard);
                let more = event.as_ref().is_ok_and(|e| e.millis_behind_latest > 0);
                if events.send(event).await.is_err() || over {
                    return;
                }
                if !more && version.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn create_stream(
        &self,
        request: Request<v1::CreateStreamRequest>,
    ) -> Result<Response<v1::CreateStreamResponse>, Status> {
        assert_eq!(request.get_ref().stream_name, STREAM);
        let hang = {
            let mut state = self.shared.state();
            if state.exists {
                return Err(refuse(Code::AlreadyExists, Reason::StreamExists, STREAM));
            }
            state.exists = true;
            std::mem::take(&mut state.hang_create)
        };
        match hang {
            true => self.silence().await,
            false => Ok(Response::new(v1::CreateStreamResponse {})),
        }
    }

    async fn delete_stream(
        &self,
        _: Request<v1::DeleteStreamRequest>,
    ) -> Result<Response<v1::DeleteStreamResponse>, Status> {
        self.shared.state().exists = false;
        Ok(Response::new(v1::DeleteStreamResponse {}))
    }

    async fn update_stream(
        &self,
        _: Request<v1::UpdateStreamRequest>,
    ) -> Result<Response<v1::UpdateStreamResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn split_shard(&self, _: Request<v1::SplitShardRequest>) -> Result<Response<v1::SplitShardResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn update_shard_count(
        &self,
        _: Request<v1::UpdateShardCountRequest>,
    ) -> Result<Response<v1::UpdateShardCountResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn describe_shard_loads(
        &self,
        _: Request<v1::DescribeShardLoadsRequest>,
    ) -> Result<Response<v1::DescribeShardLoadsResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn merge_shards(
        &self,
        _: Request<v1::MergeShardsRequest>,
    ) -> Result<Response<v1::MergeShardsResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn describe_stream(
        &self,
        _: Request<v1::DescribeStreamRequest>,
    ) -> Result<Response<v1::DescribeStreamResponse>, Status> {
        let state = self.shared.state();
        if !state.exists {
            return Err(refuse(Code::NotFound, Reason::StreamNotFound, STREAM));
        }
        Ok(Response::new(v1::DescribeStreamResponse {
            stream: Some(v1::StreamDescription {
                stream_name: STREAM.to_owned(),
                status: v1::StreamStatus::Active.into(),
                shard_count: state.shards.len() as u32,
                max_record_bytes: 1 << 20,
                ..Default::default()
            }),
        }))
    }

    async fn node_status(&self, _: Request<v1::NodeStatusRequest>) -> Result<Response<v1::NodeStatusResponse>, Status> {
        Ok(Response::new(v1::NodeStatusResponse { node_id: self.node as u64, ..Default::default() }))
    }

    async fn list_streams(
        &self,
        _: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn put_record(&self, _: Request<v1::PutRecordRequest>) -> Result<Response<v1::PutRecordResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn change_attributes(
        &self,
        _: Request<v1::ChangeAttributesRequest>,
    ) -> Result<Response<v1::ChangeAttributesResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn describe_attributes(
        &self,
        _: Request<v1::DescribeAttributesRequest>,
    ) -> Result<Response<v1::DescribeAttributesResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn update_account(
        &self,
        _: Request<v1::UpdateAccountRequest>,
    ) -> Result<Response<v1::UpdateAccountResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn cluster_status(
        &self,
        _: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn replace_node(
        &self,
        _: Request<v1::ReplaceNodeRequest>,
    ) -> Result<Response<v1::ReplaceNodeResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn drain_node(&self, _: Request<v1::DrainNodeRequest>) -> Result<Response<v1::DrainNodeResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn remove_node(&self, _: Request<v1::RemoveNodeRequest>) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn rebalance(&self, _: Request<v1::RebalanceRequest>) -> Result<Response<v1::RebalanceResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn safe_to_stop(
        &self,
        _: Request<v1::SafeToStopRequest>,
    ) -> Result<Response<v1::SafeToStopResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }

    async fn transfer_leader(
        &self,
        _: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Err(Status::unimplemented("not in the fake"))
    }
}

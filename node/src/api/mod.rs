//! The public gRPC API: wire → domain, one function per call, domain → wire.
//!
//! ```text
//!  edge (admission, deadline) ─▶ Service ─┬─ put ─▶ routing ─▶ throttle ─▶ replication
//!                                         ├─ get ─▶ routing ─▶ throttle ─▶ read
//!                                         └─ streams, cluster ─▶ the catalog
//! ```
//! Invariant: wire types stay in this module, and errors become statuses in `error.rs` only.
//!
//! The functions take and give the API's messages, which nodes also forward calls with; the Kinesis face (`kinesis/`)
//! calls the same ones.
//!
//! Deliberately absent: authentication. TLS is beneath this, in `braid_transport`.

mod attributes;
mod autoscale;
mod cluster;
mod edge;
mod error;
mod get;
mod leader;
mod load;
mod moves;
mod page;
mod put;
mod reshard;
mod seats;
mod server;
mod streams;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use braid_env::watch;
use braid_probe::{Mark, reachable, sometimes};
use braid_proto::v1;
use braid_proto::v1::braid_server::Braid;
use braid_stream::record::RequestError;
use braid_stream::sequence::SequenceNumber;
use braid_transport::ClientTls;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::clock::NodeClock;
use crate::config::NodeConfig;
use crate::control::Membership;
use crate::index::RecordIndex;
use crate::metrics::NodeMetrics;
use crate::routing::Router;
use crate::routing::forward::is_forwarded;
use crate::throttle::ThrottleTable;

use edge::Deadline;
pub(crate) use error::{ApiError, Explained};
pub(crate) use get::Events;
use seats::Seats;
pub use server::serve;
pub(crate) use wire::Verdict;

/// Subscriptions one node serves or passes on; each holds an event of up to 1 MiB at most.
const SUBSCRIPTIONS: usize = 1_000;

/// The API of one node. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

/// What the calls share.
pub struct Parts {
    membership: Arc<Membership>,
    router: Router,
    throttle: ThrottleTable,
    index: Arc<dyn RecordIndex>,
    clock: NodeClock,
    metrics: Arc<NodeMetrics>,
    subscriptions: Arc<Semaphore>,
    seats: Seats,
    /// Turns true when the node stops: subscriptions would outlive any grace.
    stopping: watch::Sender<bool>,
    started: Instant,
    zone: String,
    client_advertise: String,
    default_retention_ms: u64,
    shard_count_limit: bool,
    election_timeout_ms: u64,
    deadline: Duration,
    /// Calls that are served at once take one each, whichever face they came to.
    places: Arc<Semaphore>,
}

impl std::ops::Deref for Service {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// How a call came in.
pub struct Call {
    /// From another node: it ends here.
    forwarded: bool,
    /// When its time is over.
    deadline: Instant,
}

impl Call {
    /// A client's own call.
    pub(crate) fn of_client(deadline: Instant) -> Call {
        Call { forwarded: false, deadline }
    }
}

impl Service {
    /// The API over what `membership` has joined, now or later. `tls`: nodes' client ports have it.
    pub fn new(
        config: &NodeConfig,
        membership: Arc<Membership>,
        index: Arc<dyn RecordIndex>,
        clock: NodeClock,
        metrics: Arc<NodeMetrics>,
        tls: Option<ClientTls>,
    ) -> Service {
        Service(Arc::new(Parts {
            router: Router::new(membership.clone(), tls),
            membership,
            throttle: ThrottleTable::new(config.throttle, metrics.clone()),
            index,
            clock,
            metrics,
            subscriptions: Arc::new(Semaphore::new(SUBSCRIPTIONS)),
            seats: Seats::default(),
            stopping: watch::channel(false).0,
            started: Instant::now(),
            zone: config.zone.as_str().to_string(),
            client_advertise: config.client_advertise.clone(),
            default_retention_ms: config.default_retention_hours * 3_600_000,
            shard_count_limit: config.shard_count_limit,
            election_timeout_ms: config.election_timeout_max_ms,
            deadline: Duration::from_millis(config.request_deadline_ms),
            places: Arc::new(Semaphore::new(config.max_concurrent_requests.min(Semaphore::MAX_PERMITS))),
        }))
    }

    /// The most time a call has.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Waits until this node knows of anything, or until `until`: it may have just been started.
    pub(crate) async fn opened(&self, until: Instant) {
        self.router.opened(until).await;
    }

    /// What calls that are served at once take one each of.
    pub(crate) fn places(&self) -> Arc<Semaphore> {
        self.places.clone()
    }

    /// Where calls are counted.
    pub(crate) fn metrics(&self) -> Arc<NodeMetrics> {
        self.metrics.clone()
    }

    /// This node's time.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn call<T>(&self, request: &Request<T>) -> Call {
        let deadline = request.extensions().get::<Deadline>().map(|it| it.0);
        Call {
            forwarded: is_forwarded(request.metadata()),
            deadline: deadline.unwrap_or_else(|| Instant::now() + self.deadline),
        }
    }
}

fn answer<T>(result: Result<T, ApiError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(Status::from)
}

#[tonic::async_trait]
impl Braid for Service {
    async fn create_stream(
        &self,
        request: Request<v1::CreateStreamRequest>,
    ) -> Result<Response<v1::CreateStreamResponse>, Status> {
        let call = self.call(&request);
        answer(self.create(request.get_ref(), &call).await)
    }

    async fn delete_stream(
        &self,
        request: Request<v1::DeleteStreamRequest>,
    ) -> Result<Response<v1::DeleteStreamResponse>, Status> {
        let call = self.call(&request);
        answer(self.delete(request.get_ref(), &call).await)
    }

    async fn update_stream(
        &self,
        request: Request<v1::UpdateStreamRequest>,
    ) -> Result<Response<v1::UpdateStreamResponse>, Status> {
        let call = self.call(&request);
        answer(self.update(request.get_ref(), &call).await)
    }

    async fn split_shard(
        &self,
        request: Request<v1::SplitShardRequest>,
    ) -> Result<Response<v1::SplitShardResponse>, Status> {
        let call = self.call(&request);
        answer(self.split(request.get_ref(), &call).await)
    }

    async fn merge_shards(
        &self,
        request: Request<v1::MergeShardsRequest>,
    ) -> Result<Response<v1::MergeShardsResponse>, Status> {
        let call = self.call(&request);
        answer(self.merge(request.get_ref(), &call).await)
    }

    async fn update_shard_count(
        &self,
        request: Request<v1::UpdateShardCountRequest>,
    ) -> Result<Response<v1::UpdateShardCountResponse>, Status> {
        let call = self.call(&request);
        answer(self.shard_count(request.get_ref(), &call).await)
    }

    async fn describe_shard_loads(
        &self,
        request: Request<v1::DescribeShardLoadsRequest>,
    ) -> Result<Response<v1::DescribeShardLoadsResponse>, Status> {
        let call = self.call(&request);
        answer(self.shard_loads(request.get_ref(), &call).await)
    }

    async fn describe_stream(
        &self,
        request: Request<v1::DescribeStreamRequest>,
    ) -> Result<Response<v1::DescribeStreamResponse>, Status> {
        let call = self.call(&request);
        answer(self.describe(request.get_ref(), &call).await)
    }

    async fn list_streams(
        &self,
        request: Request<v1::ListStreamsRequest>,
    ) -> Result<Response<v1::ListStreamsResponse>, Status> {
        answer(self.list(request.get_ref()))
    }

    async fn list_shards(
        &self,
        request: Request<v1::ListShardsRequest>,
    ) -> Result<Response<v1::ListShardsResponse>, Status> {
        let call = self.call(&request);
        answer(self.shards(request.get_ref(), &call).await)
    }

    async fn put_record(
        &self,
        request: Request<v1::PutRecordRequest>,
    ) -> Result<Response<v1::PutRecordResponse>, Status> {
        let call = self.call(&request);
        answer(self.put_one(request.into_inner(), &call).await)
    }

    async fn put_records(
        &self,
        request: Request<v1::PutRecordsRequest>,
    ) -> Result<Response<v1::PutRecordsResponse>, Status> {
        let call = self.call(&request);
        answer(self.put_many(request.into_inner(), &call).await)
    }

    async fn get_shard_iterator(
        &self,
        request: Request<v1::GetShardIteratorRequest>,
    ) -> Result<Response<v1::GetShardIteratorResponse>, Status> {
        let call = self.call(&request);
        answer(self.shard_iterator(request.get_ref(), &call).await)
    }

    async fn get_records(
        &self,
        request: Request<v1::GetRecordsRequest>,
    ) -> Result<Response<v1::GetRecordsResponse>, Status> {
        let call = self.call(&request);
        answer(self.records(request.get_ref(), &call).await)
    }

    type SubscribeToShardStream = Events;

    async fn subscribe_to_shard(
        &self,
        request: Request<v1::SubscribeToShardRequest>,
    ) -> Result<Response<Events>, Status> {
        let call = self.call(&request);
        answer(self.subscription(request.get_ref(), &call).await)
    }

    async fn change_attributes(
        &self,
        request: Request<v1::ChangeAttributesRequest>,
    ) -> Result<Response<v1::ChangeAttributesResponse>, Status> {
        let call = self.call(&request);
        answer(Service::change_attributes(self, request.get_ref(), &call).await)
    }

    async fn describe_attributes(
        &self,
        request: Request<v1::DescribeAttributesRequest>,
    ) -> Result<Response<v1::DescribeAttributesResponse>, Status> {
        let call = self.call(&request);
        answer(Service::describe_attributes(self, request.get_ref(), &call).await)
    }

    async fn update_account(
        &self,
        request: Request<v1::UpdateAccountRequest>,
    ) -> Result<Response<v1::UpdateAccountResponse>, Status> {
        let call = self.call(&request);
        answer(Service::update_account(self, request.get_ref(), &call).await)
    }

    async fn cluster_status(
        &self,
        _: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatusResponse>, Status> {
        answer(Service::cluster_status(self).await)
    }

    async fn node_status(&self, _: Request<v1::NodeStatusRequest>) -> Result<Response<v1::NodeStatusResponse>, Status> {
        answer(Service::node_status(self))
    }

    async fn replace_node(
        &self,
        request: Request<v1::ReplaceNodeRequest>,
    ) -> Result<Response<v1::ReplaceNodeResponse>, Status> {
        let call = self.call(&request);
        answer(self.replace(request.into_inner(), &call).await)
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let call = self.call(&request);
        answer(self.drain(request.into_inner(), &call).await)
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let call = self.call(&request);
        answer(self.remove(request.into_inner(), &call).await)
    }

    async fn rebalance(
        &self,
        request: Request<v1::RebalanceRequest>,
    ) -> Result<Response<v1::RebalanceResponse>, Status> {
        let call = self.call(&request);
        answer(self.even_out(request.into_inner(), &call).await)
    }

    async fn safe_to_stop(
        &self,
        request: Request<v1::SafeToStopRequest>,
    ) -> Result<Response<v1::SafeToStopResponse>, Status> {
        let call = self.call(&request);
        answer(self.may_stop(request.get_ref(), &call).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let call = self.call(&request);
        answer(self.transfer(request.into_inner(), &call).await)
    }
}

impl Service {
    async fn put_one(&self, message: v1::PutRecordRequest, call: &Call) -> Result<v1::PutRecordResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        if !message.sequence_number_for_ordering.is_empty() {
            // A shard's numbers only grow, so whatever number it gave out, this one will be greater.
            SequenceNumber::parse(&message.sequence_number_for_ordering)
                .map_err(|e| ApiError::invalid("sequence_number_for_ordering", e))?;
        }
        let record = wire::record("", message.data, message.partition_key, &message.explicit_hash_key)?;
        let verdicts = self.put(&name, vec![record], false, call).await.map_err(|error| match error {
            // This call has one record, and no list of them.
            ApiError::Request(RequestError::Record { error, .. }) => ApiError::invalid("data", error),
            error => error,
        })?;
        let verdict = verdicts.into_iter().next().expect("one record has one verdict");
        match verdict.outcome {
            Ok(number) => {
                reachable!(Mark::PutRecordAcknowledged);
                Ok(v1::PutRecordResponse { shard_id: verdict.shard.name(), sequence_number: number.to_string() })
            }
            Err(why) => Err(ApiError::Passed(why.into_status())),
        }
    }

    async fn put_many(&self, message: v1::PutRecordsRequest, call: &Call) -> Result<v1::PutRecordsResponse, ApiError> {
        let name = wire::stream_name(&message.stream_name)?;
        let records = wire::records(message.records)?;
        let verdicts = self.put(&name, records, message.keep_order, call).await?;
        let failed = verdicts.iter().filter(|verdict| verdict.outcome.is_err()).count();
        sometimes!(failed > 0 && failed < verdicts.len(), Mark::PutRecordsPartial);
        reachable!(Mark::PutRecordsAnswered);
        Ok(v1::PutRecordsResponse {
            failed_record_count: u32::try_from(failed).expect("a request has at most 500 records"),
            records: verdicts.into_iter().map(wire::verdict).collect(),
        })
    }
}

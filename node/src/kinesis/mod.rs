//! The Kinesis face: the service's HTTP API over the functions that the gRPC face calls.
//!
//! ```text
//!  door ─▶ access ─▶ wire::read ─▶ an operation ─▶ api::Service ─▶ … as in gRPC
//!   HTTP    who        Value        Value ↔ v1                      wire::write ─▶ door
//! ```
//! Invariant: an operation translates, and does nothing that a function of `api` could do; so both faces have one
//! behaviour. Faults are made in `error.rs`, from what those functions say.
//!
//! Deliberately absent: routing, throttling and anything about the cluster; TLS; channels and queues, which are answered as
//! operations that do not exist.

mod access;
mod door;
mod error;
mod iterator;
mod names;
mod records;
mod shards;
mod streams;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use tokio::sync::Semaphore;

pub use access::Access;
pub use door::{Door, DoorLayer};
pub use names::{Home, is_account, is_region};

use crate::api::{Call, Service};
use crate::metrics::NodeMetrics;
use names::{Caller, Named};
use wire::fault::{Fault, FaultKind};
use wire::table::Operation;
use wire::value::Structure;

/// The face of one node. Cheap to clone.
#[derive(Clone)]
pub struct Face(Arc<Parts>);

/// What its calls share.
struct Parts {
    service: Service,
    home: Home,
    access: Access,
    /// Shared with the gRPC face: requests that are served at once.
    places: Arc<Semaphore>,
    deadline: Duration,
    metrics: Arc<NodeMetrics>,
}

/// One call: who asks, and until when.
struct Asked<'a> {
    face: &'a Parts,
    caller: Caller,
    call: Call,
}

impl Face {
    /// The face over `service`.
    pub fn new(service: Service, home: Home, access: Access, places: Arc<Semaphore>) -> Face {
        let (deadline, metrics) = (service.deadline(), service.metrics());
        Face(Arc::new(Parts { service, home, access, places, deadline, metrics }))
    }
}

impl Parts {
    /// Serves a call whose caller is known; `None` for an operation that answers nothing.
    async fn serve(
        &self,
        operation: &Operation,
        input: Structure,
        caller: Caller,
        deadline: Instant,
    ) -> Result<Option<Structure>, Fault> {
        let asked = Asked { face: self, caller, call: Call::of_client(deadline) };
        if input.is_set("DryRun") {
            let text = "Request would have succeeded, but DryRun flag is set.";
            return Err(Fault::new(FaultKind::DryRunOperation, text));
        }
        // Each in a box: together they would make one future of all operations' sizes.
        match operation.name {
            "PutRecord" => Box::pin(asked.put_record(input)).await.map(Some),
            "PutRecords" => Box::pin(asked.put_records(input)).await.map(Some),
            "GetShardIterator" => Box::pin(asked.get_shard_iterator(&input)).await.map(Some),
            "GetRecords" => Box::pin(asked.get_records(&input)).await.map(Some),
            "CreateStream" => Box::pin(asked.create_stream(&input)).await.map(|()| None),
            "DeleteStream" => Box::pin(asked.delete_stream(&input)).await.map(|()| None),
            "DescribeStream" => Box::pin(asked.describe_stream(&input)).await.map(Some),
            "DescribeStreamSummary" => Box::pin(asked.describe_stream_summary(&input)).await.map(Some),
            "ListStreams" => Box::pin(asked.list_streams(&input)).await.map(Some),
            "IncreaseStreamRetentionPeriod" => Box::pin(asked.set_retention(&input, true)).await.map(|()| None),
            "DecreaseStreamRetentionPeriod" => Box::pin(asked.set_retention(&input, false)).await.map(|()| None),
            "UpdateMaxRecordSize" => Box::pin(asked.update_max_record_size(&input)).await.map(|()| None),
            "ListShards" => Box::pin(asked.list_shards(&input)).await.map(Some),
            "SplitShard" => Box::pin(asked.split_shard(&input)).await.map(|()| None),
            "MergeShards" => Box::pin(asked.merge_shards(&input)).await.map(|()| None),
            "UpdateShardCount" => Box::pin(asked.update_shard_count(&input)).await.map(Some),
            _ => Err(Fault { kind: FaultKind::UnknownOperation, message: None }),
        }
    }
}

impl Asked<'_> {
    /// The stream that an input names, by name or ARN.
    fn stream(&self, input: &Structure) -> Result<Named, Fault> {
        self.face.home.stream(&self.caller, input.text("StreamName"), input.text("StreamARN"))
    }
}

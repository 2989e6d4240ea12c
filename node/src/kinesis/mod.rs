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
mod attributes;
mod consumers;
#[cfg(any(test, feature = "fuzzing"))]
pub mod decoders;
mod door;
mod error;
mod iterator;
mod names;
mod policy;
mod rates;
mod records;
#[cfg(test)]
mod requests_tests;
mod shards;
mod signature;
mod streams;
mod subscribe;
pub mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use braid_env::time::Instant;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::body::Body;

pub use access::{Access, CredentialsError};
pub use door::{Door, DoorLayer};
pub use names::{Home, is_account, is_region};

use crate::api::{Call, Service};
use crate::metrics::NodeMetrics;
use access::Admitted;
use names::{Caller, Named, Resource};
use policy::{Policy, SHARED};
use rates::Rates;
use subscribe::Frames;
use wire::Form;
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
    /// `None`: an account may call as often as it likes.
    rates: Option<Rates>,
    /// Shared with the gRPC face: requests that are served at once.
    places: Arc<Semaphore>,
    deadline: Duration,
    metrics: Arc<NodeMetrics>,
}

/// One call: who asks for what, and until when.
struct Asked<'a> {
    face: &'a Parts,
    operation: &'a Operation,
    admitted: Admitted,
    caller: Caller,
    call: Call,
}

impl Face {
    /// The face over `service`. `limited`: accounts are held to the service's numbers of calls a second, streams and shards.
    pub fn new(service: Service, home: Home, access: Access, limited: bool) -> Face {
        let (places, deadline, metrics) = (service.places(), service.deadline(), service.metrics());
        let rates = limited.then(Rates::new);
        Face(Arc::new(Parts { service, home, access, rates, places, deadline, metrics }))
    }

    /// Answers a request: one that came to the client port and is not gRPC.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        door::answer(self.0.clone(), request).await
    }
}

/// What a call is answered with.
enum Answer {
    /// An output.
    Output(Structure),
    /// Nothing: no body at all.
    Nothing,
    /// A stream of events.
    Events(Frames),
}

/// An operation's future: boxed, or all of them together would make one of all their sizes.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answer, Fault>> + Send + 'a>>;

fn output<'a>(it: impl Future<Output = Result<Structure, Fault>> + Send + 'a) -> Answering<'a> {
    Box::pin(async move { it.await.map(Answer::Output) })
}

fn nothing<'a>(it: impl Future<Output = Result<(), Fault>> + Send + 'a) -> Answering<'a> {
    Box::pin(async move { it.await.map(|()| Answer::Nothing) })
}

impl Parts {
    /// Serves a call whose caller is known.
    async fn serve(
        &self,
        operation: &Operation,
        input: Structure,
        form: Form,
        admitted: Admitted,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        let caller = admitted.caller.clone();
        let asked = Asked { face: self, operation, admitted, caller, call: Call::of_client(deadline) };
        asked.check(&input)?;
        if input.is_set("DryRun") {
            let text = "Request would have succeeded, but DryRun flag is set.";
            return Err(Fault::new(FaultKind::DryRunOperation, text));
        }
        let (asked, given) = (&asked, &input);
        let answering = match operation.name {
            // These two are given their input: its records are moved out of it.
            "PutRecord" => return output(asked.put_record(input)).await,
            "PutRecords" => return output(asked.put_records(input)).await,
            "GetShardIterator" => output(asked.get_shard_iterator(given)),
            "GetRecords" => output(asked.get_records(given)),
            "SubscribeToShard" => Box::pin(async { asked.subscribe(given, form).await.map(Answer::Events) }),
            "CreateStream" => nothing(asked.create_stream(given)),
            "DeleteStream" => nothing(asked.delete_stream(given)),
            "DescribeStream" => output(asked.describe_stream(given)),
            "DescribeStreamSummary" => output(asked.describe_stream_summary(given)),
            "ListStreams" => output(asked.list_streams(given)),
            "IncreaseStreamRetentionPeriod" => nothing(asked.set_retention(given, true)),
            "DecreaseStreamRetentionPeriod" => nothing(asked.set_retention(given, false)),
            "UpdateMaxRecordSize" => nothing(asked.update_max_record_size(given)),
            "ListShards" => output(asked.list_shards(given)),
            "SplitShard" => nothing(asked.split_shard(given)),
            "MergeShards" => nothing(asked.merge_shards(given)),
            "UpdateShardCount" => output(asked.update_shard_count(given)),
            "RegisterStreamConsumer" => output(asked.register_consumer(given)),
            "DeregisterStreamConsumer" => nothing(asked.deregister_consumer(given)),
            "DescribeStreamConsumer" => output(asked.describe_consumer(given)),
            "ListStreamConsumers" => output(asked.list_consumers(given)),
            "AddTagsToStream" => nothing(asked.tag_stream(given)),
            "RemoveTagsFromStream" => nothing(asked.untag_stream(given)),
            "ListTagsForStream" => output(asked.list_tags_for_stream(given)),
            "TagResource" => nothing(asked.tag_resource(given)),
            "UntagResource" => nothing(asked.untag_resource(given)),
            "ListTagsForResource" => output(asked.list_tags_for_resource(given)),
            "PutResourcePolicy" => nothing(asked.put_policy(given)),
            "GetResourcePolicy" => output(asked.get_policy(given)),
            "DeleteResourcePolicy" => nothing(asked.delete_policy(given)),
            "StartStreamEncryption" => nothing(asked.set_encryption(given, true)),
            "StopStreamEncryption" => nothing(asked.set_encryption(given, false)),
            "EnableEnhancedMonitoring" => output(asked.set_monitoring(given, true)),
            "DisableEnhancedMonitoring" => output(asked.set_monitoring(given, false)),
            "UpdateStreamMode" => nothing(asked.update_mode(given)),
            "UpdateStreamWarmThroughput" => output(asked.update_warm_throughput(given)),
            "DescribeLimits" => output(asked.describe_limits()),
            "DescribeAccountSettings" => output(asked.describe_account()),
            "UpdateAccountSettings" => output(asked.update_account(given)),
            // A test sees to it that there is none.
            _ => return Err(Fault { kind: FaultKind::UnknownOperation, message: None }),
        };
        answering.await
    }
}

impl Asked<'_> {
    /// Whether the caller may do this to what the input names, and so soon again; for an iterator or a token, which name nothing that can be
    /// read here, it is asked again once their stream is known.
    fn check(&self, input: &Structure) -> Result<(), Fault> {
        let home = &self.face.home;
        let stream = |stream| Resource { stream, consumer: None };
        let resource = match (input.text("ResourceARN").or(input.text("ConsumerARN")), input.text("StreamARN")) {
            (Some(arn), _) => Some(home.resource(arn)?),
            (None, Some(arn)) => Some(stream(home.arn(arn)?)),
            (None, None) => match input.text("StreamName") {
                Some(name) => Some(stream(home.name(&self.caller.account, &self.caller.region, name)?)),
                None => None,
            },
        };
        self.allows(resource.as_ref())?;
        match &self.face.rates {
            Some(rates) => rates.count(&self.caller, self.operation.name, resource.as_ref()),
            None => Ok(()),
        }
    }

    fn allows(&self, resource: Option<&Resource>) -> Result<(), Fault> {
        let shared = self.admitted.is_known() && SHARED.contains(&self.operation.name);
        let policy = resource.filter(|_| shared).and_then(|it| self.policy(it));
        self.admitted.allows(self.operation.name, resource, policy.as_ref())
    }

    fn allows_stream(&self, stream: &Named) -> Result<(), Fault> {
        self.allows(Some(&Resource { stream: stream.clone(), consumer: None }))
    }

    /// As this node's copy of the catalog has it, behind by a heartbeat at most: this is asked for every record.
    fn policy(&self, of: &Resource) -> Option<Policy> {
        let consumer = of.consumer.as_ref().map(|it| (it.name.as_str(), it.created_s));
        let text = self.face.service.policy(&of.stream.name, consumer)?;
        // One from before policies were read when put: what can't be read allows nothing.
        Policy::parse(&text).ok()
    }

    /// The stream that an input names, by name or ARN.
    fn stream(&self, input: &Structure) -> Result<Named, Fault> {
        self.face.home.stream(&self.caller, input.text("StreamName"), input.text("StreamARN"))
    }
}

#[cfg(test)]
mod tests {
    use super::wire::table::table;

    #[test]
    fn every_operation_of_the_table_is_served() {
        let source = include_str!("mod.rs");
        let missing = table().operations().filter(|it| !source.contains(&format!("\"{}\" =>", it.name)));
        assert_eq!(missing.map(|it| it.name).collect::<Vec<_>>(), Vec::<&str>::new());
    }
}

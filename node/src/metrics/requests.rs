//! Series per method of the API.
//!
//! Invariant: labels are names of our own methods and gRPC's codes, never a caller's text, so the
//! number of series is bounded.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::{Registry, names};

/// Every method, of either face; what is not among them is counted as `other`.
pub const METHODS: &[&str] = &[
    "AddTagsToStream",
    "ChangeAttributes",
    "ClusterStatus",
    "CreateStream",
    "DecreaseStreamRetentionPeriod",
    "DeleteResourcePolicy",
    "DeleteStream",
    "DeregisterStreamConsumer",
    "DescribeAccountSettings",
    "DescribeAttributes",
    "DescribeLimits",
    "DescribeShardLoads",
    "DescribeStream",
    "DescribeStreamConsumer",
    "DescribeStreamSummary",
    "DisableEnhancedMonitoring",
    "DrainNode",
    "EnableEnhancedMonitoring",
    "GetRecords",
    "GetResourcePolicy",
    "GetShardIterator",
    "IncreaseStreamRetentionPeriod",
    "ListShards",
    "ListStreamConsumers",
    "ListStreams",
    "ListTagsForResource",
    "ListTagsForStream",
    "MergeShards",
    "NodeStatus",
    "PutRecord",
    "PutRecords",
    "PutResourcePolicy",
    "Rebalance",
    "RegisterStreamConsumer",
    "RemoveNode",
    "RemoveTagsFromStream",
    "ReplaceNode",
    "SafeToStop",
    "SplitShard",
    "StartStreamEncryption",
    "StopStreamEncryption",
    "SubscribeToShard",
    "TagResource",
    "TransferLeader",
    "UntagResource",
    "UpdateAccount",
    "UpdateAccountSettings",
    "UpdateMaxRecordSize",
    "UpdateShardCount",
    "UpdateStream",
    "UpdateStreamMode",
    "UpdateStreamWarmThroughput",
    "other",
];

/// gRPC's codes by name, in the order of their numbers.
pub const CODES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The API's series.
pub struct RequestTable {
    registry: Registry,
    seconds: BTreeMap<&'static str, Histogram>,
    /// Registered when first seen: most of the 300 pairs never are.
    answered: RwLock<BTreeMap<(&'static str, &'static str), Counter>>,
    /// Refused because too many were being served.
    pub shed: Counter,
    /// Sent on to the leader's node.
    pub forwarded: Counter,
    /// Being served.
    pub in_flight: Gauge,
}

impl RequestTable {
    pub(super) fn new(registry: &Registry) -> RequestTable {
        let seconds =
            |method: &&'static str| (*method, registry.histogram(names::REQUEST_SECONDS, &[("method", *method)]));
        RequestTable {
            seconds: METHODS.iter().map(seconds).collect(),
            answered: RwLock::default(),
            shed: registry.counter(names::REQUESTS_SHED, &[]),
            forwarded: registry.counter(names::REQUESTS_FORWARDED, &[]),
            in_flight: registry.gauge(names::REQUESTS_IN_FLIGHT, &[]),
            registry: registry.clone(),
        }
    }

    /// Counts an answered request; `method` and `code` are taken from [`METHODS`] and [`CODES`].
    pub fn done(&self, method: &'static str, code: &'static str, took: Duration) {
        if let Some(seconds) = self.seconds.get(method) {
            seconds.record(took.as_secs_f64());
        }
        if let Some(counter) = self.answered.read().expect("no one panics while counting").get(&(method, code)) {
            return counter.increment(1);
        }
        let mut answered = self.answered.write().expect("no one panics while counting");
        answered
            .entry((method, code))
            .or_insert_with(|| self.registry.counter(names::REQUESTS, &[("method", method), ("code", code)]))
            .increment(1);
    }
}

/// The method's name among [`METHODS`].
pub fn method(name: &str) -> &'static str {
    METHODS.iter().find(|known| **known == name).copied().unwrap_or("other")
}

/// The name of gRPC's code `number`.
pub fn code(number: i32) -> &'static str {
    usize::try_from(number).ok().and_then(|n| CODES.get(n)).copied().unwrap_or("UNKNOWN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_cannot_make_series() {
        assert_eq!(method("PutRecord"), "PutRecord");
        assert_eq!(method("DropTables"), "other");
        assert_eq!((code(0), code(16), code(99), code(-1)), ("OK", "UNAUTHENTICATED", "UNKNOWN", "UNKNOWN"));
        assert_eq!(code(tonic::Code::ResourceExhausted as i32), "RESOURCE_EXHAUSTED");
    }
}

//! How often an account may call each operation of the control plane: the service's numbers, where a setting asks for them.
//!
//! Invariant: within any second an account, or an account's stream where the service counts by stream, is given at most
//! the operation's number by this node, and as many again where it asked for none just before: a bucket of one second's worth.
//! Each node counts what it is asked itself.
//!
//! Not here: the rates of shards (`throttle/`), and UpdateShardCount's ten calls a day (the catalog's).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use braid_env::time::Instant;
use braid_stream::throttle::TokenBucket;

use super::names::{Caller, Resource};
use super::wire::fault::{Fault, FaultKind};

/// What calls are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Account,
    Stream,
}

/// Calls a second, from the model's texts.
const RATES: &[(&str, u64, Of)] = &[
    ("AddTagsToStream", 5, Of::Account),
    ("CreateStream", 5, Of::Account),
    ("DeleteStream", 5, Of::Account),
    ("DeregisterStreamConsumer", 5, Of::Stream),
    ("DescribeAccountSettings", 5, Of::Account),
    ("DescribeLimits", 1, Of::Account),
    ("DescribeStream", 10, Of::Account),
    ("DescribeStreamConsumer", 20, Of::Stream),
    ("DescribeStreamSummary", 20, Of::Account),
    ("ListShards", 1_000, Of::Stream),
    ("ListStreamConsumers", 5, Of::Stream),
    ("ListStreams", 5, Of::Account),
    ("ListTagsForResource", 5, Of::Account),
    ("ListTagsForStream", 5, Of::Account),
    ("MergeShards", 5, Of::Account),
    ("RegisterStreamConsumer", 5, Of::Account),
    ("RemoveTagsFromStream", 5, Of::Account),
    ("SplitShard", 5, Of::Account),
    ("TagResource", 5, Of::Account),
    ("UntagResource", 5, Of::Account),
    ("UpdateAccountSettings", 5, Of::Account),
    ("UpdateShardCount", 10, Of::Account),
    ("UpdateStreamWarmThroughput", 5, Of::Account),
];

/// Buckets that are kept before the full ones, which say nothing, are cleared away.
const SWEEP_AT: usize = 1_024;

/// What this node has been asked in the last second.
pub struct Rates {
    started: Instant,
    buckets: Mutex<Buckets>,
}

/// Account, region, operation, and the stream where that is what counts.
type Counted = (String, String, &'static str, String);

struct Buckets {
    of: BTreeMap<Counted, TokenBucket>,
    sweep_at: usize,
}

impl Rates {
    /// Nothing asked yet.
    pub fn new() -> Rates {
        Rates { started: Instant::now(), buckets: Mutex::new(Buckets { of: BTreeMap::new(), sweep_at: SWEEP_AT }) }
    }

    /// Counts a call; a LimitExceededException if it is one too many.
    pub fn count(&self, caller: &Caller, operation: &str, resource: Option<&Resource>) -> Result<(), Fault> {
        self.count_at(Instant::now() - self.started, caller, operation, resource)
    }

    fn count_at(
        &self,
        now: Duration,
        caller: &Caller,
        operation: &str,
        resource: Option<&Resource>,
    ) -> Result<(), Fault> {
        let Some(&(name, rate, of)) = RATES.iter().find(|it| it.0 == operation) else { return Ok(()) };
        let stream = match of {
            Of::Account => String::new(),
            Of::Stream => resource.map_or(String::new(), |it| it.stream.name.as_str().to_string()),
        };
        let mut buckets = self.buckets.lock().expect("nothing panics while it is locked");
        buckets.sweep(now);
        let key = (caller.account.clone(), caller.region.clone(), name, stream);
        let bucket = buckets.of.entry(key).or_insert_with(|| TokenBucket::full(rate, now));
        if bucket.wait(now, 1).is_zero() {
            bucket.take(now, 1);
            return Ok(());
        }
        let whose = match (of, resource) {
            (Of::Stream, Some(it)) => format!("stream {} under account {}", it.stream.local(), it.stream.account),
            _ => format!("account {}", caller.account),
        };
        let text = format!("Rate exceeded for {whose}: at most {rate} calls of {name} per second are allowed.");
        Err(Fault::new(FaultKind::LimitExceeded, text))
    }
}

impl Buckets {
    fn sweep(&mut self, now: Duration) {
        if self.of.len() < self.sweep_at {
            return;
        }
        self.of.retain(|_, bucket| {
            bucket.wait(now, 0);
            bucket.used_percent() > 0
        });
        self.sweep_at = SWEEP_AT.max(2 * self.of.len());
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::Home;
    use super::super::wire::table::table;
    use super::*;

    fn caller(account: &str) -> Caller {
        Caller { account: account.into(), region: "us-east-1".into() }
    }

    #[test]
    fn every_operation_that_is_counted_is_one() {
        assert!(RATES.iter().all(|it| table().operation(it.0).is_some()));
    }

    #[test]
    fn an_account_is_given_so_many_calls_a_second_and_others_theirs() {
        let (rates, me, other) = (Rates::new(), caller("000000000000"), caller("123456789012"));
        for (operation, rate, of) in RATES {
            let now = Duration::from_secs(60);
            let home = Home { account: "000000000000".into(), region: "us-east-1".into() };
            let stream =
                |name| Resource { stream: home.name("000000000000", "us-east-1", name).unwrap(), consumer: None };
            let (a, b) = (stream("a"), stream("b"));
            let count = |now, caller: &Caller, on: &Resource| rates.count_at(now, caller, operation, Some(on));
            for _ in 0..*rate {
                assert_eq!(count(now, &me, &a), Ok(()), "{operation}");
            }
            let fault = count(now, &me, &a).unwrap_err();
            assert_eq!(fault.kind, FaultKind::LimitExceeded);
            assert!(fault.message.unwrap().contains(&format!("at most {rate} calls of {operation}")));
            assert_eq!(count(now, &other, &a), Ok(()), "{operation}: another account");
            assert_eq!(count(now, &me, &b).is_ok(), *of == Of::Stream, "{operation}: another stream");
            let later = now + Duration::from_nanos(1_000_000_000_u64.div_ceil(*rate));
            assert_eq!(count(later, &me, &a), Ok(()), "{operation}: one more after its part of a second");
            assert!(count(later, &me, &a).is_err(), "{operation}");
        }
        for _ in 0..10_000 {
            assert_eq!(rates.count_at(Duration::ZERO, &me, "PutRecord", None), Ok(()));
        }
    }

    #[test]
    fn accounts_that_ask_no_more_are_forgotten() {
        let rates = Rates::new();
        for nth in 0..10 * SWEEP_AT {
            let now = Duration::from_millis(nth as u64);
            rates.count_at(now, &caller(&format!("{nth:012}")), "ListStreams", None).unwrap();
        }
        // Each bucket is full again after a fifth of a second.
        assert!(rates.buckets.lock().unwrap().of.len() <= 2 * SWEEP_AT);
    }
}

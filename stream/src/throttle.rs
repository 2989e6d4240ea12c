//! Per-shard limits as token buckets, in whole numbers.
//!
//! Invariant: within any window, what a [`TokenBucket`] accepts is at most rate × window + burst,
//! exactly, however long the window and however finely it is cut: a token is 10^9 parts, one
//! nanosecond at rate r earns r parts, and nothing is ever rounded. The one exception is a single
//! amount larger than the burst: it is admitted when the bucket is full and leaves a debt, so the
//! bound becomes rate × window + that amount.
//!
//! Not here: the clock (callers pass monotonic time) and waiting. Buckets aren't replicated; a new
//! leader starts with empty ones, so failover never doubles a limit.

use std::fmt;
use std::time::Duration;

use braid_probe::{Bug, Mark, planted, reachable};

use crate::limits::Limits;

const PARTS: i128 = 1_000_000_000;

/// Earns `rate` tokens a second, up to one second's worth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenBucket {
    rate: u64,
    /// In parts of a token; below zero is debt.
    level: i128,
    /// The level is as of then. Monotonic time since any fixed moment.
    as_of: Duration,
}

impl TokenBucket {
    /// Panics if `rate` (tokens per second) is 0.
    pub fn full(rate: u64, now: Duration) -> TokenBucket {
        let mut bucket = TokenBucket::empty(rate, now);
        bucket.level = bucket.capacity();
        bucket
    }

    pub fn empty(rate: u64, now: Duration) -> TokenBucket {
        assert!(rate > 0, "a bucket that earns nothing never admits");
        TokenBucket { rate, level: 0, as_of: now }
    }

    /// Keeps what is there, up to the new capacity.
    pub fn set_rate(&mut self, rate: u64, now: Duration) {
        assert!(rate > 0, "a bucket that earns nothing never admits");
        self.refill(now);
        self.rate = rate;
        self.level = self.level.min(self.capacity());
    }

    /// Zero if `amount` may be taken now, else how long until it may, if nothing else is taken. An
    /// amount above the capacity needs a full bucket.
    pub fn wait(&mut self, now: Duration, amount: u64) -> Duration {
        self.refill(now);
        let needed = (i128::from(amount) * PARTS).min(self.capacity());
        self.until(needed)
    }

    /// Takes `amount` whatever is there; call it after [`TokenBucket::wait`] gave zero.
    pub fn take(&mut self, now: Duration, amount: u64) {
        self.refill(now);
        self.level -= i128::from(amount) * PARTS;
    }

    /// How much of a second's worth is used up, in percent; above 100 when in debt.
    pub fn used_percent(&self) -> u64 {
        let used = self.capacity() - self.level;
        u64::try_from(used * 100 / self.capacity()).unwrap_or(u64::MAX)
    }

    fn capacity(&self) -> i128 {
        let seconds = if planted(Bug::BurstDoubled) { 2 } else { 1 };
        i128::from(self.rate) * PARTS * seconds
    }

    fn refill(&mut self, now: Duration) {
        // Time that seems to go back earns nothing and costs nothing.
        let Some(elapsed) = now.checked_sub(self.as_of) else {
            return;
        };
        let earned = i128::from(self.rate).saturating_mul(elapsed.as_nanos() as i128);
        self.level = self.level.saturating_add(earned).min(self.capacity());
        self.as_of = now;
    }

    fn until(&self, needed: i128) -> Duration {
        let missing = (needed - self.level).max(0);
        // Rounded up, so that one who waits this long does find what it needs.
        let nanos =
            missing.div_euclid(i128::from(self.rate)) + i128::from(missing.rem_euclid(i128::from(self.rate)) > 0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Which limit a shard met.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Limit {
    BytesIn,
    RecordsIn,
    BytesOut,
    CallsOut,
}

/// A refusal: nothing was taken from any bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Throttled {
    pub limit: Limit,
    /// What the limit allows in a second.
    pub per_s: u64,
    /// When the same request would pass if nothing else came before it; at least 1.
    pub retry_after_ms: u64,
    /// How much of the last second's worth is used, above 100 when in debt.
    pub used_percent: u64,
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.limit {
            Limit::BytesIn => "bytes written",
            Limit::RecordsIn => "records written",
            Limit::BytesOut => "bytes read",
            Limit::CallsOut => "read calls",
        };
        write!(
            f,
            "shard allows {} {what} per second and {}% is used: try again in {} ms",
            self.per_s, self.used_percent, self.retry_after_ms
        )
    }
}

impl std::error::Error for Throttled {}

/// One shard's four buckets, on its leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardThrottle {
    bytes_in: TokenBucket,
    records_in: TokenBucket,
    bytes_out: TokenBucket,
    calls_out: TokenBucket,
}

impl ShardThrottle {
    /// For a shard that was just opened.
    pub fn full(limits: &Limits, now: Duration) -> ShardThrottle {
        ShardThrottle::new(limits, |rate| TokenBucket::full(rate, now))
    }

    /// For a shard that never had a record, under a new leader: nothing was written, but it may have been read.
    pub fn unwritten(limits: &Limits, now: Duration, since: Duration) -> ShardThrottle {
        let (full, empty) = (ShardThrottle::full(limits, now), ShardThrottle::empty(limits, since));
        ShardThrottle { bytes_in: full.bytes_in, records_in: full.records_in, ..empty }
    }

    /// For a new leader: what the old one admitted in the last second is unknown, so assume all.
    pub fn empty(limits: &Limits, now: Duration) -> ShardThrottle {
        ShardThrottle::new(limits, |rate| TokenBucket::empty(rate, now))
    }

    fn new(limits: &Limits, bucket: impl Fn(u64) -> TokenBucket) -> ShardThrottle {
        ShardThrottle {
            bytes_in: bucket(limits.write_bytes_per_s),
            records_in: bucket(limits.write_records_per_s),
            bytes_out: bucket(limits.read_bytes_per_s),
            calls_out: bucket(limits.read_calls_per_s),
        }
    }

    pub fn set_limits(&mut self, limits: &Limits, now: Duration) {
        self.bytes_in.set_rate(limits.write_bytes_per_s, now);
        self.records_in.set_rate(limits.write_records_per_s, now);
        self.bytes_out.set_rate(limits.read_bytes_per_s, now);
        self.calls_out.set_rate(limits.read_calls_per_s, now);
    }

    /// Admits one record of `bytes` (data and key) or says which limit it met. A record larger than
    /// a second's worth is admitted by a full bucket and leaves it in debt: the shard then takes
    /// nothing until the debt is earned back.
    pub fn write(&mut self, now: Duration, bytes: u64) -> Result<(), Throttled> {
        let bytes = if planted(Bug::BytesRoundedDown) { bytes & !0x3ff } else { bytes };
        let by_bytes = (self.bytes_in.wait(now, bytes), Limit::BytesIn);
        let by_records = (self.records_in.wait(now, 1), Limit::RecordsIn);
        let (wait, limit) = by_bytes.max(by_records);
        if wait > Duration::ZERO {
            if planted(Bug::RefundOnRefusal) {
                self.records_in.level += PARTS;
                self.bytes_in.level += i128::from(bytes) * PARTS;
            }
            return Err(self.refusal(limit, wait));
        }
        self.bytes_in.take(now, bytes);
        self.records_in.take(now, 1);
        Ok(())
    }

    /// Admits one read call. How much it will read is not known yet: it may start unless earlier
    /// reads left a debt, and reports with [`ShardThrottle::read_done`].
    pub fn read(&mut self, now: Duration) -> Result<(), Throttled> {
        let by_bytes = (self.bytes_out.wait(now, 0), Limit::BytesOut);
        let by_calls = (self.calls_out.wait(now, 1), Limit::CallsOut);
        let (wait, limit) = by_bytes.max(by_calls);
        if wait > Duration::ZERO {
            return Err(self.refusal(limit, wait));
        }
        self.calls_out.take(now, 1);
        Ok(())
    }

    /// Charges what an admitted call has read. More than a second's worth at once forfeits what was
    /// saved up, so that the full 10 MiB at 2 MiB/s hold off the next call for 5 s, as in Kinesis.
    pub fn read_done(&mut self, now: Duration, bytes: u64) {
        if planted(Bug::ReadsNotCharged) {
            return;
        }
        self.bytes_out.take(now, bytes);
        let cost = i128::from(bytes) * PARTS;
        if cost > self.bytes_out.capacity() {
            self.bytes_out.level = self.bytes_out.level.min(-cost);
        }
    }

    fn refusal(&self, limit: Limit, wait: Duration) -> Throttled {
        let bucket = match limit {
            Limit::BytesIn => &self.bytes_in,
            Limit::RecordsIn => &self.records_in,
            Limit::BytesOut => &self.bytes_out,
            Limit::CallsOut => &self.calls_out,
        };
        match limit {
            Limit::BytesIn => reachable!(Mark::ThrottledBytes),
            Limit::RecordsIn => reachable!(Mark::ThrottledRecords),
            Limit::BytesOut | Limit::CallsOut => reachable!(Mark::ThrottledReads),
        }
        let retry_after_ms = wait.as_nanos().div_ceil(1_000_000);
        Throttled {
            limit,
            per_s: bucket.rate,
            retry_after_ms: u64::try_from(retry_after_ms).unwrap_or(u64::MAX),
            used_percent: bucket.used_percent(),
        }
    }
}

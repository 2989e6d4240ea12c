//! Everything at once for a while: steady writers, a reader, splits and merges every few seconds, and a `kill -9`
//! from time to time. At the end, what was acknowledged is read back, and the writers' longest waits are told.

use std::path::Path;
use std::time::{Duration, Instant};

use braid_client::{HashKey, StreamSettings};
use braid_env::random;

use crate::cluster::{Cluster, NODES};
use crate::history::{Read, Seen, Write};
use crate::load::{Load, Reading, read_all, violations};
use crate::reshard::{Changes, Resharding};

const STREAM: &str = "sensors";

/// Writers, each with a key of its own.
const WRITERS: usize = 48;

/// A writer's records: 20 a second.
const PACE: Duration = Duration::from_millis(50);

/// The shards at the beginning.
const SHARDS: u32 = 8;

/// How long a killed node stays down, at most, in ms.
const DOWN_MS: u64 = 10_000;

/// A kill is felt for so long: a node is down for up to 10 s, and comes back.
const AFTERMATH: Duration = Duration::from_secs(20);

/// How long, and how often a node is killed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// In all.
    pub duration: Duration,
    /// From one `kill -9` to the next.
    pub kill_every: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Everything that is wrong; empty if nothing is.
    pub violations: Vec<String>,
    /// What was put.
    pub writes: Vec<Write>,
    /// Splits and merges.
    pub changes: Changes,
    /// When nodes were killed.
    pub kills: Vec<Instant>,
    /// Records that the reader beside the writers got, and that a reader got afterwards.
    pub read: (usize, usize),
}

/// Runs three nodes of `binary` by `plan`.
pub async fn run(binary: &Path, plan: Plan) -> Report {
    let mut cluster = Cluster::start(binary, "").await;
    let client = cluster.client().await;
    client.create_and_wait_active(STREAM, SHARDS, StreamSettings::default()).await.expect("a stream");
    let began = Instant::now();
    let beside = Reading::start(&client, STREAM).await;
    let load = Load::start(&client, STREAM, "w", WRITERS, PACE).await;
    let resharding = Resharding::start(&client, STREAM);
    let mut kills = Vec::new();
    for nth in 0.. {
        let next = plan.kill_every * nth + plan.kill_every / 2;
        if next >= plan.duration {
            break;
        }
        tokio::time::sleep_until((began + next).into()).await;
        let node = random::below(NODES as u64) as usize;
        kills.push(Instant::now());
        cluster.restart(&[node], Duration::from_millis(random::below(DOWN_MS))).await;
    }
    tokio::time::sleep_until((began + plan.duration).into()).await;
    let changes = resharding.stop().await;
    let writes = load.stop().await;
    // The reader that was there all the time ends at marks; the one that reads afterwards, at marks of its own.
    let beside = beside.finish(&client, STREAM).await;
    let afterwards = read_all(&client, STREAM).await;
    let mut violations = violations(&writes, &beside);
    violations.extend(same(&beside, &afterwards));
    Report { violations, writes, changes, kills, read: (beside.len(), afterwards.len()) }
}

/// What a reader beside the writers got must be what is there: the later reading has it, and its own marks besides.
fn same(beside: &[Read], afterwards: &[Read]) -> Vec<String> {
    let sorted = |reads: &[Read]| {
        let mut sorted: Vec<_> = reads.iter().map(|it| (it.shard.clone(), it.offset, it.key.clone(), it.n)).collect();
        sorted.sort();
        sorted
    };
    let (beside, afterwards) = (sorted(beside), sorted(afterwards));
    let missing = beside.iter().filter(|it| afterwards.binary_search(it).is_err());
    let mut wrong: Vec<String> = missing.map(|it| format!("read beside the writers, not afterwards: {it:?}")).collect();
    let shards: std::collections::BTreeSet<&str> = beside.iter().map(|it| it.0.as_str()).collect();
    let more = afterwards.len() - (beside.len() - wrong.len());
    if more > shards.len() {
        wrong.push(format!("{more} records were read afterwards that the reader beside the writers did not get"));
    }
    wrong
}

impl Report {
    /// Acknowledged records.
    pub fn acked(&self) -> usize {
        self.writes.iter().filter(|it| matches!(it.seen, Seen::Acked { .. })).count()
    }

    /// What writers waited, a row for each kind of time; see [`Waits`].
    pub fn waits(&self) -> Vec<Waits> {
        let near_a_kill = |from: Instant, to: Instant| self.kills.iter().any(|it| from < *it + AFTERMATH && *it < to);
        let all = || self.changes.splits.iter().chain(&self.changes.merges);
        let undisturbed = |changes: &[crate::reshard::Change]| {
            let alone = changes.iter().filter(|it| !near_a_kill(it.from, it.to));
            alone.map(|it| self.longest(|key| it.keys.contains(&key), it.from, it.to)).collect()
        };
        // For comparison: as long a time, as many keys, and no change.
        let quiet = all().filter(|it| !near_a_kill(it.from, it.to)).filter_map(|it| {
            let to = it.from.checked_sub(Duration::from_millis(50))?;
            let from = to.checked_sub(it.to - it.from)?;
            let calm = !all().any(|other| other.from < to && from < other.to) && !near_a_kill(from, to);
            calm.then(|| self.longest(|key| it.keys.contains(&key), from, to))
        });
        let quiet = quiet.collect();
        let disturbed = all().filter(|it| near_a_kill(it.from, it.to));
        let disturbed = disturbed.map(|it| self.longest(|key| it.keys.contains(&key), it.from, it.to)).collect();
        let kills = self.kills.iter().map(|at| self.longest(|_| true, *at, *at + AFTERMATH)).collect();
        vec![
            Waits::new("no change, all nodes up", quiet),
            Waits::new("split, all nodes up", undisturbed(&self.changes.splits)),
            Waits::new("merge, all nodes up", undisturbed(&self.changes.merges)),
            Waits::new("split or merge within 20 s of a kill", disturbed),
            Waits::new("kill -9", kills),
        ]
    }

    /// The longest time that a record of such keys took to be acknowledged, of those that waited between `from` and `to`.
    fn longest(&self, keys: impl Fn(HashKey) -> bool, from: Instant, to: Instant) -> Duration {
        let met = self.writes.iter().filter(|it| it.put < to && from < it.known);
        let met = met.filter(|it| keys(HashKey::of_partition_key(&it.key)));
        met.map(|it| it.known - it.put).max().unwrap_or_default()
    }
}

/// The longest wait for an acknowledgement at each of several events.
#[derive(Debug)]
pub struct Waits {
    /// Which events.
    pub at: &'static str,
    sorted: Vec<Duration>,
}

impl Waits {
    fn new(at: &'static str, mut waits: Vec<Duration>) -> Waits {
        waits.sort_unstable();
        Waits { at, sorted: waits }
    }

    /// How many events.
    pub fn events(&self) -> usize {
        self.sorted.len()
    }

    /// The wait that the share `quantile` (0 to 1) of the events does not exceed.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let at = (quantile * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }
}

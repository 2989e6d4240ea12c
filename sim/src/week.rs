//! Seven simulated days of one stream, at the pace of production: heartbeats, trims and retention as they are by
//! default. A record every ten seconds; the retention is changed on the way. Every six hours a node loses its power, and in
//! between another's wall clock is a day wrong for an hour.
//!
//! What it looks at every hour: the oldest record that can be read, which must not be past its retention by more than a
//! trim takes; the one before it, which must be past its retention; and how many bytes each node's disk holds.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use braid_client::{Client, ClientOptions, ConsumerOptions, Outcome, ProducerOptions, StreamSettings};
use braid_env::disk::sim::Survive;
use braid_env::seam::Seams;
use braid_env::{task, time};

use crate::executor::{Executor, Stuck};
use crate::leaks;
use crate::network::Network;
use crate::rng::Rng;
use crate::world::{Crash, EPOCH_MS, Topology, World};

const HOUR_MS: u64 = 3_600_000;
const STREAM: &str = "week";

/// From when on the stream keeps records how long, in hours.
const RETENTIONS: [(u64, u64); 4] = [(0, 24), (60, 72), (120, 24), (150, 1)];

/// How long the week is, in hours.
const HOURS: u64 = 168;

/// Between records.
const EVERY: Duration = Duration::from_secs(10);

/// A record's data: with a day's records there are some sixty segments.
const DATA: usize = 2_000;

/// How late the oldest record may go: a trim comes every minute and takes a moment to be committed, and a node without power
/// is what all of it may have to wait for.
const LATE_MS: u64 = 90_000;

/// What an hour ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hour {
    /// Since the beginning.
    pub hour: u64,
    /// The stream's retention, in hours.
    pub retention: u64,
    /// Records acknowledged so far.
    pub put: u64,
    /// The age of the oldest record that can be read, in ms.
    pub oldest_ms: u64,
    /// The age of the youngest one that can't be read any more, in ms; None before the first is gone.
    pub gone_ms: Option<u64>,
    /// What the disks of the three nodes hold, in bytes.
    pub disks: Vec<u64>,
}

/// What the week showed.
#[derive(Debug, Default)]
pub struct Week {
    /// Each hour.
    pub hours: Vec<Hour>,
    /// Everything that was wrong.
    pub wrong: Vec<String>,
}

/// Lives through the week that `seed` decides.
pub fn run(seed: u64) -> Week {
    leaks::begin(seed);
    let executor = Executor::new(Rng::of(seed, "executor").u64());
    let network = Network::new(executor.clone(), seed);
    let topology = Topology {
        zones: [1, 1, 1],
        groups: 1,
        heartbeat_ms: 250,
        election_ms: (750, 1_200),
        segment_bytes: 256 << 10,
        cache_bytes: 1 << 20,
        retention_floor_ms: HOUR_MS,
        trim_every_ms: 60_000,
        forget_grace_ms: HOUR_MS,
    };
    let world = World::new(executor.clone(), network.clone(), seed, topology);
    let host = network.add_host(Ipv4Addr::new(10, 0, 9, 1).into());
    let pid = executor.new_process(Duration::from_secs(1));
    let clients = Seams::real()
        .with_host(network.interface(host, pid))
        .with_seed(Rng::of(seed, "clients").u64())
        .with_wall_clock(&world.wall_clock());
    let week = Arc::new(Mutex::new(Week::default()));
    let scene = {
        let (world, week) = (world.clone(), week.clone());
        async move {
            for node in world.nodes() {
                world.start(node);
            }
            task::spawn(trouble(world.clone(), seed));
            let living = {
                let _here = clients.enter();
                task::spawn(live(world, week))
            };
            if let Err(died) = living.await {
                assert!(!died.is_panic(), "the week's clients panicked: {died}");
            }
        }
    };
    let limit = Duration::from_millis((HOURS + 2) * HOUR_MS);
    let outcome = executor.block_on(world.seams_of_the_simulator(), limit, scene);
    let mut week = std::mem::take(&mut *week.lock().unwrap_or_else(PoisonError::into_inner));
    match outcome {
        Ok(()) => {}
        Err(Stuck::TimeUp) => week.wrong.push("the week did not come to its end".into()),
        Err(stuck) => week.wrong.push(format!("the week got stuck: {stuck:?}")),
    }
    week.wrong.extend(executor.panics().into_iter().map(|(at, _, why)| format!("a panic at {at} ns: {why}")));
    executor.clear();
    world.clear();
    week
}

/// Every six hours a node is without power for a minute; three hours later another one's clock is a day wrong for an hour.
async fn trouble(world: World, seed: u64) {
    let mut rng = Rng::of(seed, "trouble");
    loop {
        time::sleep(Duration::from_millis(3 * HOUR_MS)).await;
        let node = 1 + rng.below(3);
        world.crash(node, Crash::PowerLost, Survive::Nothing);
        time::sleep(Duration::from_secs(60)).await;
        world.start(node);
        time::sleep(Duration::from_millis(3 * HOUR_MS)).await;
        let (node, by_ms) = (1 + rng.below(3), 24 * HOUR_MS as i64 * if rng.chance(500) { 1 } else { -1 });
        let jump = |by_ms| world.machines()[&node].wall.jump(by_ms);
        jump(by_ms);
        time::sleep(Duration::from_millis(HOUR_MS)).await;
        jump(-by_ms);
    }
}

/// What the clients' clock, a right one, says.
fn now_ms() -> u64 {
    time::wall_ms()
}

async fn live(world: World, week: Arc<Mutex<Week>>) {
    let client = Client::connect(world.endpoints(), ClientOptions::default()).await.expect("a cluster");
    let kept = |hours: u64| hours * HOUR_MS;
    let settings = StreamSettings { retention_ms: kept(RETENTIONS[0].1), ..StreamSettings::default() };
    client.create_and_wait_active(STREAM, 1, settings).await.expect("a stream");
    // A record's arrival, by its offset: as told to a reader who was there when it came.
    let arrivals: Arc<Mutex<BTreeMap<u64, u64>>> = Arc::default();
    task::spawn(note_arrivals(client.clone(), arrivals.clone()));
    let put = Arc::new(Mutex::new(0));
    task::spawn(write(client.clone(), put.clone()));
    for hour in 1..=HOURS {
        let before = RETENTIONS.iter().rfind(|(from, _)| *from < hour).expect("the first is from 0");
        let until = EPOCH_MS + hour * HOUR_MS;
        time::sleep(Duration::from_millis(until.saturating_sub(now_ms()))).await;
        let oldest = oldest(&client).await;
        let now = now_ms();
        let (gone, first) = {
            let arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            let first = oldest.0;
            (first.checked_sub(1).and_then(|it| arrivals.get(&it).copied()), first)
        };
        let disks = world.machines().values().map(|it| held(&it.disk)).collect();
        let seen = Hour {
            hour,
            retention: before.1,
            put: *put.lock().unwrap_or_else(PoisonError::into_inner),
            oldest_ms: now - oldest.1,
            gone_ms: gone.map(|arrival| now - arrival),
            disks,
        };
        // What was gone by a shorter retention stays gone: only a record that this retention let go may be too young.
        let longer = RETENTIONS.iter().any(|(from, hours)| *from < hour && *hours < before.1);
        let mut wrong = Vec::new();
        if !longer && seen.gone_ms.is_some_and(|age| age < kept(before.1)) {
            wrong.push(format!("hour {hour}: record {} is gone too early: {seen:?}", first - 1));
        }
        if seen.oldest_ms > kept(before.1) + LATE_MS {
            wrong.push(format!("hour {hour}: record {first} can still be read: {seen:?}"));
        }
        {
            let mut week = week.lock().unwrap_or_else(PoisonError::into_inner);
            week.hours.push(seen);
            week.wrong.extend(wrong);
        }
        if let Some((_, next)) = RETENTIONS.iter().find(|(from, _)| *from == hour) {
            client.update_stream(STREAM, kept(*next), None).await.expect("another retention");
            client.wait_active(STREAM).await.expect("the stream is there");
        }
    }
}

/// A record every ten seconds.
async fn write(client: Client, put: Arc<Mutex<u64>>) {
    let producer = client.producer(STREAM, ProducerOptions::default()).await.expect("a producer");
    loop {
        let outcome = producer.put("k", None, vec![7; DATA]).await.expect("a small record").await;
        if matches!(outcome, Outcome::Acked { .. }) {
            *put.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        time::sleep(EVERY).await;
    }
}

async fn note_arrivals(client: Client, arrivals: Arc<Mutex<BTreeMap<u64, u64>>>) {
    let mut consumer = client.consumer(STREAM, ConsumerOptions::default()).await.expect("a consumer");
    while let Some(batch) = consumer.next().await {
        let batch = batch.expect("a readable stream");
        let noted = batch.records.iter().map(|it| (it.sequence_number.offset.0, it.arrival_ms));
        arrivals.lock().unwrap_or_else(PoisonError::into_inner).extend(noted);
    }
}

/// Offset and arrival of the oldest record that can be read.
async fn oldest(client: &Client) -> (u64, u64) {
    let options = ConsumerOptions { subscribe: false, max_poll_records: 1, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(STREAM, options).await.expect("a consumer");
    let batch = consumer.next().await.expect("an open shard does not end").expect("a readable stream");
    let record = batch.records.first().expect("a batch of an open shard has records");
    (record.sequence_number.offset.0, record.arrival_ms)
}

fn held(disk: &braid_env::disk::sim::SimDisk) -> u64 {
    disk.files().iter().map(|path| disk.read_raw(path).len() as u64).sum()
}

//! The clients of a run: what they put, read and administer, written down as they see it.
//!
//! ```text
//!  WorkloadSpec::draw(seed) ─▶ run ─▶ (faults stop: Note::Healed) ─▶ liveness ─▶ final_read, open_at ─▶ checkers
//! ```
//! Invariant: everything waits through `braid_env` and every call has a deadline, so that each function
//! here ends soon after its time is up, whatever the cluster does; and every random choice is the
//! client's own seed's.
//!
//! Deliberately absent: faults, and what is right or wrong.

mod admin;
mod consumer;
mod dice;
mod final_read;
mod knowledge;
mod liveness;
mod moments;
pub mod node_client;
mod outage;
mod poller;
mod producer;
mod records;
mod spec;
mod subscriber;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use braid_env::task;
use braid_env::time::{self, Instant};

pub use dice::Dice;
pub use final_read::final_read;
pub use liveness::{Answering, liveness};
pub use moments::open_at;
pub use outage::may_stop;
pub use spec::*;

use crate::history::{Admin, ClientId, Reason, Recorder};
use knowledge::Knowledge;
use node_client::NodeClient;

/// Clients that are not of the spec have ids from here on.
const OWN: u32 = 9_000;
pub(crate) const SETUP: ClientId = ClientId(OWN);
pub(crate) const LIVENESS: ClientId = ClientId(OWN + 1);
pub(crate) const FINAL_READER: ClientId = ClientId(OWN + 2);

/// Between two attempts at something that is to succeed in the end.
const RETRY: Duration = Duration::from_millis(200);

/// What all clients of a run share.
struct Scene {
    recorder: Recorder,
    endpoints: Vec<String>,
    streams: Vec<Arc<str>>,
    started: Instant,
    /// Until when nobody writes, for each stream.
    quiet_until: Vec<Instant>,
    until: Instant,
    known: Knowledge,
}

type Shared = Arc<Scene>;

/// One client's own things.
struct Actor {
    scene: Shared,
    spec: ClientSpec,
    dice: Dice,
    calls: NodeClient,
}

/// Creates the streams, lets every client of `spec` work until `until`, and returns when the last of
/// their calls is over: one deadline after `until` at the latest.
pub async fn run(spec: &WorkloadSpec, recorder: &Recorder, endpoints: Vec<String>, until: Instant) {
    assert!(!endpoints.is_empty(), "there is a node to ask");
    let scene = Arc::new(Scene {
        recorder: recorder.clone(),
        endpoints,
        streams: spec.streams.iter().map(|it| recorder.intern(&it.name)).collect(),
        started: Instant::now(),
        quiet_until: spec.streams.iter().map(|it| Instant::now() + Duration::from_millis(it.quiet_ms)).collect(),
        until,
        known: Knowledge::default(),
    });
    setup(&scene, &spec.streams).await;
    let mut tasks = Vec::new();
    if scene.streams.is_empty() {
        return;
    }
    for it in &spec.writers {
        for lane in 0..it.lanes.max(1) {
            tasks.push(task::spawn(writer::lane(Actor::new(&scene, &it.client, lane), it.clone(), lane)));
        }
    }
    for it in &spec.producers {
        tasks.push(task::spawn(producer::work(Actor::new(&scene, &it.client, 0), it.clone())));
    }
    for it in &spec.pollers {
        tasks.push(task::spawn(poller::work(Actor::new(&scene, &it.client, 0), it.clone())));
    }
    for it in &spec.subscribers {
        tasks.push(task::spawn(subscriber::work(Actor::new(&scene, &it.client, 0), it.clone())));
    }
    for it in &spec.consumers {
        tasks.push(task::spawn(consumer::work(Actor::new(&scene, &it.client, 0), it.clone())));
    }
    for it in &spec.admins {
        let doomed = spec.streams.iter().filter(|stream| stream.doomed).cloned().collect();
        tasks.push(task::spawn(admin::work(Actor::new(&scene, &it.client, 0), it.clone(), doomed)));
    }
    for task in tasks {
        if let Err(died) = task.await {
            assert!(!died.is_panic(), "a client's task panicked: {died}");
        }
    }
}

/// Creates every stream and waits until it is there, as far as time allows.
async fn setup(scene: &Shared, streams: &[StreamSpec]) {
    let calls = NodeClient::new(&scene.recorder, SETUP, &scene.endpoints, Duration::from_secs(5));
    for (nth, it) in streams.iter().enumerate() {
        create(&calls, nth, it, scene.until).await;
    }
}

/// Asks for a stream until it is ACTIVE, or until `until`.
async fn create(calls: &NodeClient, mut node: usize, it: &StreamSpec, until: Instant) -> bool {
    let stream = calls.recorder.intern(&it.name);
    let (shards, retention_ms) = (it.shards, it.retention_ms);
    let mut asked = false;
    while Instant::now() < until {
        if !asked {
            let call = Admin::Create { stream: stream.clone(), shards, retention_ms };
            asked = match calls.admin(node, call).await {
                Ok(_) => true,
                Err(failed) => failed.refused && failed.reason == Reason::StreamExists,
            };
        }
        if asked && is_active(calls, node, &stream).await {
            return true;
        }
        node += 1;
        time::sleep(RETRY).await;
    }
    false
}

async fn is_active(calls: &NodeClient, node: usize, stream: &Arc<str>) -> bool {
    use crate::history::{AdminDone, Status};
    let described = calls.admin(node, Admin::Describe { stream: stream.clone() }).await;
    matches!(described, Ok(AdminDone::Stream(it)) if it.status == Status::Active)
}

impl Actor {
    fn new(scene: &Shared, spec: &ClientSpec, lane: u32) -> Actor {
        let deadline = Duration::from_millis(spec.deadline_ms);
        Actor {
            calls: NodeClient::new(&scene.recorder, ClientId(spec.id), &scene.endpoints, deadline),
            dice: Dice::of(spec.seed ^ u64::from(lane) << 32),
            scene: scene.clone(),
            spec: spec.clone(),
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.scene.until
    }

    /// The node to ask next.
    fn node(&mut self) -> usize {
        match self.spec.nodes {
            NodeChoice::Fixed(node) => node as usize % self.calls.nodes(),
            NodeChoice::Random => self.dice.below(self.calls.nodes()),
        }
    }

    /// The client's own stream.
    fn stream(&self) -> Arc<str> {
        let streams = &self.scene.streams;
        streams[self.spec.stream as usize % streams.len()].clone()
    }

    /// Waits until the client's own stream may be written.
    async fn wait_for_quiet(&self) {
        let quiet = &self.scene.quiet_until;
        time::sleep_until(quiet[self.spec.stream as usize % quiet.len()].min(self.scene.until)).await;
    }

    /// Sleeps about so long, but not beyond the end.
    async fn rest_us(&mut self, mean_us: u64) {
        let wait = Duration::from_micros(self.dice.about(mean_us));
        time::sleep_until((Instant::now() + wait).min(self.scene.until)).await;
    }

    async fn rest(&mut self, mean: Duration) {
        self.rest_us(u64::try_from(mean.as_micros()).unwrap_or(u64::MAX / 2)).await;
    }

    /// Now and then, idle for long.
    async fn maybe_pause(&mut self) {
        if self.dice.percent(self.spec.pause_percent) {
            self.rest_us(self.spec.pause_ms * 1_000).await;
        }
    }

    /// The names of a stream's shards, as this client's next node says.
    async fn shards(&mut self, stream: &Arc<str>) -> Vec<Arc<str>> {
        use crate::history::AdminDone;
        let node = self.node();
        match self.calls.admin(node, Admin::ListShards { stream: stream.clone() }).await {
            Ok(AdminDone::Shards(listing)) => listing.shards.into_iter().map(|it| it.name).collect(),
            _ => Vec::new(),
        }
    }
}

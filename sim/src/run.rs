//! One run: a plan carried out from the first start of a node to the verdict.
//!
//! ```text
//!   nodes start ─▶ clients work, faults strike ─▶ healed ─▶ liveness ─▶ final read ─▶ checkers
//! ```
//!
//! Invariant: a run is a function of its options. It has a thread of its own, since libraries keep random
//! numbers and counters per thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use braid_client::{Client, ClientOptions};
use braid_env::seam::Seams;
use braid_env::task;
use braid_env::time::Instant;
use braid_probe::{Bug, Mark};
use braid_stream::limits::RETENTION_MS_DEFAULT;
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;

use crate::checkers::{self, Bounds, Violation};
use crate::director::Director;
use crate::executor::{Executor, Nanos, Stuck};
use crate::fault::Kind;
use crate::history::{Event, Note, Outcome, Recorder, Returned, What};
use crate::inspect;
use crate::leaks;
use crate::marks::{self, Ear, Heard};
use crate::network::{Network, NetworkCounters};
use crate::plan::{Drops, Ending, Plan, Profile};
use crate::rng::Rng;
use crate::story::{Line, Listener, Story, Teller};
use crate::workload;
use crate::world::{EPOCH_MS, World};

/// After the faults are over, everything serves again within this much simulated time.
pub const LIVENESS: Duration = Duration::from_secs(30);

/// The stack of a run's thread: openraft's futures are deep.
const STACK: usize = 64 << 20;

/// Real time that one poll may take, or the checkers: thousands of times what they do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub seed: u64,
    pub profile: Profile,
    /// Print the story as it happens, down to lines of this level.
    pub trace: Option<Level>,
    /// What to leave out of the plan.
    pub drops: Drops,
    /// The name of a bug to plant.
    pub bug: Option<String>,
}

/// What a run showed.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub plan: Plan,
    pub violations: Vec<Violation>,
    /// The hash of every poll, packet and disk operation, and the number of polls.
    pub fingerprint: (u64, u64),
    /// How long the run was, in simulated time.
    pub took: Nanos,
    /// How often each fault struck.
    pub faults: BTreeMap<String, u64>,
    pub network: NetworkCounters,
    /// How often each mark was passed.
    pub marks: BTreeMap<Mark, u64>,
    /// How often code came to where the planted bug is made.
    pub planted: u64,
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// What clients did and saw, in events.
    pub events: usize,
    /// How often code asked the operating system for randomness and for the time.
    pub leaks: (u64, u64),
    pub last_lines: Vec<Line>,
}

/// Carries out a run in a thread of its own.
#[allow(clippy::disallowed_methods)] // the one place outside of all simulations
pub fn run(options: Options) -> Report {
    let (seed, profile) = (options.seed, options.profile);
    let thread = std::thread::Builder::new().name("simulation".into()).stack_size(STACK);
    let executor = Executor::new(Rng::of(seed, "executor").u64());
    let watched = executor.clone();
    let running = thread.spawn(move || run_here(options, executor)).expect("a thread can be started");
    let (mut waited, mut seen, mut still) = (Duration::ZERO, 0, Duration::ZERO);
    while !running.is_finished() {
        if still > PATIENCE {
            // The thread can't be ended; it goes on until the program does.
            return Report::without_end(seed, Plan::draw(seed, profile));
        }
        let (_, polls) = watched.fingerprint();
        if polls != seen {
            (seen, still) = (polls, Duration::ZERO);
        }
        let pause =
            if waited < Duration::from_millis(50) { Duration::from_micros(500) } else { Duration::from_millis(5) };
        std::thread::sleep(pause);
        waited += pause;
        still += pause;
    }
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Report {
    /// Of a run in which one poll does not return.
    fn without_end(seed: u64, plan: Plan) -> Report {
        let what = format!("a task was not done with one step within {} real seconds: it loops", PATIENCE.as_secs());
        Report {
            seed,
            plan,
            violations: vec![Violation::new("liveness", what)],
            fingerprint: (0, 0),
            took: 0,
            faults: BTreeMap::new(),
            network: NetworkCounters::default(),
            marks: BTreeMap::new(),
            planted: 0,
            acknowledged: 0,
            events: 0,
            leaks: (0, 0),
            last_lines: Vec::new(),
        }
    }
}

fn run_here(options: Options, executor: Executor) -> Report {
    let plan = Arc::new(Plan::draw(options.seed, options.profile).without(&options.drops));
    leaks::begin(options.seed);
    let story = Story::new(options.trace.is_some());
    let level = options.trace.unwrap_or(Level::INFO);
    let listener = Listener { story: story.clone(), level };
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(listener));

    let network = Network::new(executor.clone(), options.seed);
    let world = World::new(executor.clone(), network.clone(), options.seed, plan.topology.clone());
    let director = Director::new(world.clone(), story.clone(), plan.clone());
    let recorder = {
        let executor = executor.clone();
        Recorder::new(move || executor.now())
    };
    let acknowledged = Arc::new(AtomicU64::new(0));
    {
        let (director, acknowledged) = (director.clone(), acknowledged.clone());
        recorder.watch(move |event| {
            let count = acknowledgements(event);
            if count > 0 {
                acknowledged.fetch_add(count, Ordering::Relaxed);
                director.on_acknowledged();
            }
        });
    }
    let heard = Heard::default();
    let bug = options.bug.as_deref().map(|name| Bug::named(name).unwrap_or_else(|| panic!("no bug is called {name}")));
    let ear = Ear {
        heard: heard.clone(),
        director: director.clone(),
        story: story.clone(),
        bug,
        tell: options.trace.is_some(),
    };
    #[allow(clippy::let_unit_value)] // a guard with the feature `probe`, nothing without
    let _listening = marks::listen(ear);
    let clients = Clients::new(&world, &director, &story, options.seed);
    director.prepare();

    let scene = Scene {
        world: world.clone(),
        director: director.clone(),
        recorder: recorder.clone(),
        plan: plan.clone(),
        clients,
    };
    let limit = Duration::from_millis(plan.duration_ms) + Duration::from_secs(900);
    let found = Arc::new(Mutex::new(Vec::new()));
    let outcome = executor.block_on(world.seams_of_the_simulator(), limit, scene.play(found.clone()));

    let mut violations = Vec::new();
    if let Err(stuck) = outcome {
        violations.push(Violation::new("liveness", stuck_text(&stuck, &story)));
    }
    for (at, pid, why) in executor.panics() {
        let what = format!("{} panicked at {:.6} s: {why}", story.teller(pid), at as f64 / 1e9);
        violations.push(Violation::new("no panic", what));
    }
    violations.extend(director.wrong());
    violations.append(&mut found.lock().unwrap_or_else(PoisonError::into_inner));
    violations.extend(heard.broken().into_iter().map(|what| Violation::new("always", what)));
    violations.extend(heard.differing());
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    let events = recorder.len();
    let history = recorder.take();
    let elections = cfg!(feature = "probe").then(|| director.elections());
    violations.extend(checkers::check_all(&history, &Bounds { elections, ..bounds(&plan) }));
    let report = Report {
        seed: options.seed,
        violations,
        fingerprint: fingerprint(&executor, &world),
        took: executor.now(),
        faults: director.counts(),
        network: network.counters(),
        marks: heard.passed(),
        planted: heard.planted(),
        acknowledged,
        events,
        leaks: leaks::counts(),
        last_lines: story.last(60),
        plan: (*plan).clone(),
    };
    executor.clear();
    world.clear();
    report
}

/// How far nodes that ask each other for the time may be off: half of what an answer may take, and as much again where
/// the one that answers was set so itself (seed 5000930: two slow links, one restart after the other).
const CLOCKS_MS: u64 = 2_000;

/// What the checkers have to allow for.
fn bounds(plan: &Plan) -> Bounds {
    let jumps =
        plan.faults.iter().filter(|s| matches!(s.fault.kind, Kind::WallBack | Kind::WrongStart | Kind::LeaderMistimed));
    let back_ms = jumps.map(|s| s.fault.amount).sum::<u64>();
    let drift = plan.faults.iter().filter(|s| s.fault.kind == Kind::Drift).map(|s| s.fault.amount).max().unwrap_or(0);
    // A clock that drifts for all of the run is off by this much, and group time with it.
    let drifted_ms = (plan.duration_ms + 200_000) * drift / 1_000_000 + 10;
    Bounds {
        epoch_ms: EPOCH_MS,
        // One zone's wall clocks alone are wrong: the others outvote them. But of two zones that can't ask the third,
        // the earlier one is gone by.
        ahead_ms: drifted_ms + CLOCKS_MS,
        behind_ms: back_ms + drifted_ms + CLOCKS_MS,
        drift_ppm: drift,
        retention_ms: RETENTION_MS_DEFAULT,
        liveness: LIVENESS,
        throttled: true,
        elections: None,
        damaged: plan.faults.iter().any(|s| s.fault.kind.damages()),
    }
}

/// Records that a client is told are stored.
fn acknowledgements(event: &Event) -> u64 {
    match &event.what {
        What::Returned { with: Returned::Put(outcomes), .. } => {
            outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Acked { .. })).count() as u64
        }
        _ => 0,
    }
}

fn fingerprint(executor: &Executor, world: &World) -> (u64, u64) {
    for machine in world.machines().values() {
        executor.trace(machine.disk.digest());
    }
    executor.fingerprint()
}

fn stuck_text(stuck: &Stuck, story: &Story) -> String {
    match stuck {
        Stuck::Deadlock => "nothing runs and no timer is set".into(),
        Stuck::Livelock { process } => {
            format!("the tasks of {} wake one another for ever and time stands still", story.teller(*process))
        }
        Stuck::TimeUp => "the run did not come to its end in time".into(),
    }
}

/// The machine that clients run on.
#[derive(Clone)]
struct Clients {
    seams: Seams,
}

impl Clients {
    fn new(world: &World, director: &Director, story: &Story, seed: u64) -> Clients {
        let host = world.network.add_host(std::net::Ipv4Addr::new(10, 0, 9, 1).into());
        let pid = world.executor.new_process(Duration::from_secs(1));
        story.name(pid, Teller::Clients);
        director.add_client(host);
        let seams = Seams::real()
            .with_host(world.network.interface(host, pid))
            .with_seed(Rng::of(seed, "clients").u64())
            .with_wall_clock(&world.wall_clock());
        Clients { seams }
    }

    /// Starts a task on the clients' machine.
    fn spawn<F>(&self, future: impl FnOnce() -> F) -> task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let _here = self.seams.enter();
        task::spawn(future())
    }
}

/// Everything that a run's course needs.
struct Scene {
    world: World,
    director: Director,
    recorder: Recorder,
    plan: Arc<Plan>,
    clients: Clients,
}

impl Scene {
    async fn play(self, found: Arc<Mutex<Vec<Violation>>>) {
        let Scene { world, director, recorder, plan, clients } = &self;
        director.start_all();
        task::spawn(director.clone().watch());
        clients.spawn(|| director.clone().replace(connect));
        let working = {
            let (spec, recorder, endpoints) = (plan.workload.clone(), recorder.clone(), world.endpoints());
            let duration = Duration::from_millis(plan.duration_ms);
            clients.spawn(|| async move {
                let until = Instant::now() + duration;
                workload::run(&spec, &recorder, endpoints, until).await;
            })
        };
        director.clone().run().await;
        director.heal(match plan.ending {
            Ending::Healed => None,
            Ending::WithoutZone(zone) => Some(zone),
        });
        let answering: workload::Answering = {
            let (world, director) = (world.clone(), director.clone());
            Arc::new(move || world.endpoints_of(&director.answering()))
        };
        // A copy that is damaged, where nobody has seen it yet, and one that is stopped are two of three.
        let nodes = plan.stops.map(|stop| director.nodes_to_stop(stop));
        if let Some(nodes) = nodes.filter(|nodes| !director.are_others_damaged(nodes)) {
            let (recorder, answering, asked) = (recorder.clone(), answering.clone(), nodes.clone());
            let asking = clients.spawn(|| async move { workload::may_stop(&recorder, &answering, asked).await });
            match asking.await {
                Ok(Ok(())) => director.stop_for_good(&nodes),
                Ok(Err(why)) => found.lock().unwrap_or_else(PoisonError::into_inner).push(why),
                Err(died) => assert!(!died.is_panic(), "asking panicked: {died}"),
            }
        }
        recorder.note(Note::Healed);
        {
            let (recorder, answering) = (recorder.clone(), answering.clone());
            let probing = clients.spawn(|| async move { workload::liveness(&recorder, &answering, LIVENESS).await });
            let _ = probing.await;
        }
        let _ = working.await;
        {
            let recorder = recorder.clone();
            // Twice what a shard may take in that time, at the rate at which it may be read.
            let bound = Duration::from_secs(120) + Duration::from_millis(plan.duration_ms * 3 / 2);
            let closed = inspect::closed(world, &director.alive());
            let reading = clients.spawn(|| async move {
                workload::final_read(&recorder, &answering, bound).await;
                workload::open_at(&recorder, &answering, closed).await;
            });
            let _ = reading.await;
        }
        let mut wrong = inspect::members(world, &director.alive()).await;
        wrong.extend(inspect::settings(world, &director.alive()).await);
        wrong.extend(inspect::replicas(world, &director.alive()).await);
        wrong.extend(inspect::rest(world, &director.alive()).await);
        found.lock().unwrap_or_else(PoisonError::into_inner).extend(wrong);
    }
}

async fn connect(endpoints: Vec<String>) -> Option<Client> {
    Client::connect(endpoints, ClientOptions::default()).await.ok()
}

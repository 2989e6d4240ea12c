//! The executor: every task of every simulated process, in one thread, under virtual time.
//!
//! ```text
//!   runnable ── drawn from the seed ──▶ poll ──▶ trace hash
//!      ▲                                 │ wakes others, sets timers, spawns
//!      └── nothing runnable: time jumps to the next timer ──┘
//! ```
//!
//! Invariant: which task runs next depends on the seed and on what ran before, and on nothing else. Time
//! stands still while a task runs.
//!
//! A *process* is a set of tasks that live and die together, with a clock of its own. It knows nothing of
//! networks, disks or nodes.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use braid_env::host::Job;
use braid_env::seam::Seams;

use crate::rng::Rng;

/// Polls at one instant after which it counts as a livelock.
const POLLS_PER_INSTANT_MAX: u64 = 2_000_000;

/// A process of the simulation. Numbers are never used again: a node that restarts is a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(pub u32);

/// Nanoseconds of virtual time since the simulation began.
pub type Nanos = u64;

/// Why a run stopped before its future was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing is runnable, and no timer is set.
    Deadlock,
    /// Tasks wake one another for ever and time stands still.
    Livelock { process: Pid },
    /// The time allowed is over.
    TimeUp,
}

thread_local! {
    static CURRENT: Cell<(Nanos, Pid)> = const { Cell::new((0, Pid(0))) };
}

/// The time, and the process whose task is being polled on this thread; process 0 between polls.
pub fn current() -> (Nanos, Pid) {
    CURRENT.get()
}

/// See the module's documentation. Clones are the same executor.
#[derive(Clone)]
pub struct Executor(Arc<Mutex<Inner>>);

struct Inner {
    now: Nanos,
    rng: Rng,
    tasks: Vec<Slot>,
    free: Vec<u32>,
    runnable: Vec<u32>,
    timers: Timers,
    processes: Vec<Process>,
    /// Killed while one of their tasks was being polled, or by it.
    dying: BTreeSet<Pid>,
    running: Option<u32>,
    polls: u64,
    polls_at_this_instant: u64,
    trace: u64,
    panics: Vec<(Nanos, Pid, String)>,
}

/// What to do when a time has come.
enum Timer {
    /// To be woken once the clock of the process shows so much.
    Waker(Waker, Pid, Nanos),
    /// A task that becomes runnable late, because its process is slow.
    Task(u32, u32),
    Call(Box<dyn FnOnce() + Send>),
}

/// Timers by time, then by the order of their setting. A timer that is cancelled leaves its place in the
/// queue behind.
#[derive(Default)]
struct Timers {
    queue: BinaryHeap<Reverse<(Nanos, u64, u32)>>,
    /// With the number of the setting that each belongs to.
    set: Vec<(u64, Option<Timer>)>,
    free: Vec<u32>,
    settings: u64,
}

impl Timers {
    fn set(&mut self, when: Nanos, timer: Timer) -> u64 {
        self.settings += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.set.push((0, None));
            self.set.len() as u32 - 1
        });
        self.set[place as usize] = (self.settings, Some(timer));
        self.queue.push(Reverse((when, self.settings, place)));
        // A few years' worth of settings fit into what is left.
        (self.settings << 24) | u64::from(place)
    }

    fn cancel(&mut self, id: u64) -> Option<Timer> {
        let (setting, place) = (id >> 24, (id & 0xff_ffff) as u32);
        self.take(setting, place)
    }

    fn take(&mut self, setting: u64, place: u32) -> Option<Timer> {
        let (current, timer) = &mut self.set[place as usize];
        if *current != setting {
            return None;
        }
        let timer = timer.take();
        if timer.is_some() {
            self.free.push(place);
        }
        timer
    }

    /// When the next timer is due.
    fn next(&mut self) -> Option<Nanos> {
        while let Some(Reverse((when, setting, place))) = self.queue.peek().copied() {
            let (current, timer) = &self.set[place as usize];
            if *current == setting && timer.is_some() {
                return Some(when);
            }
            self.queue.pop();
        }
        None
    }

    /// The next timer that is due. `early` says until when one has to wait after all: a process's clock
    /// may have been slowed since it was set.
    fn pop_due(&mut self, now: Nanos, early: impl Fn(&Timer) -> Option<Nanos>) -> Option<Timer> {
        while let Some(Reverse((when, setting, place))) = self.queue.peek().copied() {
            if when > now {
                return None;
            }
            self.queue.pop();
            let (current, timer) = &self.set[place as usize];
            let later = timer.as_ref().filter(|_| *current == setting).and_then(&early);
            if let Some(later) = later {
                self.queue.push(Reverse((later.max(now + 1), setting, place)));
            } else if let Some(timer) = self.take(setting, place) {
                return Some(timer);
            }
        }
        None
    }
}

struct Slot {
    generation: u32,
    process: Pid,
    state: State,
    job: Option<Job>,
    seams: Seams,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Idle,
    Scheduled,
    Running,
    /// Woken while it ran.
    RunningWoken,
    /// To be dropped once it is not being polled any more.
    Aborted,
}

/// One process's tasks and its clock.
struct Process {
    alive: bool,
    paused: bool,
    /// Tasks that would be runnable were the process not paused.
    parked: Vec<u32>,
    /// Every poll comes late by up to this.
    lateness: Option<Nanos>,
    tasks: BTreeSet<u32>,
    clock: Clock,
}

/// A process's monotonic clock, which may run a little fast or slow.
#[derive(Clone, Copy)]
struct Clock {
    /// What it showed at `since`.
    base: Nanos,
    since: Nanos,
    /// Parts per million that it runs faster than true time.
    drift_ppm: i64,
}

impl Clock {
    fn at(&self, now: Nanos) -> Nanos {
        let ran = i128::from(now - self.since);
        self.base + (ran + ran * i128::from(self.drift_ppm) / 1_000_000) as u64
    }

    /// The first moment at which it shows at least `at`.
    fn when(&self, at: Nanos) -> Nanos {
        let to_run = i128::from(at.saturating_sub(self.base));
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        self.since + ((to_run * 1_000_000 + rate - 1) / rate) as u64
    }
}

impl Executor {
    /// An executor whose every choice follows from `seed`. Process 0, which never dies, is there.
    pub fn new(seed: u64) -> Executor {
        let executor = Executor(Arc::new(Mutex::new(Inner {
            now: 0,
            rng: Rng::new(seed),
            tasks: Vec::new(),
            free: Vec::new(),
            runnable: Vec::new(),
            timers: Timers::default(),
            processes: Vec::new(),
            dying: BTreeSet::new(),
            running: None,
            polls: 0,
            polls_at_this_instant: 0,
            trace: 0xb7e1_5162_8aed_2a6b,
            panics: Vec::new(),
        })));
        executor.new_process(Duration::ZERO);
        executor
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process, whose monotonic clock shows `clock`.
    pub fn new_process(&self, clock: Duration) -> Pid {
        let mut inner = self.inner();
        let pid = Pid(inner.processes.len() as u32);
        let clock = Clock { base: clock.as_nanos() as u64, since: inner.now, drift_ppm: 0 };
        inner.processes.push(Process {
            alive: true,
            paused: false,
            parked: Vec::new(),
            lateness: None,
            tasks: BTreeSet::new(),
            clock,
        });
        pid
    }

    /// Ends a process: its tasks are dropped, at the latest once the one that runs now is through its
    /// poll. What it spawns meanwhile is dropped as well.
    pub fn kill(&self, pid: Pid) {
        let mut inner = self.inner();
        let process = &mut inner.processes[pid.0 as usize];
        if !process.alive {
            return;
        }
        process.alive = false;
        inner.dying.insert(pid);
        if inner.running.is_none() {
            drop(inner);
            self.bury();
        }
    }

    /// Whether the process was not killed.
    pub fn is_alive(&self, pid: Pid) -> bool {
        self.inner().processes[pid.0 as usize].alive
    }

    /// Freezes a process, as SIGSTOP does, or lets it go on.
    pub fn pause(&self, pid: Pid, paused: bool) {
        let mut inner = self.inner();
        inner.processes[pid.0 as usize].paused = paused;
        if !paused {
            let parked = std::mem::take(&mut inner.processes[pid.0 as usize].parked);
            inner.runnable.extend(parked);
        }
    }

    /// Makes every poll of a process come late by up to `by`.
    pub fn slow_down(&self, pid: Pid, by: Option<Duration>) {
        self.inner().processes[pid.0 as usize].lateness = by.map(|by| by.as_nanos() as u64);
    }

    /// Makes a process's monotonic clock run faster or slower from now on. Timers that are set keep the
    /// moment they had.
    pub fn drift(&self, pid: Pid, ppm: i64) {
        let mut inner = self.inner();
        let now = inner.now;
        let clock = &mut inner.processes[pid.0 as usize].clock;
        *clock = Clock { base: clock.at(now), since: now, drift_ppm: ppm };
    }

    /// Virtual time.
    pub fn now(&self) -> Nanos {
        self.inner().now
    }

    /// What a process's monotonic clock shows.
    pub fn clock(&self, pid: Pid) -> Duration {
        let inner = self.inner();
        Duration::from_nanos(inner.processes[pid.0 as usize].clock.at(inner.now))
    }

    /// Wakes `waker` once the process's clock shows `at`.
    pub fn set_timer(&self, pid: Pid, at: Duration, waker: Waker) -> u64 {
        let mut inner = self.inner();
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        let when = inner.processes[pid.0 as usize].clock.when(at).max(inner.now);
        inner.timers.set(when, Timer::Waker(waker, pid, at))
    }

    /// Forgets a timer.
    pub fn cancel_timer(&self, timer: u64) {
        let gone = self.inner().timers.cancel(timer);
        drop(gone);
    }

    /// Calls `what` at `when`, between two polls.
    pub fn call_at(&self, when: Nanos, what: impl FnOnce() + Send + 'static) {
        let mut inner = self.inner();
        let when = when.max(inner.now);
        inner.timers.set(when, Timer::Call(Box::new(what)));
    }

    /// Starts a task in `pid`, to be polled in `seams`.
    pub fn spawn(&self, pid: Pid, seams: Seams, job: Job) -> u64 {
        let mut inner = self.inner();
        if !inner.processes[pid.0 as usize].alive {
            drop(inner);
            let _guard = seams.enter();
            drop(job);
            return u64::MAX;
        }
        let index = inner.free.pop().unwrap_or_else(|| {
            inner.tasks.push(Slot {
                generation: 0,
                process: pid,
                state: State::Free,
                job: None,
                seams: Seams::real(),
                waker: None,
            });
            inner.tasks.len() as u32 - 1
        });
        let slot = &mut inner.tasks[index as usize];
        slot.generation += 1;
        let generation = slot.generation;
        slot.process = pid;
        slot.state = State::Idle;
        slot.job = Some(job);
        slot.seams = seams;
        slot.waker = Some(Waker::from(Arc::new(TaskWaker { executor: self.clone(), task: index, generation })));
        inner.processes[pid.0 as usize].tasks.insert(index);
        inner.wake(index, generation);
        (u64::from(generation) << 32) | u64::from(index)
    }

    /// Drops a task, at the latest when its poll is over.
    pub fn abort(&self, id: u64) {
        let (index, generation) = (id as u32, (id >> 32) as u32);
        let dropped = {
            let mut inner = self.inner();
            let Some(slot) = inner.tasks.get_mut(index as usize) else { return };
            if slot.generation != generation || slot.state == State::Free {
                return;
            }
            if matches!(slot.state, State::Running | State::RunningWoken | State::Aborted) {
                slot.state = State::Aborted;
                return;
            }
            inner.release(index)
        };
        discard(dropped);
    }

    /// Notes that a task of `pid` panicked.
    pub fn panicked(&self, pid: Pid, why: &str) {
        let mut inner = self.inner();
        let now = inner.now;
        inner.panics.push((now, pid, why.to_string()));
    }

    /// The panics so far: when, in which process, why.
    pub fn panics(&self) -> Vec<(Nanos, Pid, String)> {
        self.inner().panics.clone()
    }

    /// Adds to the trace.
    pub fn trace(&self, what: u64) {
        self.inner().fold(what);
    }

    /// The hash of everything so far, and the number of polls.
    pub fn fingerprint(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.trace, inner.polls)
    }

    /// Runs `future` as a task of process 0, in `seams`, until it is done; or says why it won't be.
    pub fn block_on<T: Send + 'static>(
        &self,
        seams: Seams,
        limit: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Stuck> {
        let output = Arc::new(Mutex::new(None));
        let put = output.clone();
        let job: Job = Box::pin(async move {
            let done = future.await;
            *put.lock().expect("nothing panics while it is locked") = Some(done);
        });
        self.spawn(Pid(0), seams, job);
        let end = self.now() + limit.as_nanos() as u64;
        loop {
            if let Some(output) = output.lock().expect("nothing panics while it is locked").take() {
                return Ok(output);
            }
            self.step(end)?;
        }
    }

    /// Drops every task and timer; for the end of a run.
    pub fn clear(&self) {
        let processes = self.inner().processes.len() as u32;
        (0..processes).for_each(|pid| self.kill(Pid(pid)));
        let timers = std::mem::take(&mut self.inner().timers);
        drop(timers);
    }

    /// One poll, or one jump in time.
    fn step(&self, end: Nanos) -> Result<(), Stuck> {
        let mut inner = self.inner();
        if inner.runnable.is_empty() {
            let due = inner.jump(end)?;
            drop(inner);
            due.into_iter().for_each(Due::act);
            if !self.inner().dying.is_empty() {
                self.bury();
            }
            return Ok(());
        }
        let count = inner.runnable.len() as u64;
        let which = if count == 1 { 0 } else { inner.rng.below(count) } as usize;
        let index = inner.runnable.swap_remove(which);
        let slot = &mut inner.tasks[index as usize];
        if slot.state != State::Scheduled {
            return Ok(()); // released since
        }
        let (pid, generation) = (slot.process, slot.generation);
        if inner.processes[pid.0 as usize].paused {
            inner.processes[pid.0 as usize].parked.push(index);
            return Ok(());
        }
        let slot = &mut inner.tasks[index as usize];
        slot.state = State::Running;
        let mut job = slot.job.take().expect("a scheduled task has a job");
        let seams = slot.seams.clone();
        let waker = slot.waker.clone().expect("a scheduled task has a waker");
        inner.polls += 1;
        inner.polls_at_this_instant += 1;
        if inner.polls_at_this_instant > POLLS_PER_INSTANT_MAX {
            return Err(Stuck::Livelock { process: pid });
        }
        let now = inner.now;
        inner.fold(now ^ (u64::from(index) << 40) ^ (u64::from(generation) << 8));
        inner.running = Some(index);
        drop(inner);

        CURRENT.set((now, pid));
        let polled = {
            let _guard = seams.enter();
            job.as_mut().poll(&mut Context::from_waker(&waker))
        };
        CURRENT.set((now, Pid(0)));

        let mut inner = self.inner();
        inner.running = None;
        let slot = &mut inner.tasks[index as usize];
        let over = polled.is_ready() || slot.state == State::Aborted;
        slot.job = Some(job);
        let mut released = None;
        if over {
            released = Some(inner.release(index));
        } else {
            let woken = slot.state == State::RunningWoken;
            slot.state = State::Idle;
            if woken {
                inner.wake(index, generation);
            }
        }
        let dying = !inner.dying.is_empty();
        drop(inner);
        if let Some(released) = released {
            discard(released);
        }
        if dying {
            self.bury();
        }
        Ok(())
    }

    /// Drops the tasks of those that were killed.
    fn bury(&self) {
        loop {
            let released = {
                let mut inner = self.inner();
                let Some(pid) = inner.dying.pop_first() else { return };
                inner.processes[pid.0 as usize].parked.clear();
                let tasks = std::mem::take(&mut inner.processes[pid.0 as usize].tasks);
                tasks.into_iter().map(|task| inner.release(task)).collect::<Vec<_>>()
            };
            released.into_iter().for_each(discard);
        }
    }
}

/// What is left of a task; to be dropped in its own seams and without the executor's lock.
type Released = (Option<Job>, Seams, Option<Waker>);

fn discard((job, seams, waker): Released) {
    let _guard = seams.enter();
    drop(job);
    drop(waker);
}

impl Inner {
    fn fold(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    }

    fn release(&mut self, index: u32) -> Released {
        let slot = &mut self.tasks[index as usize];
        slot.state = State::Free;
        let released = (slot.job.take(), std::mem::take(&mut slot.seams), slot.waker.take());
        let pid = slot.process;
        self.processes[pid.0 as usize].tasks.remove(&index);
        self.free.push(index);
        released
    }

    fn wake(&mut self, index: u32, generation: u32) {
        let slot = &mut self.tasks[index as usize];
        if slot.generation != generation {
            return;
        }
        match slot.state {
            State::Idle => {}
            State::Running => {
                slot.state = State::RunningWoken;
                return;
            }
            _ => return,
        }
        slot.state = State::Scheduled;
        let process = slot.process.0 as usize;
        match self.processes[process].lateness {
            Some(most) if most > 0 => {
                let late = self.rng.below(most);
                let when = self.now + late;
                self.timers.set(when, Timer::Task(index, generation));
            }
            _ => self.runnable.push(index),
        }
    }

    /// To the next timer; gives what is due then.
    fn jump(&mut self, end: Nanos) -> Result<Vec<Due>, Stuck> {
        let at = self.timers.next().ok_or(Stuck::Deadlock)?;
        if at > end {
            return Err(Stuck::TimeUp);
        }
        if at > self.now {
            self.now = at;
            CURRENT.set((at, Pid(0)));
            self.polls_at_this_instant = 0;
        }
        let mut due = Vec::new();
        let now = self.now;
        let processes = &self.processes;
        let early = |timer: &Timer| match timer {
            Timer::Waker(_, pid, at) => {
                let clock = &processes[pid.0 as usize].clock;
                (clock.at(now) < *at).then(|| clock.when(*at))
            }
            _ => None,
        };
        while let Some(timer) = self.timers.pop_due(now, early) {
            match timer {
                Timer::Task(index, generation) => {
                    let slot = &self.tasks[index as usize];
                    if slot.generation == generation && slot.state == State::Scheduled {
                        self.runnable.push(index);
                    }
                }
                Timer::Waker(waker, ..) => due.push(Due::Wake(waker)),
                Timer::Call(what) => due.push(Due::Call(what)),
            }
        }
        Ok(due)
    }
}

/// What a timer does, without the executor's lock: it may come back to it.
enum Due {
    Wake(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

impl Due {
    fn act(self) {
        match self {
            Due::Wake(waker) => waker.wake(),
            Due::Call(what) => what(),
        }
    }
}

/// Wakes one task.
struct TaskWaker {
    executor: Executor,
    task: u32,
    generation: u32,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.executor.inner().wake(self.task, self.generation);
    }
}

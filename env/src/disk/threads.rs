//! The threads that do blocking disk work: four that write and sync, two that read.
//!
//! Invariant: the jobs of one [`Lane`] run one at a time, in the order they were given. A file has one
//! lane, so its writes and fsyncs never overtake each other, while a slow fsync of one file holds up
//! neither another file nor any read:
//!
//! ```text
//!    lane of file A:  w w s ┐
//!    lane of file B:  w s   ├─▶ queue of lanes with work ─▶ braid-write-0..3
//!    lane of file C:  w     ┘
//!    reads            r r r ──▶ queue                    ─▶ braid-read-0..1
//! ```
//!
//! Queues have no bound of their own: a caller waits for its job, so there are at most as many jobs as
//! waiting callers. A caller that stops waiting does not undo its job.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Enough for the logs of a few groups to be fsynced at the same time.
static WRITERS: Pool = Pool::new("braid-write", 4);
/// Most reads are served by the page cache, so few threads serve many.
static READERS: Pool = Pool::new("braid-read", 2);

/// Jobs of one lane run by one thread before other lanes get their turn.
const JOBS_PER_TURN: usize = 16;

/// Runs `job` on a read thread.
pub(super) async fn read<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (job, done) = answered(job);
    READERS.push(job)?;
    answer(done).await
}

/// Runs `job` on a write thread, in no order to any other.
pub(super) async fn write<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (job, done) = answered(job);
    WRITERS.push(job)?;
    answer(done).await
}

/// A queue of jobs that run in order on the write threads.
#[derive(Clone, Default)]
pub(super) struct Lane(Arc<Mutex<LaneState>>);

#[derive(Default)]
struct LaneState {
    jobs: VecDeque<Job>,
    /// Whether the lane stands in the pool's queue or is being run.
    scheduled: bool,
}

impl Lane {
    /// Runs `job` after every job given to this lane before. The job is queued at the first poll.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (job, done) = answered(job);
        self.push(job)?;
        answer(done).await
    }

    fn push(&self, job: Job) -> io::Result<()> {
        let mut state = locked(&self.0);
        state.jobs.push_back(job);
        if !state.scheduled {
            let lane = self.clone();
            let pushed = WRITERS.push(Box::new(move || lane.run_a_turn()));
            if pushed.is_err() {
                state.jobs.pop_back();
            }
            state.scheduled = pushed.is_ok();
            return pushed;
        }
        Ok(())
    }

    fn run_a_turn(self) {
        for _ in 0..JOBS_PER_TURN {
            let job = {
                let mut state = locked(&self.0);
                let Some(job) = state.jobs.pop_front() else {
                    state.scheduled = false;
                    return;
                };
                job
            };
            job();
        }
        // This runs on a thread of the pool, so the pool has one and can't refuse.
        WRITERS.push(Box::new(move || self.run_a_turn())).expect("a pool with threads takes jobs");
    }
}

fn answered<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> (Job, oneshot::Receiver<io::Result<T>>) {
    let (tell, done) = oneshot::channel();
    let job = move || {
        // A panic must not take the thread, nor the lane behind it. The caller learns of it because
        // `tell` is dropped.
        if let Ok(result) = catch_unwind(AssertUnwindSafe(job)) {
            let _ = tell.send(result);
        }
    };
    (Box::new(job), done)
}

async fn answer<T>(done: oneshot::Receiver<io::Result<T>>) -> io::Result<T> {
    match done.await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("the disk job panicked: its outcome is unknown")),
    }
}

struct Pool {
    name: &'static str,
    threads_max: usize,
    state: Mutex<PoolState>,
    work: Condvar,
}

struct PoolState {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads waiting for work; the ones that a notification is under way to still count.
    idle: usize,
}

impl Pool {
    const fn new(name: &'static str, threads_max: usize) -> Pool {
        Pool {
            name,
            threads_max,
            state: Mutex::new(PoolState { jobs: VecDeque::new(), threads: 0, idle: 0 }),
            work: Condvar::new(),
        }
    }

    /// Fails only when there is no thread and none can be started.
    fn push(&'static self, job: Job) -> io::Result<()> {
        let mut state = locked(&self.state);
        if state.idle <= state.jobs.len() && state.threads < self.threads_max {
            let name = format!("{}-{}", self.name, state.threads);
            let started = thread::Builder::new().name(name).spawn(|| self.run());
            match started {
                Ok(_) => state.threads += 1,
                Err(e) if state.threads == 0 => return Err(e),
                Err(_) => {} // The threads there are will do.
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    fn run(&self) {
        let mut state = locked(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = locked(&self.state);
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// Nothing panics while it holds one of these locks, and a job's panic is caught outside of them.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    /// Whom to wake when a future is polled by hand.
    fn nobody() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[tokio::test]
    async fn a_lane_runs_one_job_at_a_time_in_order() {
        let lane = Lane::default();
        let running = Arc::new(AtomicBool::new(false));
        let ran = Arc::new(Mutex::new(Vec::new()));
        let jobs = (0..500).map(|i| {
            let (running, ran) = (running.clone(), ran.clone());
            lane.write(move || {
                assert!(!running.swap(true, Ordering::SeqCst), "two at a time");
                // Time for another thread to come in, were it allowed to.
                (0..20).for_each(|_| thread::yield_now());
                locked(&ran).push(i);
                running.store(false, Ordering::SeqCst);
                Ok(())
            })
        });
        for done in futures_util::future::join_all(jobs).await {
            done.unwrap();
        }
        assert_eq!(*locked(&ran), (0..500).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_stuck_write_holds_up_neither_reads_nor_other_lanes() {
        let stuck = Lane::default();
        let (release, wait) = mpsc::channel::<()>();
        let mut slow = Box::pin(stuck.write(move || {
            wait.recv().expect("released");
            Ok(1)
        }));
        assert!(slow.as_mut().poll(&mut nobody()).is_pending());
        assert_eq!(read(|| Ok(2)).await.unwrap(), 2);
        assert_eq!(Lane::default().write(|| Ok(3)).await.unwrap(), 3);
        assert_eq!(write(|| Ok(4)).await.unwrap(), 4);
        release.send(()).unwrap();
        assert_eq!(slow.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_job_whose_caller_left_still_runs_in_its_turn() {
        let lane = Lane::default();
        let (ran, did_run) = mpsc::channel();
        {
            let mut left = Box::pin(lane.write(move || {
                ran.send(()).unwrap();
                Ok(())
            }));
            let _ = left.as_mut().poll(&mut nobody());
        }
        lane.write(|| Ok(())).await.unwrap();
        did_run.try_recv().expect("it ran before the later job");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_thread_goes_on() {
        let lane = Lane::default();
        for _ in 0..8 {
            let panics: io::Result<()> = lane.write(|| panic!("on purpose")).await;
            assert!(panics.unwrap_err().to_string().contains("unknown"));
        }
        assert_eq!(lane.write(|| Ok(5)).await.unwrap(), 5);
    }
}

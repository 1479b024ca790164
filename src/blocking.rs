//! A few threads for calls that wait where no completion can be had: `spawn_blocking`, and name
//! lookups. Not for computing in parallel, and never on the way of bytes.
//!
//! There is one pool for the process, not one for each runtime. Runtimes are cheap here, one per
//! core or more, and threads that sleep in getaddrinfo(3) are better shared than multiplied. And a
//! closure cannot be cancelled: a pool of its own would make the end of a runtime wait for it, or
//! leave threads behind that are nobody's.
//!
//! Two lanes share the threads, each with a cap of its own: closures that never end do not keep
//! names from being looked up, and dead name servers do not keep closures waiting.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::executor::{self, JoinError, TaskId};
use crate::panics::contain;
use crate::sys::signal::spawn_without_signals;

/// How many closures of `spawn_blocking` run at once.
const CLOSURES_MAX: usize = 8;
/// How many names are looked up at once.
const LOOKUPS_MAX: usize = 4;
/// How long a thread with nothing to do stays.
const IDLE: Duration = Duration::from_secs(5);
/// As tools show it; the kernel cuts at 15 bytes.
const NAME: &str = "tamam-blocking";

/// Runs a closure that blocks on a thread of its own kind, and gives its output.
///
/// For calls that have no asynchronous form: a library that does I/O by itself, a file of a slow
/// disk. At most 8 closures run at once in a process, on threads that are started when they are
/// needed and end after 5 seconds without work; more of them wait in order. So a closure must not
/// wait for another one. For computing in parallel, threads of your own or a library for that serve
/// better.
///
/// Works inside and outside a runtime. The closure begins though the handle is not polled. Nothing
/// waits for it: not the end of a runtime, and not the end of the process, which cuts it off.
/// Threads of the pool get no signals.
///
/// What waits is bounded by who calls: each closure that waits is memory that somebody handed in,
/// as with [`spawn`](crate::spawn).
///
/// # Panics
/// If no thread can be started, and there is none.
/// # Cancel safety
/// Dropping the handle detaches: the closure runs all the same, and its output is dropped.
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let text = tamam::run(async {
///     tamam::spawn_blocking(|| std::fs::read_to_string("/proc/self/comm")).await
/// })??;
/// assert!(!text.is_empty());
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn spawn_blocking<T, F>(closure: F) -> BlockingHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match begin(Lane::Closures, closure) {
        Ok(handle) => handle,
        Err(error) => panic!("no thread can be started for a blocking closure: {error}"),
    }
}

/// As `spawn_blocking`, in the lane of lookups. One whose handle is dropped before its turn does
/// not run: nobody wants the answer.
pub(crate) fn lookup<T, F>(closure: F) -> io::Result<BlockingHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    begin(Lane::Lookups, closure)
}

fn begin<T, F>(lane: Lane, closure: F) -> io::Result<BlockingHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let id = TaskId::next();
    let shared = Arc::new(Shared { stage: Mutex::new(Stage::Pending(None)) });
    let worker = shared.clone();
    POOL.submit(
        lane,
        Box::new(move || {
            if lane == Lane::Lookups && worker.is_unwanted() {
                return contain(|| drop(closure));
            }
            let output = catch_unwind(AssertUnwindSafe(closure));
            worker.complete(output.map_err(|payload| JoinError::panic(id, payload)));
        }),
    )?;
    Ok(BlockingHandle { id, shared })
}

/// A closure on its way through [`spawn_blocking`]: a future of its output.
///
/// The output is an error ([`JoinError`]) if the closure panicked; the pool is not hurt by that.
/// The handle is `Send`, and any executor can poll it, also after the runtime where it was made is
/// gone.
///
/// # Panics
/// Polling it again after it gave its result panics.
/// # Cancel safety
/// Cancel safe: `&mut handle` can be awaited, dropped and awaited again. Dropping the handle itself
/// detaches.
/// # Examples
/// ```
/// let error = tamam::run(async {
///     tamam::spawn_blocking(|| assert!(1 > 2, "one is not more than two")).await.unwrap_err()
/// });
/// assert!(error.is_panic());
/// ```
#[must_use = "the closure runs all the same, but what becomes of it is not seen"]
pub struct BlockingHandle<T> {
    id: TaskId,
    shared: Arc<Shared<T>>,
}

impl<T> BlockingHandle<T> {
    /// Whether the closure has ended, so that its result can be had without waiting.
    pub fn is_finished(&self) -> bool {
        !matches!(*self.shared.lock(), Stage::Pending(_))
    }

    /// An id among the tasks and closures of the thread that made it.
    pub fn id(&self) -> TaskId {
        self.id
    }
}

impl<T> Future for BlockingHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone(); // foreign code: before the lock
        let mut stage = self.shared.lock();
        if let Stage::Pending(registered) = &mut *stage {
            let replaced = registered.replace(waker);
            drop(stage);
            drop(replaced);
            return Poll::Pending;
        }
        drop(stage);
        ready!(executor::spend(cx));
        let stage = std::mem::replace(&mut *self.shared.lock(), Stage::Gone);
        match stage {
            Stage::Done(result) => Poll::Ready(result),
            _ => panic!("a BlockingHandle is not polled after it gave its result"),
        }
    }
}

impl<T> Drop for BlockingHandle<T> {
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut *self.shared.lock(), Stage::Gone);
        drop(stage); // an output or a waker: foreign code, after the lock
    }
}

impl<T> fmt::Debug for BlockingHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = self.is_finished();
        f.debug_struct("BlockingHandle").field("id", &self.id).field("finished", &finished).finish()
    }
}

/// Where the closure's thread and the handle meet. The last of them frees it.
struct Shared<T> {
    stage: Mutex<Stage<T>>,
}

enum Stage<T> {
    /// It waits or runs; whoever polled last wants to know of its end.
    Pending(Option<Waker>),
    Done(Result<T, JoinError>),
    /// The result was taken, or the handle dropped.
    Gone,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Stage<T>> {
        // No foreign code runs under it, so nothing panics there.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_unwanted(&self) -> bool {
        matches!(*self.lock(), Stage::Gone)
    }

    fn complete(&self, result: Result<T, JoinError>) {
        let mut stage = self.lock();
        if let Stage::Pending(waker) = &mut *stage {
            let waker = waker.take();
            *stage = Stage::Done(result);
            drop(stage);
            if let Some(waker) = waker {
                contain(|| waker.wake());
            }
        } else {
            drop(stage);
            contain(|| drop(result));
        }
    }
}

// ---- the pool ------------------------------------------------------------------------------------

static POOL: Pool = Pool { state: Mutex::new(State::new(0)), work: Condvar::new() };

/// A job contains the panics of what it runs.
type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    state: Mutex<State>,
    /// Told of each job that a thread which is there may take.
    work: Condvar,
}

struct State {
    /// Whose threads these are: a forked child has the counts, and none of the threads.
    process: u32,
    lanes: [Queue; 2],
    /// All that were started and have not ended.
    threads: usize,
}

struct Queue {
    /// Bounded by who calls: see `spawn_blocking`.
    jobs: VecDeque<Job>,
    running: usize,
    running_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Closures,
    Lookups,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, and starts a thread for it unless there are enough.
    fn submit(&self, lane: Lane, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        state.forget_parent();
        state.lanes[lane as usize].jobs.push_back(job);
        if state.threads >= state.wanted() {
            // So many threads are idle, or about to look, as jobs may be taken.
            self.work.notify_one();
            return Ok(());
        }
        match spawn_without_signals(NAME, || POOL.work()) {
            Ok(()) => state.threads += 1,
            Err(error) if state.threads == 0 => {
                let job = state.lanes[lane as usize].jobs.pop_back();
                drop(state);
                drop(job); // foreign code
                return Err(error);
            }
            Err(_) => {} // one of those that are there comes to it
        }
        Ok(())
    }

    /// The life of a thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((lane, job)) = state.take() {
                drop(state);
                job();
                state = self.lock();
                state.lanes[lane].running -= 1;
                continue;
            }
            let wait = self.work.wait_timeout(state, IDLE);
            let (again, waited) = wait.unwrap_or_else(PoisonError::into_inner);
            state = again;
            if waited.timed_out() && !state.lanes.iter().any(Queue::has_work) {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl State {
    const fn new(process: u32) -> State {
        let lanes = [Queue::new(CLOSURES_MAX), Queue::new(LOOKUPS_MAX)];
        State { process, lanes, threads: 0 }
    }

    fn forget_parent(&mut self) {
        let process = std::process::id();
        if self.process != process {
            // The parent's jobs are its own: they are not dropped here either.
            std::mem::forget(std::mem::replace(self, State::new(process)));
        }
    }

    /// How many threads have something to do.
    fn wanted(&self) -> usize {
        self.lanes.iter().map(|lane| lane.running_max.min(lane.running + lane.jobs.len())).sum()
    }

    /// The next job, with the number of its lane, which it now runs in.
    fn take(&mut self) -> Option<(usize, Job)> {
        let (number, lane) = self.lanes.iter_mut().enumerate().find(|(_, lane)| lane.has_work())?;
        lane.running += 1;
        Some((number, lane.jobs.pop_front()?))
    }
}

impl Queue {
    const fn new(running_max: usize) -> Queue {
        Queue { jobs: VecDeque::new(), running: 0, running_max }
    }

    /// Whether a job waits that may run.
    fn has_work(&self) -> bool {
        self.running < self.running_max && !self.jobs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// With all threads of the lane taken, a lookup that nobody wants any more never begins, while
    /// closures run.
    #[test]
    fn an_unwanted_lookup_does_not_begin() {
        let ran = Arc::new(AtomicUsize::new(0));
        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let blocked: Vec<_> = (0..LOOKUPS_MAX)
            .map(|_| {
                let gate = gate.clone();
                lookup(move || gate.lock().map(|gate| gate.recv().is_ok()).is_ok())
            })
            .collect();
        let counted = || {
            let ran = ran.clone();
            lookup(move || ran.fetch_add(1, Ordering::SeqCst)).expect("a thread")
        };
        let (unwanted, wanted) = (counted(), counted());
        drop(unwanted);
        crate::run(spawn_blocking(|| ())).expect("no panic");
        assert_eq!(ran.load(Ordering::SeqCst), 0, "there are no more than so many threads");
        for _ in &blocked {
            open.send(()).expect("they wait");
        }
        for lookup in blocked {
            assert!(crate::run(lookup.expect("a thread")).expect("no panic"));
        }
        crate::run(wanted).expect("no panic");
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn wanted_threads_are_capped_in_each_lane() {
        let mut state = State::new(0);
        assert_eq!(state.wanted(), 0);
        for _ in 0..2 * CLOSURES_MAX {
            state.lanes[Lane::Closures as usize].jobs.push_back(Box::new(|| ()));
        }
        assert_eq!(state.wanted(), CLOSURES_MAX);
        for running in 1..=CLOSURES_MAX {
            let (lane, _) = state.take().expect("a job that may run");
            assert_eq!((lane, state.lanes[lane].running), (Lane::Closures as usize, running));
        }
        assert!(state.take().is_none(), "the lane is full");
        state.lanes[Lane::Lookups as usize].jobs.push_back(Box::new(|| ()));
        assert_eq!(state.wanted(), CLOSURES_MAX + 1);
        assert!(state.take().is_some_and(|(lane, _)| lane == Lane::Lookups as usize));
    }
}

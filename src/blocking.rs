//! A few threads for calls that block and have no asynchronous form: closures of `spawn_blocking`,
//! and lookups of host names. They are not for computing in parallel. No I/O of a socket or timer
//! uses them.
//!
//! There is one pool for the process, not one for each runtime, for two reasons. A process may have
//! a runtime for each core or more, and threads that sleep in getaddrinfo(3) are better shared. And
//! a closure cannot be cancelled: a runtime with its own pool would have to wait for its closures
//! when it ends, or leave threads behind.
//!
//! Two lanes share the threads, each with a limit of its own. So closures that never end do not
//! hold up lookups, and dead name servers do not hold up closures.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::executor::{self, JoinError, Origin, TaskId};
use crate::panics::contain;
use crate::sys::signal::spawn_without_signals;

/// How many closures of `spawn_blocking` run at the same time, unless it was set.
const CLOSURES_MAX: usize = 8;
/// How many host names are looked up at the same time.
const LOOKUPS_MAX: usize = 4;
/// A thread ends when it has had nothing to do for so long.
const IDLE: Duration = Duration::from_secs(5);
/// The name of each thread. (The kernel keeps 15 bytes, one more than this has.)
const NAME: &str = "tamam-blocking";

/// Runs a closure that blocks, on a thread that is there for such closures, and gives its output.
///
/// Use it for calls that have no asynchronous form: a library that does I/O by itself, a file on a
/// slow disk. At most 8 closures of a process run at the same time, or as many as
/// [`set_blocking_threads`] says; others wait in order. So a closure must not wait for another one.
/// Threads start when they are needed, and end after 5 seconds without work. For computing in
/// parallel, use threads of your own or a library that is made for it.
///
/// It works inside and outside a runtime. The closure starts even if the handle is never polled.
/// The end of a runtime does not wait for it; the end of the process cuts it off. Signals are
/// blocked on the threads of the pool.
///
/// The number of waiting closures has no limit: the caller is responsible for it, as with
/// [`spawn`](crate::spawn).
///
/// # Panics
/// If the pool has no thread and none can be started.
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
        Err(error) => panic!("{error}"),
    }
}

/// Sets how many threads of this process run closures of [`spawn_blocking`], and so how many of
/// these run at the same time: 8 unless set, whatever the number of runtimes. Lookups of host names
/// have threads of their own, 4 at most, and are not concerned.
///
/// It takes effect at once. With more threads, closures that wait begin; with fewer, those that run
/// go on, and the next one begins when enough have ended. Threads start when they are needed, so a
/// large number costs nothing by itself. A forked child keeps the number.
///
/// # Errors
/// `InvalidInput` for zero: no closure would ever run.
/// # Examples
/// Early in `main`, for a library that blocks:
/// ```
/// tamam::set_blocking_threads(32)?;
/// let len = tamam::run(async {
///     tamam::spawn_blocking(|| std::fs::read("/proc/self/comm").map(|name| name.len())).await
/// });
/// assert!(len.expect("no panic")? > 0);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn set_blocking_threads(closures_max: usize) -> io::Result<()> {
    if closures_max == 0 {
        let text = "the number of blocking threads is 0, and has to be at least 1";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    POOL.set_closures_max(closures_max);
    Ok(())
}

/// As `spawn_blocking`, in the lane of lookups. If its handle is dropped before its turn, the
/// closure does not run. It is an error if the pool has no thread and none can be started.
pub(crate) fn lookup<T, F>(closure: F) -> io::Result<BlockingHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    begin(Lane::Lookups, closure)
}

/// Queues a closure in a lane. On an error the closure is dropped.
fn begin<T, F>(lane: Lane, closure: F) -> io::Result<BlockingHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let id = TaskId::next();
    let shared = Arc::new(SharedJob { stage: Mutex::new(JobStage::Pending(None)) });
    let worker = shared.clone();
    POOL.submit(
        lane,
        Box::new(move || {
            if lane == Lane::Lookups && worker.is_unwanted() {
                return contain(|| drop(closure));
            }
            let output = catch_unwind(AssertUnwindSafe(closure));
            worker
                .complete(output.map_err(|payload| JoinError::panic(Origin::Closure, id, payload)));
        }),
    )?;
    Ok(BlockingHandle { id, shared })
}

/// A closure on its way through [`spawn_blocking`]: a future of its output.
///
/// The output is an error ([`JoinError`]) if the closure panicked; the pool goes on. The handle is
/// `Send`, and any executor can poll it, also after the runtime where it was made is gone.
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
    shared: Arc<SharedJob<T>>,
}

impl<T> BlockingHandle<T> {
    /// Whether the closure has ended, so that its result is there without waiting.
    ///
    /// # Examples
    /// A slow closure is looked at now and then, while other work goes on:
    /// ```
    /// use std::time::Duration;
    ///
    /// tamam::run(async {
    ///     let sum = tamam::spawn_blocking(|| (1..=1000).sum::<u32>());
    ///     while !sum.is_finished() {
    ///         tamam::time::sleep(Duration::from_millis(1)).await;
    ///     }
    ///     assert_eq!(sum.await.expect("no panic"), 500_500);
    /// });
    /// ```
    pub fn is_finished(&self) -> bool {
        !matches!(*self.shared.lock(), JobStage::Pending(_))
    }

    /// Its id, among those of the tasks and closures that the same thread spawned.
    pub fn id(&self) -> TaskId {
        self.id
    }
}

impl<T> Future for BlockingHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone(); // foreign code, so before the lock
        let mut stage = self.shared.lock();
        if let JobStage::Pending(registered) = &mut *stage {
            let replaced = registered.replace(waker);
            drop(stage);
            drop(replaced);
            POOL.retry();
            return Poll::Pending;
        }
        drop(stage);
        ready!(executor::consume_budget(cx));
        let stage = std::mem::replace(&mut *self.shared.lock(), JobStage::Gone);
        match stage {
            JobStage::Done(result) => Poll::Ready(result),
            _ => panic!("a BlockingHandle is not polled after it gave its result"),
        }
    }
}

impl<T> Drop for BlockingHandle<T> {
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut *self.shared.lock(), JobStage::Gone);
        drop(stage); // an output or a waker: foreign code, so after the lock
    }
}

impl<T> fmt::Debug for BlockingHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = self.is_finished();
        f.debug_struct("BlockingHandle").field("id", &self.id).field("finished", &finished).finish()
    }
}

/// What the handle and the thread that runs the closure share.
struct SharedJob<T> {
    stage: Mutex<JobStage<T>>,
}

enum JobStage<T> {
    /// The closure waits or runs. The waker is that of the last poll of the handle.
    Pending(Option<Waker>),
    Done(Result<T, JoinError>),
    /// The result was taken, or the handle dropped.
    Gone,
}

impl<T> SharedJob<T> {
    fn lock(&self) -> MutexGuard<'_, JobStage<T>> {
        // No foreign code runs under the lock, so it is never poisoned.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the handle was dropped, so that no one will read a result. For the time before the
    /// closure has run.
    fn is_unwanted(&self) -> bool {
        matches!(*self.lock(), JobStage::Gone)
    }

    /// Stores the result and wakes the task of the handle. If the handle is gone, drops the result.
    fn complete(&self, result: Result<T, JoinError>) {
        let mut stage = self.lock();
        if let JobStage::Pending(waker) = &mut *stage {
            let waker = waker.take();
            *stage = JobStage::Done(result);
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

// ---- the pool
// ------------------------------------------------------------------------------------

static POOL: ThreadPool = ThreadPool {
    state: Mutex::new(PoolState::new(0, CLOSURES_MAX)),
    work: Condvar::new(),
    short: AtomicU32::new(0),
};

/// The error when no thread can be started. pthread_create(3) says EAGAIN for a lack of memory or of
/// threads, which must not look as if the call was to be repeated at once.
fn no_thread(error: &io::Error) -> io::Error {
    let text = format!("no thread can be started for a call that blocks: {error}");
    io::Error::new(io::ErrorKind::OutOfMemory, text)
}

/// A closure with what follows it. A job does not panic: it contains the panics of the closure.
type Job = Box<dyn FnOnce() + Send>;

struct ThreadPool {
    state: Mutex<PoolState>,
    /// Notified of each job for which no thread is started, so that an idle thread takes it.
    work: Condvar,
    /// The process in which the last thread that was wanted could not be started, or 0.
    short: AtomicU32,
}

struct PoolState {
    /// The process that started the threads. A forked child inherits the counts, but no threads.
    process: u32,
    lanes: [JobQueue; 2],
    /// How many threads were started and have not ended.
    threads: usize,
}

struct JobQueue {
    /// The callers bound it: see `spawn_blocking`.
    jobs: VecDeque<Job>,
    running: usize,
    running_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Closures,
    Lookups,
}

impl ThreadPool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, and starts a thread for it unless there are enough. `Err`: there is no thread
    /// and none can be started, and the job was dropped.
    fn submit(&self, lane: Lane, job: Job) -> io::Result<()> {
        let mut state = self.lock();
        state.forget_parent();
        state.lanes[lane as usize].jobs.push_back(job);
        if state.threads >= state.wanted() {
            // There is a thread for each job that may run: it is idle, or about to look for a job.
            self.work.notify_one();
            return Ok(());
        }
        match self.start_threads(&mut state) {
            Err(error) if state.threads == 0 => {
                let job = state.lanes[lane as usize].jobs.pop_back();
                drop(state);
                drop(job); // foreign code, so after the lock
                Err(no_thread(&error))
            }
            // If none could be started, one of the present threads will take it, or one that is
            // started at the next event.
            _ => Ok(()),
        }
    }

    /// Changes how many closures may run. Those that wait and may run now get a thread.
    fn set_closures_max(&self, closures_max: usize) {
        let mut state = self.lock();
        state.forget_parent();
        state.lanes[Lane::Closures as usize].running_max = closures_max;
        let _ = self.start_threads(&mut state); // if it fails, the next event tries again
        self.work.notify_all(); // idle threads take what may run now
    }

    /// Starts a thread for each job that may run and has none. `Err`: the first that could not be
    /// started. Then [`retry`](Self::retry) tries again.
    fn start_threads(&self, state: &mut PoolState) -> io::Result<()> {
        while state.threads < state.wanted() {
            let started = spawn_without_signals(NAME, || POOL.work());
            self.short.store(if started.is_err() { state.process } else { 0 }, Relaxed);
            started?;
            state.threads += 1;
        }
        Ok(())
    }

    /// If a thread is missing because it could not be started, tries again: the lack may be over.
    /// Called where something happens anyway: a handle is polled, a job has ended.
    fn retry(&self) {
        if self.is_short() {
            let _ = self.start_threads(&mut self.lock()); // if it fails, the next event tries again
        }
    }

    /// Whether a thread is missing. Not in a forked copy, which has none of the jobs.
    fn is_short(&self) -> bool {
        let short = self.short.load(Relaxed);
        short != 0 && short == std::process::id()
    }

    /// What each thread runs, from its start to its end: the jobs, until there was none for
    /// [`IDLE`].
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((lane, job)) = state.take() {
                drop(state);
                job();
                state = self.lock();
                state.lanes[lane].running -= 1;
                if self.is_short() {
                    let _ = self.start_threads(&mut state); // if it fails, the next event tries again
                }
                continue;
            }
            let wait = self.work.wait_timeout(state, IDLE);
            let (again, waited) = wait.unwrap_or_else(PoisonError::into_inner);
            state = again;
            if waited.timed_out() && !state.lanes.iter().any(JobQueue::has_work) {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl PoolState {
    const fn new(process: u32, closures_max: usize) -> PoolState {
        let lanes = [JobQueue::new(closures_max), JobQueue::new(LOOKUPS_MAX)];
        PoolState { process, lanes, threads: 0 }
    }

    /// In a forked child: begins again without the jobs and threads of the parent.
    fn forget_parent(&mut self) {
        let process = std::process::id();
        if self.process != process {
            let closures_max = self.lanes[Lane::Closures as usize].running_max;
            // The jobs belong to the parent, so this child does not even drop them.
            std::mem::forget(std::mem::replace(self, PoolState::new(process, closures_max)));
        }
    }

    /// How many threads could be busy now.
    fn wanted(&self) -> usize {
        self.lanes.iter().map(|lane| lane.running_max.min(lane.running + lane.jobs.len())).sum()
    }

    /// Takes the next job that may run, and counts it as running. Returns the number of its lane
    /// too. `None`: no job may run now.
    fn take(&mut self) -> Option<(usize, Job)> {
        let (number, lane) = self.lanes.iter_mut().enumerate().find(|(_, lane)| lane.has_work())?;
        lane.running += 1;
        Some((number, lane.jobs.pop_front()?))
    }
}

impl JobQueue {
    const fn new(running_max: usize) -> JobQueue {
        JobQueue { jobs: VecDeque::new(), running: 0, running_max }
    }

    /// Whether a job waits and may run.
    fn has_work(&self) -> bool {
        self.running < self.running_max && !self.jobs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_forked_copy_keeps_the_number_of_closures() {
        let no_process = 0;
        let mut state = PoolState::new(no_process, 5);
        state.threads = 3;
        state.forget_parent();
        assert_eq!((state.lanes[Lane::Closures as usize].running_max, state.threads), (5, 0));
        assert_eq!(state.lanes[Lane::Lookups as usize].running_max, LOOKUPS_MAX);
    }

    /// While all threads of the lane are busy, a lookup whose handle is dropped never starts, and
    /// closures do.
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

    /// The mark of a parent that lacked a thread means nothing in its forked copy.
    #[test]
    fn a_forked_copy_does_not_lack_its_parents_thread() {
        let parent = std::process::id() + 1; // any other process
        let (state, work) = (Mutex::new(PoolState::new(0, CLOSURES_MAX)), Condvar::new());
        let pool = ThreadPool { state, work, short: AtomicU32::new(parent) };
        assert!(!pool.is_short());
        pool.short.store(std::process::id(), Relaxed);
        assert!(pool.is_short());
    }

    #[test]
    fn wanted_threads_are_capped_in_each_lane() {
        let mut state = PoolState::new(0, CLOSURES_MAX);
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

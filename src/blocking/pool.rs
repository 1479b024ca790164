//! The threads: how many there are, and which job is next. There is one pool for the process.
//!
//! Each kind of calls is a lane with a limit of its own, so one kind does not hold up another. Read
//! next: `standard.rs`.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::signal::spawn_without_signals;

/// How many closures of `spawn_blocking` run at the same time, unless it was set.
const CLOSURES_MAX: usize = 8;
/// How many host names are looked up at the same time.
const LOOKUPS_MAX: usize = 4;
/// A thread ends when it has had nothing to do for so long.
pub(super) const IDLE: Duration = Duration::from_secs(5);
/// The name of each thread. (The kernel keeps 15 bytes, one more than this has.)
const NAME: &str = "tamam-blocking";

pub(super) static POOL: ThreadPool = ThreadPool {
    state: Mutex::new(PoolState::new(0, CLOSURES_MAX)),
    work: Condvar::new(),
    short: AtomicU32::new(0),
};

/// The error when no thread can be started. pthread_create(3) says EAGAIN for a lack of memory or of
/// threads, which must not look as if the call was to be repeated at once.
pub(super) fn no_thread(error: &io::Error) -> io::Error {
    let text = format!("no thread can be started for a call that blocks: {error}");
    io::Error::new(io::ErrorKind::OutOfMemory, text)
}

/// A closure with what follows it. A job does not panic: it contains the panics of the closure.
pub(super) type Job = Box<dyn FnOnce() + Send>;

pub(super) struct ThreadPool {
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

/// The kinds of calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Closures,
    Lookups,
}

impl ThreadPool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, and starts a thread for it unless there are enough. `Err`: there is no thread
    /// and none can be started, and the job was dropped.
    pub(super) fn submit(&self, lane: Lane, job: Job) -> io::Result<()> {
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
    pub(super) fn set_closures_max(&self, closures_max: usize) {
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
    pub(super) fn retry(&self) {
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
    use std::sync::{Arc, mpsc};

    use super::super::{lookup, spawn_blocking};
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

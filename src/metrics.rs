//! What a runtime counts: plain integers, always on.

use crate::context::{self, Handle};

/// Counts of a runtime since it was made, and what it holds now.
///
/// # Examples
/// ```
/// tamam::run(async {
///     let before = tamam::metrics();
///     tamam::yield_now().await;
///     assert!(tamam::metrics().polls > before.polls);
/// });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// System calls that submit or wait: io_uring_enter(2); epoll_pwait2(2) and epoll_wait(2).
    pub enters: u64,
    /// All system calls of the engine: `enters`, those that send datagrams, and under epoll those
    /// that receive, send, accept, connect and register. Calls that bypass the engine on either
    /// (shutdown(2), close(2), options of sockets) are not counted.
    pub system_calls: u64,
    /// Submissions that the kernel took; under epoll, requests.
    pub submissions: u64,
    /// Completions that were reaped; under epoll, requests that were answered.
    pub completions: u64,
    /// How often the completion queue overflowed, so that the runtime had to ask the kernel for the
    /// rest.
    pub overflows: u64,
    /// How often a receive ended because no buffer was free.
    pub pool_empty: u64,
    /// Accepts that failed: because no descriptor was left, or because the client was gone.
    pub accept_errors: u64,
    /// Answers (bytes, connections) that came while no task waited for them, and were parked.
    pub parked: u64,
    /// Completions that belong to no op in flight. If this is not zero, it is a bug of this crate:
    /// please report it.
    pub stray_completions: u64,
    /// Polls of tasks, the main future included.
    pub polls: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Ops in flight now.
    pub ops: usize,
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Timers that are pending.
    pub timers: usize,
    /// Pooled receive buffers that are lent out, parked ones included.
    pub buffers_lent: usize,
}

impl Metrics {
    pub(crate) fn of(handle: &Handle) -> Metrics {
        let Handle { executor, timers, driver, turns, .. } = handle;
        let counters = driver.counters();
        Metrics {
            enters: counters.enters.get(),
            system_calls: driver.system_calls(),
            submissions: counters.submissions.get(),
            completions: counters.completions.get(),
            overflows: counters.overflows.get(),
            pool_empty: counters.pool_empty.get(),
            accept_errors: counters.accept_errors.get(),
            parked: counters.unawaited.get(),
            stray_completions: counters.stray_completions.get(),
            polls: executor.polls(),
            turns: turns.get(),
            ops: driver.in_flight(),
            tasks: executor.tasks(),
            timers: timers.len(),
            buffers_lent: driver.buffers_lent(),
        }
    }
}

/// The counts of the runtime of this thread.
///
/// # Panics
/// Outside a runtime; [`Runtime::metrics`](crate::Runtime::metrics) works there.
/// # Examples
/// ```
/// tamam::run(async {
///     let task = tamam::spawn(std::future::pending::<()>());
///     assert_eq!(tamam::metrics().tasks, 1);
///     task.abort();
///     assert!(task.await.is_err());
///     assert_eq!(tamam::metrics().tasks, 0);
/// });
/// ```
#[track_caller]
pub fn metrics() -> Metrics {
    Metrics::of(&context::expect_current())
}

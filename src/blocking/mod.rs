//! Threads for calls that block and have no asynchronous form: a few for closures of `spawn_blocking` and
//! lookups of host names, and one for each standard stream that no engine can wait for. They are not for
//! computing in parallel. No I/O of a socket or timer uses them.
//!
//! There is one pool for the process, not one for each runtime, for two reasons. A process may have
//! a runtime for each core or more, and threads that sleep in getaddrinfo(3) are better shared. And
//! a closure cannot be cancelled: a runtime with its own pool would have to wait for its closures
//! when it ends, or leave threads behind.
//!
//! Closures and lookups have a limit each. So closures that never end do not hold up lookups, and dead
//! name servers do not hold up closures.

// Read next: `pool.rs`.

mod pool;
pub(crate) mod standard;

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use pool::{Lane, POOL};

use crate::executor::{self, JoinError, Origin, TaskId};
use crate::panics::contain;

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

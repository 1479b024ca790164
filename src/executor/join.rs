//! What `spawn` returns, and what comes with it: `JoinHandle`, `AbortHandle`, `JoinError`,
//! `TaskId`.
//!
//! Both handles stay on the task's home thread. How the output gets from the future to the handle
//! is in `cell.rs`.

use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};
use std::any::Any;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::task::{TaskRef, TypedTask};
use super::waker::consume_budget;
use crate::panics::contain;

/// The handle of a spawned task: a future of its output.
///
/// Dropping the handle detaches the task: it runs on, and its output is dropped when it completes.
/// To stop the task, call [`abort`](Self::abort). The handle stays on the thread of its runtime.
/// Any executor of that thread can poll it, also when the runtime is gone: then it gives the output
/// of a task that had finished, and [`JoinError`] (cancelled) for any other.
///
/// # Panics
/// Polling it again after it gave its result panics.
/// # Cancel safety
/// Cancel safe: `&mut handle` can be awaited, dropped and awaited again; the output stays in the
/// task until it is taken. (Dropping the handle itself detaches.)
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sum = tamam::run(async {
///     let task = tamam::spawn(async { 2 + 2 });
///     task.await
/// })?;
/// assert_eq!(sum, 4);
/// # Ok(())
/// # }
/// ```
pub struct JoinHandle<T> {
    task: TypedTask<T>,
}

/// Ends a task, without waiting for it or its output. From [`JoinHandle::abort_handle`].
///
/// Dropping it does nothing. It keeps the task's memory allocated, but does not keep the future or
/// the output.
///
/// # Examples
/// ```
/// tamam::run(async {
///     let task = tamam::spawn(std::future::pending::<()>());
///     let stop = task.abort_handle();
///     tamam::spawn(async move { stop.abort() });
///     assert!(task.await.unwrap_err().is_cancelled());
/// });
/// ```
#[derive(Clone)]
pub struct AbortHandle {
    task: TaskRef,
}

impl<T> JoinHandle<T> {
    #[inline]
    pub(super) fn new(task: TypedTask<T>) -> Self {
        Self { task }
    }

    /// Asks the task to end.
    ///
    /// Its future is dropped when the run queue comes to it, never inside this call; from then on
    /// [`is_finished`](Self::is_finished) is true and the handle gives [`JoinError`] (cancelled).
    /// A task that aborts itself, or is aborted while it runs, ends where it next waits. If it
    /// completes first, its output stays. A task that has finished is not affected.
    ///
    /// # Examples
    /// ```
    /// tamam::run(async {
    ///     let task = tamam::spawn(std::future::pending::<()>());
    ///     task.abort();
    ///     assert!(!task.is_finished());
    ///     assert!(task.await.unwrap_err().is_cancelled());
    /// });
    /// ```
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the task is over: its future is gone, and its result is there without waiting.
    ///
    /// # Examples
    /// ```
    /// tamam::run(async {
    ///     let task = tamam::spawn(async { 7 });
    ///     assert!(!task.is_finished());
    ///     tamam::yield_now().await;
    ///     assert!(task.is_finished());
    /// });
    /// ```
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }

    /// The id of the task.
    #[inline]
    pub fn id(&self) -> TaskId {
        self.task.id
    }

    /// A handle that can end the task, and be cloned and kept elsewhere.
    ///
    /// # Examples
    /// A task that is stopped, although its handle is being awaited elsewhere:
    /// ```
    /// tamam::run(async {
    ///     let task = tamam::spawn(std::future::pending::<()>());
    ///     let stop = task.abort_handle();
    ///     let waiting = tamam::spawn(task);
    ///     stop.abort();
    ///     let result = waiting.await.expect("no panic");
    ///     assert!(result.unwrap_err().is_cancelled());
    /// });
    /// ```
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { task: self.task.clone() }
    }

    /// Stores a waker to be woken at the end, in place of the one before. The present one stays if
    /// it wakes the same task.
    fn register(&self, waker: &Waker) {
        let before = self.task.join_waker.take();
        match before {
            Some(before) if before.will_wake(waker) => self.task.join_waker.set(Some(before)),
            before => {
                drop(self.task.join_waker.replace(Some(waker.clone())));
                drop(before);
            }
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.task.is_done() {
            self.register(cx.waker());
            // Check again. `register` clones and drops wakers, which is foreign code. It may have
            // dropped the executor, which then ended the task before the waker was in place.
            if !self.task.is_done() {
                return Poll::Pending;
            }
        }
        ready!(consume_budget(cx));
        let output = self.task.take_output();
        Poll::Ready(output.expect("a JoinHandle is not polled after it gave its result"))
    }
}

// The output is in the task, not in the handle.
impl<T> Unpin for JoinHandle<T> {}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        self.task.detach();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = self.is_finished();
        f.debug_struct("JoinHandle").field("id", &self.id()).field("finished", &finished).finish()
    }
}

impl AbortHandle {
    /// Asks the task to end, as [`JoinHandle::abort`] does. Any clone of the handle can do it.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the future of the task is gone.
    ///
    /// # Examples
    /// ```
    /// tamam::run(async {
    ///     let handle = tamam::spawn(async {}).abort_handle();
    ///     assert!(!handle.is_finished());
    ///     tamam::yield_now().await;
    ///     assert!(handle.is_finished());
    /// });
    /// ```
    pub fn is_finished(&self) -> bool {
        self.task.is_done()
    }

    /// The id of the task.
    pub fn id(&self) -> TaskId {
        self.task.id
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = self.is_finished();
        f.debug_struct("AbortHandle").field("id", &self.id()).field("finished", &finished).finish()
    }
}

/// Names a task among those spawned on its thread.
///
/// Each thread counts its own ids, without atomics. Two tasks of one thread never have the same id;
/// tasks of different threads may.
///
/// # Examples
/// ```
/// tamam::run(async {
///     let (one, two) = (tamam::spawn(async {}), tamam::spawn(async {}));
///     assert_ne!(one.id(), two.id());
///     assert_eq!(one.id(), one.abort_handle().id());
///     println!("tasks {} and {}", one.id(), two.id());
/// });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(u64);

impl TaskId {
    /// The next id of this thread.
    #[inline]
    pub(crate) fn next() -> Self {
        thread_local! {
            static LAST: Cell<u64> = const { Cell::new(0) };
        }
        let id = LAST.get() + 1;
        LAST.set(id);
        Self(id)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a task gave no output: it was cancelled, or it panicked.
///
/// Cancelled means aborted, or its runtime was dropped first. A panic in the destructor of the
/// task's future counts as a panic of the task. The message of a panic was printed by the panic
/// hook when it happened, and is part of what this displays if it is a string.
///
/// # Examples
/// ```
/// let result = tamam::run(async {
///     tamam::spawn(async { assert!(1 > 2, "one is not more than two") }).await
/// });
/// let error = result.unwrap_err();
/// assert!(error.is_panic());
/// assert!(error.to_string().ends_with("panicked: one is not more than two"));
/// ```
pub struct JoinError {
    id: TaskId,
    cause: Cause,
}

enum Cause {
    Cancelled,
    Panic(Origin, PanicPayload),
}

/// Where a panic came from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    Task,
    /// A closure of `spawn_blocking`.
    Closure,
}

/// Boxed twice so that a `Result` with it is small. The mutex is there only to make it `Sync`.
struct PanicPayload(Option<Box<Mutex<Box<dyn Any + Send>>>>);

impl JoinError {
    pub(super) fn cancelled(id: TaskId) -> Self {
        Self { id, cause: Cause::Cancelled }
    }

    #[cold]
    pub(crate) fn panic(origin: Origin, id: TaskId, payload: Box<dyn Any + Send>) -> Self {
        let payload = PanicPayload(Some(Box::new(Mutex::new(payload))));
        Self { id, cause: Cause::Panic(origin, payload) }
    }

    /// Whether the task was aborted, or its runtime dropped, before it finished.
    ///
    /// # Examples
    /// ```
    /// tamam::run(async {
    ///     let task = tamam::spawn(std::future::pending::<()>());
    ///     let id = task.id();
    ///     task.abort();
    ///     let error = task.await.unwrap_err();
    ///     assert!(error.is_cancelled() && !error.is_panic());
    ///     assert_eq!(error.id(), id);
    /// });
    /// ```
    pub fn is_cancelled(&self) -> bool {
        matches!(self.cause, Cause::Cancelled)
    }

    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.cause, Cause::Panic(..))
    }

    /// The id of the task.
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The payload of the panic, for [`resume_unwind`](std::panic::resume_unwind).
    ///
    /// # Panics
    /// If the task did not panic. See [`try_into_panic`](Self::try_into_panic).
    /// # Examples
    /// ```
    /// let error = tamam::run(async {
    ///     tamam::spawn(async { assert!(1 > 2, "one is not more than two") }).await.unwrap_err()
    /// });
    /// let payload = error.into_panic();
    /// assert_eq!(payload.downcast_ref(), Some(&"one is not more than two"));
    /// ```
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        match self.try_into_panic() {
            Ok(payload) => payload,
            Err(error) => panic!("`into_panic` on an error that is no panic: {error}"),
        }
    }

    /// The payload of the panic.
    ///
    /// # Errors
    /// The error itself, if the task did not panic.
    /// # Examples
    /// A panic goes on in the task that waits; a cancelled task does not matter:
    /// ```
    /// tamam::run(async {
    ///     let task = tamam::spawn(std::future::pending::<()>());
    ///     task.abort();
    ///     match task.await.unwrap_err().try_into_panic() {
    ///         Ok(payload) => std::panic::resume_unwind(payload),
    ///         Err(error) => assert!(error.is_cancelled()),
    ///     }
    /// });
    /// ```
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send + 'static>, Self> {
        match self.cause {
            Cause::Panic(_, mut payload) => {
                let payload = payload.0.take().expect("a payload is taken once, by value");
                Ok(payload.into_inner().unwrap_or_else(PoisonError::into_inner))
            }
            Cause::Cancelled => Err(self),
        }
    }

    /// Calls `show` with the message of the panic; with `None` if the payload is no string, or the
    /// task did not panic.
    fn with_message<R>(&self, show: impl FnOnce(Option<&str>) -> R) -> R {
        let Cause::Panic(_, PanicPayload(Some(payload))) = &self.cause else { return show(None) };
        // No foreign code runs under the lock, only a downcast and our own formatting.
        let payload = payload.lock().unwrap_or_else(PoisonError::into_inner);
        let text = payload.downcast_ref::<&'static str>().copied();
        show(text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)))
    }
}

impl Drop for PanicPayload {
    fn drop(&mut self) {
        // The destructor of a payload may panic; the code that drops the error must not.
        if let Some(payload) = self.0.take() {
            contain(|| drop(payload));
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Cancelled => return write!(f, "task {} was cancelled", self.id),
            Cause::Panic(Origin::Task, _) => write!(f, "task {} panicked", self.id)?,
            Cause::Panic(Origin::Closure, _) => write!(f, "blocking closure {} panicked", self.id)?,
        }
        match self.with_message(|message| message.map(String::from)) {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_panic() { "JoinError::Panic" } else { "JoinError::Cancelled" };
        let mut tuple = f.debug_tuple(name);
        tuple.field(&self.id);
        if let Some(message) = self.with_message(|message| message.map(String::from)) {
            tuple.field(&message);
        }
        tuple.finish()
    }
}

impl std::error::Error for JoinError {}

/// Kind `Other`; the `JoinError` is inside.
impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        io::Error::other(error)
    }
}

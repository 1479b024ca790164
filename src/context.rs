//! The runtime of this thread: `spawn`, `sleep` and the constructors find it here.
//!
//! An object keeps its own driver (`Rc<Driver>`). It asks here only whether its runtime is the one
//! that turns on this thread. The turn itself is not here.
//!
//! The thread-local has no destructor, so destructors of other thread-locals can use it. It counts
//! each handle, so a forgotten guard leaks a handle and nothing else. Read next: `runtime.rs`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::ManuallyDrop;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::deferred::Deferred;
use crate::driver::Driver;
use crate::executor::{self, TaskExecutor};
use crate::net::resolver::SharedResolver;
use crate::time::Timers;

/// The parts of a runtime. They do not know each other; `runtime.rs` drives them.
pub(crate) struct Handle {
    pub(crate) executor: TaskExecutor,
    pub(crate) timers: Rc<Timers>,
    pub(crate) driver: Rc<Driver>,
    /// What looks up host names; `None` is the system.
    pub(crate) resolver: Option<SharedResolver>,
    pub(crate) turns: Cell<u64>,
    /// Work for the end of a turn. It is reused, and is empty between turns.
    pub(crate) deferred: RefCell<Deferred>,
}

/// The runtimes that are entered on this thread; the last is the current one. A guard removes its
/// own entry, so guards may be dropped in any order. A forgotten guard leaks a handle and nothing
/// else.
type Stack = ManuallyDrop<Vec<(u64, Rc<Handle>)>>;

thread_local! {
    static STACK: Cell<Stack> = const { Cell::new(ManuallyDrop::new(Vec::new())) };
    static ENTERED: Cell<u64> = const { Cell::new(0) };
    /// The driver of the runtime that turns. It is only compared, and never dereferenced.
    static TURNING: Cell<*const Driver> = const { Cell::new(ptr::null()) };
}

/// Changes the stack. `change` runs no foreign code.
fn with_stack<T>(change: impl FnOnce(&mut Vec<(u64, Rc<Handle>)>) -> T) -> T {
    let mut stack = STACK.replace(ManuallyDrop::new(Vec::new()));
    let result = change(&mut stack);
    if stack.is_empty() {
        drop(ManuallyDrop::into_inner(stack)); // frees its memory: the thread-local has no destructor
    } else {
        STACK.set(stack);
    }
    result
}

/// Makes a runtime the current one until dropped.
#[must_use]
pub(crate) struct Entered {
    serial: u64,
}

/// Makes this the current runtime, which `spawn` and others find, until the guard is dropped.
pub(crate) fn enter_runtime(handle: &Rc<Handle>) -> Entered {
    let serial = ENTERED.get() + 1;
    ENTERED.set(serial);
    with_stack(|stack| stack.push((serial, handle.clone())));
    executor::set_home(Some(&handle.executor));
    Entered { serial }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let (left, current) = with_stack(|stack| {
            let index = stack.iter().position(|(serial, _)| *serial == self.serial);
            let left = index.map(|index| stack.remove(index));
            (left, stack.last().map(|(_, handle)| handle.clone()))
        });
        executor::set_home(current.as_ref().map(|handle| &handle.executor));
        drop(left);
    }
}

/// Marks the thread as turning a runtime until dropped.
pub(crate) struct Turning {
    previous: *const Driver,
}

/// Starts to turn the runtime of `driver`, until the guard is dropped. `None`: this thread turns a
/// runtime already.
pub(crate) fn turn(driver: &Rc<Driver>) -> Option<Turning> {
    TURNING.get().is_null().then(|| turn_nested(driver))
}

/// As `turn`, for a teardown, which may run inside another runtime's task.
pub(crate) fn turn_nested(driver: &Rc<Driver>) -> Turning {
    Turning { previous: TURNING.replace(Rc::as_ptr(driver)) }
}

impl Drop for Turning {
    fn drop(&mut self) {
        TURNING.set(self.previous);
    }
}

/// The runtime entered on this thread, the last if there are several; `None` if there is none.
#[inline]
pub(crate) fn current() -> Option<Rc<Handle>> {
    let stack = STACK.replace(ManuallyDrop::new(Vec::new()));
    let handle = stack.last().map(|(_, handle)| handle.clone());
    STACK.set(stack);
    handle
}

/// The runtime of `driver`; `None` if it is not entered on this thread.
pub(crate) fn handle_of(driver: &Rc<Driver>) -> Option<Rc<Handle>> {
    with_stack(|stack| {
        let mut handles = stack.iter().rev().map(|(_, handle)| handle);
        handles.find(|handle| Rc::ptr_eq(&handle.driver, driver)).cloned()
    })
}

/// As `current`, for calls that have no way to return an error: panics if there is none.
#[track_caller]
pub(crate) fn expect_current() -> Rc<Handle> {
    match current() {
        Some(handle) => handle,
        None => panic!("{}", missing()),
    }
}

/// As `current`, for constructors: it is an error if there is none.
pub(crate) fn try_current() -> io::Result<Rc<Handle>> {
    current().ok_or_else(|| io::Error::other(missing()))
}

/// The text of the error when there is none.
pub(crate) fn missing() -> &'static str {
    "no tamam runtime on this thread: call it inside tamam::run, Runtime::block_on or under \
     Runtime::enter"
}

/// The timers of the runtime entered on this thread; `None` if there is none.
pub(crate) fn timers() -> Option<Rc<Timers>> {
    current().map(|handle| handle.timers.clone())
}

/// Consumes one unit of the task's budget, for a future that is ready at once. Ready: it may
/// answer. Pending: no unit is left, the task was woken to be polled again, and the future returns
/// Pending (SEMANTICS G9).
#[inline]
pub(crate) fn consume_budget(cx: &mut Context<'_>) -> Poll<()> {
    executor::consume_budget(cx)
}

/// As [`consume_budget`], for an `async fn` that answers without having waited.
pub(crate) async fn ready_at_once() {
    poll_fn(consume_budget).await;
}

/// As [`check_home`], for a future. An error is an answer that is ready at once, so it takes a unit
/// of the budget; Pending if there is none.
#[inline]
pub(crate) fn poll_home(driver: &Rc<Driver>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match check_home(driver) {
        Ok(()) => Poll::Ready(Ok(())),
        Err(error) => consume_budget(cx).map(|()| Err(error)),
    }
}

/// Checks that an object of `driver` may wait and submit: its runtime must be the one that turns
/// here (SEMANTICS G8).
#[inline]
pub(crate) fn check_home(driver: &Rc<Driver>) -> io::Result<()> {
    match ptr::eq(TURNING.get(), Rc::as_ptr(driver)) && driver.is_open() {
        true => Ok(()),
        false => Err(why_not_home(driver)),
    }
}

/// The error of an object of `driver` that may not wait here.
#[cold]
fn why_not_home(driver: &Driver) -> io::Error {
    if let Err(error) = driver.check() {
        return error;
    }
    if TURNING.get().is_null() {
        io::Error::other("polled outside its runtime: none turns on this thread")
    } else {
        io::Error::other("polled outside its runtime: another one turns here")
    }
}

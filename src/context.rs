//! Which runtime turns on this thread: what `spawn`, `sleep` and the constructors reach for.
//!
//! Objects keep their own way home (`Rc<Driver>`); they ask here only whether they are at home.
//! The thread-local has no destructor, so it can be used in those of others. It holds a count of
//! the handle, so a guard that is forgotten leaks a handle and nothing worse.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::ManuallyDrop;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::driver::Driver;
use crate::executor::{self, Executor};
use crate::time::Timers;

/// The parts of a runtime. They do not know each other; `runtime.rs` drives them.
pub(crate) struct Handle {
    pub(crate) executor: Executor,
    pub(crate) timers: Rc<Timers>,
    pub(crate) driver: Rc<Driver>,
    pub(crate) turns: Cell<u64>,
    /// Wakers on their way from a completion to their tasks: reused, empty between turns.
    pub(crate) woken: RefCell<Vec<Waker>>,
}

type Current = ManuallyDrop<Option<Rc<Handle>>>;

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(ManuallyDrop::new(None)) };
    /// The driver of `CURRENT`, to compare with and never to follow.
    static HOME: Cell<*const Driver> = const { Cell::new(ptr::null()) };
    static TURNING: Cell<bool> = const { Cell::new(false) };
}

/// Makes a runtime the current one until dropped.
#[must_use]
pub(crate) struct Entered {
    previous: Current,
    _home: executor::Entered,
}

/// Enters a runtime: `spawn` and the rest find it.
pub(crate) fn enter(handle: &Rc<Handle>) -> Entered {
    let home = handle.executor.enter();
    let previous = CURRENT.replace(ManuallyDrop::new(Some(handle.clone())));
    HOME.set(Rc::as_ptr(&handle.driver));
    Entered { previous, _home: home }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let previous = std::mem::replace(&mut self.previous, ManuallyDrop::new(None));
        HOME.set(previous.as_ref().map_or(ptr::null(), |handle| Rc::as_ptr(&handle.driver)));
        drop(ManuallyDrop::into_inner(CURRENT.replace(previous)));
    }
}

/// Marks the thread as turning a runtime until dropped.
pub(crate) struct Turning {
    previous: bool,
}

/// Starts to turn; `None` if this thread does already.
pub(crate) fn turn() -> Option<Turning> {
    (!TURNING.replace(true)).then_some(Turning { previous: false })
}

/// For a teardown, which may run inside another runtime's task.
pub(crate) fn turn_nested() -> Turning {
    Turning { previous: TURNING.replace(true) }
}

impl Drop for Turning {
    fn drop(&mut self) {
        TURNING.set(self.previous);
    }
}

/// The runtime entered on this thread.
#[inline]
pub(crate) fn current() -> Option<Rc<Handle>> {
    let current = CURRENT.replace(ManuallyDrop::new(None));
    let handle = Option::clone(&current);
    CURRENT.set(current);
    handle
}

/// As `current`, for calls that have no way to return an error.
#[track_caller]
pub(crate) fn expect_current() -> Rc<Handle> {
    match current() {
        Some(handle) => handle,
        None => panic!("{}", missing()),
    }
}

/// As `current`, for constructors.
pub(crate) fn try_current() -> io::Result<Rc<Handle>> {
    current().ok_or_else(|| io::Error::other(missing()))
}

/// What to say when there is none.
pub(crate) fn missing() -> &'static str {
    "no tamam runtime on this thread: call it inside tamam::run, Runtime::block_on or under \
     Runtime::enter"
}

/// The timers of the runtime entered on this thread.
pub(crate) fn timers() -> Option<Rc<Timers>> {
    current().map(|handle| handle.timers.clone())
}

/// Takes one unit of the task's budget, for a future that is ready at once. `Pending`: none is
/// left, and the task has been woken to come again (SEMANTICS G9).
#[inline]
pub(crate) fn spend(cx: &mut Context<'_>) -> Poll<()> {
    match current() {
        Some(handle) => handle.executor.spend(cx),
        None => Poll::Ready(()),
    }
}

/// As [`check_home`], for a future: an error is an answer that is ready at once.
#[inline]
pub(crate) fn poll_home(driver: &Rc<Driver>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match check_home(driver) {
        Ok(()) => Poll::Ready(Ok(())),
        Err(error) => spend(cx).map(|()| Err(error)),
    }
}

/// Whether an object of `driver` may wait or submit: its runtime must be the one entered here
/// (SEMANTICS G8).
#[inline]
pub(crate) fn check_home(driver: &Rc<Driver>) -> io::Result<()> {
    driver.check()?;
    let home = HOME.get();
    if ptr::eq(home, Rc::as_ptr(driver)) {
        Ok(())
    } else if home.is_null() {
        Err(io::Error::other("polled outside its runtime: none turns on this thread"))
    } else {
        Err(io::Error::other("polled outside its runtime: another one turns here"))
    }
}

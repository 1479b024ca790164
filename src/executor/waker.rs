//! Wakers, and the way home: what a `Waker` does on the thread of its task, and on any other.
//!
//! At home, which is where `HOME` names the executor of the task, a wake is a step of the state and
//! a push on the run queue: no read-modify-write, no lock, no system call. Everywhere else (other
//! threads, but also this one while the executor is not entered) it claims the task's link, pushes
//! it on the inbox and calls the notifier. Either is valid at any time, also after the task ended
//! and after the executor is gone: a late wake finds a task that is done, or a closed inbox.
//!
//! Not for signal handlers (TK9): a wake there may free memory, or interrupt a push at home.
//!
//! `inbox.rs` has the proof of the remote way, `counts.rs` the account of the counts.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::rc::Rc;
use std::sync::Arc;

use super::counts::{release, release_at_home, retain, retain_at_home};
use super::state::State;
use super::task::{Header, TaskRef};
use super::{Executor, Home, Shared};

thread_local! {
    /// The executor entered on this thread, or null. Const and without Drop glue, so it can be
    /// used in the destructors of other thread-locals.
    ///
    /// Owns a reference of the `Rc` it points to.
    static HOME: Cell<*const Home> = const { Cell::new(ptr::null()) };
}

/// Makes this the executor of the thread, in place of the one before: wakes of its tasks go straight
/// to its run queue. Without it they take the way of other threads' wakes, and arrive as well.
pub(crate) fn set_home(executor: Option<&Executor>) {
    drop(replace_home(executor.map(|executor| executor.home.clone())));
}

pub(super) fn replace_home(home: Option<Rc<Home>>) -> Option<Rc<Home>> {
    let previous = HOME.replace(home.map_or(ptr::null(), Rc::into_raw));
    // SAFETY: made by Rc::into_raw above, on this thread; HOME owned that reference, and no longer
    // does.
    (!previous.is_null()).then(|| unsafe { Rc::from_raw(previous) })
}

/// For a leaf future that is ready at once: Ready takes one of the units of the poll in progress.
/// With none left the task is woken, and the future has to be Pending, so that the turn goes on
/// (G9).
#[inline]
pub(crate) fn spend(cx: &mut Context<'_>) -> Poll<()> {
    // SAFETY: null, or HOME owns a reference of it, which only `replace_home` takes away; nothing in
    // here calls it.
    let has_unit = unsafe { HOME.get().as_ref() }.is_none_or(Home::take_unit);
    if has_unit {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// The executor with this shared part, if it is the one entered on this thread. `then` runs no
/// foreign code.
#[inline]
fn at_home<R>(shared: *const Shared, then: impl FnOnce(Option<&Home>) -> R) -> R {
    let home = HOME.get();
    // SAFETY: null, or HOME owns a reference of it, which only `replace_home` takes away; `then` runs
    // no foreign code, which might.
    let home = unsafe { home.as_ref() };
    then(home.filter(|home| ptr::eq::<Shared>(&*home.shared, shared)))
}

/// A freed task's reference of the shared part: back to the stock if this is home, else dropped.
pub(super) fn return_shared(shared: Arc<Shared>) {
    let left = at_home(Arc::as_ptr(&shared), |home| match home {
        Some(home) => {
            home.shared.restock(shared);
            None
        }
        None => Some(shared),
    });
    drop(left); // may be the last, and drop the notifier
}

/// The shared part of an executor, and references of it for tasks to come, given back by tasks that
/// went: a task costs no atomic operation unless there were never so many at once.
pub(super) struct Stock {
    shared: Arc<Shared>,
    /// References that are owned here, besides `shared`, without an `Arc` that stands for them.
    spare: Cell<usize>,
}

impl Stock {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, spare: Cell::new(0) }
    }

    /// A reference for a new task.
    #[inline]
    pub(super) fn lend(&self) -> Arc<Shared> {
        match self.spare.get().checked_sub(1) {
            Some(spare) => {
                self.spare.set(spare);
                // SAFETY: `restock` forgot an Arc of this allocation, whose reference this is now.
                unsafe { Arc::from_raw(Arc::as_ptr(&self.shared)) }
            }
            None => self.shared.clone(),
        }
    }

    /// Takes back what `lend` gave.
    #[inline]
    fn restock(&self, shared: Arc<Shared>) {
        assert!(Arc::ptr_eq(&self.shared, &shared), "a reference goes back to its own stock");
        core::mem::forget(shared);
        self.spare.set(self.spare.get() + 1);
    }
}

impl Deref for Stock {
    type Target = Shared;

    #[inline]
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        while self.spare.get() > 0 {
            drop(self.lend());
        }
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker to poll with. It has no count of its own and must not outlive `task`; it has the same
/// data pointer as its clones, so `will_wake` is true between them.
#[inline]
pub(super) fn borrowed(task: &TaskRef) -> ManuallyDrop<Waker> {
    let data = task.as_ptr().as_ptr().cast_const().cast();
    // SAFETY: the functions of VTABLE keep the contract of RawWaker; the reference that the data
    // pointer stands for is `task`'s, and is not given back, since the waker is not dropped.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) })
}

fn header(data: *const ()) -> NonNull<Header> {
    NonNull::new(data.cast_mut().cast()).expect("a waker points to a task")
}

/// # Safety
/// RawWakerVTable's: `data` is of a waker that lives during the call.
unsafe fn clone(data: *const ()) -> RawWaker {
    let task = header(data);
    // SAFETY: the waker that is cloned has a reference, and says whose task it is.
    if unsafe { is_at_home(task) } {
        // SAFETY: as above, and this is home.
        unsafe { retain_at_home(task) };
    } else {
        // SAFETY: as above.
        unsafe { retain(task) };
    }
    RawWaker::new(data, &VTABLE)
}

/// # Safety
/// RawWakerVTable's: `data` is of a waker that ends with this call.
unsafe fn wake(data: *const ()) {
    // Its unit is not handed to the inbox: the task could then be freed, and the notifier with it,
    // before `rouse` calls the notifier.
    // SAFETY: the waker has a reference until the next line.
    unsafe { rouse(header(data)) };
    // SAFETY: the waker's unit, which is not used again.
    unsafe { give_back(header(data)) };
}

/// # Safety
/// RawWakerVTable's: `data` is of a waker that lives during the call.
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the waker has a reference.
    unsafe { rouse(header(data)) };
}

/// # Safety
/// RawWakerVTable's: `data` is of a waker that ends with this call.
unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker's unit, which is not used again.
    unsafe { give_back(header(data)) };
}

/// Whether the executor of this task is the one entered on this thread, which is home then.
///
/// # Safety
/// The caller has a reference of the task, of any kind.
#[inline]
unsafe fn is_at_home(task: NonNull<Header>) -> bool {
    // SAFETY: the caller's reference; `shared` never changes.
    let shared = unsafe { &(*task.as_ptr()).shared };
    at_home(Arc::as_ptr(shared), |home| home.is_some())
}

/// Gives back the unit of a waker.
///
/// # Safety
/// The caller owns that unit and does not use the task afterwards.
#[inline]
unsafe fn give_back(task: NonNull<Header>) {
    // SAFETY: the caller's unit.
    if unsafe { is_at_home(task) } {
        // SAFETY: the caller's promise, and this is home.
        unsafe { release_at_home(task) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { release(task) };
    }
}

/// Makes a task runnable, from wherever this is.
///
/// # Safety
/// The caller has a reference of the task, of any kind, during the whole call.
#[inline]
pub(super) unsafe fn rouse(task: NonNull<Header>) {
    // SAFETY: the caller's reference; `shared` never changes.
    let shared = unsafe { &(*task.as_ptr()).shared };
    let woken = at_home(Arc::as_ptr(shared), |home| match home {
        Some(home) => {
            // SAFETY: the task lives, and its executor is entered on this thread: this is home.
            unsafe { rouse_at_home(task, home) };
            true
        }
        None => false,
    });
    if !woken {
        // SAFETY: the caller's reference.
        unsafe { rouse_remotely(task) };
    }
}

/// # Safety
/// The task lives during the call, and this is its home thread.
#[inline]
unsafe fn rouse_at_home(task: NonNull<Header>, home: &Home) {
    // SAFETY: the task lives; this is home, so its cells may be used.
    let header = unsafe { task.as_ref() };
    if header.step(State::wake) {
        // SAFETY: this is home, and a task that was Idle is not done.
        home.queue.push(unsafe { TaskRef::from_ptr(task) });
    }
}

/// # Safety
/// As `rouse`.
#[cold]
unsafe fn rouse_remotely(task: NonNull<Header>) {
    // SAFETY: the caller's reference; these fields are for any thread.
    let (link, shared) = unsafe { (&(*task.as_ptr()).link, &(*task.as_ptr()).shared) };
    if !link.claim() {
        return;
    }
    // SAFETY: the caller's reference.
    unsafe { retain(task) };
    if shared.inbox.push(task.as_ptr(), link) {
        shared.notifier.wake_by_ref();
    } else {
        // The executor is gone. The link stays claimed, so later wakes end at once.
        // SAFETY: the unit taken above, which the inbox refused.
        unsafe { release(task) };
    }
}

/// Queues what other threads woke, in the order of arrival.
#[inline]
pub(super) fn receive(home: &Home) {
    let oldest = home.shared.inbox.take(|task| {
        // SAFETY: the inbox asks for items it was given, each kept alive by a unit.
        unsafe { &(*task).link }
    });
    let queue = |task: NonNull<Header>| {
        // SAFETY: `drain` still holds the unit the task came with; this is home.
        let header = unsafe { task.as_ref() };
        header.link.release();
        // SAFETY: as above.
        unsafe { rouse_at_home(task, home) };
    };
    // SAFETY: just taken; `queue` gives back no unit.
    unsafe { drain(oldest, queue) };
}

/// Closes the inbox. The links of what was in it stay claimed, so later wakes end at once.
pub(super) fn close(home: &Home) {
    let oldest = home.shared.inbox.close(|task| {
        // SAFETY: the inbox asks for items it was given, each kept alive by a unit.
        unsafe { &(*task).link }
    });
    // SAFETY: just taken; nothing is done with the tasks.
    unsafe { drain(oldest, |_| {}) };
}

/// Calls `each` for the items, then gives back the unit that each came with.
///
/// # Safety
/// `oldest` is what the inbox gave, not drained before; `each` gives back no unit.
unsafe fn drain(oldest: *mut Header, each: impl Fn(NonNull<Header>)) {
    let mut rest = NonNull::new(oldest);
    while let Some(task) = rest {
        // Before `each`: a link that is released belongs to the next thread that claims it.
        // SAFETY: the unit of the inbox keeps the task alive; taken and not yet released.
        rest = NonNull::new(unsafe { (*task.as_ptr()).link.next() });
        each(task);
        // SAFETY: the unit of the inbox, given back once.
        unsafe { release(task) };
    }
}

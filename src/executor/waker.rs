//! Wakers: what a `Waker` does on the home thread of its task, and on any other thread.
//!
//! `HOME` holds the executor that is entered on this thread. If that is the task's executor, a wake
//! changes the state and pushes the task on the run queue: no read-modify-write, no lock, no system
//! call. Everywhere else a wake claims the task's link, pushes the task on the inbox and calls the
//! notifier. (Everywhere else means other threads, and the home thread while the executor is not
//! entered.) Both are valid at any time. After the task ended, a wake finds a task that is done;
//! after the executor is gone, it finds a closed inbox.
//!
//! Wakers must not be used in signal handlers (TK9): a wake there may free memory, or interrupt a
//! push at home.
//!
//! `inbox.rs` proves that a wake from another thread is not lost. `counts.rs` explains the counts.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::rc::Rc;
use std::sync::Arc;

use super::counts::{release, release_at_home, retain, retain_at_home};
use super::state::TaskState;
use super::task::{Header, TaskRef};
use super::{Home, Shared, TaskExecutor};

thread_local! {
    /// The executor entered on this thread, or null. It owns a reference of the `Rc` it points to.
    ///
    /// It is a raw pointer, const and without a destructor, so that destructors of other
    /// thread-locals can use it.
    static HOME: Cell<*const Home> = const { Cell::new(ptr::null()) };
}

/// Enters an executor on this thread, in place of the one before; `None` enters none. Wakes of its
/// tasks then go straight to its run queue. Without this they arrive too, through the inbox, as
/// from another thread.
pub(crate) fn set_home(executor: Option<&TaskExecutor>) {
    drop(replace_home(executor.map(|executor| executor.home.clone())));
}

/// As `set_home`. Returns the one before for the caller to drop, which may run foreign code.
pub(super) fn replace_home(home: Option<Rc<Home>>) -> Option<Rc<Home>> {
    let previous = HOME.replace(home.map_or(ptr::null(), Rc::into_raw));
    // SAFETY: a pointer in HOME comes from the `Rc::into_raw` above, on this thread. HOME owned
    // that reference until the `replace`, so it is taken back once.
    (!previous.is_null()).then(|| unsafe { Rc::from_raw(previous) })
}

/// A leaf future that is ready at once calls this first (G9). Ready: it took a unit from the budget
/// of the poll in progress. Pending: no unit was left, the task is woken, and the future has to
/// return Pending, so that other tasks and I/O have their turn.
#[inline]
pub(crate) fn consume_budget(cx: &mut Context<'_>) -> Poll<()> {
    if take_unit() {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Takes a unit of the poll in progress. False: none was left.
pub(crate) fn take_unit() -> bool {
    // SAFETY: HOME is null, or owns a reference of what it points to. Only `replace_home` gives
    // that up, and `take_unit` does not call it.
    unsafe { HOME.get().as_ref() }.is_none_or(Home::take_unit)
}

/// As [`consume_budget`], without taking the unit: Ready if there is one.
pub(crate) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    // SAFETY: as in `consume_budget`; `has_unit` does not call `replace_home` either.
    if unsafe { HOME.get().as_ref() }.is_none_or(Home::has_unit) {
        return Poll::Ready(());
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Calls `then` with the executor that has this shared part, if it is entered on this thread, else
/// with `None`. `then` must not run foreign code.
#[inline]
fn at_home<R>(shared: *const Shared, then: impl FnOnce(Option<&Home>) -> R) -> R {
    let home = HOME.get();
    // SAFETY: HOME is null, or owns a reference of what it points to. Only `replace_home` gives
    // that up, and `then` does not call it: it runs no foreign code.
    let home = unsafe { home.as_ref() };
    then(home.filter(|home| ptr::eq::<Shared>(&*home.shared, shared)))
}

/// Takes the reference of a freed task to the shared part: back to the stock at home, else drops
/// it.
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

/// The shared part of an executor, and spare references to it: a freed task gives its reference
/// back here, and a new task takes it. So a spawn costs an atomic operation only if there were
/// never so many tasks at once before.
pub(super) struct Stock {
    shared: Arc<Shared>,
    /// How many references this owns besides `shared`. They are counted in the `Arc`, but no `Arc`
    /// value stands for them.
    spare: Cell<usize>,
}

impl Stock {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, spare: Cell::new(0) }
    }

    /// A reference to the shared part for a new task: a spare one, or else a new one. When the task
    /// is freed, `restock` takes it back; it may also just be dropped.
    #[inline]
    pub(super) fn lend(&self) -> Arc<Shared> {
        match self.spare.get().checked_sub(1) {
            Some(spare) => {
                self.spare.set(spare);
                // SAFETY: `spare` was above 0, so `restock` has forgotten an Arc of this
                // allocation. This takes over its reference, which is no longer counted in `spare`.
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

/// The waker to poll a task with. It has no count of its own, so it must not outlive `task`. It has
/// the same data pointer as its clones, so `will_wake` is true between them.
#[inline]
pub(super) fn borrowed(task: &TaskRef) -> ManuallyDrop<Waker> {
    let data = task.as_ptr().as_ptr().cast_const().cast();
    // SAFETY: the functions of VTABLE keep the contract of RawWaker. The reference behind the data
    // pointer is that of `task`, and it is not given back: ManuallyDrop never drops the waker.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) })
}

/// The task that a waker's data pointer stands for.
fn header(data: *const ()) -> NonNull<Header> {
    NonNull::new(data.cast_mut().cast()).expect("a waker points to a task")
}

/// # Safety
/// As RawWakerVTable demands: `data` is that of a waker that lives during the call.
unsafe fn clone(data: *const ()) -> RawWaker {
    let task = header(data);
    // SAFETY: the waker that is cloned holds a reference to this task during the call.
    if unsafe { is_at_home(task) } {
        // SAFETY: as above, and `is_at_home` says that this is the home thread.
        unsafe { retain_at_home(task) };
    } else {
        // SAFETY: as above.
        unsafe { retain(task) };
    }
    RawWaker::new(data, &VTABLE)
}

/// # Safety
/// As RawWakerVTable demands: `data` is that of a waker that ends with this call.
unsafe fn wake(data: *const ()) {
    // The waker's unit is not handed to the inbox. Home could then free the task, and the notifier
    // with it, before `schedule` calls the notifier.
    // SAFETY: the waker holds a reference to the task until `give_back`.
    unsafe { schedule(header(data)) };
    // SAFETY: the unit is that of the waker, which ends here and does not use the task again.
    unsafe { give_back(header(data)) };
}

/// # Safety
/// As RawWakerVTable demands: `data` is that of a waker that lives during the call.
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the waker holds a reference to the task during the call.
    unsafe { schedule(header(data)) };
}

/// # Safety
/// As RawWakerVTable demands: `data` is that of a waker that ends with this call.
unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the unit is that of the waker, which ends here and does not use the task again.
    unsafe { give_back(header(data)) };
}

/// Whether the executor of this task is entered on this thread. If so, this is its home thread.
///
/// # Safety
/// The caller has a reference of any kind to the task.
#[inline]
unsafe fn is_at_home(task: NonNull<Header>) -> bool {
    // SAFETY: the caller's reference keeps the task alive, and `shared` never changes.
    let shared = unsafe { &(*task.as_ptr()).shared };
    at_home(Arc::as_ptr(shared), |home| home.is_some())
}

/// Gives back the unit of a waker.
///
/// # Safety
/// The caller owns that unit, and does not use the task afterwards.
#[inline]
unsafe fn give_back(task: NonNull<Header>) {
    // SAFETY: the caller's unit keeps the task alive.
    if unsafe { is_at_home(task) } {
        // SAFETY: the caller owns the unit and gives it up, and this is the home thread.
        unsafe { release_at_home(task) };
    } else {
        // SAFETY: the caller owns the unit and gives it up.
        unsafe { release(task) };
    }
}

/// Makes a task runnable, from any thread. No effect on a task that has ended, or whose executor is
/// gone.
///
/// # Safety
/// The caller has a reference of any kind to the task during the whole call.
#[inline]
pub(super) unsafe fn schedule(task: NonNull<Header>) {
    // SAFETY: the caller's reference keeps the task alive, and `shared` never changes.
    let shared = unsafe { &(*task.as_ptr()).shared };
    let woken = at_home(Arc::as_ptr(shared), |home| match home {
        Some(home) => {
            // SAFETY: the caller's reference keeps the task alive, and this is the home thread, for
            // its executor is entered here.
            unsafe { schedule_at_home(task, home) };
            true
        }
        None => false,
    });
    if !woken {
        // SAFETY: the caller has a reference to the task during the call.
        unsafe { schedule_remotely(task) };
    }
}

/// Wakes a task at home: puts it on the run queue, if its state demands that.
///
/// # Safety
/// The task is alive during the call, and this is its home thread.
#[inline]
unsafe fn schedule_at_home(task: NonNull<Header>, home: &Home) {
    // SAFETY: the caller keeps the task alive, and this is the home thread, which may use its
    // cells.
    let header = unsafe { task.as_ref() };
    if header.step(TaskState::wake) {
        // SAFETY: this is the home thread. The task was Idle, so it is not done, and a home
        // reference exists.
        home.queue.push(unsafe { TaskRef::from_ptr(task) });
    }
}

/// Wakes a task from elsewhere: puts it on the inbox and calls the notifier, unless another wake
/// has done so and home has not looked yet.
///
/// # Safety
/// As `schedule`.
#[cold]
unsafe fn schedule_remotely(task: NonNull<Header>) {
    // SAFETY: the caller's reference keeps the task alive, and any thread may use these two fields.
    let (link, shared) = unsafe { (&(*task.as_ptr()).link, &(*task.as_ptr()).shared) };
    if !link.claim() {
        return;
    }
    // SAFETY: the caller has a reference to the task.
    unsafe { retain(task) };
    if shared.inbox.push(task.as_ptr(), link) {
        shared.notifier.wake_by_ref();
    } else {
        // The executor is gone. The link stays claimed, so later wakes return at once.
        // SAFETY: the unit is the one taken above. The inbox refused the task, so it is still ours.
        unsafe { release(task) };
    }
}

/// Moves the tasks that other threads woke to the run queue, in the order of arrival.
#[inline]
pub(super) fn empty_inbox(home: &Home) {
    let oldest = home.shared.inbox.take(|task| {
        // SAFETY: the inbox asks only for items that were pushed. Each was pushed with a unit,
        // which keeps it alive.
        unsafe { &(*task).link }
    });
    let queue = |task: NonNull<Header>| {
        // SAFETY: `drain` still holds the unit that came with the task, and this is the home
        // thread.
        let header = unsafe { task.as_ref() };
        header.link.release();
        // SAFETY: as above.
        unsafe { schedule_at_home(task, home) };
    };
    // SAFETY: the items were just taken from the inbox, and `queue` gives back no unit.
    unsafe { drain(oldest, queue) };
}

/// Closes the inbox. The links of the tasks in it stay claimed, so later wakes return at once.
pub(super) fn close(home: &Home) {
    let oldest = home.shared.inbox.close(|task| {
        // SAFETY: the inbox asks only for items that were pushed. Each was pushed with a unit,
        // which keeps it alive.
        unsafe { &(*task).link }
    });
    // SAFETY: the items were just taken from the inbox, and the closure does nothing.
    unsafe { drain(oldest, |_| {}) };
}

/// Calls `each` for each item, then gives back the unit that came with it.
///
/// # Safety
/// - `oldest` was just taken from the inbox, or is null.
/// - `each` gives back no unit.
unsafe fn drain(oldest: *mut Header, each: impl Fn(NonNull<Header>)) {
    let mut rest = NonNull::new(oldest);
    while let Some(task) = rest {
        // Read `next` before `each`, which may release the link: then it belongs to the next thread
        // that claims it.
        // SAFETY: the unit that came with the task keeps it alive, and its link is not released
        // yet.
        rest = NonNull::new(unsafe { (*task.as_ptr()).link.next() });
        each(task);
        // SAFETY: the unit is the one that came with the task, and this is the only place that
        // gives it back.
        unsafe { release(task) };
    }
}

//! Foreign code that runs while a waker is cloned: in the middle of a poll, before the future is
//! registered.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{RawWaker, RawWakerVTable, Waker};

use tamam::net::TcpListener;

use crate::common::{start, turn};

/// A waker of which one clone, the first as a rule, runs a closure. It counts the wakes. It stays on its thread.
pub struct ForeignWaker(Rc<Inner>);

struct Inner {
    act: Cell<Option<Box<dyn FnOnce()>>>,
    /// How many clones come before the one that acts.
    before: Cell<usize>,
    wakes: Cell<usize>,
}

impl ForeignWaker {
    pub fn new(act: impl FnOnce() + 'static) -> ForeignWaker {
        ForeignWaker::after(0, act)
    }

    /// `before` clones come before the one that runs the closure.
    pub fn after(before: usize, act: impl FnOnce() + 'static) -> ForeignWaker {
        let (before, wakes) = (Cell::new(before), Cell::new(0));
        ForeignWaker(Rc::new(Inner { act: Cell::new(Some(Box::new(act))), before, wakes }))
    }

    /// The waker to poll with. The closure has not run yet: this is no clone.
    pub fn waker(&self) -> Waker {
        let data = Rc::into_raw(self.0.clone()).cast();
        // SAFETY: the functions of the table take such a pointer, and keep the count of its `Rc`. The
        // runtimes of these tests keep wakers on the thread that polls.
        unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }
    }

    /// How often it was woken since the last call.
    pub fn take_wakes(&self) -> usize {
        self.0.wakes.take()
    }

    /// Turns the runtime until the waker was woken. A wake that was lost does not come later.
    pub async fn woken(&self) {
        assert!(self.0.act.take().is_none(), "the waker was cloned");
        for _ in 0..1000 {
            if self.0.wakes.get() > 0 {
                return;
            }
            turn().await;
        }
        panic!("the wake is lost");
    }
}

static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

/// # Safety
/// `data` is of a waker of this table, which lives during the call, on this thread.
unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: `data` is of `Rc::into_raw`, and the waker that is cloned keeps it.
    let inner = unsafe { &*data.cast::<Inner>() };
    match inner.before.get().checked_sub(1) {
        Some(before) => inner.before.set(before),
        None => {
            if let Some(act) = inner.act.take() {
                act();
            }
        }
    }
    // SAFETY: as above; the clone gets a count of its own.
    unsafe { Rc::increment_strong_count(data.cast::<Inner>()) };
    RawWaker::new(data, &TABLE)
}

/// # Safety
/// As for `clone`; the waker ends with the call.
unsafe fn wake(data: *const ()) {
    // SAFETY: the caller's promise is that of both.
    unsafe {
        wake_by_ref(data);
        release(data);
    }
}

/// # Safety
/// As for `clone`.
unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: `data` is of `Rc::into_raw`, and the waker keeps it.
    let inner = unsafe { &*data.cast::<Inner>() };
    inner.wakes.set(inner.wakes.get() + 1);
}

/// # Safety
/// As for `clone`; the waker ends with the call.
unsafe fn release(data: *const ()) {
    // SAFETY: the waker that ends here has a count, which goes with it.
    unsafe { Rc::decrement_strong_count(data.cast::<Inner>()) };
}

/// Listeners with an accept in flight. Dropping each handles completions, also those of others (G7):
/// so foreign code makes things arrive. Under epoll nothing arrives outside a turn.
pub async fn reaping() -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        drop(start(listener.accept()).await);
        listeners.push(listener);
    }
    turn().await; // the accepts are with the kernel
    listeners
}

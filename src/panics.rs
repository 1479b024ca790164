//! Keeping one party's panic from all others.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs foreign code; a panic in it ends there, after the panic hook has told of it.
pub(crate) fn contain(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        bury(payload);
    }
}

/// Drops a panic payload, which may panic in turn; the payload of that is leaked, or this would
/// have no end.
#[cold]
pub(crate) fn bury(payload: Box<dyn Any + Send>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
}

/// Wakes all, in order, whichever of them panics.
#[inline]
pub(crate) fn wake_all(mut wakers: impl Iterator<Item = Waker>) {
    let mut is_done = false;
    while !is_done {
        contain(|| {
            wakers.by_ref().for_each(Waker::wake);
            is_done = true;
        });
    }
}

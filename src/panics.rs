//! Keeping a panic in foreign code (a waker, a destructor, a closure) from the code around it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs code of the user's, such as a waker or a destructor. A panic in it is reported by the panic
/// hook, and caught here.
pub(crate) fn contain(run: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
        drop_payload(payload);
    }
}

/// Drops a panic payload. If its destructor panics, the new payload is leaked: its destructor might
/// panic as well, and so on without end.
#[cold]
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(payload);
    }
}

/// Wakes all, in order, even if some of them panic.
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

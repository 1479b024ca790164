//! A value of one thread in a type that may go to others: for traits that demand `Send` and `Sync`
//! of what never leaves its thread. What uses it is in `hyper.rs` and `quinn.rs`: read these next.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::thread::{self, ThreadId};

/// A value that is used on the thread it was made on, and on no other. Dropped elsewhere it is
/// leaked, because only the thread of a runtime can close what belongs to it.
pub(super) struct AtHome<T> {
    value: ManuallyDrop<T>,
    home: ThreadId,
}

// SAFETY: every access to `value` (by reference, by value, to drop it) first checks that this is the
// thread it was made on. So no other thread ever touches it.
unsafe impl<T> Send for AtHome<T> {}

// SAFETY: as for `Send`: a reference on another thread gives no access to `value`.
unsafe impl<T> Sync for AtHome<T> {}

impl<T> AtHome<T> {
    /// Wraps a value of this thread.
    pub(super) fn new(value: T) -> AtHome<T> {
        AtHome { value: ManuallyDrop::new(value), home: thread::current().id() }
    }

    /// The value. Panics on another thread than the one it was made on.
    #[track_caller]
    pub(super) fn get(&self) -> &T {
        self.assert_at_home();
        &self.value
    }

    /// As [`get`](Self::get), to be changed.
    #[track_caller]
    pub(super) fn get_mut(&mut self) -> &mut T {
        self.assert_at_home();
        &mut self.value
    }

    /// Returns the value. Panics on another thread than the one it was made on.
    #[cfg(feature = "hyper")]
    #[track_caller]
    pub(super) fn into_inner(self) -> T {
        self.assert_at_home();
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped and not used again, so the value is taken once.
        unsafe { ManuallyDrop::take(&mut this.value) }
    }

    /// The thread it was made on.
    pub(super) fn home(&self) -> ThreadId {
        self.home
    }

    #[track_caller]
    fn assert_at_home(&self) {
        assert!(
            thread::current().id() == self.home,
            "a value of one thread's runtime is used on another thread"
        );
    }
}

impl<T> Unpin for AtHome<T> {}

impl<T> Drop for AtHome<T> {
    fn drop(&mut self) {
        if thread::current().id() == self.home {
            // SAFETY: this is the only drop of the value: after `into_inner`, this does not run.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

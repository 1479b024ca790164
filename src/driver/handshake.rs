//! The handshake between a driver that goes to sleep and the threads that wake it: one atomic word.
//!
//! ```text
//! who           from       to         then
//! home, park    RUNNING    PARKED     sleeps in the kernel
//! home, park    NOTIFIED   PARKED     does not sleep, and calls unpark at once
//! home, unpark  any        RUNNING    looks at everything that may have been pushed
//! waker         RUNNING    NOTIFIED   nothing: home looks before it sleeps
//! waker         PARKED     NOTIFIED   writes to the eventfd
//! waker         NOTIFIED   NOTIFIED   nothing: an earlier waker did what is needed
//! ```
//!
//! No wake is lost. A waker first pushes its work and then swaps. Both sides swap with SeqCst, so
//! one swap comes first. If the waker's swap is first, home reads NOTIFIED and does not sleep. If
//! home's swap is first, the waker reads PARKED and writes to the eventfd, and the poll on the
//! eventfd ends the sleep. In both cases home's later swap to RUNNING reads the value of the
//! waker's swap, so home sees the work.
//!
//! The eventfd is not here, but in `wake.rs`: read that next. `tests/loom/loom.rs` includes this
//! file with loom's atomics.

use crate::sync::{AtomicU8, Ordering};

const RUNNING: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;

/// The word. Home parks and unparks, other threads notify.
pub(crate) struct Handshake(AtomicU8);

impl Handshake {
    pub(crate) fn new() -> Handshake {
        Handshake(AtomicU8::new(RUNNING))
    }

    /// Home is about to sleep. True: it may sleep. False: it must not, because a waker has
    /// notified. In both cases it calls [`unpark`](Self::unpark) afterwards.
    pub(crate) fn park(&self) -> bool {
        self.0.swap(PARKED, Ordering::SeqCst) != NOTIFIED
    }

    /// Home is awake. Work that was pushed before an earlier `notify` is visible from here on.
    pub(crate) fn unpark(&self) {
        self.0.swap(RUNNING, Ordering::SeqCst);
    }

    /// For any thread that has pushed work. True: home is parked, and the caller must wake it by a
    /// write. False: home will look by itself, or another thread wakes it.
    pub(crate) fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::SeqCst) == PARKED
    }
}

//! The word between a driver that goes to sleep and those who wake it.
//!
//! ```text
//! who           from       to         then
//! home, park    RUNNING    PARKED     sleeps in the kernel
//! home, park    NOTIFIED   PARKED     does not sleep, goes to RUNNING at once
//! home, unpark  any        RUNNING    looks at everything that may have been pushed
//! waker         RUNNING    NOTIFIED   nothing: home looks before it sleeps
//! waker         PARKED     NOTIFIED   writes to the eventfd
//! waker         NOTIFIED   NOTIFIED   nothing: somebody else has
//! ```
//!
//! Why no wake is lost: a waker first pushes its work, then swaps. Both sides swap with SeqCst, so
//! one comes first. If the waker's does, home's swap reads NOTIFIED and does not sleep. If home's
//! does, the waker reads PARKED and writes; the poll on the eventfd ends the sleep. In both cases
//! home's later swap to RUNNING reads the waker's, so it sees what was pushed.
//!
//! `tests/loom/loom.rs` includes this file with loom's atomics in place of std's.

use crate::sync::{AtomicU8, Ordering};

const RUNNING: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;

pub(crate) struct Handshake(AtomicU8);

impl Handshake {
    pub(crate) fn new() -> Handshake {
        Handshake(AtomicU8::new(RUNNING))
    }

    /// Home: about to sleep. False: somebody has notified, do not.
    pub(crate) fn park(&self) -> bool {
        self.0.swap(PARKED, Ordering::SeqCst) != NOTIFIED
    }

    /// Home: awake. What was pushed before a `notify` that came earlier is visible from here on.
    pub(crate) fn unpark(&self) {
        self.0.swap(RUNNING, Ordering::SeqCst);
    }

    /// Anyone, after pushing work: true if home must be roused by a write.
    pub(crate) fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::SeqCst) == PARKED
    }
}

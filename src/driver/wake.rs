//! Rousing a parked driver from another thread.
//!
//! A notification is rare and its cost is a system call, so a word says whether one is needed. The
//! parking thread and the wakers agree through [`Handshake`]; the write to the eventfd completes a
//! multishot poll that the ring keeps armed. Read next: `mod.rs`, `park`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Wake;

use super::handshake::Handshake;
use crate::sys;

/// The eventfd and the word before it; a `Waker` when in an `Arc`.
pub(crate) struct Notifier {
    handshake: Handshake,
    eventfd: OwnedFd,
}

impl Notifier {
    pub(super) fn new() -> io::Result<Arc<Notifier>> {
        Ok(Arc::new(Notifier { handshake: Handshake::new(), eventfd: sys::eventfd()? }))
    }

    pub(super) fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.handshake.notify() {
            // EAGAIN would mean 2^64 - 2 unread wake-ups, and so a driver that wakes anyway.
            let _ = sys::eventfd_add(self.eventfd.as_fd());
        }
    }
}

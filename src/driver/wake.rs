//! The notifier: it wakes a sleeping driver from another thread.
//!
//! A notification costs a system call and is rarely needed. So the [`Handshake`] between the
//! sleeping thread and the wakers says whether it is needed. The write to the eventfd completes a
//! multishot poll that the ring keeps armed, or makes an edge for epoll. Read next: `Driver::park`
//! in `mod.rs`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use super::handshake::Handshake;
use crate::sys;

/// The eventfd, and the handshake that decides whether a write is needed. In an `Arc` it is a
/// `Waker`. Wakers may outlive the runtime; the descriptor does not.
pub(crate) struct Notifier {
    handshake: Handshake,
    /// Locked for a write, and at teardown.
    eventfd: Mutex<Option<Arc<OwnedFd>>>,
}

impl Notifier {
    pub(super) fn new(eventfd: Arc<OwnedFd>) -> Arc<Notifier> {
        Arc::new(Notifier { handshake: Handshake::new(), eventfd: Mutex::new(Some(eventfd)) })
    }

    pub(super) fn handshake(&self) -> &Handshake {
        &self.handshake
    }

    /// The driver sleeps no more, and later notifications do nothing.
    pub(super) fn close(&self) {
        *self.eventfd.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// As [`close`](Self::close), in a forked child. If another thread of the parent was notifying at
    /// the fork, the lock is never released here, and the descriptor stays.
    pub(super) fn close_in_child(&self) {
        if let Ok(mut eventfd) = self.eventfd.try_lock() {
            *eventfd = None;
        }
    }
}

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.handshake.notify() {
            return;
        }
        if let Some(eventfd) = &*self.eventfd.lock().unwrap_or_else(PoisonError::into_inner) {
            // EAGAIN would mean 2^64 - 2 unread wake-ups. Then the driver wakes anyway.
            let _ = sys::eventfd_add(eventfd.as_fd());
        }
    }
}

//! The calls of a layer above a connection, such as TLS. A layer has bytes that must not be lost
//! when a future is dropped.
//!
//! The calls of users are not here, but in `read.rs` and `send.rs`. Read next: `tls/session.rs`.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Connection;
use super::unread::Errno;
use crate::buf::{Chunk, Outgoing};
use crate::context;
use crate::driver::{self, error};
use crate::queue::{Key, WaiterId};

impl Connection {
    /// Takes one piece of the unread bytes without waiting. If there are none: `Some(Ok(None))` at
    /// EOF, `Some(Err)` after a failure, and `None` if more can still come.
    pub(crate) fn try_take(self: &Rc<Self>) -> Option<Result<Option<Chunk>, Errno>> {
        let taken = self.receiving(|receive, deferred| {
            let unread = &mut receive.unread;
            match unread.take_chunk(deferred) {
                Some(chunk) => Some(Ok(Some(chunk))),
                None => unread.take_ending_as_errno(),
            }
        });
        if let Some(Ok(Some(_))) = taken {
            self.resume();
        }
        taken
    }

    /// Checks that the runtime of this connection turns on this thread and takes ops; `Err` says
    /// why not. In a forked copy the answer is an error too: destructors call this, and there they
    /// must only close (SY2).
    pub(crate) fn check_home(&self) -> io::Result<()> {
        if self.home.is_forked_copy() {
            return Err(driver::forked());
        }
        context::check_home(&self.home)
    }

    /// Whether [`check_home`](Self::check_home) gives `Ok`.
    pub(crate) fn is_home(&self) -> bool {
        self.check_home().is_ok()
    }

    /// Checks that bytes can be queued: the connection is at home, and was not shut down and has
    /// not failed.
    pub(crate) fn check_sendable(&self) -> io::Result<()> {
        match self.transmit.borrow().refusal() {
            Some(error) => Err(error),
            None => self.check_home(),
        }
    }

    /// Queues bytes that no future waits for. They go out whole and in order. Empty `bytes` do
    /// nothing. `Err`: nothing was queued, as [`check_sendable`](Self::check_sendable) says. The
    /// caller bounds the bytes by [`poll_unsent`](Self::poll_unsent).
    pub(crate) fn send_detached(self: &Rc<Self>, bytes: Vec<u8>) -> io::Result<()> {
        self.check_sendable()?;
        self.sending(|transmit, deferred| {
            transmit.queue.push_detached(bytes);
            self.send_next(transmit, deferred);
        });
        Ok(())
    }

    /// Queues bytes, and wakes `waker`, if there is one, when they are out or have failed. They go
    /// out whole, even if the future that has the key is gone. That future ends with
    /// [`poll_collect`](Self::poll_collect) or [`detach`](Self::detach). `Err`: nothing was queued.
    pub(crate) fn send_awaited(
        self: &Rc<Self>,
        bytes: Vec<u8>,
        waker: Option<Waker>,
    ) -> io::Result<Key> {
        self.check_sendable()?;
        Ok(self.sending(|transmit, deferred| {
            let key = transmit.queue.push_committed(Outgoing::one(bytes), waker);
            self.send_next(transmit, deferred);
            key
        }))
    }

    /// Waits until the kernel has the bytes of `key`. `Ready` uses up the key; `Err`: they have
    /// failed, or the caller is away from home and they still go out.
    pub(crate) fn poll_collect(&self, key: Key, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let collected = self.transmit.borrow_mut().queue.collect(key);
        if let Some(collected) = collected {
            return Poll::Ready(self.error_of(collected.answer).map_or(Ok(()), Err));
        }
        if let Err(error) = context::check_home(self.home()) {
            self.detach(key);
            return Poll::Ready(Err(error));
        }
        self.wait_for_entry(key, cx);
        Poll::Pending
    }

    /// No future waits for the bytes of `key` now. They still go out. If they are out or have
    /// failed already, the answer is dropped.
    pub(crate) fn detach(&self, key: Key) {
        self.sending(|transmit, deferred| transmit.queue.detach(key, deferred));
    }

    /// Opens receiving again after [`end_receive`](Self::end_receive), to wait for EOF. True: bytes
    /// that came in between may have been discarded. False, and no change: receiving has not ended.
    pub(crate) fn receive_again(&self) -> bool {
        if !self.receive.borrow().is_closed() {
            return false;
        }
        self.cancel_receive_and_wait();
        self.receiving(|receive, _| receive.reopen());
        true
    }

    /// Wakes every caller that waits for progress, so that it looks at the layer above.
    pub(crate) fn wake_senders(&self) {
        self.sending(|transmit, deferred| transmit.waiters.wake(deferred));
    }

    /// How many queued bytes the kernel has not taken. Those of the op in flight count until it
    /// ends.
    pub(crate) fn unsent(&self) -> usize {
        self.transmit.borrow().queue.unsent()
    }

    /// `Ready(Ok)` when at most `max` bytes are unsent; `Ready(Err)` if sending has failed, or away
    /// from home, where nothing goes out. `Pending`: the task is woken when bytes have gone out.
    /// The caller keeps `id`, and gives it to
    /// [`stop_waiting_for_progress`](Self::stop_waiting_for_progress) in the end.
    pub(crate) fn poll_unsent(
        &self,
        max: usize,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = context::check_home(&self.home) {
            return Poll::Ready(Err(error)); // nothing goes out
        }
        let (errno, unsent) = {
            let transmit = self.transmit.borrow();
            (transmit.errno(), transmit.queue.unsent())
        };
        if let Some(errno) = errno {
            return Poll::Ready(Err(error(errno)));
        }
        if unsent <= max {
            return Poll::Ready(Ok(()));
        }
        self.wait_for_progress(id, cx);
        Poll::Pending
    }
}

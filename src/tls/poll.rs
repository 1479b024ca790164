//! Polls the sending of a session without a future, as the traits of other crates do. There is one
//! waker, and the last caller's is kept.
//!
//! Receiving is not here: `stream/poll.rs` has it for every stream. Read that next.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::outbound::not_possible;
use super::protocol::BATCH_LEN;
use super::session::Session;
use crate::context;
use crate::io::Duplex;
use crate::queue::WaiterId;
use crate::stream::{Bottom, Carried, Connection, Source};

impl<S: Duplex + Carried<Carrier = Connection>> Session<S> {
    /// Encrypts a copy of at most one batch of bytes, and gives their number, which may be less
    /// than `bufs` have. `Pending`: buffers wait before them, or TCP has no room, and the task will
    /// be woken. `Err`: nothing can be sent.
    pub(crate) fn poll_write(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        match (filled.next(), filled.next()) {
            (None, _) => context::consume_budget(cx).map(|()| Ok(0)),
            (Some(only), None) => self.poll_encrypt(only, cx),
            _ => {
                // Many small pieces become few records.
                let len = bufs.iter().fold(0, |sum: usize, buf| sum.saturating_add(buf.len()));
                let mut batch = Vec::with_capacity(BATCH_LEN.min(len));
                for buf in bufs {
                    let room = BATCH_LEN - batch.len();
                    batch.extend_from_slice(&buf[..buf.len().min(room)]);
                }
                self.poll_encrypt(&batch, cx)
            }
        }
    }

    /// As [`poll_write`](Self::poll_write), for bytes in one piece.
    fn poll_encrypt(
        self: &Rc<Self>,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.refusal() {
            return context::consume_budget(cx).map(|()| Err(error));
        }
        let waiter = &mut Some(WaiterId::Poller);
        ready!(self.poll_drive(waiter, cx))?;
        if !self.has_room() {
            self.bottom().wait_for_progress(waiter, cx);
            return Poll::Pending;
        }
        ready!(context::consume_budget(cx));
        let len = bytes.len().min(BATCH_LEN);
        Poll::Ready(match self.encrypt(&bytes[..len]) {
            true => Ok(len),
            false => Err(self.refusal().unwrap_or_else(not_possible)),
        })
    }

    /// Encrypts `bytes`, at most one batch, and gives the ciphertext to TCP. False: that was not
    /// possible.
    fn encrypt(&self, bytes: &[u8]) -> bool {
        if self.cannot_encrypt().is_some() {
            return false;
        }
        let is_encrypted = self.with_protocol(|protocol| protocol.write(bytes)) == Some(true);
        self.flush();
        is_encrypted
    }

    /// Waits until the kernel has everything. `Err`: TCP has failed, or the caller is away from
    /// home.
    pub(crate) fn poll_flush(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_submitted(cx))?;
        self.below().poll_flush(cx)
    }

    /// Waits until everything is encrypted, and TCP has it in its queue. TCP then sends it without
    /// another poll. A failure of TLS or TCP is not told here, but in the next write.
    pub(crate) fn poll_submitted(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_drive(&mut Some(WaiterId::Poller), cx)
    }

    /// Sends `close_notify` after everything else, then ends TCP's sending, and waits for both.
    pub(crate) fn poll_close(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_close_notify(&mut Some(WaiterId::Poller), cx))?;
        self.below().poll_close(cx)
    }
}

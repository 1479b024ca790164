//! The third door, as `net/connection/poll.rs` has it: a session polled as the traits of other crates
//! have it, without a future. One waker for each direction, the last one wins.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::engine::BATCH_LEN;
use super::session::{Session, not_possible};
use crate::buf::Chunk;
use crate::context;
use crate::net::WaiterId;

impl Session {
    /// TCP's next chunk.
    fn next(&self) -> impl FnMut(&mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        |cx| self.tcp().connection().poll_recv(cx)
    }

    /// Hands plaintext to `put`, piece by piece, at most `room` bytes; at the end none.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        mut room: usize,
        mut put: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        if room == 0 {
            return context::spend(cx).map(Ok);
        }
        if ready!(self.poll_readable(self.next(), cx))? {
            self.take_plain(|piece| {
                let len = piece.len().min(room);
                put(&piece[..len]);
                room -= len;
                len
            });
        }
        Poll::Ready(Ok(()))
    }

    /// The first plaintext in line, where it is; none at the end.
    ///
    /// # Safety
    /// While the slice lives nobody takes bytes: no call that receives is made or polled, no handle
    /// of this direction is dropped or given away.
    pub(crate) unsafe fn poll_fill<'a>(&self, cx: &mut Context<'_>) -> Poll<io::Result<&'a [u8]>> {
        if !ready!(self.poll_readable(self.next(), cx))? {
            return Poll::Ready(Ok(&[]));
        }
        let first = self.plain.borrow().front().map(|first| std::ptr::from_ref::<[u8]>(first));
        let first = first.expect("there was some");
        // SAFETY: plaintext lies in a pooled buffer or in heap memory, and stays there, unchanged,
        // until it is taken; what is decrypted meanwhile comes behind it. Nobody takes it by the
        // caller's promise.
        Poll::Ready(Ok(unsafe { &*first }))
    }

    /// Takes the first `len` bytes in line.
    ///
    /// # Panics
    /// If the first piece has fewer.
    pub(crate) fn consume(&self, len: usize) {
        if len == 0 {
            return;
        }
        let mut left = Some(len);
        self.take_plain(|piece| match left.take() {
            Some(len) => {
                assert!(len <= piece.len(), "{len} bytes consumed of {}", piece.len());
                len
            }
            None => 0,
        });
        assert!(left.is_none(), "{len} bytes consumed of none");
    }

    /// Encrypts a copy of bytes, as many as go into one batch: how many.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        match (filled.next(), filled.next()) {
            (None, _) => context::spend(cx).map(|()| Ok(0)),
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

    /// Encrypts a copy of `bytes`, as much of it as fits, if it is its turn.
    fn poll_encrypt(&self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if let Some(error) = self.refusal() {
                return context::spend(cx).map(|()| Err(error));
            }
            if self.drive() && self.has_room() {
                ready!(context::spend(cx));
                let len = bytes.len().min(BATCH_LEN);
                return Poll::Ready(match self.encrypt(&bytes[..len]) {
                    true => Ok(len),
                    false => Err(self.refusal().unwrap_or_else(not_possible)),
                });
            }
            ready!(self.poll_room(&mut Some(WaiterId::POLLER), cx))?;
        }
    }

    /// Waits until everything is with the kernel.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = ready!(self.poll_all_out(cx));
        context::spend(cx).map(|()| done)
    }

    fn poll_all_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_over(cx))?;
        let end = self.writes.borrow().queued;
        self.poll_out(end, &mut Some(WaiterId::POLLER), cx)
    }

    /// Waits until everything is on its way: the kernel has it before the thread sleeps.
    pub(crate) fn poll_hand_over(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.drive() {
            ready!(self.poll_room(&mut Some(WaiterId::POLLER), cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Says the end of TLS, then TCP's.
    pub(crate) fn poll_close(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_end(&mut Some(WaiterId::POLLER), cx))?;
        self.tcp().connection().poll_close(cx)
    }
}

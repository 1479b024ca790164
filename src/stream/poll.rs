//! Polls a stream without a future, as the traits of other crates do. `compat/` calls this.
//!
//! A read takes unread bytes, or waits for them, as `recv` does. A write copies into the send
//! queue. Bytes that are written while a send is in flight are collected and go out together. Each
//! direction has one waker for callers without a future, beside the futures that wait; the last
//! caller's waker is kept (SEMANTICS TX15).
//!
//! The traits themselves are not here. Read next: `compat/mod.rs`.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::Connection;
use super::bottom::Bottom;
use super::layer::Carrier;
use super::read::{Source, poll_unread};
use super::transmit::Direction;
use crate::context;
use crate::driver::error;
use crate::queue::WaiterId;

/// How many written bytes may wait behind the send in flight.
const WRITTEN_MAX: usize = 64 * 1024;

/// As [`poll_unread`], for a caller without a future. Its waker replaces that of the last such
/// caller.
fn poll_unread_as_poller<S: Source>(source: &Rc<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    poll_unread(source, &mut Some(WaiterId::Poller), cx)
}

/// Polls for received bytes, for every [`Source`].
pub(crate) trait PollReceive: Source + Sized {
    /// Waits for unread bytes, and gives them to `put`, piece by piece, at most `room` of them.
    /// `Ready(Ok)` without a call of `put` is EOF, unless `room` is zero. `put` must call no
    /// foreign code.
    fn poll_read(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        mut room: usize,
        mut put: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        if room == 0 {
            return context::consume_budget(cx).map(Ok);
        }
        ready!(poll_unread_as_poller(self, cx))?;
        let result = self.with_unread(|unread, deferred| {
            if unread.is_empty() {
                return unread.take_ending().expect("there is an end, or nothing is ready");
            }
            unread.consume_with(deferred, |bytes| {
                let len = bytes.len().min(room);
                if len > 0 {
                    put(&bytes[..len]);
                }
                room -= len;
                len
            });
            Ok(())
        });
        self.bytes_were_taken();
        Poll::Ready(result)
    }

    /// Waits for unread bytes, and lends the first piece, where it is; an empty slice is EOF.
    /// [`consume`](Self::consume) takes the bytes.
    ///
    /// # Safety
    /// While the slice lives, no bytes are taken from the stream: no call that receives is made or
    /// polled, and no handle of this direction is dropped or given away.
    unsafe fn poll_fill<'a>(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<&'a [u8]>> {
        ready!(poll_unread_as_poller(self, cx))?;
        let bytes = self.with_unread(|unread, _| match unread.first() {
            Some(bytes) => Ok(std::ptr::from_ref(bytes)),
            None => {
                let ending = unread.take_ending().expect("there is an end, or nothing is ready");
                ending.map(|()| std::ptr::from_ref(&[][..]))
            }
        });
        // SAFETY: unread bytes are in a pooled buffer, in heap memory or in a caller's buffer. They
        // stay there unchanged until they are taken, because arrivals only add to the end of the
        // line. The caller guarantees that none are taken while the slice lives.
        Poll::Ready(bytes.map(|bytes| unsafe { &*bytes }))
    }

    /// Takes the first `len` unread bytes.
    ///
    /// # Panics
    /// If the first piece has fewer.
    fn consume(self: &Rc<Self>, len: usize) {
        let first = self.with_unread(|unread, _| unread.first().map_or(0, <[u8]>::len));
        assert!(len <= first, "{len} bytes consumed of {first}");
        if len > 0 {
            self.with_unread(|unread, deferred| unread.consume(len, deferred));
            self.bytes_were_taken();
        }
    }
}

impl<S: Source> PollReceive for S {}

/// Polls the sending of a carrier of any kind. A connection has methods of its own, which copy less.
pub(crate) trait PollSend: Carrier {
    /// Queues a copy of bytes as far as there is room, and gives their number, which may be less than
    /// `bufs` have. `Pending`: there is no room, nothing was copied, and the task is woken when bytes
    /// have gone out. `Err`: nothing can be sent.
    fn poll_write(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.bottom().poll_home(cx))?;
        if let Err(error) = self.check_sendable() {
            return context::consume_budget(cx).map(|()| Err(error));
        }
        if self.unsent() >= WRITTEN_MAX {
            self.bottom().wait_for_progress(&mut Some(WaiterId::Poller), cx);
            return Poll::Pending;
        }
        ready!(context::consume_budget(cx));
        let mut bytes = Vec::new();
        for buf in bufs {
            let room = WRITTEN_MAX - bytes.len();
            bytes.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        let len = bytes.len();
        self.queue_detached(bytes);
        Poll::Ready(Ok(len))
    }

    /// Waits until everything is out that was queued. `Err`: some of it was not sent.
    fn poll_flush(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Err(error) = self.check_going_out() {
            return context::consume_budget(cx).map(|()| Err(error));
        }
        if self.unsent() == 0 {
            return context::consume_budget(cx).map(Ok);
        }
        self.bottom().wait_for_progress(&mut Some(WaiterId::Poller), cx);
        Poll::Pending
    }

    /// Ends sending behind everything that is queued, and waits for it. `Ok` also if the peer has
    /// reset the connection: see [`Connection::poll_close`].
    fn poll_close(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shutdown(&mut Some(WaiterId::Poller), cx).map(closed)
    }
}

impl<C: Carrier> PollSend for C {}

/// What the crates that call this expect: a reset is no error of a close. Receiving tells of it.
fn closed(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}

impl Connection {
    /// Copies bytes into the send queue as far as there is room, and gives their number, which may
    /// be less than `bufs` have. `Pending`: there is no room, nothing was copied, and the task is
    /// woken when bytes have gone out. `Err`: nothing can be sent; a failure of earlier bytes is
    /// told here too.
    pub(crate) fn poll_write(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let refusal = self.transmit.borrow().refusal();
        if let Some(error) = refusal {
            return context::consume_budget(cx).map(|()| Err(error));
        }
        ready!(self.poll_home(cx))?;
        if self.transmit.borrow().queue.detached() >= WRITTEN_MAX {
            self.wait_for_progress(&mut Some(WaiterId::Poller), cx);
            return Poll::Pending;
        }
        ready!(context::consume_budget(cx));
        Poll::Ready(Ok(self.sending(|transmit, deferred| {
            let written = transmit.queue.write(bufs, WRITTEN_MAX);
            self.send_next(transmit, deferred);
            written
        })))
    }

    /// Waits until the kernel has everything that was queued and written. `Err`: some of it was not
    /// sent.
    pub(crate) fn poll_flush(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (direction, is_idle) = {
            let transmit = self.transmit.borrow();
            (transmit.direction, transmit.queue.is_idle())
        };
        match direction {
            Direction::Failed(errno) => context::consume_budget(cx).map(|()| Err(error(errno))),
            Direction::Open | Direction::ShutdownAsked | Direction::ShutDown(_) if is_idle => {
                context::consume_budget(cx).map(Ok)
            }
            _ => {
                ready!(self.poll_home(cx))?;
                self.wait_for_progress(&mut Some(WaiterId::Poller), cx);
                Poll::Pending
            }
        }
    }

    /// As [`poll_flush`](Self::poll_flush), but it waits only until no written bytes are held back:
    /// an op has them, or they are in line behind the buffer of a future. It tells no failure of an
    /// op that is still in flight. The kernel gets the bytes of an op before the thread sleeps.
    pub(crate) fn poll_submitted(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_submitted = {
            let transmit = self.transmit.borrow();
            let has_failed = matches!(transmit.direction, Direction::Failed(_) | Direction::Lost);
            !has_failed && !transmit.queue.has_written()
        };
        if is_submitted { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    /// As `shutdown`, but it gives `Ok` if the peer has reset the connection.
    pub(crate) fn poll_close(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.try_shutdown(cx) {
            Poll::Ready(done) => Poll::Ready(closed(done)),
            Poll::Pending => {
                self.wait_for_progress(&mut Some(WaiterId::Poller), cx);
                Poll::Pending
            }
        }
    }
}

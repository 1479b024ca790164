//! The third door: a connection polled as the traits of other crates have it, without a future.
//!
//! Reading pops what is parked, or arms and waits as `recv` does. Writing copies into one buffer,
//! an entry of the send queue like any other; what is written while something is under way is
//! collected and goes out together. One waker per direction, the last one wins, beside the futures
//! that wait (SEMANTICS TX15).
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::{Connection, send::Send};
use crate::buf::Chunk;
use crate::context;
use crate::driver::error;
use crate::net::waiters::WaiterId;

/// How many bytes wait behind what is under way.
const WRITTEN_MAX: usize = 64 * 1024;

impl Send {
    /// Takes bytes over as far as there is room; how many.
    fn write(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        let room = WRITTEN_MAX.saturating_sub(self.waiting());
        let total = bufs.iter().fold(0, |sum: usize, buf| sum.saturating_add(buf.len()));
        let taken = total.min(room);
        self.written.reserve(taken);
        let mut left = taken;
        for buf in bufs {
            let part = &buf[..buf.len().min(left)];
            self.written.extend_from_slice(part);
            left -= part.len();
        }
        taken
    }
}

impl Connection {
    /// The next piece that came, or `None` at the end.
    pub(crate) fn poll_recv(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Chunk>>> {
        let mut id = Some(WaiterId::POLLER);
        ready!(self.poll_bytes(&mut id, cx))?;
        Poll::Ready(self.take_chunk(id))
    }

    /// Hands what came to `put`, piece by piece, at most `room` bytes; at the end none.
    pub(crate) fn poll_read(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        mut room: usize,
        mut put: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        if room == 0 {
            return context::spend(cx).map(Ok);
        }
        ready!(self.poll_bytes(&mut Some(WaiterId::POLLER), cx))?;
        let mut recv = self.recv.borrow_mut();
        if recv.is_empty() {
            return Poll::Ready(recv.ending().expect("there is an end, or nothing is ready"));
        }
        let mut spent = Vec::new();
        while let Some(first) = recv.parked.front() {
            let len = first.bytes().len().min(room);
            put(&first.bytes()[..len]);
            spent.extend(recv.consume(len));
            room -= len;
            if room == 0 {
                break;
            }
        }
        drop(recv);
        drop(spent);
        self.resume();
        Poll::Ready(Ok(()))
    }

    /// The first bytes in line, where they are; none at the end. The caller has the only handle of
    /// this direction, for as long as the slice lives.
    ///
    /// # Safety
    /// While the slice lives nobody takes bytes: no call that receives is made or polled, no handle
    /// of this direction is dropped or given away.
    pub(crate) unsafe fn poll_fill<'a>(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&'a [u8]>> {
        ready!(self.poll_bytes(&mut Some(WaiterId::POLLER), cx))?;
        let mut recv = self.recv.borrow_mut();
        let Some(bytes) = recv.parked.front().map(|first| std::ptr::from_ref(first.bytes())) else {
            let ending = recv.ending().expect("there is an end, or nothing is ready");
            return Poll::Ready(ending.map(|()| [].as_slice()));
        };
        // SAFETY: parked bytes lie in a pooled buffer, in heap memory or in a caller's buffer, and
        // stay there, unchanged, until they are taken; completions only add to the end of the line.
        // Nobody takes them by the caller's promise.
        Poll::Ready(Ok(unsafe { &*bytes }))
    }

    /// Takes the first `len` bytes in line.
    ///
    /// # Panics
    /// If the first piece has fewer.
    pub(crate) fn consume(self: &Rc<Self>, len: usize) {
        let mut recv = self.recv.borrow_mut();
        let first = recv.parked.front().map_or(0, |first| first.bytes().len());
        assert!(len <= first, "{len} bytes consumed of {first}");
        let spent = if len > 0 { recv.consume(len) } else { None };
        drop(recv);
        drop(spent);
        self.resume();
    }

    /// Copies bytes into the buffer of this connection, as far as there is room: how many.
    pub(crate) fn poll_write(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let refusal = self.send.borrow().refusal();
        if let Some(error) = refusal {
            return context::spend(cx).map(|()| Err(error));
        }
        ready!(context::poll_home(&self.home, cx))?;
        if self.send.borrow().waiting() >= WRITTEN_MAX {
            return self.wait_for_sends(cx);
        }
        ready!(context::spend(cx));
        let written = self.send.borrow_mut().write(bufs);
        self.finish_now(None);
        Poll::Ready(Ok(written))
    }

    /// Waits until everything queued and written is with the kernel.
    pub(crate) fn poll_flush(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let send = self.send.borrow();
        let (end, is_out) = (send.end, send.is_idle() && !send.lost);
        drop(send);
        match end {
            Some(errno) => context::spend(cx).map(|()| Err(error(errno))),
            None if is_out => context::spend(cx).map(Ok),
            None => {
                ready!(context::poll_home(&self.home, cx))?;
                self.wait_for_sends(cx)
            }
        }
    }

    /// As [`poll_flush`](Self::poll_flush), for those who do not need to know: waits until everything
    /// is on its way. The kernel has it before the thread sleeps.
    pub(crate) fn poll_hand_over(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let send = self.send.borrow();
        let is_on_its_way = send.end.is_none() && !send.lost && send.written.is_empty();
        drop(send);
        if is_on_its_way { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    /// As [`shutdown`](Self::shutdown); but where the peer has reset there is nothing to close, which
    /// is how those who build on the traits have it. Receiving tells of the reset.
    pub(crate) fn poll_close(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.try_shutdown(cx) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                Poll::Ready(Ok(()))
            }
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => self.wait_for_sends(cx),
        }
    }

    /// Has the task woken when something has gone out.
    fn wait_for_sends<T>(&self, cx: &mut Context<'_>) -> Poll<T> {
        let waker = cx.waker().clone();
        let mut send = self.send.borrow_mut();
        // Cloning a waker is foreign code: what is waited for may have happened meanwhile.
        let is_late = send.flight.is_none();
        let replaced = send.waiters.register(&mut Some(WaiterId::POLLER), waker);
        drop(send);
        drop(replaced);
        if is_late {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

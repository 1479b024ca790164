//! The futures that receive: `recv`, `read_from`, `peek_from`.
//!
//! A future owns no datagram. It waits until there is one, and takes it. What is in flight is not
//! decided here, but in `receive.rs`. Read next: `record.rs`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::{Datagram, DatagramAddr, DatagramFamily, DatagramSocket, read_record};
use crate::buf::{BufError, Chunk, Fill, IoBufMut};
use crate::context;
use crate::driver::error;
use crate::io::Truncated;
use crate::queue::WaiterId;

/// The result of `read_from`.
pub(crate) type DatagramReport<A, B> = Result<(usize, A, B), BufError<B>>;

impl<A: DatagramAddr> DatagramSocket<A> {
    /// The future that waits for the next datagram and takes it.
    #[inline]
    pub(crate) fn recv(self: &Rc<Self>) -> RecvDatagram<'_, A> {
        RecvDatagram { socket: self, id: None }
    }

    /// The future that waits for the next datagram and copies it into a buffer. `reading` says
    /// whether it takes the datagram, too.
    pub(crate) fn read<B: IoBufMut>(
        self: &Rc<Self>,
        buf: B,
        reading: Reading,
    ) -> ReadDatagram<'_, A, B> {
        ReadDatagram { socket: self, buf: Some(buf), reading, id: None }
    }

    /// Takes the next datagram or an error, if one is here. `WouldBlock`: there is neither.
    pub(crate) fn try_recv(self: &Rc<Self>) -> io::Result<Datagram<A>> {
        if !self.arrivals.borrow().has_answer() {
            context::check_home(&self.home)?;
            if A::FAMILY == DatagramFamily::Unix {
                self.receive_now();
            } else {
                self.withdraw(); // under epoll the receive that waits can be tried again
                self.arm();
            }
        }
        self.take().unwrap_or_else(|| Err(error(libc::EAGAIN)))
    }

    /// `Ready(Ok)` when there is a datagram or an error; it takes neither, so the caller does.
    /// `Ready(Err)`: the caller is away from home. `Pending`: the task will be woken. `id` is the
    /// caller's name among the waiting futures, `None` at first; the caller ends the wait with
    /// `stop_waiting_for_datagram`.
    #[inline]
    pub(super) fn poll_arrival(
        self: &Rc<Self>,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.arrivals.borrow().has_answer() {
            ready!(context::poll_home(&self.home, cx))?;
            if !self.arm() {
                self.wait_for_datagram(id, cx);
                // Cloning a waker runs foreign code. It may have received, or ended the receive that
                // was in flight. So look again.
                let arrivals = self.arrivals.borrow();
                if arrivals.has_answer() || !arrivals.is_armed() {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
        context::consume_budget(cx).map(Ok)
    }

    /// Takes the oldest datagram, or the error. `None`: there is neither.
    #[inline]
    pub(super) fn take(&self) -> Option<io::Result<Datagram<A>>> {
        let taken = self.arrivals.borrow_mut().take()?;
        Some(taken.map_err(error).and_then(read_record))
    }

    /// How many datagrams no call has taken.
    pub(crate) fn unread_len(&self) -> usize {
        self.arrivals.borrow().unread_len()
    }
}

pub(super) const FOUND: &str = "there is a datagram or an error, or nothing is ready";

/// The future of `recv`.
pub(crate) struct RecvDatagram<'a, A: DatagramAddr> {
    socket: &'a Rc<DatagramSocket<A>>,
    id: Option<WaiterId>,
}

impl<A: DatagramAddr> Future for RecvDatagram<'_, A> {
    type Output = io::Result<Datagram<A>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        ready!(this.socket.poll_arrival(&mut this.id, cx))?;
        Poll::Ready(this.socket.take().expect(FOUND))
    }
}

impl<A: DatagramAddr> Drop for RecvDatagram<'_, A> {
    #[inline]
    fn drop(&mut self) {
        self.socket.stop_waiting_for_datagram(self.id);
    }
}

/// What becomes of a datagram that was copied into a caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Take,
    /// It is the next one for other calls, too.
    Peek,
}

/// The future of `read_from` and `peek_from`.
pub(crate) struct ReadDatagram<'a, A: DatagramAddr, B> {
    socket: &'a Rc<DatagramSocket<A>>,
    /// `None` when the future has ended.
    buf: Option<B>,
    reading: Reading,
    id: Option<WaiterId>,
}

/// No part of it is pinned.
impl<A: DatagramAddr, B> Unpin for ReadDatagram<'_, A, B> {}

impl<A: DatagramAddr, B: IoBufMut> ReadDatagram<'_, A, B> {
    fn buf(&self) -> &B {
        self.buf.as_ref().expect("a future is not polled after it was ready")
    }

    /// Ends the future with an error.
    fn fail(&mut self, error: io::Error) -> Poll<DatagramReport<A, B>> {
        let buf = self.buf.take().expect("a future is not polled after it was ready");
        Poll::Ready(Err(BufError::new(error, buf)))
    }

    /// Ends the future with the datagram that was found, or the error.
    fn finish(&mut self) -> Poll<DatagramReport<A, B>> {
        let found = match self.reading {
            Reading::Take => self.socket.take(),
            Reading::Peek => {
                let arrivals = self.socket.arrivals.borrow();
                let copy = arrivals.first().map(|record| Chunk::from(record.to_vec()));
                copy.map(read_record)
            }
        };
        let found = found.or_else(|| self.socket.take()).expect(FOUND);
        let datagram = match found {
            Ok(datagram) => datagram,
            Err(error) => return self.fail(error),
        };
        let buf = self.buf.take().expect("a future is not polled after it was ready");
        let fill = Fill::new(buf, usize::MAX);
        fill.append(&datagram.chunk);
        let (buf, received) = fill.take();
        let len = datagram.chunk.len();
        Poll::Ready(match received == len {
            true => Ok((len, datagram.from, buf)),
            false => Err(BufError::new(Truncated::error(received, len), buf)),
        })
    }
}

impl<A: DatagramAddr, B: IoBufMut> Future for ReadDatagram<'_, A, B> {
    type Output = DatagramReport<A, B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.buf().capacity() == this.buf().len() {
            ready!(context::consume_budget(cx));
            let text = "the buffer has no room behind what it holds (Vec::with_capacity(n), not \
                        vec![0; n])";
            return this.fail(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        match ready!(this.socket.poll_arrival(&mut this.id, cx)) {
            Ok(()) => this.finish(),
            Err(error) => this.fail(error),
        }
    }
}

impl<A: DatagramAddr, B> Drop for ReadDatagram<'_, A, B> {
    fn drop(&mut self) {
        self.socket.stop_waiting_for_datagram(self.id);
    }
}

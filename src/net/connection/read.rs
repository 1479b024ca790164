//! `read` and `read_exact`: a future that lends its buffer to the connection.
//!
//! The buffer may be filled by the kernel, or from what is parked; in both cases the bytes are the
//! stream's until the call is answered. A `read_exact` that has a part of what it wants leaves it
//! parked, inside its own buffer, first in line for whoever asks first.

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::Connection;
use crate::buf::{BufError, Fill, IoBufMut};
use crate::context;
use crate::net::waiters::WaiterId;

/// What a [`Read`] gives: how many bytes it appended, and the buffer.
pub(crate) type ReadReport<B> = Result<(usize, B), BufError<B>>;

/// The future of `read` and `read_exact`: at least `min` bytes, at most `max`, into a buffer.
pub(crate) struct Read<'a, B: IoBufMut> {
    connection: &'a Rc<Connection>,
    held: Held<B>,
    min: usize,
    max: usize,
    /// `read_exact`: the end before `max` bytes is an error.
    exact: bool,
    id: Option<WaiterId>,
}

/// Where the caller's buffer is.
enum Held<B: IoBufMut> {
    Here(B),
    /// Lent to the connection, which may have received into it.
    Lent(Rc<Fill<Option<B>>>),
    Returned,
}

/// No part of it is pinned: the buffer's bytes stay in place when it moves (`IoBuf`).
impl<B: IoBufMut> Unpin for Read<'_, B> {}

impl<'a, B: IoBufMut> Read<'a, B> {
    /// At least one byte, at most what there is room for.
    pub(crate) fn some(connection: &'a Rc<Connection>, buf: B) -> Self {
        let max = buf.capacity() - buf.len();
        Read { connection, held: Held::Here(buf), min: 1, max, exact: false, id: None }
    }

    /// Exactly `len` bytes.
    pub(crate) fn exact(connection: &'a Rc<Connection>, buf: B, len: usize) -> Self {
        Read { connection, held: Held::Here(buf), min: len, max: len, exact: true, id: None }
    }

    /// Whether the kernel may be writing to the buffer.
    fn is_in_flight(&self) -> bool {
        matches!(&self.held, Held::Lent(fill) if fill.is_in_flight())
    }

    fn fail(&mut self, error: io::Error) -> Poll<ReadReport<B>> {
        let buf = match std::mem::replace(&mut self.held, Held::Returned) {
            Held::Here(buf) => buf,
            Held::Lent(fill) => {
                let parted = self.connection.recv.borrow_mut().part_with(&*fill);
                drop(parted);
                fill.take().0
            }
            Held::Returned => unreachable!("a future is not polled after it was ready"),
        };
        Poll::Ready(Err(BufError::new(error, buf)))
    }

    /// Takes what is parked, as far as it is wanted.
    fn finish(&mut self) -> Poll<ReadReport<B>> {
        match std::mem::replace(&mut self.held, Held::Returned) {
            Held::Here(buf) => self.answer(&Fill::new(buf, self.max)),
            Held::Lent(fill) => self.answer(&fill),
            Held::Returned => unreachable!("a future is not polled after it was ready"),
        }
    }

    fn answer(&self, fill: &Fill<Option<B>>) -> Poll<ReadReport<B>> {
        let mut recv = self.connection.recv.borrow_mut();
        let spent = recv.gather(fill);
        let len = fill.received().len();
        let ending = if len < self.min { recv.ending() } else { None };
        assert!(len >= self.min || ending.is_some(), "an answer is whole, or says why not");
        drop(recv);
        drop(spent);
        let (buf, len) = fill.take();
        self.connection.resume();
        Poll::Ready(match ending {
            None => Ok((len, buf)),
            // The end is an answer to `read`, and too early for `read_exact`.
            Some(Ok(())) if !self.exact => Ok((0, buf)),
            Some(Ok(())) => {
                let error = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the peer finished after {len} of {} bytes", self.min),
                );
                Err(BufError::new(error, buf))
            }
            Some(Err(error)) => Err(BufError::new(error, buf)),
        })
    }

    /// Nothing in flight fills the buffer: puts what is parked into it, still as the stream's
    /// bytes, and says whether the next op shall receive into it directly.
    fn lend(&mut self) -> Option<Rc<Fill<dyn Any>>> {
        let connection = self.connection;
        let has_parked = !connection.recv.borrow().is_empty();
        let is_large = self.max > connection.home.pool().buffer_len();
        let idle = connection.recv.borrow().is_idle() || connection.home.tries_first();
        let is_direct = idle && is_large;
        if !has_parked && !is_direct {
            return None;
        }
        self.held = match std::mem::replace(&mut self.held, Held::Returned) {
            Held::Here(buf) => Held::Lent(Rc::new(Fill::new(buf, self.max))),
            held => held,
        };
        let Held::Lent(fill) = &self.held else { return None };
        let own: Rc<Fill<dyn Any>> = fill.clone();
        let mut recv = connection.recv.borrow_mut();
        let spent = recv.gather(&own);
        if !own.received().is_empty() {
            recv.park_first(own.clone());
        }
        drop(recv);
        drop(spent);
        let room = own.target().1;
        (idle && room > connection.home.pool().buffer_len()).then_some(own)
    }
}

impl<B: IoBufMut> Future for Read<'_, B> {
    type Output = ReadReport<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Held::Here(buf) = &this.held {
            if this.max == 0 && this.min == 0 {
                ready!(context::spend(cx));
                return this.finish();
            }
            let spare = buf.capacity() - buf.len();
            if spare < this.min || spare == 0 {
                ready!(context::spend(cx));
                let text = format!(
                    "the buffer has room for {spare} bytes behind what it holds, {} are wanted \
                     (Vec::with_capacity(n), not vec![0; n])",
                    this.min
                );
                return this.fail(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        let connection = this.connection;
        loop {
            let recv = connection.recv.borrow();
            let ready = recv.available(this.min) >= this.min || recv.has_ending();
            drop(recv);
            if ready && !this.is_in_flight() {
                ready!(context::spend(cx));
                return this.finish();
            }
            if let Err(error) = ready!(context::poll_home(&connection.home, cx)) {
                // Home is on this thread, so the buffer can be had back at once.
                if this.is_in_flight() {
                    connection.settle_op();
                    assert!(
                        !this.is_in_flight(),
                        "the engine failed with this buffer in flight: {error}"
                    );
                }
                return this.fail(error);
            }
            let lend = if this.is_in_flight() { None } else { this.lend() };
            if !connection.arm(lend) {
                connection.wait_for_bytes(&mut this.id, this.min, cx);
                return Poll::Pending;
            }
        }
    }
}

impl<B: IoBufMut> Drop for Read<'_, B> {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.connection.stop_waiting_for_bytes(self.id);
        }
    }
}

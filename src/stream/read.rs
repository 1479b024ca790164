//! The futures that receive: `recv`, `read`, `read_exact`, for every [`Source`].
//!
//! A future owns no received bytes. It waits until there are some, and takes them. `read` and
//! `read_exact` lend their buffer to the stream. The kernel may write to it, and bytes in it may be
//! unread; both belong to the stream until the call is answered.
//!
//! What is in flight is not decided here, but in `receive.rs`. Read next: `unread.rs`.

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::Connection;
use super::bottom::Bottom;
use super::unread::Unread;
use crate::buf::{BufError, Chunk, Fill, IoBufMut};
use crate::context;
use crate::deferred::Deferred;
use crate::io::no_room;
use crate::queue::WaiterId;

/// A stream that can be received from: a connection, a stream in memory, or a layer over one.
pub(crate) trait Source {
    type Bottom: Bottom;

    /// Runs `run` on the unread bytes, under their borrow, and gives its result. The work that
    /// `run` puts into the `Deferred` is done when the borrow has ended. `run` must call no foreign
    /// code.
    fn with_unread<T>(&self, run: impl FnOnce(&mut Unread, &mut Deferred) -> T) -> T;

    /// What is below all layers.
    fn bottom(&self) -> &Self::Bottom;

    /// The next receive may write to a caller's buffer of more than this many bytes. `None`: to
    /// none, and [`ask`](Self::ask) is given none.
    fn lend_min(&self) -> Option<usize>;

    /// Makes sure that more bytes can arrive, and says what the caller does next. The caller is at
    /// home, and found too few bytes and no end. `lend`: a buffer that the next receive may write
    /// to; it may be left unused.
    fn ask(self: &Rc<Self>, lend: Option<Rc<Fill<dyn Any>>>, cx: &mut Context<'_>) -> Asked;

    /// Whether another [`ask`](Self::ask) would do something, when the last one said
    /// [`Asked::Wait`]: no receive is in flight any more, or (TLS) ciphertext has come.
    fn can_get_further(self: &Rc<Self>) -> bool;

    /// To be called after bytes were taken, outside `with_unread`: receiving goes on if it had
    /// stopped because of the credit.
    fn bytes_were_taken(self: &Rc<Self>);
}

/// The result of [`Source::ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Bytes or an end may have arrived: look again.
    LookAgain,
    /// Nothing has arrived. An arrival will wake the future.
    Wait,
    /// The budget of this poll is used up. The task will be polled again.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS works while it is asked"))]
    Yield,
}

impl Source for Connection {
    type Bottom = Connection;

    #[inline]
    fn with_unread<T>(&self, run: impl FnOnce(&mut Unread, &mut Deferred) -> T) -> T {
        self.receiving(|receive, deferred| run(&mut receive.unread, deferred))
    }

    #[inline]
    fn bottom(&self) -> &Connection {
        self
    }

    fn lend_min(&self) -> Option<usize> {
        let takes = self.home.attempts_first() || self.receive.borrow().is_idle();
        takes.then(|| self.home.pool().buffer_len())
    }

    #[inline]
    fn ask(self: &Rc<Self>, lend: Option<Rc<Fill<dyn Any>>>, _: &mut Context<'_>) -> Asked {
        if self.arm(lend) { Asked::LookAgain } else { Asked::Wait }
    }

    fn can_get_further(self: &Rc<Self>) -> bool {
        !self.is_receiving()
    }

    #[inline]
    fn bytes_were_taken(self: &Rc<Self>) {
        self.resume();
    }
}

/// `Ready(Ok)` when there is a byte, the end or an error of the stream; it takes none of them, so
/// the caller does. `Ready(Err)`: the caller is away from home. `Pending`: the task will be woken.
/// `id` is the caller's name among the waiting futures, `None` at first; the caller ends the wait
/// with `stop_waiting_for_arrival`.
#[inline]
pub(crate) fn poll_unread<S: Source>(
    source: &Rc<S>,
    id: &mut Option<WaiterId>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !source.with_unread(|unread, _| unread.has_answer(1)) {
        ready!(source.bottom().poll_home(cx))?;
        match source.ask(None, cx) {
            Asked::LookAgain => {}
            Asked::Wait => return wait(source, id, 1, cx),
            Asked::Yield => return Poll::Pending,
        }
    }
    context::consume_budget(cx).map(Ok)
}

/// Registers the future `id`, which found less than `min` bytes and no end. It gives `Pending` in
/// each case: the next arrival wakes the task, or this does if there is an answer by now.
fn wait<S: Source, T>(
    source: &Rc<S>,
    id: &mut Option<WaiterId>,
    min: usize,
    cx: &mut Context<'_>,
) -> Poll<T> {
    source.bottom().wait_for_arrival(id, cx);
    // Cloning a waker runs foreign code. It may have received, or ended the receive that was in
    // flight. So look again.
    let is_answered = source.with_unread(|unread, _| unread.has_answer(min));
    if is_answered || source.can_get_further() {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

/// Gives bytes back that a call has taken: they are the first in line again.
pub(crate) fn put_back<S: Source>(source: &Rc<S>, chunk: Chunk) {
    source.with_unread(|unread, _| unread.put_first(chunk));
    source.bottom().wake_receivers();
}

/// Takes one piece of what [`poll_unread`] found; `None` at EOF, `Err` after a failure. Panics if
/// there is nothing to take.
#[inline]
pub(crate) fn take_chunk<S: Source>(source: &Rc<S>) -> io::Result<Option<Chunk>> {
    let chunk = source.with_unread(|unread, deferred| match unread.take_chunk(deferred) {
        Some(chunk) => Ok(Some(chunk)),
        None => {
            let ending = unread.take_ending().expect("there is an end, or nothing is ready");
            ending.map(|()| None)
        }
    });
    source.bytes_were_taken();
    chunk
}

/// The future of `recv`.
pub(crate) struct RecvChunk<'a, S: Source> {
    source: &'a Rc<S>,
    id: Option<WaiterId>,
}

impl<'a, S: Source> RecvChunk<'a, S> {
    #[inline]
    pub(crate) fn new(source: &'a Rc<S>) -> Self {
        RecvChunk { source, id: None }
    }
}

impl<S: Source> Future for RecvChunk<'_, S> {
    type Output = io::Result<Option<Chunk>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        ready!(poll_unread(this.source, &mut this.id, cx))?;
        Poll::Ready(take_chunk(this.source))
    }
}

impl<S: Source> Drop for RecvChunk<'_, S> {
    #[inline]
    fn drop(&mut self) {
        if self.id.is_some() {
            self.source.bottom().stop_waiting_for_arrival(self.id);
        }
    }
}

/// The result of a [`Read`]: how many bytes it appended, and the buffer.
pub(crate) type ReadReport<B> = Result<(usize, B), BufError<B>>;

/// The future of `read` and `read_exact`: at least `min` bytes, at most `max`, into a buffer.
pub(crate) struct Read<'a, S: Source, B: IoBufMut> {
    source: &'a Rc<S>,
    buffer: Buffer<B>,
    min: usize,
    max: usize,
    /// `read_exact`: the end before `max` bytes is an error.
    exact: bool,
    id: Option<WaiterId>,
}

/// Where the caller's buffer is.
enum Buffer<B: IoBufMut> {
    Here(B),
    /// It is lent to the stream, which may have received into it.
    Lent(Rc<Fill<Option<B>>>),
    /// The future has ended, or is changing the state.
    Returned,
}

impl<B: IoBufMut> Buffer<B> {
    /// Takes the state out. The caller puts another one back, unless the future ends.
    fn take(&mut self) -> Buffer<B> {
        std::mem::replace(self, Buffer::Returned)
    }

    /// Whether the kernel may be writing to it.
    fn is_in_flight(&self) -> bool {
        matches!(self, Buffer::Lent(fill) if fill.is_in_flight())
    }
}

const RETURNED: &str = "a future is not polled after it was ready";

/// No part of it is pinned: the bytes of the buffer stay in place when the buffer moves (`IoBuf`).
impl<S: Source, B: IoBufMut> Unpin for Read<'_, S, B> {}

impl<'a, S: Source, B: IoBufMut> Read<'a, S, B> {
    /// At least one byte, at most as many as there is room for; 0 bytes at EOF.
    pub(crate) fn some(source: &'a Rc<S>, buf: B) -> Self {
        let max = buf.capacity() - buf.len();
        Read { source, buffer: Buffer::Here(buf), min: 1, max, exact: false, id: None }
    }

    /// Exactly `len` bytes.
    pub(crate) fn exact(source: &'a Rc<S>, buf: B, len: usize) -> Self {
        Read { source, buffer: Buffer::Here(buf), min: len, max: len, exact: true, id: None }
    }

    /// `Err` if the buffer has too little room. It looks only as long as the buffer was not lent.
    fn check_room(&self) -> io::Result<()> {
        let Buffer::Here(buf) = &self.buffer else { return Ok(()) };
        let spare = buf.capacity() - buf.len();
        if spare >= self.min && (spare > 0 || self.max == 0) {
            return Ok(());
        }
        Err(no_room(spare, self.min))
    }

    /// Ends the future: gives the buffer back with `error`. Unread bytes in it stay in line, as a
    /// copy. No op may be writing to the buffer, or this panics.
    fn fail(&mut self, error: io::Error) -> Poll<ReadReport<B>> {
        let buf = match self.buffer.take() {
            Buffer::Here(buf) => buf,
            Buffer::Lent(fill) => {
                let own: Rc<Fill<dyn Any>> = fill.clone();
                self.source.with_unread(|unread, deferred| unread.move_out_of(&own, deferred));
                fill.take().0
            }
            Buffer::Returned => unreachable!("{RETURNED}"),
        };
        Poll::Ready(Err(BufError::new(error, buf)))
    }

    /// Ends the future: takes the bytes that the call wants, and gives the buffer back. There must
    /// be an answer (`min` bytes, the end or an error), and no op may be writing to the buffer;
    /// this panics otherwise. An error carries the buffer with the bytes that came before it.
    fn finish(&mut self) -> Poll<ReadReport<B>> {
        let fill = match self.buffer.take() {
            Buffer::Here(buf) => Rc::new(Fill::new(buf, self.max)),
            Buffer::Lent(fill) => fill,
            Buffer::Returned => unreachable!("{RETURNED}"),
        };
        let min = self.min;
        let ending = self.source.with_unread(|unread, deferred| {
            unread.gather(&*fill, deferred);
            if fill.received().len() < min { unread.take_ending() } else { None }
        });
        let (buf, len) = fill.take();
        assert!(len >= min || ending.is_some(), "an answer is whole, or says why not");
        self.source.bytes_were_taken();
        Poll::Ready(match ending {
            None => Ok((len, buf)),
            // The end is an answer to `read`, and too early for `read_exact`.
            Some(Ok(())) if !self.exact => Ok((0, buf)),
            Some(Ok(())) => {
                let text = format!("the peer finished after {len} of {min} bytes");
                Err(BufError::new(io::Error::new(io::ErrorKind::UnexpectedEof, text), buf))
            }
            Some(Err(error)) => Err(BufError::new(error, buf)),
        })
    }

    /// Moves unread bytes into the buffer; they stay in line there. Gives the buffer if the next
    /// receive should write to it directly; `None`: that receive uses memory of ours. No op may be
    /// writing to the buffer.
    fn lend(&mut self) -> Option<Rc<Fill<dyn Any>>> {
        let min = self.source.lend_min().filter(|min| self.max > *min);
        let has_bytes = self.source.with_unread(|unread, _| !unread.is_empty());
        if !has_bytes && min.is_none() {
            return None;
        }
        self.buffer = match self.buffer.take() {
            Buffer::Here(buf) => Buffer::Lent(Rc::new(Fill::new(buf, self.max))),
            buffer => buffer,
        };
        let Buffer::Lent(fill) = &self.buffer else { return None };
        let own: Rc<Fill<dyn Any>> = fill.clone();
        self.source.with_unread(|unread, deferred| {
            unread.gather(&own, deferred);
            if !own.received().is_empty() {
                unread.push_first(own.clone());
            }
        });
        let room = own.target().1;
        min.is_some_and(|min| room > min).then_some(own)
    }
}

impl<S: Source, B: IoBufMut> Future for Read<'_, S, B> {
    type Output = ReadReport<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Err(error) = this.check_room() {
            ready!(context::consume_budget(cx));
            return this.fail(error);
        }
        let source = this.source;
        loop {
            let min = this.min;
            let is_ready = min == 0 || source.with_unread(|unread, _| unread.has_answer(min));
            if is_ready && !this.buffer.is_in_flight() {
                ready!(context::consume_budget(cx));
                return this.finish();
            }
            if let Err(error) = ready!(source.bottom().poll_home(cx)) {
                // Home is on this thread, so the buffer can be taken back at once.
                if this.buffer.is_in_flight() {
                    source.bottom().recall_buffer();
                    assert!(
                        !this.buffer.is_in_flight(),
                        "the engine failed with this buffer in flight: {error}"
                    );
                }
                return this.fail(error);
            }
            let lend = if this.buffer.is_in_flight() { None } else { this.lend() };
            match source.ask(lend, cx) {
                Asked::LookAgain => {}
                Asked::Wait => return wait(source, &mut this.id, min, cx),
                Asked::Yield => return Poll::Pending,
            }
        }
    }
}

impl<S: Source, B: IoBufMut> Drop for Read<'_, S, B> {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.source.bottom().stop_waiting_for_arrival(self.id);
        }
    }
}

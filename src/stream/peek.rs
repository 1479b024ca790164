//! The future of `peek`: what is unread is copied, and stays unread.
//!
//! The stream owns its unread bytes, so no system call looks at them (MSG_PEEK): the stream receives
//! as ever, and the next receive of any kind takes what is there. Read next: `unread.rs`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::Bottom;
use super::read::{ReadReport, Source, poll_unread};
use crate::buf::{BufError, Fill, IoBufMut};
use crate::context;
use crate::queue::WaiterId;

/// Waits until a byte, the end or an error is there, and copies as many bytes as fit.
pub(crate) struct Peek<'a, S: Source, B: IoBufMut> {
    source: &'a Rc<S>,
    /// `None` after the future was ready.
    buf: Option<B>,
    id: Option<WaiterId>,
}

impl<'a, S: Source, B: IoBufMut> Peek<'a, S, B> {
    pub(crate) fn new(source: &'a Rc<S>, buf: B) -> Self {
        Peek { source, buf: Some(buf), id: None }
    }

    /// Ends the future: the buffer with a copy of what is unread.
    fn finish(&mut self, buf: B) -> ReadReport<B> {
        let fill = Fill::new(buf, usize::MAX);
        let ending = self.source.with_unread(|unread, _| {
            for piece in unread.pieces() {
                if fill.append(piece) < piece.len() {
                    break;
                }
            }
            if fill.received().is_empty() { unread.take_ending() } else { None }
        });
        let (buf, len) = fill.take();
        match ending {
            Some(Err(error)) => Err(BufError::new(error, buf)),
            Some(Ok(())) | None => Ok((len, buf)),
        }
    }
}

/// No part of it is pinned: the bytes of the buffer stay in place when the buffer moves (`IoBuf`).
impl<S: Source, B: IoBufMut> Unpin for Peek<'_, S, B> {}

impl<S: Source, B: IoBufMut> Future for Peek<'_, S, B> {
    type Output = ReadReport<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ReadReport<B>> {
        let this = &mut *self;
        let polled = match &this.buf {
            Some(buf) if buf.len() == buf.capacity() => context::consume_budget(cx).map(|()| {
                let text = "the buffer has no room behind what it holds";
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }),
            _ => poll_unread(this.source, &mut this.id, cx),
        };
        let waited = ready!(polled);
        let buf = this.buf.take().expect("a future is not polled after it was ready");
        Poll::Ready(match waited {
            Ok(()) => this.finish(buf),
            Err(error) => Err(BufError::new(error, buf)),
        })
    }
}

impl<S: Source, B: IoBufMut> Drop for Peek<'_, S, B> {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.source.bottom().stop_waiting_for_arrival(self.id);
        }
    }
}

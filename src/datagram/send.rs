//! The future that sends, and the calls that send without waiting.
//!
//! What is in flight is not here, but in `transmit.rs`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::transmit::{Outcome, QueuedDatagram};
use super::{DatagramAddr, DatagramSocket, Envelope};
use crate::buf::{BufError, IoBuf, Outgoing};
use crate::context;
use crate::driver::error;
use crate::queue::Key;

/// The result of a send: how many bytes went out, and the buffer.
pub(crate) type DatagramSent<B> = Result<(usize, B), BufError<B>>;

/// The future of a send.
pub(crate) struct SendDatagram<'a, A: DatagramAddr, B> {
    socket: &'a Rc<DatagramSocket<A>>,
    state: DatagramSend<A, B>,
}

enum DatagramSend<A, B> {
    /// It was not polled, and nothing has happened.
    Start(B, Envelope<A>),
    /// In the socket's queue.
    Queued(Key),
    /// The result was given.
    Done,
}

/// No part of it is pinned: the bytes of the buffer stay in place when the buffer moves (`IoBuf`).
impl<A: DatagramAddr, B> Unpin for SendDatagram<'_, A, B> {}

impl<A: DatagramAddr, B: IoBuf> SendDatagram<'_, A, B> {
    /// The first poll: queues the buffer, and sends it if nothing is queued before it.
    fn start(
        &mut self,
        buf: B,
        envelope: Envelope<A>,
        cx: &mut Context<'_>,
    ) -> Poll<DatagramSent<B>> {
        let socket = self.socket;
        let check = envelope.check().and_then(|()| context::check_home(&socket.home));
        if let Err(error) = check {
            if context::consume_budget(cx).is_pending() {
                self.state = DatagramSend::Start(buf, envelope);
                return Poll::Pending;
            }
            return Poll::Ready(Err(BufError::new(error, buf)));
        }
        let outgoing = Outgoing::one(buf); // runs foreign code, so no borrow is held
        let (key, is_finished) = socket.departing(|departures, deferred| {
            let key = departures.queue.push(QueuedDatagram::new(outgoing, envelope));
            socket.send_next(departures, deferred);
            (key, departures.is_finished(key))
        });
        self.state = DatagramSend::Queued(key);
        if is_finished {
            ready!(context::consume_budget(cx)); // else it waits in the queue for the next poll
        }
        self.wait(key, cx)
    }

    /// The result of a queued entry. `Pending`: there is none yet, and the end of the entry will wake
    /// the task.
    fn wait(&mut self, key: Key, cx: &mut Context<'_>) -> Poll<DatagramSent<B>> {
        let socket = self.socket;
        if let Some(result) = self.collect(key) {
            self.state = DatagramSend::Done;
            return Poll::Ready(result);
        }
        if socket.departures.borrow().wants(key, cx.waker()) {
            let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
            let set = |departures: &mut super::Departures<A>, deferred: &mut _| {
                departures.set_waker(key, waker, deferred)
            };
            if !socket.departing(set) {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Takes the result of an entry that has ended; `None` while it is under way.
    #[inline]
    fn collect(&self, key: Key) -> Option<DatagramSent<B>> {
        let collected = self.socket.departures.borrow_mut().collect(key)?;
        let cause = match collected.outcome {
            Outcome::Sent => None,
            Outcome::Failed(errno) => Some(error(errno)),
            Outcome::Lost => self.socket.home.check().err().or_else(|| Some(error(libc::EIO))),
        };
        let Some(payload) = collected.payload else {
            let cause = cause.map_or_else(String::new, |cause| cause.to_string());
            panic!("the engine failed with this buffer in flight: {cause}");
        };
        let buf = payload.take();
        Some(match cause {
            Some(cause) if collected.sent == 0 => Err(BufError::new(cause, buf)),
            _ => Ok((collected.sent, buf)),
        })
    }
}

impl<A: DatagramAddr, B: IoBuf> Future for SendDatagram<'_, A, B> {
    type Output = DatagramSent<B>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let key = match std::mem::replace(&mut this.state, DatagramSend::Done) {
            DatagramSend::Start(buf, envelope) => return this.start(buf, envelope, cx),
            DatagramSend::Queued(key) => key,
            DatagramSend::Done => unreachable!("a future is not polled after it was ready"),
        };
        this.state = DatagramSend::Queued(key);
        let socket = this.socket;
        if !socket.departures.borrow().is_finished(key) {
            if let Err(error) = context::check_home(&socket.home) {
                // Home is on this thread, so the buffer can be taken back at once.
                let buf = socket.take_back(key);
                this.state = DatagramSend::Done;
                let buf = buf.unwrap_or_else(|| {
                    panic!("the engine failed with this buffer in flight: {error}")
                });
                return Poll::Ready(Err(BufError::new(error, buf.take())));
            }
        }
        this.wait(key, cx)
    }
}

impl<A: DatagramAddr, B> Drop for SendDatagram<'_, A, B> {
    #[inline]
    fn drop(&mut self) {
        if let DatagramSend::Queued(key) = self.state {
            self.socket.departing(|departures, deferred| departures.abandon(key, deferred));
        }
    }
}

impl<A: DatagramAddr> DatagramSocket<A> {
    /// The future that queues `buf`, at its first poll, behind what is queued already, and waits
    /// until it is out or has failed.
    #[inline]
    pub(crate) fn send<B: IoBuf>(
        self: &Rc<Self>,
        buf: B,
        envelope: Envelope<A>,
    ) -> SendDatagram<'_, A, B> {
        SendDatagram { socket: self, state: DatagramSend::Start(buf, envelope) }
    }

    /// Sends bytes without waiting. `WouldBlock`: the kernel has no room, or other sends come first.
    /// Gives how many bytes went out: all of them, but of several datagrams only those that there
    /// was room for.
    pub(crate) fn try_send(&self, bytes: &[u8], envelope: &Envelope<A>) -> io::Result<usize> {
        envelope.check()?;
        self.home.check()?;
        let departures = &mut *self.departures.borrow_mut();
        if !departures.is_idle() {
            return Err(error(libc::EAGAIN));
        }
        let offload = match envelope.segment_size {
            Some(_) => *departures.offload(self.fd(), self.home.may_divide_datagrams()),
            None => super::transmit::Offload::Absent,
        };
        offload.send_now(self.fd(), bytes, envelope)
    }

    /// Takes an entry out of the queue, away from home: the op in flight with it is cancelled first.
    /// `None`: the engine has failed with the buffer.
    fn take_back(self: &Rc<Self>, key: Key) -> Option<Outgoing> {
        let token = self.departures.borrow_mut().recall(key);
        token.into_iter().for_each(|token| self.home.cancel_and_wait(token));
        self.departing(|departures, deferred| {
            let payload = departures.take_back(key, deferred);
            self.send_next(departures, deferred);
            payload
        })
    }
}

//! The future that sends, and the calls that send without waiting.
//!
//! What is in flight is not here, but in `transmit.rs`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::transmit::{CollectedDatagram, Outcome, QueuedDatagram};
use super::{DatagramAddr, DatagramFamily, DatagramSocket, Envelope};
use crate::buf::{BufError, IoBuf, Outgoing};
use crate::context;
use crate::driver::{self, error, is_retried};
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
    /// The first poll. If nothing is queued, the kernel usually takes the datagram at once. Otherwise
    /// it is queued.
    #[inline]
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
        let (sent, outcome) = socket.attempt(&outgoing, &envelope);
        match outcome {
            Some(outcome) if context::consume_budget(cx).is_ready() => {
                let payload = Some(outgoing);
                Poll::Ready(self.result_of(CollectedDatagram { sent, outcome, payload }))
            }
            outcome => self.queue(QueuedDatagram::new(outgoing, envelope, sent), outcome, cx),
        }
    }

    /// Queues a datagram. `outcome`: it has ended already, and there is no unit of the budget to say
    /// so in this poll.
    #[cold]
    fn queue(
        &mut self,
        datagram: QueuedDatagram<A>,
        outcome: Option<Outcome>,
        cx: &mut Context<'_>,
    ) -> Poll<DatagramSent<B>> {
        let socket = self.socket;
        let (key, is_finished) = socket.departing(|departures, deferred| {
            let key = departures.queue.push(datagram);
            match outcome {
                Some(outcome) => departures.finish(key, outcome, deferred),
                None => socket.send_next(departures, deferred),
            }
            (key, departures.is_finished(key))
        });
        self.state = DatagramSend::Queued(key);
        if outcome.is_some() {
            return Poll::Pending; // the task is woken to be polled again
        }
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
        Some(self.result_of(collected))
    }

    /// What the caller is told of a send that has ended.
    #[inline]
    fn result_of(&self, collected: CollectedDatagram) -> DatagramSent<B> {
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
        match cause {
            Some(cause) if collected.sent == 0 => Err(BufError::new(cause, buf)),
            _ => Ok((collected.sent, buf)),
        }
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
            socket.departing(|departures, deferred| socket.send_next(departures, deferred));
        }
        this.wait(key, cx)
    }
}

impl<A: DatagramAddr, B> Drop for SendDatagram<'_, A, B> {
    #[inline]
    fn drop(&mut self) {
        if let DatagramSend::Queued(key) = self.state {
            let socket = self.socket;
            socket.departing(|departures, deferred| {
                departures.abandon(key, deferred);
                socket.send_next(departures, deferred); // the first in line may be another now
            });
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
        if self.home.is_forked_copy() {
            return Err(driver::forked());
        }
        let departures = &mut *self.departures.borrow_mut();
        if !departures.has_no_line() {
            return Err(error(libc::EAGAIN));
        }
        self.home.count_call();
        let offload = departures.offload_for(envelope, self.fd(), &self.home);
        let result = offload.send_now(self.fd(), bytes, envelope);
        if A::FAMILY == DatagramFamily::Unix {
            departures.room.note_try(&result, envelope.to.is_some());
        }
        result
    }

    /// Tries to send a buffer without waiting, if nothing is queued. Gives how much of it went out,
    /// and how it ended; `None`: it has to be queued.
    #[inline]
    fn attempt(&self, outgoing: &Outgoing, envelope: &Envelope<A>) -> (usize, Option<Outcome>) {
        let bytes = outgoing.as_one(0).expect("a datagram is one piece");
        match self.try_send(bytes, envelope) {
            Ok(sent) if sent == bytes.len() => (sent, Some(Outcome::Sent)),
            Ok(sent) => (sent, None), // the rest meets what has stopped it, and reports it
            Err(error) => match error.raw_os_error() {
                Some(errno) if !is_retried(errno) => (0, Some(Outcome::Failed(errno))),
                _ => (0, None),
            },
        }
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

//! The futures that send: `send`, `send_all`, `sendv`, and `shutdown`.
//!
//! What is in flight is not here, but in `transmit.rs`. Read next: `send_queue/mod.rs`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::Connection;
use super::bottom::Bottom;
use super::layer::Carrier;
use super::transmit::{Answer, Direction, Flight, Share, TransmitSide};
use crate::buf::{BufError, Handed, Outgoing};
use crate::context;
use crate::deferred::Deferred;
use crate::driver::{self, Completion, Medium, Payload, Role, error};
use crate::ops;
use crate::queue::{Key, WaiterId};
use crate::sys::TRANSFER_LEN_MAX;

/// The result of a [`SendBuffer`]: how many bytes went out, why not all, and the buffer.
pub(crate) struct SendReport<B> {
    pub(crate) sent: usize,
    pub(crate) error: Option<io::Error>,
    pub(crate) buf: B,
}

impl<B> SendReport<B> {
    /// An error only if no byte went out.
    #[inline]
    pub(super) fn some_sent(self) -> Result<(usize, B), BufError<B>> {
        match self.error {
            Some(error) if self.sent == 0 => Err(BufError::new(error, self.buf)),
            _ => Ok((self.sent, self.buf)),
        }
    }

    /// An error unless all bytes went out.
    #[inline]
    pub(super) fn all_sent(self) -> Result<B, BufError<B>> {
        match self.error {
            Some(error) => Err(BufError::new(error, self.buf)),
            None => Ok(self.buf),
        }
    }
}

/// The future of `send`, `send_all` and `sendv`.
pub(crate) struct SendBuffer<'a, H, A> {
    connection: &'a Rc<Connection>,
    state: SendState<H>,
    /// Makes the caller's result of the report.
    answer: A,
}

enum SendState<H> {
    /// It was not polled, and nothing has happened.
    Start(H),
    /// In the connection's queue.
    Queued(Key),
    /// The report was given.
    Done,
}

/// No part of it is pinned.
impl<H, A> Unpin for SendBuffer<'_, H, A> {}

impl<'a, H: Handed, A> SendBuffer<'a, H, A> {
    #[inline]
    pub(crate) fn new(connection: &'a Rc<Connection>, handed: H, answer: A) -> Self {
        SendBuffer { connection, state: SendState::Start(handed), answer }
    }

    /// The first poll. A refusal, or an empty buffer, is answered at once. Otherwise the buffer is
    /// attempted, submitted or queued.
    #[inline]
    fn start(&mut self, handed: H, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let connection = self.connection;
        let home = connection.home();
        let len = handed.len();
        let refusal = connection.transmit.borrow().refusal();
        let error = match refusal {
            None if len > 0 => context::check_home(home).err(),
            refusal => refusal,
        };
        if error.is_some() || len == 0 {
            if context::consume_budget(cx).is_pending() {
                self.state = SendState::Start(handed);
                return Poll::Pending;
            }
            return Poll::Ready(SendReport { sent: 0, error, buf: handed.into_buf() });
        }
        // Into a pipe the ring attempts, too: a write(2) that is over costs half of an op.
        let is_attempted = home.attempts_first() || connection.medium == Medium::Pipe;
        if is_attempted { self.start_at_once(handed, cx) } else { self.submit(handed, cx) }
    }

    /// Under epoll, or into a pipe: if nothing is queued, the kernel may take all bytes at once. Then
    /// the buffer stays in the future and does not enter the queue. Otherwise the rest, or the whole
    /// buffer, is queued.
    #[inline]
    fn start_at_once(&mut self, handed: H, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let connection = self.connection;
        // Runs foreign code, so it comes before the look at the queue, and not after the attempt.
        let payload = handed.into_outgoing();
        let refusal = connection.transmit.borrow().refusal();
        if let Some(error) = refusal {
            return Poll::Ready(SendReport { sent: 0, error: Some(error), buf: payload.take() });
        }
        let len = payload.len();
        let is_alone = connection.transmit.borrow().queue.is_idle();
        let (Some(bytes), true) = (payload.as_one(0), is_alone) else {
            return self.queue(payload, None, cx);
        };
        let mut op = ops::send::borrowed(connection.fd(), connection.medium, bytes);
        match connection.home().attempt_now(&mut op) {
            None => {
                let sent = op.sent();
                self.send_rest(payload, sent, cx)
            }
            Some(done) if done.result().is_ok_and(|sent| sent as usize == len) => {
                connection.transmit.borrow_mut().fell_short = false;
                if context::consume_budget(cx).is_ready() {
                    return Poll::Ready(SendReport { sent: len, error: None, buf: payload.take() });
                }
                // The answer waits in the queue for the next poll.
                let queue = &mut connection.transmit.borrow_mut().queue;
                let key = queue.push_finished(len, payload, Answer::Sent);
                self.state = SendState::Queued(key);
                Poll::Pending
            }
            Some(done) => self.queue(payload, Some(done), cx),
        }
    }

    /// The kernel has taken `sent` bytes in an attempt: none on the ring, where a short send is an
    /// answer. An op sends the rest. Nothing else is queued.
    #[cold]
    fn send_rest(
        &mut self,
        payload: Outgoing,
        sent: u32,
        cx: &mut Context<'_>,
    ) -> Poll<SendReport<H::Buf>> {
        let connection = self.connection;
        let all = payload.len();
        let (op, len) = ops::send::rest(connection.fd(), connection.medium, payload, sent);
        let token = connection.home().submit_after_attempt(op, connection.clone(), Role::Send);
        let key = connection.sending(|transmit, _| {
            transmit.flight = Flight::Sending(Share { token, entries: 1, len: len as u32 });
            transmit.queue.push_in_flight(all, None)
        });
        self.wait(key, cx)
    }

    /// Queues a buffer, and waits. `done` is the answer of an attempt with it, if there was one; it
    /// counts as the answer of an op.
    #[cold]
    fn queue(
        &mut self,
        payload: Outgoing,
        done: Option<Completion>,
        cx: &mut Context<'_>,
    ) -> Poll<SendReport<H::Buf>> {
        let connection = self.connection;
        let len = payload.len();
        let (key, has_ended) = connection.sending(|transmit, deferred| match done {
            None => {
                let key = transmit.queue.push(payload, None);
                (key, connection.send_next(transmit, deferred))
            }
            Some(done) => {
                transmit.queue.queue_written();
                let key = transmit.queue.push_in_flight(len, None);
                let part = len.min(TRANSFER_LEN_MAX) as u32;
                let payload = Payload::Outgoing(payload);
                connection.apply_send_result(transmit, 1, part, done, payload, deferred);
                connection.send_next(transmit, deferred);
                (key, true)
            }
        });
        if has_ended && context::consume_budget(cx).is_pending() {
            self.state = SendState::Queued(key);
            return Poll::Pending; // the answer waits in the queue for the next poll
        }
        self.wait(key, cx)
    }

    /// Submits the buffer to the ring if nothing is queued, or else queues it. The result is always
    /// `Pending`.
    #[inline]
    fn submit(&mut self, handed: H, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let (connection, len) = (self.connection, handed.len());
        let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
        let payload = handed.into_outgoing();
        let transmit = &mut *connection.transmit.borrow_mut();
        if let Some(error) = transmit.refusal() {
            // Foreign code has shut down, or made a send fail.
            return Poll::Ready(SendReport { sent: 0, error: Some(error), buf: payload.take() });
        }
        let key = if transmit.flight == Flight::Idle && transmit.queue.is_idle() {
            transmit.flight = Flight::Sending(connection.submit_to_ring(payload));
            transmit.queue.push_in_flight(len, Some(waker))
        } else {
            let key = transmit.queue.push(payload, Some(waker));
            connection.send_next_on_ring(transmit);
            key
        };
        self.state = SendState::Queued(key);
        Poll::Pending
    }

    /// The report of a queued entry. `Pending`: there is none yet, and the end of the entry will
    /// wake the task.
    fn wait(&mut self, key: Key, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        if let Some(report) = self.collect(key) {
            return Poll::Ready(report);
        }
        self.state = SendState::Queued(key);
        self.connection.wait_for_entry(key, cx);
        Poll::Pending
    }

    /// Removes the entry `key` and gives its report, if it is finished; `None`, and no change,
    /// while it is still under way.
    #[inline]
    fn collect(&self, key: Key) -> Option<SendReport<H::Buf>> {
        let (sent, answer, buf) = self.connection.collect(key)?;
        Some(SendReport { sent, error: self.connection.error_of(answer), buf })
    }

    /// One poll of the future, without its `answer`. Away from home, a buffer that is queued is
    /// taken back and reported with an error.
    #[inline]
    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let key = match std::mem::replace(&mut self.state, SendState::Done) {
            SendState::Start(handed) => return self.start(handed, cx),
            SendState::Queued(key) => key,
            SendState::Done => unreachable!("a future is not polled after it was ready"),
        };
        if let Some(report) = self.collect(key) {
            return Poll::Ready(report);
        }
        if let Err(error) = context::check_home(self.connection.home()) {
            let buf = self.connection.take_back(key).take();
            return Poll::Ready(SendReport { sent: 0, error: Some(error), buf });
        }
        self.wait(key, cx)
    }
}

impl<H: Handed, T, A: Fn(SendReport<H::Buf>) -> T> Future for SendBuffer<'_, H, A> {
    type Output = T;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let report = ready!(self.poll_report(cx));
        Poll::Ready((self.answer)(report))
    }
}

impl<H, A> Drop for SendBuffer<'_, H, A> {
    #[inline]
    fn drop(&mut self) {
        if let SendState::Queued(key) = self.state {
            self.connection.sending(|transmit, deferred| _ = transmit.queue.abandon(key, deferred));
        }
    }
}

impl Connection {
    /// The end of an entry that is under way will wake the task of `cx`. If the entry has just
    /// ended, this wakes it.
    pub(super) fn wait_for_entry(&self, key: Key, cx: &mut Context<'_>) {
        if !self.transmit.borrow().queue.wants(key, cx.waker()) {
            return;
        }
        let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
        let is_late = self.sending(|transmit, deferred| {
            transmit.queue.set_waker(key, waker, deferred);
            transmit.queue.is_finished(key)
        });
        if is_late {
            cx.waker().wake_by_ref();
        }
    }

    /// As [`send_next`](Self::send_next), for the ring, which answers later.
    fn send_next_on_ring(self: &Rc<Self>, transmit: &mut TransmitSide) {
        let mut deferred = Deferred::default();
        let has_ended = self.send_next(transmit, &mut deferred);
        debug_assert!(!has_ended && deferred.is_empty(), "the ring answers later");
    }

    /// Asks for the shutdown, and gives its result if it is known. `Err`: a send or shutdown(2) has
    /// failed, or the caller is away from home. `Pending`: the caller waits with
    /// [`wait_for_progress`](Bottom::wait_for_progress), and calls this again.
    pub(super) fn try_shutdown(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (direction, is_idle) = {
            let transmit = self.transmit.borrow();
            (transmit.direction, transmit.queue.is_idle())
        };
        if self.home.is_forked_copy() {
            return context::consume_budget(cx).map(|()| Err(driver::forked()));
        }
        let done = match direction {
            Direction::Failed(errno) => Some(Err(errno)),
            Direction::ShutDown(done) => Some(done),
            Direction::Open | Direction::ShutdownAsked | Direction::Lost => None,
        };
        if let Some(done) = done {
            return context::consume_budget(cx).map(|()| done.map_err(error));
        }
        if !is_idle || direction == Direction::Lost {
            ready!(context::poll_home(&self.home, cx))?;
        }
        if self.is_shared_by_others() {
            return if is_idle { context::consume_budget(cx).map(Ok) } else { Poll::Pending };
        }
        self.ask_shutdown();
        match self.transmit.borrow().direction {
            Direction::ShutDown(done) => Poll::Ready(done.map_err(error)),
            Direction::Failed(errno) => Poll::Ready(Err(error(errno))),
            Direction::Open | Direction::ShutdownAsked | Direction::Lost => Poll::Pending,
        }
    }
}

/// The future of `shutdown`.
pub(crate) struct Shutdown<'a, C: Carrier> {
    carrier: &'a Rc<C>,
    id: Option<WaiterId>,
}

impl<'a, C: Carrier> Shutdown<'a, C> {
    pub(crate) fn new(carrier: &'a Rc<C>) -> Self {
        Shutdown { carrier, id: None }
    }
}

impl<C: Carrier> Future for Shutdown<'_, C> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.carrier.poll_shutdown(&mut this.id, cx)
    }
}

impl<C: Carrier> Drop for Shutdown<'_, C> {
    fn drop(&mut self) {
        self.carrier.bottom().stop_waiting_for_progress(self.id);
    }
}

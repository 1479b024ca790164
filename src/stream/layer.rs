//! What a layer such as TLS needs of the stream that carries it, and the futures that send through a
//! layer. A layer has bytes that must not be lost when a future is dropped.
//!
//! A layer is such a stream too, so layers can be stacked. The calls that connections have for users
//! are not here, but in `read.rs` and `send.rs`. Read next: `tls/session.rs`.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::Connection;
use super::bottom::Bottom;
use super::read::{RecvChunk, Source};
use super::send::{SendReport, Shutdown};
use super::send_queue::Fate;
use super::unread::Arrival;
use crate::buf::{BufError, IoBuf, Outgoing};
use crate::context;
use crate::driver::{self, Driver, error};
use crate::queue::{Key, WaiterId};

/// The place of a queued buffer: the queue of the carrier that has so many carriers below it, and the
/// key there. A buffer that a layer has encrypted goes on as an entry of the queue below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) depth: u32,
    pub(crate) key: Key,
}

/// A queued buffer, as its future knows it.
pub(crate) struct QueuedSend {
    pub(crate) ticket: Ticket,
    /// It is here again when a layer has encrypted it, or when it is out.
    pub(crate) payload: Option<Outgoing>,
}

/// What has become of a queued buffer.
pub(crate) enum QueuedOutcome {
    /// So many bytes are out. The error says why not all. The ticket is used up.
    Over { sent: usize, error: Option<io::Error> },
    /// The caller is away from home. The ticket is still good: the caller takes the buffer back, or
    /// abandons it.
    Away(io::Error),
}

/// The future of [`Carrier::drain_bottom`].
pub(crate) type Drained<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

/// A stream that can carry a layer: bytes in both directions, in the background and in order.
pub(crate) trait Carrier: Source + Sized {
    /// The driver of its ops. `None`: it has none, and works under every executor.
    fn driver(&self) -> Option<&Rc<Driver>>;

    /// How many carriers are below.
    fn depth(&self) -> u32;

    /// Checks that bytes can be queued: this is at home, was not shut down, and has not failed.
    fn check_sendable(&self) -> io::Result<()>;

    /// Checks that what is queued still goes out: sending has not failed, and the caller is at home.
    fn check_going_out(&self) -> io::Result<()>;

    /// How many queued bytes are not out yet. Those of the op in flight count until it ends.
    fn unsent(&self) -> usize;

    /// Queues a buffer that is not empty, and wakes `waker`, if there is one, when it is out or has
    /// failed. The caller has asked [`check_sendable`](Self::check_sendable). It gives the ticket to
    /// [`poll_sent`](Self::poll_sent), [`take_back`](Self::take_back) or
    /// [`abandon`](Self::abandon) in the end.
    fn queue(self: &Rc<Self>, payload: Outgoing, waker: Option<Waker>, fate: Fate) -> Ticket;

    /// Queues bytes that no future waits for. They go out whole and in order. The caller has asked
    /// [`check_sendable`](Self::check_sendable). Empty `bytes` do nothing.
    fn queue_detached(self: &Rc<Self>, bytes: Vec<u8>);

    /// Waits until the buffer is out.
    fn poll_sent(
        self: &Rc<Self>,
        send: &mut QueuedSend,
        cx: &mut Context<'_>,
    ) -> Poll<QueuedOutcome>;

    /// Takes a buffer back that is still queued here. What was seen of it is followed by a copy of
    /// the rest.
    fn take_back(self: &Rc<Self>, key: Key) -> Outgoing;

    /// No future waits for the buffer any more. It goes out if its fate says so, or if a part of it
    /// was seen.
    fn abandon(self: &Rc<Self>, ticket: Ticket);

    /// Ends sending behind everything that is queued. No future waits for it.
    fn ask_shutdown(self: &Rc<Self>);

    /// Ends sending behind everything that is queued, and waits for it. `id`: as in
    /// [`Bottom::wait_for_progress`].
    fn poll_shutdown(
        self: &Rc<Self>,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>;

    /// Discards what comes at the bottom, until it ends, at most `max` bytes.
    fn drain_bottom(self: &Rc<Self>, max: usize) -> Drained<'_>;

    /// Takes one piece of the unread bytes, or the end, without waiting. `None`: more can come.
    fn try_take(self: &Rc<Self>) -> Option<Arrival> {
        let arrival = self.with_unread(|unread, deferred| unread.take_arrival(deferred));
        if matches!(arrival, Some(Arrival::Bytes(_))) {
            self.bytes_were_taken();
        }
        arrival
    }

    /// The future that sends a buffer. It is an error only if no byte went out.
    fn send_some<B: IoBuf>(
        self: &Rc<Self>,
        buf: B,
    ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        LayeredSend::new(self, Outgoing::one(buf), SendReport::some_sent)
    }

    /// The future that sends a buffer. It is an error unless all bytes went out.
    fn send_all<B: IoBuf>(self: &Rc<Self>, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        LayeredSend::new(self, Outgoing::one(buf), SendReport::all_sent)
    }

    /// The future that sends several buffers. It is an error only if no byte went out.
    fn sendv<B: IoBuf>(
        self: &Rc<Self>,
        bufs: Vec<B>,
    ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
        LayeredSend::new(self, Outgoing::many(bufs), SendReport::some_sent)
    }

    /// The future that ends sending, and waits for it.
    fn shutdown(self: &Rc<Self>) -> Shutdown<'_, Self> {
        Shutdown::new(self)
    }

    /// `Ready(Ok)` when at most `max` bytes are unsent; `Ready(Err)` if sending has failed, or away
    /// from home, where nothing goes out. `Pending`: the task is woken when bytes have gone out.
    /// `id`: as in [`Bottom::wait_for_progress`].
    fn poll_unsent(
        &self,
        max: usize,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_going_out()?;
        if self.unsent() <= max {
            return Poll::Ready(Ok(()));
        }
        self.bottom().wait_for_progress(id, cx);
        Poll::Pending
    }
}

/// A handle over a carrier: what TLS can run over.
pub(crate) trait Carried: 'static {
    type Carrier: Carrier;

    fn carrier(&self) -> &Rc<Self::Carrier>;
}

impl Connection {
    /// Checks that the runtime of this connection turns on this thread and takes ops; `Err` says
    /// why not. In a forked copy the answer is an error too: destructors call this, and there they
    /// must only close (SY2).
    pub(crate) fn check_home(&self) -> io::Result<()> {
        check_home(&self.home)
    }
}

/// As [`Connection::check_home`], for every object of a driver.
pub(crate) fn check_home(home: &Rc<Driver>) -> io::Result<()> {
    if home.is_forked_copy() {
        return Err(driver::forked());
    }
    context::check_home(home)
}

impl Carrier for Connection {
    fn driver(&self) -> Option<&Rc<Driver>> {
        Some(&self.home)
    }

    fn depth(&self) -> u32 {
        0
    }

    fn check_sendable(&self) -> io::Result<()> {
        match self.transmit.borrow().refusal() {
            Some(error) => Err(error),
            None => self.check_home(),
        }
    }

    fn check_going_out(&self) -> io::Result<()> {
        context::check_home(&self.home)?;
        self.transmit.borrow().errno().map_or(Ok(()), |errno| Err(error(errno)))
    }

    fn unsent(&self) -> usize {
        self.transmit.borrow().queue.unsent()
    }

    fn queue(self: &Rc<Self>, payload: Outgoing, waker: Option<Waker>, fate: Fate) -> Ticket {
        let key = self.sending(|transmit, deferred| {
            let key = transmit.queue.push_as(payload, waker, fate);
            self.send_next(transmit, deferred);
            key
        });
        Ticket { depth: 0, key }
    }

    fn queue_detached(self: &Rc<Self>, bytes: Vec<u8>) {
        self.sending(|transmit, deferred| {
            transmit.queue.push_detached(bytes);
            self.send_next(transmit, deferred);
        });
    }

    fn poll_sent(
        self: &Rc<Self>,
        send: &mut QueuedSend,
        cx: &mut Context<'_>,
    ) -> Poll<QueuedOutcome> {
        let key = send.ticket.key;
        let collected = self.transmit.borrow_mut().queue.collect(key);
        if let Some(collected) = collected {
            send.payload = collected.payload;
            let error = self.error_of(collected.answer);
            return Poll::Ready(QueuedOutcome::Over { sent: collected.sent, error });
        }
        if let Err(error) = context::check_home(&self.home) {
            return Poll::Ready(QueuedOutcome::Away(error));
        }
        self.wait_for_entry(key, cx);
        Poll::Pending
    }

    fn take_back(self: &Rc<Self>, key: Key) -> Outgoing {
        Connection::take_back(self, key)
    }

    fn abandon(self: &Rc<Self>, ticket: Ticket) {
        self.sending(|transmit, deferred| _ = transmit.queue.abandon(ticket.key, deferred));
    }

    fn ask_shutdown(self: &Rc<Self>) {
        Connection::ask_shutdown(self);
    }

    fn poll_shutdown(
        self: &Rc<Self>,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let done = self.try_shutdown(cx);
        if done.is_pending() {
            self.wait_for_progress(id, cx);
        }
        done
    }

    fn drain_bottom(self: &Rc<Self>, max: usize) -> Drained<'_> {
        Box::pin(drain(self, max))
    }
}

/// Receives until the peer has finished, and discards the bytes. `Ok` also if more than `max` bytes
/// came: then the peer has not finished.
pub(crate) async fn drain<S: Source>(source: &Rc<S>, max: usize) -> io::Result<()> {
    let mut len = 0;
    while let Some(chunk) = RecvChunk::new(source).await? {
        len += chunk.len();
        if len > max {
            break;
        }
    }
    Ok(())
}

/// The future of `send`, `send_all` and `sendv` through a carrier that is no connection. `B` is the
/// type that the call was given.
pub(crate) struct LayeredSend<'a, C: Carrier, B, A> {
    carrier: &'a Rc<C>,
    state: LayeredState,
    /// Makes the caller's result of the report.
    answer: A,
    buf: PhantomData<B>,
}

enum LayeredState {
    /// It was not polled, and nothing has happened.
    Start(Outgoing),
    Queued(QueuedSend),
    Done,
}

/// No part of it is pinned.
impl<C: Carrier, B, A> Unpin for LayeredSend<'_, C, B, A> {}

impl<'a, C: Carrier, B: 'static, A> LayeredSend<'a, C, B, A> {
    fn new(carrier: &'a Rc<C>, outgoing: Outgoing, answer: A) -> Self {
        LayeredSend { carrier, state: LayeredState::Start(outgoing), answer, buf: PhantomData }
    }

    /// The first poll: queues the buffer. A refusal, or an empty buffer, is answered at once.
    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Option<SendReport<B>>> {
        if !matches!(self.state, LayeredState::Start(_)) {
            return Poll::Ready(None);
        }
        ready!(context::consume_budget(cx));
        let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
        let LayeredState::Start(payload) = std::mem::replace(&mut self.state, LayeredState::Done)
        else {
            unreachable!("just looked");
        };
        let error = self.carrier.check_sendable().err();
        if error.is_some() || payload.len() == 0 {
            return Poll::Ready(Some(SendReport { sent: 0, error, buf: payload.take() }));
        }
        let ticket = self.carrier.queue(payload, Some(waker), Fate::Withdrawable);
        self.state = LayeredState::Queued(QueuedSend { ticket, payload: None });
        Poll::Ready(None)
    }

    /// One poll of the future, without its `answer`. Away from home, a buffer that is queued is taken
    /// back and reported with an error.
    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<SendReport<B>> {
        if let Some(report) = ready!(self.start(cx)) {
            return Poll::Ready(report);
        }
        let LayeredState::Queued(send) = &mut self.state else {
            unreachable!("a future is not polled after it was ready");
        };
        let outcome = ready!(self.carrier.poll_sent(send, cx));
        let (sent, error) = match outcome {
            QueuedOutcome::Over { sent, error } => (sent, error),
            QueuedOutcome::Away(error) => {
                ready!(context::consume_budget(cx));
                match send.payload {
                    Some(_) => self.carrier.abandon(send.ticket),
                    None => send.payload = Some(self.carrier.take_back(send.ticket.key)),
                }
                (0, Some(error))
            }
        };
        let Some(payload) = send.payload.take() else { buffer_is_lost(error) };
        self.state = LayeredState::Done;
        Poll::Ready(SendReport { sent, error, buf: payload.take() })
    }
}

/// Panics, since a future cannot give its buffer back.
#[cold]
pub(super) fn buffer_is_lost(error: Option<io::Error>) -> ! {
    let error = error.map_or_else(String::new, |error| error.to_string());
    panic!("the engine failed with this buffer in flight: {error}");
}

impl<C: Carrier, B: 'static, T, A: Fn(SendReport<B>) -> T> Future for LayeredSend<'_, C, B, A> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let report = ready!(self.poll_report(cx));
        Poll::Ready((self.answer)(report))
    }
}

impl<C: Carrier, B, A> Drop for LayeredSend<'_, C, B, A> {
    fn drop(&mut self) {
        if let LayeredState::Queued(send) = &self.state {
            self.carrier.abandon(send.ticket);
        }
    }
}

//! Sending through TLS. Whole buffers wait here until TCP has room, and are then encrypted.
//!
//! The first poll of a send encrypts what there is room for. One task, the [`Pump`], encrypts the
//! rest as TCP sends ciphertext. So a send goes on when its future is dropped or forgotten. The
//! future waits for the last ciphertext of its buffer, which is a send of TCP's. It is woken once,
//! when the kernel has all of it.
//!
//! "TCP" stands for the stream below here, whatever it is.
//!
//! Receiving is not here, but in `session.rs`. Read next: `stream/send_queue/mod.rs`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::thread;

use super::protocol::{BATCH_LEN, Protocol};
use super::session::Session;
use crate::buf::Outgoing;
use crate::context;
use crate::deferred::Deferred;
use crate::driver::Driver;
use crate::executor::AbortHandle;
use crate::io::Duplex;
use crate::queue::{Key, WaiterId};
use crate::stream::{
    Abandoned, Bottom, Carrier, Drained, Fate, QueuedOutcome, QueuedSend, SendQueue, Source,
    Ticket, check_home,
};

/// While TCP has more unsent ciphertext than this, nothing is encrypted. One batch is in flight,
/// and one is ready to follow it.
const AHEAD_LEN: usize = BATCH_LEN + BATCH_LEN / 16;

/// How many batches are encrypted without a pause. If TCP does not send at once, this is as much as
/// it has room for. If it does, other tasks need their turn.
const BATCHES: usize = 4;

/// The sending side of a session.
pub(super) struct Outbound {
    /// In this queue, "sent" means encrypted.
    queue: SendQueue<Encrypted>,
    close_notify: CloseNotify,
    pump: Option<AbortHandle>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CloseNotify {
    /// More can be sent.
    Unasked,
    /// It will be sent when everything is encrypted.
    Asked,
    /// TCP was asked to shut down after it, or without it if it could not be sent.
    Sent,
}

/// What the future of a buffer is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Encrypted {
    /// All of it was encrypted. The ticket is that of its last bytes, below. There is none if no
    /// future was there to wait for it.
    Whole(Option<Ticket>),
    /// The rest of it will not be encrypted.
    Failed,
}

impl Default for Outbound {
    fn default() -> Outbound {
        Outbound { queue: SendQueue::default(), close_notify: CloseNotify::Unasked, pump: None }
    }
}

impl<S: Duplex> Session<S> {
    /// Runs `change` on the sending side, under its borrow. What `change` puts into the `Deferred`
    /// is woken and dropped when the borrow has ended, since it may call back into this object.
    fn sending<T>(&self, change: impl FnOnce(&mut Outbound, &mut Deferred) -> T) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.outbound.borrow_mut(), &mut deferred);
        self.home().run_deferred(deferred);
        result
    }

    /// The error of a send, if nothing can be queued: after a close was asked for, or as
    /// [`cannot_encrypt`](Self::cannot_encrypt) says.
    pub(super) fn refusal(&self) -> Option<io::Error> {
        if self.outbound.borrow().close_notify != CloseNotify::Unasked {
            return Some(io::Error::from_raw_os_error(libc::EPIPE));
        }
        self.cannot_encrypt()
    }

    /// The error of TLS or TCP, if what is queued cannot be sent any more.
    pub(super) fn cannot_encrypt(&self) -> Option<io::Error> {
        self.tls_failure().or_else(|| self.below().check_sendable().err())
    }

    /// Fails every send that waits here. If a part of one is being encrypted, this does nothing:
    /// that encryption fails them when its payload is back.
    pub(super) fn fail_queue(&self) {
        self.sending(|outbound, deferred| {
            if !outbound.queue.is_first_being_sent() {
                outbound.queue.finish_all(deferred, || Encrypted::Failed);
            }
        });
        self.bottom().wake_senders();
    }

    /// Whether TCP has so little unsent ciphertext that a batch may be encrypted.
    pub(super) fn has_room(&self) -> bool {
        self.below().unsent() <= AHEAD_LEN
    }

    /// Whether the close is done: `close_notify` was sent if that was possible, and TCP was asked
    /// to shut down.
    pub(super) fn has_closed(&self) -> bool {
        self.outbound.borrow().close_notify == CloseNotify::Sent
    }

    // ---- ciphertext -------------------------------------------------------------------------

    /// Takes the ciphertext that the protocol has for the peer. It is empty if there is none, while
    /// the protocol is at work, and after a panic. The caller gives it to TCP, or it is lost.
    fn take_ciphertext(&self) -> Vec<u8> {
        self.with_protocol(
            |protocol| if protocol.has_out() { protocol.take_out() } else { Vec::new() },
        )
        .unwrap_or_default()
    }

    /// Gives TCP the ciphertext that the protocol has. Away from home the ciphertext stays until
    /// the next call. After TCP's end it is dropped.
    pub(super) fn flush(&self) {
        if !self.is_home() {
            return;
        }
        let ciphertext = self.take_ciphertext();
        if !ciphertext.is_empty() && self.below().check_sendable().is_ok() {
            self.below().queue_detached(ciphertext);
        }
    }

    /// Changes the keys for all that is sent from now on. `Err`: that was not possible.
    pub(super) fn refresh_keys(&self) -> io::Result<()> {
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let is_done = self.with_protocol(Protocol::refresh_keys) == Some(true);
        self.flush();
        match is_done {
            true => Ok(()),
            false => Err(self.refusal().unwrap_or_else(|| {
                io::Error::new(io::ErrorKind::Unsupported, "TLS 1.2 cannot change its keys")
            })),
        }
    }

    // ---- the queue --------------------------------------------------------------------------

    /// Encrypts buffers that wait, as far as TCP has room, with a limit so that other tasks get
    /// their turn. Closes if that was asked for. True: nothing waits. False: something may wait, so
    /// the caller starts the pump, or goes on later; away from home nothing was done.
    pub(super) fn drive(&self) -> bool {
        if !self.is_home() {
            return false;
        }
        for _ in 0..BATCHES {
            if self.outbound.borrow().queue.is_idle() {
                self.close_if_asked();
                return true;
            }
            if self.cannot_encrypt().is_some() {
                self.fail_queue();
                continue;
            }
            if !self.has_room() {
                return false;
            }
            let first = self.sending(|outbound, _| outbound.queue.take_first());
            // `None`: a part of it is being encrypted now, and foreign code in that has called
            // this.
            let Some((payload, offset)) = first else { return false };
            self.encrypt_batch(payload, offset);
        }
        false
    }

    /// Encrypts one batch of `payload`, from `offset` on, and gives the ciphertext to TCP.
    /// `payload` was taken from the first entry in line, and is put back there in each case. The
    /// entry is finished when its last byte is encrypted; if TLS or TCP refuses, it has failed.
    fn encrypt_batch(&self, payload: Outgoing, offset: usize) {
        let all = payload.len();
        let taken =
            Taken { session: self, payload: Some(payload), was_panicking: thread::panicking() };
        let len = taken.payload.as_ref().and_then(|payload| {
            with_batch(payload, offset, |bytes| {
                let is_encrypted =
                    self.with_protocol(|protocol| protocol.write(bytes)) == Some(true);
                is_encrypted.then_some(bytes.len())
            })
        });
        let ciphertext = self.take_ciphertext();
        let is_whole = self.send_ciphertext(ciphertext, len.is_some_and(|len| offset + len == all));
        drop(taken); // the queue has its payload back
        self.sending(|outbound, deferred| match (len, is_whole) {
            (Some(len), Ok(key)) => {
                outbound.queue.advance(1, len, deferred, || Encrypted::Whole(key));
            }
            _ => outbound.queue.finish_first(1, deferred, || Encrypted::Failed),
        });
    }

    /// Sends ciphertext of the first buffer in line. `is_last`: it is the last of that buffer; if a
    /// future waits for the buffer, this gives the ticket of the entry below, which now wakes the
    /// future. `Ok(None)`: the ciphertext is queued below, and no future waits for it. `Err`: it was
    /// refused.
    fn send_ciphertext(&self, ciphertext: Vec<u8>, is_last: bool) -> io::Result<Option<Ticket>> {
        let below = self.below();
        below.check_sendable()?;
        let waker = {
            let queue = &mut self.outbound.borrow_mut().queue;
            let is_awaited = is_last && !ciphertext.is_empty() && queue.first_is_live();
            is_awaited.then(|| queue.take_first_waker())
        };
        Ok(match waker {
            Some(waker) => Some(below.queue(Outgoing::one(ciphertext), waker, Fate::Committed)),
            None => {
                below.queue_detached(ciphertext);
                None
            }
        })
    }

    /// Waits until TCP has room, and takes a unit of this task's budget. `Err`: TCP has failed, or
    /// this is away from home. `waiter`: as in `Connection::wait_for_progress`.
    fn poll_room(
        &self,
        waiter: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let room = ready!(self.below().poll_unsent(AHEAD_LEN, waiter, cx));
        context::consume_budget(cx).map(|()| room)
    }

    /// Encrypts what TCP has room for, lets the pump do the rest, and waits until all is done.
    /// Buffers that have failed do not wait, so `Err` says only that the caller is away from home.
    /// `waiter`: as in `Connection::wait_for_progress`.
    pub(super) fn poll_drive(
        self: &Rc<Self>,
        waiter: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.drive() {
            return Poll::Ready(Ok(()));
        }
        if let Err(error) = check_home(self.home()) {
            return context::consume_budget(cx).map(|()| Err(error));
        }
        self.start_pump();
        self.bottom().wait_for_progress(waiter, cx);
        Poll::Pending
    }

    // ---- closing ----------------------------------------------------------------------------

    /// Sends `close_notify` when everything is encrypted, and then shuts TCP down. No future waits
    /// for it.
    pub(super) fn close_in_background(self: &Rc<Self>) {
        self.sending(|outbound, _| {
            if outbound.close_notify == CloseNotify::Unasked {
                outbound.close_notify = CloseNotify::Asked;
            }
        });
        if !self.is_home() {
            // `close_notify` cannot be sent away from home, so the peer sees a truncation.
            self.below().ask_shutdown();
        } else if !self.drive() {
            self.start_pump();
        }
    }

    /// If the close was asked for and not done yet: sends `close_notify`, as far as that is
    /// possible, and asks TCP to shut down. No buffer may wait.
    fn close_if_asked(&self) {
        if self.outbound.borrow().close_notify != CloseNotify::Asked {
            return;
        }
        let below = self.below();
        if below.check_sendable().is_ok() {
            self.with_protocol(Protocol::close);
            self.flush();
        }
        self.outbound.borrow_mut().close_notify = CloseNotify::Sent;
        below.ask_shutdown();
    }

    /// Asks for the close, and waits until `close_notify` was sent. `Ok`: the caller then waits for
    /// TCP's shutdown, which tells whether TCP has failed. `Err`: TLS has failed, and TCP was asked
    /// to shut down; or the caller is away from home. If the caller is dropped, `close_notify` is
    /// still sent.
    pub(super) fn poll_close_notify(
        self: &Rc<Self>,
        waiter: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.has_closed() {
            if let Err(error) = check_home(self.home()) {
                return context::consume_budget(cx).map(|()| Err(error));
            }
            self.close_in_background();
        }
        ready!(self.poll_drive(waiter, cx))?;
        if let Some(failure) = self.tls_failure() {
            // TLS cannot send `close_notify`, so only TCP shows the end.
            self.below().ask_shutdown();
            return context::consume_budget(cx).map(|()| Err(failure));
        }
        Poll::Ready(Ok(()))
    }

    // ---- the pump ---------------------------------------------------------------------------

    /// Starts the task that encrypts what waits. It does nothing if the task runs already, or away
    /// from home.
    fn start_pump(self: &Rc<Self>) {
        if self.outbound.borrow().pump.is_some() || !self.is_home() {
            return;
        }
        let Some(handle) = context::handle_of(self.home()) else { return };
        let pump = Pump { session: Rc::downgrade(self), waiter: None };
        let task = handle.executor.spawn(pump).abort_handle();
        self.outbound.borrow_mut().pump = Some(task);
    }
}

/// Encrypts what waits when TCP has room. It ends when nothing waits, or with its session.
struct Pump<S: Duplex> {
    session: Weak<Session<S>>,
    waiter: Option<WaiterId>,
}

/// No part of it is pinned.
impl<S: Duplex> Unpin for Pump<S> {}

impl<S: Duplex> Future for Pump<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(session) = self.session.upgrade() else { return Poll::Ready(()) };
        if !session.drive() {
            match ready!(session.poll_room(&mut self.waiter, cx)) {
                Ok(()) => {
                    cx.waker().wake_by_ref(); // there is room for more; other tasks come first
                    return Poll::Pending;
                }
                Err(_) => session.fail_queue(),
            }
        }
        session.outbound.borrow_mut().pump = None;
        Poll::Ready(())
    }
}

impl<S: Duplex> Drop for Pump<S> {
    fn drop(&mut self) {
        if let Some(session) = self.session.upgrade() {
            session.bottom().stop_waiting_for_progress(self.waiter);
        }
    }
}

impl<S: Duplex> Drop for Session<S> {
    fn drop(&mut self) {
        if let Some(pump) = &self.outbound.get_mut().pump {
            pump.abort();
        }
    }
}

/// The payload of the first buffer in line. Its drop puts it back into the queue, also when a panic
/// unwinds.
struct Taken<'a, S: Duplex> {
    session: &'a Session<S>,
    payload: Option<Outgoing>,
    /// The thread was unwinding already: what is encrypted in a destructor is encrypted as ever.
    was_panicking: bool,
}

impl<S: Duplex> Drop for Taken<'_, S> {
    fn drop(&mut self) {
        let payload = self.payload.take();
        self.session.sending(|outbound, _| outbound.queue.give_back(payload));
        if thread::panicking() && !self.was_panicking {
            self.session.fail_queue();
        }
    }
}

/// Gives `run` the next batch of a buffer, from `offset` on, as one slice of at most [`BATCH_LEN`].
fn with_batch<T>(payload: &Outgoing, offset: usize, run: impl FnOnce(&[u8]) -> T) -> T {
    if let Some(bytes) = payload.as_one(offset) {
        return run(&bytes[..bytes.len().min(BATCH_LEN)]);
    }
    run(&payload.copy(offset, BATCH_LEN)) // many small pieces become few records
}

impl<S: Duplex> Carrier for Session<S> {
    fn driver(&self) -> Option<&Rc<Driver>> {
        Some(self.home())
    }

    #[inline]
    fn depth(&self) -> u32 {
        self.below().depth() + 1
    }

    fn check_sendable(&self) -> io::Result<()> {
        match self.refusal() {
            Some(error) => Err(error),
            None => check_home(self.home()),
        }
    }

    fn check_going_out(&self) -> io::Result<()> {
        self.tls_failure().map_or_else(|| self.below().check_going_out(), Err)
    }

    fn unsent(&self) -> usize {
        self.outbound.borrow().queue.unsent() + self.below().unsent()
    }

    fn queue(self: &Rc<Self>, payload: Outgoing, waker: Option<Waker>, fate: Fate) -> Ticket {
        let key = self.sending(|outbound, _| outbound.queue.push_as(payload, waker, fate));
        self.go_on();
        Ticket { depth: self.depth(), key }
    }

    fn queue_detached(self: &Rc<Self>, bytes: Vec<u8>) {
        self.sending(|outbound, _| outbound.queue.push_detached(bytes));
        self.go_on();
    }

    /// Waits until the buffer is encrypted, and then for its last ciphertext. After a failure, it is
    /// unknown how much of the buffer the peer can read, so the outcome says 0 bytes.
    fn poll_sent(
        self: &Rc<Self>,
        send: &mut QueuedSend,
        cx: &mut Context<'_>,
    ) -> Poll<QueuedOutcome> {
        if send.ticket.depth == self.depth() {
            if let Some(outcome) = ready!(self.poll_encrypted(send, cx)) {
                return Poll::Ready(outcome);
            }
        }
        let mut ciphertext = QueuedSend { ticket: send.ticket, payload: None };
        let outcome = self.below().poll_sent(&mut ciphertext, cx);
        send.ticket = ciphertext.ticket;
        Poll::Ready(match ready!(outcome) {
            QueuedOutcome::Over { error: None, .. } => whole(&send.payload),
            QueuedOutcome::Over { error, .. } => QueuedOutcome::Over { sent: 0, error },
            away => away,
        })
    }

    fn take_back(self: &Rc<Self>, key: Key) -> Outgoing {
        let payload = self.sending(|outbound, deferred| outbound.queue.take_back(key, deferred));
        payload.expect("an entry stays until it is collected")
    }

    fn abandon(self: &Rc<Self>, ticket: Ticket) {
        if ticket.depth < self.depth() {
            return self.below().abandon(ticket);
        }
        let key = ticket.key;
        let abandoned = self.sending(|outbound, deferred| outbound.queue.abandon(key, deferred));
        match abandoned {
            Abandoned::Committed => self.start_pump(),
            Abandoned::Removed(Some(Encrypted::Whole(Some(ticket)))) => {
                self.below().abandon(ticket);
            }
            Abandoned::Removed(_) => {}
        }
    }

    fn ask_shutdown(self: &Rc<Self>) {
        self.close_in_background();
    }

    /// Sends `close_notify` after everything that is queued, then ends sending below, and waits for
    /// both.
    fn poll_shutdown(
        self: &Rc<Self>,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_close_notify(id, cx))?;
        self.below().poll_shutdown(id, cx)
    }

    fn drain_bottom(self: &Rc<Self>, max: usize) -> Drained<'_> {
        self.below().drain_bottom(max)
    }
}

/// All of the buffer is out.
fn whole(payload: &Option<Outgoing>) -> QueuedOutcome {
    QueuedOutcome::Over { sent: payload.as_ref().map_or(0, Outgoing::len), error: None }
}

impl<S: Duplex> Session<S> {
    /// Something was queued: encrypts what there is room for, and lets the pump do the rest.
    fn go_on(self: &Rc<Self>) {
        if !self.drive() {
            self.start_pump();
        }
    }

    /// Waits until the buffer is encrypted. `None`: the ticket is that of its last ciphertext now.
    fn poll_encrypted(
        &self,
        send: &mut QueuedSend,
        cx: &mut Context<'_>,
    ) -> Poll<Option<QueuedOutcome>> {
        let key = send.ticket.key;
        let collected = self.sending(|outbound, _| outbound.queue.collect(key));
        if let Some(collected) = collected {
            send.payload = collected.payload;
            return Poll::Ready(match collected.answer {
                Encrypted::Whole(Some(below)) => {
                    send.ticket = below;
                    None
                }
                Encrypted::Whole(None) => Some(whole(&send.payload)),
                Encrypted::Failed => {
                    let error = self.cannot_encrypt().or_else(|| self.refusal());
                    let error = Some(error.unwrap_or_else(not_possible));
                    Some(QueuedOutcome::Over { sent: 0, error })
                }
            });
        }
        if let Err(error) = check_home(self.home()) {
            return Poll::Ready(Some(QueuedOutcome::Away(error)));
        }
        self.wait_for_entry(key, cx);
        Poll::Pending
    }

    /// The end of an entry that is under way will wake the task of `cx`. If the entry has just
    /// ended, this wakes it.
    fn wait_for_entry(&self, key: Key, cx: &mut Context<'_>) {
        if !self.outbound.borrow().queue.wants(key, cx.waker()) {
            return;
        }
        let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
        let is_late = self.sending(|outbound, deferred| {
            outbound.queue.set_waker(key, waker, deferred);
            outbound.queue.is_finished(key)
        });
        if is_late {
            cx.waker().wake_by_ref();
        }
    }
}

/// The error when TLS does not encrypt, and neither TLS nor TCP has a failure that says why.
pub(super) fn not_possible() -> io::Error {
    io::Error::other("TLS cannot send at this point")
}

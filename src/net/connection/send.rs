//! Sending: a queue of whole buffers, one op in flight, carried out whether or not anyone waits.
//!
//! An entry that the kernel has seen is committed: when its future is gone the rest goes out in
//! the background, so no message is ever torn (SEMANTICS G5). What waits behind it goes out
//! together in one call.

use std::cell::RefMut;
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::Connection;
use crate::buf::{Handed, Outgoing};
use crate::context;
use crate::driver::{self, Completion, Payload, Role, Submitted, Token, error, is_retried};
use crate::net::queue::Queue;
use crate::net::waiters::{WaiterId, Waiters};
use crate::ops;
use crate::panics::{contain, wake_all};
use crate::sys::{self, TRANSFER_LEN_MAX};

/// How many entries go out together at most.
const BATCH_LEN_MAX: usize = 64;

/// The sending side of a connection.
pub(super) struct Send {
    /// In order of first polls: finished and not yet collected, in flight, waiting.
    entries: Queue<Entry>,
    next_id: u64,
    pub(super) flight: Option<(Token, Flight)>,
    /// Bytes of `poll_write` behind everything queued, while something is under way.
    pub(super) written: Vec<u8>,
    /// Nothing new is given to the kernel for the moment.
    held: bool,
    /// The errno that ended this direction, first one wins.
    pub(super) end: Option<i32>,
    /// Bytes that were taken over ended with the runtime: they are not out, and never will be.
    pub(super) lost: bool,
    /// A send fell short without our doing, or failed other than by the peer's finishing: what
    /// looks like an end to a receive is a reset (SEMANTICS TX9, RX12).
    cut: bool,
    closing: Closing,
    /// Those who wait for the shutdown, for room, or for everything to be out: woken whenever
    /// something has gone out.
    pub(super) waiters: Waiters,
}

/// What one op is to send: so many bytes of so many entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    entries: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// Shut down when everything is out.
    Asked,
    /// Done, with the errno of shutdown(2) if it failed.
    Done(Result<(), i32>),
}

struct Entry {
    id: u64,
    /// `None` while in flight: the op owns it.
    outgoing: Option<Outgoing>,
    len: usize,
    sent: usize,
    state: EntryState,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    /// Its future lives, or was forgotten.
    Live,
    /// Nobody will collect it: its future was dropped after the kernel had seen it, or it never had
    /// one.
    Abandoned,
    /// Over; an errno, 0 if it went out whole.
    Finished(i32),
}

impl Default for Entry {
    #[inline]
    fn default() -> Entry {
        Entry { id: 0, outgoing: None, len: 0, sent: 0, state: EntryState::Live, waker: None }
    }
}

impl Entry {
    fn is_finished(&self) -> bool {
        matches!(self.state, EntryState::Finished(_))
    }
}

/// What [`SendBuffer`] gives: how many bytes went out, why not all, and the buffer.
pub(crate) struct SendReport<B> {
    pub(crate) sent: usize,
    pub(crate) error: Option<io::Error>,
    pub(crate) buf: B,
}

impl Send {
    pub(super) fn new() -> Send {
        Send {
            entries: Queue::default(),
            next_id: 0,
            flight: None,
            written: Vec::new(),
            held: false,
            end: None,
            lost: false,
            cut: false,
            closing: Closing::No,
            waiters: Waiters::default(),
        }
    }

    fn unfinished(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(|entry| !entry.is_finished())
    }

    /// Whether everything is out, or has failed.
    pub(super) fn is_idle(&self) -> bool {
        self.written.is_empty() && self.entries.iter().all(Entry::is_finished)
    }

    /// How many bytes of `poll_write` wait behind what is under way, in entries or not yet.
    #[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper", feature = "tls"))]
    pub(super) fn waiting(&self) -> usize {
        let is_waiting =
            |entry: &&Entry| entry.state == EntryState::Abandoned && entry.outgoing.is_some();
        let sealed = self.entries.iter().filter(is_waiting).map(|entry| entry.len - entry.sent);
        self.written.len() + sealed.sum::<usize>()
    }

    /// Whether there is nothing before a new buffer.
    fn is_free(&self) -> bool {
        self.entries.is_empty() && self.written.is_empty() && !self.held
    }

    /// Makes an entry without its buffer, which is in flight, or the caller puts it there.
    #[inline]
    fn enter(&mut self, len: usize, state: EntryState, waker: Option<Waker>) -> &mut Entry {
        let entry = self.entries.push_default();
        (entry.id, entry.len, entry.state) = (self.next_id, len, state);
        entry.waker = waker;
        self.next_id += 1;
        entry
    }

    /// Makes an entry of what was written, behind the others.
    fn seal(&mut self) {
        if self.written.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.written);
        self.push_unclaimed(bytes);
    }

    /// Queues bytes that no future will collect.
    fn push_unclaimed(&mut self, bytes: Vec<u8>) {
        let len = bytes.len();
        self.enter(len, EntryState::Abandoned, None).outgoing = Some(Outgoing::one(bytes));
    }

    /// Why nothing can be sent, if so.
    pub(super) fn refusal(&self) -> Option<io::Error> {
        match (self.end, self.closing) {
            (Some(errno), _) => Some(error(errno)),
            (None, Closing::No) => None,
            (None, _) => Some(error(libc::EPIPE)),
        }
    }

    /// An entry is over: its future is woken, or the buffer of one without a future is handed
    /// back to be dropped.
    fn finish(entry: &mut Entry, errno: i32, woken: &mut Vec<Waker>) {
        woken.extend(entry.waker.take());
        entry.state = match entry.state {
            EntryState::Abandoned => EntryState::Abandoned,
            _ => EntryState::Finished(errno),
        };
    }

    /// The usual case: one buffer was in flight, nothing else is queued, and all of it went out.
    /// False if it is another. What is left in `payload` nobody collects; it is to be dropped when no
    /// borrow is held.
    #[inline]
    fn finish_only(
        &mut self,
        flight: &Flight,
        done: Completion,
        payload: &mut Payload,
        woken: &mut Vec<Waker>,
    ) -> bool {
        let is_usual = done.result() == Ok(flight.len)
            && self.closing == Closing::No
            && self.written.is_empty()
            && matches!(payload, Payload::Outgoing(_));
        let Some(entry) = self.entries.only_mut().filter(|_| is_usual) else { return false };
        if entry.is_finished() || entry.sent + flight.len as usize != entry.len {
            return false;
        }
        if entry.state == EntryState::Live {
            entry.outgoing = payload.take_outgoing();
            entry.sent = entry.len;
            Send::finish(entry, 0, woken);
        } else {
            self.entries.drop_first(); // its waker went with its future
        }
        self.waiters.wake(woken);
        self.cut = false;
        true
    }

    /// Ends what is unfinished with `errno`. Returns what nobody will collect.
    fn fail_all(&mut self, errno: i32, woken: &mut Vec<Waker>) -> Vec<Entry> {
        for entry in self.unfinished() {
            Send::finish(entry, errno, woken);
        }
        self.written = Vec::new();
        self.waiters.wake(woken);
        self.entries.extract(|entry| entry.state == EntryState::Abandoned)
    }

    /// Ends what is unfinished with the runtime: who asks later whether all is out is told (G8).
    fn give_up(&mut self, woken: &mut Vec<Waker>) -> Vec<Entry> {
        self.lost |= !self.is_idle();
        self.fail_all(libc::ECANCELED, woken)
    }

    /// The last attempt, when the connection is closing: what the kernel takes without waiting.
    pub(super) fn flush_now(&mut self, fd: BorrowedFd<'_>) {
        if self.end.is_some() {
            return;
        }
        self.seal();
        for entry in self.entries.iter_mut().filter(|entry| !entry.is_finished()) {
            let Some(outgoing) = &entry.outgoing else { return };
            for piece in outgoing.pieces(entry.sent) {
                match sys::send_now(fd, piece) {
                    Ok(sent) if sent == piece.len() => {}
                    _ => return,
                }
            }
        }
    }
}

impl Connection {
    #[inline]
    fn submit_one(self: &Rc<Self>, outgoing: Outgoing, offset: usize) -> (Submitted, Flight) {
        match ops::send::one(self.fd(), outgoing, offset) {
            Ok((op, len)) => {
                let submitted = self.home.submit(op, self.clone(), Role::Send);
                (submitted, Flight { entries: 1, len: len as u32 })
            }
            Err(outgoing) => self.submit_batch(vec![outgoing], offset),
        }
    }

    /// As [`submit_one`](Self::submit_one) from the start, on a ring, which answers later.
    #[inline]
    fn hand_over(self: &Rc<Self>, outgoing: Outgoing) -> (Token, Flight) {
        match ops::send::one(self.fd(), outgoing, 0) {
            Ok((op, len)) => {
                let token = self.home.push_op(op, self.clone(), Role::Send);
                (token, Flight { entries: 1, len: len as u32 })
            }
            Err(outgoing) => match self.submit_batch(vec![outgoing], 0) {
                (Submitted::InFlight(token), flight) => (token, flight),
                (Submitted::Answered(..), _) => unreachable!("the ring answers later"),
            },
        }
    }

    fn submit_batch(
        self: &Rc<Self>,
        outgoing: Vec<Outgoing>,
        offset: usize,
    ) -> (Submitted, Flight) {
        let entries = outgoing.len() as u32;
        let (op, len) = ops::send::batch(self.fd(), outgoing, offset);
        let submitted = self.home.submit(op, self.clone(), Role::Send);
        (submitted, Flight { entries, len: len as u32 })
    }

    /// Gives the kernel what waits, unless something is in flight. True if that was over at once:
    /// there may be more to do.
    fn pump(self: &Rc<Self>, woken: &mut Vec<Waker>) -> bool {
        let mut send = self.send.borrow_mut();
        if send.flight.is_some() || send.held || self.home.check().is_err() {
            return false;
        }
        send.seal();
        let (submitted, flight) = match send.entries.only_mut() {
            Some(only) if only.is_finished() => return false,
            Some(only) => {
                let outgoing = only.outgoing.take().expect("nothing is in flight");
                self.submit_one(outgoing, only.sent)
            }
            None => {
                let Some(first) = send.unfinished().next() else { return false };
                let offset = first.sent;
                let batch: Vec<Outgoing> = (send.unfinished().take(BATCH_LEN_MAX))
                    .map(|entry| entry.outgoing.take().expect("nothing is in flight"))
                    .collect();
                self.submit_batch(batch, offset)
            }
        };
        match submitted {
            Submitted::InFlight(token) => {
                send.flight = Some((token, flight));
                false
            }
            Submitted::Answered(done, payload) => {
                drop(send);
                self.finish_send(flight, done, payload, woken);
                true
            }
        }
    }

    /// Deals with an answer that came at once, and goes on as far as that goes at once; whether
    /// anything did.
    pub(super) fn finish_now(
        self: &Rc<Self>,
        answer: Option<(Flight, Completion, Payload)>,
    ) -> bool {
        let mut woken = Vec::new();
        let mut finished = answer.is_some();
        if let Some((flight, done, payload)) = answer {
            self.finish_send(flight, done, payload, &mut woken);
        }
        while self.pump(&mut woken) {
            finished = true;
        }
        self.home.wake_later(woken);
        finished
    }

    pub(super) fn complete_send(
        self: &Rc<Self>,
        done: Completion,
        mut payload: Payload,
        woken: &mut Vec<Waker>,
    ) {
        let mut send = self.send.borrow_mut();
        let (_, flight) = send.flight.take().expect("a send completes once");
        let is_done = send.finish_only(&flight, done, &mut payload, woken);
        drop(send);
        if !is_done {
            self.finish_send(flight, done, payload, woken);
            self.proceed(woken);
        }
    }

    /// Deals an answer out to the entries that were in flight.
    fn finish_send(
        self: &Rc<Self>,
        flight: Flight,
        done: Completion,
        payload: Payload,
        woken: &mut Vec<Waker>,
    ) {
        let mut send = self.send.borrow_mut();
        let has_eof = self.recv.borrow().has_eof();
        let lost = !give_back(&mut send, payload);
        let mut spent = Vec::new();
        match done.result() {
            // The ring has failed, and keeps the buffers.
            _ if lost => spent = send.give_up(woken),
            Ok(sent) => {
                let mut left = sent as usize;
                for entry in send.unfinished().take(flight.entries as usize) {
                    let more = left.min(entry.len - entry.sent);
                    left -= more;
                    entry.sent += more;
                    if entry.sent == entry.len {
                        Send::finish(entry, 0, woken);
                    }
                }
                // MSG_WAITALL comes back short only for an error, whose errno it swallows; unless
                // we cancelled it, because the connection is closing.
                let is_ours = send.held || self.is_closing() || self.home.check().is_err();
                send.cut = sent < flight.len && !is_ours;
                spent = send.entries.extract(|entry| {
                    entry.state == EntryState::Abandoned && entry.sent == entry.len
                });
            }
            Err(errno) if is_retried(errno) => {}
            Err(errno @ (libc::ENOMEM | libc::ENOBUFS)) if !is_torn(&mut send) => {
                // Short of memory: those in the batch hear of it, the next ones may do better.
                for entry in send.unfinished().take(flight.entries as usize) {
                    Send::finish(entry, errno, woken);
                }
            }
            Err(errno) => {
                let errno = if errno == libc::EPIPE && send.cut && !has_eof {
                    libc::ECONNRESET
                } else {
                    errno
                };
                send.cut |= errno != libc::EPIPE;
                send.end.get_or_insert(errno);
                spent = send.fail_all(errno, woken);
            }
        }
        send.waiters.wake(woken);
        drop(send);
        drop_contained(spent);
    }

    /// What is next: more to send, a shutdown that was waiting, or nothing.
    fn proceed(self: &Rc<Self>, woken: &mut Vec<Waker>) {
        if self.is_closing() {
            return; // `Drop` sends what still can be sent
        }
        if self.home.check().is_err() && self.send.borrow().flight.is_none() {
            // Teardown: nothing more can be submitted; the entries give their buffers back.
            let spent = self.send.borrow_mut().give_up(woken);
            drop_contained(spent);
        }
        while self.pump(woken) {}
        if !self.send.borrow().is_idle() {
            return;
        }
        let mut send = self.send.borrow_mut();
        if send.closing == Closing::Asked {
            let done = match send.end {
                Some(errno) => Err(errno),
                None => sys::shutdown_write(self.fd())
                    .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)),
            };
            // What was to be out before the end is not: an end, but no success.
            send.closing = Closing::Done(if send.lost { Err(libc::ECANCELED) } else { done });
            send.waiters.wake(woken);
        }
    }

    /// The reason for a reset that looks like an end to a receive.
    pub(super) fn cut_by(&self) -> Option<i32> {
        let send = self.send.borrow();
        send.cut.then(|| match send.end {
            Some(errno) if errno != libc::EPIPE => errno,
            _ => libc::ECONNRESET,
        })
    }

    pub(super) fn has_unsent(&self) -> bool {
        let send = self.send.borrow();
        send.end.is_none() && !send.is_idle()
    }

    /// The last handle is gone: a send in flight is cancelled before the thread sleeps. What it
    /// leaves over, `Drop` tries once more.
    pub(super) fn end_send(&self) {
        if let Some((token, _)) = self.send.borrow().flight {
            self.home.cancel_before_sleep(token);
        }
    }

    /// Shuts the direction down when everything is out, without anyone waiting for it.
    pub(crate) fn ask_shutdown(self: &Rc<Self>) {
        if self.home.is_forked_copy() {
            return;
        }
        let mut send = self.send.borrow_mut();
        if send.closing == Closing::No {
            send.closing = Closing::Asked;
        }
        drop(send);
        let mut woken = Vec::new();
        self.proceed(&mut woken);
        wake_all(woken.into_iter());
    }

    /// Queues what is handed in behind what is queued already, and waits until it is out.
    /// `answer` makes the caller's result of the report.
    #[inline]
    pub(crate) fn send<H: Handed, T, A: Fn(SendReport<H::Buf>) -> T>(
        self: &Rc<Self>,
        handed: H,
        answer: A,
    ) -> SendBuffer<'_, H, A> {
        SendBuffer { connection: self, state: SendState::Start(handed), answer }
    }

    /// Shuts the direction down, at once or when everything is out; what came of it, if that is
    /// known. Whoever has to wait registers.
    pub(super) fn try_shutdown(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let send = self.send.borrow();
        let (end, closing) = (send.end, send.closing);
        let is_at_once = send.is_idle() && !send.lost;
        drop(send);
        if self.home.is_forked_copy() {
            return context::spend(cx).map(|()| Err(driver::forked()));
        }
        match (end, closing) {
            (None, _) if !is_at_once => ready!(context::poll_home(&self.home, cx))?,
            (Some(errno), _) | (None, Closing::Done(Err(errno))) => {
                ready!(context::spend(cx));
                return Poll::Ready(Err(error(errno)));
            }
            (None, Closing::Done(Ok(()))) => {
                ready!(context::spend(cx));
                return Poll::Ready(Ok(()));
            }
            (None, Closing::No | Closing::Asked) => {}
        }
        self.ask_shutdown();
        match self.send.borrow().closing {
            Closing::Done(done) => Poll::Ready(done.map_err(error)),
            Closing::No | Closing::Asked => Poll::Pending,
        }
    }

    /// Waits until everything queued is out, and the direction is shut down.
    pub(crate) fn shutdown(self: &Rc<Self>) -> Shutdown<'_> {
        Shutdown { connection: self, id: None }
    }

    /// A future's answer, if its entry is finished.
    #[inline]
    fn collect<B: 'static>(&self, id: u64) -> Option<SendReport<B>> {
        let mut send = self.send.borrow_mut();
        // The usual case: nothing else is queued, and all of it went out.
        let only = send.entries.only_mut();
        let only = only.filter(|only| only.id == id && only.state == EntryState::Finished(0));
        let Some((sent, outgoing)) = only.map(|only| (only.sent, only.outgoing.take())) else {
            return self.collect_any(send, id);
        };
        send.entries.drop_first(); // no waker and no buffer is left in it
        drop(send);
        let buf = outgoing.expect("what went out was given back").take();
        Some(SendReport { sent, error: None, buf })
    }

    #[cold]
    fn collect_any<B: 'static>(
        &self,
        mut send: RefMut<'_, Send>,
        id: u64,
    ) -> Option<SendReport<B>> {
        let is_mine = |entry: &Entry| entry.id == id && entry.is_finished();
        let index = send.entries.iter().position(is_mine)?;
        let entry = send.entries.remove(index);
        drop(send);
        let EntryState::Finished(errno) = entry.state else { unreachable!("just checked") };
        let outgoing = entry.outgoing.unwrap_or_else(|| {
            panic!("the engine failed with this buffer in flight: {}", error(errno))
        });
        let error = (errno != 0).then(|| match self.home.check() {
            Err(gone) if errno == libc::ECANCELED => gone,
            _ => error(errno),
        });
        Some(SendReport { sent: entry.sent, error, buf: outgoing.take() })
    }

    /// The future of an entry is polled under another runtime, and wants its buffer back at once.
    /// What has been seen by the kernel goes on as a copy.
    fn take_back(self: &Rc<Self>, id: u64) -> Outgoing {
        let token = self.send.borrow().flight.map(|(token, _)| token);
        let mut send = self.send.borrow_mut();
        let entry = send.entries.iter_mut().find(|entry| entry.id == id);
        let in_flight = entry.expect("an entry stays until it is collected").outgoing.is_none();
        drop(send);
        if let (true, Some(token)) = (in_flight, token) {
            self.send.borrow_mut().held = true;
            self.home.settle(token);
            self.send.borrow_mut().held = false;
        }
        let outgoing = self.take_out(id);
        let mut woken = Vec::new();
        self.proceed(&mut woken);
        wake_all(woken.into_iter());
        outgoing
    }

    /// The future of an entry is gone before its answer.
    fn abandon(&self, id: u64) {
        let mut send = self.send.borrow_mut();
        let Some(index) = send.entries.iter().position(|entry| entry.id == id) else { return };
        let entry = send.entries.iter_mut().nth(index).expect("just found");
        let committed = entry.sent > 0 || entry.outgoing.is_none();
        let waker = entry.waker.take();
        let removed = if committed && !entry.is_finished() {
            entry.state = EntryState::Abandoned;
            None
        } else {
            Some(send.entries.remove(index))
        };
        drop(send);
        drop((waker, removed));
    }

    /// Takes the buffer of an entry that is not in flight.
    fn take_out(&self, id: u64) -> Outgoing {
        let mut send = self.send.borrow_mut();
        let index = send.entries.iter().position(|entry| entry.id == id);
        let index = index.expect("an entry stays until it is collected");
        let entry = send.entries.iter_mut().nth(index).expect("just found");
        if entry.sent > 0 && entry.state == EntryState::Live {
            let outgoing = entry.outgoing.take().expect("the ring has given the buffer back");
            let rest: Vec<u8> = outgoing.pieces(entry.sent).flatten().copied().collect();
            entry.len = rest.len();
            entry.sent = 0;
            entry.outgoing = Some(Outgoing::one(rest));
            entry.state = EntryState::Abandoned;
            let waker = entry.waker.take();
            drop(send);
            drop(waker);
            return outgoing;
        }
        let entry = send.entries.remove(index);
        drop(send);
        entry.outgoing.expect("the ring has given the buffer back")
    }
}

/// Bytes of nobody's: for a layer above, such as TLS, whose bytes must not get lost with a future.
#[cfg(feature = "tls")]
impl Connection {
    /// Queues bytes that no future waits for: they go out like the rest of a send whose future was
    /// dropped midway, whole and in order. Who calls this bounds it by
    /// [`poll_unsent`](Self::poll_unsent).
    pub(crate) fn send_detached(self: &Rc<Self>, bytes: Vec<u8>) -> io::Result<()> {
        self.check_sendable()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut send = self.send.borrow_mut();
        send.seal();
        send.push_unclaimed(bytes);
        drop(send);
        self.finish_now(None);
        Ok(())
    }

    /// Whether the runtime of this connection is the one of this thread.
    pub(crate) fn is_home(&self) -> bool {
        self.check_home().is_ok()
    }

    /// As [`is_home`](Self::is_home), with what is wrong. In a forked copy too: those who ask do so
    /// in destructors as well, which only close there (SEMANTICS SY2).
    pub(crate) fn check_home(&self) -> io::Result<()> {
        if self.home.is_forked_copy() {
            return Err(driver::forked());
        }
        context::check_home(&self.home)
    }

    /// Whether bytes can be queued: at home, before an end and a failure.
    pub(crate) fn check_sendable(&self) -> io::Result<()> {
        match self.send.borrow().refusal() {
            Some(error) => Err(error),
            None => self.check_home(),
        }
    }

    /// How many bytes are queued that the kernel has not taken.
    pub(crate) fn unsent(&self) -> usize {
        let send = self.send.borrow();
        let unfinished = send.entries.iter().filter(|entry| !entry.is_finished());
        send.written.len() + unfinished.map(|entry| entry.len - entry.sent).sum::<usize>()
    }

    /// Ready when at most `max` bytes are queued, or sending has failed. The caller keeps `id`, and
    /// hands it to [`stop_waiting_for_unsent`](Self::stop_waiting_for_unsent) when it goes.
    pub(crate) fn poll_unsent(
        &self,
        max: usize,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let waker = cx.waker().clone(); // foreign code: before the look
        if let Err(error) = context::check_home(&self.home) {
            return Poll::Ready(Err(error)); // nothing goes out, and the queue is emptied in a teardown
        }
        let unsent = self.unsent();
        let mut send = self.send.borrow_mut();
        if let Some(errno) = send.end {
            return Poll::Ready(Err(error(errno)));
        }
        if unsent <= max {
            return Poll::Ready(Ok(()));
        }
        let replaced = send.waiters.register(id, waker);
        drop(send);
        drop(replaced);
        Poll::Pending
    }

    /// Who waited in [`poll_unsent`](Self::poll_unsent) waits no more.
    pub(crate) fn stop_waiting_for_unsent(&self, id: Option<WaiterId>) {
        let waker = self.send.borrow_mut().waiters.remove(id);
        drop(waker);
    }
}

/// Drops what nobody collects: users' buffers, whose panics must not keep what is queued behind them
/// from going out.
fn drop_contained(spent: Vec<Entry>) {
    spent.into_iter().for_each(|entry| contain(|| drop(entry)));
}

/// Puts the buffers of an op that ended back into their entries; false if they are lost.
fn give_back(send: &mut Send, payload: Payload) -> bool {
    let mut entries = send.unfinished();
    match payload {
        Payload::Outgoing(outgoing) => {
            let entry = entries.next().expect("what was in flight is unfinished");
            entry.outgoing = Some(outgoing);
        }
        Payload::Batch(batch) => {
            let batch = Rc::into_inner(batch).expect("an op that has ended shares nothing");
            for (outgoing, entry) in batch.into_outgoing().into_iter().zip(entries) {
                entry.outgoing = Some(outgoing);
            }
        }
        _ => return false,
    }
    true
}

/// Whether an error now would leave a part of a buffer sent.
fn is_torn(send: &mut Send) -> bool {
    send.unfinished()
        .next()
        .is_some_and(|entry| entry.sent > 0 || entry.state == EntryState::Abandoned)
}

/// The future of `send`, `send_all` and `sendv`.
pub(crate) struct SendBuffer<'a, H, A> {
    connection: &'a Rc<Connection>,
    state: SendState<H>,
    answer: A,
}

enum SendState<H> {
    /// Not polled yet: nothing has happened.
    Start(H),
    /// In the connection's queue.
    Queued(u64),
    Done,
}

/// No part of it is pinned.
impl<H, A> Unpin for SendBuffer<'_, H, A> {}

impl<H: Handed, A> SendBuffer<'_, H, A> {
    #[inline]
    fn start(&mut self, handed: H, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let connection = self.connection;
        let home = &connection.home;
        let len = handed.len();
        let refusal = connection.send.borrow().refusal();
        let error = match refusal {
            None if len > 0 => context::check_home(home).err(),
            refusal => refusal,
        };
        if error.is_some() || len == 0 {
            if context::spend(cx).is_pending() {
                self.state = SendState::Start(handed);
                return Poll::Pending;
            }
            return Poll::Ready(SendReport { sent: 0, error, buf: handed.into_buf() });
        }
        if home.tries_first() { self.start_at_once(handed, cx) } else { self.submit(handed, cx) }
    }

    /// With nothing before it, the kernel may take all of it at once: then it needs no stay in the
    /// queue, and no owner but the future.
    #[inline]
    fn start_at_once(&mut self, handed: H, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let (connection, len) = (self.connection, handed.len());
        let bytes = handed.as_one();
        let mut send = connection.send.borrow_mut();
        let (Some(bytes), true) = (bytes, send.is_free()) else {
            return self.queue(send, handed, None, cx);
        };
        let mut op = ops::send::borrowed(connection.fd(), bytes);
        let Some(done) = connection.home.attempt(&mut op) else {
            let sent = op.sent();
            return self.wait_to_go_on(send, handed, sent, cx);
        };
        if !done.result().is_ok_and(|sent| sent as usize == len) {
            return self.queue(send, handed, Some(done), cx);
        }
        send.cut = false;
        drop(send);
        if context::spend(cx).is_ready() {
            return Poll::Ready(SendReport { sent: len, error: None, buf: handed.into_buf() });
        }
        // The answer waits in the queue for the next poll.
        let outgoing = handed.into_outgoing();
        let mut send = connection.send.borrow_mut();
        let entry = send.enter(len, EntryState::Finished(0), None);
        (entry.outgoing, entry.sent) = (Some(outgoing), len);
        self.state = SendState::Queued(entry.id);
        Poll::Pending
    }

    /// The kernel has taken `sent` bytes, and will take the others later.
    #[cold]
    fn wait_to_go_on(
        &mut self,
        mut send: RefMut<'_, Send>,
        handed: H,
        sent: u32,
        cx: &mut Context<'_>,
    ) -> Poll<SendReport<H::Buf>> {
        let connection = self.connection;
        let all = handed.len();
        let (op, len) = ops::send::rest(connection.fd(), handed.into_outgoing(), sent);
        let token = connection.home.submit_tried(op, connection.clone(), Role::Send);
        send.flight = Some((token, Flight { entries: 1, len: len as u32 }));
        let id = send.enter(all, EntryState::Live, None).id;
        self.state = SendState::Queued(id);
        drop(send);
        self.wait(id, cx)
    }

    /// Queues a buffer, of which an attempt may have said what became.
    #[cold]
    fn queue(
        &mut self,
        mut send: RefMut<'_, Send>,
        handed: H,
        done: Option<Completion>,
        cx: &mut Context<'_>,
    ) -> Poll<SendReport<H::Buf>> {
        let connection = self.connection;
        let len = handed.len();
        let outgoing = handed.into_outgoing();
        send.seal();
        let entry = send.enter(len, EntryState::Live, None);
        let id = entry.id;
        let answer = match done {
            None => {
                entry.outgoing = Some(outgoing);
                None
            }
            Some(done) => {
                let flight = Flight { entries: 1, len: len.min(TRANSFER_LEN_MAX) as u32 };
                Some((flight, done, Payload::Outgoing(outgoing)))
            }
        };
        self.state = SendState::Queued(id);
        drop(send);
        if connection.finish_now(answer) && context::spend(cx).is_pending() {
            return Poll::Pending; // the answer waits in the queue for the next poll
        }
        self.wait(id, cx)
    }

    /// Hands it to the kernel if there is nothing before it, or else queues it.
    #[inline]
    fn submit(&mut self, handed: H, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let (connection, len) = (self.connection, handed.len());
        let waker = cx.waker().clone(); // foreign code, so before anything is borrowed
        let mut send = connection.send.borrow_mut();
        if !send.is_free() && send.flight.is_none() {
            return self.queue(send, handed, None, cx);
        }
        send.seal();
        let outgoing = handed.into_outgoing();
        let id = if send.flight.is_none() {
            send.flight = Some(connection.hand_over(outgoing));
            send.enter(len, EntryState::Live, Some(waker)).id
        } else {
            let entry = send.enter(len, EntryState::Live, Some(waker));
            entry.outgoing = Some(outgoing);
            entry.id
        };
        self.state = SendState::Queued(id);
        Poll::Pending
    }

    /// The answer of a queued entry, or a waker for it.
    fn wait(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let waker = cx.waker().clone();
        // Cloning a waker is foreign code: the answer may have come meanwhile.
        if let Some(report) = self.connection.collect(id) {
            self.state = SendState::Done;
            return Poll::Ready(report);
        }
        let mut send = self.connection.send.borrow_mut();
        let entry = send.entries.iter_mut().find(|entry| entry.id == id);
        let entry = entry.expect("an entry stays until it is collected");
        let replaced = entry.waker.replace(waker);
        drop(send);
        drop(replaced);
        Poll::Pending
    }

    #[inline]
    fn poll_report(&mut self, cx: &mut Context<'_>) -> Poll<SendReport<H::Buf>> {
        let id = match std::mem::replace(&mut self.state, SendState::Done) {
            SendState::Start(handed) => return self.start(handed, cx),
            SendState::Queued(id) => id,
            SendState::Done => unreachable!("a future is not polled after it was ready"),
        };
        let connection = self.connection;
        if let Some(report) = connection.collect(id) {
            return Poll::Ready(report);
        }
        if let Err(error) = context::check_home(&connection.home) {
            let buf = connection.take_back(id).take();
            return Poll::Ready(SendReport { sent: 0, error: Some(error), buf });
        }
        self.state = SendState::Queued(id);
        self.wait(id, cx)
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
        if let SendState::Queued(id) = self.state {
            self.connection.abandon(id);
        }
    }
}

/// The future of `shutdown`.
pub(crate) struct Shutdown<'a> {
    connection: &'a Rc<Connection>,
    id: Option<WaiterId>,
}

impl Future for Shutdown<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waker = cx.waker().clone(); // foreign code: before the last look
        let connection = self.connection;
        if let Poll::Ready(done) = connection.try_shutdown(cx) {
            return Poll::Ready(done);
        }
        let replaced = connection.send.borrow_mut().waiters.register(&mut self.id, waker);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Shutdown<'_> {
    fn drop(&mut self) {
        let waker = self.connection.send.borrow_mut().waiters.remove(self.id);
        drop(waker);
    }
}

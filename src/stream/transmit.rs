//! Sending. One op is in flight at a time, and it goes on whether or not a future waits for it.
//!
//! When nothing is in flight, everything that waits in the queue (`send_queue/`) goes out in one
//! system call. An entry that the kernel has seen is committed: if its future is gone, the rest
//! goes out in the background. A shutdown is carried out when everything is out.
//!
//! The futures are not here. Read next: `send.rs`.

use std::io;
use std::mem;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use super::Connection;
use super::layer::buffer_is_lost;
use super::send_queue::{Collected, NextPayload, SendQueue};
use super::unread::End;
use crate::buf::Outgoing;
use crate::deferred::Deferred;
use crate::driver::{Completion, Medium, Payload, Role, Submitted, Token, error, is_retried};
use crate::ops;
use crate::queue::{Key, Waiters};
use crate::sys;

/// At most how many buffers go out together.
const BATCH_LEN_MAX: usize = 64;

/// The sending side of a connection.
pub(super) struct TransmitSide {
    pub(super) queue: SendQueue<Answer>,
    pub(super) flight: Flight,
    pub(super) direction: Direction,
    /// A send was short although we did not cancel it, or it failed with an errno other than EPIPE.
    /// From then on, EOF in a receive is a reset (SEMANTICS TX9, RX12).
    pub(super) fell_short: bool,
    /// Callers that wait for the shutdown, for room, or until everything is out. They are woken
    /// whenever bytes have gone out.
    pub(super) waiters: Waiters,
}

/// The op that sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flight {
    Idle,
    Sending(Share),
    /// It was cancelled, because a future wants its buffer back. The next op waits until the future
    /// has it.
    Recalling(Share),
    Recalled,
}

/// The part of the queue that an op sends: `len` bytes of its first `entries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) token: Token,
    pub(super) entries: u32,
    pub(super) len: u32,
}

/// The state of this direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Open,
    /// It will be shut down when everything is out.
    ShutdownAsked,
    /// It was shut down. `Err` is the errno of shutdown(2).
    ShutDown(Result<(), i32>),
    /// A send has failed. This is the first errno, and it stays.
    Failed(i32),
    /// The runtime ended before all queued bytes were out. Every call is told that it is gone.
    Lost,
}

/// What the future of a send is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Sent,
    Failed(i32),
    /// The runtime ended, or its engine failed.
    Lost,
}

impl TransmitSide {
    pub(super) fn new() -> TransmitSide {
        TransmitSide {
            queue: SendQueue::default(),
            flight: Flight::Idle,
            direction: Direction::Open,
            fell_short: false,
            waiters: Waiters::default(),
        }
    }

    /// The error of a send, if nothing can be queued. `None`: it can, or the runtime has ended; a
    /// check of home tells that.
    #[inline]
    pub(super) fn refusal(&self) -> Option<io::Error> {
        match self.direction {
            Direction::Open | Direction::Lost => None,
            Direction::ShutdownAsked | Direction::ShutDown(_) => Some(error(libc::EPIPE)),
            Direction::Failed(errno) => Some(error(errno)),
        }
    }

    /// The errno that ended this direction; `None` if it has not failed. A shutdown is no failure.
    pub(super) fn errno(&self) -> Option<i32> {
        match self.direction {
            Direction::Failed(errno) => Some(errno),
            _ => None,
        }
    }

    /// The runtime has ended, or its engine has failed: ends everything that is queued, and tells
    /// its futures [`Answer::Lost`].
    fn give_up(&mut self, deferred: &mut Deferred) {
        if !self.queue.is_idle() {
            self.direction = Direction::Lost;
        }
        self.queue.finish_all(deferred, || Answer::Lost);
        self.waiters.wake(deferred);
    }

    /// Fails the direction, and everything that is queued, with `errno`. The first errno of a
    /// direction stays.
    fn fail(&mut self, errno: i32, deferred: &mut Deferred) {
        if self.errno().is_none() {
            self.direction = Direction::Failed(errno);
        }
        self.queue.finish_all(deferred, || Answer::Failed(errno));
    }

    /// The last attempt, when the connection is closed: sends what the kernel takes without
    /// waiting, and nothing after a failure. No op may be in flight.
    pub(super) fn flush_now(&mut self, fd: BorrowedFd<'_>, medium: Medium) {
        let send = match medium {
            Medium::Tcp | Medium::Unix => sys::send_now,
            Medium::Pipe | Medium::Shared => sys::pipe::write_now,
        };
        if self.errno().is_none() {
            self.queue
                .for_each_piece(|piece| send(fd, piece).is_ok_and(|sent| sent == piece.len()));
        }
    }
}

impl Connection {
    /// Runs `change` on the sending side, under its borrow. What `change` puts into the `Deferred`
    /// is woken and dropped when the borrow has ended, since it may call back into this object.
    #[inline]
    pub(super) fn sending<T>(
        &self,
        change: impl FnOnce(&mut TransmitSide, &mut Deferred) -> T,
    ) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.transmit.borrow_mut(), &mut deferred);
        self.home.run_deferred(deferred);
        result
    }

    // ---- the op -----------------------------------------------------------------------------

    /// Submits a send of `payload`, from `offset` on. Gives what became of the op, and which part
    /// of the queue it sends: the number of entries and of bytes.
    #[inline]
    fn submit_one(self: &Rc<Self>, payload: Outgoing, offset: usize) -> (Submitted, u32, u32) {
        match ops::send::one(self.fd(), self.medium, payload, offset) {
            Ok((op, len)) => (self.home.submit(op, self.clone(), Role::Send), 1, len as u32),
            Err(payload) => self.submit_batch(vec![payload], offset),
        }
    }

    /// As [`submit_one`](Self::submit_one), from the first byte on, for the ring, which answers
    /// later.
    #[inline]
    pub(super) fn submit_to_ring(self: &Rc<Self>, payload: Outgoing) -> Share {
        match ops::send::one(self.fd(), self.medium, payload, 0) {
            Ok((mut op, len)) => {
                let answer = self.home.attempt(&mut op);
                debug_assert!(answer.is_none(), "the ring answers later");
                let token = self.home.submit_after_attempt(op, self.clone(), Role::Send);
                Share { token, entries: 1, len: len as u32 }
            }
            Err(payload) => match self.submit_batch(vec![payload], 0) {
                (Submitted::InFlight(token), entries, len) => Share { token, entries, len },
                (Submitted::Answered(..), ..) => unreachable!("the ring answers later"),
            },
        }
    }

    /// As [`submit_one`](Self::submit_one), for several entries in one system call. Of the first,
    /// the bytes from `offset` on are sent.
    fn submit_batch(
        self: &Rc<Self>,
        payloads: Vec<Outgoing>,
        offset: usize,
    ) -> (Submitted, u32, u32) {
        let entries = payloads.len() as u32;
        let (op, len) = ops::send::batch(self.fd(), self.medium, payloads, offset);
        (self.home.submit(op, self.clone(), Role::Send), entries, len as u32)
    }

    /// Submits the next entries, and repeats that as long as the answer comes at once. It does
    /// nothing while a send is in flight, or if the runtime takes no ops. True: something went out
    /// or failed.
    #[inline]
    pub(super) fn send_next(
        self: &Rc<Self>,
        transmit: &mut TransmitSide,
        deferred: &mut Deferred,
    ) -> bool {
        let mut has_ended = false;
        while transmit.flight == Flight::Idle && self.home.is_open() {
            let (submitted, entries, len) = match transmit.queue.take_next(BATCH_LEN_MAX) {
                None => break,
                Some(NextPayload::One { payload, offset }) => self.submit_one(payload, offset),
                Some(NextPayload::Batch { payloads, offset }) => {
                    self.submit_batch(payloads, offset)
                }
            };
            match submitted {
                Submitted::InFlight(token) => {
                    transmit.flight = Flight::Sending(Share { token, entries, len });
                }
                Submitted::Answered(done, payload) => {
                    self.apply_send_result(transmit, entries, len, done, payload, deferred);
                    has_ended = true;
                }
            }
        }
        has_ended
    }

    /// Handles the completion `done` of the send in flight: puts `payload` back into the entries,
    /// finishes those that are out, and then sends the rest or fails the direction. Wakers and
    /// drops go to `deferred`, which the caller runs when its borrow of `transmit` has ended.
    /// Panics if no send is in flight.
    #[inline]
    pub(super) fn complete_send(
        self: &Rc<Self>,
        transmit: &mut TransmitSide,
        done: Completion,
        payload: &mut Payload,
        deferred: &mut Deferred,
    ) {
        let (share, next) = match transmit.flight {
            Flight::Sending(share) => (share, Flight::Idle),
            Flight::Recalling(share) => (share, Flight::Recalled),
            Flight::Idle | Flight::Recalled => unreachable!("a send completes once"),
        };
        if self.complete_whole_send(transmit, share.len, done, payload, deferred) {
            transmit.flight = next;
            if transmit.direction == Direction::Open && !transmit.queue.has_written() {
                return;
            }
        } else {
            let payload = mem::take(payload);
            self.apply_send_result(transmit, share.entries, share.len, done, payload, deferred);
            transmit.flight = next;
        }
        self.continue_sending(transmit, deferred);
    }

    /// Handles the usual answer: one buffer was queued, and all of it went out. `len`: how many
    /// bytes the op had to send. True: the entry is finished and has its payload. False: it is
    /// another answer, and nothing was done.
    #[inline]
    fn complete_whole_send(
        &self,
        transmit: &mut TransmitSide,
        len: u32,
        done: Completion,
        payload: &mut Payload,
        deferred: &mut Deferred,
    ) -> bool {
        if done.result() != Ok(len) || !matches!(payload, Payload::Outgoing(_)) {
            return false;
        }
        let place = transmit.queue.complete_if_alone(len as usize, Answer::Sent, deferred);
        let Some(place) = place else { return false };
        *place = payload.take_outgoing();
        place.iter_mut().for_each(Outgoing::note_taken);
        transmit.fell_short = false;
        transmit.waiters.wake(deferred);
        true
    }

    /// Applies the answer `done` of an op that had to send `len` bytes of the first `entries` in
    /// line. Puts `payload` back into them, finishes those that are out, and fails the direction or
    /// these entries after an error. An op that was interrupted or cancelled leaves its entries in
    /// line. The caller changes `flight`, and sends what is next.
    pub(super) fn apply_send_result(
        &self,
        transmit: &mut TransmitSide,
        entries: u32,
        len: u32,
        done: Completion,
        payload: Payload,
        deferred: &mut Deferred,
    ) {
        let queue = &mut transmit.queue;
        let entries = entries as usize;
        match payload {
            Payload::Outgoing(payload) => queue.give_back([payload]),
            Payload::Batch(batch) => {
                let batch = Rc::into_inner(batch).expect("an op that has ended shares nothing");
                queue.give_back(batch.into_outgoing());
            }
            // The engine has failed, and the buffers are leaked.
            _ => return transmit.give_up(deferred),
        }
        match done.result() {
            Ok(sent) => {
                queue.advance(entries, sent as usize, deferred, || Answer::Sent);
                // With MSG_WAITALL a send is short only after an error, whose errno the kernel does
                // not tell, or because we cancelled it. A pipe takes what it has room for, and a Unix
                // socket keeps the reset for the receive.
                transmit.fell_short = sent < len
                    && self.medium == Medium::Tcp
                    && !self.is_cancelling(transmit.flight);
            }
            Err(errno) if is_retried(errno) => {}
            // The kernel is short of memory. The entries of this batch fail; later entries may
            // succeed.
            Err(errno @ (libc::ENOMEM | libc::ENOBUFS)) if !queue.is_any_committed(entries) => {
                queue.finish_first(entries, deferred, || Answer::Failed(errno));
            }
            Err(errno) => {
                let is_reset = errno == libc::EPIPE && transmit.fell_short && !self.has_eof();
                let errno = if is_reset { libc::ECONNRESET } else { errno };
                transmit.fell_short |= errno != libc::EPIPE;
                transmit.fail(errno, deferred);
            }
        }
        transmit.waiters.wake(deferred);
    }

    /// Whether we may have cancelled the send in flight.
    fn is_cancelling(&self, flight: Flight) -> bool {
        matches!(flight, Flight::Recalling(_)) || self.is_closing() || !self.home.is_open()
    }

    /// Whether a receive has met EOF.
    fn has_eof(&self) -> bool {
        matches!(self.receive.borrow().unread.end(), Some(End::Eof))
    }

    /// Sends what is next; when everything is out, carries out a shutdown that was asked for. If
    /// the runtime takes no ops any more, the entries are given up. Without a handle nothing is
    /// done.
    #[inline]
    fn continue_sending(self: &Rc<Self>, transmit: &mut TransmitSide, deferred: &mut Deferred) {
        if self.is_closing() {
            return; // `Drop` sends what can still be sent
        }
        if transmit.flight == Flight::Idle && !self.home.is_open() {
            // No op can be submitted. The entries give their buffers back.
            transmit.give_up(deferred);
        }
        if !transmit.queue.is_idle() {
            self.send_next(transmit, deferred);
        }
        if transmit.direction == Direction::ShutdownAsked && transmit.queue.is_idle() {
            let done = self.end_direction();
            let done = done.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
            transmit.direction = Direction::ShutDown(done);
            transmit.waiters.wake(deferred);
        }
    }

    /// Everything is out: tells the peer the end.
    fn end_direction(&self) -> io::Result<()> {
        match self.medium {
            Medium::Tcp | Medium::Unix => sys::shutdown_write(self.fd()),
            Medium::Pipe => {
                self.home.close_early(&self.fd);
                Ok(())
            }
            Medium::Shared => unreachable!("others share it, so it is never ended"),
        }
    }

    // ---- ends -------------------------------------------------------------------------------

    /// The errno of a reset that looks like EOF to a receive. `None`: it is EOF.
    pub(super) fn errno_of_reset(&self) -> Option<i32> {
        let transmit = self.transmit.borrow();
        transmit.fell_short.then(|| match transmit.errno() {
            Some(errno) if errno != libc::EPIPE => errno,
            _ => libc::ECONNRESET,
        })
    }

    /// Whether bytes are still to go out. After a failure none are.
    pub(super) fn has_unsent(&self) -> bool {
        let transmit = self.transmit.borrow();
        transmit.errno().is_none() && !transmit.queue.is_idle()
    }

    /// Whether this is a standard stream, whose end is not ours to tell.
    pub(super) fn is_shared_by_others(&self) -> bool {
        self.medium == Medium::Shared
    }

    /// The last handle is gone. The send in flight is cancelled, and the driver does not sleep
    /// before it has ended. `Drop` makes one more attempt to send the rest. A shared stream waits for
    /// that: what its next handle sends comes behind.
    pub(super) fn end_send(&self) {
        let flight = self.transmit.borrow().flight;
        if let Flight::Sending(share) | Flight::Recalling(share) = flight {
            match self.is_shared_by_others() {
                true => self.home.cancel_and_wait(share.token),
                false => self.home.cancel_before_sleep(share.token),
            }
        }
    }

    /// Shuts this direction down when everything is out: at once, if it is already. Nothing changes
    /// if it was asked for before, if sending has failed, or in a forked copy. `direction` has the
    /// result.
    pub(crate) fn ask_shutdown(self: &Rc<Self>) {
        if self.home.is_forked_copy() || self.is_shared_by_others() {
            return;
        }
        self.sending(|transmit, deferred| {
            if transmit.direction == Direction::Open {
                transmit.direction = Direction::ShutdownAsked;
            }
            self.continue_sending(transmit, deferred);
        });
    }

    // ---- a future and its entry -------------------------------------------------------------

    /// Removes the entry `key` and gives how much was sent, its answer and its buffer, if it is
    /// finished; `None`, and no change, while it is still under way. Panics if the engine has failed
    /// with the buffer in flight, or if the buffer is no `B`.
    #[inline]
    pub(super) fn collect<B: 'static>(&self, key: Key) -> Option<(usize, Answer, B)> {
        let queue = &mut self.transmit.borrow_mut().queue;
        let Collected { sent, answer, payload } = queue.collect_with(key, Outgoing::take)?;
        let Some(buf) = payload else { buffer_is_lost(self.error_of(answer)) };
        Some((sent, answer, buf))
    }

    /// The error that an answer stands for; `None` if all was sent.
    #[inline]
    pub(super) fn error_of(&self, answer: Answer) -> Option<io::Error> {
        match answer {
            Answer::Sent => None,
            Answer::Failed(errno) => Some(error(errno)),
            Answer::Lost => self.home.check().err(),
        }
    }

    /// The future of an entry is polled under another runtime, and wants its buffer back at once.
    /// If the kernel has seen a part of it, a copy of the rest goes out. This cancels the op that
    /// has the buffer and waits for its end. Panics if the engine has failed with the buffer in
    /// flight.
    pub(super) fn take_back(self: &Rc<Self>, key: Key) -> Outgoing {
        let in_flight = self.sending(|transmit, _| match transmit.flight {
            Flight::Sending(share) if transmit.queue.is_being_sent(key) => {
                transmit.flight = Flight::Recalling(share);
                Some(share.token)
            }
            _ => None,
        });
        if let Some(token) = in_flight {
            self.home.cancel_and_wait(token);
        }
        self.sending(|transmit, deferred| {
            if transmit.flight == Flight::Recalled {
                transmit.flight = Flight::Idle;
            }
            let payload = transmit.queue.take_back(key, deferred);
            self.continue_sending(transmit, deferred);
            payload.expect("the engine has given the buffer back")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::{TcpListener, TcpStream};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::buf::{Many, One};
    use crate::context;
    use crate::driver::{Backend, Driver, Settings, Wait};

    fn driver(backend: Backend) -> Option<Rc<Driver>> {
        let settings = Settings { entries: 4, completion_entries: 8, ..Settings::small(backend) };
        Driver::new(settings).ok()
    }

    /// Polls a future until it is ready, and turns its driver.
    fn drive<T>(driver: &Rc<Driver>, future: impl Future<Output = T>) -> T {
        let _turning = context::turn(driver).expect("no runtime turns here");
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) =
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return output;
            }
            let mut deferred = Deferred::default();
            driver.prepare_to_park(&mut deferred);
            driver.park(Wait::Until(None), &mut deferred);
            deferred.run();
        }
    }

    /// A send that was short is followed by its error, as a rule. If the next one succeeds, it was a
    /// lack of memory: then EOF is EOF. One buffer and several have ways of their own.
    #[test]
    fn after_a_send_that_succeeds_eof_is_no_reset() {
        for backend in [Backend::Ring, Backend::Epoll] {
            let Some(driver) = driver(backend) else {
                println!("skipped: {backend:?} is not available here");
                continue;
            };
            for count in [1, 2] {
                let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
                let socket = TcpStream::connect(listener.local_addr().expect("bound"));
                let socket = socket.expect("it listens");
                let (peer, _) = listener.accept().expect("it is there");
                socket.set_nonblocking(true).expect("a socket");
                let connection = Connection::new(socket.into(), driver.clone(), Medium::Tcp);
                connection.sending(|transmit, _| transmit.fell_short = true);
                assert_eq!(connection.errno_of_reset(), Some(libc::ECONNRESET));
                let error = match count {
                    1 => drive(&driver, connection.send(One::new("ab"), |report| report.error)),
                    _ => {
                        let bufs = vec!["a", "b"];
                        drive(&driver, connection.send(Many::new(bufs), |report| report.error))
                    }
                };
                assert!(error.is_none());
                assert_eq!(connection.errno_of_reset(), None, "{backend:?}, {count} buffers");
                peer.shutdown(std::net::Shutdown::Write).expect("connected");
                let end = drive(&driver, connection.recv());
                assert!(end.expect("no reset").is_none(), "{backend:?}, {count} buffers");
                connection.drop_handle();
            }
            driver.close();
        }
    }
}

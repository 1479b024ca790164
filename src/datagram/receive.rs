//! Receiving. A socket owns one receive and the datagrams that it brought; futures wait for them.
//!
//! | memory | when |
//! |---|---|
//! | pooled | multishot, until it ends by itself, by a cancel, or because the pool is empty |
//! | heap | the pool is empty: one datagram |
//! | of its size | Unix sockets: one datagram, when a call wants it; what is in flight is a poll |
//!
//! A Unix datagram may be larger than any buffer, and what is not received pushes back on its sender.
//! So the kernel keeps it until a call comes, and is asked for its size first.
//!
//! Datagrams are kept in order of arrival. An arrival wakes every waiting future, and the one that
//! is polled first takes the datagram. When as many are unread as a socket may hold, the receive is
//! stopped until a call finds none: what comes meanwhile waits in the kernel's buffer of the socket,
//! as long as there is room.
//!
//! No error ends receiving: it is shown to one call, and the next call receives again.
//!
//! The futures are not here. Read next: `read.rs`.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::Context;

use super::{DatagramAddr, DatagramFamily, DatagramSocket};
use crate::buf::Chunk;
use crate::deferred::Deferred;
use crate::driver::{
    BufferPool, Completion, IncomingDatagram, Lender, Op, Payload, RECORD_HEAD, Request, Role,
    Submitted, Token, count, is_retried,
};
use crate::ops;
use crate::queue::{WaiterId, Waiters};
use crate::sys::PollEvents;

/// How much a socket holds unread before its receive is stopped: bytes of payload, and datagrams.
const UNREAD_MAX: (usize, usize) = (64 * 1024, 256);

/// The receiving side of a socket.
pub(super) struct Arrivals {
    unread: Unclaimed,
    op: ArrivalOp,
    /// An errno that is shown to one call.
    shown_once: Option<i32>,
    intake: Intake,
    pub(super) waiters: Waiters,
}

/// The memory that datagrams are received into.
pub(super) enum Intake {
    /// Of the pool, or the heap; this is what every receive into the pool uses.
    Pool { incoming: Rc<IncomingDatagram>, lender: Lender },
    /// Each into memory of just its size, when a call asks for it.
    OwnSize,
}

/// Records that no call has taken.
#[derive(Default)]
struct Unclaimed {
    records: VecDeque<Chunk>,
    /// How many bytes of payload they have.
    payload: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArrivalOp {
    Idle,
    /// The last receive found the pool empty. The next one writes to the heap, even if buffers are
    /// free again by then: other sockets might take them first each time.
    PoolEmpty,
    Armed {
        token: Token,
        stopping: bool,
    },
}

impl Unclaimed {
    fn push(&mut self, record: Chunk) {
        self.payload += record.len() - RECORD_HEAD;
        self.records.push_back(record);
    }

    fn pop(&mut self) -> Option<Chunk> {
        let record = self.records.pop_front()?;
        self.payload -= record.len() - RECORD_HEAD;
        if self.records.is_empty() && self.records.capacity() > UNREAD_MAX.1 / 4 {
            self.records = VecDeque::new(); // most sockets hold few
        }
        Some(record)
    }

    fn is_full(&self) -> bool {
        self.payload >= UNREAD_MAX.0 || self.records.len() >= UNREAD_MAX.1
    }
}

impl Intake {
    pub(super) fn pooled(pool: Rc<BufferPool>) -> Intake {
        Intake::Pool { incoming: IncomingDatagram::pooled(pool), lender: Lender::default() }
    }

    /// The datagram that is in this buffer of the pool.
    fn lend(&self, bid: u16, len: usize) -> Chunk {
        match self {
            Intake::Pool { incoming, lender } => incoming.pool().lend_for(lender, bid, len),
            Intake::OwnSize => unreachable!("it gives the kernel no buffers"),
        }
    }

    /// A receive has found no buffer.
    fn note_empty(&self) {
        if let Intake::Pool { incoming, .. } = self {
            incoming.pool().found_empty();
        }
    }
}

impl Arrivals {
    pub(super) fn new(intake: Intake) -> Arrivals {
        Arrivals {
            unread: Unclaimed::default(),
            op: ArrivalOp::Idle,
            shown_once: None,
            intake,
            waiters: Waiters::default(),
        }
    }

    /// The op in flight, if there is one.
    pub(super) fn token(&self) -> Option<Token> {
        match self.op {
            ArrivalOp::Armed { token, .. } => Some(token),
            ArrivalOp::Idle | ArrivalOp::PoolEmpty => None,
        }
    }

    /// Whether a datagram that comes now is kept for a later call. `OwnSize` leaves it in the kernel.
    pub(super) fn keeps_what_comes(&self) -> bool {
        self.waiters.is_empty() && matches!(self.intake, Intake::Pool { .. })
    }

    /// Whether there is a datagram or an error to take.
    #[inline]
    pub(super) fn has_answer(&self) -> bool {
        !self.unread.records.is_empty() || self.shown_once.is_some()
    }

    /// Whether a receive is in flight.
    pub(super) fn is_armed(&self) -> bool {
        self.token().is_some()
    }

    /// Takes the oldest record, or else the error. `None`: there is neither.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Result<Chunk, i32>> {
        match self.unread.pop() {
            Some(record) => Some(Ok(record)),
            None => self.shown_once.take().map(Err),
        }
    }

    /// The oldest record, where it is.
    pub(super) fn first(&self) -> Option<&Chunk> {
        self.unread.records.front()
    }

    /// Takes all records.
    pub(super) fn take_all(&mut self) -> VecDeque<Chunk> {
        std::mem::take(&mut self.unread).records
    }

    /// How many records no call has taken.
    pub(super) fn unread_len(&self) -> usize {
        self.unread.records.len()
    }
}

impl<A: DatagramAddr> DatagramSocket<A> {
    /// Runs `change` on the receiving side, under its borrow. What `change` puts into the
    /// `Deferred` is woken and dropped when the borrow has ended, since it may call back into this
    /// object.
    #[inline]
    fn arriving<T>(&self, change: impl FnOnce(&mut Arrivals, &mut Deferred) -> T) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.arrivals.borrow_mut(), &mut deferred);
        self.home.run_deferred(deferred);
        result
    }

    /// Makes sure that a receive is in flight: arms one, or undoes the cancel of the one in flight.
    /// The caller is at home, and found nothing to take. True: the receive ended at once, so the
    /// caller looks again. False: the caller waits.
    #[inline]
    pub(super) fn arm(self: &Rc<Self>) -> bool {
        if self.receive_now() {
            return true;
        }
        let pooled = {
            let arrivals = &mut *self.arrivals.borrow_mut();
            match &mut arrivals.op {
                ArrivalOp::Armed { token, stopping } => {
                    // If the cancel was sent already, the terminal completion wakes the caller.
                    if *stopping && self.home.undo_cancel(*token) {
                        *stopping = false;
                    }
                    return false;
                }
                ArrivalOp::Idle | ArrivalOp::PoolEmpty => {}
            }
            match &arrivals.intake {
                Intake::Pool { incoming, .. } => {
                    let is_usable = arrivals.op == ArrivalOp::Idle && incoming.pool().has_free();
                    Some(is_usable.then(|| incoming.clone()))
                }
                Intake::OwnSize => None,
            }
        };
        match pooled {
            Some(Some(pooled)) => self.arm_op(ops::recvmsg::multishot(self.fd(), pooled)),
            Some(None) => self.arm_op(ops::recvmsg::into_heap(self.fd())),
            None => self.arm_op(ops::poll::readable(self.fd())),
        }
    }

    /// Receives the next datagram without an op, if the family receives so. False: it does not, or
    /// there is none.
    #[inline]
    pub(super) fn receive_now(&self) -> bool {
        if A::FAMILY != DatagramFamily::Unix || self.home.is_forked_copy() {
            return false;
        }
        self.home.count_call();
        self.arriving(|arrivals, deferred| {
            match ops::recvmsg::whole_now(self.fd()) {
                Ok(record) => arrivals.unread.push(record),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => arrivals.shown_once = error.raw_os_error(),
            }
            arrivals.waiters.wake(deferred); // the caller may take nothing, without a budget
            true
        })
    }

    /// Takes the receive back, if it has not reached the kernel.
    pub(super) fn withdraw(&self) {
        let arrivals = &mut *self.arrivals.borrow_mut();
        if arrivals.token().is_some_and(|token| self.home.withdraw(token)) {
            arrivals.op = ArrivalOp::Idle;
        }
    }

    /// Submits a receive. True: it ended at once.
    #[inline]
    fn arm_op<R: Request>(self: &Rc<Self>, op: Op<R>) -> bool {
        match self.home.submit(op, self.clone(), Role::Recv) {
            Submitted::InFlight(token) => {
                self.arrivals.borrow_mut().op = ArrivalOp::Armed { token, stopping: false };
                false
            }
            Submitted::Answered(done, payload) => {
                self.arriving(|arrivals, deferred| {
                    self.complete_receive(arrivals, done, payload, deferred);
                });
                true
            }
        }
    }

    /// Handles the answer `done` of a receive: puts the datagram in line, or records an error.
    /// `payload` is the op's memory, with its last answer. Wakers go to `deferred`, which the caller
    /// runs when its borrow of `arrivals` has ended.
    pub(super) fn complete_receive(
        &self,
        arrivals: &mut Arrivals,
        done: Completion,
        payload: Payload,
        deferred: &mut Deferred,
    ) {
        if !done.more() {
            arrivals.op = ArrivalOp::Idle;
        }
        // The record is taken first in every case, because a pooled buffer must come back.
        let result = done.result();
        let len = result.unwrap_or(0) as usize;
        let record = match (done.buffer(), payload) {
            (Some(bid), _) => Some(arrivals.intake.lend(bid, len)),
            (None, Payload::Incoming(incoming)) if result.is_ok() => {
                Some(ops::recvmsg::record(incoming, len))
            }
            _ => None,
        };
        match (result, record) {
            _ if self.is_closing.get() => return, // the handle is gone: no future waits, no call follows
            (Ok(_), Some(record)) => arrivals.unread.push(record),
            (Err(libc::ENOBUFS), _) if done.buffer().is_none() => {
                count(&self.home.counters().pool_empty, 1);
                arrivals.intake.note_empty();
                if arrivals.op == ArrivalOp::Idle {
                    arrivals.op = ArrivalOp::PoolEmpty;
                }
            }
            (Err(errno), _) if is_retried(errno) => {}
            (Err(errno), _) => arrivals.shown_once = Some(errno),
            (Ok(events), None) => {
                let is_poll = matches!(arrivals.intake, Intake::OwnSize);
                assert!(is_poll, "a datagram comes with its memory");
                // A woken future receives. Where receiving was shut down, that may find nothing, and
                // the next poll would end at once too, and so on for ever.
                if PollEvents::says_ended(events) {
                    match ops::recvmsg::whole_now(self.fd()) {
                        Ok(record) => arrivals.unread.push(record),
                        Err(_) => arrivals.shown_once = Some(libc::EINVAL),
                    }
                }
            }
        }
        if arrivals.unread.is_full() {
            if let ArrivalOp::Armed { token, stopping: stopping @ false } = &mut arrivals.op {
                *stopping = true;
                self.home.cancel(*token);
            }
        }
        // A woken future that finds nothing arms the next receive.
        arrivals.waiters.wake(deferred);
    }

    /// The next arrival will wake the future `id`, which is `None` at first and gets its name here.
    /// The caller looks again afterwards: a datagram may have arrived meanwhile, because cloning a
    /// waker runs foreign code.
    pub(super) fn wait_for_datagram(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>) {
        if self.arrivals.borrow().waiters.wants(*id, cx.waker()) {
            let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
            self.arriving(|arrivals, deferred| arrivals.waiters.register(id, waker, deferred));
        }
    }

    /// A future stops waiting. The receive goes on: what it brings is for the next call.
    pub(super) fn stop_waiting_for_datagram(&self, id: Option<WaiterId>) {
        if id.is_some() {
            self.arriving(|arrivals, deferred| arrivals.waiters.remove(id, deferred));
        }
    }
}

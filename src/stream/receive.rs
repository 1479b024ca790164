//! Receiving. A connection owns one receive and the bytes that it brought; futures wait for them.
//!
//! [`Connection::arm`] decides which memory a receive writes to:
//!
//! | memory | when |
//! |---|---|
//! | lent | the caller's buffer is larger than a pooled one, and nothing is in flight |
//! | bulk | the peer keeps filling pooled buffers: one large buffer on the heap (`bulk.rs`) |
//! | pooled | otherwise: multishot, until it ends by itself, by a cancel, or because the pool is empty; one-shot where the kernel's multishot may miss a reset or an end |
//! | heap | the pool is empty; or an attempt at a pipe on the ring, see [`Connection::expects_more`] |
//!
//! Bytes are kept in order of arrival (`unread.rs`). An arrival wakes every waiting future, and the
//! one that is polled first takes the bytes. When the unread bytes of a stream pin more memory than
//! its credit, the stream stops receiving until half of the credit is free again. This is
//! backpressure: TCP then stops the peer.
//!
//! The futures are not here. Read next: `read.rs`.

use std::any::Any;
use std::rc::Rc;

use super::Connection;
use super::bulk::{BULK_LEN, Bulk};
use super::descriptors::DescriptorInbox;
use super::unread::{End, Errno, Failure, Segment, Unread};
use crate::buf::{Chunk, Fill};
use crate::context;
use crate::deferred::Deferred;
use crate::driver::{Completion, Medium, Op, Payload, Request, Role, Token, count, is_retried};
use crate::ops;
use crate::queue::{WaiterId, Waiters};
use crate::sys;

/// The receiving side of a connection.
pub(super) struct ReceiveSide {
    pub(super) unread: Unread,
    op: ReceiveOp,
    bulk: Bulk,
    pub(super) waiters: Waiters,
    /// Of a Unix socket that accepts descriptors.
    pub(super) inbox: Option<Box<DescriptorInbox>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReceiveOp {
    Idle(IdleReason),
    Armed {
        token: Token,
        memory: Memory,
        /// Why it is being cancelled, if it is.
        stopping: Option<Stop>,
    },
    /// No handle receives. Bytes that the op in flight still brings, if there is one, are
    /// discarded.
    Closed(Option<Token>),
}

/// Why nothing is in flight, as far as it matters to the next receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdleReason {
    /// No call asked for more, or the stream has ended.
    Unasked,
    /// The unread bytes are over the stream's credit.
    Credit,
    /// The last receive found the pool empty. The next one writes to the heap, even if buffers are
    /// free again by then: other streams might take them first each time.
    PoolEmpty,
}

/// The memory that an armed receive writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    /// A buffer of the pool. `reset_checked`: see [`Connection::check_for_reset`].
    Pooled { reset_checked: bool },
    /// A buffer on the heap, as large as a pooled one.
    Heap,
    /// A large buffer on the heap.
    Bulk,
    /// A caller's buffer.
    Lent,
}

/// Why an armed receive is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The unread bytes are over the stream's credit.
    Credit,
    /// A bulk transfer has begun: the next receive is into a large buffer.
    Bulk,
    /// The future that lent the buffer is gone, and no other future waits.
    Unwanted,
    /// It may have missed a reset, and would then never complete again.
    MissedReset,
}

impl ReceiveSide {
    pub(super) fn new() -> ReceiveSide {
        ReceiveSide {
            unread: Unread::default(),
            op: ReceiveOp::Idle(IdleReason::Unasked),
            bulk: Bulk::new(),
            waiters: Waiters::default(),
            inbox: None,
        }
    }

    /// Whether nothing was asked for yet, as far as it can be seen.
    pub(super) fn is_untouched(&self) -> bool {
        let is_idle = self.op == ReceiveOp::Idle(IdleReason::Unasked);
        is_idle && !self.unread.has_answer(1) && self.inbox.is_none()
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.op, ReceiveOp::Idle(_))
    }

    /// The op in flight, if there is one, also after `end_receive`.
    fn token(&self) -> Option<Token> {
        match self.op {
            ReceiveOp::Armed { token, .. } => Some(token),
            ReceiveOp::Closed(token) => token,
            ReceiveOp::Idle(_) => None,
        }
    }

    /// Whether bytes that come now are kept for a later call.
    pub(super) fn is_unawaited(&self) -> bool {
        self.waiters.is_empty() && !self.is_closed()
    }

    /// Whether `end_receive` was called, and no `reopen` after it.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.op, ReceiveOp::Closed(_))
    }

    /// Whether receiving has stopped because the unread bytes are over the credit.
    fn is_over_credit(&self) -> bool {
        matches!(
            self.op,
            ReceiveOp::Idle(IdleReason::Credit)
                | ReceiveOp::Armed { stopping: Some(Stop::Credit), .. }
        )
    }

    /// Allows receives again after `end_receive`. It arms none, and changes nothing before the op
    /// in flight has ended.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS uses it"))]
    pub(super) fn reopen(&mut self) {
        if self.op == ReceiveOp::Closed(None) {
            self.op = ReceiveOp::Idle(IdleReason::Unasked);
        }
    }

    /// Records that the op in flight has ended, and why nothing is in flight now.
    #[inline]
    fn note_op_ended(&mut self) {
        self.op = match self.op {
            ReceiveOp::Closed(_) => ReceiveOp::Closed(None),
            _ if self.is_over_credit() => ReceiveOp::Idle(IdleReason::Credit),
            _ => ReceiveOp::Idle(IdleReason::Unasked),
        };
    }
}

impl Connection {
    /// Runs `change` on the receiving side, under its borrow. What `change` puts into the
    /// `Deferred` is woken and dropped when the borrow has ended, since it may call back into this
    /// object.
    #[inline]
    pub(super) fn receiving<T>(
        &self,
        change: impl FnOnce(&mut ReceiveSide, &mut Deferred) -> T,
    ) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.receive.borrow_mut(), &mut deferred);
        self.home.run_deferred(deferred);
        result
    }

    // ---- the op -----------------------------------------------------------------------------

    /// Makes sure that a receive is in flight: arms one, or undoes the cancel of the one in flight.
    /// The caller is at home, and found no bytes and no end. `lend`: a caller's buffer to write to,
    /// unless the receive in flight stays. True: the receive ended at once, so the caller looks
    /// again. False: the caller waits.
    #[inline]
    pub(crate) fn arm(self: &Rc<Self>, lend: Option<Rc<Fill<dyn Any>>>) -> bool {
        let memory = self.memory_to_arm(&mut self.receive.borrow_mut(), lend.is_some());
        let Some(memory) = memory else { return false };
        let descriptors_max = self.receive.borrow().inbox.as_ref().map(|inbox| inbox.max());
        match (memory, descriptors_max, lend) {
            (_, Some(max), _) => {
                let op = ops::recv::into_parcel(self.fd(), self.home.pool().buffer_len(), max);
                self.arm_op(op, Memory::Heap)
            }
            (Memory::Lent, None, Some(fill)) => {
                self.arm_op(ops::recv::into_fill(self.fd(), self.medium, fill), Memory::Lent)
            }
            (Memory::Bulk, None, _) => self.arm_bulk(),
            (memory, None, _) => self.arm_usual(memory),
        }
    }

    /// Decides the memory for the next receive, and takes back one in flight that suits less; the
    /// caller must arm a receive then. `None`: there is none to arm, because the one in flight
    /// suits or cannot be taken back, or because no handle receives. `lends`: the caller lends a
    /// buffer.
    fn memory_to_arm(&self, receive: &mut ReceiveSide, lends: bool) -> Option<Memory> {
        let is_bulk = receive.bulk.is_bulk();
        let has_free = self.home.pool().has_free();
        let reason = match &mut receive.op {
            ReceiveOp::Closed(_) => return None,
            ReceiveOp::Idle(reason) => *reason,
            ReceiveOp::Armed { token, memory, stopping } => {
                let suits = match memory {
                    Memory::Lent => true,
                    Memory::Bulk => !lends && is_bulk && has_free,
                    Memory::Pooled { .. } | Memory::Heap => !lends && !is_bulk && has_free,
                };
                // Under epoll the kernel has not seen the op, so it can be withdrawn for one that
                // suits better.
                if suits || !self.home.withdraw(*token) {
                    // If the cancel was sent already, the terminal completion wakes the caller.
                    let is_wanted = !is_bulk && *stopping != Some(Stop::MissedReset);
                    if stopping.is_some() && is_wanted && self.home.undo_cancel(*token) {
                        *stopping = None;
                    }
                    return None;
                }
                IdleReason::Unasked
            }
        };
        receive.op = ReceiveOp::Idle(IdleReason::Unasked);
        Some(if lends {
            Memory::Lent
        } else if is_bulk {
            Memory::Bulk
        } else if reason == IdleReason::PoolEmpty || !has_free {
            Memory::Heap
        } else {
            // A one-shot receive, or one under epoll, reports the reset.
            Memory::Pooled { reset_checked: !self.has_multishot() }
        })
    }

    /// Whether receives into the pool are multishot. The kernel's multishot can lose the end of a Unix
    /// socket (docs/kernels.md).
    fn has_multishot(&self) -> bool {
        self.medium == Medium::Tcp && self.home.has_multishot_recv()
    }

    /// Arms a receive into the pool, or into a heap buffer of that size. True: it ended at once.
    #[inline]
    fn arm_usual(self: &Rc<Self>, memory: Memory) -> bool {
        match memory {
            Memory::Heap | Memory::Bulk | Memory::Lent => {
                let len = self.home.pool().buffer_len();
                self.arm_op(ops::recv::into_heap(self.fd(), self.medium, len), memory)
            }
            Memory::Pooled { .. } if self.has_multishot() => {
                self.arm_op(ops::recv::multishot(self.fd()), memory)
            }
            Memory::Pooled { .. } => {
                self.read_now() || self.arm_op(ops::recv::into_pool(self.fd(), self.medium), memory)
            }
        }
    }

    /// Whether the ring makes an attempt, too: at a pipe whose last receive has filled its buffer. More
    /// is there, likely, and a read(2) that does not wait costs half of an op.
    fn expects_more(&self) -> bool {
        self.medium == Medium::Pipe && self.receive.borrow().bulk.has_filled()
    }

    /// On the ring, if more is there, likely: receives it in an attempt. The memory is of the heap,
    /// because the pool is the kernel's to pick from. True: the receive has ended.
    fn read_now(self: &Rc<Self>) -> bool {
        if self.home.attempts_first() || !self.expects_more() {
            return false;
        }
        let len = self.home.pool().buffer_len();
        let mut op = ops::recv::into_heap(self.fd(), self.medium, len);
        let answer = self.home.attempt_now(&mut op);
        answer.is_some() && self.arm_after_attempt(op, Memory::Heap, answer)
    }

    /// Arms a receive into one large heap buffer; under epoll only if bytes are there already, and
    /// a usual one otherwise. True: it ended at once.
    #[cold]
    fn arm_bulk(self: &Rc<Self>) -> bool {
        let mut op = ops::recv::into_heap(self.fd(), self.medium, BULK_LEN);
        match self.attempt(&mut op) {
            // Under epoll there are no bytes yet. The wait for them needs no large buffer.
            None if self.home.attempts_first() => {
                self.arm_usual(match self.home.pool().has_free() {
                    true => Memory::Pooled { reset_checked: true },
                    false => Memory::Heap,
                })
            }
            answer => self.arm_after_attempt(op, Memory::Bulk, answer),
        }
    }

    /// Attempts a receive, and submits it if it has no answer yet. `memory` is where `op` writes
    /// to. True: it ended at once.
    #[inline]
    fn arm_op<R: Request>(self: &Rc<Self>, mut op: Op<R>, memory: Memory) -> bool {
        let answer = match memory {
            Memory::Pooled { .. } => self.home.attempt(&mut op),
            Memory::Heap | Memory::Bulk | Memory::Lent => self.attempt(&mut op),
        };
        self.arm_after_attempt(op, memory, answer)
    }

    /// Attempts a receive that brings its memory.
    #[inline]
    fn attempt<R: Request>(&self, op: &mut Op<R>) -> Option<Completion> {
        if self.expects_more() { self.home.attempt_now(op) } else { self.home.attempt(op) }
    }

    /// Submits a receive after an attempt, unless the attempt gave the `answer`, which is handled
    /// here. True: it did.
    #[inline]
    fn arm_after_attempt<R: Request>(
        self: &Rc<Self>,
        op: Op<R>,
        memory: Memory,
        answer: Option<Completion>,
    ) -> bool {
        if let Some(done) = answer {
            self.receiving(|receive, deferred| {
                self.complete_receive(receive, done, op.into_payload(), deferred);
            });
            return true;
        }
        let token = self.home.submit_after_attempt(op, self.clone(), Role::Recv);
        let armed = ReceiveOp::Armed { token, memory, stopping: None };
        self.receive.borrow_mut().op = armed;
        false
    }

    /// Asks for the receive in flight to end, if there is one. It stays in flight until its
    /// terminal completion.
    fn stop_receive(&self, receive: &mut ReceiveSide, why: Stop) {
        if let ReceiveOp::Armed { token, stopping, .. } = &mut receive.op {
            *stopping = Some(why);
            self.home.cancel(*token);
        }
    }

    // ---- what comes -------------------------------------------------------------------------

    /// Handles the answer `done` of a receive: puts its bytes in line, or records EOF, a failure,
    /// or why the op ended. `payload` is the op's memory; it is `None` for pooled buffers. Wakers
    /// and drops go to `deferred`, which the caller runs when its borrow of `receive` has ended.
    pub(super) fn complete_receive(
        &self,
        receive: &mut ReceiveSide,
        done: Completion,
        payload: Payload,
        deferred: &mut Deferred,
    ) {
        // The data is taken first in every case, because a pooled buffer must come back.
        let len = done.result().unwrap_or(0) as usize;
        let pool = self.home.pool();
        match (payload, done.buffer()) {
            (Payload::None, Some(buffer)) => {
                let chunk = pool.lend(buffer, len);
                if len > 0 {
                    self.received(receive, Segment::Chunk(chunk), len, done, deferred);
                    receive.bulk.received(len, pool.buffer_len());
                    return self.limit(receive, done);
                }
            }
            (Payload::Fill(fill), _) => {
                ops::recv::filled(&fill, len);
                if len > 0 {
                    self.received(receive, Segment::Filled(fill), len, done, deferred);
                    return receive.bulk.received(len, pool.buffer_len());
                }
                deferred.discard(fill);
            }
            (Payload::Parcel(parcel), _) => {
                let parcel = Rc::into_inner(parcel).expect("an op that has ended shares nothing");
                let (bytes, descriptors, is_cut) = parcel.open(len);
                // After `end_receive` they are closed here.
                let is_closed = receive.is_closed();
                if let Some(inbox) = receive.inbox.as_mut().filter(|_| !is_closed) {
                    inbox.arrived(len, descriptors, is_cut);
                }
                if len > 0 {
                    let chunk = Chunk::from(bytes);
                    return self.received(receive, Segment::Chunk(chunk), len, done, deferred);
                }
            }
            (Payload::Heap(memory), _) => {
                let was_bulk = memory.capacity() >= BULK_LEN;
                if len > 0 {
                    let chunk = Chunk::from(ops::recv::heap_bytes(memory, len));
                    self.received(receive, Segment::Chunk(chunk), len, done, deferred);
                    return match was_bulk {
                        true => receive.bulk.received_bulk(len, pool.buffer_len()),
                        false => receive.bulk.received(len, pool.buffer_len()),
                    };
                }
            }
            _ => {}
        }
        self.received_no_bytes(receive, done, deferred);
    }

    /// Puts `segment`, `len` bytes that have arrived, in line, and wakes all that wait. After
    /// `end_receive` it drops them.
    #[inline]
    fn received(
        &self,
        receive: &mut ReceiveSide,
        segment: Segment,
        len: usize,
        done: Completion,
        deferred: &mut Deferred,
    ) {
        debug_assert!(len > 0);
        if !done.more() {
            receive.note_op_ended();
        } else if let ReceiveOp::Armed { memory: Memory::Pooled { reset_checked: false }, .. } =
            receive.op
        {
            self.check_for_reset(receive);
        }
        match segment {
            Segment::Filled(fill) if receive.is_closed() => deferred.discard(fill),
            _ if receive.is_closed() => {}
            Segment::Filled(fill) => receive.unread.push_filled(fill, deferred),
            segment => receive.unread.push(segment),
        }
        receive.waiters.wake(deferred);
    }

    /// Stops a multishot receive if the unread bytes are over the credit, or a bulk transfer has
    /// begun.
    #[inline]
    fn limit(&self, receive: &mut ReceiveSide, done: Completion) {
        if !done.more() {
            return;
        }
        let is_over = receive.unread.pinned() >= self.home.settings().stream_credit;
        let ReceiveOp::Armed { stopping, .. } = receive.op else { return };
        match stopping {
            None | Some(Stop::Bulk | Stop::Unwanted) if is_over => {
                self.stop_receive(receive, Stop::Credit);
            }
            None if receive.bulk.is_bulk() => self.stop_receive(receive, Stop::Bulk),
            _ => {}
        }
    }

    /// A multishot receive has brought its first bytes. If it found bytes and a reset when it was
    /// armed, it gives the bytes and never completes again (docs/kernels.md). So the socket is
    /// asked once whether there is a reset. If so, the receive is stopped, and the next one finds
    /// the reset.
    #[cold]
    fn check_for_reset(&self, receive: &mut ReceiveSide) {
        if sys::is_hung_up(self.fd()) {
            self.stop_receive(receive, Stop::MissedReset);
        }
        if let ReceiveOp::Armed { memory, .. } = &mut receive.op {
            *memory = Memory::Pooled { reset_checked: true };
        }
    }

    /// Handles an answer without bytes: records EOF or a failure. After an empty pool, a cancel or
    /// a signal, there is nothing to record: a future that is woken here arms the next receive.
    fn received_no_bytes(
        &self,
        receive: &mut ReceiveSide,
        done: Completion,
        deferred: &mut Deferred,
    ) {
        if !done.more() {
            receive.note_op_ended();
        }
        match done.result() {
            // After a send met a reset, the kernel shows the reset as EOF to a receive (RX12).
            Ok(_) => receive.unread.finish(match self.errno_of_reset() {
                Some(errno) => End::Failed(Failure::Errno(Errno(errno))),
                None => End::Eof,
            }),
            Err(libc::ENOBUFS) if done.buffer().is_none() => {
                count(&self.home.counters().pool_empty, 1);
                if receive.is_idle() {
                    receive.op = ReceiveOp::Idle(IdleReason::PoolEmpty);
                }
            }
            Err(errno) if is_retried(errno) => {}
            Err(errno) => receive.unread.fail(Errno(errno)),
        }
        // A woken future that finds nothing arms the next receive.
        receive.waiters.wake(deferred);
    }

    /// Bytes were taken. Receives again, if receiving had stopped because of the credit and half of
    /// it is free; away from home it does nothing.
    pub(super) fn resume(self: &Rc<Self>) {
        let is_wanted = {
            let receive = self.receive.borrow();
            receive.is_over_credit()
                && receive.unread.pinned() <= self.home.settings().stream_credit / 2
                && receive.unread.end().is_none()
        };
        if is_wanted && context::check_home(&self.home).is_ok() {
            self.arm(None);
        }
    }

    // ---- closing ----------------------------------------------------------------------------

    /// The last handle that receives is gone, or the last handle at all. The driver does not sleep
    /// before the receive in flight has ended. Unread bytes are discarded, and so are those that it
    /// still brings. In a forked copy nothing happens.
    pub(crate) fn end_receive(&self) {
        if self.home.is_forked_copy() {
            return;
        }
        self.receiving(|receive, deferred| {
            let token = receive.token();
            if let Some(token) = token {
                self.home.cancel_before_sleep(token);
            }
            receive.op = ReceiveOp::Closed(token);
            receive.unread.clear(deferred);
            receive.inbox = None; // descriptors that nobody has taken are closed
        });
    }

    /// Cancels the receive in flight, if there is one, and returns when it has ended. Bytes that it
    /// still brings are unread, or discarded after `end_receive`.
    pub(super) fn cancel_receive_and_wait(&self) {
        let token = self.receive.borrow().token();
        if let Some(token) = token {
            self.home.cancel_and_wait(token);
        }
    }

    // ---- waiting ----------------------------------------------------------------------------

    /// Whether a receive is in flight, or no handle receives any more: then one that waits is woken.
    pub(crate) fn is_receiving(&self) -> bool {
        !self.receive.borrow().is_idle()
    }

    /// A future stops waiting. If it lent its buffer to the receive in flight, and no other future
    /// waits, the receive is stopped. The next turn gives the buffer back.
    pub(super) fn remove_receiver(&self, id: Option<WaiterId>) {
        self.receiving(|receive, deferred| {
            receive.waiters.remove(id, deferred);
            let is_lent =
                matches!(receive.op, ReceiveOp::Armed { memory: Memory::Lent, stopping: None, .. });
            if is_lent && receive.waiters.is_empty() {
                self.stop_receive(receive, Stop::Unwanted);
            }
        });
    }
}

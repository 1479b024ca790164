//! Receiving: the connection owns one receive op and what it brought; futures wait for it.
//!
//! What is received how, in one place ([`Connection::arm`]):
//! - the caller lends a buffer larger than a pooled one and nothing is in flight: one-shot, into
//!   that buffer;
//! - the stream keeps filling pooled buffers, a bulk transfer: one-shot, into a large buffer on the
//!   heap, until one of those brings no more than a pooled one holds;
//! - the pool has a buffer: multishot over the pool, armed until it ends by itself, by a cancel,
//!   or for want of buffers; one-shot where the kernel's multishot may miss a reset;
//! - else: one-shot, into the heap.
//!
//! Whatever comes is parked in order, and whoever asks first takes it. A `read` that got a part of
//! what it wants leaves it parked (inside its own buffer), so a dropped or forgotten future takes
//! no byte with it (`read.rs`). Parked chunks are charged against the stream's credit by the memory they pin;
//! over it the shot is stopped and TCP pushes back.

use std::any::Any;
use std::cell::RefMut;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::Connection;
use crate::buf::{Chunk, Fill};
use crate::context;
use crate::driver::{
    Completion, Op, Payload, Request, Role, Submitted, Token, count, error, is_retried,
};
use crate::net::queue::Queue;
use crate::net::waiters::{WaiterId, Waiters};
use crate::ops;
use crate::sys;

/// The receiving side of a connection.
pub(super) struct Recv {
    pub(super) parked: Queue<Segment>,
    /// Memory that parked chunks pin, in bytes.
    pinned: usize,
    end: Option<End>,
    /// An error that is shown once and ends nothing (SEMANTICS G4).
    passing: Option<i32>,
    op: RecvOp,
    /// The shot was stopped for want of credit.
    stalled: bool,
    /// The last receive found no pooled buffer: the next one goes to the heap, whoever has given
    /// buffers back meanwhile, lest others be faster each time.
    starved: bool,
    /// How many bytes came in a row that filled their buffers, up to `bulk_after`.
    filled: u32,
    /// How many it takes for a bulk transfer: [`BULK_LEN`], and four times as many after each time
    /// that it was none.
    bulk_after: u32,
    /// Nobody will read any more: what still comes is thrown away.
    closed: bool,
    waiters: Waiters,
}

/// After so many bytes in a row that filled their buffers a stream is taken for a bulk transfer; and
/// what that is received into: at most so many bytes for each system call and wake.
const BULK_LEN: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Eof,
    Error(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecvOp {
    Idle,
    /// `lent`: into a caller's buffer. `bulk`: into a large one of ours. `stopping`: a cancel was
    /// asked for.
    Armed {
        token: Token,
        lent: bool,
        bulk: bool,
        stopping: bool,
        shot: Shot,
    },
}

/// What is known of a multishot receive. One that finds both bytes and a reset as it is armed gives
/// the bytes, and nothing ever again (docs/kernels.md): so the socket is asked at the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shot {
    /// It has brought nothing yet.
    Fresh,
    /// It will complete as it should, as a one-shot does.
    Sound,
    /// It may have missed a reset, and must be armed anew.
    Deaf,
}

/// Bytes that came and were not taken.
pub(super) enum Segment {
    Chunk(Chunk),
    /// In the buffer of a `read`, perhaps of one that is gone.
    Filled(Rc<Fill<dyn Any>>),
}

impl Segment {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Segment::Chunk(chunk) => chunk,
            Segment::Filled(fill) => fill.received(),
        }
    }

    /// Memory of ours that is pinned; a caller's buffer costs us nothing.
    fn footprint(&self) -> usize {
        match self {
            Segment::Chunk(chunk) => chunk.footprint(),
            Segment::Filled(_) => 0,
        }
    }

    fn is(&self, fill: &Fill<dyn Any>) -> bool {
        matches!(self, Segment::Filled(other) if std::ptr::addr_eq(Rc::as_ptr(other), fill))
    }
}

impl Recv {
    pub(super) fn new() -> Recv {
        Recv {
            parked: Queue::default(),
            pinned: 0,
            end: None,
            passing: None,
            op: RecvOp::Idle,
            stalled: false,
            starved: false,
            filled: 0,
            bulk_after: BULK_LEN as u32,
            closed: false,
            waiters: Waiters::default(),
        }
    }

    /// Whether the peer has finished or the connection has failed.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the peer has finished, and not failed.
    pub(super) fn has_eof(&self) -> bool {
        self.end == Some(End::Eof)
    }

    /// How many bytes are parked, as far as `enough`.
    pub(super) fn available(&self, enough: usize) -> usize {
        let mut len = 0;
        for segment in self.parked.iter() {
            len += segment.bytes().len();
            if len >= enough {
                break;
            }
        }
        len
    }

    /// Whether nothing is parked.
    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Whether more is coming than pooled buffers are good for.
    fn is_bulk(&self) -> bool {
        self.filled >= self.bulk_after
    }

    /// Notes that `len` bytes came, where a pooled buffer holds `buffer_len`.
    #[inline]
    fn note_len(&mut self, len: usize, buffer_len: usize) {
        let has_filled = len >= buffer_len && buffer_len < BULK_LEN;
        self.filled = if has_filled {
            self.filled.saturating_add(len as u32).min(self.bulk_after)
        } else {
            0
        };
    }

    /// Notes that a receive into a large buffer brought `len` bytes. Messages of just the size of a
    /// pooled buffer are no bulk transfer: it would have brought more.
    fn note_bulk(&mut self, len: usize, buffer_len: usize) {
        if len <= buffer_len {
            self.filled = 0;
            self.bulk_after = self.bulk_after.saturating_mul(4);
        } else {
            self.bulk_after = BULK_LEN as u32;
        }
    }

    /// Whether no op is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.op == RecvOp::Idle
    }

    /// The op in flight.
    pub(super) fn token(&self) -> Option<Token> {
        match self.op {
            RecvOp::Idle => None,
            RecvOp::Armed { token, .. } => Some(token),
        }
    }

    /// Makes what `fill` holds the first bytes in line, still the stream's.
    pub(super) fn park_first(&mut self, fill: Rc<Fill<dyn Any>>) {
        self.parked.push_front(Segment::Filled(fill));
    }

    fn park(&mut self, segment: Segment) {
        self.pinned += segment.footprint();
        self.parked.push(segment);
    }

    fn pop(&mut self) -> Option<Segment> {
        let segment = self.parked.pop()?;
        self.pinned -= segment.footprint();
        Some(segment)
    }

    /// Everything that is parked, for the caller to drop when no borrow is held.
    fn take_parked(&mut self) -> Vec<Segment> {
        self.pinned = 0;
        self.parked.extract(|_| true)
    }

    /// What there is to say when nothing is parked.
    pub(super) fn ending(&mut self) -> Option<io::Result<()>> {
        if let Some(errno) = self.passing.take() {
            return Some(Err(error(errno)));
        }
        self.end.map(|end| match end {
            End::Eof => Ok(()),
            End::Error(errno) => Err(error(errno)),
        })
    }

    pub(super) fn has_ending(&self) -> bool {
        self.end.is_some() || self.passing.is_some()
    }

    /// Takes `len` of the first bytes in line, as many as there are. Returns the segment that is
    /// used up, to be dropped when no borrow is held.
    #[must_use]
    pub(super) fn consume(&mut self, len: usize) -> Option<Segment> {
        let first = self.parked.front_mut()?;
        let before = first.footprint();
        match first {
            Segment::Chunk(chunk) => chunk.advance(len),
            Segment::Filled(fill) => fill.consume(len),
        }
        self.pinned -= before - first.footprint();
        if first.bytes().is_empty() { self.pop() } else { None }
    }

    /// Copies bytes that are parked in `fill` to the heap, so that its buffer is free of them.
    /// Returns the segment that stood for them, to be dropped when no borrow is held.
    pub(super) fn part_with(&mut self, fill: &Fill<dyn Any>) -> Option<Segment> {
        let index = self.parked.iter().position(|segment| segment.is(fill))?;
        let segment = self.parked.remove(index);
        let mut is_spent = fill.received().is_empty();
        let mut at = index;
        while !is_spent {
            let (piece, last) = piece_of(fill);
            let piece = Segment::Chunk(piece);
            self.pinned += piece.footprint();
            self.parked.insert(at, piece);
            at += 1;
            is_spent = last;
        }
        Some(segment)
    }

    /// Moves parked bytes into `fill` as far as they fit. Bytes that are parked in `fill` itself
    /// come first, in place, if they are first in line; else by a copy. Returns the segments that
    /// are used up, to be dropped when no borrow is held.
    pub(super) fn gather(&mut self, fill: &Fill<dyn Any>) -> Vec<Segment> {
        let mut spent = Vec::new();
        if self.parked.front().is_some_and(|segment| segment.is(fill)) {
            spent.extend(self.pop());
        } else {
            spent.extend(self.part_with(fill));
        }
        // Bytes may have been taken from it meanwhile: make their room usable again.
        fill.compact();
        while let Some(segment) = self.parked.front() {
            let len = fill.append(segment.bytes());
            if len < segment.bytes().len() {
                spent.extend(self.consume(len));
                break;
            }
            if let Segment::Filled(other) = segment {
                other.consume(len);
            }
            spent.extend(self.pop());
        }
        spent
    }
}

/// How many bytes of a caller's buffer go into one chunk.
const PIECE_LEN: usize = 64 * 1024;

/// Copies the next bytes out of a caller's buffer, and says whether they were the last.
fn piece_of(fill: &Fill<dyn Any>) -> (Chunk, bool) {
    let received = fill.received();
    let piece = received[..received.len().min(PIECE_LEN)].to_vec();
    let is_last = piece.len() == received.len();
    fill.consume(piece.len());
    (Chunk::from(piece), is_last)
}

impl Connection {
    // ---- the op -----------------------------------------------------------------------------

    /// Makes sure that something is in flight: arms the op that suits, or keeps the one that was
    /// about to be stopped. The caller is at home and found nothing parked and no end. True if the
    /// op was over at once: look again.
    pub(super) fn arm(self: &Rc<Self>, lend: Option<Rc<Fill<dyn Any>>>) -> bool {
        let mut recv = self.recv.borrow_mut();
        let is_bulk = recv.is_bulk();
        match &mut recv.op {
            RecvOp::Idle => {}
            // Under epoll nothing has happened yet: what waits makes room for what suits.
            RecvOp::Armed { token, lent: false, bulk, .. }
                if (lend.is_some() || *bulk != is_bulk || !self.home.pool().has_free())
                    && self.home.withdraw(*token) =>
            {
                recv.op = RecvOp::Idle;
            }
            RecvOp::Armed { token, stopping, shot, .. } => {
                // If the cancel is out already, the terminal completion wakes us to arm again.
                let is_good = !is_bulk && *shot != Shot::Deaf;
                if *stopping && is_good && self.home.keep(*token) {
                    *stopping = false;
                    recv.stalled = false;
                }
                return false;
            }
        }
        recv.stalled = false;
        let is_starved = mem::take(&mut recv.starved);
        match lend.is_some() || is_bulk || is_starved || !self.home.pool().has_free() {
            true => self.arm_one_shot(recv, lend, is_bulk),
            false => self.arm_pooled(recv),
        }
    }

    /// Arms the usual op. There is a pooled buffer.
    #[inline]
    fn arm_pooled(self: &Rc<Self>, recv: RefMut<'_, Recv>) -> bool {
        match self.home.has_multishot_recv() {
            true => self.arm_op(recv, ops::recv::multishot(self.fd()), Shot::Fresh),
            false => self.arm_op(recv, ops::recv::into_pool(self.fd()), Shot::Sound),
        }
    }

    #[inline]
    fn arm_op<R: Request>(
        self: &Rc<Self>,
        mut recv: RefMut<'_, Recv>,
        mut op: Op<R>,
        shot: Shot,
    ) -> bool {
        if let Some(done) = self.home.attempt(&mut op) {
            drop(recv);
            return self.answered(done, Payload::None);
        }
        let token = self.home.submit_tried(op, self.clone(), Role::Recv);
        recv.op = RecvOp::Armed { token, lent: false, bulk: false, stopping: false, shot };
        false
    }

    #[cold]
    fn arm_one_shot(
        self: &Rc<Self>,
        mut recv: RefMut<'_, Recv>,
        lend: Option<Rc<Fill<dyn Any>>>,
        is_bulk: bool,
    ) -> bool {
        let (home, role, lent) = (&self.home, Role::Recv, lend.is_some());
        let mut bulk = is_bulk && !lent;
        let into_heap = |len| home.submit(ops::recv::into_heap(self.fd(), len), self.clone(), role);
        let mut submitted = match lend {
            Some(fill) => home.submit(ops::recv::into_fill(self.fd(), fill), self.clone(), role),
            None if bulk => into_heap(BULK_LEN),
            None => into_heap(home.pool().buffer_len()),
        };
        // Under epoll nothing is there yet: to wait for it takes no large buffer.
        if let (true, Submitted::InFlight(token)) = (bulk, &submitted) {
            if home.withdraw(*token) {
                if home.pool().has_free() {
                    return self.arm_pooled(recv);
                }
                bulk = false;
                submitted = into_heap(home.pool().buffer_len());
            }
        }
        match submitted {
            Submitted::InFlight(token) => {
                let shot = Shot::Sound;
                recv.op = RecvOp::Armed { token, lent, bulk, stopping: false, shot };
                false
            }
            Submitted::Answered(done, payload) => {
                drop(recv);
                self.answered(done, payload)
            }
        }
    }

    /// An answer came at once; true: look again.
    fn answered(&self, done: Completion, payload: Payload) -> bool {
        let mut woken = Vec::new();
        self.complete_recv(done, payload, &mut woken);
        self.home.wake_later(woken);
        true
    }

    /// Asks for the op to end, if one is in flight.
    fn stop(&self, recv: &mut Recv, before_sleep: bool) {
        let RecvOp::Armed { token, stopping, .. } = &mut recv.op else { return };
        *stopping = true;
        if before_sleep {
            self.home.cancel_before_sleep(*token);
        } else {
            self.home.cancel(*token);
        }
    }

    /// Whether bytes that come now are parked for a later call.
    pub(super) fn is_unawaited(&self) -> bool {
        let recv = self.recv.borrow();
        recv.waiters.is_empty() && !recv.closed
    }

    pub(super) fn complete_recv(&self, done: Completion, payload: Payload, woken: &mut Vec<Waker>) {
        // The data first, whatever becomes of it: a buffer the kernel picked must come back.
        let len = done.result().unwrap_or(0) as usize;
        if let (Some(bid), 1..) = (done.buffer(), len) {
            return self.received_chunk(self.home.pool().lend(bid, len), done.more(), woken);
        }
        let mut was_bulk = false;
        let segment = match (payload, done.buffer()) {
            (Payload::None, Some(bid)) => Some(Segment::Chunk(self.home.pool().lend(bid, len))),
            (Payload::Fill(fill), _) => {
                ops::recv::filled(&fill, len);
                Some(Segment::Filled(fill))
            }
            (Payload::Heap(memory), _) => {
                was_bulk = memory.capacity() >= BULK_LEN;
                Some(Segment::Chunk(Chunk::from(ops::recv::heap_bytes(memory, len))))
            }
            _ => None,
        };
        match segment {
            Some(segment) if len > 0 => {
                self.received(segment, len, done.more(), woken);
                if was_bulk {
                    let buffer_len = self.home.pool().buffer_len();
                    self.recv.borrow_mut().note_bulk(len, buffer_len);
                }
            }
            unwanted => {
                self.received_nothing(done, woken);
                drop(unwanted);
            }
        }
    }

    /// Bytes have come in a pooled buffer: the usual case.
    #[inline]
    fn received_chunk(&self, chunk: Chunk, more: bool, woken: &mut Vec<Waker>) {
        let len = chunk.len();
        let mut recv = self.recv.borrow_mut();
        if recv.closed {
            drop(recv);
            return self.received(Segment::Chunk(chunk), len, more, woken);
        }
        recv.park(Segment::Chunk(chunk));
        self.note_received(&mut recv, len, more, woken);
    }

    /// Bytes have come.
    #[cold]
    fn received(&self, segment: Segment, len: usize, more: bool, woken: &mut Vec<Waker>) {
        let mut recv = self.recv.borrow_mut();
        let is_known = |fill: &Rc<Fill<dyn Any>>| recv.parked.iter().any(|other| other.is(fill));
        let unwanted = match segment {
            segment if recv.closed => Some(segment),
            // More bytes in a buffer that is parked already, at the end of the line.
            Segment::Filled(fill) if is_known(&fill) => Some(Segment::Filled(fill)),
            segment => {
                recv.park(segment);
                None
            }
        };
        self.note_received(&mut recv, len, more, woken);
        drop(recv);
        drop(unwanted);
    }

    /// What follows from bytes that came, for the op, the credit and those who wait.
    #[inline]
    fn note_received(&self, recv: &mut Recv, len: usize, more: bool, woken: &mut Vec<Waker>) {
        if !more {
            recv.op = RecvOp::Idle;
        } else if matches!(recv.op, RecvOp::Armed { shot: Shot::Fresh, .. }) {
            self.note_first(recv);
        }
        recv.note_len(len, self.home.pool().buffer_len());
        let is_over = recv.pinned >= self.home.settings().stream_credit;
        if more && !recv.stalled && (is_over || recv.is_bulk()) {
            // Over the credit: until half of it is read. Bulk: the next receive is another.
            recv.stalled = is_over;
            self.stop(recv, false);
        }
        recv.waiters.wake(woken);
    }

    /// A multishot receive has brought its first bytes. If it found a reset behind them as it was
    /// armed, that is there now, and it may never complete again.
    #[cold]
    fn note_first(&self, recv: &mut Recv) {
        let has_missed = sys::poll_hang_up(self.fd(), Duration::ZERO);
        if let RecvOp::Armed { shot, .. } = &mut recv.op {
            *shot = if has_missed { Shot::Deaf } else { Shot::Sound };
        }
        if has_missed {
            self.stop(recv, false);
        }
    }

    /// The end, an error, or an op that ended for a reason of its own.
    fn received_nothing(&self, done: Completion, woken: &mut Vec<Waker>) {
        // Before the borrow, and only for what looks like an end.
        let cut_by = if done.result() == Ok(0) { self.cut_by() } else { None };
        let mut recv = self.recv.borrow_mut();
        if !done.more() {
            recv.op = RecvOp::Idle;
        }
        match done.result() {
            // A reset that a send met first shows here as an end that it is not (RX12).
            Ok(_) => _ = recv.end.get_or_insert(cut_by.map_or(End::Eof, End::Error)),
            Err(libc::ENOBUFS) if done.buffer().is_none() => {
                recv.starved = true;
                count(&self.home.counters().pool_empty, 1);
            }
            Err(errno) if is_retried(errno) => {}
            Err(libc::ENOMEM) => recv.passing = Some(libc::ENOMEM),
            Err(errno) => _ = recv.end.get_or_insert(End::Error(errno)),
        }
        // Those who find nothing arm again: an op that just ended is re-armed by who waits.
        recv.waiters.wake(woken);
    }

    /// After bytes were taken: a shot that was stopped for want of credit starts again.
    pub(super) fn resume(self: &Rc<Self>) {
        let recv = self.recv.borrow();
        let half = self.home.settings().stream_credit / 2;
        let wanted = recv.stalled && recv.pinned <= half && recv.end.is_none() && !recv.closed;
        drop(recv);
        if wanted && context::check_home(&self.home).is_ok() {
            self.arm(None);
        }
    }

    /// The last handle, or the reading half, is gone: what is in flight ends before the thread
    /// sleeps, what is parked is thrown away.
    pub(crate) fn end_recv(&self) {
        if self.home.is_forked_copy() {
            return;
        }
        let mut recv = self.recv.borrow_mut();
        recv.closed = true;
        self.stop(&mut recv, true);
        let parked = recv.take_parked();
        drop(recv);
        drop(parked);
    }

    /// Ends the op now; what it still brought is parked.
    pub(super) fn settle_op(&self) {
        let token = self.recv.borrow().token();
        if let Some(token) = token {
            self.home.settle(token);
        }
    }

    /// Ends the op now and gives out what is parked.
    pub(super) fn settle_recv(&self) -> Vec<u8> {
        self.settle_op();
        let parked = self.recv.borrow_mut().take_parked();
        let unread = parked.iter().flat_map(Segment::bytes).copied().collect();
        for segment in &parked {
            if let Segment::Filled(fill) = segment {
                fill.consume(fill.received().len());
            }
        }
        unread
    }

    pub(super) fn put_back(&self, unread: Vec<u8>) {
        for piece in unread.chunks(PIECE_LEN) {
            self.recv.borrow_mut().park(Segment::Chunk(Chunk::from(piece.to_vec())));
        }
    }

    // ---- waiting ----------------------------------------------------------------------------

    /// Registers a future that found less than `min` bytes and no end.
    pub(super) fn wait_for_bytes(
        &self,
        id: &mut Option<WaiterId>,
        min: usize,
        cx: &mut Context<'_>,
    ) {
        let waker = cx.waker().clone();
        let mut recv = self.recv.borrow_mut();
        let replaced = recv.waiters.register(id, waker);
        // Cloning a waker is foreign code: what is waited for may have come meanwhile.
        let is_late = recv.available(min) >= min || recv.has_ending();
        drop(recv);
        drop(replaced);
        if is_late {
            cx.waker().wake_by_ref();
        }
    }

    /// A future that waited is dropped. A shot into a buffer whose future is gone is stopped if
    /// nobody else waits: the next turn gives the buffer back.
    pub(super) fn stop_waiting_for_bytes(&self, id: Option<WaiterId>) {
        let mut recv = self.recv.borrow_mut();
        if recv.op == RecvOp::Idle && recv.waiters.is_empty() {
            return;
        }
        let waker = recv.waiters.remove(id);
        if matches!(recv.op, RecvOp::Armed { lent: true, stopping: false, .. })
            && recv.waiters.is_empty()
        {
            self.stop(&mut recv, false);
        }
        drop(recv);
        drop(waker);
    }

    /// Waits until there are bytes or there is something else to say, for the future `id`.
    #[inline]
    pub(super) fn poll_bytes(
        self: &Rc<Self>,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let recv = self.recv.borrow();
            if !recv.parked.is_empty() || recv.has_ending() {
                break;
            }
            drop(recv);
            ready!(context::poll_home(&self.home, cx))?;
            if !self.arm(None) {
                self.wait_for_bytes(id, 1, cx);
                return Poll::Pending;
            }
        }
        context::spend(cx).map(Ok)
    }

    /// Takes one piece of what [`poll_bytes`](Self::poll_bytes) found for the future `id`; `None`
    /// at the end.
    #[inline]
    pub(super) fn take_chunk(self: &Rc<Self>, id: Option<WaiterId>) -> io::Result<Option<Chunk>> {
        let mut recv = self.recv.borrow_mut();
        let waiting = recv.waiters.remove(id);
        let (chunk, spent) = match recv.pop() {
            Some(Segment::Chunk(chunk)) => (chunk, None),
            Some(Segment::Filled(fill)) => {
                let (piece, is_spent) = piece_of(&fill);
                if !is_spent {
                    recv.park_first(fill.clone());
                }
                (piece, Some(fill))
            }
            None => {
                let ending = recv.ending().expect("there is an end, or nothing is ready");
                drop(recv);
                drop(waiting);
                return ending.map(|()| None);
            }
        };
        let is_stalled = recv.stalled;
        drop(recv);
        drop((waiting, spent));
        if is_stalled {
            self.resume();
        }
        Ok(Some(chunk))
    }

    /// Waits for the next bytes and takes one piece of them; `None` at the end.
    #[inline]
    pub(crate) fn recv(self: &Rc<Self>) -> RecvChunk<'_> {
        RecvChunk { connection: self, id: None }
    }
}

/// The future of `recv`.
pub(crate) struct RecvChunk<'a> {
    connection: &'a Rc<Connection>,
    id: Option<WaiterId>,
}

impl Future for RecvChunk<'_> {
    type Output = io::Result<Option<Chunk>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.connection.poll_bytes(&mut self.id, cx))?;
        let id = self.id.take();
        Poll::Ready(self.connection.take_chunk(id))
    }
}

impl Drop for RecvChunk<'_> {
    fn drop(&mut self) {
        if self.id.is_some() {
            self.connection.stop_waiting_for_bytes(self.id);
        }
    }
}

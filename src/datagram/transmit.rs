//! Sending. Each send is an entry of a queue, and they go out one after the other, in the order of
//! first polls. One op is in flight at a time, and it goes on whether or not a future waits for it.
//!
//! An entry is one datagram; or several of one size, which the kernel divides where it can, as many
//! as it takes at once, and which are sent one by one where it cannot. An error is that of its entry
//! alone.
//!
//! Of Unix sockets no send is an op: see `room.rs`. The futures are not here. Read next: `send.rs`.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::task::Waker;

use super::envelope::{control_of, message_parts};
use super::room::Room;
use super::{DatagramAddr, DatagramFamily, DatagramSocket, Envelope};
use crate::buf::{Outgoing, OutgoingMessage};
use crate::deferred::Deferred;
use crate::driver::{Completion, Driver, Payload, Role, Submitted, Token, is_retried};
use crate::ops;
use crate::queue::{Key, Line, Waiters};
use crate::sys;

/// What the kernel divides at once, at most: bytes, and datagrams. The bytes fit into one packet of
/// IPv4; of datagrams, newer kernels take more.
const OFFLOAD_MAX: (usize, usize) = (65_507, 64);

/// The sending side of a socket.
pub(super) struct Departures<A> {
    pub(super) queue: Line<QueuedDatagram<A>>,
    pub(super) flight: DatagramFlight,
    /// The memory of the last message, for the next one.
    spare: Option<Rc<OutgoingMessage>>,
    offload: Offload,
    pub(super) room: Room,
    /// Callers that wait for room. They are woken whenever a datagram has gone out.
    pub(super) waiters: Waiters,
}

/// The op in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatagramFlight {
    Idle,
    Sending(EntryOp),
    /// It was cancelled, because a future wants its buffer back. The next op waits until the future
    /// has it.
    Recalling(EntryOp),
    Recalled,
    /// It ends when there is room to send.
    AwaitingRoom(Token),
}

/// An op that sends the bytes of an entry up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryOp {
    token: Token,
    key: Key,
    end: usize,
}

/// Whether the kernel divides a message into datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offload {
    /// It was not asked yet.
    Unknown,
    Kernel,
    Absent,
}

/// A datagram that is to be sent, or several of one size.
pub(super) struct QueuedDatagram<A> {
    /// `None` while an op has it, or after the engine has failed with it.
    payload: Option<Outgoing>,
    len: usize,
    sent: usize,
    envelope: Envelope<A>,
    /// The kernel has refused to divide it.
    is_split: bool,
    state: DatagramState,
}

enum DatagramState {
    /// Its future waits, with this waker once it has one.
    Live(Option<Waker>),
    /// It goes out without a future.
    Detached,
    /// It is out of line, and its future will collect it.
    Finished(Outcome),
}

/// How the send of an entry has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Sent,
    Failed(i32),
    /// The runtime ended, or its engine failed.
    Lost,
}

/// One message of an entry: these of its bytes, which the kernel divides if there is a length.
pub(super) struct Step {
    pub(super) range: Range<usize>,
    pub(super) segment_len: Option<u16>,
}

impl Step {
    /// The message that begins at `sent`, of `len` bytes in all.
    pub(super) fn next(
        sent: usize,
        len: usize,
        segment_size: Option<usize>,
        offload: bool,
    ) -> Step {
        let Some(size) = segment_size else { return Step { range: sent..len, segment_len: None } };
        let count = if offload { (OFFLOAD_MAX.0 / size).clamp(1, OFFLOAD_MAX.1) } else { 1 };
        let end = len.min(sent.saturating_add(count * size));
        let segment_len = (end - sent > size).then(|| u16::try_from(size).ok()).flatten();
        Step { range: sent..end, segment_len }
    }

    /// Whether an errno says that the kernel or the device cannot divide this message. One by one
    /// the datagrams may go out: a device may lack checksums, and a packet may be too large for it.
    pub(super) fn cannot_be_divided(&self, errno: i32) -> bool {
        self.segment_len.is_some() && matches!(errno, libc::EINVAL | libc::EIO | libc::EMSGSIZE)
    }
}

impl<A: DatagramAddr> QueuedDatagram<A> {
    /// Of the buffer `sent` bytes are out already.
    pub(super) fn new(payload: Outgoing, envelope: Envelope<A>, sent: usize) -> QueuedDatagram<A> {
        let len = payload.len();
        let state = DatagramState::Live(None);
        QueuedDatagram { payload: Some(payload), len, sent, envelope, is_split: false, state }
    }

    /// Whether it has no address: it goes to the peer of the socket.
    pub(super) fn goes_to_peer(&self) -> bool {
        self.envelope.to.is_none()
    }

    fn step(&self, offload: Offload) -> Step {
        let offload = offload == Offload::Kernel && !self.is_split;
        Step::next(self.sent, self.len, self.envelope.segment_size, offload)
    }
}

/// An entry that has ended.
pub(super) struct CollectedDatagram {
    pub(super) sent: usize,
    pub(super) outcome: Outcome,
    /// `None`: the engine has failed while the kernel had it.
    pub(super) payload: Option<Outgoing>,
}

impl<A: DatagramAddr> Departures<A> {
    pub(super) fn new() -> Departures<A> {
        Departures {
            queue: Line::default(),
            flight: DatagramFlight::Idle,
            spare: None,
            offload: Offload::Unknown,
            room: Room::new(),
            waiters: Waiters::default(),
        }
    }

    /// The op in flight, if there is one.
    pub(super) fn token(&self) -> Option<Token> {
        match self.flight {
            DatagramFlight::Idle | DatagramFlight::Recalled => None,
            DatagramFlight::Sending(op) | DatagramFlight::Recalling(op) => Some(op.token),
            DatagramFlight::AwaitingRoom(token) => Some(token),
        }
    }

    /// Whether nothing waits to be sent, and nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.flight == DatagramFlight::Idle && self.queue.front().is_none()
    }

    /// Whether a datagram that comes now may be offered to the kernel: no other is before it.
    pub(super) fn has_no_line(&self) -> bool {
        let is_sending =
            !matches!(self.flight, DatagramFlight::Idle | DatagramFlight::AwaitingRoom(_));
        !is_sending && self.queue.front().is_none()
    }

    /// Marks the op in flight as one that is to end, if it is one with this entry. The caller
    /// cancels it.
    pub(super) fn recall(&mut self, key: Key) -> Option<Token> {
        let DatagramFlight::Sending(op) = self.flight else { return None };
        if op.key != key {
            return None;
        }
        self.flight = DatagramFlight::Recalling(op);
        Some(op.token)
    }

    /// Whether `collect` would give a result.
    pub(super) fn is_finished(&self, key: Key) -> bool {
        let entry = self.queue.get(key);
        entry.is_some_and(|entry| matches!(entry.state, DatagramState::Finished(_)))
    }

    /// Whether the entry is in flight.
    fn is_being_sent(&self, of: Key) -> bool {
        matches!(self.flight, DatagramFlight::Sending(op) if op.key == of)
    }

    /// An entry has ended: wakes its future, or drops it if it has none.
    pub(super) fn finish(&mut self, key: Key, outcome: Outcome, deferred: &mut Deferred) {
        let entry = self.queue.get_mut(key).expect("an entry stays until it has ended");
        self.room.forget(key);
        match std::mem::replace(&mut entry.state, DatagramState::Finished(outcome)) {
            DatagramState::Live(waker) => {
                self.queue.step_out(key);
                waker.into_iter().for_each(|waker| deferred.wake(waker));
            }
            DatagramState::Detached | DatagramState::Finished(_) => self.discard(key, deferred),
        }
    }

    /// Ends everything that waits, because the runtime has ended or its engine has failed.
    fn give_up(&mut self, deferred: &mut Deferred) {
        while let Some(key) = self.queue.front() {
            self.finish(key, Outcome::Lost, deferred);
        }
    }

    /// Removes an entry. Its buffer and its waker go into `deferred`.
    fn discard(&mut self, key: Key, deferred: &mut Deferred) {
        let Some(entry) = self.queue.remove(key) else { return };
        self.room.forget(key);
        entry.payload.into_iter().for_each(|payload| deferred.discard(payload));
        if let DatagramState::Live(waker) = entry.state {
            waker.into_iter().for_each(|waker| deferred.discard(waker));
        }
    }

    /// Removes an entry that has ended, and gives how. `None`, and no change: it has not.
    pub(super) fn collect(&mut self, key: Key) -> Option<CollectedDatagram> {
        let entry = self.queue.get(key)?;
        let DatagramState::Finished(outcome) = entry.state else { return None };
        let QueuedDatagram { sent, payload, .. } = self.queue.remove(key)?;
        Some(CollectedDatagram { sent, outcome, payload })
    }

    /// The future of an entry is gone. An entry that the kernel can have seen goes out all the same;
    /// any other never happened.
    pub(super) fn abandon(&mut self, key: Key, deferred: &mut Deferred) {
        let is_being_sent = self.is_being_sent(key);
        let Some(entry) = self.queue.get_mut(key) else { return };
        let is_committed = is_being_sent || entry.sent > 0;
        match &mut entry.state {
            DatagramState::Live(waker) if is_committed => {
                waker.take().into_iter().for_each(|waker| deferred.discard(waker));
                entry.state = DatagramState::Detached;
            }
            _ => self.discard(key, deferred),
        }
    }

    /// Whether the entry's future must call [`set_waker`](Self::set_waker) to be woken by `waker`.
    pub(super) fn wants(&self, key: Key, waker: &Waker) -> bool {
        match self.queue.get(key).map(|entry| &entry.state) {
            Some(DatagramState::Live(registered)) => {
                !registered.as_ref().is_some_and(|registered| registered.will_wake(waker))
            }
            _ => false,
        }
    }

    /// The end of the entry will wake `waker`. False: it has ended already.
    pub(super) fn set_waker(&mut self, key: Key, waker: Waker, deferred: &mut Deferred) -> bool {
        let entry = self.queue.get_mut(key).map(|entry| &mut entry.state);
        let (is_live, unneeded) = match entry {
            Some(DatagramState::Live(registered)) => (true, registered.replace(waker)),
            _ => (false, Some(waker)),
        };
        unneeded.into_iter().for_each(|waker| deferred.discard(waker));
        is_live
    }

    /// Removes an entry that is not in flight, or was recalled, and gives its buffer.
    pub(super) fn take_back(&mut self, key: Key, deferred: &mut Deferred) -> Option<Outgoing> {
        if self.flight == DatagramFlight::Recalled {
            self.flight = DatagramFlight::Idle;
        }
        let payload = self.queue.get_mut(key)?.payload.take();
        self.discard(key, deferred);
        payload
    }

    /// Sends the first in line, which is one datagram and in no op, without waiting.
    pub(super) fn send_front(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let key = self.queue.front().expect("the caller has looked");
        let entry = self.queue.get_mut(key).expect("it is in line");
        let payload = entry.payload.as_ref().expect("no op has it");
        let bytes = payload.as_one(0).expect("a datagram is one piece");
        entry.sent = self.offload.send_now(fd, bytes, &entry.envelope)?;
        Ok(())
    }

    /// The last attempt, when the socket is closed or given away: sends what the kernel takes
    /// without waiting. No op may be in flight.
    pub(super) fn flush_now(&mut self, fd: BorrowedFd<'_>) {
        while let Some(key) = self.queue.front() {
            let Some(entry) = self.queue.remove(key) else { return };
            let Some(payload) = &entry.payload else { continue };
            let Some(bytes) = payload.as_one(entry.sent) else { continue };
            if !self
                .offload
                .send_now(fd, bytes, &entry.envelope)
                .is_ok_and(|sent| sent == bytes.len())
            {
                return;
            }
        }
    }

    /// Whether the kernel divides messages for this socket.
    pub(super) fn offload(&mut self, fd: BorrowedFd<'_>, home: &Driver) -> Offload {
        if self.offload == Offload::Unknown {
            let is_known =
                home.may_divide_datagrams() && sys::get(fd, sys::IntOption::SegmentLen).is_ok();
            self.offload = if is_known { Offload::Kernel } else { Offload::Absent };
        }
        self.offload
    }

    /// As [`offload`](Self::offload); it is not asked for where nothing has to be divided.
    #[inline]
    pub(super) fn offload_for(
        &mut self,
        envelope: &Envelope<A>,
        fd: BorrowedFd<'_>,
        home: &Driver,
    ) -> Offload {
        match envelope.segment_size {
            Some(_) => self.offload(fd, home),
            None => self.offload,
        }
    }
}

impl Offload {
    /// Sends bytes without waiting: all of them, or as many whole datagrams as the kernel takes. An
    /// error is that of the first.
    pub(super) fn send_now<A: DatagramAddr>(
        self,
        fd: BorrowedFd<'_>,
        bytes: &[u8],
        envelope: &Envelope<A>,
    ) -> io::Result<usize> {
        let (mut sent, mut offload) = (0, self == Offload::Kernel);
        let name = envelope.to.as_ref().map(A::to_kernel);
        loop {
            let step = Step::next(sent, bytes.len(), envelope.segment_size, offload);
            let control = control_of(envelope, step.segment_len);
            match sys::datagram::send_message(
                fd,
                &bytes[step.range.clone()],
                name.as_ref(),
                &control,
            ) {
                Ok(_) if step.range.end == bytes.len() => return Ok(bytes.len()),
                Ok(_) => sent = step.range.end,
                Err(error) if step.cannot_be_divided(error.raw_os_error().unwrap_or(0)) => {
                    offload = false;
                }
                Err(_) if sent > 0 => return Ok(sent),
                Err(error) => return Err(error),
            }
        }
    }
}

impl<A: DatagramAddr> DatagramSocket<A> {
    /// Runs `change` on the sending side, under its borrow. What `change` puts into the `Deferred`
    /// is woken and dropped when the borrow has ended, since it may call back into this object.
    #[inline]
    pub(super) fn departing<T>(
        &self,
        change: impl FnOnce(&mut Departures<A>, &mut Deferred) -> T,
    ) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.departures.borrow_mut(), &mut deferred);
        self.home.run_deferred(deferred);
        result
    }

    /// Sends what is next in line, if nothing is in flight and the runtime takes ops.
    #[inline]
    pub(super) fn send_next(
        self: &Rc<Self>,
        departures: &mut Departures<A>,
        deferred: &mut Deferred,
    ) {
        match A::FAMILY {
            _ if self.is_closing.get() || !self.home.is_open() => {}
            DatagramFamily::Internet => self.submit_next(departures, deferred),
            DatagramFamily::Unix => self.send_in_line(departures, deferred),
        }
    }

    /// Submits the next message, and repeats that as long as the answer comes at once.
    #[inline]
    fn submit_next(self: &Rc<Self>, departures: &mut Departures<A>, deferred: &mut Deferred) {
        while departures.flight == DatagramFlight::Idle && self.home.is_open() {
            let Some(key) = departures.queue.front() else { return };
            let entry = departures.queue.get(key).expect("it is in line");
            let envelope = entry.envelope.clone();
            let offload = departures.offload_for(&envelope, self.fd(), &self.home);
            let spare = departures.spare.take();
            let entry = departures.queue.get_mut(key).expect("it is in line");
            let step = entry.step(offload);
            let payload = entry.payload.take().expect("no op has it");
            let message = OutgoingMessage::new(
                spare,
                payload,
                step.range.clone(),
                message_parts(&envelope, step.segment_len),
            );
            let op = ops::sendmsg::datagram(self.fd(), message);
            match self.home.submit(op, self.clone(), Role::Send) {
                Submitted::InFlight(token) => {
                    let end = step.range.end;
                    departures.flight = DatagramFlight::Sending(EntryOp { token, key, end });
                }
                Submitted::Answered(done, payload) => {
                    self.apply(departures, key, &step, done, payload, deferred);
                }
            }
        }
    }

    /// Handles the answer of the op in flight, and sends what is next. Wakers and drops go to
    /// `deferred`, which the caller runs when its borrow of `departures` has ended.
    pub(super) fn complete_send(
        self: &Rc<Self>,
        departures: &mut Departures<A>,
        done: Completion,
        payload: Payload,
        deferred: &mut Deferred,
    ) {
        let (op, next) = match departures.flight {
            DatagramFlight::Sending(op) => (Some(op), DatagramFlight::Idle),
            DatagramFlight::Recalling(op) => (Some(op), DatagramFlight::Recalled),
            DatagramFlight::AwaitingRoom(_) => (None, DatagramFlight::Idle),
            DatagramFlight::Idle | DatagramFlight::Recalled => {
                unreachable!("an op completes once")
            }
        };
        departures.flight = next;
        if let Some(EntryOp { key, end, .. }) = op {
            let entry = departures.queue.get(key).expect("an entry in flight stays in line");
            let step = Step { range: entry.sent..end, ..entry.step(departures.offload) };
            self.apply(departures, key, &step, done, payload, deferred);
        }
        departures.room.note_event();
        departures.waiters.wake(deferred);
        if self.is_closing.get() {
            return; // what waits is offered to the kernel once more, when the socket ends
        }
        match self.home.is_open() {
            true => self.send_next(departures, deferred),
            false => departures.give_up(deferred),
        }
    }

    /// Applies the answer of one message of an entry. An entry that was interrupted or cancelled, or
    /// has more to send, stays the first in line.
    fn apply(
        &self,
        departures: &mut Departures<A>,
        key: Key,
        step: &Step,
        done: Completion,
        payload: Payload,
        deferred: &mut Deferred,
    ) {
        let Payload::Message(mut message) = payload else {
            return departures.finish(key, Outcome::Lost, deferred); // its buffer is leaked
        };
        let entry = departures.queue.get_mut(key).expect("an entry in flight stays in line");
        entry.payload = Some(message.take_outgoing());
        departures.spare = Some(message);
        match done.result() {
            Ok(_) => {
                entry.sent = step.range.end;
                if entry.sent == entry.len {
                    departures.finish(key, Outcome::Sent, deferred);
                }
            }
            Err(errno) if is_retried(errno) => {}
            Err(errno) if step.cannot_be_divided(errno) => entry.is_split = true,
            Err(errno) => departures.finish(key, Outcome::Failed(errno), deferred),
        }
    }

    /// Makes sure that the end of an op will wake those who wait for room. `true`: there is room
    /// now. The caller is at home.
    pub(super) fn await_room(self: &Rc<Self>) -> bool {
        if !self.departures.borrow().is_idle() {
            return false;
        }
        if self.departures.borrow().room.is_refused() {
            return !self.pause(&mut self.departures.borrow_mut());
        }
        match self.home.submit(ops::poll::writable(self.fd()), self.clone(), Role::Send) {
            Submitted::InFlight(token) => {
                self.departures.borrow_mut().flight = DatagramFlight::AwaitingRoom(token);
                false
            }
            Submitted::Answered(..) => true,
        }
    }
}

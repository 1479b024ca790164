//! One end of a stream in memory. No kernel and no runtime takes part in it.
//!
//! ```text
//! send ──► queue: whole buffers, in order ──► unread: at most `capacity` bytes ──► recv, read
//!          (memory of the callers)            (chunks, copied)
//! ```
//!
//! Each direction is a [`Way`], which both ends share. Whatever changes it moves on what there is room
//! for, so nothing has to run in the background. A wake is due at once: there is no turn to wait for.
//!
//! What people call is not here, but in `io/memory.rs`. Read next: `layer.rs`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::bottom::Bottom;
use super::layer::{Carrier, Drained, QueuedOutcome, QueuedSend, Ticket, drain};
use super::read::{Asked, Source};
use super::send_queue::{Fate, SendQueue};
use super::transmit::Answer;
use super::unread::{End, Errno, Failure, Segment, Unread};
use crate::buf::{Chunk, Fill, Outgoing};
use crate::context;
use crate::deferred::Deferred;
use crate::driver::{Driver, error};
use crate::queue::{Key, WaiterId, Waiters};

/// One end: a way in and a way out. Its drop ends both.
pub(crate) struct MemoryEnd {
    incoming: Rc<Way>,
    outgoing: Rc<Way>,
    /// Its drop is a failure for the other end, and no EOF.
    aborts: Cell<bool>,
}

/// One direction.
struct Way {
    state: RefCell<WayState>,
}

#[derive(Default)]
struct WayState {
    /// How many bytes wait for the receiver at most.
    capacity: usize,
    /// What was sent and had no room yet.
    queue: SendQueue<Answer>,
    unread: Unread,
    sending: Sending,
    /// No handle receives: nothing is moved on, so the sender is pushed back.
    receiving_has_ended: bool,
    receivers: Waiters,
    senders: Waiters,
}

/// The state of the side that sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sending {
    #[default]
    Open,
    /// The end follows when everything has been moved on.
    ShutdownAsked,
    ShutDown,
    /// The receiver is gone, and nothing was cut off by that. Sends get this errno.
    Gone(i32),
    /// The receiver is gone, and something that was queued is lost.
    Failed(i32),
}

impl WayState {
    /// Moves bytes on for which there is room, then the end.
    fn advance(&mut self, deferred: &mut Deferred) {
        while self.has_room() {
            let Some((payload, offset)) = self.queue.take_first() else { break };
            let piece = payload.copy(offset, self.capacity - self.unread.held());
            let len = piece.len();
            self.queue.give_back([payload]);
            self.queue.advance(1, len, deferred, || Answer::Sent);
            self.unread.push(Segment::Chunk(Chunk::from(piece)));
            self.receivers.wake(deferred);
            self.senders.wake(deferred);
        }
        if self.sending == Sending::ShutdownAsked && self.queue.is_idle() {
            self.sending = Sending::ShutDown;
            self.unread.finish(End::Eof);
            self.receivers.wake(deferred);
            self.senders.wake(deferred);
        }
    }

    fn has_room(&self) -> bool {
        !self.receiving_has_ended && self.unread.held() < self.capacity
    }

    /// The receiver is gone for good: what is queued fails with `errno`, and so do later sends.
    fn lose_receiver(&mut self, errno: i32, deferred: &mut Deferred) {
        self.receiving_has_ended = true;
        self.unread.clear(deferred);
        match self.sending {
            Sending::Open | Sending::ShutdownAsked if !self.queue.is_idle() => {
                self.sending = Sending::Failed(errno);
            }
            Sending::Open => self.sending = Sending::Gone(errno),
            Sending::ShutdownAsked => self.sending = Sending::ShutDown,
            Sending::ShutDown | Sending::Gone(_) | Sending::Failed(_) => {}
        }
        self.queue.finish_all(deferred, || Answer::Failed(errno));
        self.senders.wake(deferred);
    }

    /// The sender is gone, and what it sent is not all: that is a failure behind what is unread.
    fn abort(&mut self, deferred: &mut Deferred) {
        self.queue.finish_all(deferred, || Answer::Failed(libc::ECONNRESET));
        self.unread.finish(End::Failed(Failure::Errno(Errno(libc::ECONNRESET))));
        self.receivers.wake(deferred);
    }

    /// Ends sending behind what is queued.
    fn shut_down(&mut self, deferred: &mut Deferred) {
        if self.sending == Sending::Open {
            self.sending = Sending::ShutdownAsked;
        }
        self.advance(deferred);
    }
}

impl Way {
    fn new(capacity: usize) -> Rc<Way> {
        let state = WayState { capacity, ..WayState::default() };
        Rc::new(Way { state: RefCell::new(state) })
    }

    /// Runs `change` under the borrow. What it puts into the `Deferred` is woken and dropped when the
    /// borrow has ended, since it may call back into this object.
    fn change<T>(&self, change: impl FnOnce(&mut WayState, &mut Deferred) -> T) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.state.borrow_mut(), &mut deferred);
        deferred.run();
        result
    }

    /// As [`change`](Self::change), and then moves on what there is room for.
    fn advance_after<T>(&self, change: impl FnOnce(&mut WayState, &mut Deferred) -> T) -> T {
        self.change(|way, deferred| {
            let result = change(way, deferred);
            way.advance(deferred);
            result
        })
    }
}

impl MemoryEnd {
    /// Two ends. In each direction `capacity` bytes, and at least one, wait for the receiver.
    pub(crate) fn pair(capacity: usize) -> (Rc<MemoryEnd>, Rc<MemoryEnd>) {
        let capacity = capacity.max(1);
        let (there, back) = (Way::new(capacity), Way::new(capacity));
        let end = |incoming: &Rc<Way>, outgoing: &Rc<Way>| {
            let (incoming, outgoing) = (incoming.clone(), outgoing.clone());
            Rc::new(MemoryEnd { incoming, outgoing, aborts: Cell::new(false) })
        };
        (end(&back, &there), end(&there, &back))
    }

    /// The drop of this end will be a failure for the other one.
    pub(crate) fn abort_on_drop(&self) {
        self.aborts.set(true);
    }
}

impl Drop for MemoryEnd {
    fn drop(&mut self) {
        let errno = if self.aborts.get() { libc::ECONNRESET } else { libc::EPIPE };
        self.incoming.change(|way, deferred| way.lose_receiver(errno, deferred));
        self.outgoing.change(|way, deferred| match self.aborts.get() {
            true => way.abort(deferred),
            false => way.shut_down(deferred),
        });
    }
}

impl Source for MemoryEnd {
    type Bottom = MemoryEnd;

    fn with_unread<T>(&self, run: impl FnOnce(&mut Unread, &mut Deferred) -> T) -> T {
        self.incoming.change(|way, deferred| run(&mut way.unread, deferred))
    }

    fn bottom(&self) -> &MemoryEnd {
        self
    }

    fn lend_min(&self) -> Option<usize> {
        None
    }

    /// A `read_exact` has moved what there was into its caller's buffer, so there may be room now.
    fn ask(self: &Rc<Self>, _: Option<Rc<Fill<dyn Any>>>, _: &mut Context<'_>) -> Asked {
        self.incoming.change(|way, deferred| {
            let before = way.unread.held();
            way.advance(deferred);
            let has_moved = way.unread.held() > before || way.unread.has_ending();
            if has_moved { Asked::LookAgain } else { Asked::Wait }
        })
    }

    fn can_get_further(self: &Rc<Self>) -> bool {
        let way = self.incoming.state.borrow();
        way.has_room() && !way.queue.is_idle()
    }

    fn bytes_were_taken(self: &Rc<Self>) {
        self.incoming.advance_after(|_, _| {});
    }
}

impl Bottom for MemoryEnd {
    /// At home everywhere.
    fn poll_home(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn wait_for_arrival(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>) {
        let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
        self.incoming.change(|way, deferred| way.receivers.register(id, waker, deferred));
    }

    fn stop_waiting_for_arrival(&self, id: Option<WaiterId>) {
        self.incoming.change(|way, deferred| way.receivers.remove(id, deferred));
    }

    fn wake_receivers(&self) {
        self.incoming.change(|way, deferred| way.receivers.wake(deferred));
    }

    /// No buffer is lent.
    fn recall_buffer(&self) {}

    fn end_receive(&self) {
        self.incoming.change(|way, deferred| {
            way.receiving_has_ended = true;
            way.unread.clear(deferred);
        });
    }

    fn receive_again(&self) -> bool {
        self.incoming.advance_after(|way, _| std::mem::take(&mut way.receiving_has_ended))
    }

    fn wait_for_progress(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>) {
        let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
        let is_late = self.outgoing.change(|way, deferred| {
            let is_new = way.senders.wants(*id, &waker);
            way.senders.register(id, waker, deferred);
            is_new && way.queue.is_idle()
        });
        if is_late {
            cx.waker().wake_by_ref();
        }
    }

    fn stop_waiting_for_progress(&self, id: Option<WaiterId>) {
        self.outgoing.change(|way, deferred| way.senders.remove(id, deferred));
    }

    fn wake_senders(&self) {
        self.outgoing.change(|way, deferred| way.senders.wake(deferred));
    }
}

impl Carrier for MemoryEnd {
    fn driver(&self) -> Option<&Rc<Driver>> {
        None
    }

    fn depth(&self) -> u32 {
        0
    }

    fn check_sendable(&self) -> io::Result<()> {
        match self.outgoing.state.borrow().sending {
            Sending::Open => Ok(()),
            Sending::ShutdownAsked | Sending::ShutDown => Err(error(libc::EPIPE)),
            Sending::Gone(errno) | Sending::Failed(errno) => Err(error(errno)),
        }
    }

    fn check_going_out(&self) -> io::Result<()> {
        match self.outgoing.state.borrow().sending {
            Sending::Failed(errno) => Err(error(errno)),
            _ => Ok(()),
        }
    }

    fn unsent(&self) -> usize {
        self.outgoing.state.borrow().queue.unsent()
    }

    fn queue(self: &Rc<Self>, payload: Outgoing, waker: Option<Waker>, fate: Fate) -> Ticket {
        let key = self.outgoing.advance_after(|way, _| way.queue.push_as(payload, waker, fate));
        Ticket { depth: 0, key }
    }

    fn queue_detached(self: &Rc<Self>, bytes: Vec<u8>) {
        self.outgoing.advance_after(|way, _| way.queue.push_detached(bytes));
    }

    fn poll_sent(
        self: &Rc<Self>,
        send: &mut QueuedSend,
        cx: &mut Context<'_>,
    ) -> Poll<QueuedOutcome> {
        let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
        let key = send.ticket.key;
        let collected = self.outgoing.change(|way, deferred| {
            way.queue.set_waker(key, waker, deferred);
            way.queue.collect(key)
        });
        let Some(collected) = collected else { return Poll::Pending };
        send.payload = collected.payload;
        let error = match collected.answer {
            Answer::Sent => None,
            Answer::Failed(errno) => Some(error(errno)),
            Answer::Lost => unreachable!("no engine takes part"),
        };
        Poll::Ready(QueuedOutcome::Over { sent: collected.sent, error })
    }

    fn take_back(self: &Rc<Self>, key: Key) -> Outgoing {
        let payload =
            self.outgoing.advance_after(|way, deferred| way.queue.take_back(key, deferred));
        payload.expect("an entry stays until it is collected")
    }

    fn abandon(self: &Rc<Self>, ticket: Ticket) {
        self.outgoing.advance_after(|way, deferred| _ = way.queue.abandon(ticket.key, deferred));
    }

    fn ask_shutdown(self: &Rc<Self>) {
        self.outgoing.change(|way, deferred| way.shut_down(deferred));
    }

    fn poll_shutdown(
        self: &Rc<Self>,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.ask_shutdown();
        let sending = self.outgoing.state.borrow().sending;
        let done = match sending {
            Sending::ShutDown | Sending::Gone(libc::EPIPE) => Ok(()),
            Sending::Gone(_) => Err(error(libc::ENOTCONN)), // it was reset
            Sending::Failed(errno) => Err(error(errno)),
            Sending::Open | Sending::ShutdownAsked => {
                self.wait_for_progress(id, cx);
                return Poll::Pending;
            }
        };
        ready!(context::consume_budget(cx));
        Poll::Ready(done)
    }

    fn drain_bottom(self: &Rc<Self>, max: usize) -> Drained<'_> {
        Box::pin(drain(self, max))
    }
}

//! A standard stream whose calls a thread makes: `blocking/standard.rs`. No ops and no driver take part
//! in it. It has one direction, and the handles over it have the calls of that direction only.
//!
//! Read next: `layer.rs`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::bottom::Bottom;
use super::layer::{Carrier, Drained, QueuedOutcome, QueuedSend, Ticket, drain};
use super::read::{Asked, Source};
use super::send_queue::Fate;
use super::unread::{End, Errno, Segment, Unread};
use crate::blocking::standard::{self, Input, Output, PieceId};
use crate::buf::{Chunk, Fill, Outgoing};
use crate::context;
use crate::deferred::Deferred;
use crate::driver::{self, Driver, error};
use crate::queue::{Key, Line, WaiterId};
use crate::sys::fork::ForkMark;
use crate::sys::standard::Standard;

/// One open standard stream.
pub(crate) struct ThreadedEnd {
    thread: Thread,
    /// Of the process that opened it. In a forked copy nothing is done.
    mark: ForkMark,
    unread: RefCell<Unread>,
    /// Buffers of which the thread has copies, until their futures take them.
    sends: RefCell<Line<HandedOver>>,
    /// The caller that polls without a future, among all that wait for the thread: each open stream has
    /// one.
    poller: Cell<Option<WaiterId>>,
}

/// Who makes the calls.
enum Thread {
    Reads(&'static Input),
    Writes(Standard, &'static Output),
}

struct HandedOver {
    id: PieceId,
    payload: Outgoing,
}

impl ThreadedEnd {
    pub(crate) fn open(stream: Standard) -> io::Result<Rc<ThreadedEnd>> {
        let mark = ForkMark::get()?;
        let thread = match stream {
            Standard::Input => Thread::Reads(standard::input()),
            stream => Thread::Writes(stream, standard::output(stream)),
        };
        match thread {
            Thread::Reads(input) => input.open()?,
            Thread::Writes(_, output) => output.open(),
        }
        Ok(Rc::new(ThreadedEnd {
            thread,
            mark,
            unread: RefCell::default(),
            sends: RefCell::default(),
            poller: Cell::default(),
        }))
    }

    /// The thread that reads. `None`: it writes, or this is a forked copy.
    fn input(&self) -> Option<&'static Input> {
        match self.thread {
            Thread::Reads(input) if !self.mark.is_child() => Some(input),
            _ => None,
        }
    }

    /// The thread that writes. `None`: it reads, or this is a forked copy.
    fn output(&self) -> Option<&'static Output> {
        match self.thread {
            Thread::Writes(_, output) if !self.mark.is_child() => Some(output),
            _ => None,
        }
    }

    /// Runs `wait` with the name that the waiting caller `id` has at the thread.
    fn as_waiter<T>(
        &self,
        id: &mut Option<WaiterId>,
        wait: impl FnOnce(&mut Option<WaiterId>) -> T,
    ) -> T {
        if *id != Some(WaiterId::Poller) {
            return wait(id);
        }
        let mut poller = self.poller.get();
        let result = wait(&mut poller);
        self.poller.set(poller);
        result
    }

    fn change_unread<T>(&self, change: impl FnOnce(&mut Unread, &mut Deferred) -> T) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.unread.borrow_mut(), &mut deferred);
        deferred.run();
        result
    }
}

impl Drop for ThreadedEnd {
    fn drop(&mut self) {
        if let Some(input) = self.input() {
            let unread = self.change_unread(|unread, deferred| unread.take_all(deferred));
            input.put_back(&unread);
            input.stop_waiting(self.poller.get());
            input.close();
        }
        if let Some(output) = self.output() {
            self.sends.get_mut().iter().for_each(|send| output.detach(send.id)); // of forgotten futures
            output.stop_waiting(self.poller.get());
            output.close();
        }
    }
}

impl Source for ThreadedEnd {
    type Bottom = ThreadedEnd;

    fn with_unread<T>(&self, run: impl FnOnce(&mut Unread, &mut Deferred) -> T) -> T {
        self.change_unread(run)
    }

    fn bottom(&self) -> &ThreadedEnd {
        self
    }

    fn lend_min(&self) -> Option<usize> {
        None
    }

    fn ask(self: &Rc<Self>, _: Option<Rc<Fill<dyn Any>>>, _: &mut Context<'_>) -> Asked {
        let Some(input) = self.input() else { return Asked::Wait };
        let bytes = input.take_unread();
        if !bytes.is_empty() {
            self.change_unread(|unread, _| unread.push(Segment::Chunk(Chunk::from(bytes))));
            return Asked::LookAgain;
        }
        let Some(ending) = input.take_ending() else { return Asked::Wait };
        self.change_unread(|unread, _| match ending {
            Ok(()) => unread.finish(End::Eof),
            Err(errno) => unread.fail(Errno(errno)),
        });
        Asked::LookAgain
    }

    fn can_get_further(self: &Rc<Self>) -> bool {
        self.input().is_some_and(Input::has_answer)
    }

    fn bytes_were_taken(self: &Rc<Self>) {}
}

impl Bottom for ThreadedEnd {
    /// At home everywhere but in a forked copy, if there is a thread.
    fn poll_home(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let started = match self.thread {
            _ if self.mark.is_child() => Err(driver::forked()),
            Thread::Reads(input) => input.start(),
            Thread::Writes(..) => Ok(()), // `check_sendable` starts it
        };
        match started {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => context::consume_budget(cx).map(|()| Err(error)),
        }
    }

    fn wait_for_arrival(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>) {
        let waker = cx.waker().clone(); // runs foreign code, so before the lock
        if let Some(input) = self.input() {
            self.as_waiter(id, |id| input.wait(id, waker));
        }
    }

    fn stop_waiting_for_arrival(&self, id: Option<WaiterId>) {
        if let Some(input) = self.input() {
            input.stop_waiting(id);
        }
    }

    fn wake_receivers(&self) {
        if let Some(input) = self.input() {
            input.wake();
        }
    }

    /// No buffer is lent.
    fn recall_buffer(&self) {}

    fn end_receive(&self) {}

    fn receive_again(&self) -> bool {
        false
    }

    fn wait_for_progress(&self, id: &mut Option<WaiterId>, cx: &mut Context<'_>) {
        let waker = cx.waker().clone(); // runs foreign code, so before the lock
        let waits =
            self.output().is_some_and(|output| self.as_waiter(id, |id| output.wait(id, waker)));
        if !waits {
            cx.waker().wake_by_ref();
        }
    }

    fn stop_waiting_for_progress(&self, id: Option<WaiterId>) {
        if let Some(output) = self.output().filter(|_| id.is_some()) {
            output.stop_waiting(id);
        }
    }

    fn wake_senders(&self) {
        if let Some(output) = self.output() {
            output.wake();
        }
    }
}

impl Carrier for ThreadedEnd {
    fn driver(&self) -> Option<&Rc<Driver>> {
        None
    }

    fn depth(&self) -> u32 {
        0
    }

    fn check_sendable(&self) -> io::Result<()> {
        self.check_going_out()?;
        match self.thread {
            Thread::Writes(stream, output) => output.start(stream),
            Thread::Reads(_) => unreachable!("stdin has no call that sends"),
        }
    }

    fn check_going_out(&self) -> io::Result<()> {
        let output = self.output().ok_or_else(driver::forked)?;
        output.failure().map_or(Ok(()), |errno| Err(error(errno)))
    }

    fn unsent(&self) -> usize {
        self.output().map_or(0, Output::unsent)
    }

    fn queue(self: &Rc<Self>, payload: Outgoing, waker: Option<Waker>, _: Fate) -> Ticket {
        let output = self.output().expect("the caller has asked `check_sendable`");
        let id = output.push(payload.copy(0, payload.len()), waker);
        Ticket { depth: 0, key: self.sends.borrow_mut().push(HandedOver { id, payload }) }
    }

    fn queue_detached(self: &Rc<Self>, bytes: Vec<u8>) {
        if let Some(output) = self.output().filter(|_| !bytes.is_empty()) {
            output.push(bytes, None);
        }
    }

    fn poll_sent(
        self: &Rc<Self>,
        send: &mut QueuedSend,
        cx: &mut Context<'_>,
    ) -> Poll<QueuedOutcome> {
        let Some(output) = self.output() else {
            return Poll::Ready(QueuedOutcome::Away(driver::forked()));
        };
        let key = send.ticket.key;
        let waker = cx.waker().clone(); // runs foreign code, so before the lock
        let id = self.sends.borrow().get(key).expect("an entry stays until it is taken").id;
        let Some(written) = output.poll(id, waker) else { return Poll::Pending };
        let handed = self.sends.borrow_mut().remove(key).expect("just looked");
        let mut payload = handed.payload;
        if written.errno.is_none() {
            payload.note_taken();
        }
        send.payload = Some(payload);
        let error = written.errno.map(error);
        Poll::Ready(QueuedOutcome::Over { sent: written.len, error })
    }

    /// Only a forked copy takes buffers back: what the parent's thread does with its copy is its own.
    fn take_back(self: &Rc<Self>, key: Key) -> Outgoing {
        self.sends.borrow_mut().remove(key).expect("an entry stays until it is taken").payload
    }

    fn abandon(self: &Rc<Self>, ticket: Ticket) {
        let Some(mut handed) = self.sends.borrow_mut().remove(ticket.key) else { return };
        let is_withdrawn = self.output().is_some_and(|output| output.abandon(handed.id));
        if !is_withdrawn {
            handed.payload.note_taken();
        }
    }

    /// Others share the stream: there is no end to tell.
    fn ask_shutdown(self: &Rc<Self>) {}

    fn poll_shutdown(
        self: &Rc<Self>,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = self.check_going_out() {
            return context::consume_budget(cx).map(|()| Err(error));
        }
        if self.unsent() > 0 {
            self.wait_for_progress(id, cx);
            return Poll::Pending;
        }
        ready!(context::consume_budget(cx));
        Poll::Ready(Ok(()))
    }

    fn drain_bottom(self: &Rc<Self>, max: usize) -> Drained<'_> {
        Box::pin(drain(self, max))
    }
}

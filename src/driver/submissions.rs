//! Requests on their way to the engine, and answers on their way back.
//!
//! [`Submissions`] joins the op table, which owns the ops in flight, with the engine, which knows
//! only tokens. It loses nothing. A submission that does not fit into the ring waits in the
//! backlog, in order. A cancel waits in a list until the tasks have been polled.
//!
//! This file calls no owner. `mod.rs` does: read that next.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use io_uring::squeue;

use super::engine::{Engine, Pushed};
use super::op::{Completion, Op, Owner, Payload, Request, Role, Token};
use super::ring::SleepLimit;
use super::table::{Ended, Table};
use super::{Counters, count};

/// After this many failed enters in a row that brought nothing, the thread sleeps a little.
const FAILED_ENTERS_MAX: u32 = 16;
/// The capacity that the list of cancels keeps between two turns.
const CANCELS_KEPT: usize = 1024;

/// The panic of a call that needs the engine after the end of the runtime.
pub(super) const GONE: &str = "a driver that is gone takes no ops and is not parked";

pub(super) struct Submissions {
    /// `None` once torn down.
    engine: RefCell<Option<Engine>>,
    is_epoll: bool,
    table: RefCell<Table>,
    /// Submissions that did not fit into the ring. Bounded by the objects: each has at most one op
    /// and one cancel of a kind.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    /// Ops to cancel when the tasks have been polled. Each is listed once.
    cancels: RefCell<Vec<Token>>,
    /// How many enters in a row have failed with a transient error and brought nothing.
    failed_enters: Cell<u32>,
    counters: Counters,
    /// How many system calls objects have made themselves, in place of a request.
    calls_of_objects: Cell<u64>,
}

impl Submissions {
    pub(super) fn new(engine: Engine) -> Submissions {
        Submissions {
            is_epoll: matches!(engine, Engine::Epoll(_)),
            engine: RefCell::new(Some(engine)),
            table: RefCell::new(Table::new()),
            backlog: RefCell::default(),
            cancels: RefCell::default(),
            failed_enters: Cell::new(0),
            counters: Counters::default(),
            calls_of_objects: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn is_epoll(&self) -> bool {
        self.is_epoll
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many system calls objects have made themselves, in place of a request.
    #[inline]
    pub(super) fn calls_of_objects(&self) -> &Cell<u64> {
        &self.calls_of_objects
    }

    /// How many ops are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.table.borrow().len()
    }

    /// Whether the op is in flight.
    pub(super) fn is_live(&self, token: Token) -> bool {
        self.table.borrow_mut().is_live(token)
    }

    /// How many ops must end before the driver sleeps.
    pub(super) fn blocking_sleep(&self) -> usize {
        self.table.borrow().blocking_sleep()
    }

    /// Calls `call` with the engine. Panics after the end of the runtime.
    #[inline]
    pub(super) fn with_engine<T>(&self, call: impl FnOnce(&Engine) -> T) -> T {
        self.try_engine(call).expect(GONE)
    }

    /// As `with_engine`, but the runtime may have been dropped: then it gives `None`.
    #[inline]
    pub(super) fn try_engine<T>(&self, call: impl FnOnce(&Engine) -> T) -> Option<T> {
        self.engine.borrow().as_ref().map(call)
    }

    /// Takes the engine, at the end of the runtime. `None`: it was taken before.
    pub(super) fn take_engine(&self) -> Option<Engine> {
        self.engine.take()
    }

    // ---- ops --------------------------------------------------------------------------------

    /// Makes an attempt, if the engine does so. `Some`: the answer, and the request is over.
    /// `None`: the request must wait, and the caller passes it to [`start`](Self::start).
    #[inline]
    pub(super) fn attempt<R: Request, P>(&self, op: &mut Op<R, P>) -> Option<Completion> {
        let done = self.with_engine(|engine| engine.attempt(op))?;
        count(&self.counters.submissions, 1);
        count(&self.counters.completions, 1);
        Some(done)
    }

    /// Takes an op over until its terminal completion. The table keeps its `owner` and `role` for
    /// [`complete`](Self::complete), which asks by the token.
    #[inline]
    pub(super) fn start<R: Request>(&self, op: Op<R>, owner: Rc<dyn Owner>, role: Role) -> Token {
        if self.is_epoll {
            count(&self.counters.submissions, 1);
        }
        let token = self.table.borrow_mut().insert(owner, role, op.payload);
        self.push_or_queue(|engine| engine.start::<R>(&op.target, op.sent, token));
        token
    }

    /// Ends a waiting op at once: its memory is dropped, and its owner is not told. False, and
    /// nothing has changed: the kernel has it, or it was answered.
    pub(super) fn withdraw(&self, token: Token) -> bool {
        let is_withdrawn = self.with_engine(|engine| engine.withdraw(token));
        if is_withdrawn {
            let mut payload = Payload::None;
            let found = self.table.borrow_mut().complete(token, false, &mut payload);
            drop((found, payload)); // no borrow is held
        }
        is_withdrawn
    }

    /// Asks for an op to end; with `before_sleep`, before the driver sleeps.
    /// [`send_cancels`](Self::send_cancels) sends the cancel. An op that has ended is not affected.
    pub(super) fn ask_cancel(&self, token: Token, before_sleep: bool) {
        if self.table.borrow_mut().ask_cancel(token, before_sleep) {
            self.cancels.borrow_mut().push(token);
        }
    }

    /// Undoes a cancel, so that the op goes on. False: it was sent, it was asked for with
    /// `before_sleep`, or the op has ended.
    pub(super) fn undo_cancel(&self, token: Token) -> bool {
        self.table.borrow_mut().undo_cancel(token)
    }

    /// Sends the cancels that were asked for and not undone.
    pub(super) fn send_cancels(&self) {
        if self.cancels.borrow().is_empty() {
            return;
        }
        let mut cancels = self.cancels.take();
        for token in cancels.drain(..) {
            if self.table.borrow_mut().cancel_sent(token) {
                self.push_or_queue(|engine| engine.cancel(token));
            }
        }
        cancels.shrink_to(CANCELS_KEPT);
        self.cancels.replace(cancels); // the engine calls no owner, so no cancel was added
    }

    /// Asks for everything in flight to end, and sends the cancels. It does not wait for the
    /// answers.
    pub(super) fn cancel_all(&self) {
        let tokens = self.table.borrow().tokens();
        tokens.into_iter().for_each(|token| self.ask_cancel(token, false));
        self.send_cancels();
    }

    /// Gives the owner and the role of the op of an answer. If the op has ended, its memory is
    /// moved to `payload`. `None`: no op in flight has this token.
    #[inline]
    pub(super) fn complete(
        &self,
        token: Token,
        done: Completion,
        payload: &mut Payload,
    ) -> Option<(Rc<dyn Owner>, Role)> {
        self.table.borrow_mut().complete(token, done.more(), payload)
    }

    /// Takes everything in flight out of the table. The engine must have failed or be gone: it
    /// cannot complete any of this. If the kernel may still use the memory, the caller leaks it.
    pub(super) fn take_all(&self) -> Vec<Ended> {
        self.backlog.borrow_mut().clear();
        self.table.borrow_mut().take_all()
    }

    // ---- the engine -------------------------------------------------------------------------

    /// Pushes a submission of the driver itself to the ring.
    pub(super) fn push(&self, entry: squeue::Entry) {
        self.push_or_queue(|engine| engine.push(entry));
    }

    /// Pushes a submission by `tell`. If the queue is full, it is submitted first. A submission
    /// that still does not fit waits in the backlog, in order.
    #[inline]
    fn push_or_queue(&self, tell: impl FnOnce(&Engine) -> Pushed) {
        if !self.backlog.borrow().is_empty() {
            self.submit_backlog();
        }
        if let Pushed::Full(entry) = self.with_engine(tell) {
            self.backlog.borrow_mut().push_back(entry);
            self.submit_backlog();
        }
    }

    /// Submits until the backlog is empty, or the kernel takes no more for now.
    fn submit_backlog(&self) {
        loop {
            let mut backlog = self.backlog.borrow_mut();
            while let Some(entry) = backlog.pop_front() {
                if let Pushed::Full(entry) = self.with_engine(|engine| engine.push(entry)) {
                    backlog.push_front(entry);
                    break;
                }
            }
            if backlog.is_empty() {
                return;
            }
            drop(backlog);
            count(&self.counters.enters, 1);
            match self.with_engine(Engine::submit) {
                Ok(taken) if taken > 0 => count(&self.counters.submissions, taken.into()),
                _ => return, // the next enter reaps, which makes room
            }
        }
    }

    /// One io_uring_enter(2) or epoll_pwait2(2), as [`Engine::enter`]. Only this method handles its
    /// errors. `Ok`: also after a transient error; the caller reaps, and enters again if it still
    /// waits. `Err`: the engine has failed for good, with this errno.
    #[inline]
    pub(super) fn enter(&self, want: u32, sleep: SleepLimit) -> Result<(), i32> {
        if !self.backlog.borrow().is_empty() {
            self.submit_backlog();
        }
        // While the backlog is not empty, a sleep could last for ever.
        let want = if self.backlog.borrow().is_empty() { want } else { 0 };
        count(&self.counters.enters, 1);
        match self.with_engine(|engine| engine.enter(want, sleep)) {
            Ok(taken) => {
                count(&self.counters.submissions, taken.into());
                Ok(())
            }
            Err(error) => self.enter_failed(&error),
        }
    }

    /// Whether a failed enter may be made again (`Ok`), or the engine has failed for good (`Err`).
    /// After many failures in a row it sleeps a little.
    #[cold]
    fn enter_failed(&self, error: &io::Error) -> Result<(), i32> {
        match error.raw_os_error().unwrap_or(libc::EIO) {
            // A signal; the deadline.
            libc::EINTR | libc::ETIME => Ok(()),
            // The kernel is short of memory, or wants completions reaped first. The caller reaps
            // and comes again.
            libc::EAGAIN | libc::EBUSY | libc::ENOMEM => {
                self.failed_enters.set(self.failed_enters.get() + 1);
                if self.failed_enters.get() >= FAILED_ENTERS_MAX {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
            errno => Err(errno),
        }
    }

    /// Takes the next answer, with the user_data of its op. `None`: there is none, or the runtime
    /// was dropped.
    #[inline]
    pub(super) fn next_completion(&self) -> Option<(u64, Completion)> {
        let next = self.try_engine(Engine::next_completion).flatten()?;
        count(&self.counters.completions, 1);
        self.failed_enters.set(0);
        Some(next)
    }

    /// Makes the engine forget a descriptor, as [`Engine::forget`]. No effect if the runtime was
    /// dropped.
    pub(super) fn forget(&self, fd: BorrowedFd<'_>) {
        self.try_engine(|engine| engine.forget(fd));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use io_uring::opcode;

    use super::super::op::testing::{self, NoOwner};
    use super::super::{Backend, Settings};
    use super::*;
    use crate::sys;

    fn settings(backend: Backend) -> Settings {
        Settings { completion_entries: 64, ..Settings::small(backend) }
    }

    fn on_epoll() -> Submissions {
        let eventfd = sys::eventfd().expect("an eventfd");
        let (engine, _) =
            Engine::epoll(&settings(Backend::Epoll), eventfd.as_fd()).expect("an epoll set");
        Submissions::new(engine)
    }

    fn start(submissions: &Submissions, fd: i32) -> Token {
        submissions.start(testing::wait(fd), Rc::new(NoOwner), Role::Recv)
    }

    #[test]
    fn a_full_queue_keeps_the_order() {
        let Ok((engine, _pool)) = Engine::ring(&settings(Backend::Ring)) else {
            return println!("skipped: io_uring is not available here");
        };
        let submissions = Submissions::new(engine);
        let nop = |user_data| opcode::Nop::new().build().user_data(user_data);
        submissions.push(nop(1));
        submissions.push(nop(2));
        let is_full = submissions.with_engine(|engine| engine.push(nop(3)));
        assert!(matches!(is_full, Pushed::Full(_)), "a queue of two entries is full");
        // As if the kernel had refused submissions for a moment.
        submissions.backlog.borrow_mut().extend([nop(3), nop(4), nop(5)]);
        (6..=9).for_each(|user_data| submissions.push(nop(user_data)));
        assert!(submissions.backlog.borrow().is_empty());
        submissions.enter(0, SleepLimit::Long).expect("an engine that works");
        let completed = std::iter::from_fn(|| submissions.next_completion());
        let order: Vec<u64> = completed.map(|(user_data, _)| user_data).collect();
        assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(submissions.counters.submissions.get(), 9);
    }

    #[test]
    fn a_cancel_is_listed_once_however_often_it_is_taken_back() {
        let submissions = on_epoll();
        let token = start(&submissions, 5);
        for _ in 0..100 {
            submissions.ask_cancel(token, false);
            assert!(submissions.undo_cancel(token));
        }
        assert_eq!(submissions.cancels.borrow().len(), 1);
        submissions.send_cancels();
        assert!(submissions.next_completion().is_none(), "the last word was to keep it");
        for _ in 0..100 {
            submissions.ask_cancel(token, false);
        }
        assert_eq!(*submissions.cancels.borrow(), [token]);
        submissions.send_cancels();
        assert!(!submissions.undo_cancel(token), "it is too late");
        let (user_data, done) = submissions.next_completion().expect("one answer");
        assert_eq!((user_data, done.result()), (token.to_user_data(), Err(libc::ECANCELED)));
        assert!(submissions.next_completion().is_none());
    }

    #[test]
    fn the_list_of_cancels_is_small_again_after_a_burst() {
        let submissions = on_epoll();
        let count = 4 * CANCELS_KEPT;
        let tokens: Vec<Token> = (0..count).map(|fd| start(&submissions, fd as i32)).collect();
        tokens.iter().for_each(|token| submissions.ask_cancel(*token, true));
        assert_eq!(submissions.blocking_sleep(), count);
        assert!(submissions.cancels.borrow().capacity() >= count);
        submissions.send_cancels();
        assert!(submissions.cancels.borrow().capacity() <= CANCELS_KEPT);
        while let Some((user_data, done)) = submissions.next_completion() {
            let token = Token::from_user_data(user_data);
            assert!(submissions.complete(token, done, &mut Payload::None).is_some());
        }
        assert_eq!((submissions.in_flight(), submissions.blocking_sleep()), (0, 0));
    }
}

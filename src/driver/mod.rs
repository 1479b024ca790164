//! The seam between futures and the kernel: submit, cancel, keep, settle, park, notify.
//!
//! What an engine must provide stands in `engine.rs`, and here, where an op is submitted, cancelled
//! and its descriptor closed. An engine knows tokens and descriptors, not objects. Everything else
//! is shared: the op table, the order of cancels and closes, the pool, the wake-ups, the teardown.
//! The executor and the timers know nothing of this module; what passes between them is `Waker`.
//!
//! Order to read: `op.rs`, `table.rs`, this file, `engine.rs`, `ring.rs`, `epoll.rs`,
//! `buffer_ring.rs`, `wake.rs`.

mod buffer_ring;
mod capabilities;
mod engine;
mod epoll;
mod handshake;
mod op;
mod probe;
mod ring;
mod table;
mod trial;
mod wake;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types};
use slab::Slab;

pub use buffer_ring::Chunk;
pub(crate) use buffer_ring::Pool;
pub use capabilities::{Capabilities, Feature, Support};
use engine::Engine;
use epoll::Epoll;
pub(crate) use op::{
    Attempt, Completion, Interest, Op, Owner, Payload, Request, Role, Submitted, Target, Token,
    error, is_retried,
};
pub use probe::{Backend, ParseBackendError, SetupError};
pub(crate) use probe::{Kernel, io_uring_disabled, is_denial};
pub(crate) use ring::ask_in_vain;
use ring::{Ring, Sleep};
use table::Table;
use wake::Notifier;

use crate::panics::{bury, contain, wake_all};
use crate::sys;
use crate::sys::fork::ForkMark;

/// The group of provided buffers that receives pick from.
pub(crate) const BUFFER_GROUP: u16 = 0;

/// user_data of cancels, whose answer says nothing that the terminal completion does not.
const CANCEL: u64 = u64::MAX;
/// user_data of the poll on the notifier's eventfd.
const NOTIFIED: u64 = u64::MAX - 1;

/// How long teardown waits without progress before it leaks what is left.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long a wait for ops that are about to end may sleep in one enter.
const SETTLE_SLICE: Duration = Duration::from_millis(100);
/// How many wait for a descriptor to become free.
const SHORT_MAX: usize = 1024;
const REGISTERING: &str = "registering the receive buffers";
const MAPPING: &str = "mapping the receive buffers (buffer_size times buffer_count)";
/// After this many enters that failed in passing and brought nothing, pause.
const FRUITLESS_MAX: u32 = 16;

/// Sizes and limits, from the builder.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) backend: Backend,
    pub(crate) pretended: Option<Kernel>,
    pub(crate) entries: u32,
    pub(crate) completion_entries: u32,
    pub(crate) buffer_len: usize,
    pub(crate) buffer_count: u16,
    pub(crate) stream_credit: usize,
}

impl Settings {
    /// Whether epoll_pwait2(2), 5.11, may be tried.
    fn may_wait_exactly(&self) -> bool {
        self.pretended.is_none_or(|kernel| kernel >= Kernel(5, 11))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Teardown has begun: nothing new is taken.
    Closing,
    /// The engine failed for good with this errno; tasks and timers go on.
    Broken(i32),
    /// Torn down.
    Gone,
}

/// How long [`Driver::park`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all: submit and reap.
    No,
    /// Until something happens, or this point of CLOCK_MONOTONIC in nanoseconds.
    Until(Option<u64>),
}

/// What has been counted since the runtime was made.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) enters: Cell<u64>,
    pub(crate) submissions: Cell<u64>,
    pub(crate) completions: Cell<u64>,
    pub(crate) overflows: Cell<u64>,
    pub(crate) pool_empty: Cell<u64>,
    pub(crate) stray_completions: Cell<u64>,
    pub(crate) accept_errors: Cell<u64>,
    /// Answers that came while nobody waited for them.
    pub(crate) parked: Cell<u64>,
}

/// Adds to a counter.
pub(crate) fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get().wrapping_add(more));
}

/// One runtime's way to the kernel. Used through `&self` on its home thread.
pub(crate) struct Driver {
    /// `None` once torn down.
    engine: RefCell<Option<Engine>>,
    is_epoll: bool,
    has_multishot_recv: bool,
    /// Why it is not the ring, if that was tried.
    refused: Option<SetupError>,
    table: RefCell<Table>,
    /// Submissions to the ring that found no room; bounded by the objects, each of which has at
    /// most one op and one cancel of a kind.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    /// Ops to cancel at the end of the poll pass; bounded by what a pass can ask for, each op twice
    /// at most (asked, kept, asked again), and emptied by it.
    cancels: RefCell<Vec<Token>>,
    /// Wakers that `settle` collected; woken in the next turn, which bounds them.
    woken: RefCell<Vec<Waker>>,
    /// Sockets on their way to a future that may have been forgotten: they end with the runtime.
    sockets: RefCell<Slab<OwnedFd>>,
    /// How many descriptors were closed.
    closed: Cell<u64>,
    /// Those who wait for a descriptor to become free.
    short_of_descriptors: RefCell<Vec<Waker>>,
    pool: Rc<Pool>,
    notifier: Arc<Notifier>,
    /// The notifier's too; both give their count back at teardown.
    eventfd: RefCell<Option<Arc<OwnedFd>>>,
    notifier_armed: Cell<bool>,
    state: Cell<State>,
    fruitless: Cell<u32>,
    fork: ForkMark,
    settings: Settings,
    counters: Counters,
}

impl Driver {
    pub(crate) fn new(settings: Settings) -> Result<Rc<Driver>, SetupError> {
        let eventfd = sys::eventfd().map_err(|error| SetupError::at("eventfd", &error))?;
        let eventfd = Arc::new(eventfd);
        let ring = || Driver::ring(&settings);
        let epoll = || Driver::epoll(&settings, eventfd.as_fd());
        let (engine, pool, refused) = match settings.backend {
            Backend::Ring => ring().map(|(engine, pool)| (engine, pool, None))?,
            Backend::Epoll => epoll().map(|(engine, pool)| (engine, pool, None))?,
            Backend::Auto => match ring() {
                Ok((engine, pool)) => (engine, pool, None),
                Err(refused) => epoll().map(|(engine, pool)| (engine, pool, Some(refused)))?,
            },
        };
        let notifier = Notifier::new(eventfd.clone());
        let fork =
            ForkMark::get().map_err(|error| SetupError::at("marking the process", &error))?;
        Ok(Rc::new(Driver {
            is_epoll: matches!(engine, Engine::Epoll(_)),
            has_multishot_recv: matches!(&engine, Engine::Ring(ring) if ring.found().multishot_recv),
            // Epoll has it from the start.
            notifier_armed: Cell::new(matches!(engine, Engine::Epoll(_))),
            engine: RefCell::new(Some(engine)),
            refused,
            table: RefCell::new(Table::new()),
            backlog: RefCell::default(),
            cancels: RefCell::default(),
            woken: RefCell::default(),
            sockets: RefCell::default(),
            closed: Cell::new(0),
            short_of_descriptors: RefCell::default(),
            pool,
            notifier,
            eventfd: RefCell::new(Some(eventfd)),
            state: Cell::new(State::Open),
            fruitless: Cell::new(0),
            fork,
            settings,
            counters: Counters::default(),
        }))
    }

    fn ring(settings: &Settings) -> Result<(Engine, Rc<Pool>), SetupError> {
        let mut ring =
            Ring::new(settings.entries, settings.completion_entries, settings.pretended)?;
        let pool = Pool::for_kernel(settings.buffer_len, settings.buffer_count);
        let pool = pool.map_err(|error| SetupError::at(MAPPING, &error))?;
        probe::with_patience(|| ring.register_pool(&pool, BUFFER_GROUP))
            .map_err(|error| SetupError::of_call("io_uring_register", REGISTERING, &error))?;
        let trial = trial::multishot_recv_is_whole(&ring, &pool, settings.pretended);
        ring.found_multishot_recv(trial.map_err(|error| {
            mem::forget(pool.clone()); // something may be in flight
            SetupError::of_call("io_uring_enter", "trying a receive", &error)
        })?);
        Ok((Engine::Ring(ring), pool))
    }

    fn epoll(
        settings: &Settings,
        eventfd: BorrowedFd<'_>,
    ) -> Result<(Engine, Rc<Pool>), SetupError> {
        let pool = Pool::for_engine(settings.buffer_len, settings.buffer_count);
        let pool = pool.map_err(|error| SetupError::at(MAPPING, &error))?;
        let epoll = Epoll::new(pool.clone(), eventfd, settings.may_wait_exactly());
        let epoll = epoll.map_err(|error| SetupError::at("epoll_create1", &error))?;
        Ok((Engine::Epoll(epoll), pool))
    }

    /// Rouses the driver from any thread.
    pub(crate) fn notifier(&self) -> Waker {
        Waker::from(self.notifier.clone())
    }

    pub(crate) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many system calls this runtime's I/O took, as far as the engine makes them.
    pub(crate) fn system_calls(&self) -> u64 {
        let beside = self.try_engine(|engine| match engine {
            Engine::Ring(_) => 0,
            Engine::Epoll(epoll) => epoll.calls(),
        });
        self.counters.enters.get() + beside.unwrap_or(0)
    }

    /// How many ops are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.table.borrow().len()
    }

    /// What the engine makes of the kernel; `None` once torn down.
    pub(crate) fn capabilities(&self) -> Option<Capabilities> {
        let (pretended, refused) = (self.settings.pretended, self.refused.clone());
        self.try_engine(|engine| match engine {
            Engine::Ring(ring) => Capabilities::of_ring(ring.found(), pretended, refused),
            Engine::Epoll(_) => Capabilities::of_epoll(self.waits_exactly(), pretended, refused),
        })
    }

    /// Whether there is epoll_pwait2(2), which a wait may not have tried yet.
    fn waits_exactly(&self) -> bool {
        if !self.settings.may_wait_exactly() {
            return false;
        }
        let eventfd = self.eventfd.borrow();
        let none = libc::epoll_event { events: 0, u64: 0 };
        // An eventfd is no epoll set: a kernel that has the call says EINVAL.
        eventfd.as_ref().is_some_and(|fd| {
            let answer = sys::epoll_wait_exactly(fd.as_fd(), &mut [none], Duration::ZERO);
            answer.is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
        })
    }

    /// Which engine it is.
    pub(crate) fn backend(&self) -> Backend {
        if self.is_epoll { Backend::Epoll } else { Backend::Ring }
    }

    /// Why it is not the ring, if that was tried.
    pub(crate) fn refused(&self) -> Option<&SetupError> {
        self.refused.as_ref()
    }

    /// Whether this is a forked child's copy, which must leave the kernel alone.
    pub(crate) fn is_forked_copy(&self) -> bool {
        self.fork.is_child()
    }

    /// Stops a forked child, in which every turn would disturb its parent.
    pub(crate) fn assert_not_forked(&self) {
        assert!(
            !self.fork.is_child(),
            "this tamam runtime belongs to the process that forked; make a new one in the child"
        );
    }

    /// Whether there is an engine that completes ops.
    fn is_in_use(&self) -> bool {
        matches!(self.state.get(), State::Open | State::Closing)
    }

    /// Whether ops are taken.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Whether ops are taken; if not, why.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.state.get() {
            State::Open => Ok(()),
            State::Closing | State::Gone => Err(gone()),
            State::Broken(errno) => Err(broken(errno, self.backend())),
        }
    }

    // ---- ops -------------------------------------------------------------------------------

    /// Takes an op over until its terminal completion, which goes to `owner`; unless it is over at
    /// once.
    #[inline]
    pub(crate) fn submit<R: Request>(
        &self,
        mut op: Op<R>,
        owner: Rc<dyn Owner>,
        role: Role,
    ) -> Submitted {
        if !self.is_epoll {
            return Submitted::InFlight(self.push_op(op, owner, role));
        }
        match self.attempt(&mut op) {
            Some(done) => Submitted::Answered(done, op.payload),
            None => Submitted::InFlight(self.submit_tried(op, owner, role)),
        }
    }

    /// As [`submit`](Self::submit), for a runtime that is known to be on a ring.
    #[inline]
    pub(crate) fn push_op<R: Request>(&self, op: Op<R>, owner: Rc<dyn Owner>, role: Role) -> Token {
        debug_assert!(self.check().is_ok(), "callers check before they build an op");
        self.assert_not_forked();
        let token = self.table.borrow_mut().insert(owner, role, op.payload);
        self.push(R::entry(&op.target).user_data(token.to_user_data()));
        token
    }

    /// The second half of [`submit`](Self::submit), after an [`attempt`](Self::attempt) without an
    /// answer.
    #[inline]
    pub(crate) fn submit_tried<R: Request>(
        &self,
        op: Op<R>,
        owner: Rc<dyn Owner>,
        role: Role,
    ) -> Token {
        assert!(op.tried, "an engine that tries first would not know the descriptor");
        if !self.is_epoll {
            return self.push_op(op, owner, role);
        }
        count(&self.counters.submissions, 1);
        let token = self.table.borrow_mut().insert(owner, role, op.payload);
        self.with_engine(|engine| match engine {
            Engine::Epoll(epoll) => epoll.wait_for::<R>(token.to_user_data(), op.target, op.sent),
            Engine::Ring(_) => unreachable!("it is epoll"),
        });
        token
    }

    /// The first half of [`submit`](Self::submit), for an op that need not be taken over if it is
    /// over at once: the answer, where the engine tries first (epoll) and need not wait. Else
    /// nothing is lost: what it has done of the op is noted there.
    #[inline]
    pub(crate) fn attempt<R: Request, P>(&self, op: &mut Op<R, P>) -> Option<Completion> {
        debug_assert!(self.check().is_ok(), "callers check before they build an op");
        op.tried = true;
        if !self.is_epoll {
            return None;
        }
        self.assert_not_forked();
        let Some(Engine::Epoll(epoll)) = &*self.engine.borrow() else { unreachable!("{GONE}") };
        let done = epoll.begin::<R>(&mut op.target, &mut op.sent)?;
        count(&self.counters.submissions, 1);
        count(&self.counters.completions, 1);
        Some(done)
    }

    /// Whether requests are tried before they wait, so that one that waits can be taken back.
    #[inline]
    pub(crate) fn tries_first(&self) -> bool {
        self.is_epoll
    }

    /// Whether a receive may stay in flight over many answers.
    #[inline]
    pub(crate) fn has_multishot_recv(&self) -> bool {
        self.has_multishot_recv
    }

    /// Takes an op back whose owner wants no answer; false if the kernel has it, or there is an
    /// answer already.
    pub(crate) fn withdraw(&self, token: Token) -> bool {
        let taken = self.with_engine(|engine| match engine {
            Engine::Ring(_) => false,
            Engine::Epoll(epoll) => epoll.withdraw(token.to_user_data()),
        });
        if taken {
            let mut payload = Payload::None;
            let found = self.table.borrow_mut().complete(token, false, &mut payload);
            drop((found, payload));
        }
        taken
    }

    /// Wakes in the next turn those who waited for an answer that came at once (SEMANTICS G7).
    pub(crate) fn wake_later(&self, mut woken: Vec<Waker>) {
        if !woken.is_empty() {
            self.woken.borrow_mut().append(&mut woken);
        }
    }

    /// Asks for an op to end. The cancel goes out when the tasks have been polled, unless
    /// [`keep`](Self::keep) withdraws it before; it is never lost.
    pub(crate) fn cancel(&self, token: Token) {
        self.ask_cancel(token, false);
    }

    /// As `cancel`, for an object that is going: the driver does not sleep before the op has ended.
    pub(crate) fn cancel_before_sleep(&self, token: Token) {
        self.ask_cancel(token, true);
    }

    fn ask_cancel(&self, token: Token, owed: bool) {
        if self.table.borrow_mut().ask_cancel(token, owed) {
            self.cancels.borrow_mut().push(token);
        }
    }

    /// Takes a cancel back; false if it is out, or the op has ended.
    pub(crate) fn keep(&self, token: Token) -> bool {
        self.table.borrow_mut().keep(token)
    }

    /// Ends an op now: cancels it and handles completions until its terminal one was. Wakers of
    /// others wait for the next turn (SEMANTICS G7). Only for sockets, whose ops end in one enter.
    pub(crate) fn settle(&self, token: Token) {
        self.assert_not_forked();
        self.cancel_before_sleep(token);
        let mut woken = Vec::new();
        while self.table.borrow_mut().is_live(token) && self.is_in_use() {
            self.send_cancels();
            self.end_owed(&mut woken);
        }
        self.woken.borrow_mut().append(&mut woken);
    }

    // ---- descriptors ------------------------------------------------------------------------

    /// Keeps a socket until [`claim`](Self::claim), or the end of the runtime.
    pub(crate) fn keep_socket(&self, fd: OwnedFd) -> usize {
        self.sockets.borrow_mut().insert(fd)
    }

    /// Looks at a socket that is kept; `None` if the runtime has ended.
    pub(crate) fn with_socket<T>(
        &self,
        key: usize,
        look: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> Option<T> {
        self.sockets.borrow().get(key).map(|fd| look(fd.as_fd()))
    }

    /// Gives a kept socket out; `None` if the runtime has ended.
    pub(crate) fn claim(&self, key: usize) -> Option<OwnedFd> {
        self.sockets.borrow_mut().try_remove(key)
    }

    /// Closes a descriptor that ops may have been about.
    pub(crate) fn close_descriptor(&self, fd: OwnedFd) {
        self.release(fd.as_fd());
        drop(fd);
        self.descriptor_closed();
    }

    /// A descriptor that ops may have been about leaves this runtime.
    pub(crate) fn release(&self, fd: BorrowedFd<'_>) {
        if let (Some(Engine::Epoll(epoll)), false) = (&*self.engine.borrow(), self.fork.is_child())
        {
            epoll.forget(fd);
        }
    }

    /// A descriptor was closed: those who found none left may try again.
    pub(crate) fn descriptor_closed(&self) {
        count(&self.closed, 1);
        let waiting = mem::take(&mut *self.short_of_descriptors.borrow_mut());
        wake_all(waiting.into_iter());
    }

    /// How many descriptors this runtime has closed: whoever found none left compares.
    pub(crate) fn closed_descriptors(&self) -> u64 {
        self.closed.get()
    }

    /// Wakes `waker` when a descriptor is closed.
    pub(crate) fn wake_at_close(&self, waker: Waker) {
        let mut waiting = self.short_of_descriptors.borrow_mut();
        if waiting.iter().any(|other| other.will_wake(&waker)) {
            return;
        }
        // Most of so many are of tasks that wait no more; the others come again by their timers.
        let stale = match waiting.len() {
            SHORT_MAX.. => mem::take(&mut *waiting),
            _ => Vec::new(),
        };
        waiting.push(waker);
        drop(waiting);
        drop(stale);
    }

    // ---- the turn ---------------------------------------------------------------------------

    /// Submits what was pushed, sleeps as long as `wait` allows, reaps, and collects the wakers of
    /// those whose ops were answered. What objects owe the kernel before the thread may sleep
    /// (cancels, closes) is done first.
    pub(crate) fn park(&self, wait: Wait, woken: &mut Vec<Waker>) {
        self.assert_not_forked();
        woken.append(&mut self.woken.borrow_mut());
        if let State::Broken(_) = self.state.get() {
            return self.park_broken(if woken.is_empty() { wait } else { Wait::No });
        }
        self.arm_notifier();
        self.send_cancels();
        self.end_owed(woken);
        match wait {
            Wait::Until(deadline) if woken.is_empty() => {
                if self.notifier.handshake().park() {
                    self.enter(1, deadline.map_or(Sleep::Long, Sleep::Until));
                } else {
                    self.enter(0, Sleep::Long);
                }
                self.notifier.handshake().unpark();
            }
            _ if self.with_engine(Engine::has_work) => self.enter(0, Sleep::Long),
            _ => return,
        }
        self.reap(woken);
        // From owners that settled, or a ring that failed, meanwhile.
        woken.append(&mut self.woken.borrow_mut());
    }

    /// Sleeps without the engine, so that timers and wakes from other threads go on.
    fn park_broken(&self, wait: Wait) {
        let Wait::Until(deadline) = wait else { return };
        if self.notifier.handshake().park() {
            let timeout = deadline
                .map(|deadline| Duration::from_nanos(deadline.saturating_sub(sys::monotonic_ns())));
            self.with_eventfd(|eventfd| sys::poll_readable(eventfd, timeout));
        }
        self.notifier.handshake().unpark();
        self.with_eventfd(sys::eventfd_clear);
    }

    /// Keeps a poll on the notifier's eventfd armed in the ring. The eventfd is never read: each
    /// write completes the multishot poll again, as it makes a new edge for epoll.
    fn arm_notifier(&self) {
        if !self.notifier_armed.replace(true) {
            let fd = types::Fd(self.with_eventfd(|eventfd| eventfd.as_raw_fd()));
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
            self.push(poll.user_data(NOTIFIED));
        }
    }

    fn with_eventfd<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match &*self.eventfd.borrow() {
            Some(eventfd) => call(eventfd.as_fd()),
            None => unreachable!("a driver that is gone is not parked"),
        }
    }

    /// Pushes the cancels that were asked for and not withdrawn.
    fn send_cancels(&self) {
        let mut cancels = self.cancels.take();
        for token in cancels.drain(..) {
            if !self.table.borrow_mut().cancel_sent(token) {
                continue;
            }
            match self.engine.borrow().as_ref().expect(GONE) {
                Engine::Ring(_) => {
                    let cancel = opcode::AsyncCancel::new(token.to_user_data()).build();
                    self.push(cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(CANCEL));
                }
                Engine::Epoll(epoll) => epoll.cancel(token.to_user_data()),
            }
        }
        // Nothing was asked for meanwhile: pushing runs no owner's code.
        self.cancels.replace(cancels);
    }

    /// Enters until the ops that are not to outlive this turn have ended. One enter, as far as
    /// sockets go; an op that takes longer is left to the turns that follow.
    fn end_owed(&self, woken: &mut Vec<Waker>) {
        loop {
            let owed = self.table.borrow().owed();
            if owed == 0 || !self.is_in_use() {
                return;
            }
            let patience = sys::monotonic_ns() + SETTLE_SLICE.as_nanos() as u64;
            if !self.with_engine(Engine::has_answers) {
                self.enter(owed as u32, Sleep::Until(patience));
            }
            self.reap(woken);
            self.send_cancels();
            if self.table.borrow().owed() >= owed && sys::monotonic_ns() >= patience {
                return;
            }
        }
    }

    /// Hands everything that has completed to its owner.
    fn reap(&self, woken: &mut Vec<Waker>) {
        loop {
            self.dispatch(woken);
            // An owner may have dropped the runtime, and the ring with it.
            if !self.try_engine(Engine::has_overflow).unwrap_or(false) {
                return;
            }
            // More waits in the kernel, in order; it moves over when we ask.
            count(&self.counters.overflows, 1);
            self.enter(0, Sleep::Long);
            if !self.is_in_use() {
                return;
            }
        }
    }

    /// One completion after the other, straight from the queue: an owner may settle, and so
    /// dispatch, before it returns.
    ///
    /// Users' buffers may be dropped by their owners; a panic of theirs must hurt nobody else: the
    /// next completion is dealt with. It is caught out here, which costs nothing while there is none.
    fn dispatch(&self, woken: &mut Vec<Waker>) {
        let is_with_owner = Cell::new(false);
        let mut each = || self.dispatch_each(woken, &is_with_owner);
        while let Err(payload) = catch_unwind(AssertUnwindSafe(&mut each)) {
            if !is_with_owner.take() {
                resume_unwind(payload); // a mistake of ours
            }
            bury(payload);
        }
    }

    fn dispatch_each(&self, woken: &mut Vec<Waker>, is_with_owner: &Cell<bool>) {
        while let Some((user_data, done)) = self.try_engine(Engine::next_completion).flatten() {
            count(&self.counters.completions, 1);
            self.fruitless.set(0);
            match user_data {
                CANCEL => continue,
                NOTIFIED => {
                    self.notifier_armed.set(done.more());
                    continue;
                }
                _ => {}
            }
            let token = Token::from_user_data(user_data);
            let mut payload = Payload::None;
            let found = self.table.borrow_mut().complete(token, done.more(), &mut payload);
            match found {
                Some((owner, role)) => {
                    is_with_owner.set(true);
                    owner.complete(role, done, payload, woken);
                    is_with_owner.set(false);
                }
                None => {
                    count(&self.counters.stray_completions, 1);
                    debug_assert!(false, "a completion for {token:?}, which is not in flight");
                }
            }
        }
    }

    // ---- the engine -------------------------------------------------------------------------

    #[inline]
    fn with_engine<T>(&self, call: impl FnOnce(&Engine) -> T) -> T {
        self.try_engine(call).expect(GONE)
    }

    /// As `with_engine`, where the runtime may have been dropped meanwhile.
    #[inline]
    fn try_engine<T>(&self, call: impl FnOnce(&Engine) -> T) -> Option<T> {
        self.engine.borrow().as_ref().map(call)
    }

    /// For what only a ring has: its queue.
    #[inline]
    fn with_ring<T>(&self, call: impl FnOnce(&Ring) -> T) -> T {
        self.with_engine(|engine| match engine {
            Engine::Ring(ring) => call(ring),
            Engine::Epoll(_) => unreachable!("nothing is pushed to epoll"),
        })
    }

    /// Pushes a submission to the ring. A full queue is submitted first; what finds no room even then waits
    /// in the backlog, in order.
    #[inline]
    fn push(&self, entry: squeue::Entry) {
        let mut backlog = self.backlog.borrow_mut();
        if backlog.is_empty() && self.with_ring(|ring| ring.push(&entry)) {
            return;
        }
        backlog.push_back(entry);
        drop(backlog);
        self.submit_backlog();
    }

    /// Submits until nothing waits in the backlog, or the kernel takes no more for now.
    fn submit_backlog(&self) {
        loop {
            let mut backlog = self.backlog.borrow_mut();
            while let Some(entry) = backlog.front() {
                if !self.with_ring(|ring| ring.push(entry)) {
                    break;
                }
                backlog.pop_front();
            }
            if backlog.is_empty() || !self.is_in_use() {
                return;
            }
            drop(backlog);
            count(&self.counters.enters, 1);
            match self.with_ring(Ring::submit) {
                Ok(taken) if taken > 0 => count(&self.counters.submissions, taken.into()),
                // The next enter that also reaps makes room.
                _ => return,
            }
        }
    }

    /// One io_uring_enter(2) or epoll_pwait2(2), and the only place that looks at its errors.
    #[inline]
    fn enter(&self, want: u32, sleep: Sleep) {
        if !self.backlog.borrow().is_empty() {
            self.submit_backlog();
        }
        // With submissions still waiting, sleeping could be for ever.
        let want = if self.backlog.borrow().is_empty() { want } else { 0 };
        count(&self.counters.enters, 1);
        match self.with_engine(|engine| engine.enter(want, sleep)) {
            Ok(taken) => count(&self.counters.submissions, taken.into()),
            Err(error) => self.enter_failed(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    #[cold]
    fn enter_failed(&self, errno: i32) {
        match errno {
            // A signal; the deadline.
            libc::EINTR | libc::ETIME => {}
            // Short of memory, or completions to reap first: the caller reaps and comes again.
            libc::EAGAIN | libc::EBUSY | libc::ENOMEM => {
                self.fruitless.set(self.fruitless.get() + 1);
                if self.fruitless.get() >= FRUITLESS_MAX {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            errno => self.fail(errno),
        }
    }

    /// The engine is of no use any more. Everybody who waits hears of it; memory that the kernel may
    /// still write to is leaked.
    #[cold]
    fn fail(&self, errno: i32) {
        let mut woken = Vec::new();
        self.dispatch(&mut woken);
        self.state.set(State::Broken(errno));
        self.backlog.borrow_mut().clear();
        let ended = self.table.borrow_mut().take_all();
        for op in ended {
            mem::forget(op.payload);
            // The kernel may still use the descriptor's number in submissions it has not taken.
            mem::forget(op.owner.clone());
            // Those who wait come again, and are told by `check` what has failed.
            let done = Completion::cancelled();
            contain(|| op.owner.complete(op.role, done, Payload::None, &mut woken));
        }
        self.woken.borrow_mut().append(&mut woken);
    }

    // ---- teardown ---------------------------------------------------------------------------

    /// Teardown begins: what is asked for from now on is refused.
    pub(crate) fn begin_close(&self) {
        if self.state.get() == State::Open {
            self.state.set(State::Closing);
        }
    }

    /// Cancels what is in flight, waits for the terminal completions, closes the ring. The
    /// memory of what does not end within five seconds is leaked.
    pub(crate) fn close(&self) {
        if self.fork.is_child() {
            // The ring belongs to the parent and is not mapped here; its number is.
            self.state.set(State::Gone);
            match self.engine.take() {
                Some(Engine::Ring(ring)) => ring.close_number(),
                // The set is the parent's too; the number is the child's own.
                engine => drop(engine),
            }
            // The child's copies: nobody writes to this memory, and these numbers are its own.
            let left = self.table.borrow_mut().take_all();
            left.into_iter().for_each(|slot| contain(|| drop(slot)));
            drop((self.sockets.take(), self.eventfd.take()));
            return;
        }
        self.begin_close();
        let mut woken = self.woken.take();
        self.notifier.close();
        let drained = self.is_in_use() && self.drain(&mut woken);
        self.state.set(State::Gone);
        let engine = self.engine.take();
        drop((self.sockets.take(), self.eventfd.take()));
        if drained {
            if let Some(Engine::Ring(ring)) = &engine {
                // Fails only if it never was registered.
                let _ = ring.unregister_pool(BUFFER_GROUP);
            }
        } else {
            let left = self.table.borrow_mut().take_all();
            if !left.is_empty() {
                eprintln!(
                    "tamam: {} operations did not end within {} s; their memory is leaked",
                    left.len(),
                    DRAIN_PATIENCE.as_secs()
                );
            }
            mem::forget((left, self.pool.clone()));
        }
        drop(engine);
        wake_all(woken.into_iter());
        self.descriptor_closed();
    }

    /// Whether everything in flight ended.
    fn drain(&self, woken: &mut Vec<Waker>) -> bool {
        let mut progress = Instant::now();
        loop {
            let in_flight = self.table.borrow().len();
            if in_flight == 0 {
                return true;
            }
            let tokens = self.table.borrow().tokens();
            tokens.into_iter().for_each(|token| self.cancel(token));
            self.send_cancels();
            let slice = sys::monotonic_ns() + SETTLE_SLICE.as_nanos() as u64;
            let want = self.with_engine(Engine::completions_max).min(in_flight as u32);
            self.enter(want, Sleep::Until(slice));
            self.reap(woken);
            if matches!(self.state.get(), State::Broken(_)) {
                return false;
            }
            if self.table.borrow().len() < in_flight {
                progress = Instant::now();
            } else if progress.elapsed() > DRAIN_PATIENCE {
                return false;
            }
        }
    }
}

/// What is meant by an engine that is not there.
const GONE: &str = "a driver that is gone takes no ops and is not parked";

/// The error of a call that a forked child cannot make.
pub(crate) fn forked() -> io::Error {
    io::Error::other("its tamam runtime belongs to the process that forked")
}

/// The error of an object whose runtime is gone (SEMANTICS G8).
fn gone() -> io::Error {
    io::Error::other("its tamam runtime is gone")
}

fn broken(errno: i32, backend: Backend) -> io::Error {
    let cause = io::Error::from_raw_os_error(errno);
    let engine = if backend == Backend::Epoll { "epoll" } else { "io_uring" };
    io::Error::new(cause.kind(), format!("the runtime's {engine} failed: {cause}"))
}

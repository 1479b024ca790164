//! The driver: objects submit and cancel their ops here, and the turn sleeps here.
//!
//! An object (a connection, a listener, an attempt to connect) submits an op with its memory. It
//! gets each answer by [`Owner::complete`]. This module does not decide what to ask the kernel for:
//! `stream/` does. Each file has one topic:
//!
//! - `op`, `table`: the contract of an op; the slots of the ops in flight,
//! - `engine`, `ring`, `epoll`: what an engine provides; the two engines,
//! - `submissions`: the table and the engine together; the backlog; cancels,
//! - `descriptors`: unclaimed sockets, and shortages of descriptors,
//! - `sleeper`, `wake`, `handshake`: how another thread wakes a sleeping driver,
//! - `pools`: the memory that receives write to,
//! - `teardown`: the end of a driver, and the failure of an engine.
//!
//! The executor and the timers do not know this module. Only a `Waker` passes between them.
//!
//! Order to read: `op.rs`, `table.rs`, `engine.rs`, `submissions.rs`, this file, `ring.rs`,
//! `epoll.rs`, `buffer_ring.rs`, `wake.rs`.

mod buffer_ring;
mod capabilities;
mod datagram_buffers;
mod descriptor_map;
mod descriptors;
mod engine;
mod epoll;
mod handshake;
mod incoming;
mod op;
mod pools;
mod probe;
mod ring;
mod sleeper;
mod submissions;
mod table;
mod teardown;
mod trial;
mod wake;

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

pub(crate) use buffer_ring::BufferPool;
pub use buffer_ring::Chunk;
pub use capabilities::{Capabilities, Feature, Support};
pub(crate) use datagram_buffers::Lender;
use descriptors::Descriptors;
#[cfg(feature = "tls")]
pub(crate) use descriptors::UntilShortage;
use engine::Engine;
pub(crate) use incoming::{
    IncomingDatagram, RECORD_HEAD, Record, receive_own_record, receive_record,
};
pub(crate) use op::{
    Attempt, Completion, Interest, Medium, Op, Owner, Payload, Request, Role, Submitted, Target,
    Token, error, is_retried,
};
use pools::Pools;
pub use probe::{Backend, ParseBackendError, SetupError};
pub(crate) use probe::{Kernel, io_uring_disabled, is_denial};
use ring::SleepLimit;
pub(crate) use ring::errnos_of_empty_calls;
use sleeper::Sleeper;
use submissions::Submissions;

use crate::deferred::Deferred;
use crate::panics::drop_payload;
use crate::sys;
use crate::sys::fork::ForkMark;

/// The group of provided buffers that receives pick from.
pub(crate) const BUFFER_GROUP: u16 = 0;

/// The group that receives of datagrams pick from.
pub(crate) const DATAGRAM_GROUP: u16 = 1;

/// user_data of cancels. Their answers are not needed: the terminal completion of the op tells the
/// same.
const CANCEL: u64 = u64::MAX;
/// user_data of the poll on the notifier's eventfd.
const NOTIFIED: u64 = u64::MAX - 1;

/// How long one enter may wait for cancelled ops to end.
const CANCEL_WAIT_SLICE: Duration = Duration::from_millis(100);

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

    /// Whether the kernel may be asked to divide a message into datagrams (UDP_SEGMENT), 4.18.
    fn may_divide_datagrams(&self) -> bool {
        self.pretended.is_none_or(|kernel| kernel >= Kernel(4, 18))
    }

    /// For unit tests: so small that a few ops fill the queues.
    #[cfg(test)]
    pub(crate) fn small(backend: Backend) -> Settings {
        Settings {
            backend,
            pretended: None,
            entries: 2,
            completion_entries: 2,
            buffer_len: 64,
            buffer_count: 2,
            stream_credit: 64,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DriverState {
    Open,
    /// Teardown has begun, and no new ops are taken.
    Closing,
    /// The engine has failed for good with this errno. Tasks and timers go on.
    Broken(i32),
    /// Teardown is over.
    Gone,
}

/// How long [`Driver::park`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It must not sleep: it submits and reaps.
    No,
    /// Until a completion or a notification, or until this point of CLOCK_MONOTONIC in nanoseconds.
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
    /// Answers that came when no future waited for them.
    pub(crate) unawaited: Cell<u64>,
}

/// Adds to a counter.
pub(crate) fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get().wrapping_add(more));
}

/// The driver of one runtime. Only its home thread uses it.
pub(crate) struct Driver {
    submissions: Submissions,
    descriptors: Descriptors,
    sleeper: Sleeper,
    pools: Pools,
    state: Cell<DriverState>,
    /// Work that changes outside the turn have left over. The next turn does it.
    deferred: RefCell<Deferred>,
    fork: ForkMark,
    setup: Setup,
}

/// The settings of the runtime, and what was found at its start.
struct Setup {
    settings: Settings,
    has_multishot_recv: bool,
    /// Why the ring is not used, if it was tried.
    refused: Option<SetupError>,
}

impl Driver {
    /// Sets up the engine that `settings` ask for. [`Backend::Auto`] means the ring; if that is
    /// refused, the driver keeps the reason and uses epoll. An error says why no such engine
    /// starts.
    pub(crate) fn new(settings: Settings) -> Result<Rc<Driver>, SetupError> {
        sys::standard::take_free_numbers();
        let eventfd = sys::eventfd().map_err(|error| SetupError::at("eventfd", &error))?;
        let eventfd = Arc::new(eventfd);
        let ring = || Engine::ring(&settings);
        let epoll = || Engine::epoll(&settings, eventfd.as_fd());
        let ((engine, pool), refused) = match settings.backend {
            Backend::Ring => (ring()?, None),
            Backend::Epoll => (epoll()?, None),
            Backend::Auto => match ring() {
                Ok(ring) => (ring, None),
                Err(refused) => (epoll()?, Some(refused)),
            },
        };
        let fork =
            ForkMark::get().map_err(|error| SetupError::at("marking the process", &error))?;
        let has_multishot_recv =
            matches!(&engine, Engine::Ring(ring) if ring.found().multishot_recv);
        let sleeper = Sleeper::new(eventfd, matches!(engine, Engine::Epoll(_)));
        Ok(Rc::new(Driver {
            submissions: Submissions::new(engine),
            descriptors: Descriptors::default(),
            sleeper,
            pools: Pools::new(pool),
            state: Cell::new(DriverState::Open),
            deferred: RefCell::default(),
            fork,
            setup: Setup { settings, has_multishot_recv, refused },
        }))
    }

    /// A waker that ends the driver's sleep, from any thread.
    pub(crate) fn notifier(&self) -> Waker {
        self.sleeper.notifier()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.setup.settings
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.submissions.counters()
    }

    /// How many system calls the I/O of this runtime took, as far as the engine makes them.
    pub(crate) fn system_calls(&self) -> u64 {
        let beside = self.submissions.try_engine(Engine::calls_beside_enters);
        let of_objects = self.submissions.calls_of_objects().get();
        self.counters().enters.get() + beside.unwrap_or(0) + of_objects
    }

    /// Counts a system call that an object makes in place of a request.
    #[inline]
    pub(crate) fn count_call(&self) {
        count(self.submissions.calls_of_objects(), 1);
    }

    /// How many ops are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.submissions.in_flight()
    }

    /// Which kernel features the engine uses. `None` after teardown.
    pub(crate) fn capabilities(&self) -> Option<Capabilities> {
        let (pretended, refused) = (self.settings().pretended, self.setup.refused.clone());
        self.submissions.try_engine(|engine| match engine {
            Engine::Ring(ring) => Capabilities::of_ring(ring.found(), pretended, refused),
            Engine::Epoll(_) => {
                let exactly = self.settings().may_wait_exactly() && self.sleeper.waits_exactly();
                Capabilities::of_epoll(exactly, pretended, refused)
            }
        })
    }

    /// Which engine it is.
    pub(crate) fn backend(&self) -> Backend {
        if self.submissions.is_epoll() { Backend::Epoll } else { Backend::Ring }
    }

    /// Why the ring is not used. `None`: it is used, or was not tried.
    pub(crate) fn refused(&self) -> Option<&SetupError> {
        self.setup.refused.as_ref()
    }

    /// Whether the engine makes an attempt before a request waits. Then a waiting request can be
    /// withdrawn.
    #[inline]
    pub(crate) fn attempts_first(&self) -> bool {
        self.submissions.is_epoll()
    }

    /// Whether one receive may have many answers.
    #[inline]
    pub(crate) fn has_multishot_recv(&self) -> bool {
        self.setup.has_multishot_recv
    }

    /// Whether this is the copy in a forked child. It must not enter the kernel.
    pub(crate) fn is_forked_copy(&self) -> bool {
        self.fork.is_child()
    }

    /// Panics in a forked child, because a turn there would disturb the parent.
    pub(crate) fn assert_not_forked(&self) {
        assert!(
            !self.fork.is_child(),
            "this tamam runtime belongs to the process that forked; make a new one in the child"
        );
    }

    /// Whether there is an engine that completes ops.
    fn is_in_use(&self) -> bool {
        matches!(self.state.get(), DriverState::Open | DriverState::Closing)
    }

    /// Whether ops are taken.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.state.get() == DriverState::Open
    }

    /// Whether ops are taken; if not, the error says why.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.state.get() {
            DriverState::Open => Ok(()),
            DriverState::Closing | DriverState::Gone => Err(gone()),
            DriverState::Broken(errno) => Err(broken(errno, self.backend())),
        }
    }

    // ---- ops --------------------------------------------------------------------------------

    /// Takes an op over until its terminal completion. Each answer goes to `owner`, which is told
    /// `role`. An attempt may end the op at once: then the caller has the answer and the memory,
    /// and `owner` is not told. The caller has checked that the driver [is open](Self::check).
    #[inline]
    pub(crate) fn submit<R: Request>(
        &self,
        mut op: Op<R>,
        owner: Rc<dyn Owner>,
        role: Role,
    ) -> Submitted {
        match self.attempt(&mut op) {
            Some(done) => Submitted::Answered(done, op.payload),
            None => Submitted::InFlight(self.submit_after_attempt(op, owner, role)),
        }
    }

    /// The first half of [`submit`](Self::submit). Under epoll it makes an attempt. `Some`: the
    /// answer, and the op is over. `None`: `op` records what was sent, and the caller may pass it
    /// to [`submit_after_attempt`](Self::submit_after_attempt), or drop it. On the ring it is
    /// always `None`.
    #[inline]
    pub(crate) fn attempt<R: Request, P>(&self, op: &mut Op<R, P>) -> Option<Completion> {
        debug_assert!(self.check().is_ok(), "callers check before they build an op");
        op.attempted = true;
        if !self.submissions.is_epoll() {
            return None;
        }
        self.assert_not_forked();
        self.submissions.attempt(op)
    }

    /// As [`attempt`](Self::attempt), on the ring too: for requests with memory of their own that
    /// cost less as a system call, and seldom wait. There, a short send is an answer.
    pub(crate) fn attempt_now<R: Request, P>(&self, op: &mut Op<R, P>) -> Option<Completion> {
        if self.attempts_first() {
            return self.attempt(op);
        }
        self.assert_not_forked();
        self.count_call();
        op.attempt_now(self.pool())
    }

    /// The second half of [`submit`](Self::submit), after an [`attempt`](Self::attempt) that gave
    /// no answer. Panics if there was no attempt.
    #[inline]
    pub(crate) fn submit_after_attempt<R: Request>(
        &self,
        op: Op<R>,
        owner: Rc<dyn Owner>,
        role: Role,
    ) -> Token {
        assert!(op.attempted, "an engine that tries first would not know the descriptor");
        self.assert_not_forked();
        self.submissions.start(op, owner, role)
    }

    /// Ends a waiting op at once: its memory is dropped, and its owner is not told. False, and
    /// nothing has changed: the kernel has it, or it was answered.
    pub(crate) fn withdraw(&self, token: Token) -> bool {
        self.submissions.withdraw(token)
    }

    /// Asks for an op to end. Its owner still gets the terminal completion. The cancel is sent when
    /// the tasks have been polled, unless [`undo_cancel`](Self::undo_cancel) comes first. It is
    /// never lost. An op that has ended is not affected.
    pub(crate) fn cancel(&self, token: Token) {
        self.submissions.ask_cancel(token, false);
    }

    /// As `cancel`, for an object that is going. The driver does not sleep before the op has ended.
    pub(crate) fn cancel_before_sleep(&self, token: Token) {
        self.submissions.ask_cancel(token, true);
    }

    /// Undoes a cancel, so that the op goes on. True: no cancel will be sent. False: it was sent,
    /// it came from [`cancel_before_sleep`](Self::cancel_before_sleep), or the op has ended.
    pub(crate) fn undo_cancel(&self, token: Token) -> bool {
        self.submissions.undo_cancel(token)
    }

    /// Cancels an op, and handles completions until the op has ended or the engine has failed.
    /// Other tasks that this wakes run in the next turn (SEMANTICS G7). Only for sockets: their ops
    /// end in one enter.
    pub(crate) fn cancel_and_wait(&self, token: Token) {
        self.assert_not_forked();
        self.cancel_before_sleep(token);
        let mut deferred = Deferred::default();
        while self.submissions.is_live(token) && self.is_in_use() {
            self.submissions.send_cancels();
            self.end_before_sleep(&mut deferred);
        }
        self.run_deferred(deferred);
    }

    /// Does the work that a change outside the turn has left over. Values are dropped now. Wakers
    /// are woken in the next turn (SEMANTICS G7). The caller holds no borrow.
    #[inline]
    pub(crate) fn run_deferred(&self, deferred: Deferred) {
        if deferred.is_untouched() {
            mem::forget(deferred); // it holds no memory, so no destructor need run
        } else {
            self.run_deferred_slowly(deferred);
        }
    }

    #[cold]
    fn run_deferred_slowly(&self, mut deferred: Deferred) {
        deferred.drop_values(); // a destructor may drop the runtime
        if self.state.get() == DriverState::Gone {
            deferred.run(); // there is no next turn
        } else {
            self.deferred.borrow_mut().append(&mut deferred);
        }
    }

    /// Gives the kernel what was submitted since its last turn, at once, and handles no answer. For
    /// bytes that a caller may take for sent when its poll is over. Under epoll they are.
    #[cfg(feature = "tls")]
    pub(crate) fn submit_now(&self) {
        if self.is_open() && !self.attempts_first() && !self.is_forked_copy() {
            self.enter(0, SleepLimit::Long);
        }
    }

    // ---- the turn ---------------------------------------------------------------------------

    /// Prepares for [`park`](Self::park): sends the cancels that were asked for, and ends the ops
    /// of objects that are going. The work that follows goes to `deferred`. Destructors run here,
    /// and may wake tasks: so the caller decides only afterwards whether there is something to do.
    pub(crate) fn prepare_to_park(&self, deferred: &mut Deferred) {
        self.assert_not_forked();
        if let DriverState::Broken(_) = self.state.get() {
            return deferred.append(&mut self.deferred.borrow_mut());
        }
        self.sleeper.arm(&self.submissions);
        self.submissions.send_cancels();
        self.end_before_sleep(deferred);
        // Owners that cancelled and waited, and a failed engine, leave work there.
        deferred.append(&mut self.deferred.borrow_mut());
    }

    /// One sleep of the turn, after [`prepare_to_park`](Self::prepare_to_park): submits, sleeps as
    /// long as `wait` allows, reaps, and collects the work that follows in `deferred`, for the
    /// caller to run. After a failure of the engine it only sleeps.
    pub(crate) fn park(&self, wait: Wait, deferred: &mut Deferred) {
        if let DriverState::Broken(_) = self.state.get() {
            return self.sleeper.sleep_without_engine(wait);
        }
        match wait {
            Wait::Until(deadline) => {
                if self.sleeper.handshake().park() {
                    self.enter(1, deadline.map_or(SleepLimit::Long, SleepLimit::Until));
                } else {
                    self.enter(0, SleepLimit::Long);
                }
                self.sleeper.handshake().unpark();
            }
            _ if self.submissions.with_engine(Engine::has_work) => self.enter(0, SleepLimit::Long),
            _ => return,
        }
        self.reap(deferred);
        // Owners that cancelled and waited, and a failed engine, leave work there.
        deferred.append(&mut self.deferred.borrow_mut());
    }

    /// Enters until every op has ended that must end before a sleep. For sockets one enter is
    /// enough. An op that takes longer than [`CANCEL_WAIT_SLICE`] is left to the next turns. The
    /// work that follows goes to `deferred`.
    fn end_before_sleep(&self, deferred: &mut Deferred) {
        loop {
            let left = self.submissions.blocking_sleep();
            if left == 0 || !self.is_in_use() {
                return;
            }
            let deadline = sys::monotonic_ns() + CANCEL_WAIT_SLICE.as_nanos() as u64;
            if !self.submissions.with_engine(Engine::has_answers) {
                self.enter(left as u32, SleepLimit::Until(deadline));
            }
            self.reap(deferred);
            self.submissions.send_cancels();
            if self.submissions.blocking_sleep() >= left && sys::monotonic_ns() >= deadline {
                return;
            }
        }
    }

    /// Enters the engine, as [`Submissions::enter`] does. If that fails for good, every owner is
    /// told.
    #[inline]
    fn enter(&self, want: u32, sleep: SleepLimit) {
        if let Err(errno) = self.submissions.enter(want, sleep) {
            self.fail(errno);
        }
    }

    /// Gives every completion to its owner. The work that follows goes to `deferred`.
    fn reap(&self, deferred: &mut Deferred) {
        loop {
            self.dispatch(deferred);
            // An owner may have dropped the runtime, and with it the ring.
            if !self.submissions.try_engine(Engine::has_overflow).unwrap_or(false) {
                return;
            }
            // More completions wait in the kernel, in order. An enter moves them to the queue.
            count(&self.counters().overflows, 1);
            self.enter(0, SleepLimit::Long);
            if !self.is_in_use() {
                return;
            }
        }
    }

    /// Gives the completions in the queue to their owners. It takes one at a time: an owner may
    /// cancel and wait, and so call this method, before it returns.
    ///
    /// A panic in one owner does not stop the answers to the others. It is caught outside the loop,
    /// which costs nothing without a panic.
    fn dispatch(&self, deferred: &mut Deferred) {
        let is_with_owner = Cell::new(false);
        let mut each = || self.dispatch_each(deferred, &is_with_owner);
        while let Err(payload) = catch_unwind(AssertUnwindSafe(&mut each)) {
            if !is_with_owner.take() {
                resume_unwind(payload); // a bug of this crate
            }
            drop_payload(payload);
        }
    }

    /// The loop of [`dispatch`](Self::dispatch). `is_with_owner` is true while an owner runs, so
    /// that a panic of an owner can be told from one of this crate.
    fn dispatch_each(&self, deferred: &mut Deferred, is_with_owner: &Cell<bool>) {
        while let Some((user_data, done)) = self.submissions.next_completion() {
            match user_data {
                CANCEL => continue,
                NOTIFIED => {
                    self.sleeper.notified(done.more());
                    continue;
                }
                _ => {}
            }
            let token = Token::from_user_data(user_data);
            let mut payload = Payload::None;
            match self.submissions.complete(token, done, &mut payload) {
                Some((owner, role)) => {
                    is_with_owner.set(true);
                    owner.complete(role, done, &mut payload, deferred);
                    is_with_owner.set(false);
                }
                None => {
                    count(&self.counters().stray_completions, 1);
                    debug_assert!(false, "a completion for {token:?}, which is not in flight");
                }
            }
        }
    }
}

/// The error of a call that a forked child cannot make.
pub(crate) fn forked() -> io::Error {
    io::Error::other("its tamam runtime belongs to the process that forked")
}

/// The error of an object whose runtime is gone (SEMANTICS G8).
fn gone() -> io::Error {
    io::Error::other("its tamam runtime is gone")
}

/// The error of an object whose engine has failed for good with `errno`.
fn broken(errno: i32, backend: Backend) -> io::Error {
    let cause = io::Error::from_raw_os_error(errno);
    let engine = if backend == Backend::Epoll { "epoll" } else { "io_uring" };
    io::Error::new(cause.kind(), format!("the runtime's {engine} failed: {cause}"))
}

//! The runtime: it joins the executor, the timers and the driver, and has the only loop of this
//! crate.
//!
//! Read [`Runtime::turn`] first. Everything that this thread does happens there. Read next:
//! `driver/mod.rs`.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::context::{self, Entered, Handle};
use crate::deferred::Deferred;
use crate::driver::{Backend, Capabilities, Driver, Kernel, Settings, SetupError, Wait};
use crate::executor::{JoinHandle, MainTask, TaskExecutor};
use crate::metrics::Metrics;
use crate::net::resolver::{Resolver, SharedResolver};
use crate::panics::contain;
use crate::sys;
use crate::time::Timers;

/// A single-thread runtime: tasks, timers, and the engine (io_uring or epoll) that completes its
/// I/O.
///
/// Dropping it drops the future of every task, in the order of their spawns, then cancels what is
/// in flight and waits for the kernel to let go of it.
///
/// # Examples
/// ```
/// let runtime = tamam::Runtime::new()?;
/// let handle = runtime.spawn(async { 6 * 7 });
/// assert_eq!(runtime.block_on(handle).expect("no panic"), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Runtime {
    handle: Rc<Handle>,
    budget: u32,
    /// CLOCK_MONOTONIC at the timers' time zero. It may be a little late, and is never early.
    clock_base_ns: u64,
}

/// Sizes and limits of a [`Runtime`].
///
/// # Examples
/// ```
/// let runtime = tamam::Runtime::builder()
///     .buffer_size(16 * 1024)
///     .buffer_count(64)
///     .build()?;
/// runtime.block_on(async {});
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    backend: Backend,
    pretended: Option<Kernel>,
    entries: u32,
    completion_entries: u32,
    buffer_size: usize,
    buffer_count: u32,
    stream_credit: usize,
    budget: u32,
    resolver: Option<SharedResolver>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            backend: Backend::Auto,
            pretended: None,
            entries: 256,
            completion_entries: 4096,
            buffer_size: 4096,
            buffer_count: 256,
            stream_credit: 64 * 1024,
            budget: 128,
            resolver: None,
        }
    }
}

impl Builder {
    /// What completes I/O: [`Backend::Auto`] unless set.
    pub fn backend(mut self, backend: Backend) -> Builder {
        self.backend = backend;
        self
    }

    /// Uses nothing that came after this kernel, to try what an older one does: below 6.1 no ring,
    /// below 5.11 no exact waits on epoll either. A kernel below 7.0 is taken for one whose
    /// multishot receive misses resets (some do), so that receives are one-shot. A version above
    /// the kernel's own hides nothing. Without this the environment variable
    /// `TAMAM_PRETEND_KERNEL`, such as `6.12`, says so.
    pub fn pretend_kernel(mut self, major: u32, minor: u32) -> Builder {
        self.pretended = Some(Kernel(major, minor));
        self
    }

    /// Submission queue entries: 256 unless set. A full queue is submitted early, nothing is lost.
    /// The kernel rounds up to a power of two and cuts at 32768.
    pub fn entries(mut self, entries: u32) -> Builder {
        self.entries = entries;
        self
    }

    /// Completion queue entries: 4096 unless set; fewer than `entries` are raised to that. Have
    /// twice as many as busy connections; what overflows waits in the kernel, at a cost.
    pub fn completion_entries(mut self, entries: u32) -> Builder {
        self.completion_entries = entries;
        self
    }

    /// Size of each receive buffer in bytes: 4096 unless set. One message that is larger comes in
    /// several chunks.
    pub fn buffer_size(mut self, bytes: usize) -> Builder {
        self.buffer_size = bytes;
        self
    }

    /// How many receive buffers the kernel may pick from: 256 unless set, rounded up to a power of
    /// two, at most 32768. When all are in use, receives go to the heap. The first datagram socket of
    /// a runtime makes as many for datagrams, at most 128, each with room for the largest one; only
    /// memory that was received into counts.
    pub fn buffer_count(mut self, buffers: u32) -> Builder {
        self.buffer_count = buffers;
        self
    }

    /// How many bytes of receive buffers a stream may hold unread before TCP pushes its peer back:
    /// 65536 unless set.
    pub fn stream_credit(mut self, bytes: usize) -> Builder {
        self.stream_credit = bytes;
        self
    }

    /// How many tasks are polled before I/O and timers have their turn: 128 unless set.
    pub fn budget(mut self, polls: u32) -> Builder {
        self.budget = polls;
        self
    }

    /// What looks up the addresses of host names: the system unless set, see
    /// [`SystemResolver`](crate::net::SystemResolver).
    ///
    /// `Send` and `Sync`, because a builder can make runtimes on many threads; the futures of the
    /// resolver need be neither.
    pub fn resolver(mut self, resolver: impl Resolver + Send + Sync + 'static) -> Builder {
        self.resolver = Some(SharedResolver(Arc::new(resolver)));
        self
    }

    /// Starts a runtime on this thread.
    ///
    /// # Errors
    /// `InvalidInput` if a size is zero or too large, or if `TAMAM_BACKEND` or
    /// `TAMAM_PRETEND_KERNEL` has an invalid value (each is read only if the builder makes no
    /// choice of its own). An error around a [`SetupError`](crate::SetupError) if the ring was
    /// asked for and cannot be used here, or if neither engine starts.
    /// # Examples
    /// ```
    /// use std::io::ErrorKind;
    ///
    /// let error = tamam::Runtime::builder().buffer_size(0).build().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::InvalidInput);
    ///
    /// let runtime = tamam::Runtime::builder().entries(64).build()?;
    /// assert_eq!(runtime.block_on(async { 2 + 2 }), 4);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn build(self) -> io::Result<Runtime> {
        let any = usize::MAX;
        for (setting, value, most) in [
            ("entries", self.entries as usize, any),
            ("completion_entries", self.completion_entries as usize, any),
            ("buffer_size", self.buffer_size, 1 << 30),
            ("buffer_count", self.buffer_count as usize, 1 << 15),
            ("stream_credit", self.stream_credit, any),
            ("budget", self.budget as usize, any),
        ] {
            if !(1..=most).contains(&value) {
                let bound =
                    if value == 0 { "at least 1".into() } else { format!("at most {most}") };
                let text = format!("{setting} is {value}, and has to be {bound}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        let settings = Settings {
            backend: self.backend.or_from_env()?,
            pretended: match self.pretended {
                None => Kernel::from_env()?,
                pretended => pretended,
            },
            entries: self.entries,
            completion_entries: self.completion_entries,
            buffer_len: self.buffer_size,
            buffer_count: self.buffer_count.next_power_of_two() as u16,
            stream_credit: self.stream_credit,
        };
        let driver = Driver::new(settings)?;
        let executor = TaskExecutor::new(driver.notifier());
        let timers = Rc::new(Timers::new());
        let clock_base_ns = sys::monotonic_ns();
        let handle = Handle {
            executor,
            timers,
            driver,
            resolver: self.resolver,
            turns: Cell::new(0),
            deferred: Default::default(),
        };
        Ok(Runtime { handle: Rc::new(handle), budget: self.budget, clock_base_ns })
    }
}

impl Runtime {
    /// Starts a runtime on this thread with the default sizes.
    ///
    /// # Errors
    /// An error around a [`SetupError`](crate::SetupError) if the ring was asked for
    /// (`TAMAM_BACKEND=ring`) and cannot be used here, or if neither engine starts. `InvalidInput`
    /// if that variable or `TAMAM_PRETEND_KERNEL` has an invalid value.
    /// # Examples
    /// ```
    /// let runtime = tamam::Runtime::new()?;
    /// assert_eq!(runtime.block_on(async { 2 + 2 }), 4);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new() -> io::Result<Runtime> {
        Builder::default().build()
    }

    /// A builder, to choose sizes and limits.
    ///
    /// # Examples
    /// ```
    /// let runtime = tamam::Runtime::builder().budget(32).build()?;
    /// # drop(runtime);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs `future` to its end, and the tasks of this runtime beside it. The future is polled
    /// where it is, on the caller's stack.
    ///
    /// Tasks that have not ended stay in the runtime, and go on in the next `block_on`.
    ///
    /// # Panics
    /// If `future` panics, with its panic; the runtime can be used again. Inside another `block_on`
    /// of this thread, before anything is polled. In a forked child of the process that made the
    /// runtime.
    /// # Examples
    /// The future may borrow, and tasks go on in the next call:
    /// ```
    /// let runtime = tamam::Runtime::new()?;
    /// let mut log = Vec::new();
    /// let task = runtime.block_on(async {
    ///     log.push("first");
    ///     tamam::spawn(async { "second" })
    /// });
    /// log.push(runtime.block_on(task)?);
    /// assert_eq!(log, ["first", "second"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let Some(_turning) = context::turn(&self.handle.driver) else {
            panic!(
                "`block_on` (or `tamam::run`) inside `block_on`: this thread turns a tamam runtime \
                 already; await the future instead, or spawn it"
            );
        };
        self.handle.driver.assert_not_forked();
        let _entered = context::enter_runtime(&self.handle);
        let output = {
            let future = pin!(future);
            self.turn_until_ready(future)
        };
        // The last polls, and the drop of the future, may have submitted, cancelled or closed. That
        // must not wait for another `block_on`.
        self.park(false);
        output
    }

    /// Turns until `future` is ready, and gives its output.
    fn turn_until_ready<F: Future>(&self, mut future: Pin<&mut F>) -> F::Output {
        let main = self.handle.executor.main_task();
        let mut output = None;
        let mut poll_main = |cx: &mut Context<'_>| match future.as_mut().poll(cx) {
            Poll::Ready(value) => {
                output = Some(value);
                ControlFlow::Break(())
            }
            Poll::Pending => ControlFlow::Continue(()),
        };
        while self.turn(&main, &mut poll_main).is_continue() {}
        output.expect("the loop ends when the future is ready")
    }

    /// One turn. Everything that this thread does happens here, in this order. Break: `poll_main`
    /// has returned it, so the main future is ready. Continue: it needs another turn.
    fn turn(
        &self,
        main: &MainTask,
        poll_main: &mut dyn FnMut(&mut Context<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Handle { executor, turns, .. } = &*self.handle;
        turns.set(turns.get() + 1);
        executor.run_ready(self.budget, main, poll_main)?; // polls tasks; they push ops
        self.park(true); // one enter: submit, wait, reap, wake
        ControlFlow::Continue(())
    }

    /// Runs timers that are due, parks the driver, and wakes what both have brought. It sleeps if
    /// `may_sleep` is true and there is nothing else to do. Otherwise it only submits and reaps.
    fn park(&self, may_sleep: bool) {
        let Handle { executor, driver, timers, deferred: reused, .. } = &*self.handle;
        let deferred = &mut *reused.borrow_mut(); // turns do not nest
        self.expire(deferred);
        driver.prepare_to_park(deferred);
        let wait = match may_sleep && executor.is_idle() && deferred.is_empty() {
            true => Wait::Until(timers.next_deadline().map(|ns| self.to_clock(ns))),
            false => Wait::No, // submit, reap, do not sleep
        };
        driver.park(wait, deferred);
        if timers.next_deadline().is_some() && deferred.is_empty() {
            self.expire(deferred); // the sleep has probably ended at the deadline
        }
        deferred.run(); // no other borrow is held here
    }

    /// Takes out the timers that are due. Their wakers go to `deferred`.
    fn expire(&self, deferred: &mut Deferred) {
        let timers = &self.handle.timers;
        if timers.next_deadline().is_some() {
            timers.expire(timers.now_ns(), deferred.wakers());
        }
    }

    /// A time of the timers on CLOCK_MONOTONIC.
    fn to_clock(&self, ns: u64) -> u64 {
        self.clock_base_ns.saturating_add(ns)
    }

    /// Spawns a task that runs in the next [`block_on`](Self::block_on).
    ///
    /// # Examples
    /// ```
    /// let runtime = tamam::Runtime::new()?;
    /// let task = runtime.spawn(async { "done" });
    /// assert!(!task.is_finished());
    /// assert_eq!(runtime.block_on(task)?, "done");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        self.handle.executor.spawn(future)
    }

    /// Makes this the runtime of the thread until the guard is dropped, so that constructors and
    /// [`spawn`](crate::spawn) find it. The guard runs nothing: tasks wait for the next `block_on`,
    /// I/O that would have to wait is an error, and a sleep that another executor polls is due in
    /// the next `block_on`.
    ///
    /// # Examples
    /// ```
    /// let runtime = tamam::Runtime::new()?;
    /// let listener = {
    ///     let _guard = runtime.enter();
    ///     tamam::net::TcpListener::bind("127.0.0.1:0")?
    /// };
    /// assert!(listener.local_addr()?.port() > 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn enter(&self) -> EnterGuard<'_> {
        EnterGuard { _entered: context::enter_runtime(&self.handle), runtime: PhantomData }
    }

    /// What has been counted since the runtime was made.
    ///
    /// # Examples
    /// ```
    /// let runtime = tamam::Runtime::new()?;
    /// runtime.spawn(async {});
    /// runtime.block_on(tamam::yield_now());
    /// let metrics = runtime.metrics();
    /// assert!(metrics.turns > 0 && metrics.polls > 1);
    /// assert_eq!(metrics.tasks, 0); // it has ended
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.handle)
    }

    /// What completes this runtime's I/O: [`Backend::Ring`] or [`Backend::Epoll`].
    ///
    /// # Examples
    /// ```
    /// use tamam::{Backend, Runtime};
    ///
    /// let runtime = Runtime::new()?;
    /// assert_ne!(runtime.backend(), Backend::Auto); // it has been decided
    /// println!("on {}", runtime.backend());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn backend(&self) -> Backend {
        self.handle.driver.backend()
    }

    /// Why this runtime is not on io_uring. `None` if it is, or if io_uring was not tried.
    ///
    /// # Examples
    /// A line for the log, where the service runs on epoll because it has to:
    /// ```
    /// let runtime = tamam::Runtime::new()?;
    /// if let Some(cause) = runtime.ring_refused() {
    ///     eprintln!("running on {}: {cause}", runtime.backend());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn ring_refused(&self) -> Option<&SetupError> {
        self.handle.driver.refused()
    }

    /// The engine in use, and for each kernel feature whether this runtime uses it, emulates it, or
    /// works without it. For logs, and for tests of what a machine can do.
    ///
    /// # Examples
    /// ```
    /// use tamam::{Runtime, Support};
    ///
    /// let capabilities = Runtime::new()?.capabilities();
    /// for feature in capabilities.features() {
    ///     if feature.support != Support::Native {
    ///         println!("{} is {}: {}", feature.name, feature.support, feature.note);
    ///     }
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn capabilities(&self) -> Capabilities {
        self.handle.driver.capabilities().expect("the engine is there until the runtime is dropped")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let Handle { executor, timers, driver, .. } = &*self.handle;
        // This may run inside another runtime's task. The guards restore its context.
        let _turning = context::turn_nested(driver);
        let _entered = context::enter_runtime(&self.handle);
        driver.begin_close();
        executor.close();
        timers.clear().into_iter().for_each(|waker| contain(|| drop(waker)));
        driver.close();
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}

/// Makes a runtime the current one of its thread; see [`Runtime::enter`].
///
/// # Examples
/// ```
/// let runtime = tamam::Runtime::new()?;
/// let guard = runtime.enter();
/// let task = tamam::spawn(async { "spawned before anything ran" });
/// drop(guard);
/// assert_eq!(runtime.block_on(task)?, "spawned before anything ran");
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "the runtime is left when the guard is dropped"]
pub struct EnterGuard<'a> {
    _entered: Entered,
    runtime: PhantomData<&'a Runtime>,
}

impl fmt::Debug for EnterGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnterGuard")
    }
}

/// Starts a runtime, runs `future` to its end, and gives its output. The tasks that are left are
/// dropped.
///
/// # Panics
/// If no runtime can start, with the reason: descriptors have run out, say, or the ring was asked
/// for (`TAMAM_BACKEND=ring`) and cannot be used. [`Runtime::new`] returns the reason as an error
/// instead. Where io_uring is refused and was not asked for, epoll takes its place. Otherwise as
/// [`Runtime::block_on`].
///
/// # Examples
/// ```
/// let sum = tamam::run(async {
///     let a = tamam::spawn(async { 1 });
///     let b = tamam::spawn(async { 2 });
///     a.await.expect("no panic") + b.await.expect("no panic")
/// });
/// assert_eq!(sum, 3);
/// ```
#[track_caller]
pub fn run<F: Future>(future: F) -> F::Output {
    match Runtime::new() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("no tamam runtime can start: {error}"),
    }
}

/// Spawns a task on the runtime of this thread. It runs as soon as the current one pauses.
///
/// # Panics
/// Outside a runtime.
///
/// # Examples
/// ```
/// tamam::run(async {
///     let handle = tamam::spawn(async { "done" });
///     assert_eq!(handle.await.expect("no panic"), "done");
/// });
/// ```
#[track_caller]
#[doc(alias = "spawn_local")]
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    context::expect_current().executor.spawn(future)
}

/// What completes the I/O of the runtime of this thread: [`Backend::Ring`] or [`Backend::Epoll`].
///
/// # Panics
/// Outside a runtime, as [`metrics`](crate::metrics); [`Runtime::backend`] works there.
/// # Examples
/// ```
/// let runtime = tamam::Runtime::new()?;
/// let inside = runtime.block_on(async { tamam::backend() });
/// assert_eq!(inside, runtime.backend());
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn backend() -> Backend {
    context::expect_current().driver.backend()
}

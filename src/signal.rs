//! Signals of the process: Ctrl-C, and what an operator or a supervisor sends.
//!
//! The first call for a signal installs a handler in place of the signal's default action, which is
//! mostly to end the process. The handler stays as long as the process: after one call of
//! [`ctrl_c`], no later Ctrl-C ends the process by itself. Signals that the program does not ask
//! for keep their action.
//!
//! Every [`Signal`] of its kind sees a signal, in all runtimes of the process. If a signal comes
//! several times before a `Signal` looks, it sees one, as it would from the kernel.
//!
//! # A graceful end
//! A server that stops accepting at Ctrl-C, and gives its connections ten seconds:
//! ```no_run
//! use std::pin::pin;
//! use std::time::Duration;
//! use futures_util::future::{Either, join_all, select};
//! use tamam::net::{TcpListener, TcpStream};
//! use tamam::{JoinHandle, signal, spawn, time::timeout};
//!
//! async fn serve(stream: TcpStream) -> std::io::Result<()> {
//!     while let Some(chunk) = stream.recv().await? {
//!         stream.send_all(chunk).await?;
//!     }
//!     stream.shutdown().await
//! }
//!
//! tamam::run(async {
//!     let listener = TcpListener::bind("127.0.0.1:7000")?;
//!     let mut stop = signal::ctrl_c(); // made before the loop, it misses no signal
//!     let mut served: Vec<JoinHandle<_>> = Vec::new();
//!     loop {
//!         match select(&mut stop, pin!(listener.accept())).await {
//!             Either::Left((stopped, _)) => break stopped?,
//!             Either::Right((Ok((stream, _)), _)) => served.push(spawn(serve(stream))),
//!             Either::Right((Err(error), _)) => eprintln!("accept: {error}"),
//!         }
//!         served.retain(|task| !task.is_finished());
//!     }
//!     drop(listener); // clients are refused from here on
//!     if timeout(Duration::from_secs(10), join_all(served)).await.is_err() {
//!         eprintln!("some connections were cut off");
//!     }
//!     std::io::Result::Ok(())
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```

// The handler (`sys/signal.rs`) counts the signal and writes to an eventfd. It must not call a
// waker (SEMANTICS TK9). A thread reads the eventfd and wakes the tasks that wait. There is one
// such thread in the process, and the first use of a signal starts it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use crate::context;
use crate::panics::wake_all;
use crate::sys;

/// A kind of signal; signal(7).
///
/// # Examples
/// ```
/// use tamam::signal::SignalKind;
///
/// assert_eq!(SignalKind::TERMINATE, SignalKind::from_raw(15));
/// assert_eq!(SignalKind::HANGUP.as_raw(), 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignalKind(i32);

impl SignalKind {
    /// SIGINT: Ctrl-C at the terminal.
    pub const INTERRUPT: SignalKind = SignalKind(libc::SIGINT);
    /// SIGTERM: a request to end, from kill(1) or a supervisor.
    pub const TERMINATE: SignalKind = SignalKind(libc::SIGTERM);
    /// SIGHUP: the terminal is gone. For daemons it means "read your configuration again".
    pub const HANGUP: SignalKind = SignalKind(libc::SIGHUP);
    /// SIGQUIT: Ctrl-\ at the terminal.
    pub const QUIT: SignalKind = SignalKind(libc::SIGQUIT);
    /// SIGUSR1: its meaning is up to the program.
    pub const USER1: SignalKind = SignalKind(libc::SIGUSR1);
    /// SIGUSR2: its meaning is up to the program.
    pub const USER2: SignalKind = SignalKind(libc::SIGUSR2);
    /// SIGCHLD: a child process has ended or stopped.
    pub const CHILD: SignalKind = SignalKind(libc::SIGCHLD);
    /// SIGWINCH: the terminal has changed its size.
    pub const WINDOW: SignalKind = SignalKind(libc::SIGWINCH);

    /// The signal of this number, such as one above SIGRTMIN.
    pub const fn from_raw(number: i32) -> SignalKind {
        SignalKind(number)
    }

    /// Its number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            SignalKind::INTERRUPT => "INTERRUPT",
            SignalKind::TERMINATE => "TERMINATE",
            SignalKind::HANGUP => "HANGUP",
            SignalKind::QUIT => "QUIT",
            SignalKind::USER1 => "USER1",
            SignalKind::USER2 => "USER2",
            SignalKind::CHILD => "CHILD",
            SignalKind::WINDOW => "WINDOW",
            SignalKind(number) => return write!(f, "SignalKind({number})"),
        };
        write!(f, "SignalKind::{name}")
    }
}

/// Waits for the next Ctrl-C (SIGINT).
///
/// "Next" counts from this call, not from the first poll: a signal that comes between them is not
/// missed. From this call on, Ctrl-C does not end the process by itself: see the [module](self).
///
/// # Errors
/// As [`signal`].
/// # Cancel safety
/// Cancel safe. A signal that comes between the drop and the next call of `ctrl_c()` is lost: to
/// miss none, keep the future, or use [`signal`].
/// # Kernel
/// sigaction(2), and an eventfd.
/// # Examples
/// ```no_run
/// tamam::run(async {
///     tamam::signal::ctrl_c().await?;
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn ctrl_c() -> Next {
    Next { signal: signal(SignalKind::INTERRUPT) }
}

/// Waits for the next request to end (SIGTERM), after this call.
///
/// # Errors
/// As [`signal`].
/// # Cancel safety
/// As [`ctrl_c`].
/// # Kernel
/// sigaction(2), and an eventfd.
/// # Examples
/// ```no_run
/// tamam::run(async {
///     tamam::signal::terminate().await?;
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn terminate() -> Next {
    Next { signal: signal(SignalKind::TERMINATE) }
}

/// Waits for the next signal that asks the process to end, Ctrl-C (SIGINT) or SIGTERM, after this
/// call, and tells which of the two came.
///
/// # Errors
/// As [`signal`].
/// # Cancel safety
/// As [`ctrl_c`].
/// # Kernel
/// sigaction(2), and an eventfd.
/// # Examples
/// ```
/// use std::process::Command;
/// use tamam::signal::{SignalKind, shutdown};
///
/// tamam::run(async {
///     let stop = shutdown();
///     Command::new("sh").args(["-c", "kill -TERM $PPID"]).status()?;
///     assert_eq!(stop.await?, SignalKind::TERMINATE);
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn shutdown() -> ShutdownSignal {
    ShutdownSignal { next: [ctrl_c(), terminate()] }
}

/// The signals of one kind, from this call on.
///
/// # Errors
/// `InvalidInput` for a signal that cannot have a handler here, such as SIGKILL or SIGSEGV; those
/// of eventfd(2) and of starting a thread.
/// # Kernel
/// sigaction(2), and an eventfd.
/// # Examples
/// ```no_run
/// use tamam::signal::{SignalKind, signal};
///
/// tamam::run(async {
///     let mut hangups = signal(SignalKind::HANGUP)?;
///     loop {
///         hangups.recv().await;
///         println!("reading the configuration again");
///     }
///     # #[allow(unreachable_code)]
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn signal(kind: SignalKind) -> io::Result<Signal> {
    if !sys::signal::can_be_handled(kind.0) {
        let text = format!("there can be no handler for signal {}", kind.0);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut hub = hub();
    hub.start()?;
    if !hub.handled.contains(&kind.0) {
        sys::signal::install_handler(kind.0)?;
        hub.handled.push(kind.0);
        hub.rouse(); // the thread unblocks it
    }
    let id = hub.next_id;
    hub.next_id += 1;
    Ok(Signal { kind, id, seen: sys::signal::count(kind.0) })
}

/// The signals of one kind; see [`signal`].
///
/// It is `Send` and belongs to no runtime: any executor can poll it.
///
/// # Examples
/// ```
/// use std::process::Command;
/// use tamam::signal::{SignalKind, signal};
///
/// tamam::run(async {
///     let mut signals = signal(SignalKind::USER1)?;
///     Command::new("sh").args(["-c", "kill -USR1 $PPID"]).status()?;
///     signals.recv().await; // without a handler, the signal would have ended the process
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Signal {
    kind: SignalKind,
    /// Identifies its entry in `Hub::waiting`.
    id: u64,
    /// The count of the signal when this last looked.
    seen: u32,
}

impl Signal {
    /// Waits until the signal has come since the last call that was ready, or since this was made.
    /// If it came several times since then, that counts as one.
    ///
    /// # Cancel safety
    /// Cancel safe: a signal that comes after a drop is seen by the next call.
    /// # Examples
    /// A dropped `recv` misses no signal:
    /// ```
    /// use std::process::Command;
    /// use std::time::Duration;
    /// use tamam::signal::{SignalKind, signal};
    /// use tamam::time::timeout;
    ///
    /// tamam::run(async {
    ///     let mut signals = signal(SignalKind::USER2)?;
    ///     assert!(timeout(Duration::from_millis(1), signals.recv()).await.is_err());
    ///     Command::new("sh").args(["-c", "kill -USR2 $PPID"]).status()?;
    ///     signals.recv().await;
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn recv(&mut self) {
        poll_fn(|cx| self.poll_recv(cx)).await;
    }

    /// As [`recv`](Self::recv), for your own futures and streams. The signal wakes the waker of the
    /// last call.
    ///
    /// # Examples
    /// As a stream:
    /// ```
    /// use std::process::Command;
    /// use futures_util::{StreamExt, stream};
    /// use tamam::signal::{SignalKind, signal};
    ///
    /// tamam::run(async {
    ///     let mut signal = signal(SignalKind::HANGUP)?;
    ///     let mut hangups = stream::poll_fn(move |cx| signal.poll_recv(cx).map(Some));
    ///     Command::new("sh").args(["-c", "kill -HUP $PPID"]).status()?;
    ///     assert_eq!(hangups.next().await, Some(()));
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.count() == self.seen {
            let waker = cx.waker().clone(); // foreign code, so before the lock
            let replaced = hub().register(self, waker);
            drop(replaced);
            // Look again: the signal may have come before the waker was registered.
            if self.count() == self.seen {
                return Poll::Pending;
            }
        }
        ready!(context::consume_budget(cx));
        self.seen = self.count();
        Poll::Ready(())
    }

    /// The kind of signal that it waits for.
    ///
    /// # Examples
    /// ```
    /// use tamam::signal::{SignalKind, signal};
    ///
    /// let signal = signal(SignalKind::USER1)?;
    /// assert_eq!(signal.kind(), SignalKind::USER1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// How often the signal has come so far.
    fn count(&self) -> u32 {
        sys::signal::count(self.kind.0)
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        let waker = hub().unregister(self.id);
        drop(waker); // foreign code, so after the lock
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Future of [`ctrl_c`] and [`terminate`]. Ready again only after a further signal.
///
/// # Examples
/// Made before the loop, it misses no signal:
/// ```
/// use std::process::Command;
/// use std::pin::pin;
/// use std::time::Duration;
/// use futures_util::future::{Either, select};
///
/// tamam::run(async {
///     let mut stop = tamam::signal::terminate();
///     let mut work = tamam::time::interval(Duration::from_millis(1));
///     Command::new("sh").args(["-c", "kill -TERM $PPID"]).status()?;
///     loop {
///         match select(&mut stop, pin!(work.tick())).await {
///             Either::Left((stopped, _)) => break stopped,
///             Either::Right(_) => {} // a piece of work
///         }
///     }
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Next {
    signal: io::Result<Signal>,
}

impl Future for Next {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.signal {
            Ok(signal) => signal.poll_recv(cx).map(Ok),
            Err(error) => {
                ready!(context::consume_budget(cx));
                // The first poll returns the error itself, with its errno; later ones its text.
                let text = error.to_string();
                let again = io::Error::new(error.kind(), text);
                Poll::Ready(Err(std::mem::replace(error, again)))
            }
        }
    }
}

/// Future of [`shutdown`]. Ready again only after a further signal: with the other one, if both came.
///
/// # Examples
/// A second signal ends what takes too long to end by itself:
/// ```
/// use std::pin::pin;
/// use std::process::Command;
/// use futures_util::future::{Either, select};
///
/// tamam::run(async {
///     let mut stop = tamam::signal::shutdown();
///     Command::new("sh").args(["-c", "kill -TERM $PPID"]).status()?;
///     (&mut stop).await?;
///     let cleaning = pin!(std::future::pending::<()>());
///     Command::new("sh").args(["-c", "kill -INT $PPID"]).status()?;
///     match select(stop, cleaning).await {
///         Either::Left((_again, _)) => std::io::Result::Ok(()), // enough
///         Either::Right(_) => Ok(()),
///     }
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct ShutdownSignal {
    /// Of SIGINT and of SIGTERM.
    next: [Next; 2],
}

impl Future for ShutdownSignal {
    type Output = io::Result<SignalKind>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<SignalKind>> {
        for (next, kind) in self.next.iter_mut().zip([SignalKind::INTERRUPT, SignalKind::TERMINATE])
        {
            if let Poll::Ready(came) = Pin::new(next).poll(cx) {
                return Poll::Ready(came.map(|()| kind));
            }
        }
        Poll::Pending
    }
}

// ---- the tasks that wait
// ---------------------------------------------------------------------------

static HUB: Mutex<Hub> = Mutex::new(Hub {
    process: 0,
    eventfd: None,
    handled: Vec::new(),
    waiting: Vec::new(),
    next_id: 0,
});

/// The handlers that are installed and the tasks that wait: one for the process, since the kernel
/// sends a signal to the process.
struct Hub {
    /// The process whose thread reads `eventfd`. A forked child has no such thread.
    process: u32,
    eventfd: Option<Arc<OwnedFd>>,
    /// The signals whose handler is installed.
    handled: Vec<i32>,
    /// At most one entry for each `Signal`. A plain list, for there are few.
    waiting: Vec<Waiting>,
    next_id: u64,
}

struct Waiting {
    kind: SignalKind,
    id: u64,
    /// The count when the `Signal` last looked. When the count changes, the waker is woken.
    seen: u32,
    waker: Waker,
}

/// Locks the hub.
fn hub() -> MutexGuard<'static, Hub> {
    // No foreign code runs under the lock, so it is never poisoned.
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Opens the eventfd and starts the thread that reads it, once in a process.
    fn start(&mut self) -> io::Result<()> {
        let process = std::process::id();
        if self.process == process && self.eventfd.is_some() {
            return Ok(());
        }
        if self.process != process {
            // A forked child: these tasks belong to the parent. Neither wake nor drop them here.
            std::mem::forget(std::mem::take(&mut self.waiting));
            // A handler that ran in this child has reset the signal to its default.
            self.handled.clear();
        }
        let eventfd = Arc::new(sys::eventfd()?);
        let reader = eventfd.clone();
        sys::signal::spawn_without_signals("tamam-signal", move || wake_for_ever(&reader))?;
        sys::signal::set_eventfd(eventfd.as_fd());
        self.eventfd = Some(eventfd);
        self.process = process;
        Ok(())
    }

    /// Rouses the thread that reads the eventfd.
    fn rouse(&self) {
        if let Some(eventfd) = &self.eventfd {
            let _ = sys::eventfd_add(eventfd.as_fd()); // full: it is about to wake
        }
    }

    /// Stores the waker of a `Signal`. Returns the one that it had before, for the caller to drop
    /// without the lock.
    fn register(&mut self, signal: &Signal, waker: Waker) -> Option<Waker> {
        let before = self.unregister(signal.id);
        let Signal { kind, id, seen } = *signal;
        self.waiting.push(Waiting { kind, id, seen, waker });
        before
    }

    /// Takes out the waker of the `Signal` with this id; `None` if none is stored.
    fn unregister(&mut self, id: u64) -> Option<Waker> {
        let index = self.waiting.iter().position(|waiting| waiting.id == id)?;
        Some(self.waiting.swap_remove(index).waker)
    }

    /// Takes out the wakers whose signal has come, for the caller to wake without the lock.
    fn take_woken(&mut self) -> Vec<Waker> {
        let (woken, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| sys::signal::count(waiting.kind.0) != waiting.seen);
        let woken: Vec<Waiting> = woken;
        self.waiting = waiting;
        woken.into_iter().map(|waiting| waiting.waker).collect()
    }
}

/// What the thread runs, as long as the process. It alone receives the signals that were asked for
/// where all other threads block them, as in a process that inherited such a mask.
fn wake_for_ever(eventfd: &OwnedFd) {
    loop {
        let handled = hub().handled.clone();
        sys::signal::unblock(&handled);
        sys::poll_readable(eventfd.as_fd(), None);
        sys::eventfd_clear(eventfd.as_fd());
        let woken = hub().take_woken();
        wake_all(woken.into_iter());
    }
}

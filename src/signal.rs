//! Signals of the process: Ctrl-C, and what an operator or a supervisor sends.
//!
//! The first use of a signal puts a handler in the place of what the process did at it (ending,
//! mostly), for as long as the process lives: a program that has asked for [`ctrl_c`] once is not
//! ended by the second Ctrl-C, unless it sees to that itself. Signals that nobody asked for do what
//! they did.
//!
//! Everybody who waits gets each signal, in every runtime of the process. A signal that comes
//! several times before somebody looks is one, as it is to the kernel.
//!
//! ```no_run
//! use tamam::signal;
//!
//! tamam::run(async {
//!     let (stop, end) = (signal::ctrl_c(), signal::terminate());
//!     futures_util::future::select(stop, end).await; // … beside the work
//!     println!("going down");
//! });
//! ```

// The handler counts and writes to an eventfd (`sys/signal.rs`), and no more; one thread for the
// process, started with the first use, reads that and wakes who waits. A waker must not be called in a
// handler (SEMANTICS TK9).

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
    /// SIGTERM: the polite request to end, of kill(1) and of supervisors.
    pub const TERMINATE: SignalKind = SignalKind(libc::SIGTERM);
    /// SIGHUP: the terminal is gone; to daemons, "read your configuration again".
    pub const HANGUP: SignalKind = SignalKind(libc::SIGHUP);
    /// SIGQUIT: Ctrl-\ at the terminal.
    pub const QUIT: SignalKind = SignalKind(libc::SIGQUIT);
    /// SIGUSR1: of any meaning.
    pub const USER1: SignalKind = SignalKind(libc::SIGUSR1);
    /// SIGUSR2: of any meaning.
    pub const USER2: SignalKind = SignalKind(libc::SIGUSR2);
    /// SIGCHLD: a child process has ended or stopped.
    pub const CHILD: SignalKind = SignalKind(libc::SIGCHLD);
    /// SIGWINCH: the terminal has another size.
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
/// Next means after this call, not after the first poll: one that comes in between is not missed.
/// From this call on, Ctrl-C does not end the process by itself: see the [module](self).
///
/// # Errors
/// As [`signal`].
/// # Cancel safety
/// Cancel safe. A signal that comes between the drop and the next `ctrl_c()` is nobody's: to miss
/// none, keep the future, or use [`signal`].
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

/// The signals of one kind, from this call on.
///
/// # Errors
/// `InvalidInput` for a signal that no handler may have, such as SIGKILL or SIGSEGV; those of
/// eventfd(2), and of starting a thread.
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
    }
    let id = hub.next_id;
    hub.next_id += 1;
    Ok(Signal { kind, id, seen: sys::signal::count(kind.0) })
}

/// The signals of one kind; see [`signal`].
///
/// `Send`, and at home nowhere: any executor can poll it.
pub struct Signal {
    kind: SignalKind,
    /// Names its place among those who wait.
    id: u64,
    /// The count when it last looked.
    seen: u32,
}

impl Signal {
    /// Waits until the signal has come since the last time, or since this was made. Several that
    /// came meanwhile are one.
    ///
    /// # Cancel safety
    /// Cancel safe: a signal that comes after a drop is seen by the next call.
    pub async fn recv(&mut self) {
        poll_fn(|cx| self.poll_recv(cx)).await;
    }

    /// As [`recv`](Self::recv), for futures and streams of your own. The waker of the last call is
    /// the one that is woken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.count() == self.seen {
            let waker = cx.waker().clone(); // foreign code: before the lock
            let replaced = hub().register(self, waker);
            drop(replaced);
            // Again: it may have come before there was a waker to wake.
            if self.count() == self.seen {
                return Poll::Pending;
            }
        }
        ready!(context::spend(cx));
        self.seen = self.count();
        Poll::Ready(())
    }

    /// What it waits for.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    fn count(&self) -> u32 {
        sys::signal::count(self.kind.0)
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        let waker = hub().unregister(self.id);
        drop(waker); // foreign code, after the lock
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Future of [`ctrl_c`] and [`terminate`]. Ready again only after a further signal.
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
                ready!(context::spend(cx));
                let text = error.to_string(); // the first one has the errno, the others its words
                let again = io::Error::new(error.kind(), text);
                Poll::Ready(Err(std::mem::replace(error, again)))
            }
        }
    }
}

// ---- who waits -----------------------------------------------------------------------------------

static HUB: Mutex<Hub> = Mutex::new(Hub {
    process: 0,
    news: None,
    handled: Vec::new(),
    waiting: Vec::new(),
    next_id: 0,
});

/// What the process knows of signals. One for all runtimes, since a signal is the process's.
struct Hub {
    /// Whose thread it is that reads `news`: a forked child has none.
    process: u32,
    news: Option<Arc<OwnedFd>>,
    handled: Vec<i32>,
    /// At most one entry for each `Signal` there is. A list: few wait.
    waiting: Vec<Waiting>,
    next_id: u64,
}

struct Waiting {
    kind: SignalKind,
    id: u64,
    /// The count when it last looked: with another it is to be woken.
    seen: u32,
    waker: Waker,
}

fn hub() -> MutexGuard<'static, Hub> {
    // No foreign code runs under it, so nothing panics there.
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Opens the eventfd and starts the thread that reads it, once in a process.
    fn start(&mut self) -> io::Result<()> {
        let process = std::process::id();
        if self.process == process && self.news.is_some() {
            return Ok(());
        }
        if self.process != process {
            // Those who waited in the parent are its own: not woken here, and not dropped.
            std::mem::forget(std::mem::take(&mut self.waiting));
            // A handler that found nobody listening here has taken itself out.
            self.handled.clear();
        }
        let news = Arc::new(sys::eventfd()?);
        let reader = news.clone();
        sys::signal::spawn_without_signals("tamam-signal", move || tell(&reader))?;
        sys::signal::set_eventfd(news.as_fd());
        self.news = Some(news);
        self.process = process;
        Ok(())
    }

    /// Leaves a waker; gives the one that was there.
    fn register(&mut self, signal: &Signal, waker: Waker) -> Option<Waker> {
        let before = self.unregister(signal.id);
        let Signal { kind, id, seen } = *signal;
        self.waiting.push(Waiting { kind, id, seen, waker });
        before
    }

    fn unregister(&mut self, id: u64) -> Option<Waker> {
        let index = self.waiting.iter().position(|waiting| waiting.id == id)?;
        Some(self.waiting.swap_remove(index).waker)
    }

    /// Takes out those whose signal came.
    fn take_woken(&mut self) -> Vec<Waker> {
        let (woken, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| sys::signal::count(waiting.kind.0) != waiting.seen);
        let woken: Vec<Waiting> = woken;
        self.waiting = waiting;
        woken.into_iter().map(|waiting| waiting.waker).collect()
    }
}

/// The life of the thread: as long as the process.
fn tell(news: &OwnedFd) {
    loop {
        sys::poll_readable(news.as_fd(), None);
        sys::eventfd_clear(news.as_fd());
        let woken = hub().take_woken();
        wake_all(woken.into_iter());
    }
}

//! Signals: a handler that only counts and writes to an eventfd, and threads that get none.
//! sigaction(2), signal-safety(7).
//!
//! No signalfd(2): a signal must be blocked in every thread for that, those that other libraries
//! start included, and programs that are started would inherit the mask.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;

/// One more than the highest signal: SIGRTMAX is 64.
const SIGNALS: usize = 65;

/// How often each signal came, since its handler is there. It wraps; only a difference says
/// something.
static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
/// The eventfd that the handler writes to, or -1.
static NEWS: AtomicI32 = AtomicI32::new(-1);
/// The process that reads it: a forked child has the handler too, and shares the eventfd.
static READER: AtomicI32 = AtomicI32::new(0);

/// Runs in the midst of anything, on any thread: nothing but atomics and calls of
/// signal-safety(7).
extern "C" fn handler(signal: libc::c_int) {
    // SAFETY: takes no pointers, cannot fail.
    if unsafe { libc::getpid() } != READER.load(Ordering::Acquire) {
        // A forked child where nobody listens: it has what it would have without us. The signal
        // that is raised waits until the handler returns.
        // SAFETY: both are safe in a handler, and take no pointers.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return;
    }
    // SAFETY: gives the thread's own errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; what was interrupted may be about to read it.
    let before = unsafe { *errno };
    if let Some(count) = usize::try_from(signal).ok().and_then(|signal| COUNTS.get(signal)) {
        count.fetch_add(1, Ordering::Release);
    }
    let one = 1u64.to_ne_bytes();
    // SAFETY: pointer and length come from one array. It does not block: if the counter is full,
    // it is readable already, which is all that is wanted.
    unsafe { libc::write(NEWS.load(Ordering::Acquire), one.as_ptr().cast(), one.len()) };
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// How often `signal` came.
pub(crate) fn count(signal: i32) -> u32 {
    COUNTS[signal as usize].load(Ordering::Acquire)
}

/// Whether there can be a handler for this signal. Not for SIGKILL and SIGSTOP, nor for those that
/// say what the code just did wrong: returning from the handler would do it again. Not for the two
/// that the C library keeps to itself.
pub(crate) fn can_be_handled(signal: i32) -> bool {
    let own = [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP];
    let reserved = 32..libc::SIGRTMIN();
    (1..SIGNALS as i32).contains(&signal)
        && ![libc::SIGKILL, libc::SIGSTOP].contains(&signal)
        && !own.contains(&signal)
        && !reserved.contains(&signal)
}

/// From now on the handler writes to `news`, which must stay open: signals of this process are told
/// there.
pub(crate) fn set_news(news: BorrowedFd<'_>) {
    NEWS.store(news.as_raw_fd(), Ordering::Release);
    READER.store(std::process::id() as i32, Ordering::Release);
}

/// Puts the handler in the place of what the process does at this signal.
pub(crate) fn handle(signal: i32) -> io::Result<()> {
    // SAFETY: zeroes are an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
    // A system call goes on after it. On the thread's signal stack, if it has one: those of other
    // languages may have little else.
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: `action` is readable, and its handler is safe at any time; null asks for nothing.
    super::check(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }).map(drop)
}

/// Starts a thread that gets no signals of the process, from its first instruction on: a handler of
/// the program never runs on it. Those that say what the thread itself did wrong come through.
pub(crate) fn spawn_deaf(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let blocked = all_but_faults();
    let mut before = blocked;
    // SAFETY: one set is readable, the other writable. A thread inherits the mask of its maker.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before) };
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    // SAFETY: `before` is the mask that was there.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    started.map(drop)
}

fn all_but_faults() -> libc::sigset_t {
    // SAFETY: filled on the next line.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is writable.
    unsafe { libc::sigfillset(&mut set) };
    for signal in [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP] {
        // SAFETY: `set` is initialised.
        unsafe { libc::sigdelset(&mut set, signal) };
    }
    set
}

//! Signals: a handler that counts them and writes to an eventfd, and threads that receive none;
//! sigaction(2), signal-safety(7).
//!
//! `src/signal.rs` reads the eventfd and wakes the tasks that wait. signalfd(2) is not used: it
//! works only if every thread blocks the signal, also threads of other libraries, and child
//! processes would inherit that mask.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;

/// One more than the highest signal, SIGRTMAX, which is 64.
const SIGNALS: usize = 65;

/// How often the handler ran for each signal. A count wraps, so only its changes mean anything.
static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];
/// The eventfd that the handler writes to, or -1.
static EVENTFD: AtomicI32 = AtomicI32::new(-1);
/// The id of the process that reads the eventfd. A forked child inherits the handler and the
/// eventfd, but not the thread that reads it.
static READER_PROCESS: AtomicI32 = AtomicI32::new(0);

/// The handler. It may interrupt any code on any thread, so it uses only atomics and calls that
/// signal-safety(7) lists.
extern "C" fn handler(signal: libc::c_int) {
    // SAFETY: getpid(2) takes no pointers and cannot fail.
    if unsafe { libc::getpid() } != READER_PROCESS.load(Ordering::Acquire) {
        // A forked child, which has no thread to read the eventfd: the signal takes its default
        // effect. It is blocked while the handler runs, so the raised one is delivered afterwards.
        // SAFETY: signal-safety(7) lists both calls, and neither takes a pointer to memory.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return;
    }
    // The interrupted code may be about to read errno: save it here, restore it below.
    // SAFETY: it returns the address of this thread's errno, which is valid while the thread lives.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    if let Some(count) = usize::try_from(signal).ok().and_then(|signal| COUNTS.get(signal)) {
        count.fetch_add(1, Ordering::Release);
    }
    let one = 1u64.to_ne_bytes();
    // If the counter is full, the write fails with EAGAIN and the eventfd is readable already.
    // SAFETY: pointer and length are those of one array that lives through the call.
    unsafe { libc::write(EVENTFD.load(Ordering::Acquire), one.as_ptr().cast(), one.len()) };
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// How often `signal` came since its handler was installed. The count wraps, so only its changes
/// mean anything. Panics for a number that is negative or above SIGRTMAX.
pub(crate) fn count(signal: i32) -> u32 {
    COUNTS[signal as usize].load(Ordering::Acquire)
}

/// Whether this signal can have our handler. SIGKILL and SIGSTOP cannot have any. A fault, such as
/// SIGSEGV, would come again as soon as the handler returns. The C library reserves the signals
/// between 32 and SIGRTMIN.
pub(crate) fn can_be_handled(signal: i32) -> bool {
    let faults = [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP];
    let reserved = 32..libc::SIGRTMIN();
    (1..SIGNALS as i32).contains(&signal)
        && ![libc::SIGKILL, libc::SIGSTOP].contains(&signal)
        && !faults.contains(&signal)
        && !reserved.contains(&signal)
}

/// Tells the handler to write to `eventfd`, which must stay open, for signals of this process.
pub(crate) fn set_eventfd(eventfd: BorrowedFd<'_>) {
    EVENTFD.store(eventfd.as_raw_fd(), Ordering::Release);
    READER_PROCESS.store(std::process::id() as i32, Ordering::Release);
}

/// Installs the handler for `signal`, in place of the handler or default that was there. The caller
/// has checked that the signal [can be handled](can_be_handled), and has called [`set_eventfd`].
pub(crate) fn install_handler(signal: i32) -> io::Result<()> {
    // SAFETY: sigaction consists of integers, a mask and an optional function pointer, for which
    // all zeroes are valid: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
    // SA_RESTART: interrupted system calls go on. SA_ONSTACK: the handler uses the thread's
    // alternate stack, if it has one; threads of Go, for example, have little room on the other.
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: `action` lives through the call, its handler is safe in any code it interrupts, and a
    // null pointer asks for no copy of the old action.
    super::check(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }).map(drop)
}

/// Starts a thread on which every signal but the faults is blocked, from its first instruction on.
/// No handler of the program runs on it, unless it calls [`unblock`].
pub(crate) fn spawn_without_signals(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let blocked = all_but_faults();
    let mut before = blocked;
    // A new thread inherits the mask of the thread that starts it.
    // SAFETY: both sets live through the call, which reads the first and writes the second.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before) };
    let started = thread::Builder::new().name(name.to_owned()).spawn(run);
    // SAFETY: `before` is initialised and lives through the call; null asks for no copy of the old
    // mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut()) };
    started.map(drop)
}

/// Lets these signals reach the calling thread, those that are pending at once.
pub(crate) fn unblock(signals: &[i32]) {
    change_mask(libc::SIG_UNBLOCK, signals);
}

/// Keeps these signals from the calling thread.
pub(crate) fn block(signals: &[i32]) {
    change_mask(libc::SIG_BLOCK, signals);
}

/// pthread_sigmask(3). `how` is SIG_BLOCK or SIG_UNBLOCK.
fn change_mask(how: libc::c_int, signals: &[i32]) {
    // SAFETY: sigset_t consists of integers, for which all zeroes are valid.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` lives through the call.
    unsafe { libc::sigemptyset(&mut set) };
    for signal in signals {
        // SAFETY: `set` is initialised and lives through the call.
        unsafe { libc::sigaddset(&mut set, *signal) };
    }
    // SAFETY: `set` is initialised and lives through the call; null asks for no copy of the old mask.
    unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) };
}

/// The set of all signals except those that a fault raises.
fn all_but_faults() -> libc::sigset_t {
    // SAFETY: sigset_t consists of integers, for which all zeroes are valid.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` lives through the call.
    unsafe { libc::sigfillset(&mut set) };
    for signal in [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP] {
        // SAFETY: `set` is initialised and lives through the call.
        unsafe { libc::sigdelset(&mut set, signal) };
    }
    set
}

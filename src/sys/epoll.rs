//! epoll(7): a set of descriptors, and waiting for their events.
//!
//! `driver/epoll.rs` is the engine on top of these calls. A single descriptor is waited for with
//! `poll.rs`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::check;
use super::time::{milliseconds, timespec};

/// epoll_create1(2).
pub(crate) fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: epoll_create1(2) takes no pointers.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: epoll_create1(2) has just opened `fd`, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// epoll_ctl(2), EPOLL_CTL_ADD: adds `fd` to the set. Its events will carry `key`.
pub(crate) fn epoll_add(set: BorrowedFd<'_>, fd: RawFd, events: u32, key: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: key };
    // SAFETY: `event` lives through the call, which only reads it.
    check(unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })
        .map(drop)
}

/// epoll_ctl(2), EPOLL_CTL_DEL: removes `fd` from the set. It fails only for a descriptor that is
/// not in the set; that is ignored.
pub(crate) fn epoll_del(set: BorrowedFd<'_>, fd: RawFd) {
    // SAFETY: EPOLL_CTL_DEL ignores the event, which may be null since Linux 2.6.9.
    unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
}

/// Whether readiness means nothing for `fd`, since its file has no notion of it: regular files,
/// directories, and some devices. The kernel tells it by EPERM; the type of a file does not, as
/// there are regular files of /proc and /sys that can be waited for.
pub(crate) fn is_always_ready(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let set = epoll()?;
    match epoll_add(set.as_fd(), fd.as_raw_fd(), 0, 0) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(true),
        added => added.map(|()| false),
    }
}

/// epoll_pwait2(2): waits for at most `timeout`, exact to the nanosecond. Returns the number of
/// events. Kernel 5.11.
pub(crate) fn epoll_wait_exactly(
    set: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Duration,
) -> io::Result<usize> {
    let (set, list, max) = (set.as_raw_fd(), events.as_mut_ptr(), events.len() as libc::c_int);
    let timeout = timespec(timeout);
    let no_signals = std::ptr::null::<libc::sigset_t>();
    // SAFETY: `list` and `max` are those of one mutable slice, `timeout` lives through the call,
    // and a null signal mask is allowed.
    let count = unsafe {
        libc::syscall(libc::SYS_epoll_pwait2, set, list, max, &raw const timeout, no_signals, 0)
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// epoll_wait(2): waits for at most `timeout`, rounded up to milliseconds; without one, for ever.
/// Returns the number of events.
pub(crate) fn epoll_wait(
    set: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let (set, list, max) = (set.as_raw_fd(), events.as_mut_ptr(), events.len() as libc::c_int);
    let timeout_ms = timeout.map_or(-1, milliseconds);
    // SAFETY: `list` and `max` are those of one mutable slice.
    check(unsafe { libc::epoll_wait(set, list, max, timeout_ms) }).map(|count| count as usize)
}

//! poll(2) on one descriptor or two, for the places that need no epoll set.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::time::milliseconds;

/// Waits until `fd` has something to read, the time is over, or a signal comes; without a timeout,
/// for as long as it takes. It does not tell which: the caller looks.
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) {
    poll(fd, libc::POLLIN, timeout.map_or(-1, milliseconds));
}

/// Whether `fd` has something to read at this moment. It does not wait.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(fd, libc::POLLIN, 0) != 0
}

/// Whether `fd` has room to write at this moment, or an error to tell. It does not wait.
pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> bool {
    poll(fd, libc::POLLOUT, 0) != 0
}

/// Whether `fd` receives no more: its peer has ended, or it was shut down. It does not wait.
pub(crate) fn is_shut_down(fd: BorrowedFd<'_>) -> bool {
    let ends = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
    poll(fd, libc::POLLRDHUP, 0) & ends != 0
}

/// Whether `fd` has ended in both directions at this moment, or was reset.
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    poll_hang_up(fd, Duration::ZERO)
}

/// Waits until the connection of `fd` is reset or has ended in both directions. False if the time
/// is over first.
pub(crate) fn poll_hang_up(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    poll(fd, 0, milliseconds(timeout)) & (libc::POLLERR | libc::POLLHUP) != 0
}

/// Events of one direction of a descriptor: those that are asked for, and hang-up and errors, which
/// come unasked. The bits are those of poll(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PollEvents(libc::c_short);

impl PollEvents {
    /// There is something to read, or the end of it. Urgent data counts: so do the files of /proc
    /// and /sys tell a change.
    pub(crate) const READ: PollEvents = PollEvents(libc::POLLIN | libc::POLLPRI | libc::POLLRDHUP);
    pub(crate) const WRITE: PollEvents = PollEvents(libc::POLLOUT);

    /// Whether these bits say that nothing more will come, because receiving was shut down.
    pub(crate) fn says_ended(bits: u32) -> bool {
        bits & (libc::POLLRDHUP | libc::POLLHUP) as u32 != 0
    }

    pub(crate) fn to_bits(self) -> u32 {
        self.0 as u32 // none of them is negative
    }
}

/// Which of the events `fd` has at this moment, as bits; 0 if none. It does not wait.
pub(crate) fn poll_now(fd: BorrowedFd<'_>, events: PollEvents) -> u32 {
    poll(fd, events.0, 0) as u32 // the kernel gives no negative events
}

/// Returns the events that came; none if the time was over or poll(2) failed. A `timeout_ms` of -1
/// is no limit.
fn poll(fd: BorrowedFd<'_>, events: libc::c_short, timeout_ms: libc::c_int) -> libc::c_short {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: `entry` is the one pollfd that the count of 1 announces, and lives through the call.
    unsafe { libc::poll(&mut entry, 1, timeout_ms) };
    entry.revents
}

/// Waits for these events of `fd`, or until `bell` can be read. Returns whether it is `fd`.
pub(super) fn poll_either(fd: RawFd, events: libc::c_short, bell: Option<BorrowedFd<'_>>) -> bool {
    let entry = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
    let bell = bell.map_or(-1, |bell| bell.as_raw_fd()); // poll(2) leaves -1 out
    let mut entries = [entry(fd, events), entry(bell, libc::POLLIN)];
    // SAFETY: the count is that of the array, which lives through the call.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
    entries[0].revents != 0
}

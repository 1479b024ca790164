//! How a sleeping driver is woken by another thread, and how it sleeps after its engine has failed.
//!
//! What the driver does before and after a sleep is not here, but in `mod.rs`. Read next:
//! `wake.rs`.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use io_uring::{opcode, types};

use super::handshake::Handshake;
use super::submissions::{GONE, Submissions};
use super::wake::Notifier;
use super::{NOTIFIED, Wait};
use crate::sys;

pub(super) struct Sleeper {
    notifier: Arc<Notifier>,
    /// The notifier's too; both give their count back at teardown.
    eventfd: RefCell<Option<Arc<OwnedFd>>>,
    /// Whether a write to the eventfd ends a wait of the engine.
    is_armed: Cell<bool>,
}

impl Sleeper {
    /// `is_armed`: whether a write to `eventfd` ends a wait of the engine already, as under epoll.
    /// If not, [`arm`](Self::arm) sees to it.
    pub(super) fn new(eventfd: Arc<OwnedFd>, is_armed: bool) -> Sleeper {
        Sleeper {
            notifier: Notifier::new(eventfd.clone()),
            eventfd: RefCell::new(Some(eventfd)),
            is_armed: Cell::new(is_armed),
        }
    }

    /// A waker that ends the driver's sleep, from any thread, or keeps it from the next sleep.
    pub(super) fn notifier(&self) -> Waker {
        Waker::from(self.notifier.clone())
    }

    pub(super) fn handshake(&self) -> &Handshake {
        self.notifier.handshake()
    }

    /// Calls `call` with the eventfd. Panics after [`close`](Self::close).
    pub(super) fn with_eventfd<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match &*self.eventfd.borrow() {
            Some(eventfd) => call(eventfd.as_fd()),
            None => unreachable!("{GONE}"),
        }
    }

    /// Keeps a poll on the eventfd armed in the ring. The eventfd is never read: each write to it
    /// completes the multishot poll again. Epoll has the eventfd in its set from the start, and
    /// each write makes an edge.
    #[inline]
    pub(super) fn arm(&self, submissions: &Submissions) {
        if !self.is_armed.replace(true) {
            let fd = types::Fd(self.with_eventfd(|eventfd| eventfd.as_raw_fd()));
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(true).build();
            submissions.push(poll.user_data(NOTIFIED));
        }
    }

    /// The poll has answered. Without `more` it has ended, and the next [`arm`](Self::arm) renews
    /// it.
    pub(super) fn notified(&self, more: bool) {
        self.is_armed.set(more);
    }

    /// Sleeps as long as `wait` allows, without the engine, which has failed. Timers and wakes from
    /// other threads still work.
    pub(super) fn sleep_without_engine(&self, wait: Wait) {
        let Wait::Until(deadline) = wait else { return };
        if self.handshake().park() {
            let timeout = deadline
                .map(|deadline| Duration::from_nanos(deadline.saturating_sub(sys::monotonic_ns())));
            self.with_eventfd(|eventfd| sys::poll_readable(eventfd, timeout));
        }
        self.handshake().unpark();
        self.with_eventfd(sys::eventfd_clear);
    }

    /// Whether epoll_pwait2(2) exists. A wait may not have used it yet, so this asks.
    pub(super) fn waits_exactly(&self) -> bool {
        let none = libc::epoll_event { events: 0, u64: 0 };
        let answer = self
            .with_eventfd(|eventfd| sys::epoll_wait_exactly(eventfd, &mut [none], Duration::ZERO));
        // An eventfd is not an epoll set, so a kernel that has the call answers EINVAL.
        answer.is_err_and(|error: io::Error| error.raw_os_error() == Some(libc::EINVAL))
    }

    /// The driver sleeps no more, and later notifications do nothing.
    pub(super) fn close(&self) {
        self.notifier.close();
        drop(self.eventfd.take());
    }

    /// As [`close`](Self::close), in a forked child.
    pub(super) fn close_in_child(&self) {
        self.notifier.close_in_child();
        drop(self.eventfd.take());
    }
}

#[cfg(test)]
mod tests {
    use io_uring::opcode;

    use super::super::{Backend, CANCEL, Driver, Settings};
    use super::*;
    use crate::deferred::Deferred;

    /// One turn that does not sleep. Gives how many completions it brought.
    fn turn(driver: &Driver) -> u64 {
        let (before, mut deferred) = (driver.counters().completions.get(), Deferred::default());
        driver.prepare_to_park(&mut deferred);
        driver.park(Wait::No, &mut deferred);
        driver.counters().completions.get() - before
    }

    /// The kernel ends a multishot poll on a full completion queue. Here a cancel does.
    #[test]
    fn a_poll_on_the_eventfd_that_has_ended_is_armed_again() {
        let settings = Settings { completion_entries: 4, ..Settings::small(Backend::Ring) };
        let Ok(driver) = Driver::new(settings) else {
            return println!("skipped: io_uring is not available here");
        };
        let write = || driver.sleeper.with_eventfd(sys::eventfd_add).expect("room");
        assert_eq!(turn(&driver), 0);
        write();
        assert_eq!(turn(&driver), 1, "a write is a completion");
        let cancel = opcode::AsyncCancel::new(NOTIFIED).build().user_data(CANCEL);
        driver.submissions.push(cancel);
        assert_eq!(turn(&driver), 2, "the cancel, and the end of the poll");
        // The eventfd is never read, so a new poll completes at once.
        assert_eq!(turn(&driver), 1, "the poll is armed again");
        write();
        assert_eq!(turn(&driver), 1, "a write is a completion again");
        driver.close();
    }
}

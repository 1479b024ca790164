//! The engine for machines without io_uring: it waits for readiness, and gives completions.
//!
//! The engine makes the system call of a request at once, and most requests end there. A request
//! that would block waits for its descriptor. The first such wait registers the descriptor,
//! edge-triggered and for both directions. The descriptor leaves the epoll set before close(2). At
//! an edge the engine makes the system call again and answers, whether or not a future is polled.
//!
//! ```text
//!              IN, PRI, RDHUP, HUP, ERR: reading      OUT, HUP, ERR: writing
//! side: ready ◄──────────────────────────────────────────────────────────── not ready
//!         └── EAGAIN; a short send; a receive that left room, unless PRI, ─────►┘
//!             RDHUP, HUP or ERR was seen
//! ```
//!
//! The flags of an event say only which side to try. The system call gives the answer (SEMANTICS
//! EP3).
//!
//! This file does not know what a request does. Read next: `ops/recv.rs`.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use super::buffer_ring::BufferPool;
use super::descriptor_map::{Descriptor, DescriptorMap, DescriptorSide, WaitingRequest};
use super::op::{Completion, Request, Target};
use super::ring::SleepLimit;
use super::{NOTIFIED, count};
use crate::sys;

/// How many events one wait fetches. The next wait fetches the rest. The number is small, so that
/// the answers to a batch are handled while their data is in the cache.
const EVENTS_MAX: usize = 128;
/// The longest wait. A longer one is done as two (SEMANTICS TM2).
const SLEEP_MAX: Duration = Duration::from_secs(24 * 3600);
const EVENTS: u32 =
    (libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
pub(super) const READ_READY: u32 = libc::EPOLLIN as u32 | READ_STEADY;
/// After one of these flags, a receive that left room may not have emptied the socket: a receive
/// stops at the mark of urgent data, and before EOF.
pub(super) const READ_STEADY: u32 =
    (libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
pub(super) const WRITE_READY: u32 = libc::EPOLLOUT as u32 | WRITE_STEADY;
pub(super) const WRITE_STEADY: u32 = (libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// The epoll set, what is known of each descriptor, and the requests that wait.
pub(super) struct Epoll {
    set: OwnedFd,
    pool: Rc<BufferPool>,
    descriptors: RefCell<DescriptorMap>,
    waiting: WaitList,
    /// How many system calls were made. Those that wait for events are not counted.
    calls: Cell<u64>,
    /// epoll_pwait2(2) does not exist here, or must not be used.
    is_coarse: Cell<bool>,
    events: RefCell<Events>,
    /// Answers of cancelled ops, and second answers of one event. Bounded by the ops in flight.
    answers: RefCell<VecDeque<(u64, Completion)>>,
}

/// The requests that wait for their descriptors.
#[derive(Default)]
struct WaitList {
    /// Which descriptor a request waits for, by the index of its op in the table.
    fds: RefCell<Vec<RawFd>>,
    /// How many requests wait.
    len: Cell<usize>,
}

impl WaitList {
    /// Records that this op waits for `fd`.
    #[inline]
    fn add(&self, user_data: u64, fd: RawFd) {
        let index = index_of(user_data);
        let mut fds = self.fds.borrow_mut();
        if fds.len() <= index {
            fds.resize(index + 1, -1);
        }
        fds[index] = fd;
        self.len.set(self.len.get() + 1);
    }

    /// The descriptor that this op waits for. It may be stale: that of an earlier op with this
    /// index, or -1. So the caller looks whether the request is there. `None`: no op with this
    /// index ever waited.
    fn fd(&self, user_data: u64) -> Option<RawFd> {
        self.fds.borrow().get(index_of(user_data)).copied()
    }

    /// Counts a request that has stopped waiting.
    #[inline]
    fn remove_one(&self) {
        self.len.set(self.len.get() - 1);
    }

    /// Whether no request waits.
    fn is_empty(&self) -> bool {
        self.len.get() == 0
    }
}

/// The events that the last wait has fetched.
struct Events {
    list: Box<[libc::epoll_event]>,
    /// The events from `next` to `end` are not handled yet.
    next: usize,
    end: usize,
}

impl Epoll {
    /// `notifier`: an eventfd. A write to it ends a wait; it is never read. `exact`:
    /// epoll_pwait2(2) may be used.
    pub(super) fn new(
        pool: Rc<BufferPool>,
        notifier: BorrowedFd<'_>,
        exact: bool,
    ) -> io::Result<Epoll> {
        let set = sys::epoll()?;
        let notifier = notifier.as_raw_fd();
        sys::epoll_add(set.as_fd(), notifier, (libc::EPOLLIN | libc::EPOLLET) as u32, NOTIFIED)?;
        let list = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX].into_boxed_slice();
        Ok(Epoll {
            set,
            pool,
            descriptors: RefCell::default(),
            waiting: WaitList::default(),
            calls: Cell::new(0),
            is_coarse: Cell::new(!exact),
            events: RefCell::new(Events { list, next: 0, end: 0 }),
            answers: RefCell::default(),
        })
    }

    /// Makes an attempt, if the descriptor may be ready, and gives the answer. `None`: the request
    /// must wait, and its descriptor is registered: the caller calls [`wait_for`](Self::wait_for).
    /// If it could not be registered, the answer says so. The attempt takes the bytes that it has
    /// sent off `target`; they are added to `sent`.
    #[inline]
    pub(super) fn begin<R: Request>(
        &self,
        target: &mut Target,
        sent: &mut u32,
    ) -> Option<Completion> {
        let mut descriptors = self.descriptors.borrow_mut();
        let descriptor = descriptors.get_or_insert(target.fd);
        let side = descriptor.side(R::INTEREST);
        if side.ready {
            count(&self.calls, 1);
            let left = target.len;
            // SAFETY: the op owns the memory of `target` or borrows it, and the op is not in flight
            // yet. So the memory lives, and no other code uses it during the call.
            let attempt = unsafe { R::attempt(target, &self.pool) };
            *sent += (left - target.len) as u32;
            if let Some(done) = side.note(attempt, *sent) {
                return Some(done);
            }
        }
        if descriptor.is_registered { None } else { self.watch(descriptor, target.fd, *sent) }
    }

    /// Registers a descriptor. `None`: it is registered. `Some`: that has failed, and this is the
    /// answer of the request that wanted to wait, of which `sent` bytes went out.
    #[cold]
    fn watch(&self, descriptor: &mut Descriptor, fd: RawFd, sent: u32) -> Option<Completion> {
        count(&self.calls, 1);
        let key = u64::from(descriptor.life) << 32 | u64::from(fd as u32);
        let Err(error) = sys::epoll_add(self.set.as_fd(), fd, EVENTS, key) else {
            descriptor.is_registered = true;
            return None;
        };
        // No edge will follow, so the next request makes an attempt.
        (descriptor.read.ready, descriptor.write.ready) = (true, true);
        // If bytes went out, they are the answer. The next request meets the error.
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Some(Completion::only(if sent > 0 { Ok(sent) } else { Err(errno) }))
    }

    /// Keeps a request, which [`begin`](Self::begin) did not answer, until its descriptor is ready.
    /// Panics if another request waits for the same side of the descriptor.
    #[inline]
    pub(super) fn wait_for<R: Request>(&self, user_data: u64, target: Target, sent: u32) {
        let request = WaitingRequest { user_data, target, attempt: R::attempt, sent };
        let mut descriptors = self.descriptors.borrow_mut();
        let side = descriptors.get_or_insert(target.fd).side(R::INTEREST);
        let other = side.request.replace(request);
        assert!(other.is_none(), "an object has one op of each kind in flight");
        self.waiting.add(user_data, target.fd);
    }

    /// Removes a waiting request and queues its answer, which says what it has done so far. Nothing
    /// happens if it was answered already.
    pub(super) fn cancel(&self, user_data: u64) {
        if let Some(request) = self.take(user_data) {
            self.answers.borrow_mut().push_back((user_data, request.cancelled()));
        }
    }

    /// Removes a waiting request, which then has no answer. False: it was answered already.
    pub(super) fn withdraw(&self, user_data: u64) -> bool {
        self.take(user_data).is_some()
    }

    /// Removes a request from its descriptor. `None`: no request with this user_data waits.
    fn take(&self, user_data: u64) -> Option<WaitingRequest> {
        let fd = self.waiting.fd(user_data)?;
        let mut descriptors = self.descriptors.borrow_mut();
        let Descriptor { read, write, .. } = descriptors.get_mut(fd)?;
        let is_wanted = |request: &mut WaitingRequest| request.user_data == user_data;
        let taken = read.request.take_if(is_wanted).or_else(|| write.request.take_if(is_wanted))?;
        self.waiting.remove_one();
        Some(taken)
    }

    /// Forgets a descriptor that is about to be closed or given away. No request may wait for it.
    /// It must leave the epoll set: a duplicate of it would keep it there, and its events would be
    /// taken for those of the next descriptor with this number (EP1).
    pub(super) fn forget(&self, fd: BorrowedFd<'_>) {
        let fd = fd.as_raw_fd();
        let Some(descriptor) = self.descriptors.borrow_mut().remove(fd) else { return };
        debug_assert!(descriptor.read.request.is_none() && descriptor.write.request.is_none());
        if descriptor.is_registered {
            count(&self.calls, 1);
            sys::epoll_del(self.set.as_fd(), fd);
        }
    }

    /// How many system calls were made. Those that wait for events are not counted.
    pub(super) fn calls(&self) -> u64 {
        self.calls.get()
    }

    /// Whether a wait could bring anything, or an answer is there already.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.has_answers()
    }

    /// Whether there are answers that no one has taken.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.borrow().is_empty()
    }

    /// Fetches events, and waits for one as long as `sleep` says; `None` does not wait. It does not
    /// wait while there are answers. It fetches none while earlier events are not handled.
    pub(super) fn wait(&self, sleep: Option<SleepLimit>) -> io::Result<()> {
        let mut events = self.events.borrow_mut();
        if events.next < events.end {
            return Ok(());
        }
        let sleep = if self.has_answers() { None } else { sleep };
        (events.next, events.end) = (0, 0);
        events.end = self.fetch(&mut events.list, sleep)?;
        Ok(())
    }

    /// Writes events into `list`, and gives their number: zero if the time is over first. `None`
    /// does not wait.
    fn fetch(
        &self,
        list: &mut [libc::epoll_event],
        sleep: Option<SleepLimit>,
    ) -> io::Result<usize> {
        let set = self.set.as_fd();
        let left = match sleep {
            None => Duration::ZERO,
            Some(SleepLimit::Long) => return sys::epoll_wait(set, list, None),
            Some(SleepLimit::Until(deadline)) => {
                Duration::from_nanos(deadline.saturating_sub(sys::monotonic_ns())).min(SLEEP_MAX)
            }
        };
        if !left.is_zero() && !self.is_coarse.get() {
            match sys::epoll_wait_exactly(set, list, left) {
                // The call does not exist before 5.11, or a filter denies it. Waits are then in
                // whole milliseconds.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.is_coarse.set(true);
                }
                result => return result,
            }
        }
        sys::epoll_wait(set, list, Some(left))
    }

    /// Takes the next answer. An attempt is made only when its answer is asked for, so each answer
    /// is handled while its data is in the cache. `None`: all events that were fetched are handled.
    #[inline]
    pub(super) fn next_completion(&self) -> Option<(u64, Completion)> {
        if let Some(answer) = self.answers.borrow_mut().pop_front() {
            return Some(answer);
        }
        let mut events = self.events.borrow_mut();
        while events.next < events.end {
            let event = events.list[events.next];
            events.next += 1;
            if event.u64 == NOTIFIED {
                continue;
            }
            if let Some(answer) = self.handle(event.u64, event.events) {
                return Some(answer);
            }
        }
        None
    }

    /// Handles an edge: makes an attempt for each request that waits for it. Gives the answer of
    /// one that is done. If both sides have an answer, the one of writing goes to `answers`.
    /// `None`: neither is done.
    #[inline]
    fn handle(&self, key: u64, flags: u32) -> Option<(u64, Completion)> {
        let mut descriptors = self.descriptors.borrow_mut();
        let descriptor = descriptors.get_mut(key as u32 as RawFd)?;
        if descriptor.life != (key >> 32) as u32 || !descriptor.is_registered {
            return None; // the event is of an earlier descriptor with this number
        }
        let first = self.advance(&mut descriptor.read, flags, READ_READY, READ_STEADY);
        let second = self.advance(&mut descriptor.write, flags, WRITE_READY, WRITE_STEADY);
        if let (Some(_), Some(answer)) = (first, second) {
            self.answers.borrow_mut().push_back(answer);
        }
        first.or(second)
    }

    /// Makes an attempt for the request of a side, if the edge is about that side (see
    /// [`DescriptorSide::note_edge`]). Gives the answer, if the request is done. `None`: it waits on, or
    /// there was nothing to do.
    #[inline]
    fn advance(
        &self,
        side: &mut DescriptorSide,
        flags: u32,
        ready: u32,
        steady: u32,
    ) -> Option<(u64, Completion)> {
        if !side.note_edge(flags, ready, steady) {
            return None;
        }
        let request = side.request.as_mut()?;
        count(&self.calls, 1);
        let left = request.target.len;
        // SAFETY: the table keeps the op's memory until the op is answered, and no other code uses
        // it while the op is in flight (invariant 1).
        let attempt = unsafe { (request.attempt)(&mut request.target, &self.pool) };
        request.sent += (left - request.target.len) as u32;
        let (user_data, sent) = (request.user_data, request.sent);
        let done = side.note(attempt, sent)?;
        side.request = None;
        self.waiting.remove_one();
        Some((user_data, done))
    }
}

/// The index of an op in its table.
fn index_of(user_data: u64) -> usize {
    user_data as u32 as usize
}

#[cfg(test)]
mod tests {
    use super::super::op::testing::{self, WaitRequest};
    use super::*;

    /// 1 an event is fetched, and not handled yet; 2 its descriptor leaves, and another file gets the
    /// number; 3 a request waits for that one: the event is not its own.
    #[test]
    fn an_event_of_an_earlier_descriptor_is_not_taken_for_one_of_its_successor() {
        let eventfd = sys::eventfd().expect("an eventfd");
        let pool = BufferPool::for_engine(64, 2).expect("memory");
        let epoll = Epoll::new(pool, eventfd.as_fd(), false).expect("an epoll set");
        let (first, second) = (sys::eventfd().expect("one"), sys::eventfd().expect("another"));
        let begin = |user_data| {
            let mut target = testing::wait(first.as_raw_fd()).target;
            assert!(epoll.begin::<WaitRequest>(&mut target, &mut 0).is_none(), "it waits");
            epoll.wait_for::<WaitRequest>(user_data, target, 0);
        };
        begin(1);
        sys::eventfd_add(first.as_fd()).expect("room");
        epoll.wait(Some(SleepLimit::Long)).expect("the event");
        assert!(epoll.withdraw(1));
        epoll.forget(first.as_fd());
        // SAFETY: takes no pointers. Both descriptors are open; the first number now means the file of
        // the second, and no other thread can get it in between.
        let number = unsafe { libc::dup2(second.as_raw_fd(), first.as_raw_fd()) };
        assert_eq!(number, first.as_raw_fd());
        begin(2);
        let calls = epoll.calls();
        assert!(epoll.next_completion().is_none());
        assert_eq!(epoll.calls(), calls, "no attempt for another's event");
        sys::eventfd_add(second.as_fd()).expect("room");
        epoll.wait(Some(SleepLimit::Long)).expect("the event");
        assert!(epoll.next_completion().is_none(), "the request waits for ever");
        assert_eq!(epoll.calls(), calls + 1, "an attempt for its own event");
    }
}

//! A descriptor that is watched: the object that owns a duplicate of it, and at most one poll for each
//! direction.
//!
//! An event makes its direction ready and wakes all of its futures (SEMANTICS G2). Whoever has shown
//! that it is not ready any more says so, and the next wait looks at the descriptor itself. So no
//! wait depends on an edge that has been, and both engines tell the same:
//!
//! ```text
//!          an event; a look that finds it ready
//! cleared ──────────────────────────────────────► ready
//!         ◄──────────────────────────────────────
//!                  `clear_ready`
//! ```
//!
//! A poll goes on between the waits, as an accept does. If it tells what nobody has asked for, it is
//! stopped until a call waits: so a descriptor that is busy elsewhere does not keep the thread awake.
//! Read next: `ops/poll.rs`.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::context;
use crate::deferred::Deferred;
use crate::driver::{
    Completion, Driver, Interest, Owner, Payload, Role, Submitted, Token, error, is_retried,
};
use crate::ops::poll::{self, PolledFor, ToRead, ToWrite};
use crate::queue::{WaiterId, Waiters};
use crate::sys;

/// A duplicate of a descriptor, and what is known of its directions.
pub(super) struct WatchedFd {
    /// `None` when it was closed.
    fd: Option<OwnedFd>,
    home: Rc<Driver>,
    read: RefCell<WatchedSide>,
    write: RefCell<WatchedSide>,
}

/// One direction.
#[derive(Default)]
struct WatchedSide {
    is_ready: bool,
    /// An errno that is shown to one caller. The next call tries again.
    shown_once: Option<i32>,
    poll: SidePoll,
    waiters: Waiters,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SidePoll {
    #[default]
    Idle,
    Armed {
        token: Token,
        stopping: bool,
    },
}

impl WatchedFd {
    /// Takes over the duplicate. Nothing is asked of the kernel before the first wait.
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> Rc<WatchedFd> {
        let (read, write) = Default::default();
        Rc::new(WatchedFd { fd: Some(fd), home, read, write })
    }

    fn side(&self, interest: Interest) -> &RefCell<WatchedSide> {
        match interest {
            Interest::Read => &self.read,
            Interest::Write => &self.write,
        }
    }

    /// Runs `change` on one direction, under its borrow. What `change` puts into the `Deferred` is
    /// woken and dropped when the borrow has ended, since it may call back into this object.
    fn watching<T>(
        &self,
        interest: Interest,
        change: impl FnOnce(&mut WatchedSide, &mut Deferred) -> T,
    ) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.side(interest).borrow_mut(), &mut deferred);
        self.home.run_deferred(deferred);
        result
    }

    /// The direction counts as not ready: the next wait looks at the descriptor.
    pub(super) fn clear(&self, interest: Interest) {
        self.side(interest).borrow_mut().is_ready = false;
    }

    /// Makes sure that a poll is in flight. The caller is at home, and found no answer. True: there
    /// is one now, so the caller looks again. False: the next event wakes it, when it waits.
    fn arm(self: &Rc<Self>, interest: Interest) -> bool {
        self.watching(interest, |side, deferred| {
            if let SidePoll::Armed { token, stopping } = &mut side.poll {
                if *stopping && self.home.undo_cancel(*token) {
                    *stopping = false;
                }
                // The poll in flight reports changes only: not what was there before and was left.
                side.is_ready = self.look(interest);
                return side.is_ready;
            }
            let token = match self.submit(interest) {
                Submitted::InFlight(token) => token,
                Submitted::Answered(done, _) => {
                    self.complete_poll(interest, side, done, deferred);
                    return true;
                }
            };
            side.poll = SidePoll::Armed { token, stopping: false };
            false
        })
    }

    fn submit(self: &Rc<Self>, interest: Interest) -> Submitted {
        let (fd, owner) = (sys::present(&self.fd), self.clone());
        match interest {
            Interest::Read => self.home.submit(poll::ready::<ToRead>(fd), owner, Role::Recv),
            Interest::Write => self.home.submit(poll::ready::<ToWrite>(fd), owner, Role::Send),
        }
    }

    /// Handles an answer of a poll: an event makes its direction ready; the futures that wait are
    /// woken, so that they look, or submit another poll. An event that tells nothing new, and that
    /// nobody waits for, stops the poll.
    fn complete_poll(
        &self,
        interest: Interest,
        side: &mut WatchedSide,
        done: Completion,
        deferred: &mut Deferred,
    ) {
        if !done.more() {
            side.poll = SidePoll::Idle;
        }
        match done.result() {
            Ok(_) => {
                // Epoll has just looked. The ring tells what a wake-up was about, which can be over
                // by now; and it tells the end of the peer's sending to a poll for writing too.
                let is_news = !side.is_ready && (self.home.attempts_first() || self.look(interest));
                side.is_ready |= is_news;
                if !is_news && side.waiters.is_empty() {
                    self.stop(side);
                }
            }
            Err(errno) if is_retried(errno) => {}
            Err(errno) => side.shown_once = Some(errno),
        }
        if side.has_answer() || side.poll == SidePoll::Idle {
            side.waiters.wake(deferred);
        }
    }

    /// Whether the direction is ready at this moment.
    fn look(&self, interest: Interest) -> bool {
        let events = match interest {
            Interest::Read => ToRead::EVENTS,
            Interest::Write => ToWrite::EVENTS,
        };
        sys::poll_now(sys::present(&self.fd), events) != 0
    }

    /// Cancels a poll until a call waits again.
    fn stop(&self, side: &mut WatchedSide) {
        if let SidePoll::Armed { token, stopping: false } = side.poll {
            side.poll = SidePoll::Armed { token, stopping: true };
            self.home.cancel(token);
        }
    }

    /// The handle is gone: its polls end before the thread sleeps.
    fn end(&self) {
        if self.home.is_forked_copy() {
            return;
        }
        for interest in [Interest::Read, Interest::Write] {
            let side = &mut *self.side(interest).borrow_mut();
            if let SidePoll::Armed { token, .. } = side.poll {
                side.poll = SidePoll::Armed { token, stopping: true };
                self.home.cancel_before_sleep(token);
            }
        }
    }
}

impl WatchedSide {
    fn has_answer(&self) -> bool {
        self.is_ready || self.shown_once.is_some()
    }
}

impl Owner for WatchedFd {
    fn complete(
        self: Rc<Self>,
        role: Role,
        done: Completion,
        _: &mut Payload,
        deferred: &mut Deferred,
    ) {
        let interest = match role {
            Role::Recv => Interest::Read,
            Role::Send => Interest::Write,
            Role::Accept | Role::Connect => unreachable!("a descriptor is only polled"),
        };
        let side = &mut *self.side(interest).borrow_mut();
        self.complete_poll(interest, side, done, deferred);
    }
}

impl Drop for WatchedFd {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.home.close_descriptor(fd);
        }
    }
}

/// The one handle of a watched descriptor. Its drop ends the watch; the ops in flight keep the
/// object until they have ended.
pub(super) struct WatchHandle(Rc<WatchedFd>);

impl WatchHandle {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> WatchHandle {
        WatchHandle(WatchedFd::new(fd, home))
    }

    pub(super) fn watched(&self) -> &Rc<WatchedFd> {
        &self.0
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// `Ready(Ok)` when the direction is ready; `Ready(Err)` once for each error, and away from home.
/// `Pending`: the next event wakes the task. `id` is the caller's name among those that wait, `None`
/// at first.
pub(super) fn poll_ready(
    watched: &Rc<WatchedFd>,
    interest: Interest,
    id: &mut Option<WaiterId>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let side = watched.side(interest);
    loop {
        if side.borrow().has_answer() {
            ready!(context::consume_budget(cx));
            let shown = side.borrow_mut().shown_once.take();
            return Poll::Ready(shown.map_or(Ok(()), |errno| Err(error(errno))));
        }
        ready!(context::poll_home(&watched.home, cx))?;
        if watched.arm(interest) {
            continue;
        }
        if side.borrow().waiters.wants(*id, cx.waker()) {
            let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
            watched.watching(interest, |side, deferred| side.waiters.register(id, waker, deferred));
        }
        // The clone may have cleared, waited, or turned to another runtime. So look again.
        if side.borrow().has_answer() || side.borrow().poll == SidePoll::Idle {
            cx.waker().wake_by_ref();
        }
        return Poll::Pending;
    }
}

/// The future that waits until a direction is ready.
pub(super) struct WaitReady<'a> {
    watched: &'a Rc<WatchedFd>,
    interest: Interest,
    id: Option<WaiterId>,
}

impl<'a> WaitReady<'a> {
    pub(super) fn new(watched: &'a Rc<WatchedFd>, interest: Interest) -> WaitReady<'a> {
        WaitReady { watched, interest, id: None }
    }
}

impl Future for WaitReady<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        poll_ready(this.watched, this.interest, &mut this.id, cx)
    }
}

impl Drop for WaitReady<'_> {
    fn drop(&mut self) {
        let id = self.id;
        if id.is_some() {
            self.watched
                .watching(self.interest, |side, deferred| side.waiters.remove(id, deferred));
        }
    }
}

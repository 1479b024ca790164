//! A listening socket as an object. It owns one accept, and the connections that the accept
//! brought.
//!
//! Connections stay here in order of arrival until a call takes them, so a dropped or forgotten
//! `accept` loses none. The first accept is for one connection, so a listener accepts none that no
//! call asked for. If the next call also finds none, a TCP listener submits a multishot accept. That
//! accept runs until [`ACCEPTED_MAX`] connections wait here; then the listener stops it until a
//! call finds none.
//!
//! What differs between TCP and others is in [`Medium`]. Read next: `net/tcp/listener.rs`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::context;
use crate::deferred::Deferred;
use crate::driver::{
    self, Completion, Driver, Medium, Owner, Payload, Role, Submitted, Token, count, error,
    is_retried,
};
use crate::ops;
use crate::queue::{WaiterId, Waiters};
use crate::sys;
use crate::time::{Sleep, sleep_until};

/// When this many connections wait here, the accept is stopped.
const ACCEPTED_MAX: usize = 64;
/// The first and the longest pause in a shortage of descriptors or memory. Each pause is twice as
/// long as the one before.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// This many errors of new connections in a row count as a shortage.
const FAILED_MAX: u32 = 16;

/// A listening socket, its accept, and the connections that no call has taken.
pub(crate) struct Listener {
    /// Only `into_parts` takes it.
    fd: Option<OwnedFd>,
    home: Rc<Driver>,
    medium: Medium,
    accept: RefCell<Accept>,
}

struct Accept {
    accepted: VecDeque<OwnedFd>,
    op: AcceptOp,
    next: NextShot,
    /// An errno that is shown to one caller.
    shown_once: Option<i32>,
    /// The socket refuses to accept. Each call tries once (SEMANTICS AC10).
    refused: Option<i32>,
    trouble: Trouble,
    waiters: Waiters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptOp {
    Idle,
    Armed {
        token: Token,
        stopping: bool,
    },
    /// A shortage of descriptors or memory. The pause ends at `until`, or when the runtime has
    /// closed more descriptors than `closed`.
    Paused {
        until: Instant,
        closed: u64,
    },
    /// The handle is gone. A connection that still comes is reset.
    Closed,
}

/// The kind of the next accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextShot {
    One,
    Multi,
}

/// Errors since the last connection.
struct Trouble {
    pause: Duration,
    failed: u32,
}

impl Trouble {
    const NONE: Trouble = Trouble { pause: PAUSE.0, failed: 0 };
}

impl Listener {
    /// Takes over a listening, non-blocking socket.
    pub(crate) fn new(fd: OwnedFd, home: Rc<Driver>, medium: Medium) -> Rc<Listener> {
        let accept = Accept {
            accepted: VecDeque::new(),
            op: AcceptOp::Idle,
            next: NextShot::One,
            shown_once: None,
            refused: None,
            trouble: Trouble::NONE,
            waiters: Waiters::default(),
        };
        Rc::new(Listener { fd: Some(fd), home, medium, accept: RefCell::new(accept) })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        sys::present(&self.fd)
    }

    pub(crate) fn home(&self) -> &Rc<Driver> {
        &self.home
    }

    /// How many connections wait here.
    pub(crate) fn accepted_len(&self) -> usize {
        self.accept.borrow().accepted.len()
    }

    /// The future that waits for the next connection.
    pub(crate) fn accept(self: &Rc<Self>) -> AcceptNext<'_> {
        AcceptNext { listener: self, id: None, pause: None }
    }

    /// Runs `change` on the accept, under its borrow. What `change` puts into the `Deferred` is
    /// woken and dropped when the borrow has ended, since it may call back into this object.
    fn accepting<T>(&self, change: impl FnOnce(&mut Accept, &mut Deferred) -> T) -> T {
        let mut deferred = Deferred::default();
        let result = change(&mut self.accept.borrow_mut(), &mut deferred);
        self.home.run_deferred(deferred);
        result
    }

    /// The kind of the accept after a one-shot accept. A Unix socket has no multishot: the kernel's
    /// does not end when the socket is shut down.
    fn after_one_shot(&self) -> NextShot {
        match self.medium {
            Medium::Tcp => NextShot::Multi,
            Medium::Unix | Medium::Pipe | Medium::Shared => NextShot::One,
        }
    }

    /// Makes sure that an accept is in flight; a pause ends with that. The caller is at home, and
    /// found no connection. True: the accept ended at once, so the caller looks again. False: it is
    /// in flight, and the caller waits.
    fn arm(self: &Rc<Self>) -> bool {
        self.accepting(|accept, deferred| {
            match &mut accept.op {
                AcceptOp::Armed { token, stopping } => {
                    if *stopping && self.home.undo_cancel(*token) {
                        *stopping = false;
                    }
                    return false;
                }
                AcceptOp::Idle | AcceptOp::Paused { .. } | AcceptOp::Closed => {}
            }
            accept.refused = None;
            let submitted = match accept.next {
                NextShot::One => {
                    accept.next = self.after_one_shot();
                    self.home.submit(
                        ops::accept::one(self.fd(), self.medium),
                        self.clone(),
                        Role::Accept,
                    )
                }
                NextShot::Multi => {
                    self.home.submit(ops::accept::multishot(self.fd()), self.clone(), Role::Accept)
                }
            };
            match submitted {
                Submitted::InFlight(token) => {
                    accept.op = AcceptOp::Armed { token, stopping: false };
                    false
                }
                Submitted::Answered(done, _) => {
                    self.complete_accept(accept, done, true, deferred);
                    true
                }
            }
        })
    }

    /// Handles the answer `done` of an accept: keeps the connection (resets it if the handle is
    /// gone) or records the error, stops the accept if enough connections wait, and wakes the calls
    /// that wait. `wanted`: a call waits for the answer; without one, a shortage is shown to none.
    fn complete_accept(
        &self,
        accept: &mut Accept,
        done: Completion,
        wanted: bool,
        deferred: &mut Deferred,
    ) {
        if !done.more() && accept.op != AcceptOp::Closed {
            accept.op = AcceptOp::Idle;
        }
        match done.result() {
            Ok(fd) if accept.op == AcceptOp::Closed => reset(sys::adopt(fd)),
            Ok(fd) => {
                count(&self.home.counters().unawaited, u64::from(!wanted));
                accept.accepted.push_back(sys::adopt(fd));
                accept.trouble = Trouble::NONE;
            }
            Err(errno) => {
                // For a Unix listener that was shut down the ring answers EAGAIN, and not EINVAL.
                let is_shut_down = errno == libc::EAGAIN && sys::is_shut_down(self.fd());
                let errno = if is_shut_down { libc::EINVAL } else { errno };
                count(&self.home.counters().accept_errors, u64::from(!is_retried(errno)));
                self.home.note_shortage(errno);
                // Linux takes a descriptor before it looks for a connection. While no client waits,
                // the lack of one is no error of this listener.
                let is_shown = !matches!(errno, libc::EMFILE | libc::ENFILE)
                    || self.fd.as_ref().is_some_and(|fd| sys::is_readable(fd.as_fd()));
                let wanted = wanted && is_shown;
                accept.note_error(errno, wanted, self.home.closed_descriptors());
            }
        }
        if accept.accepted.len() >= ACCEPTED_MAX {
            accept.next = NextShot::One;
            if let AcceptOp::Armed { token, stopping: false } = accept.op {
                accept.op = AcceptOp::Armed { token, stopping: true };
                self.home.cancel(token);
            }
        }
        accept.waiters.wake(deferred);
    }

    /// Ends the accept before it returns. Connections that it still brings wait here.
    fn end_accept(&self) {
        let op = self.accept.borrow().op;
        if let AcceptOp::Armed { token, .. } = op {
            self.home.cancel_and_wait(token);
        }
    }

    /// The handle is gone. Ends the accept now, and resets the connections that no call took, as
    /// the kernel resets its backlog.
    pub(crate) fn close(&self) {
        if self.home.is_forked_copy() {
            return;
        }
        let op = std::mem::replace(&mut self.accept.borrow_mut().op, AcceptOp::Closed);
        if let AcceptOp::Armed { token, .. } = op {
            self.home.cancel_and_wait(token);
        }
        let accepted = std::mem::take(&mut self.accept.borrow_mut().accepted);
        accepted.into_iter().for_each(reset);
        self.home.descriptor_closed();
    }

    /// Ends the accept, and gives the socket and the connections that no call took. `Err`: this is
    /// a forked copy, or the engine has failed with the accept in flight; the caller has no socket
    /// then.
    pub(crate) fn into_parts(self: Rc<Self>) -> io::Result<(OwnedFd, VecDeque<OwnedFd>)> {
        if self.home.is_forked_copy() {
            return Err(driver::forked());
        }
        self.end_accept();
        let Ok(mut this) = Rc::try_unwrap(self) else {
            return Err(io::Error::other("the kernel still holds the socket"));
        };
        let fd = this.fd.take().expect("the descriptor is there until its object ends");
        this.home.release(fd.as_fd());
        Ok((fd, std::mem::take(&mut this.accept.get_mut().accepted)))
    }
}

impl Accept {
    /// Takes the oldest connection, if there is one.
    fn take(&mut self) -> Option<OwnedFd> {
        let fd = self.accepted.pop_front();
        if self.accepted.is_empty() && self.accepted.capacity() > ACCEPTED_MAX {
            self.accepted = VecDeque::new();
        }
        fd
    }

    /// Records an errno of accept(2). A shortage, or the 16th error of new connections in a row,
    /// starts a pause; if the socket itself cannot accept, it counts as refused. `wanted`: a call
    /// waits and is to be shown the errno. `closed`: how many descriptors the runtime has closed.
    fn note_error(&mut self, errno: i32, wanted: bool, closed: u64) {
        match errno {
            errno if is_retried(errno) => {}
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EPERM => {
                // If no call waits, the error is not kept.
                self.shown_once = wanted.then_some(errno);
                self.start_pause(closed);
            }
            libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT => {
                self.refused = Some(errno);
            }
            // An error of the new connection (accept(2)). The next connection may be accepted.
            _ => {
                self.trouble.failed += 1;
                if self.trouble.failed >= FAILED_MAX {
                    self.shown_once = wanted.then_some(errno);
                    self.start_pause(closed);
                }
            }
        }
    }

    /// Pauses, if no accept is in flight. The next pause will be twice as long. `closed`: how many
    /// descriptors the runtime has closed; one more ends the pause.
    fn start_pause(&mut self, closed: u64) {
        if self.op == AcceptOp::Idle {
            self.op = AcceptOp::Paused { until: Instant::now() + self.trouble.pause, closed };
        }
        self.trouble.pause = (self.trouble.pause * 2).min(PAUSE.1);
    }

    /// Whether there is a connection or an error to tell. `waited`: the asking call has waited, or
    /// has tried to accept. To others a refusal is no answer: a later call tries again first.
    fn has_answer(&self, waited: bool) -> bool {
        !self.accepted.is_empty() || self.shown_once.is_some() || (self.refused.is_some() && waited)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
            self.home.close_descriptor(fd);
        }
    }
}

impl Owner for Listener {
    fn complete(
        self: Rc<Self>,
        _: Role,
        done: Completion,
        _: &mut Payload,
        deferred: &mut Deferred,
    ) {
        let accept = &mut *self.accept.borrow_mut();
        let wanted = !accept.waiters.is_empty();
        self.complete_accept(accept, done, wanted, deferred);
    }
}

/// Resets a connection that no call took.
fn reset(fd: OwnedFd) {
    // Fails only if the descriptor is not a socket, and then there is nothing to reset.
    let _ = sys::set_zero_linger(fd.as_fd());
}

/// The future of `accept`: gives the connection's descriptor.
pub(crate) struct AcceptNext<'a> {
    listener: &'a Rc<Listener>,
    id: Option<WaiterId>,
    /// The wait while the listener pauses.
    pause: Option<Pause>,
}

struct Pause {
    sleep: Sleep,
    /// Registered to be woken when a descriptor is closed.
    close: Option<WaiterId>,
}

impl AcceptNext<'_> {
    /// Takes the answer: the oldest connection, or else the error. `None`: there is neither.
    fn take(&self) -> Option<io::Result<OwnedFd>> {
        let accept = &mut *self.listener.accept.borrow_mut();
        match accept.take() {
            Some(fd) => Some(Ok(fd)),
            None => accept.shown_once.take().or(accept.refused).map(|errno| Err(error(errno))),
        }
    }

    fn has_answer(&self, waited: bool) -> bool {
        self.listener.accept.borrow().has_answer(waited)
    }

    /// Registers for the next arrival.
    fn wait(&mut self, cx: &mut Context<'_>) {
        if self.listener.accept.borrow().waiters.wants(self.id, cx.waker()) {
            let waker = cx.waker().clone(); // runs foreign code, so no borrow is held
            let id = &mut self.id;
            self.listener
                .accepting(|accept, deferred| accept.waiters.register(id, waker, deferred));
        }
    }

    /// Waits until the listener's pause is over. `Ready`: it is over, or there is none. `Pending`:
    /// its end, or a descriptor that is closed, wakes the task.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let op = self.listener.accept.borrow().op;
        let AcceptOp::Paused { until, closed } = op else { return Poll::Ready(()) };
        if self.listener.home.closed_descriptors() != closed {
            return Poll::Ready(());
        }
        let new = || Pause { sleep: sleep_until(until), close: None };
        let pause = self.pause.get_or_insert_with(new);
        if pause.sleep.deadline() != until {
            pause.sleep.reset(until);
        }
        if Instant::now() < until && Pin::new(&mut pause.sleep).poll(cx).is_pending() {
            self.listener.home.wait_for_close(&mut pause.close, cx);
            // Cloning a waker runs foreign code, which may have closed a descriptor. So look again.
            if self.listener.home.closed_descriptors() == closed {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

impl Future for AcceptNext<'_> {
    type Output = io::Result<OwnedFd>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waited = self.id.is_some();
        loop {
            if self.has_answer(waited) {
                ready!(context::consume_budget(cx));
                if let Some(answer) = self.take() {
                    return Poll::Ready(answer);
                }
            }
            ready!(context::poll_home(&self.listener.home, cx))?;
            let is_idle = self.listener.accept.borrow().op == AcceptOp::Idle;
            if is_idle && self.listener.arm() {
                waited = true;
                continue;
            }
            self.wait(cx);
            if self.has_answer(waited) {
                cx.waker().wake_by_ref(); // the clone of the waker ran foreign code, which has accepted
                return Poll::Pending;
            }
            ready!(self.poll_pause(cx));
            if !self.listener.arm() {
                return Poll::Pending;
            }
            waited = true;
        }
    }
}

impl Drop for AcceptNext<'_> {
    fn drop(&mut self) {
        if let Some(pause) = &self.pause {
            self.listener.home.stop_waiting_for_close(pause.close);
        }
        let id = self.id;
        if id.is_some() {
            self.listener.accepting(|accept, deferred| accept.waiters.remove(id, deferred));
        }
    }
}

//! An attempt to connect: owns its socket until the kernel is done with it, then gives it away.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use crate::context;
use crate::driver::{Completion, Driver, Owner, Payload, Role, Token, error, is_retried};
use crate::ops;
use crate::sys;

/// The object that the op belongs to. Its descriptor is closed when op and future are gone: never
/// before, since the attempt would live on, and never reused, since a cancelled socket is of no
/// use (SEMANTICS CL16).
struct Attempt {
    fd: RefCell<Option<OwnedFd>>,
    home: Rc<Driver>,
    state: RefCell<State>,
}

enum State {
    InFlight(Token, Waker),
    Done(Result<(), i32>),
    /// The future is gone.
    Abandoned,
}

impl Owner for Attempt {
    fn complete(self: Rc<Self>, _: Role, done: Completion, _: Payload, woken: &mut Vec<Waker>) {
        let result = done.result.map(drop);
        let previous = {
            let mut state = self.state.borrow_mut();
            match *state {
                State::Abandoned => return,
                _ => std::mem::replace(&mut *state, State::Done(result)),
            }
        };
        if let State::InFlight(_, waker) = previous {
            woken.push(waker);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.get_mut().take() {
            drop(fd);
            self.home.descriptor_closed();
        }
    }
}

/// The future of one attempt; gives the connected socket.
pub(super) struct Connect {
    attempt: Rc<Attempt>,
    addr: SocketAddr,
    is_started: bool,
}

impl Connect {
    /// Nothing happens before the first poll.
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>, addr: SocketAddr) -> Connect {
        let state = RefCell::new(State::Abandoned);
        let attempt = Rc::new(Attempt { fd: RefCell::new(Some(fd)), home, state });
        Connect { attempt, addr, is_started: false }
    }

    fn start(&mut self, waker: Waker) {
        let attempt = &self.attempt;
        let fd = attempt.fd.borrow();
        let op = ops::connect::connect(sys::present(&fd), self.addr);
        drop(fd);
        let token = attempt.home.submit(op, attempt.clone(), Role::Connect);
        attempt.state.replace(State::InFlight(token, waker));
        self.is_started = true;
    }
}

impl Future for Connect {
    type Output = io::Result<OwnedFd>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let result = match &*this.attempt.state.borrow() {
            State::Done(result) => Some(*result),
            _ => None,
        };
        match result {
            Some(Ok(())) => {
                let fd = this.attempt.fd.borrow_mut().take();
                return Poll::Ready(Ok(fd.expect("a future is not polled after it was ready")));
            }
            Some(Err(errno)) if !is_retried(errno) => return Poll::Ready(Err(error(errno))),
            Some(Err(_)) => {
                // Not by the peer: the teardown's cancel, or a signal.
                ready!(context::poll_home(&this.attempt.home, cx))?;
                this.is_started = false;
            }
            None => ready!(context::poll_home(&this.attempt.home, cx))?,
        }
        let waker = cx.waker().clone();
        if !this.is_started {
            this.start(waker);
            return Poll::Pending;
        }
        let mut state = this.attempt.state.borrow_mut();
        let replaced = match &mut *state {
            State::InFlight(_, registered) => Some(std::mem::replace(registered, waker)),
            _ => None,
        };
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let state = self.attempt.state.replace(State::Abandoned);
        if let State::InFlight(token, waker) = state {
            if !self.attempt.home.is_forked_copy() {
                self.attempt.home.cancel_before_sleep(token);
            }
            drop(waker);
        }
    }
}

//! One attempt to connect. It owns its socket until the kernel has finished with it, and then gives
//! the socket away.
//!
//! Which addresses are tried, and when, is not here. Read next: `race.rs`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use crate::context;
use crate::deferred::Deferred;
use crate::driver::{
    Completion, Driver, Owner, Payload, Role, Submitted, Token, error, is_retried,
};
use crate::ops;

/// The object that owns the op. The driver keeps its socket until the future claims it. The socket
/// is closed when op and future are gone, or with the runtime. It is not closed earlier, because
/// the attempt would go on. It is not used again, because a cancelled connect leaves it in an
/// unknown state (SEMANTICS CL16, CL17).
struct Connecting {
    /// `None` after it was claimed: the key may name another socket by then.
    socket: Cell<Option<usize>>,
    home: Rc<Driver>,
    state: RefCell<ConnectState>,
}

enum ConnectState {
    /// Nothing was submitted.
    Ready,
    InFlight(Token, Waker),
    Done(Result<(), i32>),
    /// The future is gone.
    Abandoned,
}

impl Owner for Connecting {
    fn complete(
        self: Rc<Self>,
        _: Role,
        done: Completion,
        _: &mut Payload,
        deferred: &mut Deferred,
    ) {
        let mut state = self.state.borrow_mut();
        if let ConnectState::InFlight(..) = *state {
            let done = ConnectState::Done(done.result().map(drop));
            if let ConnectState::InFlight(_, waker) = std::mem::replace(&mut *state, done) {
                deferred.wake(waker);
            }
        }
    }
}

impl Connecting {
    /// Takes the socket from the driver. `None`: it was taken before, or the runtime has ended.
    fn claim(&self) -> Option<OwnedFd> {
        self.home.claim(self.socket.take()?)
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(fd) = self.claim() {
            self.home.close_descriptor(fd);
        }
    }
}

/// The future of one attempt. It gives the connected socket.
pub(super) struct Connect {
    connecting: Rc<Connecting>,
    addr: SocketAddr,
}

impl Connect {
    /// Nothing is submitted before the first poll.
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>, addr: SocketAddr) -> Connect {
        let socket = Cell::new(Some(home.keep_socket(fd)));
        let connecting =
            Rc::new(Connecting { socket, home, state: RefCell::new(ConnectState::Ready) });
        Connect { connecting, addr }
    }

    /// Submits the op. Gives the answer, if it came at once; `None`: it is in flight, and its end
    /// wakes `waker`.
    fn start(&self, waker: Waker) -> Option<Result<(), i32>> {
        let Connecting { socket, home, state } = &*self.connecting;
        let socket = socket.get();
        let op = socket
            .and_then(|socket| home.with_socket(socket, |fd| ops::connect::connect(fd, self.addr)));
        let op = op.expect("a runtime that turns keeps its sockets");
        match home.submit(op, self.connecting.clone(), Role::Connect) {
            Submitted::InFlight(token) => {
                state.replace(ConnectState::InFlight(token, waker));
                None
            }
            Submitted::Answered(done, _) => {
                let done = done.result().map(drop);
                state.replace(ConnectState::Done(done));
                Some(done)
            }
        }
    }
}

impl Future for Connect {
    type Output = io::Result<OwnedFd>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Connecting { home, state, .. } = &*self.connecting;
        let waker = cx.waker().clone(); // runs foreign code, so the state is read afterwards
        let mut done = match &*state.borrow() {
            ConnectState::Done(done) => Some(*done),
            _ => None,
        };
        loop {
            match done {
                Some(Ok(())) => {
                    ready!(context::consume_budget(cx));
                    let claimed = self.connecting.claim().ok_or_else(|| match home.check() {
                        Ok(()) => unreachable!("a future is not polled after it was ready"),
                        Err(gone) => gone,
                    });
                    return Poll::Ready(claimed);
                }
                Some(Err(errno)) if !is_retried(errno) => {
                    ready!(context::consume_budget(cx)); // under epoll it may have come at once
                    return Poll::Ready(Err(error(errno)));
                }
                // The peer did not cause it: the teardown cancelled the op, or a signal came.
                Some(Err(_)) | None => ready!(context::poll_home(home, cx))?,
            }
            let mut current = state.borrow_mut();
            if let ConnectState::InFlight(_, registered) = &mut *current {
                let replaced = std::mem::replace(registered, waker);
                drop(current);
                drop(replaced);
                return Poll::Pending;
            }
            drop(current);
            done = self.start(waker.clone());
            if done.is_none() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let Connecting { home, state, .. } = &*self.connecting;
        if let ConnectState::InFlight(token, waker) = state.replace(ConnectState::Abandoned) {
            if !home.is_forked_copy() {
                home.cancel_before_sleep(token);
            }
            drop(waker);
        }
    }
}

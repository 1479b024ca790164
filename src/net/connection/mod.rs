//! A connected socket as an object: it owns what is in flight on it, whatever its futures do.
//!
//! ```text
//! TcpStream, its halves ──┐
//! futures (borrow it)   ──┼──► Rc<Connection> { fd, home, recv, send } ◄── op slots in the driver
//! ```
//!
//! The last of these to go closes the descriptor, so no number is reused while an op may mean it.
//! Dropping the handle cancels what is in flight; the driver does not sleep before that has ended.
//!
//! Nothing here is TCP's own. Read next: `recv.rs`, `read.rs`, `send.rs`, then `poll.rs`.

mod recv;
mod read;
mod send;
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper", feature = "tls"))]
#[allow(dead_code, reason = "each feature uses a part of it")]
mod poll;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::Waker;

pub(crate) use read::{Read, ReadReport};
use recv::Recv;
use send::Send;
pub(crate) use send::SendReport;

use crate::driver::{self, Completion, Driver, Owner, Payload, Role, count};
use crate::sys;

/// How many unread bytes a drop throws away, so that closing does not reset the connection.
const DRAIN_LEN: usize = 64 * 1024;

pub(crate) struct Connection {
    /// Taken by `into_std` only.
    fd: Option<OwnedFd>,
    home: Rc<Driver>,
    recv: RefCell<Recv>,
    send: RefCell<Send>,
    /// How many handles there are: the stream, or its halves.
    handles: Cell<u8>,
    /// The user wants close(2) to reset the connection.
    zero_linger: Cell<bool>,
}

impl Connection {
    /// Takes over a connected, non-blocking socket; one handle is the caller's.
    pub(crate) fn new(fd: OwnedFd, home: Rc<Driver>) -> Rc<Connection> {
        Rc::new(Connection {
            fd: Some(fd),
            home,
            recv: RefCell::new(Recv::new()),
            send: RefCell::new(Send::new()),
            handles: Cell::new(1),
            zero_linger: Cell::new(false),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        sys::present(&self.fd)
    }

    pub(crate) fn set_zero_linger(&self) -> io::Result<()> {
        sys::set_zero_linger(self.fd())?;
        self.zero_linger.set(true);
        Ok(())
    }

    /// A handle is made two: a stream becomes its halves.
    pub(crate) fn split_handle(&self) {
        self.handles.set(self.handles.get() + 1);
    }

    /// A handle is gone; the last one ends what is in flight.
    pub(crate) fn drop_handle(&self) {
        self.handles.set(self.handles.get() - 1);
        if self.handles.get() == 0 && !self.home.is_forked_copy() {
            self.end_recv();
            self.end_send();
        }
    }

    fn is_closing(&self) -> bool {
        self.handles.get() == 0
    }

    /// The descriptor, and what was received and not read. `Err` gives the connection back: bytes
    /// are on their way out, or the ring has failed with an op in flight.
    pub(crate) fn into_parts(self: Rc<Self>) -> Result<(OwnedFd, Vec<u8>), (io::Error, Rc<Self>)> {
        if self.home.is_forked_copy() {
            return Err((driver::forked(), self));
        }
        if self.has_unsent() {
            let error = io::Error::new(io::ErrorKind::WouldBlock, "a send is still on its way out");
            return Err((error, self));
        }
        let unread = self.settle_recv();
        let mut this = match Rc::try_unwrap(self) {
            Ok(this) => this,
            Err(this) => {
                this.put_back(unread);
                return Err((io::Error::other("the kernel still holds the socket"), this));
            }
        };
        let fd = this.fd.take().expect("the descriptor is there until its object ends");
        this.home.release(fd.as_fd());
        Ok((fd, unread))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl Owner for Connection {
    fn complete(
        self: Rc<Self>,
        role: Role,
        done: Completion,
        payload: Payload,
        woken: &mut Vec<Waker>,
    ) {
        match role {
            Role::Recv => {
                if matches!(done.result(), Ok(1..)) && self.is_unawaited() {
                    count(&self.home.counters().parked, 1);
                }
                self.complete_recv(done, payload, woken)
            }
            Role::Send => self.complete_send(done, payload, woken),
            Role::Accept | Role::Connect => unreachable!("a connection only receives and sends"),
        }
        // If this was the last reference, the descriptor is closed here.
    }
}

impl Drop for Connection {
    /// Nothing is in flight any more. Sends what the kernel takes at once, throws away what was
    /// not read, closes: none of it waits (SEMANTICS CL1 to CL6).
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if !self.zero_linger.get() && !self.home.is_forked_copy() {
            self.send.get_mut().flush_now(fd.as_fd());
            if !self.recv.get_mut().has_ended() {
                let _ = sys::discard_unread(fd.as_fd(), DRAIN_LEN);
            }
        }
        self.home.close_descriptor(fd);
    }
}

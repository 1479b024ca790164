//! A socket for datagrams as an object. It owns the ops in flight, what they brought, and the queue
//! of sends. Its futures only wait.
//!
//! It is for every family whose addresses are [`DatagramAddr`]s, and knows neither the handles nor the
//! options of any. Read next: `receive.rs`, then `transmit.rs`.

mod calls;
mod envelope;
mod poll;
mod read;
mod receive;
mod record;
mod room;
mod send;
mod transmit;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::rc::Rc;

pub(crate) use calls::datagram_calls;
pub use envelope::{Ecn, Envelope};
pub(crate) use read::{DatagramReport, Reading};
use receive::{Arrivals, Intake};
pub use record::Datagram;
pub(crate) use record::read_record;
pub(crate) use send::DatagramSent;
use transmit::Departures;

use crate::buf::Chunk;
use crate::deferred::Deferred;
use crate::driver::{self, Completion, Driver, Owner, Payload, Role, count};
use crate::sys;
use crate::sys::addr::SockAddr;

/// An address of one family, in the words of its users and of the kernel.
pub(crate) trait DatagramAddr: Clone + 'static {
    const FAMILY: DatagramFamily;

    fn to_kernel(&self) -> SockAddr;

    /// Reads what the kernel has written. It is an error if it is an address of another family.
    fn from_kernel(name: &[u8]) -> io::Result<Self>;
}

/// What the kernel does with datagrams, as far as families differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatagramFamily {
    /// A datagram fits into a buffer of the pool, whatever its size. Those that a receiver has no
    /// room for are thrown away, so a sender has room soon.
    Internet,
    /// A datagram is as large as its sender's buffer lets it be. What a receiver has no room for is
    /// not sent.
    Unix,
}

impl DatagramAddr for SocketAddr {
    const FAMILY: DatagramFamily = DatagramFamily::Internet;

    fn to_kernel(&self) -> SockAddr {
        SockAddr::new(*self)
    }

    fn from_kernel(name: &[u8]) -> io::Result<SocketAddr> {
        SockAddr::from_bytes(name)
    }
}

impl DatagramAddr for UnixAddr {
    const FAMILY: DatagramFamily = DatagramFamily::Unix;

    fn to_kernel(&self) -> SockAddr {
        SockAddr::unix(self)
    }

    fn from_kernel(name: &[u8]) -> io::Result<UnixAddr> {
        SockAddr::unix_from_bytes(name)
    }
}

/// A datagram socket, what is received and not taken, and what is to be sent.
pub(crate) struct DatagramSocket<A: DatagramAddr> {
    /// Only `into_parts` takes it.
    fd: Option<OwnedFd>,
    home: Rc<Driver>,
    arrivals: RefCell<Arrivals>,
    departures: RefCell<Departures<A>>,
    /// The handle is gone. What still comes is thrown away, and nothing more is submitted.
    is_closing: Cell<bool>,
}

impl<A: DatagramAddr> DatagramSocket<A> {
    /// Takes over a non-blocking socket. The handle is the caller's, which ends it with
    /// [`close`](Self::close). It is an error if the family has buffers for datagrams, and there is
    /// no memory for them.
    pub(crate) fn new(fd: OwnedFd, home: Rc<Driver>) -> io::Result<Rc<DatagramSocket<A>>> {
        let intake = match A::FAMILY {
            DatagramFamily::Internet => Intake::pooled(home.datagram_pool()?.clone()),
            DatagramFamily::Unix => Intake::OwnSize,
        };
        let arrivals = Arrivals::new(intake);
        Ok(Rc::new(DatagramSocket {
            fd: Some(fd),
            home,
            arrivals: RefCell::new(arrivals),
            departures: RefCell::new(Departures::new()),
            is_closing: Cell::new(false),
        }))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        sys::present(&self.fd)
    }

    /// The handle is gone. Cancels what is in flight; the driver does not sleep before that has
    /// ended. Datagrams that no call took are thrown away. In a forked copy nothing happens.
    pub(crate) fn close(&self) {
        if self.home.is_forked_copy() {
            return;
        }
        self.is_closing.set(true);
        let tokens = [self.arrivals.borrow().token(), self.departures.borrow().token()];
        tokens.into_iter().flatten().for_each(|token| self.home.cancel_before_sleep(token));
        self.arrivals.borrow_mut().take_all();
        self.departures.borrow_mut().room.stop();
    }

    /// Takes the socket apart: ends what is in flight, and gives the descriptor and the records that
    /// no call took. Sends that were abandoned are offered to the kernel once more. `Err`: this is a
    /// forked copy, or the engine has failed with an op in flight; the caller has no socket then.
    pub(crate) fn into_parts(self: Rc<Self>) -> io::Result<(OwnedFd, VecDeque<Chunk>)> {
        if self.home.is_forked_copy() {
            return Err(driver::forked());
        }
        let token = self.arrivals.borrow().token();
        token.into_iter().for_each(|token| self.home.cancel_and_wait(token));
        let unread = self.arrivals.borrow_mut().take_all();
        self.is_closing.set(true);
        let token = self.departures.borrow().token();
        token.into_iter().for_each(|token| self.home.cancel_and_wait(token));
        self.departures.borrow_mut().room.stop();
        let Ok(mut this) = Rc::try_unwrap(self) else {
            return Err(io::Error::other("the kernel still holds the socket"));
        };
        let fd = this.fd.take().expect("the descriptor is there until its object ends");
        this.departures.get_mut().flush_now(fd.as_fd());
        this.home.release(fd.as_fd());
        Ok((fd, unread))
    }
}

impl<A: DatagramAddr> AsFd for DatagramSocket<A> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::present(&self.fd)
    }
}

impl<A: DatagramAddr> Owner for DatagramSocket<A> {
    #[inline]
    fn complete(
        self: Rc<Self>,
        role: Role,
        done: Completion,
        payload: &mut Payload,
        deferred: &mut Deferred,
    ) {
        match role {
            Role::Recv => {
                let arrivals = &mut *self.arrivals.borrow_mut();
                if done.result().is_ok() && arrivals.keeps_what_comes() {
                    count(&self.home.counters().unawaited, 1);
                }
                self.complete_receive(arrivals, done, mem::take(payload), deferred);
            }
            Role::Send => {
                let departures = &mut *self.departures.borrow_mut();
                self.complete_send(departures, done, mem::take(payload), deferred);
            }
            Role::Accept | Role::Connect => unreachable!("it only receives and sends"),
        }
        // If `self` was the last reference, the descriptor is closed here.
    }
}

impl<A: DatagramAddr> Drop for DatagramSocket<A> {
    /// Nothing is in flight. What waits to be sent is offered to the kernel once more, and the
    /// descriptor is closed. Neither waits.
    fn drop(&mut self) {
        let Some(fd) = self.fd.take() else { return };
        if !self.home.is_forked_copy() {
            self.departures.get_mut().flush_now(fd.as_fd());
        }
        self.home.close_descriptor(fd);
    }
}

#[cfg(test)]
mod tests;

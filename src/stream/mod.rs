//! A connected byte stream as an object. It owns the ops in flight, and its futures only wait.
//!
//! ```text
//! TcpStream, its halves ──┐ futures (borrow it)   ──┼──► Rc<Connection> { fd, home, receive,
//! transmit } ◄── op slots in the driver
//! ```
//!
//! The last of these references closes the descriptor. So the kernel does not reuse its number
//! while an op means it. Dropping the last handle cancels the ops in flight, and the driver does
//! not sleep before they have ended.
//!
//! What differs between TCP and others is in [`Medium`]. Read next: `receive.rs`, then `transmit.rs`.

mod receive;
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "poll traits and TLS use a part"))]
mod unread;
mod bulk;
mod descriptors;
mod read;
mod peek;
mod transmit;
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "poll traits and TLS use a part"))]
mod send_queue;
mod send;
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper", feature = "tls"))]
#[allow(dead_code, reason = "each feature uses a part of it")]
pub(crate) mod poll;
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS uses a part"))]
mod layer;
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS uses a part"))]
mod bottom;
mod memory;
mod threaded;
mod accept;
mod calls;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

pub(crate) use accept::{AcceptNext, Listener};
pub(crate) use bottom::Bottom;
pub(crate) use calls::{half_names, halves, queueing_calls, receiving_calls, sending_calls};
pub(crate) use layer::{Carried, Carrier, Drained, QueuedOutcome, QueuedSend, Ticket};
#[cfg(feature = "tls")]
pub(crate) use layer::{check_home, drain};
pub(crate) use memory::MemoryEnd;
pub(crate) use peek::Peek;
pub(crate) use read::{Asked, Read, ReadReport, RecvChunk, Source, put_back};
use receive::ReceiveSide;
use send::{SendBuffer, SendReport, Shutdown};
pub(crate) use send_queue::Fate;
#[cfg(feature = "tls")]
pub(crate) use send_queue::{Abandoned, SendQueue};
pub(crate) use threaded::ThreadedEnd;
use transmit::TransmitSide;
pub(crate) use unread::Unread;
#[cfg(feature = "tls")]
pub(crate) use unread::{Arrival, End, Failure, LayerFailure, Segment};

use crate::blocking::standard;
use crate::buf::{BufError, Described, Handed, IoBuf, Many, One};
use crate::deferred::Deferred;
use crate::driver::{self, Completion, Driver, Medium, Owner, Payload, Role, count};
use crate::sys::{self, ClosableFd};

/// How many unread bytes a drop discards, so that the close does not reset the connection.
const DRAIN_LEN: usize = 64 * 1024;

/// A connected stream socket, what is received and not read, and what is to be sent.
pub(crate) struct Connection {
    /// Only `into_parts` takes it, and the shutdown of a pipe.
    fd: ClosableFd,
    home: Rc<Driver>,
    medium: Medium,
    receive: RefCell<ReceiveSide>,
    transmit: RefCell<TransmitSide>,
    /// The number of handles: one for the stream, or one for each half.
    handles: Cell<u8>,
    /// The user wants close(2) to reset the connection.
    zero_linger: Cell<bool>,
}

impl Connection {
    /// Takes over a connected, non-blocking descriptor. One handle is the caller's, which ends it
    /// with `drop_handle`.
    pub(crate) fn new(fd: OwnedFd, home: Rc<Driver>, medium: Medium) -> Rc<Connection> {
        Rc::new(Connection {
            fd: ClosableFd::new(fd),
            home,
            medium,
            receive: RefCell::new(ReceiveSide::new()),
            transmit: RefCell::new(TransmitSide::new()),
            handles: Cell::new(1),
            zero_linger: Cell::new(false),
        })
    }

    /// A standard stream of the process, with what was read ahead of it. One handle is the caller's,
    /// as in `new`.
    pub(crate) fn shared(fd: OwnedFd, home: Rc<Driver>, unread: &[u8]) -> Rc<Connection> {
        let connection = Connection::new(fd, home, Medium::Shared);
        connection.receiving(|receive, _| receive.unread.put_back(unread));
        connection
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    #[inline]
    pub(crate) fn home(&self) -> &Rc<Driver> {
        &self.home
    }

    /// Makes close(2) reset the connection. Then the drop neither sends the rest of the queue nor
    /// discards unread bytes first. `Err`: nothing has changed.
    pub(crate) fn set_zero_linger(&self) -> io::Result<()> {
        sys::set_zero_linger(self.fd())?;
        self.zero_linger.set(true);
        Ok(())
    }

    /// Undoes [`set_zero_linger`](Self::set_zero_linger). `Err`: nothing has changed.
    pub(crate) fn set_no_linger(&self) -> io::Result<()> {
        sys::set_no_linger(self.fd())?;
        self.zero_linger.set(false);
        Ok(())
    }

    /// The future that waits for the next bytes and takes one piece of them; `None` at EOF.
    #[inline]
    pub(crate) fn recv(self: &Rc<Self>) -> RecvChunk<'_, Connection> {
        RecvChunk::new(self)
    }

    /// The future that queues `handed`, at its first poll, behind what is queued already, and waits
    /// until it is out or has failed. `answer` makes the future's output of the report, which has
    /// the buffer.
    #[inline]
    fn send<H: Handed, T, A: Fn(SendReport<H::Buf>) -> T>(
        self: &Rc<Self>,
        handed: H,
        answer: A,
    ) -> SendBuffer<'_, H, A> {
        SendBuffer::new(self, handed, answer)
    }

    /// The future that sends a buffer. It is an error only if no byte went out: the direction stays
    /// failed, so the next call tells it.
    #[inline]
    pub(crate) fn send_some<B: IoBuf>(
        self: &Rc<Self>,
        buf: B,
    ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        self.send(One::new(buf), SendReport::some_sent)
    }

    /// The future that sends a buffer. It is an error unless all bytes went out.
    #[inline]
    pub(crate) fn send_all<B: IoBuf>(
        self: &Rc<Self>,
        buf: B,
    ) -> impl Future<Output = Result<B, BufError<B>>> {
        self.send(One::new(buf), SendReport::all_sent)
    }

    /// The future that sends several buffers. It is an error only if no byte went out.
    #[inline]
    pub(crate) fn sendv<B: IoBuf>(
        self: &Rc<Self>,
        bufs: Vec<B>,
    ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
        self.send(Many::new(bufs), SendReport::some_sent)
    }

    /// The future that sends a buffer, and descriptors with its first byte.
    pub(crate) fn send_described<B: IoBuf>(
        self: &Rc<Self>,
        buf: B,
        descriptors: Vec<OwnedFd>,
    ) -> impl Future<Output = Result<B, BufError<B>>> {
        self.send(Described::new(buf, descriptors), SendReport::all_sent)
    }

    /// The future that asks for the shutdown, at its first poll, and waits until everything queued
    /// is out and sending is shut down. `Err`: a send or shutdown(2) has failed.
    pub(crate) fn shutdown(self: &Rc<Self>) -> Shutdown<'_, Connection> {
        Shutdown::new(self)
    }

    /// Drops the handle of the half that sends: the end follows what is queued. Not if the user
    /// wants a reset when both halves are gone: an end before it would make it look clean
    /// (SEMANTICS CL6, CL8).
    pub(crate) fn drop_sending_half(self: &Rc<Self>) {
        if !self.zero_linger.get() {
            self.ask_shutdown();
        }
        self.drop_handle();
    }

    /// Adds a handle: a stream becomes its halves, or another value takes the place of one. The new
    /// handle needs its own `drop_handle`.
    pub(crate) fn split_handle(&self) {
        self.handles.set(self.handles.get() + 1);
    }

    /// A handle is gone; the caller counts each handle once. The last one cancels what is in flight
    /// and drops the unread bytes, except in a forked copy.
    pub(crate) fn drop_handle(&self) {
        self.handles.set(self.handles.get() - 1);
        if self.handles.get() == 0 && !self.home.is_forked_copy() {
            if self.medium == Medium::Shared {
                self.keep_unread();
            }
            self.end_receive();
            self.end_send();
        }
    }

    /// What was read ahead of stdin stays for the next that reads it in this process.
    fn keep_unread(&self) {
        self.cancel_receive_and_wait();
        let unread = self.receiving(|receive, deferred| receive.unread.take_all(deferred));
        standard::input().put_back(&unread);
    }

    /// Whether no handle is left.
    fn is_closing(&self) -> bool {
        self.handles.get() == 0
    }

    /// Takes the connection apart: ends the receive in flight, and gives the descriptor and the
    /// unread bytes. `Err` gives the connection back, with all it had: bytes are on their way out
    /// (`WouldBlock`), the engine has failed with an op in flight, or this is a forked copy.
    pub(crate) fn into_parts(self: Rc<Self>) -> Result<(OwnedFd, Vec<u8>), (io::Error, Rc<Self>)> {
        if self.home.is_forked_copy() {
            return Err((driver::forked(), self));
        }
        if self.has_unsent() {
            let error = io::Error::new(io::ErrorKind::WouldBlock, "a send is still on its way out");
            return Err((error, self));
        }
        self.cancel_receive_and_wait();
        if self.has_descriptors() {
            let text = "descriptors were received: recv_fds gives them";
            return Err((io::Error::new(io::ErrorKind::WouldBlock, text), self));
        }
        let unread = self.receiving(|receive, deferred| receive.unread.take_all(deferred));
        let mut this = match Rc::try_unwrap(self) {
            Ok(this) => this,
            Err(this) => {
                this.receiving(|receive, _| receive.unread.put_back(&unread));
                return Err((io::Error::other("the kernel still holds the socket"), this));
            }
        };
        let Some(fd) = this.fd.take_last() else {
            let error = io::Error::new(io::ErrorKind::NotConnected, "it was shut down");
            return Err((error, Rc::new(this)));
        };
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
                let receive = &mut *self.receive.borrow_mut();
                if matches!(done.result(), Ok(1..)) && receive.is_unawaited() {
                    count(&self.home.counters().unawaited, 1);
                }
                self.complete_receive(receive, done, mem::take(payload), deferred);
            }
            Role::Send => {
                self.complete_send(&mut self.transmit.borrow_mut(), done, payload, deferred);
            }
            Role::Accept | Role::Connect => unreachable!("a connection only receives and sends"),
        }
        // If `self` was the last reference, the descriptor is closed here.
    }
}

impl Drop for Connection {
    /// Nothing is in flight. Sends what the kernel takes at once, discards unread bytes, and
    /// closes. None of it waits (SEMANTICS CL1 to CL6).
    fn drop(&mut self) {
        let Some(fd) = self.fd.take_last() else { return };
        if !self.zero_linger.get() && !self.home.is_forked_copy() {
            self.transmit.get_mut().flush_now(fd.as_fd(), self.medium);
            if self.receive.get_mut().unread.end().is_none() {
                let _ = match self.medium {
                    Medium::Tcp => sys::discard_unread(fd.as_fd(), DRAIN_LEN),
                    Medium::Unix => sys::read_and_discard(fd.as_fd(), DRAIN_LEN),
                    // What is unread there costs its writer nothing.
                    Medium::Pipe | Medium::Shared => Ok(0),
                };
            }
        }
        self.home.close_descriptor(fd);
    }
}

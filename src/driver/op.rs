//! The contract of an op: a request to the kernel that owns the memory it points to.
//!
//! Every op belongs to an object (a connection, a listener, an attempt to connect) that outlives
//! the future which asked for it: the future only waits. The table holds the object and the
//! memory until the terminal completion and gives both back then, so whoever drops or forgets a
//! future, the kernel never writes to freed memory (invariant 1).
//!
//! Not here: what each request says to the kernel (`ops/`). Read next: `table.rs`.

use std::any::Any;
use std::io;
use std::rc::Rc;
use std::task::Waker;

use io_uring::{cqueue, squeue};

use crate::buf::{Batch, Fill, Outgoing};
use crate::sys::addr::SockAddr;

/// One request with the memory that it points to. Made in `ops/` only.
pub(crate) struct Op {
    entry: squeue::Entry,
    payload: Payload,
}

impl Op {
    /// # Safety
    /// All pointers in `entry` lead into `payload`'s heap memory, which stays where it is when
    /// the payload moves, or `entry` has none.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn new(entry: squeue::Entry, payload: Payload) -> Op {
        Op { entry, payload }
    }

    pub(super) fn into_parts(self) -> (squeue::Entry, Payload) {
        (self.entry, self.payload)
    }
}

/// Memory of an op in flight.
pub(crate) enum Payload {
    /// The request points to nothing, or to provided buffers.
    None,
    /// A caller's buffer that is received into.
    Fill(Rc<Fill<dyn Any>>),
    /// Memory of our own that is received into.
    Heap(Vec<u8>),
    /// A caller's buffer that is sent.
    Outgoing(Outgoing),
    /// Several of them, with the message header that lists them.
    Batch(Box<Batch>),
    /// An address to connect to.
    Address(#[expect(dead_code, reason = "only the kernel reads it")] Box<SockAddr>),
}

/// What an object has in flight, at most one of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Accept,
    Connect,
    Recv,
    Send,
}

/// The kernel's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// What the call would have returned, or the errno.
    pub(crate) result: Result<u32, i32>,
    /// More answers to the same op will follow: this one is not terminal.
    pub(crate) more: bool,
    /// The provided buffer that holds the data.
    pub(crate) buffer: Option<u16>,
}

impl Completion {
    pub(super) fn new(entry: &cqueue::Entry) -> Completion {
        let flags = entry.flags();
        Completion {
            result: u32::try_from(entry.result()).map_err(|_| -entry.result()),
            more: cqueue::more(flags),
            buffer: cqueue::buffer_select(flags),
        }
    }

    /// The answer to an op that the kernel never answered, because the ring failed.
    pub(super) fn lost() -> Completion {
        Completion { result: Err(libc::ECANCELED), more: false, buffer: None }
    }
}

/// An object that has ops in flight.
///
/// Called with no borrow held, so it may submit and cancel. It pushes the wakers of those who
/// wait; they are woken later, when no borrow is held either (invariant 3).
pub(crate) trait Owner {
    /// One answer. `payload` comes with the terminal one; it is `None` before.
    fn complete(
        self: Rc<Self>,
        role: Role,
        done: Completion,
        payload: Payload,
        woken: &mut Vec<Waker>,
    );
}

/// Names one op in flight: where it is in the table, and which of all that ever were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Token {
    pub(super) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_user_data(user_data: u64) -> Token {
        Token { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// Errors that the kernel gives in passing, or that we caused: never shown, the op is tried again
/// (SEMANTICS G4).
pub(crate) fn is_retried(errno: i32) -> bool {
    matches!(errno, libc::EINTR | libc::EAGAIN | libc::ECANCELED)
}

/// The error of an errno, as every call of this crate reports it.
pub(crate) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

//! The contract of an op: a request to the kernel that owns the memory it points to.
//!
//! Every op belongs to an object (a connection, a listener, an attempt to connect) that outlives
//! the future which asked for it: the future only waits. The table holds the object and the
//! memory until the terminal completion and gives both back then, so whoever drops or forgets a
//! future, the kernel never writes to freed memory (invariant 1).
//!
//! A request is written once, in the words of both engines (`Request`): the submission of the
//! ring, and the system call that the epoll engine makes when the descriptor is ready.
//!
//! Not here: what each request says to the kernel (`ops/`). Read next: `table.rs`.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Waker;

use io_uring::{cqueue, squeue};

use super::buffer_ring::Pool;
use crate::buf::{Batch, Fill, Outgoing};
use crate::sys::addr::SockAddr;

/// What a request is about: a descriptor, and memory to read or write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) fd: RawFd,
    /// Where the request's memory is: a buffer, a message header, an address; or null.
    pub(crate) memory: *mut u8,
    /// How many bytes it has, or a message has in all.
    pub(crate) len: usize,
}

/// What a descriptor must be ready for, for an attempt to get further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
}

/// What a system call that does not wait has brought.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attempt {
    /// The answer: what the call returned, or its errno.
    Over { result: Result<u32, i32>, buffer: Option<u16>, drained: bool },
    /// To be continued when the descriptor is ready; so many bytes went out.
    Blocked { sent: u32 },
}

impl Attempt {
    /// An answer after which the descriptor may be as ready as before.
    pub(crate) fn over(result: Result<u32, i32>) -> Attempt {
        Attempt::Over { result, buffer: None, drained: false }
    }

    /// What a call that waits for readiness has given.
    pub(crate) fn of(result: io::Result<u32>) -> Attempt {
        match result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)) {
            Err(libc::EAGAIN) => Attempt::Blocked { sent: 0 },
            result => Attempt::over(result),
        }
    }
}

/// One kind of request, in the words of both engines. Types without values, one for each kind, in
/// `ops/`.
pub(crate) trait Request {
    /// What it waits for under epoll.
    const INTEREST: Interest;

    /// For the ring: the submission.
    fn entry(target: &Target) -> squeue::Entry;

    /// For epoll: the system call. What it has done of `target` is taken off it.
    ///
    /// # Safety
    /// What `target` points to is there, and nobody else uses it.
    #[allow(unsafe_code)]
    unsafe fn attempt(target: &mut Target, pool: &Pool) -> Attempt;
}

/// One request with the memory that it points to. Made in `ops/` only.
pub(crate) struct Op<R> {
    target: Target,
    payload: Payload,
    request: PhantomData<R>,
}

impl<R: Request> Op<R> {
    /// # Safety
    /// The pointer in `target` leads into `payload`'s heap memory, which stays where it is when
    /// the payload moves, or is null; `R` makes of it no other pointers.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn new(target: Target, payload: Payload) -> Op<R> {
        Op { target, payload, request: PhantomData }
    }

    pub(super) fn into_parts(self) -> (Target, Payload) {
        (self.target, self.payload)
    }
}

/// What became of an op that was submitted.
pub(crate) enum Submitted {
    /// It is in flight: its owner will be told.
    InFlight(Token),
    /// It was over at once, and its owner was not told (epoll: the first attempt did it).
    Answered(Completion, Payload),
}

/// Memory of an op in flight. In `Rc`, not `Box`: a box may not be moved while others point into it.
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
    Batch(Rc<Batch>),
    /// An address to connect to.
    Address(#[expect(dead_code, reason = "only the kernel reads it")] Rc<SockAddr>),
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

    /// The one answer to an op.
    pub(super) fn only(result: Result<u32, i32>, buffer: Option<u16>) -> Completion {
        Completion { result, more: false, buffer }
    }

    /// The answer to an op that was cancelled, or never answered because the ring failed.
    pub(super) fn cancelled() -> Completion {
        Completion::only(Err(libc::ECANCELED), None)
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

//! The contract of an op: a request to the kernel that owns the memory it points to.
//!
//! Every op belongs to an object (a connection, a listener, an attempt to connect), never to a
//! future. A future only waits. The table keeps the object and the memory until the terminal
//! completion, and then gives both back. So the kernel never writes to freed memory, even if a
//! future is dropped or forgotten (invariant 1).
//!
//! A [`Request`] says the same thing to both engines: a submission for the ring, and a system call
//! for epoll. The requests themselves are in `ops/`. Read next: `table.rs`.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::rc::Rc;

use io_uring::{cqueue, squeue};

use super::buffer_ring::BufferPool;
use crate::buf::{Batch, Fill, Outgoing};
use crate::deferred::Deferred;
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

/// What a system call that does not wait has brought: an answer, or that the request is to be
/// continued when the descriptor is ready. One word, as one is made for every request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt(Completion);

/// Among the flags of an attempt: the descriptor has nothing more. No flag of the kernel's.
const DRAINED: u32 = 1 << 15;

impl Attempt {
    pub(crate) const BLOCKED: Attempt = Attempt(Completion { result: -libc::EAGAIN, flags: 0 });

    /// An answer after which the descriptor may be as ready as before: what the call returned, or
    /// its errno.
    #[inline]
    pub(crate) fn over(result: Result<u32, i32>) -> Attempt {
        Attempt(Completion::only(result))
    }

    /// What a call that waits for readiness has given.
    #[inline]
    pub(crate) fn of(result: io::Result<u32>) -> Attempt {
        // EAGAIN is `BLOCKED`.
        Attempt::over(result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// The same; `drained`: and the descriptor has nothing more for now.
    #[inline]
    pub(crate) fn drained(mut self, drained: bool) -> Attempt {
        self.0.flags |= if drained { DRAINED } else { 0 };
        self
    }

    /// The same, in a pooled buffer.
    #[inline]
    pub(crate) fn into_buffer(mut self, bid: u16) -> Attempt {
        self.0.flags |= FLAG_BUFFER | u32::from(bid) << BUFFER_SHIFT;
        self
    }

    /// What the call has done, unless it blocked or failed: bytes, or a descriptor.
    #[inline]
    pub(crate) fn ok(self) -> Option<u32> {
        self.0.result().ok()
    }

    #[inline]
    pub(super) fn is_blocked(self) -> bool {
        self.0.result == -libc::EAGAIN
    }

    #[inline]
    pub(super) fn is_drained(self) -> bool {
        self.0.flags & DRAINED != 0
    }

    /// The answer, where `sent` bytes went out before.
    #[inline]
    pub(super) fn answer(self, sent: u32) -> Completion {
        match sent {
            0 => Completion { flags: self.0.flags & !DRAINED, ..self.0 },
            // As the ring has it: what went out counts, an errno is gone.
            sent => Completion::only(Ok(sent + self.ok().unwrap_or(0))),
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

    /// For epoll: the system call. If it blocks, what it has done of `target` before that is taken
    /// off it.
    ///
    /// # Safety
    /// What `target` points to is there, and nobody else uses it.
    #[allow(unsafe_code)]
    unsafe fn attempt(target: &mut Target, pool: &BufferPool) -> Attempt;
}

/// One request with the memory that it points to: a [`Payload`], which the driver can take over, or
/// memory that is borrowed for an attempt. Made in `ops/` only.
pub(crate) struct Op<R, P = Payload> {
    pub(super) target: Target,
    pub(super) payload: P,
    /// How many bytes an attempt has sent that could not send all.
    pub(super) sent: u32,
    /// There was an attempt, and it must wait.
    pub(super) attempted: bool,
    request: PhantomData<R>,
}

impl<R: Request, P> Op<R, P> {
    /// # Safety
    /// The pointer in `target` leads into `payload`'s heap memory, which stays where it is when
    /// the payload moves, or is null; `R` makes of it no other pointers.
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) unsafe fn new(target: Target, payload: P) -> Op<R, P> {
        Op { target, payload, sent: 0, attempted: false, request: PhantomData }
    }

    /// How many bytes an attempt has sent that could not send all.
    #[inline]
    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    /// The memory of an op that is over.
    #[inline]
    pub(crate) fn into_payload(self) -> P {
        self.payload
    }

    /// There was an attempt at the same request: `sent` bytes went out, at most `left` are to
    /// follow.
    pub(crate) fn note_attempt(&mut self, left: usize, sent: u32) {
        self.target.len = self.target.len.min(left);
        (self.sent, self.attempted) = (sent, true);
    }
}

/// What became of an op that was submitted.
pub(crate) enum Submitted {
    /// It is in flight: its owner will be told.
    InFlight(Token),
    /// It was over at once, and its owner was not told (epoll: the first attempt did it).
    Answered(Completion, Payload),
}

/// Memory of an op in flight. In `Rc`, not `Box`: a box may not be moved while others point into
/// it.
#[derive(Default)]
pub(crate) enum Payload {
    /// The request points to nothing, or to provided buffers.
    #[default]
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

impl Payload {
    /// The buffer, if it is one that was sent.
    #[inline]
    pub(crate) fn take_outgoing(&mut self) -> Option<Outgoing> {
        match std::mem::take(self) {
            Payload::Outgoing(outgoing) => Some(outgoing),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// What an object has in flight, at most one of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Accept,
    Connect,
    Recv,
    Send,
}

/// The kernel's answer, in the form of a completion queue entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    result: i32,
    flags: u32,
}

/// The flag of an answer that is in a provided buffer, and where its number is.
const FLAG_BUFFER: u32 = 1;
const BUFFER_SHIFT: u32 = 16;

impl Completion {
    #[inline]
    pub(super) fn new(entry: &cqueue::Entry) -> Completion {
        Completion { result: entry.result(), flags: entry.flags() }
    }

    /// The one answer to an op.
    #[inline]
    pub(super) fn only(result: Result<u32, i32>) -> Completion {
        let result = match result {
            Ok(value) => i32::try_from(value).expect("system calls return no more"),
            Err(errno) => -errno,
        };
        Completion { result, flags: 0 }
    }

    /// The answer to an op that was cancelled, or never answered because the ring failed.
    pub(super) fn cancelled() -> Completion {
        Completion::only(Err(libc::ECANCELED))
    }

    /// What the call would have returned, or the errno.
    #[inline]
    pub(crate) fn result(self) -> Result<u32, i32> {
        u32::try_from(self.result).map_err(|_| -self.result)
    }

    /// More answers to the same op will follow: this one is not terminal.
    #[inline]
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that holds the data.
    #[inline]
    pub(crate) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// An object that has ops in flight.
///
/// Called with no borrow of the driver held, so it may submit and cancel. The wakers of waiting
/// futures and the buffers that nothing collects go to `deferred` (invariant 3).
pub(crate) trait Owner {
    /// One answer. `payload` comes with the terminal one; it is `None` before. Lent, so that the
    /// owner moves it once, to where it stays.
    fn complete(
        self: Rc<Self>,
        role: Role,
        done: Completion,
        payload: &mut Payload,
        deferred: &mut Deferred,
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

/// What the tests of this folder put into the table and the engines.
#[cfg(test)]
#[allow(unsafe_code)]
pub(super) mod testing {
    use super::*;

    pub(in crate::driver) struct NoOwner;

    impl Owner for NoOwner {
        fn complete(self: Rc<Self>, _: Role, _: Completion, _: &mut Payload, _: &mut Deferred) {}
    }

    /// A request that waits until it is cancelled.
    pub(in crate::driver) enum WaitRequest {}

    impl Request for WaitRequest {
        const INTEREST: Interest = Interest::Read;

        fn entry(_: &Target) -> squeue::Entry {
            unreachable!("the tests use it with epoll only")
        }

        unsafe fn attempt(_: &mut Target, _: &BufferPool) -> Attempt {
            Attempt::BLOCKED
        }
    }

    pub(in crate::driver) fn wait(fd: RawFd) -> Op<WaitRequest> {
        // SAFETY: the request has no pointer.
        unsafe { Op::new(Target { fd, memory: std::ptr::null_mut(), len: 0 }, Payload::None) }
    }
}

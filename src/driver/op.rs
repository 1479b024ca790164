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
use super::incoming::IncomingDatagram;
use crate::buf::{Batch, Fill, Outgoing, OutgoingMessage, Parcel};
use crate::deferred::Deferred;
use crate::sys::addr::SockAddr;

/// The arguments of a request: a descriptor, and memory to read or write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) fd: RawFd,
    pub(crate) medium: Medium,
    /// The memory: a buffer, a message header, an address; or null.
    pub(crate) memory: *mut u8,
    /// How many bytes the memory has. For a message: how many bytes the message has.
    pub(crate) len: usize,
}

/// What a descriptor is, as far as it changes how bytes are transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// A TCP socket, and any other where that makes no difference.
    Tcp,
    /// A Unix stream socket. A receive can leave room in its buffer and bytes in the socket: it
    /// stops where descriptors were sent along (unix(7)).
    Unix,
    /// An end of a pipe, or of a FIFO. It is read and written, and its end is a close.
    Pipe,
    /// A standard stream of the process: a pipe, a socket or a terminal that other processes share. It
    /// is read and written; its end is not ours to tell, and what is unread belongs to the process.
    Shared,
}

/// What the descriptor must be ready for before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    Write,
}

/// The result of an attempt, which is a system call that does not wait: an answer, or "it would
/// block". It is one word, because every request has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt(Completion);

/// A flag of an attempt: the descriptor has nothing more. The kernel does not use this bit.
const DRAINED: u32 = 1 << 15;

impl Attempt {
    pub(crate) const BLOCKED: Attempt = Attempt(Completion { result: -libc::EAGAIN, flags: 0 });

    /// An answer: what the call returned, or its errno. The descriptor may be as ready as before.
    #[inline]
    pub(crate) fn over(result: Result<u32, i32>) -> Attempt {
        Attempt(Completion::only(result))
    }

    /// The result of a system call. EAGAIN means that it would block.
    #[inline]
    pub(crate) fn of(result: io::Result<u32>) -> Attempt {
        // EAGAIN is `BLOCKED`.
        Attempt::over(result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// The same attempt. `drained`: the descriptor has nothing more for now.
    #[inline]
    pub(crate) fn drained(mut self, drained: bool) -> Attempt {
        self.0.flags |= if drained { DRAINED } else { 0 };
        self
    }

    /// The same attempt. Its bytes are in this pooled buffer.
    #[inline]
    pub(crate) fn into_buffer(mut self, bid: u16) -> Attempt {
        self.0.flags |= FLAG_BUFFER | u32::from(bid) << BUFFER_SHIFT;
        self
    }

    /// What the call returned: bytes, or a descriptor. `None` if it blocked or failed.
    #[inline]
    pub(crate) fn ok(self) -> Option<u32> {
        self.0.result().ok()
    }

    #[inline]
    pub(crate) fn is_blocked(self) -> bool {
        self.0.result == -libc::EAGAIN
    }

    #[inline]
    pub(super) fn is_drained(self) -> bool {
        self.0.flags & DRAINED != 0
    }

    /// The answer of a request of which earlier attempts have sent `sent` bytes. If there are any,
    /// they are the answer even when this attempt has failed.
    #[inline]
    pub(super) fn answer(self, sent: u32) -> Completion {
        match sent {
            0 => Completion { flags: self.0.flags & !DRAINED, ..self.0 },
            // As on the ring: the bytes that went out are the answer, and the errno is not told.
            sent => Completion::only(Ok(sent + self.ok().unwrap_or(0))),
        }
    }
}

/// One kind of request, for both engines. The types are in `ops/` and have no values.
pub(crate) trait Request {
    /// What it waits for under epoll.
    const INTEREST: Interest;

    /// For the ring: the submission. The engine adds the user_data.
    fn entry(target: &Target) -> squeue::Entry;

    /// For epoll: makes the system call. If it blocks, the part of `target` that it has done is
    /// taken off `target`. `pool` has the buffers of requests that bring no memory.
    ///
    /// # Safety
    /// The memory of `target` is alive, and no other code uses it during the call.
    #[allow(unsafe_code)]
    unsafe fn attempt(target: &mut Target, pool: &BufferPool) -> Attempt;
}

/// One request with the memory that it points to. `P` is a [`Payload`], which the driver can take
/// over, or memory that is borrowed for an attempt. Only `ops/` makes ops.
pub(crate) struct Op<R, P = Payload> {
    pub(super) target: Target,
    pub(super) payload: P,
    /// How many bytes an attempt has sent that could not send all.
    pub(super) sent: u32,
    /// There was an attempt, and the request must wait.
    pub(super) attempted: bool,
    request: PhantomData<R>,
}

impl<R: Request, P> Op<R, P> {
    /// Joins the arguments of a request with the memory that they point to.
    ///
    /// # Safety
    /// The pointer in `target` is null, or points into heap memory of `payload` that stays in place
    /// when the payload moves. `R` derives no other pointers from it.
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

    /// Makes an attempt where nothing is known of the descriptor. `None`: it would wait, and nothing
    /// was done. A short send is an answer. The request must have memory of its own: on the ring, the
    /// buffers of `pool` are the kernel's.
    #[allow(unsafe_code)]
    #[inline]
    pub(super) fn attempt_now(&mut self, pool: &BufferPool) -> Option<Completion> {
        let left = self.target.len;
        // SAFETY: the op owns the memory of the target or borrows it, and is not in flight. So the
        // memory lives, and no other code uses it during the call.
        let attempt = unsafe { R::attempt(&mut self.target, pool) };
        let sent = (left - self.target.len) as u32;
        self.attempted = true;
        (sent > 0 || !attempt.is_blocked()).then(|| attempt.answer(sent))
    }

    /// Gives the memory back, of an op that has ended or was never submitted.
    #[inline]
    pub(crate) fn into_payload(self) -> P {
        self.payload
    }

    /// Records an attempt that another op has made at the same request: `sent` bytes went out, and
    /// at most `left` follow. The driver then takes this op as one that must wait.
    pub(crate) fn note_attempt(&mut self, left: usize, sent: u32) {
        self.target.len = self.target.len.min(left);
        (self.sent, self.attempted) = (sent, true);
    }
}

/// What became of an op that was submitted.
pub(crate) enum Submitted {
    /// It is in flight. Its owner will be told.
    InFlight(Token),
    /// It has ended, and its owner was not told (epoll: the first attempt was enough).
    Answered(Completion, Payload),
}

/// Memory of an op in flight. It is in an `Rc` and not in a `Box`, because a box must not be moved
/// while pointers into it are used.
#[derive(Default)]
pub(crate) enum Payload {
    /// The request has no pointer, or uses provided buffers.
    #[default]
    None,
    /// A caller's buffer that is received into.
    Fill(Rc<Fill<dyn Any>>),
    /// Memory of our own that is received into.
    Heap(Vec<u8>),
    /// The same, with room for descriptors.
    Parcel(Rc<Parcel>),
    /// A caller's buffer that is sent.
    Outgoing(Outgoing),
    /// Several callers' buffers, and the message header that lists them.
    Batch(Rc<Batch>),
    /// What a datagram is received by: a message header, and the memory that it names.
    Incoming(Rc<IncomingDatagram>),
    /// A datagram that is sent, with its message header.
    Message(Rc<OutgoingMessage>),
    /// An address to connect to.
    Address(#[expect(dead_code, reason = "only the kernel reads it")] Rc<SockAddr>),
}

impl Payload {
    /// Takes the buffer, if this is the payload of a send of one buffer. Otherwise it gives `None`
    /// and leaves the payload as it is.
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

/// What an object can have in flight: at most one op of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Accept,
    Connect,
    /// A receive, or a wait until there is something to read.
    Recv,
    /// A send, or a wait until there is room to write.
    Send,
}

/// The kernel's answer, in the form of a completion queue entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    result: i32,
    flags: u32,
}

/// The flag of an answer whose bytes are in a provided buffer, and the position of that buffer's
/// number.
const FLAG_BUFFER: u32 = 1;
const BUFFER_SHIFT: u32 = 16;

impl Completion {
    /// The answer in an entry of the ring's completion queue.
    #[inline]
    pub(super) fn new(entry: &cqueue::Entry) -> Completion {
        Completion { result: entry.result(), flags: entry.flags() }
    }

    /// The only answer to an op: a value, or a positive errno.
    #[inline]
    pub(super) fn only(result: Result<u32, i32>) -> Completion {
        let result = match result {
            Ok(value) => i32::try_from(value).expect("system calls return no more"),
            Err(errno) => -errno,
        };
        Completion { result, flags: 0 }
    }

    /// ECANCELED: the answer to an op that was cancelled, or that got none because the ring failed.
    pub(super) fn cancelled() -> Completion {
        Completion::only(Err(libc::ECANCELED))
    }

    /// What the system call would have returned, or its positive errno.
    #[inline]
    pub(crate) fn result(self) -> Result<u32, i32> {
        u32::try_from(self.result).map_err(|_| -self.result)
    }

    /// Whether more answers to this op will follow, so that this one is not terminal.
    #[inline]
    pub(crate) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The number of the provided buffer that holds the data. `None`: the answer used none.
    #[inline]
    pub(crate) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// An object that has ops in flight.
///
/// The driver calls it and holds no borrow, so it may submit and cancel. It puts the wakers of
/// waiting futures, and buffers that no future collects, into `deferred` (invariant 3).
pub(crate) trait Owner {
    /// Takes one answer, `done`, to the op that the object has in flight as `role`. `payload` has
    /// the op's memory with the terminal answer, unless the engine has failed, and is `None`
    /// before. It is a reference, so that the owner moves the memory only once.
    fn complete(
        self: Rc<Self>,
        role: Role,
        done: Completion,
        payload: &mut Payload,
        deferred: &mut Deferred,
    );
}

/// The name of one op in flight: its place in the table, and a generation that tells it from
/// earlier ops in that place.
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

/// Whether an errno is transient, or one that we caused. It is never shown: the caller makes the op
/// again (SEMANTICS G4).
pub(crate) fn is_retried(errno: i32) -> bool {
    matches!(errno, libc::EINTR | libc::EAGAIN | libc::ECANCELED)
}

/// The error of an errno, as every call of this crate reports it.
pub(crate) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// Requests and owners for the tests of this folder.
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
        wait_with(fd, Payload::None)
    }

    pub(in crate::driver) fn wait_with(fd: RawFd, payload: Payload) -> Op<WaitRequest> {
        // SAFETY: the target has no pointer.
        unsafe {
            Op::new(
                Target { fd, medium: Medium::Tcp, memory: std::ptr::null_mut(), len: 0 },
                payload,
            )
        }
    }
}

//! recv(2) and read(2): bytes from a connected socket or a pipe. No receive uses MSG_WAITALL,
//! because a reset after some data would then look like EOF (SEMANTICS RX9).
//!
//! Under epoll, a receive that leaves room in its buffer has emptied a TCP socket. The next byte
//! makes a new edge. A Unix socket or a pipe counts as empty after EAGAIN only: see [`Medium`].
//!
//! Which receive is submitted, and when, is decided in `stream/receive.rs`: read that next.
#![allow(unsafe_code)]

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::recvmsg::RecvMessageRequest;
use super::target_of;
use crate::buf::{Fill, Parcel};
use crate::driver::{
    Attempt, BUFFER_GROUP, BufferPool, Interest, Medium, Op, Payload, Request, Target,
};
use crate::sys::{self, TRANSFER_LEN_MAX};

/// Whatever comes, each piece into a pooled buffer. The ring answers until the end, an error, a
/// cancel, or no buffer; epoll gives one piece. Kernel 6.0, `IORING_OP_RECV` with
/// `IORING_RECV_MULTISHOT`; recv(2).
pub(crate) fn multishot(fd: BorrowedFd<'_>) -> Op<RecvPooledRequest<true>> {
    // SAFETY: the target has no pointer. The buffer comes from the pool, and the driver unregisters
    // the pool only when nothing is in flight.
    unsafe { Op::new(target_of(fd), Payload::None) }
}

/// What comes next, into a pooled buffer. Kernel 5.19, `IORING_OP_RECV` or `IORING_OP_READ` with a
/// buffer ring; recv(2), read(2).
pub(crate) fn into_pool(fd: BorrowedFd<'_>, medium: Medium) -> Op<RecvPooledRequest<false>> {
    // SAFETY: as in `multishot`.
    unsafe { Op::new(Target { medium, ..target_of(fd) }, Payload::None) }
}

pub(crate) enum RecvPooledRequest<const MULTISHOT: bool> {}

impl<const MULTISHOT: bool> Request for RecvPooledRequest<MULTISHOT> {
    const INTEREST: Interest = Interest::Read;

    fn entry(target: &Target) -> squeue::Entry {
        let fd = types::Fd(target.fd);
        if MULTISHOT {
            return opcode::RecvMulti::new(fd, BUFFER_GROUP).build();
        }
        // With a length of zero, the length of the picked buffer counts.
        let (memory, len) = (std::ptr::null_mut(), 0);
        let entry = match target.medium {
            Medium::Tcp | Medium::Unix => {
                opcode::Recv::new(fd, memory, len).buf_group(BUFFER_GROUP).build()
            }
            Medium::Pipe | Medium::Shared => read(fd, memory, len).buf_group(BUFFER_GROUP).build(),
        };
        entry.flags(squeue::Flags::BUFFER_SELECT)
    }

    unsafe fn attempt(target: &mut Target, pool: &BufferPool) -> Attempt {
        let Some((bid, memory)) = pool.first_free() else {
            return Attempt::over(Err(libc::ENOBUFS));
        };
        // SAFETY: the buffer is `buffer_len` bytes long. It is free, so no chunk refers to it.
        let attempt = unsafe { receive(target, memory, pool.buffer_len()) };
        match attempt.ok() {
            Some(1..) => {
                pool.pick(bid);
                attempt.into_buffer(bid)
            }
            _ => attempt,
        }
    }
}

/// What comes next, into a caller's buffer behind what it holds. Panics if an op fills that buffer
/// already. Kernel 5.6, `IORING_OP_RECV`; recv(2).
pub(crate) fn into_fill(
    fd: BorrowedFd<'_>,
    medium: Medium,
    fill: Rc<Fill<dyn Any>>,
) -> Op<RecvRequest> {
    let (memory, len) = fill.target();
    fill.set_in_flight(true);
    let target = Target { medium, memory, len: len.min(TRANSFER_LEN_MAX), ..target_of(fd) };
    // SAFETY: the target points into the buffer of `fill`, which is the payload. The contract of
    // `IoBufMut` keeps its bytes in place. `Fill` lends the room to no one while it is in flight.
    unsafe { Op::new(target, Payload::Fill(fill)) }
}

/// Records that an [`into_fill`] has ended and brought `len` bytes. The caller does so once for
/// each, with a `len` of zero after an error.
pub(crate) fn filled(fill: &Fill<dyn Any>, len: usize) {
    fill.set_in_flight(false);
    // SAFETY: the kernel has written `len` bytes at the address that `Fill::target` gave when the
    // op was made. Only one op at a time uses a `Fill`, so the address is still the same.
    unsafe { fill.filled(len) };
}

/// What comes next, into `len` bytes on the heap: for when no pooled buffer is free. Kernel 5.6,
/// `IORING_OP_RECV`; recv(2).
pub(crate) fn into_heap(fd: BorrowedFd<'_>, medium: Medium, len: usize) -> Op<RecvRequest> {
    let mut memory = Vec::with_capacity(len);
    let len = len.min(TRANSFER_LEN_MAX);
    let target = Target { medium, memory: memory.as_mut_ptr(), len, ..target_of(fd) };
    // SAFETY: the target points into the heap memory of the vector, which is the payload.
    unsafe { Op::new(target, Payload::Heap(memory)) }
}

/// The bytes that an [`into_heap`] brought, which has ended: `memory` is its payload, and `len` its
/// answer, zero after an error.
pub(crate) fn heap_bytes(mut memory: Vec<u8>, len: usize) -> Vec<u8> {
    assert!(len <= memory.capacity(), "the kernel writes no more than it was given");
    // SAFETY: the kernel has written the first `len` bytes, and the assertion above has checked the
    // capacity.
    unsafe { memory.set_len(len) };
    if len < memory.capacity() / 4 {
        memory.shrink_to_fit(); // few bytes must not pin a large buffer
    }
    memory
}

pub(crate) enum RecvRequest {}

impl Request for RecvRequest {
    const INTEREST: Interest = Interest::Read;

    fn entry(target: &Target) -> squeue::Entry {
        let (fd, len) = (types::Fd(target.fd), target.len as u32);
        match target.medium {
            Medium::Tcp | Medium::Unix => opcode::Recv::new(fd, target.memory, len).build(),
            Medium::Pipe | Medium::Shared => read(fd, target.memory, len).build(),
        }
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        // SAFETY: the caller guarantees that there are `len` bytes at `memory` to write to.
        unsafe { receive(target, target.memory, target.len) }
    }
}

/// What comes next, with the descriptors that were sent along: at most `len` bytes, and so many
/// descriptors. Kernel 5.3, `IORING_OP_RECVMSG`; recvmsg(2).
pub(crate) fn into_parcel(
    fd: BorrowedFd<'_>,
    len: usize,
    descriptors: usize,
) -> Op<RecvMessageRequest> {
    let parcel = Rc::new(Parcel::new(len, descriptors));
    let target = Target { memory: parcel.header().cast(), len: parcel.room(), ..target_of(fd) };
    // SAFETY: the target points to the header in the parcel, which is the payload. Its `Rc` keeps it
    // in place, and it owns all that the header names.
    unsafe { Op::new(target, Payload::Parcel(parcel)) }
}

/// `IORING_OP_READ` of a file without positions; read(2).
fn read(fd: types::Fd, memory: *mut u8, len: u32) -> opcode::Read {
    opcode::Read::new(fd, memory, len).offset(u64::MAX)
}

/// One recv(2) or read(2) as an attempt. If it brings bytes and leaves room, it has drained a TCP
/// socket.
///
/// # Safety
/// There are `len` bytes at `memory` to write to.
unsafe fn receive(target: &Target, memory: *mut u8, len: usize) -> Attempt {
    let attempt = Attempt::of(match target.medium {
        // SAFETY: the caller guarantees that there are `len` bytes at `memory` to write to.
        Medium::Tcp | Medium::Unix => unsafe { sys::recv(target.fd, memory, len) },
        // SAFETY: as above.
        Medium::Pipe | Medium::Shared => unsafe { sys::pipe::read(target.fd, memory, len) },
    });
    let left_room = attempt.ok().is_some_and(|received| (1..len).contains(&(received as usize)));
    attempt.drained(left_room && target.medium == Medium::Tcp)
}

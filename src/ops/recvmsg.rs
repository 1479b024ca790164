//! recvmsg(2): datagrams, each as a record (`driver/incoming.rs`): with its sender's address and
//! control data before the payload.
//!
//! Which receive is submitted, and when, is decided in `datagram/receive.rs`: read that next.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::target_of;
use crate::buf::Chunk;
use crate::driver::{
    Attempt, BufferPool, DATAGRAM_GROUP, IncomingDatagram, Interest, Op, Payload, RECORD_HEAD,
    Request, Target, receive_own_record, receive_record,
};
use crate::sys;

/// All datagrams that come, each into a buffer of the pool of `incoming`. The ring answers until an
/// error, a cancel, no buffer, or a datagram without bytes; epoll gives one. Kernel 6.0,
/// `IORING_OP_RECVMSG` with `IORING_RECV_MULTISHOT`; recvmsg(2).
pub(crate) fn multishot(
    fd: BorrowedFd<'_>,
    incoming: Rc<IncomingDatagram>,
) -> Op<RecvRecordsRequest> {
    let target = Target { memory: incoming.header().cast(), ..target_of(fd) };
    // SAFETY: the target points to the message, which is the payload. Its `Rc` keeps it in place.
    // The buffer comes from a pool that the driver unregisters only when nothing is in flight.
    unsafe { Op::new(target, Payload::Incoming(incoming)) }
}

pub(crate) enum RecvRecordsRequest {}

impl Request for RecvRecordsRequest {
    const INTEREST: Interest = Interest::Read;

    fn entry(target: &Target) -> squeue::Entry {
        let header = target.memory.cast_const().cast();
        opcode::RecvMsgMulti::new(types::Fd(target.fd), header, DATAGRAM_GROUP)
            .flags(libc::MSG_CMSG_CLOEXEC as u32)
            .build()
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        // SAFETY: the memory is the header of a message, which is the address of the whole. The
        // caller guarantees that it lives.
        let incoming = unsafe { &*target.memory.cast_const().cast::<IncomingDatagram>() };
        let pool = incoming.pool();
        let Some((bid, memory)) = pool.first_free() else {
            return Attempt::over(Err(libc::ENOBUFS));
        };
        // SAFETY: `receive_record` passes a header that is valid during the call.
        let receive = |header| unsafe { sys::recvmsg(target.fd, header) };
        // SAFETY: the buffer is `buffer_len` bytes long. It is free, so no chunk refers to it.
        let received = unsafe { receive_record(receive, memory, pool.buffer_len()) };
        let attempt = Attempt::of(received.map(|len| RECORD_HEAD as u32 + len));
        match attempt.ok() {
            Some(_) => {
                pool.pick(bid);
                attempt.into_buffer(bid)
            }
            None => attempt,
        }
    }
}

/// The next datagram, into memory on the heap: for when no buffer of the pool may be used. The
/// answer is the length of its payload; [`record`] gives the datagram. Kernel 5.3,
/// `IORING_OP_RECVMSG`; recvmsg(2).
pub(crate) fn into_heap(fd: BorrowedFd<'_>) -> Op<RecvMessageRequest> {
    let incoming = IncomingDatagram::on_heap();
    let target = Target { memory: incoming.header().cast(), ..target_of(fd) };
    // SAFETY: the target points to the message, which is the payload. Its `Rc` keeps it in place,
    // and it owns all that it points to.
    unsafe { Op::new(target, Payload::Incoming(incoming)) }
}

/// The record that an [`into_heap`] brought, which has ended: `incoming` is its payload, and `len`
/// its answer.
pub(crate) fn record(incoming: Rc<IncomingDatagram>, len: usize) -> Chunk {
    incoming.into_record(len)
}

/// The record of the next datagram, in memory of just its size, without waiting: for families whose
/// datagrams may be larger than any buffer. It is no op. recv(2) with MSG_PEEK tells the size, and
/// recvfrom(2) receives: it has less to copy than recvmsg(2). If another process takes that datagram in
/// between, the next one may be cut off, and its record says so.
pub(crate) fn whole_now(fd: BorrowedFd<'_>) -> io::Result<Chunk> {
    let len = sys::datagram::next_len(fd)?;
    receive_own_record(
        |memory, room, name, name_len| {
            // SAFETY: `receive_own_record` passes memory that is writable for these lengths.
            unsafe { sys::datagram::receive(fd, memory, room, name, name_len) }
        },
        len,
    )
}

/// One recvmsg(2), of a datagram or of bytes of a stream: the memory of its target is the header.
pub(crate) enum RecvMessageRequest {}

impl Request for RecvMessageRequest {
    const INTEREST: Interest = Interest::Read;

    fn entry(target: &Target) -> squeue::Entry {
        opcode::RecvMsg::new(types::Fd(target.fd), target.memory.cast())
            .flags(libc::MSG_CMSG_CLOEXEC as u32)
            .build()
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        // SAFETY: the memory is the header of a message, and the caller guarantees that nobody else
        // uses it during the call.
        Attempt::of(unsafe { sys::recvmsg(target.fd, target.memory.cast()) })
    }
}

//! send(2) and sendmsg(2): bytes to a connected socket. write(2) and writev(2): bytes to a pipe.
//!
//! On the ring every send has MSG_WAITALL, so the kernel itself continues after a short send. Under
//! epoll the engine sends the remaining bytes at the next edge. Every send has MSG_NOSIGNAL,
//! because a library must not raise SIGPIPE; for pipes, see `sys/pipe.rs`. The ring's writes to a pipe
//! can be short: `stream/transmit.rs` goes on.
//!
//! What is sent, and when, is decided in `stream/transmit.rs`: read that next.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::target_of;
use crate::buf::{Batch, Outgoing};
use crate::driver::{Attempt, BufferPool, Interest, Medium, Op, Payload, Request, Target};
use crate::sys::{self, TRANSFER_LEN_MAX};

const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// Builds a send of a buffer that is one piece, from `offset` on, and says how many bytes it
/// covers: one call transfers at most [`TRANSFER_LEN_MAX`]. `Err` gives a buffer of several pieces
/// back: [`batch`] sends it. Panics if `offset` is greater than the length. Kernel 5.6,
/// `IORING_OP_SEND`; send(2).
#[inline]
pub(crate) fn one(
    fd: BorrowedFd<'_>,
    medium: Medium,
    outgoing: Outgoing,
    offset: usize,
) -> Result<(Op<SendRequest>, usize), Outgoing> {
    let Some(bytes) = outgoing.as_one(offset) else { return Err(outgoing) };
    let len = bytes.len().min(TRANSFER_LEN_MAX);
    let memory = bytes.as_ptr().cast_mut();
    let target = Target { medium, memory, len, ..target_of(fd) };
    // SAFETY: the target points into the buffer of `outgoing`, which is the payload.
    Ok((unsafe { Op::new(target, Payload::Outgoing(outgoing)) }, len))
}

/// As many of these bytes as one call takes. They are only for an attempt, and stay the caller's;
/// [`rest`] follows if the attempt gives no answer. Kernel 5.6, `IORING_OP_SEND`; send(2).
#[inline]
pub(crate) fn borrowed<'a>(
    fd: BorrowedFd<'_>,
    medium: Medium,
    bytes: &'a [u8],
) -> Op<SendRequest, &'a [u8]> {
    let len = bytes.len().min(TRANSFER_LEN_MAX);
    let memory = bytes.as_ptr().cast_mut();
    let target = Target { medium, memory, len, ..target_of(fd) };
    // SAFETY: the target points into `bytes`, and the op borrows them.
    unsafe { Op::new(target, bytes) }
}

/// The rest after an attempt with [`borrowed`] bytes of this buffer, of which `sent` went out. It
/// is for `Driver::submit_after_attempt`. The op owns the buffer. Also gives how many bytes there
/// are in all, those included, at most what one call transfers. Panics if the buffer is of several
/// pieces. Kernel 5.6, `IORING_OP_SEND`; send(2).
pub(crate) fn rest(
    fd: BorrowedFd<'_>,
    medium: Medium,
    outgoing: Outgoing,
    sent: u32,
) -> (Op<SendRequest>, usize) {
    let len = outgoing.len().min(TRANSFER_LEN_MAX);
    let Ok((mut op, _)) = one(fd, medium, outgoing, sent as usize) else {
        unreachable!("bytes that were borrowed are one piece")
    };
    op.note_attempt(len - sent as usize, sent);
    (op, len)
}

pub(crate) enum SendRequest {}

impl Request for SendRequest {
    const INTEREST: Interest = Interest::Write;

    #[inline]
    fn entry(target: &Target) -> squeue::Entry {
        let fd = types::Fd(target.fd);
        let (memory, len) = (target.memory.cast_const(), target.len as u32);
        match target.medium {
            Medium::Tcp | Medium::Unix => opcode::Send::new(fd, memory, len).flags(FLAGS).build(),
            Medium::Pipe | Medium::Shared => opcode::Write::new(fd, memory, len)
                .offset(u64::MAX)
                .rw_flags(sys::pipe::no_signal_flag())
                .build(),
        }
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        let Target { fd, memory, len, .. } = *target;
        let attempt = Attempt::of(match target.medium {
            // SAFETY: the caller guarantees that there are `len` bytes at `memory` to read.
            Medium::Tcp | Medium::Unix => unsafe { sys::send(fd, memory, len) },
            // SAFETY: as above.
            Medium::Pipe | Medium::Shared => unsafe { sys::pipe::write(fd, memory, len) },
        });
        match attempt.ok() {
            Some(sent) if (sent as usize) < len => {
                // SAFETY: the kernel has read `sent` of these bytes, and `sent < len`, so the
                // result is within them.
                target.memory = unsafe { memory.add(sent as usize) };
                target.len -= sent as usize;
                Attempt::BLOCKED
            }
            _ => attempt,
        }
    }
}

/// The bytes of several buffers in order, of the first one from `offset` on; also says how many
/// those are, at most what one call transfers. Kernel 5.3, `IORING_OP_SENDMSG`; sendmsg(2).
pub(crate) fn batch(
    fd: BorrowedFd<'_>,
    medium: Medium,
    outgoing: Vec<Outgoing>,
    offset: usize,
) -> (Op<SendMsgRequest>, usize) {
    let (batch, len) = Batch::new(outgoing, offset);
    let batch = Rc::new(batch);
    let target = Target { medium, memory: batch.header().cast(), len, ..target_of(fd) };
    // SAFETY: the target points to the header in the batch, and the header points into buffers that
    // the batch owns. The batch is the payload, and its `Rc` keeps it in place.
    (unsafe { Op::new(target, Payload::Batch(batch)) }, len)
}

pub(crate) enum SendMsgRequest {}

impl Request for SendMsgRequest {
    const INTEREST: Interest = Interest::Write;

    fn entry(target: &Target) -> squeue::Entry {
        let fd = types::Fd(target.fd);
        let header: *const libc::msghdr = target.memory.cast_const().cast();
        if matches!(target.medium, Medium::Tcp | Medium::Unix) {
            return opcode::SendMsg::new(fd, header).flags(FLAGS as u32).build();
        }
        // SAFETY: `memory` is the header of a batch that the op owns.
        let (pieces, count) = unsafe { ((*header).msg_iov, (*header).msg_iovlen) };
        opcode::Writev::new(fd, pieces, count as u32)
            .offset(u64::MAX)
            .rw_flags(sys::pipe::no_signal_flag())
            .build()
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        let header: *mut libc::msghdr = target.memory.cast();
        let attempt = Attempt::of(match target.medium {
            // SAFETY: the caller guarantees that `memory` is the header of a batch.
            Medium::Tcp | Medium::Unix => unsafe { sys::sendmsg(target.fd, header) },
            Medium::Pipe | Medium::Shared => {
                // SAFETY: as above.
                let (pieces, count) = unsafe { ((*header).msg_iov, (*header).msg_iovlen) };
                // SAFETY: the batch owns the list, and what it lists.
                unsafe { sys::pipe::write_pieces(target.fd, pieces, count) }
            }
        });
        match attempt.ok() {
            Some(sent) if (sent as usize) < target.len => {
                target.len -= sent as usize;
                // SAFETY: `header` is the header of a batch, as above. The kernel has read `sent`
                // bytes of its list.
                unsafe { Batch::advance(header, sent as usize) };
                Attempt::BLOCKED
            }
            _ => attempt,
        }
    }
}

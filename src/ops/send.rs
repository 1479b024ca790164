//! send(2) and sendmsg(2): bytes to a connected socket.
//!
//! Always with MSG_WAITALL, so that the kernel itself goes on after a short send, and with
//! MSG_NOSIGNAL, since a library must not raise SIGPIPE.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;

use io_uring::opcode;

use super::target;
use crate::buf::{Batch, Outgoing};
use crate::driver::{Op, Payload};
use crate::sys::TRANSFER_LEN_MAX;

const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// All bytes of one buffer from `offset` on; also says how many those are, at most what one call
/// transfers. Kernel 5.6, `IORING_OP_SEND`.
pub(crate) fn one(fd: BorrowedFd<'_>, outgoing: Outgoing, offset: usize) -> (Op, usize) {
    let Some(bytes) = outgoing.as_one(offset) else {
        return batch(fd, vec![outgoing], offset);
    };
    let len = bytes.len().min(TRANSFER_LEN_MAX);
    let entry = opcode::Send::new(target(fd), bytes.as_ptr(), len as u32).flags(FLAGS).build();
    // SAFETY: the entry points into the buffer that `outgoing` owns.
    (unsafe { Op::new(entry, Payload::Outgoing(outgoing)) }, len)
}

/// The bytes of several buffers in order, of the first one from `offset` on; also says how many
/// those are, at most what one call transfers. Kernel 5.3, `IORING_OP_SENDMSG`.
pub(crate) fn batch(fd: BorrowedFd<'_>, outgoing: Vec<Outgoing>, offset: usize) -> (Op, usize) {
    let (batch, len) = Batch::new(outgoing, offset);
    let batch = Box::new(batch);
    let entry = opcode::SendMsg::new(target(fd), batch.header()).flags(FLAGS as u32).build();
    // SAFETY: the entry points to the header inside the box, which points into what the box owns;
    // the box is the payload.
    (unsafe { Op::new(entry, Payload::Batch(batch)) }, len)
}

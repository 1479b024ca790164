//! poll(2): news that a socket has room to write.
//!
//! Who waits for it is decided in `datagram/transmit.rs`: read that next.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;

use io_uring::{opcode, squeue, types};

use super::target_of;
use crate::driver::{Attempt, BufferPool, Interest, Op, Payload, Request, Target};
use crate::sys;

/// Ends when the socket has room to write, or an error to tell. Kernel 5.1, `IORING_OP_POLL_ADD`;
/// poll(2).
pub(crate) fn writable(fd: BorrowedFd<'_>) -> Op<WritableRequest> {
    // SAFETY: the target has no pointer, so nothing must outlive the op.
    unsafe { Op::new(target_of(fd), Payload::None) }
}

pub(crate) enum WritableRequest {}

impl Request for WritableRequest {
    const INTEREST: Interest = Interest::Write;

    fn entry(target: &Target) -> squeue::Entry {
        opcode::PollAdd::new(types::Fd(target.fd), libc::POLLOUT as u32).build()
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        // SAFETY: the caller guarantees that the object of the op keeps the descriptor open.
        let fd = unsafe { BorrowedFd::borrow_raw(target.fd) };
        match sys::is_writable(fd) {
            true => Attempt::over(Ok(0)),
            false => Attempt::BLOCKED,
        }
    }
}

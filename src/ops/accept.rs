//! accept(2): connections that arrive at a listener.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;

use io_uring::opcode;

use super::target;
use crate::driver::{Op, Payload};

/// Every connection until an error or a cancel; each answer is a descriptor, closed on exec and
/// non-blocking. Kernel 5.19, `IORING_OP_ACCEPT` with `IORING_ACCEPT_MULTISHOT`.
pub(crate) fn multishot(fd: BorrowedFd<'_>) -> Op {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let entry = opcode::AcceptMulti::new(target(fd)).flags(flags).build();
    // SAFETY: the entry has no pointers: the peer's address is asked for later.
    unsafe { Op::new(entry, Payload::None) }
}

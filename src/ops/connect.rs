//! connect(2): an attempt to reach a peer.
#![allow(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use io_uring::opcode;

use super::target;
use crate::driver::{Op, Payload};
use crate::sys::addr::SockAddr;

/// Connects the socket to `addr`. Kernel 5.5, `IORING_OP_CONNECT`.
pub(crate) fn connect(fd: BorrowedFd<'_>, addr: SocketAddr) -> Op {
    let addr = Box::new(SockAddr::new(addr));
    let entry = opcode::Connect::new(target(fd), addr.as_ptr(), addr.len()).build();
    // SAFETY: the entry points into the box, which is the payload.
    unsafe { Op::new(entry, Payload::Address(addr)) }
}

//! connect(2): one attempt to reach a peer.
//!
//! When it is submitted is decided in `net/tcp/connect.rs`: read that next.
#![allow(unsafe_code)]

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::target_of;
use crate::driver::{Attempt, BufferPool, Interest, Op, Payload, Request, Target};
use crate::sys;
use crate::sys::addr::SockAddr;

/// Connects the socket to `addr`. Kernel 5.5, `IORING_OP_CONNECT`; connect(2).
pub(crate) fn connect(fd: BorrowedFd<'_>, addr: SocketAddr) -> Op<ConnectRequest> {
    let addr = Rc::new(SockAddr::new(addr));
    let memory = addr.as_ptr().cast_mut().cast();
    let target = Target { memory, len: addr.len() as usize, ..target_of(fd) };
    // SAFETY: the target points to the address. The payload owns the address on the heap, so it
    // lives and stays in place until the op ends.
    unsafe { Op::new(target, Payload::Address(addr)) }
}

pub(crate) enum ConnectRequest {}

impl Request for ConnectRequest {
    const INTEREST: Interest = Interest::Write;

    fn entry(target: &Target) -> squeue::Entry {
        let len = target.len as libc::socklen_t;
        opcode::Connect::new(types::Fd(target.fd), target.memory.cast(), len).build()
    }

    /// A second call for the same socket returns the result of the first one; until there is one,
    /// the attempt blocks.
    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        let addr = target.memory.cast_const().cast();
        // SAFETY: the caller guarantees that `memory` is an address of `len` bytes.
        let result = unsafe { sys::connect(target.fd, addr, target.len as libc::socklen_t) };
        match result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)) {
            Err(libc::EINPROGRESS | libc::EALREADY | libc::EINTR) => Attempt::BLOCKED,
            Err(libc::EISCONN) => Attempt::over(Ok(0)),
            // EAGAIN does not mean "not ready" here. It means that there is no port or route, so no
            // edge would follow.
            Err(libc::EAGAIN) => Attempt::over(Err(libc::EADDRNOTAVAIL)),
            result => Attempt::over(result.map(|()| 0)),
        }
    }
}

//! accept(2): connections that arrive at a listener. Each is closed on exec and is non-blocking.
//! The peer's address is not asked for here.
//!
//! When an accept is submitted is decided in `stream/accept.rs`: read that next.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr;

use io_uring::{opcode, squeue, types};

use super::target_of;
use crate::driver::{Attempt, BufferPool, Interest, Medium, Op, Payload, Request, Target};
use crate::sys;

const FLAGS: i32 = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// One connection: the answer is a descriptor. Kernel 5.5, `IORING_OP_ACCEPT`; accept4(2).
pub(crate) fn one(fd: BorrowedFd<'_>, medium: Medium) -> Op<AcceptOneRequest> {
    // SAFETY: the target has no pointer, so nothing must outlive the op.
    unsafe { Op::new(Target { medium, ..target_of(fd) }, Payload::None) }
}

pub(crate) enum AcceptOneRequest {}

impl Request for AcceptOneRequest {
    const INTEREST: Interest = Interest::Read;

    fn entry(target: &Target) -> squeue::Entry {
        // No memory for the peer's address.
        let fd = types::Fd(target.fd);
        opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut()).flags(FLAGS).build()
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        attempt(target)
    }
}

/// Connections, each answer a descriptor. The ring answers until an error or a cancel; epoll gives
/// one. Kernel 5.19, `IORING_OP_ACCEPT` with `IORING_ACCEPT_MULTISHOT`; accept4(2).
pub(crate) fn multishot(fd: BorrowedFd<'_>) -> Op<AcceptMultiRequest> {
    // SAFETY: the target has no pointer, so nothing must outlive the op.
    unsafe { Op::new(target_of(fd), Payload::None) }
}

pub(crate) enum AcceptMultiRequest {}

impl Request for AcceptMultiRequest {
    const INTEREST: Interest = Interest::Read;

    fn entry(target: &Target) -> squeue::Entry {
        opcode::AcceptMulti::new(types::Fd(target.fd)).flags(FLAGS).build()
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        attempt(target)
    }
}

/// One accept4(2) as an attempt. EINVAL if the socket was shut down: for a Unix socket accept4(2) says
/// EAGAIN then.
fn attempt(target: &Target) -> Attempt {
    let attempt = Attempt::of(sys::accept(target.fd, FLAGS));
    let may_be_shut_down = attempt.is_blocked() && target.medium == Medium::Unix;
    // SAFETY: the object that owns the op keeps the descriptor open.
    match may_be_shut_down && sys::is_shut_down(unsafe { BorrowedFd::borrow_raw(target.fd) }) {
        true => Attempt::over(Err(libc::EINVAL)),
        false => attempt,
    }
}

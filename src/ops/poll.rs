//! poll(2): whether a descriptor of any kind can be read, or written.
//!
//! A hang-up and an error answer both. When a poll is submitted is decided in `io/watched.rs` and in
//! `datagram/`: read the first next.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use io_uring::{opcode, squeue, types};

use super::target_of;
use crate::driver::{Attempt, BufferPool, Interest, Op, Payload, Request, Target};
use crate::sys::{self, PollEvents};

/// What a descriptor is polled for. The types have no values.
pub(crate) trait PolledFor {
    const INTEREST: Interest;
    const EVENTS: PollEvents;
}

/// Something to read, or the end of it.
pub(crate) enum ToRead {}

impl PolledFor for ToRead {
    const INTEREST: Interest = Interest::Read;
    const EVENTS: PollEvents = PollEvents::READ;
}

/// Room to write.
pub(crate) enum ToWrite {}

impl PolledFor for ToWrite {
    const INTEREST: Interest = Interest::Write;
    const EVENTS: PollEvents = PollEvents::WRITE;
}

/// Each answer tells of an event. The ring answers until an error or a cancel: at once if the
/// descriptor is ready now, and then at each wake-up. Epoll answers once.
/// Kernel 5.13, `IORING_OP_POLL_ADD` with `IORING_POLL_ADD_MULTI`; poll(2).
pub(crate) fn ready<D: PolledFor>(fd: BorrowedFd<'_>) -> Op<PollRequest<D, true>> {
    // SAFETY: the target has no pointer, so nothing must outlive the op.
    unsafe { Op::new(target_of(fd), Payload::None) }
}

/// Ends when the descriptor has something to read, or an error to tell. Kernel 5.1,
/// `IORING_OP_POLL_ADD`; poll(2).
pub(crate) fn readable(fd: BorrowedFd<'_>) -> Op<PollRequest<ToRead, false>> {
    // SAFETY: the target has no pointer, so nothing must outlive the op.
    unsafe { Op::new(target_of(fd), Payload::None) }
}

/// Ends when the descriptor has room to write, or an error to tell. Kernel 5.1, `IORING_OP_POLL_ADD`;
/// poll(2).
pub(crate) fn writable(fd: BorrowedFd<'_>) -> Op<PollRequest<ToWrite, false>> {
    // SAFETY: the target has no pointer, so nothing must outlive the op.
    unsafe { Op::new(target_of(fd), Payload::None) }
}

pub(crate) struct PollRequest<D, const MULTISHOT: bool>(PhantomData<D>);

impl<D: PolledFor, const MULTISHOT: bool> Request for PollRequest<D, MULTISHOT> {
    const INTEREST: Interest = D::INTEREST;

    fn entry(target: &Target) -> squeue::Entry {
        opcode::PollAdd::new(types::Fd(target.fd), D::EVENTS.to_bits()).multi(MULTISHOT).build()
    }

    /// An answer does not say that the descriptor has nothing more: the next request looks again.
    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        // SAFETY: the object that owns the op keeps the descriptor open through this call.
        let fd = unsafe { BorrowedFd::borrow_raw(target.fd) };
        match sys::poll_now(fd, D::EVENTS) {
            0 => Attempt::BLOCKED,
            bits => Attempt::over(Ok(bits)),
        }
    }
}

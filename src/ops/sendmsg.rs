//! sendmsg(2): one datagram. It goes out whole or not at all.
//!
//! Every send has MSG_NOSIGNAL, because a library must not raise SIGPIPE. What is sent, and when, is
//! decided in `datagram/transmit.rs`: read that next.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::rc::Rc;

use io_uring::{opcode, squeue, types};

use super::target_of;
use crate::buf::OutgoingMessage;
use crate::driver::{Attempt, BufferPool, Interest, Op, Payload, Request, Target};
use crate::sys;

/// Sends one message. Kernel 5.3, `IORING_OP_SENDMSG`; sendmsg(2).
pub(crate) fn datagram(
    fd: BorrowedFd<'_>,
    message: Rc<OutgoingMessage>,
) -> Op<SendDatagramRequest> {
    let target = Target { memory: message.header().cast(), ..target_of(fd) };
    // SAFETY: the target points to the header in the message, which is the payload. Its `Rc` keeps
    // it in place, and it owns all that it points to.
    unsafe { Op::new(target, Payload::Message(message)) }
}

pub(crate) enum SendDatagramRequest {}

impl Request for SendDatagramRequest {
    const INTEREST: Interest = Interest::Write;

    fn entry(target: &Target) -> squeue::Entry {
        let header = target.memory.cast_const().cast();
        opcode::SendMsg::new(types::Fd(target.fd), header).flags(libc::MSG_NOSIGNAL as u32).build()
    }

    unsafe fn attempt(target: &mut Target, _: &BufferPool) -> Attempt {
        // SAFETY: the caller guarantees that `memory` is the header of a message that lives.
        Attempt::of(unsafe { sys::sendmsg(target.fd, target.memory.cast_const().cast()) })
    }
}

//! send(2) and sendmsg(2): bytes to a connected socket.
//!
//! Always with MSG_WAITALL, so that the kernel itself goes on after a short send, and with
//! MSG_NOSIGNAL, since a library must not raise SIGPIPE.
#![allow(unsafe_code)]

use std::mem;
use std::os::fd::BorrowedFd;

use io_uring::opcode;

use super::target;
use crate::buf::Outgoing;
use crate::driver::{Op, Payload};
use crate::sys::TRANSFER_LEN_MAX;

const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// How many pieces one sendmsg(2) takes (IOV_MAX is 1024; more than this gains nothing).
const PIECES_MAX: usize = 256;

/// Several callers' buffers, sent by one call.
pub(crate) struct Batch {
    // Dropped in this order: what points, then what is pointed to.
    _header: libc::msghdr,
    _pieces: Box<[libc::iovec]>,
    outgoing: Vec<Outgoing>,
}

impl Batch {
    /// The buffers again, in order.
    pub(crate) fn into_outgoing(self) -> Vec<Outgoing> {
        self.outgoing
    }
}

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
    let mut len = 0;
    let mut pieces: Box<[libc::iovec]> = (outgoing.iter().enumerate())
        .flat_map(|(index, out)| out.pieces(if index == 0 { offset } else { 0 }))
        .take(PIECES_MAX)
        .map_while(|piece| {
            let piece = &piece[..piece.len().min(TRANSFER_LEN_MAX - len)];
            len += piece.len();
            let iovec =
                libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
            (!piece.is_empty()).then_some(iovec)
        })
        .collect();
    // SAFETY: all zeroes is a valid msghdr: no name, no control data.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = pieces.as_mut_ptr();
    header.msg_iovlen = pieces.len() as _;
    let batch = Box::new(Batch { _header: header, _pieces: pieces, outgoing });
    let entry =
        opcode::SendMsg::new(target(fd), &raw const batch._header).flags(FLAGS as u32).build();
    // SAFETY: the entry points to the header inside the box, which points to the pieces, which
    // point into the buffers; the box owns all of it and is the payload.
    (unsafe { Op::new(entry, Payload::Batch(batch)) }, len)
}

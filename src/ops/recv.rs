//! recv(2): bytes from a connected socket. Never with MSG_WAITALL, which would turn a reset after
//! some data into a clean end (SEMANTICS RX9).
#![allow(unsafe_code)]

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use io_uring::opcode;

use super::target;
use crate::buf::Fill;
use crate::driver::{BUFFER_GROUP, Op, Payload};
use crate::sys::TRANSFER_LEN_MAX;

/// Whatever comes, each piece into a provided buffer, until the end, an error, a cancel, or no
/// buffer. Kernel 6.0, `IORING_OP_RECV` with `IORING_RECV_MULTISHOT`.
pub(crate) fn multishot(fd: BorrowedFd<'_>) -> Op {
    let entry = opcode::RecvMulti::new(target(fd), BUFFER_GROUP).build();
    // SAFETY: the entry has no pointers: the kernel picks from the pool, which is unregistered
    // only when nothing is in flight.
    unsafe { Op::new(entry, Payload::None) }
}

/// What comes next, into a caller's buffer behind what it holds. Kernel 5.6, `IORING_OP_RECV`.
pub(crate) fn into_fill(fd: BorrowedFd<'_>, fill: Rc<Fill<dyn Any>>) -> Op {
    let (room, len) = fill.target();
    fill.set_in_flight(true);
    let len = len.min(TRANSFER_LEN_MAX) as u32;
    let entry = opcode::Recv::new(target(fd), room, len).build();
    // SAFETY: the entry points into the buffer that `fill` owns; the `IoBufMut` contract keeps its
    // bytes in place, and `Fill` gives nobody access to the room while it is in flight.
    unsafe { Op::new(entry, Payload::Fill(fill)) }
}

/// Notes what an ended [`into_fill`] brought: `len` bytes.
pub(crate) fn filled(fill: &Fill<dyn Any>, len: usize) {
    fill.set_in_flight(false);
    // SAFETY: the kernel has written `len` bytes where `target` pointed when the op was made; only
    // one op at a time moves it.
    unsafe { fill.filled(len) };
}

/// What comes next, into `len` bytes on the heap: for when no provided buffer is free. Kernel 5.6,
/// `IORING_OP_RECV`.
pub(crate) fn into_heap(fd: BorrowedFd<'_>, len: usize) -> Op {
    let mut memory = Vec::with_capacity(len);
    let len = len.min(TRANSFER_LEN_MAX) as u32;
    let entry = opcode::Recv::new(target(fd), memory.as_mut_ptr(), len).build();
    // SAFETY: the entry points into the vector's heap block, which is the payload.
    unsafe { Op::new(entry, Payload::Heap(memory)) }
}

/// The bytes that an ended [`into_heap`] brought.
pub(crate) fn heap_bytes(mut memory: Vec<u8>, len: usize) -> Vec<u8> {
    assert!(len <= memory.capacity(), "the kernel writes no more than it was given");
    // SAFETY: the kernel has written the first `len` bytes; the capacity was just checked.
    unsafe { memory.set_len(len) };
    memory
}

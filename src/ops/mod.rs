//! Requests to the kernel: one small file for each family of system calls.
//!
//! These files make no decisions. `stream/`, `datagram/`, `net/` and `io/` decide what to ask for,
//! and `driver/` carries it out. Each request has two parts. Its constructor joins the request with
//! the memory that it points to; this makes all code above it safe. Its implementation of
//! [`Request`](crate::driver::Request) has the submission for the ring and the system call for
//! epoll. Read next: `recv.rs`.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod poll;
pub(crate) mod recv;
pub(crate) mod recvmsg;
pub(crate) mod send;
pub(crate) mod sendmsg;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::driver::{Medium, Target};

/// The target of a request that has no memory. The object that owns the op keeps the descriptor
/// open (invariant 1).
fn target_of(fd: BorrowedFd<'_>) -> Target {
    Target { fd: fd.as_raw_fd(), medium: Medium::Tcp, memory: ptr::null_mut(), len: 0 }
}

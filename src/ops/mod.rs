//! One small file for each kernel family: what a request says, and the memory it needs.
//!
//! No machinery and no decisions: `net/` decides what to ask for, `driver/` carries it out. Each
//! file has two things for each request: a constructor, which joins the request with the memory
//! that it points to and so makes everything above it safe code; and its words for both engines, the
//! submission for the ring and the system call for epoll. Read next: `recv.rs`.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod recv;
pub(crate) mod send;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::driver::Target;

/// A request about a descriptor, which the object that the op belongs to keeps open (invariant 1).
fn target_of(fd: BorrowedFd<'_>) -> Target {
    Target { fd: fd.as_raw_fd(), memory: ptr::null_mut(), len: 0 }
}

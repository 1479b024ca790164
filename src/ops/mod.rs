//! One small file for each kernel family: what a request says, and the memory it needs.
//!
//! No machinery and no decisions: `net/` decides what to ask for, `driver/` carries it out. Each
//! constructor joins a submission entry with the memory that it points to, which is what makes
//! everything above it safe code. Read next: `recv.rs`.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod recv;
pub(crate) mod send;

use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::types::Fd;

/// The descriptor of an entry. The object that the op belongs to keeps it open (invariant 1).
fn target(fd: BorrowedFd<'_>) -> Fd {
    Fd(fd.as_raw_fd())
}

//! Descriptors of any kind: taking ownership of one, and O_NONBLOCK.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Takes ownership of a descriptor that came as the result of an accept. The caller does so once
/// for each result, because the drop closes the descriptor.
pub(crate) fn adopt(fd: u32) -> OwnedFd {
    // SAFETY: the kernel opened `fd` for this accept. The listener calls this once for each result,
    // and passes `fd` to nothing else, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

/// Borrows a descriptor that its object keeps in an `Option` and takes out when it ends. Panics if
/// it was taken out.
pub(crate) fn present(fd: &Option<OwnedFd>) -> BorrowedFd<'_> {
    fd.as_ref().expect("the descriptor is there until its object ends").as_fd()
}

/// Sets O_NONBLOCK with fcntl(2). The ring ignores it; code that duplicates the descriptor for
/// another runtime relies on it.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no pointers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_NONBLOCK == 0 {
        // SAFETY: F_SETFL takes no pointers.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    }
    Ok(())
}

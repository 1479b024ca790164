//! Descriptors of any kind: taking ownership of one, and O_NONBLOCK.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

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

/// A descriptor that its object may close before it ends itself.
pub(crate) struct ClosableFd(Cell<Option<RawFd>>);

impl ClosableFd {
    pub(crate) fn new(fd: OwnedFd) -> ClosableFd {
        ClosableFd(Cell::new(Some(fd.into_raw_fd())))
    }

    /// Borrows it. Panics if it was taken.
    #[inline]
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        let fd = self.0.get().expect("no call needs a descriptor that was closed");
        // SAFETY: this value owns it. `take` needs the promise that no such borrow lives.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Takes it, once.
    ///
    /// # Safety
    /// No borrow of [`as_fd`](Self::as_fd) lives.
    pub(crate) unsafe fn take(&self) -> Option<OwnedFd> {
        // SAFETY: this value owned it, and gives it away here.
        self.0.take().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Takes it, once.
    pub(crate) fn take_last(&mut self) -> Option<OwnedFd> {
        // SAFETY: `self` is borrowed for writing, so no borrow lives.
        unsafe { self.take() }
    }
}

impl Drop for ClosableFd {
    fn drop(&mut self) {
        drop(self.take_last());
    }
}

/// The access mode and the status flags of the open file; fcntl(2), F_GETFL.
pub(super) fn status_flags(fd: RawFd) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no pointers.
    check(unsafe { libc::fcntl(fd, libc::F_GETFL) })
}

/// What kind of file `fd` is, as one of the S_IF constants; fstat(2).
pub(super) fn file_type(fd: BorrowedFd<'_>) -> io::Result<libc::mode_t> {
    // SAFETY: stat consists of integers, for which all zeroes are valid.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: `stat` lives through the call.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) })?;
    Ok(stat.st_mode & libc::S_IFMT)
}

fn set_status_flags(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETFL takes no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }).map(drop)
}

/// Sets O_NONBLOCK with fcntl(2). The ring ignores it; code that duplicates the descriptor for
/// another runtime relies on it.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = status_flags(fd.as_raw_fd())?;
    if flags & libc::O_NONBLOCK == 0 {
        set_status_flags(fd, flags | libc::O_NONBLOCK)
    } else {
        Ok(())
    }
}

/// Clears O_NONBLOCK, for a program that does not expect it.
pub(crate) fn set_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_status_flags(fd, status_flags(fd.as_raw_fd())? & !libc::O_NONBLOCK)
}

/// Whether the calls on `fd` that have no flag for it return instead of waiting. O_NONBLOCK belongs
/// to the open file: another descriptor of it, also in another process, can clear it.
pub(super) fn is_nonblocking(fd: RawFd) -> io::Result<bool> {
    Ok(status_flags(fd)? & libc::O_NONBLOCK != 0)
}

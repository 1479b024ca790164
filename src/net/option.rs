//! setsockopt(2) and getsockopt(2) as TCP and UDP share them.

use std::io;
use std::os::fd::BorrowedFd;

use crate::io::CallError;
use crate::sys::{self, IntOption};

/// setsockopt(2). The error names the option.
pub(super) fn set_option(fd: BorrowedFd<'_>, option: IntOption, value: i32) -> io::Result<()> {
    let set = sys::set(fd, option, value);
    set.map_err(|error| CallError::wrap("setsockopt", format_args!("{option} {value}"), error))
}

/// Whether the socket is one for IPv6.
pub(super) fn is_v6(fd: BorrowedFd<'_>) -> io::Result<bool> {
    sys::get(fd, IntOption::Domain).map(|domain| domain == libc::AF_INET6)
}

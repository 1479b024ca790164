//! The standard streams: descriptors of our own for them, and calls that wait.
//!
//! O_NONBLOCK is never set on what is open as 0, 1 or 2: the flag belongs to the open file, which the
//! shell and other processes share. A terminal can be opened again, and then the flag is ours alone.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::descriptor::{file_type, status_flags};
use super::{check, check_len, pipe};

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standard {
    Input,
    Output,
    Error,
}

impl Standard {
    pub(crate) fn fd(self) -> BorrowedFd<'static> {
        let number = match self {
            Standard::Input => libc::STDIN_FILENO,
            Standard::Output => libc::STDOUT_FILENO,
            Standard::Error => libc::STDERR_FILENO,
        };
        // SAFETY: as std does, this takes the three numbers for open as long as the process lives. If
        // one is closed, the calls here say EBADF.
        unsafe { BorrowedFd::borrow_raw(number) }
    }
}

/// A descriptor of our own of this stream: a terminal is opened again, without O_NONBLOCK for others;
/// all else is duplicated. If the stream is closed, it is one of /dev/null, as in std.
pub(crate) fn duplicate(stream: Standard) -> io::Result<OwnedFd> {
    if let Some(terminal) = open_terminal_again(stream.fd()) {
        return Ok(terminal);
    }
    match stream.fd().try_clone_to_owned() {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
            keep_numbers_free(null.into())
        }
        duplicated => duplicated,
    }
}

/// `fd` with a number that is none of a standard stream, which may be closed.
pub(crate) fn keep_numbers_free(fd: OwnedFd) -> io::Result<OwnedFd> {
    // The number of a duplicate is 3 or more.
    if fd.as_raw_fd() > libc::STDERR_FILENO { Ok(fd) } else { fd.try_clone() }
}

/// The terminal `fd`, opened once more and non-blocking. `None`: it is no terminal, it is the side of
/// a terminal emulator (to open that makes a new terminal), or it cannot be opened.
fn open_terminal_again(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    if !fd.is_terminal() || is_emulator_side(fd) {
        return None;
    }
    let access = status_flags(fd.as_raw_fd()).ok()? & libc::O_ACCMODE;
    let opened = OpenOptions::new()
        .read(access != libc::O_WRONLY)
        .write(access != libc::O_RDONLY)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    opened.ok().map(OwnedFd::from)
}

/// Whether `fd` is the side of a pseudoterminal that a terminal emulator has; ioctl_tty(2).
fn is_emulator_side(fd: BorrowedFd<'_>) -> bool {
    let mut number: libc::c_int = 0;
    // SAFETY: TIOCGPTN writes one int, which lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGPTN, &mut number) }).is_ok()
}

/// read(2), which waits. Returns how many bytes it read; 0 is EOF.
pub(crate) fn read(stream: Standard, memory: &mut [u8]) -> io::Result<usize> {
    let fd = stream.fd().as_raw_fd();
    // SAFETY: pointer and length are those of one borrowed slice.
    check_len(unsafe { libc::read(fd, memory.as_mut_ptr().cast(), memory.len()) })
}

/// write(2), which waits. Returns how many bytes it wrote.
pub(crate) fn write(stream: Standard, bytes: &[u8]) -> io::Result<usize> {
    write_to(stream.fd(), bytes)
}

/// Writes what there is room for without waiting for a reader. Returns how many bytes that was.
pub(crate) fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // A write to a file that must not wait at all may be refused, though there is room.
    let is_file = file_type(fd)? == libc::S_IFREG;
    if is_file { write_to(fd, bytes) } else { pipe::write_now(fd, bytes) }
}

fn write_to(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one borrowed slice.
    check_len(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

/// Waits until `stream` can be read, or written, or has an error to tell; or until `bell` can be read,
/// if there is one. Returns whether it is the stream.
pub(crate) fn wait(stream: Standard, bell: Option<BorrowedFd<'_>>) -> bool {
    let events = if stream == Standard::Input { libc::POLLIN } else { libc::POLLOUT };
    let entry = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
    let bell = bell.map_or(-1, |bell| bell.as_raw_fd()); // poll(2) leaves -1 out
    let mut entries = [entry(stream.fd().as_raw_fd(), events), entry(bell, libc::POLLIN)];
    // SAFETY: the count is that of the array, which lives through the call.
    unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
    entries[0].revents != 0
}

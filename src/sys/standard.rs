//! The standard streams: descriptors of our own for them, and calls that wait.
//!
//! O_NONBLOCK is never set on what is open as 0, 1 or 2: the flag belongs to the open file, which the
//! shell and other processes share. A terminal can be opened again, and then the flag is ours alone.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::descriptor::{file_type, status_flags};
use super::pipe::{is_unsupported, read_without_waiting};
use super::poll::poll_either;
use super::{check, check_len};

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standard {
    Input,
    Output,
    Error,
}

impl Standard {
    fn fd(self) -> BorrowedFd<'static> {
        let number = match self {
            Standard::Input => libc::STDIN_FILENO,
            Standard::Output => libc::STDOUT_FILENO,
            Standard::Error => libc::STDERR_FILENO,
        };
        // SAFETY: as std does, this takes the three numbers for open as long as the process lives. If
        // one is closed, the calls here say EBADF.
        unsafe { BorrowedFd::borrow_raw(number) }
    }

    /// Whether nothing is open there.
    pub(crate) fn is_closed(self) -> bool {
        is_closed(self.fd().as_raw_fd())
    }

    /// The name, for errors and threads.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Standard::Input => "stdin",
            Standard::Output => "stdout",
            Standard::Error => "stderr",
        }
    }
}

fn is_closed(fd: RawFd) -> bool {
    // SAFETY: F_GETFD takes no pointers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) == -1 }
}

/// Opens /dev/null where one of the three is closed: what is opened next would be taken for it.
pub(crate) fn take_free_numbers() {
    let numbers = libc::STDIN_FILENO..=libc::STDERR_FILENO;
    while numbers.clone().any(is_closed) {
        let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") else { return };
        // It has the lowest free number. If that is another one by now, it is closed again.
        if numbers.contains(&null.as_raw_fd()) {
            let _ = null.into_raw_fd();
        }
    }
}

/// A descriptor of our own for an engine to read and write. `on_ring`: the engine can wait for a pipe
/// or socket that is not non-blocking. `None`: a call of this stream may wait, so a thread has to make
/// it. The ring is no way round: it calls a terminal's driver at once, and shares the position of a
/// file without the lock of read(2) and write(2).
pub(crate) fn for_engine(stream: Standard, on_ring: bool) -> io::Result<Option<OwnedFd>> {
    let fd = stream.fd();
    if let Some(terminal) = open_terminal_again(fd) {
        return Ok(Some(terminal));
    }
    match file_type(fd) {
        Ok(libc::S_IFIFO | libc::S_IFSOCK) if on_ring => fd.try_clone_to_owned().map(Some),
        _ => Ok(None),
    }
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

/// Waits until there is something to read, or `bell` can be read. Returns whether it is the stream.
pub(crate) fn wait_for_input(bell: BorrowedFd<'_>) -> io::Result<bool> {
    let stream = Standard::Input.fd().as_raw_fd();
    if status_flags(stream)? & libc::O_ACCMODE == libc::O_WRONLY {
        return Err(io::Error::from_raw_os_error(libc::EBADF)); // poll(2) would wait for ever
    }
    Ok(poll_either(stream, libc::POLLIN, Some(bell)))
}

/// Waits until there is room to write, or an error to tell.
pub(crate) fn wait_for_room(stream: Standard) {
    poll_either(stream.fd().as_raw_fd(), libc::POLLOUT, None);
}

/// Reads what is there; 0 is EOF. It waits for a disk, and for the input of what cannot be read
/// without waiting: terminals, FIFOs, pipes before kernel 6.5.
pub(crate) fn read(stream: Standard, memory: &mut [u8]) -> io::Result<usize> {
    let fd = stream.fd().as_raw_fd();
    if file_type(stream.fd())? != libc::S_IFREG {
        // Another process may have taken what poll(2) has seen.
        // SAFETY: pointer and length are those of one borrowed slice.
        match unsafe { read_without_waiting(fd, memory.as_mut_ptr(), memory.len()) } {
            Err(error) if is_unsupported(&error) => {}
            read => return read,
        }
    }
    // SAFETY: pointer and length are those of one borrowed slice.
    check_len(unsafe { libc::read(fd, memory.as_mut_ptr().cast(), memory.len()) })
}

/// write(2), which waits. Returns how many bytes it wrote.
pub(crate) fn write(stream: Standard, bytes: &[u8]) -> io::Result<usize> {
    let fd = stream.fd().as_raw_fd();
    // SAFETY: pointer and length are those of one borrowed slice.
    check_len(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

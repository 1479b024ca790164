//! The standard streams (SEMANTICS PP2). Each test is a process of its own, with its descriptors 0, 1
//! and 2 replaced for a while.

#[path = "../common/mod.rs"]
mod common;

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use tamam::io::{Stdin, read_to_end};

mod input;
mod kinds;
mod output;
mod process;

const MS: Duration = Duration::from_millis(1);

/// More than a pipe holds, which is 64 KiB.
const STALLING: usize = 1 << 20;

/// A standard descriptor that means something else, until this is dropped.
struct Redirected {
    number: RawFd,
    before: OwnedFd,
}

impl Redirected {
    fn to(number: RawFd, file: impl AsFd) -> Redirected {
        // SAFETY: the number is that of a standard stream, which libtest has open.
        let before = unsafe { BorrowedFd::borrow_raw(number) };
        let before = before.try_clone_to_owned().expect("descriptors are left");
        replace(number, file.as_fd().as_raw_fd());
        Redirected { number, before }
    }

    fn stdin(file: impl AsFd) -> Redirected {
        Redirected::to(0, file)
    }

    fn stdout(file: impl AsFd) -> Redirected {
        Redirected::to(1, file)
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        replace(self.number, self.before.as_raw_fd());
    }
}

fn replace(number: RawFd, by: RawFd) {
    // SAFETY: takes no pointers; the test's process has no other thread that uses this number.
    assert_eq!(unsafe { libc::dup2(by, number) }, number);
}

fn close(number: RawFd) {
    // SAFETY: as in `replace`.
    assert_eq!(unsafe { libc::close(number) }, 0);
}

/// The reading and the writing end of a pipe, which wait in their calls.
fn pipe() -> (File, File) {
    let mut fds = [0; 2];
    // SAFETY: there is room for two descriptors, which are this test's.
    unsafe {
        assert_eq!(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1]))
    }
}

/// The side of a terminal emulator, and the terminal.
fn terminal() -> (File, File) {
    let (mut emulator, mut terminal) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: there is room for two descriptors, which are this test's; a name, settings and a size
    // are not asked for.
    unsafe {
        let made = libc::openpty(&mut emulator, &mut terminal, none, none.cast(), none.cast());
        assert_eq!(made, 0, "terminals are left");
        for fd in [emulator, terminal] {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        (File::from_raw_fd(emulator), File::from_raw_fd(terminal))
    }
}

/// A file without a name, at its start.
fn file_of(bytes: &[u8]) -> File {
    // SAFETY: the name ends with a zero byte; the descriptor is this test's.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"test".as_ptr(), 0)) };
    file.write_all(bytes).expect("memory");
    file.rewind().expect("a file");
    file
}

fn is_nonblocking(file: &impl AsFd) -> bool {
    // SAFETY: takes no pointers.
    unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

/// Calls `read` until it is over, and gives all bytes.
async fn all_of(stdin: &Stdin) -> Vec<u8> {
    read_to_end(stdin, 1 << 24).await.expect("an end")
}

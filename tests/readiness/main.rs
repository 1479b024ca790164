//! Readiness of any descriptor (SEMANTICS RD1 to RD12), of every kind there is: pipes, eventfds,
//! timerfds, inotify, sockets of std's, and what has none.

#[path = "../common/mod.rs"]
mod common;

mod kinds;
mod waits;
mod surroundings;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use tamam::io::Readiness;

/// Takes over what a system call opened.
fn opened(fd: RawFd) -> File {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the call has just opened it, so nothing else owns it.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn eventfd() -> File {
    // SAFETY: takes no pointers.
    opened(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

/// The end to read from, and the end to write to.
fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    let done = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) };
    assert_eq!(done, 0, "descriptors");
    (opened(ends[0]), opened(ends[1]))
}

fn sockets() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("descriptors");
    ours.set_nonblocking(true).expect("a socket");
    theirs.set_nonblocking(true).expect("a socket");
    (ours, theirs)
}

fn add(eventfd: &File) {
    (&*eventfd).write_all(&1u64.to_ne_bytes()).expect("room");
}

fn watch<T: AsFd>(inner: T) -> Readiness<T> {
    Readiness::new(inner).expect("it can be watched")
}

/// Reads once it is ready.
async fn read<T: AsFd>(readiness: &Readiness<T>, buf: &mut [u8]) -> usize
where
    for<'a> &'a T: Read,
{
    loop {
        let mut guard = readiness.readable().await.expect("no error");
        if let Ok(read) = guard.try_io(|mut inner| inner.read(buf)) {
            return read.expect("no error");
        }
    }
}

/// Takes all that there is, so that the next wait waits.
async fn drain<T: AsFd>(readiness: &Readiness<T>)
where
    for<'a> &'a T: Read,
{
    let mut guard = readiness.readable().await.expect("no error");
    while let Ok(read) = guard.try_io(|mut inner| inner.read(&mut [0; 4096])) {
        assert_ne!(read.expect("no error"), 0, "it has not ended");
    }
}

/// Writes until there is no room.
async fn fill<T: AsFd>(readiness: &Readiness<T>) -> usize
where
    for<'a> &'a T: Write,
{
    let mut written = 0;
    let mut guard = readiness.writable().await.expect("no error");
    while let Ok(len) = guard.try_io(|mut inner| inner.write(&[7; 4096])) {
        written += len.expect("no error");
    }
    written
}

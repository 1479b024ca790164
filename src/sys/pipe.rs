//! Pipes and FIFOs: opening them, and the calls that move bytes without waiting; pipe(7).
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use super::descriptor::{file_type, is_nonblocking, status_flags};
use super::poll::{is_readable, is_writable};
use super::{check, check_len, retry};

/// A write meets a reader that is gone: EPIPE without SIGPIPE. Kernel 6.18; pwritev2(2).
const RWF_NOSIGNAL: libc::c_int = 0x100;

/// PIPE_BUF: a pipe that poll(2) calls writable takes this many bytes without waiting.
const ATOMIC_LEN: usize = 4096;

/// The flag of writes that raise no SIGPIPE: [`RWF_NOSIGNAL`], or 0 where the kernel lacks it. -1:
/// not probed yet.
static NO_SIGNAL: AtomicI32 = AtomicI32::new(-1);

/// pipe2(2): the end to read from, and the one to write to; both non-blocking and closed on exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `fds` has room for the two descriptors that pipe2(2) writes.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: pipe2(2) has just opened both, so nothing else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// open(2) of a FIFO, without waiting for its other end. `access` is O_RDONLY, O_WRONLY or O_RDWR.
/// Without a reader, O_WRONLY fails with ENXIO.
pub(crate) fn open_fifo(path: &Path, access: libc::c_int) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = access | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: `path` ends with a zero byte and lives through the call.
    let fd = retry(|| check(unsafe { libc::open(path.as_ptr(), flags) }))?;
    // SAFETY: open(2) has just opened `fd`, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether `fd` is a pipe or a FIFO.
pub(crate) fn is_pipe(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(file_type(fd)? == libc::S_IFIFO)
}

/// O_RDONLY, O_WRONLY or O_RDWR: how the file was opened.
pub(crate) fn access_mode(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    Ok(status_flags(fd.as_raw_fd())? & libc::O_ACCMODE)
}

// ---- SIGPIPE --------------------------------------------------------------------------------

/// Makes sure that writes of this thread to pipes raise no SIGPIPE that would end the process. Where
/// the kernel has no flag for it and the signal has its default action, it is blocked on this thread
/// for good. std unblocks it in the programs that it starts.
pub(crate) fn silence_sigpipe() {
    if no_signal_flag() != 0 {
        return;
    }
    // SAFETY: sigaction consists of integers, a mask and an optional function pointer, for which
    // all zeroes are valid.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `action` lives through the call; a null pointer asks for no change.
    let known = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut action) };
    if known == 0 && action.sa_sigaction == libc::SIG_DFL {
        super::signal::block(&[libc::SIGPIPE]);
    }
}

/// The flag of writes that raise no SIGPIPE, or 0: the kernel has none, and the signal is blocked.
pub(crate) fn no_signal_flag() -> libc::c_int {
    match NO_SIGNAL.load(Relaxed) {
        -1 => {
            let flag = probe_no_signal();
            if let Some(flag) = flag {
                NO_SIGNAL.store(flag, Relaxed);
            }
            flag.unwrap_or(0)
        }
        flag => flag,
    }
}

/// Tries [`RWF_NOSIGNAL`] on a pipe. `None`: there is no pipe to try it on.
#[cold]
fn probe_no_signal() -> Option<libc::c_int> {
    let (_read, write) = pipe().ok()?;
    let byte = [0u8];
    let piece = libc::iovec { iov_base: byte.as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: the piece is one array, which lives through the call.
    let written = unsafe { write_with(write.as_raw_fd(), &piece, 1, RWF_NOSIGNAL) };
    Some(if written.is_ok() { RWF_NOSIGNAL } else { 0 })
}

// ---- bytes ----------------------------------------------------------------------------------

/// read(2) without waiting, also where O_NONBLOCK was cleared. Returns how many bytes it read; 0 is
/// EOF.
///
/// # Safety
/// `memory` is writable for `len` bytes.
pub(crate) unsafe fn read(fd: RawFd, memory: *mut u8, len: usize) -> io::Result<u32> {
    // SAFETY: the caller promises that `memory` is writable for `len` bytes.
    let read = match retry(|| unsafe { read_without_waiting(fd, memory, len) }) {
        Err(error) if is_unsupported(&error) => {
            // SAFETY: the caller has a descriptor that stays open through this call.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            if !is_nonblocking(fd)? && !is_readable(borrowed) {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            // SAFETY: the caller promises that `memory` is writable for `len` bytes.
            retry(|| check_len(unsafe { libc::read(fd, memory.cast(), len) }))
        }
        read => read,
    };
    read.map(|read| read as u32)
}

/// One preadv2(2) at the file's position that does not wait. Returns how many bytes it read; 0 is EOF.
/// An error that [`is_unsupported`]: the file knows no such call.
///
/// # Safety
/// `memory` is writable for `len` bytes.
pub(super) unsafe fn read_without_waiting(
    fd: RawFd,
    memory: *mut u8,
    len: usize,
) -> io::Result<usize> {
    let piece = libc::iovec { iov_base: memory.cast(), iov_len: len };
    // SAFETY: the caller promises that `memory` is writable for `len` bytes.
    check_len(unsafe { libc::preadv2(fd, &piece, 1, -1, libc::RWF_NOWAIT) })
}

/// write(2) without waiting and without SIGPIPE, also where O_NONBLOCK was cleared. Returns how many
/// bytes the pipe took: fewer than `len` if it is full then.
///
/// # Safety
/// `memory` is readable for `len` bytes.
pub(crate) unsafe fn write(fd: RawFd, memory: *const u8, len: usize) -> io::Result<u32> {
    let piece = libc::iovec { iov_base: memory.cast_mut().cast(), iov_len: len };
    // SAFETY: the caller promises that `memory` is readable for `len` bytes.
    unsafe { write_pieces(fd, &piece, 1) }
}

/// As [`write`], of the pieces of a list.
///
/// # Safety
/// `pieces` leads to `count` pieces, and each is readable for its length.
pub(crate) unsafe fn write_pieces(
    fd: RawFd,
    pieces: *const libc::iovec,
    count: usize,
) -> io::Result<u32> {
    let flags = libc::RWF_NOWAIT | no_signal_flag();
    // SAFETY: the caller promises that the pieces and what they list are readable.
    match retry(|| unsafe { write_with(fd, pieces, count, flags) }) {
        Err(error) if is_unsupported(&error) => {}
        written => return written,
    }
    if is_nonblocking(fd)? {
        // SAFETY: as above.
        return retry(|| unsafe { write_with(fd, pieces, count, no_signal_flag()) });
    }
    // SAFETY: as above.
    unsafe { write_while_writable(fd, pieces, count) }
}

/// As [`write_pieces`], where each write could wait: as much at a time as poll(2) promises room for.
///
/// # Safety
/// As for [`write_pieces`].
unsafe fn write_while_writable(
    fd: RawFd,
    pieces: *const libc::iovec,
    count: usize,
) -> io::Result<u32> {
    let mut written = 0;
    for index in 0..count {
        // SAFETY: there are `count` pieces.
        let piece = unsafe { &*pieces.add(index) };
        let mut done = 0;
        while done < piece.iov_len {
            // SAFETY: the caller has a descriptor that stays open through this call.
            if !is_writable(unsafe { BorrowedFd::borrow_raw(fd) }) {
                return match written {
                    0 => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
                    written => Ok(written),
                };
            }
            let len = (piece.iov_len - done).min(ATOMIC_LEN);
            // SAFETY: `done` is below the length of the piece.
            let base = unsafe { piece.iov_base.byte_add(done) };
            let part = libc::iovec { iov_base: base, iov_len: len };
            // SAFETY: the part is within the piece, which is readable.
            match retry(|| unsafe { write_with(fd, &part, 1, no_signal_flag()) }) {
                Ok(len) => (done, written) = (done + len as usize, written + len),
                Err(error) if written == 0 => return Err(error),
                Err(_) => return Ok(written), // the next write says it
            }
        }
    }
    Ok(written)
}

/// Whether a call has refused its flags: pipes know RWF_NOWAIT since 6.5, FIFOs do not.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

/// One pwritev2(2) at the file's position, or writev(2) if there are no flags.
///
/// # Safety
/// `pieces` leads to `count` pieces, and each is readable for its length.
unsafe fn write_with(
    fd: RawFd,
    pieces: *const libc::iovec,
    count: usize,
    flags: libc::c_int,
) -> io::Result<u32> {
    let count = count as libc::c_int;
    let written = match flags {
        // SAFETY: the caller promises that the pieces and what they list are readable.
        0 => unsafe { libc::writev(fd, pieces, count) },
        // SAFETY: as above.
        flags => unsafe { libc::pwritev2(fd, pieces, count, -1, flags) },
    };
    check_len(written).map(|written| written as u32)
}

/// As [`write`], of a slice.
pub(crate) fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one borrowed slice.
    unsafe { write(fd.as_raw_fd(), bytes.as_ptr(), bytes.len()) }.map(|written| written as usize)
}

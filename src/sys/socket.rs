//! Sockets: opening them, connecting them, and the calls that move bytes without waiting.
//!
//! What only datagrams need is in `datagram.rs`. Options of a socket are in `option.rs`, addresses
//! in `addr.rs`.
#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::SocketAddr as UnixAddr;

use super::addr::SockAddr;
use super::descriptor::is_nonblocking;
use super::poll::is_readable;
use super::{check, check_len, retry};

/// The most bytes that this crate asks one call to transfer. The kernel transfers no more
/// (read(2)).
pub(crate) const TRANSFER_LEN_MAX: usize = 0x7fff_f000;

/// socket(2): a non-blocking TCP socket that is closed on exec; of IPv6 if `v6`, else of IPv4.
pub(crate) fn tcp_socket(v6: bool) -> io::Result<OwnedFd> {
    socket(if v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_STREAM)
}

/// socket(2): as [`tcp_socket`], for UDP.
pub(crate) fn udp_socket(v6: bool) -> io::Result<OwnedFd> {
    socket(if v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_DGRAM)
}

/// socket(2): a non-blocking Unix stream socket that is closed on exec.
pub(crate) fn unix_socket() -> io::Result<OwnedFd> {
    socket(libc::AF_UNIX, libc::SOCK_STREAM)
}

/// socket(2): as [`unix_socket`], for datagrams.
pub(crate) fn unix_datagram_socket() -> io::Result<OwnedFd> {
    socket(libc::AF_UNIX, libc::SOCK_DGRAM)
}

/// What every socket of this crate is.
const FLAGS: libc::c_int = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

fn socket(domain: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    let kind = kind | FLAGS;
    // SAFETY: socket(2) takes no pointers.
    let fd = check(unsafe { libc::socket(domain, kind, 0) })?;
    // SAFETY: socket(2) has just opened `fd`, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// socketpair(2): two connected Unix stream sockets.
pub(crate) fn unix_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    socket_pair(libc::SOCK_STREAM)
}

/// socketpair(2): two connected Unix datagram sockets.
pub(crate) fn unix_datagram_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    socket_pair(libc::SOCK_DGRAM)
}

fn socket_pair(kind: libc::c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: `fds` has room for the two descriptors that socketpair(2) writes.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind | FLAGS, 0, fds.as_mut_ptr()) })?;
    // SAFETY: socketpair(2) has just opened both, so nothing else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// bind(2).
pub(crate) fn bind(fd: BorrowedFd<'_>, addr: &SockAddr) -> io::Result<()> {
    // SAFETY: `addr` is borrowed through the call, and its pointer is readable for its length.
    check(unsafe { libc::bind(fd.as_raw_fd(), addr.as_ptr(), addr.len()) }).map(drop)
}

/// listen(2).
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: listen(2) takes no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// shutdown(2), SHUT_WR. Not through the ring, which hands every shutdown to a worker thread.
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: shutdown(2) takes no pointers.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

/// accept4(2) without waiting. Returns the descriptor of the new connection as a number, as the ring
/// does.
///
/// accept4(2) has no flag for it. Where O_NONBLOCK was cleared, poll(2) looks before. If another
/// process takes the connection in between, the call waits for the next one.
pub(crate) fn accept(fd: RawFd, flags: i32) -> io::Result<u32> {
    // SAFETY: the caller has a descriptor that stays open through this call.
    let listener = unsafe { BorrowedFd::borrow_raw(fd) };
    if !is_nonblocking(fd)? && !is_readable(listener) {
        return Err(io::Error::from_raw_os_error(libc::EAGAIN));
    }
    // SAFETY: both pointers are null, which tells accept4(2) to write no address.
    let accepted = retry(|| unsafe {
        check(libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags))
    })?;
    Ok(accepted as u32)
}

/// connect(2) without waiting: it usually answers EINPROGRESS, and the connection is on its way. If
/// O_NONBLOCK was cleared, it is set again: nobody else can use a socket that is not connected yet.
///
/// # Safety
/// `addr` is readable for `len` bytes.
pub(crate) unsafe fn connect(
    fd: RawFd,
    addr: *const libc::sockaddr,
    len: libc::socklen_t,
) -> io::Result<()> {
    if !is_nonblocking(fd)? {
        let on: libc::c_int = 1;
        // SAFETY: FIONBIO reads one integer, which lives through the call.
        check(unsafe { libc::ioctl(fd, libc::FIONBIO, &on) })?;
    }
    // SAFETY: the caller promises that `addr` is readable for `len` bytes.
    check(unsafe { libc::connect(fd, addr, len) }).map(drop)
}

/// connect(2) of a Unix socket. It does not wait: it fails with EAGAIN if the backlog is full.
pub(crate) fn connect_unix(fd: BorrowedFd<'_>, addr: &SockAddr) -> io::Result<()> {
    // SAFETY: `addr` is borrowed through the call, and its pointer is readable for its length.
    retry(|| unsafe { connect(fd.as_raw_fd(), addr.as_ptr(), addr.len()) })
}

/// recv(2) without waiting. Returns how many bytes it received; 0 is EOF.
///
/// # Safety
/// `memory` is writable for `len` bytes.
pub(crate) unsafe fn recv(fd: RawFd, memory: *mut u8, len: usize) -> io::Result<u32> {
    // SAFETY: the caller promises that `memory` is writable for `len` bytes.
    let received =
        retry(|| check_len(unsafe { libc::recv(fd, memory.cast(), len, libc::MSG_DONTWAIT) }))?;
    Ok(received as u32)
}

/// send(2) without waiting and without SIGPIPE. Returns how many bytes the kernel took.
///
/// # Safety
/// `memory` is readable for `len` bytes.
pub(crate) unsafe fn send(fd: RawFd, memory: *const u8, len: usize) -> io::Result<u32> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the caller promises that `memory` is readable for `len` bytes.
    let sent = retry(|| check_len(unsafe { libc::send(fd, memory.cast(), len, flags) }))?;
    Ok(sent as u32)
}

/// sendmsg(2) without waiting and without SIGPIPE. Returns how many bytes the kernel took.
///
/// # Safety
/// `header` is readable, and so is everything it points to, for the lengths it names.
pub(crate) unsafe fn sendmsg(fd: RawFd, header: *const libc::msghdr) -> io::Result<u32> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the caller promises that `header` and what it points to are readable.
    let sent = retry(|| check_len(unsafe { libc::sendmsg(fd, header, flags) }))?;
    Ok(sent as u32)
}

/// recvmsg(2) without waiting; descriptors that come are closed on exec. Returns how many bytes it
/// received; 0 is EOF of a stream.
///
/// # Safety
/// `header` is writable, and so is everything it points to, for the lengths it names.
pub(crate) unsafe fn recvmsg(fd: RawFd, header: *mut libc::msghdr) -> io::Result<u32> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the caller promises that `header` and what it points to are writable.
    let received = retry(|| check_len(unsafe { libc::recvmsg(fd, header, flags) }))?;
    Ok(received as u32)
}

/// As [`send`], of a slice, and once: a signal makes it fail with EINTR.
pub(crate) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length are those of one borrowed slice.
    check_len(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// recv(2) with MSG_TRUNC: drops up to `len` received bytes without copying them (tcp(7)). Returns
/// how many it dropped; 0 is EOF. Without bytes it fails with EAGAIN.
pub(crate) fn discard_unread(fd: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: for a TCP socket, MSG_TRUNC keeps the kernel from writing to the buffer, so the
    // buffer may be null.
    check_len(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), len, flags) })
}

/// Reads up to `len` received bytes and drops them, for sockets that [`discard_unread`] is not for.
/// Returns how many it dropped.
pub(crate) fn read_and_discard(fd: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let mut bytes = [0; 4096];
    let mut dropped = 0;
    while dropped < len {
        // SAFETY: pointer and length are those of one array.
        match unsafe { recv(fd.as_raw_fd(), bytes.as_mut_ptr(), bytes.len()) } {
            Ok(0) => break,
            Ok(received) => dropped += received as usize,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(dropped)
}

/// getsockname(2).
fn sock_name(fd: BorrowedFd<'_>) -> io::Result<SockAddr> {
    SockAddr::from_kernel(|addr, len| {
        // SAFETY: `from_kernel` gives an address that is writable for `len` bytes.
        check(unsafe { libc::getsockname(fd.as_raw_fd(), addr, len) }).map(drop)
    })
}

/// The address of an internet socket; getsockname(2).
pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    sock_name(fd)?.to_std()
}

/// The address of a Unix socket; getsockname(2).
pub(crate) fn unix_local_addr(fd: BorrowedFd<'_>) -> io::Result<UnixAddr> {
    sock_name(fd)?.to_unix()
}

/// The address of a Unix socket's peer, also when that is gone; getpeername(2).
pub(crate) fn unix_peer_addr(fd: BorrowedFd<'_>) -> io::Result<UnixAddr> {
    let peer = SockAddr::from_kernel(|addr, len| {
        // SAFETY: `from_kernel` gives an address that is writable for `len` bytes.
        check(unsafe { libc::getpeername(fd.as_raw_fd(), addr, len) }).map(drop)
    });
    peer?.to_unix()
}

/// The peer's address, by SO_PEERNAME. getpeername(2) fails with ENOTCONN once the peer has reset
/// the connection; SO_PEERNAME does not.
pub(crate) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    // SO_PEERNAME fails with EINVAL if the room is larger than the address. Room for an IPv4
    // address fits both families: of an IPv6 address the kernel then writes the beginning, with its
    // family.
    SockAddr::from_kernel(|addr, len| {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERNAME);
        for room in [size_of::<libc::sockaddr_in>(), size_of::<libc::sockaddr_in6>()] {
            *len = room as libc::socklen_t;
            // SAFETY: `from_kernel` gives a sockaddr_storage to write to, which is larger than
            // `room`.
            check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, addr.cast(), len) })?;
            // SAFETY: `from_kernel` gives zeroed memory, and every sockaddr begins with its family.
            if i32::from(unsafe { (*addr).sa_family }) != libc::AF_INET6 {
                break;
            }
        }
        Ok(())
    })?
    .to_std()
}

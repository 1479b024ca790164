//! System calls outside the ring, each with its errno kept. Nothing here waits, but for
//! `resolve.rs`.
//!
//! Not here: `io_uring_enter` and the ring's own set-up (`driver/ring.rs`). Read next: `addr.rs`.
#![allow(unsafe_code)]

pub(crate) mod addr;
pub(crate) mod fork;
pub(crate) mod resolve;
pub(crate) mod signal;

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use addr::SockAddr;

/// The longest transfer one call is asked for; the kernel cuts at this size anyway (read(2)).
pub(crate) const TRANSFER_LEN_MAX: usize = 0x7fff_f000;

/// The result of a call that gives -1 and errno.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`check`], for calls that count bytes.
fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// socket(2): a non-blocking TCP socket that no child process inherits.
pub(crate) fn tcp_socket(v6: bool) -> io::Result<OwnedFd> {
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(domain, kind, 0) })?;
    // SAFETY: socket(2) just returned it, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bind(2).
pub(crate) fn bind(fd: BorrowedFd<'_>, addr: &SockAddr) -> io::Result<()> {
    // SAFETY: `SockAddr` gives a valid pointer and the length that belongs to it.
    check(unsafe { libc::bind(fd.as_raw_fd(), addr.as_ptr(), addr.len()) }).map(drop)
}

/// listen(2).
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) }).map(drop)
}

/// shutdown(2), called directly: the ring's form always goes to a worker thread.
pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

/// accept4(2): how the descriptor is numbered.
pub(crate) fn accept(fd: RawFd, flags: i32) -> io::Result<u32> {
    // SAFETY: null asks for no address.
    let accepted = retry(|| unsafe {
        check(libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags))
    })?;
    Ok(accepted as u32)
}

/// connect(2).
///
/// # Safety
/// `addr` points to an address of `len` bytes.
pub(crate) unsafe fn connect(
    fd: RawFd,
    addr: *const libc::sockaddr,
    len: libc::socklen_t,
) -> io::Result<()> {
    // SAFETY: the caller's promise.
    check(unsafe { libc::connect(fd, addr, len) }).map(drop)
}

/// recv(2) that does not wait; how many bytes came.
///
/// # Safety
/// There are `len` bytes at `memory` to write to.
pub(crate) unsafe fn recv(fd: RawFd, memory: *mut u8, len: usize) -> io::Result<u32> {
    // SAFETY: the caller's promise.
    let received =
        retry(|| check_len(unsafe { libc::recv(fd, memory.cast(), len, libc::MSG_DONTWAIT) }))?;
    Ok(received as u32)
}

/// send(2) that does not wait and raises no signal; how many bytes were taken.
///
/// # Safety
/// There are `len` bytes at `memory` to read.
pub(crate) unsafe fn send(fd: RawFd, memory: *const u8, len: usize) -> io::Result<u32> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the caller's promise.
    let sent = retry(|| check_len(unsafe { libc::send(fd, memory.cast(), len, flags) }))?;
    Ok(sent as u32)
}

/// sendmsg(2) that does not wait and raises no signal; how many bytes were taken.
///
/// # Safety
/// `header` and what it lists are there to be read.
pub(crate) unsafe fn sendmsg(fd: RawFd, header: *const libc::msghdr) -> io::Result<u32> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the caller's promise.
    let sent = retry(|| check_len(unsafe { libc::sendmsg(fd, header, flags) }))?;
    Ok(sent as u32)
}

/// Again and again while a signal comes between.
fn retry<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// One send(2) that does not wait and raises no signal; how many bytes were taken.
pub(crate) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length come from one slice.
    check_len(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Throws away up to `len` unread bytes without copying them (tcp(7), MSG_TRUNC).
pub(crate) fn discard_unread(fd: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC on TCP the kernel does not touch the buffer, so null is allowed.
    check_len(unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), len, flags) })
}

/// An eventfd(2) for wake-ups from other threads.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: eventfd(2) just returned it, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd's counter.
pub(crate) fn eventfd_add(fd: BorrowedFd<'_>) -> io::Result<()> {
    let one = 1u64.to_ne_bytes();
    // SAFETY: pointer and length come from one array.
    check_len(unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) }).map(drop)
}

/// Reads, and so clears, an eventfd's counter.
pub(crate) fn eventfd_clear(fd: BorrowedFd<'_>) {
    let mut count = [0u8; 8];
    // SAFETY: pointer and length come from one array. EAGAIN means that it is clear already.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}

/// epoll_create1(2).
pub(crate) fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: epoll_create1(2) just returned it, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// epoll_ctl(2), EPOLL_CTL_ADD: events of `fd` are to come with `key`.
pub(crate) fn epoll_add(set: BorrowedFd<'_>, fd: RawFd, events: u32, key: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: key };
    // SAFETY: `event` is readable.
    check(unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })
        .map(drop)
}

/// epoll_ctl(2), EPOLL_CTL_DEL: no more events of `fd`, which is in the set.
pub(crate) fn epoll_del(set: BorrowedFd<'_>, fd: RawFd) {
    // SAFETY: null is allowed since 2.6.9. It fails only for what is not in the set.
    unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
}

/// epoll_pwait2(2): waits for at most `timeout`; how many events came. Kernel 5.11.
pub(crate) fn epoll_wait_exactly(
    set: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Duration,
) -> io::Result<usize> {
    let (set, list, max) = (set.as_raw_fd(), events.as_mut_ptr(), events.len() as libc::c_int);
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    let no_signals = std::ptr::null::<libc::sigset_t>();
    // SAFETY: `list` has room for `max` events, `timeout` is readable.
    let count = unsafe {
        libc::syscall(libc::SYS_epoll_pwait2, set, list, max, &raw const timeout, no_signals, 0)
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// epoll_wait(2): waits for at most `timeout`, rounded up to milliseconds, or for ever; how many
/// events came.
pub(crate) fn epoll_wait(
    set: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let (set, list, max) = (set.as_raw_fd(), events.as_mut_ptr(), events.len() as libc::c_int);
    let timeout_ms = timeout.map_or(-1, milliseconds);
    // SAFETY: `list` has room for `max` events.
    check(unsafe { libc::epoll_wait(set, list, max, timeout_ms) }).map(|count| count as usize)
}

/// Rounded up, so that a timer is due when the wait ends.
fn milliseconds(time: Duration) -> libc::c_int {
    libc::c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

/// poll(2) on one descriptor for input; also returns at a signal.
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) {
    poll(fd, libc::POLLIN, timeout.map_or(-1, milliseconds));
}

/// poll(2) on one descriptor: whether its connection is reset, or ended in both directions, before the
/// time is over.
pub(crate) fn poll_hang_up(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    poll(fd, 0, milliseconds(timeout)) & (libc::POLLERR | libc::POLLHUP) != 0
}

/// What came of `events`; nothing also after an error.
fn poll(fd: BorrowedFd<'_>, events: libc::c_short, timeout_ms: libc::c_int) -> libc::c_short {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: `entry` is one valid pollfd.
    unsafe { libc::poll(&mut entry, 1, timeout_ms) };
    entry.revents
}

fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    let value: *const T = &value;
    // SAFETY: `value` points to `len` readable bytes that live through the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.cast(), len) }).map(drop)
}

fn int_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = mem::size_of::<libc::c_int>() as libc::socklen_t;
    let out: *mut libc::c_int = &mut value;
    // SAFETY: `out` points to `len` writable bytes that live through the call.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, out.cast(), &mut len) })?;
    Ok(value)
}

/// The switches and sizes of a socket that this crate sets; socket(7), tcp(7), ipv6(7).
#[derive(Clone, Copy, Debug)]
pub(crate) enum IntOption {
    ReuseAddr,
    ReusePort,
    ReceiveBuffer,
    SendBuffer,
    KeepAlive,
    KeepIdle,
    KeepInterval,
    KeepCount,
    NoDelay,
    OnlyV6,
}

impl IntOption {
    fn names(self) -> (libc::c_int, libc::c_int) {
        match self {
            IntOption::ReuseAddr => (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            IntOption::ReusePort => (libc::SOL_SOCKET, libc::SO_REUSEPORT),
            IntOption::ReceiveBuffer => (libc::SOL_SOCKET, libc::SO_RCVBUF),
            IntOption::SendBuffer => (libc::SOL_SOCKET, libc::SO_SNDBUF),
            IntOption::KeepAlive => (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            IntOption::KeepIdle => (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
            IntOption::KeepInterval => (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
            IntOption::KeepCount => (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
            IntOption::NoDelay => (libc::IPPROTO_TCP, libc::TCP_NODELAY),
            IntOption::OnlyV6 => (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
        }
    }
}

/// setsockopt(2) of an int.
pub(crate) fn set(fd: BorrowedFd<'_>, option: IntOption, value: i32) -> io::Result<()> {
    let (level, name) = option.names();
    set_option(fd, level, name, value)
}

/// getsockopt(2) of an int.
pub(crate) fn get(fd: BorrowedFd<'_>, option: IntOption) -> io::Result<i32> {
    let (level, name) = option.names();
    int_option(fd, level, name)
}

/// SO_LINGER with time zero: close(2) resets the connection.
pub(crate) fn set_zero_linger(fd: BorrowedFd<'_>) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

/// O_NONBLOCK, which the ring ignores and which foreign code that dups the socket expects.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if flags & libc::O_NONBLOCK == 0 {
        // SAFETY: takes no pointers.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    }
    Ok(())
}

/// getsockname(2).
pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    SockAddr::fill(|addr, len| {
        // SAFETY: `fill` gives a writable sockaddr_storage and its length.
        check(unsafe { libc::getsockname(fd.as_raw_fd(), addr, len) }).map(drop)
    })
}

/// The peer's address by SO_PEERNAME, which still answers when the peer is gone; getpeername(2)
/// says ENOTCONN there.
pub(crate) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    // The kernel wants room for the address and not a byte more: EINVAL otherwise. With room for
    // IPv4 it writes the start of either, and so tells which it is.
    SockAddr::fill(|addr, len| {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERNAME);
        for room in [size_of::<libc::sockaddr_in>(), size_of::<libc::sockaddr_in6>()] {
            *len = room as libc::socklen_t;
            // SAFETY: `fill` gives a writable sockaddr_storage, which is larger than `room`.
            check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, addr.cast(), len) })?;
            // SAFETY: the storage was zeroed, and now starts with the family.
            if i32::from(unsafe { (*addr).sa_family }) != libc::AF_INET6 {
                break;
            }
        }
        Ok(())
    })
}

/// Takes over a descriptor that the kernel handed out in a completion.
pub(crate) fn adopt(fd: u32) -> OwnedFd {
    // SAFETY: called once for each successful accept completion, whose result nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of `Instant` and of the ring's waits.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable. CLOCK_MONOTONIC always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The effective user, for the words of an error.
pub(crate) fn is_root() -> bool {
    // SAFETY: takes no pointers, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The soft limit of locked memory in bytes, for the words of an error.
pub(crate) fn memlock_limit() -> u64 {
    limits(Limited::LockedMemory).map_or(0, |(soft, _)| soft)
}

/// The limits of a process that matter here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limited {
    Descriptors,
    LockedMemory,
}

/// getrlimit(2): soft and hard; `None` if that may not be asked.
pub(crate) fn limits(of: Limited) -> Option<(u64, u64)> {
    let resource = match of {
        Limited::Descriptors => libc::RLIMIT_NOFILE,
        Limited::LockedMemory => libc::RLIMIT_MEMLOCK,
    };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable.
    check(unsafe { libc::getrlimit(resource, &mut limit) }).ok()?;
    Some((limit.rlim_cur, limit.rlim_max))
}

/// Whether a seccomp filter is on for this thread, by prctl(2), which needs no descriptor; `None` if
/// that may not be asked.
pub(crate) fn has_seccomp_filter() -> Option<bool> {
    // SAFETY: takes no pointers.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    // EINVAL: a kernel without seccomp.
    let is_unknown = mode < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
    (!is_unknown).then_some(mode > 0)
}

/// uname(2)'s release, such as `6.18.44`. (From /proc it would need a descriptor.)
pub(crate) fn kernel_release() -> String {
    // SAFETY: zeroes are empty texts.
    let mut name: libc::utsname = unsafe { mem::zeroed() };
    // SAFETY: `name` is writable.
    if unsafe { libc::uname(&mut name) } == -1 {
        return "unknown".to_owned();
    }
    let text: Vec<u8> = name.release.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}

/// Anonymous memory of its own pages: buffers and rings that the kernel is told about.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: std::ptr::NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// mmap(2) of `len` zeroed bytes; pages come when they are touched.
    pub(crate) fn new(len: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new private mapping touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = std::ptr::NonNull::new(start.cast()).expect("mmap never maps address zero");
        Ok(Mapping { start, len })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping made in `new`, which ends here.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// As `AsFd`, for a descriptor that is taken out when its object ends.
pub(crate) fn present(fd: &Option<OwnedFd>) -> BorrowedFd<'_> {
    fd.as_ref().expect("the descriptor is there until its object ends").as_fd()
}

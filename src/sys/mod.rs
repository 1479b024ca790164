//! System calls that go around the ring, one file for each subject. Each returns its errno.
//!
//! None of them waits, except `epoll_wait`, `poll`, `resolve::lookup` and those of `standard`. `io_uring_setup`,
//! `io_uring_enter` and `io_uring_register` are not here: see `driver/ring.rs`. Read next:
//! `socket.rs`.

pub(crate) mod addr;
pub(crate) mod control;
pub(crate) mod datagram;
pub(crate) mod fork;
pub(crate) mod pipe;
pub(crate) mod resolve;
pub(crate) mod signal;
pub(crate) mod standard;

mod descriptor;
mod epoll;
mod eventfd;
mod memory;
mod option;
mod poll;
mod process;
mod socket;
mod time;

use std::io;

pub(crate) use descriptor::{ClosableFd, adopt, present, set_blocking, set_nonblocking};
pub(crate) use epoll::{
    epoll, epoll_add, epoll_del, epoll_wait, epoll_wait_exactly, is_always_ready,
};
pub(crate) use eventfd::{eventfd, eventfd_add, eventfd_clear};
pub(crate) use memory::{Mapping, page_len};
pub(crate) use option::{
    IntOption, get, linger, peer_credentials, set, set_no_linger, set_zero_linger,
};
pub(crate) use poll::{
    PollEvents, is_hung_up, is_readable, is_shut_down, is_writable, poll_hang_up, poll_now,
    poll_readable,
};
pub(crate) use process::{
    Limited, has_seccomp_filter, is_root, kernel_release, limits, memlock_limit,
};
pub(crate) use socket::{
    TRANSFER_LEN_MAX, accept, bind, connect, connect_unix, discard_unread, listen, local_addr,
    peer_addr, read_and_discard, recv, recvmsg, send, send_now, sendmsg, shutdown_write,
    tcp_socket, udp_socket, unix_datagram_pair, unix_datagram_socket, unix_local_addr, unix_pair,
    unix_peer_addr, unix_socket,
};
pub(crate) use time::monotonic_ns;

/// The result of a call that returns -1 and sets errno when it fails.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`check`], for a call that returns a number of bytes.
fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Repeats a call as long as a signal interrupts it (EINTR).
fn retry<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

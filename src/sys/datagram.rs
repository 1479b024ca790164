//! Datagram sockets: receiving and sending messages without waiting, peers, multicast, and what was
//! thrown away; udp(7), ip(7), ipv6(7).
//!
//! Options of type int are in `option.rs`, control data in `control.rs`.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::addr::SockAddr;
use super::control::Control;
use super::option::{get_option, set_option};
use super::{check, check_len, retry, sendmsg};

/// How many bytes the next datagram has, which stays in the socket. It does not wait. recv(2).
pub(crate) fn next_len(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK | libc::MSG_TRUNC;
    // SAFETY: of no memory, no byte is written.
    retry(|| check_len(unsafe { libc::recv(fd.as_raw_fd(), ptr::null_mut(), 0, flags) }))
}

/// recvfrom(2) of one datagram, without waiting. Returns how long it was: more than `room` if it was cut
/// off. `name_len` is the room for the sender's address, and then its length.
///
/// # Safety
/// `memory` is writable for `room` bytes, and `name` for `name_len`.
pub(crate) unsafe fn receive(
    fd: BorrowedFd<'_>,
    memory: *mut u8,
    room: usize,
    name: *mut u8,
    name_len: &mut libc::socklen_t,
) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let (fd, memory, name) = (fd.as_raw_fd(), memory.cast(), name.cast());
    let name_len: *mut libc::socklen_t = name_len;
    retry(|| {
        // SAFETY: the caller promises room for both, and lends `name_len`.
        check_len(unsafe { libc::recvfrom(fd, memory, room, flags, name, name_len) })
    })
}

/// sendmsg(2) of one datagram, without waiting; to the peer of the socket if there is no `name`.
/// Without control data it is sendto(2), which has less to copy. Returns how many bytes went out.
pub(crate) fn send_message(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    name: Option<&SockAddr>,
    control: &Control,
) -> io::Result<u32> {
    if control.as_bytes().is_empty() {
        let (name, name_len) = name.map_or((ptr::null(), 0), |name| (name.as_ptr(), name.len()));
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let (fd, start) = (fd.as_raw_fd(), bytes.as_ptr().cast());
        // SAFETY: the bytes and the name are borrowed through the call, and their pointers are
        // readable for their lengths.
        let send = || unsafe { libc::sendto(fd, start, bytes.len(), flags, name, name_len) };
        return Ok(retry(|| check_len(send()))? as u32);
    }
    let mut piece =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let header = header_of(&mut piece, name, control);
    // SAFETY: the header points to `piece`, which points to the bytes, to the name and to the
    // control data. All of them are borrowed or live through the call.
    unsafe { sendmsg(fd.as_raw_fd(), &header) }
}

/// A message header for sending one piece. It points to what it is given, which the caller keeps in
/// place for as long as the header is used.
pub(crate) fn header_of(
    piece: *mut libc::iovec,
    name: Option<&SockAddr>,
    control: &Control,
) -> libc::msghdr {
    // SAFETY: msghdr consists of integers and raw pointers, for which zero and null are valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    if let Some(name) = name {
        (header.msg_name, header.msg_namelen) = (name.as_ptr().cast_mut().cast(), name.len());
    }
    (header.msg_iov, header.msg_iovlen) = (piece, 1);
    let control = control.as_bytes();
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len() as _;
    }
    header
}

/// connect(2): sets the peer of a datagram socket. It never waits.
pub(crate) fn set_peer(fd: BorrowedFd<'_>, addr: &SockAddr) -> io::Result<()> {
    // SAFETY: `addr` is borrowed through the call, and its pointer is readable for its length.
    retry(|| check(unsafe { libc::connect(fd.as_raw_fd(), addr.as_ptr(), addr.len()) })).map(drop)
}

/// connect(2) with AF_UNSPEC: the socket has no peer any more.
pub(crate) fn clear_peer(fd: BorrowedFd<'_>) -> io::Result<()> {
    let family = libc::AF_UNSPEC as libc::sa_family_t;
    let none = libc::sockaddr { sa_family: family, sa_data: [0; 14] };
    let len = mem::size_of_val(&none) as libc::socklen_t;
    // SAFETY: `none` lives through the call and is `len` bytes long.
    retry(|| check(unsafe { libc::connect(fd.as_raw_fd(), &none, len) })).map(drop)
}

/// SO_MEMINFO: how many datagrams the kernel has thrown away because there was no room for them.
/// The number wraps around.
pub(crate) fn dropped(fd: BorrowedFd<'_>) -> io::Result<u32> {
    /// What the kernel tells: nine numbers. libc does not name them.
    const SO_MEMINFO: libc::c_int = 55;
    const DROPS: usize = 8;
    let numbers = get_option(fd, libc::SOL_SOCKET, SO_MEMINFO, [0u32; DROPS + 1])?;
    Ok(numbers[DROPS])
}

/// SO_BINDTODEVICE: the socket uses this interface only.
pub(crate) fn bind_device(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let (name, len) = (name.as_ptr().cast(), name.len() as libc::socklen_t);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    // SAFETY: `name` points to a string that is borrowed through the call and is `len` bytes long.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, name, len) }).map(drop)
}

/// A multicast group, as a socket joins it: [`UdpSocket::join_multicast`].
///
/// [`UdpSocket::join_multicast`]: crate::net::UdpSocket::join_multicast
///
/// # Examples
/// ```
/// use std::net::{IpAddr, Ipv4Addr};
/// use tamam::net::MulticastGroup;
///
/// let ip = Ipv4Addr::new(232, 1, 2, 3);
/// let source = Some(IpAddr::from([192, 0, 2, 7]));
/// let group = MulticastGroup { source, ..ip.into() };
/// assert_eq!((group.ip, group.interface), (IpAddr::V4(ip), 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MulticastGroup {
    /// The address of the group.
    pub ip: IpAddr,
    /// Whose datagrams are received: of this sender only. `None`: whoever sends to the group.
    pub source: Option<IpAddr>,
    /// The index of the interface that they come by. Zero: the system chooses.
    pub interface: u32,
}

impl<A: Into<IpAddr>> From<A> for MulticastGroup {
    /// A group with any source, by the interface that the system chooses.
    fn from(ip: A) -> MulticastGroup {
        MulticastGroup { ip: ip.into(), source: None, interface: 0 }
    }
}

/// MCAST_JOIN_GROUP and its like, RFC 3678: begins to receive what is sent to a group, or ends it.
pub(crate) fn set_member(
    fd: BorrowedFd<'_>,
    group: MulticastGroup,
    is_member: bool,
) -> io::Result<()> {
    let MulticastGroup { ip, source, interface } = group;
    let storage = |ip| SockAddr::new(SocketAddr::new(ip, 0)).storage();
    let level = if ip.is_ipv6() { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
    let Some(source) = source else {
        let name = if is_member { libc::MCAST_JOIN_GROUP } else { libc::MCAST_LEAVE_GROUP };
        let request = libc::group_req { gr_interface: interface, gr_group: storage(ip) };
        return set_option(fd, level, name, request);
    };
    let name = match is_member {
        true => libc::MCAST_JOIN_SOURCE_GROUP,
        false => libc::MCAST_LEAVE_SOURCE_GROUP,
    };
    let request = libc::group_source_req {
        gsr_interface: interface,
        gsr_group: storage(ip),
        gsr_source: storage(source),
    };
    set_option(fd, level, name, request)
}

/// IP_MULTICAST_IF: the interface, by its index, by which an IPv4 socket sends to groups.
pub(crate) fn set_multicast_interface_v4(fd: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let any = libc::in_addr { s_addr: libc::INADDR_ANY };
    let index = interface as libc::c_int;
    let request = libc::ip_mreqn { imr_multiaddr: any, imr_address: any, imr_ifindex: index };
    set_option(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, request)
}

/// A message header for a receive with room for a name and control data that are given elsewhere.
pub(crate) fn header_for_room(name_len: usize, control_len: usize) -> libc::msghdr {
    let mut header = header_of(ptr::null_mut(), None, &Control::EMPTY);
    (header.msg_namelen, header.msg_controllen) = (name_len as _, control_len as _);
    header.msg_iovlen = 0;
    header
}

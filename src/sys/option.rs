//! Options of sockets: getsockopt(2), setsockopt(2).
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::check;

/// The options of type `int` that this crate reads and sets; socket(7), ip(7), ipv6(7), tcp(7),
/// udp(7).
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
    Broadcast,
    Ttl,
    HopLimit,
    TypeOfService,
    TrafficClass,
    MulticastLoop,
    MulticastLoopV6,
    MulticastTtl,
    MulticastHopLimit,
    MulticastInterfaceV6,
    TellDestination,
    TellDestinationV6,
    TellTypeOfService,
    TellTrafficClass,
    ReceiveOffload,
    SegmentLen,
    Domain,
    #[cfg(feature = "quinn")]
    MtuDiscover,
    #[cfg(feature = "quinn")]
    MtuDiscoverV6,
}

impl IntOption {
    fn level_and_name(self) -> (libc::c_int, libc::c_int) {
        let (level, name, _) = self.known_as();
        (level, name)
    }

    /// The level and the name of the option, and the text that the man pages use for it.
    fn known_as(self) -> (libc::c_int, libc::c_int, &'static str) {
        use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, SOL_UDP};
        match self {
            IntOption::ReuseAddr => (SOL_SOCKET, libc::SO_REUSEADDR, "SO_REUSEADDR"),
            IntOption::ReusePort => (SOL_SOCKET, libc::SO_REUSEPORT, "SO_REUSEPORT"),
            IntOption::ReceiveBuffer => (SOL_SOCKET, libc::SO_RCVBUF, "SO_RCVBUF"),
            IntOption::SendBuffer => (SOL_SOCKET, libc::SO_SNDBUF, "SO_SNDBUF"),
            IntOption::KeepAlive => (SOL_SOCKET, libc::SO_KEEPALIVE, "SO_KEEPALIVE"),
            IntOption::KeepIdle => (IPPROTO_TCP, libc::TCP_KEEPIDLE, "TCP_KEEPIDLE"),
            IntOption::KeepInterval => (IPPROTO_TCP, libc::TCP_KEEPINTVL, "TCP_KEEPINTVL"),
            IntOption::KeepCount => (IPPROTO_TCP, libc::TCP_KEEPCNT, "TCP_KEEPCNT"),
            IntOption::NoDelay => (IPPROTO_TCP, libc::TCP_NODELAY, "TCP_NODELAY"),
            IntOption::OnlyV6 => (IPPROTO_IPV6, libc::IPV6_V6ONLY, "IPV6_V6ONLY"),
            IntOption::Broadcast => (SOL_SOCKET, libc::SO_BROADCAST, "SO_BROADCAST"),
            IntOption::Ttl => (IPPROTO_IP, libc::IP_TTL, "IP_TTL"),
            IntOption::HopLimit => (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS"),
            IntOption::TypeOfService => (IPPROTO_IP, libc::IP_TOS, "IP_TOS"),
            IntOption::TrafficClass => (IPPROTO_IPV6, libc::IPV6_TCLASS, "IPV6_TCLASS"),
            IntOption::MulticastLoop => (IPPROTO_IP, libc::IP_MULTICAST_LOOP, "IP_MULTICAST_LOOP"),
            IntOption::MulticastLoopV6 => {
                (IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, "IPV6_MULTICAST_LOOP")
            }
            IntOption::MulticastTtl => (IPPROTO_IP, libc::IP_MULTICAST_TTL, "IP_MULTICAST_TTL"),
            IntOption::MulticastHopLimit => {
                (IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, "IPV6_MULTICAST_HOPS")
            }
            IntOption::MulticastInterfaceV6 => {
                (IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, "IPV6_MULTICAST_IF")
            }
            IntOption::TellDestination => (IPPROTO_IP, libc::IP_PKTINFO, "IP_PKTINFO"),
            IntOption::TellDestinationV6 => {
                (IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO")
            }
            IntOption::TellTypeOfService => (IPPROTO_IP, libc::IP_RECVTOS, "IP_RECVTOS"),
            IntOption::TellTrafficClass => (IPPROTO_IPV6, libc::IPV6_RECVTCLASS, "IPV6_RECVTCLASS"),
            IntOption::ReceiveOffload => (SOL_UDP, libc::UDP_GRO, "UDP_GRO"),
            IntOption::SegmentLen => (SOL_UDP, libc::UDP_SEGMENT, "UDP_SEGMENT"),
            IntOption::Domain => (SOL_SOCKET, libc::SO_DOMAIN, "SO_DOMAIN"),
            #[cfg(feature = "quinn")]
            IntOption::MtuDiscover => (IPPROTO_IP, libc::IP_MTU_DISCOVER, "IP_MTU_DISCOVER"),
            #[cfg(feature = "quinn")]
            IntOption::MtuDiscoverV6 => {
                (IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, "IPV6_MTU_DISCOVER")
            }
        }
    }
}

impl fmt::Display for IntOption {
    /// The name that the man pages use.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.known_as().2)
    }
}

/// setsockopt(2) of an int.
pub(crate) fn set(fd: BorrowedFd<'_>, option: IntOption, value: i32) -> io::Result<()> {
    let (level, name) = option.level_and_name();
    set_option(fd, level, name, value)
}

/// getsockopt(2) of an int.
pub(crate) fn get(fd: BorrowedFd<'_>, option: IntOption) -> io::Result<i32> {
    let (level, name) = option.level_and_name();
    get_option(fd, level, name, 0)
}

/// SO_PEERCRED: user, group and process of whoever connected, or listened, at the other end of a Unix
/// socket (unix(7)).
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let unset = libc::ucred { pid: 0, uid: 0, gid: 0 };
    get_option(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, unset)
}

/// SO_LINGER with a time of zero: from now on, close(2) resets the connection.
pub(crate) fn set_zero_linger(fd: BorrowedFd<'_>) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

/// SO_LINGER is off: close(2) does not wait, and what was sent is delivered.
pub(crate) fn set_no_linger(fd: BorrowedFd<'_>) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 0, l_linger: 0 };
    set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

/// SO_LINGER: how long close(2) waits. `None`: it is off.
pub(crate) fn linger(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    let unset = libc::linger { l_onoff: 0, l_linger: 0 };
    let linger: libc::linger = get_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, unset)?;
    let seconds = u64::try_from(linger.l_linger).unwrap_or(u64::MAX); // below zero: for ever
    Ok((linger.l_onoff != 0).then_some(Duration::from_secs(seconds)))
}

/// getsockopt(2) of any option. `value` is what the kernel overwrites, and has the type of the
/// option: integers, or a struct or an array of them, for which every byte pattern is valid.
pub(super) fn get_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    mut value: T,
) -> io::Result<T> {
    let mut len = mem::size_of::<T>() as libc::socklen_t;
    let out: *mut T = &mut value;
    // SAFETY: `out` points to `value`, which lives through the call and is `len` bytes long.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, out.cast(), &mut len) })?;
    Ok(value)
}

/// setsockopt(2) of any option. `T` is the type that the option has: integers, or a struct of them.
pub(crate) fn set_option<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    let value: *const T = &value;
    // SAFETY: `value` points to the argument, which lives through the call and is `len` bytes long.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.cast(), len) }).map(drop)
}

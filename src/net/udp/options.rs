//! Options of a UDP socket that can be changed at any time; socket(7), ip(7), ipv6(7), udp(7).
//! Multicast is in `multicast.rs`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::socket::UdpSocket;
use crate::net::option::{FamilyOption, is_v6, set_option};
use crate::sys::{self, IntOption};

/// Whether the kernel tells of each datagram where it was sent to, and its type of service.
pub(super) fn set_packet_info(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    if is_v6(fd)? {
        set_option(fd, IntOption::TellDestinationV6, on.into())?;
        set_option(fd, IntOption::TellTrafficClass, on.into())?;
    } else {
        set_option(fd, IntOption::TellDestination, on.into())?;
    }
    // IPv6 sockets too: this option is about the IPv4 datagrams that they receive.
    set_option(fd, IntOption::TellTypeOfService, on.into())
}

impl UdpSocket {
    fn set(&self, option: IntOption, value: i32) -> io::Result<()> {
        set_option(self.as_fd(), option, value)
    }

    /// SO_BROADCAST: datagrams may be sent to broadcast addresses.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// let socket = tamam::net::UdpSocket::bind("127.0.0.1:0")?;
    /// let everybody = ([255, 255, 255, 255], 9);
    /// let refused = socket.try_send_to(b"hello", everybody).unwrap_err();
    /// assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    /// socket.set_broadcast(true)?;
    /// assert!(socket.broadcast()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.set(IntOption::Broadcast, on.into())
    }

    /// Whether SO_BROADCAST is set.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn broadcast(&self) -> io::Result<bool> {
        Ok(sys::get(self.as_fd(), IntOption::Broadcast)? != 0)
    }

    /// IP_TTL, IPV6_UNICAST_HOPS: how many routers a datagram passes at most.
    ///
    /// # Errors
    /// Those of setsockopt(2): EINVAL for zero, or for more than 255.
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// let socket = tamam::net::UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_ttl(3)?;
    /// assert_eq!(socket.ttl()?, 3);
    /// assert!(socket.set_ttl(256).is_err());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_ttl(&self, routers: u32) -> io::Result<()> {
        FamilyOption::TTL.set(self.as_fd(), i32::try_from(routers).unwrap_or(i32::MAX))
    }

    /// How many routers a datagram passes at most.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn ttl(&self) -> io::Result<u32> {
        Ok(FamilyOption::TTL.get(self.as_fd())? as u32)
    }

    /// IP_TOS, IPV6_TCLASS: how routers treat a datagram (the upper six bits), and its mark about
    /// congestion (the lower two), where the [`Envelope`](crate::net::Envelope) of a send says none.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// let socket = tamam::net::UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_tos(0x10)?;
    /// assert_eq!(socket.tos()?, 0x10);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_tos(&self, tos: u8) -> io::Result<()> {
        FamilyOption::TOS.set(self.as_fd(), tos.into())
    }

    /// How routers treat a datagram.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn tos(&self) -> io::Result<u8> {
        Ok(FamilyOption::TOS.get(self.as_fd())? as u8)
    }

    /// SO_RCVBUF in bytes: how much waits in the kernel to be received. The kernel doubles it for its
    /// own use, and cuts it to `net.core.rmem_max` (socket(7)). The memory of each datagram counts,
    /// which is more than its bytes.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_recv_buffer_size(&self, bytes: u32) -> io::Result<()> {
        self.set(IntOption::ReceiveBuffer, i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// SO_RCVBUF, as the kernel has it: doubled.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn recv_buffer_size(&self) -> io::Result<u32> {
        Ok(sys::get(self.as_fd(), IntOption::ReceiveBuffer)? as u32)
    }

    /// SO_SNDBUF in bytes: how much waits in the kernel to go out. The kernel doubles it for its own
    /// use, and cuts it to `net.core.wmem_max` (socket(7)).
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_send_buffer_size(&self, bytes: u32) -> io::Result<()> {
        self.set(IntOption::SendBuffer, i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// SO_SNDBUF, as the kernel has it: doubled.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn send_buffer_size(&self) -> io::Result<u32> {
        Ok(sys::get(self.as_fd(), IntOption::SendBuffer)? as u32)
    }

    /// IP_PKTINFO, IP_RECVTOS and their like: datagrams tell where they were sent to
    /// ([`Datagram::to`](crate::net::Datagram::to)) and their mark about congestion
    /// ([`Datagram::ecn`](crate::net::Datagram::ecn)). Not unless set, since the kernel needs a fifth
    /// more for each datagram.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    /// # Examples
    /// ```
    /// use tamam::net::{Ecn, UdpSocket};
    ///
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_packet_info(true)?;
    /// socket.send_to("hello", socket.local_addr()?).await?;
    /// let datagram = socket.recv().await?;
    /// assert_eq!(datagram.to, Some(socket.local_addr()?.ip()));
    /// assert_eq!(datagram.ecn, Some(Ecn::NotEct));
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_packet_info(&self, on: bool) -> io::Result<()> {
        set_packet_info(self.as_fd(), on)
    }

    /// UDP_GRO: the kernel may merge datagrams of one sender and one size, which costs far less for
    /// each. [`Datagram::segments`](crate::net::Datagram::segments) gives the single ones.
    ///
    /// # Errors
    /// Those of setsockopt(2): ENOPROTOOPT where the kernel has none (before 5.0).
    pub fn set_gro(&self, on: bool) -> io::Result<()> {
        self.set(IntOption::ReceiveOffload, on.into())
    }

    /// SO_MEMINFO: how many datagrams the kernel has thrown away since the socket was made, because
    /// its buffer was full. Those that it had merged ([`set_gro`](Self::set_gro)) count as one. The
    /// number begins again after 2^32.
    ///
    /// # Errors
    /// Those of getsockopt(2): ENOPROTOOPT where the kernel has none (before 4.12).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// let socket = tamam::net::UdpSocket::bind("127.0.0.1:0")?;
    /// socket.set_recv_buffer_size(4096)?;
    /// for _ in 0..100 {
    ///     socket.try_send_to(&[7; 1000], socket.local_addr()?)?;
    /// }
    /// assert!(socket.dropped()? > 0);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn dropped(&self) -> io::Result<u32> {
        sys::datagram::dropped(self.as_fd())
    }

    /// IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: a datagram that is too large for the way is thrown away,
    /// and not divided into fragments; the kernel's guess of what is too large does not count.
    #[cfg(feature = "quinn")]
    pub(crate) fn forbid_fragments(&self) -> io::Result<()> {
        let probe = libc::IP_PMTUDISC_PROBE; // the same number for both families
        FamilyOption::MTU_DISCOVER.set(self.as_fd(), probe)
    }
}

//! Multicast: which groups a socket receives, and how it sends to them; ip(7), ipv6(7).

use std::io;
use std::os::fd::AsFd;

use super::socket::UdpSocket;
use crate::io::CallError;
use crate::net::option::{FamilyOption, is_v6, set_option};
use crate::sys::IntOption;
use crate::sys::datagram::{MulticastGroup, set_member, set_multicast_interface_v4};

impl UdpSocket {
    /// Receives what is sent to a multicast group: an address of one, or a [`MulticastGroup`], which
    /// also names the interface and the only sender that is heard.
    ///
    /// # Errors
    /// Those of setsockopt(2), such as `AddrInUse` (a member already), ENODEV (no such interface, or
    /// none that has multicast).
    /// # Examples
    /// ```
    /// use tamam::net::{MulticastGroup, UdpSocket};
    ///
    /// # tamam::run(async {
    /// let ip = std::net::Ipv4Addr::new(239, 255, 0, 1);
    /// let loopback = 1; // the index of the interface
    /// let group = MulticastGroup { interface: loopback, ..ip.into() };
    /// let receiver = UdpSocket::bind("0.0.0.0:0")?;
    /// receiver.join_multicast(group)?;
    ///
    /// let sender = UdpSocket::bind("127.0.0.1:0")?;
    /// sender.set_multicast_interface(loopback)?;
    /// sender.send_to("hello", (ip, receiver.local_addr()?.port())).await?;
    /// assert_eq!(&receiver.recv().await?.chunk[..], b"hello");
    ///
    /// receiver.leave_multicast(group)?;
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn join_multicast(&self, group: impl Into<MulticastGroup>) -> io::Result<()> {
        self.set_member("join", group.into(), true)
    }

    /// Ends what [`join_multicast`](Self::join_multicast) has begun, with the same argument.
    ///
    /// # Errors
    /// Those of setsockopt(2), such as `AddrNotAvailable` (not a member).
    pub fn leave_multicast(&self, group: impl Into<MulticastGroup>) -> io::Result<()> {
        self.set_member("leave", group.into(), false)
    }

    fn set_member(
        &self,
        call: &'static str,
        group: MulticastGroup,
        is_member: bool,
    ) -> io::Result<()> {
        let MulticastGroup { ip, interface, .. } = group;
        set_member(self.as_fd(), group, is_member).map_err(|error| {
            CallError::wrap(call, format_args!("{ip} at interface {interface}"), error)
        })
    }

    /// IP_MULTICAST_LOOP: what this socket sends to a group reaches the members on this host, too.
    /// It does unless this is set to false. Of IPv6 (IPV6_MULTICAST_LOOP) likewise.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_multicast_loop(&self, on: bool) -> io::Result<()> {
        FamilyOption::MULTICAST_LOOP.set(self.as_fd(), on.into())
    }

    /// Whether members on this host get what this socket sends to a group.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn multicast_loop(&self) -> io::Result<bool> {
        Ok(FamilyOption::MULTICAST_LOOP.get(self.as_fd())? != 0)
    }

    /// IP_MULTICAST_TTL, IPV6_MULTICAST_HOPS: how many routers pass on what is sent to a group; 1
    /// unless set: it stays within the local network.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_multicast_ttl(&self, routers: u32) -> io::Result<()> {
        FamilyOption::MULTICAST_TTL.set(self.as_fd(), i32::try_from(routers).unwrap_or(i32::MAX))
    }

    /// How many routers pass on what is sent to a group.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn multicast_ttl(&self) -> io::Result<u32> {
        Ok(FamilyOption::MULTICAST_TTL.get(self.as_fd())? as u32)
    }

    /// IP_MULTICAST_IF, IPV6_MULTICAST_IF: the index of the interface by which the socket sends to
    /// groups; zero lets the system choose.
    ///
    /// # Errors
    /// Those of setsockopt(2), such as `AddrNotAvailable` (no such interface).
    pub fn set_multicast_interface(&self, interface: u32) -> io::Result<()> {
        if is_v6(self.as_fd())? {
            let index = i32::try_from(interface).unwrap_or(i32::MAX);
            return set_option(self.as_fd(), IntOption::MulticastInterfaceV6, index);
        }
        set_multicast_interface_v4(self.as_fd(), interface)
            .map_err(|error| CallError::wrap("setsockopt", "IP_MULTICAST_IF", error))
    }
}

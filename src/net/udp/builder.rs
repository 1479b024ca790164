//! `UdpBuilder`: options of a UDP socket that must be set before it is bound. All others are in
//! `options.rs`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::options::set_packet_info;
use super::socket::UdpSocket;
use crate::context;
use crate::driver::Driver;
use crate::io::CallError;
use crate::net::option::set_option;
use crate::sys::{self, IntOption, addr::SockAddr};

/// A UDP socket that is not bound yet: the place for options.
///
/// # Examples
/// Two sockets at one address, over which the kernel spreads the senders:
/// ```
/// use tamam::net::UdpBuilder;
///
/// tamam::run(async {
///     let addr = "127.0.0.1:0".parse().expect("an address");
///     let first = UdpBuilder::new_v4()?.reuse_port(true).bind(addr)?;
///     let second = UdpBuilder::new_v4()?.reuse_port(true).bind(first.local_addr()?)?;
///     assert_eq!(first.local_addr()?, second.local_addr()?);
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub struct UdpBuilder {
    fd: OwnedFd,
    home: Rc<Driver>,
    /// The first option that could not be set; `bind` reports it.
    error: Option<io::Error>,
}

impl UdpBuilder {
    /// A socket for IPv4.
    ///
    /// # Errors
    /// Those of socket(2), such as EMFILE; `Other` outside a runtime.
    pub fn new_v4() -> io::Result<UdpBuilder> {
        UdpBuilder::new(false)
    }

    /// A socket for IPv6. Bound to `::` it receives IPv4 too, from senders that are then
    /// `::ffff:a.b.c.d`, unless [`only_v6`](Self::only_v6) or the sysctl `net.ipv6.bindv6only` says
    /// no.
    ///
    /// # Errors
    /// Those of socket(2), such as EMFILE; `Other` outside a runtime.
    pub fn new_v6() -> io::Result<UdpBuilder> {
        UdpBuilder::new(true)
    }

    fn new(is_v6: bool) -> io::Result<UdpBuilder> {
        let home = context::try_current()?.driver.clone();
        let family = if is_v6 { "for IPv6" } else { "for IPv4" };
        let fd = sys::udp_socket(is_v6).map_err(|error| {
            home.note_failure(&error);
            CallError::wrap("socket", family, error)
        })?;
        Ok(UdpBuilder { fd, home, error: None })
    }

    /// A socket for the family of `addr`.
    pub(super) fn for_addr(addr: SocketAddr) -> io::Result<UdpBuilder> {
        UdpBuilder::new(addr.is_ipv6())
    }

    /// Keeps the first error, for `bind`.
    fn note(mut self, result: io::Result<()>) -> UdpBuilder {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
        self
    }

    fn set(self, option: IntOption, value: i32) -> UdpBuilder {
        let result = set_option(self.fd.as_fd(), option, value);
        self.note(result)
    }

    /// SO_REUSEADDR: several sockets of a multicast group may be bound to one port, and each gets
    /// what is sent to the group. Of other datagrams, only the last one that was bound gets any.
    pub fn reuse_addr(self, on: bool) -> UdpBuilder {
        self.set(IntOption::ReuseAddr, on.into())
    }

    /// SO_REUSEPORT: several sockets are bound to one address, and the kernel spreads the senders
    /// over them.
    pub fn reuse_port(self, on: bool) -> UdpBuilder {
        self.set(IntOption::ReusePort, on.into())
    }

    /// IPV6_V6ONLY: an IPv6 socket at `::` leaves IPv4 to another socket, which may have the same
    /// port. What the system says (ipv6(7)) unless set; an error on an IPv4 socket.
    pub fn only_v6(self, on: bool) -> UdpBuilder {
        self.set(IntOption::OnlyV6, on.into())
    }

    /// SO_BINDTODEVICE: the socket uses this interface only, such as `eth0`.
    pub fn device(self, name: &str) -> UdpBuilder {
        let result = sys::datagram::bind_device(self.fd.as_fd(), name);
        let subject = format_args!("SO_BINDTODEVICE {name}").to_string();
        self.note(result.map_err(|error| CallError::wrap("setsockopt", subject, error)))
    }

    /// SO_RCVBUF in bytes; see [`UdpSocket::set_recv_buffer_size`].
    pub fn recv_buffer_size(self, bytes: u32) -> UdpBuilder {
        self.set(IntOption::ReceiveBuffer, i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// SO_SNDBUF in bytes; see [`UdpSocket::set_send_buffer_size`].
    pub fn send_buffer_size(self, bytes: u32) -> UdpBuilder {
        self.set(IntOption::SendBuffer, i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// Datagrams tell where they were sent to and how; see [`UdpSocket::set_packet_info`]. Set before
    /// binding, it holds for the first one, too.
    pub fn packet_info(self, on: bool) -> UdpBuilder {
        let result = set_packet_info(self.fd.as_fd(), on);
        self.note(result)
    }

    /// Binds to `addr`.
    ///
    /// # Errors
    /// Those of bind(2), and of an option set before; otherwise as [`UdpSocket::bind`].
    /// # Examples
    /// One socket for each family, at the same port:
    /// ```
    /// use tamam::net::{UdpBuilder, UdpSocket};
    ///
    /// # tamam::run(async {
    /// let v6 = UdpBuilder::new_v6()?.only_v6(true).bind("[::]:0".parse().expect("an address"))?;
    /// let port = v6.local_addr()?.port();
    /// let v4 = UdpSocket::bind(([0, 0, 0, 0], port))?;
    /// assert_eq!(v4.local_addr()?.port(), port);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind(mut self, addr: SocketAddr) -> io::Result<UdpSocket> {
        self.error.take().map_or(Ok(()), Err)?;
        let failed = |error| CallError::wrap("bind", addr, error);
        sys::bind(self.fd.as_fd(), &SockAddr::new(addr)).map_err(failed)?;
        UdpSocket::new(self.fd, self.home).map_err(failed)
    }
}

impl AsFd for UdpBuilder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for UdpBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpBuilder").field("fd", &self.fd).finish_non_exhaustive()
    }
}

//! The peer of a UDP socket, and its addresses.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::socket::UdpSocket;
use crate::io::CallError;
use crate::net::addr::{ToSocketAddrs, first_of};
use crate::net::resolve::lookup_host;
use crate::sys::{self, addr::SockAddr};

impl UdpSocket {
    /// Sets the peer: `send` goes there, and only what comes from there is received. Of several
    /// addresses, and of those of a host name, the first is taken that the kernel accepts. No packet
    /// is sent, so nothing tells whether anybody is there.
    ///
    /// Datagrams that were received before stay, whoever has sent them.
    ///
    /// # Errors
    /// Those of connect(2) for the last address, such as EAFNOSUPPORT (an address of the other
    /// family) or ENETUNREACH (no route); `NotFound` (no such name), `InvalidInput` (neither an
    /// address nor of the form `host:port`).
    /// # Cancel safety
    /// Dropped before it is ready: the peer is as it was.
    /// # Kernel
    /// See connect(2), udp(7).
    /// # Examples
    /// ```
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// one.connect(other.local_addr()?).await?;
    /// assert_eq!(one.peer_addr()?, other.local_addr()?);
    /// one.send("hello").await?;
    /// assert_eq!(other.recv().await?.from, one.local_addr()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<()> {
        first_of(lookup_host(addr).await?, |addr| {
            sys::datagram::set_peer(self.as_fd(), &SockAddr::new(addr))
                .map_err(|error| CallError::wrap("connect", addr, error))
        })
    }

    /// Removes the peer. The local address stays.
    ///
    /// # Errors
    /// Those of connect(2); those of bind(2) if the local address is lost meanwhile: the kernel gives
    /// up a port that it has chosen itself, so it is bound once more.
    /// # Examples
    /// ```
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// let addr = one.local_addr()?;
    /// one.connect(other.local_addr()?).await?;
    /// one.disconnect()?;
    /// assert!(one.peer_addr().is_err());
    /// assert_eq!(one.local_addr()?, addr);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn disconnect(&self) -> io::Result<()> {
        let before = self.local_addr()?;
        sys::datagram::clear_peer(self.as_fd())
            .map_err(|error| CallError::wrap("disconnect", before, error))?;
        if self.local_addr()? == before {
            return Ok(());
        }
        sys::bind(self.as_fd(), &SockAddr::new(before))
            .map_err(|error| CallError::wrap("bind", before, error))
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// Those of getsockname(2).
    /// # Examples
    /// The port that the kernel chose:
    /// ```
    /// # tamam::run(async {
    /// let socket = tamam::net::UdpSocket::bind("127.0.0.1:0")?;
    /// assert_ne!(socket.local_addr()?.port(), 0);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.as_fd())
    }

    /// The address of its peer.
    ///
    /// # Errors
    /// `NotConnected`: it has none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        sys::peer_addr(self.as_fd())
    }
}

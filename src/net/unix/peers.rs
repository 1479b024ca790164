//! The peer of a Unix datagram socket, and its addresses.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;

use super::datagram::UnixDatagram;
use super::{addr_of, shown};
use crate::io::CallError;
use crate::sys::{self, addr::SockAddr};

impl UnixDatagram {
    /// Sets the peer: `send` goes there, and only what comes from there is received. It is the socket
    /// that is bound to `path` now: if that one goes, and another takes its path, the socket has to
    /// be connected again.
    ///
    /// If it had another peer, the kernel throws away the datagrams that wait in it.
    ///
    /// # Errors
    /// Those of connect(2), such as `NotFound`, `ConnectionRefused` (nobody is bound to it any more,
    /// or it is no datagram socket) and `PermissionDenied` (the file, or a socket that has another
    /// peer); `InvalidInput` if the path has 108 bytes or more, or a zero byte. The text has the
    /// path.
    /// # Kernel
    /// connect(2), called directly: of a datagram socket it does not wait.
    /// # Examples
    /// See [`UnixDatagram`].
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.connect_addr(&addr_of("connect", path.as_ref())?)
    }

    /// As [`connect`](Self::connect), to an address: a path, or an abstract name.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `InvalidInput` if it is unnamed.
    /// # Kernel
    /// As [`connect`](Self::connect).
    /// # Examples
    /// ```
    /// # use tamam::net::{UnixAddr, UnixDatagram};
    /// # tamam::run(async {
    /// let server = UnixDatagram::bind_addr(&UnixAddr::from_pathname("")?)?;
    /// let client = UnixDatagram::unbound()?;
    /// client.connect_addr(&server.local_addr()?)?;
    /// client.send("hello").await?;
    /// assert_eq!(&server.recv().await?.chunk[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn connect_addr(&self, addr: &UnixAddr) -> io::Result<()> {
        sys::datagram::set_peer(self.as_fd(), &SockAddr::unix(addr))
            .map_err(|error| CallError::wrap("connect", shown(addr), error))
    }

    /// Removes the peer. The name stays; the kernel throws away the datagrams that wait in the
    /// socket.
    ///
    /// # Errors
    /// Those of connect(2).
    /// # Examples
    /// ```
    /// # use tamam::net::UnixDatagram;
    /// # tamam::run(async {
    /// let (one, _other) = UnixDatagram::pair()?;
    /// one.disconnect()?;
    /// let error = one.send("hello").await.unwrap_err();
    /// assert_eq!(error.error().kind(), std::io::ErrorKind::NotConnected);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn disconnect(&self) -> io::Result<()> {
        sys::datagram::clear_peer(self.as_fd())
            .map_err(|error| CallError::wrap("disconnect", "", error))
    }

    /// The address it is bound to; unnamed if it is not bound.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<UnixAddr> {
        sys::unix_local_addr(self.as_fd())
    }

    /// The address of its peer.
    ///
    /// # Errors
    /// `NotConnected`: it has none, or the peer is gone and a send was told so.
    pub fn peer_addr(&self) -> io::Result<UnixAddr> {
        sys::unix_peer_addr(self.as_fd())
    }
}

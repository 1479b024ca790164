//! TCP, Unix sockets and UDP over completions.
//!
//! Objects own what is in flight on them: a [`TcpListener`] its accept, a [`TcpStream`] and a
//! [`UdpSocket`] its receive and its queue of sends. Futures only wait. So dropping any of them, in
//! `select!`, at a timeout, at any point, loses no connection, no byte and no datagram: the next
//! call gets it.

mod addr;
mod option;
mod resolve;
pub(crate) mod resolver;
mod tcp;
mod udp;
mod unix;

pub use crate::datagram::{Datagram, Ecn, Envelope};
pub use crate::sys::datagram::MulticastGroup;
pub use addr::ToSocketAddrs;
pub use resolve::{SystemResolver, lookup_host};
pub use resolver::{Resolver, Resolving};
pub use tcp::{
    Incoming, IntoStdError, OwnedReadHalf, OwnedWriteHalf, ReuniteError, TcpKeepalive, TcpListener,
    TcpOptions, TcpSocket, TcpStream,
};
pub use udp::{UdpBuilder, UdpSocket};
pub use unix::{
    UnixCred, UnixDatagram, UnixListener, UnixReadHalf, UnixStream, UnixWriteHalf, UnlinkOnDrop,
};

/// The address of a Unix socket: a path, an abstract name, or nothing. It is std's.
pub use std::os::unix::net::SocketAddr as UnixAddr;

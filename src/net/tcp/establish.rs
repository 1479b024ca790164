//! How a `TcpStream` comes to be: by address, by a list of addresses, by name.
//!
//! Read next: `race.rs`, attempts that overlap; `connect.rs`, one attempt.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::connect::Connect;
use super::race::{DELAY, Race, interleave};
use super::stream::TcpStream;
use crate::context;
use crate::driver::Driver;
use crate::io::{CallError, errno};
use crate::net::addr::{Destination, ToSocketAddrs};
use crate::net::resolve::{destination_of, lookup_name};
use crate::sys;

impl TcpStream {
    /// Connects to `addr`; of a list of addresses, to the first that answers, tried in order.
    ///
    /// A host name is looked up ([`lookup_host`](crate::net::lookup_host)), and its addresses are
    /// tried as [`connect_staggered`](Self::connect_staggered) does with 250 ms, IPv6 and IPv4 by
    /// turns.
    ///
    /// # Errors
    /// Those of connect(2), such as `ConnectionRefused`. For a list of addresses, the error of the
    /// last one. For a host name, one error that names each address and its cause; its kind is that
    /// of the last address to which there is a route. `NotFound` (no such name); `InvalidInput` if
    /// `addr` is neither an address nor of the form `host:port`; `Other` outside a runtime. The
    /// text says what `addr` was ([`CallError`]).
    ///
    /// [`CallError`]: crate::io::CallError
    /// # Cancel safety
    /// Dropped, the attempts end and their sockets are closed; no further address is tried.
    /// # Kernel
    /// 5.5, `IORING_OP_CONNECT`. See connect(2).
    /// # Examples
    /// ```
    /// use tamam::net::{TcpListener, TcpStream};
    ///
    /// tamam::run(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    ///     let stream = TcpStream::connect([closed, listener.local_addr()?]).await?;
    ///     assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    ///
    ///     let port = listener.local_addr()?.port();
    ///     let stream = TcpStream::connect(("localhost", port)).await?;
    ///     assert_eq!(stream.peer_addr()?.port(), port);
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let home = context::try_current()?.driver.clone();
        let addrs = match destination_of(addr).await? {
            Destination::Addrs(addrs) => addrs,
            // Boxed: a lookup costs more, and the future of a connect to an address stays small.
            Destination::Name(host, port) => {
                return Box::pin(connect_by_name(host, port, DELAY)).await;
            }
        };
        let mut last = None;
        for addr in addrs {
            // No socket of this family is a failure of this address: the next may be of another.
            let connected = match new_socket(&home, addr) {
                Ok(socket) => Connect::new(socket, home.clone(), addr).await,
                Err(error) => {
                    context::ready_at_once().await;
                    Err(error)
                }
            };
            match connected {
                Ok(fd) => return Ok(TcpStream::new(fd, home)),
                Err(error) => last = Some(connect_error(addr, error)),
            }
        }
        Err(last.expect("there is at least one address"))
    }

    /// Connects to whichever address answers first ("Happy Eyeballs", RFC 8305): an attempt begins
    /// `delay` after the one before it, or at once when one fails, and those before it go on. The
    /// first connection wins, the other attempts are cancelled and their sockets closed. At most
    /// 16 are in flight at once.
    ///
    /// The addresses of a host name are tried with the families by turns, beginning with that of
    /// the first; a list is tried in its order. A `delay` below 10 ms is taken for 10 ms, which the
    /// RFC names as the least.
    ///
    /// # Errors
    /// One error that names each address and its cause; its kind is that of the last address to
    /// which there is a route. Otherwise as [`connect`](Self::connect).
    /// # Cancel safety
    /// Dropped, the attempts end and their sockets are closed; no further address is tried.
    /// # Kernel
    /// 5.5, `IORING_OP_CONNECT`. See connect(2).
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tamam::net::{TcpListener, TcpStream};
    ///
    /// tamam::run(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    ///     let addrs = [closed, listener.local_addr()?];
    ///     let stream = TcpStream::connect_staggered(addrs, Duration::from_millis(100)).await?;
    ///     assert_eq!(stream.peer_addr()?, listener.local_addr()?);
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn connect_staggered(
        addr: impl ToSocketAddrs,
        delay: Duration,
    ) -> io::Result<TcpStream> {
        let home = context::try_current()?.driver.clone();
        match destination_of(addr).await? {
            Destination::Addrs(addrs) => race(home, String::new(), addrs.into(), delay).await,
            Destination::Name(host, port) => connect_by_name(host, port, delay).await,
        }
    }
}

/// Why `addr` could not be connected to.
pub(super) fn connect_error(addr: SocketAddr, error: io::Error) -> io::Error {
    let lacks_interface = match addr {
        SocketAddr::V6(addr) => addr.ip().is_unicast_link_local() && addr.scope_id() == 0,
        SocketAddr::V4(_) => false,
    };
    match errno(&error) {
        Some(libc::EINVAL) if lacks_interface => {
            let text = "a link-local address needs its interface, as in [fe80::1%eth0]:80";
            let cause = io::Error::new(error.kind(), text);
            CallError::wrap_with_errno("connect", addr, cause, Some(libc::EINVAL))
        }
        _ => CallError::wrap("connect", addr, error),
    }
}

/// A socket for one attempt. If there is no descriptor left, this attempt fails, and those that can
/// be spared are closed for the next one.
pub(super) fn new_socket(home: &Driver, addr: SocketAddr) -> io::Result<OwnedFd> {
    sys::tcp_socket(addr.is_ipv6()).inspect_err(|error| home.note_failure(error))
}

/// Looks `host` up, and races its addresses, the families by turns.
async fn connect_by_name(host: String, port: u16, delay: Duration) -> io::Result<TcpStream> {
    // Not the handle itself: a future that kept it would keep the runtime that keeps the future.
    let (home, resolver) = {
        let handle = context::try_current()?;
        (handle.driver.clone(), handle.resolver.clone())
    };
    let name = format!("{host}:{port}");
    let addrs = lookup_name(resolver, host, port).await?;
    race(home, name, interleave(addrs), delay).await
}

/// Connects to the first of `addrs` that answers. The next attempt starts after `delay`, or at once
/// when one has failed. `name` is what the addresses belong to, for the error; it may be empty.
async fn race(
    home: Rc<Driver>,
    name: String,
    addrs: VecDeque<SocketAddr>,
    delay: Duration,
) -> io::Result<TcpStream> {
    let fd = Race::new(home.clone(), name, addrs, delay).await?;
    Ok(TcpStream::new(fd, home))
}

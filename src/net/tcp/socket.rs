//! `TcpSocket`: options of a socket that must be set before it listens or connects. Those of a
//! connected socket are in `options.rs`. Read next: `stream.rs`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::connect::Connect;
use super::establish::connect_error;
use super::listener::TcpListener;
use super::options::{self, Lingering, TcpKeepalive, TcpOptions};
use super::stream::TcpStream;
use crate::context;
use crate::driver::Driver;
use crate::io::CallError;
use crate::net::addr::ToSocketAddrs;
use crate::net::option::{is_v6, set_option};
use crate::sys::{self, IntOption, addr::SockAddr};

/// How many connections wait to be accepted, unless [`TcpSocket::backlog`] says otherwise.
pub(super) const BACKLOG: u32 = 1024;

/// A TCP socket that does not listen or connect yet: the place for options.
///
/// # Examples
/// ```
/// use tamam::net::{TcpSocket, TcpStream};
///
/// tamam::run(async {
///     let listener = TcpSocket::new_v4()?
///         .reuse_port(true)
///         .nodelay(true)               // accepted connections inherit it
///         .backlog(4096)
///         .listen("127.0.0.1:0")?;
///     let client = TcpStream::connect(listener.local_addr()?).await?;
///     let (server, peer) = listener.accept().await?;
///     assert!(server.nodelay()?);
///     assert_eq!(client.local_addr()?, peer);
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use]
pub struct TcpSocket {
    fd: OwnedFd,
    home: Rc<Driver>,
    backlog: u32,
    /// The first option that could not be set; `bind`, `listen` and `connect` report it.
    error: Option<io::Error>,
    is_bound: bool,
    lingering: Lingering,
}

impl TcpSocket {
    /// A socket for IPv4.
    ///
    /// # Errors
    /// Those of socket(2), such as EMFILE; `Other` outside a runtime.
    /// # Examples
    /// ```
    /// use tamam::net::TcpSocket;
    ///
    /// # tamam::run(async {
    /// let listener = TcpSocket::new_v4()?.reuse_addr(true).listen("127.0.0.1:0")?;
    /// assert!(listener.local_addr()?.is_ipv4());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new_v4() -> io::Result<TcpSocket> {
        TcpSocket::new(false)
    }

    /// A socket for IPv6. Listening at `::` it takes IPv4 connections too, whose peers are then
    /// `::ffff:a.b.c.d`, unless [`only_v6`](Self::only_v6) or the sysctl `net.ipv6.bindv6only` says
    /// no.
    ///
    /// # Errors
    /// Those of socket(2), such as EMFILE; `Other` outside a runtime.
    /// # Examples
    /// One socket for each family, at the same port:
    /// ```no_run
    /// use tamam::net::TcpSocket;
    ///
    /// # tamam::run(async {
    /// let v6 = TcpSocket::new_v6()?.only_v6(true).listen("[::]:8080")?;
    /// let v4 = TcpSocket::new_v4()?.listen("0.0.0.0:8080")?;
    /// assert_eq!(v6.local_addr()?.port(), v4.local_addr()?.port());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn new_v6() -> io::Result<TcpSocket> {
        TcpSocket::new(true)
    }

    fn new(v6: bool) -> io::Result<TcpSocket> {
        let home = context::try_current()?.driver.clone();
        let socket = sys::tcp_socket(v6).inspect_err(|error| home.note_failure(error));
        let family = if v6 { "for IPv6" } else { "for IPv4" };
        let fd = socket.map_err(|error| CallError::wrap("socket", family, error))?;
        let (error, is_bound, lingering) = (None, false, Lingering::Off);
        Ok(TcpSocket { fd, home, backlog: BACKLOG, error, is_bound, lingering })
    }

    /// A socket for the family of `addr`.
    pub(super) fn for_addr(addr: SocketAddr) -> io::Result<TcpSocket> {
        TcpSocket::new(addr.is_ipv6())
    }

    /// Keeps the first error of an option for `check`.
    fn note(mut self, set: io::Result<()>) -> TcpSocket {
        if let Err(error) = set {
            self.error.get_or_insert(error);
        }
        self
    }

    fn set(self, option: IntOption, value: i32) -> TcpSocket {
        let set = set_option(self.fd.as_fd(), option, value);
        self.note(set)
    }

    /// The first error of an option, once.
    fn check(&mut self) -> io::Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// SO_REUSEADDR: bind although old connections to the address linger. [`TcpListener::bind`]
    /// sets it; here it is off at first.
    pub fn reuse_addr(self, on: bool) -> TcpSocket {
        self.set(IntOption::ReuseAddr, on.into())
    }

    /// IPV6_V6ONLY: an IPv6 socket at `::` leaves IPv4 to another socket, which may have the same
    /// port. What the system says (ipv6(7)) unless set; an error on an IPv4 socket.
    pub fn only_v6(self, on: bool) -> TcpSocket {
        self.set(IntOption::OnlyV6, on.into())
    }

    /// SO_REUSEPORT: several sockets listen at one address, and the kernel spreads connections
    /// over them.
    pub fn reuse_port(self, on: bool) -> TcpSocket {
        self.set(IntOption::ReusePort, on.into())
    }

    /// SO_RCVBUF in bytes; the kernel doubles it for its own use (socket(7)).
    pub fn recv_buffer_size(self, bytes: u32) -> TcpSocket {
        self.set(IntOption::ReceiveBuffer, i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// SO_SNDBUF in bytes; the kernel doubles it for its own use (socket(7)).
    pub fn send_buffer_size(self, bytes: u32) -> TcpSocket {
        self.set(IntOption::SendBuffer, i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// TCP_NODELAY: small sends do not wait for one another. Connections accepted from a listener
    /// inherit it, which saves a system call for each.
    pub fn nodelay(self, on: bool) -> TcpSocket {
        self.set(IntOption::NoDelay, on.into())
    }

    /// SO_KEEPALIVE and its times. Accepted connections inherit them.
    pub fn keepalive(self, keepalive: TcpKeepalive) -> TcpSocket {
        let set = keepalive.apply(self.fd.as_fd());
        self.note(set)
    }

    /// What the drop of the stream does (SO_LINGER): with `None` what was sent is delivered, with
    /// zero the connection is reset. Accepted connections inherit it. A time above zero is an
    /// error, since close(2) would block the thread for so long:
    /// [`TcpStream::set_linger`](TcpStream::set_linger).
    pub fn linger(mut self, time: Option<Duration>) -> TcpSocket {
        let set = Lingering::of(time).and_then(|lingering| {
            self.lingering = lingering;
            lingering.apply(self.fd.as_fd())
        });
        self.note(set)
    }

    /// How many hops a packet may make, 1 to 255 (IP_TTL; IPV6_UNICAST_HOPS). Accepted connections
    /// inherit it.
    pub fn ttl(self, hops: u32) -> TcpSocket {
        let set = options::set_ttl(self.fd.as_fd(), hops);
        self.note(set)
    }

    /// The class of service of the packets (IP_TOS; IPV6_TCLASS), whose two lower bits belong to
    /// TCP. Accepted connections inherit it.
    pub fn tos(self, tos: u8) -> TcpSocket {
        let set = options::set_tos(self.fd.as_fd(), tos);
        self.note(set)
    }

    /// How many connections wait in the kernel to be accepted: 1024 unless set; the kernel cuts
    /// it to `net.core.somaxconn`.
    pub fn backlog(mut self, connections: u32) -> TcpSocket {
        self.backlog = connections;
        self
    }

    /// What its options are now.
    ///
    /// # Errors
    /// Those of getsockopt(2). That an option could not be set, `bind`, `listen` and `connect` say.
    /// # Examples
    /// ```
    /// use tamam::net::TcpSocket;
    ///
    /// # tamam::run(async {
    /// let socket = TcpSocket::new_v6()?.only_v6(true).nodelay(true).tos(0x20);
    /// let options = socket.options()?;
    /// assert_eq!((options.only_v6, options.nodelay, options.tos), (Some(true), true, 0x20));
    /// assert_eq!((options.keepalive, options.backlog), (None, 1024));
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn options(&self) -> io::Result<TcpOptions> {
        TcpOptions::of(self.fd.as_fd(), self.backlog)
    }

    /// bind(2): the local address to connect from. ([`listen`](Self::listen) binds by itself.)
    ///
    /// Of several addresses, the first is taken that is of the socket's family and can be bound.
    ///
    /// # Errors
    /// Those of bind(2) for the last address, and of an option set before. `InvalidInput` if the
    /// socket is bound already, if no address is of its family, or if `addr` is not an address: a
    /// host name has to be looked up first, with [`lookup_host`](crate::net::lookup_host).
    /// # Examples
    /// ```
    /// use tamam::net::{TcpListener, TcpSocket};
    ///
    /// # tamam::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let socket = TcpSocket::new_v4()?.bind("127.0.0.2:0")?;
    /// let stream = socket.connect(listener.local_addr()?).await?;
    /// assert_eq!(stream.local_addr()?.ip().to_string(), "127.0.0.2");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind(mut self, addr: impl ToSocketAddrs) -> io::Result<TcpSocket> {
        self.check()?;
        self.bind_first(&addr.resolve()?).map(|_| self)
    }

    /// Binds to the first of `addrs` that is of the socket's family and can be bound, and gives it.
    fn bind_first(&mut self, addrs: &[SocketAddr]) -> io::Result<SocketAddr> {
        if self.is_bound {
            let text =
                "the socket is bound already (`listen` takes the address and binds by itself)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let is_v6 = is_v6(self.fd.as_fd())?;
        let mut failed = None;
        for addr in addrs.iter().filter(|addr| addr.is_ipv6() == is_v6) {
            match sys::bind(self.fd.as_fd(), &SockAddr::new(*addr)) {
                Ok(()) => {
                    self.is_bound = true;
                    return Ok(*addr);
                }
                Err(error) => failed = Some(CallError::wrap("bind", addr, error)),
            }
        }
        Err(failed.unwrap_or_else(|| {
            let family = if is_v6 { "IPv6" } else { "IPv4" };
            let text = format!("the socket is for {family}, and so is no address given");
            let given: Vec<String> = addrs.iter().map(SocketAddr::to_string).collect();
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            CallError::wrap("bind", given.join(", "), error)
        }))
    }

    /// Binds to `addr` and listens. Of several addresses, the first is taken that is of the
    /// socket's family and can be bound.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and those of listen(2).
    /// # Examples
    /// Two listeners at one address, as for a runtime on each of two threads:
    /// ```
    /// use tamam::net::TcpSocket;
    ///
    /// # tamam::run(async {
    /// let first = TcpSocket::new_v4()?.reuse_port(true).listen("127.0.0.1:0")?;
    /// let second = TcpSocket::new_v4()?.reuse_port(true).listen(first.local_addr()?)?;
    /// assert_eq!(first.local_addr()?, second.local_addr()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn listen(mut self, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        self.check()?;
        let bound = self.bind_first(&addr.resolve()?)?;
        sys::listen(self.fd.as_fd(), i32::try_from(self.backlog).unwrap_or(i32::MAX))
            .map_err(|error| CallError::wrap("listen", bound, error))?;
        Ok(TcpListener::new(self.fd, self.home, self.lingering))
    }

    /// Connects to `addr`.
    ///
    /// # Errors
    /// Those of connect(2), and of an option set before.
    /// # Cancel safety
    /// Dropped, the attempt ends and the socket is closed.
    /// # Kernel
    /// 5.5, `IORING_OP_CONNECT`. See connect(2).
    /// # Examples
    /// ```
    /// use tamam::net::{TcpListener, TcpSocket};
    ///
    /// # tamam::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let socket = TcpSocket::new_v4()?.nodelay(true).recv_buffer_size(64 * 1024);
    /// let stream = socket.connect(listener.local_addr()?).await?;
    /// assert!(stream.nodelay()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn connect(mut self, addr: SocketAddr) -> io::Result<TcpStream> {
        if let Err(error) = self.check() {
            context::ready_at_once().await;
            return Err(error);
        }
        match Connect::new(self.fd, self.home.clone(), addr).await {
            Ok(fd) => TcpStream::with_lingering(fd, self.home, self.lingering),
            Err(error) => Err(connect_error(addr, error)),
        }
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// Those of getsockname(2).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// let socket = tamam::net::TcpSocket::new_v4()?.bind("127.0.0.1:0")?;
    /// assert_ne!(socket.local_addr()?.port(), 0);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.fd.as_fd())
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for TcpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpSocket").field("fd", &self.fd).field("backlog", &self.backlog).finish()
    }
}

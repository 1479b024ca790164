//! `TcpSocket`: options of a socket that must be set before it listens or connects. Options of a
//! connected socket are not here. Read next: `stream.rs`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::connect::Connect;
use super::establish::connect_error;
use super::listener::TcpListener;
use super::stream::TcpStream;
use crate::context;
use crate::driver::Driver;
use crate::io::CallError;
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
///         .listen("127.0.0.1:0".parse().expect("an address"))?;
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
}

/// When and how often an idle connection is probed; tcp(7). A field that is `None` keeps the
/// system's value.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tamam::net::TcpKeepalive;
///
/// let keepalive = TcpKeepalive { idle: Some(Duration::from_secs(60)), ..TcpKeepalive::default() };
/// assert_eq!(keepalive.probes, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Idle time before the first probe (TCP_KEEPIDLE), in whole seconds, rounded up.
    pub idle: Option<Duration>,
    /// Time between probes (TCP_KEEPINTVL), in whole seconds, rounded up.
    pub interval: Option<Duration>,
    /// How many probes go unanswered before the connection is dropped (TCP_KEEPCNT).
    pub probes: Option<u32>,
}

/// setsockopt(2). The error names the option.
pub(super) fn set_option(fd: BorrowedFd<'_>, option: IntOption, value: i32) -> io::Result<()> {
    let set = sys::set(fd, option, value);
    set.map_err(|error| CallError::wrap("setsockopt", format_args!("{option} {value}"), error))
}

impl TcpKeepalive {
    /// Sets SO_KEEPALIVE, and the times that are given. After an error, the options before it are
    /// set.
    pub(super) fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let seconds = |time: Duration| {
            let part = u64::from(time.subsec_nanos() > 0);
            i32::try_from(time.as_secs().saturating_add(part)).unwrap_or(i32::MAX)
        };
        set_option(fd, IntOption::KeepAlive, 1)?;
        if let Some(idle) = self.idle {
            set_option(fd, IntOption::KeepIdle, seconds(idle))?;
        }
        if let Some(interval) = self.interval {
            set_option(fd, IntOption::KeepInterval, seconds(interval))?;
        }
        if let Some(probes) = self.probes {
            set_option(fd, IntOption::KeepCount, i32::try_from(probes).unwrap_or(i32::MAX))?;
        }
        Ok(())
    }
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
    /// let addr = "127.0.0.1:0".parse().expect("an address");
    /// let listener = TcpSocket::new_v4()?.reuse_addr(true).listen(addr)?;
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
    /// let (any_v6, any_v4) = ("[::]:8080", "0.0.0.0:8080");
    /// let v6 = TcpSocket::new_v6()?.only_v6(true).listen(any_v6.parse().expect("an address"))?;
    /// let v4 = TcpSocket::new_v4()?.listen(any_v4.parse().expect("an address"))?;
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
        let socket = sys::tcp_socket(v6);
        let family = if v6 { "for IPv6" } else { "for IPv4" };
        let fd = socket.map_err(|error| CallError::wrap("socket", family, error))?;
        Ok(TcpSocket { fd, home, backlog: BACKLOG, error: None, is_bound: false })
    }

    /// A socket for the family of `addr`.
    pub(super) fn for_addr(addr: SocketAddr) -> io::Result<TcpSocket> {
        TcpSocket::new(addr.is_ipv6())
    }

    /// Sets an option. The first error is kept for `check`.
    fn set(mut self, option: IntOption, value: i32) -> TcpSocket {
        if let Err(error) = set_option(self.fd.as_fd(), option, value) {
            self.error.get_or_insert(error);
        }
        self
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
    pub fn keepalive(mut self, keepalive: TcpKeepalive) -> TcpSocket {
        if let Err(error) = keepalive.apply(self.fd.as_fd()) {
            self.error.get_or_insert(error);
        }
        self
    }

    /// How many connections wait in the kernel to be accepted: 1024 unless set; the kernel cuts
    /// it to `net.core.somaxconn`.
    pub fn backlog(mut self, connections: u32) -> TcpSocket {
        self.backlog = connections;
        self
    }

    /// bind(2): the local address to connect from. ([`listen`](Self::listen) binds by itself.)
    ///
    /// # Errors
    /// Those of bind(2), and of an option set before; `InvalidInput` if it is bound already.
    /// # Examples
    /// ```
    /// use std::net::SocketAddr;
    /// use tamam::net::{TcpListener, TcpSocket};
    ///
    /// # tamam::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let source = SocketAddr::from(([127, 0, 0, 2], 0));
    /// let stream = TcpSocket::new_v4()?.bind(source)?.connect(listener.local_addr()?).await?;
    /// assert_eq!(stream.local_addr()?.ip(), source.ip());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind(mut self, addr: SocketAddr) -> io::Result<TcpSocket> {
        self.check()?;
        if self.is_bound {
            let text =
                "the socket is bound already (`listen` takes the address and binds by itself)";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        sys::bind(self.fd.as_fd(), &SockAddr::new(addr))
            .map_err(|error| CallError::wrap("bind", addr, error))?;
        self.is_bound = true;
        Ok(self)
    }

    /// Binds to `addr` and listens.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2), and of an option set before; `InvalidInput` if it is bound
    /// already.
    /// # Examples
    /// Two listeners at one address, as for a runtime on each of two threads:
    /// ```
    /// use tamam::net::TcpSocket;
    ///
    /// # tamam::run(async {
    /// let addr = "127.0.0.1:0".parse().expect("an address");
    /// let first = TcpSocket::new_v4()?.reuse_port(true).listen(addr)?;
    /// let second = TcpSocket::new_v4()?.reuse_port(true).listen(first.local_addr()?)?;
    /// assert_eq!(first.local_addr()?, second.local_addr()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn listen(self, addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.bind(addr)?;
        sys::listen(socket.fd.as_fd(), i32::try_from(socket.backlog).unwrap_or(i32::MAX))
            .map_err(|error| CallError::wrap("listen", addr, error))?;
        Ok(TcpListener::new(socket.fd, socket.home))
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
            Ok(fd) => Ok(TcpStream::new(fd, self.home)),
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
    /// let addr = "127.0.0.1:0".parse().expect("an address");
    /// let socket = tamam::net::TcpSocket::new_v4()?.bind(addr)?;
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

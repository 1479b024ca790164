//! `TcpListener`, a handle over a listener. What is in flight is not here, but in
//! `stream/accept.rs`: read that next.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::socket::TcpSocket;
use super::stream::TcpStream;
use crate::context;
use crate::driver::Driver;
use crate::net::addr::ToSocketAddrs;
use crate::stream::Listener;
use crate::sys;

/// A TCP socket that accepts connections.
///
/// The listener owns its accept and parks what arrives, so a dropped or even a forgotten
/// [`accept`](Self::accept) loses no connection. Any number of tasks may accept from one listener.
/// A listener that is accepted from in a loop takes connections ahead of the calls: until 64 wait,
/// and beyond these what came with the same system call, at most the backlog of listen(2). They are
/// reset if the listener is dropped. To limit how many clients there are, accept and refuse.
///
/// # Examples
/// ```
/// use tamam::net::{TcpListener, TcpStream};
///
/// tamam::run(async {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let client = TcpStream::connect(listener.local_addr()?).await?;
///     let (_server, peer) = listener.accept().await?;
///     assert_eq!(peer, client.local_addr()?);
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener {
    inner: Option<Rc<Listener>>,
}

impl TcpListener {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> TcpListener {
        TcpListener { inner: Some(Listener::new(fd, home)) }
    }

    fn inner(&self) -> &Rc<Listener> {
        self.inner.as_ref().expect("taken by `into_std` only, which consumes the listener")
    }

    /// Listens at `addr`, with SO_REUSEADDR and a backlog of 1024 connections. Of several addresses
    /// the first that can be bound is taken. Port 0 lets the kernel choose. At `[::]` IPv4 clients
    /// are served too, where the system does not say otherwise (ipv6(7)).
    ///
    /// # Errors
    /// Those of bind(2) and listen(2) for the last address, such as `AddrInUse`. That comes also
    /// for some milliseconds after a process that listened with io_uring was killed; clients that
    /// connect in that time are reset. A program that starts again at once must try again.
    /// `InvalidInput` if `addr` is no address, or is a host name
    /// ([`lookup_host`](crate::net::lookup_host) looks it up); `Other` outside a runtime.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        for addr in addr.resolve()? {
            match TcpSocket::for_addr(addr).and_then(|socket| socket.reuse_addr(true).listen(addr))
            {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is at least one address"))
    }

    /// Takes over a listening socket, with the connections that wait in it. It is made
    /// non-blocking, also for others that share it.
    ///
    /// # Errors
    /// `Other` outside a runtime; those of fcntl(2).
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        let home = context::try_current()?.driver.clone();
        sys::set_nonblocking(listener.as_fd())?;
        Ok(TcpListener::new(OwnedFd::from(listener), home))
    }

    /// Gives the socket back, and with it the connections that were accepted and not taken.
    ///
    /// # Errors
    /// `Other`, and the socket closed, if the runtime's ring has failed.
    pub fn into_std(
        mut self,
    ) -> io::Result<(std::net::TcpListener, Vec<(std::net::TcpStream, SocketAddr)>)> {
        let inner = self.inner.take().expect("`into_std` consumes the listener");
        let (fd, accepted) = inner.into_parts()?;
        let accepted = accepted
            .into_iter()
            .map(|fd| sys::peer_addr(fd.as_fd()).map(|peer| (fd.into(), peer)))
            .collect::<io::Result<_>>()?;
        Ok((fd.into(), accepted))
    }

    /// Waits for the next connection; gives it with the peer's address, in order of arrival.
    ///
    /// # Errors
    /// When descriptors or memory run out (EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM) one caller
    /// gets the error, and the listener pauses: 10 ms, then 20, 40, 80, 100 ms, ended at once when
    /// this runtime closes a descriptor. So a loop logs the error and goes on; it never spins, and
    /// the connection waits in the backlog. Errors of single connections (ECONNABORTED and the
    /// like) are not shown. `InvalidInput` if the socket was shut down.
    /// # Cancel safety
    /// Cancel safe: a connection that arrives for a dropped or forgotten `accept` is parked, and
    /// the next call gets it.
    /// # Kernel
    /// 5.19, `IORING_OP_ACCEPT` with `IORING_ACCEPT_MULTISHOT`. See accept(2).
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let fd = self.inner().accept().await?;
        let peer = sys::peer_addr(fd.as_fd())?;
        Ok((TcpStream::new(fd, self.inner().home().clone()), peer))
    }

    /// The address it listens at.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.as_fd())
    }
}

impl Drop for TcpListener {
    /// Stops listening now: the address is free for the next `bind` at once. Connections that no
    /// call took are reset, as the kernel resets those in its backlog.
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.close();
        }
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner().fd()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener")
            .field("local_addr", &self.local_addr().ok())
            .field("parked", &self.inner().accepted_len())
            .finish_non_exhaustive()
    }
}

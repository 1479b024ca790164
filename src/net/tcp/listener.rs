//! `TcpListener`, a handle over a listener. What is in flight is not here, but in
//! `stream/accept.rs`: read that next.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::incoming::Incoming;
use super::options::Lingering;
use super::socket::TcpSocket;
use super::stream::TcpStream;
use crate::context;
use crate::driver::{Driver, Medium};
use crate::net::addr::{ToSocketAddrs, first_of};
use crate::stream::Listener;
use crate::sys;

/// A TCP socket that accepts connections.
///
/// The listener owns its accept and parks what arrives, so a dropped or even a forgotten
/// [`accept`](Self::accept) loses no connection. Any number of tasks may accept from one listener.
///
/// A listener that is accepted from in a loop accepts ahead of the calls, until 64 connections
/// wait. It may hold more if one system call brings more, at most the backlog of listen(2).
/// Dropping the listener resets the connections that wait. To limit the number of clients, accept a
/// connection and drop it.
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
    /// What its connections inherit.
    lingering: Lingering,
}

impl TcpListener {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>, lingering: Lingering) -> TcpListener {
        TcpListener { inner: Some(Listener::new(fd, home, Medium::Tcp)), lingering }
    }

    pub(super) fn inner(&self) -> &Rc<Listener> {
        self.inner.as_ref().expect("taken by `into_std` only, which consumes the listener")
    }

    /// Listens at `addr`, with SO_REUSEADDR and a backlog of 1024 connections. Of several addresses
    /// the first that can be bound is taken. Port 0 lets the kernel choose. At `[::]` IPv4 clients
    /// are served too, where the system does not say otherwise (ipv6(7)).
    ///
    /// # Errors
    /// Those of bind(2) and listen(2) for the last address, such as `AddrInUse`. `InvalidInput` if
    /// `addr` is not an address: a host name has to be looked up first, with
    /// [`lookup_host`](crate::net::lookup_host). `Other` outside a runtime.
    ///
    /// When a process that listens with io_uring is killed, its port stays in use for some
    /// milliseconds, and clients that connect in this time are reset. A service that is restarted
    /// at once should retry on `AddrInUse`.
    /// # Examples
    /// ```
    /// use std::io::ErrorKind;
    /// use tamam::net::TcpListener;
    ///
    /// # tamam::run(async {
    /// let first = TcpListener::bind("127.0.0.1:0")?;
    /// let taken = first.local_addr()?;
    /// assert_eq!(TcpListener::bind(taken).unwrap_err().kind(), ErrorKind::AddrInUse);
    ///
    /// // Of several addresses, the first that can be bound:
    /// let free = "127.0.0.1:0".parse().expect("an address");
    /// let second = TcpListener::bind([taken, free])?;
    /// assert_ne!(second.local_addr()?, taken);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        first_of(addr.resolve()?, |addr| TcpSocket::for_addr(addr)?.reuse_addr(true).listen(addr))
    }

    /// Takes over a listening socket, with the connections that wait in it. The socket becomes
    /// non-blocking, and so do duplicates of its descriptor. A linger time above zero is switched
    /// off, see [`TcpStream::set_linger`]. `TryFrom` does the same.
    ///
    /// # Errors
    /// `Other` outside a runtime; those of fcntl(2) and setsockopt(2).
    /// # Examples
    /// A socket that a supervisor has bound, with a client that came early:
    /// ```
    /// use tamam::net::TcpListener;
    ///
    /// # tamam::run(async {
    /// let inherited = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let client = std::net::TcpStream::connect(inherited.local_addr()?)?;
    ///
    /// let listener = TcpListener::from_std(inherited)?;
    /// let (_stream, peer) = listener.accept().await?;
    /// assert_eq!(peer, client.local_addr()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        let home = context::try_current()?.driver.clone();
        sys::set_nonblocking(listener.as_fd())?;
        let lingering = Lingering::of_foreign(listener.as_fd())?;
        Ok(TcpListener::new(OwnedFd::from(listener), home, lingering))
    }

    /// Gives the socket back, and with it the connections that were accepted and not taken.
    ///
    /// # Errors
    /// `Other`, and the socket closed, if the runtime's ring has failed.
    /// # Examples
    /// ```
    /// use tamam::net::{TcpListener, TcpStream};
    ///
    /// # tamam::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    ///
    /// // The client is among the accepted connections, or still in the socket's backlog.
    /// let (listener, accepted) = listener.into_std()?;
    /// let (_stream, peer) = accepted.into_iter().next().map_or_else(|| listener.accept(), Ok)?;
    /// assert_eq!(peer, client.local_addr()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
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
    /// When descriptors or memory run out (EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM), one caller gets
    /// the error, and the listener pauses: 10 ms, then 20, 40, 80, 100 ms. The pause ends early
    /// when this runtime closes a descriptor. So a loop can log the error and go on: it does not
    /// spin, and the connection waits in the backlog. Errors of single connections (ECONNABORTED
    /// and the like) are not shown. `InvalidInput` if the socket was shut down.
    /// # Cancel safety
    /// Cancel safe: a connection that arrives for a dropped or forgotten `accept` is parked, and
    /// the next call gets it.
    /// # Kernel
    /// 5.19, `IORING_OP_ACCEPT` with `IORING_ACCEPT_MULTISHOT`. See accept(2).
    /// # Examples
    /// A dropped `accept` loses no connection:
    /// ```
    /// use std::time::Duration;
    /// use tamam::net::{TcpListener, TcpStream};
    /// use tamam::time::timeout;
    ///
    /// # tamam::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// assert!(timeout(Duration::from_millis(1), listener.accept()).await.is_err());
    ///
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// let (_stream, peer) = listener.accept().await?;
    /// assert_eq!(peer, client.local_addr()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    /// A loop that goes on when descriptors run out:
    /// ```
    /// use tamam::net::{TcpListener, TcpStream};
    ///
    /// async fn serve(listener: TcpListener) {
    ///     loop {
    ///         match listener.accept().await {
    ///             Ok((stream, _peer)) => drop(tamam::spawn(greet(stream))),
    ///             Err(error) => eprintln!("accept: {error}"), // the next call pauses by itself
    ///         }
    ///     }
    /// }
    ///
    /// async fn greet(stream: TcpStream) -> std::io::Result<()> {
    ///     stream.send_all("hello").await?;
    ///     Ok(())
    /// }
    /// # tamam::run(async {
    /// #     let listener = TcpListener::bind("127.0.0.1:0")?;
    /// #     let addr = listener.local_addr()?;
    /// #     tamam::spawn(serve(listener));
    /// #     let stream = TcpStream::connect(addr).await?;
    /// #     assert_eq!(stream.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
    /// #     std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let fd = self.inner().accept().await?;
        self.connected(fd)
    }

    /// The stream of an accepted connection, and its peer's address.
    pub(super) fn connected(&self, fd: OwnedFd) -> io::Result<(TcpStream, SocketAddr)> {
        let peer = sys::peer_addr(fd.as_fd())?;
        let home = self.inner().home().clone();
        Ok((TcpStream::with_lingering(fd, home, self.lingering)?, peer))
    }

    /// The connections as they come, one after the other: as a [`Stream`](futures_core::Stream), or
    /// by [`Incoming::next`]. They are those of [`accept`](Self::accept), which may be called
    /// beside it.
    ///
    /// # Examples
    /// ```
    /// use futures_util::StreamExt;
    /// use tamam::net::{TcpListener, TcpStream};
    ///
    /// # tamam::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let addr = listener.local_addr()?;
    /// let _clients = [TcpStream::connect(addr).await?, TcpStream::connect(addr).await?];
    /// let first_two: Vec<_> = listener.incoming().take(2).collect().await;
    /// assert!(first_two.iter().all(Result::is_ok));
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming::new(self)
    }

    /// The address it listens at.
    ///
    /// # Errors
    /// Those of getsockname(2).
    /// # Examples
    /// The port that the kernel chose:
    /// ```
    /// # tamam::run(async {
    /// let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// assert_ne!(listener.local_addr()?.port(), 0);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
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

impl TryFrom<std::net::TcpListener> for TcpListener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<TcpListener> {
        TcpListener::from_std(listener)
    }
}

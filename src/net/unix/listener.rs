//! `UnixListener`, a handle over a listener. What is in flight is not here, but in
//! `stream/accept.rs`: read that next.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;
use std::rc::Rc;

use super::stream::UnixStream;
use super::{addr_of, shown};
use crate::context;
use crate::driver::{Driver, Medium};
use crate::io::CallError;
use crate::stream::Listener;
use crate::sys::{self, addr::SockAddr};

/// How many connections wait to be accepted.
const BACKLOG: i32 = 1024;

/// A Unix socket that accepts connections.
///
/// It accepts as a [`TcpListener`](crate::net::TcpListener) does: a dropped or even a forgotten
/// [`accept`](Self::accept) loses no connection, and any number of tasks may accept from one
/// listener. Dropping it ends the connections that wait. The file of its path stays, as with std; see
/// [`UnlinkOnDrop`](crate::net::UnlinkOnDrop).
///
/// # Examples
/// ```
/// use tamam::net::{UnixListener, UnixStream, UnlinkOnDrop};
///
/// tamam::run(async {
///     let path = std::env::temp_dir().join(format!("tamam-doc-listen-{}", std::process::id()));
///     let listener = UnixListener::bind(&path)?;
///     let _unlink = UnlinkOnDrop::new(&path)?;
///     let client = UnixStream::connect(&path).await?;
///     let (server, _) = listener.accept().await?;
///     server.send_all("welcome").await?;
///     assert_eq!(&client.recv().await?.expect("a message")[..], b"welcome");
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixListener {
    inner: Option<Rc<Listener>>,
}

impl UnixListener {
    fn new(fd: OwnedFd, home: Rc<Driver>) -> UnixListener {
        UnixListener { inner: Some(Listener::new(fd, home, Medium::Unix)) }
    }

    fn inner(&self) -> &Rc<Listener> {
        self.inner.as_ref().expect("taken by `into_std` only, which consumes the listener")
    }

    /// Makes a socket file at `path`, and listens with a backlog of 1024 connections.
    ///
    /// # Errors
    /// Those of bind(2), such as `AddrInUse` if there is a file, which is not touched, and
    /// `NotFound` if there is no such folder. `InvalidInput` if the path has 108 bytes or more, or a
    /// zero byte; `Other` outside a runtime. The text has the path.
    ///
    /// On io_uring the kernel closes the socket of a killed process some milliseconds after it is gone:
    /// in that time a successor gets `AddrInUse`, connects to it succeed and end in a reset, and it tries
    /// again.
    /// # Examples
    /// A file that a service has left behind:
    /// ```
    /// use std::io::ErrorKind;
    /// use tamam::net::{UnixListener, UnixStream};
    ///
    /// # tamam::run(async {
    /// let path = std::env::temp_dir().join(format!("tamam-doc-bind-{}", std::process::id()));
    /// drop(UnixListener::bind(&path)?);
    /// assert_eq!(UnixListener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    ///
    /// let listener = match UnixStream::connect(&path).await {
    ///     Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
    ///         std::fs::remove_file(&path)?; // nobody listens there
    ///         UnixListener::bind(&path)?
    ///     }
    ///     _ => panic!("another one serves"),
    /// };
    /// # drop(listener);
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&addr_of("bind", path.as_ref())?)
    }

    /// Listens at an address: a path, an abstract name, or, unnamed, an abstract name that the kernel
    /// chooses.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    /// # Examples
    /// See [`UnixStream::connect_addr`].
    pub fn bind_addr(addr: &UnixAddr) -> io::Result<UnixListener> {
        let home = context::try_current()?.driver.clone();
        let failed = |call, error| CallError::wrap(call, shown(addr), error);
        let fd = sys::unix_socket().inspect_err(|error| home.note_failure(error));
        let fd = fd.map_err(|error| failed("socket for", error))?;
        sys::bind(fd.as_fd(), &SockAddr::unix(addr)).map_err(|error| failed("bind", error))?;
        sys::listen(fd.as_fd(), BACKLOG).map_err(|error| failed("listen", error))?;
        Ok(UnixListener::new(fd, home))
    }

    /// Takes over a listening socket, with the connections that wait in it. The socket becomes
    /// non-blocking, and so do duplicates of its descriptor.
    ///
    /// # Errors
    /// `Other` outside a runtime; those of fcntl(2).
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
        let home = context::try_current()?.driver.clone();
        sys::set_nonblocking(listener.as_fd())?;
        Ok(UnixListener::new(OwnedFd::from(listener), home))
    }

    /// Gives the socket back, and with it the connections that were accepted and not taken.
    ///
    /// # Errors
    /// `Other`, and the socket closed, if the runtime's ring has failed.
    pub fn into_std(
        mut self,
    ) -> io::Result<(std::os::unix::net::UnixListener, Vec<std::os::unix::net::UnixStream>)> {
        let inner = self.inner.take().expect("`into_std` consumes the listener");
        let (fd, accepted) = inner.into_parts()?;
        Ok((fd.into(), accepted.into_iter().map(Into::into).collect()))
    }

    /// Waits for the next connection; gives it with the peer's address, which is unnamed unless the
    /// peer has bound its socket.
    ///
    /// # Errors
    /// As [`TcpListener::accept`](crate::net::TcpListener::accept).
    /// # Cancel safety
    /// Cancel safe: a connection that arrives for a dropped or forgotten `accept` is parked, and
    /// the next call gets it.
    /// # Kernel
    /// 5.19, `IORING_OP_ACCEPT` with `IORING_ACCEPT_MULTISHOT`. See accept(2).
    /// # Examples
    /// See [`UnixListener`].
    pub async fn accept(&self) -> io::Result<(UnixStream, UnixAddr)> {
        let fd = self.inner().accept().await?;
        let peer = sys::unix_peer_addr(fd.as_fd())?;
        Ok((UnixStream::new(fd, self.inner().home().clone()), peer))
    }

    /// The address it listens at.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<UnixAddr> {
        sys::unix_local_addr(self.as_fd())
    }
}

impl Drop for UnixListener {
    /// Stops listening now. Connections that no call took are ended, as the kernel ends those in its
    /// backlog. The file stays.
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.close();
        }
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner().fd()
    }
}

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixListener")
            .field("local_addr", &self.local_addr().ok())
            .field("parked", &self.inner().accepted_len())
            .finish_non_exhaustive()
    }
}

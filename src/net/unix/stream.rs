//! `UnixStream`, a handle over a connection. What is in flight is not here, but in `stream/`. Read
//! next: `stream/mod.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::{addr_of, shown};
use crate::context;
use crate::driver::{Driver, Medium};
use crate::io::{CallError, receives, transmits};
use crate::net::IntoStdError;
use crate::stream::{Connection, receiving_calls, sending_calls};
use crate::sys::{self, addr::SockAddr};
use crate::time::sleep;

/// The first and the longest pause before another connect, when the backlog is full. Each pause is
/// twice as long as the one before.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A connection between two processes of this machine; unix(7).
///
/// All methods take `&self`: receive and send at once without splitting, from any number of tasks.
/// Each received byte goes to one of them, each sent buffer goes out whole. What dropping a future
/// or the stream means is as for [`TcpStream`](crate::net::TcpStream); the contract names the
/// differences ([`docs::semantics`](crate::docs::semantics), UX rows).
///
/// # Examples
/// ```
/// use tamam::net::UnixStream;
///
/// tamam::run(async {
///     let (client, server) = UnixStream::pair()?;
///     client.send_all("tamam").await?;
///     let chunk = server.recv().await?.expect("a message");
///     server.send_all(chunk).await?;
///     assert_eq!(client.read_exact(Vec::with_capacity(5), 5).await?, b"tamam");
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixStream {
    pub(super) connection: Rc<Connection>,
}

/// Who is at the other end of a Unix socket: [`UnixStream::peer_cred`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixCred {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The process. 0: it is in another namespace of processes, or gone from it.
    pub pid: i32,
}

impl UnixStream {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> UnixStream {
        UnixStream { connection: Connection::new(fd, home, Medium::Unix) }
    }

    /// Connects to the listener at `path`.
    ///
    /// While the listener's backlog is full, it tries again after 1, 2, 4 and at most 50 ms: the
    /// kernel has no event for it.
    ///
    /// # Errors
    /// Those of connect(2), such as `NotFound`, `ConnectionRefused` (nobody listens) and
    /// `PermissionDenied`; `InvalidInput` if the path has 108 bytes or more, or a zero byte; `Other`
    /// outside a runtime. The text has the path.
    /// # Cancel safety
    /// Dropped, no further attempt is made.
    /// # Kernel
    /// connect(2), called directly: of a Unix socket it does not wait.
    /// # Examples
    /// ```
    /// use tamam::net::{UnixListener, UnixStream};
    ///
    /// # tamam::run(async {
    /// let path = std::env::temp_dir().join(format!("tamam-doc-connect-{}", std::process::id()));
    /// let listener = UnixListener::bind(&path)?;
    /// let client = UnixStream::connect(&path).await?;
    /// let (server, _) = listener.accept().await?;
    /// client.send_all("hello").await?;
    /// assert_eq!(server.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        match addr_of("connect", path.as_ref()) {
            Ok(addr) => UnixStream::connect_addr(&addr).await,
            Err(error) => {
                context::ready_at_once().await;
                Err(error)
            }
        }
    }

    /// Connects to an address: a path, or an abstract name
    /// ([`SocketAddrExt`](std::os::linux::net::SocketAddrExt)).
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    /// # Examples
    /// ```
    /// use std::os::linux::net::SocketAddrExt;
    /// use tamam::net::{UnixAddr, UnixListener, UnixStream};
    ///
    /// # tamam::run(async {
    /// let name = format!("tamam-doc-{}", std::process::id());
    /// let addr = UnixAddr::from_abstract_name(name)?;
    /// let listener = UnixListener::bind_addr(&addr)?;
    /// let client = UnixStream::connect_addr(&addr).await?;
    /// assert_eq!(client.peer_addr()?.as_abstract_name(), addr.as_abstract_name());
    /// # drop(listener);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn connect_addr(addr: &UnixAddr) -> io::Result<UnixStream> {
        let raw = SockAddr::unix(addr);
        let mut pause = PAUSE.0;
        loop {
            let home = context::try_current()?.driver.clone();
            // Not kept while it sleeps: a forgotten future keeps no socket.
            let socket = sys::unix_socket().inspect_err(|error| home.note_failure(error));
            let connected = socket.and_then(|fd| sys::connect_unix(fd.as_fd(), &raw).map(|()| fd));
            match connected {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                result => {
                    context::ready_at_once().await;
                    return match result {
                        Ok(fd) => Ok(UnixStream::new(fd, home)),
                        Err(error) => Err(CallError::wrap("connect", shown(addr), error)),
                    };
                }
            }
        }
    }

    /// Two connected streams without names.
    ///
    /// # Errors
    /// Those of socketpair(2), such as EMFILE; `Other` outside a runtime.
    /// # Examples
    /// One end goes to a child, as its standard input:
    /// ```
    /// use std::process::{Command, Stdio};
    /// use tamam::net::UnixStream;
    ///
    /// # tamam::run(async {
    /// let (ours, theirs) = UnixStream::pair()?;
    /// let (theirs, _unread) = theirs.into_std()?;
    /// theirs.set_nonblocking(false)?;
    /// let theirs = std::os::fd::OwnedFd::from(theirs);
    /// let mut child = Command::new("cat").stdin(theirs).stdout(Stdio::null()).spawn()?;
    /// ours.send_all("hello").await?;
    /// drop(ours);
    /// assert!(child.wait()?.success());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let home = context::try_current()?.driver.clone();
        let pair = sys::unix_pair().inspect_err(|error| home.note_failure(error));
        let pair = pair.map_err(|error| CallError::wrap("socketpair", "", error))?;
        Ok((UnixStream::new(pair.0, home.clone()), UnixStream::new(pair.1, home)))
    }

    /// Takes over a connected socket. The first receive gives what the socket has received already,
    /// or its end. The socket becomes non-blocking, and so do duplicates of its descriptor.
    ///
    /// # Errors
    /// `Other` outside a runtime; those of fcntl(2).
    /// # Examples
    /// ```
    /// use std::io::Write;
    /// use tamam::net::UnixStream;
    ///
    /// # tamam::run(async {
    /// let (mut early, late) = std::os::unix::net::UnixStream::pair()?;
    /// early.write_all(b"early")?;
    /// let stream = UnixStream::from_std(late)?;
    /// assert_eq!(stream.read_exact(Vec::with_capacity(5), 5).await?, b"early");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
        let home = context::try_current()?.driver.clone();
        sys::set_nonblocking(stream.as_fd())?;
        Ok(UnixStream::new(OwnedFd::from(stream), home))
    }

    /// Gives the socket back, with the bytes that were received and not read: they come before
    /// those still in the socket. The socket stays non-blocking.
    ///
    /// # Errors
    /// [`IntoStdError`] with the stream, if bytes of a dropped send are still on their way out.
    /// Wait for them, with `shutdown` or another send, and try again. Also if descriptors were received
    /// and not taken ([`recv_fds`](Self::recv_fds)).
    /// # Examples
    /// ```
    /// use std::io::Read;
    /// use tamam::net::UnixStream;
    ///
    /// # tamam::run(async {
    /// let (sender, receiver) = UnixStream::pair()?;
    /// sender.send_all("hello world").await?;
    /// drop(sender);
    /// assert_eq!(receiver.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
    ///
    /// let (mut socket, mut rest) = receiver.into_std()?;
    /// socket.read_to_end(&mut rest)?;
    /// assert_eq!(rest, b" world");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_std(
        self,
    ) -> Result<(std::os::unix::net::UnixStream, Vec<u8>), IntoStdError<UnixStream>> {
        match self.into_connection().into_parts() {
            Ok((fd, unread)) => Ok((fd.into(), unread)),
            Err((error, connection)) => {
                Err(IntoStdError::new(error, UnixStream::from_connection(connection)))
            }
        }
    }

    receiving_calls!(connection, "# let (sender, receiver) = tamam::net::UnixStream::pair()?;");
    sending_calls!(connection, "# let (sender, receiver) = tamam::net::UnixStream::pair()?;");

    /// The address of this end; usually unnamed for one that has connected.
    ///
    /// # Errors
    /// Those of getsockname(2).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// let (stream, _) = tamam::net::UnixStream::pair()?;
    /// assert!(stream.local_addr()?.is_unnamed());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn local_addr(&self) -> io::Result<UnixAddr> {
        sys::unix_local_addr(self.as_fd())
    }

    /// The address of the peer, also when it is gone already.
    ///
    /// # Errors
    /// Those of getpeername(2).
    /// # Examples
    /// See [`connect_addr`](Self::connect_addr).
    pub fn peer_addr(&self) -> io::Result<UnixAddr> {
        sys::unix_peer_addr(self.as_fd())
    }

    /// Who is at the other end, as the kernel saw it when the connection was made (SO_PEERCRED).
    ///
    /// # Errors
    /// Those of getsockopt(2).
    /// # Examples
    /// ```
    /// use tamam::net::UnixStream;
    ///
    /// # tamam::run(async {
    /// let (stream, _) = UnixStream::pair()?;
    /// assert_eq!(stream.peer_cred()?.pid, std::process::id() as i32);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn peer_cred(&self) -> io::Result<UnixCred> {
        let found = sys::peer_credentials(self.as_fd())?;
        Ok(UnixCred { uid: found.uid, gid: found.gid, pid: found.pid })
    }
}

impl fmt::Debug for UnixStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixStream")
            .field("local_addr", &self.local_addr().ok())
            .field("peer_addr", &self.peer_addr().ok())
            .finish_non_exhaustive()
    }
}

receives!(UnixStream);
transmits!(UnixStream);

//! `UnixDatagram`, a handle over a datagram socket: making one, receiving and sending. What is in
//! flight is not here, but in `datagram/`. Read next: `peers.rs`, then `datagram/room.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::{addr_of, shown};
use crate::buf::{BufError, IoBuf};
use crate::context;
use crate::datagram::{
    Datagram, DatagramSent, DatagramSocket, Envelope, datagram_calls, read_record,
};
use crate::driver::Driver;
use crate::io::CallError;
use crate::queue::WaiterId;
use crate::sys::{self, addr::SockAddr};

/// A Unix socket for datagrams; unix(7).
///
/// All methods take `&self`: receive and send at once, from any number of tasks. Each datagram goes
/// to one of the calls that receive, and datagrams are sent one after the other, in the order in
/// which the calls were first polled.
///
/// Nothing is lost or overtaken on the way, unlike UDP: what a receiver has no room for stays with
/// its sender, which waits. A dropped or even a forgotten [`recv`](Self::recv) takes no datagram from
/// the next call.
///
/// The file of its path stays when the socket is dropped, as with std; see
/// [`UnlinkOnDrop`](crate::net::UnlinkOnDrop).
///
/// # Examples
/// ```
/// use tamam::net::{UnixDatagram, UnlinkOnDrop};
///
/// tamam::run(async {
///     let path = std::env::temp_dir().join(format!("tamam-doc-log-{}", std::process::id()));
///     let log = UnixDatagram::bind(&path)?;
///     let _unlink = UnlinkOnDrop::new(&path)?;
///
///     let service = UnixDatagram::unbound()?;
///     service.connect(&path)?;
///     service.send("ready").await?;
///     service.send("done").await?;
///
///     assert_eq!(&log.recv().await?.chunk[..], b"ready");
///     assert_eq!(&log.recv().await?.chunk[..], b"done");
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixDatagram {
    inner: Option<Rc<DatagramSocket<UnixAddr>>>,
}

impl UnixDatagram {
    fn new(fd: OwnedFd, home: Rc<Driver>) -> io::Result<UnixDatagram> {
        Ok(UnixDatagram { inner: Some(DatagramSocket::new(fd, home)?) })
    }

    fn inner(&self) -> &Rc<DatagramSocket<UnixAddr>> {
        self.inner.as_ref().expect("taken by `into_std` only, which consumes the socket")
    }

    /// Makes a socket file at `path`. Others send to it.
    ///
    /// # Errors
    /// Those of bind(2), such as `AddrInUse` if there is a file, which is not touched, and
    /// `NotFound` if there is no such folder. `InvalidInput` if the path has 108 bytes or more, or a
    /// zero byte; `Other` outside a runtime. The text has the path.
    /// # Examples
    /// See [`UnixDatagram`].
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        UnixDatagram::bind_addr(&addr_of("bind", path.as_ref())?)
    }

    /// Binds to an address: a path, an abstract name, or, unnamed, an abstract name that the kernel
    /// chooses.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    /// # Examples
    /// A client that can be answered, without a file:
    /// ```
    /// use tamam::net::{UnixAddr, UnixDatagram};
    ///
    /// # tamam::run(async {
    /// let unnamed = UnixAddr::from_pathname("")?;
    /// let (server, client) = (UnixDatagram::bind_addr(&unnamed)?, UnixDatagram::bind_addr(&unnamed)?);
    /// client.send_to_addr("ping", &server.local_addr()?).await?;
    ///
    /// let asked = server.recv().await?;
    /// server.send_to_addr("pong", &asked.from).await?;
    /// assert_eq!(&client.recv().await?.chunk[..], b"pong");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind_addr(addr: &UnixAddr) -> io::Result<UnixDatagram> {
        let home = context::try_current()?.driver.clone();
        let fd = open(&home)?;
        sys::bind(fd.as_fd(), &SockAddr::unix(addr))
            .map_err(|error| CallError::wrap("bind", shown(addr), error))?;
        UnixDatagram::new(fd, home)
    }

    /// A socket without a name: it can send, but nobody can send to it.
    ///
    /// # Errors
    /// Those of socket(2), such as EMFILE; `Other` outside a runtime.
    /// # Examples
    /// See [`UnixDatagram`].
    pub fn unbound() -> io::Result<UnixDatagram> {
        let home = context::try_current()?.driver.clone();
        UnixDatagram::new(open(&home)?, home)
    }

    /// Two sockets without names, each the peer of the other.
    ///
    /// # Errors
    /// Those of socketpair(2), such as EMFILE; `Other` outside a runtime.
    /// # Examples
    /// ```
    /// use tamam::net::UnixDatagram;
    ///
    /// # tamam::run(async {
    /// let (one, other) = UnixDatagram::pair()?;
    /// one.send("hello").await?;
    /// assert_eq!(&other.recv().await?.chunk[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let home = context::try_current()?.driver.clone();
        let (one, other) = sys::unix_datagram_pair().map_err(|error| {
            home.note_failure(&error);
            CallError::wrap("socketpair", "", error)
        })?;
        Ok((UnixDatagram::new(one, home.clone())?, UnixDatagram::new(other, home)?))
    }

    /// Takes over a socket, with the datagrams that wait in it. The socket becomes non-blocking, and
    /// so do duplicates of its descriptor.
    ///
    /// # Errors
    /// `Other` outside a runtime; those of fcntl(2).
    /// # Examples
    /// ```
    /// use tamam::net::UnixDatagram;
    ///
    /// # tamam::run(async {
    /// let (early, late) = std::os::unix::net::UnixDatagram::pair()?;
    /// early.send(b"early")?;
    /// let socket = UnixDatagram::from_std(late)?;
    /// assert_eq!(&socket.recv().await?.chunk[..], b"early");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(socket: std::os::unix::net::UnixDatagram) -> io::Result<UnixDatagram> {
        let home = context::try_current()?.driver.clone();
        sys::set_nonblocking(socket.as_fd())?;
        UnixDatagram::new(OwnedFd::from(socket), home)
    }

    /// Gives the socket back, and with it the datagrams that were received and not taken: they came
    /// before those still in the socket. Those of forgotten sends are offered to the kernel once
    /// more. The socket stays non-blocking.
    ///
    /// # Errors
    /// `Other`, and the socket closed, if the runtime's ring has failed.
    /// # Examples
    /// ```
    /// use tamam::net::UnixDatagram;
    ///
    /// # tamam::run(async {
    /// let (one, other) = UnixDatagram::pair()?;
    /// one.send("hello").await?;
    /// let (socket, unread) = other.into_std()?;
    /// assert!(unread.is_empty()); // no call has asked for it
    /// let mut buf = [0; 16];
    /// assert_eq!(socket.recv(&mut buf)?, 5);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_std(
        mut self,
    ) -> io::Result<(std::os::unix::net::UnixDatagram, Vec<Datagram<UnixAddr>>)> {
        let inner = self.inner.take().expect("`into_std` consumes the socket");
        let (fd, unread) = inner.into_parts()?;
        let unread = unread.into_iter().map(read_record).collect::<io::Result<_>>()?;
        Ok((fd.into(), unread))
    }

    // ---- receiving --------------------------------------------------------------------------

    /// Receives the next datagram, whatever its size, with the address of its sender: unnamed if the
    /// sender has not bound its socket. Descriptors that come along are closed.
    ///
    /// # Errors
    /// `ConnectionReset`, of a connected socket whose peer has connected to another one while
    /// datagrams waited for it: they are gone. It is told once, to this or another call, and
    /// receiving goes on. That a peer is gone is not told: others may come. `InvalidInput` if
    /// somebody has shut the socket down. Others carry the errno of recvfrom(2).
    /// # Cancel safety
    /// Cancel safe: a dropped or forgotten `recv` has taken nothing.
    /// # Kernel
    /// recvfrom(2), tried at once; if there is none, 5.1, `IORING_OP_POLL_ADD`. The receive itself is
    /// no op: a datagram may be larger than any buffer, so its size is asked first.
    /// # Examples
    /// Who has sent it:
    /// ```
    /// use std::os::linux::net::SocketAddrExt;
    /// use tamam::net::{UnixAddr, UnixDatagram};
    ///
    /// # tamam::run(async {
    /// let unnamed = UnixAddr::from_pathname("")?;
    /// let (server, client) = (UnixDatagram::bind_addr(&unnamed)?, UnixDatagram::bind_addr(&unnamed)?);
    /// client.send_to_addr("it is me", &server.local_addr()?).await?;
    /// let from = server.recv().await?.from;
    /// assert_eq!(from.as_abstract_name(), client.local_addr()?.as_abstract_name());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn recv(&self) -> impl Future<Output = io::Result<Datagram<UnixAddr>>> {
        self.inner().recv()
    }

    datagram_calls!(UnixAddr, "# let (sender, receiver) = tamam::net::UnixDatagram::pair()?;");

    /// Receives the next datagram, if there is one.
    ///
    /// # Errors
    /// `WouldBlock`: there is none now. Others as for [`recv`](Self::recv).
    /// # Examples
    /// ```
    /// # use tamam::net::UnixDatagram;
    /// # tamam::run(async {
    /// let (one, other) = UnixDatagram::pair()?;
    /// assert_eq!(other.try_recv().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// one.try_send(b"hello")?;
    /// assert_eq!(&other.try_recv()?.chunk[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_recv(&self) -> io::Result<Datagram<UnixAddr>> {
        self.inner().try_recv()
    }

    // ---- sending ----------------------------------------------------------------------------

    /// Sends one datagram to the peer of a connected socket; gives its length and the buffer. While
    /// the peer has no room it waits; so do the sends behind it, wherever they go.
    ///
    /// # Errors
    /// `NotConnected`; EMSGSIZE (larger than the socket's send buffer, SO_SNDBUF);
    /// `ConnectionRefused` (the peer is gone: then the socket has no peer any more, and the next send
    /// is `NotConnected`). Each is that of this call alone. The error carries `buf`.
    /// # Cancel safety
    /// Dropped before it is ready: nothing is sent.
    /// # Kernel
    /// sendto(2), tried at once, and again when there is room: 5.1, `IORING_OP_POLL_ADD`.
    /// # Examples
    /// ```
    /// # use tamam::net::UnixDatagram;
    /// # tamam::run(async {
    /// let (one, _other) = UnixDatagram::pair()?;
    /// let (sent, buf) = one.send(vec![7; 100_000]).await?;
    /// assert_eq!((sent, buf.len()), (100_000, 100_000)); // the buffer can be used again
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = DatagramSent<B>> {
        self.inner().send(buf, Envelope::default())
    }

    /// Sends one datagram to the socket at `path`; gives its length and the buffer.
    ///
    /// While that socket has no room, it is tried again after 1, 2, 4 and at most 50 ms: the kernel
    /// has no event for it. Where there is much to send, [`connect`](Self::connect) and
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// `NotFound` (no such file), `ConnectionRefused` (a file that no socket is bound to any more),
    /// `PermissionDenied` (the file, or a socket that receives from its own peer only), EMSGSIZE, as
    /// for [`send`](Self::send). `InvalidInput` if the path has 108 bytes or more, or a zero byte.
    /// The error carries `buf`.
    /// # Cancel safety
    /// As [`send`](Self::send).
    /// # Kernel
    /// sendto(2), called directly: of a Unix socket it does not wait.
    /// # Examples
    /// ```
    /// use tamam::net::{UnixDatagram, UnlinkOnDrop};
    ///
    /// # tamam::run(async {
    /// let path = std::env::temp_dir().join(format!("tamam-doc-send-to-{}", std::process::id()));
    /// let server = UnixDatagram::bind(&path)?;
    /// let _unlink = UnlinkOnDrop::new(&path)?;
    /// UnixDatagram::unbound()?.send_to("hello", &path).await?;
    /// assert_eq!(&server.recv().await?.chunk[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn send_to<B: IoBuf>(&self, buf: B, path: impl AsRef<Path>) -> DatagramSent<B> {
        match addr_of("send to", path.as_ref()) {
            Ok(addr) => self.send_to_addr(buf, &addr).await,
            Err(error) => {
                context::ready_at_once().await;
                Err(BufError::new(error, buf))
            }
        }
    }

    /// As [`send_to`](Self::send_to), to an address: a path, or an abstract name.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to); `InvalidInput` if it is unnamed.
    /// # Cancel safety
    /// As [`send`](Self::send).
    /// # Kernel
    /// As [`send_to`](Self::send_to).
    /// # Examples
    /// See [`bind_addr`](Self::bind_addr).
    pub fn send_to_addr<B: IoBuf>(
        &self,
        buf: B,
        addr: &UnixAddr,
    ) -> impl Future<Output = DatagramSent<B>> {
        self.inner().send(buf, to(addr.clone()))
    }

    /// As [`send`](Self::send), without waiting: so it takes a borrowed slice.
    ///
    /// # Errors
    /// `WouldBlock`: the peer has no room, or other sends come first. Others as for
    /// [`send`](Self::send).
    /// # Examples
    /// ```
    /// # use tamam::net::UnixDatagram;
    /// # tamam::run(async {
    /// let (one, _other) = UnixDatagram::pair()?;
    /// while one.try_send(&[7; 100]).is_ok() {} // until the peer is full
    /// assert_eq!(one.try_send(&[7; 100]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().try_send(bytes, &Envelope::default())
    }

    /// As [`send_to`](Self::send_to), without waiting: so it takes a borrowed slice.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send) and [`send_to`](Self::send_to).
    /// # Examples
    /// ```
    /// # use tamam::net::UnixDatagram;
    /// # tamam::run(async {
    /// let sender = UnixDatagram::unbound()?;
    /// let error = sender.try_send_to(b"hello", "/no/such/socket").unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_send_to(&self, bytes: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        self.try_send_to_addr(bytes, &addr_of("send to", path.as_ref())?)
    }

    /// As [`send_to_addr`](Self::send_to_addr), without waiting: so it takes a borrowed slice.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send) and [`send_to_addr`](Self::send_to_addr).
    /// # Examples
    /// ```
    /// # use tamam::net::{UnixAddr, UnixDatagram};
    /// # tamam::run(async {
    /// let receiver = UnixDatagram::bind_addr(&UnixAddr::from_pathname("")?)?;
    /// let sender = UnixDatagram::unbound()?;
    /// assert_eq!(sender.try_send_to_addr(b"hello", &receiver.local_addr()?)?, 5);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_send_to_addr(&self, bytes: &[u8], addr: &UnixAddr) -> io::Result<usize> {
        self.inner().try_send(bytes, &to(addr.clone()))
    }

    /// Waits until [`try_send`](Self::try_send) is worth another try: the sends that were queued are
    /// out, and the kernel has room, or an error to tell. After a
    /// [`try_send_to`](Self::try_send_to) without room it is a pause of 1, 2, 4 and at most 50 ms.
    /// The waker of the last caller is kept.
    ///
    /// # Errors
    /// `Other` away from the socket's runtime.
    /// # Examples
    /// ```
    /// # use std::future::poll_fn;
    /// # use tamam::net::UnixDatagram;
    /// # tamam::run(async {
    /// let (one, _other) = UnixDatagram::pair()?;
    /// poll_fn(|cx| one.poll_send_ready(cx)).await?;
    /// one.try_send(b"hello")?;
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_send_ready(&mut Some(WaiterId::Poller), cx)
    }
}

/// A socket, before it has a name.
fn open(home: &Driver) -> io::Result<OwnedFd> {
    sys::unix_datagram_socket().map_err(|error| {
        home.note_failure(&error);
        CallError::wrap("socket", "for Unix datagrams", error)
    })
}

/// The envelope of a datagram that goes to an address.
fn to(addr: UnixAddr) -> Envelope<UnixAddr> {
    Envelope { to: Some(addr), ..Envelope::default() }
}

impl Drop for UnixDatagram {
    /// The descriptor is closed before the thread next sleeps. Datagrams that no call took are gone;
    /// those of forgotten sends are offered to the kernel once more. The file stays.
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.close();
        }
    }
}

impl TryFrom<std::os::unix::net::UnixDatagram> for UnixDatagram {
    type Error = io::Error;

    /// As [`from_std`](UnixDatagram::from_std).
    fn try_from(socket: std::os::unix::net::UnixDatagram) -> io::Result<UnixDatagram> {
        UnixDatagram::from_std(socket)
    }
}

impl AsFd for UnixDatagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner().fd()
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixDatagram")
            .field("local_addr", &self.local_addr().ok())
            .field("peer_addr", &self.peer_addr().ok())
            .field("unread", &self.inner().unread_len())
            .finish_non_exhaustive()
    }
}

//! `UdpSocket`, a handle over a datagram socket. What is in flight is not here, but in `datagram/`.
//! Read next: `datagram/mod.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::builder::UdpBuilder;
use crate::buf::IoBuf;
use crate::context;
use crate::datagram::{
    Datagram, DatagramSent, DatagramSocket, Envelope, datagram_calls, read_record,
};
use crate::driver::Driver;
use crate::net::addr::{ToSocketAddrs, first_of};
use crate::queue::WaiterId;
use crate::sys;

/// A UDP socket.
///
/// All methods take `&self`: receive and send at once, from any number of tasks. Each datagram goes
/// to one of the calls that receive, and datagrams are sent one after the other, in the order in
/// which the calls were first polled.
///
/// The socket owns its receive, so a dropped or even a forgotten [`recv`](Self::recv) loses no
/// datagram: the next call gets it. What no call asks for stays with the socket as far as 64 KiB of
/// payload or 256 datagrams, and what one system call brought; then in the kernel, as far as its
/// buffer goes (SO_RCVBUF). What comes beyond that is thrown away, as UDP does;
/// [`dropped`](Self::dropped) tells how many datagrams that were.
///
/// # Examples
/// An echo of one datagram:
/// ```
/// use tamam::net::UdpSocket;
///
/// tamam::run(async {
///     let server = UdpSocket::bind("127.0.0.1:0")?;
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.connect(server.local_addr()?).await?;
///
///     client.send("tamam").await?;
///     let datagram = server.recv().await?;
///     server.send_to(datagram.chunk, datagram.from).await?;
///
///     assert_eq!(&client.recv().await?.chunk[..], b"tamam");
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdpSocket {
    inner: Option<Rc<DatagramSocket<SocketAddr>>>,
}

impl UdpSocket {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> io::Result<UdpSocket> {
        Ok(UdpSocket { inner: Some(DatagramSocket::new(fd, home)?) })
    }

    fn inner(&self) -> &Rc<DatagramSocket<SocketAddr>> {
        self.inner.as_ref().expect("taken by `into_std` only, which consumes the socket")
    }

    /// Binds to `addr`; of several addresses, to the first that can be bound. Port 0 lets the kernel
    /// choose. At `[::]` IPv4 is received too, where the system does not say otherwise (ipv6(7)).
    /// For options that must be set before, see [`UdpBuilder`].
    ///
    /// # Errors
    /// Those of bind(2) for the last address, such as `AddrInUse`. `InvalidInput` if `addr` is not an
    /// address: a host name has to be looked up first, with
    /// [`lookup_host`](crate::net::lookup_host). `OutOfMemory` if there is no memory for the buffers
    /// of datagrams, which the first socket of a runtime makes. `Other` outside a runtime.
    /// # Examples
    /// ```
    /// use std::io::ErrorKind;
    /// use tamam::net::UdpSocket;
    ///
    /// # tamam::run(async {
    /// let first = UdpSocket::bind("127.0.0.1:0")?;
    /// let taken = first.local_addr()?;
    /// assert_eq!(UdpSocket::bind(taken).unwrap_err().kind(), ErrorKind::AddrInUse);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        first_of(addr.resolve()?, |addr| UdpBuilder::for_addr(addr)?.bind(addr))
    }

    /// Takes over a socket, with the datagrams that wait in it. The socket becomes non-blocking, and
    /// so do duplicates of its descriptor.
    ///
    /// # Errors
    /// `Other` outside a runtime; `OutOfMemory`, as [`bind`](Self::bind); those of fcntl(2).
    /// # Examples
    /// ```
    /// use tamam::net::UdpSocket;
    ///
    /// # tamam::run(async {
    /// let inherited = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// inherited.send_to(b"early", inherited.local_addr()?)?;
    ///
    /// let socket = UdpSocket::from_std(inherited)?;
    /// assert_eq!(&socket.recv().await?.chunk[..], b"early");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        let home = context::try_current()?.driver.clone();
        sys::set_nonblocking(socket.as_fd())?;
        UdpSocket::new(OwnedFd::from(socket), home)
    }

    /// Gives the socket back, and with it the datagrams that were received and not taken: they came
    /// before those still in the socket. Datagrams of sends that were dropped on their way out are
    /// offered to the kernel once more. The socket stays non-blocking.
    ///
    /// # Errors
    /// `Other`, and the socket closed, if the runtime's ring has failed.
    /// # Examples
    /// ```
    /// use tamam::net::UdpSocket;
    ///
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.send_to("first", socket.local_addr()?).await?;
    /// socket.send_to("second", socket.local_addr()?).await?;
    /// assert_eq!(&socket.recv().await?.chunk[..], b"first");
    ///
    /// // The second is among those that were received, or still in the socket.
    /// let (socket, unread) = socket.into_std()?;
    /// let mut buf = [0; 16];
    /// let second = match unread.first() {
    ///     Some(datagram) => &datagram.chunk[..],
    ///     None => {
    ///         let len = socket.recv(&mut buf)?;
    ///         &buf[..len]
    ///     }
    /// };
    /// assert_eq!(second, b"second");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_std(mut self) -> io::Result<(std::net::UdpSocket, Vec<Datagram>)> {
        let inner = self.inner.take().expect("`into_std` consumes the socket");
        let (fd, unread) = inner.into_parts()?;
        let unread = unread.into_iter().map(read_record).collect::<io::Result<_>>()?;
        Ok((fd.into(), unread))
    }

    // ---- receiving --------------------------------------------------------------------------

    /// Receives the next datagram, with what is known of it. It is never cut off.
    ///
    /// The bytes stay where the kernel put them; no buffer is held while waiting.
    ///
    /// # Errors
    /// `ConnectionRefused`, of a connected socket whose peer has no socket at its port; it is told
    /// once, to this or another call, and receiving goes on. Others carry the errno of recvmsg(2).
    /// # Cancel safety
    /// Cancel safe: a datagram that reaches a dropped or forgotten `recv` is the first for the next
    /// call.
    /// # Kernel
    /// 6.0, `IORING_OP_RECVMSG` with `IORING_RECV_MULTISHOT` over provided buffers. See recvmsg(2).
    /// # Examples
    /// A dropped `recv` loses nothing:
    /// ```
    /// use std::time::Duration;
    /// use tamam::net::UdpSocket;
    /// use tamam::time::timeout;
    ///
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert!(timeout(Duration::from_millis(1), socket.recv()).await.is_err());
    ///
    /// socket.send_to("hello", socket.local_addr()?).await?;
    /// assert_eq!(&socket.recv().await?.chunk[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn recv(&self) -> impl Future<Output = io::Result<Datagram>> {
        self.inner().recv()
    }

    datagram_calls!(
        SocketAddr,
        "# let receiver = tamam::net::UdpSocket::bind(\"127.0.0.1:0\")?;\n\
         # let sender = tamam::net::UdpSocket::bind(\"127.0.0.1:0\")?;\n\
         # sender.connect(receiver.local_addr()?).await?;"
    );

    /// Receives the next datagram, if the runtime has one. On io_uring datagrams come in the turns of
    /// the runtime, so a loop over this has to yield.
    ///
    /// # Errors
    /// `WouldBlock`: there is none now. Others as for [`recv`](Self::recv).
    /// # Examples
    /// ```
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// assert_eq!(socket.try_recv().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// socket.try_send_to(b"hello", socket.local_addr()?)?;
    /// let datagram = loop {
    ///     match socket.try_recv() {
    ///         Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
    ///             tamam::yield_now().await;
    ///         }
    ///         result => break result?,
    ///     }
    /// };
    /// assert_eq!(&datagram.chunk[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_recv(&self) -> io::Result<Datagram> {
        self.inner().try_recv()
    }

    // ---- sending ----------------------------------------------------------------------------

    /// Sends one datagram to the peer of a connected socket; gives its length and the buffer. An
    /// empty buffer is a datagram without bytes.
    ///
    /// # Errors
    /// `NotConnected`, or EDESTADDRREQ (no peer); EMSGSIZE (too large); EPERM (a firewall); ENOBUFS
    /// (no memory); `ConnectionRefused` (an earlier datagram found no socket at the peer's port; this
    /// one was not sent). Each is that of this call alone. The error carries `buf`.
    /// # Cancel safety
    /// Dropped before its turn: nothing is sent. Later: it is sent, you just do not hear of it.
    /// # Panics
    /// If io_uring fails while the kernel holds `buf`, since it cannot be given back then.
    /// # Kernel
    /// sendto(2), tried at once; if there is no room, 5.3, `IORING_OP_SENDMSG`.
    /// # Examples
    /// ```
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// one.connect(other.local_addr()?).await?;
    /// let (sent, buf) = one.send(vec![7; 100]).await?;
    /// assert_eq!((sent, buf.len()), (100, 100)); // the buffer can be used again
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = DatagramSent<B>> {
        self.inner().send(buf, Envelope::default())
    }

    /// Sends one datagram to `addr`; gives its length and the buffer.
    ///
    /// # Errors
    /// As [`send`](Self::send); EAFNOSUPPORT (an address of the other family), ENETUNREACH (no
    /// route), EACCES (a broadcast, see [`set_broadcast`](Self::set_broadcast)).
    /// # Cancel safety
    /// As [`send`](Self::send).
    /// # Panics
    /// As [`send`](Self::send).
    /// # Kernel
    /// As [`send`](Self::send).
    /// # Examples
    /// ```
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// let addr = socket.local_addr()?;
    /// socket.send_to("hello", addr).await?;
    /// assert_eq!(socket.recv().await?.from, addr);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send_to<B: IoBuf>(
        &self,
        buf: B,
        addr: impl Into<SocketAddr>,
    ) -> impl Future<Output = DatagramSent<B>> {
        self.inner().send(buf, to(addr))
    }

    /// Sends a datagram, or several, as the [`Envelope`] says: from one of several addresses of this
    /// host, with a mark about congestion. Gives how many bytes went out, and the buffer.
    ///
    /// # Errors
    /// As [`send`](Self::send). `InvalidInput` for a segment size of zero, or of more than a datagram
    /// can have.
    /// # Cancel safety
    /// As [`send`](Self::send). Several datagrams are sent all, once the first was.
    /// # Panics
    /// As [`send`](Self::send).
    /// # Kernel
    /// sendmsg(2), tried at once; if there is no room, 5.3, `IORING_OP_SENDMSG`. See ip(7), ipv6(7).
    /// # Examples
    /// See [`Envelope`].
    pub fn send_msg<B: IoBuf>(
        &self,
        buf: B,
        envelope: Envelope,
    ) -> impl Future<Output = DatagramSent<B>> {
        self.inner().send(buf, envelope)
    }

    /// Sends `buf` as datagrams of `size` bytes each, the last one of what is left. The kernel
    /// divides it (UDP_SEGMENT, udp(7)), which costs a fifth of single sends; where it cannot, they
    /// are sent one by one. Gives how many bytes went out: all, unless one failed after the first;
    /// and the buffer.
    ///
    /// # Errors
    /// As [`send_msg`](Self::send_msg).
    /// # Cancel safety
    /// As [`send_msg`](Self::send_msg).
    /// # Panics
    /// As [`send`](Self::send).
    /// # Kernel
    /// As [`send_msg`](Self::send_msg); UDP_SEGMENT is of 4.18.
    /// # Examples
    /// ```
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.send_segments(vec![7; 2500], 1200, socket.local_addr()?).await?;
    /// for size in [1200, 1200, 100] {
    ///     assert_eq!(socket.recv().await?.chunk.len(), size);
    /// }
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send_segments<B: IoBuf>(
        &self,
        buf: B,
        size: usize,
        addr: impl Into<SocketAddr>,
    ) -> impl Future<Output = DatagramSent<B>> {
        self.inner().send(buf, Envelope { segment_size: Some(size), ..to(addr) })
    }

    /// As [`send`](Self::send), without waiting: so it takes a borrowed slice.
    ///
    /// # Errors
    /// `WouldBlock`: the kernel has no room, or other sends come first. Others as for
    /// [`send`](Self::send).
    /// # Examples
    /// ```
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.connect(socket.local_addr()?).await?;
    /// assert_eq!(socket.try_send(&[7; 100])?, 100);
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
    /// As [`try_send`](Self::try_send).
    /// # Examples
    /// ```
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// socket.try_send_to(b"hello", socket.local_addr()?)?;
    /// assert_eq!(&socket.recv().await?.chunk[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn try_send_to(&self, bytes: &[u8], addr: impl Into<SocketAddr>) -> io::Result<usize> {
        self.inner().try_send(bytes, &to(addr))
    }

    /// As [`send_msg`](Self::send_msg), without waiting: so it takes a borrowed slice. Of several
    /// datagrams those go out that there is room for.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    pub fn try_send_msg(&self, bytes: &[u8], envelope: &Envelope) -> io::Result<usize> {
        self.inner().try_send(bytes, envelope)
    }

    /// Waits until [`try_send`](Self::try_send) is worth another try: the sends that were queued are
    /// out, and the kernel has room, or an error to tell. The waker of the last caller is kept.
    ///
    /// # Errors
    /// `Other` away from the socket's runtime.
    /// # Examples
    /// ```
    /// # use std::future::poll_fn;
    /// # use tamam::net::UdpSocket;
    /// # tamam::run(async {
    /// let socket = UdpSocket::bind("127.0.0.1:0")?;
    /// poll_fn(|cx| socket.poll_send_ready(cx)).await?;
    /// socket.try_send_to(b"hello", socket.local_addr()?)?;
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_send_ready(&mut Some(WaiterId::Poller), cx)
    }
}

/// What only quinn's traits need.
#[cfg(feature = "quinn")]
impl UdpSocket {
    /// Takes the next datagram, if one was received already.
    pub(crate) fn take_unread(&self) -> Option<Datagram> {
        self.inner().take_datagram()
    }

    /// Whether the kernel divides what is sent into datagrams.
    pub(crate) fn divides_segments(&self) -> bool {
        self.inner().divides()
    }

    /// As [`poll_send_ready`](Self::poll_send_ready), for any number of callers. `id` is the
    /// caller's name among them, `None` at first.
    pub(crate) fn poll_room(
        &self,
        id: &mut Option<WaiterId>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_send_ready(id, cx)
    }

    /// Ends the wait of such a caller.
    pub(crate) fn stop_waiting_for_room(&self, id: Option<WaiterId>) {
        self.inner().stop_waiting_for_room(id);
    }
}

/// The envelope of a datagram that goes to an address.
fn to(addr: impl Into<SocketAddr>) -> Envelope {
    Envelope { to: Some(addr.into()), ..Envelope::default() }
}

impl Drop for UdpSocket {
    /// The descriptor is closed before the thread next sleeps. Datagrams that no call took are
    /// thrown away; those on their way out are offered to the kernel once more.
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            inner.close();
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner().fd()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("local_addr", &self.local_addr().ok())
            .field("unread", &self.inner().unread_len())
            .finish_non_exhaustive()
    }
}

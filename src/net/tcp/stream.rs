//! `TcpStream`, a handle over a connection. What is in flight is not here, but in `stream/`. Read
//! next: `stream/mod.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use super::options::Lingering;
use crate::buf::{BufError, Chunk, IoBuf, IoBufMut};
use crate::driver::{Driver, Medium};
use crate::io::{receives, transmits};
use crate::stream::{Connection, Peek, Read, ReadReport, put_back};
use crate::sys;

/// A TCP connection.
///
/// All methods take `&self`: receive and send at once without splitting, from any number of tasks.
/// Each received byte goes to one of them, each sent buffer goes out whole.
///
/// Dropping the stream closes the connection without waiting for the peer. Bytes that were sent
/// before are delivered, unless the peer still writes: its bytes meet a closed socket, TCP resets
/// the connection, and the peer loses what it has not read yet. The rest of a send in flight is
/// offered to the kernel once more, and what it does not take is discarded. To be sure that
/// everything arrives, [`close`](Self::close) it: that shuts down, and receives until the end.
///
/// # Examples
/// An echo of one message:
/// ```
/// use tamam::net::{TcpListener, TcpStream};
///
/// tamam::run(async {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let client = TcpStream::connect(listener.local_addr()?).await?;
///     let (server, _) = listener.accept().await?;
///
///     client.send_all("tamam").await?;
///     let chunk = server.recv().await?.expect("a message");
///     server.send_all(chunk).await?;
///
///     let answer = client.read_exact(Vec::with_capacity(5), 5).await?;
///     assert_eq!(answer, b"tamam");
///     std::io::Result::Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream {
    pub(super) connection: Rc<Connection>,
}

impl TcpStream {
    pub(super) fn new(fd: OwnedFd, home: Rc<Driver>) -> TcpStream {
        TcpStream { connection: Connection::new(fd, home, Medium::Tcp) }
    }

    /// As [`new`](Self::new), of a socket that was set to linger so, or not.
    pub(super) fn with_lingering(
        fd: OwnedFd,
        home: Rc<Driver>,
        lingering: Lingering,
    ) -> io::Result<TcpStream> {
        let stream = TcpStream::new(fd, home);
        if lingering == Lingering::Reset {
            stream.connection.set_zero_linger()?; // the drop has to know it too
        }
        Ok(stream)
    }

    /// Receives the next bytes, however many came together. `None`: the peer has finished.
    ///
    /// The bytes stay where the kernel put them; no buffer is held while waiting.
    ///
    /// # Errors
    /// `ConnectionReset` (peer), on this and every later call, after what came before it. Others
    /// carry the errno of recv(2).
    /// # Cancel safety
    /// Cancel safe: bytes that reach a dropped or forgotten `recv` come first in the next call.
    /// # Kernel
    /// 6.0, `IORING_OP_RECV` with `IORING_RECV_MULTISHOT` over provided buffers. See recv(2).
    /// # Examples
    /// ```
    /// use tamam::net::{TcpListener, TcpStream};
    ///
    /// tamam::run(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     let (server, _) = listener.accept().await?;
    ///     client.send_all("one").await?;
    ///     client.shutdown().await?;
    ///     assert_eq!(&server.recv().await?.expect("a message")[..], b"one");
    ///     assert!(server.recv().await?.is_none());
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> {
        self.connection.recv()
    }

    /// Receives bytes into the spare room of `buf`.
    ///
    /// Appends at most `buf.capacity() - buf.len()` bytes and returns how many; 0 means that the
    /// peer has finished sending. `buf` comes back in every case, on failure inside the error.
    ///
    /// # Errors
    /// `InvalidInput` (no spare room), `ConnectionReset` (peer), on this and every later call.
    /// Others carry the errno of recv(2).
    /// # Cancel safety
    /// Cancel safe: bytes that reach a dropped or forgotten `read` come first in the next call.
    /// `buf` itself is gone; [`recv`](Self::recv) needs none.
    /// # Panics
    /// If io_uring fails while the kernel holds `buf`, since it cannot be given back then.
    /// # Kernel
    /// 6.0, `IORING_OP_RECV`. See recv(2).
    /// # Examples
    /// ```
    /// use tamam::net::{TcpListener, TcpStream};
    ///
    /// tamam::run(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     let (server, _) = listener.accept().await?;
    ///     client.send_all("hello").await?;
    ///     let (len, buf) = server.read(Vec::with_capacity(1024)).await?;
    ///     assert_eq!((len, &buf[..]), (5, &b"hello"[..]));
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = ReadReport<B>> {
        Read::some(&self.connection, buf)
    }

    /// Copies the bytes that come next into the spare room of `buf`, as many as are there and fit,
    /// and leaves them unread: the next receive of any kind gives them again. Waits until there is
    /// one; 0 means that the peer has finished.
    ///
    /// A second call right after the first gives the same bytes: to wait for more of them, use
    /// [`read_exact`](Self::read_exact).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    /// # Cancel safety
    /// Cancel safe: it takes no byte. `buf` is gone.
    /// # Kernel
    /// As [`recv`](Self::recv): the stream receives, and keeps what came. MSG_PEEK is not used.
    /// # Examples
    /// One port for two protocols:
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all(b"\x16 begins a handshake of TLS").await?;
    /// let (len, first) = server.peek(Vec::with_capacity(1)).await?;
    /// assert_eq!((len, first[0]), (1, 0x16));
    ///
    /// let all = server.read_exact(Vec::with_capacity(27), 27).await?; // nothing was taken
    /// assert_eq!(all, b"\x16 begins a handshake of TLS");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn peek<B: IoBufMut>(&self, buf: B) -> impl Future<Output = ReadReport<B>> {
        Peek::new(&self.connection, buf)
    }

    /// Receives exactly `len` bytes into the spare room of `buf`.
    ///
    /// # Errors
    /// `InvalidInput` (less than `len` bytes of spare room), `UnexpectedEof` (the peer finished
    /// before), `ConnectionReset` (peer). The error carries `buf` with the bytes that came.
    /// # Cancel safety
    /// Cancel safe: the bytes that had come are first in the next call, of whatever kind.
    /// # Panics
    /// As [`read`](Self::read).
    /// # Kernel
    /// 6.0, `IORING_OP_RECV`. See recv(2).
    /// # Examples
    /// A header with the length of what follows:
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all(b"\x00\x05hello").await?;
    ///
    /// let header = server.read_exact(Vec::with_capacity(2), 2).await?;
    /// let len = u16::from_be_bytes([header[0], header[1]]).into();
    /// let body = server.read_exact(Vec::with_capacity(len), len).await?;
    /// assert_eq!(body, b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    /// The end comes too early:
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all("hel").await?;
    /// client.shutdown().await?;
    ///
    /// let error = server.read_exact(Vec::with_capacity(5), 5).await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    /// assert_eq!(error.buf(), b"hel");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn read_exact<B: IoBufMut>(&self, buf: B, len: usize) -> Result<B, BufError<B>> {
        Read::exact(&self.connection, buf, len).await.map(|(_, buf)| buf)
    }

    /// Gives bytes back: the next call receives them first. They need not be bytes that came.
    ///
    /// # Examples
    /// A server that looks at the first bytes, and leaves them to whom it may concern:
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all("GET / HTTP/1.1\r\n").await?;
    /// let first = server.recv().await?.expect("a request");
    /// let is_http = first.starts_with(b"GET ");
    /// server.unread(first);
    /// assert!(is_http);
    /// assert_eq!(server.read_exact(Vec::with_capacity(4), 4).await?, b"GET ");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn unread(&self, chunk: Chunk) {
        put_back(&self.connection, chunk);
    }

    /// Sends `buf`, and returns how many of its bytes went out: all of them, unless the connection
    /// failed on the way; then the next call gives the error.
    ///
    /// # Errors
    /// `BrokenPipe` (peer finished, or after [`shutdown`](Self::shutdown)), `ConnectionReset`
    /// (peer). The error carries `buf`.
    /// # Cancel safety
    /// Dropped before its turn: nothing is sent. Later: all is sent, you just do not hear of it.
    /// # Panics
    /// If io_uring fails while the kernel holds `buf`, since it cannot be given back then.
    /// # Kernel
    /// 5.6, `IORING_OP_SEND`. See send(2).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (sent, buf) = client.send(vec![7; 100]).await?;
    /// assert_eq!((sent, buf.len()), (100, 100)); // the buffer can be used again
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "write")]
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        self.connection.send_some(buf)
    }

    /// Sends all of `buf` and gives it back.
    ///
    /// The buffer moves in, so it cannot be a borrowed slice: rustc calls that "does not live long
    /// enough". For a part of one, `truncate` it, or [`Chunk::split_to`]; else `to_vec`.
    ///
    /// Buffers of concurrent sends go out one after the other, in the order of first polls.
    ///
    /// # Errors
    /// `BrokenPipe` (peer finished, or after [`shutdown`](Self::shutdown)), `ConnectionReset`
    /// (peer), also when a part went out before. The error carries `buf`; see [`BufError`] for
    /// error types of your own.
    /// # Cancel safety
    /// Dropped before its turn: nothing is sent. Later: all is sent, you just do not hear of it.
    /// To give up for good, drop the stream: the peer sees an end after the part that went out, or
    /// an error if [`set_zero_linger`](Self::set_zero_linger) came first.
    /// # Panics
    /// As [`send`](Self::send).
    /// # Kernel
    /// 5.6, `IORING_OP_SEND` with `MSG_WAITALL`. See send(2).
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tamam::net::{TcpListener, TcpStream};
    /// use tamam::time::timeout;
    ///
    /// tamam::run(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     let (server, _) = listener.accept().await?;
    ///
    ///     // More than the kernel holds. The server does not read yet, so this times out …
    ///     let big = vec![7u8; 16 << 20];
    ///     assert!(timeout(Duration::from_millis(5), client.send_all(big)).await.is_err());
    ///
    ///     // … and goes on in the background.
    ///     let all = server.read_exact(Vec::with_capacity(16 << 20), 16 << 20).await?;
    ///     assert!(all.iter().all(|byte| *byte == 7));
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "write_all")]
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        self.connection.send_all(buf)
    }

    /// Sends all of `bufs`, in order and with nothing in between, and returns how many bytes went
    /// out: all of them, unless the connection failed on the way; then the next call gives the
    /// error.
    ///
    /// # Errors
    /// As [`send`](Self::send); the error carries `bufs`.
    /// # Cancel safety
    /// As [`send`](Self::send).
    /// # Panics
    /// As [`send`](Self::send).
    /// # Kernel
    /// 5.3, `IORING_OP_SENDMSG`. See sendmsg(2).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (sent, _bufs) = client.sendv(vec!["GET ", "/", " HTTP/1.0\r\n\r\n"]).await?;
    /// assert_eq!(sent, 18);
    /// assert_eq!(server.read_exact(Vec::with_capacity(18), 18).await?, b"GET / HTTP/1.0\r\n\r\n");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "write_vectored")]
    pub fn sendv<B: IoBuf>(
        &self,
        bufs: Vec<B>,
    ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
        self.connection.sendv(bufs)
    }

    /// Ends sending: the peer sees the end after every byte of sends that were polled before this,
    /// also of those that were dropped. Receiving goes on. Sends that come later fail with
    /// `BrokenPipe`. `Ok` means that the kernel has the end, not that the peer has seen it.
    ///
    /// # Errors
    /// That of a send which failed before; `NotConnected` (peer has reset: `recv` says so too, and
    /// tokio says `Ok` here).
    /// # Cancel safety
    /// Dropped after its first poll, the end still follows what is queued.
    /// # Kernel
    /// shutdown(2), called directly: it never waits.
    /// # Examples
    /// A request that ends with a half-close:
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all("question").await?;
    /// client.shutdown().await?;
    /// while let Some(chunk) = server.recv().await? {
    ///     println!("{} bytes of the question", chunk.len());
    /// }
    /// server.send_all("answer").await?; // the other direction is open
    ///
    /// assert_eq!(client.read_exact(Vec::with_capacity(6), 6).await?, b"answer");
    /// let error = client.send_all("more").await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn shutdown(&self) -> io::Result<()> {
        self.connection.shutdown().await
    }

    /// Ends the connection in order: [`shutdown`](Self::shutdown), then receives until the peer has
    /// finished too. What still comes is thrown away. After `Ok` nothing that was sent is lost.
    ///
    /// The peer may take its time: put a [`timeout`](crate::time::timeout) around it. This is what
    /// a linger time above zero is for elsewhere. (`AsyncWriteExt::close` of futures-util, which
    /// this hides, only shuts down.)
    ///
    /// # Errors
    /// Those of [`shutdown`](Self::shutdown) and [`recv`](Self::recv): a peer that resets the
    /// connection gives `ConnectionReset`.
    /// # Cancel safety
    /// Dropped after its first poll, it is as `shutdown` and a drop of the stream.
    /// # Kernel
    /// As [`shutdown`](Self::shutdown) and [`recv`](Self::recv).
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tamam::time::timeout;
    ///
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let closed = tamam::spawn(async move {
    ///     client.send_all("the last words").await?;
    ///     timeout(Duration::from_secs(5), client.close()).await?
    /// });
    /// let words = server.read_exact(Vec::with_capacity(14), 14).await?;
    /// assert_eq!(words, b"the last words");
    /// drop(server);
    /// closed.await??;
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn close(self) -> io::Result<()> {
        self.shutdown().await?;
        while self.recv().await?.is_some() {}
        Ok(())
    }

    /// The address of this end.
    ///
    /// # Errors
    /// Those of getsockname(2).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// assert_eq!(client.local_addr()?, server.peer_addr()?);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.as_fd())
    }

    /// The address of the peer, also when it is gone already.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let addr = client.local_addr()?;
    /// drop(client);
    /// assert!(server.recv().await?.is_none());
    /// assert_eq!(server.peer_addr()?, addr);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        sys::peer_addr(self.as_fd())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("local_addr", &self.local_addr().ok())
            .field("peer_addr", &self.peer_addr().ok())
            .finish_non_exhaustive()
    }
}

receives!(TcpStream);
transmits!(TcpStream {
    |stream| {
        let _ = stream.set_zero_linger(); // its errors do not matter to a stream that has failed
    }
});

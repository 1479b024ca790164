//! `TlsStream`, a handle over a session. What is in flight is not here. Read next: `session.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::TlsInfo;
use super::linger;
use super::session::Session;
use super::split::{TlsReadHalf, TlsWriteHalf};
use crate::buf::{BufError, Chunk, IoBuf, IoBufMut};
use crate::io::{Duplex, receives, transmits};
use crate::net::TcpStream;
use crate::stream::{Carried, Carrier, Peek, Read, RecvChunk, drain, put_back};

/// A TLS connection, of a client or of a server: over TCP, or over another stream `S`.
///
/// Made by [`TlsConnector`](super::TlsConnector), [`TlsAcceptor`](super::TlsAcceptor) and
/// [`LazyConfigAcceptor`](super::LazyConfigAcceptor). All methods take `&self`, as those of
/// [`TcpStream`] do: receive and send at once without splitting, from any number of tasks. What is
/// sent goes out at once: there is nothing to flush.
///
/// It works over every [`Duplex`]: TCP, Unix sockets, and TLS itself (a tunnel through a proxy).
///
/// # Closing
/// [`shutdown`](Self::shutdown) tells the peer that nothing more is sent, with a `close_notify`,
/// and then ends sending on TCP too. If the stream is dropped without it, the peer sees a truncated
/// stream and reports an error, and it may miss the last bytes.
///
/// Before a program ends, call [`close`](Self::close): `shutdown` and a drop are not enough then,
/// because the end of the runtime closes the socket, and a peer that still writes meets a reset and
/// loses what it has not read.
///
/// In the same way, a peer that ends TCP without a `close_notify` is `UnexpectedEof` here, never an
/// end: an attacker on the path may have cut the connection.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use tamam::net::{TcpListener, TcpStream};
/// use tamam::tls::{self, TlsAcceptor, TlsConnector};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let certificates = tls::load_certs("tests/keys/localhost.pem")?; // self-signed
/// let key = tls::load_key("tests/keys/localhost.key")?;
///
/// let mut roots = tls::rustls::RootCertStore::empty();
/// roots.add(certificates[0].clone())?;
/// let acceptor = TlsAcceptor::from(tls::server_config(certificates, key)?);
/// let connector = TlsConnector::from(tls::client_config(roots)?);
///
/// tamam::run(async {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let addr = listener.local_addr()?;
///     let server = tamam::spawn(async move {
///         let (tcp, _) = listener.accept().await?;
///         let stream = acceptor.accept(tcp).await?;
///         while let Some(chunk) = stream.recv().await? {
///             stream.send_all(chunk).await?;
///         }
///         stream.shutdown().await
///     });
///
///     let stream = connector.connect("localhost", TcpStream::connect(addr).await?).await?;
///     stream.send_all("tamam").await?;
///     let answer = stream.read_exact(Vec::with_capacity(5), 5).await?;
///     assert_eq!(answer, b"tamam");
///     stream.shutdown().await?;
///     assert!(stream.recv().await?.is_none());
///     server.await.expect("no panic")
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct TlsStream<S: Duplex = TcpStream> {
    session: Rc<Session<S>>,
}

impl<S: Duplex> TlsStream<S> {
    pub(super) fn new(session: Rc<Session<S>>) -> TlsStream<S> {
        TlsStream { session }
    }

    /// The session, for the poll traits.
    #[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
    pub(crate) fn session(&self) -> &Rc<Session<S>> {
        &self.session
    }

    /// Splits into a half that receives and one that sends, for different tasks. Dropping the
    /// sending half ends sending, as [`shutdown`](Self::shutdown) does.
    ///
    /// # Examples
    /// ```
    /// use tamam::tls::TlsStream;
    ///
    /// fn echo_in_background(stream: TlsStream) {
    ///     let (read, write) = stream.into_split();
    ///     tamam::spawn(async move {
    ///         while let Some(chunk) = read.recv().await? {
    ///             write.send_all(chunk).await?;
    ///         }
    ///         write.shutdown().await
    ///     });
    /// }
    /// # let _ = echo_in_background;
    /// ```
    pub fn into_split(self) -> (TlsReadHalf<S>, TlsWriteHalf<S>) {
        (TlsReadHalf::new(self.session.clone()), TlsWriteHalf::new(self.session.clone()))
    }

    /// The result of the handshake: version, cipher suite, protocol, names, certificates.
    ///
    /// # Examples
    /// ```
    /// use tamam::tls::TlsStream;
    ///
    /// fn is_http2(stream: &TlsStream) -> bool {
    ///     stream.info().alpn() == Some(b"h2")
    /// }
    /// # let _ = is_http2;
    /// ```
    pub fn info(&self) -> &TlsInfo {
        self.session.info()
    }

    /// The stream below: for addresses and options. Do not receive or send with it: TLS would miss
    /// the bytes, and fail.
    ///
    /// # Examples
    /// ```
    /// use tamam::net::UnixStream;
    /// use tamam::tls::TlsStream;
    ///
    /// fn is_root(stream: &TlsStream<UnixStream>) -> std::io::Result<bool> {
    ///     Ok(stream.get_ref().peer_cred()?.uid == 0)
    /// }
    /// # let _ = is_root;
    /// ```
    pub fn get_ref(&self) -> &S {
        self.session.stream()
    }

    /// Receives the next bytes, as many as came together. `None` is the end: the peer has sent its
    /// `close_notify`.
    ///
    /// What comes in whole records is decrypted where the kernel put it; no buffer is held while
    /// waiting.
    ///
    /// # Errors
    /// `UnexpectedEof`: the peer ended TCP without a `close_notify`. `InvalidData`: what came is
    /// not TLS, or was changed on the way; its source is the [`rustls::Error`]. Others as
    /// [`TcpStream::recv`]. What came before is received first; then this and every later call
    /// gives the error.
    /// # Cancel safety
    /// Cancel safe: bytes that reach a dropped `recv` come first in the next call.
    /// # Examples
    /// A connection that is cut off is an error, not an end:
    /// ```
    /// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tamam::run(async {
    /// # let (client, server) = localhost::connect().await?;
    /// client.send_all("hello").await?;
    /// drop(client); // no `close_notify`
    /// assert_eq!(&server.recv().await?.expect("a message")[..], b"hello");
    /// let error = server.recv().await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> {
        RecvChunk::new(&self.session)
    }

    /// Receives bytes into the spare room of `buf`.
    ///
    /// Appends at most `buf.capacity() - buf.len()` bytes and returns how many; 0 is the end: the
    /// peer has sent its `close_notify`. `buf` comes back in every case, on failure inside the
    /// error.
    ///
    /// # Errors
    /// `InvalidInput` (no spare room); else those of [`recv`](Self::recv).
    /// # Cancel safety
    /// Cancel safe: bytes that reach a dropped `read` come first in the next call. `buf` itself is
    /// gone.
    /// # Examples
    /// ```
    /// use tamam::tls::TlsStream;
    ///
    /// /// Collects what comes, in one buffer.
    /// async fn collect(stream: &TlsStream) -> std::io::Result<Vec<u8>> {
    ///     let mut all = Vec::with_capacity(1024);
    ///     loop {
    ///         let (len, mut buf) = stream.read(all).await?;
    ///         if len == 0 {
    ///             return Ok(buf);
    ///         }
    ///         buf.reserve(1024);
    ///         all = buf;
    ///     }
    /// }
    /// # let _ = collect;
    /// ```
    pub fn read<B: IoBufMut>(
        &self,
        buf: B,
    ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        Read::some(&self.session, buf)
    }

    /// Copies the plaintext that comes next into the spare room of `buf`, and leaves it unread: the
    /// next receive of any kind gives it again.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    /// # Cancel safety
    /// Cancel safe: it takes no bytes. `buf` itself is gone.
    /// # Examples
    /// ```
    /// use tamam::tls::TlsStream;
    ///
    /// /// Whether HTTP/2 comes next, which begins with a preface of its own.
    /// async fn is_http2(stream: &TlsStream) -> std::io::Result<bool> {
    ///     let (len, start) = stream.peek(Vec::with_capacity(3)).await?;
    ///     Ok(&start[..len] == b"PRI")
    /// }
    /// # let _ = is_http2;
    /// ```
    pub fn peek<B: IoBufMut>(
        &self,
        buf: B,
    ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        Peek::new(&self.session, buf)
    }

    /// Receives exactly `len` bytes into the spare room of `buf`.
    ///
    /// # Errors
    /// `InvalidInput` (less than `len` bytes of spare room), `UnexpectedEof` (the end came before);
    /// else those of [`recv`](Self::recv). The error carries `buf` with the bytes that came.
    /// # Cancel safety
    /// Cancel safe: the bytes that had come are first in the next call, of whatever kind.
    /// # Examples
    /// ```
    /// use tamam::tls::TlsStream;
    ///
    /// async fn header(stream: &TlsStream) -> std::io::Result<u32> {
    ///     let bytes = stream.read_exact(Vec::with_capacity(4), 4).await?;
    ///     Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    /// }
    /// # let _ = header;
    /// ```
    pub async fn read_exact<B: IoBufMut>(&self, buf: B, len: usize) -> Result<B, BufError<B>> {
        Read::exact(&self.session, buf, len).await.map(|(_, buf)| buf)
    }

    /// Gives plaintext back: the next call receives it first.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn peek(stream: &tamam::tls::TlsStream) -> std::io::Result<()> {
    /// if let Some(first) = stream.recv().await? {
    ///     println!("it begins with {:?}", first.first());
    ///     stream.unread(first);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn unread(&self, chunk: Chunk) {
        put_back(&self.session, chunk);
    }

    /// Sends `buf`, and returns how many bytes went out: always all of them.
    ///
    /// # Errors
    /// `BrokenPipe` (peer finished, or after [`shutdown`](Self::shutdown)), `ConnectionReset`
    /// (peer), `InvalidData` (TLS has failed). The error carries `buf`. The peer may have received
    /// a part of it: how much is not known.
    /// # Cancel safety
    /// Dropped before its turn: nothing is sent. Later: all is sent, you just do not hear of it.
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        self.session.send_some(buf)
    }

    /// Sends all of `buf` and gives it back.
    ///
    /// Buffers of concurrent sends go out one after the other, in the order of first polls.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    /// # Cancel safety
    /// As [`send`](Self::send). To give up for good, drop the stream.
    /// # Examples
    /// One buffer, filled again and again:
    /// ```
    /// use tamam::tls::TlsStream;
    ///
    /// async fn count(stream: &TlsStream) -> std::io::Result<()> {
    ///     let mut buf = String::new();
    ///     for n in 1..=3 {
    ///         buf.clear();
    ///         buf.push_str(&format!("{n}\n"));
    ///         buf = stream.send_all(buf).await?;
    ///     }
    ///     Ok(())
    /// }
    /// # let _ = count;
    /// ```
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        self.session.send_all(buf)
    }

    /// Sends all of `bufs`, in order and with nothing in between, and returns how many bytes went
    /// out: always all of them. Small ones share records.
    ///
    /// # Errors
    /// As [`send`](Self::send); the error carries `bufs`.
    /// # Cancel safety
    /// As [`send`](Self::send).
    /// # Examples
    /// ```
    /// use tamam::tls::TlsStream;
    ///
    /// async fn answer(stream: &TlsStream, head: Vec<u8>, body: Vec<u8>) -> std::io::Result<usize> {
    ///     let (sent, _bufs) = stream.sendv(vec![head, body]).await?;
    ///     Ok(sent)
    /// }
    /// # let _ = answer;
    /// ```
    pub fn sendv<B: IoBuf>(
        &self,
        bufs: Vec<B>,
    ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
        self.session.sendv(bufs)
    }

    /// Ends sending: after every byte of sends that were polled before this, the peer gets a
    /// `close_notify`, then TCP's end. Receiving goes on. Sends that come later fail with
    /// `BrokenPipe`. `Ok` means that the kernel has the end, not that the peer has seen it.
    ///
    /// A stream that is dropped after this keeps its socket until the peer has finished too: for at
    /// most 1 s, and for at most 64 KiB that the peer still sends, which are thrown away. A socket
    /// that is closed before everything has arrived, such as the session tickets of a TLS 1.3
    /// server, makes TCP send a reset, and the peer loses what it has not read yet. The end of the
    /// runtime, and a lack of descriptors, close the socket at once: [`close`](Self::close) waits.
    ///
    /// # Errors
    /// That of a send which failed before; `InvalidData` if TLS has failed, when TCP ends all the
    /// same; those of [`TcpStream::shutdown`].
    /// # Cancel safety
    /// Dropped after its first poll, the end still follows what is queued.
    /// # Examples
    /// ```
    /// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tamam::run(async {
    /// # let (client, server) = localhost::connect().await?;
    /// client.shutdown().await?;
    /// assert!(server.recv().await?.is_none()); // its `close_notify`
    ///
    /// server.send_all("bye").await?; // the other direction is open
    /// assert_eq!(client.read_exact(Vec::with_capacity(3), 3).await?, b"bye");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self) -> io::Result<()> {
        self.session.shutdown().await
    }

    /// Ends the connection in order: [`shutdown`](Self::shutdown), then receives until the peer has
    /// finished too. What still comes is thrown away. After `Ok` nothing that was sent is lost.
    ///
    /// The peer may take its time: put a [`timeout`](crate::time::timeout) around it.
    ///
    /// # Errors
    /// Those of [`shutdown`](Self::shutdown) and [`recv`](Self::recv): a peer that ends TCP without
    /// a `close_notify` gives `UnexpectedEof`.
    /// # Cancel safety
    /// Dropped after its first poll, it is as `shutdown` and a drop of the stream.
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use tamam::tls::TlsStream;
    /// async fn goodbye(stream: TlsStream) -> std::io::Result<()> {
    ///     stream.send_all("the last words").await?;
    ///     tamam::time::timeout(Duration::from_secs(5), stream.close()).await?
    /// }
    /// # let _ = goodbye;
    /// ```
    pub async fn close(self) -> io::Result<()> {
        self.session.shutdown().await?;
        drain(&self.session, usize::MAX).await
    }

    /// Changes the key with which this end encrypts, and asks the peer to change its own. This also
    /// happens by itself before a key has encrypted as much as is safe. Many of these without a
    /// byte in between look like an attack to the peer: rustls accepts 32.
    ///
    /// # Errors
    /// `Unsupported` with TLS 1.2; else those of [`send`](Self::send).
    /// # Examples
    /// ```
    /// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tamam::run(async {
    /// # let (client, server) = localhost::connect().await?;
    /// client.send_all("with the first key, ").await?;
    /// client.refresh_keys()?;
    /// client.send_all("with the second").await?;
    /// let text = server.read_exact(Vec::with_capacity(35), 35).await?;
    /// assert_eq!(text, b"with the first key, with the second");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn refresh_keys(&self) -> io::Result<()> {
        self.session.refresh_keys()
    }
}

impl TlsStream {
    /// The TCP connection below: [`get_ref`](Self::get_ref).
    ///
    /// # Examples
    /// ```
    /// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tamam::run(async {
    /// # let (client, server) = localhost::connect().await?;
    /// client.tcp().set_nodelay(true)?;
    /// assert!(client.tcp().nodelay()?);
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn tcp(&self) -> &TcpStream {
        self.session.stream()
    }

    /// The address of this end.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// The address of the peer, also when it is gone already.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }
}

impl<S: Duplex> Carried for TlsStream<S> {
    type Carrier = Session<S>;

    #[inline]
    fn carrier(&self) -> &Rc<Session<S>> {
        &self.session
    }
}

impl<S: Duplex> Drop for TlsStream<S> {
    fn drop(&mut self) {
        linger::release(&self.session);
    }
}

impl<S: Duplex> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("below", self.get_ref())
            .field("info", self.info())
            .finish_non_exhaustive()
    }
}

receives!(TlsStream<S> where S: Duplex);
transmits!(TlsStream<S> where S: Duplex); // dropped without `shutdown`, it sends no `close_notify`

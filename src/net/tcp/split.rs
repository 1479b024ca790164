//! The two directions of a TCP stream as two values. Both are handles over the same connection.
//! Read next: `stream/mod.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::stream::{TcpStream, all_sent, some_sent};
use crate::buf::{BufError, Chunk, IoBuf, IoBufMut, Many, One};
use crate::stream::{Connection, Peek, Read, ReadReport};
use crate::sys;

/// The receiving half of a [`TcpStream`].
///
/// Dropping it stops receiving: what was parked is freed, and TCP pushes the peer back. Sending
/// goes on until the other half is dropped too.
///
/// # Examples
/// One task receives while another sends:
/// ```
/// # tamam::run(async {
/// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
/// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
/// # let (server, _) = listener.accept().await?;
/// let (read, write) = client.into_split();
/// let received = tamam::spawn(async move {
///     let mut all = Vec::new();
///     while let Some(chunk) = read.recv().await? {
///         all.extend_from_slice(&chunk);
///     }
///     std::io::Result::Ok(all)
/// });
///
/// write.send_all("ping").await?;
/// let ping = server.read_exact(Vec::with_capacity(4), 4).await?;
/// server.send_all(ping).await?;
/// server.shutdown().await?;
/// assert_eq!(received.await??, b"ping");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct OwnedReadHalf {
    /// `None` after the half was moved into another value.
    connection: Option<Rc<Connection>>,
}

/// The sending half of a [`TcpStream`].
///
/// Dropping it shuts down sending: the peer sees the end after everything that was sent.
/// [`forget`](Self::forget) leaves the direction open.
///
/// # Examples
/// Dropping it ends one direction; the other goes on:
/// ```
/// # tamam::run(async {
/// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
/// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
/// # let (server, _) = listener.accept().await?;
/// let (read, write) = client.into_split();
/// write.send_all("question").await?;
/// drop(write);
/// assert_eq!(&server.recv().await?.expect("a message")[..], b"question");
/// assert!(server.recv().await?.is_none());
///
/// server.send_all("answer").await?;
/// assert_eq!(read.read_exact(Vec::with_capacity(6), 6).await?, b"answer");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct OwnedWriteHalf {
    /// `None` after the half was moved into another value.
    connection: Option<Rc<Connection>>,
}

fn present(connection: &Option<Rc<Connection>>) -> &Rc<Connection> {
    connection.as_ref().expect("a half has its connection until it is consumed")
}

impl OwnedReadHalf {
    /// Takes over one handle of the connection.
    pub(super) fn new(connection: Rc<Connection>) -> OwnedReadHalf {
        OwnedReadHalf { connection: Some(connection) }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        present(&self.connection)
    }

    /// Receives the next bytes: [`TcpStream::recv`], with its errors and cancel safety.
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (read, _write) = client.into_split();
    /// server.send_all("hello").await?;
    /// assert_eq!(&read.recv().await?.expect("a message")[..], b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> {
        self.connection().recv()
    }

    /// Receives into spare room: [`TcpStream::read`], with its errors and cancel safety.
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (read, _write) = client.into_split();
    /// server.send_all("hello").await?;
    /// let (len, buf) = read.read(Vec::with_capacity(1024)).await?;
    /// assert_eq!((len, &buf[..]), (5, &b"hello"[..]));
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = ReadReport<B>> {
        Read::some(self.connection(), buf)
    }

    /// Copies the bytes that come next: [`TcpStream::peek`], with its errors and cancel safety.
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (read, _write) = client.into_split();
    /// server.send_all("hello").await?;
    /// let (len, buf) = read.peek(Vec::with_capacity(1)).await?;
    /// assert_eq!((len, &buf[..]), (1, &b"h"[..]));
    /// assert_eq!(read.read_exact(Vec::with_capacity(5), 5).await?, b"hello"); // none was taken
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn peek<B: IoBufMut>(&self, buf: B) -> impl Future<Output = ReadReport<B>> {
        Peek::new(self.connection(), buf)
    }

    /// Receives a number of bytes: [`TcpStream::read_exact`], with its errors and cancel safety.
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (read, _write) = client.into_split();
    /// server.send_all("hello world").await?;
    /// assert_eq!(read.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn read_exact<B: IoBufMut>(&self, buf: B, len: usize) -> Result<B, BufError<B>> {
        Read::exact(self.connection(), buf, len).await.map(|(_, buf)| buf)
    }

    /// Makes the stream whole again, with everything that was received and everything queued.
    ///
    /// # Errors
    /// [`ReuniteError`] with both halves, if they are not of the same stream.
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (read, write) = client.into_split();
    /// write.send_all("before").await?;
    /// let client = read.reunite(write).expect("halves of one stream");
    /// client.send_all("after").await?;
    /// assert_eq!(server.read_exact(Vec::with_capacity(11), 11).await?, b"beforeafter");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reunite(mut self, mut other: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Rc::ptr_eq(self.connection(), other.connection()) {
            return Err(ReuniteError(self, other));
        }
        let connection = self.connection.take().expect("just compared");
        other.connection = None;
        // Two handles become one, and no direction ends.
        connection.drop_handle();
        Ok(TcpStream::from_connection(connection))
    }
}

impl OwnedWriteHalf {
    /// Takes over one handle of the connection.
    pub(super) fn new(connection: Rc<Connection>) -> OwnedWriteHalf {
        OwnedWriteHalf { connection: Some(connection) }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        present(&self.connection)
    }

    /// Sends a buffer: [`TcpStream::send`], with its errors and cancel safety.
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (_read, write) = client.into_split();
    /// let (sent, _buf) = write.send("hello").await?;
    /// assert_eq!(sent, 5);
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        self.connection().send(One::new(buf), some_sent)
    }

    /// Sends all of a buffer: [`TcpStream::send_all`], with its errors and cancel safety.
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (_read, write) = client.into_split();
    /// let mut buf = write.send_all(String::from("hello")).await?;
    /// buf.clear(); // to be filled again
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        self.connection().send(One::new(buf), all_sent)
    }

    /// Sends several buffers: [`TcpStream::sendv`], with its errors and cancel safety.
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (_read, write) = client.into_split();
    /// let (sent, _bufs) = write.sendv(vec!["hello ", "world"]).await?;
    /// assert_eq!(sent, 11);
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn sendv<B: IoBuf>(
        &self,
        bufs: Vec<B>,
    ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
        self.connection().send(Many::new(bufs), some_sent)
    }

    /// Ends sending: [`TcpStream::shutdown`], with its errors and cancel safety.
    ///
    /// # Examples
    /// ```
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (_read, write) = client.into_split();
    /// write.shutdown().await?;
    /// assert!(server.recv().await?.is_none());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn shutdown(&self) -> io::Result<()> {
        self.connection().shutdown().await
    }

    /// Drops the half without shutting down sending: the peer sees the end only when the other
    /// half is dropped too.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use tamam::time::timeout;
    ///
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let (read, write) = client.into_split();
    /// write.forget();
    /// assert!(timeout(Duration::from_millis(1), server.recv()).await.is_err()); // no end yet
    /// drop(read);
    /// assert!(server.recv().await?.is_none());
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn forget(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.drop_handle();
        }
    }
}

impl Drop for OwnedReadHalf {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.end_receive();
            connection.drop_handle();
        }
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.drop_sending_half();
        }
    }
}

/// The methods of both halves.
macro_rules! names {
    ($($half:ident),*) => {$(
        impl $half {
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
            /// let (read, write) = client.into_split();
            /// assert_eq!(read.local_addr()?, write.local_addr()?);
            /// # drop(server);
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
            /// let (read, write) = client.into_split();
            /// assert_eq!(read.peer_addr()?, server.local_addr()?);
            /// assert_eq!(write.peer_addr()?, server.local_addr()?);
            /// # std::io::Result::Ok(())
            /// # })?;
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                sys::peer_addr(self.as_fd())
            }
        }

        impl AsFd for $half {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.connection().fd()
            }
        }

        impl fmt::Debug for $half {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($half))
                    .field("local_addr", &self.local_addr().ok())
                    .field("peer_addr", &self.peer_addr().ok())
                    .finish_non_exhaustive()
            }
        }
    )*};
}

names!(OwnedReadHalf, OwnedWriteHalf);

/// Two halves that are not of the same stream.
///
/// # Examples
/// ```
/// use tamam::net::ReuniteError;
///
/// # tamam::run(async {
/// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
/// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
/// # let (server, _) = listener.accept().await?;
/// let (read, _write) = client.into_split();
/// let (_read, write) = server.into_split();
/// let ReuniteError(read, write) = read.reunite(write).unwrap_err();
/// assert_eq!(read.local_addr()?, write.peer_addr()?); // the two ends, in fact
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct ReuniteError(
    /// The receiving half.
    pub OwnedReadHalf,
    /// The sending half.
    pub OwnedWriteHalf,
);

impl fmt::Debug for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReuniteError").field(&self.0).field(&self.1).finish()
    }
}

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these halves are not of the same stream")
    }
}

impl std::error::Error for ReuniteError {}

//! The two directions of a TCP stream as two values. Both are handles over the same connection.
//! Read next: `stream/mod.rs`.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::stream::TcpStream;
use crate::io::{receives, transmits};
use crate::stream::{Connection, halves};
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

halves!(
    TcpStream,
    OwnedReadHalf,
    OwnedWriteHalf,
    SocketAddr,
    sys::local_addr,
    sys::peer_addr,
    "# let listener = tamam::net::TcpListener::bind(\"127.0.0.1:0\")?;
# let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
# let (server, _) = listener.accept().await?;"
);

receives!(OwnedReadHalf);
transmits!(OwnedWriteHalf {
    |half| {
        let _ = half.set_zero_linger(); // its errors do not matter to a stream that has failed
    }
});

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
pub struct ReuniteError<R = OwnedReadHalf, W = OwnedWriteHalf>(
    /// The receiving half.
    pub R,
    /// The sending half.
    pub W,
);

impl<R: fmt::Debug, W: fmt::Debug> fmt::Debug for ReuniteError<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReuniteError").field(&self.0).field(&self.1).finish()
    }
}

impl<R, W> fmt::Display for ReuniteError<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these halves are not of the same stream")
    }
}

impl<R: fmt::Debug, W: fmt::Debug> std::error::Error for ReuniteError<R, W> {}

//! `TcpStream` from std's and back, and the error of that, which gives the stream back. Read next:
//! `stream.rs`.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::options::Lingering;
use super::stream::TcpStream;
use crate::context;
use crate::sys;

impl TcpStream {
    /// Takes over a connected socket. The first receive gives what the socket has received already,
    /// or its end. The socket becomes non-blocking, and so do duplicates of its descriptor. A linger
    /// time above zero is switched off, see [`set_linger`](Self::set_linger). `TryFrom` does the
    /// same.
    ///
    /// # Errors
    /// `Other` outside a runtime; those of fcntl(2) and setsockopt(2).
    /// # Examples
    /// ```
    /// use std::io::Write;
    /// use tamam::net::TcpStream;
    ///
    /// # tamam::run(async {
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let mut client = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// client.write_all(b"early")?;
    ///
    /// let stream = TcpStream::from_std(listener.accept()?.0)?;
    /// assert_eq!(stream.read_exact(Vec::with_capacity(5), 5).await?, b"early");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        let home = context::try_current()?.driver.clone();
        sys::set_nonblocking(stream.as_fd())?;
        let lingering = Lingering::of_foreign(stream.as_fd())?;
        TcpStream::with_lingering(OwnedFd::from(stream), home, lingering)
    }

    /// Gives the socket back, with the bytes that were received and not read: they come before
    /// those still in the socket. The socket stays non-blocking. If a receive has met a reset
    /// already, the socket shows an end instead, because the kernel reports a reset once.
    ///
    /// There is no `IntoRawFd`, since it could not give these bytes:
    /// ```compile_fail
    /// fn raw(stream: tamam::net::TcpStream) -> std::os::fd::RawFd {
    ///     std::os::fd::IntoRawFd::into_raw_fd(stream)
    /// }
    /// ```
    ///
    /// # Errors
    /// [`IntoStdError`] with the stream, if bytes of a dropped send are still on their way out.
    /// Wait for them, with `shutdown` or another send, and try again.
    /// # Examples
    /// The unread bytes, then what is still in the socket:
    /// ```
    /// use std::io::Read;
    ///
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// client.send_all("hello world").await?;
    /// client.shutdown().await?;
    /// assert_eq!(server.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
    ///
    /// let (mut socket, mut rest) = server.into_std()?;
    /// socket.set_nonblocking(false)?;
    /// socket.read_to_end(&mut rest)?;
    /// assert_eq!(rest, b" world");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_std(self) -> Result<(std::net::TcpStream, Vec<u8>), IntoStdError> {
        match self.into_connection().into_parts() {
            Ok((fd, unread)) => Ok((fd.into(), unread)),
            Err((error, connection)) => {
                Err(IntoStdError::new(error, TcpStream::from_connection(connection)))
            }
        }
    }
}

impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    fn try_from(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        TcpStream::from_std(stream)
    }
}

/// Why `into_std` could not, with the stream: of [`TcpStream`], or of
/// [`UnixStream`](crate::net::UnixStream).
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
/// // A send that is dropped on its way out …
/// let len = 16 << 20;
/// assert!(timeout(Duration::from_millis(5), client.send_all(vec![7; len])).await.is_err());
/// let error = client.into_std().unwrap_err();
///
/// // … goes on. When all is out, the conversion succeeds.
/// let client = error.into_stream();
/// server.read_exact(Vec::with_capacity(len), len).await?;
/// client.shutdown().await?;
/// let (_socket, unread) = client.into_std()?;
/// assert!(unread.is_empty());
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct IntoStdError<S = TcpStream> {
    error: io::Error,
    stream: S,
}

impl<S> IntoStdError<S> {
    pub(crate) fn new(error: io::Error, stream: S) -> Self {
        IntoStdError { error, stream }
    }

    /// The stream, unchanged.
    pub fn into_stream(self) -> S {
        self.stream
    }
}

impl<S> From<IntoStdError<S>> for io::Error {
    fn from(error: IntoStdError<S>) -> io::Error {
        error.error
    }
}

impl<S> fmt::Debug for IntoStdError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoStdError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<S> fmt::Display for IntoStdError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<S> std::error::Error for IntoStdError<S> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

//! The error of `into_std` of streams, which gives the stream back.

use std::fmt;
use std::io;

use super::stream::TcpStream;

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

//! The connections of a listener as a stream of values. Each is taken as `accept` takes it. Read next:
//! `stream/accept.rs`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::listener::TcpListener;
use super::stream::TcpStream;
use crate::stream::AcceptNext;

/// The connections of a [`TcpListener`], from [`TcpListener::incoming`].
///
/// It never ends: an error is one item, and the next connection follows it, after the pause that
/// [`TcpListener::accept`] tells of.
///
/// # Examples
/// ```
/// use tamam::net::{TcpListener, TcpStream};
///
/// # tamam::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let mut incoming = listener.incoming();
/// let (stream, peer) = incoming.next().await?;
/// assert_eq!(peer, client.local_addr()?);
/// # drop(stream);
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "it accepts nothing unless it is polled"]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    /// The accept under way; `None` before the first poll, and after each connection.
    accept: Option<AcceptNext<'a>>,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(listener: &'a TcpListener) -> Incoming<'a> {
        Incoming { listener, accept: None }
    }

    /// Waits for the next connection: [`TcpListener::accept`], with its errors. (It is there
    /// without `StreamExt`, whose `next` would give an `Option` around the result.)
    ///
    /// # Cancel safety
    /// Cancel safe: a connection that arrives for a dropped or forgotten `next` is parked, and the
    /// next call gets it.
    /// # Kernel
    /// As [`TcpListener::accept`].
    /// # Examples
    /// ```
    /// use tamam::net::{TcpListener, TcpStream};
    ///
    /// async fn serve(listener: TcpListener) -> std::io::Result<()> {
    ///     let mut incoming = listener.incoming();
    ///     loop {
    ///         let (stream, _peer) = incoming.next().await?;
    ///         tamam::spawn(async move { stream.send_all("hello").await });
    ///     }
    /// }
    /// # tamam::run(async {
    /// #     let listener = TcpListener::bind("127.0.0.1:0")?;
    /// #     let addr = listener.local_addr()?;
    /// #     tamam::spawn(serve(listener));
    /// #     let stream = TcpStream::connect(addr).await?;
    /// #     assert_eq!(stream.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
    /// #     std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accept = self.accept.get_or_insert_with(|| self.listener.inner().accept());
        let accepted = ready!(Pin::new(accept).poll(cx));
        self.accept = None;
        Poll::Ready(accepted.and_then(|fd| self.listener.connected(fd)))
    }
}

impl Stream for Incoming<'_> {
    type Item = io::Result<(TcpStream, SocketAddr)>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_accept(cx).map(Some)
    }
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("listener", self.listener).finish_non_exhaustive()
    }
}

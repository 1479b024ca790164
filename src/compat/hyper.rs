//! What hyper needs of a runtime: streams, [`Executor`], [`Timer`].
//!
//! ```
//! use std::convert::Infallible;
//! use std::time::Duration;
//!
//! use hyper::service::service_fn;
//! use hyper::{Request, Response, body::Incoming};
//! use tamam::net::{TcpListener, TcpStream};
//!
//! tamam::run(async {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     tamam::spawn(async move {
//!         let (stream, _) = listener.accept().await?;
//!         let hello = async |_: Request<Incoming>| {
//!             Ok::<_, Infallible>(Response::new(String::from("hello")))
//!         };
//!         hyper::server::conn::http1::Builder::new()
//!             .timer(tamam::hyper::Timer::new())
//!             .header_read_timeout(Duration::from_secs(10))
//!             .serve_connection(stream, service_fn(hello))
//!             .await
//!             .map_err(std::io::Error::other)
//!     });
//!
//!     let stream = TcpStream::connect(addr).await?;
//!     let (mut sender, connection) =
//!         hyper::client::conn::http1::handshake(stream).await.map_err(std::io::Error::other)?;
//!     tamam::spawn(connection);
//!     let request = Request::get("/").header("host", "localhost").body(String::new()).unwrap();
//!     let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
//!     assert_eq!(response.status(), 200);
//!     std::io::Result::Ok(())
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::hyper::rt::{self, Read, ReadBufCursor, Write};

use super::at_home::AtHome;
use crate::context;
use crate::io::{AnyStream, DuplexStream};
use crate::net::{TcpStream, UnixStream};
use crate::stream::Carried;
use crate::stream::poll::{PollReceive, PollSend};
use crate::time::{TimerKey, Timers, saturating_add};
#[cfg(feature = "tls")]
use crate::tls::TlsStream;

macro_rules! stream {
    ($door:ident, $flush:ident: $($stream:ty),*) => {$(
        impl Read for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                mut buf: ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                let room = buf.remaining();
                self.$door().poll_read(cx, room, |piece| buf.put_slice(piece))
            }
        }

        impl Write for $stream {
            super::write_and_close!($door, poll_shutdown);

            /// True lets hyper copy its pieces once, into the stream's buffer. Otherwise it would
            /// copy them into a buffer of its own first.
            fn is_write_vectored(&self) -> bool {
                true
            }

            /// Of a socket, ready as soon as all bytes are handed to its send queue, not when they are
            /// out: hyper does not wait for that, and a later wake would be for nothing.
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.$door().$flush(cx)
            }
        }
    )*};
}

stream!(connection, poll_submitted: TcpStream, UnixStream);
stream!(carrier, poll_flush: DuplexStream, AnyStream);
#[cfg(feature = "tls")]
stream!(session, poll_submitted: TlsStream);

/// Runs hyper's background futures as tasks of the runtime that is entered on this thread. They
/// need not be `Send`. Pass it to `http2::Builder::new` or hyper-util's `auto::Builder::new`.
///
/// # Panics
/// A spawn panics if the thread is not inside a runtime.
/// # Examples
/// HTTP/2 needs one, for its connection and its streams:
/// ```
/// use hyper::client::conn::http2;
/// use tamam::net::TcpStream;
///
/// async fn connect(stream: TcpStream) -> hyper::Result<http2::SendRequest<String>> {
///     let builder = http2::Builder::new(tamam::hyper::Executor::new());
///     let (sender, connection) = builder.handshake(stream).await?;
///     tamam::spawn(connection);
///     Ok(sender)
/// }
/// # tamam::run(async {
/// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
/// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
/// # let (server, _) = listener.accept().await?;
/// # let _open = server;
/// let sender = connect(client).await.map_err(std::io::Error::other)?;
/// assert!(sender.is_ready());
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Executor;

impl Executor {
    /// An executor that uses the runtime entered at the time of each spawn.
    pub fn new() -> Executor {
        Executor
    }
}

impl<F> rt::Executor<F> for Executor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        drop(crate::runtime::spawn(future));
    }
}

/// The timer for hyper's timeouts: pass it to `Builder::timer`. Without one, hyper panics when a
/// timeout is set.
///
/// # Panics
/// A sleep panics if it is polled outside a runtime.
/// # Examples
/// A client that never sends its request is cut off:
/// ```
/// use std::time::Duration;
/// use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
///
/// # tamam::run(async {
/// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
/// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
/// # let (server, _) = listener.accept().await?;
/// let empty = async |_: Request<Incoming>| hyper::Result::Ok(Response::new(String::new()));
/// let served = http1::Builder::new()
///     .timer(tamam::hyper::Timer::new())
///     .header_read_timeout(Duration::from_millis(2))
///     .serve_connection(server, service_fn(empty))
///     .await;
/// assert!(served.unwrap_err().is_timeout());
/// # drop(client);
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Timer;

impl Timer {
    /// A timer that uses the runtime entered at the time of each poll.
    pub fn new() -> Timer {
        Timer
    }
}

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        rt::Timer::sleep_until(self, saturating_add(Instant::now(), duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(HyperSleep { deadline, place: None })
    }
}

/// A sleep that is `Send` and `Sync`, as hyper demands. It keeps its runtime and its timer as plain
/// numbers, and looks them up on the thread that polls it.
struct HyperSleep {
    deadline: Instant,
    /// The serial of the runtime's timers, and the key of its timer there. The key is stale if the
    /// timer has fired.
    place: Option<(u64, TimerKey)>,
}

impl rt::Sleep for HyperSleep {}

impl HyperSleep {
    /// One poll, with the timers of the runtime on this thread. `Pending`: the timer there will
    /// wake the task.
    fn poll_with(&mut self, timers: &Timers, cx: &mut Context<'_>) -> Poll<()> {
        match self.place {
            Some((serial, key)) if serial == timers.serial() => {
                if timers.update(key, cx.waker()) {
                    return Poll::Pending;
                }
                self.place = None;
                if timers.has_reached(timers.to_ns(self.deadline)) {
                    return Poll::Ready(());
                }
            }
            // The timer is in another runtime, out of reach. It stays there until it fires, and
            // that wake does no harm.
            _ => self.place = None,
        }
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let key = timers.insert(timers.to_ns(self.deadline), cx.waker().clone());
        self.place = Some((timers.serial(), key));
        Poll::Pending
    }
}

impl Future for HyperSleep {
    type Output = ();

    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timers) = context::timers() else { panic!("{}", context::missing()) };
        self.get_mut().poll_with(&timers, cx)
    }
}

impl Drop for HyperSleep {
    fn drop(&mut self) {
        let (Some((serial, key)), Some(timers)) = (self.place, context::timers()) else { return };
        if timers.serial() == serial {
            drop(timers.remove(key));
        }
    }
}

/// A stream that hyper may upgrade, for example to WebSocket. hyper's `with_upgrades` demands
/// `Send`, which the streams of this crate are not, and this is.
///
/// You may move it to another thread, but not use it there. If it is dropped there, it leaks the
/// stream, because only the thread of a runtime can close its streams.
///
/// # Panics
/// When it is used on another thread than the one it was made on.
/// # Examples
/// ```
/// # use tamam::net::TcpStream;
/// # async fn serve(stream: TcpStream, service: impl hyper::service::HttpService<
/// #     hyper::body::Incoming, ResBody = String, Error = std::convert::Infallible>) {
/// let stream = tamam::hyper::Upgradeable::new(stream);
/// let connection = hyper::server::conn::http1::Builder::new()
///     .serve_connection(stream, service)
///     .with_upgrades();
/// # drop(connection);
/// # }
/// ```
pub struct Upgradeable<T> {
    stream: AtHome<T>,
}

impl<T> Upgradeable<T> {
    /// Wraps a stream of this thread.
    pub fn new(stream: T) -> Upgradeable<T> {
        Upgradeable { stream: AtHome::new(stream) }
    }

    /// Returns the stream.
    ///
    /// # Panics
    /// On another thread than the one it was made on.
    /// # Examples
    /// ```
    /// use tamam::hyper::Upgradeable;
    ///
    /// # tamam::run(async {
    /// # let listener = tamam::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let client = tamam::net::TcpStream::connect(listener.local_addr()?).await?;
    /// # let (server, _) = listener.accept().await?;
    /// let stream = Upgradeable::new(client).into_inner();
    /// stream.send_all("hello").await?;
    /// assert_eq!(server.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_inner(self) -> T {
        self.stream.into_inner()
    }

    /// The stream. Panics on another thread than the one it was made on.
    fn stream(self: Pin<&mut Self>) -> Pin<&mut T>
    where
        T: Unpin,
    {
        Pin::new(self.get_mut().stream.get_mut())
    }
}

impl<T> fmt::Debug for Upgradeable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgradeable").field("home", &self.stream.home()).finish_non_exhaustive()
    }
}

impl<T: Read + Unpin> Read for Upgradeable<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for Upgradeable<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

//! The two directions of a TCP stream as two values. Both are handles over the same connection.
//! Read next: `stream/mod.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::socket::TcpKeepalive;
use super::stream::{TcpStream, all_sent, some_sent};
use crate::buf::{BufError, Chunk, IoBuf, IoBufMut, Many, One};
use crate::stream::{Connection, Read, ReadReport};
use crate::sys::{self, IntOption};

/// The receiving half of a [`TcpStream`].
///
/// Dropping it stops receiving: what was parked is freed, and TCP pushes the peer back. Sending
/// goes on until the other half is dropped too.
pub struct OwnedReadHalf {
    /// `None` after the half was moved into another value.
    connection: Option<Rc<Connection>>,
}

/// The sending half of a [`TcpStream`].
///
/// Dropping it shuts down sending: the peer sees the end after everything that was sent.
/// [`forget`](Self::forget) leaves the direction open.
pub struct OwnedWriteHalf {
    /// `None` after the half was moved into another value.
    connection: Option<Rc<Connection>>,
}

fn present(connection: &Option<Rc<Connection>>) -> &Rc<Connection> {
    connection.as_ref().expect("a half has its connection until it is consumed")
}

impl OwnedReadHalf {
    pub(super) fn new(connection: Rc<Connection>) -> OwnedReadHalf {
        OwnedReadHalf { connection: Some(connection) }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        present(&self.connection)
    }

    /// Receives the next bytes: [`TcpStream::recv`], with its errors and cancel safety.
    pub fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> {
        self.connection().recv()
    }

    /// Receives into spare room: [`TcpStream::read`], with its errors and cancel safety.
    pub fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = ReadReport<B>> {
        Read::some(self.connection(), buf)
    }

    /// Receives a number of bytes: [`TcpStream::read_exact`], with its errors and cancel safety.
    pub async fn read_exact<B: IoBufMut>(&self, buf: B, len: usize) -> Result<B, BufError<B>> {
        Read::exact(self.connection(), buf, len).await.map(|(_, buf)| buf)
    }

    /// Makes the stream whole again, with everything that was received and everything queued.
    ///
    /// # Errors
    /// [`ReuniteError`] with both halves, if they are not of the same stream.
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
    pub(super) fn new(connection: Rc<Connection>) -> OwnedWriteHalf {
        OwnedWriteHalf { connection: Some(connection) }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        present(&self.connection)
    }

    /// Sends a buffer: [`TcpStream::send`], with its errors and cancel safety.
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        self.connection().send(One::new(buf), some_sent)
    }

    /// Sends all of a buffer: [`TcpStream::send_all`], with its errors and cancel safety.
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        self.connection().send(One::new(buf), all_sent)
    }

    /// Sends several buffers: [`TcpStream::sendv`], with its errors and cancel safety.
    pub fn sendv<B: IoBuf>(
        &self,
        bufs: Vec<B>,
    ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
        self.connection().send(Many::new(bufs), some_sent)
    }

    /// Ends sending: [`TcpStream::shutdown`], with its errors and cancel safety.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.connection().shutdown().await
    }

    /// Drops the half without shutting down sending: the peer sees the end only when the other
    /// half is dropped too.
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
            connection.ask_shutdown();
            connection.drop_handle();
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
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                sys::local_addr(self.as_fd())
            }

            /// The address of the peer, also when it is gone already.
            ///
            /// # Errors
            /// Those of getsockopt(2).
            pub fn peer_addr(&self) -> io::Result<SocketAddr> {
                sys::peer_addr(self.as_fd())
            }

            /// Whether small sends go out at once: [`TcpStream::nodelay`].
            ///
            /// # Errors
            /// Those of getsockopt(2).
            pub fn nodelay(&self) -> io::Result<bool> {
                sys::get(self.as_fd(), IntOption::NoDelay).map(|on| on != 0)
            }

            /// Sets TCP_NODELAY: [`TcpStream::set_nodelay`].
            ///
            /// # Errors
            /// Those of setsockopt(2).
            pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
                sys::set(self.as_fd(), IntOption::NoDelay, on.into())
            }

            /// Sets SO_KEEPALIVE and its times: [`TcpStream::set_keepalive`].
            ///
            /// # Errors
            /// Those of setsockopt(2).
            pub fn set_keepalive(&self, keepalive: TcpKeepalive) -> io::Result<()> {
                keepalive.apply(self.as_fd())
            }

            /// Makes the drop reset the connection: [`TcpStream::set_zero_linger`].
            ///
            /// # Errors
            /// Those of setsockopt(2).
            pub fn set_zero_linger(&self) -> io::Result<()> {
                self.connection().set_zero_linger()
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

//! The two directions of a TLS stream as two values. Both are handles over the same session. Read
//! next: `session.rs`.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::TlsInfo;
use super::linger;
use super::session::Session;
use super::stream::TlsStream;
use crate::buf::{BufError, Chunk, IoBuf, IoBufMut};
use crate::io::{Duplex, receives, transmits};
use crate::net::TcpStream;
use crate::stream::{Carrier, Peek, Read, RecvChunk, put_back};

/// The receiving half of a [`TlsStream`].
///
/// Dropping it stops receiving: what was received is freed, and TCP pushes the peer back. Sending
/// goes on until the other half is dropped too.
///
/// # Examples
/// One task receives while another sends:
/// ```
/// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tamam::run(async {
/// # let (client, server) = localhost::connect().await?;
/// let (read, write) = client.into_split();
/// let answer = tamam::spawn(async move { read.read_exact(Vec::with_capacity(4), 4).await });
/// write.send_all("ping").await?;
///
/// let chunk = server.recv().await?.expect("a message");
/// server.send_all(chunk).await?;
/// assert_eq!(answer.await??, b"ping");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok(())
/// # }
/// ```
pub struct TlsReadHalf<S: Duplex = TcpStream> {
    /// `None` after the half was moved into another value.
    session: Option<Rc<Session<S>>>,
}

/// The sending half of a [`TlsStream`].
///
/// Dropping it ends sending, in the background: the peer gets a `close_notify` after everything
/// that was sent, then the end of TCP. [`forget`](Self::forget) leaves the direction open.
///
/// # Examples
/// Dropping it ends one direction; the other goes on:
/// ```
/// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tamam::run(async {
/// # let (client, server) = localhost::connect().await?;
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
/// # Ok(())
/// # }
/// ```
pub struct TlsWriteHalf<S: Duplex = TcpStream> {
    /// `None` after the half was moved into another value.
    session: Option<Rc<Session<S>>>,
}

fn present<S: Duplex>(session: &Option<Rc<Session<S>>>) -> &Rc<Session<S>> {
    session.as_ref().expect("a half has its session until it is consumed")
}

impl<S: Duplex> TlsReadHalf<S> {
    pub(super) fn new(session: Rc<Session<S>>) -> TlsReadHalf<S> {
        TlsReadHalf { session: Some(session) }
    }

    pub(crate) fn session(&self) -> &Rc<Session<S>> {
        present(&self.session)
    }

    /// Receives the next bytes: [`TlsStream::recv`], with its errors and cancel safety.
    pub fn recv(&self) -> impl Future<Output = io::Result<Option<Chunk>>> {
        RecvChunk::new(self.session())
    }

    /// Receives into spare room: [`TlsStream::read`], with its errors and cancel safety.
    pub fn read<B: IoBufMut>(
        &self,
        buf: B,
    ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        Read::some(self.session(), buf)
    }

    /// Looks at the bytes that come next: [`TlsStream::peek`], with its errors and cancel safety.
    pub fn peek<B: IoBufMut>(
        &self,
        buf: B,
    ) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        Peek::new(self.session(), buf)
    }

    /// Receives a number of bytes: [`TlsStream::read_exact`], with its errors and cancel safety.
    pub async fn read_exact<B: IoBufMut>(&self, buf: B, len: usize) -> Result<B, BufError<B>> {
        Read::exact(self.session(), buf, len).await.map(|(_, buf)| buf)
    }

    /// Gives plaintext back: [`TlsStream::unread`].
    pub fn unread(&self, chunk: Chunk) {
        put_back(self.session(), chunk);
    }

    /// Makes the stream whole again, with everything that was received and everything queued.
    ///
    /// # Errors
    /// [`TlsReuniteError`] with both halves, if they are not of the same stream.
    /// # Examples
    /// ```
    /// use tamam::tls::TlsStream;
    ///
    /// async fn ask(stream: TlsStream) -> std::io::Result<TlsStream> {
    ///     let (read, write) = stream.into_split();
    ///     write.send_all("ping").await?;
    ///     let _answer = read.recv().await?;
    ///     Ok(read.reunite(write).expect("halves of one stream"))
    /// }
    /// # let _ = ask;
    /// ```
    pub fn reunite(
        mut self,
        mut other: TlsWriteHalf<S>,
    ) -> Result<TlsStream<S>, TlsReuniteError<S>> {
        if !Rc::ptr_eq(self.session(), other.session()) {
            return Err(TlsReuniteError(self, other));
        }
        other.session = None;
        Ok(TlsStream::new(self.session.take().expect("just compared")))
    }
}

impl<S: Duplex> TlsWriteHalf<S> {
    pub(super) fn new(session: Rc<Session<S>>) -> TlsWriteHalf<S> {
        TlsWriteHalf { session: Some(session) }
    }

    pub(crate) fn session(&self) -> &Rc<Session<S>> {
        present(&self.session)
    }

    /// Sends a buffer: [`TlsStream::send`], with its errors and cancel safety.
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<(usize, B), BufError<B>>> {
        self.session().send_some(buf)
    }

    /// Sends all of a buffer: [`TlsStream::send_all`], with its errors and cancel safety.
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        self.session().send_all(buf)
    }

    /// Sends several buffers: [`TlsStream::sendv`], with its errors and cancel safety.
    pub fn sendv<B: IoBuf>(
        &self,
        bufs: Vec<B>,
    ) -> impl Future<Output = Result<(usize, Vec<B>), BufError<Vec<B>>>> {
        self.session().sendv(bufs)
    }

    /// Ends sending: [`TlsStream::shutdown`], with its errors and cancel safety.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.session().shutdown().await
    }

    /// Drops the half without ending sending. When the other half is dropped too, the peer sees a
    /// truncated stream.
    ///
    /// # Examples
    /// After `shutdown`, the half is not needed any more:
    /// ```
    /// use tamam::tls::TlsWriteHalf;
    ///
    /// async fn finish(write: TlsWriteHalf) -> std::io::Result<()> {
    ///     write.shutdown().await?;
    ///     write.forget();
    ///     Ok(())
    /// }
    /// # let _ = finish;
    /// ```
    pub fn forget(mut self) {
        self.session = None;
    }
}

impl<S: Duplex> Drop for TlsReadHalf<S> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.end_receive();
            linger::release(&session);
        }
    }
}

impl<S: Duplex> Drop for TlsWriteHalf<S> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.close_in_background();
            linger::release(&session);
        }
    }
}

/// The methods of both halves.
macro_rules! names {
    ($($half:ident),*) => {$(
        impl<S: Duplex> $half<S> {
            /// The result of the handshake: [`TlsStream::info`].
            pub fn info(&self) -> &TlsInfo {
                self.session().info()
            }

            /// The stream below: [`TlsStream::get_ref`].
            pub fn get_ref(&self) -> &S {
                self.session().stream()
            }
        }

        impl $half {
            /// The TCP connection below: [`TlsStream::tcp`].
            pub fn tcp(&self) -> &TcpStream {
                self.session().stream()
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

        impl<S: Duplex> fmt::Debug for $half<S> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($half))
                    .field("below", self.get_ref())
                    .field("info", self.info())
                    .finish_non_exhaustive()
            }
        }
    )*};
}

names!(TlsReadHalf, TlsWriteHalf);

/// Two halves that are not of the same stream.
pub struct TlsReuniteError<S: Duplex = TcpStream>(
    /// The receiving half.
    pub TlsReadHalf<S>,
    /// The sending half.
    pub TlsWriteHalf<S>,
);

impl<S: Duplex> fmt::Debug for TlsReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsReuniteError").field(&self.0).field(&self.1).finish()
    }
}

impl<S: Duplex> fmt::Display for TlsReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these halves are not of the same stream")
    }
}

impl<S: Duplex> std::error::Error for TlsReuniteError<S> {}

receives!(TlsReadHalf<S> where S: Duplex);
transmits!(TlsWriteHalf<S> where S: Duplex);

//! What all streams have in common (SEMANTICS, "Streams in general").

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/frames.rs"]
mod frames;
#[path = "../common/keys.rs"]
mod keys;

mod layers;
mod every_stream;
mod memory;
mod any_stream;
mod copying;
mod gathering;

use std::fmt::Debug;
use std::future::Future;
use std::io::{Error, ErrorKind, Result};

use tamam::Chunk;
use tamam::buf::{BufError, IoBuf, IoBufMut};
use tamam::io::{AnyStream, Receive, Transmit};
use tamam::net::UnixStream;
use tamam::pipe::{Receiver, Sender, pipe};

/// The kind of the error that a call had to end with.
pub fn kind<T: Debug, E: Into<Error>>(result: std::result::Result<T, E>) -> ErrorKind {
    result.map_err(Into::into).expect_err("it has failed").kind()
}

/// Both ends of a Unix socket pair.
pub fn unix_pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("descriptors are left")
}

/// The result of a call that was given a `B`.
type Given<T, B> = std::result::Result<T, BufError<B>>;

/// An end of two pipes, one for each direction.
#[derive(Debug)]
pub struct Pipes {
    receiver: Receiver,
    sender: Sender,
}

impl Receive for Pipes {
    fn recv(&self) -> impl Future<Output = Result<Option<Chunk>>> {
        self.receiver.recv()
    }

    fn unread(&self, chunk: Chunk) {
        self.receiver.unread(chunk);
    }

    fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = Given<(usize, B), B>> {
        self.receiver.read(buf)
    }

    fn read_exact<B: IoBufMut>(&self, buf: B, len: usize) -> impl Future<Output = Given<B, B>> {
        self.receiver.read_exact(buf, len)
    }
}

impl Transmit for Pipes {
    fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Given<B, B>> {
        self.sender.send_all(buf)
    }

    fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = Given<(usize, B), B>> {
        self.sender.send(buf)
    }

    fn sendv<B: IoBuf>(
        &self,
        bufs: Vec<B>,
    ) -> impl Future<Output = Given<(usize, Vec<B>), Vec<B>>> {
        self.sender.sendv(bufs)
    }

    fn shutdown(&self) -> impl Future<Output = Result<()>> {
        self.sender.shutdown()
    }
}

/// Both ends, with their kind forgotten.
pub fn any<S: Into<AnyStream>>((a, b): (S, S)) -> (AnyStream, AnyStream) {
    (a.into(), b.into())
}

/// Both ends of two pipes.
pub fn pipes() -> (Pipes, Pipes) {
    let (there, back) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    (Pipes { receiver: back.1, sender: there.0 }, Pipes { receiver: there.1, sender: back.0 })
}

/// Awaits `check(name, pair)` with both ends of every stream.
macro_rules! on_every_stream {
    ($check:expr) => {{
        use tamam::io::duplex;
        use tamam::tls::rustls::version::{TLS12, TLS13};
        use $crate::keys::{tcp_pair, tls_over};
        use $crate::{pipes, unix_pair};

        $check("TCP", tcp_pair().await).await;
        $check("Unix sockets", unix_pair()).await;
        $check("pipes", pipes()).await;
        $check("memory", duplex(1000)).await;
        $check("memory of one byte", duplex(1)).await;
        $check("TLS over TCP", tls_over(&TLS13, tcp_pair().await).await).await;
        $check("TLS over Unix sockets", tls_over(&TLS12, unix_pair()).await).await;
        $check("TLS over memory", tls_over(&TLS13, duplex(5000)).await).await;
        $check("any stream", $crate::any(tls_over(&TLS12, $crate::any(duplex(99))).await)).await;
        $check("TLS over TLS", tls_over(&TLS13, tls_over(&TLS13, duplex(500)).await).await).await;
    }};
}
pub(crate) use on_every_stream;

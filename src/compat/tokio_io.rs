//! The I/O traits of tokio, without its runtime: for tokio-util's codecs and what is built on them.
#![allow(unsafe_code)]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::io::{AnyStream, DuplexStream, Stderr, Stdin, Stdout};
use crate::net::{
    OwnedReadHalf, OwnedWriteHalf, TcpStream, UnixReadHalf, UnixStream, UnixWriteHalf,
};
use crate::pipe::{Receiver, Sender};
use crate::stream::Carried;
use crate::stream::poll::{PollReceive, PollSend};
#[cfg(feature = "tls")]
use crate::tls::{TlsReadHalf, TlsStream, TlsWriteHalf};

macro_rules! reading {
    ($door:ident: $($stream:ty),*) => {$(
        /// Copies received bytes to the buffer, as many as fit. (`recv` and `fill_buf` do not
        /// copy.) Only one task at a time can wait: the last one that polled is woken.
        impl AsyncRead for $stream {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let room = buf.remaining();
                self.$door().poll_read(cx, room, |piece| buf.put_slice(piece))
            }
        }
    )*};
}

macro_rules! lending {
    ($door:ident: $($stream:ty),*) => {$(
        /// Lends the received bytes without copying them.
        impl AsyncBufRead for $stream {
            fn poll_fill_buf(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<&[u8]>> {
                // SAFETY: the slice borrows the only handle of this direction. As long as the slice
                // lives, the handle lives too, and no call can receive with it.
                unsafe { self.get_mut().$door().poll_fill(cx) }
            }

            fn consume(self: Pin<&mut Self>, len: usize) {
                self.$door().consume(len);
            }
        }
    )*};
}

macro_rules! writing {
    ($door:ident: $($stream:ty),*) => {$(
        /// Copies the bytes to the stream's send buffer. The kernel gets them when this turn of the
        /// runtime ends, under epoll at once; `poll_flush` waits until it has. If that fails, the
        /// next call returns the error. `poll_shutdown` waits until all is out, then ends sending.
        impl AsyncWrite for $stream {
            super::write_and_close!($door, poll_shutdown);

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.$door().poll_flush(cx)
            }
        }
    )*};
}

reading!(connection: TcpStream, OwnedReadHalf, UnixStream, UnixReadHalf, Receiver);
lending!(connection: TcpStream, OwnedReadHalf, UnixStream, UnixReadHalf, Receiver);
writing!(connection: TcpStream, OwnedWriteHalf, UnixStream, UnixWriteHalf, Sender);
reading!(carrier: DuplexStream, AnyStream, Stdin);
lending!(carrier: DuplexStream, AnyStream); // handles of `Stdin` share what is lent
writing!(carrier: DuplexStream, AnyStream, Stdout, Stderr);
#[cfg(feature = "tls")]
reading!(session: TlsStream, TlsReadHalf);
#[cfg(feature = "tls")]
lending!(session: TlsStream, TlsReadHalf);
#[cfg(feature = "tls")]
writing!(session: TlsStream, TlsWriteHalf);

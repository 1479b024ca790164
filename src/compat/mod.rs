//! The streams as other crates want them: one file and one feature for each family of traits.
//!
//! Nothing is decided here. What the traits ask for stands in `net/connection/poll.rs`, and for TLS
//! in `tls/`, under the same names; an adapter only changes the shape of the arguments. No future is
//! boxed, and a stream nobody reads from holds no buffer.

/// What the three writing traits have alike, down to the types; only the last method has two names.
macro_rules! write_and_close {
    ($door:ident, $close:ident) => {
        fn poll_write(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            buf: &[u8],
        ) -> ::std::task::Poll<::std::io::Result<usize>> {
            self.$door().poll_write(cx, &[::std::io::IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
            bufs: &[::std::io::IoSlice<'_>],
        ) -> ::std::task::Poll<::std::io::Result<usize>> {
            self.$door().poll_write(cx, bufs)
        }

        fn $close(
            self: ::std::pin::Pin<&mut Self>,
            cx: &mut ::std::task::Context<'_>,
        ) -> ::std::task::Poll<::std::io::Result<()>> {
            self.$door().poll_close(cx)
        }
    };
}
use write_and_close;

#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "tokio-io")]
mod tokio_io;
#[cfg(feature = "hyper")]
pub mod hyper;

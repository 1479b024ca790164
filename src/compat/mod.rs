//! The traits of other crates on our streams and sockets: one file and one feature for each family
//! of traits.
//!
//! Nothing is decided here. `stream/poll.rs`, and for sending through TLS `tls/poll.rs`, have
//! methods for all that the traits demand; an adapter only converts the arguments. No future is
//! boxed, and a stream that is not read from holds no buffer.

/// The methods that are the same in all three traits for writing, except that the last one has two
/// names.
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
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
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
use write_and_close;

#[cfg(any(feature = "hyper", feature = "quinn"))]
mod at_home;
#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "tokio-io")]
mod tokio_io;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "quinn")]
pub mod quinn;

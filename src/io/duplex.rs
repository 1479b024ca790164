//! `Duplex`: what TLS runs over. Read next: `stream/layer.rs`.

use std::fmt::Debug;

use super::receive::Receive;
use super::transmit::Transmit;
use crate::stream::Carried;

/// A stream in both directions that TLS runs over: [`TcpStream`](crate::net::TcpStream),
/// [`UnixStream`](crate::net::UnixStream), [`DuplexStream`](super::DuplexStream),
/// [`AnyStream`](super::AnyStream) and `TlsStream` over each of these, itself included.
///
/// It is sealed: only this crate implements it, since decrypting in place and sending in the
/// background need more than [`Receive`] and [`Transmit`] offer.
///
/// # Examples
/// ```
/// use tamam::io::{Duplex, Transmit};
/// use tamam::net::UnixStream;
///
/// async fn greet(stream: impl Duplex) -> std::io::Result<()> {
///     stream.send_all("hello").await?;
///     stream.shutdown().await
/// }
///
/// # tamam::run(async {
/// let (client, server) = UnixStream::pair()?;
/// greet(client).await?;
/// assert_eq!(tamam::io::read_to_end(&server, 100).await?, b"hello");
/// # std::io::Result::Ok(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[allow(private_bounds, reason = "so it is sealed")]
pub trait Duplex: Receive + Transmit + Debug + Carried {}

impl<S: Receive + Transmit + Debug + Carried> Duplex for S {}

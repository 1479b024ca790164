//! TLS over TCP, Unix sockets, memory and TLS itself, by [rustls].
//!
//! A [`TlsConnector`] or a [`TlsAcceptor`] makes a [`TlsStream`] of a stream by a handshake, for
//! which the peer has 10 s unless told otherwise. The stream is a
//! [`TcpStream`](crate::net::TcpStream), or another [`Duplex`](crate::io::Duplex). The stream has
//! the calls of the one below it, and their guarantees: a future dropped at any point loses no byte
//! and sends none twice.
//!
//! The cryptography is rustls' provider of your choice, in the config that you hand in. The
//! features `tls-ring` and `tls-aws-lc-rs` bring one each, and `client_config` and `server_config`
//! to build configs with it; `native-certs` and `webpki-roots` bring authorities to trust.
//!
//! # A certificate to try it with
//! rustls takes no certificate of an authority for that of a server, which is what `openssl req -x509`
//! makes unless it is told otherwise:
//!
//! ```text
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
//!     -keyout key.pem -out cert.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost \
//!     -addext basicConstraints=critical,CA:FALSE
//! ```
//!
//! [`load_certs`] and [`load_key`] read the files. The example of [`TlsStream`] has a client that trusts
//! such a certificate.
//!
//! # Errors
//! Failures are [`std::io::Error`]s: `InvalidData` for one of TLS, with a [`TlsError`] inside;
//! `UnexpectedEof` for a peer that ends the connection without ending TLS before; `TimedOut` for a
//! handshake that took too long. They stay.
//!
//! # Versions
//! Types of [`rustls`] 0.23 are part of this module. Another major version of it is another minor
//! one of this crate.

mod acceptor;
mod config;
mod connector;
mod failure;
mod protocol;
mod unbuffered;
mod info;
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
#[allow(dead_code, reason = "each feature uses a part of it")]
mod poll;
mod linger;
mod outbound;
mod session;
mod split;
mod stream;
#[cfg(all(test, feature = "tls-ring"))]
mod tests;

pub use acceptor::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};
#[cfg(feature = "native-certs")]
pub use config::native_roots;
#[cfg(feature = "webpki-roots")]
pub use config::webpki_roots;
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
pub use config::{client_config, provider, server_config};
pub use config::{load_certs, load_key};
pub use connector::{TlsConnector, ToServerName};
pub use failure::TlsError;
pub use info::TlsInfo;
pub use rustls;
pub use split::{TlsReadHalf, TlsReuniteError, TlsWriteHalf};
pub use stream::TlsStream;

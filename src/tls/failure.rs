//! Why a TLS connection has failed, and the text that users read.
//!
//! What is done after a failure is not here: `protocol.rs` stops there, and `session.rs` hands the
//! failure to every later call. Read next: `protocol.rs`.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a connection has failed.
#[derive(Clone, Debug)]
pub(crate) enum TlsFailure {
    Tls {
        in_handshake: bool,
        cause: rustls::Error,
    },
    /// TCP has ended, and the peer had not sent a `close_notify`.
    Truncated {
        in_handshake: bool,
    },
}

impl TlsFailure {
    /// This failure as an error of I/O. Its text names the cause.
    pub(super) fn to_io(&self) -> io::Error {
        match self {
            TlsFailure::Tls { in_handshake, cause } => {
                let error = TlsError { in_handshake: *in_handshake, cause: cause.clone() };
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
            TlsFailure::Truncated { in_handshake: true } => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer closed the connection in the TLS handshake",
            ),
            TlsFailure::Truncated { in_handshake: false } => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer closed the connection without a TLS close_notify: what came may not be all",
            ),
        }
    }
}

/// An error of rustls, and when it happened.
#[derive(Debug)]
struct TlsError {
    in_handshake: bool,
    cause: rustls::Error,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.in_handshake {
            true => write!(f, "TLS handshake failed: {}", self.cause),
            false => write!(f, "TLS connection failed: {}", self.cause),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

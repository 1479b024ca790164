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

/// Why a TLS connection failed, and when. It is inside each [`io::Error`] of kind `InvalidData` that
/// a connection gives.
///
/// The text contains that of the cause. So [`source`](Error::source) does not give the cause again,
/// and a chain of errors says each thing once; [`cause`](Self::cause) gives it.
///
/// # Examples
/// A client that meets a server without TLS:
/// ```
/// # #[cfg(feature = "tls-ring")] {
/// use tamam::net::{TcpListener, TcpStream};
/// use tamam::tls::{TlsConnector, TlsError, client_config, rustls};
///
/// # tamam::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
/// tamam::spawn(async move {
///     let (stream, _peer) = listener.accept().await?;
///     stream.send_all("220 ready\r\n").await?; // a mail server greets first
///     stream.recv().await
/// });
/// let config = client_config(rustls::RootCertStore::empty())?;
/// let stream = TcpStream::connect(addr).await?;
/// let error = TlsConnector::from(config).connect("localhost", stream).await.unwrap_err();
/// let failed = TlsError::of(&error).expect("the server does not speak TLS");
/// assert!(failed.in_handshake());
/// assert!(matches!(failed.cause(), rustls::Error::InvalidMessage(_)));
/// # std::io::Result::Ok(())
/// # })?;
/// # }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct TlsError {
    in_handshake: bool,
    cause: rustls::Error,
}

impl TlsError {
    /// The `TlsError` inside an error; `None` if there is none.
    pub fn of(error: &io::Error) -> Option<&TlsError> {
        error.get_ref()?.downcast_ref()
    }

    /// What went wrong, in rustls' words.
    pub fn cause(&self) -> &rustls::Error {
        &self.cause
    }

    /// Whether it was in the handshake, before the connection could be used.
    pub fn in_handshake(&self) -> bool {
        self.in_handshake
    }
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
        self.cause.source()
    }
}

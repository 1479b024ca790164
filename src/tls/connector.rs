//! The client's side: `TlsConnector`, and the names that it connects to.
//!
//! The protocol is not here. Read next: `session.rs`.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::failure::TlsFailure;
use super::protocol::Protocol;
use super::session::Session;
use super::stream::TlsStream;
use crate::net::TcpStream;
use crate::time::timeout_at;

/// How long a handshake may take unless told otherwise.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes TLS connections as a client.
///
/// Make one from an `Arc<ClientConfig>` and clone it, or clone the `Arc`: sessions are resumed
/// between connections of the same config only.
///
/// # Examples
/// ```
/// # #[cfg(all(feature = "webpki-roots", any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
/// # fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use tamam::tls::{self, TlsConnector};
///
/// let mut config = tls::client_config(tls::webpki_roots())?;
/// config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
/// let connector = TlsConnector::from(config).handshake_timeout(Some(Duration::from_secs(5)));
/// // let stream = connector.connect("example.org", TcpStream::connect(addr).await?).await?;
/// # let _ = connector;
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "webpki-roots", any(feature = "tls-ring", feature = "tls-aws-lc-rs"))))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    handshake_timeout: Option<Duration>,
}

impl From<Arc<ClientConfig>> for TlsConnector {
    fn from(config: Arc<ClientConfig>) -> TlsConnector {
        TlsConnector { config, handshake_timeout: Some(HANDSHAKE_TIMEOUT) }
    }
}

impl From<ClientConfig> for TlsConnector {
    fn from(config: ClientConfig) -> TlsConnector {
        TlsConnector::from(Arc::new(config))
    }
}

impl TlsConnector {
    /// How long a handshake may take: 10 s unless set; `None`: as long as the peer likes.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> TlsConnector {
        self.handshake_timeout = timeout;
        self
    }

    /// The config.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Does the handshake over `tcp`, and checks that the server is `name`: a DNS name or an IP
    /// address, as `&str`, `String`, [`IpAddr`] or [`ServerName`].
    ///
    /// With TLS 1.3 a server that refuses the client's certificate says so after the client's
    /// handshake is over: the first receive gives the error.
    ///
    /// # Errors
    /// `InvalidInput` (`name` is neither), `InvalidData` (the certificate is not `name`'s, or not
    /// trusted, or there is nothing both can do; the source is the [`rustls::Error`]), `TimedOut`,
    /// `UnexpectedEof` (the server closed the connection); else those of [`TcpStream::recv`].
    /// # Cancel safety
    /// Dropped, the connection is closed.
    pub async fn connect(&self, name: impl ToServerName, tcp: TcpStream) -> io::Result<TlsStream> {
        let name = name.to_server_name()?;
        let protocol = Protocol::client(self.config.clone(), name).map_err(|why| why.to_io())?;
        handshake(tcp, Ok(protocol), Vec::new(), deadline(self.handshake_timeout)).await
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector")
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

pub(super) fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer took too long for the TLS handshake")
}

/// The handshake, for both sides.
pub(super) async fn handshake(
    tcp: TcpStream,
    protocol: Result<Protocol, TlsFailure>,
    first: Vec<u8>,
    deadline: Option<Instant>,
) -> io::Result<TlsStream> {
    let protocol = protocol.map_err(|failure| failure.to_io())?;
    let session = Rc::new(Session::new(tcp, protocol));
    match deadline {
        Some(deadline) => {
            let handshake = session.handshake(first);
            timeout_at(deadline, handshake).await.unwrap_or_else(|_| Err(too_slow()))?;
        }
        None => session.handshake(first).await?,
    }
    Ok(TlsStream::new(session))
}

/// What names a server: `&str`, `String`, [`IpAddr`], [`ServerName`].
///
/// Not to be implemented elsewhere.
pub trait ToServerName: sealed::Sealed {
    #[doc(hidden)]
    fn to_server_name(self) -> io::Result<ServerName<'static>>;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for &str {}

impl ToServerName for &str {
    fn to_server_name(self) -> io::Result<ServerName<'static>> {
        // URLs have brackets.
        let bare = self.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(self);
        ServerName::try_from(bare).map(|name| name.to_owned()).map_err(|_| {
            let text = format!("{self:?} is neither a DNS name nor an IP address");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }
}

impl sealed::Sealed for String {}

impl ToServerName for String {
    fn to_server_name(self) -> io::Result<ServerName<'static>> {
        self.as_str().to_server_name()
    }
}

impl sealed::Sealed for &String {}

impl ToServerName for &String {
    fn to_server_name(self) -> io::Result<ServerName<'static>> {
        self.as_str().to_server_name()
    }
}

impl sealed::Sealed for IpAddr {}

impl ToServerName for IpAddr {
    fn to_server_name(self) -> io::Result<ServerName<'static>> {
        Ok(ServerName::from(self))
    }
}

impl sealed::Sealed for ServerName<'_> {}

impl ToServerName for ServerName<'_> {
    fn to_server_name(self) -> io::Result<ServerName<'static>> {
        Ok(self.to_owned())
    }
}

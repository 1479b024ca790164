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
use crate::context;
use crate::io::Duplex;
use crate::time::timeout_at;

/// How long a handshake may take unless told otherwise.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes TLS connections as a client.
///
/// Make one and clone it, or make several from one `Arc<ClientConfig>`: a session is resumed only
/// between connections of the same config.
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
    /// How long a handshake may take: 10 s unless set; `None`: no limit.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> TlsConnector {
        self.handshake_timeout = timeout;
        self
    }

    /// The config.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Does the handshake over `stream`, and checks that the server is `name`: a DNS name or an IP
    /// address, as `&str`, `String`, [`IpAddr`] or [`ServerName`].
    ///
    /// With TLS 1.3 a server that refuses the client's certificate says so after the client's
    /// handshake is over: the first receive gives the error.
    ///
    /// # Errors
    /// `InvalidInput` (`name` is neither), `InvalidData` (the certificate is not for `name`, or not
    /// trusted, or the server has no version or cipher suite in common with the config; the source
    /// is the [`rustls::Error`]), `TimedOut`, `UnexpectedEof` (the server closed the connection);
    /// others as
    /// [`Receive::recv`](crate::io::Receive::recv) of the stream.
    /// # Cancel safety
    /// Dropped, the connection is closed.
    /// # Examples
    /// A server whose certificate is for another name:
    /// ```
    /// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
    /// # use tamam::net::{TcpListener, TcpStream};
    /// # use tamam::tls::{TlsAcceptor, TlsConnector};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (server, client) = localhost::configs()?;
    /// # let acceptor = TlsAcceptor::from(server);
    /// # let connector = TlsConnector::from(client);
    /// tamam::run(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?; // its certificate is for `localhost`
    ///     let tcp = TcpStream::connect(listener.local_addr()?).await?;
    ///     tamam::spawn(async move { acceptor.accept(listener.accept().await?.0).await });
    ///
    ///     let error = connector.connect("example.org", tcp).await.unwrap_err();
    ///     assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect<S: Duplex>(
        &self,
        name: impl ToServerName,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let name = match name.to_server_name() {
            Ok(name) => name,
            Err(error) => {
                context::ready_at_once().await;
                return Err(error);
            }
        };
        let protocol = Protocol::client(self.config.clone(), name);
        handshake(stream, protocol, Vec::new(), deadline(self.handshake_timeout)).await
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector")
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

/// When a timeout that begins now ends; `None`: never.
pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

pub(super) fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer took too long for the TLS handshake")
}

/// The handshake, for both sides. `protocol`: a failure to make it is only passed on. `first`:
/// ciphertext that was received before. `deadline`: `None` is no limit. An error closes the
/// connection.
pub(super) async fn handshake<S: Duplex>(
    stream: S,
    protocol: Result<Protocol, TlsFailure>,
    first: Vec<u8>,
    deadline: Option<Instant>,
) -> io::Result<TlsStream<S>> {
    let session = match protocol {
        Ok(protocol) => Session::new(stream, protocol),
        Err(failure) => Err(failure.to_io()),
    };
    let session = match session {
        Ok(session) => Rc::new(session),
        Err(error) => {
            context::ready_at_once().await;
            return Err(error);
        }
    };
    match deadline {
        Some(deadline) => {
            let handshake = session.handshake(first);
            timeout_at(deadline, handshake).await.unwrap_or_else(|_| Err(too_slow()))?;
        }
        None => session.handshake(first).await?,
    }
    Ok(TlsStream::new(session))
}

/// A name of a server: `&str`, `String`, [`IpAddr`], [`ServerName`].
///
/// It is sealed: only this crate implements it.
///
/// # Examples
/// ```
/// use std::net::Ipv4Addr;
/// use tamam::net::TcpStream;
/// use tamam::tls::{TlsConnector, TlsStream};
///
/// /// To a server with a certificate for its address.
/// async fn local(connector: &TlsConnector, tcp: TcpStream) -> std::io::Result<TlsStream> {
///     connector.connect(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), tcp).await
/// }
/// # let _ = local;
/// ```
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

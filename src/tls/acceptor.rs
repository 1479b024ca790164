//! The server's side: `TlsAcceptor`, and `LazyConfigAcceptor`, which lets the server choose its
//! config by what the client asks for.
//!
//! The handshake itself is in `connector.rs`, for both sides. Read next: `session.rs`.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor, ClientHello};

use super::connector::{HANDSHAKE_TIMEOUT, deadline, handshake, too_slow};
use super::failure::TlsFailure;
use super::protocol::Protocol;
use super::stream::TlsStream;
use crate::io::Duplex;
use crate::net::TcpStream;
use crate::stream::Carrier;
use crate::time::timeout_at;

/// Makes TLS connections as a server.
///
/// A handshake waits for the peer, so do it in the task of the connection, never in the loop that
/// accepts: a peer that sends nothing would keep all others out.
///
/// Early data is refused, whatever the config says, because an attacker can replay it.
///
/// # Examples
/// ```no_run
/// # #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
/// # fn main() -> std::io::Result<()> {
/// use tamam::net::TcpListener;
/// use tamam::tls::{self, TlsAcceptor};
///
/// let config = tls::server_config(tls::load_certs("cert.pem")?, tls::load_key("key.pem")?)?;
/// let acceptor = TlsAcceptor::from(config);
/// tamam::run(async {
///     let listener = TcpListener::bind("0.0.0.0:443")?;
///     loop {
///         let (tcp, peer) = listener.accept().await?;
///         let acceptor = acceptor.clone();
///         tamam::spawn(async move {
///             match acceptor.accept(tcp).await {
///                 Ok(stream) => _ = stream.shutdown().await,
///                 Err(error) => eprintln!("{peer}: {error}"),
///             }
///         });
///     }
/// })
/// # }
/// # #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    handshake_timeout: Option<Duration>,
}

impl From<Arc<ServerConfig>> for TlsAcceptor {
    fn from(config: Arc<ServerConfig>) -> TlsAcceptor {
        TlsAcceptor { config, handshake_timeout: Some(HANDSHAKE_TIMEOUT) }
    }
}

impl From<ServerConfig> for TlsAcceptor {
    fn from(config: ServerConfig) -> TlsAcceptor {
        TlsAcceptor::from(Arc::new(config))
    }
}

impl TlsAcceptor {
    /// How long a handshake may take: 10 s unless set; `None`: no limit.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> TlsAcceptor {
        self.handshake_timeout = timeout;
        self
    }

    /// The config.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use tamam::tls::TlsAcceptor;
    ///
    /// fn has_same_config(one: &TlsAcceptor, two: &TlsAcceptor) -> bool {
    ///     Arc::ptr_eq(one.config(), two.config())
    /// }
    /// # let _ = has_same_config;
    /// ```
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Does the handshake over `stream`.
    ///
    /// # Errors
    /// `InvalidData` (the peer does not speak TLS, has no version or cipher suite in common with
    /// the config, or shows a certificate that is not trusted; the source is the
    /// [`rustls::Error`]), `TimedOut`, `UnexpectedEof` (the client closed the connection); others
    /// as [`Receive::recv`](crate::io::Receive::recv) of the stream.
    /// # Cancel safety
    /// Dropped, the connection is closed.
    /// # Examples
    /// A client that speaks no TLS:
    /// ```
    /// use std::io::ErrorKind;
    /// use tamam::net::{TcpListener, TcpStream};
    /// use tamam::tls::{self, TlsAcceptor};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let certificates = tls::load_certs("tests/keys/localhost.pem")?;
    /// let key = tls::load_key("tests/keys/localhost.key")?;
    /// let config = tls::server_config(certificates, key)?;
    /// let acceptor = TlsAcceptor::from(config);
    ///
    /// tamam::run(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let client = TcpStream::connect(listener.local_addr()?).await?;
    ///     client.send_all("GET / HTTP/1.0\r\n\r\n").await?;
    ///
    ///     let (tcp, _) = listener.accept().await?;
    ///     let error = acceptor.accept(tcp).await.unwrap_err();
    ///     assert_eq!(error.kind(), ErrorKind::InvalidData);
    ///     std::io::Result::Ok(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn accept<S: Duplex>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let protocol = Protocol::server(self.config.clone());
        handshake(stream, protocol, Vec::new(), deadline(self.handshake_timeout)).await
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

/// Waits for the first message of a client, so that the server can choose its config by what the
/// client asks for. Await it to get a [`StartHandshake`].
///
/// # Errors
/// As [`TlsAcceptor::accept`].
/// # Cancel safety
/// Dropped, the connection is closed.
/// # Examples
/// ```
/// use std::sync::Arc;
/// use tamam::net::TcpStream;
/// use tamam::tls::rustls::ServerConfig;
/// use tamam::tls::{LazyConfigAcceptor, TlsStream};
///
/// async fn accept(
///     tcp: TcpStream,
///     config_for: impl Fn(Option<&str>) -> Arc<ServerConfig>,
/// ) -> std::io::Result<TlsStream> {
///     let start = LazyConfigAcceptor::new(tcp).await?;
///     let config = config_for(start.client_hello().server_name());
///     start.into_stream(config).await
/// }
/// # let _ = |tcp, config: Arc<ServerConfig>| accept(tcp, move |_| config.clone());
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct LazyConfigAcceptor<S: Duplex = TcpStream> {
    stream: S,
    handshake_timeout: Option<Duration>,
}

impl<S: Duplex> LazyConfigAcceptor<S> {
    /// For a client that has connected.
    pub fn new(stream: S) -> LazyConfigAcceptor<S> {
        LazyConfigAcceptor { stream, handshake_timeout: Some(HANDSHAKE_TIMEOUT) }
    }

    /// How long the handshake may take, from here to the end of
    /// [`into_stream`](StartHandshake::into_stream): 10 s unless set; `None`: no limit.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> LazyConfigAcceptor<S> {
        self.handshake_timeout = timeout;
        self
    }

    /// Receives the client's first message, within the timeout.
    async fn wait(self) -> io::Result<StartHandshake<S>> {
        let deadline = deadline(self.handshake_timeout);
        let hello = receive_hello(&self.stream);
        let (received, accepted) = match deadline {
            Some(deadline) => {
                timeout_at(deadline, hello).await.unwrap_or_else(|_| Err(too_slow()))?
            }
            None => hello.await?,
        };
        Ok(StartHandshake { stream: self.stream, received, accepted, deadline })
    }
}

impl<S: Duplex> IntoFuture for LazyConfigAcceptor<S> {
    type Output = io::Result<StartHandshake<S>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

impl<S: Duplex> fmt::Debug for LazyConfigAcceptor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyConfigAcceptor")
            .field("below", &self.stream)
            .field("handshake_timeout", &self.handshake_timeout)
            .finish()
    }
}

/// Receives until the client's first message is complete. Gives all bytes that came, which are more
/// than the message at times, and the message. If rustls refuses it, the client gets an alert.
async fn receive_hello<S: Duplex>(stream: &S) -> io::Result<(Vec<u8>, Accepted)> {
    let mut acceptor = Acceptor::default();
    let mut received = Vec::new();
    loop {
        let Some(chunk) = stream.recv().await? else {
            return Err(TlsFailure::Truncated { in_handshake: true }.to_io());
        };
        received.extend_from_slice(&chunk);
        let mut rest = &chunk[..];
        // Rustls bounds the message. It may refuse more bytes than it needs.
        while !rest.is_empty() && acceptor.read_tls(&mut rest)? > 0 {
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok((received, accepted)),
                Ok(None) => {}
                Err((cause, mut alert)) => {
                    let mut text = Vec::new();
                    let below = stream.carrier();
                    if alert.write_all(&mut text).is_ok() && below.check_sendable().is_ok() {
                        below.queue_detached(text);
                    }
                    return Err(TlsFailure::Tls { in_handshake: true, cause }.to_io());
                }
            }
        }
    }
}

/// A handshake that has received the client's first message and waits for a config. From
/// [`LazyConfigAcceptor`].
///
/// # Examples
/// A client connects, and the server looks at the name that it asks for:
/// ```
/// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
/// # use std::sync::Arc;
/// # use tamam::net::{TcpListener, TcpStream};
/// # use tamam::tls::{LazyConfigAcceptor, TlsConnector};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (server, client) = localhost::configs()?;
/// # let config = Arc::new(server);
/// # let connector = TlsConnector::from(client);
/// tamam::run(async {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let tcp = TcpStream::connect(listener.local_addr()?).await?;
///     let client = tamam::spawn(async move { connector.connect("localhost", tcp).await });
///
///     let (tcp, peer) = listener.accept().await?;
///     let start = LazyConfigAcceptor::new(tcp).await?;
///     assert_eq!(start.client_hello().server_name(), Some("localhost"));
///     assert_eq!(start.tcp().peer_addr()?, peer);
///     let stream = start.into_stream(config).await?;
///
///     client.await??.send_all("hello").await?;
///     assert_eq!(stream.read_exact(Vec::with_capacity(5), 5).await?, b"hello");
///     std::io::Result::Ok(())
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct StartHandshake<S: Duplex = TcpStream> {
    stream: S,
    /// All bytes that came.
    received: Vec<u8>,
    accepted: Accepted,
    deadline: Option<Instant>,
}

impl StartHandshake {
    /// The TCP connection below: [`get_ref`](Self::get_ref).
    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }
}

impl<S: Duplex> StartHandshake<S> {
    /// What the client asks for: the name of the server, protocols, cipher suites.
    ///
    /// # Examples
    /// ```
    /// use tamam::tls::StartHandshake;
    ///
    /// fn wants_http2(start: &StartHandshake) -> bool {
    ///     let hello = start.client_hello();
    ///     hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == b"h2"))
    /// }
    /// # let _ = wants_http2;
    /// ```
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.accepted.client_hello()
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Goes on with the handshake.
    ///
    /// # Errors
    /// As [`TlsAcceptor::accept`].
    /// # Cancel safety
    /// Dropped, the connection is closed.
    /// # Examples
    /// A config for each name; a client that asks for no known one is dropped:
    /// ```
    /// use std::collections::HashMap;
    /// use std::io;
    /// use std::sync::Arc;
    /// use tamam::tls::rustls::ServerConfig;
    /// use tamam::tls::{StartHandshake, TlsStream};
    ///
    /// async fn choose(
    ///     start: StartHandshake,
    ///     sites: &HashMap<String, Arc<ServerConfig>>,
    /// ) -> io::Result<TlsStream> {
    ///     let name = start.client_hello().server_name().unwrap_or_default().to_owned();
    ///     let config = sites.get(&name).ok_or(io::ErrorKind::NotFound)?;
    ///     start.into_stream(config.clone()).await
    /// }
    /// # let _ = choose;
    /// ```
    pub async fn into_stream(self, config: Arc<ServerConfig>) -> io::Result<TlsStream<S>> {
        let StartHandshake { stream, received, accepted, deadline } = self;
        let name = accepted.client_hello().server_name().map(str::to_owned);
        drop(accepted);
        handshake(stream, Protocol::server_for(config, name), received, deadline).await
    }
}

impl<S: Duplex> fmt::Debug for StartHandshake<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartHandshake")
            .field("below", &self.stream)
            .field("server_name", &self.client_hello().server_name())
            .finish_non_exhaustive()
    }
}

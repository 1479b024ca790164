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
use crate::net::TcpStream;
use crate::time::timeout_at;

/// Makes TLS connections as a server.
///
/// A handshake waits for the peer, so do it in a task of the connection's, never in the loop that
/// accepts: a peer that sends nothing would keep all others out.
///
/// Early data is refused, whatever the config says: who saw it can send it again.
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
    /// How long a handshake may take: 10 s unless set; `None`: as long as the peer likes.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> TlsAcceptor {
        self.handshake_timeout = timeout;
        self
    }

    /// The config.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Does the handshake over `tcp`.
    ///
    /// # Errors
    /// `InvalidData` (the peer speaks no TLS, or there is nothing both can do, or its certificate
    /// is not trusted; the source is the [`rustls::Error`]), `TimedOut`, `UnexpectedEof` (the
    /// client closed the connection); else those of [`TcpStream::recv`].
    /// # Cancel safety
    /// Dropped, the connection is closed.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream> {
        let protocol = Protocol::server(self.config.clone());
        handshake(tcp, protocol, Vec::new(), deadline(self.handshake_timeout)).await
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

/// Waits for what a client asks for, so that the config can be chosen by it: to be awaited.
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
pub struct LazyConfigAcceptor {
    tcp: TcpStream,
    handshake_timeout: Option<Duration>,
}

impl LazyConfigAcceptor {
    /// For a client that has connected.
    pub fn new(tcp: TcpStream) -> LazyConfigAcceptor {
        LazyConfigAcceptor { tcp, handshake_timeout: Some(HANDSHAKE_TIMEOUT) }
    }

    /// How long the handshake may take, from here to the end of
    /// [`into_stream`](StartHandshake::into_stream): 10 s unless set; `None`: as long as the peer
    /// likes.
    pub fn handshake_timeout(mut self, timeout: Option<Duration>) -> LazyConfigAcceptor {
        self.handshake_timeout = timeout;
        self
    }

    async fn wait(self) -> io::Result<StartHandshake> {
        let deadline = deadline(self.handshake_timeout);
        let hello = receive_hello(&self.tcp);
        let (received, accepted) = match deadline {
            Some(deadline) => {
                timeout_at(deadline, hello).await.unwrap_or_else(|_| Err(too_slow()))?
            }
            None => hello.await?,
        };
        Ok(StartHandshake { tcp: self.tcp, received, accepted, deadline })
    }
}

impl IntoFuture for LazyConfigAcceptor {
    type Output = io::Result<StartHandshake>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

impl fmt::Debug for LazyConfigAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyConfigAcceptor")
            .field("tcp", &self.tcp)
            .field("handshake_timeout", &self.handshake_timeout)
            .finish()
    }
}

/// Receives until the client's first message is complete. Gives all bytes that came, and the
/// message.
async fn receive_hello(tcp: &TcpStream) -> io::Result<(Vec<u8>, Accepted)> {
    let mut acceptor = Acceptor::default();
    let mut received = Vec::new();
    loop {
        let Some(chunk) = tcp.recv().await? else {
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
                    if alert.write_all(&mut text).is_ok() {
                        let _ = tcp.connection().send_detached(text);
                    }
                    return Err(TlsFailure::Tls { in_handshake: true, cause }.to_io());
                }
            }
        }
    }
}

/// A handshake of which the client's first message is known. From [`LazyConfigAcceptor`].
pub struct StartHandshake {
    tcp: TcpStream,
    /// All bytes that came.
    received: Vec<u8>,
    accepted: Accepted,
    deadline: Option<Instant>,
}

impl StartHandshake {
    /// What the client asks for: the server's name, protocols, ciphers.
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.accepted.client_hello()
    }

    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Goes on with the handshake.
    ///
    /// # Errors
    /// As [`TlsAcceptor::accept`].
    /// # Cancel safety
    /// Dropped, the connection is closed.
    pub async fn into_stream(self, config: Arc<ServerConfig>) -> io::Result<TlsStream> {
        let StartHandshake { tcp, received, accepted, deadline } = self;
        let name = accepted.client_hello().server_name().map(str::to_owned);
        drop(accepted);
        handshake(tcp, Protocol::server_for(config, name), received, deadline).await
    }
}

impl fmt::Debug for StartHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartHandshake")
            .field("tcp", &self.tcp)
            .field("server_name", &self.client_hello().server_name())
            .finish_non_exhaustive()
    }
}

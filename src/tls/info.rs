//! What a handshake has agreed on. Read next: `protocol.rs`, which fills it in.

use std::fmt;

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, ProtocolVersion};

/// The result of a handshake: version, cipher suite, protocol, names, certificates.
///
/// # Examples
/// ```
/// use tamam::tls::TlsInfo;
///
/// fn is_http2(info: &TlsInfo) -> bool {
///     info.alpn() == Some(b"h2")
/// }
/// # let _ = is_http2;
/// ```
#[derive(Clone)]
pub struct TlsInfo {
    pub(super) version: Option<ProtocolVersion>,
    pub(super) cipher_suite: Option<CipherSuite>,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) server_name: Option<String>,
    pub(super) peer_certificates: Vec<CertificateDer<'static>>,
    pub(super) resumed: bool,
}

impl TlsInfo {
    /// The version of TLS.
    ///
    /// # Examples
    /// ```
    /// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
    /// use tamam::tls::rustls::ProtocolVersion;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tamam::run(async {
    /// # let (client, server) = localhost::connect().await?;
    /// assert_eq!(client.info().version(), ProtocolVersion::TLSv1_3);
    /// println!("{:?}", client.info().cipher_suite());
    /// # drop(server);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn version(&self) -> ProtocolVersion {
        self.version.expect("agreed in the handshake, which is over")
    }

    /// The cipher suite.
    pub fn cipher_suite(&self) -> CipherSuite {
        self.cipher_suite.expect("agreed in the handshake, which is over")
    }

    /// The protocol that ALPN has chosen, such as `h2`; `None` if it has chosen none.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The name of the server as the client asked for it (SNI); `None` if it sent none, as for an
    /// address.
    ///
    /// # Examples
    /// ```
    /// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tamam::run(async {
    /// # let (client, server) = localhost::connect().await?;
    /// assert_eq!(server.info().server_name(), Some("localhost"));
    /// # drop(client);
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The peer's certificates, its own first; empty if it showed none. After a resumption, those
    /// of the first handshake.
    ///
    /// # Examples
    /// ```
    /// # mod localhost { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/localhost.rs")); }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # tamam::run(async {
    /// # let (client, server) = localhost::connect().await?;
    /// assert_eq!(client.info().peer_certificates().len(), 1);
    /// assert!(server.info().peer_certificates().is_empty()); // the client showed none
    /// # std::io::Result::Ok(())
    /// # })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }

    /// Whether an earlier session was resumed. The certificates are not checked again then.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }
}

impl fmt::Debug for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("version", &self.version)
            .field("cipher_suite", &self.cipher_suite)
            .field("alpn", &self.alpn.as_deref().map(String::from_utf8_lossy))
            .field("server_name", &self.server_name)
            .field("peer_certificates", &self.peer_certificates.len())
            .field("resumed", &self.resumed)
            .finish()
    }
}

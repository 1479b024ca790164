//! Helpers that load certificates and keys and make configs. Connections are not here. Read next:
//! `connector.rs`.

use std::io;
use std::path::Path;
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
use std::sync::Arc;

#[cfg(any(
    feature = "tls-ring",
    feature = "tls-aws-lc-rs",
    feature = "native-certs",
    feature = "webpki-roots"
))]
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
use rustls::{ClientConfig, ServerConfig, crypto::CryptoProvider};

use crate::io::CallError;

/// Loads the certificates of a PEM file: the server's or client's own first, then those that
/// certify it.
///
/// Reading the file blocks the thread, so call this when the program starts, not in a task.
///
/// # Errors
/// Those of reading a file; `InvalidData` if it is no PEM, or holds no certificate. The text names
/// the file.
/// # Examples
/// ```
/// let certificates = tamam::tls::load_certs("tests/keys/localhost.pem")?;
/// assert_eq!(certificates.len(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn load_certs(path: impl AsRef<Path>) -> io::Result<Vec<CertificateDer<'static>>> {
    let path = path.as_ref();
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| in_file(path, "certificate", error))?;
    match certificates.is_empty() {
        true => Err(in_file(path, "certificate", pem::Error::NoItemsFound)),
        false => Ok(certificates),
    }
}

/// Loads the first private key of a PEM file: PKCS#8, PKCS#1 or SEC1.
///
/// Reading the file blocks the thread, so call this when the program starts, not in a task.
///
/// # Errors
/// Those of reading a file; `InvalidData` if it is no PEM, or holds no private key. The text names
/// the file.
/// # Examples
/// ```
/// let key = tamam::tls::load_key("tests/keys/localhost.key")?;
/// assert!(format!("{key:?}").contains("secret")); // it does not print itself
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn load_key(path: impl AsRef<Path>) -> io::Result<PrivateKeyDer<'static>> {
    let path = path.as_ref();
    PrivateKeyDer::from_pem_file(path).map_err(|error| in_file(path, "private key", error))
}

/// The error of a PEM file, with its name. `wanted` is what was looked for.
fn in_file(path: &Path, wanted: &str, error: pem::Error) -> io::Error {
    let cause = match error {
        pem::Error::Io(error) => error,
        pem::Error::NoItemsFound => {
            io::Error::new(io::ErrorKind::InvalidData, format!("no {wanted} in it"))
        }
        error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    };
    CallError::wrap("read", path.display(), cause)
}

/// The authorities that the system trusts.
///
/// Certificates that cannot be read or used are left out. Reading the files blocks the thread, so
/// call this when the program starts, not in a task.
///
/// # Errors
/// `NotFound` if the system has none; the text says why.
/// # Examples
/// ```no_run
/// use tamam::tls::{self, TlsConnector};
///
/// let connector = TlsConnector::from(tls::client_config(tls::native_roots()?)?);
/// # drop(connector);
/// # Ok::<(), std::io::Error>(())
/// ```
#[cfg(feature = "native-certs")]
pub fn native_roots() -> io::Result<RootCertStore> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let why = loaded.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        let text = format!("the system has no certificates of authorities that it trusts{why}");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(roots)
}

/// The authorities that Mozilla trusts, as they were when the crate `webpki-roots` was released.
///
/// # Examples
/// ```
/// assert!(!tamam::tls::webpki_roots().is_empty());
/// ```
#[cfg(feature = "webpki-roots")]
pub fn webpki_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// The cryptography that the features choose: `tls-aws-lc-rs` if it is on, else `tls-ring`.
///
/// For configs that are built by hand, with `builder_with_provider`: `builder` takes the process's
/// default, and panics if several are compiled in and none was chosen.
///
/// # Examples
/// A client that speaks TLS 1.3 only:
/// ```
/// use tamam::tls::rustls::{ClientConfig, RootCertStore, version::TLS13};
/// use tamam::tls::{self, TlsConnector};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = ClientConfig::builder_with_provider(tls::provider())
///     .with_protocol_versions(&[&TLS13])?
///     .with_root_certificates(RootCertStore::empty()) // trusts no server
///     .with_no_client_auth();
/// let connector = TlsConnector::from(config);
/// # drop(connector);
/// # Ok(())
/// # }
/// ```
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "tls-aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}

/// A client's config: TLS 1.2 and 1.3, these authorities, no certificate of its own.
///
/// Share it between connections, or no session is ever resumed.
///
/// # Errors
/// `InvalidInput`, if the cryptography cannot do these versions.
/// # Examples
/// ```
/// # #[cfg(feature = "webpki-roots")]
/// # fn main() -> std::io::Result<()> {
/// use tamam::tls;
///
/// let mut config = tls::client_config(tls::webpki_roots())?;
/// config.alpn_protocols = vec![b"http/1.1".to_vec()];
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "webpki-roots"))]
/// # fn main() {}
/// ```
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
pub fn client_config(roots: RootCertStore) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(invalid)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A server's config: TLS 1.2 and 1.3, one chain of certificates, no certificates of clients.
///
/// Prefer a key of ECDSA (P-256) or Ed25519: a signature with RSA keeps the thread for longer than
/// many messages do.
///
/// # Errors
/// `InvalidInput`, if there is no certificate, or if the key is of an unknown kind or not that of the
/// first certificate.
/// # Examples
/// ```
/// use tamam::tls::{self, TlsAcceptor};
///
/// let certificates = tls::load_certs("tests/keys/localhost.pem")?;
/// let key = tls::load_key("tests/keys/localhost.key")?;
///
/// let mut config = tls::server_config(certificates, key)?;
/// config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
/// let acceptor = TlsAcceptor::from(config);
/// # drop(acceptor);
/// # Ok::<(), std::io::Error>(())
/// ```
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
pub fn server_config(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> io::Result<ServerConfig> {
    if certificates.is_empty() {
        let text = "a server needs a certificate, and there is none";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(invalid)?;
    builder.with_no_client_auth().with_single_cert(certificates, key).map_err(invalid)
}

#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

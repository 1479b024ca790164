//! Certificates for tests, and connections that use them.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use tamam::io::Duplex;
use tamam::net::{TcpListener, TcpSocket, TcpStream};
use tamam::tls::rustls::pki_types::pem::PemObject;
use tamam::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tamam::tls::rustls::server::WebPkiClientVerifier;
use tamam::tls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tamam::tls::{self, TlsAcceptor, TlsConnector, TlsStream};

use crate::common::peer::Folder;

/// Whom the server's certificate is for.
pub const NAME: &str = "server.test";

pub struct Party {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub certificate_pem: &'static str,
    pub key_pem: &'static str,
}

/// The certificate of an authority, and two that it has signed, from `tests/keys`.
pub struct Keys {
    pub root: CertificateDer<'static>,
    pub root_pem: &'static str,
    pub server: Party,
    pub client: Party,
}

pub static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let party = |certificate_pem: &'static str, key_pem: &'static str| Party {
        certificate: certificate(certificate_pem),
        key: PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).expect("a key"),
        certificate_pem,
        key_pem,
    };
    let root_pem = include_str!("../keys/root.pem");
    Keys {
        root: certificate(root_pem),
        root_pem,
        server: party(include_str!("../keys/server.pem"), include_str!("../keys/server.key")),
        client: party(include_str!("../keys/client.pem"), include_str!("../keys/client.key")),
    }
});

fn certificate(pem: &'static str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

impl Keys {
    /// Writes them down for programs: `root.pem`, `server.pem`, `server.key`, `client.pem`,
    /// `client.key`.
    pub fn write(&self, folder: &Folder) {
        folder.write("root.pem", self.root_pem);
        for (name, party) in [("server", &self.server), ("client", &self.client)] {
            folder.write(&format!("{name}.pem"), party.certificate_pem);
            folder.write(&format!("{name}.key"), party.key_pem);
        }
    }
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(KEYS.root.clone()).expect("a certificate");
    roots
}

/// Trusts the root, and shows a certificate if asked to.
pub fn client_config(version: &'static SupportedProtocolVersion, shows: bool) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[version])
        .expect("known")
        .with_root_certificates(roots());
    if !shows {
        return builder.with_no_client_auth();
    }
    let Party { certificate, key, .. } = &KEYS.client;
    builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).expect("a pair")
}

/// Signed by the root; wants certificates from clients, or takes anybody.
pub fn server_config(version: &'static SupportedProtocolVersion, verifies: bool) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[version])
        .expect("known");
    let builder = if verifies {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots()), tls::provider());
        builder.with_client_cert_verifier(verifier.build().expect("roots"))
    } else {
        builder.with_no_client_auth()
    };
    let Party { certificate, key, .. } = &KEYS.server;
    builder.with_single_cert(vec![certificate.clone()], key.clone_key()).expect("a pair")
}

/// Both ends of a connection of TCP; with small kernel buffers, so that sends stall early.
pub async fn narrow_tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpSocket::new_v4()
        .and_then(|socket| {
            socket.recv_buffer_size(4096).listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        })
        .expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    let socket = TcpSocket::new_v4().expect("a socket").send_buffer_size(4096);
    let client = socket.connect(addr).await.expect("connects");
    (client, listener.accept().await.expect("it is there").0)
}

/// As [`narrow_tcp_pair`], with the kernel's own sizes.
pub async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).await;
    let (server, _) = listener.accept().await.expect("it is there");
    (client.expect("somebody listens"), server)
}

/// TLS over a connection: the client's end, the server's.
pub async fn tls_over<S: Duplex>(
    version: &'static SupportedProtocolVersion,
    (client, server): (S, S),
) -> (TlsStream<S>, TlsStream<S>) {
    let acceptor = TlsAcceptor::from(server_config(version, false));
    let server = tamam::spawn(async move { acceptor.accept(server).await });
    let connector = TlsConnector::from(client_config(version, false));
    let client = connector.connect(NAME, client).await.expect("the server is trusted");
    (client, server.await.expect("no panic").expect("anybody may connect"))
}

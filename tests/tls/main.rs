//! TLS over TCP: the engine is tested in memory (`src/tls/tests`); here is what lies between it
//! and TCP, on every engine of the runtime, and strangers at the other end.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/frames.rs"]
mod frames;
#[path = "../common/keys.rs"]
mod keys;

mod calls;
mod foreign_wakers;
mod handshakes;
mod dropped_futures;
mod partial_reads;
mod lingering;
mod panics;
mod at_once;
mod surroundings;
mod files;
mod openssl;
mod ready_at_once;

use keys::{NAME, tcp_pair};
use tamam::net::TcpStream;
use tamam::tls::rustls::{self, ClientConfig, ServerConfig, SupportedProtocolVersion};
use tamam::tls::{TlsAcceptor, TlsConnector, TlsError, TlsStream};

/// Trusts the root, and shows no certificate.
fn client_config(version: &'static SupportedProtocolVersion) -> ClientConfig {
    keys::client_config(version, false)
}

/// Takes anybody.
fn server_config(version: &'static SupportedProtocolVersion) -> ServerConfig {
    keys::server_config(version, false)
}

/// The handshake at both ends.
async fn handshakes(
    connector: &TlsConnector,
    acceptor: &TlsAcceptor,
    (client, server): (TcpStream, TcpStream),
) -> (std::io::Result<TlsStream>, std::io::Result<TlsStream>) {
    let acceptor = acceptor.clone();
    let server = tamam::spawn(async move { acceptor.accept(server).await });
    let client = connector.connect(NAME, client).await;
    (client, server.await.expect("no panic"))
}

/// Both ends of a connection: the client's, the server's.
async fn pair(version: &'static SupportedProtocolVersion) -> (TlsStream, TlsStream) {
    pair_over(version, tcp_pair().await).await
}

async fn pair_over(
    version: &'static SupportedProtocolVersion,
    tcp: (TcpStream, TcpStream),
) -> (TlsStream, TlsStream) {
    let connector = TlsConnector::from(client_config(version));
    let acceptor = TlsAcceptor::from(server_config(version));
    let (client, server) = handshakes(&connector, &acceptor, tcp).await;
    (client.expect("the server is trusted"), server.expect("anybody may connect"))
}

/// Everything up to the end.
async fn receive_all(stream: &TlsStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.recv().await? {
        assert!(!chunk.is_empty(), "no piece is empty");
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// The error of rustls inside one of I/O.
fn cause(error: &std::io::Error) -> &rustls::Error {
    let failed = TlsError::of(error);
    failed.unwrap_or_else(|| panic!("rustls is not the cause of: {error}")).cause()
}

// For examples in the docs, which include this file as a module: configs for the name `localhost`, and a
// connection between them.

use tamam::net::{TcpListener, TcpStream};
use tamam::tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tamam::tls::{self, TlsAcceptor, TlsConnector, TlsStream};

/// The server's, and that of a client that trusts it.
pub fn configs() -> std::io::Result<(ServerConfig, ClientConfig)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
    let certificates = tls::load_certs(format!("{folder}/localhost.pem"))?;
    let key = tls::load_key(format!("{folder}/localhost.key"))?;
    let mut roots = RootCertStore::empty();
    roots.add(certificates[0].clone()).map_err(std::io::Error::other)?;
    Ok((tls::server_config(certificates, key)?, tls::client_config(roots)?))
}

/// Both ends of a connection on loopback: the client's, the server's.
#[allow(dead_code, reason = "some examples connect by themselves")]
pub async fn connect() -> std::io::Result<(TlsStream, TlsStream)> {
    let (server, client) = configs()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let tcp = TcpStream::connect(listener.local_addr()?).await?;
    let acceptor = TlsAcceptor::from(server);
    let server = tamam::spawn(async move { acceptor.accept(listener.accept().await?.0).await });
    let client = TlsConnector::from(client).connect("localhost", tcp).await?;
    Ok((client, server.await.expect("no panic")?))
}

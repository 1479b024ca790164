//! quinn over this runtime's datagram sockets: feature `quinn`.

#[path = "../../common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, Runtime as _, ServerConfig, TransportConfig};
use tamam::Runtime;
use tamam::quinn::Quic;
use tamam::time::timeout;
use tamam::tls::rustls;

/// What one stream carries.
const LEN: usize = 100 << 20;
const PIECE: usize = 64 * 1024;

/// The certificate of a server, and a client that trusts it.
fn configs() -> (ServerConfig, ClientConfig) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let certificate = certified.cert.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version that the provider has")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.expect("a key"))
        .expect("they belong together");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(Duration::from_secs(60).try_into().expect("not for ever")));
    let transport = Arc::new(transport);
    let server = QuicServerConfig::try_from(server).expect("TLS 1.3");
    let client = QuicClientConfig::try_from(client).expect("TLS 1.3");
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    let mut client = ClientConfig::new(Arc::new(client));
    server.transport_config(transport.clone());
    client.transport_config(transport);
    (server, client)
}

fn endpoint(server: Option<ServerConfig>) -> (Endpoint, SocketAddr) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    let addr = socket.local_addr().expect("bound");
    let endpoint = Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(Quic::new()));
    (endpoint.expect("a runtime"), addr)
}

fn piece(number: usize) -> Vec<u8> {
    (0..PIECE).map(|at| (at * 7 + number * 31) as u8).collect()
}

/// A stream of 100 MiB, every byte compared, and an answer.
async fn transfer() {
    let (server_config, client_config) = configs();
    let (server, addr) = endpoint(Some(server_config));
    let (client, _) = endpoint(None);
    let serving = tamam::spawn(async move {
        let connection = server.accept().await.expect("a client").await.expect("a handshake");
        let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
        let (mut received, mut buf) = (0, vec![0; PIECE]);
        while received < LEN {
            recv.read_exact(&mut buf).await.expect("all of it comes");
            common::assert_same(&buf, &piece(received / PIECE));
            received += PIECE;
        }
        send.write_all(b"all here").await.expect("connected");
        send.finish().expect("once");
        connection.closed().await;
        server.wait_idle().await;
    });
    let connecting = client.connect_with(client_config, addr, "localhost").expect("an address");
    let connection = connecting.await.expect("a handshake");
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    for number in 0..LEN / PIECE {
        send.write_all(&piece(number)).await.expect("connected");
    }
    send.finish().expect("once");
    assert_eq!(recv.read_to_end(100).await.expect("an answer"), b"all here");
    connection.close(0u32.into(), b"done");
    client.wait_idle().await;
    serving.await.expect("no panic");
}

#[test]
fn quinn_moves_a_hundred_mebibytes() {
    common::with_both(Runtime::builder(), || async {
        timeout(*common::PATIENCE * 3 / 4, transfer()).await.expect("it does not hang");
        // The drivers of the endpoints end when they are polled once more.
        for _ in 0..1000 {
            if tamam::metrics().tasks == 0 && tamam::metrics().ops == 0 {
                break;
            }
            tamam::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// A socket may go to another thread, where it tells its address, and panics when it is used. What is
/// dropped there is leaked.
#[test]
fn a_socket_is_used_at_home_only() {
    common::with_both(Runtime::builder(), || async {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
        let addr = socket.local_addr().expect("bound");
        let socket = Quic::new().wrap_udp_socket(socket).expect("a runtime");
        let elsewhere = socket.clone();
        let used = thread::spawn(move || {
            assert_eq!(elsewhere.local_addr().expect("it is known"), addr);
            elsewhere.create_io_poller()
        });
        let panic = used.join().expect_err("it is used on another thread");
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        assert!(text.contains("used on another thread"), "{text}");
        let poller = socket.clone().create_io_poller();
        thread::spawn(move || drop(poller)).join().expect("a drop does not panic");
        drop(socket);
    });
}

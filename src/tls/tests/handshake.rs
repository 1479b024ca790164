//! What a handshake agrees on, and what it refuses.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error, ProtocolVersion, ServerConfig};

use super::super::failure::TlsFailure;
use super::{KEYS, Pair, Random, client_config, provider, roots, server_config};

#[test]
fn info_tells_what_was_agreed() {
    let mut server = server_config(&TLS13);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut client = client_config(&TLS13);
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (client, server) = (Arc::new(client), Arc::new(server));
    for round in 0..2 {
        let mut pair = Pair::new(client.clone(), server.clone());
        pair.settle_in_pieces(&mut Random::new(round), 7);
        let (at_client, at_server) = (pair.client.protocol.info(), pair.server.protocol.info());
        for info in [&at_client, &at_server] {
            assert_eq!(info.version(), ProtocolVersion::TLSv1_3);
            assert_eq!(info.alpn(), Some(&b"http/1.1"[..]));
            assert_eq!(info.server_name(), Some("server.test"));
            assert_eq!(info.is_resumed(), round == 1, "{info:?}");
        }
        assert_eq!(at_client.cipher_suite(), at_server.cipher_suite());
        assert_eq!(at_client.peer_certificates(), KEYS.server.0);
        assert!(at_server.peer_certificates().is_empty());
    }
}

#[test]
fn no_protocol_in_common_is_an_alert() {
    let mut server = server_config(&TLS13);
    server.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = client_config(&TLS13);
    client.alpn_protocols = vec![b"spdy".to_vec()];
    let mut pair = Pair::new(Arc::new(client), Arc::new(server));
    pair.exchange_until_quiet();
    let text = pair.client.failure().to_io().to_string();
    assert!(text.contains("NoApplicationProtocol"), "{text}");
}

#[test]
fn client_certificates_are_asked_for_and_checked() {
    for version in [&TLS12, &TLS13] {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(), provider());
        let (certificates, key) = &KEYS.server;
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("known")
            .with_client_cert_verifier(verifier.build().expect("roots"))
            .with_single_cert(certificates.clone(), key.clone_key())
            .expect("they belong together");
        let server = Arc::new(server);
        let (certificates, key) = &KEYS.client;
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("known")
            .with_root_certificates(roots())
            .with_client_auth_cert(certificates.clone(), key.clone_key())
            .expect("they belong together");
        let mut pair = Pair::new(Arc::new(client), server.clone());
        pair.exchange_until_quiet();
        assert_eq!(pair.server.protocol.info().peer_certificates(), KEYS.client.0);

        // Without one: refused, and the client hears why.
        let mut pair = Pair::new(Arc::new(client_config(version)), server);
        pair.exchange_until_quiet();
        assert!(matches!(
            pair.server.failure(),
            TlsFailure::Tls { cause: Error::NoCertificatesPresented, in_handshake: true }
        ));
        assert!(matches!(
            pair.client.failure(),
            TlsFailure::Tls { cause: Error::AlertReceived(_), .. }
        ));
    }
}

#[test]
fn early_data_is_refused_whatever_the_config_says() {
    let mut server = server_config(&TLS13);
    server.max_early_data_size = 1000;
    server.send_half_rtt_data = true;
    let mut client = client_config(&TLS13);
    client.enable_early_data = true;
    let (client, server) = (Arc::new(client), Arc::new(server));
    for _ in 0..2 {
        let mut pair = Pair::new(client.clone(), server.clone());
        pair.exchange_until_quiet();
        pair.client.write(b"not early");
        pair.exchange_until_quiet();
        pair.assert_all_arrived(0);
    }
}

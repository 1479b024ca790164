//! Tests of the protocol: two of them in memory, and a wire between them that cuts as it likes.
//!
//! This file has what the tests share: keys, configurations, the two ends, and the wire.

mod handshake;
mod hostile;
mod transfer;

use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::failure::TlsFailure;
use super::protocol::Protocol;

/// Pseudo-random numbers (xorshift64*), so that a failure can be repeated by its seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound as u64) as usize
    }

    /// At most so many bytes, and one at least.
    fn some(&mut self, most: usize) -> Vec<u8> {
        let len = 1 + self.below(most);
        self.bytes(len)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// The certificate of an authority, and two that it has signed, each with its key.
struct Keys {
    root: CertificateDer<'static>,
    server: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    client: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let certificate =
        |pem: &'static str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let party = |pem: &'static str, key: &'static str| {
        (vec![certificate(pem)], PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"))
    };
    Keys {
        root: certificate(include_str!("../../../tests/keys/root.pem")),
        server: party(
            include_str!("../../../tests/keys/server.pem"),
            include_str!("../../../tests/keys/server.key"),
        ),
        client: party(
            include_str!("../../../tests/keys/client.pem"),
            include_str!("../../../tests/keys/client.key"),
        ),
    }
});

fn roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(KEYS.root.clone()).expect("a certificate");
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn client_config(version: &'static SupportedProtocolVersion) -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("known")
        .with_root_certificates(roots())
        .with_no_client_auth()
}

fn server_config(version: &'static SupportedProtocolVersion) -> ServerConfig {
    let (certificates, key) = &KEYS.server;
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("known")
        .with_no_client_auth()
        .with_single_cert(certificates.clone(), key.clone_key())
        .expect("they belong together")
}

fn name() -> ServerName<'static> {
    ServerName::try_from("server.test").expect("a name")
}

/// A side, what is on its way to it, and what it made of that.
struct Peer {
    protocol: Protocol,
    wire: Vec<u8>,
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl Peer {
    fn new(protocol: Protocol) -> Peer {
        Peer { protocol, wire: Vec::new(), received: Vec::new(), sent: Vec::new() }
    }

    /// What this side has to say goes onto the wire of `other`.
    fn transmit(&mut self, other: &mut Peer) {
        other.wire.append(&mut self.protocol.take_out());
    }

    /// The first `len` bytes on the wire arrive.
    fn arrive(&mut self, len: usize) {
        let mut bytes: Vec<u8> = self.wire.drain(..len).collect();
        let range = self.protocol.feed(&mut bytes);
        // What came in pieces is earlier than what came whole.
        self.received.append(&mut self.protocol.take_plain());
        self.received.extend_from_slice(&bytes[range]);
    }

    fn arrive_all(&mut self) {
        self.arrive(self.wire.len());
    }

    fn write(&mut self, bytes: &[u8]) {
        assert!(self.protocol.write(bytes), "nothing keeps it from sending");
        self.sent.extend_from_slice(bytes);
    }

    fn failure(&self) -> TlsFailure {
        self.protocol.failure().expect("it has failed").clone()
    }
}

struct Pair {
    client: Peer,
    server: Peer,
}

impl Pair {
    fn new(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Pair {
        let client = Protocol::client(client, name()).expect("a valid config");
        let server = Protocol::server(server).expect("a valid config");
        Pair { client: Peer::new(client), server: Peer::new(server) }
    }

    /// With the handshake done.
    fn connected(version: &'static SupportedProtocolVersion) -> Pair {
        let mut pair =
            Pair::new(Arc::new(client_config(version)), Arc::new(server_config(version)));
        pair.exchange_until_quiet();
        assert!(!pair.client.protocol.is_handshaking() && !pair.server.protocol.is_handshaking());
        pair
    }

    /// Moves what there is to move, to the end.
    fn exchange_until_quiet(&mut self) {
        let Pair { client, server } = self;
        loop {
            client.transmit(server);
            server.transmit(client);
            if client.wire.is_empty() && server.wire.is_empty() {
                return;
            }
            client.arrive_all();
            server.arrive_all();
        }
    }

    /// As [`exchange_until_quiet`](Self::exchange_until_quiet), in pieces.
    fn settle_in_pieces(&mut self, random: &mut Random, most: usize) {
        let Pair { client, server } = self;
        loop {
            client.transmit(server);
            server.transmit(client);
            if client.wire.is_empty() && server.wire.is_empty() {
                return;
            }
            for end in [&mut *client, &mut *server] {
                let len = end.wire.len().min(1 + random.below(most));
                end.arrive(len);
            }
        }
    }

    fn assert_all_arrived(&self, seed: u64) {
        assert!(self.client.received == self.server.sent, "to the client, seed {seed}");
        assert!(self.server.received == self.client.sent, "to the server, seed {seed}");
        for end in [&self.client, &self.server] {
            assert!(end.protocol.failure().is_none(), "seed {seed}: {:?}", end.protocol.failure());
            assert_eq!(end.protocol.held(), 0, "an idle protocol holds no memory, seed {seed}");
        }
    }
}

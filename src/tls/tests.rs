//! Two engines in memory, and a wire between them that cuts as it likes.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, Error, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

use super::engine::{Engine, Failure};

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

/// An authority, and what it has signed.
struct Keys {
    root: CertificateDer<'static>,
    server: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    client: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let root_key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).expect("a certificate").der().clone();
    let issuer = rcgen::Issuer::new(params, root_key);
    let sign = |name: &str| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (vec![certificate.der().clone()], der)
    };
    Keys { root, server: sign("server.test"), client: sign("client.test") }
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
struct End {
    engine: Engine,
    wire: Vec<u8>,
    received: Vec<u8>,
    sent: Vec<u8>,
}

impl End {
    fn new(engine: Engine) -> End {
        End { engine, wire: Vec::new(), received: Vec::new(), sent: Vec::new() }
    }

    /// What this side has to say goes onto the wire of `other`.
    fn transmit(&mut self, other: &mut End) {
        other.wire.append(&mut self.engine.take_out());
    }

    /// The first `len` bytes on the wire arrive.
    fn arrive(&mut self, len: usize) {
        let mut bytes: Vec<u8> = self.wire.drain(..len).collect();
        let range = self.engine.feed(&mut bytes);
        // What came in pieces is earlier than what came whole.
        self.received.append(&mut self.engine.take_plain());
        self.received.extend_from_slice(&bytes[range]);
    }

    fn arrive_all(&mut self) {
        self.arrive(self.wire.len());
    }

    fn write(&mut self, bytes: &[u8]) {
        assert!(self.engine.write(bytes), "nothing keeps it from sending");
        self.sent.extend_from_slice(bytes);
    }

    fn failure(&self) -> Failure {
        self.engine.failure().expect("it has failed").clone()
    }
}

struct Pair {
    client: End,
    server: End,
}

impl Pair {
    fn new(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Pair {
        let client = Engine::client(client, name()).expect("a valid config");
        let server = Engine::server(server).expect("a valid config");
        Pair { client: End::new(client), server: End::new(server) }
    }

    /// With the handshake done.
    fn connected(version: &'static SupportedProtocolVersion) -> Pair {
        let mut pair =
            Pair::new(Arc::new(client_config(version)), Arc::new(server_config(version)));
        pair.settle();
        assert!(!pair.client.engine.is_handshaking() && !pair.server.engine.is_handshaking());
        pair
    }

    /// Moves what there is to move, to the end.
    fn settle(&mut self) {
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

    /// As [`settle`](Self::settle), in pieces.
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
            assert!(end.engine.failure().is_none(), "seed {seed}: {:?}", end.engine.failure());
            assert_eq!(end.engine.held(), 0, "an idle engine holds no memory, seed {seed}");
        }
    }
}

#[test]
fn every_byte_arrives_however_the_wire_cuts() {
    // Shared, so that later handshakes resume earlier ones.
    let configs = [&TLS12, &TLS13]
        .map(|version| (Arc::new(client_config(version)), Arc::new(server_config(version))));
    let small = [&TLS12, &TLS13].map(|version| {
        let (mut client, mut server) = (client_config(version), server_config(version));
        client.max_fragment_size = Some(32);
        server.max_fragment_size = Some(64);
        (Arc::new(client), Arc::new(server))
    });
    let resumed = RefCell::new([0; 2]);
    for seed in 0..800 {
        let random = &mut Random::new(seed);
        let version = random.below(2);
        let configs = if random.below(6) == 0 { &small } else { &configs };
        let (client, server) = configs[version].clone();
        let mut pair = Pair::new(client, server);
        let most = [1, 3, 100, 5000, 40_000][random.below(5)];
        pair.settle_in_pieces(random, most);
        assert!(!pair.client.engine.is_handshaking(), "seed {seed}");
        resumed.borrow_mut()[version] += usize::from(pair.client.engine.info().is_resumed());
        for _ in 0..random.below(12) {
            let (from, to) = match random.below(2) {
                0 => (&mut pair.client, &mut pair.server),
                _ => (&mut pair.server, &mut pair.client),
            };
            match random.below(8) {
                0 if version == 1 => assert!(from.engine.refresh_keys(), "seed {seed}"),
                1 if most > 3 => from.write(&random.some(60_000)),
                2 => from.write(&[]),
                _ => from.write(&random.some(200)),
            }
            from.transmit(to);
            let len = to.wire.len().min(random.below(most + 1));
            to.arrive(len);
        }
        pair.settle_in_pieces(random, most);
        pair.assert_all_arrived(seed);
        // Each end once, in either order; the other goes on until it says so too.
        let (first, second) = match random.below(2) {
            0 => (&mut pair.client, &mut pair.server),
            _ => (&mut pair.server, &mut pair.client),
        };
        first.engine.close();
        first.engine.close();
        assert!(!first.engine.write(b"late"), "nothing is sent after the end");
        second.write(&random.bytes(300));
        pair.settle_in_pieces(random, most);
        let (first, second) = match pair.client.engine.peer_has_closed() {
            true => (&mut pair.server, &mut pair.client),
            false => (&mut pair.client, &mut pair.server),
        };
        assert!(second.engine.peer_has_closed(), "seed {seed}");
        second.write(&random.bytes(300));
        second.engine.close();
        assert!(!first.engine.peer_has_closed());
        pair.settle_in_pieces(random, most);
        pair.client.engine.eof();
        pair.server.engine.eof();
        assert!(pair.client.engine.peer_has_closed() && pair.server.engine.peer_has_closed());
        pair.assert_all_arrived(seed);
    }
    let resumed = resumed.into_inner();
    assert!(resumed.iter().all(|count| *count > 100), "both versions resume: {resumed:?}");
}

#[test]
fn whole_records_are_decrypted_where_they_are() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.write(b"one");
        pair.client.write(b"two");
        pair.client.write(&[7; 100]);
        let mut bytes = pair.client.engine.take_out();
        let cut = bytes.len() - 20;
        let mut rest = bytes.split_off(cut);
        let range = pair.server.engine.feed(&mut bytes);
        assert_eq!(&bytes[range], b"onetwo");
        assert!(pair.server.engine.take_plain().is_empty());
        assert!(pair.server.engine.held() > 0, "a part of a record waits for the rest");
        // The rest, and a whole record behind it.
        pair.client.write(b"three");
        rest.append(&mut pair.client.engine.take_out());
        let range = pair.server.engine.feed(&mut rest);
        assert_eq!(pair.server.engine.take_plain(), [7; 100]);
        assert_eq!(&rest[range], b"three");
        assert_eq!(pair.server.engine.held(), 0);
    }
}

#[test]
fn a_changed_bit_gives_no_wrong_byte() {
    let configs = [&TLS12, &TLS13]
        .map(|version| (Arc::new(client_config(version)), Arc::new(server_config(version))));
    let mut failed = 0;
    for seed in 0..1500 {
        let random = &mut Random::new(seed);
        let (client, server) = configs[random.below(2)].clone();
        let mut pair = Pair::new(client, server);
        // Somewhere in the handshake, or behind it.
        let mut until = random.below(4_500);
        let to_client = random.below(2) == 0;
        let mut written = false;
        for _ in 0..2000 {
            let Pair { client, server } = &mut pair;
            client.transmit(server);
            server.transmit(client);
            for end in [&mut *client, &mut *server] {
                if !end.engine.is_handshaking() && end.engine.failure().is_none() && !written {
                    end.write(&random.bytes(2000));
                }
            }
            written |= !client.engine.is_handshaking() && !server.engine.is_handshaking();
            client.transmit(server);
            server.transmit(client);
            let target = if to_client { &mut *client } else { &mut *server };
            if until < target.wire.len() {
                target.wire[until] ^= 1 << random.below(8);
                until = usize::MAX;
            }
            for (end, is_target) in [(&mut *client, to_client), (&mut *server, !to_client)] {
                let len = end.wire.len().min(1 + random.below(1000));
                end.arrive(len);
                if is_target && until != usize::MAX {
                    until = until.saturating_sub(len);
                }
            }
            let is_quiet = |end: &End| end.wire.is_empty() && !end.engine.has_out();
            if is_quiet(client) && is_quiet(server) {
                break;
            }
        }
        assert!(pair.client.sent.starts_with(&pair.server.received), "seed {seed}");
        assert!(pair.server.sent.starts_with(&pair.client.received), "seed {seed}");
        pair.client.engine.eof();
        pair.server.engine.eof();
        let clean =
            pair.client.sent == pair.server.received && pair.server.sent == pair.client.received;
        let told = |end: &End| matches!(end.engine.failure(), Some(Failure::Tls { .. }));
        if told(&pair.client) || told(&pair.server) {
            failed += 1;
        } else if until == usize::MAX && !clean {
            // A length was changed: the rest was waited for until the end.
            assert!(matches!(pair.client.failure(), Failure::Truncated { .. }));
        }
    }
    assert!(failed > 500, "most changes are noticed at once: {failed}");
}

#[test]
fn garbage_is_an_error_and_the_peer_is_told() {
    let server = Arc::new(server_config(&TLS13));
    let mut alerts = 0;
    for seed in 0..2000 {
        let random = &mut Random::new(seed);
        let mut end = End::new(Engine::server(server.clone()).expect("a valid config"));
        let len = 1 + random.below(3000);
        end.wire = random.bytes(len);
        if random.below(2) == 0 {
            // Something like a record of the handshake.
            let header = [22, 3, 1, 0, random.below(256) as u8, 1, 0, 0, random.below(256) as u8];
            end.wire.splice(0..0, header);
        }
        while !end.wire.is_empty() {
            end.arrive(end.wire.len().min(1 + random.below(500)));
        }
        end.engine.eof();
        assert!(end.received.is_empty());
        match end.failure() {
            Failure::Tls { in_handshake, .. } => {
                assert!(in_handshake);
                alerts += usize::from(end.engine.has_out());
            }
            Failure::Truncated { in_handshake } => assert!(in_handshake),
        }
        // A failure stays, whatever comes.
        end.wire = random.bytes(100);
        end.engine.take_out();
        end.arrive_all();
        assert!(!end.engine.has_out() && end.received.is_empty());
    }
    assert!(alerts > 1500, "{alerts}");
    let text = {
        let mut end = End::new(Engine::server(server).expect("a valid config"));
        end.wire = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        end.arrive_all();
        end.failure().to_io().to_string()
    };
    assert!(text.starts_with("TLS handshake failed: "), "{text}");
}

#[test]
fn a_record_that_is_too_long_is_refused() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.write(b"fine");
        pair.settle();
        pair.server.wire = vec![23, 3, 3, 0xff, 0xff];
        pair.server.wire.extend([0; 70_000]);
        for _ in 0..70 {
            pair.server.arrive(1000);
        }
        let Failure::Tls { cause, in_handshake: false } = pair.server.failure() else {
            panic!("{:?}", pair.server.failure());
        };
        assert!(!matches!(cause, Error::General(_)), "{cause:?}");
        assert_eq!((&pair.server.received[..], pair.server.engine.held()), (&b"fine"[..], 0));
        // The peer hears of it.
        pair.settle();
        assert!(matches!(
            pair.client.failure(),
            Failure::Tls { cause: Error::AlertReceived(_), .. }
        ));
    }
}

#[test]
fn a_handshake_message_that_never_ends_is_refused() {
    let mut end = End::new(Engine::server(Arc::new(server_config(&TLS13))).expect("a config"));
    // A ClientHello that announces 16 MiB, in records of 16 KiB.
    for number in 0..1000 {
        let mut record = vec![22, 3, 1, 0x40, 0];
        if number == 0 {
            record.extend([1, 0xff, 0xff, 0xff]);
        }
        record.resize(5 + 0x4000, 0);
        end.wire.append(&mut record);
        end.arrive_all();
        assert!(end.engine.held() < 200_000, "what is kept is bounded");
        if end.engine.failure().is_some() {
            return;
        }
    }
    panic!("16 MiB were taken");
}

#[test]
fn an_end_without_a_word_is_a_truncation() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.write(b"half of it");
        pair.settle();
        pair.server.engine.eof();
        assert_eq!(pair.server.received, b"half of it");
        let error = pair.server.failure().to_io();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("close_notify"), "{error}");
        // What is sent may still arrive.

        // In the middle of a record.
        pair.server.write(&[1; 1000]);
        pair.server.transmit(&mut pair.client);
        pair.client.arrive(500);
        pair.client.engine.eof();
        assert!(matches!(pair.client.failure(), Failure::Truncated { in_handshake: false }));
        assert!(pair.client.received.is_empty());
    }
    let mut client = Engine::client(Arc::new(client_config(&TLS13)), name()).expect("a config");
    client.eof();
    assert!(matches!(client.failure(), Some(Failure::Truncated { in_handshake: true })));
}

#[test]
fn what_comes_after_the_end_is_not_looked_at() {
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.client.write(b"last");
        pair.client.engine.close();
        pair.client.transmit(&mut pair.server);
        pair.server.wire.extend(b"garbage behind the end");
        pair.server.arrive_all();
        pair.server.wire.extend([0; 1000]);
        pair.server.arrive_all();
        pair.server.engine.eof();
        assert!(pair.server.engine.peer_has_closed() && pair.server.engine.failure().is_none());
        assert_eq!((&pair.server.received[..], pair.server.engine.held()), (&b"last"[..], 0));
        // The other direction is open.
        pair.server.write(b"answer");
        pair.settle();
        assert_eq!(pair.client.received, b"answer");
    }
}

#[test]
fn new_keys_are_answered_with_the_next_write() {
    let mut pair = Pair::connected(&TLS13);
    for round in 0..10u8 {
        assert!(pair.client.engine.refresh_keys());
        assert!(pair.client.engine.has_out(), "the request goes out by itself");
        pair.client.write(&[round; 10]);
        pair.settle();
        let before = pair.server.sent.len();
        pair.server.write(&[round; 10]);
        let answer = pair.server.engine.take_out();
        // Two records: the answer to the request, then the bytes.
        let first = 5 + usize::from(u16::from_be_bytes([answer[3], answer[4]]));
        assert!(answer.len() > first, "round {round}");
        pair.client.wire.extend(answer);
        pair.settle();
        assert_eq!(pair.server.sent.len(), before + 10);
    }
    pair.assert_all_arrived(0);
}

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
        let (at_client, at_server) = (pair.client.engine.info(), pair.server.engine.info());
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
    pair.settle();
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
        pair.settle();
        assert_eq!(pair.server.engine.info().peer_certificates(), KEYS.client.0);

        // Without one: refused, and the client hears why.
        let mut pair = Pair::new(Arc::new(client_config(version)), server);
        pair.settle();
        assert!(matches!(
            pair.server.failure(),
            Failure::Tls { cause: Error::NoCertificatesPresented, in_handshake: true }
        ));
        assert!(matches!(
            pair.client.failure(),
            Failure::Tls { cause: Error::AlertReceived(_), .. }
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
        pair.settle();
        pair.client.write(b"not early");
        pair.settle();
        pair.assert_all_arrived(0);
    }
}

#[test]
fn garbage_after_our_end_is_an_error_too() {
    if cfg!(debug_assertions) {
        return println!(
            "skipped: rustls 0.23 asserts here that it sends one alert, in debug builds"
        );
    }
    for version in [&TLS12, &TLS13] {
        let mut pair = Pair::connected(version);
        pair.server.engine.close();
        pair.server.engine.take_out();
        pair.server.wire = vec![23, 3, 3, 0, 40];
        pair.server.wire.extend([0; 40]);
        pair.server.arrive_all();
        assert!(matches!(pair.server.failure(), Failure::Tls { .. }));
    }
}

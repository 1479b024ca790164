//! TL23: a panic in what TLS calls ends the connection, and nothing else.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tamam::Runtime;
use tamam::time::{sleep, timeout};
use tamam::tls::rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use tamam::tls::rustls::version::TLS13;
use tamam::tls::rustls::{
    self, ClientConfig, ConnectionTrafficSecrets, SupportedCipherSuite, Tls13CipherSuite,
};
use tamam::tls::{TlsAcceptor, TlsConnector, TlsStream, provider};

use crate::common::with_both;
use crate::keys::{KEYS, narrow_tcp_pair, tcp_pair};
use crate::{handshakes, server_config};

/// A cipher whose next record panics, once it is told to.
struct Trap {
    algorithm: &'static dyn Tls13AeadAlgorithm,
    is_set: Arc<AtomicBool>,
}

struct TrapCipher<C> {
    cipher: C,
    is_set: Arc<AtomicBool>,
}

impl<C> TrapCipher<C> {
    fn step(&self) {
        assert!(!self.is_set.swap(false, Ordering::Relaxed), "the provider panics");
    }
}

impl MessageEncrypter for TrapCipher<Box<dyn MessageEncrypter>> {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, rustls::Error> {
        self.step();
        self.cipher.encrypt(message, seq)
    }

    fn encrypted_payload_len(&self, len: usize) -> usize {
        self.cipher.encrypted_payload_len(len)
    }
}

impl MessageDecrypter for TrapCipher<Box<dyn MessageDecrypter>> {
    fn decrypt<'a>(
        &mut self,
        message: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, rustls::Error> {
        self.step();
        self.cipher.decrypt(message, seq)
    }
}

impl Tls13AeadAlgorithm for Trap {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        let cipher = self.algorithm.encrypter(key, iv);
        Box::new(TrapCipher { cipher, is_set: self.is_set.clone() })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        let cipher = self.algorithm.decrypter(key, iv);
        Box::new(TrapCipher { cipher, is_set: self.is_set.clone() })
    }

    fn key_len(&self) -> usize {
        self.algorithm.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.algorithm.extract_keys(key, iv)
    }
}

/// A client whose provider panics in the next record after the trap is set; and the server.
async fn trapped(narrow: bool) -> (Rc<TlsStream>, TlsStream, Arc<AtomicBool>) {
    let is_set = Arc::new(AtomicBool::new(false));
    let mut provider = provider();
    let suites = provider.cipher_suites.iter();
    let suite = suites.filter_map(SupportedCipherSuite::tls13).next().expect("TLS 1.3 has one");
    let trap = Trap { algorithm: suite.aead_alg, is_set: is_set.clone() };
    let suite = Tls13CipherSuite {
        common: rustls::crypto::CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg: Box::leak(Box::new(trap)),
        quic: None,
    };
    Arc::make_mut(&mut provider).cipher_suites =
        vec![SupportedCipherSuite::Tls13(Box::leak(Box::new(suite)))];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(KEYS.root.clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("it has a suite of TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (connector, acceptor) =
        (TlsConnector::from(config), TlsAcceptor::from(server_config(&TLS13)));
    let tcp = if narrow { narrow_tcp_pair().await } else { tcp_pair().await };
    let (client, server) = handshakes(&connector, &acceptor, tcp).await;
    (Rc::new(client.expect("trusted")), server.expect("anybody may connect"), is_set)
}

/// How many polls a while brings in which nothing happens.
async fn idle_polls() -> u64 {
    let before = tamam::metrics().polls;
    sleep(Duration::from_millis(50)).await;
    tamam::metrics().polls - before
}

/// 1 a large send fills TCP, a small one waits behind it; 2 the provider panics when the first goes
/// on; 3 both get an error and their buffers; 4 no task spins.
#[test]
fn tl23_sends_that_wait_are_told() {
    with_both(Runtime::builder(), || async {
        let (client, server, trap) = trapped(true).await;
        let send = |len: usize| {
            let client = client.clone();
            tamam::spawn(async move { client.send_all(vec![0; len]).await })
        };
        let (first, second) = (send(8 << 20), send(10));
        sleep(Duration::from_millis(20)).await;
        trap.store(true, Ordering::Relaxed);
        let draining = tamam::spawn(async move { while let Ok(Some(_)) = server.recv().await {} });
        for (send, len) in [(first, 8 << 20), (second, 10)] {
            let answer = timeout(Duration::from_secs(20), send).await.expect("it is told");
            let error = answer.expect("the panic was elsewhere").expect_err("it cannot go out");
            assert_eq!(error.buf().len(), len, "its buffer comes back");
            assert!(error.to_string().contains("panic"), "{error}");
        }
        sleep(Duration::from_millis(200)).await; // the server gets what was encrypted before
        assert!(idle_polls().await < 10, "a task spins");
        drop(client);
        draining.await.expect("no panic");
    });
}

/// The call that meets the panic unwinds; every later one, of either direction, is told.
#[test]
fn tl23_every_later_call_is_told() {
    with_both(Runtime::builder(), || async {
        let (client, _server, trap) = trapped(false).await;
        trap.store(true, Ordering::Relaxed);
        let sending = client.clone();
        let first = tamam::spawn(async move { sending.send_all("x").await.map(drop) });
        assert!(first.await.expect_err("it meets the panic").is_panic());
        let told = |error: std::io::Error| assert!(error.to_string().contains("panic"), "{error}");
        told(client.send_all("y").await.expect_err("no more can be sent").into());
        told(client.recv().await.expect_err("no more can be received"));
        told(client.read(Vec::with_capacity(8)).await.expect_err("nor read").into());
        told(client.shutdown().await.expect_err("nor ended in order"));
        assert!(idle_polls().await < 10, "a task spins");
    });
}

/// A panic while decrypting; another task waits to receive.
#[test]
fn tl23_receivers_that_wait_are_told() {
    with_both(Runtime::builder(), || async {
        let (client, server, trap) = trapped(false).await;
        let receive = || {
            let client = client.clone();
            tamam::spawn(async move { client.recv().await.map(|chunk| chunk.is_some()) })
        };
        let (first, second) = (receive(), receive());
        sleep(Duration::from_millis(20)).await;
        trap.store(true, Ordering::Relaxed);
        server.send_all("a record").await.expect("connected");
        let mut answers = Vec::new();
        for receiving in [first, second] {
            let answer = timeout(Duration::from_secs(20), receiving).await.expect("it is told");
            answers.push(match answer {
                Err(error) => error.is_panic(),
                Ok(result) => {
                    !result.expect_err("nothing was decrypted").to_string().contains("panic")
                }
            });
        }
        assert_eq!(answers, [true, false], "one meets the panic, the other is told");
        assert!(idle_polls().await < 10, "a task spins");
    });
}

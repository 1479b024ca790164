//! TLS over TCP: the engine is tested in memory (`src/tls/tests`); here is what lies between it
//! and TCP, on every engine of the runtime, and strangers at the other end.

mod common;
#[path = "common/keys.rs"]
mod keys;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::Future;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::peer::Folder;
use common::{PATIENCE, Random, everywhere};
use futures_util::AsyncWriteExt;
use keys::{KEYS, NAME, narrow_tcp_pair, tcp_pair};
use tamam::Runtime;
use tamam::buf::Chunk;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{sleep, timeout};
use tamam::tls::rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use tamam::tls::rustls::pki_types::ServerName;
use tamam::tls::rustls::version::{TLS12, TLS13};
use tamam::tls::rustls::{
    self, ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig,
    SupportedProtocolVersion,
};
use tamam::tls::{self, LazyConfigAcceptor, TlsAcceptor, TlsConnector, TlsStream};

/// Trusts the root, and shows no certificate.
fn client_config(version: &'static SupportedProtocolVersion) -> ClientConfig {
    keys::client_config(version, false)
}

/// Takes anybody.
fn server_config(version: &'static SupportedProtocolVersion) -> ServerConfig {
    keys::server_config(version, false)
}

// ---- connections --------------------------------------------------------------------------------

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
    let source = error.source().and_then(|source| source.downcast_ref());
    source.unwrap_or_else(|| panic!("rustls is not the cause of: {error}"))
}

// ---- the calls ----------------------------------------------------------------------------------

#[test]
fn tl1_an_echo_in_both_versions() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            assert_eq!(client.info().version(), server.info().version());
            assert_eq!(client.info().server_name(), Some(NAME));
            assert_eq!(server.info().server_name(), Some(NAME));
            assert_eq!(client.peer_addr().ok(), server.local_addr().ok());
            let echo = tamam::spawn(async move {
                while let Some(chunk) = server.recv().await? {
                    server.send_all(chunk).await?;
                }
                server.shutdown().await
            });
            // In every way there is.
            client.send_all("one").await.expect("sent");
            let answer = client.read_exact(Vec::with_capacity(3), 3).await.expect("three bytes");
            assert_eq!(answer, b"one");
            let (sent, _) = client.send("two").await.expect("sent");
            let chunk = client.recv().await.expect("no failure").expect("no end");
            assert_eq!((sent, &chunk[..]), (3, &b"two"[..]));
            drop(chunk);
            let (sent, bufs) = client.sendv(vec!["th", "", "ree"]).await.expect("sent");
            assert_eq!((sent, bufs.len()), (5, 3));
            let (len, buf) = client.read(Vec::with_capacity(2)).await.expect("two bytes");
            assert_eq!((len, &buf[..]), (2, &b"th"[..]));
            let (len, buf) = client.read(buf).await.map_or_else(
                |error| (0, error.into_parts().1), // no room left: it comes back
                |(len, buf)| (len, buf),
            );
            assert_eq!((len, &buf[..]), (0, &b"th"[..]));
            let (len, buf) = client.read(Vec::with_capacity(100)).await.expect("the rest");
            assert_eq!((len, &buf[..]), (3, &b"ree"[..]));
            assert_eq!(client.send_all(Vec::new()).await.expect("nothing to do"), b"");
            client.shutdown().await.expect("the server lives");
            assert!(client.recv().await.expect("no failure").is_none());
            assert_eq!(client.read(Vec::with_capacity(1)).await.expect("the end").0, 0);
            let error = client.send_all("late").await.expect_err("after the end");
            assert_eq!((error.kind(), *error.buf()), (ErrorKind::BrokenPipe, "late"));
            client.shutdown().await.expect("twice is once");
            echo.await.expect("no panic").expect("no failure");
        }
    });
}

#[test]
fn tl2_a_message_is_decrypted_in_the_memory_it_came_in() {
    common::with_both(Runtime::builder(), || async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            let message = common::pattern(2000);
            client.send_all(message.clone()).await.expect("sent");
            let chunk = server.recv().await.expect("no failure").expect("no end");
            assert!(chunk.is_pooled() && chunk[..] == message[..]);
        }
    });
}

#[test]
fn tl3_one_direction_ends_and_the_other_goes_on() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            client.send_all("the question").await.expect("sent");
            client.shutdown().await.expect("the server lives");
            assert_eq!(receive_all(&server).await.expect("a clean end"), b"the question");
            assert!(server.recv().await.expect("the end stays").is_none());
            let answer = common::pattern(100_000);
            let sent = answer.clone();
            let sending = tamam::spawn(async move {
                server.send_all(sent).await.expect("sent");
                server.shutdown().await
            });
            assert!(receive_all(&client).await.expect("a clean end") == answer);
            sending.await.expect("no panic").expect("the client lives");
        }
    });
}

#[test]
fn tl4_an_end_without_a_word_is_an_error_that_stays() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = pair(version).await;
            server.send_all("half of it").await.expect("sent");
            drop(server);
            let mut received = Vec::new();
            let error = loop {
                match client.recv().await {
                    Ok(chunk) => received.extend_from_slice(&chunk.expect("no clean end")),
                    Err(error) => break error,
                }
            };
            assert_eq!(received, b"half of it");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            assert!(error.to_string().contains("close_notify"), "{error}");
            let again = client.recv().await.expect_err("it stays");
            assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
            let again = client.read(Vec::with_capacity(9)).await.expect_err("it stays");
            assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
            let again = client.read_exact(Vec::with_capacity(9), 9).await.expect_err("it stays");
            assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
        }
    });
}

#[test]
fn tl5_a_clean_end_is_too_early_for_read_exact() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        server.send_all("four").await.expect("sent");
        server.shutdown().await.expect("the client lives");
        let error = client.read_exact(Vec::with_capacity(9), 9).await.expect_err("four of nine");
        assert_eq!((error.kind(), &error.buf()[..]), (ErrorKind::UnexpectedEof, &b"four"[..]));
        let error = client.read_exact(Vec::with_capacity(1), 9).await.expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn tl6_a_changed_record_is_an_error_that_stays_and_the_peer_hears_of_it() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        client.send_all("fine").await.expect("sent");
        assert_eq!(&server.read_exact(Vec::with_capacity(4), 4).await.expect("fine"), b"fine");
        // By hand, past TLS.
        let mut record = vec![23, 3, 3, 0, 40];
        record.extend([7; 40]);
        client.tcp().send_all(record).await.expect("sent");
        for _ in 0..2 {
            let error = server.recv().await.expect_err("not ours");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert_eq!(cause(&error), &rustls::Error::DecryptError);
        }
        let error = server.send_all("late").await.expect_err("it has failed");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let error = client.recv().await.expect_err("an alert");
        assert!(matches!(cause(&error), rustls::Error::AlertReceived(_)), "{error}");
    });
}

// ---- handshakes ---------------------------------------------------------------------------------

#[test]
fn tl7_a_handshake_has_a_timeout() {
    everywhere(|| async {
        let soon = Some(Duration::from_millis(30));
        for message in [&b""[..], &[22, 3, 1]] {
            let (mut silent, server) = {
                let (server, peer) = common::pair().await;
                (peer, server)
            };
            silent.write_all(message).expect("room");
            let acceptor = TlsAcceptor::from(server_config(&TLS13)).handshake_timeout(soon);
            let error = acceptor.accept(server).await.expect_err("nobody speaks");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(error.to_string().contains("TLS handshake"), "{error}");

            let (mut silent, client) = {
                let (client, peer) = common::pair().await;
                (peer, client)
            };
            silent.write_all(message).expect("room");
            let connector = TlsConnector::from(client_config(&TLS13)).handshake_timeout(soon);
            let error = connector.connect(NAME, client).await.expect_err("nobody speaks");
            assert_eq!(error.kind(), ErrorKind::TimedOut);

            let (mut silent, server) = {
                let (server, peer) = common::pair().await;
                (peer, server)
            };
            silent.write_all(message).expect("room");
            let acceptor = LazyConfigAcceptor::new(server).handshake_timeout(soon);
            let error = acceptor.await.expect_err("nobody speaks");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
    });
}

#[test]
fn tl7_the_timeout_of_a_lazy_handshake_covers_both_of_its_parts() {
    everywhere(|| async {
        let (client, server) = tcp_pair().await;
        // A client that says hello and nothing else.
        let hello = {
            let (to, from) = tcp_pair().await;
            let connector = TlsConnector::from(client_config(&TLS13));
            let connecting =
                tamam::spawn(async move { connector.connect(NAME, to).await.is_err() });
            let hello = from.recv().await.expect("no failure").expect("no end").to_vec();
            let mut hello = hello;
            while hello.len() < 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])) {
                hello.extend_from_slice(&from.recv().await.expect("no failure").expect("no end"));
            }
            drop(from);
            assert!(connecting.await.expect("no panic"), "there was no answer");
            hello
        };
        client.send_all(hello).await.expect("sent");
        let acceptor =
            LazyConfigAcceptor::new(server).handshake_timeout(Some(Duration::from_millis(100)));
        let start = acceptor.await.expect("a hello");
        assert_eq!(start.client_hello().server_name(), Some(NAME));
        let config = Arc::new(server_config(&TLS13));
        let error = start.into_stream(config).await.expect_err("nobody goes on");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn tl9_a_server_is_checked() {
    everywhere(|| async {
        let acceptor = TlsAcceptor::from(server_config(&TLS13));
        // Of another name.
        let (client, server) = tcp_pair().await;
        let at_server = acceptor.clone();
        let at_server = tamam::spawn(async move { at_server.accept(server).await });
        let connector = TlsConnector::from(client_config(&TLS13));
        let error = connector.connect("other.test", client).await.expect_err("another name");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(matches!(cause(&error), rustls::Error::InvalidCertificate(_)), "{error}");
        assert!(error.to_string().contains("other.test"), "{error}");
        let error = at_server.await.expect("no panic").expect_err("the client says why");
        assert!(matches!(cause(&error), rustls::Error::AlertReceived(_)), "{error}");

        // Signed by nobody we trust.
        let nobody = tls::client_config(RootCertStore::empty()).expect("versions");
        let (client, server) =
            handshakes(&TlsConnector::from(nobody), &acceptor, tcp_pair().await).await;
        let error = client.expect_err("not trusted");
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        assert_eq!(server.expect_err("the client says why").kind(), ErrorKind::InvalidData);

        // Not a name at all.
        let (client, _server) = tcp_pair().await;
        let error = connector.connect("not a name", client).await.expect_err("spaces");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("not a name"), "{error}");
    });
}

#[test]
fn names_and_addresses_are_taken_as_they_come() {
    common::with_both(Runtime::builder(), || async {
        let connector = TlsConnector::from(client_config(&TLS13));
        let ip = std::net::IpAddr::from([127, 0, 0, 1]);
        let name = ServerName::try_from(NAME).expect("a name");
        let acceptor = TlsAcceptor::from(server_config(&TLS13));
        for number in 0..7 {
            let (client, server) = tcp_pair().await;
            let acceptor = acceptor.clone();
            let server = tamam::spawn(async move { acceptor.accept(server).await });
            let outcome = match number {
                0 => connector.connect(NAME, client).await,
                1 => connector.connect(NAME.to_owned(), client).await,
                2 => connector.connect(&NAME.to_owned(), client).await,
                3 => connector.connect(name.clone(), client).await,
                4 => connector.connect(ip, client).await,
                5 => connector.connect("127.0.0.1", client).await,
                _ => connector.connect("[::1]", client).await,
            };
            let _ = server.await.expect("no panic");
            // The certificate has the name only.
            match outcome {
                Ok(_) => assert!(number < 4),
                Err(error) => assert!(number >= 4, "{number}: {error}"),
            }
        }
    });
}

#[test]
fn tl10_who_speaks_no_tls_is_told() {
    everywhere(|| async {
        let (server, mut peer) = common::pair().await;
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("room");
        let error = TlsAcceptor::from(server_config(&TLS13)).accept(server).await;
        let error = error.expect_err("not TLS");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().starts_with("TLS handshake failed: "), "{error}");
        let alert = common::arriving(peer).await;
        assert_eq!((alert.len(), &alert[..6]), (7, &[21, 3, 3, 0, 2, 2][..]), "a fatal alert");

        let (server, mut peer) = common::pair().await;
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("room");
        let error = LazyConfigAcceptor::new(server).await.expect_err("not TLS");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let alert = common::arriving(peer).await;
        assert_eq!((alert.len(), &alert[..6]), (7, &[21, 3, 3, 0, 2, 2][..]), "a fatal alert");

        // And who goes away.
        let (server, peer) = common::pair().await;
        drop(peer);
        let error = TlsAcceptor::from(server_config(&TLS13)).accept(server).await;
        assert_eq!(error.expect_err("gone").kind(), ErrorKind::UnexpectedEof);
        let (server, peer) = common::pair().await;
        drop(peer);
        let error = LazyConfigAcceptor::new(server).await.expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn tl11_sessions_are_resumed_and_protocols_agreed() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (mut client, mut server) = (client_config(version), server_config(version));
            client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            server.alpn_protocols = vec![b"http/1.1".to_vec()];
            let (connector, acceptor) = (TlsConnector::from(client), TlsAcceptor::from(server));
            for round in 0..3 {
                let (client, server) = handshakes(&connector, &acceptor, tcp_pair().await).await;
                let (client, server) = (client.expect("trusted"), server.expect("anybody"));
                for info in [client.info(), server.info()] {
                    assert_eq!(info.alpn(), Some(&b"http/1.1"[..]));
                    assert_eq!(info.is_resumed(), round > 0, "{version:?}");
                    assert_eq!(info.version(), version.version);
                }
                assert!(
                    client.info().peer_certificates()
                        == std::slice::from_ref(&KEYS.server.certificate)
                );
                // The tickets come behind the handshake.
                server.send_all("x").await.expect("sent");
                client.read_exact(Vec::with_capacity(1), 1).await.expect("sent");
            }
        }
    });
}

#[test]
fn tl12_clients_show_certificates() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let acceptor = TlsAcceptor::from(keys::server_config(version, true));
            let connector = TlsConnector::from(keys::client_config(version, true));
            let (client, server) = handshakes(&connector, &acceptor, tcp_pair().await).await;
            client.expect("trusted");
            let server = server.expect("trusted");
            let shown = std::slice::from_ref(&KEYS.client.certificate);
            assert!(server.info().peer_certificates() == shown);

            // One without: TLS 1.3 tells the client at its first receive only.
            let connector = TlsConnector::from(client_config(version));
            let (client, server) = handshakes(&connector, &acceptor, tcp_pair().await).await;
            let error = server.expect_err("no certificate");
            assert_eq!(cause(&error), &rustls::Error::NoCertificatesPresented);
            let error = match client {
                Ok(client) => client.recv().await.expect_err("refused"),
                Err(error) => error,
            };
            assert!(matches!(cause(&error), rustls::Error::AlertReceived(_)), "{error}");
        }
    });
}

#[test]
fn a_config_is_chosen_by_the_name() {
    everywhere(|| async {
        for version in [&TLS12, &TLS13] {
            let (client, server) = tcp_pair().await;
            let server = tamam::spawn(async move {
                let start = LazyConfigAcceptor::new(server).await?;
                assert!(start.tcp().peer_addr().is_ok());
                let hello = start.client_hello();
                assert_eq!(hello.server_name(), Some(NAME));
                let mut config = server_config(version);
                config.alpn_protocols = vec![b"chosen".to_vec()];
                start.into_stream(Arc::new(config)).await
            });
            let mut config = client_config(version);
            config.alpn_protocols = vec![b"chosen".to_vec()];
            let client = TlsConnector::from(config).connect(NAME, client).await.expect("trusted");
            let server = server.await.expect("no panic").expect("anybody may connect");
            assert_eq!(client.info().alpn(), Some(&b"chosen"[..]));
            assert_eq!(server.info().server_name(), Some(NAME));
            server.send_all("here").await.expect("sent");
            let answer = client.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
            assert_eq!(answer, b"here");
        }
    });
}

// ---- dropped futures ----------------------------------------------------------------------------

/// What a frame of this number holds: its length, its number, and bytes that belong to it.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + len);
    bytes.extend((len as u32).to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend((0..len).map(|at| (at as u32).wrapping_mul(number | 1).to_le_bytes()[1]));
    bytes
}

/// Drops a future after some polls, or when it is done.
async fn for_a_while<F: Future>(random: &mut Random, future: F) -> Option<F::Output> {
    if random.below(2) == 0 {
        return timeout(Duration::from_micros(random.below(300)), future).await.ok();
    }
    let (mut future, mut polls) = (pin!(future), random.below(4));
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending if polls == 0 => std::task::Poll::Ready(None),
        std::task::Poll::Pending => {
            polls -= 1;
            std::task::Poll::Pending
        }
    })
    .await
}

/// 1 frames are sent, most futures dropped on the way; 2 as are those that receive; 3 what arrives
/// is whole frames, in order, and all those whose futures said so.
async fn frames_survive(seed: u64, total: usize, narrow: bool) {
    let version = if seed % 2 == 0 { &TLS13 } else { &TLS12 };
    let tcp = if narrow { narrow_tcp_pair().await } else { tcp_pair().await };
    let (sender, receiver) = pair_over(version, tcp).await;
    let confirmed = Rc::new(RefCell::new(Vec::new()));
    let (told, random) = (confirmed.clone(), Rc::new(Cell::new(seed + 1)));
    let sending = tamam::spawn(async move {
        let mut random = Random(random.get());
        let (mut sent, mut number) = (0, 0);
        while sent < total {
            let len = match random.below(8) {
                0 => random.below(300_000),
                1 | 2 => random.below(40_000),
                _ => random.below(1000),
            };
            let bytes = frame(number, len as usize);
            let len = bytes.len();
            let result = match random.below(3) {
                0 => for_a_while(&mut random, sender.send_all(bytes)).await.map(|result| {
                    result.expect("the peer reads");
                }),
                1 => for_a_while(&mut random, sender.send(bytes)).await.map(|result| {
                    assert_eq!(result.expect("the peer reads").0, len);
                }),
                _ => {
                    let (head, tail) = bytes.split_at(len / 2);
                    let bufs = vec![head.to_vec(), tail.to_vec()];
                    for_a_while(&mut random, sender.sendv(bufs)).await.map(|result| {
                        assert_eq!(result.expect("the peer reads").0, len);
                    })
                }
            };
            if result.is_some() {
                told.borrow_mut().push(number);
                sent += len;
            } else {
                sent += len / 8; // perhaps it is sent
                tamam::yield_now().await;
            }
            number += 1;
        }
        sender.shutdown().await.expect("the peer reads");
        sender
    });
    let mut random = Random(seed + 1000);
    let mut received = Vec::new();
    loop {
        let piece = match random.below(4) {
            0 => {
                let room = 1 + random.below(100_000) as usize;
                let reading = receiver.read(Vec::with_capacity(room));
                let piece = for_a_while(&mut random, reading).await;
                piece.map(|result| result.expect("no failure").1)
            }
            1 => {
                let len = 1 + random.below(20_000) as usize;
                let reading = receiver.read_exact(Vec::with_capacity(len), len);
                match for_a_while(&mut random, reading).await {
                    Some(Err(error)) => {
                        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                        Some(error.into_parts().1) // the last bytes of all
                    }
                    other => other.map(|result| result.expect("just seen")),
                }
            }
            _ => {
                let receiving = receiver.recv();
                let piece = for_a_while(&mut random, receiving).await;
                piece.map(|result| result.expect("no failure").map_or(Vec::new(), Vec::from))
            }
        };
        match piece {
            Some(piece) if piece.is_empty() => break,
            Some(piece) => received.extend(piece),
            None => tamam::yield_now().await,
        }
    }
    let _sender = sending.await.expect("no panic");
    let (mut rest, mut arrived) = (&received[..], Vec::new());
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[..4].try_into().expect("four bytes")) as usize;
        let number = u32::from_le_bytes(rest[4..8].try_into().expect("four bytes"));
        assert!(rest[..8 + len] == frame(number, len), "frame {number} is not whole, seed {seed}");
        assert!(arrived.last().is_none_or(|last| *last < number), "in order, seed {seed}");
        arrived.push(number);
        rest = &rest[8 + len..];
    }
    let missing = confirmed.borrow().iter().find(|number| !arrived.contains(number)).copied();
    assert_eq!(missing, None, "confirmed and not there, seed {seed}");
}

#[test]
fn tl13_dropped_futures_lose_nothing_and_send_nothing_twice() {
    let seed = Cell::new(0);
    everywhere(|| {
        seed.set(seed.get() + 1);
        frames_survive(seed.get(), 100_000, false)
    });
    common::with_both(Runtime::builder(), || async {
        for seed in 0..6 {
            frames_survive(seed, 300_000, true).await;
        }
    });
    common::with_both(Runtime::builder(), || frames_survive(77, 10 << 20, false));
}

#[test]
fn tl14_a_send_that_is_dropped_midway_goes_on_by_itself() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let big = common::pattern(2 << 20);
        {
            let mut sending = pin!(client.send_all(big.clone()));
            assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
            // One that has not had its turn leaves nothing behind.
            let mut never = pin!(client.send_all("never"));
            assert!(timeout(Duration::from_millis(1), never.as_mut()).await.is_err());
        }
        let received = server.read_exact(Vec::with_capacity(big.len()), big.len()).await;
        assert!(received.expect("all of it") == big);
        client.send_all("next").await.expect("sent");
        let next = server.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
        assert_eq!(next, b"next");
    });
}

#[test]
fn tl15_a_send_that_is_forgotten_goes_on_with_the_next() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let client = Rc::new(client);
        let big = common::pattern(1 << 20);
        // Leaked with the stream's count that it holds, hence the short way to end it below.
        let mut sending = Box::pin({
            let (client, big) = (client.clone(), big.clone());
            async move { client.send_all(big).await.map(drop) }
        });
        assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
        let other = client.clone();
        let next = tamam::spawn(async move { other.send_all("next").await.map(drop) });
        let reading = Rc::new(RefCell::new(sending)); // neither polled nor dropped
        let received = server.read_exact(Vec::with_capacity(big.len()), big.len()).await;
        assert!(received.expect("all of it") == big);
        let received = server.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
        assert_eq!(received, b"next");
        next.await.expect("no panic").expect("sent");
        drop(reading);
    });
}

#[test]
fn tl16_the_end_follows_what_is_queued_whoever_waits() {
    everywhere(|| async {
        for way in 0..3 {
            let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
            let big = common::pattern(1 << 20);
            let sent = big.clone();
            let (read, write) = client.into_split();
            let started = timeout(Duration::from_millis(5), write.send_all(sent)).await;
            assert!(started.is_err(), "nobody reads yet");
            match way {
                0 => drop(write),
                1 => {
                    let ended = timeout(Duration::from_millis(1), write.shutdown()).await;
                    assert!(ended.is_err(), "nobody reads yet");
                    let late = write.send_all("late").await.expect_err("after the end");
                    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
                    write.forget();
                }
                _ => {
                    let whole = read.reunite(write).expect("of one stream");
                    let receiving = tamam::spawn(async move { receive_all(&server).await });
                    whole.shutdown().await.expect("the peer reads");
                    let received = receiving.await.expect("no panic").expect("a clean end");
                    assert!(received == big);
                    continue;
                }
            }
            assert!(receive_all(&server).await.expect("a clean end") == big);
            server.send_all("still there").await.expect("sent");
            let answer = read.read_exact(Vec::with_capacity(11), 11).await.expect("sent");
            assert_eq!(answer, b"still there");
        }
    });
}

#[test]
fn tl17_a_dropped_stream_leaves_nothing_behind() {
    everywhere(|| async {
        let (client, server) = pair_over(&TLS13, narrow_tcp_pair().await).await;
        let big = common::pattern(1 << 20);
        assert!(timeout(Duration::from_millis(5), client.send_all(big)).await.is_err());
        drop(client);
        let error = receive_all(&server).await.expect_err("cut off");
        assert!(
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
            "{error}"
        );
    });
}

// ---- several at once ----------------------------------------------------------------------------

/// Both ends send so many bytes, and receive them meanwhile.
async fn both_directions(version: &'static SupportedProtocolVersion, len: usize) {
    let (client, server) = pair(version).await;
    let bytes = common::pattern(len);
    let tasks: Vec<_> = [client, server]
        .into_iter()
        .map(|stream| {
            let (read, write) = stream.into_split();
            let (sent, expected) = (bytes.clone(), bytes.clone());
            let sending = tamam::spawn(async move {
                for piece in sent.chunks(50_000) {
                    write.send_all(piece.to_vec()).await.expect("the peer reads");
                }
            });
            tamam::spawn(async move {
                let mut all = Vec::new();
                while let Some(chunk) = read.recv().await.expect("no failure") {
                    all.extend_from_slice(&chunk);
                }
                assert!(all == expected, "each byte, in order");
                sending.await.expect("no panic");
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

#[test]
fn tl18_both_directions_at_once_do_not_wait_for_each_other() {
    everywhere(|| async {
        both_directions(&TLS12, 200_000).await;
        both_directions(&TLS13, 200_000).await;
    });
    // More than the kernel holds.
    common::with_both(Runtime::builder(), || both_directions(&TLS13, 12 << 20));
}

#[test]
fn tl19_senders_do_not_interleave_and_receivers_share() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        const LEN: usize = 100_000;
        let (client, server) = (Rc::new(client), Rc::new(server));
        let senders: Vec<_> = (0..3u8)
            .map(|number| {
                let client = client.clone();
                tamam::spawn(async move {
                    for _ in 0..3 {
                        client.send_all(vec![number; LEN]).await.expect("the peer reads");
                    }
                })
            })
            .collect();
        let received = Rc::new(RefCell::new(Vec::new()));
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let (server, received) = (server.clone(), received.clone());
                tamam::spawn(async move {
                    while let Some(chunk) = server.recv().await.expect("no failure") {
                        received.borrow_mut().extend_from_slice(&chunk);
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.expect("no panic");
        }
        client.shutdown().await.expect("the peer reads");
        for receiver in receivers {
            receiver.await.expect("the end is for all");
        }
        let received = received.borrow();
        assert_eq!(received.len(), 9 * LEN);
        for whole in received.chunks(LEN) {
            assert!(whole.iter().all(|byte| *byte == whole[0]), "a buffer is torn");
        }
    });
}

#[test]
fn tl20_keys_change_under_way() {
    everywhere(|| async {
        let (client, server) = pair(&TLS13).await;
        let (client, server) = (Rc::new(client), Rc::new(server));
        for stream in [&client, &server] {
            stream.tcp().set_nodelay(true).expect("a TCP socket");
        }
        let expected = common::pattern(50_000);
        let (sent, sender) = (expected.clone(), client.clone());
        let sending = tamam::spawn(async move {
            for piece in sent.chunks(1000) {
                sender.refresh_keys().expect("nothing keeps it from sending");
                sender.send_all(piece.to_vec()).await.expect("the peer reads");
            }
        });
        let mut received = Vec::new();
        while received.len() < expected.len() {
            server.refresh_keys().expect("nothing keeps it from sending");
            let chunk = server.recv().await.expect("no failure").expect("no end");
            server.send_all(vec![7; 100]).await.expect("the peer reads");
            client.read_exact(Vec::with_capacity(100), 100).await.expect("the answer");
            received.extend_from_slice(&chunk);
        }
        assert!(received == expected);
        sending.await.expect("no panic");
        let (old, _server) = pair(&TLS12).await;
        assert_eq!(old.refresh_keys().expect_err("it has none").kind(), ErrorKind::Unsupported);
        old.send_all("fine").await.expect("that was no failure");
    });
}

#[test]
fn tl8_a_stalled_handshake_keeps_nobody_out() {
    common::with_both(Runtime::builder(), || async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
        let addr = listener.local_addr().expect("bound");
        let acceptor = TlsAcceptor::from(server_config(&TLS13));
        let served = Rc::new(Cell::new(0));
        let count = served.clone();
        let accepting = tamam::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.expect("a client");
                let (acceptor, count) = (acceptor.clone(), count.clone());
                tamam::spawn(async move {
                    if acceptor.accept(tcp).await.is_ok() {
                        count.set(count.get() + 1);
                    }
                });
            }
        });
        let silent: Vec<_> =
            (0..20).map(|_| StdStream::connect(addr).expect("somebody listens")).collect();
        let connector = TlsConnector::from(client_config(&TLS13));
        let tcp = TcpStream::connect(addr).await.expect("somebody listens");
        let stream = connector.connect(NAME, tcp).await.expect("past the silent ones");
        assert_eq!(stream.info().version(), ProtocolVersion::TLSv1_3);
        while served.get() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        drop(silent);
        accepting.abort();
        sleep(Duration::from_millis(5)).await; // the silent ones' tasks see the end
    });
}

#[test]
fn a_stream_says_what_it_is() {
    common::with_both(Runtime::builder(), || async {
        let (client, server) = pair(&TLS13).await;
        let text = format!("{client:?} {:?}", TlsConnector::from(client_config(&TLS12)));
        assert!(text.contains("TLSv1_3") && text.contains("127.0.0.1"), "{text}");
        let (read, write) = server.into_split();
        assert!(format!("{read:?} {write:?}").contains("TlsWriteHalf"));
        let other = client.into_split();
        let error = read.reunite(other.1).expect_err("of two streams");
        assert!(error.to_string().contains("not of the same stream"));
    });
}

#[test]
fn tl21_a_stream_outlives_its_runtime() {
    let _watchdog = common::Watchdog::start();
    for (name, builder) in common::engines() {
        eprintln!("-- {name}");
        let (home, other) = (common::build(builder.clone()), common::build(builder));
        let (receiver, sender) = home.block_on(async {
            let (sender, receiver) = pair_over(&TLS13, narrow_tcp_pair().await).await;
            sender.send_all("parked").await.expect("sent");
            let half = receiver.read_exact(Vec::with_capacity(3), 3).await.expect("half of it");
            assert_eq!(half, b"par");
            (receiver, sender)
        });
        // A send midway, which is then polled elsewhere: its buffer comes back at once.
        let big = common::pattern(1 << 20);
        let mut sending = Box::pin(sender.send_all(big.clone()));
        home.block_on(async {
            assert!(timeout(Duration::from_millis(5), sending.as_mut()).await.is_err());
        });
        let mut received = other.block_on(async {
            let error = sending.await.expect_err("not at home");
            assert!(error.kind() == ErrorKind::Other && *error.buf() == big);
            // What has come is served anywhere.
            let mut received = Vec::new();
            let error = loop {
                match receiver.recv().await {
                    Ok(chunk) => received.extend_from_slice(&chunk.expect("no end")),
                    Err(error) => break error,
                }
            };
            assert_eq!((&received[..3], error.kind()), (&b"ked"[..], ErrorKind::Other));
            let error = receiver.send_all("x").await.expect_err("not at home");
            assert_eq!((error.kind(), *error.buf()), (ErrorKind::Other, "x"));
            assert_eq!(
                receiver.shutdown().await.expect_err("not at home").kind(),
                ErrorKind::Other
            );
            received
        });
        // At home again, the next send takes the rest of it along.
        home.block_on(async {
            let next = pin!(sender.send_all("next"));
            let all = 3 + big.len() + 4;
            let missing = all - received.len();
            let reading = receiver.read_exact(Vec::with_capacity(missing), missing);
            let (sent, rest) = futures_util::join!(next, reading);
            sent.expect("the peer reads");
            received.extend(rest.expect("all of it"));
            assert!(received == [b"ked", &big[..], b"next"].concat());
        });
        drop(home);
        other.block_on(async {
            let error = receiver.recv().await.expect_err("the runtime is gone");
            assert_eq!(error.kind(), ErrorKind::Other);
            let error = receiver.send_all("x").await.expect_err("the runtime is gone");
            assert_eq!((error.kind(), *error.buf()), (ErrorKind::Other, "x"));
            receiver.shutdown().await.expect_err("the runtime is gone");
        });
        let (_read, write) = sender.into_split();
        drop(write);
        drop(receiver);
    }
}

/// Keeps no session, and panics when it is to keep one.
#[derive(Debug)]
struct Panics;

impl ClientSessionStore for Panics {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        panic!("on purpose");
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

#[test]
fn a_panic_in_what_tls_calls_ends_the_connection_and_nothing_else() {
    everywhere(|| async {
        let mut config = client_config(&TLS13);
        config.resumption = Resumption::store(Arc::new(Panics));
        let acceptor = TlsAcceptor::from(server_config(&TLS13));
        let (client, server) =
            handshakes(&TlsConnector::from(config), &acceptor, tcp_pair().await).await;
        let client = Rc::new(client.expect("trusted"));
        let receiving = client.clone();
        // The server's tickets come behind its handshake.
        let task = tamam::spawn(async move { receiving.recv().await.map(drop) });
        assert!(task.await.expect_err("the store panics").is_panic());
        for _ in 0..2 {
            let error = client.recv().await.expect_err("it is at an end");
            assert_eq!(error.kind(), ErrorKind::Other);
            assert!(error.to_string().contains("panic"), "{error}");
        }
        let error = client.send_all("x").await.expect_err("it is at an end");
        assert_eq!((error.kind(), *error.buf()), (ErrorKind::Other, "x"));
        let error = timeout(*PATIENCE, client.shutdown()).await.expect("it waits for nobody");
        error.expect_err("it cannot be said");
        drop(client);
        server.expect("anybody may connect").recv().await.expect_err("cut off");
    });
}

// ---- files --------------------------------------------------------------------------------------

#[test]
fn certificates_and_keys_are_loaded_from_files() {
    let folder = Folder::new("files");
    let chain = format!("{}{}", KEYS.server.certificate_pem, KEYS.root_pem);
    let chain = tls::load_certs(folder.write("chain.pem", &chain)).expect("two of them");
    assert_eq!(chain, [KEYS.server.certificate.clone(), KEYS.root.clone()]);
    let key = tls::load_key(folder.write("key.pem", &KEYS.server.key_pem)).expect("a key");
    assert_eq!(key, KEYS.server.key);
    tls::server_config(chain.clone(), key).expect("they belong together");
    let other = tls::load_key(folder.write("other.pem", &KEYS.client.key_pem)).expect("a key");
    let error = tls::server_config(chain, other).expect_err("another's key");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let missing = folder.file("missing.pem");
    for error in [
        tls::load_certs(&missing).expect_err("not there"),
        tls::load_key(&missing).map(drop).expect_err("not there"),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("missing.pem"), "{error}");
    }
    let empty = folder.write("empty.pem", "nothing here");
    for error in [
        tls::load_certs(&empty).expect_err("nothing in it"),
        tls::load_key(&empty).map(drop).expect_err("nothing in it"),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("empty.pem"), "{error}");
    }
}

#[test]
fn authorities_to_trust_are_there() {
    assert!(tls::webpki_roots().len() > 50);
    tls::client_config(tls::webpki_roots()).expect("versions");
    match tls::native_roots() {
        Ok(roots) => assert!(!roots.is_empty()),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            println!("skipped: {error}");
        }
    }
}

// ---- strangers ----------------------------------------------------------------------------------

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether there is an openssl to talk to.
fn has_openssl() -> bool {
    let found =
        Command::new("openssl").arg("version").output().is_ok_and(|out| out.status.success());
    if !found {
        println!("skipped: there is no openssl on the PATH");
    }
    found
}

fn openssl(folder: &Folder, args: &[&str]) -> Running {
    let child = Command::new("openssl")
        .args(args)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Running(child.expect("it is there"))
}

#[test]
fn openssl_is_served() {
    if !has_openssl() {
        return;
    }
    let folder = Folder::new("s_client");
    folder.write("root.pem", &KEYS.root_pem);
    common::with_both(Runtime::builder(), || async {
        for (version, option) in [(&TLS12, "-tls1_2"), (&TLS13, "-tls1_3")] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports");
            let addr = listener.local_addr().expect("bound").to_string();
            let args = [
                "s_client",
                "-connect",
                &addr,
                option,
                "-CAfile",
                "root.pem",
                "-servername",
                NAME,
                "-verify_hostname",
                NAME,
                "-verify_return_error",
                "-alpn",
                "tamam",
            ];
            let mut client = openssl(&folder, &args);
            let mut config = server_config(version);
            config.alpn_protocols = vec![b"tamam".to_vec()];
            let (tcp, _) = listener.accept().await.expect("it connects");
            let stream = TlsAcceptor::from(config).accept(tcp).await.expect("it speaks TLS");
            assert_eq!(stream.info().version(), version.version);
            assert_eq!(stream.info().alpn(), Some(&b"tamam"[..]));
            assert_eq!(stream.info().server_name(), Some(NAME));
            let mut input = client.0.stdin.take().expect("piped");
            input.write_all(b"one\n").expect("it reads");
            let line = stream.read_exact(Vec::with_capacity(4), 4).await.expect("a line");
            assert_eq!(line, b"one\n");
            // A line of its own that asks for new keys, in both directions.
            if option == "-tls1_3" {
                input.write_all(b"K\n").expect("it reads");
                sleep(Duration::from_millis(200)).await;
            }
            input.write_all(b"two\n").expect("it reads");
            let line = stream.read_exact(Vec::with_capacity(4), 4).await.expect("a line");
            assert_eq!(line, b"two\n");
            let mut big = common::pattern(200_000);
            big.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
            big.extend(b"\nthe last line\n");
            let output = client.0.stdout.take().expect("piped");
            let reading = std::thread::spawn(move || {
                let mut text = Vec::new();
                BufReader::new(output).read_to_end(&mut text).map(|_| text)
            });
            let sent = big.clone();
            stream.send_all(sent).await.expect("it reads");
            stream.shutdown().await.expect("it is there");
            let text = common::join(reading).await.expect("it is read");
            drop(input); // without which it would have left early
            let found = text.windows(big.len()).any(|window| window == &big[..]);
            assert!(found, "all of it arrives, in one piece");
            // It ends with a word too.
            assert!(receive_all(&stream).await.expect("a clean end").is_empty());
        }
    });
}

#[test]
fn openssl_serves() {
    if !has_openssl() {
        return;
    }
    let folder = Folder::new("s_server");
    folder.write("cert.pem", &KEYS.server.certificate_pem);
    folder.write("key.pem", &KEYS.server.key_pem);
    common::with_both(Runtime::builder(), || async {
        for (version, option) in [(&TLS12, "-tls1_2"), (&TLS13, "-tls1_3")] {
            let addr = StdListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .expect("loopback has ports");
            let text = addr.to_string();
            // Turns each line around.
            let args = [
                "s_server", "-accept", &text, option, "-cert", "cert.pem", "-key", "key.pem",
                "-rev",
            ];
            let _server = openssl(&folder, &args);
            let connector = TlsConnector::from(client_config(version));
            for round in 0..2 {
                let tcp = timeout(*PATIENCE, async {
                    loop {
                        match TcpStream::connect(addr).await {
                            Ok(tcp) => break tcp,
                            Err(_) => sleep(Duration::from_millis(10)).await,
                        }
                    }
                });
                let tcp = tcp.await.expect("it listens some day");
                let stream = connector.connect(NAME, tcp).await.expect("it speaks TLS");
                assert_eq!(stream.info().version(), version.version);
                assert_eq!(stream.info().is_resumed(), round > 0);
                for word in ["one", "three"] {
                    let turned: String = word.chars().rev().collect();
                    stream.send_all(format!("{word}\n")).await.expect("it reads");
                    let len = word.len() + 1;
                    let line = stream.read_exact(Vec::with_capacity(len), len).await;
                    assert_eq!(line.expect("a line"), format!("{turned}\n").into_bytes());
                }
                stream.shutdown().await.expect("it is there");
            }
        }
    });
}

#[test]
fn lines_are_read_through_a_chunk() {
    // A chunk of plaintext is a chunk like any other: it splits, and can be sent again.
    common::with_both(Runtime::builder(), || async {
        let (client, server) = pair(&TLS13).await;
        client.send_all("head body").await.expect("sent");
        let mut head: Chunk = server.recv().await.expect("no failure").expect("no end");
        let body = head.split_off(5);
        server.send_all(body).await.expect("sent");
        drop(head);
        let answer = client.read_exact(Vec::with_capacity(4), 4).await.expect("sent");
        assert_eq!(answer.lines().next().expect("a line").expect("text"), "body");
    });
}

/// G9. Loops over calls that are ready at once, by the traits or not, let others run.
#[test]
fn g9_ready_calls_of_tls_let_others_run() {
    common::with_both(Runtime::builder(), || async {
        let (mut idle, _peer) = pair(&TLS13).await;
        let (mut closed, _other_peer) = pair(&TLS13).await;
        closed.shutdown().await.expect("open");
        let (failed, stranger) = pair(&TLS13).await;
        stranger.tcp().send_all("no record").await.expect("sent");
        failed.recv().await.expect_err("no TLS");
        for what in ["flush", "write", "shutdown"] {
            eprintln!("-- {what}");
            let others = tamam::spawn(sleep(Duration::from_millis(5)));
            while !others.is_finished() {
                match what {
                    "flush" => idle.flush().await.expect("nothing waits"),
                    "write" => drop(closed.write(b"x").await.expect_err("it has ended")),
                    _ => drop(failed.shutdown().await.expect_err("it has failed")),
                }
            }
        }
    });
}

/// SY2. 1 the process forks in the midst of a turn; 2 the child drops its copies of both halves of
/// either end; 3 that panics nowhere, and the parent's go on.
#[test]
fn sy2_halves_dropped_in_a_forked_child_say_nothing() {
    common::alone("sy2_halves_dropped_in_a_forked_child_say_nothing", || {
        common::with_both(Runtime::builder(), || async {
            let (client, server) = pair(&TLS13).await;
            let (client, server) = (client.into_split(), server.into_split());
            // SAFETY: this is the only thread that matters here; the child leaves by `_exit`.
            let pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork works");
            if pid == 0 {
                let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let ((client_read, client_write), (server_read, server_write)) =
                        (client, server);
                    drop((client_write, client_read));
                    drop((server_read, server_write));
                }));
                // SAFETY: ends the child, and nothing else.
                unsafe { libc::_exit(dropped.is_err().into()) };
            }
            let mut status = 0;
            // SAFETY: `status` is writable.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0, "the child has panicked");
            client.1.send_all("goes on").await.expect("the peer reads");
            let received = server.0.read_exact(Vec::with_capacity(7), 7).await;
            assert_eq!(received.expect("sent"), b"goes on");
        });
    });
}

//! TL7 to TL12: handshakes: their time, their checks, what they agree on.

use std::cell::Cell;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream as StdStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tamam::Runtime;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::sleep;
use tamam::tls::rustls::pki_types::ServerName;
use tamam::tls::rustls::version::{TLS12, TLS13};
use tamam::tls::rustls::{self, ProtocolVersion, RootCertStore};
use tamam::tls::{self, LazyConfigAcceptor, TlsAcceptor, TlsConnector};

use crate::common::everywhere;
use crate::keys::{KEYS, NAME, tcp_pair};
use crate::{cause, client_config, common, handshakes, keys, server_config};

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
fn er4_handshake_timeouts_of_zero_and_for_ever() {
    everywhere(|| async {
        for (limit, is_enough) in [(Duration::ZERO, false), (Duration::MAX, true)] {
            let limit = Some(limit);
            let connector = TlsConnector::from(client_config(&TLS13)).handshake_timeout(limit);
            let acceptor = TlsAcceptor::from(server_config(&TLS13)).handshake_timeout(limit);
            let (client, server) = handshakes(&connector, &acceptor, tcp_pair().await).await;
            assert_eq!((client.is_ok(), server.is_ok()), (is_enough, is_enough), "{limit:?}");
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

/// The client's last message is with the kernel when `connect` is over, also if the thread then does
/// something else for long.
#[test]
fn tl1_after_connect_the_servers_handshake_ends_by_itself() {
    common::with_both(Runtime::builder(), || async {
        for version in [&TLS12, &TLS13] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
            let addr = listener.local_addr().expect("bound");
            let config = Arc::new(server_config(version));
            let server = std::thread::spawn(move || {
                let (mut socket, _) = listener.accept().expect("a client");
                socket.set_read_timeout(Some(*common::PATIENCE / 4)).expect("not zero");
                let mut server = rustls::ServerConnection::new(config).expect("a valid config");
                while server.is_handshaking() {
                    server.complete_io(&mut socket).expect("the client does its part");
                }
            });
            let tcp = TcpStream::connect(addr).await.expect("it listens");
            let connector = TlsConnector::from(client_config(version));
            let _stream = connector.connect(NAME, tcp).await.expect("it is trusted");
            server.join().expect("the handshake ends while this thread waits");
        }
    });
}

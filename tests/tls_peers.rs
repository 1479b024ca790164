//! TLS with strangers at the other end: openssl and Python, as clients and as servers. What is not
//! installed here is skipped, with a word. `tests/tls` has the first words with openssl.

mod common;
#[path = "common/keys.rs"]
mod keys;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use common::example::serve;
use common::peer::{self, Folder, Peer, on_each_engine};
use common::{PATIENCE, with_both};
use keys::{KEYS, NAME, client_config, server_config};
use tamam::Runtime;
use tamam::net::{TcpListener, TcpStream};
use tamam::time::{sleep, timeout};
use tamam::tls::rustls::version::{TLS12, TLS13};
use tamam::tls::rustls::{self, SupportedProtocolVersion};
use tamam::tls::{TlsAcceptor, TlsConnector, TlsError, TlsStream};

const VERSIONS: [(&SupportedProtocolVersion, &str); 2] = [(&TLS12, "-tls1_2"), (&TLS13, "-tls1_3")];

/// Runs a test on both engines, with a folder that has all keys in it.
fn with_keys<F: Future<Output = ()>>(name: &str, test: impl Fn(Rc<Folder>) -> F) {
    let folder = Rc::new(Folder::new(&format!("tls-{name}")));
    KEYS.write(&folder);
    with_both(Runtime::builder(), || test(folder.clone()));
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    let addr = listener.local_addr().expect("bound");
    (listener, addr)
}

fn s_client(folder: &Folder, addr: SocketAddr, args: &[&str]) -> Peer {
    let addr = addr.to_string();
    let known = ["s_client", "-connect", &addr, "-CAfile", "root.pem", "-servername", NAME];
    let mut command = Command::new("openssl");
    Peer::start(command.args(known).args(args).current_dir(folder.path()))
}

async fn s_server(folder: &Folder, args: &[&str]) -> (Peer, SocketAddr) {
    let addr = peer::free_addr();
    let text = addr.to_string();
    let known = ["s_server", "-accept", &text, "-cert", "server.pem", "-key", "server.key"];
    let mut command = Command::new("openssl");
    let server = Peer::start(command.args(known).args(args).current_dir(folder.path()));
    server.printed("ACCEPT").await;
    (server, addr)
}

async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor) -> std::io::Result<TlsStream> {
    let (tcp, _) =
        timeout(*PATIENCE, listener.accept()).await.expect("in time").expect("it connects");
    acceptor.accept(tcp).await
}

async fn connect(addr: SocketAddr, connector: &TlsConnector) -> std::io::Result<TlsStream> {
    connector.connect(NAME, TcpStream::connect(addr).await.expect("it listens")).await
}

/// Receives a line, and nothing behind it.
async fn line(stream: &TlsStream, expected: &str) {
    let expected = format!("{expected}\n");
    let len = expected.len();
    let line = stream.read_exact(Vec::with_capacity(len), len).await.expect("a line");
    assert_eq!(String::from_utf8_lossy(&line), expected);
}

/// What came up to the end, and the error if it was one.
async fn rest(stream: &TlsStream) -> (Vec<u8>, Option<std::io::Error>) {
    let mut all = Vec::new();
    loop {
        match stream.recv().await {
            Ok(Some(chunk)) => all.extend_from_slice(&chunk),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

fn cause(error: &std::io::Error) -> Option<&rustls::Error> {
    TlsError::of(error).map(TlsError::cause)
}

// ---- openssl ------------------------------------------------------------------------------------

#[test]
fn openssl_resumes_its_sessions() {
    if !peer::has(&["openssl"]) {
        return;
    }
    with_keys("resume", |folder| async move {
        for (version, option) in VERSIONS {
            let (listener, addr) = listen();
            let mut config = server_config(version, false);
            // As rustls has it: tickets in 1.3, the server's memory in 1.2.
            config.send_tls13_tickets = 1;
            let acceptor = TlsAcceptor::from(config);
            for round in 0..3 {
                let mut args = vec![option, "-sess_out", "session", "-verify_return_error"];
                if round > 0 {
                    args.extend(["-sess_in", "session"]);
                }
                let mut client = s_client(&folder, addr, &args);
                let stream = accept(&listener, &acceptor).await.expect("it speaks TLS");
                assert_eq!(stream.info().is_resumed(), round > 0, "{option}");
                stream.send_all("here\n").await.expect("it reads");
                client.printed("here").await;
                client.write("Q\n");
                let (received, error) = rest(&stream).await;
                assert!(received.is_empty() && error.is_none(), "{error:?}");
                stream.shutdown().await.expect("it is there");
                let (status, text) = client.ended().await;
                assert!(status.success(), "{text}");
                assert!(text.contains(if round > 0 { "Reused, " } else { "New, " }), "{text}");
            }
        }
    });
}

#[test]
fn openssl_shows_a_certificate() {
    if !peer::has(&["openssl"]) {
        return;
    }
    with_keys("s_client-cert", |folder| async move {
        for (version, option) in VERSIONS {
            let (listener, addr) = listen();
            let acceptor = TlsAcceptor::from(server_config(version, true));
            let args = [option, "-cert", "client.pem", "-key", "client.key"];
            let mut client = s_client(&folder, addr, &args);
            let stream = accept(&listener, &acceptor).await.expect("it is trusted");
            assert_eq!(stream.info().peer_certificates()[0], KEYS.client.certificate);
            client.write("it is me\n");
            line(&stream, "it is me").await;
            drop(client);

            let mut client = s_client(&folder, addr, &[option]);
            let error = accept(&listener, &acceptor).await.expect_err("no certificate");
            assert_eq!(cause(&error), Some(&rustls::Error::NoCertificatesPresented), "{error}");
            client.printed("alert").await; // it hears why
            client.close_stdin();
            let (status, text) = client.ended().await;
            assert!(!status.success(), "{text}");
        }
    });
}

#[test]
fn openssl_asks_for_a_certificate() {
    if !peer::has(&["openssl"]) {
        return;
    }
    with_keys("s_server-cert", |folder| async move {
        for (version, option) in VERSIONS {
            let args =
                [option, "-Verify", "2", "-CAfile", "root.pem", "-verify_return_error", "-rev"];
            let (_server, addr) = s_server(&folder, &args).await;
            let connector = TlsConnector::from(client_config(version, true));
            let stream = connect(addr, &connector).await.expect("it trusts us");
            stream.send_all("olleh\n").await.expect("it reads");
            line(&stream, "hello").await;
            drop(stream);
            // Without one. In TLS 1.3 the client's handshake is over before it hears of it.
            let connector = TlsConnector::from(client_config(version, false));
            let error = match connect(addr, &connector).await {
                Ok(stream) => rest(&stream).await.1.expect("refused"),
                Err(error) => error,
            };
            assert!(matches!(cause(&error), Some(rustls::Error::AlertReceived(_))), "{error}");
            // It serves on.
            let connector = TlsConnector::from(client_config(version, true));
            connect(addr, &connector).await.expect("it trusts us");
        }
    });
}

/// New keys in both directions, asked for by either kind of peer, with and without an answer wanted;
/// what we send and receive meanwhile is whole.
#[test]
fn openssl_changes_its_keys() {
    if !peer::has(&["openssl"]) {
        return;
    }
    with_keys("key-update", |folder| async move {
        let connector = TlsConnector::from(client_config(&TLS13, false));
        let (mut server, addr) = s_server(&folder, &["-tls1_3"]).await;
        let stream = connect(addr, &connector).await.expect("it speaks TLS");
        change_keys(&mut server, &stream).await;
        drop(server);

        let (listener, addr) = listen();
        let acceptor = TlsAcceptor::from(server_config(&TLS13, false));
        let mut client = s_client(&folder, addr, &["-tls1_3"]);
        let stream = accept(&listener, &acceptor).await.expect("it speaks TLS");
        change_keys(&mut client, &stream).await;
        assert_eq!(client.text().matches("KEYUPDATE").count(), 6);
    });
}

async fn change_keys(openssl: &mut Peer, stream: &TlsStream) {
    for round in 0..6 {
        // `K`: and change yours. `k`: mine alone. It takes a line for a command only if it reads it by
        // itself.
        openssl.write(if round % 2 == 0 { "K\n" } else { "k\n" });
        while !openssl.has_read_all() {
            sleep(Duration::from_millis(2)).await;
        }
        let word = format!("word {round}");
        // With a send of ours under way, which nobody waits for, when the request comes.
        let sent = format!("{}{word} ours\n", "x".repeat(20_000));
        let receiving = line(stream, &word);
        openssl.write(&format!("{word}\n"));
        receiving.await;
        stream.send_all(sent).await.expect("it reads");
        openssl.printed(&format!("{word} ours")).await;
    }
}

/// A peer that is killed gives what it sent, and then an error: never an end.
#[test]
fn openssl_is_killed() {
    if !peer::has(&["openssl"]) {
        return;
    }
    with_keys("killed", |folder| async move {
        for (version, option) in VERSIONS {
            let (listener, addr) = listen();
            let acceptor = TlsAcceptor::from(server_config(version, false));
            let mut client = s_client(&folder, addr, &[option]);
            let stream = accept(&listener, &acceptor).await.expect("it speaks TLS");
            client.write("the last words\n");
            line(&stream, "the last words").await;
            let waiting = tamam::spawn(async move { (rest(&stream).await, stream) });
            sleep(Duration::from_millis(20)).await;
            client.signal(libc::SIGKILL);
            let ((received, error), stream) = waiting.await.expect("no panic");
            assert!(received.is_empty());
            let error = error.expect("no clean end");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
            // The end is not said twice, and the stream can be ended all the same.
            assert_eq!(rest(&stream).await.1.expect("it stays").kind(), ErrorKind::UnexpectedEof);
            let _ = stream.shutdown().await;

            let (server, addr) = s_server(&folder, &[option, "-rev"]).await;
            let connector = TlsConnector::from(client_config(version, false));
            let stream = connect(addr, &connector).await.expect("it speaks TLS");
            stream.send_all("abc\n").await.expect("it reads");
            line(&stream, "cba").await;
            server.signal(libc::SIGKILL);
            let error = rest(&stream).await.1.expect("no clean end");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
            // What is sent to nobody fails sooner or later.
            let failed = timeout(*PATIENCE, async {
                loop {
                    if let Err(error) = stream.send_all(vec![0; 10_000]).await {
                        return error.kind();
                    }
                }
            });
            let kind = failed.await.expect("it does not hang");
            assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind}");
        }
    });
}

/// TLS 1.2 lets a peer ask for another handshake; rustls does not do that. The peer is told or
/// dropped, and what came before is whole.
#[test]
fn openssl_asks_for_a_renegotiation() {
    if !peer::has(&["openssl"]) {
        return;
    }
    with_keys("renegotiation", |folder| async move {
        // The client asks.
        let (listener, addr) = listen();
        let acceptor = TlsAcceptor::from(server_config(&TLS12, false));
        let mut client = s_client(&folder, addr, &["-tls1_2"]);
        let stream = accept(&listener, &acceptor).await.expect("it speaks TLS");
        client.write("before\n");
        line(&stream, "before").await;
        client.write("R\n");
        let ended = timeout(*PATIENCE / 2, async {
            // It must hear something about it, and we must not spin or hang.
            client.printed("RENEGOTIATING").await;
            rest(&stream).await
        });
        let (received, error) = ended.await.expect("neither side waits for ever");
        assert!(received.is_empty());
        let error = error.expect("the client does not go on without");
        assert!(matches!(cause(&error), Some(rustls::Error::AlertReceived(_))), "{error}");
        let (_, text) = {
            client.close_stdin();
            client.ended().await
        };
        assert!(text.to_lowercase().contains("renegotiation"), "{text}");

        // The server asks.
        let (mut server, addr) = s_server(&folder, &["-tls1_2"]).await;
        let connector = TlsConnector::from(client_config(&TLS12, false));
        let stream = connect(addr, &connector).await.expect("it speaks TLS");
        stream.send_all("before\n").await.expect("it reads");
        server.printed("before").await;
        server.write("R\n");
        let (received, error) =
            timeout(*PATIENCE / 2, rest(&stream)).await.expect("nobody waits for ever");
        assert!(received.is_empty());
        let error = error.expect("the server does not go on without");
        assert!(matches!(cause(&error), Some(rustls::Error::AlertReceived(_))), "{error}");
    });
}

// ---- Python -------------------------------------------------------------------------------------

/// One client: both directions at once, a mebibyte each, then the end as the second word says:
/// `unwrap` says goodbye and waits for ours, `await` waits for ours first, `cut` says nothing.
const PYTHON: &str = r#"
import hashlib, select, socket, ssl, sys
role, end, version, root, cert, key, port = sys.argv[1:8]
version = {"-tls1_2": ssl.TLSVersion.TLSv1_2, "-tls1_3": ssl.TLSVersion.TLSv1_3}[version]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = context.maximum_version = version
context.load_verify_locations(root)
context.load_cert_chain(cert, key)
context.set_alpn_protocols(["tamam"])
context.verify_mode = ssl.CERT_REQUIRED
LEN = 1 << 20
def converse(tls):
    print("AGREED", tls.version(), tls.selected_alpn_protocol(), flush=True)
    print("SUBJECT", dict(tls.getpeercert())["subjectAltName"][0][1], flush=True)
    # In one thread: not every Python lets two use one connection at a time.
    left, got = memoryview(bytes(range(256)) * (LEN // 256)), b""
    tls.setblocking(False)
    while left or len(got) < LEN:
        select.select([tls], [tls] if left else [], [])
        try:
            piece = tls.recv(100000) # more than a record
            assert piece, "an early end"
            got += piece
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        try:
            left = left[tls.send(left[:10000]):] if left else left
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
    tls.setblocking(True)
    print("HASH", hashlib.sha256(got).hexdigest(), flush=True)
    if end == "await":
        print("THEN", tls.recv(1), flush=True)
    if end == "cut":
        return tls.close()
    try:
        below = tls.unwrap()
        print("UNWRAPPED", below.recv(1), flush=True)
        below.close()
    except (OSError, ValueError) as error:
        print("FAILED", type(error).__name__, flush=True)
if role == "client":
    # A ragged end is an error, as it is with us.
    with socket.create_connection(("127.0.0.1", int(port))) as tcp:
        converse(context.wrap_socket(tcp, server_hostname="server.test", suppress_ragged_eofs=False))
else:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print("READY", listener.getsockname()[1], flush=True)
        tcp, _ = listener.accept()
        converse(context.wrap_socket(tcp, server_side=True, suppress_ragged_eofs=False))
"#;

fn python(folder: &Folder, role: &str, end: &str, version: &str, port: u16) -> Peer {
    let (cert, key) = (format!("{role}.pem"), format!("{role}.key"));
    let port = port.to_string();
    let args = [role, end, version, "root.pem", &cert, &key, &port];
    Peer::start(peer::python(PYTHON, &args).current_dir(folder.path()))
}

/// Our part of the same conversation.
async fn converse(stream: TlsStream, end: &str) -> Option<std::io::Error> {
    const LEN: usize = 1 << 20;
    let bytes: Vec<u8> = (0..=255).cycle().take(LEN).collect();
    let (read, write) = stream.into_split();
    let sent = bytes.clone();
    let sending = tamam::spawn(async move {
        for piece in sent.chunks(30_000) {
            write.send_all(piece.to_vec()).await.expect("it reads");
        }
        write
    });
    let received = read.read_exact(Vec::with_capacity(LEN), LEN).await.expect("all of it");
    assert!(received == bytes);
    let write = sending.await.expect("no panic");
    let stream = read.reunite(write).expect("of one stream");
    if end == "await" {
        stream.shutdown().await.expect("it is there");
    }
    let (received, error) = rest(&stream).await;
    assert!(received.is_empty());
    if end == "unwrap" {
        stream.shutdown().await.expect("it is there");
    }
    error
}

#[test]
fn python_comes_as_a_client_and_as_a_server() {
    if !peer::has_python("ssl") {
        return;
    }
    with_keys("python", |folder| async move {
        for (version, option) in VERSIONS {
            for end in ["unwrap", "await", "cut"] {
                for role in ["client", "server"] {
                    let (peer, stream) = if role == "client" {
                        let (listener, addr) = listen();
                        let mut config = server_config(version, true);
                        config.alpn_protocols = vec![b"tamam".to_vec()];
                        let peer = python(&folder, role, end, option, addr.port());
                        (peer, accept(&listener, &TlsAcceptor::from(config)).await)
                    } else {
                        let peer = python(&folder, role, end, option, 0);
                        peer.printed("\n").await;
                        let port = peer.wait_for("READY ").parse().expect("a port");
                        let mut config = client_config(version, true);
                        config.alpn_protocols = vec![b"tamam".to_vec()];
                        let addr = SocketAddr::from(([127, 0, 0, 1], port));
                        (peer, connect(addr, &TlsConnector::from(config)).await)
                    };
                    let stream = stream.expect("trusted");
                    assert_eq!(stream.info().alpn(), Some(&b"tamam"[..]));
                    let error = converse(stream, end).await;
                    let (status, text) = peer.ended().await;
                    let context = format!("{role} {end} {option}: {error:?}, {status}\n{text}");
                    assert!(status.success(), "{context}");
                    assert!(text.contains(" tamam\n") && text.contains("SUBJECT "), "{context}");
                    // SHA-256 of the numbers from 0 to 255, 4096 times.
                    let hash = "fbbab289f7f94b25736c58be46a994c441fd02552cc6022352e3d86d2fab7c83";
                    assert!(text.contains(hash), "{context}");
                    match end {
                        "cut" => {
                            let kind = error.map(|error| error.kind());
                            assert_eq!(kind, Some(ErrorKind::UnexpectedEof), "{context}");
                        }
                        _ => {
                            assert!(error.is_none(), "{context}");
                            assert!(text.contains("UNWRAPPED b''"), "{context}");
                        }
                    }
                    assert_eq!(text.contains("THEN b''"), end == "await", "{context}");
                }
            }
        }
    });
}

/// A stream of ours that is dropped without a word is an error at Python's end; one that was shut
/// down is an end.
#[test]
fn python_tells_an_end_from_a_cut() {
    if !peer::has_python("ssl") {
        return;
    }
    const CLIENT: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as tcp:
    with context.wrap_socket(tcp, server_hostname="server.test", suppress_ragged_eofs=False) as tls:
        got = b""
        try:
            while piece := tls.recv(1000):
                got += piece
            print("END after", got)
        except ssl.SSLEOFError:
            print("CUT after", got)
"#;
    with_keys("python-end", |folder| async move {
        for (version, _) in VERSIONS {
            for is_said in [true, false] {
                let (listener, addr) = listen();
                let root = folder.file("root.pem");
                let port = addr.port().to_string();
                let client = Peer::start(&mut peer::python(CLIENT, &[&root, &port]));
                let acceptor = TlsAcceptor::from(server_config(version, false));
                let stream = accept(&listener, &acceptor).await.expect("it speaks TLS");
                stream.send_all("words").await.expect("it reads");
                if is_said {
                    stream.shutdown().await.expect("it is there");
                }
                drop(stream);
                let (status, text) = client.ended().await;
                assert!(status.success(), "{text}");
                let expected = if is_said { "END after b'words'" } else { "CUT after b'words'" };
                assert!(text.contains(expected), "{text}");
            }
        }
    });
}

// ---- the echo example ---------------------------------------------------------------------------

#[test]
fn tls_echo_serves_openssl() {
    if !peer::has(&["openssl"]) {
        return;
    }
    on_each_engine("tls_echo", |engine, folder| {
        let cert = folder.file("cert.pem");
        let (server, addr) = serve("tls_echo", &["--save-cert", &cert], engine);
        let before = server.descriptors();
        for version in ["-tls1_2", "-tls1_3"] {
            let client = || {
                Peer::start(
                    Command::new("openssl")
                        .args(["s_client", "-connect", &addr, version, "-CAfile", &cert, "-quiet"])
                        .args(["-no_ign_eof", "-verify_return_error", "-servername", "localhost"]),
                )
            };
            let (mut first, mut second) = (client(), client());
            for round in 0..3 {
                for (number, client) in [&mut first, &mut second].into_iter().enumerate() {
                    let line = format!("line {round} of {number}");
                    client.write(&format!("{line}\n"));
                    client.wait_for(&line);
                }
            }
            // One says goodbye, the other is killed.
            first.close_stdin();
            let (status, text) = first.end();
            assert!(status.success(), "{status}: {text}");
            second.signal(libc::SIGKILL);
            assert!(!second.end().0.success());
        }
        server.is_idle_again(before);
        let errors = server.text();
        assert!(!errors.contains("panicked"), "{errors}");
    });
}

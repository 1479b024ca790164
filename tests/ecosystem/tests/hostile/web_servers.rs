//! `ws_server` and `https_server` against hostile clients.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::example::serve;
use crate::common::peer::Peer;
use crate::peers::{Act, Keys, UPGRADE, Wire, attack, masked, visit};
use crate::{does_not_spin, each_way, ends_soon, has_one};

/// A name, whether the server speaks TLS, what it says of the client ("" is nothing), and what the
/// client does.
pub struct Way(pub &'static str, pub bool, pub &'static str, pub Act);

const PLAIN: bool = false;
const TLS: bool = true;

const TO_WS: &[Way] = &[
    Way("is silent", PLAIN, "no WebSocket, for too long", |wire| wire.hold()),
    Way("closes at once", PLAIN, "Handshake not finished", |_| Ok(())),
    Way("resets at once", PLAIN, "reset", |wire| wire.reset()),
    Way("sends half a request", PLAIN, "no WebSocket, for too long", |wire| {
        wire.say(&UPGRADE[..60])?;
        wire.hold()
    }),
    Way("resets in the request", PLAIN, "reset", |wire| {
        wire.say(&UPGRADE[..60])?;
        thread::sleep(Duration::from_millis(20));
        wire.reset()
    }),
    Way("drips the request", PLAIN, "no WebSocket, for too long", |wire| {
        wire.drip(UPGRADE.as_bytes())
    }),
    Way("has an endless head", PLAIN, "headers", |wire| {
        wire.say("GET / HTTP/1.1\r\n")?;
        wire.flood(b"X-More: of it\r\n")
    }),
    Way("wants a page", PLAIN, "upgrade", |wire| {
        wire.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let answer = String::from_utf8(wire.rest()?).expect("text");
        let is_whole = answer.starts_with("HTTP/1.1 426 ") && answer.ends_with("sorry\n");
        // Who gets no answer, or half of one, does not end, and the server's line is missing.
        if is_whole { Ok(()) } else { wire.hold() }
    }),
    Way("speaks TLS to a plain port", PLAIN, "httparse", |wire| {
        let mut hello = wire.hello();
        hello.write_tls(&mut wire.tcp())?;
        wire.hold()
    }),
    Way("opens and is silent", PLAIN, "no sign of life", |wire| {
        wire.ask_upgrade()?;
        wire.hold()
    }),
    Way("pings and reads nothing", PLAIN, "no sign of life", |wire| {
        wire.ask_upgrade()?;
        wire.flood(&masked(0x89, &[7; 100]))
    }),
    Way("talks and reads nothing", PLAIN, "no sign of life", |wire| {
        wire.ask_upgrade()?;
        wire.flood(&masked(0x82, &[7; 60_000]))
    }),
    Way("drips a frame", PLAIN, "no sign of life", |wire| {
        wire.ask_upgrade()?;
        wire.drip(&masked(0x81, &[b'1'; 100]))
    }),
    Way("goes without a goodbye", PLAIN, "", |wire| wire.ask_upgrade()),
    Way("resets", PLAIN, "reset|Broken pipe", |wire| {
        wire.ask_upgrade()?;
        wire.reset()
    }),
    Way("closes with an illegal code", PLAIN, "closed", |wire| {
        wire.ask_upgrade()?;
        wire.masked(0x88, b"\x03\xed")?;
        wire.rest().map(|_| ())
    }),
    Way("closes with half a code", PLAIN, "close sequence", |wire| {
        wire.ask_upgrade()?;
        wire.masked(0x88, b"\x03")?;
        wire.rest().map(|_| ())
    }),
    Way("announces a frame of exabytes", PLAIN, "too", |wire| {
        wire.ask_upgrade()?;
        wire.write_all(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0")?;
        wire.hold()
    }),
    Way("sends no masks", PLAIN, "nmasked", |wire| {
        wire.ask_upgrade()?;
        wire.frame(0x81, b"1")?;
        wire.hold()
    }),
    Way("sends broken UTF-8", PLAIN, "UTF-8", |wire| {
        wire.ask_upgrade()?;
        wire.masked(0x81, b"\xff\xfe")?;
        wire.hold()
    }),
    // ---- TLS
    Way("is silent in TLS", TLS, "too long for the TLS handshake", |wire| wire.hold()),
    Way("sends half a hello", TLS, "too long for the TLS handshake", half_a_hello),
    Way("resets after the hello", TLS, "reset", |wire| {
        let mut hello = wire.hello();
        hello.write_tls(&mut wire.tcp())?;
        wire.read_exact(&mut [0; 100])?;
        wire.reset()
    }),
    Way("speaks no TLS", TLS, "TLS handshake failed", |wire| {
        wire.say(UPGRADE)?;
        wire.hold()
    }),
    Way("is silent behind TLS", TLS, "no WebSocket, for too long", |wire| {
        wire.secure()?;
        wire.hold()
    }),
    Way("truncates the conversation", TLS, "close_notify", |wire| {
        wire.secure()?;
        wire.ask_upgrade()
    }),
    Way("talks behind TLS and reads nothing", TLS, "no sign of life", |wire| {
        wire.secure()?;
        wire.ask_upgrade()?;
        wire.flood(&masked(0x82, &[7; 60_000]))
    }),
];

/// Stops in the middle of the first message of TLS.
pub fn half_a_hello(wire: &mut Wire) -> io::Result<()> {
    let (mut hello, mut bytes) = (wire.hello(), Vec::new());
    hello.write_tls(&mut bytes)?;
    wire.tcp().write_all(&bytes[..bytes.len() / 2])?;
    wire.hold()
}

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPLOAD: &str = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";

const TO_HTTPS: &[Way] = &[
    Way("is silent", PLAIN, "no request in", |wire| wire.hold()),
    Way("closes at once", PLAIN, "", |_| Ok(())),
    Way("resets at once", PLAIN, "reset", |wire| wire.reset()),
    Way("sends half a head", PLAIN, "no request in|header", |wire| {
        wire.say(&HELLO[..20])?;
        wire.hold()
    }),
    Way("drips the head", PLAIN, "no request in|header", |wire| wire.drip(HELLO.as_bytes())),
    Way("closes in the head", PLAIN, "", |wire| wire.say(&HELLO[..20])),
    Way("has an endless head", PLAIN, "head is too large", |wire| {
        wire.say("GET /hello HTTP/1.1\r\nX-More: ")?;
        wire.flood(b"of it, ")
    }),
    Way("speaks no HTTP", PLAIN, "invalid HTTP", |wire| {
        wire.say("\x1b[2J EHLO\r\n\r\n")?;
        wire.rest().map(|_| ())
    }),
    Way("speaks TLS to a plain port", PLAIN, "invalid HTTP", |wire| {
        let mut hello = wire.hello();
        hello.write_tls(&mut wire.tcp())?;
        wire.hold()
    }),
    Way("stops in the body", PLAIN, "", |wire| {
        wire.say(UPLOAD)?;
        wire.say("part")?;
        wire.here();
        wire.head().and_then(|head| if head.contains("408") { Ok(()) } else { wire.hold() })
    }),
    Way("resets in the body", PLAIN, "reset|Broken pipe", |wire| {
        wire.say(UPLOAD)?;
        thread::sleep(Duration::from_millis(20));
        wire.reset()
    }),
    Way("has a length that is none", PLAIN, "invalid content-length", |wire| {
        wire.say("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n")?;
        wire.rest().map(|_| ())
    }),
    Way("is idle after a request", PLAIN, "", |wire| {
        wire.say(HELLO)?;
        wire.head()?;
        wire.here();
        wire.rest().map(|_| ())
    }),
    Way("begins HTTP/2 and is silent", PLAIN, "", |wire| {
        wire.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        wire.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])?;
        wire.hold()
    }),
    Way("sends an HTTP/2 frame too large", PLAIN, "frame", |wire| {
        wire.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        wire.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])?;
        wire.write_all(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1])?;
        wire.rest().map(|_| ())
    }),
    // ---- TLS
    Way("is silent in TLS", TLS, "too long for the TLS handshake", |wire| wire.hold()),
    Way("sends half a hello", TLS, "too long for the TLS handshake", half_a_hello),
    Way("speaks no TLS", TLS, "TLS handshake failed", |wire| {
        wire.say(HELLO)?;
        wire.hold()
    }),
    Way("resets after the hello", TLS, "reset", |wire| {
        let mut hello = wire.hello();
        hello.write_tls(&mut wire.tcp())?;
        wire.read_exact(&mut [0; 100])?;
        wire.reset()
    }),
    Way("is silent behind TLS", TLS, "no request in", |wire| {
        wire.secure()?;
        wire.hold()
    }),
    Way("truncates a body", TLS, "", |wire| {
        wire.secure()?;
        wire.say(UPLOAD)?;
        wire.say("part")
    }),
];

#[test]
fn ws_server_outlives_hostile_clients() {
    each_way(
        "ws_server",
        TO_WS,
        |way| way.0,
        |way, engine, keys| {
            let limits = ["--open-ms", "500", "--quiet-ms", "400", "--every-ms", "50"];
            outlive(
                way,
                ("ws_server", &limits, &["--every-ms", "50"]),
                engine,
                keys,
                |mut wire| {
                    wire.ask_upgrade()?;
                    wire.read_exact(&mut [0; 10])?;
                    wire.masked(0x88, b"\x03\xe8")?;
                    wire.rest().map(|_| ())
                },
            );
        },
    );
}

#[test]
fn https_server_outlives_hostile_clients() {
    each_way(
        "https_server",
        TO_HTTPS,
        |way| way.0,
        |way, engine, keys| {
            // What is under way has some grace, which is shortened here.
            let limits = ["--quiet-ms", "500", "--grace-ms", "300"];
            outlive(
                way,
                ("https_server", &limits, &["--grace-ms", "300"]),
                engine,
                keys,
                |mut wire| {
                    wire.say(&HELLO.replace("Host", "Connection: close\r\nHost"))?;
                    let answer = String::from_utf8(wire.rest()?).expect("text");
                    assert!(answer.ends_with("hello, HTTP/1.1\n"), "{answer}");
                    Ok(())
                },
            );
        },
    );
}

/// A server meets a client that misbehaves, and says so; then serves one that behaves, and is idle. Once
/// more, with its own limits: it is told to end while the client is in the middle.
pub fn outlive(
    Way(name, is_secure, cause, act): &Way,
    (example, limits, other): (&str, &[&str], &[&str]),
    engine: &str,
    keys: &Arc<Keys>,
    good: fn(Wire) -> io::Result<()>,
) {
    let start = |limits: &[&str]| {
        let (cert, key) = (keys.file("good.pem"), keys.file("good.key"));
        let plain: &[&str] = if example == "https_server" { &["--plain"] } else { &[] };
        let secure = ["--tls", cert.as_str(), key.as_str()];
        let tls: &[&str] = if *is_secure { &secure } else { plain };
        let (server, place) = serve(example, &[tls, limits].concat(), engine);
        let (_, port) = place.trim_end_matches('/').rsplit_once(':').expect("an address");
        (server, SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port"))))
    };
    let (server, addr) = start(limits);
    let before = server.descriptors();
    let (hostile, _) = attack(addr, *act, keys);
    if !cause.is_empty() {
        let line = server.wait_for(&format!("{hostile}: "));
        assert!(has_one(&line, cause), "{name}: {line}");
    }
    let mut wire = visit(addr, keys);
    if *is_secure {
        wire.secure().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    good(wire).unwrap_or_else(|error| panic!("{name}: a good client: {error}\n{}", server.text()));
    server.is_idle_again(before);
    does_not_spin(name, &server);
    is_over(name, server);

    let (server, addr) = start(other);
    let (_, reached) = attack(addr, *act, keys);
    let _ = reached.recv_timeout(Duration::from_millis(500)); // not every way has a middle
    thread::sleep(Duration::from_millis(100));
    is_over(name, server);
}

/// It ends as it should, with nothing in what it printed that a terminal would follow.
fn is_over(name: &str, server: Peer) {
    let (status, text) = ends_soon(server);
    // `tls_echo` has no handler, and ends by the signal.
    let by_signal = std::os::unix::process::ExitStatusExt::signal(&status).is_some();
    assert!(status.success() || by_signal, "{name}: {status}: {text}");
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{name}: {text:?}");
}

/// With a request under way it ends with grace; the second signal ends it at once.
#[test]
fn a_second_signal_ends_https_server_at_once() {
    let keys = Keys::new("hostile-second");
    for engine in crate::common::peer::engines() {
        let (server, url) = serve("https_server", &["--plain"], engine);
        let (_, port) = url.trim_end_matches('/').rsplit_once(':').expect("an address");
        let addr = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
        let (_, reached) = attack(
            addr,
            |wire| {
                wire.say(UPLOAD)?;
                wire.hold()
            },
            &keys,
        );
        reached.recv().expect("it gets there");
        thread::sleep(Duration::from_millis(100));
        server.signal(libc::SIGINT);
        server.wait_for("ending, 1 connections");
        let (status, text) = ends_soon(server);
        assert_eq!(status.code(), Some(130), "{text}");
    }
}

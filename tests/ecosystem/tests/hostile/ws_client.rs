//! `ws_client` against hostile servers.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::peer::Peer;
use crate::peers::Cert::{Expired, Good, Untrusted, WrongName};
use crate::peers::Place::{Backlog, Nobody, Plain, Raw, Tls};
use crate::peers::{Act, Keys, Place, Server, frame, switch};
use crate::{does_not_spin, each_way, ends_soon, example_on, has_one};

struct Way(&'static str, Place, Then, Act);

/// What the client makes of it.
enum Then {
    /// It says this, and comes back.
    Again(&'static str),
    /// It says this, and ends.
    Ends(&'static str),
}

use Then::{Again, Ends};

const WAYS: &[Way] = &[
    // ---- before there is HTTP
    Way("refuses", Nobody, Again("refused"), |_| Ok(())),
    Way("never accepts", Backlog, Again("not open after"), |_| Ok(())),
    Way("accepts and is silent", Plain, Again("not open after"), |wire| wire.hold()),
    Way("closes at once", Plain, Again(""), |_| Ok(())),
    Way("resets at once", Plain, Again("reset"), |wire| wire.reset()),
    Way("resets after the request", Plain, Again("reset"), |wire| {
        wire.head()?;
        wire.reset()
    }),
    // ---- the upgrade
    Way("closes after the request", Plain, Again("Handshake not finished"), |wire| {
        wire.head().map(|_| ())
    }),
    Way("sends half of the upgrade", Plain, Again("not open after"), |wire| {
        let answer = switch(&wire.head()?);
        wire.say(&answer[..40])?;
        wire.hold()
    }),
    Way("closes in the upgrade", Plain, Again("Handshake not finished"), |wire| {
        let answer = switch(&wire.head()?);
        wire.say(&answer[..40])
    }),
    Way("resets in the upgrade", Plain, Again("reset"), |wire| {
        let answer = switch(&wire.head()?);
        wire.say(&answer[..40])?;
        thread::sleep(Duration::from_millis(20));
        wire.reset()
    }),
    Way("drips the upgrade", Plain, Again("not open after"), |wire| {
        let answer = switch(&wire.head()?);
        wire.drip(answer.as_bytes())
    }),
    Way("has the wrong key", Plain, Again("Key mismatch"), |wire| {
        wire.head()?;
        wire.say(&switch("sec-websocket-key: another"))
    }),
    Way("upgrades to something else", Plain, Again("Upgrade"), |wire| {
        let answer = switch(&wire.head()?);
        wire.say(&answer.replace("websocket", "h2c"))
    }),
    Way("is a web server", Plain, Ends("the server says 200 OK"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    }),
    Way("forbids", Plain, Ends("the server says 403 Forbidden"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    }),
    Way("redirects", Plain, Ends("says 302 Found, at ws://elsewhere.test/"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 302 Found\r\nLocation: ws://elsewhere.test/\r\n\r\n")
    }),
    Way("has too many clients", Plain, Again("429 Too Many Requests"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
    }),
    Way("has a bad day", Plain, Again("503 Service Unavailable"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    }),
    Way("has an endless head", Plain, Again(""), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 101 Switching Protocols\r\n")?;
        wire.flood(b"X-More: of it\r\n")
    }),
    Way("speaks no HTTP", Plain, Again("HTTP"), |wire| {
        wire.say("220 mail.test ESMTP \x1b[31m\r\n")?;
        wire.hold()
    }),
    // ---- an open connection
    Way("opens and is silent", Plain, Again("no sign of life"), |wire| {
        wire.upgrade()?;
        wire.hold()
    }),
    Way("pings and reads nothing", Plain, Again("no sign of life"), |wire| {
        wire.upgrade()?;
        wire.flood(&frame(0x89, &[7; 100]))
    }),
    Way("drips a frame", Plain, Again("no sign of life"), |wire| {
        wire.upgrade()?;
        wire.drip(&frame(0x81, &[b'1'; 100]))
    }),
    Way("drops after one message", Plain, Again(""), |wire| {
        wire.upgrade()?;
        wire.frame(0x81, b"1")
    }),
    Way("resets after one message", Plain, Again("reset"), |wire| {
        wire.upgrade()?;
        wire.frame(0x81, b"1")?;
        thread::sleep(Duration::from_millis(20));
        wire.reset()
    }),
    Way("closes with 1000", Plain, Again("goodbye: enough (1000)"), |wire| {
        wire.upgrade()?;
        wire.frame(0x88, b"\x03\xe8enough")?;
        wire.rest().map(|_| ())
    }),
    Way("closes with 1001", Plain, Again("goodbye:  (1001)"), |wire| {
        wire.upgrade()?;
        wire.frame(0x88, b"\x03\xe9")?;
        wire.rest().map(|_| ())
    }),
    Way("closes with 1011", Plain, Again("goodbye: \\u001b[2J (1011)"), |wire| {
        wire.upgrade()?;
        wire.frame(0x88, b"\x03\xf3\x1b[2J")?;
        wire.rest().map(|_| ())
    }),
    Way("closes without a code", Plain, Again("the server says goodbye"), |wire| {
        wire.upgrade()?;
        wire.frame(0x88, b"")?;
        wire.rest().map(|_| ())
    }),
    Way("closes with an illegal code", Plain, Again(""), |wire| {
        wire.upgrade()?;
        wire.frame(0x88, b"\x03\xed")?; // 1005 is never sent
        wire.rest().map(|_| ())
    }),
    Way("closes with half a code", Plain, Again("close sequence"), |wire| {
        wire.upgrade()?;
        wire.frame(0x88, b"\x03")?;
        wire.rest().map(|_| ())
    }),
    Way("closes and stays", Plain, Again("the server says goodbye"), |wire| {
        wire.upgrade()?;
        wire.frame(0x88, b"\x03\xe8")?;
        wire.hold()
    }),
    Way("announces a frame of exabytes", Plain, Again("too"), |wire| {
        wire.upgrade()?;
        wire.write_all(b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")?;
        wire.hold()
    }),
    Way("sends a message without an end", Plain, Again("too"), |wire| {
        wire.upgrade()?;
        wire.frame(0x01, b"\"")?;
        wire.flood(&frame(0x00, &[b'x'; 8000]))
    }),
    Way("sends a ping that is too long", Plain, Again("ontrol frame"), |wire| {
        wire.upgrade()?;
        wire.frame(0x89, &[0; 200])?;
        wire.hold()
    }),
    Way("masks its frames", Plain, Again("masked"), |wire| {
        wire.upgrade()?;
        wire.masked(0x81, b"1")?;
        wire.hold()
    }),
    Way("has an opcode of its own", Plain, Again("pcode"), |wire| {
        wire.upgrade()?;
        wire.frame(0x83, b"1")?;
        wire.hold()
    }),
    Way("sets reserved bits", Plain, Again("eserved bits"), |wire| {
        wire.upgrade()?;
        wire.frame(0xf1, b"1")?;
        wire.hold()
    }),
    Way("sends broken UTF-8", Plain, Again("UTF-8"), |wire| {
        wire.upgrade()?;
        wire.frame(0x81, b"\"\xff\xfe\"")?;
        wire.hold()
    }),
    Way("sends what is no JSON", Plain, Again("the server says goodbye"), |wire| {
        wire.upgrade()?;
        wire.frame(0x81, b"{\x1b[2J")?;
        wire.frame(0x81, b"\"\xc2\x9b2J\"")?; // JSON, and a control character
        wire.frame(0x88, b"")?;
        wire.rest().map(|_| ())
    }),
    // ---- TLS
    Way("is silent in TLS", Raw, Again("not open after"), |wire| wire.hold()),
    Way("closes before TLS", Raw, Again(""), |_| Ok(())),
    Way("resets after the hello", Raw, Again("reset"), |wire| {
        wire.flight()?;
        wire.reset()
    }),
    Way("closes after the hello", Raw, Again("in the TLS handshake"), |wire| {
        wire.flight().map(|_| ())
    }),
    Way("sends half a handshake", Raw, Again("not open after"), |wire| {
        let flight = wire.flight()?;
        wire.write_all(&flight[..flight.len() / 2])?;
        wire.hold()
    }),
    Way("closes in the handshake", Raw, Again("in the TLS handshake|reset"), |wire| {
        let flight = wire.flight()?;
        wire.write_all(&flight[..flight.len() / 2])
    }),
    Way("resets in the handshake", Raw, Again("reset"), |wire| {
        let flight = wire.flight()?;
        wire.write_all(&flight[..flight.len() / 2])?;
        thread::sleep(Duration::from_millis(20));
        wire.reset()
    }),
    Way("drips the handshake", Raw, Again("not open after"), |wire| {
        let flight = wire.flight()?;
        wire.drip(&flight)
    }),
    Way("speaks no TLS", Raw, Again("TLS handshake failed"), |wire| {
        wire.say("HTTP/1.1 400 Bad Request\r\n\r\n")?;
        wire.hold()
    }),
    Way("has an internal error", Raw, Again("InternalError"), |wire| {
        wire.flight()?;
        wire.write_all(b"\x15\x03\x03\x00\x02\x02\x50")?;
        wire.hold()
    }),
    Way("does not like the hello", Raw, Ends("HandshakeFailure"), |wire| {
        wire.flight()?;
        wire.write_all(b"\x15\x03\x03\x00\x02\x02\x28")?;
        wire.hold()
    }),
    Way("has another's certificate", Tls(WrongName), Ends("not valid for name"), |_| Ok(())),
    Way("has an old certificate", Tls(Expired), Ends("expired"), |_| Ok(())),
    Way("is not trusted", Tls(Untrusted), Ends("invalid peer certificate"), |_| Ok(())),
    Way("is silent behind TLS", Tls(Good), Again("not open after"), |wire| wire.hold()),
    Way("truncates the upgrade", Tls(Good), Again("close_notify"), |wire| {
        let answer = switch(&wire.head()?);
        wire.say(&answer[..40])
    }),
    Way("truncates the conversation", Tls(Good), Again("close_notify"), |wire| {
        wire.upgrade()?;
        wire.frame(0x81, b"1")
    }),
    Way("sends a record that is none", Tls(Good), Again("TLS connection failed"), |wire| {
        wire.upgrade()?;
        wire.tcp().write_all(&[0x17, 3, 3, 0, 32].repeat(20))?;
        wire.hold()
    }),
    Way("pings behind TLS and reads nothing", Tls(Good), Again("no sign of life"), |wire| {
        wire.upgrade()?;
        wire.flood(&frame(0x89, &[7; 100]))
    }),
    Way("opens behind TLS and is silent", Tls(Good), Again("no sign of life"), |wire| {
        wire.upgrade()?;
        wire.hold()
    }),
];

#[test]
fn ws_client_outlives_hostile_servers() {
    each_way("ws_client", WAYS, |way| way.0, meet);
}

fn start(url: &str, engine: &str, keys: &Keys, limits: &[&str]) -> Peer {
    let mut command = example_on("ws_client", engine);
    let ca = keys.file("ca.pem");
    Peer::start(command.args([url, "--ca", &ca, "--delay-ms", "40"]).args(limits))
}

fn meet(Way(name, place, then, act): &Way, engine: &str, keys: &Arc<Keys>) {
    let server = Server::start(*place, *act, keys);
    let scheme = if place.is_secure() { "wss" } else { "ws" };
    let url = format!("{scheme}://localhost:{}/", server.addr.port());
    let client = start(&url, engine, keys, &["--open-ms", "400", "--quiet-ms", "400"]);
    let (Again(cause) | Ends(cause)) = then;
    if let Ends(_) = then {
        let (status, text) = client.end();
        assert_eq!(status.code(), Some(1), "{name}: {text}");
        assert!(text.starts_with(&format!("ws_client: {url}: ")), "{name}: {text}");
        assert!(has_one(&text, cause) && text.lines().count() == 1, "{name}: {text}");
        return;
    }
    // The watchdog ends this. On a busy machine the first cause may be that it took too long.
    let says_so = |client: &Peer| {
        client.text().lines().any(|line| line.contains("; again in ") && has_one(line, cause))
    };
    let has_come_back = || server.connections.load(Ordering::Relaxed) > 1 || !place.is_served();
    while !(says_so(&client) && has_come_back()) {
        thread::sleep(Duration::from_millis(5));
    }
    does_not_spin(name, &client);
    let (status, text) = ends_soon(client);
    assert!(status.success(), "{name}: {status}: {text}");
    for line in text.lines().filter(|line| line.contains("; again in ")) {
        assert!(line.starts_with(&format!("{url}: ")), "{name}: {text}");
    }
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{name}: {text:?}");

    // With its own limits, which are longer: told to end in the middle.
    let server = Server::start(*place, *act, keys);
    let url = format!("{scheme}://localhost:{}/", server.addr.port());
    let client = start(&url, engine, keys, &[]);
    // Nobody tells of a backlog. The others stop in the middle, or end.
    let until = Instant::now() + Duration::from_secs(1);
    while server.reached.try_recv().is_err() && !client.has_printed("; again in ") {
        if matches!(place, Backlog) && Instant::now() > until {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(50));
    let (status, text) = ends_soon(client);
    assert!(status.success(), "{name}: {status}: {text}");
}

/// A server that drops each connection after one message is not hit more and more often.
#[test]
fn ws_client_comes_back_ever_later() {
    let keys = Keys::new("hostile-backoff");
    let act: Act = |wire| {
        wire.upgrade()?;
        wire.frame(0x81, b"1")
    };
    let server = Server::start(Plain, act, &keys);
    let url = format!("ws://localhost:{}/", server.addr.port());
    let mut command = example_on("ws_client", "auto");
    let client = Peer::start(command.args([&url, "--delay-ms", "100"]));
    thread::sleep(Duration::from_secs(2));
    let (status, text) = ends_soon(client);
    assert!(status.success(), "{status}: {text}");
    // 0 to 100, 40 to 162, 65 to 262 ms, and so on: seven or fewer in two seconds, and one that was first.
    let connections = server.connections.load(Ordering::Relaxed);
    assert!((3..=9).contains(&connections), "{connections} connections:\n{text}");
}

/// What is wrong with the command is said before anybody is asked.
#[test]
fn ws_client_refuses() {
    for (url, cause) in [
        ("ws://localhost:99999/", "port 99999"),
        ("ws://localhost:0/", "port 0"),
        ("http://localhost/", "neither ws:// nor wss://"),
        ("localhost:80", "neither"),
        ("ws://", "ws://"),
    ] {
        let (status, text) = Peer::start(&mut example_on_auto(url)).end();
        assert_eq!(status.code(), Some(2), "{url}: {text}");
        assert!(text.lines().next().expect("a line").contains(cause), "{url}: {text}");
    }
}

fn example_on_auto(url: &str) -> std::process::Command {
    let mut command = example_on("ws_client", "auto");
    command.arg(url);
    command
}

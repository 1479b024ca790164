//! `http_client` against hostile servers.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::peer::Peer;
use crate::peers::Cert::{Expired, Good, Untrusted, WrongName};
use crate::peers::Place::{Backlog, Nobody, Plain, Raw, Tls};
use crate::peers::{Act, Keys, Place, Server};
use crate::{does_not_spin, each_way, ends_soon, example_on, has_one};

/// A name, where the server is, what the client says of it, and what the server does.
struct Way(&'static str, Place, Then, Act);

enum Then {
    Fails(&'static str),
    /// It is an answer, whatever its status.
    Answers(&'static str),
}

use Then::{Answers, Fails};

const WAYS: &[Way] = &[
    Way("refuses", Nobody, Fails("refused"), |_| Ok(())),
    Way("never accepts", Backlog, Fails("no answer in"), |_| Ok(())),
    Way("accepts and is silent", Plain, Fails("no answer in"), |wire| wire.hold()),
    Way("closes at once", Plain, Fails(""), |_| Ok(())),
    Way("resets after the request", Plain, Fails("reset"), |wire| {
        wire.head()?;
        wire.reset()
    }),
    Way("closes after the request", Plain, Fails("before message completed"), |wire| {
        wire.head().map(|_| ())
    }),
    Way("stops in the head", Plain, Fails("no answer in"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-")?;
        wire.hold()
    }),
    Way("closes in the head", Plain, Fails("before message completed"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-")
    }),
    Way("resets in the head", Plain, Fails("reset"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-")?;
        thread::sleep(Duration::from_millis(20));
        wire.reset()
    }),
    Way("drips the head", Plain, Fails("no answer in"), |wire| {
        wire.head()?;
        wire.drip("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1".as_bytes())
    }),
    Way("has an endless head", Plain, Fails("head is too large"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nX-More: ")?;
        wire.flood(b"of it, ")
    }),
    Way("always goes on", Plain, Fails("no answer in"), |wire| {
        wire.head()?;
        wire.flood(b"HTTP/1.1 100 Continue\r\n\r\n")
    }),
    Way("speaks no HTTP", Plain, Fails("invalid HTTP version"), |wire| {
        wire.head()?;
        wire.say("220 mail.test ESMTP \x1b[31m\r\n\r\n")?;
        wire.hold()
    }),
    Way("stops in the body", Plain, Fails("goes on no more in"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")?;
        wire.hold()
    }),
    Way("closes in the body", Plain, Fails("end of file before message length"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
    }),
    Way("resets in the body", Plain, Fails("reset"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")?;
        thread::sleep(Duration::from_millis(20));
        wire.reset()
    }),
    Way("drips the body", Plain, Fails("not all of it after"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")?;
        wire.drip(&[b'x'; 100])
    }),
    Way("has a chunk of exabytes", Plain, Fails("chunk"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        wire.say("fffffffffffffffff\r\n")?;
        wire.hold()
    }),
    Way("has too many clients", Plain, Answers("429 Too Many Requests HTTP/1.1"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
    }),
    Way("has a bad day", Plain, Answers("503 Service Unavailable HTTP/1.1"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    }),
    Way("redirects", Plain, Answers("302 Found HTTP/1.1, at http://elsewhere.test/"), |wire| {
        wire.head()?;
        wire.say(
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n",
        )
    }),
    // ---- TLS
    Way("is silent in TLS", Raw, Fails("no connection in"), |wire| wire.hold()),
    Way("resets after the hello", Raw, Fails("reset"), |wire| {
        wire.flight()?;
        wire.reset()
    }),
    Way("sends half a handshake", Raw, Fails("no connection in"), |wire| {
        let flight = wire.flight()?;
        wire.write_all(&flight[..flight.len() / 2])?;
        wire.hold()
    }),
    Way("closes in the handshake", Raw, Fails("in the TLS handshake|reset"), |wire| {
        let flight = wire.flight()?;
        wire.write_all(&flight[..flight.len() / 2])
    }),
    Way("drips the handshake", Raw, Fails("no connection in"), |wire| {
        let flight = wire.flight()?;
        wire.drip(&flight)
    }),
    Way("speaks no TLS", Raw, Fails("TLS handshake failed"), |wire| {
        wire.say("HTTP/1.1 400 Bad Request\r\n\r\n")?;
        wire.hold()
    }),
    Way("has an internal error", Raw, Fails("InternalError"), |wire| {
        wire.flight()?;
        wire.write_all(b"\x15\x03\x03\x00\x02\x02\x50")?;
        wire.hold()
    }),
    Way("has another's certificate", Tls(WrongName), Fails("not valid for name"), |_| Ok(())),
    Way("has an old certificate", Tls(Expired), Fails("expired"), |_| Ok(())),
    Way("is not trusted", Tls(Untrusted), Fails("invalid peer certificate"), |_| Ok(())),
    Way("is silent behind TLS", Tls(Good), Fails("no answer in"), |wire| wire.hold()),
    Way("truncates a body without a length", Tls(Good), Fails("close_notify"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\n\r\nthis may not be all")
    }),
    Way("sends a record that is none", Tls(Good), Fails("TLS connection failed"), |wire| {
        wire.head()?;
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")?;
        wire.tcp().write_all(&[0x17, 3, 3, 0, 32].repeat(20))?;
        wire.hold()
    }),
];

#[test]
fn http_client_outlives_hostile_servers() {
    each_way("http_client", WAYS, |way| way.0, meet);
}

fn start(
    server: &Server,
    place: Place,
    engine: &str,
    keys: &Keys,
    limits: &[&str],
) -> (Peer, String) {
    let scheme = if place.is_secure() { "https" } else { "http" };
    let url = format!("{scheme}://localhost:{}/", server.addr.port());
    let mut command = example_on("http_client", engine);
    let ca = keys.file("ca.pem");
    (Peer::start(command.args([&url, "--ca", &ca]).args(limits)), url)
}

fn meet(Way(name, place, then, act): &Way, engine: &str, keys: &Arc<Keys>) {
    let server = Server::start(*place, *act, keys);
    let limits = ["--step-ms", "1000", "--whole-ms", "2000"];
    let (client, url) = start(&server, *place, engine, keys, &limits);
    let begin = Instant::now();
    let (status, text) = client.end();
    assert!(begin.elapsed() < Duration::from_secs(5), "{name}: {:?}", begin.elapsed());
    match then {
        Fails(cause) => {
            assert_eq!(status.code(), Some(1), "{name}: {text}");
            let line = text.lines().last().expect("it says something");
            assert!(line.starts_with(&format!("http_client: {url}: ")), "{name}: {text}");
            assert!(has_one(line, cause), "{name}: {text}");
        }
        Answers(line) => {
            assert!(status.success(), "{name}: {text}");
            assert_eq!(text, format!("{url}: {line}\n"), "{name}");
        }
    }
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{name}: {text:?}");

    // With its own limits, which are longer, in the middle of what does not end.
    if server.reached.try_recv().is_err() && !matches!(place, Place::Backlog) {
        return;
    }
    let server = Server::start(*place, *act, keys);
    let (mut client, _) = start(&server, *place, engine, keys, &[]);
    let _ = server.reached.recv_timeout(Duration::from_millis(1500)); // nobody tells of a backlog
    thread::sleep(Duration::from_millis(200));
    if client.has_ended() {
        return; // what was bad came before the stop
    }
    does_not_spin(name, &client);
    let (status, text) = ends_soon(client);
    let by_signal = [libc::SIGINT, libc::SIGTERM].map(Some).contains(&status.signal());
    assert!(by_signal || status.code() == Some(1), "{name}: {status}: {text}");
}

/// What is wrong with the command is said before anybody is asked.
#[test]
fn http_client_refuses() {
    for (url, cause) in [
        ("http://localhost:99999/", "port 99999"),
        ("ws://localhost/", "neither http:// nor https://"),
        ("http://", "http://"),
    ] {
        let (status, text) = Peer::start(example_on("http_client", "auto").arg(url)).end();
        assert_eq!(status.code(), Some(2), "{url}: {text}");
        assert!(text.lines().next().expect("a line").contains(cause), "{url}: {text}");
    }
}

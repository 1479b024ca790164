//! `tls_echo` against hostile clients, and `proxy` between hostile peers.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::common::example::{is_built, serve};
use crate::peers::{Act, Keys, Place, Server, attack, visit};
use crate::web_servers::{Way, half_a_hello, outlive};
use crate::{does_not_spin, each_way, ends_soon, has_one};

const TLS: bool = true;

const TO_ECHO: &[Way] = &[
    Way("is silent", TLS, "too long for the TLS handshake", |wire| wire.hold()),
    Way("closes at once", TLS, "in the TLS handshake", |_| Ok(())),
    Way("resets at once", TLS, "reset", |wire| wire.reset()),
    Way("sends half a hello", TLS, "too long for the TLS handshake", half_a_hello),
    Way("drips the hello", TLS, "too long for the TLS handshake", |wire| {
        let (mut hello, mut bytes) = (wire.hello(), Vec::new());
        hello.write_tls(&mut bytes)?;
        wire.drip(&bytes)
    }),
    Way("resets after the hello", TLS, "reset", |wire| {
        let mut hello = wire.hello();
        hello.write_tls(&mut wire.tcp())?;
        wire.read_exact(&mut [0; 100])?;
        wire.reset()
    }),
    Way("speaks no TLS", TLS, "TLS handshake failed", |wire| {
        wire.say("GET / HTTP/1.1\r\n\r\n")?;
        wire.hold()
    }),
    Way("is silent behind TLS", TLS, "nothing moves for", |wire| {
        wire.secure()?;
        wire.hold()
    }),
    Way("sends and reads nothing", TLS, "nothing moves for", |wire| {
        wire.secure()?;
        wire.flood(&[7; 1000])
    }),
    Way("truncates", TLS, "close_notify", |wire| {
        wire.secure()?;
        wire.say("part")?;
        wire.read_exact(&mut [0; 4])
    }),
    Way("resets behind TLS", TLS, "reset", |wire| {
        wire.secure()?;
        wire.say("part")?;
        wire.read_exact(&mut [0; 4])?;
        wire.reset()
    }),
    Way("sends a record that is none", TLS, "TLS connection failed", |wire| {
        wire.secure()?;
        wire.tcp().write_all(&[0x17, 3, 3, 0, 32].repeat(20))?;
        wire.hold()
    }),
];

#[test]
fn tls_echo_outlives_hostile_clients() {
    each_way(
        "tls_echo",
        TO_ECHO,
        |way| way.0,
        |way, engine, keys| {
            outlive(way, ("tls_echo", &["--quiet-ms", "500"], &[]), engine, keys, |mut wire| {
                wire.say("there and back")?;
                wire.read_exact(&mut [0; 14])
            });
        },
    );
}

/// A name, what the proxy says of it, what the client does, where the server is and what it does.
struct Pair(&'static str, &'static str, Act, Place, Act);

const BOTH_SIDES: &[Pair] = &[
    Pair("nobody is behind it", "refused", |wire| wire.hold(), Place::Nobody, |_| Ok(())),
    Pair("the server never accepts", "nothing moves", |w| w.hold(), Place::Backlog, |_| Ok(())),
    Pair("both are silent", "nothing moves", |wire| wire.hold(), Place::Plain, |wire| wire.hold()),
    Pair(
        "the client resets",
        "the client: Connection reset",
        |wire| {
            wire.say("part")?;
            wire.read_exact(&mut [0; 4])?;
            wire.reset()
        },
        Place::Plain,
        |wire| {
            wire.say("part")?;
            wire.hold()
        },
    ),
    Pair(
        "the server resets",
        "the server: Connection reset",
        |wire| wire.hold(),
        Place::Plain,
        |wire| {
            thread::sleep(Duration::from_millis(20));
            wire.reset()
        },
    ),
    Pair(
        // What was to be an end for the client finds nobody: that is no news of its own.
        "the client resets when the server has ended",
        "the client: Connection reset",
        |wire| {
            wire.rest()?;
            wire.reset()
        },
        Place::Plain,
        |wire| {
            wire.tcp().shutdown(std::net::Shutdown::Write)?;
            wire.hold()
        },
    ),
    Pair(
        "the server reads nothing",
        "nothing moves",
        |wire| wire.flood(&[7; 1000]),
        Place::Plain,
        |wire| wire.hold(),
    ),
    Pair(
        "the client reads nothing",
        "nothing moves",
        |wire| wire.hold(),
        Place::Plain,
        |wire| wire.flood(&[7; 1000]),
    ),
    Pair(
        "one direction ends and the other is silent",
        "nothing moves",
        |wire| {
            wire.tcp().shutdown(std::net::Shutdown::Write)?;
            wire.hold()
        },
        Place::Plain,
        |wire| wire.hold(),
    ),
];

#[test]
fn proxy_outlives_hostile_peers() {
    if !is_built("proxy") {
        return;
    }
    each_way(
        "proxy",
        BOTH_SIDES,
        |pair| pair.0,
        |pair, engine, keys| {
            let Pair(name, cause, act, place, answer) = pair;
            for limits in [&["--quiet-ms", "500"][..], &[]] {
                let behind = Server::start(*place, *answer, keys);
                let to = behind.addr.to_string();
                let (proxy, addr) = serve("proxy", &[&["--to", &to], limits].concat(), engine);
                let addr: SocketAddr = addr.parse().expect("an address");
                let before = proxy.descriptors();
                let (hostile, reached) = attack(addr, *act, keys);
                if limits.is_empty() {
                    // With its own limits, in the middle.
                    let _ = reached.recv_timeout(Duration::from_millis(500));
                    thread::sleep(Duration::from_millis(100));
                } else {
                    let line = proxy.wait_for(&format!("{hostile} to {to}: "));
                    assert!(has_one(&line, cause), "{name}: {line}");
                    proxy.is_idle_again(before);
                    assert_eq!(proxy.text().lines().count(), 2, "{name}: {}", proxy.text());
                }
                does_not_spin(name, &proxy);
                let (status, text) = ends_soon(proxy);
                assert!(status.success(), "{name}: {status}: {text}");
            }
        },
    );
}

/// Somebody behaves while others do not.
#[test]
fn proxy_serves_the_good_ones_beside_the_bad() {
    if !is_built("proxy") {
        return;
    }
    let keys: Arc<Keys> = Keys::new("hostile-beside");
    let echo: Act = |wire| {
        let mut buf = [0; 100];
        loop {
            match wire.read(&mut buf)? {
                0 => return Ok(()),
                len => wire.write_all(&buf[..len])?,
            }
        }
    };
    for engine in crate::common::peer::engines() {
        let behind = Server::start(Place::Plain, echo, &keys);
        let to = behind.addr.to_string();
        let (_proxy, addr) = serve("proxy", &["--to", &to], engine);
        let addr: SocketAddr = addr.parse().expect("an address");
        for act in
            [|wire| wire.hold(), |wire| wire.flood(&[7; 100]), |wire| wire.reset()] as [Act; 3]
        {
            attack(addr, act, &keys);
        }
        let mut good = visit(addr, &keys);
        for _ in 0..100 {
            good.say("there and back").expect("connected");
            good.read_exact(&mut [0; 14]).expect("connected");
        }
    }
}
